"""One step of practice: credit, staleness and the correction for it, and the gradient, turn by turn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from dayjob.learn.practice.buffer import Group
from dayjob.learn.practice.credit import Credited, credit_turns
from dayjob.learn.practice.hindsight import behind, outcome_prefixes, token_weights
from dayjob.learn.practice.recipe import PracticeRecipe
from dayjob.learn.practice.staleness import Staleness, choose, measure
from dayjob.learn.practice.student import Student
from dayjob.learn.practice.turns import StepRows, TurnRow, every_turn, packs, rows_of, spread
from dayjob.learn.practice.value import F64, LinearValue, turn_features
from dayjob.objectives.checks import Stats
from dayjob.objectives.language.corrections import Correction
from dayjob.objectives.language.policy_gradient import policy_gradient

Values = Sequence[Sequence[float]]


class PracticeStep:
    """Turns groups of attempts into microbatches of loss. Holds the learned value, nothing else that moves."""

    def __init__(self, student: Student, recipe: PracticeRecipe) -> None:
        """Raises Invalid where the credit asked for does not fit the model's chat template."""
        self._student, self._recipe = student, recipe
        self.value: LinearValue | None = None
        if recipe.credit == "value":
            self.value = LinearValue.of(student.vocabulary_VD.shape[1] + 3)
        self._prefixes: Mapping[str, tuple[int, ...]] = {}
        if recipe.credit == "hindsight":
            self._prefixes = outcome_prefixes(student.tokens)

    def prepare(self, groups: Sequence[Group], *, update: int) -> tuple[StepRows, Staleness, dict[str, float]]:
        """The rows of a step with their credit, how stale they are for the weights after ``update`` updates, and what
        to report."""
        credited = self._credit(groups)
        found = rows_of(groups, credited, context_tokens=self._recipe.context_tokens)
        stale = self.staleness(found.rows, update=update)
        stats = credited.stats | {
            "rows": float(len(found.rows)), "truncated": float(found.truncated), "unmoved": float(found.unmoved),
            "kl_behaviour": stale.kl, "lag": stale.lag, "most_lag": float(stale.most_lag),
            "sample_size": stale.sample_size, "tokens": float(sum(len(one) for one in found.rows)),
        }  # fmt: skip
        return found, stale, stats

    def correction(self, stale: Staleness) -> tuple[str, tuple[Correction, ...]]:
        """What this staleness asks for, by the recipe."""
        return choose(self._recipe.correction, stale.kl)

    def losses(
        self, rows: Sequence[TurnRow], *, corrections: Sequence[Correction]
    ) -> Iterator[tuple[Tensor, Stats]]:  # fmt: skip
        """Of :func:`policy_gradient`, microbatch by microbatch: their gradients add up to the step's."""
        student, tokens = self._student, self._hindsight(rows) if self._prefixes else None
        for pack in packs(rows, row_tokens=self._recipe.row_tokens):
            chosen = [rows[place] for place in pack]
            batch = student.rows([one.prompt for one in chosen], [one.answer for one in chosen])
            width = batch.mask_BT.shape[1]
            advantage = [[one.advantage] * len(one.answer) for one in chosen]
            if tokens is not None:
                advantage = [
                    [one.advantage * weight for weight in tokens[place]]
                    for one, place in zip(chosen, pack, strict=True)
                ]
            weight = [[one.weight] * len(one.answer) for one in chosen]
            yield policy_gradient(
                student.logprobs(batch, temperature=self._recipe.temperature),
                spread([one.behaviour for one in chosen], width=width, device=student.device),
                advantage_BT=spread(advantage, width=width, device=student.device),
                weight_BT=spread(weight, width=width, device=student.device),
                corrections=corrections,
            )

    @torch.no_grad()
    def staleness(self, rows: Sequence[TurnRow], *, update: int) -> Staleness:
        """Of up to ``probe_rows`` rows, spread evenly over the step."""
        count = min(len(rows), self._recipe.probe_rows)
        some = [rows[place * len(rows) // count] for place in range(count)]
        logp, behaviour, mask = [], [], []
        for pack in packs(some, row_tokens=self._recipe.row_tokens):
            batch = self._student.rows([some[i].prompt for i in pack], [some[i].answer for i in pack])
            width = batch.mask_BT.shape[1]
            logp.append(self._student.logprobs(batch, temperature=self._recipe.temperature)[batch.mask_BT])
            told = spread([some[i].behaviour for i in pack], width=width, device=self._student.device)
            behaviour.append(told[batch.mask_BT])
            mask.append(torch.ones_like(behaviour[-1], dtype=torch.bool))
        lags = [max(0, update - one) for row in some for one in row.updates]
        if not some:
            nothing = torch.zeros(0)
            return measure(nothing, nothing, mask_BT=nothing, lags=[])
        return measure(torch.cat(logp), torch.cat(behaviour), mask_BT=torch.cat(mask), lags=lags)

    # ---- credit

    def _credit(self, groups: Sequence[Group]) -> Credited:
        """Credit of every turn; a learned value is asked before it learns from these very groups."""
        if self.value is None:
            return credit_turns(groups, self._recipe)
        rows = every_turn(groups, context_tokens=self._recipe.context_tokens)
        features_NX = self._features(rows)
        values: Values | None = None
        if self.value.seen:
            told = iter(self.value.predict(features_NX).tolist())
            values = [[next(told) for _ in one.turns] for group in groups for one in group.attempts]
        self.value.learn(features_NX, np.array([one.reward for one in rows]))
        return credit_turns(groups, self._recipe, values=values)

    @torch.no_grad()
    def _features(self, rows: Sequence[TurnRow]) -> F64:
        """What the base model makes of each turn's prompt."""
        hidden_ND = np.zeros((len(rows), self._student.vocabulary_VD.shape[1]))
        for pack in packs(rows, row_tokens=self._recipe.row_tokens):
            batch = self._student.rows([rows[i].prompt for i in pack], [rows[i].answer for i in pack])
            hidden_ND[pack] = self._student.base_hidden(batch)[:, 0].double().cpu().numpy()
        return turn_features(
            hidden_ND, turn_N=np.array([one.turn for one in rows], np.float64),
            length_N=np.array([len(one.prompt) / self._recipe.context_tokens for one in rows]),
        )  # fmt: skip

    @torch.no_grad()
    def _hindsight(self, rows: Sequence[TurnRow]) -> list[list[float]]:
        """A weight for every token of every row."""
        student, limit = self._student, self._recipe.context_tokens
        gap: list[list[float]] = [[] for _ in rows]
        for pack in packs(rows, row_tokens=self._recipe.row_tokens // 2):
            chosen = [rows[place] for place in pack]
            answers = [one.answer for one in chosen]
            knowing = [self._told(one, limit) for one in chosen]
            here, there = student.rows([one.prompt for one in chosen], answers), student.rows(knowing, answers)
            gap_BT = student.logprobs(there) - student.logprobs(here)
            for place, one, numbers in zip(pack, chosen, gap_BT.tolist(), strict=True):
                gap[place] = numbers[: len(one.answer)]
        width = max((len(one) for one in gap), default=0)
        told_BT = spread(gap, width=width, device=student.device)
        mask_BT = spread([[1.0] * len(one) for one in gap], width=width, device=student.device) > 0
        weight_BT = token_weights(
            told_BT, torch.zeros_like(told_BT), mask_BT=mask_BT, episode=[one.episode for one in rows],
            limit=self._recipe.hindsight,
        )  # fmt: skip
        return [numbers[: len(one)] for numbers, one in zip(weight_BT.tolist(), gap, strict=True)]

    def _told(self, one: TurnRow, limit: int) -> tuple[int, ...]:
        """The prompt of a row for whoever knows how its episode ended; where both do not fit, the prompt's beginning
        makes room."""
        return behind(self._prefixes[one.outcome], one.prompt, room=limit - len(one.answer)) or one.prompt
