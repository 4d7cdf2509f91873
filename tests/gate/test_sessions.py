"""Sessions as evidence: what belongs to one, when it closes, what was said of it, and which coins are fresh."""

from dataclasses import replace

import pytest

from dayjob.endings import FeedbackState, OutcomeKind, Role
from dayjob.fakes import fake_generation, fake_id, fake_outcome
from dayjob.gate.sessions import (
    ALIKE_AT_LEAST,
    Session,
    answered_by,
    closed_of,
    compared,
    is_closed,
    rating,
    session_at,
    state_of,
)  # fmt: skip
from dayjob.records import Decision, Json, Outcome, Stored, StoredOutcome

WINDOW = 60_000
T0 = 1_000_000


def turn(
    seq: int, at_ms: int, *, versions: tuple[str, str | None, str | None] = ("v1", "v2", None), coin: int = 1,
    role: Role = Role.TRIAL, challenger: str | None = "v2",
) -> Stored:  # fmt: skip
    champion, rival, replaced = versions
    extra: Json = {
        "champion": champion, "challenger": rival, "replaced": replaced,
        "chances": {"champion": 0.45, "challenger": 0.45, "replaced": 0.1},
    }  # fmt: skip
    made = replace(
        fake_generation(seq), session="s", at_ms=at_ms, role=role, challenger=challenger, coin=coin, extra=extra
    )
    return Stored(seq=seq, record=made)


def at(start: Stored, *others: Stored) -> Session:
    """The session that begins with ``start``, in a conversation of all of these."""
    before = [found for one in others if one.seq < start.seq and (found := compared(one.record))]
    later = sorted((one for one in others if one.seq > start.seq), key=lambda one: one.seq)
    return session_at(start, later, before=before, window_ms=WINDOW)


def told(
    seq: int, kind: OutcomeKind, *, value: float | str | None = None, decision: int | None = 1, at_ms: int = T0 + 10
) -> StoredOutcome:
    fake: Outcome = fake_outcome(1000 + seq, None if decision is None else fake_id(decision), kind=kind)
    session = "s" if decision is None else None
    return StoredOutcome(seq=seq, record=replace(fake, value=value, received_ms=at_ms, session=session, position=None))


def said(session: Session, *outcomes: StoredOutcome) -> float | None:
    by_decision = {one.record.id: list(outcomes) for one in session.turns}
    by_decision = {
        decision: [o for o in kept if o.record.decision in (None, decision)] for decision, kept in by_decision.items()
    }
    return rating(session, by_decision, spec={"reward_range": [0.0, 2.0]})


# ---- what belongs to a session ---------------------------------------------------------------------------------------


def test_a_session_closes_a_window_after_its_first_answer_however_long_somebody_writes():
    turns = [turn(1, T0), turn(2, T0 + WINDOW // 2), turn(3, T0 + WINDOW), turn(4, T0 + WINDOW + 1)]
    session = at(*turns)
    assert [one.seq for one in session.turns] == [1, 2, 3]
    assert session.closes_ms == T0 + WINDOW
    assert not is_closed(session.first, now_ms=T0 + WINDOW, window_ms=WINDOW)
    assert is_closed(session.first, now_ms=T0 + WINDOW + 1, window_ms=WINDOW)
    assert at(turns[0]).closes_ms == T0 + WINDOW, "fixed at its first answer"


def test_one_from_the_future_holds_up_nobody_for_longer_than_a_window():
    assert is_closed(turn(1, T0 + WINDOW + 1).record, now_ms=T0, window_ms=WINDOW)
    assert not is_closed(turn(1, T0 + WINDOW).record, now_ms=T0, window_ms=WINDOW)


def test_other_versions_begin_another_session_with_a_fresh_coin():
    old = turn(1, T0, versions=("v1", None, None), role=Role.CHAMPION, challenger=None, coin=0)
    new = turn(2, T0 + 5)
    session = at(new, old)
    assert session.tries
    assert [one.seq for one in at(old, new).turns] == [1]


def test_a_pair_that_was_compared_before_in_the_same_conversation_has_no_fresh_coin():
    first = turn(1, T0, versions=("v1", "v2", "v0"))
    other = turn(2, T0 + 1, versions=("v1", "v2", None))  # what the champion replaced is gone: the same pair
    session = at(other, first)
    assert (session.tries, session.watches) == (False, False)
    newer = turn(3, T0 + 2, versions=("v1", "v3", "v0"), challenger="v3")  # another challenger: the same watch
    session = at(newer, first)
    assert (session.tries, session.watches) == (True, False)


def test_decisions_without_a_coin_compare_nothing():
    assert compared(fake_generation(1)) is None
    assert compared(replace(fake_generation(1), extra={"chances": [0.1, 0.9, 1.0, 1.0]})) is None, "a ranker's"


@pytest.mark.parametrize(
    ("decision", "side"),
    [
        (turn(1, T0, versions=("v1", "v2", "v0")), "challenger"),
        (turn(1, T0, versions=("v1", "v2", "v0"), coin=-1), "champion"),
        (turn(1, T0, versions=("v1", "v2", "v0"), challenger="v0"), "replaced"),
        (turn(1, T0, versions=("v1", None, "v0"), challenger="v0"), "replaced"),
        (turn(1, T0, versions=("v1", None, "v0"), challenger=None, coin=0, role=Role.CHAMPION), "champion"),
    ],
)
def test_whose_side_of_the_watch_a_session_is_on(decision: Stored, side: str):
    session = at(decision)
    assert answered_by(session) == side


# ---- what was said of it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "worth"),
    [
        (told(2, OutcomeKind.THUMB, value=1), 1.0), (told(2, OutcomeKind.THUMB, value=-1), 0.0),
        (told(2, OutcomeKind.ACCEPT), 1.0), (told(2, OutcomeKind.REJECT), 0.0), (told(2, OutcomeKind.NONE), 0.5),
        (told(2, OutcomeKind.REWARD, value=0.5), 0.25), (told(2, OutcomeKind.CORRECTION), 0.0),
        (told(2, OutcomeKind.DEMONSTRATION), 0.0), (told(2, OutcomeKind.THUMB, value=1, decision=None), 1.0),
    ],
)  # fmt: skip
def test_what_each_kind_of_feedback_is_worth(outcome: StoredOutcome, worth: float):
    assert said(at(turn(1, T0)), outcome) == worth


def test_silence_is_nothing_said():
    assert said(at(turn(1, T0))) is None


def test_the_newest_of_a_kind_counts_and_a_correction_beside_a_thumb_counts_too():
    session = at(turn(1, T0))
    assert said(session, told(2, OutcomeKind.THUMB, value=-1), told(3, OutcomeKind.THUMB, value=1)) == 1.0
    assert said(session, told(2, OutcomeKind.THUMB, value=1), told(3, OutcomeKind.CORRECTION)) == 0.5
    thumb = told(2, OutcomeKind.THUMB, value=1)
    assert said(session, thumb, told(3, OutcomeKind.RETRACT, value=thumb.record.id)) is None


def test_a_hundred_thumbs_on_one_answer_are_one_voice_in_its_session():
    session = at(turn(1, T0), turn(2, T0 + 1))
    spam = [told(3 + n, OutcomeKind.THUMB, value=1) for n in range(100)]
    assert said(session, *spam, told(200, OutcomeKind.THUMB, value=-1, decision=2)) == 0.5


def test_what_comes_after_the_close_teaches_and_does_not_judge():
    session = at(turn(1, T0))
    late = told(2, OutcomeKind.THUMB, value=-1, at_ms=T0 + WINDOW + 1)
    assert said(session, late) is None
    assert said(session, told(2, OutcomeKind.THUMB, value=-1, at_ms=T0 + WINDOW)) == 0.0


def test_a_verdict_on_the_whole_conversation_is_evidence_on_one_coin():
    old, new = turn(1, T0), turn(5, T0 + 10, versions=("v1", "v3", None), challenger="v3")
    verdict = told(9, OutcomeKind.THUMB, value=-1, decision=None)
    assert said(at(old, new), verdict) is None, "it came when v3 was compared"
    assert said(at(new, old), verdict) == 0.0
    early = told(3, OutcomeKind.THUMB, value=-1, decision=None)
    assert said(at(old, new), early) == 0.0
    assert said(at(new, old), early) is None, "and this one before"


# ---- what feedback can teach -----------------------------------------------------------------------------------------


def test_feedback_that_never_varies_is_said_to_teach_nothing():
    """P9: people who accept everything."""
    assert state_of([])[0] is FeedbackState.TOO_FEW
    state, _, needed = state_of([1.0] * (ALIKE_AT_LEAST - 1))
    assert (state, needed) == (FeedbackState.TOO_FEW, 1)
    state, reason, _ = state_of([1.0] * ALIKE_AT_LEAST)
    assert state is FeedbackState.UNINFORMATIVE
    assert "nothing is promoted on it" in reason
    assert state_of([1.0, 1.0, 0.5])[0] is FeedbackState.INFORMATIVE


def test_conversations_that_wait_are_counted_once():
    def spoken(seq: int, session: str | None, at_ms: int) -> Stored:
        made: Decision = replace(fake_generation(seq), session=session, at_ms=at_ms)
        return Stored(seq=seq, record=made)

    left = [spoken(1, "a", T0), spoken(2, "b", T0 + 1), spoken(3, "a", T0 + WINDOW), spoken(4, None, T0)]
    assert closed_of(left, now_ms=T0 + WINDOW + 1, window_ms=WINDOW) == 2
