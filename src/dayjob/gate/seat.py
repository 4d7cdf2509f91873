"""A judge's seat at one policy (its lease, and how it writes when the disk is full), and one look at every policy.

Promise 6: a rollback is written even on a full disk, out of the ballast. So nothing else that a judge writes may take
the ballast, nor the room that it gave back: evidence is then kept in memory, and read again by whoever comes after.
"""

import logging
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Generic, Protocol, TypeVar

import apsw

from dayjob.endings import DayjobError, PolicyKind, StorageFull
from dayjob.gate.docket import Docket
from dayjob.gate.erased import forget_erased
from dayjob.journal.control import Control, check_lease
from dayjob.journal.readers import Reader
from dayjob.records import Lease, Policy

log = logging.getLogger("dayjob.judge")
LEASE_S = 10.0
REST_S, REST_MOST_S = 1.0, 60.0
RENEW_S = LEASE_S / 3  # between two renewals: each is a commit, and a look at an idle policy needs none
FORGET_S = 10.0  # between two looks for people who were erased


@dataclass(slots=True, kw_only=True)
class Seat:
    """One policy's lease. ``reserve``: bytes of the ballast, 0 where there is none."""

    control: Control
    name: str
    holder: str
    reserve: int
    lease: Lease | None = None
    asked_s: float = -math.inf  # when it was last taken or renewed
    rest_s: float = 0.0  # after a fault of ours: for how long, and until when
    until_s: float = -math.inf

    def take(self) -> Lease | None:
        """The lease, renewed in good time where there is room; None while another judge has it.

        One that cannot be renewed is kept: its fencing token refuses every write once somebody else has taken it.
        """
        now = time.monotonic()
        if self.lease is not None and (now - self.asked_s < RENEW_S or not self.has_room()):
            return self.lease
        self.asked_s = now
        try:
            self.lease = self.control.take_lease(self.name, self.holder, ttl_s=LEASE_S, must=self.lease is None)
        except StorageFull:
            if self.lease is None:
                raise
        return self.lease

    @property
    def resting(self) -> bool:
        """Whether this policy is left alone for now."""
        return time.monotonic() < self.until_s

    def attempt(self, what: str, work: Callable[[], int]) -> int | None:
        """Do the work of one look; None where it failed or the policy is resting. What fails at one stops no other."""
        if self.resting:
            return None
        try:
            done = work()
        except DayjobError as error:
            log.warning("policy %s is not judged now: %s", what, error)
        except Exception:
            log.exception("policy %s is not judged for %.0f s: a fault of ours", what, self.rest())
        else:
            self.rest_s = 0.0
            return done
        self.doubt()
        return None

    def rest(self) -> float:
        """Leave this policy alone after a fault; for how long, in seconds: twice as long as the last time."""
        self.rest_s = min(REST_MOST_S, 2 * self.rest_s or REST_S)
        self.until_s = time.monotonic() + self.rest_s
        return self.rest_s

    def doubt(self) -> None:
        """Ask for the lease again at the next look, whenever it was renewed."""
        self.asked_s = -math.inf

    def write(self, work: Callable[[apsw.Connection], None]) -> bool:
        """One fenced transaction; False, with nothing changed, on a full disk. Raises Fenced."""
        if not self.has_room():
            return False
        assert self.lease is not None, "a seat writes once it was taken"
        try:
            with self.control.fenced(self.lease) as db:
                work(db)
        except StorageFull:
            return False
        return True

    def must_write(self, work: Callable[[apsw.Connection], None]) -> None:
        """One fenced transaction that succeeds on a full disk too: a rollback. Raises Fenced."""
        lease = self.lease
        assert lease is not None, "a seat writes once it was taken"

        def fenced(db: apsw.Connection) -> None:
            check_lease(db, lease)
            work(db)

        self.control.write_or_free(fenced)

    def has_room(self) -> bool:
        """Whether more is free than what the ballast gave back for a rollback."""
        root = self.control.root
        if not self.reserve or (root / "ballast").exists():
            return True
        disk = os.statvfs(root)
        return disk.f_bavail * disk.f_frsize >= self.reserve


class InHand(Protocol):
    """What a judge has in hand of one policy while it runs. ``token``: of the lease under which it was taken up;
    ``gone``: numbers of the people erased since its evidence began, as of ``forgot_s``."""

    token: int
    forgot_s: float
    gone: frozenset[int]

    @property
    def kept(self) -> Docket:
        """The part that is also on disk."""
        ...

    def forget(self, docket: Docket, lost: frozenset[int]) -> None:
        """Go on with a docket from which these people are gone."""
        ...


InHandT = TypeVar("InHandT", bound=InHand)


class Bench(ABC, Generic[InHandT]):
    """Every policy of one kind before a judge: a seat at each, and what is in hand of those that it holds."""

    kind: ClassVar[PolicyKind]

    def __init__(self, control: Control, reader: Reader, *, holder: str, reserve: int) -> None:
        """``reserve``: bytes of the ballast, which only a rollback may take."""
        self.control = control
        self.reader = reader
        self.holder = holder
        self.reserve = reserve
        self.key = control.secret("journal")
        self.seats: dict[tuple[str, str], Seat] = {}
        self.cases: dict[tuple[str, str], InHandT] = {}

    @abstractmethod
    def _take_up(self, policy: Policy, lease: Lease) -> InHandT:
        """A policy as the last judge left it."""

    @abstractmethod
    def _look(self, policy: Policy, case: InHandT, seat: Seat) -> int:
        """One look at a policy that is held; how many decisions were judged."""

    def step(self) -> int:
        """Look at every policy of the kind once; how many decisions were judged. What fails at one stops no other."""
        judged = 0
        for policy in self.control.policies():
            if policy.kind is not self.kind:
                continue
            key = (policy.tenant, policy.name)
            fresh = Seat(control=self.control, name="judge/" + "/".join(key), holder=self.holder, reserve=self.reserve)
            seat = self.seats.setdefault(key, fresh)
            done = seat.attempt(policy.name, partial(self._sit, policy, seat))
            if done is None:
                self.cases.pop(key, None)
            judged += done or 0
        return judged

    def _sit(self, policy: Policy, seat: Seat) -> int:
        key = (policy.tenant, policy.name)
        lease = seat.take()
        if lease is None:
            self.cases.pop(key, None)
            return 0
        case = self.cases.get(key)
        if case is None or case.token != lease.token:
            case = self._take_up(policy, lease)
            self.cases[key] = case
        self._forget(policy, case)
        return self._look(policy, case, seat)

    def _forget(self, policy: Policy, case: InHandT) -> None:
        """Drop the entries of people who were erased since the last look."""
        now = time.monotonic()
        if now - case.forgot_s < FORGET_S:
            return
        case.forgot_s = now
        docket, lost, case.gone = forget_erased(self.control, self.reader, policy.tenant, docket=case.kept)
        if lost:
            case.forget(docket, lost)
