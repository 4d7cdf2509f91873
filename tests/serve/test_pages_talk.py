"""Talk in a real Chromium, with a real model that obeys notes: corrected, obeyed, compared and slept over."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from dayjob.endings import JobState, VerdictKind, VersionStatus
from dayjob.journal.control import Control, add_verdict, put_state
from dayjob.journal.jobs import get_job, update_job
from dayjob.journal.layers import address_of
from dayjob.lab.server import running
from dayjob.records import Verdict, Version
from tests.serve.eyes import LOOK, NASTY, browser_test
from tests.serve.markup import SAYS, save_markup
from tests.serve.talking import ask, be, teach, text
from tests.serve.timetable import THINGS, Timetable

pytestmark = browser_test
TEA, LUNCH = THINGS.index("tea"), THINGS.index("lunch")
NIGHT_MS = 600_000  # half a minute of processor time, however busy the machine
TAUGHT = ("tea", "training", "review")


@dataclass(frozen=True, kw_only=True)
class World:
    """A server with two language policies: ``clerk`` answers, ``page`` says nothing but markup."""

    url: str
    data: Path
    http: httpx2.Client
    clerk: Timetable

    def said(self, user: str, policy: str = "clerk") -> list[dict]:
        """The newest conversation of a person, as the journal has it."""
        found = self.http.get(f"/v1/policies/{policy}/conversations", params={"user": user}).raise_for_status().json()
        return found["conversations"][0]["decisions"]

    def notes(self, user: str) -> list[dict]:
        return self.http.get("/v1/notes", params={"user": user}).raise_for_status().json()["notes"]


@pytest.fixture(scope="module")
def world(timetable, tmp_path_factory) -> Iterator[World]:
    clerk, folder = timetable
    root = tmp_path_factory.mktemp("talk")
    environ = {"DAYJOB_BASES": f"words={folder},markup={save_markup(root / 'markup')}", "OMP_NUM_THREADS": "1"}
    with (
        running(root / "data", arguments=("--no-learner", "--no-judge"), environ=environ) as one,
        httpx2.Client(base_url=one.url, timeout=60) as http,
    ):
        for name, base in (("clerk", "words"), ("page", "markup")):
            http.put(f"/v1/policies/{name}", json={"kind": "language", "base": base}).raise_for_status()
        yield World(url=one.url, data=one.data, http=http, clerk=clerk)


def test_a_correction_is_obeyed_from_its_note_by_nobody_else_and_until_it_is_deleted(world, eyes):
    clerk, right = world.clerk, world.clerk.rule(TEA)
    with eyes.open(f"{world.url}/talk/clerk") as page:
        first = ask(page, "When is tea?")
        assert text(first) == clerk.fact(TEA) != right
        assert "no note" in first.locator('[data-slot="noted"]').inner_text()
        assert first.locator('[data-slot="role"]').inner_text() == "serves"
        first.get_by_role("button", name="Correct").press("Enter")
        page.keyboard.type(right)
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        first.get_by_text("Noted.").wait_for()
        note = page.locator("#notes .note")
        assert right in note.inner_text()
        assert "in the context" in note.inner_text()
        assert [each["text"] for each in world.notes("ann")] == [right]

        page.get_by_role("button", name="New conversation").click()
        second = ask(page, "what time is tea?")
        assert text(second) == right
        assert "1 note" in second.locator('[data-slot="noted"]').inner_text()
        assert f"When is tea? → {right}" in second.locator('[data-slot="context"]').inner_text()

        page.get_by_role("button", name="bob", exact=True).click()
        assert page.locator("#notes .note").count() == 0, "not even for a moment"
        page.locator("#no-notes").wait_for()
        assert text(ask(page, "When is tea?")) == clerk.fact(TEA)

        page.get_by_role("button", name="ann", exact=True).click()
        page.locator("#notes .note").get_by_role("button", name="Delete").click()
        page.locator("#confirm-do").click()
        page.locator("#no-notes").wait_for()
        assert world.notes("ann") == []
        page.get_by_role("button", name="New conversation").click()
        assert text(ask(page, "When is tea?")) == clerk.fact(TEA)


def test_a_conversation_goes_on_after_a_reload_and_a_new_one_forgets_it(world, eyes):
    with eyes.open(f"{world.url}/talk/clerk") as page:
        be(page, "ora")
        ask(page, "When is lunch?")
        ask(page, "When is tea?")
        assert [each["content"] for each in world.said("ora")[-1]["messages"]] == [
            "When is lunch?", world.clerk.fact(LUNCH), "When is tea?",
        ]  # fmt: skip
        page.reload()
        page.locator(".turn:visible").nth(1).locator('[data-slot="noted"]').wait_for()
        asked = page.locator('.turn:visible [data-slot="asked"]').all_inner_texts()
        assert asked == ["When is lunch?", "When is tea?"]
        ask(page, "When is post?")
        assert len(world.said("ora")[-1]["messages"]) == 5
        page.get_by_role("button", name="New conversation").click()
        ask(page, "When is post?")
        assert len(world.said("ora")[-1]["messages"]) == 1


def test_the_tokens_that_the_notes_decide_are_marked_and_no_others(world, eyes):
    first, second = world.clerk.rule(LUNCH).split()
    with eyes.open(f"{world.url}/talk/clerk") as page:
        be(page, "una")
        before = ask(page, "When is lunch?")
        before.get_by_role("button", name="Teacher and student").click()
        before.locator(".token").first.wait_for()
        assert "No note stood in" in before.locator(".compare").inner_text()
        assert before.locator(".token.differs").count() == 0
        before.get_by_role("button", name="Show how").click()
        assert before.locator("textarea").input_value() == world.clerk.fact(LUNCH)
        before.locator("textarea").fill(world.clerk.rule(LUNCH))
        before.get_by_role("button", name="Teach", exact=True).click()
        before.get_by_text("Noted.").wait_for()
        assert world.said("una")[-1]["outcomes"][-1]["kind"] == "demonstration"

        page.locator("#notes").get_by_role("button", name="Ask it").click()
        after = page.locator(".turn:visible").nth(1)
        after.locator('[data-slot="noted"]').wait_for()
        after.get_by_role("button", name="Teacher and student").click()
        after.locator(".token").first.wait_for()
        words = [each.locator(".word").inner_text() for each in after.locator(".token.differs").all()]
        assert words[:2] == [first, second]
        marks = after.locator(".token.differs .mark").all_inner_texts()
        assert all(re.fullmatch(r"[×÷][\d,.e+]+", mark) for mark in marks)
        assert "at least twice" in after.locator('[data-case="said"]').inner_text()
        after.get_by_role("button", name="Teacher and student").click()
        assert not after.locator(".compare").is_visible()


def test_a_thumb_is_recorded_and_the_same_once_more_takes_it_back(world, eyes):
    with eyes.open(f"{world.url}/talk/clerk") as page:
        be(page, "tom")
        turn = ask(page, "When is tea?")
        good = turn.get_by_role("button", name="Good")
        good.click()
        turn.get_by_text("Recorded.").wait_for()
        assert good.get_attribute("aria-pressed") == "true"
        (thumb,) = world.said("tom")[-1]["outcomes"]
        assert (thumb["kind"], thumb["value"]) == ("thumb", 1)
        page.reload()
        good = page.locator(".turn:visible").get_by_role("button", name="Good")
        good.and_(page.locator('[aria-pressed="true"]')).wait_for()
        good.click()
        page.get_by_text("Taken back.").wait_for()
        assert good.get_attribute("aria-pressed") == "false"
        assert {each["kind"] for each in world.said("tom")[-1]["outcomes"]} <= {"thumb", "retract"}


def test_what_the_model_and_people_write_is_shown_as_text(world, eyes):
    with eyes.open(f"{world.url}/talk/page") as page:
        be(page, NASTY)
        turn = ask(page, NASTY)
        assert SAYS[1][:20] in text(turn)
        assert "</article>" in text(turn)
        turn.get_by_role("button", name="Correct").click()
        page.keyboard.type(NASTY)
        turn.get_by_role("button", name="Teach", exact=True).click()
        page.locator("#notes .note", has_text=NASTY).or_(page.locator("#refused:visible")).first.wait_for()
        turn.get_by_role("button", name="Teacher and student").click()
        turn.locator(".token").first.wait_for()
        assert NASTY in page.locator("#people").inner_text()
        assert page.locator("main img, main script").count() == 0
        for path in ("conversations", "mornings"):
            page.goto(f"{world.url}/policies/page/{path}")
            page.wait_for_timeout(300)
            assert page.locator("main img, main script").count() == 0
        page.goto(f"{world.url}/policies/page/conversations")
        page.locator("h2", has_text=NASTY).wait_for()
        assert SAYS[1][:20] in page.locator(".turn .text").first.inner_text()


def test_what_goes_wrong_is_said_where_it_was_asked(world, eyes):
    with eyes.open(f"{world.url}/talk/clerk") as page:
        page.get_by_label("Message").fill("tea " * 600)
        page.keyboard.press("Enter")
        turn = page.locator(".turn:visible").first
        turn.get_by_text("maximum context length").wait_for()
        page.route("**/v1/chat/completions", lambda _: None)  # an answer that does not come
        page.get_by_label("Message").fill("When is tea?")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Stop").click()
        page.locator(".turn:visible").nth(1).get_by_text("Stopped.").wait_for()
        assert page.get_by_role("button", name="Send").is_enabled()
        assert "422" in " ".join(eyes.problems)
        eyes.problems.clear()


# ---- a night, with its rows as the learner and the judge write them --------------------------------------------------


def lesson_row(world: World, user: str) -> dict:
    (note,) = world.notes(user)
    told = {"before": note["answered"], "after": note["text"], "wanted": note["text"], "learned": True}
    return {"id": note["id"], "session": note["session"], "family": "f", "left_out": ""} | told


def learned(world: World, address: str, number: int, *, lessons: list[dict]) -> str:
    """A version of a layer, as a learner leaves it."""
    control, name = Control(world.data), f"v{number}-0123abcd"
    control.add_version(
        Version(
            tenant="default", policy=address, name=name, number=number, parent="v0-baseline", recipe="consolidate",
            digest="01" * 32, from_seq=0, to_seq=9, status=VersionStatus.WAITING, created_ms=1_700_000_000_000,
        )
    )  # fmt: skip
    with control.write() as db:
        put_state(db, "default", address, name=f"night/{name}", state={"lessons": lessons, "stats": {}})
    return name


def judged(world: World, address: str, version: str, *, kind: VerdictKind, reason: str) -> None:
    """What the judge does with it."""
    control = Control(world.data)
    promoted = kind is VerdictKind.PROMOTE
    status = VersionStatus.CHAMPION if promoted else VersionStatus.REJECTED
    with control.write() as db:
        db.execute("UPDATE versions SET status=? WHERE policy=? AND name=?", (status.value, address, version))
        add_verdict(db, Verdict(tenant="default", policy=address, challenger=version, champion="v0-baseline", kind=kind,
                                reason=reason, evidence={}, at_ms=1_700_000_000_000, by="gate"))  # fmt: skip
    if promoted:
        control.move("default", address, change={"champion": version, "previous": "v0-baseline"})


def sleep(page) -> None:
    """Press Sleep; the job is there."""
    with page.expect_response("**/learn"):
        page.get_by_role("button", name="Sleep").click()
    page.get_by_text("Waiting for the learner").wait_for()


def test_sleep_asks_for_this_persons_night_and_says_what_became_of_it(world, eyes):
    control = Control(world.data)
    with eyes.open(f"{world.url}/talk/clerk") as page:
        be(page, "eve")
        turn = ask(page, "When is tea?")
        turn.get_by_role("button", name="Correct").click()
        page.keyboard.type("noon sharp")
        turn.get_by_role("button", name="Teach", exact=True).click()
        turn.get_by_text("Noted.").wait_for()

        sleep(page)
        address = address_of(control, "default", "clerk", "eve")
        (job,) = [one for one in jobs_of(control) if one.policy == address]
        update_job(control, job, state=JobState.RUNNING, progress=0.4)
        page.get_by_text("Learning.").wait_for()
        page.locator("#night-share", has_text="40 %").wait_for()
        page.reload()  # a night goes on, whoever looks
        page.get_by_text("Learning.").wait_for()
        assert page.get_by_role("button", name="Sleep").is_disabled()
        page.get_by_role("button", name="bob", exact=True).click()
        assert not page.locator("#night").is_visible()
        page.get_by_role("button", name="eve", exact=True).click()

        version = learned(world, address, 1, lessons=[lesson_row(world, "eve")])
        update_job(control, job, state=JobState.SUCCEEDED, progress=1.0, result={"challenger": version})
        page.get_by_text(f"{version} is learned. Waiting for the gate.").wait_for()
        judged(world, address, version, kind=VerdictKind.PROMOTE, reason=f"It holds {NASTY}.")
        page.get_by_text(f"{version} answers eve now.").wait_for()
        said = page.locator("#night-end").inner_text()
        assert NASTY in said
        assert "1 of 1 lessons learned" in said
        page.get_by_text("New conversation: the model sees nothing").wait_for()
        page.get_by_text(f"Answered by {version}, eve's own.").wait_for()
        page.get_by_role("link", name="The morning report").click()
        page.locator(".night", has_text=version).wait_for()
        assert page.locator("#whose-title").inner_text() == "Nights of eve"


def test_a_night_that_runs_is_shown_to_whoever_looks_and_told_once(world, eyes):
    """Nothing of it is in this browser: it was begun elsewhere."""
    control = Control(world.data)
    begun = world.http.post("/v1/policies/clerk/learn", json={"user": "ann"}).raise_for_status().json()["job"]
    job = get_job(control, "default", begun)
    update_job(control, job, state=JobState.RUNNING, progress=0.4)
    with eyes.open(f"{world.url}/talk/clerk") as page:
        page.locator("#night-share", has_text="40 %").wait_for()
        assert page.locator("#night-now").inner_text() == "Learning."
        assert page.get_by_role("button", name="Sleep").is_disabled()
        page.get_by_role("button", name="bob", exact=True).click()
        assert not page.locator("#night").is_visible()
        page.get_by_role("button", name="ann", exact=True).click()
        update_job(control, job, state=JobState.SUCCEEDED, progress=1.0, result={"reason": "nothing was taught"})
        page.get_by_text("Nothing was learned: nothing was taught").wait_for()
        page.evaluate(LOOK)
        assert page.get_by_text("Nothing was learned: nothing was taught").is_visible()
        again = world.http.post("/v1/policies/clerk/learn", json={"user": "ann"}).raise_for_status().json()["job"]
        page.get_by_text("Waiting for the learner").wait_for()
        job = get_job(control, "default", again)
        update_job(control, job, state=JobState.SUCCEEDED, progress=1.0, result={"reason": "still nothing"})
        page.get_by_text("Nothing was learned: still nothing").wait_for()


def jobs_of(control: Control) -> list:
    rows = control.db().execute("SELECT tenant, id FROM jobs")
    return [get_job(control, *row) for row in rows]


def test_a_night_that_fails_or_is_refused_says_so(world, eyes):
    control = Control(world.data)
    with eyes.open(f"{world.url}/talk/clerk") as page:
        be(page, "max")
        sleep(page)
        address = address_of(control, "default", "clerk", "max")
        (job,) = [one for one in jobs_of(control) if one.policy == address]
        update_job(control, job, state=JobState.FAILED, progress=1.0, error=f"no memory {NASTY}: give it more")
        page.get_by_text(f"The night failed: no memory {NASTY}: give it more").wait_for()

        sleep(page)
        again = next(one for one in jobs_of(control) if one.policy == address and one.id != job.id)
        version = learned(world, address, 1, lessons=[])
        judged(world, address, version, kind=VerdictKind.REJECT, reason="It forgot arithmetic.")
        update_job(control, again, state=JobState.SUCCEEDED, progress=1.0, result={"challenger": version})
        page.get_by_text(f"{version}: Refused").wait_for()
        assert "It forgot arithmetic." in page.locator("#night-end").inner_text()
        page.get_by_text("v0-baseline goes on answering max.").wait_for()

        world.http.post("/v1/policies/clerk/freeze", json={"serve": "champion"}).raise_for_status()
        page.get_by_role("button", name="Sleep").click()
        page.locator("#night-now", has_text="is frozen").wait_for()
        world.http.post("/v1/policies/clerk/unfreeze", json={}).raise_for_status()
        assert "409" in " ".join(eyes.problems)
        eyes.problems.clear()


# ---- the whole story, with the real learner and the real judge


@pytest.fixture(scope="module")
def awake(timetable, tmp_path_factory) -> Iterator[World]:
    """A server that learns, with its clerk."""
    clerk, folder = timetable
    root, environ = tmp_path_factory.mktemp("night"), {"DAYJOB_BASES": f"words={folder}", "OMP_NUM_THREADS": "1"}
    with (
        running(root / "data", arguments=(), environ=environ) as one,
        httpx2.Client(base_url=one.url, timeout=60) as http,
    ):
        http.put("/v1/policies/clerk", json={"kind": "language", "base": "words"}).raise_for_status()
        yield World(url=one.url, data=one.data, http=http, clerk=clerk)
        one.stop()  # the learner and the judge end with it


@pytest.mark.timeout(900)
def test_after_a_night_the_note_is_gone_and_it_still_obeys(awake, eyes):
    clerk, keys = awake.clerk, {name: THINGS.index(name) for name in TAUGHT}
    with eyes.open(f"{awake.url}/talk/clerk") as page:
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

        adapter = awake.http.get("/v1/policies/clerk", params={"user": "ann"}).json()["adapter"]
        assert adapter["champion"].startswith("v1-")
        page.locator("#known-notes").wait_for()
        states = {note["asked"]: note["state"] for note in awake.http.get("/v1/notes?user=ann").json()["notes"]}
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

        page.goto(f"{awake.url}/policies/clerk/mornings?user=ann")
        changed = page.locator('[data-slot="changed"] .lesson', has_text="When is tea?")
        for words in (clerk.fact(keys["tea"]), clerk.rule(keys["tea"]), "as taught", "Because of"):
            assert words in changed.inner_text()
