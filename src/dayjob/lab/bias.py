"""How well the bias of positions is recovered, and how often the detector is right: on users whose law is known.

Three studies, each on several seeds: trust bias under the literature's default simulation (Vardasbi, Oosterhuis, de
Rijke, CIKM 2020), the mixture "position 1 unseen, else by looking" (the published Geospot users), and the detector's
states over worlds in which clicks carry all, some or no information. Everything is simulated, and says so.
"""

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from rich.table import Table

from dayjob.endings import FeedbackState
from dayjob.signals.bias import choice_columns
from dayjob.signals.choice import fit_choice
from dayjob.signals.clicklog import F64, I64, ClickLog
from dayjob.signals.clickmodels import cells, fit_position, fit_trust, perplexity
from dayjob.signals.detector import feedback
from dayjob.signals.features import learned_score
from dayjob.signals.intervene import all_pairs, trust_interval

ALPHA: F64 = np.array([0.35, 0.53, 0.55, 0.54, 0.52])  # the literature's default, top 5
BETA: F64 = np.array([0.65, 0.26, 0.15, 0.11, 0.08])
GRADES: F64 = np.array([0.0, 0.25, 0.5, 0.75, 1.0])  # relevance of grades 0 to 4
GRADE_SHARE: F64 = np.array([0.5, 0.2, 0.15, 0.1, 0.05])
SESSIONS = 35_000
TABLE_WIDTH = 140  # characters

FIRST: tuple[float, ...] = (1.0,)
STEEP: tuple[float, ...] = (0.6, 0.2, 0.1, 0.04, 0.02, 0.01, 0.01, 0.01, 0.005, 0.005)
GENTLE: tuple[float, ...] = (0.4, 0.2, 0.12, 0.08, 0.06, 0.04, 0.04, 0.02, 0.02, 0.02)
SLIPPING: tuple[float, ...] = (0.9, 0.05, 0.03, 0.02)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """Users and the policy that serves them.

    ``blind`` share of decisions by position alone, after ``pattern`` (padded with zeros; ``drift`` turns it slowly into
    the pattern shifted by one); the rest click the item of highest utility plus Gumbel ``noise``. ``quality`` is the
    correlation of the policy's score with the utility, ``silent`` the share of decisions without a click, ``changed``
    the share of answers whose first place exploration changes (half by a uniform draw, half by temperature).
    """

    blind: float = 0.65
    pattern: tuple[float, ...] = FIRST
    quality: float = 0.5
    width: int = 10
    columns: int = 8
    noise: float = 0.25
    silent: float = 0.0
    changed: float = 0.05
    drift: float = 0.0


def trust_log(
    rng: np.random.Generator, *, sessions: int = SESSIONS, queries: int = 200, trust: bool = True
) -> ClickLog:
    """Sessions over ``queries`` queries of ten items each, top 5 in random order, clicked by trust bias (or position).

    The item's identity is 10 query + item; its relevance can be had from ``relevance``.
    """
    query = rng.integers(queries, size=sessions)
    order = np.argsort(rng.random((sessions, 10)), axis=1)[:, : len(ALPHA)]
    item_BK = query[:, None] * 10 + order
    g_BK = relevance(queries)[item_BK]
    p_BK = ALPHA * g_BK + BETA if trust else g_BK / (1 + np.arange(len(ALPHA)))
    return ClickLog.of(item_BK, click_BK=rng.random(p_BK.shape) < p_BK)


def relevance(queries: int) -> F64:
    """Relevance of every item of ``trust_log``: the same for every seed."""
    return np.random.default_rng(len(GRADES)).choice(GRADES, size=queries * 10, p=GRADE_SHARE)


def crowd_log(rng: np.random.Generator, decisions: int, *, crowd: Crowd, features: bool = False) -> ClickLog:
    """Decisions of a policy with default exploration before such a crowd; ``features``: the log has them."""
    shape = (decisions, crowd.width)
    feature_BKF = rng.normal(size=(*shape, crowd.columns))
    utility = feature_BKF.sum(axis=2) / np.sqrt(crowd.columns)
    score = crowd.quality * utility + np.sqrt(1 - crowd.quality**2) * rng.normal(size=shape)
    order, drawn_B = explore(score, crowd.changed, rng=rng)
    seen = np.take_along_axis(utility, order, axis=1)
    looked = (seen + crowd.noise * rng.gumbel(size=shape)).argmax(axis=1)
    click = np.where(rng.random(decisions) < crowd.blind, _blind(rng, decisions, crowd), looked)
    item = np.arange(decisions * crowd.width).reshape(shape)
    log = ClickLog.of(
        np.take_along_axis(item, order, axis=1),
        click_B=np.where(rng.random(decisions) < crowd.silent, -1, click),
        score_BK=np.take_along_axis(score, order, axis=1),
    )
    log = replace(log, intervened_B=drawn_B, first_B=item[np.arange(decisions), score.argmax(axis=1)])
    return replace(log, feature_BKF=np.take_along_axis(feature_BKF, order[..., None], axis=1)) if features else log


def explore(score_BK: F64, changed: float, *, rng: np.random.Generator) -> tuple[I64, npt.NDArray[np.bool_]]:
    """(order_BK of slots, position 1 drawn uniformly): Plackett-Luce at the temperature that changes half of
    ``changed`` first places, and a uniform draw for position 1 that changes the other half.
    """
    rows, width = score_BK.shape
    noise = rng.gumbel(size=score_BK.shape)
    low, high = 1e-4, 10.0
    for _ in range(30):
        middle = np.sqrt(low * high)
        moved = ((score_BK / middle + noise).argmax(axis=1) != score_BK.argmax(axis=1)).mean()
        low, high = (low, middle) if moved > changed / 2 else (middle, high)
    place = np.argsort(np.argsort(-(score_BK / low + noise), axis=1), axis=1)
    drawn_B = rng.random(rows) < changed / 2 / (1 - 1 / width)
    drawn = np.flatnonzero(drawn_B)
    place[drawn, rng.integers(width, size=len(drawn))] = -1
    return np.argsort(place, axis=1), drawn_B


def _blind(rng: np.random.Generator, decisions: int, crowd: Crowd) -> I64:
    pattern = np.zeros(crowd.width)
    pattern[: len(crowd.pattern)] = crowd.pattern[: crowd.width]
    pattern /= pattern.sum()
    late = np.linspace(0, crowd.drift, decisions)[:, None]
    p_BK = (1 - late) * pattern + late * np.roll(pattern, 1)
    position_B: I64 = np.sum(rng.random((decisions, 1)) > np.cumsum(p_BK, axis=1)[:, :-1], axis=1)
    return position_B


def trust_study(seeds: Sequence[int], *, queries: int, draws: int) -> dict[str, Any]:
    """Recovery of trust bias: mean estimates, mean absolute errors and the coverage of 95 % intervals."""
    slope, offset = ALPHA / ALPHA[0], BETA - ALPHA / ALPHA[0] * BETA[0]
    rows, covered, seconds, perplexities = [], [], [], []
    for seed in track(seeds, description=f"trust bias, {queries} queries", transient=True):
        log = trust_log(np.random.default_rng(seed), queries=queries)
        start = time.perf_counter()
        model = fit_trust(cells(log))
        seconds.append(time.perf_counter() - start)
        known = model.item_V[::20]
        anchored = model.anchored(known, relevance(queries)[known])
        rows.append(np.stack([anchored.alpha_K, anchored.beta_K, model.slope_K, model.offset_K]))
        low, high = trust_interval(log, seed=seed, draws=draws)
        identified = np.stack([slope, offset])
        covered.append(((low[2:] <= identified) & (identified <= high[2:]))[:, 1:])
        perplexities.append(perplexity(model.predict(log.item_BK), log)[0])
    found = np.stack(rows)
    truth = np.stack([ALPHA, BETA, slope, offset])
    return {
        "queries": queries,
        "alpha": found[:, 0].mean(axis=0).tolist(),
        "beta": found[:, 1].mean(axis=0).tolist(),
        "slope": found[:, 2].mean(axis=0).tolist(),
        "offset": found[:, 3].mean(axis=0).tolist(),
        "error": np.abs(found - truth).mean(axis=(0, 2)).tolist(),
        "coverage_95": np.mean(covered, axis=(0, 2)).tolist(),
        "seconds": float(np.median(seconds)),
        "perplexity": float(np.mean(perplexities)),
    }


def position_study(seeds: Sequence[int], *, queries: int) -> dict[str, Any]:
    """Recovery of theta_k = 1 / k by EM and by AllPairs, mean absolute errors."""
    truth = 1 / (1 + np.arange(len(ALPHA)))
    em, pairs = [], []
    for seed in seeds:
        data = cells(trust_log(np.random.default_rng(seed), queries=queries, trust=False))
        em.append(fit_position(data).theta_K)
        pairs.append(all_pairs(data))
    return {
        "queries": queries,
        "em": np.mean(em, axis=0).tolist(),
        "all_pairs": np.mean(pairs, axis=0).tolist(),
        "error": [float(np.abs(np.stack(x) - truth).mean()) for x in (em, pairs)],
    }


def choice_study(seeds: Sequence[int], *, decisions: int, crowd: Crowd, features: bool) -> dict[str, Any]:
    """Recovery of the share that clicks position 1 unseen."""
    found, inside = [], []
    pull = crowd.blind * crowd.pattern[0] / sum(crowd.pattern)
    for seed in seeds:
        log = crowd_log(np.random.default_rng(seed), decisions, crowd=crowd, features=features)
        model = fit_choice(log, choice_columns(log))
        low, high = model.interval_K()
        found.append((model.pull_K[0], model.look))
        inside.append(bool(low[0] <= pull <= high[0]))
    beta_1, look = np.mean(found, axis=0)
    return {
        "decisions": decisions,
        "features": features,
        "quality": crowd.quality,
        "true_beta_1": pull,
        "beta_1": float(beta_1),
        "sd": float(np.std([b for b, _ in found])),
        "look": float(look),
        "coverage_95": float(np.mean(inside)),
    }


WORLDS: dict[str, Crowd] = {
    "position 1 always": Crowd(blind=1.0),
    "60/20/10 …": Crowd(blind=1.0, pattern=STEEP),
    "40/20/12 …": Crowd(blind=1.0, pattern=GENTLE),
    "90/5/3/2": Crowd(blind=1.0, pattern=SLIPPING),
    "60/20/10 … drifting": Crowd(blind=1.0, pattern=STEEP, drift=0.5),
    "60/20/10 …, 30 % silent": Crowd(blind=1.0, pattern=STEEP, silent=0.3),
    "5 % look, rest position 1": Crowd(blind=0.95),
    "5 % look, rest position 1, good ranker": Crowd(blind=0.95, quality=0.95),
    "5 % look, rest 60/20/10 …": Crowd(blind=0.95, pattern=STEEP),
    "35 % look, rest position 1": Crowd(blind=0.65),
    "all look, ranker right 85 %": Crowd(blind=0.0, quality=0.99, noise=0.02),
    "all look, useless ranker": Crowd(blind=0.0, quality=0.0),
}

HARDEST = "5 % look, rest 60/20/10 …"  # few informative clicks under many others at the same positions
DECISIONS, LATER = 2_000, (5_000, 20_000)


def detector_study(seeds: Sequence[int], *, decisions: int, crowd: Crowd, features: bool) -> dict[str, Any]:
    """Shares of the detector's states over the seeds."""
    states: Counter[FeedbackState] = Counter()
    for seed in seeds:
        log = crowd_log(np.random.default_rng(seed), decisions, crowd=crowd, features=features)
        if features:
            columns_BKF = np.concatenate([log.feature_BKF, log.score_BK[..., None]], axis=2)
            learned_BK = learned_score(columns_BKF, log.click_B, shown_BK=log.shown_BK)
            found = feedback(replace(log, feature_BKF=log.feature_BKF[..., :0]), learned_BK=learned_BK)
        else:
            found = feedback(log)
        states[found.state] += 1
    shares = {s.value: states[s] / len(seeds) for s in FeedbackState}
    return {"decisions": decisions, "features": features, "runs": len(seeds), **shares}


def run(seeds: Sequence[int], out_dir: Path, quick: bool = False) -> dict[str, Any]:
    """All studies: prints tables, writes ``bias.json`` and ``bias.png`` under ``out_dir``, returns the numbers.

    ``seeds`` serve the recoveries; the detector is asked on twenty times as many, on fewer where decisions are more.
    ``quick``: a tenth of the work.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    many = range(len(seeds) * (2 if quick else 20))
    sizes = (2_000,) if quick else (2_000, 20_000)
    asked = [(name, features, DECISIONS) for name in WORLDS for features in (False, True)]
    asked += [] if quick else [(HARDEST, True, count) for count in LATER]
    states = [
        {
            "world": name,
            **detector_study(
                many[: len(many) * DECISIONS // count], decisions=count, crowd=WORLDS[name], features=features
            ),
        }
        for name, features, count in track(asked, description="detector", transient=True)
    ]
    result: dict[str, Any] = {
        "seeds": list(seeds),
        "truth": {"alpha": ALPHA.tolist(), "beta": BETA.tolist()},
        "trust": [
            trust_study(seeds, queries=q, draws=20 if quick else 100) for q in ((200,) if quick else (200, 2_000))
        ],
        "position": [position_study(seeds, queries=200)],
        "choice": [
            choice_study(seeds, decisions=n, crowd=Crowd(quality=q), features=f)
            for n in sizes
            for q, f in ((0.5, False), (0.9, False), (0.5, True))
        ],
        "detector": states,
    }
    (out_dir / "bias.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    _print(result)
    _plot(result, out_dir / "bias.png")
    return result


def _print(result: dict[str, Any]) -> None:
    console = Console(width=TABLE_WIDTH)
    table = Table(title="Trust bias recovered (simulated users)")
    for name in ("queries", "alpha", "beta", "coverage of slope, offset", "seconds"):
        table.add_column(name)
    table.add_row("truth", _list(ALPHA), _list(BETA), ".95", "")
    for row in result["trust"]:
        table.add_row(
            str(row["queries"]),
            _list(row["alpha"]),
            _list(row["beta"]),
            _list(row["coverage_95"]),
            f"{row['seconds']:.2f}",
        )
    console.print(table)
    table = Table(title="Share that clicks position 1 unseen (simulated users)")
    for name in ("decisions", "columns", "ranker's quality", "truth", "found", "sd", "coverage"):
        table.add_column(name)
    for row in result["choice"]:
        columns = "score + features" if row["features"] else "score"
        table.add_row(
            str(row["decisions"]),
            columns,
            *(f"{row[k]:.3f}" for k in ("quality", "true_beta_1", "beta_1", "sd")),
            f"{row['coverage_95']:.2f}",
        )
    console.print(table)
    table = Table(title="What the detector says, share of seeds (simulated users)")
    for name in ("users", "decisions", "columns", "runs", *(s.value for s in FeedbackState)):
        table.add_column(name)
    for row in result["detector"]:
        columns = "score + learned" if row["features"] else "score"
        facts = (row["world"], str(row["decisions"]), columns, str(row["runs"]))
        table.add_row(*facts, *(f"{row[s.value]:.2f}" for s in FeedbackState))
    console.print(table)


def _list(values: Sequence[float] | F64) -> str:
    return " ".join(f"{v:.2f}" for v in values)


def _plot(result: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), gridspec_kw={"width_ratios": [2, 3]})
    position = np.arange(1, len(ALPHA) + 1)
    for name, truth, colour in (("alpha", ALPHA, "tab:blue"), ("beta", BETA, "tab:orange")):
        left.plot(position, truth, "o-", color=colour, label=f"{name}, true")
        for row, marker in zip(result["trust"], "x+", strict=False):
            left.plot(
                position, row[name], marker, color=colour, markersize=10, label=f"{name}, {row['queries']} queries"
            )
    left.set_xlabel("position")
    left.set_title("Trust bias recovered from 35,000 simulated sessions")
    left.legend()
    rows = [r for r in result["detector"] if r["features"] and r["decisions"] == DECISIONS]
    start = np.zeros(len(rows))
    for state in FeedbackState:
        share = np.array([r[state.value] for r in rows])
        right.barh([r["world"] for r in rows], share, left=start, label=state.value)
        start += share
    right.invert_yaxis()
    right.set_title("Detector at 2,000 simulated decisions")
    right.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
