"""README's words on Talk's *Sleep*, with the clerk that ships: corrected over HTTP, it obeys from a note; after a real
night and a verdict (by hand where the gate says no) it answers without the note what the exam says it knows, and nobody
else is affected.
"""

import time
from random import Random

import pytest
from clerk.office import Size
from clerk.split import Side
from clerk.staff import office

from dayjob.client import ChatAnswer, Client
from dayjob.client_types import LanguageSpec
from dayjob.endings import NoteState, VersionStatus
from dayjob.journal.control import Control
from dayjob.journal.layers import address_of
from dayjob.journal.readers import Reader
from dayjob.lab.clerk_night import model_folder
from dayjob.lab.server import running

POLICY, ANN = "office", "ann"
NIGHT_S, VERDICT_S = 1_500.0, 60.0
UNJUDGED = (VersionStatus.WAITING, VersionStatus.TRIAL)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_the_shipped_clerk_sleeps_over_what_it_was_told(tmp_path):
    here, rng = office(0, Size(answer=3, rule=0, hint=0, late=0, personal=0)), Random(0)
    taught = [one for one in here.standing(0) if one.how == "answer"]
    assert len(taught) == 3
    environ = {"DAYJOB_BASES": f"clerk={model_folder(None)}"}
    with (
        running(tmp_path / "data", arguments=(), environ=environ) as server,
        Client(server.url, timeout=120) as client,
    ):
        client.put_policy(POLICY, LanguageSpec(base="clerk"))

        def ask(question: str, user: str = ANN) -> ChatAnswer:
            return client.chat(
                POLICY, [{"role": "user", "content": question}], user=user, max_tokens=32, temperature=0.0
            )

        def notes_of(answer: ChatAnswer) -> tuple[str, ...]:
            stored = Reader(server.data).decision("default", answer.id)
            assert stored is not None
            assert stored.record.generation is not None
            return tuple(stored.record.generation.notes)

        for one in taught:
            wrong = ask(one.opening.question)
            assert wrong.text != one.opening.answer, "it cannot know it"
            client.feedback(wrong.demonstrate(one.opening.answer))
            for probe in (one.ask(rng, Side.TRAIN) for _ in range(3)):
                ask(probe.question)
        notes = {note.decision: note for note in client.notes(user=ANN).notes}
        by_question = {note.asked: note for note in notes.values()}
        for one in taught:
            obeyed = ask(one.opening.question)
            assert obeyed.text == one.opening.answer
            assert by_question[one.opening.question].id in notes_of(obeyed)
        for number in range(8):  # the traffic of the day
            relation, subject = rng.choice(here.facts(replayed=True))
            ask(relation.ask[number % 2].format(s=subject))

        made = client.wait_job(client.learn(POLICY, user=ANN).id, timeout_s=NIGHT_S)
        assert made.result is not None
        version = made.result["challenger"]
        assert version, made.result
        control, until = Control(server.data), time.monotonic() + VERDICT_S
        address = address_of(control, "default", POLICY, ANN)
        while control.version("default", address, version).status in UNJUDGED and time.monotonic() < until:
            time.sleep(0.2)
        if control.version("default", address, version).status is not VersionStatus.CHAMPION:
            client.promote(POLICY, version, user=ANN, reason="to see what it learned")  # by hand, as the gate did not

        said = (control.state("default", address, f"night/{version}") or {})["notes"]
        assert set(said["right"]) | set(said["recited"]), "the exam found nothing learned"
        states = {note.id: note.state for note in client.notes(user=ANN).notes}
        for one in taught:
            note, after = by_question[one.opening.question].id, ask(one.opening.question)
            assert (states[note] is NoteState.RETIRED) == (note in said["right"])
            if note in (*said["right"], *said["recited"]):
                assert note not in notes_of(after), "the note is gone from the context"
            else:
                assert note in notes_of(after)
            assert (after.version, after.text) == (version, one.opening.answer), "and it still obeys"
            other = ask(one.opening.question, user="bob")
            assert other.version == "v0-baseline"
            assert other.text != one.opening.answer
        server.stop()
