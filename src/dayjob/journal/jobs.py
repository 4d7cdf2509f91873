"""Learning jobs as rows: asked for over HTTP, done by the learner, which may die and come back."""

import time
import uuid
from typing import Any

import apsw

from dayjob.endings import Invalid, JobState, NotFound
from dayjob.journal.columns import JOBS
from dayjob.journal.control import Control
from dayjob.journal.rows import dumps, loads
from dayjob.records import Job, Json

DREAM = "dream-x"  # a dream's recipe, before its budget
MOST_BUDGET = 64.0


def dream_recipe(budget: float) -> str:
    """The recipe of a dream of so many times the compute of the night without it, above 0 to 64. Raises Invalid.

    >>> dream_recipe(4.0), budget_of("dream-x0.5"), budget_of("consolidate")
    ('dream-x4', 0.5, None)
    """
    if not 0.0 < budget <= MOST_BUDGET:
        raise Invalid(f"a dream's budget is {budget:g}: above 0 and at most {MOST_BUDGET:g} times", param="budget")
    return f"{DREAM}{budget:g}"


def budget_of(recipe: str) -> float | None:
    """The budget of a dream; None for any other recipe."""
    return float(recipe.removeprefix(DREAM)) if recipe.startswith(DREAM) else None


def request_job(control: Control, tenant: str, policy: str, *, recipe: str) -> Job:
    """The policy's unfinished job, or a new one: asking twice starts one. A dream is a job beside that of a night."""
    with control.write() as db:
        return put_job(db, tenant, policy, recipe=recipe)


def put_job(db: apsw.Connection, tenant: str, policy: str, *, recipe: str) -> Job:
    """The same, inside a transaction."""
    row = db.execute(
        JOBS.select(
            "WHERE tenant=? AND policy=? AND state IN ('queued', 'running') AND (instr(recipe, ?)=1)=? LIMIT 1"
        ),
        (tenant, policy, DREAM, recipe.startswith(DREAM)),
    ).fetchone()
    if row is None:
        now = int(time.time() * 1000)
        row = (tenant, policy, str(uuid.uuid4()), recipe, JobState.QUEUED.value, 0.0, None, None, now, now, None)
        db.execute(JOBS.insert(), row)
    return _row_job(row)


def get_job(control: Control, tenant: str, job_id: str) -> Job:
    """One job. Raises NotFound."""
    row = control.db().execute(JOBS.select("WHERE tenant=? AND id=?"), (tenant, job_id)).fetchone()
    if row is None:
        raise no_job(job_id)
    return _row_job(row)


def no_job(job_id: str) -> NotFound:
    """What is said of a job that there is not, and of one that is somebody else's."""
    return NotFound(f"there is no job {job_id!r}: ask by the id that POST /v1/policies/NAME/learn answered with")


def unfinished(control: Control) -> list[Job]:
    """Jobs to do, oldest first; a running one was interrupted and is taken up again."""
    rows = control.db().execute(JOBS.select("WHERE state IN ('queued', 'running') ORDER BY created_ms"))
    return [_row_job(row) for row in rows]


def last_dream(control: Control, tenant: str, policy: str) -> Job | None:
    """The policy's newest dream that has ended, well or not; None before there is one."""
    row = (
        control.db()
        .execute(
            JOBS.select(
                "WHERE tenant=? AND policy=? AND state IN ('succeeded', 'failed') AND instr(recipe, ?)=1 "
                "ORDER BY updated_ms DESC, created_ms DESC LIMIT 1"
            ),
            (tenant, policy, DREAM),
        )
        .fetchone()
    )
    return None if row is None else _row_job(row)


def start_job(control: Control, job: Job, *, newest_seq: int) -> Job:
    """Take a job up. It reads the journal through where that ended when it was taken up first.

    Whoever takes up an interrupted job reads the same range, however much was written since: the same weights.
    """
    with control.write() as db:
        db.execute(
            "UPDATE jobs SET state=?, progress=0.0, until_seq=COALESCE(until_seq, ?), updated_ms=? "
            "WHERE tenant=? AND policy=? AND id=?",
            (JobState.RUNNING.value, newest_seq, int(time.time() * 1000), job.tenant, job.policy, job.id),
        )
    return get_job(control, job.tenant, job.id)


def update_job(
    control: Control,
    job: Job,
    *,
    state: JobState,
    progress: float,
    result: Json | None = None,
    error: str | None = None,
) -> None:
    """Say how far a job is."""
    with control.write() as db:
        db.execute(
            "UPDATE jobs SET state=?, progress=?, result=?, error=?, updated_ms=? WHERE tenant=? AND policy=? AND id=?",
            (
                state.value, progress, None if result is None else dumps(result), error, int(time.time() * 1000),
                job.tenant, job.policy, job.id,
            ),
        )  # fmt: skip


def _row_job(row: tuple[Any, ...]) -> Job:
    return Job(
        tenant=row[0], policy=row[1], id=row[2], recipe=row[3], state=JobState(row[4]), progress=row[5],
        result=loads(row[6]), error=row[7], created_ms=row[8], updated_ms=row[9], until_seq=row[10],
    )  # fmt: skip
