"""Simulated users against a real dayjob: what comes back is what was served, and what was true."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from geospot.play import Pace, Played, declare, play, show_progress, table
from geospot.users import POPULATIONS, Population, Users
from geospot.world import World, haversine_km
from rich.console import Console

from dayjob.client import ApiError, AsyncClient, Client

ROUNDS = 60


def played(
    url: str, world: World, *, policy: str, population: Population, concurrency: int = 8, pin: float = 0.0
) -> Played:
    async def all_of_it() -> Played:
        async with AsyncClient(url) as client:
            await declare(client, world, policy=policy)
            users = Users(replace(POPULATIONS[population], pin=pin))
            with show_progress(Console(quiet=True)) as progress:
                return await play(
                    client,
                    world,
                    users=users,
                    policy=policy,
                    rounds=ROUNDS,
                    seed=5,
                    pace=Pace(concurrency=concurrency),
                    progress=progress,
                )

    return asyncio.run(all_of_it())


def test_what_is_returned_is_what_dayjob_recorded(world: World, dayjob_url: str) -> None:
    got = played(dayjob_url, world, policy="play-record", population=Population.HONEST)
    with Client(dayjob_url) as client:
        counts = client.policy("play-record").counts
        kept = {record["id"]: record for record in client.export("play-record")}
    assert counts.decisions == len(got) == ROUNDS
    assert counts.outcomes.get("click", 0) == np.count_nonzero(got.click_N >= 0)
    assert counts.outcomes.get("none", 0) == np.count_nonzero(got.click_N < 0)
    for index, id in enumerate(got.decision_N):
        record = kept[str(id)]
        assert [f"g{row}" for row in got.row_NK[index]] == [one["id"] for one in record["ranking"]]
        assert (record["version"], record["role"]) == (got.version_N[index], got.role_N[index])
        np.testing.assert_allclose(got.propensity_NK[index], [one["propensity"] for one in record["ranking"]])


def test_distances_are_of_the_places_in_the_order_shown(world: World, dayjob_url: str) -> None:
    got = played(dayjob_url, world, policy="play-km", population=Population.HONEST)
    coords_NK2 = world.gallery.coords_G2[got.row_NK]
    np.testing.assert_allclose(np.sort(got.km_NK, axis=1), np.sort(got.retrieved_km_NK, axis=1))
    # two places of one list lie at most as far apart as both are from the photo together
    apart_N = haversine_km(coords_NK2[:, 0], coords_NK2[:, 9])
    assert np.all(apart_N <= got.km_NK[:, 0] + got.km_NK[:, 9] + 1)
    looked = got.click_N >= 0
    clicked_N = got.km_NK[np.arange(ROUNDS), got.click_N]
    assert clicked_N[looked].mean() < got.km_NK[looked].mean() / 2  # honest users find near places


def test_the_same_rounds_are_dealt_however_many_run_at_once(world: World, dayjob_url: str) -> None:
    one = played(dayjob_url, world, policy="play-one", population=Population.MIXED, concurrency=1)
    many = played(dayjob_url, world, policy="play-many", population=Population.MIXED, concurrency=20)
    np.testing.assert_array_equal(one.retrieved_km_NK, many.retrieved_km_NK)
    np.testing.assert_array_equal(one.user_N, many.user_N)
    assert len(set(one.user_N.tolist())) > 10


def test_position_only_users_click_the_first(world: World, dayjob_url: str) -> None:
    got = played(dayjob_url, world, policy="play-first", population=Population.POSITION_ONLY)
    assert np.all(got.click_N == 0)
    by_version = got.by_version()
    assert sum(len(part) for part in by_version.values()) == ROUNDS
    assert table(got).row_count == len(by_version) + 1
    np.testing.assert_array_equal(got.best_km_N, got.retrieved_km_NK.min(axis=1))


def test_some_players_mark_the_true_place_and_nothing_else_changes(world: World, dayjob_url: str) -> None:
    without = played(dayjob_url, world, policy="play-clicks", population=Population.HONEST)
    got = played(dayjob_url, world, policy="play-pins", population=Population.HONEST, pin=0.5)
    np.testing.assert_array_equal(got.retrieved_km_NK, without.retrieved_km_NK)
    with Client(dayjob_url) as client:
        assert client.policy("play-clicks").counts.outcomes.get("truth", 0) == 0
        assert client.policy("play-pins").counts.outcomes["click"] == np.count_nonzero(got.click_N >= 0)
        truths = {r["id"]: o for r in client.export("play-pins") for o in r["outcomes"] if o["kind"] == "truth"}
    assert 15 < len(truths) < 45
    for index, id in enumerate(got.decision_N.tolist()):
        if id in truths:
            relevance = truths[id]["value"]["relevance"]
            nearest = f"g{got.row_NK[index, got.km_NK[index].argmin()]}"
            assert max(relevance, key=lambda item: relevance[item]) == nearest


def test_nobody_plays_while_there_is_a_pause(world: World, dayjob_url: str) -> None:
    paused = []

    async def all_of_it() -> Played:
        async with AsyncClient(dayjob_url) as client:
            await declare(client, world, policy="play-pause")

            async def pause() -> None:
                paused.append((await client.policy("play-pause")).counts.decisions)

            users = Users(POPULATIONS[Population.HONEST])
            return await play(
                client, world, users=users, policy="play-pause", rounds=300, pace=Pace(concurrency=4, pause=pause)
            )

    assert len(asyncio.run(all_of_it())) == 300
    assert len(paused) == 2  # before each chunk of 256
    assert paused[0] == 0
    assert 256 - 2 * 4 <= paused[1] <= 256


def test_a_failure_ends_the_play_with_its_own_error(world: World, dayjob_url: str) -> None:
    async def undeclared() -> None:
        async with AsyncClient(dayjob_url) as client:
            await play(
                client, world, users=Users(POPULATIONS[Population.HONEST]), policy="nobody-declared-this", rounds=9
            )

    with pytest.raises(ApiError, match="404"):
        asyncio.run(undeclared())
