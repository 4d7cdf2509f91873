"""``dayjob lab ope``: off-policy estimators against on-policy truth, and the honesty to say "cannot tell".

* Open Bandit Dataset, small version (Saito, Aihara, Matsutani, Narita, arXiv 2008.07146): one log of a uniform random
  policy and one of Bernoulli Thompson sampling (BTS) for each campaign, from the same week on the same page. Each is
  estimated from the other's log and compared with its own clicks: relative error = |estimate - own rate| / own rate.
  From the BTS log to random the true propensities are used. In the other direction the target is BTS as it was on
  average, an item's share of its position in the BTS log (its propensities moved with every update).
* Digits (scikit-learn) as a bandit: contexts are images, actions the ten labels, reward 1 for the right one. Here the
  target's true value is known exactly, so that coverage and error over many logs mean something.

The published figures of the small sample (campaign "all", random to BTS, relative errors): DM .22, IPW 1.16, DR .99.
"""

import csv
import gzip
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from dayjob.endings import Invalid
from dayjob.gate.confidence import Floats
from dayjob.gate.control import Ints
from dayjob.gate.screen import Logged, bootstrap, diagnose, difference, estimates, weights
from dayjob.lab.gate import print_rows

CAMPAIGNS = ("men", "women")
# Pseudo-impressions with which an item's click rate is drawn to the rate of all: some 300 impressions an item are seen.
PRIOR_IMPRESSIONS = 300.0
LEVEL = 0.05
ESTIMATORS = ("DM", "IPS", "SNIPS", "DR", "SNDR", "SWITCH")


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotLog:
    """N impressions of single slots: item, 0-based position, clicked, and the propensity of the item there."""

    item_N: Ints
    position_N: Ints
    click_N: Floats
    propensity_N: Floats


def read_obd(directory: Path, *, policy: str, campaign: str) -> SlotLog:
    """``{policy}_{campaign}.csv.gz`` of the small Open Bandit Dataset; ``policy`` is "random" or "bts"."""
    path = directory / f"{policy}_{campaign}.csv.gz"
    if not path.exists():
        raise Invalid(
            f"{path} is missing: copy the files of st-tech/zr-obp's folder obd there as policy_campaign.csv.gz"
        )
    with gzip.open(path, "rt") as lines:
        rows = [
            (int(row["item_id"]), int(row["position"]) - 1, float(row["click"]), float(row["propensity_score"]))
            for row in csv.DictReader(lines)
        ]
    item, position, click, propensity = (np.array(column) for column in zip(*rows, strict=True))
    return SlotLog(item_N=item, position_N=position, click_N=click, propensity_N=propensity)


def shares(log: SlotLog, *, items: int) -> Floats:
    """(position, item) -> share of the item among the impressions of its position: the policy on average."""
    count = np.zeros((int(log.position_N.max()) + 1, items))
    np.add.at(count, (log.position_N, log.item_N), 1.0)
    share: Floats = count / count.sum(axis=1, keepdims=True)
    return share


def cross_fitted(log: SlotLog, target_PI: Floats, *, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """(qhat of the logged item, its mean under the target), each from the half of the log it is not used on."""
    items = target_PI.shape[1]
    fold_N = rng.integers(0, 2, log.item_N.size)
    q_N, q_new_N = np.zeros(log.item_N.size), np.zeros(log.item_N.size)
    for fold in (0, 1):
        fit, use = fold_N != fold, fold_N == fold
        seen = np.bincount(log.item_N[fit], minlength=items)
        hits = np.bincount(log.item_N[fit], weights=log.click_N[fit], minlength=items)
        rate = float(log.click_N[fit].mean())
        rate_I = (hits + PRIOR_IMPRESSIONS * rate) / (seen + PRIOR_IMPRESSIONS)
        q_N[use] = rate_I[log.item_N[use]]
        q_new_N[use] = (target_PI @ rate_I)[log.position_N[use]]
    return q_N, q_new_N


def campaign_rows(directory: Path, campaign: str, *, seed: int, draws: int) -> list[dict[str, Any]]:
    """Both directions of one campaign, a row for each estimator."""
    logs = {policy: read_obd(directory, policy=policy, campaign=campaign) for policy in ("random", "bts")}
    items = int(max(log.item_N.max() for log in logs.values())) + 1
    average = {policy: shares(log, items=items) for policy, log in logs.items()}
    average["random"] = np.full_like(average["random"], 1.0 / items)
    rows = []
    for source, target in (("random", "bts"), ("bts", "random")):
        log, own = logs[source], logs[target].click_N
        rng = np.random.default_rng([seed, len(campaign), len(source)])
        q_N, q_new_N = cross_fitted(log, average[target], rng=rng)
        weight_N = weights(average[target][log.position_N, log.item_N], log.propensity_N)
        logged = Logged(reward_N=log.click_N, weight_N=weight_N, q_N=q_N, q_new_N=q_new_N)
        for row in _rows(logged, own_rate=float(own.mean()), own_clicks=int(own.sum()), rng=rng, draws=draws):
            rows.append({"campaign": campaign, "direction": f"{source} to {target}"} | row)
    return rows


def _rows(
    logged: Logged, *, own_rate: float, own_clicks: int, rng: np.random.Generator, draws: int
) -> list[dict[str, Any]]:
    found, state = estimates(logged, alpha=LEVEL), diagnose(logged)
    rows = []
    for name in ESTIMATORS:
        low, high = bootstrap(logged, name=name, alpha=LEVEL, rng=rng, draws=draws)
        # The own rate is itself an estimate from some 40 to 70 clicks: resampled along with the other log.
        own_draws = rng.poisson(own_clicks, draws) / own_clicks * own_rate
        drawn = rng.normal(found[name].value, (high - low) / 3.92, draws)
        errors = np.abs(drawn - own_draws) / np.maximum(own_draws, own_rate / own_clicks)
        gap = difference(logged, name=name, alpha=LEVEL)
        sure = gap.told and (gap.low > 0.0 or gap.high < 0.0)
        rows.append(
            {
                "estimator": name,
                "estimate": found[name].value,
                "low": low,
                "high": high,
                "own rate": own_rate,
                "relative error": abs(found[name].value - own_rate) / own_rate,
                "error 95 %": float(np.quantile(errors, 0.95)),
                "effective": state.effective,
                "max weight": state.max_weight,
                "mean weight": state.mean_weight,
                "events": state.events,
                "better than the log?": ("yes" if gap.low > 0 else "no") if sure else "cannot tell",
            }
        )
    return rows


def digits_rows(seeds: Sequence[int], *, logs: int) -> list[dict[str, Any]]:
    """Digits as a bandit: relative root-mean-square error and coverage of the 95 % intervals over ``logs`` logs."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    image_N, label_N = load_digits(return_X_y=True)
    errors: dict[str, list[float]] = {name: [] for name in ESTIMATORS}
    covered: dict[str, list[bool]] = {name: [] for name in ESTIMATORS}
    effective, values = [], []
    for seed in seeds:
        rng = np.random.default_rng([seed, 10])
        order = rng.permutation(label_N.size)
        train, test = order[:400], order[400:]
        # The log prefers what a model of few labels says, the target what a model of more labels says.
        weak = LogisticRegression(max_iter=500, C=1e-4).fit(image_N[train[:80]] / 16.0, label_N[train[:80]])
        strong = LogisticRegression(max_iter=500).fit(image_N[train] / 16.0, label_N[train])
        log_NA = 0.3 * _one_hot(weak.predict(image_N[test] / 16.0)) + 0.07
        new_NA = 0.8 * _one_hot(strong.predict(image_N[test] / 16.0)) + 0.02
        right_NA = _one_hot(label_N[test])
        truth = float((new_NA * right_NA).sum(axis=1).mean())
        values.append(truth)
        for _ in range(logs):
            logged = _digit_log(log_NA, new_NA, right_NA, model_NA=weak.predict_proba(image_N[test] / 16.0), rng=rng)
            effective.append(diagnose(logged).effective / logged.weight_N.size)
            for name, found in estimates(logged, alpha=LEVEL).items():
                errors[name].append((found.value - truth) / truth)
                covered[name].append(found.low <= truth <= found.high)
    return [
        {
            "estimator": name,
            "true value": float(np.mean(values)),
            "relative bias": float(np.mean(errors[name])),
            "relative rmse": math.sqrt(float(np.mean(np.square(errors[name])))),
            "coverage": float(np.mean(covered[name])),
            "effective share": float(np.mean(effective)),
        }
        for name in ESTIMATORS
    ]


def _one_hot(label_N: npt.ArrayLike) -> Floats:
    hot: Floats = np.eye(10)[np.asarray(label_N, dtype=np.int64)]
    return hot


def _digit_log(
    log_NA: Floats, new_NA: Floats, right_NA: Floats, *, model_NA: Floats, rng: np.random.Generator
) -> Logged:
    """Contexts drawn with replacement, an action by the log's policy, the target's weight."""
    row = rng.integers(0, log_NA.shape[0], log_NA.shape[0])
    action = (rng.random((row.size, 1)) > np.cumsum(log_NA[row], axis=1)).sum(axis=1).clip(max=9)
    return Logged(
        reward_N=right_NA[row, action],
        weight_N=weights(new_NA[row, action], log_NA[row, action]),
        q_N=model_NA[row, action],
        q_new_N=(new_NA * model_NA).sum(axis=1)[row],
    )


def run(seeds: Sequence[int], directory: Path, out_dir: Path, quick: bool = False) -> dict[str, Any]:
    """Both tables, printed and written to ``out_dir``/ope.json. ``directory`` holds the Open Bandit files."""
    draws, logs = (50, 5) if quick else (1000, 100)
    bandit = [row for c in CAMPAIGNS for row in campaign_rows(directory, c, seed=seeds[0], draws=draws)]
    digits = digits_rows(seeds, logs=logs)
    result: dict[str, Any] = {"seeds": list(seeds), "quick": quick, "open_bandit": bandit, "digits": digits}
    console = Console(width=190)
    print_rows(console, bandit, title="Open Bandit Dataset, small sample: each policy estimated from the other's log")
    print_rows(console, digits, title=f"Digits as a bandit, {logs} logs a seed")
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / "ope.json").write_text(json.dumps(result, indent=1) + "\n")
    return result
