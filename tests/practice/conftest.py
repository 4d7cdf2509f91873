"""What tests of practice share."""

import sys
from pathlib import Path

import pytest


@pytest.fixture
def wrong(tmp_path, monkeypatch):
    """The environment "wrong", installed as a package would be; worker processes find it too."""
    info = tmp_path / "installed" / "wrong_tasks-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wrong-tasks\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[dayjob.environments]\nwrong = wrong_tasks:Wrong\n")
    monkeypatch.syspath_prepend(info.parent)
    monkeypatch.syspath_prepend(Path(__file__).parent)
    monkeypatch.delitem(sys.modules, "wrong_tasks", raising=False)
    import wrong_tasks

    return wrong_tasks.Wrong
