"""What a verdict does, in the open transaction of whoever gives it: the verdict's row, where versions stand, pointers.

Rankers and language policies are judged on other evidence; what follows from a verdict is the same for both.
"""

import apsw

from dayjob.endings import Fenced, VerdictKind, VersionStatus
from dayjob.gate.turns import move, stands, status_of
from dayjob.journal.control import Control, add_verdict
from dayjob.records import Json, Pointers, Verdict

_ENDS = {VerdictKind.PROMOTE: VersionStatus.CHAMPION, VerdictKind.REJECT: VersionStatus.REJECTED}


def check_thawed(db: apsw.Connection, control: Control, *, policy: str, seen: Pointers) -> None:
    """In the open transaction that moves a pointer: raises Fenced where the policy was frozen since ``seen`` was read.

    Neither the file nor, of a person's layer, the policy's row is fenced by the generation of what was read.
    """
    row = db.execute("SELECT frozen FROM pointers WHERE tenant=? AND policy=?", (seen.tenant, policy)).fetchone()
    if not seen.frozen and ((row is not None and row[0]) or control.freeze_file()):
        raise Fenced(f"policy {policy!r} was frozen in the meantime: it is judged again")


def say(
    db: apsw.Connection, pointers: Pointers, *, challenger: str, champion: str, kind: VerdictKind, reason: str,
    evidence: Json, at_ms: int,
) -> None:  # fmt: skip
    """Write what the gate says of a pair."""
    verdict = Verdict(
        tenant=pointers.tenant, policy=pointers.policy, challenger=challenger, champion=champion, kind=kind,
        reason=reason, evidence=evidence, at_ms=at_ms, by="gate",
    )  # fmt: skip
    add_verdict(db, verdict)


def settle(
    db: apsw.Connection, pointers: Pointers, *, challenger: str, kind: VerdictKind, reason: str, evidence: Json,
    at_ms: int,
) -> Pointers:  # fmt: skip
    """A final verdict on a challenger of the champion: it serves, or it has had its turn. Gives the moved pointers."""
    champion = pointers.champion
    say(db, pointers, challenger=challenger, champion=champion, kind=kind, reason=reason, evidence=evidence,
        at_ms=at_ms)  # fmt: skip
    stands(db, pointers, challenger, status=_ENDS.get(kind, VersionStatus.HELD))
    change: dict[str, str | None] = {"challenger": None}
    if kind is VerdictKind.PROMOTE:
        stands(db, pointers, champion, status=VersionStatus.RETIRED)
        tainted = status_of(db, pointers, champion) is VersionStatus.TAINTED
        change |= {"champion": challenger, "previous": None if tainted else champion}
    return move(db, pointers, change)


def withdraw(db: apsw.Connection, pointers: Pointers, *, target: str, reason: str, at_ms: int) -> Pointers:
    """Roll a champion that was proven worse back to ``target``, or to the baseline where that may not serve."""
    if status_of(db, pointers, target) is VersionStatus.TAINTED:
        target = pointers.baseline
    say(db, pointers, challenger=pointers.champion, champion=target, kind=VerdictKind.ROLLBACK, reason=reason,
        evidence={}, at_ms=at_ms)  # fmt: skip
    stands(db, pointers, pointers.champion, status=VersionStatus.ROLLED_BACK)
    if pointers.challenger is not None:
        stands(db, pointers, pointers.challenger, status=VersionStatus.WAITING)
    stands(db, pointers, target, status=VersionStatus.CHAMPION)
    previous = pointers.baseline if target != pointers.baseline else None
    return move(db, pointers, {"champion": target, "previous": previous, "challenger": None})
