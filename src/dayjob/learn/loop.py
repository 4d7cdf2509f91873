"""The learner: take a job, replay the journal, learn from the baseline, publish, register a challenger.

How a ranker learns is here (`_ranker`), how a language policy's layer does in `language.job`; all else is the same.
Every version is trained from the baseline or the base model on replay, never from its parent's weights: the same range
of the journal, recipe, seed and erasure epoch give the same digest, nothing drifts, and erasing someone never means
replaying every night since. A learner killed in the middle goes on from its checkpoint, and a finished version it had
not registered is found by its digest.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from dayjob.endings import (
    Conflict,
    DayjobError,
    Erased,
    Invalid,
    JobState,
    NotFound,
    Overloaded,
    PolicyKind,
    StorageFull,
    VersionStatus,
)
from dayjob.journal import jobs, versions
from dayjob.journal.columns import VERSIONS
from dayjob.journal.control import Control, put_state, put_taught, version_row
from dayjob.journal.layers import check_open, frozen_of, is_personal, layers, open_layer, owner_of, policy_of
from dayjob.journal.readers import Reader
from dayjob.journal.steering import drop_orphans, drop_tainted, rebuild, taint, taint_overlooked
from dayjob.journal.writes import person_mark
from dayjob.learn.able import NO_DREAMS, lacking
from dayjob.learn.collect import collect
from dayjob.learn.deaths import check_deaths, forget_deaths
from dayjob.learn.due import Due
from dayjob.learn.fit import fit
from dayjob.learn.recipes import RECIPES
from dayjob.learn.work import SEED, Made, Publish, Unsaid, Work
from dayjob.records import Job, Json, Lease, Policy, Version

if TYPE_CHECKING:
    from dayjob.learn.language.job import Nights

log = logging.getLogger("dayjob.learner")
LEASE_S = 30.0
TOLD_EVERY_S = 1.0  # the progress of a job
ABANDONED_S = 3600.0  # no write of a version takes so long: what is older was left behind by a killed learner
NOTHING_LEFT = "nothing is left to learn from: the baseline serves"
NO_PROOF = "nothing learned from these outcomes beats the caller's own order on held-out decisions"
REBUILT = "it was built again without a person who was erased, and serves as champion"
HELD = "; it is looked at again when another version serves, or when what was said since makes it another"
UNLEARNED = "all that was taught was taken back: the baseline serves"
LEFT = "job %s of %s stays queued for a learner that can do it. %s"
LOOK_AGAIN_S = 600.0  # at a job that this learner could not do: a base model may be there by then


class Learner:
    """Does the learning jobs of a data directory, one at a time."""

    def __init__(
        self, root: Path, control: Control, reader: Reader, *, threads: int, holder: str,
        told: Callable[[float], None] = lambda _: None, nights: "Nights | None" = None,
        dream: Callable[[Work], Made] | None = None,
    ) -> None:  # fmt: skip
        """``nights``: what language policies need; None: this learner does rankers alone. ``dream``: who dreams."""
        torch.set_num_threads(threads)
        self.root = root
        self.control = control
        self.reader = reader
        self.holder = holder
        self.told = told  # of the progress of a fit, a share in [0, 1]
        self.nights = nights
        self.dream = dream
        self.lacks_for_dreams: Callable[[Policy], str] = lambda _: ""  # of whoever dreams: what they lack, in words
        self._own: set[str] = set()  # jobs that are this learner's own
        self._left: dict[str, float] = {}  # jobs that it could not do, and when it looked last
        self.due = Due(control, reader, frozen=self.frozen)
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
        busy = {(job.tenant, job.policy) for job in jobs.unfinished(self.control)}
        for policy in self.control.policies():
            for address in (policy.name, *layers(self.control, policy.tenant, policy.name)):
                if (policy.tenant, address) not in busy:  # else another learner may be about to write its row
                    drop_orphans(self.control, policy.tenant, address)

    def _checkpoint(self, job: Job) -> Path:
        return self.root / "work" / f"{job.id}.safetensors"

    def ask(
        self, policy: str, *, recipe: str | None = None, tenant: str = "default", user: str | None = None
    ) -> Job:  # fmt: skip
        """Ask for a job, as POST /v1/policies/{name}/learn does; with a ``user``, of that person's layer."""
        spec = self.control.policy(tenant, policy).spec
        address = policy if user is None else open_layer(self.control, tenant, policy, user)
        waiting = {job.id for job in jobs.unfinished(self.control)}
        job = jobs.request_job(self.control, tenant, address, recipe=recipe or str(spec["recipe"]))
        if job.id not in waiting:
            self._own.add(job.id)
        return job

    def step(self, *, watch_counts: bool, only: Job | None = None) -> bool:
        """Do the oldest job, or ``only`` this one; with ``watch_counts`` also ask for jobs that fell due. Whether
        anything was done."""
        if watch_counts:
            self.due.ask()
        for job in jobs.unfinished(self.control):
            if only is not None and job.id != only.id:
                continue  # somebody else's, who may have a learner that can do it
            if self.frozen(job.tenant, job.policy):
                continue  # it waits, and goes on when the policy is unfrozen
            if self._leaves(job):
                continue
            lease = self.control.take_lease(f"learn/{job.tenant}/{job.policy}", self.holder, ttl_s=LEASE_S)
            if lease is None:
                continue
            with self._holding(lease):
                self._do(job)
                drop_tainted(self.control)
            return True
        return False

    def lacks(self, job: Job) -> str:
        """Why this learner cannot do a job that another one could, in words; "" where it can."""
        policy = self.control.policy(job.tenant, policy_of(job.policy))
        if jobs.budget_of(job.recipe) is not None and (told := self.lacks_for_dreams(policy)):
            return told
        return lacking(policy, recipe=job.recipe, nights=self.nights, dreams=self.dream is not None)

    def _leaves(self, job: Job) -> bool:
        """Whether a job is left to others. One's own is not: whoever asked is told what is missing."""
        if job.id in self._own:
            return False
        if time.monotonic() - self._left.get(job.id, -LOOK_AGAIN_S) < LOOK_AGAIN_S:
            return True
        told = self.lacks(job)
        if told:
            self._left[job.id] = time.monotonic()
            log.warning(LEFT, job.id, policy_of(job.policy), told)
        return bool(told)

    @contextmanager
    def _holding(self, lease: Lease) -> Iterator[None]:
        """Keep a lease: a step of a large model takes longer than it lasts, and another learner would begin too."""
        over = threading.Event()

        def renew() -> None:
            while not over.wait(LEASE_S / 3):
                with suppress(Overloaded, StorageFull):
                    self.control.take_lease(lease.name, self.holder, ttl_s=LEASE_S)

        thread = threading.Thread(target=renew, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        self.control.release_lease(lease)

    def frozen(self, tenant: str, policy: str) -> bool:
        """Whether learning is stopped: by the policy's own flag, by the layer's, or by the file (promise 7)."""
        return bool(frozen_of(self.control, tenant, policy))

    def _do(self, job: Job) -> None:
        try:
            check_deaths(self.control, job)
            result = self._learn(job)
        except Unsaid:
            log.info("job %s begins again: a note that it learned from was taken back", job.id)
            self._checkpoint(job).unlink(missing_ok=True)  # it holds what was taken back
            forget_deaths(self.control, job)
            jobs.update_job(self.control, job, state=JobState.QUEUED, progress=0.0)
            return
        except Exception as error:
            reason = str(error)
            if not isinstance(error, DayjobError):
                log.exception("job %s failed", job.id)
                reason = f"the learner failed ({type(error).__name__}: {error}): see its log, then ask again"
            jobs.update_job(self.control, job, state=JobState.FAILED, progress=1.0, error=reason)
            self._checkpoint(job).unlink(missing_ok=True)  # it may hold what somebody taught who was erased meanwhile
            return
        jobs.update_job(self.control, job, state=JobState.SUCCEEDED, progress=1.0, result=result)
        drop_orphans(self.control, job.tenant, job.policy)

    def _learn(self, job: Job) -> Json:
        """One night, on one page: begin, learn, publish, register."""
        work = self._begin(job)
        made = self._made(work)
        if made.publish is None:
            if work.tainted or (work.unlearned and made.is_empty):
                reason = UNLEARNED if work.unlearned else made.why
                return self._rebuilt(work, work.baseline, reason, told=made.told)
            return {"challenger": None, "reason": made.why} | made.told
        version = self._publish(work, made.publish, made=made)
        if work.tainted:
            made.after(version)
            return self._rebuilt(work, version.name, REBUILT, told=made.told)
        if version.status is not VersionStatus.WAITING:
            reason = f"it came out equal to {version.name}, which was learned before and stands as: {version.status}"
            reason += HELD if version.status is VersionStatus.HELD else ""
            return {"challenger": None, "reason": reason} | made.told
        made.after(version)
        return {"challenger": version.name} | made.told

    def _begin(self, job: Job) -> Work:
        """What a job asks for, as things stand now."""
        control, tenant = self.control, job.tenant
        policy = control.policy(tenant, policy_of(job.policy))
        began = self.reader.last_seq()
        job = jobs.start_job(control, job, newest_seq=began)
        pointers = control.pointers(tenant, job.policy)
        champion = control.version(tenant, job.policy, pointers.champion)
        # A champion that learned from someone since erased is built again over its own range, without them.
        tainted = champion.status is VersionStatus.TAINTED
        unlearned = 0 if tainted else self._unlearned(job, champion)
        again = tainted or (unlearned > 0 and not is_personal(job.policy))
        until = champion.to_seq if again else job.until_seq
        assert until is not None, "start_job has set it"
        return Work(
            job=job, policy=policy, champion=champion, baseline=pointers.baseline, until=until, began=began,
            recipe=champion.recipe if again else job.recipe, checkpoint=self._checkpoint(job),
            progress=self._progress(job), tainted=tainted, unlearned=unlearned,
        )  # fmt: skip

    def _unlearned(self, job: Job, champion: Version) -> int:
        """How many of the lessons that a champion learned were taken back since.

        Everybody's version is made again over the champion's own range, so that nothing new comes in without proof. If
        that was done before and did not become champion, the next night is an ordinary one.
        """
        if self.nights is None or not champion.number:
            return 0
        known = self.control.versions(job.tenant, job.policy)
        tried = any(one.number > champion.number and one.to_seq == champion.to_seq for one in known)
        if tried and not is_personal(job.policy):
            return 0
        owner = owner_of(self.control, job.tenant, job.policy)
        memory, name = self.nights.memory, policy_of(job.policy)
        return len(memory.withdrawn(job.tenant, name, user=owner, version=champion.name))

    def _made(self, work: Work) -> Made:
        if jobs.budget_of(work.recipe) is None:
            return self._ranker(work) if work.policy.kind is PolicyKind.RANKER else self._language(work)
        if self.dream is None:
            raise Invalid(NO_DREAMS)
        return self.dream(work)

    def _ranker(self, work: Work) -> Made:
        """A ranker's night: the closed decisions, fitted."""
        tenant, policy = work.policy.tenant, work.policy
        try:
            found = collect(
                self.reader, tenant, policy.name, spec=policy.spec, until=work.until,
                silent=self.control.silent_people(),
            )  # fmt: skip
        except Invalid:
            if not work.tainted:
                raise
            # Nobody else had taught it: without them there is only the baseline.
            return Made(why=NOTHING_LEFT)
        fitted = fit(
            found.replay, shape=policy.spec["hidden"], recipe=RECIPES[work.recipe], seed=SEED,
            checkpoint=work.checkpoint, progress=work.progress,
        )  # fmt: skip
        stats: Json = fitted.stats | found.stats
        told: Json = {"decisions": len(found.replay), "stats": stats}
        if fitted.stats.get("kept_baseline"):
            return Made(why=NO_PROOF, told=told)
        return Made(
            told=told, publish=partial(versions.publish, weights=fitted.weights), network=fitted.network,
            from_seq=found.from_seq, to_seq=found.to_seq, users=found.users, detail={"stats": stats},
        )  # fmt: skip

    def _language(self, work: Work) -> Made:
        """A language policy's night, of the tenant's layer or of a person's."""
        told = lacking(work.policy, recipe=work.recipe, nights=self.nights, dreams=True)
        if told or self.nights is None:
            raise Invalid(told)
        # transformers is heavy, and a learner of rankers does without it.
        from dayjob.learn.language.job import learn_layer

        return learn_layer(work, self.nights, control=self.control, reader=self.reader)

    def _rebuilt(self, work: Work, name: str, reason: str, *, told: Json) -> Json:
        """Put ``name`` in the place of a champion that must go; what to say of it."""
        champion = work.champion
        if not rebuild(
            self.control, champion.tenant, champion.policy, champion=champion.name, name=name, unlearned=work.unlearned
        ):
            reason = f"{champion.name} was to be built again, and another version serves by now"
        return {"challenger": None, "reason": reason, "decisions": 0} | told

    def _progress(self, job: Job) -> Callable[[float], None]:
        """Report progress and keep the lease, at most once a second."""
        last = 0.0

        def say(share: float) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last < TOLD_EVERY_S:
                return
            last = now
            self.told(share)
            if self.frozen(job.tenant, job.policy):
                raise Conflict(
                    f"policy {policy_of(job.policy)!r} was frozen while it learned: unfreeze it and ask again"
                )
            self.control.take_lease(f"learn/{job.tenant}/{job.policy}", self.holder, ttl_s=LEASE_S)
            jobs.update_job(self.control, job, state=JobState.RUNNING, progress=share)

        return say

    def _publish(self, work: Work, publish: Publish, *, made: Made) -> Version:
        """Weights to disk, then the row that makes them a waiting challenger, then who taught it."""
        control, tenant, name = self.control, work.job.tenant, work.job.policy
        known = control.versions(tenant, name)
        manifest = versions.VersionManifest(
            recipe=work.recipe, network=made.network, from_seq=made.from_seq, to_seq=made.to_seq, seed=SEED,
            created_ms=int(time.time() * 1000), parent=control.pointers(tenant, name).champion,
        )  # fmt: skip
        stored = publish(self.root, tenant, name, number=known[-1].number + 1, manifest=manifest)
        # What came out equal before and is damaged on the disk is published anew: these files are sound.
        equal = [one for one in known if one.digest == stored.digest and one.status is not VersionStatus.DAMAGED]
        if equal and not all(map(made.looks_again, equal)):
            versions.remove(self.root, tenant, name, stored.version)
            return equal[-1]
        version = Version(
            tenant=tenant, policy=name, name=stored.version, number=known[-1].number + 1, parent=manifest.parent,
            recipe=work.recipe, digest=stored.digest, from_seq=made.from_seq, to_seq=made.to_seq,
            status=VersionStatus.WAITING, created_ms=manifest.created_ms, detail=made.detail,
        )  # fmt: skip
        try:
            states = made.states(stored)
        except Exception:
            versions.remove(self.root, tenant, name, stored.version)  # somebody may be gone by the next try
            raise
        self._register(version, work, made=made, states=states)
        return version

    def _register(self, version: Version, work: Work, *, made: Made, states: Mapping[str, Json]) -> None:
        """The row of a version, what was found out about it and who taught it, in one transaction, unless somebody
        among them was erased meanwhile, or something that they said was taken back.

        Asked again once it is written: the journal is another file, and an erasure may have fallen in between. A
        learner killed at that very moment leaves it to `steering.taint_overlooked`.
        """
        control, tenant, policy = self.control, version.tenant, version.policy
        secret = control.secret("journal")
        marks = [person_mark(secret, tenant, user) for user in made.users]
        try:
            try:
                made.check()
            except Unsaid:  # also where it is gone because of who said it: then that is what happened
                self._check_nobody_left(tenant, marks, after=work.began)
                raise
            with control.write() as db:
                check_open(db, work.job)
                db.execute(VERSIONS.insert("INSERT OR IGNORE"), version_row(version))
                put_taught(db, tenant, policy, version=version.name, marks=marks)
                for name, state in states.items():
                    put_state(db, tenant, policy, name=name, state=state)
                self._check_nobody_left(tenant, marks, after=work.began)
        except (Conflict, Erased, Unsaid):
            with suppress(NotFound):  # whoever withdrew the layer took its files along
                versions.remove(self.root, tenant, policy, version.name)
            raise
        try:
            self._check_nobody_left(tenant, marks, after=work.began)
        except Conflict:
            taint(control, tenant, [(policy, version.name)])
            raise

    def _check_nobody_left(self, tenant: str, marks: Sequence[bytes], *, after: int) -> None:
        if self.reader.any_erased(tenant, marks, after=after):
            raise Conflict("somebody was erased while this version learned from them: ask again")
