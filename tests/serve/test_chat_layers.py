"""A person's own adapter: it answers them and nobody else, falls back when damaged, and is gone when they are."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from starlette.testclient import TestClient

from dayjob.endings import VersionStatus
from dayjob.journal.control import put_state
from dayjob.journal.layers import address_of
from dayjob.journal.versions import folder_of
from dayjob.policies.adapters import WEIGHTS
from dayjob.policies.engine_jobs import EngineLimits
from dayjob.policies.engine_protocol import salt_of
from dayjob.policies.tokens import Tokens
from dayjob.serve.app import create_app
from dayjob.serve.auth import Key, parse_keys
from dayjob.serve.call import Service
from tests.journal.standing import mark_taught
from tests.policies.language.worlds import ATTENTION, World, byte_tokenizer, peft_of_today, tiny_model
from tests.serve.adapting import ask, check_written_by, promote, publish, publish_folder, serve_tiny
from tests.serve.asking import error_of
from tests.serve.chatting import HELLO, LANGUAGE

CANARY = "zanzibar-gherkin"


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


def by(user: str, **changes: Any) -> dict[str, Any]:
    return {"user": user, "metadata": {"session": f"of-{user}"}} | changes


def refused(http: TestClient, status: int, **body: Any) -> dict[str, Any]:
    told = http.post("/v1/chat/completions", json={"model": "clerk", "messages": HELLO} | body)
    assert told.status_code == status, told.text
    return dict(told.json()["error"])


def test_what_was_promoted_for_a_person_answers_them_and_nobody_else(service, world, http):
    for one in (by("ann"), by("bob"), {}):
        check_written_by(service, world, ask(http, **one), 0)
    own = publish(service, world, 1, user="ann")
    check_written_by(service, world, ask(http, **by("ann")), 0)  # nothing serves before it was promoted
    told = promote(http, own, user="ann")
    assert (told["champion"], told["adapter"]["champion"], told["adapter"]["status"]) == (
        "v0-baseline",
        own,
        "champion",
    )
    shared = publish(service, world, 2)
    promote(http, shared)
    told = ask(http, **by("ann"))
    assert (told["model"], told["system_fingerprint"]) == (f"clerk@{own}", own)
    check_written_by(service, world, told, 1)
    check_written_by(service, world, ask(http, **by("ann", model="clerk@champion")), 1)
    for one in (by("bob"), {}):
        check_written_by(service, world, ask(http, **one), 2)
    # A rollback counts for the next answer, and leads back to everybody's.
    told = http.post("/v1/policies/clerk/rollback", json={"user": "ann"}).json()
    assert (told["champion"], told["adapter"]["champion"]) == (shared, "v0-baseline")
    check_written_by(service, world, ask(http, **by("ann")), 2)
    assert service.hub.control.version("default", "clerk", shared).status is VersionStatus.CHAMPION


def test_a_policy_frozen_at_the_baseline_is_so_for_everybody(service, world, http):
    promote(http, publish(service, world, 1, user="ann"), user="ann")
    assert http.post("/v1/policies/clerk/freeze", json={"serve": "baseline"}).status_code == 200
    check_written_by(service, world, ask(http, **by("ann")), 0)
    assert http.post("/v1/policies/clerk/freeze", json={"serve": "champion"}).status_code == 200
    check_written_by(service, world, ask(http, **by("ann")), 1)


def test_a_person_whose_own_adapter_is_frozen_at_the_baseline_gets_what_everybody_gets(service, world, http):
    promote(http, publish(service, world, 1, user="ann"), user="ann")
    promote(http, publish(service, world, 2))
    control = service.hub.control
    address = address_of(control, "default", "clerk", "ann")
    for frozen, number in (("baseline", 2), ("champion", 1), ("", 1)):
        control.move("default", address, change={"frozen": frozen})
        check_written_by(service, world, ask(http, **by("ann")), number)


def test_a_persons_version_is_found_by_name_for_them_alone(service, world, http):
    own, shared = publish(service, world, 1, user="ann"), publish(service, world, 2)
    check_written_by(service, world, ask(http, **by("ann", model=f"clerk@{own}")), 1)
    check_written_by(service, world, ask(http, **by("ann", model=f"clerk@{shared}")), 2)
    for other in (by("bob"), {}):
        assert refused(http, 404, **other, model=f"clerk@{own}")["code"] == "model_not_found"
    address = address_of(service.hub.control, "default", "clerk", "ann")
    assert refused(http, 404, **by("ann"), model=address)["code"] == "model_not_found"
    assert refused(http, 404, model=f"{address}@{own}")["code"] == "model_not_found"

    def names(**query: str) -> set[str]:
        return {one["id"] for one in http.get("/v1/models", params=query).json()["data"]}

    assert f"clerk@{own}" in names(user="ann")
    assert names(user="bob") == names() == {"clerk", "clerk@v0-baseline", f"clerk@{shared}"}
    listed = http.get("/v1/policies/clerk/versions", params={"user": "ann"}).json()["versions"]
    assert [one["version"] for one in listed] == ["v0-baseline", own]
    error_of(http.get("/v1/policies/clerk/versions", params={"user": "bob"}), 404)


@pytest.mark.parametrize("damage", ["flipped", "gone"])
def test_a_damaged_adapter_falls_back_to_what_serves_everybody_and_health_says_so(service, world, http, damage):
    own, shared = publish(service, world, 1, user="ann"), publish(service, world, 2)
    promote(http, shared)
    promote(http, own, user="ann")
    check_written_by(service, world, ask(http, **by("ann")), 1)
    address = address_of(service.hub.control, "default", "clerk", "ann")
    weights = folder_of(service.hub.root, "default", address) / own / WEIGHTS
    sound = weights.read_bytes()
    if damage == "gone":
        weights.unlink()
    else:
        weights.write_bytes(bytes([*sound[:-1], sound[-1] ^ 1]))
    engine = service.voices.bases["tiny"].engine
    engine.worker.shelf.drop(f"default/{address}/{own}")  # put out of memory for others'
    for _ in range(2):  # the second time it is not even looked at
        check_written_by(service, world, ask(http, **by("ann")), 2)
    damaged = http.get("/readyz").json()["damaged"]
    assert [name for name in damaged if own in name]
    assert "ann" not in "".join(damaged)
    promote(http, "v0-baseline", user="ann")
    assert http.get("/readyz").json()["damaged"] == {}, "nobody is asked for it any more"
    promote(http, own, user="ann")
    weights.write_bytes(sound)
    service.voices.failed_s.clear()  # as if some seconds had gone by
    check_written_by(service, world, ask(http, **by("ann")), 1)
    assert http.get("/readyz").json()["damaged"] == {}


def test_more_adapters_than_memory_holds_are_all_found_again(service, world, http):
    people = [f"u{number}" for number in range(200)]
    assert len(people) > 6 * EngineLimits().adapters
    for place, user in enumerate(people):
        promote(http, publish(service, world, 1, user=user, like=1 + place % 4), user=user)
    shelf = service.voices.bases["tiny"].engine.worker.shelf
    again = people[:40]  # each was put out long before its turn comes again
    for some in (people, again):
        for place, user in enumerate(some):
            told = ask(http, user=user, max_tokens=2)
            assert told["system_fingerprint"] != "v0-baseline"
            if place % 29 == 0:
                check_written_by(service, world, told, 1 + place % 4)
            assert len(shelf.held()) <= EngineLimits().adapters
    assert len(shelf.held()) == EngineLimits().adapters
    assert shelf.reads == len(people) + len(again)


def test_people_side_by_side_never_get_each_others_adapter(service, world, http):
    people = {f"u{number}": number for number in (1, 2, 3, 4)}
    for user, number in people.items():
        promote(http, publish(service, world, 1, user=user, like=number), user=user)
    told: list[tuple[int, dict[str, Any]]] = []

    def talk(user: str, number: int) -> None:
        told.extend((number, ask(http, user=user, max_tokens=4)) for _ in range(4))

    threads = [threading.Thread(target=talk, args=one) for one in people.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 16
    for number, answer in told:
        check_written_by(service, world, answer, number)


def test_nobody_learns_from_the_prompt_cache_what_stands_in_anothers_context(service, http):
    """Ann's note is in her prompt; Bob guesses the whole of it, and is told of no token that was known."""
    asked = {"messages": [{"role": "user", "content": "When is lunch on Fridays?"}], "max_tokens": 2}
    first = ask(http, **by("ann"), **asked)
    said = {"decision": first["id"], "kind": "correction", "text": "Lunch on Fridays is at 9:15."}
    assert http.post("/v1/feedback", json=said).status_code == 201

    def cached(**body: Any) -> int:
        return int(ask(http, **body)["usage"]["prompt_tokens_details"]["cached_tokens"])

    noted = ask(http, **by("ann"), **asked)
    generation = service.hub.reader.decision("default", noted["id"]).record.generation
    assert generation.notes
    text = service.voices.bases["tiny"].tokens.text(np.frombuffer(generation.prompt_ids, "<u4").tolist())
    assert text.startswith("system\n")
    guess = text.removeprefix("system\n").split("\nuser\n")[0]
    messages = [{"role": "system", "content": guess}, *asked["messages"]]
    for other in (by("bob"), {}):
        told = ask(http, **other, messages=messages, max_tokens=2)
        same = service.hub.reader.decision("default", told["id"]).record.generation.prompt_ids
        assert same == generation.prompt_ids, "the guess is right"
        assert told["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert cached(**by("ann"), **asked) > 64
    assert cached(**by("bob", messages=messages, max_tokens=2)) > 64, "what he sent himself"


# ---- erasure ---------------------------------------------------------------------------------------------------------


def bytes_of(root: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file())


def taught(folder: Path, text: str) -> Path:
    """An adapter that was trained to answer HELLO with this text."""
    everything = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]
    torch.manual_seed(0)
    with peft_of_today():
        settings = LoraConfig(r=16, lora_alpha=32, target_modules=everything, task_type="CAUSAL_LM")
        model = get_peft_model(tiny_model("qwen3"), settings)
        tokens = Tokens(byte_tokenizer())
        prompt, answer = tokens.render(HELLO), tokens.encode(text)
        optimiser = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], lr=1e-2)
        for _ in range(60):
            logit_TV = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
            loss = torch.nn.functional.cross_entropy(logit_TV, torch.tensor(answer))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        model.save_pretrained(folder)
    return folder


def tell_of(service: Service, user: str | None, version: str) -> None:
    """What a night says of its lessons and an exam of what was asked, in words."""
    address = address_of(service.hub.control, "default", "clerk", user)
    with service.hub.control.write() as db:
        for name in ("night", "exam"):
            put_state(db, "default", address, name=f"{name}/{version}", state={"said": CANARY})


def test_an_erased_persons_adapter_answers_no_more_and_leaves_no_byte(service, world, http, tmp_path):
    greedy = by("ann", temperature=0, max_tokens=len(CANARY))
    before = ask(http, **greedy)["choices"][0]["message"]["content"]
    ask(http, **by("bob"))
    told = ask(http, **by("ann", messages=[{"role": "user", "content": f"say {CANARY}"}]))
    said = {"decision": told["id"], "kind": "correction", "text": CANARY}
    assert http.post("/v1/feedback", json=said).status_code == 201
    control = service.hub.control
    own = publish_folder(service, taught(tmp_path / "taught", CANARY), number=1, user="ann")
    shared, bobs = publish(service, world, 2), publish(service, world, 3, user="bob")
    for user, version in (("ann", own), (None, shared), ("bob", bobs)):
        tell_of(service, user, version)
        address = address_of(control, "default", "clerk", user)
        mark_taught(control, "default", address, version, marks=[control.mark_of("default", "ann")])
        promote(http, version, **({"user": user} if user else {}))
    assert http.post("/v1/policies/clerk/learn", json={"user": "ann"}).status_code == 202
    assert ask(http, **greedy)["choices"][0]["message"]["content"] == CANARY != before  # she taught it, and it says so
    mark = control.mark_of("default", "ann").hex().encode()
    assert mark in bytes_of(service.hub.root)
    held = http.get("/v1/users/ann").json()
    assert held["versions"] == sorted(f"clerk/{one}" for one in (own, shared, bobs))

    gone = http.delete("/v1/users/ann").json()
    assert gone["adapters_withdrawn"] == [f"clerk/{own}"]
    assert gone["versions_tainted"] == sorted(f"clerk/{one}" for one in (shared, bobs))
    assert gone["rebuilding"] == ["clerk"]
    left = bytes_of(service.hub.root)
    for trace in (CANARY.encode(), mark, b"of-ann"):
        assert trace not in left, trace
    engine = service.voices.bases["tiny"].engine
    assert not any(own in name for name in engine.versions())
    assert not any(own in name for name in engine.worker.shelf.held())
    cached = {salts for _, salts in engine.worker.cache._blocks.values()}
    assert cached, "of others it is still there"
    assert not [salts for salts in cached if own in salts[0] or salts[2] == salt_of("default", "ann")]
    # Who has nothing of their own is answered by the tenant's, which serves until it is built again without them.
    check_written_by(service, world, ask(http, user="ann"), 2)
    assert http.post("/v1/policies/clerk/rollback", json={}).status_code == 200
    assert ask(http, **greedy)["choices"][0]["message"]["content"] == before
    error_of(http.post("/v1/policies/clerk/rollback", json={"user": "ann"}), 404)
    jobs = list(control.db().execute("SELECT policy FROM jobs"))
    assert sorted(jobs) == sorted([("clerk",), (address_of(control, "default", "clerk", "bob"),)])  # to build again


def test_an_erasure_between_the_question_and_the_answer_is_only_a_swap(service, world, http):
    """A layer that goes while its owner talks fails nobody."""
    promote(http, publish(service, world, 1, user="ann"), user="ann")
    stop, statuses = threading.Event(), []

    def talk() -> None:
        while not stop.is_set():
            body = {"model": "clerk", "messages": HELLO, "max_tokens": 4, "user": "ann"}
            statuses.append(http.post("/v1/chat/completions", json=body).status_code)

    thread = threading.Thread(target=talk)
    thread.start()
    while len(statuses) < 3:
        assert thread.is_alive()
    assert http.delete("/v1/users/ann").status_code == 200
    before = len(statuses)
    while len(statuses) < before + 3:
        assert thread.is_alive()
    stop.set()
    thread.join()
    assert set(statuses) == {200}


# ---- who may -------------------------------------------------------------------------------------------------------


KEYS = """
[[key]]
key = "boss"
tenant = "default"
scopes = ["infer", "feedback", "learn", "admin"]
[[key]]
key = "ann"
tenant = "default"
user = "ann"
scopes = ["infer", "feedback", "learn"]
[[key]]
key = "app"
tenant = "default"
scopes = ["infer", "feedback", "learn"]
"""


@pytest.fixture
def guarded(tmp_path: Path) -> Service:
    keys: tuple[Key, ...] = parse_keys(KEYS, source="test")
    return serve_tiny(tmp_path, keys)


def test_a_layer_is_reached_by_keys_that_may_speak_for_its_owner(guarded, world):
    with TestClient(create_app(guarded), base_url="http://127.0.0.1") as client:

        def call(key: str, method: str, path: str, body: Any = None) -> Any:
            return client.request(method, path, json=body, headers={"Authorization": f"Bearer {key}"})

        assert call("boss", "PUT", "/v1/policies/clerk", LANGUAGE).status_code == 201
        bobs, anns = publish(guarded, world, 1, user="bob"), publish(guarded, world, 2, user="ann")
        chat = {"messages": HELLO, "max_tokens": 1}
        path = "/v1/chat/completions"
        assert call("ann", "POST", path, chat | {"model": f"clerk@{anns}"}).status_code == 200
        assert call("ann", "POST", path, chat | {"model": f"clerk@{bobs}"}).status_code == 404
        assert call("ann", "POST", path, chat | {"model": f"clerk@{bobs}", "user": "bob"}).status_code == 403
        assert call("app", "POST", path, chat | {"model": f"clerk@{bobs}", "user": "bob"}).status_code == 200
        for path in ("policies/clerk", "policies/clerk/versions", "policies/clerk/nights", "models"):
            assert call("ann", "GET", f"/v1/{path}?user=bob").status_code == 403
            assert call("app", "GET", f"/v1/{path}?user=bob").status_code == 200
        assert call("ann", "GET", "/v1/policies/clerk").json()["adapter"]["newest"] == anns
        assert "adapter" not in call("app", "GET", "/v1/policies/clerk").json()
        assert call("ann", "POST", "/v1/policies/clerk/learn", {"user": "bob"}).status_code == 403
        for steer in ("promote", "rollback"):
            body = {"version": bobs, "reason": "x"} if steer == "promote" else {}
            assert call("app", "POST", f"/v1/policies/clerk/{steer}", body | {"user": "bob"}).status_code == 403
            assert call("boss", "POST", f"/v1/policies/clerk/{steer}", body | {"user": "bob"}).status_code == 200
