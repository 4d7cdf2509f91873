"""From a journal to a night's material: whose words teach which layer, and what is known of each question."""

import pytest

from dayjob.endings import OutcomeKind, Role
from dayjob.learn.language import collect as module
from dayjob.learn.language.exercises import wants
from dayjob.learn.language.recipes import RECIPES
from dayjob.learn.language.splits import Asking
from dayjob.memory.lessons import last_question
from dayjob.memory.render import HEAD
from dayjob.memory.words import topic
from tests.learn.language.desk import TENANT, VERSIONS, Desk, content, share
from tests.memory.office import POLICY

OPEN, OPENING = "When does the office open?", "At what time does the office open?"
THUMB = OutcomeKind.THUMB


def test_a_correction_is_asked_as_it_was_and_as_it_was_answered_with_it_since(desk: Desk):
    note = desk.correct(OPEN, "At 9:15.", session="s1")
    later = desk.chat(OPENING)
    desk.chat("Who wrote Don Quixote?")
    found = desk.askings()
    assert set(found) == {OPEN, OPENING}
    first, second = found[OPEN], found[OPENING]
    assert (first.lesson.id, first.lesson.family, first.lesson.session) == (note, note, "s1")
    assert content(first.lesson.question) == [OPEN]
    assert content(first.lesson.context) == [f'{HEAD}\n- "{OPEN}" -> "At 9:15."', OPEN]
    assert content(second.lesson.context) == [f'{HEAD}\n- "{OPEN}" -> "At 9:15."', OPENING]
    assert (second.lesson.family, second.decision, second.notes) == (note, later.id, (note,))
    assert (first.wrong, second.wrong) == ({"no idea"}, frozenset())
    assert desk.tokens.text(first.lesson.answer_ids) == "no idea"
    assert first.lesson.answer_ids[-1] in desk.tokens.end_ids
    assert first.lesson.answer_logprobs == (-0.5,) * len(first.lesson.answer_ids)


def test_the_same_question_is_one_asking_whatever_its_case_and_greeting(desk: Desk):
    desk.correct(OPEN, "At 9:15.")
    for question in ("when does the office open", "Hello! When does office open?"):
        desk.chat(question)
    assert set(desk.askings()) == {OPEN}


def test_the_teacher_reads_the_notes_as_the_server_places_them(desk: Desk):
    rule = desk.tell(
        None, OutcomeKind.CORRECTION, text="Answer in one line.", session=desk.chat("Hi", session="s").session
    )
    note = desk.correct(OPEN, "At 9:15.", system="Be kind.")
    later = desk.chat(OPENING, system="Be kind.")
    asking = desk.askings()[OPENING]
    assert desk.tokens.render(asking.lesson.context) == tuple(
        int.from_bytes(later.generation.prompt_ids[at : at + 4], "little")
        for at in range(0, len(later.generation.prompt_ids), 4)
    )
    assert set(asking.notes) == {rule, note} == set(later.generation.notes)
    assert asking.lesson.family == note, "the note nearest in words"


@pytest.mark.parametrize(
    ("method", "kind", "correction"),
    [
        ("consolidate", OutcomeKind.DEMONSTRATION, "At 9:15."),
        ("consolidate", OutcomeKind.CORRECTION, None),
        ("sft-answers", OutcomeKind.CORRECTION, "At 9:15."),
        ("preferences", OutcomeKind.CORRECTION, "At 9:15."),
    ],
)
def test_a_corrections_text_is_the_answer_only_for_recipes_that_need_one(desk: Desk, method, kind, correction):
    desk.correct(OPEN, "At 9:15.", kind=kind)
    desk.chat(OPENING)
    found = desk.askings(method=method)
    assert found[OPEN].lesson.correction == correction
    assert found[OPEN].lesson.told, "a word on what is right stands in the context"
    assert found[OPENING].lesson.correction is None, "nobody said what is right in these words"


def test_a_demonstration_corrects_nothing_and_its_answer_is_no_wrong_one(desk: Desk):
    desk.correct(OPEN, "At 9:15.", kind=OutcomeKind.DEMONSTRATION)
    assert desk.askings()[OPEN].wrong == frozenset()


def test_what_several_demonstrated_is_the_answer_and_what_any_of_them_corrected_is_wrong(desk: Desk):
    people = (("ann", OutcomeKind.DEMONSTRATION), ("bob", OutcomeKind.CORRECTION), ("cid", OutcomeKind.CORRECTION))
    for number, (user, kind) in enumerate(people):
        desk.correct(OPEN, "At 9:15.", user=user, kind=kind, said=(f"At {number}",), before=[("Hi", f"I am {user}")])
    desk.chat(OPENING, user="dan")
    for layer in (None, "dan"):
        found = desk.askings(user=layer)
        asking, later = found[OPEN], found[OPENING]
        assert (asking.lesson.correction, asking.is_known, asking.wrong) == ("At 9:15.", True, {"At 1", "At 2"})
        assert (later.lesson.correction, later.is_known, later.wrong) == (None, True, frozenset())
        assert (content(asking.lesson.question), asking.decision, asking.lesson.answer_ids) == ([OPEN], None, ())
        assert "I am" not in str(asking.lesson), "of the conversations behind it nothing is taught"


def test_an_answer_with_the_note_that_was_disliked_teaches_nothing(desk: Desk):
    desk.correct(OPEN, "At 9:15.")
    desk.tell(desk.chat(OPENING), THUMB, -1)
    lesson = desk.askings()[OPENING].lesson
    assert (lesson.told, lesson.thumb) == (False, -1)


def test_a_retracted_correction_teaches_nothing_and_the_one_before_stands_again(desk: Desk):
    first = desk.correct(OPEN, "At ten.")
    asked = desk.chat(OPEN)
    newer = desk.tell(asked, OutcomeKind.CORRECTION, text="At 9:15.")
    assert desk.askings()[OPEN].teacher == newer
    desk.tell(asked, OutcomeKind.RETRACT, newer)
    assert desk.askings()[OPEN].teacher == first


def test_what_comes_after_the_place_in_the_journal_is_not_there_yet(desk: Desk):
    desk.correct(OPEN, "At 9:15.")
    until = desk.memory._reader.last_seq()
    before = desk.gather()
    desk.correct("Where is the key?", "Below.")
    desk.chat(OPENING)
    assert desk.gather(until=until) == before
    assert desk.gather().split.askings != before.split.askings


def test_a_persons_layer_learns_from_nobody_else(desk: Desk):
    note = desk.correct(OPEN, "At 9:15.", user="bob")
    desk.correct("Where is the key?", "Below.")
    desk.tell(desk.chat("Who are you?", user="bob"), THUMB, 1)
    assert set(desk.askings()) == {"Where is the key?"}
    assert desk.gather().users == {"ann"}
    share(desk, note)
    desk.chat(OPENING, user="bob")
    found = desk.gather()
    shared = next(one for one in found.split.askings if one.teacher == note)
    assert (shared.decision, content(shared.lesson.question), shared.lesson.answer_ids) == (None, [OPEN], ())
    assert found.users == {"ann", "bob"}, "whose words the shared note are: erased, what learned it goes"
    assert {last_question(one.question) for one in found.material.rehearsals} <= {OPEN, "Where is the key?"}


def test_a_persons_own_note_comes_before_the_tenants(desk: Desk):
    share(desk, desk.correct(OPEN, "At nine.", user="bob"))
    own = desk.correct(OPEN, "At 9:15.")
    found = desk.askings()
    assert found[OPEN].teacher == own
    assert "nine" not in content(found[OPEN].lesson.context)[0]


def test_the_tenants_layer_learns_no_persons_note_nor_what_was_answered_with_one(desk: Desk):
    desk.correct(OPEN, "At 9:15.")
    desk.tell(desk.chat(OPENING), THUMB, 1)
    desk.tell(desk.chat("Who are you?"), THUMB, 1)
    desk.tell(desk.chat("And then?", before=[(OPENING, "At 9:15.")]), THUMB, 1)
    desk.chat("What is 2 + 2?", user="bob", said=("4",))
    desk.tell(desk.chat("And then?", user="bob", before=[("What is  2 + 2?", "4 ")]), THUMB, 1)
    found = desk.gather(user=None, method="preferences")
    assert [content(one.lesson.question)[-1] for one in found.split.askings] == ["Who are you?", "And then?"]
    asked = [
        content(one.question)
        for one in (*found.split.train_traffic, *found.split.stop_traffic, *found.split.exam_traffic)
    ]
    assert not [one for one in asked if any("9:15" in text for text in one)]


def test_the_tenants_layer_learns_shared_and_agreed_notes_from_everybody(desk: Desk):
    share(desk, desk.correct(OPEN, "At 9:15."))
    for user in ("ann", "bob", "cid"):
        desk.correct("Where is the key?", "Below.", user=user)
    desk.chat(OPENING, user="dan")
    found = desk.gather(user=None)
    asked = {last_question(one.lesson.question): one for one in found.split.askings}
    assert set(asked) == {OPEN, "Where is the key?", OPENING}
    assert asked["Where is the key?"].teacher.startswith("agreed-")
    assert found.users == {"ann", "bob", "cid", "dan"}


def test_of_a_shared_note_nothing_is_taught_that_it_does_not_show(desk: Desk):
    share(desk, desk.correct(OPEN, "At 9:15.", before=[("I have a secret.", "I keep it.")]))
    asking = desk.askings(user=None)[OPEN]
    assert content(asking.lesson.question) == [OPEN]
    assert asking.decision is None


def test_people_who_opted_out_teach_nothing(desk: Desk):
    share(desk, desk.correct(OPEN, "At 9:15."))
    desk.correct("Where is the key?", "Below.")
    desk.chat(OPENING, user="bob")
    desk.tell(desk.chat("Who are you?", user=None), THUMB, 1, user="bob")
    desk.silent |= {(TENANT, "ann"), (TENANT, "bob")}
    for user in ("ann", None):
        for method in RECIPES:
            found = desk.gather(user=user, method=method)
            assert found.split.askings == ()
            assert not found.users & {"ann", "bob"}


@pytest.mark.parametrize("fields", [{"role": Role.PINNED}, {"role": Role.BEST}, {"explore": False}])
def test_named_versions_and_answers_without_exploring_teach_nothing(desk: Desk, fields):
    decision = desk.chat(OPEN, **fields)
    desk.tell(decision, OutcomeKind.CORRECTION, text="At 9:15.")
    desk.tell(decision, THUMB, -1)
    for method in RECIPES:
        found = desk.gather(method=method)
        assert (found.split.askings, found.material.rehearsals, found.decisions) == ((), (), 0)


def test_of_several_words_on_an_answer_the_last_that_stands_counts(desk: Desk):
    asked = desk.chat("Who are you?", session="s")
    last = [desk.tell(asked, THUMB, value) for value in (1, -1)][-1]
    desk.tell(None, THUMB, 1, session="s")
    (one,) = desk.askings(method="preferences").values()
    assert (one.lesson.thumb, one.lesson.correction, one.lesson.context) == (-1, None, None), "before its session's"
    desk.tell(asked, OutcomeKind.RETRACT, last)
    assert desk.askings(method="preferences")["Who are you?"].lesson.thumb == 1
    desk.tell(asked, OutcomeKind.REWARD, 0.2)
    assert desk.askings(method="preferences")["Who are you?"].lesson.thumb == -1, "a reward says more than a thumb"


def test_a_thumb_on_one_of_several_choices_is_of_that_one(desk: Desk):
    asked = desk.chat("Who are you?", said=("a clerk", "a bot"))
    desk.tell(asked, THUMB, 1, item="1")
    desk.tell(asked, THUMB, -1)
    (one,) = desk.gather(method="preferences").split.askings
    assert (desk.tokens.text(one.lesson.answer_ids), one.lesson.thumb) == ("a bot", 1)


def test_suggestions_keep_their_last_verdict_and_how_they_were_drawn(desk: Desk):
    asked = desk.chat("Dear", said=("Sir,",))
    for kind in (OutcomeKind.ACCEPT, OutcomeKind.REJECT):
        desk.tell(asked, kind)
    (one,) = desk.gather(method="accept-reject").split.train
    assert (one.lesson.verdict, one.lesson.temperature) == ("reject", 1.0)
    assert one.lesson.answer_logprobs == (-0.5,) * len(one.lesson.answer_ids)


def test_a_liked_session_teaches_its_last_questions_and_a_disliked_one_only_what_was_corrected(desk: Desk):
    before = [("Where is the key?", "No idea."), ("It is below the mat.", "I see.")]
    desk.chat("So where is the key to the door?", session="good", before=before, said=("Below the mat.",))
    desk.correct(OPEN, "At 9:15.", session="bad")
    desk.chat("So when is it that you open?", session="bad", before=[(OPEN, "no idea"), ("At 9:15.", "I see.")])
    desk.tell(None, THUMB, -1, session="bad")

    def taught() -> dict[str, Asking]:
        return {asked: one for asked, one in desk.askings().items() if wants("consolidate", one.lesson) is None}

    assert set(taught()) == {OPEN}
    up = desk.tell(None, THUMB, 1, session="good")
    found = taught()
    assert set(found) == {OPEN, "So where is the key to the door?"}
    lesson = found["So where is the key to the door?"].lesson
    assert content(lesson.question) == ["So where is the key to the door?"]
    assert content(lesson.context)[:4] == [text for turn in before for text in turn]
    assert (lesson.family, lesson.told) == (up, True)
    assert up not in {one.teacher for one in desk.gather(user=None).split.askings}, "a person's words are theirs alone"


def test_traffic_is_rehearsed_as_it_was_read_with_notes_that_are_known(desk: Desk):
    note = desk.correct(OPEN, "At 9:15.")
    desk.chat(OPENING)
    desk.chat("Who are you?")
    desk.chat("Who are you?")

    def rehearsed() -> list[list[str]]:
        parts = desk.gather().split
        rows = (*parts.train_traffic, *parts.stop_traffic, *parts.exam_traffic)
        return sorted((content(one.question) for one in rows), key=len)

    assert [one for one in rehearsed() if one[-1] != OPEN] == [
        ["Who are you?"],
        [f'{HEAD}\n- "{OPEN}" -> "At 9:15."', OPENING],
    ]
    desk.memory.delete(desk.memory.find(TENANT, [POLICY], note), by="ann")
    assert [one for one in rehearsed() if one[-1] != OPEN] == [["Who are you?"]], "what was deleted is in no night"


def test_what_is_held_out_is_in_no_other_part_and_one_asking_of_everything_is_taught(desk: Desk):
    things = [f"Where is the {colour} {thing}?" for colour in ("red", "blue", "old") for thing in ("box", "key", "cup")]
    notes = [desk.correct(one, f"In room {number}.") for number, one in enumerate(things)]
    for one in things:
        for wording in ("Please, {} Tell me.", "I ask again: {}", "{} I forgot.", "Once more: {}"):
            desk.chat(wording.format(one))
    for method in ("consolidate", "sft-answers", "preferences"):
        parts = desk.gather(method=method).split
        train, stop, exam = (
            {last_question(one.lesson.question) for one in part} for part in (parts.train, parts.stop, parts.exam)
        )
        assert len(stop) > 3 < len(exam)
        assert len(train) + len(stop) + len(exam) == len(train | stop | exam) == 5 * len(things)
        assert {one.lesson.family for one in parts.train} == set(notes)
        traffic = {
            last_question(one.question) for one in (*parts.train_traffic, *parts.stop_traffic, *parts.exam_traffic)
        }
        assert not traffic & (stop | exam)
        assert desk.gather(method=method).material.held == {topic(one) for one in stop | exam}
        if method != "consolidate":
            assert all(one.lesson.correction is None for one in (*parts.stop, *parts.exam))
    assert desk.gather() == desk.gather()


def test_only_the_newest_decisions_are_read_but_what_a_note_speaks_of_is_always_found(desk: Desk, monkeypatch):
    desk.correct(OPEN, "At 9:15.")
    for number in range(6):
        desk.chat(f"Who is number {number}?")
    monkeypatch.setattr(module, "MOST", 3)
    found = desk.gather()
    assert [one.teacher for one in found.split.train] == [desk.askings()[OPEN].teacher]
    assert found.decisions == 4


def test_another_bases_answers_teach_nothing(desk: Desk):
    desk.correct(OPEN, "At 9:15.")
    layer = module.Layer(
        tenant=TENANT, policy=POLICY, user="ann", base="other", method="consolidate", versions=VERSIONS
    )  # fmt: skip
    reader = desk.memory._reader
    found = module.collect(reader, desk.memory, layer=layer, tokens=desk.tokens, until=reader.last_seq())
    assert found.split.askings == ()
