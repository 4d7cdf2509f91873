"""What an export for training holds: who said what of which answer decides, in a journal as the server writes it."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dayjob.endings import Ending, NoteChange, OutcomeKind
from dayjob.journal.notes import add_note_events
from dayjob.journal.readers import Reader
from dayjob.memory import examples, exports
from dayjob.memory.examples import Format
from dayjob.records import NoteEvent
from tests.memory.office import POLICY, Office, asked

THUMB, ACCEPT, REJECT = OutcomeKind.THUMB, OutcomeKind.ACCEPT, OutcomeKind.REJECT
CORRECTION, DEMONSTRATION = OutcomeKind.CORRECTION, OutcomeKind.DEMONSTRATION
PROMPT = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "when?"}]
Say = Callable[..., str]


def lines(office: Office, format: Format) -> list[dict[str, Any]]:
    blocks = exports.example_lines(
        Reader(office.root), office.control, "t", POLICY, format=format, silent=lambda: office.silent
    )
    return [json.loads(line) for block in blocks for line in block.splitlines()]


def right(office: Office) -> list[str]:
    """The answers of the chat format."""
    return [row["messages"][-1]["content"] for row in lines(office, Format.CHAT)]


def pairs(office: Office) -> list[tuple[str, str]]:
    rows = lines(office, Format.PREFERENCE)
    return [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows]


def ask(office: Office, *answers: str, question: str = "when?", **about: Any) -> str:
    decision = asked(next(office.numbers), question, answers=answers or ("at ten",), **about)
    office.store.append_decision(decision).result()
    return decision.id


def thumb(office: Office, decision: str | None, value: float, **about: Any) -> str:
    return office.say(decision, None, kind=THUMB, value=value, **about)  # type: ignore[arg-type]


def test_the_three_formats_are_as_documented_elsewhere(office: Office) -> None:
    """TRL's conversational formats and OpenAI's for preference optimization, to the field."""
    office.say(ask(office), "at nine")
    answer, served = {"role": "assistant", "content": "at nine"}, {"role": "assistant", "content": "at ten"}
    assert lines(office, Format.CHAT) == [{"messages": [*PROMPT, answer]}]
    assert lines(office, Format.PREFERENCE) == [{"prompt": PROMPT, "chosen": [answer], "rejected": [served]}]
    assert lines(office, Format.OPENAI_DPO) == [
        {"input": {"messages": PROMPT}, "preferred_output": [answer], "non_preferred_output": [served]}
    ]


def test_tools_travel_and_openai_wants_arguments_as_a_string(office: Office) -> None:
    decision = asked(next(office.numbers), "when?", answers=("at ten",))
    call = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": {"zone": "CET"}}}
    told = ({"role": "user", "content": "when?"}, {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "9:00", "tool_call_id": "c1"})  # fmt: skip
    tools = ({"type": "function", "function": {"name": "clock"}},)
    assert decision.generation is not None
    generation = replace(decision.generation, messages=told, tools=tools)
    office.store.append_decision(replace(decision, generation=generation)).result()
    office.say(decision.id, "at nine")
    [chat], [pair], [dpo] = (lines(office, format) for format in Format)
    assert chat["tools"] == pair["tools"] == dpo["input"]["tools"] == list(tools)
    assert chat["messages"][1]["tool_calls"][0]["function"]["arguments"] == {"zone": "CET"}
    assert dpo["input"]["messages"][1]["tool_calls"][0]["function"]["arguments"] == '{"zone":"CET"}'


def test_nothing_is_learned_from_silence_and_the_newest_word_holds(office: Office) -> None:
    ask(office, "unheard")
    liked, disliked, changed, accepted, rejected = (ask(office, f"answer {n}") for n in range(5))
    thumb(office, liked, 1)
    thumb(office, disliked, -1)
    thumb(office, changed, -1)
    thumb(office, changed, 1)
    office.say(accepted, None, kind=ACCEPT)
    office.say(rejected, None, kind=REJECT)
    assert right(office) == ["answer 0", "answer 2", "answer 3"]
    unsaid = thumb(office, accepted, -1)
    assert right(office) == ["answer 0", "answer 2"]
    office.retract(unsaid, accepted)
    assert right(office) == ["answer 0", "answer 2", "answer 3"]


def test_a_session_speaks_for_its_answers_so_far_where_nothing_was_said_of_them(office: Office) -> None:
    before, bad = ask(office, "a", session="s"), ask(office, "b", session="s")
    thumb(office, bad, -1)
    thumb(office, None, 1, session="s")
    ask(office, "c", session="s")
    assert right(office) == ["a"], "neither what was disliked, nor what came later"
    office.say(before, "A", kind=DEMONSTRATION)
    thumb(office, None, -1, session="s")
    assert right(office) == ["A"], "what was corrected stays, whatever the session got"


def test_what_people_wrote_stands_instead_of_the_answer_and_beats_it(office: Office) -> None:
    first = ask(office, "at ten")
    office.say(first, "at eight")
    office.say(first, "at nine")
    thumb(office, first, 1)
    assert right(office) == ["at nine"]
    assert pairs(office) == [("at nine", "at ten")]
    confirmed = ask(office, "at nine", question="again?")
    office.say(confirmed, "at nine")
    assert right(office) == ["at nine", "at nine"]
    assert pairs(office) == [("at nine", "at ten")], "nothing is better than itself"


def test_of_several_choices_each_is_judged_by_its_own_words(office: Office) -> None:
    both = ask(office, "yes", "no", "perhaps")
    thumb(office, both, 1, item="0")
    thumb(office, both, -1, item="2")
    thumb(office, both, -1)
    assert right(office) == ["yes"], "a thumb that names none of three counts for none"
    assert pairs(office) == [("yes", "perhaps")]
    pointed = ask(office, "x", "y", "z", question="which?")
    office.say(pointed, None, kind=DEMONSTRATION, item="1")
    assert pairs(office)[1:] == [("y", "x"), ("y", "z")], "the one that was pointed out is better than the others"
    fixed = ask(office, "x", "y", question="fix")
    office.say(fixed, "Y", item="1")
    thumb(office, fixed, 1, item="1")
    thumb(office, fixed, -1, item="0")
    assert pairs(office)[3:] == [("Y", "y")], "a thumb on what was corrected is no word for it"
    assert right(office)[1:] == ["y", "Y"]
    alike = ask(office, "x", "x", "z", question="alike?")
    office.say(alike, None, kind=DEMONSTRATION, item="0")
    assert pairs(office)[4:] == [("x", "z")], "nothing is better than itself"


def test_answers_to_the_same_conversation_that_were_judged_apart_meet_once(office: Office) -> None:
    bad, good, worse, other = (ask(office, text) for text in ("bad", "good", "worse", "other"))
    elsewhere = ask(office, "fine", question="and where?")
    for decision, value in ((bad, -1), (good, 1), (worse, -1), (elsewhere, 1)):
        thumb(office, decision, value)
    assert pairs(office) == [("good", "bad")], "each is used once; another question is another thing"
    thumb(office, other, 1)
    assert pairs(office) == [("good", "bad"), ("other", "worse")]


def test_no_more_waits_than_may(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "MOST_WAITING", 2)
    monkeypatch.setattr(examples, "MOST_ALIKE", 2)
    for number in range(3):
        thumb(office, ask(office, "bad", question=f"question {number}"), -1)
    for number in (2, 1, 0):
        thumb(office, ask(office, f"good {number}", question=f"question {number}"), 1)
    assert pairs(office) == [("good 2", "bad"), ("good 1", "bad")], "the oldest gave way"
    for number in range(3):
        thumb(office, ask(office, f"bad {number}", question="again?"), -1)
    thumb(office, ask(office, "good", question="again?"), 1)
    assert pairs(office)[2:] == [("good", "bad 1")], "of those that wait for one conversation too"


def test_who_opts_out_is_in_no_example(office: Office) -> None:
    office.say(ask(office, user="ann"), "at nine")
    office.say(ask(office, user="bob", question="bob's?"), "at noon")
    assert right(office) == ["at nine", "at noon"]
    office.silent = {("t", "ann"), ("other", "bob")}
    assert right(office) == ["at noon"]
    assert pairs(office) == [("at noon", "at ten")]


def test_what_a_silent_person_asked_is_in_none_whoever_spoke_of_it(office: Office) -> None:
    asker = ask(office, user="ann")
    office.say(asker, "at nine")
    page = Reader(office.root).decisions("t", POLICY)[0]
    told = Reader(office.root).outcomes("t", page)[asker]
    by_boss = {asker: [replace(one, record=replace(one.record, user="boss")) for one in told]}
    writer = examples.Writer(format=Format.CHAT, find=lambda *_: None)
    assert len(list(writer.examples(page, by_boss, rules=examples.Rules(silent={"bob"})))) == 1
    assert list(writer.examples(page, by_boss, rules=examples.Rules(silent={"ann"}))) == []


def test_a_silent_persons_words_on_anothers_answer_do_not_count(office: Office) -> None:
    decision = ask(office)  # of nobody in particular
    outcome = office.say(decision, "at nine")
    told = Reader(office.root).outcomes("t", Reader(office.root).decisions("t", POLICY)[0])[decision]
    assert [one.record.id for one in told] == [outcome]
    stored = Reader(office.root).decisions("t", POLICY)[0][0]
    by_ann = [replace(one, record=replace(one.record, user="ann")) for one in told]
    rules = examples.Rules(silent={"ann"})
    assert examples.judge(stored.record, told, seq=stored.seq, rules=rules).right == ["at nine"]
    assert examples.judge(stored.record, by_ann, seq=stored.seq, rules=rules).right == []


def test_a_deleted_note_and_what_makes_no_note_make_no_example(office: Office) -> None:
    forgotten = office.say(ask(office), "at nine")
    office.say(ask(office, question="the code?"), "password: hunter22x")
    office.say(ask(office, question="my key sk-live-abcdefghijklmnop1 is it good?"), "yes")
    office.say(ask(office, question="long?"), "word " * 1000)
    assert right(office) == ["at nine", ("word " * 1000).strip()], "length alone is no reason"
    event = NoteEvent(note=forgotten, change=NoteChange.DELETED, version="", at_ms=0, by="key")
    add_note_events(office.control, "t", POLICY, [event])
    assert right(office) == [("word " * 1000).strip()]


def test_an_answer_cut_short_or_empty_is_no_example(office: Office) -> None:
    cut = asked(next(office.numbers), "when?", answers=("at t",))
    assert cut.generation is not None
    choice = replace(cut.generation.choices[0], ending=Ending.ABORTED)
    office.store.append_decision(replace(cut, generation=replace(cut.generation, choices=(choice,)))).result()
    thumb(office, cut.id, 1)
    empty = ask(office, "", question="empty?")
    thumb(office, empty, 1)
    assert right(office) == []
    office.say(cut.id, "at nine")
    office.say(empty, "something")
    assert right(office) == ["at nine", "something"]
    assert pairs(office) == [("something", "")]
