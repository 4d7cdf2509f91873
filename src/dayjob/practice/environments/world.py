"""An imagined application: a model of it says what it would answer, as far as that model is known to be right.

Nothing here is real, and everything says so: each message that was imagined carries ``"imagined": true`` (so that it is
never taken for a recording; chat templates do not show it), the reward's parts hold ``imagined`` 1, and the spec names
the model. Past ``horizon`` imagined answers the model is not trusted: the episode is cut there, with the model's own
estimate of success as its reward and ``over`` 0 among the parts (H-step value expansion: Feinberg et al., 2018; the
truncated rollouts of MBPO: Janner et al., NeurIPS 2019).

What answers is a `Responder`, which whoever assembles puts into force with :func:`answering`. A spec carries only its
digest, so that an imagined episode is never played against another model than the one it names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from dayjob.endings import EpisodeEnding, Invalid
from dayjob.practice.calls import read_calls
from dayjob.practice.protocol import Action, Mutation, Reward, Step, Task
from dayjob.practice.questions import check_seed
from dayjob.records import Json

IMAGINED = "imagined"  # the key of a message that no real application said
_MOST_TURNS = 1000
_answering: dict[str, Responder] = {}


class Responder(Protocol):
    """What would the application say? Safe to ask for many episodes at once; holds nothing of any of them."""

    @property
    def digest(self) -> str:
        """Of everything that decides what is said: equal digests, equal answers."""
        ...

    async def respond(self, messages: Sequence[Json], *, seed: int) -> str | None:
        """The answer to the last thing the actor did; None: the episode is over."""
        ...

    async def success(self, messages: Sequence[Json]) -> float:
        """The probability, in [0, 1], that an episode that stands here ends well."""
        ...


@contextmanager
def answering(responder: Responder) -> Iterator[str]:
    """Let environments that name this responder's digest reach it, for as long as this lasts; gives the digest.

    Raises Invalid where another one answers under that digest already.
    """
    name = responder.digest
    if name in _answering:
        raise Invalid(f"a world model answers as {name} already: leave its context first", param="model")
    _answering[name] = responder
    try:
        yield name
    finally:
        del _answering[name]


def real(messages: Sequence[Json]) -> list[Json]:
    """The messages as the application and its actors know them: without the mark of imagination."""
    return [{key: value for key, value in one.items() if key != IMAGINED} for one in messages]


def derived(seed: int, *path: int) -> int:
    """64 bits that depend on nothing but the numbers given."""
    text = ",".join(map(str, (seed, *path)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


async def imagine(
    responder: Responder, messages: Sequence[Json], *, text: str, seed: int
) -> tuple[list[Json], bool]:  # fmt: skip
    """(what the application would say to ``text`` behind ``messages``, marked; whether the episode is over then).

    As many messages as the action makes calls, one where it makes none.
    """
    history = [*real(messages), {"role": "assistant", "content": text}]
    said: list[Json] = []
    for number in range(max(1, len(read_calls(text)))):
        answer = await responder.respond([*history, *real(said)], seed=derived(seed, number))
        if answer is None:
            return said, True
        said.append({"role": "tool", "content": answer, IMAGINED: True})
    return said, False


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Tasks that were really set, in an imagined application.

    ``tasks`` are ``{"messages": [...], "tools": [...]}``, as they were recorded; seed s sets task s modulo their
    number.
    Raises Invalid for no task, a task without messages, an imagined one, or a horizon below 1.
    """

    model: str  # the digest of the responder
    tasks: Sequence[Mapping[str, object]]
    horizon: int  # answers of one episode that are believed
    max_turns: int = 8
    answer_tokens: int = 64

    def __post_init__(self) -> None:
        if not self.tasks:
            raise Invalid("an imagined application needs tasks: give some that were really set", param="tasks")
        for number, task in enumerate(self.tasks):
            messages = _messages(task.get("messages"))
            if not messages:
                raise Invalid(f"task {number} has no messages: give those it was set with", param="tasks")
            if any(IMAGINED in one for one in messages):
                raise Invalid(f"task {number} was imagined: take tasks that were really set", param="tasks")
        if self.horizon < 1:
            message = f"horizon is {self.horizon}: a world model that is believed for no step has nothing to say"
            raise Invalid(message, param="horizon")
        if not 1 <= self.max_turns <= _MOST_TURNS or self.answer_tokens < 1:
            raise Invalid(f"max_turns is 1 to {_MOST_TURNS}, answer_tokens 1 or more", param="max_turns")

    @property
    def spec(self) -> Json:
        """What `practice.registry.make` makes an equal one from."""
        tasks = [{key: _messages(value) for key, value in task.items()} for task in self.tasks]
        return {
            "env": "world", "model": self.model, "tasks": tasks,
            "horizon": self.horizon, "max_turns": self.max_turns, "answer_tokens": self.answer_tokens,
        }  # fmt: skip

    def reset(self, seed: int) -> ImaginedEpisode:
        """The task of this seed. Raises Invalid where no world model of this digest answers."""
        if self.model not in _answering:
            message = f"no world model answers as {self.model}: open it with practice.environments.world.answering"
            raise Invalid(message, param="model")
        found = self.tasks[check_seed(seed) % len(self.tasks)]
        task = Task(
            messages=tuple(_messages(found["messages"])), tools=tuple(_messages(found.get("tools"))),
            max_turns=self.max_turns, answer_tokens=self.answer_tokens,
        )  # fmt: skip
        return ImaginedEpisode(task, _answering[self.model], horizon=self.horizon, seed=seed)

    def reference(self, seed: int) -> Sequence[Action]:  # noqa: ARG002  # the protocol's
        """None: in an imagined application nothing is known to be a solution."""
        return ()

    def mutations(self) -> Sequence[Mutation]:
        """None."""
        return ()


class ImaginedEpisode:
    """One attempt in an imagined application."""

    def __init__(self, task: Task, responder: Responder, *, horizon: int, seed: int) -> None:
        self._task = task
        self._responder = responder
        self._horizon = horizon
        self._seed = seed
        self._messages: list[Json] = list(task.messages)
        self._turns = 0
        self._answers = 0
        self._ended = False

    @property
    def task(self) -> Task:
        """What it began with."""
        return self._task

    async def step(self, action: Action) -> Step:
        """What the application would say. Raises Invalid after the ending."""
        if self._ended:
            raise Invalid("this episode is over: begin another with reset", param="action")
        said, over = await imagine(
            self._responder, self._messages, text=action.text, seed=derived(self._seed, self._turns)
        )
        self._messages += [{"role": "assistant", "content": action.text}, *said]
        self._turns += 1
        self._answers += len(said)
        if not (over or self._answers >= self._horizon or self._turns >= self._task.max_turns):
            return Step(messages=tuple(said))
        self._ended = True
        value = min(1.0, max(0.0, await self._responder.success(real(self._messages))))
        parts = {"imagined": 1.0, "over": float(over)}
        ending = EpisodeEnding.DONE if over else EpisodeEnding.TURNS
        return Step(reward=Reward(value=value, parts=parts), ending=ending)

    async def close(self) -> None:
        """Nothing is held; no step follows."""
        self._ended = True


def _messages(found: object) -> list[Json]:
    """A list of messages or tools out of JSON. Raises Invalid for anything else."""
    if found is None:
        return []
    if not isinstance(found, list | tuple) or not all(isinstance(one, Mapping) for one in found):
        raise Invalid("messages and tools are lists of objects, in OpenAI's shape", param="tasks")
    return [dict(one) for one in found]
