"""The clerk's staff at a real server, through OpenAI's own client: what they say becomes the notes it should."""

import asyncio
import subprocess
import sys

import pytest
from clerk.office import Size
from clerk.play import POLICY, Record, play_day
from clerk.staff import Load, asks_of, office
from openai import AsyncOpenAI

from dayjob.client import AsyncClient
from dayjob.client_types import LanguageSpec
from dayjob.journal.control import Control
from dayjob.journal.notes import NotesReader
from dayjob.journal.readers import Reader
from dayjob.lab import clerk_exam, clerk_served
from dayjob.lab.clerk_desk import Desk
from dayjob.lab.server import Server, running
from dayjob.memory.notes import NotesMemory
from tests.lab.test_clerk_office import model

__all__ = ["model"]
SIZE = Size(answer=1, rule=1, hint=1, late=1, personal=1, days=2)


@pytest.fixture(scope="module")
def played(model, tmp_path_factory):
    """Two days without a learner."""
    data, here, record = tmp_path_factory.mktemp("served") / "data", office(0, SIZE), Record()
    environ = {"DAYJOB_BASES": f"clerk={model}", "OMP_NUM_THREADS": "1"}

    async def play(url: str) -> None:
        async with AsyncClient(url) as client, AsyncOpenAI(base_url=f"{url}/v1", api_key="none", timeout=120) as chat:
            await client.put_policy(POLICY, LanguageSpec(base="clerk"))
            for day in range(SIZE.days):
                asks = asks_of(here, day, load=Load(everyday=1, about=1))
                await play_day(chat, client, here=here, record=record, asks=asks)

    kept_apart: set[str] = set()

    def exam(*given, forbidden, **more):
        kept_apart.update(forbidden)
        return clerk_exam.exam(*given, forbidden=forbidden, **more)

    with running(data, environ=environ) as server, pytest.MonkeyPatch.context() as patch:
        asyncio.run(play(server.url))
        patch.setattr(clerk_served, "exam", exam)
        evening = clerk_served.evening(
            Desk(model), server, here=here, record=record, day=1, served="v0-baseline",
            night=clerk_served.Slept(wall_s=61.0, cpu_s=30.4), written={"who asks"},
        )  # fmt: skip
        server.stop()
    assert kept_apart == {"who asks"} | {clerk_exam.fold(one.ask.probe.question) for one in record.heard}
    return data, here, record, evening


def test_what_staff_say_over_http_becomes_the_notes_of_those_it_is_for(played):
    data, here, record, _ = played
    memory = NotesMemory(NotesReader(data), Control(data), silent=set)
    office_wide = memory.for_training("default", POLICY, user=None, version="")
    texts = {one.text for one in office_wide}
    for one in here.standing(1):
        assert (one.opening.answer if one.how == "answer" else one.words) in texts, one.how
    for name in here.staff[:2]:
        (habit,) = here.standing(1, whose=name)
        mine = {one.text for one in memory.for_training("default", POLICY, user=name, version="")}
        assert habit.opening.answer in mine - texts
    assert len(record.heard) == sum(len(asks_of(here, day, load=Load(everyday=1, about=1))) for day in (0, 1))
    assert record.corrections(0) > record.corrections(1) > 0


def test_an_evening_is_measured_from_the_outside(played, capsys):
    data, _, record, evening = played
    assert evening.questions == len(record.on(1))
    assert evening.note_tokens > 0
    assert evening.notes == evening.notes_alive > 0
    assert (evening.champion, evening.made, evening.new_taught) == ("v0-baseline", "", None)
    assert set(evening.taught) == {"answer", "rule", "hint", "late"}
    about = [one for one in record.on(1) if one.ask.convention is not None]
    assert clerk_served.note_tokens(Reader(data), about) == evening.note_tokens
    clerk_served.print_table([evening] * 5)
    printed = capsys.readouterr().out
    assert printed.count("conventions right, as served") == 2, "three days beside each other"
    told = {line[0]: line[1] for line in clerk_served._lines([evening])}
    assert told["- taught rule, without notes"] == f"{evening.taught['rule']:.0%}"
    assert told["- taught, without notes"] == told["the night made"] == "-"
    assert told["the night took, with everybody's own"] == "61 s, 30 s of CPU"
    before = f"{evening.tokens_before:.0f}"
    assert told["the office's, before and after the night"] == f"{before} -> {before}"
    assert told["- saved"] == "0%"


def test_tokens_of_notes_are_saved_where_a_version_no_longer_needs_them(played, model):
    data, here, record, evening = played
    memory, desk = NotesMemory(NotesReader(data), Control(data), silent=set), Desk(model)
    about = [one for one in record.on(1) if one.ask.convention in here.standing(1)]
    notes = memory.for_training("default", POLICY, user=None, version="v1-new")
    memory.learned("default", POLICY, version="v1-new", notes=[one.id for one in notes[1:]])
    memory.verified("default", POLICY, version="v1-new", right=[one.id for one in notes[1:]], wrong=[])
    before, after = (
        clerk_served.placed_tokens(memory, desk, heard=about, version=one) for one in ("v0-baseline", "v1-new")
    )
    assert before > after >= 0
    assert clerk_served.placed_tokens(memory, desk, heard=[], version="v1-new") == 0
    assert evening.tokens_before > 0


def test_the_processor_time_of_what_a_server_started_is_counted(tmp_path):
    burn = "import time\nwhile time.process_time() < .3: pass\n"
    both = f"import subprocess, sys, time\nsubprocess.run([sys.executable, '-c', {burn!r}])\n"
    both += f"subprocess.Popen([sys.executable, '-c', {burn!r} + 'print(1, flush=True)\\ninput()'])\ntime.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", both], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            server = Server(url="", data=tmp_path, log=tmp_path, process=process)
            found = server.started_cpu_s()
            assert 0.55 < found < 3, "of the one that ended .3 s, of the one that lives .3 s"
            assert server.cpu_s() < found
        finally:
            process.kill()
