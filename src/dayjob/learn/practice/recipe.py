"""What may be set of a course of practice."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_type_hints

from dayjob.endings import Invalid
from dayjob.learn.language.recipes import NightRecipe
from dayjob.objectives.language.corrections import CORRECTIONS
from dayjob.policies.language_train import LoraShape

Baseline = Literal["dr_grpo", "grpo", "rloo", "maxrl"]
CreditKind = Literal["outcome", "turns", "value", "process", "hindsight"]
BASELINES: tuple[str, ...] = get_args(Baseline)
CREDITS: tuple[str, ...] = get_args(CreditKind)
AUTO, PLAIN = "auto", "plain"
_SHAPE = LoraShape()
MOST = 1 << 24  # of any whole number that is set
_MOST_RANK = 4096  # of an adapter: wider than the layers of most models
_MOST_NATS = 20.0  # e^this is still a weight that FP32 holds beside 1
# The least that each may be.
_WHOLE = {
    "steps": 1, "groups": 1, "attempts": 1, "slots": 1, "row_tokens": 1, "context_tokens": 2, "reuse": 1, "ahead": 1,
    "save_every": 1, "teacher_rows": 1, "lag": 0, "warm_steps": 0, "warmup": 0, "look_every": 0, "self_written": 0,
    "anchor_rows": 0, "probe_rows": 0,
}  # fmt: skip
_ABOVE_ZERO = ("learning_rate", "max_gradient", "temperature", "kl_budget")
_NOT_BELOW = ("process", "solved", "anchor", "teacher")


@dataclass(frozen=True, kw_only=True)
class PracticeRecipe:
    """A course. A step is one update from ``groups`` groups of ``attempts`` attempts each, all their turns."""

    steps: int = 100
    groups: int = 8  # tasks a step
    attempts: int = 8  # at each task
    learning_rate: float = 1e-3  # of LoRA; a tenth of it or less suits full weights
    warmup: int = 5  # steps in which the learning rate rises
    max_gradient: float = 1.0  # L2 norm
    temperature: float = 1.0  # of the attempts
    full: bool = False  # all weights learn; else an adapter of ``lora``'s shape
    lora: LoraShape = _SHAPE

    credit: CreditKind = "outcome"
    baseline: Baseline = "dr_grpo"  # of the outcome's credit
    gae: float = 0.95  # of credit by a learned value: 1 is return less value, 0 one turn's difference of values
    process: float = 1.0  # of credit by process: what a turn earned, against the episode's reward
    hindsight: float = 1.0  # nats: a token weighs at most e^this times another by what the outcome says of it
    solved: float = 0.0  # advantage of attempts whose whole group earned full reward; 0: such groups are left out

    correction: str = AUTO  # "auto" chooses by what is measured; "plain" is none; else a name of CORRECTIONS
    lag: int = 0  # updates by which the attempts' weights are kept behind on purpose, to measure corrections
    reuse: int = 1  # steps that learn from one group
    ahead: int = 4  # steps by which attempts may run ahead of learning, where the two run apart
    probe_rows: int = 32  # rows on which staleness is measured before a step

    anchor: float = 1.0  # weight of KL(base || new) against the practice; 0: none
    anchor_rows: int = 32  # a step
    self_written: int = 256  # prompts that the base model writes itself
    kl_budget: float = 0.2  # nats a token on the anchor's rows, over which everything else learns less

    teacher: float = 0.0  # weight of a teacher who knows the solution, on tasks that every attempt failed; 0: none
    teacher_rows: int = 64  # turns a step, at most, that it teaches

    warm_steps: int = 50  # of supervised steps on curated turns, where there are any
    slots: int = 64  # answers written at once
    row_tokens: int = 8192  # of a microbatch, fillers counted: memory grows with this, not with episodes
    context_tokens: int = 1024  # of a turn's prompt and answer
    look_every: int = 20  # steps between looks at held-out tasks; 0: only before and after
    save_every: int = 10  # steps between checkpoints

    def __post_init__(self) -> None:
        check_whole(self, _WHOLE)
        if not 1 <= self.lora.rank <= _MOST_RANK:
            raise Invalid(f"rank is {self.lora.rank}: give a whole number from 1 to {_MOST_RANK}", param="rank")
        for name in (*_ABOVE_ZERO, *_NOT_BELOW):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0 or (name in _ABOVE_ZERO and value == 0):
                above = "a number above 0" if name in _ABOVE_ZERO else "0 or a number above it"
                raise Invalid(f"{name} is {value}: give {above}", param=name)
        for name, known in (("credit", CREDITS), ("baseline", BASELINES), ("correction", corrections())):
            if getattr(self, name) not in known:
                raise Invalid(f"{name} is {getattr(self, name)!r}: use one of {', '.join(known)}", param=name)
        for name, most in (("gae", 1.0), ("hindsight", _MOST_NATS)):
            if not 0 <= getattr(self, name) <= most:
                raise Invalid(f"{name} is {getattr(self, name)}: give a number from 0 to {most:g}", param=name)
        if self.attempts == 1 and self.credit != "value":
            message = "one attempt at a task has no other to be compared with: give 2 or more, or credit value"
            raise Invalid(message, param="attempts")

    def night(self) -> NightRecipe:
        """The same model and anchor for the parts that nights have."""
        return NightRecipe(
            method="consolidate", lora=self.lora, microbatch=self.slots, context_tokens=self.context_tokens,
            anchor=self.anchor, anchor_rows=max(1, self.anchor_rows), self_written=self.self_written,
            kl_budget=self.kl_budget, learning_rates=(self.learning_rate,),
            answer_tokens=min(NightRecipe.answer_tokens, self.context_tokens - 1),
        )  # fmt: skip


def check_whole(settings: object, least: Mapping[str, int]) -> None:
    """Raises Invalid for a field of ``settings`` that is no whole number from its ``least`` to MOST."""
    for name, low in least.items():
        value = getattr(settings, name)
        if type(value) is not int or not low <= value <= MOST:
            raise Invalid(f"{name} is {value}: give a whole number from {low} to {MOST}", param=name)


def corrections() -> tuple[str, ...]:
    """Every name that ``PracticeRecipe.correction`` may have."""
    return (AUTO, PLAIN, *(name for name in CORRECTIONS if CORRECTIONS[name].weighs))


def settings_of(words: Sequence[str], *kinds: type) -> list[dict[str, Any]]:
    """``["steps=50", "credit=turns"]`` as fields of these dataclasses, a dictionary each; ``rank`` is the adapter's.

    Raises Invalid for a name that none of them has, or a value that does not fit it.

    >>> settings_of(["steps=50", "full=true"], PracticeRecipe)
    [{'steps': 50, 'full': True}]
    """
    known = {name: (place, hint) for place, kind in enumerate(kinds) for name, hint in _plain_fields(kind)}
    found: list[dict[str, Any]] = [{} for _ in kinds]
    for word in words:
        name, equals, text = word.partition("=")
        if name not in known or not equals:
            raise Invalid(f"{word!r} sets nothing: write NAME=VALUE with one of {', '.join(known)}", param="set")
        place, hint = known[name]
        value = _value(word, text, hint)
        found[place] |= {"lora": LoraShape(rank=value)} if name == "rank" else {name: value}
    return found


def _plain_fields(kind: type) -> Iterator[tuple[str, Any]]:
    """Name and type of the fields that a word can set."""
    hints = get_type_hints(kind)
    for one in fields(kind):
        yield ("rank", int) if hints[one.name] is LoraShape else (one.name, hints[one.name])


def _value(word: str, text: str, hint: Any) -> Any:
    if hint is bool:
        if text not in ("true", "false"):
            raise Invalid(f"{word!r}: write true or false", param="set")
        return text == "true"
    if hint not in (int, float):
        return text
    try:
        return hint(text)
    except ValueError:
        raise Invalid(f"{word!r}: write a {'whole ' if hint is int else ''}number", param="set") from None
