"""The clerk's staff at a real server, through OpenAI's own client: what they say becomes the notes it should."""

import asyncio

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
from dayjob.lab.server import running
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
            Desk(model), server, here=here, record=record, day=1, served="v0-baseline", made="", written={"who asks"}
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
