"""Every call of the client, written once, as a plan (see `dayjob.client_core`)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import numpy.typing as npt

from dayjob.client_answers import (
    Adapter,
    Counts,
    Erasure,
    FeedbackReport,
    Job,
    Policy,
    Ranked,
    Ranking,
    Receipt,
    Report,
    UserRecord,
    Version,
)
from dayjob.client_core import Pause, Plan, Repeat, Reply, Request
from dayjob.client_types import (
    BadAnswer,
    Candidate,
    Feedback,
    Spec,
    Unreachable,
    absent,
    member,
    new_id,
    pack,
    read,
    to_bytes,
)
from dayjob.endings import FeedbackState, Invalid, JobState, PolicyKind, Role, VersionStatus

NDJSON_TYPE = "application/x-ndjson"
ERASED_LISTS = ("adapters_withdrawn", "versions_tainted", "trials_ended", "rebuilding")
Json = dict[str, Any]


def _ask(request: Request) -> Plan[Reply]:
    reply = yield request
    assert reply is not None, "a request is answered by a reply"
    return reply


def ask_json(
    method: str, path: str, *, body: Any = None, repeat: Repeat = Repeat.SAFE, query: Mapping[str, str] | None = None
) -> Plan[Any]:
    """A request with a JSON body, if any, and the JSON that it is answered by."""
    encoded = None if body is None else to_bytes(body)
    reply = yield from _ask(Request(method=method, path=path, body=encoded, query=query or {}, repeat=repeat))
    return reply.json()


def part(name: str, *, param: str) -> str:
    """``name`` as one quoted part of a path. Raises Invalid for what would change the path."""
    if name in ("", ".", ".."):
        raise Invalid(f"{param} must not be {name!r}.", param=param)
    return quote(name, safe="")


def policy_path(policy: str, *rest: str) -> str:
    """The path of a policy, or of something below it. Raises Invalid as `part` does."""
    return "/".join(("/v1/policies", part(policy, param="policy"), *rest))


# ---- policies --------------------------------------------------------------------------------------------------


def object_of(data: Any, what: str) -> Mapping[str, Any]:
    """The data, which is an object. Raises BadAnswer, which says that it should be ``what``."""
    if not isinstance(data, Mapping):
        raise BadAnswer(f"Expected {what}, got {str(data)[:200]!r}.")
    return data


def _policy(data: Any) -> Policy:
    told = object_of(data, "a policy")
    adapter = told.get("adapter")
    if adapter is not None:
        adapter = read(Adapter, adapter, status=member(VersionStatus, object_of(adapter, "an adapter").get("status")))
    kind, counts = member(PolicyKind, told.get("kind")), read(Counts, told.get("counts"))
    return read(Policy, told, kind=kind, counts=counts, adapter=adapter)


def _version(data: Any) -> Version:
    told = object_of(data, "a version")
    after, through = told.get("journal_range") or (0, 0)
    return read(Version, told, status=member(VersionStatus, told.get("status")), journal_range=(after, through))


def listed_under(data: Any, name: str) -> list[Any]:
    """A list that stands alone, or under ``name`` or "data"."""
    found = data.get(name, data.get("data")) if isinstance(data, Mapping) else data
    if not isinstance(found, list):
        raise BadAnswer(f"Expected a list of {name}, got {str(data)[:200]!r}.")
    return found


def put_policy(name: str, spec: Spec) -> Plan[Policy]:
    """Declares a policy, or confirms it. Raises ApiError 409 for another kind or other dimensions."""
    return _policy((yield from ask_json("PUT", policy_path(name), body=spec.to_json())))


def policies() -> Plan[tuple[Policy, ...]]:
    """All policies of this key's tenant."""
    return tuple(_policy(each) for each in listed_under((yield from ask_json("GET", "/v1/policies")), "policies"))


def policy(name: str, *, user: str | None = None) -> Plan[Policy]:
    """One policy: its versions, counts and last verdict; with ``user`` that person's ``adapter`` too."""
    return _policy((yield from ask_json("GET", policy_path(name), query=absent({"user": user}))))


def put_catalog(policy: str, items: Iterable[Candidate]) -> Plan[int]:
    """Replaces the policy's catalog; gives the number of items. The body is built in memory (2.8 kB a 512-vector)."""
    body = b"\n".join(to_bytes(_catalog_line(item)) for item in items)
    path = policy_path(policy, "catalog")
    reply = yield from _ask(Request(method="PUT", path=path, body=body, content_type=NDJSON_TYPE))
    return int(reply.json()["items"])


def _catalog_line(item: Candidate) -> Json:
    if item.loss is not None:
        raise Invalid(f"item {item.id!r} has a loss: send losses with a ranking, not with the catalog.", param="loss")
    return item.to_json()


def versions(policy: str, *, user: str | None = None) -> Plan[tuple[Version, ...]]:
    """All versions of a policy, or of a person's adapter of it."""
    told = yield from ask_json("GET", policy_path(policy, "versions"), query=absent({"user": user}))
    return tuple(_version(each) for each in listed_under(told, "versions"))


def learn(policy: str, *, recipe: str | None = None, user: str | None = None) -> Plan[Job]:
    """Starts learning, or gives the job that already runs; with ``user`` that person's adapter alone."""
    body = absent({"recipe": recipe, "user": user})
    return _job((yield from ask_json("POST", policy_path(policy, "learn"), body=body)))


def dream(policy: str, *, budget: float | None = None, user: str | None = None) -> Plan[Job]:
    """Starts a rehearsal in environments built from the journal."""
    body = absent({"budget": budget, "user": user})
    return _job((yield from ask_json("POST", policy_path(policy, "dream"), body=body, repeat=Repeat.UNSENT)))


def _job(data: Any) -> Job:
    told = object_of(data, "a job")
    return read(Job, told, state=member(JobState, told.get("state", "queued")))


def job(job: str) -> Plan[Job]:
    """Where a job stands."""
    told = object_of((yield from ask_json("GET", f"/v1/jobs/{part(job, param='job')}")), "a job")
    return _job({"job": job, **told})


def wait_job(job_id: str, *, timeout_s: float = 600.0, every_s: float = 0.25) -> Plan[Job]:
    """Polls until the job has succeeded or failed. Raises Unreachable after ``timeout_s`` of waiting."""
    waited_s = 0.0
    while True:
        current = yield from job(job_id)
        if current.finished:
            return current
        if waited_s >= timeout_s:
            raise Unreachable(f"Job {job_id} was still {current.state} after {timeout_s:g} s; ask again later.")
        yield Pause(seconds=every_s)
        waited_s += every_s


def rollback(policy: str, *, to: str | None = None, user: str | None = None) -> Plan[Policy]:
    """Makes ``to``, or the previous champion, the champion (of a person's adapter, with ``user``). Without ``to`` it is
    never sent twice: that would go back two versions."""
    repeat, body = Repeat.SAFE if to else Repeat.UNSENT, absent({"to": to, "user": user})
    return _policy((yield from ask_json("POST", policy_path(policy, "rollback"), body=body, repeat=repeat)))


def promote(policy: str, version: str, *, reason: str, user: str | None = None) -> Plan[Policy]:
    """Makes ``version`` the champion by hand (of a person's adapter, with ``user``); the journal keeps the reason."""
    body = absent({"version": version, "reason": reason, "user": user})
    return _policy((yield from ask_json("POST", policy_path(policy, "promote"), body=body, repeat=Repeat.UNSENT)))


def freeze(policy: str, *, serve: str | None = None) -> Plan[Policy]:
    """Stops learning; ``serve`` "champion" or "baseline" says what answers meanwhile."""
    return _policy((yield from ask_json("POST", policy_path(policy, "freeze"), body=absent({"serve": serve}))))


def unfreeze(policy: str) -> Plan[Policy]:
    """Learns again."""
    return _policy((yield from ask_json("POST", policy_path(policy, "unfreeze"), body={})))


def report(policy: str) -> Plan[Report]:
    """What the clicks can teach, the bias, the ceiling, the gate's verdicts, drift and forgetting."""
    data = object_of((yield from ask_json("GET", policy_path(policy, "report"))), "a report")
    told = object_of(data.get("feedback"), "a report's feedback")
    shares = tuple(float(share) for share in told.get("share_at") or ())
    feedback = read(FeedbackReport, told, state=member(FeedbackState, told.get("state")), share_at=shares)
    return read(Report, data, feedback=feedback)


def series(policy: str) -> Plan[Mapping[str, list[Json]]]:
    """The curves that the dashboard draws, by name: "versions", "position", "trial", "feedback", "learning"."""
    told = object_of((yield from ask_json("GET", policy_path(policy, "series"))), "series")
    return {str(name): list(points) for name, points in object_of(told.get("series"), "series").items()}


# ---- rank and feedback -----------------------------------------------------------------------------------------


def rank(
    policy: str,
    context: npt.ArrayLike,
    *,
    candidates: Sequence[Candidate] | None = None,
    k: int | None = None,
    explore: bool = True,
    user: str | None = None,
    session: str | None = None,
    id: str | None = None,
) -> Plan[Ranking]:
    """Orders candidates for one context of context_dim numbers.

    Without ``candidates`` the policy's catalog is searched. Send a score for all of them or for none: a missing one
    would count 0, and is refused here beside others that have one. So is a ``loss`` of some of them, or of another
    length than there are candidates. ``id`` is made here when absent, before anything is sent, so that every retry is
    the same decision. Raises Invalid, ApiError, Unreachable.
    """
    _check_scores(candidates or ())
    body = absent(
        {
            "policy": policy,
            "id": id or new_id(),
            "user": user,
            "session": session,
            "k": k,
            "explore": explore,
            "context": {"features_b64": pack(context, param="context")},
            "candidates": None if candidates is None else [each.to_json() for each in candidates],
            "loss": _loss(candidates or ()),
        }
    )
    data = object_of((yield from ask_json("POST", "/v1/rank", body=body)), "a ranking")
    ranked = tuple(read(Ranked, each) for each in listed_under(data.get("ranking"), "ranking"))
    return read(Ranking, data, role=member(Role, data.get("role")), ranking=ranked)


def _check_scores(candidates: Sequence[Candidate]) -> None:
    without = [each.id for each in candidates if each.score is None]
    if without and len(without) < len(candidates):
        raise Invalid(
            f"candidate {without[0]!r} has no score and others have one ({len(without)} of {len(candidates)} have "
            "none): a missing score counts 0, so send one for all of them or for none.",
            param="candidates",
        )


def _loss(candidates: Sequence[Candidate]) -> list[list[float]] | None:
    """The square matrix of all candidates' losses, None where none has one."""
    rows = [None if each.loss is None else [float(number) for number in each.loss] for each in candidates]
    if all(row is None for row in rows):
        return None
    for each, row in sorted(zip(candidates, rows, strict=True), key=lambda pair: pair[1] is not None):
        if row is None or len(row) != len(rows):
            has = "none" if row is None else f"{len(row)} numbers"
            raise Invalid(
                f"candidate {each.id!r} has {has} as its loss and there are {len(rows)} candidates: send each candidate"
                f" {len(rows)} numbers, what showing it costs when each of them is right, or send no loss.",
                param="loss",
            )
    return [row for row in rows if row is not None]


def feedback(item: Feedback) -> Plan[Receipt]:
    """Reports one outcome. Gives the receipt (recorded, repeated or held); raises ApiError where it was refused."""
    reply = yield from _ask(Request(method="POST", path="/v1/feedback", body=to_bytes(item.to_json())))
    return read(Receipt, reply.json(), id=item.id, status=reply.status)


def feedback_many(items: Sequence[Feedback]) -> Plan[tuple[Receipt, ...]]:
    """Reports many outcomes in one request; each is judged alone, the receipts are in the same order."""
    data = yield from ask_json("POST", "/v1/feedback", body={"items": [item.to_json() for item in items]})
    answers = listed_under(data, "items")
    if len(answers) != len(items):
        raise BadAnswer(f"Sent {len(items)} outcomes, got {len(answers)} receipts.")
    pairs = zip(items, answers, strict=True)
    return tuple(read(Receipt, answer, id=item.id) for item, answer in pairs)


# ---- people, health --------------------------------------------------------------------------------------------


def _user_path(user: str) -> str:
    return f"/v1/users/{part(user, param='user')}"


def user(user: str) -> Plan[UserRecord]:
    """All that is held about a user, and what learned from it."""
    told = object_of((yield from ask_json("GET", _user_path(user))), "a user")
    return read(UserRecord, told, versions=tuple(told.get("versions") or ()))


def set_learning(user: str, *, learn: bool) -> Plan[bool]:
    """Says whether this user's decisions may be learned from (they are served either way); gives what holds now."""
    told = object_of((yield from ask_json("PATCH", _user_path(user), body={"learn": learn})), "a user")
    return bool(told.get("learn"))


def erase_user(user: str) -> Plan[Erasure]:
    """Erases a user, for good; gives the counts of what was erased."""
    told = object_of((yield from ask_json("DELETE", _user_path(user))), "counts")
    named = {name: tuple(told.get(name) or ()) for name in ERASED_LISTS}
    return read(Erasure, told, **named)


def export_request(policy: str, *, format: str = "decisions") -> Request:
    """The export of a policy as NDJSON; format "chat", "preference", "openai-dpo" or "decisions"."""
    return Request(method="GET", path="/v1/export", query={"policy": policy, "format": format})


def ready() -> Plan[bool]:
    """Whether requests are served now."""
    return (yield from _ask(Request(method="GET", path="/readyz", repeat=Repeat.NEVER))).status == 200


def wait_ready(*, timeout_s: float = 30.0, every_s: float = 0.1) -> Plan[None]:
    """Waits until requests are served. Raises Unreachable after ``timeout_s`` of waiting."""
    waited_s = 0.0
    while not (yield from ready()):
        if waited_s >= timeout_s:
            raise Unreachable(
                f"The server was not ready after {timeout_s:g} s; look at its log, or run `dayjob doctor`."
            )
        yield Pause(seconds=every_s)
        waited_s += every_s
