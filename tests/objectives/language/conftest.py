"""Small random language-model heads, and what memory a computation takes."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch.profiler import ProfilerActivity, profile


@dataclass(frozen=True, kw_only=True)
class Head:
    """The last hidden states of some completions, an output matrix, the tokens and which of them count."""

    hidden: torch.Tensor
    matrix: torch.Tensor
    token: torch.Tensor
    mask: torch.Tensor

    def logits(self) -> torch.Tensor:
        return self.hidden @ self.matrix.T


def draw_head(seed: int, *, rows: int = 3, length: int = 5, vocabulary: int = 11, dtype=torch.float64) -> Head:
    generator = torch.Generator().manual_seed(seed)
    width = 4
    return Head(
        hidden=torch.randn(rows, length, width, generator=generator, dtype=dtype).requires_grad_(),
        matrix=torch.randn(vocabulary, width, generator=generator, dtype=dtype).requires_grad_(),
        token=torch.randint(vocabulary, (rows, length), generator=generator),
        mask=torch.rand(rows, length, generator=generator) < 0.7,
    )


def peak_bytes(work: Callable[[], object]) -> int:
    """The most that was allocated at once while ``work`` ran, beyond what there was before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        work()
    held = most = 0
    for event in sorted(recorded.profiler.kineto_results.events(), key=lambda one: one.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


@pytest.fixture
def head() -> Callable[..., Head]:
    return draw_head


@pytest.fixture
def peak() -> Callable[[Callable[[], object]], int]:
    return peak_bytes
