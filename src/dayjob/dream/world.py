"""A world model's data and its measure: recorded conversations with an application, and how long imagination holds.

The model learns what the application said behind what went before, when an episode was over, and from every point of
it whether it ended well. It is the policy's own network with an adapter of its own (`learn.practice.world`): the answer
is written where the assistant would write, behind the assistant's own call.

**Wrong predictions are never learned as truth.** Only recordings go in: a message that was imagined carries a mark,
and :func:`episode` refuses it. Conversations are split by a hash of how they begin, so what measures the model is in
none of what it learned. Its error is measured step by step along imagined rollouts, and past :meth:`Accuracy.horizon`
nobody may believe it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from dayjob.dream.excerpts import Excerpt
from dayjob.endings import EpisodeEnding, Invalid
from dayjob.policies.engine_protocol import Engine, Prompt, Sampling
from dayjob.practice.calls import read_calls
from dayjob.practice.environments.world import IMAGINED, Responder, derived, real
from dayjob.records import Json, Trajectory
from dayjob.signals.intervals import wilson

Ids = tuple[int, ...]
Render = Callable[[Sequence[Json]], Ids]  # a conversation up to where the assistant speaks

OVER = "[over]"  # what the model says where nothing follows
ASK: Json = {"role": "user", "content": "Does this end well?"}
YES, NO = "yes", "no"
STOP_SHARE, MEASURE_SHARE = 0.15, 0.25
_OVER = (EpisodeEnding.DONE, EpisodeEnding.UNREADABLE)  # the application had the last word
_TOLD = (*_OVER, EpisodeEnding.TURNS, EpisodeEnding.TOKENS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One task as it was really worked on. ``messages[:start]`` set it; behind them the assistant acts and the
    application answers. ``over``: the last message is the assistant's last word. ``solved`` None: nobody said."""

    messages: tuple[Json, ...]
    start: int
    over: bool
    solved: bool | None = None

    @property
    def places(self) -> tuple[int, ...]:
        """Where in ``messages`` the application speaks."""
        return tuple(
            place for place in range(self.start, len(self.messages)) if self.messages[place]["role"] != "assistant"
        )

    @property
    def family(self) -> str:
        """16 hex digits that conversations share which are one up to the application's first answer: what they are
        split by. A task alone would not do, for many may be set in the same words."""
        places = self.places
        begins = self.messages[: places[0] + 1] if places else self.messages
        return hashlib.sha256(json.dumps(begins, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Saying:
    """What is to be said behind a conversation: a row that the world model learns."""

    messages: tuple[Json, ...]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Episodes by what they are for. No beginning of a conversation is in two of the parts."""

    learn: tuple[Episode, ...]
    stop: tuple[Episode, ...]  # early stopping
    measure: tuple[Episode, ...]  # the error, and with it the horizon


def episode(messages: Sequence[Json], *, start: int, over: bool, solved: bool | None = None) -> Episode:
    """An episode of these messages. Raises Invalid where one of them was imagined, or nobody acted."""
    if any(IMAGINED in one for one in messages):
        raise Invalid("an imagined answer is no recording: a world model learns from real conversations alone")
    if not 0 < start < len(messages):
        raise Invalid(f"of {len(messages)} messages the first {start} cannot be the task: somebody has to act behind")
    return Episode(messages=tuple(messages), start=start, over=over, solved=solved)


def of_trajectory(one: Trajectory, *, threshold: float = 0.5) -> Episode:
    """Practice in a *real* application as an episode: solved where the reward is above ``threshold``.

    Raises Invalid for an imagined one, and for one that says nothing of the application (`EpisodeEnding.FAILED` ...).
    """
    if one.ending not in _TOLD:
        raise Invalid(f"an episode that ended as {one.ending} says nothing of the application: leave it out")
    start = next((at for at, each in enumerate(one.messages) if each["role"] == "assistant"), 0)
    return episode(one.messages, start=start, over=one.ending in _OVER, solved=one.reward > threshold)


def of_excerpts(excerpts: Iterable[Excerpt]) -> list[Episode]:
    """The episodes in recorded conversations, whole ones (`excerpts.conversations`), in their order.

    An episode is everything between a user's message and the assistant's last word on it, where a tool answered in
    between; the conversation before it belongs to its task. What was said of the last answer says how the last episode
    went.
    """
    found = []
    for one in excerpts:
        messages = one.messages
        asked = [place for place, each in enumerate(messages) if each["role"] == "user"]
        for start, end in zip(asked, [*asked[1:], len(messages)], strict=True):
            if any(each["role"] == "tool" for each in messages[start:end]):
                solved = None if end < len(messages) else _solved(one)
                over = messages[end - 1]["role"] == "assistant" and not read_calls(str(messages[end - 1]["content"]))
                found.append(episode(messages[:end], start=start + 1, over=over, solved=solved))
    return found


def _solved(one: Excerpt) -> bool | None:
    if one.right or one.liked < 0:
        return False
    return True if one.liked > 0 else None


def split(episodes: Iterable[Episode]) -> Split:
    """Three parts by the hash of each conversation's beginning."""
    parts: tuple[list[Episode], list[Episode], list[Episode]] = ([], [], [])
    for one in episodes:
        place = int(one.family[:12], 16) / 16**12
        parts[2 if place < MEASURE_SHARE else int(place < MEASURE_SHARE + STOP_SHARE)].append(one)
    return Split(learn=tuple(parts[0]), stop=tuple(parts[1]), measure=tuple(parts[2]))


def sayings(one: Episode) -> list[Saying]:
    """What an episode teaches: every answer, the end, and from every point on whether it ended well, where that is
    known. The application's answers come first."""
    messages = one.messages
    rows = [Saying(messages=messages[:place], text=str(messages[place].get("content") or "")) for place in one.places]
    if one.over:
        rows.append(Saying(messages=messages, text=OVER))
    if one.solved is not None:
        word = YES if one.solved else NO
        rows += [Saying(messages=(*messages[:end], ASK), text=word) for end in range(one.start, len(messages) + 1)]
    return [row for row in rows if row.text]


class EngineResponder:
    """A world model behind a language engine. Its most probable answer, or with a ``temperature`` a drawn one.

    Where a conversation leaves no room for an answer the episode is over, and did not end well: so it would be for the
    actor, who reads the same.
    """

    def __init__(
        self, engine: Engine, version: str, *, digest: str, render: Render, encode: Callable[[str], Ids],
        context_tokens: int, max_tokens: int = 128, temperature: float = 0.0,
    ) -> None:  # fmt: skip
        """``render`` and ``encode`` are the model's tokenizer's: no text is made into tokens in any other way."""
        self.digest = digest
        self._engine = engine
        self._version = version
        self._render = render
        self._yes, self._no = encode(YES), encode(NO)
        self._room = context_tokens - max_tokens
        self._max_tokens = max_tokens
        self._temperature = temperature

    async def respond(self, messages: Sequence[Json], *, seed: int) -> str | None:
        """What the application would say; None where it would say nothing more."""
        prompt = Prompt(token_ids=self._render(real(messages)))
        if len(prompt.token_ids) > self._room:
            return None
        sampling = Sampling(max_tokens=self._max_tokens, temperature=self._temperature, seed=seed)
        text = "".join([chunk.text async for chunk in self._engine.generate(prompt, self._version, sampling=sampling)])
        return None if text.strip() == OVER else text

    async def success(self, messages: Sequence[Json]) -> float:
        """p(yes) / (p(yes) + p(no)) to the question whether this ends well."""
        prompt = Prompt(token_ids=self._render([*real(messages), ASK]))
        if len(prompt.token_ids) > self._room:
            return 0.0
        yes, no = await asyncio.gather(
            *(self._engine.score(prompt, self._version, token_ids=ids) for ids in (self._yes, self._no))
        )
        odds = sum(yes.model_logprobs) - sum(no.model_logprobs)
        return 1 / (1 + math.exp(-min(max(odds, -60.0), 60.0)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """How right a world model is on conversations that it did not learn from.

    ``wrong_H[h]`` is the share of imagined answers that differ from the real ones h + 1 steps into imagination,
    averaged over the ``count_H[h]`` conversations that go on for so long. ``value_wrong`` of ``value_count`` ended
    episodes had their success misjudged at the end.
    """

    wrong_H: tuple[float, ...]
    count_H: tuple[int, ...]
    value_wrong: int = 0
    value_count: int = 0

    def interval(self, step: int) -> tuple[float, float]:
        """95 % of the error ``step`` steps into imagination (from 1): Wilson's, a conversation counting once however
        many points of it were tried, for they are not independent."""
        count = self.count_H[step - 1]
        return wilson(self.wrong_H[step - 1] * count, count)

    def horizon(self, tolerance: float) -> int:
        """Steps up to which the error is surely (upper end of its interval) at most ``tolerance``; 0: none."""
        for step in range(1, len(self.wrong_H) + 1):
            if self.interval(step)[1] > tolerance:
                return step - 1
        return len(self.wrong_H)


async def measure(
    episodes: Sequence[Episode], responder: Responder, *, depth: int, parallel: int = 64, seed: int = 0
) -> Accuracy:
    """The error by step of imagined rollouts: from every point of every episode the recorded actions are played on,
    each answer being the model's behind its own earlier ones, and compared with what was really said.

    ``parallel`` rollouts run at once.
    """
    if depth < 1:
        raise Invalid(f"depth is {depth}: at least one step is imagined", param="depth")
    gate = asyncio.Semaphore(parallel)

    async def one_at(number: int, first: int) -> list[bool]:
        async with gate:
            return await _imagined(episodes[number], responder, first=first, depth=depth, seed=seed)

    async def value_of(one: Episode) -> bool:
        async with gate:
            return (await responder.success(one.messages) > 0.5) != one.solved

    starts = [(number, first) for number, one in enumerate(episodes) for first in range(len(one.places) + one.over)]
    rolled = await asyncio.gather(*(one_at(*start) for start in starts))
    wrong: list[dict[int, list[bool]]] = [{} for _ in range(depth)]
    for (number, _), errors in zip(starts, rolled, strict=True):
        for step, error in enumerate(errors):
            wrong[step].setdefault(number, []).append(error)
    values = await asyncio.gather(*(value_of(one) for one in episodes if one.over and one.solved is not None))
    return Accuracy(
        wrong_H=tuple(_mean([sum(one) / len(one) for one in by.values()]) for by in wrong if by),
        count_H=tuple(len(by) for by in wrong if by),
        value_wrong=sum(values),
        value_count=len(values),
    )


async def _imagined(one: Episode, responder: Responder, *, first: int, depth: int, seed: int) -> list[bool]:
    """Which of the next answers are wrong, from answer ``first`` on."""
    places, errors = one.places, []
    ends = [*places, *([len(one.messages)] if one.over else [])]
    history = list(one.messages[: ends[first]])
    gone = False  # it took the episode to be over, or the other way round: nothing that follows can be right
    for step, place in enumerate(ends[first : first + depth]):
        said = None if gone else await responder.respond(history, seed=derived(seed, first, step))
        last = place == len(one.messages)
        right = not gone and (said is None) == last and (last or _same(said, one.messages[place].get("content")))
        gone = gone or (said is None) != last
        errors.append(not right)
        if not last:
            following = ends[first + step + 1] if first + step + 1 < len(ends) else place + 1
            history += [{**one.messages[place], "content": said}, *one.messages[place + 1 : following]]
    return errors


def _same(said: str | None, recorded: object) -> bool:
    return said is not None and said.split() == str(recorded or "").split()


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
