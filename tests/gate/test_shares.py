"""How traffic is shared: the watch looks harder when it matters, people pay at most what was set, and every decision
journals the chances that its part was drawn with."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from dayjob.cli import serve as cli_serve
from dayjob.cli.serve import assemble
from dayjob.config import Config
from dayjob.endings import Role
from dayjob.fakes import FakeRanker, load_fake
from dayjob.gate.docket import Docket, shares_of
from dayjob.gate.shares import FRESH, LEAST_TOLL, Shares, Toll, Traffic, share_out, shares_state
from dayjob.gate.watch import Onset, WatchState
from dayjob.journal.control import Control, put_state
from dayjob.journal.readers import Reader
from dayjob.policies.plackett_luce import GREEDY
from dayjob.policies.protocol import F64, Lists
from dayjob.records import Candidate, Joined, Pointers, Stored
from dayjob.serve.app import create_app
from dayjob.serve.decide import Asker, Question, decide
from dayjob.serve.decide import Shares as SetShares
from dayjob.serve.live import Serving
from tests.gate.trials import BASELINE, SPEC
from tests.promises.rig import POLICY, add_version, rank_body
from tests.promises.rig import SPEC as RANKER

V1, V2 = "v1-00000001", "v2-00000002"
SET = Traffic(holdback=0.04, watch=0.1, watch_most=0.5, trial=0.9, user_cost=0.01)


def toll(*, holdback: float, watch: float, trial: float) -> Toll:
    """Excess as shares of the champion's own expected loss."""
    return Toll(count=LEAST_TOLL, own=10.0, holdback=10 * holdback, watch=10 * watch, trial=10 * trial)


def cost(shares: Shares, at: Toll) -> float:
    pairs = (1 - shares.holdback - shares.watch) * shares.trial
    return (shares.holdback * at.holdback + shares.watch * at.watch + pairs * at.trial) / at.own


def test_without_a_toll_the_shares_are_as_they_were_set() -> None:
    quiet = share_out(SET, Toll(), fresh=False, harm=False, tried=True)
    assert quiet == Shares(holdback=0.04, watch=0.1, trial=0.9)
    for fresh, harm in ((True, False), (False, True)):
        assert share_out(SET, Toll(), fresh=fresh, harm=harm, tried=True) == replace(quiet, watch=0.5)
    few = replace(toll(holdback=0.5, watch=0.5, trial=0.5), count=LEAST_TOLL - 1)
    assert share_out(SET, few, fresh=False, harm=False, tried=True) == quiet


def test_shares_worked_by_hand() -> None:
    """Guard: .04 * .1 + .1 * .06 = .01, twice its half of .01: scaled by 1/2. What is left, .005, is for the trial,
    whose pairs would cost (1 - .02 - .05) * .9 * .02 = .01674: 2^-1.74, so the step below, 2^-1.75."""
    found = share_out(SET, toll(holdback=0.1, watch=0.06, trial=0.02), fresh=False, harm=False, tried=True)
    assert (found.holdback, found.watch) == (pytest.approx(0.02), pytest.approx(0.05))
    assert found.trial == pytest.approx(0.9 * 2**-1.75)


@pytest.mark.parametrize("tried", [True, False])
def test_the_expected_cost_stays_within_the_budget(tried: bool) -> None:
    dice = np.random.default_rng(0)
    spent = []
    for _ in range(300):
        held, watch, trial = dice.choice([0.0, 0.001, 0.01, 0.05, 0.2, 0.9], 3)
        at = toll(holdback=held, watch=watch, trial=trial)
        found = share_out(SET, at, fresh=False, harm=False, tried=tried)
        spent.append(cost(found, at))
        assert found.holdback <= SET.holdback
        assert found.trial <= SET.trial
    assert max(spent) <= SET.user_cost + 1e-12
    assert np.mean(spent) > 0.5 * SET.user_cost * np.mean(np.array(spent) > 0), "and is used"


@pytest.mark.parametrize(("fresh", "harm"), [(True, False), (False, True)])
def test_doubt_about_the_champion_comes_before_the_budget(fresh: bool, harm: bool) -> None:
    found = share_out(SET, toll(holdback=0.1, watch=0.2, trial=0.02), fresh=fresh, harm=harm, tried=True)
    assert found == Shares(holdback=0.04, watch=0.5, trial=0.0)


def test_what_steers_the_watch() -> None:
    pairs = Onset(count=FRESH)
    quiet = Docket(champion=V1, challenger=V2, watch=WatchState(pairs=pairs))
    assert shares_of(quiet, SET).watch == 0.1
    assert shares_of(replace(quiet, watch=WatchState(pairs=replace(pairs, count=FRESH - 1))), SET).watch == 0.5
    assert shares_of(replace(quiet, watch=WatchState(pairs=replace(pairs, rise=0.6))), SET).watch == 0.5
    assert shares_of(replace(quiet, watch=None), SET).watch == 0.1


# ---- what is served and journaled ------------------------------------------------------------------------------------


class Believer:
    """Fixed belief logits; chooses by least expected loss where losses are known, unless told not to."""

    def __init__(self, *belief: float, hedges: bool = True) -> None:
        self.belief_K, self.hedges = np.array(belief), hedges

    def utility(self, lists: Lists) -> F64:
        return np.broadcast_to(self.belief_K, lists.base_BK.shape)

    def score(self, lists: Lists) -> F64:
        if lists.loss_BKK is None or not self.hedges:
            return self.utility(lists)
        share_K = np.exp(self.belief_K) / np.exp(self.belief_K).sum()
        found: F64 = -(lists.loss_BKK @ share_K) / 100.0
        return found


# Three places on a line at 0, 10 and 12 km: the first is the most probable, the second is nearest to what may be right.
AT_K = np.array([0.0, 10.0, 12.0])
LOSS = np.abs(AT_K[:, None] - AT_K[None, :])
HEDGER = Believer(math.log(0.4), math.log(0.3), math.log(0.3))  # expects 6.6, 4.6 and 5.4 km
FAR = Believer(0.0, 0.0, 1.0)


def asked(*, loss: bool = True) -> Question:
    lists = Lists(
        context_BD=np.zeros((1, 2), np.float32), candidate_BKE=np.zeros((1, 3, 2), np.float32),
        pair_BKP=np.zeros((1, 3, 0), np.float32), base_BK=np.array([[1.0, 0.5, 0.0]]),
        loss_BKK=LOSS[None] if loss else None,
    )  # fmt: skip
    known = tuple(Candidate(id=name, digest=b"d" * 16) for name in "abc")
    return Question(context=b"", candidates=known, blobs=(), lists=lists, extra={})


def serving(**change: Any) -> Serving:
    pointers = Pointers(
        tenant="t", policy="p", champion=V1, previous=None, challenger=V2, baseline=BASELINE, frozen="", generation=1
    )
    made = Serving(
        spec=SPEC, pointers=pointers, frozen="", champion=V1, ranker=HEDGER, challenger=V2, rival=FAR,
        replaced=(BASELINE, Believer(0.0, 1.0, 0.0)), explore=GREEDY, catalog=None,
    )  # fmt: skip
    return replace(made, **change)


def answer(live: Serving, seed: int, *, loss: bool = True) -> Any:
    asker = Asker(tenant="t", id=str(seed), user=None, session=None, body_digest=b"", at_ms=0, learn=True)
    shares = SetShares(holdback=0.1, watch=0.2, trial=0.5)
    return decide(asked(loss=loss), live, asker=asker, seed=seed, explore=True, shown=None, shares=shares)


def test_every_decision_journals_both_chances_and_whose_holdback_it_was() -> None:
    """Held .1; the watch's pair .2; the trial's half of the rest, .35; so the champion alone .35, whatever is drawn."""
    made = [answer(serving(), seed) for seed in range(400)]
    assert {record.role for record in made} == {Role.BASELINE, Role.TRIAL, Role.CHAMPION}
    for record in made:
        assert record.extra["chances"] == pytest.approx([0.1, 0.35, 1.0, 1.0])
        assert record.extra.get("champion") == (V1 if record.role is Role.BASELINE else None)
    share = Counter((record.role, record.challenger) for record in made)
    assert share[Role.BASELINE, None] == pytest.approx(40, abs=20)
    assert share[Role.TRIAL, BASELINE] == pytest.approx(80, abs=28)
    assert share[Role.TRIAL, V2] == pytest.approx(140, abs=35)
    by_baseline = serving(champion=BASELINE, replaced=None)
    assert "chances" not in answer(by_baseline, 1).extra


def test_the_toll_worked_by_hand() -> None:
    """In units of 100 km: its own choice expects .046. The holdback shows a: 2 km more. The watch's pair a and b: half
    of 2. The trial's pair a and c: (2 + .8) / 2."""
    assert answer(serving(), 3).extra["toll"] == pytest.approx([0.046, 0.02, 0.01, 0.014])
    assert answer(serving(rival=HEDGER), 3).extra["toll"][3] == 0.0, "no pair where both believe the same"
    assert "toll" not in answer(serving(), 3, loss=False).extra
    assert "toll" not in answer(serving(ranker=Believer(1.0, 0.0, 0.0, hedges=False)), 3).extra
    assert "toll" not in answer(serving(champion=BASELINE, replaced=None), 3).extra


def test_where_beliefs_agree_the_champions_own_least_loss_order_is_served() -> None:
    agreeing = serving(rival=Believer(2.0, 0.0, 0.0), replaced=(BASELINE, Believer(3.0, 0.0, 0.0)))
    made = [answer(agreeing, seed) for seed in range(60)]
    alone = [record for record in made if record.role is not Role.BASELINE]
    assert {record.role for record in alone} == {Role.CHAMPION}
    assert {np.frombuffer(record.ranking, "<u2")[0] for record in alone} == {1}, "b: nearest to what may be right"
    assert all(record.extra["chances"] == pytest.approx([0.1, 0.9, 1.0, 1.0]) for record in made)


def test_the_server_follows_the_judge_for_the_champion_that_it_means() -> None:
    told = shares_state(Shares(holdback=0.02, watch=0.4, trial=0.25), V1)
    assert answer(serving(shares=told), 3).extra["chances"][:2] == pytest.approx([0.02, 0.58 * 0.75])
    for other in (told | {"champion": V2}, None):
        assert answer(serving(shares=other), 3).extra["chances"][:2] == pytest.approx([0.1, 0.35])
    greedy = told | {"holdback": 0.5, "trial": 0.9}
    assert answer(serving(shares=greedy), 3).extra["chances"][0] == pytest.approx(0.1), "never more than was set"


def test_the_toll_is_summed_for_one_champion() -> None:
    made = [answer(serving(), seed) for seed in range(3)]
    closed = [
        Joined(stored=Stored(seq=n, record=record), outcomes=(), closed_seq=-1) for n, record in enumerate(made, 1)
    ]
    other = replace(made[0], version=V2, role=Role.CHAMPION, extra={"toll": [1.0, 1.0, 1.0, 1.0]})
    closed.append(Joined(stored=Stored(seq=9, record=other), outcomes=(), closed_seq=-1))
    found = Toll().observe(closed, V1)
    assert found.count == 3
    assert found.trial / found.own == pytest.approx(0.014 / 0.046)
    halves = Toll().observe(closed[:1], V1).observe(closed[1:], V1)
    assert halves == found


def test_the_server_follows_what_the_judge_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the judge's transaction to a served decision, without a moved pointer."""
    monkeypatch.setattr(cli_serve, "load_ranker", load_fake)
    root = tmp_path / "data"
    with TestClient(create_app(assemble(Config(data=root), ())), base_url="http://127.0.0.1") as client:
        assert client.put(f"/v1/policies/{POLICY}", json=RANKER).status_code == 201
        name, control = add_version(root, FakeRanker(1)), Control(root)
        control.move("default", POLICY, change={"champion": name, "previous": BASELINE})
        told = shares_state(Shares(holdback=0.02, watch=0.0, trial=0.0), name)
        client.post(f"/v1/policies/{POLICY}/unfreeze", json={})
        chances = []
        for _ in range(2):
            made = client.post("/v1/rank", json=rank_body(len(chances)))
            assert made.status_code == 200, made.text
            found = Reader(root).decision("default", made.json()["id"])
            assert found is not None
            chances.append(found.record.extra["chances"][0])
            with control.write() as db:
                put_state(db, "default", POLICY, name="shares", state=told)
            client.post(f"/v1/policies/{POLICY}/unfreeze", json={})  # another refresh
        assert chances == [0.03, 0.02]
