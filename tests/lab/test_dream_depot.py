"""The depot of `dayjob lab dream`: a sound environment, a reward that is read off the state, and a day in a journal."""

import asyncio

import numpy as np
import pytest

from dayjob.cli.dreaming import excerpts_of
from dayjob.dream.excerpts import conversations as whole_of
from dayjob.dream.excerpts import transitions
from dayjob.endings import EpisodeEnding, Invalid
from dayjob.journal.control import Control
from dayjob.journal.notes import NotesReader
from dayjob.journal.readers import Reader
from dayjob.lab import dream_day
from dayjob.lab.clerk_desk import Desk
from dayjob.lab.dream_day import conversations, record_day
from dayjob.lab.dream_depot import CALLS, Application, Depot, Thing, requests
from dayjob.learn.language.collect import Gathered, Layer, collect
from dayjob.memory.notes import NotesMemory
from dayjob.practice import registry
from dayjob.practice.calls import read_calls
from dayjob.practice.checks import check_environment, play
from dayjob.practice.protocol import Action
from tests.lab.test_clerk_office import model

__all__ = ["model"]
DEPOT = Depot(depot=3, items=30)


def run(seed, *texts):
    return asyncio.run(play(DEPOT, seed, actions=[Action(text=text) for text in texts])).steps


def test_the_battery_passes(monkeypatch):
    monkeypatch.setitem(registry.BUILT_IN, "depot", "dayjob.lab.dream_depot:Depot")
    asyncio.run(check_environment(lambda: DEPOT, seeds=[0, 1, 2, 5, 8, 2**63 - 1], noise=("", "call", "call put", "?")))


def test_a_request_is_solved_by_its_change_alone():
    seed, request = requests(DEPOT, 1, first=0)[0]
    [solved] = run(seed, request.said)
    assert (solved.reward.value, solved.ending) == (1.0, EpisodeEnding.DONE)
    other = next(one for one in DEPOT.morning() if one != request.call.arguments["item"])
    [wrong] = run(seed, request.said.replace(request.call.arguments["item"], other))
    assert (wrong.reward.value, dict(wrong.reward.parts)) == (0.0, {"changed": 1.0})
    [words] = run(seed, "It is done.")
    assert (words.reward.value, dict(words.reward.parts)) == (0.0, {"changed": 0.0})
    # What is refused changes nothing, and may be tried again: twice.
    refused, again = run(seed, request.said.replace(request.call.arguments["item"], "A00"), request.said)
    assert refused.messages == ({"role": "tool", "content": "Error: there is no 'A00'."},)
    assert again.reward.value == 1.0
    steps = run(seed, *["call nothing"] * 3)
    assert (len(steps), steps[-1].ending, steps[-1].reward.value) == (3, EpisodeEnding.TURNS, 0.0)


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("call put item=K47 bay=E2", "K47 is in E2."),
        ("call put item=K47 bay=Q2", "Error: bay cannot be 'Q2'."),
        ("call take item=K47 count=8", "8 of K47 taken, 0 left."),
        ("call take item=K47 count=9", "Error: 8 of K47 can be taken."),
        ("call take item=K47 count=0", "Error: count cannot be '0'."),
        ("call hold item=K47 until=Friday", "K47 is held until Friday."),
        ("call label item=K47 colour=red", "K47 is labelled red."),
        ("call lend item=K47 to=Otto", "K47 is lent to Otto."),
        ("call price item=K47 at=12", "K47 costs 12."),
        ("call price item=K47", "Error: price needs item and at."),
        ("call price item=K47 at=12 to=Otto", "Error: price needs item and at."),
        ("call drop item=K47 bay=E2", "Error: there is no call 'drop'."),
    ],
)
def test_the_application_answers_by_state_and_call_alone(said, answer):
    things = {"K47": Thing(put="N3", count=8)}
    application = Application(things)
    [call] = read_calls(said)
    assert application.call(call) == answer
    assert (application.things != things) == (not answer.startswith("Error"))
    assert things == {"K47": Thing(put="N3", count=8)}


def test_days_are_beginnings_of_longer_ones_and_never_hold_what_judges():
    long = [one.text for _, one in requests(DEPOT, 60, first=0)]
    assert [one.text for _, one in requests(DEPOT, 20, first=0)] == long[:20]
    assert len(set(long)) == 60
    judged = [one.text for _, one in requests(DEPOT, 60, first=0, apart_from=long)]
    assert not set(judged) & set(long)
    assert {read_calls(one.said)[0].name for _, one in requests(DEPOT, 60, first=0)} == set(CALLS)
    with pytest.raises(Invalid, match="ask for fewer"):
        requests(Depot(items=2), 1_300, first=0)  # there are 1,200


def gathered(root, tokens) -> Gathered:
    control, reader = Control(root), Reader(root)
    memory = NotesMemory(NotesReader(root), control, silent=control.silent_people)
    layer = Layer(
        tenant=dream_day.TENANT, policy=dream_day.POLICY, user=dream_day.USER, base=dream_day.BASE,
        method="sft-answers", versions=["v0-baseline"],
    )  # fmt: skip
    return collect(reader, memory, layer=layer, tokens=tokens, until=reader.last_seq())


def test_a_day_in_the_journal_teaches_the_night_every_call_and_the_dream_what_the_application_said(model, tmp_path):
    desk, asked = Desk(model), [one for _, one in requests(DEPOT, 12, first=0)]
    for name in ("one", "other"):
        record_day(tmp_path / name, desk, depot=DEPOT, asked=asked, seed=5)
    found = gathered(tmp_path / "one", desk.tokens)
    assert [one.lesson.correction for one in found.split.train] == [one.said for one in asked]
    assert [one.lesson.question[-1]["content"] for one in found.split.train] == [one.text for one in asked]
    assert found.split.stop == found.split.exam == ()
    excerpts = list(excerpts_of(found))
    shown = {one.right for one in excerpts if one.right}
    assert shown
    assert shown <= {one.said for one in asked}
    real = {(each[1]["content"], each[2]["content"]) for each in conversations(DEPOT, asked)}
    seen = {(one.before[-1]["content"], one.answer) for each in whole_of(excerpts) for one in transitions(each)}
    assert seen
    assert seen <= real
    assert all(one.liked == -1 for one in excerpts if len(one.messages) == 4), "closing words are no solution"
    # The same day again is the same record, and what was written is what the model drew.
    read = [
        [one.generation for one in gathered(tmp_path / name, desk.tokens).recent.reads] for name in ("one", "other")
    ]
    assert read[0] == read[1]
    choice = read[0][0].choices[0]
    assert len(np.frombuffer(choice.sample_logprobs, "<f4")) == len(np.frombuffer(choice.token_ids, "<u4"))
    with pytest.raises(Invalid, match="empty folder"):
        record_day(tmp_path / "one", desk, depot=DEPOT, asked=asked, seed=5)
