"""One turn, one row: a prompt and the tokens behind it. Rows of every episode of a step, cut into microbatches.

An episode of a hundred turns is a hundred rows, each no longer than the context, and a microbatch holds as many rows as
``row_tokens`` allows: memory is that of the longest turn, however many turns there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dayjob.learn.practice.buffer import Group, update_of
from dayjob.learn.practice.credit import Credited
from dayjob.learn.practice.hindsight import told
from dayjob.objectives.language.weights import per_prompt

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRow:
    """N tokens behind a prompt. ``weight``: of each of its tokens among all of the step (`weights.per_prompt`)."""

    prompt: Ids
    answer: Ids  # N
    behaviour: tuple[float, ...]  # N
    updates: tuple[int, ...]  # N: of the weights that wrote each token
    advantage: float
    weight: float
    group: int
    episode: int  # among the step's, from 0
    turn: int  # within the episode, from 0
    reward: float  # of the episode
    outcome: str  # of the episode, in words

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRows:
    """The rows that move anything, and what was left out: ``truncated`` prompts lost their beginning, ``unmoved`` turns
    deserve exactly nothing (they count in the denominators, and are not computed)."""

    rows: tuple[TurnRow, ...]
    truncated: int
    unmoved: int


def rows_of(groups: Sequence[Group], credited: Credited, *, context_tokens: int) -> StepRows:
    """The rows of a step. A prompt that does not fit keeps its end: what was said last."""
    found: list[TurnRow] = []
    truncated = episode = 0
    for number, group in enumerate(groups):
        for attempt in group.attempts:
            if credited.keep[episode]:
                for place, turn in enumerate(attempt.turns):
                    room = context_tokens - len(turn.token_ids)
                    truncated += len(turn.prompt_ids) > room
                    if room > 0 and turn.token_ids:
                        found.append(
                            TurnRow(
                                prompt=turn.prompt_ids[-room:], answer=turn.token_ids, behaviour=turn.logprobs,
                                updates=tuple(update_of(one) for one in turn.versions), group=number, weight=0.0,
                                advantage=credited.advantage[episode][place], episode=episode, turn=place,
                                reward=attempt.reward, outcome=told(attempt.reward),
                            )
                        )  # fmt: skip
            episode += 1
    weighed = _weighed(found)
    moved = tuple(one for one in weighed if one.advantage != 0.0)
    return StepRows(rows=moved, truncated=truncated, unmoved=len(found) - len(moved))


def every_turn(groups: Sequence[Group], *, context_tokens: int) -> list[TurnRow]:
    """Each turn of each attempt with an advantage of 0: what a value is learned from."""
    return [
        TurnRow(
            prompt=turn.prompt_ids[-(context_tokens - 1) :], answer=turn.token_ids[:1], behaviour=(), updates=(),
            advantage=0.0, weight=0.0, group=number, episode=0, turn=place, reward=attempt.reward, outcome="",
        )
        for number, group in enumerate(groups)
        for attempt in group.attempts
        for place, turn in enumerate(attempt.turns)
    ]  # fmt: skip


def packs(rows: Sequence[Sized], *, row_tokens: int) -> Iterator[list[int]]:
    """The places of the rows of each microbatch: rows of like lengths together, at least one, else no more than
    ``row_tokens`` with the fillers."""
    pack: list[int] = []
    for place in sorted(range(len(rows)), key=lambda one: (len(rows[one]), one)):
        if pack and (len(pack) + 1) * len(rows[place]) > row_tokens:  # in order, so this row is the longest
            yield pack
            pack = []
        pack.append(place)
    if pack:
        yield pack


def spread(values: Sequence[Sequence[float]], *, width: int, device: torch.device) -> Tensor:
    """Numbers of each row as (B, ``width``), 0 behind their ends."""
    return torch.tensor([[*one, *[0.0] * (width - len(one))] for one in values], dtype=torch.float32, device=device)


def _weighed(rows: Sequence[TurnRow]) -> list[TurnRow]:
    """Each prompt counts the same, and within it each token of all its attempts."""
    if not rows:
        return []
    length_B1 = torch.tensor([len(one.answer) for one in rows])[:, None]
    mask_BT = torch.arange(int(length_B1.max())) < length_B1
    weight_BT = per_prompt(mask_BT, torch.tensor([one.group for one in rows]))
    return [replace(one, weight=float(weight)) for one, weight in zip(rows, weight_BT[:, 0].tolist(), strict=True)]
