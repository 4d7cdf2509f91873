"""Each objective against numbers worked by hand, finite differences, and the laws it must obey."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from dayjob.objectives.affine import affine_corrected, doubly_robust, relevance_cross_entropy
from dayjob.objectives.dpo import dpo
from dayjob.objectives.mixture import mixture, mixture_log_likelihood
from dayjob.objectives.naive import click_cross_entropy
from dayjob.objectives.pairs import skip_above
from dayjob.objectives.pl_rank import pl_rank, pl_rank_gradient
from dayjob.objectives.plackett_luce import kl_along, log_prob, log_prob_by_position
from dayjob.objectives.reinforce import next_baseline, position_reward, reinforce


def rankings(width: int) -> torch.Tensor:
    return torch.tensor(list(itertools.permutations(range(width))))


def doubles(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


SCORES = doubles([0.0, math.log(2), math.log(3)])  # weights 1, 2, 3


def test_plackett_luce_by_hand():
    found = log_prob_by_position(SCORES, torch.tensor([[2, 0, 1]])).exp()
    assert found.tolist()[0] == pytest.approx([3 / 6, 1 / 3, 1.0])


def test_plackett_luce_sums_to_one_over_all_rankings():
    score = torch.randn(1, 4, dtype=torch.float64)
    every = rankings(4)
    assert log_prob(score.expand(len(every), 4), every).exp().sum().item() == pytest.approx(1.0)


def test_plackett_luce_ignores_what_follows_the_end_of_a_list():
    short = log_prob(SCORES, torch.tensor([[2, 0, -1]]))
    assert short.item() == pytest.approx(math.log(3 / 4))


def test_kl_along_is_the_exact_kl_in_expectation():
    p, q = torch.randn(1, 4, dtype=torch.float64), torch.randn(1, 4, dtype=torch.float64)
    every = rankings(4)
    p_all, q_all = p.expand(len(every), 4), q.expand(len(every), 4)
    chance = log_prob(p_all, every).exp()
    exact = (chance * (log_prob(p_all, every) - log_prob(q_all, every))).sum()
    assert (chance * kl_along(p_all, q_all, shown_BK=every)).sum().item() == pytest.approx(exact.item())
    assert kl_along(p_all, p_all + 3, shown_BK=every).abs().max().item() < 1e-12


def test_reinforce_by_hand():
    assert position_reward(torch.tensor([0, 2, -1]), 3).tolist() == [1.0, 0.0, 0.0]
    assert next_baseline(torch.tensor(0.5), torch.tensor([1.0, 0.0]), decay=0.9).item() == pytest.approx(0.5)
    shown, click = torch.tensor([[2, 0, 1]]), torch.tensor([1])
    loss, stats = reinforce(SCORES, SCORES, shown_BK=shown, click_B=click, baseline=torch.tensor(0.2), kl_weight=7.0)
    assert loss.item() == pytest.approx(-(0.5 - 0.2) * math.log(3 / 6 * 1 / 3))
    assert stats["kl"].item() == pytest.approx(0.0)


def test_reinforce_pays_for_a_click_at_the_top_and_not_for_one_at_the_bottom():
    score = torch.zeros(1, 3, requires_grad=True)
    for click, better in ((0, True), (2, False)):
        loss, _ = reinforce(
            score,
            score,
            shown_BK=torch.tensor([[1, 0, 2]]),
            click_B=torch.tensor([click]),
            baseline=torch.tensor(0.5),
            kl_weight=0.0,
        )
        (slope,) = torch.autograd.grad(loss, score)
        assert (slope[0, 1] < 0) == better


def test_dpo_by_hand_counts_only_lower_ranked_candidates():
    score, reference = doubles([1.0, 0.0, 0.5]), doubles([0.0, 0.0, 0.0])
    shown = torch.tensor([[2, 0, 1]])
    loss, stats = dpo(score, reference, shown_BK=shown, click_B=torch.tensor([1]), beta=2.0)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-2.0)))  # 0 (clicked, score 1) against 1 (score 0)
    assert stats["pairs"].item() == 1
    nothing, stats = dpo(score, reference, shown_BK=shown, click_B=torch.tensor([2]), beta=2.0)
    assert nothing.item() == 0.0
    assert stats["pairs"].item() == 0


def test_naive_cross_entropy_by_hand_and_without_clicks():
    loss, _ = click_cross_entropy(SCORES, torch.tensor([[2, 0, 1]]), click_B=torch.tensor([0]))
    assert loss.item() == pytest.approx(math.log(2))
    none, _ = click_cross_entropy(SCORES, torch.tensor([[2, 0, 1]]), click_B=torch.tensor([-1]))
    assert none.item() == 0.0


def test_mixture_by_hand():
    shown, click = torch.tensor([[2, 0, 1]]), torch.tensor([0])
    f, pull, examined = 0.6, [0.5, 0.3, 0.2], [0.0, 0.1, -0.2]
    total, chosen = mixture_log_likelihood(
        SCORES, shown, click_B=click,
        pull_logit_B=doubles([math.log(f / (1 - f))])[0],
        pull_at_K=torch.log(doubles(pull))[0],
        examined_K=doubles(examined)[0],
    )  # fmt: skip
    choice = 3 / (3 + 1 * math.exp(0.1) + 2 * math.exp(-0.2))
    assert total.exp().item() == pytest.approx(f * 0.5 + (1 - f) * choice)
    assert chosen.exp().item() == pytest.approx((1 - f) * choice / (f * 0.5 + (1 - f) * choice))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6))
def test_mixture_is_a_distribution_over_positions(seed, width):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64) * 2  # noqa: E731
    score, shown = draw(1, width).expand(width, width), torch.randperm(width, generator=generator).expand(width, width)
    total, _ = mixture_log_likelihood(
        score,
        shown,
        click_B=torch.arange(width),
        pull_logit_B=draw(1).expand(width),
        pull_at_K=draw(width),
        examined_K=draw(width),
    )
    assert total.exp().sum().item() == pytest.approx(1.0)


def test_mixture_of_all_pull_teaches_the_scores_nothing():
    score = torch.randn(8, 4, requires_grad=True)
    shown = torch.arange(4).expand(8, 4)
    loss, _ = mixture(
        score, shown, click_B=torch.zeros(8, dtype=torch.int64), pull_logit_B=torch.full((8,), 60.0),
        pull_at_K=torch.tensor([0.0, -9, -9, -9]), examined_K=torch.zeros(4), weight_B=torch.ones(8),
    )  # fmt: skip
    loss.backward()
    assert score.grad.abs().max().item() < 1e-12


def test_skip_above_makes_no_pair_of_a_click_on_the_first_place():
    shown, weight = torch.tensor([[2, 0, 1], [0, 1, 2]]), torch.ones(2, dtype=torch.float64)
    score = SCORES.expand(2, 3)
    loss, stats = skip_above(score, shown, click_B=torch.tensor([0, 1]), weight_B=weight)
    assert stats["pairs"].item() == 1
    assert loss.item() == pytest.approx(math.log1p(1 / 2))  # weight 2 against 1


def test_affine_correction_is_unbiased_over_both_outcomes():
    alpha, beta, relevance = 0.5, 0.3, 0.7
    rate = alpha * relevance + beta
    found = affine_corrected(doubles([1.0, 0.0]), doubles([alpha] * 2), beta_BK=doubles([beta] * 2), floor=0.01)
    assert (rate * found[0, 0] + (1 - rate) * found[0, 1]).item() == pytest.approx(relevance)


@pytest.mark.parametrize("model", [0.0, 0.4, 1.0])
def test_doubly_robust_is_right_when_the_bias_is_right_whatever_the_model(model):
    alphas, betas, relevance = [0.8, 0.2], [0.1, 0.05], 0.6  # shown evenly at either of two positions
    mean = doubles([sum(alphas) / 2])
    value = 0.0
    for alpha, beta in zip(alphas, betas, strict=True):
        rate = alpha * relevance + beta
        for click, chance in ((1.0, rate), (0.0, 1 - rate)):
            found = doubly_robust(
                doubles([click]), doubles([model]), alpha_BK=doubles([alpha]), beta_BK=doubles([beta]),
                mean_alpha_BK=mean, floor=0.01,
            )  # fmt: skip
            value += found.item() * chance / 2
    assert value == pytest.approx(relevance)


def test_doubly_robust_by_hand():
    found = doubly_robust(
        doubles([1.0]), doubles([0.5]), alpha_BK=doubles([0.8]), beta_BK=doubles([0.1]), mean_alpha_BK=doubles([0.4]),
        floor=0.5,
    )  # fmt: skip
    assert found.item() == pytest.approx(0.5 + (1 - 0.1 - 0.4) / 0.5)


def test_relevance_cross_entropy_by_hand_ignores_fillers():
    real = torch.tensor([[True, False, True]])
    loss, _ = relevance_cross_entropy(SCORES, doubles([1.0, 9.0, -0.5]), real_BK=real)
    assert loss.item() == pytest.approx(-(math.log(1 / 4) - 0.5 * math.log(3 / 4)))


def test_pl_rank_equals_the_gradient_of_the_expectation_summed_over_all_rankings():
    score = torch.randn(1, 4, dtype=torch.float64, requires_grad=True)
    relevance, weight = torch.rand(1, 4, dtype=torch.float64), torch.tensor([1.0, 0.6, 0.3, 0.1], dtype=torch.float64)
    every = rankings(4)
    chance = log_prob(score.expand(len(every), 4), every).exp()
    expected = (chance * (relevance.expand(len(every), 4).gather(1, every) * weight).sum(1)).sum()
    (exact,) = torch.autograd.grad(expected, score)
    each = torch.stack(
        [pl_rank_gradient(score, relevance, weight_K=weight, sampled_SBK=one[None, None]) for one in every]
    )
    mean = (chance.detach()[:, None, None] * each).sum(0)
    assert torch.allclose(mean, exact)


def test_pl_rank_loss_has_that_gradient():
    score = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    relevance, weight = torch.rand(2, 3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    sampled = torch.stack([torch.argsort(torch.rand(2, 3), dim=1) for _ in range(5)])
    loss, stats = pl_rank(score, relevance, weight_K=weight, sampled_SBK=sampled)
    loss.backward()
    assert torch.allclose(score.grad, -pl_rank_gradient(score, relevance, weight_K=weight, sampled_SBK=sampled) / 2)
    assert loss.item() == pytest.approx(-stats["expected_reward"].item())


OBJECTIVES = {
    "reinforce": lambda s, shown, click: reinforce(
        s, s.detach() * 0.5, shown_BK=shown, click_B=click, baseline=torch.tensor(0.3), kl_weight=0.5
    ),
    "dpo": lambda s, shown, click: dpo(s, s.detach() * 0.5, shown_BK=shown, click_B=click, beta=0.7),
    "naive": lambda s, shown, click: click_cross_entropy(s, shown, click_B=click),
    "mixture": lambda s, shown, click: mixture(
        s, shown, click_B=click, pull_logit_B=torch.zeros(len(s)).double(), pull_at_K=torch.zeros(4).double(),
        examined_K=torch.ones(4).double(), weight_B=torch.ones(len(s)).double(),
    ),
    "skip above": lambda s, shown, click: skip_above(s, shown, click_B=click, weight_B=torch.ones(len(s)).double()),
}  # fmt: skip


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_match_finite_differences(name):
    generator = torch.Generator().manual_seed(3)
    shown = torch.stack([torch.randperm(4, generator=generator) for _ in range(5)])
    shown[4, 3] = -1
    click = torch.tensor([0, 3, 1, -1, 2])
    if name == "reinforce":  # the average is held fixed: its scores must not move with the differences
        fixed = torch.randn(5, 4, generator=generator, dtype=torch.float64)
        held = {"baseline": torch.tensor(0.3), "kl_weight": 0.5}
        objective = lambda s: reinforce(s, fixed, shown_BK=shown, click_B=click, **held)[0]  # noqa: E731
    elif name == "dpo":
        fixed = torch.randn(5, 4, generator=generator, dtype=torch.float64)
        objective = lambda s: dpo(s, fixed, shown_BK=shown, click_B=click, beta=0.7)[0]  # noqa: E731
    else:
        objective = lambda s: OBJECTIVES[name](s, shown, click)[0]  # noqa: E731
    score = torch.randn(5, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    assert gradcheck(objective, score)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_renaming_slots_and_shifting_scores_change_nothing(name):
    generator = torch.Generator().manual_seed(4)
    score = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    shown = torch.stack([torch.randperm(4, generator=generator) for _ in range(6)])
    click = torch.tensor([0, 3, 1, -1, 2, 2])
    loss, _ = OBJECTIVES[name](score, shown, click)
    rename = torch.tensor([2, 0, 3, 1])
    renamed = torch.empty_like(score)
    renamed[:, rename] = score
    assert torch.allclose(OBJECTIVES[name](renamed, rename[shown], click)[0], loss)
    if name not in ("reinforce", "dpo"):  # their reference here is a multiple of the scores
        assert torch.allclose(OBJECTIVES[name](score + 5, shown, click)[0], loss)
