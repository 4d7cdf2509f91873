"""F4, F5: full disks and disks that fail at the k-th operation. Nothing is acknowledged that was not written; reads go
on; writing resumes by itself; and a rollback is always possible, out of the ballast."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import apsw
import pytest

from dayjob.endings import OutcomeKind, PolicyKind, StorageFull, VersionStatus
from dayjob.fakes import FakeRanker, fake_decision, fake_id, fake_outcome, find_fake_spec
from dayjob.journal import store as store_module
from dayjob.journal.control import Control
from dayjob.journal.readers import Reader
from dayjob.journal.rows import connect
from dayjob.journal.store import Store, StoreConfig
from dayjob.records import Policy
from tests.gate.trials import SPEC as TRIAL_SPEC
from tests.gate.trials import version
from tests.promises.faults import Disk, FailingDisk, disk_error, using
from tests.promises.rig import POLICY, SPEC, History, Running, add_version, check_history, rank_body, serving

FULL = disk_error(apsw.FullError, apsw.SQLITE_FULL)
WRITE = disk_error(apsw.IOError, apsw.SQLITE_IOERR_WRITE)
SYNC = disk_error(apsw.IOError, apsw.SQLITE_IOERR_FSYNC)
MIB = 1 << 20


def open_store(root: Path, config: StoreConfig = StoreConfig(ballast_bytes=0)) -> Store:  # noqa: B008
    return Store(root, secret=b"s" * 32, find_spec=find_fake_spec, config=config)


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """A journal with something in it, to start every trial from."""
    store = open_store(tmp_path / "template")
    for number in range(1, 4):
        store.append_decision(*fake_decision(number)).result()
    store.close()
    return tmp_path / "template"


def write_some(store: Store, first: int, *, commits: int) -> tuple[set[str], int]:
    """Decisions with a click each, a commit at a time: (ids acknowledged, writes refused)."""
    acknowledged, refused = set(), 0
    for number in range(first, first + commits):
        click = fake_outcome(1_000 + number, fake_id(number), kind=OutcomeKind.CLICK)
        asked = [
            (fake_id(number), partial(store.append_decision, *fake_decision(number))),
            (click.id, partial(store.append_outcome, click)),
        ]
        for one, ask in asked:
            try:
                ask().result()
                acknowledged.add(one)
            except StorageFull:
                refused += 1
    return acknowledged, refused


def stored_in(root: Path) -> set[str]:
    """The ids in a journal that is whole: one place each, none left out."""
    db = connect(root / "journal.db", write=False)
    assert db.pragma("integrity_check") == "ok"
    tables = ("decisions", "outcomes", "held")
    rows = db.execute(" UNION ALL ".join(f"SELECT seq, id FROM {table}" for table in tables)).fetchall()
    db.close()
    assert sorted(row[0] for row in rows) == list(range(1, len(rows) + 1))
    return {row[1] for row in rows}


def operations(template: Path, root: Path, kinds: frozenset[str]) -> int:
    """How many operations of these kinds a trial makes when nothing fails."""
    disk = FailingDisk("counting", WRITE, kinds, lasting=False)
    with using(disk):
        shutil.copytree(template, root)
        store = open_store(root)
        disk.arm(10**9)
        write_some(store, 10, commits=3)
        made = 10**9 - disk.left
        store.close()
    return made


def fail_once(template: Path, root: Path, error: apsw.Error, kinds: frozenset[str], *, k: int) -> None:
    """The k-th operation fails, once: whatever was acknowledged is stored, and writing goes on by itself."""
    disk = FailingDisk(f"failing{k}", error, kinds, lasting=False)
    shutil.copytree(template, root)
    with using(disk):
        store = open_store(root)
        disk.arm(k)
        acknowledged, refused = write_some(store, 10, commits=3)
        disk.mend()
        assert not store.broken
        more, refused_after = write_some(store, 20, commits=1)
        store.close()
    assert disk.failed == 1
    assert refused_after == 0
    stored = stored_in(root)
    assert acknowledged | more <= stored
    assert len(stored) == 3 + len(acknowledged) + len(more), "what was refused was not written"
    del refused  # a failing checkpoint refuses nobody


@pytest.mark.parametrize("error", [FULL, WRITE], ids=["full", "io-error"])
def test_whichever_write_fails_only_what_was_refused_is_lost(error: apsw.Error, template: Path, tmp_path: Path) -> None:
    kinds = frozenset(("write", "truncate"))
    made = operations(template, tmp_path / "counted", kinds)
    assert made > 20
    for k in range(made):
        fail_once(template, tmp_path / f"k{k}", error, kinds, k=k)


def test_after_a_failed_sync_nothing_is_acknowledged_until_a_restart(template: Path, tmp_path: Path) -> None:
    """A disk that failed a sync may have dropped the very pages that it says it keeps the next time."""
    made = operations(template, tmp_path / "counted", frozenset(("sync",)))
    assert made >= 3
    for k in range(made):
        root = tmp_path / f"k{k}"
        shutil.copytree(template, root)
        disk = FailingDisk(f"unsynced{k}", SYNC, frozenset(("sync",)), lasting=False)
        with using(disk):
            store = open_store(root)
            disk.arm(k)
            acknowledged, refused = write_some(store, 10, commits=3)
            disk.mend()
            assert store.broken
            assert refused > 0
            later, refused_later = write_some(store, 20, commits=2)
            assert (later, refused_later) == (set(), 4), "closed for writing, though the disk is well again"
            assert Reader(root).decision("t", fake_id(1)) is not None, "reads go on"
            store.close()
        assert acknowledged <= stored_in(root)
        again = open_store(root)
        assert write_some(again, 30, commits=1)[1] == 0
        again.close()


def test_a_disk_that_stays_full_refuses_everything_and_resumes_when_it_is_not(template: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(template, root)
    disk = FailingDisk("full", FULL, frozenset(("write",)), lasting=True)
    with using(disk):
        store = open_store(root)
        disk.arm(5)
        acknowledged, refused = write_some(store, 10, commits=3)
        assert (acknowledged, refused) == (set(), 6)
        assert Reader(root).counts("t", "p") == {"decisions": 3}
        disk.mend()
        assert write_some(store, 10, commits=3)[1] == 0
        store.close()


# ---- the ballast -----------------------------------------------------------------------------------------------------


class BallastDisk(Disk):
    """A disk that is full as long as the ballast lies on it."""

    def __init__(self, name: str, root: Path) -> None:
        self.root, self.armed = root, False
        super().__init__(name)

    def before(self, kind: str, name: str) -> None:
        del name
        if self.armed and kind == "write" and (self.root / "ballast").exists():
            raise FULL


@pytest.fixture
def full(tmp_path: Path) -> Iterator[BallastDisk]:
    disk = BallastDisk("ballast", tmp_path / "data")
    with using(disk):
        yield disk


def make_control(root: Path) -> Control:
    control = Control(root)
    policy = Policy(tenant="t", name="p", kind=PolicyKind.RANKER, spec=TRIAL_SPEC, created_ms=0)
    control.create_policy(policy, version(0, VersionStatus.BASELINE))
    control.move("t", "p", change={"champion": "v1", "previous": "v0-baseline"})
    return control


def test_a_rollback_takes_the_ballast_and_nothing_else_may(full: BallastDisk) -> None:
    store = open_store(full.root, StoreConfig(ballast_bytes=MIB))
    control = make_control(full.root)
    full.armed = True
    assert write_some(store, 1, commits=2) == (set(), 4)
    with pytest.raises(StorageFull):
        control.set_learns("t", "ann", False)
    assert (full.root / "ballast").stat().st_size == MIB, "neither decisions nor wishes take it"
    moved = control.move("t", "p", change={"champion": "v0-baseline", "previous": None})
    assert moved.champion == "v0-baseline"
    assert not (full.root / "ballast").exists()
    store.close()


def test_decisions_wait_until_more_is_free_than_a_rollback_may_need(
    full: BallastDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(full.root, StoreConfig(ballast_bytes=MIB))
    control = make_control(full.root)
    full.armed = True
    free = [0]
    real = os.statvfs(full.root)

    def statvfs(_: Path) -> os.statvfs_result:
        fields = list(real)
        fields[1], fields[4] = 1, free[0]
        return os.statvfs_result(fields)

    monkeypatch.setattr(store_module.os, "statvfs", statvfs)
    assert write_some(store, 1, commits=1)[1] == 2
    control.move("t", "p", change={"champion": "v0-baseline"})
    free[0] = 2 * MIB - 1
    assert write_some(store, 1, commits=1)[1] == 2, "what the ballast gave back is the rollback's"
    free[0] = 2 * MIB
    full.armed = False
    assert write_some(store, 1, commits=1)[1] == 0
    assert (full.root / "ballast").stat().st_size == MIB, "and the reserve is made anew"
    store.close()


def test_the_reserve_is_kept_by_a_server_that_never_met_the_full_disk_itself(
    full: BallastDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rollback took the ballast before any decision was refused; or a server started without room for one."""
    store = open_store(full.root, StoreConfig(ballast_bytes=MIB))
    ballast, free, real = full.root / "ballast", [2 * MIB - 1], os.statvfs(full.root)
    ballast.unlink()

    def statvfs(_: Path) -> os.statvfs_result:
        fields = list(real)
        fields[1], fields[4] = 1, free[0]
        return os.statvfs_result(fields)

    monkeypatch.setattr(store_module.os, "statvfs", statvfs)
    assert write_some(store, 1, commits=1)[1] == 2
    free[0] = 2 * MIB
    assert write_some(store, 1, commits=1)[1] == 0
    assert ballast.stat().st_size == MIB, "made anew without a restart"
    store.close()


# ---- a real full disk ------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system needs root")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)], capture_output=True, check=False, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"mounting a small file system is not allowed here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> Path:
    """Leave no byte free."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as out, contextlib.suppress(OSError):
        for size in (1 << 16, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while out.write(bytes(size)) == size:
                    pass
    assert os.statvfs(place).f_bavail == 0
    return filler


def rank(server: Running, history: History, number: int) -> int:
    """One question; its status."""
    body = rank_body(number, decision_id=str(uuid.uuid4()))
    history.asked["/v1/rank", body["id"]] = body
    reply = server.links[0]("POST", "/v1/rank", body)
    if reply.status == 200:
        history.told["/v1/rank", body["id"]] = reply.body
    else:
        assert reply.status == 507, reply
        assert reply.body["error"]["type"] == "storage_error"
    return reply.status


@pytest.mark.timeout(120)
def test_a_full_disk_under_a_real_server(small_disk: Path) -> None:
    data, history = small_disk / "data", History()
    environ = {"DAYJOB_BALLAST_BYTES": str(2 * MIB)}
    with serving(data, environ=environ) as server:
        link = server.link()
        link.ok("PUT", f"/v1/policies/{POLICY}", SPEC)
        names = [add_version(data, FakeRanker(number)) for number in (1, 2)]
        for name in names:
            link.ok("POST", f"/v1/policies/{POLICY}/promote", {"version": name, "reason": "a test"})
        assert [rank(server, history, n) for n in range(5)] == [200] * 5
        fill(small_disk)
        statuses = [rank(server, history, n) for n in range(300)]
        assert 507 in statuses
        assert set(statuses[-20:]) == {507}
        click = {"id": str(uuid.uuid4()), "decision": next(iter(history.told))[1], "kind": "click", "position": 1}
        assert link("POST", "/v1/feedback", click).status == 507
        assert link.ok("GET", f"/v1/policies/{POLICY}")["champion"] == names[1]
        lines = link.ok("GET", f"/v1/export?policy={POLICY}").splitlines()
        assert len(lines) == len(history.told)
        began = time.monotonic()
        assert link.ok("POST", f"/v1/policies/{POLICY}/rollback", {})["champion"] == names[0]
        assert time.monotonic() - began < 4.0  # of a disk that is waited for
        assert rank(server, history, 1) == 507, "what the ballast gave back is not for decisions"
        server.kill()
    back = subprocess.run(
        [sys.executable, "-m", "dayjob", "rollback", POLICY, "--data", str(data), "--to", "v0-baseline"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert back.returncode == 0, back.stderr
    with serving(data, environ=environ) as server:
        link = server.link()
        assert link.ok("GET", f"/v1/policies/{POLICY}")["champion"] == "v0-baseline"
        rank(server, history, 1)
        (small_disk / "filler").unlink()
        deadline = time.monotonic() + 60
        while rank(server, history, 2) != 200:
            assert time.monotonic() < deadline, "writing did not resume by itself"
            time.sleep(0.05)
        assert (data / "ballast").exists()
        assert server.stop() == 0
    check_history(history, data)


@pytest.mark.timeout(60)
def test_a_rollback_by_hand_on_a_full_disk_with_everything_dead(small_disk: Path) -> None:
    data = small_disk / "data"
    with serving(data, "--no-judge", environ={"DAYJOB_BALLAST_BYTES": str(MIB)}) as server:
        link = server.link()
        link.ok("PUT", f"/v1/policies/{POLICY}", SPEC)
        name = add_version(data, FakeRanker(1))
        link.ok("POST", f"/v1/policies/{POLICY}/promote", {"version": name, "reason": "a test"})
        assert server.stop() == 0
    fill(small_disk)
    command = [sys.executable, "-m", "dayjob", "rollback", POLICY, "--data", str(data)]
    back = subprocess.run(command, capture_output=True, text=True, check=False)
    assert back.returncode == 0, back.stderr
    assert Control(data).pointers("default", POLICY).champion == "v0-baseline"
