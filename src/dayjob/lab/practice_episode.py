"""``dayjob lab episode``: what an episode of a million tokens would cost in each part.

The office is played at several lengths with the clerk that ships, every turn within a window of its context. Each part
is measured by itself: CPU seconds of this process on one thread, or bytes. A line is laid through the lengths, and a
square beside it; the line is carried on to a million tokens of conversation. What no window would cost is arithmetic
from the model's shape, in tables of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from dayjob.lab import figures, practice_pieces
from dayjob.lab import practice_episode_parts as parts
from dayjob.lab.clerk_night import model_folder
from dayjob.lab.practice_episode_cost import QWEN3_06B, Fit, Interval, Points, Shape, fit
from dayjob.lab.practice_ground import ANSWER_TOKENS
from dayjob.lab.practice_pieces import tell
from dayjob.learn.practice.recipe import PracticeRecipe
from dayjob.learn.practice.student import Student
from dayjob.policies.engine_jobs import EngineLimits
from dayjob.policies.engine_protocol import VersionRef
from dayjob.policies.engine_transformers import TransformersEngine, load_model
from dayjob.policies.tokens import Tokens

CODE = (*practice_pieces.CODE, "dream", "journal")  # folders whose code decides about the figures
WHOLE = 1_000_000  # tokens of conversation
SECONDS, BYTES = "CPU s", "bytes"
# part -> (what it is, unit); in the order of an episode's way
PARTS: Mapping[str, tuple[str, str]] = {
    "reset": ("environment: drawing the day", SECONDS),
    "steps": ("environment: its steps", SECONDS),
    "state": ("environment: state at the end", BYTES),
    "render": ("prompts: rendered and tokenised within the window", SECONDS),
    "generate": (f"generation: {parts.WRITTEN} tokens a turn, one client", SECONDS),
    "memory": ("trajectory in memory", BYTES),
    "stored": ("trajectory in buffer and checkpoint", BYTES),
    "pack": ("trajectory: packing it", SECONDS),
    "journal": ("journal, were all of it sent at every turn", BYTES),
    "credit": ("credit: outcome, turn, process and value together", SECONDS),
    "rows": ("learning: cutting into rows", SECONDS),
    "learn": ("learning: forward and backward", SECONDS),
    "excerpts": ("dreaming: whole conversations and their answers", SECONDS),
    "transitions": ("dreaming: what stood before each answer", BYTES),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Turns at which each part is measured. ``settled``: turns from which the window is full and lines are laid."""

    light: tuple[int, ...] = (5, 20, 50, 100, 200, 400, 1000)
    window: tuple[int, ...] = (5, 20, 50, 100, 200, 400)
    engine: tuple[int, ...] = (5, 20, 50, 75, 100, 125)
    learned: tuple[int, ...] = (8, 16, 32)
    settled: int = 50
    context: int = 1024


QUICK = Sizes(light=(4, 8, 12), window=(4, 8, 12), engine=(2, 4, 6), learned=(2, 4, 6), settled=2, context=384)


def run(model: Path | None, out_dir: Path, *, rounds: int, quick: bool) -> None:
    """Measure, print, write ``out_dir``/episode.{md,json}. A round is another day of the office."""
    sizes, rounds = (QUICK, 2) if quick else (Sizes(), rounds)
    folder = model_folder(model)
    with one_thread():
        found = measure(folder, sizes, seeds=range(rounds))
    made = {
        "command": f"dayjob lab episode --rounds {rounds}" + " --quick" * quick, "machine": figures.machine(),
        "seeds": list(range(rounds)), "quick": quick, "sizes": asdict(sizes), "whole": WHOLE, "rounds": found,
        "weights": figures.weights_mark(folder),
        "shapes": [asdict(one) for one in (Shape.of(folder, name="this model, float32"), QWEN3_06B)],
    }  # fmt: skip
    result = made | {"fits": {name: asdict(one) for name, one in fits(made).items()}}
    told = page(result)
    figures.write(out_dir, "episode", result=result, page=told, code=CODE)
    print("\n\n".join(told))


@contextmanager
def one_thread() -> Iterator[None]:
    """CPU seconds are work only where threads do not wait for each other in a loop."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measure(folder: Path, sizes: Sizes, *, seeds: Sequence[int]) -> list[parts.Found]:
    """Every part in every round."""
    recipe = PracticeRecipe(groups=1, attempts=2, probe_rows=0, context_tokens=sizes.context)
    student = Student(folder, recipe, seed=0)
    found = []
    for seed in seeds:
        made = asyncio.run(_round(folder, sizes, student=student, recipe=recipe, seed=seed))
        found.append(made)
        tell(f"round {seed}: " + ", ".join(f"{name} {max(one.values()):.3g}" for name, one in made.items()))
    return found


async def _round(
    folder: Path, sizes: Sizes, *, student: Student, recipe: PracticeRecipe, seed: int
) -> parts.Found:  # fmt: skip
    found: parts.Found = {"reset": {}, "steps": {}, "state": {}}
    for turns in sizes.light:
        day, told = await parts.play(turns, seed=seed)
        for name, value in told.items():
            found[name][turns] = value
    tokens, window = student.tokens, sizes.window
    prompts, more = parts.rendered(tokens, day, marks=window, context=sizes.context)
    found |= more
    found |= parts.journaled(tokens, day, marks=window)
    found |= parts.dreamt(day, marks=window)
    whole = parts.trajectory(tokens, day, prompts=prompts, seed=seed)
    found |= parts.kept(whole, marks=window, read=day.read)
    found |= parts.credited(whole, marks=window, seed=seed)
    found |= parts.cut_into_rows(whole, marks=window, context=sizes.context)
    limits = EngineLimits(context_tokens=sizes.context)
    engine = TransformersEngine(load_model(folder), endless(folder), limits=limits)
    try:
        await engine.load(VersionRef(name="base", digest=""))
        found |= await parts.generated(engine, "base", prompts=prompts, marks=sizes.engine, salt=str(seed))
    finally:
        await engine.close()
    return found | parts.learned(student, whole, recipe=recipe, marks=sizes.learned, first=sizes.settled)


def endless(folder: Path) -> Tokens:
    """The folder's tokenizer without an end token: every answer is as long as it was asked to be."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    tokenizer.eos_token = None
    return Tokens(tokenizer)


def fits(result: Mapping[str, Any]) -> dict[str, Fit]:
    """A fit a part, to the turns that make a million tokens."""
    turns = whole_turns(result)
    return {
        name: fit([one[name] for one in result["rounds"]], settled=_settled(name, result), turns=turns)
        for name in PARTS
    }  # fmt: skip


def whole_turns(result: Mapping[str, Any]) -> float:
    """How many turns make a million tokens of conversation."""
    return WHOLE / turn_tokens(result)["mean"]


def turn_tokens(result: Mapping[str, Any]) -> Interval:
    """Tokens that a turn adds to the conversation: what is said and what is answered."""
    rounds: list[Points] = [one["conversation"] for one in result["rounds"]]
    return fit(rounds, settled=result["sizes"]["settled"], turns=0).line


def _settled(name: str, result: Mapping[str, Any]) -> int:
    return 0 if name == "learn" else int(result["sizes"]["settled"])


# ---- the page


def page(result: Mapping[str, Any]) -> list[str]:
    """The page below its head."""
    sizes, turns, tokens = result["sizes"], whole_turns(result), turn_tokens(result)
    fitted = fits(result)
    shapes = [Shape(**one) for one in result["shapes"]]
    return [
        f"An office's day, played by its reference: a turn adds {_number(tokens)} tokens to the conversation, so a "
        f"million tokens are {turns:,.0f} turns. Every turn is read within {sizes['context']:,} tokens, "
        f"{ANSWER_TOKENS} of them for the answer. Lines are laid from turn {sizes['settled']} on, where "
        "the window is full. CPU seconds of one process on one thread, or bytes; means and 95 % intervals over rounds, "
        "each another day.",
        "## Measured",
        figures.markdown([_measured(name, result) for name in PARTS]),
        "Together at so many turns. The learner's turns all lie behind the point at which the window is full.",
        "## By the turn, and carried on to a million tokens",
        figures.markdown([_carried(name, fitted[name]) for name in PARTS]),
        "`a turn`: the line's slope. `turn²`: the quadratic term of a curve laid beside the line, and its share of the "
        "cost at the longest that was measured. `as a line`: what a million tokens cost if the line holds. `as a "
        "curve`: the same with the quadratic term, where that is surely above zero; then the line is not to be "
        "believed. The office itself ends at 1,000 turns: beyond, its rows speak of an application like it.",
        "## By the token",
        figures.markdown(_by_token(result, fitted)),
        "## Without a window: arithmetic from the shape",
        figures.markdown([_shape(one, turns, sizes["context"]) for one in shapes]),
        "Nothing in this table is measured. Keys and values: 2 x layers x key-value heads x width x bytes of a number."
        " Weights: two FLOP each, the output matrix among them. Attention of one token: 4 x layers x heads x width x "
        "tokens it looks at. `read once`: a million tokens, keys and values kept. `window read anew`: the full window, "
        "computed at every one of the turns.",
    ]


def _measured(name: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """A row: means over rounds."""
    told, unit = PARTS[name]
    row: dict[str, Any] = {"part": told, "unit": unit}
    for mark in sorted({one for points in result["rounds"][0].values() for one in points}):
        values = [one[name][mark] for one in result["rounds"] if mark in one[name]]
        row[str(mark)] = f"{sum(values) / len(values):,.{0 if unit == BYTES else 4}f}" if values else ""
    return row


def _carried(name: str, one: Fit) -> dict[str, Any]:
    told, unit = PARTS[name]
    scale, small = (1.0, "B") if unit == BYTES else (1e3, "ms")
    large = (1e-6, "MB") if unit == BYTES else (1.0, "CPU s")
    curve = "" if one.bent is None else f"{_number(one.bent, scale=large[0])} {large[1]}"
    return {
        "part": told, "a turn": f"{_number(one.line, scale=scale)} {small}",
        "turn²": f"{_number(one.square, scale=scale)} {small}", "of the longest, %": round(100 * one.curved, 1),
        "as a line": f"{_number(one.straight, scale=large[0])} {large[1]}", "as a curve": curve,
    }  # fmt: skip


def _by_token(result: Mapping[str, Any], fitted: Mapping[str, Fit]) -> list[dict[str, str]]:
    rounds, tokens = result["rounds"], turn_tokens(result)["mean"]
    mark = max(rounds[0]["learned tokens"])
    answers = sum(one["learned tokens"][mark] for one in rounds) / (mark * len(rounds))
    marks = [one for one in sorted(rounds[0]["computed"]) if one >= result["sizes"]["settled"]]
    early = sum(one["computed"][marks[0]] for one in rounds) / (marks[0] * len(rounds))
    late = fit([one["computed"] for one in rounds], settled=marks[0], turns=0).line
    peaks = rounds[0]["peak"]
    return [
        {"what": "generation, ms a token written", "": _number(fitted["generate"].line, scale=1e3 / parts.WRITTEN)},
        {"what": f"prompt tokens computed a turn, until turn {marks[0]}", "": f"{early:.0f}"},
        {"what": "the same behind it, where the window is full", "": _number(late)},
        {"what": "learning, ms a token learned from", "": _number(fitted["learn"].line, scale=1e3 / answers)},
        {"what": "learning, ms a token of conversation", "": _number(fitted["learn"].line, scale=1e3 / tokens)},
        {"what": "learning, peak memory of the process in the first round, MB",
         "": ", ".join(f"{value / 1e6:,.0f} at {turns} turns" for turns, value in peaks.items())},
        {"what": "memory of a trajectory, bytes a token of conversation",
         "": _number(fitted["memory"].line, scale=1 / tokens)},
    ]  # fmt: skip


def _shape(one: Shape, turns: float, context: int) -> dict[str, str]:
    return {
        "model": one.name,
        "keys and values, bytes a token": f"{one.kv_bytes:,}",
        f"at {context:,} tokens, MB": f"{one.kv_bytes * context / 1e6:,.1f}",
        "at a million, GB": f"{one.kv_bytes * WHOLE / 1e9:,.1f}",
        "weights, MFLOP a token": f"{one.weight_flops / 1e6:,.0f}",
        f"attention at {context:,}, MFLOP a token": f"{one.attention_flops(context) / 1e6:,.1f}",
        "at a million, MFLOP": f"{one.attention_flops(WHOLE) / 1e6:,.0f}",
        "read once, TFLOP": f"{one.reading_flops(WHOLE) / 1e12:,.0f}",
        "window read anew, TFLOP": f"{turns * one.reading_flops(context) / 1e12:,.0f}",
    }


def _number(found: Interval, *, scale: float = 1.0) -> str:
    """Mean and half-width, three digits of either."""
    text = _digits(scale * found["mean"])
    return text if found["half"] != found["half"] else f"{text} ±{_digits(scale * found['half'])}"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
