"""dayjob dream: rehearse in environments built from the record, now and by hand."""

from functools import partial
from typing import Annotated

import typer
from rich.console import Console

from dayjob.cli.output import DataOption, JsonOption, PolicyArgument, TenantOption, print_json
from dayjob.cli.processes import ConfigOption, check_learnable, follow_job, make_learner, prepare
from dayjob.endings import Invalid, JobState
from dayjob.journal.control import Control
from dayjob.journal.jobs import MOST_BUDGET, dream_recipe
from dayjob.records import Job, Json


def dream(
    policy: PolicyArgument,
    data: DataOption = None,
    budget: Annotated[
        float | None, typer.Option(help=f"Compute, times that of the night without: above 0 to {MOST_BUDGET:g}.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="Dream for this person's layer of a language policy.")] = None,
    tenant: TenantOption = "default",
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Build environments from the record, prove them, rehearse in them; the gate judges what comes of it."""
    settings, stop = prepare(data, config)
    control = Control(settings.data)
    recipe = dream_recipe(settings.dream_budget if budget is None else budget)
    check_learnable(control, tenant, policy, recipe=None, user=user)
    learner = make_learner(settings, control)
    asked = learner.ask(policy, recipe=recipe, tenant=tenant, user=user)
    done = follow_job(learner, asked, stop=stop, every_s=settings.judge_every_s, words=f"dreaming of {policy}")
    _print(done, as_json=as_json)


def _print(job: Job, *, as_json: bool) -> None:
    """What came of it. Raises Invalid when it failed."""
    result = job.result or {}
    if as_json:
        told = {"job": job.id, "recipe": job.recipe, "state": job.state.value, "result": job.result, "error": job.error}
        print_json(told)
    if job.state is JobState.FAILED:
        raise Invalid(str(job.error))
    if as_json:
        return
    say = partial(Console(soft_wrap=True).print, highlight=False, markup=False)
    if job.state is not JobState.SUCCEEDED:
        say(f"job {job.id} is {job.state}: stopped before its end; a learner takes it up again")
        return
    for line in _lines(result.get("dream", {})):
        say(line)
    challenger = result.get("challenger")
    say(f"{challenger} waits for the gate" if challenger else f"no challenger: {result.get('reason')}")


def _lines(told: Json) -> list[str]:
    """A language policy's dream: the environments, and the rehearsal."""
    lines = []
    for one in told.get("environments", ()):
        stands = "admitted" if one["admitted"] else f"rejected: {one['reason']}"
        lines.append(f"{one['name']} (by {one['author']}): {stands}")
        if one["admitted"] and one["after"] is not None:
            shown = f", with {one['shown']} of the solution shown" if one["shown"] else ""
            lines.append(f"  solved {one['before']:.0%} before the rehearsal, {one['after']:.0%} after{shown}")
    lines += [f"the author: {fault}" for fault in told.get("faults", ())]
    if told.get("episodes"):
        lines.append(f"{told['episodes']:,} attempts, {told['tokens']:,} tokens, best after {told['steps']} steps")
    return lines
