"""What the pages of `dayjob lab world` and `dayjob lab rehearse` say of given pieces; the small world of the latter."""

from dataclasses import replace

import numpy as np
import pytest

from dayjob.lab import practice_states, rehearse, world
from dayjob.lab.figures import surely


def of_seed(seed, *, alone, planned, wrong, count):
    def piece(solved, **more):
        return {"solved": [float(one) for one in solved], **more}

    accuracy = {"wrong_H": wrong, "count_H": [count] * len(wrong), "value_wrong": 1, "value_count": 10}
    plan = piece(planned, imagined_per_real=4.0, valued_per_real=2.0, changed=0.25, believed=1 - seed)
    beyond = {"planning, k 4, d 2": plan} if seed else {}
    rows = {world.ALONE: piece(alone), "planning, k 4, d 1": plan}
    return {"seed": seed, "accuracy": accuracy, "rows": rows, "beyond": beyond}


FOUND = [
    of_seed(0, alone=[1, 0, 0, 0], planned=[1, 1, 1, 0], wrong=[0.0, 0.2], count=20),
    of_seed(1, alone=[0, 0, 1, 1], planned=[1, 1, 1, 1], wrong=[0.4], count=60),
]


def test_errors_are_pooled_over_conversations():
    first, second = world.error_rows(FOUND)
    assert (first["wrong, %"], first["conversations"]) == ("30.0", 80)  # (0 of 20 and 24 of 60)
    assert first["95 %"] == "21.1 to 40.8"  # Wilson's of 24 in 80
    assert (second["wrong, %"], second["conversations"]) == ("20.0", 20)


def test_methods_are_compared_seed_by_seed():
    alone, planned = world.result_rows(FOUND)
    assert alone["solved, %"].startswith("37.5 ±")
    assert alone["against the policy alone, points"] == ""
    assert planned["against the policy alone, points"] == "+50.0 ±0.0"  # by .50 on either seed
    assert planned["imagined answers for each real step"] == "4.00"
    assert planned["steps changed, %"] == "25"
    assert planned["imagined answers believed, by seed"] == "1, 0"
    (further,) = world.result_rows(FOUND, part="beyond")  # of the second seed alone: the model of the first is right
    assert (further["method"], further["solved, %"]) == ("planning, k 4, d 2", "100.0 (1)")
    assert further["against the policy alone, points"] == "+50.0 (1)"
    assert "planning, k 4, d 1" in world._sentence(FOUND)
    assert "Horizon at a tolerance of 20%, by seed: 1, 0." in world._horizons(FOUND)
    assert "misjudged whether they ended well in 2" in world._horizons(FOUND)


def test_a_piece_is_made_once(tmp_path):
    setting = world.setting_of(0, sizes=world.QUICK, model=_model(tmp_path))
    one, times = world.Seed(setting, world.QUICK, out=tmp_path / "out"), []
    for _ in range(2):
        made = one.piece("alone", lambda: times.append(1) or {"solved": [1.0]})
        assert made == {"solved": [1.0], "code": practice_states.mark(*world.CODE)}
    assert len(times) == 1
    larger = world.setting_of(0, sizes=world.Sizes(), model=setting.model)
    assert larger.work != setting.work, "other sizes are other pieces"


@pytest.mark.parametrize(("wrong", "horizon"), [(0.9, 0), (0.0, 2)])
def test_nothing_is_imagined_behind_the_measured_horizon(tmp_path, monkeypatch, wrong, horizon):
    """Of a hundred conversations all are right for two steps, or most are wrong at the first."""
    sizes = replace(world.QUICK, plans=((4, 0), (4, 1), (4, 4)), budgets=(1,))
    asked = {}

    def rehearsed(_, budget, believed, *, name):
        asked[name] = (budget, believed)
        return {"solved": [0.0], "practised_turns": 8}

    def planned(_, k, d, believed):
        asked[f"plan-{k}-{min(d, believed)}"] = (d, believed)
        return {"solved": [1.0], "imagined_per_real": 0.0, "valued_per_real": 1.0, "changed": 0.0}

    for name, made in {
        "_accuracy": lambda _: {"wrong_H": [wrong] * 2, "count_H": [100] * 2, "value_wrong": 0, "value_count": 0},
        "_judged": lambda *_, **__: {"solved": [1.0]}, "_real": lambda _: {"solved": [1.0], "practised_turns": 3},
        "_episodes": lambda _: [], "_rehearsed": rehearsed, "_planned": planned,
    }.items():  # fmt: skip
        monkeypatch.setattr(world.Seed, name, made)
    for name, made in {"demonstrations": ([], []), "learned": tmp_path, "world_model": (tmp_path, ())}.items():
        monkeypatch.setattr(world.rows, name, lambda *_, made=made, **__: made)
    setting = world.setting_of(0, sizes=sizes, model=_model(tmp_path))
    found = world.Seed(setting, sizes, out=tmp_path / "out").all()
    assert found["horizon"] == horizon
    believed = {name: one["believed"] for name, one in found["rows"].items() if "believed" in one}
    plans = {f"planning, k 4, d {d}": min(d, horizon) for d in (0, 1, 4)}
    assert believed == {"rehearsal, x1": horizon} | plans
    rehearsal = found["rows"]["rehearsal, x1"]
    if horizon:
        assert asked["rehearsal-1-2"] == (1, 2)
        assert rehearsal["practised_turns"] == 8
    else:
        assert "rehearsal-1-0" not in asked
        assert (rehearsal["solved"], rehearsal["practised_turns"]) == ([1.0], 0)  # the policy as it is
    most = setting.office.max_turns
    assert asked[f"rehearsal-1-{most}"] == (1, most)
    deeper = {f"planning, k 4, d {d}": d for d in (1, 4) if d > horizon}
    assert {name: one["believed"] for name, one in found["beyond"].items()} == {"rehearsal, x1": most} | deeper
    assert asked["plan-4-4"] == (4, 4)


def _model(folder):
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_an_interval_that_touches_zero_is_not_sure():
    assert [surely({"mean": mean, "half": 0.2, "seeds": 3}) for mean in (0.3, 0.2, 0.0, -0.2, -0.3)] == [1, 0, 0, 0, -1]


def test_the_small_world_is_what_the_page_says():
    one, other = rehearse.draw(3_000, seed=1, part=1), rehearse.draw(50, seed=1, part=2)
    replay, first_B = one.replay, one.replay.shown_BK[:, 0]
    assert (replay.vector_VE == other.replay.vector_VE).all()  # of one catalog
    best_B = replay.base_BK.argmax(axis=1)
    moved = (first_B != best_B).mean()
    assert moved == pytest.approx(rehearse.CHANGED * (1 - 1 / rehearse.WIDTH), abs=0.02)
    own_B = np.where(first_B == best_B, 1 - rehearse.CHANGED, 0) + rehearse.CHANGED / rehearse.WIDTH
    assert replay.propensity_BK[:, 0] == pytest.approx(own_B)
    place_B = (replay.shown_BK == one.right_B[:, None]).argmax(axis=1)
    assert set(np.unique(np.where(replay.click_B == place_B, 0, replay.click_B))) == {0}  # the wanted, or the first
    elsewhere = place_B > 0
    assert (replay.click_B[elsewhere] == 0).mean() == pytest.approx(rehearse.PULL, abs=0.03)
    assert 0.1 < rehearse.right_first(None, one) < 0.5, "the caller leaves something to learn"


def test_what_the_page_says_of_imagination():
    def cell(seed, gain):
        rights = {rehearse.ALONE: 0.5, "and imagined users, x1": 0.5 + gain + 0.001 * seed}
        return {"learner": "mixture", "size": 500, "seed": seed, "rights": rights,
                "imagined": {"and imagined users, x1": 500}}  # fmt: skip

    def said(gain):
        cells = [cell(seed, gain) for seed in range(3)]
        return rehearse._sentence([*cells, *({**one, "learner": "debiased"} for one in cells)], [500])

    assert "Of 2 rows with imagined users 2 are surely better" in said(0.1)
    assert "0 are surely better" in said(0.0)
    assert "2 surely worse" in said(-0.1)
    row = rehearse._rows([cell(0, 0.25)], "mixture", size=500)[1]
    assert (row["right first, %"], row["against real clicks alone, points"], row["imagined"]) == ("75.0", "+25.0", 500)
