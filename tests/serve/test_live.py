"""What serves: no change made beside a refresh is lost, and what is wrong is said for as long as it is wrong."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dayjob.endings import PolicyKind, VersionStatus
from dayjob.fakes import FakeRanker, find_fake_spec, load_fake, publish_fake
from dayjob.journal import vectors
from dayjob.journal.control import Control
from dayjob.journal.readers import Reader
from dayjob.journal.store import Store, StoreConfig
from dayjob.policies.plackett_luce import GREEDY
from dayjob.policies.protocol import Ranker
from dayjob.records import CatalogItem, Policy, Version
from dayjob.serve import live as module
from dayjob.serve.live import Hub

KEY = ("t", "p")
SPEC = {"kind": "ranker", "candidate_dim": 2, "explore": {"changed_first": 0.5}}


def version(number: int, name: str, digest: str) -> Version:
    status = VersionStatus.RETIRED if number else VersionStatus.BASELINE
    return Version(
        tenant="t", policy="p", name=name, number=number, parent=None, recipe="fake", digest=digest, from_seq=0,
        to_seq=0, status=status, created_ms=0,
    )  # fmt: skip


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    control = Control(tmp_path)
    policy = Policy(tenant="t", name="p", kind=PolicyKind.RANKER, spec=SPEC, created_ms=0)
    control.create_policy(policy, version(0, "v0-baseline", "0" * 64))
    store = Store(tmp_path, secret=b"s" * 32, find_spec=find_fake_spec, config=StoreConfig(ballast_bytes=0))
    one = Hub(
        root=tmp_path, store=store, reader=Reader(tmp_path), control=control, load_ranker=partial(load_fake, tmp_path),
        poll_s=0.01,
    )  # fmt: skip
    one.refresh()
    yield one
    store.close()


def publish(hub: Hub, number: int) -> str:
    """A version on disk and in the list; its name."""
    stored = publish_fake(hub.root, *KEY, ranker=FakeRanker(number))
    hub.control.add_version(version(number, stored.version, stored.digest))
    return stored.version


def put_catalog(hub: Hub, *ids: str) -> None:
    items = [CatalogItem(id=one, vector=vectors.pack(np.ones(2, np.float32)), meta=None) for one in ids]
    hub.store.put_catalog(*KEY, items=items).result()


def beside(work: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def see(hub: Hub, version: str, count: int = 40) -> None:
    for n in range(count):
        hub.live[KEY].observe(np.array([0.0, 1.0 + n / count, 3.0]), version=version)


# ---- races -----------------------------------------------------------------------------------------------------------


def test_a_pointer_that_moves_while_exploration_is_calibrated_stays_moved(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a rollback would be undone in silence, until somebody moves a pointer again."""
    name = publish(hub, 1)
    see(hub, "v0-baseline")
    real = module.calibrate

    def slowly(*arguments: Any, **named: Any) -> Any:
        found = real(*arguments, **named)
        hub.control.move(*KEY, change={"challenger": name})
        beside(hub.refresh).join()
        return found

    monkeypatch.setattr(module, "calibrate", slowly)
    live = hub.live[KEY]
    live.recalibrate()
    assert hub.live[KEY] is live
    assert (live.serving.challenger, live.serving.pointers.challenger) == (name, name)
    assert live.serving.explore != GREEDY


def test_a_catalog_that_is_read_while_the_champion_changes_is_the_one_that_serves(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_catalog(hub, "old")
    hub.reload_catalog(*KEY)
    reading, go_on = threading.Event(), threading.Event()
    read = hub.reader.catalog

    def slowly(tenant: str, policy: str) -> Any:
        found = read(tenant, policy)
        reading.set()
        assert go_on.wait(10)
        return found

    monkeypatch.setattr(hub.reader, "catalog", slowly)
    put_catalog(hub, "new", "newer")
    reloading = beside(lambda: hub.reload_catalog(*KEY))
    assert reading.wait(10)
    hub.control.move(*KEY, change={"champion": publish(hub, 1)})
    refreshing = beside(hub.refresh)
    refreshing.join(0.2)  # it waits for its turn; let through, it would leave the reading with what serves no more
    go_on.set()
    refreshing.join(10)
    reloading.join(10)
    serving = hub.live[KEY].serving
    assert serving.champion.startswith("v1-")
    assert serving.catalog is not None
    assert serving.catalog.ids == ("new", "newer")


def test_a_catalog_that_takes_long_to_read_keeps_nobody_from_following_the_pointers(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_catalog(hub, "a")
    reading, go_on = threading.Event(), threading.Event()
    real = module.load_catalog

    def slow(*arguments: Any, **options: Any) -> Any:
        found = real(*arguments, **options)
        reading.set()
        assert go_on.wait(20)
        return found

    monkeypatch.setattr(module, "load_catalog", slow)
    beside = threading.Thread(target=hub.reload_catalog, args=KEY)
    beside.start()
    assert reading.wait(20)
    name = publish(hub, 1)
    hub.control.move(*KEY, change={"champion": name})
    moved = threading.Thread(target=hub.refresh)
    moved.start()
    moved.join(5)
    assert not moved.is_alive(), "the pointers wait for no catalog"
    assert hub.of(*KEY).serving.champion == name
    go_on.set()
    beside.join()
    serving = hub.of(*KEY).serving
    assert serving.champion == name
    assert serving.catalog is not None
    assert serving.catalog.ids == ("a",)


def test_exploration_calibrated_while_a_challenger_loads_is_kept(hub: Hub) -> None:
    see(hub, "v0-baseline", 5)
    load = hub.load_ranker

    def slowly(*address: str) -> Ranker:
        hub.live[KEY].recalibrate()
        return load(*address)

    hub.load_ranker = slowly
    hub.control.move(*KEY, change={"challenger": publish(hub, 1)})
    hub.refresh()
    serving = hub.live[KEY].serving
    assert serving.challenger is not None
    assert serving.explore != GREEDY


def test_many_threads_end_where_the_pointers_and_the_catalog_are(hub: Hub) -> None:
    names = [publish(hub, number) for number in (1, 2)]
    stop, faults = threading.Event(), []

    def again(work: Callable[[int], Any]) -> None:
        number = 0
        try:
            while not stop.is_set():
                work(number)
                number += 1
        except Exception as error:
            faults.append(error)

    def move(number: int) -> None:
        hub.control.move(*KEY, change={"challenger": names[number % 2]})
        hub.refresh()

    def swap(number: int) -> None:
        put_catalog(hub, *(f"c{n}" for n in range(1 + number % 3)))
        hub.reload_catalog(*KEY)

    works = (move, swap, lambda _: hub.live[KEY].recalibrate(), lambda _: see(hub, "v0-baseline", 1))
    threads = [beside(partial(again, work)) for work in works]
    stop.wait(0.5)
    stop.set()
    for thread in threads:
        thread.join(10)
    assert faults == []
    serving = hub.live[KEY].serving
    assert serving.pointers == hub.control.pointers(*KEY)
    assert serving.challenger == serving.pointers.challenger
    assert serving.catalog is not None
    assert list(serving.catalog.ids) == hub.reader.catalog(*KEY)[0]


# ---- calibration -----------------------------------------------------------------------------------------------------


def test_only_the_champions_own_scores_calibrate_its_exploration(hub: Hub) -> None:
    """The baseline's are on the caller's scale: with them the temperature would fit neither."""
    name = publish(hub, 1)
    hub.control.move(*KEY, change={"champion": name})
    hub.refresh()
    see(hub, name)
    alone = hub.live[KEY].serving.explore
    for n in range(400):
        hub.live[KEY].observe(np.array([0.0, 1e6 * n, -1e6]), version="v0-baseline")
    assert len(hub.live[KEY].recent) == 40
    hub.live[KEY].recalibrate()
    assert hub.live[KEY].serving.explore == alone


def test_another_wish_for_exploration_takes_effect_at_once(hub: Hub) -> None:
    see(hub, "v0-baseline")
    assert hub.live[KEY].serving.explore.temperature > 0
    hub.control.update_spec(*KEY, SPEC | {"explore": {"changed_first": 0.0}})
    hub.refresh()
    assert hub.live[KEY].serving.explore == GREEDY


# ---- damage ----------------------------------------------------------------------------------------------------------


def spoil(hub: Hub, name: str) -> tuple[Path, bytes]:
    weights = hub.root / "versions" / "t" / "p" / name / "weights.safetensors"
    sound = weights.read_bytes()
    weights.write_bytes(sound[:-1])
    return weights, sound


def test_a_damaged_version_is_named_until_another_takes_its_place(hub: Hub) -> None:
    bad, good = publish(hub, 1), publish(hub, 2)
    spoil(hub, bad)
    hub.control.move(*KEY, change={"champion": bad})
    hub.refresh()
    assert list(hub.damaged) == [f"t/p/{bad}"]
    hub.damaged["other/p/v1-00000001"] = "stays"
    hub.control.move(*KEY, change={"champion": good, "previous": None})
    hub.refresh()
    assert hub.live[KEY].serving.champion == good
    assert list(hub.damaged) == ["other/p/v1-00000001"]


def test_a_repaired_version_serves_without_a_restart(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_AGAIN_S", 0.05)
    name = publish(hub, 1)
    weights, sound = spoil(hub, name)
    hub.control.move(*KEY, change={"champion": name})

    async def repaired() -> None:
        follower = asyncio.create_task(hub.follow())
        while not hub.damaged:
            await asyncio.sleep(0.01)
        assert hub.live[KEY].serving.champion == "v0-baseline"
        weights.write_bytes(sound)
        while hub.damaged:
            await asyncio.sleep(0.01)
        follower.cancel()

    asyncio.run(asyncio.wait_for(repaired(), 60))
    assert hub.live[KEY].serving.champion == name
