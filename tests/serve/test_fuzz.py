"""Thousands of requests made from the published document: never a 5xx, and every answer is one the document names."""

import base64
import json
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import httpx2
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from dayjob.lab.server import Server
from dayjob.serve.openapi import document
from dayjob.serve.routes import ROUTES
from tests.serve.chatting import HELLO, LANGUAGE, chatting

SCHEMA = schemathesis.openapi.from_dict(document(ROUTES))
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
RANKER = {"kind": "ranker", "context_dim": 2, "candidate_dim": 2, "pair_dim": 1}
OPERATIONS = [(method.upper(), path) for path, methods in document(ROUTES)["paths"].items() for method in methods]
A_FEW, SOME, MANY = 12, 36, 550
SPOKEN = ("/nights", "/conversations", "/compare", "/completions", "/dreams", "/lessons", "/notes")
CHAT = ("stream", "temperature", "top_p", "logprobs", "user")  # of many fields: with all at once nothing gets through
USERS, SESSIONS, ITEMS = ("u1", "u2"), ("s1",), ("a", "b", "c")


LINE = st.fixed_dictionaries(
    {"id": st.text(max_size=4)},
    optional={
        "features": st.lists(st.floats() | st.integers(), max_size=3),
        "features_b64": st.binary(max_size=9).map(lambda raw: base64.b64encode(raw).decode()),
        "meta": st.dictionaries(st.text(max_size=3), st.none() | st.integers() | st.text(max_size=3), max_size=2),
    },
)


@schemathesis.serializer("application/x-ndjson")
def ndjson(_context: Any, value: Any) -> bytes:
    """The text as it is."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Rankers, and a language policy over a tiny random model; what a learner would make of it is no matter here."""
    with chatting(tmp_path_factory.mktemp("fuzz"), environ={"DAYJOB_MAX_CANDIDATES": "50"}) as one:
        yield one


def prepare(server: Server, path: str) -> dict[str, list[Any]]:
    """See to it that the server has policies, a catalog, decisions, outcomes and a job. Real values by field."""
    with httpx2.Client(base_url=server.url, timeout=20) as http:
        for name in ("geo", "bare"):
            assert http.put(f"/v1/policies/{name}", json=RANKER).status_code in (200, 201)
            assert http.post(f"/v1/policies/{name}/unfreeze", json={}).status_code == 200
        lines = "\n".join(json.dumps({"id": one, "features": [n, 1]}) for n, one in enumerate(ITEMS))
        headers = {"Content-Type": "application/x-ndjson"}
        assert http.put("/v1/policies/geo/catalog", content=lines.encode(), headers=headers).status_code == 200
        asked = {"policy": "geo", "context": {"features": [1, 0]}, "user": "u1", "session": "s1"}
        decisions = [http.post("/v1/rank", json=asked).json()["id"] for _ in range(8)]
        told = [
            http.post("/v1/feedback", json={"decision": one, "kind": "click", "position": 1}).json()["id"]
            for one in decisions[:4]
        ]
        job = http.post("/v1/policies/geo/learn", json={}).json()["job"]
        assert http.put("/v1/policies/clerk", json=LANGUAGE).status_code in (200, 201)
        spoken_in = str(uuid.uuid4())  # a session is whose latest decision it holds: a generated one may take it over
        asked = {"model": "clerk", "messages": HELLO, "max_tokens": 4, "user": "u1", "metadata": {"session": spoken_in}}
        said = http.post("/v1/chat/completions", json=asked)
        assert said.status_code == 200, said.text
        answer = said.json()["id"]
        said = {"decision": answer, "kind": "correction", "text": "noon"}
        lesson = http.post("/v1/feedback", json=said).json()["id"]
    spoken = any(word in path for word in SPOKEN)
    names = ["clerk"] if spoken else ["geo", "bare"] if path == "/v1/rank" else ["geo", "bare", "clerk"]
    return {
        "name": names, "policy": names, "user": [*USERS], "session": [*SESSIONS, spoken_in], "job": [job],
        "model": ["clerk"], "messages": [HELLO], "max_tokens": [1, 4], "max_completion_tokens": [1, 4],
        "text": ["noon", "five"], "item": [*ITEMS], "decision": [*decisions, answer], "to": ["v0-baseline"],
        "id": [answer, lesson] if spoken else [*decisions, *told, *ITEMS, answer, lesson],
        "version": ["v0-baseline"], "value": [*told, 1.0, 0.5], "features": [[1, 0], [0.5, 2]], "pair": [[0.5]],
        "format": ["decisions"], "recipe": ["naive"], "context": [{"features": [1, 0]}, {"features": [-1, 1e3]}],
        "candidates": [None, [{"id": "a"}, {"id": "b"}], [{"id": "x", "features": [1, 2], "score": 1}, {"id": "a"}]],
        "loss": [None],
    }  # fmt: skip


def made_real(value: Any, world: dict[str, list[Any]], dice: st.DataObject) -> Any:
    """Now and then what the server knows in place of what was generated, so that requests get further."""
    if isinstance(value, Mapping):
        return {
            name: dice.draw(st.sampled_from(world[name]))
            if name in world and dice.draw(st.integers(0, 3))
            else made_real(inner, world, dice)
            for name, inner in value.items()
        }
    return [made_real(each, world, dice) for each in value] if isinstance(value, list) else value


def fuzz(server: Server, method: str, path: str, *, examples: int) -> Counter[int]:
    """Sends generated requests of one operation, fitting ones and others, and checks each answer; counts by status."""
    world, operation = prepare(server, path), SCHEMA[path][method]
    fitting = operation.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE)
    kinds = [fitting]
    if operation.body or operation.query:
        kinds.append(operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE))
    statuses: Counter[int] = Counter()
    with requests.Session() as session:

        @settings(
            max_examples=examples, deadline=None, database=None, phases=[Phase.generate], derandomize=True,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=st.one_of(kinds), dice=st.data())
        def one(case: schemathesis.Case, dice: st.DataObject) -> None:
            case.path_parameters = made_real(case.path_parameters, world, dice)
            case.query = made_real(case.query, world, dice)
            case.body = made_real(case.body, world, dice)
            if path.endswith("/catalog") and dice.draw(st.booleans()):
                case.body = "\n".join(json.dumps(made_real(line, world, dice)) for line in dice.draw(st.lists(LINE)))
            if path.endswith("/completions") and isinstance(case.body, Mapping) and dice.draw(st.booleans()):
                kept = {name: value for name, value in case.body.items() if name in CHAT}
                case.body = kept | {"model": "clerk", "messages": HELLO, "max_tokens": 4}
            answer = case.call(base_url=server.url, session=session, timeout=20)
            statuses[answer.status_code] += 1
            case.validate_response(answer, checks=CHECKS)

        one()
    return statuses


def test_the_published_document_is_valid_openapi(server):
    told = httpx2.get(f"{server.url}/openapi.json").json()
    assert told == document(ROUTES)
    assert told["openapi"].startswith("3.1")
    SCHEMA.validate()


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_generated_requests_get_documented_answers(server, method, path):
    much = path in ("/v1/rank", "/v1/feedback", "/v1/chat/completions")
    statuses = fuzz(server, method, path, examples=SOME if much else A_FEW)
    assert statuses.total() >= 1
    if much or (method == "GET" and any(word in path for word in SPOKEN)):
        assert any(status < 300 for status in statuses), "no request got through"


@pytest.mark.slow
def test_ten_thousand_generated_requests(server):
    began, statuses = time.monotonic(), Counter[int]()
    for method, path in OPERATIONS:
        found = fuzz(server, method, path, examples=MANY)
        assert any(status < 300 for status in found), (method, path, found)
        statuses += found
    print(f"{statuses.total()} requests in {time.monotonic() - began:.0f} s: {dict(sorted(statuses.items()))}")
    assert statuses.total() >= 10_000
