"""A server of its own for each file of tests, with limits that a test can reach."""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from dayjob.lab.server import Server, running
from tests.serve.eyes import ARGUMENTS, CHROMIUM, Eyes


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    environ = {"DAYJOB_BODY_LIMIT_BYTES": "100000", "DAYJOB_CATALOG_LIMIT_BYTES": "200000"}
    with running(tmp_path_factory.mktemp("contract") / "data", environ=environ) as one:
        yield one


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, timeout=20) as client:
        yield client


@pytest.fixture(scope="module")
def eyes():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield Eyes(browser)
        browser.close()


@pytest.fixture(scope="session")
def timetable(request):
    """The clerk with a timetable and the folder of its model. Kept in pytest's cache by what makes it."""
    import torch

    from tests.learn.language import world
    from tests.serve.timetable import SIZES, Timetable

    sources = b"".join(Path(one.__file__).read_bytes() for one in (world, sys.modules[Timetable.__module__]))
    mark = hashlib.sha256(sources + torch.__version__.encode()).hexdigest()
    folder = request.config.cache.mkdir("timetable") / mark[:16]
    clerk = Timetable(sizes=SIZES)
    if not (folder / "chat_template.jinja").exists():
        torch.set_num_threads(1)
        clerk.pretrain(folder)
    return clerk, folder
