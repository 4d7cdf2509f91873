"""``dayjob lab clerk-pretrain``: a small real model from nothing, on two cores, in pieces if it must be."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from dayjob.lab import figures
from dayjob.lab.clerk_course import SCHOOL_SHARES, SHARES
from dayjob.lab.clerk_eval import measure, open_model
from dayjob.lab.clerk_model import Shape, save
from dayjob.lab.clerk_train import Plan, Run, advance, open_run, save_run

CODE = ("lab", "memory", "practice", "apps/clerk")  # folders whose code decides about the figures
QUICK = Plan(steps=30, school=10, examples=32, warmup=5, shape=Shape(width=96, layers=2, inner=192, vocabulary=1024))
CHECK_EVERY = 500  # steps between two looks at what it can do
CHECK_QUESTIONS, LAST_QUESTIONS = 100, 400  # a family
SAVE_EVERY_S = 120.0
TELL_EVERY_S = 20.0


def run(
    plan: Plan, *, folder: Path, model_folder: Path, out_dir: Path, threads: int, minutes: float | None, quick: bool
) -> bool:
    """Go on with the run in ``folder``; at its end save the model and its table. False: stopped before, go on later."""
    torch.set_num_threads(threads)
    state = open_run(plan, folder)
    if state.step:
        print(f"going on at step {state.step:,} of {plan.last:,}", file=sys.stderr, flush=True)
    with _asked_to_stop() as asked:
        deadline = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
        watch = _Watch(state, folder)
        while state.step < plan.last and not asked.is_set() and time.monotonic() < deadline:
            until = state.step + CHECK_EVERY - state.step % CHECK_EVERY
            advance(state, until=until, stop=lambda: asked.is_set() or time.monotonic() > deadline, tell=watch)
            if state.step % CHECK_EVERY == 0 or state.step == plan.last:
                _look(state)
            save_run(state, folder)
    if state.step < plan.last:
        save_run(state, folder)
        print(
            f"stopped at step {state.step:,} of {plan.last:,}: the same command goes on from there",
            file=sys.stderr,
            flush=True,
        )
        return False
    size = save(state.model, state.tokenizer, folder=model_folder)
    _write(state, model_folder=model_folder, out_dir=out_dir, size=size, threads=threads, quick=quick)
    print(f"saved {size / 1e6:.1f} MB to {model_folder}", file=sys.stderr, flush=True)
    return True


class _Watch:
    """Says how far it is, and keeps a checkpoint every other minute."""

    def __init__(self, state: Run, folder: Path) -> None:
        self._folder = folder
        self._from = state.step
        self._began = self._told = self._saved = time.monotonic()
        self._losses: list[float] = []

    def __call__(self, state: Run, loss: float) -> None:
        self._losses.append(loss)
        now = time.monotonic()
        if now - self._told >= TELL_EVERY_S:
            left_s = (now - self._began) / (state.step - self._from) * (state.plan.last - state.step)
            mean = sum(self._losses) / len(self._losses)
            print(
                f"step {state.step:,}/{state.plan.last:,}  loss {mean:.3f}  {left_s / 60:.0f} min left",
                file=sys.stderr,
                flush=True,
            )
            self._told, self._losses = now, []
        if now - self._saved >= SAVE_EVERY_S:
            save_run(state, self._folder)
            self._saved = now


def _look(state: Run) -> None:
    shares = measure(state.model, state.tokenizer, count=CHECK_QUESTIONS)
    state.history.append({"step": state.step, "tokens": state.tokens, "cpu_s": state.cpu_s, "right": dict(shares)})
    print(
        "  ".join([f"step {state.step:,}", *(f"{name} {share:.2f}" for name, share in shares.items())]),
        file=sys.stderr,
        flush=True,
    )


def _write(state: Run, *, model_folder: Path, out_dir: Path, size: int, threads: int, quick: bool) -> None:
    """The table, measured on the folder as saved: what ships is what was asked."""
    plan = state.plan
    result: dict[str, Any] = {
        "command": f"dayjob lab clerk-pretrain --steps {plan.steps} --seed {plan.seed} --threads {threads}"
        + (" --quick" if quick else ""),
        "machine": f"{figures.machine()}, torch {torch.__version__}", "seeds": [plan.seed], "quick": quick,
        "plan": asdict(plan), "weights": sum(one.numel() for one in state.model.parameters()), "bytes": size,
        "tokens": state.tokens, "cpu_s": state.cpu_s, "history": state.history,
    }  # fmt: skip
    publish(result, model_folder=model_folder, out_dir=out_dir)


def publish(result: Mapping[str, Any], *, model_folder: Path, out_dir: Path) -> None:
    """What the model in a folder gets right, and the page of its ``result``."""
    model, tokenizer = open_model(model_folder)
    right = measure(model, tokenizer, count=LAST_QUESTIONS)
    result = {**result, "questions": LAST_QUESTIONS, "right": dict(right)}
    looks = {f"at {one['step']:,}": one["right"] for one in result["history"]}
    rows = [
        {"family": name, "share at first": SHARES.get(name, 0.0), "in the second": SCHOOL_SHARES.get(name, 0.0),
         "right": f"{share:.3f}"}
        | {at: f"{one[name]:.2f}" if name in one else "" for at, one in looks.items()}
        for name, share in right.items()
    ]  # fmt: skip
    page = [
        f"{result['weights']:,} weights, float16 on disk ({result['bytes'] / 1e6:.1f} MB), float32 when loaded; trained"
        f" on {result['tokens']:,} tokens in {result['cpu_s'] / 60:.0f} minutes of CPU. Tokens that no training text"
        " held are set apart when it is saved: see [clerk](../clerk.md).",
        f"`right`: share of {LAST_QUESTIONS} held-out questions a family that the saved model answers exactly."
        f" `at`: the same during training, over {CHECK_QUESTIONS}. What each family is: [clerk](../clerk.md).",
        figures.markdown(rows),
    ]
    figures.write(out_dir, "clerk_pretrain", result=result, page=page, code=CODE)


@contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """SIGTERM and SIGINT end the run between two steps, with a checkpoint."""
    asked = threading.Event()
    before = {one: signal.signal(one, lambda *_: asked.set()) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
