"""Networks on clicks whose bias was estimated first: the alternatives to ``debiased``, kept to be compared with it.

The click model comes from the same clicks, by the joint fit of :mod:`dayjob.learn.belief` with the few shared terms:
share of pulled clicks f, pull pi_k, examination g_k, and a belief over each list. Nothing here is told f.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dayjob.learn.belief import fit_belief, log_likelihoods, make_events, start
from dayjob.learn.design import make_design
from dayjob.learn.recipes import ClickModelRecipe, Debiased, DoublyRobust, Mixture, PlRank
from dayjob.learn.replay import Replay
from dayjob.learn.stages import Stages
from dayjob.objectives.affine import affine_corrected, doubly_robust, relevance_cross_entropy
from dayjob.objectives.checks import Stats
from dayjob.objectives.mixture import mixture
from dayjob.objectives.pairs import skip_above
from dayjob.objectives.pl_rank import pl_rank
from dayjob.policies.network import ScoreNetwork
from dayjob.policies.ranker import RankerSpec

LOWEST = -1e4  # a filler's score: below every candidate's, and finite, so that products with 0 are 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClickModel:
    """How the clicks of B decisions come about: ``pull`` f, ``pull_at_K`` log pi, ``examined_K`` log g, ``belief_BK``
    the probability that a candidate is the one wanted, in slot order."""

    pull: float
    pull_at_K: Tensor
    examined_K: Tensor
    belief_BK: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Lessons:
    """Decisions as their learner sees them: ``wanted_BK`` estimates of relevance in slot order; empty (B, 0) where
    the recipe needs none."""

    replay: Replay
    wanted_BK: Tensor

    def rows(self, at: slice) -> Lessons:
        """The decisions ``at`` alone."""
        return replace(self, replay=self.replay.rows(at), wanted_BK=self.wanted_BK[at])


def estimate(replay: Replay) -> ClickModel:
    """The click model of these decisions: shared terms, no ridge ladder, no proof."""
    recipe = Debiased()
    design, events = make_design(replay, recipe), make_events(replay, recipe)
    belief = start(design, events)
    for shared in (False, True):
        belief = fit_belief(design, events, first=belief, ridge=None, shared=shared, recipe=recipe)
    _, _, utility_BK = log_likelihoods(design, events, belief=belief)
    belief_BK = torch.softmax(torch.where(design.real_BK, utility_BK, -torch.inf), dim=1)
    return ClickModel(
        pull=belief.pull,
        pull_at_K=torch.log_softmax(belief.pull_at_K.float(), 0),
        examined_K=belief.examined_K.float(),
        belief_BK=belief_BK,
    )


def fit_network(
    replay: Replay, spec: RankerSpec, *, recipe: ClickModelRecipe, seed: int, score_spread: float, stages: Stages
) -> tuple[dict[str, npt.NDArray[np.float32]], dict[str, float], RankerSpec]:
    """(weights, stats, what they are the weights of). A killed fit begins anew: it ends at the same weights."""
    spec = replace(spec, attention=recipe.attention)
    learner = _Learner(spec, recipe, seed=seed, score_spread=score_spread, model=estimate(replay))
    lessons = learner.lessons(replay)
    starts = [i for _ in range(recipe.passes) for i in range(0, len(replay), recipe.batch)]
    stats: Stats = {}
    for number, first in enumerate(starts):
        stats = learner.teach(lessons.rows(slice(first, first + recipe.batch)))
        stages.say((number + 1) / len(starts))
    told = {name: float(value) for name, value in stats.items()}
    return learner.network.weights(), {"decisions": float(len(replay)), "pull": learner.model.pull, **told}, spec


class _Learner:
    """A network, its optimiser, and the click model that its recipe corrects by."""

    def __init__(
        self, spec: RankerSpec, recipe: ClickModelRecipe, *, seed: int, score_spread: float, model: ClickModel
    ) -> None:
        self.recipe = recipe
        self.model = model
        self.network = ScoreNetwork(spec, seed=seed, residual=True, scale=1 / score_spread)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=recipe.rate)
        self.generator = torch.Generator().manual_seed(seed)

    def lessons(self, replay: Replay) -> Lessons:
        """What is computed once of all decisions."""
        recipe = self.recipe
        if not isinstance(recipe, DoublyRobust | PlRank):
            return Lessons(replay=replay, wanted_BK=torch.zeros(len(replay), 0))
        position_BK = torch.from_numpy(replay.position_BK).long()
        shown_BK, at_BK = position_BK >= 0, position_BK.clamp_min(0)
        click_BK = (position_BK == torch.from_numpy(replay.click_B).long()[:, None]) & shown_BK
        alpha_K = (1 - self.model.pull) * torch.exp(self.model.examined_K)
        beta_K = self.model.pull * torch.exp(self.model.pull_at_K)
        bias = {"alpha_BK": alpha_K[at_BK], "beta_BK": beta_K[at_BK]}
        if isinstance(recipe, DoublyRobust):
            wanted_BK = doubly_robust(
                click_BK.float(), self.model.belief_BK, **bias, mean_alpha_BK=bias["alpha_BK"], floor=recipe.floor
            )
            unshown_BK = self.model.belief_BK
        else:
            wanted_BK = affine_corrected(click_BK.float(), **bias, floor=recipe.floor)
            unshown_BK = torch.zeros_like(wanted_BK)
        wanted_BK = torch.where(shown_BK, wanted_BK, unshown_BK)
        clicked_B1 = torch.from_numpy(replay.click_B >= 0)[:, None]
        return Lessons(replay=replay, wanted_BK=torch.where(clicked_B1, wanted_BK, 0.0))

    def teach(self, lessons: Lessons) -> Stats:
        """One step on these decisions."""
        replay = lessons.replay
        real_BK = torch.from_numpy(replay.real_BK)
        score_BK = self.network(
            torch.from_numpy(replay.context_BD),
            torch.from_numpy(replay.vector_VE[np.maximum(replay.candidate_BK, 0)]),
            pair_BKP=torch.from_numpy(replay.pair_BKP),
            base_BK=torch.from_numpy(replay.base_BK),
            real_BK=real_BK,
        )
        loss, stats = self._loss(torch.where(real_BK, score_BK, LOWEST), lessons)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return stats

    def _loss(self, score_BK: Tensor, lessons: Lessons) -> tuple[Tensor, Stats]:
        recipe, replay = self.recipe, lessons.replay
        real_BK = torch.from_numpy(replay.real_BK)
        if isinstance(recipe, DoublyRobust):
            return relevance_cross_entropy(score_BK, lessons.wanted_BK, real_BK=real_BK)
        if isinstance(recipe, PlRank):
            count, width = score_BK.shape
            drawn = torch.rand(recipe.samples, count, width, generator=self.generator).clamp_min(1e-30)
            noisy = score_BK.detach() - torch.log(-torch.log(drawn))
            weight_K = 1 / torch.log2(torch.arange(width) + 2.0)
            sampled_SBK = torch.argsort(-noisy, dim=2)
            return pl_rank(score_BK, lessons.wanted_BK, weight_K=weight_K, sampled_SBK=sampled_SBK)
        shown_BK, click_B = torch.from_numpy(replay.shown_BK).long(), torch.from_numpy(replay.click_B).long()
        weight_B = torch.ones(len(replay))
        if isinstance(recipe, Mixture):
            pull = torch.tensor(self.model.pull)
            return mixture(
                score_BK, shown_BK, click_B=click_B, pull_logit_B=torch.logit(pull, eps=1e-6).expand(len(replay)),
                pull_at_K=self.model.pull_at_K, examined_K=self.model.examined_K, weight_B=weight_B,
            )  # fmt: skip
        return skip_above(score_BK, shown_BK, click_B=click_B, weight_B=weight_B)
