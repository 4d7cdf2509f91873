"""One tiny world of each architecture for the whole run."""

import pytest

from tests.policies.language.worlds import World


@pytest.fixture(scope="session")
def qwen(tmp_path_factory):
    return World.make("qwen3", tmp_path_factory.mktemp("qwen3"))


@pytest.fixture(scope="session")
def llama(tmp_path_factory):
    return World.make("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session", params=["qwen", "llama"])
def world(request):
    return request.getfixturevalue(request.param)
