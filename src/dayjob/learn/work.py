"""One night's work and what it made, whatever kind of policy learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from dayjob.journal.versions import StoredVersion, VersionManifest
from dayjob.records import Job, Json, Policy, Version

SEED = 20261120  # every version's; a different seed would be a different digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one job asks for. ``job.policy`` is the address of a layer, ``policy`` the policy that it is of."""

    job: Job
    policy: Policy
    champion: Version  # of the layer
    baseline: str
    recipe: str
    until: int  # the journal is read up to here
    began: int  # the journal's newest when it was taken up: somebody erased after it voids the work
    checkpoint: Path
    progress: Callable[[float], None]
    tainted: bool  # the champion learned from somebody since erased: it is built again over its own range
    unlearned: int = 0  # lessons that the champion learned, that were taken back since, and that this night leaves out


class Unsaid(Exception):
    """A note was taken back while a night learned from it: the night begins again, without it."""


class Publish(Protocol):
    """Writes a version; `versions.publish` with its weights, or `versions.publish_files` with its files."""

    def __call__(
        self, root: Path, tenant: str, policy: str, *, number: int, manifest: VersionManifest
    ) -> StoredVersion: ...


def _no_states(_: StoredVersion) -> Mapping[str, Json]:
    return {}


def _stands() -> None:
    return None


def _nothing(_: Version) -> None:
    return None


def _is_known(_: Version) -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What came of it: a version to publish, or ``why`` there is none.

    ``states`` gives what is to be known of the version once its files are there (an exam), which is written with its
    row; ``check`` raises `Unsaid` just before, where it learned from what does not stand any more; ``after`` follows
    once the row is written, and may be called twice for one version. ``looks_again`` says of a version of the very same
    weights, learned before, whether these are to stand before the judge once more.
    """

    told: Json = field(default_factory=dict)  # the job's result beside the challenger
    why: str = ""
    is_empty: bool = False  # there is none since nobody taught anything
    publish: Publish | None = None
    network: Json = field(default_factory=dict)
    from_seq: int = 0
    to_seq: int = 0
    users: frozenset[str] = frozenset()
    detail: Json = field(default_factory=dict)
    states: Callable[[StoredVersion], Mapping[str, Json]] = _no_states
    check: Callable[[], None] = _stands
    after: Callable[[Version], None] = _nothing
    looks_again: Callable[[Version], bool] = _is_known
