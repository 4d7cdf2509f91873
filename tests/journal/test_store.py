"""The embedded journal: its contract, one writer, group commit, limits, schemas, copies while it writes."""

import asyncio
import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import apsw
import pytest

from dayjob.endings import Conflict, OutcomeKind, Overloaded, Receipt, SchemaMismatch, StorageFull
from dayjob.fakes import FakeJournal, fake_decision, fake_id, fake_outcome, find_fake_spec
from dayjob.journal import rows
from dayjob.journal.columns import CONTROL_TABLES, JOURNAL_TABLES, SCHEMA_VERSION
from dayjob.journal.control import Control
from dayjob.journal.readers import Reader
from dayjob.journal.store import Store, StoreConfig
from dayjob.journal.writes import MOST_OUTCOMES, Transaction, append_decision
from dayjob.records import Written
from tests.contracts.check_journal import CHECKS, Check, Opened, run_check

QUIET = StoreConfig(ballast_bytes=0)


def open_store(root: Path, config: StoreConfig = QUIET) -> Store:
    return Store(root, secret=b"s" * 32, find_spec=find_fake_spec, config=config)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path / "data")
    yield opened
    opened.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_embedded_journal_keeps_the_contract(check: Check, tmp_path: Path) -> None:
    @contextmanager
    def make(held_per_key: int) -> Iterator[Opened]:
        opened = open_store(tmp_path / "data", StoreConfig(held_per_key=held_per_key, ballast_bytes=0))
        yield opened, Reader(tmp_path / "data")
        opened.close()

    run_check(check, make)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_fake_journal_keeps_the_contract(check: Check) -> None:
    @contextmanager
    def make(held_per_key: int) -> Iterator[Opened]:
        journal = FakeJournal(held_per_key=held_per_key)
        yield journal, journal

    run_check(check, make)


def test_of_one_decision_and_one_session_only_so_much_is_recorded(store: Store) -> None:
    """Else one key makes every later read of a decision slow."""
    decision, blobs = fake_decision(1)
    store.append_decision(replace(decision, session="s"), blobs).result()
    for of in ({"decision": fake_id(1)}, {"decision": None, "session": "s"}):
        base = 1_000 if of["decision"] else 2_000
        told = [
            replace(fake_outcome(base + n, fake_id(1), kind=OutcomeKind.NONE), position=None, **of) for n in range(102)
        ]
        receipts = [store.append_outcome(one).result() for one in told]
        assert [one.receipt for one in receipts] == [Receipt.RECORDED] * MOST_OUTCOMES + [Receipt.REFUSED] * 2
        assert "100 outcomes" in str(receipts[-1].message)
        assert store.append_outcome(told[0]).result().receipt is Receipt.REPEATED
        back = replace(
            fake_outcome(base + 500, fake_id(1), kind=OutcomeKind.RETRACT), value=told[0].id, position=None, **of
        )
        assert store.append_outcome(back).result().receipt is Receipt.RECORDED, "what was said can be taken back"
    early = [fake_outcome(3_000 + n, fake_id(7), kind=OutcomeKind.NONE) for n in range(102)]
    assert {store.append_outcome(replace(one, position=None)).result().receipt for one in early} == {Receipt.HELD}
    store.append_decision(*fake_decision(7)).result()
    count = store.submit(
        lambda tx: tx.db.execute("SELECT COUNT(*) FROM outcomes WHERE decision=?", (fake_id(7),)).fetchone()
    )
    assert count.result() == (MOST_OUTCOMES,)


def test_what_was_written_is_there_after_a_restart_and_the_sequence_goes_on(tmp_path: Path) -> None:
    first = open_store(tmp_path)
    one = first.append_decision(*fake_decision(1)).result()
    first.close()
    second = open_store(tmp_path)
    assert second.append_decision(*fake_decision(1)).result().receipt is Receipt.REPEATED
    assert second.append_decision(*fake_decision(2)).result().seq == one.seq + 1
    second.close()


def stall(store: Store) -> tuple[threading.Event, threading.Event]:
    """Hold the writer inside a transaction: (it is there, let it go)."""
    there, go = threading.Event(), threading.Event()

    def work(_: Transaction) -> None:
        there.set()
        assert go.wait(10)

    store.submit(work)
    assert there.wait(10)
    return there, go


def test_writes_that_wait_together_share_a_commit_and_a_bad_one_leaves_nothing(store: Store) -> None:
    commits = []
    _, go = stall(store)
    store.submit(lambda tx: tx.db.set_commit_hook(lambda: bool(commits.append(1))))

    def half_done(tx: Transaction) -> None:
        append_decision(tx, *fake_decision(99))
        raise ValueError("in the middle")

    before = [store.append_decision(*fake_decision(number)) for number in range(1, 20)]
    bad = store.submit(half_done)
    after = [store.append_decision(*fake_decision(number)) for number in range(20, 40)]
    go.set()
    assert [future.result().receipt for future in before + after] == [Receipt.RECORDED] * 39
    with pytest.raises(ValueError, match="in the middle"):
        bad.result()
    assert [f.result().seq for f in before + after] == list(range(1, 40)), "a refused write takes no place"
    assert len(commits) == 1
    reader = Reader(store.root)
    assert reader.decision("t", fake_id(99)) is None
    assert reader.counts("t", "p") == {"decisions": 39}


def test_what_one_turn_of_a_loop_writes_shares_a_commit_and_the_limit_counts_it(tmp_path: Path) -> None:
    store = open_store(tmp_path, StoreConfig(queue_limit=8, ballast_bytes=0))
    commits = []
    store.submit(lambda tx: tx.db.set_commit_hook(lambda: bool(commits.append(1)))).result()
    commits.clear()

    def write(number: int) -> "asyncio.Future[Written]":
        return store.asubmit(lambda tx: append_decision(tx, *fake_decision(number)))

    async def turn() -> list[Written]:
        first = [write(number) for number in range(1, 9)]
        with pytest.raises(Overloaded):
            write(9)
        return [*await asyncio.gather(*first), await write(9)]

    assert [one.seq for one in asyncio.run(turn())] == list(range(1, 10))
    assert len(commits) == 2, "eight in one turn, and the ninth in a later one"
    store.close()


@pytest.mark.parametrize(
    ("table", "column"), [("decisions", "user"), ("decisions", "session"), ("outcomes", "decision")]
)
def test_an_index_without_the_rows_that_nobody_looks_for_is_used(store: Store, table: str, column: str) -> None:
    plan = store.submit(
        lambda tx: tx.db.execute(f"EXPLAIN QUERY PLAN SELECT * FROM {table} WHERE tenant=? AND {column}=?", ("t", "u"))
        .fetchall()
    ).result()  # fmt: skip
    assert f"USING INDEX {table}_{column}" in plan[0][3]
    sql = store.submit(lambda tx: tx.db.execute(f"SELECT sql FROM sqlite_master WHERE name='{table}_{column}'").get)
    assert sql.result().endswith(f"WHERE {column} IS NOT NULL")


def test_a_full_queue_refuses_at_once_and_takes_again(tmp_path: Path) -> None:
    store = open_store(tmp_path, StoreConfig(queue_limit=2, ballast_bytes=0))
    _, go = stall(store)
    kept = [store.append_decision(*fake_decision(number)) for number in (1, 2)]
    with pytest.raises(Overloaded) as refused:
        store.append_decision(*fake_decision(3))
    assert refused.value.retry_after_s > 0
    assert store.waiting == 2
    go.set()
    assert [future.result().receipt for future in kept] == [Receipt.RECORDED] * 2
    assert store.append_decision(*fake_decision(3)).result().receipt is Receipt.RECORDED
    store.close()


def test_closing_finishes_what_is_queued(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    _, go = stall(store)
    kept = [store.append_decision(*fake_decision(number)) for number in range(1, 50)]
    closing = threading.Thread(target=store.close)
    closing.start()
    go.set()
    closing.join(10)
    assert [future.result(0).receipt for future in kept] == [Receipt.RECORDED] * 49
    assert len(Reader(tmp_path).decisions("t", "p")[0]) == 49


def test_whoever_gives_up_waiting_does_not_stop_the_writer(store: Store) -> None:
    _, go = stall(store)
    gone = store.append_decision(*fake_decision(1))
    assert gone.cancel()
    go.set()
    assert store.append_decision(*fake_decision(2)).result(5).receipt is Receipt.RECORDED

    async def ask_and_leave() -> None:
        store.asubmit(lambda tx: append_decision(tx, *fake_decision(3)))

    _, go = stall(store)
    asyncio.run(ask_and_leave())
    go.set()
    assert store.append_decision(*fake_decision(4)).result(5).receipt is Receipt.RECORDED
    assert Reader(store.root).counts("t", "p") == {"decisions": 4}


def test_every_write_is_synced_fully_and_deleted_bytes_are_overwritten(store: Store) -> None:
    names = ("journal_mode", "synchronous", "secure_delete")
    found = store.submit(lambda tx: [tx.db.pragma(name) for name in names]).result()
    assert found == ["wal", 2, 1]
    control = Control(store.root)
    assert [control.db().pragma(name) for name in names] == ["wal", 2, 1]


def test_one_directory_has_one_server(store: Store) -> None:
    with pytest.raises(Conflict, match="another server"):
        open_store(store.root)


def test_a_writer_that_cannot_get_the_database_acknowledges_nothing_and_goes_on(store: Store) -> None:
    store.submit(lambda tx: tx.db.set_busy_timeout(50)).result()
    other = apsw.Connection(str(store.root / "journal.db"))
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageFull):
        store.append_decision(*fake_decision(1)).result()
    other.execute("ROLLBACK")
    other.close()
    assert store.append_decision(*fake_decision(1)).result().receipt is Receipt.RECORDED


# ---- schemas ---------------------------------------------------------------------------------------------------------


def digest_of(root: Path) -> dict[str, str]:
    """What a data directory holds: lock and shared-memory files, which hold no data, apart."""
    kept = [path for path in sorted(root.iterdir()) if not path.name.endswith(("-shm", "lock")) and path.stat().st_size]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


@pytest.mark.parametrize("mode", ["wal", "delete"])
@pytest.mark.parametrize("name", ["journal.db", "control.db"])
def test_a_newer_schema_is_refused_and_nothing_is_changed(tmp_path: Path, name: str, mode: str) -> None:
    open_store(tmp_path).close()
    Control(tmp_path).db().close()
    newer = apsw.Connection(str(tmp_path / name))
    newer.execute(f"PRAGMA journal_mode={mode}")
    newer.execute("CREATE TABLE invented_later (x)")
    newer.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    newer.close()
    before = digest_of(tmp_path)
    for _ in range(2):
        with pytest.raises(SchemaMismatch, match="upgrade"):
            open_store(tmp_path) if name == "journal.db" else Control(tmp_path)
        assert digest_of(tmp_path) == before


def test_a_migration_happens_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.db"
    old = apsw.Connection(str(path))
    old.execute("CREATE TABLE kept (x); INSERT INTO kept VALUES (1); PRAGMA user_version=1")
    old.close()
    monkeypatch.setattr(rows, "MIGRATIONS", {1: {"decisions": ("CREATE TABLE made (x)", "NONSENSE")}})
    with pytest.raises(apsw.SQLError):
        rows.open_database(path, JOURNAL_TABLES)
    look = apsw.Connection(str(path))
    assert [row[0] for row in look.execute("SELECT name FROM sqlite_master")] == ["kept"]
    assert look.pragma("user_version") == 1
    look.close()
    changes = {"decisions": ("ALTER TABLE kept RENAME TO moved",), "jobs": ("NONSENSE of another database",)}
    monkeypatch.setattr(rows, "MIGRATIONS", {1: changes})
    rows.open_database(path, JOURNAL_TABLES).close()
    look = apsw.Connection(str(path))
    assert look.execute("SELECT x FROM moved").fetchall() == [(1,)]
    assert look.pragma("user_version") == SCHEMA_VERSION


def test_every_table_leads_with_its_tenant() -> None:
    own = {"leases", "secrets"}
    for table in (*JOURNAL_TABLES, *CONTROL_TABLES):
        assert table.name in own or table.key[0] == "tenant", table.name
        assert set(table.key) <= set(table.names())
        if "policy" in table.names() and table.name != "tombstones":
            assert table.key[1] == "policy", table.name


# ---- copies ----------------------------------------------------------------------------------------------------------


def test_a_copy_taken_while_it_writes_is_a_prefix_of_history(store: Store, tmp_path: Path) -> None:
    stop = threading.Event()
    acked: list[int] = []

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            futures = [
                store.append_decision(*fake_decision(number)),
                store.append_outcome(fake_outcome(10_000 + number, fake_id(number))),
            ]
            acked.extend(future.result().seq for future in futures)

    writing = threading.Thread(target=write)
    writing.start()
    copies, known = [], []
    try:
        for n in range(4):
            time.sleep(0.1)
            while not acked:
                assert writing.is_alive()
                time.sleep(0.01)
            known.append(max(acked))
            copies.append(tmp_path / f"copy{n}" / "journal.db")
            copies[-1].parent.mkdir()
            source, target = apsw.Connection(str(store.root / "journal.db")), apsw.Connection(str(copies[-1]))
            with target.backup("main", source, "main") as backup:
                backup.step()
            source.close()
            target.close()
    finally:
        stop.set()
        writing.join()
    for path, least in zip(copies, known, strict=True):
        copy = open_store(path.parent)  # a restored copy serves
        last = Reader(path.parent).last_seq()
        assert last >= least, "what was acknowledged before the copy is in it"
        seqs = copy.submit(
            lambda tx: [r[0] for r in tx.db.execute("SELECT seq FROM decisions UNION ALL SELECT seq FROM outcomes")]
        ).result()
        assert sorted(seqs) == list(range(1, last + 1))
        assert sum(Reader(path.parent).counts("t", "p").values()) == last
        copy.close()


def test_a_data_directory_of_ours_is_its_owners_alone(tmp_path: Path) -> None:
    rows.make_root(tmp_path / "deep" / "data")
    assert (tmp_path / "deep" / "data").stat().st_mode & 0o077 == 0
