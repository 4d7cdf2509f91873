"""Nights, lessons, conversations and comparisons over the wire: what they say, and to whom."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from starlette.testclient import TestClient

from dayjob.endings import VerdictKind, VersionStatus
from dayjob.journal.control import add_verdict, put_state
from dayjob.journal.layers import address_of
from dayjob.journal.readers import Reader
from dayjob.records import Verdict
from dayjob.serve import answers_language as models
from dayjob.serve import conversations
from dayjob.serve import nights as nights_route
from dayjob.serve.app import create_app
from dayjob.serve.auth import parse_keys
from dayjob.serve.call import Service
from tests.journal.standing import mark_taught, stand
from tests.policies.language.worlds import BASE, World
from tests.serve.adapting import publish, serve_tiny
from tests.serve.asking import error_of
from tests.serve.chatting import HELLO, LANGUAGE

KEYS = """
[[key]]
key = "boss"
tenant = "default"
scopes = ["infer", "feedback", "learn", "admin"]
[[key]]
key = "ann"
tenant = "default"
user = "ann"
scopes = ["infer", "feedback", "learn"]
[[key]]
key = "bob"
tenant = "default"
user = "bob"
scopes = ["infer", "feedback", "learn"]
[[key]]
key = "app"
tenant = "default"
scopes = ["infer", "feedback", "learn"]
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make("qwen3", tmp_path_factory.mktemp("adapters"))


class Office:
    """A server in this process, and who may speak to it."""

    def __init__(self, client: TestClient, service: Service) -> None:
        self.client, self.service = client, service

    def __call__(self, key: str, method: str, path: str, body: Any = None, *, expect: int = 200) -> Any:
        told = self.client.request(method, path, json=body, headers={"Authorization": f"Bearer {key}"})
        assert told.status_code == expect, told.text
        return error_of(told, expect) if expect >= 400 else told.json()

    def ask(self, key: str = "app", text: str = "hello", session: str | None = None, **body: Any) -> str:
        if session is not None:
            body["metadata"] = {"session": session}
        asked = {"model": "clerk", "messages": [{"role": "user", "content": text}], "max_tokens": 4} | body
        return str(self(key, "POST", "/v1/chat/completions", asked)["id"])

    def tell(self, decision: str, kind: str, key: str = "app", **outcome: Any) -> str:
        said = {"decision": decision, "kind": kind} | outcome
        return str(self(key, "POST", "/v1/feedback", said, expect=201)["id"])

    def night(self, world: World, lessons: list[dict[str, Any]], *, user: str | None, exam: bool = True) -> str:
        """A version with what a learner and a judge say of it."""
        control = self.service.hub.control
        address = address_of(control, "default", "clerk", user)
        number = len(control.versions("default", address)) or 1
        name = publish(self.service, world, number, user=user, like=1)
        questions = [{"family": one["family"], "asked": "Q", "wanted": "W", "before": "B", "after": "W",
                      "right_before": False, "right_after": True} for one in lessons]  # fmt: skip
        verdict = Verdict(tenant="default", policy=address, challenger=name, champion="v0-baseline", reason="It holds.",
                          kind=VerdictKind.PROMOTE, evidence={}, at_ms=5, by="gate")  # fmt: skip
        with control.write() as db:
            told = {"lessons": lessons, "stats": {"steps": 3}}
            put_state(db, "default", address, name=f"night/{name}", state=told)
            if exam:
                sat = {"against": "v0-baseline", "questions": questions}
                put_state(db, "default", address, name=f"exam/{name}", state=sat)
                add_verdict(db, verdict)
        return name


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    service = serve_tiny(tmp_path, parse_keys(KEYS, source="test"))
    with TestClient(create_app(service), base_url="http://127.0.0.1") as client:
        one = Office(client, service)
        one("boss", "PUT", "/v1/policies/clerk", LANGUAGE, expect=201)
        yield one


def lesson(name: str, family: str = "f1", **changes: Any) -> dict[str, Any]:
    return {"id": name, "session": "s1", "decision": "d1", "family": family, "left_out": "", "asked": "q",
            "before": "old", "after": "new", "wanted": "new", "behind": None, "learned": True,
            "as_read": False} | changes  # fmt: skip


def nights(office: Office, key: str, **query: str) -> list[dict[str, Any]]:
    told = office(key, "GET", "/v1/policies/clerk/nights?" + "&".join(f"{a}={b}" for a, b in query.items()))
    return [one.model_dump(mode="json") for one in models.NightList.model_validate_json(_json(told)).nights]


def _json(value: Any) -> bytes:
    return orjson.dumps(value)


def words(night: dict[str, Any]) -> list[str | None]:
    return [one["after"] for one in night["lessons"]]


def test_nights_say_what_was_learned_newest_first(office, world):
    assert nights(office, "boss") == []
    first = office.night(world, [lesson("o1"), lesson("o2", left_out="too long", after="", learned=False)], user=None)
    second = office.night(world, [], user=None, exam=False)
    newest, oldest = nights(office, "boss")
    assert (newest["version"], oldest["version"]) == (second, first)
    assert (newest["exam"], newest["verdict"], newest["lessons"]) == (None, None, [])
    assert (oldest["status"], oldest["recipe"], oldest["parent"]) == ("waiting", "consolidate", "v0-baseline")
    assert oldest["stats"] == {"steps": 3}
    assert oldest["verdict"]["reason"] == "It holds."
    assert [one["asked"] for one in oldest["exam"]["questions"]] == ["Q", "Q"]
    assert oldest["lessons"][0] == lesson("o1")
    assert oldest["lessons"][1]["left_out"] == "too long"
    office("boss", "GET", "/v1/policies/nothing/nights", expect=404)
    office("boss", "PUT", "/v1/policies/geo", {"kind": "ranker", "context_dim": 1, "candidate_dim": 1}, expect=201)
    office("boss", "GET", "/v1/policies/geo/nights", expect=422)


def test_what_people_said_is_told_to_whom_it_may_be(office, world):
    """Of the tenant's nights to admins; of a person's to who speaks for them, and to the person their own words and
    everybody's, not what others' thumbs taught the tenant's layer."""
    anns, bobs, shared = (office.ask(user=user, text=text) for user, text in (("ann", "a"), ("bob", "b"), ("cem", "c")))
    mine, theirs = office.tell(anns, "thumb", value=1), office.tell(bobs, "thumb", value=-1)
    everybodys = office.tell(shared, "correction", text="At nine.")
    office("boss", "PATCH", f"/v1/notes/{everybodys}", {"scope": "tenant"})
    told = [lesson(mine, "m"), lesson(theirs, "t"), lesson(everybodys, "e")]
    office.night(world, told, user=None)
    office.night(world, told, user="ann")
    (night,) = nights(office, "boss")
    assert words(night) == ["new", "new", "new"]
    (night,) = nights(office, "app")
    assert words(night) == [None, None, "new"]
    hidden = night["lessons"][0]
    assert {hidden[name] for name in ("session", "decision", "asked", "before", "wanted")} == {None}
    assert [one["learned"] for one in night["lessons"]] == [True, True, True]
    assert [one["asked"] for one in night["exam"]["questions"]] == [None, None, "Q"]
    assert [one["right_after"] for one in night["exam"]["questions"]] == [True, True, True]
    for key, seen in (("app", ["new", "new", "new"]), ("boss", ["new", "new", "new"]), ("ann", ["new", None, "new"])):
        (night,) = nights(office, key, user="ann")
        assert words(night) == seen, key
    assert nights(office, "ann") == nights(office, "ann", user="ann")
    assert nights(office, "bob") == []
    office("bob", "GET", "/v1/policies/clerk/nights?user=ann", expect=403)


def test_nights_are_told_as_many_as_asked_for_or_the_one_that_made_a_version(office, world, monkeypatch):
    names = [office.night(world, [lesson("o1")], user=None) for _ in range(12)][::-1]
    assert [one["version"] for one in nights(office, "boss")] == names[:10]
    assert [one["version"] for one in nights(office, "boss", limit="2")] == names[:2]
    assert len(nights(office, "boss", limit="100")) == 12
    monkeypatch.setattr(nights_route, "VERDICTS", 1)
    (oldest,) = nights(office, "boss", version=names[-1], limit="1")  # its verdict, however many came after it
    assert (oldest["version"], oldest["verdict"]["reason"]) == (names[-1], "It holds.")
    assert nights(office, "boss", version="v0-baseline") == []
    office("boss", "GET", "/v1/policies/clerk/nights?version=v9-nothing", expect=404)
    office("boss", "GET", f"/v1/policies/clerk/nights?user=ann&version={names[0]}", expect=404)
    for limit in ("0", "101", "-1", "x"):
        office("boss", "GET", f"/v1/policies/clerk/nights?limit={limit}", expect=422)


def test_a_nights_lessons_and_questions_are_cut_and_counted(office, world, monkeypatch):
    told = [lesson(f"o{n}", learned=n % 2 == 0) for n in range(250)]
    office.night(world, told, user=None)
    (night,) = nights(office, "boss")
    assert [one["id"] for one in night["lessons"]] == [f"o{n}" for n in range(200)]
    assert len(night["exam"]["questions"]) == 200
    assert night["counts"] == {
        "lessons": 250, "learned": 125, "lessons_omitted": 50,
        "questions": 250, "right_before": 0, "right_after": 250, "questions_omitted": 50,
    }  # fmt: skip
    office.night(world, [lesson("long", after="x" * 9_000), *told[:60]], user=None)
    monkeypatch.setattr(nights_route, "BUDGET", 16_000)
    newest, oldest = nights(office, "boss")
    assert all(len(_json(one["lessons"])) < 5_000 for one in (newest, oldest))
    assert (newest["lessons"][0]["id"], newest["counts"]["lessons"]) == ("o0", 61)
    assert newest["counts"]["lessons_omitted"] == 61 - len(newest["lessons"]) > 1
    assert newest["counts"]["questions_omitted"] == 61 - len(newest["exam"]["questions"])
    monkeypatch.setattr(nights_route, "MOST_SHARE", 5_000)
    (alone,) = nights(office, "boss", limit="1")  # however few are asked for
    assert 1 < len(alone["lessons"]) < len(newest["lessons"])


def test_whose_lessons_are_is_asked_once_for_all_of_them(office, world, monkeypatch):
    mine = office.tell(office.ask(user="ann"), "thumb", value=1)
    for _ in range(2):
        office.night(world, [lesson(mine), *(lesson(f"o{n}") for n in range(250))], user=None)
    asked: list[int] = []
    real = Reader.told_by

    def told_by(self: Reader, tenant: str, user: str, *, outcomes: list[str]) -> set[str]:
        asked.append(len(outcomes))
        return real(self, tenant, user, outcomes=outcomes)

    monkeypatch.setattr(Reader, "told_by", told_by)
    monkeypatch.setattr(Reader, "outcome", None)
    office.night(world, [lesson(mine), lesson("o1")], user="ann")
    for night in nights(office, "ann"):
        assert words(night) == ["new", None]
    assert asked == [2]
    asked.clear()
    layer = office.service.hub.control.versions("default", "clerk")
    assert len(layer) == 3
    for night in nights(office, "app"):  # speaks for nobody in particular: no outcome is its own
        assert not any(words(night))
    assert asked == []


def test_a_tainted_versions_night_keeps_no_words(office, world):
    name = office.night(world, [lesson("o1")], user=None)
    control = office.service.hub.control
    mark_taught(control, "default", "clerk", name, marks=[control.mark_of("default", "ann")])
    office("boss", "DELETE", "/v1/users/ann")
    (night,) = nights(office, "boss")
    assert (night["status"], night["lessons"], night["exam"]) == (VersionStatus.TAINTED.value, [], None)
    assert control.state("default", "clerk", f"exam/{name}") is None


def test_a_lesson_that_is_a_note_is_deleted_and_any_other_is_retracted(office):
    decision = office.ask(user="ann")
    note, thumb = office.tell(decision, "correction", text="At nine."), office.tell(decision, "thumb", value=-1)
    for other in (note, thumb):
        office("bob", "DELETE", f"/v1/lessons/{other}", expect=403)
    assert office("ann", "DELETE", f"/v1/lessons/{note}") == {"id": note, "deleted": True}
    assert office("boss", "GET", "/v1/notes")["notes"] == []
    office("ann", "DELETE", f"/v1/lessons/{note}", expect=404)  # and what it replaced is not brought back
    for _ in range(2):
        assert office("ann", "DELETE", f"/v1/lessons/{thumb}") == {"id": thumb, "deleted": True}
    (said,) = office("boss", "GET", "/v1/policies/clerk/conversations?user=ann")["conversations"]
    kinds = [(one["kind"], one["value"]) for one in said["decisions"][0]["outcomes"]]
    assert kinds == [("correction", None), ("thumb", -1), ("retract", thumb)]  # once, however often it was asked for
    office("boss", "DELETE", "/v1/lessons/nothing", expect=404)


def test_conversations_are_sessions_newest_first(office):
    one = office.ask(user="ann", session="s1", text="first")
    alone = office.ask(user="ann", text="alone")
    two = office.ask(user="ann", session="s1", text="second")
    bobs = office.ask(user="bob", session="s2", text="bob's")
    said = office.tell(one, "correction", text="At nine.")
    whole = office("app", "POST", "/v1/feedback", {"session": "s1", "kind": "thumb", "value": 1}, expect=201)["id"]

    def listed(key: str = "app", query: str = "user=ann") -> list[dict[str, Any]]:
        told = office(key, "GET", f"/v1/policies/clerk/conversations?{query}")
        return [
            one.model_dump(mode="json")
            for one in models.ConversationList.model_validate_json(_json(told)).conversations
        ]

    session, single = listed()
    assert (session["session"], session["user"]) == ("s1", "ann")
    assert [each["id"] for each in session["decisions"]] == [one, two]
    assert [each["id"] for each in single["decisions"]] == [alone]
    first, last = session["decisions"]
    assert first["messages"] == [{"role": "user", "content": "first"}]
    assert (first["version"], first["role"], first["notes"]) == ("v0-baseline", "champion", [])
    assert [each["id"] for each in first["outcomes"]] == [said]
    assert [(each["id"], each["kind"], each["value"]) for each in last["outcomes"]] == [(whole, "thumb", 1.0)]
    noted = office.ask(user="ann", session="s3", text="first")
    assert listed()[0]["decisions"][0]["notes"] == [said]
    everybody = [each["decisions"][-1]["id"] for each in listed("boss", "")]
    assert everybody == [noted, bobs, two, alone]
    assert [each["decisions"][-1]["id"] for each in listed("boss", "limit=2")] == [noted, bobs]
    assert [each["session"] for each in listed("boss", "session=s2")] == ["s2"]
    assert [each["user"] for each in listed("bob", "")] == ["bob"]
    assert listed("bob", "session=s1") == []
    office("bob", "GET", "/v1/policies/clerk/conversations?user=ann", expect=403)
    office("app", "GET", "/v1/policies/clerk/conversations", expect=403)
    for limit in ("0", "101", "-1", "x", "²", "9" * 40):
        office("boss", "GET", f"/v1/policies/clerk/conversations?limit={limit}", expect=422)


def talks(office: Office, key: str = "boss", query: str = "") -> models.ConversationList:
    told = office(key, "GET", f"/v1/policies/clerk/conversations?{query}")
    return models.ConversationList.model_validate_json(_json(told))


def test_conversations_are_told_newest_first_until_the_budget_is_spent(office, monkeypatch):
    ids = [office.ask(user="ann", session="s1", text=f"{n} {'x' * 60}") for n in range(3)]
    alone = office.ask(user="ann", text="alone")
    whole = talks(office)
    assert [len(one.decisions) for one in whole.conversations] == [1, 3]
    assert [one.more for one in whole.conversations] + [whole.more] == [False, False, False]
    reader = office.service.hub.reader
    sizes = {}
    for place in reader.places("default", "clerk"):
        stored, size = reader.text("default", "clerk", place.seq)
        sizes[place.id] = size + conversations.AROUND
        generation = stored.record.generation
        assert (generation.prompt_ids, generation.choices[0].token_ids) == (b"", b"")  # no tokens are read
        kept = reader.decision("default", place.id).record.generation
        assert (generation.messages, generation.choices[0].text) == (kept.messages, kept.choices[0].text)
    monkeypatch.setattr(conversations, "BUDGET", sizes[alone] + sizes[ids[2]] + sizes[ids[1]])
    some = talks(office)
    assert [each.id for each in some.conversations[1].decisions] == ids[1:]
    assert [one.more for one in some.conversations] + [some.more] == [False, True, False]
    monkeypatch.setattr(conversations, "BUDGET", 1)
    least = talks(office)  # what was said last, whatever its length
    assert [[each.id for each in one.decisions] for one in least.conversations] == [[alone]]
    assert least.more
    for _ in range(3):  # what was said of it counts too
        office.tell(ids[2], "correction", text="y" * 200)
    monkeypatch.setattr(conversations, "BUDGET", sizes[alone] + sizes[ids[2]] + 500)
    assert len(talks(office).conversations) == 1


def test_a_listing_walks_past_no_more_than_it_may(office, monkeypatch):
    office("boss", "PUT", "/v1/policies/other", LANGUAGE, expect=201)
    rare = office.ask(user="ann", session="day")
    for n in range(6):
        office.ask(user="bob", session="bobs", text=f"{n}")
    monkeypatch.setattr(conversations, "PAGE", 2)
    monkeypatch.setattr(conversations, "MOST_WALKED", 4)
    anns = talks(office, query="user=ann")  # found by name, not by looking through everybody's
    assert [[each.id for each in one.decisions] for one in anns.conversations] == [[rare]]
    bobs = talks(office, query="user=bob")
    assert [one.user for one in bobs.conversations] == ["bob"]
    assert 1 < len(bobs.conversations[0].decisions) < 6
    assert (bobs.conversations[0].more, bobs.more) == (True, True)
    for _ in range(5):
        office.ask(user="ann", model="other")
    assert talks(office, query="user=ann") == models.ConversationList(conversations=[], more=True)
    monkeypatch.setattr(conversations, "MOST_WALKED", 100)
    anns = talks(office, query="user=ann&limit=1")  # what another policy said takes no place
    assert ([[each.id for each in one.decisions] for one in anns.conversations], anns.more) == ([[rare]], False)
    monkeypatch.setattr(conversations, "LONGEST", 3)
    (cut,) = talks(office, query="user=bob&session=bobs").conversations
    assert [each.messages[0]["content"] for each in cut.decisions] == ["3", "4", "5"]
    assert cut.more
    assert talks(office, query="user=bob&limit=1").more is False
    office.ask(user="bob")
    assert talks(office, query="user=bob&limit=1").more is True


@pytest.mark.parametrize("route", [conversations, nights_route])
def test_people_wait_for_nobodys_json(office, route, monkeypatch):
    """What may be megabytes is not written by the thread that serves everybody."""
    real, loops = route.answer, []

    def answer(value: Any) -> Any:
        try:
            loops.append(asyncio.get_running_loop())
        except RuntimeError:
            loops.append(None)
        return real(value)

    monkeypatch.setattr(route, "answer", answer)
    office("boss", "GET", f"/v1/policies/clerk/{'nights' if route is nights_route else 'conversations'}")
    assert loops == [None]


def test_a_comparison_scores_the_served_tokens_with_and_without_the_notes(office, world):
    bare = office.ask(user="ann", text="When?")
    office.tell(bare, "correction", text="At nine.")
    noted = office.ask(user="ann", text="When?")
    told = office("app", "GET", f"/v1/decisions/{noted}/compare")
    assert models.Compared.model_validate_json(_json(told)).version == "v0-baseline"
    stored = office.service.hub.reader.decision("default", noted)
    assert stored is not None
    generation = stored.record.generation
    assert generation is not None
    ids = tuple(np.frombuffer(generation.choices[0].token_ids, "<u4").tolist())
    for name, packed in (("with_notes", generation.prompt_ids), ("without_notes", generation.bare_ids)):
        prompt = tuple(np.frombuffer(packed, "<u4").tolist())
        found = [one[name] for one in told["tokens"]]
        assert np.allclose(found, world.logprobs(BASE, prompt, ids).numpy(), atol=1e-3), name
    tokens = office.service.voices.bases["tiny"].tokens
    assert [one["text"] for one in told["tokens"]] == [tokens.text((token,)) for token in ids]
    plain = office("app", "GET", f"/v1/decisions/{bare}/compare")["tokens"]
    assert {one["with_notes"] for one in plain} == {None}
    assert all(one["without_notes"] < 0 for one in plain)
    office("bob", "GET", f"/v1/decisions/{noted}/compare", expect=403)
    missing = office("boss", "GET", "/v1/decisions/nothing/compare", expect=404)
    assert "GET /v1/policies/NAME/conversations lists it" in missing["message"]


def test_a_comparison_is_by_the_version_that_wrote_the_answer_and_where_that_is_gone_by_its_persons(office, world):
    own = publish(office.service, world, 1, user="ann")
    office("boss", "POST", "/v1/policies/clerk/promote", {"version": own, "reason": "try", "user": "ann"})
    decision = office.ask(user="ann", text="When?")
    newer = publish(office.service, world, 2, user="ann")
    office("boss", "POST", "/v1/policies/clerk/promote", {"version": newer, "reason": "try", "user": "ann"})
    told = office("ann", "GET", f"/v1/decisions/{decision}/compare")
    assert told["version"] == own
    control = office.service.hub.control
    address = address_of(control, "default", "clerk", "ann")
    stand(control, "default", address, [own], VersionStatus.TAINTED)
    assert office("ann", "GET", f"/v1/decisions/{decision}/compare")["version"] == newer
    stored = office.service.hub.reader.decision("default", decision)
    assert stored is not None
    generation = stored.record.generation
    assert generation is not None
    prompt, ids = (
        tuple(np.frombuffer(packed, "<u4").tolist())
        for packed in (generation.prompt_ids, generation.choices[0].token_ids)
    )
    found = [one["without_notes"] for one in told["tokens"]]
    assert np.allclose(found, world.logprobs(world.adapters[0], prompt, ids).numpy(), atol=1e-3)


# ---- learning --------------------------------------------------------------------------------------------------------


def test_learning_is_of_a_persons_layer_or_of_all_of_them(office):
    control = office.service.hub.control

    def queued() -> list[str]:
        return sorted(str(row[0]) for row in control.db().execute("SELECT policy FROM jobs"))

    anns, bobs = (address_of(control, "default", "clerk", user) for user in ("ann", "bob"))
    job = office("app", "POST", "/v1/policies/clerk/learn", {"user": "ann"}, expect=202)["job"]
    assert queued() == [anns]
    assert office("ann", "POST", "/v1/policies/clerk/learn", {}, expect=202) == {"job": job}
    assert office("ann", "GET", f"/v1/jobs/{job}")["state"] == "queued"
    office("bob", "GET", f"/v1/jobs/{job}", expect=404)
    office("bob", "POST", "/v1/policies/clerk/learn", {}, expect=202)
    assert queued() == sorted([anns, bobs])
    office("app", "PATCH", "/v1/users/bob", {"learn": False})
    control.db().execute("DELETE FROM jobs")
    shared = office("app", "POST", "/v1/policies/clerk/learn", {}, expect=202)["job"]
    assert queued() == sorted([anns, "clerk"])  # and nothing for who is not learned from
    assert control.db().execute("SELECT policy FROM jobs WHERE id=?", (shared,)).fetchone() == ("clerk",)
    said = office("bob", "POST", "/v1/policies/clerk/learn", {}, expect=409)["message"]
    assert "learn" in said
    office.ask("bob")  # served all the same
    office("boss", "POST", "/v1/policies/clerk/freeze", {})
    office("app", "POST", "/v1/policies/clerk/learn", {"user": "ann"}, expect=409)


def test_a_base_that_is_gone_and_a_rankers_user_are_said(office):
    office("boss", "PUT", "/v1/policies/geo", {"kind": "ranker", "context_dim": 1, "candidate_dim": 1}, expect=201)
    assert "everybody" in office("app", "POST", "/v1/policies/geo/learn", {"user": "ann"}, expect=422)["message"]
    office("app", "POST", "/v1/policies/geo/learn", {}, expect=202)
    office("boss", "POST", "/v1/policies/geo/rollback", {"user": "ann"}, expect=422)
    office.service.voices.bases.pop("tiny")
    assert "[bases.tiny]" in office("app", "POST", "/v1/policies/clerk/learn", {}, expect=503)["message"]


def test_notes_say_how_they_stand_for_the_version_that_serves_their_person(office, world):
    """Learned and verified by Ann's own version: retired for her, active for a version that knows nothing."""
    note = office.tell(office.ask(user="ann"), "correction", text="At nine.")
    shared = office.tell(office.ask(user="bob", text="And when not?"), "correction", text="At noon.")
    office("boss", "PATCH", f"/v1/notes/{shared}", {"scope": "tenant"})
    own = publish(office.service, world, 1, user="ann")
    memory = office.service.notes
    memory.learned("default", "clerk", version=own, notes=[note, shared])
    memory.verified("default", "clerk", version=own, right=[note, shared], wrong=[])

    def states(query: str) -> dict[str, str]:
        return {one["id"]: one["state"] for one in office("boss", "GET", f"/v1/notes?{query}")["notes"]}

    assert states("user=ann") == {note: "active", shared: "active"}
    office("boss", "POST", "/v1/policies/clerk/promote", {"version": own, "reason": "try", "user": "ann"})
    assert states("user=ann") == {note: "retired", shared: "retired"}
    assert states("user=bob") == {shared: "active"}
    assert states("") == {note: "retired", shared: "active"}
    office.ask(user="ann", messages=HELLO)
    office("boss", "POST", "/v1/policies/clerk/freeze", {"serve": "baseline"})
    assert states("user=ann") == {note: "active", shared: "active"}
