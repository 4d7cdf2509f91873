"""Exam and sessions as one e-process: how often it promotes what is no better, peeking always, and its power."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from dayjob.endings import VerdictKind
from dayjob.gate import trial
from dayjob.gate.confidence import Evidence, Floats, log_gain, log_mixture, update
from dayjob.gate.control import Ints, Past, plan, settle
from dayjob.gate.docket import Docket, reopen
from dayjob.gate.dossier import TERMS, Dossier, begin, observe, seeded, spend
from dayjob.gate.elond import Elond
from dayjob.gate.trial import TrialState, from_rewards
from dayjob.records import Pointers
from tests.gate.test_sessions import T0, at, turn

LEVEL = 0.05
MARK = math.log(1 / LEVEL)
PEOPLE, YES_MEN = 40, 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """``gain``: how much more often a family is won than lost; ``liked``: the chance of a thumb up under champion and
    challenger. A third of the sessions is silent, and twelve of forty people say yes to whatever they get."""

    families: int = 15
    gain: float = 0.0
    sessions: int = 200
    liked: tuple[float, float] = (0.6, 0.6)

    def exams(self, runs: int, dice: np.random.Generator) -> list[Evidence]:
        """What the exams of so many challengers find."""
        moved_RF = dice.random((runs, self.families)) < 0.6
        won_RF = np.where(dice.random((runs, self.families)) < 0.5 + self.gain / 2, 1.0, -1.0)
        return [update(Evidence(), gain_F) for gain_F in moved_RF * won_RF]

    def session(self, runs: int, dice: np.random.Generator) -> tuple[Floats, Ints, Ints]:
        """A session each: what was said of it, its coin and its user."""
        coin_R, user_R = dice.choice((-1, 1), size=runs), dice.integers(0, PEOPLE, size=runs)
        up_R = (dice.random(runs) < np.array(self.liked)[(coin_R + 1) // 2]) | (user_R < YES_MEN)
        return np.where(dice.random(runs) < 1 / 3, 0.5, up_R.astype(float)), coin_R, user_R


def promoted(play: Play, *, runs: int, seed: int) -> float:
    """The share of challengers that are ever promoted, by the exam or at any session after it."""
    dice = np.random.default_rng(seed)
    begun = [seeded(one) for one in play.exams(runs, dice)]
    wealth_RG = np.array([one.log_up_G for one in begun])
    done_R = log_mixture(wealth_RG) >= MARK
    past = Past.empty(runs, PEOPLE)
    for _ in range(play.sessions):
        said_R, coin_R, user_R = play.session(runs, dice)
        made = plan(past, user_R)
        value_R, lean_R = coin_R * (2.0 * said_R - 1.0), coin_R.astype(float)
        wealth_RG += log_gain(made.weight_R * (value_R - made.pull_R * lean_R) / trial.BOUND)
        settle(past, made, slot_R=user_R, value_R=value_R, lean_R=lean_R)
        done_R |= log_mixture(wealth_RG) >= MARK
    return float(done_R.mean())


def test_a_run_of_the_simulation_is_what_the_judge_would_have_done():
    play, dice = Play(sessions=60), np.random.default_rng(4)
    begun = seeded(play.exams(1, dice)[0])
    wealth_RG, past, state = np.array([begun.log_up_G]), Past.empty(1, PEOPLE), TrialState(evidence=begun)
    for _ in range(play.sessions):
        said_R, coin_R, user_R = play.session(1, dice)
        made = plan(past, user_R)
        value_R, lean_R = coin_R * (2.0 * said_R - 1.0), coin_R.astype(float)
        wealth_RG += log_gain(made.weight_R * (value_R - made.pull_R * lean_R) / trial.BOUND)
        settle(past, made, slot_R=user_R, value_R=value_R, lean_R=lean_R)
        state = trial.observe(state, from_rewards(said_R, coin_R, user_N=user_R))
    assert state.evidence.log_e_up == pytest.approx(float(log_mixture(wealth_RG)[0]))


def test_equal_versions_are_promoted_no_more_often_than_the_level_peeking_after_every_session():
    assert promoted(Play(), runs=600, seed=1) <= LEVEL


def test_a_version_that_people_like_less_is_not_promoted_by_an_equal_exam():
    assert promoted(Play(liked=(0.6, 0.4)), runs=300, seed=2) <= LEVEL


def test_a_better_version_is_promoted_and_sooner_by_both_than_by_either():
    better = Play(gain=0.6, liked=(0.4, 0.8))
    both = promoted(better, runs=200, seed=3)
    exam_alone = promoted(replace(better, sessions=0), runs=200, seed=3)
    sessions_alone = promoted(replace(better, families=0), runs=200, seed=3)
    assert both >= 0.8, both
    assert both >= max(exam_alone, sessions_alone) + 0.1, (both, exam_alone, sessions_alone)


def test_an_exam_is_wealth_on_every_bet():
    """Five wins: 4.10 times the wealth. A session then multiplies what is there."""
    found = update(Evidence(), np.ones(5))
    begun = seeded(found)
    assert begun.count == 0
    assert math.exp(begun.log_e_up) == pytest.approx(4.097, abs=1e-3)
    fresh, after = update(Evidence(), [0.5]), update(begun, [0.5])
    assert after.log_e_up - begun.log_e_up == pytest.approx(fresh.log_e_up)
    assert after.log_e_down == pytest.approx(found.log_e_down + fresh.log_e_down)
    assert after.peak_up == pytest.approx(found.log_e_up + fresh.log_e_up)
    assert seeded(Evidence()) == Evidence(), "no questions, no wealth"


def test_a_refused_exam_hands_on_what_is_left_of_its_level():
    budget = Elond(alpha=0.05)
    lost = update(Evidence(), -np.ones(1))
    kept = spend(budget, lost, kind=VerdictKind.REJECT)
    assert (kept.decided, kept.promoted) == (0, 0)
    assert kept.level == pytest.approx(budget.level * math.exp(lost.log_e_up))
    won = update(Evidence(), np.ones(20))
    assert spend(budget, won, kind=VerdictKind.REJECT).decided == 1, "its mark was reached: the level is used"
    assert spend(budget, won, kind=VerdictKind.PROMOTE) == budget.decide(promoted=True)
    assert spend(budget, Evidence(), kind=VerdictKind.HOLD) == budget


def test_a_challenger_that_leaves_before_any_session_leaves_what_its_exam_lost():
    pointers = Pointers(
        tenant="t", policy="chat", champion="v0", previous=None, challenger="v1", baseline="v0", frozen="", generation=1
    )
    found = update(Evidence(), -np.ones(2))
    empty = Dossier(docket=Docket(metric="sessions"))
    tried = begin(empty, pointers, found=found, spec=TERMS, newest_seq=5, now_ms=7)
    assert (tried.docket.challenger, tried.docket.tried_from, tried.began_ms, tried.examined) == ("v1", 5, 7, ("v1",))
    left = reopen(tried.docket, replace(pointers, challenger=None), spec=TERMS, newest_seq=6)
    assert left.budget.level == pytest.approx(Elond(alpha=0.05).level * math.exp(found.log_e_up))


def test_a_session_whose_coin_was_known_bets_nothing_and_is_still_heard():
    """What the champion had replaced went away in the midst of a conversation: the pair is the same, and its coin."""
    pointers = Pointers(
        tenant="t", policy="chat", champion="v1", previous="v0", challenger="v2", baseline="v0", frozen="", generation=1
    )
    empty = Dossier(docket=Docket(metric="sessions"))
    begun = begin(empty, pointers, found=Evidence(), spec=TERMS, newest_seq=0, now_ms=0)
    first, again = turn(1, T0, versions=("v1", "v2", "v0")), turn(2, T0 + 1, versions=("v1", "v2", None))
    for session, count in ((at(first, again), 1), (at(again, first), 0)):
        assert session is not None
        heard = observe(begun, session, said=1.0, key=b"k")
        assert heard.docket.trial is not None
        assert (heard.docket.trial.evidence.count, heard.ratings) == (count, (1.0,))
        assert heard.docket.cursor == session.turns[0].seq
    side = at(turn(3, T0, versions=("v1", "v2", "v0"), challenger="v0"))  # answered by what was replaced
    assert side is not None
    heard = observe(begun, side, said=0.0, key=b"k")
    assert heard.docket.trial is not None
    assert heard.docket.watch is not None
    assert (heard.docket.trial.evidence.count, heard.docket.watch.arms.count) == (0, 1)
