"""The client without sockets: a call is a plan, a generator that yields what to do and is sent what came of it.

A plan yields ``Request`` (answered by a ``Reply``) or ``Pause`` (answered by None) and returns the call's result.
``delivered`` wraps a plan with the one retry policy. The two clients differ only in who carries the steps out.
"""

import json
import random
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, NoReturn, TypeVar

from dayjob.client_types import ApiError, BadAnswer, Unreachable

JSON_TYPE = "application/json"
TOO_MANY, BAD_GATEWAY, UNAVAILABLE, GATEWAY_TIMEOUT = 429, 502, 503, 504


class Repeat(StrEnum):
    """When a request may be sent again."""

    SAFE = "safe"  # whenever no answer came: it carries its id, or doing it twice is doing it once
    UNSENT = "unsent"  # only when the server cannot have acted: no connection, 429, 503
    NEVER = "never"  # the plan wants to see every ending itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request. ``path`` is already quoted."""

    method: str
    path: str
    body: bytes | None = None
    content_type: str = JSON_TYPE
    query: Mapping[str, str] = field(default_factory=dict)
    repeat: Repeat = Repeat.SAFE


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came of a request. ``status`` 0: no answer, for the reason in ``lost``; ``acted`` False: it never left."""

    status: int
    body: bytes = b""
    retry_after: str | None = None
    lost: str = ""
    acted: bool = True

    def json(self) -> Any:
        """The parsed body. Raises BadAnswer when it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise BadAnswer(f"The answer is not JSON: {self.body[:200]!r}. Is this a dayjob server?") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Wait so long before the next step."""

    seconds: float


Result = TypeVar("Result")
Plan = Generator[Request | Pause, Reply | None, Result]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How often and when to try again: ``retries`` more attempts, the n-th after a random half to whole of
    ``first_s`` 2^n, at most ``longest_s``; a server's Retry-After is obeyed up to ``obey_s`` and is an error beyond.

    The default waits 10.6 to 21.3 s in all, 16 on average: a server that was killed is back by then.
    """

    retries: int = 9
    first_s: float = 0.1
    longest_s: float = 5.0
    obey_s: float = 60.0

    def wait_s(self, attempt: int, retry_after: str | None, *, dice: random.Random) -> float:
        """Seconds to wait before attempt ``attempt`` + 1 (counted from 0)."""
        whole = min(self.longest_s, self.first_s * 2.0**attempt)
        return max(whole * dice.uniform(0.5, 1.0), seconds_asked(retry_after))


def seconds_asked(retry_after: str | None) -> float:
    """Retry-After in seconds: a number, or an HTTP date (RFC 9110); nonsense is 0."""
    if retry_after is None:
        return 0.0
    try:
        seconds = float(retry_after)
        return seconds if seconds > 0.0 else 0.0
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(retry_after).timestamp()
    except ValueError:
        return 0.0
    return max(0.0, date - time.time())


def may_repeat(request: Request, reply: Reply) -> bool:
    """Whether ``request`` may be sent again after ``reply``. 507 is never repeated: a full disk needs a person."""
    refused = reply.status in (TOO_MANY, UNAVAILABLE) or (reply.status == 0 and not reply.acted)
    unknown = reply.status in (0, BAD_GATEWAY, GATEWAY_TIMEOUT)
    match request.repeat:
        case Repeat.NEVER:
            return False
        case Repeat.UNSENT:
            return refused
        case Repeat.SAFE:
            return refused or unknown


def delivered(plan: Plan[Result], backoff: Backoff, *, dice: random.Random) -> Plan[Result]:
    """``plan`` with its requests repeated by ``backoff`` and its errors raised: what remains to do is to carry out."""
    answer: Reply | None = None
    while True:
        try:
            step = plan.send(answer)
        except StopIteration as end:
            result: Result = end.value
            return result
        answer = (yield from _settled(step, backoff, dice)) if isinstance(step, Request) else (yield step)


def _settled(request: Request, backoff: Backoff, dice: random.Random) -> Plan[Reply]:
    attempt = 0
    while True:
        reply = yield request
        assert reply is not None, "a request is answered by a reply"
        if 200 <= reply.status < 300 or request.repeat is Repeat.NEVER:
            return reply
        wait_s = backoff.wait_s(attempt, reply.retry_after, dice=dice)
        if attempt >= backoff.retries or wait_s > backoff.obey_s or not may_repeat(request, reply):
            fail(request, reply, attempts=attempt + 1)
        yield Pause(seconds=wait_s)
        attempt += 1


def fail(request: Request, reply: Reply, *, attempts: int) -> NoReturn:
    """Raises ApiError with the server's own words, or Unreachable when there was no answer."""
    if reply.status == 0:
        raise Unreachable(
            f"No answer to {request.method} {request.path} after {attempts} attempt(s): {reply.lost}. "
            "Check the address and that the server runs (`dayjob doctor`)."
        )
    try:
        told = json.loads(reply.body)["error"]
        message, code, param, kind = told["message"], told.get("code"), told.get("param"), told.get("type")
    except (ValueError, TypeError, KeyError, AttributeError):
        text = reply.body[:200].decode("utf-8", "replace")
        message, code, param, kind = text or "the server gave no reason", None, None, None
    raise ApiError(message, status=reply.status, code=code, param=param, kind=kind)
