"""GET /v1/export of words: who may have which format, of whom, and how much is read at once."""

import asyncio
import json
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pyarrow.parquet import ParquetFile
from starlette.testclient import TestClient

from dayjob.cli.serve import assemble
from dayjob.cli.transfer import baseline
from dayjob.config import Config
from dayjob.endings import OutcomeKind, PolicyKind
from dayjob.journal import exports, parquet
from dayjob.journal.control import Control
from dayjob.journal.readers import Reader
from dayjob.memory.examples import Format
from dayjob.memory.exports import example_lines
from dayjob.records import Policy
from dayjob.serve.app import create_app
from dayjob.serve.export import _blocks
from tests.memory.office import POLICY, Office, asked

PEOPLE = 130  # decisions: three pages


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everybody is corrected once; afterwards ann is no longer learned from."""
    root: Path = tmp_path_factory.mktemp("export") / "data"
    office = Office(root)
    for name, kind in ((POLICY, PolicyKind.LANGUAGE), ("shop", PolicyKind.RANKER)):
        spec = {"kind": kind.value, "base": "tiny", "recipe": "consolidate", "context_dim": 2, "candidate_dim": 2,
                "pair_dim": 0, "hidden": [4], "similarity_scale": 1.0, "metric": "click", "reward_range": [0, 1],
                "outcome_window_s": 60, "explore": {"changed_first": 0.05}, "alpha": 0.05, "minimum_effect": 0.01,
                "learn_every": 0}  # fmt: skip
        policy = Policy(tenant="default", name=name, kind=kind, spec=spec, created_ms=0)
        office.control.create_policy(policy, baseline("default", name))
    for number in range(PEOPLE):
        user = "ann" if number % 10 == 0 else f"u{number}"
        decision = asked(next(office.numbers), f"question {number}", tenant="default", user=user)
        office.store.append_decision(decision)
        office.say(decision.id, f"answer {number}", tenant="default", kind=OutcomeKind.CORRECTION)
    office.control.set_learns("default", "ann", False)
    office.close()
    return root


@pytest.fixture
def http(data: Path) -> Iterator[TestClient]:
    with TestClient(create_app(assemble(Config(data=data), ())), base_url="http://127.0.0.1") as client:
        yield client


def rows(http: TestClient, format: str) -> list[dict[str, Any]]:
    answer = http.get("/v1/export", params={"policy": POLICY, "format": format})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    return [json.loads(line) for line in answer.text.splitlines()]


LEARNED = [number for number in range(PEOPLE) if number % 10]


def test_each_format_holds_everybody_who_is_learned_from(http: TestClient) -> None:
    chat, preference, dpo = (rows(http, format) for format in ("chat", "preference", "openai-dpo"))
    assert [row["messages"][-1]["content"] for row in chat] == [f"answer {number}" for number in LEARNED]
    assert [row["prompt"][-1]["content"] for row in preference] == [f"question {number}" for number in LEARNED]
    assert [row["preferred_output"][0]["content"] for row in dpo] == [f"answer {number}" for number in LEARNED]
    assert {row["rejected"][0]["content"] for row in preference} == {"no idea"}
    assert len(rows(http, "decisions")) == PEOPLE, "to be read: opting out of learning hides nobody"


def test_a_format_that_does_not_fit_is_422_and_names_the_one_that_does(http: TestClient) -> None:
    for format in ("chat", "preference", "openai-dpo"):
        refused = http.get("/v1/export", params={"policy": "shop", "format": format})
        assert refused.status_code == 422
        assert refused.json()["error"]["param"] == "format"
        assert "format=decisions" in refused.json()["error"]["message"]
    refused = http.get("/v1/export", params={"policy": POLICY, "format": "alpaca"})
    assert refused.status_code == 422
    assert "chat, preference, openai-dpo, decisions, parquet" in refused.json()["error"]["message"]


def test_parquet_holds_what_the_lines_hold_in_row_groups(http: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "PAGES", 2)  # of 50 decisions
    answer = http.get("/v1/export", params={"policy": POLICY, "format": "parquet"})
    assert answer.headers["content-type"] == parquet.PARQUET
    file = ParquetFile(BytesIO(answer.content))
    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [100, 30]
    assert [parsed(row) for row in file.read().to_pylist()] == rows(http, "decisions")


def parsed(value: Any, name: str = "") -> Any:
    """What has no shape of its own is JSON."""
    if name in parquet.FREE and value is not None:
        return json.loads(value)
    if isinstance(value, dict):
        return {key: parsed(one, key) for key, one in value.items()}
    return [parsed(one) for one in value] if isinstance(value, list) else value


def test_without_pyarrow_parquet_says_how_to_have_it(http: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refused = http.get("/v1/export", params={"policy": POLICY, "format": "parquet"})
    assert refused.status_code == 422
    assert "pip install 'dayjob[parquet]'" in refused.json()["error"]["message"]


def test_a_page_is_read_when_the_one_before_it_was_taken(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the journal, no more than a page of it is in memory."""
    read: list[int] = []
    plain = Reader.decisions

    def counted(self: Reader, *args: Any, **named: Any) -> Any:
        found = plain(self, *args, **named)
        read.append(len(found[0]))
        return found

    monkeypatch.setattr(Reader, "decisions", counted)

    async def go() -> None:
        blocks = _blocks(exports.decision_lines(Reader(data), "default", POLICY))
        first = await anext(blocks)
        assert (first.count(b"\n"), read) == (exports.AT_ONCE, [exports.AT_ONCE])
        left = [block.count(b"\n") async for block in blocks]
        assert left == [50, 30]

    asyncio.run(go())


def test_who_opts_out_while_it_is_read_is_out_of_what_follows(data: Path) -> None:
    silent = {("default", "ann")}
    control = Control(data)
    blocks = example_lines(
        Reader(data), control, "default", POLICY, format=Format.CHAT, silent=lambda: frozenset(silent)
    )  # fmt: skip
    assert b"answer 49" in next(blocks)
    silent.add(("default", "u129"))
    rest = b"".join(blocks)
    assert b"answer 128" in rest
    assert b"answer 129" not in rest
