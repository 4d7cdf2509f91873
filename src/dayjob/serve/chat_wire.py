"""OpenAI's chat completion: what is asked and what is answered.

What this server has no use for but clients send by habit (``store``, ``service_tier``, ``prompt_cache_key``, ...) is
taken and ignored; what would change the answer and cannot be honoured is refused, unless it has its neutral value.
"""

from typing import Annotated, Any, Final, Literal
from uuid import UUID

import orjson
from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, model_validator

from dayjob.policies.engine_protocol import MAX_TOP_LOGPROBS
from dayjob.records import Json
from dayjob.serve.answers import Answered
from dayjob.serve.fields import MAX_SAFE_INTEGER, Finite, Name, misfit
from dayjob.serve.wire import Asked

MAX_CHOICES: Final = 16
MAX_MESSAGES: Final = 4_096
MAX_STOPS: Final = 16
MAX_TOOLS: Final = 128
LOWEST_LOGPROB: Final = -9999.0  # what OpenAI says of a token that was all but impossible

# Fields that would change the answer, and the values of theirs that change nothing.
_NEUTRAL: Final[dict[str, tuple[Any, ...]]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "tool_choice": ("auto", "none"),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
}
_MESSAGE_NEUTRAL: Final = ("refusal", "audio", "function_call", "annotations")


def _text_of(content: Any) -> Any:
    """A message's content as one text; parts of text are put behind one another."""
    if content is None or isinstance(content, str):
        return content
    if isinstance(content, list) and content:
        parts = [part if isinstance(part, dict) else {} for part in content]
        if all(part.get("type") == "text" and isinstance(part.get("text"), str) for part in parts):
            return "".join(part["text"] for part in parts)
    raise ValueError('this model reads text: send a string, or parts of {"type": "text", "text"}')


def _stops_of(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else stop


def _sound(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text holds half a character (a lone surrogate): remove it") from None
    return text


def _storable(value: Any) -> Any:
    try:
        orjson.dumps(value)
    except TypeError:
        raise ValueError("it holds a number beyond 64 bits: send it as a string") from None
    return value


Text = Annotated[str, AfterValidator(_sound)]
Objects = Annotated[list[dict[str, JsonValue]], Field(max_length=MAX_TOOLS), AfterValidator(_storable)]


class Message(Asked):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[Text | None, BeforeValidator(_text_of)] = None
    name: Name | None = None
    tool_calls: Objects | None = None
    tool_call_id: Name | None = None
    # What a client sends back of an answer; nothing of it means anything to a model that reads text.
    refusal: JsonValue = None
    audio: JsonValue = None
    function_call: JsonValue = None
    annotations: JsonValue = None

    @model_validator(mode="after")
    def _says_something(self) -> "Message":
        for field in _MESSAGE_NEUTRAL:
            if getattr(self, field):
                raise ValueError(f"{field} is not understood by a model that reads text; leave it out")
        if self.content is None and not (self.role == "assistant" and self.tool_calls):
            raise ValueError(f"a message of role {self.role} needs content")
        return self

    def plain(self) -> Json:
        """As chat templates read it: ``developer`` is the system, and a tool call's arguments are an object."""
        out: Json = {"role": "system" if self.role == "developer" else self.role, "content": self.content or ""}
        named = {"name": self.name, "tool_call_id": self.tool_call_id}
        out |= {key: value for key, value in named.items() if value is not None}
        if self.tool_calls:
            out["tool_calls"] = [_opened(call) for call in self.tool_calls]
        return out


def _opened(call: dict[str, Any]) -> Json:
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = orjson.loads(function["arguments"])
    except orjson.JSONDecodeError:
        return call
    return call | {"function": function | {"arguments": arguments}}


class StreamOptions(Asked):
    """What a stream tells beside the answer."""

    include_usage: bool = False
    include_obfuscation: bool | None = None


class ChatRequest(Asked):
    """The body of ``POST /v1/chat/completions``."""

    model: Annotated[str, Field(min_length=1, max_length=200)]
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    id: UUID | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    temperature: Finite | None = None
    top_p: Finite | None = None
    max_tokens: Annotated[int, Field(ge=1, le=MAX_SAFE_INTEGER)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_SAFE_INTEGER)] | None = None
    stop: Annotated[list[Text] | None, Field(max_length=MAX_STOPS), BeforeValidator(_stops_of)] = None
    seed: Annotated[int, Field(ge=-(1 << 63), le=(1 << 63) - 1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    tools: Objects | None = None
    user: Name | None = None
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = None
    frequency_penalty: JsonValue = None
    presence_penalty: JsonValue = None
    logit_bias: JsonValue = None
    response_format: JsonValue = None
    modalities: JsonValue = None
    tool_choice: JsonValue = None
    reasoning_effort: JsonValue = None
    verbosity: JsonValue = None
    parallel_tool_calls: JsonValue = None
    prompt_cache_key: JsonValue = None
    prompt_cache_retention: JsonValue = None
    safety_identifier: JsonValue = None
    service_tier: JsonValue = None
    store: JsonValue = None

    @model_validator(mode="after")
    def _can_be_honoured(self) -> "ChatRequest":
        for field, neutral in _NEUTRAL.items():
            value = getattr(self, field)
            if value is not None and value not in neutral:
                raise misfit(field, f"{field} is not supported by this server; leave it out")
        if self.top_logprobs and not self.logprobs:
            raise misfit("top_logprobs", "top_logprobs needs logprobs: true")
        if self.max_tokens and self.max_completion_tokens and self.max_tokens != self.max_completion_tokens:
            raise misfit("max_tokens", "max_tokens and max_completion_tokens differ; send one of them")
        session = (self.metadata or {}).get("session")
        if session is not None and not (1 <= len(session) <= 256 and session.isprintable()):
            raise misfit("metadata.session", "metadata.session must be 1 to 256 printable characters")
        return self

    @property
    def session(self) -> str | None:
        """The conversation this belongs to."""
        return (self.metadata or {}).get("session")

    @property
    def plain_tools(self) -> tuple[Json, ...]:
        """What the chat template is told of tools."""
        return () if self.tool_choice == "none" else tuple(self.tools or ())

    @property
    def told_logprobs(self) -> int | None:
        """How many alternatives a token is told with; None: no log-probabilities at all."""
        return (self.top_logprobs or 0) if self.logprobs else None


class Alternative(Answered):
    """A token that might have been; ``bytes`` is null where it is a piece of a character."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(Alternative):
    """A token of the answer, the one that ends it included."""

    top_logprobs: list[Alternative]


class ChoiceLogprobs(Answered):
    """The tokens of an answer."""

    content: list[TokenLogprob]
    refusal: None = None


class AnswerMessage(Answered):
    """What the model said."""

    role: Literal["assistant"]
    content: str
    refusal: None = None


class AnswerChoice(Answered):
    """One of the answers; ``index`` is the ``item`` of feedback."""

    index: int
    message: AnswerMessage
    logprobs: ChoiceLogprobs | None
    finish_reason: Literal["stop", "length"]


class PromptDetails(Answered):
    """Of the prompt's tokens, those that the prompt cache had."""

    cached_tokens: int


class Usage(Answered):
    """Tokens read and written, over all choices."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class ChatAnswer(Answered):
    """The answer to ``POST /v1/chat/completions``: ``id`` is the decision's, ``model`` is ``policy@version``."""

    id: UUID
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[AnswerChoice]
    usage: Usage


class ModelView(Answered):
    """A policy, or with ``@`` one version of it. ``root``: the base model; ``parent``: the version it came after."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    parent: str | None


class ModelList(Answered):
    """Everything a chat's ``model`` may name."""

    object: Literal["list"]
    data: list[ModelView]
