"""The slow teacher of self-distillation: the average of the adapter's product, by hand, in a night, after a kill."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dayjob.endings import Invalid
from dayjob.learn.language.lessons import Material
from dayjob.learn.language.night import Course, learn_night
from dayjob.learn.language.parts import Distillation
from dayjob.learn.language.recipes import RECIPES
from dayjob.learn.language.refining import padded, refine
from dayjob.learn.language.study import Study
from dayjob.learn.stages import Stages
from dayjob.objectives.language.mix import Stats
from dayjob.policies.language_train import LoraShape, TrainableLora
from tests.learn.language.test_exam import asking
from tests.serve.chatting import save_tiny

RECIPE = replace(
    RECIPES["consolidate"], learning_rates=(2e-2,), steps=6, warmup=1, lessons=2, microbatch=2, answer_tokens=4,
    context_tokens=96, anchor=0.0, self_written=0, stop_every=0, save_every=2, teacher="ema", teacher_decay=0.5,
)  # fmt: skip
LESSONS = Material(lessons=tuple(asking(q, a, family=q).lesson for q, a in (("a?", "yes"), ("b?", "no"))))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("teacher") / "model")


def test_the_average_is_added_in_the_adapters_place_by_hand():
    """x = 2 through a weight of 1 with A = 3, B = 5 and scaling 2: on 2 + 2 * 30, off 2, averaged with 7: 2 + 14."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    lora = TrainableLora(model, head=model[1], shape=LoraShape(rank=1, alpha=2.0), seed=0)
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        (down, up) = lora.factors["0"]
        down.fill_(3.0)
        up.fill_(5.0)
    lora.average = {"0": torch.tensor([[7.0]])}
    x = torch.tensor([[2.0]])
    assert model[0](x).item() == 62.0
    with lora.averaged():
        assert model[0](x).item() == 16.0
        with lora.off():
            assert model[0](x).item() == 2.0
        assert model[0](x).item() == 16.0
    assert model[0](x).item() == 62.0


class _Pull:
    """One part whose gradient on every factor is its own sign: Adam moves each by the learning rate."""

    name, share = "pull", 1.0

    def __init__(self) -> None:
        self.averages: list[Tensor] = []

    def losses(self, study: Study, step: int):
        assert step == len(self.averages)
        self.averages.append(next(iter(study.lora.average.values())).clone())
        yield -sum((one.sum() for one in study.lora.parameters()), torch.zeros(())), Stats()


def test_each_step_moves_the_average_of_products_by_hand(folder: Path):
    """At decay .5 from the product at the start, which is nothing: half of the first, a quarter of it and half of the
    second, ..."""
    study, part = Study(folder, RECIPE, seed=0), _Pull()
    products: list[Tensor] = []

    def keep(_: float) -> None:
        down, up = next(iter(study.lora.factors.values()))
        products.append(study.lora.shape.scaling * (up @ down).detach().clone())

    Course(study, [part], judge=None, recipe=RECIPE, stages=Stages(report=keep)).run()
    expected = torch.zeros_like(part.averages[0])
    for found, product in zip(part.averages, products, strict=True):
        torch.testing.assert_close(found, expected)
        expected = 0.5 * expected + 0.5 * product
    assert expected.abs().max() > 0
    assert torch.equal(next(iter(study.lora.average.values())), torch.zeros_like(expected)), "a new trial begins anew"


def test_the_teacher_of_a_step_is_the_average_and_without_one_the_base(folder: Path, monkeypatch: pytest.MonkeyPatch):
    study = Study(folder, RECIPE, seed=0)
    prompts = [study.tokens.render(one.question) for one in LESSONS.lessons]
    told = [study.tokens.render(one.context) for one in LESSONS.lessons]
    rows = study.rows(told, [(65, 66), (67, 68)])
    base = study.base_hidden(rows)
    assert torch.equal(study.taught_hidden(rows), base)
    study.lora.average = {
        name: 0.1 * torch.randn(up.shape[0], down.shape[1], generator=torch.Generator().manual_seed(1))
        for name, (down, up) in study.lora.factors.items()
    }
    slow = study.taught_hidden(rows)
    assert (slow - base).abs().max() > 1e-2
    read = refine(study, told, answers=[(65, 66), (67, 68)], error_ratio=1e-30, answer_tokens=2)
    torch.testing.assert_close(padded(read), slow, rtol=1e-4, atol=1e-4)
    monkeypatch.setattr(study, "base_hidden", lambda _: pytest.fail("the base does not teach"))
    part = Distillation("d", list(zip(prompts, told, strict=True)), recipe=RECIPE, refine=True, seed=0, share=1.0)
    assert len(list(part.losses(study, 0))) == 1
    with study.teaching() as writer:
        slowly = writer.write(told, seeds=[0, 0], max_tokens=8, temperature=0)
    with study.base() as writer:
        assert [one.token_ids for one in writer.write(told, seeds=[0, 0], max_tokens=8, temperature=0)] != [
            one.token_ids for one in slowly
        ]


class Killed(BaseException):
    """The end of a process."""


def test_a_killed_night_with_a_slow_teacher_comes_to_the_same_bytes(folder: Path, tmp_path: Path):
    whole = learn_night(folder, LESSONS, recipe=RECIPE, seed=0)
    path = tmp_path / "work" / "night.safetensors"

    def stop(share: float) -> None:
        if share > 0.8:
            raise Killed

    with pytest.raises(Killed):
        learn_night(folder, LESSONS, recipe=RECIPE, seed=0, checkpoint=path, progress=stop)
    assert path.exists()
    again = learn_night(folder, LESSONS, recipe=RECIPE, seed=0, checkpoint=path)
    assert all(torch.equal(whole.state[name], again.state[name]) for name in whole.state)
    frozen = learn_night(folder, LESSONS, recipe=replace(RECIPE, teacher="frozen"), seed=0)
    assert any(not torch.equal(whole.state[name], frozen.state[name]) for name in whole.state)


@pytest.mark.parametrize("wrong", [{"teacher": "slow"}, {"teacher_decay": 1.0}, {"teacher_decay": -0.1}])
def test_a_teacher_that_there_is_not_is_refused(wrong):
    with pytest.raises(Invalid, match=next(iter(wrong))):
        replace(RECIPE, **wrong)
