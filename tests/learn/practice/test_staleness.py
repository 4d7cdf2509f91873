"""How stale, by hand, and what follows from it."""

import math

import pytest
import torch

from dayjob.learn.practice.recipe import corrections
from dayjob.learn.practice.staleness import FRESH_KL, STALE_KL, choose, measure
from dayjob.objectives.language.corrections import CORRECTIONS, Cispo, DppoTv, PpoClip, Seen
from dayjob.objectives.language.policy_gradient import policy_gradient


def test_kl_lag_and_sample_size_by_hand():
    # Ratios 2 and .5, a third token masked: mean(rho - 1 - log rho) = ((1 - log 2) + (-.5 + log 2)) / 2 = .25.
    logp = torch.tensor([[math.log(0.4), math.log(0.1), 5.0]])
    behaviour = torch.tensor([[math.log(0.2), math.log(0.2), -9.0]])
    found = measure(logp, behaviour, mask_BT=torch.tensor([[1, 1, 0]]), lags=[0, 3])
    assert found.kl == pytest.approx(0.25, abs=1e-6)
    assert (found.lag, found.most_lag, found.tokens) == (1.5, 3, 2)
    assert found.sample_size == pytest.approx(2.5**2 / (2 * (4 + 0.25)))
    nothing = measure(logp, behaviour, mask_BT=torch.zeros(1, 3), lags=[])
    assert (nothing.kl, nothing.sample_size, nothing.tokens) == (0.0, 1.0, 0)


def test_the_estimate_is_that_of_the_kl_it_names():
    """Over every outcome of a small distribution, weighed by the behaviour, it is KL(behaviour || learner)."""
    behaviour, learner = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.2, 0.2, 0.6])
    exact = float((behaviour * (behaviour / learner).log()).sum())
    drawn = torch.repeat_interleave(torch.arange(3), (behaviour * 10).long())
    found = measure(
        learner.log()[drawn][None], behaviour.log()[drawn][None], mask_BT=torch.ones(1, 10), lags=[]
    )  # fmt: skip
    assert found.kl == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize(
    ("kl", "wanted"),
    [(0.0, ()), (FRESH_KL, ()), (FRESH_KL * 1.01, (Cispo(),)), (STALE_KL, (Cispo(),)), (STALE_KL * 1.01, (DppoTv(),)),
     (math.nan, (DppoTv(),)), (math.inf, (DppoTv(),))],
)  # fmt: skip
def test_the_correction_goes_by_what_was_measured(kl, wanted):
    assert choose("auto", kl)[1] == wanted


def test_a_correction_asked_for_is_taken_whatever_is_measured():
    for name in corrections():
        if name not in ("auto", "plain"):
            assert choose(name, 9.0) == (name, (CORRECTIONS[name](),))
    assert choose("plain", 9.0) == ("plain", ())


def test_ppo_clips_what_has_gone_too_far_in_the_wanted_direction():
    # Ratios 1.5, .5 with A > 0 and A < 0: dropped is 1.5 going up and .5 going down.
    logp = torch.tensor([[0.6, 0.2, 0.6, 0.2]]).log().requires_grad_()
    behaviour = torch.full((1, 4), 0.4).log()
    advantage = torch.tensor([[1.0, 1.0, -1.0, -1.0]])
    ratio = (logp - behaviour).detach()
    seen = Seen(
        log_ratio_BT=ratio, logp_BT=logp.detach(), behaviour_BT=behaviour, advantage_BT=advantage,
        mask_BT=torch.ones(1, 4),
    )  # fmt: skip
    assert PpoClip().coefficient(seen).tolist()[0] == pytest.approx([0.0, 0.5, 1.5, 0.0])
    loss, _ = policy_gradient(
        logp, behaviour, advantage_BT=advantage, weight_BT=torch.full((1, 4), 0.25), corrections=[PpoClip()]
    )  # fmt: skip
    (slope,) = torch.autograd.grad(loss, logp)
    # The textbook's own form.
    again = logp.detach().requires_grad_()
    rho = (again - behaviour).exp()
    textbook = -torch.minimum(rho * advantage, rho.clamp(0.8, 1.2) * advantage).mean()
    (wanted,) = torch.autograd.grad(textbook, again)
    assert torch.allclose(slope, wanted, atol=1e-6)
