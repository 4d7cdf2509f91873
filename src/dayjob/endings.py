"""Every way a thing can end, a sentence per member, and the root of our exceptions."""

from enum import StrEnum


class DayjobError(Exception):
    """The root of every error that dayjob raises on purpose. The message says what to do next."""


class Invalid(DayjobError, ValueError):
    """The input does not fit; the message names the remedy. ``param`` names the field."""

    def __init__(self, message: str, *, param: str | None = None, code: str = "invalid") -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class NotFound(DayjobError):
    """What was asked for does not exist."""


class Conflict(DayjobError):
    """The same id with another body, or a thing that cannot change any more."""


class Erased(DayjobError):
    """The id belonged to someone who was erased; it can never be used again."""


class Forbidden(DayjobError):
    """The key or token may not do this."""


class Overloaded(DayjobError):
    """A bounded queue is full; try again after ``retry_after_s`` seconds."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StorageFull(DayjobError):
    """The disk is full or refuses writes: nothing was acknowledged, reads go on."""


class Damaged(DayjobError):
    """Stored bytes do not match their manifest; they are never used."""


class SchemaMismatch(DayjobError):
    """The data directory was written by another schema version; nothing was changed."""


class Fenced(DayjobError):
    """A lease was lost to a newer holder; nothing was written."""


class PolicyKind(StrEnum):
    """What a policy decides."""

    RANKER = "ranker"  # orders candidates
    LANGUAGE = "language"  # writes tokens


class Role(StrEnum):
    """On whose behalf a decision was served."""

    CHAMPION = "champion"  # the version that serves
    TRIAL = "trial"  # a fair-coin pair of champion and challenger
    BASELINE = "baseline"  # the holdback: always version zero
    BEST = "best"  # explore: false; the champion's best order, never learned from, never judged
    PINNED = "pinned"  # the request named the version (policy@version); never judged


class Ending(StrEnum):
    """Why an answer of a language policy has no further tokens."""

    STOP = "stop"  # the end-of-sequence token, or one of the request's stop strings
    LENGTH = "length"  # max_tokens, or the longest context that is served
    ABORTED = "aborted"  # whoever asked went away, or the engine was closed


class EpisodeEnding(StrEnum):
    """Why an episode of practice has no further turns."""

    DONE = "done"  # the environment says that the task is over, solved or not
    UNREADABLE = "unreadable"  # the last action could not be read as one, where the environment allows no second try
    TURNS = "turns"  # the environment's limit of turns
    TOKENS = "tokens"  # the actor had no room left for an answer
    TIMEOUT = "timeout"  # a step took longer than its limit
    FAILED = "failed"  # the environment's own code failed: not the actor's doing, and never learned from
    ABORTED = "aborted"  # whoever asked for the episode went away


class SandboxEnding(StrEnum):
    """Why a program in the sandbox runs no longer."""

    EXITED = "exited"  # by itself; its exit status says how
    KILLED = "killed"  # by a signal: it crashed, or used a system call that ends it
    WALL = "wall"  # it took longer than its limit
    CPU = "cpu"  # it computed for longer than its limit
    MEMORY = "memory"  # its processes together held more than their limit
    DISK = "disk"  # it made more files than its private /tmp may hold
    OUTPUT = "output"  # it wrote more than its limit
    PROTOCOL = "protocol"  # it was to answer one line of JSON for each, and did something else
    CLOSED = "closed"  # whoever started it needs it no longer


class OutcomeKind(StrEnum):
    """What was learned later about a decision or a session."""

    CLICK = "click"
    ACCEPT = "accept"
    REJECT = "reject"
    NONE = "none"  # looked and did nothing
    THUMB = "thumb"
    REWARD = "reward"
    TRUTH = "truth"
    CORRECTION = "correction"
    DEMONSTRATION = "demonstration"
    RETRACT = "retract"


class NoteScope(StrEnum):
    """Whom a note is for."""

    USER = "user"  # the person who taught it alone, or the session of somebody unnamed
    TENANT = "tenant"  # everybody: shared by an admin key, or said by several people


class NoteState(StrEnum):
    """Where a note stands for the version that answers."""

    ACTIVE = "active"  # placed in the context
    CONSOLIDATED = "consolidated"  # the version learned it; still placed, until it is shown to do without
    RETIRED = "retired"  # the version answers without it, or a newer note took its place: no longer placed


class NoteChange(StrEnum):
    """What happened to a note, beyond what the journal's outcomes say."""

    DELETED = "deleted"  # forgotten at somebody's wish
    SHARED = "shared"  # made the tenant's by an admin key
    UNSHARED = "unshared"  # taken back from the tenant
    LEARNED = "learned"  # by a version
    VERIFIED = "verified"  # a version answers rightly without it
    RECITED = "recited"  # the same, in the one wording that it came up in: of others nothing is known
    FAILED = "failed"  # a version was asked without it, and answered wrongly


class Receipt(StrEnum):
    """What became of a write that asked to be recorded."""

    RECORDED = "recorded"  # durable now, for the first time
    REPEATED = "repeated"  # the same id and body were durable already
    HELD = "held"  # durable, but its decision is not known yet
    CONFLICT = "conflict"  # the id is taken by another body
    ERASED = "erased"  # the id belonged to someone who was erased
    REFUSED = "refused"  # it contradicts the decision it speaks of
    FORBIDDEN = "forbidden"  # the decision belongs to another tenant or person
    CROWDED = "crowded"  # too many outcomes of this key already wait for their decisions


class VersionStatus(StrEnum):
    """Where a version stands."""

    BASELINE = "baseline"  # version zero: the caller's own order
    WAITING = "waiting"  # a challenger whose turn has not come
    TRIAL = "trial"  # the challenger on trial
    CHAMPION = "champion"  # serves
    RETIRED = "retired"  # served once, replaced by a better one
    REJECTED = "rejected"  # lost its trial
    HELD = "held"  # its trial ended without a proof
    ROLLED_BACK = "rolled_back"  # was withdrawn; never promoted by itself again
    SUPERSEDED = "superseded"  # a newer challenger took its place in the queue
    TAINTED = "tainted"  # learned from someone since erased; never promoted again
    DAMAGED = "damaged"  # its files do not match its manifest


class VerdictKind(StrEnum):
    """What the gate says of a challenger."""

    PROMOTE = "promote"  # proven better
    HOLD = "hold"  # no harm shown, but it can no longer be worth its promotion
    REJECT = "reject"  # proven worse
    CANNOT_TELL = "cannot_tell"  # the evidence is too little, or of the wrong kind
    ROLLBACK = "rollback"  # the champion was proven worse than what it replaced


class FeedbackState(StrEnum):
    """What the clicks of a policy can teach."""

    INFORMATIVE = "informative"
    UNINFORMATIVE = "uninformative"
    UNIDENTIFIABLE = "unidentifiable"
    TOO_FEW = "too_few"


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
