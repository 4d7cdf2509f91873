"""`make run`: what it does with ports that are taken and with what lies where its data should go."""

import os
import socket
from pathlib import Path

import pytest

from dayjob.endings import DayjobError, Invalid
from dayjob.lab import day
from dayjob.lab.server import clear, running


def test_a_port_in_use_is_passed_over(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = day._free(port)
        assert port < found < port + day.PORTS
        assert f"port {port} is in use: {found} instead" in capsys.readouterr().out
    assert day._free(port) == port


def test_when_all_are_taken_it_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(day, "PORTS", 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(DayjobError, match=f"ports {port} to {port} are all in use"):
            day._free(port)


def test_only_an_earlier_day_is_cleared(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "thesis.txt").write_text("years of work")
    with pytest.raises(Invalid, match="--data"):
        clear(theirs)
    assert (theirs / "thesis.txt").exists()
    data = tmp_path / "data"
    with running(data) as server:
        with pytest.raises(Invalid, match="is being served"):
            clear(data)
        assert (data / "control.db").exists()
        server.stop()
    clear(data)
    assert not data.exists()


def test_a_page_that_does_not_start_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter that cannot import Geospot says why; the day ends with its words."""
    monkeypatch.setitem(os.environ, "PYTHONPATH", str(tmp_path))
    (tmp_path / "geospot").mkdir()
    (tmp_path / "geospot" / "__init__.py").write_text("raise SystemExit('no gallery here')")
    with (
        running(tmp_path / "data", environ={"PYTHONPATH": ""}) as server,
        pytest.raises(DayjobError, match="no gallery here"),
        day._page(server, tmp_path),
    ):
        pass
