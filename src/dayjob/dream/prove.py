"""The proof of an environment, before anybody learns from it. Each check must hold; the first that does not is the
reason why the environment is rejected.

1. *loads*: it sets a task for every seed that is tried, in time;
2. *deterministic*: in two sandboxes, in another order and side by side, the same seeds and actions say the same bytes;
3. *reference*: its reference solution earns the reward 1;
4. *trivial*: silence, an echo of the request and words at random earn it for no seed;
5. *faithful*: its answers agree with real transitions that its author never saw (`dream.faithful`);
6. *useful*: the policy as it stands solves it sometimes and not always. Where it never does, the task begins with part
   of the solution shown, as little as it takes.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from random import Random

from dayjob.dream.excerpts import Transition
from dayjob.dream.faithful import agreement
from dayjob.dream.propose import Proposal
from dayjob.endings import EpisodeEnding, Invalid
from dayjob.practice.environments.program import Program, close_idle
from dayjob.practice.environments.program_wire import ProgramFault
from dayjob.practice.protocol import Action, Episode, Step
from dayjob.practice.rollout import Actor, roll
from dayjob.records import Json, Trajectory
from dayjob.signals.intervals import wilson

PROOF_SEED = 1 << 40  # tasks from here on are for proofs; rehearsal has those below
TRIVIAL_TURNS = 4
_Try = Callable[[], Awaitable[Json]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Demands:
    """What a proof asks for. Raises Invalid for what nothing could fulfil."""

    seeds: int = 16  # tasks that the checks look at
    attempts: int = 4  # of the policy, at each
    agree: float = 0.8  # share of the claimed transitions
    claims: int = 5  # at least, that it was compared on
    most_shown: int = 8  # actions of the reference
    seconds: float = 300.0  # for all of it

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
    rehearsed in, with what has to be shown; None unless all hold."""

    proposal: Proposal
    checks: tuple[Check, ...]
    program: Program | None = None

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

    def __init__(self, reason: str, **figures: float) -> None:
        super().__init__(reason)
        self.figures = figures


async def prove(
    proposal: Proposal, *, held_out: Sequence[Transition], actor: Actor | None, demands: Demands | None = None
) -> Proof:
    """All the checks. ``actor``: the policy as it stands; None leaves *useful* out. Never raises for what a program
    does."""
    demands = demands or Demands()
    proving = _Proving(proposal, held_out, actor, demands)
    steps = [*proving.of_itself(), ("faithful", proving.faithful)] + ([("useful", proving.useful)] if actor else [])
    checks = await _checked_all(steps, seconds=demands.seconds)
    sound = all(one.holds for one in checks)
    return Proof(proposal=proposal, checks=checks, program=proving.program if sound else None)


async def fault_of(proposal: Proposal, *, demands: Demands | None = None) -> str:
    """What is wrong with a program by itself (the first four checks), "" where nothing is: for an author who may try
    again."""
    demands = demands or Demands()
    steps = _Proving(proposal, (), None, demands).of_itself()
    checks = await _checked_all(steps, seconds=demands.seconds)
    return Proof(proposal=proposal, checks=checks).reason


async def _checked_all(steps: Sequence[tuple[str, _Try]], *, seconds: float) -> tuple[Check, ...]:
    """To the first that does not hold."""
    checks: list[Check] = []
    try:
        async with asyncio.timeout(seconds):
            for name, check in steps:
                checks.append(await _checked(name, check))
                if not checks[-1].holds:
                    break
    except TimeoutError:
        late = steps[len(checks)][0]
        checks.append(Check(name=late, holds=False, reason=f"the proof's {seconds:g} seconds were spent"))
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

    def __init__(
        self, proposal: Proposal, held_out: Sequence[Transition], actor: Actor | None, demands: Demands
    ) -> None:
        self._proposal, self._held_out, self._actor, self._demands = proposal, held_out, actor, demands
        self._seeds = range(PROOF_SEED, PROOF_SEED + demands.seeds)
        self._program: Program | None = None

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
        self._program = Program(source=self._proposal.source, name=self._proposal.name)
        openings = set()
        for seed in self._seeds:
            episode = self._program.reset(seed)
            openings.add(json.dumps(episode.task.messages))
            await episode.close()
        return {"tasks": len(openings)}

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
        best = 0.0
        for seed in self._seeds:
            for name, actions in (await self._idle(seed)).items():
                reward = _reward(await _play(self.program.reset(seed), actions))
                best = max(best, reward)
                if reward == 1.0:
                    raise _Fails(f"{name} solves seed {seed}", best=best)
        return {"best": best}

    async def _idle(self, seed: int) -> dict[str, list[str]]:
        """What nobody should be paid for, by name."""
        episode = self.program.reset(seed)
        await episode.close()
        asked = " ".join(str(one["content"]) for one in episode.task.messages if one["role"] == "user")
        known = asked.split() or ["yes"]
        rng = Random(f"idle {seed}")
        noise = [" ".join(rng.choices(known, k=rng.randrange(1, 6))) for _ in range(TRIVIAL_TURNS)]
        return {
            "silence": [""] * TRIVIAL_TURNS, "an echo of the request": [asked] * TRIVIAL_TURNS,
            "saying yes": ["yes"] * TRIVIAL_TURNS, "noise": noise, "a single word of the request": [known[-1]],
        }  # fmt: skip

    async def faithful(self) -> Json:
        found = await agreement(self.program, self._held_out)
        figures = found.told()
        low, high = found.interval
        if found.claimed < self._demands.claims:
            raise _Fails(
                f"it can be compared with {found.claimed} of {found.asked} real answers kept from its author, and "
                f"{self._demands.claims} are needed", **figures,
            )  # fmt: skip
        if found.share < self._demands.agree:
            raise _Fails(
                f"{found.agreed} of {found.claimed} answers agree with the real ones ({found.share:.0%}, from "
                f"{low:.0%} to {high:.0%}), and {self._demands.agree:.0%} are needed", **figures,
            )  # fmt: skip
        return figures

    async def useful(self) -> Json:
        assert self._actor is not None, "who asks for this check says who acts"
        longest = max(len(self.program.reference(seed)) for seed in self._seeds)
        for shown in range(min(longest, self._demands.most_shown + 1)):
            program = replace(self.program, shown=shown)
            found = await pass_rate(program, self._seeds, actor=self._actor, attempts=self._demands.attempts)
            figures = found.told() | {"shown": shown}
            if found.rate == 1.0:
                if shown:
                    break
                raise _Fails("the policy solves it always: there is nothing to learn", **figures)
            if found.rate > 0.0:
                self._program = program
                return figures
        raise _Fails("the policy solves it never, or always once enough of the solution is shown", **figures)


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


def tokens_of(attempt: Trajectory) -> int:
    """What a learner reads of it: of every turn the prompt and what was said."""
    return sum(len(turn.prompt_ids) + len(turn.token_ids) for turn in attempt.turns)


async def pass_rate(program: Program, seeds: Sequence[int], *, actor: Actor, attempts: int) -> PassRate:
    """Let the policy try. Raises ProgramFault where the program's own code fails."""
    solved = count = tokens = 0
    async for one in roll(program, seeds, actor=actor, attempts=attempts):
        if one.ending in (EpisodeEnding.FAILED, EpisodeEnding.TIMEOUT):
            raise ProgramFault("it failed while the policy tried")
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
