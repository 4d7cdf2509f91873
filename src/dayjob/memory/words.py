"""Text as words: for finding notes, and for saying when two are about the same. Pure.

Two questions are the same *topic* when their words are, in their order: who reports to whom is told by order, and a
note that replaces another wrongly costs more than one that stands beside it (of two in the context the later comes
last). What finds notes is more generous (`retrieve`).
"""

import re

from dayjob.memory.filters import bare

# Symbols count: 3 + 4 is not 3 - 4. Punctuation of sentences does not.
_PIECE = re.compile(r"\w+|[^\w\s.,;:!?\"'`´‘’“”«»()\[\]{}…¿¡]")
_STOPPED = """
a an the is are was were be been being am do does did doing done have has had i me my mine we us our ours you your
yours he him his she her hers it its they them their what which who whom whose this that these those and or but if
then else of at by for with about to from in on into as so than too can could will would shall should may might
must please tell know let say when where why how there here also just get got need want like hello hi hey thanks
thank s t re ve ll d m
"""
STOP = frozenset(_STOPPED.split())
# Of these alone it is safe to say that a question without them is the same question.
_EMPTY = frozenset(("a", "an", "the", "please", "hello", "hi", "hey", "thanks"))


def pieces(text: str) -> list[str]:
    """The words and symbols of a text, folded."""
    return _PIECE.findall(bare(text).casefold())


def topic(question: str) -> tuple[str, ...]:
    """What a question is about: its words in order, articles and greetings left out."""
    words = pieces(question)
    return tuple(one for one in words if one not in _EMPTY) or tuple(words)


def same(text: str) -> str:
    """The form in which two answers are compared: folded, spaces collapsed, without the full stop."""
    return " ".join(bare(text).casefold().split()).rstrip(" .!")


def stem(word: str) -> str:
    """A word without the commonest English endings: offices, booking and booked meet office and book."""
    for ending, least in (("ings", 4), ("ing", 4), ("ies", 3), ("ed", 4), ("es", 4), ("s", 3), ("ly", 4)):
        if word.endswith(ending) and len(word) - len(ending) >= least and not word.endswith("ss"):
            word = word[: -len(ending)] + ("y" if ending == "ies" else "")
            break
    return word[:-1] if len(word) > 4 and word.endswith("e") else word
