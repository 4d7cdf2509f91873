"""Moving a policy's pointers on purpose: rolling back, overriding the gate, replacing a version that must go.

The pointer moves first, in one row; what follows only tells the story, and a full disk must not undo a rollback.
"""

import time
from collections.abc import Sequence
from contextlib import closing

import apsw

from dayjob.endings import Conflict, DayjobError, VerdictKind, VersionStatus
from dayjob.journal.columns import POINTERS
from dayjob.journal.control import Control, add_verdict, put_status
from dayjob.journal.jobs import put_job
from dayjob.journal.rows import connect
from dayjob.records import Json, Pointers, Verdict, Version


def check_may_serve(version: Version) -> None:
    """Raises Conflict for a version that can never serve again."""
    if version.status is VersionStatus.TAINTED:
        raise Conflict(f"version {version.name} learned from someone who was erased: it can never serve again")
    if version.status is VersionStatus.DAMAGED:
        raise Conflict(f"version {version.name} is damaged: it can never serve again")


def roll_back(control: Control, pointers: Pointers, *, to: str | None, evidence: Json) -> tuple[str, str | None]:
    """Put ``to`` back, or what the champion replaced; the withdrawn version is never promoted by itself again.

    Gives the new champion, and what could not be written of the story (None: everything was). Raises Conflict when
    there is nothing to roll back to, NotFound for an unknown version.
    """
    tenant, policy = pointers.tenant, pointers.policy
    target = to or pointers.previous or pointers.baseline
    check_may_serve(control.version(tenant, policy, target))
    if target == pointers.champion:
        if to is None:
            raise Conflict(f"policy {policy!r} serves its baseline: there is nothing to roll back to")
        return target, None
    previous = pointers.baseline if target != pointers.baseline else None
    control.move(tenant, policy, change={"champion": target, "previous": previous, "challenger": None})
    stands = {pointers.champion: VersionStatus.ROLLED_BACK, target: VersionStatus.CHAMPION}
    try:
        _tell(control, pointers, stands=stands, verdict=_verdict(
            pointers, kind=VerdictKind.ROLLBACK, challenger=pointers.champion, champion=target,
            reason="rolled back by hand", evidence=evidence, by="hand",
        ))  # fmt: skip
    except DayjobError as error:
        return target, f"rolled back, but the record of it was not written: {error}"
    return target, None


def override(control: Control, pointers: Pointers, *, version: Version, reason: str, evidence: Json) -> None:
    """Promote a version by hand. Raises Conflict for one that can never serve again."""
    check_may_serve(version)
    _install(control, pointers, version=version, was=VersionStatus.RETIRED, previous=pointers.champion)
    _tell(control, pointers, stands={}, verdict=_verdict(
        pointers, kind=VerdictKind.PROMOTE, challenger=version.name, champion=pointers.champion, reason=reason,
        evidence=evidence, by="hand",
    ))  # fmt: skip


def rebuild(control: Control, pointers: Pointers, *, version: Version) -> None:
    """Put a version in the place of the champion that learned from someone since erased.

    It is the same work over the same range without that person, so it is no challenger and has nothing to prove.
    """
    _install(control, pointers, version=version, was=VersionStatus.TAINTED, previous=None)
    _tell(control, pointers, stands={}, verdict=_verdict(
        pointers, kind=VerdictKind.PROMOTE, challenger=version.name, champion=pointers.champion,
        reason="Rebuilt without a person who was erased.", evidence={}, by="erasure",
    ))  # fmt: skip


def taint(control: Control, tenant: str, taught: Sequence[tuple[str, str]]) -> None:
    """Versions, as (policy, version), that learned from someone who is erased never return (promise 8).

    For each policy one transaction: where they stand, the pointers that led to them, and the job that builds a
    champion among them again. Killed at any moment, all of it is done or none.
    """
    for policy in sorted({policy for policy, _ in taught}):
        with control.write() as db:
            _taint(db, tenant, policy, names=[version for owner, version in taught if owner == policy])


def taint_overlooked(control: Control) -> list[tuple[str, str, str]]:
    """Taint what should be and is not: a version, as (tenant, policy, version), whose journal range ends before one of
    its teachers was erased. An erasure may have been killed before it came to that, and a backup's weights may be older
    than its journal.
    """
    with closing(connect(control.root / "journal.db", write=False)) as db:
        db.execute("ATTACH ? AS control", (str(control.root / "control.db"),))
        rows = db.execute(OVERLOOKED, (VersionStatus.TAINTED.value,))
        found = [(str(row[0]), str(row[1]), str(row[2])) for row in rows]
    for tenant in sorted({tenant for tenant, _, _ in found}):
        taint(control, tenant, [(policy, version) for owner, policy, version in found if owner == tenant])
    return found


OVERLOOKED = (
    "SELECT DISTINCT v.tenant, v.policy, v.name FROM control.versions v "
    "JOIN control.lessons l ON l.tenant=v.tenant AND l.policy=v.policy AND l.version=v.name "
    "JOIN tombstones t ON t.tenant=l.tenant AND t.mark=l.mark "
    "WHERE v.number>0 AND v.status<>? AND t.seq>v.to_seq"
)


def _taint(db: apsw.Connection, tenant: str, policy: str, *, names: Sequence[str]) -> None:
    for name in names:
        put_status(db, tenant, policy, name=name, status=VersionStatus.TAINTED)
    address = (tenant, policy)
    row = db.execute(POINTERS.select("WHERE tenant=? AND policy=?"), address).fetchone()
    if row is None:
        return
    pointers = Pointers(**dict(zip(POINTERS.names(), row, strict=True)))
    gone = [name for name in ("challenger", "previous") if getattr(pointers, name) in names]
    if gone:
        nothing = ", ".join(f"{name}=NULL" for name in gone)
        db.execute(f"UPDATE pointers SET {nothing}, generation=generation+1 WHERE tenant=? AND policy=?", address)
    if pointers.champion in names:
        named = "SELECT recipe FROM versions WHERE tenant=? AND policy=? AND name=?"
        recipe = db.execute(named, (*address, pointers.champion)).fetchone()
        assert recipe is not None, "a champion is a version"
        put_job(db, tenant, policy, recipe=str(recipe[0]))


def _install(
    control: Control, pointers: Pointers, *, version: Version, was: VersionStatus, previous: str | None
) -> None:
    tenant, policy = pointers.tenant, pointers.policy
    change = {"champion": version.name, "previous": previous, "challenger": None}
    control.move(tenant, policy, change=change, generation=pointers.generation)
    stands = {pointers.champion: was, version.name: VersionStatus.CHAMPION}
    _tell(control, pointers, stands=stands, verdict=None)


def _tell(control: Control, pointers: Pointers, *, stands: dict[str, VersionStatus], verdict: Verdict | None) -> None:
    """Where the versions stand now (the baseline always stands where it stands), and the verdict."""
    tenant, policy = pointers.tenant, pointers.policy
    if pointers.challenger is not None and stands:
        stands = {pointers.challenger: VersionStatus.WAITING, **stands}
    for name, status in stands.items():
        if name != pointers.baseline:
            control.set_status(tenant, policy, [name], status)
    if verdict is not None:
        with control.write() as db:
            add_verdict(db, verdict)


def _verdict(
    pointers: Pointers, *, kind: VerdictKind, challenger: str, champion: str, reason: str, evidence: Json, by: str
) -> Verdict:
    return Verdict(
        tenant=pointers.tenant, policy=pointers.policy, challenger=challenger, champion=champion, kind=kind,
        reason=reason, evidence=evidence, at_ms=int(time.time() * 1000), by=by,
    )  # fmt: skip
