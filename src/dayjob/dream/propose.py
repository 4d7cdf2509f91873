"""Proposals: what an author hands in, and what it may cost."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dayjob.dream.excerpts import Excerpt
from dayjob.endings import Invalid


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A program that nobody has proved yet."""

    name: str
    source: str
    author: str

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the program."""
        return hashlib.sha256(self.source.encode("utf-8", "replace")).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What an author may spend on one dream. Raises Invalid for what is nothing."""

    programs: int = 4  # at most, that are handed in
    calls: int = 8  # of a model
    tokens: int = 60_000  # that a model may write, over all calls
    seconds: float = 600.0

    def __post_init__(self) -> None:
        for name in ("programs", "calls", "tokens", "seconds"):
            if getattr(self, name) <= 0:
                raise Invalid(f"{name} is {getattr(self, name)}: an author needs more than nothing", param=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposed:
    """What came of asking an author: programs, what it cost, and why there are no more of them."""

    proposals: tuple[Proposal, ...] = ()
    calls: int = 0
    tokens: int = 0
    seconds: float = 0.0
    faults: tuple[str, ...] = ()


class Author(Protocol):
    """Writes programs from excerpts. Never raises for what a model says or does not say: its faults are told."""

    async def propose(self, excerpts: Sequence[Excerpt], *, allowance: Allowance) -> Proposed: ...
