"""Where a night stands: weights, optimiser, the best so far. Saved whole, so that a killed night goes on."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dayjob.learn.stages import Stages
from dayjob.policies.language_train import TrainableLora

Arrays = dict[str, npt.NDArray[Any]]
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(slots=True, kw_only=True)
class Progress:
    """The lower the score the better. ``trial``: which of the learning rates; ``stale``: looks since the best one of
    this trial."""

    optimizer: torch.optim.AdamW
    best: dict[str, Tensor]
    best_step: int = 0
    best_score: float = float("inf")
    trial_score: float = float("inf")
    trial: int = 0
    step: int = 0
    stale: int = 0
    kl: float = 0.0
    stats: dict[str, float] = field(default_factory=dict)
    looks: list[dict[str, Any]] = field(default_factory=list)

    @staticmethod
    def load(stages: Stages, lora: TrainableLora, *, start: dict[str, Tensor]) -> Progress:
        """From the checkpoint, or the beginning."""
        fresh = Progress(optimizer=_optimizer(lora), best=start)
        saved = stages.load()
        if not saved:
            return fresh
        numbers = json.loads(saved.pop("numbers").tobytes())
        found = Progress(optimizer=_optimizer(lora), best=_named(saved, "best"), **numbers)
        lora.restore(_named(saved, "now"))
        lora.average |= {name: one.to(lora.average[name].device) for name, one in _named(saved, "average").items()}
        for place, one in enumerate(lora.parameters()):
            moments = _named(saved, f"moment.{place}")
            if moments:
                found.optimizer.state[one] = {name: moments[name].to(one.device) for name in _MOMENTS}
                found.optimizer.state[one]["step"] = moments["step"].cpu()
        return found

    def save(self, stages: Stages, lora: TrainableLora) -> None:
        """To the checkpoint."""
        numbers = {
            name: getattr(self, name) for name in self.__slots__ if name not in ("optimizer", "best")
        }  # fmt: skip
        arrays: Arrays = {"numbers": np.frombuffer(json.dumps(numbers).encode(), np.uint8)}
        for prefix, state in (("best", self.best), ("now", lora.state())):
            arrays |= {f"{prefix}/{name}": one.numpy() for name, one in state.items()}
        arrays |= {f"average/{name}": one.cpu().numpy() for name, one in lora.average.items()}
        for place, one in enumerate(lora.parameters()):
            moments = self.optimizer.state.get(one, {})
            arrays |= {f"moment.{place}/{name}": value.cpu().numpy() for name, value in moments.items()}
        stages.save(arrays)

    def keep(self, lora: TrainableLora, *, score: float) -> None:
        """Remember the weights if they are the best so far."""
        if score < self.trial_score:
            self.trial_score, self.stale = score, 0
        else:
            self.stale += 1
        if score < self.best_score:
            self.best_score, self.best_step, self.best = score, self.step, lora.state()

    def next_trial(self, lora: TrainableLora, start: dict[str, Tensor]) -> None:
        """Begin anew with the next learning rate."""
        lora.restore(start)
        self.optimizer = _optimizer(lora)
        self.trial += 1
        self.step, self.stale, self.kl, self.trial_score = 0, 0, 0.0, float("inf")


def _optimizer(lora: TrainableLora) -> torch.optim.AdamW:
    # No decay: what holds the adapter back is the anchor, which knows what matters.
    return torch.optim.AdamW(lora.parameters(), lr=0.0, weight_decay=0.0)


def _named(arrays: Arrays, prefix: str) -> dict[str, Tensor]:
    start = f"{prefix}/"
    return {
        name.removeprefix(start): torch.from_numpy(np.array(value))
        for name, value in arrays.items()
        if name.startswith(start)
    }
