"""Nights that fall due by themselves: enough was decided or said since the last, or a champion is to be built again."""

import time
from collections.abc import Callable

from dayjob.endings import OutcomeKind, PolicyKind, VersionStatus
from dayjob.journal import jobs
from dayjob.journal.control import Control, put_state
from dayjob.journal.join import window_of
from dayjob.journal.layers import layers, request_nights
from dayjob.journal.readers import Reader
from dayjob.records import Policy

RETRY_S = 60.0  # between two tries to rebuild a champion that must go
SAID = frozenset(OutcomeKind) - {OutcomeKind.RETRACT}
ASKED = "asked"  # the state of a language policy that says how much had been said when the last of these was asked for


class Due:
    """Asks for jobs where ``learn_every`` says so, and where a champion learned from somebody since erased."""

    def __init__(self, control: Control, reader: Reader, *, frozen: Callable[[str, str], bool]) -> None:
        """``frozen``: whether learning is stopped, of (tenant, policy)."""
        self._control = control
        self._reader = reader
        self._frozen = frozen
        self._retried: dict[tuple[str, str], float] = {}
        self._asked: dict[tuple[str, str], int] = {}  # of rankers: decisions there were when a job was last asked for

    def ask(self) -> None:
        """Ask for every job that is due."""
        for policy in self._control.policies():
            key, recipe = (policy.tenant, policy.name), str(policy.spec["recipe"])
            if self._frozen(*key):
                continue
            for address in (policy.name, *layers(self._control, *key)):
                self._rebuild(policy.tenant, address, recipe=recipe)
            every = int(policy.spec.get("learn_every", 0))
            if every and policy.kind is PolicyKind.RANKER:
                self._ranker(policy, every)
            elif every:
                self._language(policy, every)

    def _rebuild(self, tenant: str, address: str, *, recipe: str) -> None:
        """A champion that learned from someone since erased is due to be rebuilt, whoever asked or did not."""
        champion = self._control.version(tenant, address, self._control.pointers(tenant, address).champion)
        key = (tenant, address)
        is_due = time.monotonic() - self._retried.get(key, -RETRY_S) >= RETRY_S
        if champion.status is VersionStatus.TAINTED and is_due:
            self._retried[key] = time.monotonic()
            jobs.request_job(self._control, tenant, address, recipe=recipe)

    def _ranker(self, policy: Policy, every: int) -> None:
        """A job where so many decisions closed since the newest version."""
        key = (policy.tenant, policy.name)
        decisions = self._reader.counts(*key).get("decisions", 0)
        if decisions - self._asked.get(key, 0) < every:
            return  # too few even if all were closed: the count below reads rows, this one does not
        since = self._control.versions(*key)[-1].to_seq
        if self._reader.count_closed(*key, after=since, window=window_of(policy.spec), most=every) >= every:
            self._asked[key] = decisions
            jobs.request_job(self._control, *key, recipe=str(policy.spec["recipe"]))

    def _language(self, policy: Policy, every: int) -> None:
        """Jobs of the tenant's layer and of every person's where so much feedback came since the last of these.

        Not since the newest version: a night that made none would be asked for again and again.
        """
        key = (policy.tenant, policy.name)
        said = sum(count for what, count in self._reader.counts(*key).items() if what in SAID)
        before = int((self._control.state(*key, ASKED) or {}).get("said", 0))
        if before <= said < before + every:
            return
        with self._control.write() as db:
            put_state(db, *key, name=ASKED, state={"said": said})
        if said >= before:  # else people were erased since: it is counted from here on
            request_nights(self._control, *key, recipe=str(policy.spec["recipe"]))
