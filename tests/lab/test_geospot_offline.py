"""The learners in process on a small piece of the gallery: what they see, and what judges them."""

import asyncio
from functools import partial

import numpy as np
import pytest
from geospot import play
from geospot.users import POPULATIONS, Population, Users
from geospot.world import World

from dayjob.gate.evidence import FARTHEST_KM
from dayjob.lab import geospot_journal as journals
from dayjob.lab import geospot_offline as offline
from dayjob.lab import published
from dayjob.lab import published_said as said
from dayjob.learn.recipes import Reinforce
from dayjob.policies.plackett_luce import Explore, propensities
from dayjob.serve.pages import Replay


@pytest.fixture(scope="module")
def field(small_gallery, tmp_path_factory):
    world = World(small_gallery)
    return offline.load_field(world, seed=3, rounds=300, cache_dir=tmp_path_factory.mktemp("cache"), held_out=200)


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
    nobody = np.full(len(photos), -1)
    replay = journals.journal(
        field.world, photos, score_NK=score, users=honest, user_N=nobody, explore=explore, rng=rng
    ).check()
    clicked = replay.click_B >= 0
    slot = replay.clicked_slot_B[clicked]
    km = photos.distance_NK[clicked]
    assert km[np.arange(len(slot)), slot].mean() < km.mean() * 0.8
    assert (field.world.gallery.embedding_GD[photos.candidate_NK[5]] == replay.vector_VE[replay.candidate_BK[5]]).all()


def test_best_worst_and_bayes_stand_in_order(field):
    fixed = offline.fixed_rows(field)
    assert fixed["best of ten"] < fixed["Bayes, least expected km over the ten"] < fixed["random pick"]
    scored = -field.test.distance_NK.astype(np.float64)
    judged = offline.judge(field, scored, explore=Explore(temperature=1e-6))
    assert judged["greedy"] == pytest.approx(fixed["best of ten"])
    assert judged["sampled"] == pytest.approx(fixed["best of ten"])


def test_published_learners_learn_from_lists_of_their_own(field):
    users, train = Users(POPULATIONS[Population.GEOSPOT]), offline.online(Reinforce(batch=32))
    curve = train(field, users, marks=(64, 128))
    assert curve == train(field, users, marks=(64, 128))
    assert curve[0] != curve[1]


def test_photos_and_people_are_those_of_the_play(field):
    """What `play` deals round by round is what the learners in process see, chunk borders and users included."""
    users = Users(POPULATIONS[Population.MIXED])

    async def deal():
        return [one async for one in play._rounds(field.world, users, rounds=300, seed=3)]

    dealt = asyncio.run(deal())
    assert [one.number for one in dealt] == list(range(300))
    np.testing.assert_array_equal(np.concatenate([one.photo.distance_NK for one in dealt]), field.learn.distance_NK)
    replay = offline.collected(field, users, explore=None, rng=np.random.default_rng(0), count=280)
    assert replay.user_B.tolist() == [one.user for one in dealt[:280]]


def test_the_photos_that_judge_are_not_those_of_the_play(field):
    assert not set(field.test.place_N2[:, 0].tolist()) & set(field.learn.place_N2[:, 0].tolist())


def test_the_oracle_needs_no_clicks_and_every_row_can_be_trained(field):
    users = Users(POPULATIONS[Population.POSITION_ONLY])
    for train in (*offline.ORACLES.values(), *offline.TRAINERS.values()):
        (scores,) = train(field, users, marks=(100,))
        assert set(scores) == {"greedy", "sampled", "hits"}
    (ours,) = offline.TRAINERS["ours, fits without the gate"](field, users, marks=(280,))
    assert ours["greedy"] == 0.0  # everybody clicks the first place: the caller's order stays


def test_the_published_failure_is_what_the_replay_page_reads(small_gallery, tmp_path, monkeypatch):
    monkeypatch.setattr(published.journals, "load_world", lambda _: World(small_gallery))
    monkeypatch.setattr(published, "STEP", 64)
    monkeypatch.setattr(published, "STEPS", 3)
    monkeypatch.setattr(published, "WATCHES", 3)
    monkeypatch.setattr(published, "load_field", partial(offline.load_field, held_out=50))
    path = tmp_path / "replay.json"
    published.write_replay(tmp_path, seed=0, command="dayjob lab geospot --part replay", path=path)
    told = Replay.model_validate_json(path.read_text())
    assert told.steps == [64, 128, 192]
    assert len(told.reward) == len(told.kl) == len(told.km_served) == 3
    assert told.kl[0] >= 0.0
    assert told.kl[-1] < 0.05
    assert all(sum(share) == pytest.approx(1.0) for share in told.position_share)
    judges = journals.load_photos(World(small_gallery), 50, seed=offline.HELD_OUT_SEED, cache_dir=tmp_path)
    assert told.km_baseline == pytest.approx(judges.distance_NK[:, 0].mean())
    assert told.state == ["too_few"] * 3, "of 192 clicks at most"
    assert told.alarm_at is None
    assert min(told.moved) > 1.0
    assert told.rollbacks == [None] * 3
    assert "Not shown to be worse" in told.rollback_reason


def test_lines_of_a_replay_are_those_of_the_judges_desk(field):
    """Each field means what `gate.desk.Line` says, place by place in the order shown."""
    rng, users = np.random.default_rng(0), Users(POPULATIONS[Population.GEOSPOT])
    whole = offline.collected(field, users, explore=offline.SAMPLED, rng=rng, count=40)
    score_BK = rng.standard_normal((40, 10))
    told = list(said.lines(whole, score_BK, version=7))
    assert len(told) == 40
    for b, line in enumerate(told):
        shown, click = whole.shown_BK[b], int(whole.click_B[b])
        assert (line.click, line.version, line.intervened, line.truth) == (click, "v7", False, -1)
        assert list(line.item_R) == whole.candidate_BK[b][shown].tolist()
        assert line.score_R.tolist() == score_BK[b][shown].tolist()
        assert line.key_R.index(line.first) == shown.tolist().index(score_BK[b].argmax())
        assert line.key_R.index(line.first_by_caller) == shown.tolist().index(whole.base_BK[b].argmax())
        unit_KE = whole.vector_VE[whole.candidate_BK[b]].astype(np.float64)
        unit_KE /= np.linalg.norm(unit_KE, axis=1, keepdims=True)
        assert line.feature_RF[0, 1] == pytest.approx(np.delete(unit_KE @ unit_KE[shown[0]], shown[0]).mean())
        np.testing.assert_array_equal(line.feature_RF[:, 2:], whole.pair_BKP[b][shown])
        if click >= 0:
            km = journals.km_between(field.world, field.learn.rows(slice(b, b + 1)))[0, shown[0], shown[click]]
            assert line.success == pytest.approx(1.0 - km / FARTHEST_KM)
    assert {line.success for line in told if line.click < 0} <= {0.0}
    assert {line.success for line in told if line.click == 0} == {1.0}


def test_the_watch_withdraws_a_worse_order_and_leaves_an_equal_one(field):
    """Champion: the worst of ten first, or the first guess itself; everybody looks."""
    users, photos = Users(POPULATIONS[Population.HONEST]), field.learn
    whole = offline.collected(field, users, explore=None, rng=np.random.default_rng(0), count=300)
    ended = {}
    for name, worst in (("worst", True), ("equal", False)):
        watch = said.Watch(users, rng=np.random.default_rng(1))
        for start in range(0, 300, 50):
            at = slice(start, start + 50)
            key_BK = -photos.distance_NK[at] if worst else -whole.base_BK[at]
            watch.see(whole.rows(at), np.argsort(key_BK, axis=1), distance_BK=photos.distance_NK[at])
        ended[name] = watch.ended_at
        assert watch.finding().rollback is worst
        assert (watch.state.pairs.count > 20) is worst, "lists on which both choose alike say nothing"
    assert ended["equal"] is None
    assert ended["worst"] in range(50, 301)
