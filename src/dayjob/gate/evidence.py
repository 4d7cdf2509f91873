"""From closed decisions to what the trial and the watch observe. Pure; the journal's bytes become arrays here.

Only the outcome that closed a decision is evidence: what comes later teaches, and does not judge.

An outcome of a whole session speaks of all its decisions at once and so of all their coins: who knows it, knows
something of each of them. It is evidence once, of the first decision it closes; the session's later decisions that it
speaks of, however they were closed, are none (:func:`once`).
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dayjob.endings import OutcomeKind, Role
from dayjob.gate.control import ANONYMOUS, RETURNED
from dayjob.gate.trial import Observations, from_clicks, from_rewards, from_truth
from dayjob.gate.watch import Arms
from dayjob.journal.writes import person_mark
from dayjob.policies.baseline import great_circle_km
from dayjob.policies.plackett_luce import order
from dayjob.records import Decision, Joined, Json, Outcome, StoredOutcome
from dayjob.signals.rewards import RewardRange, scaled
from dayjob.signals.truth import relevances

FARTHEST_KM = 20_015.0  # half the circumference of the earth
TINY = 1e-12
NO_CHANCES = (0.0, 0.0, 0.0, 0.0)
POSITIVE = (OutcomeKind.CLICK, OutcomeKind.ACCEPT, OutcomeKind.DEMONSTRATION)
OF_THE_ANSWER = (OutcomeKind.ACCEPT, OutcomeKind.REJECT)
NOBODY: Set[int] = frozenset()


def number_of(mark: bytes) -> int:
    """The number under which trials count a person, from their keyed mark (``journal.writes.person_mark``).

    Keyed with the journal's secret: from a name alone nobody can find it, and a tombstone finds what must go.
    """
    return int.from_bytes(mark[:7], "little")


def user_number(decision: Decision, key: bytes, *, gone: Set[int] = NOBODY) -> int:
    """Whose decision it was, -1 for nobody, -2 for who was erased (``gone``) and came back."""
    if decision.user is None:
        return ANONYMOUS
    number = number_of(person_mark(key, decision.tenant, decision.user))
    return RETURNED if number in gone else number


def slots_of(decision: Decision) -> npt.NDArray[np.int64]:
    """Candidate slots in the order shown (R,)."""
    return np.frombuffer(decision.ranking, "<u2").astype(np.int64)


def closing_outcome(joined: Joined) -> StoredOutcome | None:
    """What closed a decision; None when its window did."""
    return next((o for o in joined.outcomes if o.seq == joined.closed_seq), None)


def slot_of(decision: Decision, outcome: Outcome) -> int:
    """The candidate an outcome speaks of, -1 for none: an accept or reject that names none, of the first shown."""
    if outcome.item is not None:
        return next((n for n, c in enumerate(decision.candidates) if c.id == outcome.item), -1)
    if outcome.position is not None:
        return int(slots_of(decision)[outcome.position - 1])
    return int(slots_of(decision)[0]) if outcome.kind in OF_THE_ANSWER else -1


def loss_matrix(decision: Decision) -> npt.NDArray[np.float64] | None:
    """What showing one candidate for another cost (K, K), as it was known when the decision was made."""
    if "latlon" in decision.extra:
        return great_circle_km(np.array(decision.extra["latlon"], np.float64))
    return np.array(decision.extra["loss"], np.float64) if "loss" in decision.extra else None


def relevance(decision: Decision, outcome: Outcome) -> npt.NDArray[np.float64] | None:
    """Truth as relevances (K,) in [0, 1]; None when the outcome is no truth, or one that tells nothing apart."""
    if outcome.kind is not OutcomeKind.TRUTH:
        return None
    slot = slot_of(decision, outcome)
    if slot >= 0:
        one_K: npt.NDArray[np.float64] = np.eye(len(decision.candidates))[slot]
        return one_K
    return relevances(outcome.value["relevance"], [c.id for c in decision.candidates])


def once(decisions: Sequence[Joined], heard: Mapping[int, int], *, key: bytes) -> tuple[list[Joined], dict[int, int]]:
    """The decisions that are evidence, in order, and the session outcomes heard by then.

    ``heard``: for a session's keyed number, the sequence number up to which its decisions were spoken of by an outcome
    that was evidence already. Whether a decision counts is known before anything of its own is looked at.
    """
    kept, after = [], dict(heard)
    for joined in decisions:
        decision, found = joined.stored.record, closing_outcome(joined)
        session = None if decision.session is None else number_of(session_mark(key, decision))
        if session is not None and joined.stored.seq < after.get(session, 0):
            continue
        kept.append(joined)
        if session is not None and found is not None and found.record.decision is None:
            after[session] = found.seq
    through = decisions[-1].stored.seq if decisions else 0
    return kept, {session: seq for session, seq in after.items() if seq > through}


def session_mark(key: bytes, decision: Decision) -> bytes:
    """A session's keyed mark, made as a person's is and never equal to one."""
    return person_mark(key, f"{decision.tenant}\0session", str(decision.session))


def observations(pairs: Sequence[Joined], spec: Json, *, key: bytes, gone: Set[int] = NOBODY) -> Observations:
    """What a batch of closed pairs says under the policy's metric. ``pairs`` must all have a coin.

    ``key`` is the journal's secret: people are counted by keyed numbers. ``gone``: the numbers of people erased while
    this evidence was gathered; those of them who came back are one.

    Losses (metric "km", or a caller's matrix) are not judged by clicks: the pair shows which of two beliefs people
    share, and the order that least expected loss makes of a belief is arithmetic.
    """
    coin_N = np.array([p.stored.record.coin for p in pairs], np.int64)
    user_N = np.array([user_number(p.stored.record, key, gone=gone) for p in pairs], np.int64)
    metric = str(spec["metric"])
    if metric == "reward":
        reward_N = np.array([scaled_reward(p, spec) for p in pairs], np.float64)
        return from_rewards(reward_N, coin_N, user_N=user_N)
    if metric == "truth":
        a_N, b_N = _truths(pairs)
        return from_truth(a_N, b_N, coin_N=coin_N, user_N=user_N)
    return from_clicks(np.array([_preference(p) for p in pairs]), coin_N, user_N=user_N)


def _first_two(joined: Joined) -> tuple[int, int]:
    """Slots of the champion's and the rival's first choice."""
    slots, coin = slots_of(joined.stored.record), joined.stored.record.coin
    if len(slots) < 2:  # only one of the two was shown: the record names both
        champion, rival = joined.stored.record.extra["pair"]
        return int(champion), int(rival)
    return (int(slots[1]), int(slots[0])) if coin == 1 else (int(slots[0]), int(slots[1]))


def _preference(joined: Joined) -> float:
    """+1 for the rival's first choice, -1 for the champion's, 0 for neither."""
    found = closing_outcome(joined)
    if found is None or found.record.kind is OutcomeKind.NONE:
        return 0.0
    decision, outcome = joined.stored.record, found.record
    champion, rival = _first_two(joined)
    known_K = relevance(decision, outcome)
    if known_K is not None:
        return float(np.sign(known_K[rival] - known_K[champion]))
    slot = slot_of(decision, outcome)
    sign = 1.0 if outcome.kind in POSITIVE else -1.0
    return sign if slot == rival else -sign if slot == champion else 0.0


def _truths(pairs: Sequence[Joined]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    a_N, b_N = np.zeros(len(pairs)), np.zeros(len(pairs))
    for n, joined in enumerate(pairs):
        found = closing_outcome(joined)
        known_K = None if found is None else relevance(joined.stored.record, found.record)
        if known_K is not None:
            champion, rival = _first_two(joined)
            a_N[n], b_N[n] = known_K[champion], known_K[rival]
    return a_N, b_N


def scaled_reward(joined: Joined, spec: Json) -> float:
    """The closing reward or thumb in [0, 1], as the learner scales it; no outcome counts as the lowest."""
    found = closing_outcome(joined)
    low, high = (float(x) for x in spec["reward_range"])
    paid = None if found is None else scaled(found.record, RewardRange(low=low, high=high))
    return 0.0 if paid is None else paid


def success(joined: Joined, spec: Json) -> float:
    """What one decision earned, in [0, 1], for the watch over champion and holdback: 1 when its first item was chosen.

    With metric "reward" the scaled reward, with truth the relevance of the first item, with a loss 1 less the scaled
    distance of the first item from what was chosen.
    """
    if spec["metric"] == "reward":
        return scaled_reward(joined, spec)
    found = closing_outcome(joined)
    decision = joined.stored.record
    if found is None or found.record.kind in (OutcomeKind.NONE, OutcomeKind.REJECT):
        return 0.0
    first = int(slots_of(decision)[0])
    known_K = relevance(decision, found.record)
    slot = slot_of(decision, found.record) if known_K is None else int(known_K.argmax())
    loss_KK = loss_matrix(decision)
    if loss_KK is not None and slot >= 0:
        scale = FARTHEST_KM if spec["metric"] == "km" else max(float(loss_KK.max()), 1e-12)
        return float(np.clip(1.0 - loss_KK[first, slot] / scale, 0.0, 1.0))
    return float(known_K[first]) if known_K is not None else float(slot == first)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A decision of a champion's life, with the chances that it was to be held back and to be the champion's own."""

    joined: Joined
    held: float
    own: float

    @property
    def baseline(self) -> bool:
        """Whether it was held back."""
        return self.joined.stored.record.role is Role.BASELINE


def served(closed: Sequence[Joined], spec: Json, *, champion: str) -> list[Served]:
    """The decisions that a champion's watch may compare: held back, or served by the champion as it would unexplored.

    The holdback shows the baseline's order as it is, the champion explores. So its decisions count where its own best
    choice stood first all the same (with metric "reward", which pays the whole answer, where its whole order did), and
    by the chance of that, which every decision journals whichever part it drew. Which decisions may count rests on
    these chances alone.
    """
    found = []
    for joined in closed:
        decision = joined.stored.record
        told = decision.extra.get("chances", ())
        held, alone, first, whole = told if len(told) == len(NO_CHANCES) else NO_CHANCES
        own = alone * (whole if spec["metric"] == "reward" else first)
        ours = decision.extra.get("champion", decision.version) == champion
        if ours and decision.role in (Role.CHAMPION, Role.BASELINE) and 0.0 < held <= own + TINY:
            found.append(Served(joined=joined, held=float(held), own=float(own)))
    return [one for one in found if one.baseline or unexplored(one.joined.stored.record, spec)]


def unexplored(decision: Decision, spec: Json) -> bool:
    """Whether what was shown is what the serving version shows without exploring, as far as the metric looks."""
    places = len(slots_of(decision)) if spec["metric"] == "reward" else 1
    best_K = order(np.frombuffer(decision.score, "<f8"))
    return np.array_equal(slots_of(decision)[:places], best_K[:places])


def arms(batch: Sequence[Served], spec: Json, *, key: bytes, gone: Set[int] = NOBODY) -> Arms:
    """What the watch observes of them; ``key`` and ``gone`` as in :func:`observations`."""
    return Arms(
        reward_N=np.array([success(one.joined, spec) for one in batch], np.float64),
        baseline_N=np.array([one.baseline for one in batch], bool),
        held_N=np.array([one.held for one in batch], np.float64),
        alone_N=np.array([one.own for one in batch], np.float64),
        user_N=np.array([user_number(one.joined.stored.record, key, gone=gone) for one in batch], np.int64),
    )
