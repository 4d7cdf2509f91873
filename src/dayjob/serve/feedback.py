"""POST /v1/feedback: one outcome, or many of which each is judged alone."""

import asyncio
import hashlib
import time
from typing import Any

import orjson
from starlette.responses import Response

from dayjob.endings import DayjobError, Forbidden, Invalid, OutcomeKind, Receipt
from dayjob.journal.join import LANGUAGE_ONLY, RANKER_ONLY
from dayjob.journal.notes import Told
from dayjob.journal.writes import append_outcome
from dayjob.memory.filters import fault
from dayjob.memory.lessons import lesson_of
from dayjob.records import Json, Outcome, Written
from dayjob.serve.auth import Principal, Unauthenticated, check_token
from dayjob.serve.call import NOBODY, Call, answer, failure
from dayjob.serve.decide import new_id
from dayjob.serve.fields import Unfit
from dayjob.serve.wire import FeedbackItem, Relevance, parse_feedback

CODES = {
    Receipt.RECORDED: 201,
    Receipt.REPEATED: 200,
    Receipt.HELD: 202,
    Receipt.CONFLICT: 409,
    Receipt.ERASED: 410,
    Receipt.REFUSED: 422,
    Receipt.FORBIDDEN: 403,
    Receipt.CROWDED: 429,
}
NOTED = (OutcomeKind.CORRECTION, OutcomeKind.DEMONSTRATION)  # kinds that may become notes
CROWDED_S = "60"  # to wait before more is sent about decisions that are not known
TYPES = {409: "conflict_error", 410: "gone_error", 422: "invalid_request_error", 403: "permission_error"}

NEEDS_KEY = "feedback without a key needs the token that came with the ranking; send it, or Authorization: Bearer KEY"


async def feedback(call: Call) -> Response:
    """Record outcomes; the answer leaves after they are durable."""
    try:
        sent = parse_feedback(call.body)
    except Invalid as error:
        if error.param != "kind" or not call.body:
            raise
        raise await _of_its_policy(call, Unfit.of(orjson.loads(call.body), error)) from None
    if isinstance(sent, FeedbackItem):
        receipt = await _one(call, sent)
        status = int(receipt["status"])
        if receipt["error"] is not None:
            response = answer({"error": receipt["error"]}, status)
            if status == 429:
                response.headers["Retry-After"] = CROWDED_S
            return response
        return answer(receipt, status)
    if call.principal is NOBODY and not any(isinstance(item, FeedbackItem) and item.token for item in sent):
        raise Unauthenticated(NEEDS_KEY)
    receipts = await asyncio.gather(*(_one_or_fault(call, item) for item in sent))
    response = answer({"items": receipts})
    if any(receipt["status"] == 429 for receipt in receipts):
        response.headers["Retry-After"] = CROWDED_S  # for those of them; each may be sent again under its id
    return response


async def _one_or_fault(call: Call, item: FeedbackItem | Unfit) -> Json:
    try:
        if isinstance(item, Unfit):
            raise await _of_its_policy(call, item)
        return await _one(call, item)
    except DayjobError as error:
        response = failure(error)
        detail = orjson.loads(bytes(response.body))["error"]
        sent = None if item.id is None else str(item.id)  # one that we would have made was never told
        return {"id": sent, "receipt": None, "status": response.status_code, "error": detail}


async def _one(call: Call, item: FeedbackItem) -> Json:
    principal = _speaker(call, item)
    await call.hub.heed(principal.tenant, principal.user)
    now_ms, value = call.hub.now_ms(), _value(item)
    outcome = Outcome(
        tenant=principal.tenant,
        id=str(item.id) if item.id is not None else new_id(now_ms),
        body_digest=_digest(item, value),
        policy="",
        decision=None if item.decision is None else str(item.decision),
        session=item.session,
        kind=item.kind,
        item=item.item,
        position=item.position,
        value=value,
        text=item.text,
        source=item.source,
        user=principal.user,
        at_ms=now_ms if item.at is None else int(item.at.timestamp() * 1000),
        received_ms=now_ms,
        key_id=principal.key_id,
    )
    written: Written = await call.hub.store.asubmit(lambda tx: append_outcome(tx, outcome))
    status = CODES[written.receipt]
    error = None
    if status >= 400:
        error = {
            "message": written.message,
            "type": TYPES.get(status, "rate_limit_error"),
            "param": None,
            "code": written.receipt.value,
        }
    receipt = {"id": outcome.id, "receipt": written.receipt.value, "status": status, "error": error}
    if error or outcome.kind not in NOTED:  # most outcomes by far: they need no read, and so no thread
        return receipt
    refused = await asyncio.to_thread(_refused_note, call, outcome)
    return receipt | {"note": f"refused: {refused}"} if refused else receipt


def _refused_note(call: Call, outcome: Outcome) -> str:
    """Why what was recorded (of a kind in NOTED) will never be a note, as `memory.lessons` has it; "" where it may."""
    stored = None
    if outcome.decision is not None:
        stored = call.hub.reader.decision(outcome.tenant, outcome.decision)
    if stored is None:  # of a session, or held: its text alone is known here
        return fault(outcome.text) if outcome.text and outcome.item is None else ""
    if stored.record.generation is None:  # a ranker's
        return ""
    return lesson_of(Told(seq=stored.seq, outcome=outcome, decision=stored.record)).refused


async def _of_its_policy(call: Call, unfit: Unfit) -> Invalid:
    """Of a kind that there is not: the kinds of the policy that the decision is of, where that is known."""
    unknown = unfit.fault.param == "kind" and unfit.fault.code != "missing"
    if not unknown or unfit.decision is None or call.principal is NOBODY:
        return unfit.fault
    stored = await asyncio.to_thread(call.hub.reader.decision, call.tenant, str(unfit.decision))
    if stored is None:
        return unfit.fault
    spoken = stored.record.generation is not None
    kinds = ", ".join(kind.value for kind in OutcomeKind if kind not in (RANKER_ONLY if spoken else LANGUAGE_ONLY))
    what = "a language policy" if spoken else "a ranker"
    return Invalid(f"kind does not fit; {stored.record.policy} is {what}: send one of {kinds}", param="kind")


def _speaker(call: Call, item: FeedbackItem) -> Principal:
    """Whose feedback this is: the key's; with a token, the token must be good and of the same tenant.

    A token outranks a cookie: whoever is logged in speaks, on a page that was shown a decision, as anybody there does.
    """
    principal = call.principal
    if item.token is None:
        if principal is NOBODY:
            raise Unauthenticated(NEEDS_KEY)
        return principal
    by_token = check_token(
        call.service.token_secret, item.token, decision=item.decision, kind=item.kind, now_s=int(time.time())
    )
    if principal is NOBODY or (call.service.keys and not call.has_key):
        return by_token
    if by_token.tenant != principal.tenant:
        raise Forbidden("this token belongs to another tenant than the key: send one of them")
    return principal


def _value(item: FeedbackItem) -> Any:
    if isinstance(item.value, Relevance):
        return {"relevance": item.value.relevance}
    return item.value if item.value is None or isinstance(item.value, float) else str(item.value)


def _digest(item: FeedbackItem, value: Any) -> bytes:
    """A digest of the parsed body, the token left out: it may be renewed."""
    at = None if item.at is None else item.at.timestamp()
    body = (
        item.decision, item.session, item.kind, item.item, item.position, value, item.text, at, item.source
    )  # fmt: skip
    return hashlib.blake2b(orjson.dumps(body, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()
