"""Exact tests of counts. Pure."""

import math


def by_luck(lost: int, won: int) -> float:
    """The chance of at least ``lost`` heads in lost + won throws of a fair coin: the one-sided sign test.

    >>> by_luck(10, 0)
    0.0009765625
    """
    throws = lost + won
    return float(sum(math.comb(throws, heads) for heads in range(lost, throws + 1)) / 2**throws)


def commoner_by_luck(before: int, after: int, *, asked: int) -> float:
    """Fisher's exact test, one-sided: how likely ``after`` or more of the before + after stand on this side of two
    equal halves of ``asked``.

    >>> round(commoner_by_luck(0, 3, asked=3), 6)
    0.05
    """
    whole = _log_choose(2 * asked, before + after)
    terms = (
        math.exp(_log_choose(asked, count) + _log_choose(asked, before + after - count) - whole)
        for count in range(after, min(asked, before + after) + 1)
    )
    return min(1.0, sum(terms))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) if 0 <= k <= n else -math.inf
