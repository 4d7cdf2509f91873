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
    """Distances in km between K places given in degrees, (K, K), by the haversine formula."""
    lat_K, lon_K = np.radians(latlon_K2[:, 0]), np.radians(latlon_K2[:, 1])
    half = (
        np.sin((lat_K[:, None] - lat_K[None, :]) / 2) ** 2
        + np.cos(lat_K)[:, None] * np.cos(lat_K)[None, :] * np.sin((lon_K[:, None] - lon_K[None, :]) / 2) ** 2
    )
    km_KK: F64 = 2 * EARTH_KM * np.arcsin(np.sqrt(np.clip(half, 0.0, 1.0)))
    return km_KK
