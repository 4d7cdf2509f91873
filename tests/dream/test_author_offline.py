"""What the offline author makes of a recorded day: its families, its programs, and how they do in a proof."""

import asyncio
import json

import pytest

from dayjob.dream import recorded_program as recorded
from dayjob.dream.author_offline import KINDS, write_programs
from dayjob.dream.excerpts import Excerpt, conversations, hold_out, plain, transitions
from dayjob.dream.prove import Demands, prove
from dayjob.practice.environments.program import Program, close_idle
from dayjob.practice.sandbox import available
from tests.dream.days import day, look_up, talk

needs_sandbox = pytest.mark.skipif(available() is not None, reason="the sandbox is missing")


def data_of(excerpts: list[Excerpt], kind: str = "recorded") -> dict:
    """What one of its programs holds."""
    found = {one.name.rpartition(": ")[2]: one.source for one in write_programs(excerpts)}
    line = next(one for one in found[kind].splitlines() if one.startswith("DATA: "))
    return json.loads(eval(line.partition("json.loads(")[2][:-1]))


def kinds(excerpts: list[Excerpt]) -> list[str]:
    return [one.name.rpartition(": ")[2] for one in write_programs(excerpts)]


@needs_sandbox
def test_its_programs_hold_in_a_proof():
    read, kept = hold_out(conversations(day()))
    held_out = [one for each in kept for one in transitions(each)]
    found = write_programs(read)
    assert [one.name for one in found] == [f"order_status, stock: {kind}" for kind in KINDS]
    for proposal in found:
        proof = asyncio.run(prove(proposal, held_out=held_out, actor=None, demands=Demands(seeds=3, claims=3)))
        assert proof.reason == "", proposal.name
    assert found == write_programs(read)
    close_idle()


def test_what_varied_becomes_a_slot_and_what_was_answered_a_field_of_the_result():
    family = next(one for one in data_of(day())["families"] if one["request"][0] == ["text", "How many are left of "])
    assert family["request"] == [["text", "How many are left of "], ["slot", "item"], ["text", "?"]]
    assert family["calls"] == [["stock", {"item": [["slot", "item"]]}]]
    assert family["answer"] == [["field", 0, "left"], ["text", " left"]]


def test_other_arguments_ask_what_was_never_asked_in_these_words():
    def asked(kind: str) -> set[str]:
        data = data_of(day(30), kind)
        application = recorded.Application(data)
        made = [recorded.solve(data["families"][at], slots, application=application) for at, slots in data["tasks"]]
        return {one["request"] for one in made if one}

    seen = {one.messages[0]["content"] for one in day(30)}
    assert asked("recorded") <= seen
    assert asked("others")
    assert not asked("others") & seen


def test_a_call_s_argument_may_come_from_the_result_before_it():
    def mailed(number: int, order: str, who: str) -> Excerpt:
        return talk(
            number, f"Whose order is {order}, and where do they live?",
            ("assistant", f"call order id={order}"), ("tool", f'{{"buyer": "{who}", "pieces": {number + 20}}}'),
            ("assistant", f"call person name={who}"), ("tool", f"name: {who}, town: T{who}"),
            ("assistant", f"{who} in T{who}"),
        )  # fmt: skip

    people = [mailed(number, f"B-{number}", who) for number, who in enumerate(["Ann", "Bob", "Cid", "Dee"])]
    data = data_of(people)
    assert data["families"][0]["calls"][1] == ["person", {"name": [["field", 0, "buyer"]]}]
    assert data["families"][0]["answer"][0] == ["field", 1, "name"]
    assert ["field", 1, "town"] in data["families"][0]["answer"]
    task = recorded.solve(data["families"][0], {"id": "B-2"}, application=recorded.Application(data))
    assert task is not None
    assert (task["calls"][1], task["answer"]) == (["person", {"name": "Cid"}], "Cid in TCid")


def test_only_what_was_right_is_a_solution():
    base = look_up(0, "Where is A-1?", "call see id=A-1", "A-1: lost", "lost")
    assert "recorded" in kinds([base])
    assert kinds([Excerpt(id="1", messages=base.messages, liked=-1)]) == []
    # A demonstration is the answer that should have been given.
    data = data_of([Excerpt(id="1", messages=base.messages, liked=-1, right="It is lost")])
    assert data["families"][0]["answer"][0] == ["text", "It is "]
    # A demonstrated call is all that is known to be right: the task ends with it.
    wrong = talk(2, "Where is A-1?", ("assistant", "?"), right="call see id=A-1")
    data = data_of([base, wrong])
    assert [one["answer"] is None for one in data["families"]] == [False, True]


def test_a_family_whose_answers_follow_no_pattern_is_left_out():
    odd = [
        look_up(n, f"What of A-{n}?", f"call see id=A-{n}", f"A-{n}: {state}", answer)
        for n, (state, answer) in enumerate([("lost", "blue"), ("sent", "seven"), ("kept", "never")])
    ]
    assert kinds(odd) == []


def test_an_application_says_what_it_said_before_then_what_was_recorded_and_else_that_it_does_not_know():
    data = {
        "answers": [["see", {"id": "A-1"}, "A-1: lost"]],
        "rules": [["mail", ["to"], [["text", "sent to "], ["slot", "to"]]]],
    }
    application = recorded.Application(data)
    assert application.answer("see", {"id": "a-1 "}) == ("A-1: lost", True)
    assert application.answer("see", {"id": "A-2"}) == (recorded.NOT_FOUND, False)
    assert application.answer("mail", {"to": "Bob"}) == ("sent to Bob", True)
    application.heard("see", {"id": "A-1"}, result="A-1: found")
    assert application.answer("see", {"id": "A-1"}) == ("A-1: found", True)


def test_a_rule_is_drawn_from_three_different_calls_that_all_fit_it():
    def mails(*to: str) -> list[Excerpt]:
        return [look_up(n, f"Mail {one}.", f"call mail to={one}", f"sent to {one}", "done") for n, one in enumerate(to)]

    assert data_of(mails("Ann", "Bob"))["rules"] == []
    assert data_of(mails("Ann", "Bob", "Cid"))["rules"] == [["mail", ["to"], [["text", "sent to "], ["slot", "to"]]]]
    odd = look_up(9, "Mail Dee.", "call mail to=Dee", "no such person", "done")
    assert data_of([*mails("Ann", "Bob", "Cid"), odd])["rules"] == []


@needs_sandbox
def test_renamed_ids_are_the_same_everywhere_and_no_other_is_known():
    source = next(one.source for one in write_programs(day()) if one.name.endswith("renamed"))
    known = {row[1].get("id", row[1].get("item")) for row in data_of(day(), "renamed")["answers"]}
    environment = Program(source=source)
    for seed in range(4):
        call, answer = environment.reference(seed)
        episode = environment.reset(seed)
        fresh = call.text.rpartition("=")[2]
        asked = episode.task.messages[-1]["content"]
        assert fresh in asked
        assert fresh not in known

        async def said(episode=episode, call=call, answer=answer):
            try:
                stray = call.text.replace(call.text.rpartition("=")[2], "Z-999")
                wrong, right = [await episode.step(type(call)(text=text)) for text in (stray, call.text)]
                return wrong, right, await episode.step(answer)
            finally:
                await episode.close()

        wrong, right, last = asyncio.run(said())
        assert wrong.messages[0]["content"] == recorded.NOT_FOUND
        assert fresh in right.messages[0]["content"]
        assert last.reward.value == 1.0
    close_idle()


def test_tool_calls_of_openai_s_shape_are_read_as_text():
    call = {"id": "c", "type": "function", "function": {"name": "see", "arguments": {"id": "A-1"}}}
    said = plain([{"role": "assistant", "content": "", "tool_calls": [call]}])
    assert said[0]["content"] == '<tool_call>\n{"name": "see", "arguments": {"id": "A-1"}}\n</tool_call>'
    text = plain(
        [{"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "see", "arguments": "{]"}}]}]
    )
    assert '"arguments": {}' in text[0]["content"]


def test_an_answer_in_the_middle_of_a_longer_conversation_is_no_conversation_of_its_own():
    first = talk(1, "Where is A-1?", ("assistant", "call see id=A-1"))
    whole = look_up(2, "Where is A-1?", "call see id=A-1", "A-1: lost", "lost")
    assert [one.id for one in conversations([first, whole])] == ["2"]
    taught = Excerpt(id="3", messages=first.messages, right="call look id=A-1")
    assert [one.id for one in conversations([taught, whole])] == ["3", "2"]
