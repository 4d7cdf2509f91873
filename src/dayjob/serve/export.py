"""GET /v1/export: a policy's record, as NDJSON or Parquet, or training examples made from it as NDJSON; streamed."""

import asyncio
from collections.abc import AsyncIterator, Iterator

from starlette.responses import Response, StreamingResponse

from dayjob.endings import Invalid, PolicyKind
from dayjob.journal import parquet
from dayjob.journal.exports import decision_lines
from dayjob.memory.examples import Format
from dayjob.memory.exports import example_lines
from dayjob.serve.call import NDJSON, Call

DECISIONS, COLUMNS = "decisions", "parquet"
FORMATS = (*(one.value for one in Format), DECISIONS, COLUMNS)


async def export(call: Call) -> Response:
    """A policy's decisions with their outcomes, or a language policy's training examples; oldest first."""
    policy, wanted = call.query("policy"), call.query("format") or DECISIONS
    if policy is None:
        raise Invalid("name the policy to export: ?policy=NAME", param="policy")
    kind = call.hub.declared(call.tenant, policy).kind
    if wanted not in FORMATS:
        raise Invalid(f"there is no format {wanted!r}: use one of {', '.join(FORMATS)}", param="format")
    hub = call.hub
    if wanted == DECISIONS:
        return _stream(decision_lines(hub.reader, call.tenant, policy))
    if wanted == COLUMNS:
        return _stream(parquet.decision_blocks(hub.reader, call.tenant, policy, kind=kind), media=parquet.PARQUET)
    if kind is PolicyKind.RANKER:
        message = f"{wanted!r} is made of words, and policy {policy!r} is a ranker: export it as format={DECISIONS}"
        raise Invalid(message, param="format")
    return _stream(
        example_lines(
            hub.reader, hub.control, call.tenant, policy, format=Format(wanted), silent=lambda: hub.silent
        )
    )  # fmt: skip


def _stream(blocks: Iterator[bytes], *, media: str = NDJSON) -> Response:
    return StreamingResponse(_blocks(blocks), media_type=media)


async def _blocks(blocks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Each block is read when the one before it was sent, beside the loop."""
    while (block := await asyncio.to_thread(next, blocks, None)) is not None:
        yield block
