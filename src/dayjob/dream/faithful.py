"""Does a program answer as the real application did? Its answers to recorded calls that its author never saw.

The program is put into the state after a recorded conversation, hears the recorded call, and its answer is compared
word for word, spaces and case apart. Where it says that it does not know, it claims nothing; a program that claims too
little is not shown to be faithful.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from dayjob.dream.excerpts import Transition
from dayjob.practice.environments.program import Program, ProgramEpisode
from dayjob.practice.environments.program_wire import ProgramFault
from dayjob.practice.protocol import Action
from dayjob.records import Json
from dayjob.signals.intervals import wilson

MOST_ASKED = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Of ``asked`` real transitions the program claimed to know ``claimed``, and ``agreed`` of those were right."""

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
