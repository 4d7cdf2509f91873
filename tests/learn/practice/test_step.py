"""A step: one turn, one row; the gradient does not depend on how rows are cut, nor memory on how many there are."""

from dataclasses import replace

import pytest
import torch

from dayjob.endings import EpisodeEnding
from dayjob.learn.practice.buffer import Group
from dayjob.learn.practice.credit import credit_turns
from dayjob.learn.practice.recipe import PracticeRecipe
from dayjob.learn.practice.step import PracticeStep
from dayjob.learn.practice.student import Student
from dayjob.learn.practice.turns import packs, rows_of
from dayjob.objectives.language.corrections import Cispo
from dayjob.records import Trajectory, Turn

RECIPE = PracticeRecipe(anchor=0.0, self_written=0, context_tokens=64, row_tokens=64, slots=8)


def groups(turns: int, *, count: int = 2) -> list[Group]:
    """Of attempts whose prompts grow as episodes do; every second one is rewarded."""
    found = []
    for ticket in range(count):
        attempts = []
        for number in range(4):
            prompt, made = (1, 6 + ticket, 2), []
            for turn in range(turns):
                tokens = (4 + (number + turn) % 6, 3)
                made.append(Turn(prompt_ids=prompt, token_ids=tokens, logprobs=(-2.0, -2.5),
                                 versions=("update-1", "update-2"), text=""))  # fmt: skip
                prompt = (*prompt, *tokens, 1, 9, 2)
            attempts.append(
                Trajectory(spec={}, seed=ticket, group=str(ticket), turns=tuple(made), messages=(),
                           reward=float(number % 2), parts=(), ending=EpisodeEnding.DONE)
            )  # fmt: skip
        found.append(Group(ticket=ticket, attempts=tuple(attempts), oldest=1))
    return found


def gradient(student: Student, recipe: PracticeRecipe, given: list[Group]) -> torch.Tensor:
    step = PracticeStep(student, recipe)
    rows, _, _ = step.prepare(given, update=3)
    for one in student.weights.parameters():
        one.grad = None
    for loss, _ in step.losses(rows.rows, corrections=[Cispo()]):
        torch.autograd.backward(loss)
    return torch.cat([one.grad.flatten() for one in student.weights.parameters()])


@pytest.fixture(scope="module")
def student(tiny):
    return Student(tiny, RECIPE, seed=0)


@pytest.mark.parametrize("credit", ["outcome", "hindsight"])
def test_the_gradient_does_not_depend_on_how_the_rows_are_cut(student, credit):
    recipe = replace(RECIPE, credit=credit)
    given = groups(2)
    whole = gradient(student, replace(recipe, row_tokens=100_000), given)
    assert whole.abs().max() > 0
    for size in (1, 40):
        assert torch.allclose(gradient(student, replace(recipe, row_tokens=size), given), whole, atol=1e-6)
    reordered = [replace(one, attempts=one.attempts[::-1]) for one in given[::-1]]
    assert torch.allclose(gradient(student, recipe, reordered), whole, atol=1e-6)


def test_a_prompt_counts_the_same_however_long_its_episodes_are():
    """Two tasks, one of 2 turns and one of 10: each has half of the step's weight."""
    both = [groups(2, count=1)[0], replace(groups(10, count=2)[1])]
    found = rows_of(both, credit_turns(both, RECIPE), context_tokens=64)
    for number in (0, 1):
        weight = sum(one.weight * len(one.answer) for one in found.rows if one.group == number)
        assert weight == pytest.approx(0.5)


def test_rows_are_no_longer_than_the_context_and_microbatches_no_larger_than_agreed():
    """What bounds memory: neither grows with the number of turns."""
    largest = {}
    for turns in (5, 100):
        given = groups(turns)
        found = rows_of(given, credit_turns(given, RECIPE), context_tokens=RECIPE.context_tokens)
        assert len(found.rows) == 8 * turns
        cuts = list(packs(found.rows, row_tokens=RECIPE.row_tokens))
        assert sorted(place for pack in cuts for place in pack) == list(range(len(found.rows)))
        largest[turns] = max(len(pack) * max(len(found.rows[i]) for i in pack) for pack in cuts)
        assert (found.truncated > 0) == (turns == 100)
    assert max(largest.values()) <= RECIPE.row_tokens
    long = [one for one in found.rows if one.turn == 99]
    assert all(len(one) == 64 and one.prompt[-3:] == (1, 9, 2) for one in long)  # what was said last is kept


def test_turns_that_deserve_nothing_are_counted_and_not_computed():
    given = groups(2, count=1)
    credited = credit_turns(given, RECIPE)
    half = replace(credited, advantage=tuple((one[0], 0.0) for one in credited.advantage))
    found = rows_of(given, half, context_tokens=64)
    assert (len(found.rows), found.unmoved) == (4, 4)
    assert sum(one.weight * len(one.answer) for one in found.rows) == pytest.approx(0.5)


def test_staleness_is_measured_on_the_tokens_themselves(student):
    step = PracticeStep(student, replace(RECIPE, probe_rows=100))
    rows, stale, stats = step.prepare(groups(2), update=3)
    batch = student.rows([one.prompt for one in rows.rows], [one.answer for one in rows.rows])
    with torch.no_grad():
        gap = student.logprobs(batch) - torch.tensor([-2.0, -2.5])
    assert stale.kl == pytest.approx(float((gap.exp() - 1 - gap).mean()), rel=1e-4)
    assert (stale.lag, stale.most_lag, stale.tokens) == (1.5, 2, 32)
    assert stats["kl_behaviour"] == stale.kl
    assert PracticeStep(student, replace(RECIPE, probe_rows=4)).prepare(groups(2), update=3)[1].tokens == 8


def test_a_learned_value_tells_good_turns_of_lost_episodes(student):
    """The prompt's last word before the answer says how it will end: 8 is followed by failure, 9 by success."""
    recipe = replace(RECIPE, credit="value", gae=0.0)
    step = PracticeStep(student, recipe)

    def ending(word: int, reward: float) -> Trajectory:
        asks = [(1, 7, 2), (1, 7, 2, 5, 3, 1, word, 2)]
        made = [Turn(prompt_ids=one, token_ids=(5, 3), logprobs=(-1.0, -1.0), versions=("update-0",) * 2, text="")
                for one in asks]  # fmt: skip
        return Trajectory(spec={}, seed=0, group="", turns=tuple(made), messages=(), reward=reward, parts=(),
                          ending=EpisodeEnding.DONE)  # fmt: skip

    usual = Group(ticket=0, attempts=(ending(9, 1.0), ending(8, 0.0)) * 2, oldest=0)
    for _ in range(30):
        step.prepare([usual], update=0)
    unlucky = Group(ticket=0, attempts=(ending(9, 0.0), ending(8, 0.0)), oldest=0)
    rows, _, _ = step.prepare([unlucky], update=0)
    found = {(one.episode, one.turn): one.advantage for one in rows.rows}
    assert found[0, 0] > 0.2  # it led to where success is usual
    assert found[0, 1] < -0.5  # and was thrown away there
    assert found[1, 0] < -0.2
