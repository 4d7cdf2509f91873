"""The watch's half of ``dayjob lab gate``: how soon is a champion withdrawn that is worse than what it replaced?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dayjob.gate.control import ANONYMOUS
from dayjob.gate.shares import FRESH, RISE, Toll, Traffic, share_out
from dayjob.gate.trial import from_clicks
from dayjob.gate.watch import Arms, WatchState, finding, observe_arms, observe_pairs

_EVERY = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """``old``/``new``: chance that someone who looks wants the first choice of the old version and of the champion.

    Before decision ``turn`` the champion is as good as the old one. ``pairs`` and ``holdback``: shares of the traffic;
    with ``most`` the share of pairs follows the record as the judge's does (``gate.shares``), between the two.
    """

    name: str
    old: float
    new: float
    blind: float
    pairs: float
    most: float | None = None
    holdback: float = 0.03
    turn: int = 0
    after: int = 4000
    people: int = 300
    named: bool = True


_HONEST: dict[str, Any] = {"old": 0.5, "new": 0.35, "blind": 0.0}
_BLIND: dict[str, Any] = {"old": 0.3, "new": 0.05, "blind": 0.65}
_LATE: dict[str, Any] = {"turn": 3000, "after": 2500}
_STEERED: dict[str, Any] = {"pairs": 0.1, "most": 0.5}  # the shares that are set by default
_BUDGETED: dict[str, Any] = {"pairs": 0.025, "most": 0.5}  # where the budget has scaled the watch down

ROLLBACKS = (
    *(
        Damage(name=f"{what}, {share}", pairs=pairs, **harm, **when)
        for what, harm in (("click value -30 %, honest", _HONEST), ("nearly never right, 65 % blind", _BLIND))
        for share, pairs, when in (
            ("no pairs", 0.0, {}), ("10 % pairs", 0.1, {}), ("10 % pairs, bad only after 3,000", 0.1, _LATE),
        )
    ),
    *(
        Damage(name=f"{what}, {share} pairs{late}", **harm, **steered, **when)
        for what, harm in (("click value -30 %, honest", _HONEST), ("nearly never right, 65 % blind", _BLIND))
        for share, steered in (("10 to 50 %", _STEERED), ("2.5 to 50 %", _BUDGETED))
        for late, when in (("", {}), (", bad only after 3,000", _LATE))
    ),
    Damage(name="no damage, honest, 10 to 50 % pairs", old=0.5, new=0.5, blind=0.0, after=6000, **_STEERED),
    Damage(name="no damage, 65 % blind, 10 to 50 % pairs", old=0.3, new=0.3, blind=0.65, after=6000, **_STEERED),
    Damage(name="10 points better, honest, 10 to 50 % pairs", old=0.4, new=0.5, blind=0.0, after=6000, **_STEERED),
    Damage(name="10 points better, honest, 2.5 to 50 % pairs", old=0.4, new=0.5, blind=0.0, after=6000, **_BUDGETED),
)  # fmt: skip


def rollback_rows(damages: Sequence[Damage], *, seeds: Sequence[int], runs: int, alpha: float) -> list[dict[str, Any]]:
    """One row a damage: rolled back too early (false), within 2,000 decisions of the turn, and the median delay.

    ``pairs shown``: the mean share of the traffic that was paired, until the rollback or the end.
    """
    rows = []
    for damage in damages:
        found = [_life(damage, np.random.default_rng([seed, 7, r]), alpha=alpha) for seed in seeds for r in range(runs)]
        delays = np.array([delay for delay, _ in found])
        false = delays <= 0 if damage.new < damage.old else np.isfinite(delays)
        row: dict[str, Any] = {"champion": damage.name, "runs": delays.size, "false alarms": float(false.mean())}
        if damage.new < damage.old:
            row["within 2,000"] = float(((delays > 0) & (delays <= 2000)).mean())
            middle = float(np.median(delays))
            row["median decisions"] = int(middle) if np.isfinite(middle) else "over the end"
        row["pairs shown"] = float(np.mean([shown for _, shown in found]))
        rows.append(row)
    return rows


def _life(damage: Damage, rng: np.random.Generator, *, alpha: float) -> tuple[float, float]:
    """Decisions from the turn to the rollback (infinity: never), looked at every hundred; and the share of pairs."""
    size = damage.turn + damage.after
    user = rng.integers(0, damage.people, size)
    blind = (rng.random(damage.people) < damage.blind)[user]
    new = np.where(np.arange(size) < damage.turn, damage.old, damage.new)
    role, wish, coin = rng.random(size), rng.random(size), rng.choice([-1, 1], size)
    # On one page both cannot be what one person wants: chances that sum to more than 1 are scaled to it.
    crowd = np.maximum(1.0, damage.old + new)
    wanted = np.where(wish < damage.old / crowd, 1, np.where(wish < (damage.old + new) / crowd, -1, 0))
    clicked = np.where(blind, coin, wanted)
    name = user if damage.named else np.full(size, ANONYMOUS)
    state, shown = WatchState(), 0
    for start in range(0, size, _EVERY):
        part = np.arange(start, min(start + _EVERY, size))
        share = _share(damage, state)
        is_base = role[part] < damage.holdback
        is_pair = ~is_base & (role[part] < damage.holdback + share)
        pairs, alone = part[is_pair], part[~is_pair]
        base = is_base[~is_pair]
        shown += pairs.size
        reward = np.where(blind[alone], 1.0, wish[alone] < np.where(base, damage.old, new[alone]))
        state = observe_pairs(state, from_clicks(clicked[pairs], coin[pairs], user_N=name[pairs]))
        state = observe_arms(
            state,
            Arms(
                reward_N=reward.astype(np.float64),
                baseline_N=base,
                held_N=np.full(alone.size, damage.holdback),
                alone_N=np.full(alone.size, 1.0 - share - damage.holdback),
                user_N=name[alone],
            ),
        )
        if finding(state, alpha=alpha).rollback:
            return float(part[-1] + 1 - damage.turn), shown / (part[-1] + 1)
    return float("inf"), shown / size


def _share(damage: Damage, state: WatchState) -> float:
    if damage.most is None:
        return damage.pairs
    traffic = Traffic(holdback=damage.holdback, watch=damage.pairs, watch_most=damage.most)
    return share_out(traffic, Toll(), fresh=state.seen < FRESH, harm=state.rise > RISE, tried=False).watch
