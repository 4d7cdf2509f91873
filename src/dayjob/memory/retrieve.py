"""Finding the notes that concern a question: BM25 over words and over character n-grams, offline. Pure.

A score is between 0 and 1, so that one threshold serves sets of one note and of a thousand: the share of the query that
a note covers (by BM25 weight), times the share of the note's question that the query covers, under a root. Words and
n-grams are scored apart and averaged; n-grams find other endings, compounds and misspellings, and scripts without
spaces. A query is compared with what was asked, and, for less, with what was taught.

BM25: Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009, with idf = log(1 + (N - n + .5)/(n + .5)).
N counts some texts that are not there: in a set of one note, a word that it shares would else weigh next to nothing.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from dayjob.memory.words import STOP, pieces, stem

K1 = 1.2
GRAM = 4
BACKGROUND = 20
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
MOST_PIECES = 400  # of a query: the last ones, where the question usually stands
STOPPED = 0.2  # what a word like "the" weighs beside one that is about something
ANSWER = 0.6  # a match with what was taught counts less than one with what was asked


def features(text: str) -> tuple[Counter[str], Counter[str]]:
    """A text's stems and the character n-grams of its content words, counted. Scripts without spaces have no words:
    their pairs of characters stand for them."""
    found = pieces(text)[-MOST_PIECES:]
    words = Counter(one for word in found for one in _stems(word))
    grams = Counter(one for word in found if word not in STOP for one in _cut(f"_{word}_", _width(word)))
    return words, grams


def _stems(word: str) -> Sequence[str]:
    if _width(word) < GRAM:
        return _cut(word, _width(word))
    return (word if word in STOP else stem(word),)


def _width(word: str) -> int:
    return 2 if _UNSPACED.search(word) else GRAM


def _cut(word: str, width: int) -> list[str]:
    return [word[at : at + width] for at in range(max(1, len(word) - width + 1))]


class Field:
    """One kind of feature of many short texts, with postings."""

    def __init__(self, counts: Sequence[Mapping[str, int]], *, stopped: frozenset[str] = frozenset()) -> None:
        """``counts``: for each text its features, counted. ``stopped``: features that weigh little."""
        self._size = len(counts) + BACKGROUND
        self._stopped = stopped
        self._postings: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for at, count in enumerate(counts):
            for feature, times in count.items():
                self._postings[feature].append((at, times))
        self._own = [sum(self.weight(one) for one in count) for count in counts]

    def weight(self, feature: str) -> float:
        """BM25's inverse document frequency; a stop word's share of it."""
        seen = len(self._postings.get(feature, ()))
        idf = math.log(1 + (self._size - seen + 0.5) / (seen + 0.5))
        return idf * (STOPPED if feature in self._stopped else 1.0)

    def score(self, query: Mapping[str, int]) -> dict[int, float]:
        """The score of each text that shares a feature with the query, 0 to 1."""
        whole = sum(self.weight(one) for one in query)
        covered: defaultdict[int, float] = defaultdict(float)
        shared: defaultdict[int, float] = defaultdict(float)
        for feature in query:
            weight = self.weight(feature)
            for at, times in self._postings.get(feature, ()):
                covered[at] += weight * times * (K1 + 1) / (times + K1)
                shared[at] += weight
        return {
            at: math.sqrt(min(1.0, value / whole) * min(1.0, shared[at] / self._own[at]))
            for at, value in covered.items()
            if whole > 0 and self._own[at] > 0
        }


class Index:
    """Notes that can be searched: pairs of what was asked ("" for none) and what was taught. Immutable."""

    def __init__(self, notes: Iterable[tuple[str, str]]) -> None:
        pairs = list(notes)
        self._fields = [(_fields([asked for asked, _ in pairs]), 1.0), (_fields([text for _, text in pairs]), ANSWER)]

    def search(self, query: str) -> dict[int, float]:
        """The place of every note that shares anything with the query, and its score, 0 to 1."""
        wanted = features(query)
        best: dict[int, float] = {}
        for fields, share in self._fields:
            found: defaultdict[int, float] = defaultdict(float)
            for field, count in zip(fields, wanted, strict=True):
                for at, value in field.score(count).items():
                    found[at] += value / len(fields)
            for at, value in found.items():
                best[at] = max(best.get(at, 0.0), share * value)
        return best


def _fields(texts: Sequence[str]) -> list[Field]:
    counted = [features(text) for text in texts]
    return [Field([words for words, _ in counted], stopped=STOP), Field([grams for _, grams in counted])]
