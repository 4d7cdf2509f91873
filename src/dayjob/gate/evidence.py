"""From closed decisions to what the trial and the watch observe. Pure; the journal's bytes become arrays here.

Only the outcome that closed a decision is evidence: what comes later teaches, and does not judge.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dayjob.endings import OutcomeKind, Role
from dayjob.gate.control import ANONYMOUS
from dayjob.gate.trial import Observations, from_clicks, from_rewards, from_truth
from dayjob.gate.watch import Arms
from dayjob.policies.baseline import great_circle_km
from dayjob.records import Decision, Joined, Json, Outcome, StoredOutcome

FARTHEST_KM = 20_015.0  # half the circumference of the earth
TINY = 1e-12
POSITIVE = (OutcomeKind.CLICK, OutcomeKind.ACCEPT, OutcomeKind.DEMONSTRATION)


def user_number(user: str | None) -> int:
    """A stable number for a person, -1 for nobody: trials count people by it."""
    if user is None:
        return ANONYMOUS
    return int.from_bytes(hashlib.blake2b(user.encode(), digest_size=7).digest(), "little")


def slots_of(decision: Decision) -> npt.NDArray[np.int64]:
    """Candidate slots in the order shown (R,)."""
    return np.frombuffer(decision.ranking, "<u2").astype(np.int64)


def closing_outcome(joined: Joined) -> StoredOutcome | None:
    """What closed a decision; None when its window did."""
    return next((o for o in joined.outcomes if o.seq == joined.closed_seq), None)


def slot_of(decision: Decision, outcome: Outcome) -> int:
    """The candidate an outcome names, -1 when it names none."""
    if outcome.item is not None:
        return next((n for n, c in enumerate(decision.candidates) if c.id == outcome.item), -1)
    if outcome.position is not None:
        return int(slots_of(decision)[outcome.position - 1])
    return -1


def loss_matrix(decision: Decision) -> npt.NDArray[np.float64] | None:
    """What showing one candidate for another cost (K, K), as it was known when the decision was made."""
    if "latlon" in decision.extra:
        return great_circle_km(np.array(decision.extra["latlon"], np.float64))
    return np.array(decision.extra["loss"], np.float64) if "loss" in decision.extra else None


def relevance(decision: Decision, outcome: Outcome) -> npt.NDArray[np.float64] | None:
    """Truth as relevances (K,) in [0, 1]; None when the outcome is no truth."""
    if outcome.kind is not OutcomeKind.TRUTH:
        return None
    k = len(decision.candidates)
    slot = slot_of(decision, outcome)
    if slot >= 0:
        one_K: npt.NDArray[np.float64] = np.eye(k)[slot]
        return one_K
    given: dict[str, Any] = outcome.value["relevance"]
    known_K = np.array([float(given.get(c.id, np.nan)) for c in decision.candidates])
    low, high = float(np.nanmin(known_K)), float(np.nanmax(known_K))
    if high <= low:
        return np.zeros(k)
    return np.nan_to_num((known_K - low) / (high - low), nan=0.0)


def observations(pairs: Sequence[Joined], spec: Json) -> Observations:
    """What a batch of closed pairs says under the policy's metric. ``pairs`` must all have a coin.

    Losses (metric "km", or a caller's matrix) are not judged by clicks: the pair shows which of two beliefs people
    share, and the order that least expected loss makes of a belief is arithmetic.
    """
    coin_N = np.array([p.stored.record.coin for p in pairs], np.int64)
    user_N = np.array([user_number(p.stored.record.user) for p in pairs], np.int64)
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
    """The closing reward in [0, 1] by the policy's range; no outcome counts as the lowest."""
    found = closing_outcome(joined)
    low, high = (float(x) for x in spec["reward_range"])
    if found is None or found.record.kind is not OutcomeKind.REWARD:
        return 0.0
    return float(np.clip((float(found.record.value) - low) / (high - low), 0.0, 1.0))


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


def arms(closed: Sequence[Joined], spec: Json) -> Arms:
    """Champion and holdback decisions as the watch wants them."""
    served = [j for j in closed if j.stored.record.role in (Role.CHAMPION, Role.BASELINE)]
    base_N = np.array([j.stored.record.role is Role.BASELINE for j in served], bool)
    chance_N = np.array([j.stored.record.role_propensity for j in served], np.float64)
    return Arms(
        reward_N=np.array([success(j, spec) for j in served], np.float64),
        baseline_N=base_N,
        chance_champion_N=np.where(base_N, 1.0, chance_N),
        chance_baseline_N=np.where(base_N, chance_N, 1.0),
    )
