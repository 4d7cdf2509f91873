"""Does a program answer as the real application did? Its answers to recorded calls that its author never saw.

The program is put into the state after a recorded conversation, hears the recorded call, and its answer is compared
word for word, spaces and case apart. Where it says that it does not know, it claims nothing; a program that claims too
little is not shown to be faithful.

That is how it answers behind a recorded conversation; how it answers in its own tasks, which are what is rehearsed, is
another question. So its own solutions are played, and where an answer is to a call that the record knows, behind the
same calls, it has to be one that the record has.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from dayjob.dream.excerpts import Transition
from dayjob.practice.calls import Call, read_calls
from dayjob.practice.environments.program import Program, ProgramEpisode
from dayjob.practice.environments.program_wire import ProgramFault
from dayjob.practice.protocol import Action
from dayjob.records import Json
from dayjob.signals.intervals import wilson

MOST_ASKED = 200


_Said = tuple[str, ...]  # the calls of a conversation so far, in its order


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Of ``asked`` real transitions the program claimed to know ``claimed``, and ``agreed`` of those were right. Of its
    own tasks ``asked`` are its answers to the calls of its solutions, and ``claimed`` those that the record knows."""

    asked: int
    claimed: int
    agreed: int

    @property
    def share(self) -> float:
        """Of the claimed ones, that agree; 0 where nothing is claimed."""
        return self.agreed / self.claimed if self.claimed else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Of the share, at 95 %."""
        return wilson(self.agreed, self.claimed)

    def told(self) -> Json:
        """As the store keeps it."""
        return asdict(self) | {"share": self.share, "interval": list(self.interval)}


async def agreement(program: Program, held_out: Sequence[Transition]) -> Agreement:
    """Ask the newest of the held-out transitions. Raises ProgramFault where the program fails at one."""
    asked = held_out[-MOST_ASKED:]
    claimed = agreed = 0
    for one in asked:
        said = await _answer(program, one)
        claimed += said is not None
        agreed += said is not None and _plain(said) == _plain(one.answer)
    return Agreement(asked=len(asked), claimed=claimed, agreed=agreed)


async def own_agreement(program: Program, seeds: Sequence[int], *, record: Iterable[Transition]) -> Agreement:
    """Play its own solutions of these tasks as they are rehearsed, against every answer that the record has to the same
    call behind the same calls. Raises ProgramFault where the program fails."""
    known: defaultdict[_Said, set[str]] = defaultdict(set)
    for one in record:
        before = [str(each["content"]) for each in one.before if each["role"] == "assistant"]
        known[_calls(before)].add(_plain(one.answer))
    asked = claimed = agreed = 0
    for seed in seeds:
        said: list[str] = []
        episode = program.reset(seed)
        try:
            for action in program.reference(seed):
                said.append(action.text)
                step = await episode.step(action)
                answers = [str(each["content"]) for each in step.messages if each["role"] == "tool"]
                if answers and read_calls(action.text):
                    real = known.get(_calls(said), set())
                    asked, claimed = asked + 1, claimed + bool(real)
                    agreed += _plain("\n".join(answers)) in real
                if step.ending is not None:
                    break
        finally:
            await episode.close()
    return Agreement(asked=asked, claimed=claimed, agreed=agreed)


def _calls(said: Iterable[str]) -> _Said:
    """Whichever way they were written."""
    return tuple(_key(call) for text in said for call in read_calls(text))


def _key(call: Call) -> str:
    told = sorted((str(name), _plain(_text(value))) for name, value in call.arguments.items())
    return json.dumps([call.name, told])


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


async def _answer(program: Program, one: Transition) -> str | None:
    """What the program says; None where it claims nothing."""
    episode = ProgramEpisode.after(program, one.before[:-1])
    try:
        step, sure = await episode.told(Action(text=str(one.before[-1]["content"])))
    finally:
        await episode.close()
    if step.ending is not None:
        raise ProgramFault("it ended the episode at a call that the real application answered")
    return "\n".join(str(each["content"]) for each in step.messages) if sure else None


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
