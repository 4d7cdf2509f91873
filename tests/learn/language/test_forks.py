"""Two completions behind a prompt that is read once: each has the numbers, and the gradients, that it has alone."""

import pytest
import torch

from dayjob.lab.speed_teach import QUICK_SIZES, make_model
from dayjob.learn.language.forks import Forks
from dayjob.learn.language.recipes import NightRecipe
from dayjob.learn.language.study import Study

PROMPTS = [tuple(range(2, 2 + size)) for size in (3, 40, 5, 1)]
FIRST = [(7, 8, 9), (5,), (), (6, 6, 30, 31)]
SECOND = [(7, 9), (4, 3, 2, 9), (11, 12), (8,)]


@pytest.fixture
def study(tmp_path):
    make_model(tmp_path / "model", QUICK_SIZES[0], seed=0)
    one = Study(tmp_path / "model", NightRecipe(method="published-sft", context_tokens=64, answer_tokens=8), seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # an adapter that does something
        for weight in one.lora.parameters():
            weight += 0.3 * torch.randn(weight.shape, generator=generator)
    return one


def gradient(study, rows):
    logp_BT = study.logprobs(rows)
    slope_BT = torch.linspace(-1, 1, logp_BT.numel()).view_as(logp_BT)
    return logp_BT, torch.autograd.grad((logp_BT * slope_BT).sum(), study.lora.parameters())


def test_a_fork_is_two_rows_in_numbers_and_in_gradients(study):
    forks = Forks.of(PROMPTS, first=FIRST, second=SECOND, device=study.device)
    rows = study.rows([*PROMPTS, *PROMPTS], [*FIRST, *SECOND])
    assert (forks.token_BT == rows.token_BT).all()
    assert (forks.mask_BT == rows.mask_BT).all()
    (found_BT, found), (wanted_BT, wanted) = gradient(study, forks), gradient(study, rows)
    torch.testing.assert_close(found_BT, wanted_BT, rtol=1e-4, atol=1e-5)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(study.base_logprobs(forks), study.base_logprobs(rows), rtol=1e-4, atol=1e-5)


def test_a_part_of_forks_holds_both_completions_of_its_prompts(study):
    forks = Forks.of(PROMPTS, first=FIRST, second=SECOND, device=study.device)
    cut = forks.cut(slice(1, 3))
    assert (len(forks), len(cut)) == (4, 2)
    with torch.no_grad():
        whole_BT, part_BT = study.logprobs(forks), study.logprobs(cut)
    torch.testing.assert_close(part_BT, whole_BT[[1, 2, 5, 6]], rtol=1e-4, atol=1e-5)


def test_a_prompt_is_read_once(study):
    read = []
    body = study._body

    def counted(**asked):
        read.append(asked["input_ids"].numel())
        return body(**asked)

    forks = Forks.of([PROMPTS[1]] * 2, first=[FIRST[3]] * 2, second=[SECOND[1]] * 2, device=study.device)
    forks.states(counted)
    assert read == [2 * (40 + 3 + 3)]
