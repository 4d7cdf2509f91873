"""dayjob learn and dayjob gate: the two processes beside the server, or run by hand."""

import contextlib
import logging
import os
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from dayjob.cli.assemble import LANGUAGE_RECIPES, RECIPES, load_ranker
from dayjob.cli.bases import find_base
from dayjob.cli.dreams import Dreamer, ask_after_nights
from dayjob.cli.output import DataOption, JsonOption, TenantOption, again, find_policy, print_json
from dayjob.config import Config, load_config
from dayjob.endings import Conflict, DayjobError, Invalid, JobState, PolicyKind
from dayjob.gate.judge import Judge, wall_ms
from dayjob.gate.language import LanguageJudge
from dayjob.gate.shares import Traffic
from dayjob.journal.control import Control
from dayjob.journal.jobs import get_job
from dayjob.journal.join import window_of
from dayjob.journal.layers import address_of, frozen_of, policy_of
from dayjob.journal.notes import NotesReader
from dayjob.journal.plain import iso
from dayjob.journal.readers import Reader
from dayjob.memory.notes import NotesMemory
from dayjob.records import Job, Json, Lease, Policy, Verdict

if TYPE_CHECKING:
    from dayjob.learn.language.job import Nights
    from dayjob.learn.loop import Learner

STAYS = "the job was asked for before and stays queued, for a learner that can do it: {lack}"
NEEDS_TORCH = "learning needs {missing}, which is not installed: pip install 'dayjob[learn]'"
MOST_COUNTED = 1_000_000
FollowOption = Annotated[bool, typer.Option("--follow", help="Go on until stopped.")]
ConfigOption = Annotated[Path | None, typer.Option(help="A dayjob.toml.")]
PARENT_ENV = "_DAYJOB_PARENT"  # the server that started this process, and with which it ends


def gate(
    data: DataOption = None, follow: FollowOption = False, config: ConfigOption = None, as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Judge closed decisions: once, or for as long as it runs. Says where every policy stands."""
    if follow and as_json:
        raise Invalid("--follow goes on for ever and prints nothing: leave out --json, or --follow")
    settings, stop = prepare(data, config)
    control, reader = Control(settings.data), Reader(settings.data)
    judge = Judge(
        control, reader, load_ranker=partial(load_ranker, settings.data), holder=f"judge-{uuid.uuid4()}",
        traffic=Traffic.of(settings), reserve=settings.ballast_bytes,
    )  # fmt: skip
    language = LanguageJudge(
        control, reader, holder=judge.holder, window_s=settings.session_window_s, reserve=settings.ballast_bytes,
        now_ms=wall_ms,
    )  # fmt: skip
    while not stop.is_set():
        judged = judge.step() + language.step()
        if not judged:
            if not follow:
                break
            stop.wait(settings.judge_every_s)
    tokens = {key: case.token for cases in (judge.cases, language.cases) for key, case in cases.items()}
    for key, token in tokens.items():  # whoever judges next need not wait for our leases to run out
        lease = Lease(name="judge/" + "/".join(key), holder=judge.holder, token=token, until_ms=0)
        with contextlib.suppress(DayjobError):
            control.release_lease(lease)
    if follow:
        return
    stands = [_standing(control, reader, policy, here=set(tokens)) for policy in control.policies()]
    if as_json:
        print_json(stands)
        return
    for one in stands:
        Console(soft_wrap=True).print("\n".join(_lines(one)), highlight=False, markup=False)
    if not stands:
        Console().print("there is no policy yet: nothing to judge")


def _standing(control: Control, reader: Reader, policy: Policy, *, here: set[tuple[str, str]]) -> Json:
    """Where a policy stands before the judge: what serves, what is on trial, what was said last, what still waits."""
    key, ranks = (policy.tenant, policy.name), policy.kind is PolicyKind.RANKER
    pointers, verdicts = control.pointers(*key), control.verdicts(*key, limit=1)
    report = control.state(*key, "report") or {}
    through = int(report.get("gate", {}).get("judged_through", 0))
    waiting = int(report.get("gate", {}).get("lag", 0))  # of a language policy: sessions
    if ranks:
        through = int((control.state(*key, "judge") or {}).get("cursor", 0))
        waiting = reader.count_closed(*key, after=through, window=window_of(policy.spec), most=MOST_COUNTED)
    trial = report.get("gate", {}).get("trial")
    if trial is not None and trial.get("challenger") != pointers.challenger:
        trial = None  # of a trial that ended since the report was written
    return {
        "tenant": policy.tenant, "policy": policy.name, "kind": policy.kind.value, "judged_here": key in here,
        "frozen": bool(pointers.frozen or control.freeze_file()), "champion": pointers.champion,
        "challenger": pointers.challenger, "judged_through": through, "waiting": waiting,
        "trial": None if trial is None else str(trial["reason"]),
        "feedback": report.get("feedback", {}).get("state"),
        "last_verdict": None if not verdicts else verdict_view(verdicts[-1]),
    }  # fmt: skip


def verdict_view(verdict: Verdict) -> Json:
    """A verdict for people."""
    return {
        "kind": verdict.kind.value, "challenger": verdict.challenger, "champion": verdict.champion,
        "reason": verdict.reason, "by": verdict.by, "at": iso(verdict.at_ms),
    }  # fmt: skip


def _lines(stand: Json) -> list[str]:
    """The same in words."""
    where = "" if stand["tenant"] == "default" else f" (tenant {stand['tenant']})"
    lines = [f"{stand['policy']}{where}: {stand['champion']} is champion" + (", frozen" if stand["frozen"] else "")]
    if not stand["judged_here"]:
        lines.append("  not judged here: another judge holds it, a running server's or one that ended seconds ago")
    ranks = stand["kind"] == PolicyKind.RANKER.value
    if stand["waiting"]:
        lines.append(f"  {stand['waiting']:,} closed {'decisions' if ranks else 'sessions'} still wait to be judged")
    else:
        lines.append(f"  every closed {'decision' if ranks else 'session'} is judged")
    if stand["challenger"] is None:
        lines.append("  no challenger is on trial")
    else:
        lines.append(f"  {stand['challenger']} is on trial" + (f": {stand['trial']}" if stand["trial"] else ""))
    if stand["feedback"] is not None:
        lines.append(f"  {'clicks' if ranks else 'feedback'}: {stand['feedback']}")
    last = stand["last_verdict"]
    if last is not None:
        lines.append(
            f"  last verdict: {_said(last)} of {last['challenger']} against {last['champion']}. {last['reason']}"
        )
    return lines


def _said(verdict: Json) -> str:
    """A verdict's kind, and who said it where it was not the gate."""
    if verdict["by"] in ("erasure", "unlearning"):
        return "rebuilding"
    return str(verdict["kind"]) + (" by hand" if verdict["by"] == "hand" else "")


def learn(
    data: DataOption = None,
    follow: FollowOption = False,
    policy: Annotated[str | None, typer.Option(help="Learn this policy now.")] = None,
    recipe: Annotated[str | None, typer.Option(help="With this recipe, not the policy's own.")] = None,
    user: Annotated[str | None, typer.Option(help="Learn this person's layer of a language policy.")] = None,
    tenant: TenantOption = "default",
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Turn the journal into new challengers: one policy now, or jobs as they come."""
    if policy is None and not follow:
        raise Invalid("say what to learn: --policy NAME, or --follow to take jobs as they come")
    if policy is not None and follow:
        raise Invalid("--policy learns once and --follow takes jobs as they come: leave one of them out")
    if follow and as_json:
        raise Invalid("--follow goes on for ever and prints nothing: leave out --json, or --follow")
    if user is not None and policy is None:
        raise Invalid("--user learns one person's layer of a policy: name it with --policy")
    settings, stop = prepare(data, config)
    control = Control(settings.data)
    if policy is not None:
        check_learnable(control, tenant, policy, recipe=recipe, user=user)
    learner = make_learner(settings, control)
    if policy is None:
        while not stop.is_set():
            if not learner.step(watch_counts=True):
                stop.wait(settings.judge_every_s)
            elif settings.dream_nightly:
                ask_after_nights(control, budget=settings.dream_budget)
        return
    asked = learner.ask(policy, recipe=recipe, tenant=tenant, user=user)
    done = follow_job(learner, asked, stop=stop, every_s=settings.judge_every_s, words=f"learning {policy}")
    print_job(done, as_json=as_json, lines=_learned)


def follow_job(learner: "Learner", asked: Job, *, stop: threading.Event, every_s: float, words: str) -> Job:
    """Do this job and no other, or wait while another learner that took it first does; how it stands then.

    Raises Invalid where somebody asked for it before and this learner cannot do it: it stays queued.
    """
    control = learner.control
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task(words, total=1.0)
        learner.told = lambda share: progress.update(bar, completed=share)
        while not stop.is_set() and _waits(control, asked):
            if not learner.step(watch_counts=False, only=asked):
                waits = get_job(control, asked.tenant, asked.id).state is JobState.QUEUED
                if waits and (lack := learner.lacks(asked)) and not learner.frozen(asked.tenant, asked.policy):
                    raise Invalid(STAYS.format(lack=lack))
                progress.update(bar, completed=get_job(control, asked.tenant, asked.id).progress)
                stop.wait(every_s)
        progress.update(bar, completed=1.0)
    return get_job(control, asked.tenant, asked.id)


def make_learner(settings: Config, control: Control) -> "Learner":
    """A learner of what is installed. Raises Invalid without torch."""
    try:
        # torch is heavy, and only this process needs it.
        from dayjob.learn.loop import Learner
    except ModuleNotFoundError as error:
        raise Invalid(NEEDS_TORCH.format(missing=error.name)) from None
    reader, nights = Reader(settings.data), make_nights(settings, control)
    dreamer = Dreamer(settings=settings, control=control, reader=reader, nights=nights)
    learner = Learner(
        settings.data, control, reader, threads=settings.learner_threads, holder=f"learner-{uuid.uuid4()}",
        nights=nights, dream=dreamer,
    )  # fmt: skip
    learner.lacks_for_dreams = dreamer.lacks
    return learner


def make_nights(settings: Config, control: Control) -> "Nights | None":
    """What language policies learn with; None where no base is configured, or what they need is not installed."""
    if not settings.bases:
        return None
    try:
        from dayjob.learn.language.job import Nights
        from dayjob.learn.language.recipes import recipes_with
        from dayjob.learn.language.suites import with_bundled
    except ModuleNotFoundError:
        return None  # rankers learn all the same; a job of a language policy says what is missing
    memory = NotesMemory(
        NotesReader(settings.data), control, silent=control.silent_people, agree=settings.notes_agree
    )  # fmt: skip
    return Nights(
        memory=memory, find_base=partial(find_base, settings.bases), notes_tokens=settings.notes_tokens,
        devices={base.name: base.device for base in settings.bases},
        templates={base.name: base.template for base in settings.bases},
        suites=with_bundled(settings.suites), canaries=settings.canaries, recipes=recipes_with(settings.recipes),
    )  # fmt: skip


def check_learnable(
    control: Control, tenant: str, policy: str, *, recipe: str | None, user: str | None
) -> None:  # fmt: skip
    """Raises NotFound, Invalid or Conflict for what would fail only later."""
    ranks = find_policy(control, tenant, policy).kind is PolicyKind.RANKER
    recipes = RECIPES if ranks else LANGUAGE_RECIPES
    if ranks and user is not None:
        raise Invalid(f"policy {policy!r} is a ranker, which everybody shares: leave out --user")
    if recipe is not None and recipe not in recipes:
        raise Invalid(f"there is no recipe {recipe!r}: use one of {', '.join(recipes)}")
    if control.pointers(tenant, policy).frozen:
        thaw = again(f"freeze {policy} --off", control.root, tenant=tenant)
        raise Conflict(f"policy {policy!r} is frozen: first run {thaw}")
    if control.freeze_file():
        raise Conflict(f"everything is frozen by the file {control.root / 'freeze'}: remove it first")
    if user is not None and frozen_of(control, tenant, address_of(control, tenant, policy, user)):
        thaw = again(f"freeze {policy} --user {user} --off", control.root, tenant=tenant)
        raise Conflict(f"the adapter of {user} is frozen: first run {thaw}")


def _waits(control: Control, asked: Job) -> bool:
    """Whether the job is still to be done: by this learner, or by another that took it first."""
    return get_job(control, asked.tenant, asked.id).state in (JobState.QUEUED, JobState.RUNNING)


def print_job(job: Job, *, as_json: bool, lines: Callable[[Json], Sequence[str]]) -> None:
    """What came of a job asked for by hand, ``lines`` of its result where it is done. Raises Invalid when it failed."""
    if as_json:
        print_json({"job": job.id, "policy": policy_of(job.policy), "recipe": job.recipe, "state": job.state.value,
                    "result": job.result, "error": job.error})  # fmt: skip
    if job.state is JobState.FAILED:
        raise Invalid(str(job.error))
    if as_json:
        return
    say = partial(Console(soft_wrap=True).print, highlight=False, markup=False)
    if job.state is not JobState.SUCCEEDED:
        say(f"job {job.id} is {job.state}: stopped before its end; a learner takes it up again")
        return
    for line in lines(job.result or {}):
        say(line)


def _learned(result: Json) -> list[str]:
    if not result.get("challenger"):
        return [f"no challenger: {result.get('reason')}"]
    return [f"{result['challenger']} learned from {result['decisions']:,} decisions; the judge comes next"]


def prepare(data: Path | None, config: Path | None) -> tuple[Config, threading.Event]:
    """The settings, and an event that SIGTERM sets, and the end of the server that started this process."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr)
    settings = load_config(flags={"data": data, "config": config}, environ=os.environ, directory=Path.cwd()).config
    if not (settings.data / "journal.db").exists():
        raise Invalid(f"{settings.data} holds no journal: start `dayjob serve --data {settings.data}` first")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    parent = os.environ.get(PARENT_ENV)
    if parent is not None:
        threading.Thread(target=_end_with_parent, args=(int(parent), stop), daemon=True).start()
    return settings, stop


def _end_with_parent(parent: int, stop: threading.Event) -> None:
    """A server that was killed, even while this process started, must not leave a judge that moves pointers unseen."""
    while os.getppid() == parent and not stop.wait(1.0):
        pass
    stop.set()
