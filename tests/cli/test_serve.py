"""dayjob serve: the processes beside it come back when they die, and do not eat the machine when they cannot live."""

import contextlib
import math
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dayjob.cli import serve as cli_serve
from dayjob.cli.serve import Helpers
from tests.cli.conftest import Command
from tests.promises.learning import until


@contextlib.contextmanager
def helping(root: Path, command: str, *, young_s: float) -> Iterator[Helpers]:
    helpers = Helpers(root=root, commands=[command], pause_s=0.02, young_s=young_s, longest_s=30.0)
    helpers.start()
    try:
        yield helpers
    finally:
        helpers.stop()


def test_one_that_dies_at_once_is_started_ever_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the pause each time: in half a second at most six starts at 0, 0.02, 0.06 ... and not twenty-five."""
    monkeypatch.setattr(cli_serve.sys, "executable", "/bin/false")
    with helping(tmp_path, "learn", young_s=5.0) as helpers:
        started, before = 1, helpers.running["learn"].pid
        began = time.monotonic()
        while (waited := time.monotonic() - began) < 0.5 or (helpers.pauses_s.get("learn", 0.0) < 0.16 and waited < 60):
            now = helpers.running["learn"].pid
            started, before = started + (now != before), now
            time.sleep(0.002)
        assert 3 <= started <= 2 + math.log2(1 + waited / 0.02), "0.02 s, 0.04, 0.08, 0.16, 0.32, 0.64"
        assert helpers.pauses_s["learn"] >= 0.16


def test_one_that_worked_is_started_again_at_the_next_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "works"
    script.write_text("#!/bin/sh\nexec sleep 100\n")
    script.chmod(0o755)
    monkeypatch.setattr(cli_serve.sys, "executable", str(script))
    with helping(tmp_path, "gate", young_s=0.0) as helpers:
        for _ in range(6):
            dead = helpers.running["gate"].pid
            os.kill(dead, signal.SIGKILL)
            until(lambda: helpers.running["gate"].pid != dead, "another", within_s=60.0)  # noqa: B023
        assert helpers.pauses_s["gate"] == 0.0
    assert helpers.running["gate"].poll() is not None, "they end with the server"


def test_a_server_without_torch_serves_and_says_that_nothing_is_learned(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cli_serve.importlib.util, "find_spec", lambda _: None)
    assert cli_serve._can_learn() is False
    assert "pip install 'dayjob[learn]'" in caplog.text


def test_a_port_that_is_taken_is_said_once_and_nothing_is_made(dayjob: Command, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = dayjob("serve", "--data", tmp_path / "data", "--port", port)
    assert done.status == 2
    assert done.err.strip().splitlines() == [
        f"error: could not serve on 127.0.0.1:{port}: the port is taken, or the address is not this machine's; use "
        "another --port (0 takes a free one) or --host"
    ]
    assert not (tmp_path / "data").exists()
