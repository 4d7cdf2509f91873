"""Nights compared: what each recipe made of the same week, asked through the adapters as they are served."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from dayjob.learn.language.exercises import turn
from dayjob.learn.language.lessons import Material, Messages
from dayjob.learn.language.night import Night, learn_night
from dayjob.learn.language.recipes import NightRecipe
from dayjob.learn.language.writing import BASE, Writer
from dayjob.policies.adapters import Adapter, file_digests, read_adapter
from dayjob.policies.engine_batch import Batch
from dayjob.policies.engine_protocol import VersionRef
from dayjob.policies.engine_transformers import load_model
from dayjob.policies.tokens import Tokens

SLOTS = 64
BEFORE = "before"
# Student's t, two-sided 95 %, by degrees of freedom: a table of a few seeds needs no more.
_T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked and the text that is right."""

    messages: Messages
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Week:
    """What a night gets, and the suites that it is then asked. None of their questions may be in the material that is
    learned from, unless the suite's name says so."""

    material: Material
    suites: Mapping[str, Sequence[Question]]


@dataclass(frozen=True, slots=True, kw_only=True)
class NightRow:
    """One night of one seed: shares of each suite answered rightly, from 0 to 1."""

    recipe: str
    seed: int
    right: Mapping[str, float]
    stats: Mapping[str, float]


class Examiner:
    """Asks one base model, with any of its adapters, the most probable answers."""

    def __init__(self, folder: Path, *, context_tokens: int, answer_tokens: int) -> None:
        self._tokens = Tokens.open(folder)
        self._answer_tokens = answer_tokens
        self._batch = Batch(load_model(folder), slots=SLOTS, max_tokens=context_tokens)
        self._writer = Writer(self._batch, end_ids=self._tokens.end_ids, slots=SLOTS, context_tokens=context_tokens)

    def read(self, folder: Path) -> Adapter:
        """An adapter's folder, as the engine reads it."""
        ref = VersionRef(name=folder.name, digest=folder.name, folder=folder, files=file_digests(folder))
        return read_adapter(ref, self._batch.adapters.shapes, max_rank=1 << 20, device=self._batch.device)

    def ask(self, suites: Mapping[str, Sequence[Question]], *, adapter: Adapter = BASE) -> dict[str, float]:
        """The share of each suite answered rightly: token for token, the end of the answer too."""
        right = {}
        for name, questions in suites.items():
            prompts = [self._tokens.render(one.messages) for one in questions]
            said = self._writer.write(
                prompts,
                seeds=[0] * len(prompts),
                max_tokens=self._answer_tokens,
                temperature=0,
                adapter=adapter,
            )
            wanted = [turn(self._tokens, one.messages, answer=one.answer) for one in questions]
            right[name] = fmean(one.token_ids == want for one, want in zip(said, wanted, strict=True))
        return right


def night_table(
    folder: Path,
    recipes: Mapping[str, NightRecipe],
    *,
    week: Callable[[int], Week],
    seeds: Sequence[int],
    told: Callable[[str], None] = lambda _: None,
) -> list[NightRow]:
    """A night of each recipe for each seed on the same weeks, and the base model before. ``told`` hears each row."""
    first = next(iter(recipes.values()))
    examiner = Examiner(folder, context_tokens=first.context_tokens, answer_tokens=first.answer_tokens)
    rows = []
    for seed in seeds:
        here = week(seed)
        rows.append(NightRow(recipe=BEFORE, seed=seed, right=examiner.ask(here.suites), stats={}))
        for name, recipe in recipes.items():
            night = learn_night(folder, here.material, recipe=recipe, seed=seed)
            right = _ask(examiner, night, here, seed=seed)
            rows.append(NightRow(recipe=name, seed=seed, right=right, stats=night.stats))
            told(table_text([rows[-1]]))
    return rows


def table_text(rows: Sequence[NightRow]) -> str:
    """The rows as a Markdown table: means over seeds, half the width of a 95 % interval behind them."""
    suites = list(rows[0].right)
    lines = ["| night | " + " | ".join(suites) + " |", "|---|" + "---|" * len(suites)]
    for name in dict.fromkeys(row.recipe for row in rows):
        mine = [row for row in rows if row.recipe == name]
        cells = [_cell([row.right[suite] for row in mine]) for suite in suites]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _ask(examiner: Examiner, night: Night, week: Week, *, seed: int) -> dict[str, float]:
    if not night.state:
        return examiner.ask(week.suites)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / f"night-{seed}"
        night.save(folder, base="base")
        return examiner.ask(week.suites, adapter=examiner.read(folder))


def _cell(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.3f}"
    freedom = len(values) - 1
    t = _T[freedom - 1] if freedom <= len(_T) else 1.96
    return f"{fmean(values):.3f} ± {t * stdev(values) / len(values) ** 0.5:.3f}"
