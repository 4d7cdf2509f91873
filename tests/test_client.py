"""The client against a real HTTP server in a thread that can drop connections, stall, refuse and fail."""

import asyncio
import contextlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from dayjob import client_calls as calls
from dayjob.client import (
    ApiError,
    AsyncClient,
    Backoff,
    BadAnswer,
    Candidate,
    Client,
    Feedback,
    Ranking,
    Unreachable,
)
from dayjob.endings import Invalid, Role

QUICK = Backoff(retries=3, first_s=0.001, longest_s=0.01, obey_s=2.0)
RANKING = {
    "id": "0190a6c0-0000-7000-8000-000000000000",
    "policy": "geo",
    "version": "v0-00000000",
    "role": "champion",
    "role_propensity": 0.97,
    "log_propensity": -0.5,
    "token": None,
    "ranking": [
        {"id": "b", "position": 1, "score": 0.7, "propensity": 0.6},
        {"id": "a", "position": 2, "score": 0.1, "propensity": 1.0},
    ],
    "a_field_of_a_newer_server": True,
}


POLICY = {
    "name": "geo", "kind": "ranker", "spec": {}, "champion": "v0", "baseline": "v0", "frozen": False,
    "serves": "champion", "counts": {"decisions": 0, "outcomes": {}},
}  # fmt: skip


@dataclass
class Answer:
    """One scripted answer. ``drop``: the request is taken in full and the connection closed without a word."""

    status: int = 200
    body: Any = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False
    stall_s: float = 0.0


@dataclass
class Seen:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """Answers from a script, the last answer for ever; remembers what it was asked."""

    def __init__(self) -> None:
        self.script: list[Answer] = [Answer()]
        self.seen: list[Seen] = []
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                answer = server.take(Seen(self.command, self.path, dict(self.headers), body, time.monotonic()))
                time.sleep(answer.stall_s)
                self.close_connection = answer.drop
                if answer.drop:
                    return
                sent = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                with contextlib.suppress(ConnectionError):  # the client of a stalled answer has gone
                    self.send_response(answer.status)
                    for name, value in (answer.headers | {"Content-Length": str(len(sent))}).items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(sent)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

            def log_message(self, *_: Any) -> None:
                return

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def take(self, seen: Seen) -> Answer:
        with self._lock:
            self.seen.append(seen)
            return self.script.pop(0) if len(self.script) > 1 else self.script[0]

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


Call = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest, server: Server) -> Call:
    """``call(name, ...)`` makes one call with either client and gives its result."""

    def sync(name: str, *args: Any, timeout: float = 5.0, retries: int | Backoff = QUICK, **kwargs: Any) -> Any:
        with Client(server.url, key="sesame", timeout=timeout, retries=retries) as client:
            return getattr(client, name)(*args, **kwargs)

    def turned(name: str, *args: Any, timeout: float = 5.0, retries: int | Backoff = QUICK, **kwargs: Any) -> Any:
        async def one() -> Any:
            async with AsyncClient(server.url, key="sesame", timeout=timeout, retries=retries) as client:
                return await getattr(client, name)(*args, **kwargs)

        return asyncio.run(one())

    return sync if request.param == "sync" else turned


# ---- one id, one effect ----------------------------------------------------------------------------------------


def test_a_retry_after_a_dropped_connection_is_the_same_decision(server: Server, call: Call) -> None:
    server.script = [Answer(drop=True), Answer(502), Answer(504), Answer(body=RANKING)]
    answer = call("rank", "geo", [1.0, 0.0], candidates=[Candidate(id="a"), Candidate(id="b")])
    assert isinstance(answer, Ranking)
    bodies = [seen.body for seen in server.seen]
    assert len(bodies) == 4
    assert len(set(bodies)) == 1
    assert uuid.UUID(server.seen[0].json()["id"]).version == 7


def test_two_calls_are_two_decisions_and_a_given_id_is_kept(server: Server, call: Call) -> None:
    server.script = [Answer(body=RANKING)]
    mine = str(uuid.uuid4())
    for id in (None, None, mine):
        call("rank", "geo", [1.0], id=id)
    ids = [seen.json()["id"] for seen in server.seen]
    assert ids[2] == mine
    assert len(set(ids)) == 3


def test_feedback_keeps_its_id_over_retries_and_over_calls(server: Server, call: Call) -> None:
    item = Feedback(decision=RANKING["id"], kind="click", item="a", position=2)
    server.script = [Answer(drop=True), Answer(201), Answer(200)]
    assert call("feedback", item).status == 201
    assert call("feedback", item).status == 200
    assert {seen.json()["id"] for seen in server.seen} == {item.id}
    assert len(server.seen) == 3


def test_rollback_to_the_previous_is_never_sent_twice_once_it_may_have_arrived(server: Server, call: Call) -> None:
    moved = POLICY | {"champion": "v1"}
    server.script = [Answer(drop=True), Answer(body=moved)]
    with pytest.raises(Unreachable, match="No answer to POST /v1/policies/geo/rollback after 1 attempt"):
        call("rollback", "geo")
    assert len(server.seen) == 1
    server.script = [Answer(drop=True), Answer(body=moved)]
    assert call("rollback", "geo", to="v1").champion == "v1"
    server.script = [Answer(503), Answer(body=moved)]  # 503: it was not done
    assert call("rollback", "geo").champion == "v1"


def test_retry_after_is_obeyed(server: Server, call: Call) -> None:
    server.script = [Answer(429, headers={"Retry-After": "0.3"}), Answer(201)]
    call("feedback", Feedback(session="s", kind="thumb", value=1))
    assert server.seen[1].at - server.seen[0].at >= 0.3


def test_a_wait_longer_than_we_obey_is_an_error_at_once(server: Server, call: Call) -> None:
    server.script = [Answer(429, headers={"Retry-After": "3"}, body={"error": {"message": "later", "code": "busy"}})]
    with pytest.raises(ApiError, match="429 busy: later"):
        call("policy", "geo")
    assert len(server.seen) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 413, 415, 422, 500, 507])
def test_what_will_not_get_better_is_an_error_at_once(server: Server, status: int) -> None:
    told = {"message": "Do this.", "type": "invalid_request_error", "param": "k", "code": "too_big"}
    server.script = [Answer(status, body={"error": told})]
    with Client(server.url, retries=QUICK) as client, pytest.raises(ApiError) as raised:
        client.rank("geo", [1.0])
    error = raised.value
    assert (error.status, error.message, error.kind, error.param, error.code) == (status, *told.values())
    assert len(server.seen) == 1


def test_gives_up_after_its_retries_and_says_so(server: Server, call: Call) -> None:
    server.script = [Answer(drop=True)]
    with pytest.raises(Unreachable, match="after 4 attempt"):
        call("policies")
    assert len(server.seen) == 4


def test_a_stalled_server_times_out(server: Server, call: Call) -> None:
    server.script = [Answer(stall_s=3.0)]
    with pytest.raises(Unreachable, match="ReadTimeout"):
        call("policies", timeout=0.7, retries=0)


def test_a_connection_that_was_never_made_is_tried_again_even_for_a_rollback() -> None:
    closed = Server()
    closed.close()
    with Client(closed.url, retries=QUICK) as client, pytest.raises(Unreachable, match="after 4 attempt"):
        client.rollback("geo")


def test_answers_that_are_not_errors_in_our_shape_are_still_told(server: Server, call: Call) -> None:
    server.script = [Answer(404, body=b"<html>nginx</html>")]
    with pytest.raises(ApiError, match="404 error: <html>nginx"):
        call("policy", "geo")
    server.script = [Answer(200, body=b"<html>hello</html>")]
    with pytest.raises(BadAnswer, match="Is this a dayjob server"):
        call("policy", "geo")
    server.script = [Answer(200, body={**RANKING, "ranking": [{"id": "a", "position": 1}]})]
    with pytest.raises(BadAnswer, match="no 'score'"):
        call("rank", "geo", [1.0])


# ---- what is sent ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", [[1.0, float("nan")], [float("inf")], [[1.0], [2.0]], 3.0])
def test_vectors_that_cannot_be_meant_are_refused_before_anything_is_sent(server: Server, vector: Any) -> None:
    with Client(server.url) as client, pytest.raises(Invalid, match="context"):
        client.rank("geo", vector)
    assert server.seen == []


def test_a_rank_call_sends_what_was_said_and_nothing_else(server: Server, call: Call) -> None:
    server.script = [Answer(body=RANKING)]
    candidate = Candidate(
        id="a", features=[0.5, -1.0], pair=np.array([0.25, 0.5]), score=np.float32(-2), meta={"lat": 1.5}
    )
    call("rank", "geo", np.array([1.0, 2.0]), candidates=[candidate], k=1, explore=False, user="u", session="s")
    seen = server.seen[0]
    body = seen.json()
    assert (seen.method, seen.path) == ("POST", "/v1/rank")
    assert seen.headers["Authorization"] == "Bearer sesame"
    assert seen.headers["Content-Type"] == "application/json"
    del body["id"]
    assert body == {
        "policy": "geo",
        "user": "u",
        "session": "s",
        "k": 1,
        "explore": False,
        "context": {"features_b64": "AACAPwAAAEA="},  # 1.0f = 00 00 80 3f, 2.0f = 00 00 00 40
        "candidates": [
            {"id": "a", "features_b64": "AAAAPwAAgL8=", "pair": [0.25, 0.5], "score": -2.0, "meta": {"lat": 1.5}}
        ],
    }


def test_names_cannot_leave_their_place_in_the_path(server: Server, call: Call) -> None:
    server.script = [
        Answer(body={"user": "x", "learn": True, "decisions": 0, "outcomes": 0, "versions": [], "held": {}})
    ]
    call("user", "a/../b?x=1#é")
    assert server.seen[0].path == "/v1/users/a%2F..%2Fb%3Fx%3D1%23%C3%A9"
    for name in ("", ".", ".."):
        with pytest.raises(Invalid, match="user must not be"):
            call("erase_user", name)


def test_the_catalog_travels_as_ndjson(server: Server, call: Call) -> None:
    server.script = [Answer(body={"items": 2})]
    items = (Candidate(id=name, features=[1.0, 0.0], meta={"lat": 1.0}) for name in ("a", "b"))
    assert call("put_catalog", "geo", items) == 2
    seen = server.seen[0]
    assert seen.headers["Content-Type"] == "application/x-ndjson"
    assert [json.loads(line)["id"] for line in seen.body.split(b"\n")] == ["a", "b"]


# ---- what comes back -------------------------------------------------------------------------------------------


def test_a_ranking_makes_its_own_feedback(server: Server, call: Call) -> None:
    server.script = [Answer(body=RANKING)]
    answer = call("rank", "geo", [1.0])
    assert answer.role is Role.CHAMPION
    assert [each.id for each in answer.ranking] == ["b", "a"]
    click = answer.click("a").to_json()
    assert click == {"id": click["id"], "decision": RANKING["id"], "kind": "click", "item": "a", "position": 2}
    truth = answer.truth({"a": -10.0, "b": -20.0}).to_json()
    assert truth["value"] == {"relevance": {"a": -10.0, "b": -20.0}}
    with pytest.raises(Invalid, match="'c' was not served"):
        answer.click("c")


def test_a_word_of_a_newer_server_is_named(server: Server, call: Call) -> None:
    server.script = [Answer(body={**RANKING, "role": "oracle"})]
    with pytest.raises(BadAnswer, match="'oracle' is not a Role"):
        call("rank", "geo", [1.0])


def test_many_outcomes_come_back_in_order(server: Server, call: Call) -> None:
    items = [Feedback(session="s", kind="thumb", value=value) for value in (1, -1)]
    refused = {"status": 422, "error": {"message": "no"}}
    server.script = [Answer(body={"items": [{"id": items[0].id, "status": 201}, refused]})]
    receipts = call("feedback_many", items)
    assert [(each.id, each.status, each.ok) for each in receipts] == [
        (items[0].id, 201, True),
        (items[1].id, 422, False),
    ]
    server.script = [Answer(body={"items": []})]
    with pytest.raises(BadAnswer, match="Sent 2 outcomes, got 0"):
        call("feedback_many", items)


def test_waiting_for_a_job_and_for_the_server(server: Server, call: Call) -> None:
    running, done = (
        {"state": "running", "progress": 0.2},
        {"state": "succeeded", "progress": 1.0, "result": {"version": "v1"}},
    )
    server.script = [Answer(body=running), Answer(drop=True), Answer(body=done)]
    assert call("wait_job", "j", every_s=0.001).result == {"version": "v1"}
    server.script = [Answer(body=running)]
    with pytest.raises(Unreachable, match="still running"):
        call("wait_job", "j", every_s=0.001, timeout_s=0.003)
    server.script = [Answer(503), Answer(drop=True), Answer(200)]
    call("wait_ready", every_s=0.001)
    assert len(server.seen[-3:]) == 3
    server.script = [Answer(503)]
    with pytest.raises(Unreachable, match="not ready after"):
        call("wait_ready", every_s=0.001, timeout_s=0.003)


def test_the_export_streams_records(server: Server) -> None:
    server.script = [Answer(body=b'{"id":1}\n{"id":2}\n')]
    with Client(server.url) as client:
        assert list(client.export("geo")) == [{"id": 1}, {"id": 2}]
        assert server.seen[0].path == "/v1/export?policy=geo&format=decisions"
        server.script = [Answer(404, body={"error": {"message": "no such policy"}})]
        with pytest.raises(ApiError, match="no such policy"):
            list(client.export("nope"))

    async def turned() -> list[Any]:
        async with AsyncClient(server.url) as client:
            server.script = [Answer(body=b'{"id":1}\n{"id":2}\n')]
            return [each async for each in client.export("geo", format="chat")]

    assert asyncio.run(turned()) == [{"id": 1}, {"id": 2}]


def test_threads_may_share_a_client(server: Server) -> None:
    server.script = [Answer(drop=True)] * 20 + [Answer(201)]
    with Client(server.url, retries=Backoff(retries=30, first_s=0.001, longest_s=0.01)) as client:
        items = [Feedback(session="s", kind="thumb", value=1) for _ in range(40)]
        threads = [threading.Thread(target=client.feedback, args=(item,)) for item in items]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {seen.json()["id"] for seen in server.seen} == {item.id for item in items}
    assert len(server.seen) == 60


def test_calls_show_their_signature_and_words() -> None:
    assert Client.rank.__doc__ == AsyncClient.rank.__doc__ == calls.rank.__doc__
    with Client("http://127.0.0.1:9", key="sesame") as client:
        assert client.rank.__name__ == "rank"
        assert "sesame" not in repr(client)
