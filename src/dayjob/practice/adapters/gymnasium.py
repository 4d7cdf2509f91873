"""Gymnasium environments as conversations: what is observed becomes text, and what is said becomes an action.

An environment is told by its own text rendering where it has one (``render_mode="ansi"``; what it only colours is put
into brackets), else by its observation: texts, whole numbers, and small arrays, tuples and dicts of them. Actions are
names or numbers (Discrete), texts (Text), or numbers in a row (small boxes). Anything else is refused when it is made.

The environment must be registered with Gymnasium by a package that is installed; a spec cannot name a module.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from dayjob.endings import EpisodeEnding, Invalid
from dayjob.practice.protocol import Action, Episode, Mutation, Reward, Step, Task
from dayjob.practice.questions import check_seed, check_whole, final_answer, spec_of
from dayjob.records import Json

SEEDS = 1 << 31
MOST_NUMBERS = 256  # in an observation that is told as numbers
MOST_ACTION_NUMBERS = 16
MOST_NUMBER = 1e9  # in an action; fits every kind of number
_ID = re.compile(r"(?:[\w.-]+/)?[\w.-]+", re.ASCII)
_COLOURED = re.compile(r"\x1b\[[\d;]*m(.*?)\x1b\[0m", re.DOTALL)
_ESCAPE = re.compile(r"\x1b\[[\d;]*[A-Za-z]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gymnasium:
    """One registered environment.

    ``id`` and ``settings`` as for ``gymnasium.make``. ``intro`` stands before the first observation: what the task is.
    ``actions`` are names for the actions of a Discrete space, in order. A return of ``worst`` or less is a reward of 0,
    one of ``best`` or more is 1, linear between. Raises Invalid where the package is missing, for an unknown id, and
    for spaces that have no text form here.

    >>> Gymnasium(id="FrozenLake-v1", actions=["left", "down", "right", "up"]).spec["best"]
    1.0
    """

    id: str
    settings: Json = field(default_factory=dict)
    intro: str = ""
    actions: Sequence[str] = ()
    worst: float = 0.0
    best: float = 1.0
    max_turns: int = 100
    answer_tokens: int = 32

    def __post_init__(self) -> None:
        check_whole(self, {"max_turns": (1, 10_000), "answer_tokens": (1, 100_000)})
        for name in ("worst", "best"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise Invalid(f"{name} must be a number: a return of the environment", param=name)
        if not self.worst < self.best:
            raise Invalid("best must be above worst: the returns that become a reward of 1 and of 0", param="best")
        if not isinstance(self.settings, dict) or {"render_mode", "disable_env_checker"} & set(self.settings):
            raise Invalid("settings holds the environment's own settings, without render_mode", param="settings")
        object.__setattr__(self, "actions", tuple(self.actions))
        made = self._open()
        try:
            self._check(made)
        finally:
            made.close()

    @property
    def spec(self) -> Json:
        return spec_of("gymnasium", self)

    def reset(self, seed: int) -> Episode:
        """As `Environment.reset`. Seeds that are equal modulo 2**31 are one task."""
        return GymnasiumEpisode(self, self._open(), seed=check_seed(seed) % SEEDS)

    def reference(self, seed: int) -> Sequence[Action]:
        """None: Gymnasium knows no solutions."""
        check_seed(seed)
        return ()

    def mutations(self) -> Sequence[Mutation]:
        """None: what its settings mean is not known here."""
        return ()

    def _open(self) -> Any:
        package = _package()
        if not isinstance(self.id, str) or _ID.fullmatch(self.id) is None or self.id not in package.registry:
            raise Invalid(f"no environment {self.id!r} is registered with Gymnasium: install the package that has it",
                          param="id")  # fmt: skip
        creator = package.registry[self.id].entry_point
        kind = package.envs.registration.load_env_creator(creator) if isinstance(creator, str) else creator
        modes = (getattr(kind, "metadata", None) or {}).get("render_modes", ())
        mode = {"render_mode": "ansi"} if "ansi" in modes else {}
        try:
            return package.make(self.id, disable_env_checker=True, **mode, **self.settings)
        except (TypeError, ValueError, KeyError, AssertionError, package.error.Error, ImportError) as error:
            message = f"{self.id} cannot be made so: {type(error).__name__}: {error}"
            raise Invalid(message, param="settings") from None

    def _check(self, made: Any) -> None:
        spaces, kind = _package().spaces, made.action_space
        names = self.actions
        if names and not (isinstance(kind, spaces.Discrete) and len({one.casefold() for one in names}) == int(kind.n)):
            raise Invalid(f"actions must name each action of {kind} once, in order", param="actions")
        numbers = isinstance(kind, spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary)
        if not (
            isinstance(kind, spaces.Discrete | spaces.Text)
            or (numbers and math.prod(kind.shape) <= MOST_ACTION_NUMBERS)
        ):
            raise Invalid(f"actions of {self.id} ({kind}) have no text form here: wrap the environment", param="id")
        if made.render_mode != "ansi" and not _can_tell(made.observation_space):
            space = made.observation_space
            raise Invalid(f"observations of {self.id} ({space}) have no text form here: wrap the environment",
                          param="id")  # fmt: skip


class GymnasiumEpisode:
    """One attempt. What cannot be read as an action costs a turn and changes nothing."""

    def __init__(self, settings: Gymnasium, made: Any, *, seed: int) -> None:
        self._settings, self._made = settings, made
        self._turns, self._return, self._over = 0, 0.0, False
        observed, _ = made.reset(seed=seed)
        self._best = self._share()
        said = "\n".join(one for one in (settings.intro, self._tell(observed), self._ask()) if one)
        self._task = Task(
            messages=({"role": "user", "content": said},),
            max_turns=settings.max_turns,
            answer_tokens=settings.answer_tokens,
        )

    @property
    def task(self) -> Task:
        return self._task

    async def step(self, action: Action) -> Step:
        """As `Episode.step`. A turn's own part is how far the return rose above the best it was, as a reward."""
        if self._over:
            raise Invalid("this episode is over: reset for another", param="action")
        self._turns += 1
        chosen = self._read(final_answer(action.text))
        terminated = truncated = False
        said, progress = self._ask(), 0.0
        if chosen is not None:
            observed, earned, terminated, truncated, _ = self._made.step(chosen)
            self._return += float(earned)
            progress, self._best = max(0.0, self._share() - self._best), max(self._best, self._share())
            said = self._tell(observed)
        if not (terminated or truncated or self._turns == self._settings.max_turns):
            return Step(messages=({"role": "user", "content": said},), progress=progress)
        await self.close()
        reward = Reward(value=self._share(), parts={"terminated": float(terminated)})
        return Step(progress=progress, reward=reward, ending=EpisodeEnding.DONE if terminated else EpisodeEnding.TURNS)

    async def close(self) -> None:
        """As `Episode.close`."""
        if not self._over:
            self._over = True
            self._made.close()

    def _share(self) -> float:
        """The return so far as a reward."""
        settings = self._settings
        return min(1.0, max(0.0, (self._return - settings.worst) / (settings.best - settings.worst)))

    def _tell(self, observed: Any) -> str:
        if self._made.render_mode == "ansi":
            drawn = _COLOURED.sub(r"[\1]", str(self._made.render()))
            return _ESCAPE.sub("", drawn).strip("\n")
        return tell(observed)

    def _ask(self) -> str:
        """What may be said."""
        spaces, kind = _package().spaces, self._made.action_space
        if self._settings.actions:
            return f"Say one of: {', '.join(self._settings.actions)}."
        if isinstance(kind, spaces.Discrete):
            return f"Say a number from {int(kind.start)} to {int(kind.start + kind.n - 1)}."
        if isinstance(kind, spaces.Text):
            return ""
        return f"Say {math.prod(kind.shape)} numbers, with commas between."

    def _read(self, text: str) -> Any:
        """The action that was said; None if none was."""
        spaces, kind = _package().spaces, self._made.action_space
        if isinstance(kind, spaces.Text):
            return text if kind.contains(text) else None
        if isinstance(kind, spaces.Discrete):
            names = [one.casefold() for one in self._settings.actions]
            if text.casefold() in names:
                return int(kind.start) + names.index(text.casefold())
            # With names, a number is no answer: it would be counted from who knows where.
            found = int(text) if not names and re.fullmatch(r"-?\d{1,9}", text, re.ASCII) else None
            return found if found is not None and kind.contains(found) else None
        return _numbers(text, kind)


def tell(observed: Any) -> str:
    """An observation as text: texts as they are, numbers to four digits, what has parts with commas between.

    >>> tell({"hand": (14, 10, 0), "said": "hit?"})
    'hand: 14, 10, 0\\nsaid: hit?'
    """
    if isinstance(observed, str):
        return observed
    if isinstance(observed, Mapping):
        return "\n".join(f"{name}: {tell(one)}" for name, one in observed.items())
    if hasattr(observed, "tolist"):  # numpy's arrays and numbers
        return tell(observed.tolist())
    if isinstance(observed, list | tuple):
        return ", ".join(f"({tell(one)})" if isinstance(one, list | tuple) else tell(one) for one in observed)
    return f"{observed:.4g}" if isinstance(observed, float) else str(observed)


def _can_tell(space: Any) -> bool:
    spaces = _package().spaces
    if isinstance(space, spaces.Dict):
        return all(_can_tell(one) for one in space.spaces.values())
    if isinstance(space, spaces.Tuple):
        return all(_can_tell(one) for one in space.spaces)
    if isinstance(space, spaces.Discrete | spaces.Text):
        return True
    numbers = isinstance(space, spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary)
    return numbers and math.prod(space.shape) <= MOST_NUMBERS


def _numbers(text: str, space: Any) -> Any:
    """Numbers in a row as an element of the space; None for anything else."""
    import numpy as np

    try:
        said = [float(one) for one in text.replace(",", " ").split()]
    except ValueError:
        return None
    if len(said) != math.prod(space.shape) or not all(abs(one) < MOST_NUMBER for one in said):
        return None
    found = np.array(said).reshape(space.shape)
    made = found.astype(space.dtype)
    whole = not np.issubdtype(space.dtype, np.floating)
    return made if space.contains(made) and not (whole and np.any(made != found)) else None


@cache
def _package() -> Any:
    try:
        import gymnasium
    except ImportError as error:
        raise Invalid("this environment needs Gymnasium: pip install 'dayjob[gymnasium]'", param="env") from error
    return gymnasium
