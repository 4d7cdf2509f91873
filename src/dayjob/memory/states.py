"""Where a note stands, from its events. Pure: one transition, one reading.

A state is always *for a version*: what one learned says nothing of another. So a version that is rolled back takes
nothing with it: the note is active again for the version that serves then, with nothing to write and nothing to forget.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from dayjob.endings import NoteChange, NoteState
from dayjob.records import NoteEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """All that the events say of one note."""

    deleted: bool = False
    shared: int = 0  # the number of the event that shared it; 0: it is not shared
    learned: frozenset[str] = frozenset()  # versions
    verified: frozenset[str] = frozenset()
    recited: frozenset[str] = frozenset()  # versions that answer rightly in the one wording that it came up in


FRESH = Standing()


def advance(standing: Standing, event: NoteEvent, *, number: int) -> Standing:
    """The standing after one more event; ``number`` is the event's place."""
    version = frozenset((event.version,))
    match event.change:
        case NoteChange.DELETED:
            return replace(standing, deleted=True)
        case NoteChange.SHARED:
            return replace(standing, shared=number)
        case NoteChange.UNSHARED:
            return replace(standing, shared=0)
        case NoteChange.LEARNED:
            return replace(standing, learned=standing.learned | version)
        case NoteChange.VERIFIED:
            return replace(standing, verified=standing.verified | version, recited=standing.recited - version)
        case NoteChange.RECITED:
            return replace(standing, recited=standing.recited | version, verified=standing.verified - version)
        case NoteChange.FAILED:
            return replace(standing, verified=standing.verified - version, recited=standing.recited - version)


def standings(
    events: Iterable[tuple[int, NoteEvent]], *, known: Mapping[str, Standing] | None = None
) -> dict[str, Standing]:
    """The standing of every note that events speak of, from what was ``known`` before them."""
    out = dict(known or {})
    for number, event in events:
        out[event.note] = advance(out.get(event.note, FRESH), event, number=number)
    return out


def state(standing: Standing, version: str) -> NoteState:
    """Where the note stands while ``version`` answers: retired once it was shown to answer rightly without it."""
    if version in standing.verified | standing.recited:
        return NoteState.RETIRED
    return NoteState.CONSOLIDATED if version in standing.learned else NoteState.ACTIVE
