"""The Dreams page, and `/dream` on the Talk page, in a real Chromium."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from dayjob.endings import JobState
from dayjob.journal.control import Control, add_point
from dayjob.journal.jobs import get_job, request_job, unfinished, update_job
from dayjob.journal.layers import address_of
from dayjob.lab.server import running
from dayjob.records import Job
from tests.serve.eyes import NASTY, browser_test
from tests.serve.markup import save_markup
from tests.serve.test_dreams_http import ENVIRONMENT, REJECTED

pytestmark = browser_test


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    root = tmp_path_factory.mktemp("dreams")
    environ = {"DAYJOB_BASES": f"markup={save_markup(root / 'markup')}", "OMP_NUM_THREADS": "1"}
    with running(root / "data", arguments=("--no-learner", "--no-judge"), environ=environ) as one:
        spec = {"kind": "language", "base": "markup"}
        httpx2.put(f"{one.url}/v1/policies/page", json=spec, timeout=60).raise_for_status()
        yield one.url, one.data


def test_a_dream_is_shown_with_what_held_what_did_not_and_why(served, eyes):
    url, data = served
    control = Control(data)
    job = request_job(control, "default", "page", recipe="dream-x4")
    faithful = {"agreed": 9, "claimed": 10, "interval": [0.596, 0.982]}
    rows = [ENVIRONMENT | {"faithful": faithful}, REJECTED | {"name": NASTY, "faithful": None}]
    point = {
        "job": job.id, "at_ms": 1_700_000_000_000, "budget": 4.0, "read": 20, "kept": 8, "environments": rows,
        "faults": ["its calls were spent"], "author": {}, "steps": 3, "episodes": 64, "turns": 128, "tokens": 9_000,
    }  # fmt: skip
    with control.write() as db:
        add_point(db, "default", "page", name="dreams", point=point)
    update_job(control, job, state=JobState.SUCCEEDED, progress=1.0, result={"challenger": None, "reason": "No gain."})
    with eyes.open(f"{url}/policies/page/dreams", width=390) as page:
        one = page.locator("#dreams .night")
        one.wait_for()
        shown = one.inner_text()
        for words in ("×4, from 20 conversations, 8 more kept for the proof", "No gain.", "64 attempts, 9000 tokens"):
            assert words in shown
        cells = [row.locator("th, td").all_inner_texts() for row in one.locator("tbody tr").all()]
        assert cells == [
            [
                "see: recorded",
                "offline",
                "yes, with 1 of the solution shown",
                "9 of 10 (59.6 % to 98.2 %)",
                "25 %",
                "75 %",
            ],
            [NASTY, "offline", "trivial: silence solves seed 3", "–", "–", "–"],
        ]
        assert "1 times an author handed in nothing of use" in one.locator("summary").inner_text()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.locator("#budget").fill("2")
        page.get_by_role("button", name="Dream", exact=True).click()
        page.get_by_text("Waiting for the learner.").wait_for()
        [asked] = unfinished(control)
        assert asked.recipe == "dream-x2"
        update_job(control, asked, state=JobState.FAILED, progress=1.0, error="the sandbox needs bwrap")
        page.get_by_text("The dream failed: the sandbox needs bwrap").wait_for()
        page.locator("#budget").fill("64")
        page.evaluate("document.querySelector('#budget').max = 100; document.querySelector('#budget').value = 65")
        page.get_by_role("button", name="Dream", exact=True).click()
        page.locator("#fault").wait_for()
        assert "budget" in page.locator("#fault").inner_text()
        eyes.problems[:] = [one for one in eyes.problems if "422" not in one]  # the refusal that was asked for


def begun(control: Control, *, within_s: float = 60.0) -> Job:
    """The job, once the page's request has made it."""
    deadline = time.monotonic() + within_s
    while not (found := unfinished(control)):
        assert time.monotonic() < deadline, "no job was made"
        time.sleep(0.05)
    [job] = found
    return job


def test_slash_dream_on_the_talk_page_asks_for_the_speaker_s_dream(served, eyes):
    url, data = served
    control = Control(data)
    with eyes.open(f"{url}/talk/page") as page:
        for typed, recipe in (("/dream", "dream-x1"), ("/dream x4", "dream-x4"), ("/DREAM 0.5", "dream-x0.5")):
            page.locator("#question").fill(typed)
            page.keyboard.press("Enter")
            page.locator("#night").wait_for()
            page.wait_for_function("document.querySelector('#sleep').disabled")
            job = begun(control)
            assert (job.policy, job.recipe) == (address_of(control, "default", "page", "ann"), recipe)
            result = {"challenger": None, "reason": "Nothing held."}
            update_job(control, job, state=JobState.SUCCEEDED, progress=1.0, result=result)
            page.get_by_text("Nothing was learned: Nothing held.").wait_for()
            page.wait_for_function("!document.querySelector('#sleep').disabled")
            assert get_job(control, "default", job.id).state is JobState.SUCCEEDED
        assert page.locator(".turn").count() == 0, "nothing of it went to the model"
