"""The service's notes without a journal: made by the same rules from what staff say, found and placed the same way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dayjob.endings import OutcomeKind
from dayjob.memory.filters import fault
from dayjob.memory.lessons import Lesson, Owner, shorten
from dayjob.memory.notes import THRESHOLD
from dayjob.memory.project import Kept, Notes, Rules, project
from dayjob.memory.render import Count, Placed, entry_of, pack
from dayjob.memory.retrieve import Index
from dayjob.memory.states import Standing
from dayjob.memory.words import same, topic
from dayjob.records import Outcome

BUDGET = 512  # tokens of notes in a context, as the service's default
FRESH = ""  # the version that learned nothing
TENANT, POLICY = "default", "clerk"


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A correction or demonstration. ``asked`` and ``answered`` are "" where it speaks of a whole conversation."""

    id: str
    user: str
    session: str
    kind: OutcomeKind
    text: str
    asked: str = ""
    answered: str = ""


class Board:
    """All notes of one office. Equal words in equal order make equal notes."""

    def __init__(self, *, agree: int, count: Count) -> None:
        self._rules = Rules(tenant=TENANT, policy=POLICY, secret=b"lab", agree=agree)
        self._count = count
        self.said: list[Said] = []  # all of it, in its order
        self._lessons: list[Lesson] = []
        self._retired: dict[str, frozenset[str]] = {}  # by version
        self._standings: Mapping[str, Standing] = {}
        self._notes = Notes()
        self._indices: dict[Owner | None, Index] = {}

    @property
    def notes(self) -> Notes:
        """As they stand now."""
        return self._notes

    def tell(self, words: Iterable[Said]) -> None:
        """Take in what was said, in its order."""
        new = list(words)
        self._lessons += [_lesson(one, len(self.said) + n) for n, one in enumerate(new, start=1)]
        self.said += new
        self._follow()

    def retire(self, version: str, notes: Iterable[str]) -> None:
        """``version`` answers these without them: they are placed for it no more."""
        self._retired[version] = frozenset(notes)
        versions = {note: frozenset(v for v, gone in self._retired.items() if note in gone) for note in self.retired}
        self._standings = {note: Standing(learned=known, verified=known) for note, known in versions.items()}
        self._follow()

    @property
    def retired(self) -> frozenset[str]:
        """Notes that some version answers without."""
        return frozenset().union(*self._retired.values())

    def alive(self, version: str) -> int:
        """Notes of the office that are still placed for a version."""
        return sum(one.placed_under(version) for one in self._notes.tenant)

    def place(self, question: str, *, user: str | None, version: str = FRESH, without: str = "") -> Placed:
        """The notes for a question, as `memory.notes` places them; without a ``user`` those of the office alone.
        ``without``: the id of one that is left out."""
        groups = self._notes.visible(user, None, version=version)
        ranked = [
            (score, -scope, kept) for scope, group in enumerate(groups) for kept, score in self._scores(question, group)
        ]
        ranked.sort(key=lambda one: (-one[0], -one[1], -one[2].note.seq, one[2].note.id))
        entries = [entry_of(kept.note) for _, _, kept in ranked if kept.note.id != without]
        return pack(entries, budget=BUDGET, count=self._count)

    def own(self, placed: Placed, user: str) -> bool:
        """Whether a person's own note is among those placed."""
        mine = {kept.note.id for kept in self._notes.owned(user, None)}
        return any(one in mine for one in placed.ids)

    def nearest(self, question: str, placed: Placed) -> str:
        """The placed note that is nearest to a question in words; "" where none shares any with it."""
        every = [*self._notes.tenant, *(kept for group in self._notes.own.values() for kept in group)]
        mine = [kept.note for kept in every if kept.note.id in placed.ids]
        found = Index((note.asked, note.text) for note in mine).search(question)
        best = max(found, key=lambda at: (found[at], -at), default=None)
        return "" if best is None else mine[best].id

    def _follow(self) -> None:
        self._notes = project(self._lessons, retracted=(), standings=self._standings, rules=self._rules)
        self._indices.clear()

    def _scores(self, question: str, group: Sequence[Kept]) -> list[tuple[Kept, float]]:
        if not group:
            return []
        owner = group[0].owner
        whole = self._notes.tenant if owner is None else self._notes.own[owner]
        if owner not in self._indices:
            self._indices[owner] = Index((kept.note.asked, kept.note.text) for kept in whole)
        found = {whole[at].note.id: score for at, score in self._indices[owner].search(question).items()}
        scored = [(kept, found.get(kept.note.id, 0.0)) for kept in group]
        return [
            (kept, score if score >= THRESHOLD else 0.0)
            for kept, score in scored
            if score >= THRESHOLD or not kept.note.asked
        ]


def _lesson(said: Said, seq: int) -> Lesson:
    outcome = Outcome(
        tenant=TENANT, id=said.id, body_digest=b"", policy=POLICY, decision=said.id if said.asked else None,
        session=said.session, kind=said.kind, item=None, position=None, value=None, text=None, source="human",
        user=said.user, at_ms=seq, received_ms=seq, key_id="",
    )  # fmt: skip
    asked = shorten(said.asked)
    return Lesson(
        seq=seq, outcome=outcome, owner=("user", said.user), asked=asked, answered=shorten(said.answered),
        text=said.text.strip(), topic=topic(asked), answer=same(said.text), refused=fault(said.text),
    )  # fmt: skip
