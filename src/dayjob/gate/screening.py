"""Screening a challenger on what was already logged: estimates with intervals, shown and never deciding.

Value is what the first place earns. The log knows the exact probability of each first place it showed, so a
challenger's own first choice is weighed by 1/p where the log happened to show it. Where exploration never could, the
estimate says so.

The reward model of DM, DR and SWITCH is the click model, fitted to the same decisions (``signals.orders``): the chance
of a click on an item at position 1, pull + look times the chance that somebody who looks chooses it. Where chance moved
too few lists to fit it, or what a decision earns is no click, these are left out: with one guess for every item they
would say the same of every challenger.
"""

from collections.abc import Callable, Sequence

import numpy as np

from dayjob.endings import Role
from dayjob.gate.confidence import Floats
from dayjob.gate.control import Ints
from dayjob.gate.desk import click_log, line_of
from dayjob.gate.evidence import closing_outcome, loss_matrix, slot_of, slots_of, success
from dayjob.gate.screen import Estimate, Logged, Target, affine, diagnose, estimates, without_model
from dayjob.journal.join import window_of
from dayjob.journal.readers import Reader
from dayjob.journal.vectors import unpack
from dayjob.policies.plackett_luce import LOGIT_FLOOR, Explore, order, propensities
from dayjob.policies.protocol import Lists, Ranker
from dayjob.records import Decision, Joined, Json, Policy
from dayjob.signals.bias import Bias
from dayjob.signals.orders import chosen, pool

LoadRanker = Callable[[str, str, str, str], Ranker]
"""(tenant, policy, version, digest) -> a verified ranker; raises Damaged."""

NEWEST = 2_000  # decisions that a screening looks at
LEAST = 50
LEAST_KNOWN = 0.5  # share of the decisions that are of an order whose choices could be fitted
SUPPORTED = 0.01  # of the attention at position 1, expected by the log's chances: below it a list says nothing
ELSEWHERE = -1
NO_NAMES = b""  # people are told apart within one estimate, and their numbers not kept
WEIGHTED = ("IPS", "SNIPS")  # need no model


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
    weight_N, reward_N, chance_N = (np.zeros(len(served)) for _ in range(3))
    target_N = np.zeros(len(served), np.int64)
    for n, joined in enumerate(served):
        decision = joined.stored.record
        target = int(order(ranker.score(lists_of(decision, spec, reader=reader))[0])[0])
        chance = _chance(decision, target)
        shown = int(slots_of(decision)[0])
        target_N[n], reward_N[n], chance_N[n] = target, success(joined, spec), chance
        weight_N[n] = 1.0 / chance if shown == target and chance > 0.0 else 0.0
    model = _click_model(served, target_N, spec=spec, reader=reader)
    if model is None:
        logged = without_model(reward_N, weight_N)
    else:
        with np.errstate(divide="ignore"):
            new = Target(chance_NA=np.ones((len(served), 1)), ratio_NA=1.0 / chance_N[:, None])
        logged = Logged(reward_N=reward_N, weight_N=weight_N, q_N=model[0], q_new_N=model[1], target=new)
    found = diagnose(logged, unsupported_N=chance_N == 0.0)
    every = estimates(logged, alpha=float(spec["alpha"]))
    named = [e for name, e in every.items() if model is not None or name in WEIGHTED]
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


def _click_model(
    served: Sequence[Joined], target_N: Ints, *, spec: Json, reader: Reader
) -> tuple[Floats, Floats] | None:
    """(chance of a click on what stood first, the same of the challenger's first choice); None without a model.

    A choice that was not on the page is taken for an average one of it.
    """
    if spec["metric"] != "click" or any(loss_matrix(one.stored.record) is not None for one in served):
        return None
    log = click_log([line_of(one, spec, reader=reader, key=NO_NAMES) for one in served])
    pooled = pool(log) if log.single else None
    if pooled is None:
        return None
    rho_BK = chosen(log, pooled.models)[:, :-1]
    known_B = np.isfinite(rho_BK[:, 0])
    if known_B.mean() < LEAST_KNOWN:
        return None
    place_N = np.array([
        int(np.append(np.flatnonzero(slots_of(one.stored.record)[: log.width] == target), ELSEWHERE)[0])
        for one, target in zip(served, target_N, strict=True)
    ])  # fmt: skip
    mean_N = rho_BK.sum(axis=1) / log.shown_BK.sum(axis=1)
    wanted_N = np.where(place_N == ELSEWHERE, mean_N, rho_BK[np.arange(len(log)), place_N])
    q_N, q_new_N = (float(pooled.pull_K[0]) + pooled.look * rho_N for rho_N in (rho_BK[:, 0], wanted_N))
    average = float(q_N[known_B].mean())  # in lists of an order with too few of them
    return np.where(known_B, q_N, average), np.where(known_B, q_new_N, average)


def _affine(served: Sequence[Joined], target_N: Ints, bias: Bias, *, level: float) -> list[Estimate]:
    """The affine-corrected estimate, policy-aware: by what position the log's own chances gave the challenger's choice.

    Not by the one it happened to get: else what was shown low, and the lists in which it was not shown, would count
    otherwise than chance had it (Oosterhuis and de Rijke, SIGIR 2020).
    """
    alpha_K, beta_K = np.nan_to_num(bias.alpha_K), np.nan_to_num(bias.beta_K)
    click, attention, trust = [], [], []
    for n, (joined, target) in enumerate(zip(served, target_N, strict=True)):
        decision = joined.stored.record
        width = min(len(slots_of(decision)), len(alpha_K))
        chance_R = place_chances(decision, int(target), seed=n)[:width]
        seen = float(chance_R @ alpha_K[:width])
        if seen < SUPPORTED * alpha_K[0]:
            continue
        found = closing_outcome(joined)
        clicked = -1 if found is None else slot_of(decision, found.record)
        click.append(float(clicked == target))
        attention.append(seen)
        trust.append(float(chance_R @ beta_K[:width]))
    if len(click) < LEAST:
        return []
    top = (float(alpha_K[0]), float(beta_K[0]))
    return [affine(click, attention, beta_N=trust, level=level, top=top)]


def place_chances(decision: Decision, slot: int, *, seed: int, draws: int = 64) -> Floats:
    """(K,) how probable it was that this candidate got each position, by the journaled scores and exploration.

    The uniform draw at position 1 exactly: it puts the candidate first in 1/K of lists, or one lower where another that
    stood below it was drawn. Plackett-Luce by ``draws`` of its own (beyond position 1 it has no closed form).
    """
    score_K = np.frombuffer(decision.score, "<f8")
    k = len(score_K)
    if decision.temperature <= 0.0:
        place_M = np.flatnonzero(order(score_K) == slot)
    else:
        logit_K = np.maximum((score_K - score_K.max()) / decision.temperature, LOGIT_FLOOR)
        noisy_MK = logit_K + np.random.default_rng(seed).gumbel(size=(draws, k))
        place_M = (noisy_MK > noisy_MK[:, [slot]]).sum(axis=1)
    plain_K = np.bincount(place_M, minlength=k) / len(place_M)
    at_K = np.arange(k)
    drawn_K = plain_K * at_K / k
    drawn_K[1:] += (plain_K * (k - 1 - at_K) / k)[:-1]
    drawn_K[0] += 1 / k
    found_K: Floats = (1 - decision.epsilon) * plain_K + decision.epsilon * drawn_K
    return found_K
