"""What nobody should be paid for: silence, an echo of the request, *yes*, words of the request.

Each is said again, turn after turn, until the episode ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from dayjob.practice.environments.program import Program
from dayjob.practice.protocol import Action, Episode
from dayjob.records import Json

PAID = 0.1  # mean reward above which it is paid
WAYS = ("silence", "an echo of the request", "saying yes", "noise", "a single word of the request")
Say = Callable[[], str]


def say(way: str, messages: Sequence[Json], *, seed: int) -> Say:
    """What is said turn by turn on a task that begins with ``messages``."""
    asked = " ".join(str(one["content"]) for one in messages if one["role"] == "user")
    known = asked.split() or ["yes"]
    rng = Random(f"idle {seed}")
    said: dict[str, Say] = {
        "silence": lambda: "",
        "an echo of the request": lambda: asked,
        "saying yes": lambda: "yes",
        "noise": lambda: " ".join(rng.choices(known, k=rng.randrange(1, 6))),
        "a single word of the request": lambda: known[-1],
    }
    return said[way]


async def earned(program: Program, seed: int, *, way: str) -> float:
    """The reward of one episode in which nothing else is said. Raises ProgramFault."""
    episode = program.reset(seed)
    try:
        return await _to_the_end(episode, say(way, episode.task.messages, seed=seed))
    finally:
        await episode.close()


async def _to_the_end(episode: Episode, said: Say) -> float:
    for _ in range(episode.task.max_turns):
        step = await episode.step(Action(text=said()))
        if step.reward is not None:
            return step.reward.value
    return 0.0


async def paid(program: Program, seeds: Sequence[int]) -> tuple[str, float]:
    """(what is wrong, "" where nothing is; the most that any way earned on a task)."""
    best = 0.0
    for way in WAYS:
        rewards = []
        for seed in seeds:
            rewards.append(await earned(program, seed, way=way))
            best = max(best, rewards[-1])
            if rewards[-1] == 1.0:
                return f"{way} solves a task", best
        mean = sum(rewards) / max(1, len(rewards))
        if mean > PAID:
            return f"{way} earns {mean:.2f} on average, and {PAID:g} is the most", best
    return "", best
