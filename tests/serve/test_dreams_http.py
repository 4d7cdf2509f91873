"""Dreams over the wire: asked for, told of, and by whom."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from starlette.testclient import TestClient

from dayjob.endings import JobState
from dayjob.journal import jobs
from dayjob.journal.control import add_point, put_state
from dayjob.journal.layers import address_of
from dayjob.serve import answers_language as models
from dayjob.serve.app import create_app
from dayjob.serve.auth import parse_keys
from tests.policies.language.worlds import World
from tests.serve.adapting import publish, serve_tiny
from tests.serve.chatting import LANGUAGE
from tests.serve.test_nights_http import KEYS, Office

ENVIRONMENT = {
    "name": "see: recorded", "author": "offline", "digest": "ab" * 32, "admitted": True, "reason": "", "shown": 1,
    "checks": [{"name": "loads", "holds": True, "reason": "", "figures": {}}], "faithful": {"share": 1.0},
    "before": 0.25, "after": 0.75, "dropped": False,
}  # fmt: skip
REJECTED = ENVIRONMENT | {
    "name": "p",
    "admitted": False,
    "reason": "trivial: silence solves seed 3",
    "before": None,
    "after": None,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make("qwen3", tmp_path_factory.mktemp("adapters"))


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    service = serve_tiny(tmp_path, parse_keys(KEYS, source="test"))
    with TestClient(create_app(service), base_url="http://127.0.0.1") as client:
        one = Office(client, service)
        one("boss", "PUT", "/v1/policies/clerk", LANGUAGE, expect=201)
        yield one


def asked(office: Office, key: str, **body: Any) -> jobs.Job:
    told = office(key, "POST", "/v1/policies/clerk/dream", body, expect=202)
    return jobs.get_job(office.service.hub.control, "default", told["job"])


def dreamt(office: Office, job: jobs.Job, **result: Any) -> None:
    """What a learner leaves behind."""
    control = office.service.hub.control
    point = {
        "job": job.id, "at_ms": 1_700_000_000_000, "budget": 4.0, "read": 20, "kept": 8,
        "faults": ["its calls were spent"],
        "author": {"calls": 0, "tokens": 0, "seconds": 0.0}, "steps": 3, "episodes": 64, "turns": 128, "tokens": 9_000,
        "environments": [ENVIRONMENT, REJECTED],
    }  # fmt: skip
    with control.write() as db:
        add_point(db, "default", job.policy, name="dreams", point=point)
    state = JobState.FAILED if "error" in result else JobState.SUCCEEDED
    error = result.pop("error", None)
    jobs.update_job(control, job, state=state, progress=1.0, result=result, error=error)


def dreams(office: Office, key: str, query: str = "") -> list[dict[str, Any]]:
    told = office(key, "GET", f"/v1/policies/clerk/dreams{query}")
    return [one.model_dump(mode="json") for one in models.DreamList.model_validate_json(orjson.dumps(told)).dreams]


def test_a_dream_is_a_job_of_its_layer_with_its_budget(office: Office):
    shared = asked(office, "app", budget=4)
    assert (shared.policy, shared.recipe) == ("clerk", "dream-x4")
    assert asked(office, "app", budget=8).id == shared.id
    own = asked(office, "ann")
    assert own.recipe == "dream-x1"
    assert own.policy == address_of(office.service.hub.control, "default", "clerk", "ann")
    assert office("app", "POST", "/v1/policies/clerk/learn", {}, expect=202)["job"] not in (shared.id, own.id)


def test_who_may_not_be_learned_from_or_spoken_for_does_not_dream(office: Office):
    office("ann", "POST", "/v1/policies/clerk/dream", {"user": "bob"}, expect=403)
    office("ann", "PATCH", "/v1/users/ann", {"learn": False})
    office("ann", "POST", "/v1/policies/clerk/dream", {}, expect=409)
    for wrong in ({"budget": 0}, {"budget": 64.5}, {"budget": "x"}, {"depth": 1}):
        office("app", "POST", "/v1/policies/clerk/dream", wrong, expect=422)
    office("boss", "POST", "/v1/policies/clerk/freeze", {})
    office("app", "POST", "/v1/policies/clerk/dream", {}, expect=409)
    office("app", "POST", "/v1/policies/nothing/dream", {}, expect=404)


def test_a_ranker_dreams_as_a_whole(office: Office):
    office("boss", "PUT", "/v1/policies/geo", {"kind": "ranker", "context_dim": 1, "candidate_dim": 1}, expect=201)
    job = office("app", "POST", "/v1/policies/geo/dream", {"budget": 2}, expect=202)["job"]
    assert jobs.get_job(office.service.hub.control, "default", job).recipe == "dream-x2"
    office("app", "POST", "/v1/policies/geo/dream", {"user": "ann"}, expect=422)
    office("app", "GET", "/v1/policies/geo/dreams", expect=422)


def test_dreams_are_told_newest_first_with_what_became_of_them(office: Office, world: World):
    assert dreams(office, "app") == []
    first = asked(office, "app")
    version = publish(office.service, world, 1)
    dreamt(office, first, challenger=version)
    with office.service.hub.control.write() as db:
        questions = [{"right_before": False, "right_after": True}, {"right_before": True, "right_after": True}]
        put_state(db, "default", "clerk", name=f"exam/{version}", state={"questions": questions})
    dreamt(office, asked(office, "app"), error="the base is gone")
    newest, oldest = dreams(office, "app")
    assert (newest["version"], newest["status"], newest["reason"]) == (None, None, "the base is gone")
    assert newest["transferred"] is None
    assert (oldest["version"], oldest["status"], oldest["reason"]) == (version, "waiting", "")
    assert oldest["transferred"] == {"questions": 2, "right_before": 1, "right_after": 2}
    assert oldest["at"] == "2023-11-14T22:13:20Z"
    assert oldest["environments"] == [ENVIRONMENT, REJECTED]
    assert [one["job"] for one in dreams(office, "app", "?limit=1")] == [newest["job"]]
    office("app", "GET", "/v1/policies/clerk/dreams?limit=0", expect=422)


def test_a_dream_that_was_taken_up_again_is_told_once(office: Office):
    job = asked(office, "app")
    dreamt(office, job, challenger=None, reason="no step was better")
    dreamt(office, job, challenger=None, reason="no step was better")
    assert [(one["job"], one["reason"]) for one in dreams(office, "app")] == [(job.id, "no step was better")]


def test_a_person_s_dreams_are_theirs(office: Office):
    dreamt(office, asked(office, "ann"), challenger=None, reason="nothing held")
    assert len(dreams(office, "ann")) == 1
    assert len(dreams(office, "app", "?user=ann")) == 1
    assert dreams(office, "app") == []
    assert dreams(office, "bob") == []
    office("bob", "GET", "/v1/policies/clerk/dreams?user=ann", expect=403)
