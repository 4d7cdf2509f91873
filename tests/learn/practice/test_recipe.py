"""Settings in words: what makes no sense is refused, with what to give instead."""

import pytest

from dayjob.endings import Invalid
from dayjob.learn.practice.recipe import PracticeRecipe, settings_of


@pytest.mark.parametrize(
    "word",
    ["solved=nan", "solved=-1", "process=nan", "process=inf", "process=-1", "hindsight=-2", "hindsight=1000",
     "max_gradient=-1", "max_gradient=0", "learning_rate=nan", "learning_rate=inf", "temperature=nan",
     "temperature=inf", "temperature=0", "kl_budget=-1", "kl_budget=nan", "kl_budget=0", "anchor=-5", "anchor=nan",
     "gae=nan", "gae=1.5", "teacher=-1", "teacher=nan", "teacher_rows=0", "steps=99999999999999999999999", "steps=0",
     "attempts=-1", "context_tokens=1", "rank=0", "rank=-4", "rank=100000", "lag=-1"],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_with_the_remedy(word):
    name, _, value = word.partition("=")
    with pytest.raises(Invalid, match=rf"^{name} is {float(value):g}|^{name} is {value}") as refused:
        PracticeRecipe(**settings_of([word], PracticeRecipe)[0])
    assert "give " in str(refused.value)
    assert refused.value.param == name


def test_values_at_their_bounds_are_taken():
    edges = ["solved=0", "process=0", "hindsight=0", "anchor=0", "gae=1", "gae=0", "teacher=0", "lag=0", "rank=1",
             "context_tokens=2", "look_every=0", "warm_steps=0", "steps=16777216"]  # fmt: skip
    for word in edges:
        PracticeRecipe(**settings_of([word], PracticeRecipe)[0]).night()
