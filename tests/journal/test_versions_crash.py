"""Versions and the disk as it may be after the power went, or while it fails: the whole version, or none.

Publishing is recorded operation by operation. For every prefix, every state that the disk may then be in is built for
real: of what was not synced, any new name may be missing and any content empty, cut or zero.
"""

import errno
import itertools
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from dayjob.endings import DayjobError, StorageFull
from dayjob.journal import versions
from dayjob.journal.disk import LOCAL_DISK, Disk, LocalDisk
from dayjob.journal.versions import WEIGHTS, StoredVersion, VersionManifest

ABOUT = VersionManifest(recipe="debiased", network={}, from_seq=3, to_seq=90, seed=5, created_ms=1)
ARRAY = np.arange(64, dtype=np.float32)


def publish(root: Path, *, number: int = 3, disk: Disk = LOCAL_DISK) -> StoredVersion:
    weights = {"w": ARRAY + (number - 3)}
    return versions.publish(root, "acme", "geo", number=number, weights=weights, manifest=ABOUT, disk=disk)


def folder(root: Path, stored: StoredVersion) -> Path:
    return root / "versions" / "acme" / "geo" / stored.version


def check_loads(root: Path, stored: StoredVersion) -> None:
    weights, manifest = versions.load(root, "acme", "geo", stored.version, digest=stored.digest)
    np.testing.assert_array_equal(weights["w"], ARRAY)
    assert manifest == ABOUT


@dataclass(slots=True)
class Node:
    """A file (bytes) or a directory (names), as it is and as it surely survives."""

    data: bytes | None = None
    names: dict[str, "Node"] = field(default_factory=dict)
    kept: dict[str, "Node"] = field(default_factory=dict)
    pending: list[tuple[str, str | None, "Node | None"]] = field(default_factory=list)  # (name, old name, node)
    synced: bool = False


class FailingDisk(LocalDisk):
    """The file system, recording every operation; the k-th fails with ``error``."""

    def __init__(self, *, fail_at: int = -1, error: int = errno.ENOSPC) -> None:
        self.fail_at, self.error = fail_at, error
        self.done: list[tuple[str, Path, bytes | Path | None]] = []

    def note(self, name: str, path: Path, detail: bytes | Path | None = None) -> None:
        if len(self.done) == self.fail_at:
            self.fail_at = -1
            raise OSError(self.error, os.strerror(self.error))
        self.done.append((name, path, detail))

    def make_dir(self, path: Path) -> None:
        if path.exists():
            raise FileExistsError(path)
        self.note("make_dir", path)
        super().make_dir(path)

    def write(self, path: Path, data: bytes) -> None:
        self.note("write", path, data)
        super().write(path, data)

    def sync(self, path: Path) -> None:
        self.note("sync", path)
        super().sync(path)

    def rename(self, source: Path, target: Path) -> None:
        self.note("rename", source, target)
        super().rename(source, target)


def replay(root: Path, start: Node, done: list[tuple[str, Path, bytes | Path | None]]) -> Node:
    def find(path: Path) -> Node:
        node = top
        for part in path.relative_to(root).parts:
            node = node.names[part]
        return node

    top = start
    for name, path, detail in done:
        if name == "sync":
            node = find(path)
            node.synced, node.kept, node.pending = True, dict(node.names), []
            continue
        parent = find(path.parent)
        if name == "rename":
            assert isinstance(detail, Path)
            node = parent.names.pop(path.name)
            parent.names[detail.name] = node
            parent.pending.append((detail.name, path.name, node))
        else:
            assert not isinstance(detail, Path)
            parent.names[path.name] = Node(data=detail)
            parent.pending.append((path.name, None, parent.names[path.name]))
    return top


def survivors(node: Node) -> Iterator[dict[str, object] | bytes]:
    """Everything that ``node`` may be after a crash: any part of what was not synced may be missing, cut or zero."""
    if node.data is not None:
        yield node.data
        if not node.synced:
            yield from (b"", node.data[: len(node.data) // 2], bytes(len(node.data)))
        return
    for lucky in itertools.product((False, True), repeat=len(node.pending)):
        names = dict(node.kept)
        for happened, (name, old, child) in zip(lucky, node.pending, strict=True):
            if happened and child is not None:
                names.pop(old or "", None)
                names[name] = child
        for contents in itertools.product(*(list(survivors(child)) for child in names.values())):
            yield dict(zip(names, contents, strict=True))


def write_tree(path: Path, tree: object) -> None:
    if isinstance(tree, bytes):
        path.write_bytes(tree)
    else:
        assert isinstance(tree, dict)
        path.mkdir()
        for name, inner in tree.items():
            write_tree(path / name, inner)


def outcomes_of_crashes(tmp_path: Path, before: Path, done: list, upto: int, stored: StoredVersion) -> set[str]:
    """What loading says in every state that the disk may be in when the power goes after ``upto`` operations."""
    said = set()
    for tree in survivors(replay(tmp_path / "data", read_tree(before), done[:upto])):
        shutil.rmtree(tmp_path / "after", ignore_errors=True)
        write_tree(tmp_path / "after", tree)
        try:
            check_loads(tmp_path / "after", stored)
            said.add("loads")
        except DayjobError as error:
            said.add(type(error).__name__)
    return said


def read_tree(path: Path) -> Node:
    if path.is_file():
        return Node(data=path.read_bytes(), synced=True)
    names = {inner.name: read_tree(inner) for inner in path.iterdir()}
    return Node(names=names, kept=dict(names), synced=True)


@pytest.mark.parametrize("before", ["nothing", "others", "damaged"])
def test_power_lost_between_any_two_writes_leaves_the_whole_version_or_none(tmp_path, before):
    data, start, disk = tmp_path / "data", tmp_path / "start", FailingDisk()
    data.mkdir()
    if before == "others":
        publish(data, number=1)
    if before == "damaged":
        (folder(data, publish(data)) / WEIGHTS).write_bytes(b"rot")
    shutil.copytree(data, start)
    stored = publish(data, disk=disk)
    assert len(disk.done) >= 10
    allowed = {"loads", "NotFound"} | ({"Damaged"} if before == "damaged" else set())
    seen = [outcomes_of_crashes(tmp_path, start, disk.done, upto, stored) for upto in range(len(disk.done) + 1)]
    assert all(said <= allowed for said in seen)
    assert "loads" not in seen[0]
    assert seen[-1] == {"loads"}
    renamed = [at for at, (name, path, _) in enumerate(disk.done) if name == "rename" and path.name.startswith(".tmp")]
    assert all("loads" not in said for said in seen[: renamed[0] + 1])


def test_the_crash_battery_notices_a_missing_sync(tmp_path):
    data, start = tmp_path / "data", tmp_path / "start"
    for path in (data, start):
        path.mkdir()
    disk = FailingDisk()
    stored = publish(data, disk=disk)
    syncs = [at for at, (name, _, _) in enumerate(disk.done) if name == "sync"]
    for at in syncs:
        without = disk.done[:at] + disk.done[at + 1 :]
        assert outcomes_of_crashes(tmp_path, start, without, len(without), stored) != {"loads"}, disk.done[at]


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_disk_that_fails_at_any_write_leaves_nothing_and_a_retry_succeeds(tmp_path, error):
    count = FailingDisk()
    publish(tmp_path, disk=count)
    for at in range(len(count.done)):
        root = tmp_path / f"at{at}"
        root.mkdir()
        with pytest.raises(StorageFull, match="free space or repair"):
            publish(root, disk=FailingDisk(fail_at=at, error=error))
        assert not list(root.rglob(".tmp-*"))
        retry = FailingDisk()
        check_loads(root, publish(root, disk=retry))
        assert retry.done[-1][:2] == ("sync", root / "versions" / "acme" / "geo")
