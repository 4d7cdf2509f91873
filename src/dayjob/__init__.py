"""dayjob: a learning loop for deployed models.

It serves a model, remembers every decision and what came of it, turns that experience into new weights, and lets them
take over only when the record proves them better. These are the public names; `dayjob.fakes` has small deterministic
stand-ins for tests.
"""

from typing import TYPE_CHECKING

from dayjob.endings import DayjobError, FeedbackState, OutcomeKind, Role, VerdictKind
from dayjob.version import VERSION as __version__

if TYPE_CHECKING:
    from dayjob.client import (
        ApiError,
        AsyncClient,
        Candidate,
        Client,
        Feedback,
        LanguageSpec,
        Ranked,
        RankerSpec,
        Ranking,
        Unreachable,
    )

__all__ = [
    "ApiError",
    "AsyncClient",
    "Candidate",
    "Client",
    "DayjobError",
    "Feedback",
    "FeedbackState",
    "LanguageSpec",
    "OutcomeKind",
    "Ranked",
    "RankerSpec",
    "Ranking",
    "Role",
    "Unreachable",
    "VerdictKind",
    "__version__",
]


def __getattr__(name: str) -> object:
    """The client's names, on first use: server, learner and judge start without an HTTP client."""
    if name not in __all__:
        raise AttributeError(f"dayjob has no public name {name!r}: it has {', '.join(__all__)}")
    from dayjob import client

    return getattr(client, name)
