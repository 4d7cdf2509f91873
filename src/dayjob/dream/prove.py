"""The proof of an environment, before anybody learns from it. Each check must hold; the first that does not is the
reason why the environment is rejected.

1. *loads*: it sets a task for every seed that is tried, in time;
2. *deterministic*: in two sandboxes, in another order and side by side, the same seeds and actions say the same bytes;
3. *reference*: its reference solution earns the reward 1;
4. *trivial*: silence, an echo of the request and words at random, to the end of the episode, earn it for no seed, and
   hardly anything on average;
5. *faithful*: its answers agree with real transitions that its author never saw, and its answers in its own tasks with
   the record where that knows the call (`dream.faithful`);
6. *useful*: the policy as it stands solves it sometimes and not always. Where it never does, the task begins with part
   of the solution shown, as little as it takes, and is trivial neither then.

The time of a proof is the program's own: how long the policy takes over its attempts decides nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from dayjob.dream.apart import Apart, Held, check_held, hold
from dayjob.dream.excerpts import Transition
from dayjob.dream.faithful import Agreement, agreement, own_agreement
from dayjob.dream.propose import Proposal
from dayjob.dream.trivial import paid
from dayjob.endings import EpisodeEnding, Invalid
from dayjob.practice.environments.program import Program, answering_within, close_idle
from dayjob.practice.environments.program_wire import ProgramFault
from dayjob.practice.protocol import Action, Episode, Step
from dayjob.practice.rollout import Actor, roll
from dayjob.records import Json, Trajectory
from dayjob.signals.intervals import wilson

# The sandbox holds a program to its own time. What else an answer waits for is the policy, or the turn of others.
STEP_S = 3_600.0
UNSOUND = (EpisodeEnding.FAILED, EpisodeEnding.TIMEOUT)
_Try = Callable[[], Awaitable[Json]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Demands:
    """What a proof asks for. Raises Invalid for what nothing could fulfil."""

    seeds: int = 16  # tasks that the checks look at
    attempts: int = 4  # of the policy, at each
    agree: float = 0.8  # share of the claimed transitions
    claims: int = 5  # at least, that it was compared on
    most_shown: int = 8  # actions of the reference
    seconds: float = 300.0  # of the program's own, for all of its answers

    def __post_init__(self) -> None:
        for name in ("seeds", "attempts", "claims", "seconds"):
            if getattr(self, name) <= 0:
                raise Invalid(f"{name} is {getattr(self, name)}: above 0", param=name)
        if not 0 < self.agree <= 1:
            raise Invalid(f"agree is {self.agree}: above 0 and at most 1", param="agree")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One of the checks: whether it holds, why not, and its figures."""

    name: str
    holds: bool
    reason: str = ""
    figures: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What was found of a proposal, check by check, to the first that does not hold. ``program``: as it is to be
    rehearsed in, with what has to be shown; None unless all hold. ``held``: the tasks that nobody rehearses."""

    proposal: Proposal
    checks: tuple[Check, ...]
    program: Program | None = None
    held: Held = field(default_factory=Held)

    @property
    def reason(self) -> str:
        """Why it is rejected; "" for an admitted one."""
        return next((f"{one.name}: {one.reason}" for one in self.checks if not one.holds), "")

    def told(self) -> Json:
        """As the store keeps it: no word of anybody's."""
        proposal = self.proposal
        return {
            "name": proposal.name, "author": proposal.author, "digest": proposal.digest,
            "admitted": self.program is not None, "reason": self.reason,
            "shown": 0 if self.program is None else self.program.shown,
            "checks": [asdict(one) for one in self.checks],
        }  # fmt: skip


class _Fails(Exception):
    """A check does not hold."""

    def __init__(self, reason: str, **figures: Any) -> None:
        super().__init__(reason)
        self.figures = figures


async def prove(
    proposal: Proposal, *, held_out: Sequence[Transition], actor: Actor | None, demands: Demands | None = None,
    record: Sequence[Transition] = (), apart: Apart | None = None,
) -> Proof:  # fmt: skip
    """All the checks. ``held_out``: transitions that its author never saw; ``record``: all there are. ``actor``: the
    policy as it stands; None leaves *useful* out. Never raises for what a program does."""
    demands = demands or Demands()
    proving = _Proving(proposal, actor=actor, demands=demands, apart=apart or Apart())

    async def faithful() -> Json:
        return await proving.faithful(held_out, record)

    steps = [*proving.of_itself(), ("faithful", faithful)] + ([("useful", proving.useful)] if actor else [])
    checks = await _checked_all(proposal, steps, seconds=demands.seconds)
    sound = all(one.holds for one in checks)
    return Proof(proposal=proposal, checks=checks, program=proving.program if sound else None, held=proving.held)


async def fault_of(proposal: Proposal, *, demands: Demands | None = None) -> str:
    """What is wrong with a program by itself (the first four checks), "" where nothing is: for an author who may try
    again."""
    demands = demands or Demands()
    steps = _Proving(proposal, actor=None, demands=demands, apart=Apart()).of_itself()
    checks = await _checked_all(proposal, steps, seconds=demands.seconds)
    return Proof(proposal=proposal, checks=checks).reason


async def _checked_all(
    proposal: Proposal, steps: Sequence[tuple[str, _Try]], *, seconds: float
) -> tuple[Check, ...]:  # fmt: skip
    """To the first that does not hold."""
    checks: list[Check] = []
    try:
        with answering_within(proposal.source, seconds):
            for name, check in steps:
                checks.append(await _checked(name, check))
                if not checks[-1].holds:
                    break
    finally:
        close_idle()
    return tuple(checks)


async def _checked(name: str, check: _Try) -> Check:
    try:
        return Check(name=name, holds=True, figures=await check())
    except _Fails as failed:
        return Check(name=name, holds=False, reason=str(failed), figures=dict(failed.figures))
    except (ProgramFault, Invalid) as fault:
        return Check(name=name, holds=False, reason=str(fault))


class _Proving:
    """One proof."""

    def __init__(self, proposal: Proposal, *, actor: Actor | None, demands: Demands, apart: Apart) -> None:
        self._proposal, self._actor, self._demands, self._apart = proposal, actor, demands, apart
        self._program: Program | None = None
        self.held = Held()

    @property
    def _seeds(self) -> tuple[int, ...]:
        """Of different tasks, what is rehearsed among them: a check teaches nobody anything."""
        return self.held.seeds[: self._demands.seeds]

    @property
    def program(self) -> Program:
        assert self._program is not None, "it loads first"
        return self._program

    def of_itself(self) -> list[tuple[str, _Try]]:
        """The checks that need neither the record nor the policy."""
        return [
            ("loads", self.loads), ("deterministic", self.deterministic), ("reference", self.reference),
            ("trivial", self.trivial),
        ]  # fmt: skip

    async def loads(self) -> Json:
        self._program = Program(source=self._proposal.source, name=self._proposal.name, key=self._apart.key)
        self.held = await hold(self._program, count=self._demands.seeds, apart=self._apart)
        check_held(self.held)
        return {"tasks": len(self.held.seeds), "kept": 2 * self.held.each, "asked": self.held.asked}

    async def deterministic(self) -> Json:
        said = {seed: await self._transcript(seed) for seed in self._seeds}
        close_idle()  # the second time in another sandbox
        backwards = list(self._seeds)[::-1]
        again = await asyncio.gather(*(self._transcript(seed) for seed in backwards))
        for seed, text in zip(backwards, again, strict=True):
            if text != said[seed]:
                raise _Fails(f"seed {seed} says one thing and another the second time")
        return {"digest": hashlib.sha256("".join(said.values()).encode()).hexdigest()}

    async def _transcript(self, seed: int) -> str:
        """Everything that it says on a seed: to its own solution, and to words."""
        solution = [one.text for one in self.program.reference(seed)]
        out = []
        for actions in (solution, ["", "yes"], [f"{one} again" for one in solution]):
            episode = self.program.reset(seed)
            steps = await _play(episode, actions)
            out.append(repr((episode.task, steps)))
        return "\n".join((json.dumps(solution), *out))

    async def reference(self) -> Json:
        lengths = []
        for seed in self._seeds:
            actions = [one.text for one in self.program.reference(seed)]
            if not actions:
                raise _Fails(f"it has no reference solution for seed {seed}")
            reward = _reward(await _play(self.program.reset(seed), actions))
            if reward != 1.0:
                raise _Fails(f"its reference solution earns {reward:g} on seed {seed}, not 1")
            lengths.append(len(actions))
        return {"turns": sum(lengths) / len(lengths)}

    async def trivial(self) -> Json:
        fault, best = await paid(self.program, self._seeds)
        if fault:
            raise _Fails(fault, best=best)
        return {"best": best}

    async def faithful(self, held_out: Sequence[Transition], record: Sequence[Transition]) -> Json:
        found = await agreement(self.program, held_out)
        own = await own_agreement(self.program, self.held.seeds, record=record)
        figures = found.told() | {"own": own.told()}
        if found.claimed < self._demands.claims:
            raise _Fails(
                f"it can be compared with {found.claimed} of {found.asked} real answers kept from its author, and "
                f"{self._demands.claims} are needed", **figures,
            )  # fmt: skip
        for one, which in ((found, "answers"), (own, "answers in its own tasks")):
            if one.claimed >= self._demands.claims and one.share < self._demands.agree:
                raise _Fails(_disagrees(one, which, agree=self._demands.agree), **figures)
        return figures

    async def useful(self) -> Json:
        assert self._actor is not None, "who asks for this check says who acts"
        tasks, demands = self.held.proof, self._demands
        attempts = attempts_each(tasks, demands)
        longest = max(len(self.program.reference(seed)) for seed in self._seeds)
        for shown in range(min(longest, demands.most_shown + 1)):
            program = replace(self.program, shown=shown)
            found = await pass_rate(program, tasks, actor=self._actor, attempts=attempts)
            figures = found.told() | {"shown": shown}
            if found.rate == 1.0:
                if shown:
                    break
                raise _Fails("the policy solves it always: there is nothing to learn", **figures)
            if found.rate > 0.0:
                fault, _ = await paid(program, self._seeds) if shown else ("", 0.0)
                if fault:
                    raise _Fails(f"with {shown} of its actions shown, {fault}", **figures)
                self._program = program
                return figures
        raise _Fails("the policy solves it never, or always once enough of the solution is shown", **figures)


def _disagrees(found: Agreement, which: str, *, agree: float) -> str:
    low, high = found.interval
    return (
        f"{found.agreed} of {found.claimed} {which} agree with the real ones ({found.share:.0%}, from {low:.0%} to "
        f"{high:.0%}), and {agree:.0%} are needed"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PassRate:
    """Of ``attempts`` attempts ``solved`` earned the reward 1; ``tokens``: what a learner would read of them all."""

    solved: int
    attempts: int
    tokens: int

    @property
    def rate(self) -> float:
        """The share that was solved."""
        return self.solved / max(1, self.attempts)

    def told(self) -> Json:
        """As a check's figures."""
        low, high = wilson(self.solved, self.attempts)
        return {
            "pass_rate": self.rate, "attempts": self.attempts, "low": low, "high": high,
            "tokens": self.tokens / max(1, self.attempts),
        }  # fmt: skip


def attempts_each(tasks: Sequence[int], demands: Demands) -> int:
    """How often each task of a proof is attempted: where there are few, the more often."""
    return math.ceil(demands.seeds * demands.attempts / len(tasks))


def tokens_of(attempt: Trajectory) -> int:
    """What a learner reads of it: of every turn the prompt and what was said."""
    return sum(len(turn.prompt_ids) + len(turn.token_ids) for turn in attempt.turns)


async def pass_rate(program: Program, seeds: Sequence[int], *, actor: Actor, attempts: int) -> PassRate:
    """Let the policy try. Raises ProgramFault where the program's own code fails, or sets what the policy cannot
    read."""
    solved = count = tokens = 0
    async for one in roll(program, seeds, actor=actor, attempts=attempts, step_timeout_s=STEP_S):
        if one.ending in UNSOUND:
            raise ProgramFault("it failed while the policy tried, or its task cannot be put to this model")
        solved += one.reward == 1.0
        count += 1
        tokens += tokens_of(one)
    return PassRate(solved=solved, attempts=count, tokens=tokens)


async def _play(episode: Episode, actions: Sequence[str]) -> list[Step]:
    """Say these, one a turn, to the end."""
    steps = []
    try:
        for text in actions:
            steps.append(await episode.step(Action(text=text)))
            if steps[-1].ending is not None:
                break
    finally:
        await episode.close()
    return steps


def _reward(steps: Sequence[Step]) -> float:
    """What was earned; 0 where it never came to an end."""
    return steps[-1].reward.value if steps and steps[-1].reward else 0.0
