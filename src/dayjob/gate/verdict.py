"""The verdict on a challenger: pure, from numbers to one of promote, hold, reject, cannot tell, and why.

Promote needs the e-value to have reached 1 / alpha_i (``elond``), and clicks that were not found to say nothing.
Whether they were found to say something does not matter: the coin of each pair is randomisation enough. Nothing else
promotes: not the interval, not an estimate. Reject, hold and cannot tell never let anything serve, so they may use
plainer rules. A "can no longer reach the minimum effect" and the limit on closed decisions free the place on trial.
"""

import math
from dataclasses import dataclass, field

from dayjob.endings import FeedbackState, Invalid, VerdictKind

CLOSED_LIMIT = 50_000
# What mixing over bets costs against the best bet in hindsight, in nats; seen between 1 and 2 in simulations.
_MIXING_NATS = 1.5
_LARGEST_BET = 0.98


@dataclass(frozen=True, slots=True, kw_only=True)
class Grounds:
    """What the trial found. Effects are per judged decision, positive in the challenger's favour.

    ``log_e_better`` and ``log_e_worse`` are the running maxima of the log e-processes, ``log_e_now`` the present value
    of the first; ``variance`` is that of an observation on the scale where it lies in [-bound, bound].
    Example: Grounds(judged=3000, closed=8000, effect=.05, low=.01, high=.09, variance=.36, bound=2.0, log_e_better=4.1,
    log_e_now=4.0, log_e_worse=.2).
    """

    judged: int
    closed: int
    effect: float
    low: float
    high: float
    variance: float
    bound: float
    log_e_better: float
    log_e_now: float
    log_e_worse: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """How a verdict speaks of what was judged: pairs of a ranker, or sessions of a language policy."""

    one: str = "decision"
    many: str = "decisions"
    nothing: str = (
        "Nothing judged yet: no closed decision on which champion and challenger choose different first places."
    )
    refusal: str = (
        "The clicks say nothing beyond position, so no promotion rests on them; send truth or rewards, or change the "
        "page."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the policy asks of a challenger. ``clicks``: the evidence comes from feedback that must inform."""

    alpha: float = 0.05
    level: float = 0.05
    minimum_effect: float = 0.01
    closed_limit: int = CLOSED_LIMIT
    clicks: bool = True
    words: Words = field(default_factory=Words)

    def __post_init__(self) -> None:
        if not 0.0 < self.level < 1.0 or not 0.0 < self.alpha < 1.0:
            raise Invalid("alpha and the trial's level must lie strictly between 0 and 1", param="alpha")


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictResult:
    """The judge's answer. ``final``: the trial is over. ``needed_*``: None when the present effect would never do."""

    kind: VerdictKind
    final: bool
    reason: str
    grounds: Grounds
    level: float
    e_value: float
    e_needed: float
    needed_judged: int | None
    needed_closed: int | None


def decide(grounds: Grounds, terms: Terms, *, feedback: FeedbackState) -> VerdictResult:
    """The verdict on these grounds; ``feedback`` is what the policy's clicks can teach at this moment."""
    kind, final, reason = _ruling(grounds, terms, feedback=feedback)
    judged, closed = (0, 0) if final else needed(grounds, level=terms.level)
    return VerdictResult(
        kind=kind,
        final=final,
        reason=reason,
        grounds=grounds,
        level=terms.level,
        e_value=math.exp(min(grounds.log_e_better, 700.0)),
        e_needed=1.0 / terms.level,
        needed_judged=judged,
        needed_closed=closed,
    )


def needed(grounds: Grounds, *, level: float) -> tuple[int | None, int | None]:
    """(judged, closed) decisions still needed if effect, variance and rate stay as they are; None: never.

    The best bet l on an edge d with second moment s gains about l d - l^2 s / 2 nats each time.
    """
    edge = grounds.effect / grounds.bound
    moment = grounds.variance / grounds.bound**2 + edge**2
    if edge <= 0.0 or grounds.judged == 0:
        return None, None
    bet = min(edge / moment, _LARGEST_BET)
    growth = bet * edge - bet**2 * moment / 2
    paid = min(max(grounds.judged * growth - grounds.log_e_now, 0.0), _MIXING_NATS)
    missing = math.log(1.0 / level) - grounds.log_e_now + _MIXING_NATS - paid
    judged = max(1, math.ceil(missing / growth))
    return judged, math.ceil(judged * max(1.0, grounds.closed / grounds.judged))


def _ruling(grounds: Grounds, terms: Terms, *, feedback: FeedbackState) -> tuple[VerdictKind, bool, str]:
    proven = grounds.log_e_better >= math.log(1.0 / terms.level)
    if grounds.log_e_worse >= math.log(1.0 / terms.alpha):
        return VerdictKind.REJECT, True, f"Proven worse. {_how_much(grounds, terms)}."
    refused = terms.clicks and feedback is FeedbackState.UNINFORMATIVE
    if proven and not refused:
        return VerdictKind.PROMOTE, True, f"Proven better: {_evidence(grounds, terms)}. {_how_much(grounds, terms)}."
    if grounds.judged > 0 and grounds.high < terms.minimum_effect:
        return (
            VerdictKind.HOLD,
            True,
            f"It can no longer reach the minimum effect of {terms.minimum_effect:g}: {_effect(grounds, terms)}.",
        )
    if grounds.closed >= terms.closed_limit:
        return (
            VerdictKind.HOLD,
            True,
            f"No proof within {terms.closed_limit:,} closed {terms.words.many}: {_effect(grounds, terms)}; "
            f"{_evidence(grounds, terms)}.",
        )
    return VerdictKind.CANNOT_TELL, False, terms.words.refusal if refused else _waiting(grounds, terms)


def _effect(grounds: Grounds, terms: Terms) -> str:
    return (
        f"{grounds.effect:+.4f} per judged {terms.words.one} ({1 - terms.alpha:.0%} interval {grounds.low:+.4f} to "
        f"{grounds.high:+.4f}, {grounds.judged:,} judged of {grounds.closed:,} closed)"
    )


def _how_much(grounds: Grounds, terms: Terms) -> str:
    """The size beside a proof. The bets that prove a sign are quicker than the interval, which has to hold for a size
    that may change all the time: it can still hold zero, and the reader is told why."""
    early = "; proof of the sign comes before the size is known" if grounds.low <= 0.0 <= grounds.high else ""
    return f"By how much: {_effect(grounds, terms)}{early}"


def _evidence(grounds: Grounds, terms: Terms) -> str:
    e_value = math.exp(min(grounds.log_e_better, 700.0))
    return f"evidence {e_value:.3g} of {1.0 / terms.level:.3g} needed at level {terms.level:.2g}"


def _waiting(grounds: Grounds, terms: Terms) -> str:
    if grounds.judged == 0:
        return terms.words.nothing
    judged, closed = needed(grounds, level=terms.level)
    if judged is None:
        ahead = f"as it stands more {terms.words.many} would not promote it"
    else:
        ahead = (
            f"at the present rate and effect it takes about {judged:,} more judged, {closed:,} more closed "
            f"{terms.words.many}"
        )
    return f"Not decided: {_effect(grounds, terms)}; {_evidence(grounds, terms)}; {ahead}."
