"""`dayjob dream`: what it refuses before a job is made, and what it says of one that was done."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dayjob.cli import app, dream
from dayjob.cli.processes import print_job
from dayjob.endings import Invalid, JobState, PolicyKind, VersionStatus
from dayjob.journal.control import Control
from dayjob.journal.jobs import unfinished
from dayjob.journal.store import Store
from dayjob.records import Job, Policy, Version

SPEC = {
    "kind": "ranker", "context_dim": 1, "candidate_dim": 1, "pair_dim": 0, "hidden": [4], "recipe": "naive",
    "metric": "click", "reward_range": [0, 1], "outcome_window_s": 60, "learn_every": 0,
}  # fmt: skip


@pytest.fixture
def control(tmp_path: Path) -> Control:
    one = Control(tmp_path / "data")
    store = Store(tmp_path / "data", secret=one.secret("journal"), find_spec=lambda *_: (PolicyKind.RANKER, SPEC))
    store.close()
    baseline = Version(
        tenant="default", policy="geo", name="v0-baseline", number=0, parent=None, recipe="baseline",
        digest="0" * 64, from_seq=0, to_seq=0, status=VersionStatus.BASELINE, created_ms=0,
    )  # fmt: skip
    one.create_policy(Policy(tenant="default", name="geo", kind=PolicyKind.RANKER, spec=SPEC, created_ms=0), baseline)
    return one


def test_a_ranker_without_clicks_dreams_of_nothing_and_says_why(control: Control):
    told = CliRunner().invoke(app, ["dream", "geo", "--data", str(control.root), "--budget", "2", "--json"])
    assert told.exit_code == 0, told.output
    said = json.loads(told.stdout)
    assert (said["recipe"], said["state"]) == ("dream-x2", "succeeded")
    assert said["result"]["challenger"] is None
    assert said["result"]["reason"]


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["geo", "--budget", "0"], "above 0 and at most 64"), (["geo", "--budget", "65"], "at most 64"),
        (["geo", "--user", "ann"], "leave out --user"), (["nobody"], "nobody"),
    ],
)  # fmt: skip
def test_what_cannot_be_dreamt_is_said_before_a_job_is_made(control: Control, arguments: list[str], remedy: str):
    told = CliRunner().invoke(app, ["dream", *arguments, "--data", str(control.root)])
    assert told.exit_code != 0
    assert remedy in str(told.exception)
    assert unfinished(control) == []


def job(**changes: object) -> Job:
    fields = {
        "id": "j", "tenant": "default", "policy": "clerk", "recipe": "dream-x1", "state": JobState.SUCCEEDED,
        "progress": 1.0, "result": None, "error": None, "created_ms": 0, "updated_ms": 0, "until_seq": 1,
    }  # fmt: skip
    return Job(**fields | changes)  # type: ignore[arg-type]


def test_a_dream_is_told_environment_by_environment(capsys: pytest.CaptureFixture[str]):
    held = {"name": "see: recorded", "author": "offline", "admitted": True, "reason": "", "before": 0.25, "after": 0.75,
            "shown": 1}  # fmt: skip
    broken = held | {"name": "p", "admitted": False, "reason": "trivial: silence solves seed 3"}
    told = {
        "environments": [held, broken],
        "faults": ["its calls were spent"],
        "episodes": 64,
        "tokens": 9000,
        "steps": 3,
    }
    print_job(job(result={"challenger": "v1-0a", "dream": told}), as_json=False, lines=dream._lines)
    assert capsys.readouterr().out.splitlines() == [
        "see: recorded (by offline): admitted",
        "  solved 25% before the rehearsal, 75% after, with 1 of the solution shown",
        "p (by offline): rejected: trivial: silence solves seed 3",
        "the author: its calls were spent",
        "64 attempts, 9,000 tokens, best after 3 steps",
        "v1-0a waits for the gate",
    ]
    with pytest.raises(Invalid, match="the base is gone"):
        print_job(job(state=JobState.FAILED, error="the base is gone"), as_json=False, lines=dream._lines)
    print_job(job(state=JobState.QUEUED), as_json=False, lines=dream._lines)
    assert "stopped before its end" in capsys.readouterr().out
