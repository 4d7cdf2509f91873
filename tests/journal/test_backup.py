"""F16, F17: a copy made while everything writes is a prefix of history; what older schemas wrote is read."""

import errno
import json
import lzma
import os
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest
from starlette.testclient import TestClient

from dayjob.cli.serve import assemble
from dayjob.config import Config
from dayjob.endings import Conflict, Invalid, PolicyKind, Receipt, SchemaMismatch, StorageFull, VersionStatus
from dayjob.fakes import (
    FakeRanker,
    fake_decision,
    fake_generation,
    fake_id,
    fake_outcome,
    find_fake_spec,
    load_fake,
    publish_fake,
)
from dayjob.journal import backup as module
from dayjob.journal import jobs
from dayjob.journal.backup import backup
from dayjob.journal.columns import CONTROL_TABLES, JOURNAL_TABLES, SCHEMA_VERSION
from dayjob.journal.control import Control
from dayjob.journal.plain import decision_view
from dayjob.journal.readers import PAGE, START, Reader
from dayjob.journal.steering import taint_overlooked
from dayjob.journal.store import Store, StoreConfig
from dayjob.journal.writes import person_mark
from dayjob.records import Policy, Version
from dayjob.serve.app import create_app
from tests.journal.standing import mark_taught

GOLDEN = Path(__file__).parent / "golden"
KEY = ("t", "p")


def version(number: int, name: str, digest: str, to_seq: int = 0) -> Version:
    return Version(
        tenant="t", policy="p", name=name, number=number, parent=None, recipe="fake", digest=digest, from_seq=0,
        to_seq=to_seq, status=VersionStatus.RETIRED if number else VersionStatus.BASELINE, created_ms=0,
    )  # fmt: skip


def add_version(control: Control, number: int, to_seq: int = 0) -> str:
    stored = publish_fake(control.root, *KEY, ranker=FakeRanker(number))
    control.add_version(version(number, stored.version, stored.digest, to_seq))
    return stored.version


def open_store(root: Path) -> Store:
    return Store(root, secret=b"s" * 32, find_spec=find_fake_spec, config=StoreConfig(ballast_bytes=0))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path / "data")
    yield opened
    opened.close()


@pytest.fixture
def control(store: Store) -> Control:
    opened = Control(store.root)
    policy = Policy(tenant="t", name="p", kind=PolicyKind.RANKER, spec={}, created_ms=0)
    opened.create_policy(policy, version(0, "v0-baseline", "0" * 64))
    return opened


def history(root: Path) -> list[tuple[int, str]]:
    """Every decision and outcome with its place, in order."""
    reader, out, cursor = Reader(root), [], START
    while True:
        page, cursor = reader.decisions(*KEY, cursor=cursor)
        if not page:
            return sorted(out)
        out += [(stored.seq, stored.record.id) for stored in page]
        out += [(o.seq, o.record.id) for told in reader.outcomes("t", page).values() for o in told]


@pytest.mark.usefixtures("control")
def test_copies_made_under_writing_are_prefixes_of_history_and_serve_on(store: Store, tmp_path: Path) -> None:
    stop, written = threading.Event(), [0]

    def write() -> None:
        while not stop.is_set():
            written[0] += 1
            store.append_decision(*fake_decision(written[0]))
            store.append_outcome(fake_outcome(1_000_000 + written[0], fake_id(written[0]))).result()

    def steer() -> None:
        number = 0
        mine = Control(store.root)
        while not stop.is_set():
            number += 1
            name = add_version(mine, number, to_seq=mine_seq())
            mine.move(*KEY, change={"champion": name})

    def mine_seq() -> int:
        return Reader(store.root).last_seq()

    threads = [threading.Thread(target=work) for work in (write, steer)]
    for thread in threads:
        thread.start()
    made = []
    try:
        for number in range(6):
            while written[0] < 60 * number + 20:
                stop.wait(0.01)
            acknowledged = store.submit(lambda tx: tx.seq).result()
            made.append((acknowledged, tmp_path / f"backup{number}", backup(store.root, tmp_path / f"backup{number}")))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    everything = history(store.root)
    lengths = set()
    for acknowledged, root, copied in made:
        found = history(root)
        assert found == everything[: len(found)]
        assert acknowledged <= copied.through == len(found) == Reader(root).last_seq()
        assert copied.damaged == {}
        lengths.add(len(found))
        restored = Control(root)
        pointers = restored.pointers(*KEY)
        champion = restored.version(*KEY, pointers.champion)
        assert champion.to_seq <= copied.through, "nothing speaks of journal that the copy lacks"
        for one in restored.versions(*KEY)[1:]:
            assert load_fake(root, *KEY, one.name, one.digest).number == one.number
        again = open_store(root)
        assert again.append_decision(*fake_decision(999_999)).result().seq == copied.through + 1
        assert again.append_decision(*fake_decision(1)).result().seq == everything[0][0], "one id, one effect"
        again.close()
    assert len(lengths) == len(made)


def test_nothing_in_a_copy_speaks_of_journal_that_it_lacks(
    store: Store, control: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two databases a night ends: its version learned from decisions that the first copy cannot know."""
    store.append_decision(*fake_decision(1)).result()
    copy = module._copy_database

    def slowly(source: Path, target: Path) -> None:
        copy(source, target)
        newest = store.append_decision(*fake_decision(2 + len(control.versions(*KEY)))).result().seq
        control.move(*KEY, change={"champion": add_version(control, len(control.versions(*KEY)), to_seq=newest)})

    monkeypatch.setattr(module, "_copy_database", slowly)
    copied = backup(store.root, tmp_path / "backup")
    restored = Control(tmp_path / "backup")
    champion = restored.version(*KEY, restored.pointers(*KEY).champion)
    assert champion.to_seq <= copied.through == len(history(tmp_path / "backup"))
    assert copied.damaged == {}


def test_a_backup_has_its_name_only_once_it_is_whole(
    store: Store, control: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.append_decision(*fake_decision(1)).result()
    add_version(control, 1)
    target = tmp_path / "to" / "backup"

    def full(_path: Path) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "_sync", full)
    with pytest.raises(StorageFull, match="No space left"):
        backup(store.root, target)
    assert list(target.parent.iterdir()) == []
    monkeypatch.undo()
    (tmp_path / "to" / "backup.partial").mkdir()  # a killed one's
    (store.root / "freeze").write_text("baseline")
    assert backup(store.root, target).versions == 1
    assert [path.name for path in target.parent.iterdir()] == ["backup"]
    assert {path.name for path in target.iterdir()} == {"control.db", "journal.db", "versions", "freeze"}
    assert target.stat().st_mode & 0o077 == 0, "it holds secrets"
    for wrong, reason in ((target, "exists"), (store.root / "inside", "outside of it")):
        with pytest.raises(Conflict, match=reason):
            backup(store.root, wrong)
    with pytest.raises(Invalid, match="holds no journal"):
        backup(tmp_path, tmp_path / "other")


def test_a_damaged_version_is_named_and_spoils_no_backup(store: Store, control: Control, tmp_path: Path) -> None:
    bad, lost, good = (add_version(control, number) for number in (1, 2, 3))
    folder = store.root / "versions" / "t" / "p"
    (folder / bad / "weights.safetensors").write_bytes(b"")
    (folder / lost / "manifest.json").unlink()
    copied = backup(store.root, tmp_path / "backup")
    assert (copied.versions, sorted(copied.damaged)) == (1, [f"t/p/{bad}", f"t/p/{lost}"])
    assert [path.name for path in (tmp_path / "backup" / "versions" / "t" / "p").iterdir()] == [good]
    assert load_fake(tmp_path / "backup", *KEY, good, control.version(*KEY, good).digest).number == 3


def test_what_learned_from_the_erased_is_out_wherever_an_erasure_was_cut_short(store: Store, control: Control) -> None:
    """Killed between rows and versions, or restored from a copy whose control.db is older than its journal."""
    mark = person_mark(b"s" * 32, "t", "ann")
    store.append_decision(*fake_decision(1)).result()
    before, other = add_version(control, 1, to_seq=1), add_version(control, 2, to_seq=1)
    mark_taught(control, *KEY, before, marks=[mark, b"m" * 16])
    mark_taught(control, *KEY, other, marks=[b"m" * 16])
    control.move(*KEY, change={"champion": before})
    assert taint_overlooked(control) == []
    store.erase_user("t", "ann").result()
    after = add_version(control, 3, to_seq=store.submit(lambda tx: tx.seq).result())
    mark_taught(control, *KEY, after, marks=[mark])  # they came back, and taught again
    assert taint_overlooked(control) == [("t", "p", before)]
    assert control.version(*KEY, before).status is VersionStatus.TAINTED
    assert [job.policy for job in jobs.unfinished(control)] == ["p"]
    assert taint_overlooked(control) == []


# ---- what older programs wrote ---------------------------------------------------------------------------------------


@pytest.fixture
def golden(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A data directory that schema 1 wrote, and what it was known to hold."""
    return unpacked(tmp_path, 1)


def unpacked(tmp_path: Path, schema: int) -> tuple[Path, dict[str, Any]]:
    with lzma.open(GOLDEN / f"schema{schema}.tar.xz") as packed, tarfile.open(fileobj=packed) as files:
        files.extractall(tmp_path, filter="data")
    root = tmp_path / f"schema{schema}"
    for name in ("journal.db", "control.db"):
        old = apsw.Connection(str(root / name), flags=apsw.SQLITE_OPEN_READONLY)
        assert old.pragma("user_version") == schema
        old.close()
    return root, json.loads((root / "expected.json").read_text())


def test_what_schema_1_wrote_is_read_to_the_last_field(golden: tuple[Path, dict[str, Any]]) -> None:
    root, expected = golden
    service = assemble(Config(data=root, ballast_bytes=0), ())
    with TestClient(create_app(service), base_url="http://127.0.0.1") as http:
        lines = http.get("/v1/export?policy=geo").text.splitlines()
        assert [json.loads(line) for line in lines] == expected["decisions"]
        for path, name in (
            ("/v1/policies/geo", "policy"), ("/v1/policies/geo/versions", "versions"),
            ("/v1/policies/geo/report", "report"), (f"/v1/jobs/{expected['job_id']}", "job"),
            ("/v1/users/user1", "user1"), ("/v1/users/user2", "user2"),
        ):  # fmt: skip
            told = http.get(path).json()
            if path.startswith("/v1/users/"):  # told of each decision since: what it was decided on
                for one, before in zip(told["held"]["decisions"], expected[name]["held"]["decisions"], strict=True):
                    before.pop("outcomes", None)  # older programs left an empty list there
                    assert len(one.pop("context")) == 3
                    for added in ("extra", "pair", "rival_score", "vectors"):
                        one.pop(added)
            assert {key: told[key] for key in expected[name] if key != "made_ms"} == {
                key: value for key, value in expected[name].items() if key != "made_ms"
            }, path
        # Its promises are kept on: what was erased is refused, what waits counts, an equal retry is one.
        gone = [fake_id(n) for n in range(1, 25) if fake_id(n) not in {d["id"] for d in expected["decisions"]}]
        told = {"kind": "none", "decision": gone[0]}
        assert http.post("/v1/feedback", json=told).status_code == 410
        asked = {"policy": "geo", "id": fake_id(99_999), "context": {"features": [1, 0, 0]}}
        assert http.post("/v1/rank", json=asked).status_code == 200
        last = json.loads(http.get("/v1/export?policy=geo").text.splitlines()[-1])
        assert [(o["id"], o["kind"]) for o in last["outcomes"]] == [(fake_id(77_777), "none")]
        (job,) = jobs.unfinished(service.hub.control)
        assert jobs.start_job(service.hub.control, job, newest_seq=7).until_seq == 7
    check_schema(root)


def test_what_schema_2_wrote_is_read_and_takes_in_what_language_policies_write(tmp_path: Path) -> None:
    root, expected = unpacked(tmp_path, 2)
    with pytest.raises(SchemaMismatch, match="dayjob serve"):
        Reader(root).last_seq()
    store = open_store(root)
    reader, chat = Reader(root), fake_generation(500)
    views = [decision_view(s, []) for s in reader.decisions("default", "geo")[0]]
    assert [view | {"outcomes": None} for view in views] == [one | {"outcomes": None} for one in expected["decisions"]]
    assert store.append_decision(chat).result().receipt is Receipt.RECORDED
    stored = reader.decision("t", chat.id)
    assert stored is not None
    assert stored.record == chat
    store.close()
    Control(root)
    check_schema(root)


def check_schema(root: Path) -> None:
    """What was brought to this schema has the tables and columns that a new directory has."""
    for name, tables in (("journal.db", JOURNAL_TABLES), ("control.db", CONTROL_TABLES)):
        new, fresh = apsw.Connection(str(root / name)), apsw.Connection(":memory:")
        for table in tables:
            for statement in table.create():
                fresh.execute(statement)
        names = "SELECT type, name FROM sqlite_master WHERE sql IS NOT NULL ORDER BY 1, 2"
        assert new.execute(names).fetchall() == fresh.execute(names).fetchall()
        for table in tables:
            shape = f"SELECT name, type, pk FROM pragma_table_info('{table.name}')"
            assert new.execute(shape).fetchall() == fresh.execute(shape).fetchall(), table.name
        assert new.pragma("user_version") == SCHEMA_VERSION


def test_a_newer_golden_is_refused_and_not_a_byte_is_changed(golden: tuple[Path, dict[str, Any]]) -> None:
    root, _ = golden
    open_store(root).close()
    Control(root)
    for name, opened in (("journal.db", partial(open_store, root)), ("control.db", partial(Control, root))):
        newer = apsw.Connection(str(root / name))
        newer.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
        newer.close()
        before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
        with pytest.raises(SchemaMismatch, match="upgrade"):
            opened()
        kept = {path: path.read_bytes() for path in before}
        assert kept == before
    assert Reader(root).decisions("default", "geo", limit=PAGE)[0], "whoever only looks may"
