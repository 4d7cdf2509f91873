"""The contract of every language engine: ``check_engine(make, world)`` runs it against any backend.

``make(slots, adapters)`` opens an engine over the world's base model, with the base version loaded; ``moves`` says
whether it can let answers that are being written move to another version.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from typing import Any, Protocol

import pytest
import torch

from dayjob.endings import Conflict, Damaged, Ending, Invalid, NotFound
from dayjob.policies.engine_protocol import Chunk, Engine, InFlight, Prompt, Sampling, VersionRef
from tests.policies.language.worlds import BASE, World

FP32 = 1e-3  # served against learner's log-probabilities
PROMPTS = [tuple((7 * i + 3 * j) % 256 for j in range(size)) for i, size in enumerate((1, 5, 17, 40, 3))]


class Make(Protocol):
    def __call__(self, *, slots: int, adapters: int) -> AbstractAsyncContextManager[Engine]: ...


@dataclass(frozen=True, kw_only=True)
class Rig:
    """What a check is given."""

    make: Make
    world: World
    moves: bool


Check = Callable[[Rig], Coroutine[Any, Any, None]]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """All chunks of an answer in one."""

    ids: tuple[int, ...]
    model: torch.Tensor
    sample: torch.Tensor | None
    versions: tuple[str, ...]
    top: tuple[tuple[tuple[int, float], ...], ...]
    text: str
    ending: Ending | None
    cached: int


def whole(chunks: list[Chunk]) -> Answer:
    assert [chunk.ending is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    for chunk in chunks:
        sizes = {len(chunk.token_ids), len(chunk.model_logprobs), len(chunk.versions), len(chunk.top_logprobs)}
        assert len(sizes) == 1
    sample = [chunk.sample_logprobs for chunk in chunks]
    known = [part for part in sample if part is not None]
    return Answer(
        ids=tuple(token for chunk in chunks for token in chunk.token_ids),
        model=torch.tensor([value for chunk in chunks for value in chunk.model_logprobs]),
        sample=torch.tensor([v for part in known for v in part]) if len(known) == len(sample) else None,
        versions=tuple(name for chunk in chunks for name in chunk.versions),
        top=tuple(top for chunk in chunks for top in chunk.top_logprobs),
        text="".join(chunk.text for chunk in chunks),
        ending=chunks[-1].ending,
        cached=chunks[0].cached_tokens,
    )


async def ask(engine: Engine, version: str, prompt: tuple[int, ...] = PROMPTS[1], **sampling: Any) -> Answer:
    wanted = Sampling(**{"max_tokens": 8, **sampling})
    return whole([chunk async for chunk in engine.generate(Prompt(token_ids=prompt), version, sampling=wanted)])


async def load_all(rig: Rig, engine: Engine) -> None:
    for ref in rig.world.adapters:
        await engine.load(ref)


def close_to(found: torch.Tensor | None, wanted: torch.Tensor, *, atol: float = FP32) -> None:
    assert found is not None
    torch.testing.assert_close(found, wanted, atol=atol, rtol=0)


async def served_log_probabilities_are_the_learners(rig: Rig) -> None:
    """All versions and prompts of all lengths in one batch, against PEFT's forward of each alone."""
    async with rig.make(slots=8, adapters=8) as engine:
        await load_all(rig, engine)
        cases = [(ref, prompt) for ref in rig.world.versions for prompt in PROMPTS]
        answers = await asyncio.gather(
            *(ask(engine, ref.name, prompt, seed=n) for n, (ref, prompt) in enumerate(cases))
        )
    for (ref, prompt), answer in zip(cases, answers, strict=True):
        assert answer.versions == (ref.name,) * len(answer.ids)
        close_to(answer.model, rig.world.logprobs(ref, prompt, answer.ids))


async def the_adapter_is_applied(rig: Rig) -> None:
    async with rig.make(slots=2, adapters=8) as engine:
        await load_all(rig, engine)
        for ref in rig.world.adapters:
            answer = await ask(engine, ref.name)
            base = rig.world.logprobs(BASE, PROMPTS[1], answer.ids)
            assert (answer.model - base).abs().max() > 0.05


async def a_batch_changes_nobodys_answer(rig: Rig) -> None:
    """Alone or among others with other adapters, and whatever the order they come in, the seed decides."""
    async with rig.make(slots=8, adapters=8) as engine:
        await load_all(rig, engine)
        cases = [(ref.name, PROMPTS[n % 5], n) for n, ref in enumerate(rig.world.versions * 2)]
        alone = [await ask(engine, name, prompt, seed=seed) for name, prompt, seed in cases]
        together = await asyncio.gather(*(ask(engine, name, prompt, seed=seed) for name, prompt, seed in cases))
        other = await ask(engine, cases[0][0], cases[0][1], seed=77)
    assert [answer.ids for answer in alone] == [answer.ids for answer in together]
    for one, same in zip(alone, together, strict=True):
        close_to(one.model, same.model, atol=1e-4)
    assert other.ids != alone[0].ids


async def the_distribution_drawn_from_is_recorded(rig: Rig) -> None:
    async with rig.make(slots=4, adapters=8) as engine:
        plain, hot, greedy = await asyncio.gather(
            ask(engine, BASE.name), ask(engine, BASE.name, temperature=1.7), ask(engine, BASE.name, temperature=0)
        )
    close_to(plain.sample, plain.model)
    close_to(hot.model, rig.world.logprobs(BASE, PROMPTS[1], hot.ids))
    if hot.sample is not None:
        close_to(hot.sample, rig.world.logprobs(BASE, PROMPTS[1], hot.ids, temperature=1.7))
    logits = rig.world.logits(BASE, (*PROMPTS[1], *greedy.ids))[len(PROMPTS[1]) - 1 : -1]
    assert greedy.ids == tuple(logits.argmax(1).tolist())
    if greedy.sample is not None:
        assert greedy.sample.tolist() == [0.0] * len(greedy.ids)


async def alternatives_are_the_most_probable(rig: Rig) -> None:
    async with rig.make(slots=4, adapters=8) as engine:
        answer, none = await asyncio.gather(ask(engine, BASE.name, top_logprobs=3), ask(engine, BASE.name))
    logp_TV = rig.world.logits(BASE, (*PROMPTS[1], *answer.ids))[len(PROMPTS[1]) - 1 : -1].log_softmax(1)
    for row, top in zip(logp_TV, answer.top, strict=True):
        assert [token for token, _ in top] == row.topk(3).indices.tolist()
        close_to(torch.tensor([value for _, value in top]), row.topk(3).values)
    assert none.top == ((),) * len(none.ids)


async def scoring_agrees_with_serving(rig: Rig) -> None:
    ref = rig.world.adapters[1]
    async with rig.make(slots=2, adapters=8) as engine:
        await load_all(rig, engine)
        answer = await ask(engine, ref.name)
        prompt = Prompt(token_ids=PROMPTS[1])
        own = await engine.score(prompt, ref.name, token_ids=answer.ids, top_logprobs=2)
        base = await engine.score(prompt, BASE.name, token_ids=answer.ids)
    close_to(torch.tensor(own.model_logprobs), answer.model, atol=1e-4)
    close_to(torch.tensor(base.model_logprobs), rig.world.logprobs(BASE, PROMPTS[1], answer.ids))
    assert own.version == ref.name
    assert [len(top) for top in own.top_logprobs] == [2] * len(answer.ids)
    assert max(top[0][1] - value for top, value in zip(own.top_logprobs, own.model_logprobs, strict=True)) >= 0


async def an_answer_being_written_keeps_its_version(rig: Rig) -> None:
    first, second = rig.world.adapters[:2]
    async with rig.make(slots=2, adapters=8) as engine:
        await engine.swap("champion", first)
        stream = engine.generate(Prompt(token_ids=PROMPTS[1]), "champion", sampling=Sampling(max_tokens=60))
        chunks = [await anext(stream)]
        await engine.swap("champion", second)
        assert engine.versions()["champion"] == second.name
        after = await ask(engine, "champion")
        chunks += [chunk async for chunk in stream]
    before = whole(chunks)
    assert set(before.versions) == {first.name}
    assert set(after.versions) == {second.name}
    close_to(before.model, rig.world.logprobs(first, PROMPTS[1], before.ids))
    close_to(after.model, rig.world.logprobs(second, PROMPTS[1], after.ids))


async def a_move_between_two_tokens_is_stamped(rig: Rig) -> None:
    """Each token's log-probability is that of its own version on everything before it."""
    first, second = rig.world.adapters[:2]
    async with rig.make(slots=2, adapters=8) as engine:
        await engine.swap("champion", first)
        stream = engine.generate(Prompt(token_ids=PROMPTS[2]), "champion", sampling=Sampling(max_tokens=250))
        if not rig.moves:
            with pytest.raises(Invalid, match="in_flight"):
                await engine.swap("champion", second, in_flight=InFlight.MOVE)
            assert engine.versions()["champion"] == first.name
            return
        other = engine.generate(Prompt(token_ids=PROMPTS[1]), first.name, sampling=Sampling(max_tokens=250))
        chunks, others = [await anext(stream)], [await anext(other)]
        await engine.swap("champion", second, in_flight=InFlight.MOVE)
        chunks += [chunk async for chunk in stream]
        others += [chunk async for chunk in other]
    moved = whole(chunks)
    cut = moved.versions.index(second.name)
    assert moved.versions == (first.name,) * cut + (second.name,) * (len(moved.ids) - cut)
    wanted = [rig.world.logprobs(ref, PROMPTS[2], moved.ids) for ref in (first, second)]
    close_to(moved.model, torch.cat([wanted[0][:cut], wanted[1][cut:]]))
    assert (wanted[0][cut:] - wanted[1][cut:]).abs().max() > 0.05
    assert set(whole(others).versions) == {first.name}, "only those who asked by the alias move"


async def going_away_frees_the_place(rig: Rig) -> None:
    """With two places, eight who leave after a token, or before one, must not keep the ninth waiting."""
    async with rig.make(slots=2, adapters=8) as engine:
        for _ in range(4):
            long = Sampling(max_tokens=450)
            streams = [engine.generate(Prompt(token_ids=PROMPTS[1]), BASE.name, sampling=long) for _ in range(2)]
            for stream in streams:
                async with aclosing(stream):
                    await anext(stream)
        waiting = [asyncio.create_task(ask(engine, BASE.name, max_tokens=450)) for _ in range(4)]
        await asyncio.sleep(0.01)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        answer = await asyncio.wait_for(ask(engine, BASE.name), timeout=30)
    assert len(answer.ids) == 8


async def many_wait_and_all_are_served(rig: Rig) -> None:
    async with rig.make(slots=4, adapters=8) as engine:
        await load_all(rig, engine)
        names = [rig.world.versions[n % 5].name for n in range(35)]
        answers = await asyncio.gather(
            *(ask(engine, name, PROMPTS[n % 3], seed=n, max_tokens=1 + n % 7) for n, name in enumerate(names))
        )
    assert [answer.versions for answer in answers] == [(name,) * (1 + n % 7) for n, name in enumerate(names)]
    assert {answer.ending for answer in answers} <= {Ending.LENGTH, Ending.STOP}


async def more_adapters_than_room(rig: Rig) -> None:
    """Two in memory, four asked for, again and again and all at once: never unknown, always the right one."""
    async with rig.make(slots=8, adapters=2) as engine:
        for ref in rig.world.adapters:
            await engine.load(ref, now=False)
        for _ in range(2):
            for ref in rig.world.adapters:
                answer = await ask(engine, ref.name)
                close_to(answer.model, rig.world.logprobs(ref, PROMPTS[1], answer.ids))
        refs = rig.world.adapters * 3
        answers = await asyncio.gather(*(ask(engine, ref.name, seed=n) for n, ref in enumerate(refs)))
    for ref, answer in zip(refs, answers, strict=True):
        assert set(answer.versions) == {ref.name}
        close_to(answer.model, rig.world.logprobs(ref, PROMPTS[1], answer.ids))


async def names_are_known_or_refused(rig: Rig) -> None:
    ref = rig.world.adapters[0]
    async with rig.make(slots=2, adapters=8) as engine:
        with pytest.raises(NotFound, match="load it first"):
            await ask(engine, ref.name)
        with pytest.raises(NotFound):
            await ask(engine, str(ref.folder))
        with pytest.raises(NotFound):
            await engine.score(Prompt(token_ids=(1,)), ref.name, token_ids=(2,))
        await engine.swap("champion", ref)
        assert engine.versions() == {BASE.name: BASE.name, ref.name: ref.name, "champion": ref.name}
        with pytest.raises(Conflict, match="champion"):
            await engine.drop(ref.name)
        await engine.swap("champion", BASE)
        await engine.drop(ref.name)
        with pytest.raises(NotFound):
            await ask(engine, ref.name)
        with pytest.raises(NotFound):
            await engine.drop(ref.name)
        assert set((await ask(engine, "champion")).versions) == {BASE.name}
        for now in (True, False):
            with pytest.raises(Conflict, match="never changes"):
                await engine.load(VersionRef(name=BASE.name, digest="11" * 32), now=now)
        with pytest.raises(Conflict, match="alias"):
            await engine.load(VersionRef(name="champion", digest="11" * 32))
        with pytest.raises(Conflict, match="version's name"):
            await engine.swap(BASE.name, BASE)
        with pytest.raises(Damaged, match="SHA-256"):
            await engine.load(rig.world.damaged(ref))
        assert engine.versions() == {BASE.name: BASE.name, "champion": BASE.name}


async def answers_end_as_they_should(rig: Rig) -> None:
    world = rig.world
    end = next(iter(world.tokens.end_ids))
    async with rig.make(slots=4, adapters=8) as engine:
        long = await ask(engine, BASE.name, max_tokens=300, seed=3, temperature=3.0)
        free = await ask(engine, BASE.name, max_tokens=40, seed=5)
        # A stop string that the same draws will write, over two tokens.
        word = free.text[6:8]
        cut = await ask(engine, BASE.name, max_tokens=40, seed=5, stop=(word,))
    if end in long.ids:
        assert (long.ending, long.ids.index(end)) == (Ending.STOP, len(long.ids) - 1)
    else:
        assert (long.ending, len(long.ids)) == (Ending.LENGTH, 300)
    assert (free.ending, len(free.ids)) == (Ending.LENGTH, 40)
    assert free.text == world.tokens.text(free.ids)
    assert cut.ending is Ending.STOP
    assert cut.text == free.text[: free.text.index(word)]
    assert cut.ids == free.ids[: len(cut.ids)]
    assert word in world.tokens.text(cut.ids)
    assert word not in world.tokens.text(cut.ids[:-1])


async def what_cannot_be_written_is_refused(rig: Rig) -> None:
    async with rig.make(slots=2, adapters=8) as engine:
        for ids in ((), (10**6,), (-1,), (1,) * 600):
            with pytest.raises(Invalid):
                await ask(engine, BASE.name, ids)
        assert len((await ask(engine, BASE.name)).ids) == 8


# What depends on the model's architecture: its numbers, and moving what it has read to another version.
NUMBERS: list[Check] = [
    served_log_probabilities_are_the_learners,
    the_adapter_is_applied,
    a_batch_changes_nobodys_answer,
    the_distribution_drawn_from_is_recorded,
    alternatives_are_the_most_probable,
    scoring_agrees_with_serving,
    a_move_between_two_tokens_is_stamped,
]
CHECKS: list[Check] = [
    *NUMBERS,
    an_answer_being_written_keeps_its_version,
    going_away_frees_the_place,
    many_wait_and_all_are_served,
    more_adapters_than_room,
    names_are_known_or_refused,
    answers_end_as_they_should,
    what_cannot_be_written_is_refused,
]


def check_engine(make: Make, world: World, *, moves: bool) -> None:
    """Run the whole contract."""
    for check in CHECKS:
        asyncio.run(check(Rig(make=make, world=world, moves=moves)))
