"""An environment that can be wrong in every way that the contract battery knows. Installed by the tests as "wrong"."""

import itertools
import os
import signal
import time
from dataclasses import dataclass, replace

from dayjob.endings import EpisodeEnding, Invalid
from dayjob.fakes_practice import FakeEnvironment
from dayjob.practice.protocol import Action, Direction, Mutation, Reward, Step

COUNTER = itertools.count()
STATE = {"last": 0, "nonsense": 0}


@dataclass(frozen=True)
class Wrong:
    """A counting environment of two turns with one fault."""

    fault: str = ""
    marker: str = ""  # a file: whoever makes it first dies
    turns: int = 2

    @property
    def spec(self):
        spec = {"env": "wrong", "fault": self.fault, "marker": self.marker, "turns": self.turns}
        if self.fault == "a set in the spec":
            spec["more"] = {1}
        if self.fault == "tuples in the spec":
            spec["more"] = (1,)
        if self.fault == "no name":
            del spec["env"]
        if self.fault == "no default in the spec":
            spec["turns"] += 1
        if self.fault == "a spec of the moment":
            spec["marker"] = str(next(COUNTER))
        return spec

    def reset(self, seed):
        if self.fault == "one task" and seed >= 0:
            seed = 1
        if self.fault == "learns nonsense" and seed >= 0:
            seed += STATE["nonsense"]
        if self.fault == "any seed":
            seed = abs(seed)
        if self.fault == "chance":
            seed = int.from_bytes(os.urandom(4), "big") if seed >= 0 else seed
        if self.fault == "hash" and seed > 0:
            seed = abs(hash(f"task {seed}"))
        if self.fault == "ageing" and seed >= 0:
            seed += next(COUNTER) // 10
        if self.fault == "dies in a reset":
            os.kill(os.getpid(), signal.SIGKILL)
        STATE["last"] = seed
        return WrongEpisode(self, seed)

    def reference(self, seed):
        actions = FakeEnvironment(turns=self.turns).reference(1 if self.fault == "one task" else seed)
        return {
            "no reference": (),
            "a wrong reference": (*actions[:-1], Action(text="0")),
            "a short reference": actions[:-1],
            "a long reference": (*actions, Action(text="0")),
        }.get(self.fault, actions)

    def mutations(self):
        other = replace(self, turns=self.turns + 1)
        found = [Mutation(name="more turns", direction=Direction.HARDER, spec=other.spec)]
        if self.fault == "a mutation that is none":
            found = [Mutation(name="same", direction=Direction.HARDER, spec=self.spec)]
        if self.fault == "a mutation that cannot be made":
            found = [Mutation(name="odd", direction=Direction.HARDER, spec={"env": "wrong", "size": 1})]
        if self.fault == "learns nonsense":
            found = []
        if self.fault == "two of a name":
            found *= 2
        if self.fault == "an unsolvable mutation":
            spec = replace(self, fault="a wrong reference").spec
            found = [Mutation(name="worse", direction=Direction.HARDER, spec=spec)]
        if self.fault == "a mutation of chance":
            found = [Mutation(name="odd", direction=Direction.HARDER, spec=replace(self, fault="chance").spec)]
        return found


class WrongEpisode:
    def __init__(self, environment, seed):
        self.environment, self.fault, self.seed = environment, environment.fault, seed
        self.inner = FakeEnvironment(turns=environment.turns).reset(seed)
        self.over = self.closed = False
        self.turns = 0
        self.task = self.inner.task
        if self.fault == "a strange role":
            self.task = replace(self.task, messages=({"role": "judge", "content": "After 2 comes?"},))
        if self.fault == "nobody asks":
            self.task = replace(self.task, messages=({"role": "assistant", "content": "After 2 comes?"},))
        if self.fault == "no turns":
            self.task = replace(self.task, max_turns=0)
        if self.fault == "half characters":
            self.task = replace(self.task, messages=({"role": "user", "content": "\ud800"},))

    async def step(self, action):
        if self.over and self.fault == "steps after the end":
            return Step(reward=Reward(value=0.0), ending=EpisodeEnding.DONE)
        if self.over:
            raise Invalid("this episode is over")
        self.turns += 1
        self._act_up(action)
        step = await self.inner.step(action)
        if self.fault == "shared state" and STATE["last"] != self.seed:
            step = replace(step, progress=0.25)
        if self.fault == "a number of tool calls" and "tool_call" in action.text:
            raise ValueError("strange text")
        if self.fault == "pays for silence" and not action.text:
            step = self.end(1.0)
        if self.fault == "pays for an echo" and action.text == self.task.messages[-1]["content"]:
            step = self.end(1.0)
        if self.fault == "pays for yes" and action.text == "yes":
            step = self.end(1.0)
        asked = self.task.messages[-1]["content"]
        if self.fault == "pays for any word" and set(action.text.split()) < set(asked.split()) and action.text.strip():
            step = self.end(1.0)
        if self.fault == "pays twice":
            step = replace(step, reward=Reward(value=0.5))
        if self.fault == "pays 2" and step.reward:
            step = replace(step, reward=Reward(value=2.0))
        if self.fault == "a part of nan" and step.reward:
            step = replace(step, reward=replace(step.reward, parts={"share": float("nan")}))
        if self.fault == "ill progress":
            step = replace(step, progress=-0.5)
        if self.fault == "odd tools":
            step = replace(step, messages=({"role": "tool", "content": "x", "call": {1}},), reward=None, ending=None)
        if self.fault == "goes on" and step.ending:
            step = Step(messages=({"role": "user", "content": "After 2 comes?"},))
        if self.fault == "last words" and step.ending:
            step = replace(step, messages=({"role": "user", "content": "Bye."},))
        if self.fault == "says nothing" and not step.ending:
            step = replace(step, messages=())
        self.over = step.ending is not None
        return step

    def _act_up(self, action):
        """Faults that reach beyond the episode."""
        if action.text == "''; drop table":
            STATE["nonsense"] = 1
        if self.fault == "computes without end" and self.seed % 2:
            while True:
                time.sleep(0.01)
        if self.fault == "dies" and self.seed % 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "dies once" and not os.path.exists(self.environment.marker):
            with open(self.environment.marker, "w"):
                os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "prints":
            print("not an answer", action, flush=True)

    def end(self, value):
        return Step(reward=Reward(value=value), ending=EpisodeEnding.DONE)

    async def close(self):
        if self.closed and self.fault == "closes once":
            raise RuntimeError("already closed")
        self.closed = True
