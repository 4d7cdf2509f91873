"""Promises 6 and 7: a rollback is one row and takes effect in under a second, with everything else dead; a freeze stops
learning, by API, command line or file, and never a rollback."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dayjob.cli import app
from dayjob.config import Config, load_config
from dayjob.endings import Invalid
from dayjob.fakes import FakeRanker
from dayjob.journal.control import Control
from dayjob.journal.readers import Reader
from tests.promises.rig import POLICY, SPEC, Link, Running, add_version, rank_body, serving

BASELINE = "v0-baseline"
KEY = ("default", POLICY)
PROMISED_S = 1.0
WITHIN_S = 10 * PROMISED_S  # on a busy machine; how often the server looks is held on its own


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server alone: no judge, no learner."""
    with serving(tmp_path_factory.mktemp("freeze") / "data", "--no-judge") as running:
        running.link().ok("PUT", f"/v1/policies/{POLICY}", SPEC)
        for number in (1, 2, 3):
            add_version(running.data, FakeRanker(number, turned=number == 1))
        yield running


@pytest.fixture
def link(server: Running) -> Iterator[Link]:
    """Champion version 1, which replaced the baseline; version 2 on trial; nothing frozen."""
    (server.data / "freeze").unlink(missing_ok=True)
    names = versions(server)
    change = {"champion": names[1], "previous": BASELINE, "challenger": names[2], "frozen": ""}
    control = Control(server.data)
    control.move(*KEY, change=change)
    control.db().close()
    found = server.link()
    wait(lambda: serves(found) == names[1] and names[2] in challengers(found, server.data))
    yield found
    found.close()


def versions(server: Running) -> list[str]:
    control = Control(server.data)
    names = [version.name for version in control.versions(*KEY)]
    control.db().close()
    return names


def serves(link: Link) -> str:
    return str(link.ok("POST", "/v1/rank", rank_body(2) | {"explore": False})["version"])


def roles(link: Link) -> set[str]:
    return {link.ok("POST", "/v1/rank", rank_body(number))["role"] for number in range(30)}


def challengers(link: Link, data: Path) -> set[str | None]:
    """Who is shown beside the champion, of the newest 30 decisions."""
    roles(link)
    return {stored.record.challenger for stored in Reader(data).recent(*KEY, 30)}


def wait(true: Callable[[], bool], within_s: float = 60.0) -> float:
    """Wait until something is so; the seconds that it took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < within_s, "it did not happen in time"
        time.sleep(0.01)
    return time.monotonic() - began


def command(*arguments: str) -> None:
    """The command line, in this process: a start of Python would only cost time."""
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output


# ---- rolling back ----------------------------------------------------------------------------------------------------


def test_the_server_looks_more_often_than_is_promised(tmp_path: Path) -> None:
    assert Config(data=tmp_path).poll_s <= PROMISED_S / 4
    with pytest.raises(Invalid, match=r"0\.01 to 0\.5"):
        load_config(flags={"poll_s": PROMISED_S}, environ={}, directory=tmp_path)


def test_a_moved_row_takes_effect_within_a_second(server: Running, link: Link) -> None:
    """By whatever hand: here another process writes the one row, and nobody tells the server."""
    control = Control(server.data)
    changes = control.db().total_changes()
    began = time.monotonic()
    control.move(*KEY, change={"champion": BASELINE, "previous": None, "challenger": None})
    assert control.db().total_changes() == changes + 1
    control.db().close()
    wait(lambda: serves(link) == BASELINE)
    assert time.monotonic() - began < WITHIN_S


def test_a_rollback_by_api_serves_with_the_next_answer(server: Running, link: Link) -> None:
    names = versions(server)
    began = time.monotonic()
    answer = link.ok("POST", f"/v1/policies/{POLICY}/rollback", {})
    assert answer["champion"] == serves(link) == BASELINE
    assert time.monotonic() - began < WITHIN_S
    listed = {one["version"]: one["status"] for one in link.ok("GET", f"/v1/policies/{POLICY}/versions")["versions"]}
    assert listed[names[1]] == "rolled_back"
    last = link.ok("GET", f"/v1/policies/{POLICY}")["last_verdict"]
    assert (last["kind"], last["challenger"], last["champion"], last["by"]) == ("rollback", names[1], BASELINE, "hand")
    assert link("POST", f"/v1/policies/{POLICY}/rollback", {}).status == 409, "there is nothing left to roll back to"


def test_a_rollback_by_command_line_is_followed_by_the_server(server: Running, link: Link) -> None:
    arguments = [sys.executable, "-m", "dayjob", "rollback", POLICY, "--data", str(server.data)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert wait(lambda: serves(link) == BASELINE) < WITHIN_S


def test_rolling_back_to_a_named_version_and_to_none_that_exists(server: Running, link: Link) -> None:
    names = versions(server)
    assert link.ok("POST", f"/v1/policies/{POLICY}/rollback", {"to": names[3]})["champion"] == names[3]
    assert serves(link) == names[3]
    assert link("POST", f"/v1/policies/{POLICY}/rollback", {"to": "v9-99999999"}).status == 404
    assert serves(link) == names[3]


# ---- freezing --------------------------------------------------------------------------------------------------------


def by_api(server: Running, what: str) -> None:
    path = f"/v1/policies/{POLICY}/" + ("freeze" if what else "unfreeze")
    server.link().ok("POST", path, {"serve": what} if what else {})


def by_command(server: Running, what: str) -> None:
    command("freeze", POLICY, "--data", str(server.data), *(["--serve", what] if what else ["--off"]))


def by_file(server: Running, what: str) -> None:
    if what:
        (server.data / "freeze").write_text("" if what == "champion" else what)
    else:
        (server.data / "freeze").unlink()


HANDS = [by_api, by_command, by_file]


@pytest.mark.parametrize("hand", HANDS, ids=lambda hand: hand.__name__)
def test_a_freeze_stops_trials_and_learning_until_it_is_lifted(
    server: Running, link: Link, hand: Callable[[Running, str], None]
) -> None:
    names = versions(server)
    hand(server, "champion")
    assert wait(lambda: names[2] not in challengers(link, server.data)) < WITHIN_S
    assert serves(link) == names[1]
    state = link.ok("GET", f"/v1/policies/{POLICY}")
    assert (state["frozen"], state["serves"]) == (True, "champion")
    assert link("POST", f"/v1/policies/{POLICY}/learn", {}).status == 409
    hand(server, "")
    wait(lambda: names[2] in challengers(link, server.data))
    assert link.ok("GET", f"/v1/policies/{POLICY}")["frozen"] is False


@pytest.mark.parametrize("hand", HANDS, ids=lambda hand: hand.__name__)
def test_a_freeze_to_the_baseline_serves_it(server: Running, link: Link, hand: Callable[[Running, str], None]) -> None:
    hand(server, "baseline")
    wait(lambda: serves(link) == BASELINE)
    assert roles(link) == {"champion"}, "no pair, no holdback: the baseline alone"
    state = link.ok("GET", f"/v1/policies/{POLICY}")
    assert (state["frozen"], state["serves"]) == (True, "baseline")
    hand(server, "")
    wait(lambda: serves(link) == versions(server)[1])


@pytest.mark.parametrize("hand", HANDS, ids=lambda hand: hand.__name__)
@pytest.mark.parametrize("back", ["api", "command"])
def test_a_freeze_never_stops_a_rollback(
    server: Running, link: Link, hand: Callable[[Running, str], None], back: str
) -> None:
    hand(server, "champion")
    began = time.monotonic()
    if back == "api":
        link.ok("POST", f"/v1/policies/{POLICY}/rollback", {})
    else:
        command("rollback", POLICY, "--data", str(server.data))
    wait(lambda: serves(link) == BASELINE)
    assert time.monotonic() - began < WITHIN_S
    hand(server, "")
