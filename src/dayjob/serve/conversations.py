"""What was said to a language policy and what came of it; and what the notes in a context did to an answer.

These are people's words: of a person to keys that may speak for them, of everybody to an admin key.
"""

import asyncio
from collections.abc import Sequence

import numpy as np
from starlette.responses import Response

from dayjob.endings import Forbidden, Invalid, NotFound
from dayjob.journal.plain import iso
from dayjob.journal.readers import NEWEST
from dayjob.policies.engine_protocol import Prompt
from dayjob.records import Decision, Json, Stored, StoredOutcome
from dayjob.serve.adapters import asked_user, language_only
from dayjob.serve.auth import Scope, require_for_others
from dayjob.serve.call import Call, answer
from dayjob.serve.chat_answer import generation_of

MOST_CONVERSATIONS = 100
USUAL = 20
PAGE = 100  # decisions read at a time
MOST_READ = 2_000  # decisions looked through for sessions
LONGEST = 200  # decisions of one conversation, the newest


async def list_conversations(call: Call) -> Response:
    """Sessions with their answers, newest first: of a person, one session, or everybody's."""
    policy, user, session = call.path("name"), asked_user(call), call.query("session") or None
    language_only(call, policy)
    if user is None:
        require_for_others(call.principal, Scope.ADMIN)
    limit = _limit(call.query("limit"))
    found = await asyncio.to_thread(_found, call, policy, user=user, session=session, limit=limit)
    return answer({"conversations": found})


def _limit(text: str | None) -> int:
    if not text:
        return USUAL
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MOST_CONVERSATIONS):
        raise Invalid(f"limit is a whole number from 1 to {MOST_CONVERSATIONS}", param="limit")
    return int(text)


def _found(call: Call, policy: str, *, user: str | None, session: str | None, limit: int) -> list[Json]:
    """One conversation for each session; an answer without one is a conversation of its own."""
    reader, tenant = call.hub.reader, call.tenant
    found: dict[tuple[str | None, str], list[Stored]] = {}
    before, read = NEWEST, 0
    while len(found) < limit and read < MOST_READ:
        page = reader.newest(tenant, policy, user=user, session=session, before=before, limit=PAGE)
        for stored in page:
            named = stored.record.session
            key = (named, "") if named is not None else (None, stored.record.id)
            if key not in found and len(found) < limit:
                own = reader.newest(tenant, policy, user=user, session=named, limit=LONGEST) if named else [stored]
                found[key] = own[::-1]
        if len(page) < PAGE:
            break
        before, read = page[-1].seq, read + len(page)
    return [_conversation(decisions, reader.outcomes(tenant, decisions)) for decisions in found.values()]


def _conversation(decisions: Sequence[Stored], outcomes: dict[str, list[StoredOutcome]]) -> Json:
    users = [stored.record.user for stored in decisions if stored.record.user is not None]
    last = decisions[-1].record
    said = []
    for stored in decisions:
        # What was said of the whole session stands at its last answer.
        told = [
            one for one in outcomes.get(stored.record.id, ())
            if one.record.decision is not None or stored.record.id == last.id
        ]  # fmt: skip
        said.append(_said(stored.record, told))
    return {"session": last.session, "user": users[-1] if users else None, "decisions": said}


def _said(decision: Decision, outcomes: Sequence[StoredOutcome]) -> Json:
    generation = generation_of(decision)
    return {
        "id": decision.id,
        "at": iso(decision.at_ms),
        "version": decision.version,
        "role": decision.role.value,
        "messages": list(generation.messages),
        "text": generation.choices[0].text if generation.choices else "",
        "notes": list(generation.notes),
        "outcomes": [
            {
                "id": one.record.id,
                "kind": one.record.kind.value,
                "value": one.record.value,
                "text": one.record.text,
                "at": iso(one.record.at_ms),
            }
            for one in outcomes
        ],
    }


async def compare(call: Call) -> Response:
    """What an answer's tokens cost under the prompt as it was read and under the bare one."""
    decision = await _decision(call, call.path("id"))
    generation = generation_of(decision)
    voice = await call.service.voices.find(
        call.tenant, decision.policy, user=decision.user, session=decision.session or decision.id
    )
    told = _numbers(generation.choices[0].token_ids)
    read, bare = _numbers(generation.prompt_ids), _numbers(generation.bare_ids)

    async def score(prompt: Sequence[int]) -> Sequence[float]:
        if not told:
            return ()
        asked = Prompt(token_ids=tuple(prompt), salt=call.tenant)
        found = await voice.base.engine.score(asked, voice.engine_name, token_ids=told)
        return found.model_logprobs

    without = await score(bare or read)
    noted = await score(read) if bare else (None,) * len(told)
    tokens = [
        {"text": voice.base.tokens.text((token,)), "with_notes": high, "without_notes": low}
        for token, high, low in zip(told, noted, without, strict=True)
    ]
    return answer({"version": voice.version, "tokens": tokens})


async def _decision(call: Call, decision: str) -> Decision:
    """A language policy's decision. Raises NotFound, and Forbidden where the key may not speak for its person."""
    stored = await asyncio.to_thread(call.hub.reader.decision, call.tenant, decision)
    if stored is None:
        raise NotFound(f"there is no decision {decision!r}")
    if stored.record.generation is None:
        raise Invalid("this is the decision of a ranker: there are no notes to compare without", param="id")
    if call.principal.user not in (None, stored.record.user):
        raise Forbidden("this answer was somebody else's: use a key that may speak for that person")
    return stored.record


def _numbers(packed: bytes) -> tuple[int, ...]:
    return tuple(np.frombuffer(packed, "<u4").tolist())
