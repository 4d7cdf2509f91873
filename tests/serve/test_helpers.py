"""The learner and the judge beside a server read the server's configuration, and what they do is measured."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from dayjob.lab.server import Server, running
from tests.serve.asking import THREE, declare, rank


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("helpers") / "settings.toml"
    path.write_text('data = "elsewhere"\nholdback = 0.02\nwatch_share = 0.03\njudge_every_s = 0.05\n')
    return path


@pytest.fixture(scope="module")
def server(config: Path) -> Iterator[Server]:
    """Its data directory is named on the command line, everything else in the file."""
    with running(config.parent / "elsewhere", arguments=("--config", str(config))) as one:
        yield one


def children(server: Server) -> dict[str, list[str]]:
    """The helpers' command lines by command."""
    pids = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    lines = [Path(f"/proc/{pid}/cmdline").read_text().split("\0") for pid in pids]
    return {line[line.index("dayjob") + 1]: line for line in lines if "dayjob" in line}


def test_learner_and_judge_are_started_with_the_servers_file(server: Server, config: Path) -> None:
    found = children(server)
    assert set(found) == {"learn", "gate"}
    for line in found.values():
        assert line[line.index("--config") + 1] == str(config)


def test_the_judge_judges_by_the_servers_file(http: httpx2.Client) -> None:
    policy = declare(http)
    for _ in range(3):
        told = rank(http, policy, candidates=THREE)
        http.post("/v1/feedback", json={"decision": told["id"], "kind": "click", "position": 1})
    ends = time.monotonic() + 120
    while not (gate := http.get(f"/v1/policies/{policy}/report").json()["gate"])["judged_through"]:
        assert time.monotonic() < ends
        time.sleep(0.05)
    while gate.get("shares") is None:
        assert time.monotonic() < ends
        time.sleep(0.05)
        gate = http.get(f"/v1/policies/{policy}/report").json()["gate"]
    assert gate["shares"]["holdback"] == 0.02


def by_hand(*arguments: str) -> tuple[int, str]:
    """Its exit status and what it said, from a directory that holds nothing."""
    run = [sys.executable, "-m", "dayjob", *arguments]
    ended = subprocess.run(run, capture_output=True, text=True, timeout=120, cwd="/", check=False)
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.usefixtures("server")
def test_by_hand_the_file_names_the_directory_too(http: httpx2.Client, config: Path) -> None:
    policy = declare(http)
    status, said = by_hand("learn", "--policy", policy, "--config", str(config))
    assert (status, "no closed decision" in said) == (2, True), said
    status, said = by_hand("gate", "--config", str(config))
    assert (status, policy in said) == (0, True), said
