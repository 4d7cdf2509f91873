"""The office: jobs done by calls of a small application, over many turns, with one reward at the end.

The reward is read off the application's final state, never off the conversation: what the jobs wanted is there, nothing
that nobody wanted, and the day was finished. After every turn the same comparison gives the turn's own part
(`Step.progress`): how much nearer the state came than it ever was. Over an episode these parts add up to the best share
that was reached, and nothing is earned twice, so that credit by turn and by outcome can be compared on one task.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dayjob.endings import EpisodeEnding, Invalid
from dayjob.practice.calls import Call, describe_tool, read_calls, write_call
from dayjob.practice.environments.office_application import CALLS, TOOLS, OfficeApplication
from dayjob.practice.environments.office_jobs import (
    ALWAYS,
    CUSTOMERS,
    ITEMS,
    KINDS,
    USES,
    Day,
    changes,
    count_met,
    draw_day,
)
from dayjob.practice.protocol import Action, Direction, Episode, Mutation, Reward, Step, Task
from dayjob.practice.questions import check_choice, check_seed, check_whole, neighbours, rng_of, spec_of
from dayjob.records import Json

FINISH = "finish"
MOST_TURNS = 1000
_INBOX = "Work through the inbox. After the last message, finish."
_NO_CALL = "Error: say a call."


@dataclass(frozen=True, slots=True, kw_only=True)
class Office:
    """A day of jobs.

    ``turns``: exactly as many turns as the reference solution takes, one call each. ``kinds``: of jobs
    (`office_jobs.KINDS`), at least one of order, count and enter. ``items`` in stock and ``customers``: how large the
    office is. ``inbox``: jobs are read one by one by a call; else all stand in the first message. ``partial``: the
    reward is the share of what was wanted (finishing, when all else is done, is one of it) less what was not; else 1
    or 0. ``plain``: the manual shows calls in one
    line, else as tools for a chat template. ``manual``: the calls are shown at all. Raises Invalid for values outside
    their range.

    >>> Office(turns=4).reset(0).task.messages[-1]["content"]
    'Work through the inbox. After the last message, finish.'
    """

    turns: int = 5
    kinds: Sequence[str] = tuple(KINDS)
    items: int = 6
    customers: int = 4
    inbox: bool = True
    partial: bool = False
    plain: bool = True
    manual: bool = True

    def __post_init__(self) -> None:
        check_whole(self, {"turns": (4 if self.inbox else 2, MOST_TURNS), "items": (2, len(ITEMS)),
                           "customers": (1, len(CUSTOMERS))})  # fmt: skip
        for name in ("inbox", "partial", "plain", "manual"):
            if not isinstance(getattr(self, name), bool):
                raise Invalid(f"{name} must be true or false", param=name)
        chosen = check_choice(self, "kinds", known=tuple(KINDS))
        if not set(chosen) & set(ALWAYS):
            raise Invalid(f"kinds needs one of {', '.join(ALWAYS)}: they fill what is left of the turns", param="kinds")
        object.__setattr__(self, "kinds", chosen)

    @property
    def spec(self) -> Json:
        return spec_of("office", self)

    @property
    def max_turns(self) -> int:
        """A quarter more than the reference takes, and two: room for a few mistakes."""
        return self.turns + self.turns // 4 + 2

    def reset(self, seed: int) -> Episode:
        """As `Environment.reset`."""
        return OfficeEpisode(self._task(day := self.day(seed)), day, partial=self.partial)

    def reference(self, seed: int) -> Sequence[Action]:
        """As `Environment.reference`."""
        return tuple(Action(text=write_call(call, plain=self.plain)) for call in self._solution(self.day(seed)))

    def mutations(self) -> Sequence[Mutation]:
        """As `Environment.mutations`."""
        easier, harder = Direction.EASIER, Direction.HARDER
        fewer, more = self._kinds_beside()
        return neighbours(
            self.spec,
            [
                ("half as long", easier, {"turns": max(4 if self.inbox else 2, self.turns // 2)}),
                ("twice as long", harder, {"turns": self.turns * 2}),
                ("one kind of job less", easier, {"kinds": fewer}),
                ("one kind of job more", harder, {"kinds": more}),
                ("smaller", easier, {"items": self.items - 2, "customers": max(1, self.customers - 2)}),
                ("larger", harder, {"items": self.items + 2, "customers": self.customers + 2}),
                ("all said at once", easier, {"inbox": False} if self.turns <= 10 else {}),
                ("from the inbox", harder, {"inbox": True}),
                ("a share counts", easier, {"partial": True}),
                ("all or nothing", harder, {"partial": False}),
                ("with the manual", easier, {"manual": True}),
                ("without the manual", harder, {"manual": False}),
            ],
            make=lambda settings: Office(**settings),
        )

    def day(self, seed: int) -> Day:
        """The day of a seed: its start, its jobs, and what the state must hold after."""
        rng = rng_of("office", check_seed(seed))
        # The finish, and reading that there is nothing more.
        calls = self.turns - 1 - int(self.inbox)
        return draw_day(
            rng, kinds=self.kinds, items=self.items, customers=self.customers, calls=calls, inbox=self.inbox
        )

    def application(self, seed: int) -> OfficeApplication:
        """The application as the task of this seed finds it."""
        return OfficeApplication(self.day(seed).start)

    def _kinds_beside(self) -> tuple[list[str], list[str]]:
        """One kind less (the hardest) and one more (the easiest that is missing)."""
        chosen = [kind for kind in KINDS if kind in self.kinds]
        missing = [kind for kind in KINDS if kind not in self.kinds]
        return chosen[:-1], chosen + missing[:1]

    def _solution(self, day: Day) -> Iterator[Call]:
        for job in day.jobs:
            if self.inbox:
                yield Call(name="next")
            yield from job.calls
        if self.inbox:
            yield Call(name="next")
        yield Call(name=FINISH)

    def _task(self, day: Day) -> Task:
        used = {"next"} if self.inbox else set()
        used.update(name for kind in self.kinds for name in USES[kind])
        shown = [name for name in CALLS if name in used] if self.manual else []
        said = _INBOX if self.inbox else " ".join([*(job.said for job in day.jobs), "Then finish."])
        messages: list[Json] = [{"role": "user", "content": said}]
        tools: tuple[Json, ...] = ()
        if shown and self.plain:
            lines = [write_call(Call(name=name, arguments=dict(CALLS[name][1])), plain=True) for name in shown]
            lines.append(f"call {FINISH}")
            messages.insert(0, {"role": "system", "content": "\n".join(["One call a turn:", *lines])})
        elif shown:
            tools = (*(TOOLS[name] for name in shown), describe_tool(FINISH, "All is done.", parameters={}))
        return Task(messages=tuple(messages), tools=tools, max_turns=self.max_turns, answer_tokens=64)


class OfficeEpisode:
    """One attempt at a day."""

    def __init__(self, task: Task, day: Day, *, partial: bool) -> None:
        self._task, self._day, self._partial = task, day, partial
        self._application = OfficeApplication(day.start)
        self._turns, self._best, self._over = 0, 0.0, False

    @property
    def task(self) -> Task:
        return self._task

    @property
    def application(self) -> OfficeApplication:
        """The application as it stands now."""
        return self._application

    async def step(self, action: Action) -> Step:
        """As `Episode.step`. Parts of the reward: "work", the share of what was wanted that is there; "harmless", 1
        less the share of what was done that nobody wanted; "finished"; "read", the share of the inbox that was read."""
        if self._over:
            raise Invalid("this episode is over: reset for another", param="action")
        self._turns += 1
        calls, answers, finished = read_calls(action.text), [], False
        for call in calls:
            if call.name == FINISH and not call.error:
                finished = True
                break
            answers.append(self._application.call(call))
        met, harm = count_met(changes(self._day.start, self._application.state), self._day.wanted)
        wanted = self._day.wanted.total()
        all_done = met == wanted and not harm
        # Finishing is the last thing that is wanted: worth nothing before the rest is there.
        share = (max(0, met - harm) + int(all_done and finished)) / (wanted + 1)
        progress, self._best = max(0.0, share - self._best), max(share, self._best)
        if finished or self._turns == self._task.max_turns:
            self._over = True
            state = self._application.state
            parts = {"work": met / wanted, "harmless": 1 - harm / max(1, met + harm), "finished": float(finished)}
            if state.inbox:
                parts["read"] = state.read / len(state.inbox)
            reward = Reward(value=share if self._partial else float(share == 1), parts=parts)
            return Step(
                progress=progress, reward=reward, ending=EpisodeEnding.DONE if finished else EpisodeEnding.TURNS
            )
        messages = tuple({"role": "tool", "content": answer} for answer in answers or [_NO_CALL])
        return Step(messages=messages, progress=progress)

    async def close(self) -> None:
        """As `Episode.close`."""
        self._over = True
