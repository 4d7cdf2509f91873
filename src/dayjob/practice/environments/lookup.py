"""Look-up: a question about invented documents, found with a search tool and answered; several turns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dayjob.endings import EpisodeEnding, Invalid
from dayjob.practice.calls import Call, describe_tool, read_calls, write_call
from dayjob.practice.library import MAX_DOCUMENTS, MIN_DOCUMENTS, RELATIONS, Document, Library, library
from dayjob.practice.protocol import Action, Direction, Episode, Mutation, Reward, Step, Task
from dayjob.practice.questions import check_seed, check_whole, final_answer, neighbours, rng_of, spec_of
from dayjob.records import Json

MAX_CALLS_A_TURN = 4
MAX_HOPS = 5
_DRAWS = 200
_TOOLS = {
    "search": ("Find documents by the words in them.", {"query": "words to look for"}),
    "open": ("Read a document.", {"title": "the document's title"}),
}
_INTRODUCTION = "You answer questions by looking things up in documents."
_NOTATION = {
    "search": "To search, write one line: call search query=WORDS",
    "open": "To read a document, write one line: call open title=TITLE",
}
_CLOSING = "When you know the answer, write the answer alone."


@dataclass(frozen=True, slots=True)
class _Question:
    """A chain of documents: each but the last names the next by its relation, the last has the answer."""

    chain: tuple[Document, ...]
    relations: tuple[str, ...]  # as many as documents
    answer: str
    library: Library


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """A question whose answer stands in one of ``documents`` invented documents; a seed has documents of its own.

    ``hops``: documents that have to be found, each named in the one before. ``results``: documents that a search
    shows. ``reading``: a search shows titles alone, and documents are opened. ``spare``: turns beyond those that the
    reference needs. ``shown``: links of the chain that the question gives away, below ``hops``. ``choices``: answers to
    choose from, 0 for none. ``plain``: calls are explained in the plain notation; else tools are handed to the chat
    template. Either notation is understood. Raises Invalid for values outside their range.

    >>> len(Lookup(documents=1000).reset(0).task.messages)
    2
    """

    documents: int = 100
    hops: int = 1
    results: int = 3
    reading: bool = False
    spare: int = 3
    shown: int = 0
    choices: int = 0
    plain: bool = True

    def __post_init__(self) -> None:
        check_whole(self, {"documents": (MIN_DOCUMENTS, MAX_DOCUMENTS), "hops": (1, MAX_HOPS), "results": (1, 20),
                           "spare": (0, 100), "shown": (0, self.hops - 1 if isinstance(self.hops, int) else 0),
                           "choices": (0, 8)})  # fmt: skip
        if self.choices == 1:
            raise Invalid("choices must be 0, or 2 to 8", param="choices")
        if not isinstance(self.reading, bool) or not isinstance(self.plain, bool):
            raise Invalid("reading and plain must be true or false", param="reading")

    @property
    def spec(self) -> Json:
        return spec_of("lookup", self)

    def reset(self, seed: int) -> Episode:
        """As `Environment.reset`."""
        question = self._draw(seed)
        return _LookupEpisode(self, question, self._task(question, seed))

    def reference(self, seed: int) -> Sequence[Action]:
        """As `Environment.reference`: finds every document of the chain, then answers."""
        question = self._draw(seed)
        calls = []
        for document in question.chain[self.shown :]:
            calls.append(Call(name="search", arguments={"query": document.title}))
            if self.reading:
                calls.append(Call(name="open", arguments={"title": document.title}))
        said = [write_call(call, plain=self.plain) for call in calls]
        return tuple(Action(text=text) for text in (*said, question.answer))

    def mutations(self) -> Sequence[Mutation]:
        """As `Environment.mutations`."""
        easier, harder = Direction.EASIER, Direction.HARDER
        fewer = min(self.shown, max(0, self.hops - 2))
        changes: list[tuple[str, Direction, Json]] = [
            ("fewer documents", easier, {"documents": max(MIN_DOCUMENTS, self.documents // 3)}),
            ("more documents", harder, {"documents": min(MAX_DOCUMENTS, self.documents * 3)}),
            ("one document less to find", easier, {"hops": self.hops - 1, "shown": fewer}),
            ("composed with one more document", harder, {"hops": self.hops + 1}),
            ("more results", easier, {"results": self.results + 2}),
            ("fewer results", harder, {"results": self.results - 1}),
            ("searches show the text", easier, {"reading": False}),
            ("searches show titles alone", harder, {"reading": True}),
            ("more turns", easier, {"spare": self.spare + 2}),
            ("fewer turns", harder, {"spare": self.spare - 1}),
            ("show one more link", easier, {"shown": self.shown + 1}),
            ("show one link less", harder, {"shown": self.shown - 1}),
            ("choose the answer", easier, {"choices": 6 if not self.choices else max(2, self.choices - 1)}),
            ("no choices", harder, {"choices": 0}),
        ]
        return neighbours(self.spec, changes, make=lambda settings: Lookup(**settings))

    @property
    def tools(self) -> tuple[str, ...]:
        """The names of the tools there are."""
        return ("search", "open") if self.reading else ("search",)

    def _draw(self, seed: int) -> _Question:
        """The chain of a seed."""
        rng = rng_of("lookup", check_seed(seed), self.hops)
        found = library(self.documents, seed)
        for _ in range(_DRAWS):
            chain, relations = [rng.choice(found.documents)], []
            while len(chain) < self.hops:
                links = [(name, found.get(said)) for name, said in chain[-1].facts]
                name, following = rng.choice([(name, one) for name, one in links if one is not None])
                chain.append(following)
                relations.append(name)
            name, answer = rng.choice(chain[-1].facts)
            told = {document.title for document in chain}
            # A document twice in a chain would make a shorter one, and no answer may stand in the question.
            if len(told) == self.hops and answer not in told:
                return _Question(tuple(chain), (*relations, name), answer, found)
        raise Invalid(f"{self.documents} documents have no chain of {self.hops}: take more", param="documents")

    def _task(self, question: _Question, seed: int) -> Task:
        said = [_INTRODUCTION, *(_NOTATION[name] for name in self.tools)] if self.plain else [_INTRODUCTION]
        asked = [_ask(question), *_links(question, self.shown)]
        if self.choices:
            asked.append(f"It is one of: {', '.join(self._choices(question, seed))}.")
        needed = (self.hops - self.shown) * len(self.tools) + 1
        described = tuple(describe_tool(name, _TOOLS[name][0], parameters=_TOOLS[name][1]) for name in self.tools)
        return Task(
            messages=(
                {"role": "system", "content": "\n".join([*said, _CLOSING])},
                {"role": "user", "content": " ".join(asked)},
            ),
            tools=() if self.plain else described,
            max_turns=needed + self.spare,
        )

    def _choices(self, question: _Question, seed: int) -> list[str]:
        rng, last = rng_of("lookup", "choices", seed), question.relations[-1]
        others = {said for one in question.library.documents for name, said in one.facts if name == last}
        # Sorted first: the order of a set of texts is another one in every process.
        drawn = rng.sample(sorted(others - {question.answer}), min(self.choices - 1, len(others) - 1))
        drawn.append(question.answer)
        rng.shuffle(drawn)
        return drawn


class _LookupEpisode:
    """One attempt. Progress: the share of the chain's documents that a turn showed first."""

    def __init__(self, settings: Lookup, question: _Question, task: Task) -> None:
        self._settings, self._question, self._task = settings, question, task
        self._needed = {document.title for document in question.chain[settings.shown :]}
        self._found: set[str] = set()
        self._turns, self._over = 0, False

    @property
    def task(self) -> Task:
        return self._task

    async def step(self, action: Action) -> Step:
        """As `Episode.step`. Parts: "answer", whether it is right; "found", the share of documents that were shown."""
        if self._over:
            raise Invalid("this episode is over: reset for another", param="action")
        self._turns += 1
        calls = read_calls(action.text)
        if not calls:
            right = _plain(final_answer(action.text)) == _plain(self._question.answer)
            return self._end(EpisodeEnding.DONE, 0.0, right=right)
        before = len(self._found)
        said = [self._answer(call) for call in calls[:MAX_CALLS_A_TURN]]
        if len(calls) > MAX_CALLS_A_TURN:
            said.append(("error", f"only {MAX_CALLS_A_TURN} calls are answered at once"))
        progress = (len(self._found) - before) / len(self._needed)
        if self._turns >= self._task.max_turns:
            return self._end(EpisodeEnding.TURNS, progress, right=False)
        return Step(messages=tuple({"role": "tool", "name": n, "content": t} for n, t in said), progress=progress)

    async def close(self) -> None:
        """As `Episode.close`."""
        self._over = True

    def _end(self, ending: EpisodeEnding, progress: float, *, right: bool) -> Step:
        self._over = True
        parts = {"answer": float(right), "found": len(self._found) / len(self._needed)}
        return Step(progress=progress, reward=Reward(value=float(right), parts=parts), ending=ending)

    def _answer(self, call: Call) -> tuple[str, str]:
        """(tool, what it says) of a call."""
        if call.error:
            return "error", call.error
        if call.name not in self._settings.tools:
            return "error", f"there is no tool {call.name}; there are: {', '.join(self._settings.tools)}"
        key = next(iter(_TOOLS[call.name][1]))
        said = call.text(key)
        if set(call.arguments) != {key} or not said.strip():
            return "error", f"{call.name} needs {key} and nothing else"
        if call.name == "open":
            document = self._question.library.get(said)
            return "open", "there is no document of this title" if document is None else self._show(document)
        found = self._question.library.search(said[:1000], self._settings.results)
        shown = [one.title if self._settings.reading else f"{one.title}: {self._show(one)}" for one in found]
        return "search", "\n".join(shown) or "nothing was found"

    def _show(self, document: Document) -> str:
        if document.title in self._needed:
            self._found.add(document.title)
        return document.text


def _ask(question: _Question) -> str:
    subject = question.chain[0].title
    for name in question.relations[:-1]:
        subject = RELATIONS[name][1].format(of=subject)
    return RELATIONS[question.relations[-1]][0].format(of=subject)


def _links(question: _Question, shown: int) -> list[str]:
    """The first links of the chain, told."""
    told = []
    for place in range(shown):
        link = RELATIONS[question.relations[place]][1].format(of=question.chain[place].title)
        told.append(f"{link[0].upper()}{link[1:]} is {question.chain[place + 1].title}.")
    return told


def _plain(text: str) -> str:
    """Words and numbers alone, in small letters, without a leading article."""
    words = re.findall(r"[^\W_]+", text.lower())
    return " ".join(words[1:] if words[:1] == ["the"] else words)
