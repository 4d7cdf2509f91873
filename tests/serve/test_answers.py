"""Every answer is what the published document says it is, field by field: fresh, and with much behind it."""

import json
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from starlette.testclient import TestClient

from dayjob.cli.assemble import load_ranker
from dayjob.cli.serve import assemble
from dayjob.config import Config
from dayjob.gate import judge as judging
from dayjob.gate.judge import Judge
from dayjob.learn.loop import Learner
from dayjob.serve import answers
from dayjob.serve.app import create_app
from dayjob.serve.call import NDJSON
from dayjob.serve.route import Route
from dayjob.serve.routes import ROUTES

RANKER = {
    "kind": "ranker", "context_dim": 3, "candidate_dim": 3, "recipe": "naive", "outcome_window_s": 1,
    "explore": {"changed_first": 0.5},
}  # fmt: skip
# Those of language policies need a model: their own tests hold them to what is published.
ELSEWHERE = (
    "/v1/policies/{name}/dream", "/v1/chat/completions", "/v1/models/{model}", "/v1/notes/{id}",
    "/v1/policies/{name}/nights", "/v1/policies/{name}/dreams", "/v1/policies/{name}/conversations",
    "/v1/lessons/{id}", "/v1/decisions/{id}/compare",
)  # fmt: skip
ANSWERING = [route for route in ROUTES if route.answer is not None and route.path not in ELSEWHERE]


class Lived:
    """A server in this process over a directory where something has happened."""

    def __init__(self, client: TestClient, service: Any, root: Path) -> None:
        self.client, self.hub, self.root = client, service.hub, root
        self.clock_ms = 1_700_000_000_000
        self.hub.wall_ms = lambda: self.clock_ms
        self.dice = np.random.default_rng(5)
        self.named: dict[str, str] = {}

    def __call__(self, method: str, path: str, body: Any = None) -> httpx2.Response:
        if isinstance(body, str):
            return self.client.request(method, path, content=body.encode(), headers={"Content-Type": NDJSON})
        return self.client.request(method, path, json=body)

    def rank(self, **changes: Any) -> dict[str, Any]:
        self.clock_ms += 100
        items = [{"id": f"i{k}", "features": self.dice.normal(size=3).tolist(), "score": -k} for k in range(4)]
        body = {"policy": "geo", "context": {"features": [1, 0, 0.5]}, "candidates": items}
        return self("POST", "/v1/rank", body | changes).json()

    def days(self, count: int) -> None:
        for n in range(count):
            told = self.rank(user=f"u{n % 9}")
            kinds = ({"kind": "click", "position": 1 + n % 3}, {"kind": "none"}, {"kind": "truth", "item": "i1"})
            more = [{"kind": "reward", "value": 0.5}] if n % 2 else []
            items = [{"decision": told["id"], **one} for one in (kinds[n % 3], *more)]
            assert self("POST", "/v1/feedback", {"items": items}).status_code == 200

    def night(self) -> str:
        job = self("POST", "/v1/policies/geo/learn", {}).json()["job"]
        learner = Learner(self.root, self.hub.control, self.hub.reader, threads=1, holder="test")
        while learner.step(watch_counts=False):
            pass
        return job

    def judged(self) -> None:
        judge = Judge(
            self.hub.control, self.hub.reader, load_ranker=partial(load_ranker, self.root), holder="j",
            now_ms=lambda: self.clock_ms,
        )  # fmt: skip
        while judge.step():
            pass


@pytest.fixture(scope="module", params=["fresh", "lived"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lived]:
    root = tmp_path_factory.mktemp("answers") / "data"
    service = assemble(Config(data=root, ballast_bytes=0, watch_share=0.3), ())
    with TestClient(create_app(service), base_url="http://127.0.0.1") as client, pytest.MonkeyPatch.context() as patch:
        patch.setattr(judging, "REPORT_S", 0.0)
        one = Lived(client, service, root)
        assert one("PUT", "/v1/policies/geo", RANKER).status_code == 201
        if request.param == "lived":
            one.days(60)
            one.night()
            one.judged()
            made = service.hub.control.versions("default", "geo")[-1].name
            assert one("POST", "/v1/policies/geo/promote", {"version": made, "reason": "test"}).status_code == 200
            one.days(60)
            one.named["job"] = one.night()
            one.judged()
            service.hub.refresh()
            one.days(120)
            one.judged()
        else:
            one.named["job"] = one("POST", "/v1/policies/geo/learn", {}).json()["job"]
        yield one


def asked(world: Lived, method: str, path: str) -> list[httpx2.Response]:
    """What a route answers to whatever fits it."""
    path = path.replace("{name}", "geo").replace("{user}", "u1").replace("{job}", world.named["job"])
    told = world.rank(id=str(uuid.uuid4()))
    one = {"decision": told["id"], "kind": "none"}
    bodies: dict[tuple[str, str], list[Any]] = {
        ("PUT", "/v1/policies/geo"): [RANKER],
        ("PUT", "/v1/policies/geo/catalog"): [json.dumps({"id": "a", "features": [1, 0, 0]})],
        ("POST", "/v1/rank"): [
            {"policy": "geo", "context": {"features": [1, 0, 0]}, "candidates": [{"id": "a", "features": [0, 1, 0]}]},
        ],
        ("POST", "/v1/feedback"): [
            {"id": str(uuid.uuid4()), **one}, one | {"decision": str(uuid.uuid4())},
            {"items": [one, {"kind": "click"}, one | {"kind": "thumb", "value": 1, "id": str(uuid.uuid4())}]},
        ],
        ("PATCH", "/v1/users/u1"): [{"learn": True}],
        ("POST", "/v1/policies/geo/rollback"): [{"to": "v0-baseline"}],
        ("POST", "/v1/policies/geo/promote"): [{"version": "v0-baseline", "reason": "test"}],
    }  # fmt: skip
    wanted = bodies.get((method, path), [{}] if method in ("POST", "PUT", "PATCH") else [None])
    return [world(method, path, body) for body in wanted]


@pytest.mark.parametrize("route", ANSWERING, ids=lambda route: f"{route.method} {route.path}")
def test_every_answer_fits_its_published_model(world: Lived, route: Route) -> None:
    model = route.answer
    assert model is not None
    if route.path.endswith("/learn"):
        world("POST", "/v1/policies/geo/unfreeze", {})
    for answer in asked(world, route.method, route.path):
        assert answer.status_code in route.statuses, answer.text
        parsed = model.model_validate_json(answer.content)
        again = json.loads(parsed.model_dump_json())
        assert set(again) >= set(answer.json())


def test_a_full_report_has_all_that_is_published(world: Lived) -> None:
    told = world("GET", "/v1/policies/geo/report").json()
    assert set(told) == set(answers.Report.model_fields)
    if told["made"] is not None:
        assert set(told["gate"]) == set(answers.GateReport.model_fields)
        assert set(told["feedback"]) == set(answers.FeedbackReport.model_fields)
        assert told["gate"]["verdicts"]
