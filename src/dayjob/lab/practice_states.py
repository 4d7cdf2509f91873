"""Which states of the code the pieces of a page were made by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from dayjob.lab import figures

UNKNOWN = "unknown"  # of a piece that was made before its code was written down


@cache
def mark(*folders: str) -> str:
    """`figures.code_mark` as it was when this process first asked, which is to be before its first piece: sources that
    change during a long run are not those that run."""
    return figures.code_mark(*folders)


def states(pieces: Iterable[Mapping[str, Any]]) -> list[str]:
    """The different marks of the code (`figures.code_mark`) of these pieces.

    >>> states([{"code": "b"}, {"code": "a"}, {"code": "b"}, {}])
    ['a', 'b', 'unknown']
    """
    return sorted({str(one.get("code", UNKNOWN)) for one in pieces})


def told(codes: Sequence[str]) -> list[str]:
    """The paragraphs that a page has to have where its pieces were made by several states: one or none.

    >>> told(["a"]), told(["a", "b"])
    ([], ['The pieces were made by 2 states of the code: run them again.'])
    """
    return [f"The pieces were made by {len(codes)} states of the code: run them again."] if len(codes) > 1 else []
