"""A stranger's file: what is understood, and what is refused with the line and the remedy."""

import contextlib
import gzip
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dayjob.endings import Invalid
from dayjob.signals.logfile import read_log


def write(folder: Path, text: str, name: str = "log.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_csv_rows_of_a_list_may_come_in_any_order(tmp_path: Path) -> None:
    text = "list_id,item,position,clicked,user,score\na,x,1,0,u,0.2\nb,x,1,1,v,0.5\na,y,2,1,u,0.9\n"
    file = read_log(write(tmp_path, text))
    assert file.log.item_BK.tolist() == [[0, 1], [0, -1]]
    assert file.log.click_B.tolist() == [1, 0]
    assert file.log.user_B.tolist() == [0, 1]
    assert file.log.first_B.tolist() == [1, 0]  # highest score
    assert np.isnan(file.days)


def test_other_names_zero_based_positions_tabs_and_a_byte_order_mark(tmp_path: Path) -> None:
    text = "\ufeffQuery_ID\tSession\tDocument\tRank\tClick\nq\ts\td1\t0\tfalse\nq\ts\td2\t1\tTrue\nr\tt\td1\t0\t1\n"
    log = read_log(write(tmp_path, text)).log
    assert log.click_B.tolist() == [1, 0]
    assert log.item_BK[0, 0] != log.item_BK[1, 0]  # the same document for another query is another item


def test_jsonl_says_the_same_as_csv(tmp_path: Path) -> None:
    lines = [
        {
            "shown": ["a", "b"],
            "clicked": "b",
            "user": 7,
            "scores": [0.5, 0.1],
            "at": "2026-11-20T00:00:00Z",
            "first": "b",
        },
        {"shown": ["b", "a"], "clicked": 1, "at": "2026-11-22T12:00:00+00:00", "explored": True, "truth": "a"},
        {"shown": ["c"], "clicked": None, "at": "2026-11-21T00:00:00Z", "reward": 0.5},
        {"shown": ["a", "c"], "clicked": ["a", "c"], "at": "2026-11-22T00:00:00Z", "propensity": [0.5, 1]},
    ]
    file = read_log(write(tmp_path, "\n".join(map(json.dumps, lines)) + "\n\n", "log.jsonl"))
    log = file.log
    assert file.days == 2.5
    assert log.item_BK.tolist() == [[0, 1], [2, -1], [0, 2], [1, 0]]  # in order of time
    assert log.click_BK.tolist() == [[False, True], [False, False], [True, True], [True, False]]
    assert log.intervened_B.tolist() == [False, False, False, True]
    assert log.truth_B.tolist() == [-1, -1, -1, 1]
    assert log.first_B.tolist() == [1, -1, -1, -1]
    assert log.reward_B[1] == 0.5
    assert log.propensity_BK[2].tolist() == [0.5, 1.0]


def test_numbers_as_ids_are_ids(tmp_path: Path) -> None:
    log = read_log(
        write(tmp_path, '{"shown": [30, 10, 20], "clicked": 10}\n{"shown": [1, 2], "position": 2}', "l.jsonl")
    ).log
    assert log.click_B.tolist() == [1, 1]


def test_slots_without_lists_stand_alone(tmp_path: Path) -> None:
    file = read_log(write(tmp_path, "item_id,position,click,propensity_score\n4,1,0,.1\n4,3,1,.1\n"))
    assert file.log.item_BK.tolist() == [[0, -1, -1], [-1, -1, 0]]
    assert "every row" in file.notes[0]


def test_gzip_and_progress(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"shown": ["a"], "clicked": "a"}\n'))
    told: list[int] = []
    assert len(read_log(path, told.append).log) == 1
    assert told[-1] == path.stat().st_size


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no column for item, position, clicked"),
        ("a,b\n1,2\n", "list_id,item,position,clicked"),
        ("list,item,position,clicked\n", "holds no list"),
        ("list,item,position,clicked\na,x,1\n", "line 2 has 3 columns"),
        ("list,item,position,clicked\na,x,one,0\n", "line 2: position 'one' is no number"),
        ("list,item,position,clicked\na,x,,0\n", "line 2: position '' must be a whole number"),
        ("list,item,position,clicked\na,x,1.5,0\n", "line 2: position '1.5' must be a whole number"),
        ("list,item,position,clicked\na,x,1,maybe\n", "line 2: clicked 'maybe' must be 0 or 1"),
        ("list,item,position,clicked,score\na,x,1,0,nan\n", "line 2: score 'nan' must be a finite number"),
        ("list,item,position,clicked\na,x,1,0\na,y,1,0\n", "list 'a' has two items at position 1"),
        ("list,item,position,clicked,at\na,x,1,0,noon\n", "line 2: time 'noon' is neither"),
        ('{"shown": ["a"], "clicked": "a"}\n{', "line 2 is no JSON"),
        ('{"shown": []}', 'line 1: "shown" must be the list of ids'),
        ('{"shown": ["a"], "clicked": "b"}', "neither an id in"),
        ('{"shown": ["a"], "clicked": 2}', "nor a position from 1 to 1"),
        ('{"shown": ["a"], "clicked": true}', "line 1: clicked True"),
        ('{"shown": ["a", null]}', "must be text or a number"),
        ('{"shown": ["a"], "scores": [1, 2]}', "one number for each of the 1 items"),
        ('{"shown": ["a"]}\n[1]', "line 2 is no object"),
    ],
)
def test_what_makes_no_sense_is_refused_with_line_and_remedy(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(Invalid) as refused:
        read_log(write(tmp_path, text))
    assert words in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="is no file"):
        read_log(tmp_path / "nothing.csv")


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_no_bytes_whatever_raise_anything_but_invalid(lines: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        path.write_bytes(b"\n".join(lines))
        with contextlib.suppress(Invalid):
            assert len(read_log(path).log) > 0


def test_an_export_says_whose_order_it_was_and_what_a_coin_compared(tmp_path: Path) -> None:
    row = {
        "ranking": [{"id": "b", "propensity": 0.5}, {"id": "a", "propensity": 1.0}], "candidates": ["a", "b"],
        "score": [0.3, 0.1], "user": None, "at": "2026-11-20T09:00:00Z", "intervened": False, "outcomes": [],
        "version": "v0", "challenger": "v1",
    }  # fmt: skip
    rows = [row | {"coin": 1}, row | {"coin": -1}, row | {"coin": 0}, row | {"coin": 0, "version": "v1"}]
    log = read_log(write(tmp_path, "\n".join(json.dumps(one) for one in rows), "log.jsonl")).log
    assert (log.rival_B == np.array([log.item_BK[0, 0], log.item_BK[0, 1], -1, -1])).all()
    assert len(set(log.order_B.tolist())) == 3, "one comparison, and two versions alone"
    assert log.order_B[0] == log.order_B[1]
