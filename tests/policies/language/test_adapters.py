"""PEFT folders are read exactly as PEFT reads them, or refused with the reason."""

import json
import pickle
import shutil
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from dayjob.endings import Damaged
from dayjob.policies.adapters import CONFIG, WEIGHTS, file_digests, read_adapter
from dayjob.policies.engine_lora import RowAdapters
from dayjob.policies.engine_protocol import VersionRef
from tests.policies.language.worlds import RECIPES, tiny_model, write_adapter


@pytest.fixture(scope="module")
def model():
    return tiny_model("qwen3")


@pytest.fixture(scope="module")
def rows(model):
    return RowAdapters(model, head=model.get_output_embeddings())


@pytest.fixture
def ref(qwen, tmp_path):
    """A copy of a world's adapter that a test may spoil."""
    folder = tmp_path / "v2-copy"
    shutil.copytree(qwen.adapters[1].folder, folder)
    return VersionRef(name=folder.name, digest="22" * 32, folder=folder)


def rewrite(ref, **changes):
    config = json.loads((ref.folder / CONFIG).read_text())
    (ref.folder / CONFIG).write_text(json.dumps(config | changes))


def retensor(ref, change):
    tensors = safetensors.torch.load_file(ref.folder / WEIGHTS)
    change(tensors)
    safetensors.torch.save_file(tensors, ref.folder / WEIGHTS)


def test_rows_with_different_adapters_give_what_peft_gives_each_alone(qwen, model, rows):
    """All recipes (ranks 2 to 16, rank-stabilised or not, different layers) and the base in one plain forward."""
    ids = torch.tensor([[(5 * i + j * j) % 256 for j in range(12)] for i in range(5)])
    adapters = [read_adapter(one, rows.shapes, max_rank=64) for one in qwen.versions]
    with torch.inference_mode():
        rows.use(adapters)
        together = model(input_ids=ids).logits
        rows.use([adapters[0]] * 5)
        base = model(input_ids=ids).logits
    for row, one in enumerate(qwen.versions):
        torch.testing.assert_close(together[row], qwen.logits(one, tuple(ids[row].tolist())), atol=1e-4, rtol=0)
        assert row == 0 or (together[row] - base[row]).abs().max() > 0.05


def test_an_overflow_in_one_adapter_stays_in_its_rows(qwen, model, rows, ref):
    """Its first product is infinite; the others' zeros must not meet it."""
    largest = torch.finfo(torch.float32).max
    retensor(ref, lambda tensors: tensors.update({n: one.sign() * largest for n, one in tensors.items() if "A" in n}))
    huge, sane = (read_adapter(one, rows.shapes, max_rank=64) for one in (ref, qwen.adapters[0]))
    ids = torch.tensor([[1, 2, 3]] * 2)
    with torch.inference_mode():
        rows.use([huge, sane])
        mixed = model(input_ids=ids).logits
    assert not torch.isfinite(mixed[0]).all()
    torch.testing.assert_close(mixed[1], qwen.logits(qwen.adapters[0], (1, 2, 3)), atol=1e-4, rtol=0)


def test_weights_that_overflow_when_scaled_are_refused(rows, ref):
    """Every row's product runs over them."""
    largest = torch.finfo(torch.float32).max
    retensor(ref, lambda tensors: tensors.update({n: one.sign() * largest for n, one in tensors.items() if "B" in n}))
    with pytest.raises(Damaged, match="overflow"):
        read_adapter(ref, rows.shapes, max_rank=64)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "IA3"),
        ({"task_type": "SEQ_CLS"}, "SEQ_CLS"),
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 3}}, "rank_pattern"),
        ({"layers_to_transform": [0]}, "layers_to_transform"),
        ({"a_field_of_tomorrow": 1}, "a_field_of_tomorrow"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"r": 0}, "rank is 0"),
        ({"r": 65}, "from 1 to 64"),
        ({"r": True}, "rank is True"),
        ({"lora_alpha": float("nan")}, "lora_alpha"),
        ({"target_modules": ".*_proj"}, "pattern"),
        ({"target_modules": ["c_attn"]}, "another base model"),
        ({"target_modules": ["q_proj"]}, "no part of a LoRA"),
        ({"r": 4}, "another base model"),
    ],
)
def test_a_config_that_is_not_served_exactly_is_refused(rows, ref, changes, message):
    rewrite(ref, **changes)
    with pytest.raises(Damaged, match=message) as caught:
        read_adapter(ref, rows.shapes, max_rank=64)
    assert "v2-copy" in str(caught.value)
    assert "roll back" in str(caught.value)


def drop_one(tensors):
    tensors.pop(min(tensors))


def add_one(tensors):
    tensors["base_model.model.lm_head.weight"] = torch.zeros(2)


def poison(tensors):
    tensors[min(tensors)][0, 0] = float("inf")


def whole_numbers(tensors):
    tensors[min(tensors)] = tensors[min(tensors)].long()


@pytest.mark.parametrize(
    ("change", "message"),
    [(drop_one, "lacks"), (add_one, "lm_head"), (poison, "not finite"), (whole_numbers, "int64")],
)
def test_weights_that_do_not_fit_are_refused(rows, ref, change, message):
    retensor(ref, change)
    with pytest.raises(Damaged, match=message):
        read_adapter(ref, rows.shapes, max_rank=64)


def test_broken_folders_are_refused(rows, ref, tmp_path):
    def refused(message, one=ref):
        with pytest.raises(Damaged, match=message):
            read_adapter(one, rows.shapes, max_rank=64)

    digests = file_digests(ref.folder)
    assert read_adapter(replace(ref, files=digests), rows.shapes, max_rank=64).parts
    whole = (ref.folder / WEIGHTS).read_bytes()
    (ref.folder / WEIGHTS).write_bytes(whole[:-5])
    refused("whole safetensors")
    (ref.folder / WEIGHTS).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused("SHA-256", replace(ref, files=digests))
    (ref.folder / WEIGHTS).unlink()
    refused("No such file")
    (ref.folder / "adapter_model.bin").write_bytes(pickle.dumps({}))
    refused("pickle")
    (tmp_path / "elsewhere").write_bytes(whole)
    (ref.folder / WEIGHTS).symlink_to(tmp_path / "elsewhere")
    refused("cannot be read")
    for text in ("", "[]", "{", "[" * 100_000):
        (ref.folder / CONFIG).write_text(text)
        refused("JSON")


def test_an_adapter_of_another_architecture_is_refused(rows, tmp_path):
    wide = write_adapter("llama", tmp_path / "v3-wide", seed=1, recipe=RECIPES[0])
    retensor(wide, lambda tensors: tensors.update({name: one.repeat(2, 2) for name, one in tensors.items()}))
    with pytest.raises(Damaged, match="another base model"):
        read_adapter(replace(wide, files=()), rows.shapes, max_rank=64)
