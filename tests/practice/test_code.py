"""The code environment: its promises, its families by hand, and every trick to get a verdict that was not earned."""

import asyncio
import json
from dataclasses import replace

import pytest

from dayjob.endings import EpisodeEnding, Invalid
from dayjob.practice import sandbox
from dayjob.practice.checks import check_environment
from dayjob.practice.environments import code
from dayjob.practice.environments.code import (
    STYLES,
    Case,
    Code,
    definition,
    fenced,
    inside,
    judge,
    same,
    source_of,
)
from dayjob.practice.environments.code_families import FAMILIES, problem
from dayjob.practice.processes import Workers
from dayjob.practice.protocol import Action, Direction, Step
from dayjob.practice.questions import rng_of
from dayjob.practice.registry import make
from tests.practice.sandboxed import boxed, needs_sandbox
from tests.practice.tricks import TRICKS

TESTS = [Case(([1, 2, 3],), 6), Case(([],), 0), Case(([5],), 5)]
RIGHT = "def solve(xs):\n    return sum(xs)\n"


@pytest.fixture(autouse=True)
def _sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    """What hangs is not waited for as long as in earnest."""
    monkeypatch.setattr(code, "LIMITS", replace(code.LIMITS, cpu_s=1))


def judged(source: str) -> list[bool] | None:
    """Three tests of "the sum of xs"."""
    verdicts = asyncio.run(judge(source, ("xs",), tests=TESTS))
    assert boxed() == set()
    return verdicts


def step(settings: Code, seed: int, text: str) -> Step:
    return asyncio.run(settings.reset(seed).step(Action(text=text)))


# ---- promises


NOISE = ("", "\0", "```", "((((", "{}", "\ud800", "[" * 5_000, "__import__('os')", "💥", "9" * 5_000)


@needs_sandbox
def test_it_keeps_the_promises_of_an_environment() -> None:
    spec = {"env": "code", "tests": 4, "shown": 1}
    asyncio.run(check_environment(lambda: make(spec), seeds=[0, 1], noise=NOISE, mutations=False))


@needs_sandbox
@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"style": "expression", "conditions": 0, "tests": 3, "families": ["sum"]}])
def test_so_do_its_neighbours_and_it_does_in_another_process(settings: dict[str, object]) -> None:
    async def check() -> None:
        async with Workers(1) as workers:
            await check_environment(lambda: make({"env": "code", **settings}), seeds=[0, 1, 2], workers=workers)

    asyncio.run(check())


@needs_sandbox
@pytest.mark.parametrize("style", STYLES)
def test_the_reference_of_every_family_passes_its_hidden_tests(style: str) -> None:
    """The lines of a function and the expression are two programs; expected answers come from the expression."""

    async def every() -> dict[str, Step]:
        settings = {name: Code(families=[name], style=style, conditions=2, tests=6, size=8) for name in FAMILIES}
        steps = await asyncio.gather(*(one.reset(3).step(one.reference(3)[0]) for one in settings.values()))
        return dict(zip(settings, steps, strict=True))

    assert {name: one.reward.value for name, one in asyncio.run(every()).items() if one.reward} == dict.fromkeys(
        FAMILIES, 1.0
    )


# Without conditions, worked by hand on one input.
BY_HAND = {
    "sum": (([4, 7, 12],), 23), "count": (([4, 7, 12],), 3), "largest": (([4, 7, 5],), 7),
    "smallest": (([4, 7, 5],), 4), "first": (([4, 7],), 4), "last": (([4, 7],), 7),
    "reverse": (([4, 7, 5],), [5, 7, 4]), "sorted": (([4, 7, 5],), [4, 5, 7]),
    "descending": (([4, 7, 5],), [7, 5, 4]), "distinct": (([4, 7, 4],), [4, 7]),
    "squares": (([4, -7],), [16, 49]), "spread": (([4, 7, -1],), 8), "second": (([4, 7, 7, 5],), 5),
    "running": (([4, 7, -1],), [4, 11, 10]), "common": (([7, 4, 7, 4, 5],), 4), "words": (("a bc d",), 3),
    "longest": (("a bc de",), "bc"), "initials": (("ab c",), "ac"), "mirror": (("ab c",), "ba c"),
    "title": (("ab c",), "AB-C"), "lengths": (("ab c",), {"ab": 2, "c": 1}), "total": (({"a": 1, "b": 2},), 3),
    "keys": (({"b": 1, "a": 2},), ["a", "b"]), "best": (({"b": 2, "a": 2, "c": 1},), "a"),
    "double": (({"b": 2},), {"b": 4}), "palindrome": (("abcba",), True), "digits": ((407,), 11),
    "divisors": ((12,), [1, 2, 3, 4, 6, 12]), "prime": ((91,), False), "rises": (([1, 3, 2, 5, 5],), 2),
    "common-to-both": (([3, 1, 3, 2], [2, 3, 9]), [2, 3]), "products": (([1, 2, 3], [4, 5]), 14),
    "runs": (("aabaaa",), [["a", 2], ["b", 1], ["a", 3]]), "tally": (("A b a",), {"a": 2, "b": 1}),
}  # fmt: skip
# With what one seed draws: the words in the text, an input, what is right.
EARLY = "letters that come before 'g' in the alphabet"
DRAWN = {
    "keep": (2, "numbers in xs that are odd and are less than 18,", ([35, 6, 8, -3, 7, 9],), [-3, 7, 9]),
    "letters": (1, EARLY, ("Sky tea",), 2), "mask": (1, EARLY, ("Sky tea",), "Sky t**"),
    "stutter": (1, EARLY, ("Sky tea",), "Sky teeaa"), "places": (1, EARLY, ("Sky tea",), [5, 6]),
    "alphabet": (1, EARLY, ("Sky tea",), "ae"), "strip": (1, EARLY, ("Sky tea",), "ea"),
    "between": (1, "from a to b, both included, that are odd", (3, 14), 48),
    "among": (1, "from a to b, both included, that are odd", (3, 14), [3, 5, 7, 9, 11, 13]),
    "take": (0, "first 2 of the numbers in xs", ([5, 1, 9],), [5, 1]),
    "drop-first": (0, "without the first 2", ([5, 1, 9, 2, 7],), [9, 2, 7]),
    "chunks": (0, "into lists of 2", ([5, 1, 9, 2, 7],), [[5, 1], [9, 2], [7]]),
    "every": (0, "positions 0, 2, 2 * 2, ...", ([5, 1, 9, 2, 7],), [5, 9, 7]),
    "times": (0, "multiplied by 2", ([5, 1],), [10, 2]),
    "rotate": (0, "begins 2 places further on", ([5, 1, 9, 2, 7],), [9, 2, 7, 5, 1]),
}  # fmt: skip


def test_every_family_is_worked_by_hand() -> None:
    assert set(BY_HAND) | set(DRAWN) == set(FAMILIES)
    for name, (arguments, expected) in BY_HAND.items():
        assert same(problem(name, rng_of("hand", 1), conditions=0).expected(arguments), expected), name
    for name, (conditions, words, arguments, expected) in DRAWN.items():
        found = problem(name, rng_of("hand", 5), conditions=conditions)
        assert words in found.text, name
        assert same(found.expected(arguments), expected), name


def test_the_question_says_the_signature_and_examples_that_are_no_hidden_tests() -> None:
    settings = Code(families=["largest"], examples=2, tests=12)
    text = settings.reset(5).task.messages[0]["content"]
    lines = text.split("\n")
    assert lines[0].startswith("Write a Python function solve(xs). Return the largest of the numbers in xs that ")
    found = problem("largest", rng_of("x"), conditions=0)
    assert definition(found).split("\n")[0] == "def solve(xs):"
    examples = [line for line in lines if line.startswith("solve([")]
    assert len(examples) == 2
    episode = settings.reset(5)
    hidden = {repr(test.arguments[0]) for test in episode._tests}  # type: ignore[attr-defined]
    assert len(hidden) == 12
    assert not [line for line in examples if line.partition("(")[2].partition(")")[0] in hidden]


def test_the_easiest_level_is_one_expression() -> None:
    settings = Code(families=["sum"], style="expression", conditions=0, tests=3)
    assert settings.reference(0)[0].text == "sum([x for x in xs])"
    text = settings.reset(0).task.messages[0]["content"]
    assert text.startswith("Write one Python expression in xs. It is the sum of the numbers in xs.\nFor xs = [")


def test_part_of_the_solution_can_be_shown() -> None:
    settings = Code(families=["keep"], shown=2)
    text = settings.reset(0).task.messages[0]["content"]
    assert "It may begin like this:\n```python\ndef solve(xs):\n    found = []\n    for x in xs:\n```\n" in text


def test_no_fixed_answer_passes_a_task() -> None:
    for seed in range(60):
        expected = {repr(test.expected) for test in Code(tests=3, conditions=seed % 5).reset(seed)._tests}  # type: ignore[attr-defined]
        assert len(expected) > 1, seed


def test_mutations_go_both_ways() -> None:
    found = {one.name: one for one in Code(conditions=2, shown=1).mutations()}
    assert found["one condition less"].direction is Direction.EASIER
    assert found["one condition more"].spec["conditions"] == 3
    assert found["an expression will do"].spec["style"] == "expression"
    assert found["show a line of the solution"].spec["shown"] == 2
    assert "a whole function" not in found


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"style": "essay"}, "style must be one of"),
        ({"tests": 1}, "tests must be"),
        ({"families": ["no"]}, "families must be"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        make({"env": "code", **settings})


def test_without_the_sandbox_no_task_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "available", lambda: "the sandbox needs bwrap: apt-get install bubblewrap")
    with pytest.raises(Invalid, match="apt-get install bubblewrap"):
        Code().reset(0)
    assert Code().reference(0)


# ---- reading and judging


@pytest.mark.parametrize(
    ("text", "source"),
    [
        (RIGHT, RIGHT.strip()),
        (f"Here it is:\n{fenced(RIGHT)}\nDone.", RIGHT + "\n"),
        ("```\na\n```\nor better\n```py\nb\n```", "b\n"),
        ("<think>\n```python\nno\n```</think>\n<answer>sum(xs)</answer>", "sum(xs)"),
        ("`sum(xs)`", "sum(xs)"),
        ("```python\nsum(xs)", "sum(xs)"),
        ("<think>for ever", ""),
    ],
)
def test_the_code_in_an_answer(text: str, source: str) -> None:
    assert source_of(text) == source


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (1, 1, True), (1, True, False), (1, 1.0, False), (0, False, False), (None, 0, False), ("1", 1, False),
        ([1, [2]], [1, [2]], True), ([1], [True], False), ({"a": [1]}, {"a": [1]}, True),
        ([1, 2], [1], False), ({"a": 1}, {"a": True}, False), ({"a": 1}, {"a": 1, "b": 2}, False),
    ],
)  # fmt: skip
def test_answers_are_compared_with_their_kinds(one: object, other: object, expected: bool) -> None:
    assert same(one, other) is expected
    assert same(other, one) is expected


@needs_sandbox
@pytest.mark.parametrize(
    ("source", "verdicts"),
    [
        (RIGHT, [True] * 3),
        ("sum(xs)", [True] * 3),
        ("lambda xs: sum(xs)", [True] * 3),
        ("import functools\nsolve = functools.partial(sum)", [True] * 3),
        ("def solve(xs):\n    print('chatter', input)\n    return sum(xs)", [True] * 3),
        ("def solve(xs):\n    return xs[0] + sum(xs[1:])", [True, False, True]),
        ("def solve(xs):\n    return float(sum(xs))", [False] * 3),
        ("def solve(xs):\n    return 6", [True, False, False]),
        ("def solve(xs):\n    return float('nan')", [False] * 3),
        ("def solve(xs):\n    return lambda: 1", [False] * 3),
        ("def solve(xs):\n    if not xs: raise SystemExit\n    return sum(xs)", [True, False, True]),
        ("def solve(xs):\n    if not xs: raise KeyboardInterrupt\n    return sum(xs)", [True, False, True]),
        ("def solve(xs):\n    return solve(xs)", [False] * 3),
        ("def other(xs):\n    return sum(xs)", None),
        ("def solve(xs", None),
        ("solve = 3", None),
        ("raise ValueError", None),
        ("", None),
    ],
)
def test_what_passes(source: str, verdicts: list[bool] | None) -> None:
    assert judged(source) == verdicts


@needs_sandbox
@pytest.mark.parametrize("name", TRICKS)
def test_no_trick_earns_the_reward(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "answers the next line":  # which never comes
        monkeypatch.setattr(code, "LIMITS", replace(code.LIMITS, wall_s=6.0))
    verdicts = judged(TRICKS[name])
    assert verdicts is None or not all(verdicts)
    if name != "answers ahead":
        assert not any(verdicts or [])


@needs_sandbox
@pytest.mark.parametrize("name", ["unittest patched", "rewrites the tests", "collects garbage", "looks up the stack"])
def test_the_tricks_run_at_all(name: str) -> None:
    """With the sum behind them they pass: so each was tried, and did not fail for another reason."""
    head, _, body = TRICKS[name].partition("def solve(xs)")
    trick = body.replace("\n", "\n    ")
    assert judged(f"{head}\ndef trick(xs){trick}\ndef solve(xs):\n    trick(xs)\n    return sum(xs)") == [True] * 3


@needs_sandbox
def test_what_would_be_right_is_nowhere_in_the_box() -> None:
    """The program looks through all that it can reach, its memory included, for 987654321: it would find it, and while
    it is only the expected answer it does not. (Its own source is in its memory, so the number is in two halves there.)
    """
    source = """
import gc, os
def solve(xs):
    return ''.join(['98765', '4321']) in repr(gc.get_objects()) + repr(list(os.environ.items()))
"""

    async def told(argument: int) -> object:
        async with await sandbox.Session.open({"inside.py": inside()}, ["inside.py"]) as box:
            await box.ask({"source": source, "name": "solve", "parameters": ["xs"]}, timeout_s=60)
            return await box.ask([[argument]], timeout_s=60)

    assert asyncio.run(told(987654321)) == {"value": True}
    assert asyncio.run(told(1)) == {"value": False}
    assert asyncio.run(judge(source, ("xs",), tests=[Case(([1],), 987654321)] * 2)) == [False, False]


@needs_sandbox
def test_one_that_hangs_fails_its_test_and_those_behind() -> None:
    source = "def solve(xs):\n    while not xs: pass\n    return sum(xs)"
    assert judged(source) == [True, False, False]


@needs_sandbox
def test_reward_parts_and_endings() -> None:
    settings = Code(families=["sum"], style="expression", conditions=0, tests=4)
    right = step(settings, 1, "sum(xs)")
    assert right.reward is not None
    assert (right.reward.value, right.reward.parts, right.ending) == (
        1.0,
        {"tests": 1.0, "form": 1.0},
        EpisodeEnding.DONE,
    )
    partly = step(settings, 1, "sum(xs) if xs else 1")
    assert partly.reward is not None
    assert (partly.reward.value, partly.reward.parts) == (0.0, {"tests": 0.75, "form": 1.0})
    nothing = step(settings, 1, "I do not know")
    assert nothing.reward is not None
    assert (nothing.reward.parts, nothing.ending) == ({"tests": 0.0, "form": 0.0}, EpisodeEnding.UNREADABLE)
    assert json.dumps(settings.spec)
