"""The Geospot table in pieces: each kept on disk when it is done, so that a stopped run loses at most one.

An offline piece is one learner on one seed and one kind of users; a file holds all learners of a (users, seed). A
served piece is one play over HTTP. Pieces are told apart by users, seed and number of interactions; what is on disk is
not done again.
"""

from __future__ import annotations

import json
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from geospot.users import POPULATIONS, Population, Users
from rich.console import Console
from rich.progress import Progress

from dayjob.lab import geospot_offline as offline
from dayjob.lab.figures import code_mark, keep
from dayjob.lab.geospot_journal import load_world
from dayjob.lab.geospot_served import Served, serve_and_play

MARKS = (200, 1_000, 5_000, 20_000)
NOBODY = "nobody"  # the "users" of rows that nobody's clicks taught
# Folders whose code decides offline figures, and those of plays.
LEARNING = ("learn", "objectives", "policies", "signals", "lab", "apps/geospot")
SERVING = (*LEARNING, "gate", "serve", "journal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be run. ``held_out`` photos judge; results lie in ``folder``."""

    seeds: tuple[int, ...]
    populations: tuple[Population, ...]
    rounds: int
    held_out: int
    folder: Path
    cache: Path

    @property
    def marks(self) -> tuple[int, ...]:
        """Interactions after which learners are judged."""
        return (*(mark for mark in MARKS if mark < self.rounds), self.rounds)

    def path(self, kind: str, *, users: str, seed: int) -> Path:
        """Where a piece is kept."""
        return self.folder / f"{kind}-{users}-{seed}-{self.rounds}.json"


def run_offline(plan: Plan, *, jobs: int) -> None:
    """Every offline piece that is missing, ``jobs`` files at a time, each in a process of its own."""
    todo = [(users, seed) for seed in plan.seeds for users in (NOBODY, *(p.value for p in plan.populations))]
    console = Console(stderr=True, soft_wrap=True)
    # Spawned: a forked torch can hang in its thread pool.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) \
            as pool:  # fmt: skip
        running = {pool.submit(offline_piece, plan, users=users, seed=seed): (users, seed) for users, seed in todo}
        for number, done in enumerate(as_completed(running), start=1):
            done.result()
            users, seed = running[done]
            console.print(f"offline {number} of {len(todo)}: {users}, seed {seed}")


def offline_piece(plan: Plan, *, users: str, seed: int) -> None:
    """All learners of one (users, seed), each written as soon as it is done."""
    path = plan.path("offline", users=users, seed=seed)
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    trainers = offline.ORACLES if users == NOBODY else offline.TRAINERS
    missing = [name for name in trainers if name not in kept.get("learners", {})]
    if not missing and (users != NOBODY or "fixed" in kept):
        return
    world = load_world(plan.cache)
    field = offline.load_field(world, seed=seed, rounds=plan.rounds, cache_dir=plan.cache, held_out=plan.held_out)
    if not kept:
        kept = {"users": users, "seed": seed, "held_out": plan.held_out, "baseline_km": field.base_km, "learners": {}}
        kept["best_of_ten_km"] = float(field.test.distance_NK.min(axis=1).mean())
    people = Users(POPULATIONS[Population.HONEST if users == NOBODY else Population(users)])
    for name in missing:
        began = time.process_time()
        scores = trainers[name](field, people, marks=plan.marks)
        kept["learners"][name] = {
            "scores": dict(zip(map(str, plan.marks), scores, strict=True)),
            "cpu_s": round(time.process_time() - began, 1), "code": code_mark(*LEARNING),
        }  # fmt: skip
        keep(path, kept)
        Console(stderr=True, soft_wrap=True).print(
            f"  {name}, {users}, seed {seed}: {scores[-1]['greedy']:+.1%} at {plan.rounds:,}"
        )
    if users == NOBODY:
        kept["fixed"] = offline.fixed_rows(field)
        keep(path, kept)


def run_served(plan: Plan) -> None:
    """Every play that is missing, one at a time: server, learner, judge and users share the machine."""
    todo = [(p, seed) for seed in plan.seeds for p in plan.populations]
    todo = [(p, seed) for p, seed in todo if not plan.path("served", users=p.value, seed=seed).exists()]
    if not todo:
        return
    world = load_world(plan.cache)
    with Progress(console=Console(stderr=True)) as progress:
        plays = progress.add_task("plays over HTTP", total=len(todo))
        for population, seed in todo:
            progress.update(plays, description=f"plays over HTTP: {population.value}, seed {seed}")
            field = offline.load_field(
                world, seed=seed, rounds=plan.rounds, cache_dir=plan.cache, held_out=plan.held_out
            )
            with tempfile.TemporaryDirectory(prefix="dayjob-lab-") as folder:
                one = serve_and_play(
                    world, population, seed=seed, rounds=plan.rounds, held_out=field.test,
                    data=Path(folder) / "data", progress=progress,
                )  # fmt: skip
            keep(plan.path("served", users=population.value, seed=seed), {**one.to_json(), "code": code_mark(*SERVING)})
            progress.console.print(f"served: {population.value}, seed {seed}, {one.seconds:.0f} s")
            progress.advance(plays)


def kept_offline(plan: Plan) -> list[dict[str, Any]]:
    """The offline files of this plan's users and number of interactions, of whatever seeds there are."""
    wanted = {NOBODY, *(p.value for p in plan.populations)}
    return [one for one in _read(plan, "offline") if one["users"] in wanted]


def kept_served(plan: Plan) -> list[Served]:
    """The plays of this plan's users and number of interactions, of whatever seeds there are."""
    wanted = {p.value for p in plan.populations}
    return [one for one in map(Served.from_json, _read(plan, "served")) if one.population in wanted]


def _read(plan: Plan, kind: str) -> list[dict[str, Any]]:
    found = plan.folder.glob(f"{kind}-*-{plan.rounds}.json")
    pieces = [json.loads(path.read_text(encoding="utf-8")) for path in found]
    return sorted(pieces, key=lambda one: (one.get("users", one.get("population")), one["seed"]))
