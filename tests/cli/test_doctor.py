"""The doctor finds what is made wrong here, says what to do, and leaves the patient as it was."""

import fcntl
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from dayjob.cli import doctor as cli_doctor
from dayjob.endings import VersionStatus
from dayjob.journal import health
from dayjob.journal.columns import SCHEMA_VERSION
from dayjob.journal.control import Control
from dayjob.practice import sandbox
from dayjob.version import VERSION
from tests.cli.conftest import Command
from tests.cli.test_steer import KEY, add_version

SANDBOX = "optional: sandbox (programs that a model wrote)"


def findings(dayjob: Command, root: Path) -> dict[str, dict[str, Any]]:
    done = dayjob("doctor", "--data", root, "--json")
    found = {one["what"]: one for one in done.json}
    needed = [one for name, one in found.items() if not name.startswith("optional")]
    assert done.status == (0 if all(one["well"] for one in needed) else 1)
    return found


def ill(dayjob: Command, root: Path) -> list[tuple[str, str, str]]:
    """What is not well, as seen, with its remedy; the sandbox, which not every machine can have, apart."""
    found = findings(dayjob, root)
    bad = [one for one in found.values() if not one["well"] and one["what"] != SANDBOX]
    return [(one["what"], one["seen"], one["remedy"]) for one in bad]


def holds(path: Path) -> bool:
    """Whether it is a file with contents of its own: SQLite's shared memory is locks and an index."""
    return path.is_file() and not path.name.endswith("-shm")


def test_a_sound_directory_is_well_and_stays_as_it_was(dayjob: Command, shop: Path) -> None:
    add_version(shop, 1)
    for name in ("control.db", "journal.db"):  # what a write would change is in the file itself
        db = apsw.Connection(str(shop / name))
        db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        db.close()
    before = {path: hashlib.sha256(path.read_bytes()).digest() for path in shop.rglob("*") if holds(path)}
    found = findings(dayjob, shop)
    assert [what for what, one in found.items() if not one["well"] and what != SANDBOX] == []
    assert found["data directory"]["seen"] == "2 policies, 24 decisions"
    assert found["weights"]["seen"].startswith("1 versions")
    assert found["server"]["seen"] == "none runs"
    after = {path: hashlib.sha256(path.read_bytes()).digest() for path in before}
    assert after == before
    table = dayjob("doctor", "--data", shop).out
    assert "what to do" in table
    assert "sound, schema" in table


def test_a_directory_that_is_not_there_yet_is_well(dayjob: Command, tmp_path: Path) -> None:
    assert findings(dayjob, tmp_path / "new")["data directory"]["seen"].endswith("holds nothing yet")
    assert not (tmp_path / "new").exists()


def test_a_missing_extra_is_named_and_is_no_failure(
    dayjob: Command, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = ("no_such_module", "no-such-thing", "flying", "pip install 'dayjob[flying]'")
    monkeypatch.setattr(cli_doctor, "OPTIONAL", (extra,))
    assert ill(dayjob, shop) == [("optional: no-such-thing (flying)", "not installed", "pip install 'dayjob[flying]'")]


def test_what_language_policies_need_is_named_with_its_extra() -> None:
    told = {name: (purpose, remedy) for _, name, purpose, remedy in cli_doctor.OPTIONAL}
    assert told["transformers"] == ("language policies", "pip install 'dayjob[language]'")
    assert "language policies" in told["torch"][0]
    assert "dayjob[language]" in told["torch"][1]


def test_the_version_is_said(dayjob: Command) -> None:
    done = dayjob("--version")
    assert (done.status, done.out) == (0, f"dayjob {VERSION}\n")


def test_what_holds_programs_of_models_is_said(dayjob: Command, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sandbox.available() is None:
        assert "bubblewrap, seccomp" in findings(dayjob, shop)[SANDBOX]["seen"]
    monkeypatch.setattr(sandbox, "available", lambda: "the sandbox needs bwrap: apt-get install bubblewrap")
    found = findings(dayjob, shop)[SANDBOX]
    assert (found["well"], found["seen"]) == (False, "not in force: such programs are refused")
    assert found["remedy"] == "the sandbox needs bwrap: apt-get install bubblewrap"


def test_a_python_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 0, "final", 0))
    assert cli_doctor._python().remedy == "use Python 3.11 to 3.13"


@pytest.mark.parametrize("how", ["flipped", "truncated", "gone"])
def test_damaged_weights_are_found(dayjob: Command, shop: Path, how: str) -> None:
    names = [add_version(shop, 1), add_version(shop, 2, VersionStatus.CHAMPION)]
    Control(shop).move(*KEY, change={"champion": names[1], "previous": names[0]})
    folder = shop / "versions" / "default" / "shop" / names[1]
    weights = folder / "weights.safetensors"
    body = bytearray(weights.read_bytes())
    body[-1] ^= 1
    match how:
        case "flipped":
            weights.write_bytes(body)
        case "truncated":
            weights.write_bytes(body[:-9])
        case "gone":
            folder.rename(folder.with_name("elsewhere"))
    [(what, seen, remedy)] = ill(dayjob, shop)
    assert what == f"version {names[1]} of shop, the champion"
    assert names[1] in seen
    assert f"dayjob rollback shop --data {shop}, then dayjob learn --policy shop --data {shop}" in remedy


def test_a_full_disk_is_found(dayjob: Command, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_doctor, "ENOUGH_DISK", 1 << 62)
    (shop / "lock").touch()
    (shop / "ballast").unlink()
    (disk, ballast) = ill(dayjob, shop)
    assert disk[0] == "disk"
    assert "free some space" in disk[2]
    assert ballast[0] == "ballast"
    assert "free some space" in ballast[2]


def test_a_backup_that_no_server_has_opened_is_well(dayjob: Command, shop: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    assert dayjob("backup", copy, "--data", shop).status == 0
    assert not (copy / "ballast").exists()
    assert ill(dayjob, copy) == []
    assert findings(dayjob, copy)["ballast"]["seen"] == "none yet: made when a server starts here"


@pytest.mark.parametrize("name", health.DATABASES)
def test_a_newer_schema_is_found_and_not_touched(dayjob: Command, shop: Path, name: str) -> None:
    db = apsw.Connection(str(shop / name))
    db.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    db.close()
    [(what, seen, remedy)] = ill(dayjob, shop)
    assert (what, seen) == (name, f"schema {SCHEMA_VERSION + 1}, this program knows {SCHEMA_VERSION}")
    assert "upgrade dayjob" in remedy


def test_an_older_schema_is_told_and_left_to_the_server(dayjob: Command, shop: Path) -> None:
    for name in health.DATABASES:
        db = apsw.Connection(str(shop / name))
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION - 1}")
        db.close()
    assert f"brought to {SCHEMA_VERSION} by the next" in findings(dayjob, shop)["control.db"]["seen"]
    assert [health.schema(shop / name) for name in health.DATABASES] == [SCHEMA_VERSION - 1] * 2


@pytest.mark.parametrize("name", health.DATABASES)
@pytest.mark.parametrize("how", ["noise", "a torn page", "gone"])
def test_a_damaged_database_is_found(dayjob: Command, shop: Path, name: str, how: str) -> None:
    db = apsw.Connection(str(shop / name))
    db.execute("PRAGMA journal_mode=DELETE")
    db.close()
    match how:
        case "noise":
            (shop / name).write_bytes(os.urandom(60_000))
        case "a torn page":
            with (shop / name).open("r+b") as file:
                file.seek(16_384 * 2)
                file.write(os.urandom(16_384 * 3))
        case "gone" if name == "journal.db":
            (shop / name).unlink()
        case _:
            return  # a directory without control.db holds nothing of ours
    [(what, _, remedy)] = ill(dayjob, shop)
    assert what == name
    assert "restore the data directory from a backup" in remedy


def test_a_clock_that_was_set_back_is_found(dayjob: Command, shop: Path) -> None:
    db = apsw.Connection(str(shop / "journal.db"))
    db.execute("UPDATE decisions SET at_ms=at_ms+3600000")
    db.close()
    [(what, seen, remedy)] = ill(dayjob, shop)
    assert what == "clock"
    assert "the journal has a record of" in seen
    assert "set the clock" in remedy


def test_a_clock_that_never_was_set_is_found() -> None:
    assert cli_doctor._clock(None, 86_400_000).well is False
    assert cli_doctor._clock(None, int(time.time() * 1000)).well is True


@pytest.fixture
def served(shop: Path) -> Iterator[Path]:
    """As a server holds it."""
    descriptor = os.open(shop / "lock", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield shop
    os.close(descriptor)


def set_lease(root: Path, name: str, until_ms: int) -> None:
    control = Control(root)
    control.take_lease(name, "somebody", ttl_s=10)
    control.db().execute("UPDATE leases SET until_ms=? WHERE name=?", (until_ms, name))


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="finds the server by Linux's table of locks")
def test_a_judge_that_is_gone_while_the_server_runs_is_found(dayjob: Command, served: Path) -> None:
    set_lease(served, "judge/default/shop", int(time.time() * 1000) - 3_600_000)
    set_lease(served, "judge/default/other", 0)  # given back
    set_lease(served, "learn/default/shop", int(time.time() * 1000) - 3_600_000)  # its job is done, or taken up again
    assert findings(dayjob, served)["server"]["seen"] == f"process {os.getpid()}"
    [(what, seen, remedy)] = ill(dayjob, served)
    assert what == "lease of the judge of default/shop"
    assert "gone or stands still" in seen
    assert f"dayjob gate --follow --data {served}" in remedy


def test_the_same_lease_is_no_fault_while_nothing_runs(dayjob: Command, shop: Path) -> None:
    set_lease(shop, "judge/default/shop", int(time.time() * 1000) - 3_600_000)
    assert ill(dayjob, shop) == []


def test_a_lease_from_the_future_is_found(dayjob: Command, shop: Path) -> None:
    set_lease(shop, "learn/default/shop", int(time.time() * 1000) + 86_400_000)
    [(what, _, remedy)] = ill(dayjob, shop)
    assert what == "lease of the learner of default/shop"
    assert "clock was set back" in remedy


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("closed", ["control.db", "."])
def test_somebody_elses_directory_is_found(shop_template: Path, closed: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        root = Path(place) / "data"
        root.mkdir()
        for path in shop_template.iterdir():
            if path.is_file():
                (root / path.name).write_bytes(path.read_bytes())
        for path in root.iterdir():
            path.chmod(0o666)
        root.chmod(0o777)
        (root / closed).chmod(0o700 if closed == "." else 0o600)
        os.seteuid(65_534)
        try:
            found = cli_doctor.look(root)
        finally:
            os.seteuid(0)
        bad = [one for one in found if not one.well]
    assert [one.what for one in bad] == ["permissions"] if closed != "." else bad
    assert "run as the user that owns it" in bad[0].remedy


def test_a_freeze_file_is_told(dayjob: Command, shop: Path) -> None:
    (shop / "freeze").touch()
    assert findings(dayjob, shop)["freeze"]["remedy"] == f"remove {shop / 'freeze'} to learn"


def test_a_file_is_no_data_directory(dayjob: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    [(_, seen, remedy)] = ill(dayjob, tmp_path / "file")
    assert seen.endswith("is a file")
    assert remedy == "name a directory"
