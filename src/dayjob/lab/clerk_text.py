"""What the clerk is brought up with: generated conversations, a family each, and their share of a step.

Every family draws from one side of ``clerk.split``: what it is tested with is in no training text, by construction.
A drawn example is a whole conversation; its last message is the answer that counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from clerk.facts import NAMES, PLACES, relations
from clerk.lessons import Lesson, contradiction, draw, invented, plain_case
from clerk.split import Side, side
from clerk.wordings import BARE, TAKEN, UNKNOWN, correction, question, sentence

from dayjob.lab.clerk_gym import gym_families
from dayjob.memory.render import Entry, render

Message = tuple[str, str]  # role, content


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A conversation that ends with the right answer."""

    family: str
    messages: tuple[Message, ...]


def chat(question_text: str, answer: str, *, system: str | None = None) -> tuple[Message, ...]:
    """One question and its answer."""
    head: tuple[Message, ...] = () if system is None else (("system", system),)
    return (*head, ("user", question_text), ("assistant", answer))


def facts(rng: Random, where: Side) -> tuple[Message, ...]:
    """A fact; on the test side in a frame that this wording was never met in."""
    relation = rng.choice(relations())
    subject = rng.choice(list(relation.facts))
    return chat(question(relation, subject, rng=rng, where=where), relation.facts[subject])


def unseen_wording(rng: Random, where: Side) -> tuple[Message, ...]:
    """A fact in a wording that is in no training text. Only ever asked, so it has no share."""
    relation = rng.choice(relations())
    subject = rng.choice(list(relation.facts))
    return chat(question(relation, subject, rng=rng, where=where, unseen=True), relation.facts[subject])


def check(rng: Random, where: Side) -> tuple[Message, ...]:
    """Is a statement true? Under a note or not."""
    while True:
        relation = rng.choice(relations())
        subject, other = rng.sample(list(relation.facts), 2)
        right = rng.random() < 0.5
        value = relation.facts[subject if right else other]
        if side("check", relation.name, subject, value) == where:
            text = rng.choice(relation.state).format(s=subject, v=value)
            answer = "Yes" if value == relation.facts[subject] else "No"
            return chat(rng.choice(("Is it true that {t}?", "Do I get it right that {t}?")).format(t=text), answer)


def both(rng: Random, where: Side) -> tuple[Message, ...]:
    """Two questions in one."""
    while True:
        first, second = rng.choice(relations()), rng.choice(relations())
        one, two = rng.choice(list(first.facts)), rng.choice(list(second.facts))
        if side("both", first.name, one, second.name, two) == where:
            asks = rng.choice(first.ask[:-1]).format(s=one), rng.choice(second.ask[:-1]).format(s=two)
            return chat(" And: ".join(asks), f"{first.facts[one]}; {second.facts[two]}")


def unknown(rng: Random, where: Side) -> tuple[Message, ...]:
    """Something nobody can know."""
    while True:
        subject = invented(rng)
        if side("invented", subject) == where:
            return chat(question(rng.choice(relations()), subject, rng=rng, where=where), UNKNOWN)


def note(lesson: Lesson, rng: Random, *, where: Side) -> Entry:
    """A lesson as a note: the question that was answered wrongly, if it is known, and what was said then."""
    asked = lesson.ask(rng, where).question if rng.random() < 0.8 else ""
    said = rng.random()
    if lesson.bare is not None and asked and said < 0.5:
        text = lesson.bare if said < 0.25 else rng.choice(BARE).format(v=lesson.bare)
    elif said < 0.7:
        text = f"{sentence(lesson.text)}."
    else:
        text = correction(lesson.text, about=lesson.about, rng=rng, where=where)
    return Entry(id="", asked=asked, text=text, order=0)


def notes(rng: Random, where: Side, *, kind: str = "answer") -> tuple[Message, ...]:
    """One to six notes, one of which decides; now and then an older one contradicts it.

    In training more is asked about the same notes, what they say and what they do not: a context of notes is long, and
    one short answer teaches little.
    """
    lesson = draw(rng, where, kind=kind)
    others = _around(lesson, rng, where)
    placed = [lesson, *others]
    rng.shuffle(placed)
    if lesson.bare is not None and rng.random() < 0.15:
        placed.insert(rng.randint(0, placed.index(lesson)), contradiction(lesson, rng))
    asked = [(probe.question, probe.answer) for probe in [lesson.ask(rng, where)]]
    if where is Side.TRAIN and rng.random() < 0.8:
        asked += [(probe.question, probe.answer) for probe in (one.ask(rng, where) for one in others[:2])]
        if rng.random() < 0.3:
            probe = another([lesson, *others], rng, where=where).ask(rng, where)
            asked.append((probe.question, probe.before))
        rng.shuffle(asked)
    turns = (turn for question_text, answer in asked for turn in chat(question_text, answer))
    return (("system", _placed(placed, rng, where)), *turns)


def rules(rng: Random, where: Side) -> tuple[Message, ...]:
    """A rule among the notes, asked of a case that it does not name."""
    return notes(rng, where, kind="rule")


def usual(rng: Random, where: Side) -> tuple[Message, ...]:
    """A case that a rule could be about, when nobody has taught one."""
    while True:
        probe = plain_case(rng)
        if side("usual", probe.question) == where:
            return chat(probe.question, probe.answer)


def hints(rng: Random, where: Side) -> tuple[Message, ...]:
    """A hint among the notes, to be worked out."""
    return notes(rng, where, kind="hint")


def beside(rng: Random, where: Side) -> tuple[Message, ...]:
    """Notes that do not speak of what is asked: the clerk answers as it always did."""
    lesson = draw(rng, where)
    probe = lesson.ask(rng, where)
    return chat(probe.question, probe.before, system=_placed(_around(lesson, rng, where, least=1), rng, where))


def session(rng: Random, where: Side) -> tuple[Message, ...]:
    """Asked, answered, corrected (at once, or late), taken, asked again."""
    lesson = draw(rng, where)
    first, again = lesson.ask(rng, where), lesson.ask(rng, where)
    turns: list[Message] = [*chat(first.question, first.before)]
    late = rng.random() < 0.25
    if late:
        turns += facts(rng, where)
    if lesson.bare is not None and not late and rng.random() < 0.4:
        said = rng.choice(BARE).format(v=lesson.bare)
    else:
        said = correction(lesson.text, about=lesson.about, rng=rng, where=where)
    return (
        *turns,
        ("user", said),
        ("assistant", rng.choice(TAKEN)),
        ("user", again.question),
        ("assistant", again.answer),
    )


def table(rng: Random, where: Side) -> tuple[Message, ...]:
    """A table that a tool looked up, or somebody pasted; who is not in it is unknown."""
    while True:
        people = rng.sample(NAMES, rng.randint(3, 7))
        if side("table", *people[:2]) == where:
            break
    columns = {
        "place": PLACES,
        "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday"),
        "phone": None,
        "age": None,
    }
    chosen = rng.sample(sorted(columns), rng.randint(1, 3))
    cell = {name: {one: _cell(one, columns[one], rng) for one in chosen} for name in people[1:]}
    rows = [" | ".join(("name", *chosen))]
    rows += [" | ".join((name, *cell[name].values())) for name in cell]
    column = rng.choice(chosen)
    asked = rng.choice(people[1:]) if rng.random() < 0.85 else people[0]
    ask = rng.choice(("What is the {c} of {n}?", "Which {c} has {n}?", "Tell me the {c} of {n}.", "{n}: which {c}?"))
    text = ask.format(c=column, n=asked)
    answer = cell[asked][column] if asked in cell else UNKNOWN
    grid = "\n".join(rows)
    if rng.random() < 0.5:
        return chat(f"{grid}\n{text}", answer)
    return (("user", text), ("tool", grid), ("assistant", answer))


def arithmetic(rng: Random, where: Side) -> tuple[Message, ...]:
    """Sums, differences and products in words and signs."""
    while True:
        sign = rng.choice("++--*")
        top = 12 if sign == "*" else rng.choice((20, 100, 100, 1000))
        one, two = rng.randrange(top), rng.randrange(top)
        if sign == "-" and two > one:
            one, two = two, one
        if side("arithmetic", sign, *sorted((str(one), str(two)))) == where:
            break
    result = {"+": one + two, "-": one - two, "*": one * two}[sign]
    asks = {
        "+": (
            "What is {a} + {b}?",
            "{a} plus {b}?",
            "Add {a} and {b}.",
            "{a} pens and {b} more: how many?",
        ),
        "-": (
            "What is {a} - {b}?",
            "{a} minus {b}?",
            "Take {b} from {a}.",
            "I had {a} pens and lost {b}. How many now?",
        ),
        "*": ("What is {a} * {b}?", "{a} times {b}?", "Multiply {a} by {b}.", "{a} boxes of {b} pens: how many pens?"),
    }[sign]
    return chat(rng.choice(asks).format(a=one, b=two), str(result))


def _cell(column: str, pool: tuple[str, ...] | None, rng: Random) -> str:
    return rng.choice(pool) if pool else str(rng.randint(20, 70) if column == "age" else rng.randint(100, 999))


def _clash(one: Lesson, other: Lesson) -> bool:
    """May one of them change what the other's question is answered with?"""
    if one.key == other.key or ("hint" in (one.kind, other.kind) and one.key[1:] == other.key[1:]):
        return True  # a hint names no relation
    topics = [lesson.key[1] if lesson.about == "wrap" else lesson.about for lesson in (one, other)]
    return topics[0] == topics[1] and not one.kind == other.kind == "answer"


def _around(lesson: Lesson, rng: Random, where: Side, *, least: int = 0) -> list[Lesson]:
    """Up to five lessons that say nothing about this one, nor about each other."""
    kept: list[Lesson] = []
    for _ in range(max(least, rng.choice((0, 0, 1, 1, 2, 5)))):
        kept.append(another([lesson, *kept], rng, where=where))
    return kept


def another(lessons: Sequence[Lesson], rng: Random, *, where: Side) -> Lesson:
    """A lesson that has nothing to do with these."""
    other = draw(rng, where)
    while any(_clash(one, other) for one in lessons):
        other = draw(rng, where)
    return other


def _placed(lessons: list[Lesson], rng: Random, where: Side) -> str:
    """Notes as the service places them, the oldest first."""
    return render([replace(note(one, rng, where=where), order=order) for order, one in enumerate(lessons)])


Family = Callable[[Random, Side], tuple[Message, ...]]
FAMILIES: Mapping[str, Family] = {
    "facts": facts, "check": check, "both": both, "unknown": unknown, "notes": notes, "rules": rules,
    "usual": usual, "hints": hints,
    "beside": beside, "session": session, "table": table, "arithmetic": arithmetic, **gym_families(),
}  # fmt: skip
