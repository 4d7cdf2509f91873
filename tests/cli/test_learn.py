"""What `dayjob learn` refuses before it learns, and what it hands to the learner."""

from dataclasses import replace
from pathlib import Path

import pytest

from dayjob.cli import processes
from dayjob.cli.assemble import LANGUAGE_RECIPES
from dayjob.cli.bases import find_base
from dayjob.config import Base, Config, Recipe, Suite
from dayjob.endings import Invalid, PolicyKind, VersionStatus
from dayjob.journal.control import Control
from dayjob.learn.language.recipes import RECIPES
from dayjob.records import Policy, Version


@pytest.fixture
def control(tmp_path: Path) -> Control:
    one = Control(tmp_path / "data")
    for name, kind in (("geo", PolicyKind.RANKER), ("clerk", PolicyKind.LANGUAGE)):
        baseline = Version(
            tenant="default", policy=name, name="v0-baseline", number=0, parent=None, recipe="baseline",
            digest="0" * 64, from_seq=0, to_seq=0, status=VersionStatus.BASELINE, created_ms=0,
        )  # fmt: skip
        one.create_policy(Policy(tenant="default", name=name, kind=kind, spec={}, created_ms=0), baseline)
    return one


@pytest.mark.parametrize(
    ("policy", "asked", "remedy"),
    [
        ("geo", {"user": "ann"}, "leave out --user"),
        ("geo", {"recipe": "consolidate"}, "use one of debiased"),
        ("clerk", {"recipe": "debiased"}, "use one of consolidate"),
    ],
)
def test_what_a_policy_cannot_learn_is_said_before_a_job_is_made(control: Control, policy, asked, remedy):
    with pytest.raises(Invalid, match=remedy):
        processes.check_learnable(control, "default", policy, **{"recipe": None, "user": None} | asked)
    processes.check_learnable(control, "default", "clerk", recipe="consolidate", user="ann")


def test_the_learner_is_given_bases_suites_and_canaries_of_the_configuration(control: Control, tmp_path: Path):
    assert processes.make_nights(Config(data=control.root), control) is None, "rankers alone"
    (tmp_path / "config.json").write_text("{}")
    bases = (Base(name="tiny", path=str(tmp_path), device="cuda:1"),)
    settings = Config(
        data=control.root, bases=bases, suites=(Suite(name="s", path="/s.jsonl"),), canaries=("one",), notes_tokens=7
    )  # fmt: skip
    nights = processes.make_nights(settings, control)
    assert nights is not None
    assert nights.find_base("tiny") == tmp_path
    assert nights.devices == {"tiny": "cuda:1"}
    assert sorted(nights.suites) == ["basics", "s"], "the one that ships, and the user's own"
    assert nights.suites["basics"].is_file()
    assert nights.suites["s"] == Path("/s.jsonl")
    assert (nights.canaries, nights.notes_tokens) == (("one",), 7)
    assert nights.recipes == RECIPES
    assert tuple(RECIPES) == LANGUAGE_RECIPES, "what a server knows without torch"
    changes = (Recipe(name="consolidate", settings=(("answer_tokens", 128), ("learning_rates", (1e-3, 2e-3)))),)
    nights = processes.make_nights(replace(settings, recipes=changes), control)
    assert nights is not None
    wanted = replace(RECIPES["consolidate"], answer_tokens=128, learning_rates=(1e-3, 2e-3))
    assert nights.recipes == {**RECIPES, "consolidate": wanted}


def test_a_base_that_a_learner_does_not_have_is_named_with_the_remedy(tmp_path: Path):
    with pytest.raises(Invalid, match=r"add \[bases.tiny\] to dayjob.toml"):
        find_base((), "tiny")
    with pytest.raises(Invalid, match=r"bases\.tiny: .* is no model's folder"):
        find_base((Base(name="tiny", path=str(tmp_path)),), "tiny")
