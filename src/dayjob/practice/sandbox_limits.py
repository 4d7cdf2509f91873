"""What a program in the sandbox may use, and what became of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from dayjob.endings import Invalid, SandboxEnding

MOST_FILES = 128
MOST_FILE_BYTES = 16 << 20  # all files together
LEAST_MEMORY = 32 << 20  # Python alone maps some 20 MiB


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one box may use. Raises Invalid for limits that mean nothing or that Python cannot start within.

    ``memory_bytes`` holds for the address space of every process and for all of them together; ``disk_bytes`` is a
    private /tmp that lives in memory too and comes on top (0: there is none, and nothing at all can be written).
    ``processes`` counts threads, and the program itself.
    """

    wall_s: float = 10.0  # from start to end; waiting for a free core counts
    cpu_s: int = 5  # of all its processes together
    memory_bytes: int = 256 << 20
    processes: int = 1
    output_bytes: int = 1 << 20  # stdout and stderr together; in a session, of each answer
    disk_bytes: int = 16 << 20

    def __post_init__(self) -> None:
        for name, least, most in (
            ("wall_s", 0.05, 86_400),
            ("cpu_s", 1, 86_400),
            ("memory_bytes", LEAST_MEMORY, 1 << 40),
            ("processes", 1, 256),
            ("output_bytes", 1, 1 << 30),
            ("disk_bytes", 0, 1 << 40),
        ):
            if not least <= getattr(self, name) <= most:
                raise Invalid(f"{name} of a sandbox must be between {least:,} and {most:,}", param=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a program ended and what it had said by then; bytes beyond ``output_bytes`` are gone.

    ``exit`` is its exit status where it ended by itself, else None; ``cpu_s`` that of all its processes and of the
    making of the box (some 6 ms).
    """

    stdout: bytes
    stderr: bytes
    exit: int | None
    ending: SandboxEnding
    cpu_s: float


def check_files(files: Mapping[str, bytes]) -> None:
    """Raises Invalid for names that are no plain relative paths, and for too much."""
    if len(files) > MOST_FILES or sum(map(len, files.values())) > MOST_FILE_BYTES:
        message = f"at most {MOST_FILES} files of together {MOST_FILE_BYTES >> 20} MiB go into a sandbox"
        raise Invalid(message, param="files")
    for name in files:
        path = PurePosixPath(name)
        plain = name and "\0" not in name and not path.is_absolute() and str(path) == name and ".." not in path.parts
        if not plain or name == ".":
            raise Invalid(f"{name!r} is no file name for a sandbox: relative, without ..", param="files")
