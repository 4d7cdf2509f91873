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
from dataclasses import replace
from functools import partial

import apsw

from dayjob.endings import (
    Damaged,
    DayjobError,
    NotFound,
    PolicyKind,
    VerdictKind,
    VersionStatus,
)
from dayjob.gate import watch
from dayjob.gate.case import Case
from dayjob.gate.desk import Desk, newer_closed, waiting_for
from dayjob.gate.docket import Docket, observe, reopen, restored, rule, shares_of, trial_point
from dayjob.gate.report import analyse, curve_points, is_due, read_feedback, version_points
from dayjob.gate.rulings import say, settle, withdraw
from dayjob.gate.screening import LoadRanker, newest_closed, screen, screen_again
from dayjob.gate.seat import Bench, Seat
from dayjob.gate.shares import Traffic, shares_state
from dayjob.gate.trial import renew
from dayjob.gate.turns import closed_prefix, move, stands, status_of, turn
from dayjob.gate.verdict import VerdictResult
from dayjob.journal.control import Control, add_point, put_state
from dayjob.journal.join import window_of
from dayjob.journal.readers import Reader, cursor_of
from dayjob.records import Joined, Json, Lease, Pointers, Policy

log = logging.getLogger("dayjob.judge")
PAGES_A_STEP = 20  # judged between two looks at the other policies
REPORT_S = 1.0
LAG_MOST = 20_000  # the lag is counted no further
POINT_EVERY = 50  # closed decisions between two points of the curves
CHECK_S = 60.0  # between two looks at the files of the challenger on trial


def wall_ms() -> int:
    """Milliseconds since the epoch."""
    return int(time.time() * 1000)


class Judge(Bench[Case]):
    """Judges every ranker of a data directory. ``reserve``: bytes of the ballast, which only a rollback may take."""

    kind = PolicyKind.RANKER

    def __init__(
        self, control: Control, reader: Reader, *, load_ranker: LoadRanker, holder: str,
        traffic: Traffic | None = None, reserve: int = 0, now_ms: Callable[[], int] = wall_ms,
    ) -> None:  # fmt: skip
        super().__init__(control, reader, holder=holder, reserve=reserve)
        self.load_ranker = load_ranker
        self.traffic = traffic or Traffic()
        self.now_ms = now_ms

    def _look(self, policy: Policy, case: Case, seat: Seat) -> int:
        pointers = self._call_next(policy, case, seat)
        judged = self._read(policy, case, seat, pointers=pointers)
        self._keep(policy, case, seat)
        self._report(policy, case, seat)
        return judged

    def _keep(self, policy: Policy, case: Case, seat: Seat) -> None:
        """Save what is not on disk yet, and tell the server when traffic is to be shared another way."""
        shares = shares_state(shares_of(case.docket, self.traffic), case.docket.champion)
        if case.saved and shares == case.told:
            return

        def work(db: apsw.Connection) -> None:
            put_state(db, policy.tenant, policy.name, name="judge", state=case.docket.to_json())
            put_state(db, policy.tenant, policy.name, name="shares", state=shares)

        if seat.write(work):
            case.saved, case.told = True, shares

    def _take_up(self, policy: Policy, lease: Lease) -> Case:
        """Take a policy up where the last judge left it, with the newest judged decisions on the desk."""
        key = (policy.tenant, policy.name)
        docket = restored(self.control.state(*key, "judge"), policy)
        desk = Desk(key=self.key)
        recent = [s for s in self.reader.recent(*key, desk.lines.maxlen or 0) if s.seq <= docket.cursor]
        if recent:
            pages = self.reader.joined(
                *key, window=window_of(policy.spec), now_ms=self.now_ms(), cursor=cursor_of(recent[0].seq - 1),
                until=docket.cursor,
            )  # fmt: skip
            for page in pages:
                desk.add([j for j in page if j.closed_seq is not None], policy.spec, reader=self.reader)
        return Case(
            docket=docket, token=lease.token, desk=desk, said=read_feedback(desk), drawn_at=desk.closed,
            told=self.control.state(*key, "shares"),
        )  # fmt: skip

    def _call_next(self, policy: Policy, case: Case, seat: Seat) -> Pointers:
        """Put the newest waiting challenger on trial when none is; void the evidence on a question that is no more.

        The pointers that it returns are frozen by the file ``freeze`` too.
        """
        key = (policy.tenant, policy.name)
        pointers = self.control.pointers(*key)
        pointers = replace(pointers, frozen=pointers.frozen or self.control.freeze_file())
        change, statuses, faults = turn(pointers, self.control.versions(*key), fault=partial(self._fault, case, key))
        moved = [pointers]

        def work(db: apsw.Connection) -> None:
            for name, status in statuses.items():
                stands(db, pointers, name, status=status)
            for name, fault in faults.items():
                reason = f"Not tried, its files are damaged: {fault}"
                say(db, pointers, challenger=name, champion=pointers.champion, kind=VerdictKind.HOLD, reason=reason,
                    evidence={}, at_ms=self.now_ms())  # fmt: skip
            if change:
                moved[:] = [move(db, pointers, change)]

        if (change or statuses) and seat.write(work):
            pointers = moved[0]
        if not case.docket.fits(pointers, policy.spec):
            newest = self.reader.last_seq()
            case.docket, case.saved = reopen(case.docket, pointers, spec=policy.spec, newest_seq=newest), False
            self._keep(policy, case, seat)
        return pointers

    def _fault(self, case: Case, key: tuple[str, str], name: str) -> str | None:
        """What is wrong with a version's files, None where nothing is. One found sound is asked again in a minute."""
        now = time.monotonic()
        if case.checked[0] == name and now - case.checked[1] < CHECK_S:
            return None
        try:
            version = self.control.version(*key, name)
            if version.number:
                self.load_ranker(*key, name, version.digest)
        except (Damaged, NotFound) as error:
            return str(error)
        case.checked = (name, now)
        return None

    def _read(self, policy: Policy, case: Case, seat: Seat, *, pointers: Pointers) -> int:
        """Judge what closed since, page by page, until a decision that is still open or a verdict."""
        judged = 0
        pages = self.reader.joined(
            policy.tenant, policy.name, window=window_of(policy.spec), now_ms=self.now_ms(),
            cursor=cursor_of(case.docket.cursor),
        )  # fmt: skip
        for number, page in enumerate(pages):
            closed = closed_prefix(page)
            judged += len(closed)
            done = bool(closed) and self._hear(policy, case, seat, pointers=pointers, closed=closed)
            if len(closed) < len(page):
                break
            if done or number >= PAGES_A_STEP:
                break
        return judged

    def _hear(self, policy: Policy, case: Case, seat: Seat, *, pointers: Pointers, closed: Sequence[Joined]) -> bool:
        """Take in closed decisions, commit, and say whether a verdict moved the pointers.

        While a policy is frozen evidence is kept and no challenger is decided; a freeze never stops a rollback, and
        nor does a full disk.
        """
        case.desk.add(closed, policy.spec, reader=self.reader)
        heard = observe(case.docket, closed, spec=policy.spec, key=self.key, gone=case.gone)
        result = rule(heard, policy.spec, state=case.state)
        alarm = None if heard.watch is None else watch.finding(heard.watch, alpha=float(policy.spec["alpha"]))
        back = alarm is not None and alarm.rollback
        target = self._back_to(case, heard, pointers) if back else pointers.baseline
        done = back or (result is not None and result.final and not pointers.frozen)
        fresh = case.desk.closed - case.drawn_at
        after = [heard]

        def work(db: apsw.Connection) -> None:
            if back and alarm is not None:
                moved = withdraw(db, pointers, target=target, reason=alarm.reason, at_ms=self.now_ms())
                after[:] = [reopen(heard, moved, spec=policy.spec, newest_seq=heard.cursor)]
            elif done and result is not None:
                decided, moved = self._close(db, heard, pointers, result)
                after[:] = [reopen(decided, moved, spec=policy.spec, newest_seq=heard.cursor)]
            if done or fresh >= POINT_EVERY:
                if result is not None:
                    add_point(db, policy.tenant, policy.name, name="trial", point=trial_point(heard, result))
                point: Json = {"seq": heard.cursor, "versions": version_points(case.desk, newest=fresh)}
                add_point(db, policy.tenant, policy.name, name="versions", point=point)
            put_state(db, policy.tenant, policy.name, name="judge", state=after[0].to_json())

        if back:
            seat.must_write(work)
        elif not seat.write(work):
            case.docket, case.saved = heard, False
            return False
        case.docket, case.saved = after[0], True
        if done or fresh >= POINT_EVERY:
            case.drawn_at = case.desk.closed
        return done

    def _close(
        self, db: apsw.Connection, docket: Docket, pointers: Pointers, result: VerdictResult
    ) -> tuple[Docket, Pointers]:
        """Write a final verdict and move the pointers, in the open transaction.

        Somebody may have decided otherwise meanwhile: a challenger that is on trial no more only leaves its place.
        """
        assert docket.trial is not None, "a verdict ends a trial"
        challenger = str(docket.challenger)
        if status_of(db, pointers, challenger) is not VersionStatus.TRIAL:
            return docket, move(db, pointers, {"challenger": None})
        moved = settle(db, pointers, challenger=challenger, kind=result.kind, reason=result.reason,
                       evidence=trial_point(docket, result), at_ms=self.now_ms())  # fmt: skip
        budget = docket.budget.decide(promoted=result.kind is VerdictKind.PROMOTE)
        return replace(docket, budget=budget, trial=renew(docket.trial)), moved

    def _back_to(self, case: Case, docket: Docket, pointers: Pointers) -> str:
        """Where a rollback goes: to what the champion replaced, unless its files are damaged."""
        target = docket.rival or pointers.baseline
        return pointers.baseline if self._fault(case, (pointers.tenant, pointers.policy), target) else target

    def _screen(self, policy: Policy, case: Case) -> Json:
        """What the log says of the challenger, from when the trial began: shown, never deciding."""
        name = case.docket.challenger
        if name is None:
            return {}
        if screen_again(case.screened, name, closed=case.desk.closed):
            key = (policy.tenant, policy.name)
            version = self.control.version(*key, name)
            try:
                ranker = self.load_ranker(*key, name, version.digest)
            except DayjobError as error:  # it is shown to nobody; the champion is judged and reported on all the same
                log.warning("challenger %s of %s is not screened: %s", name, policy.name, error)
                case.screened = (name, case.desk.closed, {"reason": f"Its files could not be read: {error}"})
                return {name: case.screened[2]}
            closed = newest_closed(self.reader, policy, until=case.docket.cursor, now_ms=self.now_ms())
            bias = None if case.analysis is None else case.analysis.bias
            said = screen(ranker, closed, spec=policy.spec, reader=self.reader, bias=bias)
            case.screened = (name, case.desk.closed, said)
        assert case.screened is not None, "it was screened above"
        return {name: case.screened[2]}

    def _report(self, policy: Policy, case: Case, seat: Seat) -> None:
        """Write the report, at most once a second."""
        now = time.monotonic()
        if now - case.reported_s < REPORT_S:
            return
        case.reported_s = now
        docket = case.docket
        result = rule(docket, policy.spec, state=case.state)
        lag = self.reader.count_closed(
            policy.tenant, policy.name, after=docket.cursor, window=window_of(policy.spec), most=LAG_MOST
        )
        now_ms = self.now_ms()
        gate: Json = {
            "judged_through": docket.cursor,
            "lag": lag,
            "waiting": waiting_for(self.reader, policy, after=docket.cursor, now_ms=now_ms) if lag else None,
            "trial": None if result is None else trial_point(docket, result) | {"reason": result.reason},
            "estimates": self._screen(policy, case),
            "watch": None
            if docket.watch is None
            else {
                "rival": docket.rival,
                "pairs": docket.watch.pairs.count,
                "decisions": docket.watch.arms.count,
            },
            "shares": case.told,
        }
        fresh = case.analysis is None or is_due(case.analysis, case.desk, lag=lag, now_s=now)
        if fresh or case.analysis is None:
            case.said = read_feedback(case.desk)
            seen, said = case.desk, case.said
            if lag:  # what is told of clicks need not wait for its turn; what is judged does
                seen = case.desk.ahead(newer_closed(self.reader, policy, after=docket.cursor, now_ms=now_ms),
                                       policy.spec, reader=self.reader)  # fmt: skip
                said = read_feedback(seen)
            case.analysis = analyse(seen, said, spec=policy.spec, now_s=now)
        body = {**case.analysis.body, "gate": gate}

        def work(db: apsw.Connection) -> None:
            put_state(db, policy.tenant, policy.name, name="report", state=body)
            if fresh:
                for name, point in curve_points(body, docket.cursor).items():
                    add_point(db, policy.tenant, policy.name, name=name, point=point)

        seat.write(work)
