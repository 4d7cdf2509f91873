"""The system calls that a program in the sandbox may make, as a filter for the kernel (seccomp, mode 2).

A list of what is allowed, not of what is forbidden: files, memory, signals, time, and waiting are what Python needs.
Everything else answers "Operation not permitted", by intent among them: every socket call, ptrace and
process_vm_readv, mount, pivot_root and chroot, unshare and setns, the setuid family, capset, prctl, bpf, keyctl,
perf_event_open, userfaultfd, io_uring, memfd_create, System V and POSIX shared memory, and every call newer than this
list. Even without the filter the sandbox would refuse most of them; with it a bug in the kernel's part of them cannot
be reached either.

Three calls are looked at more closely:

- fork, vfork and clone exist only where the limits allow more than one process, and never make a namespace;
- clone3 answers ENOSYS, because its flags lie in memory where a filter cannot read them: libc then takes clone;
- ioctl only asks about a terminal or sets a descriptor's own flags, so nothing can be typed into anybody's terminal.

A program of another architecture (32-bit calls on a 64-bit kernel have other numbers) is killed.
"""

import platform
import struct
from collections.abc import Iterable

# name:number on x86_64:number on aarch64 (empty where that kernel has no such call)
CALLS = """
read:0:63 write:1:64 readv:19:65 writev:20:66 pread64:17:67 pwrite64:18:68 close:3:57 close_range:436:436 lseek:8:62
open:2: openat:257:56 stat:4: fstat:5:80 lstat:6: newfstatat:262:79 statx:332:291 access:21: faccessat:269:48
faccessat2:439:439 readlink:89: readlinkat:267:78 getdents64:217:61 fcntl:72:25 dup:32:23 dup2:33: dup3:292:24 pipe:22:
pipe2:293:59 ftruncate:77:46 truncate:76:45 fsync:74:82 fdatasync:75:83 flock:73:32 fadvise64:221:223 fallocate:285:47
sendfile:40:71 copy_file_range:326:285 poll:7: ppoll:271:73 select:23: pselect6:270:72 epoll_create:213:
epoll_create1:291:20 epoll_ctl:233:21 epoll_wait:232: epoll_pwait:281:22 eventfd2:290:19 mkdir:83: mkdirat:258:34
rmdir:84: unlink:87: unlinkat:263:35 rename:82: renameat:264:38 renameat2:316:276 link:86: linkat:265:37 symlink:88:
symlinkat:266:36 chmod:90: fchmod:91:52 fchmodat:268:53 utimensat:280:88 getcwd:79:17 chdir:80:49 fchdir:81:50
umask:95:166 statfs:137:43 fstatfs:138:44 mmap:9:222 mprotect:10:226 munmap:11:215 mremap:25:216 brk:12:214
madvise:28:233 mincore:27:232 msync:26:227 rt_sigaction:13:134 rt_sigprocmask:14:135 rt_sigreturn:15:139
rt_sigtimedwait:128:137 rt_sigpending:127:136 rt_sigsuspend:130:133 sigaltstack:131:132 kill:62:129 tgkill:234:131
tkill:200:130 pause:34: restart_syscall:219:128 alarm:37: setitimer:38:103 getitimer:36:102 clock_gettime:228:113
clock_getres:229:114 clock_nanosleep:230:115 nanosleep:35:101 gettimeofday:96:169 time:201: times:100:153 exit:60:93
exit_group:231:94 getpid:39:172 getppid:110:173 gettid:186:178 getpgrp:111: getpgid:121:155 getsid:124:156
setsid:112:157 setpgid:109:154 getuid:102:174 geteuid:107:175 getgid:104:176 getegid:108:177 getresuid:118:148
getresgid:120:150 getgroups:115:158 uname:63:160 getrlimit:97:163 setrlimit:160:164 prlimit64:302:261 getrusage:98:165
sysinfo:99:179 sched_yield:24:124 sched_getaffinity:204:123 getcpu:309:168 arch_prctl:158: set_tid_address:218:96
set_robust_list:273:99 rseq:334:293 futex:202:98 membarrier:324:283 getrandom:318:278 wait4:61:260 waitid:247:95
execve:59:221
"""
IOCTL, CLONE, CLONE3, FORK, VFORK = (16, 29), (56, 220), (435, 435), (57, None), (58, None)
# TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
NEW_NAMESPACES = 0x7E020000  # CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET

ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, AUDIT_ARCH_*

LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JSET|K, BPF_RET|K
NUMBER, ARCHITECTURE, FIRST, SECOND = 0, 4, 16, 24  # offsets in struct seccomp_data; the arguments' low halves
ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
EPERM, ENOSYS = 1, 38

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand


def architecture() -> str | None:
    """This machine's architecture, where the filter is known for it; else None."""
    machine = platform.machine()
    return machine if machine in ARCHITECTURES else None


def allowed(machine: str) -> dict[str, int]:
    """The calls that any program may make, by name, with their numbers on ``machine``."""
    column = ARCHITECTURES[machine][0]
    rows = (row.split(":") for row in CALLS.split())
    return {name: int(numbers[column]) for name, *numbers in rows if numbers[column]}


def program(machine: str, *, processes: int) -> bytes:
    """The filter for ``machine`` ("x86_64" or "aarch64") in the bytes of ``struct sock_filter[]``, as bwrap takes it.

    ``processes`` 1: nothing can make a process or a thread; above: they can, as other limits allow.
    """
    column, audit = ARCHITECTURES[machine]
    code: list[Instruction] = [(LOAD, 0, 0, ARCHITECTURE), (EQUAL, 1, 0, audit), (RETURN, 0, 0, KILL)]
    code.append((LOAD, 0, 0, NUMBER))
    for number in allowed(machine).values():
        code += [(EQUAL, 0, 1, number), (RETURN, 0, 0, ALLOW)]
    code += _when(CLONE3[column], [(RETURN, 0, 0, REFUSE | ENOSYS)])
    looks: list[Instruction] = [(LOAD, 0, 0, SECOND)]
    for request in IOCTLS:
        looks += [(EQUAL, 0, 1, request), (RETURN, 0, 0, ALLOW)]
    code += _when(IOCTL[column], [*looks, (RETURN, 0, 0, REFUSE | EPERM)])
    if processes > 1:
        flags: list[Instruction] = [(LOAD, 0, 0, FIRST), (ANY_BIT, 0, 1, NEW_NAMESPACES)]
        code += _when(CLONE[column], [*flags, (RETURN, 0, 0, REFUSE | EPERM), (RETURN, 0, 0, ALLOW)])
        for numbers in (FORK, VFORK):
            number_or_none = numbers[column]
            if number_or_none is not None:
                code += _when(number_or_none, [(RETURN, 0, 0, ALLOW)])
    code.append((RETURN, 0, 0, REFUSE | EPERM))
    return _bytes(code)


def _when(number: int, then: list[Instruction]) -> list[Instruction]:
    """``then``, which must return, where the call has this number; else on behind it."""
    return [(EQUAL, 0, len(then), number), *then]


def _bytes(code: Iterable[Instruction]) -> bytes:
    return b"".join(struct.pack("=HBBI", *one) for one in code)
