"""Click models: hand-worked EM steps, the reference implementation's definitions, recovery of a known bias, speed."""

import math
import time

import numpy as np
import pytest

from dayjob.lab.bias import ALPHA, BETA, relevance, trust_log
from dayjob.signals.clicklog import ClickLog
from dayjob.signals.clickmodels import Cells, EMConfig, cells, fit_position, fit_trust, log_likelihood, perplexity


def reference_position_em(log: ClickLog, passes: int) -> tuple[dict[int, float], list[float]]:
    """The position-based model's EM as the reference implementation runs it: session by session, 1 click in 5 to
    start.
    """
    attraction: dict[int, float] = {}
    examination = [0.2] * log.width
    for _ in range(passes):
        new_attraction: dict[int, list[float]] = {}
        new_examination = [[1.0, 5.0] for _ in range(log.width)]
        for items, clicks in zip(log.item_BK.tolist(), log.click_BK.tolist(), strict=True):
            for rank, (item, click) in enumerate(zip(items, clicks, strict=True)):
                a, e = attraction.get(item, 0.2), examination[rank]
                count = new_attraction.setdefault(item, [1.0, 5.0])
                count[0] += 1 if click else (1 - e) * a / (1 - e * a)
                new_examination[rank][0] += 1 if click else (1 - a) * e / (1 - e * a)
                count[1] += 1
                new_examination[rank][1] += 1
        attraction = {item: n / d for item, (n, d) in new_attraction.items()}
        examination = [n / d for n, d in new_examination]
    return attraction, examination


def reference_perplexity(probability: np.ndarray, log: ClickLog) -> tuple[float, list[float]]:
    at_rank = [0.0] * log.width
    for row, clicks in zip(probability.tolist(), log.click_BK.tolist(), strict=True):
        for rank, (p, click) in enumerate(zip(row, clicks, strict=True)):
            at_rank[rank] += math.log(p if click else 1 - p, 2)
    at_rank = [2 ** (-x / len(log)) for x in at_rank]
    return sum(at_rank) / len(at_rank), at_rank


def test_cells_count_views_and_clicks_by_item_and_position() -> None:
    data = cells(ClickLog.of([[9, 4], [9, 4], [4, -1]], click_B=[0, 1, 0]))
    table = {
        (int(data.item_V[r]), int(k)): (v, c)
        for r, k, v, c in zip(data.row_C, data.position_C, data.views_C, data.clicks_C, strict=True)
    }
    assert table == {(9, 0): (2, 1), (4, 1): (2, 1), (4, 0): (1, 1)}


def test_one_em_step_by_hand() -> None:
    """One list of one item, clicked once and left once: both parameters (1 + 1 + q) / (5 + 2), q = .8 * .2 / .96."""
    data = cells(ClickLog.of([[0], [0]], click_B=[0, -1]))
    model = fit_position(data, EMConfig(iterations=1))
    step = (1 + 1 + 0.8 * 0.2 / 0.96) / 7
    assert model.relevance_V[0] == pytest.approx(step * step)  # the scale of theta goes to the relevance
    assert model.theta_K[0] == 1.0


@pytest.mark.parametrize("passes", [1, 5])
def test_em_equals_the_reference_implementation(passes: int) -> None:
    log = trust_log(np.random.default_rng(0), sessions=400, queries=6)
    attraction, examination = reference_position_em(log, passes)
    model = fit_position(cells(log), EMConfig(iterations=passes, tolerance=-np.inf))
    assert model.theta_K == pytest.approx(np.array(examination) / examination[0], rel=1e-12)
    assert model.relevance_V == pytest.approx([attraction[int(i)] * examination[0] for i in model.item_V], rel=1e-12)


def test_perplexity_equals_the_reference_definition_and_a_hand_worked_one() -> None:
    log = trust_log(np.random.default_rng(1), sessions=300, queries=5)
    p = np.random.default_rng(2).uniform(0.05, 0.95, size=log.item_BK.shape)
    overall, at = perplexity(p, log)
    assert (overall, at.tolist()) == (
        pytest.approx(reference_perplexity(p, log)[0]),
        pytest.approx(reference_perplexity(p, log)[1]),
    )
    # a fair coin is 2; being sure and right is 1; .25 for what happened is 4
    small = ClickLog.of([[0, 1, 2]], click_BK=[[1, 0, 1]])
    assert perplexity(np.array([[0.5, 1e-9, 0.25]]), small)[1] == pytest.approx([2, 1, 4], rel=1e-5)
    assert log_likelihood(np.array([[0.5, 1e-9, 0.25]]), small) == pytest.approx(
        (math.log(0.5) + math.log(0.25)) / 3, rel=1e-4
    )


def test_short_lists_do_not_count_where_they_do_not_reach() -> None:
    log = ClickLog.of([[0, 1], [0, -1]], click_BK=[[1, 0], [1, 0]])
    assert perplexity(np.array([[0.5, 0.5], [0.5, 0.5]]), log)[1] == pytest.approx([2, 2])


def test_em_never_loses_likelihood() -> None:
    data = cells(trust_log(np.random.default_rng(3), sessions=2000, queries=20))
    free = {"prior_clicks": 0.0, "prior_views": 0.0, "tolerance": -np.inf}
    position = [fit_position(data, EMConfig(iterations=n, **free)).log_likelihood for n in (1, 2, 4, 8, 16)]
    trust = [fit_trust(data, EMConfig(iterations=n, **free)).log_likelihood for n in (2, 4, 8, 16)]
    assert position == sorted(position)
    assert trust == sorted(trust)


@pytest.mark.parametrize("queries", [200, 2000])
def test_trust_bias_of_the_literature_is_recovered(queries: int) -> None:
    """Also where every item is seen some nine times, at which estimating each item's relevance goes wrong by a
    third.
    """
    model = fit_trust(cells(trust_log(np.random.default_rng(4), queries=queries)))
    known = model.item_V[::20]
    anchored = model.anchored(known, relevance(queries)[known])
    assert anchored.alpha_K == pytest.approx(ALPHA, abs=0.05)
    assert anchored.beta_K == pytest.approx(BETA, abs=0.03)
    assert model.slope_K == pytest.approx(ALPHA / ALPHA[0], abs=0.08)
    assert model.offset_K == pytest.approx(BETA - ALPHA / ALPHA[0] * BETA[0], abs=0.06)


def test_the_anchor_changes_the_scale_and_no_prediction() -> None:
    log = trust_log(np.random.default_rng(5), sessions=5000, queries=20)
    model = fit_trust(cells(log))
    anchored = model.anchored(
        [int(model.item_V[model.relevance_V.argmax()]), int(model.item_V[model.relevance_V.argmin()])], [2.0, -1.0]
    )
    assert anchored.predict(log.item_BK) == pytest.approx(model.predict(log.item_BK))
    assert anchored.slope_K == pytest.approx(model.slope_K)
    assert anchored.offset_K == pytest.approx(model.offset_K)
    assert anchored.relevance_V.max() == pytest.approx(2.0)
    with pytest.raises(ValueError, match="at least two known items"):
        model.anchored([0], [1.0])


def test_bias_without_moved_items_is_unidentifiable() -> None:
    log = ClickLog.of([[0, 1], [0, 1], [2, 3]], click_B=[0, 1, 0])
    assert not cells(log).connected
    with pytest.raises(ValueError, match="unidentifiable"):
        fit_trust(cells(log))
    # items 1 and 2 link positions 1, 2 and 3 although no item was at all of them
    assert cells(ClickLog.of([[1, 2, 3], [4, 1, 2]], click_B=[0, 0])).connected
    with pytest.raises(ValueError, match="Nothing was shown"):
        fit_position(
            Cells(
                item_V=np.zeros(0, np.int64),
                row_C=np.zeros(0, np.int64),
                position_C=np.zeros(0, np.int64),
                views_C=np.zeros(0),
                clicks_C=np.zeros(0),
                width=2,
            )
        )


def test_thirty_five_thousand_sessions_in_under_two_seconds() -> None:
    log = trust_log(np.random.default_rng(6), sessions=35_000, queries=200)
    start = time.process_time()
    data = cells(log)
    fit_position(data)
    fit_trust(data)
    assert time.process_time() - start < 2.0
