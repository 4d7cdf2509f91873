"""The wire contract, held by a client written from the contract alone: starting, conventions, policies."""

import json
import subprocess
import sys
import threading
import time
import uuid

import httpx2
import pytest

from dayjob.lab.server import running
from tests.serve.asking import RANKER, THREE, A, B, C, catalog, declare, error_of, exported, order, packed, rank

# ---- starting ----------------------------------------------------------------------------------------------------


def test_it_is_ready_once_it_says_so_and_everything_lives_under_its_directory(server, http):
    assert http.get("/healthz").status_code == 200
    assert http.get("/readyz").status_code == 200
    assert {"journal.db", "control.db"} <= {path.name for path in server.data.iterdir()}
    assert "text/plain" in http.get("/metrics").headers["content-type"]
    assert http.get("/").headers["content-type"].startswith("text/html")


def test_sigterm_drains_and_exits_0_within_ten_seconds(tmp_path):
    with running(tmp_path / "data", arguments=("--no-learner",)) as one, httpx2.Client(base_url=one.url) as http:
        name = declare(http)
        kept = rank(http, name, candidates=THREE)
        began = time.monotonic()
        assert one.stop() == 0
        assert time.monotonic() - began < 10
    with running(tmp_path / "data") as again, httpx2.Client(base_url=again.url) as http:
        assert kept["id"] in exported(http, name)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_without_keys_it_refuses_to_bind_anything_but_loopback(tmp_path, host):
    command = [sys.executable, "-m", "dayjob", "serve", "--data", str(tmp_path), "--host", host, "--port", "0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert "keys" in ended.stderr


def test_a_second_server_over_the_same_directory_is_refused(server):
    command = [sys.executable, "-m", "dayjob", "serve", "--data", str(server.data), "--port", "0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert "another server" in ended.stderr


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/policies"), ("POST", "/v1/rank"), ("DELETE", "/v1/users/u")])
def test_without_keys_host_and_origin_are_checked(http, headers, method, path):
    body = {"json": {"policy": "geo", "context": {"features": A}}} if method == "POST" else {}
    error_of(http.request(method, path, headers=headers, **body), 403)


def test_the_servers_own_pages_may_call_it(server, http):
    assert http.get("/v1/policies", headers={"Origin": server.url, "Sec-Fetch-Site": "same-origin"}).status_code == 200


# ---- conventions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None])
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/rank"), ("POST", "/v1/feedback"), ("PUT", "/v1/policies/x"), ("PATCH", "/v1/users/u")]
    + [("POST", f"/v1/policies/x/{verb}") for verb in ("learn", "rollback", "promote", "freeze", "unfreeze", "dream")],
)
def test_a_write_with_another_content_type_is_refused(http, method, path, sent):
    headers = {} if sent is None else {"Content-Type": sent}
    error_of(http.request(method, path, content=b"{}", headers=headers), 415)


def test_the_content_type_may_name_its_charset(http):
    content = json.dumps({"learn": True}).encode()
    answer = http.patch("/v1/users/u", content=content, headers={"Content-Type": "Application/JSON; charset=utf-8"})
    assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1", "/v1/policies/", "/v1/rank/", "/elsewhere", "/v1/rank/x"])
def test_what_does_not_exist_is_404(http, path):
    error_of(http.get(path), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/policies/x", {"GET", "PUT"}),
        ("GET", "/v1/rank", {"POST"}),
        ("POST", "/v1/users/u", {"GET", "PATCH", "DELETE"}),
    ],
)
def test_another_method_is_405_and_says_which_there_are(http, method, path, allowed):
    answer = http.request(method, path)
    error_of(answer, 405)
    assert allowed <= {one.strip() for one in answer.headers["allow"].split(",")}


@pytest.mark.parametrize(
    "path",
    [
        "/v1/policies/none", "/v1/policies/none/versions", "/v1/policies/none/report", "/v1/jobs/none",
        "/v1/export?policy=none&format=decisions",
    ],
)  # fmt: skip
def test_an_unknown_name_is_404(http, path):
    error_of(http.get(path), 404)


def test_a_vector_of_another_length_is_told_how_many_to_send(http):
    name = declare(http)
    told = error_of(
        http.post("/v1/rank", json={"policy": name, "context": {"features": [1]}, "candidates": THREE}), 422
    )
    assert told["param"] == "context.features"
    assert told["message"].endswith("this policy declared 3: send as many")
    assert "declared 3: send as many" in error_of(catalog(http, name, {"id": "a", "features": [1]}), 422)["message"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"policy": "x"', b"NaN", b'{"a":' * 5000]
)
@pytest.mark.parametrize("path", ["/v1/rank", "/v1/feedback"])
def test_a_body_that_is_not_json_or_does_not_fit_is_422(http, path, body):
    error_of(http.post(path, content=body, headers={"Content-Type": "application/json"}), 422)


def test_a_body_over_the_limit_is_413_and_a_chunked_one_too(http):
    large = {"Content-Type": "application/json"}
    assert "100000" in error_of(http.post("/v1/rank", content=b" " * 100_001, headers=large), 413)["message"]
    error_of(http.post("/v1/rank", content=(b" " * 10_000 for _ in range(11)), headers=large), 413)
    error_of(http.post("/v1/rank", content=(b" " * 10_000 for _ in range(10)), headers=large), 422)


def test_every_error_has_a_code_to_branch_on(http):
    """Messages may be put better one day; codes stay."""
    policy, one = declare(http), str(uuid.uuid4())
    asked = {"policy": policy, "context": {"features": A}, "candidates": THREE}
    rank(http, policy, id=one, candidates=THREE)
    write = {"Content-Type": "application/json"}
    told = [
        http.get("/v1/nothing"), http.get("/v1/policies/none-such"), http.get("/v1/rank"),
        http.post("/v1/rank", json=asked | {"id": one, "k": 1}), http.post("/v1/rank", json=asked | {"k": 0}),
        http.post("/v1/rank", json=asked | {"colour": 1}), http.post("/v1/rank", json={"policy": policy}),
        http.post("/v1/rank", content=b"x"), http.post("/v1/rank", content=b" " * 100_001, headers=write),
        http.post("/v1/feedback", json={"decision": one, "kind": "click", "item": "z"}),
        http.get("/v1/policies", headers={"Host": "evil.example"}),
        http.post(f"/v1/policies/{policy}/dream", json={"budget": 65}),
        http.post(f"/v1/policies/{policy}/dream", json={"user": "ann"}),
        http.post(f"/v1/policies/{policy}/rollback", json={}),
    ]  # fmt: skip
    assert [(each.status_code, each.json()["error"]["code"]) for each in told] == [
        (404, "not_found"), (404, "not_found"), (405, "method_not_allowed"), (409, "conflict"), (422, "invalid"),
        (422, "unknown_field"), (422, "missing"), (415, "unsupported_media_type"), (413, "too_large"),
        (422, "refused"), (403, "forbidden"), (422, "invalid"), (422, "invalid"), (409, "conflict"),
    ]  # fmt: skip


def test_every_answer_carries_the_security_headers(http):
    for path in ("/", "/v1/policies", "/v1/nothing", "/healthz"):
        headers = http.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "script-src 'self'" in headers["content-security-policy"]


# ---- policies ----------------------------------------------------------------------------------------------------


def test_declaring_a_ranker_fills_in_the_defaults_and_starts_at_the_baseline(http):
    name = declare(http)
    told = http.get(f"/v1/policies/{name}").json()
    assert (told["name"], told["kind"], told["frozen"]) == (name, "ranker", False)
    assert told["champion"] == told["baseline"]
    assert (told["challenger"], told["last_verdict"]) == (None, None)
    assert told["counts"] == {"decisions": 0, "outcomes": {}}
    assert told["spec"] == RANKER | {
        "pair_dim": 0, "hidden": [256, 256], "recipe": "debiased", "similarity_scale": 1.0, "metric": "click",
        "reward_range": [0.0, 1.0], "outcome_window_s": 60.0, "explore": {"changed_first": 0.05}, "alpha": 0.05,
        "minimum_effect": 0.01, "learn_every": 2000,
    }  # fmt: skip
    assert name in [each["name"] for each in http.get("/v1/policies").json()["policies"]]
    [version] = http.get(f"/v1/policies/{name}/versions").json()["versions"]
    assert {"version", "parent", "recipe", "created", "digest", "journal_range", "status"} <= set(version)
    assert version["version"] == told["baseline"]


def test_declaring_again_changes_settings_but_neither_kind_nor_dimensions(http):
    name = declare(http)
    assert http.put(f"/v1/policies/{name}", json=RANKER).status_code == 200
    answer = http.put(f"/v1/policies/{name}", json=RANKER | {"alpha": 0.1})
    assert (answer.status_code, answer.json()["spec"]["alpha"]) == (200, 0.1)
    for change in ({"context_dim": 4}, {"candidate_dim": 4}, {"pair_dim": 1}):
        error_of(http.put(f"/v1/policies/{name}", json=RANKER | change), 409)
    error_of(http.put(f"/v1/policies/{name}", json={"kind": "language", "base": "x"}), 409)
    assert http.get(f"/v1/policies/{name}").json()["spec"]["alpha"] == 0.1


def test_of_two_first_declarations_one_is_first(http):
    for _ in range(8):
        path, dims = f"/v1/policies/p{uuid.uuid4().hex[:12]}", (3, 4)
        told: dict[int, httpx2.Response] = {}

        def put(dim: int, path: str = path, told: dict[int, httpx2.Response] = told) -> None:
            told[dim] = http.put(path, json=RANKER | {"context_dim": dim})

        threads = [threading.Thread(target=put, args=(dim,)) for dim in dims]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(each.status_code for each in told.values()) == [201, 409]
        kept = http.get(path).json()["spec"]["context_dim"]
        assert told[kept].status_code == 201


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "oracle"}, {"context_dim": 0}, {"context_dim": "3"}, {"context_dim": 3.5}, {"candidate_dim": None},
        {"recipe": "none-such"}, {"metric": "profit"}, {"reward_range": [1, 0]}, {"reward_range": [0]},
        {"alpha": 0}, {"alpha": 1}, {"outcome_window_s": -1}, {"explore": {"changed_first": 2}}, {"learn_every": -1},
        {"hidden": []}, {"colour": "red"}, {"similarity_scale": 0},
    ],
)  # fmt: skip
def test_a_declaration_that_does_not_fit_is_422(http, change):
    error_of(http.put("/v1/policies/unfit", json=RANKER | change), 422)
    error_of(http.get("/v1/policies/unfit"), 404)


@pytest.mark.parametrize("name", ["a b", ".hidden", "ä", "x" * 65, "-x", "%2e%2e"])
def test_a_name_that_is_none_is_refused(http, name):
    assert http.put(f"/v1/policies/{name}", json=RANKER).status_code in (404, 422)


def test_a_language_policy_names_a_base_that_the_configuration_allows(http):
    error_of(http.put("/v1/policies/talk", json={"kind": "language", "base": "nobody/nothing"}), 422)


def test_a_catalog_is_replaced_whole_or_not_at_all(http):
    policy = declare(http)
    good = [{"id": "a", "features": A, "meta": {"name": "first"}}, {"id": "b", "features_b64": packed(*B)}]
    answer = catalog(http, policy, *good)
    assert (answer.status_code, answer.json()) == (200, {"items": 2})
    for bad in ({"id": "c", "features": [1.0]}, {"features": C}, {"id": "b", "features": C}, {"id": "c", "x": 1}):
        assert "3" in error_of(catalog(http, policy, *good, bad), 422)["message"]
    sparse = "\n\n" + json.dumps(good[0]) + "\n \n" + json.dumps({"id": "z", "features": [1.0]})
    answer = http.put(
        f"/v1/policies/{policy}/catalog", content=sparse.encode(), headers={"Content-Type": "application/x-ndjson"}
    )
    assert error_of(answer, 422)["message"].startswith("line 5:"), "empty lines are lines too"
    assert sorted(order(rank(http, policy))) == ["a", "b"]
    assert catalog(http, policy, {"id": "c", "features": C}).json() == {"items": 1}
    assert order(rank(http, policy)) == ["c"]
    error_of(catalog(http, "none-such", *good), 404)
    many = [{"id": str(n), "features": A} for n in range(5000)]
    error_of(catalog(http, policy, *many), 413)


def test_freezing_serves_what_was_asked_and_stops_learning(http):
    policy = declare(http)
    told = http.post(f"/v1/policies/{policy}/freeze", json={}).json()
    assert told["frozen"] is True
    error_of(http.post(f"/v1/policies/{policy}/learn", json={}), 409)
    assert http.post(f"/v1/policies/{policy}/freeze", json={"serve": "baseline"}).json()["frozen"] is True
    error_of(http.post(f"/v1/policies/{policy}/freeze", json={"serve": "nobody"}), 422)
    assert rank(http, policy, candidates=THREE)["version"] == told["baseline"]
    assert http.post(f"/v1/policies/{policy}/unfreeze", json={}).json()["frozen"] is False


def test_learning_is_one_job_at_a_time(http):
    policy = declare(http)
    answer = http.post(f"/v1/policies/{policy}/learn", json={})
    assert answer.status_code == 202
    job = answer.json()["job"]
    assert http.post(f"/v1/policies/{policy}/learn", json={"recipe": "naive"}).json() == {"job": job}
    told = http.get(f"/v1/jobs/{job}").json()
    assert set(told) == {"state", "progress", "result", "error"}
    assert (told["state"], told["progress"], told["result"], told["error"]) == ("queued", 0.0, None, None)
    error_of(http.post(f"/v1/policies/{policy}/learn", json={"recipe": "none-such"}), 422)


def test_rolling_back_and_promoting_need_something_to_go_to(http):
    policy = declare(http)
    baseline = http.get(f"/v1/policies/{policy}").json()["baseline"]
    error_of(http.post(f"/v1/policies/{policy}/rollback", json={}), 409)
    error_of(http.post(f"/v1/policies/{policy}/rollback", json={"to": "v9-00000000"}), 404)
    assert http.post(f"/v1/policies/{policy}/rollback", json={"to": baseline}).json()["champion"] == baseline
    error_of(http.post(f"/v1/policies/{policy}/promote", json={"version": "v9-00000000", "reason": "x"}), 404)
    error_of(http.post(f"/v1/policies/{policy}/promote", json={"version": baseline}), 422)


def test_a_report_has_its_seven_parts(http):
    told = http.get(f"/v1/policies/{declare(http)}/report").json()
    assert {"feedback", "bias", "ceiling", "learning", "gate", "drift", "forgetting"} <= set(told)
    assert told["feedback"]["state"] == "too_few"
    assert {"reason", "share_at"} <= set(told["feedback"])
    assert {"judged_through", "lag", "trial", "estimates", "verdicts"} <= set(told["gate"])
