"""How traffic is shared between serving, watching and trying: more watching when it matters, all of it on a budget.

The shares depend on what closed before, never on a decision's own outcome, and change only when the judge looks: every
decision between two changes has the same ones, and journals the exact chance of its part. So no test's validity rests
on anything here.

* The watch's share is high for the first ``FRESH`` decisions after a promotion and whenever evidence of harm has been
  growing lately (``watch.rise``), low otherwise.
* The budget: a pair or a held-back decision costs people something where the champion serves better than what it shows.
  Each decision journals what, in expected loss under the champion's own belief (``Toll``). The watch and the holdback
  may cost half of ``user_cost``, all of it while nothing is on trial, and are scaled down together; the trial takes
  what is left. Where the champion is what is in doubt, fresh or with evidence of harm growing, its belief is no measure
  of what watching costs: then the watch is not scaled, and the trial waits. Where no losses are known, or the baseline
  serves, there is no toll and the shares stay as they were set.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dayjob.config import Config
from dayjob.records import Joined, Json

FRESH = 500  # closed decisions after a promotion
RISE = 0.5  # nats of evidence gained since it last was at its lowest
LEAST_TOLL = 50  # decisions before the toll says anything
KEEP = 1.0 - 1.0 / 500.0
GUARD = 0.5  # of the budget, for watch and holdback while something is on trial
STEPS = 4  # shares change by factors of 2^(1/4): seldom


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """The shares as they are set, and checked, in ``Config``."""

    holdback: float = 0.03
    watch: float = 0.1
    watch_most: float = 0.5
    trial: float = 0.9
    user_cost: float = 0.01

    @classmethod
    def of(cls, config: Config) -> "Traffic":
        """As configured."""
        return cls(
            holdback=config.holdback,
            watch=config.watch_share,
            watch_most=config.watch_most_share,
            trial=config.trial_share,
            user_cost=config.user_cost,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """The shares in force: the holdback, pairs with the version last replaced, pairs on trial (of the others)."""

    holdback: float
    watch: float
    trial: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Toll:
    """Forgetting sums over the champion's decisions: its own expected loss, and the excess of holdback and pairs."""

    count: int = 0
    own: float = 0.0
    holdback: float = 0.0
    watch: float = 0.0
    trial: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return asdict(self)

    def observe(self, closed: Sequence[Joined], champion: str) -> "Toll":
        """The sums after more decisions of this champion, in order; those that journaled no toll are left out."""
        count, sums = self.count, [self.own, self.holdback, self.watch, self.trial]
        for joined in closed:
            extra = joined.stored.record.extra
            if "toll" in extra and extra.get("champion", joined.stored.record.version) == champion:
                count += 1
                sums = [KEEP * old + float(new) for old, new in zip(sums, extra["toll"], strict=True)]
        return Toll(count=count, own=sums[0], holdback=sums[1], watch=sums[2], trial=sums[3])


def share_out(traffic: Traffic, toll: Toll, *, fresh: bool, harm: bool, tried: bool) -> Shares:
    """The shares until the next look. ``fresh``, ``harm``: see above; ``tried``: a challenger is on trial."""
    watch = traffic.watch_most if fresh or harm else traffic.watch
    if toll.count < LEAST_TOLL or toll.own <= 0.0:
        return Shares(holdback=traffic.holdback, watch=watch, trial=traffic.trial)
    held, pair, trial = (max(0.0, cost) / toll.own for cost in (toll.holdback, toll.watch, toll.trial))
    guard = traffic.holdback * held + watch * pair
    allowed = traffic.user_cost * (GUARD if tried else 1.0)
    scale = 1.0 if fresh or harm or guard <= allowed else _step(allowed / guard)
    holdback, watch = scale * traffic.holdback, scale * watch
    left = max(0.0, traffic.user_cost - scale * guard)
    full = (1.0 - holdback - watch) * traffic.trial * trial
    part = 1.0 if full <= left else _step(left / full)
    return Shares(holdback=holdback, watch=watch, trial=part * traffic.trial)


def _step(factor: float) -> float:
    """The next lower step; 0 below a thousandth."""
    return 0.0 if factor < 1e-3 else 2.0 ** (math.floor(STEPS * math.log2(factor)) / STEPS)


def shares_state(shares: Shares, champion: str) -> Json:
    """What the server follows: the shares, and the champion they are meant for."""
    return {"champion": champion, **asdict(shares)}
