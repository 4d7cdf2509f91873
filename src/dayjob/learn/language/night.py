"""One night on one page: prepare, step, look at the stop split, keep the best, report.

A night always begins at the base model. Equal material, recipe, seed, threads and torch build give equal weights, also
when the night was killed and went on from its checkpoint: what is drawn depends on the seed and the step alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dayjob.learn.language.anchors import Anchors, Kept, make_anchors, replayed, set_aside, sort_out
from dayjob.learn.language.exercises import Exercise, encode
from dayjob.learn.language.heeding import heeded
from dayjob.learn.language.lessons import Material
from dayjob.learn.language.mixture import parts_of
from dayjob.learn.language.parts import Anchor, Part, base_states, retention
from dayjob.learn.language.progress import Progress
from dayjob.learn.language.recipes import NightRecipe
from dayjob.learn.language.report import LessonReport, answers_of, report
from dayjob.learn.language.splits import key_of, place_of
from dayjob.learn.language.study import Ids, Study, slices
from dayjob.learn.stages import Stages
from dayjob.objectives.language.average import adapter_product, moved_average
from dayjob.objectives.language.mix import add_stats, mix
from dayjob.objectives.language.retention import brake
from dayjob.policies.language_train import LoraShape, write_adapter


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look at the stop split: ``lesson`` nats a token of what is to be said, ``kl`` nats a token of what is to stay
    (0 without such rows), ``score`` what is compared: lesson + anchor x kl."""

    learning_rate: float
    step: int
    lesson: float
    kl: float
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """What a night made. ``state`` is empty when nothing was learned that is worth keeping, and ``why`` says it."""

    state: Mapping[str, Tensor]
    shape: LoraShape
    stats: Mapping[str, float]
    lessons: tuple[LessonReport, ...]
    looks: tuple[Look, ...]
    why: str = ""

    def save(self, folder: Path, *, base: str) -> None:
        """Write the adapter as a PEFT folder; ``base``: the base model's name where it will be served.

        Raises ValueError when there is none.
        """
        if not self.state:
            raise ValueError(f"this night made no adapter ({self.why}): keep serving what serves")
        write_adapter(folder, self.state, shape=self.shape, base=base)


def learn_night(
    folder: Path,
    material: Material,
    *,
    recipe: NightRecipe,
    seed: int,
    checkpoint: Path | None = None,
    progress: Callable[[float], None] | None = None,
    device: str = "cpu",
    template: Mapping[str, Any] | None = None,
) -> Night:
    """From the base model in ``folder`` and ``material`` to an adapter. ``template`` as of `Tokens`.

    ``progress`` is told a share in [0, 1]; what it raises ends the night. With ``checkpoint`` a killed night goes on
    where it was; the file is removed at the end. Raises Invalid when the folder holds no model that can be learned and
    served.
    """
    study = Study(folder, recipe, seed=seed, device=device, template=template)
    room = study.writer.context_tokens
    exercises, out = encode(
        material.lessons, study.tokens, method=recipe.method, room=room, answer_tokens=recipe.answer_tokens
    )
    if recipe.method == "consolidate":
        exercises, deaf = heeded(study, exercises, recipe=recipe)
        out |= deaf
    mark = fingerprint(folder, asdict(material), asdict(recipe), seed, study.tokens.template) if checkpoint else ""
    stages = Stages(path=checkpoint, mark=mark, report=progress)
    anchors = Anchors(rows=(), conflicts=(), unfit=0)
    if recipe.anchor and exercises:
        anchors = make_anchors(
            study, material.rehearsals, exercises=exercises, recipe=recipe, seed=seed, held=material.held
        )  # fmt: skip
    judge, anchors = StopSplit.of(study, material, exercises=exercises, anchors=anchors, recipe=recipe, seed=seed)
    counts = {
        "rehearsals_unfit": float(anchors.unfit),
        "rehearsals_in_conflict": float(len(anchors.conflicts)),
        "anchor_rows": float(len(anchors.rows)),
        "self_written_rows": float(sum(row.self_written for row in anchors.rows)),
    }
    parts = parts_of(study, exercises, anchors=anchors, recipe=recipe, seed=seed)
    why = _nothing_to_do(parts, recipe)
    if why:
        stages.finish()
        lessons = report(material.lessons, [], out=out, before=[], after=[])
        return Night(state={}, shape=recipe.lora, stats=counts, lessons=lessons, looks=(), why=why)
    before = answers_of(study, exercises, recipe=recipe)
    learned = Course(study, parts, judge=judge, recipe=recipe, stages=stages).run()
    stages.finish()
    best = learned.best_step
    study.lora.restore(learned.best)
    lessons = report(
        material.lessons, exercises, out=out, before=before, after=answers_of(study, exercises, recipe=recipe)
    )
    stats = counts | {"lessons": float(len(exercises)), "steps": float(best)} | learned.stats
    why = "" if best else "no step made the stop split better than the base model is"
    looks = tuple(Look(**one) for one in learned.looks)
    return Night(
        state=learned.best if best else {}, shape=recipe.lora, stats=stats, lessons=lessons, looks=looks, why=why
    )


def _nothing_to_do(parts: Sequence[Part], recipe: NightRecipe) -> str:
    """Why there is no night, "" if there is one."""
    names = {part.name for part in parts}
    if not names - {Anchor.name}:
        return "no lesson says anything that this recipe can teach"
    if recipe.anchor and Anchor.name not in names:
        # Lessons alone would cost nearly everything else that the model knows.
        return "no prompt is left to anchor what is to stay: give rehearsals or self_written, or set anchor to 0"
    return ""


ENOUGH_ASKED, ENOUGH_KEPT = 16, 32  # of a stop split: one asking alone would decide whether anything is learned


class StopSplit:
    """What early stopping reads: askings with what is to be said, and rows of what is to stay."""

    def __init__(self, asked: Sequence[tuple[Ids, Ids]], kept: Sequence[Kept], *, recipe: NightRecipe) -> None:
        """``asked``: prompts, and what is to be said to each."""
        self._asked = asked
        self._kept = kept
        self._base: list[Tensor] | None = None  # what the base model makes of them
        self._recipe = recipe

    @staticmethod
    def of(
        study: Study, material: Material, *, exercises: Sequence[Exercise], anchors: Anchors, recipe: NightRecipe,
        seed: int,
    ) -> tuple[StopSplit | None, Anchors]:  # fmt: skip
        """The stop split, and the anchor without the rows that went into it.

        Held-out askings and rehearsals first. Where those are fewer than ``ENOUGH_ASKED`` and ``ENOUGH_KEPT``, prompts
        that the model wrote itself are taken out of the anchor, and askings that *are* learned from are read too: they
        say less about other words, but of one asking alone no step could be chosen. None when the recipe does not
        look, or of nothing that was asked it is known what is to be said: what stays alone would always be best where
        nothing is learned.
        """
        if not recipe.stop_every:
            return None, anchors
        room = study.writer.context_tokens
        held, _ = encode(
            material.stop_lessons, study.tokens, method=recipe.method, room=room, answer_tokens=recipe.answer_tokens
        )
        held, _ = heeded(study, held, recipe=recipe)
        asked = _to_be_said(study, held, recipe=recipe)
        if len(asked) < ENOUGH_ASKED:
            asked += _to_be_said(study, sorted(exercises, key=_drawn), recipe=recipe)[: ENOUGH_ASKED - len(asked)]
        if not asked:
            return None, anchors
        kept, _ = replayed(study, material.stop_rehearsals, recipe=recipe, seed=seed)
        kept, _ = sort_out(study, kept, exercises=[*exercises, *held], recipe=recipe)
        anchors, own = set_aside(anchors, most=ENOUGH_KEPT - len(kept))
        return StopSplit(asked, [*kept, *own], recipe=recipe), anchors

    @torch.no_grad()
    def look(self, study: Study, *, step: int, learning_rate: float) -> Look:
        """How the adapter stands now."""
        nats, tokens = 0.0, 0
        size = self._recipe.microbatch
        for part in slices(len(self._asked), size):
            rows = study.rows([prompt for prompt, _ in self._asked[part]], [said for _, said in self._asked[part]])
            nats -= float(study.logprobs(rows).sum())
            tokens += int(rows.mask_BT.sum())
        lesson = nats / max(tokens, 1)
        if self._base is None:
            self._base = base_states(study, self._kept, microbatch=size)
        kl = sum(float(loss) for loss, _ in retention(study, self._kept, base=self._base, microbatch=size))
        score = lesson + self._recipe.anchor * kl
        return Look(learning_rate=learning_rate, step=step, lesson=lesson, kl=kl, score=score)


def _drawn(one: Exercise) -> float:
    return place_of(one.lesson.family, key_of(one.lesson.question))


def _to_be_said(study: Study, held: Sequence[Exercise], *, recipe: NightRecipe) -> list[tuple[Ids, Ids]]:
    """Questions, bare and behind other notes, and the answers they should get: the correction, else what the teacher
    says."""
    bare = [one for one in held if one.target is None and one.taught is not None]
    with study.base() as writer:
        said = writer.write(
            [one.taught or () for one in bare],
            seeds=[0] * len(bare),
            max_tokens=recipe.answer_tokens,
            temperature=0,
        )
    teachers = {one.lesson.id: answer.token_ids for one, answer in zip(bare, said, strict=True)}
    wanted = [(asked, one.target or teachers.get(one.lesson.id)) for one in held for asked in one.asked]
    return [(prompt, answer) for prompt, answer in wanted if answer]


class Course:
    """The steps of a night, at each of the learning rates in turn."""

    def __init__(
        self, study: Study, parts: Sequence[Part], *, judge: StopSplit | None, recipe: NightRecipe, stages: Stages
    ) -> None:
        self._study = study
        self._parts = parts
        self._judge = judge
        self._recipe = recipe
        self._stages = stages
        # Without a stop split nothing chooses between learning rates.
        self._rates = recipe.learning_rates if judge else recipe.learning_rates[:1]

    def run(self) -> Progress:
        """All steps; what it gives back holds the best weights."""
        start = self._study.lora.state()
        self._study.lora.average = self._products()  # the teacher's, where it is a slow average
        at = Progress.load(self._stages, self._study.lora, start=start)
        while at.trial < len(self._rates):
            rate = self._rates[at.trial]
            if at.step == 0:
                self._look(at, rate)
            while at.step < self._recipe.steps and at.stale < self._recipe.patience:
                self._step(at, rate)
                done = (at.trial + at.step / self._recipe.steps) / len(self._rates)
                if at.step % self._recipe.save_every == 0:
                    at.save(self._stages, self._study.lora)
                self._stages.say(done)
            if self._judge is None:
                at.keep(self._study.lora, score=0.0)  # nothing chooses: the last step counts
            at.next_trial(self._study.lora, start)
            self._study.lora.average = self._products()
        return at

    def _products(self) -> dict[str, Tensor]:
        """What the adapter adds to each layer now; nothing where the teacher is the base model."""
        lora = self._study.lora
        if self._recipe.teacher == "frozen":
            return {}
        pairs = {name: (up_OR.detach(), down_RI.detach()) for name, (down_RI, up_OR) in lora.factors.items()}
        return {name: adapter_product(*pair, scaling=lora.shape.scaling) for name, pair in pairs.items()}

    def _step(self, at: Progress, rate: float) -> None:
        recipe, lora = self._recipe, self._study.lora
        # The KL of the step before: shares are known before a step, so microbatches add up.
        pace = brake(at.kl, budget=recipe.kl_budget)
        at.optimizer.zero_grad()
        stats: dict[str, Tensor] = {}
        for part in self._parts:
            share = part.share if part.name == Anchor.name else part.share * pace
            for piece in part.losses(self._study, at.step):
                loss, found = mix({part.name: piece}, shares={part.name: share})
                torch.autograd.backward(loss)
                stats = add_stats(stats, found)
        torch.nn.utils.clip_grad_norm_(lora.parameters(), recipe.max_gradient)
        for group in at.optimizer.param_groups:
            group["lr"] = rate * min(1.0, (at.step + 1) / max(recipe.warmup, 1))
        at.optimizer.step()
        for name, product_OI in self._products().items():
            lora.average[name] = moved_average(lora.average[name], product_OI, decay=recipe.teacher_decay)
        at.step += 1
        at.stats = {name: float(value) for name, value in stats.items()} | {"brake": pace, "learning_rate": rate}
        at.kl = at.stats.get(f"{Anchor.name}/kl", 0.0)
        if self._judge and (at.step % recipe.stop_every == 0 or at.step == recipe.steps):
            self._look(at, rate)

    def _look(self, at: Progress, rate: float) -> None:
        if self._judge is not None:
            look = self._judge.look(self._study, step=at.step, learning_rate=rate)
            at.looks.append(asdict(look))
            at.keep(self._study.lora, score=look.score)


def fingerprint(folder: Path, *said: object) -> str:
    """SHA-256 of everything a course depends on (JSON, and the model's files): a checkpoint of anything else is not
    gone on from."""
    digest = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode())
    for path in sorted(folder.iterdir()):
        if path.is_file():
            with path.open("rb") as file:
                digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
