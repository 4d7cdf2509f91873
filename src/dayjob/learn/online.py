"""Learners that take decisions batch by batch: the two published ones, and naive clicks. Kept to be compared with.

Online, the list that is shown is drawn from the policy being learned; on replay, batches come in the order of the
journal.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dayjob.learn.recipes import Dpo, Naive, Reinforce
from dayjob.learn.replay import Replay
from dayjob.objectives.checks import Stats
from dayjob.objectives.dpo import dpo
from dayjob.objectives.naive import click_cross_entropy
from dayjob.objectives.reinforce import next_baseline, position_reward, reinforce
from dayjob.policies.network import ScoreNetwork
from dayjob.policies.ranker import RankerSpec

OnlineRecipe = Naive | Reinforce | Dpo
Arrays = dict[str, npt.NDArray[Any]]


class OnlineLearner:
    """One network, its optimiser and what its recipe remembers (a reference, an average, a reward baseline)."""

    def __init__(self, spec: RankerSpec, recipe: OnlineRecipe, *, seed: int, score_spread: float) -> None:
        self.recipe = recipe
        self.network = ScoreNetwork(spec, seed=seed, residual=recipe.residual, scale=1 / score_spread)
        self.reference = copy.deepcopy(self.network).requires_grad_(
            False
        )  # frozen for DPO, Polyak average for REINFORCE
        self.baseline = torch.zeros(())
        learned = [p for p in self.network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(learned, lr=recipe.rate, fused=True)

    @torch.no_grad()
    def score(self, replay: Replay) -> npt.NDArray[np.float32]:
        """Scores (B, K); -inf in fillers."""
        return self._scores(self.network, replay).numpy()

    def learn(self, replay: Replay) -> Stats:
        """One step on the decisions of ``replay``."""
        score_BK = self._scores(self.network, replay)
        loss, stats = self._objective(score_BK, replay)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        if isinstance(self.recipe, Reinforce):
            with torch.no_grad():
                for slow, fast in zip(self.reference.parameters(), self.network.parameters(), strict=True):
                    slow.lerp_(fast, 1 - self.recipe.average_decay)
        return stats

    def state(self) -> Arrays:
        """Everything that a learner which goes on from here needs."""
        arrays = {f"network.{name}": value.numpy() for name, value in self.network.state_dict().items()}
        arrays |= {f"reference.{name}": value.numpy() for name, value in self.reference.state_dict().items()}
        for number, moments in self.optimizer.state_dict()["state"].items():
            arrays |= {f"adam.{number}.{name}": value.numpy() for name, value in moments.items()}
        return arrays | {"baseline": self.baseline.numpy()}

    def restore(self, arrays: Arrays) -> None:
        """Go on from what :meth:`state` gave."""
        tensors = {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}
        self.network.load_state_dict(_under(tensors, "network."))
        self.reference.load_state_dict(_under(tensors, "reference."))
        self.baseline = tensors["baseline"]
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in _under(tensors, "adam.").items():
            number, _, moment = name.partition(".")
            moments.setdefault(int(number), {})[moment] = value
        self.optimizer.load_state_dict({"state": moments, "param_groups": self.optimizer.state_dict()["param_groups"]})

    def _scores(self, network: ScoreNetwork, replay: Replay) -> Tensor:
        # index_select: indexing by an array, here or in numpy, takes seven times as long.
        row_N = torch.from_numpy(np.maximum(replay.candidate_BK, 0).reshape(-1))
        candidate_NE = torch.from_numpy(replay.vector_VE).index_select(0, row_N)
        real_BK = torch.from_numpy(replay.real_BK)
        score_BK: Tensor = network(
            torch.from_numpy(replay.context_BD),
            candidate_NE.view(len(replay), replay.width, -1),
            pair_BKP=torch.from_numpy(replay.pair_BKP),
            base_BK=torch.from_numpy(replay.base_BK),
            real_BK=real_BK,
        )
        return torch.where(real_BK, score_BK, -torch.inf)

    def _objective(self, score_BK: Tensor, replay: Replay) -> tuple[Tensor, Stats]:
        shown_BK, click_B = torch.from_numpy(replay.shown_BK).long(), torch.from_numpy(replay.click_B).long()
        if isinstance(self.recipe, Naive):
            return click_cross_entropy(score_BK, shown_BK, click_B=click_B)
        with torch.no_grad():
            reference_BK = self._scores(self.reference, replay)
        if isinstance(self.recipe, Dpo):
            return dpo(score_BK, reference_BK, shown_BK=shown_BK, click_B=click_B, beta=self.recipe.beta)
        loss, stats = reinforce(
            score_BK,
            reference_BK,
            shown_BK=shown_BK,
            click_B=click_B,
            baseline=self.baseline,
            kl_weight=self.recipe.kl_weight,
        )
        reward_B = position_reward(click_B, score_BK.shape[1])
        self.baseline = next_baseline(self.baseline, reward_B, decay=self.recipe.baseline_decay)
        return loss, stats


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
