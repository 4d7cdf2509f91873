"""A language policy in this process whose adapters tests publish as a learner would; and who wrote an answer."""

from pathlib import Path
from typing import Any

import numpy as np
from starlette.testclient import TestClient

from dayjob.cli.serve import assemble
from dayjob.config import Base, Config
from dayjob.endings import VersionStatus
from dayjob.journal.layers import open_layer
from dayjob.journal.versions import VersionManifest, publish_files
from dayjob.policies.adapters import CONFIG, WEIGHTS
from dayjob.records import Version
from dayjob.serve.auth import Key
from dayjob.serve.call import Service
from tests.policies.language.worlds import BASE, World
from tests.serve.chatting import HELLO, save_tiny

TENANT, POLICY = "default", "clerk"


def serve_tiny(root: Path, keys: tuple[Key, ...] = (), *, watch_share: float = 0.0) -> Service:
    """The parts of a server with the base "tiny"; nothing is answered by what a champion replaced unless asked for."""
    base = Base(name="tiny", path=str(save_tiny(root / "model")))
    return assemble(Config(data=root / "data", ballast_bytes=0, bases=(base,), watch_share=watch_share), keys)


def publish(service: Service, world: World, number: int, *, user: str | None = None, like: int | None = None) -> str:
    """A version of that number of the tenant's layer, or of a person's; its weights are those of the world's adapter
    of the number ``like``."""
    folder = world.adapters[(like or number) - 1].folder
    assert folder is not None
    return publish_folder(service, folder, number=number, user=user)


def publish_folder(service: Service, folder: Path, *, number: int, user: str | None) -> str:
    """A PEFT folder as a version of that number."""
    address = open_layer(service.hub.control, TENANT, POLICY, user)
    files = {name: (folder / name).read_bytes() for name in (CONFIG, WEIGHTS)}
    about = VersionManifest(recipe="consolidate", network={}, from_seq=0, to_seq=0, seed=0, created_ms=0)
    stored = publish_files(service.hub.root, TENANT, address, number=number, files=files, manifest=about)
    service.hub.control.add_version(
        Version(
            tenant=TENANT, policy=address, name=stored.version, number=number, parent="v0-baseline",
            recipe="consolidate", digest=stored.digest, from_seq=0, to_seq=0, status=VersionStatus.WAITING,
            created_ms=0,
        )
    )  # fmt: skip
    return stored.version


def ask(http: TestClient, **changes: Any) -> dict[str, Any]:
    """An answer."""
    body = {"model": POLICY, "messages": HELLO, "max_tokens": 8} | changes
    answer = http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def promote(http: TestClient, version: str, **who: str) -> dict[str, Any]:
    """Promote by hand."""
    told = http.post(f"/v1/policies/{POLICY}/promote", json={"version": version, "reason": "try", **who})
    assert told.status_code == 200, told.text
    return dict(told.json())


def check_written_by(service: Service, world: World, told: dict[str, Any], number: int) -> None:
    """The journaled log-probabilities are those of a plain forward with that adapter (0: none), and of no other."""
    stored = service.hub.reader.decision(TENANT, told["id"])
    assert stored is not None
    assert stored.record.generation is not None
    generation = stored.record.generation
    prompt = tuple(np.frombuffer(generation.prompt_ids, "<u4").tolist())
    ids = tuple(np.frombuffer(generation.choices[0].token_ids, "<u4").tolist())
    found = np.frombuffer(generation.choices[0].model_logprobs, "<f4")
    for other, ref in enumerate((BASE, *world.adapters)):
        near = np.allclose(found, world.logprobs(ref, prompt, ids).numpy(), atol=1e-3)
        assert near == (other == number), f"version {number} against {other}"
