"""F3, F15: what serves is verified, whole and one version: damaged weights never, swaps under load without a seam."""

import itertools
import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from dayjob.cli import serve as cli_serve
from dayjob.cli.serve import assemble
from dayjob.config import Config
from dayjob.endings import Role
from dayjob.fakes import FakeRanker, load_fake
from dayjob.journal.control import Control
from dayjob.journal.readers import Reader
from dayjob.records import Stored
from dayjob.serve.app import create_app
from tests.promises.learning import until
from tests.promises.rig import PAUSE_S, POLICY, SPEC, Reply, add_version, rank_body, serving, versions_of

BASELINE = "v0-baseline"
KEY = ("default", POLICY)


class House:
    """A server in this process over one data directory; it can be started again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.client: TestClient | None = None

    def start(self) -> None:
        app = create_app(assemble(Config(data=self.root, holdback=0.0), ()))
        self.client = TestClient(app, base_url="http://127.0.0.1")
        self.client.__enter__()

    def stop(self) -> None:
        assert self.client is not None
        self.client.__exit__(None, None, None)

    def ok(self, method: str, path: str, body: Any = None) -> Any:
        assert self.client is not None
        answer = self.client.request(method, path, json=body)
        assert answer.status_code < 300, answer.text
        return answer.json()

    def serves(self) -> str:
        """The version that answers, by its scores and by its name."""
        answer = self.ok("POST", "/v1/rank", rank_body(3) | {"explore": False})
        number = int(answer["version"].partition("-")[0][1:])
        assert number == 0 or versions_of(answer) == {number}
        return str(answer["version"])

    def promote(self, name: str) -> None:
        self.ok("POST", f"/v1/policies/{POLICY}/promote", {"version": name, "reason": "a test"})

    def damaged(self) -> dict[str, str]:
        return dict(self.ok("GET", "/readyz")["damaged"])

    def folder(self, name: str) -> Path:
        return self.root / "versions" / "default" / POLICY / name


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setattr(cli_serve, "load_ranker", load_fake)
    made = House(tmp_path / "data")
    made.start()
    made.ok("PUT", f"/v1/policies/{POLICY}", SPEC)
    yield made
    made.stop()


def cut(folder: Path) -> None:
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])


def flip(folder: Path) -> None:
    weights = folder / "weights.safetensors"
    body = bytearray(weights.read_bytes())
    body[-1] ^= 1
    weights.write_bytes(body)


def blank(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(b"")


def swap(folder: Path) -> None:
    """The weights of another sound version."""
    other = next(path for path in folder.parent.iterdir() if path != folder)
    shutil.copy(other / "weights.safetensors", folder / "weights.safetensors")


def impostor(folder: Path) -> None:
    """All of another sound version under this name."""
    other = next(path for path in folder.parent.iterdir() if path != folder)
    shutil.rmtree(folder)
    shutil.copytree(other, folder)


def lose(folder: Path) -> None:
    shutil.rmtree(folder)


def link(folder: Path) -> None:
    weights = folder / "weights.safetensors"
    weights.rename(folder.parent.parent / "elsewhere")
    weights.symlink_to(folder.parent.parent / "elsewhere")


DAMAGES = [cut, flip, blank, swap, impostor, lose, link]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_version_never_serves_and_the_last_good_one_does(
    house: House, damage: Callable[[Path], None]
) -> None:
    good, bad = add_version(house.root, FakeRanker(1)), add_version(house.root, FakeRanker(2))
    house.promote(good)
    damage(house.folder(bad))
    house.promote(bad)
    assert house.serves() == good
    assert list(house.damaged()) == [f"default/{POLICY}/{bad}"]
    assert "roll back" in house.damaged()[f"default/{POLICY}/{bad}"]
    house.stop()
    house.start()
    assert house.serves() == good, "what it replaced serves after a restart too"
    assert list(house.damaged()) == [f"default/{POLICY}/{bad}"]
    house.ok("POST", f"/v1/policies/{POLICY}/rollback", {"to": BASELINE})
    assert house.serves() == BASELINE


def test_with_everything_damaged_the_baseline_serves(house: House) -> None:
    names = [add_version(house.root, FakeRanker(number)) for number in (1, 2)]
    for name in names:
        house.promote(name)
    assert house.serves() == names[1]
    for name in names:
        cut(house.folder(name))
    assert house.serves() == names[1], "what serves is in memory and was verified"
    house.stop()
    house.start()
    assert house.serves() == BASELINE
    assert len(house.damaged()) == 2


def test_a_damaged_challenger_is_never_shown(house: House) -> None:
    name = add_version(house.root, FakeRanker(1, turned=True))
    flip(house.folder(name))
    control = Control(house.root)
    control.move(*KEY, change={"challenger": name})
    control.db().close()
    deadline = time.monotonic() + 60
    while not house.damaged():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    roles = {house.ok("POST", "/v1/rank", rank_body(number))["role"] for number in range(40)}
    assert roles == {"champion"}


def test_any_flipped_bit_is_found(house: House) -> None:
    dice = random.Random(1)
    good, bad = add_version(house.root, FakeRanker(1)), add_version(house.root, FakeRanker(2))
    house.promote(good)
    for _ in range(40):
        path = house.folder(bad) / dice.choice(("weights.safetensors", "manifest.json"))
        sound = path.read_bytes()
        body = bytearray(sound)
        body[dice.randrange(len(body))] ^= 1 << dice.randrange(8)
        path.write_bytes(body)
        house.promote(bad)
        assert house.serves() == good
        path.write_bytes(sound)
        house.ok("POST", f"/v1/policies/{POLICY}/rollback", {"to": good})
    house.promote(bad)
    assert house.serves() == bad, "and the sound one serves"


def test_one_damaged_policy_does_not_keep_others_from_their_versions(house: House) -> None:
    house.ok("PUT", "/v1/policies/another", SPEC)
    bad, good = add_version(house.root, FakeRanker(1)), add_version(house.root, FakeRanker(2))
    cut(house.folder(bad))
    os.chmod(house.folder(bad), 0o700)
    control = Control(house.root)
    control.move(*KEY, change={"champion": bad})
    control.move("default", "another", change={"frozen": "champion"})
    deadline = time.monotonic() + 60
    while not house.ok("GET", "/v1/policies/another")["frozen"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    control.move(*KEY, change={"champion": good})
    control.db().close()
    while house.serves() != good:
        assert time.monotonic() < deadline
        time.sleep(0.02)


# ---- swaps under load ------------------------------------------------------------------------------------------------


def load(port_link: Callable[[], Any], stop: threading.Event, replies: list[Reply], *, seed: int) -> None:
    """Questions one after the other until it is told to stop."""
    ask, number = port_link(), seed
    while not stop.is_set():
        number += 1
        replies.append(ask("POST", "/v1/rank", rank_body(number)))
        time.sleep(PAUSE_S)


def numbers_in(blob: bytes) -> set[int]:
    return {round(float(score)) for score in np.frombuffer(blob, "<f8")}


def check_stored(stored: Stored, numbers: dict[str, int]) -> None:
    """One version's scores, and in a pair another's beside them, each the one that is named."""
    record = stored.record
    if record.version != BASELINE:
        assert numbers_in(record.score) == {numbers[record.version]}, record
    assert (record.challenger is not None) == (record.role is Role.TRIAL)
    if record.challenger not in (None, BASELINE):
        assert numbers_in(record.rival_score) == {numbers[str(record.challenger)]}, record


def shown(replies: list[Reply], version: str) -> int:
    return sum(reply.status == 200 and reply.body["version"] == version for reply in replies)


@pytest.mark.timeout(300)
def test_a_hundred_swaps_under_load_without_an_error_or_an_answer_of_two_versions(tmp_path: Path) -> None:
    data, stop, replies = tmp_path / "data", threading.Event(), []
    with serving(data, "--no-judge", environ={"DAYJOB_POLL_S": "0.01"}) as server:
        server.link().ok("PUT", f"/v1/policies/{POLICY}", SPEC)
        names = [add_version(data, FakeRanker(number, turned=number % 2 == 1)) for number in range(1, 102)]
        askers = [
            threading.Thread(target=load, args=(server.link, stop, replies), kwargs={"seed": 10**5 * n})
            for n in range(4)
        ]
        for asker in askers:
            asker.start()
        control, third = Control(data), itertools.cycle(range(3))
        for challenger, champion in itertools.pairwise(names):
            previous = control.pointers(*KEY).champion
            control.move(*KEY, change={"champion": champion, "previous": previous, "challenger": challenger})
            time.sleep(0.03)
            if next(third) == 0:  # on a busy machine, too, a third of them answers something
                before = len(replies)
                until(lambda: shown(replies[before:], champion) >= 12, "answers")  # noqa: B023
        stop.set()
        for asker in askers:
            asker.join(60)
        control.db().close()
        assert server.stop() == 0
    assert {reply.status for reply in replies} == {200}
    numbers = {name: number for number, name in enumerate(names, start=1)}
    for reply in replies:
        if reply.body["version"] != BASELINE:
            assert versions_of(reply.body) == {numbers[reply.body["version"]]}, reply.body
    decisions, _ = Reader(data).decisions(*KEY, limit=10**6)
    assert len(decisions) == len(replies)
    for stored in decisions:
        check_stored(stored, numbers)
    assert len({stored.record.version for stored in decisions}) > 30, "and many versions took part"
    assert len({stored.record.challenger for stored in decisions}) > 20
