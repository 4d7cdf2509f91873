"""The report of one policy: what its clicks can teach, what the trial found, what drifts. Made beside the judge.

The desk keeps the newest closed decisions as arrays, so that a report costs the same after a year as after a day.
"""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from dayjob.endings import Role
from dayjob.gate.evidence import closing_outcome, relevance, slot_of, slots_of, success, user_number
from dayjob.journal.readers import Reader
from dayjob.records import Decision, Joined, Json
from dayjob.signals.clicklog import ClickLog
from dayjob.signals.detector import Feedback, feedback
from dayjob.signals.features import learned_score

F64 = npt.NDArray[np.float64]
WINDOW = 8_000  # newest closed decisions that a report looks at
VECTORS_KEPT = 40_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One closed decision as a report needs it: R places shown."""

    seq: int
    version: str
    role: Role
    slot_R: npt.NDArray[np.int64]
    key_R: tuple[int, ...]  # numbers of the items shown
    click: int  # 0-based place, -1 none
    truth: int  # 0-based place of what is right, -1 unknown
    success: float
    propensity_R: F64
    intervened: bool
    first: int  # number of the champion's best item
    user: int
    score_R: F64
    feature_RF: F64


@dataclass(slots=True, kw_only=True)
class Desk:
    """The newest closed decisions of one policy."""

    lines: deque[Line] = field(default_factory=lambda: deque(maxlen=WINDOW))
    closed: int = 0

    def add(self, closed: Sequence[Joined], spec: Json, *, reader: Reader) -> None:
        """Take in more closed decisions, in order; those that were only looked up (``best``) are left out."""
        for joined in closed:
            if joined.stored.record.role is Role.BEST:
                continue
            self.closed += 1
            self.lines.append(_line(joined, spec, reader=reader))

    def log(self) -> ClickLog:
        """The newest decisions as a click log, lists padded to the longest."""
        return click_log(list(self.lines))


def _line(joined: Joined, spec: Json, *, reader: Reader) -> Line:
    decision = joined.stored.record
    slot_R = slots_of(decision)
    score_K = np.frombuffer(decision.score, "<f8")
    found = closing_outcome(joined)
    click, truth = -1, -1
    if found is not None:
        known_K = relevance(decision, found.record)
        slot = slot_of(decision, found.record) if known_K is None else int(known_K.argmax())
        places = np.flatnonzero(slot_R == slot)
        place = int(places[0]) if len(places) else -1
        if known_K is not None:
            truth = place
        elif found.record.kind.value in ("click", "accept"):
            click = place
    numbers = [_number(candidate.id) for candidate in decision.candidates]
    return Line(
        seq=joined.stored.seq, version=decision.version, role=decision.role, slot_R=slot_R,
        key_R=tuple(numbers[slot] for slot in slot_R), click=click, truth=truth, success=success(joined, spec),
        propensity_R=np.frombuffer(decision.propensity, "<f8"), intervened=decision.intervened,
        first=numbers[int(np.argmax(score_K))], user=user_number(decision.user), score_R=score_K[slot_R],
        feature_RF=_features(decision, spec, reader=reader)[slot_R],
    )  # fmt: skip


def _number(item: str) -> int:
    return user_number(item)


def _features(decision: Decision, spec: Json, *, reader: Reader) -> F64:
    """What was known of each candidate (K, F): the caller's score, the pair, likeness to the context and the others."""
    k = len(decision.candidates)
    base_K = np.frombuffer(decision.base, "<f8")
    pair_KP = np.frombuffer(decision.pair, "<f4").astype(np.float64).reshape(k, -1)
    vector_KE = reader.get_many(
        decision.tenant, [c.digest for c in decision.candidates], dim=int(spec["candidate_dim"])
    ).astype(np.float64)
    unit_KE = vector_KE / np.maximum(np.linalg.norm(vector_KE, axis=1, keepdims=True), 1e-30)
    crowd_K = (unit_KE @ unit_KE.sum(axis=0) - 1.0) / max(k - 1, 1)
    return np.column_stack([base_K, crowd_K, pair_KP])


def click_log(lines: Sequence[Line]) -> ClickLog:
    """Lines as a click log."""
    rows, width = len(lines), max((len(line.slot_R) for line in lines), default=1)
    columns = lines[0].feature_RF.shape[1] if lines else 0
    item_BK = np.full((rows, width), -1, np.int64)
    click_BK = np.zeros((rows, width), bool)
    score_BK, propensity_BK = np.full((rows, width), np.nan), np.full((rows, width), np.nan)
    feature_BKF = np.zeros((rows, width, columns))
    for b, line in enumerate(lines):
        n = len(line.slot_R)
        item_BK[b, :n], score_BK[b, :n], propensity_BK[b, :n] = line.key_R, line.score_R, line.propensity_R
        feature_BKF[b, :n] = line.feature_RF
        if line.click >= 0:
            click_BK[b, line.click] = True
    return ClickLog(
        item_BK=item_BK,
        click_BK=click_BK,
        propensity_BK=propensity_BK,
        intervened_B=np.array([line.intervened for line in lines], bool),
        first_B=np.array([line.first for line in lines], np.int64),
        user_B=np.array([line.user for line in lines], np.int64),
        score_BK=score_BK,
        truth_B=np.array([line.truth for line in lines], np.int64),
        reward_B=np.full(rows, np.nan),
        feature_BKF=feature_BKF,
    )


def read_feedback(desk: Desk) -> Feedback:
    """What the clicks of the newest decisions can teach."""
    log = desk.log()
    learned_BK = learned_score(log.feature_BKF, log.click_B, log.shown_BK)
    return feedback(log, learned_BK=learned_BK)


def build_report(said: Feedback, *, gate: Json) -> Json:
    """The body of GET /v1/policies/{name}/report, verdicts apart."""
    return {
        "feedback": {
            "state": said.state.value,
            "reason": said.reason,
            "share_at": [float(share) for share in said.share_at],
            "needed": said.needed,
        },
        "bias": {},
        "ceiling": {},
        "learning": {},
        "gate": gate,
        "drift": {},
        "forgetting": {
            "state": "not_applicable",
            "reason": "a ranker is trained anew from the baseline every time",
        },
        "made_ms": int(time.time() * 1000),
    }


def version_points(desk: Desk, *, newest: int) -> dict[str, Any]:
    """Reward by version over the newest decisions, for the dashboard's curve."""
    lines = list(desk.lines)[-newest:]
    out: dict[str, Any] = {}
    for version in sorted({line.version for line in lines}):
        earned = [line.success for line in lines if line.version == version and line.role is not Role.TRIAL]
        if earned:
            out[version] = {"n": len(earned), "reward": float(np.mean(earned))}
    return out
