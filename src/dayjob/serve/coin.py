"""Which of the tenant's versions answers a session, while one is on trial or the champion is watched.

The coin is an HMAC of a secret of the data directory over the two versions and the session: nobody who chooses ids can
steer it, a session stays with one version for as long as the two are the same, and nothing has to be remembered. A
conversation without a session is a session of one decision.

Every decision that the tenant's layer answers journals the chance of each version to have answered it, whichever did:
what the judge bets on rests on these chances and on nothing else (``gate.sessions``).
"""

import hmac
from dataclasses import dataclass, field

from dayjob.endings import Role
from dayjob.records import Json, Pointers

MOST_WATCHED = 1 / 3  # of the sessions: the champion is then never rarer than what it replaced, also beside a trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Toss:
    """Who is to answer. ``challenger``: of role trial, the version that is compared with the champion, whichever of the
    two answers; ``told`` is journaled."""

    version: str
    role: Role = Role.CHAMPION
    challenger: str | None = None
    coin: int = 0  # +1: the challenger answers; -1: the champion; 0: neither was on trial
    role_propensity: float = 1.0  # of this answer, given that a coin was thrown where one was
    told: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coin:
    """``watch_share``: of the sessions, answered by what the champion replaced."""

    secret: bytes
    watch_share: float

    def toss(self, pointers: Pointers, *, session: str) -> Toss:
        """Who answers a session by these pointers: the version replaced, one on trial, or the champion.

        >>> pointers = Pointers(tenant="t", policy="clerk", champion="v1", previous=None, challenger=None,
        ...                     baseline="v1", frozen="", generation=1)
        >>> Coin(secret=b"s", watch_share=0.1).toss(pointers, session="monday").version
        'v1'
        """
        champion, rival, replaced = pointers.champion, pointers.challenger, pointers.replaced
        watched = 0.0 if replaced is None else min(self.watch_share, MOST_WATCHED)
        tried = 0.0 if rival is None else (1.0 - watched) / 2
        told: Json = {
            "champion": champion, "challenger": rival, "replaced": replaced,
            "chances": {"champion": 1.0 - watched - tried, "challenger": tried, "replaced": watched},
        }  # fmt: skip
        if replaced is not None and self._draw(pointers, "watch", rival=replaced, session=session) < watched:
            return Toss(
                version=replaced, role=Role.TRIAL, challenger=replaced, coin=1, role_propensity=watched, told=told
            )
        if rival is not None:
            heads = self._draw(pointers, "trial", rival=rival, session=session) < 0.5
            return Toss(
                version=rival if heads else champion, role=Role.TRIAL, challenger=rival, coin=1 if heads else -1,
                role_propensity=0.5, told=told,
            )  # fmt: skip
        return Toss(version=champion, role_propensity=1.0 - watched, told=told)

    def _draw(self, pointers: Pointers, what: str, *, rival: str, session: str) -> float:
        """A number in [0, 1), the same for the same two versions and session."""
        named = "\0".join((what, pointers.tenant, pointers.policy, pointers.champion, rival, session))
        return int.from_bytes(hmac.digest(self.secret, named.encode(), "sha256")[:8], "little") / (1 << 64)
