"""A real `dayjob serve` process for benchmarks and tests: started, asked, ended."""

import contextlib
import fcntl
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dayjob.endings import DayjobError, Invalid

START_S = 120.0  # a busy machine takes long to load torch; one that dies says so at once
END_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that answers. ``log`` holds what it wrote to its standard error."""

    url: str
    data: Path
    log: Path
    process: "subprocess.Popen[str]"

    def cpu_s(self) -> float:
        """Seconds of processor time, user and system, that the server process has used."""
        return sum(_ticks(self.process.pid)[:2]) / os.sysconf("SC_CLK_TCK")

    def started_cpu_s(self) -> float:
        """The same of the processes that it started (learner, judge) and that those started; of ended ones too."""
        ticks, found = sum(_ticks(self.process.pid)[2:]), _started_by(self.process.pid)
        while found:
            pid = found.pop()
            try:
                ticks += sum(_ticks(pid))
                found += _started_by(pid)
            except (FileNotFoundError, ProcessLookupError):  # it ended just now
                continue
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory_bytes(self) -> int:
        """Resident memory of the server process."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> int:
        """SIGTERM; the exit status. Raises subprocess.TimeoutExpired when it does not end."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(END_S)


def _ticks(pid: int) -> list[int]:
    """Of a process, in user and system mode, and the same of its children that ended and were waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [int(one) for one in fields[11:15]]


def _started_by(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task")
    return [int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()]


@contextlib.contextmanager
def running(
    data: Path,
    *,
    arguments: Sequence[str] = ("--no-learner", "--no-judge"),
    environ: Mapping[str, str] | None = None,
    program: Sequence[str] = ("dayjob", "serve", "--port", "0", "--data"),
) -> Iterator[Server]:
    """A server over ``data`` on a free port; killed at the end if it still runs. ``program``: ``python -m`` what.

    Raises DayjobError with the server's own words when it does not start.
    """
    data = data.resolve()
    data.parent.mkdir(parents=True, exist_ok=True)
    log = data.parent / f"{data.name}.log"
    command = [sys.executable, "-m", *program, str(data), *arguments]
    with log.open("ab") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL, text=True, cwd=data.parent,
            env={**os.environ, **(environ or {})},
        )  # fmt: skip
    try:
        yield Server(url=_address(process, log), data=data, log=log, process=process)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _address(process: "subprocess.Popen[str]", log: Path) -> str:
    """The URL that the server announces in its first line."""
    lines: queue.Queue[str] = queue.Queue()
    assert process.stdout is not None, "it is a pipe"
    threading.Thread(target=lambda out: lines.put(out.readline()), args=(process.stdout,), daemon=True).start()
    try:
        line = lines.get(timeout=START_S)
    except queue.Empty:
        line = ""
    if not line:
        raise DayjobError(f"the server did not start: {log.read_text(errors='replace')[-2000:] or 'it said nothing'}")
    return line.split()[-1]


def clear(data: Path) -> None:
    """Remove an earlier run's data: nothing that is not ours, and nothing that is still being served: Invalid."""
    if not (data / "control.db").exists() and any(data.iterdir()):
        raise Invalid(f"{data} is not a data directory of ours: name another with --data")
    with (data / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a server holds it as long as it lives
        except BlockingIOError:
            raise Invalid(f"{data} is being served: end that with Ctrl-C, or name another with --data") from None
        shutil.rmtree(data)
