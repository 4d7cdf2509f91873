"""What the client sends and what it gets back: frozen records, errors, and the pure functions between them and JSON.

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

from dayjob.endings import DayjobError, FeedbackState, Invalid, JobState, OutcomeKind, PolicyKind, Role, VersionStatus

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
    meta: Json | None = None  # small, kept with the decision; {"lat", "lon"} for the metric "km"

    def to_json(self) -> dict[str, Any]:
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


# ---- what comes back -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """One item at one position. ``propensity``: its probability there, given the role and the items above it."""

    id: str
    position: int
    score: float
    propensity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """One served decision. ``token`` lets a browser give feedback on this decision alone (None without keys)."""

    id: str
    policy: str
    version: str
    role: Role
    role_propensity: float
    log_propensity: float
    ranking: tuple[Ranked, ...]
    token: str | None = None

    def position(self, item: str) -> int:
        """Where ``item`` was shown, from 1. Raises Invalid when it was not."""
        for ranked in self.ranking:
            if ranked.id == item:
                return ranked.position
        raise Invalid(f"{item!r} was not served in decision {self.id}; choose one of its ranking.", param="item")

    def click(self, item: str) -> Feedback:
        """The outcome "a person clicked ``item`` where it was shown", ready to be sent."""
        return Feedback(decision=self.id, kind="click", item=item, position=self.position(item))

    def truth(self, relevance: Mapping[str, float]) -> Feedback:
        """The outcome "this is how good each item really was" (larger is better), ready to be sent."""
        for item in relevance:
            self.position(item)
        return Feedback(decision=self.id, kind="truth", value={"relevance": dict(relevance)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What became of one outcome: ``status`` is the HTTP status that it has, or in a batch would have had, alone."""

    id: str
    status: int  # 201 recorded, 200 already had it, 202 held, else refused
    receipt: str | None = None  # the same as a word, see endings.Receipt
    error: Json | None = None  # OpenAI's error object, where it was refused

    @property
    def ok(self) -> bool:
        return self.status < 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How much a policy has seen; outcomes by kind."""

    decisions: int
    outcomes: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A person's own layer of a language policy. ``newest``: what was learned last; ``status``: what became of it."""

    user: str
    champion: str  # the baseline where nothing was promoted for them alone
    previous: str | None = None
    challenger: str | None = None
    baseline: str
    newest: str | None = None
    status: VersionStatus
    last_verdict: Json | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A policy and where it stands. Versions are names ("v3-1f2e3d4c")."""

    name: str
    kind: PolicyKind
    spec: Json  # as declared, defaults included
    champion: str
    challenger: str | None = None
    baseline: str
    previous: str | None = None  # what a rollback puts back
    frozen: bool
    serves: str  # "champion" or "baseline"
    counts: Counts
    last_verdict: Json | None = None
    adapter: Adapter | None = None  # of the person that was asked for, if they have one


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One immutable set of weights, learned from the journal after ``journal_range``'s first, through its second."""

    version: str
    parent: str | None = None
    recipe: str
    created: str  # RFC 3339
    digest: str
    journal_range: tuple[int, int]
    status: VersionStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRecord:
    """What is held about a person, and which versions learned from it."""

    user: str
    learn: bool
    decisions: int
    outcomes: int
    versions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """What was erased, and which versions ("policy/version") will not come back because of it: ``adapters_withdrawn``
    were the person's own; of the others, ``trials_ended`` were on trial. The champion of each policy in ``rebuilding``
    serves until it is built again.
    """

    user: str
    decisions: int
    outcomes: int
    versions_tainted: tuple[str, ...]
    adapters_withdrawn: tuple[str, ...] = ()
    trials_ended: tuple[str, ...] = ()
    rebuilding: tuple[str, ...] = ()
    learn: bool = True  # their wish: False outlives the erasure


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A piece of work that the learner does. ``progress`` from 0 to 1."""

    job: str
    state: JobState
    progress: float = 0.0
    result: Json | None = None
    error: str | None = None

    @property
    def id(self) -> str:
        """The same as ``job``."""
        return self.job

    @property
    def finished(self) -> bool:
        return self.state in (JobState.SUCCEEDED, JobState.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackReport:
    """What the clicks of a policy can teach. ``share_at``: the share of clicks at each position."""

    state: FeedbackState
    reason: str
    share_at: tuple[float, ...] = ()
    needed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A policy's report. ``gate`` has judged_through, lag (0: every closed decision is judged), trial, estimates and
    verdicts."""

    feedback: FeedbackReport
    bias: Json
    ceiling: Json
    learning: Json
    gate: Json
    drift: Json
    forgetting: Json


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
