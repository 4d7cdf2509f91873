"""Strings: spell backward, count letters, sort words, replace and leave out letters, and such things in a row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from string import ascii_lowercase

from dayjob.endings import Invalid
from dayjob.practice.protocol import Action, Direction, Episode, Mutation, Task
from dayjob.practice.questions import (
    QuestionEpisode,
    check_choice,
    check_seed,
    check_whole,
    neighbours,
    rng_of,
    spec_of,
)
from dayjob.practice.vocabulary import WORDS
from dayjob.records import Json

OPERATIONS = ("reverse", "sort", "replace", "remove", "initials", "longest", "count")
_LAST = ("initials", "longest", "count")  # what they leave is one word or a number: nothing follows them
_DRAWS = 400  # tries to draw a task in which every operation changes something
_FIRST = {
    "reverse": "Spell {what} backward (example: sun -> nus): {words}",
    "sort": "Sort {what} alphabetically: {words}.",
    "replace": 'Write "{b}" for every "{a}" in {what}: {words}.',
    "remove": 'Leave out every "{a}" in {what}: {words}.',
    "initials": "Write the first letters of {what} as one word: {words}.",
    "longest": "Which of {what} is the longest: {words}?",
    "count": 'How many times does the letter "{a}" appear in {what}: {words}?',
}
_THEN = {
    "reverse": "Then spell each word backward.",
    "sort": "Then sort the words alphabetically.",
    "replace": 'Then write "{b}" for every "{a}".',
    "remove": 'Then leave out every "{a}".',
    "initials": "Then write the first letters of the words as one word.",
    "longest": "Then take the longest word.",
    "count": 'Then count how many times the letter "{a}" appears in the words.',
}


@dataclass(frozen=True, slots=True)
class _Done:
    """One operation with its letters, and the words that it leaves."""

    name: str
    letters: tuple[str, str]
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Strings:
    """One question about words, answered with words or a number.

    ``operations``: those a task is drawn from. ``words``: how many are given. ``letters``: of a word, at most.
    ``steps``: operations in a row. ``shown``: first letters of the answer that the question gives away, never all.
    ``slack``: wrong letters that are forgiven in an answer of words. Raises Invalid for values outside their range.

    >>> Strings(operations=["reverse"]).reset(0).task.messages[0]["content"]
    'Spell this word backward (example: sun -> nus): fox'
    """

    operations: Sequence[str] = ("reverse", "count", "replace", "remove")
    words: int = 1
    letters: int = 8
    steps: int = 1
    shown: int = 0
    slack: int = 0

    def __post_init__(self) -> None:
        check_whole(self, {"words": (1, 40), "letters": (3, 10), "steps": (1, 8), "shown": (0, 40), "slack": (0, 1)})
        object.__setattr__(self, "operations", check_choice(self, "operations", known=OPERATIONS))
        known = sum(len(word) <= self.letters for word in WORDS)
        if self.words > known // 2:
            raise Invalid(
                f"with {self.letters} letters there are {known} words: words must be at most half", param="words"
            )
        many = [one for one in ("sort", "initials", "longest") if one in self.operations]
        if many and self.words < 2:
            raise Invalid(f"words must be at least 2 for {', '.join(many)}", param="words")
        if "longest" in self.operations and self.letters < 5:
            raise Invalid("letters must be at least 5 for longest: else too many words are as long", param="letters")
        longest = self._longest_row()
        if self.steps > longest:
            message = f"these operations make rows of at most {longest} that change something each time"
            raise Invalid(f"{message}: lower steps, or add replace", param="steps")

    @property
    def spec(self) -> Json:
        return spec_of("strings", self)

    def reset(self, seed: int) -> Episode:
        """As `Environment.reset`."""
        words, done = self._draw(seed)
        right = done[-1].words
        slack = 0 if right[0].isdigit() else self.slack

        def judge(answer: str) -> bool | None:
            said = re.findall(r"[^\W_]+", answer.lower())
            if not said or len(answer) > 4 * len(" ".join(right)) + 64:
                return None
            return len(said) == len(right) and _distance(" ".join(said), " ".join(right)) <= slack

        task = Task(
            messages=({"role": "user", "content": self._tell(words, done)},), answer_tokens=32 + 12 * len(words)
        )
        return QuestionEpisode(task, judge)

    def reference(self, seed: int) -> Sequence[Action]:
        """As `Environment.reference`."""
        return (Action(text=", ".join(self._draw(seed)[1][-1].words)),)

    def mutations(self) -> Sequence[Mutation]:
        """As `Environment.mutations`."""
        easier, harder = Direction.EASIER, Direction.HARDER
        changes: list[tuple[str, Direction, Json]] = [
            ("fewer words", easier, {"words": self.words - 1}),
            ("more words", harder, {"words": self.words + 1}),
            ("shorter words", easier, {"letters": self.letters - 1}),
            ("longer words", harder, {"letters": self.letters + 1}),
            ("one operation less in a row", easier, {"steps": self.steps - 1}),
            ("composed with one more operation", harder, {"steps": self.steps + 1}),
            ("show one more letter", easier, {"shown": self.shown + 1}),
            ("show one letter less", harder, {"shown": self.shown - 1}),
            ("forgive one more letter", easier, {"slack": self.slack + 1}),
            ("forgive one letter less", harder, {"slack": self.slack - 1}),
        ]
        if set(self.operations) == {"count"}:  # of a number nothing is shown or forgiven
            changes = [one for one in changes if not {"shown", "slack"} & set(one[2])]
        if len(self.operations) > 1:
            changes += [(f"only {one}", easier, {"operations": [one]}) for one in self.operations]
        rest = [one for one in OPERATIONS if one not in self.operations]
        changes += [(f"{one} too", harder, {"operations": [*self.operations, one]}) for one in rest]
        return neighbours(self.spec, changes, make=lambda settings: Strings(**settings))

    def _longest_row(self) -> int:
        """How many operations can follow each other so that each still changes something."""
        known = set(self.operations)
        if "replace" in known:
            inner = 8
        elif {"reverse", "sort"} <= known:
            inner = 4
        else:
            inner = 2 if "remove" in known else min(1, len(known - set(_LAST)))
        return inner + min(1, len(known & set(_LAST)))

    def _draw(self, seed: int) -> tuple[tuple[str, ...], tuple[_Done, ...]]:
        """The words of a seed, and what is done to them."""
        rng = rng_of("strings", check_seed(seed))
        known = [word for word in WORDS if len(word) <= self.letters]
        # Drawn once: were it drawn with each try, rare counts would be rarer still, and "1" a good guess.
        count = rng.randrange(self.words + 2)
        for draw in range(_DRAWS):
            words = tuple(rng.sample(known, self.words))
            done = self._operate(rng, words, count=count if draw < _DRAWS // 2 else 1)
            # With forgiven letters, saying the words as they stand must not be enough.
            if done is not None and _distance(" ".join(words), " ".join(done[-1].words)) > self.slack:
                return words, done
        raise Invalid(f"no task could be drawn from these settings: {self.spec}", param="operations")

    def _operate(self, rng: Random, words: tuple[str, ...], *, count: int) -> tuple[_Done, ...] | None:
        """None where some operation would change nothing, leave no single right answer, or count to another number."""
        done: list[_Done] = []
        for step in range(self.steps):
            names = [one for one in self.operations if step == self.steps - 1 or one not in _LAST]
            name = rng.choice(names)
            before = done[-1].words if done else words
            a, b = rng.choice("".join(before)), rng.choice("aeioulmnrst")
            if name == "count":
                letters = [one for one in ascii_lowercase if "".join(before).count(one) == count]
                if not letters:
                    return None
                a = rng.choice(letters)
            after = _apply(name, before, a=a, b=b)
            if after is None or after == before or (name == "reverse" and done and done[-1].name == "reverse"):
                return None
            done.append(_Done(name, (a, b), after))
        return tuple(done)

    def _tell(self, words: tuple[str, ...], done: Sequence[_Done]) -> str:
        what = "this word" if len(words) == 1 else "these words"
        said = []
        for place, one in enumerate(done):
            form = _THEN[one.name] if place else _FIRST[one.name]
            said.append(form.format(what=what, words=", ".join(words), a=one.letters[0], b=one.letters[1]))
        right = done[-1].words
        if self.shown and not right[0].isdigit():
            text = ", ".join(right)
            said.append(f'The answer begins with "{text[: min(self.shown, len(text) - 1)]}".')
        # No full stop behind a lone word to spell: it would be spelt, too.
        return " ".join(one if one[-1] in ".?" or one == said[-1] else f"{one}." for one in said)


def _apply(name: str, words: tuple[str, ...], *, a: str, b: str) -> tuple[str, ...] | None:
    if name == "reverse":
        return tuple(word[::-1] for word in words)
    if name == "sort":
        return tuple(sorted(words))
    if name == "replace":
        return tuple(word.replace(a, b) for word in words)
    if name == "remove":
        left = tuple(word.replace(a, "") for word in words)
        return left if all(left) else None
    if name == "initials":
        return ("".join(word[0] for word in words),)
    if name == "longest":
        sizes = sorted((len(word) for word in words), reverse=True)
        return (max(words, key=len),) if sizes[0] > sizes[1] else None
    assert name == "count"
    return (str(sum(word.count(a) for word in words)),)


def _distance(one: str, other: str) -> int:
    """Letters to change, add or leave out to make one text of the other (Levenshtein)."""
    row = list(range(len(other) + 1))
    for place, letter in enumerate(one, 1):
        last, row[0] = row[0], place
        for column, against in enumerate(other, 1):
            last, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, last + (letter != against))
    return row[-1]
