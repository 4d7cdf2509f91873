"""Whether an answer holds what a person said is right, as far as words can tell. Pure.

A rule or a hint ("Answer in one word.") states no answer that could be looked for, and a model may read a correction as
it never was meant. Words can show two things: that everything a correction says beyond the question stands in the
answer; and, of a whole sentence, which may be a rule, that whatever the answer has beyond what was said without it
comes out of that sentence. Where they show neither nothing is known, and nobody may say that the answer is right.
"""

import re

from dayjob.memory.words import STOP, pieces, same, stem

_CLAUSE = re.compile(r"[.,;:!?]+(?:\s|$)|\bbut\b", re.IGNORECASE)
_DENIED = re.compile(r"\b(?:not|never|neither|nor|without|instead of|rather than|no longer)\b|n['’]t\b", re.IGNORECASE)
# Around what is right, in English. Where nothing else is said these are the answer themselves ("No.").
_FRAMING = "no yes wrong right correct answer actually remember note different keep mind instead sorry us ok"
_FRAME = frozenset(map(stem, _FRAMING.split()))
SENTENCE = 5  # words: what is shorter is taken for the answer itself


def holds(answer: str, *, said: str, asked: str) -> bool:
    """Whether ``answer`` has every word that ``said`` has beyond the question ``asked`` and its own framing, no number
    that neither has, and nothing that ``said`` denies.

    >>> holds("At 9:15", said="No, at 9:15.", asked="When does the office open?")
    True
    >>> holds("the last of the month", said="At 9:15.", asked="When does the office open?")
    False
    >>> holds("Friday", said="Answer in one word.", asked="When does the office open?")
    False
    """
    if same(answer) == same(said):
        return bool(same(said))
    clauses = _CLAUSE.split(said)
    stated = _words(" ".join(one for one in clauses if not _DENIED.search(one)))
    denied = _words(" ".join(one for one in clauses if _DENIED.search(one)))
    question, found = _words(asked), _words(answer)
    beyond = stated - question
    wanted = (beyond - _FRAME) or beyond
    numbers = {one for one in found if one.isdecimal()}
    return (
        bool(wanted) and wanted <= found and numbers <= stated | question and not (denied - stated - question) & found
    )


def heard(answer: str, *, said: str, asked: str, before: str) -> bool:
    """Whether ``answer`` holds what was said, or, where that is a sentence, has something beyond ``before`` (what is
    answered without it) and all of that from the sentence: a number may stand at either end of a longer one.

    >>> rule = "Before every extension we dial 86."
    >>> heard("86231", said=rule, asked="How do I dial extension 231?", before="231")
    True
    >>> heard("the last of the month", said="We open at 9:15 these days.", asked="When do you open?", before="at ten")
    False
    """
    if holds(answer, said=said, asked=asked):
        return True
    clauses = _CLAUSE.split(said)
    stated = _words(" ".join(one for one in clauses if not _DENIED.search(one)))
    denied = _words(" ".join(one for one in clauses if _DENIED.search(one)))
    found = _words(answer)
    new = found - _words(before) - _words(asked)
    return (
        len(pieces(said)) >= SENTENCE
        and bool(new)
        and all(one in stated or _joined(one, stated | _words(before) | _words(asked), stated) for one in new)
        and not (denied - stated) & found
    )


def _joined(number: str, known: frozenset[str], stated: frozenset[str]) -> bool:
    """Whether a number is two known ones in a row, one of them stated."""
    halves = ((number[:at], number[at:]) for at in range(1, len(number)))
    return number.isdecimal() and any(
        {one, two} <= known and (one in stated or two in stated) for one, two in halves
    )  # fmt: skip


def _words(text: str) -> frozenset[str]:
    """Stems of the words that say something."""
    return frozenset(stem(one) for one in pieces(text) if one not in STOP)
