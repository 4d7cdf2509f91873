"""What was said to a language policy and what came of it; and what the notes in a context did to an answer.

These are people's words: of a person to keys that may speak for them, of everybody to an admin key.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress

import numpy as np
from starlette.responses import Response

from dayjob.endings import Conflict, Damaged, Forbidden, Invalid, NotFound
from dayjob.journal.layers import address_of
from dayjob.journal.plain import iso
from dayjob.journal.readers import NEWEST, Place, Reader
from dayjob.policies.engine_protocol import Prompt, salt_of
from dayjob.records import Decision, Json, Stored, StoredOutcome
from dayjob.serve.adapters import asked_limit, asked_user, language_only
from dayjob.serve.auth import Scope, require_for_others
from dayjob.serve.call import Call, answer
from dayjob.serve.chat_answer import generation_of
from dayjob.serve.models import Voice

MOST_CONVERSATIONS = 100
USUAL = 20
PAGE = 100  # places read at a time
MOST_WALKED = 4_000  # decisions walked past to find the newest conversations, and as many again for their answers
LONGEST = 200  # answers of one conversation, the newest
BUDGET = 4 << 20  # bytes of journaled text in one answer; what was said last is told whatever its length
WIDEST = 4  # bytes of a character
AROUND = 256  # bytes that an answer and an outcome are counted for beside their texts


async def list_conversations(call: Call) -> Response:
    """Sessions with their answers, newest first: of a person, one session, or everybody's."""
    policy, user, session = call.path("name"), asked_user(call), call.query("session") or None
    language_only(call, policy)
    if user is None:
        require_for_others(call.principal, Scope.ADMIN)
    limit = asked_limit(call, most=MOST_CONVERSATIONS, usual=USUAL)
    listing = _Listing(call.hub.reader, call.tenant, policy=policy, user=user)
    return await asyncio.to_thread(listing.answered, session, limit=limit)


class _Listing:
    """One answer, and what may still be read for it: newest first, until that is spent. Its calls block."""

    def __init__(self, reader: Reader, tenant: str, *, policy: str, user: str | None) -> None:
        self._reader, self._tenant, self._policy, self._user = reader, tenant, policy, user
        self._steps = MOST_WALKED
        self._room = BUDGET
        self._spent = False

    def _is_over(self) -> bool:
        """Whether the answer's room, or the walk, is spent."""
        return self._spent

    def answered(self, session: str | None, *, limit: int) -> Response:
        """The conversations as JSON; ``more``: there are older ones, or may be."""
        newest, more = self._newest(session, limit)
        self._steps = MOST_WALKED
        found: list[Json] = []
        for place in newest:
            if self._is_over():
                more = True
                break
            places, cut = self._answers(place)
            said = self._said(places)
            more = more or (self._is_over() and not said)
            if said:
                users = [one.record.user for one, _ in said if one.record.user is not None]
                cut = cut or len(said) < len(places)
                found.append({
                    "session": place.session, "user": users[0] if users else None, "more": cut,
                    "decisions": [_said(one.record, outcomes) for one, outcomes in reversed(said)],
                })  # fmt: skip
        return answer({"conversations": found, "more": more})

    def _newest(self, session: str | None, limit: int) -> tuple[list[Place], bool]:
        """The last answer of each of the newest conversations, and whether there are others."""
        found: dict[tuple[str | None, str], Place] = {}
        for place in self._walk(session):
            if session is not None:
                return [place], False
            key = (None, place.id) if place.session is None else (place.session, "")
            if key not in found and len(found) == limit:
                return list(found.values()), True
            found.setdefault(key, place)
        return list(found.values()), self._steps <= 0

    def _answers(self, last: Place) -> tuple[list[Place], bool]:
        """A conversation's answers, newest first, and whether there are older ones."""
        found = [last]
        if last.session is not None:
            for place in self._walk(last.session, before=last.seq):
                if len(found) == LONGEST:
                    return found, True
                found.append(place)
            self._spent = self._steps <= 0
        return found, self._spent

    def _walk(self, session: str | None, *, before: int = NEWEST) -> Iterator[Place]:
        """What is this policy's, and this person's where one was asked for, newest first."""
        while self._steps > 0:
            size = min(PAGE, self._steps)
            page = self._reader.places(
                self._tenant, self._policy, user=self._user, session=session, before=before, limit=size
            )
            self._steps -= len(page)
            for place in page:
                if place.policy == self._policy and self._user in (None, place.user):
                    yield place
            if len(page) < size:
                return
            before = page[-1].seq

    def _said(self, places: Sequence[Place]) -> list[tuple[Stored, list[StoredOutcome]]]:
        """What was said at these places and what came of it, newest first, as far as there is room."""
        out: list[tuple[Stored, list[StoredOutcome]]] = []
        for place in places:
            found = self._reader.text(self._tenant, self._policy, place.seq)
            if found is None:
                continue  # erased between the two looks
            stored, size = found
            # What was said of the whole session stands at its last answer.
            outcomes = self._reader.told_of(stored, whole=not out)
            size += AROUND + sum(AROUND + WIDEST * len(one.record.text or "") for one in outcomes)
            if size > self._room and self._room < BUDGET:
                self._spent = True
                break
            self._room -= size
            out.append((stored, outcomes))
        return out


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
    voice = await _voice(call, decision)
    told = _numbers(generation.choices[0].token_ids)
    read, bare = _numbers(generation.prompt_ids), _numbers(generation.bare_ids)

    async def score(prompt: Sequence[int]) -> Sequence[float]:
        if not told:
            return ()
        asked = Prompt(token_ids=tuple(prompt), salt=salt_of(call.tenant, decision.user))
        found = await voice.base.engine.score(asked, voice.engine_name, token_ids=told)
        return found.model_logprobs

    without = await score(bare or read)
    noted = await score(read) if bare else (None,) * len(told)
    tokens = [
        {"text": voice.base.tokens.text((token,)), "with_notes": high, "without_notes": low}
        for token, high, low in zip(told, noted, without, strict=True)
    ]
    return answer({"version": voice.version, "tokens": tokens})


async def _voice(call: Call, decision: Decision) -> Voice:
    """The version that wrote an answer; where it cannot serve any more, what serves its person without a coin.

    No coin is thrown here: whoever could read it before its session begins would choose which sessions count.
    """
    control, user = call.hub.control, decision.user
    named = [decision.version]
    for owner in (user, None) if user is not None else (None,):
        with suppress(NotFound):
            pointers = control.pointers(call.tenant, address_of(control, call.tenant, decision.policy, owner))
            if owner is None or pointers.champion != pointers.baseline:
                named += [pointers.champion, pointers.baseline]
    for name in dict.fromkeys(named):
        with suppress(NotFound, Damaged, Conflict):
            model = f"{decision.policy}@{name}"
            return await call.service.voices.find(call.tenant, model, user=user, session=decision.id)
    raise Damaged(f"no version of policy {decision.policy!r} loads: see the server's log")


async def _decision(call: Call, decision: str) -> Decision:
    """A language policy's decision. Raises NotFound, and Forbidden where the key may not speak for its person."""
    stored = await asyncio.to_thread(call.hub.reader.decision, call.tenant, decision)
    if stored is None:
        raise NotFound(
            f"there is no decision {decision!r}: use the id of an answer, as /v1/chat/completions gave it or "
            "GET /v1/policies/NAME/conversations lists it"
        )
    if stored.record.generation is None:
        raise Invalid("this is the decision of a ranker: there are no notes to compare without", param="id")
    if call.principal.user not in (None, stored.record.user):
        raise Forbidden("this answer was somebody else's: use a key that may speak for that person")
    return stored.record


def _numbers(packed: bytes) -> tuple[int, ...]:
    return tuple(np.frombuffer(packed, "<u4").tolist())
