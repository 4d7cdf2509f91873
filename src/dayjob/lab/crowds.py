"""Simulated users whose law is known, and the policy with default exploration that serves them."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dayjob.signals.clicklog import F64, I64, ClickLog

FIRST: tuple[float, ...] = (1.0,)
STEEP: tuple[float, ...] = (0.6, 0.2, 0.1, 0.04, 0.02, 0.01, 0.01, 0.01, 0.005, 0.005)
GENTLE: tuple[float, ...] = (0.4, 0.2, 0.12, 0.08, 0.06, 0.04, 0.04, 0.02, 0.02, 0.02)
SLIPPING: tuple[float, ...] = (0.9, 0.05, 0.03, 0.02)
EVEN_REST: tuple[float, ...] = (0.65,) + (0.35 / 9,) * 9
TRUSTED: tuple[float, ...] = (0.65, 0.26, 0.15, 0.11, 0.08, 0.06, 0.05, 0.04, 0.03, 0.03)  # by trust alone
CASCADE: tuple[float, ...] = tuple(0.5**k for k in range(10))  # half go on to the next


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """Users and the policy that serves them.

    ``blind`` share of decisions by position alone, after ``pattern`` (padded with zeros; ``drift`` turns it slowly into
    the pattern shifted by one); the rest click the item of highest utility plus Gumbel ``noise``. ``quality`` is the
    correlation of the policy's score with the utility, ``silent`` the share of decisions without a click, ``changed``
    the share of answers whose first place exploration changes (half by a uniform draw, half by temperature).
    """

    blind: float = 0.65
    pattern: tuple[float, ...] = FIRST
    quality: float = 0.5
    width: int = 10
    columns: int = 8
    noise: float = 0.25
    silent: float = 0.0
    changed: float = 0.05
    drift: float = 0.0


def crowd_log(rng: np.random.Generator, decisions: int, *, crowd: Crowd, features: bool = False) -> ClickLog:
    """Decisions of a policy with default exploration before such a crowd; ``features``: the log has them."""
    shape = (decisions, crowd.width)
    feature_BKF = rng.normal(size=(*shape, crowd.columns))
    utility = feature_BKF.sum(axis=2) / np.sqrt(crowd.columns)
    score = crowd.quality * utility + np.sqrt(1 - crowd.quality**2) * rng.normal(size=shape)
    order, drawn_B = explore(score, crowd.changed, rng=rng)
    seen = np.take_along_axis(utility, order, axis=1)
    looked = (seen + crowd.noise * rng.gumbel(size=shape)).argmax(axis=1)
    click = np.where(rng.random(decisions) < crowd.blind, _blind(rng, decisions, crowd), looked)
    item = np.arange(decisions * crowd.width).reshape(shape)
    log = ClickLog.of(
        np.take_along_axis(item, order, axis=1),
        click_B=np.where(rng.random(decisions) < crowd.silent, -1, click),
        score_BK=np.take_along_axis(score, order, axis=1),
    )
    log = replace(log, intervened_B=drawn_B, first_B=item[np.arange(decisions), score.argmax(axis=1)])
    return replace(log, feature_BKF=np.take_along_axis(feature_BKF, order[..., None], axis=1)) if features else log


def explore(score_BK: F64, changed: float, *, rng: np.random.Generator) -> tuple[I64, npt.NDArray[np.bool_]]:
    """(order_BK of slots, position 1 drawn uniformly): Plackett-Luce at the temperature that changes half of
    ``changed`` first places, and a uniform draw for position 1 that changes the other half.
    """
    rows, width = score_BK.shape
    noise = rng.gumbel(size=score_BK.shape)
    low, high = 1e-4, 10.0
    for _ in range(30):
        middle = np.sqrt(low * high)
        moved = ((score_BK / middle + noise).argmax(axis=1) != score_BK.argmax(axis=1)).mean()
        low, high = (low, middle) if moved > changed / 2 else (middle, high)
    place = np.argsort(np.argsort(-(score_BK / low + noise), axis=1), axis=1)
    drawn_B = rng.random(rows) < changed / 2 / (1 - 1 / width)
    drawn = np.flatnonzero(drawn_B)
    place[drawn, rng.integers(width, size=len(drawn))] = -1
    return np.argsort(place, axis=1), drawn_B


def _blind(rng: np.random.Generator, decisions: int, crowd: Crowd) -> I64:
    pattern = np.zeros(crowd.width)
    pattern[: len(crowd.pattern)] = crowd.pattern[: crowd.width]
    pattern /= pattern.sum()
    late = np.linspace(0, crowd.drift, decisions)[:, None]
    p_BK = (1 - late) * pattern + late * np.roll(pattern, 1)
    position_B: I64 = np.sum(rng.random((decisions, 1)) > np.cumsum(p_BK, axis=1)[:, :-1], axis=1)
    return position_B
