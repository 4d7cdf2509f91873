"""Where a course stands: weights, optimiser, buffer, what was seen on the way. Saved whole, so that a killed one goes
on."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dayjob.learn.practice.student import Weights
from dayjob.learn.stages import Stages

Arrays = dict[str, npt.NDArray[Any]]
State = dict[str, Tensor]
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")
_NUMBERS = ("step", "update", "kl", "warmed", "start_score", "best_score", "best_look", "curve", "looks")


@dataclass(slots=True, kw_only=True)
class CourseProgress:
    """The higher the score the better. ``best_look``: the place among ``looks`` of that at the best weights, 0 for the
    weights as they were given. ``step``: groups were learned from so often; ``update``: so often the weights
    changed (a step without anything to learn changes nothing); ``past``: the weights of the last updates, newest last,
    where attempts are kept behind on purpose."""

    optimizer: torch.optim.AdamW
    past: deque[State]
    best: State
    start_score: float = float("-inf")  # of the weights as they were given
    best_score: float = float("-inf")
    best_look: int = 0
    step: int = 0
    update: int = 0
    warmed: int = 0
    kl: float = 0.0
    curve: list[dict[str, Any]] = field(default_factory=list)
    looks: list[dict[str, Any]] = field(default_factory=list)

    @staticmethod
    def begin(weights: Weights, *, lag: int) -> CourseProgress:
        """Nothing was learned yet."""
        # No decay: what holds the weights back is the anchor, which knows what matters.
        optimizer = torch.optim.AdamW(weights.parameters(), lr=0.0, weight_decay=0.0)
        state = weights.state()
        return CourseProgress(optimizer=optimizer, past=deque([state], maxlen=lag + 1), best=state)

    def looked(self, weights: Weights, *, score: float, rates: Mapping[str, float]) -> None:
        """Take down a look, and remember the weights if they are the best so far: better than those that were given (a
        tie shows nothing), and of equals among the later ones the newest, which learned more."""
        if not self.looks:
            self.start_score = score
        if not self.looks or (score > self.start_score and score >= self.best_score):
            self.best_score, self.best_look, self.best = score, len(self.looks), weights.state()
        self.looks.append({"step": self.step, "warmed": self.warmed, "score": score} | dict(rates))

    def save(self, stages: Stages, weights: Weights, *, others: Mapping[str, Arrays]) -> None:
        """To the checkpoint, with the arrays of ``others`` under their names."""
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        arrays: Arrays = {"numbers": np.frombuffer(json.dumps(numbers).encode(), np.uint8)}
        states = {"best": self.best, "now": weights.state()}
        states |= {f"past.{place}": state for place, state in enumerate(self.past)}
        for prefix, state in states.items():
            arrays |= {f"{prefix}/{name}": one.numpy() for name, one in state.items()}
        for place, one in enumerate(weights.parameters()):
            moments = self.optimizer.state.get(one, {})
            arrays |= {f"moment.{place}/{name}": value.cpu().numpy() for name, value in moments.items()}
        for prefix, more in others.items():
            arrays |= {f"{prefix}/{name}": value for name, value in more.items()}
        stages.save(arrays)

    def load(self, stages: Stages, weights: Weights) -> Arrays | None:
        """Become what the checkpoint says; its arrays. None where there is none: nothing changed."""
        saved = stages.load()
        if not saved:
            return None
        for name, value in json.loads(saved["numbers"].tobytes()).items():
            setattr(self, name, value)
        self.best = _tensors(saved, "best")
        weights.restore(_tensors(saved, "now"))
        count = len({name.partition("/")[0] for name in saved if name.startswith("past.")})
        self.past = deque((_tensors(saved, f"past.{place}") for place in range(count)), maxlen=self.past.maxlen)
        for place, one in enumerate(weights.parameters()):
            moments = _tensors(saved, f"moment.{place}")
            if moments:
                self.optimizer.state[one] = {name: moments[name].to(one.device) for name in _MOMENTS}
                self.optimizer.state[one]["step"] = moments["step"].cpu()
        return saved


def named(arrays: Arrays, prefix: str) -> Arrays:
    """The arrays that were saved under ``prefix``."""
    start = f"{prefix}/"
    return {name.removeprefix(start): np.array(value) for name, value in arrays.items() if name.startswith(start)}


def _tensors(arrays: Arrays, prefix: str) -> State:
    return {name: torch.from_numpy(value) for name, value in named(arrays, prefix).items()}
