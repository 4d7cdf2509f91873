"""The report of one policy: what its clicks can teach, what the trial found, what drifts. Made beside the judge."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dayjob.endings import Role
from dayjob.gate import monitors
from dayjob.gate.desk import F64, Desk, Line
from dayjob.gate.drift import drift
from dayjob.records import Json
from dayjob.signals.bias import Bias, chosen_share, estimate_bias
from dayjob.signals.ceiling import Ceiling, ceiling, learning
from dayjob.signals.clicklog import ClickLog
from dayjob.signals.detector import Feedback, feedback
from dayjob.signals.features import learned_score
from dayjob.signals.informants import Lookers, lookers
from dayjob.signals.predicted import Predicted, predicted

QUIET_S = 5.0
REST = 20.0  # times as long as the last look took, where few new decisions came
FEEDBACK_EVERY = 250  # closed decisions at least between two looks at what the clicks can teach
LOOK_SHARE = 4  # and a quarter of those on the desk: looking costs in proportion to them
LEAST_REWARDS = 8
LEAST_TO_ALARM = 1_000  # decisions served before standing still is worth an alarm
GAMING_WINDOW = 100  # decisions with both a reward and the truth, at each end
GAMING_LEVEL = 0.01


def read_feedback(desk: Desk) -> Feedback:
    """What the clicks of the newest decisions can teach."""
    log = desk.log()
    return feedback(log, learned_BK=learned_score(log.feature_BKF, log.click_B, shown_BK=log.shown_BK))


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """The slow part of a report: of how many closed decisions, when, how long it took, and what it said."""

    closed: int
    at_s: float
    took_s: float
    bias: Bias | None
    body: Json


def is_due(analysis: Analysis, desk: Desk, *, now_s: float, lag: int = 0) -> bool:
    """Whether the newest decisions want another look: enough of them, or any after some quiet.

    ``lag``: closed decisions that are not on the desk, since an older one is open.
    """
    new = desk.closed + lag - analysis.closed
    quiet_s = max(QUIET_S, REST * analysis.took_s)
    return new >= max(FEEDBACK_EVERY, len(desk.lines) // LOOK_SHARE) or (new > 0 and now_s - analysis.at_s >= quiet_s)


def analyse(desk: Desk, said: Feedback, *, spec: Json, now_s: float) -> Analysis:
    """Everything in a report but the gate's own part."""
    began_s, log, lines = time.monotonic(), desk.log(), list(desk.lines)
    bias = estimate_bias(log, found=said) if len(log) else None
    body = {
        "feedback": {
            "state": said.state.value,
            "reason": said.reason,
            "share_at": [float(share) for share in said.share_at],
            "needed": said.needed,
            **_chosen(log, said, bias=bias),
        },
        "bias": {} if bias is None else _bias(bias) | _predicted(predicted(log, bias)),
        "people": {} if bias is None else _people(lookers(log, bias)),
        "ceiling": {} if bias is None else _ceiling(ceiling(log, bias, found=said)),
        "learning": _learning(lines, said, float(spec["explore"]["changed_first"])),
        "gaming": _gaming(lines),
        "drift": drift(lines, said.state).to_json(),
        "exposure": _exposure(lines),
        "forgetting": {
            "state": "not_applicable",
            "reason": "a ranker is trained anew from the baseline every time",
        },
        "made_ms": int(time.time() * 1000),
    }
    took_s = time.monotonic() - began_s
    return Analysis(closed=desk.closed, at_s=now_s, took_s=took_s, bias=bias, body=body)


def _chosen(log: ClickLog, said: Feedback, *, bias: Bias | None) -> Json:
    """What share of the clicks follows what is shown: as the bias has it, else no more than the detector's bound."""
    unknown = (math.nan, math.nan, math.nan)
    low, point, high = unknown if bias is None else chosen_share(log, bias)
    return {
        "informative_share": _number(point),
        "informative_share_at_least": _number(low),
        "informative_share_at_most": _number(high if math.isfinite(high) else said.informative_share),
    }


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _numbers(values: Any) -> list[float | None]:
    return [_number(float(value)) for value in values]


def _bias(bias: Bias) -> Json:
    return {
        "method": bias.method.value, "reason": bias.reason,
        "alpha": _numbers(bias.alpha_K), "alpha_low": _numbers(bias.alpha_low_K),
        "alpha_high": _numbers(bias.alpha_high_K), "beta": _numbers(bias.beta_K),
        "beta_low": _numbers(bias.beta_low_K), "beta_high": _numbers(bias.beta_high_K),
    }  # fmt: skip


def _predicted(found: Predicted | None) -> Json:
    if found is None:
        return {}
    return {
        "observed": _numbers(found.observed_K), "predicted": _numbers(found.predicted_K), "new_lists": found.lists,
        "perplexity": _number(found.perplexity), "perplexity_by_position": _number(found.perplexity_by_position),
    }  # fmt: skip


def _people(found: Lookers) -> Json:
    """Counts alone: a number that stands for somebody would outlive their erasure here."""
    (most, most_decisions), (least, least_decisions) = found.most, found.least
    return {
        "users": found.users, "counted": found.counted, "capped": found.capped, "reason": found.reason,
        "looking": _number(found.share[1]), "looking_interval": _numbers(found.share[::2]),
        "most": {"looks": _number(most), "decisions": most_decisions},
        "least": {"looks": _number(least), "decisions": least_decisions},
    }  # fmt: skip


def _ceiling(top: Ceiling) -> Json:
    return {
        "served": _number(top.first), "served_interval": _numbers(top.first_interval),
        "best_of_k": _number(top.best), "best_interval": _numbers(top.best_interval),
        "source": top.source, "short": top.lever.value, "reason": top.reason,
    }  # fmt: skip


def _learning(lines: Sequence[Line], said: Feedback, changed_first: float) -> Json:
    """KL of the first place between the serving version and the caller's order, both exploring alike, against reward.

    The two orders differ only in which item gets 1 - e of the probability, so the KL is 0 where they agree and
    (1 - e) log((1 - e) K / e) where they do not.
    """
    served = [line for line in lines if line.role is Role.CHAMPION]
    if len(served) < LEAST_REWARDS:
        return {"alarm": False, "reason": "too few decisions yet"}
    e = min(max(changed_first, 1e-3), 0.5)
    kl_T = np.array([
        0.0 if line.first == line.first_by_caller else (1 - e) * math.log((1 - e) * len(line.key_R) / e)
        for line in served
    ])  # fmt: skip
    reward_T, weight_T = np.array([line.success for line in served]), _alone(served)
    found = learning(np.array([kl_T[-len(kl_T) // 4 :].mean()]), reward_T, weight_T=weight_T)
    gain = monitors.Change(change=found.gained, low=found.gained_interval[0], high=found.gained_interval[1])
    alarm = monitors.not_learning(kl=found.moved, reward=found.reward, gain=gain, feedback=said.state)
    return {
        "alarm": alarm.fires and len(served) >= LEAST_TO_ALARM,
        "learning": found.learning,
        "reason": alarm.reason,
        "kl": found.moved,
        "reward": found.reward,
        "gained": found.gained,
        "gained_interval": _numbers(found.gained_interval),
    }


def _alone(lines: Sequence[Line]) -> F64:
    """1 / chance of the part each line played: while a pair is compared, the champion alone keeps the lists on which
    both agree, which are the easier ones; so weighted, they stand for all.
    """
    return np.array([1.0 / line.chance for line in lines])


def _gaming(lines: Sequence[Line]) -> Json:
    """Does what is learned from rise while the truth falls? From decisions that have both."""
    both = [
        (line.proxy, line.gold) for line in lines
        if line.role is Role.CHAMPION and line.proxy is not None and line.gold is not None
    ]  # fmt: skip
    if len(both) < 2 * GAMING_WINDOW:
        return {"alarm": False, "reason": f"{len(both)} decisions with both feedback and truth: too few to tell"}
    size = max(GAMING_WINDOW, len(both) // 4)
    proxy_N, gold_N = (np.array(column, np.float64) for column in zip(*both, strict=True))
    found = monitors.proxy_against_truth(
        (proxy_N[:size], proxy_N[-size:]), (gold_N[:size], gold_N[-size:]), alpha=GAMING_LEVEL
    )
    return {"alarm": found.fires, "reason": found.reason}


def _exposure(lines: Sequence[Line]) -> Json:
    """How first places are shared among all items that were candidates, those never shown included."""
    if not lines:
        return {}
    below = np.concatenate([np.concatenate([line.item_R[1:], line.unshown]).astype(np.int64) for line in lines])
    first = np.array([line.item_R[0] for line in lines], np.int64)
    item_V, row = np.unique(np.concatenate([first, below]), return_inverse=True)
    found = monitors.exposure(np.bincount(row[: len(first)], minlength=len(item_V)))
    return {
        "gini": found.gini,
        "top_share": found.top_share,
        "effective_items": found.effective_items,
        "items": len(item_V),
        "never_first": int(len(item_V) - len(np.unique(first))),
    }


def version_points(desk: Desk, *, newest: int) -> Json:
    """Reward by version over the newest decisions, for the dashboard's curve."""
    lines = list(desk.lines)[-newest:]
    out: Json = {}
    for version in sorted({line.version for line in lines}):
        alone = [line for line in lines if line.version == version and line.role is not Role.TRIAL]
        if not alone:
            continue
        out[version] = {
            "n": len(alone),
            "reward": float(np.average([line.success for line in alone], weights=_alone(alone))),
        }
        errors = [line.error for line in alone if line.error is not None]
        if errors:
            out[version]["error"] = float(np.mean(errors))
    return out


def curve_points(report: Json, seq: int) -> dict[str, Json]:
    """What one report adds to the dashboard's curves."""
    learned, said = report["learning"], report["feedback"]
    return {
        "learning": {"seq": seq, "kl": learned.get("kl"), "reward": learned.get("reward"), "alarm": learned["alarm"]},
        "position": {"seq": seq, "share_at": said["share_at"]},
        "feedback": {"seq": seq, "state": said["state"]},
    }
