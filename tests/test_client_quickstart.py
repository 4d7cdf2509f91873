"""The scripts that a new user copies first do what the pages say: against a real server, word for word."""

import asyncio
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dayjob import client_calls, client_language
from dayjob.client import AsyncClient, Client, Feedback, RankerSpec
from dayjob.lab.server import Server, running
from dayjob.serve.openapi import document
from dayjob.serve.routes import ROUTES

ROOT = Path(__file__).parent.parent
LOCAL = "http://127.0.0.1:8080"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("quickstart") / "data") as one:
        yield one


def script(page: str, url: str, *, number: int = 0) -> str:
    """A Python block of a page, with this server's address."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S)
    assert LOCAL in blocks[number], f"{page} shows how to connect"
    return str(blocks[number]).replace(LOCAL, url)


def counts(url: str, policy: str) -> tuple[int, dict[str, int]]:
    with Client(url) as client:
        found = client.policy(policy).counts
        return found.decisions, dict(found.outcomes)


def test_the_readme_runs_as_it_stands(server: Server) -> None:
    names: dict[str, Any] = {}
    exec(script("README.md", server.url), names)
    names["client"].close()
    assert counts(server.url, "search") == (1, {"click": 1})


def test_the_clients_page_runs_as_it_stands(server: Server) -> None:
    shown: list[list[str]] = []
    found = [SimpleNamespace(id=f"d{n}", vector=np.ones(64) * n, score=-n) for n in (41, 42, 43)]
    names: dict[str, Any] = {"query_vector": np.zeros(64), "found": found, "show": shown.append}
    exec(script("docs/client.md", server.url), names)
    names["client"].close()
    assert sorted(shown[0]) == ["d41", "d42", "d43"]
    decisions, outcomes = counts(server.url, "articles")
    assert (decisions, outcomes) == (1, {"click": 1})


def test_the_asynchronous_page_runs_as_it_stands(server: Server) -> None:
    with Client(server.url) as client:
        before = counts(server.url, "articles")[0] if "articles" in [p.name for p in client.policies()] else 0
    names: dict[str, Any] = {}
    exec(script("docs/client.md", server.url, number=1), names)
    receipts = asyncio.run(names["main"]([np.ones(64), np.zeros(64)]))
    assert [receipt.ok for receipt in receipts] == [True, True]
    assert counts(server.url, "articles")[0] == before + 2


def test_every_call_is_on_the_clients_page() -> None:
    page = (ROOT / "docs" / "client.md").read_text()
    calls = [name for name in dir(Client) if not name.startswith("_")]
    assert {"rank", "feedback", "export", "wait_job"} <= set(calls)
    missing = [name for name in calls if f"`{name}(" not in page and f"`{name}`" not in page]
    assert missing == []


STREAMED = ("export", "stream")  # no plans: they are read as they come


def plan_of(name: str) -> Any:
    """The plan behind a call of the client."""
    return getattr(client_calls, name, None) or getattr(client_language, name)


def test_every_route_is_a_call() -> None:
    """Whatever the server publishes under /v1 is reached by a call, seen in the paths that plans ask for."""
    arguments = {"name": "p", "policy": "p", "job": "j", "job_id": "j", "user": "u", "spec": RankerSpec(
        context_dim=1, candidate_dim=1), "items": (), "item": Feedback(decision="d", kind="none"), "context": [0.0],
        "version": "v", "reason": "r", "learn": True, "model": "p", "messages": [], "note": "i", "lesson": "i",
        "decision": "i"}  # fmt: skip
    asked = set()
    for name in [each for each in dir(Client) if not each.startswith("_") and each not in (*STREAMED, "run", "close")]:
        plan = plan_of(name)
        wanted = [one for one in inspect.signature(plan).parameters.values() if one.default is one.empty]
        step = next(plan(**{one.name: arguments[one.name] for one in wanted}))
        asked.add((step.method, step.path))
    asked.add(("GET", client_calls.export_request("p").path))
    routes = {(method.upper(), path) for path, methods in document(ROUTES)["paths"].items() for method in methods}
    wanted_routes = {one for one in routes if one[1].startswith("/v1/")}
    fill = {"name": "p", "job": "j", "user": "u", "id": "i", "model": "p"}
    missing = [one for one in sorted(wanted_routes) if (one[0], one[1].format(**fill)) not in asked]
    assert missing == []


def test_the_curves_are_told(server: Server) -> None:
    with Client(server.url) as client:
        client.put_policy("curves", RankerSpec(context_dim=1, candidate_dim=1))
        assert set(client.series("curves")) == {"versions", "position", "trial", "feedback", "learning"}


def test_both_clients_have_the_same_calls_with_the_same_signatures() -> None:
    names = {name for name in dir(Client) if not name.startswith("_")}
    assert names == {name for name in dir(AsyncClient) if not name.startswith("_")}
    for name in names - {*STREAMED, "run", "close"}:
        assert inspect.signature(getattr(Client, name)) == inspect.signature(plan_of(name))
