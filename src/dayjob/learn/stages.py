"""Bookkeeping of one fit: how far it is, what it keeps for the case that it is killed, and what it measured of the
clicks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from dayjob.learn import checkpoint as checkpoints


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The click model that a fit estimated. ``pull`` is the share f of clicks that fall by position, ``pull_at`` where
    (K shares), ``examined`` log of how much more each position is looked at by those who choose; sharpness and unit as
    in ``Choice``."""

    pull: float
    pull_at: tuple[float, ...]
    examined: tuple[float, ...]
    sharpness: float
    unit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """Progress and checkpoint of one fit; either may be absent."""

    path: Path | None = None
    mark: str = ""
    report: Callable[[float], None] | None = None

    def say(self, share: float) -> None:
        """Report how far the fit is, in [0, 1]."""
        if self.report is not None:
            self.report(share)

    def load(self) -> dict[str, npt.NDArray[Any]]:
        """What an earlier, killed run of the same fit had saved; else nothing."""
        return checkpoints.load(self.path, mark=self.mark) if self.path is not None else {}

    def save(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Replace the checkpoint."""
        if self.path is not None:
            checkpoints.save(self.path, arrays, mark=self.mark)

    def finish(self) -> None:
        """The fit is done: its checkpoint goes."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        self.say(1.0)
