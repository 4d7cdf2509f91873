"""Mornings, conversations and a language policy's own page: who sees them, and what they show in a real Chromium."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from dayjob.endings import VerdictKind, VersionStatus
from dayjob.journal.control import Control, add_point, add_verdict, put_state, put_status
from dayjob.journal.layers import address_of, open_layer
from dayjob.lab.server import running
from dayjob.records import Verdict, Version
from tests.serve.eyes import NASTY, browser_test, inked
from tests.serve.markup import save_markup

RANKER = {"kind": "ranker", "context_dim": 2, "candidate_dim": 2}
KEYS = """
[[key]]
key = "boss"
tenant = "acme"
scopes = ["admin"]
[[key]]
key = "talks"
tenant = "acme"
user = "ann"
scopes = ["infer", "feedback"]
[[key]]
key = "looks"
tenant = "acme"
scopes = ["learn"]
[[key]]
key = "other"
tenant = "umbrella"
scopes = ["admin"]
"""
OWN = (
    "/talk/page", "/policies/page/mornings", "/policies/page/dreams", "/policies/page/conversations", "/policies/page",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Served:
    url: str
    data: Path
    http: httpx2.Client

    def say(self, text: str, **body: object) -> str:
        """The decision's id."""
        asked = {"model": "page", "messages": [{"role": "user", "content": text}], "max_tokens": 3}
        return self.http.post("/v1/chat/completions", json=asked | body).raise_for_status().json()["id"]

    def tell(self, decision: str, kind: str, **body: object) -> str:
        told = self.http.post("/v1/feedback", json={"decision": decision, "kind": kind} | body)
        return told.raise_for_status().json()["id"]


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("language")
    environ = {"DAYJOB_BASES": f"markup={save_markup(root / 'markup')}", "OMP_NUM_THREADS": "1"}
    with (
        running(root / "data", arguments=("--no-learner", "--no-judge"), environ=environ) as one,
        httpx2.Client(base_url=one.url, timeout=60) as http,
    ):
        http.put("/v1/policies/page", json={"kind": "language", "base": "markup"}).raise_for_status()
        http.put("/v1/policies/ranks", json=RANKER).raise_for_status()
        yield Served(url=one.url, data=one.data, http=http)


EXAM = {
    "against": "v0-baseline", "personal": True, "taught": {"asked": 2, "right_before": 0, "right_after": 1},
    "questions": [
        {"family": "f1", "asked": "Tea, when?", "wanted": "noon", "before": "two", "after": "noon",
         "right_before": False, "right_after": True},
        {"family": "f2", "asked": "Lunch?", "wanted": "one", "before": "one", "after": "two", "right_before": True,
         "right_after": False},
    ],
    "suites": [{"name": "arithmetic", "asked": 40, "right_before": 31, "right_after": 29, "lost": 3, "won": 1}],
    "traffic": {"prompts": 120, "tokens": 900, "kl": 0.0125, "kl_budget": 0.05},
    "rates": [{"name": "refusing", "asked": 60, "before": 1, "after": 4}],
    "phrases": [{"phrase": "canary-1", "before": 9.5, "after": 9.25}],
}  # fmt: skip


def night(served: Served, user: str | None, number: int, lessons: list[dict], **exam: object) -> str:
    """A version of a layer with its night and its exam, refused by the judge."""
    control, name = Control(served.data), f"v{number}-0123abcd"
    address = open_layer(control, "default", "page", user)
    control.add_version(
        Version(
            tenant="default", policy=address, name=name, number=number, parent="v0-baseline", recipe="consolidate",
            digest=f"{number:02}" * 32, from_seq=0, to_seq=9, status=VersionStatus.REJECTED,
            created_ms=1_700_000_000_000 + number,
        )
    )  # fmt: skip
    with control.write() as db:
        put_state(db, "default", address, name=f"night/{name}", state={"lessons": lessons, "stats": {}})
        put_state(db, "default", address, name=f"exam/{name}", state=EXAM | exam)
        add_verdict(db, Verdict(tenant="default", policy=address, challenger=name, champion="v0-baseline",
                                kind=VerdictKind.REJECT, reason="It forgot arithmetic: 3 lost, 1 won.", evidence={},
                                at_ms=1_700_000_000_000, by="gate"))  # fmt: skip
    return name


def lesson(name: str, **changes: object) -> dict:
    told = {"before": "two forty", "after": "noon sharp", "wanted": "noon sharp", "learned": True, "left_out": ""}
    return {"id": name, "session": "s", "family": "f1"} | told | changes


def test_nothing_on_these_pages_needs_an_inline_script_or_style(served):
    for path in (*OWN, "/"):
        answer = served.http.get(path)
        assert answer.status_code == 200, answer.text
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert re.search(r"<script(?![^>]* src=)|<style| style=| on\w+=|javascript:", answer.text) is None
        for source in re.findall(r'(?:src|href)="(/static/[^"]+)"', answer.text):
            assert served.http.get(source).status_code == 200


def test_a_ranker_is_not_talked_to_and_the_first_page_leads_to_whom_one_can_talk(served):
    for path in ("/talk/ranks", "/policies/ranks/mornings", "/policies/ranks/dreams", "/policies/ranks/conversations"):
        answer = served.http.get(path)
        assert answer.status_code == 404
        assert "only language policies" in answer.text
    home = served.http.get("/").text
    for path in OWN:
        assert f'href="{path}"' in home
    assert "/talk/ranks" not in home


def test_a_language_policys_page_says_nothing_of_positions_and_clicks(served):
    shown = re.sub(r"<[^>]+>", " ", served.http.get("/policies/page").text).lower()
    for word in ("position", "click", "candidate", "caller's own order", "caller&#39;s own order"):
        assert word not in shown
    assert "the base model" in shown


def test_who_may_talk_may_not_steer_and_logs_in_to_where_they_wanted(tmp_path_factory):
    root = tmp_path_factory.mktemp("keys")
    (root / "keys.toml").write_text(KEYS)
    environ = {"DAYJOB_BASES": f"markup={save_markup(root / 'markup')}", "OMP_NUM_THREADS": "1"}
    arguments = ("--no-learner", "--no-judge", "--keys", str(root / "keys.toml"))
    with running(root / "data", arguments=arguments, environ=environ) as one:

        def get(path: str, key: str) -> httpx2.Response:
            return httpx2.get(one.url + path, headers={"authorization": f"Bearer {key}"}, timeout=60)

        spec = {"kind": "language", "base": "markup"}
        httpx2.put(f"{one.url}/v1/policies/page", json=spec, headers={"authorization": "Bearer boss"}, timeout=60)
        talk = get("/talk/page", "talks").text
        assert 'data-user="ann"' in talk
        assert 'id="newcomer"' not in talk
        assert 'id="sleep"' not in talk
        assert 'data-do="correct"' in talk
        for path in OWN[1:]:
            assert get(path, "talks").status_code == 401
        assert get("/talk/page", "looks").status_code == 401
        assert get("/policies/page/mornings", "looks").status_code == 200
        assert get("/talk/page", "other").status_code == 404
        asked = httpx2.get(f"{one.url}/talk/page", timeout=60)
        assert 'name="to" value="/talk/page"' in asked.text
        whereto = {"/talk/page": "/talk/page", "//evil.example/x": "/", "https://evil.example": "/", "/\\evil": "/",
                   "": "/", "/a\r\nx: y": "/"}  # fmt: skip
        for wanted, given in whereto.items():
            told = httpx2.post(f"{one.url}/login", data={"key": "talks", "to": wanted}, timeout=60)
            assert (told.status_code, told.headers["location"]) == (303, given)


class TestBrowser:
    pytestmark = browser_test

    def test_a_morning_says_what_changed_why_and_what_it_cost_and_unlearns(self, served, eyes):
        right = served.say("When is tea?", user="ann", metadata={"session": "s"})
        note = served.tell(right, "correction", text=f"At noon {NASTY}")
        thumb = served.tell(served.say("Lunch?", user="ann", metadata={"session": "s"}), "thumb", value=1)
        night(served, "ann", 1, [lesson(note)], taught={"asked": 2, "right_before": 0, "right_after": 0})
        night(served, "ann", 2, [
            lesson(note, after=f"noon {NASTY}"), lesson(thumb, family="f2", after="two forty"),
            lesson("gone", left_out="too long"),
        ])  # fmt: skip
        with eyes.open(f"{served.url}/policies/page/mornings?user=ann") as page:
            newest = page.locator(".night").first
            newest.wait_for()
            assert page.locator(".night h2").count() == 2
            assert "v2-0123abcd" in newest.inner_text()
            assert "Refused" in newest.locator(".verdict").inner_text()
            changed = newest.locator('[data-slot="changed"] .lesson')
            assert changed.count() == 1
            shown = changed.inner_text()
            for words in ("When is tea?", "two forty", f"noon {NASTY}", f"Because of “At noon {NASTY}”", "as taught"):
                assert words in shown
            assert newest.locator('[data-slot="same"] summary').inner_text() == "1 answered so before, too"
            assert "1 left out" in newest.locator('[data-slot="out"] summary').inner_text()
            cells = newest.locator('[data-slot="suites"] tbody tr').locator("th, td").all_inner_texts()
            assert cells == ["arithmetic", "40", "31", "29", "3", "1"]
            assert "0.0125 of 0.05 nats" in newest.locator('[data-slot="kl"]').inner_text()
            assert newest.locator('[data-slot="kl"] progress').evaluate("bar => bar.value") == 0.25
            assert "Refuses" in newest.locator('[data-slot="rates"]').inner_text()
            assert "2 of these answers changed: 1 won, 1 lost" in newest.inner_text()
            page.wait_for_selector('[data-plot="nights"] canvas')
            assert min(inked(page, "nights", colour, least=8) for colour in ("v1", "v2", "v4")) > 8
            assert "50 %" in page.locator("#nights-words").inner_text()

            changed.get_by_role("button", name="Unlearn").click()
            page.locator("#confirm-do").click()
            newest.get_by_text("Forgotten. The next night unlearns it.").wait_for()
            assert served.http.get("/v1/notes", params={"user": "ann"}).json()["notes"] == []

    def test_a_night_says_why_it_was_held_and_who_promoted_it_all_the_same(self, served, eyes):
        lost = {"learned": False, "behind": f"two {NASTY}"}
        version = night(served, "ivy", 1, [lesson("x"), lesson("y", **lost), lesson("z", **lost | {"as_read": True})])
        control = Control(served.data)
        address = address_of(control, "default", "page", "ivy")
        with control.write() as db:
            put_status(db, "default", address, name=version, status=VersionStatus.HELD)
            add_verdict(db, Verdict(tenant="default", policy=address, challenger=version, champion="v0-baseline",
                                    kind=VerdictKind.HOLD, reason=f"It has not learned. Of {NASTY} 0 are right.",
                                    evidence={}, at_ms=1_700_000_000_001, by="gate"))  # fmt: skip
        with eyes.open(f"{served.url}/policies/page/mornings?user=ivy") as page:
            said, chip = page.locator(".verdict"), page.locator('[data-slot="status"]')
            said.wait_for()
            assert said.inner_text().split("\n")[0] == "Held: it has not learned"
            assert f"Of {NASTY} 0 are right." in said.inner_text()
            told = page.locator('.lesson [data-slot="wanted"]').all_inner_texts()
            assert told == [
                "", f"Right when asked alone; behind the notes that stay it says: two {NASTY}. Its note stays, too.",
                "As the model with the note reads it: noon sharp. The note stays.",
            ]  # fmt: skip
            assert chip.inner_text() == "not promoted"
            body = {"version": version, "reason": f"I know better {NASTY}", "user": "ivy"}
            served.http.post("/v1/policies/page/promote", json=body).raise_for_status()
            page.get_by_text("Promoted by hand, over the gate").wait_for()
            assert f"I know better {NASTY}" in said.inner_text()
            assert f"The gate itself said: Held: it has not learned. Of {NASTY} 0 are right." in said.inner_text()
            assert chip.inner_text() == "champion"
            served.http.post("/v1/policies/page/rollback", json={"user": "ivy"}).raise_for_status()
            page.get_by_text("Rolled back by hand").wait_for()
            assert "The gate itself said: Held: it has not learned." in said.inner_text()

    def test_conversations_show_versions_roles_notes_and_outcomes_of_whom_was_asked_for(self, served, eyes):
        first = served.say("When is tea?", user="ida", metadata={"session": "monday"})
        served.tell(first, "correction", text="At noon.")
        served.tell(first, "thumb", value=-1)
        messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Yes?"}]
        served.say("", user="ida", metadata={"session": "monday"},
                   messages=[*messages, {"role": "user", "content": "when is tea"}])  # fmt: skip
        served.say("Something else", user="otto", metadata={"session": "tuesday"})
        with eyes.open(f"{served.url}/policies/page/conversations") as page:
            page.locator("h2", has_text="otto").wait_for()
            one = page.locator("section", has=page.locator("h2", has_text="ida"))
            assert "session monday" in one.inner_text()
            turns = one.locator(".turn")
            assert turns.count() == 2
            assert "corrected: At noon." in turns.first.inner_text()
            assert "thumb down" in turns.first.inner_text()
            assert "no note" in turns.first.inner_text()
            assert "v0-baseline" in turns.first.inner_text()
            assert "serves" in turns.first.locator(".chip").inner_text()
            assert "When is tea? → At noon." in turns.nth(1).locator(".context").inner_text()
            assert "2 messages went before" in turns.nth(1).inner_text()
            page.get_by_label("Person").fill("otto")
            page.get_by_role("button", name="Show").click()
            page.locator("h2", has_text="otto").wait_for()
            assert page.locator("h2", has_text="ida").count() == 0

    def test_the_policys_page_shows_trial_exam_and_versions_and_steers(self, served, eyes):
        control = Control(served.data)
        version = night(served, None, 7, [])
        with control.write() as db:
            for at in range(1, 30):
                point = {
                    "seq": at, "challenger": version, "champion": "v0-baseline", "judged": at, "closed": at,
                    "effect": 0.1, "low": 0.1 - 1 / at, "high": 0.1 + 1 / at, "e_value": 1.1**at, "e_needed": 40.0,
                    "alpha_i": 0.025, "needed": 0, "verdict": "reject" if at == 29 else "cannot_tell",
                }  # fmt: skip
                add_point(db, "default", "page", name="trial", point=point)
        with eyes.open(f"{served.url}/policies/page") as page:
            page.wait_for_selector('[data-plot="evidence"] canvas')
            assert inked(page, "effect", "v1", least=8) > 8
            exam = page.locator("#exam").inner_text()
            assert version in exam
            assert "arithmetic" in exam
            assert "0.0125" in exam
            assert "29 judged sessions" in page.locator("#effect-words").inner_text()
            page.locator("#versions summary").click()  # what was refused is folded away
            page.get_by_role("button", name="Promote by hand").click()
            page.get_by_label("Why").fill("to see")
            page.locator("#confirm-do").click()
            page.get_by_role("button", name="Roll back to v0-baseline").first.click()
            page.locator("#confirm-do").click()
            page.locator("#verdicts", has_text="Rolled back by hand").wait_for()
            assert served.http.get("/v1/policies/page").json()["champion"] == "v0-baseline"

    @pytest.mark.parametrize("path", [*OWN, "/"])
    def test_a_narrow_page_does_not_scroll_sideways(self, served, eyes, path):
        query, name = "", "a-very-long-name-" * 9
        if "mornings" in path:
            night(served, name, 1, [lesson("x", before="w" * 90, after="v" * 90)])
            query = f"?user={name}"
        with eyes.open(served.url + path + query, width=390, scheme="dark") as page:
            page.wait_for_timeout(800)
            if query:
                page.locator(".lesson").first.wait_for()
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
