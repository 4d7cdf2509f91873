"""Parts that learn from judgements of served answers: policy gradient, pairs, lone thumbs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dayjob.learn.credit import F64, Bools, Integers, accept_reject, grpo
from dayjob.learn.language.exercises import Exercise
from dayjob.learn.language.forks import Forks
from dayjob.learn.language.parts import deal
from dayjob.learn.language.recipes import NightRecipe
from dayjob.learn.language.study import Ids, Study, slices
from dayjob.objectives.checks import Stats
from dayjob.objectives.language.corrections import Cispo
from dayjob.objectives.language.dpo import dpo
from dayjob.objectives.language.kto import kto, kto_balance, kto_reference_point
from dayjob.objectives.language.policy_gradient import over_tokens, policy_gradient
from dayjob.objectives.language.weights import per_prompt, per_row, sequence_logprob


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A served answer, what it was drawn with and how much it deserves. ``group``: of attempts at one prompt."""

    prompt: Ids
    answer: Ids
    behaviour: tuple[float, ...]
    temperature: float
    advantage: float
    group: int


def attempts_of_thumbs(exercises: Sequence[Exercise]) -> list[Attempt]:
    """Thumbs as rewards, against the other answers to the same question (GRPO, as published): a question whose thumbs
    are all alike, or that has one, teaches nothing."""
    groups = {prompt: number for number, prompt in enumerate(dict.fromkeys(one.prompt for one in exercises))}
    group_B = np.array([groups[one.prompt] for one in exercises], np.int64)
    credit = grpo(np.array([one.reward for one in exercises], np.float64), group_B)
    return _attempts(exercises, credit.advantage_B, group_B=group_B, keep=credit.keep_B)


def attempts_of_suggestions(
    exercises: Sequence[Exercise], *, end_ids: frozenset[int], threshold: float
) -> list[Attempt]:
    """Suggestions that were judged, each against -p*/2, half way from silence to the worst: silence speaks for itself
    as much as a suggestion that was not accepted speaks against. An answer of nothing but its end is silence.

    Against the running mean, silence would count as bad wherever suggestions are welcome on the whole; and where they
    are not, all that was ever tried would, so that what nobody tried grows instead: off policy, probability goes to
    whatever no sample speaks against (Swaminathan and Joachims, NeurIPS 2015). See docs/suggestions.md.
    """
    acted_B = np.array([not end_ids.issuperset(one.lesson.answer_ids) for one in exercises], bool)
    accepted_B = np.array([one.lesson.verdict == "accept" for one in exercises], bool)
    advantage_B = accept_reject(acted_B, accepted_B, threshold=threshold) + threshold / 2
    every_B = np.ones(len(exercises), bool)
    return _attempts(exercises, advantage_B, group_B=np.arange(len(exercises)), keep=every_B)


def _attempts(exercises: Sequence[Exercise], advantage_B: F64, *, group_B: Integers, keep: Bools) -> list[Attempt]:
    return [
        Attempt(
            prompt=one.prompt,
            answer=one.lesson.answer_ids,
            behaviour=one.lesson.answer_logprobs or (),
            temperature=one.lesson.temperature or 1.0,  # a greedy answer was drawn with certainty: any will do
            advantage=float(advantage_B[place]),
            group=int(group_B[place]),
        )
        for place, one in enumerate(exercises)
        if keep[place]
    ]


class PolicyGradient:
    """CISPO on served answers, with the log-probabilities they were served with."""

    share = 1.0

    def __init__(self, name: str, deck: Sequence[Attempt], *, recipe: NightRecipe, seed: int) -> None:
        self.name = name
        self._deck = deck
        self._recipe = recipe
        self._seed = seed

    def losses(self, study: Study, step: int) -> Iterator[tuple[Tensor, Stats]]:
        """Of :func:`policy_gradient`."""
        drawn = deal(self._deck, self._recipe.lessons, step=step, seed=self._seed)
        drawn.sort(key=lambda one: one.temperature)  # a microbatch is scored at one temperature
        rows = study.rows([one.prompt for one in drawn], [one.answer for one in drawn])
        most = rows.mask_BT.shape[1]
        padded = [[*one.behaviour, *[0.0] * (most - len(one.behaviour))] for one in drawn]
        behaviour_BT = torch.tensor(padded, device=study.device)
        advantage_B = torch.tensor([one.advantage for one in drawn], dtype=torch.float32, device=study.device)
        weight_BT = per_prompt(rows.mask_BT, torch.tensor([one.group for one in drawn], device=study.device))
        for part in _of_one_temperature(drawn, self._recipe.microbatch):
            piece = rows.cut(part)
            yield policy_gradient(
                study.logprobs(piece, temperature=drawn[part.start].temperature),
                behaviour_BT[part],
                advantage_BT=over_tokens(advantage_B[part], piece.mask_BT),
                weight_BT=weight_BT[part],
                corrections=[Cispo()],
            )


def _of_one_temperature(drawn: Sequence[Attempt], size: int) -> Iterator[slice]:
    first = 0
    for place in range(1, len(drawn) + 1):
        if place == len(drawn) or place - first == size or drawn[place].temperature != drawn[first].temperature:
            yield slice(first, place)
            first = place


class Pairs:
    """DPO: the correction against the answer that was served."""

    name = "pairs"

    def __init__(self, deck: Sequence[Exercise], *, recipe: NightRecipe, seed: int, share: float) -> None:
        self.share = share
        self._deck = deck
        self._recipe = recipe
        self._seed = seed

    def losses(self, study: Study, step: int) -> Iterator[tuple[Tensor, Stats]]:
        """Of :func:`dpo`."""
        drawn = deal(self._deck, self._recipe.lessons, step=step, seed=self._seed)
        right, served = [one.target or () for one in drawn], [one.lesson.answer_ids for one in drawn]
        forks = Forks.of([one.prompt for one in drawn], first=right, second=served, device=study.device)
        weight_B = per_row(torch.ones(len(drawn), device=study.device))
        for part in slices(len(drawn), self._recipe.microbatch):
            cut = forks.cut(part)
            chosen_B, rejected_B = sequence_logprob(study.logprobs(cut), cut.mask_BT).chunk(2)
            chosen_base_B, rejected_base_B = sequence_logprob(study.base_logprobs(cut), cut.mask_BT).chunk(2)
            yield dpo(
                chosen_B,
                rejected_B,
                chosen_reference_B=chosen_base_B,
                rejected_reference_B=rejected_base_B,
                weight_B=weight_B[part],
                beta=self._recipe.preference_beta,
            )


class Thumbs:
    """KTO: answers with a lone thumb."""

    name = "thumbs"

    def __init__(self, deck: Sequence[Exercise], *, recipe: NightRecipe, seed: int, share: float) -> None:
        self.share = share
        self._deck = deck
        self._recipe = recipe
        self._seed = seed

    def losses(self, study: Study, step: int) -> Iterator[tuple[Tensor, Stats]]:
        """Of :func:`kto`."""
        drawn = deal(self._deck, self._recipe.lessons, step=step, seed=self._seed)
        prompts, answers = [one.prompt for one in drawn], [one.lesson.answer_ids for one in drawn]
        liked_B = torch.tensor([one.lesson.thumb > 0 for one in drawn], device=study.device)
        rows = study.rows(prompts, answers)
        weight_B = per_row(torch.ones(len(drawn), device=study.device))
        point = self._reference_point(study, prompts, [answers[-1], *answers[:-1]])
        for part in slices(len(drawn), self._recipe.microbatch):
            piece = rows.cut(part)
            yield kto(
                sequence_logprob(study.logprobs(piece), piece.mask_BT),
                sequence_logprob(study.base_logprobs(piece), piece.mask_BT),
                liked_B=liked_B[part],
                reference_point=point,
                weight_B=weight_B[part],
                beta=self._recipe.preference_beta,
                balance=kto_balance(liked_B),
            )

    @torch.no_grad()
    def _reference_point(self, study: Study, prompts: list[Ids], others: list[Ids]) -> Tensor:
        """z0, over the prompts with each other's answers."""
        rows = study.rows(prompts, others)
        here, base = [], []
        for part in slices(len(prompts), self._recipe.microbatch):
            piece = rows.cut(part)
            here.append(sequence_logprob(study.logprobs(piece), piece.mask_BT))
            base.append(sequence_logprob(study.base_logprobs(piece), piece.mask_BT))
        count = len(prompts)
        weight_B = per_row(torch.full((count,), float(count > 1), device=study.device))
        return kto_reference_point(torch.cat(here), torch.cat(base), weight_B=weight_B)
