"""Simulated users playing Geospot over HTTP: every round is a real decision and outcome, through the public client.

What is simulated is the photo (an embedding drawn by `geospot.world`) and the person (`geospot.users`); what is served,
logged, learned from and judged is the real thing. Both are drawn from the round's own seed, so that the same rounds are
played however many run at once and whatever is served.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from dayjob.client import AsyncClient, Feedback, Ranking
from geospot.gallery import load_gallery
from geospot.shortlist import DAYJOB_URL, POLICY, candidates, relevance, row_of, shortlist, spec
from geospot.users import ANONYMOUS, POPULATIONS, Population, Users
from geospot.world import Photos, World

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I16 = npt.NDArray[np.int16]
I32 = npt.NDArray[np.int32]
Words = npt.NDArray[np.str_]

CHUNK = 256  # photos drawn at a time, while the ones before are played
CONCURRENCY = 16
RECENT = 500  # rounds in the running mean that the progress line shows


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """N rounds in the order they were dealt, K places each: in the order shown, but for ``retrieved_km_NK``."""

    decision_N: Words  # ids
    version_N: Words  # what served: the champion's name, or the baseline's
    role_N: Words  # "champion", "trial", "baseline" or "best"
    user_N: I32  # number within the population, -1 anonymous
    click_N: I16  # clicked position from 0, -1 nothing
    row_NK: I32  # gallery rows
    propensity_NK: F64
    km_NK: F32  # true distance of the place shown at each position
    retrieved_km_NK: F32  # the same ten as retrieval ordered them: position 0 is GeoCLIP's first guess
    at_s_N: F64  # when it was answered, seconds since the first round began

    def __len__(self) -> int:
        return len(self.decision_N)

    @property
    def served_km_N(self) -> F32:
        """How far off the first place shown was."""
        return self.km_NK[:, 0]

    @property
    def baseline_km_N(self) -> F32:
        """How far off GeoCLIP's first guess was, on the same photos."""
        return self.retrieved_km_NK[:, 0]

    @property
    def best_km_N(self) -> F32:
        """How far off the best of the ten was."""
        return np.asarray(self.km_NK.min(axis=1), dtype=np.float32)

    def rows(self, index: npt.NDArray[np.bool_] | slice) -> Played:
        """The rounds at ``index``."""
        return Played(**{each.name: getattr(self, each.name)[index] for each in fields(self)})

    def by_version(self) -> dict[str, Played]:
        """The rounds of each version that served, in the order of its first appearance."""
        names, first = np.unique(self.version_N, return_index=True)
        return {str(name): self.rows(self.version_N == name) for name in names[np.argsort(first)]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One photo, who sees it, and the seed of what they do."""

    number: int
    photo: Photos  # of length one
    user: int
    seed: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """One round as it went."""

    round: Round
    answer: Ranking
    km_K: F32  # true kilometres in the order shown
    click: int
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast rounds are played: at most ``concurrency`` at once; ``pause`` is awaited before each CHUNK of them, and
    nobody new plays until it returns."""

    concurrency: int = CONCURRENCY
    pause: Callable[[], Awaitable[None]] | None = None


async def play(
    client: AsyncClient,
    world: World,
    *,
    users: Users,
    policy: str = POLICY,
    rounds: int,
    seed: int = 0,
    pace: Pace = Pace(),
    progress: Progress | None = None,
) -> Played:
    """Plays ``rounds`` rounds and gives what was served and what was true.

    The policy must exist (see ``declare``). The first call that fails for good ends the play with its exception.
    """
    waiting: asyncio.Queue[Round | None] = asyncio.Queue(maxsize=pace.concurrency)
    ended: list[Ended] = []
    started = time.perf_counter()
    task = None if progress is None else progress.add_task("", total=rounds)

    async def deal() -> None:
        async for each in _rounds(world, users, rounds=rounds, seed=seed):
            if pace.pause is not None and each.number % CHUNK == 0:
                await pace.pause()
            await waiting.put(each)
        for _ in range(pace.concurrency):
            await waiting.put(None)

    async def work() -> None:
        while (each := await waiting.get()) is not None:
            ended.append(await _one(client, world, users, each, policy=policy, started=started))
            if progress is not None and task is not None:
                progress.update(task, advance=1, description=_running(ended))

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(deal())
            for _ in range(pace.concurrency):
                group.create_task(work())
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed  # the first that failed; the others were cancelled because of it
    return _played(sorted(ended, key=lambda each: each.round.number))


async def declare(client: AsyncClient, world: World, *, policy: str = POLICY) -> None:
    """Makes sure that the server answers and has Geospot's policy."""
    await client.wait_ready()
    await client.put_policy(policy, spec(world.gallery))


async def _rounds(world: World, users: Users, *, rounds: int, seed: int) -> AsyncIterator[Round]:
    user_N = people_of(users, rounds=rounds, seed=seed)
    drawn, number = photos_of(world, rounds=rounds, seed=seed), 0
    while (photos := await asyncio.to_thread(next, drawn, None)) is not None:
        for offset in range(len(photos)):
            photo = photos.rows(slice(offset, offset + 1))
            yield Round(number=number, photo=photo, user=int(user_N[number]), seed=(seed, number))
            number += 1


def photos_of(world: World, *, rounds: int, seed: int) -> Iterator[Photos]:
    """The photos of a play, a chunk at a time: the same for all users, and whatever is served."""
    for rng, count in _chunks(rounds, seed):
        yield world.photos(count, seed=_photo_seed(rng))


def people_of(users: Users, *, rounds: int, seed: int) -> I32:
    """Who plays each round of a play: user numbers, -1 anonymous."""
    parts = []
    for rng, count in _chunks(rounds, seed):
        _photo_seed(rng)  # the photos of the chunk are drawn first
        parts.append(users.draw(count, rng))
    return np.concatenate(parts)


def _chunks(rounds: int, seed: int) -> Iterator[tuple[np.random.Generator, int]]:
    for start in range(0, rounds, CHUNK):
        yield np.random.default_rng([seed, start]), min(CHUNK, rounds - start)


def _photo_seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**63))


async def _one(client: AsyncClient, world: World, users: Users, each: Round, *, policy: str, started: float) -> Ended:
    photo = each.photo
    found = shortlist(world, photo.context_ND[0], row_K=photo.candidate_NK[0], similarity_K=photo.similarity_NK[0])
    user = None if each.user == ANONYMOUS else f"simulated-{each.user}"
    answer = await client.rank(policy, found.context_D, candidates=candidates(world.gallery, found), user=user)
    at_s = time.perf_counter() - started
    km_K = _shown(photo, answer)
    rng = np.random.default_rng([*each.seed, 1])
    click = int(users.click(km_K[None, :], np.array([each.user]), rng=rng)[0])
    said = answer.click(answer.ranking[click].id) if click >= 0 else Feedback(decision=answer.id, kind="none")
    await client.feedback(said)
    if rng.random() < users.config.pin:  # drawn after the click: with pins or without, the clicks are the same
        km = {ranked.id: float(km) for ranked, km in zip(answer.ranking, km_K, strict=True)}
        await client.feedback(answer.truth(relevance(km)))
    return Ended(round=each, answer=answer, km_K=km_K, click=click, at_s=at_s)


def _shown(photo: Photos, answer: Ranking) -> F32:
    """True kilometres of the places in the order shown: (K,)."""
    km = {int(row): km for row, km in zip(photo.candidate_NK[0], photo.distance_NK[0], strict=True)}
    return np.array([km[row_of(ranked.id)] for ranked in answer.ranking], dtype=np.float32)


def _running(ended: Sequence[Ended]) -> str:
    recent = ended[-RECENT:]
    served_km = sum(float(each.km_K[0]) for each in recent) / len(recent)
    guessed_km = sum(float(each.round.photo.distance_NK[0, 0]) for each in recent) / len(recent)
    return f"{recent[-1].answer.version}: {served_km:,.0f} km (first guess {guessed_km:,.0f})"


def _played(ended: Sequence[Ended]) -> Played:
    return Played(
        decision_N=np.array([each.answer.id for each in ended], dtype=np.str_),
        version_N=np.array([each.answer.version for each in ended], dtype=np.str_),
        role_N=np.array([each.answer.role.value for each in ended], dtype=np.str_),
        user_N=np.array([each.round.user for each in ended], dtype=np.int32),
        click_N=np.array([each.click for each in ended], dtype=np.int16),
        row_NK=np.array([[row_of(one.id) for one in each.answer.ranking] for each in ended], dtype=np.int32),
        propensity_NK=np.array([[one.propensity for one in each.answer.ranking] for each in ended], dtype=np.float64),
        km_NK=np.array([each.km_K for each in ended], dtype=np.float32),
        retrieved_km_NK=np.array([each.round.photo.distance_NK[0] for each in ended], dtype=np.float32),
        at_s_N=np.array([each.at_s for each in ended], dtype=np.float64),
    )


def table(played: Played) -> Table:
    """What each version served, against GeoCLIP's first guess on the same photos."""
    shown = Table(title="Simulated photos, simulated users: mean distance of the first place shown")
    for heading in (
        "version",
        "rounds",
        "served km",
        "first guess km",
        "difference",
        "best of ten km",
        "clicked first",
    ):
        shown.add_column(heading, justify="left" if heading == "version" else "right", no_wrap=heading == "version")
    for name, part in {**played.by_version(), "all": played}.items():
        served, guessed = float(part.served_km_N.mean()), float(part.baseline_km_N.mean())
        shown.add_row(
            name,
            f"{len(part):,}",
            f"{served:,.0f}",
            f"{guessed:,.0f}",
            f"{served / guessed - 1:+.1%}",
            f"{part.best_km_N.mean():,.0f}",
            f"{np.mean(part.click_N == 0):.0%}",
        )
    return shown


def show_progress(console: Console | None = None) -> Progress:
    """A progress bar for ``play``: rounds, the version that serves, kilometres over the last rounds, time left."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    return Progress(*columns, console=console)


async def _main(args: argparse.Namespace) -> None:
    world = World(load_gallery(args.cache))
    users = Users(replace(POPULATIONS[args.users], pin=args.pin))
    async with AsyncClient(args.dayjob, key=os.environ.get("DAYJOB_KEY")) as client:
        await declare(client, world, policy=args.policy)
        with show_progress() as progress:
            played = await play(
                client, world, users=users, policy=args.policy, rounds=args.rounds, seed=args.seed, progress=progress
            )
    Console().print(table(played))


def main() -> None:
    """``python -m geospot.play``"""
    parser = argparse.ArgumentParser(
        description="Simulated users play Geospot against a running dayjob. Its key, if it has keys, in DAYJOB_KEY."
    )
    parser.add_argument("--dayjob", default=os.environ.get("DAYJOB_URL", DAYJOB_URL), help="where dayjob serves")
    parser.add_argument("--policy", default=POLICY)
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--users", type=Population, choices=list(Population), default=Population.GEOSPOT)
    parser.add_argument("--pin", type=float, default=0.0, help="share of rounds after which they mark the true place")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path("data/geospot"), help="where gallery embeddings are kept")
    asyncio.run(_main(parser.parse_args()))


if __name__ == "__main__":
    main()
