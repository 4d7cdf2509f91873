"""The clerk's tables: made from pieces, gone on with where they were stopped, and never from another plan's pieces."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
from clerk.office import Size
from clerk.staff import STAFF, Load, office

from dayjob.endings import Invalid
from dayjob.lab import clerk_life, clerk_night, clerk_nights, figures
from dayjob.lab.clerk_desk import Desk
from dayjob.lab.clerk_exam import (
    BOTH,
    FOLLOWING,
    LEAKED,
    OTHER_CASES,
    SILENT,
    SKILLS,
    TAUGHT,
    UNSEEN,
    WITH_NOTES,
)
from dayjob.lab.clerk_life import Calendar
from dayjob.lab.clerk_methods import METHODS, Tuning, answered_by_teacher
from dayjob.lab.clerk_night_page import _asked, _marks, plot, share, weighed
from dayjob.lab.clerk_night_page import page as night_page
from dayjob.lab.clerk_nights_page import _corrections, _nightly, _summary
from dayjob.lab.clerk_nights_page import _marks as _nights_marks
from dayjob.lab.clerk_nights_page import page as nights_page
from dayjob.lab.clerk_nights_page import plot as nights_plot
from dayjob.learn.language.lessons import Lesson, Material
from dayjob.learn.language.recipes import RECIPES
from dayjob.policies.engine_transformers import load_model
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
    assert all(name in text for name in ("memory only", METHODS["sft-teacher"].name, FOLLOWING, WITH_NOTES))
    assert f"by answer {pieces['before']['asked']['by answer']}" in text
    plot(result, tmp_path / "night.png")
    assert (tmp_path / "night.png").stat().st_size > 0
    with pytest.raises(Invalid, match="no piece of this plan"):
        clerk_night.assembled(replace(plan, each=2), quick=True)


def test_the_share_of_skills_is_the_mean_of_those_that_were_asked():
    right = {SKILLS[0]: 0.5, SKILLS[1]: 1.0, "by rule": 0.25}
    assert share({"right": right}, "skills") == fmean((0.5, 1.0))
    assert share({"right": right}, "by rule") == 0.25
    assert share({"right": right}, "by hint") is None


def night_piece(method, seed, *, rule, skill, taught, with_notes, followed=1.0):
    """Told conventions are right in ``taught``, but for the 2 of 12 questions told late, of which all are."""
    right = {"by answer": taught, "by late": 1.0, "by hint": taught, "by rule": rule, SKILLS[0]: skill, BOTH: 1.0,
             SILENT: 0.5, UNSEEN: 0.9, FOLLOWING: followed, OTHER_CASES: 1.0, WITH_NOTES: with_notes}  # fmt: skip
    asked = {name: 4 for name in right if name != WITH_NOTES} | {"by answer": 6, "by late": 2, SKILLS[0]: 40 + seed}
    return {"method": method, "seed": seed, "right": right, "asked": asked}


def test_the_marks_are_taken_within_a_seed():
    pieces = [night_piece("before", 0, rule=0.0, skill=0.5, taught=0.0, with_notes=1.0),
              night_piece("before", 1, rule=0.0, skill=0.9, taught=0.0, with_notes=1.0),
              night_piece("memory", 0, rule=0.5, skill=0.5, taught=1.0, with_notes=0.9),
              night_piece("memory", 1, rule=1.0, skill=0.9, taught=1.0, with_notes=0.7),
              night_piece("consolidate", 0, rule=0.5, skill=0.48, taught=1.0, with_notes=0.8, followed=0.98),
              night_piece("consolidate", 1, rule=0.7, skill=0.88, taught=0.76, with_notes=0.8)]  # fmt: skip
    ((_, table, said),) = [_marks({"pieces": pieces})]
    head, row = ([cell.strip() for cell in table.splitlines()[at].strip("| ").split("|")] for at in (0, -1))
    told = {name.partition(", mark")[0]: cell for name, cell in zip(head[1:], row[1:], strict=True)}
    assert told == {
        # seed 0: 1, seed 1: (10 x .76 + 2) / 12 = .8
        "taught, rules apart": "0.900, not reached", BOTH: "1.000, reached", UNSEEN: "0.900, not reached",
        "rules: share of memory's": "0.850, not reached", "skills lost": "0.020, not reached",
        f"{SILENT} lost": "0.000, reached", f"{FOLLOWING} lost": "0.010, reached",
        f"{OTHER_CASES} lost": "0.000, reached",
        f"{WITH_NOTES}, short of memory's": "0.000, reached",
    }  # fmt: skip
    assert "are ours" in said
    worse = [*pieces[:5], night_piece("consolidate", 1, rule=0.7, skill=0.88, taught=0.76, with_notes=0.7)]
    assert "0.050, not reached |" in _marks({"pieces": worse})[1], "a tenth of it, of one seed of two"
    assert _marks({"pieces": pieces[:4]}) == []


def test_every_question_counts_the_same_and_their_numbers_are_told():
    pieces = [night_piece("before", seed, rule=0.0, skill=1.0, taught=0.0, with_notes=1.0) for seed in (0, 1)]
    # 40 right of a skill, 2 of 4 silent facts: 42 of 44, not the mean of .5 and 1
    assert weighed(pieces[0], (SKILLS[0], SILENT, LEAKED)) == pytest.approx(42 / 44)
    assert weighed(pieces[0], (LEAKED,)) is None
    told = _asked({"pieces": pieces}, ("by answer", LEAKED, SKILLS[0]))
    assert told == f"Questions a seed: by answer 6, {SKILLS[0]} 40 to 41."


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
    with pytest.raises(Invalid, match=r"no model's folder.*save_pretrained"):
        clerk_night.run(range(1), None, tmp_path, tmp_path, quick=True)


def test_a_model_is_a_folder_whole_or_in_shards_or_one_of_the_hub(model, tmp_path, monkeypatch):
    assert clerk_night.model_folder(model) == model
    whole = load_model(model)
    shards = tmp_path / "shards"
    shutil.copytree(model, shards, ignore=shutil.ignore_patterns("*.safetensors"))
    whole.save_pretrained(shards, max_shard_size="20KB")
    files = sorted(shards.glob("*.safetensors"))
    assert len(files) > 2
    assert clerk_night.model_folder(shards) == shards
    assert Desk(shards).answer([({"role": "user", "content": "x"},)], seeds=[0])
    before = figures.weights_mark(shards)
    files[-1].write_bytes(files[-1].read_bytes()[:-1] + b"\x01")
    assert figures.weights_mark(shards) != before
    (mark,) = [hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()]
    assert figures.weights_mark(model) == mark

    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: model if name == "some/model" else "")
    assert clerk_night.model_folder(Path("some/model")) == model
    pickled = tmp_path / "pickled"
    shutil.copytree(model, pickled, ignore=shutil.ignore_patterns("*.safetensors"))
    (pickled / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(Invalid, match="pickle"):
        clerk_night.model_folder(pickled)


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
        if len(life.rows) == 2:  # after the quiet time
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
    assert [(row["day"], row["quiet"]) for row in one] == [(1, False), (1, True), (2, False), (3, False)]
    assert not list((tmp_path / "b" / "work").iterdir())
    assert [row["corrections"] for row in one] == sorted(row["corrections"] for row in one)
    assert [row["gone_today"] is not None for row in one] == [False, False, False, True], "reversed on the third day"
    assert one[3]["asked"]["reversed today"] == 1
    before, silent = one[:2]
    asks = whole.calendar.asks(office(0, whole.size), whole.calendar.turns[1])
    assert silent["questions"] == len(asks) == 2 * len(STAFF), "two days of one everyday question each"
    assert {ask.convention for ask in asks} == {None}
    for what in ("corrections", "notes", "current"):
        assert silent[what] == before[what], "nothing was said that could be learned"
    result = clerk_nights.assembled(whole, quick=True)
    text = "\n".join(nights_page(result))
    assert "memory only" in text
    assert f"as many everyday questions as in 2 days ({len(asks)} a seed) stand for a month" in text
    assert "quiet, after 1" in text
    nights_plot(result, tmp_path / "nights.png")
    assert (tmp_path / "nights.png").stat().st_size > 0


def test_what_was_to_be_said_on_the_next_day_waits_for_the_quiet_time_to_pass(desk):
    """Else a quiet time would begin with what was told late."""
    size = replace(SIZE, answer=0, rule=0, hint=0, late=2, personal=0, days=2)
    calendar = Calendar(days=2, load=Load(everyday=1, about=1), quiet_before=1, quiet_days=1)
    life = clerk_life.begin(desk, office(0, size))
    told = []
    for turn in calendar.turns:
        asks = calendar.asks(life.here, turn)
        clerk_nights.play_day(desk, life.here, board=life.board, diary=life.diary, asks=asks)
        told.append((life.diary.corrections, len(life.diary.later)))
    assert told[0] == told[1]
    assert told[1][1] > 0
    assert told[2][0] > told[1][0]


def a_night(*, day, current, kept=1.0, quiet=False, gone=None, **people):
    apart = {name: {"own": own, "other's": other} for name, (own, other) in people.items()}
    return {
        "day": day, "quiet": quiet, "questions": 16, "served": 0.0 if quiet else 1.0, "corrections": 10 * day,
        "current": current, "kept": kept, "gone": gone, "gone_today": gone, "tokens": 5.0, "asked": {"by answer": 4},
        "apart": apart | {"office": {"any": 0.04}}, "notes": {"alive": 1, "standing": 2},
        "nights": {"office": {"corrections_used": day}},
    }  # fmt: skip


def test_the_marks_of_many_nights_are_of_every_night_and_the_quiet_time_of_its_own():
    seeds = [
        [a_night(day=1, current=1.0), a_night(day=1, current=0.96, quiet=True),
         a_night(day=2, current=0.98, kept=0.99, gone=0.1, ann=(1.0, 0.0))],
        [a_night(day=1, current=0.98), a_night(day=1, current=0.96, quiet=True),
         a_night(day=2, current=0.96, kept=0.97, gone=0.0, ann=(0.9, 0.0))],
    ]  # fmt: skip
    pieces = [{"method": "consolidate", "seed": seed, "nights": nights} for seed, nights in enumerate(seeds)]
    result = {"pieces": pieces, "seeds": [0, 1], "days": 2, "quiet_days": 3}
    _, table, said = _nights_marks(result)
    head, row = ([cell.strip() for cell in table.splitlines()[at].strip("| ").split("|")] for at in (0, -1))
    told = {name.partition(",")[0]: cell for name, cell in zip(head[1:], row[1:], strict=True)}
    assert {name: cell.partition(" ")[0] + cell.rpartition(",")[2] for name, cell in told.items()} == {
        "taught and current": "96.0 reached", "own": "95.0 reached", "reversed today": "5.0 reached",
        "the other's": "0.0 reached", "said to all": "4.0 reached", "kept": "2.0 missed", "taught": "3.0 missed",
    }  # fmt: skip
    assert "2.0 ±12.7, missed" in row, "its interval over seeds"
    assert "marks of ours" in said
    (line,) = [cells for cells in _nightly(result, _corrections) if cells["night"] == "2"]
    assert line[METHODS["consolidate"].name] == "2 / 20"
    summary = _summary("consolidate", pieces, result)
    assert summary["right by day, with notes"].startswith("100.0"), "the quiet time has no questions about conventions"


def test_a_night_of_every_layer_serves_the_next_day(model, desk, tmp_path):
    """Two nights, the second of them with the layers of two people."""
    plan = nights_plan(model, tmp_path, methods=("sft-teacher",))
    plan = replace(plan, size=replace(plan.size, days=2), calendar=replace(plan.calendar, days=2))
    clerk_nights.live(plan, desk, method="sft-teacher", seed=0)
    nights = json.loads(plan.path("sft-teacher", 0).read_text())["nights"]
    assert [set(row["nights"]) for row in nights[:2]] == [{"office"}, {"office"}], "a day, and the quiet time"
    assert set(nights[2]["nights"]) == {"office", "ann", "ben"}
    assert nights[0]["nights"]["office"]["lessons"] > 0
    assert nights[1]["nights"]["office"]["corrections_used"] == nights[0]["nights"]["office"]["corrections_used"] > 0
