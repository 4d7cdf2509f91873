"""The methods that the clerk's tables compare: one tuning and one anchor for all that have an anchor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from dayjob.lab.clerk_desk import ANSWER, CONTEXT, Desk
from dayjob.learn.language.lessons import Material
from dayjob.learn.language.recipes import RECIPES, NightRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What every method is given; its rate of learning is the one that ships with its recipe."""

    steps: int = 80  # at most; the stop split may end a night sooner
    self_written: int = 512
    anchor_rows: int = 64
    lessons: int = 32

    @staticmethod
    def quick() -> Tuning:
        """To see that it runs."""
        return Tuning(steps=6, self_written=24, anchor_rows=8, lessons=8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A recipe, with or without its anchor. ``teacher_answers``: what the base model says behind the notes stands for
    the correction, written once before the night."""

    name: str
    recipe_name: str
    anchor: bool = True
    teacher_answers: bool = False

    def recipe(self, tuning: Tuning) -> NightRecipe:
        """The recipe as it is run. Published ones keep their own learning rate and look at no stop split."""
        here = replace(
            RECIPES[self.recipe_name], steps=tuning.steps, lessons=tuning.lessons, answer_tokens=ANSWER,
            context_tokens=CONTEXT, question_tokens=40,
        )  # fmt: skip
        if self.recipe_name.startswith("published"):
            return here
        if not self.anchor:
            return replace(here, anchor=0.0, self_written=0)
        return replace(here, anchor_rows=tuning.anchor_rows, self_written=tuning.self_written)


_METHODS = (
    Method(name="consolidate", recipe_name="consolidate"),
    Method(name="consolidate, no anchor", recipe_name="consolidate", anchor=False),
    Method(name="SFT on corrected answers", recipe_name="sft-answers"),
    Method(name="SFT on corrected answers, no anchor", recipe_name="sft-answers", anchor=False),
    Method(name="SFT on what the teacher wrote", recipe_name="sft-answers", teacher_answers=True),
    Method(name="preferences (DPO, KTO)", recipe_name="preferences"),
    Method(name="published: SFT on transcripts", recipe_name="published-sft"),
    Method(name="published: GRPO from thumbs", recipe_name="published-grpo"),
)
_SLUGS = (
    "consolidate", "consolidate-bare", "sft-answers", "sft-answers-bare", "sft-teacher", "preferences",
    "published-sft", "published-grpo",
)  # fmt: skip
METHODS: Mapping[str, Method] = MappingProxyType(dict(zip(_SLUGS, _METHODS, strict=True)))


def answered_by_teacher(desk: Desk, material: Material) -> Material:
    """The same material in which each lesson's correction is what the base model says with the notes in its context:
    the offline way to distil them. A correction that somebody gave stays."""
    asked = [one for one in material.lessons if one.context is not None]
    said = desk.base_says([one.context for one in asked if one.context is not None])
    text = {one.id: desk.tokens.text(ids) for one, ids in zip(asked, said, strict=True)}
    told = (
        one if one.correction is not None else replace(one, correction=text.get(one.id)) for one in material.lessons
    )
    return replace(material, lessons=tuple(told))
