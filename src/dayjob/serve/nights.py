"""What each night learned, which outcome taught it, and how to have a lesson unlearned.

A night's lessons are people's words: whoever may not read what a person said is told that something was learned, and of
which family, and no word of it.
"""

import asyncio
import hashlib
import uuid
from collections.abc import Sequence

import orjson
from starlette.responses import Response

from dayjob.endings import Conflict, Erased, Forbidden, Invalid, NotFound, OutcomeKind, Overloaded, Receipt
from dayjob.journal.layers import address_of
from dayjob.journal.notes import TEACHING
from dayjob.journal.plain import iso
from dayjob.journal.writes import append_outcome
from dayjob.records import Json, Outcome, Verdict, Version, Written
from dayjob.serve.adapters import asked_limit, asked_user, language_only
from dayjob.serve.auth import Scope
from dayjob.serve.call import Call, answer
from dayjob.serve.notes import find_note
from dayjob.serve.views import verdict_view

MOST_NIGHTS = 100
USUAL = 10
MOST_TOLD = 200  # lessons, and questions, of one night
BUDGET = 4 << 20  # bytes of lessons and questions in one answer: an equal share for each night
MOST_SHARE = BUDGET // 8  # of one night, however few are asked for
GATE = "gate"  # who says a verdict that nobody else does
VERDICTS = 10  # read for each night: one may be held several times
_UNLEARNED = uuid.UUID("0d6cf6cb-7f2f-4f5e-8a3c-0b8c8d3f4e52")  # names the retraction of an outcome


async def list_nights(call: Call) -> Response:
    """The nights of the tenant's layer, or of a person's, newest first; or the one that made a version."""
    policy, user = call.path("name"), asked_user(call)
    language_only(call, policy)
    limit = asked_limit(call, most=MOST_NIGHTS, usual=USUAL)
    return await asyncio.to_thread(_nights, call, policy, user, version=call.query("version") or None, limit=limit)


def _nights(call: Call, policy: str, user: str | None, *, version: str | None, limit: int) -> Response:
    control, tenant = call.hub.control, call.tenant
    address = address_of(control, tenant, policy, user)
    found = control.versions(tenant, address) if version is None else [control.version(tenant, address, version)]
    found = [each for each in found if each.number > 0][::-1][:limit]
    said = control.verdicts(tenant, address, challenger=version, limit=VERDICTS * limit)
    verdicts = {verdict.challenger: verdict for verdict in said}
    gates = {verdict.challenger: verdict for verdict in said if verdict.by == GATE}
    readable = _Readable(call, policy, user)
    share = min(MOST_SHARE, BUDGET // max(1, len(found)))
    nights = [
        _night(call, each, readable=readable, share=share)
        | {"verdict": _told(verdicts.get(each.name)), "gate_verdict": _told(gates.get(each.name))}
        for each in found
    ]
    return answer({"nights": nights})


def _told(verdict: Verdict | None) -> Json | None:
    return None if verdict is None else verdict_view(verdict)


def _night(call: Call, version: Version, *, readable: "_Readable", share: int) -> Json:
    control, address = call.hub.control, (version.tenant, version.policy)
    told = control.state(*address, f"night/{version.name}") or {}
    exam = control.state(*address, f"exam/{version.name}")
    lessons: list[Json] = list(told.get("lessons", ()))
    shown = readable.among(lessons)
    families = None if readable.all else {lesson["family"] for lesson in lessons if lesson["id"] in shown}
    asked = [] if exam is None else [_question(one, families) for one in exam.get("questions", ())]
    fitting = _fitting([_lesson(lesson, readable=lesson["id"] in shown) for lesson in lessons], share // 2)
    questions = _fitting(asked, share // 2)
    return {
        "version": version.name,
        "status": version.status.value,
        "recipe": version.recipe,
        "at": iso(version.created_ms),
        "parent": version.parent,
        "lessons": fitting,
        "counts": {
            "lessons": len(lessons),
            "learned": sum(bool(one.get("learned")) for one in lessons),
            "lessons_omitted": len(lessons) - len(fitting),
            "questions": len(asked),
            "right_before": sum(bool(one["right_before"]) for one in asked),
            "right_after": sum(bool(one["right_after"]) for one in asked),
            "questions_omitted": len(asked) - len(questions),
        },
        "stats": told.get("stats", {}),
        "exam": None if exam is None else exam | {"questions": questions},
    }


def _fitting(rows: Sequence[Json], room: int) -> list[Json]:
    """The first of these whose JSON has room; one that is too long by itself is passed over."""
    out: list[Json] = []
    for row in rows:
        size = len(orjson.dumps(row))
        if size <= room and len(out) < MOST_TOLD:
            out.append(row)
            room -= size
    return out


def _lesson(lesson: Json, *, readable: bool) -> Json:
    words = {name: lesson.get(name, "") if readable else None for name in ("asked", "before", "after", "wanted")}
    return {
        "id": lesson["id"],
        "session": (lesson.get("session") or None) if readable else None,
        "decision": lesson.get("decision") if readable else None,
        "family": lesson["family"],
        "left_out": lesson.get("left_out", ""),
        "learned": bool(lesson.get("learned")),
        "as_read": bool(lesson.get("as_read")),
        **words,
        "behind": lesson.get("behind") if readable else None,
    }


def _question(question: Json, families: set[str] | None) -> Json:
    """A question of an exam, without its words where it is on another family than these (None: all)."""
    if families is None or question["family"] in families:
        return question
    return question | dict.fromkeys(("asked", "wanted", "before", "after"))


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
        ids = {lesson["id"] for lesson in lessons}
        if self.all:
            return ids
        own, unknown = self._call.principal.user, sorted(ids - self._known.keys())
        mine = set() if own is None else self._call.hub.reader.told_by(self._call.tenant, own, outcomes=unknown)
        self._known |= {one: one in mine for one in unknown}
        return {one for one in ids if self._known[one]}


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
