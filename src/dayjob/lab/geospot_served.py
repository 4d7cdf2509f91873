"""What was really served: simulated users play Geospot against a real server, over HTTP, and its own gate promotes.

Everything is measured from the outside: the kilometres of the first place that each user was shown, and, for each
version that ever was champion, its best order on photos that nobody played with.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from geospot.play import Pace, Played, Words, declare, play
from geospot.shortlist import row_of
from geospot.users import POPULATIONS, Population, Users
from geospot.world import Photos, World
from rich.progress import Progress

from dayjob.cli.assemble import load_ranker
from dayjob.client import AsyncClient
from dayjob.journal import jobs, vectors
from dayjob.journal.control import Control
from dayjob.journal.readers import START, Reader
from dayjob.lab.geospot_journal import scores
from dayjob.lab.server import Server, running
from dayjob.policies.baseline import great_circle_km
from dayjob.policies.protocol import Lists, Ranker
from dayjob.records import Decision

CHECKPOINTS = (200, 1_000, 5_000, 20_000)
SETTLE_S = 120.0
NIGHT_S = 1_800.0
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
    champion_from: dict[str, int]  # the round (from 1) in which each of them first served as champion
    promotions: list[dict[str, Any]]
    costs: dict[str, float]  # by role: see ``costs_by_role``
    feedback_state: str
    feedback_reason: str
    pin: float  # share of rounds after which players marked the true place
    seconds: float  # from the first round to the last
    code: str = ""  # of the sources that served it

    @property
    def cost(self) -> float:
        """What exploring, trials and the holdback cost together, as a share of the km of the champion alone."""
        return sum(self.costs.values())

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
    with running(data, arguments=()) as server:
        played, report = asyncio.run(_play(server, world, population, seed=seed, rounds=rounds, progress=progress))
        server.stop()
    return measure(
        data, world, played=played, population=population, seed=seed, held_out=held_out, report=report
    )  # fmt: skip


async def _play(
    server: Server, world: World, population: Population, *, seed: int, rounds: int, progress: Progress | None
) -> tuple[Played, dict[str, Any]]:
    users, control = Users(POPULATIONS[population]), Control(server.data)
    async with AsyncClient(server.url) as client:
        await declare(client, world)
        played = await play(
            client,
            world,
            users=users,
            rounds=rounds,
            seed=seed,
            progress=progress,
            pace=Pace(pause=lambda: learned(control)),
        )
        report = await settled(client, "geospot")
    return played, report


async def learned(control: Control) -> None:
    """Wait until no fit is under way: a night's seconds are no interactions, however fast or busy the machine is."""
    deadline = time.monotonic() + NIGHT_S
    while jobs.unfinished(control):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the learner has not finished within {NIGHT_S} s")
        await asyncio.sleep(0.2)


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
    report: dict[str, Any], pin: float = 0.0,
) -> Served:  # fmt: skip
    """The figures of one play, from what was played and from the data directory it left."""
    control, reader = Control(data), Reader(data)
    versions = {version.name: version for version in control.versions(TENANT, "geospot")}
    served = sorted(
        {str(name) for name in played.version_N[played.role_N != "baseline"]}, key=lambda n: versions[n].number
    )
    rankers: dict[str, Ranker | None] = {
        name: load_ranker(data, TENANT, "geospot", name, versions[name].digest) if versions[name].number else None
        for name in served
    }
    greedy = {name: held_out_km(world, held_out, ranker=ranker) for name, ranker in rankers.items()}
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
        champion_from={name: 1 + int(np.argmax(served_by(played) == name)) for name in greedy},
        promotions=promotions,
        costs=costs_by_role(reader, played, first_of=FirstChoices(world, rankers)),
        pin=pin,
        feedback_state=str(report["feedback"]["state"]),
        feedback_reason=str(report["feedback"]["reason"]),
        seconds=float(played.at_s_N.max()),
    )


def served_by(played: Played) -> Words:
    """The champion of each round: what served it or, in rounds of the holdback, what served the round before."""
    index_N = np.where(played.role_N != "baseline", np.arange(len(played)), -1)
    last_N = np.maximum.accumulate(index_N)
    first = int(np.argmax(index_N >= 0))  # a play may open with the holdback
    return np.asarray(played.version_N[np.where(last_N >= 0, last_N, first)])


def _champion_at(played: Played, n: int) -> str:
    """The champion's name when round n was answered."""
    return str(served_by(played)[n - 1])


def _gain(played: Played, rounds: slice) -> float:
    return 1.0 - float(played.served_km_N[rounds].mean()) / float(played.baseline_km_N[rounds].mean())


def held_out_km(world: World, photos: Photos, *, ranker: Ranker | None) -> float:
    """Mean distance of a ranker's first choice; None: the caller's own order."""
    if ranker is None:
        return float(photos.distance_NK[:, 0].mean())
    first_N = scores(world, photos, ranker=ranker).argmax(axis=1)
    return float(photos.distance_NK[np.arange(len(photos)), first_N].mean())


@dataclass(frozen=True, slots=True)
class FirstChoices:
    """The place that a champion alone would have shown first, from what the journal holds of a decision."""

    world: World
    rankers: Mapping[str, Ranker | None]  # None: the caller's own order

    def of(self, decision: Decision, *, champion: str) -> str:
        """The candidate's id. In a round of the holdback the journal has the baseline's scores: it is scored again."""
        score_K = np.frombuffer(decision.score, "<f8")
        if decision.version != champion:
            ranker = self.rankers[champion]
            score_K = np.frombuffer(decision.base, "<f8") if ranker is None else ranker.score(self._lists(decision))[0]
        return decision.candidates[int(np.argmax(score_K))].id

    def _lists(self, decision: Decision) -> Lists:
        gallery, k = self.world.gallery, len(decision.candidates)
        row_K = [row_of(candidate.id) for candidate in decision.candidates]
        context_D = vectors.unpack(decision.context, gallery.embedding_GD.shape[1])
        return Lists(
            context_BD=context_D[None],
            candidate_BKE=gallery.embedding_GD[row_K][None],
            pair_BKP=np.frombuffer(decision.pair, "<f4").reshape(1, k, -1),
            base_BK=np.frombuffer(decision.base, "<f8")[None],
            loss_BKK=great_circle_km(np.array(decision.extra["latlon"], np.float64))[None],
        )


def costs_by_role(reader: Reader, played: Played, *, first_of: FirstChoices) -> dict[str, float]:
    """What was shown first against what the champion alone would have shown first, in shares of the latter's km.

    By role: "champion" (exploring), "trial" (pairs, on trial and watched), "baseline" (the holdback). Their sum is what
    users paid in all.
    """
    champion = dict(zip(played.decision_N.tolist(), served_by(played).tolist(), strict=True))
    own: dict[str, str] = {}
    cursor = START
    while True:
        page, cursor = reader.decisions(TENANT, "geospot", cursor=cursor)
        if not page:
            break
        for stored in page:
            own[stored.record.id] = first_of.of(stored.record, champion=champion[stored.record.id])
    own_row_N = np.array([row_of(own[id]) for id in played.decision_N.tolist()])
    at_N = (played.row_NK == own_row_N[:, None]).argmax(axis=1)
    own_km_N = played.km_NK[np.arange(len(played)), at_N].astype(np.float64)
    extra_N = played.served_km_N - own_km_N
    return {
        role: float(extra_N[played.role_N == role].sum() / own_km_N.sum()) for role in ("champion", "trial", "baseline")
    }


def worse_than_baseline(results: Sequence[Served], *, tolerance: float = 0.01) -> list[tuple[str, int, str, float]]:
    """Versions that became champion and are truly worse than the baseline: (population, seed, version, share)."""
    out = []
    for result in results:
        for name, km in result.champions.items():
            share = km / result.held_out_baseline_km - 1.0
            if share > tolerance:
                out.append((result.population, result.seed, name, share))
    return out
