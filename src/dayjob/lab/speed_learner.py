"""The learner's speed, from journal to weights, beside Vowpal Wabbit on the same dense events.

Vowpal Wabbit reads ``--cb_explore_adf`` events as text; its time is told with and without reading them.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dayjob.journal.readers import Reader
from dayjob.lab.speed_world import POLICY, declare, first_decision, geospot_decisions, open_store
from dayjob.learn.collect import collect
from dayjob.learn.fit import fit
from dayjob.learn.recipes import RECIPES
from dayjob.learn.replay import Replay

WARM = 256  # decisions of a first fit that is not timed: the library's own start
NN = 32  # hidden units of Vowpal Wabbit's network
MOST_DEBIASED = 2_000  # decisions: it fits many times over, to choose on held-out ones


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerSpeed:
    """Interactions a second. ``vowpal_learning`` leaves reading its input out; NaN where it is not installed."""

    interactions: int
    collect_s: float
    from_journal: dict[str, float]
    vowpal: float
    vowpal_learning: float


def measure(root: Path, interactions: int, *, compared: int, seed: int) -> LearnerSpeed:
    """One pass of each recipe over a journal of so many decisions; Vowpal Wabbit over ``compared`` of them."""
    import torch

    torch.set_num_threads(2)
    rng = np.random.default_rng(seed)
    declare(root, rng)
    store = open_store(root)
    try:
        geospot_decisions(store, first_decision(root, POLICY), count=interactions, rng=rng)
    finally:
        store.close()
    reader = Reader(root)
    spec = {"context_dim": 512, "candidate_dim": 512, "pair_dim": 2, "metric": "click", "outcome_window_s": 60.0}
    began = time.perf_counter()
    found = collect(reader, "default", POLICY, spec=spec, until=reader.last_seq(), silent=set())
    collect_s = time.perf_counter() - began
    fit(found.replay.rows(slice(0, WARM)), shape=[256, 256], recipe=RECIPES["naive"], seed=seed)
    rates = {}
    for name, most in (("naive", interactions), ("debiased", MOST_DEBIASED)):
        replay = found.replay.rows(slice(0, most))
        began = time.perf_counter()
        fit(replay, shape=[256, 256], recipe=RECIPES[name], seed=seed)
        share_s = collect_s * len(replay) / len(found.replay)
        rates[name] = len(replay) / (share_s + time.perf_counter() - began)
    whole, learning = vowpal(found.replay, compared)
    return LearnerSpeed(
        interactions=len(found.replay), collect_s=collect_s, from_journal=rates, vowpal=whole, vowpal_learning=learning
    )


def vowpal(replay: Replay, count: int) -> tuple[float, float]:
    """Interactions a second of Vowpal Wabbit with reading and without; NaN where it is not installed."""
    try:
        from vowpalwabbit import Workspace
    except ImportError:
        return float("nan"), float("nan")
    workspace = Workspace(f"--cb_explore_adf --nn {NN} --quiet")
    read_s = learn_s = 0.0
    events = 0
    for b in np.flatnonzero(replay.click_B >= 0)[:count]:
        lines = event(replay, int(b))
        began = time.perf_counter()
        examples = workspace.parse(lines)
        read = time.perf_counter()
        workspace.learn(examples)
        learn_s += time.perf_counter() - read
        read_s += read - began
        workspace.finish_example(examples)
        events += 1
    workspace.finish()
    return events / (read_s + learn_s), events / learn_s


def event(replay: Replay, b: int) -> list[str]:
    """A decision with its click in Vowpal Wabbit's text: cost -1 at the clicked item, its propensity beside it."""
    shared = "shared |x " + " ".join(f"{n}:{x:.5g}" for n, x in enumerate(replay.context_BD[b]))
    place = int(replay.click_B[b])
    clicked = int(replay.shown_BK[b, place])
    lines = [shared]
    for slot, row in enumerate(replay.candidate_BK[b]):
        label = f"0:-1:{replay.propensity_BK[b, place]:.5g} " if slot == clicked else ""
        features = " ".join(f"{n}:{v:.5g}" for n, v in enumerate(replay.vector_VE[row]))
        pair = " ".join(f"{n}:{p:.5g}" for n, p in enumerate(replay.pair_BKP[b, slot]))
        lines.append(f"{label}|v {features} |p {pair}")
    return lines
