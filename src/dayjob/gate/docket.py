"""What the judge remembers of one policy, and how closed decisions change it. Pure.

Evidence belongs to one (challenger, champion) pair and is void when the champion changes. An abandoned trial has used
its level of the promotion budget too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dayjob.endings import FeedbackState, Role
from dayjob.gate import trial, watch
from dayjob.gate.elond import Elond
from dayjob.gate.evidence import arms, observations
from dayjob.gate.trial import TrialState, renew
from dayjob.gate.verdict import Terms, VerdictResult, decide
from dayjob.gate.watch import WatchState
from dayjob.records import Joined, Json, Pointers

EPSILON = 1e-12  # role chances are sums and differences of floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Docket:
    """One policy before the judge. ``cursor``: everything up to this sequence number is judged."""

    cursor: int = 0
    challenger: str | None = None
    champion: str = ""
    trial: TrialState | None = None
    tried_from: int = 0  # the journal's newest sequence number when the trial began
    closed: int = 0  # decisions made since then that have closed
    budget: Elond = field(default_factory=lambda: Elond(alpha=0.05))
    rival: str | None = None  # what the champion replaced: the watch compares them
    watch: WatchState | None = None

    def to_json(self) -> Json:
        """Plain numbers."""
        return {
            "cursor": self.cursor, "challenger": self.challenger, "champion": self.champion,
            "trial": None if self.trial is None else self.trial.to_dict(), "closed": self.closed,
            "tried_from": self.tried_from, "budget": self.budget.to_dict(), "rival": self.rival,
            "watch": None if self.watch is None else self.watch.to_dict(),
        }  # fmt: skip

    @classmethod
    def from_json(cls, body: Json) -> "Docket":
        """The inverse of :meth:`to_json`."""
        made: dict[str, Any] = dict(body)
        made["trial"] = None if body["trial"] is None else TrialState.from_dict(body["trial"])
        made["watch"] = None if body["watch"] is None else WatchState.from_dict(body["watch"])
        made["budget"] = Elond.from_dict(body["budget"])
        return cls(**made)

    def fits(self, pointers: Pointers) -> bool:
        """Whether these are the versions that the pointers name."""
        return self.tries(pointers) and self.rival == rival_of(pointers)

    def tries(self, pointers: Pointers) -> bool:
        """Whether this is the pair on trial that the pointers name."""
        return (self.challenger, self.champion) == (pointers.challenger, pointers.champion)


def rival_of(pointers: Pointers) -> str | None:
    """What the champion replaced: the watch compares them, and a rollback returns to it."""
    return None if pointers.champion == pointers.baseline else pointers.previous or pointers.baseline


def reopen(docket: Docket, pointers: Pointers, *, least_chance: float, newest_seq: int) -> Docket:
    """A docket for the versions that the pointers name: evidence on a pair that is no more is void.

    ``least_chance``: the holdback's, 0 for no watch over it.
    """
    rival = rival_of(pointers)
    kept = docket.watch if docket.champion == pointers.champion and docket.rival == rival else None
    if kept is None and rival is not None and least_chance > 0:
        kept = WatchState(least_chance=least_chance)
    if docket.tries(pointers) and docket.trial is not None:
        return replace(docket, rival=rival, watch=kept)
    budget = docket.budget
    if docket.trial is not None and docket.trial.evidence.count > 0:
        budget = budget.decide(promoted=False)
    # What is known of positions and people is kept: it does not depend on who is on trial.
    state = TrialState() if docket.trial is None else renew(docket.trial)
    return replace(
        docket, challenger=pointers.challenger, champion=pointers.champion, trial=state,
        tried_from=newest_seq, closed=0,
        budget=budget, rival=rival, watch=kept,
    )  # fmt: skip


def observe(docket: Docket, closed: Sequence[Joined], *, spec: Json) -> Docket:
    """The docket after more closed decisions, in the order they were made."""
    pairs = [j for j in closed if j.stored.record.role is Role.TRIAL and j.stored.record.version == docket.champion]
    state = docket.trial
    ours = [j for j in pairs if j.stored.record.challenger == docket.challenger]
    if state is not None and docket.challenger is not None and ours:
        state = trial.observe(state, observations(ours, spec))
    counted = sum(j.stored.record.role is not Role.BEST and j.stored.seq > docket.tried_from for j in closed)
    return replace(
        docket,
        cursor=closed[-1].stored.seq,
        trial=state,
        closed=docket.closed + counted,
        watch=None if docket.watch is None else _watch(docket, docket.watch, closed, pairs, spec),
    )


def _watch(
    docket: Docket, state: WatchState, closed: Sequence[Joined], pairs: Sequence[Joined], spec: Json
) -> WatchState:
    """The watch after more closed decisions: pairs with what the champion replaced, and champion against holdback."""
    rivals = [j for j in pairs if j.stored.record.challenger == docket.rival != docket.challenger]
    if rivals:
        state = watch.observe_pairs(state, observations(rivals, spec))
    served = [
        j for j in closed
        if j.stored.record.role is Role.BASELINE
        or (j.stored.record.role is Role.CHAMPION and j.stored.record.version == docket.champion)
    ]  # fmt: skip
    batch = arms([j for j in served if j.stored.record.role_propensity >= state.least_chance - EPSILON], spec)
    return watch.observe_arms(state, batch) if batch.reward_N.size else state


def rule(docket: Docket, spec: Json, *, state: FeedbackState) -> VerdictResult | None:
    """The verdict as the docket stands; None without a challenger."""
    if docket.trial is None or docket.challenger is None:
        return None
    alpha = float(spec["alpha"])
    terms = Terms(
        alpha=alpha,
        level=docket.budget.level,
        minimum_effect=float(spec["minimum_effect"]),
        clicks=str(spec["metric"]) in ("click", "km"),
    )
    return decide(trial.grounds(docket.trial, closed=docket.closed, alpha=alpha), terms, feedback=state)


def trial_point(docket: Docket, result: VerdictResult) -> Json:
    """One point of the trial's curve."""
    return {
        "seq": docket.cursor, "challenger": docket.challenger, "champion": docket.champion,
        "verdict": result.kind.value, "judged": result.grounds.judged, "closed": result.grounds.closed,
        "effect": result.grounds.effect, "low": result.grounds.low, "high": result.grounds.high,
        "e_value": result.e_value, "e_needed": result.e_needed, "alpha_i": result.level,
        "needed": result.needed_closed,
    }  # fmt: skip
