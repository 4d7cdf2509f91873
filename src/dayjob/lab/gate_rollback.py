"""The watch's half of ``dayjob lab gate``: how soon is a champion withdrawn that is worse than what it replaced?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dayjob.gate.control import ANONYMOUS
from dayjob.gate.trial import from_clicks
from dayjob.gate.watch import Arms, WatchState, finding, observe_arms, observe_pairs

_EVERY = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """``old``/``new``: chance that someone who looks wants the first choice of the old version and of the champion.

    Before decision ``turn`` the champion is as good as the old one. ``pairs`` and ``holdback``: shares of the traffic.
    """

    name: str
    old: float
    new: float
    blind: float
    pairs: float
    holdback: float = 0.05
    turn: int = 0
    after: int = 4000
    people: int = 300
    named: bool = True


ROLLBACKS = (
    *(
        Damage(name=f"click value -30 %, honest, {pairs:.0%} pairs", old=0.5, new=0.35, blind=0.0, pairs=pairs)
        for pairs in (0.0, 0.1, 0.2)
    ),
    Damage(name="click value -30 %, honest, 35% pairs", old=0.5, new=0.35, blind=0.0, pairs=0.35),
    Damage(name="the same, bad only after 5,000, 35 % pairs", old=0.5, new=0.35, blind=0.0, pairs=0.35, turn=5000),
    Damage(name="the same, bad only after 5,000, 20 % pairs", old=0.5, new=0.35, blind=0.0, pairs=0.2, turn=5000),
    *(
        Damage(name=f"nearly never right, 65 % blind, {pairs:.0%} pairs", old=0.3, new=0.05, blind=0.65, pairs=pairs)
        for pairs in (0.2, 0.35, 0.5)
    ),
    Damage(name="the same, bad only after 5,000, 35 % pairs", old=0.3, new=0.05, blind=0.65, pairs=0.35, turn=5000),
    Damage(name="click value -30 %, 65 % blind, 50 % pairs", old=0.5, new=0.35, blind=0.65, pairs=0.5),
    Damage(name="no damage, 65 % blind, 35 % pairs", old=0.3, new=0.3, blind=0.65, pairs=0.35, after=6000),
    Damage(name="no damage, honest, 20 % pairs", old=0.5, new=0.5, blind=0.0, pairs=0.2, after=6000),
)


def rollback_rows(damages: Sequence[Damage], *, seeds: Sequence[int], runs: int, alpha: float) -> list[dict[str, Any]]:
    """One row a damage: rolled back too early (false), within 2,000 decisions of the turn, and the median delay."""
    rows = []
    for damage in damages:
        delays = np.array(
            [_delay(damage, np.random.default_rng([seed, 7, r]), alpha=alpha) for seed in seeds for r in range(runs)]
        )
        false = delays <= 0 if damage.new < damage.old else np.isfinite(delays)
        row: dict[str, Any] = {"champion": damage.name, "runs": delays.size, "false alarms": float(false.mean())}
        if damage.new < damage.old:
            row["within 2,000"] = float(((delays > 0) & (delays <= 2000)).mean())
            middle = float(np.median(delays))
            row["median decisions"] = int(middle) if np.isfinite(middle) else "over the end"
        rows.append(row)
    return rows


def _delay(damage: Damage, rng: np.random.Generator, *, alpha: float) -> float:
    """Decisions from the turn to the rollback, looked at every hundred; infinity when it never came."""
    size = damage.turn + damage.after
    user = rng.integers(0, damage.people, size)
    blind = (rng.random(damage.people) < damage.blind)[user]
    new = np.where(np.arange(size) < damage.turn, damage.old, damage.new)
    role, wish, coin = rng.random(size), rng.random(size), rng.choice([-1, 1], size)
    is_pair, is_base = role < damage.pairs, (role >= damage.pairs) & (role < damage.pairs + damage.holdback)
    # On one page both cannot be what one person wants: chances that sum to more than 1 are scaled to it.
    crowd = np.maximum(1.0, damage.old + new)
    wanted = np.where(wish < damage.old / crowd, 1, np.where(wish < (damage.old + new) / crowd, -1, 0))
    clicked = np.where(blind, coin, wanted)
    reward = np.where(blind, 1.0, (wish < np.where(is_base, damage.old, new)).astype(np.float64))
    name = user if damage.named else np.full(size, ANONYMOUS)
    state = WatchState(least_chance=damage.holdback)
    for start in range(0, size, _EVERY):
        part = np.arange(start, min(start + _EVERY, size))
        pairs, alone = part[is_pair[part]], part[~is_pair[part]]
        state = observe_pairs(state, from_clicks(clicked[pairs], coin[pairs], user_N=name[pairs]))
        state = observe_arms(
            state,
            Arms(
                reward_N=reward[alone],
                baseline_N=is_base[alone],
                chance_champion_N=np.full(alone.size, 1.0 - damage.pairs - damage.holdback),
                chance_baseline_N=np.full(alone.size, damage.holdback),
            ),
        )
        if finding(state, alpha=alpha).rollback:
            return float(part[-1] + 1 - damage.turn)
    return float("inf")
