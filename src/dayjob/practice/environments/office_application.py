"""A small office as an application: stock, customers' orders, deliveries, messages. Calls in, texts out.

No task is known here: the same application is what a recorded conversation was held with, what a rehearsal replays, and
what an episode of `practice.environments.office` works in. **Deterministic**: what a call answers depends on the state
and the call alone. What cannot be done is said in the answer; a call never raises.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Self

from dayjob.endings import Invalid
from dayjob.practice.calls import Call, describe_tool
from dayjob.records import Json

MOST = 1000  # of anything, in one order or one count
MOST_TEXT = 400  # characters of a message


class OrderState(StrEnum):
    """Where a customer's order stands."""

    OPEN = "open"
    SHIPPED = "shipped"
    CANCELLED = "cancelled"


@dataclass(slots=True, kw_only=True)
class Order:
    """What a customer wants."""

    customer: str
    item: str
    count: int
    state: OrderState = OrderState.OPEN


@dataclass(slots=True, kw_only=True)
class Delivery:
    """What was bought: in stock once it is received."""

    item: str
    count: int
    received: bool = False


@dataclass(slots=True, kw_only=True)
class OfficeState:
    """Everything the application knows. Numbers of orders and deliveries count from 1 in their lists.

    >>> OfficeState(stock={"pens": 7}, cities={"Otto": "Rome"}, staff=["Marta"]).stock
    {'pens': 7}
    """

    stock: dict[str, int]  # by item
    cities: dict[str, str]  # by customer
    staff: list[str]
    orders: list[Order] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    inbox: list[str] = field(default_factory=list)
    read: int = 0  # how many of the inbox
    sent: list[tuple[str, str]] = field(default_factory=list)  # (to, text)
    counted: list[tuple[str, int]] = field(default_factory=list)  # (item, what was found on the shelf)


class Refused(Exception):
    """What the application answers instead of doing what was asked."""


# The calls, in the order a manual lists them: what each is for, and its arguments with an example of each.
CALLS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "next": ("Read the next message.", {}),
    "stock": ("How many of an item there are.", {"item": "pens"}),
    "low": ("Which items there are less of than this.", {"below": "5"}),
    "order": ("Buy from the supplier; becomes a delivery.", {"item": "pens", "count": "10"}),
    "deliveries": ("Which deliveries of an item are on their way.", {"item": "pens"}),
    "receive": ("Put a delivery into stock.", {"delivery": "3"}),
    "orders": ("The open orders of a customer.", {"customer": "Otto"}),
    "enter": ("Note a customer's new order.", {"customer": "Otto", "item": "pens", "count": "2"}),
    "ship": ("Send what an order asks for.", {"order": "12"}),
    "cancel": ("Cancel an order.", {"order": "12"}),
    "update": ("Note where a customer is now.", {"customer": "Otto", "city": "Rome"}),
    "count": ("Correct the stock after counting.", {"item": "pens", "count": "9"}),
    "send": ("Write to a colleague.", {"to": "Marta", "text": "7"}),
}
TOOLS: Mapping[str, Json] = {
    name: describe_tool(name, said, parameters={key: f"such as {example}" for key, example in arguments.items()})
    for name, (said, arguments) in CALLS.items()
}


class OfficeApplication:
    """The application in one state. Not for two at once; a copy is cheap (:meth:`snapshot`, :meth:`open`).

    >>> OfficeApplication.small().call(Call(name="stock", arguments={"item": "pens"}))
    '7 pens.'
    """

    def __init__(self, state: OfficeState) -> None:
        """Works on a copy of ``state``."""
        self.state = copy.deepcopy(state)
        self._do: Mapping[str, Callable[[Call], str]] = {name: getattr(self, f"_{name}") for name in CALLS}

    @classmethod
    def small(cls) -> Self:
        """One item, one customer, one colleague: for examples."""
        return cls(OfficeState(stock={"pens": 7}, cities={"Otto": "Rome"}, staff=["Marta"]))

    @classmethod
    def open(cls, snapshot: Json) -> Self:
        """The application as :meth:`snapshot` left it. Raises Invalid for what is no snapshot of an office."""
        try:
            parts = dict(snapshot)
            parts["orders"] = [Order(**one | {"state": OrderState(one["state"])}) for one in parts["orders"]]
            parts["deliveries"] = [Delivery(**one) for one in parts["deliveries"]]
            for key in ("sent", "counted"):
                parts[key] = [(first, second) for first, second in parts[key]]
            return cls(OfficeState(**parts))
        except (TypeError, KeyError, ValueError) as error:
            message = f"no snapshot of an office ({error!r}): give what `snapshot` returned"
            raise Invalid(message, param="snapshot") from None

    def snapshot(self) -> Json:
        """The state as JSON."""
        made = asdict(self.state)
        return made | {"sent": [list(one) for one in made["sent"]], "counted": [list(one) for one in made["counted"]]}

    def call(self, call: Call) -> str:
        """What the application answers; what it was asked for is done by then. Never raises."""
        if call.error:
            return f"Error: {call.error}."
        if call.name not in CALLS:
            return f"Error: there is no call {call.name[:40]!r}."
        wanted = CALLS[call.name][1]
        if missing := [key for key in wanted if not call.text(key).strip()]:
            return f"Error: {call.name} needs {' and '.join(missing)}."
        if unknown := [key for key in call.arguments if key not in wanted]:
            return f"Error: {call.name} takes no {unknown[0][:40]!r}."
        try:
            return self._do[call.name](call)
        except Refused as refusal:
            return f"Error: {refusal}."

    def _next(self, call: Call) -> str:
        del call
        if self.state.read == len(self.state.inbox):
            return "No more messages."
        self.state.read += 1
        return self.state.inbox[self.state.read - 1]

    def _stock(self, call: Call) -> str:
        item = self._item(call)
        return f"{self.state.stock[item]} {item}."

    def _low(self, call: Call) -> str:
        below = _number(call, "below")
        low = [f"{item} {count}" for item, count in self.state.stock.items() if count < below]
        return f"{', '.join(low)}." if low else f"Nothing is under {below}."

    def _order(self, call: Call) -> str:
        item, count = self._item(call), _number(call, "count", least=1)
        self.state.deliveries.append(Delivery(item=item, count=count))
        return f"Delivery {len(self.state.deliveries)}: {count} {item}."

    def _deliveries(self, call: Call) -> str:
        item = self._item(call)
        coming = [
            f"Delivery {number}: {one.count} {one.item}."
            for number, one in enumerate(self.state.deliveries, 1)
            if one.item == item and not one.received
        ]
        return " ".join(coming) or f"No delivery of {item}."

    def _receive(self, call: Call) -> str:
        number = _number(call, "delivery")
        if not 1 <= number <= len(self.state.deliveries):
            raise Refused(f"there is no delivery {number}")
        delivery = self.state.deliveries[number - 1]
        if delivery.received:
            raise Refused(f"delivery {number} is in stock already")
        delivery.received = True
        self.state.stock[delivery.item] += delivery.count
        return f"Received {delivery.count} {delivery.item}."

    def _orders(self, call: Call) -> str:
        customer = self._customer(call)
        found = [
            f"Order {number}: {one.count} {one.item}."
            for number, one in enumerate(self.state.orders, 1)
            if one.customer == customer and one.state is OrderState.OPEN
        ]
        return " ".join(found) or f"No open order of {customer}."

    def _enter(self, call: Call) -> str:
        made = Order(customer=self._customer(call), item=self._item(call), count=_number(call, "count", least=1))
        self.state.orders.append(made)
        return f"Order {len(self.state.orders)}: {made.count} {made.item}."

    def _ship(self, call: Call) -> str:
        number, order = self._open_order(call)
        short = order.count - self.state.stock[order.item]
        if short > 0:
            raise Refused(f"not enough {order.item}, {short} more needed")
        order.state = OrderState.SHIPPED
        self.state.stock[order.item] -= order.count
        return f"Shipped order {number}."

    def _cancel(self, call: Call) -> str:
        number, order = self._open_order(call)
        order.state = OrderState.CANCELLED
        return f"Cancelled order {number}."

    def _update(self, call: Call) -> str:
        customer, city = self._customer(call), call.text("city").strip()
        if len(city) > 40 or not city.replace(" ", "").isalpha():
            raise Refused("a city is a name of at most 40 letters")
        self.state.cities[customer] = city
        return f"{customer} is in {city} now."

    def _count(self, call: Call) -> str:
        item, count = self._item(call), _number(call, "count")
        self.state.stock[item] = count
        self.state.counted.append((item, count))
        return f"{count} {item}."

    def _send(self, call: Call) -> str:
        to, text = _known("colleague", call.text("to"), self.state.staff), call.text("text").strip()
        if len(text) > MOST_TEXT:
            raise Refused(f"a message has at most {MOST_TEXT} characters")
        self.state.sent.append((to, text))
        return f"Sent to {to}."

    def _item(self, call: Call) -> str:
        return _known("item", call.text("item"), self.state.stock)

    def _customer(self, call: Call) -> str:
        return _known("customer", call.text("customer"), self.state.cities)

    def _open_order(self, call: Call) -> tuple[int, Order]:
        number = _number(call, "order")
        if not 1 <= number <= len(self.state.orders):
            raise Refused(f"there is no order {number}")
        order = self.state.orders[number - 1]
        if order.state is not OrderState.OPEN:
            raise Refused(f"order {number} is {order.state} already")
        return number, order


def _known(kind: str, said: str, names: Mapping[str, object] | list[str]) -> str:
    """The name that was meant, whatever its case."""
    wanted = said.strip().casefold()
    for name in names:
        if name.casefold() == wanted:
            return name
    raise Refused(f"there is no {kind} {said.strip()[:40]!r}")


def _number(call: Call, key: str, *, least: int = 0) -> int:
    """A whole number from ``least`` to MOST."""
    said = call.text(key).strip()
    if not (said.isascii() and said.isdigit() and len(said) <= 4 and least <= int(said) <= MOST):
        raise Refused(f"{key} must be a number from {least} to {MOST}, not {said[:40]!r}")
    return int(said)
