"""The judge: a process of its own that reads closed decisions and moves pointers.

Promise 5: of all promotions of a policy, the expected share that are not improvements is at most alpha, however often
the judge looks and however many challengers come (`confidence`, `elond`). Promise 6: a version rolled back is never
promoted by itself again.

One judge per policy holds a lease with a fencing token. Evidence, its cursor, the verdict and the pointer move commit
in one transaction: a judge killed at any moment is taken up where its last transaction ended. Decisions are judged in
the order they were made, each once closed, so that neither a fast nor a slow outcome chooses what is judged.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import apsw

from dayjob.endings import DayjobError, FeedbackState, Fenced, PolicyKind, VerdictKind, VersionStatus
from dayjob.gate import watch
from dayjob.gate.desk import Desk
from dayjob.gate.docket import Docket, observe, reopen, rule, trial_point
from dayjob.gate.elond import Elond
from dayjob.gate.report import Analysis, analyse, curve_points, is_due, read_feedback, version_points
from dayjob.gate.screening import NEWEST, LoadRanker, screen
from dayjob.gate.trial import renew
from dayjob.gate.verdict import VerdictResult
from dayjob.journal.control import Control, add_point, add_verdict, put_state, put_status
from dayjob.journal.join import window_of
from dayjob.journal.readers import Reader, cursor_of
from dayjob.records import Joined, Json, Lease, Pointers, Policy, Verdict, Version
from dayjob.signals.detector import Feedback

log = logging.getLogger("dayjob.judge")
LEASE_S = 10.0
PAGES_A_STEP = 20  # judged between two looks at the other policies
REPORT_S = 1.0
LAG_MOST = 20_000  # the lag is counted no further
POINT_EVERY = 50  # closed decisions between two points of the curves
BARRED = (VersionStatus.ROLLED_BACK, VersionStatus.TAINTED, VersionStatus.DAMAGED)  # never promoted by themselves


def wall_ms() -> int:
    """Milliseconds since the epoch."""
    return int(time.time() * 1000)


@dataclass(slots=True, kw_only=True)
class Case:
    """One policy before the judge: its docket, the newest decisions, and what the clicks were last found to teach."""

    docket: Docket
    token: int
    said: Feedback
    desk: Desk = field(default_factory=Desk)
    reported_s: float = 0.0
    analysis: Analysis | None = None
    drawn_at: int = 0  # closed decisions at the last point of the curves
    screened: tuple[str, Json] | None = None  # the challenger on trial, and what the log says of it

    @property
    def state(self) -> FeedbackState:
        """What the clicks can teach."""
        return self.said.state


class Judge:
    """Judges every ranker of a data directory. ``holdback``: the least chance of the baseline role, 0 for none."""

    def __init__(
        self, control: Control, reader: Reader, *, load_ranker: LoadRanker, holdback: float, holder: str,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:  # fmt: skip
        self.control = control
        self.reader = reader
        self.load_ranker = load_ranker
        self.holdback = holdback
        self.holder = holder
        self.now_ms = now_ms
        self.cases: dict[tuple[str, str], Case] = {}

    def step(self) -> int:
        """Look at every policy once; how many decisions were judged."""
        judged = 0
        for policy in self.control.policies():
            if policy.kind is not PolicyKind.RANKER:
                continue
            try:
                judged += self._sit(policy)
            except DayjobError as error:
                log.warning("policy %s is not judged now: %s", policy.name, error)
                self.cases.pop((policy.tenant, policy.name), None)
        return judged

    def _sit(self, policy: Policy) -> int:
        key = (policy.tenant, policy.name)
        lease = self.control.take_lease(f"judge/{policy.tenant}/{policy.name}", self.holder, ttl_s=LEASE_S)
        if lease is None:
            self.cases.pop(key, None)
            return 0
        case = self.cases.get(key)
        if case is None or case.token != lease.token:
            case = self._take_up(policy, lease)
            self.cases[key] = case
        pointers = self._call_next(policy, case, lease)
        judged = self._read(policy, case, lease, pointers)
        self._report(policy, case, lease)
        return judged

    def _take_up(self, policy: Policy, lease: Lease) -> Case:
        """Take a policy up where the last judge left it, with the newest judged decisions on the desk."""
        key = (policy.tenant, policy.name)
        saved = self.control.state(*key, "judge")
        docket = Docket.from_json(saved) if saved else Docket(budget=Elond(alpha=float(policy.spec["alpha"])))
        desk = Desk()
        recent = [s for s in self.reader.recent(*key, desk.lines.maxlen or 0) if s.seq <= docket.cursor]
        if recent:
            pages = self.reader.joined(
                *key, window=window_of(policy.spec), now_ms=self.now_ms(), cursor=cursor_of(recent[0].seq - 1),
                until=docket.cursor,
            )  # fmt: skip
            for page in pages:
                desk.add([j for j in page if j.closed_seq is not None], policy.spec, reader=self.reader)
        return Case(docket=docket, token=lease.token, desk=desk, said=read_feedback(desk), drawn_at=desk.closed)

    def _call_next(self, policy: Policy, case: Case, lease: Lease) -> Pointers:
        """Put the newest waiting challenger on trial when none is; void the evidence of a pair that is no more.

        The pointers that it returns are frozen by the file ``freeze`` too.
        """
        key = (policy.tenant, policy.name)
        pointers = self.control.pointers(*key)
        pointers = replace(pointers, frozen=pointers.frozen or self.control.freeze_file())
        change, status = _turn(pointers, self.control.versions(*key))
        if change:
            with self.control.fenced(lease) as db:
                for name, stands in status.items():
                    put_status(db, *key, name=name, status=stands)
                pointers = _move(db, pointers, change)
        if not case.docket.fits(pointers):
            case.docket = reopen(case.docket, pointers, least_chance=self.holdback, newest_seq=self.reader.last_seq())
            with self.control.fenced(lease) as db:
                put_state(db, *key, name="judge", state=case.docket.to_json())
        return pointers

    def _read(self, policy: Policy, case: Case, lease: Lease, pointers: Pointers) -> int:
        """Judge what closed since, page by page, until a decision that is still open or a verdict."""
        judged = 0
        pages = self.reader.joined(
            policy.tenant, policy.name, window=window_of(policy.spec), now_ms=self.now_ms(),
            cursor=cursor_of(case.docket.cursor),
        )  # fmt: skip
        for number, page in enumerate(pages):
            closed = _closed_prefix(page)
            judged += len(closed)
            done = bool(closed) and self._hear(policy, case, lease, pointers=pointers, closed=closed)
            if len(closed) < len(page):
                break
            if done or number >= PAGES_A_STEP:
                break
        return judged

    def _hear(self, policy: Policy, case: Case, lease: Lease, *, pointers: Pointers, closed: Sequence[Joined]) -> bool:
        """Take in closed decisions, commit, and say whether a verdict moved the pointers.

        While a policy is frozen evidence is kept and no challenger is decided; a freeze never stops a rollback.
        """
        case.desk.add(closed, policy.spec, reader=self.reader)
        docket = observe(case.docket, closed, spec=policy.spec)
        result = rule(docket, policy.spec, state=case.state)
        alarm = None if docket.watch is None else watch.finding(docket.watch, alpha=float(policy.spec["alpha"]))
        heard = docket
        with self.control.fenced(lease) as db:
            done = True
            if alarm is not None and alarm.rollback:
                docket = self._roll_back(db, docket, pointers, reason=alarm.reason)
            elif result is not None and result.final and not pointers.frozen:
                docket = self._close(db, docket, pointers, result)
            else:
                done = False
            fresh = case.desk.closed - case.drawn_at
            if done or fresh >= POINT_EVERY:
                case.drawn_at = case.desk.closed
                if result is not None:
                    add_point(db, policy.tenant, policy.name, name="trial", point=trial_point(heard, result))
                point: Json = {"seq": docket.cursor, "versions": version_points(case.desk, newest=fresh)}
                add_point(db, policy.tenant, policy.name, name="versions", point=point)
            put_state(db, policy.tenant, policy.name, name="judge", state=docket.to_json())
        case.docket = docket
        return done

    def _close(self, db: apsw.Connection, docket: Docket, pointers: Pointers, result: VerdictResult) -> Docket:
        """Write a final verdict and move the pointers, in the open transaction."""
        assert docket.trial is not None, "a verdict ends a trial"
        challenger = str(docket.challenger)
        promoted = result.kind is VerdictKind.PROMOTE
        evidence = trial_point(docket, result)
        self._say(db, pointers, challenger=challenger, champion=docket.champion, kind=result.kind,
                  reason=result.reason, evidence=evidence)  # fmt: skip
        row = db.execute(
            "SELECT status FROM versions WHERE tenant=? AND policy=? AND name=?",
            (pointers.tenant, pointers.policy, challenger),
        ).fetchone()
        if row is None or row[0] != VersionStatus.TRIAL.value:
            raise Fenced(f"{challenger} is on trial no more: judged again")
        status = {VerdictKind.PROMOTE: VersionStatus.CHAMPION, VerdictKind.REJECT: VersionStatus.REJECTED}
        _stands(db, pointers, challenger, status.get(result.kind, VersionStatus.HELD))
        change: dict[str, str | None] = {"challenger": None}
        if promoted:
            _stands(db, pointers, docket.champion, VersionStatus.RETIRED)
            tainted = _status(db, pointers, docket.champion) is VersionStatus.TAINTED
            change |= {"champion": challenger, "previous": None if tainted else docket.champion}
        moved = _move(db, pointers, change)
        decided = replace(docket, budget=docket.budget.decide(promoted=promoted), trial=renew(docket.trial))
        return reopen(decided, moved, least_chance=self.holdback, newest_seq=docket.cursor)

    def _roll_back(self, db: apsw.Connection, docket: Docket, pointers: Pointers, *, reason: str) -> Docket:
        """Withdraw a champion that was proven worse, in the open transaction."""
        target = docket.rival or pointers.baseline
        if _status(db, pointers, target) is VersionStatus.TAINTED:
            target = pointers.baseline
        self._say(db, pointers, challenger=docket.champion, champion=target, kind=VerdictKind.ROLLBACK,
                  reason=reason, evidence={})  # fmt: skip
        _stands(db, pointers, docket.champion, VersionStatus.ROLLED_BACK)
        if pointers.challenger is not None:
            _stands(db, pointers, pointers.challenger, VersionStatus.WAITING)
        _stands(db, pointers, target, VersionStatus.CHAMPION)
        previous = pointers.baseline if target != pointers.baseline else None
        moved = _move(db, pointers, {"champion": target, "previous": previous, "challenger": None})
        return reopen(docket, moved, least_chance=self.holdback, newest_seq=docket.cursor)

    def _say(
        self, db: apsw.Connection, pointers: Pointers, *, challenger: str, champion: str, kind: VerdictKind,
        reason: str, evidence: Json,
    ) -> None:  # fmt: skip
        verdict = Verdict(
            tenant=pointers.tenant, policy=pointers.policy, challenger=challenger, champion=champion, kind=kind,
            reason=reason, evidence=evidence, at_ms=self.now_ms(), by="gate",
        )  # fmt: skip
        add_verdict(db, verdict)

    def _screen(self, policy: Policy, case: Case) -> Json:
        """What the log, as it was when the trial began, says of the challenger: shown, never deciding."""
        name = case.docket.challenger
        if name is None:
            return {}
        if case.screened is None or case.screened[0] != name:
            key = (policy.tenant, policy.name)
            version = self.control.version(*key, name)
            try:
                ranker = self.load_ranker(*key, name, version.digest)
            except DayjobError as error:  # it is shown to nobody; the champion is judged and reported on all the same
                log.warning("challenger %s of %s is not screened: %s", name, policy.name, error)
                case.screened = (name, {})
                return {}
            recent = [s for s in self.reader.recent(*key, NEWEST) if s.seq <= case.docket.cursor]
            pages = self.reader.joined(
                *key, window=window_of(policy.spec), now_ms=self.now_ms(),
                cursor=cursor_of(recent[0].seq - 1 if recent else case.docket.cursor), until=case.docket.cursor,
            )  # fmt: skip
            closed = [joined for page in pages for joined in page if joined.closed_seq is not None]
            bias = None if case.analysis is None else case.analysis.bias
            case.screened = (name, screen(ranker, closed, spec=policy.spec, reader=self.reader, bias=bias))
        return {name: case.screened[1]}

    def _report(self, policy: Policy, case: Case, lease: Lease) -> None:
        """Write the report, at most once a second."""
        now = time.monotonic()
        if now - case.reported_s < REPORT_S:
            return
        case.reported_s = now
        docket = case.docket
        result = rule(docket, policy.spec, state=case.state)
        gate: Json = {
            "judged_through": docket.cursor,
            "lag": self.reader.count_closed(
                policy.tenant, policy.name, after=docket.cursor, window=window_of(policy.spec), most=LAG_MOST
            ),
            "trial": None if result is None else trial_point(docket, result) | {"reason": result.reason},
            "estimates": self._screen(policy, case),
            "watch": None
            if docket.watch is None
            else {
                "rival": docket.rival,
                "pairs": docket.watch.pairs.count,
                "decisions": docket.watch.arms.count,
            },
        }
        fresh = case.analysis is None or is_due(case.analysis, case.desk, now_s=now)
        if fresh or case.analysis is None:
            case.said = read_feedback(case.desk)
            case.analysis = analyse(case.desk, case.said, spec=policy.spec, now_s=now)
        body = {**case.analysis.body, "gate": gate}
        with self.control.fenced(lease) as db:
            put_state(db, policy.tenant, policy.name, name="report", state=body)
            if fresh:
                for name, point in curve_points(body, docket.cursor).items():
                    add_point(db, policy.tenant, policy.name, name=name, point=point)


def _turn(pointers: Pointers, versions: Sequence[Version]) -> tuple[dict[str, str | None], dict[str, VersionStatus]]:
    """Whose turn it is: the pointers to move, and where versions stand then. Nothing to do: nothing in both.

    A version left on trial without a pointer to it (whoever moved the pointer was killed) waits like the others. One
    whose content was rolled back before does not get another turn under a new name.
    """
    status = {version.name: version.status for version in versions}
    change: dict[str, str | None] = {}
    if status.get(pointers.challenger or "") in BARRED:
        change["challenger"] = None
    if status.get(pointers.previous or "") is VersionStatus.TAINTED:
        change["previous"] = None
    if change.get("challenger", pointers.challenger) is not None or pointers.frozen:
        return change, {}
    barred = {version.digest for version in versions if version.status in BARRED}
    turn = [v for v in versions if v.status in (VersionStatus.WAITING, VersionStatus.TRIAL) and v.number]
    fresh = [version.name for version in turn if version.digest not in barred]
    after = {version.name: VersionStatus.SUPERSEDED for version in turn}
    if not fresh:
        return change, after if change else {}
    return change | {"challenger": fresh[-1]}, after | {fresh[-1]: VersionStatus.TRIAL}


def _closed_prefix(page: Sequence[Joined]) -> list[Joined]:
    out: list[Joined] = []
    for joined in page:
        if joined.closed_seq is None:
            break
        out.append(joined)
    return out


def _stands(db: apsw.Connection, pointers: Pointers, name: str, status: VersionStatus) -> None:
    put_status(db, pointers.tenant, pointers.policy, name=name, status=status)


def _status(db: apsw.Connection, pointers: Pointers, name: str) -> VersionStatus | None:
    """Where a version stands, as the open transaction sees it."""
    row = db.execute(
        "SELECT status FROM versions WHERE tenant=? AND policy=? AND name=?", (pointers.tenant, pointers.policy, name)
    ).fetchone()
    return None if row is None else VersionStatus(row[0])


def _move(db: apsw.Connection, pointers: Pointers, change: dict[str, str | None]) -> Pointers:
    """Move pointers inside the open transaction, only if nobody moved them since they were read."""
    sets = ", ".join(f"{name}=?" for name in change)
    db.execute(
        f"UPDATE pointers SET {sets}, generation=generation+1 WHERE tenant=? AND policy=? AND generation=?",
        (*change.values(), pointers.tenant, pointers.policy, pointers.generation),
    )
    if not db.changes():
        raise Fenced(f"the pointers of {pointers.policy!r} were moved by somebody else: judged again")
    return Pointers(
        tenant=pointers.tenant,
        policy=pointers.policy,
        champion=change.get("champion") or pointers.champion,
        previous=change.get("previous", pointers.previous),
        challenger=change.get("challenger", pointers.challenger),
        baseline=pointers.baseline,
        frozen=pointers.frozen,
        generation=pointers.generation + 1,
    )
