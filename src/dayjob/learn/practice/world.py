"""A world model: the policy's own network with an adapter of its own, trained on what an application said.

Supervised fine-tuning by the night's own course (`learn.language.night`): the same rows, objective, early stopping and
checkpoints. There is no anchor: this adapter never serves, so nothing has to stay as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from dayjob.endings import Invalid
from dayjob.learn.language.exercises import turn
from dayjob.learn.language.lessons import Messages
from dayjob.learn.language.night import Course, Look, Night, StopSplit, fingerprint
from dayjob.learn.language.parts import Likelihood
from dayjob.learn.language.recipes import RECIPES, NightRecipe
from dayjob.learn.language.study import Ids, Study
from dayjob.learn.stages import Stages

# Rows are short and there is no anchor: larger steps than a night's, and as many as the stop split rewards.
WORLD = replace(RECIPES["published-sft"], learning_rates=(2e-3,), steps=400, warmup=20, stop_every=20, patience=4)

Row = tuple[Messages, str]  # a conversation, and what is said behind it


def learn_rows(
    folder: Path,
    rows: Sequence[Row],
    *,
    stop: Sequence[Row],
    recipe: NightRecipe = WORLD,
    seed: int,
    checkpoint: Path | None = None,
    progress: Callable[[float], None] | None = None,
    device: str = "cpu",
) -> Night:
    """From the base model in ``folder`` to an adapter under which it says what was said. ``stop``: rows that early
    stopping reads; without any, every step is taken.

    Rows that are longer than the recipe's ``context_tokens``, or that hold a control token, are left out and counted
    (``rows_left_out``). Equal rows, recipe, seed, threads and torch build give equal bytes, also when the run was
    killed and went on from its ``checkpoint``. Raises Invalid when no row is left, or the folder holds no model that
    can be learned and served.
    """
    study = Study(folder, recipe, seed=seed, device=device)
    deck, out = _encoded(study, rows)
    if not deck:
        message = "no recorded answer can be learned: they are longer than context_tokens, or the chat template refuses"
        raise Invalid(message, param="rows")
    held, _ = _encoded(study, stop)
    judge = StopSplit(held, (), recipe=recipe) if held and recipe.stop_every else None
    mark = fingerprint(folder, deck, held, asdict(recipe), seed) if checkpoint else ""
    stages = Stages(path=checkpoint, mark=mark, report=progress)
    part = Likelihood("answers", deck, recipe=recipe, seed=seed)
    learned = Course(study, [part], judge=judge, recipe=recipe, stages=stages).run()
    stages.finish()
    best = learned.best_step
    stats = {"rows": float(len(deck)), "rows_left_out": float(out), "steps": float(best)} | learned.stats
    why = "" if best else "no step made the stop split better than the base model is"
    return Night(
        state=learned.best if best else {}, shape=recipe.lora, stats=stats, lessons=(),
        looks=tuple(Look(**one) for one in learned.looks), why=why,
    )  # fmt: skip


def _encoded(study: Study, rows: Sequence[Row]) -> tuple[list[tuple[Ids, Ids]], int]:
    """(prompts and completions, how many rows were left out)."""
    deck = []
    for messages, text in rows:
        try:
            pair = study.tokens.render(messages), turn(study.tokens, messages, answer=text)
        except Invalid:
            continue  # a control token, or a template that refuses: this row alone
        if len(pair[0]) + len(pair[1]) <= study.writer.context_tokens:
            deck.append(pair)
    return deck, len(rows) - len(deck)
