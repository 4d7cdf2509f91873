"""A policy's decisions as Parquet: the rows of `exports.decision_lines` in typed columns. Needs pyarrow."""

import importlib
import io
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import orjson

from dayjob.endings import Invalid, PolicyKind
from dayjob.journal.exports import Page, pages
from dayjob.journal.plain import decision_view
from dayjob.journal.readers import Reader

PARQUET = "application/vnd.apache.parquet"
PAGES = 20  # of decisions in a row group
FREE = ("messages", "tools", "sampling", "versions", "value")  # of any shape: JSON as text
# Columns, text unless said otherwise; *: a list.
EVERY = "seq:int64 id policy user session at version role seed"
RANKER = (
    "challenger role_propensity:float64 explore:bool epsilon:float64 temperature:float64 intervened:bool coin:int64"
    " log_propensity:float64 candidates* score:float64* base:float64*"
)
LANGUAGE = "base messages tools notes* sampling prompt_ids:uint32* bare_ids:uint32*"
PLACE = "id position:int64 propensity:float64"
CHOICE = "index:int64 text ending seed versions token_ids:uint32* model_logprobs:float64* sample_logprobs:float64*"
OUTCOME = "id decision session kind item position:int64 value text source user at received"


def decision_blocks(reader: Reader, tenant: str, policy: str, *, kind: PolicyKind) -> Iterator[bytes]:
    """One file, piece by piece, in bounded memory. Raises Invalid where pyarrow is not installed."""
    try:
        arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        message = "Parquet needs pyarrow, which is not installed: pip install 'dayjob[parquet]', or export decisions"
        raise Invalid(message, param="format") from error
    nested = {"ranking": PLACE} if kind is PolicyKind.RANKER else {"choices": CHOICE}
    columns = _columns(arrow, f"{EVERY} {RANKER if kind is PolicyKind.RANKER else LANGUAGE}")
    for name, spec in (*nested.items(), ("outcomes", OUTCOME)):
        columns[name] = arrow.list_(arrow.struct(_columns(arrow, spec)))
    return _blocks(arrow, parquet.ParquetWriter, pages(reader, tenant, policy), schema=arrow.schema(columns))


def _columns(arrow: Any, spec: str) -> dict[str, Any]:
    found = {}
    for one in spec.split():
        name, _, alias = one.removesuffix("*").partition(":")
        kind = arrow.type_for_alias(alias or "string")
        found[name] = arrow.list_(kind) if one.endswith("*") else kind
    return found


def _blocks(arrow: Any, open_writer: Any, found: Iterator[Page], *, schema: Any) -> Iterator[bytes]:
    sink = io.BytesIO()  # emptied as it fills: the writer counts for itself where it is
    with open_writer(arrow.PythonFile(sink, mode="w"), schema) as writer:
        for first in found:
            group = chain([first], islice(found, PAGES - 1))
            views = (decision_view(one, said.get(one.record.id, [])) for page, said in group for one in page)
            writer.write_table(arrow.Table.from_pylist([_plain(view) for view in views], schema=schema))
            yield sink.getvalue()
            sink.seek(0)
            sink.truncate()
    yield sink.getvalue()


def _plain(value: Any, name: str = "") -> Any:
    if name in FREE:
        return None if value is None else orjson.dumps(value).decode()
    if isinstance(value, dict):
        return {key: _plain(one, key) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value
