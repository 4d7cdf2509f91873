"""POST /v1/chat/completions, GET /v1/models and GET /v1/models/{model}.

Promise 1 for language: an answer leaves after its decision is durable, the last chunk of a stream too. Promise 2: an
equal retry (by ``id`` or ``Idempotency-Key``) gets the first answer. Whoever goes away frees the place, and what was
written until then is journaled as aborted; only an answer that can be asked for again by its id is finished all the
same.
"""

import asyncio
import hashlib
import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from dayjob.endings import Conflict, Ending, Erased, Forbidden, Invalid, Role
from dayjob.journal.layers import address_of
from dayjob.memory.render import with_notes
from dayjob.policies.engine_protocol import Prompt, Sampling, salt_of
from dayjob.records import Decision, Generation, Json
from dayjob.serve.adapters import asked_user
from dayjob.serve.auth import speaks_for
from dayjob.serve.call import Call, answer
from dayjob.serve.chat_answer import completion, generation_of, replayed
from dayjob.serve.chat_run import Answering, Replay
from dayjob.serve.chat_stream import EventStream, unless_gone
from dayjob.serve.chat_wire import ChatRequest
from dayjob.serve.chat_write import Draft, Writing, seed_of_choice
from dayjob.serve.decide import new_id, seed_of
from dayjob.serve.models import Noted, OpenBase, UnknownModel, Voice
from dayjob.serve.wire import parse

log = logging.getLogger("dayjob.serve")
CUT_SHORT = "the answer of this id was cut short when its client went away: ask again under a new id"
OTHER_BODY = "this id was used with another body: send a new id, or the first body again"
GONE = "this id was erased and cannot be used again"
MAX_KEY_CHARS = 255
ANSWER_ROOM = 256  # tokens that notes leave for an answer whose length was not asked for
_KEYS = uuid.UUID("6f1d5f0c-5f5b-4b3c-9c53-4b1f6c3f5d11")  # names what Idempotency-Keys stand for


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request with who asks, and the id its decision will have."""

    request: ChatRequest
    user: str | None
    id: str
    chosen: bool  # the client knows the id: it may ask for this very answer again
    digest: bytes
    sampling: Sampling


async def chat(call: Call) -> Response:
    """Write an answer, or several, whole or as a stream."""
    asked = _asked(call, parse(ChatRequest, call.body))
    await call.hub.heed(call.tenant, asked.user)
    await _check_session(call, asked)
    if not asked.chosen:
        return await _answer(call, asked, lambda: None)
    land = await call.service.voices.take_off((call.tenant, asked.id))
    try:
        first = await _first(call, asked)
        response = _again(call, asked, first) if first is not None else await _answer(call, asked, land)
    except BaseException:
        land()
        raise
    if first is not None or not isinstance(response, EventStream):
        land()
    return response


def _asked(call: Call, request: ChatRequest) -> Asked:
    user = speaks_for(call.principal, request.user)
    key = call.request.headers.get("idempotency-key")
    if key is not None and not 1 <= len(key) <= MAX_KEY_CHARS:
        raise Invalid(f"Idempotency-Key must have 1 to {MAX_KEY_CHARS} characters")
    if request.id is not None:
        chosen = str(request.id)
    else:
        # Two people may choose the same key: each has its own answers.
        chosen = "" if key is None else str(uuid.uuid5(_KEYS, f"{call.tenant}\0{user or ''}\0{key}"))
    body = request.model_dump_json(exclude={"id", "stream", "stream_options"})
    sampling = Sampling(
        max_tokens=request.max_completion_tokens or request.max_tokens or 1 << 30,
        temperature=1.0 if request.temperature is None else request.temperature,
        top_p=1.0 if request.top_p is None else request.top_p,
        stop=tuple(request.stop or ()),
        top_logprobs=request.top_logprobs or 0,
    )
    return Asked(
        request=request, user=user, id=chosen or new_id(call.hub.now_ms()), chosen=bool(chosen),
        digest=hashlib.blake2b(f"{user or ''}\0{body}".encode(), digest_size=16).digest(), sampling=sampling,
    )  # fmt: skip


async def _check_session(call: Call, asked: Asked) -> None:
    """Raises Forbidden for a session of somebody else: what is said in it would count as theirs."""
    session = asked.request.session
    if session is None or asked.user is None:
        return
    owner = await asyncio.to_thread(call.hub.reader.session_user, call.tenant, session)
    if owner is not None and owner != asked.user:
        raise Forbidden("this session belongs to somebody else: choose another metadata.session")


async def _first(call: Call, asked: Asked) -> Decision | None:
    """The decision that this very request made before, if it did."""
    if await call.hub.store.asubmit(lambda tx: tx.erased(call.tenant, "id", asked.id)):
        raise Erased(GONE)
    stored = await asyncio.to_thread(call.hub.reader.decision, call.tenant, asked.id)
    if stored is None:
        return None
    if stored.record.body_digest != asked.digest:
        raise Conflict(OTHER_BODY)
    if any(choice.ending is Ending.ABORTED for choice in generation_of(stored.record).choices):
        raise Conflict(CUT_SHORT)
    return stored.record


def _again(call: Call, asked: Asked, first: Decision) -> Response:
    """The first answer once more."""
    tokens = call.service.voices.base(generation_of(first).base).tokens
    if not asked.request.stream:
        return answer(completion(first, tokens))
    return EventStream(Replay(list(replayed(first, tokens, with_usage=_with_usage(asked.request)))))


async def _answer(call: Call, asked: Asked, land: Callable[[], None]) -> Response:
    """Write it: places are taken, and `Answering` gives them back. ``land``: called once the answer is over."""
    request, receive = asked.request, call.request.receive
    writing = await _begin(call, asked)
    answering = Answering(service=call.service, writing=writing, with_usage=_with_usage(request), land=land)
    streams = False
    try:
        if request.stream:
            # Nothing was sent yet: what goes wrong before the first token is an answer with a status of its own.
            await unless_gone(receive, answering.begin())
            streams = True
            return EventStream(answering)
        # Who knows the id may come back for the answer: it is finished whether or not somebody waits.
        decision = await (answering.whole() if asked.chosen else unless_gone(receive, answering.whole()))
        return answer(completion(decision, writing.voice.base.tokens))
    except (ClientDisconnect, asyncio.CancelledError):
        answering.shown = True
        raise
    finally:
        if not streams:
            await answering.close()


def _with_usage(request: ChatRequest) -> bool:
    return request.stream_options is not None and request.stream_options.include_usage


async def _begin(call: Call, asked: Asked) -> Writing:
    """What an answer is made from: the version that serves, the prompt with its notes, how it is drawn."""
    request, service = asked.request, call.service
    voice = await service.voices.find(call.tenant, request.model, user=asked.user, session=request.session or asked.id)
    messages = [message.plain() for message in request.messages]
    ids, bare, notes = await asyncio.to_thread(_prompt, call, asked, messages, voice=voice)
    room = voice.base.context_tokens - len(ids)
    sampling = replace(asked.sampling, max_tokens=min(asked.sampling.max_tokens, room))
    seed = seed_of(service.sampling_secret, call.tenant, asked.id) if request.seed is None else request.seed % (1 << 64)
    count = request.n or 1
    generation = Generation(
        base=voice.base.name, messages=tuple(messages), tools=request.plain_tools,
        prompt_ids=np.array(ids, "<u4").tobytes(), bare_ids=np.array(bare, "<u4").tobytes(), notes=notes,
        sampling={
            "temperature": sampling.temperature, "top_p": sampling.top_p, "max_tokens": sampling.max_tokens,
            "stop": list(sampling.stop), "seed": request.seed, "top_logprobs": request.told_logprobs,
        },
        choices=(),
    )  # fmt: skip
    blank = Decision(
        tenant=call.tenant, policy=voice.policy, id=asked.id, body_digest=asked.digest, user=asked.user,
        session=request.session, at_ms=call.hub.now_ms(), version=voice.version, challenger=voice.challenger,
        role=voice.role, role_propensity=voice.role_propensity, explore=voice.role is not Role.PINNED, seed=seed,
        epsilon=0.0, temperature=sampling.temperature, intervened=False, coin=voice.coin, context=b"",
        candidates=(), pair=b"", base=b"", score=b"", rival_score=b"",
        ranking=np.arange(count, dtype="<u2").tobytes(), propensity=b"", log_propensity=0.0, extra=voice.told,
        generation=generation,
    )  # fmt: skip
    drafts = [Draft(seed=seed_of_choice(seed, index)) for index in range(count)]
    prompt = Prompt(token_ids=ids, salt=salt_of(call.tenant, asked.user))
    return Writing(blank=blank, voice=voice, prompt=prompt, sampling=sampling, drafts=drafts)


Prompted = tuple[tuple[int, ...], tuple[int, ...], tuple[str, ...]]
"""What the model reads, the same without notes (empty where there are none), and the ids of the notes."""


def _prompt(call: Call, asked: Asked, messages: Sequence[Json], *, voice: Voice) -> Prompted:
    """The prompt, with the notes that concern it where they leave room for the answer. Raises Invalid."""
    base, tools = voice.base, asked.request.plain_tools
    bare = base.tokens.render(messages, tools=tools)
    if len(bare) >= base.context_tokens:
        raise Invalid(
            f"this model's maximum context length is {base.context_tokens} tokens, and the messages are {len(bare)}: "
            "shorten them",
            param="messages",
            code="context_length_exceeded",
        )
    session = asked.request.session
    wanted = min(asked.sampling.max_tokens, ANSWER_ROOM)
    noted = call.service.context_notes(
        call.tenant, voice.policy, user=asked.user, session=session, messages=messages, version=voice.version,
        tokens=base.tokens, room=base.context_tokens - len(bare) - wanted,
    )  # fmt: skip
    if not noted.ids:
        return bare, (), ()
    ids = _with_notes(base, messages, tools, noted=noted)
    if ids is None or len(ids) + wanted > base.context_tokens:
        return bare, (), ()
    return ids, bare, noted.ids


def _with_notes(
    base: OpenBase, messages: Sequence[Json], tools: Sequence[Json], *, noted: Noted
) -> tuple[int, ...] | None:
    """The prompt with notes in the system's message; None where a note cannot be said: nobody's chat breaks by it."""
    try:
        return base.tokens.render(with_notes(messages, noted.text), tools=tools)
    except Invalid as error:
        log.warning("notes %s were left out: %s", ", ".join(noted.ids), error)
        return None


async def models(call: Call) -> Response:
    """What a chat's ``model`` may name: the tenant's versions, and a person's own where one is named."""
    policies = sorted(policy for tenant, policy in dict(call.hub.spoken) if tenant == call.tenant)
    return answer({"object": "list", "data": [one for policy in policies for one in _models_of(call, policy)]})


async def model(call: Call) -> Response:
    """One of them by its id. Raises UnknownModel."""
    wanted = call.path("model")
    policy = wanted.partition("@")[0]
    listed = _models_of(call, policy) if (call.tenant, policy) in call.hub.spoken else ()
    found = next((one for one in listed if one["id"] == wanted), None)
    if found is None:
        raise UnknownModel(f"there is no model {wanted!r}: GET /v1/models lists those there are")
    return answer(found)


def _models_of(call: Call, policy: str) -> Iterator[Json]:
    control, tenant, user = call.hub.control, call.tenant, asked_user(call)
    spoken = call.hub.spoken[tenant, policy]
    root = str(spoken.spec["base"])
    yield _model(policy, spoken.created_ms, root=root, parent=None)
    own = [] if user is None else control.versions(tenant, address_of(control, tenant, policy, user))
    for version in (*control.versions(tenant, policy), *(one for one in own if one.number > 0)):
        yield _model(f"{policy}@{version.name}", version.created_ms, root=root, parent=version.parent)


def _model(name: str, created_ms: int, *, root: str, parent: str | None) -> Json:
    return {
        "id": name, "object": "model", "created": created_ms // 1000, "owned_by": "dayjob", "root": root,
        "parent": parent,
    }  # fmt: skip
