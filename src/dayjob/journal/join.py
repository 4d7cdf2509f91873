"""Decisions and what came of them: which outcomes fit, which survive, and when a decision is closed. Pure.

Rules
- An outcome may come late, early, twice or out of order; the journal's sequence decides, never a clock.
- A decision *closes* for judging at its first click, none, accept, reject or truth, else when its window ends. Closed
  evidence is frozen: retractions and changes of mind that come after it still teach, and no longer judge.
- For learning, retracted outcomes vanish, and of several clicks the last surviving one counts: who comes back and
  chooses another has seen more.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dayjob.endings import OutcomeKind, PolicyKind
from dayjob.records import Decision, Joined, Json, Outcome, Stored, StoredOutcome

CLOSING = frozenset((OutcomeKind.CLICK, OutcomeKind.NONE, OutcomeKind.ACCEPT, OutcomeKind.REJECT, OutcomeKind.TRUTH))
# Where rewards or truth are what is judged, a click must not close a decision before they arrive.
CLOSING_BY_METRIC = {
    "reward": frozenset((OutcomeKind.REWARD, OutcomeKind.THUMB)),
    "truth": frozenset((OutcomeKind.TRUTH,)),
}
LANGUAGE_ONLY = frozenset((OutcomeKind.CORRECTION,))
RANKER_ONLY = frozenset((OutcomeKind.CLICK, OutcomeKind.TRUTH))


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """When a decision closes: by these kinds of outcome, or ``length_ms`` after it was served."""

    length_ms: int
    kinds: frozenset[OutcomeKind] = CLOSING


def window_of(spec: Json) -> Window:
    """The window of a policy as declared."""
    kinds = CLOSING_BY_METRIC.get(str(spec["metric"]), CLOSING)
    return Window(length_ms=int(float(spec["outcome_window_s"]) * 1000), kinds=kinds)


def fit(outcome: Outcome, *, kind: PolicyKind, shown: Sequence[str], known: Iterable[str], spec: Json) -> str | None:
    """Why an outcome cannot speak of this decision, or None when it can.

    ``shown`` are the ids in the order served (of a language policy the numbers of its choices), ``known`` all its
    candidates, ``spec`` the policy's declaration. Of a whole session there is neither.
    """
    if kind is PolicyKind.LANGUAGE:
        return _fit_language(outcome, shown, spec)
    if kind is PolicyKind.RANKER and outcome.kind in LANGUAGE_ONLY:
        return (
            f"a ranker cannot learn from kind '{outcome.kind}', which is a text: send 'truth' or 'demonstration' with "
            "the item that is right"
        )
    if outcome.position is not None and not 1 <= outcome.position <= len(shown):
        return f"position {outcome.position} was not served: this decision has positions 1 to {len(shown)}"
    if outcome.kind in (OutcomeKind.TRUTH, OutcomeKind.DEMONSTRATION):
        return _fit_truth(outcome, shown=shown, known=known)
    if outcome.item is not None:
        if outcome.item not in shown:
            return f"item {outcome.item!r} was not served by this decision"
        if outcome.position is not None and shown[outcome.position - 1] != outcome.item:
            return f"item {outcome.item!r} was served at position {list(shown).index(outcome.item) + 1}"
    if outcome.kind in (OutcomeKind.CLICK,) and outcome.item is None and outcome.position is None:
        return "a click needs 'item' or 'position'"
    return _fit_number(outcome, spec)


def _fit_language(outcome: Outcome, shown: Sequence[str], spec: Json) -> str | None:
    if outcome.kind in RANKER_ONLY:
        return (
            f"a language policy cannot learn from kind '{outcome.kind}': send thumb, correction, demonstration, "
            "accept, reject, none or reward"
        )
    if outcome.position is not None:
        return "the choices of a language policy have no position: send 'item', the index of the choice"
    if outcome.item is not None and outcome.item not in shown:
        return f"item {outcome.item!r} is no choice of this decision: send an index from 0 to {len(shown) - 1}"
    if outcome.kind in (OutcomeKind.CORRECTION, OutcomeKind.DEMONSTRATION) and not (outcome.text or outcome.item):
        return f"a {outcome.kind} needs 'text': what is right, or what should have been answered"
    return _fit_number(outcome, spec)


def _fit_truth(outcome: Outcome, *, shown: Sequence[str], known: Iterable[str]) -> str | None:
    ids = set(known)
    if outcome.item is not None:
        if outcome.item not in ids:
            return f"item {outcome.item!r} was no candidate of this decision"
        if outcome.position is not None and shown[outcome.position - 1] != outcome.item:
            return f"item {outcome.item!r} was not at position {outcome.position}"
        return None
    relevance = outcome.value.get("relevance") if isinstance(outcome.value, dict) else None
    if outcome.kind is OutcomeKind.DEMONSTRATION and relevance is None:
        return "a ranker's demonstration needs 'item', what should have stood first: it cannot order by a text"
    if not isinstance(relevance, dict) or not relevance:
        return "truth needs 'item', or value {'relevance': {id: number}}"
    for item, number in relevance.items():
        if item not in ids:
            return f"item {item!r} was no candidate of this decision"
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            return f"the relevance of {item!r} must be a finite number"
    return None


def _fit_number(outcome: Outcome, spec: Json) -> str | None:
    value = outcome.value
    if outcome.kind is OutcomeKind.THUMB and (isinstance(value, bool) or value not in (1, -1)):
        return "a thumb needs value 1 or -1"
    if outcome.kind is OutcomeKind.REWARD:
        low, high = spec.get("reward_range", (0.0, 1.0))
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return "a reward needs a finite number as value"
        if not low <= value <= high:
            return f"reward {value} is outside this policy's reward_range [{low}, {high}]"
    if outcome.kind is OutcomeKind.RETRACT and not isinstance(value, str):
        return "a retraction needs the id of the outcome to retract as value"
    return None


def surviving(outcomes: Sequence[StoredOutcome]) -> tuple[StoredOutcome, ...]:
    """The outcomes that were not retracted, in journal order, retractions themselves left out."""
    gone = {str(o.record.value) for o in outcomes if o.record.kind is OutcomeKind.RETRACT}
    kept = [o for o in outcomes if o.record.kind is not OutcomeKind.RETRACT and o.record.id not in gone]
    return tuple(sorted(kept, key=lambda o: o.seq))


def closing(
    decision: Decision, outcomes: Sequence[StoredOutcome], *, now_ms: int, window: Window
) -> StoredOutcome | int | None:
    """What closed a decision: its first closing outcome inside the window, -1 for the window's end, None while open.

    The answer does not depend on when it is asked: an outcome that came after the window never closes. Only a decision
    from the future, made before a clock was set right, closes at once: it must not keep all that follows from judgment.
    """
    deadline = decision.at_ms + window.length_ms
    first = min(
        (o for o in outcomes if o.record.kind in window.kinds and o.record.received_ms <= deadline),
        key=lambda o: o.seq,
        default=None,
    )
    if first is not None:
        return first
    return -1 if now_ms > deadline or decision.at_ms > now_ms + window.length_ms else None


def join(
    decisions: Sequence[Stored], outcomes: Mapping[str, Sequence[StoredOutcome]], *, now_ms: int, window: Window
) -> list[Joined]:
    """Each decision with its outcomes (by decision id) and what closed it."""
    out = []
    for stored in decisions:
        # What was said of a session before this decision was made does not speak of it.
        said = (o for o in outcomes.get(stored.record.id, ()) if o.seq > stored.seq)
        own = tuple(sorted(said, key=lambda o: o.seq))
        end = closing(stored.record, own, now_ms=now_ms, window=window)
        closed = end.seq if isinstance(end, StoredOutcome) else end
        out.append(Joined(stored=stored, outcomes=own, closed_seq=closed))
    return out
