"""What is said of one person's adapter that was steered by hand, is frozen, or learns right now."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from dayjob.endings import JobState, VerdictKind
from dayjob.journal.control import Control, add_verdict
from dayjob.journal.jobs import get_job, update_job
from dayjob.journal.layers import address_of
from dayjob.records import Verdict
from dayjob.serve.answers_language import NightList, PersonsPolicyView
from dayjob.serve.app import create_app
from dayjob.serve.call import Service
from tests.policies.language.worlds import World
from tests.serve.adapting import POLICY, TENANT, promote, publish, serve_tiny
from tests.serve.asking import error_of
from tests.serve.chatting import LANGUAGE

HELD = "It has not learned. 0 of 1."


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make("qwen3", tmp_path_factory.mktemp("adapters"))


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return serve_tiny(tmp_path)


@pytest.fixture
def http(service: Service) -> Iterator[TestClient]:
    with TestClient(create_app(service), base_url="http://127.0.0.1") as client:
        assert client.put(f"/v1/policies/{POLICY}", json=LANGUAGE).status_code == 201
        yield client


def of_ann(service: Service) -> str:
    return address_of(service.hub.control, TENANT, POLICY, "ann")


def gate_says(control: Control, address: str, version: str, *, kind: VerdictKind, reason: str) -> None:
    with control.write() as db:
        add_verdict(db, Verdict(tenant=TENANT, policy=address, challenger=version, champion="v0-baseline", kind=kind,
                                reason=reason, evidence={}, at_ms=5, by="gate"))  # fmt: skip


def adapter(http: TestClient) -> dict[str, Any]:
    told = http.get(f"/v1/policies/{POLICY}?user=ann")
    PersonsPolicyView.model_validate_json(told.content)
    return dict(told.json()["adapter"])


def test_what_the_gate_said_stands_beside_what_was_done_by_hand(http, service, world):
    version = publish(service, world, 1, user="ann")
    gate_says(service.hub.control, of_ann(service), version, kind=VerdictKind.HOLD, reason=HELD)

    def night() -> dict[str, Any]:
        told = http.get(f"/v1/policies/{POLICY}/nights?user=ann")
        NightList.model_validate_json(told.content)
        (one,) = told.json()["nights"]
        return dict(one)

    assert night()["verdict"] == night()["gate_verdict"]
    promote(http, version, user="ann")
    one = night()
    assert (one["verdict"]["by"], one["verdict"]["reason"]) == ("hand", "try")
    assert (one["gate_verdict"]["kind"], one["gate_verdict"]["by"]) == ("hold", "gate")
    assert one["gate_verdict"]["reason"] == HELD
    http.post(f"/v1/policies/{POLICY}/rollback", json={"user": "ann"}).raise_for_status()
    one = night()
    assert (one["verdict"]["kind"], one["verdict"]["by"]) == ("rollback", "hand")
    assert one["gate_verdict"]["kind"] == "hold"


def test_a_night_that_the_gate_never_judged_has_no_verdict_of_its(http, service, world):
    version = publish(service, world, 1, user="ann")
    promote(http, version, user="ann")
    (one,) = http.get(f"/v1/policies/{POLICY}/nights?user=ann").json()["nights"]
    assert (one["verdict"]["by"], one["gate_verdict"]) == ("hand", None)


def test_a_persons_night_is_told_until_it_is_over(http, service):
    control = service.hub.control
    first = http.post(f"/v1/policies/{POLICY}/learn", json={"user": "ann"}).json()["job"]
    dream = http.post(f"/v1/policies/{POLICY}/dream", json={"user": "ann"}).json()["job"]
    http.post(f"/v1/policies/{POLICY}/learn", json={"user": "bob"}).raise_for_status()
    assert adapter(http)["job"] == first
    update_job(control, get_job(control, TENANT, dream), state=JobState.RUNNING, progress=0.25)
    assert adapter(http)["job"] == dream, "of several the one at work"
    shown = http.get(f"/policies/{POLICY}").text
    assert "3 nights of people&#39;s own weights: 1 running, 2 queued" in " ".join(shown.split())
    assert "No night is being learned" not in shown
    rows = control.db().execute("SELECT tenant, id FROM jobs").fetchall()
    for row in rows:
        job = get_job(control, *row)
        if job.id != first:
            update_job(control, job, state=JobState.SUCCEEDED, progress=1.0, result={})
    update_job(control, get_job(control, TENANT, first), state=JobState.RUNNING, progress=0.5)
    assert "A night of one person&#39;s own weights: running, 50%" in http.get(f"/policies/{POLICY}").text
    update_job(control, get_job(control, TENANT, first), state=JobState.FAILED, progress=1.0, error="no memory")
    assert adapter(http)["job"] is None
    assert "No night is being learned" in http.get(f"/policies/{POLICY}").text


def test_a_frozen_adapter_refuses_a_night_and_is_left_out_of_everybodys(http, service, world):
    publish(service, world, 1, user="ann")
    publish(service, world, 1, user="bob")
    control, address = service.hub.control, of_ann(service)
    control.move(TENANT, address, change={"frozen": "champion"})
    for kind in ("learn", "dream"):
        told = error_of(http.post(f"/v1/policies/{POLICY}/{kind}", json={"user": "ann"}), 409)
        assert f"dayjob freeze {POLICY} --user NAME --off" in told["message"]
    http.post(f"/v1/policies/{POLICY}/learn", json={}).raise_for_status()
    bobs = address_of(control, TENANT, POLICY, "bob")
    assert {str(row[0]) for row in control.db().execute("SELECT policy FROM jobs")} == {POLICY, bobs}
    control.move(TENANT, address, change={"frozen": ""})
    assert http.post(f"/v1/policies/{POLICY}/learn", json={"user": "ann"}).status_code == 202
