"""The fields of the wire contract: names, texts, small JSON, and vectors as read-only float32 arrays.

Vectors arrive as JSON numbers or as base64 of little-endian float32; both are checked in bulk. Their declared length is
the handler's to check. Every ValueError here becomes the message of a 422, so it names the remedy.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Final
from uuid import UUID

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import AfterValidator, Field, GetCoreSchemaHandler, JsonValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from dayjob.endings import Invalid

Vector = npt.NDArray[np.float32]

# A float32 dot product of two vectors of MAX_DIM such numbers does not overflow; every real feature is far below.
MAX_MAGNITUDE: Final = 1e15
CLEAR_SQUARES: Final = 1e29
MAX_DIM: Final = 65_536
MAX_NAME_CHARS: Final = 256
MAX_TEXT_CHARS: Final = 65_536
MAX_META_BYTES: Final = 4_096
MAX_META_DEPTH: Final = 8
MAX_SAFE_INTEGER: Final = 2**53
B64_REMEDY: Final = "send base64 (RFC 4648, padded) of little-endian float32, 4 bytes a number"


def _sound(array: Vector) -> Vector:
    """The array, read-only; ValueError where a number is NaN, infinite or too large to multiply."""
    flat = array if array.ndim == 1 else array.reshape(-1)
    # No number is larger than the root of their squares' sum, and NaN compares false: one product clears nearly all.
    if float(np.dot(flat, flat)) <= CLEAR_SQUARES:
        array.setflags(write=False)
        return array
    if not float(np.abs(array).max(initial=0.0)) <= MAX_MAGNITUDE:
        at = int(np.flatnonzero(~(np.abs(flat) <= MAX_MAGNITUDE))[0])
        raise ValueError(f"number {at} (from 0) is not finite or beyond {MAX_MAGNITUDE:g}; send finite numbers")
    array.flags.writeable = False
    return array


def _from_numbers(numbers: list[Any]) -> Vector:
    with np.errstate(over="ignore"):
        return _sound(np.array(numbers, dtype=np.float32))


def _from_rows(rows: list[list[float]]) -> Vector:
    if any(len(row) != len(rows) for row in rows):
        raise ValueError(f"a loss matrix is square; send {len(rows)} rows of {len(rows)} numbers")
    return _from_numbers(rows)


def _from_bytes(raw: bytes) -> Vector:
    if len(raw) % 4:
        raise ValueError(f"{len(raw)} bytes are no whole number of float32; {B64_REMEDY}")
    return _sound(np.frombuffer(raw, dtype="<f4").astype(np.float32, copy=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfit:
    """A part of a request that does not fit, among others that do: why, the id that it was sent with, if any, and the
    decision that it speaks of."""

    id: UUID | None
    fault: Invalid
    decision: UUID | None = None

    @classmethod
    def of(cls, sent: object, fault: Invalid) -> "Unfit":
        """``sent`` is JSON of any kind."""
        return cls(id=_uuid_in(sent, "id"), fault=fault, decision=_uuid_in(sent, "decision"))


def _uuid_in(sent: object, name: str) -> UUID | None:
    try:
        return UUID(sent[name] if isinstance(sent, dict) else None)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def misfit(param: str, message: str) -> PydanticCustomError:
    """What a validator of a whole body raises: ``param`` is the field that is at fault."""
    return PydanticCustomError("misfit", "{message}", {"message": message, "param": param})


class _Numbers:
    """JSON numbers to float32, checked in bulk by the parser and once more after rounding to float32."""

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        numbers = core_schema.list_schema(core_schema.float_schema(strict=True), fail_fast=True)
        return core_schema.no_info_after_validator_function(_from_numbers, numbers)


class _Matrix:
    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        row = core_schema.list_schema(core_schema.float_schema(strict=True), fail_fast=True)
        return core_schema.no_info_after_validator_function(_from_rows, core_schema.list_schema(row, fail_fast=True))


class _Base64:
    """base64 to float32. The models' ``val_json_bytes="base64"`` has the parser decode it."""

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        published = {"format": "byte", "contentEncoding": "base64", "description": "little-endian float32"}
        raw = core_schema.bytes_schema(strict=True, metadata={"pydantic_js_updates": published})
        return core_schema.no_info_after_validator_function(_from_bytes, raw)


def _small(meta: dict[str, JsonValue]) -> dict[str, JsonValue]:
    _plain(meta, MAX_META_DEPTH)
    size = len(orjson.dumps(meta))
    if size > MAX_META_BYTES:
        raise ValueError(f"meta takes {size} bytes as JSON; keep it within {MAX_META_BYTES}")
    return meta


def _plain(value: JsonValue, depth: int) -> None:
    """ValueError unless the value survives a round trip through JSON and through every store."""
    if depth == 0:
        raise ValueError(f"meta is nested too deep; keep it within {MAX_META_DEPTH} levels")
    if isinstance(value, dict):
        for key, inner in value.items():
            _plain(key, depth)
            _plain(inner, depth - 1)
    elif isinstance(value, list):
        for inner in value:
            _plain(inner, depth - 1)
    elif isinstance(value, str):
        _no_nul(value)
    elif isinstance(value, int | float) and not abs(value) <= MAX_SAFE_INTEGER:
        raise ValueError("meta holds a number that is not finite or beyond 2^53; send it as a string")


def _no_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("the text holds a NUL character; remove it")
    return text


Finite = Annotated[float, Field(allow_inf_nan=False)]
Score = Annotated[float, Field(ge=-MAX_MAGNITUDE, le=MAX_MAGNITUDE)]
Share = Annotated[float, Field(ge=0, le=1)]
Numbers = Annotated[Vector, _Numbers]
Packed = Annotated[Vector, _Base64]
Matrix = Annotated[Vector, _Matrix]
POLICY_NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
PolicyName = Annotated[str, Field(pattern=POLICY_NAME_PATTERN)]
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARS, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]
Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARS), AfterValidator(_no_nul)]
Meta = Annotated[dict[str, JsonValue], AfterValidator(_small)]
Dim = Annotated[int, Field(ge=1, le=MAX_DIM)]
Alpha = Annotated[float, Field(gt=0, lt=1)]
LearnEvery = Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]

# ---- what to do about a fault that the parser found ------------------------------------------------------------------

VALUE_REMEDY: Final = (
    'a thumb takes 1 or -1, a reward a finite number, a truth {"relevance": {item: number}}, '
    "a retract the id of an outcome, every other kind null"
)
AT_REMEDY: Final = "send ISO 8601 with a time zone, as in 2026-11-20T09:00:00Z"
# Faults of which the parser's own words would say nothing: by its name for them.
TAG_FAULTS: Final = {
    "union_tag_not_found": 'kind is missing; send "kind": "ranker" (or "language") with the other fields',
    "union_tag_invalid": 'kind does not fit; send "kind": "ranker" (or "language")',
}
# What is an object here, by the last name of its path.
OBJECTS: Final = {
    "context": 'send {"features": [..]}',
    "candidates": 'each candidate is {"id": "..", "features": [..], "score": 0.7}; an id of the catalog {"id": ".."}',
}
FEEDBACK_KINDS: Final = (
    "send one of click, accept, reject, none, thumb, reward, truth, demonstration, retract (of a language policy "
    "correction too, and neither click nor truth)"
)
REMEDIES: Final = {
    "string_pattern_mismatch": "names of policies are letters, digits, dot, dash and underscore, "
    "other names hold no control characters",
    "bytes_invalid_encoding": B64_REMEDY,
    "datetime_parsing": AT_REMEDY,
    "datetime_from_date_parsing": AT_REMEDY,
    "timezone_aware": AT_REMEDY,
    "uuid_parsing": "send a UUID",
    "model_type": "send one JSON object",
}
# What is a UUID here, by its name.
UUIDS: Final = {
    "id": "send a UUID, or leave id out and the server makes one",
    "decision": "send the id of the answer or ranking that this speaks of",
}


def remedy_of(kind: str, param: str) -> str:
    """What to do about a fault of this kind at this field, behind a semicolon; "" where the fault says it."""
    remedy = UUIDS.get(param) if kind == "uuid_parsing" else None
    remedy = remedy or REMEDIES.get(kind)
    return f"; {remedy}" if remedy else ""
