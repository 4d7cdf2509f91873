"""What the service answers: the shapes of the wire contract, from which its OpenAPI document is made.

Handlers on the hot path may write the same JSON directly; the contract test holds them to these models.
"""

from typing import Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, JsonValue

from dayjob.endings import FeedbackState, JobState, OutcomeKind, PolicyKind, Receipt, VerdictKind, VersionStatus

Json = dict[str, JsonValue]


class Answered(BaseModel):
    """The root of every answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ErrorDetail(Answered):
    """What went wrong and what to do next."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorAnswer(Answered):
    """OpenAI's error shape."""

    error: ErrorDetail


class RankedItem(Answered):
    """One place of a ranking. ``propensity``: of this item here, given the ones above and the role."""

    id: str
    position: int
    score: float
    propensity: float


class RankResponse(Answered):
    """The answer to ``POST /v1/rank``."""

    id: UUID
    policy: str
    version: str
    role: Literal["champion", "trial", "baseline"]
    role_propensity: float
    log_propensity: float
    token: str | None = None
    ranking: list[RankedItem]


class FeedbackReceipt(Answered):
    """What became of one outcome. In a batch ``status`` is the code it would have had alone. ``note``: only where what
    was recorded will never be a note: "refused: " and why."""

    id: UUID | None = None
    receipt: Receipt | None = None
    status: int
    error: ErrorDetail | None = None
    note: str | None = None


class CatalogReceipt(Answered):
    """How many items the catalog holds now."""

    items: int


class Counts(Answered):
    """How much a policy has seen."""

    decisions: int
    outcomes: dict[OutcomeKind, int]


class VerdictView(Answered):
    """What the gate said of one challenger."""

    kind: VerdictKind
    challenger: str
    champion: str
    reason: str
    at: AwareDatetime
    by: str
    evidence: Json


class PolicyView(Answered):
    """A policy as it stands. ``spec`` is what it was declared with, defaults included."""

    name: str
    kind: PolicyKind
    spec: Json
    champion: str
    challenger: str | None = None
    baseline: str
    previous: str | None = None
    frozen: bool
    serves: Literal["champion", "baseline"]
    counts: Counts
    last_verdict: VerdictView | None = None


class VersionView(Answered):
    """One version. ``journal_range``: sequence numbers (after, through) of what it learned from."""

    version: str
    parent: str | None = None
    recipe: str
    created: AwareDatetime
    digest: str
    journal_range: tuple[int, int]
    status: VersionStatus
    detail: Json


class JobStarted(Answered):
    """A job was queued, or is already running."""

    job: str


class JobView(Answered):
    """A job as it stands; ``progress`` from 0 to 1."""

    state: JobState
    progress: float
    result: Json | None = None
    error: str | None = None


class FeedbackReport(Answered):
    """What the clicks of a policy can teach. ``share_at``: the share of clicks at each position, from the first;
    ``informative_share``: what share of them depends on the item, with its 95 % ends; null where it is not known."""

    state: FeedbackState
    reason: str
    share_at: list[float]
    needed: int | None = None
    informative_share: float | None = None
    informative_share_at_least: float | None = None
    informative_share_at_most: float | None = None


class GateReport(Answered):
    """How far the judge is and what it has seen. ``lag`` 0: every closed decision is judged; else ``waiting`` may
    name the open ``decision`` that is next, and when its window ends (``until_ms``). ``watch``: the champion against
    what it replaced; ``shares``: how traffic is shared out between them, the trial and the baseline."""

    judged_through: int
    lag: int
    waiting: Json | None = None
    trial: Json | None = None
    estimates: Json
    watch: Json | None = None
    shares: Json | None = None
    verdicts: list[VerdictView]


class Report(Answered):
    """The answer to ``GET /v1/policies/{name}/report``. ``people``: how many of them look at the items; ``gaming``:
    reward against truth; ``exposure``: how first places are shared among items; ``made``: when the judge wrote it, null
    before it looked."""

    feedback: FeedbackReport
    bias: Json
    people: Json
    ceiling: Json
    learning: Json
    gaming: Json
    gate: GateReport
    drift: Json
    exposure: Json
    forgetting: Json
    made: AwareDatetime | None = None


class UserView(Answered):
    """What is held about a person, and which versions learned from it."""

    user: str
    learn: bool
    decisions: int
    outcomes: int
    versions: list[str]
    held: Json


class ErasedView(Answered):
    """What was erased. ``adapters_withdrawn`` were the person's own, and are gone. ``versions_tainted`` learned from
    the person and never serve again: of these ``trials_ended`` were on trial, and the champion of each policy in
    ``rebuilding`` serves until it is built again without them.
    ``learn``: the person's wish, which outlives the erasure."""

    user: str
    decisions: int
    outcomes: int
    adapters_withdrawn: list[str]
    versions_tainted: list[str]
    trials_ended: list[str]
    rebuilding: list[str]
    learn: bool


class PolicyList(Answered):
    """Every policy of the tenant."""

    policies: list[PolicyView]


class VersionList(Answered):
    """Every version of a policy, oldest first."""

    versions: list[VersionView]


class FeedbackAnswer(Answered):
    """The receipt of one outcome, or the receipts of a batch."""

    id: UUID | None = None
    receipt: Receipt | None = None
    status: int | None = None
    error: ErrorDetail | None = None
    note: str | None = None
    items: list[FeedbackReceipt] | None = None


class UserWish(Answered):
    """Whether a person lets us learn from them."""

    user: str
    learn: bool


class Health(Answered):
    """How the server is."""

    status: str
    reason: str | None = None
    policies: int | None = None
    damaged: dict[str, str] | None = None


class SeriesView(Answered):
    """Named curves, each a list of points in order."""

    series: dict[str, list[Json]]
