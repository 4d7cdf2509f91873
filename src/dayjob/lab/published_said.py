"""What dayjob says of a play that it does not serve: its report on the same clicks, and its watch on the same lists.

The report is the live one: each decision becomes a line of the judge's desk, and the newest are looked at by the
functions that the judge calls. The watch is the live one too: what serves is the champion, what it replaced the
caller's order, and some lists put the first choices of both side by side in the order of a coin.
"""

import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from geospot.users import Users

from dayjob.config import Config
from dayjob.endings import Role
from dayjob.gate.control import ANONYMOUS
from dayjob.gate.desk import Desk, Line
from dayjob.gate.evidence import FARTHEST_KM
from dayjob.gate.report import analyse, read_feedback
from dayjob.gate.shares import FRESH, RISE, Toll, Traffic, share_out
from dayjob.gate.trial import from_clicks
from dayjob.gate.watch import Alarm, WatchState, finding, observe_pairs
from dayjob.learn.replay import Replay
from dayjob.records import Json
from dayjob.serve.wire import RankerSpec

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

SPEC = RankerSpec(kind="ranker", context_dim=1, candidate_dim=1).model_dump()  # what is left out is set by default
TRAFFIC = Traffic(watch=Config().watch_share, watch_most=Config().watch_most_share)


def lines(batch: Replay, score_BK: F64, *, version: int) -> Iterable[Line]:
    """Decisions of one version as the judge's desk holds them; the metric is "km", as Geospot declares it."""
    feature_BKF = _features(batch)
    for b in range(len(batch)):
        slot_R, click = batch.shown_BK[b].astype(np.int64), int(batch.click_B[b])
        within, item_K = zlib.crc32(batch.context_BD[b].tobytes()), batch.candidate_BK[b].astype(np.int64)
        key_K = item_K ^ within
        yield Line(
            seq=0, version=f"v{version}", role=Role.CHAMPION, chance=1.0, order=version, rival=-1,
            item_R=tuple(item_K[slot_R].tolist()), key_R=tuple(key_K[slot_R].tolist()), click=click, truth=-1,
            success=_success(batch, b, click), error=None, proxy=None if click < 0 else float(click == 0), gold=None,
            reward=float("nan"), propensity_R=batch.propensity_BK[b].astype(np.float64), intervened=False,
            first=int(key_K[score_BK[b].argmax()]), first_by_caller=int(key_K[batch.base_BK[b].argmax()]),
            user=ANONYMOUS, score_R=score_BK[b][slot_R], feature_RF=feature_BKF[b][slot_R],
            unshown=np.setdiff1d(item_K, item_K[slot_R]),
        )  # fmt: skip


def _success(batch: Replay, b: int, click: int) -> float:
    """As `gate.evidence.success` has it for the metric "km"."""
    if click < 0:
        return 0.0
    assert batch.loss_BKK is not None, "the places' distances are known"
    first, chosen = batch.shown_BK[b][[0, click]]
    return 1.0 - float(batch.loss_BKK[b, first, chosen]) / FARTHEST_KM


def _features(batch: Replay) -> F64:
    """(B, K, F): the caller's score, likeness to the other candidates, the pair; as `gate.desk` has them."""
    vector_BKE = batch.vector_VE[batch.candidate_BK].astype(np.float64)
    unit_BKE = vector_BKE / np.linalg.norm(vector_BKE, axis=2, keepdims=True)
    crowd_BK = (np.einsum("bke,be->bk", unit_BKE, unit_BKE.sum(axis=1)) - 1.0) / (batch.width - 1)
    return np.concatenate([batch.base_BK[..., None], crowd_BK[..., None], batch.pair_BKP], axis=2).astype(np.float64)


def report(desk: Desk) -> Json:
    """The report on the newest decisions: its ``feedback``, ``learning`` and the rest."""
    return analyse(desk, read_feedback(desk), spec=SPEC, now_s=0.0).body


class Watch:
    """Champion against the order that it replaced, in coin-flip pairs: by default of half of the lists just after a
    promotion and while evidence of harm grows, else of a tenth."""

    def __init__(self, users: Users, *, rng: np.random.Generator) -> None:
        self.users, self.rng, self.state, self.seen = users, rng, WatchState(), 0
        self.ended_at: int | None = None  # decisions after which the champion was withdrawn

    def see(self, batch: Replay, shown_BK: I64, *, distance_BK: npt.NDArray[np.floating[Any]]) -> None:
        """Draw a share of these lists, put both first choices on top by a coin, and take in what is clicked.

        ``shown_BK``: slots in the order of the champion; ``distance_BK`` km of each slot. Lists on which both choose
        alike say nothing. It is over with the rollback.
        """
        if self.ended_at is not None:
            return
        fresh, harm = self.seen < FRESH, self.state.rise > RISE
        share = share_out(TRAFFIC, Toll(), fresh=fresh, harm=harm, tried=False).watch
        self.seen += len(batch)
        ours_B, theirs_B = shown_BK[:, 0], batch.base_BK.argmax(axis=1)
        drawn = np.flatnonzero((self.rng.random(len(batch)) < share) & (ours_B != theirs_B))
        if not len(drawn):
            return
        coin_P = self.rng.choice([-1.0, 1.0], len(drawn))  # +1: what was replaced stands first
        top_P = np.where(coin_P > 0, theirs_B[drawn], ours_B[drawn])[:, None]
        next_P = np.where(coin_P > 0, ours_B[drawn], theirs_B[drawn])[:, None]
        shown_PK = shown_BK[drawn]
        place_PK = np.where(shown_PK == top_P, -2, np.where(shown_PK == next_P, -1, np.arange(batch.width)))
        shown_PK = np.take_along_axis(shown_PK, np.argsort(place_PK, axis=1), axis=1)
        user_P = batch.user_B[drawn]
        click_P = self.users.click(np.take_along_axis(distance_BK[drawn], shown_PK, axis=1), user_P, rng=self.rng)
        clicked_P = np.select([click_P == 0, click_P == 1], [coin_P, -coin_P], 0.0)
        self.state = observe_pairs(self.state, from_clicks(clicked_P, coin_P, user_N=user_P))
        if self.finding().rollback:
            self.ended_at = self.seen

    def finding(self) -> Alarm:
        """Whether the champion would be withdrawn by now."""
        return finding(self.state, alpha=SPEC["alpha"])
