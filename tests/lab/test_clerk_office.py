"""The office and its staff: drawn from a seed, apart from what tests ask, and their words reach the right notes."""

from random import Random

import pytest
import torch
from clerk.lessons import Probe
from clerk.office import HOWS, Office, Size, apart, case_side
from clerk.split import Side, side
from clerk.staff import AGREE, OPENINGS, Ask, Load, asks_of, office, words_on

from dayjob.endings import OutcomeKind
from dayjob.lab.clerk_board import FRESH, Board, Said
from dayjob.lab.clerk_course import training
from dayjob.lab.clerk_desk import Desk, Diary, new_board, play_day
from dayjob.lab.clerk_exam import AS_ASKED, LEAKED, TAUGHT, UNKNOWN, check_apart, exam, fold, gone, own
from dayjob.lab.clerk_material import material
from dayjob.lab.clerk_model import Shape, new_model, save
from dayjob.lab.clerk_tokens import train_tokenizer

SMALL = Size(answer=2, rule=1, hint=1, late=2, personal=1, days=2)
LONG = Size(answer=3, rule=2, hint=2, late=2, personal=2, days=12, new=(1, 0, 0, 1), reversals=1)
LOAD = Load(everyday=1, about=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A clerk that knows nothing: random weights, one layer."""
    pytest.importorskip("reasoning_gym", reason="pip install 'dayjob[gym]' (needs a C compiler)")
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("clerk") / "model"
    texts = [text for one in training(0, 0, count=64) for _, text in one.messages]
    tokenizer = train_tokenizer(texts, vocabulary=400)
    save(new_model(Shape(width=32, layers=1, inner=32, vocabulary=len(tokenizer)), seed=0), tokenizer, folder=folder)
    return folder


@pytest.fixture(scope="module")
def week(model):
    """Two days at an office whose clerk is always wrong, so that everything is corrected."""
    desk, here = Desk(model), office(1, SMALL)
    board, diary = new_board(desk), Diary()
    for day in range(SMALL.days):
        play_day(desk, here, board=board, diary=diary, asks=asks_of(here, day, load=LOAD))
    return desk, here, board, diary


def said_of(here: Office) -> list[tuple]:
    return [(c.name, c.how, c.words, c.opening, c.whose, c.since, c.until) for c in here.conventions]


def test_equal_seeds_are_equal_offices_and_days():
    assert said_of(office(3, LONG)) == said_of(office(3, LONG)) != said_of(office(4, LONG))
    one, same, other = (
        [(a.id, a.user, a.probe) for a in asks_of(office(seed, LONG), 5, load=LOAD)] for seed in (3, 3, 4)
    )
    assert one == same != other


@pytest.mark.parametrize("seed", range(4))
def test_conventions_are_of_the_test_side_and_none_changes_anothers_answers(seed):
    here = office(seed, LONG)
    for one in here.conventions:
        assert side(*one.lesson.key, one.lesson.bare or one.lesson.text) is Side.TEST
        assert one.opening.answer != one.opening.before
    for day in range(LONG.days):
        standing = here.standing(day)
        assert all(apart(one.lesson, other.lesson) for one in standing for other in standing if one is not other)
        assert {one.how for one in standing} == set(HOWS)


def test_two_people_have_opposite_habits_of_the_same_things():
    here = office(0, LONG)
    ann, ben = (here.standing(0, whose=name) for name in here.staff[:2])
    assert len(ann) == len(ben) == LONG.personal
    for one, other in zip(ann, ben, strict=True):
        assert one.lesson.key == other.lesson.key
        assert one.opening.question == other.opening.question
        assert one.opening.answer != other.opening.answer


def test_what_is_reversed_ends_when_its_opposite_begins():
    here = office(0, LONG)
    by_name = {one.name: one for one in here.conventions}
    ended = [one for one in here.conventions if one.reverses]
    assert len(ended) > 5
    for one in ended:
        old = by_name[one.reverses]
        assert (old.until, old.lesson.key, old.opening.question) == (one.since, one.lesson.key, one.opening.question)
        assert old.opening.answer != one.opening.answer
        assert old in here.gone(one.since)
        assert old not in here.gone(one.since - 1)


@pytest.mark.parametrize("seed", range(2))
def test_what_tests_ask_is_asked_by_nobody(seed):
    here = office(seed)
    by_day = {fold(one.probe.question) for day in range(5) for one in asks_of(here, day, load=Load())}
    suites = exam(here, day=4, forbidden=frozenset(), each=3, gym=False)
    asked = {fold(str(one.messages[-1]["content"])) for name in (*TAUGHT, LEAKED) for one in suites[name]}
    assert len(asked) > 45
    assert not asked & by_day
    for one in here.standing(4):
        if one.lesson.kind == "rule":
            rng = Random(0)
            cases = {where: {one.ask(rng, where).case for _ in range(40)} for where in Side}
            assert not cases[Side.TRAIN] & cases[Side.TEST]
            assert all(case_side(one.lesson, case) is Side.TEST for case in cases[Side.TEST])


def test_a_question_that_was_asked_by_day_is_found_out():
    suites = exam(office(0, SMALL), day=1, forbidden=frozenset(), each=1, gym=False)
    asked = fold(str(suites["by answer"][0].messages[0]["content"]))
    again = exam(office(0, SMALL), day=1, forbidden=frozenset((asked,)), each=1, gym=False)
    check_apart(again, frozenset((asked,)))
    with pytest.raises(ValueError, match="may have learned from"):
        check_apart(suites, frozenset((asked,)))
    unknown = fold(str(suites[UNKNOWN][0].messages[0]["content"]))  # of a suite that knows nothing of the office
    check_apart(
        exam(office(0, SMALL), day=1, forbidden=frozenset((unknown,)), each=1, gym=False), frozenset((unknown,))
    )
    in_the_journal = fold(str(suites[AS_ASKED][0].messages[0]["content"]))
    check_apart({AS_ASKED: suites[AS_ASKED]}, frozenset((in_the_journal,)))


def asks_for(user: str, how: str, here: Office) -> list[Ask]:
    standing = [one for one in here.standing(0) if one.how == how]
    return [
        Ask(id=f"x-{user}", day=0, round=0, user=user, session="s", probe=one.opening, convention=one)
        for one in standing
    ]


def ask_of(user: str, how: str, here: Office) -> Ask:
    return asks_for(user, how, here)[0]


def test_staff_correct_each_in_their_own_way():
    here = office(1, SMALL)
    said = {how: words_on(ask_of("ann", how, here), "wrong", here=here) for how in HOWS}
    answer, rule, hint, late = (said[how][0] for how in HOWS)
    assert (answer.kind, answer.text) == ("demonstration", ask_of("ann", "answer", here).probe.answer)
    assert (rule.kind, rule.on) == ("correction", "session")
    assert (hint.kind, hint.on, hint.days) == ("correction", "decision", 0)
    told = {(w.on, w.days) for one in asks_for("ann", "late", here) for w in words_on(one, "no", here=here)}
    assert told == {("session", 0), ("decision", 1)}
    assert late.text is not None
    assert [w.value for w in words_on(ask_of("finn", "rule", here), "wrong", here=here)] == [-1]
    assert [w.value for w in words_on(ask_of("hal", "rule", here), "wrong", here=here)] == [1]
    assert words_on(ask_of("gia", "rule", here), "wrong", here=here) == []
    everyday = Ask(id="e", day=0, round=0, user="eva", session="s", convention=None,
                   probe=Probe(question="q", answer="a", before="a", case="c"))  # fmt: skip
    assert all(word.kind == "thumb" for word in words_on(everyday, "b", here=here))


def test_several_must_say_the_same_before_it_is_everybodys():
    board = Board(agree=AGREE, count=lambda text: len(text.split()))
    for number, user in enumerate(("ann", "ben", "cleo")):
        assert board.alive(FRESH) == 0
        board.tell([Said(id=f"s{number}", user=user, session=user, kind=OutcomeKind.DEMONSTRATION, text="Otto",
                         asked="Who handles refunds?", answered="Priya")])  # fmt: skip
    assert board.alive(FRESH) == 1
    placed = board.place("Who handles refunds now?", user="hal")
    assert "Otto" in placed.text
    assert not board.own(placed, "hal")
    assert board.own(board.place("Who handles refunds now?", user="ann"), "ann")
    board.retire("night", placed.ids)
    assert board.place("Who handles refunds now?", user="hal", version="night").text == ""
    assert board.place("Who handles refunds now?", user="hal", version="another").text == placed.text
    board.retire("night", ())
    assert board.alive("night") == 1


def test_what_staff_say_reaches_the_notes_of_those_it_is_for(week):
    _, here, board, diary = week
    tenants = {kept.note.text for kept in board.notes.tenant}
    for one in here.standing(1):
        assert (one.opening.answer if one.how == "answer" else one.words) in tenants, one.how
    assert len([one for one in diary.answered if one.ask.convention in here.standing(0)]) >= OPENINGS
    for name in here.staff[:2]:
        (habit,) = here.standing(1, whose=name)
        mine = {kept.note.text for kept in board.notes.owned(name, None)}
        assert habit.opening.answer in mine
        assert habit.opening.answer not in tenants
    assert all(when > 1 for when, _, _ in diary.later), "what was to be said a day later was said"


def test_a_layer_learns_the_notes_that_are_for_it_and_no_others(week):
    desk, here, board, diary = week
    (ann,), (ben,) = (here.standing(1, whose=name) for name in here.staff[:2])
    everybody, hers = (material(desk, diary, board=board, user=user) for user in (None, "ann"))
    said = {user: str([one.context for one in (*given.lessons, *given.stop_lessons)])
            for user, given in ((None, everybody), ("ann", hers))}  # fmt: skip
    own_note = {habit: next(kept.note for kept in board.notes.own["user", habit.whose]
                            if kept.note.text == habit.opening.answer) for habit in (ann, ben)}  # fmt: skip
    quoted = {habit.whose: f'"{note.asked}" -> "{note.text}"' for habit, note in own_note.items()}
    assert quoted["ann"] in said["ann"]
    assert quoted["ben"] not in said["ann"]
    assert quoted["ann"] not in said[None]
    assert quoted["ben"] not in said[None]
    right = {one.opening.answer for one in here.standing(1) if one.how == "answer"}
    assert {one.correction for one in everybody.lessons} - {None} == right
    questions = [{str(one.question) for one in part} for part in (everybody.lessons, everybody.stop_lessons)]
    assert questions[1]
    assert not questions[0] & questions[1], "what early stopping reads is learned by nobody"
    for one in everybody.lessons:
        assert (one.answer_logprobs is None) == (not one.answer_ids)
    for one in here.standing(1):
        if one.how != "rule":
            assert one.opening.question in {str(lesson.question[0]["content"]) for lesson in everybody.lessons}


def test_questions_of_the_gone_and_of_ones_own_have_their_own_answers():
    here = office(2, LONG)
    old = gone(here, day=11, forbidden=frozenset(), each=1)
    assert len(old) == len(here.gone(11))
    assert {one.answer for one in old} <= {one.opening.answer for one in here.gone(11)}
    (first, *_) = own(here, "ann", day=11, forbidden=frozenset(), each=1)
    assert first.answer in {one.opening.answer for one in here.standing(11, whose="ann")}
