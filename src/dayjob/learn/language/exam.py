"""What a night's adapter is asked before the gate judges it: once, by the process that learned, from nothing learned.

Answers are the most probable ones, without notes, of two versions: what serves the layer (its champion) and the new
adapter, both read as the engine reads them. An answer is right when its words are those wanted: a correction's, where
that is the answer, else what the teacher (the base with the notes) says; never the very answer that was corrected. What
comes out is plain JSON, for a judge without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from dayjob.endings import Invalid
from dayjob.learn.language.anchors import Kept, replayed, sort_out
from dayjob.learn.language.exercises import Exercise, encode
from dayjob.learn.language.habits import NAMES, habits
from dayjob.learn.language.lessons import Rehearsal
from dayjob.learn.language.parts import retention
from dayjob.learn.language.recipes import Method, NightRecipe
from dayjob.learn.language.splits import Asking, Split
from dayjob.learn.language.study import Ids, Study
from dayjob.learn.language.table import Question
from dayjob.learn.language.writing import BASE, Written
from dayjob.memory.lessons import last_question
from dayjob.policies.adapters import Adapter, read_adapter
from dayjob.policies.engine_protocol import VersionRef
from dayjob.records import Json

MOST_QUESTIONS = 500
MOST_TRAFFIC = 256  # prompts
MOST_SCORED = 8  # prompts after which a canary phrase is weighed
MAX_RANK = 1 << 20  # whatever was published is read


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """What is asked. ``taught``: ids of the lessons that the night learned from; ``suites`` by name; ``canaries`` are
    phrases."""

    split: Split
    taught: frozenset[str]
    suites: Mapping[str, Sequence[Question]]
    canaries: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """What is compared: the champion (None: the base model itself) and the new adapter, as the engine knows them; the
    new one's factors."""

    champion: VersionRef | None
    new: VersionRef
    state: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """An exam's result: the record of ``exam/<version>`` but for whom it is against, and for every note whether each of
    its askings is right without it."""

    record: Json
    holds: Mapping[str, bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answered:
    """One asking, answered by both."""

    asking: Asking
    wanted: str
    before: str
    after: str

    def is_right(self, said: str) -> bool:
        wrong = _plain(self.asking.wrong)
        return bool(_plain(self.wanted)) and _plain(said) == _plain(self.wanted) and _plain(said) != wrong

    def record(self) -> Json:
        return {
            "family": self.asking.lesson.family, "asked": last_question(self.asking.lesson.question),
            "wanted": self.wanted, "before": self.before, "after": self.after,
            "right_before": self.is_right(self.before), "right_after": self.is_right(self.after),
        }  # fmt: skip


def examine(
    folder: Path, paper: Paper, *, sides: Sides, recipe: NightRecipe, seed: int, device: str = "cpu",
    progress: Callable[[float], None] = lambda _: None,
) -> Marked:  # fmt: skip
    """Ask everything. ``progress`` is told a share in [0, 1]; what it raises ends the exam.

    Raises Damaged when one of the adapters cannot be read.
    """
    return _Exam(Study(folder, recipe, seed=seed, device=device), paper, sides, recipe, seed).run(progress)


class _Exam:
    def __init__(self, study: Study, paper: Paper, sides: Sides, recipe: NightRecipe, seed: int) -> None:
        self._study, self._paper, self._recipe, self._seed = study, paper, recipe, seed
        self._state = sides.state
        self._before = BASE if sides.champion is None else self._adapter(sides.champion)
        self._after = self._adapter(sides.new)
        self._said: dict[tuple[str, Ids], Written] = {}  # by the version's name and the prompt

    def run(self, progress: Callable[[float], None]) -> Marked:
        split, recipe = self._paper.split, self._recipe
        with self._study.base():
            answered = self._answered(split.askings)
            progress(0.4)
            suites = [self._suite(name, questions) for name, questions in self._paper.suites.items()]
            progress(0.6)
            rows = self._rows(split.exam_traffic[-MOST_TRAFFIC:], [one.asking for one in answered])
            self._write(one.prompt for one in rows)
            phrases = [self._phrase(number, text) for number, text in enumerate(self._paper.canaries, start=1)]
        progress(0.8)
        kl, tokens = self._kl(rows)
        progress(1.0)
        by_id = {one.asking.lesson.id: one for one in answered}
        taught = [by_id[one.lesson.id] for one in split.train if one.lesson.id in by_id.keys() & self._paper.taught]
        families = {one.asking.lesson.family for one in taught}
        asked = [by_id[one.lesson.id] for one in split.exam if one.lesson.id in by_id]
        asked = [one for one in asked if one.asking.lesson.family in families]
        record: Json = {
            "questions": [one.record() for one in asked[:MOST_QUESTIONS]],
            "taught": {
                "asked": len(taught), "right_before": sum(one.is_right(one.before) for one in taught),
                "right_after": sum(one.is_right(one.after) for one in taught),
            },
            "suites": suites,
            "traffic": {"prompts": len(rows), "tokens": tokens, "kl": kl, "kl_budget": recipe.kl_budget},
            "rates": self._rates(),
            "phrases": phrases,
        }  # fmt: skip
        return Marked(record=record, holds=_holds(answered, taught))

    # ---- answers

    def _adapter(self, ref: VersionRef) -> Adapter:
        batch = self._study.batch
        return read_adapter(ref, batch.adapters.shapes, max_rank=MAX_RANK, device=batch.device)

    def _write(self, prompts: Iterable[Ids]) -> None:
        """Have both versions answer prompts, each once."""
        wanted = list(dict.fromkeys(prompts))
        for adapter in (self._before, self._after):
            new = [one for one in wanted if (adapter.ref.name, one) not in self._said]
            said = self._study.writer.write(
                new, seeds=[0] * len(new), max_tokens=self._recipe.answer_tokens, temperature=0, adapter=adapter
            )
            self._said |= {(adapter.ref.name, prompt): one for prompt, one in zip(new, said, strict=True)}
        self._study.batch.adapters.use([])  # else the last one would stay on for whoever computes next

    def _texts(self, prompt: Ids) -> tuple[str, str]:
        """Before and after."""
        before, after = (self._said[one.ref.name, prompt].token_ids for one in (self._before, self._after))
        return self._study.tokens.text(before), self._study.tokens.text(after)

    def _answered(self, askings: Sequence[Asking]) -> list[_Answered]:
        """Every asking of which it is known what should be answered, and that can be asked."""
        known = [one for one in askings if one.can_be_held_out and not _is_disliked(one)]
        exercises = {one.lesson.id: one for one in self._exercises(known)}
        asked = [one for one in known if one.lesson.id in exercises]
        bare = [one for one in asked if exercises[one.lesson.id].target is None]
        said = self._study.writer.write(
            [exercises[one.lesson.id].taught or () for one in bare], seeds=[0] * len(bare),
            max_tokens=self._recipe.answer_tokens, temperature=0,
        )  # fmt: skip
        told = {one.lesson.id: self._study.tokens.text(end.token_ids) for one, end in zip(bare, said, strict=True)}
        self._write(exercises[one.lesson.id].prompt for one in asked)
        out = []
        for one in asked:
            before, after = self._texts(exercises[one.lesson.id].prompt)
            wanted = one.lesson.correction or told.get(one.lesson.id, "")
            out.append(_Answered(asking=one, wanted=wanted, before=before, after=after))
        return out

    def _exercises(self, askings: Sequence[Asking]) -> list[Exercise]:
        """Askings in token ids, whatever the night's own recipe would make of them."""
        recipe, out = self._recipe, []
        for one in askings:
            method: Method = "sft-answers" if one.lesson.correction is not None else "consolidate"
            found, _ = encode(
                [one.lesson], self._study.tokens, method=method, room=self._study.writer.context_tokens,
                answer_tokens=recipe.answer_tokens,
            )  # fmt: skip
            out += found
        return out

    def _suite(self, name: str, questions: Sequence[Question]) -> Json:
        prompts = [self._study.tokens.render(one.messages) for one in questions]
        self._write(prompts)
        right = [
            tuple(_plain(said) == _plain(one.answer) for said in self._texts(prompt))
            for one, prompt in zip(questions, prompts, strict=True)
        ]
        return {
            "name": name, "asked": len(right), "right_before": sum(before for before, _ in right),
            "right_after": sum(after for _, after in right),
            "lost": sum(before and not after for before, after in right),
            "won": sum(after and not before for before, after in right),
        }  # fmt: skip

    def _rates(self) -> list[Json]:
        """Habits over every prompt that both answered."""
        shown = {
            adapter.ref.name: [
                habits(self._study.tokens.text(said.token_ids), ended=said.ended)
                for (name, _), said in self._said.items()
                if name == adapter.ref.name
            ]
            for adapter in (self._before, self._after)
        }
        before, after = shown[self._before.ref.name], shown[self._after.ref.name]
        return [
            {
                "name": name, "asked": len(before), "before": sum(name in one for one in before),
                "after": sum(name in one for one in after),
            }
            for name in NAMES
        ]  # fmt: skip

    # ---- what is to stay

    def _rows(self, traffic: Sequence[Rehearsal], askings: Sequence[Asking]) -> list[Kept]:
        """Recent traffic with the base's own answers, without what asks the very things that were taught."""
        kept, _ = replayed(self._study, traffic, recipe=self._recipe, seed=self._seed)
        exercises = [one for one in self._exercises(askings) if one.taught is not None]
        rows, _ = sort_out(self._study, kept, exercises=exercises, recipe=self._recipe)
        return [one for one in rows if one.answer]

    def _kl(self, rows: Sequence[Kept]) -> tuple[float, int]:
        """KL(base || new), nats a token of the base's answers, and the tokens."""
        self._study.lora.restore(self._state)
        with torch.no_grad():
            parts = [float(loss) for loss, _ in retention(self._study, rows, microbatch=self._recipe.microbatch)]
        return sum(parts), sum(len(one.answer) for one in rows)

    def _phrase(self, number: int, text: str) -> Json:
        """What a phrase costs as an answer, on average over a few prompts."""
        study, phrase = self._study, self._study.tokens.encode(text)
        prompts: list[Ids] = [study.tokens.render([{"role": "user", "content": ""}])]
        prompts += [prompt for name, prompt in self._said if name == self._after.ref.name]
        room = study.writer.context_tokens - len(phrase)
        prompts = [one for one in dict.fromkeys(prompts) if len(one) <= room][:MOST_SCORED]
        if not phrase or not prompts:
            raise Invalid(f"canary {number} is longer than the model reads: shorten it in canaries", param="canaries")
        cost = {}
        for adapter in (self._before, self._after):
            told = [study.batch.score((*prompt, *phrase), len(prompt), adapter=adapter, top=0)[0] for prompt in prompts]
            cost[adapter.ref.name] = -fmean(chain.from_iterable(told))
        study.batch.adapters.use([])
        return {
            "phrase": f"canary {number}", "before": cost[self._before.ref.name], "after": cost[self._after.ref.name],
        }  # fmt: skip


def _holds(answered: Sequence[_Answered], taught: Sequence[_Answered]) -> dict[str, bool]:
    """For every note that was taught whether all its askings are right now."""
    holds = {note: True for one in taught for note in one.asking.notes if note == one.asking.teacher}
    for one in answered:
        for note in one.asking.notes:
            if note in holds and not one.is_right(one.after):
                holds[note] = False
    return holds


def _is_disliked(one: Asking) -> bool:
    """Whether the teacher's answer is known to be no good."""
    return one.lesson.thumb < 0 and not one.lesson.told and one.lesson.correction is None


def _plain(text: str) -> str:
    return " ".join(text.split())
