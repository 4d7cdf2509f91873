"""The detector's operating curve: what it says of users of whom none, 1, 2, 5 or 10 % look, under many patterns."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.progress import track

from dayjob.endings import FeedbackState
from dayjob.lab.crowds import (
    CASCADE,
    EVEN_REST,
    FIRST,
    GENTLE,
    SLIPPING,
    STEEP,
    TRUSTED,
    Crowd,
    crowd_log,
)
from dayjob.signals.clicklog import ClickLog
from dayjob.signals.detector import Feedback, feedback
from dayjob.signals.features import learned_score

PATTERNS: dict[str, tuple[float, ...]] = {
    "position 1 always": FIRST,
    "65 %, the rest evenly": EVEN_REST,
    "60/20/10 …": STEEP,
    "40/20/12 …": GENTLE,
    "90/5/3/2": SLIPPING,
    "trust-bias curve": TRUSTED,
    "cascade, half go on": CASCADE,
}
LOOKING = (0.0, 0.01, 0.02, 0.05, 0.10)
OTHERS: dict[str, Crowd] = {
    "60/20/10 …, drifting, nobody looks": Crowd(blind=1.0, pattern=STEEP, drift=0.5),
    "60/20/10 …, 30 % silent, nobody looks": Crowd(blind=1.0, pattern=STEEP, silent=0.3),
    "5 % look, rest position 1, ranker's quality .95": Crowd(blind=0.95, quality=0.95),
    "5 % look, rest 60/20/10 …, ranker's quality .95": Crowd(blind=0.95, pattern=STEEP, quality=0.95),
    "35 % look, rest position 1": Crowd(blind=0.65),
    "all look, 90 % first clicks": Crowd(blind=0.0, quality=0.995, noise=0.02),
    "all look, useless ranker": Crowd(blind=0.0, quality=0.0),
}
DECISIONS, FROM, EVERY = 2_000, 1_500, 250


def worlds() -> dict[str, Crowd]:
    """Every pattern with every share of people who look, and the others."""
    grid = {
        f"{looking:.0%} look, rest {name}": Crowd(blind=1 - looking, pattern=pattern)
        for name, pattern in PATTERNS.items()
        for looking in LOOKING
    }
    return grid | OTHERS


def asked(log: ClickLog) -> Feedback:
    """What the detector says, asked as the gate asks: with a score learned on the past where there are features."""
    learned_BK = None
    if log.feature_BKF.shape[2]:
        learned_BK = learned_score(log.feature_BKF, log.click_B, shown_BK=log.shown_BK)
    return feedback(log, learned_BK=learned_BK)


def detector_study(
    seeds: Sequence[int], *, crowd: Crowd, features: bool, decisions: int = DECISIONS, every: int = EVERY
) -> dict[str, Any]:
    """Shares of the detector's states over the seeds after ``decisions``, and of ``uninformative`` at any look."""
    last, within = [], []
    looks = range(decisions, FROM - 1, -every)
    for seed in seeds:
        log = crowd_log(np.random.default_rng(seed), decisions, crowd=crowd, features=features)
        said = [asked(log.rows(slice(0, look))).state for look in looks]
        last.append(said[0])
        within.append(FeedbackState.UNINFORMATIVE in said)
    shares = {state.value: last.count(state) / len(seeds) for state in FeedbackState}
    return {
        "decisions": decisions,
        "features": features,
        "runs": len(seeds),
        "within": float(np.mean(within)),
        **shares,
    }


def operating_curve(seeds: Sequence[int], *, quick: bool = False) -> list[dict[str, Any]]:
    """``detector_study`` of every world, with features and without."""
    cells = [(name, crowd, features) for name, crowd in worlds().items() for features in (True, False)]
    every = DECISIONS if quick else EVERY
    return [
        {"world": name, **detector_study(seeds, crowd=crowd, features=features, every=every)}
        for name, crowd, features in track(cells, description="detector", transient=True)
    ]


def curve_rows(studies: Sequence[dict[str, Any]], *, features: bool) -> list[dict[str, Any]]:
    """The studies as a table."""
    return [
        {
            "users": study["world"], "seeds": study["runs"],
            **{state.value: round(study[state.value], 2) for state in FeedbackState},
            "within": round(study["within"], 2),
        }
        for study in studies
        if study["features"] == features
    ]  # fmt: skip
