"""The writes that publishing a version makes: tests put a failing disk, or a power loss, in their place."""

import os
from pathlib import Path
from typing import Final, Protocol


class Disk(Protocol):
    """The writes that publishing makes. What was written or named may vanish with the power until it was synced."""

    def make_dir(self, path: Path) -> None:
        """Make one directory; FileExistsError where the name is taken."""
        ...

    def write(self, path: Path, data: bytes) -> None:
        """Make one file; FileExistsError where the name is taken."""
        ...

    def sync(self, path: Path) -> None:
        """Make the bytes of a file, or the names in a directory, durable."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Rename a directory within its parent; OSError where the target holds files."""
        ...


class LocalDisk:
    """The file system."""

    def make_dir(self, path: Path) -> None:
        path.mkdir(mode=0o700)

    def write(self, path: Path, data: bytes) -> None:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)

    def sync(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        os.rename(source, target)


LOCAL_DISK: Final = LocalDisk()
