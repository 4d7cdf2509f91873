"""The world model's data and its measure: recordings alone, split by how conversations begin, errors worked by hand."""

import asyncio

import pytest

from dayjob.dream.excerpts import Excerpt
from dayjob.dream.world import (
    ASK,
    NO,
    OVER,
    YES,
    Accuracy,
    episode,
    measure,
    of_excerpts,
    of_trajectory,
    sayings,
    split,
)
from dayjob.endings import EpisodeEnding, Invalid
from dayjob.practice.environments.world import IMAGINED
from dayjob.records import Trajectory


def says(role, content, **more):
    return {"role": role, "content": content, **more}


ASKED = says("user", "How many lamps are left?")
LOOK, TWO, BUY, DONE, LAST = (
    says("assistant", "call stock item=lamp"),
    says("tool", "2"),
    says("assistant", "call order item=lamp"),
    says("tool", "ordered"),
    says("assistant", "Two, and one is on its way."),
)
WHOLE = (ASKED, LOOK, TWO, BUY, DONE, LAST)


def trajectory(messages, *, reward=1.0, ending=EpisodeEnding.DONE):
    return Trajectory(
        spec={"env": "office"}, seed=1, group="g", turns=(), messages=tuple(messages), reward=reward, parts=(),
        ending=ending,
    )  # fmt: skip


class Says:
    """Answers by a table of what was said last, and remembers what it was asked."""

    digest = "table"

    def __init__(self, table, *, value=1.0):
        self.table, self.value, self.asked = table, value, []

    async def respond(self, messages, *, seed):  # noqa: ARG002
        self.asked.append(list(messages))
        return self.table[messages[-1]["content"]]

    async def success(self, messages):  # noqa: ARG002
        return self.value


def test_a_trajectory_is_cut_at_the_actors_first_word():
    one = of_trajectory(trajectory(WHOLE))
    assert (one.start, one.places, one.over, one.solved) == (1, (2, 4), True, True)
    cut = of_trajectory(trajectory(WHOLE[:4], reward=0.5, ending=EpisodeEnding.TURNS))
    assert (cut.places, cut.over, cut.solved) == ((2,), False, False)


def test_what_was_imagined_is_never_a_recording():
    imagined = [*WHOLE[:2], says("tool", "2", **{IMAGINED: True}), *WHOLE[3:]]
    with pytest.raises(Invalid, match="real conversations alone"):
        of_trajectory(trajectory(imagined))
    with pytest.raises(Invalid, match="says nothing of the application"):
        of_trajectory(trajectory(WHOLE, ending=EpisodeEnding.FAILED))


def test_a_recorded_conversation_has_an_episode_for_each_question_that_tools_answered():
    thanks = (says("user", "Thanks!"), says("assistant", "Welcome."))
    again = (says("user", "And pens?"), says("assistant", "call stock item=pen"), says("tool", "9"))
    found = of_excerpts([Excerpt(id="d", messages=(*WHOLE, *thanks, *again), liked=-1)])
    assert [(one.start, len(one.messages), one.over, one.solved) for one in found] == [
        (1, 6, True, None),  # nobody said how the first one went
        (9, 11, False, False),  # the tool had the last word: more may follow
    ]


def test_what_an_episode_teaches():
    rows = [(len(row.messages), row.messages[-1] == ASK, row.text) for row in sayings(of_trajectory(trajectory(WHOLE)))]
    answers = [(2, False, "2"), (4, False, "ordered"), (6, False, OVER)]
    assert rows == answers + [(end + 1, True, YES) for end in range(1, 7)]
    failed = of_trajectory(trajectory(WHOLE, reward=0.0))
    assert [row.text for row in sayings(failed)][3:] == [NO] * 6
    unknown = episode(WHOLE, start=1, over=False)
    assert [row.text for row in sayings(unknown)] == ["2", "ordered"]


def test_conversations_that_begin_alike_are_on_one_side():
    begins = [says("user", f"question {number}") for number in range(400)]
    parts = split(episode((begin, *ends), start=1, over=True) for begin in begins for ends in (WHOLE[1:], WHOLE[1:3]))
    sides = [{one.messages[0]["content"] for one in part} for part in (parts.learn, parts.stop, parts.measure)]
    assert sum(map(len, sides)) == 400  # no beginning on two sides
    assert [len(part) for part in (parts.learn, parts.stop, parts.measure)] == [2 * len(side) for side in sides]
    assert 200 < len(sides[0]) < 280
    assert 40 < len(sides[1]) < 80
    assert 70 < len(sides[2]) < 130


def test_the_error_of_each_imagined_step():
    right = {LOOK["content"]: "2", BUY["content"]: "ordered", LAST["content"]: None}
    one = of_trajectory(trajectory(WHOLE))
    found = asyncio.run(measure([one], Says(right), depth=4))
    assert (found.wrong_H, found.count_H) == ((0.0, 0.0, 0.0), (1, 1, 1))  # three answers, the end among them
    assert (found.value_wrong, found.value_count) == (0, 1)

    # Wrong about the order alone. From the three starts: step 1 is right, wrong, right; step 2 wrong, right; step 3
    # right: what follows a wrong answer is compared with what was really said, behind the model's own words.
    model = Says(right | {BUY["content"]: "sold out"}, value=0.2)
    found = asyncio.run(measure([one], model, depth=3))
    assert found.wrong_H == pytest.approx((1 / 3, 1 / 2, 0.0))
    assert (found.value_wrong, found.value_count) == (1, 1)
    assert [ASKED, LOOK, TWO, BUY, says("tool", "sold out"), LAST] in model.asked


def test_a_conversation_counts_once_however_long_it_is():
    model = Says({LOOK["content"]: "2", BUY["content"]: "sold out", LAST["content"]: None})
    long, short = of_trajectory(trajectory(WHOLE)), episode((ASKED, BUY, DONE), start=1, over=False)
    found = asyncio.run(measure([long, short], model, depth=1))
    assert found.wrong_H == pytest.approx(((1 / 3 + 1) / 2,))  # one of three points, and one of one
    assert found.count_H == (2,)


def test_an_episode_that_ends_too_early_is_wrong_to_its_end():
    model = Says({LOOK["content"]: None, BUY["content"]: "ordered", LAST["content"]: "and then?"})
    found = asyncio.run(measure([of_trajectory(trajectory(WHOLE))], model, depth=3))
    assert found.wrong_H == pytest.approx((2 / 3, 1.0, 1.0))


def test_spaces_alone_are_no_error():
    model = Says({LOOK["content"]: " 2\n"})
    assert asyncio.run(measure([episode(WHOLE[:3], start=1, over=False)], model, depth=1)).wrong_H == (0.0,)


def test_the_horizon_is_as_far_as_the_error_is_surely_small():
    # Wilson's 95 % of 0 in 16: z^2 / (n + z^2) = 3.8416 / 19.8416; of a half in 10: the textbook's .2366 to .7634.
    assert Accuracy(wrong_H=(0.0, 0.0, 0.3, 0.0), count_H=(30, 16, 30, 30)).horizon(0.2) == 2
    assert Accuracy(wrong_H=(0.0, 0.0), count_H=(16, 16)).horizon(0.2) == 2
    assert Accuracy(wrong_H=(0.0,), count_H=(15,)).horizon(0.2) == 0  # too few to be sure
    with pytest.raises(Invalid, match="at least one step"):
        asyncio.run(measure([], Says({}), depth=0))
