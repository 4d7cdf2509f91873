"""A day in the office, drawn by a seed: the state it begins in, what is asked for, and what the state must hold after.

A *job* is one sentence of a colleague; its kind decides how many calls it takes. Days are drawn so that the reference
solution takes an exact number of turns, by playing it on a copy of the application while the jobs are drawn: a job may
depend on what the ones before it did. What must hold is read off the states before and after, never off a transcript.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from dayjob.practice.calls import Call
from dayjob.practice.environments.office_application import (
    Delivery,
    OfficeApplication,
    OfficeState,
    Order,
    OrderState,
)

ITEMS = ("pens", "clips", "stamps", "files", "lamps", "cups", "chairs", "desks", "bags", "boxes", "maps", "books")
CUSTOMERS = ("Otto", "Ines", "Hugo", "Lena", "Karl", "Nora", "Emil", "Rosa", "Ivan", "Olga", "Theo", "Vera",
             "Axel", "Dora", "Finn", "Gina", "Jonas", "Mona", "Ralf", "Uwe")  # fmt: skip
STAFF = ("Marta", "Paul", "Anna", "Leo")
CITIES = ("Rome", "Paris", "Madrid", "Vienna", "Oslo", "Bern", "Lisbon", "Athens", "Dublin", "Prague")
Effect = tuple[str, ...]
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one sentence asks for, and calls that do it."""

    said: str
    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """A task of the office. ``wanted`` is what the state must hold at the end that it does not hold at the start."""

    start: OfficeState
    jobs: tuple[Job, ...]
    wanted: Counter[Effect]


def draw_day(rng: Random, *, kinds: Sequence[str], items: int, customers: int, calls: int, inbox: bool) -> Day:
    """A day whose jobs take ``calls`` calls together, counting one more for each where they are read from the inbox.

    At least one of ``kinds`` must take a single call whatever the state (order, count, enter). Where no job fills what
    is left, a message comes that asks for nothing.
    """
    start = _draw_state(rng, items=items, customers=customers)
    played = OfficeApplication(start)
    jobs: list[Job] = []
    moved: set[str] = set()
    left, reading = calls, int(inbox)
    while left:
        job = _draw_job(rng, kinds, state=played.state, left=left - reading, reading=reading, moved=moved)
        for call in job.calls:
            played.call(call)
        jobs.append(job)
        left -= len(job.calls) + reading
    said = [f"{rng.choice(STAFF)}: {job.said}" for job in jobs] if inbox else []
    start.inbox.extend(said)
    return Day(start=start, jobs=tuple(jobs), wanted=changes(start, played.state))


def _draw_job(
    rng: Random, kinds: Sequence[str], *, state: OfficeState, left: int, reading: int, moved: set[str]
) -> Job:
    """A job of at most ``left`` calls; rather one after which the next can be a job, too, or nothing is left."""
    fitting = []
    for kind in rng.sample(list(kinds), len(kinds)):
        job = KINDS[kind](rng, state, left)
        where = job.calls[0].text("customer") if job and kind == "move" else ""
        if job is None or where in moved:
            continue
        rest = left - len(job.calls)
        if rest == 0 or rest > reading:
            moved |= {where} - {""}  # where a customer is counts once: at the end
            return job
        fitting.append(job)
    # A move would have to be remembered; there is always another that fits as well.
    return next((job for job in fitting if job.calls[0].name != "update"), _nothing(rng))


def changes(before: OfficeState, after: OfficeState) -> Counter[Effect]:
    """What ``after`` holds beyond ``before``, each thing as often as it was done. Looking things up leaves nothing."""
    return _effects(after) - _effects(before)


def count_met(done: Counter[Effect], wanted: Counter[Effect]) -> tuple[int, int]:
    """(how much of what was wanted was done, how much was done that nobody wanted).

    A message is the wanted one when it goes to the same person and says the same numbers; where the wanted one has no
    numbers, when it names the same items.
    """
    messages = [effect for effect in wanted.elements() if effect[0] == "sent"]
    done = Counter(done)
    for effect in [effect for effect in done.elements() if effect[0] == "sent"]:
        same = next((one for one in messages if one[1] == effect[1] and _says(effect[2], one[2])), None)
        if same is not None:
            messages.remove(same)
            done[effect] -= 1
            done[same] += 1
    return (done & wanted).total(), (done - wanted).total()


def _says(text: str, wanted: str) -> bool:
    numbers = _numbers(wanted)
    return _numbers(text) == numbers if numbers else _items(text) == _items(wanted)


def _numbers(text: str) -> list[int]:
    return sorted({int(found[:9]) for found in _DIGITS.findall(text)})


def _items(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower())) & set(ITEMS)


def _effects(state: OfficeState) -> Counter[Effect]:
    found: Counter[Effect] = Counter()
    for order in state.orders:
        what = (order.customer, order.item, str(order.count))
        found["entered", *what] += 1
        if order.state is not OrderState.OPEN:
            found[str(order.state), *what] += 1
    for delivery in state.deliveries:
        goods = (delivery.item, str(delivery.count))
        found["bought", *goods] += 1
        if delivery.received:
            found["received", *goods] += 1
    found.update(("city", customer, city.casefold()) for customer, city in state.cities.items())
    found.update(("counted", item, str(count)) for item, count in state.counted)
    found.update(("sent", to, text) for to, text in state.sent)
    return found


def _draw_state(rng: Random, *, items: int, customers: int) -> OfficeState:
    names = rng.sample(ITEMS, items)
    people = rng.sample(CUSTOMERS, customers)
    state = OfficeState(
        stock={item: rng.randint(0, 12) for item in names},
        cities={customer: rng.choice(CITIES) for customer in people},
        staff=list(STAFF),
    )
    state.orders += [Order(customer=one, item=rng.choice(names), count=rng.randint(1, 8)) for one in people]
    coming = rng.sample(names, items // 2)
    state.deliveries += [Delivery(item=item, count=rng.randint(2, 9)) for item in coming]
    return state


# --- The kinds of jobs: (rng, the state when it comes, the most calls it may take) -> a job, or None if none fits now.


def _call(name: str, **arguments: object) -> Call:
    return Call(name=name, arguments={key: str(value) for key, value in arguments.items()})


def _nothing(rng: Random) -> Job:
    return Job(said=rng.choice(("Good morning.", "Thank you.", "Coffee is ready.")), calls=())


def _order(rng: Random, state: OfficeState, most: int) -> Job | None:
    item, count = rng.choice(list(state.stock)), rng.randint(2, 20)
    said = rng.choice((f"Order {count} {item}.", f"Please buy {count} {item}."))
    return Job(said=said, calls=(_call("order", item=item, count=count),)) if most >= 1 else None


def _count(rng: Random, state: OfficeState, most: int) -> Job | None:
    item, count = rng.choice(list(state.stock)), rng.randint(0, 20)
    said = rng.choice((f"I counted {count} {item}.", f"There are {count} {item} on the shelf."))
    return Job(said=said, calls=(_call("count", item=item, count=count),)) if most >= 1 else None


def _enter(rng: Random, state: OfficeState, most: int) -> Job | None:
    # Rather somebody without an open order: then there is one to ship later that needs no further words.
    waiting = {order.customer for order in state.orders if order.state is OrderState.OPEN}
    people = [one for one in state.cities if one not in waiting] or list(state.cities)
    customer, item, count = rng.choice(people), rng.choice(list(state.stock)), rng.randint(1, 8)
    said = rng.choice((f"{customer} wants {count} {item}.", f"{customer} orders {count} {item}."))
    calls = (_call("enter", customer=customer, item=item, count=count),)
    return Job(said=said, calls=calls) if most >= 1 else None


def _move(rng: Random, state: OfficeState, most: int) -> Job | None:
    customer = rng.choice(list(state.cities))
    city = rng.choice([one for one in CITIES if one != state.cities[customer]])
    said = rng.choice((f"{customer} moved to {city}.", f"{customer} is in {city} now."))
    return Job(said=said, calls=(_call("update", customer=customer, city=city),)) if most >= 1 else None


def _tell(rng: Random, state: OfficeState, most: int) -> Job | None:
    item, to = rng.choice(list(state.stock)), rng.choice(state.staff)
    said = rng.choice((f"Tell {to} how many {item} we have.", f"{to} asks how many {item} there are."))
    calls = (_call("stock", item=item), _call("send", to=to, text=state.stock[item]))
    return Job(said=said, calls=calls) if most >= 2 else None


def _receive(rng: Random, state: OfficeState, most: int) -> Job | None:
    coming = Counter(one.item for one in state.deliveries if not one.received)
    single = [item for item, times in coming.items() if times == 1]
    if not single or most < 2:
        return None
    item = rng.choice(single)
    number = next(n for n, one in enumerate(state.deliveries, 1) if one.item == item and not one.received)
    said = rng.choice((f"The {item} are here.", f"The delivery of {item} came."))
    return Job(said=said, calls=(_call("deliveries", item=item), _call("receive", delivery=number)))


def _lone_orders(state: OfficeState) -> list[tuple[int, Order]]:
    """Open orders of customers who have no other: a sentence that names the customer says which."""
    waiting = Counter(order.customer for order in state.orders if order.state is OrderState.OPEN)
    numbered = enumerate(state.orders, 1)
    return [(n, one) for n, one in numbered if one.state is OrderState.OPEN and waiting[one.customer] == 1]


def _cancel(rng: Random, state: OfficeState, most: int) -> Job | None:
    if most < 2 or not (lone := _lone_orders(state)):
        return None
    number, order = rng.choice(lone)
    said = rng.choice((f"Cancel the order of {order.customer}.", f"{order.customer} no longer wants anything."))
    return Job(said=said, calls=(_call("orders", customer=order.customer), _call("cancel", order=number)))


def _ship(rng: Random, state: OfficeState, most: int) -> Job | None:
    ready = [(n, one) for n, one in _lone_orders(state) if one.count <= state.stock[one.item]]
    if most < 2 or not ready:
        return None
    number, order = rng.choice(ready)
    said = rng.choice((f"Send {order.customer} the order.", f"{order.customer} is waiting for the order."))
    return Job(said=said, calls=(_call("orders", customer=order.customer), _call("ship", order=number)))


def _short(rng: Random, state: OfficeState, most: int) -> Job | None:
    """Shipping what is not all there: the refusal says how much must be bought first."""
    lacking = [(n, one) for n, one in _lone_orders(state) if one.count > state.stock[one.item]]
    if most < 5 or not lacking:
        return None
    number, order = rng.choice(lacking)
    said = f"Send {order.customer} the order and buy what is missing."
    ship = _call("ship", order=number)
    bought = _call("order", item=order.item, count=order.count - state.stock[order.item])
    received = _call("receive", delivery=len(state.deliveries) + 1)
    return Job(said=said, calls=(_call("orders", customer=order.customer), ship, bought, received, ship))


def _restock(rng: Random, state: OfficeState, most: int) -> Job | None:
    """Everything under a bound is ordered, and somebody told what: as many calls as items, and two."""
    bounds = {}
    for below in range(1, 10):
        low = [item for item, count in state.stock.items() if count < below]
        if 1 <= len(low) <= most - 2:
            bounds[below] = low
    if not bounds:
        return None
    below, count, to = rng.choice(list(bounds)), rng.randint(5, 15), rng.choice(state.staff)
    said = f"Order {count} of everything under {below} and tell {to} what you ordered."
    bought = [_call("order", item=item, count=count) for item in bounds[below]]
    told = _call("send", to=to, text=", ".join(bounds[below]))
    return Job(said=said, calls=(_call("low", below=below), *bought, told))


# In the order in which harder days take them in.
KINDS: Mapping[str, Callable[[Random, OfficeState, int], Job | None]] = {
    "order": _order,
    "count": _count,
    "enter": _enter,
    "move": _move,
    "tell": _tell,
    "receive": _receive,
    "ship": _ship,
    "cancel": _cancel,
    "restock": _restock,
    "short": _short,
}
ALWAYS = ("order", "count", "enter")  # take one call, whatever the state
USES: Mapping[str, tuple[str, ...]] = {
    "order": ("order",),
    "count": ("count",),
    "enter": ("enter",),
    "move": ("update",),
    "tell": ("stock", "send"),
    "receive": ("deliveries", "receive"),
    "ship": ("orders", "ship"),
    "cancel": ("orders", "cancel"),
    "restock": ("low", "order", "send"),
    "short": ("orders", "ship", "order", "receive"),
}  # the calls that each kind of job takes
