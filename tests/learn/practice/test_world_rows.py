"""A world model learns what an application said, from recorded rows alone; killed, it comes to the same weights."""

import asyncio
from dataclasses import replace

import pytest
import torch

from dayjob.dream.world import ASK, NO, OVER, YES, EngineResponder, episode, measure
from dayjob.endings import Invalid
from dayjob.learn.practice.world import WORLD, learn_rows
from dayjob.policies.adapters import file_digests
from dayjob.policies.engine_jobs import EngineLimits
from dayjob.policies.engine_protocol import VersionRef
from dayjob.policies.engine_transformers import TransformersEngine
from dayjob.policies.language_train import LoraShape
from dayjob.policies.tokens import Tokens
from tests.policies.language.worlds import byte_tokenizer, tiny_model

STOCK = {"a": "9", "b": "0"}
ROOM = 120
FAST = replace(
    WORLD, lora=LoraShape(rank=16), learning_rates=(1e-2,), steps=60, lessons=8, microbatch=8, stop_every=20,
    context_tokens=ROOM, answer_tokens=8,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random model and a tokenizer that reads bytes, as a base model's folder."""
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("base")
    tiny_model("qwen3").save_pretrained(path)
    byte_tokenizer().save_pretrained(path)
    return path


def asked(item):
    return ({"role": "user", "content": "?"}, {"role": "assistant", "content": item * 4})


def ended(item):
    answer = STOCK[item]
    return (*asked(item), {"role": "tool", "content": answer}, {"role": "assistant", "content": answer})


ROWS = [
    row
    for item, count in STOCK.items()
    for row in (
        (asked(item), count),
        (ended(item), OVER),
        ((*ended(item), ASK), YES if count != "0" else NO),
    )
]


def test_it_answers_as_the_application_did(folder, tmp_path):
    night = learn_rows(folder, ROWS, stop=ROWS, recipe=FAST, seed=1)
    assert night.looks[-1].lesson < 1.2 < night.looks[0].lesson  # a random output matrix cannot be surer
    night.save(tmp_path / "w1", base="base")

    async def asks():
        engine = TransformersEngine(
            tiny_model("qwen3"), Tokens.open(folder), limits=EngineLimits(context_tokens=ROOM, slots=4)
        )
        files = file_digests(tmp_path / "w1")
        await engine.load(VersionRef(name="w1", digest=files[1][1], folder=tmp_path / "w1", files=files))
        tokens = Tokens.open(folder)
        model = EngineResponder(
            engine, "w1", digest=files[1][1], render=tokens.render, encode=tokens.encode, context_tokens=ROOM,
            max_tokens=8,
        )  # fmt: skip
        episodes = [episode(ended(item), start=1, over=True, solved=item != "b") for item in STOCK]
        found = await measure(episodes, model, depth=3)
        long = [*asked("a"), {"role": "tool", "content": "9" * ROOM}]
        no_room = (await model.respond(long, seed=1), await model.success(long))
        await engine.close()
        return found, no_room

    found, no_room = asyncio.run(asks())
    assert (found.wrong_H, found.count_H) == ((0.0, 0.0), (2, 2))
    assert (found.value_wrong, found.value_count) == (0, 2)
    assert no_room == (None, 0.0)


def test_a_killed_run_comes_to_the_same_weights(folder, tmp_path):
    few = replace(FAST, steps=8, save_every=3, stop_every=0)
    whole = learn_rows(folder, ROWS, stop=(), recipe=few, seed=2)

    def dies(share):
        if share > 0.7:
            raise KeyboardInterrupt

    path = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        learn_rows(folder, ROWS, stop=(), recipe=few, seed=2, checkpoint=path, progress=dies)
    assert path.exists()
    again = learn_rows(folder, ROWS, stop=(), recipe=few, seed=2, checkpoint=path)
    assert not path.exists()
    assert whole.state.keys() == again.state.keys()
    assert all(torch.equal(one, again.state[name]) for name, one in whole.state.items())
    assert whole.stats["steps"] == 8


def test_what_cannot_be_learned_is_left_out_alone(folder):
    few = replace(FAST, steps=1, stop_every=0)
    bad = [(asked("a"), "<|end|>"), (asked("a"), "9" * ROOM)]
    night = learn_rows(folder, [*ROWS, *bad], stop=(), recipe=few, seed=1)
    assert (night.stats["rows"], night.stats["rows_left_out"]) == (len(ROWS), 2)
    with pytest.raises(Invalid, match="no recorded answer can be learned"):
        learn_rows(folder, bad, stop=(), recipe=few, seed=1)
