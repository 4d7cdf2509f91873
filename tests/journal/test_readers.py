"""Reading while the writer writes: whole transactions, in order, in short reads; and damage that is said."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dayjob.endings import Damaged, OutcomeKind
from dayjob.fakes import fake_decision, fake_generation, fake_id, fake_outcome, find_fake_spec
from dayjob.journal.join import Window
from dayjob.journal.readers import PAGE, Reader, cursor_of, seq_of
from dayjob.journal.store import Store, StoreConfig
from dayjob.journal.vectors import digest
from dayjob.records import CatalogItem, Json

WINDOW = Window(length_ms=60_000)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    config = StoreConfig(ballast_bytes=0)
    opened = Store(tmp_path, secret=b"s" * 32, find_spec=find_fake_spec, config=config)
    yield opened
    opened.close()


def fill(store: Store, count: int) -> None:
    futures = [store.append_decision(*fake_decision(number)) for number in range(1, count + 1)]
    assert all(future.result().seq for future in futures)


def test_cursors_name_the_last_sequence_number_seen() -> None:
    assert seq_of(cursor_of(0)) == 0
    assert seq_of(cursor_of(10**15)) == 10**15


def test_a_long_read_is_made_of_short_ones_and_misses_nothing(store: Store, tmp_path: Path) -> None:
    fill(store, 2 * PAGE + 3)
    pages = list(Reader(tmp_path).joined("t", "p", window=WINDOW, now_ms=0))
    assert [len(page) for page in pages] == [PAGE, PAGE, 3]
    assert [j.stored.seq for page in pages for j in page] == list(range(1, 2 * PAGE + 4))


def test_a_reader_sees_growing_prefixes(store: Store, tmp_path: Path) -> None:
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            store.append_decision(*fake_decision(number))
            store.append_outcome(fake_outcome(10**6 + number, fake_id(number), kind=OutcomeKind.CLICK)).result()

    writing = threading.Thread(target=write)
    writing.start()
    try:
        reader, cursor, seen = Reader(tmp_path), "s0", []
        began = time.monotonic()
        while time.monotonic() < began + 1.0 or (len(seen) <= 20 and time.monotonic() < began + 60.0):
            page, cursor = reader.decisions("t", "p", cursor=cursor)
            seen += [stored.seq for stored in page]
    finally:
        stop.set()
        writing.join()
    page, _ = reader.decisions("t", "p", cursor=cursor, limit=10**6)
    seen += [stored.seq for stored in page]
    everything, _ = reader.decisions("t", "p", limit=10**6)
    assert seen == [stored.seq for stored in everything]
    assert len(seen) > 20


def test_a_reader_does_not_hold_the_log_file_open_between_pages(store: Store, tmp_path: Path) -> None:
    fill(store, PAGE + 1)
    pages = Reader(tmp_path).joined("t", "p", window=WINDOW, now_ms=0)
    next(pages)
    store.scrub().result(4)  # would wait for a reader inside a transaction
    assert (tmp_path / "journal.db-wal").stat().st_size == 0
    assert len(next(pages)) == 1


def test_a_missing_vector_is_said_and_never_made_up(store: Store, tmp_path: Path) -> None:
    fill(store, 1)
    digest = fake_decision(1)[0].candidates[0].digest
    store.submit(lambda tx: tx.db.execute("DELETE FROM vectors WHERE digest=?", (digest,))).result()
    with pytest.raises(Damaged, match="restore"):
        Reader(tmp_path).get_many("t", [digest], dim=2)


def test_a_decision_whose_columns_disagree_is_damage(store: Store, tmp_path: Path) -> None:
    fill(store, 1)
    store.submit(lambda tx: tx.db.execute("UPDATE decisions SET candidate_digests=x'00'")).result()
    with pytest.raises(Damaged, match="candidates"):
        Reader(tmp_path).decision("t", fake_id(1))


def test_closed_decisions_are_counted_up_to_a_limit(store: Store, tmp_path: Path) -> None:
    now = int(time.time() * 1000)
    for number in range(1, 7):
        decision, blobs = fake_decision(number)
        at_ms = now - 120_000 if number <= 2 else now
        store.append_decision(replace(decision, at_ms=at_ms), blobs).result()
    for number, kind in ((3, OutcomeKind.CLICK), (4, OutcomeKind.THUMB), (1, OutcomeKind.CLICK)):
        outcome = replace(fake_outcome(100 + number, fake_id(number), kind=kind), value=1.0, received_ms=now)
        store.append_outcome(outcome).result()
    reader = Reader(tmp_path)
    assert reader.count_closed("t", "p", after=0, window=WINDOW, most=100) == 3
    assert reader.count_closed("t", "p", after=0, window=WINDOW, most=2) == 2
    assert reader.count_closed("t", "p", after=2, window=WINDOW, most=100) == 1
    assert reader.count_closed("t", "nobody", after=0, window=WINDOW, most=100) == 0


def test_a_person_with_more_rows_than_a_page_sees_all_of_them(store: Store, tmp_path: Path) -> None:
    fill(store, 5)
    for number in range(100, 100 + PAGE + 3):
        decision, blobs = fake_decision(number)
        store.append_decision(replace(decision, user="ann", policy=f"p{number % 2}"), blobs)
        store.append_outcome(replace(fake_outcome(5_000 + number, fake_id(number)), user="ann"))
        last = store.append_outcome(replace(fake_outcome(9_000 + number, fake_id(70_000 + number)), user="ann"))
    last.result()
    decisions, outcomes = map(list, Reader(tmp_path).of_user("t", "ann"))
    assert (len(decisions), len(outcomes)) == (PAGE + 3, 2 * (PAGE + 3))
    for found in (decisions, outcomes):
        seqs = [one.seq for one in found]
        assert seqs == sorted(set(seqs))


def test_what_many_threads_read_is_the_same(store: Store, tmp_path: Path) -> None:
    fill(store, 50)
    reader, found = Reader(tmp_path), []

    def read() -> None:
        for _ in range(20):
            found.append(tuple(stored.seq for stored in reader.decisions("t", "p")[0]))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) == {tuple(range(1, 51))}
    assert len(found) == 80


def test_vectors_come_in_the_order_asked_for_however_many(store: Store, tmp_path: Path) -> None:
    blobs = [np.array([n, -n], "<f2").tobytes() for n in range(PAGE + 7)]
    items = [CatalogItem(id=f"i{n}", vector=blob, meta=None) for n, blob in enumerate(blobs)]
    store.put_catalog("t", "p", items=items).result()
    wanted = [*reversed(range(PAGE + 7)), 3, 3]
    found_ND = Reader(tmp_path).get_many("t", [digest(blobs[n]) for n in wanted], dim=2)
    assert found_ND.tolist() == [[n, -n] for n in wanted]
    with pytest.raises(Damaged, match="missing"):
        Reader(tmp_path).get_many("t", [digest(blobs[0]), b"?" * 16], dim=2)


def test_outcomes_of_many_decisions_are_each_at_their_own(store: Store, tmp_path: Path) -> None:
    fill(store, PAGE + 5)
    for number in (1, 2, PAGE + 5):
        for again in (0, 1):
            told = fake_outcome(10_000 * (again + 1) + number, fake_id(number), kind=OutcomeKind.CLICK)
            assert store.append_outcome(told).result().seq
    reader = Reader(tmp_path)
    decisions = [j.stored for page in reader.joined("t", "p", window=WINDOW, now_ms=0) for j in page]
    found = reader.outcomes("t", decisions)
    assert set(found) == {fake_id(number) for number in (1, 2, PAGE + 5)}
    assert all([o.record.decision for o in told] == [name, name] for name, told in found.items())


def test_a_sketch_is_a_decision_without_what_was_read_and_written(store: Store, tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    spoken = [
        replace(
            fake_generation(number),
            session="s" if number % 2 else None,
            extra={"chances": {"champion": 1.0}},
            at_ms=number,
        )
        for number in range(1, 7)
    ]
    assert all(store.append_decision(one, ()).result().seq for one in spoken)
    sketches = reader.sketches("t", "chat", after=0)
    assert [one.record for one in sketches] == [replace(one, generation=None) for one in spoken]
    assert [one.seq for one in reader.sketches("t", "chat", after=sketches[1].seq, limit=2)] == [
        sketches[2].seq, sketches[3].seq,
    ]  # fmt: skip
    first, third, fifth = sketches[::2]
    args = {"session": "s", "after": 0, "until_ms": fifth.record.at_ms}
    assert reader.of_session("t", "chat", **args) == [first, third, fifth]
    assert reader.of_session("t", "chat", **args | {"after": first.seq}) == [third, fifth]
    assert reader.of_session("t", "chat", **args | {"until_ms": fifth.record.at_ms - 1}) == [first, third]
    assert reader.of_session("t", "chat", **args, limit=1) == [first]
    assert reader.of_session("t", "other", **args) == []


def test_what_a_session_compared_before_a_decision(store: Store, tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    coins: list[Json] = [
        {"champion": "v1", "challenger": challenger, "replaced": None, "chances": {"champion": share}}
        for challenger, share in ((None, 1.0), ("v2", 0.5), ("v2", 0.4), (None, 0.9))
    ]
    spoken = [replace(fake_generation(n), session="s", extra=extra) for n, extra in enumerate(coins, start=1)]
    spoken.append(replace(fake_generation(5), session="s", extra=coins[0] | {"champion": "v9", "chances": [1.0]}))
    spoken.append(replace(fake_generation(6), session="other", extra=coins[0] | {"champion": "v7"}))
    seqs = [store.append_decision(one, ()).result().seq for one in spoken]

    def was(versions: tuple[str, str | None, str | None], before: int) -> bool:
        return reader.was_compared("t", "chat", session="s", versions=versions, before=seqs[before])

    assert [was(("v1", "v2", None), before) for before in range(4)] == [False, False, True, True]
    assert [was(("v1", None, None), before) for before in range(4)] == [False, True, True, True]
    assert not was(("v1", "v2", "v0"), 5)
    assert not was(("v9", None, None), 5), "no coin: a list is a ranker's"
    assert not was(("v7", None, None), 5), "in another conversation"
    assert not reader.was_compared("t", "other", session="s", versions=("v1", None, None), before=seqs[5])
    assert reader.was_compared("t", "chat", session="s", versions=("v1", None, None), before=seqs[5] + 99)
    told = reader.told_before("t", "chat", session="s", before=seqs[3])
    assert sorted(told, key=coins.index) == coins[:3]
