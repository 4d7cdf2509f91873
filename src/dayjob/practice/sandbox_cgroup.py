"""A cgroup for each box (version 2), where this process may make some: memory, swap and processes are limited together.

The kernel lets processes lie only in cgroups that hand no controllers on, and lets a process be moved only by somebody
who may write to an ancestor of both places. So the nearest ancestor of our own cgroup is taken that hands on memory and
pids and that we may write to: the root cgroup for root, a user's slice under systemd, or a delegated unit's.
"""

import contextlib
import functools
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dayjob.practice.sandbox_limits import Limits

NEEDED = {"memory", "pids"}
MOUNTS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Cgroup:
    """One box's cgroup; its folder is gone after `remove`."""

    folder: Path

    def kill(self) -> None:
        """Every process in it, at once (kernels before 5.14 have no such file: the pid namespace does it there)."""
        if (self.folder / "cgroup.kill").exists():
            (self.folder / "cgroup.kill").write_text("1")

    def out_of_memory(self) -> bool:
        """Whether the kernel ended it for its memory."""
        rows = (self.folder / "memory.events").read_text().split("\n")
        return any(row.startswith("oom_kill ") and row != "oom_kill 0" for row in rows)

    def remove(self) -> None:
        """Only once it is empty."""
        self.folder.rmdir()


@functools.cache
def parent() -> Path | None:
    """Where cgroups for boxes can be made; None where none is delegated to this process."""
    own = [row.split(":", 2)[2] for row in Path("/proc/self/cgroup").read_text().splitlines() if row.startswith("0::")]
    mount = next((one for one in MOUNTS if (one / "cgroup.controllers").exists()), None)
    found = _nearest(mount, own[0]) if mount is not None and own else None
    if found is not None:
        _sweep(found)
    return found


def _nearest(mount: Path, own: str, *, may: Callable[[Path], bool] | None = None) -> Path | None:
    here = mount / own.lstrip("/")
    for folder in (here, *here.parents):
        if not folder.is_relative_to(mount):
            return None
        try:
            handed = set((folder / "cgroup.subtree_control").read_text().split())
        except OSError:
            continue
        if handed >= NEEDED and (may or _may_write)(folder):
            return folder
    return None


def _sweep(above: Path) -> None:
    """Remove what processes that were killed have left: empty, since their boxes died with them."""
    for folder in above.glob("dayjob-*-*"):
        if not Path("/proc", folder.name.split("-")[1]).exists():
            with contextlib.suppress(OSError):
                folder.rmdir()


def _may_write(folder: Path) -> bool:
    """By trying: a folder may be writable while the file system is not."""
    trial = folder / f"dayjob-{os.getpid()}-trial"
    try:
        trial.mkdir()
        trial.rmdir()
    except OSError:
        return False
    return os.access(folder / "cgroup.procs", os.W_OK)


def make(above: Path, *, limits: Limits) -> Cgroup:
    """A new one under ``above``. What /tmp holds counts as memory to the kernel, so its size is added, and half as much
    again as the program may use for what the kernel keeps on its behalf."""
    folder = above / f"dayjob-{os.getpid()}-{next(_numbers)}"
    folder.mkdir()
    (folder / "memory.max").write_text(str(limits.memory_bytes * 3 // 2 + limits.disk_bytes))
    if (folder / "memory.swap.max").exists():
        (folder / "memory.swap.max").write_text("0")
    (folder / "memory.oom.group").write_text("1")
    (folder / "pids.max").write_text(str(limits.processes + 1))  # bwrap itself waits beside the program
    return Cgroup(folder)


def into(cgroup: Cgroup, *, shell: str) -> list[str]:
    """What goes before a command line so that it runs in there from its first moment on."""
    return [shell, "-c", 'echo $$ > "$0" && exec "$@"', str(cgroup.folder / "cgroup.procs")]
