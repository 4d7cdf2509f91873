"""`dayjob lab dream`: its careless author and what a proof makes of it, its pieces, and what its page says of them."""

import asyncio
from dataclasses import replace

import pytest

from dayjob.dream.author_offline import write_programs
from dayjob.dream.excerpts import Excerpt, hold_out, transitions
from dayjob.dream.excerpts import conversations as whole_of
from dayjob.dream.propose import Allowance
from dayjob.dream.prove import Demands, prove
from dayjob.endings import Invalid
from dayjob.lab import dream_page, dream_rows, dream_run
from dayjob.lab.dream_authors import FAULTS, CarelessAuthor, unproved
from dayjob.lab.dream_day import conversations
from dayjob.lab.dream_depot import Depot, requests
from dayjob.lab.dream_rows import Way
from dayjob.practice.actor import RandomActor
from dayjob.practice.environments.program import Program, close_idle
from dayjob.practice.sandbox import available
from tests.lab.test_clerk_office import model

__all__ = ["model"]
needs_sandbox = pytest.mark.skipif(available() is not None, reason="the sandbox is missing")
DEPOT = Depot(depot=3, items=30)
FEW = Demands(seeds=3, attempts=1, claims=3)


def recorded(count):
    """A day's excerpts as the journal gives them: the call that was shown, and the conversation with its answer."""
    asked = [one for _, one in requests(DEPOT, count, first=0)]
    for number, messages in enumerate(conversations(DEPOT, asked)):
        words = {"role": "assistant", "content": "?"}
        yield Excerpt(id=f"{number}a", messages=(messages[0], words), right=messages[1]["content"])
        yield Excerpt(id=f"{number}b", messages=(*messages, words), liked=-1)


@needs_sandbox
def test_a_proof_rejects_what_a_careless_author_writes_and_admits_what_the_offline_author_does():
    read, kept = hold_out(whole_of(recorded(60)))
    held_out = [one for each in kept for one in transitions(each)]
    first = write_programs(read)[0]
    told = {}
    careless = asyncio.run(CarelessAuthor().propose(read, allowance=Allowance())).proposals
    assert len(careless) == len(FAULTS)
    for proposal in (first, *careless):
        proof = asyncio.run(prove(proposal, held_out=held_out, actor=None, demands=FEW))
        told[proposal.name] = proof.reason.partition(":")[0]
    assert told == {first.name: "", "careless: shifted numbers": "faithful", "careless: words are paid": "trivial"}
    # Without a proof all are admitted; what cannot even be attempted is not.
    actor = RandomActor()
    for proposal in (first, *careless):
        proof = asyncio.run(unproved(proposal, held_out=(), actor=actor, demands=FEW))
        assert proof.program is not None
        assert proof.checks[0].figures["attempts"] == 3
    broken = replace(first, source="def reset(seed):\n    raise ValueError\n")
    assert asyncio.run(unproved(broken, held_out=(), actor=actor, demands=FEW)).program is None
    # What the careless expect is not what the application wants: a number too high, or any words.
    shifted = Program(source=careless[0].source)
    [said] = shifted.reference(1)
    [right] = Program(source=first.source).reference(1)
    assert said.text.rpartition("=")[0] == right.text.rpartition("=")[0]
    close_idle()


def test_no_part_or_model_that_is_not_there(tmp_path):
    with pytest.raises(Invalid, match="there is no part 'all'"):
        dream_run.run(range(1), ["all"], None, tmp_path, quick=True)
    with pytest.raises(Invalid, match="is no model's folder"):
        dream_run.run(range(1), None, tmp_path, tmp_path, quick=True)


def plan_of(tmp_path, **changes):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    plan = dream_run.Plan(
        seeds=(0,), parts=dream_page.PARTS, model=tmp_path, folder=tmp_path / "out", sizes=dream_run.QUICK
    )
    return replace(plan, **changes)


def test_a_piece_is_made_once_and_belongs_to_its_plan(tmp_path, monkeypatch):
    made = []

    def row(day, way, *, work):
        made.append((way.name, len(day.asked), len(day.judged)))
        assert work.name == plan.path(way, 24, seed=0).stem
        return {"success": 0.5, "cpu_s": 1.0}

    monkeypatch.setattr(dream_run, "row", row)
    plan, way = plan_of(tmp_path), Way(name="night")
    for _ in range(2):
        assert dream_run.make(plan, way, interactions=24, seed=0)["success"] == 0.5
    assert made == [("night", 24, 8)]
    path = plan.path(way, 24, seed=0)
    others = [
        replace(plan, sizes=replace(plan.sizes, judged=9)),
        replace(plan, sizes=replace(plan.sizes, night=replace(plan.sizes.night, steps=3))),
    ]
    assert all(one.path(way, 24, seed=0) != path for one in others), "other sizes are other pieces"
    more = replace(plan, sizes=replace(plan.sizes, budgets=(1, 4)))
    assert more.path(way, 24, seed=0) == path, "further rows leave those there are"
    (tmp_path / "model.safetensors").write_bytes(b"others")
    assert plan.path(way, 24, seed=0) != path


def test_both_parts_share_what_they_have_in_common(tmp_path):
    plan = plan_of(tmp_path, sizes=dream_run.Sizes())
    wanted = [(way.name, count) for way, count in plan.wanted()]
    assert len(set(wanted)) == len(wanted)
    day, days = plan.sizes.day, plan.sizes.days
    compute = {"before", "night", "night-16", "dream-1", "dream-4", "dream-16", "dream-64", "unproved-16"}
    assert {name for name, count in wanted if count == day} == compute
    assert {count for name, count in wanted if name == "dream-16"} == set(days)
    only = [(way.name, count) for way, count in replace(plan, parts=("days",)).wanted()]
    assert set(only) == {(name, count) for name in ("night", "dream-16") for count in days}


def test_no_day_of_a_seed_holds_what_judges_and_a_shorter_one_begins_a_longer(tmp_path):
    # Of few things, so that the same words come up again and again.
    sizes = replace(dream_run.Sizes(), items=3, pool=300)
    plan = plan_of(tmp_path, sizes=sizes)
    short, long = plan.day(48, seed=2), plan.day(300, seed=2)
    assert list(short.asked) == list(long.asked)[:48]
    assert short.judged == long.judged
    assert len(long.asked) == 300
    judged = {long.depot.request(seed).text for seed in long.judged}
    assert len(judged) == sizes.judged
    assert not judged & {one.text for one in long.asked}
    assert plan.day(48, seed=3).depot.morning() != short.depot.morning()


@needs_sandbox
def test_a_row_is_the_learners_own_job_judged_in_the_real_depot(model, tmp_path):
    asked, judged = requests(DEPOT, 8, first=0), requests(DEPOT, 3, first=1 << 40)
    day = dream_rows.Day(
        model=model, depot=DEPOT, asked=[one for _, one in asked], judged=[seed for seed, _ in judged], kept=1, seed=0,
        night=replace(dream_run.QUICK.night, anchor_rows=2, self_written=2, context_tokens=512, microbatch=32),
    )  # fmt: skip
    plain = dream_rows.row(day, Way(name="before", learns=False), work=tmp_path / "work")
    assert (plain["success"], plain["kl"], plain["job"]) == (0.0, pytest.approx(0.0, abs=1e-6), {})
    night = dream_rows.row(day, Way(name="night"), work=tmp_path / "work")
    assert night["job"]["challenger"].startswith("v1-")
    assert (len(night["rewards"]), night["interactions"]) == (3, 8)
    assert night["kl"] > 0, "it was judged with the weights that the job made"
    assert not (tmp_path / "work").exists()
    # Nothing can be proved of a day so short; without a proof everything is rehearsed in.
    dreamt = {
        proved: dream_rows.row(day, Way(name="dream", budget=0.01, proved=proved), work=tmp_path / "work")["job"]
        for proved in (True, False)
    }
    names = {"careless: shifted numbers", "careless: words are paid"}
    for proved, told in dreamt.items():
        assert names < {one["name"] for one in told["environments"]}
        assert all(one["admitted"] != proved for one in told["environments"])
        assert told["dream"]["episodes"] == (0 if proved else 64)


def piece(way, seed, success, *, interactions=96, environments=()):
    dream = {"episodes": 64, "steps": 1} if way.startswith(("dream", "unproved")) else None
    job = {} if dream is None else {"dream": dream, "environments": list(environments)}
    return {
        "way": way, "seed": seed, "interactions": interactions, "success": success, "kept": {"facts": 1.0}, "kl": 0.01,
        "job": job, "cpu_s": 1.0, "code": "a",
    }  # fmt: skip


def result_of(pieces, *, seeds=3):
    night = {"steps": 50, "lessons": 16, "anchor_rows": 8}
    sizes = {"day": 96, "days": [48, 96], "judged": 200, "items": 120, "budgets": [1, 4], "middle": 4, "night": night}
    return {"sizes": sizes, "pieces": pieces, "seeds": list(range(seeds)), "codes": ["a"], "claims": 5}


@pytest.mark.parametrize(
    ("gain", "says", "stands"),
    [
        (0.1, "lies above zero", "it may be on by default"),
        (0.0, "does not exclude zero", "stays off by default"),
        (-0.1, "lies below zero", "stays off by default"),
    ],
)
def test_whether_dreaming_may_be_on_comes_from_the_numbers(gain, says, stands):
    nights = [piece("night", seed, 0.4 + 0.1 * seed) for seed in range(3)]
    dreams = [piece("dream-1", seed, 0.4 + 0.1 * seed + gain + 0.001 * (seed - 1)) for seed in range(3)]
    result = result_of([*nights, *dreams])
    said = dream_page.verdict(result)
    assert f"({says})" in said
    assert stands in said
    rows = dream_page._rows(result)
    assert [one["after the day"] for one in rows] == ["the night without dreaming", "dreaming, ×1"]
    assert rows[1]["against the night without dreaming, points"].startswith(f"{100 * gain:+.1f} ±0.2")
    # A larger budget that helps does not turn on what is not the default.
    better = [piece("dream-4", seed, 0.9 + 0.1 * seed) for seed in range(3)]
    assert stands in dream_page.verdict(result_of([*nights, *dreams, *better]))
    assert "One seed has no interval" in dream_page.verdict(result_of([nights[0], dreams[0]], seeds=1))
    assert "stays off" in dream_page.verdict(result_of([nights[0], dreams[0]], seeds=1))


def test_interactions_that_are_needed_are_read_off_the_days_there_are():
    assert dream_page.needed({48: 0.1, 96: 0.4}, 0.2) == pytest.approx(64)
    assert dream_page.needed({48: 0.2}, 0.1) == pytest.approx(24)
    assert dream_page.needed({48: 0.1, 96: 0.1}, 0.2) is None
    admitted = [{"name": "e", "admitted": True, "reason": "", "before": 0.5, "after": 0.75}]
    pieces = []
    for seed in range(3):
        pieces += [piece("night", seed, value, interactions=count) for count, value in ((48, 0.1), (96, 0.4))]
        pieces += [
            piece("dream-4", seed, value, interactions=count, environments=admitted if count == 96 else ())
            for count, value in ((48, 0.2), (96, 0.4))
        ]
    result = result_of(pieces)
    half, most, all_of_it = dream_page.needed_rows(result)
    names = ("interactions needed without", "with dreaming, ×4", "saved", "sure")
    # Half of .4: without after 48 + 48 / 3, with after 48; three quarters: after 48 + 48 * 2 / 3, and 48 + 48 / 2.
    assert [half[one] for one in names] == ["64", "48", "+16.0 ±0.0", "yes, fewer"]
    assert [most[one] for one in names] == ["80", "72", "+8.0 ±0.0", "yes, fewer"]
    assert [all_of_it[one] for one in names] == ["96", "96", "+0.0 ±0.0", "no"]
    short, long = dream_page._days(result)
    assert (short["difference, points"], long["difference, points"]) == ("+10.0 ±0.0", "+0.0 ±0.0")
    assert short["dreams with an admitted environment"] == "0 of 3"
    assert long["dreams with an admitted environment"] == "3 of 3"
    never = [one | {"success": 0.0} if one["way"] == "dream-4" and one["seed"] == 2 else one for one in pieces]
    assert dream_page.needed_rows(result_of(never))[0]["seeds that never reach it with dreaming"] == "1 of 3"


def test_the_page_and_the_plot_are_made_of_any_pieces_there_are(tmp_path):
    rejected = {
        "name": "put: e",
        "author": "offline",
        "admitted": False,
        "reason": "faithful: no",
        "before": None,
        "after": None,
    }
    some = [piece("before", 0, 0.0), piece("night", 0, 0.3), piece("dream-1", 0, 0.4, environments=[rejected])]
    for pieces in (some[:1], some):
        result = result_of(pieces, seeds=1)
        text = "\n".join(dream_page.page(result))
        dream_page.plot(result, tmp_path / "plot.png")
        assert (tmp_path / "plot.png").stat().st_size > 1_000
    assert "| offline: e | proved | 0 of 1 | faithful |" in text
