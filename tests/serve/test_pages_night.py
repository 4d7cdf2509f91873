"""The whole story in a real Chromium, with the real learner and the real judge.

Correct the clerk, press Sleep: the note is gone and it still obeys; nobody else is concerned.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import httpx2
import pytest

from dayjob.lab.server import running
from tests.serve.eyes import browser_test
from tests.serve.talking import ask, be, teach, text
from tests.serve.timetable import THINGS, Timetable

pytestmark = [*browser_test, pytest.mark.timeout(900)]
NIGHT_MS = 600_000  # half a minute of processor time, however busy the machine
TAUGHT = ("tea", "training", "review")


@dataclass(frozen=True, kw_only=True)
class World:
    url: str
    http: httpx2.Client
    clerk: Timetable


@pytest.fixture(scope="module")
def world(timetable, tmp_path_factory) -> Iterator[World]:
    clerk, folder = timetable
    root, environ = tmp_path_factory.mktemp("night"), {"DAYJOB_BASES": f"words={folder}", "OMP_NUM_THREADS": "1"}
    with (
        running(root / "data", arguments=(), environ=environ) as one,
        httpx2.Client(base_url=one.url, timeout=60) as http,
    ):
        http.put("/v1/policies/clerk", json={"kind": "language", "base": "words"}).raise_for_status()
        yield World(url=one.url, http=http, clerk=clerk)
        one.stop()  # the learner and the judge end with it


def test_after_a_night_the_note_is_gone_and_it_still_obeys(world, eyes):
    clerk, keys = world.clerk, {name: THINGS.index(name) for name in TAUGHT}
    with eyes.open(f"{world.url}/talk/clerk") as page:
        for name, key in keys.items():
            turn = ask(page, f"When is {name}?")
            assert text(turn) == clerk.fact(key)
            teach(turn, clerk.rule(key))
        page.get_by_role("button", name="New conversation").click()
        for question in ("When is post?", "When is dinner?", "When is lunch?"):
            ask(page, question)  # the traffic of the day, which is to stay as it is
        page.get_by_role("button", name="Sleep").click()
        page.get_by_text("answers ann now").wait_for(timeout=NIGHT_MS)
        assert "Promoted" in page.locator("#night-now").inner_text()

        adapter = world.http.get("/v1/policies/clerk", params={"user": "ann"}).json()["adapter"]
        assert adapter["champion"].startswith("v1-")
        page.locator("#known-notes").wait_for()
        states = {note["asked"]: note["state"] for note in world.http.get("/v1/notes?user=ann").json()["notes"]}
        assert states["When is tea?"] == "retired"
        after = ask(page, "When is tea?")
        assert text(after) == clerk.rule(keys["tea"])
        assert "no note" in after.locator('[data-slot="noted"]').inner_text()
        assert after.locator('[data-slot="version"]').inner_text() == adapter["champion"]
        assert text(ask(page, "When is post?")) == clerk.fact(THINGS.index("post"))

        be(page, "bob")
        other = ask(page, "When is tea?")
        assert text(other) == clerk.fact(keys["tea"])
        assert other.locator('[data-slot="version"]').inner_text() == "v0-baseline"

        page.goto(f"{world.url}/policies/clerk/mornings?user=ann")
        changed = page.locator('[data-slot="changed"] .lesson', has_text="When is tea?")
        for words in (clerk.fact(keys["tea"]), clerk.rule(keys["tea"]), "as taught", "Because of"):
            assert words in changed.inner_text()
