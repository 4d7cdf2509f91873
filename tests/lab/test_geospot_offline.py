"""The offline table on a small piece of the gallery: the pieces it is made of, and that it runs."""

import json

import numpy as np
import pytest
from geospot import gallery
from geospot.users import POPULATIONS, Population, Users

from dayjob.lab import geospot_journal as journals
from dayjob.lab import geospot_offline as offline
from dayjob.learn.recipes import Reinforce
from dayjob.policies.plackett_luce import Explore, propensities


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    read = gallery.read_coordinates
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gallery, "read_coordinates", lambda path: read(path)[:1500])
        yield offline.load_field(tmp_path_factory.mktemp("cache"), learn_photos=400, test_photos=300)


@pytest.mark.parametrize("explore", [Explore(epsilon=0.3, temperature=0.7), Explore(epsilon=0.2, temperature=0.0)])
def test_lists_are_drawn_as_the_server_draws_them(explore):
    score = np.random.default_rng(0).standard_normal((4000, 4))
    score[:] = score[0]
    shown, propensity = journals.draw(score, explore, rng=np.random.default_rng(1))
    assert (np.sort(shown, axis=1) == np.arange(4)).all()
    for row in range(20):
        assert propensity[row] == pytest.approx(propensities(score[row], shown[row], explore=explore))
    chance = {tuple(r): np.prod(p) for r, p in zip(shown.tolist(), propensity, strict=True)}
    for ranking, p in chance.items():
        assert (shown == ranking).all(axis=1).mean() == pytest.approx(p, abs=0.03)


def test_the_replay_says_what_was_shown_and_clicked(field):
    photos = field.learn
    rng = np.random.default_rng(0)
    score = journals.base_scores(field.world, photos)
    honest = Users(POPULATIONS[Population.HONEST])
    explore = Explore(temperature=1.0)
    replay = journals.journal(field.world, photos, score_NK=score, users=honest, explore=explore, rng=rng).check()
    clicked = replay.click_B >= 0
    slot = replay.clicked_slot_B[clicked]
    km = photos.distance_NK[clicked]
    assert km[np.arange(len(slot)), slot].mean() < km.mean() * 0.8
    assert (field.world.gallery.embedding_GD[photos.candidate_NK[5]] == replay.vector_VE[replay.candidate_BK[5]]).all()


def test_best_worst_and_bayes_stand_in_order(field):
    fixed = offline.fixed_rows(field)
    assert fixed["best of ten"] < fixed["Bayes, least expected km over the ten"] < fixed["random pick"]
    scored = -field.test.distance_NK.astype(np.float64)
    judged = offline.judge(field, scored, explore=Explore(temperature=1e-6), seed=0)
    assert judged["greedy"] == pytest.approx(fixed["best of ten"])
    assert judged["sampled"] == pytest.approx(fixed["best of ten"])


def test_published_learners_learn_from_lists_of_their_own(field):
    users = Users(POPULATIONS[Population.GEOSPOT])
    curve = offline.online_curve(field, Reinforce(batch=32), users=users, seed=0, marks=(64, 128))
    again = offline.online_curve(field, Reinforce(batch=32), users=users, seed=0, marks=(64, 128))
    assert curve == again
    assert curve[0] != curve[1]


def test_interval_by_hand():
    assert offline.interval([1.0, 3.0]) == {"mean": 2.0, "half": pytest.approx(12.706, abs=1e-2)}


@pytest.mark.slow
def test_the_whole_table_runs(tmp_path):
    offline.run([0, 1], tmp_path / "out", cache_dir=tmp_path, populations=[Population.GEOSPOT], quick=True)
    result = json.loads((tmp_path / "out" / "geospot_offline.json").read_text())
    assert len(result["rows"]) == 6
