"""What the service answers about language policies: adapters of people, nights, conversations."""

from pydantic import AwareDatetime

from dayjob.endings import OutcomeKind, Role, VersionStatus
from dayjob.serve.answers import Answered, Json, PolicyView, VerdictView


class AdapterView(Answered):
    """A person's own layer of a policy. ``champion``: what answers them, the baseline where nothing was promoted for
    them alone, and the tenant's champion answers. ``newest``: what was learned last, and ``status`` what became of it;
    null and "baseline" before the first. ``job``: the night or dream of theirs that is not over, null where none is."""

    user: str
    champion: str
    previous: str | None = None
    challenger: str | None = None
    baseline: str
    newest: str | None = None
    status: VersionStatus
    last_verdict: VerdictView | None = None
    job: str | None = None


class PersonsPolicyView(PolicyView):
    """A policy as it stands; where a person was asked for, with their ``adapter`` (null: they have none)."""

    adapter: AdapterView | None = None


class LessonView(Answered):
    """What a night made of one lesson. ``left_out``: why it was not learned, "" where it was. ``before`` and ``after``:
    the answer to the bare question; ``behind``: the answer then, behind notes that do not teach it, null where there
    are none. Null where the key may not read what a person said."""

    id: str
    session: str | None = None
    decision: str | None = None
    family: str
    left_out: str
    asked: str | None = None
    before: str | None = None
    after: str | None = None
    wanted: str | None = None
    behind: str | None = None
    learned: bool
    as_read: bool


class NightCounts(Answered):
    """How many lessons and exam questions a night has, those included that an answer leaves out (``..._omitted``)."""

    lessons: int
    learned: int
    lessons_omitted: int
    questions: int
    right_before: int
    right_after: int
    questions_omitted: int


class NightView(Answered):
    """One night: the version it made, what it learned, and what was found of it. ``exam``: see the page on nights.
    ``verdict``: what was said of it last, by whomever; ``gate_verdict``: what the gate itself said last."""

    version: str
    status: VersionStatus
    recipe: str
    at: AwareDatetime
    parent: str | None = None
    lessons: list[LessonView]
    counts: NightCounts
    stats: Json
    exam: Json | None = None
    verdict: VerdictView | None = None
    gate_verdict: VerdictView | None = None


class NightList(Answered):
    """The newest nights of a layer, newest first."""

    nights: list[NightView]


class DreamtEnvironment(Answered):
    """A program that an author handed in. ``reason``: the check that it failed and why, "" where it was admitted;
    ``shown``: actions of the solution that its tasks begin with; ``before`` and ``after``: the share of the tasks of
    its proof that the policy solved, before the rehearsal and after it; ``faithful``: how its answers agree with real
    ones that the author never saw; ``dropped``: it was admitted, and left in the rehearsal for ``reason``."""

    name: str
    author: str
    digest: str
    admitted: bool
    reason: str
    shown: int
    checks: list[Json]
    dropped: bool = False
    faithful: Json | None = None
    before: float | None = None
    after: float | None = None


class Transferred(Answered):
    """Real questions of the exam: how many what served had right, and how many the dream's version has."""

    questions: int
    right_before: int
    right_after: int


class DreamView(Answered):
    """One dream. ``budget``: compute, times that of the night without it; ``read`` and ``kept``: conversations that
    authors read, and that were kept from them; ``version``: what it made, null where it made none; ``tokens``: what the
    learner read in ``episodes``, and ``beside`` them of lessons and anchor; ``author``: what the authors cost."""

    job: str
    at: AwareDatetime
    at_ms: int
    budget: float
    read: int
    kept: int
    environments: list[DreamtEnvironment]
    faults: list[str]
    author: Json
    steps: int
    episodes: int
    turns: int
    tokens: int
    beside: int = 0
    version: str | None = None
    status: VersionStatus | None = None
    reason: str
    transferred: Transferred | None = None


class DreamList(Answered):
    """The newest dreams of a layer, newest first."""

    dreams: list[DreamView]


class DeletedLesson(Answered):
    """A lesson that is unlearned by the next night."""

    id: str
    deleted: bool


class SaidOutcome(Answered):
    """What came of one answer."""

    id: str
    kind: OutcomeKind
    value: float | str | None = None
    text: str | None = None
    at: AwareDatetime


class SaidDecision(Answered):
    """One answer in a conversation: what was asked (without notes), what was said, and the notes in the context."""

    id: str
    at: AwareDatetime
    version: str
    role: Role
    messages: list[Json]
    text: str
    notes: list[str]
    outcomes: list[SaidOutcome]


class Conversation(Answered):
    """The answers of one session, oldest first; one that has no session stands alone. ``more``: older answers of it are
    not told, or may not be."""

    session: str | None = None
    user: str | None = None
    more: bool
    decisions: list[SaidDecision]


class ConversationList(Answered):
    """The newest conversations, newest first. ``more``: there are older ones, or may be."""

    conversations: list[Conversation]
    more: bool


class ComparedToken(Answered):
    """Log-probabilities (natural) of one served token; ``with_notes`` is null where no note stood in the context."""

    text: str
    with_notes: float | None = None
    without_notes: float


class Compared(Answered):
    """What the notes did: an answer's tokens under the prompt as it was read and the bare one, by the version that
    serves its person now."""

    version: str
    tokens: list[ComparedToken]
