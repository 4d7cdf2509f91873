"""A policy's record page by page, for whoever writes it down: bounded memory, however long the journal is."""

from collections.abc import Iterator

import orjson

from dayjob.journal.plain import decision_view
from dayjob.journal.readers import START, Reader
from dayjob.records import Stored, StoredOutcome

AT_ONCE = 50  # decisions: an answer of a language policy may carry a long conversation
Page = tuple[list[Stored], dict[str, list[StoredOutcome]]]


def pages(reader: Reader, tenant: str, policy: str, *, at_once: int = AT_ONCE) -> Iterator[Page]:
    """Decisions, oldest first, with their outcomes by decision id. What is written meanwhile is left out."""
    cursor, until = START, reader.last_seq()
    while True:
        page, cursor = reader.decisions(tenant, policy, cursor=cursor, limit=at_once)
        page = [stored for stored in page if stored.seq <= until]
        if not page:
            return
        yield page, reader.outcomes(tenant, page)


def decision_lines(reader: Reader, tenant: str, policy: str) -> Iterator[bytes]:
    """Decisions with their outcomes as NDJSON, a page of lines at a time."""
    for page, outcomes in pages(reader, tenant, policy):
        rows = (decision_view(stored, outcomes.get(stored.record.id, [])) for stored in page)
        yield b"".join(orjson.dumps(row) + b"\n" for row in rows)
