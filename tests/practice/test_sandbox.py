"""The sandbox as it is meant to be used: what comes out of a program, how it ends, and that nothing of it stays."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from dayjob.endings import Invalid, SandboxEnding
from dayjob.practice import sandbox, sandbox_box, sandbox_process
from dayjob.practice.sandbox import Failed, Limits, Session
from tests.practice.sandboxed import boxed, needs_sandbox, run

pytestmark = needs_sandbox
DOUBLE = b"import sys, json\nfor line in sys.stdin: print(json.dumps(2 * json.loads(line)), flush=True)"


def test_what_a_program_says_and_how_it_ends() -> None:
    code = "import sys\nprint(sys.argv, open('data/in.txt').read(), sys.stdin.read())\n"
    code += "print('no', file=sys.stderr)\nsys.exit(3)"
    done = run(code, stdin=b"given", files={"data/in.txt": b"read"})
    assert done.stdout == b"['main.py'] read given\n"
    assert done.stderr == b"no\n"
    assert (done.ending, done.exit) == (SandboxEnding.EXITED, 3)
    assert 0 < done.cpu_s < 10


def test_a_program_that_reads_nothing_is_given_much() -> None:
    done = run("print('done')", stdin=b"x" * (1 << 20))
    assert (done.stdout, done.ending) == (b"done\n", SandboxEnding.EXITED)


def test_hashing_is_the_same_in_every_box() -> None:
    assert run("print(hash('a'), {'b', 'c', 'd'})").stdout == run("print(hash('a'), {'b', 'c', 'd'})").stdout


def test_the_standard_library_works_and_packages_are_not_there() -> None:
    code = "import ssl, sqlite3, ctypes, hashlib, decimal, json, re\n"
    code += "try:\n    import numpy\nexcept ImportError as error: print(error)"
    done = run(code)
    assert done.stderr == b""
    assert b"numpy" in done.stdout


def test_the_private_tmp_is_there_where_it_is_allowed_and_empty_each_time() -> None:
    code = "import os\nprint(os.listdir('/tmp'))\nopen('/tmp/a', 'w').write('x')\nprint(open('/tmp/a').read())"
    assert run(code).stdout == b"[]\nx\n"
    assert run(code).stdout == b"[]\nx\n"
    assert b"FileNotFoundError" in run(code, disk_bytes=0).stderr


@pytest.mark.parametrize(
    ("code", "limits", "ending"),
    [
        ("while True: pass", {"cpu_s": 1}, SandboxEnding.CPU),
        ("import time\ntime.sleep(600)", {"wall_s": 1.0}, SandboxEnding.WALL),
        ("import ctypes\nctypes.string_at(0)", {}, SandboxEnding.KILLED),
        ("import os\nos.abort()", {}, SandboxEnding.KILLED),
    ],
    ids=["computes", "sleeps", "crashes", "aborts"],
)
def test_how_a_program_that_does_not_end_well_ends(code: str, limits: dict[str, float], ending: SandboxEnding) -> None:
    done = run(code, **limits)
    assert (done.ending, done.exit) == (ending, None)
    assert boxed() == set()


def test_processes_share_their_limit_of_processor_time() -> None:
    code = "import os\nfor _ in range(3): os.fork()\nwhile True: pass"
    assert run(code, cpu_s=1, processes=8).ending is SandboxEnding.CPU


def test_threads_and_processes_are_possible_where_they_are_allowed() -> None:
    code = "import subprocess, sys, threading\nout = []\n"
    code += "t = threading.Thread(target=out.append, args=[1]); t.start(); t.join()\n"
    code += "print(out, subprocess.run([sys.executable, '-c', 'print(2)'], capture_output=True).stdout)"
    assert run(code, processes=4, memory_bytes=1 << 30).stdout == b"[1] b'2\\n'\n"
    assert b"can't start new thread" in run(code, memory_bytes=1 << 30).stderr


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../up", "a/../../b", ".", "a\0b", "a//b"])
def test_a_file_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match="no file name for a sandbox"):
        run("", files={name: b""})


def test_too_many_bytes_are_refused() -> None:
    with pytest.raises(Invalid, match="at most 128 files of together 16 MiB"):
        run("", files={"big": bytes(17 << 20)})


@pytest.mark.parametrize(
    "limits", [{"memory_bytes": 1}, {"processes": 0}, {"wall_s": 0}, {"disk_bytes": -1}, {"cpu_s": 0}]
)
def test_limits_that_mean_nothing_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(Invalid, match="of a sandbox must be between"):
        Limits(**limits)  # type: ignore[arg-type]


def test_cancelling_ends_the_program() -> None:
    async def cancelled() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await sandbox.run_program({"main.py": b"while True: pass"}, ["main.py"])
        assert boxed() == set()

    before = open_files()
    asyncio.run(cancelled())
    assert open_files() == before


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_many_at_once_and_nothing_is_left_open() -> None:
    async def many() -> list[bytes]:
        every = (
            sandbox.run_program({"main.py": f"print({n} * {n})".encode()}, ["main.py"], limits=Limits(disk_bytes=0))
            for n in range(12)
        )
        return [one.stdout for one in await asyncio.gather(*every)]

    asyncio.run(many())  # the first loop of a process opens what stays
    before = open_files()
    assert asyncio.run(many()) == [b"%d\n" % (n * n) for n in range(12)]
    assert open_files() == before
    assert boxed() == set()


def test_a_session_answers_line_by_line() -> None:
    async def play() -> None:
        async with await Session.open({"main.py": DOUBLE}, ["main.py"]) as session:
            assert [await session.ask(n, timeout_s=30) for n in (21, "ab", [1])] == [42, "abab", [1, 1]]
            big = await session.ask("x" * 200_000, timeout_s=30)
            assert len(big) == 400_000
        result = await session.close()
        assert result.ending is SandboxEnding.CLOSED
        assert await session.close() == result
        with pytest.raises(Failed, match="has ended"):
            await session.ask(1, timeout_s=1)

    asyncio.run(play())
    assert boxed() == set()


@pytest.mark.parametrize(
    ("code", "message", "ending"),
    [
        ("input()", "ended", SandboxEnding.EXITED),
        ("import os\ninput(); os._exit(7)", "ended", SandboxEnding.EXITED),
        ("input(); print('{', flush=True); input()", "no JSON", SandboxEnding.PROTOCOL),
        ("input(); print('NaN', flush=True); input()", "no JSON", SandboxEnding.PROTOCOL),
        ("input(); print('[' * 100000, flush=True); input()", "no JSON", SandboxEnding.PROTOCOL),
        ("input(); print('1\\n2', flush=True); input()", "more than one line", SandboxEnding.PROTOCOL),
        ("input()\nwhile True: print('x' * 999, end='')", "too long", SandboxEnding.OUTPUT),
        ("import sys\nwhile True: sys.stderr.write('x' * 999)", "output", SandboxEnding.OUTPUT),
        ("input()\nimport time\ntime.sleep(99)", "no answer within 2 s", SandboxEnding.WALL),
        ("input()\nwhile True: pass", "cpu", SandboxEnding.CPU),
    ],
    ids=["ends", "leaves", "no JSON", "no number", "deep JSON", "two lines", "endless", "errors", "sleeps", "computes"],
)
def test_a_session_that_does_not_answer_has_ended(code: str, message: str, ending: SandboxEnding) -> None:
    async def play() -> None:
        held = Limits(cpu_s=1, wall_s=60, output_bytes=1 << 17)
        session = await Session.open({"main.py": code.encode()}, ["main.py"], limits=held)
        with pytest.raises(Failed, match=message) as failed:
            await session.ask(1, timeout_s=2 if "sleep" in code else 60)
        assert failed.value.result.ending is ending
        assert boxed() == set()
        with pytest.raises(Failed, match="has ended"):
            await session.ask(1, timeout_s=1)

    asyncio.run(play())


def test_a_session_that_is_not_asked_lives_no_longer_than_its_limit() -> None:
    async def play() -> None:
        session = await Session.open({"main.py": DOUBLE}, ["main.py"], limits=Limits(wall_s=0.5))
        await session._running.ended()
        assert (await session.close()).ending is SandboxEnding.WALL

    asyncio.run(asyncio.wait_for(play(), 60))


def test_a_line_too_much_is_never_taken_for_the_next_answer() -> None:
    """The second line of the first answer comes late: after the first was taken, before the next was asked."""

    async def play() -> None:
        code = b"import sys, time\nfor line in sys.stdin:\n    print(1, flush=True)\n"
        code += b"    time.sleep(.2)\n    print(2, flush=True)"
        async with await Session.open({"main.py": code}, ["main.py"]) as session:
            assert await session.ask(0, timeout_s=30) == 1
            async with asyncio.timeout(60):
                await sandbox_process._ready(session._running.stdout)
            with pytest.raises(Failed, match="without being asked"):
                await session.ask(0, timeout_s=30)

    asyncio.run(play())


def test_who_asks_may_be_cancelled_and_the_program_is_gone() -> None:
    async def play() -> None:
        session = await Session.open({"main.py": b"input()\nwhile True: pass"}, ["main.py"])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await session.ask(1, timeout_s=60)
        assert boxed() == set()

    asyncio.run(play())


def test_a_sandbox_dies_with_the_process_that_started_it() -> None:
    code = (
        "import asyncio, os, signal\nfrom dayjob.practice import sandbox\n"
        "async def main():\n"
        "    program = b'import os\\nfor _ in range(2): os.fork()\\nwhile True: pass'\n"
        "    held = sandbox.Limits(processes=4, wall_s=99)\n"
        "    session = await sandbox.Session.open({'m.py': program}, ['m.py'], limits=held)\n"
        "    from tests.practice.sandboxed import boxed\n"
        "    while len(found := boxed()) < 5: await asyncio.sleep(.05)\n"
        "    print(*found, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=root, timeout=120, check=False)
    pids = [int(one) for one in done.stdout.split()]
    assert done.returncode == -signal.SIGKILL
    assert len(pids) == 5, done.stderr  # bwrap and the four
    until = time.monotonic() + 30
    while any(alive(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_without_bubblewrap_nothing_runs_and_the_remedy_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sandbox_box, "TOOLS", (str(tmp_path),))
    sandbox.available.cache_clear()
    try:
        with pytest.raises(Invalid, match="needs bwrap: apt-get install bubblewrap"):
            run("print(1)")
        with pytest.raises(Invalid, match="in the sandbox only"):
            asyncio.run(Session.open({"main.py": DOUBLE}, ["main.py"]))
    finally:
        sandbox.available.cache_clear()


def test_a_bubblewrap_that_holds_nothing_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One that starts the program as it is: the probe sees it, and names what is not kept."""
    real = sandbox_box.tool

    def fake(name: str) -> str | None:
        return str(tmp_path / "bwrap") if name == "bwrap" else real(name)

    (tmp_path / "bwrap").write_text(f'#!/bin/sh\nwhile [ "$1" != -c ]; do shift; done\nexec {sys.executable} "$@"\n')
    (tmp_path / "bwrap").chmod(0o755)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    monkeypatch.setattr(sandbox_box, "tool", fake)
    sandbox.available.cache_clear()
    try:
        assert "does not hold here" in (sandbox.available() or "")
    finally:
        sandbox.available.cache_clear()


@pytest.mark.skipif(os.geteuid() == 0, reason="root has a uid of its own for each box")
def test_whoever_is_not_root_says_as_whom_it_runs() -> None:
    assert f"uid {os.geteuid()}, unprivileged" in sandbox.protection()


def test_what_is_in_force_is_said() -> None:
    said = sandbox.protection()
    assert "bubblewrap, seccomp" in said
    assert "cgroups under" in said or "a watcher (no cgroup v2 is delegated" in said


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root, to become somebody else")
def test_it_works_for_a_user_that_is_not_root() -> None:
    """With the system's Python, where there is one that others may read."""
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if python is None:
        pytest.skip("no Python here that others may read")
    source = Path(sandbox.__file__).parents[2]
    code = (
        "import asyncio\nfrom dayjob.practice import sandbox\nprint(sandbox.available())\nasync def main():\n"
        "    made = {'m.py': b'import os\\ntry: os.fork(); os.fork(); os.fork()\\nexcept OSError: print(1)'}\n"
        "    done = await sandbox.run_program(made, ['m.py'], limits=sandbox.Limits(processes=3))\n"
        "    print(done.stdout.count(b'1'))\n"
        "asyncio.run(main())\n"
    )
    with tempfile.TemporaryDirectory() as made:  # pytest's own folders are root's alone
        Path(made).chmod(0o755)
        shutil.copytree(source / "dayjob", f"{made}/dayjob", ignore=shutil.ignore_patterns("__pycache__"))
        line = ["setpriv", "--reuid", "1234567", "--regid", "1234567", "--clear-groups", python, "-c", code]
        environment = {"PYTHONPATH": made}
        done = subprocess.run(
            line, capture_output=True, text=True, cwd="/", env=environment, timeout=120, check=False
        )  # fmt: skip
    assert done.stdout.split("\n")[0] == "None", done.stdout + done.stderr
    assert int(done.stdout.split("\n")[1]) >= 1, done.stderr
