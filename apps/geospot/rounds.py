"""The rounds that are open on Geospot's pages: what was shown, and a simulated photo's truth while it is hidden."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from dayjob.client import Ranking
from geospot import pages
from geospot.gallery import Gallery
from geospot.shortlist import distances

CAPACITY = 10_000  # rounds kept; the oldest is forgotten first


class NoRound(ValueError):
    """This round is not known (any more)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One photo as it was answered. ``truth`` (latitude, longitude) and ``card_seed`` only for a simulated one."""

    answer: Ranking
    places: Mapping[str, tuple[float, float]]
    truth: tuple[float, float] | None = None
    postmark: str = ""
    card_seed: int = 0


class Rounds:
    """The last CAPACITY rounds, by the decision's id."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._kept: OrderedDict[str, Round] = OrderedDict()
        self._capacity = capacity

    def add(self, dealt: Round) -> None:
        self._kept[dealt.answer.id] = dealt
        while len(self._kept) > self._capacity:
            self._kept.popitem(last=False)

    def get(self, id: str) -> Round:
        """Raises NoRound."""
        try:
            return self._kept[id]
        except KeyError:
            raise NoRound("This round is too old, or Geospot was restarted since; take the next photo.") from None


def told(gallery: Gallery, dealt: Round, *, truth: tuple[float, float], opening: str) -> pages.Json:
    """The truth, how far each guess was from it, and a sentence that begins with ``opening``."""
    km = distances(gallery, [one.id for one in dealt.answer.ranking], place=truth)
    best = min(km, key=lambda item: km[item])
    sentence = f"{opening} Closest was guess {dealt.answer.position(best)}: {pages.distance(km[best])} away."
    return {
        "message": sentence.strip(),
        "truth": pages.spot(truth),
        "best": best,
        "far": {item: pages.distance(distance) for item, distance in km.items()},
    }


def verdict_on(gallery: Gallery, dealt: Round, *, item: str | None) -> pages.Json:
    """What to say after a pick (None: nothing was close). Only a simulated photo has a truth to show."""
    if dealt.truth is None:
        thanks = "Thank you, that is recorded." if item else "Thank you: that none is close is recorded too."
        return {"message": f"{thanks} If you know the exact place, drop a pin on the map."}
    if item is None:
        return told(gallery, dealt, truth=dealt.truth, opening="Recorded.")
    km = distances(gallery, [one.id for one in dealt.answer.ranking], place=dealt.truth)
    position, away = dealt.answer.position(item), pages.distance(km[item])
    answer = told(gallery, dealt, truth=dealt.truth, opening=f"Guess {position} is {away} off.")
    if item == answer["best"]:
        answer["message"] = f"You picked the closest of the ten: guess {position}, {away} from the true place."
    return answer
