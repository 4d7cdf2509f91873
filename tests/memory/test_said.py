"""What words can show of an answer: that everything that was said stands in it."""

import pytest

from dayjob.memory.said import heard, holds

OPEN = "When does the office open?"


@pytest.mark.parametrize(
    ("answer", "said", "asked", "shown"),
    [
        ("At 9:15.", "At 9:15.", OPEN, True),
        ("The office opens at 9:15", "No: at 9:15!", OPEN, True),
        ("the last of the month", "At 9:15.", OPEN, False),
        ("At 9:30", "At 9:15.", OPEN, False),
        ("9:15 or 10:00", "At 9:15.", OPEN, False),  # a number that nobody said
        ("Tuesday", "Tuesday and Thursday", "When are the bins emptied?", False),
        ("Thursday and Tuesday", "Tuesday and Thursday", "When are the bins emptied?", True),
        ("Emil", "It is not Rosa, it is Emil.", "Who handles parking?", True),
        ("Emil", "Emil, not Rosa.", "Who handles parking?", True),
        ("Rosa", "Emil, not Rosa.", "Who handles parking?", False),
        ("Emil or Rosa", "It isn't Rosa but Emil", "Who handles parking?", False),  # says what was denied
        ("Emil", "Emil handles parking.", "Who handles parking?", True),
        ("Friday", "Answer in one word.", OPEN, False),
        ("Paris, sir", "Put sir behind a capital.", "What is the capital of France?", False),
        ("No.", "No.", "Are we open?", True),
        ("We are not open, no", "No.", "Are we open?", True),
        ("Yes", "No.", "Are we open?", False),
        ("anything", "That is wrong.", OPEN, False),
        ("Monday", "Not on Monday.", OPEN, False),
        ("", "At 9:15.", OPEN, False),
        ("", "", OPEN, False),
        ("the offices", "The office", OPEN, False),  # the question said that, too
    ],
)
def test_an_answer_holds_what_was_said_when_every_word_of_it_is_there(answer, said, asked, shown):
    assert holds(answer, said=said, asked=asked) is shown


DIAL = "Before every extension we dial 86."
INITIAL = "It is different here, customers whose name begins with S go to Selma."


@pytest.mark.parametrize(
    ("answer", "said", "asked", "before", "shown"),
    [
        ("86231", DIAL, "How do I dial extension 231?", "231", True),
        ("87231", DIAL, "How do I dial extension 231?", "231", False),
        ("23186", DIAL, "How do I dial extension 231?", "231", True),  # in the wrong order: words cannot tell
        ("231", DIAL, "How do I dial extension 231?", "231", False),  # as without it
        ("Selma", INITIAL, "Whose customer is Silvia?", "Nadia", True),
        ("Nadia", INITIAL, "Whose customer is Ruth?", "Nadia", False),
        ("Paris, sir", "Asked about capitals we say sir after the answer.", "The capital of France?", "Paris", True),
        ("Paris, madam", "Asked about capitals we say sir after the answer.", "The capital of France?", "Paris", False),
        ("at 9", "At 9:15.", OPEN, "at ten", False),  # not a sentence: all of it, or nothing is known
        ("the last of the month", "We open at 9:15 these days.", OPEN, "at ten", False),
        ("Rosa", "No longer Rosa, parking is now with Emil.", "Who handles parking?", "Hugo", False),
        ("poor", "For simple it is the same as for rich.", "What is the opposite of simple?", "complex", False),
    ],
)
def test_of_a_sentence_whatever_is_new_in_the_answer_comes_out_of_it(answer, said, asked, before, shown):
    assert heard(answer, said=said, asked=asked, before=before) is shown
