"""Who acts: a language engine; and three that need none, for proofs, tests and measurements."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from dayjob.endings import Ending, EpisodeEnding, Invalid, Overloaded
from dayjob.policies.engine_protocol import Engine, Prompt, Sampling
from dayjob.practice.protocol import Action, Environment
from dayjob.practice.rollout import Acted, Lost
from dayjob.records import Json

# (messages, tools) -> the prompt's token ids, up to where the assistant speaks.
Render = Callable[[Sequence[Json], Sequence[Json]], tuple[int, ...]]


class EngineActor:
    """A version of a language policy, sampled through its engine; every token comes with its log-probability."""

    def __init__(
        self,
        engine: Engine,
        version: str,
        *,
        render: Render,
        context_tokens: int,
        temperature: float = 1.0,
        stop: tuple[str, ...] = (),
        salt: str = "practice",
    ) -> None:
        """``context_tokens``: the longest prompt with its answer that the engine takes; an answer is cut to what is
        left. ``version``: a name the engine knows; an alias may move to newer weights between two tokens, and tokens
        say who wrote them. ``salt`` keeps the prompt cache apart from what is served."""
        if context_tokens < 2:
            raise Invalid("context_tokens must leave room for a prompt and an answer", param="context_tokens")
        self._engine, self._version, self._render = engine, version, render
        self._context_tokens, self._temperature, self._stop, self._salt = context_tokens, temperature, stop, salt

    async def act(self, messages: Sequence[Json], *, tools: Sequence[Json], max_tokens: int, seed: int) -> Acted | None:
        """As `Actor.act`. An engine whose queue is full is asked again when it says so. None, too, once somebody in the
        conversation has spelt out a control token: no prompt may hold one as text, and the episode can only end.

        Raises Lost where the task itself holds one, or is refused by the chat template; Invalid where the engine cannot
        tell the probabilities of what it drew; and what the engine raises.
        """
        try:
            prompt_ids = self._render(messages, tools)
        except Invalid as error:
            if any(message["role"] == "assistant" for message in messages):
                return None
            reason = f"the task cannot be put to this model: {error}"
            raise Lost(EpisodeEnding.FAILED, reason) from error
        room = min(max_tokens, self._context_tokens - len(prompt_ids))
        if room < 1:
            return None
        sampling = Sampling(max_tokens=room, temperature=self._temperature, stop=self._stop, seed=seed)
        while True:
            try:
                return await self._generate(prompt_ids, sampling)
            except Overloaded as full:
                await asyncio.sleep(full.retry_after_s)

    async def _generate(self, prompt_ids: tuple[int, ...], sampling: Sampling) -> Acted:
        token_ids: list[int] = []
        logprobs: list[float] = []
        versions: list[str] = []
        text: list[str] = []
        ended = Ending.ABORTED
        chunks = self._engine.generate(Prompt(token_ids=prompt_ids, salt=self._salt), self._version, sampling=sampling)
        try:
            async for chunk in chunks:
                if chunk.sample_logprobs is None:
                    message = (
                        f"this engine cannot tell the probabilities of tokens at temperature {sampling.temperature:g}"
                    )
                    raise Invalid(f"{message}: practise at 1", param="temperature")
                token_ids += chunk.token_ids
                logprobs += chunk.sample_logprobs
                versions += chunk.versions
                text.append(chunk.text)
                ended = chunk.ending or ended
        finally:
            await chunks.aclose()
        return Acted(
            text="".join(text), prompt_ids=prompt_ids, token_ids=tuple(token_ids), logprobs=tuple(logprobs),
            versions=tuple(versions), ended=ended,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ScriptedActor:
    """Says given things, one a turn, in every episode; nothing when they are used up."""

    actions: Sequence[Action]

    async def act(self, messages: Sequence[Json], *, tools: Sequence[Json], max_tokens: int, seed: int) -> Acted:
        """As `Actor.act`."""
        del tools, max_tokens, seed
        turn = sum(message["role"] == "assistant" for message in messages)
        return Acted(text=self.actions[turn].text if turn < len(self.actions) else "")


@dataclass(frozen=True, slots=True)
class ReferenceActor:
    """Plays the reference solutions of tasks it knows, told apart by what was said so far: many may begin alike."""

    solutions: Mapping[int, str]  # what the environment said until now, hashed -> what to say next

    @staticmethod
    async def of(environment: Environment, seeds: Iterable[int]) -> ReferenceActor:
        """Knows the tasks of these seeds; plays each once to learn what the environment says. Raises Invalid when two
        of them go alike up to where their solutions differ."""
        solutions: dict[int, str] = {}
        for seed in seeds:
            episode = environment.reset(seed)
            told = list(episode.task.messages)
            for action in environment.reference(seed):
                if solutions.setdefault(_heard(told), action.text) != action.text:
                    message = f"the task of seed {seed} goes like another's that is solved otherwise"
                    raise Invalid(f"{message}: play its reference with a ScriptedActor of its own", param="seeds")
                told += (await episode.step(action)).messages
            await episode.close()
        return ReferenceActor(solutions)

    async def act(self, messages: Sequence[Json], *, tools: Sequence[Json], max_tokens: int, seed: int) -> Acted:
        """As `Actor.act`. Raises Invalid for a conversation it does not know."""
        del tools, max_tokens, seed
        known = self.solutions.get(_heard(messages))
        if known is None:
            raise Invalid("this task is none of those the reference was made for: name its seed", param="seeds")
        return Acted(text=known)


@dataclass(frozen=True, slots=True)
class SilentActor:
    """Says nothing, ever. Nobody should be rewarded for it."""

    async def act(self, messages: Sequence[Json], *, tools: Sequence[Json], max_tokens: int, seed: int) -> Acted:
        """As `Actor.act`."""
        del messages, tools, max_tokens, seed
        return Acted(text="")


@dataclass(frozen=True, slots=True)
class RandomActor:
    """Says a few words of what it was told, drawn at random: the floor that a task has to keep below."""

    words: int = 4  # at most

    async def act(self, messages: Sequence[Json], *, tools: Sequence[Json], max_tokens: int, seed: int) -> Acted:
        """As `Actor.act`."""
        del tools
        rng = Random(seed)
        known = [word for message in messages for word in _text(message).split()]
        count = rng.randint(1, max(1, min(self.words, max_tokens)))
        return Acted(text=" ".join(rng.choice(known) for _ in range(count)) if known else "")


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else ""


def _heard(messages: Sequence[Mapping[str, Any]]) -> int:
    # Texts keep their hash: this costs next to nothing even at the hundredth turn. It never leaves the process.
    return hash(tuple(message["content"] for message in messages if message["role"] != "assistant"))
