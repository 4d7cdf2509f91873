"""One look of the judge at a language policy's journal: which decisions begin a session, and what was said of those.

Its work grows with what is new, however long a conversation is. Of a conversation's past it asks once a look, and only
whether the same versions were compared before; of its future it reads no more than a window.
"""

from dataclasses import dataclass, field, replace

from dayjob.gate.sessions import Compared, Session, compared, rating, session_at, versions_in
from dayjob.journal.readers import Reader
from dayjob.records import Json, Stored

MOST_TURNS = 1_000  # answers of one session that what is said can speak of, the first ones


@dataclass(slots=True, kw_only=True)
class Look:
    """``begun``: the sessions, by conversation and versions, that began with a decision seen in this look or before."""

    reader: Reader
    tenant: str
    policy: str
    window_ms: int
    begun: set[tuple[str, Compared]] = field(default_factory=set)

    def begins(self, start: Stored) -> bool:
        """Whether a session begins with a decision. To be asked of decisions in order."""
        versions, named = compared(start.record), start.record.session
        if versions is None or named is None:
            return versions is not None
        if (named, versions) in self.begun:
            return False
        self.begun.add((named, versions))
        return not self.reader.was_compared(
            self.tenant, self.policy, session=named, versions=versions, before=start.seq
        )

    def session(self, start: Stored) -> Session:
        """The session that begins with a decision, which is closed."""
        named, until_ms = start.record.session, start.record.at_ms + self.window_ms
        if named is None:
            return session_at(start, (), before=(), window_ms=self.window_ms)
        told = self.reader.told_before(self.tenant, self.policy, session=named, before=start.seq)
        later = self.reader.of_session(
            self.tenant, self.policy, session=named, after=start.seq, until_ms=until_ms, limit=MOST_TURNS
        )
        before = [versions for one in told if (versions := versions_in(one)) is not None]
        return session_at(start, later, before=before, window_ms=self.window_ms)

    def said(self, session: Session, *, spec: Json) -> float | None:
        """The rating of a session."""
        first, *others = session.turns
        # What was said of the whole conversation stands at its first answer: once, not at each of a thousand.
        alone = (Stored(seq=one.seq, record=replace(one.record, session=None)) for one in others)
        return rating(session, self.reader.outcomes(self.tenant, [first, *alone]), spec=spec)
