"""The judge of language policies over a real journal and control.db: exams, sessions, the watch, kills, leases."""

import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dayjob.endings import Fenced, OutcomeKind, StorageFull, VerdictKind, VersionStatus
from dayjob.gate import language as module
from dayjob.gate import rulings
from dayjob.gate import seat as seat_module
from dayjob.gate.control import RETURNED
from dayjob.gate.dossier import PATIENCE_MS
from dayjob.gate.language import LanguageJudge
from dayjob.gate.seat import Seat
from dayjob.journal.control import Control
from dayjob.journal.jobs import unfinished
from dayjob.journal.readers import Reader
from dayjob.records import Json, Verdict
from tests.gate.talks import BASELINE, KEY, SPEC, WINDOW_MS, Talks, open_talks
from tests.gate.test_exam import record
from tests.journal.standing import stand

UNASKED: Json = {"taught": {"asked": 0, "right_before": 0, "right_after": 0}}
FEW_PROMPTS: Json = {"traffic": {"prompts": 7, "tokens": 90, "kl": 0.004, "kl_budget": 0.05}}
HARM: Json = {"suites": [{"name": "skills", "asked": 200, "lost": 20, "won": 0}]}


@pytest.fixture
def talks(tmp_path: Path) -> Iterator[Talks]:
    opened = open_talks(tmp_path / "data")
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def _look_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPORT_S", 0.0)
    monkeypatch.setattr(module, "CHECK_S", 0.0)


def verdict(talks: Talks, address: str = KEY[1]) -> Verdict:
    """The only one."""
    (found,) = talks.control.verdicts(KEY[0], address)
    return found


def on_trial(talks: Talks, number: int = 1) -> str:
    """A version that its exam left open."""
    name = talks.add(number, record())
    talks.step()
    assert talks.control.pointers(*KEY).challenger == name
    assert talks.status(name) is VersionStatus.TRIAL
    return name


def promoted(talks: Talks, number: int = 1) -> str:
    """A champion by its exam alone."""
    against = talks.control.pointers(*KEY).champion
    name = talks.add(number, record(won=40, against=against))
    talks.step()
    assert talks.control.pointers(*KEY).champion == name
    return name


# ---- the exam --------------------------------------------------------------------------------------------------------


def test_harm_rejects_before_anybody_is_answered_by_it(talks: Talks) -> None:
    """P6 and P7, one by one, however much was won."""
    harms: list[Json] = [
        HARM,
        {"phrases": [{"phrase": "canary", "before": 9.0, "after": 3.0}]},
        {"traffic": {"prompts": 20, "tokens": 100, "kl": 0.2, "kl_budget": 0.05}},
    ]
    for name in ("refusing", "asking_back", "empty", "invalid_tool_call", "long"):
        harms.append({"rates": [{"name": name, "asked": 200, "before": 1, "after": 60}]})
    for number, harm in enumerate(harms, start=1):
        name = talks.add(number, record(won=40) | harm)
        generation = talks.control.pointers(*KEY).generation
        talks.step()
        pointers = talks.control.pointers(*KEY)
        assert (pointers.champion, pointers.challenger) == (BASELINE, None), harm
        assert pointers.generation == generation + 2, "named and dropped in one transaction, so nobody saw it"
        assert talks.status(name) is VersionStatus.REJECTED
        said = talks.control.verdicts(*KEY)[-1]
        assert (said.kind, said.challenger, said.by) == (VerdictKind.REJECT, name, "gate")
        assert said.reason == " ".join(said.evidence["harms"]) != ""
    assert len(talks.control.verdicts(*KEY)) == len(harms)


def test_twelve_families_won_promote_at_once(talks: Talks) -> None:
    name = talks.add(1, record(won=12))
    talks.step()
    pointers = talks.control.pointers(*KEY)
    assert (pointers.champion, pointers.previous, pointers.challenger) == (name, BASELINE, None)
    assert talks.status(name) is VersionStatus.CHAMPION
    said = verdict(talks)
    assert (said.kind, said.champion) == (VerdictKind.PROMOTE, BASELINE)
    assert said.evidence["e_value"] == pytest.approx(179.7, abs=0.1)
    assert "questions that nobody trained on" in said.reason
    budget = talks.dossier().docket.budget
    assert (budget.decided, budget.promoted) == (1, 1)
    report = talks.control.state(*KEY, "report")
    assert report is not None
    assert report["forgetting"]["version"] == name
    assert report["forgetting"]["suites"][0]["name"] == "skills"
    assert report["gate"]["watch"] == {"rival": BASELINE, "sessions": 0}


def test_what_was_taken_back_goes_without_a_proof_and_without_spending_the_budget(talks: Talks) -> None:
    name = talks.add(1, record(unlearned=2))
    talks.step()
    assert (talks.control.pointers(*KEY).champion, verdict(talks).kind) == (name, VerdictKind.PROMOTE)
    assert f"without 2 of the lessons of {BASELINE}" in verdict(talks).reason
    assert talks.dossier().docket.budget.decided == 0
    harmful = talks.add(2, record(unlearned=1, against=name, traffic=record()["traffic"] | {"kl": 1.0}))
    talks.step()
    assert (talks.status(harmful), talks.control.pointers(*KEY).champion) == (VersionStatus.REJECTED, name)


def test_the_newest_version_is_ruled_on_and_older_ones_are_passed_over(talks: Talks) -> None:
    first, second = talks.add(1, record(won=40)), talks.add(2, record(won=40))
    talks.step()
    assert talks.control.pointers(*KEY).champion == second
    assert talks.status(first) is VersionStatus.SUPERSEDED


def test_a_version_without_an_exam_never_serves(talks: Talks) -> None:
    name = talks.add(1, None)
    talks.step()
    assert talks.control.pointers(*KEY).challenger is None
    assert talks.status(name) is VersionStatus.HELD
    assert "never examined" in verdict(talks).reason


def test_an_exam_that_cannot_be_read_holds_its_version_and_stops_nobody_else(talks: Talks) -> None:
    name = talks.add(1, {"against": BASELINE})
    talks.step()
    assert talks.status(name) is VersionStatus.HELD
    assert "cannot be read" in verdict(talks).reason


def test_a_damaged_version_is_marked_and_not_tried(talks: Talks) -> None:
    name = talks.add(1, record(won=40))
    for file in (talks.root / "versions").rglob("adapter.safetensors"):
        file.write_bytes(b"flipped")
    talks.step()
    assert talks.control.pointers(*KEY).champion == BASELINE
    assert talks.status(name) is VersionStatus.DAMAGED
    assert "damaged" in verdict(talks).reason


def test_an_exam_against_another_champion_is_no_evidence(talks: Talks) -> None:
    """It was harmless, and is judged by sessions alone."""
    name = talks.add(1, record(won=40, against="v7-00000000"))
    talks.step()
    assert talks.control.pointers(*KEY).challenger == name
    trial = talks.dossier().docket.trial
    assert trial is not None
    assert trial.evidence.log_e_up == pytest.approx(0.0, abs=1e-9)


def test_what_a_rejected_exam_lost_is_lost_to_the_next_one(talks: Talks) -> None:
    """Refused for harm with evidence below 1: the level goes on with what is left of it."""
    talks.add(1, record(won=1, lost=3) | HARM)
    talks.step()
    budget = talks.dossier().docket.budget
    assert budget.decided == 0
    assert 0 < budget.left < 1


def test_a_trial_that_was_left_gives_its_level_back_before_the_next_exam_is_read(talks: Talks) -> None:
    """The one on trial is tainted with evidence below 1; ten families won are then short of what is needed."""
    first = on_trial(talks)
    talks.sessions(20, {BASELINE: 0.7, first: 0.3}, start=0, seed=3)
    talks.step()
    spent = talks.dossier().docket.trial
    assert spent is not None
    assert 45.7 * math.exp(-spent.evidence.log_e_up) > 52.9 > 45.7
    second = talks.add(2, record(won=10))  # 52.9, and 45.7 would do
    stand(talks.control, *KEY, [first], VersionStatus.TAINTED)
    talks.step()
    assert talks.control.pointers(*KEY).challenger == second
    assert talks.dossier().docket.budget.left == pytest.approx(math.exp(spent.evidence.log_e_up))


def test_a_freeze_stops_promotions_and_a_thaw_lets_them_go_on(talks: Talks) -> None:
    talks.control.move(*KEY, change={"frozen": "champion"})
    name = talks.add(1, record(won=40))
    talks.step()
    assert talks.control.pointers(*KEY).champion == BASELINE
    assert talks.status(name) is VersionStatus.WAITING
    talks.control.move(*KEY, change={"frozen": ""})
    talks.step()
    assert talks.control.pointers(*KEY).champion == name


# ---- people's own layers ---------------------------------------------------------------------------------------------


def test_a_personal_version_is_promoted_for_its_owner_alone(talks: Talks) -> None:
    ann, ben = talks.layer("ann"), talks.layer("ben")
    name = talks.add(1, record(), address=ann)
    talks.step()
    assert talks.control.pointers(KEY[0], ann).champion == name
    assert talks.control.pointers(KEY[0], ben).champion == BASELINE
    assert talks.control.pointers(*KEY).champion == BASELINE
    said = verdict(talks, ann)
    assert said.kind is VerdictKind.PROMOTE
    assert "19 of 20 askings are right without notes" in said.reason
    assert talks.dossier().docket.budget.decided == 0, "nobody else's false promotions are at stake"


def test_a_personal_version_that_verdicts_taught_is_promoted(talks: Talks) -> None:
    ann = talks.layer("ann")
    name = talks.add(1, record() | UNASKED, address=ann)
    talks.step()
    assert talks.control.pointers(KEY[0], ann).champion == name
    assert "Its owner's verdicts taught it, and nothing was asked of it" in verdict(talks, ann).reason


@pytest.mark.parametrize(
    ("change", "kind", "status"),
    [
        (HARM, VerdictKind.REJECT, VersionStatus.REJECTED),
        ({"taught": {"asked": 9, "right_before": 0, "right_after": 0}}, VerdictKind.HOLD, VersionStatus.HELD),
        ({"taught": {"asked": 9, "right_before": 5, "right_after": 4}}, VerdictKind.HOLD, VersionStatus.HELD),
        ({"against": "v9-0"}, VerdictKind.HOLD, VersionStatus.HELD),
        (UNASKED | HARM, VerdictKind.REJECT, VersionStatus.REJECTED),
    ],
)
def test_a_personal_version_that_harms_or_does_not_hold_is_not_served(
    talks: Talks, change: Json, kind: VerdictKind, status: VersionStatus
) -> None:
    ann = talks.layer("ann")
    name = talks.add(1, record() | change, address=ann)
    talks.step()
    assert talks.control.pointers(KEY[0], ann).champion == BASELINE
    assert verdict(talks, ann).kind is kind
    assert talks.status(name, ann) is status


def test_a_persons_first_version_is_ruled_on_against_what_answers_them(talks: Talks) -> None:
    """The office's champion. An exam against anything else is void: a night that makes another is asked for."""
    champion, ann = promoted(talks), talks.layer("ann")
    stale = talks.add(1, record() | HARM, address=ann)
    talks.step()
    assert talks.control.pointers(KEY[0], ann).champion == BASELINE
    said = verdict(talks, ann)
    assert (said.kind, talks.status(stale, ann)) == (VerdictKind.HOLD, VersionStatus.HELD)
    assert f"against {BASELINE}, and {champion} serves by now" in said.reason
    (job,) = unfinished(talks.control)
    assert (job.policy, job.recipe) == (ann, "consolidate")
    fresh = talks.add(2, record(against=champion), address=ann)
    talks.step()
    assert talks.control.pointers(KEY[0], ann).champion == fresh
    own = talks.add(3, record(against=champion), address=ann)
    talks.step()
    assert talks.status(own, ann) is VersionStatus.HELD, "her own serves by now, whatever the office's does"


def test_nobody_is_learned_from_against_their_wish_for_an_exam_that_is_void(talks: Talks) -> None:
    promoted(talks)
    ann, ben = talks.layer("ann"), talks.layer("ben")
    talks.control.set_learns(KEY[0], "ann", False)
    for address in (ann, ben):
        talks.add(1, record(), address=address)
    talks.step()
    assert [job.policy for job in unfinished(talks.control)] == [ben]


def test_a_champion_that_moves_in_the_midst_of_a_look_voids_a_personal_promotion(
    talks: Talks, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion, ann = promoted(talks), talks.layer("ann")
    name = talks.add(1, record(against=champion), address=ann)
    real = module.turn

    def slow(*arguments: Any, **named: Any) -> Any:
        found = real(*arguments, **named)
        if found[0]:
            talks.control.move(*KEY, change={"champion": BASELINE, "previous": None})
        return found

    monkeypatch.setattr(module, "turn", slow)
    talks.judge().step()
    assert talks.control.pointers(KEY[0], ann).champion == BASELINE
    assert talks.status(name, ann) is VersionStatus.WAITING
    monkeypatch.setattr(module, "turn", real)
    talks.step()
    assert talks.status(name, ann) is VersionStatus.HELD


def test_personal_versions_wait_while_the_policy_is_frozen(talks: Talks) -> None:
    ann = talks.layer("ann")
    (talks.root / "freeze").write_text("champion")
    name = talks.add(1, record(), address=ann)
    talks.step()
    assert talks.status(name, ann) is VersionStatus.WAITING
    (talks.root / "freeze").unlink()
    talks.step()
    assert talks.control.pointers(KEY[0], ann).champion == name


def test_one_persons_adapter_is_frozen_alone(talks: Talks) -> None:
    ann, ben = talks.layer("ann"), talks.layer("ben")
    talks.control.move(KEY[0], ann, change={"frozen": "champion"})
    names = {address: talks.add(1, record(), address=address) for address in (ann, ben)}
    talks.step()
    assert talks.status(names[ann], ann) is VersionStatus.WAITING
    assert talks.control.pointers(KEY[0], ben).champion == names[ben]
    talks.control.move(KEY[0], ann, change={"frozen": ""})
    talks.step()
    assert talks.control.pointers(KEY[0], ann).champion == names[ann]


@pytest.mark.parametrize("how", ["row", "file"])
@pytest.mark.parametrize("personal", [True, False])
def test_a_freeze_in_the_midst_of_a_look_stops_a_promotion(
    talks: Talks, monkeypatch: pytest.MonkeyPatch, how: str, personal: bool
) -> None:
    """Somebody freezes the policy once the judge has read that it is not frozen."""
    address = talks.layer("ann") if personal else KEY[1]
    name = talks.add(1, record(won=40), address=address)
    real = module.turn

    def slow(*arguments: Any, **named: Any) -> Any:
        found = real(*arguments, **named)
        if found[0] and how == "row":
            talks.control.move(*KEY, change={"frozen": "champion"})
        elif found[0]:
            (talks.root / "freeze").write_text("champion")
        return found

    monkeypatch.setattr(module, "turn", slow)
    talks.step()
    talks.step()
    assert talks.control.pointers(KEY[0], address).champion == BASELINE
    assert talks.status(name, address) is VersionStatus.WAITING
    assert talks.control.verdicts(KEY[0], address) == []
    monkeypatch.setattr(module, "turn", real)
    (talks.root / "freeze").unlink(missing_ok=True)
    talks.control.move(*KEY, change={"frozen": ""})
    talks.step()
    assert talks.control.pointers(KEY[0], address).champion == name


def test_a_freeze_file_in_the_midst_of_a_look_stops_a_promotion_by_sessions(
    talks: Talks, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = on_trial(talks)
    talks.sessions(100, {BASELINE: 0.1, name: 1.0}, start=0)
    real = Seat.write

    def slow(seat: Seat, work: Any) -> bool:
        (talks.root / "freeze").write_text("champion")
        return real(seat, work)

    monkeypatch.setattr(Seat, "write", slow)
    talks.judge().step()
    assert talks.control.pointers(*KEY).champion == BASELINE
    monkeypatch.setattr(Seat, "write", real)
    (talks.root / "freeze").unlink()
    talks.step()
    assert talks.control.pointers(*KEY).champion == name


def test_a_version_that_was_taken_back_by_hand_does_not_return_under_another_name(talks: Talks) -> None:
    ann = talks.layer("ann")
    name = talks.add(1, record(), address=ann, content=b"the same")
    talks.step()
    stand(talks.control, KEY[0], ann, [name], VersionStatus.ROLLED_BACK)
    talks.control.move(KEY[0], ann, change={"champion": BASELINE, "previous": None})
    again = talks.add(2, record(), address=ann, content=b"the same")
    talks.step()
    assert talks.control.pointers(KEY[0], ann).champion == BASELINE
    assert talks.status(again, ann) is VersionStatus.WAITING


# ---- the live trial --------------------------------------------------------------------------------------------------


def test_what_the_exam_left_open_is_proven_by_sessions(talks: Talks) -> None:
    name = on_trial(talks)
    talks.sessions(100, {BASELINE: 0.2, name: 0.9}, start=0, users=50)
    assert talks.step() == 100
    pointers = talks.control.pointers(*KEY)
    assert (pointers.champion, pointers.previous) == (name, BASELINE)
    said = verdict(talks)
    assert said.kind is VerdictKind.PROMOTE
    assert said.evidence["e_value"] >= said.evidence["e_needed"]
    assert "per judged session" in said.reason


def test_the_exam_and_the_sessions_are_one_evidence(talks: Talks) -> None:
    """Nine families won are short of the mark; a few sessions more and it is reached."""
    name = talks.add(1, record(won=9))
    talks.step()
    trial = talks.dossier().docket.trial
    assert trial is not None
    assert trial.evidence.log_e_up == pytest.approx(3.387, abs=0.001)  # log 29.6
    talks.sessions(8, {BASELINE: 0.0, name: 1.0}, start=0)
    talks.step()
    assert talks.control.pointers(*KEY).champion == name


def test_an_exam_that_hardly_asked_what_must_stay_promotes_nobodys_version_by_itself(talks: Talks) -> None:
    """Forty families won and seven prompts of traffic: only sessions count, and without the exam's evidence."""
    name = talks.add(1, record(won=40) | FEW_PROMPTS)
    talks.step()
    assert talks.control.pointers(*KEY).challenger == name
    talks.sessions(1, {BASELINE: 0.0, name: 1.0}, start=0)
    talks.step()
    assert talks.control.pointers(*KEY).challenger == name
    talks.sessions(60, {BASELINE: 0.0, name: 1.0}, start=1)
    talks.step()
    assert talks.control.pointers(*KEY).champion == name


def test_what_is_worse_by_sessions_is_rejected(talks: Talks) -> None:
    name = on_trial(talks)
    talks.sessions(100, {BASELINE: 0.9, name: 0.2}, start=0, users=50)
    talks.step()
    assert talks.control.pointers(*KEY).champion == BASELINE
    assert verdict(talks).kind is VerdictKind.REJECT
    assert talks.status(name) is VersionStatus.REJECTED
    assert (talks.dossier().docket.budget.decided, talks.dossier().docket.budget.promoted) == (1, 0)


def test_nobody_holds_up_the_others_by_writing_on(talks: Talks) -> None:
    """One conversation goes on for ever; what began beside it is judged a window after it began."""
    on_trial(talks)
    talks.say("long")
    talks.say("short")
    talks.settle()
    talks.clock.advance(WINDOW_MS)
    talks.say("long")
    talks.settle()
    assert talks.step() == 0
    report = talks.control.state(*KEY, "report")
    assert report is not None
    assert (report["gate"]["lag"], report["gate"]["waiting"]["until_ms"]) == (0, talks.clock.now)
    talks.clock.advance(1)
    assert talks.step() == 3
    for _ in range(5):
        talks.clock.advance(WINDOW_MS // 2)
        talks.say("long")
        talks.settle()
        assert talks.step() == 1, "it belongs to no session, and nothing waits for it"
    trial = talks.dossier().docket.trial
    assert trial is not None
    assert trial.evidence.count == 2


def steps_of(talks: Talks, judge: LanguageJudge) -> int:
    """The work that SQLite does for the judge until all is heard, in thousands of its instructions."""
    counted = [0]

    def tick() -> bool:
        counted[0] += 1
        return False

    db = talks.reader._db()
    db.set_progress_handler(tick, 1_000)
    while judge.step():
        pass
    db.set_progress_handler(None)
    return counted[0]


@pytest.mark.parametrize("late", [False, True])
def test_the_work_for_a_conversation_grows_with_its_length_and_not_with_the_square_of_it(
    talks: Talks, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """400 and 1,600 answers in one conversation: four times the work, where all were read for each it was sixteen
    times. ``late``: they come after its session closed."""
    on_trial(talks)
    monkeypatch.setattr(module, "REPORT_S", 60.0)
    work = []
    for name, count in (("short", 400), ("long", 1_600)):
        talks.say(name)
        talks.settle()
        if late:
            talks.clock.advance(2 * WINDOW_MS)
        for _ in range(count):
            talks.say(name)
        talks.settle()
        talks.clock.advance(2 * WINDOW_MS)
        work.append(steps_of(talks, talks.judge()))
    assert work[1] < 6 * work[0], work
    trial = talks.dossier().docket.trial
    assert trial is not None
    assert trial.evidence.count == 2


def test_a_look_ends_in_time_and_saves_what_it_heard(talks: Talks, monkeypatch: pytest.MonkeyPatch) -> None:
    name = on_trial(talks)
    talks.sessions(3, {BASELINE: 0.5, name: 0.5}, start=0)
    monkeypatch.setattr(module, "LOOK_S", 0.0)
    for count in (1, 2, 3):
        assert talks.judge().step() == 1
        trial = talks.dossier().docket.trial
        assert trial is not None
        assert trial.evidence.count == count, "on disk"


def test_the_lease_is_renewed_within_a_look_and_whoever_lost_it_stops(
    talks: Talks, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = on_trial(talks)
    talks.sessions(6, {BASELINE: 0.5, name: 0.5}, start=0)
    monkeypatch.setattr(seat_module, "RENEW_S", 0.0)
    real, heard, before = module.observe, [], talks.control.state(*KEY, "judge")

    def slow(*arguments: Any, **named: Any) -> Any:
        heard.append(1)
        if len(heard) == 3:
            talks.control.db().execute("UPDATE leases SET until_ms=0")
            assert talks.control.take_lease("judge/" + "/".join(KEY), "other", ttl_s=10)
        else:
            talks.control.db().execute("UPDATE leases SET until_ms=until_ms-60000 WHERE holder='judge-1'")
        return real(*arguments, **named)

    monkeypatch.setattr(module, "observe", slow)
    assert talks.judge().step() == 0
    assert (len(heard), talks.control.state(*KEY, "judge"), talks.judge().cases) == (3, before, {})
    monkeypatch.setattr(module, "observe", real)
    talks.control.db().execute("UPDATE leases SET until_ms=0")
    assert talks.step() == 6, "none is lost, none heard twice"


def test_sessions_of_a_clock_set_back_are_judged_once(talks: Talks) -> None:
    on_trial(talks)
    for step in (0, -3_600_000, 7_200_000, -1):
        talks.clock.advance(step)
        talks.say(f"at {step}")
        talks.settle()
        talks.step()
    talks.clock.advance(100_000_000)
    talks.step()
    trial = talks.dossier().docket.trial
    assert trial is not None
    assert trial.evidence.count == 4


def test_silence_speaks_for_neither_and_every_session_counts(talks: Talks) -> None:
    name = on_trial(talks)
    talks.sessions(12, {BASELINE: 1.0, name: 1.0}, start=0, spoken=0.0)
    talks.step()
    trial = talks.dossier().docket.trial
    assert trial is not None
    assert (trial.evidence.count, trial.evidence.sum_low, trial.evidence.peak_up) == (12, 0.0, pytest.approx(0.0))
    assert talks.dossier().ratings == ()


def test_a_conversation_goes_on_trial_once_however_often_it_is_taken_up(talks: Talks) -> None:
    name = on_trial(talks)
    for _ in range(3):
        talks.tell(talks.say("the same"), OutcomeKind.THUMB, value=1)
        talks.settle()
        talks.clock.advance(2 * WINDOW_MS)
        talks.step()
    trial = talks.dossier().docket.trial
    assert trial is not None
    assert (trial.evidence.count, talks.dossier().ratings) == (1, (1.0,))
    talks.control.move(*KEY, change={"challenger": None})
    talks.step()
    stand(talks.control, *KEY, [name], VersionStatus.WAITING)
    talks.step()
    talks.say("the same")
    talks.say("new")
    talks.settle()
    talks.clock.advance(2 * WINDOW_MS)
    talks.step()
    trial = talks.dossier().docket.trial
    assert trial is not None
    assert trial.evidence.count == 1, "its coin was known when the same pair began anew"


def test_people_who_accept_everything_promote_nothing_and_it_is_said(talks: Talks) -> None:
    """P9: thumbs up for whatever is said."""
    name = on_trial(talks)
    talks.sessions(150, {BASELINE: 1.0, name: 1.0}, start=0, users=30)
    talks.step()
    assert talks.control.pointers(*KEY).champion == BASELINE
    report = talks.control.state(*KEY, "report")
    assert report is not None
    assert report["feedback"]["state"] == "uninformative"
    assert "Feedback does not vary" in report["gate"]["trial"]["reason"]
    trial = talks.dossier().docket.trial
    assert trial is not None
    assert trial.evidence.peak_up < 1.0, "they carry nothing"


def test_a_few_heavy_accounts_do_not_promote(talks: Talks) -> None:
    """P3: two accounts hold half of the traffic, know which version answers, and want the new one."""
    name = on_trial(talks)
    for n in range(160):
        puppet = n % 2 == 0
        decision = talks.say(f"s{n}", user=f"puppet{n % 4}" if puppet else f"u{n}")
        up = decision.version == name if puppet else n % 4 == 1
        talks.tell(decision, OutcomeKind.THUMB, value=1 if up else -1)
        talks.clock.advance(1_000)
    talks.settle()
    talks.clock.advance(WINDOW_MS)
    talks.step()
    assert talks.control.pointers(*KEY).champion == BASELINE
    assert talks.dossier().docket.trial is not None
    trial = talks.dossier().docket.trial
    assert trial is not None
    assert trial.evidence.weight < 110, "of 160 sessions the 80 of two accounts weigh 5 each, and a tenth at most"


def test_a_frozen_trial_gathers_evidence_and_is_decided_after_the_thaw(talks: Talks) -> None:
    name = on_trial(talks)
    talks.sessions(100, {BASELINE: 0.1, name: 1.0}, start=0)
    talks.control.move(*KEY, change={"frozen": "champion"})
    assert talks.step() == 100
    assert talks.control.pointers(*KEY).champion == BASELINE
    talks.control.move(*KEY, change={"frozen": ""})
    talks.step()
    assert talks.control.pointers(*KEY).champion == name


def test_a_trial_without_end_makes_room_after_a_week_and_its_level_goes_on(
    talks: Talks, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = on_trial(talks)
    talks.sessions(20, {BASELINE: 0.5, first: 0.5}, start=0)
    second = talks.add(2, record())
    talks.step()
    assert talks.control.pointers(*KEY).challenger == first, "a newer one waits"
    talks.clock.advance(PATIENCE_MS)
    monkeypatch.setattr(module, "CHECK_S", 60.0)
    talks.judge().cases.clear()
    talks.judge().step()
    assert talks.control.pointers(*KEY).challenger is None
    talks.judge().step()
    assert talks.control.pointers(*KEY).challenger == second, "at the next look, not in a minute"
    assert talks.status(first) is VersionStatus.HELD
    assert f"{second} waits for its turn" in verdict(talks).reason
    budget = talks.dossier().docket.budget
    assert (budget.decided, budget.left <= 1.0) == (0, True)


def test_questions_are_read_once_however_often_it_is_a_versions_turn(talks: Talks) -> None:
    name = talks.add(1, record(won=5))
    talks.step()
    talks.control.move(*KEY, change={"challenger": None})
    stand(talks.control, *KEY, [name], VersionStatus.WAITING)
    talks.step()
    assert talks.control.pointers(*KEY).challenger == name
    trial = talks.dossier().docket.trial
    assert trial is not None
    assert trial.evidence.log_e_up == pytest.approx(0.0, abs=1e-9)


def test_weights_that_were_held_may_be_tried_anew_at_the_level_that_is_theirs_then(talks: Talks) -> None:
    """The same content under another name, against another champion: another trial, with the next level of e-LOND."""
    held = talks.add(1, record(), content=b"the same")
    talks.step()
    stand(talks.control, *KEY, [held], VersionStatus.HELD)
    talks.control.move(*KEY, change={"challenger": None})
    champion = promoted(talks, 2)
    spent = talks.dossier().docket.budget.decided
    again = talks.add(3, record(won=12, against=champion), content=b"the same")
    talks.step()
    assert talks.control.pointers(*KEY).champion == again
    assert talks.dossier().docket.budget.decided == spent + 1


# ---- after a promotion -----------------------------------------------------------------------------------------------


def test_a_champion_that_turns_out_worse_is_rolled_back_and_stays_out(talks: Talks) -> None:
    bad = promoted(talks)
    talks.coin = replace(talks.coin, watch_share=1 / 3)
    talks.sessions(400, {BASELINE: 0.9, bad: 0.1}, start=0, users=200)
    talks.step()
    pointers = talks.control.pointers(*KEY)
    assert pointers.champion == BASELINE
    assert talks.status(bad) is VersionStatus.ROLLED_BACK
    said = talks.control.verdicts(*KEY)[-1]
    assert said.kind is VerdictKind.ROLLBACK
    assert "Proven worse than the version it replaced" in said.reason
    again = talks.add(2, record(won=40), content=b"1 of chat")
    talks.step()
    assert talks.control.pointers(*KEY).champion == BASELINE
    assert talks.status(again) is VersionStatus.WAITING, "the same content under another name"


def test_a_rollback_goes_through_a_freeze_and_a_trial(talks: Talks) -> None:
    """Evidence was complete when somebody froze the policy; the challenger of the day waits again."""
    bad = promoted(talks)
    talks.coin = replace(talks.coin, watch_share=1 / 3)
    newer = talks.add(2, record(against=bad))
    talks.step()
    assert talks.control.pointers(*KEY).challenger == newer
    talks.sessions(500, {BASELINE: 0.95, bad: 0.05, newer: 0.05}, start=0, users=250)
    talks.control.move(*KEY, change={"frozen": "champion"})
    talks.step()
    pointers = talks.control.pointers(*KEY)
    assert (pointers.champion, pointers.challenger) == (BASELINE, None)
    assert talks.status(newer) is VersionStatus.WAITING


def test_a_rollback_is_written_where_nothing_else_may_be(talks: Talks, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk: what the ballast gave back is a rollback's."""
    bad = promoted(talks)
    talks.coin = replace(talks.coin, watch_share=1 / 3)
    talks.sessions(20, {BASELINE: 0.5, bad: 0.5}, start=0)
    monkeypatch.setattr(Seat, "has_room", lambda _: False)
    before = talks.control.state(*KEY, "judge")
    talks.step()
    assert talks.control.state(*KEY, "judge") == before
    talks.sessions(400, {BASELINE: 0.9, bad: 0.1}, start=20, users=200)
    talks.step()
    assert talks.control.pointers(*KEY).champion == BASELINE
    assert talks.status(bad) is VersionStatus.ROLLED_BACK


def test_a_champion_as_good_as_before_stays(talks: Talks) -> None:
    good = promoted(talks)
    talks.sessions(300, {BASELINE: 0.6, good: 0.6}, start=0, users=150)
    talks.step()
    assert talks.control.pointers(*KEY).champion == good
    watch = talks.dossier().docket.watch
    assert watch is not None
    assert watch.arms.count == 300


# ---- one transaction, one judge --------------------------------------------------------------------------------------


def same(talks: Talks, other: Control) -> None:
    """Two data directories end alike, times left out."""
    assert replace(other.pointers(*KEY), generation=0) == replace(talks.control.pointers(*KEY), generation=0)
    assert other.state(*KEY, "judge") == talks.control.state(*KEY, "judge")
    said, told = (([replace(one, at_ms=0) for one in c.verdicts(*KEY)]) for c in (other, talks.control))
    assert said == told
    versions = [[(v.name, v.status) for v in c.versions(*KEY)] for c in (other, talks.control)]
    assert versions[0] == versions[1]


@pytest.mark.parametrize("at", ["put_state", "add_verdict", "move", "stands"])
@pytest.mark.parametrize("what", ["exam", "trial"])
def test_a_judge_killed_at_any_moment_ends_where_an_undisturbed_one_does(
    talks: Talks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str, what: str
) -> None:
    if what == "exam":
        talks.add(1, record(won=40))
    else:
        name = on_trial(talks)
        talks.sessions(60, {BASELINE: 0.0, name: 1.0}, start=0)
    shutil.copytree(talks.root, tmp_path / "quiet")
    quiet = Control(tmp_path / "quiet")
    quiet.db().execute("UPDATE leases SET until_ms=0")
    undisturbed = replace(talks, root=tmp_path / "quiet", control=quiet, reader=Reader(tmp_path / "quiet"), judges={})
    undisturbed.step("quiet")
    undisturbed.step("quiet")
    owner = module if at == "put_state" else rulings
    real = getattr(owner, at)

    def power_goes(*arguments: Any, **named: Any) -> Any:
        real(*arguments, **named)
        raise KeyboardInterrupt

    before = (talks.control.pointers(*KEY), talks.control.state(*KEY, "judge"), talks.control.verdicts(*KEY))
    monkeypatch.setattr(owner, at, power_goes)
    talks.control.db().execute("UPDATE leases SET until_ms=0")
    with pytest.raises(KeyboardInterrupt):
        talks.judge("killed").step()
    monkeypatch.setattr(owner, at, real)
    assert (talks.control.pointers(*KEY), talks.control.state(*KEY, "judge"), talks.control.verdicts(*KEY)) == before
    talks.control.db().execute("UPDATE leases SET until_ms=0")
    talks.step("next")
    talks.step("next")
    assert talks.control.pointers(*KEY).champion != BASELINE
    same(talks, quiet)


def test_two_judges_hold_one_lease(talks: Talks) -> None:
    name = on_trial(talks)
    talks.sessions(10, {BASELINE: 0.5, name: 0.5}, start=0)
    assert talks.judge("other").step() == 0
    assert talks.judge("other").cases == {}
    assert talks.step() == 10
    talks.control.db().execute("UPDATE leases SET until_ms=0")
    talks.judge("other").step()
    case = talks.judge().cases[KEY]
    with pytest.raises(Fenced, match="newer process"):
        talks.judge()._commit(talks.control.policy(*KEY), case.dossier, case=case, seat=talks.judge().seats[KEY])


def test_on_a_full_disk_evidence_is_kept_in_memory_and_saved_when_there_is_room(
    talks: Talks, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = on_trial(talks)
    talks.sessions(5, {BASELINE: 0.5, name: 0.5}, start=0)
    before = talks.control.state(*KEY, "judge")

    def full(*_: Any, **__: Any) -> None:
        raise StorageFull("the disk is full")

    real = module.put_state
    monkeypatch.setattr(module, "put_state", full)
    assert talks.judge().step() == 5
    assert talks.control.state(*KEY, "judge") == before
    monkeypatch.setattr(module, "put_state", real)
    talks.judge().step()
    trial = talks.dossier().docket.trial
    assert trial is not None
    assert trial.evidence.count == 5


def test_a_fault_at_one_policy_stops_no_other(talks: Talks, monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(talks.control.policy(*KEY), name="broken")
    assert talks.control.create_policy(other, replace(talks.control.version(*KEY, BASELINE), policy="broken"))
    real = module.LanguageJudge._take_up

    def broken(self: Any, policy: Any, lease: Any) -> Any:
        if policy.name == "broken":
            raise MemoryError("64 GB")
        return real(self, policy, lease)

    monkeypatch.setattr(module.LanguageJudge, "_take_up", broken)
    promoted(talks)


def test_another_alpha_ends_a_trial_in_progress(talks: Talks) -> None:
    name = on_trial(talks)
    talks.sessions(10, {BASELINE: 0.5, name: 0.5}, start=0)
    talks.step()
    talks.control.update_spec(*KEY, SPEC | {"alpha": 0.01})
    talks.step()
    docket = talks.dossier().docket
    assert docket.budget.alpha == 0.01
    assert docket.budget.decided == 1
    assert docket.trial is not None
    assert docket.trial.evidence.count == 0


def test_the_minimum_effect_of_the_policy_ends_a_trial_that_cannot_reach_it(talks: Talks) -> None:
    name = on_trial(talks)
    talks.sessions(150, {BASELINE: 0.6, name: 0.5}, start=0, users=75)
    talks.step()
    assert talks.control.pointers(*KEY).challenger == name
    talks.control.update_spec(*KEY, SPEC | {"minimum_effect": 0.9})
    talks.sessions(1, {BASELINE: 0.6, name: 0.5}, start=150)
    talks.step()
    assert (verdict(talks).kind, talks.status(name)) == (VerdictKind.HOLD, VersionStatus.HELD)
    assert "minimum effect of 0.9" in verdict(talks).reason


# ---- people who were erased ------------------------------------------------------------------------------------------


def test_nothing_of_an_erased_person_is_left_with_the_judge(talks: Talks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seat_module, "FORGET_S", 0.0)
    name = on_trial(talks)
    talks.sessions(8, {BASELINE: 0.5, name: 0.5}, start=0, users=4)
    talks.step()
    trial = talks.dossier().docket.trial
    assert trial is not None
    assert len(trial.user_U) == 4
    talks.store.erase_user(KEY[0], "u1").result()
    talks.step()
    talks.step()
    trial = talks.dossier().docket.trial
    assert trial is not None
    assert (len(trial.user_U), RETURNED in trial.user_U) == (4, True)
