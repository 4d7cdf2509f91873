"""What counts as evidence: whose word, of which place, how often, and which decisions are compared."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dayjob.endings import OutcomeKind, Role
from dayjob.fakes import fake_decision, fake_outcome
from dayjob.gate.docket import Docket, observe
from dayjob.gate.evidence import observations, once, relevance, served, slot_of, success
from dayjob.gate.trial import TrialState
from dayjob.gate.watch import WatchState, finding
from dayjob.learn.collect import _taught as taught
from dayjob.policies.baseline import CallersOrder
from dayjob.policies.plackett_luce import Explore, propensities
from dayjob.policies.protocol import F64, Lists
from dayjob.records import Candidate, Decision, Joined, Json, Pointers, Stored, StoredOutcome
from dayjob.serve.decide import Asker, Question, Shares, decide
from dayjob.serve.live import Serving
from dayjob.signals.truth import relevances
from tests.gate.trials import BASELINE, SPEC

KEY = b"secret"
V1, V2 = "v1-00000001", "v2-00000002"
CLICKS: Json = SPEC | {"metric": "click"}
K = OutcomeKind


def told(seq: int, kind: OutcomeKind, item: str | None = None, **change: Any) -> StoredOutcome:
    """An outcome about the decision under test."""
    made = replace(fake_outcome(seq, "d", kind=kind), item=item, position=None)
    return StoredOutcome(seq=seq, record=replace(made, **change))


def joined(decision: Decision, *outcomes: StoredOutcome, seq: int = 1) -> Joined:
    """A decision that its first outcome closed."""
    closed = outcomes[0].seq if outcomes else -1
    return Joined(stored=Stored(seq=seq, record=decision), outcomes=outcomes, closed_seq=closed)


def pair(coin: int, *, session: str | None = None, challenger: str = V1, champion: str = BASELINE) -> Decision:
    """A pair: the champion's first choice is "a", the rival's "b"."""
    slots = [1, 0, 2] if coin == 1 else [0, 1, 2]
    return replace(
        fake_decision(1)[0], role=Role.TRIAL, version=champion, challenger=challenger, coin=coin, session=session,
        ranking=np.array(slots, "<u2").tobytes(),
    )  # fmt: skip


# ---- one truth, read the same everywhere -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"c": 1}, [0, 0, 1]),  # who is not named is not relevant
        ({"a": 4, "b": 3}, [1, 0.75, 0]),
        ({"a": 1, "b": 3, "c": 2}, [0, 1, 0.5]),
        ({"a": -1, "b": -3}, [1, 0, 0]),  # and never better than who is
        ({"a": 2, "b": 2, "c": 2}, None),
        ({"c": 0}, None),
        ({"c": -1}, None),
        ({"a": 1.7e308, "b": -1.7e308, "c": 0}, [1, 0, 0.5]),
    ],
)
def test_truths_worked_by_hand_and_the_learner_reads_them_as_the_gate_does(
    given: dict[str, float], expected: list[float] | None
) -> None:
    decision = fake_decision(1)[0]
    outcome = told(2, K.TRUTH, value={"relevance": given})
    found_K = relevance(decision, outcome.record)
    if expected is None:
        assert found_K is None
        assert taught(decision, [outcome]) == (-1, -1)
        assert success(joined(decision, outcome), SPEC) == 0.0
    else:
        assert found_K is not None
        assert found_K.tolist() == pytest.approx(expected)
        assert taught(decision, [outcome]) == (-1, int(np.argmax(expected)))
    np.testing.assert_array_equal(found_K, relevances(given, ["a", "b", "c"]))


def test_a_truth_that_names_only_the_rivals_choice_speaks_for_the_rival() -> None:
    for given, sign in (({"b": 1}, 1.0), ({"a": 1}, -1.0), ({"c": 1}, 0.0), ({"a": 1, "b": 1, "c": 1}, 0.0)):
        (value,) = observations([joined(pair(1), told(2, K.TRUTH, value={"relevance": given}))], SPEC, key=KEY).low_N
        assert value == sign, given


# ---- an accept or reject that names nothing --------------------------------------------------------------------------


def test_an_accept_or_reject_that_names_nothing_speaks_of_the_first_place() -> None:
    for kind, coin, sign in ((K.ACCEPT, 1, 1), (K.ACCEPT, -1, -1), (K.REJECT, 1, -1), (K.REJECT, -1, 1)):
        seen = observations([joined(pair(coin), told(2, kind))], CLICKS, key=KEY)
        assert seen.low_N.tolist() == [sign], (kind, coin)
    decision = replace(fake_decision(1)[0], ranking=np.array([2, 0, 1], "<u2").tobytes())
    assert slot_of(decision, told(2, K.ACCEPT).record) == 2
    assert slot_of(decision, told(2, K.THUMB, value=1).record) == -1, "a thumb is for the whole answer"
    assert success(joined(decision, told(2, K.ACCEPT)), CLICKS) == 1.0
    assert success(joined(decision, told(2, K.REJECT)), CLICKS) == 0.0


@pytest.mark.parametrize(
    ("said", "click"),
    [
        ([(K.ACCEPT, None)], 0),
        ([(K.REJECT, None)], -1),
        ([(K.CLICK, "b"), (K.ACCEPT, None)], 1),
        ([(K.CLICK, "b"), (K.REJECT, None)], 1),
        ([(K.ACCEPT, None), (K.CLICK, "c")], 2),
        ([(K.ACCEPT, None), (K.REJECT, None)], -1),
        ([(K.CLICK, "b"), (K.ACCEPT, "c")], 2),
        ([(K.CLICK, "b"), (K.REJECT, "b"), (K.ACCEPT, None)], 0),
    ],
)
def test_what_names_nothing_never_overrides_what_names_an_item(
    said: list[tuple[OutcomeKind, str | None]], click: int
) -> None:
    outcomes = [told(n, kind, item) for n, (kind, item) in enumerate(said, 2)]
    assert taught(fake_decision(1)[0], outcomes)[0] == click


# ---- what is said of a whole session ---------------------------------------------------------------------------------


def test_a_session_outcome_is_evidence_once() -> None:
    """Decisions 1 to 5 of one session, an outcome of all of it at 10, and 11 made after it. 1 was clicked; the outcome
    closes 2, and is evidence there; 3 had a click of its own, but 2 has told what it is about."""
    word = told(10, K.ACCEPT, "b", decision=None, session="s")
    click = told(9, K.CLICK, "b")
    rows = [
        joined(pair(1, session="s"), told(8, K.CLICK, "b"), seq=1), joined(pair(1, session="s"), word, seq=2),
        joined(pair(1, session="s"), click, seq=3), joined(pair(1, session="s"), word, seq=4),
        joined(pair(1, session="other"), click, seq=5), joined(pair(1), click, seq=6),
        joined(pair(1, session="s"), told(12, K.CLICK, "b"), seq=11),
    ]  # fmt: skip
    kept, heard = once(rows, {}, key=KEY)
    assert [j.stored.seq for j in kept] == [1, 2, 5, 6, 11]
    assert heard == {}, "nothing is remembered beyond the outcome's own place"
    first, heard = once(rows[:3], {}, key=KEY)
    rest, _ = once(rows[3:], heard, key=KEY)
    assert [j.stored.seq for j in first + rest] == [1, 2, 5, 6, 11], "however it is cut into batches"
    assert list(heard.values()) == [10]


def test_one_word_about_many_decisions_does_not_promote() -> None:
    """Equal rankers, and whoever is asked at the end of a session of eight pairs names one of the two, as often one as
    the other. Counted eight times each, half of such trials would promote within 25 sessions."""
    promoted = 0
    for seed in range(30):
        rng, rows = np.random.default_rng(seed), []
        for session in range(25):
            end = 20 * session + 19
            word = told(end, K.ACCEPT, "ab"[rng.integers(2)], decision=None, session=str(session))
            for n in range(8):
                rows.append(joined(pair(int(rng.choice([-1, 1])), session=str(session)), word, seq=20 * session + n))
        docket = Docket(challenger=V1, champion=BASELINE, trial=TrialState(), metric="click")
        docket = observe(docket, rows, spec=CLICKS, key=KEY)
        assert docket.trial is not None
        assert docket.trial.evidence.count == 25
        promoted += docket.trial.evidence.peak_up >= np.log(1 / 0.05)
    assert promoted <= 0.05 * 30 + 3 * np.sqrt(30 * 0.05 * 0.95)


def test_the_watch_hears_a_session_once_over_pairs_and_holdback_together() -> None:
    word = told(10, K.ACCEPT, decision=None, session="s")
    alone = replace(
        fake_decision(1)[0], version=V1, session="s", extra={"chances": [0.1, 0.5, 0.9, 0.5]}, role=Role.CHAMPION
    )
    closed = [
        joined(alone, word, seq=1), joined(pair(1, session="s", challenger=BASELINE, champion=V1), word, seq=2),
        joined(alone, word, seq=3),
    ]  # fmt: skip
    docket = Docket(champion=V1, rival=BASELINE, watch=WatchState(), metric="click")
    for batch in ([closed], [closed[:1], closed[1:]]):
        after = docket
        for part in batch:
            after = observe(after, part, spec=CLICKS, key=KEY)
        assert after.watch is not None
        assert (after.watch.arms.count, after.watch.pairs.count) == (1, 0)


# ---- which decisions are counted -------------------------------------------------------------------------------------


def test_a_trial_counts_the_closed_decisions_that_were_made_since_it_began() -> None:
    docket = Docket(challenger=V1, champion=BASELINE, trial=TrialState(), tried_from=10, metric="click")
    rows = [joined(fake_decision(1)[0], seq=seq) for seq in (9, 10, 11, 12)]
    rows.append(joined(replace(fake_decision(1)[0], role=Role.BEST), seq=13))
    assert observe(docket, rows, spec=CLICKS, key=KEY).closed == 2, "11 and 12"


def test_pairs_with_a_replaced_version_that_is_tried_again_are_the_trials_alone() -> None:
    docket = Docket(challenger=V2, champion=V1, trial=TrialState(), rival=V2, watch=WatchState(), metric="click")
    rows = [joined(pair(1, challenger=V2, champion=V1), told(9, K.CLICK, "b"))]
    after = observe(docket, rows, spec=CLICKS, key=KEY)
    assert after.trial is not None
    assert after.watch is not None
    assert (after.trial.evidence.count, after.watch.pairs.count) == (1, 0)
    other = observe(replace(docket, rival=BASELINE, challenger=None), [
        joined(pair(1, challenger=BASELINE, champion=V1), told(9, K.CLICK, "b"))
    ], spec=CLICKS, key=KEY)  # fmt: skip
    assert other.watch is not None
    assert other.watch.pairs.count == 1


# ---- champion and holdback, like with like ---------------------------------------------------------------------------


class Fixed(CallersOrder):
    """Scores as given."""

    def __init__(self, *score: float) -> None:
        self.score_K = np.array(score)

    def score(self, lists: Lists) -> F64:
        return np.broadcast_to(self.score_K, lists.base_BK.shape)

    utility = score


BASE = np.array([1.0, 0.5, 0.0])
WILD = Explore(epsilon=0.3, temperature=0.3)


def serving(ranker: CallersOrder, **change: Any) -> Serving:
    pointers = Pointers(
        tenant="t", policy="p", champion=V1, previous=None, challenger=None, baseline=BASELINE, frozen="", generation=1
    )
    made = Serving(
        spec=CLICKS, pointers=pointers, frozen="", champion=V1, ranker=ranker, challenger=None, rival=None,
        replaced=None, explore=WILD, catalog=None,
    )  # fmt: skip
    return replace(made, **change)


def answers(live: Serving, seeds: Sequence[int], *, shares: Shares) -> list[Decision]:
    lists = Lists(
        context_BD=np.zeros((1, 2), np.float32), candidate_BKE=np.zeros((1, 3, 2), np.float32),
        pair_BKP=np.zeros((1, 3, 0), np.float32), base_BK=BASE[None], loss_BKK=None,
    )  # fmt: skip
    known = tuple(Candidate(id=name, digest=b"d" * 16) for name in "abc")
    asked = Question(context=b"", candidates=known, blobs=(), lists=lists, extra={})
    return [
        decide(
            asked, live, seed=seed, explore=True, shown=None, shares=shares,
            asker=Asker(tenant="t", id=str(seed), user=None, session=None, body_digest=b"", at_ms=0, learn=True),
        )
        for seed in seeds
    ]  # fmt: skip


def test_the_chances_that_exploring_changes_nothing_worked_by_hand() -> None:
    """Logits 1, .5, 0 over .3. First: .3 / 3 + .7 * e^(1/.3) / sum; then e^(.5/.3) / (e^(.5/.3) + 1)."""
    weight = np.exp(BASE / 0.3)
    first = 0.1 + 0.7 * weight[0] / weight.sum()
    whole = first * weight[1] / (weight[1] + weight[2])
    made = answers(serving(CallersOrder()), range(400), shares=Shares(holdback=0.2, watch=0.0, trial=0.0))
    assert {record.role for record in made} == {Role.CHAMPION, Role.BASELINE}
    for record in made:
        assert record.extra["chances"] == pytest.approx([0.2, 0.8, first, whole])
    own = [record for record in made if record.role is Role.CHAMPION]
    rankings = [np.frombuffer(record.ranking, "<u2").tolist() for record in own]
    assert np.mean([ranking[0] == 0 for ranking in rankings]) == pytest.approx(first, abs=0.08)
    assert np.mean([ranking == [0, 1, 2] for ranking in rankings]) == pytest.approx(whole, abs=0.08)
    best = next(record for record, ranking in zip(own, rankings, strict=True) if ranking == [0, 1, 2])
    slots_R = np.frombuffer(best.ranking, "<u2").astype(np.int64)
    assert propensities(BASE, slots_R, explore=WILD)[0] == pytest.approx(first), "as the record says of itself"


@pytest.mark.parametrize("metric", ["click", "reward"])
def test_an_equal_champion_that_explores_is_not_rolled_back(metric: str) -> None:
    """Both order alike, the champion explores: shown as they are, it would be proven worse within 500 decisions."""
    rolled = rolled_back(CallersOrder(), metric, lives=10, size=500)
    assert rolled <= 0.05 * 10 + 3 * np.sqrt(10 * 0.05 * 0.95)


@pytest.mark.parametrize("metric", ["click", "reward"])
def test_and_a_worse_one_still_is(metric: str) -> None:
    assert rolled_back(Fixed(0.5, 1.0, 0.0), metric, lives=3, size=500) >= 2


def rolled_back(ranker: CallersOrder, metric: str, *, lives: int, size: int) -> int:
    """How many lives of a champion end in a rollback, where people choose "a" in 80 %, or pay .9 for the order abc and
    else .1."""
    spec, rolled = SPEC | {"metric": metric}, 0
    for life in range(lives):
        rng, rows = np.random.default_rng(life), []
        seeds = range(10_000 * life, 10_000 * life + size)
        for n, record in enumerate(answers(serving(ranker), seeds, shares=Shares(holdback=0.2, watch=0.0, trial=0.0))):
            as_asked = np.frombuffer(record.ranking, "<u2").tolist() == [0, 1, 2]
            says = (
                told(9000 + n, K.CLICK, "a" if rng.random() < 0.8 else "b") if metric == "click"
                else told(9000 + n, K.REWARD, value=float(rng.random() < (0.9 if as_asked else 0.1)))
            )  # fmt: skip
            rows.append(joined(record, says, seq=n + 1))
        docket = observe(
            Docket(champion=V1, rival=BASELINE, watch=WatchState(), metric=metric), rows, spec=spec, key=KEY
        )
        assert docket.watch is not None
        assert docket.watch.arms.count > size / 3, "the comparison does not starve"
        rolled += finding(docket.watch, alpha=0.05).rollback
    return rolled


def test_a_decision_that_exploration_changed_is_not_the_champions_own() -> None:
    """By clicks the first place counts, by rewards the whole order; old records, without these chances, never do."""
    extra: Json = {"chances": [0.1, 0.5, 0.9, 0.5]}
    made = replace(fake_decision(1)[0], version=V1, extra=extra)
    for slots, by_click, by_reward in (([0, 1, 2], 1, 1), ([0, 2, 1], 1, 0), ([1, 0, 2], 0, 0)):
        record = replace(made, ranking=np.array(slots, "<u2").tobytes())
        assert len(served([joined(record)], CLICKS, champion=V1)) == by_click
        assert len(served([joined(record)], SPEC | {"metric": "reward"}, champion=V1)) == by_reward
    (one,) = served([joined(made)], CLICKS, champion=V1)
    assert (one.held, one.own) == (0.1, pytest.approx(0.45))
    assert served([joined(replace(made, extra={"chances": [0.1, 0.5]}))], CLICKS, champion=V1) == []


def test_the_watch_keeps_its_place_where_its_pair_agrees() -> None:
    """Held .1; the watch's .2 falls to the champion where first choices agree, and the trial still has half of .7."""
    live = serving(
        Fixed(1.0, 0.0, 0.0), replaced=(BASELINE, Fixed(3.0, 0.0, 0.0)), challenger=V2, rival=Fixed(0.0, 0.0, 1.0)
    )
    made = answers(live, range(200), shares=Shares(holdback=0.1, watch=0.2, trial=0.5))
    for record in made:
        assert record.extra["chances"][:2] == pytest.approx([0.1, 0.55])
    pairs = [record.role_propensity for record in made if record.role is Role.TRIAL]
    assert pairs == pytest.approx([0.35] * len(pairs))
    assert len(pairs) > 40
