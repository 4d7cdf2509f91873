"""The main job, end to end: `make run`.

A real server with its learner and judge, Geospot's page beside it, and simulated users who play it over HTTP through
the public client. What comes of it is printed as it was served, beside what the published learners do on the same
photos; then the pages stay open.
"""

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from geospot.play import Played, declare, play, show_progress
from geospot.users import POPULATIONS, Population, Users
from geospot.world import Photos, World
from rich.console import Console
from rich.table import Table

from dayjob.client import AsyncClient
from dayjob.endings import DayjobError
from dayjob.lab import clerk_served
from dayjob.lab.geospot_journal import load_world
from dayjob.lab.geospot_offline import load_field
from dayjob.lab.geospot_served import Served, measure, settled
from dayjob.lab.published import rows
from dayjob.lab.server import Server, clear, running

HELD_OUT = 4_000
PEOPLE = Population.MIXED  # four hundred who come back, some better informed than others
DAYJOB_PORT, GEOSPOT_PORT = 8080, 8090  # where they are looked for first
PORTS = 20  # tried one after the other where one is taken
PAGE_S = 60.0  # until Geospot's page must have answered
PUBLISHED_MARKS = (1_000, 5_000)
console = Console()


def run(
    *, rounds: int, seed: int, pin: float, data: Path, cache: Path, stay: bool, clerk: Path | None = None
) -> Served | None:
    """Play a day and print what was served; with ``stay`` keep the pages open until interrupted.

    ``pin`` is the share of rounds after which a player marks the true place. ``clerk``: the folder of a language model
    that office staff then talk to for a day, with a night after it. None when it was interrupted before its table.
    Raises Invalid when ``data`` is not ours to clear, DayjobError when a page does not start.
    """
    began = time.perf_counter()
    served = None
    if data.exists():
        clear(data)
    console.print("[b]Simulated:[/] photos (drawn in GeoCLIP's own space) and people. [b]Real:[/] everything else.")
    try:
        console.print("Geospot: the gallery's 100,000 places, embedded once and then kept; photos ...")
        world = load_world(cache)
        field = load_field(world, seed=seed, rounds=max(PUBLISHED_MARKS), cache_dir=cache, held_out=HELD_OUT)
        port, environ = str(_free(DAYJOB_PORT)), {} if clerk is None else clerk_served.environ_of(clerk)
        with running(data, arguments=("--port", port), environ=environ) as server, _page(server, cache) as geospot:
            console.print(f"dayjob serves at [b]{server.url}[/] (dashboard), Geospot at [b]{geospot}[/]: open them now")
            console.print(
                f"{rounds:,} rounds by simulated people: they click the first place unseen in 65 % of rounds,"
                f" on average, else the one that seems closest; after {pin:.0%} of rounds they mark the true place."
            )
            served = _play(server, world, rounds=rounds, seed=seed, pin=pin, held_out=field.test)
            print_table(served)
            console.print("The published learners on the same photos, learning online from the same kind of people:")
            print_published(rows(field, PEOPLE, marks=PUBLISHED_MARKS))
            if clerk is not None:
                _clerk(server, clerk, seed=seed)
            console.print(f"done in {time.perf_counter() - began:.0f} s")
            if stay:
                console.print(f"The pages stay open: {server.url} and {geospot} (Ctrl-C ends)")
                server.process.wait()
            else:
                server.stop()
    except KeyboardInterrupt:
        console.print(f"ended; what was recorded is in {data}: dayjob serve --data {data}")
    return served


def _clerk(server: Server, folder: Path, *, seed: int) -> None:
    """A day of the clerk's office and the night after it, at the same server."""
    console.print(
        "The clerk: simulated staff of a small office talk to a language model, correct it, and it learns ..."
    )
    evenings: list[clerk_served.Evening] = []
    clerk_served.play_at(server, folder, days=1, seed=seed, quick=True, evenings=evenings, personal=False)
    clerk_served.print_table(evenings)


def _play(server: Server, world: World, *, rounds: int, seed: int, pin: float, held_out: Photos) -> Served:
    """The simulated users' day over HTTP, and its figures once the judge has caught up."""
    users = Users(replace(POPULATIONS[PEOPLE], pin=pin))
    played, report = asyncio.run(_over_http(server.url, world, users, rounds=rounds, seed=seed))
    return measure(
        server.data, world, played=played, population=PEOPLE, seed=seed, held_out=held_out, report=report,
        pin=pin,
    )  # fmt: skip


async def _over_http(url: str, world: World, users: Users, *, rounds: int, seed: int) -> tuple[Played, dict[str, Any]]:
    async with AsyncClient(url) as client:
        await declare(client, world)
        with show_progress(console) as progress:
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
    table.add_row(
        f"shown to users, last {max(last // 10, 100):,} of {last:,} rounds", "", f"{-served.sampled_gain[last]:+.1%}"
    )
    table.add_row("best of the ten", f"{served.best_km:,.0f}", f"{served.best_km / served.baseline_km - 1:+.1%}")
    console.print(table)
    console.print(f"clicks: {served.feedback_state}. {served.feedback_reason}")
    console.print(f"exploring, trials and the holdback cost users {served.cost:+.2%} km")
    for verdict in served.promotions:
        closed = verdict["evidence"].get("closed")
        when = f" after {closed:,} closed decisions" if closed else ""
        console.print(f"gate: {verdict['kind']} {verdict['challenger']} against {verdict['champion']}{when}")
    if not served.promotions:
        console.print("gate: no verdict yet; nothing that is not proven better serves")


def print_published(found: list[dict[str, Any]]) -> None:
    """What became of the published learners."""
    table = Table(title="Published learners (head from scratch): change in km against GeoCLIP's first guess")
    for heading in ("learner", "interactions", "its best order", "as it shows them"):
        table.add_column(heading, justify="left" if heading == "learner" else "right")
    for row in found:
        table.add_row(row["learner"], f"{row['interactions']:,}", f"{row['greedy']:+.1%}", f"{row['sampled']:+.1%}")
    console.print(table)


@contextlib.contextmanager
def _page(server: Server, cache: Path) -> Iterator[str]:
    """Geospot's own page, a process of its own, once it answers: its address."""
    port = _free(GEOSPOT_PORT)
    command = [
        sys.executable, "-m", "geospot.app", "--dayjob", server.url, "--port", str(port), "--cache", str(cache),
    ]  # fmt: skip
    log = server.log.with_name("geospot.log")
    with log.open("wb") as said:
        page = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    try:
        deadline = time.monotonic() + PAGE_S
        while not _taken(port):
            if page.poll() is not None or time.monotonic() > deadline:
                raise DayjobError(f"Geospot's page did not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        page.terminate()
        page.wait()


def _free(first: int) -> int:
    """The first port from ``first`` on that nobody listens at. Raises DayjobError when all are taken."""
    for port in range(first, first + PORTS):
        if not _taken(port):
            if port != first:
                console.print(f"port {first} is in use: {port} instead")
            return port
    raise DayjobError(f"the ports {first} to {first + PORTS - 1} are all in use: end what listens there")


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
