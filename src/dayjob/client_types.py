"""What the client sends, its errors, and the pure functions between records and JSON.

Nothing here touches a socket. Fields that a newer server adds are ignored; a field that is missing is an error that
names it, never a None that surfaces later. Vectors travel as base64 of little-endian float32.
"""

import base64
import json
import os
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from enum import StrEnum
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from dayjob.endings import DayjobError, Invalid, OutcomeKind

Json = Mapping[str, Any]


class ApiError(DayjobError):
    """The server answered with an error. The message is the server's and says what to do next.

    ``status`` is HTTP's, ``code`` and ``param`` are the server's words for the error and for the field at fault.
    """

    def __init__(self, message: str, *, status: int, code: str | None, param: str | None, kind: str | None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.param = param
        self.kind = kind  # "type" in the server's error object

    def __str__(self) -> str:
        return f"{self.status} {self.code or self.kind or 'error'}: {self.message}"


class Unreachable(DayjobError):
    """No answer came, after every attempt that was safe to make. What was sent may or may not have been recorded:
    sending the same object again (its id is kept) is safe.
    """


class BadAnswer(DayjobError):
    """The answer was not what the contract promises: the address is not a dayjob server, or it is a newer one."""


def new_id() -> str:
    """A UUIDv7 (RFC 9562): 48 bits of milliseconds, then 74 random bits, so that ids made later sort later.

    The client makes ids *before* sending, so that a retry is the same decision or outcome and counts once.
    """
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))


def pack(vector: npt.ArrayLike, *, param: str) -> str:
    """A vector of D finite numbers as base64 of little-endian float32. Raises Invalid, naming ``param``."""
    array_D = np.asarray(vector, dtype="<f4")
    if array_D.ndim != 1:
        raise Invalid(f"{param} must be one row of numbers, not an array of shape {array_D.shape}.", param=param)
    if not np.isfinite(array_D).all():
        raise Invalid(f"{param} holds NaN or infinity; send finite numbers.", param=param)
    return base64.b64encode(array_D.tobytes()).decode("ascii")


def to_bytes(body: Any) -> bytes:
    """JSON as UTF-8. Raises Invalid for what JSON cannot say (NaN, infinity, foreign types)."""
    try:
        return json.dumps(body, allow_nan=False, separators=(",", ":"), ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        raise Invalid(
            f"This cannot be sent as JSON ({error}); use finite numbers, strings, lists and dicts."
        ) from error


# ---- what is sent ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One candidate of a rank call. Without ``features`` it is looked up in the policy's catalog.

    >>> Candidate(id="g12", features=[0.6, 0.8], pair=[0.31, 0.12], score=-2.1, meta={"lat": 45.8, "lon": 4.8}).id
    'g12'
    """

    id: str
    features: npt.ArrayLike | None = None  # candidate_dim numbers
    pair: Iterable[float] | None = None  # pair_dim numbers about context and candidate together
    score: float | None = None  # the caller's own score, for all candidates or none: version zero orders by it
    loss: Iterable[float] | None = None  # what showing it costs when each candidate, in order, is right: all or none
    meta: Json | None = None  # small, kept with the decision; {"lat", "lon"} for the metric "km"

    def to_json(self) -> dict[str, Any]:
        """Without ``loss``, which a rank call sends for all candidates together."""
        body: dict[str, Any] = {"id": self.id}
        if self.features is not None:
            body["features_b64"] = pack(self.features, param=f"candidate {self.id!r}: features")
        if self.pair is not None:
            body["pair"] = [float(number) for number in self.pair]
        if self.score is not None:
            body["score"] = float(self.score)
        if self.meta is not None:
            body["meta"] = dict(self.meta)
        return body


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """One outcome, about a ``decision`` or a ``session``. Its ``id`` is made with it, so sending it twice counts once.

    >>> Feedback(decision="0190a6c0-0000-7000-8000-000000000000", kind="click", item="a", position=1).kind
    'click'
    """

    kind: str | OutcomeKind
    decision: str | None = None
    session: str | None = None
    item: str | None = None
    position: int | None = None  # 1-based, as shown
    value: float | str | Json | None = None
    text: str | None = None
    at: str | None = None  # RFC 3339; absent: the server's clock
    source: str | None = None  # absent: "human"
    token: str | None = None  # the decision's token, for callers without a key
    id: str = field(default_factory=new_id)

    def to_json(self) -> dict[str, Any]:
        return absent({f.name: getattr(self, f.name) for f in fields(self)} | {"kind": str(self.kind)})


class Spec(Protocol):
    """How a policy is declared: a RankerSpec or a LanguageSpec."""

    def to_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RankerSpec:
    """A ranker. What is left out takes the server's default.

    >>> RankerSpec(context_dim=512, candidate_dim=512, pair_dim=2, metric="km").to_json()["kind"]
    'ranker'
    """

    context_dim: int
    candidate_dim: int
    pair_dim: int | None = None
    hidden: tuple[int, ...] | None = None
    recipe: str | None = None
    similarity_scale: float | None = None
    metric: str | None = None  # "click", "reward", "truth" or "km"
    reward_range: tuple[float, float] | None = None
    outcome_window_s: float | None = None
    explore: Json | None = None
    alpha: float | None = None
    minimum_effect: float | None = None
    learn_every: int | None = None

    def to_json(self) -> dict[str, Any]:
        return absent({"kind": "ranker"} | {f.name: getattr(self, f.name) for f in fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageSpec:
    """A language policy over one of the bases that the server's configuration allows."""

    base: str
    recipe: str | None = None
    alpha: float | None = None
    minimum_effect: float | None = None
    learn_every: int | None = None  # pieces of feedback between two nights; 0: by hand

    def to_json(self) -> dict[str, Any]:
        return absent({"kind": "language"} | {f.name: getattr(self, f.name) for f in fields(self)})


def absent(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body without the fields that are None: not sent means the server's default."""
    return {name: value for name, value in body.items() if value is not None}


# ---- what comes back: the records are in `dayjob.client_answers` -----------------------------------------------------

Record = TypeVar("Record")
Ending = TypeVar("Ending", bound=StrEnum)


def member(of: type[Ending], value: Any) -> Ending:
    """The enum's member called ``value``. Raises BadAnswer for a word that this client does not know."""
    try:
        return of(value)
    except ValueError as error:
        raise BadAnswer(f"{value!r} is not a {of.__name__} that this client knows; update dayjob here.") from error


def read(record: type[Record], data: Any, **parsed: Any) -> Record:
    """``data`` (a JSON object) as ``record``, with the fields in ``parsed`` already turned into their types.

    Raises BadAnswer for what is not an object and for a field without a default that is missing.
    """
    if not isinstance(data, Mapping):
        got = f"{type(data).__name__}: {str(data)[:200]!r}"
        raise BadAnswer(f"Expected a JSON object for {record.__name__}, got {got}.")
    values: dict[str, Any] = {}
    for each in fields(record):  # type: ignore[arg-type]
        if each.name in parsed:
            values[each.name] = parsed[each.name]
        elif each.name in data:
            values[each.name] = data[each.name]
        elif each.default is MISSING and each.default_factory is MISSING:
            raise BadAnswer(f"The answer has no {each.name!r} ({record.__name__}): {str(dict(data))[:200]}.")
    return record(**values)
