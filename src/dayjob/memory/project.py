"""From lessons to notes: what replaces what, what several people agree on, who may see which. Pure.

- Of several lessons of one owner on one topic the newest stands, by the journal's order; the others are its history.
  A lesson that was retracted was never said: what it had replaced stands again. A *deleted* note was said: it is not
  placed, and what it had replaced does not come back.
- A note is for its owner alone: the person, or the session of somebody unnamed. It becomes the tenant's when an admin
  key shares it, or when ``agree`` people say the same: then what stands in it are words that each of them said.
  Whoever changes their mind, deletes their note, opts out or is erased takes their support with them. Where one of
  them demonstrated it, it is a demonstration: what is right is known, and no teacher's word stands in its place.
- For one topic the tenant has one note: a shared one before agreed ones, the last shared; of agreed ones the one that
  more say, then the later. A person's own note on a topic comes before the tenant's.
"""

import hmac
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dayjob.endings import NoteScope, NoteState, OutcomeKind
from dayjob.memory.lessons import Lesson, Owner
from dayjob.memory.states import FRESH, Standing, state
from dayjob.memory.words import same
from dayjob.records import Note

MOST_NOTES = 1_000  # of one owner; beyond it the oldest make none
Topic = tuple[str, ...]
TOO_MANY = f"its owner has {MOST_NOTES} newer notes: delete some, or let a night learn them"
SILENT = "this person is not learned from"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A note with what decides its state. ``note.state`` is that for a version that learned nothing."""

    note: Note
    owner: Owner | None  # None: the tenant
    topic: Topic
    answer: str
    standing: Standing
    corrected: frozenset[str] = frozenset()  # answers that it corrects, shortened: never right to its question

    def under(self, version: str) -> Note:
        """The note as it stands while ``version`` answers."""
        if self.note.replaced_by is not None:
            return self.note
        # What holds whatever is asked is known by heart in no wording.
        standing = self.standing if self.topic else replace(self.standing, recited=frozenset())
        return replace(self.note, state=state(standing, version))

    def placed_under(self, version: str, *, asked: Topic | None = None) -> bool:
        """Whether it belongs in the context of ``version``, of a question with the words ``asked`` (None: its own).
        What a version was seen to know in one wording alone is placed in every other."""
        if self.under(version).state is not NoteState.RETIRED:
            return True
        recited = self.note.replaced_by is None and version not in self.standing.verified
        return recited and asked not in (None, self.topic)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """An outcome that makes no note, and why."""

    lesson: Lesson
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes:
    """All notes of one policy, deleted ones left out. Replaced ones are in ``history``, by their owner."""

    own: Mapping[Owner, tuple[Kept, ...]] = field(default_factory=dict)
    tenant: tuple[Kept, ...] = ()
    history: tuple[Kept, ...] = ()
    refused: tuple[Refused, ...] = ()

    def visible(
        self, user: str | None, session: str | None, *, version: str, asked: Topic | None = None
    ) -> tuple[tuple[Kept, ...], ...]:
        """The notes that may stand in a person's context: their own, and the tenant's on other topics.

        Without a ``user``, those of the ``session`` are their own. ``asked``: the words of the question
        (`words.topic`).
        """
        placed = {kept.note.id for kept in (*self.owned(user, session), *self.tenant)
                  if kept.placed_under(version, asked=asked)}  # fmt: skip
        mine = self.owned(user, session)
        topics = {kept.topic for kept in mine if kept.topic}
        shown = {(kept.topic, kept.answer) for kept in mine}
        known = {(kept.topic, kept.answer) for kept in self.tenant if kept.note.id not in placed}
        others = (kept for kept in self.tenant if kept.topic not in topics and (kept.topic, kept.answer) not in shown)
        return (
            tuple(one for one in mine if one.note.id in placed and (one.topic, one.answer) not in known),
            tuple(one for one in others if one.note.id in placed),
        )

    def speakers(self) -> dict[str, frozenset[str]]:
        """Whose words each of the tenant's notes and of the history are, by its id: who said it, or all who agree."""
        told = (*self.tenant, *self.history)
        agreed = {(kept.topic, kept.answer) for kept in told if kept.note.user is None}
        who: defaultdict[tuple[Topic, str], set[str]] = defaultdict(set)
        for (kind, name), notes in self.own.items():
            for kept in notes if kind == "user" else ():
                if (kept.topic, kept.answer) in agreed:
                    who[kept.topic, kept.answer].add(name)
        return {
            kept.note.id: frozenset(who[kept.topic, kept.answer] if kept.note.user is None else (kept.note.user,))
            for kept in told
        }

    def corrected(self, user: str | None) -> dict[str, frozenset[str]]:
        """The answers that each of the tenant's notes and of a person's own corrects, by its id. Of an agreed note they
        are what those who agree were told: to be compared with, never to be shown or taught."""
        return {kept.note.id: kept.corrected for kept in (*self.tenant, *self.owned(user, None)) if kept.corrected}

    def owned(self, user: str | None, session: str | None) -> tuple[Kept, ...]:
        """The standing notes of a person, or of the session of somebody unnamed."""
        if user is not None:
            return self.own.get(("user", user), ())
        return () if session is None else self.own.get(("session", session), ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a projection needs beside lessons."""

    tenant: str
    policy: str
    secret: bytes  # names agreed notes, so that no name says what stands in it
    agree: int = 3  # people who must say the same; 0: never
    silent: Collection[str] = ()  # users that are not learned from


def project(
    lessons: Sequence[Lesson],
    *,
    retracted: Collection[tuple[str, str | None, str | None]],
    standings: Mapping[str, Standing],
    rules: Rules,
) -> Notes:
    """The notes that lessons (in journal order) make. ``retracted``: (outcome, decision, session) of what was unsaid.

    A retraction counts only for what it speaks of itself: nobody takes back what another said elsewhere.
    """
    said = [one for one in lessons if not _unsaid(one, retracted)]
    refused = [Refused(lesson=one, reason=one.refused) for one in said if one.refused]
    silent = [one for one in said if not one.refused and one.outcome.user in rules.silent]
    refused += [Refused(lesson=one, reason=SILENT) for one in silent]
    heard = [one for one in said if not one.refused and one.outcome.user not in rules.silent]
    current, replaced_by = _newest(heard)
    kept = [
        _kept(one, standings.get(one.outcome.id, FRESH), replaced_by.get(one.outcome.id), rules=rules) for one in heard
    ]
    own, crowded = _by_owner([one for one in kept if one.note.id in current])
    refused += [Refused(lesson=one, reason=TOO_MANY) for one in heard if one.outcome.id in crowded]
    tenant, beaten = _of_tenant([one for notes in own.values() for one in notes], standings=standings, rules=rules)
    everybodys = {one.note.id for one in tenant}
    return Notes(
        own={owner: tuple(_scoped(one, everybodys) for one in notes) for owner, notes in own.items()},
        tenant=tuple(tenant),
        history=(*(one for one in kept if one.note.id in replaced_by and not one.standing.deleted), *beaten),
        refused=tuple(sorted(refused, key=lambda one: one.lesson.seq)),
    )


def _scoped(kept: Kept, everybodys: Collection[str]) -> Kept:
    if kept.note.id not in everybodys:
        return kept
    return replace(kept, note=replace(kept.note, scope=NoteScope.TENANT))


def _unsaid(lesson: Lesson, retracted: Collection[tuple[str, str | None, str | None]]) -> bool:
    outcome = lesson.outcome
    about = (outcome.id, outcome.decision, None if outcome.decision is not None else outcome.session)
    return about in retracted


def _newest(heard: Iterable[Lesson]) -> tuple[set[str], dict[str, str]]:
    """The lessons that stand, and for each other one the lesson that replaced it."""
    last: dict[tuple[Owner, Topic, str], str] = {}
    replaced_by: dict[str, str] = {}
    for lesson in heard:
        key = (lesson.owner, lesson.topic, "" if lesson.topic else lesson.answer)
        if key in last:
            replaced_by[last[key]] = lesson.outcome.id
        last[key] = lesson.outcome.id
    return set(last.values()), replaced_by


def _kept(lesson: Lesson, standing: Standing, replaced_by: str | None, *, rules: Rules) -> Kept:
    outcome = lesson.outcome
    note = Note(
        tenant=rules.tenant, policy=rules.policy, id=outcome.id,
        scope=NoteScope.USER, user=outcome.user, session=outcome.session, decision=outcome.decision,
        kind=outcome.kind, asked=lesson.asked, answered=lesson.answered, text=lesson.text,
        state=NoteState.ACTIVE if replaced_by is None else NoteState.RETIRED, replaced_by=replaced_by,
        support=int(outcome.user is not None), seq=lesson.seq, at_ms=outcome.at_ms,
    )  # fmt: skip
    said = same(lesson.answered) not in ("", lesson.answer) and lesson.topic
    corrects = said and outcome.kind is OutcomeKind.CORRECTION
    return Kept(note=note, owner=lesson.owner, topic=lesson.topic, answer=lesson.answer, standing=standing,
                corrected=frozenset((lesson.answered,) if corrects else ()))  # fmt: skip


def _by_owner(kept: Iterable[Kept]) -> tuple[dict[Owner, list[Kept]], set[str]]:
    """The notes of each owner that are not deleted, oldest first, and the ids of those beyond the most."""
    own: defaultdict[Owner, list[Kept]] = defaultdict(list)
    for one in kept:
        if not one.standing.deleted and one.owner is not None:
            own[one.owner].append(one)
    crowded = {one.note.id for notes in own.values() for one in notes[:-MOST_NOTES]}
    return {owner: notes[-MOST_NOTES:] for owner, notes in own.items()}, crowded


def _of_tenant(
    notes: Sequence[Kept], *, standings: Mapping[str, Standing], rules: Rules
) -> tuple[list[Kept], list[Kept]]:
    """The tenant's notes, one a topic and oldest first, and the agreed ones that others keep out."""
    shared = sorted((one for one in notes if one.standing.shared), key=lambda one: -one.standing.shared)
    agreed = _agreed(notes, standings=standings, rules=rules)
    agreed.sort(key=lambda one: (-one.note.support, -one.note.seq, one.note.id))
    first: dict[tuple[Topic, str], Kept] = {}
    beaten = []
    for one in (*shared, *agreed):
        winner = first.setdefault((one.topic, "" if one.topic else one.answer), one)
        if winner is not one and one.owner is None:
            lost = replace(one.note, state=NoteState.RETIRED, replaced_by=winner.note.id)
            beaten.append(replace(one, note=lost))
    tenant = [replace(one, note=replace(one.note, scope=NoteScope.TENANT), owner=None) for one in first.values()]
    return sorted(tenant, key=lambda one: (one.note.seq, one.note.id)), beaten


def _agreed(notes: Iterable[Kept], *, standings: Mapping[str, Standing], rules: Rules) -> list[Kept]:
    """What enough people say: the same answer on the same topic, each of them now, under their own name."""
    if not rules.agree:
        return []
    groups: defaultdict[tuple[Topic, str], dict[str, Kept]] = defaultdict(dict)
    for one in notes:
        if one.note.user is not None:
            groups[one.topic, one.answer][one.note.user] = one
    out = []
    for (topic, answer), by_user in groups.items():
        name = agreed_id(rules, topic, answer=answer)
        standing = standings.get(name, FRESH)
        if len(by_user) < rules.agree or standing.deleted:
            continue
        shown = [one for one in by_user.values() if one.note.kind is OutcomeKind.DEMONSTRATION]
        newest = max(shown or by_user.values(), key=lambda one: one.note.seq)
        note = replace(
            newest.note, id=name, scope=NoteScope.TENANT, user=None, session=None, decision=None, answered="",
            support=len(by_user), seq=max(one.note.seq for one in by_user.values()),
        )  # fmt: skip
        corrected = frozenset[str]().union(*(one.corrected for one in by_user.values()))
        out.append(replace(newest, note=note, owner=None, standing=standing, corrected=corrected))
    return out


def agreed_id(rules: Rules, topic: Topic, *, answer: str) -> str:
    """The id of what several people say on a topic: the same as long as they say it."""
    text = "\0".join((rules.tenant, rules.policy, *topic, "", answer)).encode()
    return f"agreed-{hmac.digest(rules.secret, text, 'sha256')[:16].hex()}"


Silence = Callable[[], Collection[tuple[str, str]]]
"""Who is served but never learned from, as (tenant, user)."""
