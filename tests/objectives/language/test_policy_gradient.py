"""Each correction as its formula says, on numbers worked by hand; and the gradient that comes of it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dayjob.objectives.language.corrections import (
    CORRECTIONS,
    Cispo,
    DppoTv,
    IcePop,
    SequenceMask,
    TruncatedImportance,
)
from dayjob.objectives.language.policy_gradient import over_tokens, policy_gradient
from dayjob.objectives.language.weights import per_token


def gradient(ratio, *, advantage, corrections, probability=None):
    """d loss / d log pi of tokens with the given rho, times the number of tokens; one sequence."""
    ratio = torch.tensor([ratio], dtype=torch.float64)
    probability = torch.full_like(ratio, 0.1) if probability is None else torch.tensor([probability]).double()
    logp = probability.log().requires_grad_()
    loss, stats = policy_gradient(
        logp,
        probability.log() - ratio.log(),
        advantage_BT=torch.tensor([advantage], dtype=torch.float64),
        weight_BT=per_token(torch.ones_like(ratio)).double(),
        corrections=corrections,
    )
    (slope,) = torch.autograd.grad(loss, logp)
    return (slope[0] * ratio.shape[1]).tolist(), stats


RATIOS = [0.1, 0.5, 1.0, 2.0, 2.1, 5.0, 8.0]
ONES = [1.0] * len(RATIOS)


@pytest.mark.parametrize(
    ("correction", "wanted"),
    [
        (Cispo(), [0.1, 0.5, 1.0, 2.0, 2.1, 5.0, 5.0]),
        (TruncatedImportance(), [0.1, 0.5, 1.0, 2.0, 2.0, 2.0, 2.0]),
        (IcePop(), [0.0, 0.5, 1.0, 2.0, 0.0, 0.0, 0.0]),
    ],
    ids=lambda one: type(one).__name__,
)
def test_coefficients_by_hand(correction, wanted):
    # rho of exactly .5 and 2 are made of logarithms: widen the kept ends by a rounding.
    if isinstance(correction, IcePop):
        correction = IcePop(low=0.5 - 1e-12, high=2 + 1e-12)
    for sign in (1.0, -1.0):
        found, stats = gradient(RATIOS, advantage=[sign] * len(RATIOS), corrections=[correction])
        assert found == pytest.approx([-sign * one for one in wanted])
    assert stats["dropped"].item() == pytest.approx(wanted.count(0.0) / len(RATIOS))
    capped = sum(0 < w < r for w, r in zip(wanted, RATIOS, strict=True))
    assert stats["capped"].item() == pytest.approx(capped / len(RATIOS))


def test_cispo_is_one_sided():
    assert gradient([1e-3], advantage=[1.0], corrections=[Cispo()])[0] == pytest.approx([-1e-3])


def test_without_a_correction_it_is_reinforce():
    found, stats = gradient(RATIOS, advantage=[3.0] * len(RATIOS), corrections=[])
    assert found == pytest.approx([-3.0] * len(RATIOS))
    assert stats["capped"].item() == 0


def test_sequence_mask_drops_whole_sequences_by_the_geometric_mean():
    ratio = torch.tensor([[2.0, 0.5, 9.0], [1.02, 1.02, 1.0], [1.005, 1.0, 1.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [True, True, True], [True, True, True]])
    logp = torch.full_like(ratio, -1.0).requires_grad_()
    loss, stats = policy_gradient(
        logp, -1.0 - ratio.log(), advantage_BT=torch.ones_like(ratio), weight_BT=mask.double(),
        corrections=[SequenceMask(), TruncatedImportance()],
    )  # fmt: skip
    (slope,) = torch.autograd.grad(loss, logp)
    # geometric means 1 (the masked 9 does not count), 1.0133 and 1.0017
    assert -slope[0].tolist()[0] == pytest.approx(2.0)
    assert (-slope).tolist() == [pytest.approx(row) for row in ([2.0, 0.5, 0], [0, 0, 0], [1.005, 1.0, 1.0])]
    assert stats["dropped"].item() == 3


@pytest.mark.parametrize(
    ("p", "q", "advantage", "kept"),
    [
        (0.6, 0.3, 1.0, False),  # already .3 up, and would go further
        (0.6, 0.3, -1.0, True),  # .3 up, on the way back
        (0.3, 0.6, -1.0, False),
        (0.3, 0.6, 1.0, True),
        (0.45, 0.3, 1.0, True),  # within .2
        (0.01, 0.001, 1.0, True),  # a ratio of ten is no distance between rare tokens
    ],
)
def test_dppo_tv_by_hand(p, q, advantage, kept):
    found, stats = gradient([p / q], advantage=[advantage], probability=[p], corrections=[DppoTv()])
    pull = 2e-3 * math.log(p / q)  # of 1e-3 (log rho)^2, also where the token is dropped
    assert found == pytest.approx([-(p / q) * advantage * kept + pull])
    assert stats["penalty"].item() == pytest.approx(1e-3 * math.log(p / q) ** 2)


def test_log_ratios_are_clamped():
    logp = torch.tensor([[-1.0, -80.0]], requires_grad=True)
    loss, stats = policy_gradient(
        logp, torch.tensor([[-90.0, -1.0]]), advantage_BT=torch.ones(1, 2), weight_BT=torch.ones(1, 2),
        corrections=[DppoTv(threshold=2.0)],
    )  # fmt: skip
    (slope,) = torch.autograd.grad(loss, logp)
    assert slope[0, 0].item() == pytest.approx(-math.exp(20), rel=1e-5)
    assert slope[0, 1].item() == pytest.approx(-math.exp(-20), abs=1e-12)  # and no pull beyond the clamp
    assert stats["ratio_squared"].isfinite()


def test_a_ratio_is_not_taken_twice():
    with pytest.raises(ValueError, match="more than once: keep one"):
        gradient([1.0], advantage=[1.0], corrections=[Cispo(), IcePop()])


def test_every_correction_has_a_name_and_changes_nothing_on_policy():
    assert set(CORRECTIONS) == {"cispo", "tis", "icepop", "sequence_mask", "dppo_tv", "ppo_clip"}
    for name, kind in CORRECTIONS.items():
        found, stats = gradient([1.0, 1.0], advantage=[1.0, -2.0], corrections=[kind()])
        assert found == pytest.approx([-1.0, 2.0]), name
        assert stats["stale_kl"].item() == pytest.approx(0.0)


def test_an_advantage_is_spread_over_its_own_tokens():
    mask = torch.tensor([[True, False], [True, True]])
    assert over_tokens(torch.tensor([2.0, -1.0]), mask).tolist() == [[2.0, 0.0], [-1.0, -1.0]]


def test_what_is_masked_may_be_anything():
    nan = float("nan")
    logp = torch.tensor([[-1.0, nan]], requires_grad=True)
    for kind in CORRECTIONS.values():
        loss, stats = policy_gradient(
            logp, torch.tensor([[-1.1, nan]]), advantage_BT=torch.tensor([[1.0, nan]]),
            weight_BT=torch.tensor([[1.0, 0.0]]), corrections=[kind()],
        )  # fmt: skip
        (slope,) = torch.autograd.grad(loss, logp)
        assert loss.isfinite()
        assert all(value.isfinite() for value in stats.values())
        assert slope[0, 1].item() == 0


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), names=st.sampled_from([("cispo",), ("icepop",), ("dppo_tv", "sequence_mask")]))
def test_the_gradient_is_the_coefficient_times_the_advantage_whatever_the_data(seed, names):
    """The surrogate's derivative in log pi is -w c A (+ pull): c itself has none."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda: torch.randn(2, 3, generator=generator, dtype=torch.float64)  # noqa: E731
    logp, advantage = (-draw().abs()).requires_grad_(), draw()
    behaviour = logp.detach() + 0.3 * draw()
    corrections = [CORRECTIONS[name]() for name in names]
    weight = per_token(torch.ones(2, 3)).double()
    loss, stats = policy_gradient(logp, behaviour, advantage_BT=advantage, weight_BT=weight, corrections=corrections)
    (slope,) = torch.autograd.grad(loss, logp)
    log_ratio = logp.detach() - behaviour
    pull = 2 * sum(one.penalty for one in corrections) * weight * log_ratio
    coefficient = (slope - pull) / (-weight * advantage)
    zero_or_ratio = torch.minimum(coefficient.abs(), (coefficient - log_ratio.exp()).abs())
    assert zero_or_ratio.max() < 1e-9  # |log rho| stays below log 5 here, so no cap is met
    assert stats["ratio"].item() == pytest.approx((weight * log_ratio.exp()).sum().item())


def test_importance_weights_take_the_sampler_out():
    """Exactly, by summing over a vocabulary: E under q of rho A grad log pi is E under pi of A grad log pi."""
    logits = torch.tensor([[0.3, -0.2, 0.5, -1.0]], dtype=torch.float64, requires_grad=True)
    q = torch.tensor([[0.4, 0.3, 0.2, 0.1]], dtype=torch.float64)
    advantage = torch.tensor([[1.0, -0.5, 0.2, 2.0]], dtype=torch.float64)
    logp = torch.log_softmax(logits, dim=1)
    (wanted,) = torch.autograd.grad(-(logp.exp() * advantage).sum(), logits, retain_graph=True)
    slopes = {}
    for correction in (Cispo(), IcePop(low=0.1, high=9.0), DppoTv(threshold=1.0, pull=0.0), Cispo(cap=0.5)):
        loss, _ = policy_gradient(logp, q.log(), advantage_BT=advantage, weight_BT=q, corrections=[correction])
        (slopes[correction],) = torch.autograd.grad(loss, logits, retain_graph=True)
    *unclipped, capped = slopes.values()
    for slope in unclipped:
        torch.testing.assert_close(slope, wanted)
    assert (capped - wanted).abs().max() > 0.05  # and a cap that bites does not
