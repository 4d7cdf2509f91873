"""What the benchmarks of practice make of their pieces: thresholds, pages, pieces that are not run twice."""

from dataclasses import replace
from pathlib import Path

import pytest

from dayjob.endings import Invalid
from dayjob.lab import practice_credit, practice_pieces, practice_states
from dayjob.lab.practice_credit import page as credit_page
from dayjob.lab.practice_ground import Tasks
from dayjob.lab.practice_page import page as practice_page
from dayjob.lab.practice_page import plot
from dayjob.lab.practice_pieces import Bench, Piece
from dayjob.lab.practice_run import HOPELESS, NEAR, run
from dayjob.lab.practice_stale import page as stale_page
from dayjob.lab.practice_stale import thresholds
from dayjob.learn.practice.course import Practised
from dayjob.learn.practice.recipe import CREDITS, PracticeRecipe
from dayjob.practice.protocol import Direction
from dayjob.practice.registry import make


def piece(before: float, after: float, *, kl: float = 0.0, last: float | None = None) -> dict:
    """The figures of a course of two steps."""
    return {
        "before": before, "after": after, "last": after if last is None else last, "best_step": 2, "cpu_s": 3.0,
        "looks": [{"step": 0, "judge": before}, {"step": 2, "judge": after}],
        "greedy": [before / 2, after / 2], "served": {"20 turns": {"after": 0.1}},
        "curve": {"kl_behaviour": [kl, kl], "sample_size": [1.0, 0.5], "practice/dropped": [None, 0.25],
                  "anchor/kl": [0.0, 0.02], "bits": [0.5, 0.7], "turns": [6.0, 7.0]},
        "peak_mb": 500.0,
    }  # fmt: skip


STALE = {
    "plain": {0: [piece(0.1, 0.6)], 16: [piece(0.1, 0.4, kl=0.2)]},
    "cispo": {16: [piece(0.1, 0.5, kl=0.1)]},
    "dppo_tv": {16: [piece(0.1, 0.58, kl=0.05)]},
    "auto": {16: [piece(0.1, 0.59, kl=0.05)]},
}


def test_thresholds_are_read_off_what_plain_loses():
    found = thresholds(STALE)
    assert found["16"] == pytest.approx({"kl": 0.2, "plain loses": 0.2, "best": "dppo_tv", "best loses": 0.02})
    assert found["0"]["plain loses"] == 0.0


def test_the_page_of_staleness_compares_with_fresh_attempts():
    result = {"rows": STALE, "seeds": [0], "lags": [0, 16], "family": "x", "steps": 2, "rate": 1e-3,
              "thresholds": thresholds(STALE), "codes": ["a"]}  # fmt: skip
    text = "\n".join(stale_page(result))
    assert "| plain policy gradient | 60.0 | 40.0 | -20.0 |" in text
    assert "| chosen by measured staleness (the default) | 60.0 | 59.0 | -1.0 |" in text
    assert "| DPPO-TV | 0.05 | 0.75 | 0.25 |" in text
    assert "+50.0" in text


def test_the_page_of_practice_tells_gains_failures_and_what_was_tried(tmp_path: Path):
    result = {
        "seeds": [0, 1], "judge": 10, "tries": 2, "steps": 2, "groups": 1, "attempts": 2, "range": [0.05, 0.6],
        "lift": {"starts": {"a": 0.2, "b": 0.9}, "rows": {"a": [piece(0.2, 0.5), piece(0.2, 0.5)]},
                 "curated": {"code, easy, curated": {"start": 0.0, "steps": 200, "solutions": 64}}},
        "nines": {"starts": {}, "rows": {"b": [piece(0.99, 0.998), piece(0.99, 0.998)]}, "nearly": 0.85,
                  "temperature": 0.5, "judge": 1000, "tries": 2},
        "zero": {"starts": {"c": 0.3}, "rows": {}}, "codes": ["a"],
    }  # fmt: skip
    text = "\n".join(practice_page(result))
    assert "| a | 20.0 ±0.0 | 50.0 ±0.0 | +30.0 ±0.0 | 50.0 ±0.0 | 10.0 ±0.0 | 25.0 ±0.0 | 0.020 | 0.60 | 3 |" in text
    assert "| b | 90 |" in text
    assert "| 10 | 2 |" in text  # failures in a thousand
    assert "No task begins where this part needs it." in text
    assert "between 5% and 60% is practised" in text
    assert "temperature of 0.5, this part takes the one that begins highest, from 85% on; 1000 tasks" in text
    assert "`code, easy, curated` begins at 0.0%" in text
    assert "only after a warm start of 200 supervised steps on 64 curated solutions" in text
    assert "states of the code" not in text
    mixed = "\n".join(practice_page(result | {"codes": ["a", "b"]}))
    assert mixed.endswith("The pieces were made by 2 states of the code: run them again.")
    plot(result, tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 1000


def test_the_page_tells_what_a_teacher_is_worth_and_what_it_costs():
    taught = piece(0.0, 0.1)
    taught["curve"] |= {"teacher_tokens": [300.0, 0.0], "teacher_gain": [0.5, 0.0], "tokens": [0.0, 100.0]}
    result = {
        "seeds": [0], "judge": 10, "tries": 2, "steps": 2, "groups": 1, "attempts": 2, "range": [0.05, 0.6],
        "zero": {"starts": {}, "rows": {"alone": [piece(0.0, 0.0)], "taught": [taught]}}, "codes": ["a"],
    }  # fmt: skip
    text = "\n".join(practice_page(result))
    assert "| alone | 0.0 | 0.0 | +0.0 | 0.0 | 0.0 | 0.0 | - | - | 0.020 |" in text
    assert "| taught | 0.0 | 10.0 | +10.0 | 10.0 | 0.0 | 5.0 | +0.50 | 75% | 0.020 |" in text


def test_before_is_after_the_warm_start_and_after_at_the_best_look():
    looks = tuple({"step": step, "warmed": warmed, "judge": judge, "greedy": judge / 2} for step, warmed, judge in
                  ((0, 0, 0.1), (0, 9, 0.4), (5, 9, 0.3)))  # fmt: skip
    one = Piece(name="x", spec={}, recipe=PracticeRecipe(), tasks=Tasks(), seed=0)
    for best, after in ((0, 0.1), (1, 0.4), (2, 0.3)):
        found = practice_pieces._told(one, Practised(best={}, last={}, best_look=best, curve=(), looks=looks))
        assert (found["before"], found["after"], found["last"]) == (0.4, after, 0.3)


def test_the_page_of_credit_compares_with_outcome_only():
    rows = {"5": {credit: [piece(0.3, 0.5 if credit == "outcome" else 0.6)] for credit in CREDITS}}
    memory = {"5": {"peak_mb": 500.0, "turns": 6.0}, "100": {"peak_mb": 550.0, "turns": 120.0}}
    result = {"rows": rows, "seeds": [0], "steps": 2, "context": 64, "memory": memory, "codes": ["a"]}
    text = "\n".join(credit_page(result))
    assert "run for this page: 5; what is served at other lengths was trained at these." in text
    assert "| process rewards | 30.0 | 60.0 | 10.0 | +10.0 | 3 |" in text
    assert "| 100 | 120 | 550 | 1.1 |" in text
    alone = "\n".join(credit_page(result | {"rows": {}}))
    assert "run for this page: none;" in alone
    assert "| 100 | 120 | 550 | 1.1 |" in alone
    assert "Peak resident memory" not in "\n".join(credit_page(result | {"memory": {}}))
    assert "2 states of the code" in credit_page(result | {"codes": ["a", "b"]})[-1]


def test_memory_is_measured_without_a_course(tmp_path: Path, monkeypatch):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    ran: list[tuple[str, bool]] = []

    def figures(self: Bench, given: Piece, *, alone: bool = False) -> dict:
        ran.append((given.name, alone))
        found = piece(0.1, 0.2) | {"code": "a"}
        practice_pieces.figures.keep(self.path(given), found)
        return found

    monkeypatch.setattr(Bench, "run", figures)
    monkeypatch.setattr(practice_credit, "Bench", OfFolder)
    settings = {"steps": 1, "trained": [5], "quick": True}
    practice_credit.run(range(1), tmp_path, tmp_path / "out", **settings, parts=["memory"])
    assert ran == [("memory-5", True), ("memory-8", True)]
    page = (tmp_path / "out" / "credit.md").read_text()
    assert "--parts memory" in page
    assert "| 8 | 7 | 500 | 1 |" in page
    practice_credit.run(range(1), tmp_path, tmp_path / "out", **settings, parts=["courses"])
    assert [name for name, _ in ran[2:]] == [*(f"{one}-5" for one in CREDITS), "memory-5", "memory-8"]
    assert "## Trained at 5 turns" in (tmp_path / "out" / "credit.md").read_text()
    with pytest.raises(Invalid, match="courses, memory"):
        practice_credit.run(range(1), tmp_path, tmp_path / "out", **settings, parts=["all"])


class OfFolder(Bench):
    """On any folder with weights."""

    @staticmethod
    def of(model: Path, out_dir: Path, *, name: str) -> Bench:
        return Bench(model=model, folder=out_dir / name)


def test_pieces_of_two_states_of_the_code_are_told_apart(tmp_path: Path, monkeypatch):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    one = Piece(name="a", spec={}, recipe=PracticeRecipe(), tasks=Tasks(), seed=0)
    for seed, code in enumerate(("first", "second")):
        monkeypatch.setattr(practice_pieces, "_figures", lambda *_, code=code: piece(0.1, 0.2) | {"code": code})
        bench = Bench(model=tmp_path, folder=tmp_path / "out")
        bench.run(replace(one, seed=seed))
        assert bench.codes == {code}
    bench = Bench(model=tmp_path, folder=tmp_path / "out")
    for seed in (0, 1):
        bench.run(replace(one, seed=seed))
    assert bench.codes == {"first", "second"}


def test_tasks_of_the_parts_are_what_their_names_say():
    for spec in (*HOPELESS.values(), *NEAR.values()):
        assert make(spec).reference(0)
    first = next(iter(HOPELESS.values()))
    easier = [one.spec for one in make(first).mutations() if one.direction is Direction.EASIER]
    assert {(one["words"], one["letters"]) for one in easier} >= {(2, 6), (3, 5)}  # rungs down to a word of four


def test_a_piece_that_was_run_is_not_run_again_and_another_is(tmp_path: Path, monkeypatch):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    bench = Bench(model=tmp_path, folder=tmp_path / "out")
    one = Piece(name="Some Task, easy", spec={"env": "x"}, recipe=PracticeRecipe(), tasks=Tasks(), seed=3)
    ran = []

    def figures(_: Bench, given: Piece) -> dict:
        ran.append(given)
        return piece(0.1, 0.2)

    monkeypatch.setattr(practice_pieces, "_figures", figures)
    assert bench.run(one) == bench.run(one) == piece(0.1, 0.2)
    assert ran == [one]
    assert bench.path(one).name.startswith("some-task-easy-3-")
    bench.run(replace(one, recipe=PracticeRecipe(steps=7)))
    (tmp_path / "model.safetensors").write_bytes(b"other")
    bench.run(one)
    assert len(ran) == 3


def test_a_part_that_there_is_not_is_refused(tmp_path: Path):
    with pytest.raises(Invalid, match="lift, zero, nines, warm"):
        run(range(1), ["all"], None, tmp_path, steps=1, quick=True)


def test_the_code_of_a_long_run_is_that_of_its_beginning(monkeypatch):
    """What is edited meanwhile is not what runs."""
    marks = iter("ab")
    monkeypatch.setattr(practice_states.figures, "code_mark", lambda *_: next(marks))
    try:
        assert [practice_states.mark("somewhere"), practice_states.mark("somewhere")] == ["a", "a"]
    finally:
        practice_states.mark.cache_clear()
