"""The privileged self-teacher: a way out of the regime without rewards, where a task's solution is known.

A group of attempts that all failed teaches nothing. Yet the model *told the solution* may know better what to say at
each turn than the model that was not: it reads the very turns that were attempted behind the solution, says where the
first error is, writes on from there, and the model without the solution learns its distribution over every token of
that (on-policy self-distillation: OPSD, Zhao et al., 2026; SDPO, Huebotter et al., 2026; refined as at night,
`learn.language.refining`). The teacher is the base model, which does not move.

A model that makes nothing of the solution would teach noise. So it is asked first: a task is taught only where the
first thing to say becomes likelier once the solution is told.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from dayjob.endings import Invalid
from dayjob.learn.language.refining import padded, refine
from dayjob.learn.practice.buffer import Group
from dayjob.learn.practice.hindsight import behind, prefix_of
from dayjob.learn.practice.recipe import PracticeRecipe
from dayjob.learn.practice.student import Student
from dayjob.learn.practice.turns import packs
from dayjob.objectives.checks import Stats
from dayjob.objectives.language.distillation import trajectory_refined
from dayjob.objectives.language.weights import per_prompt
from dayjob.records import Trajectory

Ids = tuple[int, ...]
Solution = Sequence[str]  # what to say, turn by turn
GIVEN = "A solution of the task below:"
_INSTEAD = "teacher=0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught:
    """A turn of an attempt that failed: what the model read, the same behind the solution, and what it said. ``most``:
    tokens that the teacher may write."""

    prompt: Ids
    told: Ids
    answer: Ids
    most: int
    group: int

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


class SelfTeacher:
    """Makes rows of what failed, and their loss."""

    def __init__(
        self, student: Student, recipe: PracticeRecipe, *, solution: Callable[[Trajectory], Awaitable[Solution]]
    ) -> None:
        """``solution``: of the task that an attempt was at, empty where none is known. Raises Invalid for a chat
        template with no place for it."""
        self._student, self._recipe, self._night = student, recipe, recipe.night()
        self._solution = solution
        prefix_of(student.tokens, GIVEN, instead=_INSTEAD)

    async def solutions(self, groups: Sequence[Group]) -> dict[int, Solution]:
        """Of the groups whose attempts all earned nothing, by their places; those that are known."""
        failed = {place: one for place, one in enumerate(groups) if all(each.reward == 0 for each in one.attempts)}
        found = {place: await self._solution(one.attempts[0]) for place, one in failed.items()}
        return {place: one for place, one in found.items() if any(one)}

    def rows(self, groups: Sequence[Group], solutions: dict[int, Solution]) -> tuple[list[Taught], dict[str, float]]:
        """Up to ``teacher_rows`` turns, spread evenly over the attempts; and what to report: ``teacher_groups`` that
        are taught, ``teacher_unhelped`` left out since the solution does not help, ``teacher_gain`` (nats a token by
        which it makes the first thing to say likelier, the mean over both), ``teacher_tokens`` read for all this."""
        room = self._student.writer.context_tokens
        gains, read, found = [], 0, []
        helped: set[int] = set()
        for place, solution in solutions.items():
            prefix = self._prefix(solution)
            first = groups[place].attempts[0].turns[0].prompt_ids
            said = self._student.tokens.encode(next(filter(None, solution)))
            told = None if prefix is None else behind(prefix, first, room=room - len(said))
            if prefix is None or told is None or not said:
                continue
            gains.append(self._gain(first, told, said))
            read += len(first) + len(told) + 2 * len(said)
            if gains[-1] > 0:
                helped.add(place)
                longest = max(len(self._student.tokens.encode(one)) for one in solution) + 1  # and the end of a turn
                found += self._turns(groups[place], place, prefix=prefix, longest=longest)
        count = min(len(found), self._recipe.teacher_rows)
        rows = [found[place * len(found) // count] for place in range(count)]
        read += sum(len(one) + len(one.told) + len(one.answer) for one in rows)
        return rows, {
            "teacher_groups": float(len(helped)), "teacher_unhelped": float(len(gains) - len(helped)),
            "teacher_gain": fmean(gains) if gains else 0.0, "teacher_tokens": float(read),
        }  # fmt: skip

    def losses(self, rows: Sequence[Taught]) -> Iterator[tuple[Tensor, Stats]]:
        """Of :func:`trajectory_refined`, microbatch by microbatch. Each task counts the same, and within it each token
        of what the teacher made of its turns: a denominator of its own, beside that of the practice."""
        if not rows:
            return
        student = self._student
        refined = refine(
            student, [one.told for one in rows], answers=[one.answer for one in rows],
            error_ratio=self._night.error_ratio, answer_tokens=max(one.most for one in rows),
        )  # fmt: skip
        length_B1 = torch.tensor([len(one.token_ids) for one in refined])[:, None]
        mask_BT = torch.arange(int(length_B1.max())) < length_B1
        weight_BT = per_prompt(mask_BT, torch.tensor([one.group for one in rows])).to(student.device)
        for pack in packs(rows, row_tokens=self._recipe.row_tokens):
            chosen = [refined[place] for place in pack]
            batch = student.rows([rows[place].prompt for place in pack], [one.token_ids for one in chosen])
            yield trajectory_refined(
                student.hidden(batch), student.vocabulary_VD, teacher_BTD=padded(chosen),
                teacher_VD=student.base_vocabulary_VD, weight_BT=weight_BT[pack][:, : batch.mask_BT.shape[1]],
                repaired_B=torch.tensor([one.changed for one in chosen], device=student.device),
            )  # fmt: skip

    def _prefix(self, solution: Solution) -> Ids | None:
        text = "\n".join((GIVEN, *solution))
        try:
            return prefix_of(self._student.tokens, text, instead=_INSTEAD)
        except Invalid:
            return None  # a control token in this solution

    def _gain(self, prompt: Ids, told: Ids, said: Ids) -> float:
        """Nats a token by which what is to be said becomes likelier to the teacher once it is told."""
        pair = [self._student.base_logprobs(self._student.rows([one], [said])) for one in (told, prompt)]
        return float((pair[0] - pair[1]).sum()) / len(said)

    def _turns(self, group: Group, place: int, *, prefix: Ids, longest: int) -> list[Taught]:
        """Those that fit."""
        room, found = self._student.writer.context_tokens, []
        for attempt in group.attempts:
            for turn in attempt.turns:
                told = behind(prefix, turn.prompt_ids, room=room - len(turn.token_ids))
                if told is not None and turn.token_ids:
                    prompt = turn.prompt_ids[-(room - len(turn.token_ids)) :]
                    most = max(longest, len(turn.token_ids))
                    found.append(Taught(prompt=prompt, told=told, answer=turn.token_ids, most=most, group=place))
        return found
