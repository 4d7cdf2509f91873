"""Promise 6 where it is the gate that must roll back: on a full disk, out of the ballast, which nothing else takes."""

import math
from pathlib import Path

import pytest

from dayjob.endings import VerdictKind, VersionStatus
from dayjob.gate import judge as module
from dayjob.gate import seat
from dayjob.gate.docket import Docket
from dayjob.journal.control import Control
from tests.gate.trials import BASELINE, KEY, World, open_world
from tests.promises.test_disk_full import fill, small_disk

__all__ = ["small_disk"]  # a fixture
MIB = 1 << 20
V1 = "v1-00000001"


@pytest.fixture(autouse=True)
def _no_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPORT_S", math.inf)


def full_world(place: Path) -> World:
    """A champion that loses every pair from the 501st on: more than a page of evidence to read; and a full disk."""
    world = open_world(place / "data", ballast_bytes=MIB)
    world.add(1, VersionStatus.CHAMPION)
    world.control.move(*KEY, change={"champion": V1, "previous": BASELINE})
    world.judge().step()
    world.control.release_lease(world.judge().seats[KEY].lease)  # whoever comes after need not wait for its end
    world.trial(V1, BASELINE, 500, favour=0.5)
    world.trial(V1, BASELINE, 400, favour=0.98, seed=1)
    fill(place)
    return world


@pytest.mark.parametrize("who", ["judge-1", "judge-2"], ids=["the judge at work", "one that comes after it"])
def test_the_gate_rolls_back_on_a_full_disk(small_disk: Path, who: str) -> None:
    world = full_world(small_disk)
    before = world.control.state(*KEY, "judge")
    ballast = world.root / "ballast"
    assert ballast.stat().st_size == MIB
    judge = world.judge(who)
    judge.step()
    again = Control(world.root)
    assert again.pointers(*KEY).champion == BASELINE
    assert again.verdicts(*KEY)[-1].kind is VerdictKind.ROLLBACK
    assert not ballast.exists()
    assert Docket.from_json(again.state(*KEY, "judge")).cursor > Docket.from_json(before).cursor
    world.close()


def test_what_the_ballast_gave_back_is_for_rollbacks_alone(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge that found the disk full writes neither reports nor leases into the room that is left."""
    world = full_world(small_disk)
    judge = world.judge()
    judge.step()
    lease = judge.seats[KEY].lease
    monkeypatch.setattr(module, "REPORT_S", 0.0)
    monkeypatch.setattr(seat, "LEASE_S", 0.0)
    monkeypatch.setattr(seat, "RENEW_S", 0.0)
    for _ in range(3):
        judge.step()
    assert judge.seats[KEY].lease == lease
    assert world.control.state(*KEY, "report") is None
    (small_disk / "filler").unlink()
    judge.step()
    assert judge.seats[KEY].lease.until_ms != lease.until_ms
    assert world.control.state(*KEY, "report") is not None
    world.close()
