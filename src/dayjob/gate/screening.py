"""Screening a challenger on what was already logged: estimates with intervals, shown and never deciding.

Value is what the first place earns. The log knows the exact probability of each first place it showed, so a
challenger's own first choice is weighed by 1/p where the log happened to show it. Where exploration never could, the
estimate says so.
"""

from collections.abc import Callable, Sequence

import numpy as np

from dayjob.endings import Role
from dayjob.gate.control import Ints
from dayjob.gate.evidence import closing_outcome, loss_matrix, slot_of, slots_of, success
from dayjob.gate.screen import Estimate, Logged, affine, diagnose, estimates
from dayjob.journal.join import window_of
from dayjob.journal.readers import Reader
from dayjob.journal.vectors import unpack
from dayjob.policies.plackett_luce import Explore, order, propensities
from dayjob.policies.protocol import Lists, Ranker
from dayjob.records import Decision, Joined, Json, Policy
from dayjob.signals.bias import Bias

LoadRanker = Callable[[str, str, str, str], Ranker]
"""(tenant, policy, version, digest) -> a verified ranker; raises Damaged."""

NEWEST = 2_000  # decisions that a screening looks at
LEAST = 50


def screen_again(last: tuple[str, int, Json] | None, name: str, *, closed: int) -> bool:
    """Whether a challenger is to be screened: it never was, or there was too little and has come more since.

    ``last``: (challenger, closed decisions then, what was said).
    """
    return last is None or last[0] != name or ("reason" in last[2] and closed >= last[1] + LEAST)


def newest_closed(reader: Reader, policy: Policy, *, until: int, now_ms: int) -> list[Joined]:
    """The newest closed decisions up to sequence number ``until``."""
    key = (policy.tenant, policy.name)
    pages = reader.joined(
        *key, window=window_of(policy.spec), now_ms=now_ms, cursor=reader.cursor_before(*key, NEWEST, until=until),
        until=until,
    )  # fmt: skip
    return [joined for page in pages for joined in page if joined.closed_seq is not None]


def lists_of(decision: Decision, spec: Json, *, reader: Reader) -> Lists:
    """A journaled decision as the list it was: the very numbers that were scored."""
    k = len(decision.candidates)
    digests = [candidate.digest for candidate in decision.candidates]
    loss_KK = loss_matrix(decision)
    return Lists(
        context_BD=unpack(decision.context, int(spec["context_dim"]))[None],
        candidate_BKE=reader.get_many(decision.tenant, digests, dim=int(spec["candidate_dim"]))[None],
        pair_BKP=np.frombuffer(decision.pair, "<f4").reshape(1, k, int(spec["pair_dim"])),
        base_BK=np.frombuffer(decision.base, "<f8")[None],
        loss_BKK=None if loss_KK is None else loss_KK[None],
    )


def screen(ranker: Ranker, closed: Sequence[Joined], *, spec: Json, reader: Reader, bias: Bias | None) -> Json:
    """Estimates of a challenger's value from closed champion decisions, or why there are none."""
    served = [j for j in closed if j.stored.record.role is Role.CHAMPION][-NEWEST:]
    if len(served) < LEAST:
        return {
            "reason": f"{len(served)} closed decisions were served by a champion alone: at least {LEAST} are needed"
        }
    weight_N, reward_N, missing_N = (np.zeros(len(served)) for _ in range(3))
    target_N = np.zeros(len(served), np.int64)
    for n, joined in enumerate(served):
        decision = joined.stored.record
        target = int(order(ranker.score(lists_of(decision, spec, reader=reader))[0])[0])
        chance = _chance(decision, target)
        shown = int(slots_of(decision)[0])
        target_N[n], reward_N[n], missing_N[n] = target, success(joined, spec), float(chance == 0.0)
        weight_N[n] = 1.0 / chance if shown == target and chance > 0.0 else 0.0
    half = len(served) // 2
    guess = np.full(len(served), float(reward_N[:half].mean()))
    logged = Logged(reward_N=reward_N, weight_N=weight_N, q_N=guess, q_new_N=guess)
    found = diagnose(logged, unsupported_N=missing_N)
    named = list(estimates(logged, alpha=float(spec["alpha"])).values())
    if bias is not None and bias.identifiable and bias.alpha_K[0] > 0:
        named += _affine(served, target_N, bias, level=float(spec["alpha"]))
    return {
        "logged": float(reward_N.mean()),
        "decisions": found.decisions,
        "effective": found.effective,
        "max_weight": found.max_weight,
        "mean_weight": found.mean_weight,
        "unsupported": found.unsupported,
        "told": found.told,
        "estimators": {e.name: {"value": e.value, "low": e.low, "high": e.high, "told": e.told} for e in named},
    }


def _chance(decision: Decision, slot: int) -> float:
    """How probable it was that the log showed this candidate first."""
    score_K = np.frombuffer(decision.score, "<f8")
    explore = Explore(epsilon=decision.epsilon, temperature=decision.temperature)
    return float(propensities(score_K, np.array([slot]), explore=explore)[0])


def _affine(served: Sequence[Joined], target_N: Ints, bias: Bias, *, level: float) -> list[Estimate]:
    """The affine-corrected estimate, from wherever the challenger's first choices were shown."""
    click, attention, trust = [], [], []
    for joined, target in zip(served, target_N, strict=True):
        places = np.flatnonzero(slots_of(joined.stored.record) == target)
        if not len(places) or int(places[0]) >= len(bias.alpha_K) or not bias.alpha_K[int(places[0])] > 0:
            continue
        found = closing_outcome(joined)
        clicked = -1 if found is None else slot_of(joined.stored.record, found.record)
        click.append(float(clicked == target))
        attention.append(float(bias.alpha_K[int(places[0])]))
        trust.append(float(bias.beta_K[int(places[0])]))
    if len(click) < LEAST:
        return []
    top = (float(bias.alpha_K[0]), float(bias.beta_K[0]))
    return [affine(click, attention, beta_N=trust, level=level, top=top)]
