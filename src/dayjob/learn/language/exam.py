"""What a night's adapter is asked before the gate judges it: once, by the process that learned, from nothing learned.

Answers are the most probable ones, without notes, of two versions: what serves the layer (its champion) and the new
adapter, both read as the engine reads them. The new one is asked again behind the notes that do not teach it: a note is
needed no more only where the others, which stay, do not get in the way. An answer is right when its words are those
wanted: a correction's, where that is the answer, else what the teacher (the base with the notes) says; never an answer
that was corrected. Where a note itself says what is right, the teacher's word does not retire it: the question that it
speaks of has to be asked. What comes out is plain JSON, for a judge without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from dayjob.endings import Invalid
from dayjob.learn.language.anchors import Kept, replayed, sort_out
from dayjob.learn.language.exercises import Exercise, encode
from dayjob.learn.language.habits import NAMES, habits, is_trivial
from dayjob.learn.language.heeding import contradicts
from dayjob.learn.language.lessons import Rehearsal
from dayjob.learn.language.marking import Answered, note_holds, plain, recited, right_of_taught
from dayjob.learn.language.paper import MOST_QUESTIONS, Paper, Ticks, draw
from dayjob.learn.language.parts import base_states, retention
from dayjob.learn.language.recipes import Method, NightRecipe
from dayjob.learn.language.splits import Asking
from dayjob.learn.language.study import Ids, Study
from dayjob.learn.language.writing import BASE, Written
from dayjob.memory.lessons import last_question
from dayjob.policies.adapters import Adapter, read_adapter
from dayjob.policies.engine_protocol import VersionRef
from dayjob.records import Json

MOST_TRAFFIC = 256  # prompts
MOST_SCORED = 8  # prompts after which a canary phrase is weighed
MAX_RANK = 1 << 20  # whatever was published is read


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
    its askings is right without it. ``recited``: notes that hold, and were asked in one wording alone: the one that the
    night learned from."""

    record: Json
    holds: Mapping[str, bool]
    recited: frozenset[str]


def examine(
    folder: Path, paper: Paper, *, sides: Sides, recipe: NightRecipe, seed: int, device: str = "cpu",
    progress: Callable[[float], None] = lambda _: None, template: Mapping[str, Any] | None = None,
) -> Marked:  # fmt: skip
    """Ask everything. ``progress`` is told a share in [0, 1]; what it raises ends the exam.

    Raises Damaged when one of the adapters cannot be read.
    """
    study = Study(folder, recipe, seed=seed, device=device, template=template)
    return _Exam(study, paper, sides, recipe, seed).run(progress)


class _Exam:
    def __init__(self, study: Study, paper: Paper, sides: Sides, recipe: NightRecipe, seed: int) -> None:
        self._study, self._paper, self._recipe, self._seed = study, paper, recipe, seed
        self._state = sides.state
        self._before = BASE if sides.champion is None else self._adapter(sides.champion)
        self._after = self._adapter(sides.new)
        self._said: dict[tuple[str, Ids], Written] = {}  # by the version's name and the prompt
        known = [one for one in paper.split.askings if one.can_be_held_out and not _is_disliked(one)]
        self._exercises = self._encoded(known)
        self._drawn = draw(paper, askable=self._exercises.keys())
        self._held = self._suggested(paper.split.suggestions)
        self._taught = self._suggested([one for one in paper.split.train if one.lesson.verdict is not None])
        # The newest prompts of suggestions that people judged, and what each completes.
        self._completed = {one.prompt: last_question(one.lesson.question) for one in self._held[-MOST_QUESTIONS:]}

    def run(self, progress: Callable[[float], None]) -> Marked:
        drawn, traffic = self._drawn, self._paper.split.exam_traffic[-MOST_TRAFFIC:]
        suites = {
            name: [self._study.tokens.render(one.messages) for one in questions]
            for name, questions in self._paper.suites.items()
        }
        with self._study.base() as writer:
            writer.told = Ticks(self._to_write(len(traffic), suites.values()), progress)
            answered = {one.asking.lesson.id: one for one in self._answered(drawn.askings)}
            asked = [self._suite(name, prompts) for name, prompts in suites.items()]
            rows = self._rows(traffic)
            self._write(one.prompt for one in rows)
            self._write(self._completed)
            phrases = [self._phrase(number, text) for number, text in enumerate(self._paper.canaries, start=1)]
        kl, tokens = self._kl(rows)
        progress(1.0)
        compared = (*self._were_right(suites), *(one.prompt for one in rows))
        taught, exam = ([answered[one.lesson.id] for one in part] for part in (drawn.taught, drawn.exam))
        record: Json = {
            "questions": [one.record() for one in exam if one.is_decided], "taught": right_of_taught(taught),
            "suites": asked,
            "traffic": {"prompts": len(rows), "tokens": tokens, "kl": kl, "kl_budget": self._recipe.kl_budget},
            "rates": self._rates(suites), "lengths": self._lengths(compared),
            "phrases": phrases, "suggestions": self._suggestions() if self._completed else None,
        }  # fmt: skip
        holds = note_holds(answered.values(), taught)
        return Marked(record=record, holds=holds, recited=recited(answered.values(), holds))

    def _to_write(self, traffic: int, suites: Iterable[Sequence[Ids]]) -> int:
        """How many answers the exam takes, all prompts of traffic being kept: the teacher's, the base's and both's."""
        asked = [self._exercises[one.lesson.id] for one in self._drawn.askings]
        prompts = {one.prompt for one in asked}.union(self._completed, *suites)
        told = sum((one.target is None) + (one.beside is not None) for one in asked)
        return told + 2 * len(prompts) + 3 * traffic

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

    def _answered(self, asked: Sequence[Asking]) -> list[Answered]:
        """Askings of which it is known what should be answered, with what is answered."""
        exercises = self._exercises
        bare = [one for one in asked if exercises[one.lesson.id].target is None]
        told = self._says({one.lesson.id: exercises[one.lesson.id].taught or () for one in bare})
        deaf = {one.lesson.id for one in bare if contradicts(exercises[one.lesson.id], told[one.lesson.id])}
        alone = self._says({one: exercises[one].prompt for one in told if one in deaf})
        beside = {one.lesson.id: prompt for one in asked if (prompt := exercises[one.lesson.id].beside) is not None}
        behind = self._says(beside, adapter=self._after)
        self._write(exercises[one.lesson.id].prompt for one in asked)
        out = []
        for one in asked:
            name = one.lesson.id
            before, after = self._texts(exercises[name].prompt)
            wanted = one.lesson.correction or ("" if name in deaf else told.get(name, ""))
            settled = name in deaf and plain(after) == plain(told[name]) == plain(alone[name])
            out.append(
                Answered(
                    asking=one, wanted=wanted, before=before, after=after, behind=behind.get(name), settled=settled
                )
            )
        return out

    def _says(self, prompts: Mapping[str, Ids], *, adapter: Adapter = BASE) -> dict[str, str]:
        """Answers, the base model's own unless an adapter is named, by the names of the prompts."""
        said = self._study.writer.write(
            list(prompts.values()), seeds=[0] * len(prompts), max_tokens=self._recipe.answer_tokens, temperature=0,
            adapter=adapter,
        )  # fmt: skip
        self._study.batch.adapters.use([])
        return {one: self._study.tokens.text(end.token_ids) for one, end in zip(prompts, said, strict=True)}

    def _encoded(self, askings: Sequence[Asking]) -> dict[str, Exercise]:
        """What can be asked, by the lesson's id, in token ids: whatever the night's own recipe would make of it."""
        recipe = self._recipe
        out: dict[str, Exercise] = {}
        for one in askings:
            method: Method = "sft-answers" if one.lesson.correction is not None else "consolidate"
            found, _ = encode(
                [one.lesson], self._study.tokens, method=method, room=self._study.writer.context_tokens,
                answer_tokens=recipe.answer_tokens,
            )  # fmt: skip
            out |= {each.lesson.id: each for each in found}
        return out

    def _suite(self, name: str, prompts: Sequence[Ids]) -> Json:
        self._write(prompts)
        right = [
            tuple(plain(said) == plain(one.answer) for said in self._texts(prompt))
            for one, prompt in zip(self._paper.suites[name], prompts, strict=True)
        ]
        return {
            "name": name, "asked": len(right), "right_before": sum(before for before, _ in right),
            "right_after": sum(after for _, after in right),
            "lost": sum(before and not after for before, after in right),
            "won": sum(after and not before for before, after in right),
        }  # fmt: skip

    def _were_right(self, suites: Mapping[str, Sequence[Ids]]) -> list[Ids]:
        """The prompts of suites that were answered rightly before."""
        asked = ((one, prompt) for name, prompts in suites.items()
                 for one, prompt in zip(self._paper.suites[name], prompts, strict=True))  # fmt: skip
        return [prompt for one, prompt in asked if plain(self._texts(prompt)[0]) == plain(one.answer)]

    def _rates(self, suites: Mapping[str, Sequence[Ids]]) -> list[Json]:
        """Habits over every prompt that both answered. To refuse what was answered wrongly is no loss: of suites'
        questions only those that were right before count there. To say nothing is a completer's right: where
        suggestions were asked for, `_suggestions` looks at it, and here at those that are trivial."""
        prompts = list(dict.fromkeys(prompt for _, prompt in self._said))
        wrong = {prompt for some in suites.values() for prompt in some}.difference(self._were_right(suites))
        names = (*NAMES, "trivial") if self._completed else NAMES
        counted: dict[str, list[Ids]] = dict.fromkeys(names, prompts) | {
            "empty": [one for one in prompts if one not in self._completed], "trivial": list(self._completed),
            "refusing": [one for one in prompts if one not in wrong],
        }  # fmt: skip
        before, after = ({one: self._shown(side, one) for one in prompts} for side in (self._before, self._after))
        return [
            {
                "name": name, "asked": len(counted[name]), "before": sum(name in before[one] for one in counted[name]),
                "after": sum(name in after[one] for one in counted[name]),
            }
            for name in names
        ]  # fmt: skip

    def _lengths(self, prompts: Iterable[Ids]) -> Json:
        """Of prompts that nothing taught speaks of, and that both answered with something: how many the new one answers
        at less than half the length (in characters) or more than twice. Completions have a look of their own."""
        texts = [self._texts(one) for one in dict.fromkeys(prompts) if one not in self._completed]
        size = [(len(before.strip()), len(after.strip())) for before, after in texts]
        both = [(before, after) for before, after in size if before and after]
        return {
            "asked": len(both), "terser": sum(2 * after < before for before, after in both),
            "wordier": sum(after > 2 * before for before, after in both),
        }  # fmt: skip

    def _shown(self, adapter: Adapter, prompt: Ids) -> frozenset[str]:
        """The habits of one answer."""
        said = self._said[adapter.ref.name, prompt]
        text = self._study.tokens.text(said.token_ids)
        trivial = prompt in self._completed and is_trivial(text, after=self._completed[prompt])
        return habits(text, ended=said.ended) | ({"trivial"} if trivial else set())

    # ---- suggestions

    def _suggested(self, askings: Sequence[Asking]) -> list[Exercise]:
        """Suggestions that were judged, in token ids."""
        recipe, room = self._recipe, self._study.writer.context_tokens
        return encode([one.lesson for one in askings], self._study.tokens, method="accept-reject", room=room,
                      answer_tokens=recipe.answer_tokens)[0]  # fmt: skip

    def _suggestions(self) -> Json:
        """What both would suggest to the prompts of held-out suggestions, and what people had said where only the
        champion would: of prompts whose judgements taught that a suggestion is welcome, or that taught nothing."""
        threshold, texts = self._recipe.accept_threshold, {one: self._texts(one) for one in self._completed}
        made = [tuple(bool(text.strip()) for text in both) for both in texts.values()]
        size = [(len(before.strip()), len(after.strip())) for before, after in texts.values()]
        both = [(before, after) for before, after in size if before and after]
        taught: dict[Ids, list[bool]] = {}
        for one in filter(self._is_made, self._taught):
            taught.setdefault(one.prompt, []).append(one.lesson.verdict == "accept")
        silent = {one for one, (before, after) in texts.items() if before.strip() and not after.strip()}
        withheld = [
            one.lesson.verdict == "accept"
            for one in self._held
            if one.prompt in silent and self._is_made(one) and fmean(taught.get(one.prompt, [True])) > threshold
        ]
        return {
            "threshold": threshold, "asked": len(texts), "made_before": sum(before for before, _ in made),
            "made_after": sum(after for _, after in made), "shorter": sum(after < before for before, after in both),
            "longer": sum(after > before for before, after in both), "withheld": len(withheld),
            "accepted": sum(withheld),
        }  # fmt: skip

    def _is_made(self, one: Exercise) -> bool:
        return not self._study.tokens.end_ids.issuperset(one.lesson.answer_ids)

    # ---- what is to stay

    def _rows(self, traffic: Sequence[Rehearsal]) -> list[Kept]:
        """Recent traffic with the base's own answers, without what asks the very things that were taught."""
        kept, _ = replayed(self._study, traffic, recipe=self._recipe, seed=self._seed)
        judged = {one.prompt for one in (*self._taught, *self._held)}
        kept = [one for one in kept if one.prompt not in judged]
        exercises = [one for one in self._exercises.values() if one.taught is not None]
        rows, _ = sort_out(self._study, kept, exercises=exercises, recipe=self._recipe)
        return [one for one in rows if one.answer]

    def _kl(self, rows: Sequence[Kept]) -> tuple[float, int]:
        """KL(base || new), nats a token of the base's answers, and the tokens."""
        size = self._recipe.microbatch
        self._study.lora.restore(self._state)
        base = base_states(self._study, rows, microbatch=size)
        with torch.no_grad():
            parts = [float(loss) for loss, _ in retention(self._study, rows, base=base, microbatch=size)]
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


def _is_disliked(one: Asking) -> bool:
    """Whether the teacher's answer is known to be no good."""
    return one.lesson.thumb < 0 and not one.lesson.told and one.lesson.correction is None
