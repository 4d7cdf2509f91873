"""What a language engine is, to whoever serves, judges or rolls out: tokens in, tokens and log-probabilities out.

Standard library only, never torch. Lengths: a chunk holds N >= 0 tokens and every tuple in it that speaks of tokens
has N entries.

**Two log-probabilities a token**, natural, from FP32 logits, for the version that is stamped on the token:

- ``model_logprobs``: log softmax(logits)[token]. What the model thinks, whatever the sampling; the number that a plain
  forward of the learner gives again within 1e-3, and that the wire shows as ``logprobs``.
- ``sample_logprobs``: of the distribution the token was drawn from, log softmax(logits / temperature)[token], less the
  log of the nucleus's mass where ``top_p`` < 1, and 0 where ``temperature`` is 0. The behaviour log-probability of
  importance ratios: with ``top_p`` 1 it equals ``token_logprobs(..., temperature=...)`` of the objectives.

Both are journaled with temperature and top_p, so nothing about the draw has to be guessed later.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from dayjob.endings import Ending, Invalid

MAX_TOP_LOGPROBS = 20
MIN_TEMPERATURE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRef:
    """One version of the weights, as whoever assembles hands it over. Nothing in it ever comes from a request.

    ``folder`` None is the base model itself. ``files`` are the SHA-256 (hex) of the folder's files, as the version's
    manifest has them: what is read must match, file by file, or the version does not load.

    >>> VersionRef(name="v0-00000000", digest="ab" * 32).folder
    """

    name: str  # what requests and stamps say; unique within one engine
    digest: str  # hex SHA-256 of the version's content
    folder: Path | None = None  # a PEFT folder: adapter_config.json, adapter_model.safetensors
    files: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """Token ids of a rendered prompt, at least one. Prefixes are shared in the prompt cache only within one ``salt``
    (:func:`salt_of`), so that nobody learns what stands in another's context by guessing it."""

    token_ids: tuple[int, ...]
    salt: str = ""


def salt_of(tenant: str, user: str | None) -> str:
    """Who shares computed prefixes: a person with themselves alone, whoever is not named with the tenant's others.

    >>> salt_of("office", None), salt_of("office", "ann"), salt_of("office/ann", None)
    ('6:office', '6:office/ann', '10:office/ann')
    """
    return f"{len(tenant)}:{tenant}" if user is None else f"{len(tenant)}:{tenant}/{user}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn. Raises Invalid for values outside their range."""

    max_tokens: int
    temperature: float = 1.0  # 0: the most probable token
    top_p: float = 1.0  # draw from the smallest set of most probable tokens with at least this mass
    stop: tuple[str, ...] = ()  # the answer ends before the first of these strings
    seed: int = 0  # 64 bits; equal seeds draw equal tokens, whatever else is in the batch
    top_logprobs: int = 0  # most probable alternatives to report for every token

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise Invalid("max_tokens must be at least 1", param="max_tokens")
        if not (self.temperature == 0 or MIN_TEMPERATURE <= self.temperature <= 100):
            message = f"temperature must be 0 (the most probable token) or between {MIN_TEMPERATURE} and 100"
            raise Invalid(message, param="temperature")
        if not 0 < self.top_p <= 1:
            raise Invalid("top_p must be above 0 and at most 1", param="top_p")
        if "" in self.stop:
            raise Invalid("a stop string must not be empty: leave it out", param="stop")
        if not 0 <= self.seed < 1 << 64:
            raise Invalid("seed must be a whole number from 0 to 2**64 - 1", param="seed")
        if not 0 <= self.top_logprobs <= MAX_TOP_LOGPROBS:
            raise Invalid(f"top_logprobs must be between 0 and {MAX_TOP_LOGPROBS}", param="top_logprobs")


Alternatives = tuple[tuple[int, float], ...]  # (token id, model log-probability), most probable first


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A piece of an answer: N tokens, and the text that became certain with them.

    The end-of-sequence token and the tokens of a stop string are among the tokens (they were decided, and teach), never
    in the text. Text may lag behind tokens: half a character, or what may become a stop string, is held back.
    """

    token_ids: tuple[int, ...]
    model_logprobs: tuple[float, ...]
    sample_logprobs: tuple[float, ...] | None  # None: this backend cannot know them for this sampling
    versions: tuple[str, ...]  # the version that wrote each token
    top_logprobs: tuple[Alternatives, ...]  # N entries, each empty unless asked for
    text: str
    ending: Ending | None = None  # in the last chunk, and only there
    cached_tokens: int = 0  # in the first chunk: tokens of the prompt that the prompt cache had


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Model log-probabilities of given tokens, one entry a token."""

    model_logprobs: tuple[float, ...]
    top_logprobs: tuple[Alternatives, ...]
    version: str


class InFlight(StrEnum):
    """What a swap means for answers that are being written."""

    FINISH = "finish"  # they keep the version they began with
    MOVE = "move"  # the new version writes on from the next token; each token is stamped with its own


class Engine(Protocol):
    """Serves one base model and any number of adapters of it. All methods may be called from one event loop at once.

    A *name* in ``version`` is a version's name or an alias set by :meth:`swap`. Every method raises NotFound for a name
    that was never loaded, Damaged for a folder that does not fit or match its digests, Overloaded when too many wait.
    """

    def generate(self, prompt: Prompt, version: str, *, sampling: Sampling) -> AsyncGenerator[Chunk, None]:
        """The answer, in chunks. Closing the generator, or cancelling its task, frees its place in the batch.

        Raises Invalid when the prompt is empty, too long or holds ids outside the vocabulary.
        """
        ...

    async def score(self, prompt: Prompt, version: str, *, token_ids: Sequence[int], top_logprobs: int = 0) -> Scored:
        """Log-probabilities of ``token_ids`` behind the prompt, as the version would have served them."""
        ...

    async def load(self, ref: VersionRef, *, now: bool = True) -> None:
        """Make a version known. ``now``: read and verify it too; otherwise it is read when first asked for.

        A version that was put out of memory for another stays known and is read again on demand.
        """
        ...

    async def swap(self, alias: str, ref: VersionRef, *, in_flight: InFlight = InFlight.FINISH) -> None:
        """Load ``ref``, then let ``alias`` mean it. A version that does not load leaves the alias as it was."""
        ...

    async def drop(self, version: str) -> None:
        """Forget a version: no new request gets it, answers being written with it are finished. Its weights and what
        the prompt cache has of it leave the memory with the last of them.

        Raises Conflict while an alias means it.
        """
        ...

    async def forget(self, salt: str) -> None:
        """Put out of memory what was computed for prompts of a salt; what is being written for one leaves nothing."""
        ...

    def versions(self) -> Mapping[str, str]:
        """Every known name: versions mean themselves, aliases the version they stand for."""
        ...

    async def close(self) -> None:
        """End answers being written with Ending.ABORTED and free what is held. Further calls raise Invalid."""
        ...
