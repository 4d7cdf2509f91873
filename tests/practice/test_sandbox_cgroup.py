"""Where a cgroup for a box is made, and what is written there. Runs in a real one only where one is delegated."""

from pathlib import Path
from typing import Any

import pytest

from dayjob.endings import SandboxEnding
from dayjob.practice import sandbox_box, sandbox_cgroup, sandbox_process
from dayjob.practice.sandbox import Limits
from tests.practice.sandboxed import MISSING, run

DELEGATED = MISSING is None and sandbox_cgroup.parent() is not None


def tree(root: Path, handed: dict[str, str]) -> Path:
    for path, controllers in handed.items():
        (root / path).mkdir(parents=True, exist_ok=True)
        (root / path / "cgroup.subtree_control").write_text(controllers + "\n")
    return root


@pytest.mark.parametrize(
    ("handed", "expected"),
    [
        ({"": "cpu memory pids", "a": "", "a/b": ""}, ""),  # root's, of a machine with systemd
        ({"": "cpu memory pids", "a": "memory pids", "a/b": ""}, "a"),  # a user's slice
        ({"": "memory pids", "a": "cpu", "a/b": ""}, ""),
        ({"": "cpu", "a": "memory", "a/b": "pids"}, None),  # one of the two is not enough
        ({"": "hugetlb"}, None),  # the empty hierarchy beside version 1
    ],
)
def test_the_nearest_that_hands_on_both_controllers(
    tmp_path: Path, handed: dict[str, str], expected: str | None
) -> None:
    found = sandbox_cgroup._nearest(tree(tmp_path, handed), "/a/b", may=lambda _: True)
    assert found == (None if expected is None else tmp_path / expected)


def test_one_that_may_not_be_written_is_passed_over(tmp_path: Path) -> None:
    root = tree(tmp_path, {"": "memory pids", "a": "memory pids"})
    assert sandbox_cgroup._nearest(root, "/a", may=lambda folder: folder == root) == root
    assert sandbox_cgroup._nearest(root, "/a", may=lambda _: False) is None


def test_a_folder_that_is_no_cgroup_is_none(tmp_path: Path) -> None:
    assert sandbox_cgroup._nearest(tmp_path, "/gone") is None


def test_what_is_written_of_the_limits(tmp_path: Path) -> None:
    made = sandbox_cgroup.make(tmp_path, limits=Limits(memory_bytes=64 << 20, disk_bytes=1 << 20, processes=4))
    written = {file.name: file.read_text() for file in made.folder.iterdir()}
    expected = {"memory.max": str((96 << 20) + (1 << 20)), "memory.oom.group": "1", "pids.max": "5"}
    assert written == expected  # memory.swap.max only where the kernel has it


def test_what_a_killed_process_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    for name in ("dayjob-1-0", "dayjob-4999999-3", "session-4999999-3"):
        (tmp_path / name).mkdir()
    sandbox_cgroup._sweep(tmp_path)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["dayjob-1-0", "session-4999999-3"]


delegated = pytest.mark.skipif(not DELEGATED, reason="no cgroup v2 with memory and pids is delegated to this process")


@delegated
def test_a_real_one_holds_memory_together_and_is_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the watcher, which would see it too."""
    above = sandbox_cgroup.parent()
    assert above is not None
    monkeypatch.setattr(sandbox_process.Running, "_needs_watching", lambda _: False)
    code = "import os, time\nfor _ in range(4):\n    if os.fork() == 0: break\nx = bytearray(80 << 20)\ntime.sleep(60)"
    assert run(code, processes=8, memory_bytes=128 << 20).ending is SandboxEnding.MEMORY
    assert not list(above.glob("dayjob-*"))


@delegated
def test_a_real_one_counts_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the rlimit, which would hold them too."""
    real = sandbox_box.command

    def unlimited(argv: list[str], **given: Any) -> list[str]:
        return [one for one in real(argv, **given) if not one.startswith("--nproc=")]

    monkeypatch.setattr(sandbox_box, "command", unlimited)
    code = "import os, time\nmade = 0\ntry:\n    while True:\n"
    code += "        if os.fork() == 0: time.sleep(60)\n        made += 1\n"
    assert run(code + "except OSError: print(made)", processes=8).stdout == b"7\n"
    assert not list(sandbox_cgroup.parent().glob("dayjob-*"))  # type: ignore[union-attr]
