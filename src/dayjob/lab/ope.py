"""``dayjob lab ope``: off-policy estimators against on-policy truth, and the honesty to say "cannot tell".

* Open Bandit Dataset, small version (Saito, Aihara, Matsutani, Narita, arXiv 2008.07146): one log of a uniform random
  policy and one of Bernoulli Thompson sampling (BTS) for each campaign, from the same week on the same page. Each is
  estimated from the other's log and compared with its own clicks: relative error = |estimate - own rate| / own rate.
  From the BTS log to random the true propensities are used. In the other direction the target is BTS as it was on
  average, an item's share of its position in the BTS log (its propensities moved with every update).
* Digits (scikit-learn) as a bandit: contexts are images, actions the ten labels, reward 1 for the right one. Here the
  target's true value is known exactly, so that coverage and error over many logs mean something.

``PUBLISHED`` holds what the data's authors print for this small sample: mean and standard deviation of the relative
error over resamples. Theirs is the campaign "all" (both kinds of users); "men" and "women" are what is at hand here.
"""

import csv
import gzip
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
from dayjob.gate.screen import Logged, Target, bootstrap, diagnose, difference, estimates, weights
from dayjob.lab.figures import machine, markdown, write
from dayjob.lab.gate import print_rows

CODE = ("gate", "lab")  # folders whose code decides about the figures
CAMPAIGNS = ("men", "women")
# Pseudo-impressions with which an item's click rate is drawn to the rate of all: some 300 impressions an item are seen.
PRIOR_IMPRESSIONS = 300.0
LEVEL = 0.05
# st-tech/zr-obp, examples/obd: 20 resamples of the small sample, campaign "all", logistic regression as reward model.
PUBLISHED = {"DM": (0.180, 0.115), "IPS": (0.333, 0.350), "DR": (0.304, 0.348)}
PUBLISHED_DIRECTION = "random to bts"
SPREADS = 2.0  # standard deviations from the mean that still count as within the published spread
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
        # Of items that were not logged there: the log's policy as it was on average. BTS never showed some.
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio_PI = np.where(average[target] > 0, average[target] / average[source], 0.0)
        new = Target(chance_NA=average[target][log.position_N], ratio_NA=ratio_PI[log.position_N])
        logged = Logged(reward_N=log.click_N, weight_N=weight_N, q_N=q_N, q_new_N=q_new_N, target=new)
        for row in _rows(logged, own_rate=float(own.mean()), own_clicks=int(own.sum()), rng=rng, draws=draws):
            direction = f"{source} to {target}"
            rows.append({"campaign": campaign, "direction": direction} | row | _published(row, direction))
    return rows


def _published(row: dict[str, Any], direction: str) -> dict[str, str]:
    """What the authors print for this estimator and direction, and whether this relative error lies in its spread."""
    known = PUBLISHED.get(str(row["estimator"])) if direction == PUBLISHED_DIRECTION else None
    if known is None:
        return {"published error": "", "within it?": ""}
    mean, spread = known
    within = abs(float(row["relative error"]) - mean) <= SPREADS * spread
    return {"published error": f"{mean:.2f} ± {spread:.2f}", "within it?": "yes" if within else "no"}


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
                "covers it": "yes" if low <= own_rate <= high else "no",
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
        target=Target(chance_NA=new_NA[row], ratio_NA=(new_NA / log_NA)[row]),
    )


def run(seeds: Sequence[int], directory: Path, out_dir: Path, quick: bool = False) -> dict[str, Any]:
    """Both tables, printed and written to ``out_dir`` as ope.json, .md and .png. ``directory``: the Open Bandit"
    " files."""
    draws, logs = (50, 5) if quick else (1000, 100)
    bandit = [row for c in CAMPAIGNS for row in campaign_rows(directory, c, seed=seeds[0], draws=draws)]
    digits = digits_rows(seeds, logs=logs)
    result: dict[str, Any] = {
        "command": f"dayjob lab ope FOLDER --seeds {len(seeds)}{' --quick' if quick else ''}", "machine": machine(),
        "seeds": list(seeds), "quick": quick, "open_bandit": bandit, "digits": digits,
    }  # fmt: skip
    console = Console(width=210)
    print_rows(console, bandit, title="Open Bandit Dataset, small sample: each policy estimated from the other's log")
    print_rows(console, digits, title=f"Digits as a bandit, {logs} logs a seed")
    page = _page(bandit, digits, logs=logs)
    write(out_dir, "ope", result=result, page=page, code=CODE, plot=lambda path: _plot(bandit, path))
    return result


def _page(bandit: list[dict[str, Any]], digits: list[dict[str, Any]], *, logs: int) -> list[str]:
    unsure = sum(row["better than the log?"] == "cannot tell" for row in bandit)
    known = [row for row in bandit if row["within it?"]]
    return [
        "## Open Bandit Dataset, small sample: each policy estimated from the other's log",
        "Real clicks with true propensities (Saito, Aihara, Matsutani, Narita, arXiv 2008.07146), 10,000 impressions a"
        " file with 38 to 69 clicks. Intervals: 95 %, bootstrap. *Own rate*: what the policy earned in its own log."
        " *Error 95 %*: what the relative error may be, both logs resampled. *Effective*: effective sample size;"
        " *events*: clicks it leaves. *Better than the log?* compares the policy with the one that logged.",
        f"{unsure} of {len(bandit)} comparisons say \"cannot tell\": with so few clicks most differences cannot be"
        " told, and where the effective sample is a handful of impressions nothing can.",
        "Published errors (the authors' own, mean ± standard deviation over resamples, campaign \"all\","
        f" {PUBLISHED_DIRECTION}): {sum(row['within it?'] == 'yes' for row in known)} of {len(known)} errors here lie"
        f" within {SPREADS:g} standard deviations. The other direction has no published spread: it is compared with"
        " the own rate.",
        markdown(bandit),
        "## Digits as a bandit",
        f"The target's true value is known here: {logs} logs a seed, relative bias, relative root-mean-square error"
        " and the share of 95 % intervals that cover it. *Effective share*: effective sample size by size. DM's"
        " interval ignores that its model is wrong, and shows it.",
        markdown(digits),
    ]  # fmt: skip


def _plot(bandit: list[dict[str, Any]], path: Path) -> None:
    """Estimates with their intervals against the rate of the policy's own log."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = list(dict.fromkeys((row["campaign"], row["direction"]) for row in bandit))
    figure, axes = pyplot.subplots(1, len(groups), figsize=(3.4 * len(groups), 4), squeeze=False)
    for axis, (campaign, direction) in zip(axes[0], groups, strict=True):
        rows = [row for row in bandit if (row["campaign"], row["direction"]) == (campaign, direction)]
        for place, row in enumerate(rows):
            axis.plot([place, place], [100 * row["low"], 100 * row["high"]], color="tab:blue")
            axis.plot(place, 100 * row["estimate"], "o", color="tab:blue")
        axis.axhline(100 * rows[0]["own rate"], color="black", linewidth=0.8, linestyle="--")
        axis.set_xticks(range(len(rows)), [row["estimator"] for row in rows], rotation=60, fontsize=8)
        axis.set_title(f"{campaign}, {direction}\neffective {rows[0]['effective']:,.0f}", fontsize=9)
    axes[0][0].set_ylabel("clicks per 100 impressions (dashed: own log)")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
