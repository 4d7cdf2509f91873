"""Simulated staff at work over HTTP: they chat with the clerk through the official ``openai`` client, and correct it.

What is simulated is the people (`clerk.staff`). What answers, remembers, learns and judges is a real server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from openai import AsyncOpenAI

from clerk.office import Office
from clerk.staff import Ask, Word, words_on
from dayjob.client import AsyncClient, Feedback

POLICY = "clerk"
TEMPERATURE = 0.7
ANSWER_TOKENS = 32
AT_ONCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """One answer as it came. ``version``: who wrote it."""

    ask: Ask
    decision: str
    version: str
    text: str

    @property
    def right(self) -> bool:
        """Whether it is what holds for the one who asked."""
        return self.text == self.ask.probe.answer


@dataclass(slots=True, kw_only=True)
class Record:
    """Everything that was heard and said."""

    heard: list[Heard] = field(default_factory=list)
    said: list[tuple[int, Word]] = field(default_factory=list)  # the day it was said on
    later: list[tuple[int, Heard, Word]] = field(default_factory=list)

    def on(self, day: int) -> list[Heard]:
        """What was heard on a day."""
        return [one for one in self.heard if one.ask.day == day]

    def corrections(self, day: int) -> int:
        """Corrections and demonstrations said on a day."""
        return sum(when == day and word.kind != "thumb" for when, word in self.said)


async def play_day(
    chat: AsyncOpenAI, client: AsyncClient, *, here: Office, record: Record, asks: Sequence[Ask]
) -> None:
    """A day's questions, round by round; what is said of the answers counts from the next round on."""
    day = asks[0].day
    due = [(heard, word) for when, heard, word in record.later if when <= day]
    record.later = [one for one in record.later if one[0] > day]
    await _say(client, record, due, day=day)
    places = asyncio.Semaphore(AT_ONCE)
    for number in sorted({one.round for one in asks}):
        now = [one for one in asks if one.round == number]
        heard = await asyncio.gather(*(_ask(chat, one, places=places) for one in now))
        record.heard += heard
        said = [(one, word) for one in heard for word in words_on(one.ask, one.text, here=here)]
        record.later += [(day + word.days, one, word) for one, word in said if word.days]
        await _say(client, record, [(one, word) for one, word in said if not word.days], day=day)


async def _ask(chat: AsyncOpenAI, ask: Ask, *, places: asyncio.Semaphore) -> Heard:
    async with places:
        said = await chat.chat.completions.create(
            model=POLICY,
            messages=[{"role": "user", "content": ask.probe.question}],
            user=ask.user,
            metadata={"session": ask.session},
            temperature=TEMPERATURE,
            max_tokens=ANSWER_TOKENS,
        )
    version = said.model.partition("@")[2]
    return Heard(ask=ask, decision=said.id, version=version, text=said.choices[0].message.content or "")


async def _say(client: AsyncClient, record: Record, said: Sequence[tuple[Heard, Word]], *, day: int) -> None:
    """One after the other: of two words the later holds."""
    for heard, word in said:
        record.said.append((day, word))
        whole = word.on == "session"
        session = heard.ask.session if whole else None
        await client.feedback(
            Feedback(
                kind=word.kind, decision=None if whole else heard.decision, session=session, text=word.text,
                value=word.value,
            )
        )  # fmt: skip
