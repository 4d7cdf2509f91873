"""The judge of language policies: it reads exams and closed sessions, and moves pointers. A process's second half.

Every layer is looked at: the tenant's, and each person's. A waiting version's exam is read first (``gate.exam``): harm
rejects it. A person's own version then serves its owner; the tenant's serves once it is proven better, by its exam at
once, else by the sessions of a live trial together with it (``gate.dossier``). After a promotion the sessions that what
was replaced answers show whether it was one; proven worse, the champion is rolled back by itself.

Promises 5 and 6 are kept as for rankers (``gate.judge``): one lease for a policy and its layers, and evidence, cursor,
verdict and pointer move in one transaction. A version on trial is named by the pointers only once its exam was read.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import apsw

from dayjob.endings import Damaged, Fenced, Invalid, NotFound, PolicyKind, VerdictKind, VersionStatus
from dayjob.gate.docket import Docket, reopen, trial_point
from dayjob.gate.dossier import (
    PATIENCE_MS,
    Dossier,
    begin,
    harm,
    observe,
    passed,
    read,
    rule,
    spec_of,
    spend,
    taken_up,
    told,
)  # fmt: skip
from dayjob.gate.exam import Exam, Ruling, rule_personal, rule_tenant
from dayjob.gate.look import Look
from dayjob.gate.rulings import check_thawed, say, settle, withdraw
from dayjob.gate.seat import Bench, Seat
from dayjob.gate.sessions import closed_of, is_closed
from dayjob.gate.trial import renew
from dayjob.gate.turns import move, stands, status_of, turn
from dayjob.journal.control import Control, add_point, put_state
from dayjob.journal.jobs import put_job
from dayjob.journal.layers import frozen_of, is_personal, layers, owner_of, served_by
from dayjob.journal.readers import Reader
from dayjob.journal.versions import read_files
from dayjob.records import Json, Lease, Pointers, Policy, Version

log = logging.getLogger("dayjob.judge")
REPORT_S = 1.0
LOOK_S = 2.0  # of sessions of one policy at a time: what was heard is then saved, and the next policy has its turn
CHECK_S = 60.0  # between two looks where nothing moved: at the files of what is on trial
UNEXAMINED = "It was never examined: without an exam nothing shows that it does no harm. The next night makes one."


@dataclass(slots=True, kw_only=True)
class Hearing:
    """What a judge has in hand of one policy; only the dossier is also on disk."""

    dossier: Dossier
    token: int
    saved: bool = True  # whether the dossier is on disk as it is here
    changes: int = -1  # of control.db, at the last look at the layers
    looked_s: float = -math.inf
    waits: Json | None = None  # the open session that is next: its first decision, and when it closes
    found_ms: int = 0  # when that was found
    checked: tuple[str, float] = ("", 0.0)  # the challenger whose files were found sound, and when
    forgot_s: float = -math.inf
    gone: frozenset[int] = frozenset()
    reported_s: float = -math.inf
    report: Json | None = None

    @property
    def kept(self) -> Docket:
        """The dossier's docket, which is also on disk."""
        return self.dossier.docket

    def forget(self, docket: Docket, _lost: frozenset[int]) -> None:
        """Go on with a docket from which these people are gone."""
        self.dossier, self.saved = replace(self.dossier, docket=docket), False


class LanguageJudge(Bench[Hearing]):
    """Judges every language policy of a data directory. ``window_s``: a session is closed so long after its first
    answer; ``reserve``: bytes of the ballast, which only a rollback may take."""

    kind = PolicyKind.LANGUAGE

    def __init__(
        self, control: Control, reader: Reader, *, holder: str, window_s: float, reserve: int = 0,
        now_ms: Callable[[], int],
    ) -> None:  # fmt: skip
        super().__init__(control, reader, holder=holder, reserve=reserve)
        self.window_ms = int(1000 * window_s)
        self.now_ms = now_ms

    def _look(self, policy: Policy, case: Hearing, seat: Seat) -> int:
        """How many decisions were gone through, those that begin no session too."""
        self._call(policy, case, seat)
        judged = self._hear(policy, case, seat)
        self._report(policy, case, seat)
        return judged

    def _take_up(self, policy: Policy, lease: Lease) -> Hearing:
        saved = self.control.state(policy.tenant, policy.name, "judge")
        return Hearing(dossier=taken_up(saved, policy), token=lease.token)

    def _pointers(self, policy: Policy, address: str) -> Pointers:
        """A layer's pointers, frozen by its own flag, by the policy's and by the file ``freeze``."""
        frozen = frozen_of(self.control, policy.tenant, address)
        return replace(self.control.pointers(policy.tenant, address), frozen=frozen)

    # ---- versions that wait ------------------------------------------------------------------------------------------

    def _call(self, policy: Policy, case: Hearing, seat: Seat) -> None:
        """Read the exams of versions that wait, of every layer; where nothing moved since, only once a minute."""
        changes, now = self.control.change_count(), time.monotonic()
        if changes == case.changes and now - case.looked_s < CHECK_S:
            return
        case.waits = None  # a thaw may let a verdict stand that waited
        done = self._call_layer(policy, policy.name, case=case, seat=seat)
        waiting = self._waiting(policy)
        for address in layers(self.control, policy.tenant, policy.name):
            if address in waiting:
                self._stay(case, seat)
                done &= self._call_layer(policy, address, case=case, seat=seat)
        if done:  # else again at the next look: the disk is full
            case.changes, case.looked_s = changes, now

    def _waiting(self, policy: Policy) -> set[str]:
        """The layers of a tenant that have versions whose turn has not come."""
        asked = "SELECT DISTINCT policy FROM versions WHERE tenant=? AND status IN (?, ?)"
        turns = (VersionStatus.WAITING.value, VersionStatus.TRIAL.value)
        return {str(row[0]) for row in self.control.db().execute(asked, (policy.tenant, *turns))}

    def _call_layer(self, policy: Policy, address: str, *, case: Hearing, seat: Seat) -> bool:
        """One layer's turn; whether it is on disk. The newest waiting version is ruled on; older ones are passed over.

        Where versions stand, the verdict, the pointers and the dossier change in one transaction: no version is named
        as challenger whose exam was not read.
        """
        pointers, versions = self._pointers(policy, address), self.control.versions(policy.tenant, address)
        serving = served_by(self.control, policy.tenant, address).name
        change, statuses, faults = turn(pointers, versions, fault=partial(self._fault, case, policy.tenant, address))
        name, dossier = change.get("challenger"), case.dossier
        if name is not None and not is_personal(address):  # a trial that was left gives its level back first
            dossier = self._opened(policy, dossier, replace(pointers, challenger=None))
        ruling = None if name is None else self._rule_on(policy, address, name, dossier=dossier, serving=serving)
        late = None if is_personal(address) else self._out_of_patience(case, pointers, versions)
        after = [dossier]

        def work(db: apsw.Connection) -> None:
            moved = pointers
            if change:
                check_thawed(db, self.control, policy=policy.name, seen=pointers)
            for one, status in statuses.items():
                stands(db, pointers, one, status=status)
            for one, fault in faults.items():
                say(db, pointers, challenger=one, champion=pointers.champion, kind=VerdictKind.HOLD,
                    reason=f"Not tried, its files are damaged: {fault}", evidence={}, at_ms=self.now_ms())  # fmt: skip
            if change:
                moved = move(db, pointers, change)
            if ruling is not None and is_personal(address):
                self._examine_again(db, moved, ruling=ruling, serving=serving)
            if ruling is not None and ruling.kind is not VerdictKind.CANNOT_TELL:
                moved = self._settle(db, moved, ruling)
            elif late is not None and not change:
                moved = self._settle(db, moved, late)
            if not is_personal(address):
                after[:] = [self._after(policy, dossier, moved, ruling=ruling, name=name)]
                put_state(db, policy.tenant, policy.name, name="judge", state=after[0].to_json())

        fits = is_personal(address) or case.dossier.docket.fits(pointers, spec_of(policy))
        if not change and not statuses and late is None and fits and case.saved:
            return True
        if not seat.write(work):
            return False
        if not is_personal(address):
            case.dossier, case.saved = after[0], True
        return late is None  # else it is the next one's turn

    def _rule_on(self, policy: Policy, address: str, name: str, *, dossier: Dossier, serving: str) -> Ruling:
        """What the exam of a version decides. ``serving``: the version that answers whom the layer is for."""
        state = self.control.state(policy.tenant, address, f"exam/{name}")
        if state is None:
            return Ruling(kind=VerdictKind.HOLD, reason=UNEXAMINED)
        try:
            exam = Exam.from_json(state)
        except Invalid as error:
            return Ruling(kind=VerdictKind.HOLD, reason=f"Its exam cannot be read: {error}.")
        if is_personal(address):
            return rule_personal(exam, champion=serving)
        return rule_tenant(
            exam, champion=serving, read=name in dossier.examined, level=dossier.docket.budget.level,
            alpha=float(spec_of(policy)["alpha"]),
        )  # fmt: skip

    def _examine_again(self, db: apsw.Connection, moved: Pointers, *, ruling: Ruling, serving: str) -> None:
        """In the open transaction: raises Fenced where something else answers the owner of a layer than what their
        version was ruled against. Where its exam was void, the night that makes another is asked for."""
        tenant, address, version = moved.tenant, moved.policy, str(moved.challenger)
        now = served_by(self.control, tenant, address)
        if now.name != serving:
            raise Fenced(f"{now.name} answers the owner of {version} by now: it is judged again")
        owner = owner_of(self.control, tenant, address)
        # One that is tainted is about to be built again: until then another exam would be void as well.
        if ruling.void and now.status is not VersionStatus.TAINTED and owner and self.control.learns(tenant, owner):
            put_job(db, tenant, address, recipe=self.control.version(tenant, address, version).recipe)

    def _opened(self, policy: Policy, dossier: Dossier, pointers: Pointers) -> Dossier:
        """The dossier for the versions that the pointers name."""
        spec, newest = spec_of(policy), self.reader.last_seq()
        return replace(dossier, docket=reopen(dossier.docket, pointers, spec=spec, newest_seq=newest))

    def _settle(self, db: apsw.Connection, pointers: Pointers, ruling: Ruling) -> Pointers:
        return settle(db, pointers, challenger=str(pointers.challenger), kind=ruling.kind, reason=ruling.reason,
                      evidence=ruling.told, at_ms=self.now_ms())  # fmt: skip

    def _after(
        self, policy: Policy, dossier: Dossier, moved: Pointers, *, ruling: Ruling | None, name: str | None
    ) -> Dossier:
        """The dossier once the pointers moved: a trial begins, was decided by an exam alone, or is no more."""
        if ruling is not None and ruling.kind is VerdictKind.CANNOT_TELL:
            spec, newest = spec_of(policy), self.reader.last_seq()
            return begin(dossier, moved, found=ruling.found, spec=spec, newest_seq=newest, now_ms=self.now_ms())
        dossier = self._opened(policy, dossier, moved)
        if ruling is not None and name is not None:
            budget = spend(dossier.docket.budget, ruling.found, kind=ruling.kind)
            dossier = read(dossier, name) if ruling.found.count else dossier
            dossier = replace(dossier, docket=replace(dossier.docket, budget=budget))
        return dossier

    def _out_of_patience(self, case: Hearing, pointers: Pointers, versions: list[Version]) -> Ruling | None:
        """A trial that goes on and on makes room for what was learned since. Its level goes on, as of one that left."""
        on_trial = next((one.number for one in versions if one.name == pointers.challenger), None)
        newer = [one for one in versions if one.status is VersionStatus.WAITING and one.number > (on_trial or 0)]
        if on_trial is None or pointers.frozen or not newer or self.now_ms() - case.dossier.began_ms < PATIENCE_MS:
            return None
        return Ruling(
            kind=VerdictKind.HOLD,
            reason=f"No proof within {PATIENCE_MS // 86_400_000} days, and {newer[-1].name} waits for its turn.",
        )

    def _fault(self, case: Hearing, tenant: str, address: str, name: str) -> str | None:
        """What is wrong with a version's files, None where nothing is. The one on trial is read again in a minute."""
        now = time.monotonic()
        if case.checked[0] == f"{address}/{name}" and now - case.checked[1] < CHECK_S:
            return None
        try:
            version = self.control.version(tenant, address, name)
            if version.number:
                read_files(self.control.root, tenant, address, name, digest=version.digest)
        except (Damaged, NotFound) as error:
            return str(error)
        case.checked = (f"{address}/{name}", now)
        return None

    # ---- sessions ----------------------------------------------------------------------------------------------------

    def _hear(self, policy: Policy, case: Hearing, seat: Seat) -> int:
        """Judge the sessions that closed since, in order, until one that is open or a verdict."""
        now, spec = self.now_ms(), spec_of(policy)
        if case.waits is not None and case.found_ms <= now <= case.waits["until_ms"]:
            return 0
        case.waits = None
        heard, dossier, done = 0, case.dossier, self._is_decided(policy, case.dossier)
        look = Look(reader=self.reader, tenant=policy.tenant, policy=policy.name, window_ms=self.window_ms)
        until_s = time.monotonic() + LOOK_S
        for start in () if done else self.reader.sketches(policy.tenant, policy.name, after=dossier.docket.cursor):
            if not look.begins(start):
                dossier = passed(dossier, start.seq)
            elif is_closed(start.record, now_ms=now, window_ms=self.window_ms):
                session = look.session(start)
                dossier = observe(dossier, session, said=look.said(session, spec=spec), key=self.key, gone=case.gone)
                done = self._is_decided(policy, dossier)
            else:
                until_ms = start.record.at_ms + self.window_ms
                case.waits, case.found_ms = {"decision": start.record.id, "until_ms": until_ms}, now
                break
            heard += 1
            self._stay(case, seat)
            if done or time.monotonic() > until_s:
                break
        if dossier is not case.dossier or not case.saved or done:
            self._commit(policy, dossier, case=case, seat=seat)
        return heard

    def _stay(self, case: Hearing, seat: Seat) -> None:
        """Renew the lease in good time, however long a look takes. Raises Fenced where another judge has it."""
        lease = seat.take()
        if lease is None or lease.token != case.token:
            raise Fenced(f"the lease {seat.name!r} was taken by a newer process; this one stops")

    def _is_decided(self, policy: Policy, dossier: Dossier) -> bool:
        """Whether the pointers have to move: a proof of harm always, a final verdict while nothing is frozen."""
        spec = spec_of(policy)
        result = rule(dossier, spec)
        if harm(dossier, alpha=float(spec["alpha"])):
            return True
        return result is not None and result.final and not self._pointers(policy, policy.name).frozen

    def _commit(self, policy: Policy, dossier: Dossier, *, case: Hearing, seat: Seat) -> None:
        """Save what was heard, and what follows from it."""
        spec, pointers = spec_of(policy), self._pointers(policy, policy.name)
        result = rule(dossier, spec)
        reason = harm(dossier, alpha=float(spec["alpha"])) if dossier.docket.fits(pointers, spec) else ""
        target = self._back_to(case, dossier, pointers) if reason else ""
        final = result is not None and result.final and not pointers.frozen and dossier.docket.tries(pointers)
        after = [dossier]

        def work(db: apsw.Connection) -> None:
            docket = dossier.docket
            if reason:
                moved = withdraw(db, pointers, target=target, reason=reason, at_ms=self.now_ms())
                docket = reopen(docket, moved, spec=spec, newest_seq=docket.cursor)
            elif final and result is not None and docket.trial is not None:
                check_thawed(db, self.control, policy=policy.name, seen=pointers)
                challenger = str(docket.challenger)
                if status_of(db, pointers, challenger) is not VersionStatus.TRIAL:
                    moved = move(db, pointers, {"challenger": None})
                else:
                    moved = settle(db, pointers, challenger=challenger, kind=result.kind, reason=result.reason,
                                   evidence=trial_point(docket, result), at_ms=self.now_ms())  # fmt: skip
                    budget = docket.budget.decide(promoted=result.kind is VerdictKind.PROMOTE)
                    docket = replace(docket, budget=budget, trial=renew(docket.trial))
                docket = reopen(docket, moved, spec=spec, newest_seq=docket.cursor)
            if result is not None:
                add_point(db, policy.tenant, policy.name, name="trial", point=trial_point(dossier.docket, result))
            after[:] = [replace(dossier, docket=docket)]
            put_state(db, policy.tenant, policy.name, name="judge", state=after[0].to_json())

        if reason:
            seat.must_write(work)
        elif not seat.write(work):
            case.dossier, case.saved = dossier, False
            return
        case.dossier, case.saved = after[0], True
        if reason or final:
            case.changes = -1  # whose turn is it now?

    def _back_to(self, case: Hearing, dossier: Dossier, pointers: Pointers) -> str:
        """Where a rollback goes: to what the champion replaced, unless its files are damaged."""
        target = dossier.docket.rival or pointers.baseline
        return pointers.baseline if self._fault(case, pointers.tenant, pointers.policy, target) else target

    # ---- the report --------------------------------------------------------------------------------------------------

    def _report(self, policy: Policy, case: Hearing, seat: Seat) -> None:
        """Write the report where it changed, at most once a second."""
        now = time.monotonic()
        if now - case.reported_s < REPORT_S:
            return
        case.reported_s = now
        pointers = self.control.pointers(policy.tenant, policy.name)
        estimates: Json = {}
        if pointers.challenger is not None:
            exam = self._exam(policy, pointers.challenger)
            estimates = {} if exam is None else {pointers.challenger: {"exam": exam.to_report()}}
        served = None if pointers.champion == pointers.baseline else self._exam(policy, pointers.champion)
        left = self.reader.sketches(policy.tenant, policy.name, after=case.dossier.docket.cursor)
        lag = closed_of(left, now_ms=self.now_ms(), window_ms=self.window_ms)
        body = told(case.dossier, spec_of(policy), lag=lag, waiting=case.waits, estimates=estimates) | {
            "bias": {}, "people": {}, "ceiling": {}, "learning": {}, "gaming": {}, "drift": {}, "exposure": {},
            "forgetting": {"version": pointers.champion} | (UNLEARNED if served is None else served.forgetting()),
        }  # fmt: skip
        if body == case.report:
            return

        def work(db: apsw.Connection) -> None:
            put_state(db, policy.tenant, policy.name, name="report", state=body | {"made_ms": int(time.time() * 1000)})

        if seat.write(work):
            case.report = body

    def _exam(self, policy: Policy, name: str) -> Exam | None:
        state = self.control.state(policy.tenant, policy.name, f"exam/{name}")
        try:
            return None if state is None else Exam.from_json(state)
        except Invalid:
            return None


UNLEARNED: Json = {"suites": [], "kl": None, "reason": "what serves has no exam: nothing is known to be forgotten"}
