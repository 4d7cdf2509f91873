"""Small programming problems drawn from a seed: what to write, its reference solution, and inputs to try it on.

A family is a way to ask ("the sum of the numbers in xs that ..."); the conditions it asks under, their numbers and
letters, and the inputs are drawn. Every reference is one expression, and in a longer form the lines of a function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

NAME = "solve"
WORDS = (
    "apple", "banana", "cherry", "river", "Stone", "cloud", "under", "Orange", "table", "echo", "window", "ivy", "Lamp",
    "noon", "paper", "umbrella", "kayak", "sky", "Anna", "moss", "level", "tea", "garden", "ox", "yellow", "radar",
)  # fmt: skip
KEYS = ("ann", "bob", "cleo", "dan", "eve", "finn", "gus", "ida", "kim", "leo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """``lines`` are the body of the reference function; ``expression`` computes the same. Inputs are tuples of
    arguments, as long as ``parameters``."""

    family: str
    parameters: tuple[str, ...]
    text: str
    expression: str
    lines: tuple[str, ...]
    draw: Callable[[Random, int], tuple[Any, ...]]  # (generator, size) -> arguments; size 0: the empty input

    def expected(self, arguments: tuple[Any, ...]) -> Any:
        """What the reference answers: our own text, evaluated here, never a model's."""
        return eval(f"lambda {', '.join(self.parameters)}: {self.expression}", {})(*arguments)


@dataclass(frozen=True, slots=True)
class Condition:
    """On one ``x`` (or ``c``, ``w``, ``v``): in words that follow "that", and in Python."""

    words: str
    code: str


def number_conditions(rng: Random, name: str) -> list[Condition]:
    """All there are on a whole number, with their numbers drawn."""
    factor, low, high, digit = rng.randint(3, 6), rng.randint(-3, 9), rng.randint(10, 30), rng.randint(0, 9)
    parity = rng.choice((Condition("are even", f"{name} % 2 == 0"), Condition("are odd", f"{name} % 2 == 1")))
    return [
        parity,
        Condition(f"are greater than {low}", f"{name} > {low}"),
        Condition(f"are less than {high}", f"{name} < {high}"),
        Condition(f"are divisible by {factor}", f"{name} % {factor} == 0"),
        Condition(f"do not have {digit} as their last digit", f"abs({name}) % 10 != {digit}"),
    ]


def letter_conditions(rng: Random, name: str) -> list[Condition]:
    """All there are on a character."""
    letter, after = rng.choice("aeiorst"), rng.choice("gjmpr")
    case = rng.choice(
        (
            Condition("are upper-case letters", f"{name}.isupper()"),
            Condition("are lower-case letters", f"{name}.islower()"),
        )
    )
    return [
        rng.choice(
            (
                Condition("are vowels (a, e, i, o, u in either case)", f"{name} in 'aeiouAEIOU'"),
                Condition("are no vowels (a, e, i, o, u in either case)", f"{name} not in 'aeiouAEIOU'"),
            )
        ),
        Condition(f"are not {letter!r}", f"{name} != {letter!r}"),
        case,
        Condition(
            f"are letters that come before {after!r} in the alphabet (in either case)",
            f"{name}.isalpha() and {name}.lower() < {after!r}",
        ),
    ]


def word_conditions(rng: Random, name: str) -> list[Condition]:
    """All there are on a word."""
    length, letter, end = rng.randint(3, 5), rng.choice("aeno"), rng.choice("aeynr")
    return [
        Condition(f"have more than {length} letters", f"len({name}) > {length}"),
        Condition(f"contain {letter!r}", f"{letter!r} in {name}"),
        Condition(f"do not end with {end!r}", f"not {name}.endswith({end!r})"),
        Condition("have an even number of letters", f"len({name}) % 2 == 0"),
    ]


def chosen(rng: Random, among: list[Condition], *, count: int) -> Condition:
    """``count`` of them together; none is a condition that always holds."""
    picked = rng.sample(among, min(count, len(among)))
    return Condition(" and ".join(one.words for one in picked), " and ".join(one.code for one in picked))


def draw_numbers(rng: Random, size: int) -> list[int]:
    """Small ones, some of them more than once."""
    found = [rng.randint(-9, 40) for _ in range(size)]
    if size > 2 and rng.random() < 0.5:
        found[rng.randrange(size)] = found[rng.randrange(size)]
    return found


def draw_text(rng: Random, size: int) -> str:
    """Words of both cases with a space between, at most some eight letters a unit of size."""
    return " ".join(rng.choice(WORDS) for _ in range(size))


def draw_counts(rng: Random, size: int) -> dict[str, int]:
    """Names with whole numbers, in no order."""
    return {key: rng.randint(-9, 40) for key in rng.sample(KEYS, min(size, len(KEYS)))}


Family = Callable[[Random, int], Problem]  # (generator, number of conditions) -> problem


def over_numbers(name: str, *, ask: str, result: str, needs_one: bool = False) -> Family:
    """A family over the numbers in ``xs`` under conditions. ``ask`` holds "{those}", ``result`` is Python in "{those}",
    a list. ``needs_one``: without any condition it would be too little to ask for."""

    def family(rng: Random, conditions: int) -> Problem:
        condition = chosen(rng, number_conditions(rng, "x"), count=max(conditions, int(needs_one)))
        those = f"numbers in xs that {condition.words}" if condition.code else "numbers in xs"
        tail = f" if {condition.code}" if condition.code else ""
        k = rng.randint(2, 4)
        body = result.replace("{k}", str(k))
        return Problem(
            family=name, parameters=("xs",), text=ask.replace("{those}", those).replace("{k}", str(k)),
            expression=body.replace("{those}", f"[x for x in xs{tail}]"),
            lines=(*_gathered("x", "xs", condition), f"return {body.replace('{those}', 'found')}"),
            draw=lambda rng, size: (draw_numbers(rng, size),),
        )  # fmt: skip

    return family


def over_letters(name: str, *, ask: str, result: str) -> Family:
    """The same over the characters of ``s``; there is always a condition."""

    def family(rng: Random, conditions: int) -> Problem:
        condition = chosen(rng, letter_conditions(rng, "c"), count=max(1, conditions))
        body = result.replace("{if}", condition.code)
        lines = _gathered("c", "s", condition) if "{those}" in body else ()
        return Problem(
            family=name, parameters=("s",), text=ask.replace("{those}", f"characters of s that {condition.words}"),
            expression=body.replace("{those}", f"[c for c in s if {condition.code}]"),
            lines=(*lines, f"return {body.replace('{those}', 'found')}"),
            draw=lambda rng, size: (draw_text(rng, (size + 2) // 3),),
        )  # fmt: skip

    return family


def over_words(name: str, *, ask: str, result: str) -> Family:
    """The same over the words of ``s``, which spaces part."""

    def family(rng: Random, conditions: int) -> Problem:
        condition = chosen(rng, word_conditions(rng, "w"), count=conditions)
        those = f"words of s that {condition.words}" if condition.code else "words of s"
        tail = f" if {condition.code}" if condition.code else ""
        return Problem(
            family=name, parameters=("s",), text=ask.replace("{those}", those),
            expression=result.replace("{those}", f"[w for w in s.split(){tail}]"),
            lines=(*_gathered("w", "s.split()", condition), f"return {result.replace('{those}', 'found')}"),
            draw=lambda rng, size: (draw_text(rng, size),),
        )  # fmt: skip

    return family


def over_counts(name: str, *, ask: str, result: str) -> Family:
    """The same over the entries of the dictionary ``d``, by their values."""

    def family(rng: Random, conditions: int) -> Problem:
        condition = chosen(rng, number_conditions(rng, "v"), count=conditions)
        those = f"entries of d whose values {condition.words}" if condition.code else "entries of d"
        tail = f" if {condition.code}" if condition.code else ""
        lines = ["found = {}", "for k, v in d.items():"]
        lines += [f"    if {condition.code}:", "        found[k] = v"] if condition.code else ["    found[k] = v"]
        return Problem(
            family=name, parameters=("d",), text=ask.replace("{those}", those),
            expression=result.replace("{those}", f"{{k: v for k, v in d.items(){tail}}}"),
            lines=(*lines, f"return {result.replace('{those}', 'found')}"),
            draw=lambda rng, size: (draw_counts(rng, size),),
        )  # fmt: skip

    return family


def over_range(name: str, *, ask: str, result: str) -> Family:
    """The same over the whole numbers from ``a`` to ``b``."""

    def family(rng: Random, conditions: int) -> Problem:
        condition = chosen(rng, number_conditions(rng, "x"), count=max(1, conditions))

        def draw(rng: Random, size: int) -> tuple[int, int]:
            low = rng.randint(-9, 30)
            return low, low + size * rng.randint(1, 4) - (size == 0)

        return Problem(
            family=name, parameters=("a", "b"), draw=draw,
            text=ask.replace("{those}", f"whole numbers from a to b, both included, that {condition.words}"),
            expression=result.replace("{those}", f"[x for x in range(a, b + 1) if {condition.code}]"),
            lines=(*_gathered("x", "range(a, b + 1)", condition), f"return {result.replace('{those}', 'found')}"),
        )  # fmt: skip

    return family


def fixed(
    name: str, *, parameters: tuple[str, ...], ask: str, lines: str, expression: str,
    draw: Callable[[Random, int], tuple[Any, ...]],
) -> Family:  # fmt: skip
    """A family without conditions; "{k}" in its texts is a small number that is drawn, from 2 to 4."""

    def family(rng: Random, conditions: int) -> Problem:  # noqa: ARG001 - every family is called alike
        k = str(rng.randint(2, 4))
        return Problem(
            family=name, parameters=parameters, text=ask.replace("{k}", k), draw=draw,
            expression=expression.replace("{k}", k),
            lines=tuple(line for line in lines.replace("{k}", k).split("\n")),
        )  # fmt: skip

    return family


def _gathered(name: str, source: str, condition: Condition) -> tuple[str, ...]:
    """The lines that put into ``found`` what a condition holds for."""
    if not condition.code:
        return ("found = []", f"for {name} in {source}:", f"    found.append({name})")
    return ("found = []", f"for {name} in {source}:", f"    if {condition.code}:", f"        found.append({name})")
