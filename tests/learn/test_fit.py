"""From replay to weights: what is learned, what must not be, and that a killed fit ends where an undisturbed one
does."""

from dataclasses import replace

import numpy as np
import pytest

from dayjob.learn import checkpoint as checkpoints
from dayjob.learn.fit import fit, score_spread
from dayjob.learn.recipes import RECIPES, Debiased, Naive
from dayjob.policies.protocol import Lists
from dayjob.policies.ranker import NumpyRanker

QUICK = Debiased(rank=8, ridges=(300.0,), folds=2)
# Whatever is better on held-out decisions, by however little.
UNGUARDED = replace(QUICK, proof=1e-9, value_proof=-1e9, least_nats=-1e9, least_chosen=0.0, least_clicks=1)


def hits(fitted, drawn, *, losses=False):
    """Share of lists whose right slot is put first."""
    replay = drawn.replay
    lists = Lists(
        context_BD=replay.context_BD, candidate_BKE=replay.vector_VE[replay.candidate_BK], pair_BKP=replay.pair_BKP,
        base_BK=replay.base_BK.astype(np.float64), loss_BKK=replay.loss_BKK.astype(np.float64) if losses else None,
    )  # fmt: skip
    scored = NumpyRanker(fitted.weights, fitted.network).score(lists)
    return (scored.argmax(axis=1) == drawn.right_B).mean()


def base_hits(drawn):
    return (drawn.replay.base_BK.argmax(axis=1) == drawn.right_B).mean()


def test_it_learns_through_the_pull_of_position_one(world):
    test = world(1500, seed=5)
    fitted = fit(world(1500, pull=0.65).replay, shape=(), recipe=QUICK, seed=0)
    assert fitted.stats["kept_baseline"] == 0.0
    assert hits(fitted, test) > base_hits(test) + 0.1
    assert fitted.calibration is not None
    assert fitted.calibration.pull == pytest.approx(0.65, abs=0.08)


def test_other_candidate_lengths_learn_too(world):
    test = world(1500, seed=5, dim=15)
    fitted = fit(world(2000, pull=0.0, dim=15).replay, shape=(), recipe=replace(QUICK, bilinear_rank=24), seed=0)
    assert hits(fitted, test) > base_hits(test) + 0.1


@pytest.mark.parametrize(("pull", "noise", "seed"), [(0.0, 1.0, 2), (0.6, 0.4, 6)])
def test_clicks_that_say_nothing_change_nothing(world, pull, noise, seed):
    """Chance alone looks better on held-out clicks here: only the proof that is asked for stands before it."""
    replay, test = world(400, seed=seed, pull=pull, noise=noise).replay, world(200, seed=5)
    fooled = fit(replay, shape=(), recipe=UNGUARDED, seed=0)
    assert fooled.stats["kept_baseline"] == 0.0
    assert hits(fooled, test) < base_hits(test) - 0.2
    fitted = fit(replay, shape=(), recipe=QUICK, seed=0)
    assert fitted.stats["kept_baseline"] == 1.0
    assert hits(fitted, test) == base_hits(test)


def test_where_everybody_clicks_the_first_place_nothing_looks_better(world):
    fitted = fit(world(1500, seed=1, pull=1.0).replay, shape=(), recipe=QUICK, seed=0)
    assert (fitted.stats["kept_baseline"], fitted.stats["level"]) == (1.0, 0.0)
    test = world(200, seed=5)
    assert hits(fitted, test) == base_hits(test)


def test_few_clicks_keep_the_callers_order(world):
    fitted = fit(world(150).replay, shape=(), recipe=QUICK, seed=0)
    assert fitted.stats["kept_baseline"] == 1.0
    assert fitted.calibration is None


def test_truths_teach_without_any_click(world):
    drawn = world(800, pull=1.0)
    told = replace(drawn.replay, click_B=np.full(800, -1, np.int16), truth_B=drawn.right_B.astype(np.int16))
    test = world(1500, seed=5)
    assert hits(fit(told, shape=(), recipe=QUICK, seed=0), test) > base_hits(test) + 0.1


def test_the_same_data_and_seed_give_the_same_weights(world):
    first, second = (fit(world(500).replay, shape=(), recipe=QUICK, seed=4) for _ in range(2))
    assert all((first.weights[name] == second.weights[name]).all() for name in first.weights)


def test_lists_of_different_lengths_are_one_replay(world):
    drawn = world(1500, pull=0.3)
    replay = drawn.replay
    short = np.arange(1500) % 2 == 0
    keep = drawn.right_B < 5
    cut = replace(
        replay,
        candidate_BK=np.where((np.arange(6) == 5) & short[:, None], -1, replay.candidate_BK).astype(np.int32),
        shown_BK=replay.shown_BK,
    )
    shown = np.where((replay.shown_BK == 5) & short[:, None], -1, replay.shown_BK)
    order = np.argsort(shown < 0, axis=1, kind="stable")
    click = np.where(shown[np.arange(1500), replay.click_B] < 0, -1, replay.click_B)
    moved = order == click[:, None]
    cut = replace(
        cut,
        shown_BK=np.take_along_axis(shown, order, axis=1).astype(np.int16),
        click_B=np.where(click >= 0, moved.argmax(axis=1), -1).astype(np.int16),
    ).rows(np.flatnonzero(keep | ~short))
    test = world(1500, seed=5)
    assert hits(fit(cut, shape=(), recipe=QUICK, seed=0), test) > base_hits(test) + 0.05


class Killed(Exception):
    """Thrown into a fit from its progress callback."""


def kill_at(share):
    def say(done):
        if done >= share:
            raise Killed

    return say


@pytest.mark.parametrize("recipe", [QUICK, replace(Naive(), batch=2), RECIPES["geospot-reinforce"]])
def test_a_killed_fit_goes_on_to_the_same_weights(world, tmp_path, recipe, monkeypatch):
    monkeypatch.setattr("dayjob.learn.fit.SAVE_EVERY", 3)
    replay, path = world(500).replay, tmp_path / "work" / "fit.safetensors"
    whole = fit(replay, shape=(8,), recipe=recipe, seed=0)
    with pytest.raises(Killed):
        fit(replay, shape=(8,), recipe=recipe, seed=0, checkpoint=path, progress=kill_at(0.6))
    assert path.exists()
    seen = []
    again = fit(replay, shape=(8,), recipe=recipe, seed=0, checkpoint=path, progress=seen.append)
    assert seen[0] > 0.3  # it did not begin anew
    assert all((whole.weights[name] == again.weights[name]).all() for name in whole.weights)
    assert not path.exists()


def test_a_checkpoint_of_other_data_or_damaged_is_not_gone_on_from(world, tmp_path):
    path = tmp_path / "fit.safetensors"
    with pytest.raises(Killed):
        fit(world(300).replay, shape=(), recipe=QUICK, seed=0, checkpoint=path, progress=kill_at(0.6))
    other = world(300, seed=1).replay
    mark = checkpoints.fingerprint(other, QUICK, seed=0, hidden=())
    assert checkpoints.load(path, mark=mark) == {}
    path.write_bytes(path.read_bytes()[:100])
    clean = fit(other, shape=(), recipe=QUICK, seed=0)
    dirty = fit(other, shape=(), recipe=QUICK, seed=0, checkpoint=path)
    assert all((clean.weights[name] == dirty.weights[name]).all() for name in clean.weights)


@pytest.mark.parametrize("name", ["naive", "geospot-reinforce", "geospot-dpo"])
def test_published_recipes_train_and_describe_a_network_that_serves(world, name):
    drawn = world(512, pull=0.0)
    fitted = fit(drawn.replay, shape=(16, 8), recipe=replace(RECIPES[name], batch=32, rate=1e-2), seed=0)
    assert fitted.network["hidden"] == [16, 8]
    assert "mlp.out" in fitted.weights
    assert np.abs(fitted.weights["mlp.out"]).max() > 0
    assert hits(fitted, drawn) > 0
    assert fitted.weights["scale"][0] == 0 if name != "naive" else fitted.weights["scale"][0] > 0


@pytest.mark.parametrize("name", ["mixture", "mixture-set", "skip-above", "doubly-robust", "pl-rank"])
def test_networks_on_an_estimated_click_model_learn_through_the_pull_of_position_one(world, name):
    recipe = replace(RECIPES[name], passes=6, rate=3e-3, batch=128)
    test = world(1500, seed=5)
    fitted = fit(world(3000, pull=0.5).replay, shape=(32, 16), recipe=recipe, seed=0)
    assert fitted.stats["pull"] == pytest.approx(0.5, abs=0.08)
    assert hits(fitted, test) > base_hits(test) + 0.03
    assert ("set.mix" in fitted.weights) == (name == "mixture-set")


def test_naive_clicks_learn_from_honest_users(world):
    test = world(1500, seed=5)
    fitted = fit(world(4000, pull=0.0).replay, shape=(32, 16), recipe=Naive(passes=3, rate=3e-3), seed=0)
    assert hits(fitted, test) > base_hits(test) + 0.03


def test_score_spread_by_hand(world):
    replay = replace(world(2).replay, base_BK=np.array([[1, 3, 1, 3, 1, 3], [0, 0, 0, 0, 0, 0]], np.float32))
    assert score_spread(replay) == pytest.approx(np.sqrt(0.5))
    assert score_spread(replace(replay, base_BK=np.zeros((2, 6), np.float32))) == 1.0
