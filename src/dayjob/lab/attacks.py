"""Attacks on learning (P1 to P3 of the threat table): what poisoned clicks leave of the gain, and what the gate says.

Each cell is one attack on one seed of the Geospot world: the recipe learns from what the caller's order collected under
attack, is judged on photos that nobody played with, and then stands a trial whose users are attacked in the same way.
Photos, users and attackers are simulated.

* P1: a share clicks the first place unseen, the rest click the closest.
* P2: a share clicks anywhere, the rest click the closest.
* P3: accounts that always click whatever is nearest to one pushed place, among 400 people of whom 65 % click unseen: a
  few heavy accounts, or sock puppets that never come twice.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from geospot.users import POPULATIONS, Population, UserConfig, Users
from geospot.world import Photos, haversine_km
from rich.console import Console
from rich.progress import Progress

from dayjob.config import Config
from dayjob.endings import FeedbackState, VerdictKind
from dayjob.gate import trial
from dayjob.gate.elond import Elond
from dayjob.gate.trial import TrialState, from_clicks
from dayjob.gate.verdict import Terms, VerdictResult, decide
from dayjob.lab import geospot_journal as journals
from dayjob.lab.figures import interval, keep, machine, markdown, percent, write
from dayjob.lab.gate import print_rows
from dayjob.lab.geospot_offline import CHANGED_FIRST, HELD_OUT, HIDDEN, Field, load_field
from dayjob.learn.fit import fit
from dayjob.learn.recipes import Debiased
from dayjob.policies.plackett_luce import calibrate
from dayjob.policies.protocol import Ranker
from dayjob.policies.ranker import NumpyRanker
from dayjob.signals.clicklog import ClickLog
from dayjob.signals.detector import feedback
from dayjob.signals.features import learned_score

I64 = npt.NDArray[np.int64]

ROUNDS, LEARNED = 20_000, 5_000  # interactions in all, and those that are learned from; the rest may judge
QUICK_ROUNDS, QUICK_LEARNED, QUICK_HELD_OUT = 2_000, 1_000, 1_000
CODE = ("learn", "objectives", "policies", "signals", "gate", "lab", "apps/geospot")  # that decide about the figures
PUSHED = (0.0, 0.0)  # the place that puppets push, degrees
ALPHA, BATCH = 0.05, 100
WORSE = 0.01  # worse than the baseline by more than this share is below it
TRIAL_SHARE = Config().trial_share


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """``puppets`` is the share of traffic that pushes; ``accounts`` share it, 0: a fresh account each time."""

    series: str
    name: str
    users: UserConfig
    puppets: float = 0.0
    accounts: int = 0

    def slug(self) -> str:
        """Its name in a file's name."""
        return "".join(letter if letter.isalnum() else "-" for letter in f"{self.series} {self.name}").lower()


PEOPLE = POPULATIONS[Population.MIXED]
HONEST = "nobody"
ATTACKS = (
    Attack(series="P1", name=HONEST, users=UserConfig(pull=0.0)),
    *(
        Attack(series="P1", name=f"{share:.0%} click position 1", users=UserConfig(pull=share))
        for share in (0.10, 0.30, 0.50, 0.65, 1.0)
    ),
    Attack(series="P2", name=HONEST, users=UserConfig(pull=0.0)),
    *(
        Attack(series="P2", name=f"{share:.0%} click anywhere", users=UserConfig(pull=0.0, random=share))
        for share in (0.10, 0.30, 0.50)
    ),
    Attack(series="P3", name=HONEST, users=PEOPLE),
    *(
        Attack(
            series="P3",
            name=f"{count} account{'s' if count > 1 else ''} with {share:.0%}",
            users=PEOPLE,
            puppets=share,
            accounts=count,
        )
        for count, share in ((1, 0.10), (4, 0.10), (4, 0.30))
    ),
    *(
        Attack(series="P3", name=f"sock puppets with {share:.0%}", users=PEOPLE, puppets=share)
        for share in (0.01, 0.03, 0.05, 0.10, 0.20, 0.30)
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clicks:
    """N lists as they were shown (slot at each position) and clicked (position, -1 none), by whom."""

    shown_NK: I64
    click_N: I64
    user_N: I64


def clicks(attack: Attack, field: Field, *, photos: Photos, shown_NK: I64, rng: np.random.Generator) -> Clicks:
    """People and attackers before these lists."""
    users, count = Users(attack.users), len(photos)
    user_N = users.draw(count, rng).astype(np.int64)
    click_N = users.click(np.take_along_axis(photos.distance_NK, shown_NK, axis=1), user_N, rng=rng).astype(np.int64)
    pushed_N = (shown_NK == pushed_slot(field, photos)[:, None]).argmax(axis=1)
    puppet_N = rng.random(count) < attack.puppets
    fresh = 10**6 + np.arange(count)
    account_N = 10**6 + rng.integers(attack.accounts, size=count) if attack.accounts else fresh + rng.integers(10**9)
    return Clicks(
        shown_NK=shown_NK,
        click_N=np.where(puppet_N, pushed_N, click_N),
        user_N=np.where(puppet_N, account_N, user_N),
    )


def pushed_slot(field: Field, photos: Photos) -> I64:
    """The candidate of each photo that is nearest to the pushed place."""
    slot_N: I64 = haversine_km(field.world.gallery.coords_G2[photos.candidate_NK], PUSHED).argmin(axis=1)
    return slot_N


def cell(attack: Attack, field: Field, *, learned: int) -> dict[str, Any]:
    """One attack on one seed: learn under it, judge on photos nobody played with, try under it."""
    rng = np.random.default_rng([field.seed, 4])
    photos = field.learn.rows(slice(0, learned))
    score_NK = journals.base_scores(field.world, photos)
    explore = calibrate(list(score_NK[:500]), changed_first=CHANGED_FIRST)
    shown_NK, propensity_NK = journals.draw(score_NK, explore, rng=rng)
    told = clicks(attack, field, photos=photos, shown_NK=shown_NK, rng=rng)
    replay = journals.as_replay(
        field.world, photos, shown_NK=shown_NK, propensity_NK=propensity_NK,
        click_N=told.click_N, user_N=_numbered(told.user_N),
    )  # fmt: skip
    fitted = fit(replay, shape=HIDDEN, recipe=Debiased(), seed=field.seed)
    ranker = NumpyRanker(fitted.weights, fitted.network)
    first_N = journals.scores(field.world, field.test, ranker=ranker).argmax(axis=1)
    pushed_N = pushed_slot(field, field.test)
    state = clicks_say(field, photos, told=told)
    verdict = trial_of(attack, field, ranker=ranker, state=state, after=learned, rng=rng)
    return {
        "series": attack.series, "attack": attack.name, "seed": field.seed, "change": field.change(first_N),
        "pushed_first": float((first_N == pushed_N).mean()), "pushed_before": float((pushed_N == 0).mean()),
        "kept_baseline": bool(fitted.stats.get("kept_baseline")), "state": state.value,
        "verdict": verdict.kind.value, "closed": verdict.grounds.closed, "effect": verdict.grounds.effect,
    }  # fmt: skip


def clicks_say(field: Field, photos: Photos, *, told: Clicks) -> FeedbackState:
    """What the detector makes of these clicks, with the columns that a server would give it."""
    count, width = told.shown_NK.shape
    pair_NKP, base_NK = field.world.pairs(photos.similarity_NK)
    feature_NKF = np.concatenate([base_NK[..., None], pair_NKP], axis=2).astype(np.float64)
    item_NK = np.arange(count * width).reshape(count, width)  # a place is another thing for another photo
    log = ClickLog(
        item_BK=np.take_along_axis(item_NK, told.shown_NK, axis=1),
        click_BK=told.click_N[:, None] == np.arange(width),
        propensity_BK=np.full((count, width), np.nan),
        intervened_B=np.zeros(count, bool),
        first_B=item_NK[:, 0],
        user_B=told.user_N,
        score_BK=np.take_along_axis(base_NK, told.shown_NK, axis=1).astype(np.float64),
        truth_B=np.full(count, -1),
        reward_B=np.full(count, np.nan),
        feature_BKF=np.take_along_axis(feature_NKF, told.shown_NK[..., None], axis=1),
        order_B=np.full(count, -1),
        rival_B=np.full(count, -1),
    )
    learned_BK = learned_score(log.feature_BKF, log.click_B, shown_BK=log.shown_BK)
    return feedback(log, learned_BK=learned_BK).state


def trial_of(
    attack: Attack, field: Field, *, ranker: Ranker, state: FeedbackState, after: int, rng: np.random.Generator
) -> VerdictResult:
    """The gate's verdict on the fit against the baseline over the photos from ``after`` on, in pairs by a fair coin."""
    photos = field.learn.rows(slice(after, None))
    belief_NK = journals.beliefs(field.world, photos, ranker=ranker)
    rival_N, count = belief_NK.argmax(axis=1), len(photos)
    pair_N = (rival_N != 0) & (rng.random(count) < TRIAL_SHARE)
    coin_N = np.where(rng.random(count) < 0.5, 1, -1)
    key_NK = np.tile(np.arange(photos.candidate_NK.shape[1], dtype=np.float64), (count, 1))
    rows = np.arange(count)
    key_NK[rows, rival_N] = np.where(coin_N == 1, -1.0, 0.5)  # the champion's first choice is slot 0, at key 0
    shown_NK = np.argsort(key_NK, axis=1, kind="stable")
    told = clicks(attack, field, photos=photos, shown_NK=shown_NK, rng=rng)
    slot_N = np.where(told.click_N >= 0, told.shown_NK[rows, np.maximum(told.click_N, 0)], -1)
    value_N = np.where(slot_N == rival_N, 1.0, np.where(slot_N == 0, -1.0, 0.0))
    terms, evidence = Terms(alpha=ALPHA, level=Elond(alpha=ALPHA).level), TrialState()
    for start in range(0, count, BATCH):
        at = np.flatnonzero(pair_N[start : start + BATCH]) + start
        evidence = trial.observe(evidence, from_clicks(value_N[at], coin_N[at], user_N=told.user_N[at]))
        closed = min(start + BATCH, count)
        verdict = decide(trial.grounds(evidence, closed=closed, alpha=ALPHA), terms, feedback=state)
        if verdict.final:
            break
    return verdict


def run(seeds: Sequence[int], out_dir: Path, *, cache: Path, quick: bool = False) -> dict[str, Any]:
    """Every attack on every seed; each cell is kept in ``out_dir``/attacks, so that a stopped run goes on."""
    rounds, learned = (QUICK_ROUNDS, QUICK_LEARNED) if quick else (ROUNDS, LEARNED)
    world, cells = journals.load_world(cache), []
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("attacks", total=len(seeds) * len(ATTACKS))
        for seed in seeds:
            field = load_field(
                world, seed=seed, rounds=rounds, cache_dir=cache, held_out=QUICK_HELD_OUT if quick else HELD_OUT
            )
            for attack in ATTACKS:
                path = out_dir / "attacks" / f"{attack.slug()}-{seed}-{learned}.json"
                if not path.exists():
                    keep(path, cell(attack, field, learned=learned))
                    progress.console.print(f"{attack.series} {attack.name}, seed {seed}: done")
                cells.append(json.loads(path.read_text(encoding="utf-8")))
                progress.advance(task)
    rows = [_row(attack, cells) for attack in ATTACKS]
    print_rows(Console(width=170), rows, title=f"Attacks on learning, after {learned:,} interactions")
    below = [one for one in cells if one["change"] > WORSE]
    promoted = [one for one in below if one["verdict"] == VerdictKind.PROMOTE.value]
    result: dict[str, Any] = {
        "command": f"dayjob lab attacks --seeds {len(seeds)}{' --quick' if quick else ''}", "machine": machine(),
        "seeds": list(seeds), "quick": quick, "interactions": learned, "cells": cells,
        "below_baseline": len(below), "below_and_promoted": len(promoted),
    }  # fmt: skip
    page = [*_page(result, rounds=rounds), markdown(rows)]
    write(out_dir, "attacks", result=result, page=page, code=CODE, plot=lambda path: _plot(cells, path))
    return result


def _row(attack: Attack, cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    mine = [one for one in cells if (one["series"], one["attack"]) == (attack.series, attack.name)]
    honest = [one for one in cells if (one["series"], one["attack"]) == (attack.series, HONEST)]
    gain, most = np.mean([one["change"] for one in mine]), np.mean([one["change"] for one in honest])
    promoted = [one["closed"] for one in mine if one["verdict"] == VerdictKind.PROMOTE.value]
    return {
        "series": attack.series,
        "attackers": attack.name,
        "change in km, %": percent(interval([one["change"] for one in mine]), of=0),
        "gain kept": f"{gain / most + 0.0:.0%}" if most < 0 else "-",
        "fits that left the baseline": sum(not one["kept_baseline"] for one in mine),
        "pushed place first, %": percent(interval([one["pushed_first"] for one in mine]), of=0, signed=False),
        "clicks": ", ".join(sorted({one["state"] for one in mine})),
        "promoted": f"{len(promoted)} of {len(mine)}",
        "after closed decisions": f"{int(np.median(promoted)):,}" if promoted else "-",
    }


def _page(result: dict[str, Any], *, rounds: int) -> list[str]:
    before = np.mean([one["pushed_before"] for one in result["cells"]])
    return [
        f"The recipe `debiased` after {result['interactions']:,} interactions under attack, then a trial of at most"
        f" {rounds - result['interactions']:,} closed decisions under the same attack, at the level of a first"
        " challenger. Photos, people and attackers are simulated. *Change*: mean km of the first choice against the"
        " caller's order, on photos that nobody played with, mean and 95 % interval over seeds. *Gain kept*: of what"
        " the same people teach when nobody attacks. *Pushed place first*: lists whose first choice is the candidate"
        f" nearest to {PUSHED}; {before:.1%} of them by the caller's order.",
        f"**Fits worse than the baseline by over {WORSE:.0%}: {result['below_baseline']} of {len(result['cells'])};"
        f" of these promoted: {result['below_and_promoted']}.** {_tolerated(result['cells'])}",
    ]  # fmt: skip


def _tolerated(cells: Sequence[dict[str, Any]]) -> str:
    """Up to which share of traffic sock puppets promoted nothing that is worse than the baseline."""
    harmed = {one["attack"] for one in cells if one["change"] > WORSE and one["verdict"] == VerdictKind.PROMOTE.value}
    puppets = sorted((a for a in ATTACKS if a.puppets and not a.accounts), key=lambda attack: attack.puppets)
    safe = [attack.puppets for n, attack in enumerate(puppets) if harmed.isdisjoint(a.name for a in puppets[: n + 1])]
    if len(safe) == len(puppets):
        return f"Sock puppets were tolerated at every share that was tried, up to {safe[-1]:.0%} of traffic."
    best = f"up to {safe[-1]:.0%} of traffic" if safe else "at no share that was tried"
    return (
        f"Sock puppets were tolerated {best}; beyond it only truth, a holdback judged by it, or accounts that cost"
        " something stand in their way: to the record, they are people."
    )


def _plot(cells: Sequence[dict[str, Any]], path: Path) -> None:
    """Change in km under each attack, a dot a seed: filled when it was promoted."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [f"{attack.series}: {attack.name}" for attack in ATTACKS]
    figure, axis = pyplot.subplots(figsize=(8, 6))
    for one in cells:
        promoted = one["verdict"] == VerdictKind.PROMOTE.value
        axis.plot(
            100 * one["change"], names.index(f"{one['series']}: {one['attack']}"), "o",
            color="tab:blue", fillstyle="full" if promoted else "none",
        )  # fmt: skip
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel("change in km against the baseline, % (filled: promoted; simulated)")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _numbered(user_N: I64) -> I64:
    """Users as small numbers, -1 kept."""
    known, number_N = np.unique(user_N, return_inverse=True)
    return np.where(user_N < 0, -1, number_N - int((known < 0).any()))
