"""Who looks? Each user's share of decisions made by looking, by empirical Bayes, and how much each may weigh.

A decision with click c has likelihood  phi_u rho_c + (1 - phi_u) pi_c  (orders.Pooled; pi the pull's distribution over
positions), phi_u the user's share. The distribution of phi over users is learned on a grid (Kiefer and Wolfowitz, 1956;
Laird, 1978): each user is one draw from it, however many decisions they made.

Nobody may weigh more than max(20 decisions, 1 % of the log): heavy accounts and puppets teach no more than that each.
"""

from dataclasses import dataclass

import numpy as np

from dayjob.signals.bias import Bias
from dayjob.signals.choice import TINY
from dayjob.signals.clicklog import F64, I64, ClickLog
from dayjob.signals.orders import Pooled, chosen

SHARES: F64 = np.linspace(0.0, 1.0, 21)
HALF = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class InformantConfig:
    """Caps and the fit of the prior."""

    cap_decisions: float = 20.0  # nobody weighs less than this much for being heavy
    cap_share: float = 0.01  # of the log
    iterations: int = 200
    tolerance: float = 1e-7
    uniform: float = 1.0  # users' worth of a flat prior mixed in, so that no share is ruled out
    least_decisions: int = 10  # of a user, to be counted: fewer tell the mean of all users' shares, and no more
    least_users: int = 20  # so often seen, without whom nothing is said
    draws: int = 30  # of users, for the interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookers:
    """How many people look, of those seen often enough. No number or name of anybody.

    ``share`` (low, point, high) at 95 %: of the ``counted`` users, those who look in at least half of their decisions;
    ``most`` and ``least``: (share of decisions made by looking, decisions) of the most and the least informative of
    them. ``capped`` users, of all, whose decisions weigh less than one each (``caps``).
    """

    users: int
    counted: int
    capped: int
    share: tuple[float, float, float]
    most: tuple[float, int]
    least: tuple[float, int]
    reason: str


def lookers(log: ClickLog, bias: Bias, *, seed: int = 0, config: InformantConfig | None = None) -> Lookers:
    """Who is informative, in counts, by the fit that ``bias`` has of this very log (only by CHOICE there is one).

    Each user is one draw from the prior, however many decisions they made. The interval is by drawing users again, and
    takes the pull and the choice as known.
    """
    config = config or InformantConfig()
    known_U, row, count_U = np.unique(log.user_B[log.user_B >= 0], return_inverse=True, return_counts=True)
    often_U = count_U >= config.least_decisions
    facts = {
        "users": len(known_U), "counted": int(often_U.sum()),
        "capped": int((count_U > max(config.cap_decisions, config.cap_share * len(log))).sum()),
    }  # fmt: skip
    if often_U.sum() < config.least_users:
        return _untold(
            facts,
            f"{often_U.sum()} people were seen {config.least_decisions} times or more; {config.least_users} are needed",
        )
    if bias.pooled is None:
        return _untold(facts, "nothing tells the pull of a place from a choice by looking (see the bias)")
    look_B, pull_B = _fitted(log, bias.pooled)
    use_B = np.isfinite(look_B) & (log.user_B >= 0)
    log_UM = np.zeros((len(known_U), len(SHARES)))
    like_BM = np.log(np.maximum(np.outer(look_B, SHARES) + np.outer(pull_B, 1 - SHARES), TINY))
    np.add.at(log_UM, row[use_B[log.user_B >= 0]], like_BM[use_B])
    log_UM = log_UM[often_U]
    rng = np.random.default_rng(seed)
    again = [_looking(log_UM[rng.integers(len(log_UM), size=len(log_UM))], config) for _ in range(config.draws)]
    low, high = np.quantile(again, (0.025, 0.975))
    share_U = posterior(log_UM, fit_prior(log_UM, config)) @ SHARES
    best, worst = int(share_U.argmax()), int(share_U.argmin())
    middle = _looking(log_UM, config)
    return Lookers(
        **facts,
        share=(min(float(low), middle), middle, max(float(high), middle)),
        most=(float(share_U[best]), int(count_U[often_U][best])),
        least=(float(share_U[worst]), int(count_U[often_U][worst])),
        reason=f"Of {facts['counted']} people seen {config.least_decisions} times or more, {middle:.0%} ({low:.0%} to "
        f"{high:.0%}) look at the items in at least half of their decisions.",
    )


def _looking(log_UM: F64, config: InformantConfig) -> float:
    """The share of these users who look in at least half of their decisions; of those at just half, half."""
    mass_M = posterior(log_UM, fit_prior(log_UM, config)).mean(axis=0)
    return float(mass_M[SHARES > HALF].sum() + mass_M[np.isclose(SHARES, HALF)].sum() / 2)


def _untold(facts: dict[str, int], why: str) -> Lookers:
    unknown = (float("nan"), float("nan"), float("nan"))
    return Lookers(
        **facts, share=unknown, most=(float("nan"), 0), least=(float("nan"), 0), reason=f"Cannot tell: {why}."
    )


def _fitted(log: ClickLog, pooled: Pooled) -> tuple[F64, F64]:
    """(rho_c, pi_c) of each decision by the pooled pull and its own order's choice; nan where that was not fitted."""
    label_B = np.where(log.click_B < 0, log.width, log.click_B)
    look_B = chosen(log, pooled.models)[np.arange(len(log)), label_B]
    none = float(np.mean([model.pull_none for model in pooled.models.values()]))
    pull_L = np.append(pooled.pull_K, none)
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
