"""What the judge remembers of a language policy, and how closed sessions change it. Pure.

The docket is that of a ranker (one pair on trial, one budget of false promotions, one watch); observations come from
sessions (``gate.sessions``) and from the challenger's exam (``gate.exam``).

One e-process for one pair: its wealth is what the exam's questions made of 1, laid anew on all bets, and goes on with
the sessions. A product of an e-value and of an e-process that begins after it is an e-process. Where a challenger
leaves before its verdict, its level goes on with the wealth that is left (``elond``), the exam's included; so the
questions of one version are evidence once (``examined``), however often it is its turn.
"""

import math
from collections.abc import Set
from dataclasses import dataclass, replace

import numpy as np

from dayjob.endings import Damaged, FeedbackState, VerdictKind
from dayjob.gate import trial, watch
from dayjob.gate.confidence import BETS_G, Evidence
from dayjob.gate.control import Ints
from dayjob.gate.docket import Docket, reopen, restored, trial_point
from dayjob.gate.elond import Elond
from dayjob.gate.evidence import NOBODY, user_number
from dayjob.gate.sessions import RATED_KEPT, SILENT, Session, answered_by, compared, state_of
from dayjob.gate.verdict import Terms, VerdictResult, Words, decide
from dayjob.gate.watch import Arms
from dayjob.records import Json, Pointers, Policy

# What a language policy is judged by where its declaration says nothing else.
TERMS: Json = {"metric": "sessions", "alpha": 0.05, "minimum_effect": 0.01, "reward_range": [0.0, 1.0]}
SESSIONS_LIMIT = 5_000  # closed sessions without a proof that end a trial
PATIENCE_MS = 7 * 86_400_000  # after which a trial makes room for a newer version
EXAMINED_KEPT = 1_000
_TINY = 1e-12
WORDS = Words(
    one="session",
    many="sessions",
    nothing="No session is judged yet: none that the coin gave to champion or challenger has closed.",
    refusal="Feedback does not vary, so no promotion rests on it: see the state of the feedback.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dossier:
    """One language policy before the judge. ``ratings``: of the newest sessions with feedback; ``examined``: versions
    whose questions were read; ``began_ms``: when the running trial began."""

    docket: Docket
    ratings: tuple[float, ...] = ()
    examined: tuple[str, ...] = ()
    began_ms: int = 0

    def to_json(self) -> Json:
        """Plain numbers and names."""
        return {
            "docket": self.docket.to_json(), "ratings": list(self.ratings), "examined": list(self.examined),
            "began_ms": self.began_ms,
        }  # fmt: skip

    @property
    def feedback(self) -> FeedbackState:
        """What the sessions' feedback can teach."""
        return state_of(self.ratings)[0]


def spec_of(policy: Policy) -> Json:
    """What a language policy is judged by."""
    return TERMS | policy.spec


def taken_up(saved: Json | None, policy: Policy) -> Dossier:
    """As it was saved, a new one where nothing was. Raises Damaged where no budget can be read."""
    judged = replace(policy, spec=spec_of(policy))
    if saved is None:
        return Dossier(docket=restored(None, judged))
    if not isinstance(saved.get("docket"), dict):
        raise Damaged(
            f"the judge's state of {policy.name!r} has no budget of false promotions that can be read: restore "
            "control.db from a backup"
        )
    return Dossier(
        docket=restored(saved["docket"], judged),
        ratings=tuple(float(one) for one in saved.get("ratings", ())),
        examined=tuple(str(one) for one in saved.get("examined", ())),
        began_ms=int(saved.get("began_ms", 0)),
    )


def begin(
    dossier: Dossier, pointers: Pointers, *, found: Evidence, spec: Json, newest_seq: int, now_ms: int
) -> Dossier:
    """The trial of the challenger that the pointers name begins, with what its exam found."""
    docket = reopen(dossier.docket, pointers, spec=spec, newest_seq=newest_seq)
    assert docket.trial is not None, "a docket that was opened anew has a trial"
    docket = replace(docket, trial=replace(docket.trial, evidence=seeded(found)))
    dossier = read(dossier, str(pointers.challenger)) if found.count else dossier
    return replace(dossier, docket=docket, began_ms=now_ms)


def read(dossier: Dossier, version: str) -> Dossier:
    """A version's questions were read."""
    examined = (*(name for name in dossier.examined if name != version), version)[-EXAMINED_KEPT:]
    return replace(dossier, examined=examined)


def seeded(found: Evidence) -> Evidence:
    """No observations yet, and the wealth that an exam ended with on every bet: mixed anew, as it is spread anew."""
    up, down = (found.log_e_up, found.log_e_down) if found.count else (0.0, 0.0)
    return Evidence(
        log_up_G=(up,) * BETS_G.size, log_down_G=(down,) * BETS_G.size, peak_up=max(0.0, up), peak_down=max(0.0, down)
    )


def spend(budget: Elond, found: Evidence, *, kind: VerdictKind) -> Elond:
    """The budget after an exam alone decided: one that was refused for its harm hands on the wealth that it left, and
    one that only unlearns (no evidence was used) leaves it alone."""
    if kind is VerdictKind.PROMOTE:
        return budget.decide(promoted=True) if found.count else budget
    return budget.abandon(log_e=found.log_e_up, peak=found.log_e_up) if found.count else budget


def observe(dossier: Dossier, session: Session, *, said: float | None, key: bytes, gone: Set[int] = NOBODY) -> Dossier:
    """The dossier after one more closed session. ``said``: its rating, None where nobody said anything."""
    docket, first, start = dossier.docket, session.first, session.turns[0].seq
    found = SILENT if said is None else said
    user_N = np.array([user_number(first, key, gone=gone)], np.int64)
    champion, challenger, replaced = compared(first) or ("", None, None)
    state, watched = docket.trial, docket.watch
    tried = (champion, challenger) == (docket.champion, docket.challenger) and first.challenger == challenger
    if state is not None and challenger is not None and tried and session.tries and start > docket.tried_from:
        state = trial.observe(state, trial.from_rewards([found], [first.coin], user_N=user_N))
    same = (champion, replaced) == (docket.champion, docket.rival)
    if watched is not None and same and session.watches and start > docket.watched_from:
        watched = _watch(watched, session, found, user_N=user_N)
    docket = replace(
        docket, cursor=start, trial=state, watch=watched, closed=docket.closed + (start > docket.tried_from)
    )
    ratings = dossier.ratings if said is None else (*dossier.ratings, said)[-RATED_KEPT:]
    return replace(dossier, docket=docket, ratings=ratings)


def _watch(state: watch.WatchState, session: Session, found: float, *, user_N: Ints) -> watch.WatchState:
    """The champion against what it replaced: both chances are journaled, and one that is too rare is left out."""
    chances = session.first.extra["chances"]
    held, alone, side = float(chances["replaced"]), float(chances["champion"]), answered_by(session)
    if side == "challenger" or not 0.0 < held <= alone + _TINY:
        return state
    one = Arms(
        reward_N=np.array([found]), baseline_N=np.array([side == "replaced"]), held_N=np.array([held]),
        alone_N=np.array([alone]), user_N=user_N,
    )  # fmt: skip
    return watch.observe_arms(state, one)


def passed(dossier: Dossier, seq: int) -> Dossier:
    """The dossier after a decision that begins no session."""
    return replace(dossier, docket=replace(dossier.docket, cursor=seq))


def rule(dossier: Dossier, spec: Json) -> VerdictResult | None:
    """The verdict as it stands; None without a challenger."""
    docket, alpha = dossier.docket, float(spec["alpha"])
    if docket.trial is None or docket.challenger is None:
        return None
    terms = Terms(
        alpha=alpha, level=docket.budget.level, minimum_effect=float(spec["minimum_effect"]),
        closed_limit=SESSIONS_LIMIT, words=WORDS,
    )  # fmt: skip
    return decide(trial.grounds(docket.trial, closed=docket.closed, alpha=alpha), terms, feedback=dossier.feedback)


def harm(dossier: Dossier, *, alpha: float) -> str:
    """Why the champion must go back to what it replaced; "" while nothing is proven. A champion that is never worse is
    withdrawn with probability at most alpha in its life (``watch``)."""
    state = dossier.docket.watch
    if state is None or state.arms.peak < math.log(1.0 / alpha):
        return ""
    return (
        f"Proven worse than the version it replaced, by {state.arms.count:,} sessions (evidence "
        f"{math.exp(min(state.arms.peak, 700.0)):.3g}, {1.0 / alpha:.3g} needed)."
    )


def told(dossier: Dossier, spec: Json, *, lag: int, waiting: Json | None, estimates: Json) -> Json:
    """The gate's part of the report, and the feedback's."""
    docket, result = dossier.docket, rule(dossier, spec)
    state, reason, needed = state_of(dossier.ratings)
    seen = docket.watch
    return {
        "feedback": {"state": state.value, "reason": reason, "share_at": [], "needed": needed},
        "gate": {
            "judged_through": docket.cursor,
            "lag": lag,
            "waiting": waiting,
            "trial": None if result is None else trial_point(docket, result) | {"reason": result.reason},
            "estimates": estimates,
            "watch": None if seen is None else {"rival": docket.rival, "sessions": seen.arms.count},
            "shares": None,
        },
    }
