"""Divergences by hand and by their laws; the same along completions, a chunk at a time."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dayjob.objectives.language.distillation import self_distillation, trajectory_refined
from dayjob.objectives.language.divergence import FORWARD, Divergence, divergence, divergence_along
from dayjob.objectives.language.weights import per_token

KINDS = [FORWARD, Divergence(kind="reverse"), Divergence(kind="jsd"), Divergence(kind="jsd", beta=0.1)]
STUDENT, TEACHER = torch.tensor([[0.5, 0.25, 0.25]]).double(), torch.tensor([[0.125, 0.125, 0.75]]).double()


def value(how, student=STUDENT, teacher=TEACHER) -> float:
    return divergence(student.log(), teacher.log(), how=how).item()


def test_by_hand():
    forward = 0.125 * math.log(0.25) + 0.125 * math.log(0.5) + 0.75 * math.log(3)
    reverse = 0.5 * math.log(4) + 0.25 * math.log(2) + 0.25 * math.log(1 / 3)
    assert value(FORWARD) == pytest.approx(forward)
    assert value(Divergence(kind="reverse")) == pytest.approx(reverse)
    m = [0.3125, 0.1875, 0.5]
    jsd = sum(
        0.5 * t * math.log(t / c) + 0.5 * s * math.log(s / c) for t, s, c in zip(TEACHER[0], STUDENT[0], m, strict=True)
    )
    assert value(Divergence(kind="jsd")) == pytest.approx(float(jsd))


def test_beta_is_the_teachers_share_of_the_mixture():
    m = [0.25 * t + 0.75 * s for t, s in zip(TEACHER[0].tolist(), STUDENT[0].tolist(), strict=True)]
    wanted = sum(
        0.25 * t * math.log(t / c) + 0.75 * s * math.log(s / c)
        for t, s, c in zip(TEACHER[0].tolist(), STUDENT[0].tolist(), m, strict=True)
    )
    assert value(Divergence(kind="jsd", beta=0.25)) == pytest.approx(wanted)


def test_top_k_and_tail_by_hand():
    student, teacher = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).double(), torch.tensor([[0.1, 0.2, 0.3, 0.4]]).double()
    found = value(Divergence(kind="forward", top_k=2), student, teacher)  # the rest: .2 against .7
    assert found == pytest.approx(0.1 * math.log(0.1 / 0.5) + 0.2 * math.log(0.2 / 0.3) + 0.7 * math.log(0.7 / 0.2))


def test_a_tail_too_thin_for_a_difference_from_one_is_still_exact():
    logits = torch.tensor([[0.0, -60.0, -61.0]])
    found = divergence(logits, logits - torch.tensor([[0.0, 5.0, 5.0]]), how=Divergence(kind="reverse", top_k=1))
    assert found.item() == pytest.approx(5 * (math.exp(-60) + math.exp(-61)), rel=1e-4)


@pytest.mark.parametrize("k", [0, 3, 7])
def test_a_top_k_that_leaves_no_tail_is_refused(k):
    with pytest.raises(ValueError, match="from 1 to 2, or None for the full vocabulary"):
        value(Divergence(top_k=k))


@pytest.mark.parametrize("beta", [0.0, 1.0, -1.0])
def test_a_jsd_with_one_side_only_is_refused(beta):
    with pytest.raises(ValueError, match='take kind "forward" or "reverse"'):
        value(Divergence(kind="jsd", beta=beta))


def pair(seed: int, vocabulary: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(3, vocabulary, generator=generator, dtype=torch.float64) * 2 for _ in range(2))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), how=st.sampled_from(KINDS), k=st.integers(1, 6), shift=st.floats(-30, 30))
def test_laws(seed, how, k, shift):
    student, teacher = pair(seed)
    full = divergence(student, teacher, how=how)
    assert (full > 0).all()
    assert divergence(student, student, how=how).abs().max() < 1e-12
    torch.testing.assert_close(divergence(student + shift, teacher - shift, how=how), full)  # logits, not probabilities
    order = torch.randperm(7, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(divergence(student[:, order], teacher[:, order], how=how), full)
    coarse = divergence(student, teacher, how=Divergence(kind=how.kind, beta=how.beta, top_k=k))
    assert (coarse >= -1e-12).all()
    assert (coarse <= full + 1e-9).all()  # a bucket hides, it never adds (data processing)
    if how.kind == "jsd":
        swapped = Divergence(kind="jsd", beta=1 - how.beta)
        torch.testing.assert_close(divergence(teacher, student, how=swapped), full)
        assert (full <= math.log(2) + 1e-12).all()
    if k == 6:
        torch.testing.assert_close(coarse, full)  # a bucket of one


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), how=st.sampled_from([*KINDS, Divergence(top_k=3), Divergence(kind="jsd", top_k=3)]))
def test_gradient_against_finite_differences_and_none_for_the_teacher(seed, how):
    student, teacher = pair(seed)
    student.requires_grad_()
    teacher.requires_grad_()
    assert torch.autograd.gradcheck(lambda one: divergence(one, teacher.detach(), how=how), (student,))
    assert torch.autograd.grad(divergence(student, teacher, how=how).sum(), [teacher], allow_unused=True) == (None,)


def test_forward_kl_has_the_gradient_of_cross_entropy():
    student, teacher = pair(1)
    student.requires_grad_()
    (slope,) = torch.autograd.grad(divergence(student, teacher, how=FORWARD).sum(), student)
    torch.testing.assert_close(slope, student.softmax(1) - teacher.softmax(1))


def test_clip_bounds_each_entry_by_hand():
    entries = [0.125 * math.log(0.25), 0.125 * math.log(0.5), 0.75 * math.log(3)]
    for keeps in (False, True):
        found = value(Divergence(clip=0.05, clip_keeps_direction=keeps))
        assert found == pytest.approx(entries[0] + entries[1] + 0.05)
    assert value(Divergence(clip=10.0)) == pytest.approx(sum(entries))


def test_a_clipped_entry_teaches_the_opposite_unless_its_direction_is_kept():
    """The teacher is sure of word 0, the student of word 1. As published, the clip cuts the gradient of the one entry
    that says so."""
    student, teacher = torch.tensor([[-3.0, 3.0, 0.0]]).requires_grad_(), torch.tensor([[3.0, -3.0, 0.0]])
    slopes = [
        torch.autograd.grad(divergence(student, teacher, how=how).sum(), student)[0][0]
        for how in (FORWARD, Divergence(clip=0.05), Divergence(clip=0.05, clip_keeps_direction=True))
    ]
    towards = [-slope[0].item() > 0 for slope in slopes]  # descent raises the logit of word 0
    assert towards == [True, False, True]
    assert slopes[2].abs().max() < 0.1 < 0.9 < slopes[0].abs().max()


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000), chunk=st.integers(1, 20), how=st.sampled_from([*KINDS, Divergence(top_k=3, clip=0.1)])
)
def test_along_completions_in_chunks_is_the_plain_way(seed, chunk, how):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    hidden, matrix = draw(2, 5, 3).requires_grad_(), draw(8, 3).requires_grad_()
    teacher_hidden, teacher_matrix = draw(2, 5, 4), draw(8, 4)
    mask = torch.rand(2, 5, generator=generator) < 0.6
    found = divergence_along(
        hidden, matrix, teacher_BTD=teacher_hidden, teacher_VD=teacher_matrix, mask_BT=mask, how=how,
        temperature=1.3, chunk=chunk,
    )  # fmt: skip
    logits = (hidden @ matrix.T / 1.3)[mask], (teacher_hidden @ teacher_matrix.T / 1.3)[mask]
    wanted = torch.zeros(2, 5, dtype=torch.float64).masked_scatter(mask, divergence(*logits, how=how))
    torch.testing.assert_close(found, wanted)
    weight = draw(2, 5)
    for one, other in zip(
        torch.autograd.grad((weight * found).sum(), [hidden, matrix]),
        torch.autograd.grad((weight * wanted).sum(), [hidden, matrix]),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_peak_memory_of_distillation_does_not_grow_with_tokens_times_vocabulary(peak):
    vocabulary, width = 2000, 8

    def run(length, chunk):
        generator = torch.Generator().manual_seed(0)
        draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
        hidden, matrix, teacher = (
            draw(1, length, width).requires_grad_(),
            draw(vocabulary, width),
            draw(1, length, width),
        )
        loss = lambda: self_distillation(  # noqa: E731
            hidden, matrix, teacher_BTD=teacher, teacher_VD=matrix, weight_BT=torch.ones(1, length),
            how=Divergence(kind="jsd"), chunk=chunk,
        )[0].backward()  # fmt: skip
        return peak(loss)

    short, long, whole = run(128, 16), run(512, 16), run(512, 512)
    assert long - short < 4 * (512 - 128) * (6 * width + 16)
    assert whole > 15 * long


def rows(seed: int = 0) -> dict:
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    return {
        "student_BTD": draw(3, 4, 3).requires_grad_(),
        "student_VD": draw(6, 3),
        "teacher_BTD": draw(3, 4, 3),
        "teacher_VD": draw(6, 3),
        "weight_BT": per_token(torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 0]])).double(),
    }


def test_trajectory_refined_is_the_forward_kl_along_the_rewriting():
    given_rows = rows()
    loss, stats = trajectory_refined(**given_rows, repaired_B=torch.tensor([True, False, False]))
    plain, _ = self_distillation(**given_rows, how=FORWARD)
    assert loss.item() == pytest.approx(plain.item())
    assert stats["repaired"].item() == 1
    first = given_rows | {"weight_BT": given_rows["weight_BT"] * torch.tensor([[1.0], [0.0], [0.0]])}
    assert stats["divergence_repaired"].item() == pytest.approx(self_distillation(**first, how=FORWARD)[0].item())
    assert 0 < stats["divergence_repaired"] < stats["divergence"]


def test_distillation_reaches_the_teacher():
    """A student with a head of its own, taught by gradient descent alone, says in the end what the teacher says."""
    for how in KINDS:
        given_rows = rows(1)
        student = given_rows["student_BTD"]
        first = None
        for _ in range(400):
            loss, _ = self_distillation(**given_rows, how=how)
            first = first or loss.item()
            (slope,) = torch.autograd.grad(loss, student)
            given_rows["student_BTD"] = student = (student - 5.0 * slope).detach().requires_grad_()
        assert loss.item() < first / 5
