"""Recipes that learn from judgements move what was judged, the way it was judged, and nothing without a judgement."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dayjob.learn.language.exercises import Exercise
from dayjob.learn.language.lessons import Lesson, Material
from dayjob.learn.language.night import learn_night
from dayjob.learn.language.parts import deal
from dayjob.learn.language.parts_feedback import Attempt, attempts_of_suggestions, attempts_of_thumbs
from dayjob.learn.language.recipes import RECIPES
from dayjob.learn.language.study import Study
from tests.learn.language.world import user

SMALL = {
    "answer_tokens": 6, "context_tokens": 64, "anchor": 0.0, "self_written": 0, "stop_every": 0, "steps": 12,
    "learning_rates": (1e-3,),
}  # fmt: skip
END = 3


@pytest.fixture
def desk(office):
    """Ways to serve and to judge: what an answer's log-probability is, before or after a night."""
    return Desk(*office)


class Desk:
    def __init__(self, office, folder):
        self.office, self.folder = office, folder
        self.vocabulary = office.tokenizer().get_vocab()

    def ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.vocabulary[word] for word in (*text.split(), "<end>"))

    def served(self, key: int, text: str, **more) -> Lesson:
        """An answer that was served, with its log-probabilities as the base model has them."""
        question = (user(f"ask k{key}"),)
        logprobs = tuple(self.logprobs(key, text).tolist())
        return Lesson(
            id=f"k{key} {text}", question=question, answer_ids=self.ids(text), answer_logprobs=logprobs, **more
        )

    def logprobs(self, key: int, text: str, night=None) -> torch.Tensor:
        study = Study(self.folder, RECIPES["consolidate"], seed=0)
        if night is not None:
            study.lora.restore(night.state)
        rows = study.rows([study.tokens.render((user(f"ask k{key}"),))], [self.ids(text)])
        with torch.no_grad():
            return study.logprobs(rows)[0]

    def night(self, method: str, lessons, **more):
        return learn_night(
            self.folder, Material(lessons=tuple(lessons)), recipe=replace(RECIPES[method], **(SMALL | more)), seed=0
        )

    def gain(self, night, key: int, text: str) -> float:
        """How much more probable an answer became, nats."""
        return float((self.logprobs(key, text, night) - self.logprobs(key, text)).sum())


def test_suggestions_that_were_accepted_become_likelier_and_rejected_ones_rarer(desk):
    lessons = [
        desk.served(0, "v1 v2", verdict="accept"),
        desk.served(1, "v3 v4", verdict="reject"),
        desk.served(2, "", verdict="none"),
    ]
    night = desk.night("accept-reject", lessons)
    assert desk.gain(night, 0, "v1 v2") > 0.3
    assert desk.gain(night, 1, "v3 v4") < -0.1


def test_a_correction_is_preferred_to_what_was_served(desk):
    right, wrong = desk.office.rule(0), desk.office.fact(0)
    lesson = desk.served(0, wrong, correction=right, thumb=-1)
    night = desk.night("preferences", [lesson])
    assert desk.gain(night, 0, right) - desk.gain(night, 0, wrong) > 1
    same = desk.served(0, right, correction=right)
    assert not desk.night("preferences", [same]).state, "what was served already is no pair"


def test_lone_thumbs_move_what_they_are_about(desk):
    lessons = [desk.served(0, "v1 v2", thumb=1), desk.served(1, desk.office.fact(1), thumb=-1)]
    night = desk.night("preferences", lessons)
    assert desk.gain(night, 0, "v1 v2") > 0.1
    assert desk.gain(night, 1, desk.office.fact(1)) < 0


def test_thumbs_as_rewards_need_answers_that_differ_in_them(desk):
    good, bad = desk.served(0, "v1 v2", thumb=1), desk.served(0, desk.office.fact(0), thumb=-1)
    night = desk.night("published-grpo", [good, bad])
    assert desk.gain(night, 0, "v1 v2") - desk.gain(night, 0, desk.office.fact(0)) > 0.3
    assert not desk.night("published-grpo", [bad]).state, "never a reward to start from"


def test_credit_reaches_the_attempts():
    def exercise(prompt, answer, **more):
        lesson = Lesson(
            id=str(answer), question=(user("q"),), answer_ids=answer, answer_logprobs=(-1.0,) * len(answer), **more
        )
        return Exercise(lesson=lesson, prompt=prompt, beside=None, taught=None, target=None)

    thumbs = attempts_of_thumbs(
        [exercise((1,), (7, END), thumb=1), exercise((1,), (8, END), thumb=-1), exercise((2,), (9, END), thumb=-1)]
    )
    assert [one.answer for one in thumbs] == [(7, END), (8, END)], "a group of one is dropped"
    assert [one.advantage for one in thumbs] == pytest.approx([2**-0.5, -(2**-0.5)], abs=1e-4)
    suggestions = attempts_of_suggestions(
        [
            exercise((1,), (7, END), verdict="accept"),
            exercise((1,), (END,), verdict="none"),
            exercise((1,), (8, END), verdict="reject"),
            exercise((1,), (9, END), verdict="none"),
        ],
        end_ids=frozenset({END}),
        threshold=0.25,
    )
    # .75, 0 and -.25, each against -.125; who ignores a suggestion does not accept it.
    assert [one.advantage for one in suggestions] == pytest.approx([0.875, 0.125, -0.125, -0.125])
    assert [one.temperature for one in suggestions] == [1.0] * 4


def test_a_deck_is_gone_through_before_anything_comes_twice():
    drawn = [card for step in range(5) for card in deal("abcdefg", 3, step=step, seed=1)]
    assert sorted(drawn[:7]) == sorted(drawn[7:14]) == list("abcdefg")
    assert drawn[:7] != drawn[7:14]
    assert deal("abcdefg", 3, step=4, seed=1) == drawn[12:15], "a step's cards depend on no other step"
    assert deal("ab", 5, step=0, seed=1) == [*dict.fromkeys(deal("ab", 5, step=0, seed=1))]
    assert deal("", 5, step=0, seed=1) == []


def test_attempts_of_several_temperatures_are_scored_each_at_its_own(desk):
    """The loss of a mixed step is that of its parts: ratios of 1 on what was drawn at its temperature."""
    from dayjob.learn.language.parts_feedback import PolicyGradient

    recipe = replace(RECIPES["published-grpo"], **SMALL)
    study = Study(desk.folder, recipe, seed=0)
    prompt, answer = study.tokens.render((user("ask k0"),)), desk.ids("v1 v2")
    rows = study.rows([prompt], [answer])
    deck = []
    for temperature in (0.5, 2.0):
        with torch.no_grad():
            behaviour = study.logprobs(rows, temperature=temperature)[0].tolist()
        deck += [
            Attempt(prompt=prompt, answer=answer, behaviour=tuple(behaviour), temperature=temperature,
                    advantage=1.0, group=0)
        ]  # fmt: skip
    ratios = [float(stats["ratio"]) for _, stats in PolicyGradient("x", deck, recipe=recipe, seed=0).losses(study, 0)]
    assert len(ratios) == 2
    assert np.sum(ratios) == pytest.approx(1, abs=1e-4)
