"""Records as the answers of the wire contract."""

from datetime import UTC, datetime

from dayjob.endings import OutcomeKind, VersionStatus
from dayjob.records import Json, Outcome, Stored, StoredOutcome, Verdict, Version
from dayjob.serve.live import Hub


def iso(ms: int) -> str:
    """Milliseconds since the epoch as RFC 3339."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat().replace("+00:00", "Z")


def policy_view(hub: Hub, tenant: str, name: str) -> Json:
    """A policy as it stands. Raises NotFound."""
    control = hub.control
    policy, pointers = control.policy(tenant, name), control.pointers(tenant, name)
    counts = hub.reader.counts(tenant, name)
    verdicts = control.verdicts(tenant, name, limit=1)
    frozen = pointers.frozen or hub.freeze_file
    waiting = [v.name for v in control.versions(tenant, name) if v.status is VersionStatus.WAITING]
    return {
        "name": name,
        "kind": policy.kind.value,
        "spec": policy.spec,
        "champion": pointers.champion,
        "challenger": pointers.challenger or (waiting[-1] if waiting else None),
        "baseline": pointers.baseline,
        "previous": pointers.previous,
        "frozen": bool(frozen),
        "serves": "baseline" if frozen == "baseline" else "champion",
        "counts": {
            "decisions": counts.get("decisions", 0),
            "outcomes": {kind.value: counts.get(kind.value, 0) for kind in OutcomeKind if counts.get(kind.value, 0)},
        },
        "last_verdict": verdict_view(verdicts[-1]) if verdicts else None,
    }


def version_view(version: Version) -> Json:
    """A version with its lineage."""
    return {
        "version": version.name,
        "parent": version.parent,
        "recipe": version.recipe,
        "created": iso(version.created_ms),
        "digest": version.digest,
        "journal_range": [version.from_seq, version.to_seq],
        "status": version.status.value,
        "detail": version.detail,
    }


def verdict_view(verdict: Verdict) -> Json:
    """What the gate, or a person, said."""
    return {
        "kind": verdict.kind.value,
        "challenger": verdict.challenger,
        "champion": verdict.champion,
        "reason": verdict.reason,
        "at": iso(verdict.at_ms),
        "by": verdict.by,
        "evidence": verdict.evidence,
    }


def decision_view(stored: Stored, outcomes: list[StoredOutcome]) -> Json:
    """A decision with its outcomes, for exports."""
    import numpy as np

    d = stored.record
    slots = np.frombuffer(d.ranking, "<u2")
    score_K, propensity_R = np.frombuffer(d.score, "<f8"), np.frombuffer(d.propensity, "<f8")
    return {
        "seq": stored.seq, "id": d.id, "policy": d.policy, "user": d.user, "session": d.session, "at": iso(d.at_ms),
        "version": d.version, "challenger": d.challenger, "role": d.role.value, "role_propensity": d.role_propensity,
        "explore": d.explore, "seed": str(d.seed), "epsilon": d.epsilon, "temperature": d.temperature,
        "intervened": d.intervened, "coin": d.coin, "log_propensity": d.log_propensity,
        "candidates": [c.id for c in d.candidates], "score": score_K.tolist(),
        "base": np.frombuffer(d.base, "<f8").tolist(),
        "ranking": [
            {"id": d.candidates[s].id, "position": n, "propensity": float(p)}
            for n, (s, p) in enumerate(zip(slots, propensity_R, strict=True), start=1)
        ],
        "outcomes": [outcome_view(o.record) for o in outcomes],
    }  # fmt: skip


def outcome_view(outcome: Outcome) -> Json:
    """An outcome, for exports."""
    return {
        "id": outcome.id, "decision": outcome.decision, "session": outcome.session, "kind": outcome.kind.value,
        "item": outcome.item, "position": outcome.position, "value": outcome.value, "text": outcome.text,
        "source": outcome.source, "user": outcome.user, "at": iso(outcome.at_ms),
        "received": iso(outcome.received_ms),
    }  # fmt: skip
