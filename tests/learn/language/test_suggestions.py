"""Suggestions from journal to exam: silence teaches, a fifth is kept, and what both would suggest is counted."""

from dataclasses import replace
from pathlib import Path

import pytest

from dayjob.endings import OutcomeKind
from dayjob.gate.exam import Exam
from dayjob.learn.language.exam import Sides, examine
from dayjob.learn.language.lessons import Lesson, Material, Rehearsal
from dayjob.learn.language.night import learn_night
from dayjob.learn.language.paper import Paper
from dayjob.learn.language.recipes import RECIPES
from dayjob.learn.language.splits import Asking, Split
from dayjob.policies.adapters import file_digests
from dayjob.policies.engine_protocol import VersionRef
from dayjob.policies.tokens import Tokens
from tests.learn.language.desk import Desk
from tests.policies.language.worlds import byte_tokenizer
from tests.serve.chatting import save_tiny

TOKENS = Tokens(byte_tokenizer())
END = min(TOKENS.end_ids)
TEACH = replace(
    RECIPES["sft-answers"], learning_rates=(2e-2,), steps=30, warmup=2, lessons=4, microbatch=8, answer_tokens=8,
    context_tokens=96, anchor=0.0, self_written=0, stop_every=0,
)  # fmt: skip


def user(text: str) -> tuple[dict[str, str], ...]:
    return ({"role": "user", "content": text},)


def test_silence_teaches_whether_or_not_anybody_says_so(desk: Desk):
    desk.tell(desk.chat("one", said=("ok",)), OutcomeKind.REJECT)
    desk.chat("two", said=("",))
    desk.tell(desk.chat("three", said=("",)), OutcomeKind.NONE)
    desk.chat("four", said=("unheard",))
    found = {
        one.lesson.question[-1]["content"]: (one.lesson.verdict, one.lesson.answer_ids)
        for one in desk.gather(method="accept-reject").split.train
    }
    assert {asked: verdict for asked, (verdict, _) in found.items()} == {
        "one": "reject",
        "two": "none",
        "three": "none",
    }
    assert found["two"][1] == (END,)
    assert desk.gather(method="preferences").split.train == ()


def suggestion(number: int, question: str, said: str, verdict: str) -> Asking:
    ids = (*TOKENS.encode(said), END)
    lesson = Lesson(id=f"o{number}", question=user(question), answer_ids=ids, answer_logprobs=(-0.5,) * len(ids),
                    verdict=verdict, family=f"o{number}")  # fmt: skip
    return Asking(lesson=lesson, teacher=lesson.id, decision=None)


def made(folder: Path, place: Path, answers: dict[str, str]):
    """An adapter that gives these answers, "" being silence."""
    lessons = tuple(
        Lesson(id=asked, question=user(asked), correction=answer, told=True, family=asked)
        for asked, answer in answers.items()
    )
    night = learn_night(folder, Material(lessons=lessons), recipe=replace(TEACH, lessons=len(answers)), seed=0)
    assert all(one.learned or not one.wanted for one in night.lessons), night.lessons
    night.save(place, base="tiny")
    return night, VersionRef(name=place.name, digest=place.name, folder=place, files=file_digests(place))


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory):
    """A champion that completes three texts, and one that is silent on two of them and repeats the third."""
    place = tmp_path_factory.mktemp("suggest")
    folder = save_tiny(place / "model")
    _, champion = made(folder, place / "old", {"aa": "xyz", "bb": "zyx", "cc dd": "yes"})
    night, new = made(folder, place / "new", {"aa": "", "bb": "", "cc dd": "dd"})
    return folder, night, champion, new


def test_an_exam_counts_silence_trivial_and_shorter_suggestions(versions):
    folder, night, champion, new = versions
    # To "aa" suggestions are welcome by what taught, to "bb" they are not; "cc dd" taught nothing.
    train = [suggestion(n, "aa", "xyz", "accept") for n in range(3)]
    train += [suggestion(10 + n, "bb", "zyx", "reject") for n in range(3)]
    held = [suggestion(20, "aa", "xyz", "accept"), suggestion(21, "aa", "xyz", "reject"),
            suggestion(22, "bb", "zyx", "accept"), suggestion(23, "aa", "", "none"),
            suggestion(24, "cc dd", "yes", "accept")]  # fmt: skip
    split = Split(train=tuple(train), stop=(), exam=(), suggestions=tuple(held),
                  exam_traffic=(Rehearsal(question=user("aa")), Rehearsal(question=user("hello"))))  # fmt: skip
    recipe = replace(TEACH, method="accept-reject")
    sides = Sides(champion=champion, new=new, state=night.state)
    record = examine(folder, Paper(split=split, taught=frozenset(), suites={}), sides=sides, recipe=recipe, seed=0)
    told = record.record
    assert told["suggestions"] == {
        "threshold": 0.25, "asked": 3, "made_before": 3, "made_after": 1, "shorter": 1, "longer": 0,
        "withheld": 2, "accepted": 1,
    }, "of what is withheld only what taught that it is welcome counts"  # fmt: skip
    rates = {one["name"]: (one["asked"], one["before"], one["after"]) for one in told["rates"]}
    assert rates["trivial"] == (3, 0, 1)
    assert rates["empty"][0] == 1, "silence is a completer's right: only other traffic is asked"
    assert told["traffic"]["prompts"] == 1, "what taught is no drift"
    exam = Exam.from_json({"against": "old"} | told)
    assert exam.suggested is not None
    assert exam.suggested.withheld == 2
    assert Exam.from_json({"against": "old"} | told | {"suggestions": None}).suggested is None
