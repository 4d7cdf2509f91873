"""What the clerk is asked after a night: of the office what nobody asked by day, and everything that is to stay.

No question of an exam stands in the journal or among the prompts that the base model wrote itself, unless its suite's
name says "as asked"; this is checked, not assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

from clerk.facts import Relation, relations
from clerk.lessons import Probe
from clerk.office import HOWS, Convention, Office, ask_of, fact_probe
from clerk.split import Side
from clerk.wordings import question

from dayjob.lab.clerk_course import ASKED, held_out
from dayjob.lab.clerk_desk import CONTEXT, WORK, chat
from dayjob.learn.language.anchors import make_anchors
from dayjob.learn.language.recipes import NightRecipe
from dayjob.learn.language.study import Study
from dayjob.learn.language.table import Question

TAUGHT = tuple(f"by {how}" for how in HOWS)
AS_ASKED, UNSEEN, BOTH, OTHER_CASES = "as asked by day", "unseen wording", "compositions", "cases that no rule changes"
REPLAYED, SILENT, UNKNOWN, FOLLOWING = "replayed facts", "silent facts", "I don't know", "following notes"
LEAKED = "one person's own, said to all"
WITH_NOTES = "with the notes it needs"  # what was taught, asked behind the notes that are not retired
SKILLS = tuple(f"skill: {name}" for name in WORK)
FOLLOWED = ("notes", "rules", "hints")
TRIES = 300


def exam(
    here: Office, *, day: int, forbidden: frozenset[str], each: int, gym: bool = True
) -> dict[str, list[Question]]:
    """The suites of an office as it stands on a day. ``each``: questions of a convention, and a tenth of a suite's;
    ``forbidden``: questions that were asked or anchored, folded by :func:`fold`. ``gym``: skills too.
    """
    ask = _Asker(Random(f"exam {here.seed} {day}"), forbidden)
    suites: dict[str, list[Question]] = {name: [] for name in (*TAUGHT, AS_ASKED, UNSEEN, BOTH, OTHER_CASES)}
    for one in here.standing(day):
        test = partial(one.ask, where=Side.TEST)
        suites[f"by {one.how}"] += ask.some(test, each, changed=True)
        suites[AS_ASKED].append(_as_question(one.opening))
        if one.lesson.kind == "rule":
            suites[OTHER_CASES] += ask.some(test, each, changed=False)
        else:
            suites[UNSEEN] += ask.some(partial(_unseen, one), each)
            suites[BOTH] += ask.some(partial(_both, one, here), each)
    for name, replayed in ((REPLAYED, True), (SILENT, False)):
        suites[name] = ask.some(partial(_any, here.facts(replayed=replayed)), 10 * each)
    for whose in here.staff:
        for one in here.standing(day, whose=whose):
            suites.setdefault(LEAKED, []).extend(ask.some(partial(one.ask, where=Side.TEST), each))
    suites |= {
        name: [one for one in questions if len(one.messages) > 1 or _text(one) not in forbidden]
        for name, questions in kept_suites(each=10 * each, seed=here.seed, gym=gym).items()
    }
    return {name: questions for name, questions in suites.items() if questions}


def kept_suites(*, each: int, seed: int, gym: bool = True) -> dict[str, list[Question]]:
    """What has nothing to do with the office: skills, not knowing, and obeying notes in the context."""
    names = {UNKNOWN: ["unknown"], FOLLOWING: list(FOLLOWED)}
    if gym:
        names |= {f"skill: {name}": [name] for name in WORK}
    return {
        suite: [
            _of_conversation(example.messages)
            for family in families
            if family in ASKED
            for example in held_out(family, count=max(1, each // len(families)), seed=seed)
        ]
        for suite, families in names.items()
    }


def gone(here: Office, *, day: int, forbidden: frozenset[str], each: int, today: bool | None = None) -> list[Question]:
    """Questions of conventions that hold no more, answered as they were then: none of these answers should come.
    ``today``: only of those that were reversed on this day, or only of those before."""
    ask = _Asker(Random(f"gone {here.seed} {day} {today}"), forbidden)
    olds = [one for one in here.gone(day) if today is None or (one.until == day) == today]
    return [one for old in olds for one in ask.some(partial(old.ask, where=Side.TEST), each)]


def own(here: Office, user: str, *, day: int, forbidden: frozenset[str], each: int) -> list[Question]:
    """Questions of one person's own conventions, answered as that person has it."""
    ask = _Asker(Random(f"own {here.seed} {day} {user}"), forbidden)
    mine = here.standing(day, whose=user)
    return [one for habit in mine for one in ask.some(partial(habit.ask, where=Side.TEST), each)]


def fold(text: str) -> str:
    """The form in which questions are compared."""
    return " ".join(text.casefold().split())


def self_written(folder: Path, recipe: NightRecipe, *, seed: int) -> frozenset[str]:
    """The questions that a night of this seed lets the base model write for its anchor, folded."""
    if not recipe.self_written:
        return frozenset()
    brief = replace(recipe, answer_tokens=1, context_tokens=CONTEXT)  # only the questions are wanted
    anchors = make_anchors(Study(folder, brief, seed=seed), (), exercises=(), recipe=brief, seed=seed)
    return frozenset(fold(str(row.question[-1]["content"])) for row in anchors.rows)


def _text(one: Question) -> str:
    return fold(str(one.messages[-1]["content"]))


def check_apart(suites: Mapping[str, Iterable[Question]], forbidden: frozenset[str]) -> None:
    """Raises ValueError when a suite asks what was asked by day or anchored."""
    for name, questions in suites.items():
        if name in (AS_ASKED, FOLLOWING):  # behind notes of their own, the latter are other questions
            continue
        for one in questions:
            if len(one.messages) == 1 and _text(one) in forbidden:
                raise ValueError(f"{name} asks {_text(one)!r}, which a night may have learned from")


class _Asker:
    """Draws questions that are not forbidden, none twice."""

    def __init__(self, rng: Random, forbidden: frozenset[str]) -> None:
        self._rng = rng
        self._seen = set(forbidden)

    def some(self, make: Callable[[Random], Probe], count: int, *, changed: bool | None = None) -> list[Question]:
        """Up to ``count``, fewer where there are no more; with ``changed`` only those whose answer was taught, or was
        not."""
        found: list[Question] = []
        for _ in range(TRIES):
            if len(found) == count:
                break
            probe = make(self._rng)
            fits = changed is None or (probe.answer != probe.before) == changed
            if fits and fold(probe.question) not in self._seen:
                self._seen.add(fold(probe.question))
                found.append(_as_question(probe))
        return found


def _as_question(probe: Probe) -> Question:
    return Question(messages=chat(probe.question), answer=probe.answer)


def _any(pool: Sequence[tuple[Relation, str]], rng: Random) -> Probe:
    relation, subject = rng.choice(pool)
    return fact_probe(relation, subject, rng=rng, where=Side.TEST)


def _unseen(one: Convention, rng: Random) -> Probe:
    """In the wording that is in no text at all."""
    probe = ask_of(one.lesson, rng, where=Side.TEST)
    relation = next(each for each in relations() if each.name == one.lesson.about)
    return replace(probe, question=question(relation, probe.case, rng=rng, where=Side.TEST, unseen=True))


def _both(one: Convention, here: Office, rng: Random) -> Probe:
    """A convention and a fact in one question."""
    probe = ask_of(one.lesson, rng, where=Side.TEST)
    mine = next(each for each in relations() if each.name == one.lesson.about)
    other, subject = rng.choice(here.facts(replayed=True))
    asks = [rng.choice(mine.ask[:-1]).format(s=probe.case), rng.choice(other.ask[:-1]).format(s=subject)]
    answers = [probe.answer, other.facts[subject]]
    if rng.random() < 0.5:
        asks.reverse()
        answers.reverse()
    return replace(probe, question=" And: ".join(asks), answer="; ".join(answers))


def _of_conversation(messages: Sequence[tuple[str, str]]) -> Question:
    *before, (_, answer) = messages
    return Question(messages=tuple({"role": role, "content": text} for role, text in before), answer=answer)
