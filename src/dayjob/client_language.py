"""The client's calls about language policies, written once as plans (see `dayjob.client_core`), and their records."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dayjob.client_calls import ask_json, listed_under, object_of, part, policy_path
from dayjob.client_core import Plan, Reply, Request, fail
from dayjob.client_types import Feedback, Json, absent, member, new_id, read, to_bytes
from dayjob.endings import NoteScope, NoteState, OutcomeKind, Role, VersionStatus

CHAT_PATH = "/v1/chat/completions"
DATA, DONE = "data: ", "[DONE]"
Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatAnswer:
    """A language policy's answer. ``id`` is the decision's; ``model`` is ``policy@version``."""

    id: str
    model: str
    text: str  # of the first choice
    ending: str  # "stop" or "length"
    choices: tuple[Json, ...]  # as OpenAI's
    usage: Json

    @property
    def version(self) -> str:
        """Which version answered."""
        return self.model.partition("@")[2]

    def thumb(self, value: int) -> Feedback:
        """The outcome "this was good" (1) or "this was bad" (-1), ready to be sent."""
        return Feedback(decision=self.id, kind="thumb", value=float(value))

    def correct(self, text: str) -> Feedback:
        """The outcome "this was wrong, or this is right", ready to be sent: it stands in the next answer's context."""
        return Feedback(decision=self.id, kind="correction", text=text)

    def demonstrate(self, text: str) -> Feedback:
        """The outcome "this should have been answered", ready to be sent."""
        return Feedback(decision=self.id, kind="demonstration", text=text)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatPiece:
    """More of an answer that is being written. The last piece of a choice has its ``ending`` and no text."""

    id: str  # the decision's
    model: str
    index: int  # of the choice
    text: str
    ending: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What a chat may name: a policy, or one of its versions."""

    id: str
    root: str  # the base model
    parent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What somebody taught, as it stands for the version that serves its person."""

    id: str
    policy: str
    scope: NoteScope
    state: NoteState
    user: str | None
    session: str | None
    decision: str | None
    kind: OutcomeKind
    asked: str
    answered: str
    text: str
    replaced_by: str | None
    support: int
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteList:
    """Notes, newest first; outcomes that make none, with the ``reason``; whether older ones were left out."""

    notes: tuple[Note, ...]
    refused: tuple[Json, ...]
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What a night made of one lesson. ``left_out``: why it was not learned; ``as_read``: ``wanted`` is what the model
    with the note reads, and nobody knows whether that was meant; ``behind``: the answer behind the notes that stay, None
    where there are none. Words are None where the key may not read them."""

    id: str
    session: str | None
    decision: str | None
    family: str
    left_out: str
    asked: str | None
    before: str | None
    after: str | None
    wanted: str | None
    behind: str | None
    learned: bool
    as_read: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """One night: the version it made, what it learned, and what was found of it. ``counts``: of all its lessons and
    questions, those included that the answer left out. ``verdict``: what was said of it last, by whomever;
    ``gate_verdict``: what the gate itself said last."""

    version: str
    status: VersionStatus
    recipe: str
    at: str
    parent: str | None
    lessons: tuple[Lesson, ...]
    counts: Json
    stats: Json
    exam: Json | None
    verdict: Json | None
    gate_verdict: Json | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dream:
    """A rehearsal in environments built from the record. ``version``: what came of it, None where nothing did;
    ``read`` and ``kept``: conversations that authors read, and that were kept from them; ``tokens``: what the learner
    read in ``episodes``; ``author``: what the authors cost."""

    job: str
    at: str
    at_ms: int
    budget: float  # of compute, times that of the night without
    read: int
    kept: int
    environments: tuple[Json, ...]  # admitted and rejected, with reasons and pass rates
    faults: tuple[str, ...]
    author: Json
    steps: int
    episodes: int
    turns: int
    tokens: int
    beside: int  # tokens of the night's own lessons and anchor that the same steps read
    version: str | None
    status: VersionStatus | None
    reason: str  # why there is no version
    transferred: Json | None  # real questions right before and after


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One answer in a conversation: what was asked, what was said, the ids of the notes in the context, and what came
    of it."""

    id: str
    at: str
    version: str
    role: Role
    messages: tuple[Json, ...]
    text: str
    notes: tuple[str, ...]
    outcomes: tuple[Json, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """The answers of one session, oldest first; whether older ones were left out."""

    session: str | None
    user: str | None
    more: bool
    decisions: tuple[Said, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationList:
    """Conversations, newest first; whether older ones were left out."""

    conversations: tuple[Conversation, ...]
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedToken:
    """Log-probabilities of one served token; ``with_notes`` is None where no note stood in the context."""

    text: str
    with_notes: float | None
    without_notes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """An answer's tokens under the prompt as it was read and the bare one, by the version that serves now."""

    version: str
    tokens: tuple[ComparedToken, ...]


# ---- chat --------------------------------------------------------------------------------------------------------


def chat(
    model: str,
    messages: Sequence[Message],
    *,
    user: str | None = None,
    session: str | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    id: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Plan[ChatAnswer]:
    """A whole answer. ``model``: ``policy``, ``policy@champion``, ``policy@baseline`` or ``policy@VERSION``.

    ``options``: any other field of OpenAI's request ("n", "top_p", "stop", "seed", "tools", ...). ``id`` is made here
    when absent, before anything is sent, so that every retry is the same decision. Raises ApiError, Unreachable.
    """
    body = _body(model, messages, user, session) | absent({"max_tokens": max_tokens, "temperature": temperature})
    body |= {"id": id or new_id()} | dict(options or {})
    told = object_of((yield from ask_json("POST", CHAT_PATH, body=body)), "an answer")
    choices = tuple(listed_under(told, "choices"))
    first = object_of(choices[0] if choices else None, "a choice")
    return read(
        ChatAnswer, told, choices=choices, text=object_of(first.get("message"), "a message").get("content") or "",
        ending=first.get("finish_reason"),
    )  # fmt: skip


def stream_request(
    model: str,
    messages: Sequence[Message],
    *,
    user: str | None = None,
    session: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Request:
    """The request of an answer that is told as it is written."""
    body = _body(model, messages, user, session) | dict(options or {}) | {"stream": True}
    return Request(method="POST", path=CHAT_PATH, body=to_bytes(body))


def pieces(request: Request, line: str) -> list[ChatPiece]:
    """What a line of a stream adds to the answer. Raises ApiError for a fault that came after the stream had begun."""
    if not line.startswith(DATA) or line == DATA + DONE:
        return []
    told = object_of(json.loads(line.removeprefix(DATA)), "an event")
    if "error" in told:
        fail(request, Reply(status=500, body=line.removeprefix(DATA).encode()), attempts=1)
    found = []
    for choice in listed_under(told, "choices"):
        text, ending = object_of(choice.get("delta"), "a delta").get("content") or "", choice.get("finish_reason")
        if text or ending is not None:
            found.append(read(ChatPiece, told, index=choice.get("index"), text=text, ending=ending))
    return found


def _body(model: str, messages: Sequence[Message], user: str | None, session: str | None) -> dict[str, Any]:
    metadata = None if session is None else {"session": session}
    asked = [dict(message) for message in messages]
    return absent({"model": model, "messages": asked, "user": user, "metadata": metadata})


def models(*, user: str | None = None) -> Plan[tuple[Model, ...]]:
    """What a chat may name; with ``user`` that person's own versions too."""
    found = yield from ask_json("GET", "/v1/models", query=absent({"user": user}))
    return tuple(read(Model, one) for one in listed_under(found, "data"))


def model(name: str) -> Plan[Model]:
    """One of them: a policy, or POLICY@VERSION. Raises NotFound for what no chat may name."""
    return read(Model, (yield from ask_json("GET", f"/v1/models/{part(name, param='name')}")))


# ---- notes -------------------------------------------------------------------------------------------------------


def notes(*, user: str | None = None, session: str | None = None, policy: str | None = None) -> Plan[NoteList]:
    """What was remembered of a person and by everybody, or in a session; with neither, all (needs an admin key)."""
    query = absent({"user": user, "session": session, "policy": policy})
    told = object_of((yield from ask_json("GET", "/v1/notes", query=query)), "notes")
    return NoteList(
        notes=tuple(_note(one) for one in listed_under(told, "notes")),
        refused=tuple(listed_under(told, "refused")),
        more=bool(told.get("more")),
    )


def _note(data: Any) -> Note:
    told = object_of(data, "a note")
    scope, state = member(NoteScope, told.get("scope")), member(NoteState, told.get("state"))
    return read(Note, told, scope=scope, state=state, kind=member(OutcomeKind, told.get("kind")))


def share_note(note: str, *, scope: str = "tenant") -> Plan[Note]:
    """Makes a note everybody's ("tenant"), or its owner's again ("user"). Needs an admin key."""
    return _note((yield from ask_json("PATCH", f"/v1/notes/{part(note, param='note')}", body={"scope": scope})))


def delete_note(note: str) -> Plan[bool]:
    """Forgets a note: it is in no context, and taught by no night, from now on."""
    told = object_of((yield from ask_json("DELETE", f"/v1/notes/{part(note, param='note')}")), "a note")
    return bool(told.get("deleted"))


# ---- nights and conversations ----------------------------------------------------------------------------------------


def nights(
    policy: str, *, user: str | None = None, limit: int | None = None, version: str | None = None
) -> Plan[tuple[Night, ...]]:
    """What each night learned, newest first: of the tenant's layer, or a person's; or the one that made a version."""
    query = absent({"user": user, "limit": None if limit is None else str(limit), "version": version})
    told = yield from ask_json("GET", policy_path(policy, "nights"), query=query)
    return tuple(
        read(
            Night, one, status=member(VersionStatus, one.get("status")),
            lessons=tuple(read(Lesson, lesson) for lesson in listed_under(one, "lessons")),
        )
        for one in listed_under(told, "nights")
    )  # fmt: skip


def dreams(policy: str, *, user: str | None = None, limit: int | None = None) -> Plan[tuple[Dream, ...]]:
    """What became of each dream, newest first: of the tenant's layer, or a person's."""
    query = absent({"user": user, "limit": None if limit is None else str(limit)})
    told = yield from ask_json("GET", policy_path(policy, "dreams"), query=query)
    return tuple(
        read(
            Dream, one, status=one.get("status") and member(VersionStatus, one["status"]),
            environments=tuple(listed_under(one, "environments")), faults=tuple(one.get("faults") or ()),
        )
        for one in listed_under(told, "dreams")
    )  # fmt: skip


def delete_lesson(lesson: str) -> Plan[bool]:
    """Has a lesson unlearned by the next night."""
    told = object_of((yield from ask_json("DELETE", f"/v1/lessons/{part(lesson, param='lesson')}")), "a lesson")
    return bool(told.get("deleted"))


def conversations(
    policy: str, *, user: str | None = None, session: str | None = None, limit: int | None = None
) -> Plan[ConversationList]:
    """Sessions with their answers, newest first: of a person, or everybody's (needs an admin key)."""
    query = absent({"user": user, "session": session, "limit": None if limit is None else str(limit)})
    told = object_of((yield from ask_json("GET", policy_path(policy, "conversations"), query=query)), "conversations")
    found = tuple(
        read(Conversation, one, decisions=tuple(_said(each) for each in listed_under(one, "decisions")))
        for one in listed_under(told, "conversations")
    )
    return ConversationList(conversations=found, more=bool(told.get("more")))


def _said(data: Any) -> Said:
    told = object_of(data, "an answer")
    lists = {name: tuple(listed_under(told, name)) for name in ("messages", "notes", "outcomes")}
    return read(Said, told, role=member(Role, told.get("role")), **lists)


def compare(decision: str) -> Plan[Comparison]:
    """What the notes in its context did to an answer, token by token."""
    told = yield from ask_json("GET", f"/v1/decisions/{part(decision, param='decision')}/compare")
    tokens = tuple(read(ComparedToken, one) for one in listed_under(told, "tokens"))
    return read(Comparison, told, tokens=tokens)
