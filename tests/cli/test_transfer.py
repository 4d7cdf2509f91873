"""What is exported can be taken in again: the same decisions, outcomes, vectors and catalog, in the same places."""

import base64
import gzip
import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow.parquet import read_table
from starlette.testclient import TestClient

from dayjob.cli.serve import assemble
from dayjob.config import Config
from dayjob.journal.control import Control
from dayjob.journal.readers import Reader
from dayjob.journal.rows import connect
from dayjob.serve.app import create_app
from tests.cli.conftest import Command
from tests.serve.test_export import parsed

# What of the journal belongs to one policy, in an order of its own.
RECORD = (
    "SELECT * FROM decisions WHERE policy='shop' ORDER BY seq",
    "SELECT * FROM outcomes WHERE policy='shop' ORDER BY seq",
    "SELECT * FROM catalogs WHERE policy='shop' ORDER BY ordinal",
    "SELECT * FROM counts WHERE policy='shop' ORDER BY what",
)


def record(root: Path) -> list[list[tuple[Any, ...]]]:
    db = connect(root / "journal.db", write=False)
    rows = [db.execute(one).fetchall() for one in RECORD]
    needed = {row[19][n : n + 16] for row in rows[0] for n in range(0, len(row[19]), 16)} | {row[4] for row in rows[2]}
    vectors = db.execute("SELECT tenant, digest, vector FROM vectors ORDER BY digest").fetchall()
    rows.append([row for row in vectors if row[1] in needed])
    db.close()
    return rows


@pytest.fixture
def archive(dayjob: Command, shop: Path, tmp_path: Path) -> Path:
    file = tmp_path / "shop.ndjson"
    done = dayjob("export", "shop", "--data", shop, "--format", "journal", "--out", file, "--json")
    assert done.status == 0, done.err
    assert done.json["bytes"] == file.stat().st_size
    return file


def test_an_archive_gives_the_same_journal(dayjob: Command, shop: Path, archive: Path, tmp_path: Path) -> None:
    done = dayjob("import", "journal", archive, "--data", tmp_path / "new", "--json")
    assert done.status == 0, done.err
    before, after = record(shop), record(tmp_path / "new")
    assert [len(rows) for rows in before] == [20, 40, 9, 7, 17], "there is something of everything"
    assert after == before
    assert done.json == {
        "policy": "shop", "data": str(tmp_path / "new"), "added": 60, "known": 0, "erased": 0, "catalog": 9,
    }  # fmt: skip
    old, new = Control(shop), Control(tmp_path / "new")
    assert new.policy("default", "shop").spec == old.policy("default", "shop").spec
    assert new.silent_people() == {("default", "u1")}, "who is not learned from stays so"
    assert dayjob("export", "shop", "--data", tmp_path / "new", "--format", "journal").out == archive.read_text()


def test_taking_in_twice_changes_nothing(dayjob: Command, archive: Path, tmp_path: Path) -> None:
    dayjob("import", "journal", archive, "--data", tmp_path / "new")
    before = record(tmp_path / "new")
    done = dayjob("import", "journal", archive, "--data", tmp_path / "new", "--json")
    assert (done.json["added"], done.json["known"]) == (0, 60)
    assert record(tmp_path / "new") == before


def test_two_policies_come_into_one_journal_in_any_order(
    dayjob: Command, shop: Path, archive: Path, tmp_path: Path
) -> None:
    other, new = tmp_path / "other.ndjson", tmp_path / "new"
    dayjob("export", "other", "--data", shop, "--format", "journal", "--out", other)
    for file in (archive, other):
        done = dayjob("import", "journal", file, "--data", new)
        assert done.status == 0, done.err
    db = connect(new / "journal.db", write=False)
    query = "SELECT seq FROM decisions UNION ALL SELECT seq FROM outcomes"
    seqs = [row[0] for row in db.execute(query)]
    assert len(seqs) == len(set(seqs)) == 60 + 8, "no place is taken twice"
    assert db.execute("SELECT n FROM counts WHERE what='seq'").fetchall() == [(max(seqs),)]
    db.close()
    assert record(new)[0] == record(shop)[0], "the first in keeps its places"


def test_what_was_erased_does_not_come_back_with_an_archive(dayjob: Command, shop: Path, archive: Path) -> None:
    with TestClient(create_app(assemble(Config(data=shop), ())), base_url="http://127.0.0.1") as client:
        assert client.delete("/v1/users/u2").status_code == 200
    before = record(shop)
    assert {row[5] for row in before[0]} == {"u0", "u1", "u3"}
    done = dayjob("import", "journal", archive, "--data", shop, "--json")
    assert done.status == 0, done.err
    assert done.json["added"] == 0
    assert done.json["erased"] > 5
    assert record(shop)[:2] == before[:2]
    renamed = archive.with_name("renamed.ndjson")
    lines = [json.loads(line) for line in archive.read_text().splitlines()]
    for line in lines:
        if "outcome" in line:
            line["outcome"]["id"] = str(uuid.uuid4())
    renamed.write_text("\n".join(map(json.dumps, lines)))
    again = dayjob("import", "journal", renamed, "--data", shop, "--json").json
    theirs = sum("decision" in line and line["decision"]["user"] == "u2" for line in lines)
    assert again["known"] == 20 - theirs
    assert again["erased"] > theirs, "nor does anything new that is said of it"
    assert {row[5] for row in record(shop)[1]} & {row[3] for row in record(shop)[0]} != set()
    gone = {line["decision"]["id"] for line in lines if "decision" in line and line["decision"]["user"] == "u2"}
    assert not gone & {row[5] for row in record(shop)[1]}


def damage(lines: list[str], how: str) -> list[str]:
    first = next(n for n, line in enumerate(lines) if line.startswith('{"decision"'))
    body = json.loads(lines[first])["decision"]
    match how:
        case "cut short":
            return lines[:-1]
        case "half a line":
            return [*lines[:-2], lines[-2][:50]]
        case "a line twice":
            return [*lines[: first + 1], lines[first], *lines[first + 1 :]]
        case "a line left out":
            return lines[:first] + lines[first + 1 :]
        case "no vectors":
            return [line for line in lines if not line.startswith('{"vector"')]
        case "a number as text":
            return [*lines[:first], json.dumps({"decision": body | {"at_ms": "now"}}), *lines[first + 1 :]]
        case "a newer format":
            return [lines[0].replace('"format":1', '"format":2'), *lines[1:]]
        case "a made-up role":
            return [*lines[:first], json.dumps({"decision": body | {"role": "oracle"}}), *lines[first + 1 :]]
    return [json.dumps({"hello": "world"})]


@pytest.mark.parametrize(
    "how",
    ["cut short", "half a line", "a line twice", "a line left out", "no vectors", "a number as text",
     "a newer format", "a made-up role", "another file"],
)  # fmt: skip
def test_a_file_that_is_not_whole_changes_nothing_and_is_told_by_its_line(
    dayjob: Command, archive: Path, tmp_path: Path, how: str
) -> None:
    bad = tmp_path / "bad.ndjson"
    bad.write_text("\n".join(damage(archive.read_text().splitlines(), how)))
    done = dayjob("import", "journal", bad, "--data", tmp_path / "new")
    assert done.status == 2
    assert "line " in done.err
    assert "export POLICY --format journal" in done.err
    assert not (tmp_path / "new").exists()


def b64(*values: float, dtype: str) -> str:
    return base64.b64encode(np.array(values, dtype).tobytes()).decode()


FORGED = {
    "a policy that counts in text": ("policy", "spec", {"learn_every": "often"}, "learn_every"),
    "a policy without a dimension": ("policy", "spec", {"context_dim": None}, "context_dim"),
    "a policy of another kind of metric": ("policy", "spec", {"metric": "luck"}, "metric"),
    "a policy whose range falls": ("policy", "spec", {"reward_range": [1, 0]}, "reward_range"),
    "a policy with a path for a name": ("policy", "name", "../up", "name"),
    "a slot that is no candidate": ("decision", "ranking", b64(0, 1, 99, dtype="<u2"), "ranking"),
    "a slot twice": ("decision", "ranking", b64(0, 0, 1, dtype="<u2"), "ranking"),
    "nothing shown": ("decision", "ranking", "", "propensity"),
    "half a slot": ("decision", "ranking", base64.b64encode(b"x").decode(), "ranking"),
    "fewer scores than candidates": ("decision", "score", b64(1.0, dtype="<f8"), "score"),
    "a base that is not finite": ("decision", "base", None, "finite"),
    "a propensity of nothing": ("decision", "propensity", None, "propensity"),
    "a context of another length": ("decision", "context", b64(1.0, dtype="<f4"), "context"),
    "a pair of another width": ("decision", "pair", b64(1.0, dtype="<f4"), "pair"),
    "a rival of another width": ("decision", "rival_score", b64(1.0, dtype="<f8"), "rival_score"),
    "places of others": ("decision", "extra", {"latlon": [[0.0, 0.0]]}, "latlon"),
    "losses that are text": ("decision", "extra", {"loss": [["x"]]}, "line"),
    "an id that is none": ("decision", "id", "me", "line"),
    "a user with a line break": ("decision", "user", "a\nb", "name"),
    "a probability of two": ("decision", "role_propensity", 2.0, "role_propensity"),
    "a time before time": ("decision", "at_ms", -1, "at_ms"),
    "a vector of another length": ("vector", "bytes", base64.b64encode(b"12345").decode(), "vector"),
    "an outcome at no position": ("outcome", "position", 99, "position"),
    "an outcome of nothing": ("outcome", "decision", str(uuid.UUID(int=5)), "no line before"),
}


@pytest.mark.parametrize("how", FORGED)
def test_an_archive_is_not_believed(dayjob: Command, archive: Path, tmp_path: Path, how: str) -> None:
    """What could not have been made here is told by its line, and changes nothing."""
    kind, field, value, words = FORGED[how]
    lines = [json.loads(line) for line in archive.read_text().splitlines()]
    number, body = next((n, one[kind]) for n, one in enumerate(lines) if kind in one)
    if how == "a base that is not finite":
        value = b64(*[np.inf] * len(body["candidates"]), dtype="<f8")
    if how == "a propensity of nothing":
        value = b64(*[0.0] * (len(base64.b64decode(body["ranking"])) // 2), dtype="<f8")
    body[field] = body[field] | value if field == "spec" else value
    if how == "an outcome at no position":
        body.update(item=None, kind="click")
    bad = tmp_path / "bad.ndjson"
    bad.write_text("\n".join(map(json.dumps, lines)))
    done = dayjob("import", "journal", bad, "--data", tmp_path / "new")
    assert done.status == 2, done.out
    assert f"line {number + 1} " in done.err
    assert words in done.err
    assert not (tmp_path / "new" / "journal.db").exists()


def test_an_export_to_be_read_has_a_line_a_decision_and_is_not_for_importing(
    dayjob: Command, shop: Path, tmp_path: Path
) -> None:
    done = dayjob("export", "shop", "--data", shop)
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert len(rows) == 20
    assert {"click", "thumb", "reward", "truth", "none", "retract"} == {
        one["kind"] for row in rows for one in row["outcomes"]
    }
    columns = tmp_path / "shop.parquet"
    assert (
        dayjob("export", "shop", "--data", shop, "--format", "parquet", "--out", columns, "--json").json["records"]
        == 20
    )
    assert [parsed(row) for row in read_table(columns).to_pylist()] == rows
    (tmp_path / "read.ndjson").write_text(done.out)
    refused = dayjob("import", "journal", tmp_path / "read.ndjson", "--data", tmp_path / "new")
    assert refused.status == 2
    assert "--format journal" in refused.err


def test_a_policy_of_other_dimensions_is_not_mixed_in(dayjob: Command, shop: Path, archive: Path) -> None:
    control = Control(shop)
    control.update_spec("default", "shop", control.policy("default", "shop").spec | {"candidate_dim": 7})
    done = dayjob("import", "journal", archive, "--data", shop)
    assert done.status == 2
    assert "candidate_dim 7" in done.err


def test_an_export_that_cannot_be_written_leaves_no_file(dayjob: Command, shop: Path, tmp_path: Path) -> None:
    done = dayjob("export", "shop", "--data", shop, "--out", tmp_path / "nowhere" / "x")
    assert done.status == 2
    assert "No such file or directory; check the path" in done.err
    assert "Traceback" not in done.err


# ---- the Open Bandit sample --------------------------------------------------------------------------------------


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """Three rows in the sample's own columns."""
    folder = tmp_path / "obd"
    folder.mkdir()
    (folder / "random_men_items.csv").write_text(
        "item_id,item_feature_0,item_feature_1\n0,-0.5,red\n1,0.25,blue\n2,1.5,red\n"
    )
    rows = (
        "timestamp,item_id,position,click,propensity_score,user_feature_0,user_feature_1,user_feature_2,user_feature_3",
        "2019-11-24 00:00:01+00:00,1,1,1,0.25,a,x,p,q",
        "2019-11-24 00:00:02+00:00,2,3,0,0.5,b,x,p,q",
        "2019-11-24 00:00:03+00:00,0,2,0,0.25,a,y,p,q",
    )
    with gzip.open(folder / "random_men.csv.gz", "wt") as file:
        file.write("\n".join(rows) + "\n")
    return folder


def test_the_open_bandit_sample_becomes_a_journal_with_its_propensities(
    dayjob: Command, sample: Path, tmp_path: Path
) -> None:
    for _ in range(2):  # the ids derive from file and line: a second import adds nothing
        done = dayjob("import", "obd", sample, "--data", tmp_path / "new", "--json")
        assert done.status == 0, done.err
        assert done.json["policies"] == ["obd-random-men"]
    reader = Reader(tmp_path / "new")
    rows = [stored.record for stored in reader.decisions("default", "obd-random-men")[0]]
    assert [row.candidates[np.frombuffer(row.ranking, "<u2")[0]].id for row in rows] == ["1", "2", "0"]
    assert [np.frombuffer(row.propensity, "<f8")[0] for row in rows] == [0.25, 0.5, 0.25]
    assert [row.extra["place"] for row in rows] == [1, 3, 2]
    assert all(row.intervened for row in rows), "the random policy's first places are draws"
    assert reader.counts("default", "obd-random-men") == {"decisions": 3, "click": 1, "none": 2}
    [blue] = reader.get_many("default", [rows[0].candidates[1].digest], dim=3)
    assert blue.tolist() == [0.25, 1.0, 0.0], "numbers as they are, a dimension for each other value: blue, red"


def test_a_sample_without_its_items_is_told(dayjob: Command, sample: Path, tmp_path: Path) -> None:
    (sample / "random_men_items.csv").unlink()
    done = dayjob("import", "obd", sample, "--data", tmp_path / "new")
    assert done.status == 2
    assert "random_men_items.csv is missing" in done.err
