"""A week at the desk of an office whose model follows notes: by day it obeys from notes, after the night without."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dayjob.endings import JobState, NoteState, PolicyKind, VersionStatus
from dayjob.journal import jobs
from dayjob.journal.layers import address_of
from dayjob.learn.language.job import Nights
from dayjob.learn.language.recipes import RECIPES
from dayjob.learn.loop import Learner
from dayjob.policies.tokens import Tokens
from dayjob.records import Policy, Version
from tests.learn.language import noted, world
from tests.learn.language.desk import BASE, TENANT, Desk
from tests.learn.language.world import WORDINGS, Sizes
from tests.memory.office import POLICY

SIZES = Sizes(facts=9, values=6, steps=240)
RECIPE = replace(
    RECIPES["consolidate"], answer_tokens=6, question_tokens=8, context_tokens=128, steps=80, lessons=12,
    anchor_rows=24, self_written=128,
)  # fmt: skip


@pytest.fixture(scope="session")
def office(request) -> tuple[noted.NotedOffice, Path]:
    """The office and its model, trained once and kept in pytest's cache under the hash of what makes it."""
    torch.set_num_threads(1)
    made_of = b"".join(Path(one.__file__).read_bytes() for one in (noted, world))
    mark = hashlib.sha256(made_of + repr((SIZES, torch.__version__)).encode()).hexdigest()
    folder = request.config.cache.mkdir("noted") / mark[:16]
    here = noted.NotedOffice(sizes=SIZES)
    if not (folder / "chat_template.jinja").exists():
        here.pretrain(folder)
    return here, folder


@pytest.fixture
def desk(office, tmp_path: Path) -> Iterator[Desk]:
    """A week: three facts corrected and asked again in other words, three others asked as ever."""
    here, folder = office
    one = Desk(tmp_path / "data", Tokens.open(folder))
    spec = {"kind": "language", "base": BASE, "recipe": "consolidate"}
    baseline = Version(
        tenant=TENANT, policy=POLICY, name="v0-baseline", number=0, parent=None, recipe="baseline", digest="0" * 64,
        from_seq=0, to_seq=0, status=VersionStatus.BASELINE, created_ms=0,
    )  # fmt: skip
    policy = Policy(tenant=TENANT, name=POLICY, kind=PolicyKind.LANGUAGE, spec=spec, created_ms=0)
    one.control.create_policy(policy, baseline)
    for key in here.keys("taught"):
        one.correct(here.question(key, 0), here.rule(key), said=(here.fact(key),))
        for wording in (1, 2, 3):
            one.chat(here.question(key, wording), said=(here.rule(key),))
    for key in here.keys("replayed"):
        for wording in range(len(WORDINGS)):
            one.chat(here.question(key, wording), said=(here.fact(key),))
    yield one
    one.close()


def test_what_was_corrected_by_day_is_known_in_the_morning_in_words_never_taught(office, desk: Desk, tmp_path):
    here, folder = office
    suite = tmp_path / "kept.jsonl"
    kept = [
        {"messages": [{"role": "user", "content": here.question(key, wording)}], "answer": here.fact(key)}
        for key in here.keys("replayed")
        for wording in range(len(WORDINGS))
    ]
    suite.write_text("\n".join(map(json.dumps, kept)))
    nights = Nights(
        memory=desk.memory, find_base=lambda _: folder, recipes={"consolidate": RECIPE}, suites={"kept": suite}
    )  # fmt: skip
    reader = desk.memory._reader
    learner = Learner(desk.root, desk.control, reader, threads=1, holder="test", nights=nights)
    job = learner.ask(POLICY, tenant=TENANT, user="ann")
    assert learner.step(watch_counts=False)
    job = jobs.get_job(desk.control, TENANT, job.id)
    assert job.state is JobState.SUCCEEDED, job.error
    name = job.result["challenger"]
    assert name is not None, job.result
    exam = desk.control.state(TENANT, address_of(desk.control, TENANT, POLICY, "ann"), f"exam/{name}")
    taught, (kept,) = exam["taught"], exam["suites"]
    assert taught["right_after"] == taught["asked"]
    # A question on another thing that shares a word with a note was answered with it too: as before, and so it stays.
    assert taught["right_before"] <= 3 < taught["asked"] - taught["right_before"]
    assert all(one["right_after"] for one in exam["questions"])
    assert [one for one in exam["questions"] if not one["right_before"]], "never taught in these words, and known"
    assert (kept["right_before"], kept["lost"]) == (kept["asked"], 0)
    notes = desk.memory.for_training(TENANT, POLICY, user="ann", version=name)
    retired = {one.id for one in notes if one.state is NoteState.RETIRED}
    assert retired, "a note stays while one of its askings, those of early stopping too, is wrong without it"
    assert {one.state for one in notes} <= {NoteState.RETIRED, NoteState.CONSOLIDATED}
    for key in here.keys("taught"):
        assert not retired & set(desk.ask(here.question(key, 0), version=name).ids)
        assert retired & set(desk.ask(here.question(key, 0), version="v0-baseline").ids)
