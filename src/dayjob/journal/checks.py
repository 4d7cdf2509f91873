"""Whether a policy and its records, as a file tells of them, could have been made here. Pure.

What comes over HTTP is checked at the boundary; an archive comes past it. What is wrong raises ValueError, with words.
"""

import math
import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from dayjob.endings import PolicyKind
from dayjob.journal.join import fit
from dayjob.journal.rows import shown_ids
from dayjob.records import Decision, Json, Outcome

POLICY_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
NAME: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f]{1,256}")
MOST_DIM: Final = 65_536
LATEST_MS: Final = 1 << 53
DIGEST: Final = 16  # bytes


def _number(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and POLICY_NAME.fullmatch(value) is not None


def _is_range(value: Any) -> bool:
    number = _number(-1e300, 1e300)
    return isinstance(value, list) and len(value) == 2 and all(map(number, value)) and value[0] < value[1]


def _is_alpha(value: Any) -> bool:
    return _number(0, 1)(value) and 0 < value < 1


SPEC: Mapping[PolicyKind, Mapping[str, Callable[[Any], bool]]] = {
    PolicyKind.RANKER: {
        "context_dim": _whole(1, MOST_DIM),
        "candidate_dim": _whole(1, MOST_DIM),
        "pair_dim": _whole(0, MOST_DIM),
        "hidden": lambda value: isinstance(value, list) and 1 <= len(value) <= 8 and all(map(_whole(1, 8_192), value)),
        "recipe": _is_name,
        "similarity_scale": _number(1e-300, 1e6),
        "metric": lambda value: value in ("click", "reward", "truth", "km"),
        "reward_range": _is_range,
        "outcome_window_s": _number(1e-9, 7_776_000),
        "explore": lambda value: isinstance(value, dict) and _number(0, 1)(value.get("changed_first")),
        "alpha": _is_alpha,
        "minimum_effect": _number(0, 1),
        "learn_every": _whole(0, LATEST_MS),
    },
    PolicyKind.LANGUAGE: {
        "base": lambda value: isinstance(value, str) and bool(NAME.fullmatch(value)),
        "recipe": _is_name,
        "alpha": _is_alpha,
        "minimum_effect": _number(0, 1),
        "learn_every": _whole(0, LATEST_MS),
    },
}
# What language policies were declared without until they had it; then what it is when nothing is said.
LATER: Mapping[PolicyKind, frozenset[str]] = {
    PolicyKind.LANGUAGE: frozenset(("alpha", "minimum_effect", "learn_every")),
}


def check_policy(name: str, kind: PolicyKind, *, spec: Json) -> None:
    """Raises ValueError for a policy that could not have been declared."""
    if not _is_name(name):
        raise ValueError(f"{name!r} is no name of a policy")
    for field, fits in SPEC.get(kind, {}).items():
        if field not in spec:
            if field in LATER.get(kind, ()):
                continue
            raise ValueError(f"the policy's {field!r} is missing")
        if not fits(spec[field]):
            raise ValueError(f"the policy's {field!r} cannot be {spec[field]!r}")


def check_decision(decision: Decision, spec: Json) -> None:
    """Raises ValueError for a ranking whose arrays do not belong together, or whose numbers cannot be."""
    d, k, r = decision, len(decision.candidates), len(decision.ranking) // 2
    _check_names(d.id, d.user, d.session)
    _check_vector(d.context, int(spec["context_dim"]), "context")
    lengths = {
        "pair": (len(d.pair), 4 * k * int(spec["pair_dim"])),
        "base": (len(d.base), 8 * k),
        "score": (len(d.score), 8 * k),
        "rival_score": (len(d.rival_score), 8 * k if d.rival_score else 0),
        "ranking": (len(d.ranking), 2 * r),
        "propensity": (len(d.propensity), 8 * r),
    }
    for field, (found, wanted) in lengths.items():
        if found != wanted:
            raise ValueError(f"{field!r} has {found} bytes where {wanted} belong to {k} candidates, {r} of them shown")
    slots = np.frombuffer(d.ranking, "<u2")
    if not 1 <= r <= k or slots.max(initial=0) >= k or len(np.unique(slots)) != r:
        raise ValueError(f"'ranking' shows {slots.tolist()[:20]} of {k} candidates")
    propensity_R = np.frombuffer(d.propensity, "<f8")
    if not ((propensity_R > 0) & (propensity_R <= 1)).all():
        raise ValueError("a 'propensity' is not in (0, 1]")
    for field in ("base", "score", "rival_score"):
        if not np.isfinite(np.frombuffer(getattr(d, field), "<f8")).all():
            raise ValueError(f"{field!r} holds a number that is not finite")
    if not np.isfinite(np.frombuffer(d.pair, "<f4")).all():
        raise ValueError("'pair' holds a number that is not finite")
    _check_numbers(d)
    _check_extra(d.extra, k)
    for candidate in d.candidates:
        if not NAME.fullmatch(candidate.id) or len(candidate.digest) != DIGEST:
            raise ValueError(f"{candidate.id!r} is no candidate")
    if len({candidate.id for candidate in d.candidates}) != k:
        raise ValueError("two candidates have one id")


def check_outcome(
    outcome: Outcome, kind: PolicyKind, *, spec: Json, told_of: tuple[tuple[str, ...], bytes] | None
) -> None:
    """Raises ValueError for an outcome that does not fit its decision: ``told_of`` its (candidates, ranking), None for
    a whole session's."""
    _check_names(outcome.id, outcome.user, outcome.session)
    if not (0 <= outcome.at_ms <= LATEST_MS and 0 <= outcome.received_ms <= LATEST_MS):
        raise ValueError("a time is no time")
    known, ranking = told_of or ((), b"")
    misfit = fit(outcome, kind=kind, shown=shown_ids(kind, known, ranking=ranking), known=known, spec=spec)
    if misfit is not None:
        raise ValueError(misfit)


def check_vector(blob: bytes, spec: Json) -> None:
    """Raises ValueError for a candidate's vector of another length than declared."""
    _check_vector(blob, int(spec["candidate_dim"]), "vector")


def _check_vector(blob: bytes, dim: int, field: str) -> None:
    if len(blob) not in (2 * dim, 4 * dim):
        raise ValueError(f"{field!r} has {len(blob)} bytes where {2 * dim} or {4 * dim} were declared")
    if not np.isfinite(np.frombuffer(blob, "<f2" if len(blob) == 2 * dim else "<f4")).all():
        raise ValueError(f"{field!r} holds a number that is not finite")


def _check_names(own: str, user: str | None, session: str | None) -> None:
    uuid.UUID(own)
    for name in (user, session):
        if name is not None and not (isinstance(name, str) and NAME.fullmatch(name)):
            raise ValueError(f"{name!r} is no name")


def _check_numbers(d: Decision) -> None:
    shares = {"role_propensity": d.role_propensity, "epsilon": d.epsilon}
    for field, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(f"{field!r} is {share}")
    if not (math.isfinite(d.log_propensity) and d.log_propensity <= 1e-9 and 0 <= d.temperature < math.inf):
        raise ValueError("'log_propensity' or 'temperature' cannot be")
    if not (0 <= d.at_ms <= LATEST_MS and 0 <= d.seed < 1 << 64 and d.coin in (-1, 0, 1)):
        raise ValueError("'at_ms', 'seed' or 'coin' cannot be")


def _check_extra(extra: Json, k: int) -> None:
    """What a learner reads of it: places, losses and the two first choices of a pair."""
    if not isinstance(extra, dict):
        raise ValueError("'extra' is no object")
    for field, shape in (("latlon", (k, 2)), ("loss", (k, k))):
        if field in extra:
            found = np.array(extra[field], np.float64)
            if found.shape != shape or not np.isfinite(found).all():
                raise ValueError(f"'extra' has a {field!r} of shape {found.shape}, not {shape} finite numbers")
    pair = extra.get("pair", [0, 0])
    if not (isinstance(pair, list) and len(pair) == 2 and all(map(_whole(0, k - 1), pair))):
        raise ValueError(f"'extra' has a 'pair' {pair!r}")
