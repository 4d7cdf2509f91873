"""Credit for turns, by hand."""

import numpy as np
import pytest
import torch

from dayjob.endings import EpisodeEnding, Invalid
from dayjob.learn.practice.buffer import Group
from dayjob.learn.practice.credit import against_siblings, bits, credit_turns, gae, to_come
from dayjob.learn.practice.hindsight import LOST, SOLVED, outcome_prefixes, token_weights
from dayjob.learn.practice.recipe import PracticeRecipe
from dayjob.learn.practice.value import LinearValue, turn_features
from dayjob.policies.tokens import Tokens
from dayjob.records import Trajectory, Turn
from tests.learn.practice.bandit import tokenizer


def episode(reward: float, *earned: float) -> Trajectory:
    turns = tuple(
        Turn(prompt_ids=(1,), token_ids=(2,), logprobs=(-1.0,), versions=("update-0",), text="x", reward=one)
        for one in earned
    )
    return Trajectory(
        spec={}, seed=0, group="g", turns=turns, messages=(), reward=reward, parts=(), ending=EpisodeEnding.DONE
    )  # fmt: skip


def group(*attempts: Trajectory, ticket: int = 0) -> Group:
    return Group(ticket=ticket, attempts=attempts, oldest=0)


def test_the_outcome_counts_for_every_turn():
    # Rewards 1, 0, 0, 0: mean .25. Dr. GRPO: .75 and -.25; RLOO: 1 and -1/3; MaxRL: 3 and -1.
    won, lost = episode(1.0, 0, 0), episode(0.0, 0)
    for baseline, first, others in (("dr_grpo", 0.75, -0.25), ("rloo", 1.0, -1 / 3), ("maxrl", 3.0, -1.0)):
        found = credit_turns([group(won, lost, lost, lost)], PracticeRecipe(baseline=baseline))
        assert found.advantage[0] == pytest.approx((first, first))
        assert found.advantage[1] == pytest.approx((others,))
        assert found.keep == (True,) * 4
    assert found.stats["pass"] == 0.25
    assert found.stats["bits"] == pytest.approx(0.811278)


def test_a_group_that_nothing_sets_apart_is_left_out_unless_solved_ones_are_wanted():
    solved, failed, mixed = (
        group(episode(a, 0), episode(b, 0), ticket=i) for i, (a, b) in enumerate([(1.0, 1.0), (0.0, 0.0), (1.0, 0.0)])
    )
    found = credit_turns([solved, failed, mixed], PracticeRecipe())
    assert found.keep == (False, False, False, False, True, True)
    assert (found.stats["groups_solved"], found.stats["groups_failed"], found.stats["groups_kept"]) == (1, 1, 1)
    found = credit_turns([solved, failed, mixed], PracticeRecipe(solved=0.1))
    assert found.keep == (True, True, False, False, True, True)
    assert found.advantage[:2] == ((0.1,), (0.1,))
    # Equal rewards whose mean is not one of them in floating point.
    third = group(episode(0.1, 0), episode(0.1, 0), episode(0.1, 0))
    assert credit_turns([third], PracticeRecipe(credit="turns")).keep == (False,) * 3


def test_a_turn_is_compared_with_attempts_that_got_as_far():
    # Of 1, 0, 0 only the first two take a second turn: its baseline is 1/2, that of the first is 1/3.
    found = against_siblings([(1.0, 1.0), (0.0, 0.0), (0.0,)], [0, 0, 0])
    assert found[0] == pytest.approx((2 / 3, 1 / 2))
    assert found[1] == pytest.approx((-1 / 3, -1 / 2))
    assert found[2] == pytest.approx((-1 / 3,))
    assert against_siblings([(1.0, 1.0), (0.0,)], [0, 0])[0] == pytest.approx((0.5, 0.0))  # alone at its second turn
    assert against_siblings([(1.0,), (0.0,)], [0, 1]) == [(0.0,), (0.0,)]  # never with another task's


def test_what_was_earned_before_a_turn_does_not_count_for_it():
    assert to_come(episode(1.0, 0.5, 0.0, 0.25), weight=1.0) == pytest.approx((1.75, 1.25, 1.25))
    assert to_come(episode(1.0, 0.5, 0.0, 0.25), weight=0.0) == (1.0, 1.0, 1.0)
    # Both lost; one did its first turn well, the other its second: .5 each to come at first, 0 and .5 after it.
    found = credit_turns([group(episode(0, 0.5, 0), episode(0, 0, 0.5))], PracticeRecipe(credit="process"))
    assert found.advantage == (pytest.approx((0.0, -0.25)), pytest.approx((0.0, 0.25)))
    assert found.keep == (True, True)


def test_differences_of_values_by_hand():
    # Differences .2, .3, .1 - with decay .5: .1; .3 + .05; .2 + .175.
    assert gae(0.8, [0.2, 0.4, 0.7], decay=0.5) == pytest.approx((0.375, 0.35, 0.1))
    assert gae(0.8, [0.2, 0.4, 0.7], decay=1.0) == pytest.approx((0.6, 0.4, 0.1))  # reward less value
    assert gae(0.0, [0.2, 0.9, 0.1], decay=0.0) == pytest.approx((0.7, -0.8, -0.1))  # a good turn of a lost episode
    recipe = PracticeRecipe(credit="value", gae=0.0)
    lost = [group(episode(0.0, 0, 0, 0))]
    assert credit_turns(lost, recipe, values=[[0.2, 0.9, 0.1]]).advantage == (pytest.approx((0.7, -0.8, -0.1)),)
    assert credit_turns(lost, recipe).keep == (False,)  # nothing was learned yet: as with turns, alone


def test_a_linear_value_is_ridge_regression_with_fading_sums():
    # One feature, x = 0 and 1 with rewards 0 and 1; ridge 1: [[1, 1], [1, 2]] + I, right hand (1, 1).
    value = LinearValue.of(1, ridge=1.0, decay=0.5)
    with pytest.raises(ValueError, match="nothing was learned"):
        value.predict(np.zeros((1, 1)))
    value.learn(np.array([[0.0], [1.0]]), np.array([0.0, 1.0]))
    weight = np.linalg.solve([[2.0, 1.0], [1.0, 3.0]], [1.0, 1.0])  # feature, constant: (.4, .2)
    assert weight == pytest.approx((0.4, 0.2))
    assert value.predict(np.array([[0.0], [1.0], [9.0]])) == pytest.approx((0.2, 0.6, 1.0))  # within [0, 1]
    value.learn(np.array([[0.0]]), np.array([1.0]))
    assert value.gram_XX == pytest.approx(np.array([[0.5, 0.5], [0.5, 2.0]]))
    again = LinearValue.of(1, decay=0.5)
    again.restore(value.state())
    assert again.predict(np.array([[1.0]])) == value.predict(np.array([[1.0]]))
    told = turn_features(np.array([[3.0, 4.0]]), turn_N=np.array([0.0]), length_N=np.array([0.5]))
    assert told == pytest.approx(np.array([[0.6, 0.8, 0.0, 0.0, 0.5]]))


def test_hindsight_spreads_an_episodes_credit_over_its_tokens():
    told = torch.tensor([[0.0, np.log(3.0)], [9.0, 7.0]])
    mask = torch.tensor([[1, 1], [1, 0]])
    # Ratios 1, 3, and e^2 at most: two episodes, each with a mean of 1; what is masked has none.
    weight = token_weights(told, torch.zeros(2, 2), mask_BT=mask, episode=[0, 1], limit=2.0)
    assert weight.flatten().tolist() == pytest.approx([0.5, 1.5, 1.0, 0.0])
    weight = token_weights(told, torch.zeros(2, 2), mask_BT=mask, episode=[0, 0], limit=2.0)
    mean = (1 + 3 + np.e**2) / 3
    assert weight.flatten().tolist() == pytest.approx([1 / mean, 3 / mean, np.e**2 / mean, 0.0])


def test_the_outcome_is_told_in_front_of_everything():
    tokens = Tokens(tokenizer())
    prefixes = outcome_prefixes(tokens)
    asked = tokens.render([{"role": "user", "content": "one"}])
    for text in (SOLVED, LOST):
        whole = tokens.render([{"role": "system", "content": text}, {"role": "user", "content": "one"}])
        assert (*prefixes[text], *asked) == whole
    rigid = tokenizer()
    rigid.chat_template = "{% for message in messages %}<user> {{ message['content'] }} {% endfor %}<assistant>"
    rigid.chat_template = "<user> {{ messages[-1]['content'] }} <assistant>"
    with pytest.raises(Invalid, match="no place"):
        outcome_prefixes(Tokens(rigid))


@pytest.mark.parametrize(("share", "wanted"), [(0.5, 1.0), (0.0, 0.0), (1.0, 0.0), (0.25, 0.811278)])
def test_bits_of_an_outcome(share, wanted):
    assert bits(share) == pytest.approx(wanted)


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"credit": "magic"}, {"correction": "sequence_mask"}, {"gae": 2.0}, {"attempts": 1}, {"lag": -1},
     {"learning_rate": 0.0}],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(Invalid):
        PracticeRecipe(**wrong)
