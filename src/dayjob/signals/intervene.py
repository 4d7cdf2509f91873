"""What randomised positions prove about the bias, with intervals.

Three sources, from none to full assumptions about clicks:

- *The uniform draw at position 1* (swap at one). With the policy's choice a there or a uniformly drawn item,
  P(click 1 | a) - P(click 1 | uniform) is the effect of the item alone; whatever is left in P(click 1 | uniform) beyond
  1/K of the people who look is the pull of position 1. No click model at all.
- *AllPairs* (Agarwal et al., WSDM 2019): position-based bias from items seen at several positions. Every pair of
positions
  (k, k') has its own mean relevance, and the likelihood of all pairs gives theta. It is the position-based model whose
  "items" are the pairs, so the EM of ``clickmodels`` solves it.
- *Trust bias* from items (or ranks) seen at several positions: ``clickmodels.fit_trust``.

Where items do not repeat (a photo's candidates are seen once) exploration still repeats *ranks*: ``by_rank`` puts the
policy's rank in the place of the item's identity, since the draws do not depend on what users know beyond the score.
"""

from dataclasses import dataclass, replace
from math import sqrt

import numpy as np

from dayjob.signals.clicklog import F64, FILLER, Bool, ClickLog
from dayjob.signals.clickmodels import Cells, EMConfig, TrustModel, fit_position, fit_trust, impressions
from dayjob.signals.intervals import normal_quantile, spread, wilson

NO_PRIOR = EMConfig(prior_clicks=0.0, prior_views=0.0, iterations=500, tolerance=1e-10)
AGAIN = EMConfig(iterations=40, tolerance=1e-6)  # from the fit to all the data, for a bootstrap draw


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapAtOne:
    """Clicks at position 1 with the policy's first choice there, and with a uniformly drawn item there (others left
    out).

    ``pull`` and ``effect`` are (low, point, high) at 95 %: ``effect`` = P(click 1 | choice) - P(click 1 | uniform);
    ``pull_most`` the largest pull of position 1 that remains possible, ``look_least`` the least share who look.
    """

    choice_shown: int
    uniform_shown: int
    choice_rate: tuple[float, float, float]
    uniform_rate: tuple[float, float, float]
    effect: tuple[float, float, float]
    width: int

    @property
    def pull_most(self) -> float:
        """Nobody clicks position 1 unseen more often than it is clicked under a uniform item."""
        return self.uniform_rate[2]

    @property
    def look_least(self) -> float:
        """effect = look (P(they choose the policy's choice) - 1/K) <= look (1 - 1/K)."""
        return max(0.0, self.effect[0]) / (1 - 1 / self.width) if self.width > 1 else 0.0


def swap_at_one(log: ClickLog) -> SwapAtOne:
    """The comparison, with Wilson intervals, and Newcombe's for the difference (Statistics in Medicine, 1998).

    Raises ValueError when no position 1 was drawn uniformly, or the policy's own choice never stood there.
    """
    if log.width == 0 or not log.intervened_B.any() or log.intervened_B.all():
        raise ValueError(
            "The bias of position 1 is unidentifiable: no list had its first place drawn uniformly beside lists that "
            "had not. Set explore.changed_first above 0 (0.05 is the default)."
        )
    first_B = log.click_BK[:, 0]
    choice = _rate(first_B & ~log.intervened_B & ~log.changed_B, ~log.intervened_B & ~log.changed_B)
    uniform = _rate(first_B & log.intervened_B, log.intervened_B)
    low = sqrt((choice[1] - choice[0]) ** 2 + (uniform[2] - uniform[1]) ** 2)
    high = sqrt((choice[2] - choice[1]) ** 2 + (uniform[1] - uniform[0]) ** 2)
    gap = choice[1] - uniform[1]
    return SwapAtOne(
        choice_shown=int((~log.intervened_B & ~log.changed_B).sum()),
        uniform_shown=int(log.intervened_B.sum()),
        choice_rate=choice,
        uniform_rate=uniform,
        effect=(gap - low, gap, gap + high),
        width=log.width,
    )


def all_pairs(data: Cells) -> F64:
    """theta_K with theta_1 = 1 by AllPairs; nan where a position shares no item with the others.

    Raises ValueError when no item was shown at two positions.
    """
    views_VK, clicks_VK = np.zeros((2, len(data.item_V), data.width))
    views_VK[data.row_C, data.position_C] = data.views_C
    clicks_VK[data.row_C, data.position_C] = data.clicks_C
    rate_VK = clicks_VK / np.maximum(views_VK, 1)
    pairs = []
    for low in range(data.width):
        for high in range(low + 1, data.width):
            both_V = (views_VK[:, low] > 0) & (views_VK[:, high] > 0)
            if both_V.any():
                rates = rate_VK[both_V][:, [low, high]].sum(axis=0)
                pairs.append((low, high, float(both_V.sum()), rates))
    if not pairs:
        raise ValueError(
            "The bias is unidentifiable: no item was shown at two positions. Randomise a few per cent of the lists, or "
            "log lists of two rankers side by side."
        )
    index = np.repeat(np.arange(len(pairs)), 2)
    harvested = Cells(
        item_V=np.arange(len(pairs)),
        row_C=index,
        position_C=np.array([k for low, high, _, _ in pairs for k in (low, high)]),
        views_C=np.repeat([n for _, _, n, _ in pairs], 2),
        clicks_C=np.concatenate([rates for *_, rates in pairs]),
        width=data.width,
    )
    theta_K = fit_position(harvested, NO_PRIOR).theta_K
    seen_K = np.bincount(harvested.position_C, minlength=data.width) > 0
    return np.where(seen_K, theta_K, np.nan)


def trust_interval(log: ClickLog, *, seed: int, draws: int = 100) -> tuple[F64, F64]:
    """95 % (low, high) around ``fit_trust``, each (4, K): alpha, beta, slope, offset.

    Normal intervals with the standard errors of the bootstrap over users: its percentiles would be off, since sessions
    drawn twice look like items of more distinct relevance.
    """
    rows = impressions(log)
    model = fit_trust(rows.layout)

    def estimates(weight_B: F64) -> F64:
        return _stacked(fit_trust(rows.weighed(weight_B), AGAIN, start=model))

    error = spread(estimates, log.user_B, seed=seed, draws=draws)
    middle = _stacked(model)
    return middle - normal_quantile(0.975) * error, middle + normal_quantile(0.975) * error


def _stacked(model: TrustModel) -> F64:
    return np.stack([model.alpha_K, model.beta_K, model.slope_K, model.offset_K])


def by_rank(log: ClickLog) -> ClickLog:
    """The log with the policy's rank (0 best, ties by position) as the identity of each item.

    Raises ValueError when scores are unknown.
    """
    if not np.isfinite(log.score_BK[log.shown_BK]).all():
        raise ValueError("Ranks need the policy's score of every item shown; add a score column.")
    score_BK = np.where(log.shown_BK, log.score_BK, -np.inf)
    rank_BK = np.argsort(np.argsort(-score_BK, axis=1, kind="stable"), axis=1, kind="stable")
    return replace(log, item_BK=np.where(log.shown_BK, rank_BK, FILLER).astype(np.int64))


def _rate(hit_B: Bool, use_B: Bool) -> tuple[float, float, float]:
    hits, trials = int(hit_B.sum()), int(use_B.sum())
    low, high = wilson(hits, trials)
    return low, hits / max(trials, 1), high
