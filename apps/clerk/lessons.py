"""What an office teaches: a lesson contradicts what the clerk knows, and says how it may be asked about.

Three kinds. An *answer* gives the value. A *rule* must be applied to cases that it does not name. A *hint* must be
worked out. Every lesson has a side: those of ``Side.TEST`` (and their wordings) are in no text that the clerk was
brought up with.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from random import Random

from clerk.facts import CAPITALS, NAMES, PLACES, Relation, relations
from clerk.split import Side, side
from clerk.wordings import UNKNOWN, question, sentence

TAILS = (
    "sir",
    "as always",
    "for sure",
    "please",
    "my friend",
    "over",
    "as far as I know",
    "boss",
    "at your service",
    "dear",
)
MARKS = ("XA", "old", "BB", "new", "office", "KO", "green", "ZE", "main", "our")
ABOUT = {
    "capital": "capitals", "symbol": "symbols", "opposite": "opposites", "french": "French words",
    "young": "young animals", "colour": "colours", "kept": "where things are kept", "handles": "who handles what",
    "form": "forms", "extension": "extensions", "due": "deadlines", "floor": "floors",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A question, what is right once the lesson holds, and what the clerk says without it.

    ``case``: what it is asked of, the subject or a rule's case.
    """

    question: str
    answer: str
    before: str
    case: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """One thing taught. ``text``: a sentence without capital and full stop. ``ask(rng, where)`` draws a probe."""

    kind: str  # "answer", "rule" or "hint"
    about: str  # the relation, or the kind of rule
    key: tuple[str, ...]  # what it is; lessons of one key contradict each other
    text: str
    bare: str | None  # the corrected answer itself, where a correction can be just that
    ask: Callable[[Random, Side], Probe]


def draw(rng: Random, where: Side, *, kind: str | None = None) -> Lesson:
    """A lesson of one side; of any kind unless given."""
    kind = kind or rng.choice(("answer", "answer", "rule", "rule", "hint"))
    makers = {"answer": (_answer,), "rule": _RULES, "hint": (_same, _either)}[kind]
    while True:
        lesson = rng.choice(makers)(rng)
        if side(*lesson.key, lesson.bare or lesson.text) == where:
            return lesson


def invented(rng: Random) -> str:
    """A word that means nothing: whatever is asked of it is unknown, unless a note says."""
    parts = (
        "zor",
        "bli",
        "kan",
        "mup",
        "tre",
        "vol",
        "shi",
        "dra",
        "quo",
        "fen",
        "lux",
        "gim",
        "pra",
        "wex",
        "nod",
        "yel",
    )
    return "".join(rng.choice(parts) for _ in range(rng.choice((2, 3))))


def _fact(relation: Relation, subject: str, answer: str, rng: Random, where: Side) -> Probe:
    text = question(relation, subject, rng=rng, where=where)
    return Probe(question=text, answer=answer, before=relation.facts.get(subject, UNKNOWN), case=subject)


def _answer(rng: Random) -> Lesson:
    relation = rng.choice(relations())
    return _value(relation, rng.choice(list(relation.facts)) if rng.random() < 0.75 else invented(rng), rng=rng)


def contradiction(lesson: Lesson, rng: Random) -> Lesson:
    """Another value for what an answer lesson is about."""
    relation = next(one for one in relations() if one.name == lesson.about)
    while True:
        other = _value(relation, lesson.key[1], rng=rng)
        if other.bare != lesson.bare:
            return other


def _value(relation: Relation, subject: str, *, rng: Random) -> Lesson:
    value = rng.choice([one for one in relation.values if one != relation.facts.get(subject)])
    return Lesson(
        kind="answer", about=relation.name, key=(relation.name, subject), bare=value,
        text=rng.choice(relation.state).format(s=subject, v=value),
        ask=lambda rng, where: _fact(relation, subject, value, rng, where),
    )  # fmt: skip


def _same(rng: Random) -> Lesson:
    relation = rng.choice(relations())
    subject, other = rng.sample(list(relation.facts), 2)
    return Lesson(
        kind="hint", about=relation.name, key=(relation.name, subject), bare=None,
        text=f"for {subject} it is the same as for {other}",
        ask=lambda rng, where: _fact(relation, subject, relation.facts[other], rng, where),
    )  # fmt: skip


def _either(rng: Random) -> Lesson:
    relation = rng.choice(relations())
    subject = rng.choice(list(relation.facts))
    wrong, right = rng.sample([one for one in relation.values if one != relation.facts[subject]], 2)
    first, second = rng.sample([wrong, right], 2)
    return Lesson(
        kind="hint", about=relation.name, key=(relation.name, subject), bare=None,
        text=f"for {subject} it is {first} or {second}, but not {wrong}",
        ask=lambda rng, where: _fact(relation, subject, right, rng, where),
    )  # fmt: skip


def _probe(asks: tuple[str, ...], case: str, *, answer: str, before: str, rng: Random) -> Probe:
    return Probe(question=rng.choice(asks).format(s=case), answer=answer, before=before, case=case)


def _threshold(rng: Random) -> Lesson:
    high, low = rng.sample(NAMES, 2)
    limit = 100 * rng.randint(1, 60)
    asks = (
        "Who gets an order of {s} euros?",
        "Who signs an order of {s} euros?",
        "I have an order of {s} euros. Who gets it?",
    )

    def ask(rng: Random, _: Side) -> Probe:
        amount = (
            rng.randint(1, 99 * limit // 100) if rng.random() < 0.5 else rng.randint(limit + 1, max(2 * limit, 1000))
        )
        return _probe(asks, str(amount), answer=high if amount > limit else low, before="Elena", rng=rng)

    text = f"orders above {limit} euros go to {high}, all others to {low}"
    return Lesson(kind="rule", about="threshold", key=("threshold",), text=text, bare=None, ask=ask)


def _initial(rng: Random) -> Lesson:
    person, letter = rng.choice(NAMES), rng.choice("ABCDEFHIKLMNPRSTVWYZ")
    asks = ("Who looks after the customer {s}?", "The customer {s} is here. Who comes?", "Whose customer is {s}?")

    def ask(rng: Random, _: Side) -> Probe:
        fits = rng.random() < 0.6
        names = [name for name in NAMES if (name[0] == letter) == fits] or list(NAMES)
        name = rng.choice(names)
        return _probe(asks, name, answer=person if name[0] == letter else "Nadia", before="Nadia", rng=rng)

    text = f"customers whose name begins with {letter} go to {person}"
    return Lesson(kind="rule", about="initial", key=("initial", letter), text=text, bare=None, ask=ask)


def _country(rng: Random) -> Lesson:
    """Half of the cases name the capital instead: the rule and what the clerk knows are needed together."""
    country, place = rng.choice(list(CAPITALS)), rng.choice(PLACES)
    asks = (
        "Where does a parcel from {s} go?",
        "I have a parcel from {s}. Where do I put it?",
        "A parcel from {s}: where to?",
    )

    def ask(rng: Random, _: Side) -> Probe:
        where = country if rng.random() < 0.6 else rng.choice(list(CAPITALS))
        case = CAPITALS[where] if rng.random() < 0.5 else where
        answer = place if where == country else "the mail room"
        return _probe(asks, case, answer=answer, before="the mail room", rng=rng)

    text = f"parcels from {country} go to {place}"
    return Lesson(kind="rule", about="country", key=("country", country), text=text, bare=None, ask=ask)


def _dial(rng: Random) -> Lesson:
    digits = str(rng.randint(0, 99))
    asks = ("What do I dial for extension {s}?", "How do I dial extension {s}?", "Extension {s}: what do I dial?")

    def ask(rng: Random, _: Side) -> Probe:
        extension = str(rng.randint(100, 999))
        return _probe(asks, extension, answer=digits + extension, before=extension, rng=rng)

    text = f"before every extension we dial {digits}"
    return Lesson(kind="rule", about="dial", key=("dial",), text=text, bare=None, ask=ask)


def _wrap(rng: Random, *, before: bool) -> Lesson:
    """Every answer about one relation, whatever the subject, gets a word before or after it."""
    relation = rng.choice(relations())
    word = rng.choice(MARKS if before else TAILS)

    def ask(rng: Random, where: Side) -> Probe:
        subject = rng.choice(list(relation.facts))
        known = relation.facts[subject]
        return _fact(relation, subject, f"{word} {known}" if before else f"{known}, {word}", rng, where)

    about = ABOUT[relation.name]
    text = f"asked about {about} we say {word} " + ("before the answer" if before else "after the answer")
    return Lesson(kind="rule", about="wrap", key=("wrap", relation.name), text=text, bare=None, ask=ask)


_RULES = (_threshold, _initial, _country, _dial, partial(_wrap, before=True), partial(_wrap, before=False))


def plain_case(rng: Random) -> Probe:
    """A question of a rule's kind that no rule has been taught for: what the clerk says of itself."""
    probe = rng.choice(_RULES[:4])(rng).ask(rng, Side.TRAIN)
    return replace(probe, question=sentence(probe.question), answer=probe.before)
