"""What was shown and what was clicked: the one input of everything in this folder."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

FILLER = -1  # an absent item, click, user, first choice or truth


@dataclass(frozen=True, slots=True, kw_only=True)
class ClickLog:
    """B shown lists of up to K positions, in the order they were served.

    >>> log = ClickLog.of([[7, 8], [8, 7]], click_B=[0, -1])
    >>> len(log), log.width, log.click_B.tolist()
    (2, 2, [0, -1])

    ``item_BK``        identity of the item at each position, -1 after the end of a shorter list; where relevance
                       depends on the context (a query, a photo), make the identity of both
    ``click_BK``       whether the item at that position was clicked
    ``propensity_BK``  exact probability of that item at that position given those above it, nan when unknown
    ``intervened_B``   position 1 was drawn uniformly from the list
    ``first_B``        the item the policy would have placed first without exploration, -1 unknown
    ``user_B``         who, -1 anonymous
    ``score_BK``       the policy's score of the item at that position, nan when unknown
    ``truth_B``        0-based position of the item known to be right, -1 unknown or not shown
    ``reward_B``       reward, nan unknown
    ``feature_BKF``    further numbers about the item at that position (F may be 0): anything that was known before the
                       click, such as ``features.crowding_BK`` or the score of a version that learned from earlier
                       clicks
    ``order_B``        which order served the list (a version, or a comparison of two), -1 unknown: scores of two orders
                       are no one scale
    ``rival_B``        where a comparison put the first choices of two orders at positions 1 and 2 by a fair coin: that
                       of the other order; -1 elsewhere
    """

    item_BK: I64
    click_BK: Bool
    propensity_BK: F64
    intervened_B: Bool
    first_B: I64
    user_B: I64
    score_BK: F64
    truth_B: I64
    reward_B: F64
    feature_BKF: F64
    order_B: I64
    rival_B: I64

    def __post_init__(self) -> None:
        if self.item_BK.ndim != 2:
            raise ValueError(f"item_BK needs two axes (decisions, positions), not shape {self.item_BK.shape}.")
        rows, shape = self.item_BK.shape[:1], self.item_BK.shape
        for name in ("click_BK", "propensity_BK", "score_BK"):
            _same_shape(name, getattr(self, name), shape)
        for name in ("intervened_B", "first_B", "user_B", "truth_B", "reward_B", "order_B", "rival_B"):
            _same_shape(name, getattr(self, name), rows)
        if self.feature_BKF.ndim != 3 or self.feature_BKF.shape[:2] != shape:
            raise ValueError(f"feature_BKF has shape {self.feature_BKF.shape}; its first two axes must be {shape}.")
        if (self.click_BK & (self.item_BK == FILLER)).any():
            bad = int(np.flatnonzero((self.click_BK & (self.item_BK == FILLER)).any(axis=1))[0])
            raise ValueError(
                f"Decision {bad} has a click at a position where nothing was shown; drop or mend that click."
            )

    @classmethod
    def of(
        cls,
        item_BK: npt.ArrayLike,
        *,
        click_B: npt.ArrayLike | None = None,
        click_BK: npt.ArrayLike | None = None,
        score_BK: npt.ArrayLike | None = None,
        user_B: npt.ArrayLike | None = None,
    ) -> "ClickLog":
        """A log of which propensities, interventions, truths, rewards and features are unknown;
        ``dataclasses.replace`` adds them.

        Give ``click_B`` (0-based position, -1 none) or ``click_BK`` (True where clicked).
        """
        items = np.asarray(item_BK, dtype=np.int64)
        if (click_B is None) == (click_BK is None):
            raise ValueError(
                "Give exactly one of click_B (position clicked, -1 none) and click_BK (True where clicked)."
            )
        clicks = np.asarray(click_BK, dtype=bool) if click_BK is not None else one_hot(click_B, items.shape)
        rows = items.shape[0]
        unknown_BK = np.full(items.shape, np.nan)
        return cls(
            item_BK=items,
            click_BK=clicks,
            propensity_BK=unknown_BK,
            intervened_B=np.zeros(rows, bool),
            first_B=np.full(rows, FILLER, np.int64),
            user_B=np.full(rows, FILLER, np.int64) if user_B is None else np.asarray(user_B, dtype=np.int64),
            score_BK=unknown_BK if score_BK is None else np.asarray(score_BK, dtype=np.float64),
            truth_B=np.full(rows, FILLER, np.int64),
            reward_B=np.full(rows, np.nan),
            feature_BKF=np.zeros((*items.shape, 0)),
            order_B=np.full(rows, FILLER, np.int64),
            rival_B=np.full(rows, FILLER, np.int64),
        )

    def __len__(self) -> int:
        return int(self.item_BK.shape[0])

    @property
    def width(self) -> int:
        """K, the longest list."""
        return int(self.item_BK.shape[1])

    @property
    def shown_BK(self) -> Bool:
        """Where an item was shown."""
        return np.asarray(self.item_BK != FILLER)

    @property
    def click_B(self) -> I64:
        """The first (topmost) clicked position, -1 where nothing was clicked."""
        if self.width == 0:
            return np.full(len(self), FILLER, np.int64)
        return np.where(self.click_BK.any(axis=1), self.click_BK.argmax(axis=1), FILLER).astype(np.int64)

    @property
    def single(self) -> bool:
        """Whether no list has more than one click."""
        return bool((self.click_BK.sum(axis=1) <= 1).all())

    @property
    def changed_B(self) -> Bool:
        """Where exploration put another item at position 1 than the policy's first choice (first_B known)."""
        if self.width == 0:
            return np.zeros(len(self), bool)
        changed_B: Bool = np.logical_and(self.item_BK[:, 0] != self.first_B, self.first_B != FILLER)
        return changed_B

    def rows(self, index: I64 | Bool | slice) -> "ClickLog":
        """The decisions at ``index``, in that order."""
        return replace(
            self,
            item_BK=self.item_BK[index],
            click_BK=self.click_BK[index],
            propensity_BK=self.propensity_BK[index],
            intervened_B=self.intervened_B[index],
            first_B=self.first_B[index],
            user_B=self.user_B[index],
            score_BK=self.score_BK[index],
            truth_B=self.truth_B[index],
            reward_B=self.reward_B[index],
            feature_BKF=self.feature_BKF[index],
            order_B=self.order_B[index],
            rival_B=self.rival_B[index],
        )


def one_hot(click_B: npt.ArrayLike | None, shape: tuple[int, ...]) -> Bool:
    """(B, K) bool with True at each row's position; rows of -1 stay False. Raises ValueError outside -1..K-1."""
    click = np.asarray(click_B, dtype=np.int64)
    _same_shape("click_B", click, shape[:1])
    if click.size and (click.min() < FILLER or click.max() >= shape[1]):
        bad = int(np.flatnonzero((click < FILLER) | (click >= shape[1]))[0])
        raise ValueError(f"click_B[{bad}] is {click[bad]}; positions are 0 to {shape[1] - 1}, -1 for no click.")
    out = np.zeros(shape, bool)
    hit = np.flatnonzero(click >= 0)
    out[hit, click[hit]] = True
    return out


def _same_shape(name: str, array: npt.NDArray[np.generic], shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, but the items say {shape}; pass one entry for each.")
