"""Which side of the wall something is on: what the clerk was brought up with, or what it is tested with.

The side is a hash of what the thing *is* (a relation with its wording, a subject with the value it is given, a rule
with its case), never of a row or a seed: whoever draws from one side, however often, draws nothing of the other.
"""

import hashlib
from collections.abc import Sequence
from enum import StrEnum
from typing import TypeVar

TEST_SHARE = 20  # per cent
Option = TypeVar("Option")


class Side(StrEnum):
    """Two sides that share nothing."""

    TRAIN = "train"
    TEST = "test"


def digest(*key: str) -> int:
    """The same on every machine and in every run."""
    return int.from_bytes(hashlib.blake2b("\x1f".join(key).encode(), digest_size=4).digest(), "big")


def side(*key: str) -> Side:
    """Where this key lies.

    >>> side("capital", "France") == side("capital", "France")
    True
    """
    return Side.TEST if digest(*key) % 100 < TEST_SHARE else Side.TRAIN


def of_side(options: Sequence[Option], where: Side, *, about: str) -> list[Option]:
    """Those of a few options that lie on one side: by rank of their hash, so that neither side is empty.

    ``about`` gives every subject a division of its own. At least two options.
    """
    ranked = sorted(options, key=lambda one: digest(about, repr(one)))
    cut = max(1, round(len(ranked) * TEST_SHARE / 100))
    return ranked[:cut] if where is Side.TEST else ranked[cut:]
