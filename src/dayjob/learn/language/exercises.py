"""From lessons to token ids, and why some of them are left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dayjob.endings import Invalid
from dayjob.learn.language.lessons import Lesson, Messages, settle
from dayjob.learn.language.recipes import Method
from dayjob.learn.language.study import Ids
from dayjob.policies.tokens import Tokens
from dayjob.records import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Exercise:
    """A lesson in token ids."""

    lesson: Lesson
    prompt: Ids  # the bare question
    beside: Ids | None  # the same behind notes that do not teach it
    taught: Ids | None  # the same with what the teacher may know
    target: Ids | None  # the correction and the end of a turn

    @property
    def asked(self) -> tuple[Ids, ...]:
        """Every way in which it has to be answered."""
        return (self.prompt,) if self.beside is None else (self.prompt, self.beside)

    @property
    def reward(self) -> float:
        """What its thumb says of the served answer."""
        return float(self.lesson.thumb)


def wants(method: Method, lesson: Lesson) -> str | None:
    """Why a method has no use for a lesson, in words; None when it has.

    A thumb down says that an answer was wrong and not what is right: without a word on that nothing is taught by it
    where answers are taught.
    """
    disliked = lesson.thumb < 0 and lesson.correction is None and not lesson.told
    served = bool(lesson.answer_ids)
    match method:
        case "consolidate":
            if lesson.context is None:
                return "the teacher would know no more than the model: nothing stands in its context"
            return "a thumb down without a correction says only what is wrong" if disliked else None
        case "sft-answers":
            return "nobody said what the right answer is" if lesson.correction is None else None
        case "accept-reject":
            if lesson.verdict is None or lesson.answer_logprobs is None or not served:
                return "it is not about a suggestion whose log-probabilities were kept"
            return None
        case "preferences":
            if not served or (lesson.correction is None and lesson.thumb == 0):
                return "there is no served answer to prefer or to reject"
            return None
        case "published-sft":
            return "its transcript has no answer" if lesson.correction is None and not served else None
        case "published-grpo":
            if lesson.thumb == 0 or not served or lesson.answer_logprobs is None:
                return "it has no thumb on an answer whose log-probabilities were kept"
            return None


def encode(
    lessons: Sequence[Lesson], tokens: Tokens, *, method: Method, room: int, answer_tokens: int
) -> tuple[list[Exercise], dict[str, str]]:
    """The exercises, and for every lesson that is left out the reason. ``room``: tokens of a prompt and its answer.

    A lesson that cannot be encoded (a control token in a correction, a template that refuses it) is left out alone, and
    so is a right answer that is longer than what is written at night: no exam could ever find it said. Transcripts
    (``published-sft``) are learned whatever their length.
    """
    standing, out = settle(lessons)
    exercises = []
    for lesson in standing:
        reason = wants(method, lesson)
        if reason is None:
            try:
                one = _exercise(lesson, tokens)
            except Invalid as error:
                reason = str(error)
            else:
                reason = _too_long(one, room, answer_tokens) or _cut(one, method, answer_tokens)
        if reason is None:
            exercises.append(one)
        else:
            out[lesson.id] = reason
    return exercises, out


def turn(tokens: Tokens, messages: Messages, *, answer: str, tools: Sequence[Json] = ()) -> Ids:
    """The ids of an answer to ``messages`` as the model would write it: its text and the token that ends a turn.

    Raises Invalid when the answer holds a control token, or the chat template ends no turn.
    """
    prompt = tokens.render(messages, tools=tools)
    asked = {"role": "user", "content": messages[-1].get("content", "")}
    whole = tokens.render([*messages, {"role": "assistant", "content": answer}, asked], tools=tools)
    common = next((i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), len(prompt))
    end = next((one for one in whole[common:] if one in tokens.end_ids), None)
    if end is None:
        message = "the chat template writes no end-of-sequence token behind an answer: take a base whose template does"
        raise Invalid(message, param="base")
    return (*tokens.encode(answer), end)


def _exercise(lesson: Lesson, tokens: Tokens) -> Exercise:
    tools, right = lesson.tools, lesson.correction
    return Exercise(
        lesson=lesson,
        prompt=tokens.render(lesson.question, tools=tools),
        beside=None if lesson.beside is None else tokens.render(lesson.beside, tools=tools),
        taught=None if lesson.context is None else tokens.render(lesson.context, tools=tools),
        target=None if right is None else turn(tokens, lesson.question, answer=right, tools=tools),
    )


def _too_long(one: Exercise, room: int, answer_tokens: int) -> str | None:
    prompt = max(len(ids) for ids in (*one.asked, one.taught or ()))
    answer = max(answer_tokens, len(one.target or ()), len(one.lesson.answer_ids))
    if prompt + answer > room:
        return f"{prompt} tokens and an answer of up to {answer} are more than {room}: raise context_tokens"
    return None


def _cut(one: Exercise, method: Method, answer_tokens: int) -> str | None:
    if one.target is None or len(one.target) <= answer_tokens or method == "published-sft":
        return None
    return (
        f"its answer is {len(one.target) - 1} tokens, and nights write fewer than {answer_tokens}: shorten it, or "
        f"raise answer_tokens in [recipes.{method}] of dayjob.toml"
    )
