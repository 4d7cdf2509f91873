"""Records as the answers of the wire contract."""

from dayjob.endings import OutcomeKind, VersionStatus
from dayjob.journal.plain import iso
from dayjob.records import Json, Verdict, Version
from dayjob.serve.live import Hub


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
