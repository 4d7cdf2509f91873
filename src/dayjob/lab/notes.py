"""How well notes are found again: ``python -m dayjob.lab.notes`` prints the table of ``docs/notes.md``.

A made-up office (`note_questions`) taught 36 lessons; each is asked for in its own words and three others, and
questions about something else are asked too. A person with few notes has only some of them: the lessons, so many at a
time. *Recall* is the share of questions for which the right note is in the context that fits the budget. Tokens are
counted as words and signs, no model's own. Everything is deterministic.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dayjob.lab.note_questions import TAUGHT, UNRELATED
from dayjob.memory.notes import THRESHOLD
from dayjob.memory.render import Entry, pack
from dayjob.memory.retrieve import Index

BUDGETS = (48, 96, 192)
SIZES = (1, 6, 36)
WORDINGS = ("the very words", "near", "farther", "few shared words")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """For memories of one size and one budget: recall by wording, notes placed for a question about one of them, and
    the share of unrelated questions that got any note."""

    size: int
    budget: int
    recall: tuple[float, ...]
    placed: float
    disturbed: float


def count(text: str) -> int:
    """Words and signs."""
    return len(re.findall(r"\w+|[^\w\s]", text))


def measure(budget: int, *, size: int = len(TAUGHT), threshold: float = THRESHOLD) -> Row:
    """One row of the table: the office's notes, ``size`` at a time."""
    hits: list[list[bool]] = [[] for _ in WORDINGS]
    placed, noise = [], []
    for start in range(0, len(TAUGHT), size):
        part = TAUGHT[start : start + size]
        index = Index((asked, text) for asked, text, *_ in part)
        for at, (asked, _, *others) in enumerate(part):
            for found, wording in zip(hits, (asked, *others), strict=True):
                ids = _find(index, part, wording, budget=budget, threshold=threshold)
                found.append(str(at) in ids)
                placed.append(len(ids))
        noise += [bool(_find(index, part, query, budget=budget, threshold=threshold)) for query in UNRELATED]
    return Row(
        size=size,
        budget=budget,
        recall=tuple(sum(one) / len(one) for one in hits),
        placed=sum(placed) / len(placed),
        disturbed=sum(noise) / len(noise),
    )


def _find(
    index: Index, part: Sequence[tuple[str, ...]], query: str, *, budget: int, threshold: float
) -> tuple[str, ...]:
    """The places of the notes in the context of a question."""
    scores = {at: score for at, score in index.search(query).items() if score >= threshold}
    best = sorted(scores, key=lambda at: (-scores[at], -at))
    entries = [Entry(id=str(at), asked=part[at][0], text=part[at][1], order=at) for at in best]
    return pack(entries, budget=budget, count=count).ids


def table() -> str:
    """The table, in Markdown."""
    head = ["notes", "budget, tokens", *WORDINGS, "notes placed", "unrelated questions that got a note"]
    rows = [*(measure(BUDGETS[-1], size=size) for size in SIZES[:-1]), *(measure(budget) for budget in BUDGETS)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        shares = [f"{one:.2f}" for one in row.recall]
        cells = [str(row.size), str(row.budget), *shares, f"{row.placed:.1f}", f"{row.disturbed:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(f"{len(TAUGHT)} lessons, {len(UNRELATED)} unrelated questions, threshold {THRESHOLD:g}\n\n{table()}")
