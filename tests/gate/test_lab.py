"""The laboratory judges with the gate's own code: its numbers are those of the live trial."""

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest

from dayjob.endings import Invalid
from dayjob.gate import confidence
from dayjob.gate.trial import TrialState, from_clicks, observe
from dayjob.lab.gate import in_a_row
from dayjob.lab.gate_rollback import Damage, rollback_rows
from dayjob.lab.gate_worlds import World, draw, judge
from dayjob.lab.ope import campaign_rows, digits_rows, read_obd

WORLD = World(name="test", gap=0.1, people=20)


def test_a_run_of_the_laboratory_is_a_live_trial() -> None:
    steps = 600
    outcome = judge(WORLD, steps=steps, level_R=np.array([1e-9]), reject_level=1e-9, rng=np.random.default_rng(5))
    # The same stream, drawn again, through the live trial one decision at a time.
    rng = np.random.default_rng(5)
    blind = rng.random((1, WORLD.people)) < WORLD.blind
    state = TrialState()
    for step in range(1, steps + 1):
        seen = draw(WORLD, blind, step=step, rng=rng)
        state = observe(state, from_clicks(seen.clicked_R, seen.coin_R.astype(np.int64), user_N=seen.slot_R))
    evidence = state.evidence
    assert outcome.effect_R[0] == pytest.approx(2.0 * evidence.sum_low / evidence.weight, rel=1e-12)
    assert evidence.weight < steps


def test_worlds_are_what_they_say() -> None:
    rng = np.random.default_rng(0)
    gap, pull = [], []
    for world in (World(name="seeing", gap=0.08, blind=0.0), World(name="half blind", gap=0.08)):
        blind = rng.random((4000, world.people)) < world.blind
        seen = [draw(world, blind, step=t, rng=rng) for t in range(60)]
        gap.append(np.mean([s.clicked_R.mean() for s in seen]))
        pull.append(np.mean([(s.clicked_R * s.coin_R).mean() for s in seen]))
    assert gap == pytest.approx([0.08, 0.08], abs=0.006)
    assert pull[0] == pytest.approx(0.0, abs=0.006)
    assert pull[1] == pytest.approx(0.65, abs=0.02)


def test_a_better_one_is_promoted_and_an_equal_one_is_not() -> None:
    level = np.full(60, 0.05)
    better = judge(
        World(name="better", gap=0.15, blind=0.3),
        steps=800,
        level_R=level,
        reject_level=0.05,
        rng=np.random.default_rng(1),
    )
    assert better.promoted_by(800) > 0.9
    equal = judge(World(name="equal"), steps=800, level_R=level, reject_level=0.05, rng=np.random.default_rng(2))
    assert equal.promoted_by(800) <= 0.1
    assert confidence.log_gain(np.zeros(3)).sum() == 0.0


def test_in_a_row_counts_discoveries() -> None:
    row = in_a_row("every fifth 8 points better", [0], runs=20, steps=40)
    assert 0.0 <= row["false discovery rate"] <= row["upper 97.5 %"]
    assert row["better ones promoted"] <= 1.0


def test_rollback_rows_time_the_damage() -> None:
    gross = Damage(name="gross", old=0.6, new=0.1, blind=0.0, pairs=0.3, after=1500, turn=300)
    none = Damage(name="none", old=0.5, new=0.5, blind=0.0, pairs=0.3, after=500)
    rows = rollback_rows((gross, none), seeds=[0], runs=3, alpha=0.05)
    assert rows[0]["within 2,000"] == 1.0
    assert 0 < rows[0]["median decisions"] <= 900
    assert rows[1]["false alarms"] == 0.0
    assert rows[1]["pairs shown"] == pytest.approx(0.3, abs=0.05)


def test_the_watch_looks_harder_when_harm_begins() -> None:
    """Pairs from a tenth of the traffic, more while evidence grows: sooner than a tenth alone, and quiet before."""
    late = {"old": 0.5, "new": 0.2, "blind": 0.0, "pairs": 0.1, "turn": 2000, "after": 1500, "holdback": 0.03}
    rows = rollback_rows(
        (Damage(name="constant", **late), Damage(name="adaptive", most=0.5, **late)), seeds=[0], runs=6, alpha=0.05
    )
    assert rows[1]["median decisions"] < 0.75 * rows[0]["median decisions"]
    assert rows[1]["false alarms"] == 0.0


def write_log(path: Path, *, share: np.ndarray, rate: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    with gzip.open(path, "wt", newline="") as file:
        out = csv.writer(file)
        out.writerow(["item_id", "position", "click", "propensity_score"])
        for _ in range(6000):
            item = int(rng.choice(share.size, p=share))
            out.writerow([item, int(rng.integers(1, 4)), int(rng.random() < rate[item]), float(share[item])])


def test_open_bandit_files_are_estimated_from_each_other(tmp_path: Path) -> None:
    uniform, skewed, rate = np.full(4, 0.25), np.array([0.55, 0.25, 0.15, 0.05]), np.array([0.3, 0.2, 0.1, 0.05])
    write_log(tmp_path / "random_men.csv.gz", share=uniform, rate=rate, seed=0)
    write_log(tmp_path / "bts_men.csv.gz", share=skewed, rate=rate, seed=1)
    rows = campaign_rows(tmp_path, "men", seed=0, draws=40)
    found = {(row["direction"], row["estimator"]): row for row in rows}
    for direction, better in (("random to bts", "yes"), ("bts to random", "no")):
        row = found[direction, "DR"]
        assert row["relative error"] < 0.1
        assert row["better than the log?"] == better
    with pytest.raises(Invalid, match="missing"):
        read_obd(tmp_path, policy="bts", campaign="women")


def test_digits_show_bias_and_coverage() -> None:
    rows = {row["estimator"]: row for row in digits_rows([0], logs=20)}
    assert abs(rows["SNIPS"]["relative bias"]) < 0.05
    assert rows["DM"]["relative bias"] < -0.3
    assert rows["SNIPS"]["coverage"] > 0.7
