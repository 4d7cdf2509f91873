"""Arithmetic: results worked by hand, how answers are read, and settings that make no sense."""

import asyncio
import re

import pytest

from dayjob.endings import EpisodeEnding, Invalid
from dayjob.practice.environments.arithmetic import Arithmetic, _evaluate, _fold
from dayjob.practice.protocol import Action


def answer(environment, seed, text):
    return asyncio.run(environment.reset(seed).step(Action(text=text)))


def test_precedence_and_stories_by_hand():
    steps = [("+", 3), ("*", 4), ("-", 5), ("*", 2), ("*", 10)]
    assert _evaluate(2, steps) == 2 + 3 * 4 - 5 * 2 * 10 == -86
    assert _fold(2, steps) == (((2 + 3) * 4 - 5) * 2) * 10 == 300


@pytest.mark.parametrize("seed", range(40))
def test_an_expression_means_what_it_says(seed):
    environment = Arithmetic(terms=6, digits=3, operations=["+", "-", "*"])
    text = environment.reset(seed).task.messages[0]["content"]
    said = re.fullmatch(r"What is ([\d +*-]+)\?", text)
    assert environment.reference(seed)[0].text == str(eval(said[1]))  # the text is digits and signs alone


@pytest.mark.parametrize("seed", range(40))
def test_composed_calculations_and_their_shown_results_mean_what_they_say(seed):
    environment = Arithmetic(terms=3, parts=3, operations=["+", "-", "*"], shown=2)
    text = environment.reset(seed).task.messages[0]["content"]
    known = {}
    for letter, said in re.findall(r"\b([a-h]) is ([\da-h +*-]+)\.", text):
        known[letter] = eval(said, {}, known)
    assert environment.reference(seed)[0].text == str(known["c"])
    shown = re.search(r"results are (-?\d+), (-?\d+)\.", text)
    assert int(shown[2]) == known["a"]


def test_a_story_never_gives_away_what_nobody_has():
    environment = Arithmetic(story=True, terms=8, digits=2, operations=["+", "-"])
    for seed in range(60):
        numbers = environment._results(environment._draw(seed)[0])
        assert min(numbers) >= 0
    text = Arithmetic(story=True).reset(3).task.messages[0]["content"]
    assert re.fullmatch(
        r"\w+ has \d+ \w+\. \w+ [\w ]+\. How many \w+ does \w+ have now\? Write the number alone\.", text
    )


@pytest.mark.parametrize("form", ["{}", " {}.", "Answer: {}", "so 1 + 1 = {}", "<answer>{}</answer> 3", "**{}**",
                                  "<think>5</think>{}", "I think.\nThe answer is: {}.", "{}\n"])  # fmt: skip
def test_an_answer_is_found_where_it_stands(form):
    right = Arithmetic().reference(1)[0].text
    step = answer(Arithmetic(), 1, form.format(right))
    assert (step.reward.value, step.reward.parts) == (1.0, {"answer": 1.0, "form": 1.0})


@pytest.mark.parametrize("text", ["", "seven", "{right} or 3", "1 2 {right}", "<think>{right}"])
def test_what_is_no_single_number_is_not_read(text):
    step = answer(Arithmetic(), 1, text.format(right=Arithmetic().reference(1)[0].text))
    assert (step.reward.value, step.ending) == (0.0, EpisodeEnding.UNREADABLE)
    assert step.reward.parts["form"] == 0


def test_a_number_with_separators_and_a_wrong_one():
    environment = Arithmetic(digits=6)
    seed = next(seed for seed in range(99) if int(environment.reference(seed)[0].text) > 10_000)
    right = int(environment.reference(seed)[0].text)
    assert answer(environment, seed, f"{right:,}").reward.value == 1
    wrong = answer(environment, seed, str(right + 1))
    assert (wrong.reward.value, wrong.ending, wrong.reward.parts["form"]) == (0.0, EpisodeEnding.DONE, 1.0)


def test_slack_is_a_share_of_the_right_answer():
    environment = Arithmetic(slack_percent=10, operations=["+"], digits=3)
    right = int(environment.reference(0)[0].text)
    assert "within 10 %" in environment.reset(0).task.messages[0]["content"]
    near, far = right + right // 10, right + right // 10 + 1
    assert answer(environment, 0, str(near)).reward.value == 1
    assert answer(environment, 0, str(far)).reward.value == 0


@pytest.mark.parametrize(
    "settings",
    [{"terms": 1}, {"terms": True}, {"digits": 0}, {"digits": "2"}, {"operations": []}, {"operations": ["/"]},
     {"operations": "+"}, {"operations": ["+", "+"]}, {"story": 1}, {"parts": 9}, {"shown": -1}, {"slack_percent": 51},
     {"operations": ["-"], "story": True}],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused_by_name(settings):
    with pytest.raises(Invalid, match=f"^{next(iter(settings))} .*must") as seen:
        Arithmetic(**settings)
    assert seen.value.param == next(iter(settings))


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, True, "1"])
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises(Invalid, match="2\\*\\*63"):
        Arithmetic().reset(seed)
