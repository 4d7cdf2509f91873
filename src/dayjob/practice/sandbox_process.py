"""One running box: its pipes without blocking, its end without a remainder, and a watcher where the kernel keeps no
account of all its processes together.

The program is process 1 of its own pid namespace. When it ends, however it ends, the kernel kills every process that it
left behind and only then lets bwrap, its parent, see the end: once bwrap has been waited for, nothing runs any more.
When this process dies, bwrap gets a signal of the kernel (die-with-parent), and the program through it.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from dayjob.endings import SandboxEnding
from dayjob.practice import sandbox_box, sandbox_cgroup
from dayjob.practice.sandbox_limits import Limits

WATCH_S = 0.02
READ_BYTES = 1 << 16
FREE_FILES = 256  # that an empty /tmp may hold beside one for every 4 KiB
SIGNALLED = 128  # bwrap's exit status for a program that a signal ended: this and the signal
PAGE, TICK = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")


class Running:
    """A started box. Whoever makes one must `end` it."""

    def __init__(self, files: Mapping[str, bytes], argv: Sequence[str], *, limits: Limits) -> None:
        self.limits = limits
        self.cpu_s = 0.0
        self._forced: SandboxEnding | None = None
        self._status: int | None = None
        above = sandbox_cgroup.parent()
        self._cgroup = sandbox_cgroup.make(above, limits=limits) if above is not None else None
        try:
            self._start(files, argv)
        except BaseException:
            if self._cgroup is not None:
                self._cgroup.remove()
            raise
        self._pidfd = os.pidfd_open(self._process.pid)
        self._watcher = asyncio.ensure_future(self._watch()) if self._needs_watching() else None

    def _start(self, files: Mapping[str, bytes], argv: Sequence[str]) -> None:
        with contextlib.ExitStack() as ours:  # the ends that the box gets are closed here once it has them
            given = {name: _memory(body, ours) for name, body in files.items()}
            seccomp = _memory(sandbox_box.seccomp_filter(self.limits), ours)
            line = sandbox_box.command(argv, limits=self.limits, files=given, seccomp=seccomp)
            if self._cgroup is not None:
                line = [*sandbox_cgroup.into(self._cgroup, shell="/bin/sh"), *line]
            pipes = [os.pipe() for _ in range(3)]
            for end in (pipes[0][0], pipes[1][1], pipes[2][1]):
                ours.callback(os.close, end)
            self.stdin: int | None = pipes[0][1]
            self.stdout, self.stderr = pipes[1][0], pipes[2][0]
            for end in (pipes[0][1], self.stdout, self.stderr):
                os.set_blocking(end, False)
            try:
                self._process = subprocess.Popen(
                    line, stdin=pipes[0][0], stdout=pipes[1][1], stderr=pipes[2][1], env={}, cwd="/",
                    pass_fds=[*given.values(), seccomp],
                )  # fmt: skip
            except BaseException:
                for end in (pipes[0][1], self.stdout, self.stderr):
                    os.close(end)
                raise

    async def write(self, body: bytes) -> None:
        """All of it, or as much as the program reads before it closes its end."""
        left = memoryview(body)
        while left and self.stdin is not None:
            try:
                left = left[os.write(self.stdin, left) :]
            except BlockingIOError:
                await _ready(self.stdin, write=True)
            except BrokenPipeError:
                return

    def close_stdin(self) -> None:
        if self.stdin is not None:
            os.close(self.stdin)
            self.stdin = None

    async def ended(self) -> None:
        """Returns once the box and everything in it has ended by itself or was killed."""
        await _ready(self._pidfd)

    def kill(self, why: SandboxEnding) -> None:
        """Every process in the box. The first reason is the one that stays."""
        self._forced = self._forced or why
        if self._status is None:
            if self._cgroup is not None:
                self._cgroup.kill()
            first = next(iter(_children(self._process.pid)), None)  # process 1 of the box: the rest dies with it
            for pid in (self._process.pid,) if first is None else (first,):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    async def end(self, why: SandboxEnding = SandboxEnding.CLOSED) -> tuple[SandboxEnding, int | None]:
        """Kill what still runs, wait for its end, free what is held. How it ended, and its exit status where it did so
        by itself. May be called again."""
        if self._status is None:
            try:
                if not _is_ready(self._pidfd):
                    self.kill(why)
                    await self._until_dead()
            finally:
                self._reap()
        assert self._status is not None
        return self._ending(self._status)

    async def _until_dead(self) -> None:
        """A box that was killed while bwrap still made it has no process 1 yet that we saw: then again."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    return await self.ended()
            os.kill(self._process.pid, signal.SIGKILL)

    def _reap(self) -> None:
        """Everything of ours at once, without waiting for longer than a kill takes."""
        if self._watcher is not None:
            self._watcher.cancel()
        if not _is_ready(self._pidfd):
            os.kill(self._process.pid, signal.SIGKILL)
        _, status, usage = os.wait4(self._process.pid, 0)
        self._status = self._process.returncode = os.waitstatus_to_exitcode(status)
        self.cpu_s = usage.ru_utime + usage.ru_stime
        self.close_stdin()
        for descriptor in (self.stdout, self.stderr, self._pidfd):
            os.close(descriptor)
        if self._cgroup is not None:
            if self._cgroup.out_of_memory():
                self._forced = self._forced or SandboxEnding.MEMORY
            self._cgroup.remove()

    def _ending(self, status: int) -> tuple[SandboxEnding, int | None]:
        if self._forced is not None:
            return self._forced, None
        # Nothing inside can send process 1 this signal. The kernel counts the limit in whole ticks, rusage what was
        # used of them: on a crowded machine hardly more than half.
        if status == SIGNALLED + signal.SIGKILL and self.cpu_s >= 0.4 * self.limits.cpu_s:
            return SandboxEnding.CPU, None
        if status < 0 or SIGNALLED < status <= SIGNALLED + signal.NSIG:
            return SandboxEnding.KILLED, None
        return SandboxEnding.EXITED, status

    def _needs_watching(self) -> bool:
        """One process without a disk is held exactly by its own rlimits; more of them only one by one."""
        return self.limits.processes > 1 or self.limits.disk_bytes > 0

    async def _watch(self) -> None:
        """Memory and processor time of all processes together, and the number of files, which no limit counts."""
        most_files = FREE_FILES + self.limits.disk_bytes // 4096
        while True:
            await asyncio.sleep(WATCH_S)
            pids = list(_family(self._process.pid))
            if sum(map(_resident, pids)) > self.limits.memory_bytes:
                self.kill(SandboxEnding.MEMORY)
            if sum(map(_computed_s, pids)) > self.limits.cpu_s:
                self.kill(SandboxEnding.CPU)
            if len(pids) > 1 and _files(pids[1]) > most_files:
                self.kill(SandboxEnding.DISK)


async def drain(running: Running, descriptor: int, *, into: bytearray, other: bytearray) -> None:
    """Read to the end. What exceeds the limit of both together ends the program."""
    while chunk := await read(descriptor):
        room = running.limits.output_bytes - len(into) - len(other)
        into += chunk[: max(room, 0)]
        if len(chunk) > room:
            return running.kill(SandboxEnding.OUTPUT)


async def read(descriptor: int) -> bytes:
    """What there is, at least a byte; nothing at the end."""
    while True:
        try:
            return os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            await _ready(descriptor)


def read_now(descriptor: int) -> bytes:
    """What there is without waiting."""
    try:
        return os.read(descriptor, READ_BYTES)
    except BlockingIOError:
        return b""


async def _ready(descriptor: int, *, write: bool = False) -> None:
    loop = asyncio.get_running_loop()
    seen: asyncio.Future[None] = loop.create_future()
    add, remove = (loop.add_writer, loop.remove_writer) if write else (loop.add_reader, loop.remove_reader)
    add(descriptor, lambda: None if seen.done() else seen.set_result(None))
    try:
        await seen
    finally:
        remove(descriptor)


def _is_ready(pidfd: int) -> bool:
    return os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _memory(body: bytes, stack: contextlib.ExitStack) -> int:
    """A descriptor that reads as ``body``, closed with ``stack``."""
    descriptor = os.memfd_create("dayjob")
    stack.callback(os.close, descriptor)
    left = memoryview(body)
    while left:
        left = left[os.write(descriptor, left) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _children(pid: int) -> Iterator[int]:
    """None where it has ended, or where the kernel keeps no such list."""
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            yield from map(int, (task / "children").read_text().split())


def _family(pid: int) -> Iterator[int]:
    """Itself, then everything below it; what a daemon leaves is adopted by process 1 of the box, which is below."""
    yield pid
    for child in _children(pid):
        yield from _family(child)


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except OSError:
        return 0  # ended meanwhile


def _computed_s(pid: int) -> float:
    """Its own and that of children it has waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / TICK


def _files(pid: int) -> int:
    """Files in the private /tmp of the box that this is process 1 of; while the box is being made it sees ours."""
    root = Path("/proc", str(pid), "root")
    try:
        if root.samefile("/"):
            return 0
        used = os.statvfs(root / "tmp")
    except OSError:
        return 0
    return used.f_files - used.f_ffree
