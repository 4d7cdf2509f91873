"""A tiny model, made once."""

import pytest
import torch
import transformers

from tests.learn.practice.bandit import save_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The folder of a random model of a dozen words."""
    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("tiny")
    save_model(folder)
    return folder
