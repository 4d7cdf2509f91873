"""What no dream may rehearse: the questions by which its version is judged, or stopped, in whatever program they turn
up. An author that never read one may still write it: it knows the words of one conversation and the names of another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence

from dayjob.dream.apart import Apart
from dayjob.dream.excerpts import Excerpt
from dayjob.learn.language.collect import Gathered
from dayjob.learn.language.splits import Key, key_of
from dayjob.memory.lessons import last_question
from dayjob.memory.words import topic
from dayjob.records import Json

Words = tuple[str, ...]


def held_keys(found: Gathered) -> set[Key]:
    """Of the conversations that the exam asks, or early stopping reads."""
    return {key_of(one) for one in _held(found)}


def held_words(found: Gathered) -> frozenset[Words]:
    """What those ask last, in words."""
    return frozenset(topic(last_question(one)) for one in _held(found)) - {()}


def _held(found: Gathered) -> Iterable[tuple[Json, ...]]:
    split = found.split
    yield from (tuple(one.lesson.question) for one in (*split.exam, *split.stop))
    yield from (tuple(one.question) for one in (*split.exam_traffic, *split.stop_traffic))


def apart_of(found: Gathered, excerpts: Sequence[Excerpt]) -> Apart:
    """For the programs of this layer. The key is drawn from the whole record: equal journals rehearse equal tasks, and
    no author has read what was kept from it."""
    held = held_words(found)
    told = json.dumps([[list(one.messages), one.right] for one in excerpts], sort_keys=True)
    mark = hashlib.sha256(json.dumps(sorted(held)).encode()).hexdigest()
    return Apart(
        key=hashlib.sha256(f"{mark} {told}".encode()).hexdigest(), asked=lambda messages: says(messages, held),
        mark=mark,
    )  # fmt: skip


def says(messages: Sequence[Json], held: Collection[Words]) -> bool:
    """Whether a message of a user asks one of these: whole, or in the midst of more.

    A single word is enough where it has a digit, as names of things do; else it has to be the whole message.
    """
    sizes = {len(one) for one in held}
    for one in messages:
        words = topic(str(one["content"])) if one["role"] == "user" else ()
        for size in sizes:
            for at in range(len(words) - size + 1):
                part = words[at : at + size]
                if part in held and (size > 1 or part == words or any(map(str.isdigit, part[0]))):
                    return True
    return False
