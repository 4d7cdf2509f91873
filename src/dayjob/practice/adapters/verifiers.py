"""Tasksets of the `verifiers` library (its v1 interface): questions of one answer, scored by the taskset's own rewards.

What is played is a conversation: the task's prompt, one answer, and the rewards that can be told from these two.
Tasksets whose tasks need more (a container or runtime, tool servers, hooks before and after, judges that are models,
images, a user who speaks first) belong to verifiers' own harnesses and are refused here, with what they need.

Scorers are code of the package that holds the taskset and run in this process: install what you trust. A spec can name
only tasksets of packages that declare that they need verifiers, never any other module. Nothing that an answer says is
ever run: tasksets whose scorers' modules pass something to an evaluator are refused, for that something may be the
answer; so are those whose source is not to be had.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import inspect
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import islice
from types import ModuleType
from typing import Any

from dayjob.endings import EpisodeEnding, Invalid
from dayjob.practice.adapters.gym import evaluates_in
from dayjob.practice.protocol import Action, Episode, Mutation, Reward, Step, Task
from dayjob.practice.questions import check_seed, check_whole, spec_of
from dayjob.records import Json

_NAME = re.compile(r"[A-Za-z_][\w-]{0,99}", re.ASCII)
_BUILT_IN = "verifiers.v1.tasksets"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifiers:
    """One installed taskset.

    ``taskset`` is its id, ``config`` its own settings. A task's seed picks one of its first ``most`` tasks. The rewards
    are added up by their weights; a sum of ``best`` is a reward of 1. Raises Invalid where the library or the taskset
    is missing, for settings it refuses, and for tasks that need more than a conversation.
    """

    taskset: str
    config: Json = field(default_factory=dict)
    most: int = 1000
    best: float = 1.0
    answer_tokens: int = 512

    def __post_init__(self) -> None:
        check_whole(self, {"most": (1, 1_000_000), "answer_tokens": (1, 100_000)})
        if isinstance(self.best, bool) or not isinstance(self.best, int | float) or not 0 < self.best < math.inf:
            raise Invalid("best must be a number above 0: the sum of rewards that is full", param="best")
        if not isinstance(self.config, dict) or "id" in self.config:
            raise Invalid("config holds the taskset's own settings, without its id", param="config")
        self._tasks()

    @property
    def spec(self) -> Json:
        return spec_of("verifiers", self)

    def reset(self, seed: int) -> Episode:
        """As `Environment.reset`. Seeds that are equal modulo the number of tasks are one task."""
        tasks = self._tasks()
        return VerifiersEpisode(self, tasks[check_seed(seed) % len(tasks)])

    def reference(self, seed: int) -> Sequence[Action]:
        """None: a taskset says how an answer is scored, not what the answer is."""
        check_seed(seed)
        return ()

    def mutations(self) -> Sequence[Mutation]:
        """None: what its settings mean is not known here."""
        return ()

    def _tasks(self) -> tuple[Any, ...]:
        return _load(self.taskset, json.dumps(self.config, sort_keys=True), self.most)


class VerifiersEpisode:
    """One question."""

    def __init__(self, settings: Verifiers, task: Any) -> None:
        self._settings, self._inner, self._over = settings, task, False
        self._messages = _opening(task.data)
        self._task = Task(messages=self._messages, answer_tokens=settings.answer_tokens)

    @property
    def task(self) -> Task:
        return self._task

    async def step(self, action: Action) -> Step:
        """As `Episode.step`. Parts: the taskset's rewards by name, before their weights; those outside [0, 1] are cut
        off."""
        if self._over:
            raise Invalid("this episode is over: reset for another", param="action")
        self._over = True
        trace = _trace(self._inner, self._messages, answer=action.text.encode("utf-8", "replace").decode())
        await self._inner.score(trace)
        earned = {name: one for name, one in trace.rewards.items() if one is not None}
        reward = Reward(
            value=_within(trace.reward / self._settings.best),
            parts={name: _within(one.score) for name, one in earned.items()},
        )
        return Step(reward=reward, ending=EpisodeEnding.DONE)

    async def close(self) -> None:
        """As `Episode.close`."""
        self._over = True


@lru_cache(maxsize=16)
def _load(name: str, config: str, most: int) -> tuple[Any, ...]:
    """The taskset's first tasks, each known to need no more than a conversation."""
    vf = _package()
    _check_name(name)
    try:
        kind = vf.taskset_config_type(name)
        taskset = vf.load_taskset(kind.model_validate({"id": name, **json.loads(config)}))
        tasks = tuple(islice(taskset, most))
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        message = f"the taskset {name!r} cannot be loaded so: {type(error).__name__}: {error}"
        raise Invalid(message, param="taskset") from None
    needs = ["tool servers"] if taskset.toolsets(taskset.config) else []
    if not tasks:
        raise Invalid(f"the taskset {name!r} has no tasks", param="taskset")
    for task in tasks:
        needs += _needs(task)
        if needs:
            message = f"tasks of {name!r} need {needs[0]}: play them with verifiers' own harness"
            raise Invalid(message, param="taskset")
    return tasks


def _needs(task: Any) -> list[str]:
    """What a task needs beyond a conversation."""
    vf, kind, data = _package(), type(task), task.data
    hooks = [name for name in ("setup", "finalize") if getattr(kind, name) is not getattr(vf.Task, name)]
    scorers = [one for one in task.hooks("reward") if _takes_runtime(one)]
    prompt = data.prompt
    texts = isinstance(prompt, str) or (
        bool(prompt)
        and prompt[-1].role == "user"
        and all(isinstance(one.content, str) and not getattr(one, "tool_calls", None) for one in prompt)
    )
    found = {
        "a container": kind.NEEDS_CONTAINER or data.image is not None,
        "tool servers": bool(kind.toolsets(task.config)),
        "judges that are models": bool(task.config.judges),
        f"a runtime for {', '.join(hooks)}": bool(hooks),
        "a runtime for scoring": bool(scorers),
        "a sandbox for scorers that evaluate": any(evaluates(one) for one in task.hooks("reward")),
        "a prompt of texts that ends with the user": not texts,
        "rewards": not task.hooks("reward"),
    }
    return [need for need, so in found.items() if so]


def evaluates(scorer: Any) -> bool:
    """Whether the module of a scorer passes something to an evaluator, wherever in it; True also where its source is
    not to be had."""
    place = inspect.getmodule(inspect.unwrap(getattr(scorer, "__func__", scorer)))
    try:
        return place is None or _evaluating(place)
    except (OSError, TypeError):
        return True


@cache
def _evaluating(place: ModuleType) -> bool:
    return evaluates_in(inspect.getsource(place))


def _takes_runtime(scorer: Any) -> bool:
    parameter = inspect.signature(scorer).parameters.get("runtime")
    return parameter is not None and parameter.default is inspect.Parameter.empty


def _opening(data: Any) -> tuple[Json, ...]:
    """The task's first messages."""
    said: list[Json] = [{"role": "system", "content": data.system_prompt}] if data.system_prompt else []
    if isinstance(data.prompt, str):
        return (*said, {"role": "user", "content": data.prompt})
    return (*said, *({"role": one.role, "content": one.content} for one in data.prompt))


def _trace(task: Any, messages: Sequence[Json], *, answer: str) -> Any:
    """The conversation as verifiers records one."""
    vf = _package()
    kinds: Mapping[str, Any] = {
        "system": vf.SystemMessage, "user": vf.UserMessage, "assistant": vf.AssistantMessage,
    }  # fmt: skip
    told = [kinds[one["role"]](content=one["content"]) for one in messages]
    nodes = [
        vf.MessageNode(message=one, parent=place - 1 if place else None, sampled=place == len(told))
        for place, one in enumerate([*told, vf.AssistantMessage(content=answer)])
    ]
    record = vf.TraceTask(type=type(task).__name__, data=task.data, key=task.key, hash=task.hash)
    trace = vf.Trace(task=record, agent=vf.AgentInfo(config=vf.AgentConfig()), nodes=nodes)
    trace.is_completed = trace.ok = True
    return trace


def _within(value: float) -> float:
    return min(1.0, max(0.0, float(value))) if math.isfinite(value) else 0.0


def _check_name(name: str) -> None:
    """Raises Invalid unless this names a taskset that ships with verifiers, or a module of a package that needs it."""
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise Invalid("taskset is the name of an installed taskset, such as gsm8k", param="taskset")
    module = name.replace("-", "_").lower()
    if importlib.util.find_spec(f"{_BUILT_IN}.{module}") is not None:
        return
    for holder in importlib.metadata.packages_distributions().get(module, ()):
        needed = importlib.metadata.requires(holder) or ()
        if any(re.match(r"verifiers\b", one) for one in needed):
            return
    raise Invalid(f"no installed package that needs verifiers has a taskset {name!r}", param="taskset")


@cache
def _package() -> Any:
    try:
        import verifiers.v1 as vf
    except ImportError as error:
        raise Invalid("this environment needs verifiers: pip install 'dayjob[verifiers]'", param="env") from error
    return vf
