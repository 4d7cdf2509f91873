"""Whole courses on a bandit: they learn, are repeatable, go on when killed, and run apart."""

import asyncio
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from dayjob.endings import Invalid
from dayjob.learn.language.anchors import Kept
from dayjob.learn.language.parts import Anchor
from dayjob.learn.practice.apart import ALIAS, Actors
from dayjob.learn.practice.buffer import ReplayBuffer
from dayjob.learn.practice.course import Course, mark_of
from dayjob.learn.practice.ground import Look
from dayjob.learn.practice.local import LocalEngine
from dayjob.learn.practice.recipe import PracticeRecipe, settings_of
from dayjob.learn.practice.student import Student, save_full
from dayjob.learn.stages import Stages
from dayjob.policies.engine_jobs import EngineLimits
from dayjob.policies.engine_protocol import Prompt, Sampling
from dayjob.policies.engine_transformers import TransformersEngine, load_model
from dayjob.policies.language_train import LoraShape
from dayjob.policies.tokens import Tokens
from tests.learn.practice.bandit import Bandit

RECIPE = PracticeRecipe(
    steps=12, groups=3, attempts=16, learning_rate=3e-2, anchor=0.0, self_written=0, look_every=4, context_tokens=64,
    save_every=5, warm_steps=10,
)  # fmt: skip


def course(folder, recipe=RECIPE, *, stages=None, parts=(), **ground) -> Course:
    student = Student(folder, recipe, seed=1)
    here = Bandit(student.tokens, attempts_each=recipe.attempts, **ground)
    return Course(student, here, recipe=recipe, seed=1, stages=stages, parts=parts)


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def learned(tiny):
    return course(tiny).run()


def test_practice_finds_what_is_rewarded(learned):
    rewards = [one["reward"] for one in learned.curve]
    assert np.mean(rewards[:2]) < 0.2
    assert np.mean(rewards[-2:]) > np.mean(rewards[:2]) + 0.2
    assert [one["step"] for one in learned.looks] == [0, 4, 8, 12]
    scores = {one["step"]: one["score"] for one in learned.looks}
    assert scores[0] < max(scores.values()) == scores[learned.best_step]
    assert learned.curve[-1]["correction"] == "plain"  # what it learns from was made by the very same weights
    assert max(one["lag"] for one in learned.curve) == 0
    assert max(one["kl_behaviour"] for one in learned.curve) < 1e-6


def test_equal_courses_give_equal_weights_also_when_killed(tiny, learned, tmp_path):
    class Killed(Exception):
        pass

    def kill(share: float) -> None:
        if share > 0.6:
            raise Killed

    path = tmp_path / "course.safetensors"
    with pytest.raises(Killed):
        course(tiny, stages=Stages(path=path, mark="a", report=kill)).run()
    assert path.exists()
    again = course(tiny, stages=Stages(path=path, mark="a"))
    found = again.run()
    assert not path.exists()
    assert same(found.last, learned.last)
    assert same(found.best, learned.best)
    assert found.curve == learned.curve
    assert found.looks == learned.looks


def test_all_weights_learn_and_are_saved_as_a_model(tiny, tmp_path):
    recipe = replace(RECIPE, full=True, learning_rate=3e-3)
    found = course(tiny, recipe).run()
    assert np.mean([one["reward"] for one in found.curve[-2:]]) > 0.3
    save_full(tmp_path, found.last, base=tiny)
    student = Student(tiny, recipe, seed=0)
    asked = student.rows([(1, 8, 2)], [(5, 3)])
    before = student.logprobs(asked).detach()
    student.weights.restore(found.last)
    saved = Student(tmp_path, recipe, seed=0)
    assert torch.allclose(student.logprobs(asked), saved.logprobs(asked), atol=1e-6)
    # The base is still there, for the anchor and for whoever asks it to write.
    assert torch.equal(student.base_logprobs(asked), before)
    with student.base():
        assert torch.equal(student.logprobs(asked).detach(), before)
    assert not torch.allclose(student.logprobs(asked), before, atol=1e-2)


def test_a_warm_start_begins_where_curated_turns_lead(tiny):
    recipe = replace(RECIPE, steps=1, learning_rate=1e-2, warm_steps=20)
    cold, warm = (course(tiny, recipe, warm=words).run() for words in ((), ("one", "two", "three")))
    assert [(one["step"], one["warmed"]) for one in cold.looks] == [(0, 0), (1, 0)]
    assert [(one["step"], one["warmed"]) for one in warm.looks] == [(0, 0), (0, 20), (1, 20)]
    assert warm.looks[0] == cold.looks[0]
    assert cold.looks[0]["score"] < 1.0 == warm.looks[1]["score"]
    assert warm.curve[0]["reward"] > cold.curve[0]["reward"] + 0.2


@pytest.mark.parametrize(
    ("scores", "best"),
    [((0.2, 0.9, 0.5), 1), ((0.9, 0.2, 0.5), 0), ((0.5, 0.5, 0.5), 0), ((0.1, 0.5, 0.5), 2), ((0.5, 0.4, 0.6), 2)],
)  # fmt: skip
def test_what_is_kept_is_better_than_what_was_given_be_it_of_the_warm_start_or_later(tiny, scores, best):
    here = course(tiny, replace(RECIPE, steps=1, warm_steps=2), warm=("one",))
    seen = []

    async def look(*_):
        seen.append(here._student.weights.state())
        return Look(score=scores[len(seen) - 1])

    here._ground.look = look
    found = here.run()
    assert (found.best_look, found.better, found.best_step) == (best, best > 0, int(best == 2))
    assert same(found.best, seen[best])
    assert not same(seen[0], seen[1])


@pytest.mark.slow
def test_the_anchor_holds_and_the_brake_stops(tiny):
    """What the base says to another question is to stay; a budget of next to nothing stops practice altogether."""
    tokens = Tokens.open(tiny)
    prompt = tokens.render([{"role": "user", "content": "task"}])
    rows = [Kept(question=(), prompt=prompt, answer=(token, 3), self_written=True) for token in range(4, 9)]

    def run(**changed):
        recipe = replace(RECIPE, steps=8, **changed)
        anchor = Anchor(rows, recipe=recipe.night(), seed=0)
        return course(tiny, recipe, parts=[anchor]).run()

    free, held, stopped = (
        run(anchor=1e-6, kl_budget=9.0),
        run(anchor=5.0, kl_budget=9.0),
        run(anchor=1e-6, kl_budget=1e-9),
    )
    assert held.curve[-1]["anchor/kl"] < free.curve[-1]["anchor/kl"] / 2
    assert stopped.curve[-1]["brake"] == 0.0
    assert stopped.curve[-1]["reward"] < free.curve[-1]["reward"]


def test_attempts_by_older_weights_are_as_old_as_asked(tiny):
    found = course(tiny, replace(RECIPE, lag=4, steps=8)).run()
    assert [one["most_lag"] for one in found.curve] == [0, 1, 2, 3, 4, 4, 4, 4]
    assert found.curve[0]["correction"] == "plain"
    assert found.curve[-1]["kl_behaviour"] > 1e-3
    assert found.curve[-1]["correction"] in ("cispo", "dppo_tv")


def test_actors_apart_learn_too_and_every_token_says_who_wrote_it(tiny, tmp_path):
    recipe = replace(RECIPE, steps=10, ahead=1)
    student = Student(tiny, recipe, seed=1)
    ground = Bandit(student.tokens, attempts_each=recipe.attempts, turns=2)
    engine = TransformersEngine(load_model(tiny), student.tokens, limits=EngineLimits(slots=36, context_tokens=64))
    found = Course(student, ground, recipe=replace(recipe, credit="process"), seed=1).run(apart=(engine, tmp_path))
    assert [one["step"] for one in found.curve] == list(range(1, 11))
    assert np.mean([one["reward"] for one in found.curve[-3:]]) > np.mean([one["reward"] for one in found.curve[:3]])
    # No group was begun more than so far ahead, so no token is older; all of them were learned from in their order.
    assert max(one["most_lag"] for one in found.curve) <= 3
    written = {name for _, names in ground.seen for name in names}
    assert {"update-0", "update-1"} <= written
    assert len(written) > 4
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Invalid, match="closed"):
        asyncio.run(_one(engine, ALIAS))


async def _one(engine, version):
    async for chunk in engine.generate(Prompt(token_ids=(1, 8, 2)), version, sampling=Sampling(max_tokens=1)):
        return chunk


@pytest.mark.slow
def test_what_ends_the_actors_ends_the_course(tiny, tmp_path):
    class Broken(Bandit):
        async def attempts(self, engine, version, *, ticket):
            if ticket == 4:
                raise RuntimeError("the lights went out")
            return await super().attempts(engine, version, ticket=ticket)

    student = Student(tiny, RECIPE, seed=1)
    engine = TransformersEngine(load_model(tiny), student.tokens, limits=EngineLimits(slots=36, context_tokens=64))
    ground = Broken(student.tokens, attempts_each=4)
    with pytest.raises(RuntimeError, match="lights went out"):
        Course(student, ground, recipe=replace(RECIPE, attempts=4), seed=1).run(apart=(engine, tmp_path))


def test_an_environment_that_only_fails_is_said(tiny):
    with pytest.raises(Invalid, match=r"failed inside the environment \(one of them: no door\)"):
        course(tiny, failing=True).run()


def engine_of(folder, student):
    return TransformersEngine(load_model(folder), student.tokens, limits=EngineLimits(slots=36, context_tokens=64))


def test_an_environment_that_only_fails_is_said_to_a_learner_apart(tiny, tmp_path):
    class Endless(Bandit):
        async def attempts(self, engine, version, *, ticket):
            if ticket > 99:
                raise RuntimeError("still at it")
            return await super().attempts(engine, version, ticket=ticket)

    student = Student(tiny, RECIPE, seed=1)
    ground = Endless(student.tokens, attempts_each=1, failing=True)
    with pytest.raises(Invalid, match="failed inside the environment"):
        Course(student, ground, recipe=RECIPE, seed=1).run(apart=(engine_of(tiny, student), tmp_path))


def test_apart_the_ground_is_used_from_one_thread(tiny, tmp_path):
    """A look, or a checkpoint, while a group is told of would read a curriculum that changes."""
    threads = {"attempts": set(), "look": [], "state": set()}

    class Watched(Bandit):
        async def attempts(self, engine, version, *, ticket):
            threads["attempts"].add(threading.get_ident())
            return await super().attempts(engine, version, ticket=ticket)

        async def look(self, engine, version):
            threads["look"].append(threading.get_ident())
            return await super().look(engine, version)

        def state(self):
            threads["state"].add(threading.get_ident())
            return super().state()

    student = Student(tiny, RECIPE, seed=1)
    recipe = replace(RECIPE, steps=3, look_every=1, save_every=1)
    ground = Watched(student.tokens, attempts_each=4)
    Course(student, ground, recipe=recipe, seed=1).run(apart=(engine_of(tiny, student), tmp_path))
    (actors,) = threads["attempts"]
    assert actors != threading.get_ident()
    assert threads["state"] == {actors} == set(threads["look"][1:])
    assert len(threads["look"]) == 4


def test_who_waits_for_actors_that_end_hears_what_ended_them(tiny, tmp_path):
    class Broken(Bandit):
        async def attempts(self, *_, **__):
            await asyncio.sleep(0.05)
            raise RuntimeError("the lights went out")

    student = Student(tiny, RECIPE, seed=1)
    buffer = ReplayBuffer(per_step=1, ahead=0)
    engine = engine_of(tiny, student)
    actors = Actors(Broken(student.tokens), buffer, engine=engine, folder=tmp_path, shape=RECIPE.lora)
    actors.start({}, update=0)
    for _ in range(2):  # while they live, and when they are gone
        with pytest.raises(RuntimeError, match="lights went out"):
            actors.run(asyncio.sleep(60))
    actors.close()


def test_no_reward_no_update(tiny):
    """Nothing sets the attempts of a task apart that nobody ever solves."""
    found = course(tiny, replace(RECIPE, steps=3, look_every=1), turns=6).run()
    assert [one["update"] for one in found.curve] == [0, 0, 0]
    assert (found.better, found.best_step) == (False, 0)
    assert found.curve[-1]["groups_failed"] == 3


def test_what_it_writes_has_the_log_probabilities_that_it_learns_from(tiny):
    student = Student(tiny, RECIPE, seed=1)
    with torch.no_grad():
        for one in student.weights.parameters():
            one.add_(0.1 * torch.randn(one.shape, generator=torch.Generator().manual_seed(3)))
    engine = LocalEngine(student, name=ALIAS)
    prompts = [(1, 8, 2), (1, 9, 3, 1, 8, 2), (1, 2)]

    async def written():
        async def one(number, prompt, temperature):
            sampling = Sampling(max_tokens=5, seed=number, temperature=temperature)
            return [chunk async for chunk in engine.generate(Prompt(token_ids=prompt), ALIAS, sampling=sampling)]

        return await asyncio.gather(*(one(i, p, t) for t in (1.0, 0.5) for i, p in enumerate(prompts)))

    found = asyncio.run(written())
    for place, (chunk,) in enumerate(found):
        prompt, temperature = prompts[place % 3], 1.0 if place < 3 else 0.5
        rows = student.rows([prompt], [chunk.token_ids])
        assert chunk.model_logprobs == pytest.approx(student.logprobs(rows)[0].tolist(), abs=1e-4)
        wanted = student.logprobs(rows, temperature=temperature)[0].tolist()
        assert chunk.sample_logprobs == pytest.approx(wanted, abs=1e-4)
    scored = asyncio.run(engine.score(Prompt(token_ids=prompts[0]), ALIAS, token_ids=found[0][0].token_ids))
    assert scored.model_logprobs == pytest.approx(found[0][0].model_logprobs, abs=1e-4)


def test_the_mark_is_of_everything_that_decides(tiny):
    ground = Bandit(Tokens.open(tiny))
    marks = {
        mark_of(tiny, ground, recipe=RECIPE, seed=0),
        mark_of(tiny, ground, recipe=RECIPE, seed=1),
        mark_of(tiny, ground, recipe=replace(RECIPE, gae=0.5), seed=0),
        mark_of(tiny, replace(ground, turns=3), recipe=RECIPE, seed=0),
    }
    assert len(marks) == 4
    assert mark_of(tiny, ground, recipe=RECIPE, seed=0) in marks


def test_settings_in_words():
    (found,) = settings_of(["steps=7", "gae=0.5", "full=true", "credit=turns", "rank=4"], PracticeRecipe)
    assert PracticeRecipe(**found) == replace(
        PracticeRecipe(), steps=7, gae=0.5, full=True, credit="turns", lora=LoraShape(rank=4)
    )  # fmt: skip
    for wrong in ("step=7", "steps", "steps=x", "full=1", "lora=3", "rank=x"):
        with pytest.raises(Invalid):
            settings_of([wrong], PracticeRecipe)
