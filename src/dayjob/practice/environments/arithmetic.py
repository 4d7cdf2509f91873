"""Arithmetic: sums, differences and products of whole numbers, as an expression or told as a story."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from dayjob.endings import Invalid
from dayjob.practice.protocol import Action, Direction, Episode, Mutation, Task
from dayjob.practice.questions import (
    QuestionEpisode,
    check_choice,
    check_seed,
    check_whole,
    neighbours,
    rng_of,
    spec_of,
)
from dayjob.records import Json

OPERATIONS = ("+", "-", "*")
MAX_SLACK_PERCENT = 50
_NUMBER = re.compile(r"-?\d{1,60}")
_NAMES = ("Ann", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hana", "Ida", "Jon", "Kim", "Leo")
_THINGS = ("apples", "books", "coins", "cups", "eggs", "keys", "lamps", "pens", "shells", "stamps")
_TOLD = {
    "+": ("{who} finds {n} more", "{who} buys {n} more", "{who} is given {n} more"),
    "-": ("{who} loses {n}", "{who} sells {n}", "{who} gives {n} away"),
    "*": ("{who} now gets so many that there are {n} times as many",),
}


class _Part(NamedTuple):
    """A calculation: where it starts (None: at the result of the part before) and what is then done, in order."""

    start: int | None
    steps: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """One question, answered with a whole number.

    ``terms``: numbers in a calculation. ``digits``: of a number, at most. ``operations``: of + - *. ``story``: told in
    sentences, each done in turn, instead of an expression with the usual precedence. ``parts``: calculations, each but
    the first begins with the result of the one before. ``shown``: intermediate results that the question gives away.
    ``slack_percent``: how far off the answer may be. Raises Invalid for values outside their range.

    >>> Arithmetic().reset(0).task.messages[0]["content"]
    'What is 60 + 9?'
    """

    terms: int = 2
    digits: int = 2
    operations: Sequence[str] = ("+", "-")
    story: bool = False
    parts: int = 1
    shown: int = 0
    slack_percent: int = 0

    def __post_init__(self) -> None:
        check_whole(self, {"terms": (2, 20), "digits": (1, 12), "parts": (1, 8), "shown": (0, 160),
                           "slack_percent": (0, MAX_SLACK_PERCENT)})  # fmt: skip
        object.__setattr__(self, "operations", check_choice(self, "operations", known=OPERATIONS))
        if not isinstance(self.story, bool):
            raise Invalid("story must be true or false", param="story")
        if self.story and self.operations == ("-",):
            raise Invalid(
                "operations of a story must not be losses alone, which end at nothing: add +", param="operations"
            )

    @property
    def spec(self) -> Json:
        return spec_of("arithmetic", self)

    def reset(self, seed: int) -> Episode:
        """As `Environment.reset`."""
        calculation, right = self._draw(seed)
        text = self._tell(calculation, rng_of("arithmetic", "words", seed))
        slack = abs(right) * self.slack_percent / 100

        def judge(answer: str) -> bool | None:
            found = _NUMBER.findall(answer.rpartition("=")[2].replace(",", ""))
            # One number: who lists several has not answered.
            return abs(int(found[0]) - right) <= slack if len(found) == 1 else None

        return QuestionEpisode(Task(messages=({"role": "user", "content": text},)), judge)

    def reference(self, seed: int) -> Sequence[Action]:
        """As `Environment.reference`."""
        return (Action(text=str(self._draw(seed)[1])),)

    def mutations(self) -> Sequence[Mutation]:
        """As `Environment.mutations`."""
        easier, harder = Direction.EASIER, Direction.HARDER
        fewer = [one for one in self.operations if one != "*"]
        changes: list[tuple[str, Direction, Json]] = [
            ("fewer terms", easier, {"terms": self.terms - 1}),
            ("more terms", harder, {"terms": self.terms + 1}),
            ("fewer digits", easier, {"digits": self.digits - 1}),
            ("more digits", harder, {"digits": self.digits + 1}),
            ("no products", easier, {"operations": fewer}),
            ("products too", harder, {"operations": [*fewer, "*"]}),
            ("one part less", easier, {"parts": self.parts - 1}),
            ("composed with one more", harder, {"parts": self.parts + 1}),
            ("show one more result", easier, {"shown": self.shown + 1}),
            ("show one result less", harder, {"shown": self.shown - 1}),
            ("nearly right will do", easier, {"slack_percent": max(10, self.slack_percent)}),
            ("exactly right", harder, {"slack_percent": 0}),
            ("as an expression", easier, {"story": False}),
            ("as a story", harder, {"story": True}),
        ]
        if self.shown + 1 >= self.parts * (self.terms - 1):
            changes = [one for one in changes if one[0] != "show one more result"]
        return neighbours(self.spec, changes, make=lambda settings: Arithmetic(**settings))

    def _draw(self, seed: int) -> tuple[tuple[_Part, ...], int]:
        """The calculation of a seed, and its result."""
        rng = rng_of("arithmetic", check_seed(seed))
        found: list[_Part] = []
        value: int | None = None
        for _ in range(self.parts):
            start = self._number(rng) if value is None else None
            value = start if value is None else value
            assert value is not None
            steps: list[tuple[str, int]] = []
            running = value
            for _ in range(self.terms - 1):
                sign, number = rng.choice(list(self.operations)), self._number(rng)
                if self.story:
                    sign, number = _tellable(sign, number, held=running, operations=self.operations)
                steps.append((sign, number))
                running = _fold(running, ((sign, number),))
            found.append(_Part(start, tuple(steps)))
            value = self._value(value, steps)
        assert value is not None
        return tuple(found), value

    def _number(self, rng: Random) -> int:
        size = rng.randint(1, self.digits)
        return rng.randint(1 if size == 1 else 10 ** (size - 1), 10**size - 1)

    def _value(self, start: int, steps: Sequence[tuple[str, int]]) -> int:
        return _fold(start, steps) if self.story else _evaluate(start, steps)

    def _tell(self, calculation: Sequence[_Part], rng: Random) -> str:
        text = self._as_story(calculation, rng) if self.story else self._as_expression(calculation)
        shown = self._results(calculation)[: self.shown]
        if shown:
            text += f" The first result{'s are' if len(shown) > 1 else ' is'} {', '.join(map(str, shown))}."
        if self.slack_percent:
            text += f" It is enough to be within {self.slack_percent} %."
        # A plain question is asked as anybody would: small models know no other wording.
        return text if self._plain else f"{text} Write the number alone."

    @property
    def _plain(self) -> bool:
        return not (self.story or self.parts > 1 or self.shown or self.slack_percent)

    def _as_expression(self, calculation: Sequence[_Part]) -> str:
        letters = "abcdefgh"
        lines = []
        for place, part in enumerate(calculation):
            first = letters[place - 1] if part.start is None else str(part.start)
            lines.append(" ".join([first, *(f"{sign} {number}" for sign, number in part.steps)]))
        if len(lines) == 1:
            return f"What is {lines[0]}?"
        named = [f"{letter} is {line}." for letter, line in zip(letters, lines, strict=False)]
        return " ".join([*named, f"What is {letters[len(lines) - 1]}?"])

    def _as_story(self, calculation: Sequence[_Part], rng: Random) -> str:
        things, people = rng.choice(_THINGS), rng.sample(_NAMES, len(calculation))
        said = []
        for place, (who, part) in enumerate(zip(people, calculation, strict=True)):
            said.append(
                f"{who} has {part.start} {things}."
                if place == 0
                else f"{who} has as many as {people[place - 1]} has now."
            )
            said += [rng.choice(_TOLD[sign]).format(who=who, n=number) + "." for sign, number in part.steps]
        return " ".join([*said, f"How many {things} does {people[-1]} have now?"])

    def _results(self, calculation: Sequence[_Part]) -> list[int]:
        """Every intermediate result, in order, without the last."""
        found, start = [], 0
        for part in calculation:
            start = start if part.start is None else part.start
            found += [self._value(start, part.steps[:count]) for count in range(1, len(part.steps) + 1)]
            start = found[-1]
        return found[:-1]


def _tellable(sign: str, number: int, *, held: int, operations: Sequence[str]) -> tuple[str, int]:
    """A step that can be told: nobody gives away what they have not, or becomes ninety times as rich."""
    if sign == "*":
        return sign, 2 + number % 8
    if sign == "-" and held < 1:
        return ("+", number) if "+" in operations else ("*", 2 + number % 8)
    return sign, number if sign == "+" else 1 + number % max(1, held - 1)


def _fold(start: int, steps: Sequence[tuple[str, int]]) -> int:
    for sign, number in steps:
        start = start + number if sign == "+" else start - number if sign == "-" else start * number
    return start


def _evaluate(start: int, steps: Sequence[tuple[str, int]]) -> int:
    """With the usual precedence: products before sums."""
    groups = [start]
    for sign, number in steps:
        if sign == "*":
            groups[-1] *= number
        else:
            groups.append(number if sign == "+" else -number)
    return sum(groups)
