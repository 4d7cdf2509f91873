"""When two questions are about the same, and two answers say the same."""

import pytest

from dayjob.memory.words import same, stem, topic


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("When does the office open?", "when does office OPEN"),
        ("Please: what is 3 + 4?", "what is 3+4"),
        ("Hello, who has the key?", "Who has a key"),
        ("Ｗｈｏ opens?", "who opens"),
    ],
)
def test_the_same_topic(one, other):
    assert topic(one) == topic(other) != ()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 3 + 4?", "What is 3 - 4?"),
        ("What is 3 + 4?", "What is 3 4?"),
        ("Does Ann report to Bob?", "Does Bob report to Ann?"),
        ("Lunch on Monday?", "Lunch on Tuesday?"),
        ("May I park here?", "May I not park here?"),
        ("Did it open?", "Does it open?"),
    ],
)
def test_another_topic(one, other):
    assert topic(one) != topic(other)


def test_answers_are_the_same_up_to_case_spaces_and_the_full_stop():
    assert same(" At  9:15. ") == same("at 9:15")
    assert len({same(one) for one in ("-5", "5", "9:15", "9.15", "not 5")}) == 5


def test_stems():
    assert {stem(one) for one in ("booking", "booked", "book", "books")} == {"book"}
    assert {stem(one) for one in ("office", "offices")} == {"offic"}
    assert stem("glass") == "glass"
    assert stem("companies") == stem("company")
