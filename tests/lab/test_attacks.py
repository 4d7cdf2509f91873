"""Attacks are what they say they are, the trial under attack can be won and lost, and what is kept is not run again."""

import json
from dataclasses import replace

import numpy as np
import pytest
from geospot.users import UserConfig
from geospot.world import World, haversine_km

from dayjob.endings import FeedbackState, VerdictKind
from dayjob.lab import attacks
from dayjob.lab.attacks import PUSHED, Attack, clicks, pushed_slot, trial_of
from dayjob.lab.geospot_offline import load_field

HONEST = Attack(series="P3", name="nobody", users=UserConfig(pull=0.0))
PUPPETS = replace(HONEST, name="all", puppets=1.0)


@pytest.fixture(scope="module")
def field(small_gallery, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return load_field(World(small_gallery), seed=0, rounds=1200, cache_dir=cache, held_out=200)


class Pushing:
    """A ranker that believes in whatever lies nearest to the pushed place."""

    def __init__(self, gallery):
        km = haversine_km(gallery.coords_G2, PUSHED)
        self.km = {row.tobytes(): distance for row, distance in zip(gallery.embedding_GD, km, strict=True)}

    def utility(self, lists):
        return -np.array([[self.km[vector.tobytes()] for vector in rows] for rows in lists.candidate_BKE])

    score = utility


def shown(field):
    count, width = field.learn.candidate_NK.shape
    return np.tile(np.arange(width)[::-1], (count, 1))


def test_puppets_click_what_lies_nearest_to_the_pushed_place(field):
    rng = np.random.default_rng(0)
    told = clicks(PUPPETS, field, photos=field.learn, shown_NK=shown(field), rng=rng)
    slot_N = np.take_along_axis(told.shown_NK, told.click_N[:, None], axis=1)[:, 0]
    assert (slot_N == pushed_slot(field, field.learn)).all()
    assert len(set(told.user_N.tolist())) == len(field.learn)  # each account comes once
    four = clicks(replace(PUPPETS, puppets=0.25, accounts=4), field, photos=field.learn, shown_NK=shown(field), rng=rng)
    of_puppets = four.user_N[four.user_N >= 0]
    assert len(set(of_puppets.tolist())) == 4
    assert len(of_puppets) / len(field.learn) == pytest.approx(0.25, abs=0.05)


def test_the_trial_can_be_stolen_and_is_not_given_away(field):
    """Everybody a puppet: promoted, which is what the share that is tolerated is about. Nobody: it is not."""

    ranker = Pushing(field.world.gallery)

    def verdict(attack, state):
        return trial_of(attack, field, ranker=ranker, state=state, after=200, rng=np.random.default_rng(1)).kind

    assert verdict(PUPPETS, FeedbackState.INFORMATIVE) is VerdictKind.PROMOTE
    assert verdict(HONEST, FeedbackState.INFORMATIVE) is not VerdictKind.PROMOTE
    assert verdict(PUPPETS, FeedbackState.UNINFORMATIVE) is not VerdictKind.PROMOTE


def test_everybody_on_position_one_teaches_nothing(field):
    found = attacks.cell(replace(HONEST, users=UserConfig(pull=1.0)), field, learned=1100)
    assert (found["kept_baseline"], found["change"], found["state"]) == (True, 0.0, "uninformative")
    assert found["verdict"] == VerdictKind.CANNOT_TELL.value
    assert found["pushed_first"] == found["pushed_before"]


def test_the_tolerated_share_is_the_largest_below_the_first_harm():
    def cells(*harmful):
        return [
            {"attack": a.name, "change": 0.02 if a.puppets in harmful else -0.1, "verdict": "promote"}
            for a in attacks.ATTACKS
        ]

    assert "at every share that was tried, up to 30%" in attacks._tolerated(cells())
    assert "up to 5% of traffic" in attacks._tolerated(cells(0.10, 0.30))
    assert "at no share" in attacks._tolerated(cells(0.01))
    held = [one | {"verdict": "hold"} for one in cells(0.10)]
    assert "up to 30%" in attacks._tolerated(held)  # worse, but never promoted


def test_cells_are_kept_and_the_page_is_made_of_them(small_gallery, tmp_path, monkeypatch):
    monkeypatch.setattr(attacks.journals, "load_world", lambda _: World(small_gallery))
    names = ("nobody", "sock puppets with 30%")
    monkeypatch.setattr(attacks, "ATTACKS", tuple(a for a in attacks.ATTACKS if a.series == "P3" and a.name in names))
    monkeypatch.setattr(attacks, "QUICK_ROUNDS", 500)
    monkeypatch.setattr(attacks, "QUICK_LEARNED", 300)
    monkeypatch.setattr(attacks, "QUICK_HELD_OUT", 100)
    first = attacks.run([0], tmp_path / "out", cache=tmp_path, quick=True)
    kept = sorted((tmp_path / "out" / "attacks").iterdir())
    assert len(kept) == 2
    kept[0].write_text(json.dumps(json.loads(kept[0].read_text()) | {"change": 0.5, "verdict": "promote"}))
    again = attacks.run([0], tmp_path / "out", cache=tmp_path, quick=True)
    assert again["below_and_promoted"] == first["below_and_promoted"] + 1  # read, not run again
    assert "`dayjob lab attacks --seeds 1 --quick`" in (tmp_path / "out" / "attacks.md").read_text()
