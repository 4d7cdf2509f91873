"""The main job, end to end: `make run`.

A real server with its learner and judge, Geospot's page beside it, and simulated users who play it over HTTP through
the public client. What comes of it is printed as it was served, beside what the published learners do on the same
photos; then the pages stay open.
"""

import asyncio
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from geospot.gallery import load_gallery
from geospot.play import Played, declare, play, show_progress
from geospot.users import POPULATIONS, Population, Users
from geospot.world import Photos, World
from rich.console import Console
from rich.table import Table

from dayjob.client import AsyncClient
from dayjob.endings import Invalid
from dayjob.lab.geospot_served import Served, measure, settled
from dayjob.lab.published import rows, small_field
from dayjob.lab.server import Server, running

HELD_OUT = 4_000
PEOPLE = Population.MIXED  # four hundred who come back, some better informed than others
GEOSPOT_PORT = 8090
PUBLISHED_MARKS = (1_000, 5_000)
console = Console()


def run(*, rounds: int, seed: int, data: Path, cache: Path, stay: bool) -> Served:
    """Play a day and print what was served; with ``stay`` keep the pages open until interrupted."""
    began = time.perf_counter()
    if data.exists():
        _clear(data)
    console.print("Geospot: the gallery's 100,000 places (embedded once, then kept) ...")
    world = World(load_gallery(cache))
    held_out = world.photos(HELD_OUT, seed=1_000_003 + seed)
    arguments = ("--port", "8080") if _free(8080) else ()
    with running(data, arguments=arguments) as server:
        page = _geospot(server, cache)
        console.print(
            f"dayjob serves at [b]{server.url}[/] (dashboard), Geospot at [b]http://127.0.0.1:{GEOSPOT_PORT}[/]"
        )
        console.print(
            f"{rounds:,} rounds by simulated people on simulated photos;"
            " 65 % of their clicks fall on the first place unseen:"
        )
        try:
            served = _play(server, world, rounds=rounds, seed=seed, held_out=held_out)
            print_table(served)
            console.print("The published learners on the same world, learning online from the same kind of users:")
            print_published(rows(small_field(cache), seed=seed, marks=PUBLISHED_MARKS))
            console.print(f"done in {time.perf_counter() - began:.0f} s")
            if stay:
                console.print(f"The pages stay open: {server.url} and http://127.0.0.1:{GEOSPOT_PORT} (Ctrl-C ends)")
                server.process.wait()
        except KeyboardInterrupt:
            console.print("ended")
        finally:
            page.terminate()
            page.wait()
            if server.process.poll() is None:
                server.stop()
    return served


def _play(server: Server, world: World, *, rounds: int, seed: int, held_out: Photos) -> Served:
    """The simulated users' day over HTTP, and its figures once the judge has caught up."""
    began = time.perf_counter()
    played, report = asyncio.run(_over_http(server.url, world, rounds=rounds, seed=seed))
    return measure(
        server.data, world, played=played, population=PEOPLE, seed=seed, held_out=held_out, report=report,
        seconds=time.perf_counter() - began,
    )  # fmt: skip


async def _over_http(url: str, world: World, *, rounds: int, seed: int) -> tuple[Played, dict[str, Any]]:
    async with AsyncClient(url) as client:
        await declare(client, world)
        with show_progress(console) as progress:
            users = Users(POPULATIONS[PEOPLE])
            played = await play(client, world, users=users, rounds=rounds, seed=seed, progress=progress)
        return played, await settled(client, "geospot")


def print_table(served: Served) -> None:
    """What was served, by version, and what the gate said."""
    table = Table(title="What was really served (simulated photos, simulated users, everything else real)")
    for heading in ("", "km, first place", "against GeoCLIP's first guess"):
        table.add_column(heading, justify="left" if not heading else "right")
    base = served.held_out_baseline_km
    table.add_row("GeoCLIP's first guess (baseline)", f"{base:,.0f}", "")
    for name, km in served.champions.items():
        if name != "v0-baseline":
            table.add_row(f"champion {name}, its best order, unseen photos", f"{km:,.0f}", f"{km / base - 1:+.1%}")
    last = max(served.sampled_gain)
    table.add_row(f"shown to users, the tenth before {last:,}", "", f"{-served.sampled_gain[last]:+.1%}")
    table.add_row("best of the ten", f"{served.best_km:,.0f}", f"{served.best_km / served.baseline_km - 1:+.1%}")
    console.print(table)
    console.print(f"clicks: {served.feedback_state}. {served.feedback_reason}")
    console.print(f"exploring and trials cost users {served.exploration_cost:+.2%} km")
    for verdict in served.promotions:
        console.print(f"gate: {verdict['kind']} {verdict['challenger']} against {verdict['champion']}")


def print_published(found: list[dict[str, Any]]) -> None:
    """What became of the published learners."""
    table = Table(title="Published learners (head from scratch): change in km against GeoCLIP's first guess")
    for heading in ("learner", "interactions", "its best order", "as it shows them"):
        table.add_column(heading, justify="left" if heading == "learner" else "right")
    for row in found:
        table.add_row(row["learner"], f"{row['interactions']:,}", f"{row['greedy']:+.1%}", f"{row['sampled']:+.1%}")
    console.print(table)


def _geospot(server: Server, cache: Path) -> "subprocess.Popen[bytes]":
    """Geospot's own page, a process of its own."""
    command = [
        sys.executable, "-m", "geospot.app", "--dayjob", server.url, "--port", str(GEOSPOT_PORT), "--cache", str(cache),
    ]  # fmt: skip
    log = server.log.with_name("geospot.log").open("ab")
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _clear(data: Path) -> None:
    """Remove an earlier day's data, and nothing that is not ours."""
    if not (data / "control.db").exists() and any(data.iterdir()):
        raise Invalid(f"{data} is not a data directory of ours: name another with --data")
    shutil.rmtree(data)
