"""Moving a policy's pointers on purpose: rolling back, overriding the gate, replacing a version that must go.

The pointers and where the versions stand change in one transaction, so that whoever is killed leaves all of it or none.
A rollback's verdict follows by itself: it only tells the story, and a full disk must not undo a rollback.
"""

import time
from collections.abc import Sequence
from contextlib import closing, suppress

import apsw

from dayjob.endings import Conflict, DayjobError, Fenced, NotFound, VerdictKind, VersionStatus
from dayjob.journal import versions
from dayjob.journal.columns import POINTERS, VERSIONS
from dayjob.journal.control import Control, add_verdict, put_state, put_status, row_version
from dayjob.journal.jobs import put_job
from dayjob.journal.layers import policy_of, range_of_layers
from dayjob.journal.rows import connect, loads
from dayjob.records import Json, Pointers, Verdict, Version

# What can never serve again, or never by itself: it was withdrawn by hand or by proof.
GONE = (VersionStatus.TAINTED, VersionStatus.DAMAGED)
WITHDRAWN = (*GONE, VersionStatus.ROLLED_BACK)


def check_may_serve(version: Version) -> None:
    """Raises Conflict for a version that can never serve again."""
    if version.status is VersionStatus.TAINTED:
        why = "learned from someone who was erased"
    elif version.status is VersionStatus.DAMAGED:
        why = "is damaged"
    else:
        return
    raise Conflict(f"version {version.name} {why} and can never serve again: name another, or let the policy learn one")


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
            raise Conflict(f"policy {policy_of(policy)!r} serves its baseline: there is nothing to roll back to")
        return target, None
    previous = pointers.baseline if target != pointers.baseline else None
    withdrawn = [pointers.champion]

    def work(db: apsw.Connection) -> None:
        now = _pointers(db, tenant, policy)  # whoever else moved them meanwhile does not stop a rollback
        check_may_serve(_version(db, now, target))
        if now.champion == target:
            return
        withdrawn[:] = [now.champion]
        _install(db, now, name=target, was=VersionStatus.ROLLED_BACK, previous=previous)

    control.write_or_free(work)  # out of the ballast where the disk is full
    verdict = _verdict(
        pointers, kind=VerdictKind.ROLLBACK, challenger=withdrawn[0], champion=target,
        reason="rolled back by hand", evidence=evidence, by="hand",
    )  # fmt: skip
    try:
        with control.write() as db:
            add_verdict(db, verdict)
    except DayjobError as error:
        return target, f"rolled back, but the record of it was not written: {error}"
    return target, None


def override(control: Control, pointers: Pointers, *, version: Version, reason: str, evidence: Json) -> None:
    """Promote a version by hand. Raises Conflict for one that can never serve again, Fenced when somebody else moved
    the pointers since they were read."""
    verdict = _verdict(
        pointers, kind=VerdictKind.PROMOTE, challenger=version.name, champion=pointers.champion, reason=reason,
        evidence=evidence, by="hand",
    )  # fmt: skip

    def work(db: apsw.Connection) -> None:
        now = _pointers(db, pointers.tenant, pointers.policy)
        if now.generation != pointers.generation:
            raise Fenced(f"the pointers of {policy_of(pointers.policy)!r} were moved by somebody else: read them again")
        check_may_serve(_version(db, now, version.name))
        _install(db, now, name=version.name, was=VersionStatus.RETIRED, previous=pointers.champion)
        add_verdict(db, verdict)

    control.write_or_free(work)


def rebuild(
    control: Control, tenant: str, policy: str, *, champion: str, name: str, unlearned: int = 0
) -> bool:  # fmt: skip
    """Put a version in the place of the ``champion`` that learned from someone since erased, or the baseline where all
    of its lessons were taken back since (``unlearned``, how many); whether it was.

    It is the same work over the same range without them, so it is no challenger and has nothing to prove. The pointers
    are read as they stand now, however often they moved while it was built; where another champion serves by now,
    nothing changes. In place of a version that was withdrawn meanwhile, the baseline serves.
    """
    was = VersionStatus.ROLLED_BACK if unlearned else VersionStatus.TAINTED
    told = f"{unlearned} of its lessons, taken back since" if unlearned else "a person who was erased"
    done = [False]

    def work(db: apsw.Connection) -> None:
        now = _pointers(db, tenant, policy)
        is_due = bool(unlearned) or _version(db, now, champion).status is VersionStatus.TAINTED
        done[0] = now.champion == champion != name and is_due
        if not done[0]:
            return
        target = now.baseline if _version(db, now, name).status in WITHDRAWN else name
        _install(db, now, name=target, was=was, previous=None)
        add_verdict(db, _verdict(
            now, kind=VerdictKind.PROMOTE, challenger=target, champion=champion,
            reason=f"Rebuilt without {told}.", evidence={}, by="unlearning" if unlearned else "erasure",
        ))  # fmt: skip

    control.write_or_free(work)
    return done[0]


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


def drop_tainted(control: Control) -> list[str]:
    """Delete the files of versions that learned from someone since erased, once no pointer names them; their names.

    Their rows stay: they say what was, and that it can never return.
    """
    dropped = []
    for version in map(
        row_version,
        list(control.db().execute(VERSIONS.select(f"WHERE number>0 AND {UNNAMED}"), (VersionStatus.TAINTED.value,))),
    ):
        with suppress(NotFound):
            versions.remove(control.root, version.tenant, version.policy, version.name)
            dropped.append(version.name)
    return dropped


def drop_orphans(control: Control, tenant: str, policy: str) -> list[str]:
    """Delete the files of versions that have no row: whoever made them was killed, or refused, before it was written;
    their names. For whoever holds the right to learn for this policy.
    """
    known = {version.name for version in control.versions(tenant, policy)}
    folder = versions.folder_of(control.root, tenant, policy)
    dropped = [path.name for path in sorted(folder.glob("v*")) if path.name not in known]
    for name in dropped:
        with suppress(NotFound):
            versions.remove(control.root, tenant, policy, name)
    return dropped


UNNAMED = (
    "status=? AND NOT EXISTS (SELECT 1 FROM pointers p WHERE p.tenant=versions.tenant "
    "AND p.policy=versions.policy AND versions.name IN (p.champion, p.previous, p.challenger))"
)
OVERLOOKED = (
    "SELECT DISTINCT v.tenant, v.policy, v.name FROM control.versions v "
    "JOIN control.lessons l ON l.tenant=v.tenant AND l.policy=v.policy AND l.version=v.name "
    "JOIN tombstones t ON t.tenant=l.tenant AND t.mark=l.mark "
    "WHERE v.number>0 AND v.status<>? AND t.seq>v.to_seq"
)


def _taint(db: apsw.Connection, tenant: str, policy: str, *, names: Sequence[str]) -> None:
    for name in names:
        put_status(db, tenant, policy, name=name, status=VersionStatus.TAINTED)
        # What a night says of its lessons, its exam of what was asked, and a dream's programs are people's words.
        told = (f"night/{name}", f"exam/{name}", f"dream/{name}")
        db.execute("DELETE FROM states WHERE tenant=? AND policy=? AND name IN (?, ?, ?)", (tenant, policy, *told))
        _forget_answers(db, tenant, policy, name=name)
    address = (tenant, policy)
    try:
        pointers = _pointers(db, tenant, policy)
    except NotFound:
        return
    gone = [name for name in ("challenger", "previous") if getattr(pointers, name) in names]
    if gone:
        nothing = ", ".join(f"{name}=NULL" for name in gone)
        db.execute(f"UPDATE pointers SET {nothing}, generation=generation+1 WHERE tenant=? AND policy=?", address)
    if pointers.champion in names:
        named = "SELECT recipe FROM versions WHERE tenant=? AND policy=? AND name=?"
        recipe = db.execute(named, (*address, pointers.champion)).fetchone()
        assert recipe is not None, "a champion is a version"
        put_job(db, tenant, policy, recipe=str(recipe[0]))


def _forget_answers(db: apsw.Connection, tenant: str, policy: str, *, name: str) -> None:
    """What a version answered in the exams of others, it may have learned from whoever is erased. The tenant's are
    compared with in people's layers too."""
    where = "WHERE tenant=? AND (policy=? OR policy>? AND policy<?) AND name LIKE 'exam/%'"
    args = (tenant, policy, *range_of_layers(policy))
    rows = list(db.execute(f"SELECT policy, name, state FROM states {where}", args))
    for address, exam, text in rows:
        said = loads(text)
        if said.get("against") != name:
            continue
        said["questions"] = [one | {"before": ""} for one in said["questions"]]
        put_state(db, tenant, address, name=exam, state=said)


def _install(db: apsw.Connection, now: Pointers, *, name: str, was: VersionStatus, previous: str | None) -> None:
    """Inside a transaction: the pointers to a new champion, and where every version that they name stands then."""
    db.execute(
        "UPDATE pointers SET champion=?, previous=?, challenger=NULL, generation=generation+1 "
        "WHERE tenant=? AND policy=?",
        (name, previous, now.tenant, now.policy),
    )
    stands = {} if now.challenger is None else {now.challenger: VersionStatus.WAITING}
    stands |= {now.champion: was} | {name: VersionStatus.CHAMPION}
    for one, status in stands.items():
        put_status(db, now.tenant, now.policy, name=one, status=status)


def _pointers(db: apsw.Connection, tenant: str, policy: str) -> Pointers:
    row = db.execute(POINTERS.select("WHERE tenant=? AND policy=?"), (tenant, policy)).fetchone()
    if row is None:
        raise NotFound(f"there is no policy {policy!r}: create it with PUT /v1/policies/{policy}")
    return Pointers(**dict(zip(POINTERS.names(), row, strict=True)))


def _version(db: apsw.Connection, now: Pointers, name: str) -> Version:
    select = VERSIONS.select("WHERE tenant=? AND policy=? AND name=?")
    row = db.execute(select, (now.tenant, now.policy, name)).fetchone()
    assert row is not None, "versions are never deleted"
    return row_version(row)


def _verdict(
    pointers: Pointers, *, kind: VerdictKind, challenger: str, champion: str, reason: str, evidence: Json, by: str
) -> Verdict:
    return Verdict(
        tenant=pointers.tenant, policy=pointers.policy, challenger=challenger, champion=champion, kind=kind,
        reason=reason, evidence=evidence, at_ms=int(time.time() * 1000), by=by,
    )  # fmt: skip
