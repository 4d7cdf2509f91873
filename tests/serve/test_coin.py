"""The coin of a session: fair, steady, nobody's to choose, and journaled with every chance."""

from dataclasses import replace

import pytest

from dayjob.endings import Role
from dayjob.records import Pointers
from dayjob.serve.coin import MOST_WATCHED, Coin

POINTERS = Pointers(
    tenant="t", policy="chat", champion="v1", previous="v0-baseline", challenger="v2", baseline="v0-baseline",
    frozen="", generation=1,
)  # fmt: skip
COIN = Coin(secret=b"secret", watch_share=0.1)
MANY = [f"s{n}" for n in range(4_000)]


def test_every_version_answers_as_often_as_is_journaled():
    tosses = [COIN.toss(POINTERS, session=session) for session in MANY]
    assert tosses[0].told["chances"] == pytest.approx({"champion": 0.45, "challenger": 0.45, "replaced": 0.1})
    shares = {name: sum(one.version == name for one in tosses) / len(tosses) for name in ("v1", "v2", "v0-baseline")}
    assert shares == pytest.approx({"v1": 0.45, "v2": 0.45, "v0-baseline": 0.1}, abs=0.03)  # four standard errors


def test_what_a_decision_says_of_its_coin():
    for session in MANY[:200]:
        toss = COIN.toss(POINTERS, session=session)
        expected = {
            "v2": ("v2", 1, 0.5), "v1": ("v2", -1, 0.5), "v0-baseline": ("v0-baseline", 1, 0.1),
        }[toss.version]  # fmt: skip
        assert (toss.challenger, toss.coin, toss.role_propensity) == expected
        assert toss.role is Role.TRIAL
        assert (toss.told["champion"], toss.told["challenger"], toss.told["replaced"]) == ("v1", "v2", "v0-baseline")


def test_a_session_keeps_its_version_while_the_pair_is_the_same():
    for session in MANY[:50]:
        first = COIN.toss(POINTERS, session=session)
        assert COIN.toss(replace(POINTERS, generation=9), session=session) == first


@pytest.mark.parametrize(
    "change", [{"champion": "v7"}, {"challenger": "v3"}, {"tenant": "u"}, {"policy": "other"}], ids=str
)
def test_another_pair_is_another_coin(change):
    sides = [
        (COIN.toss(POINTERS, session=one).coin, COIN.toss(replace(POINTERS, **change), session=one).coin)
        for one in MANY[:400]
    ]
    agree = sum(a == b for a, b in sides) / len(sides)
    assert 0.35 < agree < 0.7, "neither the same coin nor its opposite"


def test_nobody_knows_the_coin_without_the_secret():
    other = Coin(secret=b"another", watch_share=0.1)
    agree = sum(COIN.toss(POINTERS, session=s).coin == other.toss(POINTERS, session=s).coin for s in MANY) / len(MANY)
    assert 0.4 < agree < 0.65


def test_without_a_challenger_a_share_of_the_sessions_is_answered_by_what_was_replaced():
    quiet = replace(POINTERS, challenger=None)
    tosses = [COIN.toss(quiet, session=session) for session in MANY]
    held = [one for one in tosses if one.version == "v0-baseline"]
    assert len(held) / len(tosses) == pytest.approx(0.1, abs=0.02)
    assert {one.role for one in tosses if one.version == "v1"} == {Role.CHAMPION}
    assert tosses[0].told["chances"] == pytest.approx({"champion": 0.9, "challenger": 0.0, "replaced": 0.1})


def test_the_baseline_alone_throws_no_coin():
    alone = replace(POINTERS, champion="v0-baseline", challenger=None, previous=None)
    toss = COIN.toss(alone, session="s")
    assert (toss.version, toss.role, toss.coin, toss.challenger, toss.role_propensity) == (
        "v0-baseline", Role.CHAMPION, 0, None, 1.0,
    )  # fmt: skip


def test_the_champion_is_never_rarer_than_what_it_replaced():
    greedy = Coin(secret=b"s", watch_share=0.9)
    chances = greedy.toss(POINTERS, session="s").told["chances"]
    assert chances["champion"] >= chances["replaced"] - 1e-12 == pytest.approx(MOST_WATCHED)
