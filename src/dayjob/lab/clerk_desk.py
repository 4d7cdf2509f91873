"""The clerk at its desk without a server: answers as they would be served, and days of work in a simulated office."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import fmean

from clerk.lessons import Probe
from clerk.office import Office
from clerk.split import Side
from clerk.staff import AGREE, Ask, Word, words_on

from dayjob.endings import OutcomeKind
from dayjob.lab.clerk_board import FRESH, Board, Said
from dayjob.lab.clerk_text import FAMILIES
from dayjob.learn.language.exercises import turn
from dayjob.learn.language.lessons import Messages
from dayjob.learn.language.table import Question
from dayjob.learn.language.writing import BASE, Writer, Written
from dayjob.policies.adapters import Adapter, file_digests, read_adapter
from dayjob.policies.engine_batch import Batch
from dayjob.policies.engine_protocol import VersionRef
from dayjob.policies.engine_transformers import load_model
from dayjob.policies.tokens import Tokens

SLOTS, CONTEXT, ANSWER = 64, 896, 32  # rows at once; tokens
TEMPERATURE = 0.7  # of served answers; exams are greedy
WORK = ("arithmetic", "chain_sum", "spell_backward", "letter_counting", "number_sorting", "table")


class Desk:
    """One base model that answers with any of its adapters."""

    def __init__(self, folder: Path) -> None:
        self.tokens = Tokens.open(folder)
        self._batch = Batch(load_model(folder), slots=SLOTS, max_tokens=CONTEXT)
        self._writer = Writer(self._batch, end_ids=self.tokens.end_ids, slots=SLOTS, context_tokens=CONTEXT)
        self._said: dict[str, tuple[int, ...]] = {}

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self.tokens.encode(text))

    def read(self, folder: Path) -> Adapter:
        """An adapter's folder, as the engine reads it."""
        return self.read_ref(
            VersionRef(name=folder.name, digest=folder.name, folder=folder, files=file_digests(folder))
        )  # fmt: skip

    def read_ref(self, ref: VersionRef) -> Adapter:
        """A version that is published."""
        return read_adapter(ref, self._batch.adapters.shapes, max_rank=1 << 20, device=self._batch.device)

    def answer(
        self, asked: Sequence[Messages], *, seeds: Sequence[int], adapter: Adapter = BASE, temperature: float = 0.0
    ) -> list[Written]:
        """An answer to each conversation."""
        prompts = [self.tokens.render(one) for one in asked]
        return self._writer.write(prompts, seeds=seeds, max_tokens=ANSWER, temperature=temperature, adapter=adapter)

    def base_says(self, asked: Sequence[Messages]) -> list[tuple[int, ...]]:
        """The base model's most probable answer to each conversation, remembered."""
        keys = [repr(one) for one in asked]
        new = {key: one for key, one in zip(keys, asked, strict=True) if key not in self._said}
        written = self.answer(list(new.values()), seeds=[0] * len(new))
        self._said |= {key: one.token_ids for key, one in zip(new, written, strict=True)}
        return [self._said[key] for key in keys]

    def right(self, suites: Mapping[str, Sequence[Question]], *, adapter: Adapter = BASE) -> dict[str, float]:
        """The share of each suite that the most probable answer gets right, token for token, its end too."""
        flat = [one for questions in suites.values() for one in questions]
        said = self.answer([one.messages for one in flat], seeds=[0] * len(flat), adapter=adapter)
        hits = iter(
            one.token_ids == turn(self.tokens, question.messages, answer=question.answer)
            for question, one in zip(flat, said, strict=True)
        )
        return {name: fmean([next(hits) for _ in questions]) for name, questions in suites.items() if questions}


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What answers: an adapter with its version's name, and those of people who have their own."""

    adapter: Adapter = BASE
    version: str = FRESH
    own: Mapping[str, tuple[Adapter, str]] = field(default_factory=dict)

    def of(self, user: str) -> tuple[Adapter, str]:
        """What answers one person."""
        return self.own.get(user, (self.adapter, self.version))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One question as it was answered. ``own``: a note of the asker's alone stood in the context."""

    ask: Ask
    system: str  # the notes that stood in the context
    notes: tuple[str, ...]
    own: bool
    text: str
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]

    @property
    def right(self) -> bool:
        """Whether the answer is what holds for the one who asked."""
        return self.text == self.ask.probe.answer


@dataclass(slots=True, kw_only=True)
class Diary:
    """What was asked, answered and said, in its order; ``words`` by the id of the question that they speak of."""

    answered: list[Answered] = field(default_factory=list)
    words: dict[str, list[Word]] = field(default_factory=dict)
    later: list[tuple[int, Answered, Word]] = field(default_factory=list)  # the day on which it will be said

    @property
    def corrections(self) -> int:
        """Corrections and demonstrations said so far."""
        return sum(one.kind != "thumb" for words in self.words.values() for one in words)


def chat(question: str, system: str = "") -> Messages:
    """A question as the model reads it, notes before it where there are any."""
    asked = {"role": "user", "content": question}
    return ({"role": "system", "content": system}, asked) if system else (asked,)


def play_day(
    desk: Desk, here: Office, *, board: Board, diary: Diary, asks: Sequence[Ask], serving: Serving | None = None
) -> None:
    """A day's questions, answered and corrected round by round; what is said counts from the next round on."""
    serving = serving or Serving()
    day = asks[0].day
    due = [(answered, word) for when, answered, word in diary.later if when <= day]
    diary.later = [one for one in diary.later if one[0] > day]
    _say(due, board=board, diary=diary)
    for number in sorted({one.round for one in asks}):
        now = [one for one in asks if one.round == number]
        answers = _answers(desk, here, board=board, asks=now, serving=serving)
        said: list[tuple[Answered, Word]] = []
        for answered in answers:
            diary.answered.append(answered)
            for word in words_on(answered.ask, answered.text, here=here):
                if word.days:
                    diary.later.append((day + word.days, answered, word))
                else:
                    said.append((answered, word))
        _say(said, board=board, diary=diary)


def _answers(desk: Desk, here: Office, *, board: Board, asks: Sequence[Ask], serving: Serving) -> list[Answered]:
    """Each question with the notes that its asker gets, answered by what serves that person."""
    placed = {one.id: board.place(one.probe.question, user=one.user, version=serving.of(one.user)[1]) for one in asks}
    written: dict[str, Written] = {}
    for version in dict.fromkeys(serving.of(one.user)[1] for one in asks):
        mine = [one for one in asks if serving.of(one.user)[1] == version]
        read = [chat(one.probe.question, placed[one.id].text) for one in mine]
        seeds = [Random(f"served {here.seed} {one.id}").getrandbits(63) for one in mine]
        adapter = serving.of(mine[0].user)[0]
        said = desk.answer(read, seeds=seeds, adapter=adapter, temperature=TEMPERATURE)
        written |= {one.id: answer for one, answer in zip(mine, said, strict=True)}
    return [
        Answered(
            ask=one, system=placed[one.id].text, notes=placed[one.id].ids, own=board.own(placed[one.id], one.user),
            text=desk.tokens.text(written[one.id].token_ids), ids=written[one.id].token_ids,
            logprobs=written[one.id].logprobs,
        )
        for one in asks
    ]  # fmt: skip


def _say(said: Sequence[tuple[Answered, Word]], *, board: Board, diary: Diary) -> None:
    told: list[Said] = []
    for answered, word in said:
        ask = answered.ask
        diary.words.setdefault(ask.id, []).append(word)
        if word.kind != "thumb" and word.text is not None:
            whole = word.on == "session"
            asked, served = ("", "") if whole else (ask.probe.question, answered.text)
            kind = OutcomeKind(word.kind)
            told.append(
                Said(id=ask.id, user=ask.user, session=ask.session, kind=kind, text=word.text, asked=asked,
                     answered=served)
            )  # fmt: skip
    if told:
        board.tell(told)


def new_board(desk: Desk) -> Board:
    """No notes yet; several people of the staff make one everybody's."""
    return Board(agree=AGREE, count=desk.count)


def work_probe(rng: Random) -> Probe:
    """Other work than facts, of the side that the clerk was brought up with: calculating, spelling, sorting, tables."""
    while True:
        messages = FAMILIES[rng.choice(WORK)](rng, Side.TRAIN)
        if len(messages) == 2:
            (_, asked), (_, answer) = messages
            return Probe(question=asked, answer=answer, before=answer, case=asked)
