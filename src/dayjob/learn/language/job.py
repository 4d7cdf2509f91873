"""A job of a language policy's layer: from the journal to an adapter that was examined.

The night begins at the base model and ends with the PEFT folder of a version (`versions.publish_files`). With its row
go two states: ``night/<version>``, what came of every lesson, and ``exam/<version>``, what the judge reads. Then the
notes are told: learned, and verified (nothing that was asked needs them any more) or failed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from dayjob.endings import Erased, Invalid, VersionStatus
from dayjob.journal.control import Control
from dayjob.journal.layers import is_personal, owner_of, served_by
from dayjob.journal.readers import Reader
from dayjob.journal.versions import StoredVersion, find_files, publish_files
from dayjob.learn.language.collect import Gathered, Layer, collect
from dayjob.learn.language.exam import Sides, examine
from dayjob.learn.language.exercises import wants
from dayjob.learn.language.night import Night, learn_night
from dayjob.learn.language.paper import Paper
from dayjob.learn.language.recipes import RECIPES, Method, NightRecipe, changed
from dayjob.learn.language.suites import read_suites
from dayjob.learn.language.table import Question
from dayjob.learn.work import SEED, Made, Unsaid, Work
from dayjob.memory.lessons import last_question, shorten
from dayjob.memory.notes import NotesMemory
from dayjob.memory.said import heard
from dayjob.policies.engine_protocol import VersionRef
from dayjob.policies.language_train import adapter_files
from dayjob.policies.tokens import Tokens
from dayjob.records import Json, Version

NOTHING = "nothing was taught that the recipe {recipe!r} can learn from: {remedy}, then ask again"
TEACH = "correct an answer or like a session"
INSTEAD = "take the recipe {recipes}, which learns from what there is, or " + TEACH
NIGHT_SHARE = 0.8  # of a job's progress; the exam is the rest
NIGHT_BEFORE_DREAM = 0.2  # the same, where a rehearsal follows: that tells its own progress up to NIGHT_SHARE
MOST_TOLD = 1_000  # lessons in the state of a night


@dataclass(frozen=True, slots=True, kw_only=True)
class Nights:
    """What the nights of language policies need beside the journal; handed over by whoever assembles.

    ``find_base``: the folder of a base model by its name, raises Invalid; ``devices`` where a base learns, else on the
    CPU; ``templates`` what a base's chat template is told; ``suites`` files by name; ``canaries`` phrases.
    """

    memory: NotesMemory
    find_base: Callable[[str], Path]
    devices: Mapping[str, str] = field(default_factory=dict)
    templates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes_tokens: int = 512
    suites: Mapping[str, Path] = field(default_factory=dict)
    canaries: Sequence[str] = ()
    recipes: Mapping[str, NightRecipe] = field(default_factory=lambda: RECIPES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsed:
    """A night after its rehearsal. ``told``: of it, for the job's result; ``state``: what is kept as
    ``dream/<version>``, and goes with the version's exam where somebody is erased; None for nothing."""

    night: Night
    told: Json
    state: Json | None


Rehearse = Callable[[Night, Gathered], Rehearsed]


def learn_layer(
    work: Work, nights: Nights, *, control: Control, reader: Reader, rehearse: Rehearse | None = None
) -> Made:
    """One night of one layer. ``rehearse``: what comes between the night and its exam; it is asked where nothing was
    taught, too. Raises Invalid where the base, a suite or the recipe does not fit, Erased where the layer was
    withdrawn."""
    return _LayerNight(work, nights, control=control, reader=reader).made(rehearse)


class _LayerNight:
    def __init__(self, work: Work, nights: Nights, *, control: Control, reader: Reader) -> None:
        self._work, self._nights, self._control, self._reader = work, nights, control, reader
        self._tenant, self._address = work.job.tenant, work.job.policy
        self._base = str(work.policy.spec["base"])
        self._folder = nights.find_base(self._base)
        self._device = nights.devices.get(self._base, "cpu")
        self._template = nights.templates.get(self._base)
        if work.recipe not in nights.recipes:
            raise Invalid(f"there is no recipe {work.recipe!r}: use one of {', '.join(nights.recipes)}", param="recipe")
        self._recipe = nights.recipes[work.recipe]

    def made(self, rehearse: Rehearse | None) -> Made:
        """Collect, learn, keep the files; the exam follows when they are published."""
        tokens = Tokens.open(self._folder, template=self._template)
        suites = self._suites(tokens)  # a bad file is said before a night is spent
        standing = self._standing(tokens)
        found = self._collect(tokens, method=self._recipe.method)
        told: Json = {"decisions": found.decisions, "lessons": len(found.split.train)}
        if not found.split.train and rehearse is None:
            return Made(why=self._nothing(tokens), is_empty=True, told=told)
        share = NIGHT_SHARE if rehearse is None else NIGHT_BEFORE_DREAM
        night = learn_night(
            self._folder, found.material, recipe=self._recipe, seed=SEED, checkpoint=self._work.checkpoint,
            progress=lambda done: self._work.progress(share * done), device=self._device, template=self._template,
        )  # fmt: skip
        users, dreamt = found.users, None
        if rehearse is not None:
            rehearsed = rehearse(night, found)
            night, users, dreamt = rehearsed.night, users | found.recent.users, rehearsed.state
            told |= {"dream": rehearsed.told}
        told |= {"stats": dict(night.stats), "learned": sum(one["learned"] for one in _lessons(found, night))}
        if not night.state:
            why = night.why if rehearse or _fits(self._recipe.method, found) else self._nothing(tokens)
            return Made(why=why, told=told | {"left_out": _left_out(night)})
        files = adapter_files(night.state, shape=night.shape, base=self._base)
        settings = changed(self._work.recipe, self._recipe)
        return Made(
            told=told, publish=partial(publish_files, files=files), from_seq=found.from_seq,
            network={"base": self._base, "lora": asdict(night.shape) | {"layers": list(night.shape.layers)}}
            | ({"settings": settings} if settings else {})
            | ({"template": dict(tokens.template)} if tokens.template else {}),
            to_seq=found.to_seq, users=users, detail={"stats": dict(night.stats)}, after=self._tell_notes,
            states=lambda stored: self._states(found, night, suites, stored) | _dream(dreamt, stored),
            looks_again=self._looks_again, check=lambda: self._check_stands(standing, tokens),
        )  # fmt: skip

    def _nothing(self, tokens: Tokens) -> str:
        """Why nothing was learned, and which recipes would learn from what there is."""
        fitting = [
            name
            for name, recipe in self._nights.recipes.items()
            if recipe.method != self._recipe.method
            for found in (self._collect(tokens, method=recipe.method),)
            if _fits(recipe.method, found)
        ]
        remedy = INSTEAD.format(recipes=" or ".join(fitting)) if fitting else TEACH
        return NOTHING.format(recipe=self._work.recipe, remedy=remedy)

    def _standing(self, tokens: Tokens) -> frozenset[str]:
        """The notes that this layer may learn, as things stand now."""
        user, until = owner_of(self._control, self._tenant, self._address), self._work.until
        teach = partial(
            self._nights.memory.for_training, self._tenant, self._work.policy.name, version="", until=until,
            control=tokens.control,
        )  # fmt: skip
        return frozenset(note.id for one in {None, user} for note in teach(user=one))

    def _check_stands(self, before: frozenset[str], tokens: Tokens) -> None:
        """Raises `Unsaid` where a note was deleted, or taken back, since it was learned from."""
        if not before <= self._standing(tokens):
            raise Unsaid

    def _collect(self, tokens: Tokens, *, method: Method) -> Gathered:
        user = owner_of(self._control, self._tenant, self._address)
        if is_personal(self._address) and user is None:
            raise Erased("this layer was withdrawn, as its owner was erased: there is nothing to learn for it")
        layer = Layer(
            tenant=self._tenant, policy=self._work.policy.name, user=user, base=self._base,
            method=method, budget=self._nights.notes_tokens, silent=self._control.silent_people(),
            versions={  # what a version says that learned from somebody erased, may be theirs
                one.name
                for one in self._control.versions(self._tenant, self._work.policy.name)
                if one.status is not VersionStatus.TAINTED
            },
        )  # fmt: skip
        return collect(self._reader, self._nights.memory, layer=layer, tokens=tokens, until=self._work.until)

    def _suites(self, tokens: Tokens) -> dict[str, tuple[Question, ...]]:
        recipe = self._recipe
        return read_suites(
            self._nights.suites, tokens, room=recipe.context_tokens, answer_tokens=recipe.answer_tokens
        )  # fmt: skip

    def _states(
        self, found: Gathered, night: Night, suites: Mapping[str, Sequence[Question]], stored: StoredVersion
    ) -> dict[str, Json]:
        """What is written with the version's row."""
        taught = {one.id for one in night.lessons if not one.left_out}
        paper = Paper(
            split=found.split, taught=frozenset(taught), suites=suites, canaries=self._nights.canaries
        )  # fmt: skip
        serving = self._serving()
        sides = Sides(
            champion=None if serving is None else self._ref(serving.policy, serving.name, serving.digest),
            new=self._ref(self._address, stored.version, stored.digest), state=night.state,
        )  # fmt: skip
        marked = examine(
            self._folder, paper, sides=sides, recipe=self._recipe, seed=SEED, device=self._device,
            template=self._template,
            progress=lambda share: self._work.progress(NIGHT_SHARE + (1 - NIGHT_SHARE) * share),
        )  # fmt: skip
        against = {
            "against": self._against(serving), "personal": is_personal(self._address),
            "unlearned": self._work.unlearned,
        }  # fmt: skip
        notes = {
            "learned": sorted(marked.holds),
            "right": sorted(one for one, holds in marked.holds.items() if holds and one not in marked.recited),
            "recited": sorted(marked.recited),
            "wrong": sorted(one for one, holds in marked.holds.items() if not holds),
        }
        return {
            f"exam/{stored.version}": against | marked.record,
            f"night/{stored.version}": {
                "recipe": self._work.recipe, "at_ms": stored.manifest.created_ms, "parent": self._work.champion.name,
                "base": self._base, "lessons": _lessons(found, night)[:MOST_TOLD],
                "more": max(0, len(night.lessons) - MOST_TOLD), "stats": dict(night.stats), "notes": notes,
            },
        }  # fmt: skip

    def _serving(self) -> Version | None:
        """What answers whom this layer is for, as things stand now: of a person's first version, the tenant's champion.
        None: the base model. What learned from somebody erased is asked nothing: its answers would be theirs."""
        found = served_by(self._control, self._tenant, self._address)
        return None if found.number == 0 or found.status is VersionStatus.TAINTED else found

    def _against(self, serving: Version | None) -> str:
        return self._work.baseline if serving is None else serving.name

    def _looks_again(self, version: Version) -> bool:
        """Whether weights that came out before have another look: they were passed over, or held where they were
        compared with what does not serve any more. What was held against what serves stays so: its questions were
        read."""
        if version.status is VersionStatus.SUPERSEDED:
            return True
        exam = self._control.state(self._tenant, self._address, f"exam/{version.name}") or {}
        return version.status is VersionStatus.HELD and exam.get("against") != self._against(self._serving())

    def _ref(self, address: str, version: str, digest: str) -> VersionRef:
        """A version as its engine knows it."""
        folder, files = find_files(self._control.root, self._tenant, address, version, digest=digest)
        name = f"{self._tenant}/{address}/{version}"
        return VersionRef(name=name, digest=digest, folder=folder, files=files)

    def _tell_notes(self, version: Version) -> None:
        """Say of every note that was taught whether it is still needed. From the state: whoever was killed before this
        says it again."""
        state = self._control.state(self._tenant, self._address, f"night/{version.name}") or {}
        notes, memory = state.get("notes", {}), self._nights.memory
        address = (self._tenant, self._work.policy.name)
        memory.learned(*address, version=version.name, notes=notes.get("learned", []))
        memory.verified(
            *address, version=version.name, right=notes.get("right", []), wrong=notes.get("wrong", []),
            recited=notes.get("recited", []),
        )  # fmt: skip


def _dream(state: Json | None, stored: StoredVersion) -> dict[str, Json]:
    return {} if state is None else {f"dream/{stored.version}": state}


def _lessons(found: Gathered, night: Night) -> list[Json]:
    """What came of every lesson, for the morning report. ``id`` is what unlearns it: the note's or the outcome's.
    ``as_read``: nothing shows that the model with the note reads it as it was meant, so it is not learned, whatever is
    answered."""
    askings = {one.lesson.id: one for one in found.split.train}
    out = []
    for report in night.lessons:
        asking = askings[report.id]
        asked, said = last_question(asking.lesson.question), asking.said
        as_read = bool(said and not report.left_out) and not heard(
            report.wanted, said=said, asked=asked, before=report.before
        )
        told = {"learned": report.learned and not as_read, "as_read": as_read, "decision": asking.decision}
        out.append(asdict(replace(report, id=asking.teacher)) | told | {"asked": shorten(asked)})
    return out


def _fits(method: Method, found: Gathered) -> bool:
    """Whether a method would learn from anything of what it was given."""
    return any(wants(method, one.lesson) is None for one in found.split.train)


def _left_out(night: Night) -> dict[str, int]:
    """Why lessons were left out, and how many for each reason."""
    reasons = [one.left_out for one in night.lessons if one.left_out]
    return {reason: reasons.count(reason) for reason in sorted(set(reasons))}
