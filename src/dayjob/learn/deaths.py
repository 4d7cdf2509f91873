"""Learners that died over a job: after so many of them it is given up."""

import os

from dayjob.endings import Conflict
from dayjob.journal.control import Control, put_state
from dayjob.records import Job

DEATHS = 5  # of learners over one job, after which it is given up; kills from outside should not use them up
TAKEN = "taken"  # the state that says which job was taken up last, by whose child, and how many died over it


def check_deaths(control: Control, job: Job) -> None:
    """Count the learners that died over a job while whoever started them lived on (killed for memory, most likely: a
    restart ends both). Raises Conflict when ``DEATHS`` did: another would die too, and nobody else's job would ever be
    done."""
    address, parent = (job.tenant, job.policy), os.getppid()
    taken = control.state(*address, TAKEN) or {}
    deaths = int(taken["deaths"]) + (taken["parent"] == parent) if taken.get("job") == job.id else 0
    with control.write() as db:
        put_state(db, *address, name=TAKEN, state={"job": job.id, "parent": parent, "deaths": deaths})
    if deaths >= DEATHS:
        raise Conflict(
            f"the learner died {deaths} times over this job, most likely for want of memory: give it more, or "
            "declare a smaller policy; see the system's log, then ask again"
        )


def forget_deaths(control: Control, job: Job) -> None:
    """Of a job that is put back by whoever had it: nobody died."""
    with control.write() as db:
        put_state(db, job.tenant, job.policy, name=TAKEN, state={})
