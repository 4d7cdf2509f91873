"""F2: the power goes. What was acknowledged is there; the rest is there whole or not at all, and nothing else is."""

import random
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import apsw
import pytest

from dayjob.endings import OutcomeKind, PolicyKind, VersionStatus
from dayjob.fakes import fake_decision, fake_id, fake_outcome, find_fake_spec
from dayjob.journal import rows
from dayjob.journal.columns import DECISIONS, OUTCOMES
from dayjob.journal.control import Control
from dayjob.journal.store import Store, StoreConfig
from dayjob.records import Decision, Policy
from tests.gate.trials import SPEC, version
from tests.promises.faults import Log, RecordingDisk, after_power_loss, using

USERS = ("ann", "bob")


@dataclass(frozen=True, slots=True)
class Loss:
    """What one power loss cost."""

    acknowledged_lost: int
    damaged: int


def sent(number: int) -> Decision:
    return replace(fake_decision(number)[0], user=USERS[number % 2], context=bytes([number % 251]) * 300)


def write_a_history(root: Path) -> Log:
    """Decisions and outcomes in commits of several sizes, with checkpoints; every acknowledgement is marked."""
    disk = RecordingDisk("recording")
    with using(disk):
        write_through(disk.log, root)
    return disk.log


def write_through(log: Log, root: Path) -> None:
    config = StoreConfig(ballast_bytes=0)
    store = Store(root, secret=b"s" * 32, find_spec=find_fake_spec, config=config)
    store.submit(lambda tx: tx.db.pragma("wal_autocheckpoint", 150)).result()
    dice, number = random.Random(1), 0
    for commit in range(24):
        futures = []
        go = threading.Event()
        store.submit(lambda _, go=go: go.wait(5))
        for _ in range(dice.choice((1, 2, 5))):
            number += 1
            decision = store.append_decision(sent(number), fake_decision(number)[1])
            futures.append((f"decision {number}", decision))
            click = fake_outcome(10_000 + number, fake_id(number), kind=OutcomeKind.CLICK)
            futures.append((f"outcome {number}", store.append_outcome(click)))
        go.set()
        for note, future in futures:
            assert future.result().seq
            log.mark(note)
        if commit == 12:
            store.scrub().result()
    store.close()


def lose_power(log: Log, root: Path, *, trials: int, seed: int) -> Loss:
    """Cut the power at random moments, open what is left, and compare it with what had been acknowledged."""
    lost = damaged = 0
    for trial in range(trials):
        dice = random.Random(seed * 1_000 + trial)
        at = dice.randrange(len(log.steps) + 1)
        place = root / f"trial{trial}"
        place.mkdir(parents=True)
        for name, body in after_power_loss(log, at, dice).items():
            (place / name).write_bytes(body)
        acknowledged = {step.name for step in log.steps[:at] if step.kind == "mark"}
        found = what_is_left(place / "journal.db")
        if found is None:
            damaged += 1
        else:
            lost += len(acknowledged - found)
    return Loss(lost, damaged)


def what_is_left(path: Path) -> set[str] | None:
    """The records of a journal after its power went; None when they are not what was ever written."""
    if not path.exists():
        return set()
    db = apsw.Connection(str(path))
    try:
        if db.pragma("integrity_check") != "ok":
            return None
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name='decisions'").fetchone():
            return set()
        decisions = [rows.row_decision(row) for row in db.execute(DECISIONS.select("ORDER BY seq"))]
        outcomes = [rows.row_outcome(row) for row in db.execute(OUTCOMES.select("ORDER BY seq"))]
        counts = dict(db.execute("SELECT what, n FROM counts"))
    except (apsw.CorruptError, apsw.NotADBError):
        return None
    finally:
        db.close()
    numbers = [int(s.record.id[-12:], 16) for s in decisions]
    whole = all(s.record == sent(number) for s, number in zip(decisions, numbers, strict=True))
    seqs = sorted([s.seq for s in decisions] + [o.seq for o in outcomes])
    whole &= seqs == list(range(1, len(seqs) + 1)) and counts.get("seq", 0) == len(seqs)
    told = {f"outcome {int(o.record.id[-12:], 16) - 10_000}" for o in outcomes}
    return {f"decision {number}" for number in numbers} | told if whole else None


def test_nothing_acknowledged_is_lost_when_the_power_goes(tmp_path: Path) -> None:
    log = write_a_history(tmp_path / "data")
    kinds = {step.kind for step in log.steps}
    assert {"write", "sync", "truncate", "mark"} <= kinds
    assert sum(step.kind == "sync" and step.name == "journal.db" for step in log.steps) > 2, "checkpoints happened"
    assert lose_power(log, tmp_path, trials=80, seed=1) == Loss(acknowledged_lost=0, damaged=0)


def test_without_a_sync_at_every_commit_it_would_be_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same history with ``synchronous=NORMAL``: whole, but acknowledged records are gone. The test can tell."""
    real = rows.connect

    def careless(path: Path, *, write: bool) -> apsw.Connection:
        connection = real(path, write=write)
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection

    monkeypatch.setattr(rows, "connect", careless)
    log = write_a_history(tmp_path / "data")
    loss = lose_power(log, tmp_path, trials=40, seed=2)
    assert loss.acknowledged_lost > 20


def test_without_any_sync_the_journal_would_be_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = rows.connect

    def reckless(path: Path, *, write: bool) -> apsw.Connection:
        connection = real(path, write=write)
        connection.execute("PRAGMA synchronous=OFF")
        return connection

    monkeypatch.setattr(rows, "connect", reckless)
    log = write_a_history(tmp_path / "data")
    loss = lose_power(log, tmp_path, trials=40, seed=3)
    assert loss.damaged > 0


@pytest.mark.slow
def test_nothing_is_lost_in_a_thousand_power_losses(tmp_path: Path) -> None:
    log = write_a_history(tmp_path / "data")
    assert lose_power(log, tmp_path, trials=1_000, seed=4) == Loss(acknowledged_lost=0, damaged=0)


def move_often(log: Log, root: Path) -> None:
    """Promotions whose names are the numbers of their moves."""
    control = Control(root)
    policy = Policy(tenant="t", name="p", kind=PolicyKind.RANKER, spec=SPEC, created_ms=0)
    control.create_policy(policy, version(0, VersionStatus.BASELINE))
    log.mark("0")
    for number in range(1, 30):
        control.move("t", "p", change={"champion": str(number)})
        log.mark(str(number))
        if number % 10 == 0:
            control.db().wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    control.db().close()


def test_a_pointer_that_moved_stays_moved(tmp_path: Path) -> None:
    """Rollbacks and promotions are acknowledged too: after the power went the champion is one that was said last."""
    disk = RecordingDisk("recording")
    with using(disk):
        move_often(disk.log, tmp_path / "data")
    log = disk.log
    for trial in range(60):
        dice = random.Random(trial)
        at = dice.randrange(len(log.steps) + 1)
        said = [int(step.name) for step in log.steps[:at] if step.kind == "mark"]
        place = tmp_path / f"trial{trial}"
        place.mkdir()
        for name, body in after_power_loss(log, at, dice).items():
            (place / name).write_bytes(body)
        if not said:
            continue
        db = apsw.Connection(str(place / "control.db"))
        ((champion, generation),) = db.execute("SELECT champion, generation FROM pointers")
        db.close()
        assert generation - 1 in (said[-1], said[-1] + 1)
        assert champion == (str(generation - 1) if generation > 1 else "v0-baseline")
