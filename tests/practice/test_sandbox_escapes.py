"""Ways out of the sandbox, each really tried. What is harmless is also tried outside, where it must work: an attempt
that fails everywhere would show nothing."""

import asyncio
import contextlib
import os
import platform
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dayjob.endings import SandboxEnding
from dayjob.practice.sandbox import Session
from tests.practice.sandboxed import boxed, needs_sandbox, run

pytestmark = needs_sandbox
# Says of each attempt whether it got through: "name: got ..." or "name: Error ...".
TRY = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def attempt(name, call):
    try:
        print(f"{name}: got {call()!r}", flush=True)
    except (Exception, SystemExit) as error:
        print(f"{name}: {type(error).__name__} {error}", flush=True)
def syscall(*arguments):
    if (answer := libc.syscall(*arguments)) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer
"""


def said(output: bytes) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in output.decode().splitlines())


def tried(code: str, **limits: float) -> dict[str, str]:
    """What each attempt came to, in the box."""
    done = run(TRY + code, **limits)
    assert done.stderr == b""
    assert boxed() == set()
    return said(done.stdout)


def outside(code: str) -> dict[str, str]:
    """The same without a box."""
    done = subprocess.run([sys.executable, "-c", TRY + code], capture_output=True, timeout=60, check=True)
    return said(done.stdout)


def all_fail(found: dict[str, str], *, count: int) -> None:
    assert len(found) == count
    assert not [name for name, what in found.items() if what.startswith("got")], found


def all_work(found: dict[str, str], *, count: int) -> None:
    assert len(found) == count
    assert all(what.startswith("got") for what in found.values()), found


def test_what_the_kernel_knows_of_a_program_in_the_box() -> None:
    """Seen from outside: a uid that is not root's, no capability, no new privileges, a filter."""

    async def look() -> list[dict[str, str]]:
        async with await Session.open(
            {"m.py": b"import sys\nfor _ in sys.stdin: print(1, flush=True)"}, ["m.py"]
        ) as one:
            await one.ask(1, timeout_s=60)
            texts = [Path(f"/proc/{pid}/status").read_text() for pid in sorted(boxed())]
        return [dict(re.findall(r"^(\w+):[ \t]*(.*)$", text, re.MULTILINE)) for text in texts]

    waits, program = asyncio.run(look())
    assert (waits["Name"], program["NSpid"].split()[1]) == ("bwrap", "1")
    for one in (waits, program):
        uids = set(one["Uid"].split())
        assert len(uids) == 1
        assert uids != {"0"}
        assert uids == {str(os.geteuid())} or int(*uids) >= 1_900_000_000 or uids == {"65534"}
        assert one["Groups"].split() in ([], one["Gid"].split()[:1]) or os.geteuid() != 0
    assert {program[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (program["NoNewPrivs"], program["Seccomp"]) == ("1", "2")


def test_a_fork_bomb_does_not_begin() -> None:
    all_fail(
        tried("attempt('fork', os.fork)\nattempt('vfork', lambda: os.posix_spawn(sys.executable, ['x'], {}))"), count=2
    )


BOMB = """
import time
made = 0
while True:
    try:
        if os.fork() == 0:
            while True: CHILD
        made += 1
    except OSError as error:
        print(f"{made}: {type(error).__name__}", flush=True)
        break
"""


def test_a_fork_bomb_stops_at_the_limit_and_is_gone_at_the_end() -> None:
    """As root an rlimit on processes stops nothing; here it does, because nobody in the box is root."""
    assert tried(BOMB.replace("CHILD", "time.sleep(1)"), processes=8) == {"7": "BlockingIOError"}
    bombs = "\n                try: os.fork()\n                except OSError: pass"
    [(made, error)] = tried(BOMB.replace("CHILD", bombs), processes=8).items()
    assert 1 <= int(made) <= 7
    assert error == "BlockingIOError"


def test_the_bomb_goes_off_where_processes_are_allowed() -> None:
    code = "made = 0\nfor _ in range(40):\n    if os.fork() == 0: os._exit(0)\n    made += 1\nprint('forks: got', made)"
    assert outside(code) == {"forks": "got 40"}


def test_ten_gigabytes_are_not_given() -> None:
    code = """
import mmap, resource
attempt('bytes', lambda: len(bytearray(10 << 30)))
attempt('map', lambda: len(mmap.mmap(-1, 10 << 30)))
attempt('limit', lambda: resource.setrlimit(resource.RLIMIT_AS, (-1, -1)))
attempt('shared', lambda: libc.shmget(0, 1 << 30, 0o1600) + 1 or 1 / 0)
attempt('memfd', lambda: os.memfd_create('x'))
"""
    all_fail(tried(code), count=5)


def test_memory_of_many_processes_is_counted_together() -> None:
    code = "import os, time\nfor _ in range(4):\n    if os.fork() == 0: break\nx = bytearray(100 << 20)\ntime.sleep(60)"
    done = run(code, processes=8, memory_bytes=256 << 20)
    assert done.ending is SandboxEnding.MEMORY
    assert boxed() == set()


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_endless_output_is_cut(stream: str) -> None:
    done = run(f"import sys\nwhile True: sys.{stream}.write('x' * 4096)", output_bytes=100_000)
    assert done.ending is SandboxEnding.OUTPUT
    assert len(done.stdout) + len(done.stderr) == 100_000


def test_the_private_tmp_fills_up() -> None:
    code = (
        "f = open('/tmp/a', 'wb')\nattempt('disk', lambda: [f.write(bytes(1 << 20)) for _ in range(20)] and f.flush())"
    )
    assert "No space left" in tried(code, disk_bytes=8 << 20)["disk"]
    done = run("n = 0\nwhile True:\n    open(f'/tmp/{n}', 'w').close()\n    n += 1", disk_bytes=1 << 20, cpu_s=60)
    assert done.ending is SandboxEnding.DISK


def test_nothing_outside_can_be_written() -> None:
    places = [
        "/box/new",
        "/box/main.py",
        "/new",
        "/usr/lib/new",
        "/dev/new",
        os.__file__,
        str(Path(__file__).parent / "new"),
    ]
    code = f"for place in {places!r}: attempt(place, lambda: open(place, 'w'))\n"
    code += "attempt('remove', lambda: os.unlink('/box/main.py'))\n"
    code += f"attempt('chmod', lambda: os.chmod({os.__file__!r}, 0o777))"
    all_fail(tried(code), count=len(places) + 2)
    assert not (Path(__file__).parent / "new").exists()


def test_nothing_of_ours_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "id_ed25519").write_text("secret")
    monkeypatch.setenv("HOME", str(home))
    places = [
        str(home / ".ssh" / "id_ed25519"),
        __file__,
        "/etc/passwd",
        "/etc/hostname",
        str(Path.home() / ".ssh" / "id_ed25519"),
    ]
    code = f"for place in {places[:3]!r}: attempt(place, lambda: len(open(place).read()))\n"
    code += "attempt('list', lambda: len(os.listdir(os.environ.get('HOME', '/') + '/.ssh')))"
    all_work(outside(code), count=4)
    all_fail(tried(code), count=4)
    everything = run("import os\nprint([os.path.join(a, b) for a, _, c in os.walk('/') for b in c])").stdout.decode()
    names = [one for one in re.findall(r"'([^']+)'", everything) if "/lib" not in one]
    assert set(names) == {"/dev/null", "/box/main.py", os.path.realpath("/proc/self/exe")}


def test_a_symlink_leads_nowhere_new() -> None:
    code = f"""
os.symlink("/etc/passwd", "/tmp/a"); attempt("passwd", lambda: open("/tmp/a").read())
os.symlink({__file__!r}, "/tmp/b"); attempt("project", lambda: open("/tmp/b").read())
os.symlink("/box/main.py", "/tmp/c"); attempt("itself", lambda: open("/tmp/c", "w"))
os.symlink("../../../../..", "/tmp/d"); attempt("up", lambda: open(os.path.join("/tmp/d", "etc/passwd")).read())
attempt("hard", lambda: os.link("/box/main.py", "/tmp/e"))
"""
    all_fail(tried(code), count=5)


def test_proc_shows_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAYJOB_TEST_SECRET", "a secret of the parent")
    code = f"""
attempt("parent", lambda: open("/proc/{os.getpid()}/environ", "rb").read())
attempt("memory", lambda: open("/proc/{os.getpid()}/maps").read())
attempt("others", lambda: len(os.listdir("/proc")))
attempt("mine", lambda: os.environ["DAYJOB_TEST_SECRET"])
"""
    all_work(outside(code), count=4)
    code += (
        "os.mkdir('/tmp/proc')\nattempt('mount', lambda: libc.mount(b'proc', b'/tmp/proc', b'proc', 0, 0) and 1 / 0)\n"
    )
    code += "attempt('look', lambda: os.listdir('/tmp/proc')[0])"
    all_fail(tried(code), count=6)


def test_sockets_of_every_kind() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"""
import socket
attempt("tcp", lambda: socket.create_connection(("127.0.0.1", {server.getsockname()[1]}), timeout=5))
attempt("udp", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
attempt("unix", lambda: socket.socket(socket.AF_UNIX))
attempt("pair", lambda: socket.socketpair())
attempt("netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
"""
        all_work(outside(code), count=5)
        all_fail(tried(code), count=5)


def test_signals_reach_nobody_outside() -> None:
    code = f"""
attempt("test", lambda: os.kill({os.getpid()}, 0))
attempt("parent", lambda: os.getppid() or 1 / 0)
attempt("group", lambda: os.killpg({os.getpgrp()}, 0))
"""
    all_work(outside(code), count=3)
    code += (
        "attempt('kill', lambda: os.kill(" + str(os.getpid()) + ", 9))\nattempt('everybody', lambda: os.kill(-1, 9))"
    )
    all_fail(tried(code), count=5)


def test_nobody_is_traced() -> None:
    code = f"""
attempt("me", lambda: libc.ptrace(0, 0, 0, 0) and 1 / 0)
attempt("parent", lambda: libc.ptrace(16, {os.getpid()}, 0, 0) and 1 / 0)
attempt("read", lambda: syscall({310 if platform.machine() == "x86_64" else 270}, {os.getpid()}, 0, 0, 0, 0, 0))
"""
    found = outside(code.split('attempt("parent"')[0])
    all_work(found, count=1)
    all_fail(tried(code), count=3)


def test_nobody_becomes_root_or_gets_a_capability() -> None:
    code = """
attempt("setuid", lambda: os.setuid(0))
attempt("setresuid", lambda: os.setresuid(0, 0, 0))
attempt("setgid", lambda: os.setgid(0))
attempt("setgroups", lambda: os.setgroups([0]))
attempt("chown", lambda: os.chown("/tmp", 0, 0))
attempt("keep", lambda: libc.prctl(8, 1, 0, 0, 0) and 1 / 0)
attempt("unshare", lambda: libc.unshare(0x10000000) and 1 / 0)
attempt("su", lambda: os.execv("/usr/bin/su", ["su"]))
attempt("sudo", lambda: os.execv("/usr/bin/sudo", ["sudo"]))
"""
    all_fail(tried(code, processes=4), count=9)


def test_a_new_user_namespace_is_not_made_by_clone_either() -> None:
    number = 56 if platform.machine() == "x86_64" else 220
    code = f"attempt('user', lambda: syscall({number}, 0x10000011, 0, 0, 0, 0))\n"
    code += "attempt('three', lambda: syscall(435, ctypes.create_string_buffer(88), 88))"
    found = tried(code, processes=4)
    all_fail(found, count=2)
    assert "Operation not permitted" in found["user"]
    assert "Function not implemented" in found["three"]


def test_nothing_is_mounted() -> None:
    code = """
attempt("tmpfs", lambda: libc.mount(b"x", b"/tmp", b"tmpfs", 0, 0) and 1 / 0)
attempt("writable", lambda: libc.mount(b"x", b"/", b"", 0x1020, 0) and 1 / 0)
attempt("umount", lambda: libc.umount2(b"/tmp", 2) and 1 / 0)
attempt("chroot", lambda: os.chroot("/tmp"))
attempt("pivot", lambda: libc.pivot_root(b"/tmp", b"/tmp") and 1 / 0)
"""
    all_fail(tried(code), count=5)


NUMBERS = {  # x86_64, aarch64
    "io_uring_setup": (425, 425), "bpf": (321, 280), "keyctl": (250, 219), "perf_event_open": (298, 241),
    "userfaultfd": (323, 282), "setns": (308, 268), "open_by_handle_at": (304, 265), "kexec_load": (246, 104),
    "init_module": (175, 105), "reboot": (169, 142), "clock_settime": (227, 112), "sethostname": (170, 161),
    "pidfd_open": (434, 434), "fsopen": (430, 430), "seccomp": (317, 277), "syslog": (103, 116), "swapon": (167, 224),
}  # fmt: skip


def test_calls_that_python_does_not_need_are_refused() -> None:
    column = 0 if platform.machine() == "x86_64" else 1
    code = "".join(f"attempt('{name}', lambda: syscall({ns[column]}, 0, 0, 0, 0, 0))\n" for name, ns in NUMBERS.items())
    found = tried(code)
    all_fail(found, count=len(NUMBERS))
    assert {what.partition("]")[2] for what in found.values()} == {" Operation not permitted"}


def test_nothing_is_typed_into_a_terminal() -> None:
    found = tried("import fcntl\nattempt('type', lambda: fcntl.ioctl(0, 0x5412, b'x'))")
    assert "Operation not permitted" in found["type"]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86_64 has calls of another architecture")
def test_calls_by_the_numbers_of_32_bits_end_the_program() -> None:
    """mov eax, 20 (getpid there); int 0x80; ret."""
    code = """
import ctypes, mmap
m = mmap.mmap(-1, 4096, prot=7)
m.write(bytes.fromhex('b814000000cd80c3'))
print('tried', flush=True)
print(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))())
"""
    done = run(code)
    assert (done.stdout, done.ending) == (b"tried\n", SandboxEnding.KILLED)


def test_descriptors_of_ours_are_not_inherited(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    with contextlib.ExitStack() as held:
        file = held.enter_context(open(tmp_path / "secret"))
        os.set_inheritable(file.fileno(), True)
        code = "def there(n):\n    try: os.fstat(n)\n    except OSError: return False\n    return True\n"
        code += "print('open:', [n for n in range(3, 1024) if there(n)])"
        assert tried(code) == {"open": "[]"}


def test_a_daemon_does_not_stay() -> None:
    """Two forks, a session of its own, every signal ignored, its ends of the pipes closed: alive until the end."""
    daemon = """
import signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        open("/tmp/alive", "w").write("yes")
        os.closerange(0, 64)
        while True: time.sleep(1)
    os._exit(0)
while not os.path.exists("/tmp/alive"): time.sleep(.01)
print("daemon: lives")
"""
    assert tried(daemon, processes=4) == {"daemon": "lives"}
