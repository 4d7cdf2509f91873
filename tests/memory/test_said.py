"""What words can show of an answer: that everything that was said stands in it."""

import pytest

from dayjob.memory.said import holds

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
