"""The curriculum on simulated learners, whose pass rates rise where they practise; and its counts by hand."""

import json
import math
from collections import Counter
from random import Random

import pytest

from dayjob.endings import Invalid
from dayjob.practice.curriculum import Curriculum, Plan
from dayjob.practice.curriculum_counts import Counts, binary_entropy, outcome_name
from dayjob.practice.protocol import Direction, Mutation
from dayjob.practice.registry import digest, make

GROUP = 8


def task(difficulty, kind="job"):
    return {"env": "simulated", "difficulty": difficulty, "kind": kind}


def ladder(spec):
    """One rung down, to 0, and one up."""
    found = [(Direction.HARDER, spec["difficulty"] + 1)]
    if spec["difficulty"]:
        found.append((Direction.EASIER, spec["difficulty"] - 1))
    return [Mutation(name=direction.value, direction=direction, spec=task(to, spec["kind"])) for direction, to in found]


def lone(spec):
    """No neighbours at all."""
    del spec
    return []


class Learner:
    """Passes with a probability that falls with difficulty; learns from a group in proportion to its variance, so that
    it learns nothing where it always or never passes. "impossible" is never passed."""

    def __init__(self, skill=0.0, seed=0, rate=0.08):
        self.skill, self.rng, self.rate, self.spent = skill, Random(seed), rate, Counter()

    def chance(self, spec):
        steep = 3 * (self.skill - spec["difficulty"])
        return 0.0 if spec["kind"] == "impossible" else 1 / (1 + math.exp(-steep))

    def attempt(self, spec):
        passed = [float(self.rng.random() < self.chance(spec)) for _ in range(GROUP)]
        rate = sum(passed) / GROUP
        self.skill += self.rate * rate * (1 - rate)
        self.spent[spec["kind"], spec["difficulty"]] += 1
        return passed


def practise(curriculum, learner, groups, at_once=1):
    for _ in range(groups // at_once):
        for spec, seed in curriculum.next(at_once):
            curriculum.tell(spec, seed, rewards=learner.attempt(spec))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("at_once", [1, 16])
def test_it_leads_out_of_zero_where_practice_on_the_task_alone_does_not(seed, at_once):
    target = task(5)
    alone = Learner(seed=seed)
    for _ in range(800):
        alone.attempt(target)
    assert alone.chance(target) < 1e-6
    led = Learner(seed=seed)
    practise(Curriculum.open(target, plan=Plan(seed=seed), neighbours=ladder), led, 960, at_once)
    assert led.chance(target) > 0.95


@pytest.mark.parametrize("seed", range(3))
def test_it_does_not_get_stuck_on_what_is_impossible(seed):
    learner = Learner(seed=seed)
    targets = [task(4), task(4, "impossible"), task(2, "impossible")]
    practise(Curriculum.open(targets, plan=Plan(seed=seed), neighbours=ladder), learner, 800)
    wasted = sum(count for (kind, _), count in learner.spent.items() if kind == "impossible")
    assert learner.chance(task(4)) > 0.95
    assert wasted < 0.15 * 800
    assert wasted > 5  # it was looked at, and again


@pytest.mark.parametrize("seed", range(3))
def test_it_spends_little_on_what_is_mastered_and_never_nothing(seed):
    learner = Learner(skill=3.0, seed=seed, rate=0.002)  # learns slowly: the useful one stays useful
    targets = [task(0), task(1), task(3)]  # pass rates of 1.00, 1.00, and .5
    practise(Curriculum.open(targets, plan=Plan(seed=seed), neighbours=lone), learner, 400)
    mastered = learner.spent["job", 0] + learner.spent["job", 1]
    assert mastered < 0.25 * 400
    assert min(learner.spent["job", 0], learner.spent["job", 1]) > 10  # replay takes turns


def test_beyond_the_target_only_if_wanted():
    spent = {}
    for beyond in (True, False):
        learner = Learner(skill=2.0)
        practise(Curriculum.open(task(2), plan=Plan(beyond=beyond), neighbours=ladder), learner, 300)
        spent[beyond] = sum(count for (_, difficulty), count in learner.spent.items() if difficulty > 2)
    assert spent[True] > 50
    assert spent[False] == 0


def test_failed_seeds_come_again_until_they_pass_and_as_mutations():
    curriculum = Curriculum.open(task(1), plan=Plan(beyond=True, mining=0.5, replay=0.0), neighbours=ladder)
    for _ in range(6):  # mastered: its harder neighbour is known from here on
        ((spec, seed),) = curriculum.next(1)
        curriculum.tell(spec, seed, rewards=[1.0] * GROUP)
    curriculum.tell(task(1), 4711, rewards=[1.0] * (GROUP - 1) + [0.0])
    asked = curriculum.next(40)
    mined = [spec for spec, seed in asked if seed == 4711]
    assert {spec["difficulty"] for spec in mined} == {1, 2}
    curriculum.tell(task(1), 4711, rewards=[1.0] * GROUP)
    assert all(seed != 4711 for _, seed in curriculum.next(40))


def test_what_fails_where_little_passes_is_no_failure_to_mine():
    curriculum = Curriculum.open(task(1), neighbours=ladder)
    curriculum.tell(task(1), 4711, rewards=[0.0] * GROUP)
    assert curriculum.report()["tasks"][0]["failures"] == 0


def test_rewards_between_are_a_signal_and_need_nothing_easier():
    same, different = [0.4] * GROUP, [0.1, 0.9] * (GROUP // 2)
    known = {}
    for name, rewards in (("same", same), ("different", different)):
        curriculum = Curriculum.open(task(3), neighbours=ladder)
        for seed in range(4):
            curriculum.tell(task(3), seed, rewards=rewards)
        known[name] = len(curriculum.report()["tasks"])
    assert known == {"same": 2, "different": 1}


def test_it_goes_on_from_its_state_as_if_it_had_never_stopped():
    unbroken, broken = (Curriculum.open(task(3), plan=Plan(seed=5), neighbours=ladder) for _ in range(2))
    one, other = Learner(seed=1), Learner(seed=1)
    for _ in range(12):
        practise(unbroken, one, 10)
        practise(broken, other, 10)
        state = json.loads(json.dumps(broken.state()))
        broken = Curriculum.open(state, neighbours=ladder)
        assert broken.state() == unbroken.state() == state
    assert one.spent == other.spent
    assert unbroken.next(8) == broken.next(8)


def test_seeds_decide_and_proposals_that_were_lost_are_forgotten():
    first, again, other = (Curriculum.open(task(3), plan=Plan(seed=seed), neighbours=ladder) for seed in (1, 1, 2))
    asked = first.next(20)
    assert asked == again.next(20)
    assert {seed for _, seed in asked}.isdisjoint({seed for _, seed in other.next(20)})
    assert len({seed for _, seed in asked}) == 20
    restored = Curriculum.open(first.state(), neighbours=ladder)
    assert [one["waiting"] for one in first.state()["known"]] == [20]
    assert [one["waiting"] for one in restored.state()["known"]] == [0]


def test_many_proposals_at_once_are_not_all_one_task():
    curriculum = Curriculum.open([task(1, "a"), task(1, "b"), task(1, "c")], neighbours=lone)
    asked = Counter(spec["kind"] for spec, _ in curriculum.next(30))
    assert min(asked.values()) >= 5


def test_a_task_that_waits_for_answers_stands_back():
    curriculum = Curriculum.open([task(1, "best"), task(1, "good")], neighbours=lone)
    for seed in range(12):
        curriculum.tell(task(1, "best"), seed, rewards=[1.0, 0.0] * 4)
        curriculum.tell(task(1, "good"), seed, rewards=[1.0] * 7 + [0.0])
    one_by_one = []
    for _ in range(30):
        ((spec, seed),) = curriculum.next(1)
        curriculum.tell(spec, seed, rewards=[])
        one_by_one.append(spec["kind"])
    at_once = [spec["kind"] for spec, _ in curriculum.next(30)]
    assert one_by_one.count("good") < at_once.count("good")
    assert 8 <= at_once.count("good") <= 22


def test_what_begins_to_pass_wakes_what_it_was_made_easier_from():
    curriculum = Curriculum.open(task(2), neighbours=ladder)
    for seed in range(3):
        curriculum.tell(task(2), seed, rewards=[0.0] * GROUP)
    for seed in range(3):
        curriculum.tell(task(1), seed, rewards=[0.0] * GROUP)
    counts = {one["spec"]["difficulty"]: one["counts"] for one in curriculum.state()["known"]}
    assert sorted(counts) == [0, 1, 2]
    assert counts[2]["bad"] == 24
    for seed in range(3):
        curriculum.tell(task(0), seed, rewards=[1.0, 0.0] * (GROUP // 2))
    woken = {one["spec"]["difficulty"]: one["counts"] for one in curriculum.state()["known"]}
    assert [(woken[n]["bad"], woken[n]["in_vain"]) for n in (1, 2)] == [(6, 0), (6, 0)]
    assert woken[0]["bad"] == 12


def test_what_is_in_vain_is_tried_ever_more_rarely():
    learner = Learner(skill=1.0, rate=0.0)
    curriculum = Curriculum.open([task(1), task(0, "impossible")], plan=Plan(half_life=32), neighbours=lone)
    spent = []
    for _ in range(3):
        before = learner.spent["impossible", 0]
        practise(curriculum, learner, 300)
        spent.append(learner.spent["impossible", 0] - before)
    assert spent[0] > 1.5 * spent[2] > 0
    assert sum(spent) < 30  # of 900; some 50 where all is forgotten equally fast


def test_it_keeps_to_its_bound_and_keeps_its_targets():
    def wide(spec):
        return [
            Mutation(name=str(n), direction=Direction.EASIER, spec=task(spec["difficulty"] * 10 + n, "impossible"))
            for n in range(5)
        ]

    target = task(1, "impossible")
    curriculum = Curriculum.open(target, plan=Plan(most=12), neighbours=wide)
    practise(curriculum, Learner(), 400)
    known = [row["spec"] for row in curriculum.report()["tasks"]]
    assert len(known) == 12
    assert target in known
    gone = next(task(n, "impossible") for n in range(10, 10**6) if task(n, "impossible") not in known)
    curriculum.tell(gone, 1, rewards=[1.0])  # told late: not looked at
    assert gone not in [row["spec"] for row in curriculum.report()["tasks"]]


def test_bits_by_hand():
    assert binary_entropy(0.25) == pytest.approx(0.8112781)
    counts = Counts()
    counts.add([1.0, 0.5, 0.5, 0.0], [{}] * 4, window=96)
    assert counts.rate == 0.25
    assert counts.entropy == pytest.approx(1.5)
    curriculum = Curriculum.open(task(0), neighbours=ladder)
    curriculum.tell(task(0), 1, rewards=[1.0, 0.0], parts=[{"form": 1.0}, {"form": 0.0}])
    curriculum.tell(task(0), 2, rewards=[0.0, 0.0], parts=[{"form": 1.0}, {"form": 0.0}])
    report = curriculum.report()
    assert report["tasks"][0]["rate"] == 0.25
    assert report["bits"] == pytest.approx((2 * 1.0 + 2 * binary_entropy(0.25)) / 4)
    assert report["tasks"][0]["rich_bits"] > 1.4


def test_counts_fade_by_hand():
    counts = Counts()
    counts.add([1.0] * 6 + [0.0] * 2, [], window=12)
    counts.add([0.0] * 8, [], window=12)
    assert (counts.good, counts.bad) == (3, 9)  # half of 6 and 2, and 8
    assert counts.spread == pytest.approx(0.1875 / 3)
    assert (counts.attempts, counts.in_vain) == (16, 8)
    old = counts.faded(2.0)
    assert (old.good, old.bad, old.attempts) == (0.75, 2.25, 16)
    counts.doubt()
    assert (counts.good, counts.bad, counts.in_vain) == (3, 2.25, 0)


def test_wilsons_interval_by_hand():
    counts = Counts(good=8, bad=2)
    low, high = counts.interval()
    assert (low, high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert Counts().interval() == (0, 1)


def test_only_what_passed_is_called_ten():
    assert outcome_name(0.9999999999999, {}) == "10"
    assert outcome_name(0.99, {"b": 0.3, "a": 1.0}) == "9 a=10 b=3"


def test_outcomes_stay_bounded():
    counts = Counts()
    rng = Random(0)
    for _ in range(50):
        counts.add(
            [rng.random() for _ in range(8)], [{"a": rng.random(), "b": rng.random()} for _ in range(8)], window=96
        )
    assert len(counts.outcomes) <= 64


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ([], "at least one task"),
        ({"name": "arithmetic"}, "a curriculum opens with specs"),
        ({"curriculum": 7}, "has the shape 7"),
        ({"curriculum": 1, "plan": {}}, "no state of a curriculum"),
        ({"curriculum": 1, "plan": {"speed": 1}}, "no state of a curriculum"),
    ],
)
def test_what_is_no_start_is_refused(source, said):
    with pytest.raises(Invalid, match=said):
        Curriculum.open(source)


@pytest.mark.parametrize(
    "settings", [{"replay": 0.6, "mining": 0.5}, {"replay": -0.1}, {"mastered": 1.0}, {"tries": 0}, {"window": 10}]
)
def test_plans_that_make_no_sense_are_refused(settings):
    with pytest.raises(Invalid):
        Plan(**settings)


@pytest.mark.parametrize("rewards", [[1.5], [float("nan")], [-0.1]])
def test_rewards_that_are_none_are_refused(rewards):
    curriculum = Curriculum.open(task(0), neighbours=ladder)
    with pytest.raises(Invalid, match="between 0 and 1"):
        curriculum.tell(task(0), 1, rewards=rewards)
    with pytest.raises(Invalid, match="parts of every attempt"):
        curriculum.tell(task(0), 1, rewards=[1.0], parts=[{}, {}])


def test_real_mutations_lead_to_real_environments():
    curriculum = Curriculum.open(make({"env": "office", "turns": 20}).spec)
    for seed in range(3):
        curriculum.tell(make({"env": "office", "turns": 20}).spec, seed, rewards=[0.0] * GROUP)
    rows = curriculum.report()["tasks"]
    assert {"half as long", "half shown"} <= {row["name"] for row in rows}
    assert len({digest(row["spec"]) for row in rows}) == len(rows)
    for spec, seed in curriculum.next(12):
        assert make(spec).reference(seed)
