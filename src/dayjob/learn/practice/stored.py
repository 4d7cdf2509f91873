"""Trajectories as bytes: what a buffer holds and a checkpoint keeps.

A turn's prompt mostly goes on from the turn before: prompt, answer, what was said to it. What it shares with that is
stored once, so a hundred turns take the room of their text and not of its square.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from typing import Any

from dayjob.endings import Damaged, EpisodeEnding
from dayjob.records import Json, Trajectory, Turn


def pack(trajectories: Sequence[Trajectory]) -> bytes:
    """Attempts as bytes; numbers come back as they were, to the last bit."""
    return zlib.compress(json.dumps([_packed(one) for one in trajectories], separators=(",", ":")).encode(), 1)


def unpack(data: bytes) -> tuple[Trajectory, ...]:
    """The inverse of :func:`pack`. Raises Damaged for anything else."""
    try:
        return tuple(_unpacked(one) for one in json.loads(zlib.decompress(data)))
    except (zlib.error, ValueError, KeyError, TypeError, IndexError) as error:
        raise Damaged(f"these are no stored trajectories ({error}): delete the checkpoint and begin anew") from error


def _packed(one: Trajectory) -> Json:
    turns: list[Json] = []
    before: tuple[int, ...] = ()
    for turn in one.turns:
        shared = _shared(before, turn.prompt_ids)
        names = list(dict.fromkeys(turn.versions))
        turns.append({
            "shared": shared, "prompt": turn.prompt_ids[shared:], "tokens": turn.token_ids, "logprobs": turn.logprobs,
            "names": names, "versions": [names.index(name) for name in turn.versions], "text": turn.text,
            "reward": turn.reward,
        })  # fmt: skip
        before = (*turn.prompt_ids, *turn.token_ids)
    return {
        "spec": one.spec, "seed": one.seed, "group": one.group, "turns": turns, "messages": one.messages,
        "reward": one.reward, "parts": one.parts, "ending": one.ending.value,
        "error": one.error,
    }  # fmt: skip


def _unpacked(one: Any) -> Trajectory:
    turns: list[Turn] = []
    before: tuple[int, ...] = ()
    for turn in one["turns"]:
        prompt = (*before[: turn["shared"]], *turn["prompt"])
        names = turn["names"]
        turns.append(
            Turn(
                prompt_ids=prompt, token_ids=tuple(turn["tokens"]), logprobs=tuple(turn["logprobs"]),
                versions=tuple(names[place] for place in turn["versions"]), text=turn["text"], reward=turn["reward"],
            )
        )  # fmt: skip
        before = (*prompt, *turns[-1].token_ids)
    return Trajectory(
        spec=one["spec"], seed=one["seed"], group=one["group"], turns=tuple(turns), messages=tuple(one["messages"]),
        reward=one["reward"], parts=tuple((name, value) for name, value in one["parts"]),
        ending=EpisodeEnding(one["ending"]), error=one["error"],
    )  # fmt: skip


def _shared(before: Sequence[int], ids: Sequence[int]) -> int:
    """How many tokens at their beginnings are the same."""
    pairs = zip(before, ids, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(before), len(ids)))
