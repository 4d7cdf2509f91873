"""A server of its own for each file of tests, with limits that a test can reach."""

from collections.abc import Iterator

import httpx2
import pytest

from dayjob.lab.server import Server, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    environ = {"DAYJOB_BODY_LIMIT_BYTES": "100000", "DAYJOB_CATALOG_LIMIT_BYTES": "200000"}
    with running(tmp_path_factory.mktemp("contract") / "data", environ=environ) as one:
        yield one


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, timeout=20) as client:
        yield client
