"""What every benchmark writes: intervals by hand, marks for missing seeds, files whole."""

import importlib
import json
import re

import pytest

from dayjob.lab import figures
from dayjob.lab.figures import code_mark, interval, keep, machine, markdown, percent, write

# Modules that write a table, and the name under which each has the folders that decide about it.
BENCHES = {
    path.stem: found[1]
    for path in figures.PACKAGE.glob("lab/*.py")
    if (found := re.search(r"\bwrite\((?:(?!\n\S).)*?code=(\w+)", path.read_text(), re.S)) and path.stem != "figures"
}


def test_interval_by_hand():
    """Two values 1 apart from their mean: sd sqrt 2, divided by sqrt 2, times t(.975, 1) = 12.706."""
    assert interval([1.0, 3.0]) == {"mean": 2.0, "half": pytest.approx(12.706, abs=1e-2), "seeds": 2}
    # five values: t(.975, 4) = 2.776; sd of 1..5 is sqrt 2.5
    assert interval([1, 2, 3, 4, 5])["half"] == pytest.approx(2.776 * 2.5**0.5 / 5**0.5, abs=1e-3)


def test_cells_with_fewer_seeds_are_marked():
    three = interval([-0.1, -0.12, -0.14])
    assert percent(three, of=3) == "-12.0 ±5.0"
    assert percent(three, of=5) == "-12.0 ±5.0 (3)"
    assert percent(interval([0.25]), of=2, signed=False) == "25.0 (1)"


def test_markdown_takes_columns_as_they_come():
    rows = [{"a": "x", "b": 1234}, {"a": "y", "c": 0.25}]
    assert markdown(rows).splitlines() == [
        "| a | b | c |", "|---|---|---|", "| x | 1,234 |  |", "| y |  | 0.25 |",
    ]  # fmt: skip


def test_a_page_says_where_its_numbers_are_from(tmp_path):
    result = {"command": "dayjob lab x --seeds 2", "machine": machine(), "seeds": [0, 1], "quick": True}
    write(tmp_path, "x", result=result, page=["## Part"], code=("lab",), plot=lambda path: path.write_bytes(b"plot"))
    page = (tmp_path / "x.md").read_text()
    assert "`dayjob lab x --seeds 2`" in page
    assert machine() in page
    assert "seeds 0, 1" in page
    assert "Not to be quoted" in page
    assert "![x](x.png)" in page
    assert json.loads((tmp_path / "x.json").read_text()) == result | {"code": code_mark("lab")}
    assert (tmp_path / "x.png").read_bytes() == b"plot"


def test_a_piece_is_whole_or_not_there(tmp_path):
    path = tmp_path / "pieces" / "one.json"
    keep(path, {"a": 1})
    with pytest.raises(TypeError):
        keep(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [one.name for one in path.parent.iterdir()] == ["one.json"]


def test_the_mark_of_the_code_tells_folders_apart():
    assert code_mark("lab") == code_mark("lab") != code_mark("lab", "gate")
    assert len({code_mark(one) for one in ("learn", "learn/**", "learn/language", ".", "apps/clerk")}) == 5
    for wrong in ("learning", "apps/nothing"):
        with pytest.raises(ValueError, match=f"no source in '{wrong}'"):
            code_mark(wrong)


def test_the_mark_changes_with_one_line_in_a_folder_and_below(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "PACKAGE", tmp_path)
    (tmp_path / "learn" / "language").mkdir(parents=True)
    for path in ("learn/fit.py", "learn/language/night.py"):
        (tmp_path / path).write_text("a = 1\n")
    before = code_mark("learn"), code_mark("learn/**")
    (tmp_path / "learn/language/night.py").write_text("a = 2\n")
    assert (code_mark("learn") == before[0], code_mark("learn/**") == before[1]) == (True, False)
    (tmp_path / "learn/fit.py").write_text("a = 2\n")
    assert code_mark("learn") != before[0]


@pytest.mark.parametrize("bench", sorted(BENCHES))
def test_every_table_names_folders_that_there_are(bench):
    folders = getattr(importlib.import_module(f"dayjob.lab.{bench}"), BENCHES[bench])
    assert "lab" in folders
    assert code_mark(*folders)
