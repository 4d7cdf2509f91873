"""The notes that one layer learns, placed as the server places them: what a teacher reads before a question. Pure."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from dayjob.memory.notes import THRESHOLD
from dayjob.memory.render import Count, Entry, Placed, entry_of, pack, render
from dayjob.memory.retrieve import Index
from dayjob.memory.words import same, topic
from dayjob.records import Note


class NightNotes:
    """The notes of one layer: a person's own and the tenant's, or the tenant's alone."""

    def __init__(self, own: Sequence[Note], tenant: Sequence[Note]) -> None:
        """A person's own note on a topic comes before the tenant's, which is then left out."""
        topics = {topic(one.asked) for one in own if one.asked}
        said = {(topic(one.asked), same(one.text)) for one in own}
        others = [
            one for one in tenant if topic(one.asked) not in topics and (topic(one.asked), same(one.text)) not in said
        ]
        self._groups = [list(own), others]
        self._indices = [Index((one.asked, one.text) for one in group) for group in self._groups]
        self.by_id: Mapping[str, Note] = MappingProxyType({one.id: one for group in self._groups for one in group})

    def nearest(self, question: str, *, among: Sequence[str]) -> str:
        """Which of some notes a question is about: the best by score, then the latest."""
        scores = {note.id: score for score, _, note in self._scored(question)}
        return max(among, key=lambda one: (scores.get(one, 0.0), self.by_id[one].seq, one))

    def place(
        self, question: str, *, first: str, budget: int, count: Count, control: Sequence[str] = ()
    ) -> Placed:  # fmt: skip
        """The context of a question: the note ``first`` whatever the budget, then those that the server would place
        beside it, in the server's order (`NotesMemory.place`)."""
        entries = [entry_of(self.by_id[first]), *self._others(question, without=first)]
        room = max(budget, count(render(entries[:1])))
        return pack(entries, budget=room, count=count, control=control)

    def beside(
        self, question: str, *, without: str, budget: int, count: Count, control: Sequence[str] = ()
    ) -> Placed:  # fmt: skip
        """What the server would place if there were no note ``without``, as for a version that knows it."""
        return pack(self._others(question, without=without), budget=budget, count=count, control=control)

    def _others(self, question: str, *, without: str) -> list[Entry]:
        """All notes that may be placed but one, in the server's order."""
        scored = [one for one in self._scored(question) if one[0] >= THRESHOLD or not one[2].asked]
        scored = [(score if score >= THRESHOLD else 0.0, own, other) for score, own, other in scored]
        scored.sort(key=lambda one: (-one[0], one[1], -one[2].seq, one[2].id))
        return [entry_of(other) for _, _, other in scored if other.id != without]

    def _scored(self, question: str) -> list[tuple[float, int, Note]]:
        """(score, 0 for one's own and 1 for the tenant's, note), each scored among its owner's notes alone."""
        return [
            (found.get(place, 0.0), number, note)
            for number, (group, index) in enumerate(zip(self._groups, self._indices, strict=True))
            for found in (index.search(question),)
            for place, note in enumerate(group)
        ]
