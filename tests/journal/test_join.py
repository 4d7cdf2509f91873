"""Which outcomes fit, which survive, when a decision closes: rules worked by hand, and laws that hold for any order."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dayjob.endings import OutcomeKind, PolicyKind
from dayjob.fakes import FAKE_SPEC, fake_decision, fake_id, fake_outcome
from dayjob.journal.join import CLOSING, Window, closing, fit, join, surviving, window_of
from dayjob.records import Decision, Outcome, Stored, StoredOutcome

SHOWN, KNOWN = ("b", "a"), ("a", "b", "c")
AT = 1_000_000
WINDOW = Window(length_ms=1_000)


def outcome(kind: OutcomeKind, **changes: object) -> Outcome:
    return replace(fake_outcome(1, fake_id(1), kind=kind), position=None, **changes)


def faults(given_outcome: Outcome, **spec: object) -> str | None:
    return fit(given_outcome, kind=PolicyKind.RANKER, shown=SHOWN, known=KNOWN, spec=FAKE_SPEC | spec)


def at(seq: int, kind: OutcomeKind, received_ms: int = AT, **changes: object) -> StoredOutcome:
    record = replace(fake_outcome(seq, fake_id(1), kind=kind), received_ms=received_ms, **changes)
    return StoredOutcome(seq=seq, record=record)


def decision() -> Decision:
    return replace(fake_decision(1)[0], at_ms=AT)


@pytest.mark.parametrize(
    "fits",
    [
        outcome(OutcomeKind.CLICK, item="b"),
        replace(outcome(OutcomeKind.CLICK), position=2),
        replace(outcome(OutcomeKind.CLICK), item="a", position=2),
        outcome(OutcomeKind.NONE),
        outcome(OutcomeKind.ACCEPT),
        outcome(OutcomeKind.REJECT),
        outcome(OutcomeKind.THUMB, value=-1.0),
        outcome(OutcomeKind.REWARD, value=0.0),
        outcome(OutcomeKind.REWARD, value=1),
        outcome(OutcomeKind.TRUTH, item="c"),
        outcome(OutcomeKind.TRUTH, value={"relevance": {"a": 0.5, "c": -3}}),
        outcome(OutcomeKind.DEMONSTRATION, item="c"),
        outcome(OutcomeKind.RETRACT, value=fake_id(7)),
    ],
    ids=lambda o: f"{o.kind}-{o.item}-{o.position}-{o.value}",
)
def test_what_fits(fits: Outcome) -> None:
    assert faults(fits) is None


@pytest.mark.parametrize(
    ("misfit", "words"),
    [
        (outcome(OutcomeKind.CLICK), "needs 'item' or 'position'"),
        (outcome(OutcomeKind.CLICK, item="c"), "was not served"),
        (replace(outcome(OutcomeKind.CLICK), position=3), "positions 1 to 2"),
        (replace(outcome(OutcomeKind.CLICK), position=0), "positions 1 to 2"),
        (replace(outcome(OutcomeKind.CLICK), item="a", position=1), "served at position 2"),
        (outcome(OutcomeKind.ACCEPT, item="c"), "was not served"),
        (outcome(OutcomeKind.THUMB, value=0.5), "1 or -1"),
        (outcome(OutcomeKind.THUMB, value=True), "1 or -1"),
        (outcome(OutcomeKind.THUMB), "1 or -1"),
        (outcome(OutcomeKind.REWARD), "finite number"),
        (outcome(OutcomeKind.REWARD, value=math.nan), "finite number"),
        (outcome(OutcomeKind.REWARD, value=math.inf), "finite number"),
        (outcome(OutcomeKind.REWARD, value=False), "finite number"),
        (outcome(OutcomeKind.REWARD, value=-0.01), "reward_range"),
        (outcome(OutcomeKind.TRUTH), "truth needs"),
        (outcome(OutcomeKind.TRUTH, value={"relevance": {}}), "truth needs"),
        (outcome(OutcomeKind.TRUTH, value={"relevance": {"z": 1.0}}), "no candidate"),
        (outcome(OutcomeKind.TRUTH, value={"relevance": {"a": math.inf}}), "finite"),
        (outcome(OutcomeKind.TRUTH, item="z"), "no candidate"),
        (replace(outcome(OutcomeKind.TRUTH, item="a"), position=1), "not at position"),
        (outcome(OutcomeKind.DEMONSTRATION, text="so"), "needs 'item'"),
        (outcome(OutcomeKind.CORRECTION, text="so"), "a ranker cannot learn"),
        (outcome(OutcomeKind.RETRACT, value=7), "id of the outcome"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_what_does_not_fit_and_why(misfit: Outcome, words: str) -> None:
    fault = faults(misfit)
    assert fault is not None
    assert words in fault


def test_rewards_are_held_to_the_policys_own_range() -> None:
    assert faults(outcome(OutcomeKind.REWARD, value=5.0), reward_range=[0.0, 10.0]) is None
    assert faults(outcome(OutcomeKind.REWARD, value=0.5), reward_range=[1.0, 10.0]) is not None


def test_each_metric_closes_on_what_it_judges() -> None:
    spec = {"metric": "click", "outcome_window_s": 1.5}
    assert window_of(spec) == Window(length_ms=1_500, kinds=CLOSING)
    assert window_of(spec | {"metric": "km"}).kinds == CLOSING
    assert window_of(spec | {"metric": "reward"}).kinds == {OutcomeKind.REWARD, OutcomeKind.THUMB}
    assert window_of(spec | {"metric": "truth"}).kinds == {OutcomeKind.TRUTH}
    assert OutcomeKind.THUMB not in CLOSING
    assert OutcomeKind.RETRACT not in CLOSING


def test_the_first_closing_outcome_of_the_window_closes() -> None:
    thumb = at(2, OutcomeKind.THUMB)
    click, none = at(5, OutcomeKind.CLICK, AT + 900), at(4, OutcomeKind.NONE, AT + 950)
    late = at(3, OutcomeKind.CLICK, AT + 1_001)
    assert closing(decision(), [late, click, none, thumb], now_ms=AT + 9_999, window=WINDOW) == none
    assert closing(decision(), [thumb], now_ms=AT + 1_000, window=WINDOW) is None
    assert closing(decision(), [thumb, late], now_ms=AT + 1_001, window=WINDOW) == -1
    assert closing(decision(), [at(3, OutcomeKind.CLICK, AT + 1_000)], now_ms=AT, window=WINDOW) is not None


def test_a_decision_from_the_future_does_not_keep_what_follows_from_judgment() -> None:
    year = 365 * 86_400_000
    ahead = replace(decision(), at_ms=AT + year)
    assert closing(ahead, [], now_ms=AT, window=WINDOW) == -1
    a_little = replace(decision(), at_ms=AT + WINDOW.length_ms)
    assert closing(a_little, [], now_ms=AT, window=WINDOW) is None
    click = at(2, OutcomeKind.CLICK, AT)
    assert closing(ahead, [click], now_ms=AT, window=WINDOW) == click


def test_a_clock_set_back_between_decision_and_outcome_changes_nothing() -> None:
    before = at(2, OutcomeKind.CLICK, AT - 3_600_000)
    assert closing(decision(), [before], now_ms=AT - 3_600_000, window=WINDOW) == before


def test_retracted_outcomes_vanish_and_the_rest_keeps_its_order() -> None:
    click, thumb = at(5, OutcomeKind.CLICK), at(2, OutcomeKind.THUMB)
    gone = at(7, OutcomeKind.RETRACT, value=click.record.id)
    assert surviving([gone, click, thumb]) == (thumb,)
    assert surviving([click, thumb]) == (thumb, click)


def test_a_retraction_after_the_close_does_not_open_it_again() -> None:
    click = at(2, OutcomeKind.CLICK)
    gone = at(3, OutcomeKind.RETRACT, value=click.record.id)
    (joined,) = join([Stored(seq=1, record=decision())], {fake_id(1): [gone, click]}, now_ms=AT + 9_999, window=WINDOW)
    assert joined.closed_seq == 2
    assert joined.outcomes == (click, gone)


def test_what_was_said_of_a_session_before_a_decision_was_made_does_not_speak_of_it() -> None:
    """Decisions at 1 and 3 of one session, an accept of it all at 2 and a click on the later one at 5: the first hears
    the accept, the second only its click."""
    accept, click = at(2, OutcomeKind.ACCEPT), at(5, OutcomeKind.CLICK)
    later = replace(fake_decision(3)[0], at_ms=AT)
    decisions = [Stored(seq=1, record=decision()), Stored(seq=3, record=later)]
    told = {fake_id(1): [accept], fake_id(3): [accept, click]}
    first, second = join(decisions, told, now_ms=AT, window=WINDOW)
    assert (first.outcomes, first.closed_seq) == ((accept,), 2)
    assert (second.outcomes, second.closed_seq) == ((click,), 5)


@given(
    st.lists(st.tuples(st.sampled_from(list(OutcomeKind)), st.integers(AT - 2_000, AT + 3_000)), max_size=6),
    st.permutations(range(6)),
    st.integers(AT, AT + 5_000),
    st.integers(0, 10_000),
)
def test_the_close_depends_on_the_sequence_alone_and_never_moves(
    sent: list[tuple[OutcomeKind, int]], order: list[int], now: int, later: int
) -> None:
    outcomes = [at(n + 2, kind, received) for n, (kind, received) in enumerate(sent)]
    shuffled = [outcomes[n] for n in order if n < len(outcomes)]
    end = closing(decision(), outcomes, now_ms=now, window=WINDOW)
    assert closing(decision(), shuffled, now_ms=now, window=WINDOW) == end
    if end is not None:
        assert closing(decision(), outcomes, now_ms=now + later, window=WINDOW) == end
