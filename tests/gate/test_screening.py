"""Screening of a challenger on the journal: with the click model where there is one, and what the log's chances say."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from dayjob.endings import OutcomeKind, Receipt, Role
from dayjob.fakes import fake_decision
from dayjob.gate import screening
from dayjob.gate.desk import Desk
from dayjob.gate.report import _exposure
from dayjob.policies.plackett_luce import Explore, draw, order, propensities, roll
from dayjob.policies.protocol import F64, Lists
from dayjob.signals.bias import Bias, BiasMethod, estimate_bias
from tests.gate.trials import AT, BASELINE, KEY, World, open_world

ITEMS = ("a", "b", "c", "d")
PULL, LOOK = 0.3, 0.7
EXPLORE = Explore(epsilon=0.4)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """600 lists by a middling score; three in ten click the first place, the rest what a better score likes best."""
    opened = open_world(tmp_path_factory.mktemp("screening") / "data", metric="click")
    rng, written = np.random.default_rng(0), []
    for number in range(1, 601):
        wish = rng.normal(size=4)
        base = 0.5 * wish + rng.normal(size=4)
        drawn = draw(base, dice=roll(number, 4), explore=EXPLORE, shown=4)
        told, blobs = fake_decision(number, ITEMS)
        decision = replace(
            told, role=Role.CHAMPION, version=BASELINE, at_ms=AT, epsilon=EXPLORE.epsilon,
            intervened=drawn.intervened, base=base.tobytes(), score=base.tobytes(), pair=wish.astype("<f4").tobytes(),
            ranking=drawn.ranking_R.astype("<u2").tobytes(), propensity=drawn.propensity_R.tobytes(),
        )  # fmt: skip
        opened.store.append_decision(decision, blobs)
        shown = drawn.ranking_R
        wanted = int(shown[(wish[shown] + 0.3 * rng.gumbel(size=4)).argmax()])
        item = ITEMS[int(shown[0]) if rng.random() < PULL else wanted]
        written.append(opened.tell_later(number, item, kind=OutcomeKind.CLICK))
    assert all(future.result().receipt is Receipt.RECORDED for future in written)
    yield opened
    opened.close()


class ByWish:
    """Orders by the pair's number, or against it."""

    def __init__(self, sign: float) -> None:
        self.sign = sign

    def score(self, lists: Lists) -> F64:
        return self.sign * lists.pair_BKP[:, :, 0].astype(np.float64)

    utility = score


def screened(world: World, sign: float, **changes: object) -> dict[str, dict[str, float]]:
    policy = world.control.policy(*KEY)
    spec = policy.spec | {"pair_dim": 1} | changes
    reader = world.judge().reader
    closed = screening.newest_closed(reader, policy, until=reader.last_seq(), now_ms=AT)
    desk = Desk(key=b"k")
    desk.add(closed, spec, reader=reader)
    found = screening.screen(ByWish(sign), closed, spec=spec, reader=reader, bias=estimate_bias(desk.log()))
    estimators: dict[str, dict[str, float]] = found["estimators"]
    return estimators


def truth(sign: float) -> float:
    """The chance that the challenger's first choice, put first, is clicked."""
    rng = np.random.default_rng(1)
    wish = rng.normal(size=(40_000, 4))
    wanted = (wish + 0.3 * rng.gumbel(size=wish.shape)).argmax(axis=1)
    return PULL + LOOK * float(((sign * wish).argmax(axis=1) == wanted).mean())


def test_the_click_model_tells_challengers_apart(world: World) -> None:
    good, bad = screened(world, 1.0), screened(world, -1.0)
    assert set(good) == {"IPS", "SNIPS", "DM", "DR", "SNDR", "SWITCH", "affine"}
    for found, sign in ((good, 1.0), (bad, -1.0)):
        for name in ("DM", "DR", "SWITCH"):
            assert found[name]["value"] == pytest.approx(truth(sign), abs=0.1), (name, sign)
    assert good["DM"]["value"] - bad["DM"]["value"] > 0.3
    assert good["DR"]["high"] - good["DR"]["low"] < good["IPS"]["high"] - good["IPS"]["low"], "a model saves variance"


def test_the_affine_estimate_is_right_where_the_bias_is(world: World) -> None:
    for sign in (1.0, -1.0):
        found = screened(world, sign)["affine"]
        assert found["value"] == pytest.approx(truth(sign), abs=0.1)


def test_the_affine_estimate_is_by_the_chances_and_not_by_the_place_held(world: World) -> None:
    """No exploring but the draw, e = .4 of 4: the second choice stands first in .1 of lists, second in .6 + .1 * 1,
    third in .4 * 2/4 = .2, so trust .1 * .3 + .7 * .1 + .2 * .05 = .11 wherever it was seen.
    """
    policy, reader = world.control.policy(*KEY), world.judge().reader
    closed = screening.newest_closed(reader, policy, until=reader.last_seq(), now_ms=AT)
    second = np.array([int(order(np.frombuffer(one.stored.record.score, "<f8"))[1]) for one in closed])
    alpha, beta, zero = np.full(4, 0.5), np.array([0.3, 0.1, 0.05, 0.0]), np.zeros(4)
    bias = Bias(
        method=BiasMethod.CHOICE, reason="", alpha_K=alpha, alpha_low_K=zero, alpha_high_K=zero, beta_K=beta,
        beta_low_K=zero, beta_high_K=zero,
    )  # fmt: skip
    [found] = screening._affine(closed, second, bias, level=0.05)
    clicked = np.mean([
        one.outcomes[0].record.item == ITEMS[slot] for one, slot in zip(closed, second, strict=True)
    ])  # fmt: skip
    assert found.value == pytest.approx((float(clicked) - 0.11) + 0.3)


def test_without_a_model_nothing_that_needs_one_is_shown(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(screened(world, 1.0, metric="truth")) <= {"IPS", "SNIPS", "affine"}
    monkeypatch.setattr(screening, "pool", lambda _: None)
    assert set(screened(world, 1.0)) == {"IPS", "SNIPS", "affine"}


def test_chances_of_places_by_enumeration() -> None:
    """All orders of three by Plackett-Luce, each as drawn and with each candidate drawn to the front."""
    score, temperature, epsilon = np.array([0.9, 0.2, 0.5]), 0.5, 0.3
    expected = np.zeros(3)
    for perm in itertools.permutations(range(3)):
        chance = float(propensities(score, np.array(perm), explore=Explore(temperature=temperature)).prod())
        expected[perm.index(1)] += (1 - epsilon) * chance
        for front in range(3):
            moved = [front, *(i for i in perm if i != front)]
            expected[moved.index(1)] += epsilon * chance / 3
    decision = replace(
        fake_decision(0)[0], score=score.astype("<f8").tobytes(), temperature=temperature, epsilon=epsilon
    )
    found = screening.place_chances(decision, 1, seed=0, draws=40_000)
    assert found == pytest.approx(expected, abs=0.01)
    greedy = replace(decision, temperature=0.0, epsilon=0.3)
    assert order(score).tolist() == [0, 2, 1]
    assert screening.place_chances(greedy, 1, seed=0) == pytest.approx([0.1, 0.0, 0.9])
    assert screening.place_chances(greedy, 2, seed=0) == pytest.approx([0.1, 0.7 + 0.1, 0.1])


def test_candidates_that_never_stood_first_count_as_zeros(world: World) -> None:
    """a leads three lists of a, b and the unshown d; b, c and d never do: Gini (2 · 4 · 3) / (4 · 3) - 5/4 = 3/4."""
    desk = Desk(key=b"k")
    policy, reader = world.control.policy(*KEY), world.judge().reader
    page = next(reader.joined(*KEY, window=screening.window_of(policy.spec), now_ms=AT))
    shown = np.array([0, 1, 2], "<u2").tobytes()
    stored = replace(page[0].stored, record=replace(page[0].stored.record, ranking=shown))
    desk.add([replace(page[0], stored=stored)] * 3, policy.spec | {"pair_dim": 1}, reader=reader)
    found = _exposure(list(desk.lines))
    assert (found["items"], found["never_first"], found["top_share"]) == (4, 3, 1.0)
    assert found["gini"] == pytest.approx(0.75)
