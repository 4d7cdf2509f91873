"""From costs at several lengths to the cost of a million tokens; and what the shape of a model says by itself.

`fit` is measurement carried on: a straight line, and a square beside it that shows whether the line may be trusted.
:class:`Shape` is arithmetic: no clock is looked at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dayjob.lab.figures import interval, surely

Points = Mapping[int, float]  # turns -> what they cost together
Interval = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Over rounds: ``line``, what a turn costs if every turn costs the same; ``square``, by how much that grows with
    the turns squared (its line is another one); ``curved``, the share of the longest measured that is the square's;
    what ``turns`` turns cost by the line and, where the square is surely above zero, with it (else None)."""

    line: Interval
    square: Interval
    curved: float
    turns: float
    straight: Interval
    bent: Interval | None


def fit(rounds: Sequence[Points], *, settled: int, turns: float) -> Fit:
    """Least squares on the lengths of ``settled`` turns and more, each point weighed by 1 / its length: errors grow
    with what is measured. Constant, slope and, for ``square``, a quadratic term, each round by itself.

    >>> found = fit([{1: 3.0, 2: 5.0, 3: 7.0}], settled=1, turns=10)
    >>> round(found.line["mean"], 6), round(found.straight["mean"], 6), round(abs(found.square["mean"]), 6)
    (2.0, 21.0, 0.0)
    """
    lines: list[Sequence[float]] = []
    curves: list[Sequence[float]] = []
    longest: list[tuple[int, float]] = []
    for points in rounds:
        known = sorted(one for one in points if one >= settled)
        turns_N = np.array(known, np.float64)
        cost_N = np.array([points[one] for one in known])
        for degree, found in ((1, lines), (2, curves)):
            power_NX = turns_N[:, None] ** np.arange(degree + 1)
            found.append(np.linalg.lstsq(power_NX / turns_N[:, None], cost_N / turns_N, rcond=None)[0].tolist())
        longest.append((known[-1], points[known[-1]]))
    square = interval([float(one[2]) for one in curves])
    bends = len(rounds) > 1 and surely(square) > 0
    many, costs = longest[0][0], [cost for _, cost in longest]
    return Fit(
        line=interval([float(one[1]) for one in lines]), square=square,
        curved=square["mean"] * many * many / max(float(np.mean(costs)), 1e-12), turns=turns,
        straight=interval([_at(one, turns) for one in lines]),
        bent=interval([_at(one, turns) for one in curves]) if bends else None,
    )  # fmt: skip


def _at(terms_X: Sequence[float], turns: float) -> float:
    return float(sum(term * turns**power for power, term in enumerate(terms_X)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Of a decoder with grouped-query attention, as its ``config.json`` has it. A multiply and an add are two FLOP."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_width: int
    mlp: int
    vocabulary: int
    number_bytes: int  # of one number among keys and values

    @staticmethod
    def of(folder: Path, *, name: str, number_bytes: int = 4) -> Shape:
        """Of a model's folder."""
        read = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        heads = int(read["num_attention_heads"])
        return Shape(
            name=name, layers=read["num_hidden_layers"], hidden=read["hidden_size"], heads=heads,
            kv_heads=read.get("num_key_value_heads") or heads, number_bytes=number_bytes,
            head_width=read.get("head_dim") or read["hidden_size"] // heads, mlp=read["intermediate_size"],
            vocabulary=read["vocab_size"],
        )  # fmt: skip

    @property
    def kv_bytes(self) -> int:
        """Of one token's keys and values: 2 x layers x key-value heads x width x bytes of a number."""
        return 2 * self.layers * self.kv_heads * self.head_width * self.number_bytes

    @property
    def weight_flops(self) -> int:
        """Of one token through every matrix, the output's too: two for each weight."""
        queries, keys = self.heads * self.head_width, self.kv_heads * self.head_width
        layer = 2 * self.hidden * queries + 2 * self.hidden * keys + 3 * self.hidden * self.mlp
        return 2 * (self.layers * layer + self.vocabulary * self.hidden)

    def attention_flops(self, context: float) -> float:
        """Of one token that looks at ``context`` others: scores and weighted sum, 4 x layers x heads x width each."""
        return 4.0 * self.layers * self.heads * self.head_width * context

    def reading_flops(self, tokens: float) -> float:
        """Of ``tokens`` tokens one behind the other, keys and values kept: the mean token looks at half of them."""
        return tokens * (self.weight_flops + self.attention_flops(tokens / 2))


# huggingface.co/Qwen/Qwen3-0.6B, config.json; bfloat16.
QWEN3_06B = Shape(
    name="Qwen3-0.6B, bfloat16", layers=28, hidden=1024, heads=16, kv_heads=8, head_width=128, mlp=3072,
    vocabulary=151_936, number_bytes=2,
)  # fmt: skip
