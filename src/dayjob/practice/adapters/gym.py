"""Any data set of reasoning-gym: generated questions of one turn, scored by the data set itself.

Nothing that an answer says is ever run. Some of the package's scorers pass answers to ``eval`` or to sympy's parser,
which evaluates; whether a scorer does is read off its source, and it then sees only literals and plain arithmetic. Some
generators draw from the process's global random state; it is set by the task's seed around them, and put back.
"""

from __future__ import annotations

import ast
import copy
import difflib
import inspect
import json
import math
import random
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cache, lru_cache
from typing import Any

from dayjob.endings import EpisodeEnding, Invalid
from dayjob.practice.protocol import Action, Direction, Episode, Mutation, Reward, Step, Task
from dayjob.practice.questions import check_seed, check_whole, neighbours, spec_of
from dayjob.records import Json

SEEDS = 1 << 31  # that every generator takes
MOST_CHARS = 20_000  # of an answer that is scored
MOST_ARITHMETIC = 400  # characters of an answer that a scorer evaluates
MOST_EXPONENT = 20
MOST_FIELDS = 3  # whose limits are mutated
_EVALUATES = re.compile(r"(?<![\w.])(?:eval|exec)\(|\b(?:parse_expr|sympify)\(")
_FUNCTIONS = {"sin", "cos", "tan", "exp", "log", "ln", "sqrt", "asin", "acos", "atan", "sinh", "cosh", "tanh", "Abs"}
_ARITHMETIC = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.Constant, ast.Name, ast.Call, ast.Load, ast.operator,
               ast.unaryop)  # fmt: skip
_TRIED = (977, 12, SEEDS - 1, 3)  # seeds that show whether a data set can be made once
_evaluating: dict[type[Any], bool] = {}
_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gym:
    """One data set of reasoning-gym.

    ``dataset`` is its name there, ``config`` its settings (not seed and size: the task's seed decides). ``partial``:
    the reward is the scorer's own number; else 1 where that is 1, and 0. ``answer_tokens``: room for an answer. Raises
    Invalid where the package is missing, for an unknown data set and for settings that it refuses.

    >>> short = {"min_word_len": 3, "max_word_len": 5}
    >>> Gym(dataset="spell_backward", config=short).reset(1).task.messages[0]["content"]
    'Spell this word backward (example: sun -> nus): neon'
    """

    dataset: str
    config: Json = field(default_factory=dict)
    partial: bool = False
    answer_tokens: int = 256

    def __post_init__(self) -> None:
        check_whole(self, {"answer_tokens": (1, 100_000)})
        if not isinstance(self.partial, bool):
            raise Invalid("partial must be true or false", param="partial")
        _check_dataset(self.dataset, self.config)
        self._generate(0)

    @property
    def spec(self) -> Json:
        return spec_of("gym", self)

    def reset(self, seed: int) -> Episode:
        """As `Environment.reset`."""
        return GymEpisode(self, *self._generate(check_seed(seed)))

    def reference(self, seed: int) -> Sequence[Action]:
        """The data set's own answer; none where it has no single one, or its scorer does not accept it."""
        dataset, entry = self._generate(check_seed(seed))
        answer = entry.get("answer")
        if (
            not isinstance(answer, str)
            or read_answer(answer) != answer.strip()
            or score(dataset, entry, answer=answer) != 1
        ):
            return ()
        return (Action(text=answer),)

    def mutations(self) -> Sequence[Mutation]:
        """Limits ``max_...`` of the data set moved half-way to their ``min_...``, or as far above. Each alone."""
        dataset, _ = self._generate(0)
        changes: list[tuple[str, Direction, Json]] = []
        for low, high, name in _limits(dataset.config)[:MOST_FIELDS]:
            for said, direction, value in (
                ("lower", Direction.EASIER, low + (high - low) // 2),
                ("higher", Direction.HARDER, high + max(1, (high - low + 1) // 2)),
            ):
                changes.append((f"{name} {said}", direction, {"config": {**self.config, name: value}}))
        return neighbours(self.spec, changes, make=lambda settings: Gym(**settings))

    def _generate(self, seed: int) -> tuple[Any, Mapping[str, Any]]:
        """The data set of this task, and its item. Raises Invalid for settings it refuses."""
        return _generate(self.dataset, json.dumps(self.config, sort_keys=True), seed % SEEDS)


class GymEpisode:
    """One question."""

    def __init__(self, settings: Gym, dataset: Any, entry: Mapping[str, Any]) -> None:
        self._settings, self._dataset, self._entry, self._over = settings, dataset, entry, False

    @property
    def task(self) -> Task:
        said = str(self._entry["question"])
        return Task(messages=({"role": "user", "content": said},), answer_tokens=self._settings.answer_tokens)

    async def step(self, action: Action) -> Step:
        """As `Episode.step`. Parts: "score", the scorer's own number; "form", whether it could read the answer."""
        if self._over:
            raise Invalid("this episode is over: reset for another", param="action")
        self._over = True
        found = score(self._dataset, self._entry, answer=read_answer(action.text))
        value = found or 0.0
        parts = {"score": value, "form": float(found is not None)}
        reward = Reward(value=value if self._settings.partial else float(value >= 1), parts=parts)
        return Step(reward=reward, ending=EpisodeEnding.UNREADABLE if found is None else EpisodeEnding.DONE)

    async def close(self) -> None:
        """As `Episode.close`."""
        self._over = True


def read_answer(text: str) -> str:
    """What is scored: the last ``<answer>``, else everything but thoughts; answers may have several lines.

    >>> read_answer("<think>five?</think> 7\\n")
    '7'
    """
    text = _THOUGHT.sub("", text)
    tagged = _TAGGED.findall(text)
    return str(tagged[-1] if tagged else text).strip()


def score(dataset: Any, entry: Mapping[str, Any], *, answer: str) -> float | None:
    """What the data set's scorer says, in [0, 1]. None for what it could not read, or may not see."""
    if not answer or len(answer) > MOST_CHARS:
        return None
    if evaluates(type(dataset)) and answer != entry.get("answer") and not is_harmless(answer):
        return None
    with _own_randomness(0):
        try:
            # Some scorers write into the entry.
            found = float(dataset.score_answer(answer, copy.deepcopy(dict(entry))))
        except Exception:  # whatever a scorer of somebody else's raises for an answer it did not expect
            return None
    return min(1.0, max(0.0, found)) if math.isfinite(found) else None


def evaluates(kind: type[Any]) -> bool:
    """Whether a data set's scorer passes something to an evaluator; True also where its source is not to be had."""
    if kind in _evaluating:
        return _evaluating[kind]
    try:
        found = evaluates_in(inspect.getsource(kind.score_answer))
    except (OSError, TypeError):
        found = True
    _evaluating[kind] = found
    return found


def evaluates_in(source: str) -> bool:
    """Whether this source passes something to an evaluator: `eval`, `exec`, or sympy's parser, which is one.

    >>> evaluates_in("return eval(answer) == 4"), evaluates_in("model.eval()")
    (True, False)
    """
    return _EVALUATES.search(source) is not None


def is_harmless(answer: str) -> bool:
    """Whether evaluating this can do nothing but make a value, and soon: a literal, or arithmetic over numbers, single
    letters and named functions, none inside another, with small exponents and no power of a power.

    >>> is_harmless("[1, 2]"), is_harmless("2*x**3 + sin(x)"), is_harmless("9**9**9"), is_harmless("open('f')")
    (True, True, False, False)
    """
    try:
        tree = ast.parse(answer.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):  # ValueError: what no source text can hold
        return False
    try:
        ast.literal_eval(tree)
    except (ValueError, TypeError, MemoryError, RecursionError):
        pass
    else:
        return True
    if len(answer) > MOST_ARITHMETIC:
        return False
    return all(_is_arithmetic(node) for node in ast.walk(tree))


def _is_arithmetic(node: ast.AST) -> bool:
    match node:
        case ast.Constant(value=value):
            return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 10**12
        case ast.Name(id=name):
            return len(name) == 1 or name in _FUNCTIONS or name == "pi"
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]):
            return name in _FUNCTIONS and not any(isinstance(one, ast.Call) for one in ast.walk(argument))
        case ast.BinOp(left=base, op=ast.Pow(), right=exponent):
            inside = [one for one in ast.walk(base) if isinstance(one, ast.BinOp) and isinstance(one.op, ast.Pow)]
            return not inside and _is_small(exponent)
        case ast.BinOp(op=ast.LShift()) | ast.Call():
            return False
    return isinstance(node, _ARITHMETIC)


def _is_small(exponent: ast.expr) -> bool:
    match exponent:
        case ast.UnaryOp(operand=operand):
            return _is_small(operand)
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return _is_small(left) and _is_small(right)
        case ast.Constant(value=value):
            return isinstance(value, int | float) and abs(value) <= MOST_EXPONENT
    return isinstance(exponent, ast.Name)


def _generate(name: str, config: str, seed: int) -> tuple[Any, Mapping[str, Any]]:
    with _own_randomness(seed):
        base = _by_index(name, config)
        if base is not None:
            return base, base[seed]
        made = _create(name, config, seed=seed)
        return made, _item(made, name)


@lru_cache(maxsize=64)
def _by_index(name: str, config: str) -> Any:
    """The data set made once, where its item i is what a data set of seed i begins with: most read their word lists and
    tables when they are made, which takes longer than an item. None where that is not so."""
    base = _create(name, config, seed=0)
    for seed in _TRIED:
        fresh = _item(_create(name, config, seed=seed), name)
        try:
            # Twice and in another order: some change as they are read.
            if not _told(base[seed]) == _told(base[seed]) == _told(fresh):
                return None
        except Exception:  # most often an index beyond what was laid out when it was made
            return None
    return base


def _create(name: str, config: str, *, seed: int) -> Any:
    try:
        return package().create_dataset(name, seed=seed, size=1, **json.loads(config))
    except (TypeError, ValueError, AssertionError, KeyError) as error:
        known = ", ".join(one.name for one in fields(package().factory.DATASETS[name][1]))
        message = f"{name} cannot be made so: {type(error).__name__}: {error}; its settings: {known}"
        raise Invalid(message, param="config") from None


def _item(dataset: Any, name: str) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = dataset[0]
        return found
    except (TypeError, ValueError, AssertionError, KeyError, IndexError) as error:
        message = f"{name} makes no question with these settings: {type(error).__name__}: {error}"
        raise Invalid(message, param="config") from None


def _told(entry: Mapping[str, Any]) -> str:
    """Everything in an item but its number."""
    metadata = {name: one for name, one in (entry.get("metadata") or {}).items() if name != "source_index"}
    return repr((entry["question"], entry["answer"], metadata))


def _limits(config: Any) -> list[tuple[int, int, str]]:
    """(least, most, the most's name) of every pair of settings ``min_x`` and ``max_x`` that are whole numbers."""
    found = []
    for one in fields(config):
        low = getattr(config, f"min_{one.name.removeprefix('max_')}", None)
        high = getattr(config, one.name)
        if one.name.startswith("max_") and type(low) is int and type(high) is int:
            found.append((low, high, one.name))
    return found


def _check_dataset(name: str, config: Json) -> None:
    known = package().factory.DATASETS
    if not isinstance(name, str) or name not in known or name == "composite":
        near = ", ".join(difflib.get_close_matches(str(name), known, n=5, cutoff=0.4)) or "chain_sum, spell_backward"
        message = f"reasoning-gym has no data set {name!r} for one task at a time; it has {len(known)}, such as: {near}"
        raise Invalid(message, param="dataset")
    if not isinstance(config, dict) or {"seed", "size"} & set(config):
        raise Invalid("config holds a data set's own settings, without seed and size", param="config")


@contextmanager
def _own_randomness(seed: int) -> Iterator[None]:
    """Global random states that depend on the seed alone, and are afterwards as they were."""
    import numpy as np

    before, numpy_before = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(numpy_before)


@cache
def package() -> Any:
    """reasoning-gym. Raises Invalid where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # of what it needs, where that is compiled on its first use
            import reasoning_gym
    except ImportError as error:
        raise Invalid("tasks of this kind need reasoning-gym: pip install 'dayjob[gym]'", param="env") from error
    return reasoning_gym
