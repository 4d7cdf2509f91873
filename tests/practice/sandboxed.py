"""For tests that run programs in the sandbox."""

import asyncio
import os
from pathlib import Path

import pytest

from dayjob.practice import sandbox
from dayjob.practice.sandbox import Limits, Result

MISSING = sandbox.available()
needs_sandbox = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


def run(code: str, *, stdin: bytes = b"", files: dict[str, bytes] | None = None, **limits: float) -> Result:
    """A program of one file, in a box. Patient on a busy machine unless ``wall_s`` says otherwise."""
    held = Limits(**{"wall_s": 60.0, "cpu_s": 10} | limits)  # type: ignore[arg-type]
    every = {"main.py": code.encode()} | (files or {})
    return asyncio.run(sandbox.run_program(every, ["main.py"], stdin=stdin, limits=held))


def boxed() -> set[int]:
    """Every process of a box that this process started: bwrap, and whatever lives below it."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                head, _, tail = (folder / "stat").read_text().rpartition(")")
            except OSError:
                continue
            if tail.split()[0] != "Z":
                parents[int(folder.name)] = int(tail.split()[1])
                names[int(folder.name)] = head.partition("(")[2]
    found: set[int] = set()
    for pid in parents:
        above, box = pid, False
        while above in parents and above != os.getpid():
            box |= names[above] == "bwrap"  # a browser or a server of another test is none
            above = parents[above]
        if box and above == os.getpid():
            found.add(pid)
    return found
