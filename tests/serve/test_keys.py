"""With keys: who may do what, over every route that is published; tenants, people and feedback tokens."""

import json
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from dayjob.endings import VersionStatus
from dayjob.journal.control import Control, put_state
from dayjob.lab.server import Server, running
from dayjob.records import Version
from dayjob.serve.openapi import document
from dayjob.serve.routes import ROUTES

RANKER = {"kind": "ranker", "context_dim": 2, "candidate_dim": 2, "explore": {"changed_first": 0.0}}
TWO = [{"id": "a", "features": [1, 0]}, {"id": "b", "features": [0, 1]}]
KEYS = {
    "admin": ("acme", ["admin"], None),
    "infer": ("acme", ["infer"], None),
    "feedback": ("acme", ["feedback"], None),
    "learn": ("acme", ["learn"], None),
    "ann": ("acme", ["infer", "feedback"], "ann"),
    "rival": ("rival", ["admin"], None),
}
# (method, path, a body that fits, the scope that the contract asks for)
CALLS = [
    ("PUT", "/v1/policies/geo", RANKER, "admin"),
    ("GET", "/v1/policies", None, "learn"),
    ("GET", "/v1/policies/geo", None, "learn"),
    ("PUT", "/v1/policies/geo/catalog", "ndjson", "admin"),
    ("GET", "/v1/policies/geo/versions", None, "learn"),
    ("POST", "/v1/policies/geo/learn", {}, "learn"),
    ("POST", "/v1/policies/geo/dream", {}, "learn"),
    ("POST", "/v1/policies/geo/rollback", {"to": "v0-baseline"}, "admin"),
    ("POST", "/v1/policies/geo/promote", {"version": "v0-baseline", "reason": "try"}, "admin"),
    ("POST", "/v1/policies/geo/freeze", {}, "admin"),
    ("POST", "/v1/policies/geo/unfreeze", {}, "admin"),
    ("GET", "/v1/policies/geo/report", None, "learn"),
    ("GET", "/v1/policies/geo/series", None, "learn"),
    ("GET", "/v1/jobs/none", None, "learn"),
    ("POST", "/v1/chat/completions", {"model": "none", "messages": [{"role": "user", "content": "x"}]}, "infer"),
    ("GET", "/v1/models", None, "infer"),
    ("GET", "/v1/models/nobody", None, "infer"),
    ("POST", "/v1/rank", {"policy": "geo", "context": {"features": [1, 0]}, "candidates": TWO}, "infer"),
    ("POST", "/v1/feedback", {"decision": str(uuid.uuid4()), "kind": "none"}, "feedback"),
    ("GET", "/v1/export?policy=geo", None, "admin"),
    ("GET", "/v1/notes?user=bob", None, "feedback"),
    ("PATCH", "/v1/notes/nothing", {"scope": "tenant"}, "admin"),
    ("DELETE", "/v1/notes/nothing", None, "feedback"),
    ("GET", "/v1/policies/geo/nights", None, "learn"),
    ("GET", "/v1/policies/geo/dreams", None, "learn"),
    ("GET", "/v1/policies/geo/conversations?user=bob", None, "feedback"),
    ("DELETE", "/v1/lessons/nothing", None, "feedback"),
    ("GET", "/v1/decisions/nothing/compare", None, "infer"),
    ("GET", "/v1/users/bob", None, "admin"),  # or the key of that person: see below
    ("PATCH", "/v1/users/bob", {"learn": True}, "feedback"),
    ("DELETE", "/v1/users/bob", None, "admin"),
    ("GET", "/metrics", None, "admin"),
    ("GET", "/openapi.json", None, "infer"),
]
OPEN = {("GET", "/healthz"), ("GET", "/readyz")}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator["World"]:
    root = tmp_path_factory.mktemp("keys")
    lines = []
    for key, (tenant, scopes, user) in KEYS.items():
        lines += ["[[key]]", f'key = "{key}"', f'tenant = "{tenant}"', f"scopes = {json.dumps(scopes)}"]
        lines += [f'user = "{user}"'] if user else []
    (root / "keys.toml").write_text("\n".join(lines))
    arguments = ("--no-learner", "--no-judge", "--keys", str(root / "keys.toml"))
    with running(root / "data", arguments=arguments) as server, World(server) as one:
        for key in ("admin", "rival"):
            assert one.ask(key, "PUT", "/v1/policies/geo", body=RANKER).status_code == 201
        yield one


class World:
    """A server with keys, and a client for each key."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._clients: dict[str | None, httpx2.Client] = {}

    def __enter__(self) -> "World":
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._clients.values():
            one.close()

    def client(self, key: str | None) -> httpx2.Client:
        if key not in self._clients:
            headers = {} if key is None else {"Authorization": f"Bearer {key}"}
            self._clients[key] = httpx2.Client(base_url=self.server.url, headers=headers, timeout=20)
        return self._clients[key]

    def ask(self, key: str | None, method: str, path: str, *, body: Any = None) -> httpx2.Response:
        http = self.client(key)
        if body == "ndjson":
            line = json.dumps({"id": "a", "features": [1, 0]}).encode()
            return http.request(method, path, content=line, headers={"Content-Type": "application/x-ndjson"})
        return http.request(method, path, json=body)


def rank(world: World, key: str, **body: Any) -> dict[str, Any]:
    asked = {"policy": "geo", "context": {"features": [1, 0]}, "candidates": TWO} | body
    answer = world.ask(key, "POST", "/v1/rank", body=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


def tell(world: World, key: str | None, status: int, **outcome: Any) -> None:
    answer = world.ask(key, "POST", "/v1/feedback", body=outcome)
    assert answer.status_code == status, answer.text


def test_every_published_route_is_among_the_calls_of_this_test():
    told = {
        (method.upper(), path)
        for path, methods in document(ROUTES)["paths"].items()
        for method in methods
        if (method.upper(), path) not in OPEN
    }
    names = {"geo": "{name}", "none": "{job}", "bob": "{user}", "nothing": "{id}", "nobody": "{model}"}
    called = {
        (method, "/".join(names.get(part, part) for part in path.partition("?")[0].split("/")))
        for method, path, _, _ in CALLS
    }
    assert told <= called


# Every route without a scope: those that answer anybody, and pages, which answer with the form to log in.
ANYBODY = {*OPEN, ("GET", "/static/{file}"), ("POST", "/login"), ("POST", "/logout")}
PAGES = {
    ("GET", path)
    for path in ("/", "/policies/{name}", "/policies/{name}/mornings", "/policies/{name}/dreams",
                 "/policies/{name}/conversations", "/talk/{policy}", "/replay")
}  # fmt: skip


def test_every_route_that_is_open_is_named_here_and_on_the_page_on_security():
    assert {(route.method, route.path) for route in ROUTES if route.scope is None} == ANYBODY | PAGES
    assert {(route.method, route.path) for route in ROUTES if route.token_opens} == {("POST", "/v1/feedback")}
    page = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    told = page.partition("| open, with keys too | why |")[2].partition("\n\n")[0]
    for method, path in ANYBODY | {("POST", "/v1/feedback")}:
        assert f"`{method} {path}`" in told


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_a_route_answers_without_a_key_only_where_it_is_named_as_open(world, route):
    """Published or not: every route of the table, as anybody sends it."""
    path = re.sub(r"{\w+}", lambda part: "mark.svg" if part[0] == "{file}" else "geo", route.path)
    body = b"key=stranger" if route.body_type.endswith("urlencoded") else b"{}"
    if route.token_opens:  # the token is in the body, which is therefore read first
        body = json.dumps({"decision": str(uuid.uuid4()), "kind": "none"}).encode()
    headers = {"Content-Type": route.body_type} if route.body_type else {}
    answer = world.client(None).request(route.method, path, content=body if route.body_type else None, headers=headers)
    key = (route.method, route.path)
    if key in ANYBODY - {("POST", "/login")}:
        assert answer.status_code in (200, 303)
        assert "geo" not in answer.text, "nothing of a tenant is told"
    else:
        assert answer.status_code == 401
        assert ('action="/login"' in answer.text) is (key in PAGES or route.path == "/login")
    assert "dayjob_login=e" not in answer.headers.get("set-cookie", "")


@pytest.mark.parametrize(("method", "path", "body", "scope"), CALLS)
def test_every_route_needs_a_key_of_its_scope(world, method, path, body, scope):
    for key in (None, "stranger", "ADMIN"):
        answer = world.ask(key, method, path, body=body)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["error"]["type"] == "authentication_error"
    for key in ("infer", "feedback", "learn"):
        answer = world.ask(key, method, path, body=body)
        assert (answer.status_code == 403) == (key != scope), (key, answer.text)
    assert world.ask("admin", method, path, body=body).status_code not in (401, 403)


def test_the_published_document_says_what_a_key_without_a_user_needs():
    told = document(ROUTES)["paths"]["/v1/users/{user}"]
    scopes = {method: (one["x-scope"], one.get("x-scope-without-user")) for method, one in told.items()}
    assert scopes == {"get": ("feedback", "admin"), "patch": ("feedback", None), "delete": ("feedback", "admin")}
    assert "any other key needs admin" in told["delete"]["description"]
    assert "admin" in document(ROUTES)["paths"]["/v1/notes"]["get"]["description"]


@pytest.mark.parametrize(
    "headers", [{"Authorization": "Basic admin"}, {"Authorization": "admin"}, {"X-Api-Key": "admin"}]
)
def test_a_key_counts_only_as_a_bearer(world, headers):
    assert httpx2.get(f"{world.server.url}/v1/policies", headers=headers).status_code == 401


@pytest.mark.parametrize(("method", "path"), sorted(OPEN))
def test_health_is_open(world, method, path):
    assert world.ask(None, method, path).status_code == 200


def test_no_key_is_ever_said_or_logged(world):
    answer = world.ask("very-secret-key", "GET", "/v1/policies")
    assert "very-secret-key" not in answer.text
    assert "very-secret-key" not in world.server.log.read_text()


# ---- tenants -----------------------------------------------------------------------------------------------------


def test_tenants_do_not_see_each_other(world):
    decision = rank(world, "infer", user="bob")["id"]
    assert rank(world, "rival")["id"] != decision
    told = world.ask("rival", "GET", "/v1/users/bob").json()
    assert (told["decisions"], told["held"]["decisions"]) == (0, [])
    assert decision not in world.ask("rival", "GET", "/v1/export?policy=geo").text
    assert world.ask("admin", "PUT", "/v1/policies/ours", body=RANKER).status_code == 201
    assert world.ask("rival", "GET", "/v1/policies/ours").status_code == 404
    job = world.ask("learn", "POST", "/v1/policies/ours/learn", body={}).json()["job"]
    assert world.ask("learn", "GET", f"/v1/jobs/{job}").status_code == 200
    assert world.ask("rival", "GET", f"/v1/jobs/{job}").status_code == 404


def test_another_tenants_decision_is_403_and_its_id_is_free_here(world):
    decision = rank(world, "infer")["id"]
    tell(world, "rival", 403, decision=decision, kind="none")
    assert rank(world, "rival", id=decision, k=1)["id"] == decision
    tell(world, "rival", 201, decision=decision, kind="none")
    tell(world, "feedback", 201, decision=decision, kind="click", item="b")


def test_each_tenant_measures_its_own_policies(world):
    control = Control(world.server.data)
    for tenant, lag in (("acme", 7), ("rival", 9)):
        with control.write() as db:
            put_state(db, tenant, "geo", name="report", state={"gate": {"lag": lag}})
    for _ in range(2):
        for key, tenant, lag in (("admin", "acme", 7), ("rival", "rival", 9)):
            lines = world.ask(key, "GET", "/metrics").text.splitlines()
            lags = [line for line in lines if line.startswith("dayjob_judge_lag_decisions{")]
            assert f'dayjob_judge_lag_decisions{{policy="geo",tenant="{tenant}"}} {lag}.0' in lags
            assert all(f'tenant="{tenant}"' in line for line in lags)
            assert f'dayjob_damaged_versions{{tenant="{tenant}"}} 0.0' in lines
    with control.write() as db:
        db.execute("DELETE FROM states")


def test_without_a_key_damage_is_said_but_not_whose(world):
    control = Control(world.server.data)
    lost = Version(
        tenant="rival", policy="geo", name="v1-00000001", number=1, parent=None, recipe="fake", digest="0" * 64,
        from_seq=0, to_seq=0, status=VersionStatus.WAITING, created_ms=0,
    )  # fmt: skip
    control.add_version(lost)
    control.move("rival", "geo", change={"challenger": "v1-00000001"})
    ends = time.monotonic() + 60
    while not (told := world.ask(None, "GET", "/readyz").json())["damaged"]:
        assert time.monotonic() < ends
        time.sleep(0.02)
    assert list(told["damaged"]) == ["*"]
    assert "rival" not in json.dumps(told)
    for key, count in (("admin", "0.0"), ("rival", "1.0")):
        assert f"}} {count}" in next(
            line for line in world.ask(key, "GET", "/metrics").text.splitlines() if "dayjob_damaged_versions{" in line
        )
    control.move("rival", "geo", change={"challenger": None})


# ---- people ------------------------------------------------------------------------------------------------------


def test_a_key_of_one_person_speaks_for_that_person_only(world):
    told = rank(world, "ann")
    assert [each["user"] for each in world.ask("ann", "GET", "/v1/users/ann").json()["held"]["decisions"]][-1] == "ann"
    assert rank(world, "ann", user="ann")["id"] != told["id"]
    asked = {"policy": "geo", "context": {"features": [1, 0]}, "candidates": TWO, "user": "bob"}
    assert world.ask("ann", "POST", "/v1/rank", body=asked).status_code == 403
    for method, body in (("GET", None), ("PATCH", {"learn": False}), ("DELETE", None)):
        assert world.ask("ann", method, "/v1/users/bob", body=body).status_code == 403
    tell(world, "ann", 403, decision=rank(world, "infer", user="bob")["id"], kind="none")
    tell(world, "ann", 201, decision=told["id"], kind="none")
    tell(world, "feedback", 201, decision=told["id"], kind="none")


def test_only_an_admin_or_the_person_sees_and_erases_all_that_is_held(world):
    decision = rank(world, "ann")["id"]
    for method in ("GET", "DELETE"):
        refused = world.ask("feedback", method, "/v1/users/ann")
        assert (refused.status_code, "scope admin" in refused.json()["error"]["message"]) == (403, True)
    assert world.ask("feedback", "PATCH", "/v1/users/ann", body={"learn": True}).status_code == 200
    for key in ("admin", "ann"):
        assert decision in [each["id"] for each in world.ask(key, "GET", "/v1/users/ann").json()["held"]["decisions"]]
    assert world.ask("ann", "DELETE", "/v1/users/ann").json()["decisions"] >= 1
    assert world.ask("admin", "DELETE", "/v1/users/ann").json()["decisions"] == 0


def test_who_repeats_anothers_request_gets_neither_the_answer_nor_the_token(world):
    sent = {"policy": "geo", "context": {"features": [1, 0]}, "candidates": TWO, "id": str(uuid.uuid4())}
    assert world.ask("ann", "POST", "/v1/rank", body=sent).status_code == 200
    for key in ("infer", "admin"):
        refused = world.ask(key, "POST", "/v1/rank", body=sent)
        assert (refused.status_code, list(refused.json())) == (409, ["error"])
    assert world.ask("ann", "POST", "/v1/rank", body=sent).status_code == 200, "a retry of one's own goes on"
    # The catalog that the first answer came from is gone: the journal is asked instead.
    bare = sent | {"id": str(uuid.uuid4()), "candidates": None}
    assert world.ask("admin", "PUT", "/v1/policies/geo/catalog", body="ndjson").status_code == 200
    assert world.ask("ann", "POST", "/v1/rank", body=bare | {"candidates": [{"id": "a"}]}).status_code == 200
    line = json.dumps({"id": "z", "features": [1, 0]}).encode()
    told = world.client("admin").put(
        "/v1/policies/geo/catalog", content=line, headers={"Content-Type": "application/x-ndjson"}
    )
    assert told.status_code == 200
    for key, status in (("ann", 200), ("infer", 409)):
        again = world.ask(key, "POST", "/v1/rank", body=bare | {"candidates": [{"id": "a"}]})
        assert again.status_code == status, again.text


# ---- tokens ------------------------------------------------------------------------------------------------------


def test_a_token_gives_feedback_on_its_decision_without_a_key(world):
    told = rank(world, "infer")
    one = str(uuid.uuid4())
    click = {"id": one, "decision": told["id"], "kind": "click", "item": "a", "token": told["token"]}
    tell(world, None, 201, **click)
    tell(world, None, 200, **click)
    assert world.ask("feedback", "POST", "/v1/feedback", body=click | {"token": None}).status_code == 200
    for kind, value in (("none", None), ("accept", None), ("reject", None), ("thumb", 1)):
        tell(world, None, 201, decision=told["id"], kind=kind, value=value, token=told["token"])


def test_a_browser_may_carry_other_cookies_beside_its_token(world):
    told = rank(world, "infer")
    body = {"decision": told["id"], "kind": "none", "token": told["token"]}
    for cookie in ("session=1; theme=dark", "dayjob_login=worn-out"):
        answer = world.client(None).post("/v1/feedback", json=body, headers={"Cookie": cookie})
        assert answer.status_code == 201


@pytest.mark.parametrize("key", ["infer", "learn", "ann", "rival", "admin"])
def test_a_token_works_whoever_is_logged_in(world, key):
    """A login without the scope, of another person or of another tenant: none of them is who speaks."""
    told = rank(world, "infer", user="bob")
    login = world.client(None).post("/login", data={"key": key}).headers["set-cookie"].partition(";")[0]
    world.client(None).cookies.clear()
    body = {"decision": told["id"], "kind": "none"}
    answer = world.client(None).post("/v1/feedback", json=body | {"token": told["token"]}, headers={"Cookie": login})
    assert answer.status_code == 201, answer.text
    without = world.client(None).post("/v1/feedback", json=body, headers={"Cookie": login})
    assert without.status_code == {"infer": 401, "learn": 401, "ann": 403, "rival": 403, "admin": 201}[key]


def test_a_token_opens_nothing_else(world):
    told, other = rank(world, "infer"), rank(world, "infer")
    token = told["token"]
    tell(world, None, 403, decision=other["id"], kind="none", token=token)
    tell(world, None, 403, session="s", kind="thumb", value=1, token=token)
    for kind, more in (
        ("reward", {"value": 1}), ("truth", {"item": "a"}), ("demonstration", {"item": "a"}),
        ("retract", {"value": str(uuid.uuid4())}),
    ):  # fmt: skip
        tell(world, None, 403, decision=told["id"], kind=kind, token=token, **more)
    for method, path, body, _ in CALLS:
        if path != "/v1/feedback":
            assert world.ask(token, method, path, body=body).status_code == 401


def test_altered_and_foreign_tokens_are_403(world):
    told = rank(world, "infer")
    token = told["token"]
    flipped = token[:-1] + ("A" if token[-1] != "A" else "B")
    for bad in (flipped, token[:-2], token + "A", token + "=", "x", "é", token.swapcase()):
        tell(world, None, 403, decision=told["id"], kind="none", token=bad)
        tell(world, "feedback", 403, decision=told["id"], kind="none", token=bad)
    tell(world, "rival", 403, decision=told["id"], kind="none", token=token)
    tell(world, "feedback", 201, decision=told["id"], kind="none", token=token)


def test_without_key_and_token_nothing_is_taken(world):
    told = rank(world, "infer")
    tell(world, None, 401, decision=told["id"], kind="none")
    tell(world, None, 401, items=[{"decision": told["id"], "kind": "none"}])
    body = {
        "items": [
            {"decision": told["id"], "kind": "none", "token": told["token"]},
            {"decision": told["id"], "kind": "none"},
        ]
    }
    answer = world.ask(None, "POST", "/v1/feedback", body=body)
    assert [each["status"] for each in answer.json()["items"]] == [201, 401]


# ---- the dashboard -----------------------------------------------------------------------------------------------


def test_the_dashboard_asks_for_a_key_and_remembers_it_in_a_cookie(world):
    with httpx2.Client(base_url=world.server.url) as http:
        assert http.get("/").status_code == 401
        assert http.post("/login", data={"key": "stranger"}).status_code == 401
        answer = http.post("/login", data={"key": "admin"})
        assert answer.status_code == 303
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert "admin" not in cookie
        http.cookies.clear()
        name, _, value = cookie.partition(";")[0].partition("=")
        logged = {"Cookie": f"{name}={value}"}
        assert http.get("/v1/policies", headers=logged).status_code == 200
        assert http.get("/v1/policies", headers=logged | {"Origin": "http://evil.example"}).status_code == 403
        assert http.get("/v1/policies", headers={"Cookie": f"{name}={value[:-2]}xx"}).status_code == 401


def test_another_sites_page_may_give_feedback_with_a_token_and_nothing_else(world):
    told = rank(world, "infer")
    page = {"Origin": "https://shop.example", "Sec-Fetch-Site": "cross-site"}
    asked = world.client(None).options("/v1/feedback", headers=page | {"Access-Control-Request-Method": "POST"})
    assert asked.status_code == 204
    assert asked.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in asked.headers
    body = {"decision": told["id"], "kind": "click", "item": "a", "token": told["token"]}
    answer = world.client(None).post("/v1/feedback", json=body, headers=page)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (201, "*")
    for path in ("/v1/rank", "/v1/policies"):
        other = world.client(None).options(path, headers=page)
        assert other.status_code == 405
        assert "access-control-allow-origin" not in other.headers
