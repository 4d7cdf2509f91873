"""Days that were recorded: an office with orders and a stock, and who asked about them."""

import random
from collections.abc import Iterator

from dayjob.dream.excerpts import Excerpt
from dayjob.records import Json

STATES = ("shipped", "pending", "lost", "packed")
STATUS = ("What is the state of order {}?", "Where is order {} now?", "Tell me how order {} stands")
STOCK = ("How many are left of {}?", "Stock of {}?")


def talk(number: int, asked: str, *turns: tuple[str, str], **said: object) -> Excerpt:
    """A conversation: a request, and turns as (role, text)."""
    messages: list[Json] = [{"role": "user", "content": asked}]
    messages += [{"role": role, "content": text} for role, text in turns]
    return Excerpt(id=str(number), messages=tuple(messages), **said)  # type: ignore[arg-type]


def look_up(number: int, asked: str, call: str, result: str, answer: str, **said: object) -> Excerpt:
    """One call, its result, and what was answered."""
    return talk(number, asked, ("assistant", call), ("tool", result), ("assistant", answer), **said)


def day(count: int = 80, *, orders: int = 12, seed: int = 1) -> list[Excerpt]:
    """People ask for the state of orders, and how many are left of a thing."""
    return list(_asked(count, orders, random.Random(seed)))


def _asked(count: int, orders: int, rng: random.Random) -> Iterator[Excerpt]:
    known = {f"A-{100 + one}": (rng.choice(STATES), rng.randrange(2, 40)) for one in range(orders)}
    for number in range(count):
        order = rng.choice(list(known))
        state, left = known[order]
        if rng.random() < 0.6:
            call, result = f"call order_status id={order}", f"order {order}: {state}"
            yield look_up(number, rng.choice(STATUS).format(order), call, result, state)
        else:
            call, result = f"call stock item={order}", f'{{"item": "{order}", "left": {left}}}'
            yield look_up(number, rng.choice(STOCK).format(order), call, result, f"{left} left")
