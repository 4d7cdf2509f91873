"""The whole loop on one page: serve, remember, learn, try, judge, promote. `python examples/one_loop.py`

A shop shows four items. Its own order is wrong, and six in ten visitors click the first item whatever it is. The
loop serves, journals every decision with its exact probability, learns an order from randomised first places only, puts
it on trial against the serving one by a fair coin, and lets it take over when the evidence suffices, not before.

The journal and the clock are `dayjob.fakes`; drawing, joining and judging are the real thing.
"""

from dataclasses import replace

import numpy as np

from dayjob.endings import FeedbackState, OutcomeKind, Role, VerdictKind
from dayjob.fakes import FakeClock, FakeJournal, fake_decision, fake_id, fake_outcome
from dayjob.gate import trial
from dayjob.gate.elond import Elond
from dayjob.gate.evidence import observations, slots_of
from dayjob.gate.trial import TrialState
from dayjob.gate.verdict import Terms, VerdictResult, decide
from dayjob.journal.join import Window
from dayjob.policies.plackett_luce import Explore, draw, draw_pair, order, roll
from dayjob.records import Decision, Joined, Json

TENANT, POLICY = "t", "p"  # those of the fakes' records
ITEMS = ("apple", "book", "candle", "door")
APPEAL_K = np.array([0.1, 0.2, 0.3, 0.9])  # how much visitors who look want each: the loop never sees this
PULLED = 0.6  # share of visitors who click the first place whatever stands there
SHOP_K = np.array([4.0, 3.0, 2.0, 1.0])  # the shop's own scores: the worst item first
EXPLORE = Explore(epsilon=0.1)  # one answer in ten draws its first place uniformly
WINDOW = Window(length_ms=60_000)
ALPHA, MINIMUM_EFFECT = 0.05, 0.01
SPEC: Json = {"metric": "click", "reward_range": [0.0, 1.0], "alpha": ALPHA, "minimum_effect": MINIMUM_EFFECT}


def serve(number: int, champion_K: np.ndarray, challenger_K: np.ndarray | None, clock: FakeClock) -> Decision:
    """Draw a ranking and write down everything that made it. A challenger appears only in a coin-flip pair."""
    blank, _ = fake_decision(number, ITEMS)
    dice = roll(seed=number, k=len(ITEMS))
    pair = challenger_K is not None and int(order(challenger_K)[0]) != int(order(champion_K)[0])
    if pair and challenger_K is not None:
        first = int(order(challenger_K)[0])
        drawn = draw_pair(champion_K, rival_first=first, dice=dice, explore=EXPLORE, shown=len(ITEMS))
    else:
        drawn = draw(champion_K, dice=dice, explore=EXPLORE, shown=len(ITEMS))
    return replace(
        blank,
        at_ms=clock(),
        role=Role.TRIAL if pair else Role.CHAMPION,
        challenger="challenger" if pair else None,
        coin=drawn.coin,
        intervened=drawn.intervened,
        epsilon=EXPLORE.epsilon,
        score=champion_K.astype("<f8").tobytes(),
        ranking=drawn.ranking_R.astype("<u2").tobytes(),
        propensity=drawn.propensity_R.astype("<f8").tobytes(),
        log_propensity=drawn.log_propensity,
    )


def visit(decision: Decision, rng: np.random.Generator) -> int | None:
    """What a visitor does: the slot they click, or None."""
    slots = slots_of(decision)
    if rng.random() < PULLED:
        return int(slots[0])
    for slot in slots:
        if rng.random() < APPEAL_K[slot]:
            return int(slot)
    return None


def learn(closed: list[Joined]) -> np.ndarray:
    """Appeal by item from uniform draws at position 1 alone: there, the position's pull is the same for all."""
    clicks_K, shown_K = np.ones(len(ITEMS)), np.full(len(ITEMS), 2.0)
    for joined in closed:
        decision = joined.stored.record
        if decision.intervened:
            first = int(slots_of(decision)[0])
            shown_K[first] += 1
            clicks_K[first] += any(o.record.item == ITEMS[first] for o in joined.outcomes)
    return np.asarray(clicks_K / shown_K)


def judge(pairs: list[Joined], state: TrialState, budget: Elond, closed: int) -> tuple[TrialState, VerdictResult]:
    """Take in closed pairs, in the order they were made, and say what the evidence says."""
    if pairs:
        state = trial.observe(state, observations(pairs, SPEC, key=b"secret"))
    terms = Terms(alpha=ALPHA, level=budget.level, minimum_effect=MINIMUM_EFFECT)
    grounds = trial.grounds(state, closed=closed, alpha=ALPHA)
    return state, decide(grounds, terms, feedback=FeedbackState.INFORMATIVE)


def run(*, visitors: int = 6_000, learn_after: int = 2_000, look_every: int = 100, seed: int = 0) -> dict[str, object]:
    """Play the loop until a verdict or the last visitor; what happened."""
    journal, clock, rng = FakeJournal(), FakeClock(), np.random.default_rng(seed)
    champion_K, challenger_K = SHOP_K, None
    state, budget, cursor, tried_from = TrialState(), Elond(alpha=ALPHA), "s0", 0
    closed: list[Joined] = []
    for number in range(1, visitors + 1):
        clock.advance(1_000)
        decision = serve(number, champion_K, challenger_K, clock)
        journal.append_decision(decision).result()
        slot = visit(decision, rng)
        outcome = fake_outcome(1_000_000 + number, fake_id(number))
        if slot is not None:
            outcome = replace(outcome, kind=OutcomeKind.CLICK, item=ITEMS[slot])
        journal.append_outcome(replace(outcome, received_ms=clock(), at_ms=clock())).result()
        if number % look_every:
            continue
        fresh: list[Joined] = []
        for page in journal.joined(TENANT, POLICY, window=WINDOW, now_ms=clock(), cursor=cursor):
            fresh += page
        cursor = f"s{fresh[-1].stored.seq}"
        closed += fresh
        if challenger_K is None and number >= learn_after:
            challenger_K, tried_from = learn(closed), number
        pairs = [j for j in fresh if j.stored.record.role is Role.TRIAL]
        state, verdict = judge(pairs, state, budget, closed=number - tried_from)
        if verdict.final:
            promoted = verdict.kind is VerdictKind.PROMOTE
            new_K = challenger_K if promoted and challenger_K is not None else champion_K
            best = ITEMS[int(order(new_K)[0])]
            return {"verdict": verdict.kind, "reason": verdict.reason, "after": number, "first": best}
    return {"verdict": VerdictKind.CANNOT_TELL, "reason": "out of visitors", "after": visitors, "first": ITEMS[0]}


if __name__ == "__main__":
    for name, value in run().items():
        print(f"{name}: {value}")
