"""What a language policy wrote, as the columns of a row and as plain JSON; back from both.

Arrays of all choices lie behind one another in one blob, choice by choice: token ids (uint32), model log-probabilities
(float32), and sample log-probabilities (float32) where they are known. How many there are is said in the JSON beside.
"""

import base64

import orjson

from dayjob.endings import Damaged, Ending
from dayjob.records import Choice, Generation, Json

Columns = tuple[str | None, bytes | None, bytes | None, bytes | None]
"""generation, prompt_ids, bare_ids, choices: NULL in the row of a ranking."""
NOTHING: Columns = (None, None, None, None)
WIDTH = 4  # bytes of a token id and of a log-probability


def generation_columns(generation: Generation | None) -> Columns:
    """The columns of a generation."""
    if generation is None:
        return NOTHING
    arrays = b"".join(
        part for one in generation.choices for part in (one.token_ids, one.model_logprobs, one.sample_logprobs)
    )
    # Keys in the order they came in: a chat template writes tools as JSON, and is to write the same prompt again.
    told = orjson.dumps(_told(generation)).decode()
    return told, generation.prompt_ids, generation.bare_ids or None, arrays


def row_generation(columns: Columns) -> Generation | None:
    """The generation in its columns. Raises Damaged where the arrays are not as long as they are said to be."""
    text, prompt_ids, bare_ids, arrays = columns
    if text is None:
        return None
    told, choices, at = orjson.loads(text), [], 0
    for one in told.pop("choices"):
        size, known = WIDTH * one.pop("tokens"), one.pop("sampled")
        parts = [(arrays or b"")[at + size * part : at + size * (part + 1)] for part in range(2 + known)]
        at += size * len(parts)
        choices.append(_choice(one, parts[0], parts[1], sample=parts[2] if known else b""))
    if at != len(arrays or b""):
        raise Damaged(f"a generation has {len(arrays or b'')} bytes of tokens where {at} were expected")
    return _generation(told, prompt_ids or b"", bare_ids or b"", choices=choices)


def text_of(column: str) -> Generation:
    """A generation from its first column alone: all but arrays of tokens, which are empty."""
    told = orjson.loads(column)
    choices = []
    for one in told.pop("choices"):
        del one["tokens"], one["sampled"]
        choices.append(_choice(one, b"", b"", sample=b""))
    return _generation(told, b"", b"", choices=choices)


def plain_generation(generation: Generation | None) -> Json | None:
    """A generation as JSON, bytes as base64: for archives."""
    if generation is None:
        return None
    text, prompt_ids, bare_ids, arrays = generation_columns(generation)
    blobs = {"prompt_ids": prompt_ids, "bare_ids": bare_ids, "arrays": arrays}
    return {"told": text} | {name: base64.b64encode(blob or b"").decode() for name, blob in blobs.items()}


def generation_of(plain: Json | None) -> Generation | None:
    """The inverse of `plain_generation`. Raises ValueError, TypeError or KeyError for what is none."""
    if plain is None:
        return None
    prompt_ids, bare_ids, arrays = (
        base64.b64decode(plain[name], validate=True) for name in ("prompt_ids", "bare_ids", "arrays")
    )
    try:
        return row_generation((str(plain["told"]), prompt_ids, bare_ids, arrays))
    except Damaged as error:
        raise ValueError(str(error)) from None


def _told(generation: Generation) -> Json:
    """What is no array."""
    return {
        "base": generation.base, "messages": generation.messages, "tools": generation.tools,
        "notes": generation.notes, "sampling": generation.sampling, "cached_tokens": generation.cached_tokens,
        "choices": [
            {
                "tokens": len(one.token_ids) // WIDTH, "sampled": bool(one.sample_logprobs), "versions": one.versions,
                "seed": str(one.seed), "ending": one.ending.value, "text": one.text, "alternatives": one.alternatives,
            }
            for one in generation.choices
        ],
    }  # fmt: skip


def _choice(told: Json, token_ids: bytes, model: bytes, *, sample: bytes) -> Choice:
    return Choice(
        token_ids=token_ids, model_logprobs=model, sample_logprobs=sample,
        versions=tuple((str(name), int(count)) for name, count in told["versions"]), seed=int(told["seed"]),
        ending=Ending(told["ending"]), text=told["text"],
        alternatives=tuple(tuple((int(one), float(p)) for one, p in some) for some in told["alternatives"]),
    )  # fmt: skip


def _generation(told: Json, prompt_ids: bytes, bare_ids: bytes, *, choices: list[Choice]) -> Generation:
    lists: Json = {name: tuple(told[name]) for name in ("messages", "tools", "notes")}
    return Generation(prompt_ids=prompt_ids, bare_ids=bare_ids, choices=tuple(choices), **told | lists)
