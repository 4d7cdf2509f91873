"""The learner's speed, from journal to weights, beside Vowpal Wabbit on the same dense events.

Vowpal Wabbit reads ``--cb_explore_adf`` events as text; its time is told with and without reading them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from dayjob.journal.readers import Reader
from dayjob.lab.speed_rows import Row, row
from dayjob.lab.speed_world import POLICY, declare, first_decision, geospot_decisions, open_store, places
from dayjob.learn.collect import collect
from dayjob.learn.fit import fit
from dayjob.learn.recipes import RECIPES
from dayjob.learn.replay import Replay

T = TypeVar("T")
WARM = 256  # decisions of a first fit that is not timed: the library's own start
NN = 32  # hidden units of Vowpal Wabbit's network
MOST_DEBIASED = 2_000  # decisions: it fits many times over, to choose on held-out ones
THREADS = (2, 1)  # the marks are of two cores; the learner of a server takes one, and leaves it the other
NAMES = {2: "two threads", 1: "one thread"}
ABSENT = "Vowpal Wabbit is not installed: pip install 'dayjob[lab]'"


@dataclass(slots=True, kw_only=True)
class LearnerSpeed:
    """Interactions a second in each round. Vowpal Wabbit's are empty where it is not installed."""

    read: list[float] = field(default_factory=list)
    trained: dict[int, list[float]] = field(default_factory=lambda: {threads: [] for threads in THREADS})
    whole: dict[int, list[float]] = field(default_factory=lambda: {threads: [] for threads in THREADS})
    vowpal: list[float] = field(default_factory=list)
    vowpal_learning: list[float] = field(default_factory=list)


def measure(root: Path, interactions: int, *, compared: int, rounds: int, seed: int) -> list[Row]:
    """Reading, training and Vowpal Wabbit in turn, round after round, over a journal of so many decisions.

    Vowpal Wabbit learns from ``compared`` others in each round.
    """
    import torch

    rng = np.random.default_rng(seed)
    declare(root, rng)
    store = open_store(root)
    try:
        geospot_decisions(store, first_decision(root, POLICY), count=interactions, place_GD=places(rng), rng=rng)
    finally:
        store.close()
    reader, told = Reader(root), LearnerSpeed()
    before = torch.get_num_threads()
    for n in range(rounds):
        read_s, found = _timed(lambda: _collected(reader))
        told.read.append(interactions / read_s)
        if n == 0:
            fit(found.rows(slice(0, WARM)), shape=[256, 256], recipe=RECIPES["naive"], seed=seed)
        for threads in THREADS:
            torch.set_num_threads(threads)
            fit_s, _ = _timed(partial(fit, found, shape=[256, 256], recipe=RECIPES["naive"], seed=seed))
            told.trained[threads].append(interactions / fit_s)
            told.whole[threads].append(interactions / (read_s + fit_s))
        whole, learning = vowpal(found, range(n * compared, (n + 1) * compared))
        told.vowpal += whole
        told.vowpal_learning += learning
    few = found.rows(slice(0, MOST_DEBIASED))
    debiased_s, _ = _timed(lambda: fit(few, shape=[256, 256], recipe=RECIPES["debiased"], seed=seed))
    torch.set_num_threads(before)
    return _rows(told, debiased=len(few) / debiased_s)


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    began = time.perf_counter()
    done = work()
    return time.perf_counter() - began, done


def _collected(reader: Reader) -> Replay:
    spec = {"context_dim": 512, "candidate_dim": 512, "pair_dim": 2, "metric": "click", "outcome_window_s": 60.0}
    return collect(reader, "default", POLICY, spec=spec, until=reader.last_seq(), silent=set()).replay


def _rows(told: LearnerSpeed, *, debiased: float) -> list[Row]:
    ours, note = told.whole[THREADS[0]], "" if told.vowpal else ABSENT
    ratios = [one / other for one, other in zip(ours, told.vowpal, strict=True)] if told.vowpal else []
    alone = [one / other for one, other in zip(told.whole[1], told.vowpal, strict=True)] if told.vowpal else []
    name = "learner 1026-256-256-1, journal to weights, one pass"
    return [
        row(f"{name}, {NAMES[THREADS[0]]}", ours, unit="/s", mark=">= 5,000"),
        row(f"{name}, {NAMES[1]}", told.whole[1], unit="/s", mark=">= 5,000"),
        row("of that, reading and joining", told.read, unit="/s"),
        *(row(f"of that, training, {NAMES[threads]}", told.trained[threads], unit="/s") for threads in THREADS),
        row(f"Vowpal Wabbit --cb_explore_adf --nn {NN}", told.vowpal, unit="/s", note=note),
        row("Vowpal Wabbit, reading its text left out", told.vowpal_learning, unit="/s", note=note),
        row("learner, two threads / Vowpal Wabbit", ratios, mark=">= 3", note=note),
        row("learner, one thread / Vowpal Wabbit", alone, mark=">= 3", note=note),
        row(f"training by the recipe debiased, {MOST_DEBIASED:,} decisions", debiased, unit="/s"),
    ]


def vowpal(replay: Replay, chosen: range) -> tuple[list[float], list[float]]:
    """Interactions a second of Vowpal Wabbit with reading and without; nothing where it is not installed."""
    try:
        from vowpalwabbit import Workspace
    except ImportError:
        return [], []
    workspace = Workspace(f"--cb_explore_adf --nn {NN} --quiet")
    read_s = learn_s = 0.0
    events = 0
    for b in np.flatnonzero(replay.click_B >= 0)[chosen.start : chosen.stop]:
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
    return [events / (read_s + learn_s)], [events / learn_s]


def event(replay: Replay, b: int) -> list[str]:
    """A decision with its click in Vowpal Wabbit's text: cost -1 at the clicked item, its propensity beside it."""
    shared = "shared |x " + " ".join(f"{n}:{x:.5g}" for n, x in enumerate(replay.context_BD[b]))
    place = int(replay.click_B[b])
    clicked = int(replay.shown_BK[b, place])
    lines = [shared]
    for slot, vector in enumerate(replay.candidate_BK[b]):
        label = f"0:-1:{replay.propensity_BK[b, place]:.5g} " if slot == clicked else ""
        features = " ".join(f"{n}:{v:.5g}" for n, v in enumerate(replay.vector_VE[vector]))
        pair = " ".join(f"{n}:{p:.5g}" for n, p in enumerate(replay.pair_BKP[b, slot]))
        lines.append(f"{label}|v {features} |p {pair}")
    return lines
