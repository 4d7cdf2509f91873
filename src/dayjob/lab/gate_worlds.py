"""Simulated people for ``dayjob lab gate``, a thousand runs at once, and the trial they put the gate through."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dayjob.gate import confidence
from dayjob.gate.control import ANONYMOUS, Floats, Ints, Past, plan, settle
from dayjob.gate.trial import BOUND


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """People and two rankers on the decisions where they differ.

    ``gap``: how much more often b's first choice is clicked at position 1 than a's, everybody counted. ``spread``: the
    standard deviation of that gap over decisions (different rankers of equal value). ``blind``: share of persistent
    people who click by position alone, by ``blind_at``; the others click with chance alpha_k g + beta_k. ``swing``:
    that share moves slowly, up by so much and back. ``both``: both places may be clicked (otherwise one at most).
    ``puppets``: share of judged decisions by ``puppet_accounts`` accounts (0: a fresh one each time) that click b.
    """

    name: str
    gap: float = 0.0
    spread: float = 0.15
    relevance: float = 0.3
    blind: float = 0.65
    blind_at: tuple[float, float] = (1.0, 0.0)
    alpha: tuple[float, float] = (1.0, 1.0)
    beta: tuple[float, float] = (0.0, 0.0)
    swing: float = 0.0
    both: bool = False
    people: int = 300
    named: bool = True
    puppets: float = 0.0
    puppet_accounts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One judged decision of each run: +1 b clicked, -1 a clicked; +1 b stood first."""

    clicked_R: Floats
    coin_R: Floats
    slot_R: Ints


def draw(world: World, blind_RU: npt.NDArray[np.bool_], *, step: int, rng: np.random.Generator) -> Stream:
    """A judged decision in each of the runs. ``blind_RU``: who clicks by position alone."""
    runs, people = blind_RU.shape
    coin_R: Floats = np.where(rng.random(runs) < 0.5, 1.0, -1.0)
    user_R: Ints = np.asarray(rng.integers(0, people, size=runs), dtype=np.int64)
    blind_R = blind_RU[np.arange(runs), user_R]
    if world.swing:
        blind_R = blind_R | (rng.random(runs) < world.swing * (0.5 + 0.5 * math.sin(step / 700.0)))
    seeing = max(1.0 - world.blind, 1e-9)
    half_R = (world.gap / seeing / world.alpha[0] + world.spread * rng.standard_normal(runs)) / 2
    # Clipped symmetrically about its mean, which therefore stays what it was said to be.
    room = world.relevance - abs(world.gap) / seeing / world.alpha[0] / 2
    middle = world.gap / seeing / world.alpha[0] / 2
    half_R = middle + np.clip(half_R - middle, -max(room, 0.0), max(room, 0.0))
    first_R = np.where(blind_R, world.blind_at[0], world.alpha[0] * (world.relevance + coin_R * half_R) + world.beta[0])
    second_R = np.where(
        blind_R, world.blind_at[1], world.alpha[1] * (world.relevance - coin_R * half_R) + world.beta[1]
    )
    u_R = rng.random(runs)
    if world.both:
        place_R = (u_R < first_R) * 1.0 - (rng.random(runs) < second_R)
    else:
        place_R = np.where(u_R < first_R, 1.0, np.where(u_R < first_R + second_R, -1.0, 0.0))
    clicked_R: Floats = place_R * coin_R
    if world.puppets:
        fake_R = rng.random(runs) < world.puppets
        clicked_R = np.where(fake_R, 1.0, clicked_R)
        account_R = rng.integers(0, max(1, world.puppet_accounts), size=runs) + people
        user_R = np.where(fake_R, account_R if world.puppet_accounts else ANONYMOUS, user_R)
    nameless: Ints = np.full(runs, ANONYMOUS, dtype=np.int64)
    return Stream(clicked_R=clicked_R, coin_R=coin_R, slot_R=user_R if world.named else nameless)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """When each run was promoted or rejected (judged decisions; -1 never); effect and variance over all steps."""

    promoted_R: Ints
    rejected_R: Ints
    effect_R: Floats
    variance_R: Floats

    def promoted_by(self, judged: int) -> float:
        """Share of runs promoted within so many judged decisions."""
        return float(((self.promoted_R > 0) & (self.promoted_R <= judged)).mean())


def judge(world: World, *, steps: int, level_R: Floats, reject_level: float, rng: np.random.Generator) -> Outcome:
    """One trial per entry of ``level_R``, looked at after each of ``steps`` judged decisions; the first crossing ends
    it. The plan, the bets and the mixture are those of the gate."""
    runs = level_R.size
    blind_RU = rng.random((runs, world.people)) < world.blind
    past = Past.empty(runs, world.people + max(1, world.puppet_accounts))
    up_RG = np.zeros((runs, confidence.BETS_G.size))
    down_RG = np.zeros_like(up_RG)
    promoted_R, rejected_R = np.full(runs, -1, dtype=np.int64), np.full(runs, -1, dtype=np.int64)
    need_R, need_worse = np.log(1.0 / level_R), math.log(1.0 / reject_level)
    total_R, square_R, weight_R = np.zeros(runs), np.zeros(runs), np.zeros(runs)
    for step in range(1, steps + 1):
        seen = draw(world, blind_RU, step=step, rng=rng)
        made = plan(past, seen.slot_R)
        x_R = made.weight_R * (seen.clicked_R - made.pull_R * seen.coin_R) / BOUND
        settle(past, made, slot_R=seen.slot_R, value_R=seen.clicked_R, lean_R=seen.coin_R)
        up_RG += confidence.log_gain(x_R)
        down_RG += confidence.log_gain(-x_R)
        total_R, square_R, weight_R = total_R + x_R, square_R + x_R**2, weight_R + made.weight_R
        open_R = (promoted_R < 0) & (rejected_R < 0)
        # The best single bet bounds the mixture from above: most looks need no exponentials.
        if (up_RG.max(axis=1) >= need_R).any():
            promoted_R = np.where(open_R & (confidence.log_mixture(up_RG) >= need_R), step, promoted_R)
        if (down_RG.max(axis=1) >= need_worse).any():
            rejected_R = np.where(open_R & (confidence.log_mixture(down_RG) >= need_worse), step, rejected_R)
    mean_R = total_R / np.maximum(weight_R, 1.0)
    return Outcome(
        promoted_R=promoted_R,
        rejected_R=rejected_R,
        effect_R=BOUND * mean_R,
        variance_R=BOUND**2 * (square_R / steps - mean_R**2),
    )
