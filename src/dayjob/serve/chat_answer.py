"""A journaled generation as OpenAI's answer, whole or in chunks: made from the record alone, so an equal retry gets the
same."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import orjson

from dayjob.endings import Ending
from dayjob.records import Choice, Decision, Generation, Json
from dayjob.serve.chat_wire import LOWEST_LOGPROB
from dayjob.serve.models import Tokenizer

DONE = b"data: [DONE]\n\n"
UNFINISHED = "�"  # what tokens that are no whole characters look like
FINISH = {Ending.STOP: "stop", Ending.LENGTH: "length"}


def completion(decision: Decision, tokens: Tokenizer) -> Json:
    """The answer in one piece."""
    generation = generation_of(decision)
    return _head(decision, "chat.completion") | {
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": choice.text, "refusal": None},
                "logprobs": choice_logprobs(choice, generation.sampling, tokens=tokens),
                "finish_reason": FINISH[choice.ending],
            }
            for index, choice in enumerate(generation.choices)
        ],
        "usage": usage(generation),
    }


def replayed(decision: Decision, tokens: Tokenizer, *, with_usage: bool) -> Iterator[bytes]:
    """The events of a stream whose answer is known already."""
    generation = generation_of(decision)
    for index, choice in enumerate(generation.choices):
        yield opening(decision, index)
        told = choice_logprobs(choice, generation.sampling, tokens=tokens)
        yield piece(decision, index, text=choice.text, logprobs=told)
    yield from closing(decision, with_usage=with_usage)


def opening(decision: Decision, index: int) -> bytes:
    """The first event of a choice: who speaks."""
    return _event(decision, index, delta={"role": "assistant", "content": "", "refusal": None})


def piece(decision: Decision, index: int, *, text: str, logprobs: Json | None) -> bytes:
    """More of a choice's text."""
    return _event(decision, index, delta={"content": text}, logprobs=logprobs)


def closing(decision: Decision, *, with_usage: bool) -> Iterator[bytes]:
    """How each choice ended, and the end of the stream: only what is durable gets here."""
    generation = generation_of(decision)
    for index, choice in enumerate(generation.choices):
        yield _event(decision, index, delta={}, finish=FINISH[choice.ending])
    if with_usage:
        body = _head(decision, "chat.completion.chunk") | {"choices": [], "usage": usage(generation)}
        yield sse(body)
    yield DONE


def sse(value: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + orjson.dumps(value) + b"\n\n"


def generation_of(decision: Decision) -> Generation:
    """What a language policy's decision wrote."""
    assert decision.generation is not None, "a language policy's decision has one"
    return decision.generation


def usage(generation: Generation) -> Json:
    """Tokens read and written, over all choices."""
    read = len(generation.prompt_ids) // 4
    written = sum(len(choice.token_ids) // 4 for choice in generation.choices)
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": {"cached_tokens": generation.cached_tokens},
    }


def choice_logprobs(choice: Choice, sampling: Json, *, tokens: Tokenizer) -> Json | None:
    """What the request asked to be told of a choice's tokens; None where it asked for nothing."""
    if sampling["top_logprobs"] is None:
        return None
    ids = np.frombuffer(choice.token_ids, "<u4").tolist()
    logprobs = np.frombuffer(choice.model_logprobs, "<f4").tolist()
    alternatives = choice.alternatives or ((),) * len(ids)
    return {
        "content": [
            told_token(one, logprob, tokens=tokens)
            | {"top_logprobs": [told_token(*other, tokens=tokens) for other in others]}
            for one, logprob, others in zip(ids, logprobs, alternatives, strict=True)
        ],
        "refusal": None,
    }


def told_token(token_id: int, logprob: float, *, tokens: Tokenizer) -> Json:
    """A token as the wire shows it."""
    text = tokens.text((token_id,))
    whole = UNFINISHED not in text
    return {"token": text, "logprob": max(logprob, LOWEST_LOGPROB), "bytes": list(text.encode()) if whole else None}


def _head(decision: Decision, kind: str) -> Json:
    return {
        "id": decision.id,
        "object": kind,
        "created": decision.at_ms // 1000,
        "model": f"{decision.policy}@{decision.version}",
        "system_fingerprint": decision.version,
    }


def _event(
    decision: Decision, index: int, *, delta: Json, logprobs: Json | None = None, finish: str | None = None
) -> bytes:
    choices: Sequence[Json] = [{"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}]
    return sse(_head(decision, "chat.completion.chunk") | {"choices": choices})
