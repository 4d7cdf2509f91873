"""What a step is made of: each part draws its rows, weighs them over the whole step and yields microbatches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from dayjob.learn.language.anchors import Kept
from dayjob.learn.language.recipes import NightRecipe
from dayjob.learn.language.refining import padded, refine
from dayjob.learn.language.study import Ids, Study, slices
from dayjob.learn.language.writing import seeds_of
from dayjob.objectives.checks import Stats
from dayjob.objectives.language.distillation import self_distillation, trajectory_refined
from dayjob.objectives.language.retention import anchor
from dayjob.objectives.language.sft import sft
from dayjob.objectives.language.weights import per_token

One = TypeVar("One")


class Part(Protocol):
    """One objective of a mixture."""

    @property
    def name(self) -> str:
        """Its place in the stats."""
        ...

    @property
    def share(self) -> float:
        """Its weight in the mixture."""
        ...

    def losses(self, study: Study, step: int) -> Iterator[tuple[Tensor, Stats]]:
        """The microbatches of step ``step``: the same for the same seed, whatever ran before."""
        ...


def deal(deck: Sequence[One], count: int, *, step: int, seed: int) -> list[One]:
    """``count`` of ``deck`` for a step: it is gone through in a new order each time, nothing twice before all once."""
    if not deck:
        return []
    count = min(count, len(deck))
    first = step * count
    found = []
    for place in range(first, first + count):
        turn, card = divmod(place, len(deck))
        found.append(deck[_order(len(deck), turn, seed)[card]])
    return found


def _order(count: int, turn: int, seed: int) -> list[int]:
    return [int(one) for one in np.random.default_rng((seed, turn)).permutation(count)]


class Distillation:
    """On-policy self-distillation: the student writes from the bare question, the teacher (the model with its adapter
    off, or the slow average of it, and with the lesson's context) says of every token what it would have said.

    With ``refine`` the teacher first rewrites what the student wrote, from the first error onward (TRD): a token is an
    error that the teacher would hardly write (``error_ratio``). Wholly right answers are kept as they are.
    """

    def __init__(
        self, name: str, deck: Sequence[tuple[Ids, Ids]], *, recipe: NightRecipe, refine: bool, seed: int, share: float
    ) -> None:
        """``deck``: bare prompts, and the same as the teacher reads them."""
        self.name = name
        self.share = share
        self._deck = deck
        self._recipe = recipe
        self._refine = refine
        self._seed = seed

    def losses(self, study: Study, step: int) -> Iterator[tuple[Tensor, Stats]]:
        """Of :func:`self_distillation`, or of :func:`trajectory_refined`."""
        drawn = deal(self._deck, self._recipe.lessons, step=step, seed=self._seed)
        prompts, taught = [prompt for prompt, _ in drawn], [told for _, told in drawn]
        seeds = seeds_of(self._seed, step, count=len(drawn))
        written = study.writer.write(prompts, seeds=seeds, max_tokens=self._recipe.answer_tokens)
        answers = [one.token_ids for one in written]
        if self._refine:
            yield from self._refined(study, prompts, taught, answers=answers)
            return
        student, teacher = study.rows(prompts, answers), study.rows(taught, answers)
        weight_BT = per_token(student.mask_BT)
        for part in slices(len(drawn), self._recipe.microbatch):
            yield self_distillation(
                study.hidden(student.cut(part)),
                study.vocabulary_VD,
                teacher_BTD=study.taught_hidden(teacher.cut(part)),
                teacher_VD=study.base_vocabulary_VD,
                weight_BT=weight_BT[part],
                how=self._recipe.divergence,
            )

    def _refined(
        self, study: Study, prompts: Sequence[Ids], taught: Sequence[Ids], *, answers: Sequence[Ids]
    ) -> Iterator[tuple[Tensor, Stats]]:
        refined = refine(
            study, taught, answers=answers, error_ratio=self._recipe.error_ratio,
            answer_tokens=self._recipe.answer_tokens,
        )  # fmt: skip
        student = study.rows(prompts, [one.token_ids for one in refined])
        teacher_BTD, weight_BT = padded(refined), per_token(student.mask_BT)
        changed_B = torch.tensor([one.changed for one in refined], device=study.device)
        for part in slices(len(refined), self._recipe.microbatch):
            yield trajectory_refined(
                study.hidden(student.cut(part)),
                study.vocabulary_VD,
                teacher_BTD=teacher_BTD[part],
                teacher_VD=study.base_vocabulary_VD,
                weight_BT=weight_BT[part],
                repaired_B=changed_B[part],
            )


class Likelihood:
    """Supervised fine-tuning on given answers: bare questions, or whole transcripts."""

    share = 1.0

    def __init__(self, name: str, deck: Sequence[tuple[Ids, Ids]], *, recipe: NightRecipe, seed: int) -> None:
        """``deck``: prompts and completions."""
        self.name = name
        self._deck = deck
        self._recipe = recipe
        self._seed = seed

    def losses(self, study: Study, step: int) -> Iterator[tuple[Tensor, Stats]]:
        """Of :func:`sft`."""
        drawn = deal(self._deck, self._recipe.lessons, step=step, seed=self._seed)
        rows = study.rows([prompt for prompt, _ in drawn], [answer for _, answer in drawn])
        weight_BT = per_token(rows.mask_BT)
        for part in slices(len(drawn), self._recipe.microbatch):
            yield sft(study.logprobs(rows.cut(part)), weight_BT=weight_BT[part])


class Anchor:
    """KL(base || new) along what the base model said."""

    name = "anchor"

    def __init__(self, deck: Sequence[Kept], *, recipe: NightRecipe, seed: int) -> None:
        self.share = recipe.anchor
        self._deck = list(enumerate(deck))
        self._base: list[Tensor] = []
        self._recipe = recipe
        self._seed = seed

    def losses(self, study: Study, step: int) -> Iterator[tuple[Tensor, Stats]]:
        """Of :func:`anchor`."""
        size = self._recipe.microbatch
        if not self._base:  # of all rows, whatever the step: a night that goes on gets the bits that it had
            self._base = base_states(study, [row for _, row in self._deck], microbatch=size)
        drawn = deal(self._deck, self._recipe.anchor_rows, step=step, seed=self._seed)
        base = [self._base[number] for number, _ in drawn]
        yield from retention(study, [row for _, row in drawn], base=base, microbatch=size)


def base_states(study: Study, kept: Sequence[Kept], *, microbatch: int) -> list[Tensor]:
    """(T, D) of each row: the base model's states that predict its answer. The base does not change, so one reading
    does for a whole night; it holds as many numbers as the answers have tokens, times D."""
    found: dict[int, Tensor] = {}
    order = sorted(range(len(kept)), key=lambda number: len(kept[number].prompt) + len(kept[number].answer))
    for part in slices(len(kept), microbatch):
        places = order[part]
        rows = study.rows([kept[place].prompt for place in places], [kept[place].answer for place in places])
        for place, hidden_TD in zip(places, study.base_hidden(rows), strict=True):
            found[place] = hidden_TD[: max(1, len(kept[place].answer))].clone()
    return [found[place] for place in range(len(kept))]


def retention(
    study: Study, kept: Sequence[Kept], *, base: Sequence[Tensor], microbatch: int
) -> Iterator[tuple[Tensor, Stats]]:
    """The anchor's loss on given rows, microbatch by microbatch. ``base``: their `base_states`."""
    if not kept:
        return
    rows = study.rows([one.prompt for one in kept], [one.answer for one in kept])
    own_B = torch.tensor([one.self_written for one in kept], device=study.device)
    weight_BT, base_BTD = per_token(rows.mask_BT), torch.nn.utils.rnn.pad_sequence(list(base), batch_first=True)
    for part in slices(len(kept), microbatch):
        yield anchor(
            study.hidden(rows.cut(part)),
            study.vocabulary_VD,
            base_BTD=base_BTD[part],
            base_VD=study.base_vocabulary_VD,
            weight_BT=weight_BT[part],
            self_written_B=own_B[part],
        )
