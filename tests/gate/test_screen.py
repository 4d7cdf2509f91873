"""Off-policy estimators: worked numbers, unbiasedness on a bandit with known value, honest diagnostics."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dayjob.endings import Invalid
from dayjob.gate.screen import (
    Logged,
    Target,
    affine,
    bootstrap,
    diagnose,
    difference,
    estimates,
    influence,
    switch_threshold,
    weights,
    without_model,
)


def test_worked_by_hand() -> None:
    logged = Logged(
        reward_N=np.array([1.0, 0.0, 1.0, 0.0]),
        weight_N=np.array([2.0, 1.0, 0.0, 3.0]),
        q_N=np.array([0.5, 0.5, 1.0, 0.0]),
        q_new_N=np.array([0.4, 0.2, 0.6, 0.8]),
    )
    value = {name: v for name, (v, _) in influence(logged).items()}
    assert value["IPS"] == pytest.approx(2.0 / 4)
    assert value["SNIPS"] == pytest.approx(2.0 / 6)
    assert value["DM"] == pytest.approx(0.5)
    # w (r - q) = 1, -.5, 0, 0.
    assert value["DR"] == pytest.approx(0.5 + 0.5 / 4)
    assert value["SNDR"] == pytest.approx(0.5 + 0.5 / 6)
    assert "SWITCH" not in value, "what the new policy would do is not known"
    for name, (v, terms) in influence(logged).items():
        assert terms.mean() == pytest.approx(v), name
    found = diagnose(logged, unsupported_N=[0.0, 0.0, 0.2, 0.2])
    assert found.effective == pytest.approx(36 / 14)
    assert (found.max_weight, found.mean_weight) == (3.0, 1.5)
    assert found.unsupported == pytest.approx(0.1)


def test_the_threshold_of_switch_worked_by_hand() -> None:
    """A model of .5 everywhere. One decision in four has the weight 4, whose action the new policy takes in .1.

    tau infinite: terms 1, 0, 1, 2.5, variance .796875, over 4: .1992; no bias. tau 1: terms 1, 0, 1, .5, variance
    .171875, over 4: .0430, and the bias at most 1 * .1, squared .01. tau 0: no variance, a bias of at most 1.
    """
    logged = Logged(
        reward_N=np.array([1.0, 0.0, 1.0, 1.0]),
        weight_N=np.array([1.0, 1.0, 1.0, 4.0]),
        q_N=np.full(4, 0.5),
        q_new_N=np.full(4, 0.5),
        target=Target(chance_NA=np.tile([0.9, 0.1], (4, 1)), ratio_NA=np.tile([1.0, 4.0], (4, 1))),
    )
    assert logged.target is not None
    assert [logged.target.above(tau) for tau in (0.0, 1.0, 4.0)] == pytest.approx([1.0, 0.1, 0.0])
    assert switch_threshold(logged, logged.target) == 1.0
    assert influence(logged)["SWITCH"][0] == pytest.approx(0.625)
    # Where that action is nearly all that it does, the model may not be left alone with it: .0430 + .81.
    often = Target(chance_NA=np.tile([0.1, 0.9], (4, 1)), ratio_NA=logged.target.ratio_NA)
    assert switch_threshold(logged, often) == math.inf
    assert influence(replace(logged, target=often))["SWITCH"][0] == pytest.approx(influence(logged)["DR"][0])


@given(st.integers(0, 10_000), st.integers(2, 20), st.floats(0.01, 1.0))
def test_switch_is_at_no_threshold_worse_than_where_it_chose(seed: int, n: int, rare: float) -> None:
    rng = np.random.default_rng(seed)
    log_p, new_p = rng.dirichlet(np.full(4, rare)) + 1e-3, rng.dirichlet(np.ones(4))
    log_p /= log_p.sum()
    action = rng.choice(4, n, p=log_p)
    target = Target(chance_NA=np.tile(new_p, (n, 1)), ratio_NA=np.tile(new_p / log_p, (n, 1)))
    logged = Logged(
        reward_N=rng.random(n).round(), weight_N=(new_p / log_p)[action], q_N=rng.random(n), q_new_N=rng.random(n),
        target=target,
    )  # fmt: skip

    def risk(tau: float) -> float:
        kept = np.where(logged.weight_N > tau, 0.0, logged.weight_N)
        terms = logged.q_new_N + kept * (logged.reward_N - logged.q_N)
        left = sum(chance for chance, ratio in zip(new_p, new_p / log_p, strict=True) if ratio > tau)
        return float(np.mean((terms - terms.mean()) ** 2)) / n + (logged.reward_N.max() * left) ** 2

    chosen = risk(switch_threshold(logged, target))
    assert all(chosen <= risk(tau) + 1e-12 for tau in (0.0, math.inf, *logged.weight_N))


def bandit(n: int, seed: int) -> tuple[Logged, float]:
    """Five actions, three contexts; a skewed log; a wrong reward model; the new policy's true value."""
    rng = np.random.default_rng(seed)
    chance = np.linspace(0.1, 0.7, 15).reshape(3, 5)
    log_p = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
    new_p = np.array([0.1, 0.1, 0.2, 0.3, 0.3])
    context = rng.integers(0, 3, n)
    action = rng.choice(5, n, p=log_p)
    reward = (rng.random(n) < chance[context, action]).astype(np.float64)
    model = np.full((3, 5), 0.35)
    model[:, 4] = 0.5
    logged = Logged(
        reward_N=reward,
        weight_N=weights(new_p[action], log_p[action]),
        q_N=model[context, action],
        q_new_N=model[context] @ new_p,
        target=Target(chance_NA=np.tile(new_p, (n, 1)), ratio_NA=np.tile(new_p / log_p, (n, 1))),
    )
    return logged, float((chance @ new_p).mean())


def test_intervals_cover_and_estimators_are_unbiased() -> None:
    covered = dict.fromkeys(("IPS", "SNIPS", "DR", "SNDR", "SWITCH"), 0)
    errors = {name: [] for name in covered}
    for seed in range(200):
        logged, truth = bandit(1500, seed)
        for name, estimate in estimates(logged, alpha=0.05).items():
            if name in covered:
                covered[name] += estimate.low <= truth <= estimate.high
                errors[name].append(estimate.value - truth)
    for name, hits in covered.items():
        assert 0.89 <= hits / 200 <= 0.99, name
        assert abs(np.mean(errors[name])) < 3 * np.std(errors[name]) / math.sqrt(200), name
    assert np.std(errors["SNIPS"]) < np.std(errors["IPS"])


def test_bootstrap_agrees_with_the_normal_interval() -> None:
    logged, _ = bandit(3000, 0)
    for name, estimate in estimates(logged, alpha=0.05).items():
        low, high = bootstrap(logged, name=name, alpha=0.05, rng=np.random.default_rng(1), draws=300)
        assert high - low == pytest.approx(estimate.high - estimate.low, rel=0.2, abs=1e-6), name


def test_too_few_events_cannot_tell() -> None:
    reward = np.zeros(5000)
    reward[:6] = 1.0
    assert not estimates(without_model(reward, np.ones(5000)), alpha=0.05)["IPS"].told
    assert estimates(bandit(1000, 0)[0], alpha=0.05)["IPS"].told
    # Plenty of clicks, but the log could do only a third of what the new policy does.
    thin = without_model(np.ones(5000), np.full(5000, 1 / 3))
    assert not estimates(thin, alpha=0.05)["IPS"].told


def test_affine_undoes_trust_bias() -> None:
    # alpha, beta of the literature's default; items of relevance .3 logged at positions 1 to 5 at random.
    alpha, beta = np.array([0.35, 0.53, 0.55, 0.54, 0.52]), np.array([0.65, 0.26, 0.15, 0.11, 0.08])
    rng = np.random.default_rng(0)
    at = rng.integers(0, 5, 60_000)
    clicked = rng.random(60_000) < alpha[at] * 0.3 + beta[at]
    found = affine(clicked, alpha[at], beta_N=beta[at], level=0.01, top=(0.35, 0.65))
    assert found.low < 0.35 * 0.3 + 0.65 < found.high
    assert found.high - found.low < 0.02
    aware = affine(
        clicked, np.full(60_000, alpha.mean()), beta_N=np.full(60_000, beta.mean()), level=0.01, top=(0.35, 0.65)
    )
    assert aware.low < 0.755 < aware.high


def test_difference_shares_noise() -> None:
    logged, truth = bandit(4000, 5)
    same = Logged(reward_N=logged.reward_N, weight_N=np.ones(4000), q_N=np.zeros(4000), q_new_N=np.zeros(4000))
    nothing = difference(same, name="IPS", alpha=0.05)
    assert (nothing.value, nothing.low, nothing.high) == (0.0, 0.0, 0.0)
    gap = difference(logged, name="DR", alpha=0.05)
    log_value = float((np.linspace(0.1, 0.7, 15).reshape(3, 5) @ [0.4, 0.3, 0.15, 0.1, 0.05]).mean())
    assert gap.low < truth - log_value < gap.high


def test_refusals() -> None:
    with pytest.raises(Invalid, match="propensity"):
        weights([0.5], [0.0])
    with pytest.raises(Invalid, match="one length"):
        without_model([1.0, 0.0], [1.0])
    with pytest.raises(Invalid, match="finite"):
        without_model([np.nan], [1.0])
    with pytest.raises(Invalid, match="attention"):
        affine([1.0], [0.0], beta_N=[0.1], level=0.05, top=(1.0, 0.0))
    with pytest.raises(Invalid, match="one shape"):
        Target(chance_NA=np.ones((2, 2)), ratio_NA=np.ones((2, 1)))
    with pytest.raises(Invalid, match="a row for each"):
        replace(without_model([1.0], [1.0]), target=Target(chance_NA=np.ones((2, 1)), ratio_NA=np.ones((2, 1))))
