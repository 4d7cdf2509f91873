"""What is a person's own reaches nobody else's layer, and whoever said anything that was learned from is named."""

import pytest

from dayjob.endings import OutcomeKind, Role
from dayjob.learn.language import collect as module
from dayjob.learn.language.recipes import RECIPES
from dayjob.records import IMPORTED
from tests.learn.language.desk import OWN, TENANT, VERSIONS, Desk, content, share
from tests.memory.office import POLICY

OPEN, OPENING = "When does the office open?", "At what time does the office open?"
THUMB = OutcomeKind.THUMB


def told(desk: Desk, method: str) -> set[str]:
    """Every word that the tenant's layer may get to see."""
    parts = desk.gather(user=None, method=method).split
    traffic = (*parts.train_traffic, *parts.stop_traffic, *parts.exam_traffic)
    shown = [text for one in traffic for text in content(one.question)]
    for one in (asking.lesson for asking in parts.askings):
        shown += [*content(one.question), *content(one.context or ()), desk.tokens.text(one.answer_ids)]
    return set(shown)


@pytest.mark.parametrize("written", [{"version": OWN, "writer": OWN}, {"writer": OWN}, {"version": OWN}])
def test_what_a_persons_own_adapter_wrote_never_reaches_the_tenants_layer(desk: Desk, written):
    turn = ("When do we open on the moon?", "At 9:15.")
    note = desk.correct(*turn)
    desk.memory.verified(TENANT, POLICY, version=OWN, right=[note], wrong=[])
    desk.memory.verified(TENANT, POLICY, version="v0-baseline", right=[note], wrong=[])
    known = desk.chat(turn[0], session="s", said=turn[1:], **written)
    assert known.generation.notes == (), "the adapter knows it by heart"
    desk.tell(known, THUMB, 1)
    desk.tell(desk.chat("Why so late?", said=("As 9:15 it is.",), before=[turn]), THUMB, 1)
    desk.tell(desk.chat("Why so early?", user=None, session="s", said=("For it is 9:15.",), before=[turn]), THUMB, 1)
    desk.tell(desk.chat("So when?", user=None, session="s", said=("9:15, as I said.",)), THUMB, 1)
    desk.tell(desk.chat("Who are you?", said=("a clerk",), version=VERSIONS[1], writer=VERSIONS[1]), THUMB, 1)
    for method in RECIPES:
        assert not [one for one in told(desk, method) if "9:15" in one or one == "So when?"]
    assert "a clerk" in told(desk, "preferences"), "the tenant's own version teaches"


def test_the_session_and_the_person_of_a_noted_answer_are_both_remembered(desk: Desk):
    desk.correct(OPEN, "At 9:15.")
    turn = (OPENING, "At 9:15.")
    noted = desk.chat(OPENING, session="s", said=("At 9:15.",))
    assert noted.generation.notes
    desk.chat(OPENING, user="bob", said=("At 9:15.",))  # he guessed: of him the pair is no secret
    desk.tell(desk.chat("Why by the session?", user=None, session="s", before=[turn]), THUMB, 1)
    desk.tell(desk.chat("Why by the person?", session="other", before=[turn]), THUMB, 1)
    desk.tell(desk.chat("Why by nobody?", user=None, session="third", before=[(OPENING, "At 9:15!")]), THUMB, 1)
    desk.tell(desk.chat("Why by bob?", user="bob", before=[turn]), THUMB, 1)
    for method in ("preferences", "published-sft", "consolidate"):
        assert {one for one in told(desk, method) if "Why" in one} == {"Why by bob?"}


@pytest.mark.parametrize("fields", [{"role": Role.PINNED}, {"role": Role.BEST}, {"explore": False}])
def test_an_answer_that_teaches_nothing_still_says_whose_its_session_is(desk: Desk, fields):
    desk.correct(OPEN, "At 9:15.")
    desk.chat(OPENING, session="s", said=("At 9:15.",), **fields)
    desk.chat("And then?", user=None, session="s", before=[(OPENING, "At 9:15.")])
    assert "And then?" not in told(desk, "consolidate")


def test_a_conversation_that_begins_before_what_is_read_is_nobodys_to_learn(desk: Desk, monkeypatch):
    desk.correct(OPEN, "At 9:15.")
    desk.chat(OPENING, session="s", said=("At 9:15.",))
    desk.chat("Who are you?", user="bob", said=("a clerk",))
    desk.chat("Are you well?", user="bob", said=("yes",), before=[("Who are you?", "a clerk")])
    desk.chat("And then?", session="s", before=[(OPENING, "At 9:15.")])
    monkeypatch.setattr(module, "MOST", 3)
    assert told(desk, "consolidate") == {"Who are you?", "a clerk", "Are you well?"}
    monkeypatch.setattr(module, "MOST", 2)
    assert told(desk, "consolidate") == set(), "of neither it is known how it began"


def test_imported_conversations_are_the_tenants_whole(desk: Desk):
    asked = desk.chat("And then?", user=None, said=("a tea",), before=[("What is it?", "a cup")], writer=IMPORTED)
    desk.tell(asked, THUMB, 1)
    assert {"What is it?", "a cup", "And then?", "a tea"} <= told(desk, "preferences")


def test_whoever_speaks_of_a_session_of_somebody_unnamed_does_not_make_it_theirs(desk: Desk):
    desk.chat("I have a secret.", user=None, session="s", said=("I keep it.",))
    asked = desk.chat("Where is it?", user=None, session="s", before=[("I have a secret.", "I keep it.")])
    desk.tell(None, THUMB, 1, session="s", user="ann")
    for method in RECIPES:
        found = desk.gather(method=method)
        assert (found.split.askings, found.material.rehearsals, found.decisions) == ((), (), 0)
    note = desk.tell(asked, OutcomeKind.CORRECTION, text="In the box.", user="ann")
    (one,) = desk.gather().split.askings
    assert (one.teacher, content(one.lesson.question), one.decision) == (note, ["Where is it?"], None)
    assert desk.gather().decisions == 0, "her own words are hers: the note's, and nothing else of the session"


def test_whose_notes_a_teacher_reads_is_a_teacher_too(desk: Desk):
    note = desk.correct(OPEN, "At 9:15.")
    desk.chat("Hi", user="bob", session="b")
    rule = desk.tell(None, OutcomeKind.CORRECTION, text="Answer in one line.", session="b", user="bob")
    assert desk.gather().users == {"ann"}
    share(desk, rule)
    found = desk.gather()
    (one,) = found.split.askings
    assert "Answer in one line." in content(one.lesson.context)[0]
    assert (one.notes, found.users) == ((note,), {"ann", "bob"}), "apart from what the exam asks of a note"


def test_whose_notes_stood_in_traffic_is_a_teacher_too(desk: Desk):
    for user in ("bob", "cid", "dan"):
        desk.correct(OPEN, "At nine.", user=user)
    assert desk.chat(OPENING).generation.notes[0].startswith("agreed-")
    share(desk, desk.correct(OPEN, "At eleven.", user="eve"))
    desk.chat("At what time does the office open today?")
    own = desk.correct(OPEN, "At 9:15.")
    found = desk.gather()
    assert {one.teacher for one in found.split.askings} == {own}
    traffic = (*found.split.train_traffic, *found.split.stop_traffic, *found.split.exam_traffic)
    shown = " ".join(content(one.question)[0] for one in traffic)
    assert "At nine." in shown
    assert "At eleven." in shown
    assert found.users == {"ann", "bob", "cid", "dan", "eve"}
