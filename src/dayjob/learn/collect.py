"""From the journal to what a learner sees: closed decisions as arrays. The same range gives the same arrays."""

import contextlib
import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from dayjob.endings import Invalid, OutcomeKind, Role
from dayjob.journal import vectors
from dayjob.journal.join import join, surviving, window_of
from dayjob.journal.readers import Reader
from dayjob.learn.replay import FILLER, Replay
from dayjob.policies.baseline import great_circle_km
from dayjob.records import Decision, Joined, Json, Outcome, StoredOutcome
from dayjob.signals.rewards import RewardRange, scaled

CHOICES = (OutcomeKind.CLICK, OutcomeKind.ACCEPT, OutcomeKind.NONE, OutcomeKind.REJECT)
ROLES = {Role.CHAMPION: 0, Role.TRIAL: 1, Role.BASELINE: 2}
MOST = 200_000  # newest decisions that are read: beyond it a night would grow without end


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
    reward: list[float] = field(default_factory=list)
    rewarded: list[int] = field(default_factory=list)
    seqs: list[int] = field(default_factory=list)
    users: set[str] = field(default_factory=set)  # whose outcomes they are


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """No search for garbage: among so many records, of which all stay, it takes a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@_uncollected()
def collect(
    reader: Reader, tenant: str, policy: str, *, spec: Json, until: int, silent: set[tuple[str, str]]
) -> Collected:
    """The closed decisions up to ``until`` that may teach, of the newest ``MOST``. Raises Invalid when there is none.

    Left out: ``explore: false``, what people who do not want to teach were shown or spoke of, and decisions still open
    at ``until``.
    """
    rows = _Rows()
    for joined in _closed(reader, tenant, policy, spec=spec, until=until):
        decision = joined.stored.record
        if decision.role is Role.BEST or (decision.user is not None and (tenant, decision.user) in silent):
            continue
        speakers = {o.record.user for o in joined.outcomes if o.record.user is not None}
        if any((tenant, user) in silent for user in speakers):
            continue  # without what they said it would look as if nothing had been chosen
        click, truth = _taught(decision, joined.outcomes)
        rows.users |= speakers
        rows.decisions.append(decision)
        rows.click.append(click)
        rows.truth.append(truth)
        reward, rewarded = _rewarded(decision, joined.outcomes, click=click, spec=spec)
        rows.reward.append(reward)
        rows.rewarded.append(rewarded)
        rows.seqs.append(joined.stored.seq)
    if not rows.decisions:
        raise Invalid("there is no closed decision to learn from yet: rank, send feedback, and ask again")
    users = frozenset({*rows.users, *(d.user for d in rows.decisions if d.user is not None)})
    return Collected(replay=_arrays(reader, tenant, rows, spec), users=users, from_seq=rows.seqs[0] - 1, to_seq=until)


def _closed(reader: Reader, tenant: str, policy: str, *, spec: Json, until: int) -> Iterator[Joined]:
    """Closed decisions among the newest ``MOST``, as the journal stood at ``until``.

    The clock is the newest decision of then, and outcomes of later do not exist: whoever asks again, however much was
    written since, gets the same. Older decisions than those are not read at all.
    """
    window = window_of(spec)
    now_ms = max((stored.record.at_ms for stored in reader.recent(tenant, policy, 1, until=until)), default=0)
    cursor = reader.cursor_before(tenant, policy, MOST, until=until)
    while True:
        page, cursor = reader.decisions(tenant, policy, cursor=cursor)
        page = [stored for stored in page if stored.seq <= until]
        if not page:
            return
        told = {
            decision: [outcome for outcome in outcomes if outcome.seq <= until]
            for decision, outcomes in reader.outcomes(tenant, page).items()
        }
        for joined in join(page, told, now_ms=now_ms, window=window):
            if joined.closed_seq is not None:
                yield joined


def _taught(decision: Decision, told: Sequence[StoredOutcome]) -> tuple[int, int]:
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


def _rewarded(decision: Decision, told: Sequence[StoredOutcome], *, click: int, spec: Json) -> tuple[float, int]:
    """(the last surviving reward in [0, 1], else the last thumb, the slot it speaks of); nan and -1 for none.

    It speaks of the item it names, else of the one that was clicked, else of the first place.
    """
    slots = list(memoryview(decision.ranking).cast("H"))
    reward, rewarded, is_thumb = float("nan"), FILLER, True
    for stored in surviving(told):
        outcome = stored.record
        value = scaled(outcome, RewardRange.of(spec))
        thumb = outcome.kind is OutcomeKind.THUMB
        if value is None or (thumb and not is_thumb):
            continue
        named = outcome.item is not None or outcome.position is not None
        place = _position(decision, slots, outcome) if named else max(click, 0)
        reward, rewarded, is_thumb = value, slots[place], thumb
    return reward, rewarded


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
        **_rewards(rows),
    ).check()  # fmt: skip


def _rewards(rows: _Rows) -> dict[str, npt.NDArray[Any]]:
    """The rewards of a replay; nothing where nobody gave any."""
    reward_B = np.array(rows.reward, np.float32)
    if not np.isfinite(reward_B).any():
        return {}
    return {"reward_B": reward_B, "rewarded_B": np.array(rows.rewarded, np.int16)}


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
