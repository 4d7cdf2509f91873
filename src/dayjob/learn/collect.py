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
from dayjob.learn.lists import Kept, Limits, Row, Told, row_of
from dayjob.learn.replay import FILLER, Replay
from dayjob.policies.baseline import great_circle_km
from dayjob.records import Decision, Joined, Json, Outcome, StoredOutcome
from dayjob.signals.rewards import RewardRange, scaled
from dayjob.signals.truth import relevances

CHOICES = (OutcomeKind.CLICK, OutcomeKind.ACCEPT, OutcomeKind.NONE, OutcomeKind.REJECT)
OF_THE_ANSWER = (OutcomeKind.ACCEPT, OutcomeKind.REJECT)
ROLES = {Role.CHAMPION: 0, Role.TRIAL: 1, Role.BASELINE: 2}
MOST = 200_000  # newest decisions that are read: beyond it a night would grow without end
PAGE = 64  # decisions read at once: as parsed JSON, long lists with losses take megabytes each


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """A replay, whose decisions they were, and the journal range they came from (after, through]. ``stats`` counts
    ``lists_cut`` and ``left_out``, where there were any."""

    replay: Replay
    users: frozenset[str]
    from_seq: int
    to_seq: int
    stats: dict[str, float] = field(default_factory=dict)


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
    """The closed decisions up to ``until`` that may teach, of the newest ``MOST``, as far as they fit into memory
    (`learn.lists`). Raises Invalid when there is none.

    Left out: ``explore: false``, what people who do not want to teach were shown or spoke of, and decisions still open
    at ``until``.
    """
    limits = Limits.of(spec)
    kept = Kept(limits)
    for joined in _closed(reader, tenant, policy, spec=spec, until=until):
        decision = joined.stored.record
        if decision.role is Role.BEST or (decision.user is not None and (tenant, decision.user) in silent):
            continue
        speakers = {o.record.user for o in joined.outcomes if o.record.user is not None}
        if any((tenant, user) in silent for user in speakers):
            continue  # without what they said it would look as if nothing had been chosen
        click, truth = _taught(decision, joined.outcomes)
        reward, rewarded = _rewarded(decision, joined.outcomes, click=click, spec=spec)
        kept.add(row_of(
            decision, seq=joined.stored.seq, speakers=frozenset(speakers), pair_dim=int(spec["pair_dim"]),
            told=Told(click=click, truth=truth, reward=reward, rewarded=rewarded),
        ))  # fmt: skip
    rows = kept.settle()
    if not rows:
        raise Invalid("there is no closed decision to learn from yet: rank, send feedback, and ask again")
    users = frozenset(user for row in rows for user in (*row.speakers, row.user) if user is not None)
    return Collected(
        replay=_arrays(reader, tenant, rows, spec), users=users, from_seq=rows[0].seq - 1, to_seq=until,
        stats=kept.stats(),
    )  # fmt: skip


def _closed(reader: Reader, tenant: str, policy: str, *, spec: Json, until: int) -> Iterator[Joined]:
    """Closed decisions among the newest ``MOST``, as the journal stood at ``until``.

    The clock is the newest decision of then, and outcomes of later do not exist: whoever asks again, however much was
    written since, gets the same. Older decisions than those are not read at all.
    """
    window = window_of(spec)
    now_ms = max((stored.record.at_ms for stored in reader.recent(tenant, policy, 1, until=until)), default=0)
    cursor = reader.cursor_before(tenant, policy, MOST, until=until)
    while True:
        page, cursor = reader.decisions(tenant, policy, cursor=cursor, limit=PAGE)
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
    """(clicked position, right slot), -1 for none: the last surviving choice, and the last surviving truth.

    An accept or reject that names nothing speaks of the first place, and only where nobody named anything.
    """
    slots = list(memoryview(decision.ranking).cast("H"))
    click, truth, chosen = FILLER, FILLER, False
    for stored in surviving(told):
        outcome = stored.record
        if outcome.kind in OF_THE_ANSWER and outcome.item is None and outcome.position is None:
            if not chosen:
                click = 0 if outcome.kind is OutcomeKind.ACCEPT else FILLER
        elif outcome.kind in CHOICES:
            chosen = outcome.kind in (OutcomeKind.CLICK, OutcomeKind.ACCEPT)
            click = _position(decision, slots, outcome) if chosen else FILLER
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
    known_K = relevances(outcome.value["relevance"], ids)
    return FILLER if known_K is None else int(known_K.argmax())


def _arrays(reader: Reader, tenant: str, rows: Sequence[Row], spec: Json) -> Replay:
    count, width = len(rows), max(len(row) for row in rows)
    pair_dim = int(spec["pair_dim"])
    digests: dict[bytes, int] = {}
    users: dict[str, int] = {}
    candidate_BK = np.full((count, width), FILLER, np.int32)
    pair_BKP = np.zeros((count, width, pair_dim), np.float32)
    base_BK = np.zeros((count, width), np.float32)
    shown_BK = np.full((count, width), FILLER, np.int16)
    propensity_BK = np.ones((count, width), np.float32)
    for b, row in enumerate(rows):
        k, r = len(row), len(row.shown_R)
        candidate_BK[b, :k] = [digests.setdefault(one, len(digests)) for one in row.each_digest()]
        pair_BKP[b, :k] = row.pair_KP
        base_BK[b, :k] = row.base_K
        shown_BK[b, :r] = row.shown_R
        propensity_BK[b, :r] = row.propensity_R
    context_dim = int(spec["context_dim"])
    return Replay(
        context_BD=vectors.unpack_many([row.context for row in rows], context_dim),
        vector_VE=reader.get_many(tenant, list(digests), dim=int(spec["candidate_dim"])),
        candidate_BK=candidate_BK,
        pair_BKP=pair_BKP,
        base_BK=base_BK,
        shown_BK=shown_BK,
        propensity_BK=np.maximum(propensity_BK, np.float32(1e-30)),
        click_B=np.array([row.told.click for row in rows], np.int16),
        truth_B=np.array([row.told.truth for row in rows], np.int16),
        user_B=np.array([FILLER if row.user is None else users.setdefault(row.user, len(users)) for row in rows],
                        np.int32),
        role_B=np.array([ROLES[row.role] for row in rows], np.int16),
        **_rewards(rows),
        **_losses(rows, width),
    ).check()  # fmt: skip


def _rewards(rows: Sequence[Row]) -> dict[str, npt.NDArray[Any]]:
    """The rewards of a replay; nothing where nobody gave any."""
    reward_B = np.array([row.told.reward for row in rows], np.float32)
    if not np.isfinite(reward_B).any():
        return {}
    return {"reward_B": reward_B, "rewarded_B": np.array([row.told.rewarded for row in rows], np.int16)}


def _losses(rows: Sequence[Row], width: int) -> dict[str, npt.NDArray[Any]]:
    """What showing one candidate for another costs, where every decision knows it: places where all have them."""
    if not all(row.place_K2 is not None or row.loss_KK is not None for row in rows):
        return {}
    if all(row.loss_KK is None for row in rows):
        place_BK2 = np.zeros((len(rows), width, 2))
        for b, row in enumerate(rows):
            place_BK2[b, : len(row)] = row.place_K2
        return {"place_BK2": place_BK2}
    loss_BKK = np.zeros((len(rows), width, width), np.float32)
    for b, row in enumerate(rows):
        k = len(row)
        loss_BKK[b, :k, :k] = row.loss_KK if row.place_K2 is None else great_circle_km(row.place_K2)
    return {"loss_BKK": loss_BKK}
