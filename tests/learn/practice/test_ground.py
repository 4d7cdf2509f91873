"""Environments, curriculum and rollout as a course sees them; prompts that fit; the command."""

import asyncio
import json
from dataclasses import dataclass, replace

import pytest

from dayjob.cli.practice import REPORT, practice, read_spec
from dayjob.endings import EpisodeEnding, Invalid
from dayjob.lab.practice_ground import Tasks, open_ground
from dayjob.learn.practice.local import LocalEngine
from dayjob.learn.practice.prompts import render_within
from dayjob.learn.practice.recipe import PracticeRecipe, settings_of
from dayjob.learn.practice.student import Student
from dayjob.policies.adapters import file_digests, read_adapter
from dayjob.policies.engine_protocol import VersionRef
from dayjob.policies.tokens import Tokens
from dayjob.practice.curriculum import Curriculum
from dayjob.practice.mutate import tasks_in
from dayjob.practice.protocol import Environment
from dayjob.practice.registry import make
from dayjob.practice.same import task_of
from tests.policies.language.worlds import byte_tokenizer
from tests.serve.chatting import save_tiny

RECIPE = PracticeRecipe(attempts=4, context_tokens=256, anchor=0.0, self_written=0)
SMALL = {"env": "arithmetic", "terms": 2, "digits": 1}


@pytest.fixture(scope="module")
def bytes_model(tmp_path_factory):
    """A random model that reads bytes."""
    return save_tiny(tmp_path_factory.mktemp("bytes") / "model")


def opened(spec, *, recipe=RECIPE, seed=0, **tasks):
    return asyncio.run(
        open_ground(make(spec).spec, Tokens(byte_tokenizer()), recipe=recipe, tasks=Tasks(**tasks), seed=seed)
    )


@pytest.mark.parametrize("curriculum", [False, True])
def test_what_is_held_out_is_never_practised(bytes_model, curriculum):
    """Of sums of two digits there are so few that any seed soon meets all of them."""
    ground = opened(SMALL, stop=8, judge=16, curriculum=curriculum)
    held = {asyncio.run(task_of(make(SMALL), seed)) for seeds in ground.held.values() for seed in seeds}
    assert len(held) == 24 == len(ground.known)
    engine = LocalEngine(Student(bytes_model, RECIPE, seed=0), name="practice")
    practised = set()
    for ticket in range(4):
        for one in asyncio.run(ground.attempts(engine, "practice", ticket=ticket)):
            inner = one.spec.get("inner", one.spec)
            practised.add(asyncio.run(task_of(make(inner), one.seed)))
    assert practised
    assert not practised & held
    if curriculum:
        again = opened(SMALL, stop=8, judge=16, curriculum=True)
        again.restore(json.loads(json.dumps(ground.state())))
        assert asyncio.run(again._task(0)) == asyncio.run(ground._task(0))


def test_equal_tickets_give_equal_attempts_and_others_others(bytes_model):
    engine = LocalEngine(Student(bytes_model, RECIPE, seed=0), name="practice")

    def attempts(ticket, seed=0):
        return asyncio.run(opened(SMALL, stop=2, judge=2, seed=seed).attempts(engine, "practice", ticket=ticket))

    first = attempts(0)
    assert len(first) == 4
    assert len({one.group for one in first}) == 1
    assert len({one.turns[0].text for one in first}) > 1
    assert attempts(0) == first
    assert attempts(1)[0].seed != first[0].seed != attempts(0, seed=1)[0].seed


@dataclass
class Spelling:
    """Sums, every other of which spells out a control token."""

    inner: Environment

    @property
    def spec(self):
        return self.inner.spec

    def reset(self, seed):
        episode = self.inner.reset(seed)
        if seed % 2:
            (message,) = episode.task.messages
            episode._task = replace(episode.task, messages=(message | {"content": "<|end|>"},))
        return episode

    def reference(self, seed):
        return self.inner.reference(seed)


def test_a_task_that_this_model_cannot_read_costs_itself_alone(bytes_model, caplog):
    ground = opened(SMALL, stop=4, judge=8)
    ground.made[json.dumps(ground.spec, sort_keys=True)] = Spelling(make(SMALL))
    engine = LocalEngine(Student(bytes_model, RECIPE, seed=0), name="practice")
    endings = {}
    for ticket in range(6):
        for one in asyncio.run(ground.attempts(engine, "practice", ticket=ticket)):
            endings.setdefault(one.seed % 2, set()).add((one.ending, "control token" in one.error))
    assert endings[1] == {(EpisodeEnding.FAILED, True)}
    assert EpisodeEnding.FAILED not in {ending for ending, _ in endings[0]}
    look = asyncio.run(ground.look(engine, "practice"))
    odd = sum(seed % 2 for seeds in ground.held.values() for seed in seeds)
    assert look.rates["failed"] == odd > 0
    assert f"{odd} held-out tasks count as not solved" in caplog.text
    assert "control token" in caplog.text


def test_a_pair_of_tasks_one_of_which_is_held_out_is_not_practised():
    ground = opened(SMALL, stop=8, judge=16, curriculum=True)
    pair = make({"env": "both", "first": SMALL, "second": SMALL}).spec
    ground.curriculum = Curriculum.open(pair)

    async def practised():
        for _ in range(12):
            spec, seed = await ground._task(0)
            for inner, its in tasks_in(spec, seed)[1:]:
                yield await task_of(make(inner), its)

    async def all_of_them():
        return [one async for one in practised()]

    halves = asyncio.run(all_of_them())
    assert len(halves) == 24
    assert not set(halves) & ground.known
    # Of a pair that is itself held out neither half is practised alone.
    paired = opened(pair, stop=2, judge=2)
    assert len(paired.known) == 12


def test_a_ground_knows_the_solutions_that_a_teacher_is_told(bytes_model):
    ground = opened(SMALL, stop=1, judge=1, recipe=replace(RECIPE, teacher=1.0))
    engine = LocalEngine(Student(bytes_model, RECIPE, seed=0), name="practice")
    attempt, *_ = asyncio.run(ground.attempts(engine, "practice", ticket=0))
    said = [one.text for one in make(SMALL).reference(attempt.seed)]
    assert asyncio.run(ground.solution(attempt)) == said != []
    broken = replace(attempt, seed=-1)  # what the environment cannot set has no solution either
    assert asyncio.run(ground.solution(broken)) == ()


@pytest.mark.parametrize("wrong", ["stop=0", "stop=-1", "judge=-1", "judge=0", "curated=-1", "curated=99999999999"])
def test_numbers_of_tasks_that_make_no_sense_are_refused(wrong):
    with pytest.raises(Invalid, match=f"{wrong.partition('=')[0]} is .*give a whole number from"):
        Tasks(**settings_of([wrong], Tasks)[0])


def test_looks_are_at_the_held_out_tasks_sampled_and_with_the_most_probable_answers(bytes_model):
    ground = opened(SMALL, stop=1, judge=3)
    engine = LocalEngine(Student(bytes_model, RECIPE, seed=0), name="practice")
    look = asyncio.run(ground.look(engine, "practice"))
    assert look == asyncio.run(ground.look(engine, "practice"))
    assert set(look.rates) == {"stop", "judge", "judge_reward", "greedy", "failed"}
    assert look.rates["failed"] == 0
    sampled = []
    for seed in ground.held[1]:
        sampled += asyncio.run(ground._looked(engine, "practice", seeds=[seed], sampled=True))
    assert [one.seed for one in sampled] == [seed for seed in ground.held[1] for _ in range(ground.tasks.tries)]
    assert len({one.turns[0].token_ids for one in sampled if one.seed == ground.held[1][0]}) == ground.tasks.tries
    assert len(asyncio.run(ground.rewards(engine, "practice", seeds=ground.held[1]))) == 3


def test_curated_turns_are_those_of_the_references():
    ground = opened({"env": "office", "turns": 4, "manual": False}, stop=1, judge=1, curated=3)
    tokens = Tokens(byte_tokenizer())
    pairs = ground.curated()
    assert len(pairs) == 12
    said = [tokens.text(answer) for _, answer in pairs]
    assert said[0] == "call next"
    assert said[3] == "call finish"
    assert all(answer[-1] in tokens.end_ids for _, answer in pairs)
    assert tokens.text(pairs[1][0]).count("call next") == 1  # the second turn reads what the first said
    assert opened(SMALL, stop=1, judge=1).curated() == ()


def test_an_environment_with_fewer_tasks_than_are_wanted_is_said():
    with pytest.raises(Invalid, match="hold out fewer"):
        opened({"env": "arithmetic", "terms": 2, "digits": 1, "operations": ["+"]}, stop=1, judge=500)


def test_a_prompt_that_is_too_long_loses_its_oldest_messages_behind_the_task():
    tokens = Tokens(byte_tokenizer())
    said = [{"role": "assistant" if n % 2 == 0 else "user", "content": f"word {n}"} for n in range(21)]
    task = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "begin"}]
    whole = tokens.render([*task, *said])
    assert render_within(tokens, [*task, *said], room=len(whole)) == whole
    for room in (120, 200, 300):
        found = render_within(tokens, [*task, *said], room=room)
        kept = next(k for k in range(21) if tokens.render([*task, *said[k:]]) == found)
        assert len(found) <= room < len(tokens.render([*task, *said[kept - 1 :]]))
    assert render_within(tokens, [*task, *said], room=1) == tokens.render([*task, said[-1]])  # as short as it gets
    assert render_within(tokens, task, room=1) == tokens.render(task)


def test_the_command_makes_an_adapter_and_tells_how_it_went(bytes_model, tmp_path, capsys):
    out = tmp_path / "out"
    small = ["steps=2", "groups=2", "attempts=4", "stop=16", "judge=8", "tries=1", "self_written=0", "anchor=0",
             "rank=2", "look_every=1", "context_tokens=200", "credit=turns", "seed=3", "curated=16", "warm_steps=40",
             "learning_rate=2e-2", "temperature=0.01"]  # fmt: skip
    practice(json.dumps(SMALL), model=bytes_model, out=out, settings=small)
    told = capsys.readouterr().out
    assert "step 0: 0.000 of attempts at held-out tasks solve them, 0.000 by the most probable answers" in told
    assert "step 0, the warm start: " in told
    report = json.loads((out / REPORT).read_text())
    assert [(one["step"], one["warmed"]) for one in report["looks"]] == [(0, 0), (0, 40), (1, 40), (2, 40)]
    assert report["better"]
    best = next(one for one in report["looks"] if one["score"] == max(each["score"] for each in report["looks"]))
    assert best["score"] > report["looks"][0]["score"]
    assert f"as after step {report['best_step']}" in told
    ref = VersionRef(name="x", digest="x", folder=out, files=file_digests(out))
    shapes = Student(bytes_model, RECIPE, seed=0).batch.adapters.shapes
    assert read_adapter(ref, shapes, max_rank=2).parts
    with pytest.raises(Invalid, match="not empty"):
        practice("strings", model=bytes_model, out=out, settings=small)


def test_the_command_writes_nothing_where_nothing_did_better(bytes_model, tmp_path, capsys):
    small = ["steps=1", "groups=1", "attempts=2", "stop=1", "judge=1", "self_written=0", "anchor=0", "rank=2",
             "context_tokens=200"]  # fmt: skip
    practice("strings", model=bytes_model, out=tmp_path / "out", settings=small)
    assert "nothing was written" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("asked", "words"),
    [({"env": "nonsense", "policy": "p"}, "nonsense"), ({"env": "{", "policy": "p"}, "no JSON"),
     ({}, "who is to practise"),
     ({"policy": "clerk", "out": "x"}, "go together"), ({"model": "x", "out": "y", "settings": ["stap=1"]}, "stap"),
     ({"policy": "clerk", "settings": ["full=true"]}, "adapters"),
     ({"policy": "clerk", "settings": ["seed=-1"]}, "seed is -1: give a whole number"),
     ({"policy": "clerk", "env": '{"env": "world", "model": "1f", "tasks": [{"messages": [{}]}], "horizon": 1}'},
      "a learned model imagines it: .*name an environment that stands on its own")],
)  # fmt: skip
def test_wrong_questions_are_answered_with_what_to_do(asked, words):
    with pytest.raises(Invalid, match=words):
        practice(**({"env": "strings"} | asked))


def test_a_spec_is_a_name_or_json():
    assert read_spec("strings") == make({"env": "strings"}).spec
    assert read_spec('{"env": "arithmetic", "terms": 3}')["terms"] == 3
