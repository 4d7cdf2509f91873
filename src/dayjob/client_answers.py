"""What the client gets back about rankers, people and policies: frozen records, one for each published answer."""

from collections.abc import Mapping
from dataclasses import dataclass

from dayjob.client_types import Feedback, Json
from dayjob.endings import FeedbackState, Invalid, JobState, PolicyKind, Role, VersionStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """One item at one position. ``propensity``: its probability there, given the role and the items above it."""

    id: str
    position: int
    score: float
    propensity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """One served decision. ``token`` lets a browser give feedback on this decision alone."""

    id: str
    policy: str
    version: str
    role: Role
    role_propensity: float
    log_propensity: float
    ranking: tuple[Ranked, ...]
    token: str | None = None

    def position(self, item: str) -> int:
        """Where ``item`` was shown, from 1. Raises Invalid when it was not."""
        for ranked in self.ranking:
            if ranked.id == item:
                return ranked.position
        raise Invalid(f"{item!r} was not served in decision {self.id}; choose one of its ranking.", param="item")

    def click(self, item: str) -> Feedback:
        """The outcome "a person clicked ``item`` where it was shown", ready to be sent."""
        return Feedback(decision=self.id, kind="click", item=item, position=self.position(item))

    def truth(self, relevance: Mapping[str, float]) -> Feedback:
        """The outcome "this is how good each item really was" (larger is better), ready to be sent."""
        for item in relevance:
            self.position(item)
        return Feedback(decision=self.id, kind="truth", value={"relevance": dict(relevance)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What became of one outcome: ``status`` is the HTTP status that it has, or in a batch would have had, alone."""

    id: str
    status: int  # 201 recorded, 200 already had it, 202 held, else refused
    receipt: str | None = None  # the same as a word, see endings.Receipt
    error: Json | None = None  # OpenAI's error object, where it was refused
    note: str | None = None  # "refused: " and why, where what was recorded will never be a note

    @property
    def ok(self) -> bool:
        return self.status < 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How much a policy has seen; outcomes by kind."""

    decisions: int
    outcomes: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A person's own layer of a language policy. ``newest``: what was learned last; ``status``: what became of it;
    ``job``: the night or dream of theirs that is not over."""

    user: str
    champion: str  # the baseline where nothing was promoted for them alone
    previous: str | None = None
    challenger: str | None = None
    baseline: str
    newest: str | None = None
    status: VersionStatus
    last_verdict: Json | None = None
    job: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A policy and where it stands. Versions are names ("v3-1f2e3d4c")."""

    name: str
    kind: PolicyKind
    spec: Json  # as declared, defaults included
    champion: str
    challenger: str | None = None
    baseline: str
    previous: str | None = None  # what a rollback puts back
    frozen: bool
    serves: str  # "champion" or "baseline"
    counts: Counts
    last_verdict: Json | None = None
    adapter: Adapter | None = None  # of the person that was asked for, if they have one


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One immutable set of weights, learned from the journal after ``journal_range``'s first, through its second."""

    version: str
    parent: str | None = None
    recipe: str
    created: str  # RFC 3339
    digest: str
    journal_range: tuple[int, int]
    status: VersionStatus
    detail: Json  # what learning it took and found


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRecord:
    """What is held about a person, and which versions learned from it. ``held``: the records themselves, as
    {"decisions": [..], "outcomes": [..]}; the counts are of those."""

    user: str
    learn: bool
    decisions: int
    outcomes: int
    versions: tuple[str, ...]
    held: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """What was erased, and which versions ("policy/version") will not come back because of it: ``adapters_withdrawn``
    were the person's own; of the others, ``trials_ended`` were on trial. The champion of each policy in ``rebuilding``
    serves until it is built again.
    """

    user: str
    decisions: int
    outcomes: int
    versions_tainted: tuple[str, ...]
    adapters_withdrawn: tuple[str, ...] = ()
    trials_ended: tuple[str, ...] = ()
    rebuilding: tuple[str, ...] = ()
    learn: bool = True  # their wish: False outlives the erasure


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A piece of work that the learner does. ``progress`` from 0 to 1."""

    job: str
    state: JobState
    progress: float = 0.0
    result: Json | None = None
    error: str | None = None

    @property
    def id(self) -> str:
        """The same as ``job``."""
        return self.job

    @property
    def finished(self) -> bool:
        return self.state in (JobState.SUCCEEDED, JobState.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackReport:
    """What the clicks of a policy can teach. ``share_at``: the share of clicks at each position; ``informative_share``:
    what share of them depends on the item, with its 95 % ends; None where it is not known."""

    state: FeedbackState
    reason: str
    share_at: tuple[float, ...] = ()
    needed: int | None = None
    informative_share: float | None = None
    informative_share_at_least: float | None = None
    informative_share_at_most: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A policy's report. ``gate`` has judged_through, lag (0: every closed decision is judged), trial, estimates and
    verdicts; ``people``: how many of them look, and how far they differ; ``gaming``: reward against truth;
    ``exposure``: how first places are shared among items; ``made``: when the judge wrote it (RFC 3339), None before it
    looked."""

    feedback: FeedbackReport
    bias: Json
    people: Json
    ceiling: Json
    learning: Json
    gaming: Json
    gate: Json
    drift: Json
    exposure: Json
    forgetting: Json
    made: str | None = None
