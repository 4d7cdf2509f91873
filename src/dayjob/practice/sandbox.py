"""The sandbox: Python programs that a model wrote, run where they can hurt nobody and cannot stay.

`run_program` runs one to its end. A `Session` is one that stays alive and answers lines of JSON. Both under bubblewrap:
no network, no files but its own, no capabilities, no new privileges, a filter of system calls, a uid that is not root's
(`sandbox_box`), limits on memory, processes, processor, output and time (`sandbox_process`, `sandbox_cgroup`). Where
the sandbox cannot be had, `available` says what is missing and nothing is run, ever.

**A verdict is never taken from inside.** Whatever runs in a box can print anything, leave with any exit status and
change anything in its own process. So nothing there knows what the right answer is: questions go in one by one, answers
come out, and the comparing is done here.
"""

import asyncio
import contextlib
import functools
import json
import os
import subprocess
import sys
import weakref
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Self

from dayjob.endings import DayjobError, Invalid, SandboxEnding
from dayjob.practice import sandbox_box, sandbox_cgroup, sandbox_process, sandbox_seccomp
from dayjob.practice.sandbox_limits import Limits, Result, check_files

__all__ = ["Failed", "Limits", "Result", "Session", "available", "place", "protection", "run_program"]

INSTALL = "apt-get install bubblewrap util-linux"
PROBE_S = 30
# Run inside once a process: what the sandbox promises, tried. Prints what is not kept.
PROBE = """
import os, socket
def kept(name, call):
    try:
        call()
    except OSError:
        return
    print(name)
kept("network", lambda: socket.socket())
kept("processes", os.fork)
kept("files", lambda: open("/box/new", "w"))
kept("root", lambda: os.setuid(0))
kept("proc", lambda: os.listdir("/proc"))
print("done", os.getresuid() == (1000, 1000, 1000))
"""


class Failed(DayjobError):
    """A program in a session ended, or did something else than answer. ``result`` says how."""

    def __init__(self, message: str, *, result: Result) -> None:
        super().__init__(message)
        self.result = result


@functools.cache
def available() -> str | None:
    """What is missing for the sandbox here, with its remedy; None where it works. Tried once a process, by running a
    program that tests what the sandbox promises."""
    if not sys.platform.startswith("linux"):
        return "the sandbox needs Linux: run dayjob there, or in a virtual machine or container of it"
    if sandbox_seccomp.architecture() is None:
        known = " or ".join(sandbox_seccomp.ARCHITECTURES)
        return f"the sandbox knows the system calls of {known} only: run it on such a machine"
    for name in ("bwrap", "prlimit", *(("setpriv", "nsenter", "unshare") if os.geteuid() == 0 else ())):
        if sandbox_box.tool(name) is None:
            return f"the sandbox needs {name}: {INSTALL}"
    try:
        said = _probe()
    except (Invalid, OSError, subprocess.TimeoutExpired) as error:
        return f"the sandbox cannot start: {error}"
    return None if said == "done True" else f"the sandbox does not hold here: {said}"


def _probe() -> str:
    seccomp = os.memfd_create("dayjob")
    try:
        limits = Limits(disk_bytes=0)
        os.write(seccomp, sandbox_box.seccomp_filter(limits))
        os.lseek(seccomp, 0, os.SEEK_SET)
        line = sandbox_box.command(["-c", PROBE], limits=limits, files={}, seccomp=seccomp)
        done = subprocess.run(
            line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PROBE_S, pass_fds=[seccomp], env={},
            cwd="/",
        )  # fmt: skip
    finally:
        os.close(seccomp)
    said = " ".join((done.stdout or done.stderr).split())
    if "bwrap" in said:
        said += " (user namespaces are needed: in a container, run it with --privileged or without its seccomp profile;"
        said += " on Ubuntu, sysctl -w kernel.apparmor_restrict_unprivileged_userns=0)"
    return said


def protection() -> str:
    """Which of the ways to hold a program to its limits is in force here, in one line."""
    user = "a uid of its own for each box" if os.geteuid() == 0 else f"uid {os.geteuid()}, unprivileged"
    above = sandbox_cgroup.parent()
    if above is None:
        held = "rlimits, a pid namespace and a watcher (no cgroup v2 is delegated to this process)"
    else:
        held = f"cgroups under {above}, rlimits, a pid namespace and a watcher"
    return f"bubblewrap, seccomp, {user}; memory and processes by {held}"


_places: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = weakref.WeakKeyDictionary()


@contextlib.asynccontextmanager
async def place() -> AsyncIterator[None]:
    """One of as many places as two a core: whoever starts thousands of short boxes waits here, so that each has its
    time. `run_program` takes one itself; a session takes none, since it may stay for hours."""
    loop = asyncio.get_running_loop()
    if loop not in _places:
        _places[loop] = asyncio.Semaphore(2 * len(os.sched_getaffinity(0)))
    async with _places[loop]:
        yield


async def run_program(
    files: Mapping[str, bytes], argv: Sequence[str], *, stdin: bytes = b"", limits: Limits | None = None
) -> Result:
    """Run ``python *argv`` in a box that holds ``files`` (names relative to its working folder), to its end.

    Every process that it started is gone when this returns, also when it is cancelled. Raises Invalid where the sandbox
    is missing and for file names that lead elsewhere; never for what the program does.
    """
    limits = limits or Limits()
    _check(files, argv)
    out, err = bytearray(), bytearray()
    async with place():
        running = sandbox_process.Running(files, argv, limits=limits)
        why = SandboxEnding.CLOSED
        try:
            async with asyncio.timeout(limits.wall_s), asyncio.TaskGroup() as group:
                feeding = group.create_task(_feed(running, stdin))
                group.create_task(sandbox_process.drain(running, running.stdout, into=out, other=err))
                group.create_task(sandbox_process.drain(running, running.stderr, into=err, other=out))
                await running.ended()
                feeding.cancel()
        except TimeoutError:
            why = SandboxEnding.WALL
        finally:
            ending, status = await running.end(why)
    return Result(stdout=bytes(out), stderr=bytes(err), exit=status, ending=ending, cpu_s=running.cpu_s)


async def _feed(running: sandbox_process.Running, stdin: bytes) -> None:
    await running.write(stdin)
    running.close_stdin()


def _check(files: Mapping[str, bytes], argv: Sequence[str]) -> None:
    missing = available()
    if missing is not None:
        raise Invalid(f"a program that a model wrote is run in the sandbox only, and {missing}")
    check_files(files)
    if not argv or any("\0" in one for one in argv):
        raise Invalid("say which of the files to run, as in argv=('main.py',)", param="argv")


class Session:
    """A program that stays alive: for each line of JSON it is given it writes one line of JSON, and nothing else.

    >>> async def double() -> Any:
    ...     code = b"import sys\\nfor line in sys.stdin: print(2 * int(line), flush=True)"
    ...     async with await Session.open({"main.py": code}, ["main.py"]) as session:
    ...         return await session.ask(21, timeout_s=5)

    Requests come one after another. What it writes to stderr is kept up to ``output_bytes``, then ends it. ``wall_s``
    is its whole life's. Anything but an answer in time ends it: `ask` raises Failed then and ever after.
    """

    def __init__(self, running: sandbox_process.Running) -> None:
        """Use `open`."""
        self._running = running
        self._err = bytearray()
        self._out = bytearray()
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + running.limits.wall_s
        self._life = self._loop.call_at(self._until, running.kill, SandboxEnding.WALL)  # asked or not
        self._errors = asyncio.ensure_future(
            sandbox_process.drain(running, running.stderr, into=self._err, other=bytearray())
        )
        self._result: Result | None = None

    @classmethod
    async def open(cls, files: Mapping[str, bytes], argv: Sequence[str], *, limits: Limits | None = None) -> "Session":
        """Start ``python *argv``. Raises Invalid as `run_program` does."""
        _check(files, argv)
        return cls(sandbox_process.Running(files, argv, limits=limits or Limits()))

    async def ask(self, request: object, *, timeout_s: float) -> Any:
        """The answer to ``request``, both JSON. Raises Failed when there is none: it ended, said no JSON, said more
        than one line, wrote too much, or took longer than ``timeout_s`` or than it had left to live."""
        if self._result is not None:
            raise Failed("the program in this session has ended", result=self._result)
        line = json.dumps(request, allow_nan=False).encode() + b"\n"
        why = SandboxEnding.CLOSED
        try:
            async with asyncio.timeout_at(min(self._loop.time() + timeout_s, self._until)):
                answer = await self._exchange(line)
            return json.loads(answer, parse_constant=_no_json)
        except TimeoutError:
            why, message = SandboxEnding.WALL, f"the program gave no answer within {timeout_s:g} s"
        except _Broken as error:
            why, message = error.ending, str(error)
        except (ValueError, RecursionError):
            why, message = (
                SandboxEnding.PROTOCOL,
                f"the program answered with something that is no JSON: {answer[:80]!r}",
            )
        except BaseException:
            await self.close()
            raise
        result = await self._end(why)
        raise Failed(message if result.ending is why else f"the program ended ({result.ending})", result=result)

    async def _exchange(self, line: bytes) -> bytes:
        """One line in, one line out; the caller holds the clock."""
        self._out += sandbox_process.read_now(self._running.stdout)
        if self._out:
            raise _Broken("the program wrote without being asked", ending=SandboxEnding.PROTOCOL)
        writing = asyncio.ensure_future(self._running.write(line))
        try:
            while b"\n" not in self._out:
                chunk = await sandbox_process.read(self._running.stdout)
                self._out += chunk
                if not chunk:
                    raise _Broken("the program ended without an answer", ending=SandboxEnding.EXITED)
                if len(self._out) > self._running.limits.output_bytes:
                    raise _Broken("the program's answer is too long", ending=SandboxEnding.OUTPUT)
        finally:
            writing.cancel()
        answer, _, rest = bytes(self._out).partition(b"\n")
        if rest:
            raise _Broken("the program wrote more than one line", ending=SandboxEnding.PROTOCOL)
        self._out.clear()
        return answer

    async def _end(self, why: SandboxEnding) -> Result:
        if self._result is None:
            if why is SandboxEnding.EXITED:  # its end of the pipe is closed: it may live on, or be about to end
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        await self._running.ended()
            self._life.cancel()
            self._errors.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._errors
            ending, status = await self._running.end(why)
            self._result = Result(
                stdout=bytes(self._out), stderr=bytes(self._err), exit=status, ending=ending, cpu_s=self._running.cpu_s
            )
        return self._result

    async def close(self) -> Result:
        """End it and everything it started. May be called again, and gives the same."""
        return await self._end(SandboxEnding.CLOSED)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _no_json(constant: str) -> None:
    """NaN and infinities, which Python would read."""
    raise ValueError(constant)


class _Broken(Exception):
    """Within one `Session.ask`: the line did not come."""

    def __init__(self, message: str, *, ending: SandboxEnding) -> None:
        super().__init__(message)
        self.ending = ending
