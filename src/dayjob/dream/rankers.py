"""Rehearsing a ranker: further users, imagined by the click model that was fitted from the journal, on logged contexts.

The simulator knows what its fit knows and no more: the belief in what is wanted and the pull of positions both come
from the same clicks. So imagined clicks cannot add information; they can only lead a learner to where the fit already
points. Whether that helps is measured (`dayjob lab rehearse`), and the live trial judges the result on real clicks
alone.

Where the clicks are uninformative or their bias is unidentifiable there is nothing to imagine from: :func:`refusal`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dayjob.endings import FeedbackState, Invalid

F64 = npt.NDArray[np.float64]
I16 = npt.NDArray[np.int16]
I64 = npt.NDArray[np.int64]

CHANGED_FIRST = 0.5  # share of imagined lists whose first place is drawn evenly: imagined users lose nothing by it
IDENTIFIED = ("items", "choice")  # methods by which the report's bias is an estimate of what people want
LIKELIEST = -1e30  # log of no chance at all, that differences can be taken of


@dataclass(frozen=True, slots=True, kw_only=True)
class Users:
    """How a click comes about: with probability ``pull`` by position alone (log shares ``pull_at_K``), else by choice
    among what is shown, in proportion to ``belief_BK`` (by slot, of each logged decision) times exp(``examined_K``)."""

    pull: float
    pull_at_K: F64
    examined_K: F64
    belief_BK: F64

    def __post_init__(self) -> None:
        if not 0 <= self.pull <= 1:
            raise Invalid(f"pull is {self.pull}: a probability", param="pull")


@dataclass(frozen=True, slots=True, kw_only=True)
class Imagined:
    """N imagined decisions: ``source_N`` the logged one whose context and candidates it has, ``shown_NK`` slot at each
    position (-1 filler), ``propensity_NK`` of the item given those above it, ``click_N`` the position clicked."""

    source_N: I64
    shown_NK: I16
    propensity_NK: npt.NDArray[np.float32]
    click_N: I16


def refusal(report: Mapping[str, Any]) -> str | None:
    """Why these clicks are nothing to imagine users from, by the policy's report; None where they are."""
    feedback, bias = report.get("feedback") or {}, report.get("bias") or {}
    if not feedback:
        return "nobody has looked yet at what the clicks can teach: run `dayjob gate`, then ask again"
    if feedback["state"] != FeedbackState.INFORMATIVE.value:
        return f"the clicks are {feedback['state']}, and imagined users would be invented: {feedback['reason']}"
    if bias.get("method") not in IDENTIFIED:
        why = bias.get("reason", "no estimate of the positions' pull yet")
        return f"the click model is not identified, and imagined users would be invented: {why}"
    return None


def imagine(users: Users, shown_BK: npt.NDArray[np.integer[Any]], *, count: int, seed: int) -> Imagined:
    """``count`` decisions on the logged lists, each of which is used as often as the others (up to one).

    In a share ``CHANGED_FIRST`` of them an evenly drawn item changes places with the first. Raises Invalid where there
    is no list, or an empty one.
    """
    logged = len(shown_BK)
    if not logged or not (shown_BK[:, 0] >= 0).all():
        raise Invalid("users can be imagined before lists of one item or more", param="shown_BK")
    rng = np.random.default_rng(seed)
    rounds = -(-count // logged)
    source_N = np.concatenate([rng.permutation(logged) for _ in range(rounds)])[:count] if count else np.zeros(0, int)
    shown_NK = shown_BK[source_N].astype(np.int64)
    size_N = (shown_NK >= 0).sum(axis=1)
    rows = np.arange(count)
    swap_N = np.where(rng.random(count) < CHANGED_FIRST, (rng.random(count) * size_N).astype(np.int64), 0)
    first_N, other_N = shown_NK[rows, 0].copy(), shown_NK[rows, swap_N].copy()
    shown_NK[rows, 0], shown_NK[rows, swap_N] = other_N, first_N
    propensity_NK = np.ones(shown_NK.shape, np.float32)
    propensity_NK[:, 0] = CHANGED_FIRST / size_N + np.where(swap_N == 0, 1 - CHANGED_FIRST, 0.0)
    present_NK = shown_NK >= 0
    belief_NK = np.take_along_axis(users.belief_BK[source_N], np.maximum(shown_NK, 0), axis=1)
    with np.errstate(divide="ignore"):
        choice_NK = np.maximum(np.log(belief_NK), LIKELIEST) + users.examined_K
    logit_NK = np.where((rng.random(count) < users.pull)[:, None], users.pull_at_K, choice_NK)
    # Drawn by Gumbel noise: the largest of log p + noise falls at k with probability p_k.
    noisy_NK = np.where(present_NK, logit_NK + rng.gumbel(size=shown_NK.shape), -np.inf)
    return Imagined(
        source_N=source_N, shown_NK=shown_NK.astype(np.int16), propensity_NK=propensity_NK,
        click_N=noisy_NK.argmax(axis=1).astype(np.int16),
    )  # fmt: skip
