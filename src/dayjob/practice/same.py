"""Which tasks are the same: by what they say and how they are solved, whatever seed they come from."""

from __future__ import annotations

import hashlib
import json

from dayjob.practice.protocol import Environment
from dayjob.records import Json


async def begun(environment: Environment, seed: int) -> tuple[tuple[Json, ...], str]:
    """(how the task of a seed begins, its hash: of that and its solution, or of the seed where none is known)."""
    episode = environment.reset(seed)
    try:
        said = tuple(dict(one) for one in episode.task.messages)
    finally:
        await episode.close()
    solution = [one.text for one in environment.reference(seed)] or [str(seed)]
    return said, hashlib.blake2b(json.dumps([said, solution], sort_keys=True).encode(), digest_size=12).hexdigest()


async def task_of(environment: Environment, seed: int) -> str:
    """What a task is, hashed: how it begins and how it is solved, or its seed where no solution is known."""
    _, found = await begun(environment, seed)
    return found
