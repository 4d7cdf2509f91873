"""What an episode of the office costs in each part, at several lengths: CPU seconds of this process, and bytes.

The reference solution plays, and what it says stands in the conversation; a model that writes beside it is timed, and
what it wrote is thrown away. So every length is the same day's work, whatever a model can do.
"""

from __future__ import annotations

import json
import random
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from dayjob.dream.excerpts import Excerpt, conversations, transitions
from dayjob.endings import Ending, EpisodeEnding
from dayjob.journal.generations import generation_columns
from dayjob.lab.practice_ground import ANSWER_TOKENS
from dayjob.learn.language.exercises import turn
from dayjob.learn.practice.buffer import Group, version_name
from dayjob.learn.practice.credit import credit_turns
from dayjob.learn.practice.prompts import render_within
from dayjob.learn.practice.recipe import PracticeRecipe
from dayjob.learn.practice.step import PracticeStep
from dayjob.learn.practice.stored import pack
from dayjob.learn.practice.student import Student
from dayjob.learn.practice.turns import rows_of
from dayjob.policies.engine_protocol import Engine, Prompt, Sampling
from dayjob.policies.tokens import Tokens
from dayjob.practice.environments.office import Office, OfficeEpisode
from dayjob.practice.protocol import Action
from dayjob.records import Choice, Generation, Json, Trajectory, Turn

WRITTEN = 12  # tokens a turn, about what a call takes
Found = dict[str, dict[int, float]]  # part -> turns -> what they cost together


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """An episode as the reference solution played it. ``read``: how many messages stood before each turn."""

    task: Office
    messages: tuple[Json, ...]
    read: tuple[int, ...]
    answers: tuple[str, ...]
    progress: tuple[float, ...]


async def play(turns: int, *, seed: int) -> tuple[Day, Mapping[str, float]]:
    """A day of so many turns; what the environment took of it, CPU seconds, and the bytes of its state at the end."""
    task = Office(turns=turns)
    answers = tuple(one.text for one in task.reference(seed))
    start = time.process_time()
    episode = task.reset(seed)
    assert isinstance(episode, OfficeEpisode)
    begun = time.process_time()
    messages, read, progress, step = list(episode.task.messages), [], [], None
    for answer in answers:
        read.append(len(messages))
        step = await episode.step(Action(text=answer))
        progress.append(step.progress)
        messages += [{"role": "assistant", "content": answer}, *step.messages]
    ended = time.process_time()
    assert step is not None
    assert step.reward is not None
    assert step.reward.value == 1, f"the reference of seed {seed} did not solve its day of {turns} turns"
    state = len(json.dumps(episode.application.snapshot()))
    day = Day(task=task, messages=tuple(messages), read=tuple(read), answers=answers, progress=tuple(progress))
    return day, {"reset": begun - start, "steps": ended - begun, "state": float(state)}


def rendered(tokens: Tokens, day: Day, *, marks: Sequence[int], context: int) -> tuple[list[tuple[int, ...]], Found]:
    """The prompt of every turn within its window, as an actor and a learner read it."""
    prompts: list[tuple[int, ...]] = []
    found: Found = {"render": {}, "conversation": {}}
    spent = 0.0
    for number, read in enumerate(day.read[: marks[-1]], 1):
        start = time.process_time()
        prompts.append(render_within(tokens, day.messages[:read], room=context - ANSWER_TOKENS))
        spent += time.process_time() - start
        if number in marks:
            found["render"][number] = spent
            found["conversation"][number] = float(len(tokens.render(day.messages[: day.read[number - 1] + 1])))
    return prompts, found


async def generated(
    engine: Engine, version: str, *, prompts: Sequence[tuple[int, ...]], marks: Sequence[int], salt: str
) -> Found:
    """``WRITTEN`` tokens behind each prompt, one turn after another. ``computed``: tokens of prompts that the prompt
    cache did not have."""
    found: Found = {"generate": {}, "computed": {}}
    spent = computed = 0.0
    for number, ids in enumerate(prompts[: marks[-1]], 1):
        start = time.process_time()
        asked = engine.generate(
            Prompt(token_ids=ids, salt=salt), version, sampling=Sampling(max_tokens=WRITTEN, seed=number)
        )
        chunks = [chunk async for chunk in asked]
        spent += time.process_time() - start
        assert sum(len(one.token_ids) for one in chunks) == WRITTEN
        computed += len(ids) - chunks[0].cached_tokens
        if number in marks:
            found["generate"][number], found["computed"][number] = spent, computed
    return found


def trajectory(tokens: Tokens, day: Day, *, prompts: Sequence[tuple[int, ...]], seed: int) -> Trajectory:
    """What a rollout would keep of the turns of ``prompts``, with log-probabilities of no meaning."""
    rng, opening = random.Random(seed), day.messages[: day.read[0]]
    turns = []
    for place, ids in enumerate(prompts):
        said = turn(tokens, opening, answer=day.answers[place])
        turns.append(
            Turn(
                prompt_ids=ids, token_ids=said, logprobs=tuple(-rng.random() for _ in said), reward=day.progress[place],
                versions=tuple(version_name(0) for _ in said), text=day.answers[place],
            )
        )  # fmt: skip
    last = day.read[len(turns)] if len(turns) < len(day.read) else len(day.messages)
    return Trajectory(
        spec=day.task.spec, seed=seed, group="", turns=tuple(turns), messages=day.messages[:last], reward=1.0, parts=(),
        ending=EpisodeEnding.DONE,
    )  # fmt: skip


def kept(whole: Trajectory, *, marks: Sequence[int], read: Sequence[int]) -> Found:
    """Of a trajectory: bytes in memory, bytes in the replay buffer and its checkpoint, seconds to pack them."""
    found: Found = {"memory": {}, "stored": {}, "pack": {}}
    for mark in marks:
        one = cut(whole, range(mark), messages=read[mark - 1] + 1)
        found["memory"][mark] = float(deep_bytes(one))
        start = time.process_time()
        found["stored"][mark] = float(len(pack([one])))
        found["pack"][mark] = time.process_time() - start
    return found


def cut(one: Trajectory, places: range, *, messages: int) -> Trajectory:
    """Some turns of a trajectory, and the beginning of its conversation."""
    return replace(one, turns=one.turns[places.start : places.stop], messages=one.messages[:messages])


def deep_bytes(*things: Any) -> int:
    """What these objects and all they are made of take in memory, each counted once.

    >>> number = 1000
    >>> deep_bytes((number, number)) == sys.getsizeof((0, 0)) + sys.getsizeof(number)
    True
    """
    seen: set[int] = set()
    left, total = list(things), 0
    while left:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        total += sys.getsizeof(one)
        if isinstance(one, Mapping):
            left += [*one.keys(), *one.values()]
        elif isinstance(one, tuple | list):
            left += one
        elif isinstance(one, Trajectory | Turn):
            left += [getattr(one, name) for name in one.__slots__]
    return total


def journaled(tokens: Tokens, day: Day, *, marks: Sequence[int]) -> Found:
    """Bytes of a journal's rows if this conversation had been held with a served model that takes all of it: the client
    sends everything at every turn, and a decision keeps what was sent and what was read."""
    found: Found = {"journal": {}}
    total = 0
    for number, read in enumerate(day.read[: marks[-1]], 1):
        ids = bytes(4 * len(tokens.render(day.messages[:read])))
        arrays = bytes(4 * WRITTEN)
        choice = Choice(
            token_ids=arrays, model_logprobs=arrays, sample_logprobs=arrays, versions=(("v1-00000000", WRITTEN),),
            seed=number, ending=Ending.STOP, text=day.answers[number - 1],
        )  # fmt: skip
        generation = Generation(
            base="clerk", messages=day.messages[:read], tools=(), prompt_ids=ids, bare_ids=b"", notes=(),
            sampling={"temperature": 1.0, "top_p": 1.0, "max_tokens": WRITTEN}, choices=(choice,),
        )  # fmt: skip
        told, *blobs = generation_columns(generation)
        total += len((told or "").encode()) + sum(len(blob or b"") for blob in blobs)
        if number in marks:
            found["journal"][number] = float(total)
    return found


def credited(one: Trajectory, *, marks: Sequence[int], seed: int) -> Found:
    """Seconds for the credit of one episode's turns beside a lost attempt as long, by outcome, turn, process and
    learned value together (the value's own model is asked elsewhere)."""
    found: Found = {"credit": {}}
    rng = random.Random(seed)
    for mark in marks:
        won = cut(one, range(mark), messages=0)
        group = Group(ticket=0, attempts=(won, replace(won, reward=0.0)), oldest=0)
        values = [[rng.random() for _ in range(mark)] for _ in group.attempts]
        start = time.process_time()
        for kind in ("outcome", "turns", "process", "value"):
            credit_turns([group], PracticeRecipe(credit=kind), values=values)
        found["credit"][mark] = (time.process_time() - start) / len(group.attempts)
    return found


def cut_into_rows(one: Trajectory, *, marks: Sequence[int], context: int) -> Found:
    """Seconds to make a learning step's rows of an episode's turns."""
    found: Found = {"rows": {}}
    for mark in marks:
        won = cut(one, range(mark), messages=0)
        group = Group(ticket=0, attempts=(won, replace(won, turns=won.turns[:1], reward=0.0)), oldest=0)
        credit = credit_turns([group], PracticeRecipe())
        start = time.process_time()
        rows_of([group], credit, context_tokens=context)
        found["rows"][mark] = time.process_time() - start
    return found


def learned(student: Student, one: Trajectory, *, recipe: PracticeRecipe, marks: Sequence[int], first: int) -> Found:
    """Seconds of forward and backward passes over so many turns, those from ``first`` on, half of them of a lost
    attempt. ``tokens``: of them, those learned from; ``peak``: bytes this process had at most by then."""
    found: Found = {"learn": {}, "learned tokens": {}, "peak": {}}
    step = PracticeStep(student, recipe)
    for mark in marks:
        won = cut(one, range(first, first + mark // 2), messages=0)
        lost = replace(won, turns=one.turns[first + mark // 2 : first + mark], reward=0.0)
        group = Group(ticket=0, attempts=(won, lost), oldest=0)
        rows, _, _ = step.prepare([group], update=0)
        assert len(rows.rows) == mark
        start = time.process_time()
        for loss, _ in step.losses(rows.rows, corrections=()):
            torch.autograd.backward(loss)
        found["learn"][mark] = time.process_time() - start
        found["learned tokens"][mark] = float(sum(len(row.answer) for row in rows.rows))
        found["peak"][mark] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
    return found


def dreamt(day: Day, *, marks: Sequence[int]) -> Found:
    """Seconds to find the whole conversation among what a journal has of its turns, and the application's answers in
    it; bytes that hold what stood before each."""
    found: Found = {"excerpts": {}, "transitions": {}}
    for mark in marks:
        ends = [read + 1 for read in day.read[:mark]]
        said = [Excerpt(id=str(end), messages=day.messages[:end]) for end in ends]
        start = time.process_time()
        (whole,) = conversations(said)
        answered = transitions(whole)
        found["excerpts"][mark] = time.process_time() - start
        found["transitions"][mark] = float(deep_bytes(*(one.before for one in answered)))
    return found
