"""Answering one chat: the places it takes, the stream it may be, and its record whichever way it ends."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field

from dayjob.endings import Conflict, DayjobError, Erased, Overloaded, Receipt
from dayjob.journal.writes import append_decision
from dayjob.records import Choice, Decision, Written
from dayjob.serve.call import Service, failure
from dayjob.serve.chat_answer import choice_logprobs, closing, generation_of, opening, piece
from dayjob.serve.chat_write import Writing

log = logging.getLogger("dayjob.serve")
STOPPING = "the server is stopping: ask again in a moment"


@dataclass(slots=True, kw_only=True)
class Answering:
    """One answer under way. Whoever makes one closes it: then its places are free, and what was shown is journaled.

    Raises Overloaded when there is no place.
    """

    service: Service
    writing: Writing
    with_usage: bool
    land: Callable[[], None]  # called once when it is over
    shown: bool = False  # somebody saw a part of it, or went away while it was written
    _pieces: AsyncGenerator[tuple[int, Choice], None] = field(init=False)
    _waiting: list[tuple[int, Choice]] = field(init=False, default_factory=list)
    _kept: bool = field(init=False, default=False)
    _over: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.service.voices.take(len(self.writing.drafts))
        self._pieces = self.writing.pieces()

    async def begin(self) -> None:
        """Wait for the first piece, which `events` tells first. Raises what the engine raises."""
        self._waiting.append(await anext(self._pieces))

    async def whole(self) -> Decision:
        """Write all of it, and make it durable."""
        async for _ in self._pieces:
            pass
        return await self._keep()

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The stream. Its last chunks come after the decision is durable; a fault becomes an event of its own."""
        self.shown = True
        blank = self.writing.blank
        try:
            for index in range(len(self.writing.drafts)):
                yield opening(blank, index)
            for index, added in self._waiting:
                for event in self._tell(index, added):
                    yield event
            async for index, added in self._pieces:
                for event in self._tell(index, added):
                    yield event
            decision = await self._keep()
        except Exception as error:
            yield b"data: " + bytes(failure(error).body) + b"\n\n"
            return
        for event in closing(decision, with_usage=self.with_usage):
            yield event

    def _tell(self, index: int, added: Choice) -> Iterator[bytes]:
        """The event of a piece; none where it has nothing to show yet."""
        sampling = generation_of(self.writing.blank).sampling
        told = choice_logprobs(added, sampling, tokens=self.writing.voice.base.tokens)
        if added.text or told is not None:
            yield piece(self.writing.blank, index, text=added.text, logprobs=told)

    async def _keep(self) -> Decision:
        """Make the finished decision durable."""
        if self.writing.cut_short:
            raise Overloaded(STOPPING)
        decision = self.writing.decision()
        written: Written = await self.service.hub.store.asubmit(lambda tx: append_decision(tx, decision, ()))
        if written.receipt is Receipt.CONFLICT:
            raise Conflict(written.message)
        if written.receipt is Receipt.ERASED:
            raise Erased(written.message)
        self._kept = True
        return written.first or decision

    async def close(self) -> None:
        """End it. What was shown of an answer that has no proper end is journaled as aborted."""
        if self._over:
            return
        self._over = True
        kept: asyncio.Future[Written] | None = None
        if self.shown and not self._kept and any(draft.token_ids for draft in self.writing.drafts):
            decision = self.writing.decision()
            with contextlib.suppress(DayjobError):  # nobody is left to be told
                kept = self.service.hub.store.asubmit(lambda tx: append_decision(tx, decision, ()))
        try:
            await self._pieces.aclose()
            if kept is not None:
                await kept
        except DayjobError as error:
            log.warning("an answer that was cut short could not be journaled: %s", error)
        finally:
            self.service.voices.give(len(self.writing.drafts))
            self.land()


@dataclass(frozen=True, slots=True)
class Replay:
    """A stream whose events are known already."""

    known: Sequence[bytes]

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The events."""
        for event in self.known:
            yield event

    async def close(self) -> None:
        """Nothing to end."""
