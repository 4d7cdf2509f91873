"""Strings: operations by hand, what is forgiven and what is not, and settings that cannot make a task."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dayjob.endings import EpisodeEnding, Invalid
from dayjob.practice.environments.strings import OPERATIONS, Strings, _apply, _distance
from dayjob.practice.protocol import Action


def answer(environment, seed, text):
    return asyncio.run(environment.reset(seed).step(Action(text=text)))


@pytest.mark.parametrize(
    ("name", "left"),
    [("reverse", ("raep", "gif")), ("sort", ("fig", "pear")), ("replace", ("peor", "fig")), ("remove", ("per", "fig")),
     ("initials", ("pf",)), ("longest", ("pear",)), ("count", ("1",))],
)  # fmt: skip
def test_every_operation_by_hand(name, left):
    assert _apply(name, ("pear", "fig"), a="a", b="o") == left


def test_what_has_no_single_right_answer_is_not_asked():
    assert _apply("longest", ("fig", "nut"), a="a", b="o") is None
    assert _apply("remove", ("a", "fig"), a="a", b="o") is None


@pytest.mark.parametrize(("one", "other", "far"), [("", "ab", 2), ("kitten", "sitting", 3), ("abc", "abc", 0)])
def test_distances_by_hand(one, other, far):
    assert _distance(one, other) == _distance(other, one) == far


def test_a_row_of_operations_is_done_in_turn():
    environment = Strings(operations=["reverse", "sort", "initials"], words=3, steps=3)
    for seed in range(30):
        words, done = environment._draw(seed)
        before = words
        for one in done:
            before = _apply(one.name, before, a=one.letters[0], b=one.letters[1])
            assert before == one.words
        text = environment.reset(seed).task.messages[0]["content"]
        assert text.count("Then") == 2
        assert all(word in text for word in words)


def test_commas_capitals_and_quotes_do_not_matter_but_order_does():
    environment = Strings(operations=["sort"], words=3)
    right = environment.reference(0)[0].text.split(", ")
    for text in (" ".join(right), ",".join(right).upper(), f"Answer: '{', '.join(right)}'."):
        assert answer(environment, 0, text).reward.value == 1
    assert answer(environment, 0, ", ".join(reversed(right))).reward.value == 0
    assert answer(environment, 0, ", ".join(right[:2])).reward.value == 0


def test_slack_forgives_one_letter_and_not_two():
    environment = Strings(operations=["reverse"], slack=1)
    right = environment.reference(4)[0].text
    assert answer(environment, 4, right[:-1]).reward.value == 1
    assert answer(environment, 4, right[:-2]).reward.value == 0
    assert answer(Strings(operations=["reverse"]), 4, right[:-1]).reward.value == 0


def test_slack_does_not_forgive_a_wrong_count():
    environment = Strings(operations=["count"], slack=1)
    right = int(environment.reference(0)[0].text)
    assert answer(environment, 0, str(right)).reward.value == 1
    assert answer(environment, 0, str(right + 1)).reward.value == 0


def test_shown_letters_are_the_answers_and_never_all_of_it():
    for shown in (2, 40):
        environment = Strings(operations=["reverse"], shown=shown)
        for seed in range(20):
            text, right = environment.reset(seed).task.messages[0]["content"], environment.reference(seed)[0].text
            assert text.endswith(f'begins with "{right[: min(shown, len(right) - 1)]}".')


def test_no_count_is_a_good_guess():
    environment = Strings(operations=["count"])
    drawn = Counter(environment.reference(seed)[0].text for seed in range(600))
    assert set(drawn) == {"0", "1", "2"}
    assert max(drawn.values()) < 260


def test_an_answer_that_lists_everything_is_not_read():
    step = answer(Strings(), 0, " ".join(f"word{number}" for number in range(500)))
    assert step.ending is EpisodeEnding.UNREADABLE


@given(
    st.lists(st.sampled_from(OPERATIONS), min_size=1, unique=True), st.integers(1, 6), st.integers(3, 10),
    st.integers(1, 8), st.integers(0, 1), st.integers(0, 2**63 - 1),
)  # fmt: skip
@settings(max_examples=150)
def test_whatever_settings_are_taken_make_tasks(operations, words, letters, steps, slack, seed):
    try:
        environment = Strings(operations=operations, words=words, letters=letters, steps=steps, slack=slack)
    except Invalid:
        return
    assert answer(environment, seed, environment.reference(seed)[0].text).reward.value == 1


@pytest.mark.parametrize(
    ("refused", "param"),
    [({"operations": ["sort"]}, "words"), ({"operations": ["longest"], "words": 3, "letters": 4}, "letters"),
     ({"operations": ["count"], "steps": 2}, "steps"), ({"operations": ["remove"], "steps": 3}, "steps"),
     ({"letters": 3, "words": 40}, "words"), ({"operations": ["spell"]}, "operations"), ({"slack": 2}, "slack")],
)  # fmt: skip
def test_settings_that_make_no_task_are_refused_by_name(refused, param):
    with pytest.raises(Invalid) as seen:
        Strings(**refused)
    assert seen.value.param == param
