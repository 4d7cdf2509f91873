"""A policy that a real learner learns from, fast: a few hundred clicks, and a recipe that always makes a version."""

import contextlib
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dayjob.endings import JobState
from dayjob.journal.columns import JOBS
from dayjob.journal.control import Control
from dayjob.journal.rows import connect
from dayjob.journal.versions import load
from tests.promises.rig import POLICY, SPEC, Link, rank_body

KEY = ("default", POLICY)
LEARNED_SPEC = SPEC | {"recipe": "naive", "hidden": [16], "learn_every": 0, "outcome_window_s": 60.0}


def declare(link: Link, **settings: Any) -> None:
    link.ok("PUT", f"/v1/policies/{POLICY}", LEARNED_SPEC | settings)


def teach(link: Link, count: int, *, seed: int = 0) -> list[str]:
    """Decisions, and a click for each: most on whatever has the caller's lowest score. Their ids."""
    dice, told, outcomes = random.Random(seed), list[str](), list[dict[str, Any]]()
    for number in range(count):
        answer = link.ok("POST", "/v1/rank", rank_body(number))
        places = answer["ranking"]
        wanted = min(places, key=lambda place: place["score"]) if dice.random() < 0.7 else places[0]
        outcomes.append({"decision": answer["id"], "kind": "click", "item": wanted["id"]})
        told.append(answer["id"])
        if len(outcomes) == 50 or number == count - 1:
            answers = link.ok("POST", "/v1/feedback", {"items": outcomes})["items"]
            assert {one["status"] for one in answers} == {201}
            outcomes = []
    return told


def jobs(root: Path) -> dict[str, JobState]:
    """Every job there ever was."""
    db = connect(root / "control.db", write=False)
    rows = db.execute(JOBS.select("ORDER BY created_ms")).fetchall()
    db.close()
    return {str(row[2]): JobState(row[4]) for row in rows}


def at_work(root: Path, since_ms: int) -> bool:
    """Whether a learner has done something since."""
    db = connect(root / "control.db", write=False)
    query = "SELECT 1 FROM jobs WHERE state IN ('running', 'succeeded') AND updated_ms>?"
    found = db.execute(query, (since_ms,)).fetchone()
    db.close()
    return found is not None


def ask(link: Link) -> str:
    """A job."""
    return str(link.ok("POST", f"/v1/policies/{POLICY}/learn", {})["job"])


def until(true: Callable[[], bool], what: str, within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, f"waited in vain for: {what}"
        time.sleep(0.02)


def end_leases(root: Path) -> None:
    """The leases of the dead run out; here at once."""
    control = Control(root)
    with control.write() as db:
        db.execute("UPDATE leases SET until_ms=0")
    control.db().close()


def check_versions(root: Path) -> list[str]:
    """Every registered version is whole on the disk, and nothing else has a version's name; their names."""
    control = Control(root)
    names = []
    for version in control.versions(*KEY):
        if version.number:
            load(root, *KEY, version.name, digest=version.digest)
        names.append(version.name)
    champion = control.pointers(*KEY).champion
    control.db().close()
    assert champion in names
    return names


def listed(link: Link) -> list[str]:
    """The versions that the server tells of."""
    with contextlib.suppress(KeyError):
        return [one["version"] for one in link.ok("GET", f"/v1/policies/{POLICY}/versions")["versions"]]
    return []
