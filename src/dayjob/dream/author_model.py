"""The author that is a language model: any server with OpenAI's chat completions, asked for one Python file.

What it writes is text until it runs in the sandbox. It gets the reason where a program does not hold, and may try
again, within its allowance of calls, tokens and seconds. A server that cannot be reached, that answers nonsense or that
never ends costs the allowance and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2

from dayjob.dream.author_prompt import PROMPT
from dayjob.dream.excerpts import Excerpt, conversations
from dayjob.dream.propose import Allowance, Proposal, Proposed
from dayjob.endings import Invalid
from dayjob.practice.environments.program import MOST_SOURCE
from dayjob.records import Json

MOST_ANSWER = 1 << 20  # bytes of one answer of the server
MOST_EXCERPTS = 24_000  # characters of conversations in a prompt
ANSWER_TOKENS = 8_000  # at most, of one program
_BLOCK = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL)
Check = Callable[[Proposal], Awaitable[str]]


async def _no_check(_: Proposal) -> str:
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAuthor:
    """Asks ``model`` at ``url`` (``https://host/v1``, with ``/chat/completions`` behind it). ``check`` says what is
    wrong with a program, "" where nothing is. Raises Invalid for a URL or a model that is none."""

    url: str
    model: str
    key: str = field(default="", repr=False)
    check: Check = _no_check

    def __post_init__(self) -> None:
        if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", self.url):
            raise Invalid("the author's url must be http(s)://HOST/v1, of a server with chat completions", param="url")
        if not self.model:
            raise Invalid("name the author's model as its server knows it", param="model")

    async def propose(self, excerpts: Sequence[Excerpt], *, allowance: Allowance) -> Proposed:
        """Programs until the allowance is spent. Never raises for what the server says."""
        asking = _Asking(self, allowance)
        whole = conversations(excerpts)
        if not whole:
            return Proposed(faults=("nothing is recorded that an environment could be made of",))
        try:
            async with asyncio.timeout(allowance.seconds):
                await asking.run(prompt_of(whole))
        except TimeoutError:
            asking.faults.append(f"its {allowance.seconds:g} seconds were spent")
        return asking.proposed()


class _Asking:
    """One dream's conversation with the author."""

    def __init__(self, author: ModelAuthor, allowance: Allowance) -> None:
        self._author, self._allowance = author, allowance
        self._began = time.monotonic()
        self._calls = self._tokens = 0
        self._proposals: list[Proposal] = []
        self.faults: list[str] = []

    def proposed(self) -> Proposed:
        return Proposed(
            proposals=tuple(self._proposals), calls=self._calls, tokens=self._tokens,
            seconds=time.monotonic() - self._began, faults=tuple(self.faults),
        )  # fmt: skip

    async def run(self, prompt: str) -> None:
        first = [{"role": "user", "content": prompt}]
        messages = first
        headers = {"Authorization": f"Bearer {self._author.key}"} if self._author.key else {}
        async with httpx2.AsyncClient(headers=headers, timeout=self._allowance.seconds) as http:
            while len(self._proposals) < self._allowance.programs and self._may_ask():
                said = await self._ask(http, messages)
                if said is None:
                    return
                proposal = self._program(said)
                why = await self._author.check(proposal) if proposal else "your answer holds no ```python block"
                if proposal and not why:
                    self._proposals.append(proposal)
                    names = ", ".join(one.name for one in self._proposals)
                    more = f"Good. Now write another one, about something that these do not cover: {names}."
                    messages = [*first, {"role": "assistant", "content": said}, {"role": "user", "content": more}]
                else:
                    self.faults.append(why)
                    again = f"That does not work: {why}. Write the whole file again."
                    messages = [*first, {"role": "assistant", "content": said}, {"role": "user", "content": again}]

    def _may_ask(self) -> bool:
        for name, spent in (("calls", self._calls), ("tokens", self._tokens)):
            if spent >= getattr(self._allowance, name):
                self.faults.append(f"its {name} were spent")
                return False
        return True

    async def _ask(self, http: httpx2.AsyncClient, messages: Sequence[Json]) -> str | None:
        """What the model says; None where nothing can be had."""
        self._calls += 1
        room = min(ANSWER_TOKENS, self._allowance.tokens - self._tokens)
        body = {"model": self._author.model, "messages": list(messages), "max_tokens": room}
        url = self._author.url.rstrip("/") + "/chat/completions"
        try:
            async with http.stream("POST", url, json=body) as response:
                raw = b""
                async for part in response.aiter_bytes():
                    raw += part
                    if len(raw) > MOST_ANSWER:
                        self.faults.append(f"its server answered more than {MOST_ANSWER} bytes")
                        return None
            if response.status_code != 200:
                self.faults.append(f"its server answered {response.status_code}: check url, model and key")
                return None
            read: Any = json.loads(raw)
            text = read["choices"][0]["message"]["content"]
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            self.faults.append(f"its server could not be reached ({type(error).__name__}): check url and network")
            return None
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            self.faults.append("its server's answer is no chat completion")
            return None
        self._tokens += _written(read, text)
        return text if isinstance(text, str) else ""

    def _program(self, said: str) -> Proposal | None:
        blocks = _BLOCK.findall(said)
        source = max(blocks, key=len, default="")
        if not source.strip() or len(source) > MOST_SOURCE:
            return None
        number = len(self._proposals) + 1
        return Proposal(name=f"{self._author.model[:60]}: {number}", source=source, author=self._author.model)


def _written(read: Any, text: Any) -> int:
    """Tokens of an answer, as its server counts them, and never fewer than the text can have."""
    usage = read.get("usage")
    told = usage.get("completion_tokens") if isinstance(usage, dict) else None
    least = len(text) // 16 + 1 if isinstance(text, str) else 1
    return max(least, told) if isinstance(told, int) and not isinstance(told, bool) else max(least, len(str(text)) // 3)


def prompt_of(whole: Sequence[Excerpt]) -> str:
    """What the author is asked, with as many of the conversations as have room, the newest first."""
    room, shown = MOST_EXCERPTS, []
    for one in reversed(whole):
        text = json.dumps(
            {"messages": list(one.messages)} | ({"right": one.right} if one.right else {})
            | ({"liked": one.liked} if one.liked else {}), ensure_ascii=False,
        )  # fmt: skip
        if len(text) > room:
            break
        room -= len(text)
        shown.append(text)
    tools = next((list(one.tools) for one in reversed(whole) if one.tools), [])
    return PROMPT.format(tools=json.dumps(tools), conversations="\n".join(shown))
