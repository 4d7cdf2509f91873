"""One tiny world of each architecture for the whole run."""

import pytest

from tests.policies.language.worlds import World


@pytest.fixture(scope="session", params=["qwen3", "llama"])
def world(request, tmp_path_factory):
    return World.make(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="session")
def qwen(tmp_path_factory):
    return World.make("qwen3", tmp_path_factory.mktemp("one"))
