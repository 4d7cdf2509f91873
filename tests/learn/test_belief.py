"""The design's algebra, and what the joint estimate recovers."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dayjob.learn.belief import fit_belief, log_likelihoods, make_events, start
from dayjob.learn.choose import HeldOut, choose, cost, folds, mean_gain
from dayjob.learn.debiased import levels
from dayjob.learn.design import make_design
from dayjob.learn.recipes import Debiased
from dayjob.policies.protocol import Lists
from dayjob.policies.ranker import NumpyRanker, RankerSpec

RECIPE = Debiased(rank=8, bilinear_rank=5)


def served(replay, weights, spec):
    lists = Lists(
        context_BD=replay.context_BD, candidate_BKE=replay.vector_VE[replay.candidate_BK], pair_BKP=replay.pair_BKP,
        base_BK=replay.base_BK.astype(np.float64),
    )  # fmt: skip
    return NumpyRanker({name: value.float().numpy() for name, value in weights.items()}, spec.to_json()).utility(lists)


@pytest.mark.parametrize("dim", [24, 15])
def test_the_served_weights_are_the_fitted_utilities_up_to_a_constant_a_list(world, dim):
    replay = world(50, dim=dim).replay
    design = make_design(replay, RECIPE)
    generator = torch.Generator().manual_seed(0)
    coefficient = torch.randn(design.shared + design.own, generator=generator)
    spec = RankerSpec(context_dim=24, candidate_dim=dim, pair_dim=1, hidden=())
    fitted_BK = torch.cat([design.utility(coefficient, at, v_BKR=v_BKR) for at, v_BKR in design.chunks()])
    gap = served(replay, design.weights(coefficient, spec), spec) - fitted_BK.numpy()
    assert np.abs(gap - gap.mean(axis=1, keepdims=True)).max() < 2e-4
    assert design.own == (8 + 8 if dim == 24 else 5 + 25)


@pytest.mark.parametrize("dim", [24, 15])
def test_the_gradient_is_that_of_the_utilities(world, dim):
    design = make_design(world(30, dim=dim).replay, RECIPE)
    slope_BK = torch.randn(30, 6)
    coefficient = torch.randn(design.shared + design.own, requires_grad=True)
    (at, v_BKR), = design.chunks()  # fmt: skip
    (want,) = torch.autograd.grad((design.utility(coefficient, at, v_BKR=v_BKR) * slope_BK).sum(), coefficient)
    assert torch.allclose(design.gradient(slope_BK, at, v_BKR=v_BKR), want, atol=1e-4)
    assert torch.allclose(design.shared_gradient(slope_BK, at), want[: design.shared], atol=1e-4)


def test_the_scale_of_the_inputs_changes_no_utility(world):
    replay = world(400).replay
    grown = replace(
        replay, base_BK=replay.base_BK * 1000, pair_BKP=replay.pair_BKP * 1e-3, context_BD=replay.context_BD * 7
    )
    coefficient = torch.ones(make_design(replay, RECIPE).shared)
    found = [make_design(r, RECIPE) for r in (replay, grown)]
    few = [d.score_BK + d.shared_BKS @ coefficient[1:] for d in found]
    assert torch.allclose(few[0], few[1], atol=1e-3)


def test_the_pull_of_position_one_is_recovered(world):
    replay = world(3000, pull=0.6).replay
    design, events = make_design(replay, RECIPE), make_events(replay, RECIPE)
    belief = start(design, events)
    for level in levels(RECIPE)[:3]:
        belief = fit_belief(design, events, first=belief, ridge=level.ridge, shared=level.shared, recipe=RECIPE)
    assert belief.pull == pytest.approx(0.6, abs=0.04)
    assert torch.softmax(belief.pull_at_K, 0)[0] > 0.97
    _, choice_B, _ = log_likelihoods(design, events, belief=belief)
    assert choice_B[events.click_B > 0].min() > 0.5


def test_users_who_differ_are_told_apart(world):
    replay = world(4000, pull=0.0, people=40).replay
    always = replay.user_B < 20
    replay = replace(replay, click_B=np.where(always, 0, replay.click_B).astype(np.int16))
    design, events = make_design(replay, RECIPE), make_events(replay, RECIPE)
    belief = start(design, events)
    for level in levels(RECIPE)[:2]:
        belief = fit_belief(design, events, first=belief, ridge=level.ridge, shared=level.shared, recipe=RECIPE)
    assert belief.user_U[:20].min() > belief.user_U[20:].max()


def test_one_users_weight_is_capped(world):
    replay = world(1000, people=50).replay
    replay = replace(replay, user_B=np.where(np.arange(1000) < 500, 0, replay.user_B).astype(np.int32))
    events = make_events(replay, RECIPE)
    weight_U = np.bincount(replay.user_B, weights=events.weight_B.numpy())
    assert weight_U[0] == pytest.approx(20, abs=0.1)
    assert weight_U[1:].max() <= 20


def test_a_truth_is_taken_for_the_click(world):
    replay = replace(world(10).replay, truth_B=np.array([3] + [-1] * 9, np.int16))
    events = make_events(replay, RECIPE)
    assert events.click_B[0] == -1
    assert events.taught_B.all()
    assert cost(replay, np.full(10, 3))[0] == 0.0


def test_folds_never_split_a_user(world):
    replay = world(300, people=30).replay
    fold_B = folds(replay, count=3, seed=0)
    assert all(len(set(fold_B[replay.user_B == u])) == 1 for u in range(30))
    assert len(set(fold_B)) == 3


def test_mean_gain_by_hand():
    gain = mean_gain(np.array([1.0, 3.0]), np.array([1.0, 1.0]))
    assert (gain.mean, gain.error) == (2.0, pytest.approx(np.sqrt(2) / 2))
    assert mean_gain(np.array([1.0]), np.array([0.0])).proof == 0.0


def test_without_losses_the_most_probable_is_chosen(world):
    drawn = world(20)
    utility = np.random.default_rng(0).standard_normal((20, 6))
    held = HeldOut(log_likelihood_B=np.zeros(20), choice_B=np.ones(20), weight_B=np.ones(20), utility_BK=utility)
    choice, first_B = choose(replace(drawn.replay, loss_BKK=None), held, recipe=RECIPE)
    assert choice.unit == 0.0
    assert (first_B == utility.argmax(axis=1)).all()
