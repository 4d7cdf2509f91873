"""Records as plain JSON, for exports and for people who ask what is held of them."""

from datetime import UTC, datetime

import numpy as np

from dayjob.records import Json, Outcome, Stored, StoredOutcome


def iso(ms: int) -> str:
    """Milliseconds since the epoch as RFC 3339."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat().replace("+00:00", "Z")


def decision_view(stored: Stored, outcomes: list[StoredOutcome]) -> Json:
    """A decision with its outcomes, for exports."""
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
