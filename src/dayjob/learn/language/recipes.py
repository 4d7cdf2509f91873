"""What may be done with a night's lessons, and the settings of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Literal

from dayjob.config import ANSWER_TOKENS, CONTEXT_TOKENS, NIGHT_SETTINGS, Recipe, night_fault
from dayjob.endings import Invalid
from dayjob.objectives.language.divergence import FORWARD, Divergence
from dayjob.policies.language_train import LoraShape
from dayjob.records import Json

_SHAPE = LoraShape()
Teacher = Literal["frozen", "ema"]
Method = Literal["consolidate", "sft-answers", "accept-reject", "preferences", "published-sft", "published-grpo"]


@dataclass(frozen=True, kw_only=True)
class NightRecipe:
    """A method and its settings. The defaults are those of ``consolidate``; see ``RECIPES`` for the others'.

    A step is one update. Its lessons and its anchor rows are drawn anew, and cut into microbatches of ``microbatch``
    rows whatever their number: memory grows with the microbatch, not with the step.
    """

    method: Method
    lora: LoraShape = _SHAPE
    learning_rates: tuple[float, ...] = (2e-3,)  # several: each is tried, the stop split chooses
    steps: int = 100
    warmup: int = 10  # steps in which the learning rate rises
    max_gradient: float = 1.0  # L2 norm
    lessons: int = 32  # a step
    microbatch: int = 32  # rows
    answer_tokens: int = ANSWER_TOKENS  # at most, of what is written at night
    context_tokens: int = CONTEXT_TOKENS  # of a prompt and its answer; lessons that are longer are left out, and said

    divergence: Divergence = FORWARD  # of self-distillation
    teacher: Teacher = "frozen"  # of self-distillation: the base; "ema": with the slow average of the adapter's BA
    teacher_decay: float = 0.99  # of that average, a step
    refine: bool = True  # where a correction marks an error, the teacher rewrites from there on
    error_ratio: float = 0.1  # a token is an error that the teacher gives less than this times its best token's chance

    anchor: float = 5.0  # weight of KL(base || new) against the lessons; 0: no anchor
    anchor_rows: int = 64  # a step
    self_written: int = 512  # prompts that the base model writes itself; 0: none
    question_tokens: int = 64  # at most, of a prompt that it writes itself
    noted: int = 3  # one in so many of these prompts is asked behind made-up notes, too; 0: none
    conflict: float = 0.5  # nats: a rehearsal whose answer the notes change by more than this on any token is no anchor
    own_words: float = 0.5  # weight of such rehearsals as lessons of self-distillation; 0: they are dropped
    own_words_from: float = 3.0  # nats: from here on they are surely about the lesson; below they are only dropped
    kl_budget: float = 0.1  # nats a token on the anchor's rows, over which everything else learns less

    preference_beta: float = 0.1
    accept_threshold: float = 0.25  # p*: act exactly when acceptance is more probable than this

    stop_every: int = 10  # steps between looks at the stop split; 0: none, every step is taken
    save_every: int = 25  # steps between checkpoints
    patience: int = 4  # looks without a better score after which the night ends

    def __post_init__(self) -> None:
        for name in NIGHT_SETTINGS:
            fault = night_fault(name, getattr(self, name))
            if fault:
                raise Invalid(f"{name} is {getattr(self, name)}: {fault}", param=name)
        if self.answer_tokens >= self.context_tokens:
            message = f"answer_tokens is {self.answer_tokens}: less than context_tokens, {self.context_tokens}"
            raise Invalid(message, param="answer_tokens")
        for name in ("lessons", "microbatch", "question_tokens", "patience", "save_every"):
            if getattr(self, name) < 1:
                raise Invalid(f"{name} is {getattr(self, name)}: at least 1", param=name)
        for name in (
            "anchor",
            "self_written",
            "anchor_rows",
            "conflict",
            "own_words",
            "own_words_from",
            "warmup",
            "stop_every",
            "noted",
        ):
            if getattr(self, name) < 0:
                raise Invalid(f"{name} is {getattr(self, name)}: 0 or more", param=name)
        if self.teacher not in ("frozen", "ema"):
            raise Invalid(f"teacher is {self.teacher!r}: frozen or ema", param="teacher")
        if not 0 <= self.teacher_decay < 1:
            raise Invalid(f"teacher_decay is {self.teacher_decay}: from 0 to below 1", param="teacher_decay")
        if self.anchor and not self.anchor_rows:
            raise Invalid("an anchor without rows: give anchor_rows, or an anchor of 0", param="anchor_rows")


_ANCHORED = NightRecipe(method="consolidate")
_PUBLISHED = replace(_ANCHORED, anchor=0.0, self_written=0, stop_every=0)

RECIPES: Mapping[str, NightRecipe] = MappingProxyType(
    {
        "consolidate": _ANCHORED,
        "sft-answers": replace(_ANCHORED, method="sft-answers"),
        "accept-reject": replace(_ANCHORED, method="accept-reject", learning_rates=(1e-3,)),
        "preferences": replace(_ANCHORED, method="preferences", learning_rates=(1e-3,)),
        "published-sft": replace(_PUBLISHED, method="published-sft", learning_rates=(1e-3,)),
        "published-grpo": replace(_PUBLISHED, method="published-grpo", learning_rates=(1e-3,)),
    }
)


def recipes_with(changes: Iterable[Recipe]) -> Mapping[str, NightRecipe]:
    """`RECIPES` with the changes that a configuration makes."""
    told = {one.name: replace(RECIPES[one.name], **dict(one.settings)) for one in changes}
    return MappingProxyType({**RECIPES, **told})


def changed(name: str, recipe: NightRecipe) -> Json:
    """The settings in which a recipe is not the one that ships under its name: as much a part of what a version is as
    its weights, for the exam goes by them too."""
    shipped = asdict(RECIPES[name]) if name in RECIPES else {}
    return {field: value for field, value in asdict(recipe).items() if field not in shipped or value != shipped[field]}
