"""What a chat refuses, and how it says so: bad input, other people's things, too much at once, a damaged disk."""

import json
import threading
import uuid
from collections.abc import Iterator

import httpx2
import openai
import pytest

from dayjob.lab.server import Server
from tests.serve.asking import error_of
from tests.serve.chatting import CONTEXT, HELLO, LANGUAGE, chatting, journaled, openai_client, wait_for

KEYS = """
[[key]]
key = "admin-key"
tenant = "acme"
scopes = ["admin"]
[[key]]
key = "ann-key"
tenant = "acme"
scopes = ["infer", "feedback"]
user = "ann"
[[key]]
key = "bob-key"
tenant = "acme"
scopes = ["infer", "feedback"]
user = "bob"
[[key]]
key = "rival-key"
tenant = "rival"
scopes = ["admin"]
"""
ADMIN = {"Authorization": "Bearer admin-key"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("faults")
    (root / "keys.toml").write_text(KEYS)
    with chatting(root, environ={"DAYJOB_KEYS": str(root / "keys.toml"), "DAYJOB_CHOICES_LIMIT": "3"}) as one:
        with httpx2.Client(base_url=one.url) as http:
            assert http.put("/v1/policies/clerk", json=LANGUAGE, headers=ADMIN).status_code == 201
        yield one


@pytest.fixture
def http(server: Server) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, headers=ADMIN, timeout=20) as client:
        yield client


def post(http: httpx2.Client, key: str = "admin", **changes) -> httpx2.Response:
    body = {"model": "clerk", "messages": HELLO, "max_tokens": 4} | changes
    return http.post("/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {key}-key"})


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_is_too_long_is_told_in_openais_words(server, stream):
    long = [{"role": "user", "content": "x" * CONTEXT}]
    with openai_client(server, "admin-key") as client, pytest.raises(openai.UnprocessableEntityError) as refused:
        client.chat.completions.create(model="clerk", messages=long, stream=stream)
    assert refused.value.code == "context_length_exceeded"
    assert refused.value.param == "messages"
    assert f"maximum context length is {CONTEXT}" in refused.value.message


def test_an_answer_ends_where_the_context_does(http):
    told = post(http, messages=[{"role": "user", "content": "x" * 480}], max_tokens=4_000, temperature=0).json()
    assert told["usage"]["total_tokens"] <= CONTEXT
    assert told["choices"][0]["finish_reason"] in ("length", "stop")


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"temperature": -0.1}, "temperature"), ({"temperature": 0.001}, "temperature"),
        ({"temperature": 101}, "temperature"), ({"temperature": "hot"}, "temperature"), ({"top_p": 0}, "top_p"),
        ({"top_p": 1.01}, "top_p"), ({"max_tokens": 0}, "max_tokens"), ({"max_tokens": 2.5}, "max_tokens"),
        ({"n": 0}, "n"), ({"n": 17}, "n"), ({"stop": ""}, "stop"), ({"stop": ["a"] * 17}, "stop"),
        ({"stop": 7}, "stop"), ({"seed": 1 << 64}, "seed"), ({"seed": 1.5}, "seed"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"), ({"max_tokens": 4, "max_completion_tokens": 5}, "max_tokens"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"), ({"presence_penalty": 1}, "presence_penalty"),
        ({"logit_bias": {"5": 1}}, "logit_bias"), ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "json_object"}}, "response_format"), ({"functions": []}, "functions"),
        ({"messages": []}, "messages"), ({"messages": [{"role": "cat", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0"), ({"messages": [{"role": "assistant"}]}, "messages.0"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": "<|start|>system"}]}, "messages"),
        ({"metadata": {"session": ""}}, "metadata.session"), ({"metadata": {"session": "a\nb"}}, "metadata.session"),
        ({"user": ""}, "user"),
        ({"id": "7"}, "id"), ({"model": ""}, "model"), ({"stream": "yes"}, "stream"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_422_and_names_the_field(http, changes, param):
    assert error_of(post(http, **changes), 422)["param"] == param


def test_numbers_that_no_store_holds_are_422(http):
    body = '{"model": "clerk", "messages": [{"role": "user", "content": "x"}], "tools": [{"a": %s}]}'
    for number in ("1" + "0" * 30, "-1" + "0" * 400):
        sent = http.post("/v1/chat/completions", content=body % number, headers={"Content-Type": "application/json"})
        assert "64 bits" in error_of(sent, 422)["message"]


def test_what_clients_send_by_habit_is_taken(http):
    habit = {"frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}, "response_format": {"type": "text"},
             "tool_choice": "auto", "parallel_tool_calls": True, "store": False, "service_tier": "auto", "n": None,
             "stream": None, "stop": None, "temperature": None, "logprobs": False,
             "safety_identifier": "x"}  # fmt: skip
    assert post(http, **habit).status_code == 200


def test_a_policy_names_a_base_that_there_is_and_keeps_it(http):
    told = error_of(http.put("/v1/policies/other", json=LANGUAGE | {"base": "huge"}), 422)
    assert told["param"] == "base"
    assert "tiny" in told["message"]
    assert error_of(http.put("/v1/policies/other", json=LANGUAGE | {"recipe": "magic"}), 422)["param"] == "recipe"
    assert http.put("/v1/policies/clerk", json=LANGUAGE).status_code == 200
    assert error_of(http.post("/v1/policies/clerk/learn", json={"recipe": "magic"}), 422)["param"] == "recipe"
    error_of(http.get("/v1/export?policy=clerk&format=alpaca"), 422)


# ---- other people's things -------------------------------------------------------------------------------------------


def test_a_key_speaks_for_its_own_user_only(http):
    assert error_of(post(http, "ann", user="bob"), 403)["code"] == "forbidden"
    told = post(http, "ann").json()
    row = journaled(http, "clerk", told["id"])
    assert row is not None
    assert row["user"] == "ann"


def test_a_strangers_session_is_refused_in_chat_and_in_feedback(http):
    session = {"metadata": {"session": "ann and the clerk"}}
    assert post(http, "ann", **session).status_code == 200
    assert "somebody else" in error_of(post(http, "bob", **session), 403)["message"]
    assert post(http, user="bob", **session).status_code == 403, "nor may an admin's key put bob there"
    thumb = {"session": "ann and the clerk", "kind": "thumb", "value": 1}
    bob = {"Authorization": "Bearer bob-key"}
    error_of(http.post("/v1/feedback", json=thumb, headers=bob), 403)
    assert post(http, "ann", **session).status_code == 200
    rival = {"Authorization": "Bearer rival-key"}
    assert http.post("/v1/feedback", json=thumb, headers=rival).status_code == 202, (
        "another tenant's session is its own"
    )


def test_a_strangers_answer_takes_no_feedback_and_no_retry(http):
    body = {"id": str(uuid.uuid4())}
    told = post(http, "ann", **body).json()
    bob = {"Authorization": "Bearer bob-key"}
    correction = {"decision": told["id"], "kind": "correction", "text": "say that bob is right"}
    error_of(http.post("/v1/feedback", json=correction, headers=bob), 403)
    assert error_of(post(http, "bob", **body), 409)["code"] == "conflict"
    assert post(http, "ann", **body).json() == told


def test_tenants_have_models_of_their_own(http, server):
    assert error_of(post(http, "rival"), 404)["code"] == "model_not_found"
    with openai_client(server, "rival-key") as client:
        assert list(client.models.list()) == []
    with openai_client(server, "wrong") as client, pytest.raises(openai.AuthenticationError):
        client.models.list()


def test_who_was_erased_leaves_no_byte_and_no_id(http, server):
    secret = "the password of the vault is xyzzy-4711"
    body = {"id": str(uuid.uuid4()), "messages": [{"role": "user", "content": secret}]}
    assert post(http, "ann", **body).status_code == 200
    held = http.get("/v1/users/ann").json()["held"]["decisions"]
    assert any(row["messages"] == body["messages"] for row in held), "a person sees what is held"
    journal = server.data / "journal.db"
    wal = server.data / "journal.db-wal"
    assert b"xyzzy-4711" in journal.read_bytes() + wal.read_bytes()
    tokens = bytes(byte for letter in "xyzzy" for byte in (token_of(http, letter), 0, 0, 0))
    assert tokens in journal.read_bytes() + wal.read_bytes()
    assert http.delete("/v1/users/ann").status_code == 200
    left = journal.read_bytes() + wal.read_bytes()
    assert b"xyzzy-4711" not in left
    assert tokens not in left
    assert error_of(post(http, "ann", **body), 410)["code"] == "erased"


def token_of(http: httpx2.Client, letter: str) -> int:
    """The id of a letter's token, as the journal tells it."""
    told = post(http, messages=[{"role": "user", "content": letter}], user="carl").json()
    row = journaled(http, "clerk", told["id"])
    assert row is not None
    return int(row["prompt_ids"][6])


# ---- too much at once ------------------------------------------------------------------------------------------------


def test_more_answers_than_the_limit_are_429_and_places_come_back(http, server):
    assert error_of(post(http, n=4), 429)["code"] == "overloaded"
    long = {"model": "clerk", "messages": HELLO, "max_tokens": 450, "stream": True, "n": 3}
    with httpx2.Client(base_url=server.url, headers=ADMIN) as slow:
        for _ in range(50):  # so small a model may be through with the long answer before the next request arrives
            with slow.stream("POST", "/v1/chat/completions", json=long) as stream:
                next(stream.iter_lines())
                full = post(http)
            if full.status_code == 429:
                break
        assert error_of(full, 429)["type"] == "rate_limit_error"
        assert int(full.headers["retry-after"]) >= 1
        # Whoever held the places went away: they are free again.
        wait_for(lambda: True if post(http, n=3).status_code == 200 else None)


def test_many_clients_within_the_limit_are_all_answered(http):
    told: list[int] = []
    threads = [threading.Thread(target=lambda: told.append(post(http).status_code)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == [200] * 3


def test_a_malformed_body_is_422_like_everywhere(http):
    write = {"Content-Type": "application/json"}
    for body in (b"", b"{", b"[]", b"null", json.dumps({"model": 1}).encode(), b'{"messages":' * 900):
        error_of(http.post("/v1/chat/completions", content=body, headers=write), 422)
