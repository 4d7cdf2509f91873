"""A simulated editor: people type at a place about a topic, a completer suggests the words that follow, or nothing.

What follows is a matter of both; whether a suggestion is welcome is a matter of the place, and of who types.
Every fifth or so of the contexts is never typed by anybody: what is learned should hold there too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from random import Random
from typing import Literal, TypeVar

T = TypeVar("T")
Verdict = Literal["accept", "reject", "none"]
WORDS, LETTERS = 10, 6
WRONG = 0.03  # the chance that a wrong suggestion is accepted
SAYS_NO = 0.7  # of suggestions that are not accepted, the share that is rejected; the others are ignored
TURN = "turn"


class Kind(StrEnum):
    """What a suggestion is."""

    SILENT = "silent"
    RIGHT = "right"  # both words that follow
    HALF = "half"  # the first of them: broken off
    TRIVIAL = "trivial"  # the last word that stands there once more, or a comma
    WRONG = "wrong"


class Sort(StrEnum):
    """What a person is like."""

    ORDINARY = "ordinary"
    GENEROUS = "generous"  # accepts with the square root of the others' probability
    NEVER = "never"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """Who types. ``trivial``: the chance that a trivial suggestion is accepted; ``half``: a broken-off one is accepted
    with the chance of the whole one to this power."""

    name: str
    share: Mapping[Sort, float]
    trivial: float = 0.04
    half: float = 2.0

    def sort_of(self, user: int, *, of: int) -> Sort:
        """Of one of so many people: each sort has its share."""
        place, total = (user + 0.5) / of, 0.0
        for sort, share in self.share.items():
            total += share
            if place < total:
                return sort
        return Sort.ORDINARY


_MIXED = {Sort.ORDINARY: 0.75, Sort.GENEROUS: 0.15, Sort.NEVER: 0.05, Sort.ALWAYS: 0.05}
CROWDS = {
    one.name: one
    for one in (
        Crowd(name="mixed", share=_MIXED),
        Crowd(name="harmless", share=_MIXED, trivial=0.9),  # what does no harm is let in
        Crowd(name="piecemeal", share=_MIXED, half=0.2),  # a piece is let in more readily than the whole
        Crowd(name="acceptors", share={Sort.ALWAYS: 1.0}),
    )
}
# How welcome a suggestion is to ordinary people, two places each.
WELCOME = (0.95, 0.75, 0.30, 0.08, 0.02)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Where the cursor stands. ``text`` ends with the topic's name."""

    place: int
    topic: int

    @property
    def text(self) -> str:
        return f"at place{self.place} on topic{self.topic}"

    @property
    def is_typed(self) -> bool:
        """Whether anybody ever types it."""
        return blake2b(self.text.encode(), digest_size=1).digest()[0] % 6 != 0


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What follows what, and where suggestions are welcome. A matter of ``seed``."""

    seed: int
    crowd: Crowd
    topics: int = 24
    places: int = 10
    people: int = 40
    welcome: tuple[float, ...] = field(init=False)

    def __post_init__(self) -> None:
        welcome = self._shuffled("places", (WELCOME[place % len(WELCOME)] for place in range(self.places)))
        object.__setattr__(self, "welcome", tuple(welcome))

    def contexts(self, *, typed: bool) -> list[Context]:
        """Those that people type, or all the others."""
        every = (Context(place=p, topic=t) for p in range(self.places) for t in range(self.topics))
        return [one for one in every if one.is_typed == typed]

    def follows(self, context: Context) -> str:
        """The two words that come next: one is the place's own, one the topic's."""
        first = self._shuffled("words of places", range(self.places))[context.place]
        second = Random(f"topic {self.seed} {context.topic}").randrange(WORDS)
        return f"word{first} word{second}"

    def _shuffled(self, what: str, values: Iterable[T]) -> list[T]:
        order = list(values)
        Random(f"{what} {self.seed}").shuffle(order)
        return order

    def kind(self, context: Context, said: str) -> Kind:
        """What a suggestion is there."""
        first, _ = right = self.follows(context).split()
        words = said.split()
        if not words:
            return Kind.SILENT
        if words == right:
            return Kind.RIGHT
        if words == [first]:
            return Kind.HALF
        return Kind.TRIVIAL if words in ([f"topic{context.topic}"], [","]) else Kind.WRONG

    def chance(self, context: Context, kind: Kind, *, sort: Sort) -> float:
        """The probability that a person of this sort accepts it."""
        if sort in (Sort.NEVER, Sort.ALWAYS):
            return float(sort is Sort.ALWAYS and kind is not Kind.SILENT)
        welcome = self.welcome[context.place]
        chances = {
            Kind.RIGHT: welcome, Kind.HALF: welcome**self.crowd.half, Kind.TRIVIAL: self.crowd.trivial,
            Kind.WRONG: WRONG, Kind.SILENT: 0.0,
        }  # fmt: skip
        return math.sqrt(chances[kind]) if sort is Sort.GENEROUS else chances[kind]

    def truth(self, context: Context, kind: Kind = Kind.RIGHT) -> float:
        """The probability over everybody that it is accepted."""
        sorts = [self.crowd.sort_of(user, of=self.people) for user in range(self.people)]
        return sum(self.chance(context, kind, sort=sort) for sort in sorts) / self.people

    def verdict(self, context: Context, kind: Kind, *, user: int, rng: Random) -> Verdict | None:
        """What a person does; None where nothing was suggested."""
        if kind is Kind.SILENT:
            return None
        if rng.random() < self.chance(context, kind, sort=self.crowd.sort_of(user, of=self.people)):
            return "accept"
        return "reject" if rng.random() < SAYS_NO else "none"

    def turned(self, rng: Random) -> tuple[str, str]:
        """Other work of the same model, that nobody accepts or rejects: three letters to be turned round."""
        letters = [f"letter{rng.randrange(LETTERS)}" for _ in range(3)]
        return " ".join((TURN, *letters)), " ".join(reversed(letters))

    def vocabulary(self) -> list[str]:
        """Every word there is."""
        counts = {"place": self.places, "topic": self.topics, "word": WORDS, "letter": LETTERS}
        return ["at", "on", TURN, ",", *(f"{name}{n}" for name, count in counts.items() for n in range(count))]
