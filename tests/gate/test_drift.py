"""Drift in the report: the pull of the first place, what people want, both or neither, from draws and from pairs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from dayjob.endings import FeedbackState, Role
from dayjob.gate import report
from dayjob.gate.desk import Desk, Line
from dayjob.gate.drift import LEAST, Drift, drift
from dayjob.gate.monitors import look_level

SHOWN = 6
NOW = FeedbackState.INFORMATIVE


@dataclass(frozen=True, kw_only=True)
class People:
    """``pull`` of them click position 1 unseen, ``silent`` leave, the rest want the order's own choice in a share
    ``own``, in pairs the rival's in a share ``rival``, and else any other.
    """

    pull: float = 0.4
    silent: float = 0.0
    own: float = 0.5
    rival: float = 0.3


BEFORE = People()


def line(seq: int, items: Sequence[int], *, click: int, **changed: object) -> Line:
    told = {
        "version": "v0", "role": Role.CHAMPION, "chance": 1.0, "order": 0, "rival": -1, "truth": -1, "success": 0.0,
        "error": None, "proxy": None, "gold": None, "reward": float("nan"), "intervened": False, "first": 0,
        "first_by_caller": 0, "user": -1, "unshown": np.zeros(0, np.int64),
    }  # fmt: skip
    numbers = {
        "propensity_R": np.ones(SHOWN),
        "score_R": -np.array(items, np.float64),
        "feature_RF": -np.array(items, np.float64)[:, None],
    }
    return Line(seq=seq, item_R=tuple(items), key_R=tuple(items), click=click, **numbers, **(told | changed))


def lists(seed: int, people: Sequence[People], *, count: int, drawn: float = 0.0, pairs: float = 0.0) -> list[Line]:
    """``count`` lists for each crowd in turn: item 0 is the order's own choice, item 1 the rival's."""
    rng, found = np.random.default_rng(seed), []
    for crowd in people:
        for _ in range(count):
            items, more = list(range(SHOWN)), {}
            dice, what = rng.random(2), rng.random()
            if what < drawn:
                first = int(rng.integers(SHOWN))
                items, more = [first, *(i for i in items if i != first)], {"intervened": True}
            elif what < drawn + pairs:
                items = [1, 0, *items[2:]] if rng.random() < 0.5 else items
                more = {"role": Role.TRIAL, "rival": 1, "order": 1}
            odds = np.array([crowd.own, crowd.rival, *[(1 - crowd.own - crowd.rival) / (SHOWN - 2)] * (SHOWN - 2)])
            wanted = items.index(int(np.searchsorted(odds.cumsum(), dice[1])))
            click = 0 if dice[0] < crowd.pull else -1 if dice[0] < crowd.pull + crowd.silent else wanted
            found.append(line(len(found), items, click=click, **more))
    return found


CHANGES = {
    "nothing": (BEFORE, set()),
    "pull": (People(pull=0.8), {"position"}),
    "wishes": (People(own=0.1), {"relevance"}),
    "silence": (People(pull=0.2, silent=0.5), {"position"}),  # half of everybody leaves: the first place gets half
    "both": (People(pull=0.75, own=0.0), {"position", "relevance"}),
}


def said(found: Drift) -> set[str]:
    return {name for name in ("position", "relevance") if getattr(found, name)}


@pytest.mark.parametrize("change", ["nothing", "pull", "wishes", "silence"])
@pytest.mark.parametrize(("drawn", "pairs"), [(0.25, 0.0), (0.0, 0.9)], ids=["draws", "pairs"])
def test_what_changed_is_said_and_nothing_else(change: str, drawn: float, pairs: float) -> None:
    after, expected = CHANGES[change]
    runs = 12
    counts = Counter(
        name
        for seed in range(runs)
        for name in said(drift(lists(seed, [BEFORE, after], count=1600, drawn=drawn, pairs=pairs), NOW))
    )
    for name in ("position", "relevance"):
        if name in expected:
            assert counts[name] >= runs - 1, counts
        else:
            assert counts[name] <= 1, counts


def test_both_are_said_together() -> None:
    found = drift(lists(0, [BEFORE, CHANGES["both"][0]], count=2000, drawn=0.3), NOW)
    assert said(found) == {"position", "relevance"}
    assert found.since is not None
    assert found.since >= 1900, "the first window that began after the change, or nearly"
    assert "estimate the position bias again" in found.reason
    assert "learn from recent decisions" in found.reason


def test_a_better_order_is_no_drift() -> None:
    """After a promotion what the order puts first is clicked oftener: nobody changed."""
    old = lists(1, [People(own=0.1)], count=1500, drawn=0.25)
    new = [line(1500 + n, one.key_R, click=one.click, order=1, intervened=one.intervened)
           for n, one in enumerate(lists(2, [People(own=0.6)], count=1500, drawn=0.25))]  # fmt: skip
    assert said(drift(old + new, NOW)) == set()
    assert said(drift(old + [line(n, one.key_R, click=one.click, intervened=one.intervened)
                             for n, one in enumerate(new)], NOW)) == {"relevance"}  # fmt: skip


def test_what_nothing_identifies_is_not_told() -> None:
    few = drift(lists(3, [BEFORE], count=300, drawn=0.3), NOW)
    assert (few.position, few.relevance) == (None, None)
    assert f"{2 * LEAST} of either" in few.reason
    blind = drift(lists(4, [People(pull=1.0)], count=1000, drawn=0.3), NOW)
    assert (blind.position, blind.relevance) == (False, None)
    assert "Too few clicks fall below" in blind.reason
    guessed = drift(lists(5, [BEFORE, People(own=0.0)], count=1600, drawn=0.25), FeedbackState.UNINFORMATIVE)
    assert guessed.relevance is None
    silent = drift([line(n, range(SHOWN), click=-1) for n in range(500)], NOW)
    assert (silent.position, silent.reason) == (None, "Cannot tell: no click says what people do with a place.")


def test_one_person_who_clicks_much_is_one_person() -> None:
    """Eighty people in turn, each with a habit of their own: whoever comes next is no drift."""
    cries = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        habits = rng.random(80)
        made = lists(seed, [BEFORE] * 2, count=2000, drawn=0.4)
        owner = np.arange(len(made)) // 50
        again = [line(n, one.key_R, click=0 if rng.random() < habits[u] else 2, user=int(u),
                      intervened=one.intervened)
                 for n, (one, u) in enumerate(zip(made, owner, strict=True))]  # fmt: skip
        cries += bool(drift(again, NOW).position)
    assert cries <= 1


def test_looks_sum_to_alpha() -> None:
    assert sum(look_level(0.05, j) for j in range(1, 100_000)) == pytest.approx(0.05, rel=1e-4)


@pytest.mark.parametrize("change", ["nothing", "pull", "wishes"])
def test_the_report_says_it(change: str) -> None:
    after, expected = CHANGES[change]
    desk = Desk(key=b"k")
    desk.lines.extend(lists(6, [BEFORE, after], count=1600, drawn=0.25))
    spec = {"explore": {"changed_first": 0.05}}
    found = report.analyse(desk, report.read_feedback(desk), spec=spec, now_s=0.0).body["drift"]
    assert {name for name in ("position", "relevance") if found[name]} == expected, found
