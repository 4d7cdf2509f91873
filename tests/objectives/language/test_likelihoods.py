"""SFT, DPO and KTO: numbers worked by hand, gradients against finite differences, what is left out reaches nothing."""

import math

import pytest
import torch

from dayjob.objectives.language.dpo import dpo
from dayjob.objectives.language.kto import kto, kto_balance, kto_reference_point
from dayjob.objectives.language.sft import sft
from dayjob.objectives.language.weights import per_row, per_token, sequence_logprob


def doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_sft_by_hand_is_the_mean_over_tokens():
    logp = torch.log(torch.tensor([[0.5, 0.25, 0.9], [0.125, 0.1, 0.1]], dtype=torch.float64))
    mask = torch.tensor([[True, True, False], [True, False, False]])
    loss, stats = sft(logp, weight_BT=per_token(mask))
    assert loss.item() == pytest.approx((1 + 2 + 3) * math.log(2) / 3)
    assert stats["tokens"].item() == 3


def test_sft_takes_no_notice_of_what_is_masked():
    logp = torch.tensor([[-1.0, float("nan")]], requires_grad=True)
    loss, _ = sft(logp, weight_BT=per_token(torch.tensor([[True, False]])))
    (slope,) = torch.autograd.grad(loss, logp)
    assert loss.item() == pytest.approx(1.0)
    assert slope.tolist() == [[-1.0, 0.0]]


def test_a_sequence_is_the_sum_of_its_tokens():
    logp = torch.tensor([[-1.0, -2.0, float("nan")]])
    assert sequence_logprob(logp, torch.tensor([[True, True, False]])).tolist() == [-3.0]


def test_dpo_by_hand():
    loss, stats = dpo(
        doubles(-1.0, -4.0), doubles(-3.0, -2.0),
        chosen_reference_B=doubles(-2.0, -3.0), rejected_reference_B=doubles(-2.0, -3.0),
        weight_B=per_row(torch.tensor([True, True])), beta=0.5,
    )  # fmt: skip
    # margins .5 * ((1) - (-1)) = 1 and .5 * ((-1) - (1)) = -1
    assert loss.item() == pytest.approx((-math.log(sigma(1)) - math.log(sigma(-1))) / 2)
    assert stats["margin_right"].item() == pytest.approx(0.5)
    assert stats["chosen_reward"].item() == pytest.approx(0.0)
    assert stats["pairs"].item() == 2


def test_beta_is_a_tenth_unless_given():
    nothing, one = doubles(0.0), doubles(1.0)
    references = {"chosen_reference_B": nothing, "rejected_reference_B": nothing}
    loss, _ = dpo(one, nothing, **references, weight_B=torch.ones(1))
    assert loss.item() == pytest.approx(-math.log(sigma(0.1)))
    thumb, _ = kto(one, nothing, liked_B=torch.tensor([True]), reference_point=nothing[0], weight_B=torch.ones(1))
    assert thumb.item() == pytest.approx(1 - sigma(0.1))


def test_dpo_gradient_is_the_papers():
    chosen = doubles(-1.0).requires_grad_()
    rejected = doubles(-1.5).requires_grad_()
    arguments = {"chosen_reference_B": doubles(-2.0), "rejected_reference_B": doubles(-1.0)}
    loss, _ = dpo(chosen, rejected, **arguments, weight_B=torch.ones(1), beta=0.3)
    slopes = torch.autograd.grad(loss, [chosen, rejected])
    wanted = 0.3 * sigma(-0.3 * (1.0 + 0.5))  # beta sigma(r_l - r_w)
    assert slopes[0].item() == pytest.approx(-wanted)
    assert slopes[1].item() == pytest.approx(wanted)


def test_kto_by_hand():
    logp, reference = doubles(-1.0, -2.0), doubles(-2.0, -2.5)
    loss, stats = kto(
        logp, reference, liked_B=torch.tensor([True, False]), reference_point=doubles(0.2)[0],
        weight_B=per_row(torch.tensor([True, True])), beta=0.5, balance=(1.0, 2.0),
    )  # fmt: skip
    liked = 1 - sigma(0.5 * (1.0 - 0.2))
    disliked = 1 - sigma(0.5 * (0.2 - 0.5))
    assert loss.item() == pytest.approx((liked + 2 * disliked) / 2)
    assert (stats["liked"].item(), stats["disliked"].item()) == (1, 1)
    assert stats["liked_reward"].item() == pytest.approx(0.5 * 1.0 / 2)
    assert stats["disliked_reward"].item() == pytest.approx(0.5 * 0.5 / 2)


def test_kto_reference_point_is_a_kl_never_negative_and_without_gradient():
    mismatched = doubles(-1.0, -2.0).requires_grad_()
    both = per_row(torch.tensor([True, True]))
    point = kto_reference_point(mismatched, doubles(-2.0, -2.5), weight_B=both)
    assert point.item() == pytest.approx(0.75)
    assert not point.requires_grad
    assert kto_reference_point(mismatched, doubles(0.0, 0.0), weight_B=both).item() == 0.0
    alone = kto_reference_point(mismatched, doubles(-9.0, -9.0), weight_B=per_row(torch.tensor([False, False])))
    assert alone.item() == 0.0


def test_kto_balance():
    thumbs = torch.tensor([True] * 8 + [False] * 2)
    assert kto_balance(thumbs) == (1.0, 4.0)
    assert kto_balance(~thumbs) == (4.0, 1.0)
    assert kto_balance(thumbs, ratio=4 / 3) == (1.0, pytest.approx(3.0))
    assert kto_balance(torch.tensor([True])) == (1.0, 1.0)


@pytest.mark.parametrize("liked", [[True, True, False], [False, False, False]])
def test_gradients_against_finite_differences(liked):
    first, second, third = doubles(-1.0, -3.0, -0.5), doubles(-2.0, -2.5, -1.0), doubles(-1.5, -2.0, -0.7)
    weight = per_row(torch.tensor([True, False, True])).double()
    first.requires_grad_()
    second.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a, b: dpo(a, b, chosen_reference_B=third, rejected_reference_B=third, weight_B=weight)[0],
        (first, second),
    )
    arguments = {"liked_B": torch.tensor(liked), "reference_point": doubles(0.1)[0], "weight_B": weight}
    assert torch.autograd.gradcheck(lambda a: kto(a, third, **arguments)[0], (first,))


def test_rows_of_weight_zero_may_hold_anything():
    nan = float("nan")
    weight = per_row(torch.tensor([True, False]))
    chosen = doubles(-1.0, nan).requires_grad_()
    pair, _ = dpo(
        chosen, doubles(-2.0, nan), chosen_reference_B=doubles(-1.0, 0.0), rejected_reference_B=doubles(-2.0, 0.0),
        weight_B=weight,
    )  # fmt: skip
    assert pair.item() == pytest.approx(math.log(2))
    thumb, _ = kto(
        chosen, doubles(-1.0, 0.0), liked_B=torch.tensor([True, True]), reference_point=doubles(0.0)[0], weight_B=weight
    )
    assert thumb.item() == pytest.approx(0.5)
    (slope,) = torch.autograd.grad(pair + thumb, chosen)
    assert slope[1].item() == 0.0
    assert slope[0].item() < 0
