"""e-LOND: the budget adds up, and the false discovery rate holds under dependence."""

import math

import numpy as np
import pytest

from dayjob.endings import Invalid
from dayjob.gate.elond import EXPONENT, Elond, gamma


def test_levels_worked_by_hand() -> None:
    budget = Elond(alpha=0.05)
    assert budget.level == pytest.approx(0.05 / 2.285765679)
    budget = budget.decide(promoted=True)
    assert budget.level == pytest.approx(0.05 * 2**-1.6 / 2.285765679 * 2)
    budget = budget.decide(promoted=False)
    assert (budget.decided, budget.promoted) == (2, 1)
    assert budget.level == pytest.approx(0.05 * 3**-1.6 / 2.285765679 * 2)
    assert Elond.from_dict(budget.to_dict()) == budget


def test_the_shares_never_exceed_the_budget() -> None:
    terms = 200_000
    tail = terms ** (1 - EXPONENT) / (EXPONENT - 1)
    total = sum(gamma(i) for i in range(1, terms + 1)) + tail / 2.285765679
    assert total <= 1.0 + 1e-6
    assert total == pytest.approx(1.0, abs=1e-5)
    assert all(gamma(i) > gamma(i + 1) for i in range(1, 100))


def test_false_discovery_rate_under_dependence() -> None:
    # Every third challenger is truly better; the nulls share one noise source, two-valued e-values at the threshold
    # (the worst case of Ville): e = 1/level with probability level.
    rng = np.random.default_rng(3)
    shares = []
    for _ in range(4000):
        budget, false, common = Elond(alpha=0.1), 0, rng.random()
        for trial in range(30):
            better = trial % 3 == 2
            noise = common if trial % 2 else rng.random()
            promoted = rng.random() < 0.8 if better else noise < budget.level
            false += promoted and not better
            budget = budget.decide(promoted=bool(promoted))
        shares.append(false / max(1, budget.promoted))
    assert np.mean(shares) <= 0.1 + 3 * np.std(shares) / math.sqrt(4000)


def test_an_abandoned_trial_hands_its_level_on_by_hand() -> None:
    budget = Elond(alpha=0.05)
    first = budget.level
    assert budget.abandon(log_e=math.log(7.0), peak=math.log(9.0)).level == pytest.approx(first), (
        "wealth above 1 is lost"
    )
    assert budget.abandon(log_e=math.log(0.8), peak=0.0).level == pytest.approx(0.8 * first)
    twice = budget.abandon(log_e=math.log(0.8), peak=0.0).abandon(log_e=math.log(0.5), peak=0.0)
    assert (twice.decided, twice.level) == (0, pytest.approx(0.4 * first))
    ruined = budget.abandon(log_e=math.log(0.1), peak=0.0)
    assert ruined == budget.decide(promoted=False), "a tenth of the first level is less than the whole second"
    proven = budget.abandon(log_e=0.0, peak=-math.log(first))
    assert proven.decided == 1, "its evidence had reached the mark"
    assert Elond.from_dict(twice.to_dict()) == twice


@pytest.mark.parametrize("quit_below", [0.3, 0.9, 1.2])
def test_whoever_abandons_trials_as_suits_them_gets_no_more_false_promotions(quit_below: float) -> None:
    # No challenger is ever better; the wealth grows or shrinks by half with a fair coin, so Ville is nearly tight. A
    # trial is abandoned whenever its wealth falls below a mark, or after 25 decisions.
    rng = np.random.default_rng(11)
    runs, alpha, hit = 4_000, 0.2, 0
    for _ in range(runs):
        budget = Elond(alpha=alpha)
        for _ in range(12):
            log_e = peak = 0.0
            for up in rng.random(25) < 0.5:
                log_e += math.log(1.5 if up else 0.5)
                peak = max(peak, log_e)
                if peak >= -math.log(budget.level) or log_e < math.log(quit_below):
                    break
            if peak >= -math.log(budget.level):
                hit += 1
                break
            budget = budget.abandon(log_e=log_e, peak=peak)
    assert hit / runs <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)


def test_refusals() -> None:
    with pytest.raises(Invalid, match="left"):
        Elond(alpha=0.05, left=1.5)
    with pytest.raises(Invalid, match="alpha"):
        Elond(alpha=1.0)
    with pytest.raises(Invalid, match="exceed"):
        Elond(alpha=0.05, decided=1, promoted=2)
    with pytest.raises(Invalid, match="counted from 1"):
        gamma(0)
