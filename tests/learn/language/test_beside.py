"""A lesson is learned, and held to be known, behind the notes that stay when its own is gone."""

from dataclasses import replace
from itertools import pairwise

import pytest

from dayjob.endings import OutcomeKind
from dayjob.learn.language.anchors import Anchors, Kept, make_anchors, sort_out
from dayjob.learn.language.exercises import encode
from dayjob.learn.language.lessons import Lesson, Material
from dayjob.learn.language.marking import Answered, note_holds
from dayjob.learn.language.mixture import parts_of
from dayjob.learn.language.night import StopSplit
from dayjob.learn.language.recipes import RECIPES
from dayjob.learn.language.report import LessonReport, answers_of
from dayjob.learn.language.splits import Asking
from dayjob.learn.language.study import Study
from dayjob.memory.lessons import last_question
from dayjob.memory.render import HEAD
from tests.learn.language.desk import Desk, content
from tests.learn.language.test_collect import OPEN, OPENING
from tests.learn.language.world import disliked, notes, user

RECIPE = replace(RECIPES["consolidate"], answer_tokens=6, context_tokens=64, self_written=0, lessons=64)
NOTHING = Anchors(rows=(), conflicts=(), unfit=0)
WEEK = Material(lessons=())


def lesson_of(here, key: int, *, others: dict[int, str]) -> Lesson:
    """A fact that was corrected, while ``others`` stand in notes, too."""
    one = disliked(here, key, wording=0, note=here.rule(key), correction=None)
    asked = one.question[0]
    return replace(
        one, told=True, context=(notes({key: here.rule(key), **others}), asked), beside=(notes(others), asked)
    )


def test_what_stays_is_what_the_server_would_place_without_the_note(desk: Desk):
    rule = desk.tell(
        None, OutcomeKind.CORRECTION, text="Answer in one line.", session=desk.chat("Hi", session="s").session
    )
    desk.correct(OPEN, "At 9:15.", system="Be kind.")
    desk.chat(OPENING, system="Be kind.")
    found = desk.askings()
    for asked in (OPEN, OPENING):
        system, question = content(found[asked].lesson.beside)
        assert (system, question) == (f'Be kind.\n\n{HEAD}\n- "Answer in one line."', asked)
        assert "At 9:15." in content(found[asked].lesson.context)[0]
    only = [one.lesson for one in found.values() if one.teacher == rule]
    assert all("Answer in one line." not in str(one.beside) for one in only)


def test_without_other_notes_there_is_nothing_beside(desk: Desk):
    desk.correct(OPEN, "At 9:15.")
    assert desk.askings()[OPEN].lesson.beside is None


@pytest.mark.parametrize("method", ["consolidate", "sft-answers"])
def test_each_lesson_is_learned_from_both_prompts(office, method):
    here, folder = office
    study = Study(folder, RECIPE, seed=0)
    keys = here.keys("taught")
    lessons = [lesson_of(here, keys[0], others={keys[1]: "v1 v2"})]
    lessons.append(disliked(here, keys[2], wording=0, note=here.rule(keys[2]), correction=None))
    lessons = [replace(one, correction="v3 v4") if method == "sft-answers" else one for one in lessons]
    recipe = replace(RECIPE, method=method)
    exercises, out = encode(lessons, study.tokens, method=method, room=64, answer_tokens=6)
    assert (len(exercises), [len(one.asked) for one in exercises]) == ((2, [2, 1]) if not out else (1, [2]))
    parts = parts_of(study, exercises, anchors=NOTHING, recipe=recipe, seed=0)
    cards = [prompt for part in parts for prompt, _ in part._deck]
    assert sorted(cards) == sorted(prompt for one in exercises for prompt in one.asked)
    assert sum(part.share for part in parts) == pytest.approx(1)
    split, _ = StopSplit.of(
        study, replace(WEEK, lessons=tuple(lessons)), exercises=exercises, anchors=NOTHING, recipe=recipe, seed=0
    )
    assert {prompt for prompt, _ in split._asked} == set(cards), "early stopping reads both"


def test_what_is_known_bare_and_lost_behind_other_notes_is_not_learned(office):
    here, folder = office
    report = LessonReport(id="a", session="", family="a", before="x", after="right", wanted="right")
    assert report.learned
    assert replace(report, behind="right").learned
    assert not replace(report, behind="x").learned
    study = Study(folder, RECIPE, seed=0)
    lesson = lesson_of(here, 1, others={1: "v1 v2", 4: "v0 v0"})
    exercises, _ = encode([lesson], study.tokens, method="consolidate", room=64, answer_tokens=6)
    (answers,) = answers_of(study, exercises, recipe=RECIPE)
    assert answers.said == here.fact(1)
    assert answers.behind == "v1 v2", "read behind the notes, which it follows"


def test_a_note_is_needed_where_the_others_get_in_the_way():
    lesson = Lesson(id="a", question=(user("a?"),), context=(user("note"), user("a?")), told=True, family="a")
    asking = Asking(lesson=lesson, teacher="a", decision=None, notes=("a",))
    bare = Answered(asking=asking, wanted="yes", before="no", after="yes")
    assert note_holds([bare], [bare]) == {"a": True}
    for behind, holds in (("yes", True), ("no", False)):
        one = replace(bare, behind=behind)
        assert note_holds([one], [one]) == {"a": holds}


def test_an_answer_from_before_the_correction_behind_other_notes_is_no_anchor(office):
    """It was served as the model knew it, with notes in its context that speak of something else."""
    here, folder = office
    study = Study(folder, RECIPE, seed=0)
    keys = here.keys("taught")
    lessons = [disliked(here, key, wording=0, note=here.rule(key), correction=here.rule(key)) for key in keys]
    exercises, _ = encode(lessons, study.tokens, method="consolidate", room=64, answer_tokens=6)
    vocabulary = here.tokenizer().get_vocab()
    rows = []
    for key, other in zip(keys, [keys[-1], *keys[:-1]], strict=True):
        question = (notes({other: here.rule(other)}), user(f"what is k{key}"))
        answer = tuple(vocabulary[word] for word in (*here.fact(key).split(), "<end>"))
        rows.append(Kept(question=question, prompt=study.tokens.render(question), answer=answer, self_written=False))
    stay, conflicts = sort_out(study, rows, exercises=exercises, recipe=RECIPE)
    assert len(conflicts) >= len(rows) - 1
    assert len(stay) + len(conflicts) == len(rows)


def test_the_models_own_questions_are_rehearsed_behind_made_up_notes(office):
    """Three in four have a note on the very question, with another one's answer, as the server would place it."""
    study = Study(office[1], replace(RECIPE, context_tokens=128), seed=0)
    made = {
        noted: make_anchors(
            study, (), exercises=[], recipe=replace(RECIPE, self_written=120, question_tokens=8, noted=noted), seed=0
        ).rows
        for noted in (0, 2)
    }
    own, behind = ([row for row in made[2] if (len(row.question) == 2) == noted] for noted in (False, True))
    assert own == list(made[0])
    assert len(own) // 2 - 2 <= len(behind) <= len(own) // 2 + 1
    asked = {last_question(row.question) for row in own}
    about = 0
    for row in behind:
        assert row.self_written
        assert row.question[0]["content"].startswith(HEAD)
        assert last_question(row.question) in asked
        about += f'- "{last_question(row.question)}" -> ' in row.question[0]["content"]
    assert 0.5 * len(behind) < about < len(behind)
    places = [place for place, row in enumerate(made[2]) if len(row.question) == 2]
    assert max(b - a for a, b in pairwise(places)) <= 6, "early stopping's share has some of them"
