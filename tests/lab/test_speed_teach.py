"""The step that is timed is a step: it learns, and TRL's trainers do the same work."""

import pytest
import torch

from dayjob.lab.speed_teach import QUICK_SIZES, Material, make_model, measure, our_step
from dayjob.learn.language.recipes import NightRecipe
from dayjob.learn.language.study import Study


@pytest.fixture
def folder(tmp_path):
    make_model(tmp_path / "model", QUICK_SIZES[0], seed=0)
    return tmp_path / "model"


@pytest.mark.parametrize("objective", ["SFT", "DPO"])
def test_the_step_moves_the_model_towards_what_it_is_taught(folder, objective):
    study = Study(folder, NightRecipe(method="published-sft", context_tokens=64, answer_tokens=8), seed=0)
    material = Material.of(QUICK_SIZES[0], seed=0)
    step = our_step(study, material, objective=objective)
    rows = study.rows(material.prompts[:2], material.chosen[:2])
    with torch.no_grad():
        before = float(study.logprobs(rows).sum())
    for _ in range(5):
        step()
    with torch.no_grad():
        after = float(study.logprobs(rows).sum())
        base = float(study.base_logprobs(rows).sum())
    assert after > before + 0.1
    assert base == pytest.approx(before, abs=1e-4)  # an adapter begins as no change, and the base has not moved


@pytest.mark.slow
def test_both_sides_are_measured_on_the_same_rows(tmp_path):
    pytest.importorskip("trl", minversion="1.16", reason="pip install 'trl==1.16.*' to compare with TRL")
    rows = measure(tmp_path, sizes=QUICK_SIZES, steps=2, rounds=1, seed=0)
    assert [one.measure.rpartition(": ")[2] for one in rows] == ["ours", "TRL", "ours / TRL"] * 2
    assert all(value > 0 for one in rows for value in one.values)
