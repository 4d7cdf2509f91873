"""Did the pull of the first place change, or what people want, or both? From what chance showed first, and when.

Both are read off lists in which chance alone decided what stood first, within what one order served: uniformly drawn
first places beside the order's own, and the fair-coin pairs of a trial or a watch, in which either first choice stood
at position 1. A promotion changes the order and so what is clicked; it is no drift.

* *Pull*: clicks on uniformly drawn first places (whatever people want, a drawn item is as good as any), and in pairs
  clicks at position 1 less those at position 2, whichever of the two stood there.
* *What people want*: the log of how many times as often clicks pass over one item at position 1 as over the other: own
  choice against drawn item, or rival's choice against champion's. Where people begin to click the first place unseen,
  or to leave without a click, clicks below the first place become rarer by one factor whichever of the two stands
  there, and the ratio stays.

Where the pull of lower places grows against the share of people who look, the ratio moves too: the two are then told
apart only by the clicks at each position (the report's ``bias``).
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from dayjob.endings import FeedbackState, Role
from dayjob.gate.desk import F64, I64, Line
from dayjob.gate.monitors import look_level
from dayjob.records import Json
from dayjob.signals.clicklog import Bool

LEAST = 100  # lists in which chance decided the first place, in a window
MOST_WINDOWS = 4
LEVEL = 0.01  # of one report
LEAST_BELOW = 8.0  # clicks below position 1 without which nothing is said of what people want
ANONYMOUS = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A number with its standard error."""

    value: float
    error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One stretch of time. ``wanted``: None where too few clicks fell below position 1; ``from_seq``: its first row."""

    pull: Measured
    wanted: Measured | None
    from_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """What changed; None where nothing identifies it. ``since``: the journal row from which it shows."""

    position: bool | None
    relevance: bool | None
    since: int | None
    reason: str

    def to_json(self) -> Json:
        """The report's ``drift``."""
        return {
            "position": self.position, "relevance": self.relevance, "since": self.since, "reason": self.reason
        }  # fmt: skip


def drift(lines: Sequence[Line], state: FeedbackState) -> Drift:
    """Drift within ``lines``, in the order they were served. ``state``: what their clicks can teach."""
    if not any(line.click >= 0 for line in lines):
        return _silent("no click says what people do with a place")
    sources = {
        name: windows
        for name, windows in (("draws", _of_draws(lines)), ("pairs", _of_pairs(lines)))
        if len(windows) > 1
    }
    if not sources:
        drawn = sum(line.intervened for line in _newest(lines, Role.CHAMPION))
        pairs = len(_newest(lines, Role.TRIAL))
        return _silent(
            f"the newest order has {drawn} random first places and {pairs} pairs; {2 * LEAST} of either would do"
        )
    found = [_compare(name, windows, level=LEVEL / len(sources)) for name, windows in sources.items()]
    position = any(one.position for one in found)
    relevance: bool | None = any(one.relevance for one in found)
    untold = ""
    if state is FeedbackState.UNINFORMATIVE:
        relevance, untold = None, " Clicks follow the position alone, so whether wishes change cannot be told."
    elif not relevance and all(one.relevance is None for one in found):
        relevance, untold = None, " Too few clicks fall below the first place to tell whether wishes change."
    told = [one for one in found if one.position or (one.relevance and relevance)]
    return Drift(
        position=position,
        relevance=relevance,
        since=min((one.since for one in told if one.since is not None), default=None),
        reason=" ".join(one.reason for one in told or found) + untold,
    )


def _silent(why: str) -> Drift:
    return Drift(position=None, relevance=None, since=None, reason=f"Cannot tell: {why}.")


def _newest(lines: Sequence[Line], role: Role) -> list[Line]:
    """The lines of the newest order in this role."""
    mine = [line for line in lines if line.role is role]
    return [line for line in mine if line.order == mine[-1].order]


def _of_draws(lines: Sequence[Line]) -> list[Window]:
    served = _newest(lines, Role.CHAMPION)
    kept = [line for line in served if line.intervened or line.key_R[0] == line.first]
    return _windows(kept, np.array([line.intervened for line in kept], bool), pairs=False)


def _of_pairs(lines: Sequence[Line]) -> list[Window]:
    pairs = [line for line in _newest(lines, Role.TRIAL) if len(line.key_R) > 1]
    return _windows(pairs, np.array([line.key_R[0] != line.rival for line in pairs], bool), pairs=True)


def _windows(lines: Sequence[Line], base_B: Bool, *, pairs: bool) -> list[Window]:
    """Stretches with as many chance lists each. ``base_B``: a drawn item stands first, or the champion's choice."""
    chance = np.arange(len(lines)) if pairs else np.flatnonzero(base_B)
    count = min(MOST_WINDOWS, len(chance) // LEAST)
    if count < 2:
        return []
    edge = [0, *(int(chance[at * len(chance) // count]) for at in range(1, count)), len(lines)]
    click_B = np.array([line.click for line in lines], np.int64)
    weight_B = np.array([1.0 / line.chance for line in lines])
    user_B = np.array([line.user for line in lines], np.int64)
    found = []
    for start, stop in itertools.pairwise(edge):
        now = slice(start, stop)
        click, weight, user, base = click_B[now], weight_B[now], user_B[now], base_B[now]
        first = (click == 0) - 1.0 * (click == 1) if pairs else 1.0 * (click == 0)
        at = np.ones(len(click), bool) if pairs else base
        found.append(
            Window(
                pull=_mean(first[at], weight[at], user[at]),
                wanted=_passed((click > 0).astype(np.float64), weight, user, base),
                from_seq=lines[start].seq,
            )
        )
    return found


def _mean(value_N: F64, weight_N: F64, user_N: I64) -> Measured:
    mean = float(np.average(value_N, weights=weight_N))
    return Measured(value=mean, error=_error(weight_N * (value_N - mean) / weight_N.sum(), user_N))


def _error(term_N: F64, user_N: I64) -> float:
    """Of a sum of ``term_N``: clicks of one person go together. One more decision is imagined at the other end, since
    what never varied is no proof that it cannot.
    """
    label_N = np.where(user_N == ANONYMOUS, user_N.max(initial=ANONYMOUS) + 1 + np.arange(len(user_N)), user_N)
    _, row_N = np.unique(label_N, return_inverse=True)
    return math.sqrt(float((np.bincount(row_N, weights=term_N) ** 2).sum()) + 1.0 / len(term_N) ** 2)


def _passed(below_N: F64, weight_N: F64, user_N: I64, base_N: Bool) -> Measured | None:
    """log (rate of clicks below position 1 with the choice there / with the base there), by the delta method."""
    value, term_N = 0.0, np.zeros(len(below_N))
    for sign, part in ((1, ~base_N), (-1, base_N)):
        if float(below_N[part].sum()) < LEAST_BELOW:
            return None
        total = weight_N[part].sum()
        rate = float(weight_N[part] @ below_N[part] / total)
        value += sign * math.log(rate)
        term_N[part] = sign * weight_N[part] * (below_N[part] - rate) / (rate * total)
    return Measured(value=value, error=_error(term_N, user_N))


def _compare(source: str, windows: Sequence[Window], *, level: float) -> Drift:
    """Each window with the first, at levels that sum to ``level``, until one shows something."""
    told = False
    for look, now in enumerate(windows[1:], 1):
        z = NormalDist().inv_cdf(1 - look_level(level, look) / 4)  # two-sided, for each of the two
        first = windows[0]
        position = _moved(first.pull, now.pull, z)
        relevance = None
        if first.wanted is not None and now.wanted is not None:
            relevance, told = _moved(first.wanted, now.wanted, z), True
        if position or relevance:
            reason = _reason(source, first, now, (position, bool(relevance)))
            return Drift(position=position, relevance=relevance, since=now.from_seq, reason=reason)
    where = "first places drawn at random" if source == "draws" else "pairs"
    reason = f"No drift is shown by {where} ({len(windows) - 1} windows against the first)."
    return Drift(position=False, relevance=False if told else None, since=None, reason=reason)


def _moved(before: Measured, after: Measured, z: float) -> bool:
    return abs(after.value - before.value) > z * math.hypot(before.error, after.error)


def _reason(source: str, before: Window, after: Window, moved: tuple[bool, bool]) -> str:
    parts = []
    if moved[0]:
        what = "a random first place is clicked in" if source == "draws" else "in pairs position 1 leads position 2 by"
        parts.append(
            f"{what} {after.pull.value:.0%}, before it was {before.pull.value:.0%}: the page or the people changed how "
            "they click, so estimate the position bias again"
        )
    if moved[1] and before.wanted and after.wanted:
        one, other = (
            ("the order's own first choice", "a drawn item")
            if source == "draws"
            else ("the first choice of one order", "that of the other")
        )
        parts.append(
            f"clicks pass over {one} {math.exp(after.wanted.value):.2f} times as often as over {other}, before it was "
            f"{math.exp(before.wanted.value):.2f}: the items or the wishes changed, so learn from recent decisions"
        )
    text = "; and ".join(parts)
    return text[0].upper() + text[1:] + "."
