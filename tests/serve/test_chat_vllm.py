"""A language policy whose answers a vLLM server writes: a stand-in on the documented wire, never a real one."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from dayjob.cli.serve import assemble
from dayjob.config import Base, Config
from dayjob.journal.layers import address_of
from dayjob.serve.app import create_app
from dayjob.serve.call import Service
from tests.policies.language.fake_vllm import FakeVllm, running
from tests.policies.language.worlds import World
from tests.serve.adapting import ask, check_written_by, promote, publish
from tests.serve.chatting import LANGUAGE, save_tiny


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make("qwen3", tmp_path_factory.mktemp("adapters"))


@pytest.fixture
def fake(world: World) -> FakeVllm:
    return FakeVllm(world, slots=4, adapters=8, model="tiny")


@pytest.fixture
def service(tmp_path: Path, fake: FakeVllm) -> Iterator[Service]:
    with running(fake) as url:
        base = Base(name="tiny", path=str(save_tiny(tmp_path / "model")), engine="vllm", url=url)
        yield assemble(Config(data=tmp_path / "data", ballast_bytes=0, bases=(base,), watch_share=0.0), ())


@pytest.fixture
def http(service: Service) -> Iterator[TestClient]:
    with TestClient(create_app(service), base_url="http://127.0.0.1") as client:
        assert client.put("/v1/policies/clerk", json=LANGUAGE).status_code == 201
        yield client


def test_versions_of_a_policy_are_told_to_the_server_and_answer(service, world, fake, http):
    check_written_by(service, world, ask(http), 0)
    shared = publish(service, world, 2)
    promote(http, shared)
    told = ask(http)
    assert told["model"] == f"clerk@{shared}"
    check_written_by(service, world, told, 2)
    own = publish(service, world, 1, user="ann")
    promote(http, own, user="ann")
    check_written_by(service, world, ask(http, user="ann"), 1)
    check_written_by(service, world, ask(http, user="bob"), 2)
    assert http.post("/v1/policies/clerk/rollback", json={}).status_code == 200
    check_written_by(service, world, ask(http), 0)
    address = address_of(service.hub.control, "default", "clerk", "ann")
    names = json.dumps([one["model"] for one in fake.seen])
    for ours in ("default", "clerk", "ann", address, own, shared):
        assert ours not in names

    # What everybody's version thinks of an answer, token by token, is what it thought when it wrote it.
    compared = http.get(f"/v1/decisions/{told['id']}/compare").json()
    generation = service.hub.reader.decision("default", told["id"]).record.generation
    wrote = np.frombuffer(generation.choices[0].model_logprobs, "<f4")
    np.testing.assert_allclose([one["without_notes"] for one in compared["tokens"]], wrote, atol=1e-3)


def test_a_server_that_was_started_anew_and_a_person_who_was_erased(service, world, fake, http):
    promote(http, publish(service, world, 1, user="ann"), user="ann")
    check_written_by(service, world, ask(http, user="ann"), 1)
    assert len(fake.loaded) == 1
    fake.loaded.clear()
    check_written_by(service, world, ask(http, user="ann"), 1)
    assert len(fake.loaded) == 1
    assert http.delete("/v1/users/ann").json()["adapters_withdrawn"]
    assert fake.loaded == {}
    check_written_by(service, world, ask(http, user="ann"), 0)
