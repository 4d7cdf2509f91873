"""Truth as relevances in [0, 1]: one rule for whoever learns from it, judges by it and reports on it."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt


def relevances(given: Mapping[str, float], ids: Sequence[str]) -> npt.NDArray[np.float64] | None:
    """The relevance (K,) of each candidate, 1 for the best and 0 for the worst; None where nothing tells them apart.

    Who is not named counts as 0, or as the worst that is named where that is below 0.

    >>> relevances({"c": 1}, ["a", "b", "c"])
    array([0., 0., 1.])
    >>> relevances({"a": -1.0, "b": -3.0}, ["a", "b", "c"])
    array([1., 0., 0.])
    """
    unnamed = min([0.0, *given.values()])
    value_K = np.array([float(given.get(one, unnamed)) for one in ids])
    low, high = float(value_K.min()), float(value_K.max())
    if not high > low:
        return None
    # Halves: the difference of two finite numbers need not be one.
    found_K: npt.NDArray[np.float64] = (value_K / 2 - low / 2) / (high / 2 - low / 2)
    return found_K
