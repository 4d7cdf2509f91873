"""versions, rollback, freeze, gate and learn: what they do, what they say, and what they say to someone who errs."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dayjob.cli import processes
from dayjob.cli.commands import COMMANDS
from dayjob.endings import JobState, PolicyKind, VersionStatus
from dayjob.fakes import FakeRanker, load_fake, publish_fake
from dayjob.journal import health
from dayjob.journal.control import Control
from dayjob.journal.jobs import unfinished
from dayjob.records import Policy, Version
from tests.cli.conftest import Command
from tests.promises.learning import until

KEY = ("default", "shop")
BASELINE = "v0-baseline"


def add_version(root: Path, number: int, status: VersionStatus = VersionStatus.RETIRED) -> str:
    stored = publish_fake(root, *KEY, ranker=FakeRanker(number))
    made = Version(
        tenant="default", policy="shop", name=stored.version, number=number, parent=BASELINE, recipe="fake",
        digest=stored.digest, from_seq=0, to_seq=40 * number, status=status, created_ms=0,
    )  # fmt: skip
    Control(root).add_version(made)
    return stored.version


@pytest.fixture
def promoted(shop: Path) -> tuple[Path, list[str]]:
    """Version 2 serves, in place of 1."""
    names = [BASELINE, add_version(shop, 1), add_version(shop, 2, VersionStatus.CHAMPION)]
    Control(shop).move(*KEY, change={"champion": names[2], "previous": names[1]})
    return shop, names


def test_versions_are_listed_with_the_one_that_serves(dayjob: Command, promoted: tuple[Path, list[str]]) -> None:
    root, names = promoted
    rows = dayjob("versions", "shop", "--data", root, "--json").json
    assert [row["version"] for row in rows] == names
    assert [row["serves"] for row in rows] == [False, False, True]
    assert rows[2]["journal_range"] == [0, 80]
    assert f"{names[2]} *" in dayjob("versions", "shop", "--data", root).out
    (root / "freeze").write_text("baseline")
    frozen = dayjob("versions", "shop", "--data", root, "--json").json
    assert [row["serves"] for row in frozen] == [True, False, False], "a frozen policy may serve its baseline"


def test_a_rollback_goes_one_back_then_to_what_is_named(dayjob: Command, promoted: tuple[Path, list[str]]) -> None:
    root, names = promoted
    done = dayjob("rollback", "shop", "--data", root, "--json")
    assert done.json == {"policy": "shop", "champion": names[1], "withdrawn": names[2], "warning": None}
    control = Control(root)
    assert control.pointers(*KEY).champion == names[1]
    assert control.version(*KEY, names[2]).status is VersionStatus.ROLLED_BACK
    again = dayjob("rollback", "shop", "--data", root, "--to", names[1])
    assert (again.status, again.out.strip()) == (0, f"{names[1]} serves already")
    assert dayjob("rollback", "shop", "--data", root).status == 0
    nothing = dayjob("rollback", "shop", "--data", root)
    assert nothing.status == 2
    assert "there is nothing to roll back to" in nothing.err


def test_a_freeze_is_told_and_lifted_and_a_file_still_holds(dayjob: Command, shop: Path) -> None:
    done = dayjob("freeze", "shop", "--data", shop, "--serve", "baseline", "--json")
    assert done.json == {"policy": "shop", "frozen": True, "serves": "baseline"}
    assert Control(shop).pointers(*KEY).frozen == "baseline"
    learning = dayjob("learn", "--policy", "shop", "--data", shop)
    assert learning.status == 2
    assert f"first run dayjob freeze shop --off --data {shop}" in learning.err
    assert "learns again" in dayjob("freeze", "shop", "--data", shop, "--off").out
    (shop / "freeze").touch()
    held = dayjob("freeze", "shop", "--data", shop, "--off")
    assert str(shop / "freeze") in held.out.replace("\n", ""), "it says what still freezes"
    assert dayjob("freeze", "shop", "--data", shop, "--off", "--json").json["frozen"] is True


def test_learning_by_hand_says_what_came_of_it(dayjob: Command, shop: Path) -> None:
    done = dayjob("learn", "--policy", "shop", "--data", shop)
    assert done.status == 0, done.err
    assert "no challenger: nothing learned" in done.out, "forty clicks teach nothing"
    told = dayjob("learn", "--policy", "shop", "--data", shop, "--json").json
    assert (told["policy"], told["state"], told["result"]["challenger"]) == ("shop", "succeeded", None)
    assert unfinished(Control(shop)) == []


def test_learning_without_torch_says_how_to_get_it(shop: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; from dayjob.cli import main; main()"
    asked = [sys.executable, "-c", code, "learn", "--policy", "shop", "--data", str(shop)]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "torch" in done.stderr
    assert "pip install 'dayjob[learn]'" in done.stderr


def test_a_failed_job_is_an_error_with_its_reason(dayjob: Command, shop: Path) -> None:
    control = Control(shop)
    control.update_spec(*KEY, control.policy(*KEY).spec | {"recipe": "no-such-recipe"})
    done = dayjob("learn", "--policy", "shop", "--data", shop, "--json")
    assert done.status == 2
    assert done.json["state"] == JobState.FAILED.value
    assert "error:" in done.err


def test_the_gate_says_where_every_policy_stands(
    dayjob: Command, promoted: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "load_ranker", load_fake)
    root, names = promoted
    add_version(root, 3, VersionStatus.WAITING)
    stands = {one["policy"]: one for one in dayjob("gate", "--data", root, "--json").json}
    assert set(stands) == {"shop", "other"}
    shop = stands["shop"]
    assert (shop["champion"], shop["judged_here"], shop["waiting"]) == (names[2], True, 0)
    assert shop["challenger"].startswith("v3-"), "the waiting one went on trial"
    assert shop["last_verdict"] is None
    dayjob("rollback", "shop", "--data", root)
    said = dayjob("gate", "--data", root).out
    assert f"shop: {names[1]} is champion" in said
    assert "every closed decision is judged" in said
    assert f"last verdict: rollback by hand of {names[2]} against {names[1]}. rolled back by hand" in said


def test_the_gate_says_where_a_language_policy_stands(dayjob: Command, shop: Path) -> None:
    control = Control(shop)
    spec = {"kind": "language", "base": "tiny", "recipe": "consolidate"}
    clerk = Policy(tenant="default", name="clerk", kind=PolicyKind.LANGUAGE, spec=spec, created_ms=0)
    control.create_policy(clerk, replace(control.version(*KEY, "v0-baseline"), policy="clerk"))
    (stand,) = [one for one in dayjob("gate", "--data", shop, "--json").json if one["policy"] == "clerk"]
    assert (stand["kind"], stand["champion"], stand["judged_here"], stand["waiting"]) == (
        "language", "v0-baseline", True, 0,
    )  # fmt: skip
    lines = dayjob("gate", "--data", shop).out.split("clerk:")[1].splitlines()
    assert lines[0] == " v0-baseline is champion"
    assert "  every closed session is judged" in lines
    assert "  feedback: too_few" in lines
    assert control.take_lease("judge/default/clerk", "the next one", ttl_s=10) is not None


def test_the_gate_does_not_claim_what_another_judge_holds(dayjob: Command, shop: Path) -> None:
    assert Control(shop).take_lease("judge/default/shop", "somebody else", ttl_s=10) is not None
    shop_lines = dayjob("gate", "--data", shop).out.split("shop:")[1]
    assert "not judged here: another judge holds it" in shop_lines
    assert "closed decisions still wait" in shop_lines
    stands = {one["policy"]: one["judged_here"] for one in dayjob("gate", "--data", shop, "--json").json}
    assert stands == {"shop": False, "other": True}


def test_a_gate_by_hand_gives_its_leases_back(dayjob: Command, shop: Path) -> None:
    dayjob("gate", "--data", shop)
    assert Control(shop).take_lease("judge/default/shop", "the next one", ttl_s=10) is not None


def test_a_judge_that_is_told_to_end_gives_its_leases_back(shop: Path) -> None:
    command = [sys.executable, "-m", "dayjob", "gate", "--follow", "--data", str(shop)]
    judge = subprocess.Popen(command)
    try:
        until(lambda: any(lease.until_ms for lease in health.leases(shop)), "a judge")
        judge.send_signal(signal.SIGTERM)
        assert judge.wait(20) == 0
    finally:
        judge.kill()
    assert [lease.until_ms for lease in health.leases(shop) if lease.name.startswith("judge/")] == [0, 0]


# ---- people who err ----------------------------------------------------------------------------------------------

Words = Callable[[Path], list[object]]
ERRORS: list[tuple[str, Words, str]] = [
    ("versions: no directory", lambda d: ["versions", "shop", "--data", d / "no"], "name the data directory with"),
    ("versions: another directory", lambda d: ["versions", "shop", "--data", d.parent], "no data directory of dayjob"),
    ("versions: no policy", lambda d: ["versions", "nope", "--data", d], "there is other, shop"),
    ("versions: no tenant", lambda d: ["versions", "shop", "--data", d, "--tenant", "x"], "default with --tenant"),
    ("versions: no argument", lambda _: ["versions"], "Missing argument"),
    ("rollback: no policy", lambda d: ["rollback", "nope", "--data", d], "there is other, shop"),
    ("rollback: no version", lambda d: ["rollback", "shop", "--to", "v9[a]", "--data", d], "'v9[a]': there is v0-bas"),
    ("rollback: at the baseline", lambda d: ["rollback", "shop", "--data", d], "nothing to roll back to"),
    ("freeze: no policy", lambda d: ["freeze", "nope", "--data", d], "there is other, shop"),
    ("freeze: a wrong word", lambda d: ["freeze", "shop", "--serve", "x", "--data", d], "champion or baseline"),
    ("freeze: no directory", lambda d: ["freeze", "shop", "--data", d / "no"], "name the data directory"),
    ("learn: nothing said", lambda d: ["learn", "--data", d], "--policy NAME, or --follow"),
    ("learn: both said", lambda d: ["learn", "--policy", "shop", "--follow", "--data", d], "leave one of them out"),
    ("learn: no policy", lambda d: ["learn", "--policy", "nope", "--data", d], "there is other, shop"),
    ("learn: no recipe", lambda d: ["learn", "--policy", "shop", "--recipe", "x", "--data", d], "use one of debiased"),
    ("learn: no directory", lambda d: ["learn", "--policy", "shop", "--data", d / "no"], "dayjob serve --data"),
    ("gate: no directory", lambda d: ["gate", "--data", d / "no"], "dayjob serve --data"),
    ("gate: for ever in JSON", lambda d: ["gate", "--follow", "--json", "--data", d], "leave out --json"),
    ("gate: no such file", lambda d: ["gate", "--config", "no.toml", "--data", d], "name another file or none"),
    ("export: no policy", lambda d: ["export", "nope", "--data", d], "there is other, shop"),
    ("export: no directory", lambda d: ["export", "shop", "--data", d / "no"], "name the data directory"),
    ("export: JSON of JSON", lambda d: ["export", "shop", "--json", "--data", d], "name a file with --out"),
    ("export: a wrong format", lambda d: ["export", "shop", "--format", "xml", "--data", d], "'decisions'"),
    ("import: no file", lambda d: ["import", "journal", "no.ndjson", "--data", d], "no.ndjson: No such file"),
    ("import: a directory", lambda d: ["import", "journal", d, "--data", d], "name a file"),
    ("import: another folder", lambda d: ["import", "obd", d, "--data", d], "Open Bandit sample's folder"),
    ("serve: no such port", lambda d: ["serve", "--port", "99999", "--data", d], "0 to 65535"),
    ("serve: a file for data", lambda d: ["serve", "--port", "0", "--data", d / "lock"], "name a directory"),
    ("serve: open to all", lambda d: ["serve", "--host", "0.0.0.0", "--data", d], "configure a keys file"),
    ("serve: no keys file", lambda d: ["serve", "--keys", "no.toml", "--data", d], "name another"),
    ("audit: no file", lambda _: ["audit", "no.csv"], "name a CSV or JSONL log"),
    ("audit: no report", lambda d: ["audit", d / "log.csv", "--html", d / "no" / "x"], "check the path"),
    ("doctor: a wrong variable", lambda d: ["doctor", "--data", d, "--nope"], "No such option"),
]


@pytest.mark.parametrize(("words", "remedy"), [one[1:] for one in ERRORS], ids=[one[0] for one in ERRORS])
def test_an_error_is_one_line_that_says_what_to_do(dayjob: Command, shop: Path, words: Words, remedy: str) -> None:
    rows = [f"{n},i{k},{k},{int(k == 1)}" for n in range(30) for k in (1, 2)]
    (shop / "log.csv").write_text("\n".join(["list_id,item,position,clicked", *rows]))
    done = dayjob(*words(shop))
    assert done.status == 2, done.out
    assert remedy in done.err
    assert "Traceback" not in done.err
    assert done.out == "" or words(shop)[0] == "audit"


@pytest.mark.parametrize("name", ["control.db", "journal.db"])
def test_a_damaged_database_is_an_error_with_its_remedy(dayjob: Command, shop: Path, name: str) -> None:
    for one in shop.glob(f"{name}*"):
        one.unlink()
    (shop / name).write_bytes(os.urandom(50_000))
    done = dayjob("export", "shop", "--data", shop)
    assert done.status == 2
    assert "restore it from a backup" in done.err


def test_a_served_directory_takes_nothing_in(dayjob: Command, shop: Path, tmp_path: Path) -> None:
    dayjob("export", "shop", "--data", shop, "--format", "journal", "--out", tmp_path / "a")
    from dayjob.journal.store import _lock

    held = _lock(shop)
    done = dayjob("import", "journal", tmp_path / "a", "--data", shop)
    os.close(held)
    assert done.status == 2
    assert "another server already serves" in done.err


def test_a_port_that_is_taken_is_told_with_its_remedy(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "dayjob", "serve", "--data", str(tmp_path / "data"), "--port", port]
        done = subprocess.run([*command, "--no-learner", "--no-judge"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "the port is taken" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_pipe_that_closes_early_is_no_error(shop: Path) -> None:
    command = f"{sys.executable} -m dayjob export shop --data {shop} | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["policy"] == "shop"
    assert "Traceback" not in done.stderr


def test_every_command_explains_itself(dayjob: Command) -> None:
    for name in COMMANDS:
        done = dayjob(name, "--help")
        assert done.status == 0
        assert "Usage:" in done.out
