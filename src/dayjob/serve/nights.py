"""What each night learned, which outcome taught it, and how to have a lesson unlearned.

A night's lessons are people's words: whoever may not read what a person said is told that something was learned, and of
which family, and no word of it.
"""

import asyncio
import hashlib
import uuid
from collections.abc import Sequence

from starlette.responses import Response

from dayjob.endings import Conflict, Erased, Forbidden, Invalid, NotFound, OutcomeKind, Overloaded, Receipt
from dayjob.journal.layers import address_of
from dayjob.journal.notes import TEACHING
from dayjob.journal.plain import iso
from dayjob.journal.writes import append_outcome
from dayjob.records import Json, Outcome, Verdict, Version, Written
from dayjob.serve.adapters import asked_user, language_only
from dayjob.serve.auth import Scope
from dayjob.serve.call import Call, answer
from dayjob.serve.notes import find_note
from dayjob.serve.views import verdict_view

MOST_NIGHTS = 100
_UNLEARNED = uuid.UUID("0d6cf6cb-7f2f-4f5e-8a3c-0b8c8d3f4e52")  # names the retraction of an outcome


async def list_nights(call: Call) -> Response:
    """The nights of the tenant's layer, or of a person's; newest first."""
    policy, user = call.path("name"), asked_user(call)
    language_only(call, policy)
    return answer({"nights": await asyncio.to_thread(_nights, call, policy, user)})


def _nights(call: Call, policy: str, user: str | None) -> list[Json]:
    control, tenant = call.hub.control, call.tenant
    address = address_of(control, tenant, policy, user)
    found = [version for version in control.versions(tenant, address) if version.number > 0][::-1][:MOST_NIGHTS]
    verdicts = {verdict.challenger: verdict for verdict in control.verdicts(tenant, address, limit=10 * MOST_NIGHTS)}
    readable = _Readable(call, policy, user)
    return [_night(call, version, verdicts.get(version.name), readable) for version in found]


def _night(call: Call, version: Version, verdict: Verdict | None, readable: "_Readable") -> Json:
    control, address = call.hub.control, (version.tenant, version.policy)
    told = control.state(*address, f"night/{version.name}") or {}
    lessons = list(told.get("lessons", ()))
    shown = readable.among(lessons)
    families = {lesson["family"] for lesson in lessons if lesson["id"] in shown}
    return {
        "version": version.name,
        "status": version.status.value,
        "recipe": version.recipe,
        "at": iso(version.created_ms),
        "parent": version.parent,
        "lessons": [_lesson(lesson, readable=lesson["id"] in shown) for lesson in lessons],
        "stats": told.get("stats", {}),
        "exam": _exam(control.state(*address, f"exam/{version.name}"), None if readable.all else families),
        "verdict": None if verdict is None else verdict_view(verdict),
    }


def _lesson(lesson: Json, *, readable: bool) -> Json:
    words = {name: lesson.get(name, "") if readable else None for name in ("asked", "before", "after", "wanted")}
    return {
        "id": lesson["id"],
        "session": (lesson.get("session") or None) if readable else None,
        "decision": lesson.get("decision") if readable else None,
        "family": lesson["family"],
        "left_out": lesson.get("left_out", ""),
        "learned": bool(lesson.get("learned")),
        **words,
    }


def _exam(exam: Json | None, families: set[str] | None) -> Json | None:
    """An exam, without the words of questions on other families than these (None: all)."""
    if exam is None or families is None:
        return exam
    silence = dict.fromkeys(("asked", "wanted", "before", "after"))
    questions = [one if one["family"] in families else one | silence for one in exam["questions"]]
    return exam | {"questions": questions}


class _Readable:
    """Which lessons of a layer's nights the key may read.

    All of them an admin key, and of a named person's nights a key that may speak for anybody. A key of one person: what
    that person taught and what everybody may know, for others' outcomes teach the tenant's layer and through it theirs.
    """

    def __init__(self, call: Call, policy: str, user: str | None) -> None:
        self._call = call
        own = call.principal.user
        self.all = Scope.ADMIN in call.principal.scopes or (own is None and user is not None)
        self._known: dict[str, bool] = {}
        if not self.all:
            notes, _ = call.service.notes.listed(call.tenant, policy, version="", user=own or "")
            self._known = {note.id: True for note in notes}

    def among(self, lessons: Sequence[Json]) -> set[str]:
        """The ids of those that may be read."""
        return {lesson["id"] for lesson in lessons if self.all or self._may(lesson["id"])}

    def _may(self, lesson: str) -> bool:
        if lesson not in self._known:
            own = self._call.principal.user
            stored = None if own is None else self._call.hub.reader.outcome(self._call.tenant, lesson)
            self._known[lesson] = stored is not None and stored.record.user == own
        return self._known[lesson]


async def delete_lesson(call: Call) -> Response:
    """Have a lesson unlearned by the next night: its note is deleted; an outcome that is no note is retracted."""
    lesson = call.path("id")
    try:
        note = await find_note(call)
    except NotFound:
        await _retract(call, lesson)
    else:
        await asyncio.to_thread(call.service.notes.delete, note, by=call.principal.key_id)
    return answer({"id": lesson, "deleted": True})


async def _retract(call: Call, lesson: str) -> None:
    """Take an outcome back, once however often it is asked for. Raises NotFound, and Forbidden for somebody else's."""
    stored = await asyncio.to_thread(call.hub.reader.outcome, call.tenant, lesson)
    # Of what teaches in words the lesson is its note: where that is gone, it is unlearned already.
    if stored is None or stored.record.kind in TEACHING:
        raise NotFound(f"there is no lesson {lesson!r}: GET /v1/policies/{{name}}/nights lists them")
    said = stored.record
    if call.principal.user not in (None, said.user):
        raise Forbidden("this lesson is somebody else's: use a key that may speak for that person")
    now_ms = call.hub.now_ms()
    outcome = Outcome(
        tenant=call.tenant, id=str(uuid.uuid5(_UNLEARNED, f"{call.tenant}\0{lesson}")),
        body_digest=hashlib.blake2b(lesson.encode(), digest_size=16).digest(), policy="", decision=said.decision,
        session=said.session if said.decision is None else None, kind=OutcomeKind.RETRACT, item=None, position=None,
        value=lesson, text=None, source="human", user=call.principal.user, at_ms=now_ms, received_ms=now_ms,
        key_id=call.principal.key_id,
    )  # fmt: skip
    written: Written = await call.hub.store.asubmit(lambda tx: append_outcome(tx, outcome))
    match written.receipt:
        case Receipt.RECORDED | Receipt.REPEATED:
            return
        case Receipt.ERASED:
            raise Erased(written.message)
        case Receipt.CROWDED:
            raise Overloaded(written.message)
        case Receipt.CONFLICT:
            raise Conflict(written.message)
        case _:
            raise Invalid(written.message, param="id")
