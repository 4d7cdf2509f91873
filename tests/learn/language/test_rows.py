"""Rows of one microbatch, however unlike their lengths: each has the numbers that it has alone."""

import torch

from dayjob.lab.speed_teach import QUICK_SIZES, make_model
from dayjob.learn.language.recipes import NightRecipe
from dayjob.learn.language.study import Study


def test_a_row_has_the_numbers_it_has_alone_beside_much_longer_ones(tmp_path):
    make_model(tmp_path / "model", QUICK_SIZES[0], seed=0)
    study = Study(tmp_path / "model", NightRecipe(method="published-sft", context_tokens=64, answer_tokens=8), seed=0)
    prompts = [tuple(range(2, 2 + size)) for size in (3, 40, 5, 1, 22, 40)]
    answers = [(7, 8, 9), (5,), (), (6, 6), (4, 3, 2, 9), (11, 12)]
    rows = study.rows(prompts, answers)
    assert len(rows.by_length()[1]) > 2, "in several groups"
    with torch.no_grad():
        together = study.logprobs(rows)
        for place, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            alone = study.logprobs(study.rows([prompt], [answer]))[0, : len(answer)]
            torch.testing.assert_close(together[place, : len(answer)], alone, rtol=1e-4, atol=1e-5)
    assert together[2].abs().sum() == 0
