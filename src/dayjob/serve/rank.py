"""POST /v1/rank."""

import asyncio
import uuid

import numpy as np
from starlette.responses import Response

from dayjob.endings import Conflict, DayjobError, Erased, Receipt, Role
from dayjob.journal.writes import append_decision
from dayjob.records import Decision, Json
from dayjob.serve.auth import mint_token, speaks_for
from dayjob.serve.call import Call, answer
from dayjob.serve.decide import Asker, Shares, body_digest, decide, new_id, question, seed_of
from dayjob.serve.wire import RankRequest, parse

OTHER_BODY = "this id was used with another body, or by somebody else: send a new id, or the first body again"
# The best order is the champion's own: only the journal says that it was asked for without exploring.
ROLE = {role: role.value for role in Role} | {Role.BEST: Role.CHAMPION.value}


async def rank(call: Call) -> Response:
    """Order candidates; the answer leaves after its decision is durable."""
    request = parse(RankRequest, call.body)
    hub, service = call.hub, call.service
    user = speaks_for(call.principal, request.user)
    await hub.heed(call.tenant, user)
    live = hub.of(call.tenant, request.policy)
    serving = live.serving
    digest = body_digest(request)
    try:
        asked = question(request, serving, max_candidates=service.settings.max_candidates)
    except DayjobError:
        # A retry gets its first answer although the catalog was replaced since.
        first = await _first(call, request, digest, user=user)
        if first is None:
            raise
        return answer(rank_answer(call, first))
    now_ms = hub.now_ms()
    decision_id = str(request.id) if request.id is not None else new_id(now_ms)
    asker = Asker(
        tenant=call.tenant,
        id=decision_id,
        user=user,
        session=request.session,
        body_digest=digest,
        at_ms=now_ms,
        learn=user is None or (call.tenant, user) not in hub.silent,
    )
    decision = decide(
        asked,
        serving,
        asker=asker,
        seed=seed_of(service.sampling_secret, call.tenant, decision_id),
        explore=request.explore,
        shown=request.k,
        shares=Shares(
            holdback=service.settings.holdback,
            watch=service.settings.watch_share,
            trial=service.settings.trial_share,
        ),
    )
    written = await hub.store.asubmit(lambda tx: append_decision(tx, decision, asked.blobs))
    if written.receipt is Receipt.CONFLICT or (written.first is not None and written.first.user != user):
        raise Conflict(OTHER_BODY)
    if written.receipt is Receipt.ERASED:
        raise Erased(written.message)
    if written.first is None:
        live.observe(np.frombuffer(decision.score, "<f8"), version=decision.version)
    return answer(rank_answer(call, written.first or decision))


async def _first(call: Call, request: RankRequest, digest: bytes, *, user: str | None) -> Decision | None:
    """The decision that this very request made before, if it did. Raises Conflict where another request did, or
    another person's: a key that speaks for one person must not get what another was answered."""
    if request.id is None:
        return None
    stored = await asyncio.to_thread(call.hub.reader.decision, call.tenant, str(request.id))
    if stored is not None and (stored.record.body_digest, stored.record.user) != (digest, user):
        raise Conflict(OTHER_BODY)
    return None if stored is None else stored.record


def rank_answer(call: Call, decision: Decision) -> Json:
    """The answer a decision had, made from its record alone: an equal retry gets the same."""
    slots = np.frombuffer(decision.ranking, "<u2").tolist()
    score_K = np.frombuffer(decision.score, "<f8").tolist()
    propensity_R = np.frombuffer(decision.propensity, "<f8").tolist()
    expires_s = decision.at_ms // 1000 + call.service.settings.token_ttl_s
    token = mint_token(
        call.service.token_secret, tenant=decision.tenant, decision=uuid.UUID(decision.id), expires_s=int(expires_s)
    )
    return {
        "id": decision.id,
        "policy": decision.policy,
        "version": decision.version,
        "role": ROLE[decision.role],
        "role_propensity": decision.role_propensity,
        "log_propensity": decision.log_propensity,
        "token": token,
        "ranking": [
            {
                "id": decision.candidates[slot].id,
                "position": place,
                "score": score_K[slot],
                "propensity": propensity,
            }
            for place, (slot, propensity) in enumerate(zip(slots, propensity_R, strict=True), start=1)
        ],
    }
