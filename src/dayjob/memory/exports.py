"""Training examples out of a journal, as NDJSON: what `examples` makes of each page."""

from collections.abc import Iterator

import orjson

from dayjob.journal.control import Control
from dayjob.journal.exports import pages
from dayjob.journal.notes import note_events
from dayjob.journal.readers import Reader
from dayjob.memory.examples import Format, Judged, Rules, Writer, judge
from dayjob.memory.project import Silence
from dayjob.memory.states import standings
from dayjob.records import Decision


def example_lines(
    reader: Reader, control: Control, tenant: str, policy: str, *, format: Format, silent: Silence
) -> Iterator[bytes]:
    """The examples of a language policy, oldest decision first, a page of lines at a time.

    Whoever opts out, and every note that is deleted, while this is read is out of what follows.
    """

    def find(decision: str, rules: Rules) -> tuple[Decision, Judged] | None:
        stored = reader.decision(tenant, decision)
        if stored is None or stored.record.user in rules.silent:
            return None
        told = reader.outcomes(tenant, [stored]).get(decision, [])
        return stored.record, judge(stored.record, told, seq=stored.seq, rules=rules)

    writer = Writer(format=format, find=find)
    for page, outcomes in pages(reader, tenant, policy):
        standing = standings(note_events(control, tenant, policy))
        rules = Rules(
            silent=frozenset(user for owner, user in silent() if owner == tenant),
            deleted=frozenset(note for note, one in standing.items() if one.deleted),
        )
        lines = [orjson.dumps(row) + b"\n" for row in writer.examples(page, outcomes, rules=rules)]
        if lines:
            yield b"".join(lines)
