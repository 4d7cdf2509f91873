"""Tool calls in what an actor says: both notations, there and back, and everything that is no call."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dayjob.endings import Invalid
from dayjob.practice.calls import MAX_CALLS, Call, describe_tool, read_calls, write_call

LAMP = Call(name="search", arguments={"query": "blue lamp", "limit": "3"})
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def test_a_block_as_qwen_writes_it():
    said = 'I look.\n<tool_call>\n{"name": "search", "arguments": {"query": "blue lamp", "limit": "3"}}\n</tool_call>'
    assert read_calls(said) == (LAMP,)


def test_several_blocks_are_read_in_their_order_and_beat_a_plain_line():
    said = write_call(LAMP, plain=False) + "call ignored x=1\n" + write_call(Call(name="stop"), plain=False)
    assert [one.name for one in read_calls(said)] == ["search", "stop"]


def test_the_plain_line_ends_a_value_at_the_next_key():
    assert read_calls("call search query=blue lamp limit=3") == (LAMP,)
    assert read_calls("First:\n  call  search query=blue lamp limit=3 \nthen more") == (LAMP,)
    assert read_calls("call stop") == (Call(name="stop"),)


def test_an_equals_sign_within_a_word_is_no_key():
    assert read_calls("call add sum=1+1=2")[0].arguments == {"sum": "1+1=2"}


def test_arguments_as_a_text_of_json_and_an_open_block_are_understood():
    assert read_calls('<tool_call>{"name": "stop", "arguments": "{\\"now\\": true}"}') == (
        Call(name="stop", arguments={"now": True}),
    )
    assert read_calls('<tool_call>{"name": "stop"}</tool_call>') == (Call(name="stop"),)


@pytest.mark.parametrize(
    "said", ["", "42", "I recall search query=x", "<think>call stop</think>42", "<think>call stop"]
)
def test_what_makes_no_call(said):
    assert read_calls(said) == ()


@pytest.mark.parametrize(
    "said",
    ["<tool_call>", "<tool_call>{", "<tool_call>[]</tool_call>", '<tool_call>{"name": 3}</tool_call>', "call two words",
     '<tool_call>{"name": "a", "arguments": []}</tool_call>', '<tool_call>{"name": "a b"}</tool_call>', "call !",
     '<tool_call>{"name": "a", "arguments": {"x": NaN}}</tool_call>', "<tool_call>" + "[" * 100_001, "call x y z=1",
     '<tool_call>{"name": "a", "arguments": "nonsense"}</tool_call>', "<tool_call>" + "[" * 50_000,
     "<tool_call>" + "9" * 10_000],
)  # fmt: skip
def test_what_cannot_be_read_says_so(said):
    (call,) = read_calls(said)
    assert call.error
    assert call.name == ""


def test_too_many_calls_are_cut_and_said():
    calls = read_calls(write_call(Call(name="a"), plain=False) * (MAX_CALLS + 5))
    assert len(calls) == MAX_CALLS + 1
    assert [bool(call.error) for call in calls] == [False] * MAX_CALLS + [True]


def test_half_characters_that_json_can_escape_become_ones_that_can_be_written():
    (call,) = read_calls('<tool_call>{"name": "a", "arguments": {"\\ud800": ["\\udfff", "ü"]}}</tool_call>')
    json.dumps(call.arguments, ensure_ascii=False).encode("utf-8")
    assert call.arguments == {"?": ["?", "ü"]}


@given(st.text())
def test_reading_never_raises(said):
    read_calls(said)
    read_calls("<tool_call>" + said)
    read_calls("call " + said)


@given(st.dictionaries(st.text(), VALUES, max_size=3))
def test_blocks_come_back_as_they_were_written(arguments):
    call = Call(name="do-it", arguments=arguments)
    found = read_calls(write_call(call, plain=False))
    # A value may itself look like the end of a block: then, and only then, it cannot be read.
    assert found == (call,) or "tool_call>" in json.dumps(arguments, ensure_ascii=False)


@given(st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), st.text(), max_size=3))
def test_plain_lines_come_back_or_are_refused(arguments):
    call = Call(name="do", arguments=arguments)
    try:
        written = write_call(call, plain=True)
    except Invalid:
        return
    assert read_calls(written) == (call,)


def test_a_value_that_would_be_cut_is_refused():
    with pytest.raises(Invalid, match="plain notation"):
        write_call(Call(name="do", arguments={"x": "a b=c"}), plain=True)


def test_a_described_tool_has_openais_shape():
    tool = describe_tool("open", "Read.", parameters={"title": "which"})
    assert tool["function"]["parameters"]["required"] == ["title"]
    assert tool["type"] == "function"
