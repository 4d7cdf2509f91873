"""Versions that already stand somewhere or learned from somebody, written as the deciding processes write it."""

from collections.abc import Sequence

from dayjob.endings import VersionStatus
from dayjob.journal.control import Control, put_status, put_taught


def stand(control: Control, tenant: str, policy: str, names: Sequence[str], status: VersionStatus) -> None:
    """Say where versions of a policy stand."""
    with control.write() as db:
        for name in names:
            put_status(db, tenant, policy, name=name, status=status)


def mark_taught(control: Control, tenant: str, policy: str, version: str, *, marks: Sequence[bytes]) -> None:
    """Record whose outcomes a version learned from, as keyed marks."""
    with control.write() as db:
        put_taught(db, tenant, policy, version=version, marks=marks)
