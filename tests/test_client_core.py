"""The client without sockets: the retry policy, what every call sends and how its answer is read."""

import base64
import dataclasses
import json
import random
import time
import uuid
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dayjob import client_answers, client_language
from dayjob import client_calls as calls
from dayjob.client_core import Backoff, Pause, Repeat, Reply, Request, delivered, may_repeat, seconds_asked
from dayjob.client_types import BadAnswer, Candidate, LanguageSpec, RankerSpec, new_id, pack
from dayjob.endings import Invalid, JobState
from dayjob.serve import answers, chat_wire, notes
from dayjob.serve import answers_language as spoken


def attempts(request: Request, replies: list[Reply], backoff: Backoff) -> tuple[list[float], Reply]:
    """The waits that a request sees when it is answered by ``replies`` in turn, and the reply it ends with."""

    def plan() -> Iterator[Any]:
        return (yield request)  # type: ignore[return-value]

    steps, waits, answer = delivered(plan(), backoff, dice=random.Random(0)), [], None  # type: ignore[arg-type]
    left = iter(replies)
    while True:
        try:
            step = steps.send(answer)
        except StopIteration as end:
            return waits, end.value
        if isinstance(step, Pause):
            waits.append(step.seconds)
            answer = None
        else:
            answer = next(left)


def test_waits_double_with_jitter_up_to_a_ceiling() -> None:
    backoff = Backoff(retries=6, first_s=0.1, longest_s=1.0)
    waits, reply = attempts(Request(method="GET", path="/"), [Reply(status=503)] * 6 + [Reply(status=200)], backoff)
    assert reply.status == 200
    wholes = [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert all(whole / 2 <= wait <= whole for wait, whole in zip(waits, wholes, strict=True))
    assert len({wait / whole for wait, whole in zip(waits, wholes, strict=True)}) == 6


@pytest.mark.parametrize(
    ("repeat", "again"),
    [
        (Repeat.SAFE, {"refused": True, "unknown": True, "final": False}),
        (Repeat.UNSENT, {"refused": True, "unknown": False, "final": False}),
        (Repeat.NEVER, {"refused": False, "unknown": False, "final": False}),
    ],
)
def test_what_is_repeated(repeat: Repeat, again: dict[str, bool]) -> None:
    replies = {
        "refused": [Reply(status=429), Reply(status=503), Reply(status=0, acted=False)],
        "unknown": [Reply(status=502), Reply(status=504), Reply(status=0)],
        "final": [Reply(status=500), Reply(status=507), Reply(status=409), Reply(status=422)],
    }
    request = Request(method="POST", path="/", repeat=repeat)
    assert {name: {may_repeat(request, reply) for reply in each} for name, each in replies.items()} == {
        name: {value} for name, value in again.items()
    }


@pytest.mark.parametrize(
    ("header", "seconds"), [(None, 0), ("7", 7), ("0.5", 0.5), ("-3", 0), ("nan", 0), ("soon", 0), ("", 0)]
)
def test_retry_after_as_number_or_nonsense(header: str | None, seconds: float) -> None:
    assert seconds_asked(header) == seconds


def test_retry_after_as_a_date() -> None:
    assert 70 < seconds_asked(formatdate(time.time() + 100, usegmt=True)) <= 100
    assert seconds_asked(formatdate(time.time() - 10, usegmt=True)) == 0


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=40))
def test_vectors_travel_as_little_endian_float32(numbers: list[float]) -> None:
    sent = np.frombuffer(base64.b64decode(pack(numbers, param="context")), dtype="<f4")
    np.testing.assert_array_equal(sent, np.array(numbers, dtype=np.float32))


def test_ids_are_uuid7_in_order_of_time() -> None:
    before = time.time_ns() // 1_000_000
    first = uuid.UUID(new_id())
    time.sleep(0.003)
    second = uuid.UUID(new_id())
    assert (first.version, first.variant) == (7, uuid.RFC_4122)
    assert before <= first.int >> 80 <= time.time_ns() // 1_000_000
    assert str(first) < str(second)
    assert len({new_id() for _ in range(10_000)}) == 10_000


POLICY = {
    "name": "geo",
    "kind": "ranker",
    "spec": {"context_dim": 2},
    "champion": "v0",
    "baseline": "v0",
    "frozen": False,
    "serves": "champion",
    "counts": {"decisions": 3, "outcomes": {"click": 2}},
}
REPORT = {
    "feedback": {"state": "too_few", "reason": "12 clicks", "share_at": [0.5, 0.5], "needed": 88},
    "gate": {"lag": 0},
    **{name: {} for name in ("bias", "people", "ceiling", "learning", "gaming", "drift", "exposure", "forgetting")},
    "made": "2026-11-20T09:00:00Z",
}
VERSION = {
    "version": "v1",
    "parent": "v0",
    "recipe": "debiased",
    "created": "2026-11-20T09:00:00Z",
    "digest": "1f2e3d4c",
    "journal_range": [0, 9],
    "status": "trial",
    "detail": {"steps": 4},
}
HELD = {"user": "u", "learn": False, "decisions": 1, "outcomes": 1, "versions": ["v1"], "held": {"decisions": [{}]}}
ERASED = {"user": "u", "decisions": 1, "outcomes": 1, "versions_tainted": ["v1"], "rebuilding": ["geo"], "learn": False}
RANKER = {"kind": "ranker", "context_dim": 2, "candidate_dim": 2, "hidden": [8]}
TALK = {"kind": "language", "base": "tiny"}
# call, its keywords, what the server answers, the line and the body that it must see
CONTRACT: list[tuple[tuple[Any, ...], dict[str, Any], Any, str, Any]] = [
    (
        ("put_policy", "geo", RankerSpec(context_dim=2, candidate_dim=2, hidden=(8,))),
        {},
        POLICY,
        "PUT /v1/policies/geo",
        RANKER,
    ),
    (("put_policy", "talk", LanguageSpec(base="tiny")), {}, {**POLICY, **TALK}, "PUT /v1/policies/talk", TALK),
    (
        ("put_policy", "talk", LanguageSpec(base="tiny", alpha=0.01, minimum_effect=0.02, learn_every=50)),
        {},
        {**POLICY, **TALK},
        "PUT /v1/policies/talk",
        {**TALK, "alpha": 0.01, "minimum_effect": 0.02, "learn_every": 50},
    ),
    (("policies",), {}, [POLICY], "GET /v1/policies", None),
    (("policy", "geo"), {}, POLICY, "GET /v1/policies/geo", None),
    (("versions", "geo"), {}, [VERSION], "GET /v1/policies/geo/versions", None),
    (("learn", "geo"), {"recipe": "naive"}, {"job": "j"}, "POST /v1/policies/geo/learn", {"recipe": "naive"}),
    (("dream", "geo"), {"budget": 3.0}, {"job": "j"}, "POST /v1/policies/geo/dream", {"budget": 3.0}),
    (("job", "j"), {}, {"state": "running", "progress": 0.5}, "GET /v1/jobs/j", None),
    (
        ("promote", "geo", "v1"),
        {"reason": "r"},
        POLICY,
        "POST /v1/policies/geo/promote",
        {"version": "v1", "reason": "r"},
    ),
    (("freeze", "geo"), {"serve": "baseline"}, POLICY, "POST /v1/policies/geo/freeze", {"serve": "baseline"}),
    (("unfreeze", "geo"), {}, POLICY, "POST /v1/policies/geo/unfreeze", {}),
    (("report", "geo"), {}, REPORT, "GET /v1/policies/geo/report", None),
    (("user", "u"), {}, HELD, "GET /v1/users/u", None),
    (("set_learning", "u"), {"learn": False}, HELD, "PATCH /v1/users/u", {"learn": False}),
    (("erase_user", "u"), {}, ERASED, "DELETE /v1/users/u", None),
    (("ready",), {}, {}, "GET /readyz", None),
]


def test_every_call_speaks_the_contract() -> None:
    results = {}
    for (name, *args), kwargs, answer, line, body in CONTRACT:
        plan = getattr(calls, name)(*args, **kwargs)
        request = next(plan)
        assert f"{request.method} {request.path}" == line
        assert (json.loads(request.body) if request.body else None) == body
        with pytest.raises(StopIteration) as end:
            plan.send(Reply(status=200, body=json.dumps(answer).encode()))
        results[name] = end.value.value
    assert results["job"].progress == 0.5
    assert results["job"].state is JobState.RUNNING
    assert results["report"].feedback.share_at == (0.5, 0.5)
    assert results["report"].gate == {"lag": 0}
    assert (results["report"].gaming, results["report"].made) == ({}, "2026-11-20T09:00:00Z")
    assert (results["user"].held, results["versions"][0].detail) == ({"decisions": [{}]}, {"steps": 4})
    assert (results["versions"][0].parent, results["versions"][0].journal_range) == ("v0", (0, 9))
    assert results["policies"][0].counts.outcomes == {"click": 2}
    assert results["erase_user"].versions_tainted == results["user"].versions == ("v1",)
    assert (results["erase_user"].rebuilding, results["erase_user"].trials_ended) == (("geo",), ())
    assert results["erase_user"].learn is False
    assert {results[name].champion for name in ("promote", "freeze", "unfreeze")} == {"v0"}
    assert (results["learn"].id, results["job"].id) == ("j", "j")
    assert results["ready"] is True


class Loaded(random.Random):
    """A dice that always falls on the same share of a wait."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self._share = share

    def uniform(self, a: float, b: float) -> float:
        return min(max(self._share, a), b)


def test_the_default_patience_outlasts_a_restart_of_the_server() -> None:
    backoff = Backoff()
    for dice, whole_s in ((0.5, 10.65), (1.0, 21.3)):  # .1 .2 .4 .8 1.6 3.2 5 5 5, or half of it
        waits = [backoff.wait_s(attempt, None, dice=Loaded(dice)) for attempt in range(backoff.retries)]
        assert sum(waits) == pytest.approx(whole_s)


@settings(max_examples=30)
@given(st.dictionaries(st.text(max_size=5), st.one_of(st.none(), st.integers(), st.text(max_size=5)), max_size=4))
def test_any_json_object_is_a_ranking_or_a_bad_answer(body: dict[str, Any]) -> None:
    plan = calls.rank("geo", [1.0])
    next(plan)
    with pytest.raises(BadAnswer):
        plan.send(Reply(status=200, body=json.dumps(body).encode()))


def test_scores_are_sent_for_all_candidates_or_for_none() -> None:
    three = [Candidate(id="a", score=-1), Candidate(id="b"), Candidate(id="c", score=-2)]
    with pytest.raises(Invalid, match="candidate 'b' has no score") as refused:
        next(calls.rank("geo", [1.0], candidates=three))  # before anything is sent
    assert refused.value.param == "candidates"
    assert next(calls.rank("geo", [1.0], candidates=[Candidate(id=one) for one in "ab"]))


def test_losses_are_one_square_matrix_for_all_candidates_or_none() -> None:
    rows = ([0, 2.5], [2.5, 0.0])
    both = [Candidate(id=name, features=[1.0], loss=row) for name, row in zip("ab", rows, strict=True)]
    sent = json.loads(next(calls.rank("geo", [1.0], candidates=both)).body or b"")
    assert sent["loss"] == [[0.0, 2.5], [2.5, 0.0]]
    assert all("loss" not in each for each in sent["candidates"])
    plain = Candidate(id="c", features=[1.0])
    assert "loss" not in json.loads(next(calls.rank("geo", [1.0], candidates=[plain])).body or b"")
    with pytest.raises(Invalid, match="'c' has none as its loss and there are 3 candidates"):
        next(calls.rank("geo", [1.0], candidates=[*both, plain]))
    with pytest.raises(Invalid, match="'a' has 2 numbers as its loss and there are 1"):
        next(calls.rank("geo", [1.0], candidates=both[:1]))
    with pytest.raises(Invalid, match="with a ranking, not with the catalog"):
        next(calls.put_catalog("geo", both))


# What the client gives back, and the published answer that it is made of.
RECORDS: list[tuple[type, type]] = [
    (client_answers.Ranking, answers.RankResponse),
    (client_answers.Ranked, answers.RankedItem),
    (client_answers.Receipt, answers.FeedbackReceipt),
    (client_answers.Counts, answers.Counts),
    (client_answers.Policy, spoken.PersonsPolicyView),
    (client_answers.Adapter, spoken.AdapterView),
    (client_answers.Version, answers.VersionView),
    (client_answers.Job, answers.JobView),
    (client_answers.FeedbackReport, answers.FeedbackReport),
    (client_answers.Report, answers.Report),
    (client_answers.UserRecord, answers.UserView),
    (client_answers.Erasure, answers.ErasedView),
    (client_language.ChatAnswer, chat_wire.ChatAnswer),
    (client_language.Model, get_args(chat_wire.ModelList.model_fields["data"].annotation)[0]),
    (client_language.Note, notes.NoteView),
    (client_language.NoteList, notes.NoteList),
    (client_language.Night, spoken.NightView),
    (client_language.Lesson, spoken.LessonView),
    (client_language.Dream, spoken.DreamView),
    (client_language.ConversationList, spoken.ConversationList),
    (client_language.Conversation, spoken.Conversation),
    (client_language.Said, spoken.SaidDecision),
    (client_language.Comparison, spoken.Compared),
    (client_language.ComparedToken, spoken.ComparedToken),
]
# Left out of a record: words that OpenAI's clients want and that say nothing here. Beside its answer: made of others.
LEFT_OUT = {"ChatAnswer": {"object", "created", "system_fingerprint"}, "Model": {"object", "created", "owned_by"}}
BESIDE = {"Job": {"job"}, "ChatAnswer": {"text", "ending"}}


@pytest.mark.parametrize(("record", "model"), RECORDS, ids=lambda one: one.__name__)
def test_a_record_has_every_field_of_the_published_answer(record: type, model: Any) -> None:
    """The server's tests hold its real answers to these models, field by field."""
    told = {each.name for each in dataclasses.fields(record)} - BESIDE.get(record.__name__, set())
    assert told == set(model.model_fields) - LEFT_OUT.get(record.__name__, set())


def test_every_record_of_the_client_is_compared() -> None:
    made = {one for module in (client_answers, client_language) for one in vars(module).values()
            if dataclasses.is_dataclass(one) and one.__module__ == module.__name__}  # fmt: skip
    assert made - {record for record, _ in RECORDS} == {client_language.ChatPiece}  # a line of a stream
