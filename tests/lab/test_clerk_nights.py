"""The clerk's tables: made from pieces, gone on with where they were stopped, and never from another plan's pieces."""

import json
from dataclasses import replace
from statistics import fmean

import pytest
from clerk.office import Size
from clerk.staff import Load

from dayjob.endings import Invalid
from dayjob.lab import clerk_life, clerk_night, clerk_nights
from dayjob.lab.clerk_desk import Desk
from dayjob.lab.clerk_exam import BOTH, FOLLOWING, SILENT, SKILLS, TAUGHT
from dayjob.lab.clerk_life import Calendar
from dayjob.lab.clerk_methods import METHODS, Tuning, answered_by_teacher
from dayjob.lab.clerk_night_page import _marks, share
from dayjob.lab.clerk_night_page import page as night_page
from dayjob.lab.clerk_nights_page import page as nights_page
from dayjob.learn.language.lessons import Lesson, Material
from dayjob.learn.language.recipes import RECIPES
from tests.lab.test_clerk_office import model

__all__ = ["model"]
TINY = Tuning(steps=2, self_written=4, anchor_rows=4, lessons=4)
SIZE = Size(answer=1, rule=1, hint=1, late=1, personal=1, days=1)


@pytest.fixture(scope="module")
def desk(model):
    return Desk(model)


def night_plan(model, tmp_path, **changes):
    plan = clerk_night.Plan(seeds=(0,), methods=("before", "memory", "sft-teacher"), model=model, folder=tmp_path,
                            size=SIZE, everyday=1, about=1, each=1, tuning=TINY)  # fmt: skip
    return replace(plan, **changes)


def test_a_night_is_kept_piece_by_piece_and_its_table_reads_them(model, desk, tmp_path, monkeypatch):
    monkeypatch.setattr(clerk_night, "WORK", tmp_path / "work")
    plan = night_plan(model, tmp_path)
    clerk_night._seed(plan, desk, seed=0, methods=plan.methods)
    pieces = {one: json.loads(plan.path(one, 0).read_text()) for one in plan.methods}
    assert set(TAUGHT) < set(pieces["before"]["right"])
    assert pieces["sft-teacher"]["corrections_used"] > 0
    assert pieces["memory"]["tokens"]["before"] > 0
    assert list((tmp_path / "work").iterdir()) == [], "checkpoint and adapter are gone"
    result = clerk_night.assembled(plan, quick=True)
    text = "\n".join(night_page(result))
    assert all(name in text for name in ("memory only", METHODS["sft-teacher"].name, FOLLOWING))
    with pytest.raises(Invalid, match="no piece of this plan"):
        clerk_night.assembled(replace(plan, each=2), quick=True)


def test_the_share_of_skills_is_the_mean_of_those_that_were_asked():
    right = {SKILLS[0]: 0.5, SKILLS[1]: 1.0, "by rule": 0.25}
    assert share({"right": right}, "skills") == fmean((0.5, 1.0))
    assert share({"right": right}, "by rule") == 0.25
    assert share({"right": right}, "by hint") is None


def test_the_marks_are_taken_within_a_seed():
    def piece(method, seed, rule, skill, taught):
        right = {"by answer": taught, "by late": taught, "by hint": taught, "by rule": rule, SKILLS[0]: skill}
        return {"method": method, "seed": seed, "right": right | {BOTH: 1.0, SILENT: 0.5}}

    pieces = [piece("before", 0, 0.0, 0.5, 0.0), piece("before", 1, 0.0, 0.9, 0.0),
              piece("memory", 0, 0.5, 0.5, 1.0), piece("memory", 1, 1.0, 0.9, 1.0),
              piece("consolidate", 0, 0.5, 0.48, 1.0), piece("consolidate", 1, 0.7, 0.88, 0.88)]  # fmt: skip
    ((_, table, _),) = [_marks({"pieces": pieces})]
    row = table.splitlines()[-1]
    told = [cell.strip() for cell in row.strip("| ").split("|")]
    assert told[1:] == ["0.940, not reached", "1.000, reached", "0.850, not reached", "0.020, not reached",
                        "0.000, reached"]  # fmt: skip
    assert _marks({"pieces": pieces[:4]}) == []


def test_all_that_have_an_anchor_have_the_same_one_and_the_same_tuning():
    tuning = Tuning()
    recipes = {name: method.recipe(tuning) for name, method in METHODS.items()}
    for name, recipe in recipes.items():
        assert (recipe.steps, recipe.learning_rates) == (
            tuning.steps,
            RECIPES[METHODS[name].recipe_name].learning_rates,
        )
        if name.startswith("published"):
            assert (recipe.anchor, recipe.stop_every) == (0.0, 0)
        else:
            same = (recipe.anchor, recipe.anchor_rows, recipe.self_written, recipe.conflict)
            ours = recipes["consolidate"]
            anchored = (ours.anchor, ours.anchor_rows, ours.self_written, ours.conflict)
            assert same == anchored if METHODS[name].anchor else (recipe.anchor, recipe.self_written) == (0.0, 0)


def test_the_teachers_answers_stand_where_nobody_gave_one(desk):
    bare = ({"role": "user", "content": "Who handles travel?"},)
    taught = ({"role": "system", "content": "Otto."}, *bare)
    said = Lesson(id="a", question=bare, context=taught, correction="Otto")
    lessons = (said, Lesson(id="b", question=bare, context=taught), Lesson(id="c", question=bare, thumb=1))
    told = answered_by_teacher(desk, Material(lessons=lessons)).lessons
    (ids,) = desk.base_says([taught])
    assert [one.correction for one in told] == ["Otto", desk.tokens.text(ids), None]


def test_a_method_that_is_not_there_is_refused(model, tmp_path):
    with pytest.raises(Invalid, match="there is no method 'magic'"):
        clerk_night.run(range(1), ["magic"], model, tmp_path, quick=True)
    with pytest.raises(Invalid, match="holds no model"):
        clerk_night.run(range(1), None, tmp_path, tmp_path, quick=True)


def nights_plan(model, folder, **changes):
    plan = clerk_nights.Plan(
        seeds=(0,), methods=("memory",), model=model, folder=folder / "pieces", work=folder / "work", personal_every=2,
        size=replace(SIZE, days=3, new=(1, 0, 0, 0), reversals=1), each=1, tuning=TINY,
        calendar=Calendar(days=3, load=Load(everyday=1, about=1), quiet_before=1, quiet_days=2),
    )  # fmt: skip
    return replace(plan, **changes)


def test_nights_go_on_where_they_were_stopped(model, desk, tmp_path, monkeypatch):
    whole, stopped = nights_plan(model, tmp_path / "a"), nights_plan(model, tmp_path / "b")
    clerk_nights.live(whole, desk, method="memory", seed=0)

    class Killed(Exception):
        pass

    def save_and_die(life, folder):
        clerk_life.save(life, folder)
        if len(life.rows) == 2:
            raise Killed

    monkeypatch.setattr(clerk_nights, "save", save_and_die)
    with pytest.raises(Killed):
        clerk_nights.live(stopped, desk, method="memory", seed=0)
    monkeypatch.undo()
    clerk_nights.live(stopped, desk, method="memory", seed=0)
    one, other = (
        [
            {k: v for k, v in row.items() if k != "cpu_s"}
            for row in json.loads(p.path("memory", 0).read_text())["nights"]
        ]
        for p in (whole, stopped)
    )
    assert one == other
    assert len(one) == 3
    assert not list((tmp_path / "b" / "work").iterdir())
    assert [row["corrections"] for row in one] == sorted(row["corrections"] for row in one)
    assert one[2]["gone"] is not None, "something was reversed on the third day"
    text = "\n".join(nights_page(clerk_nights.assembled(whole, quick=True)))
    assert "memory only" in text


def test_a_night_of_every_layer_serves_the_next_day(model, desk, tmp_path):
    """Two nights, the second of them with the layers of two people."""
    plan = nights_plan(model, tmp_path, methods=("sft-teacher",))
    plan = replace(plan, size=replace(plan.size, days=2), calendar=replace(plan.calendar, days=2))
    clerk_nights.live(plan, desk, method="sft-teacher", seed=0)
    nights = json.loads(plan.path("sft-teacher", 0).read_text())["nights"]
    assert set(nights[0]["nights"]) == {"office"}
    assert set(nights[1]["nights"]) == {"office", "ann", "ben"}
    assert nights[1]["nights"]["office"]["lessons"] > 0
