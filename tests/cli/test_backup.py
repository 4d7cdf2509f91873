"""A backup is taken while a server is written to, and a server over the copy goes on from it."""

import threading
import time
from pathlib import Path

from dayjob.fakes import FakeRanker
from dayjob.journal.readers import Reader
from tests.cli.conftest import Command
from tests.promises.rig import POLICY, SPEC, Running, add_version, rank_body, serving


def keep_asking(server: Running, stop: threading.Event, asked: list[str]) -> None:
    link = server.link()
    while not stop.is_set():
        told = link.ok("POST", "/v1/rank", rank_body(len(asked)))
        link.ok("POST", "/v1/feedback", {"decision": told["id"], "kind": "click", "position": 1})
        asked.append(told["id"])


def test_a_backup_taken_under_load_serves(dayjob: Command, tmp_path: Path) -> None:
    data, copy, asked, stop = tmp_path / "data", tmp_path / "copy", list[str](), threading.Event()
    with serving(data) as server:
        link = server.link()
        link.ok("PUT", f"/v1/policies/{POLICY}", SPEC)
        names = [add_version(data, FakeRanker(number)) for number in (1, 2)]
        link.ok("POST", f"/v1/policies/{POLICY}/promote", {"version": names[1], "reason": "a test"})
        asking = threading.Thread(target=keep_asking, args=(server, stop, asked), daemon=True)
        asking.start()
        while len(asked) < 30:
            assert asking.is_alive()
            time.sleep(0.01)
        before = len(asked)
        done = dayjob("backup", copy, "--data", data, "--json")
        assert done.status == 0, done.err
        while len(asked) < before + 30:
            assert asking.is_alive(), "serving goes on"
            time.sleep(0.01)
        stop.set()
        asking.join(10)
    stored = [one.record.id for one in Reader(copy).decisions("default", POLICY)[0]]
    assert before <= len(stored) < len(asked)
    assert asked[: len(stored)][: len(stored) - 1] == stored[:-1], "the copy is a prefix of history"
    assert (done.json["versions"], done.json["damaged"]) == (2, {})
    assert done.json["through"] in (2 * len(stored), 2 * len(stored) - 1)
    with serving(copy) as restored:
        link = restored.link()
        answer = link.ok("POST", "/v1/rank", rank_body(0) | {"explore": False})
        assert answer["version"] == names[1], "the same champion serves, its weights verified"
        again = link("POST", "/v1/rank", rank_body(0, decision_id=stored[0]))
        assert (again.status, again.body["id"]) == (200, stored[0]), "what was answered is answered the same"
        assert link("POST", "/v1/rank", rank_body(1, decision_id=stored[0])).status == 409
        assert link.ok("POST", f"/v1/policies/{POLICY}/rollback", {})["champion"] == "v0-baseline"


def test_a_backup_never_overwrites_and_says_what_was_damaged(dayjob: Command, shop: Path, tmp_path: Path) -> None:
    from tests.cli.test_steer import add_version as add_to_shop

    name = add_to_shop(shop, 1)
    (shop / "versions" / "default" / "shop" / name / "weights.safetensors").write_bytes(b"x")
    done = dayjob("backup", tmp_path / "copy", "--data", shop)
    assert done.status == 1, "the copy is made, and something is not well"
    assert f"left out default/shop/{name}" in done.out
    again = dayjob("backup", tmp_path / "copy", "--data", shop)
    assert again.status == 2
    assert "name a directory that does not" in again.err
    inside = dayjob("backup", shop / "copy", "--data", shop)
    assert inside.status == 2
    assert "outside of it" in inside.err
    nothing = dayjob("backup", tmp_path / "more", "--data", tmp_path / "none")
    assert nothing.status == 2
    assert "name the data directory with --data" in nothing.err
