"""The speed lab measures what it says: nothing is stored below /empty, fresh vectors are fresh, errors are counted."""

import asyncio
from pathlib import Path

import httpx2
import numpy as np

from dayjob.client import Client
from dayjob.journal.readers import Reader
from dayjob.lab import speed_world as world
from dayjob.lab.server import running
from dayjob.lab.speed import PROGRAM
from dayjob.lab.speed_load import _own
from dayjob.lab.speed_server import EMPTY


def test_what_is_measured(tmp_path: Path) -> None:
    rng, data = np.random.default_rng(0), tmp_path / "data"
    world.declare(data, rng)
    version = world.publish_version(data, rng=rng)
    store = world.open_store(data)
    try:
        ids = world.copy_decisions(store, world.first_decision(data, world.SMALL), count=50)
    finally:
        store.close()
    bodies = world.feedback_bodies(tmp_path / "feedback.txt", ids).read_text().splitlines()
    inline = world.rank_bodies(tmp_path / "inline.txt", 1, inline=True, rng=rng).read_text().splitlines()
    catalog = world.rank_bodies(tmp_path / "catalog.txt", 5, inline=False, rng=rng).read_text().splitlines()
    with running(data, program=PROGRAM, arguments=()) as server, Client(server.url) as client:
        empty = asyncio.run(_own(f"{server.url}{EMPTY}/v1/feedback", bodies, connections=2, seconds=0.3))
        assert (empty.errors, client.policy(world.SMALL).counts.outcomes) == (0, {})
        told = asyncio.run(_own(f"{server.url}/v1/feedback", bodies, connections=2, seconds=0.3))
        assert (told.errors, client.policy(world.SMALL).counts.outcomes) == (0, {"click": told.requests})
        assert 0 < told.p50_ms <= told.p99_ms
        before = client.policy(world.POLICY).counts.decisions
        for lines in (inline, catalog):
            assert asyncio.run(_own(f"{server.url}/v1/rank", lines, connections=2, seconds=0.3)).errors == 0
        fresh = Reader(data).decisions("default", world.POLICY)[0][before:]
        contexts = [one.record.context for one in fresh]
        assert len(contexts) == len(set(contexts))
        vectors = [one.record.candidates[0].digest for one in fresh if one.record.candidates[0].id == "c0"]
        assert len(vectors) == len(set(vectors)) > 1
        refused = asyncio.run(_own(f"{server.url}/v1/rank", ["{}"], connections=1, seconds=0.1))
        assert refused.errors == refused.requests > 0
        assert client.promote(world.POLICY, version, reason="measured")["champion"] == version
        assert httpx2.post(f"{server.url}{EMPTY}/v1/rank", content=b"{}").status_code == 415
        assert server.cpu_s() > 0
