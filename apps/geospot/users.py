"""Simulated users: who clicks what, given how far the shown places really are.

A user who looks sees each distance with a graded error (Gumbel noise on log distance, so telling 10 km from 20 is as
hard as 1,000 from 2,000) and clicks the place that seems closest, or nothing when even that seems too far. A share of
interactions never looks: the click falls by position alone. The trust-bias population follows Vardasbi, Oosterhuis, de
Rijke (CIKM 2020).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
I16 = npt.NDArray[np.int16]
I32 = npt.NDArray[np.int32]

NEAR_KM = 10.0  # below this people do not tell distances apart
ANONYMOUS = -1


class Population(StrEnum):
    """The kinds of users that are simulated."""

    GEOSPOT = "geospot"  # 65 % click position 1 unseen, the rest click the closest
    TRUST = "trust"  # examination and trust both fall with the position
    HONEST = "honest"  # everybody looks
    MIXED = "mixed"  # persistent users, some better informed than others
    POSITION_ONLY = "position-only"  # everybody clicks position 1 unseen


@dataclass(frozen=True, slots=True, kw_only=True)
class UserConfig:
    """One population. Shares are probabilities of one interaction.

    ``pull`` clicks by position alone, where by ``pull_at`` (first positions first; it must sum to 1); ``random`` clicks
    a uniformly drawn place; the rest look. ``error`` is the scale of the Gumbel noise on log distance of those who
    look; ``none_km`` is the distance that seems too far to half of them and ``none_share`` what share of them minds at
    all. ``people`` > 0 makes users persistent: each has a pull and an error of its own, around the given ones.

    ``pin`` is the share of rounds after which the player also marks where the photo was really taken. It is 0 in every
    population here: unless somebody asks for it, everything is learned from clicks.
    """

    pull: float = 0.65
    pull_at: tuple[float, ...] = (1.0,)
    random: float = 0.0
    error: float = 0.3
    none_share: float = 0.1
    none_km: float = 1000.0
    trust: bool = False
    trust_km: float = 500.0  # relevance to a trusting user falls as 1 / (1 + distance / trust_km)
    pin: float = 0.0
    people: int = 0
    people_seed: int = field(default=7, compare=False)


POPULATIONS: dict[Population, UserConfig] = {
    Population.GEOSPOT: UserConfig(),
    Population.TRUST: UserConfig(pull=0.0, trust=True),
    Population.HONEST: UserConfig(pull=0.0),
    Population.MIXED: UserConfig(people=400),
    Population.POSITION_ONLY: UserConfig(pull=1.0),
}


class Users:
    """A population that can be asked to click."""

    def __init__(self, config: UserConfig) -> None:
        if abs(sum(config.pull_at) - 1) > 1e-9 or min(config.pull_at) < 0:
            raise ValueError(f"pull_at must be shares that sum to 1, not {config.pull_at}.")
        if not 0 <= config.pull <= 1 or not 0 <= config.random <= 1 - config.pull:
            raise ValueError("pull and random must be shares that sum to at most 1.")
        if not 0 <= config.pin <= 1:
            raise ValueError(f"pin is the share of rounds that end with the true place, in [0, 1], not {config.pin}.")
        self.config = config
        rng = np.random.default_rng(config.people_seed)
        spread = rng.beta(*_beta_shape(config.pull), size=config.people)
        self._pull_U = np.minimum(spread, 1 - config.random)
        self._error_U = config.error * np.exp(rng.normal(scale=0.8, size=config.people))
        self._weight_U = 1 / np.arange(1, config.people + 1) ** 0.7  # a few heavy users, many light ones
        rng.shuffle(self._weight_U)

    def draw(self, count: int, rng: np.random.Generator) -> I32:
        """Who comes: ``count`` user numbers, or -1 for anonymous populations."""
        if not self.config.people:
            return np.full(count, ANONYMOUS, np.int32)
        return rng.choice(self.config.people, size=count, p=self._weight_U / self._weight_U.sum()).astype(np.int32)

    def click(self, distance_NK: npt.ArrayLike, user_N: npt.ArrayLike, *, rng: np.random.Generator) -> I16:
        """The clicked position (0 first, -1 nothing) of N lists; ``distance_NK`` km in the order shown."""
        distance, user = np.asarray(distance_NK, np.float64), np.asarray(user_N)
        if self.config.trust:
            looked = self._trusting(distance, rng)
            pull: npt.NDArray[np.float64] | float = self.config.pull
        elif self.config.people:
            looked = self._looking(distance, self._error_U[user][:, None], rng)
            pull = self._pull_U[user]
        else:
            looked = self._looking(distance, np.full((len(distance), 1), self.config.error), rng)
            pull = self.config.pull
        chance = rng.random(len(distance))
        width = min(distance.shape[1], len(self.config.pull_at))
        share = np.array(self.config.pull_at[:width])
        pulled = rng.choice(width, size=len(distance), p=share / share.sum())
        anywhere = rng.integers(distance.shape[1], size=len(distance))
        clicked = np.where(chance < pull, pulled, np.where(chance < pull + self.config.random, anywhere, looked))
        return clicked.astype(np.int16)

    def _looking(
        self, distance_NK: npt.NDArray[np.float64], error_N1: npt.NDArray[np.float64], rng: np.random.Generator
    ) -> npt.NDArray[np.int64]:
        seen_NK = np.log(distance_NK + NEAR_KM) - error_N1 * rng.gumbel(size=distance_NK.shape)
        choice_N = seen_NK.argmin(axis=1)
        closest_N = distance_NK[np.arange(len(choice_N)), choice_N]
        too_far_N = closest_N / (closest_N + self.config.none_km)
        leaves_N = rng.random(len(choice_N)) < self.config.none_share * 2 * too_far_N
        return np.where(leaves_N, -1, choice_N)

    def _trusting(self, distance_NK: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Independent clicks with P = alpha_k g + beta_k; of several the reported one is drawn evenly; -1 for none."""
        alpha_K, beta_K = trust_bias(distance_NK.shape[1])
        relevance_NK = 1 / (1 + distance_NK / self.config.trust_km)
        clicked_NK = rng.random(distance_NK.shape) < alpha_K * relevance_NK + beta_K
        order_NK = np.where(clicked_NK, rng.random(distance_NK.shape), -1.0)
        return np.where(clicked_NK.any(axis=1), order_NK.argmax(axis=1), -1)


def trust_bias(positions: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """alpha_K and beta_K of the trust-bias model, k from 0.

    theta = .35/(k+1) + .65/(1+.05k) is examined; eps+ = 1/(1+.005k), eps- = .65/(k+1) are the click rates of relevant
    and irrelevant items once examined; alpha = theta (eps+ - eps-), beta = theta eps-.
    """
    k = np.arange(positions, dtype=np.float64)
    theta = 0.35 / (k + 1) + 0.65 / (1 + 0.05 * k)
    trusted, distrusted = 1 / (1 + 0.005 * k), 0.65 / (k + 1)
    return theta * (trusted - distrusted), theta * distrusted


def _beta_shape(mean: float) -> tuple[float, float]:
    """A bimodal Beta of the given mean: most people nearly always look, or nearly never."""
    inside = min(max(mean, 0.02), 0.98)
    return 1.2 * inside, 1.2 * (1 - inside)
