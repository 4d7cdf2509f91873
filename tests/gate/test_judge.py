"""The judge: what it reads, in which order, what commits together, who may write, and what it never promotes."""

import hashlib
import lzma
import math
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest

from dayjob.endings import Damaged, Fenced, OutcomeKind, PolicyKind, Role, StorageFull, VerdictKind, VersionStatus
from dayjob.fakes import FakeClock, FakeRanker, fake_decision, fake_id
from dayjob.gate import judge as module
from dayjob.gate import rulings
from dayjob.gate import seat as seats
from dayjob.gate.control import RETURNED
from dayjob.gate.docket import Docket, restored
from dayjob.gate.evidence import observations
from dayjob.gate.judge import Judge
from dayjob.journal.control import Control
from dayjob.journal.join import window_of
from dayjob.journal.readers import Reader
from dayjob.journal.store import Store
from dayjob.records import Joined, Json, Policy
from tests.gate.trials import AT, BASELINE, KEY, SPEC, World, open_world, version
from tests.journal.standing import stand

GOLDEN = Path(__file__).parents[1] / "journal" / "golden"
V1, V2, V3 = (f"v{n}-{n:08x}" for n in (1, 2, 3))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    opened = open_world(tmp_path / "data")
    yield opened
    opened.close()


@pytest.fixture
def clicks(tmp_path: Path) -> Iterator[World]:
    """A policy that is judged by clicks."""
    opened = open_world(tmp_path / "data", metric="click")
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def _no_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports cost seconds, decide nothing, and have tests of their own."""
    monkeypatch.setattr(module, "REPORT_S", math.inf)


def docket(world: World) -> Docket:
    saved = world.control.state(*KEY, "judge")
    assert saved is not None
    return Docket.from_json(saved)


def kept(world: World) -> Json:
    """The saved state as it is."""
    saved = world.control.state(*KEY, "judge")
    assert saved is not None
    return saved


def on_trial(world: World, number: int = 1) -> str:
    """A challenger, called by the judge."""
    name = world.add(number)
    world.judge().step()
    assert world.control.pointers(*KEY).challenger == name
    return name


# ---- verdicts and pointers -------------------------------------------------------------------------------------------


def test_a_better_challenger_is_promoted_and_the_old_champion_remembered(world: World) -> None:
    on_trial(world)
    world.trial(BASELINE, V1, 150, favour=0.95)
    world.judge().step()
    pointers = world.control.pointers(*KEY)
    assert (pointers.champion, pointers.previous, pointers.challenger) == (V1, BASELINE, None)
    (verdict,) = world.control.verdicts(*KEY)
    assert (verdict.kind, verdict.challenger, verdict.champion, verdict.by) == (
        VerdictKind.PROMOTE,
        V1,
        BASELINE,
        "gate",
    )
    assert verdict.evidence["e_value"] >= verdict.evidence["e_needed"] > 1
    assert world.status(V1) is VersionStatus.CHAMPION
    assert (docket(world).budget.decided, docket(world).budget.promoted) == (1, 1)


def test_a_worse_challenger_is_rejected_and_nothing_moves(world: World) -> None:
    on_trial(world)
    world.trial(BASELINE, V1, 150, favour=0.05)
    world.judge().step()
    assert world.control.pointers(*KEY).champion == BASELINE
    assert world.control.verdicts(*KEY)[0].kind is VerdictKind.REJECT
    assert world.status(V1) is VersionStatus.REJECTED


def test_an_equal_challenger_is_not_promoted(world: World) -> None:
    on_trial(world)
    world.trial(BASELINE, V1, 200, favour=0.5)
    world.judge().step()
    assert world.control.pointers(*KEY).champion == BASELINE
    assert docket(world).trial is not None


def test_the_newest_waiting_challenger_gets_its_turn(world: World) -> None:
    for number in (1, 2, 3):
        world.add(number)
    world.judge().step()
    assert world.control.pointers(*KEY).challenger == V3
    assert [world.status(name) for name in (V1, V2, V3)] == [
        VersionStatus.SUPERSEDED, VersionStatus.SUPERSEDED, VersionStatus.TRIAL,
    ]  # fmt: skip


def test_a_version_left_on_trial_by_somebody_who_was_killed_gets_its_turn_again(world: World) -> None:
    world.add(1, VersionStatus.TRIAL)
    world.judge().step()
    assert world.control.pointers(*KEY).challenger == V1


# ---- order, windows, cursors -----------------------------------------------------------------------------------------


def test_an_open_decision_blocks_what_comes_after_it(world: World) -> None:
    on_trial(world)
    first, second, third = (world.pair(BASELINE, V1, coin=1) for _ in range(3))
    world.tell(third, "b")
    world.tell(first, "b")
    judge = world.judge()
    assert judge.step() == 1, "the third is closed and waits for the second"
    world.tell(second, "b")
    assert judge.step() == 2
    assert docket(world).trial is not None
    assert docket(world).trial.evidence.count == 3


def test_the_end_of_the_window_closes_and_counts_nothing(world: World) -> None:
    on_trial(world)
    world.pair(BASELINE, V1, coin=1)
    judge = world.judge()
    world.clock.now = AT + 60_000
    assert judge.step() == 0
    world.clock.now = AT + 60_001
    assert judge.step() == 1
    evidence = docket(world).trial.evidence
    assert evidence.count == 1
    assert evidence.sum_low == evidence.sum_high
    late = kept(world)
    world.tell(1, "b", received_ms=AT + 70_000)
    assert judge.step() == 0
    assert kept(world) == late, "what comes after the window teaches and does not judge"


def test_a_change_of_mind_after_the_close_does_not_judge(clicks: World) -> None:
    world = clicks
    on_trial(world)
    number = world.pair(BASELINE, V1, coin=1)
    world.tell(number, "b", kind=OutcomeKind.CLICK)
    world.tell(number, "a", kind=OutcomeKind.CLICK)
    world.judge().step()
    trial = docket(world).trial
    assert trial.evidence.sum_low > 0


def test_every_kind_of_outcome_speaks_for_the_right_side(clicks: World) -> None:
    world = clicks
    on_trial(world)
    for kind, item, sign in (
        (OutcomeKind.CLICK, "b", 1), (OutcomeKind.CLICK, "a", -1), (OutcomeKind.CLICK, "c", 0),
        (OutcomeKind.ACCEPT, "b", 1), (OutcomeKind.REJECT, "b", -1), (OutcomeKind.REJECT, "a", 1),
        (OutcomeKind.TRUTH, "b", 1), (OutcomeKind.TRUTH, "c", 0), (OutcomeKind.NONE, "a", 0),
    ):  # fmt: skip
        (joined,) = closed_pair(world, kind, item)
        seen = observations([joined], SPEC | {"metric": "click"}, key=b"k")
        assert seen.low_N.tolist() == seen.high_N.tolist() == [sign], (kind, item)
    world.judge().step()
    assert docket(world).trial.evidence.count == 9


def closed_pair(world: World, kind: OutcomeKind, item: str) -> list[Joined]:
    number = world.pair(BASELINE, V1, coin=1)
    world.tell(number, item, kind=kind)
    window = window_of(SPEC | {"metric": "click"})
    page = next(iter(world.reader.joined(*KEY, window=window, now_ms=AT)))
    return page[-1:]


def test_decisions_that_were_only_looked_up_do_not_count(world: World) -> None:
    on_trial(world)
    world.tell(world.decide(replace(fake_decision(0)[0], role=Role.BEST, explore=False)), "a")
    world.judge().step()
    assert docket(world).closed == 0
    assert docket(world).cursor > 0


def test_a_clock_set_back_or_standing_still_never_judges_twice_or_skips(world: World) -> None:
    on_trial(world)
    judge = world.judge()
    for step in (0, -3_600_000, 0, 7_200_000, -1):
        world.clock.advance(step)
        world.trial(BASELINE, V1, 3, favour=1.0)
        judge.step()
    assert docket(world).trial.evidence.count == 15


def test_a_decision_from_the_future_does_not_hold_up_the_judge(world: World) -> None:
    on_trial(world)
    world.pair(BASELINE, V1, coin=1, at_ms=AT + 365 * 86_400_000)
    number = world.pair(BASELINE, V1, coin=1)
    world.tell(number, "b")
    assert world.judge().step() == 2


# ---- one transaction, one judge --------------------------------------------------------------------------------------


def uninterrupted(world: World, root: Path) -> Json:
    """What a judge that was never disturbed makes of the same journal."""
    shutil.copytree(world.root, root)
    control = Control(root)
    quiet = replace(world, root=root, control=control, reader=Reader(root), judges={})
    control.db().execute("UPDATE leases SET until_ms=0")
    while quiet.judge("quiet").step():
        pass
    return kept(quiet)


@pytest.mark.parametrize("at", ["put_state", "add_point", "add_verdict", "move", "stands"])
def test_evidence_cursor_verdict_and_move_commit_together_or_not_at_all(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    owner = module if at in ("put_state", "add_point") else rulings
    on_trial(world)
    world.trial(BASELINE, V1, 150, favour=0.95)
    before = (kept(world), world.control.pointers(*KEY), world.status(V1))
    expected = uninterrupted(world, tmp_path / "quiet")
    real = getattr(owner, at)

    def power_goes(*arguments: Any, **named: Any) -> Any:
        real(*arguments, **named)
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, at, power_goes)
    with pytest.raises(KeyboardInterrupt):
        world.judge().step()
    assert (kept(world), world.control.pointers(*KEY), world.status(V1)) == before
    assert world.control.verdicts(*KEY) == []
    assert world.control.series(*KEY, "trial") == []
    monkeypatch.setattr(owner, at, real)
    world.judge().step()
    assert kept(world) == expected
    assert world.control.pointers(*KEY).champion == V1
    assert len(world.control.verdicts(*KEY)) == 1


def test_a_judge_with_an_older_lease_writes_nothing(world: World) -> None:
    on_trial(world)
    old, new = world.judge("old"), world.judge("new")
    world.control.db().execute("UPDATE leases SET until_ms=0")
    old.step()
    stale = old.cases[KEY]
    lease = world.control.take_lease("judge/t/p", "old", ttl_s=10)
    assert lease is not None
    world.control.db().execute("UPDATE leases SET until_ms=0")
    new.step()
    before = kept(world)
    world.trial(BASELINE, V1, 150, favour=0.95)
    policy = world.control.policy(*KEY)
    with pytest.raises(Fenced, match="newer process"):
        old._read(policy, stale, old.seats[KEY], pointers=world.control.pointers(*KEY))
    assert kept(world) == before
    assert world.control.pointers(*KEY).champion == BASELINE
    assert old.step() == 0, "the older one steps back while the newer holds the lease"
    assert new.step() == 150
    assert world.control.pointers(*KEY).champion == V1


def test_pointers_moved_by_somebody_else_meanwhile_are_not_overrun(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between reading the pointers and the verdict, somebody rolls back by hand: their word stands."""
    on_trial(world)
    world.trial(BASELINE, V1, 150, favour=0.95)
    real = module.observe

    def meanwhile(*arguments: Any, **named: Any) -> Any:
        world.control.move(*KEY, change={"challenger": None})
        return real(*arguments, **named)

    monkeypatch.setattr(module, "observe", meanwhile)
    assert world.judge().step() == 0
    assert world.control.pointers(*KEY).champion == BASELINE
    assert world.control.verdicts(*KEY) == []


def test_on_a_full_disk_evidence_is_kept_in_memory_and_saved_when_there_is_room(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_trial(world)
    world.trial(BASELINE, V1, 5, favour=1.0)
    before = kept(world)
    judge = world.judge()

    def full(*_: Any, **__: Any) -> None:
        raise StorageFull("the disk is full")

    monkeypatch.setattr(module, "put_state", full)
    assert judge.step() == 5
    assert kept(world) == before
    assert judge.step() == 0
    assert docket(world).trial.evidence.count == 0
    monkeypatch.undo()
    monkeypatch.setattr(module, "REPORT_S", math.inf)
    judge.step()
    assert docket(world).trial.evidence.count == 5


# ---- void evidence, rollbacks, taint, freeze -------------------------------------------------------------------------


def test_evidence_is_void_when_the_champion_changes_and_its_level_goes_on(world: World) -> None:
    on_trial(world)
    world.add(2, VersionStatus.RETIRED)
    world.trial(BASELINE, V1, 10, favour=1.0)
    judge = world.judge()
    judge.step()
    assert docket(world).trial.evidence.count == 10
    world.control.move(*KEY, change={"champion": V2, "previous": BASELINE})
    world.trial(BASELINE, V1, 150, favour=1.0, seed=1)
    judge.step()
    after = docket(world)
    assert (after.champion, after.trial.evidence.count) == (V2, 0), "pairs with the old champion say nothing"
    assert after.budget.decided == 0
    assert world.control.pointers(*KEY).champion == V2


def test_what_the_champion_replaced_may_change_without_voiding_the_trial(world: World) -> None:
    world.add(1, VersionStatus.CHAMPION)
    world.add(2, VersionStatus.RETIRED)
    world.control.move(*KEY, change={"champion": V1, "previous": V2})
    world.add(3)
    world.judge().step()
    world.trial(V1, V3, 10, favour=0.7)
    world.judge().step()
    assert (docket(world).rival, docket(world).trial.evidence.count) == (V2, 10)
    stand(world.control, *KEY, [V2], VersionStatus.TAINTED)
    world.judge().step()
    assert world.control.pointers(*KEY).previous is None, "one that is tainted is nothing to return to"
    assert (docket(world).rival, docket(world).trial.evidence.count) == (BASELINE, 10)
    assert docket(world).budget.decided == 0


def bad_champion(world: World, *, previous: str = BASELINE) -> None:
    """A champion that loses every pair against what it replaced."""
    world.add(1, VersionStatus.CHAMPION)
    world.control.move(*KEY, change={"champion": V1, "previous": previous})
    world.judge().step()
    world.trial(V1, previous, 250, favour=0.97)


def test_a_champion_proven_worse_is_rolled_back_and_never_promoted_again(world: World) -> None:
    bad_champion(world)
    world.judge().step()
    pointers = world.control.pointers(*KEY)
    assert (pointers.champion, pointers.previous) == (BASELINE, None)
    assert world.status(V1) is VersionStatus.ROLLED_BACK
    assert world.control.verdicts(*KEY)[-1].kind is VerdictKind.ROLLBACK
    for _ in range(3):
        world.judge().step()
    assert world.control.pointers(*KEY).challenger is None
    world.control.move(*KEY, change={"challenger": V1})
    world.judge().step()
    assert world.control.pointers(*KEY).challenger is None, "not even by a stray pointer"
    world.add(2, digest=f"{1:064x}")
    world.judge().step()
    assert world.control.pointers(*KEY).challenger is None, "nor under a new name"


def test_one_rolled_back_by_hand_is_not_promoted_by_the_evidence_it_had(world: World) -> None:
    on_trial(world)
    world.trial(BASELINE, V1, 150, favour=0.95)
    world.judge().step()
    assert world.control.pointers(*KEY).champion == V1
    world.control.move(*KEY, change={"champion": BASELINE, "previous": None, "challenger": None})
    stand(world.control, *KEY, [V1], VersionStatus.ROLLED_BACK)
    world.trial(BASELINE, V1, 150, favour=0.95, seed=2)
    for _ in range(3):
        world.judge().step()
    pointers = world.control.pointers(*KEY)
    assert (pointers.champion, pointers.challenger) == (BASELINE, None)


def test_a_rollback_never_returns_to_one_that_is_tainted(world: World) -> None:
    world.add(2, VersionStatus.RETIRED)
    bad_champion(world, previous=V2)
    stand(world.control, *KEY, [V2], VersionStatus.TAINTED)
    world.judge().step()
    world.trial(V1, BASELINE, 250, favour=0.97, seed=5)
    world.judge().step()
    assert world.control.pointers(*KEY).champion == BASELINE
    assert world.status(V2) is VersionStatus.TAINTED


def test_taint_between_two_looks_and_the_rollback(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.add(2, VersionStatus.RETIRED)
    bad_champion(world, previous=V2)
    real = module.observe

    def meanwhile(*arguments: Any, **named: Any) -> Any:
        stand(world.control, *KEY, [V2], VersionStatus.TAINTED)
        return real(*arguments, **named)

    monkeypatch.setattr(module, "observe", meanwhile)
    world.judge().step()
    assert world.control.pointers(*KEY).champion == BASELINE


def test_a_tainted_challenger_is_taken_off_trial_and_a_tainted_champion_is_not_kept_as_previous(world: World) -> None:
    on_trial(world)
    stand(world.control, *KEY, [V1], VersionStatus.TAINTED)
    world.trial(BASELINE, V1, 150, favour=0.95)
    world.judge().step()
    pointers = world.control.pointers(*KEY)
    assert (pointers.champion, pointers.challenger) == (BASELINE, None)
    world.control.move(*KEY, change={"champion": V1})
    world.add(2)
    world.judge().step()
    world.trial(V1, V2, 150, favour=0.95)
    world.judge().step()
    pointers = world.control.pointers(*KEY)
    assert (pointers.champion, pointers.previous) == (V2, None)
    assert world.status(V1) is VersionStatus.TAINTED


@pytest.mark.parametrize("how", ["pointer", "file"])
def test_a_freeze_stops_promotions_and_never_a_rollback(world: World, how: str) -> None:
    def freeze(on: bool) -> None:
        if how == "pointer":
            world.control.move(*KEY, change={"frozen": "champion" if on else ""})
        elif on:
            (world.root / "freeze").touch()
        else:
            (world.root / "freeze").unlink()

    on_trial(world)
    freeze(True)
    world.trial(BASELINE, V1, 150, favour=0.95)
    world.judge().step()
    assert world.control.pointers(*KEY).champion == BASELINE
    assert docket(world).trial.evidence.count == 150, "what was shown before still counts"
    freeze(False)
    world.trial(BASELINE, V1, 1, favour=1.0)
    world.judge().step()
    assert world.control.pointers(*KEY).champion == V1
    freeze(True)
    world.add(2)
    world.trial(V1, BASELINE, 250, favour=0.97, seed=3)
    world.judge().step()
    pointers = world.control.pointers(*KEY)
    assert (pointers.champion, pointers.challenger) == (BASELINE, None)
    assert world.status(V2) is VersionStatus.WAITING


def damage(world: World, judge: Judge, *names: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on these versions do not match their manifests."""

    def load(tenant: str, policy: str, name: str, digest: str) -> Any:
        if name in names:
            raise Damaged(f"{name}: weights.safetensors does not match its SHA-256")
        return world.load(tenant, policy, name, digest)

    monkeypatch.setattr(judge, "load_ranker", load)


def test_a_damaged_challenger_frees_its_place_for_the_next(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2, 3):
        world.add(number)
    judge = world.judge()
    damage(world, judge, V2, V3, monkeypatch=monkeypatch)
    judge.step()
    assert world.control.pointers(*KEY).challenger == V1
    assert [world.status(name) for name in (V1, V2, V3)] == [
        VersionStatus.TRIAL, VersionStatus.DAMAGED, VersionStatus.DAMAGED,
    ]  # fmt: skip
    told = world.control.verdicts(*KEY)
    assert {verdict.challenger for verdict in told} == {V2, V3}
    assert all("does not match its SHA-256" in verdict.reason for verdict in told)
    judge.step()
    assert len(world.control.verdicts(*KEY)) == 2, "said once"
    assert docket(world).budget.decided == 0, "what was never tried has used no level"
    world.add(4, digest=f"{3:064x}")
    world.control.move(*KEY, change={"challenger": None})
    judge.step()
    assert world.control.pointers(*KEY).challenger == "v4-00000004", "the same content, learned again, is welcome"


@pytest.mark.parametrize("how", ["taken up", "a minute later"])
def test_one_damaged_while_on_trial_frees_its_place_too(
    world: World, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    on_trial(world)
    world.trial(BASELINE, V1, 5, favour=1.0)
    world.judge().step()
    judge = world.judge()
    if how == "taken up":
        world.control.db().execute("UPDATE leases SET until_ms=0")
        judge = world.judge("judge-2")
    else:
        monkeypatch.setattr(module, "CHECK_S", 0.0)
    damage(world, judge, V1, monkeypatch=monkeypatch)
    judge.step()
    assert world.control.pointers(*KEY).challenger is None
    assert world.status(V1) is VersionStatus.DAMAGED
    assert docket(world).budget.decided == 0, "an abandoned trial hands its level on"


def test_a_rollback_never_returns_to_one_that_is_damaged(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.add(2, VersionStatus.RETIRED)
    bad_champion(world, previous=V2)
    damage(world, world.judge(), V2, monkeypatch=monkeypatch)
    world.judge().step()
    assert world.control.pointers(*KEY).champion == BASELINE


def test_a_challenger_that_is_on_trial_no_more_is_not_promoted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the verdict somebody withdraws it, and the pointers still name it: it leaves its place, and
    the judge goes on."""
    on_trial(world)
    world.trial(BASELINE, V1, 150, favour=0.95)
    real = module.observe

    def meanwhile(*arguments: Any, **named: Any) -> Any:
        stand(world.control, *KEY, [V1], VersionStatus.HELD)
        return real(*arguments, **named)

    monkeypatch.setattr(module, "observe", meanwhile)
    assert world.judge().step() == 150
    pointers = world.control.pointers(*KEY)
    assert (pointers.champion, pointers.challenger) == (BASELINE, None)
    assert world.control.verdicts(*KEY) == []
    assert world.status(V1) is VersionStatus.HELD
    assert docket(world).budget.decided == 1, "its evidence had reached the mark: the level is used"


# ---- another question ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{"alpha": 0.2}, {"metric": "click"}])
def test_another_metric_or_alpha_voids_the_trial_in_progress(world: World, change: Json) -> None:
    on_trial(world)
    world.trial(BASELINE, V1, 10, favour=0.6)
    world.judge().step()
    assert docket(world).trial.evidence.count == 10
    world.control.update_spec(*KEY, SPEC | change)
    world.judge().step()
    after = docket(world)
    assert (after.challenger, after.trial.evidence.count) == (V1, 0)
    assert (after.budget.decided, after.budget.promoted) == (1, 0)
    assert after.budget.alpha == (SPEC | change)["alpha"]
    assert after.metric == (SPEC | change)["metric"]
    assert after.budget.level == pytest.approx(after.budget.alpha * 2**-1.6 / 2.285765679)
    world.judge().step()
    assert docket(world).budget.decided == 1, "once"


def test_a_trial_is_not_promoted_under_an_alpha_that_it_did_not_begin_under(world: World) -> None:
    """Evidence just short of the level, and then alpha is raised: the evidence does not count any more."""
    on_trial(world)
    judge = world.judge()
    world.trial(BASELINE, V1, 8, favour=1.0)
    judge.step()
    assert math.log(1 / 0.9) < docket(world).trial.evidence.peak_up < math.log(1 / 0.05)
    assert world.control.pointers(*KEY).champion == BASELINE
    world.control.update_spec(*KEY, SPEC | {"alpha": 0.9})
    judge.step()
    assert world.control.pointers(*KEY).champion == BASELINE
    assert docket(world).trial.evidence.count == 0


def test_the_watch_starts_anew_under_another_metric(world: World) -> None:
    world.add(1, VersionStatus.CHAMPION)
    world.control.move(*KEY, change={"champion": V1, "previous": BASELINE})
    world.judge().step()
    world.trial(V1, BASELINE, 10, favour=0.5)
    world.judge().step()
    assert docket(world).watch.pairs.count == 10
    world.control.update_spec(*KEY, SPEC | {"metric": "click"})
    world.judge().step()
    assert docket(world).watch.pairs.count == 0


# ---- the watch over the holdback -------------------------------------------------------------------------------------


def served(world: World, role: Role, *, chances: tuple[float, ...], champion: str = V1) -> None:
    """A closed decision of champion or holdback, with its chances; what it showed first was right."""
    chances = (*chances, 0.9, 0.5)[:4]  # of the first place and the whole order not being explored
    extra: Json = {"chances": list(chances)} | ({"champion": champion} if role is Role.BASELINE else {})
    version = BASELINE if role is Role.BASELINE else champion
    decision = replace(fake_decision(0)[0], role=role, version=version, at_ms=AT, extra=extra, user="ann")
    world.tell(world.decide(decision), "a")


def test_a_decision_counts_for_the_watch_by_its_chances_and_never_by_its_part(world: World) -> None:
    world.add(1, VersionStatus.CHAMPION)
    world.add(2, VersionStatus.RETIRED)
    world.control.move(*KEY, change={"champion": V1, "previous": V2})
    judge = world.judge()
    judge.step()
    rows = [
        ((0.03, 0.2), V1, 2), ((0.1, 0.2), V1, 4),  # the holdback's setting changed in between: both count
        ((0.03, 0.02), V1, 4), ((0.0, 0.9), V1, 4),  # neither part of such a decision does
        ((0.1, 0.2, 0.45, 0.4), V1, 4),  # nor where the champion's own choice first is rarer than the holdback
        ((0.03, 0.2), V2, 4),  # of another champion's life
        ((0.03, 0.2), V1, 6),  # and the judge goes on
    ]  # fmt: skip
    for chances, champion, expected in rows:
        for role in (Role.CHAMPION, Role.BASELINE):
            served(world, role, chances=chances, champion=champion)
        judge.step()
        assert docket(world).watch.arms.count == expected, (chances, champion)


# ---- people who were erased ------------------------------------------------------------------------------------------


def contents(root: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file())


def test_nothing_of_an_erased_person_is_left_with_the_judge(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials count people: by numbers that nobody can find from a name without the data directory's secret, and that
    go when the person does. The weight that they spent stays, without a name, and is that of whoever comes back."""
    monkeypatch.setattr(seats, "FORGET_S", 0.0)
    name, friend = "ann.of.somewhere@example.org", "bob"
    on_trial(world)
    for user in (name, friend):
        number = world.pair(BASELINE, V1, coin=1, user=user)
        world.tell(number, "b")
    judge = world.judge()
    judge.step()
    numbers = docket(world).trial.user_U
    assert len(numbers) == 2
    guesses = {
        int.from_bytes(hashlib.new(kind, data).digest()[:size], order)
        for kind in ("sha256", "sha1", "md5", "sha512", "blake2s", "blake2b") for size in (4, 6, 7, 8)
        for order in ("little", "big") for data in (name.encode(), f"t/{name}".encode(), f"t\0{name}".encode())
    } | {
        int.from_bytes(hashlib.blake2b(name.encode(), digest_size=size).digest(), order)
        for size in (4, 6, 7, 8) for order in ("little", "big")
    }  # fmt: skip
    world.store.erase_user("t", name).result()
    world.store.scrub().result()
    judge.step()
    assert docket(world).trial.user_U == (numbers[1], RETURNED)
    assert docket(world).trial.user_spent_U == (1.0, 1.0)
    assert docket(world).trial.evidence.count == 2
    assert [line.user for line in judge.cases[KEY].desk.lines] == [numbers[1]]
    world.control.db().wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    left = contents(world.root)
    assert friend.encode() in left, "the search sees what is there"
    assert str(numbers[1]).encode() in left
    assert name.encode() not in left
    assert str(numbers[0]).encode() not in left
    for guess in guesses:
        assert guess not in numbers
        assert str(guess).encode() not in left or guess < 10**9
    number = world.pair(BASELINE, V1, coin=1, user=name)
    world.tell(number, "b")
    world.judge("next").cases.clear()
    world.control.db().execute("UPDATE leases SET until_ms=0")
    world.judge("next").step()  # another judge knows it too
    assert docket(world).trial.user_U == (numbers[1], RETURNED)
    assert docket(world).trial.user_spent_U == (1.0, 2.0), "no new voice in this trial"
    assert docket(world).trial.evidence.count == 3
    world.control.move(*KEY, change={"challenger": None})
    world.add(2)
    world.judge("next").step()
    number = world.pair(BASELINE, V2, coin=1, user=name)
    world.tell(number, "b")
    world.judge("next").step()
    found = docket(world).trial
    assert dict(zip(found.user_U, found.user_spent_U, strict=True))[numbers[0]] == 1.0, "erased once, not for ever"


def test_every_policy_of_every_tenant_is_judged_apart(world: World) -> None:
    other = Policy(tenant="u", name="p", kind=PolicyKind.RANKER, spec=SPEC, created_ms=0)
    world.control.create_policy(other, replace(version(0, VersionStatus.BASELINE), tenant="u"))
    on_trial(world)
    world.trial(BASELINE, V1, 150, favour=0.95)
    world.judge().step()
    assert world.control.pointers(*KEY).champion == V1
    assert world.control.pointers("u", "p").champion == BASELINE
    assert world.control.verdicts("u", "p") == []


# ---- one policy's trouble is its own ---------------------------------------------------------------------------------


def test_a_fault_at_one_policy_stops_no_other_and_is_not_tried_all_the_time(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first policy in order, another tenant's, runs out of memory whenever it is looked at."""
    other = Policy(tenant="a", name="p", kind=PolicyKind.RANKER, spec=SPEC, created_ms=0)
    world.control.create_policy(other, replace(version(0, VersionStatus.BASELINE), tenant="a"))
    on_trial(world)
    judge, real, looked = world.judge(), Judge._take_up, []

    def take_up(self: Judge, policy: Policy, lease: Any) -> Any:
        if policy.tenant == "a":
            looked.append(policy.name)
            raise MemoryError("64 GB")
        return real(self, policy, lease)

    monkeypatch.setattr(Judge, "_take_up", take_up)
    judge.cases.clear()
    world.trial(BASELINE, V1, 150, favour=0.95)
    assert judge.step() == 150
    assert world.control.pointers(*KEY).champion == V1
    assert "MemoryError: 64 GB" in caplog.text, "with its traceback"
    judge.step()
    assert len(looked) == 1, "it rests"
    seat = judge.seats["a", "p"]
    for expected in (2.0, 4.0):
        seat.until_s = -math.inf
        judge.step()
        assert seat.rest_s == expected
    seat.rest_s = seats.REST_MOST_S
    seat.until_s = -math.inf
    judge.step()
    assert seat.rest_s == seats.REST_MOST_S
    monkeypatch.setattr(Judge, "_take_up", real)
    seat.until_s = -math.inf
    judge.step()
    assert (seat.rest_s, ("a", "p") in judge.cases) == (0.0, True)


def test_reports_look_at_the_first_places_of_a_long_list(clicks: World) -> None:
    """Sixty were shown: what is known of fifty is kept, and a click on the fifty-first is none; trials read all."""
    items = [f"{n:02d}" for n in range(60)]
    decision, blobs = fake_decision(1, items)
    for number, item in ((1, items[49]), (2, items[50])):
        record = replace(decision, id=fake_id(number), body_digest=bytes([number]) * 16, at_ms=AT)
        clicks.store.append_decision(record, blobs).result()
        clicks.made += 1
        clicks.tell(number, item, kind=OutcomeKind.CLICK)
        clicks.made = 2
    clicks.judge().step()
    first, second = clicks.judge().cases[KEY].desk.lines
    assert (first.click, second.click) == (49, -1)
    assert len(first.item_R) == len(first.score_R) == len(first.feature_RF) == len(first.propensity_R) == 50


def test_an_idle_judge_commits_only_to_renew_its_lease(world: World) -> None:
    judge = world.judge()
    judge.step()
    judge.step()

    def commits() -> int:
        return int(world.control.db().total_changes())

    before = commits()
    for _ in range(10):
        judge.step()
    assert commits() == before
    lease = judge.seats[KEY].lease
    judge.seats[KEY].asked_s -= seats.LEASE_S / 3
    judge.step()
    assert commits() == before + 1
    assert lease is not None
    assert judge.seats[KEY].lease.token == lease.token
    assert judge.seats[KEY].lease.until_ms >= lease.until_ms


def test_a_judge_that_was_fenced_asks_for_its_lease_at_once(world: World) -> None:
    """It need not ask for a third of the lease; the first write that is refused tells it."""
    on_trial(world)
    old, new = world.judge(), world.judge("new")
    world.control.db().execute("UPDATE leases SET until_ms=0")
    new.step()
    world.trial(BASELINE, V1, 20, favour=0.5)
    assert old.step() == 0
    assert KEY not in old.cases
    assert old.step() == 0
    assert old.seats[KEY].lease is None
    assert new.step() == 20


# ---- never the champion ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [VersionStatus.TRIAL, VersionStatus.WAITING])
def test_a_champion_whose_status_lags_behind_is_never_its_own_challenger(world: World, status: VersionStatus) -> None:
    """A promotion by hand moves the pointer; whoever did it is killed before the status is written."""
    world.add(1, status)
    world.control.move(*KEY, change={"champion": V1, "previous": BASELINE})
    for _ in range(3):
        world.judge().step()
    assert world.control.pointers(*KEY).challenger is None
    world.control.move(*KEY, change={"challenger": V1})
    world.judge().step()
    pointers = world.control.pointers(*KEY)
    assert (pointers.champion, pointers.challenger) == (V1, None), "nor by a stray pointer"
    world.add(2)
    world.judge().step()
    world.trial(V1, V2, 150, favour=0.95)
    world.judge().step()
    assert world.control.pointers(*KEY).champion == V2, "and the judge goes on"


# ---- what another release left ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("golden", sorted(GOLDEN.glob("schema*.tar.xz")), ids=lambda path: path.name.split(".")[0])
def test_a_directory_of_an_older_schema_is_judged_on(tmp_path: Path, golden: Path) -> None:
    with lzma.open(golden) as packed, tarfile.open(fileobj=packed) as files:
        files.extractall(tmp_path, filter="data")
    root = tmp_path / golden.name.partition(".")[0]
    control = Control(root)
    Store(root, secret=control.secret("journal"), find_spec=lambda *_: (PolicyKind.RANKER, SPEC)).close()
    before = control.state("default", "geo", "judge")
    judge = Judge(control, Reader(root), load_ranker=lambda *_: FakeRanker(1), holder="new", now_ms=FakeClock(AT))
    judge.step()
    assert ("default", "geo") in judge.cases, "no fault"
    after = control.state("default", "geo", "judge")
    assert after is not None
    found = Docket.from_json(after)
    assert found.champion == control.pointers("default", "geo").champion
    if before is not None:
        assert found.cursor >= before["cursor"] > 0
        assert found.budget.decided == 1, "the level of the trial in progress is spent"


def test_a_state_that_does_not_parse_keeps_cursor_and_budget(world: World) -> None:
    on_trial(world)
    world.trial(BASELINE, V1, 150, favour=0.05)
    world.judge().step()
    world.add(2)
    world.judge().step()
    saved = kept(world)
    assert (saved["budget"]["decided"], saved["cursor"] > 0) == (1, True)
    broken: list[Json] = [
        saved | {"budget": {"alpha": 0.05, "decided": 1, "promoted": 0}, "watch": {"pairs": {}}},
        {name: saved[name] for name in ("cursor", "budget", "challenger")},
        saved | {"unheard_of": 1},
        saved | {"trial": {"evidence": {}}},
    ]
    for number, state in enumerate(broken):
        found = restored(state, world.control.policy(*KEY))
        assert (found.cursor, found.budget.decided, found.budget.left) == (saved["cursor"], 2, 1.0), number
        assert found.trial is found.watch is found.challenger is None
    put(world, saved)
    world.judges.clear()
    world.control.db().execute("UPDATE leases SET until_ms=0")
    put(world, broken[1])
    world.judge().step()
    assert docket(world).challenger == V2
    assert docket(world).budget.decided == 2
    with pytest.raises(Damaged, match=r"restore control\.db"):
        restored({"cursor": 5}, world.control.policy(*KEY))


def put(world: World, state: Json) -> None:
    with world.control.write() as db:
        module.put_state(db, *KEY, name="judge", state=state)
