"""A depot as an application that the clerk has never met: things in bays, six calls, requests in 24 wordings.

A request is done by one call, and the reward is read off the application's state: what was asked for has changed and
nothing else. Codes of things, bays, calls and wordings are in no text that the clerk was brought up with. The same
application is what people work with by day, and what judges: each episode finds it as it stood in the morning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from dayjob.endings import EpisodeEnding, Invalid
from dayjob.practice.calls import Call, read_calls, write_call
from dayjob.practice.protocol import Action, Episode, Mutation, Reward, Step, Task
from dayjob.practice.questions import check_seed, check_whole, rng_of, spec_of
from dayjob.records import Json

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
COLOURS = ("red", "blue", "green", "white", "black")
PEOPLE = ("Abel", "Ines", "Otto", "Ruth", "Tara", "Zoe")
BAYS = tuple(f"{letter}{number}" for letter in "NESW" for number in range(1, 10))
LETTERS = "BDFGHJKLMPQRTVX"
MOST_TAKEN, MOST_PRICE = 9, 99
TURNS, ANSWER_TOKENS = 3, 32
MOST_MET = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A call: its second argument with the values that this may have, what is answered, and how people ask for it."""

    key: str
    values: tuple[str, ...]
    answer: str
    asked: tuple[str, ...]


# What is answered to "take" depends on how many there are; to the others on the call alone.
CALLS: Mapping[str, Kind] = {
    "put": Kind(
        key="bay", values=BAYS, answer="{item} is in {value}.",
        asked=("Put {item} into {value}.", "{item} belongs in {value}.", "Move {item} over to {value}.",
               "Please store {item} in {value} now."),
    ),
    "take": Kind(
        key="count", values=tuple(str(one) for one in range(2, MOST_TAKEN + 1)), answer="{value} of {item} taken",
        asked=("Take {value} of {item}.", "We need {value} pieces of {item}.",
               "{item} for the workshop, {value} of them.", "Send out {value} of {item}."),
    ),
    "hold": Kind(
        key="until", values=DAYS, answer="{item} is held until {value}.",
        asked=("Hold {item} until {value}.", "Nobody may touch {item} before {value}.",
               "{item} stays where it is until {value}.", "Keep {item} back, {value} is early enough."),
    ),
    "label": Kind(
        key="colour", values=COLOURS, answer="{item} is labelled {value}.",
        asked=("Label {item} {value}.", "Stick a {value} tag on {item}.", "{item} gets a {value} sticker.",
               "From now on {item} is {value}."),
    ),
    "lend": Kind(
        key="to", values=PEOPLE, answer="{item} is lent to {value}.",
        asked=("Lend {item} to {value}.", "{value} wants to borrow {item}.", "Give {value} our {item} for a while.",
               "{item} goes to {value}, on loan."),
    ),
    "price": Kind(
        key="at", values=tuple(str(one) for one in range(10, MOST_PRICE + 1)), answer="{item} costs {value}.",
        asked=("Price {item} at {value}.", "{item} costs {value} now.", "We sell {item} for {value}.",
               "Make it {value} for {item}."),
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """How many there are of something, and what was last set of it, by call."""

    count: int
    put: str
    hold: str = ""
    label: str = ""
    lend: str = ""
    price: str = ""


Things = dict[str, Thing]  # by code


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What somebody asks for, and the call that does it."""

    text: str
    call: Call

    @property
    def said(self) -> str:
        """The call as an actor writes it."""
        return write_call(self.call, plain=True)


class Application:
    """The depot in one state. Deterministic; what cannot be done is said in the answer and changes nothing.

    >>> Application({"K47": Thing(count=12, put="N3")}).call(Call(name="take", arguments={"item": "K47", "count": "5"}))
    '5 of K47 taken, 7 left.'
    """

    def __init__(self, things: Things) -> None:
        """Works on a copy of ``things``."""
        self.things = dict(things)

    def call(self, call: Call) -> str:
        """What it answers; what was asked for is done by then. Never raises."""
        if call.error:
            return f"Error: {call.error}."
        if call.name not in CALLS:
            return f"Error: there is no call {call.name[:40]!r}."
        kind = CALLS[call.name]
        if set(call.arguments) != {"item", kind.key}:
            return f"Error: {call.name} needs item and {kind.key}."
        item, value = call.text("item").strip(), call.text(kind.key).strip()
        if item not in self.things:
            return f"Error: there is no {item[:40]!r}."
        if value not in kind.values:
            return f"Error: {kind.key} cannot be {value[:40]!r}."
        told = kind.answer.format(item=item, value=value)
        if call.name != "take":
            changed: Json = {call.name: value}
            self.things[item] = replace(self.things[item], **changed)
            return told
        left = self.things[item].count - int(value)
        if left < 0:
            return f"Error: {self.things[item].count} of {item} can be taken."
        self.things[item] = replace(self.things[item], count=left)
        return f"{told}, {left} left."


@dataclass(frozen=True, slots=True, kw_only=True)
class Depot:
    """The depot as an environment: a task is one request. ``depot``: which one, with things of its own; ``items``: how
    many. Raises Invalid for values outside their range.

    >>> Depot(depot=1).reset(0).task.max_turns
    3
    """

    depot: int = 0
    items: int = 120

    def __post_init__(self) -> None:
        check_whole(self, {"depot": (0, 1 << 40), "items": (2, 1_000)})

    @property
    def spec(self) -> Json:
        return spec_of("depot", self)

    def morning(self) -> Things:
        """The state that every episode begins in."""
        rng = rng_of("depot", self.depot, self.items)
        codes = sorted(f"{letter}{number}" for letter in LETTERS for number in range(10, 100))
        return {
            code: Thing(put=rng.choice(BAYS), count=rng.randrange(40, 90)) for code in rng.sample(codes, self.items)
        }

    def request(self, seed: int) -> Request:
        """What is asked for in the task of a seed: something that changes the morning's state."""
        rng, things = rng_of("depot", self.depot, "request", check_seed(seed)), self.morning()
        name, item = rng.choice(list(CALLS)), rng.choice(list(things))
        kind = CALLS[name]
        value = rng.choice([one for one in kind.values if one != things[item].put])
        text = rng.choice(kind.asked).format(item=item, value=value)
        return Request(text=text, call=Call(name=name, arguments={"item": item, kind.key: value}))

    def reset(self, seed: int) -> Episode:
        """As `Environment.reset`."""
        return DepotEpisode(self.request(seed), self.morning())

    def reference(self, seed: int) -> Sequence[Action]:
        """As `Environment.reference`."""
        return (Action(text=self.request(seed).said),)

    def mutations(self) -> Sequence[Mutation]:
        """None: it is here to judge, not to be practised."""
        return ()


class DepotEpisode:
    """One attempt at a request. Words end it: whoever asked was told something, and nothing was done."""

    def __init__(self, request: Request, things: Things) -> None:
        self._task = Task(
            messages=({"role": "user", "content": request.text},), max_turns=TURNS, answer_tokens=ANSWER_TOKENS
        )
        done = Application(things)
        done.call(request.call)
        self._morning, self._wanted = things, done.things
        self._application, self._turns, self._over = Application(things), 0, False

    @property
    def task(self) -> Task:
        return self._task

    async def step(self, action: Action) -> Step:
        """As `Episode.step`. Parts: "changed", whether anything was done at all."""
        if self._over:
            raise Invalid("this episode is over: reset for another", param="action")
        self._turns += 1
        calls = read_calls(action.text)
        answers = [self._application.call(call) for call in calls]
        changed = self._application.things != self._morning
        if not calls or changed or self._turns == TURNS:
            self._over = True
            right = float(self._application.things == self._wanted)
            tired = bool(calls) and not changed
            return Step(
                reward=Reward(value=right, parts={"changed": float(changed)}),
                ending=EpisodeEnding.TURNS if tired else EpisodeEnding.DONE,
            )
        return Step(messages=tuple({"role": "tool", "content": answer} for answer in answers))

    async def close(self) -> None:
        """As `Episode.close`."""
        self._over = True


def requests(depot: Depot, count: int, *, first: int, apart_from: Iterable[str] = ()) -> list[tuple[int, Request]]:
    """``count`` different requests with their seeds, from the seed ``first`` on; none whose words are among
    ``apart_from``. Raises Invalid where the depot has not so many."""
    seen, seed, met = set(apart_from), first, 0  # met: seeds in a row that set nothing new
    found: list[tuple[int, Request]] = []
    while len(found) < count and met < MOST_MET:
        request = depot.request(seed)
        met += 1
        if request.text not in seen:
            seen.add(request.text)
            found.append((seed, request))
            met = 0
        seed += 1
    if len(found) < count:
        raise Invalid(f"this depot has hardly {len(found)} different requests: ask for fewer", param="count")
    return found
