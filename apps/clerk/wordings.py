"""How people ask and how they correct: frames around a question or a statement, made of common words.

A question is a relation's wording inside a frame. Each pair of the two has a side (``clerk.split``): the clerk is
brought up with some pairs and tested with others, so a test question is a composition that it never met. The last
wording of each relation is in no training text at all.
"""

from functools import cache
from itertools import product
from random import Random

from clerk.facts import Relation, relations
from clerk.split import Side, of_side

FRAMES = (
    "{q}",
    "Hello, {q}",
    "Quick question: {q}",
    "{q} Thanks!",
    "Please tell me: {q}",
    "I forgot. {q}",
    "A visitor wants to know: {q}",
    "{q} I need it now.",
    "Sorry to ask again. {q}",
    "One more thing: {q}",
)
# Around a statement ``{t}`` that is in itself a sentence without its full stop.
CORRECT = (
    "No, {t}.",
    "That is wrong. Here {t}.",
    "Not here: {t}.",
    "In this office {t}.",
    "Actually, {t}.",
    "Please remember: {t}.",
    "Wrong, {t}.",
    "For us {t}.",
    "It is different here, {t}.",
    "{t}. Keep that in mind.",
)
# A correction that says only the answer, and needs the question to be understood.
BARE = ("No, {v}.", "{v}, not that.", "Wrong. It is {v}.", "Here it is {v}.", "The right answer is {v}.")
TAKEN = ("Noted.", "Thank you, noted.", "Understood.")
UNKNOWN = "I don't know."


def question(relation: Relation, subject: str, *, rng: Random, where: Side, unseen: bool = False) -> str:
    """A question about ``subject`` in a wording of one side; ``unseen``: in the wording that nobody trained on."""
    ask, frame = rng.choice(_pairs(relation.name, where, unseen=unseen))
    return frame.format(q=ask.format(s=subject))


def correction(statement: str, *, about: str, rng: Random, where: Side) -> str:
    """A statement as staff would put it. ``about``: the relation or kind of rule, whose frames are divided."""
    return sentence(rng.choice(of_side(CORRECT, where, about=f"correction {about}")).format(t=statement))


@cache
def _pairs(relation: str, where: Side, *, unseen: bool) -> tuple[tuple[str, str], ...]:
    asks = next(one for one in relations() if one.name == relation).ask
    if unseen:
        return tuple(product(asks[-1:], FRAMES))
    return tuple(of_side(tuple(product(asks[:-1], FRAMES)), where, about=f"wording {relation}"))


def sentence(text: str) -> str:
    """With a capital at its start."""
    return text[0].upper() + text[1:]
