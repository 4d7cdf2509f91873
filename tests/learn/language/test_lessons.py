"""Which lessons stand, which are held out, and which a recipe can use."""

from dataclasses import replace

import pytest

from dayjob.endings import Invalid
from dayjob.learn.language.exercises import encode, turn, wants
from dayjob.learn.language.lessons import Lesson, Material, Rehearsal, hold_out, settle
from dayjob.learn.language.recipes import RECIPES, NightRecipe
from dayjob.policies.tokens import Tokens
from tests.policies.language.worlds import byte_tokenizer

TOKENS = Tokens(byte_tokenizer())


def asked(text: str, **more) -> Lesson:
    return Lesson(**({"id": text, "question": ({"role": "user", "content": text},)} | more))


NOTED = asked("q", context=({"role": "system", "content": "note"}, {"role": "user", "content": "q"}))
SERVED = {"answer_ids": (5, 6), "answer_logprobs": (-0.1, -0.2)}


@pytest.mark.parametrize(
    ("lesson", "takers"),
    [
        (asked("q"), set()),
        (NOTED, {"consolidate"}),
        (replace(NOTED, correction="a"), {"consolidate", "sft-answers", "published-sft"}),
        (replace(NOTED, thumb=-1, **SERVED), {"preferences", "published-sft", "published-grpo"}),
        (replace(NOTED, thumb=1, **SERVED), {"consolidate", "preferences", "published-sft", "published-grpo"}),
        (
            replace(NOTED, thumb=-1, correction="a", **SERVED),
            {"consolidate", "sft-answers", "preferences", "published-sft", "published-grpo"},
        ),
        (asked("q", verdict="reject", **SERVED), {"accept-reject", "published-sft"}),
        (asked("q", verdict="reject", answer_ids=(5,)), {"published-sft"}),
    ],
)
def test_who_takes_which_lesson(lesson, takers):
    assert {method for method in RECIPES if wants(method, lesson) is None} == takers


def test_a_newer_word_on_the_same_question_wins_and_an_older_one_is_named():
    old, new = asked("q", id="1", correction="x"), asked("q", id="3", correction="y")
    other = asked("p", id="2", correction="x")
    standing, out = settle([old, other, new])
    assert standing == [other, new]
    assert out == {"1": "lesson 3 says otherwise, and is newer"}
    assert settle([old, replace(old, id="2")]) == ([old, replace(old, id="2")], {}), (
        "the same said twice contradicts nobody"
    )


def test_of_what_was_asked_in_several_ways_some_are_held_out_and_one_always_stays():
    lessons = tuple(
        asked(f"{family}-{way}", family=str(family)) for family in range(40) for way in range(1 + 3 * (family % 2))
    )
    rehearsals = tuple(Rehearsal(question=({"role": "user", "content": str(i)},)) for i in range(200))
    split = hold_out(Material(lessons=lessons, rehearsals=rehearsals), share=0.3)
    assert {one.family for one in split.lessons} == {one.family for one in lessons}
    assert {one.family for one in split.stop_lessons} <= {str(family) for family in range(1, 40, 2)}
    assert 10 <= len(split.stop_lessons) <= 30
    assert 40 <= len(split.stop_rehearsals) <= 80
    assert sorted((*split.lessons, *split.stop_lessons), key=str) == sorted(lessons, key=str)
    again = hold_out(Material(lessons=lessons[::-1], rehearsals=rehearsals[::-1]), share=0.3)
    assert set(map(str, again.stop_lessons)) == set(map(str, split.stop_lessons)), "by what is asked, not by order"
    assert not hold_out(Material(lessons=lessons, rehearsals=rehearsals), share=0).stop_lessons


def test_a_target_is_the_correction_and_the_end_of_a_turn():
    end = byte_tokenizer().convert_tokens_to_ids("<|end|>")
    assert turn(TOKENS, NOTED.question, answer="yes") == (*TOKENS.encode("yes"), end)


def test_lessons_that_cannot_be_encoded_are_left_out_alone():
    good = asked("fine", correction="a")
    bad = asked("bad", correction="<|end|>")
    long = asked("x" * 60, id="long", correction="a")
    exercises, out = encode([bad, good, long], TOKENS, method="sft-answers", room=80, answer_tokens=8)
    assert [one.lesson for one in exercises] == [good]
    assert "control token" in out["bad"]
    assert "raise context_tokens" in out["long"]


@pytest.mark.parametrize("method", ["consolidate", "sft-answers", "preferences"])
def test_an_answer_that_nights_cannot_write_is_left_out_and_the_limit_and_the_remedy_are_said(method):
    context = ({"role": "system", "content": "note"}, *asked("q").question)
    fits, long = (
        replace(asked(name, correction="x" * count, answer_ids=(1, 2)), context=context)
        for name, count in (("f", 7), ("l", 8))
    )
    exercises, out = encode([fits, long], TOKENS, method=method, room=80, answer_tokens=8)
    assert [one.lesson for one in exercises] == [fits], "seven and the end of a turn"
    assert "8 tokens, and nights write fewer than 8" in out[long.id]
    assert f"raise answer_tokens in [recipes.{method}] of dayjob.toml" in out[long.id]
    assert not encode([long], TOKENS, method=method, room=80, answer_tokens=9)[1]
    assert not encode([long], TOKENS, method="published-sft", room=80, answer_tokens=8)[1], "a transcript"


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (lambda: asked("q", thumb=2), r"\+1, -1 or 0"),
        (lambda: asked("q", answer_ids=(1, 2), answer_logprobs=(0.0,)), "one a token"),
        (lambda: Lesson(id="a", question=()), "give the messages"),
        (lambda: asked("q", context=()), "give None"),
        (lambda: NightRecipe(method="consolidate", learning_rates=()), "at least one"),
        (lambda: NightRecipe(method="consolidate", steps=0), "at least 1"),
        (lambda: NightRecipe(method="consolidate", conflict=-1.0), "0 or more"),
        (lambda: NightRecipe(method="consolidate", kl_budget=0.0), "kl_budget is 0.0: a number above 0"),
        (lambda: NightRecipe(method="consolidate", context_tokens=64), "less than context_tokens"),
        (lambda: NightRecipe(method="consolidate", anchor_rows=0), "an anchor of 0"),
        (lambda: hold_out(Material(lessons=()), share=1.0), "from 0 to below 1"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_remedy(make, remedy):
    with pytest.raises(Invalid, match=remedy):
        make()
