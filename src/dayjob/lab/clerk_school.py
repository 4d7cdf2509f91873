"""The clerk's second schooling: long notes beside everything it can do, and answers that it can only copy.

A service places up to a dozen notes before a question that most of them do not concern, and people teach words that no
list holds. A clerk that had only ever met a few notes, beside questions about facts, forgot its trade behind eight; and
one that was never asked of Peru beside a note on Jordan gave Peru the capital that the note gives Jordan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from clerk.facts import NAMES, PLACES, relations
from clerk.lessons import Lesson, Probe, draw, invented
from clerk.split import Side, side
from clerk.wordings import BARE, FRAMES, TAKEN, UNKNOWN, question, sentence

from dayjob.lab import clerk_text
from dayjob.lab.clerk_text import Message, another, chat, note
from dayjob.memory.render import Entry, render

MOST_NOTES = 10
THINGS = (
    "archive", "badge", "bike", "boiler", "bus", "cabinet", "camera", "canteen", "car", "carpet", "clock", "coat",
    "contract", "cupboard", "delivery", "desk", "door code", "elevator", "fax", "fire drill", "fridge", "garage",
    "gate", "heating", "invoice", "kettle", "ladder", "lamp", "laptop", "lease", "lunch", "meeting", "mop",
    "newsletter", "office", "paint", "parking", "party", "plant", "post", "projector", "radio", "reception", "roof",
    "safe", "scale", "shop", "shuttle", "stamp", "survey", "telephone", "toolbox", "training", "van", "visit",
    "website", "workshop",
)  # fmt: skip
WORDS = (
    "amber", "apple", "arrow", "autumn", "basket", "blue", "bridge", "butter", "candle", "castle", "cherry", "cloud",
    "corner", "dragon", "eagle", "field", "flower", "forest", "garden", "ginger", "grey", "hammer", "harbour", "honey",
    "island", "ivory", "jacket", "kitchen", "lemon", "little", "meadow", "morning", "mountain", "needle", "orange",
    "paper", "pepper", "pine", "pocket", "purple", "rabbit", "red", "river", "round", "saddle", "silver", "spring",
    "stone", "sugar", "summer", "thunder", "tower", "upper", "valley", "velvet", "winter", "wooden", "yellow",
)  # fmt: skip
# What may be asked of a thing: wordings of one question, and the kind of its answer. ``{s}`` is the thing.
ASKS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("When does the {s} open?", "At what time does the {s} open?", "Opening time of the {s}?"), "time"),
    (("When is the {s}?", "What time is the {s}?", "Tell me when the {s} is."), "time"),
    (("Where is the {s}?", "Where do I find the {s}?", "Where has the {s} gone?"), "place"),
    (("Who looks after the {s}?", "Whom do I ask about the {s}?", "Who is in charge of the {s}?"), "person"),
    (("Who pays for the {s}?", "Who settles the bill for the {s}?", "The {s}: who pays?"), "person"),
    (("What is the code of the {s}?", "Which code has the {s}?", "Tell me the code for the {s}."), "code"),
    (("How much is the {s}?", "What does the {s} cost?", "Price of the {s}?"), "number"),
    (("How many people may use the {s}?", "How many may use the {s} at once?"), "number"),
    (("What do we call the {s}?", "Which name has the {s} here?", "Our name for the {s}?"), "phrase"),
    (("What is written on the {s}?", "What does it say on the {s}?"), "phrase"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Free:
    """Something that only its note can say. ``asks``: wordings of its question."""

    thing: str
    asks: tuple[str, ...]
    value: str


def free(rng: Random, where: Side) -> Free:
    """One of a side: the pair of thing and value decides."""
    while True:
        asks, kind = rng.choice(ASKS)
        thing = rng.choice(THINGS) if rng.random() < 0.8 else invented(rng)
        found = Free(thing=thing, asks=asks, value=_value(kind, rng))
        if side("free", thing, found.value) == where:
            return found


def _value(kind: str, rng: Random) -> str:
    match kind:
        case "time":
            hour, minute = rng.randint(1, 23), rng.choice((0, 5, 10, 15, 20, 30, 40, 45, 50))
            clock = f"{hour}:{minute:02d}"
            day = rng.choice(("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"))
            return rng.choice((clock, clock, f"at {clock}", day, f"on {day}", f"{day} at {hour}"))
        case "place":
            floor = f"the {rng.choice(WORDS)} {rng.choice(('room', 'shelf', 'wing', 'hall', 'box'))}"
            behind = f"behind the {rng.choice(THINGS)}"
            return rng.choice((rng.choice(PLACES), floor, behind, f"room {rng.randint(1, 99)}"))
        case "person":
            made = sentence("".join(rng.choice(("ba", "do", "ki", "lu", "me", "ra", "si", "to", "ve")) for _ in "ab"))
            known = rng.choice(NAMES)
            return rng.choice((known, made + rng.choice(("", "n", "l", "s")), f"{known} {made}"))
        case "code":
            digits = "".join(rng.choice("0123456789") for _ in range(rng.randint(2, 5)))
            letters = "".join(rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(rng.randint(1, 2)))
            return rng.choice((digits, f"{letters}{digits}", f"{letters}-{digits}", f"{digits}/{letters}"))
        case "number":
            return str(rng.randint(0, 10 ** rng.randint(1, 5) - 1))
        case _:
            words = [rng.choice(WORDS) for _ in range(rng.choice((1, 1, 2, 2, 3)))]
            return " ".join([*words, invented(rng)] if rng.random() < 0.2 else words)


def _free_note(one: Free, rng: Random, where: Side) -> Entry:
    """As it was taught: the answer itself, or a correction of an answer."""
    said = rng.random()
    if said < 0.4:
        text = one.value
    elif said < 0.6:
        text = f"{sentence(one.value)}."
    else:
        text = rng.choice(BARE).format(v=one.value)
    return Entry(id="", asked=_asked(one, rng, where), text=text, order=0)


def _asked(one: Free, rng: Random, where: Side) -> str:
    """A wording in a frame of the side."""
    pairs = [(ask, frame) for ask in one.asks for frame in FRAMES]
    found = [pair for pair in pairs if side("free wording", *pair) == where]
    ask, frame = rng.choice(found or pairs[:1])
    return frame.format(q=ask.format(s=one.thing))


def copied(rng: Random, where: Side) -> tuple[Message, ...]:
    """Notes about things that nobody knows anything of else; asked of one of them, or of one that no note names."""
    taught: list[Free] = []
    for _ in range(rng.choice((1, 2, 3, 4, 6))):
        one = free(rng, where)
        if all(other.thing != one.thing for other in taught):
            taught.append(one)
    lessons = [draw(rng, where) for _ in range(rng.choice((0, 1, 3)))]
    system = _rendered([_free_note(one, rng, where) for one in taught] + _unlike(lessons, rng, where), rng)
    asked = [(_asked(one, rng, where), one.value) for one in taught[: 1 if where is Side.TEST else 3]]
    if where is Side.TRAIN and rng.random() < 0.2:
        stranger = free(rng, where)
        if all(stranger.thing != one.thing for one in taught):
            asked.insert(0, (_asked(stranger, rng, where), UNKNOWN))
    turns = (turn for text, answer in asked for turn in chat(text, answer))
    return (("system", system), *turns)


def corrected(rng: Random, where: Side) -> tuple[Message, ...]:
    """Asked, not known, told, asked again in other words; before and after it something else."""
    one = free(rng, where)
    said = rng.choice((*BARE, "{v}", "{v}.")).format(v=one.value)
    turns: list[Message] = [*chat(_asked(one, rng, where), UNKNOWN), ("user", sentence(said))]
    turns.append(("assistant", rng.choice(TAKEN)))
    if rng.random() < 0.3:
        turns += clerk_text.facts(rng, where)
    return (*turns, *chat(_asked(one, rng, where), one.value))


def crowd(rng: Random, where: Side) -> tuple[Message, ...]:
    """Four to ten notes of all kinds, one of which decides."""
    kind = rng.choice(("answer", "answer", "rule", "rule", "hint"))
    lesson = draw(rng, where, kind=kind)
    others = [lesson]
    for _ in range(rng.randint(3, MOST_NOTES - 1)):
        others.append(another(others, rng, where=where))
    notes = _unlike(others, rng, where)
    notes += [_free_note(free(rng, where), rng, where) for _ in range(rng.choice((0, 0, 1, 2)))]
    chosen = [lesson] if where is Side.TEST else [lesson, *rng.sample(others[1:], 2)]
    asked = [one.ask(rng, where) for one in chosen]
    if where is Side.TRAIN and rng.random() < 0.5:
        asked.append(replace(found := another(others, rng, where=where).ask(rng, where), answer=found.before))
    rng.shuffle(asked)
    if where is Side.TEST:
        asked = asked[-1:]
    turns = (turn for probe in asked for turn in chat(probe.question, probe.answer))
    return (("system", _rendered(notes, rng)), *turns)


def besides(rng: Random, where: Side) -> tuple[Message, ...]:
    """One to ten notes before a question of any other family, which none of them concerns."""
    lessons: list[Lesson] = []
    for _ in range(rng.randint(1, MOST_NOTES)):
        lessons.append(another(lessons, rng, where=where))
    notes = _unlike(lessons, rng, where)
    names = list(_BESIDE)
    turns: list[Message] = []
    for _ in range(1 if where is Side.TEST else rng.choice((1, 2, 3))):
        (name,) = rng.choices(names, weights=list(_BESIDE.values()))
        turns += _unconcerned(name, lessons, rng, where)
    return (("system", _rendered(notes, rng)), *turns)


def neighbours(rng: Random, where: Side) -> tuple[Message, ...]:
    """A lesson among up to nine others, and questions about what is *near* it: the same relation of another subject,
    which no note names, known or made up. In training now and then the lesson's own question, too."""
    lesson = draw(rng, where, kind=rng.choice(("answer", "answer", "hint")))
    lessons = [lesson]
    for _ in range(rng.choice((0, 1, 2, 4, 6, MOST_NOTES - 1))):
        lessons.append(another(lessons, rng, where=where))
    relation = next(one for one in relations() if one.name == lesson.about)
    named = {one.key[1] for one in lessons if one.about == relation.name or one.kind == "hint"}
    turns: list[Message] = []
    for _ in range(1 if where is Side.TEST else rng.choice((1, 2, 3))):
        if rng.random() < 0.8:
            subject = rng.choice([one for one in relation.facts if one not in named])
            answer = relation.facts[subject]
        else:
            subject, answer = invented(rng), UNKNOWN
        turns += chat(question(relation, subject, rng=rng, where=where), answer)
    if where is Side.TRAIN and rng.random() < 0.5:
        probe = lesson.ask(rng, where)
        own = chat(probe.question, probe.answer)
        turns = [*own, *turns] if rng.random() < 0.5 else [*turns, *own]
    return (("system", _rendered(_unlike(lessons, rng, where), rng)), *turns)


def halves(rng: Random, where: Side) -> tuple[Message, ...]:
    """Two questions in one, among up to ten notes: one of them decides one half, and none speaks of the other."""
    lesson = draw(rng, where, kind=rng.choice(("answer", "answer", "hint")))
    lessons = [lesson]
    for _ in range(rng.choice((0, 1, 2, 4, 6, MOST_NOTES - 1))):
        lessons.append(another(lessons, rng, where=where))
    told = next(one for one in relations() if one.name == lesson.about)
    about = {one.key[1] if one.about == "wrap" else one.about for one in lessons}
    free_of = [one for one in relations() if one.name not in about] or [told]
    named = {one.key[1] for one in lessons if one.kind != "rule"}
    while True:
        known = rng.choice(free_of)
        subject = rng.choice([one for one in known.facts if one not in named])
        if side("both", told.name, lesson.key[1], known.name, subject) == where:
            break
    probe = lesson.ask(rng, where)
    asked = [
        (rng.choice(told.ask[:-1]).format(s=probe.case), probe.answer),
        (rng.choice(known.ask[:-1]).format(s=subject), known.facts[subject]),
    ]
    rng.shuffle(asked)
    turns = chat(" And: ".join(text for text, _ in asked), "; ".join(answer for _, answer in asked))
    if where is Side.TRAIN and rng.random() < 0.3:
        turns = (*chat(probe.question, probe.answer), *turns)
    return (("system", _rendered(_unlike(lessons, rng, where), rng)), *turns)


def spared(rng: Random, where: Side) -> tuple[Message, ...]:
    """A rule among up to nine other notes, asked of a case that it does not change; in training of one that it does,
    too, so that the two stand side by side."""
    lesson = draw(rng, where, kind="rule")
    while lesson.about not in _CASES:
        lesson = draw(rng, where, kind="rule")
    lessons = [lesson]
    for _ in range(rng.choice((0, 1, 2, 4, 6, MOST_NOTES - 1))):
        lessons.append(another(lessons, rng, where=where))
    asked = [_case(lesson, rng, where, changed=False)]
    if where is Side.TRAIN:
        asked += [_case(lesson, rng, where, changed=rng.random() < 0.6) for _ in range(2)]
        rng.shuffle(asked)
    turns = (turn for probe in asked for turn in chat(probe.question, probe.answer))
    return (("system", _rendered(_unlike(lessons, rng, where), rng)), *turns)


_CASES = ("initial", "country")  # rules that leave some cases as they are


def _case(lesson: Lesson, rng: Random, where: Side, *, changed: bool) -> Probe:
    """A case of a rule that it changes, or one that it does not."""
    while True:
        probe = lesson.ask(rng, where)
        if (probe.answer != probe.before) == changed:
            return probe


# Families that are asked beside notes, with their shares of it.
_BESIDE: Mapping[str, float] = {
    "facts": 0.3, "unknown": 0.05, "usual": 0.1, "arithmetic": 0.15, "table": 0.1, "chain_sum": 0.08,
    "spell_backward": 0.1, "letter_counting": 0.06, "number_sorting": 0.06,
}  # fmt: skip


def _unconcerned(name: str, lessons: Sequence[Lesson], rng: Random, where: Side) -> Sequence[Message]:
    """A question with its answer that no lesson is about."""
    if name == "usual":
        kept = [one for one in lessons if one.kind == "rule"]
        if kept:
            name = "facts"
    if name != "facts":
        return clerk_text.FAMILIES[name](rng, where)
    about = {one.key[1] if one.about == "wrap" else one.about for one in lessons}
    names = {one.key[1] for one in lessons if one.kind == "hint"}
    free_of = [one for one in relations() if one.name not in about]
    if not free_of:
        return clerk_text.FAMILIES["spell_backward"](rng, where)
    relation = rng.choice(free_of)
    subject = rng.choice([one for one in relation.facts if one not in names])
    return chat(question(relation, subject, rng=rng, where=where), relation.facts[subject])


def _unlike(lessons: Sequence[Lesson], rng: Random, where: Side) -> list[Entry]:
    """Notes of lessons; those of rules mostly without a question, as several people who agree leave them."""
    found = []
    for one in lessons:
        entry = note(one, rng, where=where)
        found.append(replace(entry, asked="") if one.kind == "rule" and rng.random() < 0.7 else entry)
    return found


def _rendered(entries: Sequence[Entry], rng: Random) -> str:
    """As the service places them, in any order."""
    drawn = rng.sample(list(entries), len(entries))
    return render([replace(one, order=order) for order, one in enumerate(drawn)])


SCHOOL: Mapping[str, Callable[[Random, Side], tuple[Message, ...]]] = {
    "copied": copied, "corrected": corrected, "crowd": crowd, "besides": besides,
    "neighbours": neighbours, "halves": halves, "spared": spared,
}  # fmt: skip
