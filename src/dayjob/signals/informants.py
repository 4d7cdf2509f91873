"""Who looks? Each user's share of decisions made by looking, by empirical Bayes, and how much each may weigh.

A decision with click c has likelihood  phi_u rho_c + (1 - phi_u) pi_c  (choice.ChoiceModel; pi the pull's
distribution over positions), phi_u the user's share. The distribution of phi over users is learned on a grid (Kiefer
and Wolfowitz, 1956; Laird, 1978), so users seen once borrow from all others and users seen often speak for themselves.

Nobody may weigh more than max(20 decisions, 1 % of the log): heavy accounts and puppets teach no more than that each.
"""

from dataclasses import dataclass

import numpy as np

from dayjob.signals.choice import TINY, ChoiceModel
from dayjob.signals.clicklog import F64, I64, ClickLog

SHARES: F64 = np.linspace(0.0, 1.0, 21)


@dataclass(frozen=True, slots=True, kw_only=True)
class InformantConfig:
    """Caps and the fit of the prior."""

    cap_decisions: float = 20.0  # nobody weighs less than this much for being heavy
    cap_share: float = 0.01  # of the log
    iterations: int = 200
    tolerance: float = 1e-7
    uniform: float = 1.0  # users' worth of a flat prior mixed in, so that no share is ruled out


@dataclass(frozen=True, slots=True, kw_only=True)
class Informants:
    """Users and what is believed of them.

    ``user_U`` ids ascending; ``share_U`` posterior mean of phi_u; ``low_U`` its 5 % quantile; ``decisions_U`` counts;
    ``prior_M`` the learned distribution over ``SHARES``; ``looked_B`` probability that each decision was made by
    looking;
    ``weight_B`` = looked times the cap, the weight a learner may give it.
    """

    user_U: I64
    share_U: F64
    low_U: F64
    decisions_U: I64
    prior_M: F64
    looked_B: F64
    weight_B: F64


def informants(
    log: ClickLog, model: ChoiceModel, *, columns_BKF: F64, config: InformantConfig | None = None
) -> Informants:
    """Every user's share from the whole log. Anonymous decisions (-1) take the mean of the prior and no user's cap."""
    config = config or InformantConfig()
    look_B, pull_B = decision_likelihoods(log, model, columns_BKF=columns_BKF)
    log_BM = np.log(np.maximum(np.outer(look_B, SHARES) + np.outer(pull_B, 1 - SHARES), TINY))
    known = log.user_B >= 0
    user_U, row = np.unique(log.user_B[known], return_inverse=True)
    log_UM = np.zeros((len(user_U), len(SHARES)))
    np.add.at(log_UM, row, log_BM[known])
    prior_M = fit_prior(log_UM if len(user_U) else log_BM, config)
    post_UM = posterior(log_UM, prior_M)
    decisions_U = np.bincount(row, minlength=len(user_U))
    share_U = post_UM @ SHARES
    phi_B = np.full(len(log), float(prior_M @ SHARES))
    phi_B[known] = share_U[row]
    looked_B = phi_B * look_B / np.maximum(phi_B * look_B + (1 - phi_B) * pull_B, TINY)
    return Informants(
        user_U=user_U,
        share_U=share_U,
        low_U=SHARES[np.argmax(np.cumsum(post_UM, axis=1) >= 0.05, axis=1)] if len(user_U) else np.zeros(0),
        decisions_U=decisions_U,
        prior_M=prior_M,
        looked_B=looked_B,
        weight_B=looked_B * caps(log.user_B, config),
    )


def past_shares(
    log: ClickLog, model: ChoiceModel, *, columns_BKF: F64, prior_M: F64, before_UM: F64 | None = None
) -> F64:
    """(B,) posterior mean of phi_u from the user's *earlier* decisions in this log alone: fit to be a predictable
    weight.

    ``model`` and ``prior_M`` must come from decisions before this log. ``before_UM`` adds, for user id u, the log
    likelihoods of decisions before it. Anonymous decisions get the prior's mean.
    """
    look_B, pull_B = decision_likelihoods(log, model, columns_BKF=columns_BKF)
    log_BM = np.log(np.maximum(np.outer(look_B, SHARES) + np.outer(pull_B, 1 - SHARES), TINY))
    order = np.argsort(log.user_B, kind="stable")
    sorted_user = log.user_B[order]
    running_BM = np.cumsum(log_BM[order], axis=0) - log_BM[order]
    starts = np.flatnonzero(np.r_[True, sorted_user[1:] != sorted_user[:-1]]) if len(order) else np.zeros(0, np.int64)
    sizes = np.diff(np.r_[starts, len(order)])
    past_BM = running_BM - np.repeat(running_BM[starts], sizes, axis=0)
    if before_UM is not None:
        past_BM = past_BM + np.where(sorted_user[:, None] >= 0, before_UM[np.maximum(sorted_user, 0)], 0.0)
    past_BM[sorted_user < 0] = 0.0
    out_B = np.empty(len(log))
    out_B[order] = posterior(past_BM, prior_M) @ SHARES
    return out_B


def decision_likelihoods(log: ClickLog, model: ChoiceModel, *, columns_BKF: F64) -> tuple[F64, F64]:
    """(rho_c, pi_c) of each decision: probability of what was clicked by looking, and by the position alone."""
    label_B = np.where(log.click_B < 0, log.width, log.click_B)
    look_B = model.chosen(columns_BKF, log.shown_BK)[np.arange(len(log)), label_B]
    pull_L = np.append(model.pull_K, model.pull_none)
    return look_B, (pull_L / max(float(pull_L.sum()), TINY))[label_B]


def fit_prior(log_UM: F64, config: InformantConfig) -> F64:
    """The distribution of phi over users that makes their decisions most likely, by EM on the grid."""
    prior_M = np.full(len(SHARES), 1 / len(SHARES))
    like_UM = np.exp(log_UM - log_UM.max(axis=1, keepdims=True)) if len(log_UM) else log_UM
    last = -np.inf
    for _ in range(config.iterations):
        mass_U = like_UM @ prior_M
        now = float(np.log(np.maximum(mass_U, TINY)).sum())
        if now - last < config.tolerance * max(len(like_UM), 1):
            break
        last = now
        expected_M = (like_UM * prior_M / np.maximum(mass_U, TINY)[:, None]).sum(axis=0)
        prior_M = (expected_M + config.uniform / len(SHARES)) / (len(like_UM) + config.uniform)
    return prior_M


def posterior(log_UM: F64, prior_M: F64) -> F64:
    """(U, M) posterior over ``SHARES``, rows summing to 1."""
    if len(log_UM) == 0:
        return np.zeros((0, len(prior_M)))
    post_UM = np.exp(log_UM - log_UM.max(axis=1, keepdims=True)) * prior_M
    return np.asarray(post_UM / post_UM.sum(axis=1, keepdims=True))


def caps(user_B: I64, config: InformantConfig | None = None) -> F64:
    """(B,) factor that keeps each user's total at max(cap_decisions, cap_share of the log); 1 for anonymous
    decisions.
    """
    config = config or InformantConfig()
    known = user_B >= 0
    _, row, count_U = np.unique(user_B[known], return_inverse=True, return_counts=True)
    limit = max(config.cap_decisions, config.cap_share * len(user_B))
    out_B = np.ones(len(user_B))
    out_B[known] = np.minimum(1.0, limit / count_U)[row] if len(count_U) else 1.0
    return out_B
