"""Text and tokens: chat templates in, streamed text out.

Token ids are what is served, scored and stored; text is made from them and never turned back into them. A tokenizer
comes from the model's own folder, with its chat template, without remote code.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from dayjob.endings import Invalid
from dayjob.policies.model_folder import first_line, read_config
from dayjob.records import Json

UNFINISHED = "�"  # what a decoder shows for bytes that are no character, or not yet
TEMPLATE_REMEDY = "repair chat_template.jinja beside its tokenizer, or copy the model's own there"
NO_TEMPLATE = (
    "this model has no chat template: serve one that was made to converse, or save its template as chat_template.jinja "
    "beside its tokenizer"
)
PROBE: Json = {"role": "user", "content": "hello"}
THINKING = "enable_thinking"  # what templates of Qwen3's kind ask: whether an answer begins with thoughts
_MAX_HELD = 64  # tokens that may wait for the rest of a character before they are shown as they are


class Tokens:
    """A tokenizer with what an engine needs of it. Immutable; safe to share between threads."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        end_ids: Sequence[int] = (),
        template: Mapping[str, Any] | None = None,
    ) -> None:
        """``end_ids``: further tokens that end an answer, beside the tokenizer's own end-of-sequence token.

        ``template``: what the chat template is told beside the messages; of ``enable_thinking`` it is told False unless
        this says otherwise. As attribute: all that it is told. ``control``: the texts of the control tokens, which no
        message may hold.

        Raises Invalid for something that the template does not speak of: it would change nothing.
        """
        own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        self.end_ids = frozenset((*own, *end_ids))
        self._tokenizer = tokenizer
        added = {str(one) for one in tokenizer.added_tokens_decoder.values() if one.special}
        self.control = tuple(sorted(added | set(tokenizer.all_special_tokens)))
        self.template: Mapping[str, Any] = _arguments(tokenizer, template or {})

    @staticmethod
    def open(folder: Path, *, template: Mapping[str, Any] | None = None) -> Tokens:
        """The tokenizer of a model's folder, with the end tokens its ``generation_config.json`` names.

        Raises Invalid when the folder has none, or its chat template does not speak of what it is to be told.
        """
        from transformers import GenerationConfig

        read_config(folder)  # a broken one would be told as a tokenizer that is not there
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError) as error:
            message = f"{folder} holds no tokenizer that can be read: save it there with tokenizer.save_pretrained"
            raise Invalid(f"{message} ({first_line(error)})", param="base") from error
        ends: Any = []
        if (folder / "generation_config.json").exists():
            ends = GenerationConfig.from_pretrained(folder, local_files_only=True).eos_token_id
        return Tokens(tokenizer, end_ids=[ends] if isinstance(ends, int) else ends or [], template=template)

    def render(self, messages: Sequence[Json], *, tools: Sequence[Json] | None = None) -> tuple[int, ...]:
        """The prompt of a conversation, up to where the assistant speaks.

        Raises Invalid when the model has no chat template, the template refuses the messages, or one of them or of the
        tools holds a control token as text: it would speak with another's voice.
        """
        for number, message in enumerate(messages):
            for text in _texts(message):
                found = next((one for one in self.control if one in text), None)
                if found is not None:
                    raise Invalid(f"message {number} holds the control token {found!r}: remove it", param="messages")
        found = next((one for text in _texts(tools or ()) for one in self.control if one in text), None)
        if found is not None:
            raise Invalid(f"the tools hold the control token {found!r}: remove it", param="tools")
        if self._tokenizer.chat_template is None:
            raise Invalid(NO_TEMPLATE, param="model")
        try:
            return self._rendered(messages, tools)
        except Exception as error:  # whatever a template, which is a program of the model's maker, may raise
            raise Invalid(f"the model's chat template refuses these messages: {error}", param="messages") from error

    def _rendered(self, messages: Sequence[Json], tools: Sequence[Json] | None = None) -> tuple[int, ...]:
        ids = self._tokenizer.apply_chat_template(
            list(messages), tools=tools or None, add_generation_prompt=True, tokenize=True, return_dict=False,
            **self.template,
        )  # fmt: skip
        return tuple(ids)

    def template_fault(self) -> str:
        """Why no chat at all can be rendered, with the remedy; "" where one message of a user can. A template that
        knows no system or no tools is sound: it refuses what it does not know when it is asked to render it."""
        if self._tokenizer.chat_template is None:
            return NO_TEMPLATE
        try:
            rendered = self._rendered([PROBE])
        except Exception as error:  # as in `render`
            return f"its chat template fails on a plain message of a user ({first_line(error)}): {TEMPLATE_REMEDY}"
        return "" if rendered else f"its chat template writes nothing: {TEMPLATE_REMEDY}"

    def encode(self, text: str) -> tuple[int, ...]:
        """The tokens of plain text: nothing is added to it, and what looks like a control token is only text."""
        return tuple(self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))

    def text(self, token_ids: Sequence[int]) -> str:
        """The text of tokens, control tokens left out."""
        text = self._tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)


def _arguments(tokenizer: PreTrainedTokenizerBase, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the chat template is told, in the order of its names."""
    text = str(tokenizer.chat_template or "")
    ours = {"messages", *inspect.signature(tokenizer.apply_chat_template).parameters}
    for name in given:
        if name in ours or not re.search(rf"\b{re.escape(name)}\b", text):
            raise Invalid(f"template: the model's chat template is told no {name!r}: leave it out", param="base")
    default = {THINKING: False} if re.search(rf"\b{THINKING}\b", text) else {}
    return dict(sorted((default | dict(given)).items()))


class TextStream:
    """The text of one answer, token by token: never half a character, never a part of a stop string."""

    def __init__(self, tokens: Tokens, *, stop: Sequence[str] = ()) -> None:
        self.stopped = False  # a stop string was met; nothing follows
        self._tokens = tokens
        self._stop = tuple(stop)
        self._ids: list[int] = []  # from one shown token before the first that is not shown
        self._shown = 0  # how many of them
        self._held = ""  # text that may be the beginning of a stop string

    def push(self, token_id: int) -> str:
        """The text that became certain with one more token."""
        self._ids.append(token_id)
        # Decoders treat a first token differently (they drop its space): decode from a token that was shown already.
        before = self._tokens.text(self._ids[: self._shown])
        text = self._tokens.text(self._ids)
        waiting = len(self._ids) - self._shown
        if len(text) <= len(before) or (text.endswith(UNFINISHED) and waiting < _MAX_HELD):
            return ""
        self._ids = self._ids[self._shown :]
        self._shown = len(self._ids)
        return self._release(text[len(before) :])

    def finish(self) -> str:
        """What was held back, when no token follows."""
        if self.stopped:
            return ""
        rest = self._tokens.text(self._ids)[len(self._tokens.text(self._ids[: self._shown])) :]
        text = self._release(rest)
        held, self._held = self._held, ""
        return text + held

    def _release(self, text: str) -> str:
        text = self._held + text
        found = [place for place in (text.find(stop) for stop in self._stop) if place >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        hold = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - hold :]
        return text[: len(text) - hold]


def pack_ids(token_ids: Sequence[int]) -> bytes:
    """Token ids as a record keeps them: little-endian uint32."""
    return np.asarray(token_ids, "<u4").tobytes()


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of ``text`` are the beginning of ``stop``, the whole of it left out."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)


def _texts(value: object) -> Iterator[str]:
    """Every string in a message, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(key)
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
