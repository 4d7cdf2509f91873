"""The notes of every policy, in step with the journal: placed, listed, deleted, shared, and what nights say of them.

Promise 8: a person's notes are for that person alone, in context (`place`) and for training (`for_training`); the
tenant's are what an admin key shared or several people said (`project`). Every call first reads what the journal and
control.db say since the last, so that a correction works from the next question on, and what was erased or deleted is
out of it. Calls block for a few short reads; safe to share between threads.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from dayjob.endings import Forbidden, NoteChange, NoteScope, NotFound, OutcomeKind
from dayjob.journal.control import Control
from dayjob.journal.notes import NotesReader, add_note_events, forget_notes, note_events
from dayjob.memory.lessons import Lesson, lesson_of, shorten
from dayjob.memory.project import Kept, Notes, Refused, Rules, Silence, agreed_id, project
from dayjob.memory.render import Count, Placed, entry_of, holds, pack
from dayjob.memory.retrieve import Index
from dayjob.memory.states import Standing, standings
from dayjob.memory.words import topic
from dayjob.records import Note, NoteEvent

THRESHOLD = 0.22  # of `retrieve`'s score: below it a note has nothing to do with a question (table in docs/notes.md)
MOST_INDICES = 256  # kept for the owners that asked last

Retractions = frozenset[tuple[str, str | None, str | None]]
Serves = Callable[[str | None], str]
"""The version that serves a person; None: whoever is not named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Whom an answer is for, what was asked, and the room for notes."""

    user: str | None
    session: str | None
    text: str  # the last user turn
    version: str  # that will answer: what it no longer needs is left out
    budget: int  # tokens, the heading included
    count: Count
    control: Sequence[str] = ()  # control tokens of the policy's tokenizer


@dataclass(slots=True)
class _Shelf:
    """What is known of one policy, up to a place in the journal and an event."""

    until: int = 0
    erased: int = 0
    event: int = 0
    lessons: list[Lesson] = field(default_factory=list)
    retracted: Retractions = frozenset()
    standings: dict[str, Standing] = field(default_factory=dict)
    silent: frozenset[str] = frozenset()
    notes: Notes = field(default_factory=Notes)
    indices: OrderedDict[object, Index] = field(default_factory=OrderedDict)


class NotesMemory:
    """The memory of one data directory."""

    def __init__(self, reader: NotesReader, control: Control, *, silent: Silence, agree: int = 3) -> None:
        """``silent``: who is not learned from. ``agree``: people who make a note the tenant's; 0: only an admin."""
        self._reader = reader
        self._control = control
        self._silent = silent
        self._agree = agree
        self._secret = control.secret("notes")
        self._shelves: dict[tuple[str, str], _Shelf] = {}
        self._lock = threading.Lock()

    # ---- into the context

    def place(self, tenant: str, policy: str, question: Question) -> Placed:
        """The notes that concern a question, as a part of the context, within its budget.

        Best first by score, then a person's own before the tenant's, then the later. Notes that hold whatever is asked
        come after those that concern the question. Equal journals and questions place equal texts.
        """
        with self._lock:
            shelf = self._follow(tenant, policy)
            asked = topic(shorten(question.text))  # as `lesson_of` has it
            groups = shelf.notes.visible(question.user, question.session, version=question.version, asked=asked)
            ranked = [
                (score, -scope, kept)
                for scope, group in enumerate(groups)
                for kept, score in self._scores(shelf, question, group)
            ]
        ranked.sort(key=lambda one: (-one[0], -one[1], -one[2].note.seq, one[2].note.id))
        entries = [entry_of(kept.note) for _, _, kept in ranked]
        return pack(entries, budget=question.budget, count=question.count, control=question.control)

    def _scores(self, shelf: _Shelf, question: Question, group: Sequence[Kept]) -> list[tuple[Kept, float]]:
        """The notes of one owner that are worth placing, scored among that owner's notes alone: what others taught
        has no influence on what a person gets."""
        if not group:
            return []
        owner = group[0].owner
        whole = shelf.notes.tenant if owner is None else shelf.notes.own[owner]
        index = shelf.indices.pop(owner, None) or Index((kept.note.asked, kept.note.text) for kept in whole)
        shelf.indices[owner] = index
        while len(shelf.indices) > MOST_INDICES:
            shelf.indices.popitem(last=False)
        found = {whole[at].note.id: score for at, score in index.search(question.text).items() if score >= THRESHOLD}
        scored = ((kept, found.get(kept.note.id, 0.0)) for kept in group)
        return [(kept, score) for kept, score in scored if score > 0 or not kept.note.asked]

    # ---- for people

    def listed(
        self, tenant: str, policy: str, *, version: str | Serves, user: str | None = None, session: str | None = None
    ) -> tuple[list[Note], list[Refused]]:
        """Notes as they stand for a version (or for the one that serves the ``user``, else whoever taught them), newest
        first, and outcomes that make none.

        With a ``user``: that person's and the tenant's. With a ``session``: those taught in it. With neither: all.
        """
        with self._lock:
            notes = self._follow(tenant, policy).notes
        own = [kept for group in notes.own.values() for kept in group if not _shared(kept.note)]
        listed = (*own, *notes.tenant, *notes.history)
        people = {user or kept.note.user for kept in listed}
        serves = {one: version if isinstance(version, str) else version(one) for one in people}
        every = [kept.under(serves[user or kept.note.user]) for kept in listed]
        shown = [one for one in every if _concerns(one.user, one.session, user, session, shared=_shared(one))]
        refused = [
            one
            for one in notes.refused
            if _concerns(one.lesson.outcome.user, one.lesson.outcome.session, user, session, shared=False)
        ]
        return sorted(shown, key=lambda one: (-one.seq, one.id)), refused[::-1]

    def find(self, tenant: str, policies: Iterable[str], note: str) -> Note:
        """A note by its id, as it stands for a version that learned nothing. Raises NotFound."""
        for policy in policies:
            for one in self.listed(tenant, policy, version="")[0]:
                if one.id == note:
                    return one
        raise NotFound(f"there is no note {note!r}: GET /v1/notes lists them")

    def delete(self, note: Note, *, by: str) -> None:
        """Forget a note: it is in no context and taught by no night from now on. Its outcome stays in the journal."""
        self._tell(note.tenant, note.policy, [note.id], NoteChange.DELETED, by=by)

    def share(self, note: Note, *, scope: NoteScope, by: str) -> None:
        """Make a note the tenant's, or its owner's again. Raises Forbidden for one that several people agreed on."""
        if note.id.startswith("agreed-"):
            raise Forbidden("several people said this, it is nobody's own: delete it to have it forgotten")
        change = NoteChange.SHARED if scope is NoteScope.TENANT else NoteChange.UNSHARED
        self._tell(note.tenant, note.policy, [note.id], change, by=by)

    # ---- for nights

    def for_training(
        self, tenant: str, policy: str, *, user: str | None, version: str, until: int | None = None,
        control: Sequence[str] = (),
    ) -> list[Note]:  # fmt: skip
        """What an adapter may learn, oldest first: a person's own notes for theirs, the tenant's (``user`` None) for
        the tenant's, never another's. Retired ones too: every version is made from the base, and has to learn them.

        ``until``: only what was taught up to this place in the journal, so that a night can be done again. ``control``:
        control tokens of the policy's tokenizer; a note that holds one cannot be said to the model, and is left out.
        """
        notes = self._as_of(tenant, policy, until)
        kept = notes.tenant if user is None else notes.owned(user, None)
        spoken = (one for one in kept if not holds(one.note.asked, control) and not holds(one.note.text, control))
        return [one.under(version) for one in spoken]

    def speakers(self, tenant: str, policy: str, *, until: int | None = None) -> dict[str, frozenset[str]]:
        """Whose words each of the tenant's notes are, by its id: who is erased takes what they said along."""
        return self._as_of(tenant, policy, until).speakers()

    def corrected(
        self, tenant: str, policy: str, *, user: str | None, until: int | None = None
    ) -> dict[str, frozenset[str]]:
        """The answers, shortened (`lessons.shorten`), that a layer's notes correct, by their ids: a night must not take
        one of them for right. Of notes that several agreed on they are answers to single people: never to be shown."""
        return self._as_of(tenant, policy, until).corrected(user)

    def withdrawn(self, tenant: str, policy: str, *, user: str | None, version: str) -> list[str]:
        """Notes that a version learned and that it would not be taught today: deleted, taken back, shared no more.

        ``user``: whose adapter it is; None: the tenant's. A note that a newer one replaced was not withdrawn.
        """
        with self._lock:
            shelf = self._follow(tenant, policy)
            notes = shelf.notes
            mine = () if user is None else notes.owned(user, None)
            standing = {kept.note.id for kept in (*notes.tenant, *mine, *notes.history)}
            return sorted(
                note for note, said in shelf.standings.items() if version in said.learned and note not in standing
            )

    def learned(self, tenant: str, policy: str, *, version: str, notes: Sequence[str], by: str = "night") -> None:
        """Record that a version learned these notes."""
        self._tell(tenant, policy, notes, NoteChange.LEARNED, version=version, by=by)

    def verified(
        self, tenant: str, policy: str, *, version: str, right: Sequence[str], wrong: Sequence[str],
        recited: Sequence[str] = (), by: str = "night",
    ) -> None:  # fmt: skip
        """Record which notes a version answers rightly without, which retires them under it, and which it does not.
        ``recited``: rightly in the one wording that they came up in; in others they go on being placed."""
        self._tell(tenant, policy, right, NoteChange.VERIFIED, version=version, by=by)
        self._tell(tenant, policy, recited, NoteChange.RECITED, version=version, by=by)
        self._tell(tenant, policy, wrong, NoteChange.FAILED, version=version, by=by)

    def _tell(
        self, tenant: str, policy: str, notes: Sequence[str], change: NoteChange, *, by: str, version: str = ""
    ) -> None:
        now = int(time.time() * 1000)
        events = [NoteEvent(note=one, change=change, version=version, at_ms=now, by=by) for one in notes]
        if events:
            add_note_events(self._control, tenant, policy, events)

    # ---- in step with the journal

    def _follow(self, tenant: str, policy: str) -> _Shelf:
        """The shelf of a policy, as the journal and control.db stand now."""
        key = (tenant, policy)
        erased, newest = self._reader.newest_erasure(tenant), self._reader.last_seq()
        old = self._shelves.get(key)
        shelf = old if old is not None and old.erased == erased else _Shelf(erased=erased)
        told = self._reader.taught(tenant, policy, after=shelf.until, until=newest) if newest > shelf.until else []
        events = note_events(self._control, tenant, policy, after=shelf.event)
        silent = frozenset(user for owner, user in self._silent() if owner == tenant)
        if told or events or shelf is not old or silent != shelf.silent:
            unsaid = [one.outcome for one in told if one.outcome.kind is OutcomeKind.RETRACT]
            shelf.lessons += [lesson_of(one) for one in told if one.outcome.kind is not OutcomeKind.RETRACT]
            shelf.retracted |= {(str(one.value), one.decision, one.session) for one in unsaid}
            shelf.standings = standings(events, known=shelf.standings)
            shelf.silent = silent
            shelf.notes = self._project(tenant, policy, shelf)
            shelf.event = events[-1][0] if events else shelf.event
            shelf.indices.clear()
        shelf.until = newest
        if shelf is not old and erased:
            self._forget(tenant, policy, shelf)
        self._shelves[key] = shelf
        return shelf

    def _as_of(self, tenant: str, policy: str, until: int | None) -> Notes:
        """The notes that what was said up to a place in the journal makes; None: up to now."""
        with self._lock:
            shelf = self._follow(tenant, policy)
            if until is None or until >= shelf.until:
                return shelf.notes
            return self._project(tenant, policy, shelf, until=until)

    def _project(self, tenant: str, policy: str, shelf: _Shelf, *, until: int | None = None) -> Notes:
        rules = self._rules(tenant, policy, shelf)
        lessons = [one for one in shelf.lessons if until is None or one.seq <= until]
        return project(lessons, retracted=shelf.retracted, standings=shelf.standings, rules=rules)

    def _rules(self, tenant: str, policy: str, shelf: _Shelf) -> Rules:
        return Rules(tenant=tenant, policy=policy, secret=self._secret, agree=self._agree, silent=shelf.silent)

    def _forget(self, tenant: str, policy: str, shelf: _Shelf) -> None:
        """Take the names of notes that are no more out of the events, after an erasure."""
        rules = self._rules(tenant, policy, shelf)
        known = {one.outcome.id for one in shelf.lessons}
        known |= {agreed_id(rules, one.topic, answer=one.answer) for one in shelf.lessons}
        gone = [note for note in shelf.standings if note and note not in known]
        if gone:
            forget_notes(self._control, tenant, policy, notes=gone)


def _shared(note: Note) -> bool:
    return note.scope is NoteScope.TENANT


def _concerns(owner: str | None, taught_in: str | None, user: str | None, session: str | None, *, shared: bool) -> bool:
    """Whether a note is asked for by a listing of a ``user``, a ``session``, both or neither."""
    mine = user is None or shared or owner == user
    return mine and (session is None or taught_in == session)
