"""The exam's rules by numbers worked by hand, and how often chance alone promotes or refuses."""

import math
from dataclasses import replace

import numpy as np
import pytest

from dayjob.endings import Invalid, VerdictKind
from dayjob.gate.elond import Elond
from dayjob.gate.exact import by_luck, commoner_by_luck
from dayjob.gate.exam import (
    LEVEL,
    Count,
    Exam,
    Phrase,
    Suite,
    evidence,
    harms,
    rule_personal,
    rule_tenant,
)  # fmt: skip
from dayjob.records import Json

BASELINE = "v0-baseline"
FIRST = Elond(alpha=0.05).level


def question(family: str, before: bool, after: bool) -> Json:
    return {
        "family": family, "asked": "when is tea?", "wanted": "at four", "before": "", "after": "",
        "right_before": before, "right_after": after,
    }  # fmt: skip


def record(won: int = 0, lost: int = 0, equal: int = 0, **changes: object) -> Json:
    """An exam without harm; of its families, each asked once, so many were won, lost and left as they were."""
    questions = [question(f"won-{n}", False, True) for n in range(won)]
    questions += [question(f"lost-{n}", True, False) for n in range(lost)]
    questions += [question(f"equal-{n}", True, True) for n in range(equal)]
    body: Json = {
        "against": BASELINE, "personal": False, "questions": questions,
        "taught": {"asked": 20, "right_before": 0, "right_after": 19},
        "suites": [{"name": "skills", "asked": 200, "right_before": 198, "right_after": 198, "lost": 0, "won": 0}],
        "traffic": {"prompts": 50, "tokens": 900, "kl": 0.004, "kl_budget": 0.05},
        "rates": [{"name": name, "asked": 200, "before": 2, "after": 3} for name in ("refusing", "empty")],
        "phrases": [{"phrase": "p1", "before": 9.0, "after": 8.7}],
    }  # fmt: skip
    return body | changes


def exam(**changes: object) -> Exam:
    return Exam.from_json(record(**changes))  # type: ignore[arg-type]


# ---- harm ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terser", "wordier", "found"),
    [
        (0, 0, ""),
        (4, 0, ""),  # four of forty are a tenth, and no more
        (5, 0, ""),  # by luck in 1 of 32 cases: more than .025
        (6, 0, "much terser where nothing was taught: 6 of 40 have less than half the length, 0 the other way"),
        (0, 6, "much wordier where nothing was taught: 6 of 40 have more than twice the length"),
        (16, 12, ""),  # 4 more, and luck
    ],
)
def test_much_terser_and_much_wordier_answers_are_harm(terser, wordier, found):
    reasons = harms(exam(lengths={"asked": 40, "terser": terser, "wordier": wordier}))
    assert len(reasons) == bool(found)
    assert all(found in one for one in reasons)


def test_of_few_answers_no_length_is_harm_and_it_is_said_what_to_do_next():
    assert harms(exam(lengths={"asked": 19, "terser": 19, "wordier": 0})) == ()
    (reason,) = harms(exam(lengths={"asked": 20, "terser": 20, "wordier": 0}))
    assert "promote it by hand; else unlearn the lesson that did it" in reason


def test_a_suite_of_which_nothing_was_right_before_is_said_to_say_nothing():
    blind = {"name": "basics", "asked": 40, "right_before": 0, "right_after": 0, "lost": 0, "won": 0}
    ruled = rule_personal(exam(suites=[blind]), champion=BASELINE)
    assert ruled.kind is VerdictKind.PROMOTE
    assert "No suite tells what it forgot" in ruled.reason
    assert "'basics' says nothing about this model, which had 0 of its 40 questions right before" in ruled.reason
    assert exam(suites=[blind]).to_report()["suites"][0]["says_nothing"] is True
    # Four lost of four are luck in 1 of 16 cases, five in 1 of 32: from there on a loss can be shown.
    for right, says_nothing in ((4, True), (5, False)):
        told = exam(suites=[blind | {"right_before": right}]).to_report()["suites"][0]["says_nothing"]
        assert told is says_nothing
    with pytest.raises(Invalid, match="parts of 40"):
        exam(suites=[blind | {"right_before": 41}])


def test_a_persons_own_words_that_come_out_wrong_weigh_against_their_version():
    """Three of five right, by what a teacher makes of other wordings; the demonstration, asked as taught, is not."""
    one = {"asked": 1, "right_before": 0, "right_after": 0}
    taught = {"asked": 5, "right_before": 0, "right_after": 3}
    assert rule_personal(exam(taught=taught), champion=BASELINE).kind is VerdictKind.PROMOTE
    ruled = rule_personal(exam(taught=taught | {"as_taught": one}), champion=BASELINE)
    assert ruled.kind is VerdictKind.HOLD
    assert "of 1 asked as they were taught 0 are right without notes" in ruled.reason
    half = {"asked": 2, "right_before": 0, "right_after": 1}
    ruled = rule_personal(exam(taught=taught | {"as_taught": half, "as_read": half}), champion=BASELINE)
    assert ruled.kind is VerdictKind.PROMOTE, "what is not learned stays as a note"
    assert "3 of 5 askings are right without notes, 1 of them as the model with the note reads it" in ruled.reason


def test_lengths_that_cannot_be_are_refused():
    with pytest.raises(Invalid, match="parts of 3"):
        exam(lengths={"asked": 3, "terser": 2, "wordier": 2})


def test_an_owner_who_takes_back_gets_what_is_left_even_where_little_of_it_holds():
    weak = {"asked": 4, "right_before": 3, "right_after": 0}
    assert rule_personal(exam(taught=weak), champion=BASELINE).kind is not VerdictKind.PROMOTE
    ruled = rule_personal(exam(taught=weak | {"right_before": 0}, unlearned=1), champion=BASELINE)
    assert (ruled.kind, "taken back" in ruled.reason) == (VerdictKind.PROMOTE, True)


def test_an_exam_without_harm_has_none():
    assert harms(exam()) == ()


@pytest.mark.parametrize(
    ("asked", "lost", "won", "harm"),
    [
        (5, 1, 0, False),  # one unlucky question: .5 by luck
        (200, 10, 0, True),  # 2^-10
        (200, 10, 10, False),  # as many won
        (200, 2, 0, False),  # a point, not more
        (1_000, 9, 0, False),  # beyond luck (2^-9), and less than a point
        (1_000, 11, 0, True),
        (200, 4, 0, False),  # two points, by luck in 2^-4
        (200, 5, 0, True),  # 2^-5 = .031
    ],
)
def test_a_suite_forgets_when_more_than_a_point_is_lost_and_luck_does_not_explain_it(asked, lost, won, harm):
    suite = Suite(name="skills", asked=asked, lost=lost, won=won)
    found = harms(replace(exam(), suites=(suite,)))
    assert bool(found) is harm
    if harm:
        assert "'skills'" in found[0]
        assert f"lost {lost}" in found[0]


def test_several_suites_share_the_level():
    """5 of 200 lost is .031 by luck: enough where it is the only suite, not where there are two."""
    bad = Suite(name="bad", asked=200, lost=5, won=0)
    good = Suite(name="good", asked=200, lost=0, won=0)
    assert harms(replace(exam(), suites=(bad,)))
    assert not harms(replace(exam(), suites=(bad, good)))


def test_the_exact_tests_by_hand():
    assert by_luck(10, 0) == 2**-10
    assert by_luck(2, 1) == (3 + 1) / 8
    assert by_luck(0, 0) == 1.0
    # Three of three and none of three: one of the C(6, 3) = 20 ways.
    assert commoner_by_luck(0, 3, asked=3) == pytest.approx(1 / 20)
    # Two or three of four on this side, three in all: (C(4,2) C(4,1) + C(4,3)) / C(8,3).
    assert commoner_by_luck(1, 2, asked=4) == pytest.approx((6 * 4 + 4) / 56)
    assert commoner_by_luck(0, 0, asked=100) == 1.0
    assert commoner_by_luck(0, 0, asked=0) == 1.0


def test_the_budget_of_kl_is_a_bound_and_not_a_number_is_over_it():
    over = 0.05 / (1 - 1.64 / math.sqrt(50))  # what 50 prompts may show by luck
    assert not harms(replace(exam(), kl=0.999 * over))
    assert "budget of 0.05" in harms(replace(exam(), kl=1.001 * over))[0]
    assert harms(replace(exam(), kl=math.nan))
    assert not harms(replace(exam(), kl=math.nan, prompts=0)), "nothing was asked, nothing is known"


def test_the_kl_of_few_prompts_is_said_and_judged_from_eight_on():
    """Eight prompts allow 1 / (1 - 1.64 / sqrt 8) = 2.38 budgets; fewer can tell nothing."""
    assert not harms(replace(exam(), kl=2.37 * 0.05, prompts=8))
    assert harms(replace(exam(), kl=2.39 * 0.05, prompts=8))
    for prompts in (8, 16, 400):
        assert harms(replace(exam(), kl=3.001 * 0.05, prompts=prompts)), "three budgets are too much, however few"
    few = replace(exam(), kl=9.0, prompts=7)
    assert not harms(few), "one that the lesson was about is no drift"
    assert harms(replace(few, kl=math.inf))
    assert harms(replace(few, kl=math.nan, prompts=1))
    told = rule_personal(few, champion=BASELINE)
    assert told.kind is VerdictKind.PROMOTE
    assert "9 nats a token from the base model (budget 0.05)" in told.reason
    assert "Next to nothing was asked of what must stay: 7 prompts" in told.reason
    assert "Next to nothing" not in rule_personal(exam(), champion=BASELINE).reason
    assert "none to ask. Next to nothing" in rule_personal(replace(few, prompts=0), champion=BASELINE).reason


@pytest.mark.parametrize("prompts", [0, 1, 7])
def test_an_exam_of_few_prompts_promotes_no_version_of_everybodys(prompts):
    """Won or not, it is no evidence for it; harm and proven worse stay what they are."""
    told = {"champion": BASELINE, "read": False, "level": FIRST, "alpha": 0.05}
    ruling = rule_tenant(replace(exam(won=40), prompts=prompts), **told)
    assert (ruling.kind, ruling.found.count) == (VerdictKind.CANNOT_TELL, 0)
    assert f"{prompts} prompts of recent traffic" in ruling.reason
    assert rule_tenant(replace(exam(won=40), prompts=8), **told).kind is VerdictKind.PROMOTE
    assert rule_tenant(replace(exam(lost=12), prompts=prompts), **told).kind is VerdictKind.REJECT


@pytest.mark.parametrize("name", ["refusing", "asking_back", "empty", "invalid_tool_call", "long"])
def test_a_policy_that_games_its_reward_is_refused(name):
    """P7: more refusing, more asking back, more empty answers, more of anything that is counted."""
    others = tuple(Count(name=one, asked=200, before=1, after=1) for one in ("a", "b", "c", "d"))
    # Five rates share .05: 8 of 200 more than none is .0036 by luck, and passes .01; 6 is .015, and does not.
    found = harms(replace(exam(), rates=(*others, Count(name=name, asked=200, before=0, after=8))))
    assert len(found) == 1
    assert "8 of 200, before 0" in found[0]
    assert not harms(replace(exam(), rates=(*others, Count(name=name, asked=200, before=0, after=6))))
    assert not harms(replace(exam(), rates=(*others, Count(name=name, asked=200, before=100, after=20)))), (
        "rarer is fine"
    )


def test_a_phrase_that_became_likelier_is_refused():
    """P6: poisoned feedback steers towards a phrase."""
    assert not harms(replace(exam(), phrases=(Phrase(name="p1", before=9.0, after=8.0),)))
    found = harms(replace(exam(), phrases=(Phrase(name="p1", before=9.0, after=7.9),)))
    assert "'p1' became likelier by 1.10 nats" in found[0]
    assert not harms(replace(exam(), phrases=(Phrase(name="p1", before=2.0, after=9.0),)))


def test_what_was_taught_and_is_answered_worse_is_refused_beyond_luck():
    assert not harms(replace(exam(), taught=Count(name="taught", asked=10, before=4, after=3)))
    found = harms(replace(exam(), taught=Count(name="taught", asked=10, before=8, after=3)))
    assert "3 of 10 right, before 8" in found[0]


def test_every_harm_is_said():
    bad = replace(
        exam(), kl=1.0, suites=(Suite(name="s", asked=100, lost=9, won=0),),
        phrases=(Phrase(name="p", before=9.0, after=1.0),), rates=(Count(name="empty", asked=100, before=0, after=50),),
        taught=Count(name="taught", asked=20, before=20, after=0),
    )  # fmt: skip
    assert len(harms(bad)) == 5


def test_harmless_versions_are_refused_no_more_often_than_said():
    """Suites, rates and taught askings that only chance moves: each kind refuses at most LEVEL."""
    dice, refused = np.random.default_rng(1), np.zeros(3)
    runs = 600
    for _ in range(runs):
        moved_S = dice.binomial(100, 0.2, size=3)
        suites = tuple(
            Suite(name=str(n), asked=100, lost=int(lost), won=int(moved - lost))
            for n, (moved, lost) in enumerate(zip(moved_S, dice.binomial(moved_S, 0.5), strict=True))
        )
        rates = tuple(
            Count(name=str(n), asked=100, before=int(dice.binomial(100, 0.1)), after=int(dice.binomial(100, 0.1)))
            for n in range(5)
        )
        taught = Count(name="taught", asked=30, before=int(dice.binomial(30, 0.5)), after=int(dice.binomial(30, 0.5)))
        sound = exam()
        for at, one in enumerate(
            (replace(sound, suites=suites), replace(sound, rates=rates), replace(sound, taught=taught))
        ):
            refused[at] += bool(harms(one))
    assert (refused / runs <= LEVEL).all(), refused / runs


# ---- evidence --------------------------------------------------------------------------------------------------------


def test_a_family_is_one_observation_however_often_it_was_asked():
    many = record()
    many["questions"] = [question("tea", False, True)] * 40 + [
        question("lunch", True, False),
        question("lunch", True, True),
    ]
    found = Exam.from_json(many)
    assert sorted(found.gain_F) == [-0.5, 1.0]
    assert found.asked == 42
    assert evidence(found).count == 2


def test_the_order_of_families_is_that_of_a_hash_and_changes_nothing():
    body = record(won=5, lost=2)
    turned = body | {"questions": body["questions"][::-1]}
    assert Exam.from_json(body) == Exam.from_json(turned)
    shuffled = replace(exam(won=5, lost=2), gain_F=(1.0, 1.0, 1.0, 1.0, 1.0, -1.0, -1.0))
    assert evidence(shuffled).log_e_up == pytest.approx(evidence(exam(won=5, lost=2)).log_e_up)


def test_an_exam_alone_promotes_from_ten_families_won_on():
    """The first level is .0219, so 45.7 is needed; ten wins make 52.9, nine 29.6 (the mixture over bets)."""
    told = {"champion": BASELINE, "read": False, "level": FIRST, "alpha": 0.05}
    assert rule_tenant(exam(won=12), **told).kind is VerdictKind.PROMOTE
    assert rule_tenant(exam(won=10), **told).kind is VerdictKind.PROMOTE
    assert rule_tenant(exam(won=9), **told).kind is VerdictKind.CANNOT_TELL
    assert rule_tenant(exam(won=9, lost=1, equal=40), **told).kind is VerdictKind.CANNOT_TELL
    assert rule_tenant(exam(), **told).kind is VerdictKind.CANNOT_TELL
    assert rule_tenant(exam(lost=12), **told).kind is VerdictKind.REJECT
    assert rule_tenant(exam(won=12), **told | {"read": True}).kind is VerdictKind.CANNOT_TELL
    assert rule_tenant(exam(won=12), **told | {"champion": "v9"}).kind is VerdictKind.CANNOT_TELL
    assert rule_tenant(exam(won=12), **told | {"level": 1e-3}).kind is VerdictKind.CANNOT_TELL


def test_harm_rejects_whatever_was_won():
    bad = exam(won=40, suites=[{"name": "s", "asked": 100, "lost": 20, "won": 0}])
    assert rule_tenant(bad, champion=BASELINE, read=False, level=FIRST, alpha=0.05).kind is VerdictKind.REJECT
    assert rule_personal(bad, champion=BASELINE).kind is VerdictKind.REJECT


def test_a_chance_exam_promotes_no_more_often_than_its_level():
    """Equal versions that answer differently: won and lost alike, twelve to sixty families."""
    dice, promoted, runs = np.random.default_rng(2), 0, 3_000
    sound = exam()
    for _ in range(runs):
        gains = tuple(float(one) for one in dice.choice((-1.0, 0.0, 0.5, -0.5, 1.0), size=dice.integers(12, 60)))
        ruling = rule_tenant(replace(sound, gain_F=gains), champion=BASELINE, read=False, level=0.05, alpha=0.05)
        promoted += ruling.kind is VerdictKind.PROMOTE
    assert promoted / runs <= 0.05


# ---- a person's own --------------------------------------------------------------------------------------------------


def test_a_personal_version_is_promoted_when_it_holds_what_was_taught():
    ruling = rule_personal(exam(), champion=BASELINE)
    assert ruling.kind is VerdictKind.PROMOTE
    assert "19 of 20 askings are right without notes, before 0" in ruling.reason
    assert "nothing to prove" in ruling.reason


def test_a_personal_version_that_verdicts_taught_is_promoted_without_a_question():
    taught = {"asked": 0, "right_before": 0, "right_after": 0}
    ruling = rule_personal(exam(taught=taught), champion=BASELINE)
    assert ruling.kind is VerdictKind.PROMOTE
    assert "Its owner's verdicts taught it, and nothing was asked of it." in ruling.reason
    assert rule_personal(exam(taught=taught), champion="v3").kind is VerdictKind.HOLD
    bad = exam(taught=taught, suites=[{"name": "s", "asked": 100, "lost": 20, "won": 0}])
    assert rule_personal(bad, champion=BASELINE).kind is VerdictKind.REJECT


@pytest.mark.parametrize(("before", "after"), [(0, 0), (4, 3), (20, 0)])
def test_a_personal_version_that_knows_less_or_nothing_waits(before, after):
    taught = {"asked": 20, "right_before": before, "right_after": after}
    ruling = rule_personal(exam(taught=taught), champion=BASELINE)
    assert ruling.kind is (VerdictKind.REJECT if before == 20 else VerdictKind.HOLD)


def test_a_personal_version_that_was_compared_with_another_champion_waits():
    assert rule_personal(exam(), champion="v3").kind is VerdictKind.HOLD


# ---- bad records -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        {"questions": [{"family": "a"}]}, {"questions": [question("a", False, 2)]}, {"taught": {}}, {"taught": None},  # type: ignore[arg-type]
        {"suites": [{"name": "s", "asked": 3, "lost": 2, "won": 2}]}, {"traffic": {"prompts": 3}},
        {"rates": [{"name": "empty", "asked": 3, "before": 4, "after": 0}]}, {"phrases": ["p"]},
    ],
)  # fmt: skip
def test_what_is_no_exam_is_refused_with_the_remedy(damage):
    with pytest.raises(Invalid, match="let the learner make the version again"):
        Exam.from_json(record() | damage)
    body = record()
    del body["suites"]
    with pytest.raises(Invalid):
        Exam.from_json(body)


def test_the_report_of_an_exam():
    told = exam(won=3, lost=1).to_report()
    assert (told["families"], told["asked"], told["gain"]) == (4, 4, 0.5)
    assert told["suites"] == [{"name": "skills", "asked": 200, "lost": 0, "won": 0, "says_nothing": False}]
    assert (told["kl"], told["kl_budget"], told["prompts"]) == (0.004, 0.05, 50)
    assert exam(traffic={"prompts": 0, "kl": 0.0, "kl_budget": 0.05}).forgetting()["kl"] is None
