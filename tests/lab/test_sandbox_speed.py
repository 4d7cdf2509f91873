"""The measure of the sandbox: it runs, counts what it says, and judges rightly while it does."""

import json
from pathlib import Path

import pytest

from dayjob.endings import DayjobError
from dayjob.lab import sandbox_speed
from dayjob.practice import sandbox


@pytest.mark.skipif(sandbox.available() is not None, reason=str(sandbox.available()))
def test_it_writes_a_page_with_every_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_speed, "AT_ONCE", (1, 4))
    sandbox_speed.run(8, tmp_path, rounds=1, quick=True)
    rows = {row["measure"]: row for row in json.loads((tmp_path / "sandbox.json").read_text())["rows"]}
    assert len(rows) == 8
    a_box, bare = rows["a Python process in a box: CPU of each"], rows["a Python process, no box: CPU of each"]
    assert a_box["median"] > bare["median"] > 0
    assert rows["code tasks, 4 at once"]["median"] > 0
    assert "bubblewrap, seccomp" in (tmp_path / "sandbox.md").read_text()


def test_without_the_sandbox_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "available", lambda: "the sandbox needs bwrap: apt-get install bubblewrap")
    with pytest.raises(DayjobError, match="apt-get install bubblewrap"):
        sandbox_speed.run(8, tmp_path, rounds=1)
