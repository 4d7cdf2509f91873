"""The speed lab measures what it says: nothing is stored below /empty, fresh vectors are fresh, errors are counted; a
mark is reached or not by its median; what is not installed is said to be absent."""

import asyncio
import sys
from pathlib import Path

import httpx2
import numpy as np
import pytest

from dayjob.client import Client
from dayjob.journal.readers import Reader
from dayjob.lab import speed_journal, speed_learner
from dayjob.lab import speed_world as world
from dayjob.lab.server import running
from dayjob.lab.speed_http import PROGRAM
from dayjob.lab.speed_load import _own
from dayjob.lab.speed_rows import row
from dayjob.lab.speed_server import EMPTY


def test_what_is_measured(tmp_path: Path) -> None:
    rng, data = np.random.default_rng(0), tmp_path / "data"
    world.declare(data, rng)
    version = world.publish_version(data, rng=rng)
    store = world.open_store(data)
    try:
        ids = world.copy_decisions(store, world.first_decision(data, world.SMALL), count=50)
    finally:
        store.close()
    bodies = world.feedback_bodies(tmp_path / "feedback.txt", ids).read_text().splitlines()
    inline = world.rank_bodies(tmp_path / "inline.txt", 1, inline=True, rng=rng).read_text().splitlines()
    catalog = world.rank_bodies(tmp_path / "catalog.txt", 5, inline=False, rng=rng).read_text().splitlines()
    with running(data, program=PROGRAM, arguments=()) as server, Client(server.url) as client:
        empty = asyncio.run(_own(f"{server.url}{EMPTY}/v1/feedback", bodies, connections=2, seconds=0.3))
        assert (empty.errors, client.policy(world.SMALL).counts.outcomes) == (0, {})
        told = asyncio.run(_own(f"{server.url}/v1/feedback", bodies, connections=2, seconds=0.3))
        assert (told.errors, client.policy(world.SMALL).counts.outcomes) == (0, {"click": told.requests})
        assert 0 < told.p50_ms <= told.p99_ms
        before = client.policy(world.POLICY).counts.decisions
        for lines in (inline, catalog):
            assert asyncio.run(_own(f"{server.url}/v1/rank", lines, connections=2, seconds=0.3)).errors == 0
        fresh = Reader(data).decisions("default", world.POLICY)[0][before:]
        contexts = [one.record.context for one in fresh]
        assert len(contexts) == len(set(contexts))
        vectors = [one.record.candidates[0].digest for one in fresh if one.record.candidates[0].id == "c0"]
        assert len(vectors) == len(set(vectors)) > 1
        refused = asyncio.run(_own(f"{server.url}/v1/rank", ["{}"], connections=1, seconds=0.1))
        assert refused.errors == refused.requests > 0
        assert client.promote(world.POLICY, version, reason="measured").champion == version
        assert httpx2.post(f"{server.url}{EMPTY}/v1/rank", content=b"{}").status_code == 415
        assert server.cpu_s() > 0


@pytest.mark.parametrize(
    ("values", "mark", "reached", "times"),
    [
        ((400.0, 600.0, 2_000.0), ">= 500", True, 1.2),
        ((400.0, 499.0, 2_000.0), ">= 500", False, 0.998),
        ((10.0, 50.0, 90.0), "<= 25", False, 0.5),
        ((0.0,), "<= 0", True, 1.0),
        ((1.0,), "<= 0", False, 0.0),
        ((2_000.0,), ">= 2,500", False, 0.8),
        ((3.0,), "", None, None),
        ((), ">= 3", None, None),
    ],
)
def test_a_mark_is_reached_by_the_median(
    values: tuple[float, ...], mark: str, reached: bool | None, times: float | None
) -> None:
    one = row("measure", values, unit="/s", mark=mark)
    assert (one.reached, one.times_the_mark) == (reached, times)
    assert one.to_line()[""] == {None: "", True: "reached", False: "**not reached**"}[reached]


def test_without_vowpal_wabbit_the_page_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vowpalwabbit", None)
    assert speed_learner.vowpal(None, range(5)) == ([], [])  # type: ignore[arg-type]
    told = speed_learner.LearnerSpeed(read=[1.0], trained={2: [1.0], 1: [1.0]}, whole={2: [9_000.0], 1: [1.0]})
    rows = {one.measure: one for one in speed_learner._rows(told, debiased=1.0)}
    absent = rows["learner, two threads / Vowpal Wabbit"]
    assert (absent.reached, absent.to_line()["median"], absent.note) == (None, "none", speed_learner.ABSENT)
    assert rows["learner 1026-256-256-1, journal to weights, one pass, two threads"].reached is True


def test_a_journal_grown_in_bulk_is_read_in_batches(tmp_path: Path) -> None:
    data = tmp_path / "data"
    world.declare(data, np.random.default_rng(0))
    store = world.open_store(data)
    try:
        world.grow(store, world.first_decision(data, world.SMALL), count=1_200)
    finally:
        store.close()
    assert Reader(data).counts("default", world.SMALL) == {"decisions": 1_201, "click": 1_200}
    page, _ = Reader(data).decisions("default", world.SMALL)
    assert len(Reader(data).outcomes("default", page[1:])) == len(page) - 1
    found = speed_journal.read_batches(data)
    assert found["batch_s"] > 0
    assert found["read_mb"] > 5
