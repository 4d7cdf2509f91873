"""Which belief may become a version, and how it is turned into a choice: by held-out decisions, never by those it
learned from.

The beliefs compared are nested: the caller's score alone, with the shared terms, and with all terms under falling ridge
weights. The best on held-out clicks is taken when it beats the caller's order by ``proof`` standard errors, in
likelihood and, for its first choice, in value. Otherwise the caller's order stays: clicks that say nothing must change
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dayjob.learn.belief import Events
from dayjob.learn.recipes import Debiased
from dayjob.learn.replay import Replay

F64 = npt.NDArray[np.float64]

EXAMINED_MOST = 1.0  # log of the most by which a rarely examined position may be weighed up
WEIGHT_MOST = 50.0  # of 1 / propensity: beyond, the reward model is believed
FAR = 1e30  # cost of showing a filler


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """What one kind of belief says of decisions it did not learn from. ``choice_B`` is the probability that the click
    was a choice; ``weight_B`` that times the user's weight, corrected for how much its position is examined."""

    log_likelihood_B: F64
    choice_B: F64
    weight_B: F64
    utility_BK: F64


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """A paired mean with its standard error: ``mean`` > 0 is better."""

    mean: float
    error: float

    @property
    def proof(self) -> float:
        """Standard errors above nothing."""
        return self.mean / self.error if self.error > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Belief to choice: softmax(sharpness · u), then least expected loss in steps of ``unit``; unit 0: the most
    probable."""

    sharpness: float = 1.0
    unit: float = 0.0


def folds(replay: Replay, *, count: int, seed: int) -> npt.NDArray[np.int64]:
    """A fold for each decision. All of a user's decisions share one, so that a user's own habits are never the
    proof."""
    rng = np.random.default_rng(seed)
    alone_B = rng.permutation(len(replay)) % count
    users = int(replay.user_B.max(initial=-1)) + 1
    fold_U = rng.permutation(users) % count if users else np.zeros(1, np.int64)
    return np.where(replay.user_B >= 0, fold_U[np.maximum(replay.user_B, 0)], alone_B)


def mean_gain(gain_B: F64, weight_B: F64) -> Gain:
    """Weighted mean of ``gain_B`` and its standard error."""
    total = weight_B.sum()
    if total <= 0:
        return Gain(mean=0.0, error=0.0)
    mean = float((weight_B * gain_B).sum() / total)
    error = float(np.sqrt((weight_B**2 * (gain_B - mean) ** 2).sum()) / total)
    return Gain(mean=mean, error=error)


def likelihood_gain(new: HeldOut, old: HeldOut, *, events: Events) -> Gain:
    """Nats a decision by which ``new`` foretells clicks better than ``old``."""
    weight_B = events.weight_B.numpy().astype(np.float64) * events.taught_B
    return mean_gain(new.log_likelihood_B - old.log_likelihood_B, weight_B)


def right_slot(replay: Replay) -> npt.NDArray[np.int64]:
    """The slot that the truth, else the click, says was right; -1 unknown."""
    return np.where(replay.truth_B >= 0, replay.truth_B, replay.clicked_slot_B).astype(np.int64)


def cost(replay: Replay, first_B: npt.NDArray[np.int64]) -> F64:
    """What showing slot ``first_B`` first costs, by the right slot: its loss, or 1 for another slot; 0 where
    unknown."""
    right_B = right_slot(replay)
    at_B = np.maximum(right_B, 0)
    return np.where(right_B >= 0, replay.loss_of(first_B, at_B), 0.0)


def value_gain(replay: Replay, new_first_B: npt.NDArray[np.int64], *, weight_B: F64) -> tuple[Gain, float]:
    """(cost saved a decision by the new first choice against the caller's, mean cost of the caller's)."""
    base_BK = np.where(replay.real_BK, replay.base_BK, -np.inf)
    old_B = cost(replay, base_BK.argmax(axis=1))
    total = weight_B.sum()
    level = float((weight_B * old_B).sum() / total) if total > 0 else 0.0
    return mean_gain(old_B - cost(replay, new_first_B), weight_B), level


def expected_loss(
    utility_BK: F64, loss_BKK: npt.NDArray[np.float32], *, real_BK: npt.NDArray[np.bool_], sharpness: float
) -> F64:
    """Expected loss (B, K) of showing each slot first under softmax(sharpness · u); ``FAR`` for fillers."""
    logit_BK = np.where(real_BK, sharpness * (utility_BK - utility_BK.max(axis=1, keepdims=True)), -np.inf)
    belief_BK = np.exp(logit_BK)
    belief_BK /= belief_BK.sum(axis=1, keepdims=True)
    return np.where(real_BK, np.einsum("bkj,bj->bk", loss_BKK, belief_BK), FAR)


def choose(replay: Replay, held: HeldOut, *, recipe: Debiased) -> tuple[Choice, npt.NDArray[np.int64]]:
    """How to choose by this belief, and the first choices (B,) it makes: least expected loss where that costs less."""
    utility_BK = np.where(replay.real_BK, held.utility_BK, -np.inf)
    best_choice, best_first_B = Choice(), utility_BK.argmax(axis=1)
    if not replay.has_losses:
        return best_choice, best_first_B
    best = mean_gain(cost(replay, best_first_B), held.weight_B).mean
    first_SB = np.zeros((len(recipe.sharpness), len(replay)), np.int64)
    spread_SB = np.zeros(first_SB.shape)
    for at, loss_BKK in replay.losses():
        real_BK = replay.real_BK[at]
        for s, sharpness in enumerate(recipe.sharpness):
            loss_BK = expected_loss(utility_BK[at], loss_BKK, real_BK=real_BK, sharpness=sharpness)
            first_SB[s, at] = loss_BK.argmin(axis=1)
            spread_SB[s, at] = np.nanstd(np.where(real_BK, loss_BK, np.nan), axis=1)
    for s, sharpness in enumerate(recipe.sharpness):
        mean = mean_gain(cost(replay, first_SB[s]), held.weight_B).mean
        if mean < best:
            best, best_first_B = mean, first_SB[s]
            best_choice = Choice(sharpness=sharpness, unit=float(np.nanmean(spread_SB[s])))
    return best_choice, best_first_B


def choice_weight(events: Events, choice_B: Tensor, *, examined_K: Tensor) -> F64:
    """Weight of each decision as evidence of what people want: chosen, not pulled, and made up for being seen less."""
    boost_B = torch.exp(-examined_K[events.click_B.clamp_min(0)].clamp(-EXAMINED_MOST, EXAMINED_MOST))
    boost_B = torch.where(events.truth_B >= 0, 1.0, boost_B)
    weight_B = (choice_B * events.weight_B * boost_B).numpy().astype(np.float64)
    # A reward does not say which candidate was wanted, so it is no evidence of what another choice would have cost.
    unpaid_B: npt.NDArray[np.bool_] = events.taught_B & (events.rewarded_B < 0).numpy()
    return weight_B * unpaid_B


def reward_gain(replay: Replay, held: HeldOut, *, new_first_B: npt.NDArray[np.int64], low: float, high: float) -> Gain:
    """Reward gained a decision by the new first choice against the caller's: doubly robust, where the first place was
    rewarded.

    q(new) - q(old) + (1[shown = new] - 1[shown = old]) / p (r - q(shown)), q = low + (high - low) softmax(u), p the
    logged propensity of what stood first (Dudik, Langford, Li, ICML 2011), 1 / p at most ``WEIGHT_MOST``.
    """
    if replay.reward_B is None or replay.rewarded_B is None:
        return Gain(mean=0.0, error=0.0)
    shown_B = replay.shown_BK[:, 0].astype(np.int64)
    use = np.flatnonzero(np.isfinite(replay.reward_B) & (replay.rewarded_B == shown_B) & (replay.truth_B < 0))
    utility_BK = np.where(replay.real_BK, held.utility_BK, -np.inf)[use]
    share_BK = np.exp(utility_BK - utility_BK.max(axis=1, keepdims=True)) if len(use) else utility_BK
    q_BK = low + (high - low) * share_BK / share_BK.sum(axis=1, keepdims=True)
    at, shown, new = np.arange(len(use)), shown_B[use], new_first_B[use]
    old = np.where(replay.real_BK, replay.base_BK, -np.inf)[use].argmax(axis=1)
    weight = np.minimum(1 / replay.propensity_BK[use, 0], WEIGHT_MOST)
    surprise = replay.reward_B[use] - q_BK[at, shown]
    gain = q_BK[at, new] - q_BK[at, old] + ((shown == new) * 1.0 - (shown == old)) * weight * surprise
    return mean_gain(gain, np.ones(len(use)))
