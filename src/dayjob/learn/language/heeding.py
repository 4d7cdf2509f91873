"""What somebody showed to be the answer is the standard: where the teacher says otherwise it teaches nothing."""

from __future__ import annotations

from collections.abc import Sequence

from dayjob.learn.language.exercises import Exercise
from dayjob.learn.language.recipes import NightRecipe
from dayjob.learn.language.study import Study
from dayjob.memory.lessons import last_question
from dayjob.memory.said import holds
from dayjob.memory.words import same

# Without a word of what was shown: not everybody who reads a report may read that.
DEAF = "the model with its note does not follow it: the recipe sft-answers learns the words themselves"
OTHERWISE = "asked so, the model with its note says something else than what was shown: nothing is known here"


def contradicts(exercise: Exercise, told: str) -> bool:
    """Whether a teacher's answer is another one than what somebody showed."""
    standard = exercise.lesson.standard
    if standard is None or same(told) == same(standard):
        return False
    return not holds(told, said=standard, asked=last_question(exercise.lesson.question))


def heeded(
    study: Study, exercises: Sequence[Exercise], *, recipe: NightRecipe
) -> tuple[list[Exercise], dict[str, str]]:
    """The exercises that their teacher may teach, and for each of the others why it may not."""
    shown = [one for one in exercises if one.lesson.standard is not None and one.taught is not None]
    with study.base() as writer:
        said = writer.write(
            [one.taught or () for one in shown], seeds=[0] * len(shown), max_tokens=recipe.answer_tokens, temperature=0
        )
    out = {
        one.lesson.id: OTHERWISE if one.target is None else DEAF
        for one, end in zip(shown, said, strict=True)
        if contradicts(one, study.tokens.text(end.token_ids))
    }
    return [one for one in exercises if one.lesson.id not in out], out
