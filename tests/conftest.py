"""Settings of every test: a slow or busy machine is no failure, and neither is bad luck; what is false is.

What a program draws for itself is the same in every run, on every machine: a test that holds for most secrets and most
examples would else fail once in a hundred runs, and say nothing. ``TEST_LUCK=any-word`` draws others, to hunt for it.
"""

import os
from collections.abc import Iterator
from random import Random
from types import SimpleNamespace

# Tests run side by side: a second thread in each would wait for a core by spinning. Servers and learners inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import HealthCheck, settings

from dayjob.journal import control

LUCK = os.environ.get("TEST_LUCK", "")
DRAWS = Random()

settings.register_profile(
    "patient", deadline=None, derandomize=not LUCK, suppress_health_check=[HealthCheck.too_slow]
)  # fmt: skip
settings.load_profile("patient")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Each test of a file draws the same, whichever ran before it."""
    DRAWS.seed(f"{LUCK}/{item.path.name}")


@pytest.fixture(scope="session", autouse=True)
def drawn_secrets() -> Iterator[None]:
    """Secrets of data directories that this process makes: coins of sessions and seeds of decisions rest on them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(control, "secrets", SimpleNamespace(token_bytes=DRAWS.randbytes))
        yield
