"""What the morning is told of each lesson: what was said before, what is said now, or why nothing was learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from dayjob.learn.language.exercises import Exercise
from dayjob.learn.language.lessons import Lesson
from dayjob.learn.language.recipes import NightRecipe
from dayjob.learn.language.study import Study, slices


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """To a lesson's bare question: the most probable answer, what the teacher says (the correction where there is one,
    "" where nobody knows), and nats a token of that. ``behind``: what is said behind notes that do not teach it, None
    where there are none."""

    said: str
    behind: str | None
    wanted: str
    nats: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LessonReport:
    """``left_out``: why the night did not learn from it, "" if it did; then ``before`` and ``after`` are what the model
    says to the bare question, ``behind`` what it says then behind notes that do not teach it (None where there are
    none), and ``nats`` what the wanted answer's tokens cost on average."""

    id: str
    session: str
    family: str
    left_out: str = ""
    before: str = ""
    after: str = ""
    behind: str | None = None
    wanted: str = ""
    nats_before: float = 0.0
    nats_after: float = 0.0

    @property
    def learned(self) -> bool:
        """Whether the question is now answered as wanted, bare and behind other notes."""
        said = {self.after} if self.behind is None else {self.after, self.behind}
        return not self.left_out and bool(self.wanted) and said == {self.wanted}


@torch.no_grad()
def answers_of(study: Study, exercises: Sequence[Exercise], *, recipe: NightRecipe) -> list[Answers]:
    """How the model, as it is now, answers each exercise."""
    most, flat = recipe.answer_tokens, [asked for one in exercises for asked in one.asked]
    zero = [0] * len(flat)
    said = iter(study.writer.write(flat, seeds=zero, max_tokens=most, temperature=0))
    asked = [one for one in exercises if one.target is None and one.taught is not None]
    with study.base() as writer:
        prompts = [one.taught or () for one in asked]
        told = iter(writer.write(prompts, seeds=zero[: len(asked)], max_tokens=most, temperature=0))
    wanted = [
        one.target if one.target is not None else next(told).token_ids if one.taught is not None else ()
        for one in exercises
    ]
    nats: list[float] = []
    for part in slices(len(exercises), recipe.microbatch):
        rows = study.rows([one.prompt for one in exercises[part]], wanted[part])
        sum_B, count_B = study.logprobs(rows).sum(dim=1), rows.mask_BT.sum(dim=1).clamp_min(1)
        nats += (-sum_B / count_B).tolist()
    text = study.tokens.text
    found = []
    for one, there, cost in zip(exercises, wanted, nats, strict=True):
        bare, *behind = (text(next(said).token_ids) for _ in one.asked)
        found.append(Answers(said=bare, behind=behind[0] if behind else None, wanted=text(there), nats=cost))
    return found


def report(
    lessons: Sequence[Lesson],
    exercises: Sequence[Exercise],
    *,
    out: Mapping[str, str],
    before: Sequence[Answers],
    after: Sequence[Answers],
) -> tuple[LessonReport, ...]:
    """One a lesson, in the lessons' order."""
    taught = {one.lesson.id: (was, now) for one, was, now in zip(exercises, before, after, strict=bool(before))}
    found = []
    for lesson in lessons:
        blank = LessonReport(id=lesson.id, session=lesson.session, family=lesson.family)
        if lesson.id not in taught:
            found.append(replace(blank, left_out=out.get(lesson.id, "the recipe found nothing to learn from it")))
            continue
        was, now = taught[lesson.id]
        told = {"before": was.said, "after": now.said, "wanted": now.wanted}
        found.append(replace(blank, **told, behind=now.behind, nats_before=was.nats, nats_after=now.nats))
    return tuple(found)
