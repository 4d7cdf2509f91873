"""Tasks, steps and trajectories as JSON and back: between processes, and on disk."""

from __future__ import annotations

from typing import Any

from dayjob.endings import EpisodeEnding
from dayjob.practice.protocol import Reward, Step, Task
from dayjob.records import Json, Trajectory, Turn


def task_json(task: Task) -> Json:
    """A task as JSON."""
    return {
        "messages": list(task.messages),
        "tools": list(task.tools),
        "max_turns": task.max_turns,
        "answer_tokens": task.answer_tokens,
    }


def task_of(read: Json) -> Task:
    """The inverse of :func:`task_json`."""
    return Task(
        messages=tuple(read["messages"]), tools=tuple(read["tools"]), max_turns=read["max_turns"],
        answer_tokens=read["answer_tokens"],
    )  # fmt: skip


def step_json(step: Step) -> Json:
    """A step as JSON; what is left out has its default."""
    found: Json = {"messages": list(step.messages), "progress": step.progress}
    if step.reward is not None:
        found |= {"reward": step.reward.value, "parts": dict(step.reward.parts)}
    if step.ending is not None:
        found["ending"] = step.ending.value
    return found


def step_of(read: Json) -> Step:
    """The inverse of :func:`step_json`."""
    ending = read.get("ending")
    return Step(
        messages=tuple(read["messages"]), progress=read["progress"],
        reward=Reward(value=read["reward"], parts=read["parts"]) if "reward" in read else None,
        ending=None if ending is None else EpisodeEnding(ending),
    )  # fmt: skip


def trajectory_json(one: Trajectory) -> Json:
    """A trajectory as JSON."""
    turns = [
        {"prompt_ids": list(turn.prompt_ids), "token_ids": list(turn.token_ids), "logprobs": list(turn.logprobs),
         "versions": list(turn.versions), "text": turn.text, "reward": turn.reward}
        for turn in one.turns
    ]  # fmt: skip
    return {
        "spec": one.spec, "seed": one.seed, "group": one.group, "turns": turns, "messages": list(one.messages),
        "reward": one.reward, "parts": dict(one.parts), "ending": one.ending.value, "error": one.error,
    }  # fmt: skip


def trajectory_of(read: Json) -> Trajectory:
    """The inverse of :func:`trajectory_json`."""
    return Trajectory(
        spec=read["spec"], seed=read["seed"], group=read["group"], turns=tuple(map(_turn_of, read["turns"])),
        messages=tuple(read["messages"]), reward=read["reward"], parts=tuple(read["parts"].items()),
        ending=EpisodeEnding(read["ending"]), error=read["error"],
    )  # fmt: skip


def _turn_of(read: Any) -> Turn:
    return Turn(
        prompt_ids=tuple(read["prompt_ids"]), token_ids=tuple(read["token_ids"]), logprobs=tuple(read["logprobs"]),
        versions=tuple(read["versions"]), text=read["text"], reward=read["reward"],
    )  # fmt: skip
