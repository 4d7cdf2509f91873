"""One ranking, from the parsed request to the record that explains it. No I/O.

Promise 3: everything that made the answer is in the record: scores, temperature, epsilon, seed and role, so that the
ranking and its propensity replay exactly.
"""

import hashlib
import hmac
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from dayjob.endings import Invalid, Role
from dayjob.journal import vectors
from dayjob.policies.baseline import CallersOrder, great_circle_km
from dayjob.policies.plackett_luce import GREEDY, Dice, Explore, draw, draw_pair, order, propensities, roll
from dayjob.policies.protocol import F64, Lists
from dayjob.records import Candidate, Decision, Json
from dayjob.serve.catalog import Catalog, similarity_pair
from dayjob.serve.live import Serving
from dayjob.serve.wire import Candidate as Asked
from dayjob.serve.wire import RankRequest

F32 = npt.NDArray[np.float32]
CALLERS_ORDER = CallersOrder()


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request in arrays. ``blobs`` are the candidates' encoded vectors, () where the catalog has them all."""

    context: bytes
    candidates: tuple[Candidate, ...]
    blobs: tuple[bytes, ...]
    lists: Lists
    extra: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Who asks, and under which id."""

    tenant: str
    id: str
    user: str | None
    session: str | None
    body_digest: bytes
    at_ms: int
    learn: bool


def question(request: RankRequest, serving: Serving, *, max_candidates: int) -> Question:
    """The arrays of a request. Raises Invalid when it does not fit the policy's declaration."""
    spec = serving.spec
    context_D = _declared(request.context.vector_D, int(spec["context_dim"]), "context.features")
    context = vectors.pack(context_D)
    context_D = vectors.unpack(context, len(context_D))
    if request.candidates is None:
        return _from_catalog(request, serving, context, context_D, max_candidates=max_candidates)
    _check_count(len(request.candidates), max_candidates, "candidates")
    dim = int(spec["candidate_dim"])
    given = [candidate.vector_D for candidate in request.candidates]
    blobs: tuple[bytes, ...]
    if any(vector is not None for vector in given):
        rows = _rows(request.candidates, serving.catalog, given, dim)
        blobs = tuple(vectors.pack_many(np.concatenate(rows).reshape(len(rows), dim)))
        candidate_KE = vectors.unpack_many(blobs, dim)
        kept = tuple(
            [Candidate(id=c.id, digest=vectors.digest(b)) for c, b in zip(request.candidates, blobs, strict=True)]
        )
        pair_KP, base_K = _pairs(request, spec)
    else:
        catalog, blobs = _needed(request.candidates, serving.catalog), ()
        slots = catalog.slots([candidate.id for candidate in request.candidates])
        kept, candidate_KE = tuple([catalog.items[slot] for slot in slots]), catalog.vector_NE[slots]
        pair_KP, base_K = _pairs(request, spec)
        if catalog.unit_NE.shape[1] == len(context_D):
            similar = similarity_pair(context_D, catalog.unit_NE[slots], scale=float(spec["similarity_scale"]))
            pair_KP, base_K = _defaults(request.candidates, pair_KP, base_K, similar=similar)
    metas = _metas(request, serving.catalog) if spec["metric"] == "km" else ()
    loss_KK, extra = _loss(request, spec, metas)
    return Question(
        context=context,
        candidates=kept,
        blobs=blobs,
        lists=_lists(context_D, candidate_KE, pair_KP, base_K, loss_KK=loss_KK),
        extra=extra,
    )


def _check_count(count: int, most: int, param: str) -> None:
    if count > most:
        raise Invalid(
            f"{count} candidates are more than the limit of {most}: send fewer, or raise max_candidates", param=param
        )


def _from_catalog(
    request: RankRequest, serving: Serving, context: bytes, context_D: F32, *, max_candidates: int
) -> Question:
    catalog, spec = serving.catalog, serving.spec
    if catalog is None:
        raise Invalid(
            f"policy {request.policy!r} has no catalog: send candidates, or PUT a catalog first", param="candidates"
        )
    if catalog.vector_NE.shape[1] != len(context_D):
        raise Invalid("searching the catalog needs context_dim equal to candidate_dim: send candidates instead")
    shown = request.k or min(len(catalog.ids), max_candidates)
    _check_count(shown, max_candidates, "k")
    slots = catalog.nearest(context_D, shown)
    candidate_KE = catalog.vector_NE[slots]
    pair_KP, base_K = similarity_pair(context_D, catalog.unit_NE[slots], scale=float(spec["similarity_scale"]))
    metas = [catalog.metas[slot] for slot in slots]
    loss_KK, extra = _loss(request, spec, metas)
    return Question(
        context=context,
        candidates=tuple([catalog.items[slot] for slot in slots]),
        blobs=(),
        lists=_lists(context_D, candidate_KE, _fit_pair(pair_KP, spec), base_K, loss_KK=loss_KK),
        extra=extra,
    )


def _lists(context_D: F32, candidate_KE: F32, pair_KP: F32, base_K: F64, *, loss_KK: F64 | None) -> Lists:
    return Lists(
        context_BD=context_D[None],
        candidate_BKE=candidate_KE[None],
        pair_BKP=pair_KP[None],
        base_BK=base_K[None],
        loss_BKK=None if loss_KK is None else loss_KK[None],
    )


def _declared(vector: F32, dim: int, name: str) -> F32:
    if len(vector) != dim:
        raise Invalid(f"{name} has {len(vector)} numbers, this policy declared {dim}: send as many", param=name)
    return vector


def _needed(unsent: Sequence[Asked], catalog: Catalog | None) -> Catalog:
    """The catalog that candidates without features stand in. Raises Invalid where the policy has none."""
    if catalog is None:
        raise Invalid(
            f"candidate {unsent[0].id!r} has no features and this policy has no catalog: send features, "
            "or PUT a catalog",
            param="candidates",
        )
    return catalog


def _rows(candidates: Sequence[Asked], catalog: Catalog | None, given: Sequence[F32 | None], dim: int) -> list[F32]:
    """Inline features and, beside them, the catalog's; those are encoded again, which changes nothing."""
    unsent = [c for c, v in zip(candidates, given, strict=True) if v is None]
    known = _needed(unsent, catalog) if unsent else None
    rows = []
    for n, (candidate, vector) in enumerate(zip(candidates, given, strict=True)):
        if vector is not None:
            rows.append(_declared(vector, dim, f"candidates.{n}.features"))
        elif known is not None:
            rows.append(known.vector_NE[known.slots([candidate.id])[0]])
    return rows


def _pairs(request: RankRequest, spec: Json) -> tuple[F32, F64]:
    """``pair`` (K, P), zeros where left out, and the caller's scores (K,)."""
    candidates = request.candidates or []
    pair_KP = np.zeros((len(candidates), int(spec["pair_dim"])), np.float32)
    for n, candidate in enumerate(candidates):
        if candidate.pair is not None:
            pair_KP[n] = _declared(candidate.pair, pair_KP.shape[1], f"candidates.{n}.pair")
    return pair_KP, np.array([candidate.score for candidate in candidates], np.float64)


def _defaults(candidates: Sequence[Asked], pair_KP: F32, base_K: F64, *, similar: tuple[F32, F64]) -> tuple[F32, F64]:
    """For catalog ids: similarity and share as pair, the log share as score, wherever the caller sent none."""
    similar_K2, score_K = similar
    if pair_KP.shape[1] == 2 and all(candidate.pair is None for candidate in candidates):
        pair_KP = similar_K2
    if not any("score" in candidate.model_fields_set for candidate in candidates):
        base_K = score_K
    return pair_KP, base_K


def _fit_pair(pair_K2: F32, spec: Json) -> F32:
    """The catalog's pair where the policy declared two numbers, else zeros of the declared width."""
    width = int(spec["pair_dim"])
    return pair_K2 if width == 2 else np.zeros((len(pair_K2), width), np.float32)


def _metas(request: RankRequest, catalog: Catalog | None) -> list[Json | None]:
    out: list[Json | None] = []
    for candidate in request.candidates or []:
        known = catalog.slot_of.get(candidate.id) if catalog is not None and candidate.meta is None else None
        out.append(catalog.metas[known] if catalog is not None and known is not None else candidate.meta)
    return out


def _loss(request: RankRequest, spec: Json, metas: Sequence[Json | None]) -> tuple[F64 | None, Json]:
    """What showing one candidate for another costs (K, K): the caller's matrix, or km between places."""
    if request.loss is not None:
        return request.loss.astype(np.float64), {"loss": request.loss.tolist()}
    if spec["metric"] != "km":
        return None, {}
    latlon = [_place(meta) for meta in metas]
    return great_circle_km(np.array(latlon)), {"latlon": latlon}


def _place(meta: Json | None) -> tuple[float, float]:
    lat, lon = (meta or {}).get("lat"), (meta or {}).get("lon")
    if not isinstance(lat, int | float) or not isinstance(lon, int | float):
        raise Invalid(
            'metric "km" needs meta {"lat": degrees, "lon": degrees} at every candidate, inline or in the catalog',
            param="candidates",
        )
    if not -90 <= lat <= 90 or not -180 <= lon <= 180:
        raise Invalid("meta.lat must lie in [-90, 90] and meta.lon in [-180, 180]", param="candidates")
    return float(lat), float(lon)


def body_digest(request: RankRequest) -> bytes:
    """A digest of the parsed body: equal values and equal float32 vectors, equal digest, however they were written."""
    head: dict[str, Any] = {
        "policy": request.policy, "user": request.user, "session": request.session, "k": request.k,
        "explore": request.explore,
        "candidates": None if request.candidates is None else [
            [c.id, c.score, c.vector_D is None, c.pair is None, c.meta] for c in request.candidates
        ],
    }  # fmt: skip
    state = hashlib.blake2b(orjson.dumps(head, option=orjson.OPT_SORT_KEYS), digest_size=16)
    state.update(request.context.vector_D.data)
    for candidate in request.candidates or []:
        for vector in (candidate.vector_D, candidate.pair):
            if vector is not None:
                state.update(len(vector).to_bytes(4, "little"))
                state.update(vector.data)
    if request.loss is not None:
        state.update(request.loss.tobytes())
    return state.digest()


def seed_of(secret: bytes, tenant: str, decision_id: str) -> int:
    """The 64-bit seed of a decision: whoever chooses ids cannot steer the dice."""
    return int.from_bytes(hmac.digest(secret, f"{tenant}\0{decision_id}".encode(), "sha256")[:8], "little")


class Entropy:
    """Random bytes of the operating system, drawn many at a time: the call costs more than the bytes."""

    def __init__(self) -> None:
        self._ready = deque[bytes]()

    def ten(self) -> bytes:
        """Ten bytes that nobody else gets."""
        while True:
            try:
                return self._ready.popleft()
            except IndexError:
                drawn = os.urandom(10 * ENTROPY_AHEAD)
                self._ready.extend(drawn[at : at + 10] for at in range(0, len(drawn), 10))


ENTROPY_AHEAD = 256
ENTROPY = Entropy()


def new_id(now_ms: int) -> str:
    """A UUIDv7 of a time."""
    value = (now_ms & ((1 << 48) - 1)) << 80 | int.from_bytes(ENTROPY.ten(), "big")
    digits = f"{value & ~(0xF << 76 | 0x3 << 62) | 0x7 << 76 | 0x2 << 62:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """How traffic is shared: the holdback on the baseline, pairs with the version last replaced, pairs on trial."""

    holdback: float
    watch: float
    trial: float

    def in_force(self, serving: Serving) -> "Shares":
        """These, or what the judge makes of them for the champion that serves: it may watch more and spend less."""
        told = serving.shares
        if told is None or told["champion"] != serving.champion:
            return self
        holdback, trial = min(self.holdback, told["holdback"]), min(self.trial, told["trial"])
        return Shares(holdback=holdback, watch=told["watch"], trial=trial)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The part a decision plays: its role and the chance of it; in a pair the rival, its belief, the champion's first.

    Beliefs are compared, not orders: which of two people prefer, a click can show; how much it weighs, it cannot.
    ``told`` is journaled whichever part was drawn: what the watch and the budget rest on.
    """

    role: Role
    chance: float
    rival: str | None = None
    rival_K: F64 | None = None
    first: int = 0
    told: Json = field(default_factory=dict)


def decide(
    asked: Question, serving: Serving, *, asker: Asker, seed: int, explore: bool, shown: int | None, shares: Shares
) -> Decision:
    """Choose a part, draw a ranking, and write down what made it. ``asked`` holds one list."""
    k = len(asked.candidates)
    dice = roll(seed, k)
    places = k if shown is None else min(shown, k)
    score_K = serving.ranker.score(asked.lists)[0]
    part = Part(role=Role.BEST, chance=1.0)
    if explore and asker.learn:
        part = _part(serving, asked.lists, score_K=score_K, dice=dice, places=places, shares=shares.in_force(serving))
    version = serving.champion
    if part.role is Role.BASELINE:
        version, score_K = serving.pointers.baseline, CALLERS_ORDER.score(asked.lists)[0]
    extra = asked.extra | part.told
    how = serving.explore if part.role in (Role.CHAMPION, Role.TRIAL) else GREEDY
    if part.rival_K is None:
        drawn = draw(score_K, dice=dice, explore=how, shown=places)
    else:
        rival_first = int(order(part.rival_K)[0])
        drawn = draw_pair(score_K, first=part.first, rival_first=rival_first, dice=dice, explore=how, shown=places)
        if places == 1:  # only one of the two is shown: the record must name both
            extra["pair"] = [part.first, rival_first]
    rival_K = np.zeros(0) if part.rival_K is None else part.rival_K
    return Decision(
        tenant=asker.tenant, policy=serving.pointers.policy, id=asker.id, body_digest=asker.body_digest,
        user=asker.user, session=asker.session, at_ms=asker.at_ms, version=version, challenger=part.rival,
        role=part.role, role_propensity=part.chance, explore=explore, seed=seed,
        epsilon=0.0 if part.role is Role.TRIAL else how.epsilon, temperature=how.temperature,
        intervened=drawn.intervened, coin=drawn.coin, context=asked.context, candidates=asked.candidates,
        pair=asked.lists.pair_BKP[0].astype("<f4").tobytes(), base=asked.lists.base_BK[0].astype("<f8").tobytes(),
        score=score_K.astype("<f8").tobytes(), rival_score=rival_K.astype("<f8").tobytes(),
        ranking=drawn.ranking_R.astype("<u2").tobytes(), propensity=drawn.propensity_R.astype("<f8").tobytes(),
        log_propensity=drawn.log_propensity, extra=extra,
    )  # fmt: skip


def _part(serving: Serving, lists: Lists, *, score_K: F64, dice: Dice, places: int, shares: Shares) -> Part:
    """Draw the part. A pair needs two different first choices: where they agree, its chance falls to the champion."""
    baseline = serving.pointers.baseline
    held = 0.0 if serving.champion == baseline else shares.holdback
    paired = serving.replaced is not None or serving.rival is not None
    belief_K = serving.ranker.utility(lists)[0] if paired else score_K
    first = _first(belief_K)
    watch_K = None if serving.replaced is None else serving.replaced[1].utility(lists)[0]
    trial_K = None if serving.rival is None else serving.rival.utility(lists)[0]
    watch = 0.0 if watch_K is None or _first(watch_K) == first else shares.watch
    # The watch keeps its place whether or not its pair differs here: a trial's chance does not depend on it.
    room = 1.0 - held - (0.0 if watch_K is None else shares.watch)
    trial = 0.0 if trial_K is None or _first(trial_K) == first else room * shares.trial
    alone = 1.0 - held - watch - trial
    still = _unexplored(score_K, explore=serving.explore, places=places) if held else ()
    told: Json = {"chances": [held, alone, *still]} if held else {}
    if serving.champion != baseline and paired and lists.loss_BKK is not None:
        told |= _toll(score_K, lists, belief_K=belief_K, rivals=(watch_K, trial_K))
    if dice.role < held:
        return Part(role=Role.BASELINE, chance=held, told=told | {"champion": serving.champion})
    if dice.role < held + watch and serving.replaced is not None:
        return Part(role=Role.TRIAL, chance=watch, rival=serving.replaced[0], rival_K=watch_K, first=first, told=told)
    if dice.role >= 1.0 - trial:
        return Part(role=Role.TRIAL, chance=trial, rival=serving.challenger, rival_K=trial_K, first=first, told=told)
    return Part(role=Role.CHAMPION, chance=alone, told=told)


def _unexplored(score_K: F64, *, explore: Explore, places: int) -> tuple[float, float]:
    """The chances that exploring leaves the best choice first, and the whole order as it is."""
    chance_R = propensities(score_K, order(score_K)[:places], explore=explore)
    return float(chance_R[0]), float(chance_R.prod())


def _first(score_K: F64) -> int:
    return int(order(score_K)[0])


def _toll(score_K: F64, lists: Lists, *, belief_K: F64, rivals: tuple[F64 | None, F64 | None]) -> Json:
    """What the champion's own choice is expected to cost, and how much more the holdback and each pair.

    Its scores are expected losses (negative, in a unit of its own) where it chooses by losses; where it does not, its
    scores are its belief, and there is nothing to tell.
    """
    if np.array_equal(score_K, belief_K):
        return {}
    best, first = float(score_K.max()), _first(belief_K)
    costs = [-best, best - float(score_K[_first(lists.base_BK[0])])]
    for rival_K in rivals:
        other = first if rival_K is None else _first(rival_K)
        # Where first choices agree no pair is shown, and the champion's own order costs nothing more.
        costs.append(0.0 if other == first else best - float(score_K[first] + score_K[other]) / 2)
    return {"toll": [float(f"{cost:.5g}") for cost in costs]}
