"""Whose turn it is on trial, and the rows that say so."""

from collections.abc import Callable, Sequence

import apsw

from dayjob.endings import Fenced, VersionStatus
from dayjob.journal.control import put_status
from dayjob.records import Joined, Pointers, Version

OUTLAWED = (VersionStatus.ROLLED_BACK, VersionStatus.TAINTED)  # their content is never promoted by itself
BARRED = (*OUTLAWED, VersionStatus.DAMAGED)
Change = dict[str, str | None]


def turn(
    pointers: Pointers, versions: Sequence[Version], *, fault: Callable[[str], str | None]
) -> tuple[Change, dict[str, VersionStatus], dict[str, str]]:
    """Whose turn it is: the pointers to move, where versions stand then, and what is wrong with damaged ones.

    ``fault`` says what is wrong with a version's files. A version left on trial without a pointer to it (whoever moved
    the pointer was killed) waits like the others. One whose content was rolled back before does not get another turn
    under a new name. The champion is never its own challenger, whatever its status still says (whoever promoted it was
    killed before it was told). Nothing to do: nothing in all three.
    """
    status = {version.name: version.status for version in versions}
    change: Change = {}
    faults: dict[str, str] = {}
    on_trial = pointers.challenger
    gone = on_trial == pointers.champion or status.get(on_trial or "") in BARRED
    if on_trial is not None and not gone:
        found = fault(on_trial)
        if found is not None:
            faults[on_trial] = found
    if on_trial is not None and (gone or on_trial in faults):
        change["challenger"] = None
    if status.get(pointers.previous or "") is VersionStatus.TAINTED:
        change["previous"] = None
    damaged = dict.fromkeys(faults, VersionStatus.DAMAGED)
    if change.get("challenger", on_trial) is not None or pointers.frozen:
        return change, damaged, faults
    outlawed = {version.digest for version in versions if version.status in OUTLAWED}
    waits = (VersionStatus.WAITING, VersionStatus.TRIAL)
    waiting = [
        v for v in versions
        if v.status in waits and v.number and v.name not in faults and v.name != pointers.champion
    ]  # fmt: skip
    after = {version.name: VersionStatus.SUPERSEDED for version in waiting}
    for version in reversed(waiting):
        if version.digest in outlawed:
            continue
        found = fault(version.name)
        if found is None:
            return change | {"challenger": version.name}, after | damaged | {version.name: VersionStatus.TRIAL}, faults
        faults[version.name] = found
        damaged[version.name] = VersionStatus.DAMAGED
    return change, (after if change else {}) | damaged, faults


def closed_prefix(page: Sequence[Joined]) -> list[Joined]:
    """The decisions up to the first that is still open: what comes after it waits."""
    out: list[Joined] = []
    for joined in page:
        if joined.closed_seq is None:
            break
        out.append(joined)
    return out


def stands(db: apsw.Connection, pointers: Pointers, name: str, *, status: VersionStatus) -> None:
    """Say where a version stands, in the open transaction."""
    put_status(db, pointers.tenant, pointers.policy, name=name, status=status)


def status_of(db: apsw.Connection, pointers: Pointers, name: str) -> VersionStatus | None:
    """Where a version stands, as the open transaction sees it."""
    row = db.execute(
        "SELECT status FROM versions WHERE tenant=? AND policy=? AND name=?", (pointers.tenant, pointers.policy, name)
    ).fetchone()
    return None if row is None else VersionStatus(row[0])


def move(db: apsw.Connection, pointers: Pointers, change: Change) -> Pointers:
    """Move pointers inside the open transaction, only if nobody moved them since they were read."""
    sets = ", ".join(f"{name}=?" for name in change)
    db.execute(
        f"UPDATE pointers SET {sets}, generation=generation+1 WHERE tenant=? AND policy=? AND generation=?",
        (*change.values(), pointers.tenant, pointers.policy, pointers.generation),
    )
    if not db.changes():
        raise Fenced(f"the pointers of {pointers.policy!r} were moved by somebody else: judged again")
    return Pointers(
        tenant=pointers.tenant,
        policy=pointers.policy,
        champion=change.get("champion") or pointers.champion,
        previous=change.get("previous", pointers.previous),
        challenger=change.get("challenger", pointers.challenger),
        baseline=pointers.baseline,
        frozen=pointers.frozen,
        generation=pointers.generation + 1,
    )
