"""The anchor, its two sources, and the brake past the budget."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dayjob.objectives.language.mix import mix
from dayjob.objectives.language.retention import anchor, brake
from dayjob.objectives.language.sft import sft
from dayjob.objectives.language.weights import per_token


def test_the_anchor_is_kl_of_base_to_new_by_hand():
    one, eye = torch.ones(2, 1, 1).double(), torch.eye(1).double()
    new, base = torch.log(torch.tensor([[0.5], [0.5]])).double(), torch.log(torch.tensor([[0.9], [0.1]])).double()
    loss, stats = anchor(
        one, new @ eye, base_BTD=one, base_VD=base, weight_BT=torch.tensor([[0.75], [0.25]]).double(),
        self_written_B=torch.tensor([False, True]),
    )  # fmt: skip
    kl = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    assert loss.item() == pytest.approx(kl)
    assert stats["kl_replayed"].item() == pytest.approx(0.75 * kl)
    assert stats["kl_self_written"].item() == pytest.approx(0.25 * kl)


def test_the_anchor_is_still_where_nothing_changed():
    hidden, matrix = torch.randn(2, 3, 4).requires_grad_(), torch.randn(5, 4)
    loss, _ = anchor(
        hidden, matrix, base_BTD=hidden.detach(), base_VD=matrix, weight_BT=per_token(torch.ones(2, 3)),
        self_written_B=torch.tensor([True, False]),
    )  # fmt: skip
    (slope,) = torch.autograd.grad(loss, hidden)
    assert loss.abs().item() < 1e-6
    assert slope.abs().max().item() < 1e-6


def test_brake_by_hand():
    assert [brake(kl, budget=0.1) for kl in (0.0, 0.1, 0.15, 0.2, 5.0)] == pytest.approx([1.0, 1.0, 0.5, 0.0, 0.0])
    assert brake(float("nan"), budget=0.1) == 0.0
    assert brake(float("inf"), budget=0.1) == 0.0
    with pytest.raises(ValueError, match="leave the anchor out to have none"):
        brake(0.1, budget=0.0)


@given(st.floats(0, 100), st.floats(0, 100), st.floats(1e-3, 10))
def test_brake_never_rises_with_kl_and_stays_a_share(low, high, budget):
    low, high = sorted((low, high))
    assert 0 <= brake(high, budget=budget) <= brake(low, budget=budget) <= 1


def lesson(steps: int, *, budget: float | None, anchored: bool) -> tuple[float, float]:
    """A linear model is taught to say 0 in answer to one question; (KL on what it knew, probability of the lesson).
    Question and knowledge share a direction, so that the lesson moves both."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(6, 4, generator=generator)
    known = torch.randn(8, 1, 4, generator=generator)
    question = known[:1] + 0.3 * torch.randn(1, 1, 4, generator=generator)
    weight, base, kl = matrix.clone().requires_grad_(), matrix, 0.0
    for _ in range(steps):
        kept, stats = anchor(
            known, weight, base_BTD=known, base_VD=base, weight_BT=per_token(torch.ones(8, 1)),
            self_written_B=torch.zeros(8, dtype=torch.bool),
        )  # fmt: skip
        kl = stats["kl"].item()
        logp = torch.log_softmax(question @ weight.T, dim=-1)[..., 0]
        parts = {"lesson": sft(logp, weight_BT=torch.ones(1, 1)), "anchor": (kept, stats)}
        share = brake(kl, budget=budget) if budget else 1.0
        loss, _ = mix(parts, shares={"lesson": share, "anchor": 0.02 if anchored else 0.0})
        (slope,) = torch.autograd.grad(loss, weight)
        weight = (weight - 0.3 * slope).detach().requires_grad_()
    return kl, torch.softmax(question @ weight.T, dim=-1)[0, 0, 0].item()


def test_past_the_budget_only_the_anchor_is_left():
    free, learned_free = lesson(150, budget=None, anchored=True)
    held, learned_held = lesson(150, budget=0.05, anchored=True)
    assert learned_free > 0.9
    assert free > 2.5 * 0.05  # a weak anchor alone lets it go
    assert 0.05 < held < 2 * 0.05  # the brake does not, and what fits in the budget is learned
    assert learned_held > lesson(1, budget=None, anchored=True)[1]
