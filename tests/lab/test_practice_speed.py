"""``dayjob lab environments``: what it measures is what it says, on a tiny environment."""

import asyncio
import json

from dayjob.endings import Invalid
from dayjob.lab import practice_speed
from dayjob.lab.practice_speed import Case, process_counts, runnable

COUNTING = Case("counting", {"env": "fake", "turns": 2}, 400)


def test_a_small_run_writes_its_page_its_numbers_and_its_plot(tmp_path, monkeypatch):
    monkeypatch.setattr(practice_speed, "CASES", (COUNTING, Case("none", {"env": "nothing"}, 9)))
    monkeypatch.setattr(practice_speed, "process_counts", lambda: (1, 2))
    practice_speed.run(tmp_path, rounds=3, quick=True)
    found = json.loads((tmp_path / "environments.json").read_text())
    (row,) = found["rows"]
    assert (row["tasks"], found["quick"], found["processes"]) == (8, True, [1, 2])
    assert len(row["here"]) == len(row["turn_by_turn"]) == len(row["there"]["2"]) == 2
    assert row["growth"] == [two / one for one, two in zip(row["there"]["1"], row["there"]["2"], strict=True)]
    assert [one["turns"] for one in found["turns"]] == [10, 100, 1_000]
    page = (tmp_path / "environments.md").read_text()
    assert "| counting |" in page
    assert "Not run: none (no environment is called 'nothing'" in page
    assert (tmp_path / "environments.png").stat().st_size > 1_000


def test_what_a_turn_costs_does_not_grow_with_what_lies_behind_it():
    """Counted in bytes, which no busy machine changes: what is kept of ten times the turns is ten times as much."""
    short, long = (asyncio.run(practice_speed.long_episode(turns)) for turns in (100, 1_000))
    assert long["bytes_a_turn"] < 1.2 * short["bytes_a_turn"]


def test_environments_that_this_machine_cannot_run_are_left_out_with_the_reason(monkeypatch):
    class Unsolvable(practice_speed.FakeEnvironment):
        def reference(self, seed):
            return super().reference(seed + 1)

    def make(spec):
        if spec["env"] == "bare":
            raise Invalid("needs bubblewrap: apt install bubblewrap")
        return practice_speed.FakeEnvironment() if spec["env"] == "fake" else Unsolvable()

    monkeypatch.setattr(practice_speed, "make", make)
    cases = [Case(name, {"env": name}, 1) for name in ("fake", "bare", "odd")]
    found, left_out = runnable(cases)
    assert [case.name for case in found] == ["fake"]
    assert left_out == {"bare": "needs bubblewrap: apt install bubblewrap", "odd": "done"}


def test_process_counts_double_up_to_the_cores():
    counts = process_counts()
    assert counts[0] == 1
    assert list(counts) == sorted(set(counts))
