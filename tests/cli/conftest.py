"""A small shop whose journal holds a bit of everything, and the command line run in this process, as `main` does."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from dayjob import cli
from dayjob.cli.serve import assemble
from dayjob.config import Config
from dayjob.serve.app import create_app

SPEC = {"kind": "ranker", "context_dim": 3, "candidate_dim": 2, "pair_dim": 1, "learn_every": 0, "metric": "click"}


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a command."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Done]


@pytest.fixture
def dayjob(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """``dayjob("versions", "shop")``: run it to its end."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["dayjob", *map(str, words)])
        capsys.readouterr()
        status = 0
        try:
            cli.main()
        except SystemExit as end:
            status = int(end.code or 0)
        said = capsys.readouterr()
        return Done(status, said.out, said.err)

    return run


@pytest.fixture(scope="session")
def shop_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Decisions with inline and with catalog candidates, people, sessions, and every kind of outcome."""
    root = tmp_path_factory.mktemp("shop") / "data"
    with TestClient(create_app(assemble(Config(data=root), ())), base_url="http://127.0.0.1") as client:

        def ok(method: str, path: str, body: Any) -> Any:
            answer = client.request(method, path, json=body)
            assert answer.status_code < 300, answer.text
            return answer.json()

        ok("PUT", "/v1/policies/shop", SPEC)
        ok("PUT", "/v1/policies/other", SPEC)
        items = [{"id": f"i{n}", "features": [n / 7, 1.0], "meta": {"n": n} if n % 2 else None} for n in range(9)]
        lines = "\n".join(json.dumps({k: v for k, v in item.items() if v is not None}) for item in items)
        put = client.put("/v1/policies/shop/catalog", content=lines, headers={"Content-Type": "application/x-ndjson"})
        assert put.status_code == 200, put.text
        for number in range(24):
            body: dict[str, Any] = {
                "policy": "other" if number % 6 == 5 else "shop", "user": f"u{number % 4}", "session": f"s{number % 5}",
                "context": {"features": [1.0, number / 24, -0.1]},
                "candidates": [
                    {"id": f"c{n}", "features": [n / 3, number % 3], "pair": [n / 10], "score": -n, "meta": {"n": n}}
                    for n in range(3)
                ],
            }  # fmt: skip
            if number % 6 == 4:
                body["candidates"] = [{"id": f"i{n}"} for n in range(4)]
            told = ok("POST", "/v1/rank", body)
            first = told["ranking"][0]["id"]
            clicked = ok("POST", "/v1/feedback", {"decision": told["id"], "kind": "click", "item": first})
            about = {
                0: {"decision": told["id"], "kind": "thumb", "value": 1},
                1: {"decision": told["id"], "kind": "reward", "value": 0.5},
                2: {"decision": told["id"], "kind": "truth", "value": {"relevance": {first: 1.0}}},
                3: {"session": body["session"], "kind": "none"},
                4: {"decision": told["id"], "kind": "retract", "value": clicked["id"]},
            }.get(number % 6)
            if about:
                ok("POST", "/v1/feedback", about)
        ok("PATCH", "/v1/users/u1", {"learn": False})
    return root


@pytest.fixture
def shop(shop_template: Path, tmp_path: Path) -> Path:
    """A copy of the shop's data directory of one's own."""
    return Path(shutil.copytree(shop_template, tmp_path / "data"))
