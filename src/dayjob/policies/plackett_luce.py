"""Drawing a ranking and saying exactly how probable it was.

Plackett-Luce at temperature T: p(y) = prod_k exp(s_{y_k}/T) / sum_{j not in y_<k} exp(s_j/T), drawn by sorting
s/T + Gumbel noise (Yellott 1977). T = 0 is the plain order. With probability epsilon position 1 is drawn uniformly
first: those interventions are what position bias is estimated from. Everything random comes from one 64-bit seed,
so that a journaled decision replays to the bit.
"""

import math
import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dayjob.policies.protocol import F64

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explore:
    """How far answers depart from the best order: T in units of the scores, epsilon a probability."""

    epsilon: float = 0.0
    temperature: float = 0.0


GREEDY = Explore()
LOGIT_FLOOR = -600.0
NO_SPREAD = 1e-200  # scores closer than this are ties: no temperature can be told from their gaps


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A drawn ranking: slots in the order shown (R,), the probability of each given those above it (R,)."""

    ranking_R: I64
    propensity_R: F64
    intervened: bool
    coin: int

    @property
    def log_propensity(self) -> float:
        """The log-probability of the whole ranking."""
        return float(np.log(self.propensity_R).sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Dice:
    """All the randomness of one decision: uniform numbers in [0, 1)."""

    role: float
    intervene: float
    slot: float
    coin: float
    noise_K: F64


def roll(seed: int, k: int) -> Dice:
    """The dice of a decision over K candidates. Philox: counter-based, the same on every machine."""
    u = _PHILOX.random(seed, 4 + k)
    return Dice(role=float(u[0]), intervene=float(u[1]), slot=float(u[2]), coin=float(u[3]), noise_K=u[4:])


class _Philox(threading.local):
    """A thread's generator, set to a key by hand: making one anew asks the system for entropy that is thrown away."""

    def __init__(self) -> None:
        self._bits = np.random.Philox(key=0)
        self._fresh = self._bits.state
        self._generator = np.random.Generator(self._bits)

    def random(self, key: int, count: int) -> F64:
        """``Generator(Philox(key=key)).random(count)``."""
        self._fresh["state"]["key"][0] = key
        self._bits.state = self._fresh
        return self._generator.random(count)


_PHILOX = _Philox()


def order(score_K: F64) -> I64:
    """The plain order: best first, ties by slot."""
    return np.argsort(-score_K, kind="stable")


def draw(score_K: F64, *, dice: Dice, explore: Explore, shown: int) -> Drawn:
    """Draw the first ``shown`` places of a ranking of K candidates."""
    k = len(score_K)
    intervened = dice.intervene < explore.epsilon
    ranking_K = _noisy_order(score_K, dice=dice, temperature=explore.temperature)
    if intervened:
        first = min(int(dice.slot * k), k - 1)
        ranking_K = np.concatenate(([first], ranking_K[ranking_K != first]))
    ranking_R = ranking_K[:shown]
    propensity_R = propensities(score_K, ranking_R, explore=explore)
    return Drawn(ranking_R=ranking_R, propensity_R=propensity_R, intervened=intervened, coin=0)


def draw_pair(
    score_K: F64, *, rival_first: int, dice: Dice, explore: Explore, shown: int, first: int | None = None
) -> Drawn:
    """Champion's and challenger's first choices at positions 1 and 2 in the order of a fair coin, the rest drawn.

    ``score_K`` are the champion's scores; ``first`` its first choice where that is not the highest of them (a pair
    compares beliefs, an order may weigh losses too). The propensity sums both sides of the coin: 1/2 at position 1 for
    either first choice, then 1 for the other. Raises AssertionError when both choose the same first.
    """
    first = int(order(score_K)[0]) if first is None else first
    assert first != rival_first, "a pair needs two different first choices"
    coin = 1 if dice.coin < 0.5 else -1
    pair = [rival_first, first] if coin == 1 else [first, rival_first]
    rest_K = _noisy_order(score_K, dice=dice, temperature=explore.temperature)
    rest_K = rest_K[(rest_K != first) & (rest_K != rival_first)]
    ranking_R = np.concatenate((np.array(pair), rest_K))[:shown]
    propensity_R = _plackett_luce(score_K, ranking_R, explore.temperature)
    propensity_R[0] = 0.5
    if shown > 1:
        propensity_R[1] = 1.0
    return Drawn(ranking_R=ranking_R, propensity_R=propensity_R, intervened=False, coin=coin)


def propensities(score_K: F64, ranking_R: I64, *, explore: Explore) -> F64:
    """The probability of each shown item at its position given those above it (R,)."""
    out_R = _plackett_luce(score_K, ranking_R, explore.temperature)
    out_R[0] = explore.epsilon / len(score_K) + (1.0 - explore.epsilon) * out_R[0]
    return out_R


def _noisy_order(score_K: F64, *, dice: Dice, temperature: float) -> I64:
    if temperature <= 0.0:
        return order(score_K)
    noise_K = np.maximum(dice.noise_K, 1e-300)
    return order(_logits(score_K, temperature) - np.log(-np.log(noise_K)))


def _logits(score_K: F64, temperature: float) -> F64:
    """s/T shifted to a maximum of 0; the floor keeps hopeless candidates' probabilities above zero and finite."""
    logit_K: F64 = np.maximum((score_K - score_K.max()) / temperature, LOGIT_FLOOR)
    return logit_K


def _plackett_luce(score_K: F64, ranking_R: I64, temperature: float) -> F64:
    if temperature <= 0.0:
        left = order(score_K).tolist()
        out_R = np.zeros(len(ranking_R))
        for place, slot in enumerate(ranking_R.tolist()):
            out_R[place] = float(left[0] == slot)
            left.remove(slot)
        return out_R
    logit_K = _logits(score_K, temperature)
    chosen_R = logit_K[ranking_R]
    left_K = np.ones(len(score_K), bool)
    left_K[ranking_R] = False
    # log-sum-exp of what was still to be drawn, from the last shown place upwards
    tail = float(np.logaddexp.reduce(logit_K[left_K])) if left_K.any() else -math.inf
    total_R = np.logaddexp.accumulate(np.concatenate(([tail], chosen_R[::-1])))[1:][::-1]
    return np.exp(chosen_R - total_R)


def calibrate(score_NK: list[F64], *, changed_first: float) -> Explore:
    """Half of the wished share of changed first places by uniform draws, the other half by temperature.

    ``score_NK``: the scores of recent lists. The temperature is found by bisection on the mean probability that the
    first place is not the best one; lists of one candidate cannot change and do not count.
    """
    lists = [score_K for score_K in score_NK if len(score_K) > 1]
    if not lists or changed_first <= 0.0:
        return GREEDY
    room = float(np.mean([1.0 - 1.0 / len(score_K) for score_K in lists]))
    epsilon = min(1.0, 0.5 * changed_first / room)
    gaps = [np.sort(score_K.max() - score_K)[1:] for score_K in lists]
    gap_N, start_L = np.concatenate(gaps), np.cumsum([0, *(len(gap) for gap in gaps[:-1])])
    spread = float(np.median(gap_N))
    if spread <= NO_SPREAD:
        return Explore(epsilon=epsilon, temperature=0.0)
    low, high = spread * 1e-4, spread * 1e3
    for _ in range(40):
        middle = math.sqrt(low) * math.sqrt(high)
        changed = float(np.mean(1.0 - 1.0 / (1.0 + np.add.reduceat(np.exp(-gap_N / middle), start_L))))
        low, high = (low, middle) if (1.0 - epsilon) * changed > 0.5 * changed_first else (middle, high)
    return Explore(epsilon=epsilon, temperature=low)
