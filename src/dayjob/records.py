"""The records everything else speaks of: frozen, keyword-only, standard library only.

Arrays travel as ``bytes`` (little-endian) so that this module needs no numpy: the width of an element and the
number of elements are said at the field. Times are milliseconds since the epoch and never decide an order: the
order of the journal is its sequence number.
"""

from dataclasses import dataclass, field
from typing import Any

from dayjob.endings import (
    Ending,
    EpisodeEnding,
    JobState,
    NoteChange,
    NoteScope,
    NoteState,
    OutcomeKind,
    PolicyKind,
    Receipt,
    Role,
    VerdictKind,
    VersionStatus,
)

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A named thing that decides, as its owner declared it.

    >>> Policy(tenant="default", name="geo", kind=PolicyKind.RANKER, spec={"context_dim": 512}, created_ms=0).name
    'geo'
    """

    tenant: str
    name: str
    kind: PolicyKind
    spec: Json  # the body of PUT /v1/policies/{name} with its defaults filled in
    created_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One candidate as journaled: ``digest`` keys its vector within the tenant (16 bytes)."""

    id: str
    digest: bytes


IMPORTED = "imported"  # who wrote the tokens of answers that were imported, in the place of a version


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One answer of a language policy: N tokens, the end-of-sequence token and those of a stop string among them.

    The two log-probabilities of a token are those of `policies.engine_protocol`.
    """

    token_ids: bytes  # N uint32
    model_logprobs: bytes  # N float32: log softmax(logits)[token]
    sample_logprobs: bytes  # N float32: of what the token was drawn from; empty where the engine cannot know it
    versions: tuple[tuple[str, int], ...]  # who wrote: (version, how many tokens) in their order; the counts sum to N
    seed: int  # of this choice's draws, 64 bits
    ending: Ending
    text: str  # as the client got it
    alternatives: tuple[tuple[tuple[int, float], ...], ...] = ()  # N lists of (token, log-prob), () unless asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What a language policy read and wrote in one decision. Text is never turned back into tokens: these are they."""

    base: str  # the base model's name in the configuration
    messages: tuple[Json, ...]  # the conversation as sent, notes not in it
    tools: tuple[Json, ...]
    prompt_ids: bytes  # uint32: what the model read, notes included
    bare_ids: bytes  # uint32: the same prompt without the notes; empty where there were none
    notes: tuple[str, ...]  # ids of the notes that stood in the context
    sampling: Json  # temperature, top_p, max_tokens, stop, the client's seed or null, top_logprobs (null: not asked)
    choices: tuple[Choice, ...]
    cached_tokens: int = 0  # of the prompt, that the prompt cache had


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One served ranking, with everything that explains it. K is ``len(candidates)``, R is ``len(ranking)`` <= K.

    A language policy's decision has a ``generation``: then there are no candidates, ``ranking`` counts its R choices,
    and every array of scores is empty; its propensities are those of its tokens.
    """

    tenant: str
    policy: str
    id: str
    body_digest: bytes  # of the request's parsed body: an equal retry has the same
    user: str | None
    session: str | None
    at_ms: int  # the server's clock
    version: str  # the champion's (role champion, trial, best) or the baseline's (role baseline)
    challenger: str | None  # role trial only
    role: Role
    role_propensity: float
    explore: bool
    seed: int  # of the sampling, 64 bits, derived from a secret and the id
    epsilon: float  # position 1 was drawn uniformly with this probability
    temperature: float  # of the Plackett-Luce sampling, in units of the scores
    intervened: bool  # position 1 was in fact drawn uniformly
    coin: int  # role trial: +1 when the challenger's first choice came first, -1 when second, 0 otherwise
    context: bytes  # context_dim numbers, see journal.vectors
    candidates: tuple[Candidate, ...]
    pair: bytes  # K x pair_dim float32
    base: bytes  # K float64: the caller's scores
    score: bytes  # K float64: what the order was drawn from
    rival_score: bytes  # K float64 of the challenger in role trial, else empty
    ranking: bytes  # R uint16: candidate slots in the order shown
    propensity: bytes  # R float64
    log_propensity: float
    extra: Json = field(default_factory=dict)  # candidates' meta and the caller's loss matrix, where given
    generation: Generation | None = None  # of a language policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A record with its place in the journal."""

    seq: int
    record: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Something learned later about a decision or a session."""

    tenant: str
    id: str
    body_digest: bytes
    policy: str  # "" until its decision is known, and for whole sessions
    decision: str | None
    session: str | None
    kind: OutcomeKind
    item: str | None
    position: int | None  # 1-based, as shown
    value: Any  # a number, {"relevance": {...}}, the id of the outcome to retract, or None
    text: str | None
    source: str  # "human" unless said otherwise
    user: str | None
    at_ms: int  # what the client said, else the server's clock
    received_ms: int
    key_id: str  # the key it came with; held outcomes are capped per key


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredOutcome:
    """An outcome with its place in the journal."""

    seq: int
    record: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """A decision with its surviving outcomes in journal order, and whether it is closed for judging.

    ``closed_seq`` is the outcome's sequence number that closed it, -1 when its window did, None while open.
    """

    stored: Stored
    outcomes: tuple[StoredOutcome, ...]
    closed_seq: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What became of one write: the receipt, the sequence number, and the first answer's record where it existed."""

    receipt: Receipt
    seq: int
    message: str = ""
    first: Decision | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogItem:
    """One item of a policy's catalog; ``vector`` as in journal.vectors."""

    id: str
    vector: bytes
    meta: Json | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One immutable set of weights, as control.db knows it."""

    tenant: str
    policy: str
    name: str  # "v3-1f2e3d4c"
    number: int
    parent: str | None
    recipe: str
    digest: str  # hex SHA-256 of the content
    from_seq: int  # the journal range it learned from, (from_seq, to_seq]
    to_seq: int
    status: VersionStatus
    created_ms: int
    detail: Json = field(default_factory=dict)  # temperature, epsilon, training figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointers:
    """Which versions serve a policy now. ``generation`` grows with every move; it fences the judge."""

    tenant: str
    policy: str
    champion: str
    previous: str | None
    challenger: str | None  # on trial
    baseline: str
    frozen: str  # "" | "champion" | "baseline": what serves while learning is stopped
    generation: int

    @property
    def replaced(self) -> str | None:
        """What the champion took over from: it is watched against that, and rolled back to it. None: the baseline
        serves."""
        return None if self.champion == self.baseline else self.previous or self.baseline


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One learning job."""

    id: str
    tenant: str
    policy: str
    recipe: str
    state: JobState
    progress: float
    result: Json | None
    error: str | None
    created_ms: int
    updated_ms: int
    until_seq: int | None  # the journal's newest sequence number when it was first taken up; None before


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the gate said of one (challenger, champion) pair, with its evidence."""

    tenant: str
    policy: str
    challenger: str
    champion: str
    kind: VerdictKind
    reason: str
    evidence: Json
    at_ms: int
    by: str  # "gate", "hand"; "erasure", "unlearning" of a version built again without a person, without lessons


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A process's right to judge or learn for one policy; ``token`` fences whoever held it before."""

    name: str
    holder: str
    token: int
    until_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteEvent:
    """One change of a note, as control.db keeps it: what outcomes do not say."""

    note: str
    change: NoteChange
    version: str  # learned, verified, failed: which; else ""
    at_ms: int
    by: str  # the id of a key, or the process that found it out


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What somebody taught, as it stands for one version: a projection of outcomes and of the events of notes."""

    tenant: str
    policy: str
    id: str  # the outcome's, or "agreed-..." of one that several people said
    scope: NoteScope
    user: str | None  # who taught it; None where nobody is named, and where several people did
    session: str | None  # in which it was taught; the only one where nobody is named
    decision: str | None  # that it speaks of; None for a whole session
    kind: OutcomeKind  # correction or demonstration
    asked: str  # the last question of that decision, shortened; "" for what holds whatever is asked
    answered: str  # what was answered then, shortened; "" where several people taught it
    text: str  # what was wrong or is right
    state: NoteState
    replaced_by: str | None  # the newer note on the same question
    support: int  # people who say so
    seq: int  # of the newest outcome behind it
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What an actor did once in an episode: N tokens behind a prompt, and what the environment gave for it.

    The log-probabilities are those the tokens were drawn with (`policies.engine_protocol`), never recomputed.
    """

    prompt_ids: tuple[int, ...]  # everything before, as it was read
    token_ids: tuple[int, ...]  # N, the end token among them
    logprobs: tuple[float, ...]  # N
    versions: tuple[str, ...]  # N: who wrote each token
    text: str
    reward: float = 0.0  # for this turn alone, where the environment has parts; 0 elsewhere


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """One episode of practice: the environment as it can be made again, its seed, what was done and what came of it.

    Attempts of one ``group`` are at one and the same task. ``messages`` is the conversation to its end, without the
    system's framing of tools; ``reward`` is that of the whole episode, in [0, 1].
    """

    spec: Json  # what `practice.registry.make` builds the environment from
    seed: int  # of the task
    group: str
    turns: tuple[Turn, ...]
    messages: tuple[Json, ...]
    reward: float
    parts: tuple[tuple[str, float], ...]  # the reward's parts, by name
    ending: EpisodeEnding
    error: str = ""  # with FAILED and TIMEOUT: what went wrong in the environment
