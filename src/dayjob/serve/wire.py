"""What strangers may send: the requests of the wire contract, checked once, here.

Requests are strict: no unknown field, no coercion, only finite numbers. What depends on a policy (declared dimensions,
the candidate limit, the reward range) is the handler's to check; everything that a body says by itself is checked here.
``parse``, ``parse_policy_spec``, ``parse_feedback`` and ``parse_catalog`` are the only ways in: whatever does not fit
becomes ``endings.Invalid``, whose message names the field and the remedy. The answers are in ``answers``.
"""

import difflib
from collections.abc import Sequence
from typing import Annotated, Final, Literal, TypeVar
from uuid import UUID

import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from dayjob.endings import Invalid, OutcomeKind, PolicyKind
from dayjob.serve.fields import (
    AT_REMEDY,
    FEEDBACK_KINDS,
    MAX_DIM,
    OBJECTS,
    TAG_FAULTS,
    VALUE_REMEDY,
    Alpha,
    Dim,
    Finite,
    LearnEvery,
    Matrix,
    Meta,
    Name,
    Numbers,
    Packed,
    PolicyName,
    Score,
    Share,
    Text,
    Unfit,
    Vector,
    misfit,
    remedy_of,
)

MAX_FEEDBACK_ITEMS: Final = 1_000
_MAX_PARAM_CHARS: Final = 200
# Beyond this many faults the body is not meant for this route, and listing them would only cost time.
_MAX_FAULTS: Final = 100


class Asked(BaseModel):
    """The root of every request."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, val_json_bytes="base64")


class Context(Asked):
    """What the decision is made in: exactly one of ``features`` and ``features_b64``."""

    features: Numbers | None = None
    features_b64: Packed | None = None

    @model_validator(mode="after")
    def _one_vector(self) -> "Context":
        if (self.features is None) == (self.features_b64 is None):
            raise ValueError("send exactly one of features and features_b64")
        return self

    @property
    def vector_D(self) -> Vector:
        """float32 (D,)."""
        vector = self.features if self.features is not None else self.features_b64
        assert vector is not None, "the validator has seen one"
        return vector


class Candidate(Asked):
    """One thing to rank: a catalog id alone, or an id with its features."""

    id: Name
    features: Numbers | None = None
    features_b64: Packed | None = None
    pair: Numbers | None = None
    score: Score = 0.0
    meta: Meta | None = None

    @model_validator(mode="after")
    def _one_vector(self) -> "Candidate":
        if self.features is not None and self.features_b64 is not None:
            raise ValueError("send one of features and features_b64, not both")
        return self

    @property
    def vector_D(self) -> Vector | None:
        """float32 (D,), or None: the catalog has it."""
        return self.features if self.features is not None else self.features_b64


class CatalogItem(Context):
    """One line of a catalog."""

    id: Name
    meta: Meta | None = None


class RankRequest(Asked):
    """The body of ``POST /v1/rank``. ``loss[i][j]``: what choosing candidate i costs when j is the best."""

    policy: PolicyName
    id: UUID | None = None
    user: Name | None = None
    session: Name | None = None
    k: Annotated[int, Field(ge=1, le=MAX_DIM)] | None = None
    explore: bool = True
    context: Context
    candidates: Annotated[list[Candidate], Field(min_length=1, fail_fast=True)] | None = None
    loss: Matrix | None = None

    @model_validator(mode="after")
    def _candidates_agree(self) -> "RankRequest":
        if self.candidates is None:
            if self.loss is not None:
                raise ValueError("loss needs candidates: its rows and columns are theirs; send both or neither")
            return self
        if len({candidate.id for candidate in self.candidates}) != len(self.candidates):
            raise ValueError("two candidates have the same id; send each once")
        if self.loss is not None and len(self.loss) != len(self.candidates):
            raise ValueError(f"loss has {len(self.loss)} rows for {len(self.candidates)} candidates; send one row each")
        return self


class Explore(Asked):
    """How a ranker tries things out."""

    changed_first: Share = 0.05


class RankerSpec(Asked):
    """The body of ``PUT /v1/policies/{name}`` for a ranker, with its defaults."""

    kind: Literal["ranker"]
    context_dim: Dim
    candidate_dim: Dim
    pair_dim: Annotated[int, Field(ge=0, le=MAX_DIM)] = 0
    hidden: Annotated[list[Annotated[int, Field(ge=1, le=8_192)]], Field(min_length=1, max_length=8)] = [256, 256]
    recipe: PolicyName = "debiased"
    similarity_scale: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    metric: Literal["click", "reward", "truth", "km"] = "click"
    reward_range: Annotated[list[Score], Field(min_length=2, max_length=2)] = [0.0, 1.0]
    outcome_window_s: Annotated[float, Field(gt=0, le=7_776_000)] = 60.0
    explore: Explore = Explore()
    alpha: Alpha = 0.05
    minimum_effect: Share = 0.01
    learn_every: LearnEvery = 2_000

    @model_validator(mode="after")
    def _range_rises(self) -> "RankerSpec":
        if not self.reward_range[0] < self.reward_range[1]:
            raise ValueError("reward_range must rise; send [smallest, largest]")
        return self


class LanguageSpec(Asked):
    """The body of ``PUT /v1/policies/{name}`` for a language policy."""

    kind: Literal["language"]
    base: Name
    recipe: PolicyName = "consolidate"
    alpha: Alpha = 0.05
    minimum_effect: Share = 0.01
    learn_every: LearnEvery = 0


class Relevance(Asked):
    """How right each item was, by item id."""

    relevance: Annotated[dict[Name, Finite], Field(min_length=1)]


class FeedbackItem(Asked):
    """One outcome as sent to ``POST /v1/feedback``."""

    id: UUID | None = None
    decision: UUID | None = None
    session: Name | None = None
    kind: OutcomeKind
    item: Name | None = None
    position: Annotated[int, Field(ge=1, le=MAX_DIM)] | None = None
    value: Finite | Relevance | UUID | None = None
    text: Text | None = None
    at: AwareDatetime | None = None
    source: Name = "human"
    token: Annotated[str, Field(max_length=1_024)] | None = None

    @model_validator(mode="after")
    def _fits_its_kind(self) -> "FeedbackItem":
        if fault := _subject_fault(self) or _value_fault(self):
            raise misfit(*fault)
        return self


def _subject_fault(item: FeedbackItem) -> tuple[str, str] | None:
    """The field that is wrong with what the outcome speaks of, and how, or nothing."""
    if item.decision is not None and item.session is not None:
        return "session", "send decision or session, not both"
    if item.decision is None and item.session is None and item.kind is not OutcomeKind.RETRACT:
        return "decision", "send the decision (or the session) that this speaks of"
    if item.at is not None and not 1970 <= item.at.year < 9999:
        return "at", f"at lies outside 1970 to 9998; {AT_REMEDY}"
    return None


def _value_fault(item: FeedbackItem) -> tuple[str, str] | None:
    """The field that is missing from, or superfluous in, an outcome of this kind, and how, or nothing."""
    kind, value = item.kind, item.value
    also = {OutcomeKind.CLICK: (item.position, "its position"), OutcomeKind.TRUTH: (value, "value.relevance")}.get(kind)
    if item.item is None and also is not None and also[0] is None:
        return "item", f"{kind} needs the item or {also[1]}"
    match kind:
        case OutcomeKind.THUMB:
            fits, want = value in (1.0, -1.0), "1 or -1"
        case OutcomeKind.REWARD:
            fits, want = isinstance(value, float), "a finite number"
        case OutcomeKind.TRUTH:
            fits, want = value is None or isinstance(value, Relevance), 'null or {"relevance": {item: number}}'
        case OutcomeKind.RETRACT:
            fits, want = isinstance(value, UUID), "the id of the outcome to retract"
        case _:
            fits, want = value is None, "null"
    if not fits:
        return "value", f"value of a {kind} is {want}"
    if kind is OutcomeKind.NONE and (item.item is not None or item.position is not None):
        return "item", "none means that nothing was chosen; leave item and position out, or send click"
    if kind is OutcomeKind.CORRECTION and item.text is None:
        return "text", "correction needs text: what was wrong, or what is right"
    if kind is OutcomeKind.DEMONSTRATION and item.text is None and item.item is None:
        return "text", "demonstration needs text or item: what should have been answered"
    return None


class FeedbackBatch(Asked):
    """Many outcomes in one request; each is judged alone."""

    items: Annotated[list[FeedbackItem], Field(min_length=1, max_length=MAX_FEEDBACK_ITEMS)]


class LearnRequest(Asked):
    """The body of ``POST /v1/policies/{name}/learn``; empty is fine. ``user``: that person's adapter alone."""

    recipe: PolicyName | None = None
    user: Name | None = None


class RollbackRequest(Asked):
    """The body of ``POST /v1/policies/{name}/rollback``; without ``to`` the previous champion returns. ``user``: of
    that person's adapter."""

    to: Name | None = None
    user: Name | None = None


class PromoteRequest(Asked):
    """The body of ``POST /v1/policies/{name}/promote``: an override by hand. ``user``: of that person's adapter."""

    version: Name
    reason: Text
    user: Name | None = None


class FreezeRequest(Asked):
    """The body of ``POST /v1/policies/{name}/freeze``: what serves while learning is stopped."""

    serve: Literal["champion", "baseline"] = "champion"


class DreamRequest(Asked):
    """The body of ``POST /v1/policies/{name}/dream``."""

    budget: Annotated[float, Field(gt=0, le=64)] | None = None
    user: Name | None = None


class Nothing(Asked):
    """An empty object."""


class UserPatch(Asked):
    """The body of ``PATCH /v1/users/{user}``."""

    learn: bool


PolicySpec = Annotated[RankerSpec | LanguageSpec, Field(discriminator="kind")]
Body = TypeVar("Body", bound=Asked)
_SPECS: Final[dict[str, type[Asked]]] = {PolicyKind.RANKER: RankerSpec, PolicyKind.LANGUAGE: LanguageSpec}
_NESTED: Final[dict[str, type[Asked]]] = {
    "context": Context,
    "candidates": Candidate,
    "explore": Explore,
    "value": Relevance,
}
_POLICY_SPEC: Final[TypeAdapter[RankerSpec | LanguageSpec]] = TypeAdapter(PolicySpec)


def parse(model: type[Body], body: bytes) -> Body:
    """The body as ``model``; an empty body is an empty object.

    Raises:
        Invalid: the body is not JSON or does not fit; ``param`` is the path of the field.
    """
    try:
        return model.model_validate_json(body or b"{}")
    except ValidationError as error:
        raise _refusal(error, tuple(model.model_fields)) from None


def parse_policy_spec(body: bytes) -> RankerSpec | LanguageSpec:
    """The body of ``PUT /v1/policies/{name}``. Raises Invalid as ``parse`` does."""
    try:
        return _POLICY_SPEC.validate_json(body or b"{}")
    except ValidationError as error:
        raise _refusal(error, ()) from None


def parse_feedback(body: bytes) -> FeedbackItem | list[FeedbackItem | Unfit]:
    """One outcome, or for ``{"items": [..]}`` a list in which each stands for itself: an item or what is wrong with it.

    Raises:
        Invalid: the body is not JSON, has too many items, or is a single outcome that does not fit.
    """
    try:
        sent = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError as error:
        raise Invalid(f'the body is not JSON ({error}); send one outcome or {{"items": [..]}}') from None
    if not isinstance(sent, dict):
        raise Invalid('send one outcome as a JSON object, or many as {"items": [..]}')
    if "items" not in sent:
        return parse(FeedbackItem, body)
    items = sent["items"]
    if not isinstance(items, list) or not 1 <= len(items) <= MAX_FEEDBACK_ITEMS or len(sent) > 1:
        raise Invalid(f"send items alone, as a list of 1 to {MAX_FEEDBACK_ITEMS} outcomes", param="items")
    return [_parse_item(item) for item in items]


def _parse_item(item: object) -> FeedbackItem | Unfit:
    try:
        return parse(FeedbackItem, orjson.dumps(item))
    except Invalid as refusal:
        return Unfit.of(item, refusal)


def parse_catalog(body: bytes) -> list[CatalogItem]:
    """The lines of ``PUT /v1/policies/{name}/catalog``; empty lines are skipped.

    Raises:
        Invalid: a line does not fit or repeats an id; the message begins with the line's number (from 1).
    """
    items: dict[str, CatalogItem] = {}
    for number, line in enumerate(body.split(b"\n"), start=1):
        if not line or line.isspace():
            continue
        try:
            item = parse(CatalogItem, line)
        except Invalid as refusal:
            raise Invalid(f"line {number}: {refusal}", param=refusal.param) from None
        if item.id in items:
            raise Invalid(f"line {number}: this id was sent on an earlier line; send each item once", param="id")
        items[item.id] = item
    return list(items.values())


def _refusal(error: ValidationError, known: Sequence[str]) -> Invalid:
    """The first fault of a body, in words that say what to do."""
    if error.error_count() > _MAX_FAULTS:
        return Invalid(f"the body has {error.error_count()} faults; compare it with this route in /openapi.json")
    fault = error.errors(include_url=False, include_input=False)[0]
    kind, path = fault["type"], [str(part) for part in fault["loc"]]
    if path and path[0] in _SPECS and (len(path) > 1 or kind == "value_error"):  # the union's tag, no field of the body
        known, path = tuple(_SPECS[path[0]].model_fields), path[1:]
    if kind == "misfit":
        return Invalid(fault["msg"], param=".".join((*path, fault["ctx"]["param"]))[:_MAX_PARAM_CHARS])
    param = ".".join(path)[:_MAX_PARAM_CHARS]
    if kind == "json_invalid":
        return Invalid(f"the body is not JSON ({fault['ctx']['error']}); send one JSON object")
    if kind == "missing":
        return Invalid(f"{param} is missing; add it", param=param, code="missing")
    if kind == "extra_forbidden":
        names = tuple(_NESTED[path[0]].model_fields) if len(path) > 1 and path[0] in _NESTED else known
        close = difflib.get_close_matches(path[-1], names, n=1)
        remedy = f"did you mean {close[0]}?" if close else "leave it out"
        return Invalid(f"{param} is not a field here; {remedy}", param=param, code="unknown_field")
    if kind in TAG_FAULTS:
        return Invalid(TAG_FAULTS[kind], param="kind", code="missing" if "not_found" in kind else "invalid")
    if kind == "enum" and path == ["kind"]:
        return Invalid(f"kind does not fit; {FEEDBACK_KINDS}", param="kind")
    if kind == "model_type" and path and path[0] in OBJECTS:
        return Invalid(f"{param} is no object; {OBJECTS[path[0]]}", param=param)
    if path and path[0] == "value":
        return Invalid(f"value does not fit; {VALUE_REMEDY}", param="value")
    message = fault["msg"].removeprefix("Value error, ") + remedy_of(kind, param)
    return Invalid(f"{param}: {message}" if param else message, param=param or None)
