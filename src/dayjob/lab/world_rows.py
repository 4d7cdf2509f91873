"""The pieces of `dayjob lab world`: a policy that was shown a few days, its record, a model of the office.

All methods of a seed have the same demonstrations and the same number of real episodes. Real tasks, imagined ones and
those that judge have seeds of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from dayjob.dream.plan import Plan, Planner, Spent
from dayjob.dream.world import Accuracy, EngineResponder, Episode, measure, of_trajectory, sayings, split
from dayjob.endings import EpisodeEnding, Invalid
from dayjob.learn.language.recipes import NightRecipe
from dayjob.learn.practice.course import Course
from dayjob.learn.practice.ground import Ids, Look
from dayjob.learn.practice.local import LocalEngine
from dayjob.learn.practice.recipe import PracticeRecipe
from dayjob.learn.practice.student import Student
from dayjob.learn.practice.world import WORLD, Row, learn_rows
from dayjob.policies.adapters import WEIGHTS, file_digests
from dayjob.policies.engine_protocol import Engine
from dayjob.policies.language_train import write_adapter
from dayjob.practice.actor import EngineActor
from dayjob.practice.environments.office import Office
from dayjob.practice.environments.world import World
from dayjob.practice.protocol import Environment
from dayjob.practice.rollout import Actor, roll
from dayjob.records import Json, Trajectory

SHOWN, RECORDED, PRACTISED, JUDGED = (10_000 * number for number in range(1, 5))  # first seeds of what tasks are for
SLOW_S = 3600.0  # an imagined step waits for a whole batch of the model
POLICY, MODEL = "policy", "world"
LOST = (EpisodeEnding.FAILED, EpisodeEnding.TIMEOUT, EpisodeEnding.ABORTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Of one seed: which office, how much of everything, and where what was learned is kept."""

    seed: int
    model: Path
    work: Path
    office: Office
    shown: int
    recorded: int
    judged: int
    depth: int
    warm: NightRecipe
    world: NightRecipe = WORLD
    practice: PracticeRecipe = field(default_factory=PracticeRecipe)

    def seeds(self, role: int, count: int) -> range:
        """Tasks of a role, apart from those of other roles and seeds."""
        first = 1_000_000 * (self.seed + 1) + role
        return range(first, first + count)


class Writer:
    """One model with one adapter, in process: as an engine, and what reads its prompts."""

    def __init__(self, setting: Setting, state: Mapping[str, Tensor], *, name: str) -> None:
        self.student = Student(setting.model, setting.practice, seed=setting.seed)
        if state:
            self.student.lora.restore(dict(state))
        self.engine = LocalEngine(self.student, name=name)
        self.room = self.student.writer.context_tokens

    def render(self, messages: Sequence[Json], tools: Sequence[Json] = ()) -> Ids:
        """The prompt of a conversation."""
        return self.student.tokens.render(messages, tools=tools)

    def actor(self, *, temperature: float = 1.0) -> EngineActor:
        """Acts by this model."""
        return EngineActor(
            self.engine, POLICY, render=self.render, context_tokens=self.room, temperature=temperature
        )  # fmt: skip

    def responder(self, digest: str) -> EngineResponder:
        """Answers as the application by this model."""
        return EngineResponder(
            self.engine, MODEL, digest=digest, render=self.render, encode=self.student.tokens.encode,
            context_tokens=self.room, max_tokens=48,
        )  # fmt: skip


def learned(setting: Setting, name: str, *, rows: Sequence[Row], stop: Sequence[Row], recipe: NightRecipe) -> Path:
    """The folder of an adapter that says what these rows say; kept. Raises Invalid where nothing was learned."""
    folder = setting.work / name
    if not folder.exists():
        setting.work.mkdir(parents=True, exist_ok=True)
        night = learn_rows(
            setting.model, rows, stop=stop, recipe=recipe, seed=setting.seed,
            checkpoint=setting.work / f"{name}.safetensors",
        )  # fmt: skip
        if not night.state:
            raise Invalid(f"{name}: {night.why}", param="model")
        _publish(folder, night.state, recipe)
    return folder


def _publish(folder: Path, state: Mapping[str, Tensor], recipe: NightRecipe | PracticeRecipe) -> None:
    partial = folder.with_name(f"{folder.name}.partial")
    write_adapter(partial, state, shape=recipe.lora, base="base")
    partial.rename(folder)


def state_of(folder: Path) -> dict[str, Tensor]:
    """An adapter's factors."""
    found: dict[str, Tensor] = safetensors.torch.load_file(folder / WEIGHTS)
    return found


def demonstrations(setting: Setting) -> tuple[list[Row], list[Row]]:
    """Turns of reference solutions, and those that early stopping reads: a fifth of the days."""

    async def play() -> list[list[Row]]:
        return [await _turns(setting.office, seed) for seed in setting.seeds(SHOWN, setting.shown)]

    days, held = asyncio.run(play()), max(1, setting.shown // 5)
    return [row for day in days[held:] for row in day], [row for day in days[:held] for row in day]


async def _turns(office: Office, seed: int) -> list[Row]:
    episode, rows = office.reset(seed), []
    messages = list(episode.task.messages)
    for action in office.reference(seed):
        rows.append((tuple(messages), action.text))
        step = await episode.step(action)
        messages += [{"role": "assistant", "content": action.text}, *step.messages]
    return rows


async def record(setting: Setting, actor: Actor) -> list[Episode]:
    """Real episodes of a policy, as a journal would hold them."""
    seeds = setting.seeds(RECORDED, setting.recorded)
    found = roll(setting.office, seeds, actor=actor, seed=setting.seed, step_timeout_s=SLOW_S)
    played = sorted([one async for one in found if one.ending not in LOST], key=lambda one: one.seed)
    return [of_trajectory(one) for one in played]


def world_model(setting: Setting, episodes: Sequence[Episode]) -> tuple[Path, tuple[Episode, ...]]:
    """The folder of a model of the office that learned from these episodes, and those that measure it."""
    parts = split(episodes)
    rows, stop = ([(one.messages, one.text) for each in part for one in sayings(each)]
                  for part in (parts.learn, parts.stop))  # fmt: skip
    return learned(setting, MODEL, rows=rows, stop=stop, recipe=setting.world), parts.measure


def digest_of(folder: Path) -> str:
    """Of an adapter's weights."""
    return dict(file_digests(folder))[WEIGHTS][:16]


def accuracy(setting: Setting, responder: EngineResponder, *, episodes: Sequence[Episode]) -> Accuracy:
    """The world model's error by step on episodes that it did not learn from."""
    return asyncio.run(measure(episodes, responder, depth=setting.depth, seed=setting.seed))


@dataclass(slots=True, kw_only=True)
class Practised:
    """A `learn.practice.ground.Ground`: attempts in an office, real or imagined. Looks cost nothing: the last weights
    are kept, for looking at real tasks would be further real episodes."""

    environment: Environment
    setting: Setting
    writer: Writer
    looks: int = 0
    turns: int = 0  # of the actor

    @property
    def mark(self) -> str:
        """See the protocol."""
        return repr(self.environment.spec)

    async def attempts(self, engine: Engine, version: str, *, ticket: int) -> list[Trajectory]:
        """See the protocol."""
        actor = EngineActor(engine, version, render=self.writer.render, context_tokens=self.writer.room)
        seeds = [self.setting.seeds(PRACTISED, 1)[0] + ticket]
        found = roll(
            self.environment, seeds, actor=actor, attempts=self.setting.practice.attempts, seed=ticket,
            step_timeout_s=SLOW_S,
        )  # fmt: skip
        done = [one async for one in found]
        self.turns += sum(len(one.turns) for one in done)
        return done

    async def look(self, engine: Engine, version: str) -> Look:  # noqa: ARG002
        """See the protocol."""
        self.looks += 1
        return Look(score=float(self.looks))

    def curated(self) -> Sequence[tuple[Ids, Ids]]:
        """See the protocol: the policy was shown its days before."""
        return ()

    def state(self) -> Json:
        """See the protocol."""
        return {"looks": self.looks, "turns": self.turns}

    def restore(self, state: Json) -> None:
        """See the protocol."""
        self.looks, self.turns = int(state["looks"]), int(state["turns"])


def practised(setting: Setting, name: str, *, environment: Environment, warm: Path, steps: int) -> tuple[Path, int]:
    """(the folder of an adapter that practised for so many steps from ``warm`` on, turns that it took)."""
    folder, told = setting.work / name, setting.work / f"{name}.turns"
    if not folder.exists():
        writer = Writer(setting, state_of(warm), name=POLICY)
        ground = Practised(environment=environment, setting=setting, writer=writer)
        recipe = replace(setting.practice, steps=steps, look_every=0)
        made = Course(writer.student, ground, recipe=recipe, seed=setting.seed).run()
        told.write_text(str(ground.turns), encoding="utf-8")
        _publish(folder, made.last, recipe)
    return folder, int(told.read_text(encoding="utf-8"))


def imagined_office(setting: Setting, digest: str, *, episodes: Sequence[Episode], horizon: int) -> World:
    """The office as its model imagines it: tasks that were really set."""
    return World(
        model=digest, tasks=[{"messages": list(one.messages[: one.start])} for one in episodes], horizon=horizon,
        max_turns=setting.office.max_turns,
    )  # fmt: skip


async def judged(setting: Setting, actor: Actor) -> dict[str, Any]:
    """What an actor reaches on real tasks that nobody practised on."""
    seeds = setting.seeds(JUDGED, setting.judged)
    found = [one async for one in roll(setting.office, seeds, actor=actor, seed=setting.seed, step_timeout_s=SLOW_S)]
    solved = [one.reward for one in sorted(found, key=lambda one: one.seed)]
    return {"solved": solved, "turns": sum(len(one.turns) for one in found)}


def planned(
    setting: Setting, writer: Writer, *, responder: EngineResponder, plan: Plan, horizon: int
) -> dict[str, Any]:  # fmt: skip
    """The same with looking ahead, ``horizon`` imagined answers at most, and what it cost."""
    spent = Spent()
    actor = Planner(actor=writer.actor(), responder=responder, plan=plan, horizon=horizon, spent=spent)
    found = asyncio.run(judged(setting, actor))
    return found | {
        "imagined_per_real": spent.imagined_per_real, "valued_per_real": spent.valued / max(spent.real, 1),
        "changed": spent.changed / max(spent.real, 1),
    }  # fmt: skip
