"""From what a language policy answered to one bounded observation a session. Pure.

The server throws a coin for each session and pair of versions (``serve.coin``) and journals the chance of each version.
A *session* here is what was answered in one conversation while the same versions were compared: a promotion in its
midst begins another. It closes ``window_ms`` after its first answer, whatever is asked or said until then: nobody can
hold it open, and with it the verdicts on all that began after it. What came by then is its ``rating``; what the same
conversation goes on with belongs to no session.

**The rating** r in [0, 1] is the mean over everything that somebody spoke of, an answer or the whole conversation: of
each the newest thumb (up 1, down 0), the newest of accept (1), reject (0) and none (.5), the newest reward (scaled by
``reward_range``), and a correction or demonstration (0: something was wrong).

**Silence counts .5**, as neither for nor against, and every session that a coin was thrown for counts. To leave out the
silent would let the outcome choose who is heard: a version that makes the dissatisfied walk away would be judged by
those who stayed. With silence in the middle, the mean of coin * (2 r - 1) is, whatever people do and whenever they say
nothing, the share of sessions that speak for an answer less that of those against, one version's less the other's.

**Order.** Sessions enter in the order of their first answer, each when all before it are closed: whether and when
feedback comes must not choose what is judged. Each coin is fair and unknown before its session, so H0 "the challenger's
mean is not higher" bounds E[coin * (2 r - 1) | past] by 0 at each. A session whose versions were compared before in the
same conversation has no fresh coin, and counts for nothing but the feedback's state.

A verdict on a whole conversation speaks of the session that answered last before it, and of no other: it must not be
evidence on two coins.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dayjob.endings import FeedbackState, OutcomeKind, Role
from dayjob.journal.join import surviving
from dayjob.records import Decision, Json, Stored, StoredOutcome
from dayjob.signals.rewards import RewardRange, scaled

SILENT = 0.5
ALIKE_AT_LEAST = 50  # sessions with feedback, all rated alike, before they are said to teach nothing
RATED_KEPT = 200  # ratings that the feedback's state is told from
_RATED = {
    OutcomeKind.ACCEPT: 1.0, OutcomeKind.REJECT: 0.0, OutcomeKind.NONE: SILENT, OutcomeKind.CORRECTION: 0.0,
    OutcomeKind.DEMONSTRATION: 0.0,
}  # fmt: skip
_SORT = {
    OutcomeKind.ACCEPT: "verdict", OutcomeKind.REJECT: "verdict", OutcomeKind.NONE: "verdict",
    OutcomeKind.CORRECTION: "words", OutcomeKind.DEMONSTRATION: "words",
}  # fmt: skip

Compared = tuple[str, str | None, str | None]
"""Champion, challenger, and what the champion replaced."""


def compared(decision: Decision) -> Compared | None:
    """The versions among which the coin chose; None where none was thrown: a version that was named, a person's own."""
    return versions_in(decision.extra)


def versions_in(told: Json) -> Compared | None:
    """The same, of what a decision journals of its coin."""
    if not isinstance(told.get("chances"), dict):
        return None
    return str(told["champion"]), told["challenger"], told["replaced"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What was answered in one conversation while the same versions were compared. ``turns``: its answers in order.

    ``tries`` and ``watches``: whether its coin was fresh for challenger against champion, and for the watch.
    ``speaks_until``: the sequence number from which a verdict on the whole conversation speaks of a later session.
    """

    turns: tuple[Stored, ...]
    closes_ms: int
    tries: bool
    watches: bool
    speaks_until: int | None

    @property
    def first(self) -> Decision:
        """Its first answer: who asked, what the coin said."""
        return self.turns[0].record


def is_closed(first: Decision, *, now_ms: int, window_ms: int) -> bool:
    """Whether nothing can be added to the session that begins with a decision. One from the future, from before a clock
    was set right, is closed: it must not hold up all that come after it."""
    return abs(now_ms - first.at_ms) > window_ms


def session_at(start: Stored, later: Sequence[Stored], *, before: Collection[Compared], window_ms: int) -> Session:
    """The session that begins with a decision, of versions that were not compared before in its conversation.

    ``later``: what the same conversation went on with, in order, for a window at least; ``before``: the versions that
    it compared until then.
    """
    versions, closes_ms = compared(start.record), start.record.at_ms + window_ms
    assert versions is not None, "a session begins with a coin"
    turns = [start]
    speaks_until = None
    for one in later:
        found = compared(one.record)
        if found == versions and one.record.at_ms <= closes_ms:
            turns.append(one)
        elif found not in (versions, None) and speaks_until is None:
            speaks_until = one.seq
    champion, challenger, replaced = versions
    tries = (champion, challenger) not in {(one[0], one[1]) for one in before}
    return Session(
        turns=tuple(turns),
        closes_ms=closes_ms,
        tries=tries,
        # A coin of the trial that is known already would tell who answers where the watch's does not.
        watches=(tries or challenger is None) and (champion, replaced) not in {(one[0], one[2]) for one in before},
        speaks_until=speaks_until,
    )


def closed_of(decisions: Sequence[Stored], *, now_ms: int, window_ms: int) -> int:
    """How many of the conversations that decisions belong to began a window ago."""
    first: dict[str, Decision] = {}
    for one in decisions:
        first.setdefault(one.record.session or one.record.id, one.record)
    return sum(is_closed(one, now_ms=now_ms, window_ms=window_ms) for one in first.values())


def rating(session: Session, outcomes: Mapping[str, Sequence[StoredOutcome]], *, spec: Json) -> float | None:
    """What was said of a session by the time it closed, in [0, 1]; None where nobody said anything.

    ``outcomes``: by decision id; those of the whole conversation may stand at each.
    """
    every = {one.record.id: one for turn in session.turns for one in outcomes.get(turn.record.id, ())}
    said: dict[str, dict[str, float]] = {}
    for one in surviving([one for one in every.values() if _counts(session, one)]):
        kind = one.record.kind
        value = scaled(one.record, RewardRange.of(spec)) if kind not in _RATED else _RATED[kind]
        if value is not None:
            said.setdefault(one.record.decision or "", {})[_SORT.get(kind, kind.value)] = value
    return _mean(_mean(values.values()) for values in said.values()) if said else None


def _counts(session: Session, one: StoredOutcome) -> bool:
    whole = one.record.decision is None
    later = whole and session.speaks_until is not None and one.seq > session.speaks_until
    return one.record.received_ms <= session.closes_ms and one.seq > session.turns[0].seq and not later


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


def state_of(ratings: Sequence[float]) -> tuple[FeedbackState, str, int | None]:
    """(what the newest ratings can teach, why, how many more are needed to tell)."""
    count = len(ratings)
    if len(set(ratings)) > 1:
        return FeedbackState.INFORMATIVE, f"The newest {count} sessions with feedback are not rated alike.", None
    if count < ALIKE_AT_LEAST:
        reason = f"{count} sessions with feedback so far" + (", all rated alike." if count else ".")
        return FeedbackState.TOO_FEW, reason, ALIKE_AT_LEAST - count
    return (
        FeedbackState.UNINFORMATIVE,
        f"The newest {count} sessions with feedback are all rated {ratings[0]:g} of 1: who always says the same tells "
        "no two versions apart, and nothing is promoted on it. Corrections, and thumbs down where an answer is wrong, "
        "would.",
        None,
    )


def answered_by(session: Session) -> str:
    """Whose side of the watch a session is on: ``replaced``, ``champion``, or ``challenger``, which is on neither."""
    first = session.first
    _, challenger, replaced = compared(first) or ("", None, None)
    if first.role is Role.TRIAL and first.coin > 0:
        return "replaced" if first.challenger == replaced != challenger else "challenger"
    return "champion"
