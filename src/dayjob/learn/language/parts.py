"""What a step is made of: each part draws its rows, weighs them over the whole step and yields microbatches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from dayjob.learn.language.anchors import Kept
from dayjob.learn.language.recipes import NightRecipe
from dayjob.learn.language.study import Ids, Rows, Study, slices
from dayjob.learn.language.writing import Written, seeds_of
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
        repaired_B = torch.zeros(len(drawn), dtype=torch.bool, device=study.device)
        if self._refine:
            answers, changed = repair(study, taught, written=written, recipe=self._recipe)
            repaired_B = torch.tensor(changed, device=study.device)
        student, teacher = study.rows(prompts, answers), study.rows(taught, answers)
        weight_BT = per_token(student.mask_BT)
        for part in slices(len(drawn), self._recipe.microbatch):
            hidden_BTD, teacher_BTD = study.hidden(student.cut(part)), study.taught_hidden(teacher.cut(part))
            if self._refine:
                yield trajectory_refined(
                    hidden_BTD,
                    study.vocabulary_VD,
                    teacher_BTD=teacher_BTD,
                    teacher_VD=study.base_vocabulary_VD,
                    weight_BT=weight_BT[part],
                    repaired_B=repaired_B[part],
                )
            else:
                yield self_distillation(
                    hidden_BTD,
                    study.vocabulary_VD,
                    teacher_BTD=teacher_BTD,
                    teacher_VD=study.base_vocabulary_VD,
                    weight_BT=weight_BT[part],
                    how=self._recipe.divergence,
                )


@torch.no_grad()
def repair(
    study: Study, taught: Sequence[Ids], *, written: Sequence[Written], recipe: NightRecipe
) -> tuple[list[Ids], list[bool]]:
    """The answers as the teacher would have them: up to the first error as they were, from there on its own most
    probable tokens; and which answers were changed."""
    errors: list[int | None] = []
    for part in slices(len(written), recipe.microbatch):
        rows = study.rows(taught[part], [one.token_ids for one in written[part]])
        errors += _first_errors(study, rows, ratio=recipe.error_ratio)
    wrong = [place for place, error in enumerate(errors) if error is not None]
    prefixes = [(*taught[place], *written[place].token_ids[: errors[place]]) for place in wrong]
    with study.teaching() as writer:
        rest = writer.write(prefixes, seeds=[0] * len(wrong), max_tokens=recipe.answer_tokens, temperature=0)
    answers = [one.token_ids for one in written]
    for place, more in zip(wrong, rest, strict=True):
        answers[place] = (*answers[place][: errors[place]], *more.token_ids)
    return answers, [error is not None for error in errors]


def _first_errors(study: Study, rows: Rows, *, ratio: float) -> list[int | None]:
    """The first token of each completion that the teacher gives less than ``ratio`` times its most probable one."""
    hidden_BTD = study.taught_hidden(rows)
    found: list[int | None] = []
    for row in range(len(rows)):  # a row at a time: the logits of all never exist
        length = int(rows.mask_BT[row].sum())
        logp_TV = torch.log_softmax(hidden_BTD[row, :length].float() @ study.vocabulary_VD.float().T, dim=1)
        gap_T = logp_TV.max(dim=1).values - logp_TV.gather(1, rows.token_BT[row, :length, None])[:, 0]
        bad = torch.nonzero(gap_T > -np.log(ratio))
        found.append(int(bad[0, 0]) if len(bad) else None)
    return found


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
        self._deck = deck
        self._recipe = recipe
        self._seed = seed

    def losses(self, study: Study, step: int) -> Iterator[tuple[Tensor, Stats]]:
        """Of :func:`anchor`."""
        yield from retention(
            study,
            deal(self._deck, self._recipe.anchor_rows, step=step, seed=self._seed),
            microbatch=self._recipe.microbatch,
        )


def retention(study: Study, kept: Sequence[Kept], *, microbatch: int) -> Iterator[tuple[Tensor, Stats]]:
    """The anchor's loss on given rows, microbatch by microbatch."""
    if not kept:
        return
    rows = study.rows([one.prompt for one in kept], [one.answer for one in kept])
    own_B = torch.tensor([one.self_written for one in kept], device=study.device)
    weight_BT = per_token(rows.mask_BT)
    for part in slices(len(kept), microbatch):
        piece = rows.cut(part)
        yield anchor(
            study.hidden(piece),
            study.vocabulary_VD,
            base_BTD=study.base_hidden(piece),
            base_VD=study.base_vocabulary_VD,
            weight_BT=weight_BT[part],
            self_written_B=own_B[part],
        )
