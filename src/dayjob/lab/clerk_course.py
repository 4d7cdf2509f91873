"""What the clerk is brought up with when, and what it is asked: shares of the families in either schooling."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from clerk.split import Side

from dayjob.lab.clerk_gym import gym_families
from dayjob.lab.clerk_school import SCHOOL
from dayjob.lab.clerk_text import FAMILIES, Example, Family, unseen_wording

# Shares of a step of the first schooling, in examples. What is asked but never trained on has none.
SHARES: Mapping[str, float] = {
    "facts": 0.20, "check": 0.04, "both": 0.04, "unknown": 0.03, "notes": 0.15, "rules": 0.11, "usual": 0.01,
    "hints": 0.05, "beside": 0.05, "session": 0.07, "table": 0.05, "arithmetic": 0.06, "chain_sum": 0.04,
    "spell_backward": 0.06, "letter_counting": 0.02, "number_sorting": 0.02,
}  # fmt: skip
# Shares of a step of the second schooling, in examples.
SCHOOL_SHARES: Mapping[str, float] = {
    "facts": 0.06, "check": 0.01, "both": 0.03, "unknown": 0.03, "notes": 0.08, "rules": 0.07, "usual": 0.01,
    "hints": 0.04, "beside": 0.02, "session": 0.05, "table": 0.03, "arithmetic": 0.04, "chain_sum": 0.03,
    "spell_backward": 0.05, "letter_counting": 0.02, "number_sorting": 0.02, "copied": 0.06, "corrected": 0.02,
    "crowd": 0.10, "besides": 0.07, "neighbours": 0.08, "halves": 0.04, "spared": 0.04,
}  # fmt: skip
EVERY: Mapping[str, Family] = {**FAMILIES, **SCHOOL}
ASKED: Mapping[str, Family] = {**EVERY, "unseen_wording": unseen_wording, **gym_families(default=True)}


def training(seed: int, step: int, *, count: int) -> list[Example]:
    """The examples of one step: a pure function of seed and step, so that a resumed run sees the same ones."""
    return _drawn(Random(f"clerk {seed} {step}"), SHARES, count=count)


def schooling(seed: int, step: int, *, count: int) -> list[Example]:
    """The same of the second schooling, whose steps are counted on from the first's."""
    return _drawn(Random(f"school {seed} {step}"), SCHOOL_SHARES, count=count)


def _drawn(rng: Random, shares: Mapping[str, float], *, count: int) -> list[Example]:
    names = rng.choices(list(shares), weights=list(shares.values()), k=count)
    return [Example(family=name, messages=EVERY[name](rng, Side.TRAIN)) for name in names]


def held_out(family: str, *, count: int, seed: int = 0) -> list[Example]:
    """Test questions of one family, the same in every run."""
    rng = Random(f"asked {seed} {family}")
    return [Example(family=family, messages=ASKED[family](rng, Side.TEST)) for _ in range(count)]
