"""dayjob dream: rehearse in environments built from the record, now and by hand."""

from typing import Annotated

import typer

from dayjob.cli.output import DataOption, JsonOption, PolicyArgument, TenantOption
from dayjob.cli.processes import ConfigOption, check_learnable, follow_job, make_learner, prepare, print_job
from dayjob.journal.control import Control
from dayjob.journal.jobs import MOST_BUDGET, dream_recipe
from dayjob.records import Json


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
    print_job(done, as_json=as_json, lines=_lines)


def _lines(result: Json) -> list[str]:
    """What came of it; of a language policy's dream first the environments, and the rehearsal."""
    told, lines = result.get("dream", {}), []
    for one in told.get("environments", ()):
        stands = "admitted" if one["admitted"] else f"rejected: {one['reason']}"
        lines.append(f"{one['name']} (by {one['author']}): {stands}")
        if one["admitted"] and one["after"] is not None:
            shown = f", with {one['shown']} of the solution shown" if one["shown"] else ""
            lines.append(f"  solved {one['before']:.0%} before the rehearsal, {one['after']:.0%} after{shown}")
    lines += [f"the author: {fault}" for fault in told.get("faults", ())]
    if told.get("episodes"):
        lines.append(f"{told['episodes']:,} attempts, {told['tokens']:,} tokens, best after {told['steps']} steps")
    challenger = result.get("challenger")
    return [*lines, f"{challenger} waits for the gate" if challenger else f"no challenger: {result.get('reason')}"]
