"""A kitchen's recipes: half of those who click take the first place unseen, a better order is tried and takes over."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from dayjob.lab.crowds import explore
from dayjob.signals.bias import BiasMethod, chosen_share, estimate_bias
from dayjob.signals.ceiling import Lever, ceiling
from dayjob.signals.choice import fit_choice
from dayjob.signals.clicklog import ClickLog
from dayjob.signals.detector import feedback
from dayjob.signals.orders import choice_columns, pool, untold

RECIPES, SHOWN = 400, 8
SILENT, PULL = 0.2, 0.4  # of all lists: no click; a click on the first place, whatever stands there
TRIED = 0.3  # of the lists on which the two orders differ, while the better one is on trial


@dataclass(frozen=True, kw_only=True)
class Served:
    """A log, and how often the first place was what somebody who chooses would take."""

    log: ClickLog
    liked: float


def served(seed: int, *, alone: int, trial: int, after: int) -> Served:
    """``alone`` lists by the caller's score, ``trial`` with pairs against a better one, ``after`` by that one, pairs
    with the replaced.
    """
    rng, world = np.random.default_rng(seed), np.random.default_rng(7)
    vector_VD = world.normal(size=(RECIPES, 32))
    vector_VD /= np.linalg.norm(vector_VD, axis=1, keepdims=True)
    quality_V = vector_VD @ (world.normal(size=32) * 2)
    count = alone + trial + after
    query_BD = rng.normal(size=(count, 32))
    query_BD /= np.linalg.norm(query_BD, axis=1, keepdims=True)
    item_BK = rng.permuted(np.tile(np.arange(RECIPES), (count, 1)), axis=1)[:, :SHOWN]
    wish_BK = 6 * np.einsum("bkd,bd->bk", vector_VD[item_BK], query_BD) + quality_V[item_BK]
    caller_BK = 0.35 * wish_BK + 1.2 * rng.normal(size=wish_BK.shape)
    learned_BK = 2.0 * wish_BK + 1.5 * rng.normal(size=wish_BK.shape)  # another scale
    new_B = np.arange(count) >= alone + trial
    own_BK = np.where(new_B[:, None], learned_BK, caller_BK)
    rival_BK = np.where(new_B[:, None], caller_BK, learned_BK)
    place_BK, drawn_B = np.zeros(wish_BK.shape, np.int64), np.zeros(count, bool)
    for part in (~new_B, new_B):
        if part.any():
            place_BK[part], drawn_B[part] = explore(own_BK[part], 0.05, rng=rng)
    rows, first_B, other_B = np.arange(count), own_BK.argmax(axis=1), rival_BK.argmax(axis=1)
    pair_B = (rows >= alone) & (first_B != other_B) & (rng.random(count) < TRIED)
    coin_B = rng.random(count) < 0.5
    score = np.where(pair_B[:, None], own_BK, 0.0)
    score[rows, first_B], score[rows, other_B] = 100 + coin_B, 100 + ~coin_B  # both ahead, the coin says which
    place_BK[pair_B] = np.argsort(-score[pair_B], axis=1, kind="stable")
    drawn_B &= ~pair_B
    wants_B = np.take_along_axis(wish_BK + 0.5 * rng.gumbel(size=wish_BK.shape), place_BK, axis=1).argmax(axis=1)
    dice = rng.random(count)
    click_B = np.where(dice < SILENT, -1, np.where(dice < SILENT + PULL, 0, wants_B))
    key_BK = np.arange(count * SHOWN).reshape(count, SHOWN)  # a recipe is another thing for another query
    log = ClickLog.of(
        np.take_along_axis(key_BK, place_BK, axis=1),
        click_B=click_B,
        score_BK=np.take_along_axis(own_BK, place_BK, axis=1),
    )
    log = replace(
        log,
        intervened_B=drawn_B,
        first_B=key_BK[rows, first_B],
        order_B=2 * new_B + pair_B,
        rival_B=np.where(pair_B, key_BK[rows, other_B], -1),
        feature_BKF=np.take_along_axis(caller_BK, place_BK, axis=1)[..., None],
    )
    return Served(log=log, liked=float((wants_B == 0).mean()))


STAGES = {
    "before": {"alone": 2000, "trial": 0, "after": 0},
    "on trial": {"alone": 2000, "trial": 2000, "after": 0},
    "after": {"alone": 500, "trial": 2000, "after": 2500},
    "long after": {"alone": 0, "trial": 0, "after": 4000},
}


@pytest.mark.parametrize("stage", STAGES)
def test_intervals_cover_the_truth_before_and_after_a_better_order_takes_over(stage: str) -> None:
    inside = []
    for seed in range(4):
        made = served(seed, **STAGES[stage])
        found = feedback(made.log)
        bias = estimate_bias(made.log, found=found)
        assert bias.method is BiasMethod.CHOICE
        low, _, high = chosen_share(made.log, bias)
        top = ceiling(made.log, bias, found=found)
        inside.append((
            bias.beta_low_K[0] <= PULL <= bias.beta_high_K[0],
            bias.alpha_low_K[0] <= 1 - SILENT - PULL <= bias.alpha_high_K[0],
            low <= 0.5 <= high,
            top.first_interval[0] <= made.liked <= top.first_interval[1],
        ))  # fmt: skip
        assert top.lever in (Lever.MODEL, Lever.UNKNOWN, Lever.NONE)
    assert (np.mean(inside, axis=0) >= 0.75).all(), np.mean(inside, axis=0)


def test_scores_alone_are_sure_of_what_is_wrong() -> None:
    """The very fit without the columns of first choices: it takes the rival's good first places for pull."""
    log = served(0, **STAGES["on trial"]).log
    model = fit_choice(log, choice_columns(log))
    assert model.interval_K()[0][0] > PULL
    pooled = pool(log)
    assert pooled is not None
    low_K, high_K = pooled.pull_interval_K()
    assert low_K[0] <= PULL <= high_K[0]
    assert pooled.orders == 2


def test_pairs_are_told_moves_and_others_are_not() -> None:
    log = served(1, alone=0, trial=1000, after=0).log
    assert untold(log) < 0.06
    bare = replace(log, rival_B=np.full(len(log), -1))
    assert untold(bare) == pytest.approx(untold(log) + (log.changed_B & (log.rival_B >= 0)).mean())
    assert pool(log.rows(slice(0, 100))) is None, "too few"
