"""The learner: take a job, replay the journal, fit from the baseline, publish, register a challenger.

Every version is trained from the baseline on replay, never from its parent's weights: the same journal range, recipe,
seed and erasure epoch give the same digest, nothing drifts, and erasing someone never means replaying every night
since. A learner killed in the middle goes on from its checkpoint, and a finished version it had not registered is
found by its digest.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from dayjob.endings import Conflict, DayjobError, Invalid, JobState, VersionStatus
from dayjob.journal import jobs, versions
from dayjob.journal.columns import VERSIONS
from dayjob.journal.control import Control, put_state, put_taught, version_row
from dayjob.journal.join import window_of
from dayjob.journal.readers import Reader
from dayjob.journal.steering import drop_tainted, rebuild, taint, taint_overlooked
from dayjob.journal.writes import person_mark
from dayjob.learn.collect import Collected, collect
from dayjob.learn.fit import Fitted, fit
from dayjob.learn.recipes import RECIPES
from dayjob.records import Job, Json, Policy, Version

log = logging.getLogger("dayjob.learner")
LEASE_S = 30.0
DEATHS = 5  # of learners over one job, after which it is given up; kills from outside should not use them up
RETRY_S = 60.0  # between two tries to rebuild a champion that must go
ABANDONED_S = 3600.0  # no write of a version takes so long: what is older was left behind by a killed learner
NOTHING_LEFT = "nothing is left to learn from: the baseline serves"
NO_PROOF = "nothing learned from these outcomes beats the caller's own order on held-out decisions"
REBUILT = "it was built again without a person who was erased, and serves as champion"
SEED = 20261120  # every version's; a different seed would be a different digest


class Learner:
    """Does the learning jobs of a data directory, one at a time."""

    def __init__(
        self, root: Path, control: Control, reader: Reader, *, threads: int, holder: str,
        told: Callable[[float], None] = lambda _: None,
    ) -> None:  # fmt: skip
        torch.set_num_threads(threads)
        self.root = root
        self.control = control
        self.reader = reader
        self.holder = holder
        self.retried: dict[tuple[str, str], float] = {}
        self.told = told  # of the progress of a fit, a share in [0, 1]
        self.asked: dict[tuple[str, str], int] = {}  # decisions there were when a job was last asked for
        taint_overlooked(control)
        self._sweep()

    def _sweep(self) -> None:
        """Delete what killed learners left behind: half-written versions by age, for another learner may be at work,
        and checkpoints of jobs that nobody will take up again."""
        versions.sweep(self.root, now_s=time.time(), older_than_s=ABANDONED_S)
        wanted = {job.id for job in jobs.unfinished(self.control)}
        for path in (self.root / "work").glob("*.safetensors*"):
            if path.name.partition(".")[0] not in wanted:
                path.unlink(missing_ok=True)
        drop_tainted(self.control)

    def _checkpoint(self, job: Job) -> Path:
        return self.root / "work" / f"{job.id}.safetensors"

    def ask(self, policy: str, *, recipe: str | None = None, tenant: str = "default") -> Job:
        """Ask for a job, as POST /v1/policies/{name}/learn does."""
        spec = self.control.policy(tenant, policy).spec
        return jobs.request_job(self.control, tenant, policy, recipe=recipe or str(spec["recipe"]))

    def step(self, *, watch_counts: bool) -> bool:
        """Do the oldest job; with ``watch_counts`` also ask for jobs that fell due. Whether anything was done."""
        if watch_counts:
            self._ask_where_due()
        for job in jobs.unfinished(self.control):
            if self.frozen(job.tenant, job.policy):
                continue  # it waits, and goes on when the policy is unfrozen
            lease = self.control.take_lease(f"learn/{job.tenant}/{job.policy}", self.holder, ttl_s=LEASE_S)
            if lease is None:
                continue
            self._do(job)
            drop_tainted(self.control)
            self.control.release_lease(lease)
            return True
        return False

    def frozen(self, tenant: str, policy: str) -> bool:
        """Whether learning is stopped: by the policy's own flag, or by the file (promise 7)."""
        return bool(self.control.pointers(tenant, policy).frozen or self.control.freeze_file())

    def _ask_where_due(self) -> None:
        """A job for each policy with ``learn_every`` newly closed decisions since its newest version."""
        for policy in self.control.policies():
            every = int(policy.spec.get("learn_every", 0))
            key = (policy.tenant, policy.name)
            if self.frozen(*key):
                continue
            if self._is_tainted(*key) and time.monotonic() - self.retried.get(key, -RETRY_S) >= RETRY_S:
                self.retried[key] = time.monotonic()
                self.ask(policy.name, tenant=policy.tenant)
            if not every:
                continue
            decisions = self.reader.counts(*key).get("decisions", 0)
            if decisions - self.asked.get(key, 0) < every:
                continue  # too few even if all were closed: the count below reads rows, this one does not
            since = self.control.versions(*key)[-1].to_seq
            if self.reader.count_closed(*key, after=since, window=window_of(policy.spec), most=every) >= every:
                self.asked[key] = decisions
                self.ask(policy.name, tenant=policy.tenant)

    def _is_tainted(self, tenant: str, policy: str) -> bool:
        """Whether the champion learned from someone since erased: it is due to be rebuilt, whoever asked or did not."""
        champion = self.control.pointers(tenant, policy).champion
        return self.control.version(tenant, policy, champion).status is VersionStatus.TAINTED

    def _do(self, job: Job) -> None:
        try:
            self._check_deaths(job)
            result = self._learn(job)
        except Exception as error:
            reason = str(error)
            if not isinstance(error, DayjobError):
                log.exception("job %s failed", job.id)
                reason = f"the learner failed ({type(error).__name__}: {error}): see its log, then ask again"
            jobs.update_job(self.control, job, state=JobState.FAILED, progress=1.0, error=reason)
            self._checkpoint(job).unlink(missing_ok=True)  # it may hold what somebody taught who was erased meanwhile
            return
        jobs.update_job(self.control, job, state=JobState.SUCCEEDED, progress=1.0, result=result)

    def _check_deaths(self, job: Job) -> None:
        """Count the learners that died over a job while whoever started them lived on (killed for memory, most likely:
        a restart ends both). Raises Conflict when ``DEATHS`` did: another would die too, and nobody else's job would
        ever be done."""
        address, parent = (job.tenant, job.policy), os.getppid()
        taken = self.control.state(*address, "taken") or {}
        deaths = int(taken["deaths"]) + (taken["parent"] == parent) if taken.get("job") == job.id else 0
        with self.control.write() as db:
            put_state(db, *address, name="taken", state={"job": job.id, "parent": parent, "deaths": deaths})
        if deaths >= DEATHS:
            raise Conflict(
                f"the learner died {deaths} times over this job, most likely for want of memory: give it more, or "
                "declare a smaller policy; see the system's log, then ask again"
            )

    def _learn(self, job: Job) -> Json:
        """One night, on one page: read, fit, publish, register."""
        control, tenant = self.control, job.tenant
        policy = control.policy(tenant, job.policy)
        began = self.reader.last_seq()
        job = jobs.start_job(control, job, newest_seq=began)
        pointers = control.pointers(tenant, job.policy)
        champion = control.version(tenant, job.policy, pointers.champion)
        # A champion that learned from someone since erased is built again over its own range, without them.
        tainted = champion.status is VersionStatus.TAINTED
        until = champion.to_seq if tainted else job.until_seq
        assert until is not None, "start_job has set it"
        recipe = champion.recipe if tainted else job.recipe
        try:
            found = collect(
                self.reader, tenant, job.policy, spec=policy.spec, until=until, silent=control.silent_people()
            )
        except Invalid:
            if not tainted:
                raise
            # Nobody else had taught it: without them there is only the baseline.
            return self._rebuilt(champion, pointers.baseline, NOTHING_LEFT, stats={})
        fitted = fit(
            found.replay,
            shape=policy.spec["hidden"],
            recipe=RECIPES[recipe],
            seed=SEED,
            checkpoint=self._checkpoint(job),
            progress=self._progress(job),
        )
        stats: Json = {"decisions": len(found.replay), "stats": fitted.stats | found.stats}
        if fitted.stats.get("kept_baseline"):
            if tainted:
                return self._rebuilt(champion, pointers.baseline, NO_PROOF, stats=stats)
            return {"challenger": None, "reason": NO_PROOF} | stats
        version = self._publish(policy, recipe, found, fitted, began=began)
        if tainted:
            return self._rebuilt(champion, version.name, REBUILT, stats=stats)
        if version.status is not VersionStatus.WAITING:
            reason = f"it came out equal to {version.name}, which was learned before and stands as: {version.status}"
            return {"challenger": None, "reason": reason} | stats
        return {"challenger": version.name} | stats

    def _rebuilt(self, champion: Version, name: str, reason: str, *, stats: Json) -> Json:
        """Put ``name`` in the place of a tainted champion; what to say of it."""
        if not rebuild(self.control, champion.tenant, champion.policy, champion=champion.name, name=name):
            reason = f"{champion.name} was to be built again, and another version serves by now"
        return {"challenger": None, "reason": reason, "decisions": 0} | stats

    def _progress(self, job: Job) -> Callable[[float], None]:
        """Report progress and keep the lease, at most once a second."""
        last = 0.0

        def say(share: float) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last < 1.0:
                return
            last = now
            self.told(share)
            if self.frozen(job.tenant, job.policy):
                raise Conflict(f"policy {job.policy!r} was frozen while it learned: unfreeze it and ask again")
            self.control.take_lease(f"learn/{job.tenant}/{job.policy}", self.holder, ttl_s=LEASE_S)
            jobs.update_job(self.control, job, state=JobState.RUNNING, progress=share)

        return say

    def _publish(self, policy: Policy, recipe: str, found: Collected, fitted: Fitted, *, began: int) -> Version:
        """Weights to disk, then the row that makes them a waiting challenger, then who taught it."""
        control, tenant, name = self.control, policy.tenant, policy.name
        known = control.versions(tenant, name)
        pointers = control.pointers(tenant, name)
        manifest = versions.VersionManifest(
            recipe=recipe, network=fitted.network, from_seq=found.from_seq, to_seq=found.to_seq, seed=SEED,
            created_ms=int(time.time() * 1000), parent=pointers.champion,
        )  # fmt: skip
        stored = versions.publish(
            self.root, tenant, name, number=known[-1].number + 1, weights=fitted.weights, manifest=manifest
        )
        # What came out equal before and is damaged on the disk is published anew: these files are sound.
        equal = [one for one in known if one.digest == stored.digest and one.status is not VersionStatus.DAMAGED]
        if equal:
            versions.remove(self.root, tenant, name, stored.version)
            return equal[0]
        version = Version(
            tenant=tenant, policy=name, name=stored.version, number=known[-1].number + 1, parent=pointers.champion,
            recipe=recipe, digest=stored.digest, from_seq=found.from_seq, to_seq=found.to_seq,
            status=VersionStatus.WAITING, created_ms=manifest.created_ms, detail={"stats": fitted.stats | found.stats},
        )  # fmt: skip
        self._register(version, found, began=began)
        return version

    def _register(self, version: Version, found: Collected, *, began: int) -> None:
        """The row of a version and who taught it, in one transaction, unless somebody among them was erased meanwhile.

        Asked again once it is written: the journal is another file, and an erasure may have fallen in between. A
        learner killed at that very moment leaves it to `steering.taint_overlooked`.
        """
        control, tenant = self.control, version.tenant
        secret = control.secret("journal")
        marks = [person_mark(secret, tenant, user) for user in found.users]
        try:
            with control.write() as db:
                db.execute(VERSIONS.insert("INSERT OR IGNORE"), version_row(version))
                put_taught(db, tenant, version.policy, version=version.name, marks=marks)
                self._check_nobody_left(tenant, marks, after=began)
        except Conflict:
            versions.remove(self.root, tenant, version.policy, version.name)
            raise
        try:
            self._check_nobody_left(tenant, marks, after=began)
        except Conflict:
            taint(control, tenant, [(version.policy, version.name)])
            raise

    def _check_nobody_left(self, tenant: str, marks: Sequence[bytes], *, after: int) -> None:
        if self.reader.any_erased(tenant, marks, after=after):
            raise Conflict("somebody was erased while this version learned from them: ask again")
