"""What the judge remembers of one policy, and how closed decisions change it. Pure.

Evidence belongs to one question, this challenger against this champion by this metric at this alpha, and is void when
one of them changes. An abandoned trial hands its level on, with the wealth that is left.
"""

import logging
from collections.abc import Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

from dayjob.endings import Damaged, FeedbackState, Invalid, Role
from dayjob.gate import trial, watch
from dayjob.gate.confidence import Evidence
from dayjob.gate.elond import Elond
from dayjob.gate.evidence import NOBODY, arms, observations, once, served
from dayjob.gate.shares import FRESH, RISE, Shares, Toll, Traffic, share_out
from dayjob.gate.trial import TrialState, forget, renew
from dayjob.gate.verdict import Terms, VerdictResult, decide
from dayjob.gate.watch import WatchState
from dayjob.records import Joined, Json, Pointers, Policy

log = logging.getLogger("dayjob.judge")
UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, Invalid)


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
    metric: str = "click"
    rival: str | None = None  # what the champion replaced: the watch compares them
    watch: WatchState | None = None
    toll: Toll = field(default_factory=Toll)
    erased: int = 0  # the journal's sequence number up to which erased people were forgotten
    watched_from: int = 0  # as ``tried_from``, for the watch
    heard: dict[int, int] = field(default_factory=dict)  # by the trial: session outcomes (``evidence.once``)
    watch_heard: dict[int, int] = field(default_factory=dict)  # and by the watch

    def to_json(self) -> Json:
        """Plain numbers."""
        return {
            "cursor": self.cursor, "challenger": self.challenger, "champion": self.champion,
            "trial": None if self.trial is None else self.trial.to_dict(), "closed": self.closed,
            "tried_from": self.tried_from, "budget": self.budget.to_dict(), "rival": self.rival,
            "watch": None if self.watch is None else self.watch.to_dict(),
            "metric": self.metric, "toll": self.toll.to_dict(), "erased": self.erased,
            "watched_from": self.watched_from, "heard": list(self.heard.items()),
            "watch_heard": list(self.watch_heard.items()),
        }  # fmt: skip

    @classmethod
    def from_json(cls, body: Json) -> "Docket":
        """The inverse of :meth:`to_json`. Raises KeyError, TypeError or Invalid on what another release wrote."""
        made: dict[str, Any] = dict(body)
        made["trial"] = None if body["trial"] is None else TrialState.from_dict(body["trial"])
        made["watch"] = None if body["watch"] is None else WatchState.from_dict(body["watch"])
        made["budget"] = Elond.from_dict(body["budget"])
        made["toll"] = Toll(**body["toll"])
        made["heard"], made["watch_heard"] = dict(body.get("heard", ())), dict(body.get("watch_heard", ()))
        return cls(**made)

    @classmethod
    def brought_forward(cls, body: Json, spec: Json) -> "Docket":
        """What another release left, as far as it is known here: trial and watch start anew, cursor and budget stay.

        The level of a trial in progress is spent. Raises KeyError where there is no cursor or budget.
        """
        metric, alpha = asked(spec)
        budget = replace(Elond.from_dict(body["budget"]), alpha=alpha)
        if body.get("challenger") is not None:
            budget = budget.decide(promoted=False)
        return cls(cursor=int(body["cursor"]), erased=int(body.get("erased", 0)), metric=metric, budget=budget)

    @property
    def since(self) -> int:
        """The sequence number since which evidence was gathered, for the trial or the watch, whichever is longer."""
        return self.tried_from if self.watch is None else min(self.tried_from, self.watched_from)

    def fits(self, pointers: Pointers, spec: Json) -> bool:
        """Whether these are the versions that the pointers name, judged as the policy asks."""
        return self.tries(pointers) and self.asks(spec) and self.rival == pointers.replaced

    def tries(self, pointers: Pointers) -> bool:
        """Whether this is the pair on trial that the pointers name."""
        return (self.challenger, self.champion) == (pointers.challenger, pointers.champion)

    def asks(self, spec: Json) -> bool:
        """Whether the metric and alpha are still those under which evidence was gathered."""
        return (self.metric, self.budget.alpha) == asked(spec)

    def without(self, gone: Set[int], *, through: int) -> "Docket":
        """Without the entries of people erased up to a sequence number."""
        watch = self.watch
        if watch is not None:
            watch = replace(watch, trial=forget(watch.trial, gone), voices=watch.voices.without(gone))
        trial = None if self.trial is None else forget(self.trial, gone)
        return replace(self, trial=trial, watch=watch, erased=through)


def restored(saved: Json | None, policy: Policy) -> Docket:
    """As it was saved, a new one where nothing was; brought forward where another release wrote it.

    Raises Damaged where no budget of false promotions can be read: without it promise 5 would not hold.
    """
    if saved is None:
        metric, alpha = asked(policy.spec)
        return Docket(metric=metric, budget=Elond(alpha=alpha))
    try:
        return Docket.from_json(saved)
    except UNREADABLE as error:
        log.warning("policy %s: trial and watch start anew, their state is of another release: %r", policy.name, error)
    try:
        return Docket.brought_forward(saved, policy.spec)
    except UNREADABLE as error:
        raise Damaged(
            f"the judge's state of {policy.name!r} has no budget of false promotions that can be read ({error!r}): "
            "restore control.db from a backup"
        ) from error


def asked(spec: Json) -> tuple[str, float]:
    """(metric, alpha) as a policy declares them."""
    return str(spec["metric"]), float(spec["alpha"])


def reopen(docket: Docket, pointers: Pointers, *, spec: Json, newest_seq: int) -> Docket:
    """A docket for the versions that the pointers name, judged as the policy asks: other evidence is void.

    The budget goes on under a new alpha. Each level is still fixed when its trial begins, and that is all that e-LOND
    needs (``elond``); a trial in progress was begun under another, so it ends.
    """
    rival, same = pointers.replaced, docket.asks(spec)
    metric, alpha = asked(spec)
    stays = docket.champion == pointers.champion
    kept = docket.watch if same and stays and docket.rival == rival else None
    if kept is None and rival is not None:
        kept = WatchState()
        docket = replace(docket, watched_from=newest_seq)
    docket = replace(docket, rival=rival, watch=kept, toll=docket.toll if stays else Toll())
    if same and docket.tries(pointers) and docket.trial is not None:
        return docket
    budget = docket.budget
    if docket.trial is not None and docket.trial.evidence != Evidence():
        seen = docket.trial.evidence
        budget = budget.abandon(log_e=seen.log_e_up, peak=seen.peak_up) if same else budget.decide(promoted=False)
    # What is known of positions and people is kept: it does not depend on who is on trial.
    state = TrialState() if docket.trial is None else renew(docket.trial)
    return replace(
        docket, challenger=pointers.challenger, champion=pointers.champion, trial=state,
        tried_from=newest_seq, closed=0, metric=metric, budget=replace(budget, alpha=alpha),
    )  # fmt: skip


def observe(docket: Docket, closed: Sequence[Joined], *, spec: Json, key: bytes, gone: Set[int] = NOBODY) -> Docket:
    """The docket after more closed decisions, in the order they were made.

    ``key``: the journal's secret; ``gone``: the numbers of people erased since :attr:`Docket.since`.
    """
    pairs = [j for j in closed if j.stored.record.role is Role.TRIAL and j.stored.record.version == docket.champion]
    state = docket.trial
    ours = [j for j in pairs if j.stored.record.challenger == docket.challenger]
    ours, heard = once(ours, docket.heard, key=key)
    if state is not None and docket.challenger is not None and ours:
        state = trial.observe(state, observations(ours, spec, key=key, gone=gone))
    watched, watch_heard = docket.watch, docket.watch_heard
    if watched is not None:
        rivals = [j for j in pairs if j.stored.record.challenger == docket.rival != docket.challenger]
        lone = {one.joined.stored.seq: one for one in served(closed, spec, champion=docket.champion)}
        paired = {j.stored.seq for j in rivals}
        both = [j for j in closed if j.stored.seq in paired or j.stored.seq in lone]
        both, watch_heard = once(both, watch_heard, key=key)
        rivals = [j for j in both if j.stored.seq in paired]
        if rivals:
            watched = watch.observe_pairs(watched, observations(rivals, spec, key=key, gone=gone))
        batch = [lone[j.stored.seq] for j in both if j.stored.seq in lone]
        watched = watch.observe_arms(watched, arms(batch, spec, key=key, gone=gone))
    counted = sum(j.stored.record.role is not Role.BEST and j.stored.seq > docket.tried_from for j in closed)
    return replace(
        docket,
        cursor=closed[-1].stored.seq,
        trial=state,
        closed=docket.closed + counted,
        watch=watched,
        toll=docket.toll.observe(closed, docket.champion),
        heard=heard,
        watch_heard=watch_heard,
    )


def shares_of(docket: Docket, traffic: Traffic) -> Shares:
    """How traffic is shared from here on."""
    watched = docket.watch
    return share_out(
        traffic,
        docket.toll,
        fresh=watched is not None and watched.seen < FRESH,
        harm=watched is not None and watched.rise > RISE,
        tried=docket.challenger is not None,
    )


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
