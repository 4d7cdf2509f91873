"""``dayjob run clerk``: the job over HTTP. Staff talk to a real server, nights are asked for, the gate decides.

Everything is measured from the outside: what staff were answered by day, and what each version says without notes, read
from the files that the server serves from.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean

from clerk.office import HOWS, Office, Size
from clerk.play import POLICY, Heard, Record, play_day
from clerk.staff import Load, asks_of, office
from openai import AsyncOpenAI
from rich.console import Console
from rich.table import Table

from dayjob.client import AsyncClient
from dayjob.client_types import LanguageSpec
from dayjob.config import Config
from dayjob.endings import NoteState, VersionStatus
from dayjob.journal import jobs
from dayjob.journal.control import Control
from dayjob.journal.notes import NotesReader
from dayjob.journal.readers import START, Reader
from dayjob.journal.versions import find_files
from dayjob.lab.clerk_desk import Desk, chat, work_probe
from dayjob.lab.clerk_exam import TAUGHT, exam, fold, self_written
from dayjob.lab.clerk_night import model_folder
from dayjob.lab.clerk_nights_page import KEPT
from dayjob.lab.server import Server, clear, running
from dayjob.learn.language.recipes import RECIPES
from dayjob.learn.language.table import Question
from dayjob.learn.language.writing import BASE
from dayjob.learn.work import SEED
from dayjob.memory.notes import NotesMemory
from dayjob.memory.notes import Question as Placing
from dayjob.policies.adapters import Adapter
from dayjob.policies.engine_protocol import VersionRef

TENANT = "default"
NIGHT_S, JUDGE_S = 3_600.0, 30.0
WINDOW_S = 2.0  # a simulated conversation is over so long after its last answer
BASELINE = "v0-baseline"
DAYS_BESIDE = 3  # in the table
console = Console()


@dataclass(frozen=True, slots=True, kw_only=True)
class Slept:
    """A night: what it made, "" where it made nothing, and what it took, of the office's layer and of everybody's own.
    Processor time is the learner's and the judge's."""

    made: str = ""
    wall_s: float = 0.0
    cpu_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Evening:
    """How things stand when a day's work, and its night, are over. Shares are of questions answered exactly.

    ``taught`` and ``kept`` are of the version that serves then, without notes; ``new_taught`` and ``new_kept`` of what
    the night made, None where it made nothing.
    """

    day: int
    questions: int
    served: float  # of the day's questions about conventions, as answered: with notes
    bare: float  # the same questions to the version that served, without notes
    everyday: float  # of the day's other questions, as answered
    corrections: int
    note_tokens: float  # mean of a question about conventions, as answered
    tokens_before: float  # of the office's notes placed for these questions, for the version that served by day
    tokens_after: float  # and for the one that serves in the evening: what it no longer needs is left out
    night: Slept
    champion: str
    made: str
    verdict: str
    taught: Mapping[str, float]
    kept: float
    new_taught: float | None
    new_kept: float | None
    notes_alive: int
    notes: int


def run(*, days: int, seed: int, data: Path, model: Path | None, stay: bool, quick: bool = False) -> list[Evening]:
    """Play ``days`` days and nights and print what came of them; with ``stay`` leave the pages open.

    Raises Invalid when ``data`` is not ours to clear.
    """
    folder = model_folder(model)
    if data.exists():
        clear(data)
    console.print("[b]Simulated:[/] the staff. [b]Real:[/] everything else, weights from scratch.")
    evenings: list[Evening] = []
    with running(data, arguments=(), environ=environ_of(folder)) as server:
        console.print(f"dayjob serves at [b]{server.url}[/]: open it now")
        try:
            play_at(server, folder, days=days, seed=seed, quick=quick, evenings=evenings)
        except KeyboardInterrupt:
            console.print(f"ended; what was recorded is in {data}: dayjob serve --data {data}")
        if evenings:
            print_table(evenings)
        if stay:
            console.print(f"The pages stay open: {server.url} (Ctrl-C ends)")
            server.process.wait()
        else:
            server.stop()
    return evenings


def environ_of(folder: Path) -> dict[str, str]:
    """What a server must be told that is to serve the clerk in ``folder``."""
    return {"DAYJOB_BASES": f"clerk={folder.resolve()}", "DAYJOB_SESSION_WINDOW_S": str(WINDOW_S)}


def play_at(
    server: Server, folder: Path, *, days: int, seed: int, quick: bool, evenings: list[Evening], personal: bool = True
) -> None:
    """Days and nights at a server that was started with :func:`environ_of`; each evening is added as it comes.

    ``personal``: whether each person's own layer gets its nights, too.
    """
    size = Size(days=days) if not quick else Size(answer=2, rule=1, hint=1, late=1, personal=1, days=days)
    load = Load(everyday=6, about=6, work=work_probe) if not quick else Load(everyday=2, about=2, work=work_probe)
    here = office(seed, size)
    people = sorted({str(one.whose) for one in here.conventions if one.whose is not None}) if personal else []
    # What the server's nights let the model ask itself is learned from, too.
    written = self_written(folder, RECIPES["consolidate"], seed=SEED)
    play = _play(server, here, load=load, desk=Desk(folder), people=people, written=written, evenings=evenings)
    asyncio.run(play)


async def _play(
    server: Server, here: Office, *, load: Load, desk: Desk, people: Sequence[str], written: frozenset[str],
    evenings: list[Evening],
) -> None:  # fmt: skip
    record, control = Record(), Control(server.data)
    async with (
        AsyncClient(server.url) as client,
        AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=120) as talk,
    ):
        await client.put_policy(POLICY, LanguageSpec(base="clerk"))
        for day in range(here.size.days):
            await play_day(talk, client, here=here, record=record, asks=asks_of(here, day, load=load))
            served = control.pointers(TENANT, POLICY).champion
            night = await _night(client, server, people=people)
            one = evening(
                desk, server, here=here, record=record, day=day, served=served, night=night, written=written
            )  # fmt: skip
            evenings.append(one)
            console.print(_line(one))


async def _night(client: AsyncClient, server: Server, *, people: Sequence[str]) -> Slept:
    """Ask for a night of the office's layer and of each person's, wait for them and for the judge: the new version of
    the office's."""
    control, began, cpu_s = Control(server.data), time.monotonic(), server.started_cpu_s()
    before = {one.name for one in control.versions(TENANT, POLICY)}
    for user in (None, *people):
        await client.learn(POLICY, user=user)
    deadline = time.monotonic() + NIGHT_S
    while jobs.unfinished(control):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the learner has not finished within {NIGHT_S:.0f} s")
        await asyncio.sleep(0.2)
    wall_s, cpu_s = time.monotonic() - began, server.started_cpu_s() - cpu_s
    new = [one.name for one in control.versions(TENANT, POLICY) if one.name not in before]
    deadline = time.monotonic() + JUDGE_S
    while new and _status(control, new[-1]) is VersionStatus.WAITING and time.monotonic() < deadline:
        await asyncio.sleep(0.2)  # it stays waiting where another one is on trial
    return Slept(made=new[-1] if new else "", wall_s=wall_s, cpu_s=cpu_s)


def _status(control: Control, version: str) -> VersionStatus:
    return next(one.status for one in control.versions(TENANT, POLICY) if one.name == version)


def evening(
    desk: Desk, server: Server, *, here: Office, record: Record, day: int, served: str, night: Slept,
    written: frozenset[str],
) -> Evening:  # fmt: skip
    """What the day and its night came to. ``written``: questions that the model asks itself by night, folded."""
    control, made = Control(server.data), night.made
    asked = record.on(day)
    about = [one for one in asked if one.ask.convention is not None]
    champion = control.pointers(TENANT, POLICY).champion
    forbidden = written | {fold(one.ask.probe.question) for one in record.heard}
    suites = exam(here, day=day, forbidden=forbidden, each=2)
    now = _shares(desk, suites, adapter=adapter_of(desk, server.data, version=champion))
    new = now if made == champion else None
    if made and new is None:
        new = _shares(desk, suites, adapter=adapter_of(desk, server.data, version=made))
    bare = [Question(messages=chat(one.ask.probe.question), answer=one.ask.probe.answer) for one in about]
    verdict = next((one for one in control.verdicts(TENANT, POLICY) if one.challenger == made), None)
    memory = NotesMemory(NotesReader(control.root), control, silent=control.silent_people)
    alive, notes = _notes(memory, champion)
    tokens = [placed_tokens(memory, desk, heard=about, version=one) for one in (served, champion)]
    return Evening(
        day=day + 1, questions=len(asked), served=_right(about), everyday=_right([o for o in asked if o not in about]),
        bare=desk.right({"bare": bare}, adapter=adapter_of(desk, server.data, version=served))["bare"] if bare else 0.0,
        corrections=record.corrections(day), note_tokens=note_tokens(Reader(server.data), about),
        tokens_before=tokens[0], tokens_after=tokens[1], night=night,
        champion=champion, made=made, verdict="" if verdict is None else verdict.kind.value,
        taught={how: now[f"by {how}"] for how in HOWS if f"by {how}" in now}, kept=_kept(now),
        new_taught=None if new is None else _taught(new), new_kept=None if new is None else _kept(new),
        notes_alive=alive, notes=notes,
    )  # fmt: skip


def adapter_of(desk: Desk, data: Path, *, version: str) -> Adapter:
    """A version of the office's layer, read from the files that serve."""
    if version == BASELINE:
        return BASE
    known = next(one for one in Control(data).versions(TENANT, POLICY) if one.name == version)
    folder, files = find_files(data, TENANT, POLICY, version, digest=known.digest)
    return desk.read_ref(VersionRef(name=version, digest=known.digest, folder=folder, files=files))


def note_tokens(reader: Reader, heard: Sequence[Heard]) -> float:
    """Mean tokens of notes in the contexts of these answers."""
    wanted, cursor = {one.decision for one in heard}, START
    found: list[float] = []
    while True:
        page, cursor = reader.decisions(TENANT, POLICY, cursor=cursor)
        if not page:
            return fmean(found) if found else 0.0
        for stored in page:
            made = stored.record.generation
            if stored.record.id in wanted and made is not None:
                bare = made.bare_ids or made.prompt_ids
                found.append((len(made.prompt_ids) - len(bare)) / 4)


def placed_tokens(memory: NotesMemory, desk: Desk, *, heard: Sequence[Heard], version: str) -> float:
    """Mean tokens of the office's notes that would be placed for these questions if a version answered them now."""
    placed = [
        memory.place(
            TENANT, POLICY,
            Placing(
                user=None, session=None, text=one.ask.probe.question, version=version, budget=Config().notes_tokens,
                count=desk.count,
            ),
        )
        for one in heard
    ]  # fmt: skip
    return fmean(one.tokens for one in placed) if placed else 0.0


def _notes(memory: NotesMemory, version: str) -> tuple[int, int]:
    """Notes of the office that are still placed for a version, and all of them."""
    notes = memory.for_training(TENANT, POLICY, user=None, version=version)
    return sum(one.state is not NoteState.RETIRED for one in notes), len(notes)


def _shares(desk: Desk, suites: Mapping[str, Sequence[Question]], *, adapter: Adapter) -> dict[str, float]:
    return desk.right({name: suites[name] for name in (*TAUGHT, *KEPT) if name in suites}, adapter=adapter)


def _taught(right: Mapping[str, float]) -> float:
    return fmean(right[name] for name in TAUGHT if name in right)


def _kept(right: Mapping[str, float]) -> float:
    return fmean(right[name] for name in KEPT if name in right)


def _right(heard: Sequence[Heard]) -> float:
    return fmean(one.right for one in heard) if heard else 0.0


def _line(one: Evening) -> str:
    stands = one.verdict or "on trial or waiting"
    made = f"the night made {one.made} ({stands})" if one.made else "the night made nothing"
    return (
        f"day {one.day}: conventions {one.served:.0%} right as served ({one.bare:.0%} without notes),"
        f" {one.corrections} corrections; {made}; {one.champion} serves"
    )


def _lines(evenings: Sequence[Evening]) -> list[list[str]]:
    """A line a measure: its name, and what it was each day."""
    hows = list(dict.fromkeys(how for one in evenings for how in one.taught))
    lines: list[tuple[str, Callable[[Evening], str]]] = [
        ("questions", lambda e: f"{e.questions:,}"),
        ("conventions right, as served", lambda e: f"{e.served:.0%}"),
        ("the same questions without notes", lambda e: f"{e.bare:.0%}"),
        ("other work right, as served", lambda e: f"{e.everyday:.0%}"),
        ("corrections", lambda e: str(e.corrections)),
        ("tokens of notes a question", lambda e: f"{e.note_tokens:.0f}"),
        ("the office's, before and after the night", lambda e: f"{e.tokens_before:.0f} -> {e.tokens_after:.0f}"),
        ("- saved", lambda e: _share(1 - e.tokens_after / e.tokens_before if e.tokens_before else None)),
        ("the night took, with everybody's own", lambda e: f"{e.night.wall_s:.0f} s, {e.night.cpu_s:.0f} s of CPU"),
        ("the night made", lambda e: e.made or "-"),
        ("- taught, without notes", lambda e: _share(e.new_taught)),
        ("- kept", lambda e: _share(e.new_kept)),
        ("- verdict", lambda e: e.verdict or ("on trial or waiting" if e.made else "-")),
        ("serves in the evening", lambda e: e.champion),
        *((f"- taught {how}, without notes", partial(_taught_by, how=how)) for how in hows),
        ("- kept", lambda e: f"{e.kept:.0%}"),
        ("notes alive", lambda e: f"{e.notes_alive} of {e.notes}"),
    ]
    return [[name, *(of(one) for one in evenings)] for name, of in lines]


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _taught_by(one: Evening, *, how: str) -> str:
    return _share(one.taught.get(how))


def print_table(evenings: Sequence[Evening]) -> None:
    """A line a measure, a column a day, so many days beside each other."""
    for first in range(0, len(evenings), DAYS_BESIDE):
        table = Table(title="The clerk's job: exact answers (simulated staff, everything else real)")
        shown = evenings[first : first + DAYS_BESIDE]
        for name in ("", *(f"day {one.day}" for one in shown)):
            table.add_column(name, justify="right" if name else "left", no_wrap=not name)
        for line in _lines(shown):
            table.add_row(*line)
        console.print(table)
    console.print(
        "`taught` and `kept` are asked after the night, without notes, in words that nobody used by day: of what it"
        " made, and of what serves. What is on trial shares the next day's sessions with what serves."
    )
