"""GET, PATCH and DELETE of /v1/notes, and the notes in the context of a chat.

A note that one person taught is reached by keys that may speak for that person; the tenant's are seen by every key of
the tenant, and changed by an admin key alone; whose words it holds may delete it all the same.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from pydantic import AwareDatetime
from starlette.responses import Response

from dayjob.endings import Forbidden, Invalid, NoteScope, NoteState, OutcomeKind, PolicyKind
from dayjob.journal.plain import iso
from dayjob.memory.lessons import last_question
from dayjob.memory.notes import NotesMemory, Question
from dayjob.memory.project import Refused
from dayjob.records import Json, Note
from dayjob.serve.adapters import asked_user, serving
from dayjob.serve.answers import Answered
from dayjob.serve.auth import Principal, Scope, require_for_others
from dayjob.serve.call import Call, answer
from dayjob.serve.models import Noted, Tokenizer
from dayjob.serve.wire import Asked, parse

MOST_LISTED = 1_000
AROUND = 16  # tokens that a template may put around the part of the system


class NoteView(Answered):
    """One note as it stands for the version that serves."""

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
    at: AwareDatetime


class RefusedView(Answered):
    """An outcome that makes no note, and why."""

    id: str
    policy: str
    user: str | None
    session: str | None
    decision: str | None
    kind: OutcomeKind
    reason: str
    at: AwareDatetime


class NoteList(Answered):
    """The newest notes and refused outcomes; ``more`` says whether older ones were left out."""

    notes: list[NoteView]
    refused: list[RefusedView]
    more: bool


class DeletedNote(Answered):
    """A note that was forgotten."""

    id: str
    deleted: bool


class NotePatch(Asked):
    """The body of ``PATCH /v1/notes/{id}``."""

    scope: NoteScope


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextMemory:
    """Finds the notes of a chat in the memory, within ``budget`` tokens."""

    memory: NotesMemory
    budget: int

    def __call__(
        self, tenant: str, policy: str, *, user: str | None, session: str | None, messages: Sequence[Json],
        version: str, tokens: Tokenizer, room: int,
    ) -> Noted:  # fmt: skip
        """As `serve.models.ContextNotes`."""
        question = Question(
            user=user, session=session, text=last_question(messages), version=version,
            budget=min(self.budget, room - AROUND),
            count=lambda text: len(tokens.encode(text)), control=tokens.control,
        )  # fmt: skip
        placed = self.memory.place(tenant, policy, question)
        return Noted(text=placed.text, ids=placed.ids)


async def list_notes(call: Call) -> Response:
    """What was remembered: of a person and the tenant, of a session, or all that the key may see; newest first."""
    user = asked_user(call)
    session, policy = call.query("session") or None, call.query("policy") or None
    if user is None and session is None:
        require_for_others(call.principal, Scope.ADMIN)
    if policy is not None and call.hub.declared(call.tenant, policy).kind is not PolicyKind.LANGUAGE:
        raise Invalid(f"policy {policy!r} is a ranker: only language policies have notes", param="policy")
    return await asyncio.to_thread(_listed, call, _policies(call) if policy is None else [policy], user, session)


def _listed(call: Call, policies: Sequence[str], user: str | None, session: str | None) -> Response:
    notes: list[Note] = []
    refused: list[tuple[str, Refused]] = []
    for policy in policies:
        found, others = call.service.notes.listed(
            call.tenant, policy, version=partial(serving, call, policy), user=user, session=session
        )
        notes += found
        refused += [(policy, one) for one in others]
    notes.sort(key=lambda one: (-one.seq, one.id))
    refused.sort(key=lambda one: -one[1].lesson.seq)
    return answer(
        {
            "notes": [_view(one, call.principal) for one in notes[:MOST_LISTED]],
            "refused": [_refusal(policy, one) for policy, one in refused[:MOST_LISTED]],
            "more": max(len(notes), len(refused)) > MOST_LISTED,
        }
    )


async def patch_note(call: Call) -> Response:
    """Make a note the tenant's, or its owner's again."""
    wish, note = parse(NotePatch, call.body), await find_note(call)
    memory = call.service.notes
    await asyncio.to_thread(memory.share, note, scope=wish.scope, by=call.principal.key_id)
    return answer(_view(await find_note(call), call.principal))


async def delete_note(call: Call) -> Response:
    """Forget a note: no context holds it, and no night teaches it, from now on."""
    note = await find_note(call)
    await asyncio.to_thread(call.service.notes.delete, note, by=call.principal.key_id)
    return answer({"id": note.id, "deleted": True})


async def find_note(call: Call) -> Note:
    """The note of the path. Raises NotFound, and Forbidden where it is not this key's to change."""
    policies = _policies(call)
    note = await asyncio.to_thread(call.service.notes.find, call.tenant, policies, call.path("id"))
    own = call.principal.user is not None and note.user == call.principal.user
    if note.scope is NoteScope.TENANT and not own and Scope.ADMIN not in call.principal.scopes:
        raise Forbidden("this note is the tenant's: an admin key may change it")
    if note.scope is NoteScope.USER and call.principal.user not in (None, note.user):
        raise Forbidden("this note is somebody else's: use a key that may speak for that person")
    return note


def _policies(call: Call) -> list[str]:
    return sorted(policy for tenant, policy in dict(call.hub.spoken) if tenant == call.tenant)


def _view(note: Note, principal: Principal) -> Json:
    """A note for whoever asks: of the tenant's, a key for one person sees what was taught, not who taught it."""
    hidden = principal.user is not None and note.user != principal.user
    return {
        "id": note.id, "policy": note.policy, "scope": note.scope.value, "state": note.state.value,
        "user": None if hidden else note.user, "session": None if hidden else note.session,
        "decision": None if hidden else note.decision, "kind": note.kind.value, "asked": note.asked,
        "answered": "" if hidden else note.answered, "text": note.text, "replaced_by": note.replaced_by,
        "support": note.support, "at": iso(note.at_ms),
    }  # fmt: skip


def _refusal(policy: str, refused: Refused) -> Json:
    outcome = refused.lesson.outcome
    return {
        "id": outcome.id, "policy": policy, "user": outcome.user, "session": outcome.session,
        "decision": outcome.decision, "kind": outcome.kind.value, "reason": refused.reason, "at": iso(outcome.at_ms),
    }  # fmt: skip
