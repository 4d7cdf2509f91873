"""What an exam's answers are worth: which are right, and which notes are needed no more. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dayjob.learn.language.splits import Asking
from dayjob.memory.lessons import last_question, shorten
from dayjob.memory.said import heard
from dayjob.memory.words import topic
from dayjob.records import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One asking, answered by both. ``wanted``: "" where the teacher contradicts what somebody showed, and nothing is
    known. ``settled``: what is said then is at least what the base model says, with the notes and without. ``behind``:
    what is said then behind the notes that do not teach it; None where there are none."""

    asking: Asking
    wanted: str
    before: str
    after: str
    behind: str | None = None
    settled: bool = False

    @property
    def as_read(self) -> bool:
        """Whether the right answer is only what the teacher makes of a correction, in whose words it does not stand."""
        said, asked = self.asking.said, last_question(self.asking.lesson.question)
        return bool(said) and not heard(self.wanted, said=said, asked=asked, before=self.before)

    @property
    def is_decided(self) -> bool:
        """Whether it is known what should be answered: by somebody's words, or by the teacher's reading of them."""
        return bool(self.wanted)

    @property
    def is_known(self) -> bool:
        """Whether it is answered rightly now, bare and behind other notes."""
        return self.is_right(self.after) and (self.behind is None or self.is_right(self.behind))

    def is_right(self, said: str) -> bool:
        """Whether an answer is the wanted one, and none that was corrected."""
        wanted = plain(self.wanted)
        return bool(wanted) and plain(said) == wanted and shorten(said) not in self.asking.wrong

    def record(self) -> Json:
        """What the judge reads."""
        return {
            "family": self.asking.lesson.family, "asked": last_question(self.asking.lesson.question),
            "wanted": self.wanted, "before": self.before, "after": self.after,
            "right_before": self.is_right(self.before), "right_after": self.is_right(self.after),
            "as_read": self.as_read,
        }  # fmt: skip


def note_holds(answered: Collection[Answered], taught: Sequence[Answered]) -> dict[str, bool]:
    """For every note that was taught and asked whether all its askings, as far as they were asked, are right now."""
    holds = {note: True for one in taught for note in one.asking.notes if note == one.asking.teacher}
    said = {one.asking.teacher for one in answered if one.asking.lesson.correction is not None}
    own = [one for one in answered if one.asking.as_taught]
    shown = {one.asking.teacher for one in own} - {one.asking.teacher for one in own if one.as_read}
    for one in answered:
        for note in one.asking.notes:
            if note in holds and not one.is_known and not one.settled:
                holds[note] = False
        if one.asking.is_known and one.asking.teacher in holds.keys() - said:
            holds[one.asking.teacher] = False  # it says what is right, and was examined on its teacher's word alone
        if one.asking.said and one.asking.teacher in holds.keys() - shown:
            holds[one.asking.teacher] = False  # nothing shows that the teacher reads it as it was meant
    return holds


def right_of_taught(taught: Sequence[Answered]) -> Json:
    """How many askings that were taught are right. Of these, those of which nothing shows that the teacher reads the
    correction as it was meant (``as_read``), and those asked as they were taught whose answer somebody said
    (``as_taught``)."""
    known = [one for one in taught if one.is_decided]
    read = [one for one in known if one.as_read]
    own = [one for one in known if one.asking.as_taught and not one.as_read]
    parts = {"as_read": read, "as_taught": own}
    return _counts(known) | {name: _counts(part) for name, part in parts.items()}


def _counts(part: Sequence[Answered]) -> Json:
    return {
        "asked": len(part), "right_before": sum(one.is_right(one.before) for one in part),
        "right_after": sum(one.is_right(one.after) for one in part),
    }  # fmt: skip


def recited(answered: Iterable[Answered], holds: Mapping[str, bool]) -> frozenset[str]:
    """The notes that hold and were asked in one wording alone; where they only stood beside another, nothing was."""
    asked: defaultdict[str, set[tuple[str, ...]]] = defaultdict(set)
    for one in answered:
        asked[one.asking.teacher].add(topic(last_question(one.asking.lesson.question)))
    return frozenset(note for note, holding in holds.items() if holding and len(asked[note]) == 1)


def plain(text: str) -> str:
    """Whatever its blanks."""
    return " ".join(text.split())
