"""From an outcome to a lesson: what was asked, what was answered, what is right, whose it is. Pure.

An outcome that does not pass the filters stays an outcome and becomes no note; why is kept, its text is not.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dayjob.endings import OutcomeKind
from dayjob.journal.notes import Told
from dayjob.memory.filters import content_fault, fault
from dayjob.memory.words import same, topic
from dayjob.records import Generation, Json, Outcome

MOST_ASKED = 300  # characters of a question that are kept, from its beginning and its end
Owner = tuple[str, str]
"""("user", name), ("session", name) where nobody is named, or ("outcome", id) where neither is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """One correction or demonstration, read. ``refused`` says why it makes no note; then its texts are empty."""

    seq: int
    outcome: Outcome  # without its text
    owner: Owner
    asked: str
    answered: str
    text: str
    topic: tuple[str, ...]  # () when it holds whatever is asked
    answer: str  # the form in which two lessons are compared
    refused: str = ""


def lesson_of(told: Told) -> Lesson:
    """What an outcome teaches."""
    outcome, decision = told.outcome, told.decision
    generation = decision.generation if decision is not None else None
    session = outcome.session or (decision.session if decision is not None else None)
    question = last_question(generation.messages) if generation is not None else ""
    chosen = _choice(outcome, generation)
    text = outcome.text or (chosen if outcome.kind is OutcomeKind.DEMONSTRATION and outcome.item is not None else "")
    refused = fault(text)
    if not refused and (hidden := content_fault(question)):
        refused = f"the question that it speaks of: {hidden}"
    asked = shorten(question)
    if refused:
        asked = chosen = text = ""
    return Lesson(
        seq=told.seq,
        outcome=replace(outcome, text=None, session=session),
        owner=owner_of(outcome.user, session, outcome=outcome.id),
        asked=asked,
        answered=shorten(chosen),
        text=text.strip(),
        topic=topic(asked),
        answer=same(text),
        refused=refused,
    )


def owner_of(user: str | None, session: str | None, *, outcome: str) -> Owner:
    """Whose a note is."""
    if user is not None:
        return "user", user
    return ("session", session) if session is not None else ("outcome", outcome)


def last_question(messages: Sequence[Json]) -> str:
    """The text of the last message that a user sent, "" when there is none."""
    content = next((one.get("content") for one in reversed(messages) if one.get("role") == "user"), None)
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list | tuple) else ()
    texts = (part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text")
    return "\n".join(text for text in texts if isinstance(text, str))


def shorten(text: str) -> str:
    """A text on one line; of a long one its beginning and its end, where questions stand, cut between words."""
    text = " ".join(text.split())
    if len(text) <= MOST_ASKED:
        return text
    half = MOST_ASKED // 2
    head, _, _ = text[:half].rpartition(" ")
    _, _, tail = text[-half:].partition(" ")
    return f"{head or text[:half]} … {tail or text[-half:]}"


def _choice(outcome: Outcome, generation: Generation | None) -> str:
    """The answer that an outcome speaks of: the choice it names, or the only one."""
    choices = generation.choices if generation is not None else ()
    if outcome.item is not None and outcome.item.isdecimal() and int(outcome.item) < len(choices):
        return choices[int(outcome.item)].text
    return choices[0].text if len(choices) == 1 else ""
