"""What is to stay: replayed prompts and prompts that the base model writes itself, each with the base's own answer.

Pseudo-rehearsal (Robins, 1995): what the model writes from an empty context covers what it knows, without labels. A
chat model writes the *user's* words when it is given only what its template puts before them (Magpie, Xu et al., 2024).

Some of these prompts ask about the very thing that was taught, and their old answers would hold the lesson back. They
are found by the notes themselves: where the model answers otherwise with a lesson's notes in its context, the row goes.
It is worth more on the other side: the same lesson in other words, which the teacher can answer.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch

from dayjob.endings import Invalid
from dayjob.learn.language.exercises import Exercise
from dayjob.learn.language.lessons import Messages, Rehearsal
from dayjob.learn.language.recipes import NightRecipe
from dayjob.learn.language.study import Ids, Study, slices
from dayjob.learn.language.writing import seeds_of
from dayjob.memory.lessons import last_question
from dayjob.memory.render import Entry, render, with_notes
from dayjob.memory.words import topic
from dayjob.objectives.language.divergence import FORWARD, divergence_along
from dayjob.records import Json

_REPLAYED, _QUESTIONS, _ANSWERS, _NOTED = 11, 12, 13, 14  # roles of seeds


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One row of the anchor."""

    question: Messages
    prompt: Ids
    answer: Ids
    self_written: bool
    tools: tuple[Json, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """A row that asks what a lesson teaches, the same question behind that lesson's notes, and how far the base model's
    answers to the two are apart (nats, on the token where they are most)."""

    row: Kept
    taught: Ids
    nats: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchors:
    """The rows of the anchor, those that contradict a lesson, and how many rehearsals do not fit the model."""

    rows: tuple[Kept, ...]
    conflicts: tuple[Conflict, ...]
    unfit: int


def make_anchors(
    study: Study, rehearsals: Sequence[Rehearsal], *, exercises: Sequence[Exercise], recipe: NightRecipe, seed: int,
    held: Collection[tuple[str, ...]] = (),
) -> Anchors:  # fmt: skip
    """All rows of a night's anchor, sorted by whether a lesson contradicts them. ``held``: the words of questions that
    are held out (`Material.held`): a prompt of the model's own that asks one of them is in neither list."""
    kept, unfit = replayed(study, rehearsals, recipe=recipe, seed=seed)
    own = _self_written(study, recipe=recipe, seed=seed)
    kept += [one for one in own if topic(last_question(one.question)) not in held]
    rows, conflicts = sort_out(study, kept, exercises=exercises, recipe=recipe)
    noted = iter(_behind_notes(study, [row for row in rows if row.self_written], recipe=recipe, seed=seed))
    mixed: list[Kept] = []  # so that early stopping's share has some of each
    for row in rows:
        mixed += [row, *islice(noted, int(row.self_written and len(mixed) % (recipe.noted + 1) == 0))]
    return Anchors(rows=(*mixed, *noted), conflicts=tuple(conflicts), unfit=unfit)


def set_aside(anchors: Anchors, *, most: int) -> tuple[Anchors, list[Kept]]:
    """Take up to ``most`` of the prompts that the model wrote itself, at most a quarter of them, out of the anchor."""
    own = [row for row in anchors.rows if row.self_written]
    out = own[len(own) - min(max(most, 0), len(own) // 4) :]
    gone = {id(row) for row in out}
    return replace(anchors, rows=tuple(row for row in anchors.rows if id(row) not in gone)), out


def replayed(
    study: Study, rehearsals: Sequence[Rehearsal], *, recipe: NightRecipe, seed: int
) -> tuple[list[Kept], int]:
    """Rows of traffic, and how many did not fit. An answer that nobody kept is written by the base model."""
    prompts: list[tuple[Rehearsal, Ids]] = []
    room = study.writer.context_tokens
    for one in rehearsals:
        try:
            prompt = study.tokens.render(one.question, tools=one.tools)
        except Invalid:
            continue
        if len(prompt) + max(recipe.answer_tokens, len(one.answer_ids)) <= room:
            prompts.append((one, prompt))
    bare = [prompt for one, prompt in prompts if not one.answer_ids]
    with study.base() as writer:
        answers = iter(
            writer.write(bare, seeds=seeds_of(seed, _REPLAYED, count=len(bare)), max_tokens=recipe.answer_tokens)
        )
    rows = [
        Kept(
            question=one.question,
            prompt=prompt,
            answer=one.answer_ids or next(answers).token_ids,
            self_written=False,
            tools=one.tools,
        )
        for one, prompt in prompts
    ]
    return rows, len(rehearsals) - len(prompts)


def _self_written(study: Study, *, recipe: NightRecipe, seed: int) -> list[Kept]:
    """Questions that the base model writes itself, and its answers. An empty or unfinished one is no question."""
    count = recipe.self_written
    if not count:
        return []
    opening = _opening(study)
    with study.base() as writer:
        asked = writer.write(
            [opening] * count, seeds=seeds_of(seed, _QUESTIONS, count=count), max_tokens=recipe.question_tokens
        )
    questions: list[tuple[Messages, Ids]] = []
    for one in asked:
        text = study.tokens.text(one.token_ids).strip()
        if not one.ended or not text:
            continue
        question: tuple[Json, ...] = ({"role": "user", "content": text},)
        try:
            prompt = study.tokens.render(question)
        except Invalid:
            continue
        if len(prompt) + recipe.answer_tokens <= writer.context_tokens:
            questions.append((question, prompt))
    return _answered(study, questions, recipe=recipe, seeds=seeds_of(seed, _ANSWERS, count=len(questions)))


def _answered(
    study: Study, questions: Sequence[tuple[Messages, Ids]], *, recipe: NightRecipe, seeds: Sequence[int]
) -> list[Kept]:
    """What the base model says to each."""
    with study.base() as writer:
        answers = writer.write([prompt for _, prompt in questions], seeds=seeds, max_tokens=recipe.answer_tokens)
    return [
        Kept(question=question, prompt=prompt, answer=answer.token_ids, self_written=True)
        for (question, prompt), answer in zip(questions, answers, strict=True)
    ]


def _behind_notes(study: Study, own: Sequence[Kept], *, recipe: NightRecipe, seed: int) -> list[Kept]:
    """One in ``recipe.noted`` of the model's own questions again, behind made-up notes, with what the base says then.

    A note gives one of these questions the answer to another; three times in four one of them is on the question that
    is asked. What the notes of real traffic say is mostly what the night teaches: a model that says it anyway need not
    read them, and forgets how to.
    """
    said = [(last_question(one.question), study.tokens.text(one.answer).strip()) for one in own]
    pairs = [pair for pair in said if all(pair)]
    if not recipe.noted or len(pairs) < 2:
        return []
    rng, questions = np.random.default_rng((seed, _NOTED)), []
    for _ in range(0, len(own), recipe.noted):
        drawn = [
            int(one) for one in rng.choice(len(pairs), size=min(int(rng.integers(2, 6)), len(pairs)), replace=False)
        ]
        others = [pairs[int(one)][1] for one in rng.integers(len(pairs), size=len(drawn))]
        about = list(zip((pairs[place][0] for place in drawn), others, strict=True))[int(rng.random() < 0.25) :]
        rng.shuffle(about)
        entries = [Entry(id="", asked=asked, text=text, order=order) for order, (asked, text) in enumerate(about)]
        question = tuple(with_notes([{"role": "user", "content": pairs[drawn[0]][0]}], render(entries)))
        try:
            prompt = study.tokens.render(question)
        except Invalid:  # no system's message in this template, or a control token in a question
            continue
        if len(prompt) + recipe.answer_tokens <= study.writer.context_tokens:
            questions.append((question, prompt))
    return _answered(study, questions, recipe=recipe, seeds=seeds_of(seed, _NOTED, count=len(questions)))


def _opening(study: Study) -> Ids:
    """What the chat template writes before a user's first word."""
    empty = study.tokens.render([{"role": "user", "content": ""}])
    other = study.tokens.render([{"role": "user", "content": "?"}])
    common = next((i for i, (a, b) in enumerate(zip(empty, other, strict=False)) if a != b), len(empty))
    opening = empty[:common]
    if not opening:
        raise Invalid(
            "the chat template begins with the user's own words, so the model cannot be asked to write prompts: "
            "set self_written to 0",
            param="self_written",
        )
    return opening


def sort_out(
    study: Study, kept: Sequence[Kept], *, exercises: Sequence[Exercise], recipe: NightRecipe
) -> tuple[list[Kept], list[Conflict]]:
    """The rows whose answers no lesson changes, and those that one does.

    A row goes if it asks a lesson's very question (in neither list: it is a lesson); or if, with the notes of the
    lesson that is nearest to it in words before it, the base model departs by more than ``recipe.conflict`` nats from
    what it says without, on any token. Nearest is said of the questions alone: what was asked behind notes before
    somebody corrected it would else be near to whatever those notes speak of, and hold the lesson back.
    """
    asked = {prompt for one in exercises for prompt in one.asked}
    rows = [row for row in kept if row.prompt not in asked]
    questions = [one.lesson.question for one in exercises], [row.question for row in rows]
    lessons, others = ([tuple(study.tokens.encode(last_question(one))) for one in some] for some in questions)
    nearest = _nearest(lessons, others)
    suspects: dict[int, Ids] = {}
    for place, (row, near) in enumerate(zip(rows, nearest, strict=True)):
        context = None if near is None else exercises[near].lesson.context
        taught = None if context is None else _with_notes(study, context, row)
        if taught is not None:
            suspects[place] = taught
    conflicts: dict[int, Conflict] = {}
    order = sorted(suspects)
    for part in slices(len(order), recipe.microbatch):
        places = order[part]
        apart = _apart(study, [rows[i] for i in places], [suspects[i] for i in places])
        for place, gap in zip(places, apart, strict=True):
            if gap > recipe.conflict:
                conflicts[place] = Conflict(row=rows[place], taught=suspects[place], nats=gap)
    return [row for place, row in enumerate(rows) if place not in conflicts], list(conflicts.values())


def _with_notes(study: Study, context: Messages, row: Kept) -> Ids | None:
    """The row's question behind what the lesson's teacher reads before its own; None if that does not fit."""
    before, question = context[:-1], row.question
    if before and before[0].get("role") == question[0].get("role") == "system":
        # Few models have ever seen two system messages: one, the row's own words last.
        both = f"{before[0].get('content', '')}\n{question[0].get('content', '')}"
        before, question = ({**before[0], "content": both}, *before[1:]), question[1:]
    try:
        prompt = study.tokens.render((*before, *question), tools=row.tools)
    except Invalid:
        return None
    return prompt if len(prompt) + len(row.answer) <= study.writer.context_tokens else None


def _apart(study: Study, rows: Sequence[Kept], taught: Sequence[Ids]) -> list[float]:
    """The largest KL(with notes || without) along each row's answer."""
    answers = [row.answer for row in rows]
    bare = study.rows([row.prompt for row in rows], answers)
    noted = study.rows(taught, answers)
    with torch.no_grad():
        gap_BT = divergence_along(
            study.base_hidden(bare),
            study.vocabulary_VD,
            teacher_BTD=study.base_hidden(noted),
            teacher_VD=study.vocabulary_VD,
            mask_BT=bare.mask_BT,
            how=FORWARD,
        )
    return [float(one) for one in gap_BT.max(dim=1).values]


def _nearest(lessons: Sequence[Ids], rows: Sequence[Ids]) -> list[int | None]:
    """For each row the lesson that shares the most telling tokens with it: each counts by how rare it is among both.

    None where nothing is shared but what nearly everything holds (the template's own tokens).
    """
    texts = [set(ids) for ids in (*lessons, *rows)]
    seen = Counter(token for text in texts for token in text)
    worth = {token: math.log(len(texts) / count) for token, count in seen.items()}
    holders: dict[int, list[int]] = {}
    for place, ids in enumerate(lessons):
        for token in set(ids):
            if worth[token] > math.log(2):
                holders.setdefault(token, []).append(place)
    result: list[int | None] = []
    for ids in rows:
        scores: Counter[int] = Counter()
        for token in sorted(set(ids)):
            for place in holders.get(token, ()):
                scores[place] += worth[token]  # type: ignore[assignment]
        result.append(min(scores, key=lambda place: (-scores[place], place)) if scores else None)
    return result
