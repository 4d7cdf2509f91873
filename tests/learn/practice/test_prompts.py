"""Prompts within a window: the same as by looking at everything, without looking at everything."""

from hypothesis import given, settings
from hypothesis import strategies as st

from dayjob.learn.practice.prompts import render_within
from dayjob.policies.tokens import Tokens
from tests.policies.language.worlds import byte_tokenizer

TASK = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "begin"}]


class Counting(Tokens):
    """Counts the messages that were rendered."""

    read = 0

    def render(self, messages, *, tools=None):
        self.read += len(messages)
        return super().render(messages, tools=tools)


def said(lengths):
    return [
        {"role": "assistant" if n % 2 == 0 else "user", "content": "x" * length} for n, length in enumerate(lengths)
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 90), min_size=1, max_size=24), st.integers(1, 900), st.booleans())
def test_as_many_of_the_newest_messages_as_fit(lengths, room, with_task):
    tokens, head = Tokens(byte_tokenizer()), TASK if with_task else []
    later = said(lengths)
    if not with_task:
        later = [one | {"role": "assistant"} for one in later]
    found = render_within(tokens, [*head, *later], room=room)
    whole = [tokens.render([*head, *later[len(later) - kept :]]) for kept in range(1, len(later) + 1)]
    assert found == next((one for one in reversed(whole) if len(one) <= room), whole[0])


def test_a_long_conversation_costs_no_more_than_a_short_one():
    read = []
    for count in (200, 20_000):
        tokens = Counting(byte_tokenizer())
        found = render_within(tokens, [*TASK, *said([10] * count)], room=400)
        assert 360 < len(found) <= 400
        read.append(tokens.read)
    assert read[0] == read[1]
