"""The layers of a language policy: base <- tenant <- person. Each is trained from the base on replay.

A layer has an *address*, used wherever a policy's name leads a key (pointers, versions on disk and in control.db, jobs,
states, verdicts, taught marks): the tenant's layer is at the policy's own name, a person's at ``POLICY/MARK``, where
the mark is keyed: it holds no name, and as no policy's name holds a slash, nobody reaches it from outside by naming it.
A person's layer is no row of the policies table: its spec, freeze and base are those of the policy.

Promise 8: a person's layer goes with the person, and nothing of it stays behind.
"""

import shutil
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import apsw

from dayjob.endings import Erased, Invalid, PolicyKind, VersionStatus
from dayjob.journal import versions
from dayjob.journal.columns import POINTERS, VERSIONS
from dayjob.journal.control import Control, put_state, version_row
from dayjob.journal.disk import LOCAL_DISK
from dayjob.journal.jobs import request_job
from dayjob.journal.rows import connect
from dayjob.records import Job, Version

OWNER = "owner"  # the state of a person's layer that says whose it is
_SLASH = "/"
_SLASH_ON_DISK = "%2f"  # as `versions` spells it
_WORK = "work"  # where learners keep what they are at, by the job's id
_AFTER_SLASH = "0"  # the character after the slash: a range of names that begin with ``policy/``
# Everything of a layer in control.db, each led by (tenant, policy).
_TABLES = ("pointers", "versions", "states", "jobs", "series", "verdicts", "lessons")


def address_of(control: Control, tenant: str, policy: str, user: str | None) -> str:
    """Where a person's layer is, whether or not there is one; without a user, the tenant's."""
    return policy if user is None else f"{policy}{_SLASH}{control.mark_of(tenant, user).hex()}"


def policy_of(address: str) -> str:
    """The policy that a layer is of."""
    return address.partition(_SLASH)[0]


def is_personal(address: str) -> bool:
    """Whether it is a person's layer."""
    return _SLASH in address


def owner_of(control: Control, tenant: str, address: str) -> str | None:
    """Whose layer it is; None for the tenant's, and for one that is not there."""
    state = control.state(tenant, address, OWNER) if is_personal(address) else None
    return None if state is None else str(state["user"])


def served_by(control: Control, tenant: str, address: str) -> Version:
    """What answers those whom a layer is for: its champion; a person for whom nothing was promoted yet, the tenant's.

    Raises NotFound where there is no such layer.
    """
    pointers = control.pointers(tenant, address)
    if is_personal(address) and pointers.champion == pointers.baseline:
        address = policy_of(address)
        pointers = control.pointers(tenant, address)
    return control.version(tenant, address, pointers.champion)


def frozen_of(control: Control, tenant: str, address: str) -> str:
    """What serves while learning and trials of a layer are stopped ("champion" or "baseline"), "" where they are not:
    by the file, by the policy's own flag, or by the layer's."""
    whole = control.freeze_file() or control.pointers(tenant, policy_of(address)).frozen
    if whole or not is_personal(address):
        return whole
    row = control.db().execute("SELECT frozen FROM pointers WHERE tenant=? AND policy=?", (tenant, address)).fetchone()
    return "" if row is None else str(row[0])


def open_layer(control: Control, tenant: str, policy: str, user: str | None) -> str:
    """The address of a layer that is there from now on: it starts with the baseline as its champion.

    Raises NotFound where there is no such policy, Invalid where it is a ranker.
    """
    declared = control.policy(tenant, policy)
    if declared.kind is not PolicyKind.LANGUAGE:
        raise Invalid(f"policy {policy!r} is a ranker: only language policies have a layer for each person")
    address = address_of(control, tenant, policy, user)
    if user is None or _exists(control.db(), tenant, address):
        return address
    whole = control.version(tenant, policy, control.pointers(tenant, policy).baseline)
    now_ms = int(time.time() * 1000)
    baseline = Version(
        tenant=tenant, policy=address, name=whole.name, number=whole.number, parent=None, recipe=whole.recipe,
        digest=whole.digest, from_seq=0, to_seq=0, status=VersionStatus.BASELINE, created_ms=now_ms,
    )  # fmt: skip
    with control.write() as db:
        row = (tenant, address, baseline.name, None, None, baseline.name, "", 1)
        db.execute(POINTERS.insert("INSERT OR IGNORE"), row)
        if db.changes():
            db.execute(VERSIONS.insert("INSERT OR IGNORE"), version_row(baseline))
            put_state(db, tenant, address, name=OWNER, state={"user": user})
    return address


def range_of_layers(policy: str) -> tuple[str, str]:
    """Between these two names lie the addresses of the layers that people have of a policy, and nothing else."""
    return policy + _SLASH, policy + _AFTER_SLASH


def layers(control: Control, tenant: str, policy: str) -> list[str]:
    """The addresses of the layers that people have of a policy."""
    rows = control.db().execute(
        "SELECT policy FROM pointers WHERE tenant=? AND policy>? AND policy<? ORDER BY policy",
        (tenant, *range_of_layers(policy)),
    )
    return [str(row[0]) for row in rows]


def request_nights(control: Control, tenant: str, policy: str, *, recipe: str) -> Job:
    """A job of the tenant's layer, and then one for each person's whose owner may be learned from, those that are
    frozen left out; the tenant's."""
    job = request_job(control, tenant, policy, recipe=recipe)
    for address in layers(control, tenant, policy):
        owner = owner_of(control, tenant, address)
        if owner is not None and control.learns(tenant, owner) and not frozen_of(control, tenant, address):
            request_job(control, tenant, address, recipe=recipe)
    return job


def check_open(db: apsw.Connection, job: Job) -> None:
    """Inside a transaction that adds what a job learned to a layer: raises Erased where the layer was withdrawn since
    the job was asked for, so that nothing comes back of a person who is gone."""
    key = (job.tenant, job.policy, job.id)
    if db.execute("SELECT 1 FROM jobs WHERE tenant=? AND policy=? AND id=?", key).fetchone() is None:
        raise Erased("this layer was withdrawn, as its owner was erased: what was learned for it is dropped")


def withdraw(control: Control, root: Path, tenant: str, user: str) -> list[tuple[str, str]]:
    """Take away what a person taught their layers of every policy: rows and files; the versions, as (address, name).

    Rows go first, in one transaction: from then on nothing serves from a layer. Whoever is killed between the two
    withdraws again. What is deleted is overwritten, but stays in the log file until that is emptied (`Control.forget`).
    """
    policies = [policy.name for policy in control.policies(tenant) if policy.kind is PolicyKind.LANGUAGE]
    for path in (root / _WORK).glob("*.dreamt.*"):  # programs made of everybody's words: a dream can write them again
        path.unlink(missing_ok=True)
    return _withdraw(control, root, tenant, [address_of(control, tenant, policy, user) for policy in policies])


def withdraw_overlooked(control: Control, root: Path) -> list[str]:
    """Withdraw the layers of people who were erased that are there all the same, and folders that belong to no layer;
    the addresses. A learner may have been killed with a version on disk, and a backup's weights be older than its
    journal.
    """
    with closing(connect(root / "journal.db", write=False)) as db:
        db.execute("ATTACH ? AS control", (str(root / "control.db"),))
        rows = [(str(row[0]), str(row[1]), bytes(row[2])) for row in db.execute(_ERASED)]
    gone = [(tenant, address) for tenant, address, mark in rows if address.endswith(_SLASH + mark.hex())]
    for tenant, address in gone:
        _withdraw(control, root, tenant, [address])
    named = control.db().execute("SELECT tenant, policy FROM pointers")
    known = {versions.folder_of(root, str(row[0]), str(row[1])) for row in named}
    for folder in {*(root / "versions").glob(f"*/*{_SLASH_ON_DISK}*")} - known:
        shutil.rmtree(folder)
    return [address for _, address in gone]


# A version that a layer's owner taught before they were erased: whoever came back since has newer ones.
_ERASED = (
    "SELECT DISTINCT v.tenant, v.policy, t.mark FROM control.versions v "
    "JOIN control.lessons l ON l.tenant=v.tenant AND l.policy=v.policy AND l.version=v.name "
    "JOIN tombstones t ON t.tenant=l.tenant AND t.mark=l.mark "
    "WHERE v.number>0 AND t.seq>v.to_seq AND instr(v.policy, '/')"
)


def _withdraw(control: Control, root: Path, tenant: str, addresses: Sequence[str]) -> list[tuple[str, str]]:
    gone: list[tuple[str, str]] = []
    jobs: list[str] = []
    with control.write() as db:
        for address in addresses:
            key = (tenant, address)
            jobs += [str(row[0]) for row in db.execute("SELECT id FROM jobs WHERE tenant=? AND policy=?", key)]
            rows = db.execute("SELECT policy, name FROM versions WHERE tenant=? AND policy=? AND number>0", key)
            gone += [(str(row[0]), str(row[1])) for row in rows]
            for table in _TABLES:
                db.execute(f"DELETE FROM {table} WHERE tenant=? AND policy=?", key)
    for job in jobs:  # how far a learner had come, which may be dead
        for path in (root / _WORK).glob(f"{job}.*"):
            path.unlink(missing_ok=True)
    for address in addresses:
        folder = versions.folder_of(root, tenant, address)
        if folder.exists():
            shutil.rmtree(folder)
            LOCAL_DISK.sync(folder.parent)
    return gone


def _exists(db: apsw.Connection, tenant: str, address: str) -> bool:
    found = db.execute("SELECT 1 FROM pointers WHERE tenant=? AND policy=?", (tenant, address)).fetchone()
    return found is not None
