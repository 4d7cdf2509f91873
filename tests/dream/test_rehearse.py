"""What a budget buys: steps, tokens and tasks, by hand."""

from dataclasses import replace

import pytest

from dayjob.dream.prove import PassRate, tokens_of
from dayjob.dream.rehearse import Rehearsal, Spent, steps_within
from dayjob.endings import EpisodeEnding, Invalid
from dayjob.practice.environments.program import Program
from dayjob.records import Trajectory, Turn
from tests.dream import programs

TURN = Turn(prompt_ids=(1, 2, 3), token_ids=(4, 5), logprobs=(-0.5, -0.5), versions=("v", "v"), text="x")
ATTEMPT = Trajectory(
    spec={}, seed=0, group="g", turns=(TURN, replace(TURN, prompt_ids=(1, 2, 3, 4, 5, 6))), messages=(), reward=1.0,
    parts=(), ending=EpisodeEnding.DONE,
)  # fmt: skip


def test_compute_is_what_a_learner_reads_of_every_turn():
    assert tokens_of(ATTEMPT) == (3 + 2) + (6 + 2)
    assert Spent().after([ATTEMPT, ATTEMPT]).after([ATTEMPT]) == Spent(episodes=3, turns=6, tokens=39)


@pytest.mark.parametrize(
    ("tokens", "per_step", "steps"),
    [
        (96_000.0, 9_600.0, 10),
        (95_999.0, 9_600.0, 9),
        (1.0, 150.0, 1),
        (4 * 96_000.0, 9_600.0, 40),
        (1e18, 1.0, 100_000),
    ],
)
def test_a_budget_buys_whole_steps_and_one_at_least(tokens: float, per_step: float, steps: int):
    assert steps_within(tokens, per_step=per_step) == steps
    with pytest.raises(Invalid):
        steps_within(tokens, per_step=0.0)


def test_a_rehearsal_of_nothing_is_refused_and_one_of_something_goes_on_where_it_was():
    def render(*_: object) -> tuple[int, ...]:
        return (1,)

    with pytest.raises(Invalid, match="no environment was admitted"):
        Rehearsal((), render, 64)
    both = (Program(source=programs.SOUND), Program(source=programs.but('"lost"])', '"gone"])')))
    one = Rehearsal(both, render, 64)
    other = Rehearsal(both, render, 64)
    assert one.mark == other.mark != Rehearsal(both[:1], render, 64).mark
    for _ in range(3):
        [(spec, seed)] = one.curriculum.next(1)
        one.curriculum.tell(spec, seed, rewards=[0.0, 1.0])
    one.spent = one.spent.after([ATTEMPT])
    one.dropped["what"] = "why"
    other.restore(one.state())
    assert (other.spent, other.dropped) == (one.spent, one.dropped)
    assert other.curriculum.next(5) == one.curriculum.next(5)


def test_a_pass_rate_is_told_with_its_interval_and_what_an_attempt_cost():
    told = PassRate(solved=8, attempts=10, tokens=500).told()
    assert (told["pass_rate"], told["tokens"]) == (0.8, 50.0)
    assert (round(told["low"], 4), round(told["high"], 4)) == (0.4902, 0.9433)  # Wilson's, as R's prop.test has it
