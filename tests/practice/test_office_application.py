"""The office application: what calls answer, by hand, and what no sequence of calls can break."""

import json

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dayjob.endings import Invalid
from dayjob.practice.calls import Call, read_calls
from dayjob.practice.environments.office_application import (
    CALLS,
    TOOLS,
    Delivery,
    OfficeApplication,
    OfficeState,
    Order,
    OrderState,
)


def office():
    return OfficeApplication(
        OfficeState(
            stock={"pens": 2, "cups": 9},
            cities={"Otto": "Rome", "Ines": "Oslo"},
            staff=["Marta"],
            orders=[Order(customer="Otto", item="pens", count=3), Order(customer="Ines", item="cups", count=1)],
            deliveries=[Delivery(item="pens", count=4)],
            inbox=["Marta: Order 6 pens."],
        )
    )


SAID = [
    ("call next", "Marta: Order 6 pens."),
    ("call next", "No more messages."),
    ("call stock item=Pens", "2 pens."),
    ("call low below=5", "pens 2."),
    ("call low below=2", "Nothing is under 2."),
    ("call orders customer=otto", "Order 1: 3 pens."),
    ("call ship order=1", "Error: not enough pens, 1 more needed."),
    ("call deliveries item=pens", "Delivery 1: 4 pens."),
    ("call order item=pens count=1", "Delivery 2: 1 pens."),
    ("call deliveries item=pens", "Delivery 1: 4 pens. Delivery 2: 1 pens."),
    ("call receive delivery=2", "Received 1 pens."),
    ("call receive delivery=2", "Error: delivery 2 is in stock already."),
    ("call receive delivery=3", "Error: there is no delivery 3."),
    ("call ship order=1", "Shipped order 1."),
    ("call stock item=pens", "0 pens."),
    ("call ship order=1", "Error: order 1 is shipped already."),
    ("call orders customer=Otto", "No open order of Otto."),
    ("call cancel order=2", "Cancelled order 2."),
    ("call cancel order=2", "Error: order 2 is cancelled already."),
    ("call enter customer=Ines item=cups count=2", "Order 3: 2 cups."),
    ("call update customer=Ines city=New York", "Ines is in New York now."),
    ("call count item=cups count=0", "0 cups."),
    ("call send to=marta text=pens, cups", "Sent to Marta."),
    ("call send to=Bob text=hello", "Error: there is no colleague 'Bob'."),
    ("call stock item=ink", "Error: there is no item 'ink'."),
    ("call stock", "Error: stock needs item."),
    ("call order count=2", "Error: order needs item."),
    ("call stock item=pens count=2", "Error: stock takes no 'count'."),
    ("call order item=pens count=0", "Error: count must be a number from 1 to 1000, not '0'."),
    ("call order item=pens count=1e3", "Error: count must be a number from 1 to 1000, not '1e3'."),
    ("call low below=²", "Error: below must be a number from 0 to 1000, not '²'."),
    ("call fly to=Rome", "Error: there is no call 'fly'."),
]


def test_calls_answer_as_worked_by_hand():
    application = office()
    for text, answer in SAID:
        (call,) = read_calls(text)
        assert application.call(call) == answer, text
    state = application.state
    assert state.stock == {"pens": 0, "cups": 0}
    assert state.sent == [("Marta", "pens, cups")]
    assert state.counted == [("cups", 0)]
    assert state.cities["Ines"] == "New York"
    assert [one.state for one in state.orders] == [OrderState.SHIPPED, OrderState.CANCELLED, OrderState.OPEN]


def test_numbers_as_json_are_as_good_as_texts():
    assert office().call(Call(name="order", arguments={"item": "pens", "count": 7})) == "Delivery 2: 7 pens."


def test_a_call_that_could_not_be_read_is_answered_with_why():
    (call,) = read_calls("<tool_call>nonsense</tool_call>")
    assert office().call(call) == f"Error: {call.error}."


def test_a_snapshot_goes_on_where_the_application_was():
    first = office()
    for place, (text, _) in enumerate(SAID):
        second = OfficeApplication.open(json.loads(json.dumps(first.snapshot())))
        for later, answer in SAID[place : place + 3]:
            assert second.call(read_calls(later)[0]) == answer
        first.call(read_calls(text)[0])


@pytest.mark.parametrize("snapshot", [{}, {"stock": 3}, {"orders": [{"state": "lost"}], "deliveries": []}])
def test_what_is_no_snapshot_is_refused(snapshot):
    with pytest.raises(Invalid, match="no snapshot of an office"):
        OfficeApplication.open(snapshot)


def test_every_call_is_described_with_its_arguments():
    for name, (_, arguments) in CALLS.items():
        assert TOOLS[name]["function"]["parameters"]["required"] == list(arguments)


WORDS = st.sampled_from(
    ["pens", "cups", "Otto", "Ines", "Marta", "Rome", "1", "2", "3", "5", "0", "-1", "99999", "", "x"]
)


class Anything(RuleBasedStateMachine):
    """Any calls in any order, beside what must hold of every state."""

    def __init__(self):
        super().__init__()
        self.application = office()
        self.held = {"pens": 2, "cups": 9}  # what must be on the shelf, by what was answered
        self.calls = []

    @rule(name=st.sampled_from(sorted(CALLS)), words=st.lists(WORDS, min_size=3, max_size=3), known=st.booleans())
    def call(self, name, words, known):
        arguments = dict(CALLS[name][1]) if known else {}
        arguments |= dict(zip(CALLS[name][1], words, strict=False)) if words[0] != "x" else {}
        call = Call(name=name, arguments=arguments)
        before = self.application.snapshot()
        answer = self.application.call(call)
        assert answer
        assert answer == OfficeApplication.open(before).call(call)  # depends on state and call alone
        self.calls.append(call)
        if answer.startswith("Error"):
            assert self.application.snapshot() == before
        else:
            self.account(call, before)

    def account(self, call, before):
        if call.name == "receive":
            one = before["deliveries"][int(call.text("delivery")) - 1]
            self.held[one["item"]] += one["count"]
        elif call.name == "ship":
            one = before["orders"][int(call.text("order")) - 1]
            self.held[one["item"]] -= one["count"]
        elif call.name == "count":
            self.held[call.text("item").casefold()] = int(call.text("count"))

    @invariant()
    def stock_is_what_came_less_what_went_and_never_negative(self):
        assert self.application.state.stock == self.held
        assert min(self.held.values()) >= 0

    @invariant()
    def a_snapshot_is_whole(self):
        snapshot = json.loads(json.dumps(self.application.snapshot()))
        assert OfficeApplication.open(snapshot).snapshot() == self.application.snapshot()

    def teardown(self):
        again = office()
        for call in self.calls:
            again.call(call)
        assert again.snapshot() == self.application.snapshot()


Anything.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestAnything = Anything.TestCase
