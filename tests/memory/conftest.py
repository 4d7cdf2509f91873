"""An office of its own for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.memory.office import Office


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    one = Office(tmp_path / "data")
    yield one
    one.close()
