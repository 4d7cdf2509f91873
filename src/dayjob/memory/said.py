"""Whether an answer holds what a person said is right, as far as words can tell. Pure.

A rule or a hint ("Answer in one word.") states no answer that could be looked for, and a model may read a correction as
it never was meant. So there is one thing that words can show: that everything a correction says beyond the question
stands in the answer. Where they do not show it nothing is known, and nobody may say that the answer is the right one.
"""

import re

from dayjob.memory.words import STOP, pieces, same, stem

_CLAUSE = re.compile(r"[.,;:!?]+(?:\s|$)|\bbut\b", re.IGNORECASE)
_DENIED = re.compile(r"\b(?:not|never|neither|nor|without|instead of|rather than|no longer)\b|n['’]t\b", re.IGNORECASE)
# Around what is right, in English. Where nothing else is said these are the answer themselves ("No.").
_FRAMING = "no yes wrong right correct answer actually remember note different keep mind instead sorry us ok"
_FRAME = frozenset(map(stem, _FRAMING.split()))


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


def _words(text: str) -> frozenset[str]:
    """Stems of the words that say something."""
    return frozenset(stem(one) for one in pieces(text) if one not in STOP)
