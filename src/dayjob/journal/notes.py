"""What notes are made from: outcomes that teach, with their decisions, and the events of control.db beside them.

A note is a projection (`memory`): nothing that an outcome says is stored a second time, so that a note is as durable as
its outcome (promise 1), and erasing a person leaves no copy behind (promise 8). Only what outcomes cannot say is kept
here: that a note was deleted, shared, learned by a version, or is no longer needed by one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dayjob.endings import NoteChange, OutcomeKind
from dayjob.journal.columns import NOTE_EVENTS, OUTCOMES
from dayjob.journal.control import Control
from dayjob.journal.readers import PAGE, Reader
from dayjob.journal.rows import row_outcome
from dayjob.records import Decision, NoteEvent, Outcome

TEACHING = (OutcomeKind.CORRECTION, OutcomeKind.DEMONSTRATION, OutcomeKind.RETRACT)
_KINDS = ", ".join(f"'{kind.value}'" for kind in TEACHING)
_TAUGHT = OUTCOMES.select(
    f"WHERE tenant=? AND policy=? AND seq>? AND seq<=? AND kind IN ({_KINDS}) ORDER BY seq LIMIT ?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An outcome that teaches or takes back, with its place in the journal and the decision that it speaks of."""

    seq: int
    outcome: Outcome
    decision: Decision | None  # None for a whole session, and for what takes back


class NotesReader(Reader):
    """A reader of the journal that finds what was taught."""

    def taught(self, tenant: str, policy: str, *, after: int, until: int) -> list[Told]:
        """What was taught and taken back after one sequence number and up to another, in order."""
        out: list[Told] = []
        while True:
            page = self._db().execute(_TAUGHT, (tenant, policy, after, until, PAGE)).fetchall()
            for row in page:
                told = row_outcome(row)
                after, decision = told.seq, None
                if told.record.decision is not None and told.record.kind is not OutcomeKind.RETRACT:
                    stored = self.decision(tenant, told.record.decision)
                    if stored is None:
                        continue  # erased between the two looks
                    decision = stored.record
                out.append(Told(seq=told.seq, outcome=told.record, decision=decision))
            if len(page) < PAGE:
                return out

    def newest_erasure(self, tenant: str) -> int:
        """The sequence number of the newest erasure, 0 when nobody was erased."""
        row = self._db().execute("SELECT MAX(seq) FROM tombstones WHERE tenant=?", (tenant,)).fetchone()
        return 0 if row is None or row[0] is None else int(row[0])


def add_note_events(control: Control, tenant: str, policy: str, events: Iterable[NoteEvent]) -> None:
    """Append events of notes, all of them or none."""
    with control.write() as db:
        row = db.execute("SELECT MAX(n) FROM note_events WHERE tenant=? AND policy=?", (tenant, policy)).fetchone()
        first = 1 + (0 if row is None or row[0] is None else int(row[0]))
        db.executemany(
            NOTE_EVENTS.insert(),
            [
                (tenant, policy, n, one.note, one.change.value, one.version, one.at_ms, one.by)
                for n, one in enumerate(events, start=first)
            ],
        )


def note_events(control: Control, tenant: str, policy: str, *, after: int = 0) -> list[tuple[int, NoteEvent]]:
    """The events after a number, each with its own, in order."""
    rows = control.db().execute(
        NOTE_EVENTS.select("WHERE tenant=? AND policy=? AND n>? ORDER BY n"), (tenant, policy, after)
    )
    return [
        (row[2], NoteEvent(note=row[3], change=NoteChange(row[4]), version=row[5], at_ms=row[6], by=row[7]))
        for row in rows
    ]


def forget_notes(control: Control, tenant: str, policy: str, *, notes: Sequence[str]) -> None:
    """Take the names of notes out of the events: what they came from was erased. Numbers stay, for who reads on."""
    with control.write() as db:
        db.executemany(
            "UPDATE note_events SET note='', by='' WHERE tenant=? AND policy=? AND note=?",
            [(tenant, policy, note) for note in notes],
        )
