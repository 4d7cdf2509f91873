"""Invented documents about towns, people and places that refer to each other, and a search over them.

Everything follows from (number, seed): no two libraries agree on anything, so nothing in one can be answered from
memory. The search counts in whole numbers only: its order is the same on every machine.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from dayjob.practice.questions import rng_of
from dayjob.practice.vocabulary import FIRST_NAMES, KINDS, draw_families, draw_rivers, draw_towns

MIN_DOCUMENTS, MAX_DOCUMENTS = 10, 10_000
KEPT = 16  # libraries in memory: attempts at one task stand side by side
_SCALE = 1 << 20
_WORD = re.compile(r"[a-z0-9]+")

# What a document tells of its subject: relation -> (how one asks for it, how one names it of another).
RELATIONS = {
    "built": ("In which year was {of} built?", ""),
    "town": ("In which town does {of} stand?", "the town of {of}"),
    "founder": ("Who founded {of}?", "the founder of {of}"),
    "born": ("In which year was {of} born?", ""),
    "birthplace": ("In which town was {of} born?", "the birthplace of {of}"),
    "workplace": ("Where does {of} work?", "the workplace of {of}"),
    "river": ("Which river flows through {of}?", ""),
    "mayor": ("Who is the mayor of {of}?", "the mayor of {of}"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document: what it is about is its title. ``facts``: relation -> what it says, a title or a plain value."""

    title: str
    text: str
    facts: tuple[tuple[str, str], ...]


class Library:
    """A set of documents that can be searched. Never changed once it is made."""

    def __init__(self, documents: tuple[Document, ...]) -> None:
        self.documents = documents
        self._place = {document.title.lower(): place for place, document in enumerate(documents)}
        self._found: dict[str, list[tuple[int, int]]] = {}  # word -> (document, how much it speaks of it)
        for place, document in enumerate(documents):
            counts = Counter(_WORD.findall(document.text.lower()))
            for word in _WORD.findall(document.title.lower()):
                counts[word] += 4
            for word, count in counts.items():
                self._found.setdefault(word, []).append((place, min(count, 8)))

    def get(self, title: str) -> Document | None:
        """The document of this title, capitals or not."""
        place = self._place.get(" ".join(title.lower().split()))
        return None if place is None else self.documents[place]

    def search(self, query: str, count: int) -> list[Document]:
        """The ``count`` documents that speak most of the query's words, rare words counting for more; one whose title
        is the query comes first. None that has none of the words."""
        scores: dict[int, int] = {}
        for word in dict.fromkeys(_WORD.findall(query.lower())):
            found = self._found.get(word, [])
            for place, weight in found:
                scores[place] = scores.get(place, 0) + weight * (_SCALE // len(found))
        exact = self._place.get(" ".join(query.lower().split()))
        if exact is not None:
            scores[exact] = 1 << 62
        best = sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:count]
        return [self.documents[place] for place, _ in best]


@lru_cache(maxsize=KEPT)
def library(documents: int, seed: int) -> Library:
    """The library of this size and seed: a fifth are towns, two fifths people, two fifths places."""
    rng = rng_of("library", documents, seed)
    towns = draw_towns(rng, max(2, documents // 5))
    people = _people(rng, max(4, 2 * documents // 5))
    places = _places(rng, documents - len(towns) - len(people))
    rivers = draw_rivers(rng, max(2, len(towns) // 2))
    made = [_town(rng, name, people=people, rivers=rivers) for name in towns]
    made += [_person(rng, name, towns=towns, places=places) for name in people]
    made += [_a_place(rng, name, towns=towns, people=people) for name in places]
    rng.shuffle(made)
    return Library(tuple(made))


def _people(rng: Random, count: int) -> list[str]:
    families = draw_families(rng, count)
    return [f"{rng.choice(FIRST_NAMES)} {family}" for family in families]


def _places(rng: Random, count: int) -> list[str]:
    stems = draw_families(rng, (count + 1) // 2)  # two places share a stem: a search has to tell them apart
    named = [f"{stem} {kind}" for stem in stems for kind in rng.sample(KINDS, 2)]
    return named[:count]


def _town(rng: Random, name: str, *, people: list[str], rivers: list[str]) -> Document:
    river, mayor, year, souls = rng.choice(rivers), rng.choice(people), rng.randint(900, 1700), rng.randint(2, 90)
    text = (
        f"{name} is a town of {souls} thousand people on the river {river}. It was first named in {year}. "
        f"The mayor of {name} is {mayor}."
    )
    return Document(title=name, text=text, facts=(("river", river), ("mayor", mayor)))


def _person(rng: Random, name: str, *, towns: list[str], places: list[str]) -> Document:
    birthplace, year, workplace = rng.choice(towns), rng.randint(1900, 1999), rng.choice(places)
    moved = rng.randint(year + 18, year + 30)
    text = f"{name} was born in {birthplace} in {year}, left home in {moved}, and works at {workplace}."
    return Document(
        title=name, text=text, facts=(("born", str(year)), ("birthplace", birthplace), ("workplace", workplace))
    )


def _a_place(rng: Random, name: str, *, towns: list[str], people: list[str]) -> Document:
    town, year, founder, keeper = rng.choice(towns), rng.randint(1700, 1899), *rng.sample(people, 2)
    text = (
        f"{name} stands in {town}. It was built in {year}, and rebuilt in {rng.randint(1900, 1960)}. "
        f"{name} was founded by {founder}; its keeper today is {keeper}."
    )
    return Document(title=name, text=text, facts=(("town", town), ("built", str(year)), ("founder", founder)))
