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
from dayjob.signals.intervals import normal_quantile, wilson

LITTLE_TRUTH = 100  # decisions of known truth below which clicks are asked instead
TINY = 1e-6  # keeps shares finite
Z = normal_quantile(0.975)
Range = tuple[float, float, float]
"""(low, point, high) at 95 %."""
SURE: Range = (1.0, 1.0, 1.0)


class Lever(StrEnum):
    """What would raise the value most."""

    CANDIDATES = "candidates"  # the right item is often not among the shown
    FEEDBACK = "feedback"  # clicks teach too little
    MODEL = "model"  # the right item is shown, not first, and the clicks can teach it
    EXPLORATION = "exploration"  # nothing tells position from item
    NONE = "none"  # little is left to gain
    UNKNOWN = "unknown"  # the intervals leave it open


@dataclass(frozen=True, slots=True, kw_only=True)
class CeilingConfig:
    """When a lever counts as short."""

    little: float = 0.02  # gain of the best of k over the first below which nothing is short
    absent: float = 0.5  # share of lists without a click, or without the right item, from which candidates are short


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """The report's ``ceiling``: values are the probability that somebody who looks finds what they want.

    ``first`` at position 1 as served, ``best`` at position 1 if it were always the best of the shown (nan unknown),
    ``first_interval`` and ``best_interval`` 95 %; ``source`` "truth", "clicks" or "none". ``silent`` is the share of
    lists without a click: whether nobody looked or nothing was wanted, clicks cannot tell, so by clicks the others are
    meant.
    """

    first: float
    first_interval: tuple[float, float]
    best: float
    best_interval: tuple[float, float]
    silent: float
    source: str
    lever: Lever
    reason: str


def ceiling(log: ClickLog, bias: Bias, *, found: Feedback, config: CeilingConfig | None = None) -> Ceiling:
    """By truth where a hundred decisions have it, else by what of the clicks the position does not pull."""
    config = config or CeilingConfig()
    known = log.truth_B != FILLER
    silent = 1.0 - float(log.click_BK.any(axis=1).mean()) if len(log) else nan
    if known.sum() >= LITTLE_TRUTH:
        hits, count = int((log.truth_B[known] == 0).sum()), int(known.sum())
        low, high = wilson(hits, count)
        return _judge((low, hits / count, high), SURE, source="truth", facts=(found, config, silent))
    if found.state is not FeedbackState.INFORMATIVE:
        lever = Lever.EXPLORATION if found.state is FeedbackState.UNIDENTIFIABLE else Lever.FEEDBACK
        return _none(
            silent, lever, f"Clicks cannot say: they are {found.state.value.replace('_', ' ')} (see feedback)."
        )
    if not bias.identifiable:
        return _none(silent, Lever.EXPLORATION, bias.reason)
    first, best = _by_items(log, bias) if bias.method is BiasMethod.ITEMS else (_chosen_first(log, bias), SURE)
    low, middle, high = (max(b, f) for b, f in zip(best, first, strict=True))
    return _judge(first, (low, middle, high), source="clicks", facts=(found, config, silent))


def _chosen_first(log: ClickLog, bias: Bias) -> Range:
    """Of the clicks that were chosen, n / (n + m) fell on position 1: n there, m below it.

    They are what the position does not pull; n has nearly all of the error. What was chosen is the best of the shown,
    so with a best order it would be all of them; whether who left without a click found nothing, or did not look,
    clicks cannot tell.
    """
    count = max(len(log), 1)
    rate_K = log.click_BK.mean(axis=0)
    over_K = np.maximum(rate_K - bias.beta_K, 0.0)
    noise_K = Z**2 * rate_K * (1 - rate_K) / count
    down_K = np.sqrt((bias.beta_high_K - bias.beta_K) ** 2 + noise_K)
    up_K = np.sqrt((bias.beta_K - bias.beta_low_K) ** 2 + noise_K)
    least, most = max(float(over_K[0] - down_K[0]), 0.0), float(over_K[0] + up_K[0])
    below = float(over_K[1:].sum())
    below_least = max(below - float(down_K[1:].sum()), 0.0)  # they err together
    below_most = below + float(up_K[1:].sum())
    return _share(least, below_most), _share(float(over_K[0]), below), _share(most, below_least)


def _share(part: float, rest: float) -> float:
    return part / max(part + rest, TINY)


def _by_items(log: ClickLog, bias: Bias) -> tuple[Range, Range]:
    """Relevance of the first and of the best: (P(click 1) - beta_1) / alpha_1, and the mean of the best of each list.

    The best of noisy estimates flatters itself, and the scale of relevance is not given by clicks: the best is at least
    as relevant as the mean of the best place, and at most 1.
    """
    clicks, shown = int(log.click_BK[:, 0].sum()), int(log.shown_BK[:, 0].sum())
    low, high = wilson(clicks, shown)
    ends = [
        _corrected(rate, float(alpha), float(beta))
        for rate, beta in ((low, bias.beta_high_K[0]), (high, bias.beta_low_K[0]))
        for alpha in (bias.alpha_low_K[0], bias.alpha_high_K[0])
    ]
    point = _corrected(clicks / max(shown, 1), float(bias.alpha_K[0]), float(bias.beta_K[0]))
    first = (float(np.nanmin(ends)), point, float(np.nanmax(ends)))
    return first, _best_of_items(log)


def _corrected(rate: float, alpha: float, beta: float) -> float:
    return float(np.clip((rate - beta) / alpha, 0.0, 1.0)) if alpha > 0 else float("nan")


def _best_of_items(log: ClickLog) -> Range:
    model = fit_trust(cells(log))
    index = np.searchsorted(model.item_V, np.where(log.shown_BK, log.item_BK, model.item_V[0]))
    relevance_BK = np.where(log.shown_BK, model.relevance_V[index], 0.0)
    return float(relevance_BK.mean(axis=0).max()), float(relevance_BK.max(axis=1).mean()), 1.0


def _judge(first: Range, best: Range, *, source: str, facts: tuple[Feedback, CeilingConfig, float]) -> Ceiling:
    found, config, silent = facts
    if source == "clicks" and max(1 - best[2], silent) > config.absent:
        lever, why = Lever.CANDIDATES, f"and {silent:.0%} of the lists got no click, so what is wanted may not be shown"
    elif best[2] - first[0] < config.little or (source == "truth" and best[1] - first[1] < config.little):
        lever, why = Lever.NONE, "the first is nearly always the best of the shown"
    elif best[0] - first[2] < config.little:
        lever, why = Lever.UNKNOWN, "too wide to tell how much a better order would gain"
    elif found.state is not FeedbackState.INFORMATIVE:
        lever, why = Lever.FEEDBACK, f"the best is shown but not first, and clicks are {found.state.value}"
    else:
        lever, why = Lever.MODEL, "the best is shown but not first, and the clicks can teach which it is"
    return Ceiling(
        first=first[1],
        first_interval=(first[0], first[2]),
        best=best[1],
        best_interval=(best[0], best[2]),
        silent=silent,
        source=source,
        lever=lever,
        reason=f"By {source}, the first is right {_percent(first)} of the time, the best of the shown "
        f"{_percent(best)}: {why}.",
    )


def _percent(value: Range) -> str:
    low, point, high = value
    return f"{point:.0%} ({low:.0%} to {high:.0%})" if high > low else f"{point:.0%}"


def _none(silent: float, lever: Lever, reason: str) -> Ceiling:
    return Ceiling(
        first=nan, first_interval=(nan, nan), best=nan, best_interval=(nan, nan), silent=silent, source="none",
        lever=lever, reason=reason,
    )  # fmt: skip


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


def learning(
    kl_T: F64, reward_T: F64, *, config: LearningConfig | None = None, span: float = 1.0, weight_T: F64 | None = None
) -> Learning:
    """KL moved (of successive versions against the baseline) against reward gained (of successive decisions).

    "Not learning" when the policy has not moved or reward has not grown, and louder the higher the reward: position
    bias alone pays a high reward. ``span`` is the width of reward_range, ``reward_T`` already less its lower end;
    ``weight_T`` how many decisions each reward stands for (one where left out).
    Raises ValueError without eight rewards or a KL.
    """
    config = config or LearningConfig()
    if len(reward_T) < 8 or len(kl_T) == 0:
        raise ValueError("Learning needs at least eight rewards and the KL of one version; wait for the first night.")
    quarter, weight_T = len(reward_T) // 4, np.ones(len(reward_T)) if weight_T is None else weight_T
    (early, before), (late, after) = (
        _mean(reward_T[ends], weight_T[ends]) for ends in (slice(quarter), slice(-quarter, None))
    )
    gained, half = late - early, Z * float(np.sqrt(before + after))
    moved, reward = float(kl_T[-1]), late / span
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


def _mean(value_T: F64, weight_T: F64) -> tuple[float, float]:
    """(weighted mean, its variance); the variance of one value is not known: infinite."""
    mean, count = float(np.average(value_T, weights=weight_T)), len(value_T)
    if count < 2:
        return mean, float("inf")
    share_T = weight_T / weight_T.sum()
    return mean, float((share_T**2 @ (value_T - mean) ** 2) * count / (count - 1))
