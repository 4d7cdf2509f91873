"""The verdict: which rule speaks, in which order, with which words."""

import math
from dataclasses import replace

import pytest

from dayjob.endings import FeedbackState, Invalid, VerdictKind
from dayjob.gate.verdict import CLOSED_LIMIT, Grounds, Terms, decide, needed

INFORMATIVE = FeedbackState.INFORMATIVE
QUIET = Grounds(
    judged=2000,
    closed=5000,
    effect=0.02,
    low=-0.02,
    high=0.06,
    variance=0.36,
    bound=2.0,
    log_e_better=1.0,
    log_e_now=0.5,
    log_e_worse=0.3,
)
TERMS = Terms(alpha=0.05, level=0.02, minimum_effect=0.01)


def test_promote_at_the_level_and_not_before() -> None:
    verdict = decide(replace(QUIET, log_e_better=math.log(50.0) + 1e-9), TERMS, feedback=INFORMATIVE)
    assert (verdict.kind, verdict.final) == (VerdictKind.PROMOTE, True)
    assert verdict.e_needed == pytest.approx(50.0)
    assert "+0.0200" in verdict.reason
    assert "2,000 judged of 5,000 closed" in verdict.reason
    assert decide(replace(QUIET, log_e_better=3.9), TERMS, feedback=INFORMATIVE).kind is VerdictKind.CANNOT_TELL


@pytest.mark.parametrize("state", [FeedbackState.TOO_FEW, FeedbackState.UNIDENTIFIABLE])
def test_a_proof_by_coin_flips_needs_no_word_of_the_detector(state: FeedbackState) -> None:
    proven = replace(QUIET, log_e_better=9.0, log_e_now=9.0)
    assert decide(proven, TERMS, feedback=state).kind is VerdictKind.PROMOTE


def test_clicks_that_say_nothing_promote_nothing() -> None:
    state = FeedbackState.UNINFORMATIVE
    proven = replace(QUIET, log_e_better=9.0, log_e_now=9.0)
    verdict = decide(proven, TERMS, feedback=state)
    assert (verdict.kind, verdict.final) == (VerdictKind.CANNOT_TELL, False)
    assert "click" in verdict.reason
    # Truth and rewards do not hang on what clicks can teach.
    assert decide(proven, replace(TERMS, clicks=False), feedback=state).kind is VerdictKind.PROMOTE


def test_worse_is_rejected_first() -> None:
    verdict = decide(replace(QUIET, log_e_worse=3.0, log_e_better=9.0), TERMS, feedback=INFORMATIVE)
    assert verdict.kind is VerdictKind.REJECT
    assert decide(replace(QUIET, log_e_worse=2.99), TERMS, feedback=INFORMATIVE).kind is VerdictKind.CANNOT_TELL


def test_hold_when_it_cannot_reach_the_minimum_or_takes_too_long() -> None:
    small = decide(replace(QUIET, high=0.0099), TERMS, feedback=INFORMATIVE)
    assert small.kind is VerdictKind.HOLD
    assert "minimum effect of 0.01" in small.reason
    late = decide(replace(QUIET, closed=CLOSED_LIMIT), TERMS, feedback=FeedbackState.UNINFORMATIVE)
    assert (late.kind, late.final) == (VerdictKind.HOLD, True)
    assert "50,000" in late.reason
    # A proof beats the clock.
    assert (
        decide(replace(QUIET, closed=CLOSED_LIMIT, log_e_better=9.0), TERMS, feedback=INFORMATIVE).kind
        is VerdictKind.PROMOTE
    )


def test_what_is_still_needed_worked_by_hand() -> None:
    # edge .01, second moment .09 + .0001, best bet .111, growth .01^2 / (2 * .0901) = 5.549e-4 nats a decision.
    growth = 0.01**2 / (2 * 0.0901)
    paid = min(max(2000 * growth - 0.5, 0.0), 1.5)
    missing = math.log(50.0) - 0.5 + 1.5 - paid
    judged, closed = needed(QUIET, level=0.02)
    assert judged == math.ceil(missing / growth)
    assert closed == math.ceil(judged * 2.5)
    assert needed(replace(QUIET, effect=-0.01), level=0.02) == (None, None)
    assert "would not promote" in decide(replace(QUIET, effect=-0.01), TERMS, feedback=INFORMATIVE).reason
    # A huge edge is limited by the largest bet, not by the formula's optimum.
    quick, _ = needed(replace(QUIET, effect=2.0, variance=0.0, judged=1, closed=1, log_e_now=0.6), level=0.02)
    assert quick is not None
    assert 1 <= quick <= 12


def test_nothing_judged_yet() -> None:
    empty = Grounds(
        judged=0,
        closed=40,
        effect=0.0,
        low=-1.0,
        high=1.0,
        variance=0.0,
        bound=2.0,
        log_e_better=0.0,
        log_e_now=0.0,
        log_e_worse=0.0,
    )
    verdict = decide(empty, TERMS, feedback=INFORMATIVE)
    assert (verdict.kind, verdict.needed_judged) == (VerdictKind.CANNOT_TELL, None)
    assert "Nothing judged" in verdict.reason


def test_terms_are_checked() -> None:
    with pytest.raises(Invalid, match="level"):
        Terms(level=0.0)
