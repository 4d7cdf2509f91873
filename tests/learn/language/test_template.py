"""Prompts are rendered alike by day and by night, and what the template is told is part of what a version is."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from dayjob.cli.bases import open_tokens
from dayjob.cli.processes import make_nights
from dayjob.config import Base, Config
from dayjob.endings import JobState, PolicyKind, VersionStatus
from dayjob.journal.control import Control
from dayjob.journal.versions import folder_of
from dayjob.learn.language.exercises import turn
from dayjob.learn.language.job import Nights
from dayjob.learn.language.recipes import RECIPES
from dayjob.learn.language.study import Study
from dayjob.learn.loop import Learner
from dayjob.learn.practice.recipe import PracticeRecipe
from dayjob.learn.practice.student import Student
from dayjob.policies.tokens import Tokens
from dayjob.records import Json, Policy, Version
from tests.learn.language.desk import BASE, TENANT, Desk
from tests.learn.language.test_job import FEW, Night
from tests.memory.office import POLICY
from tests.policies.language.worlds import THINKING, byte_tokenizer, tiny_model
from tests.serve.chatting import HELLO

MOODS = THINKING + "{% if mood %}{% endif %}"
CHOICES: list[Json] = [{}, {"enable_thinking": True}]
FEWER = replace(FEW, steps=6, warmup=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("thinker")
    tiny_model("qwen3").save_pretrained(place)
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = MOODS
    tokenizer.save_pretrained(place)
    return place


def test_day_and_night_render_alike(folder: Path, tmp_path: Path):
    prompts = []
    for template in CHOICES:
        base = Base(name="tiny", path=str(folder), template=template)
        day = open_tokens(base)
        nights = make_nights(Config(data=tmp_path, bases=(base,)), Control(tmp_path))
        assert nights is not None
        told = nights.templates["tiny"]
        study = Study(folder, RECIPES["consolidate"], seed=0, template=told)
        student = Student(folder, PracticeRecipe(), seed=0, template=told)
        prompts.append(day.render(HELLO))
        assert study.tokens.render(HELLO) == student.tokens.render(HELLO) == prompts[-1]
        assert turn(study.tokens, HELLO, answer="ho") == (*day.encode("ho"), *day.end_ids)
    assert prompts[0][: len(prompts[1])] == prompts[1] != prompts[0]


@dataclass
class Told(Night):
    """A night whose base's chat template is told something."""

    template: Json = field(default_factory=dict)

    def learner(self, **_):
        nights = Nights(
            memory=self.desk.memory, find_base=lambda _: self.folder, templates={BASE: self.template},
            recipes={"sft-answers": FEWER},
        )  # fmt: skip
        reader = self.desk.memory._reader
        return Learner(self.desk.root, self.control, reader, threads=1, holder="test", nights=nights)

    def manifest(self, version: str) -> Json:
        folder = folder_of(self.desk.root, TENANT, self.address()) / version
        return json.loads((folder / "manifest.json").read_text())


def test_what_a_template_is_told_is_part_of_what_a_version_is(folder: Path, tmp_path: Path):
    desk = Desk(tmp_path / "data", Tokens.open(folder))
    baseline = Version(
        tenant=TENANT, policy=POLICY, name="v0-baseline", number=0, parent=None, recipe="baseline", digest="0" * 64,
        from_seq=0, to_seq=0, status=VersionStatus.BASELINE, created_ms=0,
    )  # fmt: skip
    spec = {"kind": "language", "base": BASE, "recipe": "sft-answers"}
    policy = Policy(tenant=TENANT, name=POLICY, kind=PolicyKind.LANGUAGE, spec=spec, created_ms=0)
    desk.control.create_policy(policy, baseline)
    for question in ("Who?", "Why?", "How?", "Hm"):
        desk.chat(question)
    desk.correct("When is lunch?", "9:15")
    night = Told(desk, folder)
    made = []
    for template in ({}, {"mood": "calm"}, {}):  # the mood changes no prompt, and so no weight
        night.template = template
        job = night()
        assert job.state is JobState.SUCCEEDED, job.error
        made.append(job.result["challenger"])
    assert made[0] == made[2] != made[1]
    first, second = (night.manifest(one) for one in made[:2])
    assert first["content"]["network"]["template"] == {"enable_thinking": False}
    assert second["content"]["network"]["template"] == {"enable_thinking": False, "mood": "calm"}
    assert first["content"]["files"] == second["content"]["files"]
    desk.close()
