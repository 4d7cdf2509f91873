"""The Geospot table: pieces that are kept and gone on from, the page made of what there is, what serving cost."""

import asyncio
import json

import numpy as np
import pytest
from geospot.play import declare, play
from geospot.users import POPULATIONS, Population, Users
from geospot.world import World

from dayjob.client import AsyncClient
from dayjob.endings import Invalid, VersionStatus
from dayjob.journal import versions
from dayjob.journal.control import Control
from dayjob.journal.readers import Reader
from dayjob.lab import geospot, geospot_pieces
from dayjob.lab import geospot_journal as journals
from dayjob.lab import geospot_offline as offline
from dayjob.lab.geospot_pieces import NOBODY, Plan
from dayjob.lab.geospot_served import FirstChoices, Served, costs_by_role, served_by, worse_than_baseline
from dayjob.lab.parts import Part
from dayjob.lab.server import running
from dayjob.policies.ranker import NumpyRanker, RankerSpec, zero_weights
from dayjob.records import Version

ROUNDS = 300
PLAYED = 150


@pytest.fixture
def plan(small_gallery, tmp_path, monkeypatch):
    monkeypatch.setattr(geospot_pieces, "load_world", lambda _: World(small_gallery))
    return Plan(
        seeds=(0, 1), populations=(Population.GEOSPOT,), rounds=ROUNDS, held_out=100,
        folder=tmp_path / "geospot", cache=tmp_path,
    )  # fmt: skip


def served(seed: int, **changes) -> Served:
    given = {
        "population": "geospot", "seed": seed, "rounds": ROUNDS, "baseline_km": 2400.0, "best_km": 1200.0,
        "held_out_baseline_km": 2000.0, "greedy_km": {200: 2000.0, 300: 1800.0}, "sampled_gain": {200: 0.0, 300: 0.08},
        "champions": {"v0-baseline": 2000.0, "v1-a": 1800.0}, "champion_from": {"v0-baseline": 1, "v1-a": 250},
        "promotions": [{"challenger": "v1-a", "champion": "v0", "kind": "promote", "evidence": {"closed": 120}}],
        "costs": {"champion": 0.004, "trial": -0.001, "baseline": 0.002}, "feedback_state": "informative",
        "feedback_reason": "", "pin": 0.0, "seconds": 1.0,
    }  # fmt: skip
    return Served(**{**given, **changes})


def learners(change: float) -> dict:
    scores = {str(mark): {"greedy": change, "sampled": change / 2} for mark in (200, 300)}
    return {"published DPO": {"scores": scores, "code": "x"}}


def write_pieces(plan: Plan) -> None:
    for seed, change in ((0, -0.02), (1, -0.04)):
        base = {"seed": seed, "baseline_km": 2000.0, "best_of_ten_km": 1000.0}
        fixed = {"best of ten": -0.5, "random pick": 0.16}
        geospot_pieces.keep(
            plan.path("offline", users=NOBODY, seed=seed), {**base, "users": NOBODY, "learners": {}, "fixed": fixed}
        )
        geospot_pieces.keep(
            plan.path("offline", users="geospot", seed=seed),
            {**base, "fixed": {}, "users": "geospot", "learners": learners(change)},
        )
    geospot_pieces.keep(plan.path("served", users="geospot", seed=0), served(0).to_json())


def test_the_table_is_made_of_the_pieces_there_are(plan):
    write_pieces(plan)
    result = geospot.assembled(plan)
    dpo = next(row for row in result["rows"] if row["learner"] == "published DPO")
    # -2 % and -4 %: mean -3 %, sd 1.414 %, half-width 12.706 * 1 %
    assert dpo["greedy"]["300"] == {"mean": pytest.approx(-0.03), "half": pytest.approx(0.12706, abs=1e-4), "seeds": 2}
    assert dpo["sampled"]["300"]["mean"] == pytest.approx(-0.015)
    tables = geospot.tables(result)
    lines = {row["learner"]: row for row in tables[f"geospot: {geospot.USERS[Population.GEOSPOT]}"]}
    assert lines["published DPO"]["300"] == "-3.0 ±12.7"
    assert lines[geospot.SERVED]["300"] == "-10.0 (1)"  # one seed of two: marked
    assert lines[geospot.SERVED]["300, as shown"] == "-8.0 (1)"
    gate = tables["What serving cost, and what the gate did"][0]
    assert gate["exploring, trials and holdback, % of km"] == "+0.5"
    assert gate["of it the holdback"] == "+0.2"
    assert gate["closed decisions of the first trial"] == "120"
    assert gate["first new champion in round"] == "250"
    page = "\n".join(geospot.page(result))
    assert "by over 1 %: 0 of 1" in page


def test_a_champion_that_is_worse_is_counted():
    bad = served(1, champions={"v0-baseline": 2000.0, "v1-a": 2030.0, "v2-b": 2010.0})
    assert worse_than_baseline([served(0), bad]) == [("geospot", 1, "v1-a", pytest.approx(0.015))]


def test_without_any_piece_there_is_no_table(plan):
    with pytest.raises(Invalid, match="--part offline"):
        geospot.assembled(plan)


def test_the_replay_alone_needs_no_piece_and_leaves_the_table_as_it_is(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(geospot, "write_replay", lambda *told, **named: asked.append((told, named)))
    told = geospot.run(
        [0], users=None, parts=[Part.REPLAY], out_dir=tmp_path / "out", cache=tmp_path, jobs=1, quick=False
    )
    assert asked == [((tmp_path,), {"seed": 0, "command": told["command"]})]
    assert not (tmp_path / "out" / "geospot.json").exists()


def test_unknown_users_are_refused(tmp_path):
    with pytest.raises(Invalid, match=r"'aliens'.*honest"):
        geospot.run([0], users=["aliens"], parts=[], out_dir=tmp_path, cache=tmp_path, jobs=1, quick=True)


def test_a_stopped_run_goes_on_and_what_is_kept_is_not_run_again(plan, monkeypatch):
    ran = []

    def trainer(name):
        def train(_field, _users, *, marks):
            if name == "breaks" and len(ran) < 2:
                raise KeyboardInterrupt
            ran.append(name)
            return [{"greedy": 0.0, "sampled": 0.0, "hits": 0.1} for _ in marks]

        return train

    monkeypatch.setattr(offline, "TRAINERS", {name: trainer(name) for name in ("first", "breaks")})
    with pytest.raises(KeyboardInterrupt):
        geospot_pieces.offline_piece(plan, users="geospot", seed=0)
    kept = json.loads(plan.path("offline", users="geospot", seed=0).read_text())
    assert list(kept["learners"]) == ["first"]
    ran.append("again")
    geospot_pieces.offline_piece(plan, users="geospot", seed=0)
    geospot_pieces.offline_piece(plan, users="geospot", seed=0)
    assert ran == ["first", "again", "breaks"]


def test_a_play_over_http_is_a_piece_too(plan):
    """A real server with learner and judge; too few rounds to learn from, so nothing is promoted."""
    one = Plan(**{**{f: getattr(plan, f) for f in plan.__slots__}, "seeds": (0,), "rounds": 60})
    geospot_pieces.run_served(one)
    (kept,) = geospot_pieces.kept_served(one)
    assert kept.greedy_km == {60: kept.held_out_baseline_km}
    assert kept.costs["baseline"] == 0.0  # the champion is the baseline: its holdback costs nothing
    assert kept.promotions == []
    photos = journals.load_played(geospot_pieces.load_world(None), 60, seed=0, cache_dir=plan.cache)
    assert kept.baseline_km == pytest.approx(photos.distance_NK[:, 0].mean(), rel=1e-6)  # the same photos
    before = one.path("served", users="geospot", seed=0).stat().st_mtime_ns
    geospot_pieces.run_served(one)
    assert one.path("served", users="geospot", seed=0).stat().st_mtime_ns == before


def test_exploring_and_the_holdback_are_costs_against_the_champion_alone(small_gallery, tmp_path):
    """A champion unlike the baseline serves most, the baseline a fifth: both are compared with the champion alone."""
    world, data = World(small_gallery), tmp_path / "data"
    width = small_gallery.embedding_GD.shape[1]
    shape = RankerSpec(context_dim=width, candidate_dim=width, pair_dim=2)
    prior = np.random.default_rng(0).normal(size=width).astype(np.float32) * 3
    weights = zero_weights(shape) | {"prior": prior}
    environ = {"DAYJOB_HOLDBACK": "0.2", "DAYJOB_WATCH_SHARE": "0", "DAYJOB_WATCH_MOST_SHARE": "0",
               "DAYJOB_TRIAL_SHARE": "0"}  # fmt: skip
    with running(data, environ=environ) as server:

        async def all_of_it():
            async with AsyncClient(server.url) as client:
                await declare(client, world)
                await client.promote("geospot", _publish(data, shape, weights), reason="to be measured")
                return await play(client, world, users=Users(POPULATIONS[Population.HONEST]), rounds=PLAYED, seed=0)

        played = asyncio.run(all_of_it())
        server.stop()
    champion = next(name for name in played.by_version() if name.startswith("v1-"))
    assert set(served_by(played)) == {champion}
    ranker = NumpyRanker(weights, shape.to_json())
    first_of = FirstChoices(world, {champion: ranker, "v0-baseline": None})
    found = costs_by_role(Reader(data), played, first_of=first_of)
    # The same from the photos themselves, without the journal.
    photos = journals.load_played(world, PLAYED, seed=0, cache_dir=tmp_path)
    rows = np.arange(PLAYED)
    own_km_N = photos.distance_NK[rows, journals.scores(world, photos, ranker=ranker).argmax(axis=1)]
    held_N = played.role_N == "baseline"
    assert 5 < held_N.sum() < 65
    assert (played.served_km_N[held_N] == photos.distance_NK[held_N, 0]).all()
    total = float(own_km_N.sum())
    assert found["baseline"] == pytest.approx(
        float((photos.distance_NK[:, 0] - own_km_N)[held_N].sum()) / total, abs=1e-3
    )
    assert found["champion"] == pytest.approx(float((played.served_km_N - own_km_N)[~held_N].sum()) / total, abs=1e-3)
    # Which rounds are held back is chance, so their sum may be near nothing; that it is made of differences is not.
    assert (photos.distance_NK[:, 0] != own_km_N)[held_N].mean() > 0.3
    assert found["trial"] == 0.0


def _publish(data, shape, weights) -> str:
    manifest = versions.VersionManifest(
        recipe="test", network=json.loads(json.dumps(shape.to_json())), from_seq=0, to_seq=0, seed=0, created_ms=0
    )
    stored = versions.publish(data, "default", "geospot", number=1, weights=weights, manifest=manifest)
    Control(data).add_version(
        Version(
            tenant="default", policy="geospot", name=stored.version, number=1, parent=None, recipe="test",
            digest=stored.digest, from_seq=0, to_seq=0, status=VersionStatus.WAITING, created_ms=0,
        )
    )  # fmt: skip
    return stored.version
