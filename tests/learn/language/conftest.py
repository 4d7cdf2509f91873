"""The small office, trained once and kept between runs."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers

from dayjob.policies.tokens import Tokens
from tests.learn.language import world
from tests.learn.language.desk import Desk
from tests.policies.language.worlds import byte_tokenizer


@pytest.fixture(scope="session")
def office(request):
    """The office and the folder of its model. Kept in pytest's cache under the hash of what makes it."""
    torch.set_num_threads(1)
    sizes = world.Sizes()
    mark = hashlib.sha256(Path(world.__file__).read_bytes() + repr((sizes, torch.__version__)).encode()).hexdigest()
    folder = request.config.cache.mkdir("office") / mark[:16]
    here = world.Office(sizes=sizes)
    if not (folder / "chat_template.jinja").exists():
        here.pretrain(folder)
    return here, folder


@pytest.fixture(autouse=True)
def quiet():
    """No progress bars of other people's libraries."""
    transformers.logging.disable_progress_bar()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """An office's journal, whose model reads bytes."""
    one = Desk(tmp_path / "data", Tokens(byte_tokenizer()))
    yield one
    one.close()
