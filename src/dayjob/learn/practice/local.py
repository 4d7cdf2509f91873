"""An engine on the very model that learns: attempts and steps take turns, in one process.

What asks is collected until nobody else is about to ask, then answered in one batch. So runs can be repeated: with
environments that only compute, the same requests meet in the same batches, whatever the machine does beside. It writes
with the weights as they are; the version that it stamps is what :meth:`LocalEngine.swap` was told last.

It is no server: whole answers at once, no stop strings, no nucleus, no adapters of others.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass

from dayjob.endings import Ending, Invalid, NotFound
from dayjob.learn.language.writing import Written
from dayjob.learn.practice.student import Student
from dayjob.policies.adapters import Adapter
from dayjob.policies.engine_protocol import Chunk, InFlight, Prompt, Sampling, Scored, VersionRef

_BASE = Adapter(ref=VersionRef(name="", digest=""), parts={})
_CALM = 3  # turns of the event loop in which nobody asked: everybody who could has


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Asked:
    prompt: tuple[int, ...]
    sampling: Sampling
    answer: asyncio.Future[Written]


class LocalEngine:
    """An :class:`~dayjob.policies.engine_protocol.Engine` for attempts by the model in training."""

    def __init__(self, student: Student, *, name: str) -> None:
        """``name``: what requests call the weights in training."""
        self._student, self._name = student, name
        self._version = name
        self._asked: list[_Asked] = []
        self._flush: asyncio.Task[None] | None = None

    async def generate(self, prompt: Prompt, version: str, *, sampling: Sampling) -> AsyncGenerator[Chunk, None]:
        """See the protocol: one chunk, the whole answer."""
        self._check(prompt.token_ids, version)
        if sampling.stop or sampling.top_p < 1 or sampling.top_logprobs:
            raise Invalid("this engine writes plain answers: no stop, top_p or top_logprobs", param="stop")
        one = _Asked(prompt=prompt.token_ids, sampling=sampling, answer=asyncio.get_running_loop().create_future())
        self._asked.append(one)
        if self._flush is None:
            self._flush = asyncio.create_task(self._answer())
        written = await one.answer
        tokens = self._student.tokens
        yield Chunk(
            token_ids=written.token_ids,
            model_logprobs=written.model_logprobs,
            sample_logprobs=written.logprobs,
            versions=(self._version,) * len(written.token_ids),
            top_logprobs=((),) * len(written.token_ids),
            text=tokens.text([one for one in written.token_ids if one not in tokens.end_ids]),
            ending=Ending.STOP if written.ended else Ending.LENGTH,
        )

    async def score(self, prompt: Prompt, version: str, *, token_ids: Sequence[int], top_logprobs: int = 0) -> Scored:
        """See the protocol."""
        self._check(prompt.token_ids, version)
        ids, start = (*prompt.token_ids, *token_ids), len(prompt.token_ids)
        logprobs, top = self._student.batch.score(ids, start, adapter=_BASE, top=top_logprobs)
        return Scored(model_logprobs=logprobs, top_logprobs=top, version=self._version)

    async def load(self, ref: VersionRef, *, now: bool = True) -> None:  # noqa: ARG002
        """There are no other versions: raises Invalid."""
        raise Invalid(f"this engine has the weights in training and no {ref.name}: ask a serving engine for it")

    async def swap(self, alias: str, ref: VersionRef, *, in_flight: InFlight = InFlight.FINISH) -> None:  # noqa: ARG002
        """The weights changed: from now on what is written is stamped with the name of ``ref``."""
        self._check((0,), alias)
        self._version = ref.name

    async def drop(self, version: str) -> None:
        """Nothing is held of a version that was: nothing to do."""

    async def forget(self, salt: str) -> None:
        """Nothing is held of a prompt: nothing to do."""

    def versions(self) -> Mapping[str, str]:
        """See the protocol."""
        return {self._name: self._version, self._version: self._version}

    async def close(self) -> None:
        """Nothing to free: the model is the student's."""

    def _check(self, prompt: Sequence[int], version: str) -> None:
        if version not in (self._name, self._version):
            raise NotFound(f"this engine has no version {version!r}: it has {self._name!r}")
        room = self._student.writer.context_tokens
        if not 0 < len(prompt) < room:
            raise Invalid(f"a prompt of {len(prompt)} tokens: from 1 to {room - 1}", param="prompt")

    async def _answer(self) -> None:
        """Wait until all have asked, write, and so on while there is anything to write."""
        try:
            while self._asked:
                calm, before = 0, len(self._asked)
                while calm < _CALM:
                    await asyncio.sleep(0)
                    calm, before = (calm + 1, before) if len(self._asked) == before else (0, len(self._asked))
                batch, self._asked = [one for one in self._asked if not one.answer.cancelled()], []
                for kind in sorted({_kind(one) for one in batch}):
                    self._write([one for one in batch if _kind(one) == kind], kind)
                await asyncio.sleep(0)
        finally:
            self._flush = None

    def _write(self, batch: Sequence[_Asked], kind: tuple[int, float]) -> None:
        limit, temperature = kind
        try:
            written = self._student.writer.write(
                [one.prompt for one in batch], seeds=[one.sampling.seed for one in batch], max_tokens=limit,
                temperature=temperature,
            )  # fmt: skip
        except Exception as error:  # whoever asked is told, whatever it is
            for one in batch:
                if not one.answer.done():
                    one.answer.set_exception(error)
            return
        for one, answer in zip(batch, written, strict=True):
            if not one.answer.done():  # else whoever asked went away
                one.answer.set_result(answer)


def _kind(one: _Asked) -> tuple[int, float]:
    """What is the same for all answers of one batch."""
    return one.sampling.max_tokens, one.sampling.temperature
