"""What a language policy wrote, from record to row to archive and back; and what of it cannot be read."""

from dataclasses import replace
from pathlib import Path

import pytest

from dayjob.endings import Damaged, Ending, PolicyKind
from dayjob.fakes import fake_generation, fake_id, fake_outcome, find_fake_spec
from dayjob.journal import archive
from dayjob.journal.generations import NOTHING, generation_columns, generation_of, plain_generation, row_generation
from dayjob.journal.readers import Reader
from dayjob.journal.store import Store, StoreConfig
from dayjob.records import Choice, Policy


def test_the_columns_of_a_generation_are_read_back_to_the_last_bit():
    generation = fake_generation(1, ("yes", "", "ö")).generation
    assert generation is not None
    assert row_generation(generation_columns(generation)) == generation
    assert generation_of(plain_generation(generation)) == generation
    bare = replace(generation, notes=(), bare_ids=b"", choices=())
    assert row_generation(generation_columns(bare)) == bare
    assert generation_columns(None) == NOTHING
    assert row_generation(NOTHING) is None
    assert generation_of(plain_generation(None)) is None


def test_two_arrays_of_a_choice_whose_engine_knows_no_third_one():
    choice = Choice(
        token_ids=b"\1\0\0\0", model_logprobs=b"\0\0\0\0", sample_logprobs=b"", versions=(("v1", 1),), seed=1 << 63,
        ending=Ending.ABORTED, text="é",
    )  # fmt: skip
    generation = fake_generation(1).generation
    assert generation is not None
    mixed = replace(generation, choices=(choice, *generation.choices, choice))
    assert row_generation(generation_columns(mixed)) == mixed


@pytest.mark.parametrize("change", [lambda arrays: arrays[:-1], lambda arrays: arrays + b"\0", lambda _: None])
def test_arrays_that_are_shorter_or_longer_than_they_are_said_to_be_are_damaged(change):
    told, prompt_ids, bare_ids, arrays = generation_columns(fake_generation(1).generation)
    with pytest.raises(Damaged, match="bytes of tokens"):
        row_generation((told, prompt_ids, bare_ids, change(arrays)))


def test_a_language_policys_archive_is_taken_in_whole(tmp_path: Path):
    spec = {"kind": "language", "base": "tiny", "recipe": "consolidate"}
    policy = Policy(tenant="t", name="chat", kind=PolicyKind.LANGUAGE, spec=spec, created_ms=0)
    decisions = [replace(fake_generation(number), user="ann") for number in (1, 2)]
    stores = [
        Store(tmp_path / name, secret=b"s" * 32, find_spec=find_fake_spec, config=StoreConfig(ballast_bytes=0))
        for name in ("from", "to")
    ]
    for decision in decisions:
        stores[0].append_decision(decision).result()
    stores[0].append_outcome(replace(fake_outcome(9, fake_id(1)), item="1")).result()
    lines = list(archive.write(tmp_path / "from", policy, silent=()))
    entries = list(archive.Archive("t").entries(lines))
    taken = stores[1].submit(lambda tx: archive.take_in(tx, entries, keep_seq=True)).result()
    assert taken.added == 3
    reader = Reader(tmp_path / "to")
    kept = reader.decisions("t", "chat")[0]
    assert [stored.record for stored in kept] == decisions
    assert [told.record.item for told in reader.outcomes("t", kept)[fake_id(1)]] == ["1"]
    for store in stores:
        store.close()
