"""How well the bias of positions is recovered, and how often the detector is right: on users whose law is known.

Three studies, each on several seeds: trust bias under the literature's default simulation (Vardasbi, Oosterhuis, de
Rijke, CIKM 2020), the mixture "position 1 unseen, else by looking" (the published Geospot users), and the detector's
states over worlds in which clicks carry all, some or no information. Everything is simulated, and says so.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from dayjob.lab.bias_detector import LOOKING, PATTERNS, curve_rows, operating_curve
from dayjob.lab.crowds import Crowd, crowd_log
from dayjob.lab.figures import machine, markdown, write
from dayjob.lab.gate import print_rows
from dayjob.signals.choice import fit_choice
from dayjob.signals.clicklog import F64, ClickLog
from dayjob.signals.clickmodels import cells, fit_position, fit_trust, perplexity
from dayjob.signals.intervene import all_pairs, trust_interval
from dayjob.signals.orders import choice_columns

CODE = ("signals", "gate", "lab")  # folders whose code decides about the figures
ALPHA: F64 = np.array([0.35, 0.53, 0.55, 0.54, 0.52])  # the literature's default, top 5
BETA: F64 = np.array([0.65, 0.26, 0.15, 0.11, 0.08])
GRADES: F64 = np.array([0.0, 0.25, 0.5, 0.75, 1.0])  # relevance of grades 0 to 4
GRADE_SHARE: F64 = np.array([0.5, 0.2, 0.15, 0.1, 0.05])
SESSIONS = 35_000
DETECTOR_TOLD = (
    "Share of seeds after 2,000 decisions. *uninformative* is right where nobody looks and wrong from 5 % on;"
    " *within*: it was said then, after 1,750 or after 1,500."
)
TABLE_WIDTH = 140  # characters


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


def run(seeds: Sequence[int], out_dir: Path, quick: bool = False) -> dict[str, Any]:
    """All studies: prints tables, writes bias.json, .md and .png under ``out_dir``, returns the numbers.

    ``seeds`` serve the recoveries; the detector is asked on ten times as many.
    ``quick``: a tenth of the work.
    """
    sizes = (2_000,) if quick else (2_000, 20_000)
    result: dict[str, Any] = {
        "command": f"dayjob lab bias --seeds {len(seeds)}{' --quick' if quick else ''}",
        "machine": machine(),
        "seeds": list(seeds),
        "quick": quick,
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
        "detector": operating_curve(range(len(seeds) * (2 if quick else 10)), quick=quick),
    }
    for title, (rows, _) in tables(result).items():
        print_rows(Console(width=TABLE_WIDTH), rows, title=title)
    page = [part for title, (rows, told) in tables(result).items() for part in (f"## {title}", told, markdown(rows))]
    write(
        out_dir,
        "bias",
        result=result,
        page=["Users are simulated, so that what should be found is known.", *page],
        code=CODE,
        plot=lambda path: _plot(result, path),
    )
    return result


def tables(result: dict[str, Any]) -> dict[str, tuple[list[dict[str, Any]], str]]:
    """Title -> (rows, what they show)."""
    trust: list[dict[str, Any]] = [
        {"queries": "truth", "alpha": _list(ALPHA), "beta": _list(BETA), "coverage of slope, offset": ".95"}
    ]
    trust += [
        {
            "queries": row["queries"], "alpha": _list(row["alpha"]), "beta": _list(row["beta"]),
            "coverage of slope, offset": _list(row["coverage_95"]), "seconds, median": round(row["seconds"], 2),
            "perplexity": round(row["perplexity"], 3),
        }
        for row in result["trust"]
    ]  # fmt: skip
    position = [
        {"queries": row["queries"], "method": name, "theta": _list(row[key]), "mean error": round(error, 4)}
        for row in result["position"]
        for name, key, error in zip(("EM", "AllPairs"), ("em", "all_pairs"), row["error"], strict=True)
    ]
    choice = [
        {
            "decisions": row["decisions"], "columns": "score + features" if row["features"] else "score",
            "ranker's quality": row["quality"], "truth": row["true_beta_1"], "found": round(row["beta_1"], 3),
            "sd": round(row["sd"], 3), "coverage": row["coverage_95"],
        }
        for row in result["choice"]
    ]  # fmt: skip
    return {
        "Trust bias recovered": (
            trust,
            f"{SESSIONS:,} sessions over so many queries, the literature's default (Vardasbi, Oosterhuis, de Rijke,"
            " CIKM 2020); means over seeds, how often 95 % intervals cover what clicks alone identify, the time of EM,"
            " and the perplexity of the fitted clicks (1 is perfect, 2 a fair coin).",
        ),
        "Position bias recovered": (position, "theta_k = 1/k; EM and intervention harvesting (AllPairs, WSDM 2019)."),
        "Share that clicks position 1 unseen": (
            choice,
            "Published Geospot users: a share clicks position 1 unseen, the rest what they like best. Mean over seeds,"
            " its standard deviation, and how often 95 % intervals cover the truth.",
        ),
        "What the detector says of lists with features": (
            curve_rows(result["detector"], features=True),
            DETECTOR_TOLD + " The columns are the score and eight features, as the gate's are the score and its own.",
        ),
        "What the detector says where only the score is known": (
            curve_rows(result["detector"], features=False),
            DETECTOR_TOLD + " The score has a correlation of .5 with what people want, where nothing else is said.",
        ),
    }


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
    said = {row["world"]: row["uninformative"] for row in result["detector"] if row["features"]}
    for name in PATTERNS:
        right.plot([100 * x for x in LOOKING], [said[f"{x:.0%} look, rest {name}"] for x in LOOKING], "o-", label=name)
    right.set_xlabel("people who look, %")
    right.set_ylabel("share of seeds called uninformative")
    right.set_title("Detector at 2,000 simulated decisions with features")
    right.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
