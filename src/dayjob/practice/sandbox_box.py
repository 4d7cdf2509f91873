"""The command line of a box: what is bound into it, as whom it runs, and what it may use.

    [sh: into its cgroup] [nsenter: into the view] [setpriv: another uid] prlimit bwrap [prlimit] python ...

**Who it runs as.** A user namespace alone changes nothing for root: uid 1000 inside would still be uid 0 to the kernel,
and the kernel lets uid 0 pass every limit on processes. So root first becomes a uid that nobody has, drawn anew for
every box, and bwrap, unprivileged from then on, makes the namespaces: inside uid 1000, outside that uid. Whoever is not
root stays who they are, and is uid 1000 inside.

**What it sees.** The interpreter, its standard library without site-packages, the system's shared libraries, the given
files under /box, /dev/null and, where the limits allow, a /tmp. All but /tmp is read-only. There is no /proc, no /sys,
no /etc and no home.

**The view.** Where root's own Python lies in a folder that others may not enter (pyenv under a root-only home), the new
uid could not bind it. Then a mount namespace is made once, in which it also hangs under a folder that everybody may
enter; every box starts there. It lives as long as this process holds its descriptor, which no box ever gets.
"""

import functools
import os
import secrets
import shutil
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dayjob.endings import Invalid
from dayjob.practice import sandbox_seccomp
from dayjob.practice.sandbox_limits import Limits

HOME = "/box"
INSIDE = 1000  # the uid and gid that the program sees
FIRST_UID, UIDS = 1_900_000_000, 200_000_000  # between the ranges that distributions and container managers hand out
NOBODY = 65_534
OPEN_FILES = 64
TOOLS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
HINGES = ("/srv", "/media", "/opt", "/mnt")  # folders of every system, one of which the view hangs its binds under
# Python's own answers must not depend on where or when it runs: hashing of strings is fixed. No site, no user site,
# nothing written beside the sources.
ENVIRONMENT = {"HOME": "/tmp", "LANG": "C.UTF-8", "PATH": "", "PYTHONHASHSEED": "0", "PYTHONUTF8": "1"}
FLAGS = ("-S", "-s", "-B")


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """What a box is made of on this machine."""

    python: str
    binds: tuple[tuple[str, str], ...]  # (where it lies, where the box has it)
    links: tuple[tuple[str, str], ...]  # (target, name)
    masks: tuple[str, ...]  # folders within binds that the box has empty
    view: int | None  # descriptor of the mount namespace that the first column speaks of; None: our own


def tool(name: str) -> str | None:
    """The system's own program of this name, never one that somebody's PATH leads to."""
    return shutil.which(name, path=os.pathsep.join(TOOLS))


@functools.cache
def runtime() -> Runtime:
    """Found once a process. Raises Invalid where root's Python cannot be made visible to others."""
    python = os.path.realpath("/proc/self/exe")
    libraries, links = _libraries()
    found = [*libraries, python, *_libpython()]
    base = {"platbase": sys.base_exec_prefix}  # a virtual environment's own folder is never shown
    for kind in ("stdlib", "platstdlib"):
        found.append(os.path.realpath(sysconfig.get_path(kind, vars=base)))
    binds: list[str] = []
    for path in found:
        if not any(Path(path).is_relative_to(bound) for bound in binds):
            binds.append(path)
    packages = [Path(bound) / name for bound in binds for name in ("site-packages", "dist-packages")]
    masks = tuple(str(folder) for folder in packages if folder.is_dir())
    hidden = [path for path in binds if os.geteuid() == 0 and not _open_to_others(path)]
    hinge = next((one for one in HINGES if Path(one).is_dir() and not any(p.startswith(one) for p in binds)), None)
    view = _view(hidden, hinge) if hidden else None
    where = {path: f"{hinge}/{place}" for place, path in enumerate(hidden)}
    return Runtime(
        python=python, binds=tuple((where.get(path, path), path) for path in binds), links=links, masks=masks, view=view
    )


def command(argv: Sequence[str], *, limits: Limits, files: Mapping[str, int], seccomp: int) -> list[str]:
    """The whole command line for ``python *argv``. ``files`` are descriptors by name, ``seccomp`` the filter's."""
    made, root = runtime(), os.geteuid() == 0
    line: list[str] = []
    if made.view is not None:
        line += [_needed("nsenter"), f"--mount=/proc/{os.getpid()}/fd/{made.view}", "--"]
    if root:
        uid = str(_uid())
        line += [_needed("setpriv"), "--reuid", uid, "--regid", uid, "--clear-groups", "--"]
    line += [_needed("prlimit"), f"--as={limits.memory_bytes}", f"--cpu={limits.cpu_s}", f"--nofile={OPEN_FILES}"]
    line += ["--core=0", "--memlock=0", "--msgqueue=0", "--"]
    line += [_needed("bwrap"), "--unshare-all", "--unshare-user", "--uid", str(INSIDE), "--gid", str(INSIDE)]
    line += ["--as-pid-1", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--hostname", "box", "--clearenv"]
    for name, value in ENVIRONMENT.items():
        line += ["--setenv", name, value]
    for source, target in made.binds:
        line += ["--ro-bind", source, target]
    for target, name in made.links:
        line += ["--symlink", target, name]
    for mask in made.masks:
        line += ["--tmpfs", mask, "--remount-ro", mask]
    line += ["--dev-bind", "/dev/null", "/dev/null", "--dir", HOME]
    for name, descriptor in files.items():
        line += ["--perms", "0444", "--file", str(descriptor), f"{HOME}/{name}"]
    if limits.disk_bytes:
        line += ["--size", str(limits.disk_bytes), "--perms", "0700", "--tmpfs", "/tmp"]
    inner: list[str] = []
    if limits.processes > 1:  # inside, where the kernel counts the processes of this box alone
        counter = _needed("prlimit")
        line += ["--ro-bind", counter, counter]
        inner = [counter, f"--nproc={limits.processes}", "--"]
    line += ["--remount-ro", "/", "--chdir", HOME, "--seccomp", str(seccomp), "--"]
    return [*line, *inner, made.python, *FLAGS, *argv]


def seccomp_filter(limits: Limits) -> bytes:
    """The filter of system calls for these limits on this machine. Raises Invalid on an unknown architecture."""
    machine = sandbox_seccomp.architecture()
    if machine is None:
        known = " or ".join(sandbox_seccomp.ARCHITECTURES)
        raise Invalid(f"the sandbox knows the system calls of {known} only: run it on such a machine")
    return _filter(machine, limits.processes)


@functools.cache
def _filter(machine: str, processes: int) -> bytes:
    return sandbox_seccomp.program(machine, processes=processes)


def _needed(name: str) -> str:
    found = tool(name)
    if found is None:
        raise Invalid(f"the sandbox needs {name}: apt-get install bubblewrap util-linux")
    return found


def _uid() -> int:
    """For root: a uid that nobody has. In a container that was given few uids, nobody's."""
    for row in Path("/proc/self/uid_map").read_text().splitlines():
        first, _, count = map(int, row.split())
        if first <= FIRST_UID and first + count >= FIRST_UID + UIDS:
            return FIRST_UID + secrets.randbelow(UIDS)
    return NOBODY


def _libraries() -> tuple[list[str], tuple[tuple[str, str], ...]]:
    """Folders of shared libraries, and the links by which they are reached."""
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    folders, links = [], []
    for top in ("/usr/lib", "/usr/lib64", "/lib", "/lib64"):
        if Path(top).is_symlink():
            links.append((os.readlink(top), top))
        elif multiarch and (Path(top) / multiarch).is_dir():
            folders.append(f"{top}/{multiarch}")
        elif Path(top).is_dir() and not (multiarch and top.endswith("lib") and folders):
            folders.append(top)
    return folders, tuple(links)


def _libpython() -> list[str]:
    """Python's own shared library, where it was built as one: what this process has mapped."""
    rows = Path("/proc/self/maps").read_text().splitlines()
    paths = {row.split(maxsplit=5)[-1] for row in rows if "/libpython3." in row}
    return sorted(paths)


def _open_to_others(path: str) -> bool:
    """Whether somebody with no rights of their own may reach and read it."""
    above = all(one.stat().st_mode & stat.S_IXOTH for one in Path(path).parents)
    return above and bool(Path(path).stat().st_mode & stat.S_IROTH)


def _view(hidden: Sequence[str], hinge: str | None) -> int:
    """A mount namespace of our own, with ``hidden`` under ``hinge`` as 0, 1, ...; its descriptor."""
    if hinge is None:
        raise Invalid(f"the sandbox cannot show {hidden[0]} to another user: install Python under /usr/local")
    hang = 'mount -t tmpfs -o size=1m,mode=755 none "$0" && cd "$0" && i=0 && for one in "$@"; do '
    hang += 'if [ -d "$one" ]; then mkdir $i; else : >$i; fi && mount --bind "$one" $i && i=$((i+1)) || exit 1; done'
    script = hang + "; echo ready; read rest"
    line = [_needed("unshare"), "--mount", _needed("sh"), "-c", script, hinge, *hidden]
    environment = {"PATH": os.pathsep.join(TOOLS)}
    with subprocess.Popen(
        line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as made:
        assert made.stdout is not None
        assert made.stderr is not None
        if made.stdout.readline() != b"ready\n":
            said = made.stderr.read().decode(errors="replace").strip()
            message = f"the sandbox cannot show {hidden[0]} to another user ({said}): install Python under /usr/local"
            raise Invalid(message)
        return os.open(f"/proc/{made.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
