"""``dayjob lab episode``: lines and squares by hand, shapes against real weights, and parts that are what they say."""

import asyncio
import json
import math
import struct
import sys
from dataclasses import asdict

import pytest
import torch

from dayjob.lab import practice_episode, practice_episode_parts
from dayjob.lab.clerk_night import model_folder
from dayjob.lab.practice_episode import Sizes
from dayjob.lab.practice_episode_cost import QWEN3_06B, Shape, fit
from dayjob.policies.engine_cache import Slots
from dayjob.policies.tokens import Tokens

TINY = Sizes(light=(4, 6, 8), window=(4, 6, 8), engine=(1, 2, 3), learned=(2, 4, 6), settled=1, context=384)


def test_a_line_is_carried_on_as_a_line():
    """5 + 3 n, exactly: 3 a turn, nothing squared, 5 + 3,000 at a thousand."""
    found = fit([{n: 5.0 + 3 * n for n in (1, 2, 4, 8)}] * 3, settled=2, turns=1000)
    assert found.line["mean"] == pytest.approx(3)
    assert found.square["mean"] == pytest.approx(0, abs=1e-12)
    assert found.straight["mean"] == pytest.approx(3005)
    assert found.bent is None


def test_a_square_is_seen_and_carried_on_only_where_the_rounds_agree():
    """2 n^2 + n, with 1 % to and fro: the curve gives 2,001,000 at a thousand, the line far less."""
    rounds = [{n: share * (2.0 * n * n + n) for n in (5, 10, 20, 40)} for share in (0.99, 1.0, 1.01)]
    found = fit(rounds, settled=5, turns=1000)
    assert found.square["mean"] == pytest.approx(2)
    assert found.square["half"] > 0
    assert found.bent is not None
    assert found.bent["mean"] == pytest.approx(2_001_000)
    assert found.straight["mean"] < 100_000
    assert found.curved == pytest.approx(2 * 40 * 40 / (2 * 40 * 40 + 40))
    torn = [{n: 100.0 * n + sign * 2 * n * n for n in (5, 10, 20, 40)} for sign in (1, -1, 0)]
    assert fit(torn, settled=5, turns=1000).bent is None
    assert fit(rounds[:1], settled=5, turns=1000).bent is None  # one round is sure of nothing


def test_what_lies_before_the_settled_length_bends_nothing():
    found = fit([{1: 90.0, 10: 20.0, 20: 40.0, 40: 80.0}] * 2, settled=10, turns=100)
    assert found.line["mean"] == pytest.approx(2)
    assert found.square["mean"] == pytest.approx(0, abs=1e-12)


def test_a_shape_counts_the_weights_and_the_keys_that_are_really_there():
    folder = model_folder(None)
    shape = Shape.of(folder, name="clerk")
    with (folder / "model.safetensors").open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        stored = json.loads(file.read(size))
    matrices = [math.prod(one["shape"]) for name, one in stored.items() if name != "__metadata__" and
                len(one["shape"]) == 2]  # fmt: skip
    assert shape.weight_flops == 2 * sum(matrices)  # the output matrix is the embedding, stored once
    like = [torch.zeros(1, shape.kv_heads, 1, shape.head_width) for _ in range(shape.layers)]
    assert shape.kv_bytes == Slots(like, slots=1, columns=16).token_bytes


def test_the_arithmetic_of_qwen3_by_hand():
    assert QWEN3_06B.kv_bytes == 2 * 28 * 8 * 128 * 2 == 114_688
    # A layer: 1024 x 2048 twice, 1024 x 1024 twice, 1024 x 3072 three times; and the output matrix.
    assert QWEN3_06B.weight_flops == 2 * (28 * 15_728_640 + 151_936 * 1024)
    assert QWEN3_06B.attention_flops(1000) == 4 * 28 * 16 * 128 * 1000
    assert QWEN3_06B.reading_flops(2000) == 2000 * (QWEN3_06B.weight_flops + QWEN3_06B.attention_flops(1000))


def test_what_two_things_share_is_counted_once():
    ids = tuple(range(1000, 1100))
    alone = practice_episode_parts.deep_bytes(ids)
    assert alone == sys.getsizeof(ids) + sum(sys.getsizeof(one) for one in ids)
    assert practice_episode_parts.deep_bytes((ids, ids)) == alone + sys.getsizeof((0, 0))


def test_a_small_run_measures_what_it_says():
    folder = model_folder(None)
    (found,) = practice_episode.measure(folder, TINY, seeds=[3])
    day, told = asyncio.run(practice_episode_parts.play(8, seed=3))
    tokens = Tokens.open(folder)
    assert set(practice_episode.PARTS) < set(found)
    assert found["state"][8] == told["state"]
    assert found["conversation"][4] == len(tokens.render(day.messages[: day.read[3] + 1]))
    # The prompt cache keeps whole blocks of 16: the first prompt is computed whole, the second from its last block on.
    first, second = (len(tokens.render(day.messages[:read])) for read in day.read[:2])
    assert found["computed"][1] == first
    assert second - first <= found["computed"][2] - first <= second - first + 16 + practice_episode_parts.WRITTEN
    # All of it is journaled at every turn: eight turns take more than twice what four do.
    assert found["journal"][8] > 2.2 * found["journal"][4]
    assert found["learned tokens"][6] > found["learned tokens"][2]
    result = {"rounds": [found, found], "sizes": {"settled": 1, "context": 384}, "shapes": [asdict(QWEN3_06B)]}
    text = "\n".join(practice_episode.page(result))
    assert "| Qwen3-0.6B, bfloat16 | 114,688 |" in text
    assert "| generation: 12 tokens a turn, one client |" in text


def test_one_thread_is_given_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with practice_episode.one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
