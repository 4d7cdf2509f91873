"""Denominators by hand; and their law: the microbatches of a step add up to the step, whatever the split."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dayjob.objectives.language.corrections import Cispo, DppoTv, SequenceMask
from dayjob.objectives.language.distillation import self_distillation
from dayjob.objectives.language.divergence import Divergence
from dayjob.objectives.language.dpo import dpo
from dayjob.objectives.language.kto import kto
from dayjob.objectives.language.logits import token_logprobs
from dayjob.objectives.language.mix import add_stats, mix
from dayjob.objectives.language.policy_gradient import policy_gradient
from dayjob.objectives.language.retention import anchor
from dayjob.objectives.language.sft import sft
from dayjob.objectives.language.weights import (
    per_budget,
    per_prompt,
    per_row,
    per_sequence,
    per_token,
    sequence_logprob,
)

MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0]]).bool()


def test_weights_by_hand():
    group = torch.tensor([7, 7, -3, 5])
    each = lambda *rows: [pytest.approx(row) for row in rows]  # noqa: E731
    assert per_token(MASK).sum(1).tolist() == pytest.approx([4 / 8, 2 / 8, 0, 2 / 8])
    assert per_sequence(MASK).tolist() == each([1 / 12] * 4, [1 / 6, 1 / 6, 0, 0], [0] * 4, [0, 1 / 6, 1 / 6, 0])
    # Two prompts have tokens; the first's six share one half.
    assert per_prompt(MASK, group).tolist() == each([1 / 12] * 4, [1 / 12, 1 / 12, 0, 0], [0] * 4, [0, 1 / 4, 1 / 4, 0])
    assert per_budget(MASK, 10).max().item() == pytest.approx(1 / 40)
    assert per_row(torch.tensor([True, False, True])).tolist() == [0.5, 0.0, 0.5]


def test_nothing_counts_where_nothing_is():
    nothing, group = torch.zeros(2, 3), torch.tensor([1, 2])
    for weight in (per_token(nothing), per_sequence(nothing), per_prompt(nothing, group), per_budget(nothing, 5)):
        assert (weight == 0).all()
    assert (per_row(torch.zeros(2)) == 0).all()


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(1, 6), length=st.integers(1, 5))
def test_weights_are_shares_of_one_on_the_mask(seed, rows, length):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(rows, length, generator=generator) < 0.5
    group = torch.randint(-2, 3, (rows,), generator=generator)
    for weight in (per_token(mask), per_sequence(mask), per_prompt(mask, group)):
        assert weight.sum().item() == pytest.approx(float(mask.any()), abs=1e-6)
        assert ((weight > 0) == mask).all()
    order = torch.randperm(rows, generator=generator)
    torch.testing.assert_close(per_prompt(mask[order], group[order]), per_prompt(mask, group)[order])
    torch.testing.assert_close(per_prompt(mask, torch.arange(rows)), per_sequence(mask))
    torch.testing.assert_close(per_prompt(mask, torch.zeros(rows, dtype=torch.int64)), per_token(mask))


def step(seed: int, rows: int, length: int) -> dict[str, torch.Tensor]:
    """Everything that a mixture of all objectives needs, one row a completion."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    mask = torch.rand(rows, length, generator=generator) < 0.7
    # Half the rows, drawn, are anchors; the rest are lessons: two parts with rows of their own.
    anchored = (torch.rand(rows, generator=generator) < 0.5)[:, None]
    group = torch.randint(0, 3, (rows,), generator=generator)
    return {
        "hidden": draw(rows, length, 3),
        "teacher": draw(rows, length, 3),
        "token": torch.randint(6, (rows, length), generator=generator),
        "behaviour": -draw(rows, length).abs(),
        "advantage": draw(rows, length),
        "reference": draw(rows) - 4,
        "liked": torch.rand(rows, generator=generator) < 0.5,
        "lesson_weight": per_token(mask & ~anchored).double(),
        "anchor_weight": per_token(mask & anchored).double(),
        "prompt_weight": per_prompt(mask, group).double(),
        "sequence_weight": per_sequence(mask).double(),
        "row_weight": per_row(mask.any(dim=1)).double(),
        "mask": mask,
    }


SHARES = {"sft": 0.3, "distil": 1.0, "anchor": 5.0, "cispo": 0.7, "dppo": 0.2, "kto": 0.4, "dpo": 0.1}


def everything(matrix: torch.Tensor, one: dict[str, torch.Tensor]):
    """The mixed loss of one microbatch, and its stats."""
    logp = token_logprobs(one["hidden"], matrix, token_BT=one["token"], mask_BT=one["mask"], chunk=3)
    both = {
        "student_BTD": one["hidden"],
        "student_VD": matrix,
        "teacher_BTD": one["teacher"],
        "teacher_VD": matrix.detach(),
    }
    whole = sequence_logprob(logp, one["mask"])
    jsd = Divergence(kind="jsd", top_k=3)
    stale = {"behaviour_BT": one["behaviour"], "advantage_BT": one["advantage"]}
    parts = {
        "sft": sft(logp, weight_BT=one["lesson_weight"]),
        "distil": self_distillation(**both, weight_BT=one["lesson_weight"], how=jsd, chunk=4),
        "anchor": anchor(
            one["hidden"], matrix, base_BTD=one["teacher"], base_VD=matrix.detach(), weight_BT=one["anchor_weight"],
            self_written_B=one["liked"], chunk=4,
        ),
        "cispo": policy_gradient(logp, **stale, weight_BT=one["prompt_weight"], corrections=[Cispo()]),
        "dppo": policy_gradient(
            logp, **stale, weight_BT=one["sequence_weight"], corrections=[DppoTv(), SequenceMask(low=0.3, high=3.0)]
        ),
        "kto": kto(
            whole, one["reference"], liked_B=one["liked"], reference_point=torch.tensor(0.1), weight_B=one["row_weight"]
        ),
        "dpo": dpo(
            whole, whole.detach() + 0.3, chosen_reference_B=one["reference"], rejected_reference_B=one["reference"],
            weight_B=one["row_weight"],
        ),
    }  # fmt: skip
    return mix(parts, shares=SHARES)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(1, 7), length=st.integers(1, 4), data=st.data())
def test_microbatches_add_up_to_the_step_for_every_objective_and_their_mixture(seed, rows, length, data):
    whole = step(seed, rows, length)
    matrix = torch.randn(6, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()
    loss, stats = everything(matrix, whole)
    (gradient,) = torch.autograd.grad(loss, matrix)
    owner = torch.tensor(data.draw(st.lists(st.integers(0, 2), min_size=rows, max_size=rows)))
    summed, gathered, total = torch.zeros_like(gradient), {}, 0.0
    for number in owner.unique():
        part = {name: value[owner == number] for name, value in whole.items()}
        one, found = everything(matrix, part)
        summed += torch.autograd.grad(one, matrix)[0]
        gathered, total = add_stats(gathered, found), total + one.detach()
    torch.testing.assert_close(summed, gradient)
    torch.testing.assert_close(total, loss.detach())
    assert gathered.keys() == stats.keys()
    for name, value in stats.items():
        assert gathered[name].item() == pytest.approx(value.item(), abs=1e-9), name


def test_the_mean_of_microbatch_means_would_not_be_the_mean():
    """Why weights are made before the split: the law above is not a matter of course."""
    logp = torch.tensor([[-1.0, -1.0, -1.0], [-4.0, 0.0, 0.0]])
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]]).bool()
    right, _ = sft(logp, weight_BT=per_token(mask))
    apart = [sft(logp[i : i + 1], weight_BT=per_token(mask[i : i + 1]))[0].item() for i in range(2)]
    assert right.item() == pytest.approx(7 / 4)
    assert sum(apart) / 2 == pytest.approx(2.5)


def test_each_part_of_a_mixture_keeps_its_denominator():
    """Ten times the anchor rows leave the lesson's gradient as it is."""
    lesson, known = torch.tensor([[-2.0]], requires_grad=True), torch.tensor([[-1.0]] * 10, requires_grad=True)
    for count in (1, 10):
        part = known[:count]
        loss, stats = mix(
            {
                "lesson": sft(lesson, weight_BT=per_token(torch.ones(1, 1))),
                "anchor": sft(part, weight_BT=per_token(torch.ones(count, 1))),
            },
            shares={"lesson": 1.0, "anchor": 5.0},
        )
        assert loss.item() == pytest.approx(2.0 + 5.0)
        assert torch.autograd.grad(loss, lesson)[0].item() == pytest.approx(-1.0)
        assert stats["anchor/loss"].item() == pytest.approx(1.0)
        assert stats["lesson/tokens"].item() == 1


def test_a_part_without_a_share_is_refused_and_one_may_be_absent():
    part = (torch.tensor(1.0), {})
    with pytest.raises(ValueError, match="no share is given for ancor: shares are for anchor, lesson"):
        mix({"ancor": part}, shares={"lesson": 1.0, "anchor": 5.0})
    with pytest.raises(ValueError, match="at least one part"):
        mix({}, shares={"lesson": 1.0})
    assert mix({"lesson": part}, shares={"lesson": 2.0, "anchor": 5.0})[0].item() == 2.0
