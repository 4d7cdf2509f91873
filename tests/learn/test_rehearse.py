"""A rehearsal learns from imagined users beside real ones, and only where something was proven without them."""

from dataclasses import replace

import numpy as np
import pytest

from dayjob.cli.dream_rankers import imagined_users
from dayjob.endings import Invalid
from dayjob.learn.fit import fit
from dayjob.learn.networks import estimate
from dayjob.learn.recipes import Debiased, Mixture
from dayjob.learn.rehearse import imagined_of, rehearse

SMALL = Debiased(rank=4, ridges=(300.0,), folds=2, steps=8)


class Watched:
    """Imagines as the conductor does, and remembers what it was asked for."""

    def __init__(self):
        self.asked = []

    def __call__(self, replay, model, *, count, seed):
        self.asked.append((len(replay), count, round(model.pull, 2)))
        return imagined_users(replay, model, count=count, seed=seed)


def test_imagined_users_stand_before_the_real_ones(world, monkeypatch):
    seen = []

    def watched(replay, **settings):
        seen.append(replay)
        return fit(replay, **settings)

    monkeypatch.setattr("dayjob.learn.rehearse.fit", watched)
    drawn, watch = world(600, seed=1, people=10), Watched()
    done = rehearse(drawn.replay, shape=(), recipe=SMALL, budget=1, imagine=watch, seed=1)
    plain, mixed = seen
    assert [(len(plain), len(mixed))] == [(600, 1200)]
    assert (mixed.rows(slice(600, None)).click_B == drawn.replay.click_B).all()
    assert (mixed.user_B[:600] == -1).all()
    assert watch.asked == [(600, 600, round(estimate(drawn.replay).pull, 2))]
    assert done.imagined == 600
    assert done.fitted.stats["decisions"] == 1200
    assert done.plain.stats["decisions"] == 600


def test_nothing_is_imagined_where_nothing_was_proven(world):
    watch = Watched()
    done = rehearse(world(600, seed=2, pull=1.0).replay, shape=(), recipe=SMALL, budget=4, imagine=watch, seed=1)
    assert (watch.asked, done.imagined) == ([], 0)
    assert done.fitted is done.plain
    assert done.fitted.stats["kept_baseline"] == 1


def test_a_network_learns_from_both(world):
    drawn = world(300, seed=3)
    told = []
    done = rehearse(
        drawn.replay, shape=(8,), recipe=Mixture(), budget=2, imagine=Watched(), seed=1, progress=told.append
    )
    assert done.imagined == 600
    assert told == sorted(told)
    assert told[-1] == 1
    again = rehearse(drawn.replay, shape=(8,), recipe=Mixture(), budget=2, imagine=Watched(), seed=1)
    assert all((done.fitted.weights[name] == again.fitted.weights[name]).all() for name in done.fitted.weights)
    assert any((done.fitted.weights[name] != done.plain.weights[name]).any() for name in done.fitted.weights)


def test_no_more_is_imagined_than_is_read(world):
    replay = world(600, seed=1).replay
    few = Debiased(most_decisions=1_000)
    assert [imagined_of(replay, recipe=few, budget=budget) for budget in (0, 0.5, 1, 64)] == [0, 300, 400, 400]
    assert imagined_of(replay, recipe=Mixture(), budget=64) == 38_400
    assert imagined_of(replay, recipe=Debiased(most_decisions=500), budget=1) == 0
    with pytest.raises(Invalid, match="budget is -1"):
        rehearse(replay, shape=(), recipe=SMALL, budget=-1, imagine=Watched(), seed=1)


def test_rewards_stay_with_what_was_real(world):
    replay = world(60, seed=4).replay
    rewarded = replace(replay, reward_B=np.full(60, 0.5, np.float32), rewarded_B=np.zeros(60, np.int16)).check()
    found = imagined_users(rewarded, estimate(replay), count=90, seed=1).check()
    assert len(found) == 90
    assert np.isnan(found.reward_B).all()
    assert found.vector_VE is rewarded.vector_VE
