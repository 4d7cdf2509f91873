"""What early stopping reads, above all where next to nothing is held out."""

from dataclasses import replace

from dayjob.learn.language import night
from dayjob.learn.language.anchors import Anchors, make_anchors
from dayjob.learn.language.exercises import encode
from dayjob.learn.language.lessons import Material
from dayjob.learn.language.night import ENOUGH_ASKED, ENOUGH_KEPT, StopSplit
from dayjob.learn.language.recipes import RECIPES
from dayjob.learn.language.study import Study
from tests.learn.language.world import lessons_of, week_of

RECIPE = replace(
    RECIPES["consolidate"], answer_tokens=6, question_tokens=8, context_tokens=64, self_written=96, noted=0
)


def opened(office, material: Material, **settings) -> tuple[StopSplit | None, Anchors, Anchors]:
    """The stop split, and the anchor before and after it."""
    recipe = replace(RECIPE, **settings)
    study = Study(office[1], recipe, seed=0)
    exercises, _ = encode(material.lessons, study.tokens, method=recipe.method, room=64, answer_tokens=6)
    before = make_anchors(study, material.rehearsals, exercises=exercises, recipe=recipe, seed=0)
    found, after = StopSplit.of(study, material, exercises=exercises, anchors=before, recipe=recipe, seed=0)
    return found, before, after


def test_of_a_small_day_what_is_learned_is_read_too_and_prompts_of_the_models_own_are_kept_apart(office):
    lessons = tuple(lessons_of(office[0], (0, 1)))
    held = tuple(one for one in lessons_of(office[0], (2,)))[:1]
    found, before, after = opened(office, Material(lessons=lessons, stop_lessons=held))
    assert len(found._asked) == ENOUGH_ASKED >= len(lessons)
    assert found._asked[0][0] not in {prompt for prompt, _ in found._asked[1:]}, "what is held out comes first"
    own = [row for row in before.rows if row.self_written]
    assert len(found._kept) == min(ENOUGH_KEPT, len(own) // 4) > 4
    assert [*after.rows, *found._kept] == list(before.rows), "each row is learned from or looked at"


def test_where_enough_is_held_out_nothing_that_is_learned_is_read(office):
    week = week_of(office[0], 0).material
    found, before, after = opened(office, week)
    asked = {prompt for prompt, _ in found._asked}
    study = Study(office[1], RECIPE, seed=0)
    learned = {study.tokens.render(one.question) for one in week.lessons}
    held = {study.tokens.render(one.question) for one in week.stop_lessons}
    assert len(held) < ENOUGH_ASKED, "a week of eight things: some of what is learned must be read, too"
    assert held < asked <= held | learned
    night_of_many = replace(week, stop_lessons=week.stop_lessons * 2)
    found, before, after = opened(office, night_of_many)
    assert {prompt for prompt, _ in found._asked} == held
    assert len(week.stop_rehearsals) > ENOUGH_KEPT
    assert after == before


def test_a_recipe_that_does_not_look_has_none_and_keeps_its_anchor(office):
    found, before, after = opened(office, Material(lessons=tuple(lessons_of(office[0], (0,)))), stop_every=0)
    assert found is None
    assert after is before


def test_a_night_of_one_correction_is_stopped_by_it(office):
    """Nothing is held out: it ends when nothing gets better, not after all its steps."""
    (only,) = lessons_of(office[0], (0,))[:1]
    recipe = replace(RECIPE, steps=60, lessons=8, anchor_rows=16, stop_every=4, patience=2)
    made = night.learn_night(office[1], Material(lessons=(only,)), recipe=recipe, seed=0)
    assert made.state
    assert made.lessons[0].learned
    assert made.looks[-1].step < recipe.steps
    assert min(made.looks, key=lambda look: look.score).step == made.stats["steps"] > 0
