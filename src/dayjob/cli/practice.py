"""dayjob practice: reinforcement learning on an environment, for a policy or for a model in a folder."""

import asyncio
import json
import uuid
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from dayjob.cli.output import DataOption, TenantOption, find_policy
from dayjob.cli.processes import ConfigOption, make_nights, prepare
from dayjob.endings import Invalid
from dayjob.journal.control import Control
from dayjob.journal.readers import Reader
from dayjob.practice.hosting import MOST_WORKERS
from dayjob.records import Json

if TYPE_CHECKING:
    from dayjob.learn.practice.course import Practised
    from dayjob.learn.practice.ground import Ground
    from dayjob.learn.practice.job import Plan
    from dayjob.learn.practice.student import Student

NEEDS_LANGUAGE = "practice needs {missing}, which is not installed: pip install 'dayjob[language]'"
REPORT = "practice.json"
IMAGINED = (
    "environment {env!r} is an application as a learned model imagines it: it needs that model in force, in a program "
    "that trained and opened it (`dayjob lab world` does); name an environment that stands on its own"
)


@dataclass(frozen=True, kw_only=True)
class Running:
    """Settings of a run that are neither the recipe's nor the tasks'."""

    seed: int = 0  # of everything that is drawn; a policy's course has the seed of its nights
    apart: bool = False  # actors in a thread and with a model of their own, at once with the learner
    workers: int = 0  # processes in which environments run; 0: in this one, where a step without end holds up all

    def __post_init__(self) -> None:
        if not 0 <= self.workers <= MOST_WORKERS:
            message = f"workers is {self.workers}: give a whole number from 0 (none) to {MOST_WORKERS}"
            raise Invalid(message, param="workers")
        if not 0 <= self.seed < 1 << 63:
            raise Invalid(f"seed is {self.seed}: give a whole number from 0 to 2**63 - 1", param="seed")


def practice(
    env: Annotated[str, typer.Argument(help='An environment: its name, or a spec such as \'{"env": "office"}\'.')],
    policy: Annotated[str | None, typer.Option(help="The language policy that is to get a challenger.")] = None,
    data: DataOption = None,
    model: Annotated[Path | None, typer.Option(help="In place of a policy: a model's folder.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where its adapter goes (or, with full=true, the model).")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE of the recipe or the tasks; again for more.")
    ] = None,
    tenant: TenantOption = "default",
    config: ConfigOption = None,
) -> None:
    """Practise in an environment: attempts, credit, updates; the best weights on held-out tasks are kept."""
    if (policy is None) == (model is None):
        raise Invalid("say who is to practise: --policy NAME, or --model FOLDER with --out FOLDER")
    if (model is None) != (out is None):
        raise Invalid("--model and --out go together: the folder of the model, and that of what it becomes")
    plan, running = _plan(read_spec(env), settings or [])
    if policy is not None:
        _for_policy(policy, plan, running, tenant=tenant, data=data, config=config)
    elif model is not None and out is not None:
        _for_model(model, plan, running, out=out)


def read_spec(env: str) -> Json:
    """``office`` or ``{"env": "office", "turns": 20}`` as a spec. Raises Invalid where there is no such environment."""
    from dayjob.practice.registry import ASSEMBLED, make

    spec: Any = {"env": env}
    if env.lstrip().startswith("{"):
        try:
            spec = json.loads(env)
        except ValueError as error:
            raise Invalid(f"the environment's spec is no JSON ({error})", param="env") from None
    if spec.get("env") in ASSEMBLED:
        raise Invalid(IMAGINED.format(env=spec["env"]), param="env")
    return make(spec).spec


def _plan(spec: Json, words: list[str]) -> tuple["Plan", Running]:
    try:
        from dayjob.lab.practice_ground import Tasks, open_ground
        from dayjob.learn.practice.job import Plan
        from dayjob.learn.practice.recipe import PracticeRecipe, settings_of
    except ModuleNotFoundError as error:
        raise Invalid(NEEDS_LANGUAGE.format(missing=error.name)) from None
    of_recipe, of_tasks, of_run = settings_of(words, PracticeRecipe, Tasks, Running)
    recipe, tasks, running = PracticeRecipe(**of_recipe), Tasks(**of_tasks), Running(**of_run)

    def ground(student: "Student") -> "Ground":
        fitting = replace(recipe, context_tokens=student.writer.context_tokens)
        opening = open_ground(
            spec, student.tokens, recipe=fitting, tasks=tasks, seed=running.seed, workers=running.workers
        )  # fmt: skip
        return asyncio.run(opening)

    return Plan(ground=ground, recipe=recipe), running


def _for_policy(
    policy: str, plan: "Plan", running: Running, *, tenant: str, data: Path | None, config: Path | None
) -> None:  # fmt: skip
    from dayjob.learn.practice.job import PracticeLearner

    if plan.recipe.full or running.apart:
        raise Invalid("a policy's versions are adapters, and their runs can be repeated: leave out full and apart")
    found, _ = prepare(data, config)
    control = Control(found.data)
    find_policy(control, tenant, policy)
    learner = PracticeLearner(
        found.data, control, Reader(found.data), threads=found.learner_threads, holder=f"practice-{uuid.uuid4()}",
        nights=make_nights(found, control),
    )  # fmt: skip
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task(f"practising {policy}", total=1.0)
        learner.told = lambda share: progress.update(bar, completed=share)
        result = learner.practise(policy, plan, tenant=tenant).result or {}
        progress.update(bar, completed=1.0)
    say = partial(Console(soft_wrap=True).print, highlight=False, markup=False)
    for line in _lines(result.get("practice", {}).get("looks", [])):
        say(line)
    challenger = result.get("challenger")
    say(f"{challenger} waits for the judge" if challenger else f"no challenger: {result['reason']}")


def _for_model(model: Path, plan: "Plan", running: Running, *, out: Path) -> None:
    from dayjob.learn.practice.job import practise_model, told_of
    from dayjob.learn.practice.student import save_full
    from dayjob.policies.language_train import write_adapter
    from dayjob.policies.model_folder import check_model

    if not model.is_dir():
        message = f"there is no folder {model}: name one with a model, as save_pretrained or `hf download` make it"
        raise Invalid(message, param="model")
    check_model(model)
    if out.exists() and any(out.iterdir()):
        raise Invalid(f"{out} is not empty: name another folder", param="out")
    checkpoint = out.with_name(f"{out.name}.course.safetensors")  # beside it: a folder of weights holds nothing else
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("practising", total=1.0)
        practised = practise_model(
            model, plan, seed=running.seed, checkpoint=checkpoint,
            engine=_engine(model, plan) if running.apart else None,
            progress=lambda share: progress.update(bar, completed=share),
        )  # fmt: skip
    say = partial(Console(soft_wrap=True).print, highlight=False, markup=False)
    for line in _lines([dict(one) for one in practised.looks]):
        say(line)
    if not practised.better:
        say("no weights did better on the tasks that choose than those it began with: nothing was written")
        return
    out.mkdir(parents=True, exist_ok=True)
    if plan.recipe.full:
        save_full(out, practised.best, base=model)
    else:
        write_adapter(out, practised.best, shape=plan.recipe.lora, base=str(model))
    (out / REPORT).write_text(json.dumps(_report(practised, told_of(practised)), indent=1) + "\n", encoding="utf-8")
    kept = _when(dict(practised.looks[practised.best_look]))
    say(f"{out} holds {'the model' if plan.recipe.full else 'its adapter'}, as after {kept}")


def _engine(model: Path, plan: "Plan") -> Any:
    """An engine for actors apart, on a copy of the model."""
    from dayjob.policies.engine_jobs import EngineLimits
    from dayjob.policies.engine_transformers import TransformersEngine, load_model, longest_context
    from dayjob.policies.tokens import Tokens

    loaded = load_model(model)
    context = min(plan.recipe.context_tokens, longest_context(loaded.config) or plan.recipe.context_tokens)
    limits = EngineLimits(slots=plan.recipe.slots, context_tokens=context, max_rank=max(64, plan.recipe.lora.rank))
    return TransformersEngine(loaded, Tokens.open(model), limits=limits)


def _lines(looks: list[Json]) -> list[str]:
    """Pass rates at held-out tasks."""
    told = []
    for one in looks:
        lost = one.get("failed", 0)
        why = f"; {lost:.0f} could not be attempted and count as not solved: see the log" if lost else ""
        greedy = f"{one['greedy']:.3f} by the most probable answers"
        told.append(
            f"{_when(one)}: {one['judge']:.3f} of attempts at held-out tasks solve them, {greedy}"
            f" (choosing: {one['score']:.3f}{why})"
        )
    return told


def _when(look: Json) -> str:
    is_warm = look["warmed"] and not look["step"]
    return f"step {look['step']}" + (", the warm start" if is_warm else "")


def _report(practised: "Practised", told: Json) -> Json:
    return told | {"curve": [dict(one) for one in practised.curve]}
