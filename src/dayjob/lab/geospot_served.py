"""What was really served: simulated users play Geospot against a real server, over HTTP, and its own gate promotes.

Everything is measured from the outside: the kilometres of the first place that each user was shown, and, for each
version that ever was champion, its best order on photos that nobody played with.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from geospot.play import Played, declare, play
from geospot.users import POPULATIONS, Population, Users
from geospot.world import Photos, World, haversine_km
from rich.progress import Progress

from dayjob.cli.assemble import load_ranker
from dayjob.client import AsyncClient
from dayjob.journal.control import Control
from dayjob.journal.readers import START, Reader
from dayjob.lab.server import running
from dayjob.policies.protocol import Lists, Ranker

F64 = npt.NDArray[np.float64]
CHECKPOINTS = (200, 1_000, 5_000, 20_000)
SETTLE_S = 120.0
TENANT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One play over HTTP. Kilometres are means; ``gain`` is 1 - served/first guess, on the same photos.

    ``greedy_km`` by checkpoint: the best order of the version that was champion then, on held-out photos.
    ``sampled_km`` by checkpoint: what users were shown over the last tenth before it.
    """

    population: str
    seed: int
    rounds: int
    baseline_km: float
    best_km: float
    held_out_baseline_km: float
    greedy_km: dict[int, float]
    sampled_gain: dict[int, float]
    champions: dict[str, float]  # every version that ever served as champion: held-out km
    promotions: list[dict[str, Any]]
    exploration_cost: float  # (km shown - km of the champion's own first choice) / the latter, over all rounds
    feedback_state: str
    feedback_reason: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> "Served":
        """The inverse of :meth:`to_json`; JSON has written the checkpoints as text."""
        numbered = {name: {int(n): v for n, v in body[name].items()} for name in ("greedy_km", "sampled_gain")}
        return cls(**{**body, **numbered})


def serve_and_play(
    world: World, population: Population, *, seed: int, rounds: int, held_out: Photos, data: Path,
    progress: Progress | None = None,
) -> Served:  # fmt: skip
    """Play ``rounds`` rounds against a fresh server in ``data`` and measure what it served."""
    began = time.perf_counter()
    with running(data, arguments=()) as server:
        played, report = asyncio.run(_play(server.url, world, population, seed=seed, rounds=rounds, progress=progress))
        server.stop()
    return measure(
        data, world, played=played, population=population, seed=seed, held_out=held_out, report=report,
        seconds=time.perf_counter() - began,
    )  # fmt: skip


async def _play(
    url: str, world: World, population: Population, *, seed: int, rounds: int, progress: Progress | None
) -> tuple[Played, dict[str, Any]]:
    users = Users(POPULATIONS[population])
    async with AsyncClient(url) as client:
        await declare(client, world)
        played = await play(client, world, users=users, rounds=rounds, seed=seed, progress=progress)
        report = await settled(client, "geospot")
    return played, report


async def settled(client: AsyncClient, policy: str) -> dict[str, Any]:
    """The report once every closed decision is judged."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        report = await client.report(policy)
        if report.gate.get("lag", 1) == 0 and report.gate.get("judged_through", 0) > 0:
            return {"feedback": asdict(report.feedback), "gate": dict(report.gate)}
        if time.monotonic() > deadline:
            raise TimeoutError(f"the judge has not caught up within {SETTLE_S} s")
        await asyncio.sleep(0.5)


def measure(
    data: Path, world: World, *, played: Played, population: Population, seed: int, held_out: Photos,
    report: dict[str, Any], seconds: float,
) -> Served:  # fmt: skip
    """The figures of one play, from what was played and from the data directory it left."""
    control, reader = Control(data), Reader(data)
    versions = {version.name: version for version in control.versions(TENANT, "geospot")}
    served = sorted(
        {str(name) for name in played.version_N[played.role_N != "baseline"]}, key=lambda n: versions[n].number
    )
    greedy = {}
    for name in served:
        ranker = None
        if versions[name].number:
            ranker = load_ranker(data, TENANT, "geospot", name, versions[name].digest)
        greedy[name] = held_out_km(world, held_out, ranker=ranker)
    promotions = [
        {"challenger": v.challenger, "champion": v.champion, "kind": v.kind.value, "evidence": v.evidence}
        for v in control.verdicts(TENANT, "geospot")
    ]
    ends = sorted({*(n for n in CHECKPOINTS if n <= len(played)), len(played)})
    return Served(
        population=population.value,
        seed=seed,
        rounds=len(played),
        baseline_km=float(played.baseline_km_N.mean()),
        best_km=float(played.best_km_N.mean()),
        held_out_baseline_km=held_out_km(world, held_out, ranker=None),
        greedy_km={n: greedy[_champion_at(played, n)] for n in ends},
        sampled_gain={n: _gain(played, slice(max(0, n - max(n // 10, 100)), n)) for n in ends},
        champions=greedy,
        promotions=promotions,
        exploration_cost=exploration_cost(reader, played),
        feedback_state=str(report["feedback"]["state"]),
        feedback_reason=str(report["feedback"]["reason"]),
        seconds=seconds,
    )


def _champion_at(played: Played, n: int) -> str:
    """The champion's name when round n was answered."""
    before = np.flatnonzero(played.role_N[:n] != "baseline")
    return str(played.version_N[before[-1]])


def _gain(played: Played, rounds: slice) -> float:
    return 1.0 - float(played.served_km_N[rounds].mean()) / float(played.baseline_km_N[rounds].mean())


def lists_of(world: World, photos: Photos) -> Lists:
    """Photos with their candidates as a ranker sees them."""
    pair_NKP, score_NK = world.pairs(photos.similarity_NK)
    place_NK2 = world.gallery.coords_G2[photos.candidate_NK]
    loss_NKK = haversine_km(place_NK2[:, :, None, :], place_NK2[:, None, :, :]).astype(np.float64)
    return Lists(
        context_BD=photos.context_ND,
        candidate_BKE=world.gallery.embedding_GD[photos.candidate_NK],
        pair_BKP=pair_NKP,
        base_BK=score_NK.astype(np.float64),
        loss_BKK=loss_NKK,
    )


def held_out_km(world: World, photos: Photos, *, ranker: Ranker | None, batch: int = 500) -> float:
    """Mean distance of a ranker's first choice; None: the caller's own order."""
    if ranker is None:
        return float(photos.distance_NK[:, 0].mean())
    total = 0.0
    for start in range(0, len(photos), batch):
        part = photos.rows(slice(start, start + batch))
        first_N = ranker.score(lists_of(world, part)).argmax(axis=1)
        total += float(part.distance_NK[np.arange(len(part)), first_N].sum())
    return total / len(photos)


def exploration_cost(reader: Reader, played: Played) -> float:
    """How much farther off the places shown first were than the champion's own first choices, as a share."""
    first: dict[str, str] = {}
    cursor = START
    while True:
        page, cursor = reader.decisions(TENANT, "geospot", cursor=cursor)
        if not page:
            break
        for stored in page:
            slot = int(np.argmax(np.frombuffer(stored.record.score, "<f8")))
            first[stored.record.id] = stored.record.candidates[slot].id
    own, shown = 0.0, 0.0
    for n, decision in enumerate(played.decision_N):
        rows = [f"g{row}" for row in played.row_NK[n]]
        own += float(played.km_NK[n, rows.index(first[str(decision)])])
        shown += float(played.km_NK[n, 0])
    return shown / own - 1.0


def worse_than_baseline(results: Sequence[Served], *, tolerance: float = 0.01) -> list[tuple[str, int, str, float]]:
    """Versions that became champion and are truly worse than the baseline: (population, seed, version, share)."""
    out = []
    for result in results:
        for name, km in result.champions.items():
            share = km / result.held_out_baseline_km - 1.0
            if share > tolerance:
                out.append((result.population, result.seed, name, share))
    return out
