"""A decision that was served with tools is learned from as it was read: with them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dayjob.endings import OutcomeKind
from dayjob.learn.language.anchors import replayed
from dayjob.learn.language.exercises import encode
from dayjob.learn.language.study import Study
from dayjob.policies.tokens import Tokens
from tests.learn.language.desk import Desk
from tests.learn.language.test_exam import RECIPE
from tests.policies.language.worlds import TEMPLATE, byte_tokenizer
from tests.serve.chatting import save_tiny

LONG = replace(RECIPE, context_tokens=256)
LOOK = {"type": "function", "function": {"name": "look", "parameters": {}}}
WITH_TOOLS = "{% if tools %}<|start|>tools\n{{ tools | tojson }}<|end|>\n{% endif %}" + TEMPLATE


def tokens() -> Tokens:
    """Of a model whose template tells it what tools there are."""
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = WITH_TOOLS
    return Tokens(tokenizer)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    one = Desk(tmp_path / "data", tokens())
    yield one
    one.close()


def read(decision) -> tuple[int, ...]:
    return tuple(np.frombuffer(decision.generation.prompt_ids, "<u4").tolist())


def test_a_corrected_answer_and_a_later_one_are_asked_with_the_tools_they_were_served_with(desk: Desk):
    first = desk.chat("When is lunch?", tools=[LOOK])
    desk.tell(first, OutcomeKind.DEMONSTRATION, text="At noon.")
    later = desk.chat("Lunch is when?", tools=[LOOK])
    bare = desk.chat("When, lunch?")
    found = desk.askings()
    lessons = [found[asked].lesson for asked in ("When is lunch?", "Lunch is when?", "When, lunch?")]
    assert [one.tools for one in lessons] == [(LOOK,), (LOOK,), ()]
    exercises, out = encode(lessons, desk.tokens, method="consolidate", room=4096, answer_tokens=16)
    assert out == {}
    assert exercises[0].prompt == read(first), "nothing stood in its context yet"
    assert [one.taught for one in exercises[1:]] == [read(later), read(bare)]
    assert desk.tokens.text(exercises[0].target) == "At noon."
    assert "look" in desk.tokens.text(exercises[1].prompt)
    assert "look" not in desk.tokens.text(exercises[2].prompt)


@pytest.mark.parametrize("method", ["preferences", "accept-reject"])
def test_judged_answers_are_learned_behind_the_prompt_that_was_read(desk: Desk, method):
    decision = desk.chat("And now?", tools=[LOOK])
    desk.tell(decision, OutcomeKind.THUMB if method == "preferences" else OutcomeKind.ACCEPT,
              1 if method == "preferences" else None)  # fmt: skip
    (asking,) = desk.gather(method=method).split.train
    (exercise,), _ = encode([asking.lesson], desk.tokens, method=method, room=4096, answer_tokens=8)
    assert exercise.prompt == read(decision)


def test_liked_sessions_keep_their_tools(desk: Desk):
    desk.chat("I am ann.", session="s", tools=[LOOK])
    desk.chat("Who am I?", session="s", before=[("I am ann.", "no idea")], tools=[LOOK])
    desk.tell(None, OutcomeKind.THUMB, 1, session="s")
    (asking,) = [one for one in desk.gather().split.askings if one.lesson.thumb == 1]
    assert asking.lesson.tools == (LOOK,)


def test_traffic_with_tools_is_rehearsed_as_it_was_read(desk: Desk, tmp_path: Path):
    served = [desk.chat("Tell me.", tools=[LOOK]), desk.chat("Tell me.")]
    split = desk.gather().split
    found = (*split.train_traffic, *split.stop_traffic, *split.exam_traffic)
    assert sorted(len(one.tools) for one in found) == [0, 1]
    folder = save_tiny(tmp_path / "model")
    desk.tokens._tokenizer.save_pretrained(folder)
    kept, unfit = replayed(Study(folder, LONG, seed=0), found, recipe=LONG, seed=0)
    assert unfit == 0
    assert sorted(one.prompt for one in kept) == sorted(read(one) for one in served)
    assert [one.tools for one in kept] == [one.tools for one in found]
