"""What people choose, apart from where they click: the click model and the ranker's coefficients, estimated jointly.

Maximum a posteriori of the mixture of :mod:`dayjob.objectives.mixture` by L-BFGS. The likelihood is of the click given
the list that was shown, so randomised first places need no weights: they are what tells the pull of position 1 from the
quality of what stands there. A truth, where somebody gave one, is a choice among all candidates that nothing pulled.

A reward r in [0, 1] speaks of one candidate d: E[r] = low + (high - low) p(d is the one wanted), by the fractional
logit r log m + (1 - r) log(1 - m) (Papke, Wooldridge, J. Applied Econometrics 1996), weighted by 1 / dispersion (quasi-
likelihood: Wedderburn, Biometrika 1974). It conditions on what was shown, whose draw knew nothing of r, so it needs no
weights either; low and high are estimated, so people who praise everything (low = high) teach nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dayjob.learn.design import Design
from dayjob.learn.recipes import Debiased
from dayjob.learn.replay import Replay
from dayjob.objectives.mixture import mixture_log_likelihood

PULL_PRIOR = 1.0  # pseudo-clicks that were pulled, and as many that were not
PULL_AT_PRIOR = 0.1  # the same for each position
PULL_START = 0.5  # logit at which the share of pulled clicks starts
TOP_START = 0.7  # share of the pull that starts on the first position; the others start with even parts of the rest
REWARD_START = (-1.0, 0.0)  # logits of low, and of high between low and 1
REWARD_PRIOR = 1.0  # pseudo-rewards of each kind
LEAST_DISPERSION = 0.01  # of rewards: none weighs more than a hundred thumbs
SCORE_RIDGE = 0.1
HISTORY = 12  # L-BFGS pairs
ROUND = 8  # iterations between looks at the gain
TINY = 1e-6
SETTLED = 0.3  # nats of the whole objective: a round that gains less is the last


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """Coefficients of a :class:`Design`, and how clicks come about: see :func:`mixture_log_likelihood`.

    ``user_U`` is each user's departure from ``pull_logit``; who is anonymous has none. ``reward_2``: see ``rewards``.
    """

    coefficient: Tensor
    pull_logit: Tensor
    pull_at_K: Tensor
    examined_K: Tensor
    user_U: Tensor
    reward_2: Tensor

    @property
    def rewards(self) -> Tensor:
        """(2,) mean reward of a candidate that is not the one wanted, and of the one that is: low <= high."""
        low, rest = torch.sigmoid(self.reward_2)
        return torch.stack([low, low + (1 - low) * rest])

    @property
    def pull(self) -> float:
        """The share f of clicks that fall by position alone, of a user of whom nothing is known."""
        return float(torch.sigmoid(self.pull_logit))


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """The decisions that teach: clicks, rewards and truths as tensors, and how much each weighs.

    ``rewarded_B`` is the slot that ``reward_B`` speaks of, -1 where there is none. A decision has one of the three.
    """

    shown_BK: Tensor
    click_B: Tensor
    truth_B: Tensor
    reward_B: Tensor
    rewarded_B: Tensor
    user_B: Tensor
    weight_B: Tensor
    users: int

    @property
    def taught_B(self) -> npt.NDArray[np.bool_]:
        """Which decisions say what was wanted."""
        taught_B = (self.click_B >= 0) | (self.truth_B >= 0) | (self.rewarded_B >= 0)
        taught: npt.NDArray[np.bool_] = taught_B.numpy()
        return taught

    def rows(self, at: Tensor) -> Events:
        """The decisions ``at`` alone."""
        names = ("shown_BK", "click_B", "truth_B", "reward_B", "rewarded_B", "user_B", "weight_B")
        picked: dict[str, Any] = {name: getattr(self, name)[at] for name in names}
        return replace(self, **picked)


def make_events(replay: Replay, recipe: Debiased) -> Events:
    """What a replay tells: truth beats reward, reward beats click, whichever of them there is. Users' weights are
    capped."""
    user_B = np.asarray(replay.user_B, dtype=np.int64)
    users = int(user_B.max(initial=-1)) + 1
    times_U = np.bincount(user_B[user_B >= 0], minlength=users)
    cap = max(float(recipe.least_user), recipe.user_share * len(replay))
    weight_U = np.append(np.minimum(1.0, cap / np.maximum(times_U, 1)), 1.0)
    truth_B = torch.from_numpy(replay.truth_B).long()
    reward_B, rewarded_B = np.zeros(len(replay), np.float32), np.full(len(replay), -1, np.int64)
    weight_B = weight_U[user_B].astype(np.float32)
    if replay.reward_B is not None and replay.rewarded_B is not None:
        use_B = np.isfinite(replay.reward_B) & (replay.truth_B < 0)
        reward_B[use_B], rewarded_B[use_B] = replay.reward_B[use_B], replay.rewarded_B[use_B]
        weight_B[use_B] /= dispersion(reward_B[use_B])
    click_B = torch.from_numpy(np.where((replay.truth_B >= 0) | (rewarded_B >= 0), -1, replay.click_B)).long()
    return Events(
        shown_BK=torch.from_numpy(replay.shown_BK).long(),
        click_B=click_B,
        truth_B=truth_B,
        reward_B=torch.from_numpy(reward_B),
        rewarded_B=torch.from_numpy(rewarded_B),
        user_B=torch.from_numpy(np.where(user_B >= 0, user_B, users)),
        weight_B=torch.from_numpy(weight_B),
        users=users,
    )


def dispersion(reward_N: npt.NDArray[np.float32]) -> float:
    """Variance of rewards against that of thumbs with the same mean: 1 for thumbs, less for finer grades."""
    if len(reward_N) == 0:
        return 1.0
    mean = float(reward_N.mean())
    return max(LEAST_DISPERSION, float(reward_N.var()) / max(mean * (1 - mean), LEAST_DISPERSION))


def start(design: Design, events: Events) -> Belief:
    """Where every fit begins: nothing known but that some clicks are pulled."""
    width = design.score_BK.shape[1]
    first_K = torch.full((width,), (1 - TOP_START) / max(width - 1, 1), dtype=torch.float64)
    first_K[0] = TOP_START
    return Belief(
        coefficient=torch.zeros(design.shared + design.own, dtype=torch.float64),
        pull_logit=torch.tensor(PULL_START, dtype=torch.float64),
        pull_at_K=torch.log(first_K),
        examined_K=torch.zeros(width, dtype=torch.float64),
        user_U=torch.zeros(events.users, dtype=torch.float64),
        reward_2=torch.tensor(REWARD_START, dtype=torch.float64),
    )


def fit_belief(
    design: Design, events: Events, *, first: Belief, ridge: float | None, shared: bool, recipe: Debiased
) -> Belief:
    """The most probable belief beginning at ``first``.

    ``shared`` False keeps to the caller's score; ``ridge`` None keeps to the shared terms. What is kept out is 0.
    """
    free = torch.zeros(design.shared + design.own, dtype=torch.float64)
    free[0] = 1
    free[1 : design.shared] = float(shared)
    free[design.shared :] = float(ridge is not None)
    strength = torch.full_like(free, ridge or 0.0)
    strength[0], strength[1 : design.shared] = SCORE_RIDGE, recipe.shared_ridge
    theta = _flatten(replace(first, coefficient=first.coefficient * free)).requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        [theta],
        max_iter=ROUND,
        history_size=HISTORY,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-4,
        tolerance_change=1e-9,
    )

    def closure() -> float:
        belief = _unflatten(theta.detach(), first)
        value, gradient = _penalty(belief, strength, recipe)
        more, slope = _negative_log_likelihood(design, events, belief, own=ridge is not None)
        gradient = gradient + slope
        gradient[: len(free)] *= free
        theta.grad = gradient
        return value + more

    before = float("inf")
    for _ in range(0, recipe.steps, ROUND):
        now = float(optimizer.step(closure))  # type: ignore[no-untyped-call]  # the value at the start of the round
        if before - now < SETTLED:
            break
        before = now
    return _unflatten(theta.detach(), first)


@torch.no_grad()
def log_likelihoods(design: Design, events: Events, *, belief: Belief) -> tuple[Tensor, Tensor, Tensor]:
    """(log-likelihood of the click, reward or truth, probability that it was a choice, utilities (B, K)) of each
    decision."""
    likelihood, choice, utility = [], [], []
    coefficient = belief.coefficient.float()
    for at, v_BKR in design.chunks():
        utility_BK = design.utility(coefficient, at, v_BKR=v_BKR)
        total_B, chosen_B = _log_likelihood(design, events, at, utility_BK, belief)
        likelihood.append(total_B)
        choice.append(chosen_B.exp())
        utility.append(utility_BK)
    return torch.cat(likelihood), torch.cat(choice), torch.cat(utility)


def _log_likelihood(
    design: Design, events: Events, at: slice, utility_BK: Tensor, belief: Belief
) -> tuple[Tensor, Tensor]:
    user_U = torch.cat([belief.user_U, belief.user_U.new_zeros(1)])
    total_B, chosen_B = mixture_log_likelihood(
        utility_BK,
        events.shown_BK[at],
        click_B=events.click_B[at],
        pull_logit_B=(belief.pull_logit + user_U[events.user_B[at]]).to(utility_BK.dtype),
        pull_at_K=belief.pull_at_K.to(utility_BK.dtype),
        examined_K=belief.examined_K.to(utility_BK.dtype),
    )
    truth_B = events.truth_B[at]
    share_BK = torch.log_softmax(torch.where(design.real_BK[at], utility_BK, -torch.inf), dim=1)
    told_B = share_BK.gather(1, truth_B.clamp_min(0)[:, None])[:, 0]
    rewarded_B = events.rewarded_B[at]
    if not (rewarded_B >= 0).any():
        return torch.where(truth_B >= 0, told_B, total_B), torch.where(truth_B >= 0, 0.0, chosen_B)
    low, high = belief.rewards.to(utility_BK.dtype)
    wanted_B = share_BK.gather(1, rewarded_B.clamp_min(0)[:, None])[:, 0].exp()
    mean_B = (low + (high - low) * wanted_B).clamp(TINY, 1 - TINY)
    reward_B = events.reward_B[at]
    paid_B = reward_B * mean_B.log() + (1 - reward_B) * torch.log1p(-mean_B)
    total_B = torch.where(truth_B >= 0, told_B, torch.where(rewarded_B >= 0, paid_B, total_B))
    return total_B, torch.where((truth_B >= 0) | (rewarded_B >= 0), 0.0, chosen_B)


def _negative_log_likelihood(design: Design, events: Events, belief: Belief, *, own: bool) -> tuple[float, Tensor]:
    """Weighted sum, and its gradient laid out as :func:`_flatten` does."""
    coefficient = belief.coefficient.float()
    leaves = [getattr(belief, name).clone().requires_grad_(True) for name in _CLICK_NAMES]
    live = replace(belief, **dict(zip(_CLICK_NAMES, leaves, strict=True)))
    value, slope = 0.0, torch.zeros(design.shared + design.own, dtype=torch.float64)
    for at, v_BKR in design.chunks():
        utility_BK = design.utility(coefficient, at, v_BKR=v_BKR).requires_grad_(True)
        total_B, _ = _log_likelihood(design, events, at, utility_BK, live)
        loss = -(events.weight_B[at] * total_B).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        assert utility_BK.grad is not None
        if own:
            slope += design.gradient(utility_BK.grad, at, v_BKR=v_BKR)
        else:
            slope[: design.shared] += design.shared_gradient(utility_BK.grad, at)
        value += float(loss.detach())
    slopes = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
    return value, torch.cat([slope, *(one.reshape(-1) for one in slopes)])


def _penalty(belief: Belief, strength: Tensor, recipe: Debiased) -> tuple[float, Tensor]:
    leaves = [getattr(belief, name).clone().requires_grad_(True) for name in ("coefficient", *_CLICK_NAMES)]
    coefficient, pull_logit, pull_at_K, examined_K, user_U, reward_2 = leaves
    sure = torch.nn.functional.logsigmoid
    value = (
        (strength * coefficient.square()).sum() / 2
        - PULL_PRIOR * (sure(pull_logit) + sure(-pull_logit))
        - PULL_AT_PRIOR * torch.log_softmax(pull_at_K, 0).sum()
        + recipe.examined_ridge * examined_K.square().sum() / 2
        + recipe.user_ridge * user_U.square().sum() / 2
        - REWARD_PRIOR * (sure(reward_2) + sure(-reward_2)).sum()
    )
    value.backward()
    return float(value.detach()), torch.cat([leaf.grad.reshape(-1) for leaf in leaves])


_CLICK_NAMES = ("pull_logit", "pull_at_K", "examined_K", "user_U", "reward_2")


def _flatten(belief: Belief) -> Tensor:
    return torch.cat([getattr(belief, name).reshape(-1) for name in ("coefficient", *_CLICK_NAMES)]).clone()


def _unflatten(theta: Tensor, like: Belief) -> Belief:
    values, at = {}, 0
    for name in ("coefficient", *_CLICK_NAMES):
        shape = getattr(like, name).shape
        count = int(np.prod(shape))
        values[name] = theta[at : at + count].reshape(shape)
        at += count
    return Belief(**values)
