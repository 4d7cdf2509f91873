"""Records as plain JSON, for exports and for people who ask what is held of them."""

from datetime import UTC, datetime

import numpy as np

from dayjob.journal import vectors
from dayjob.records import Choice, Generation, Json, Outcome, Stored, StoredOutcome


def iso(ms: int) -> str:
    """Milliseconds since the epoch as RFC 3339."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat().replace("+00:00", "Z")


def decision_view(stored: Stored, outcomes: list[StoredOutcome]) -> Json:
    """A decision with its outcomes, for exports."""
    d = stored.record
    if d.generation is not None:
        return _generation_view(stored, d.generation, outcomes)
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


def whole_decision_view(stored: Stored, context_dim: int) -> Json:
    """All that is held of a decision, for the person it was made for: what `decision_view` says, and what was decided
    on. Of the candidates' vectors, which belong to the candidates, the digests (hex)."""
    d = stored.record
    view = {name: value for name, value in decision_view(stored, []).items() if name != "outcomes"}
    view["extra"] = d.extra
    if d.generation is not None:
        return view
    pair = np.frombuffer(d.pair, "<f4").reshape(len(d.candidates), -1) if d.candidates else np.zeros((0, 0))
    return view | {
        "context": vectors.unpack(d.context, context_dim).tolist(), "pair": pair.tolist(),
        "vectors": [c.digest.hex() for c in d.candidates], "rival_score": np.frombuffer(d.rival_score, "<f8").tolist(),
    }  # fmt: skip


def _generation_view(stored: Stored, generation: Generation, outcomes: list[StoredOutcome]) -> Json:
    """A language policy's decision: what it read and wrote, token by token."""
    d = stored.record
    return {
        "seq": stored.seq, "id": d.id, "policy": d.policy, "user": d.user, "session": d.session, "at": iso(d.at_ms),
        "version": d.version, "role": d.role.value, "seed": str(d.seed), "base": generation.base,
        "messages": list(generation.messages), "tools": list(generation.tools), "notes": list(generation.notes),
        "sampling": generation.sampling, "prompt_ids": np.frombuffer(generation.prompt_ids, "<u4").tolist(),
        "bare_ids": np.frombuffer(generation.bare_ids, "<u4").tolist(),
        "choices": [_choice_view(number, choice) for number, choice in enumerate(generation.choices)],
        "outcomes": [outcome_view(o.record) for o in outcomes],
    }  # fmt: skip


def _choice_view(number: int, choice: Choice) -> Json:
    return {
        "index": number, "text": choice.text, "ending": choice.ending.value, "seed": str(choice.seed),
        "versions": [list(run) for run in choice.versions],
        "token_ids": np.frombuffer(choice.token_ids, "<u4").tolist(),
        "model_logprobs": np.frombuffer(choice.model_logprobs, "<f4").tolist(),
        "sample_logprobs": np.frombuffer(choice.sample_logprobs, "<f4").tolist(),
    }  # fmt: skip


def outcome_view(outcome: Outcome) -> Json:
    """An outcome, for exports."""
    return {
        "id": outcome.id, "decision": outcome.decision, "session": outcome.session, "kind": outcome.kind.value,
        "item": outcome.item, "position": outcome.position, "value": outcome.value, "text": outcome.text,
        "source": outcome.source, "user": outcome.user, "at": iso(outcome.at_ms),
        "received": iso(outcome.received_ms),
    }  # fmt: skip
