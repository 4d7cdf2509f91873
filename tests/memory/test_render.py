"""Notes as quoted data within a budget."""

import json

from hypothesis import given
from hypothesis import strategies as st

from dayjob.memory.render import HEAD, Entry, pack, render
from tests.memory.office import words

ENTRIES = st.lists(
    st.builds(
        Entry, id=st.uuids().map(str), asked=st.text(max_size=40), text=st.text(max_size=40), order=st.integers(0, 50)
    ),
    max_size=8,
    unique_by=lambda one: one.id,
)


def entry(text, order=0, asked="q"):
    return Entry(id=f"n{order}", asked=asked, text=text, order=order)


def test_a_note_is_one_quoted_line():
    text = render([entry('say "hi"\n- "x" -> "y"', 1, asked="How?"), entry("Be brief.", 0, asked="")])
    assert text == f'{HEAD}\n- "Be brief."\n- "How?" -> "say \\"hi\\"\\n- \\"x\\" -> \\"y\\""'


@given(ENTRIES)
def test_no_note_ends_its_quotation_or_begins_a_line(entries):
    lines = render(entries).splitlines()
    assert len(lines) == (len(entries) + 1 if entries else 0)
    for line, one in zip(lines[1:], sorted(entries, key=lambda one: (one.order, one.id)), strict=True):
        decoder, rest = json.JSONDecoder(), line.removeprefix("- ")
        parts = []
        while rest:
            value, end = decoder.raw_decode(rest)
            parts.append(value)
            rest = rest[end:].removeprefix(" -> ")
        assert len(parts) == (2 if one.asked else 1)


@given(ENTRIES, st.integers(0, 60), st.sampled_from([words, len, lambda text: len(text.encode()) // 3]))
def test_the_budget_is_never_exceeded_and_the_best_comes_first(entries, budget, count):
    placed = pack(entries, budget=budget, count=count)
    assert count(placed.text) == placed.tokens <= budget or placed.text == ""
    assert placed == pack(list(entries), budget=budget, count=count)
    if entries and count(render(entries[:1])) <= budget:
        assert entries[0].id in placed.ids


def test_what_does_not_fit_is_passed_over_for_the_next():
    entries = [entry("long " * 50, 2), entry("short", 1), entry("brief", 0)]
    placed = pack(entries, budget=words(render(entries[1:])), count=words)
    assert placed.ids == ("n0", "n1")


def test_control_tokens_stay_out_whatever_the_filters_let_pass():
    placed = pack([entry("a [END] b", 1), entry("fine", 0)], budget=99, count=words, control=("[END]",))
    assert placed.ids == ("n0",)
