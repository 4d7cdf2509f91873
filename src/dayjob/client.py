"""dayjob's client: `Client` and `AsyncClient` have the same calls, each written once, in `dayjob.client_calls`.

>>> from dayjob.client import Candidate, Client, RankerSpec
>>> client = Client("http://127.0.0.1:8080")                                            # doctest: +SKIP
>>> client.put_policy("geo", RankerSpec(context_dim=2, candidate_dim=2))                # doctest: +SKIP
>>> answer = client.rank("geo", [1.0, 0.0], candidates=[Candidate(id="a", features=[0.6, 0.8])])  # doctest: +SKIP
>>> client.feedback(answer.click("a"))                                                  # doctest: +SKIP

Promises: ids of decisions and outcomes are chosen before anything is sent, so that a retry is never a second effect;
what is not safe to repeat (a rollback to "the previous one") is not repeated once it may have arrived. 507 (disk full)
is an error at once. AsyncClient's calls give awaitables.
"""

import asyncio
import functools
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

import httpx2

from dayjob import client_calls as calls
from dayjob import client_language as language
from dayjob.client_answers import (
    Adapter,
    Counts,
    Erasure,
    FeedbackReport,
    Job,
    Policy,
    Ranked,
    Ranking,
    Receipt,
    Report,
    UserRecord,
    Version,
)
from dayjob.client_core import Backoff, Pause, Plan, Reply, Request, delivered, fail
from dayjob.client_language import (
    ChatAnswer,
    ChatPiece,
    ComparedToken,
    Comparison,
    Conversation,
    ConversationList,
    Dream,
    Lesson,
    Message,
    Model,
    Night,
    Note,
    NoteList,
    Said,
)
from dayjob.client_types import (
    ApiError,
    BadAnswer,
    Candidate,
    Feedback,
    LanguageSpec,
    RankerSpec,
    Unreachable,
    new_id,
)

__all__ = [
    "Adapter",
    "ApiError",
    "AsyncClient",
    "Backoff",
    "BadAnswer",
    "Candidate",
    "ChatAnswer",
    "ChatPiece",
    "Client",
    "ComparedToken",
    "Comparison",
    "Conversation",
    "ConversationList",
    "Counts",
    "Dream",
    "Erasure",
    "Feedback",
    "FeedbackReport",
    "Job",
    "LanguageSpec",
    "Lesson",
    "Model",
    "Night",
    "Note",
    "NoteList",
    "Policy",
    "Ranked",
    "RankerSpec",
    "Ranking",
    "Receipt",
    "Report",
    "Said",
    "Unreachable",
    "UserRecord",
    "Version",
    "new_id",
]

Params = ParamSpec("Params")
Result = TypeVar("Result")

TIMEOUT_S = 30.0  # of connecting, of sending, and between two received chunks
CONNECTIONS = 100
RETRIES = Backoff().retries


class _Call(Generic[Params, Result]):
    """A plan as a method: of Client it gives the result, of AsyncClient an awaitable of it."""

    def __init__(self, build: Callable[Params, Plan[Result]]) -> None:
        self._build = build

    @overload
    def __get__(self, client: "Client", owner: type) -> Callable[Params, Result]: ...
    @overload
    def __get__(self, client: "AsyncClient", owner: type) -> Callable[Params, Awaitable[Result]]: ...
    @overload
    def __get__(self, client: None, owner: type) -> Callable[Params, Plan[Result]]: ...

    def __get__(self, client: "Client | AsyncClient | None", owner: type) -> Callable[Params, Any]:
        if client is None:
            return self._build

        @functools.wraps(self._build)
        def call(*args: Params.args, **kwargs: Params.kwargs) -> Any:
            return client.run(self._build(*args, **kwargs))

        return call


class _Api:
    """The calls, one line each; signatures and docstrings are those of `dayjob.client_calls`."""

    put_policy = _Call(calls.put_policy)
    policies = _Call(calls.policies)
    policy = _Call(calls.policy)
    put_catalog = _Call(calls.put_catalog)
    versions = _Call(calls.versions)
    learn = _Call(calls.learn)
    dream = _Call(calls.dream)
    job = _Call(calls.job)
    wait_job = _Call(calls.wait_job)
    rollback = _Call(calls.rollback)
    promote = _Call(calls.promote)
    freeze = _Call(calls.freeze)
    unfreeze = _Call(calls.unfreeze)
    report = _Call(calls.report)
    series = _Call(calls.series)
    rank = _Call(calls.rank)
    feedback = _Call(calls.feedback)
    feedback_many = _Call(calls.feedback_many)
    chat = _Call(language.chat)
    models = _Call(language.models)
    model = _Call(language.model)
    notes = _Call(language.notes)
    share_note = _Call(language.share_note)
    delete_note = _Call(language.delete_note)
    nights = _Call(language.nights)
    dreams = _Call(language.dreams)
    delete_lesson = _Call(language.delete_lesson)
    conversations = _Call(language.conversations)
    compare = _Call(language.compare)
    user = _Call(calls.user)
    set_learning = _Call(calls.set_learning)
    erase_user = _Call(calls.erase_user)
    ready = _Call(calls.ready)
    wait_ready = _Call(calls.wait_ready)


class Client(_Api):
    """The synchronous client; threads may share it. Close it, or use it in a ``with`` block.

    ``retries`` is how many more attempts a request gets (0: none, an error comes at once), or a Backoff for the whole
    policy. The default is patient for about 16 s: a restart of the server goes unnoticed.
    """

    def __init__(
        self, base_url: str, key: str | None = None, *, timeout: float = TIMEOUT_S, retries: int | Backoff = RETRIES
    ) -> None:
        self._backoff = retries if isinstance(retries, Backoff) else Backoff(retries=retries)
        self._dice = random.Random()
        self._http = httpx2.Client(base_url=base_url, headers=_headers(key), timeout=timeout, limits=_limits())

    def run(self, plan: Plan[Result]) -> Result:
        """Carries out a plan of `dayjob.client_calls`."""
        steps = delivered(plan, self._backoff, dice=self._dice)
        answer: Reply | None = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as end:
                result: Result = end.value
                return result
            if isinstance(step, Pause):
                time.sleep(step.seconds)
                answer = None
            else:
                answer = self._exchange(step)

    def _exchange(self, request: Request) -> Reply:
        try:
            return _reply(self._http.request(request.method, request.path, **_arguments(request)))
        except httpx2.TransportError as error:
            return _lost(error)

    def export(self, policy: str, *, format: str = "decisions") -> Iterator[dict[str, Any]]:
        """The policy's records, one at a time, as they arrive. Raises ApiError, Unreachable."""
        for line in self._lines(calls.export_request(policy, format=format)):
            yield json.loads(line)

    def stream(
        self, model: str, messages: Sequence[Message], *, user: str | None = None, session: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Iterator[ChatPiece]:  # fmt: skip
        """An answer as it is written; ``options`` as of `chat`. It ends once the decision is durable. It is never asked
        for again by itself. Raises ApiError, also for a fault in the middle, and Unreachable."""
        request = language.stream_request(model, messages, user=user, session=session, options=options)
        for line in self._lines(request):
            yield from language.pieces(request, line)

    def _lines(self, request: Request) -> Iterator[str]:
        try:
            with self._http.stream(request.method, request.path, **_arguments(request)) as response:
                if not response.is_success:
                    response.read()
                    fail(request, _reply(response), attempts=1)
                yield from (line for line in response.iter_lines() if line)
        except httpx2.TransportError as error:
            fail(request, _lost(error), attempts=1)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(_Api):
    """The asynchronous client, for one event loop. Close it, or use it in an ``async with`` block.

    ``retries`` is how many more attempts a request gets (0: none, an error comes at once), or a Backoff for the whole
    policy. The default is patient for about 16 s: a restart of the server goes unnoticed.
    """

    def __init__(
        self, base_url: str, key: str | None = None, *, timeout: float = TIMEOUT_S, retries: int | Backoff = RETRIES
    ) -> None:
        self._backoff = retries if isinstance(retries, Backoff) else Backoff(retries=retries)
        self._dice = random.Random()
        self._http = httpx2.AsyncClient(base_url=base_url, headers=_headers(key), timeout=timeout, limits=_limits())

    async def run(self, plan: Plan[Result]) -> Result:
        """Carries out a plan of `dayjob.client_calls`."""
        steps = delivered(plan, self._backoff, dice=self._dice)
        answer: Reply | None = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as end:
                result: Result = end.value
                return result
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
                answer = None
            else:
                answer = await self._exchange(step)

    async def _exchange(self, request: Request) -> Reply:
        try:
            return _reply(await self._http.request(request.method, request.path, **_arguments(request)))
        except httpx2.TransportError as error:
            return _lost(error)

    async def export(self, policy: str, *, format: str = "decisions") -> AsyncIterator[dict[str, Any]]:
        """The policy's records, one at a time, as they arrive. Raises ApiError, Unreachable."""
        async for line in self._lines(calls.export_request(policy, format=format)):
            yield json.loads(line)

    async def stream(
        self, model: str, messages: Sequence[Message], *, user: str | None = None, session: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[ChatPiece]:  # fmt: skip
        """An answer as it is written; ``options`` as of `chat`. It ends once the decision is durable. It is never asked
        for again by itself. Raises ApiError, also for a fault in the middle, and Unreachable."""
        request = language.stream_request(model, messages, user=user, session=session, options=options)
        async for line in self._lines(request):
            for piece in language.pieces(request, line):
                yield piece

    async def _lines(self, request: Request) -> AsyncIterator[str]:
        try:
            async with self._http.stream(request.method, request.path, **_arguments(request)) as response:
                if not response.is_success:
                    await response.aread()
                    fail(request, _reply(response), attempts=1)
                async for line in response.aiter_lines():
                    if line:
                        yield line
        except httpx2.TransportError as error:
            fail(request, _lost(error), attempts=1)

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _headers(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def _limits() -> httpx2.Limits:
    return httpx2.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)


def _arguments(request: Request) -> dict[str, Any]:
    headers = {} if request.body is None else {"Content-Type": request.content_type}
    return {"content": request.body, "params": dict(request.query) or None, "headers": headers}


def _reply(response: httpx2.Response) -> Reply:
    retry_after = response.headers.get("Retry-After")
    return Reply(status=response.status_code, body=response.content, retry_after=retry_after)


def _lost(error: httpx2.TransportError) -> Reply:
    """No answer. Only a connection that was never made proves that the server cannot have acted."""
    unsent = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout)
    return Reply(status=0, lost=f"{type(error).__name__}: {error}", acted=not unsent)
