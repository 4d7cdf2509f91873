"""Version zero of every ranker: the caller's own order. And what it costs to show one candidate for another."""

import numpy as np
import numpy.typing as npt

from dayjob.policies.protocol import F64, Lists

EARTH_KM = 6371.0088  # mean radius


class CallersOrder:
    """Orders by the caller's score, whatever its scale."""

    def score(self, lists: Lists) -> F64:
        """The caller's scores, (B, K)."""
        return lists.base_BK

    def utility(self, lists: Lists) -> F64:
        """The same: the caller's order is all that version zero believes."""
        return lists.base_BK


def great_circle_km(latlon_K2: npt.NDArray[np.float64]) -> F64:
    """Distances in km between K places given in degrees, (K, K), by the haversine formula; also of many lists at once,
    (B, K, 2) to (B, K, K)."""
    return km_between(latlon_K2[..., :, None, :], latlon_K2[..., None, :, :])


def km_between(from_2: npt.NDArray[np.float64], to_2: npt.NDArray[np.float64]) -> F64:
    """Distances in km between places given in degrees, the last axis (latitude, longitude); the others broadcast."""
    a_2, b_2 = np.radians(from_2), np.radians(to_2)
    half = (
        np.sin((a_2[..., 0] - b_2[..., 0]) / 2) ** 2
        + np.cos(a_2[..., 0]) * np.cos(b_2[..., 0]) * np.sin((a_2[..., 1] - b_2[..., 1]) / 2) ** 2
    )
    km: F64 = 2 * EARTH_KM * np.arcsin(np.sqrt(np.clip(half, 0.0, 1.0)))
    return km
