"""Which version answers: adapters promoted, rolled back, damaged, withdrawn, under load; and notes in the context."""

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from dayjob.endings import VersionStatus
from dayjob.policies.adapters import WEIGHTS
from dayjob.serve.app import create_app
from dayjob.serve.call import Service
from dayjob.serve.models import Noted
from tests.journal.standing import stand
from tests.policies.language.worlds import World, byte_tokenizer
from tests.serve.adapting import ask, check_written_by, promote, publish, serve_tiny
from tests.serve.chatting import CONTEXT, HELLO, LANGUAGE


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make("qwen3", tmp_path_factory.mktemp("adapters"))


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return serve_tiny(tmp_path)


@pytest.fixture
def http(service: Service) -> Iterator[TestClient]:
    with TestClient(create_app(service), base_url="http://127.0.0.1") as client:
        assert client.put("/v1/policies/clerk", json=LANGUAGE).status_code == 201
        yield client


def test_a_promoted_adapter_answers_and_a_rollback_takes_it_back(service, world, http):
    first, second = publish(service, world, 1), publish(service, world, 2)
    check_written_by(service, world, ask(http), 0)
    promote(http, first)
    told = ask(http, seed=1)
    assert (told["model"], told["system_fingerprint"]) == (f"clerk@{first}", first)
    check_written_by(service, world, told, 1)
    check_written_by(service, world, ask(http, model=f"clerk@{second}"), 2)
    check_written_by(service, world, ask(http, model="clerk@baseline"), 0)
    models = {one["id"]: one["parent"] for one in http.get("/v1/models").json()["data"]}
    assert models[f"clerk@{second}"] == "v0-baseline"
    assert http.post("/v1/policies/clerk/rollback", json={}).json()["champion"] == "v0-baseline"
    check_written_by(service, world, ask(http), 0)


def test_a_frozen_policy_serves_what_was_said_of_it(service, world, http):
    first = publish(service, world, 1)
    promote(http, first)
    assert http.post("/v1/policies/clerk/freeze", json={"serve": "baseline"}).status_code == 200
    assert ask(http)["system_fingerprint"] == "v0-baseline"
    assert http.post("/v1/policies/clerk/unfreeze", json={}).status_code == 200
    assert ask(http)["system_fingerprint"] == first
    (service.hub.root / "freeze").write_text("baseline")
    service.hub.refresh()
    assert ask(http)["system_fingerprint"] == "v0-baseline"


@pytest.mark.parametrize("damage", ["truncated", "flipped", "gone", "foreign"])
def test_a_damaged_adapter_never_serves_and_the_last_good_one_goes_on(service, world, http, damage):
    good, bad = publish(service, world, 1), publish(service, world, 2)
    promote(http, good)
    assert ask(http)["system_fingerprint"] == good
    weights = service.hub.root / "versions" / "default" / "clerk" / bad / WEIGHTS
    sound = weights.read_bytes()
    flipped = bytearray(sound)
    flipped[-1] ^= 1
    other = (service.hub.root / "versions" / "default" / "clerk" / good / WEIGHTS).read_bytes()
    if damage == "gone":
        weights.unlink()
    else:
        weights.write_bytes({"truncated": sound[:-8], "flipped": bytes(flipped), "foreign": other}[damage])
    promote(http, bad)
    told = ask(http)
    assert told["system_fingerprint"] == good
    check_written_by(service, world, told, 1)
    assert bad in str(http.get("/readyz").json()["damaged"])
    pinned = http.post("/v1/chat/completions", json={"model": f"clerk@{bad}", "messages": HELLO})
    assert (pinned.status_code, pinned.json()["error"]["code"]) == (503, "damaged")
    promote(http, good)
    assert http.get("/readyz").json()["damaged"] == {}, "nobody is asked for it any more"
    promote(http, bad)
    weights.write_bytes(sound)
    service.voices.failed_s.clear()  # as if some seconds had gone by
    assert ask(http)["system_fingerprint"] == bad
    assert http.get("/readyz").json()["damaged"] == {}


def test_a_version_that_learned_from_someone_erased_cannot_be_asked_for(service, world, http):
    tainted = publish(service, world, 1)
    stand(service.hub.control, "default", "clerk", [tainted], VersionStatus.TAINTED)
    refused = http.post("/v1/chat/completions", json={"model": f"clerk@{tainted}", "messages": HELLO})
    assert refused.status_code == 409
    assert "erased" in refused.json()["error"]["message"]


def test_no_request_fails_or_mixes_versions_while_champions_change_under_load(service, world, http):
    versions = [publish(service, world, number) for number in (1, 2, 3)]
    told: list[tuple[int, str]] = []
    stop = threading.Event()

    def load() -> None:
        body = {"model": "clerk", "messages": HELLO, "max_tokens": 4}
        while not stop.is_set():
            answer = http.post("/v1/chat/completions", json=body)
            told.append((answer.status_code, answer.json().get("id", answer.text)))

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    for version in versions * 3:
        before = len(told)
        promote(http, version)
        while len(told) < before + 6:
            assert all(thread.is_alive() for thread in threads)
    stop.set()
    for thread in threads:
        thread.join()
    assert {status for status, _ in told} == {200}
    stamps = set()
    for _, decision in told:
        stored = service.hub.reader.decision("default", decision)
        assert stored is not None
        assert stored.record.generation is not None
        (choice,) = stored.record.generation.choices
        assert [name for name, _ in choice.versions] == [stored.record.version]
        stamps.add(stored.record.version)
    assert stamps >= set(versions)


def test_a_base_that_is_not_configured_any_more_is_said(service, http):
    service.voices.bases.pop("tiny")
    refused = http.post("/v1/chat/completions", json={"model": "clerk", "messages": HELLO})
    assert refused.status_code == 503
    assert "[bases.tiny]" in refused.json()["error"]["message"]


# ---- notes -----------------------------------------------------------------------------------------------------------


def with_notes(service: Service, noted: Noted, seen: list[Any]) -> Iterator[TestClient]:
    def notes(tenant: str, policy: str, **asked: Any) -> Noted:
        seen.append((tenant, policy, asked["user"], asked["session"], asked["messages"]))
        assert asked["version"] == "v0-baseline"
        assert asked["tokens"] is service.voices.bases["tiny"].tokens
        return noted

    remembering = dataclasses.replace(service, context_notes=notes)
    with TestClient(create_app(remembering), base_url="http://127.0.0.1") as client:
        assert client.put("/v1/policies/clerk", json=LANGUAGE).status_code == 201
        yield client


@pytest.mark.parametrize("system", [False, True])
def test_notes_stand_in_the_context_and_the_journal_has_the_prompt_with_and_without(service, system):
    seen: list[Any] = []
    messages = [{"role": "system", "content": "be kind"}, *HELLO] if system else HELLO
    for http in with_notes(service, Noted(text="tea is at 4", ids=("n1", "n2")), seen):
        told = ask(http, messages=messages, user="ann", metadata={"session": "s"})
        assert seen == [("default", "clerk", "ann", "s", messages)]
        stored = service.hub.reader.decision("default", told["id"])
        assert stored is not None
        generation = stored.record.generation
        assert generation is not None
        assert (generation.notes, list(generation.messages)) == (("n1", "n2"), messages)
        tokenizer = byte_tokenizer()
        read, bare = (
            tokenizer.decode(np.frombuffer(ids, "<u4").tolist()) for ids in (generation.prompt_ids, generation.bare_ids)
        )
        noted = "be kind\n\ntea is at 4" if system else "tea is at 4"
        assert read.startswith(f"<|start|>system\n{noted}<|end|>")
        assert "tea" not in bare
        assert told["usage"]["prompt_tokens"] == len(generation.prompt_ids) // 4


@pytest.mark.parametrize("text", ["x" * CONTEXT, "x" * (CONTEXT - 100), "<|end|>"])
def test_notes_that_do_not_fit_or_cannot_be_said_break_no_chat(service, text):
    for http in with_notes(service, Noted(text=text, ids=("n1",)), []):
        told = ask(http, max_tokens=100)
        stored = service.hub.reader.decision("default", told["id"])
        assert stored is not None
        assert stored.record.generation is not None
        assert (stored.record.generation.notes, stored.record.generation.bare_ids) == ((), b"")
