"""A base model opens whole or not at all, and says what to do about it."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from dayjob.cli.bases import open_bases, open_tokens
from dayjob.config import Base
from dayjob.endings import Invalid
from dayjob.policies.engine_vllm import VllmEngine
from dayjob.policies.tokens import Tokens
from dayjob.tables import bases_of
from tests.policies.language.fake_vllm import FakeVllm, running
from tests.policies.language.worlds import World, byte_tokenizer
from tests.serve.chatting import CONTEXT, save_tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "model")


def refused(base: Base) -> str:
    with pytest.raises(Invalid) as refusal:
        open_bases((base,))
    assert f"bases.{base.name}" in str(refusal.value)
    return str(refusal.value)


def lose_a_tensor(folder: Path) -> None:
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def reshape_a_tensor(folder: Path) -> None:
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"] = torch.zeros(3, 3)
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def cut_the_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def only_a_pickle(folder: Path) -> None:
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")


def an_unknown_shape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "abacus", "architectures": ["Abacus"]}))


def a_model_that_writes_nothing(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "vit", "architectures": ["ViTModel"]}))


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def template(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "chat_template.jinja").write_text(text)


def no_tokenizer(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "remedy"),
    [
        (lose_a_tensor, "lacks model.layers.1.mlp.up_proj.weight"),
        (reshape_a_tensor, "save_pretrained"),
        (cut_the_weights, "save_pretrained"),
        (only_a_pickle, "pytorch_model.bin), and pickles are not opened"),
        (only_a_pickle, "convert it to safetensors"),
        (no_weights, "holds no weights in safetensors"),
        (an_unknown_shape, "type 'abacus', which transformers"),
        (an_unknown_shape, "pip install -U transformers"),
        (a_model_that_writes_nothing, "type 'vit', which writes no text"),
        (no_tokenizer, "tokenizer.save_pretrained"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is broken"),
        (lambda folder: (folder / "config.json").write_text("[]"), "no JSON object"),
        (lambda folder: (folder / "chat_template.jinja").unlink(), "chat_template.jinja"),
        (template("{% for"), "fails on a plain message"),
        (template("{{ raise_exception('no') }}"), "repair chat_template.jinja"),
        (template("{{ messages[0]['words'][3] }}"), "fails on a plain message"),
        (template("{% if tools %}tools{% endif %}"), "writes nothing"),
        (lambda folder: (folder / "config.json").unlink(), "config.json"),
    ],
)
def test_a_broken_folder_does_not_open(folder: Path, damage: Callable[[Path], object], remedy: str) -> None:
    damage(folder)
    assert remedy in refused(Base(name="broken", path=str(folder)))


def test_a_template_that_knows_no_system_and_no_tools_is_sound(folder: Path) -> None:
    """It refuses them when they come, in its own words."""
    template(
        "{% if tools %}{{ raise_exception('no tools') }}{% endif %}{% for m in messages %}"
        "{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}{{ m['content'] }}{% endfor %}"
    )(folder)
    tokens = open_tokens(Base(name="tiny", path=str(folder)))
    assert tokens.render([{"role": "user", "content": "hello"}]) == tokens.encode("hello")
    with pytest.raises(Invalid, match="no system"):
        tokens.render([{"role": "system", "content": "be brief"}])


def test_what_is_no_folder_and_no_id_of_the_hub_says_what_to_write(tmp_path: Path) -> None:
    def told(path: str) -> str:
        (base,) = bases_of({"clerk": {"path": path}}, tmp_path)
        return refused(base)

    for address in ("https://huggingface.co/OWNER/NAME", "https://hf.co/OWNER/NAME/tree/main"):
        assert "write OWNER/NAME" in told(address)
        assert address in told(address)
    assert "OWNER/NAME of a model" in told("https://example.com/model.tar")
    assert "owner, OWNER/qwen3" in told("qwen3")


def test_a_folder_that_is_not_there_and_a_device_that_is_not_here_are_said(tmp_path: Path, folder: Path) -> None:
    assert "save_pretrained" in refused(Base(name="x", path=str(tmp_path / "none")))
    if not torch.cuda.is_available():
        assert 'device = "cpu"' in refused(Base(name="x", path=str(folder), device="cuda"))


def test_a_base_reads_no_more_than_its_model_does(folder: Path) -> None:
    for asked, served in ((4_096, CONTEXT), (64, 64)):
        base = open_bases((Base(name="tiny", path=str(folder), context_tokens=asked),))["tiny"]
        assert base.context_tokens == served
        asyncio.run(base.engine.close())


def test_a_template_is_told_what_the_base_says_and_nothing_it_does_not_ask(folder: Path) -> None:
    base = Base(name="tiny", path=str(folder), template={"enable_thinking": True})
    assert "told no 'enable_thinking': leave it out" in refused(base)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a stand-in for a vLLM server with a model "tiny", behind a key."""
    world = World(kind="qwen3", folder=tmp_path_factory.mktemp("none"), tokens=Tokens(byte_tokenizer()), adapters=())
    with running(FakeVllm(world, slots=2, adapters=2, model="tiny", key="secret")) as url:
        yield url


def test_a_base_behind_vllm_opens_as_its_server_is(folder: Path, elsewhere: str, monkeypatch) -> None:
    monkeypatch.setenv("THEIR_KEY", "secret")
    (base,) = bases_of(
        {"tiny": {"path": str(folder), "engine": "vllm", "url": elsewhere, "key_env": "THEIR_KEY"}}, folder
    )
    opened = open_bases((base,))["tiny"]
    assert isinstance(opened.engine, VllmEngine)
    assert opened.context_tokens == 512, "what the server reads"
    shorter = open_bases((replace(base, context_tokens=64),))["tiny"]
    assert shorter.context_tokens == 64
    for one in (opened, shorter):
        asyncio.run(one.engine.close())
    assert "secret" not in repr(base)


def test_a_base_behind_vllm_says_what_its_server_lacks(folder: Path, elsewhere: str, monkeypatch) -> None:
    monkeypatch.setenv("THEIR_KEY", "secret")
    base = Base(name="tiny", path=str(folder), engine="vllm", url=elsewhere, key_env="THEIR_KEY")
    assert "(it has tiny): --served-model-name other" in refused(replace(base, name="other"))
    assert "HTTP 401" in refused(replace(base, key_env=""))
    assert "not in the environment" in refused(replace(base, key_env="NO_SUCH_KEY"))
    assert "start it first" in refused(replace(base, url="http://127.0.0.1:9/v1"))
    no_tokenizer(folder)
    assert "tokenizer.save_pretrained" in refused(base)


def test_a_hub_that_cannot_be_reached_stops_the_start_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "dayjob.toml").write_text('[bases.clerk]\npath = "nobody/nothing"\n')
    environ = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hub"), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-m", "dayjob", "serve", "--data", "data", "--port", "0"]
    ended = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2, ended.stderr
    told = " ".join(ended.stderr.split())
    for words in ("bases.clerk", "nobody/nothing", "hf download", "the network"):
        assert words in told
    assert "Traceback" not in told
    assert not (tmp_path / "data" / "journal.db").exists(), "nothing is half-open"
