"""A page says the command that made it: whoever types it gets these seeds, and this model, again."""

from dataclasses import replace

import pytest

from dayjob.lab import clerk_night, clerk_nights, figures, suggest


def night(model, folder):
    return clerk_night.Plan(seeds=(0, 1), methods=("before", "memory"), model=model, folder=folder)


def nights(model, folder):
    return clerk_nights.Plan(seeds=(0, 1), methods=clerk_nights.DEFAULT, model=model, folder=folder)


def suggested(_model, folder):
    return suggest.Plan(seeds=(0, 1), rows=("half",), folder=folder)


@pytest.mark.parametrize(
    ("bench", "plan_of", "first", "rest"),
    [
        (clerk_night, night, "dayjob lab night", "--methods before --methods memory"),
        (clerk_nights, nights, "dayjob lab nights", ""),
        (suggest, suggested, "dayjob lab suggest", "--rows half"),
    ],
)
def test_the_command_names_first_seed_and_model_where_they_are_not_the_defaults(tmp_path, bench, plan_of, first, rest):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    plan = plan_of(tmp_path, tmp_path / "pieces")
    for seed in (0, 1, 4, 5):
        figures.keep(plan.path((getattr(plan, "methods", None) or plan.rows)[0], seed), {"code": "x"})

    def said(**changes):
        return bench.assembled(replace(plan, **changes), quick=False)["command"].split()

    assert said() == f"{first} --seeds 2 {rest}".split()
    assert said(seeds=(4, 5)) == f"{first} --seeds 2 --first-seed 4 {rest}".split()
    if bench is not suggest:
        assert (
            said(seeds=(4, 5), named=tmp_path) == f"{first} --seeds 2 --first-seed 4 --model {tmp_path} {rest}".split()
        )
