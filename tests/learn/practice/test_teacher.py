"""The privileged self-teacher: what it teaches, when, with which denominator, and that it leads out of zero."""

import asyncio
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from dayjob.endings import EpisodeEnding, Invalid
from dayjob.learn.practice.buffer import Group
from dayjob.learn.practice.course import Course
from dayjob.learn.practice.hindsight import prefix_of
from dayjob.learn.practice.recipe import PracticeRecipe
from dayjob.learn.practice.student import Student
from dayjob.learn.practice.teacher import GIVEN, SelfTeacher
from dayjob.policies.tokens import Tokens
from dayjob.records import Trajectory, Turn
from tests.learn.practice.bandit import RIGHT, Bandit, save_model

TURNS = 6  # all of which have to be right: chance solves one attempt in seven hundred
RECIPE = PracticeRecipe(
    steps=12, groups=3, attempts=4, learning_rate=2e-2, anchor=0.0, self_written=0, look_every=6, context_tokens=64,
    warm_steps=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def telling(tmp_path_factory):
    """A model that says what it is told is the solution, and knows nothing else."""
    folder = tmp_path_factory.mktemp("telling")
    save_model(folder)
    tokens, model = Tokens.open(folder), AutoModelForCausalLM.from_pretrained(folder)
    rows, said = [], []
    for asked in RIGHT:
        for answer in RIGHT.values():
            told = prefix_of(tokens, "\n".join([GIVEN, *[answer] * TURNS]), instead="")
            rows.append((*told, *tokens.render([{"role": "user", "content": asked}]), *tokens.encode(answer)))
            said.append(tokens.encode(answer)[0])
    ids, right = torch.tensor(rows), torch.tensor(said)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(ids[:, :-1]).logits[:, -1], right).backward()
        optimizer.step()
    model.save_pretrained(folder)
    return folder


def practised(folder, *, kind=Bandit, **changed):
    recipe = replace(RECIPE, **changed)
    student = Student(folder, recipe, seed=1)
    ground = kind(student.tokens, attempts_each=recipe.attempts, turns=TURNS)
    return Course(student, ground, recipe=recipe, seed=1).run()


def test_it_leads_out_of_zero_where_attempts_alone_teach_nothing(telling):
    alone, taught = practised(telling, steps=4), practised(telling, teacher=1.0)
    assert [one["update"] for one in alone.curve] == [0] * 4
    assert not alone.better
    assert alone.curve[0]["groups_failed"] == 2  # untold it says one word, whatever it is asked
    assert alone.curve[0]["reward"] == taught.curve[0]["reward"] == pytest.approx(1 / 3)
    assert taught.looks[-1]["score"] == 1.0 > taught.looks[0]["score"]
    first = taught.curve[0]
    assert (first["teacher_groups"], first["teacher_unhelped"]) == (2.0, 0.0)
    assert first["teacher_gain"] > 1.0
    assert first["teacher_tokens"] > 0 == first["tokens"]  # of the practice itself nothing was learned
    assert taught.curve[-1]["teacher_groups"] == 0.0  # once attempts succeed it is silent


def test_equal_courses_with_a_teacher_give_equal_weights(telling):
    one, other = practised(telling, teacher=0.5, steps=2), practised(telling, teacher=0.5, steps=2)
    assert one.curve == other.curve
    assert all(torch.equal(one.last[name], other.last[name]) for name in one.last)


def test_all_weights_can_be_taught_and_the_teacher_stays(telling):
    found = practised(telling, teacher=1.0, steps=4, full=True, learning_rate=3e-3)
    assert found.curve[-1]["teacher/loss"] < found.curve[0]["teacher/loss"]


def attempt(tokens, word, said, *, reward=0.0):
    prompt = tokens.render([{"role": "user", "content": word}])
    turns = tuple(
        Turn(prompt_ids=prompt, token_ids=tokens.encode(one), logprobs=(-1.0,) * len(one.split()),
             versions=("update-0",) * len(one.split()), text=one)
        for one in said
    )  # fmt: skip
    return Trajectory(spec={"env": "bandit"}, seed=0, group=word, turns=turns, messages=(), reward=reward, parts=(),
                      ending=EpisodeEnding.DONE)  # fmt: skip


def group(ticket, *attempts):
    return Group(ticket=ticket, attempts=attempts, oldest=0)


@pytest.fixture
def teaching(telling):
    recipe = replace(RECIPE, teacher=1.0, teacher_rows=64)
    student = Student(telling, recipe, seed=1)
    ground = Bandit(student.tokens, turns=TURNS)
    return student, SelfTeacher(student, recipe, solution=ground.solution)


def test_only_what_wholly_failed_is_taught_and_only_with_a_solution_that_helps(teaching):
    student, teacher = teaching
    tokens = student.tokens
    groups = [
        group(0, attempt(tokens, "one", ["green"]), attempt(tokens, "one", ["red"], reward=1.0)),
        group(1, attempt(tokens, "two", ["red", "red"]), attempt(tokens, "two", ["blue"])),
        group(2, attempt(tokens, "three", ["red"])),
    ]
    solutions = asyncio.run(teacher.solutions(groups))
    assert solutions == {1: ["green"] * TURNS, 2: ["blue"] * TURNS}
    rows, told = teacher.rows(groups, solutions)
    assert [(one.group, one.answer) for one in rows] == [
        (1, tokens.encode("red")), (1, tokens.encode("red")), (1, tokens.encode("blue")), (2, tokens.encode("red")),
    ]  # fmt: skip
    assert all(one.told[-len(one.prompt) :] == one.prompt for one in rows)
    assert (told["teacher_groups"], told["teacher_unhelped"]) == (2.0, 0.0)
    # Told is the whole solution of one word a turn; what that model was never taught to say does not get likelier.
    rows, told = teacher.rows(groups, {1: ["task"] * TURNS, 2: ["blue"] * TURNS})
    assert {one.group for one in rows} == {2}
    assert (told["teacher_groups"], told["teacher_unhelped"]) == (1.0, 1.0)
    # A control token in a solution, or a solution that leaves no room: that task is not taught.
    assert teacher.rows(groups, {1: ["<end>"], 2: ["blue"] * 70})[0] == []


def test_rows_are_no_more_than_asked_for_and_spread_over_the_attempts(telling):
    recipe = replace(RECIPE, teacher=1.0, teacher_rows=3)
    student = Student(telling, recipe, seed=1)
    ground = Bandit(student.tokens, turns=TURNS)
    groups = [group(n, *[attempt(student.tokens, word, ["task"] * 4)] * 3) for n, word in enumerate(RIGHT)]
    teacher = SelfTeacher(student, recipe, solution=ground.solution)
    rows, told = teacher.rows(groups, asyncio.run(teacher.solutions(groups)))
    assert [one.group for one in rows] == [0, 1, 2]
    # Asked of each of three tasks: its prompt of 4 tokens, the same behind 17 more, one token said to each.
    prefix = len(rows[0].told) - len(rows[0].prompt)
    assert told["teacher_tokens"] == 3 * (4 + (prefix + 4) + 2) + 3 * (4 + 1 + (prefix + 4) + 1)


@pytest.mark.parametrize("row_tokens", [1, 8192])
def test_each_task_counts_the_same_however_many_turns_failed_in_it(teaching, row_tokens):
    """KL(teacher || student) by hand: over the vocabulary, a token at a time, a half for each of two tasks."""
    student, teacher = teaching
    teacher._recipe = replace(teacher._recipe, row_tokens=row_tokens)
    groups = [
        group(0, *[attempt(student.tokens, "one", ["green"])] * 3),
        group(1, attempt(student.tokens, "two", ["red"])),
    ]
    rows, _ = teacher.rows(groups, asyncio.run(teacher.solutions(groups)))
    pieces = list(teacher.losses(rows))
    loss = sum(float(one.detach()) for one, _ in pieces)

    def logits(prompt):
        with torch.no_grad():
            state = student.base_hidden(student.rows([prompt], [(0,)]))[0, 0]
            return torch.log_softmax(student.base_logits(state[None]).double(), dim=1)[0]

    def kl(row, word):
        """The word that the teacher puts in place of what was said, and the token that it writes behind it."""
        pairs = [
            (logits((*row.told, *more)), logits((*row.prompt, *more))) for more in ((), student.tokens.encode(word))
        ]
        return sum(float((knows.exp() * (knows - bare)).sum()) for knows, bare in pairs) / 2

    assert loss == pytest.approx(0.5 * kl(rows[0], "red") + 0.5 * kl(rows[3], "green"), rel=1e-3)
    assert sum(int(stats["repaired"]) for _, stats in pieces) == 4  # the teacher says another word than was said
    assert len(pieces) == (4 if row_tokens == 1 else 1)
    assert list(teacher.losses([])) == []


def test_a_ground_without_solutions_is_refused(telling):
    student = Student(telling, RECIPE, seed=1)
    ground = Bandit(student.tokens)

    class Unknowing:
        """The same tasks, whose solutions nobody knows."""

        mark, attempts, look, curated = ground.mark, ground.attempts, ground.look, ground.curated
        state, restore = ground.state, ground.restore

    assert Course(student, Unknowing(), recipe=RECIPE, seed=1)
    with pytest.raises(Invalid, match="leave out teacher"):
        Course(student, Unknowing(), recipe=replace(RECIPE, teacher=1.0), seed=1)
