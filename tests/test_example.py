"""The example is the whole loop: it must really learn, judge and promote, and only for good reason."""

import one_loop
import pytest

from dayjob.endings import VerdictKind


def test_the_loop_finds_the_best_item_and_promotes_it():
    found = one_loop.run()
    assert found["verdict"] is VerdictKind.PROMOTE
    assert found["first"] == "door", "visitors who look want the door most"
    assert found["after"] > 2_000, "nothing is on trial before it was learned"


def test_visitors_who_never_look_get_nothing_promoted(monkeypatch):
    monkeypatch.setattr(one_loop, "PULLED", 1.0)
    found = one_loop.run(visitors=4_000)
    assert found["verdict"] is not VerdictKind.PROMOTE
    assert found["first"] == "apple", "the shop's own order goes on serving"


@pytest.mark.parametrize("seed", [1, 2])
def test_any_seed_will_do(seed):
    assert one_loop.run(seed=seed)["first"] == "door"
