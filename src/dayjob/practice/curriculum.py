"""Which task to practise next: where the policy sometimes succeeds, and sometimes not.

A curriculum knows tasks (specs of environments) by the rewards that attempts at them had, and nothing else. It begins
with what shall be learned and finds neighbours by mutation (`practice.mutate.neighbours`): easier ones of a task that
is never solved, harder ones of a task that nearly always is.

**What is chosen.** A group of attempts at a task that is solved with probability p carries a gradient in proportion to
p (1 - p). The pass rate is a Beta distribution over counts that fade: with every group, because the policy moves, and
with all other practice, because what was known of a task gets old. From each distribution one rate is drawn (Thompson,
1933), and the task with the largest p (1 - p) is next. So what is unknown is tried, what is useful is repeated, and
what is impossible or mastered is looked at again as seldom as it fades, the impossible ever more rarely. Rewards
between 0 and 1 count too: their variance within groups is a signal where nothing passes yet.

A share of the proposals is kept apart: *replay* of mastered tasks, the one not seen for longest first, and *mining*:
seeds that failed in a task that mostly succeeds come again, every other time as a mutation of that task.

Pure: no clock, no I/O, no global randomness. The state is JSON; a curriculum that is opened from it goes on as if it
had never stopped, but for proposals that were not answered, which are forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from random import Random

from dayjob.endings import Invalid
from dayjob.practice import mutate
from dayjob.practice.curriculum_counts import PASSED, Counts, binary_entropy
from dayjob.practice.protocol import Direction, Mutation
from dayjob.practice.questions import rng_of
from dayjob.practice.registry import digest
from dayjob.records import Json

STATE = 1  # the version of the state's shape
NEARLY = 0.5  # from this pass rate on, failed seeds are kept
MOST_FAILURES = 32  # kept of a task
TARGET_WEIGHT = 1.5  # what shall be learned, against a neighbour that is as useful
CROWD = 4  # proposals without an answer that halve a task's weight
NO_SIGNAL = 0.01  # a variance of rewards below this teaches nothing

Neighbours = Callable[[Json], Sequence[Mutation]]
Proposal = tuple[Json, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a curriculum weighs. Raises Invalid for values outside their range.

    >>> Plan().mastered
    0.9
    """

    seed: int = 0
    replay: float = 0.1  # share of proposals
    mining: float = 0.15  # share of proposals, while there are failures to mine
    mastered: float = 0.9  # pass rate
    tries: int = 24  # attempts after which never solved, or mastered, is believed
    window: int = 96  # attempts at a task that its pass rate is taken over
    half_life: int = 2048  # attempts at anything after which what was known counts half
    most: int = 48  # tasks that are kept
    beyond: bool = True  # harder ones of what shall be learned, too, once it is mastered

    def __post_init__(self) -> None:
        if min(self.replay, self.mining) < 0 or self.replay + self.mining >= 1:
            raise Invalid("replay and mining are shares, together below 1", param="replay")
        if not 0.5 < self.mastered < 1:
            raise Invalid("mastered must be above 0.5 and below 1", param="mastered")
        if min(self.tries, self.half_life, self.most) < 1 or self.window < self.tries:
            raise Invalid("tries, half_life and most must be at least 1, window at least tries", param="window")


@dataclass(slots=True, kw_only=True)
class _Known:
    """A task, and what is known of it."""

    spec: Json
    name: str  # of the mutation it came from; "" for what shall be learned
    parent: str | None = None
    counts: Counts = field(default_factory=Counts)
    at: int = 0  # attempts at anything, when it was last told of
    waiting: int = 0  # proposals that are not answered
    issued: int = 0  # fresh seeds
    level: int = 0  # 1: solved half the time; 2: mastered. The highest it ever was
    grown: list[str] = field(default_factory=list)  # directions whose neighbours were taken in
    failures: list[int] = field(default_factory=list)  # seeds, the one that waited longest first


class Curriculum:
    """Tasks to practise, and what is known of them."""

    def __init__(self, plan: Plan, neighbours: Neighbours) -> None:
        """Empty: use :meth:`open`."""
        self._plan, self._neighbours = plan, neighbours
        self._known: dict[str, _Known] = {}
        self._clock = 0  # attempts told of
        self._draws = 0
        self._bits = self._rich_bits = 0.0

    @classmethod
    def open(
        cls, source: Json | Sequence[Json], *, plan: Plan | None = None, neighbours: Neighbours = mutate.neighbours
    ) -> Curriculum:
        """From what shall be learned (a spec or several), or from a state (its own plan then holds, unless one is
        given). Raises Invalid for anything else."""
        if isinstance(source, dict) and "curriculum" in source:
            return cls._restore(source, plan, neighbours)
        made = cls(plan or Plan(), neighbours)
        for spec in [source] if isinstance(source, dict) else source:
            if not isinstance(spec, dict) or not isinstance(spec.get("env"), str):
                raise Invalid('a curriculum opens with specs such as {"env": "arithmetic"}', param="spec")
            made._known[digest(spec)] = _Known(spec=spec, name="")
        if not made._known:
            raise Invalid("name at least one task that shall be learned", param="spec")
        return made

    def next(self, count: int) -> list[Proposal]:
        """The next ``count`` (spec, seed of a task), one for each group of attempts. May be asked again before they
        are told of."""
        return [self._propose() for _ in range(count)]

    def tell(self, spec: Json, seed: int, *, rewards: Sequence[float], parts: Sequence[dict[str, float]] = ()) -> None:
        """The rewards of a group of attempts at one task, each in [0, 1]; none where all of them were lost. ``parts``
        of each, where there are any, count only for :meth:`report`. What is no longer kept is not looked at.

        Raises Invalid for rewards outside [0, 1], or parts of another number of attempts.
        """
        if not all(isfinite(one) and 0 <= one <= 1 for one in rewards):
            raise Invalid("every reward must be between 0 and 1", param="rewards")
        if parts and len(parts) != len(rewards):
            raise Invalid("give the parts of every attempt, or none", param="parts")
        key = digest(spec)
        known = self._known.get(key)
        if known is None:
            self._clock += len(rewards)
            return
        known.waiting = max(0, known.waiting - 1)
        if not rewards:
            return
        known.counts.fade(self._age(known))
        known.counts.add(rewards, parts, window=self._plan.window)
        self._clock += len(rewards)
        known.at = self._clock
        self._bits += len(rewards) * binary_entropy(known.counts.rate)
        self._rich_bits += len(rewards) * known.counts.entropy
        self._remember_failures(known, seed, rewards)
        self._move(key, known)

    def state(self) -> Json:
        """Everything, as JSON."""
        return {
            "curriculum": STATE,
            "plan": asdict(self._plan),
            "clock": self._clock,
            "draws": self._draws,
            "bits": [self._bits, self._rich_bits],
            "known": [asdict(one) for one in self._known.values()],
        }

    def report(self) -> Json:
        """What is known of each task, and bits of information per attempt.

        ``bits`` is the entropy of passing or failing, ``rich_bits`` that of rewards and parts to a tenth, both in bits
        an attempt and from counts as they stand; in the totals, averaged over every attempt as it was told of.
        """
        rows = []
        for one in self._known.values():
            low, high = one.counts.interval()
            rows.append(
                {
                    "spec": one.spec, "name": one.name, "attempts": one.counts.attempts, "rate": one.counts.rate,
                    "low": low, "high": high, "bits": binary_entropy(one.counts.rate),
                    "rich_bits": one.counts.entropy, "mastered": self._mastered(one), "failures": len(one.failures),
                }
            )  # fmt: skip
        told = max(1, self._clock)
        return {"attempts": self._clock, "bits": self._bits / told, "rich_bits": self._rich_bits / told, "tasks": rows}

    def _propose(self) -> Proposal:
        rng = rng_of("curriculum", self._plan.seed, self._draws)
        self._draws += 1
        # A task that waits for an answer stands back, else many proposals at once would all be one.
        mastered = [one for one in self._known.values() if one.counts.rate >= self._plan.mastered]
        failing = [one for one in self._known.values() if one.failures and one.counts.rate >= NEARLY]
        turn = rng.random()
        if turn < self._plan.replay and mastered:
            return self._fresh(min(mastered, key=lambda one: (one.waiting, one.at)))
        if self._plan.replay <= turn < self._plan.replay + self._plan.mining and failing:
            return self._mine(rng, failing)
        return self._fresh(max(self._known.values(), key=lambda one: self._weigh(rng, one)))

    def _fresh(self, known: _Known) -> Proposal:
        seed = rng_of("curriculum", self._plan.seed, digest(known.spec), known.issued).getrandbits(62)
        known.issued += 1
        known.waiting += 1
        return known.spec, seed

    def _mine(self, rng: Random, failing: Sequence[_Known]) -> Proposal:
        one = max(failing, key=lambda known: rng.random() * len(known.failures))
        seed = one.failures.pop(0)
        one.failures.append(seed)
        key = digest(one.spec)
        beside = [other for other in self._known.values() if other.parent == key or digest(other.spec) == one.parent]
        chosen = rng.choice(beside) if beside and rng.random() < 0.5 else one
        chosen.waiting += 1
        return chosen.spec, seed

    def _weigh(self, rng: Random, known: _Known) -> float:
        """How much a group of attempts may teach, by one draw of what is not known."""
        faded = known.counts.faded(self._age(known))
        rate = rng.betavariate(1 + faded.good, 1 + faded.bad)
        useful = max(rate * (1 - rate), faded.spread)
        return useful * (TARGET_WEIGHT if known.parent is None else 1.0) / (1 + known.waiting / CROWD)

    def _age(self, known: _Known) -> float:
        """In half-lives. What was tried in vain for long is forgotten the more slowly."""
        patience = 1 + known.counts.in_vain / self._plan.tries
        return (self._clock - known.at) / (self._plan.half_life * patience)

    def _mastered(self, known: _Known) -> bool:
        return self._is_known(known) and known.counts.rate >= self._plan.mastered

    def _is_known(self, known: _Known) -> bool:
        """Tried often enough, and not too long ago."""
        return known.counts.attempts >= self._plan.tries and known.counts.total >= self._plan.tries / 2

    def _remember_failures(self, known: _Known, seed: int, rewards: Sequence[float]) -> None:
        if seed in known.failures:
            known.failures.remove(seed)
        if known.counts.rate >= NEARLY and min(rewards) < PASSED:
            known.failures = [*known.failures, seed][-MOST_FAILURES:]

    def _move(self, key: str, known: _Known) -> None:
        """Take in neighbours where the task is too hard or too easy, and wake those that this one leads to."""
        counts = known.counts
        level = 2 if self._mastered(known) else int(self._is_known(known) and counts.rate >= NEARLY)
        if level > known.level:
            known.level = level
            self._wake(known)
        hopeless = counts.in_vain >= self._plan.tries and counts.spread < NO_SIGNAL
        direction = Direction.HARDER if level == 2 else Direction.EASIER if hopeless else None
        if direction is None or direction in known.grown:
            return
        if direction is Direction.HARDER and known.parent is None and not self._plan.beyond:
            return
        known.grown.append(direction)
        for mutation in self._neighbours(known.spec):
            if mutation.direction is direction and digest(mutation.spec) not in self._known and self._make_room():
                self._known[digest(mutation.spec)] = _Known(
                    spec=mutation.spec, name=mutation.name, parent=key, at=self._clock
                )

    def _wake(self, known: _Known) -> None:
        """What was learned here may carry over to what it was made easier from: failures there count less now."""
        parent = known.parent
        while parent is not None and parent in self._known:
            above = self._known[parent]
            above.counts.doubt()
            parent = above.parent

    def _make_room(self) -> bool:
        """Whether one more task can be kept; drops the least useful that was tried enough and is not a target."""
        if len(self._known) < self._plan.most:
            return True
        tried = {
            key: one
            for key, one in self._known.items()
            if one.parent is not None and one.counts.attempts >= self._plan.tries and not one.waiting
        }
        if not tried:
            return False
        del self._known[min(tried, key=lambda key: tried[key].counts.rate * (1 - tried[key].counts.rate))]
        return True

    @classmethod
    def _restore(cls, state: Json, plan: Plan | None, neighbours: Neighbours) -> Curriculum:
        if state["curriculum"] != STATE:
            raise Invalid(f"this curriculum has the shape {state['curriculum']}, known is {STATE}", param="state")
        try:
            made = cls(plan or Plan(**state["plan"]), neighbours)
            made._clock, made._draws = int(state["clock"]), int(state["draws"])
            made._bits, made._rich_bits = (float(one) for one in state["bits"])
            for one in state["known"]:
                known = _Known(**one | {"counts": Counts(**one["counts"]), "waiting": 0})
                made._known[digest(known.spec)] = known
        except (KeyError, TypeError, ValueError) as error:
            raise Invalid(f"no state of a curriculum ({error!r}): give what `state` returned", param="state") from None
        return made
