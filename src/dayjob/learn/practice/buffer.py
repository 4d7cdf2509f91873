"""The replay buffer: groups of attempts, each stamped with the versions that made it, and who may make more.

**Nothing is dropped for being late.** A group waits until its slowest attempt has ended, and it is learned from however
far the weights moved on meanwhile: what to make of its age is the correction's business. Dropping what is too old would
favour short episodes, for those are never old. Instead sampling is *paced*: a new group is begun only while those that
were begun and not yet learned from are fewer than ``ahead`` + 1 steps' worth (the bound of AReaL, Fu et al., 2025), so
an episode of ordinary length is at most ``ahead`` updates old when it is learned from. A full buffer slows the actors
down in the same way.

Safe to use from the actors' thread and the learner's at once.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt

from dayjob.endings import EpisodeEnding
from dayjob.learn.practice.stored import pack, unpack
from dayjob.records import Json, Trajectory

PREFIX = "update-"  # of the versions that a course makes
_ROUNDS = 4  # steps' worth of groups that came to nothing, after which the environment is at fault
UNLEARNED = (EpisodeEnding.FAILED, EpisodeEnding.ABORTED)  # not the actor's doing


def version_name(update: int) -> str:
    """The weights after so many updates. ``version_name(0)``: as the course began."""
    return f"{PREFIX}{update}"


def update_of(version: str) -> int:
    """The inverse; what was made by no version of a course counts as made before it."""
    number = version.removeprefix(PREFIX)
    return int(number) if version.startswith(PREFIX) and number.isdecimal() else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Attempts at one task, and when they were made. ``oldest``: the update whose weights wrote their first token."""

    ticket: int  # groups are numbered as they are begun
    attempts: tuple[Trajectory, ...]
    oldest: int
    uses: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    ticket: int
    oldest: int
    uses: int
    data: bytes


class ReplayBuffer:
    """Groups that are to be learned from ``reuse`` times each."""

    def __init__(self, *, per_step: int, ahead: int, reuse: int = 1) -> None:
        """``per_step``: groups that a step learns from; ``ahead``: steps by which sampling may be ahead of learning."""
        assert min(per_step, reuse) > 0 <= ahead
        self._per_step, self._ahead, self._reuse = per_step, ahead, reuse
        self._changed = threading.Condition()
        self._held: dict[int, _Held] = {}
        self._begun = 0  # tickets given out
        self._settled = 0  # of them, those learned from, or that came to nothing
        self._empty = 0  # of them, those that came to nothing since a step last took groups
        self._fault = ""  # of one of them
        self._closed = False

    # ---- the actors' side

    def ticket(self) -> int | None:
        """The number of a group to begin; None where it is not time yet, the environment is at fault, or the buffer was
        closed."""
        with self._changed:
            if self._closed or self._is_at_fault() or self._begun - self._settled >= self._per_step * (self._ahead + 1):
                return None
            self._begun += 1
            return self._begun - 1

    def add(self, ticket: int, attempts: Sequence[Trajectory]) -> None:
        """A group whose attempts have all ended. Those whose environment failed teach nothing; neither does a group of
        nothing else."""
        sound = tuple(one for one in attempts if one.turns and one.ending not in UNLEARNED)
        with self._changed:
            if sound:
                oldest = min(update_of(name) for one in sound for turn in one.turns for name in turn.versions or ("",))
                self._held[ticket] = _Held(ticket=ticket, oldest=oldest, uses=0, data=pack(sound))
            else:
                self._settled += 1
                self._empty += 1
                self._fault = next((one.error for one in attempts if one.error), self._fault)
            self._changed.notify_all()

    # ---- the learner's side

    def take(self, timeout_s: float) -> list[Group]:
        """A step's groups: the least used first, then the oldest ticket; nothing where there are not enough in time, or
        will never be, for the environment is at fault.
        Those taken for the ``reuse``-th time leave the buffer."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_at_fault() or len(self._held) >= self._per_step, timeout_s)
            if len(self._held) < self._per_step:
                return []
            chosen = sorted(self._held.values(), key=lambda one: (one.uses, one.ticket))[: self._per_step]
            for one in chosen:
                self._held[one.ticket] = replace(one, uses=one.uses + 1)
                if one.uses + 1 == self._reuse:
                    del self._held[one.ticket]
                    self._settled += 1
            self._empty, self._fault = 0, ""
            self._changed.notify_all()
        return [
            Group(ticket=one.ticket, attempts=unpack(one.data), oldest=one.oldest, uses=one.uses) for one in chosen
        ]  # fmt: skip

    def missing(self) -> int:
        """How many groups a step still lacks."""
        with self._changed:
            return max(0, self._per_step - len(self._held))

    def fault(self) -> str | None:
        """What went wrong in one of them, once so many groups came to nothing since a step last had enough that the
        environment is at fault ("" where it did not say); else None."""
        with self._changed:
            return self._fault if self._is_at_fault() else None

    def _is_at_fault(self) -> bool:
        return self._empty >= _ROUNDS * self._per_step

    def close(self) -> None:
        """Nobody learns any more: no further tickets."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    # ---- for a course that was killed

    def state(self) -> npt.NDArray[np.uint8]:
        """All of it, for a checkpoint. Groups that were begun and not ended are begun again under new tickets."""
        with self._changed:
            held = [
                asdict(one) | {"data": base64.b64encode(one.data).decode()}
                for one in sorted(self._held.values(), key=lambda one: one.ticket)
            ]
            body: Json = {"begun": self._begun, "held": held}
        return np.frombuffer(json.dumps(body).encode(), np.uint8)

    def restore(self, state: npt.NDArray[np.uint8]) -> None:
        """The inverse of :meth:`state`."""
        body = json.loads(state.tobytes())
        with self._changed:
            held = [_Held(**(one | {"data": base64.b64decode(one["data"])})) for one in body["held"]]
            self._held = {one.ticket: one for one in held}
            self._begun = int(body["begun"])
            self._settled = self._begun - len(self._held)
