"""Evidence under continuous peeking: hand-worked wealth, batching, validity, coverage."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dayjob.endings import Invalid
from dayjob.gate import confidence
from dayjob.gate.confidence import BETS_G, LOG_PRIOR_G, Evidence, boundary, interval, log_mixture, update

unit = st.floats(-1, 1, allow_nan=False)


def test_prior_is_a_distribution() -> None:
    assert np.exp(LOG_PRIOR_G).sum() == pytest.approx(1.0, abs=1e-12)
    assert (BETS_G > 0).all()
    assert (BETS_G < 1).all()


def test_wealth_worked_by_hand() -> None:
    # Two observations +1 and -0.5 (the second at half weight): each bet's wealth is (1 + l)(1 - l / 4).
    state = update(Evidence(), [1.0, -0.5], weight_N=[1.0, 0.5])
    up = np.sum(np.exp(LOG_PRIOR_G) * (1 + BETS_G) * (1 - BETS_G / 4))
    down = np.sum(np.exp(LOG_PRIOR_G) * (1 - BETS_G) * (1 + BETS_G / 4))
    assert state.log_e_up == pytest.approx(math.log(up), abs=1e-12)
    assert state.log_e_down == pytest.approx(math.log(down), abs=1e-12)
    assert state.peak_up == pytest.approx(math.log(np.sum(np.exp(LOG_PRIOR_G) * (1 + BETS_G))), abs=1e-12)
    assert state.peak_down == 0.0
    assert (state.count, state.weight, state.sum_low) == (2, 1.5, 0.75)
    # The guess before the first is 0, before the second 1 / (1 + 1): spread = 1 + (0.5 * (-0.5 - 0.5))^2.
    assert state.spread_low == pytest.approx(1.25)


def test_boundary_solves_the_mixture() -> None:
    for spread in (0.0, 3.0, 250.0, 9000.0):
        u = boundary(spread, alpha=0.025)
        psi = (-np.log1p(-BETS_G) - BETS_G) / 4
        assert float(log_mixture(BETS_G / 2 * u - psi * spread)) == pytest.approx(math.log(40.0), abs=1e-6)


def test_interval_shrinks_like_the_root_of_n() -> None:
    x = np.tile([0.5, -0.5], 20_000)
    width = [np.subtract(*interval(update(Evidence(), x[:n]), alpha=0.05)[::-1]) for n in (1000, 4000, 16_000)]
    assert width[0] / width[1] == pytest.approx(2.0, rel=0.1)
    # 1.96 sd / sqrt(n) doubled is what a single look would give; peeking for ever costs less than twice that.
    assert width[2] < 2 * (2 * 1.96 * 0.5 / math.sqrt(16_000))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(unit, st.floats(0, 1)), min_size=1, max_size=40), st.data())
def test_any_split_into_batches_is_the_same(rows: list[tuple[float, float]], data: st.DataObject) -> None:
    x, w = (np.array(column) for column in zip(*rows, strict=True))
    whole = update(Evidence(), x, weight_N=w)
    cut = data.draw(st.integers(0, len(rows)))
    parts = update(update(Evidence(), x[:cut], weight_N=w[:cut]), x[cut:], weight_N=w[cut:])
    assert parts.count == whole.count
    for name in ("weight", "sum_low", "sum_high", "spread_low", "spread_high", "peak_up", "peak_down"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-12, abs=1e-12)
    np.testing.assert_allclose(parts.log_up_G, whole.log_up_G, rtol=1e-12, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(unit, unit), min_size=1, max_size=30))
def test_mirror_and_bracketing(rows: list[tuple[float, float]]) -> None:
    low, high = np.array([min(r) for r in rows]), np.array([max(r) for r in rows])
    state = update(Evidence(), low, high_N=high)
    mirrored = update(Evidence(), -high, high_N=-low)
    assert state.log_e_up == pytest.approx(mirrored.log_e_down, abs=1e-9)
    # Knowing less never proves more.
    assert state.log_e_up <= update(Evidence(), high).log_e_up + 1e-9
    assert state.log_e_down <= update(Evidence(), low).log_e_down + 1e-9
    below, above = interval(state, alpha=0.05)
    assert below <= state.sum_low / state.count <= state.sum_high / state.count <= above


def test_a_weight_of_zero_changes_no_evidence() -> None:
    state = update(Evidence(), [0.4, -0.1, 1.0])
    after = update(state, [1.0, -1.0], weight_N=[0.0, 0.0])
    assert (after.log_up_G, after.spread_low, after.weight) == (state.log_up_G, state.spread_low, state.weight)


def test_json_round_trip_is_exact() -> None:
    state = update(Evidence(), np.random.default_rng(0).uniform(-1, 1, 500))
    assert Evidence.from_dict(json.loads(json.dumps(state.to_dict()))) == state
    with pytest.raises(Invalid, match="grid"):
        Evidence.from_dict(state.to_dict() | {"log_up_G": [0.0]})


def test_peeking_after_every_observation_keeps_the_level() -> None:
    # 2,000 runs, martingale differences whose scale depends on the past: the sup must exceed 1/alpha in <= alpha.
    rng = np.random.default_rng(7)
    wealth = np.zeros((2000, BETS_G.size))
    peak = np.zeros(2000)
    scale = np.ones(2000)
    for _ in range(600):
        x = scale * np.where(rng.random(2000) < 0.25, 0.75, -0.25)
        wealth += confidence.log_gain(x)
        peak = np.maximum(peak, log_mixture(wealth))
        scale = np.where(x > 0, 0.3, 1.0)
    share = float((peak >= math.log(20)).mean())
    assert share <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)
    # And not by betting nothing.
    assert share > 0.005


def test_the_interval_covers_a_moving_mean_at_all_times() -> None:
    missed = 0
    for seed in range(80):
        rng = np.random.default_rng(seed)
        chance = 0.5 + 0.4 * np.sin(np.arange(800) / 90.0)
        x = np.where(rng.random(800) < chance, 1.0, -1.0)
        state, out = Evidence(), False
        for end in range(50, 801, 50):
            state = update(state, x[end - 50 : end])
            low, high = interval(state, alpha=0.1)
            out |= not low <= (2 * chance[:end] - 1).mean() <= high
        missed += out
    assert missed <= 0.1 * 80


def test_refusals_name_the_remedy() -> None:
    with pytest.raises(Invalid, match="divide by their bound"):
        update(Evidence(), [1.5])
    with pytest.raises(Invalid, match="finite"):
        update(Evidence(), [math.nan])
    with pytest.raises(Invalid, match="weights"):
        update(Evidence(), [0.5], weight_N=[1.5])
    with pytest.raises(Invalid, match="one length"):
        update(Evidence(), [0.5, 0.5], high_N=[0.5])
    with pytest.raises(Invalid, match="alpha"):
        interval(Evidence(), alpha=0.0)
    assert interval(Evidence(), alpha=0.05) == (-1.0, 1.0)
    assert update(Evidence(), []) == Evidence()
