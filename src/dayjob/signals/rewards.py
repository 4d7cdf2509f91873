"""What each decision is worth to a learner: truth beats clicks, clicks are debiased, rewards count where they exist."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from dayjob.signals.bias import Bias
from dayjob.signals.clicklog import F64, FILLER, ClickLog


class Source(StrEnum):
    """Where a decision's target comes from."""

    TRUTH = "truth"  # the right item is known
    REWARD = "reward"  # a number for the item that was acted on
    CLICK = "click"  # debiased clicks
    NONE = "none"  # nothing that teaches


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """``value_BK`` unbiased estimates of relevance (0 to 1 in expectation; single ones may lie outside),
    ``weight_BK`` how much each counts (0: unknown), ``source_B`` index into ``list(Source)``.
    """

    value_BK: F64
    weight_BK: F64
    source_B: np.ndarray[tuple[int, ...], np.dtype[np.int8]]

    def count(self, source: Source) -> int:
        """Decisions whose target comes from ``source``."""
        return int((self.source_B == list(Source).index(source)).sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardConfig:
    """``low``, ``high``: the policy's reward_range. ``floor``: least alpha a click is divided by."""

    low: float = 0.0
    high: float = 1.0
    floor: float = 0.05


def targets(log: ClickLog, bias: Bias, *, config: RewardConfig | None = None, weight_B: F64 | None = None) -> Targets:
    """Targets of every shown item.

    Truth: 1 for the right item, 0 for the others. Reward: scaled to [0, 1], for the clicked item, else the first.
    Clicks: the affine correction ghat = (c - beta_k) / max(alpha_k, floor) (Vardasbi, Oosterhuis, de Rijke, CIKM
    2020), which is unbiased where alpha_k >= floor, and of no weight where the bias is unidentifiable. ``weight_B``
    scales clicks only (informants.weight_B): what is true stays true whoever said so.

    Raises ValueError when a reward lies outside the range.
    """
    config = config or RewardConfig()
    _check_rewards(log, config)
    weight_B = np.ones(len(log)) if weight_B is None else weight_B
    usable_K = np.isfinite(bias.alpha_K) & (bias.alpha_K > 0) if bias.identifiable else np.zeros(log.width, bool)
    alpha_K = np.where(usable_K, np.maximum(bias.alpha_K, config.floor), 1.0)
    value_BK = np.where(log.shown_BK & usable_K, (log.click_BK - np.where(usable_K, bias.beta_K, 0.0)) / alpha_K, 0.0)
    weight_BK = np.where(log.shown_BK & usable_K, weight_B[:, None], 0.0)
    source_B = np.where(weight_BK.any(axis=1), _index(Source.CLICK), _index(Source.NONE)).astype(np.int8)
    rewarded = np.flatnonzero(np.isfinite(log.reward_B))
    at = np.maximum(log.click_B[rewarded], 0)
    value_BK[rewarded], weight_BK[rewarded], source_B[rewarded] = 0.0, 0.0, _index(Source.REWARD)
    value_BK[rewarded, at] = (log.reward_B[rewarded] - config.low) / (config.high - config.low)
    weight_BK[rewarded, at] = 1.0
    known = np.flatnonzero(log.truth_B != FILLER)
    value_BK[known], source_B[known] = 0.0, _index(Source.TRUTH)
    value_BK[known, log.truth_B[known]] = 1.0
    weight_BK[known] = log.shown_BK[known]
    return Targets(value_BK=value_BK, weight_BK=weight_BK, source_B=source_B)


def _check_rewards(log: ClickLog, config: RewardConfig) -> None:
    if not config.high > config.low:
        raise ValueError(f"reward_range [{config.low}, {config.high}] is empty; its second number must be the larger.")
    reward = log.reward_B[np.isfinite(log.reward_B)]
    if reward.size and (reward.min() < config.low or reward.max() > config.high):
        raise ValueError(
            f"Rewards lie between {reward.min():g} and {reward.max():g}, outside reward_range [{config.low:g}, "
            f"{config.high:g}]; set reward_range of the policy to hold them."
        )


def _index(source: Source) -> int:
    return list(Source).index(source)
