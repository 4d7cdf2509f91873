"""The filter of system calls, run by a small machine here: what every call comes to, on both architectures."""

import platform
import re
import struct
from pathlib import Path

import pytest

from dayjob.practice import sandbox_seccomp as seccomp

ALLOWED, KILLED, REFUSED, ABSENT = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
HEADER = {"x86_64": "x86_64-linux-gnu/asm/unistd_64.h", "aarch64": "asm-generic/unistd.h"}
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
FORK = 0x11  # SIGCHLD
THREAD = 0x3D0F00  # CLONE_VM | FS | FILES | SIGHAND | THREAD | SYSVSEM | SETTLS | PARENT_SETTID | CHILD_CLEARTID


def verdict(
    machine: str, number: int, *, processes: int = 1, audit: int | None = None, arguments: tuple[int, ...] = ()
) -> int:
    """What the kernel would do: classic BPF over struct seccomp_data, as far as the filter uses it."""
    given = (*arguments, *[0] * (6 - len(arguments)))
    data = struct.pack("=IIQ6Q", number, AUDIT[machine] if audit is None else audit, 0, *given)
    body = seccomp.program(machine, processes=processes)
    code = [struct.unpack_from("=HBBI", body, at) for at in range(0, len(body), 8)]
    held, at = 0, 0
    while True:
        kind, if_true, if_false, k = code[at]
        at += 1
        match kind:
            case 0x20:
                (held,) = struct.unpack_from("=I", data, k)
            case 0x15:
                at += if_true if held == k else if_false
            case 0x45:
                at += if_true if held & k else if_false
            case 0x06:
                return int(k)
            case _:
                raise AssertionError(f"an instruction that the filter does not use: {kind:#x}")


@pytest.mark.parametrize("machine", seccomp.ARCHITECTURES)
def test_what_is_listed_is_allowed_and_nothing_else(machine: str) -> None:
    listed = set(seccomp.allowed(machine).values())
    looked_at = {"x86_64": {16: REFUSED, 435: ABSENT}, "aarch64": {29: REFUSED, 435: ABSENT}}[machine]
    for number in (*range(600), 1 << 30, (1 << 30) + 1, (1 << 32) - 1):
        expected = ALLOWED if number in listed else looked_at.get(number, REFUSED)
        assert verdict(machine, number) == expected, number


@pytest.mark.parametrize(
    ("machine", "other"), [("x86_64", 0x40000003), ("x86_64", AUDIT["aarch64"]), ("aarch64", 0x40000028)]
)
def test_another_architecture_is_killed(machine: str, other: int) -> None:
    assert {verdict(machine, number, audit=other) for number in range(300)} == {KILLED}


@pytest.mark.parametrize(("machine", "clone"), [("x86_64", 56), ("aarch64", 220)])
def test_processes_and_threads_only_where_they_are_allowed(machine: str, clone: int) -> None:
    for flags in (FORK, THREAD):
        assert verdict(machine, clone, arguments=(flags,)) == REFUSED
        assert verdict(machine, clone, processes=2, arguments=(flags,)) == ALLOWED
    for namespace in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert verdict(machine, clone, processes=9, arguments=(FORK | namespace,)) == REFUSED
    assert verdict(machine, 435, processes=9) == ABSENT


def test_fork_and_vfork_are_x86_alone() -> None:
    assert [verdict("x86_64", number, processes=p) for number in (57, 58) for p in (1, 2)] == [REFUSED, ALLOWED] * 2
    assert verdict("aarch64", 57, processes=2) == ALLOWED  # close, there


@pytest.mark.parametrize(("machine", "ioctl"), [("x86_64", 16), ("aarch64", 29)])
def test_ioctl_asks_and_types_nothing(machine: str, ioctl: int) -> None:
    assert verdict(machine, ioctl, arguments=(0, 0x5401)) == ALLOWED  # TCGETS
    for request in (0x5412, 0x541C, 0x5402, 0x4B46, 0x89A0):  # TIOCSTI, TIOCLINUX, TCSETS, KDSKBENT, SIOCBRADDBR
        assert verdict(machine, ioctl, arguments=(0, request)) == REFUSED
    assert verdict(machine, ioctl, arguments=(0x5401, 0x5412)) == REFUSED


@pytest.mark.parametrize("machine", seccomp.ARCHITECTURES)
def test_what_leads_out_of_a_box_is_not_listed(machine: str) -> None:
    never = {"ptrace", "mount", "umount2", "pivot_root", "chroot", "unshare", "setns", "setuid", "setresuid", "setgid",
             "setgroups", "capset", "prctl", "bpf", "keyctl", "io_uring_setup", "userfaultfd", "perf_event_open",
             "memfd_create", "shmget", "socket", "socketpair", "connect", "bind", "process_vm_readv", "clone", "clone3",
             "fork", "vfork", "ioctl", "seccomp", "kexec_load", "init_module", "open_by_handle_at"}  # fmt: skip
    assert not never & set(seccomp.allowed(machine))


@pytest.mark.parametrize("machine", seccomp.ARCHITECTURES)
def test_the_numbers_are_those_of_the_kernels_headers(machine: str) -> None:
    header = Path("/usr/include") / HEADER[machine]
    if not header.exists():
        pytest.skip(f"no {header} here: apt-get install linux-libc-dev")
    text = header.read_text()
    names = {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\s", text)}
    called = {"newfstatat": "fstatat"} if machine == "aarch64" else {}
    for name, number in seccomp.allowed(machine).items():
        assert names[called.get(name, name)] == number, name


def test_this_machine_is_known() -> None:
    assert seccomp.architecture() == (platform.machine() if platform.machine() in AUDIT else None)
