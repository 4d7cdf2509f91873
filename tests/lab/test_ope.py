"""The real Open Bandit sample: into a journal by `dayjob import obd`, and estimated by `dayjob lab ope`."""

import csv
import gzip
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from dayjob.cli import app
from dayjob.journal.readers import START, Reader
from dayjob.lab import ope

ROWS = 2_000  # of ten thousand: as many as a quick test needs
SAMPLE = Path(os.environ.get("DAYJOB_OBD") or Path(__file__).parents[3] / "shared" / "data" / "obd")

needs_sample = pytest.mark.skipif(
    not (SAMPLE / "bts_men.csv.gz").exists(),
    reason="no Open Bandit sample here: put the files of st-tech/zr-obp's folder obd somewhere, set DAYJOB_OBD to it",
)


@needs_sample
def test_the_sample_becomes_a_journal(tmp_path):
    shutil.copy(SAMPLE / "bts_men_items.csv", tmp_path)
    with gzip.open(SAMPLE / "bts_men.csv.gz", "rt") as whole, gzip.open(tmp_path / "bts_men.csv.gz", "wt") as part:
        part.writelines(line for line, _ in zip(whole, range(ROWS + 1), strict=False))
    done = CliRunner().invoke(app, ["import", "obd", str(tmp_path), "--data", str(tmp_path / "data"), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["policies"] == ["obd-bts-men"]
    with gzip.open(tmp_path / "bts_men.csv.gz", "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    reader = Reader(tmp_path / "data")
    counts = reader.counts("default", "obd-bts-men")
    assert counts["decisions"] == len(rows) == ROWS
    assert counts["click"] == sum(row["click"] == "1" for row in rows) > 0
    kept, cursor = [], START
    while page := reader.decisions("default", "obd-bts-men", cursor=cursor):
        stored, cursor = page
        if not stored:
            break
        kept += [one.record for one in stored]
    for decision, row in zip(kept[::97], rows[::97], strict=True):
        shown = decision.candidates[int(np.frombuffer(decision.ranking, "<u2")[0])]
        assert shown.id == row["item_id"]
        assert np.frombuffer(decision.propensity, "<f8")[0] == float(row["propensity_score"])
    assert len(kept) == len(rows)


@needs_sample
def test_the_sample_is_estimated_within_the_published_spread(tmp_path):
    result = ope.run([0], SAMPLE, tmp_path, quick=True)
    rows = {(row["campaign"], row["direction"], row["estimator"]): row for row in result["open_bandit"]}
    for campaign in ope.CAMPAIGNS:
        for name in ope.PUBLISHED:
            assert rows[campaign, "random to bts", name]["within it?"] == "yes"
        # some 20 clicks are left: no difference of a tenth of a per cent can be told
        assert rows[campaign, "random to bts", "DR"]["better than the log?"] == "cannot tell"
    lost = rows["women", "bts to random", "IPS"]  # one impression weighs as much as twenty thousand
    assert lost["effective"] < 10
    assert lost["better than the log?"] == "cannot tell"
    # Thompson sampling earned .0069 against .0046 of the random policy: of some 15 clicks that much can be seen
    assert rows["men", "bts to random", "SNIPS"]["better than the log?"] == "no"
    page = (tmp_path / "ope.md").read_text()
    assert "6 of 6 errors here lie within" in page
    assert (tmp_path / "ope.png").stat().st_size > 10_000
    assert json.loads((tmp_path / "ope.json").read_text())["command"] == "dayjob lab ope FOLDER --seeds 1 --quick"


def test_the_published_spread_is_two_standard_deviations():
    row = {"estimator": "DM", "relative error": 0.18 + 1.99 * 0.115}
    assert ope._published(row, "random to bts")["within it?"] == "yes"
    assert ope._published(row | {"relative error": 0.42}, "random to bts")["within it?"] == "no"
    assert ope._published(row, "bts to random")["within it?"] == ""
    assert ope._published(row | {"estimator": "SNDR"}, "random to bts")["within it?"] == ""
