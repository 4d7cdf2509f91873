"""From the journal to what a learner sees: closed decisions as arrays. The same range gives the same arrays."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dayjob.endings import Invalid, OutcomeKind, Role
from dayjob.journal import vectors
from dayjob.journal.join import surviving, window_of
from dayjob.journal.readers import Reader, cursor_of
from dayjob.learn.replay import FILLER, Replay
from dayjob.policies.baseline import great_circle_km
from dayjob.records import Decision, Joined, Json, Outcome, StoredOutcome

CHOICES = (OutcomeKind.CLICK, OutcomeKind.ACCEPT, OutcomeKind.NONE, OutcomeKind.REJECT)
ROLES = {Role.CHAMPION: 0, Role.TRIAL: 1, Role.BASELINE: 2}
MOST = 200_000  # newest decisions that are replayed: beyond it a night would grow without end


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """A replay, whose decisions they were, and the journal range they came from (after, through]."""

    replay: Replay
    users: frozenset[str]
    from_seq: int
    to_seq: int


@dataclass(slots=True, kw_only=True)
class _Rows:
    decisions: list[Decision] = field(default_factory=list)
    click: list[int] = field(default_factory=list)
    truth: list[int] = field(default_factory=list)
    seqs: list[int] = field(default_factory=list)
    users: set[str] = field(default_factory=set)  # whose outcomes they are


def collect(
    reader: Reader, tenant: str, policy: str, *, spec: Json, until: int, silent: set[tuple[str, str]]
) -> Collected:
    """Every closed decision up to ``until`` that may teach. Raises Invalid when there is none.

    Left out: ``explore: false``, people who do not want to teach, and decisions still open at ``until``.
    """
    rows = _Rows()
    for joined in _closed(reader, tenant, policy, spec=spec, until=until):
        decision = joined.stored.record
        if decision.role is Role.BEST or (decision.user is not None and (tenant, decision.user) in silent):
            continue
        told = [o for o in joined.outcomes if (tenant, o.record.user or "") not in silent]
        click, truth = _taught(decision, told)
        rows.users.update(o.record.user for o in told if o.record.user is not None)
        rows.decisions.append(decision)
        rows.click.append(click)
        rows.truth.append(truth)
        rows.seqs.append(joined.stored.seq)
    if not rows.decisions:
        raise Invalid("there is no closed decision to learn from yet: rank, send feedback, and ask again")
    rows = _newest(rows)
    users = frozenset({*rows.users, *(d.user for d in rows.decisions if d.user is not None)})
    return Collected(replay=_arrays(reader, tenant, rows, spec), users=users, from_seq=rows.seqs[0] - 1, to_seq=until)


def _closed(reader: Reader, tenant: str, policy: str, *, spec: Json, until: int) -> Iterator[Joined]:
    """Closed decisions, as the journal stood at ``until``: its newest decision is the clock, so that it replays."""
    now_ms = 0
    pages = list(reader.recent(tenant, policy, 1))
    if pages:
        now_ms = pages[-1].record.at_ms
    for page in reader.joined(
        tenant, policy, window=window_of(spec), now_ms=now_ms, cursor=cursor_of(0), until=until
    ):  # fmt: skip
        for joined in page:
            known = [o for o in joined.outcomes if o.seq <= until]
            if joined.closed_seq is not None and (joined.closed_seq <= until):
                yield Joined(stored=joined.stored, outcomes=tuple(known), closed_seq=joined.closed_seq)


def _taught(decision: Decision, told: list[StoredOutcome]) -> tuple[int, int]:
    """(clicked position, right slot), -1 for none: the last surviving choice, and the last surviving truth."""
    slots = list(memoryview(decision.ranking).cast("H"))
    click, truth = FILLER, FILLER
    for stored in surviving(told):
        outcome = stored.record
        if outcome.kind in CHOICES:
            positive = outcome.kind in (OutcomeKind.CLICK, OutcomeKind.ACCEPT)
            click = _position(decision, slots, outcome) if positive else FILLER
        elif outcome.kind in (OutcomeKind.TRUTH, OutcomeKind.DEMONSTRATION):
            truth = _right(decision, outcome)
    return click, truth


def _position(decision: Decision, slots: list[int], outcome: Outcome) -> int:
    if outcome.position is not None:
        return outcome.position - 1
    for place, slot in enumerate(slots):
        if decision.candidates[slot].id == outcome.item:
            return place
    return FILLER


def _right(decision: Decision, outcome: Outcome) -> int:
    ids = [candidate.id for candidate in decision.candidates]
    if outcome.item is not None:
        return ids.index(outcome.item)
    relevance: dict[str, float] = outcome.value["relevance"]
    return ids.index(max(relevance, key=lambda one: relevance[one])) if relevance else FILLER


def _newest(rows: _Rows) -> _Rows:
    if len(rows.seqs) <= MOST:
        return rows
    return _Rows(
        users=rows.users,
        decisions=rows.decisions[-MOST:],
        click=rows.click[-MOST:],
        truth=rows.truth[-MOST:],
        seqs=rows.seqs[-MOST:],
    )


def _arrays(reader: Reader, tenant: str, rows: _Rows, spec: Json) -> Replay:
    count, width = len(rows.decisions), max(len(d.candidates) for d in rows.decisions)
    pair_dim = int(spec["pair_dim"])
    digests: dict[bytes, int] = {}
    users: dict[str, int] = {}
    candidate_BK = np.full((count, width), FILLER, np.int32)
    pair_BKP = np.zeros((count, width, pair_dim), np.float32)
    base_BK = np.zeros((count, width), np.float32)
    shown_BK = np.full((count, width), FILLER, np.int16)
    propensity_BK = np.ones((count, width), np.float32)
    for b, d in enumerate(rows.decisions):
        k = len(d.candidates)
        candidate_BK[b, :k] = [digests.setdefault(c.digest, len(digests)) for c in d.candidates]
        if pair_dim:
            pair_BKP[b, :k] = np.frombuffer(d.pair, "<f4").reshape(k, pair_dim)
        base_BK[b, :k] = np.frombuffer(d.base, "<f8")
        slots = np.frombuffer(d.ranking, "<u2")
        shown_BK[b, : len(slots)] = slots
        propensity_BK[b, : len(slots)] = np.frombuffer(d.propensity, "<f8")
    context_dim = int(spec["context_dim"])
    return Replay(
        context_BD=vectors.unpack_many([d.context for d in rows.decisions], context_dim),
        vector_VE=reader.get_many(tenant, list(digests), dim=int(spec["candidate_dim"])),
        candidate_BK=candidate_BK,
        pair_BKP=pair_BKP,
        base_BK=base_BK,
        shown_BK=shown_BK,
        propensity_BK=np.maximum(propensity_BK, np.float32(1e-30)),
        click_B=np.array(rows.click, np.int16),
        truth_B=np.array(rows.truth, np.int16),
        user_B=np.array([FILLER if d.user is None else users.setdefault(d.user, len(users)) for d in rows.decisions],
                        np.int32),
        role_B=np.array([ROLES[d.role] for d in rows.decisions], np.int16),
        loss_BKK=_losses(rows.decisions, width),
    ).check()  # fmt: skip


def _losses(decisions: list[Decision], width: int) -> npt.NDArray[np.float32] | None:
    """What showing one candidate for another costs, where every decision knows it."""
    if not all("latlon" in d.extra or "loss" in d.extra for d in decisions):
        return None
    loss_BKK = np.zeros((len(decisions), width, width), np.float32)
    for b, d in enumerate(decisions):
        k = len(d.candidates)
        if "latlon" in d.extra:
            loss_BKK[b, :k, :k] = great_circle_km(np.array(d.extra["latlon"], np.float64))
        else:
            loss_BKK[b, :k, :k] = np.array(d.extra["loss"], np.float32)
    return loss_BKK
