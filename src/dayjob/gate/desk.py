"""The newest closed decisions of one policy as arrays: a report costs the same after a year as after a day."""

import hashlib
import zlib
from collections import deque
from collections.abc import Sequence, Set
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dayjob.endings import OutcomeKind, Role
from dayjob.gate.evidence import closing_outcome, loss_matrix, relevance, slot_of, slots_of, success, user_number
from dayjob.journal.join import window_of
from dayjob.journal.readers import Reader, cursor_of, seq_of
from dayjob.records import Decision, Joined, Json, Policy
from dayjob.signals.clicklog import ClickLog
from dayjob.signals.rewards import RewardRange, scaled

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
WINDOW = 8_000  # newest closed decisions that a report looks at
WIDEST = 50  # places of each that it looks at, from the first: a click further down counts as none
ABSENT = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One closed decision as a report needs it: R places shown."""

    seq: int
    version: str
    role: Role
    chance: float  # of that role: where champion and challenger agree on the first, no pair is drawn
    order: int  # number of the order that served: a version, or the comparison of two
    rival: int  # in a pair, number of the other order's first choice within its context; -1 elsewhere
    item_R: tuple[int, ...]  # numbers of the items shown
    key_R: tuple[int, ...]  # the same within their context: an item is another thing for another query
    click: int  # 0-based place, -1 none
    truth: int  # 0-based place of what is right, -1 unknown
    success: float
    error: float | None  # what the first place cost, where the truth and the losses are known
    proxy: float | None  # what is learned from said of the first place, in [0, 1], where it came before the close
    gold: float | None  # what the truth said of it
    reward: float  # the newest reward or thumb for the first or the clicked place, in [0, 1]; nan without
    propensity_R: F64
    intervened: bool
    first: int  # number of the serving version's best item
    first_by_caller: int  # number of the caller's best item
    user: int
    score_R: F64
    feature_RF: F64
    unshown: I64  # numbers of the candidates that were not shown


@dataclass(slots=True, kw_only=True)
class Desk:
    """The newest closed decisions of one policy. ``key``: the journal's secret, for the numbers of people."""

    key: bytes
    lines: deque[Line] = field(default_factory=lambda: deque(maxlen=WINDOW))
    closed: int = 0

    def add(self, closed: Sequence[Joined], spec: Json, *, reader: Reader) -> None:
        """Take in more closed decisions, in order; those that were only looked up (``best``) are left out."""
        for joined in closed:
            if joined.stored.record.role is not Role.BEST:
                self.closed += 1
                self.lines.append(line_of(joined, spec, reader=reader, key=self.key))

    def ahead(self, newer: Sequence[Joined], spec: Json, *, reader: Reader) -> "Desk":
        """Another desk, with closed decisions that are not judged yet: for what is told, never for what is decided."""
        other = Desk(key=self.key, lines=self.lines.copy(), closed=self.closed)
        other.add(newer, spec, reader=reader)
        return other

    def forget(self, gone: Set[int]) -> None:
        """Without the decisions of people who were erased."""
        if any(line.user in gone for line in self.lines):
            self.lines = deque((line for line in self.lines if line.user not in gone), maxlen=WINDOW)

    def log(self) -> ClickLog:
        """The newest decisions as a click log, lists padded to the longest."""
        return click_log(list(self.lines))


def newer_closed(reader: Reader, policy: Policy, *, after: int, now_ms: int) -> list[Joined]:
    """Decisions beyond the sequence number ``after`` that are closed, the newest ``WINDOW`` of them at most."""
    key = (policy.tenant, policy.name)
    cursor = cursor_of(max(after, seq_of(reader.cursor_before(*key, WINDOW))))
    pages = reader.joined(*key, window=window_of(policy.spec), now_ms=now_ms, cursor=cursor)
    return [joined for page in pages for joined in page if joined.closed_seq is not None]


def waiting_for(reader: Reader, policy: Policy, *, after: int, now_ms: int) -> Json | None:
    """The open decision that is judged next, and when its window ends (ms); None where the next is closed."""
    window = window_of(policy.spec)
    pages = reader.joined(policy.tenant, policy.name, window=window, now_ms=now_ms, cursor=cursor_of(after))
    first = next((page[0] for page in pages if page), None)
    if first is None or first.closed_seq is not None:
        return None
    decision = first.stored.record
    return {"decision": decision.id, "until_ms": decision.at_ms + window.length_ms}


def item_number(item: str) -> int:
    """A number for an item, for as long as this process lives."""
    return int.from_bytes(hashlib.blake2b(item.encode(), digest_size=7).digest(), "little")


def line_of(joined: Joined, spec: Json, *, reader: Reader, key: bytes) -> Line:
    """One closed decision as a line. ``key``: the journal's secret."""
    decision = joined.stored.record
    slot_R = slots_of(decision)[:WIDEST]
    score_K, base_K = np.frombuffer(decision.score, "<f8"), np.frombuffer(decision.base, "<f8")
    click, truth = _places(joined, slot_R)
    number_K = [item_number(candidate.id) for candidate in decision.candidates]
    hidden_K = np.ones(len(number_K), bool)
    hidden_K[slot_R] = False
    within = zlib.crc32(decision.context)
    return Line(
        seq=joined.stored.seq, version=decision.version, role=decision.role,
        chance=decision.role_propensity, order=_order(decision), rival=_rival(decision, slot_R, number_K, within),
        item_R=tuple(number_K[slot] for slot in slot_R),
        key_R=tuple(number_K[slot] ^ within for slot in slot_R), click=click, truth=truth,
        success=success(joined, spec),
        error=_error(joined, slot_R, truth),
        proxy=_proxy(joined, spec), gold=_gold(joined), reward=_reward(joined, spec, click=click),
        propensity_R=np.frombuffer(decision.propensity, "<f8")[:WIDEST], intervened=decision.intervened,
        first=number_K[int(np.argmax(score_K))] ^ within,
        first_by_caller=number_K[int(np.argmax(base_K))] ^ within,
        user=user_number(decision, key), score_R=score_K[slot_R],
        feature_RF=_features(decision, spec, reader=reader)[slot_R],
        unshown=np.array(number_K, np.int64)[hidden_K],
    )  # fmt: skip


def _order(decision: Decision) -> int:
    """Lists of one number were ordered alike: by one version, or by one comparison of two."""
    return item_number(f"{decision.version} {decision.challenger if decision.coin else ''}")


def _rival(decision: Decision, slot_R: I64, number_K: Sequence[int], within: int) -> int:
    if not decision.coin or len(slot_R) < 2:
        return ABSENT
    return number_K[int(slot_R[0 if decision.coin == 1 else 1])] ^ within


def _places(joined: Joined, slot_R: I64) -> tuple[int, int]:
    """(clicked place, place of what is right), -1 for none."""
    found = closing_outcome(joined)
    if found is None:
        return ABSENT, ABSENT
    known_K = relevance(joined.stored.record, found.record)
    slot = slot_of(joined.stored.record, found.record) if known_K is None else int(known_K.argmax())
    places = np.flatnonzero(slot_R == slot)
    place = int(places[0]) if len(places) else ABSENT
    if known_K is not None:
        return ABSENT, place
    return (place if found.record.kind in (OutcomeKind.CLICK, OutcomeKind.ACCEPT) else ABSENT), ABSENT


def _error(joined: Joined, slot_R: I64, truth: int) -> float | None:
    """The loss of the first place against what is known to be right, such as km."""
    loss_KK = None if truth == ABSENT else loss_matrix(joined.stored.record)
    return None if loss_KK is None else float(loss_KK[slot_R[0], slot_R[truth]])


def _proxy(joined: Joined, spec: Json) -> float | None:
    """The newest reward in [0, 1], else whether the newest click or accept was on the first place."""
    rewards = [o.record for o in joined.outcomes if o.record.kind is OutcomeKind.REWARD]
    if rewards:
        low, high = (float(end) for end in spec["reward_range"])
        return float(np.clip((float(rewards[-1].value) - low) / (high - low), 0.0, 1.0))
    kinds = (OutcomeKind.CLICK, OutcomeKind.ACCEPT, OutcomeKind.REJECT, OutcomeKind.NONE)
    clicks = [o.record for o in joined.outcomes if o.record.kind in kinds]
    if not clicks:
        return None
    decision, chosen = joined.stored.record, clicks[-1]
    positive = chosen.kind in (OutcomeKind.CLICK, OutcomeKind.ACCEPT)
    return float(positive and slot_of(decision, chosen) == int(slots_of(decision)[0]))


def _reward(joined: Joined, spec: Json, *, click: int) -> float:
    """The newest reward or thumb that speaks of the clicked place, else of the first; nan without."""
    decision, reward_range = joined.stored.record, RewardRange.of(spec)
    place = int(slots_of(decision)[max(click, 0)])
    for outcome in reversed(joined.outcomes):
        value = scaled(outcome.record, reward_range)
        if value is not None and slot_of(decision, outcome.record) in (ABSENT, place):
            return value
    return float("nan")


def _gold(joined: Joined) -> float | None:
    """The relevance of the first place by the newest truth."""
    decision = joined.stored.record
    for outcome in reversed(joined.outcomes):
        known_K = relevance(decision, outcome.record)
        if known_K is not None:
            return float(known_K[int(slots_of(decision)[0])])
    return None


def _features(decision: Decision, spec: Json, *, reader: Reader) -> F64:
    """What was known of each candidate (K, F): the caller's score, likeness to the other candidates, the pair."""
    k = len(decision.candidates)
    pair_KP = np.frombuffer(decision.pair, "<f4").astype(np.float64).reshape(k, int(spec["pair_dim"]))
    digests = [candidate.digest for candidate in decision.candidates]
    vector_KE = reader.get_many(decision.tenant, digests, dim=int(spec["candidate_dim"])).astype(np.float64)
    unit_KE = vector_KE / np.maximum(np.linalg.norm(vector_KE, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    crowd_K = (unit_KE @ unit_KE.sum(axis=0) - 1.0) / max(k - 1, 1)
    return np.column_stack([np.frombuffer(decision.base, "<f8"), crowd_K, pair_KP])


def click_log(lines: Sequence[Line]) -> ClickLog:
    """Lines as a click log."""
    rows, width = len(lines), max((len(line.key_R) for line in lines), default=1)
    columns = lines[0].feature_RF.shape[1] if lines else 0
    item_BK = np.full((rows, width), ABSENT, np.int64)
    click_BK = np.zeros((rows, width), bool)
    score_BK, propensity_BK = np.full((rows, width), np.nan), np.full((rows, width), np.nan)
    feature_BKF = np.zeros((rows, width, columns))
    for b, line in enumerate(lines):
        n = len(line.key_R)
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
        reward_B=np.array([line.reward for line in lines], np.float64),
        feature_BKF=feature_BKF,
        order_B=np.array([line.order for line in lines], np.int64),
        rival_B=np.array([line.rival for line in lines], np.int64),
    )
