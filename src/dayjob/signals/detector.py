"""Can these clicks teach anything beyond position? The state of a policy's feedback, with its reason.

Four tests (``dependence``) ask whether clicks depend on the items given the position: with the choice that a mixture of
lookers and others learned on earlier decisions, with weights for a few who look, with equal weights, and by the
randomisation alone (clicks at position 1 when exploration changed the first choice against when it did not). The same
statistics bound the share of clicks that could depend on the items.

*informative*: a test rejects. *uninformative*: none comes near it, and ``share`` of lookers is less probable than none.
*unidentifiable*: nothing was randomised and nothing rejects, or no column could tell. *too_few*: else, with ``needed``.

What it rests on. The bound assumes that items move the odds of people who look by e^``response`` per unit of the
columns, so it is as good as the columns: with scores alone it can miss people who look at what the score does not
know; crowding and a learned score make it sharp. Where few click below position 1, more is asked before they are
called uninformative. Users who each click their own position, on lists that differ by user, can look informative: the
gate's coin flips, not this state, protect a promotion from that.
"""

from dataclasses import dataclass, replace
from math import ceil, erfc, sqrt

import numpy as np

from dayjob.endings import FeedbackState
from dayjob.signals.clicklog import F64, ClickLog
from dayjob.signals.dependence import (
    FIRST_CHOICE,
    Shares,
    columns,
    dependence,
    first_place_contrast,
    looker_test,
    reward_contrast,
    reward_dependence,
    reward_shares,
    share_odds,
    shares,
)
from dayjob.signals.intervals import chi_square_tail


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorConfig:
    """The detector's few dials."""

    minimum: int = 200  # clicks below which nothing is said
    settled: int = 1000  # clicks below which nothing is called uninformative
    spread_settled: int = 1750  # the same where more than a few fall below position 1: those take longer to tell
    block: int = 250  # decisions within which a position-only pattern may be taken as constant
    level: float = 0.01  # of the tests together, at one look
    share: float = 0.05  # below this share of informative clicks the log is called uninformative
    doubt: float = 0.25  # uninformative: that share or more is less probable, at even odds of none or any of those
    strict_doubt: float = 0.10  # of exactly that share against none, where clicks below position 1 are few
    bare_doubt: float = 0.02  # the same, where the score is all that is known of the items
    near: float = 1.25  # the mixture's test in standard errors plus the log odds (below), where positive: at most this
    bare_odds: float = -0.5  # log odds of that share who follow the score: at most, where it is all that is known
    suspicion: float = 0.10  # where they are few, nothing below this p-value is called uninformative
    response: float = 0.5  # log odds per unit of the columns (root of the sum of squares) of somebody who looks
    reward_response: float = 0.125  # the same of rewards, in parts of their range: .5 log odds where they are even
    leave: float = 0.1  # how often at least somebody who looks leaves the policy's first choice
    minimum_changed: int = 20  # decisions with a changed first choice without which nothing is called uninformative
    few_tail: int = 300  # clicks below position 1 that are few: their cause stays open where they are spread evenly
    weight_floor: float = 0.02  # of q_k times K: no click weighs more than 50 times an average one


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """What a policy's clicks can teach: the report's ``feedback``.

    ``share_at`` is the share of clicks at each position; ``informative_share`` the upper bound of the share of clicks
    that depend on the item where no dependence is shown (nan else, and when nothing bounds it: how many do is for
    ``bias.chosen_share`` to say); ``p_value`` of the hypothesis that only the position matters. Where rewards are
    judged, ``clicks`` counts them, and ``share_at`` says where they were given.
    """

    state: FeedbackState
    reason: str
    share_at: tuple[float, ...]
    needed: int | None
    informative_share: float
    p_value: float
    clicks: int
    changed: int


def feedback(log: ClickLog, config: DetectorConfig | None = None, *, learned_BK: F64 | None = None) -> Feedback:
    """What the clicks of ``log`` can teach beyond position.

    ``learned_BK``: the score that something trained on earlier clicks alone gives each item
    (``features.learned_score``, or a version that had not seen these decisions). Without it, clicks that are spread
    evenly stay an open question. Where there are more rewards than clicks, rewards are what is judged.

    Columns: the score, the policy's first choice, the item's reputation where items repeat, the features of the log,
    the learned score.
    """
    config = config or DetectorConfig()
    click_B = log.click_B
    if np.isfinite(log.reward_B).sum() > (click_B >= 0).sum():
        return _feedback_on_rewards(log, config)
    clicks, changed = int((click_B >= 0).sum()), int((log.changed_B & (click_B >= 0)).sum())
    share_at = np.bincount(click_B[click_B >= 0], minlength=log.width) / max(clicks, 1)
    base = _Facts(clicks=clicks, changed=changed, share_at=share_at)
    if clicks < config.minimum:
        return _say(
            base,
            FeedbackState.TOO_FEW,
            f"{clicks} clicks; nothing is said below {config.minimum}.",
            needed=config.minimum,
        )
    columns_BKF = columns(log, learned_BK)
    tail = dependence(log, columns_BKF, block=config.block, floor=config.weight_floor)
    plain = dependence(log, columns_BKF, block=config.block, floor=None)
    bounding_F = np.arange(columns_BKF.shape[2]) != FIRST_CHOICE  # exploration moves that too seldom to bound anything
    moved = first_place_contrast(log)
    looked = looker_test(log, columns_BKF, block=config.block, floor=config.weight_floor)
    least = min(tail.p_value, plain.p_value, moved.p_value, erfc(looked / sqrt(2)) / 2)
    base = _Facts(
        clicks=clicks,
        changed=changed,
        share_at=share_at,
        p_value=min(1.0, 4 * least),
        looked=looked,
        odds=share_odds(log, columns_BKF[..., 0], share=config.share, leave=config.leave, block=config.block),
        shares=shares(
            log, tail, bounding_F=bounding_F, least=config.share, response=config.response, leave=config.leave
        ),
        learned=learned_BK is not None,
        described=bool(columns_BKF[..., FIRST_CHOICE + 1 :].any()),
    )
    return _decide(base, config)


def _feedback_on_rewards(log: ClickLog, config: DetectorConfig) -> Feedback:
    """Do rewards depend on what they are given for? People who praise everything teach nothing."""
    known = np.isfinite(log.reward_B)
    rewards, changed = int(known.sum()), int((log.changed_B & known).sum())
    at_B = np.maximum(log.click_B[known], 0)
    share_at = np.bincount(at_B, minlength=log.width) / rewards
    facts = _Facts(clicks=rewards, changed=changed, share_at=share_at)
    if rewards < config.minimum:
        reason = f"{rewards} rewards; nothing is said below {config.minimum}."
        return _say(facts, FeedbackState.TOO_FEW, reason, needed=config.minimum)
    columns_BKF = columns(log)
    test = reward_dependence(log, columns_BKF, block=config.block)
    difference, p_value = reward_contrast(log)
    bounding_F = np.arange(columns_BKF.shape[2]) != FIRST_CHOICE
    found = reward_shares(
        log, test, bounding_F=bounding_F, least=config.share, response=config.reward_response, leave=config.leave
    )
    facts = replace(facts, p_value=min(1.0, 2 * min(test.p_value, p_value)), shares=found)
    if facts.p_value < config.level:
        return _say(
            facts,
            FeedbackState.INFORMATIVE,
            f"Rewards follow what they are given for ({_p(facts.p_value)}); the policy's own first choice earns "
            f"{difference:+.2f} of the range more than another item in its place.",
        )
    if changed < config.minimum_changed or found is None:
        return _say(facts, FeedbackState.UNIDENTIFIABLE, _NOTHING_CHANGED.format(changed=changed))
    if found.doubt < config.doubt and rewards >= config.settled:
        return _say(
            facts,
            FeedbackState.UNINFORMATIVE,
            f"Rewards do not depend on what they are given for ({_p(facts.p_value)}): "
            f"{log.reward_B[known].mean():.2f} of the range, whatever stood first. "
            f"At most {found.upper:.1%} of them could (95 %).",
        )
    needed = max(config.settled, ceil(rewards * (found.upper / config.share) ** 2))
    reason = f"No dependence of rewards on the items shows ({_p(facts.p_value)}), but up to {found.upper:.0%} could."
    return _say(facts, FeedbackState.TOO_FEW, reason, needed=needed)


_NOTHING_CHANGED = (
    "Only {changed} decisions showed another first item than the policy's own choice, so a good order and users who do "
    "not look at the items are alike. Let exploration change position 1 in a few per cent of answers."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    clicks: int
    changed: int
    share_at: F64
    p_value: float = 1.0
    looked: float = 0.0
    odds: float = 0.0
    shares: Shares | None = None
    learned: bool = False
    described: bool = False  # some column beside the score varies

    @property
    def bound(self) -> float:
        return self.shares.upper if self.shares is not None else float("nan")


def _decide(facts: _Facts, config: DetectorConfig) -> Feedback:
    if facts.p_value < config.level:
        return _say(
            facts,
            FeedbackState.INFORMATIVE,
            f"The clicked items differ from the items at the same positions elsewhere ({_p(facts.p_value)}): "
            "clicks depend on what is shown, not on the position alone.",
        )
    if facts.changed < config.minimum_changed:
        return _say(
            facts,
            FeedbackState.UNIDENTIFIABLE,
            _NOTHING_CHANGED.format(changed=facts.changed),
        )
    if facts.shares is None:
        return _say(
            facts,
            FeedbackState.UNIDENTIFIABLE,
            "No score and no feature differs between lists, so nothing could show that users look at the items. "
            "Send scores or features with the candidates.",
        )
    few = facts.clicks * (1 - facts.share_at[0]) < config.few_tail
    doubtful = facts.shares.doubt >= config.doubt or facts.looked + max(facts.odds, 0.0) >= config.near
    doubtful |= not facts.described and facts.odds >= config.bare_odds
    if few:
        limit = config.strict_doubt if facts.described else config.bare_doubt
        doubtful = facts.shares.strict_doubt >= limit or facts.p_value < config.suspicion
    settled = config.settled if few else config.spread_settled
    if not doubtful and facts.clicks >= settled:
        return _open_or_uninformative(facts, config)
    needed = max(settled, ceil(facts.clicks * (facts.bound / config.share) ** 2))
    return _say(
        facts,
        FeedbackState.TOO_FEW,
        f"No dependence on the items shows ({_p(facts.p_value)}), but up to {facts.bound:.0%} of the clicks "
        "could still be informative.",
        needed=needed,
    )


def _open_or_uninformative(facts: _Facts, config: DetectorConfig) -> Feedback:
    """A bound below the share is not enough where clicks are spread as poorly ranked lists would spread honest ones."""
    tail_K = facts.share_at[1:] * facts.clicks
    if not facts.learned and facts.share_at.min() * len(facts.share_at) > 0.5:
        return _say(
            facts,
            FeedbackState.UNIDENTIFIABLE,
            "Clicks are spread evenly over the positions and follow no score or feature: users click at random, or "
            "look at something that the features do not show. Send richer features.",
        )
    if tail_K.sum() > 0 and (tail_K.sum() < config.few_tail or not facts.described) and _even(tail_K):
        needed = max(facts.clicks + 1, ceil(facts.clicks * config.few_tail / tail_K.sum()))
        return _say(
            facts,
            FeedbackState.TOO_FEW,
            f"{tail_K.sum():.0f} clicks below position 1 are spread as those of people who look might be; too few to "
            "tell.",
            needed=needed,
        )
    return _say(
        facts,
        FeedbackState.UNINFORMATIVE,
        f"Given the position, clicks do not depend on the item ({_p(facts.p_value)}); at most {facts.bound:.1%} "
        f"of them could (95 %, if items move the odds of those who look by e^{config.response} per unit). "
        f"{facts.share_at[0]:.0%} go to position 1.",
    )


def _even(tail_K: F64, level: float = 0.01) -> bool:
    expected = tail_K.sum() / len(tail_K)
    if len(tail_K) < 2:
        return True
    return chi_square_tail(float(((tail_K - expected) ** 2 / expected).sum()), len(tail_K) - 1) > level


def _p(p_value: float) -> str:
    return f"p = {p_value:.2g}" if p_value > 1e-99 else "p < 1e-99"


def _say(facts: _Facts, state: FeedbackState, reason: str, *, needed: int | None = None) -> Feedback:
    return Feedback(
        state=state,
        reason=reason,
        share_at=tuple(float(s) for s in facts.share_at),
        needed=needed,
        informative_share=float("nan") if state is FeedbackState.INFORMATIVE else float(facts.bound),
        p_value=float(facts.p_value),
        clicks=facts.clicks,
        changed=facts.changed,
    )
