"""A measure of the speed lab: its value over the rounds, its mark, and whether that was reached."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A measure in each round (none: it could not be taken, see ``note``). ``mark``: ">= 500", "<= 60" or ""."""

    measure: str
    values: tuple[float, ...]
    unit: str
    mark: str = ""
    note: str = ""

    @property
    def median(self) -> float | None:
        """Over the rounds."""
        return statistics.median(self.values) if self.values else None

    @property
    def times_the_mark(self) -> float | None:
        """How far beyond its mark the median lies: 1 and more is reached. None without a mark or a value."""
        if not self.mark or self.median is None:
            return None
        limit = float(self.mark.split()[1].replace(",", ""))
        if self.mark.startswith(">="):
            return self.median / limit
        if limit == 0.0:
            return 1.0 if self.median <= 0.0 else 0.0
        return limit / self.median if self.median > 0.0 else float("inf")

    @property
    def reached(self) -> bool | None:
        """Whether the median reaches the mark."""
        return None if self.times_the_mark is None else self.times_the_mark >= 1.0

    def to_json(self) -> dict[str, Any]:
        """What speed.json keeps."""
        return {
            "measure": self.measure, "median": self.median, "values": list(self.values), "unit": self.unit,
            "mark": self.mark, "reached": self.reached, "note": self.note,
        }  # fmt: skip

    def to_line(self) -> dict[str, str]:
        """What the page's table says."""
        said = "" if self.reached is None else ("reached" if self.reached else "**not reached**")
        spread = f"{_text(min(self.values))} to {_text(max(self.values))}" if len(self.values) > 1 else ""
        value = "none" if self.median is None else f"{_text(self.median)} {self.unit}".strip()
        return {
            "measure": self.measure, "median": value, "lowest to highest": spread, "mark": self.mark, "": said,
            "note": self.note,
        }  # fmt: skip


def row(measure: str, values: Sequence[float] | float, *, unit: str = "", mark: str = "", note: str = "") -> Row:
    """A measure taken once, or in each of several rounds."""
    several = (float(values),) if isinstance(values, int | float) else tuple(float(one) for one in values)
    return Row(measure=measure, values=several, unit=unit, mark=mark, note=note)


def _text(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"
