"""Four families of reasoning-gym, in its own words and with its own right answers.

Training draws from easy settings up to the package's defaults; ``<family>`` is asked at the easy settings and
``<family>_default`` at the defaults. An item's side is a hash of its question, for spelling that is of the word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from random import Random
from typing import Any

from clerk.split import Side, side

from dayjob.practice.adapters.gym import package

EASY: Mapping[str, Mapping[str, int]] = {
    "chain_sum": {"max_terms": 3, "max_digits": 2},
    "spell_backward": {"max_word_len": 6},
    "letter_counting": {"min_words": 1, "max_words": 4},
    "number_sorting": {"max_numbers": 5, "max_decimals": 0},
}
ITEMS = 100_000_000  # a data set is virtual: item i is made from seed + i
EASY_SHARE = 0.75


@cache
def dataset(name: str, *, default: bool) -> Any:
    """The package's own generator. Raises Invalid when it is not installed."""
    return package().create_dataset(name, seed=0, size=ITEMS, **({} if default else EASY[name]))


def item(rng: Random, where: Side, *, name: str, default: bool | None = None) -> tuple[tuple[str, str], ...]:
    """One question with its answer. ``default`` None draws the setting too."""
    at_default = rng.random() >= EASY_SHARE if default is None else default
    while True:
        entry = dataset(name, default=at_default)[rng.randrange(ITEMS)]
        if side(name, entry["question"]) == where:
            return (("user", entry["question"]), ("assistant", entry["answer"]))


def _asked(rng: Random, where: Side, *, name: str) -> tuple[tuple[str, str], ...]:
    """Training draws both settings; questions of ``<family>`` are at the easy one."""
    return item(rng, where, name=name, default=None if where is Side.TRAIN else False)


def gym_families(*, default: bool = False) -> dict[str, Callable[[Random, Side], tuple[tuple[str, str], ...]]]:
    """By name; with ``default`` those at the package's default settings, named so."""
    if default:
        return {f"{name}_default": partial(item, name=name, default=True) for name in EASY}
    return {name: partial(_asked, name=name) for name in EASY}
