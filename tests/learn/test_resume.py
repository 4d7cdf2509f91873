"""What a learner reads is fixed when its job begins: killed and taken up under traffic, it makes the same weights.

And what it reads is bounded, and leaves out whoever does not want to teach.
"""

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from dayjob.cli.serve import assemble
from dayjob.config import Config
from dayjob.endings import JobState
from dayjob.journal import jobs
from dayjob.journal.control import Control
from dayjob.journal.readers import NEWEST, Reader
from dayjob.learn import collect as module
from dayjob.learn import loop
from dayjob.learn.collect import Collected, collect
from dayjob.learn.loop import Learner
from dayjob.learn.recipes import RECIPES, Debiased
from dayjob.records import Stored, Version
from dayjob.serve.app import create_app
from dayjob.serve.auth import parse_keys

DIM, K, POLICY, TENANT = 4, 4, "p", "acme"
KEYS = "\n".join(
    f'[[key]]\nkey = "{key}"\ntenant = "{TENANT}"\nscopes = ["admin"]\n' + (f'user = "{user}"\n' if user else "")
    for key, user in (("all", ""), ("ann-key", "ann"), ("bob-key", "bob"))
)
SPEC = {
    "kind": "ranker", "context_dim": DIM, "candidate_dim": DIM, "learn_every": 0, "outcome_window_s": 60,
    "recipe": "naive",
}  # fmt: skip


class World:
    """A server in this process whose clock we turn, and people who click by a common taste."""

    def __init__(self, root: Path, client: TestClient, service: Any) -> None:
        self.root, self.client, self.hub = root, client, service.hub
        self.dice = np.random.default_rng(3)
        self.taste_D = self.dice.standard_normal(DIM)
        self.clock_ms = 1_700_000_000_000
        self.hub.wall_ms = lambda: self.clock_ms
        self("PUT", f"/v1/policies/{POLICY}", SPEC)

    def __call__(self, method: str, path: str, body: Any = None, key: str = "all") -> Any:
        answer = self.client.request(method, path, json=body, headers={"Authorization": f"Bearer {key}"})
        assert answer.status_code < 300, answer.text
        return answer.json()

    def rank(self, user: str | None = None) -> tuple[str, str]:
        """A decision's id, and the item that people would choose."""
        self.clock_ms += 100
        vector_KD = self.dice.standard_normal((K, DIM)).round(3)
        items = [{"id": f"c{k}", "features": vector_KD[k].tolist(), "score": -float(k)} for k in range(K)]
        context = self.dice.standard_normal(DIM).round(3).tolist()
        body = {"policy": POLICY, "context": {"features": context}, "candidates": items, "user": user}
        return self("POST", "/v1/rank", body)["id"], f"c{int((vector_KD @ self.taste_D).argmax())}"

    def click(self, decision: str, item: str, key: str = "all") -> None:
        self("POST", "/v1/feedback", {"decision": decision, "kind": "click", "item": item}, key)

    def people(self, count: int) -> None:
        """Many come; most of them click at once, a few leave their decision open."""
        for n in range(count):
            decision, item = self.rank(f"u{n % 7}")
            if n % 5:
                self.click(decision, item)

    def read(self, **changes: Any) -> Collected:
        about = {"spec": SPEC | {"pair_dim": 0, "metric": "click"}, "until": NEWEST, "silent": set()} | changes
        return collect(self.hub.reader, TENANT, POLICY, **about)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    service = assemble(Config(data=tmp_path / "data", ballast_bytes=0), parse_keys(KEYS, source="test"))
    with TestClient(create_app(service), base_url="http://127.0.0.1") as client:
        yield World(tmp_path / "data", client, service)


class Killed(BaseException):
    """What no handler catches: the end of a process."""


def learn(root: Path, *, die: bool = False) -> Version:
    """One learner's try at the oldest job; the version it made. The dead keep no lease."""

    def told(_share: float) -> None:
        if die:
            raise Killed

    one = Learner(root, Control(root), Reader(root), threads=1, holder="test", told=told)
    try:
        assert one.step(watch_counts=False)
    finally:
        one.control.db().execute("DELETE FROM leases")
    return one.control.versions(TENANT, POLICY)[-1]


@pytest.mark.parametrize(("recipe", "people"), [("naive", 130), ("debiased", 230)])
def test_a_killed_learner_makes_the_same_weights_although_more_was_written_since(
    world: World, tmp_path: Path, recipe: str, people: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    smaller = Debiased(rank=8, ridges=(300.0,), folds=2, least_clicks=100)
    monkeypatch.setattr(loop, "RECIPES", RECIPES | {"debiased": smaller})
    world.people(people)
    still_open = [world.rank("late") for _ in range(3)]
    world("POST", f"/v1/policies/{POLICY}/learn", {"recipe": recipe})
    (job,) = jobs.unfinished(world.hub.control)
    world.hub.store.scrub().result()
    shutil.copytree(world.root, tmp_path / "undisturbed")
    expected = learn(tmp_path / "undisturbed")
    assert expected.number == 1

    began = world.hub.reader.last_seq()
    with pytest.raises(Killed):
        learn(world.root, die=True)
    for decision, item in still_open:
        world.click(decision, item)
    world.people(30)
    world.clock_ms += 3_600_000  # every window has ended since
    world.people(1)
    found = jobs.get_job(world.hub.control, TENANT, job.id)
    assert (found.state, found.until_seq) == (JobState.RUNNING, began)
    made = learn(world.root)
    assert (made.digest, made.to_seq) == (expected.digest, began)
    assert jobs.get_job(world.hub.control, TENANT, job.id).state is JobState.SUCCEEDED


def test_only_the_newest_decisions_are_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.people(60)
    everything, read = world.read(), []
    assert len(everything.replay) == 48, "those who never answered are open"
    pages = world.hub.reader.decisions

    def counted(*arguments: Any, **named: Any) -> tuple[Sequence[Stored], str]:
        page, cursor = pages(*arguments, **named)
        read.extend(page)
        return page, cursor

    monkeypatch.setattr(world.hub.reader, "decisions", counted)
    monkeypatch.setattr(module, "MOST", 20)
    few = world.read()
    assert (len(read), len(few.replay)) == (20, 16)
    assert few.replay.context_BD.tolist() == everything.replay.context_BD[-16:].tolist()
    assert few.from_seq == read[1].seq - 1, "the first of them was never answered"


def test_what_silent_people_say_with_their_own_key_teaches_nothing(world: World) -> None:
    for key in ("ann-key", "bob-key"):
        decision, item = world.rank()
        world.click(decision, item, key)
    world.click(*world.rank())
    found = world.read()
    assert (len(found.replay), found.users) == (3, {"ann", "bob"})
    world("PATCH", "/v1/users/ann", {"learn": False})
    found = world.read(silent=world.hub.control.silent_people())
    assert (len(found.replay), found.users) == (2, {"bob"})
    assert found.replay.click_B.min() >= 0, "no list is taken for one that nobody wanted anything of"


def test_what_killed_learners_left_behind_is_swept_by_age_when_a_learner_starts(world: World) -> None:
    """By age, for another learner may be at work; and versions that nobody wrote a row for, when no job is left."""
    folder = world.root / "versions" / TENANT / POLICY
    for name, hours in ((".tmp-v1-00000001-aa", 2), (".tmp-v2-00000002-bb", 0), ("v3-00000003", 2)):
        (folder / name).mkdir(parents=True)
        (folder / name / "weights.safetensors").write_bytes(b"half")
        then = time.time() - 3600 * hours
        os.utime(folder / name, (then, then))
    Learner(world.root, world.hub.control, world.hub.reader, threads=1, holder="test")
    assert {path.name for path in folder.iterdir()} == {".tmp-v2-00000002-bb"}


def test_no_checkpoint_outlives_its_job(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.people(20)
    work = world.root / "work"
    work.mkdir()
    job = world("POST", f"/v1/policies/{POLICY}/learn", {})["job"]
    for name in (f"{job}.safetensors", "gone.safetensors", "gone.safetensors.partial"):
        (work / name).write_bytes(b"weights")
    one = Learner(world.root, world.hub.control, world.hub.reader, threads=1, holder="test")
    assert [path.name for path in work.iterdir()] == [f"{job}.safetensors"]

    def fail(*_: object, **__: object) -> None:
        raise ArithmeticError("it diverged")

    monkeypatch.setattr(loop, "fit", fail)
    assert one.step(watch_counts=False)
    found = jobs.get_job(world.hub.control, TENANT, job)
    assert (found.state, "it diverged" in str(found.error)) == (JobState.FAILED, True)
    assert list(work.iterdir()) == []
