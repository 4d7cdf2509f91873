"""Which parts a recipe's step has."""

from __future__ import annotations

from collections.abc import Sequence

from dayjob.learn.language.anchors import Anchors, Conflict
from dayjob.learn.language.exercises import Exercise
from dayjob.learn.language.parts import Anchor, Distillation, Likelihood, Part
from dayjob.learn.language.parts_feedback import (
    Pairs,
    PolicyGradient,
    Thumbs,
    attempts_of_suggestions,
    attempts_of_thumbs,
)
from dayjob.learn.language.recipes import NightRecipe
from dayjob.learn.language.study import Ids, Study


def parts_of(
    study: Study, exercises: Sequence[Exercise], *, anchors: Anchors, recipe: NightRecipe, seed: int
) -> list[Part]:
    """The parts that have anything to learn from, the anchor last. The shares of parts with lessons are as their
    numbers, and 1 together."""
    found: list[Part] = []
    match recipe.method:
        case "consolidate":
            found = _distillation(exercises, anchors.conflicts, recipe, seed)
        case "sft-answers":
            deck = [(asked, one.target) for one in exercises if one.target for asked in one.asked]
            found = [Likelihood("answers", deck, recipe=recipe, seed=seed)] if deck else []
        case "published-sft":
            told = [(one.taught or one.prompt, one.target or one.lesson.answer_ids) for one in exercises]
            found = [Likelihood("transcripts", told, recipe=recipe, seed=seed)] if told else []
        case "published-grpo":
            attempts = attempts_of_thumbs(exercises)
            found = [PolicyGradient("thumbs", attempts, recipe=recipe, seed=seed)] if attempts else []
        case "accept-reject":
            attempts = attempts_of_suggestions(
                exercises, end_ids=study.tokens.end_ids, threshold=recipe.accept_threshold
            )
            found = [PolicyGradient("suggestions", attempts, recipe=recipe, seed=seed)] if attempts else []
        case "preferences":
            found = _preferences(exercises, recipe, seed)
    return [*found, Anchor(anchors.rows, recipe=recipe, seed=seed + 1)] if anchors.rows else found


def _distillation(
    exercises: Sequence[Exercise], conflicts: Sequence[Conflict], recipe: NightRecipe, seed: int
) -> list[Part]:
    """Corrected lessons are refined, others distilled; what the model asks about them in its own words comes on top.

    Each is learned from its bare question and behind notes that do not teach it: such notes will stand in the context
    when it is asked, and a model that only knows the bare question answers from them, or not at all."""
    decks: dict[str, list[tuple[Ids, Ids]]] = {"refined": [], "distilled": [], "own words": []}
    for one in exercises:
        if one.taught is not None:
            corrected = one.target is not None or one.lesson.told
            deck = decks["refined" if recipe.refine and corrected else "distilled"]
            deck += [(asked, one.taught) for asked in one.asked]
    cards = sum(map(len, decks.values()))
    shares = {name: len(deck) / cards for name, deck in decks.items() if deck}
    sure = [(one.row.prompt, one.taught) for one in conflicts if one.nats >= recipe.own_words_from]
    if shares and recipe.own_words and sure:
        decks["own words"] = sure
        shares["own words"] = recipe.own_words
    return [
        Distillation(
            name, decks[name], recipe=recipe, refine=recipe.refine and name != "distilled", seed=seed, share=share
        )
        for name, share in shares.items()
    ]


def _preferences(exercises: Sequence[Exercise], recipe: NightRecipe, seed: int) -> list[Part]:
    pairs = [one for one in exercises if one.target is not None and one.target != one.lesson.answer_ids]
    thumbs = [one for one in exercises if one.target is None]
    count = len(pairs) + len(thumbs)
    found: list[Part] = []
    if pairs:
        found.append(Pairs(pairs, recipe=recipe, seed=seed, share=len(pairs) / count))
    if thumbs:
        found.append(Thumbs(thumbs, recipe=recipe, seed=seed, share=len(thumbs) / count))
    return found
