"""The engine's one thread: it owns the model, and lets requests join and leave the batch between two tokens.

A turn is: take what was asked meanwhile, admit what waits, compute a share of the new prompts, compute one token for
everybody else, deliver. Long prompts are computed in shares, so they delay the others' next token by a bounded amount.
Requests are admitted strictly in order: the first one waits until its adapter is in memory (it is read on a thread of
its own, meanwhile the others go on) and a row is free, and nobody overtakes it.

An answer that moves to another version between two tokens has its keys and values computed anew, so every token's
log-probability is that of its own stamped version on everything before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dayjob.endings import Damaged, DayjobError, Ending, Invalid, NotFound
from dayjob.policies.adapters import Adapter, read_adapter
from dayjob.policies.engine_batch import Batch, Row
from dayjob.policies.engine_cache import PromptCache
from dayjob.policies.engine_jobs import EngineLimits, LoadJob, Running, ScoreJob, Ticket
from dayjob.policies.engine_protocol import Chunk, InFlight, Scored
from dayjob.policies.engine_registry import Registry
from dayjob.policies.engine_sampling import Drawn, draw, uniforms
from dayjob.policies.engine_shelf import Shelf
from dayjob.policies.tokens import TextStream, Tokens


@dataclass(slots=True)
class Counts:
    """What the worker did so far."""

    turns: int = 0
    forwards: int = 0
    tokens: int = 0
    most_rows: int = field(default=0)  # in one forward pass


class Worker:
    """Owns the model from :meth:`start` to :meth:`stop`. Only :meth:`post` may be called from other threads."""

    def __init__(self, batch: Batch, tokens: Tokens, *, limits: EngineLimits) -> None:
        self.counts = Counts()
        self.cache = PromptCache(capacity=limits.prompt_cache_bytes, token_bytes=batch.slots.token_bytes)
        self._batch, self._tokens, self._limits = batch, tokens, limits
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.registry = Registry()
        self.shelf = Shelf(
            lambda ref: read_adapter(ref, batch.adapters.shapes, max_rank=limits.max_rank, device=batch.device),
            room=limits.adapters,
            wake=lambda: self.post(lambda: None),
            forget=batch.adapters.forget,
        )
        self._waiting: deque[Ticket] = deque()
        self._running: list[Running] = []
        self._scores: deque[ScoreJob] = deque()
        self._loads: list[LoadJob] = []
        self._dropped: set[str] = set()  # versions that nobody may ask for, with answers being written by them
        self._outbox: defaultdict[asyncio.AbstractEventLoop, list[tuple[Ticket, Chunk | BaseException]]]
        self._outbox = defaultdict(list)
        self._open = True
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def post(self, command: Callable[[], None]) -> None:
        """Have something done on the worker's thread before the next token."""
        self._commands.put(command)

    def stop(self) -> None:
        """End what is being written as aborted, refuse what waits, and join the thread."""
        self.post(self._close)
        self._thread.join()
        self.shelf.close()

    # Commands: run on the worker's thread.

    def submit(self, ticket: Ticket) -> None:
        """Queue a request; its name must be known."""
        try:
            self.registry.resolve(ticket.version)
        except DayjobError as error:
            self._tell(ticket, error)
        else:
            self._waiting.append(ticket)

    def abort(self, ticket: Ticket) -> None:
        """Free the place of a request that nobody listens to any more; nothing if it ended."""
        with contextlib.suppress(ValueError):
            self._waiting.remove(ticket)
        for row, running in enumerate(self._running):
            if running.ticket is ticket:
                self._leave([row])
                return

    def score(self, job: ScoreJob) -> None:
        """Queue tokens to score; the result can be awaited, no longer cancelled."""
        if job.result.set_running_or_notify_cancel():
            self._scores.append(job)

    def load(self, job: LoadJob) -> None:
        """Read a version and make it known; one that cannot be read leaves no trace."""
        if job.result.set_running_or_notify_cancel():
            self._loads.append(job)

    def point(self, alias: str, adapter: Adapter, *, in_flight: InFlight) -> None:
        """Let an alias mean a version that was read."""
        self.registry.point(alias, adapter.ref)
        if in_flight is InFlight.MOVE:
            for running in self._running:
                if running.ticket.version == alias and running.adapter.ref != adapter.ref:
                    running.adapter, running.computed = adapter, 0
        self._put_out()

    def drop(self, name: str) -> None:
        """Forget a version: out of memory now, or with the end of the last answer that it writes."""
        for load in [load for load in self._loads if load.ref.name == name]:
            self._loads.remove(load)
            load.result.set_exception(NotFound(f"version {name} was dropped while it was read"))
            self.shelf.drop(name)
        self.registry.drop(name)
        self._dropped.add(name)
        self._put_out()

    def forget(self, salt: str) -> None:
        """Put what was computed for prompts of a salt out of memory."""
        for ticket in [*self._waiting, *(running.ticket for running in self._running)]:
            if ticket.prompt.salt == salt:
                ticket.keeps = False
        self.cache.forget(lambda salts: salts[2] == salt)
        self._batch.slots.wipe([running.computed for running in self._running])

    def _put_out(self) -> None:
        """Versions that were dropped and write nothing any more."""
        over = self._dropped - self._in_use()
        self._dropped -= over
        gone = over - self.registry.names().keys()  # else it was loaded again
        for name in gone:
            self.shelf.drop(name)
        if gone:
            self.cache.forget(lambda salts: salts[0] in gone)

    # The thread.

    @torch.inference_mode()
    def _work(self) -> None:
        idle = True
        while self._open:
            try:
                self._take_commands(wait=idle)
                idle = not self._turn()
            except Exception as error:  # a failed pass ends the answers in it, not the engine
                for running in self._running:
                    self._tell(running.ticket, error)
                self._running.clear()
                self._put_out()
            self._deliver()

    def _take_commands(self, *, wait: bool) -> None:
        with contextlib.suppress(queue.Empty):
            if wait:
                self._commands.get()()
            while True:
                self._commands.get_nowait()()

    def _turn(self) -> bool:
        """Whether anything was computed; otherwise only another command can change anything."""
        self.counts.turns += 1
        self._loads = [job for job in self._loads if not self._loaded(job)]
        self._admit()
        scored = self._score_one()
        new = [row for row, running in enumerate(self._running) if running.missing > 1]
        old = [row for row, running in enumerate(self._running) if running.missing == 1]
        # Everybody gets an equal part: rows of like lengths waste little on fillers.
        part = max(1, self._limits.prompt_share // max(1, len(new)))
        ended = [row for rows in (new, old) if rows for row in self._pass(rows, part)]
        self._leave(ended)
        return scored or bool(new or old)

    def _loaded(self, job: LoadJob) -> bool:
        try:
            self.registry.check(job.ref)
            adapter = self.shelf.take(job.ref, in_use=self._in_use())
            if adapter is None:
                return False
            self.registry.know(job.ref)
            job.then(adapter)
        except DayjobError as error:
            job.result.set_exception(error)
        else:
            job.result.set_result(None)
        return True

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self._limits.slots:
            ticket = self._waiting[0]
            try:
                adapter = self.shelf.take(self.registry.resolve(ticket.version), in_use=self._in_use())
            except DayjobError as error:
                self._tell(self._waiting.popleft(), error)
                continue
            if adapter is None:
                return
            self._waiting.popleft()
            self._join(ticket, adapter)

    def _join(self, ticket: Ticket, adapter: Adapter) -> None:
        ids = list(ticket.prompt.token_ids)
        running = Running(
            ticket=ticket,
            adapter=adapter,
            ids=ids,
            computed=0,
            uniform=uniforms(ticket.sampling.seed, min(ticket.sampling.max_tokens, self._limits.context_tokens)),
            text=TextStream(self._tokens, stop=ticket.sampling.stop),
            cached=0,
        )
        blocks = self.cache.find(ids, salt=running.salt())
        if blocks:
            self._batch.slots.reserve(len(ids))
        for block in blocks:
            self._batch.slots.write(len(self._running), running.computed, block=block)
            running.computed += block.shape[2]
        running.cached = running.computed
        self._running.append(running)

    def _pass(self, rows: list[int], part: int) -> list[int]:
        """Compute up to ``part`` tokens of each row; draw for those that have no more. The rows that ended."""
        batch = []
        for row in rows:
            one = self._running[row]
            ids = one.ids[one.computed : one.computed + part]
            batch.append(Row(row=row, token_ids=ids, start=one.computed, adapter=one.adapter))
        logit_BV = self._batch.forward(batch)
        self.counts.forwards += 1
        self.counts.most_rows = max(self.counts.most_rows, len(rows))
        for row, computed in zip(rows, batch, strict=True):
            one = self._running[row]
            one.computed += len(computed.token_ids)
            if one.written == 0 and one.missing == 0 and one.ticket.keeps:
                self.cache.keep(one.ids, self._batch.slots, row=row, salt=one.salt())
        ready = [place for place, row in enumerate(rows) if self._running[row].missing == 0]
        if not ready:
            return []
        return self._draw([rows[place] for place in ready], logit_BV if len(ready) == len(rows) else logit_BV[ready])

    def _draw(self, rows: list[int], logit_BV: Tensor) -> list[int]:
        finite = torch.isfinite(logit_BV).all(dim=1).tolist()
        ended = [row for row, good in zip(rows, finite, strict=True) if not good]
        for row in ended:
            one = self._running[row]
            one.computed = 0  # nothing of it is worth keeping
            name = one.adapter.ref.name
            self._tell(one.ticket, Damaged(f"version {name} gives logits that are not finite: roll back to another"))
        if ended:
            logit_BV = logit_BV[torch.tensor(finite, device=logit_BV.device)]
            rows = [row for row in rows if row not in ended]
        if not rows:
            return ended
        running = [self._running[row] for row in rows]
        drawn = draw(
            logit_BV,
            temperature_B=[one.ticket.sampling.temperature for one in running],
            top_p_B=[one.ticket.sampling.top_p for one in running],
            uniform_B=[float(one.uniform[one.written]) for one in running],
            top=[one.ticket.sampling.top_logprobs for one in running],
        )
        return ended + [row for place, row in enumerate(rows) if self._write(running[place], drawn, place)]

    def _write(self, one: Running, drawn: Drawn, place: int) -> bool:
        """Add a drawn token to an answer and tell it. Whether the answer ended."""
        token, sampling = drawn.token_B[place], one.ticket.sampling
        one.ids.append(token)
        one.written += 1
        self.counts.tokens += 1
        ending: Ending | None = None
        text = ""
        if token in self._tokens.end_ids:
            ending = Ending.STOP
        else:
            text = one.text.push(token)
            if one.text.stopped:
                ending = Ending.STOP
            elif one.written == sampling.max_tokens or len(one.ids) >= self._limits.context_tokens:
                ending = Ending.LENGTH
        if ending is not None:
            text += one.text.finish()
        chunk = Chunk(
            token_ids=(token,),
            model_logprobs=(drawn.model_logp_B[place],),
            sample_logprobs=(drawn.sample_logp_B[place],),
            versions=(one.adapter.ref.name,),
            top_logprobs=(drawn.top_B[place],),
            text=text,
            ending=Ending.STOP if one.text.stopped else ending,
            cached_tokens=one.cached if one.written == 1 else 0,
        )
        self._tell(one.ticket, chunk)
        return ending is not None

    def _leave(self, rows: list[int]) -> None:
        """Take rows out of the batch; the last ones move into their places."""
        for row in sorted(rows, reverse=True):
            one = self._running[row]
            if one.ticket.keeps:
                self.cache.keep(one.ids[: one.computed], self._batch.slots, row=row, salt=one.salt())
            last = self._running[-1]
            if last is not one:
                self._batch.slots.move(len(self._running) - 1, row, length=last.computed)
                self._running[row] = last
            self._running.pop()
            if not one.ticket.keeps:
                self._batch.slots.wipe([running.computed for running in self._running])
        self._put_out()

    def _score_one(self) -> bool:
        """Compute a share of what is to be scored, so that it delays the others' next token no more than a prompt."""
        if not self._scores:
            return False
        job = self._scores[0]
        try:
            if job.begun is None:
                adapter = self.shelf.take(self.registry.resolve(job.version), in_use=self._in_use())
                if adapter is None:
                    return False
                job.begun = adapter, self._batch.begin_score(job.token_ids, job.start, top=job.top)
            adapter, scoring = job.begun
            if not self._batch.go_on(scoring, adapter=adapter, part=self._limits.prompt_share):
                return True
        except Exception as error:  # what fails here is this job's alone
            job.result.set_exception(error)
        else:
            found = Scored(
                model_logprobs=tuple(scoring.logprobs), top_logprobs=tuple(scoring.tops), version=adapter.ref.name
            )
            job.result.set_result(found)
        self._scores.popleft()
        self._put_out()
        return True

    def _in_use(self) -> set[str]:
        scored = {job.begun[0].ref.name for job in self._scores if job.begun is not None}
        return scored | {running.adapter.ref.name for running in self._running}

    def _tell(self, ticket: Ticket, item: Chunk | BaseException) -> None:
        self._outbox[ticket.loop].append((ticket, item))

    def _deliver(self) -> None:
        """One call into each event loop, for everything of a turn."""
        for loop, items in self._outbox.items():
            try:
                loop.call_soon_threadsafe(_put, items)
            except RuntimeError:  # its loop was closed: nobody listens
                for ticket, _ in items:
                    self.abort(ticket)
        self._outbox.clear()

    def _close(self) -> None:
        nothing = Chunk(
            token_ids=(),
            model_logprobs=(),
            sample_logprobs=(),
            versions=(),
            top_logprobs=(),
            text="",
            ending=Ending.ABORTED,
        )
        for ticket in [*(running.ticket for running in self._running), *self._waiting]:
            self._tell(ticket, nothing)
        closed = Invalid("the engine was closed")
        for score in self._scores:
            score.result.set_exception(closed)
        for load in self._loads:
            load.result.set_exception(closed)
        self._running.clear()
        self._waiting.clear()
        self._open = False


def _put(items: list[tuple[Ticket, Chunk | BaseException]]) -> None:
    for ticket, item in items:
        ticket.inbox.put_nowait(item)
