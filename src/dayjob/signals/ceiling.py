"""What choosing the best of the shown would give, which lever is short, and whether learning moves at all."""

from dataclasses import dataclass
from enum import StrEnum
from math import nan

import numpy as np

from dayjob.endings import FeedbackState
from dayjob.signals.bias import Bias, BiasMethod
from dayjob.signals.clicklog import F64, FILLER, ClickLog
from dayjob.signals.clickmodels import cells, fit_trust
from dayjob.signals.detector import Feedback
from dayjob.signals.intervals import wilson

LITTLE_TRUTH = 100  # decisions of known truth below which clicks are asked instead


class Lever(StrEnum):
    """What would raise the value most."""

    CANDIDATES = "candidates"  # the right item is often not among the shown
    FEEDBACK = "feedback"  # clicks teach too little
    MODEL = "model"  # the right item is shown, not first, and the clicks can teach it
    EXPLORATION = "exploration"  # nothing tells position from item
    NONE = "none"  # little is left to gain


@dataclass(frozen=True, slots=True, kw_only=True)
class CeilingConfig:
    """When a lever counts as short."""

    little: float = 0.02  # gain of the best of k over the first below which nothing is short
    absent: float = 0.5  # share of lists without a click, or without the right item, from which candidates are short


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """The report's ``ceiling``: values are the probability that somebody who looks finds what they want.

    ``first`` at position 1 as served, ``best`` at position 1 if it were always the best of the shown (nan unknown),
    ``first_interval`` 95 %; ``source`` "truth", "clicks" or "none". ``silent`` is the share of lists without a click:
    whether nobody looked or nothing was wanted, clicks cannot tell.
    """

    first: float
    first_interval: tuple[float, float]
    best: float
    silent: float
    source: str
    lever: Lever
    reason: str


def ceiling(log: ClickLog, bias: Bias, *, found: Feedback, config: CeilingConfig | None = None) -> Ceiling:
    """By truth where a hundred decisions have it, else by debiased clicks: value of k = (P(click k) - beta_k) /
    alpha_k.
    """
    config = config or CeilingConfig()
    known = log.truth_B != FILLER
    silent = 1.0 - float(log.click_BK.any(axis=1).mean()) if len(log) else nan
    if known.sum() >= LITTLE_TRUTH:
        hits, count = int((log.truth_B[known] == 0).sum()), int(known.sum())
        return _judge(hits / count, wilson(hits, count), 1.0, source="truth", facts=(found, config, silent))
    if found.state is not FeedbackState.INFORMATIVE:
        lever = Lever.EXPLORATION if found.state is FeedbackState.UNIDENTIFIABLE else Lever.FEEDBACK
        return _none(
            silent, lever, f"Clicks cannot say: they are {found.state.value.replace('_', ' ')} (see feedback)."
        )
    if not bias.identifiable:
        return _none(silent, Lever.EXPLORATION, bias.reason)
    rate_K = log.click_BK.sum(axis=0) / np.maximum(log.shown_BK.sum(axis=0), 1)
    first = _corrected(float(rate_K[0]), float(bias.alpha_K[0]), float(bias.beta_K[0]))
    ends = (
        _corrected(float(rate_K[0]), float(bias.alpha_low_K[0]), float(bias.beta_high_K[0])),
        _corrected(float(rate_K[0]), float(bias.alpha_high_K[0]), float(bias.beta_low_K[0])),
    )  # a larger pull goes with a smaller alpha: their errors are opposed
    best = _best_of_items(log) if bias.method is BiasMethod.ITEMS else _best_of_choice(rate_K, bias)
    return _judge(first, (min(ends), max(ends)), max(best, first), source="clicks", facts=(found, config, silent))


def _corrected(rate: float, alpha: float, beta: float) -> float:
    return float(np.clip((rate - beta) / alpha, 0.0, 1.0)) if alpha > 0 else float("nan")


def _best_of_choice(rate_K: F64, bias: Bias) -> float:
    """Those who look and click anything would click position 1 if it were what they want."""
    return float(np.clip((rate_K - bias.beta_K).sum() / bias.alpha_K[0], 0.0, 1.0))


def _best_of_items(log: ClickLog) -> float:
    model = fit_trust(cells(log))
    index = np.searchsorted(model.item_V, np.where(log.shown_BK, log.item_BK, model.item_V[0]))
    return float(np.where(log.shown_BK, model.relevance_V[index], 0.0).max(axis=1).mean())


def _judge(
    first: float,
    interval: tuple[float, float],
    best: float,
    *,
    source: str,
    facts: tuple[Feedback, CeilingConfig, float],
) -> Ceiling:
    found, config, silent = facts
    gain = best - first
    if max(1 - best, silent) > config.absent and source == "clicks":
        lever, why = Lever.CANDIDATES, f"and {silent:.0%} of the lists got no click, so what is wanted may not be shown"
    elif gain < config.little:
        lever, why = Lever.NONE, "the first is nearly always the best of the shown"
    elif found.state is not FeedbackState.INFORMATIVE:
        lever, why = Lever.FEEDBACK, f"the best is shown but not first, and clicks are {found.state.value}"
    else:
        lever, why = Lever.MODEL, "the best is shown but not first, and the clicks can teach which it is"
    return Ceiling(
        first=first,
        first_interval=interval,
        best=best,
        silent=silent,
        source=source,
        lever=lever,
        reason=f"By {source}, the first is right {first:.0%} of the time, the best of the shown {best:.0%}: {why}.",
    )


def _none(silent: float, lever: Lever, reason: str) -> Ceiling:
    return Ceiling(
        first=nan, first_interval=(nan, nan), best=nan, silent=silent, source="none", lever=lever, reason=reason
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningConfig:
    """When learning counts as standing still."""

    still: float = 0.01  # nats of KL per decision: the published policy that learned nothing stayed below
    high: float = 0.7  # reward, as a share of its range, that looks like success


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """The report's ``learning``: ``moved`` nats of KL from the baseline, ``gained`` reward over the first quarter."""

    moved: float
    reward: float
    gained: float
    gained_interval: tuple[float, float]
    learning: bool
    reason: str


def learning(kl_T: F64, reward_T: F64, *, config: LearningConfig | None = None, span: float = 1.0) -> Learning:
    """KL moved (of successive versions against the baseline) against reward gained (of successive decisions).

    "Not learning" when the policy has not moved or reward has not grown, and louder the higher the reward: position
    bias alone pays a high reward. ``span`` is the width of reward_range, ``reward_T`` already less its lower end.
    Raises ValueError without eight rewards or a KL.
    """
    config = config or LearningConfig()
    if len(reward_T) < 8 or len(kl_T) == 0:
        raise ValueError("Learning needs at least eight rewards and the KL of one version; wait for the first night.")
    quarter = len(reward_T) // 4
    early, late = reward_T[:quarter], reward_T[-quarter:]
    gained = float(late.mean() - early.mean())
    half = (
        1.96 * float(np.sqrt(early.var(ddof=1) / quarter + late.var(ddof=1) / quarter)) if quarter > 1 else float("inf")
    )
    moved, reward = float(kl_T[-1]), float(late.mean() / span)
    grew, still = gained - half > 0, moved < config.still
    if grew and not still:
        reason = f"Moved {moved:.3g} nats and reward rose by {gained:.3g}."
    elif still and not grew and reward >= config.high:
        reason = (
            f"Not learning: reward is high ({reward:.0%} of its range), yet the policy moved {moved:.2g} nats and "
            "reward did not rise. Look at `feedback`: position alone may pay it."
        )
    elif not grew:
        reason = f"Not learning: moved {moved:.3g} nats, reward changed by {gained:.3g} ± {half:.2g}."
    else:
        reason = f"Reward rose by {gained:.3g}, but the policy moved only {moved:.2g} nats: the world changed."
    return Learning(
        moved=moved,
        reward=reward,
        gained=gained,
        gained_interval=(gained - half, gained + half),
        learning=grew and not still,
        reason=reason,
    )
