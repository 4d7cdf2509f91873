"""Click models of independent positions, by EM over (item, position) cells.

Position-based model (Richardson et al., WWW 2007; Chuklin, Markov, de Rijke, "Click Models for Web Search", 2015):

    P(click | position k, item d) = theta_k g_d

Trust bias (Agarwal et al., WWW 2019; affine form: Vardasbi, Oosterhuis, de Rijke, CIKM 2020):

    P(click | position k, item d) = alpha_k g_d + beta_k

EM needs only the number of views and clicks of each cell, so a pass costs the number of distinct cells, not of
sessions. Neither scale is given by clicks alone: theta and g are known up to a factor, alpha, beta and g up to the
affine change g -> (g - m) / s, alpha -> s alpha, beta -> beta + m alpha. No ranking depends on it. What clicks do
identify are
``slope_K`` = alpha_k / alpha_1 and ``offset_K`` = beta_k - slope_k beta_1; an *anchor* (items whose relevance is known)
fixes the rest.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dayjob.signals.clicklog import F64, I64, ClickLog

PROBABILITY_FLOOR = 1e-6  # of the reference implementation: keeps logarithms finite
GRADES: F64 = np.linspace(0.0, 1.0, 11)  # the relevances over which trust bias integrates


@dataclass(frozen=True, slots=True, kw_only=True)
class EMConfig:
    """How EM runs. The prior counts are the reference implementation's (each parameter starts at 1 click in 5)."""

    iterations: int = 200
    tolerance: float = 1e-7  # stop when the mean log-likelihood of an impression gains less
    prior_clicks: float = 1.0
    prior_views: float = 5.0
    start: float = 0.2  # every parameter before the first pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """Clicks counted by (item, position).

    ``item_V`` identities; ``row_C`` index into them and ``position_C`` of each cell; ``views_C``, ``clicks_C`` counts.
    """

    item_V: I64
    row_C: I64
    position_C: I64
    views_C: F64
    clicks_C: F64
    width: int

    @property
    def connected(self) -> bool:
        """Whether items seen at several positions link all positions: without it, nothing separates bias from
        relevance.
        """
        return len(set(self._component_K().tolist())) == 1

    def _component_K(self) -> I64:
        label_K = np.arange(self.width)
        order = np.argsort(self.row_C, kind="stable")
        same = self.row_C[order][1:] == self.row_C[order][:-1]
        a, b = self.position_C[order][1:][same], self.position_C[order][:-1][same]
        links = np.unique(np.stack([a, b], axis=1), axis=0) if len(a) else np.zeros((0, 2), np.int64)
        for _ in range(self.width):
            for left, right in links:
                low = min(label_K[left], label_K[right])
                label_K[label_K == label_K[left]] = low
                label_K[label_K == label_K[right]] = low
        return label_K


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionModel:
    """P(click) = theta_k g_d. ``theta_K`` is scaled so that position 1 has theta 1 and ``relevance_V`` takes the
    rest.
    """

    theta_K: F64
    relevance_V: F64
    item_V: I64
    log_likelihood: float  # mean over impressions, nats
    iterations: int

    def predict(self, item_BK: I64) -> F64:
        """(B, K) click probabilities; items never seen get the reference implementation's prior mean."""
        return np.asarray(self.theta_K * _lookup(self.item_V, self.relevance_V, item_BK))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustModel:
    """P(click) = alpha_k g_d + beta_k, in the scale of g that EM ended in (see ``anchored``)."""

    alpha_K: F64
    beta_K: F64
    relevance_V: F64
    item_V: I64
    log_likelihood: float
    iterations: int

    @property
    def slope_K(self) -> F64:
        """alpha_k / alpha_1: identified by clicks alone; nan where no click at position 1 depends on the item."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self.alpha_K / self.alpha_K[0])

    @property
    def offset_K(self) -> F64:
        """beta_k - slope_k beta_1: identified by clicks alone."""
        return np.asarray(self.beta_K - self.slope_K * self.beta_K[0])

    def predict(self, item_BK: I64) -> F64:
        """(B, K) click probabilities; items never seen get the mean relevance."""
        return np.asarray(self.alpha_K * _lookup(self.item_V, self.relevance_V, item_BK) + self.beta_K)

    def anchored(self, known_item: npt.ArrayLike, known_relevance: npt.ArrayLike) -> "TrustModel":
        """The same model in the scale in which the known items have the known relevances.

        The known relevances are regressed on the fitted ones: those are posterior means, whose error is in the known.

        Raises ValueError when fewer than two items, or only one relevance, are known.
        """
        items, relevance = np.asarray(known_item, np.int64), np.asarray(known_relevance, np.float64)
        fitted = _lookup(self.item_V, self.relevance_V, items)
        if len(items) < 2 or np.ptp(fitted) <= PROBABILITY_FLOOR or np.ptp(relevance) <= PROBABILITY_FLOOR:
            raise ValueError("An anchor needs at least two known items of different relevance that were shown.")
        scale, shift = np.polyfit(fitted, relevance, 1)  # known = scale * fitted + shift
        return TrustModel(
            alpha_K=self.alpha_K / scale,
            beta_K=self.beta_K - self.alpha_K * shift / scale,
            relevance_V=self.relevance_V * scale + shift,
            item_V=self.item_V,
            log_likelihood=self.log_likelihood,
            iterations=self.iterations,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Impressions:
    """Which cell and which list each of I impressions belongs to, so that lists can be weighed anew without sorting."""

    layout: Cells  # its counts are of lists that weigh 1
    cell_I: I64
    list_I: I64
    click_I: F64

    def weighed(self, weight_B: F64) -> Cells:
        """The cells with each list counted ``weight_B`` times."""
        weight_I, size = weight_B[self.list_I], len(self.layout.row_C)
        return replace(
            self.layout,
            views_C=np.bincount(self.cell_I, weights=weight_I, minlength=size).astype(np.float64),
            clicks_C=np.bincount(self.cell_I, weights=weight_I * self.click_I, minlength=size).astype(np.float64),
        )


def cells(log: ClickLog) -> Cells:
    """Views and clicks by (item, position)."""
    return impressions(log).layout


def impressions(log: ClickLog) -> Impressions:
    """Every impression with its cell and its list."""
    shown = log.shown_BK
    list_I, position = np.nonzero(shown)
    item_V, row = np.unique(log.item_BK[shown], return_inverse=True)
    key, cell_I = np.unique(row * log.width + position, return_inverse=True)
    click_I = log.click_BK[shown].astype(np.float64)
    layout = Cells(
        item_V=item_V,
        row_C=key // max(log.width, 1),
        position_C=key % max(log.width, 1),
        views_C=np.bincount(cell_I, minlength=len(key)).astype(np.float64),
        clicks_C=np.bincount(cell_I, weights=click_I, minlength=len(key)).astype(np.float64),
        width=log.width,
    )
    return Impressions(layout=layout, cell_I=cell_I, list_I=list_I, click_I=click_I)


def fit_position(data: Cells, config: EMConfig | None = None) -> PositionModel:
    """The position-based model by EM, with the reference implementation's updates and prior counts.

    Raises ValueError when nothing was shown.
    """
    config = config or EMConfig()
    _require_views(data)
    theta_K, g_V = np.full(data.width, config.start), np.full(len(data.item_V), config.start)
    silent_C = data.views_C - data.clicks_C
    last, steps = -np.inf, 0
    for steps in range(1, config.iterations + 1):
        t, g = theta_K[data.position_C], g_V[data.row_C]
        miss = 1 - t * g
        g_V = _mean(data.row_C, data.clicks_C + silent_C * (1 - t) * g / miss, data.views_C, len(g_V), config)
        theta_K = _mean(
            data.position_C, data.clicks_C + silent_C * (1 - g) * t / miss, data.views_C, data.width, config
        )
        now = _log_likelihood(data, theta_K[data.position_C] * g_V[data.row_C])
        if now - last < config.tolerance and steps > 1:
            break
        last = now
    p_C = theta_K[data.position_C] * g_V[data.row_C]
    return PositionModel(
        theta_K=theta_K / theta_K[0],
        relevance_V=g_V * theta_K[0],
        item_V=data.item_V,
        log_likelihood=_log_likelihood(data, p_C),
        iterations=steps,
    )


def fit_trust(data: Cells, config: EMConfig | None = None, *, start: TrustModel | None = None) -> TrustModel:
    """Trust bias by EM: P(c | R = 1, k) = alpha_k + beta_k, P(c | R = 0, k) = beta_k, each impression's R hidden.

    R is drawn anew with the item's g each time; g is integrated over a grid whose weights are learned, apart for the
    items that mostly stood at each position (a ranker puts the relevant ones on top). Estimating every item's g instead
    makes alpha and beta wrong however long the log is, when items are seen a few times each (Neyman and Scott, 1948).

    ``start``: a model of much the same data, to begin from. Raises ValueError when nothing was shown, or when no item
    links the positions (then bias and relevance are one).
    """
    config = config or EMConfig()
    _require_views(data)
    if start is None and not data.connected:
        raise ValueError(
            "The bias is unidentifiable: no items were shown at two positions, so position and relevance are one. "
            "Randomise position 1 in a few per cent of answers."
        )
    clicks_VK, silent_VK = np.zeros((2, len(data.item_V), data.width))
    clicks_VK[data.row_C, data.position_C] = data.clicks_C
    silent_VK[data.row_C, data.position_C] = data.views_C - data.clicks_C
    home_VK = np.eye(data.width)[(clicks_VK + silent_VK).argmax(axis=1)]
    rate = float(data.clicks_C.sum() / data.views_C.sum())
    high_K, low_K = np.full(data.width, (1 + rate) / 2), np.full(data.width, rate / 2)
    if start is not None:
        high_K, low_K = start.alpha_K + start.beta_K, start.beta_K
    prior_KM = np.full((data.width, len(GRADES)), 1 / len(GRADES))
    last, steps = -np.inf, 0
    for steps in range(1, config.iterations + 1):
        p_KM = _grade_probabilities(high_K, low_K)
        log_VM = clicks_VK @ np.log(p_KM) + silent_VK @ np.log1p(-p_KM) + home_VK @ np.log(prior_KM + PROBABILITY_FLOOR)
        top_V1 = log_VM.max(axis=1, keepdims=True)
        post_VM = np.exp(log_VM - top_V1)
        mass_V1 = post_VM.sum(axis=1, keepdims=True)
        now = float((np.log(mass_V1) + top_V1).sum() / data.views_C.sum())
        if now - last < config.tolerance and steps > 1:
            break
        last = now
        post_VM /= mass_V1
        prior_KM = home_VK.T @ post_VM
        prior_KM /= np.maximum(prior_KM.sum(axis=1, keepdims=True), PROBABILITY_FLOOR)
        high_K, low_K = _levels(clicks_VK.T @ post_VM, silent_VK.T @ post_VM, high_K, low_K)
    return TrustModel(
        alpha_K=high_K - low_K,
        beta_K=low_K,
        relevance_V=post_VM @ GRADES / post_VM.sum(axis=1),
        item_V=data.item_V,
        log_likelihood=last,
        iterations=steps,
    )


def _grade_probabilities(high_K: F64, low_K: F64) -> F64:
    p_KM = high_K[:, None] * GRADES + low_K[:, None] * (1 - GRADES)
    return np.asarray(np.clip(p_KM, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR))


def _levels(clicks_KM: F64, silent_KM: F64, high_K: F64, low_K: F64) -> tuple[F64, F64]:
    """P(c | R = 1) and P(c | R = 0) from expected clicks and silences by position and grade."""
    p_KM = _grade_probabilities(high_K, low_K)
    hit_KM = clicks_KM * high_K[:, None] * GRADES / p_KM
    hit_low_KM = clicks_KM - hit_KM
    miss_KM = silent_KM * (1 - high_K[:, None]) * GRADES / (1 - p_KM)
    miss_low_KM = silent_KM - miss_KM
    high = hit_KM.sum(axis=1) / np.maximum((hit_KM + miss_KM).sum(axis=1), PROBABILITY_FLOOR)
    low = hit_low_KM.sum(axis=1) / np.maximum((hit_low_KM + miss_low_KM).sum(axis=1), PROBABILITY_FLOOR)
    top = 1 - PROBABILITY_FLOOR
    return np.clip(high, PROBABILITY_FLOOR, top), np.clip(low, PROBABILITY_FLOOR, top)


def perplexity(probability_BK: F64, log: ClickLog) -> tuple[float, F64]:
    """(mean over positions, perplexity at each position): 2^(-mean log2 p(what happened)) over the lists that reach it.

    1 is perfect, 2 is a fair coin (Dupret and Piwowarski, SIGIR 2008). Pass marginal click probabilities for the plain
    measure, probabilities given the clicks above for the conditional one; for the position-based model they are one.
    """
    p_BK = np.clip(probability_BK, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    bits_BK = np.where(log.shown_BK, np.log2(np.where(log.click_BK, p_BK, 1 - p_BK)), 0.0)
    lists_K = log.shown_BK.sum(axis=0)
    at_K = 2.0 ** (-bits_BK.sum(axis=0) / np.maximum(lists_K, 1))
    return float(at_K[lists_K > 0].mean()), at_K


def log_likelihood(probability_BK: F64, log: ClickLog) -> float:
    """Mean over lists of the mean over positions of log p(what happened), nats: the reference implementation's
    measure.
    """
    p_BK = np.clip(probability_BK, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    nats_BK = np.where(log.shown_BK, np.log(np.where(log.click_BK, p_BK, 1 - p_BK)), 0.0)
    return float((nats_BK.sum(axis=1) / np.maximum(log.shown_BK.sum(axis=1), 1)).mean())


def _require_views(data: Cells) -> None:
    if data.views_C.sum() == 0:
        raise ValueError("Nothing was shown: a click model needs at least one list with an item.")


def _mean(key_C: I64, clicks_C: F64, views_C: F64, size: int, prior: EMConfig) -> F64:
    clicks = np.bincount(key_C, weights=clicks_C, minlength=size) + prior.prior_clicks
    views = np.bincount(key_C, weights=views_C, minlength=size) + prior.prior_views
    return np.asarray(np.minimum(clicks / views, 1 - PROBABILITY_FLOOR))


def _log_likelihood(data: Cells, p_C: F64) -> float:
    p = np.clip(p_C, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    total = data.clicks_C @ np.log(p) + (data.views_C - data.clicks_C) @ np.log1p(-p)
    return float(total / data.views_C.sum())


def _lookup(item_V: I64, value_V: F64, item: I64) -> F64:
    index = np.minimum(np.searchsorted(item_V, item), len(item_V) - 1)
    return np.where(item_V[index] == item, value_V[index], value_V.mean())
