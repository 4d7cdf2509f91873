"""What a judge has in hand of one policy while it runs; only the docket is also on disk."""

import math
from dataclasses import dataclass

from dayjob.endings import FeedbackState
from dayjob.gate.desk import Desk
from dayjob.gate.docket import Docket
from dayjob.gate.report import Analysis
from dayjob.records import Json
from dayjob.signals.detector import Feedback


@dataclass(slots=True, kw_only=True)
class Case:
    """One policy before the judge: its docket, the newest decisions, and what the clicks were last found to teach."""

    docket: Docket
    token: int
    said: Feedback
    desk: Desk
    saved: bool = True  # whether the docket is on disk as it is here
    told: Json | None = None  # the shares that the server was last told
    checked: tuple[str, float] = ("", 0.0)  # the challenger whose files were found sound, and when
    forgot_s: float = -math.inf
    gone: frozenset[int] = frozenset()  # numbers of the people erased since this evidence began
    reported_s: float = 0.0
    analysis: Analysis | None = None
    drawn_at: int = 0  # closed decisions at the last point of the curves
    screened: tuple[str, int, Json] | None = None  # the challenger, closed decisions then, and what the log said

    @property
    def kept(self) -> Docket:
        """The docket, which is also on disk."""
        return self.docket

    def forget(self, docket: Docket, lost: frozenset[int]) -> None:
        """Go on with a docket from which these people are gone; so is what the desk has of them."""
        self.desk.forget(lost)
        self.docket, self.saved = docket, False

    @property
    def state(self) -> FeedbackState:
        """What the clicks can teach."""
        return self.said.state
