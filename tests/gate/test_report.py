"""The live report: the same alarm as the replay's, and a policy that games its reward."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dayjob.endings import OutcomeKind, Receipt, Role
from dayjob.fakes import fake_decision, fake_id
from dayjob.gate import judge as module
from dayjob.gate import report, screening
from dayjob.gate.desk import Desk
from dayjob.gate.evidence import scaled_reward
from dayjob.gate.screening import LEAST, screen_again
from dayjob.journal.join import window_of
from dayjob.records import Json
from tests.gate.trials import AT, BASELINE, KEY, World, open_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    opened = open_world(tmp_path / "data", metric="reward")
    yield opened
    opened.close()


def served(world: World, count: int, *, reward: float, truth: float, seed: int) -> None:
    """Decisions of the champion with a truth (the first place is right in a share ``truth``) and then a reward."""
    dice = random.Random(seed)
    written = []
    for _ in range(count):
        decision = replace(fake_decision(0)[0], role=Role.CHAMPION, version=BASELINE, at_ms=AT)
        number = world.decide(decision, wait=False)
        item = "a" if dice.random() < truth else "b"
        written.append(world.tell_later(number, item, kind=OutcomeKind.TRUTH))
        value = float(dice.random() < reward)
        written.append(world.tell_later(number, None, kind=OutcomeKind.REWARD, value=value))
    assert all(future.result().receipt is Receipt.RECORDED for future in written)


def reported(world: World) -> Json:
    while world.judge().step():
        pass
    found = world.control.state(*KEY, "report")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("after", "fires"), [({"reward": 0.8, "truth": 0.4}, True), ({"reward": 0.8, "truth": 0.7}, False)]
)
def test_a_reward_that_rises_while_the_truth_falls_is_in_the_report(
    world: World, monkeypatch: pytest.MonkeyPatch, after: dict[str, float], fires: bool
) -> None:
    monkeypatch.setattr(module, "REPORT_S", 0.0)
    served(world, 300, reward=0.4, truth=0.7, seed=1)
    assert reported(world)["gaming"]["alarm"] is False, "nothing changed yet"
    served(world, 300, seed=2, **after)
    world.judge().cases[KEY].analysis = None
    found = reported(world)["gaming"]
    assert found["alarm"] is fires
    assert ("games its reward" in found["reason"]) is fires


def test_without_truth_the_report_says_so(world: World) -> None:
    served(world, 3, reward=0.5, truth=0.5, seed=1)
    assert "3 decisions with both" in reported(world)["gaming"]["reason"]


def test_the_live_alarm_is_the_replays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller's order serves on, the reward is high, the feedback says nothing: the words of the one function."""
    monkeypatch.setattr(report, "LEAST_TO_ALARM", 200)
    served(world, 250, reward=0.8, truth=0.5, seed=3)
    found = reported(world)
    assert found["feedback"]["state"] != "informative"
    assert found["learning"]["alarm"] is True
    assert found["learning"]["reason"].startswith("The reward looks high, but it did before: nothing moved")
    monkeypatch.setattr(report.monitors, "HIGH_REWARD", 0.95)
    world.judge().cases[KEY].analysis = None
    world.judge().cases[KEY].reported_s = 0.0
    assert reported(world)["learning"]["alarm"] is False


@pytest.mark.parametrize(("value", "paid"), [(1.0, 1.0), (-1.0, 0.0)])
def test_a_thumb_closes_and_pays_like_a_reward(world: World, value: float, paid: float) -> None:
    number = world.decide(replace(fake_decision(0)[0], role=Role.CHAMPION, version=BASELINE, at_ms=AT), wait=False)
    world.tell_later(number, None, kind=OutcomeKind.THUMB, value=value).result()
    spec = world.control.policy(*KEY).spec
    page = next(world.judge().reader.joined(*KEY, window=window_of(spec), now_ms=AT))
    assert page[0].closed_seq == page[0].outcomes[0].seq, "closed by the thumb, not by its window"
    assert scaled_reward(page[0], spec) == paid


def test_what_is_told_does_not_wait_for_an_open_decision_but_says_which_it_is(world: World) -> None:
    """One user vanished: the judge waits for the window to end, the counts do not."""
    vanished = replace(fake_decision(0)[0], role=Role.CHAMPION, version=BASELINE, at_ms=AT)
    number = world.decide(vanished)
    served(world, 60, reward=0.5, truth=0.5, seed=4)
    found = reported(world)
    assert found["gate"]["lag"] >= 60
    assert found["gate"]["judged_through"] == 0
    assert found["gate"]["waiting"] == {"decision": fake_id(number), "until_ms": AT + 60_000}
    assert "60 decisions with both" in found["gaming"]["reason"]
    assert world.judge().cases[KEY].desk.closed == 0, "what is judged stays in order"
    world.tell_later(number, None, kind=OutcomeKind.REWARD, value=1.0).result()
    world.judge().cases[KEY].reported_s = 0.0
    found = reported(world)
    assert (found["gate"]["lag"], found["gate"]["waiting"]) == (0, None)
    assert world.judge().cases[KEY].desk.closed == 61


def test_rewards_stand_for_the_lists_that_a_comparison_took_away(world: World) -> None:
    served(world, 2, reward=1.0, truth=1.0, seed=5)
    reported(world)
    desk = world.judge().cases[KEY].desk
    easy, hard = replace(desk.lines[0], success=1.0, chance=1.0), replace(desk.lines[1], success=0.0, chance=0.25)
    desk.lines.clear()
    desk.lines.extend([easy, hard])
    assert report.version_points(desk, newest=10)[BASELINE] == {"n": 2, "reward": pytest.approx(0.2)}


def test_a_challenger_is_screened_again_once_there_is_enough() -> None:
    said: Json = {"reason": "too few"}
    assert screen_again(None, "v1", closed=0)
    assert not screen_again(("v1", 10, said), "v1", closed=10 + LEAST - 1)
    assert screen_again(("v1", 10, said), "v1", closed=10 + LEAST)
    assert not screen_again(("v1", 10, {"decisions": 60}), "v1", closed=10_000)
    assert screen_again(("v1", 10, {"decisions": 60}), "v2", closed=10)


def test_a_screening_finds_what_was_judged_under_any_number_of_newer_decisions(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screening, "NEWEST", 3)
    served(world, 5, reward=1.0, truth=1.0, seed=6)
    policy, reader = world.control.policy(*KEY), world.judge().reader
    every = reader.decisions(*KEY)[0]
    found = screening.newest_closed(reader, policy, until=every[2].seq, now_ms=AT)
    assert [joined.stored.seq for joined in found] == [stored.seq for stored in every[:3]]


def test_a_look_that_took_long_is_not_repeated_soon_unless_much_is_new() -> None:
    last = report.Analysis(closed=1_000, at_s=100.0, took_s=2.0, bias=None, body={})
    few, many = Desk(key=b"k", closed=1_010), Desk(key=b"k", closed=1_250)
    assert not report.is_due(last, few, now_s=139.9), "twenty times two seconds"
    assert report.is_due(last, few, now_s=140.0)
    assert report.is_due(replace(last, took_s=0.01), few, now_s=105.0), "a quick one after some quiet"
    assert report.is_due(last, many, now_s=100.0)
    assert not report.is_due(last, replace(few, closed=1_000), now_s=1e6), "nothing is new"
