"""From the journal up to a place to what one layer learns in a night. The same range gives the same material.

Whose words teach what (promise 8):

- A *person's* layer learns their own notes and the tenant's, from their own conversations and verdicts and from the
  tenant's notes in the notes' own words; from nobody else's.
- The *tenant's* layer learns the tenant's notes, and from everybody's conversations and verdicts that hold nothing that
  is a person's own. An answer is a person's own where a note of theirs stood in its context, where the adapter that was
  made for them wrote it (it knows such notes by heart), and where they opted out. What was answered later in the same
  session, or with earlier answers to the same person in the conversation, is left out as well, and so is a conversation
  that holds an answer which is not among those read: whose it was is not known. Of the conversation behind a shared
  note nothing is taught that the note does not show.
- People who opted out teach nothing; answers of a version that a request named, and of ``explore: false``, neither.

An asking of a note is the question that it speaks of, and each later one that was answered with the note in context.
Its teacher reads the conversation with the notes placed as the server places them. A demonstration's text is the
answer in any wording. A correction's may be one, or a rule or a hint: recipes that need an answer take it as one.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from dayjob.endings import Ending, Invalid, OutcomeKind, Role
from dayjob.journal.readers import Reader
from dayjob.learn.language.lessons import Lesson, Material, Messages, Rehearsal, Verdict
from dayjob.learn.language.readings import (
    NOTHING_RECENT,
    Commons,
    Read,
    Recent,
    asked_of,
    is_plain,
    judging,
    read_of,
    served,
    session_thumb,
    thumb_of,
    verdict_of,
    with_answer,
)
from dayjob.learn.language.recipes import Method
from dayjob.learn.language.splits import Asking, Key, Split, key_of, split
from dayjob.memory.lessons import last_question
from dayjob.memory.nightly import NightNotes
from dayjob.memory.notes import NotesMemory
from dayjob.memory.render import entry_of, render, with_notes
from dayjob.memory.words import topic
from dayjob.records import Choice, Json, Note, Stored, StoredOutcome

if TYPE_CHECKING:
    from dayjob.policies.tokens import Tokens

MOST = 20_000  # newest decisions that are read
MOST_ASKINGS = 64  # of one note, the newest; the question that it speaks of not counted
MOST_JUDGED = 4_000  # answers that were judged, the newest
MOST_REHEARSALS = 512  # prompts of traffic, the newest
FIT_TO_TEACH = (Role.CHAMPION, Role.TRIAL, Role.BASELINE)
BY_VERDICT = ("accept-reject", "preferences", "published-sft", "published-grpo")  # what learns from judged answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Which layer learns, and how: ``user`` None is the tenant's; ``base`` the base model's name; ``budget`` tokens of
    notes in a context; ``versions`` the names of all versions of the tenant's layer: what another one wrote is a
    person's own."""

    tenant: str
    policy: str
    user: str | None
    base: str
    method: Method
    versions: Collection[str]
    budget: int = 512
    silent: Collection[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """What a night gets. ``users``: everybody whose words are in it, those of the exam too."""

    split: Split
    users: frozenset[str]
    from_seq: int
    to_seq: int
    decisions: int
    recent: Recent = NOTHING_RECENT

    @property
    def material(self) -> Material:
        """What is learned from and stopped by; the exam's questions are in neither."""
        return Material(
            lessons=tuple(one.lesson for one in self.split.train),
            rehearsals=self.split.train_traffic,
            stop_lessons=tuple(one.lesson for one in self.split.stop),
            stop_rehearsals=self.split.stop_traffic,
            exam=tuple(sorted({topic(last_question(one.lesson.question)) for one in self.split.exam})),
        )


def collect(reader: Reader, memory: NotesMemory, *, layer: Layer, tokens: Tokens, until: int) -> Gathered:
    """Everything that ``layer`` may learn from, up to sequence number ``until``."""
    return _Collecting(reader, memory, layer=layer, tokens=tokens, until=until).gathered()


@dataclass(slots=True, kw_only=True)
class _Found:
    """What is found while the journal is read, oldest first."""

    askings: defaultdict[str, deque[Read]] = field(  # by note
        default_factory=lambda: defaultdict(partial(deque, maxlen=MOST_ASKINGS))
    )
    judged: deque[Read] = field(default_factory=lambda: deque(maxlen=MOST_JUDGED))
    recent: deque[Read] = field(default_factory=lambda: deque(maxlen=2 * MOST_REHEARSALS))


class _Collecting:
    """One reading of the journal for one layer."""

    def __init__(self, reader: Reader, memory: NotesMemory, *, layer: Layer, tokens: Tokens, until: int) -> None:
        self._reader, self._layer, self._tokens, self._until = reader, layer, tokens, until
        address, control = (layer.tenant, layer.policy), tokens.control
        tenant = memory.for_training(*address, user=None, version="", until=until, control=control)
        own = (
            [] if layer.user is None
            else memory.for_training(*address, user=layer.user, version="", until=until, control=control)
        )  # fmt: skip
        self._notes = NightNotes(own, tenant)
        self._speakers = memory.speakers(*address, until=until)
        self._corrected = memory.corrected(*address, user=layer.user, until=until)
        # What once stood in a context has to be known to be read again; what was deleted is in none of these.
        known = tenant if layer.user is None else memory.listed(*address, version="", user=layer.user)[0]
        self._known = {one.id: one for one in (*known, *self._notes.by_id.values())}
        self._silent = {user for owner, user in layer.silent if owner == layer.tenant}
        self._commons = Commons(notes=[one.id for one in tenant], versions=layer.versions, silent=self._silent)
        self._used: dict[str, Read] = {}
        self._shown: set[str] = set()  # notes that a teacher reads, or that stood in a context of what is used
        self._found = _Found()

    def gathered(self) -> Gathered:
        """All of it."""
        for read in self._reads():
            self._sort(read)
        askings = self._of_notes()
        askings += self._of_sessions({key_of(one.lesson.question) for one in askings})
        askings += self._of_verdicts()
        parts = split(askings, self._traffic())
        notes = self._shown.union(note for one in askings for note in one.notes)
        users = {user for one in self._used.values() for user in one.users}
        seqs = [one.seq for one in self._used.values()]
        seqs += [self._known[one].seq for one in notes if one in self._known]
        return Gathered(
            split=parts, users=frozenset(users.union(*map(self._said, notes))),
            from_seq=min(seqs, default=self._until + 1) - 1, to_seq=self._until, decisions=len(self._used),
            recent=Recent.of(self._found.recent, self._notes.by_id, said=self._said),
        )  # fmt: skip

    # ---- reading

    def _reads(self) -> Iterator[Read]:
        """The decisions that may teach, of the newest ``MOST``, as the journal stood at ``until``; oldest first."""
        address = (self._layer.tenant, self._layer.policy)
        cursor = self._reader.cursor_before(*address, MOST, until=self._until)
        while True:
            page, cursor = self._reader.decisions(*address, cursor=cursor)
            page = [stored for stored in page if stored.seq <= self._until]
            if not page:
                return
            outcomes = self._reader.outcomes(self._layer.tenant, page)
            for stored in page:
                read = self._read(stored, outcomes.get(stored.record.id, ()))
                self._commons.watch(stored.record)
                if read is not None:
                    yield read

    def _read(self, stored: Stored, outcomes: Sequence[StoredOutcome]) -> Read | None:
        """A decision as this layer may see it; None where it may not teach it."""
        decision = stored.record
        if not self._may_teach(stored):
            return None
        told = [one for one in outcomes if one.seq <= self._until and one.record.user not in self._silent]
        # Whoever speaks of a session does not make it theirs: what was said there may be another's.
        mine = decision.user == self._layer.user if self._layer.user is not None else decision in self._commons
        return read_of(stored, told) if mine else None

    def _may_teach(self, stored: Stored) -> bool:
        """Whether a decision teaches somebody."""
        decision, generation = stored.record, stored.record.generation
        if generation is None or generation.base != self._layer.base or stored.seq > self._until:
            return False
        return decision.role in FIT_TO_TEACH and decision.explore and decision.user not in self._silent

    def _sort(self, read: Read) -> None:
        for note in read.generation.notes:
            if note in self._notes.by_id:
                self._found.askings[note].append(read)
        if read.told or any(self._is_silence(one) for one in read.generation.choices):
            self._found.judged.append(read)
        self._found.recent.append(read)

    def _said(self, note: str) -> frozenset[str]:
        """Whose words a note is, or was."""
        if note in self._speakers:
            return self._speakers[note]
        told = self._reader.outcome(self._layer.tenant, note)
        return frozenset(() if told is None or told.record.user is None else (told.record.user,))

    # ---- askings of notes

    def _of_notes(self) -> list[Asking]:
        """Every asking of every note, each question once: of the note that speaks of it, or else is nearest to it."""
        origins: dict[Key, tuple[Note, Read | None, Messages]] = {}
        later: dict[Key, Read] = {}
        stood: defaultdict[Key, set[str]] = defaultdict(set)
        for note in sorted(self._notes.by_id.values(), key=lambda one: (one.seq, one.id)):
            for spoken, messages in self._origins(note):
                origins[key_of(messages)] = note, spoken, messages
                stood[key_of(messages)].add(note.id)
            for read in self._found.askings[note.id]:
                stood[read.key].add(note.id)
                later[read.key] = max(later.get(read.key, read), read, key=lambda one: one.seq)
        out = [self._origin(note, spoken, messages, stood[key]) for key, (note, spoken, messages) in origins.items()]
        for key, read in sorted(later.items(), key=lambda item: item[1].seq):
            if key not in origins:
                near = self._notes.nearest(last_question(read.messages), among=sorted(stood[key]))
                out.append(self._later(self._notes.by_id[near], read, stood[key]))
        return out

    def _origins(self, note: Note) -> Iterator[tuple[Read | None, Messages]]:
        """The questions that a note speaks of. Of the tenant's nothing is told that the note does not show itself."""
        own = self._layer.user is not None and note.user == self._layer.user
        if own and not note.asked:
            for read in self._found.recent:  # it speaks of a whole session, as far as that was
                if read.decision.session == note.session is not None and read.seq < note.seq:
                    yield read, read.messages
            return
        found = self._decision(note.decision) if note.decision and (own or self._layer.user is None) else None
        if found is not None and (own or is_plain(found.messages, note)):
            yield found, found.messages
        elif note.asked and (not own or self._is_nobodys(note.decision)):
            yield None, ({"role": "user", "content": note.asked},)

    def _is_nobodys(self, decision: str | None) -> bool:
        """Whether a note speaks of an answer to somebody unnamed: then it is the note alone that is its owner's."""
        stored = self._reader.decision(self._layer.tenant, decision) if decision else None
        return stored is not None and stored.record.user is None and self._may_teach(stored)

    def _decision(self, decision: str) -> Read | None:
        """The decision that a note speaks of, however old; None where it may not teach."""
        tenant, stored = self._layer.tenant, self._reader.decision(self._layer.tenant, decision)
        told = self._reader.outcomes(tenant, [stored]) if stored else {}
        return self._read(stored, told.get(decision, ())) if stored else None

    def _origin(self, note: Note, read: Read | None, messages: Messages, stood: Collection[str]) -> Asking:
        """The question that a note speaks of, with what is known to be right and what is known to be wrong."""
        text, consolidates = note.text if self._is_answer(note) else None, self._layer.method == "consolidate"
        asked = {"question": messages, "session": note.session or ""} if read is None else asked_of(read)
        lesson = Lesson(
            id=note.id if note.asked or read is None else f"{note.id}@{read.decision.id}", **asked,
            **self._contexts(messages, note=note.id), correction=text, told=True,
            thumb=0 if consolidates or read is None else thumb_of(read), standard=text, family=note.id,
        )  # fmt: skip
        if read is not None:
            self._use(read)
            lesson = with_answer(lesson, read)
        return Asking(
            lesson=lesson, teacher=note.id, decision=None if read is None else read.decision.id, as_taught=True,
            notes=tuple(sorted({*stood, note.id})), wrong=self._corrected.get(note.id, frozenset()),
            is_known=text is not None, said="" if text else note.text,
        )  # fmt: skip

    def _is_answer(self, note: Note) -> bool:
        """Whether a note's text is taken as the answer to the question that it speaks of."""
        return bool(note.asked) and (note.kind is OutcomeKind.DEMONSTRATION or self._layer.method != "consolidate")

    def _later(self, note: Note, read: Read, stood: Collection[str]) -> Asking:
        """A question that was answered with notes: the teacher knows them, nobody said what would be right. Where the
        answer was disliked all the same, nothing is known."""
        self._use(read)
        thumb, standard = thumb_of(read), note.text if self._is_answer(note) else None
        lesson = Lesson(
            id=f"{note.id}@{read.decision.id}", **asked_of(read), told=thumb >= 0, thumb=thumb, family=note.id,
            **self._contexts(read.messages, note=note.id), standard=standard,
        )  # fmt: skip
        return Asking(lesson=lesson, teacher=note.id, decision=read.decision.id, notes=tuple(sorted(stood)),
                      is_known=standard is not None, said="" if standard else note.text)  # fmt: skip

    def _contexts(self, messages: Messages, *, note: str) -> Json:
        """What a teacher reads, who knows the note, and what a version will read that needs it no more."""
        tokens, asked = self._tokens, last_question(messages)
        room: Json = {"budget": self._layer.budget, "count": lambda text: len(tokens.encode(text))}
        taught = self._notes.place(asked, first=note, control=tokens.control, **room)
        others = self._notes.beside(asked, without=note, control=tokens.control, **room)
        self._shown.update(taught.ids, others.ids)
        beside = tuple(with_notes(messages, others.text)) if others.text else None
        return {"context": tuple(with_notes(messages, taught.text)), "beside": beside}

    # ---- judged answers

    def _of_verdicts(self) -> list[Asking]:
        """Answers that people judged without words."""
        if self._layer.method not in BY_VERDICT:
            return []
        return [
            asking
            for read in self._found.judged
            for index, choice in enumerate(read.generation.choices)
            if choice.ending is not Ending.ABORTED
            for asking in self._judged(read, index, choice)
        ]

    def _judged(self, read: Read, index: int, choice: Choice) -> Iterator[Asking]:
        verdict, thumb = self._verdict(read, index), thumb_of(read, index)
        wanted = {"accept-reject": verdict is not None, "published-sft": thumb > 0}
        if not wanted.get(self._layer.method, thumb != 0):
            return
        told = judging(read, index)
        said = told[-1].record.id if told else read.decision.id
        lesson = Lesson(
            id=f"{said}@{read.decision.id}.{index}", **asked_of(read), thumb=thumb, verdict=verdict, family=said,
        )  # fmt: skip
        self._use(read)
        lesson = replace(lesson, **served(choice, read.decision))
        yield Asking(lesson=lesson, teacher=said, decision=read.decision.id)

    def _verdict(self, read: Read, index: int) -> Verdict | None:
        """Of a suggestion, for the recipe that learns from them. Silence earns 0 whether or not anybody says so: left
        out, the mean that rewards are measured against would be that of the suggestions alone, and the threshold above
        which it is worth making one too high by it."""
        if self._layer.method != "accept-reject":
            return None
        return verdict_of(read, index) or ("none" if self._is_silence(read.generation.choices[index]) else None)

    def _is_silence(self, choice: Choice) -> bool:
        """An answer of nothing but its end, in a policy that learns from suggestions."""
        ids = np.frombuffer(choice.token_ids, "<u4").tolist()
        return self._layer.method == "accept-reject" and bool(ids) and self._tokens.end_ids.issuperset(ids)

    def _of_sessions(self, known: set[Key]) -> list[Asking]:
        """The last question of each conversation in sessions that their owner liked, with the conversation before it as
        what the teacher knows: a person's own words, so for their layer alone."""
        if self._layer.user is None or self._layer.method != "consolidate":
            return []
        out: list[Asking] = []
        for read in self._found.judged:
            liked, messages = session_thumb(read), read.messages
            if liked is None or liked.record.value != 1 or thumb_of(read) < 0 or not read.went_on:
                continue
            question = (*(messages[:1] if messages[0]["role"] == "system" else ()), messages[-1])
            context = self._as_read(read)
            if context is None or messages[-1]["role"] != "user" or key_of(question) in known:
                continue
            known.add(key_of(question))
            self._use(read)
            said = liked.record.id
            asked = asked_of(read) | {"question": question}
            lesson = Lesson(
                id=f"{said}@{read.decision.id}", **asked, context=context, told=True, thumb=1, family=said
            )  # fmt: skip
            out.append(Asking(lesson=lesson, teacher=said, decision=read.decision.id))
        return out

    # ---- traffic

    def _traffic(self) -> list[tuple[Key, Rehearsal]]:
        """The newest prompts exactly as they were read, each once."""
        out: dict[object, tuple[Key, Rehearsal]] = {}
        for read in reversed(self._found.recent):
            key = (read.key, read.generation.notes, repr(read.generation.tools))
            question = None if key in out else self._as_read(read)
            if question is not None:
                self._use(read)
                out[key] = read.key, Rehearsal(question=question, tools=read.generation.tools)
                if len(out) == MOST_REHEARSALS:
                    break
        return list(out.values())[::-1]

    def _as_read(self, read: Read) -> Messages | None:
        """The conversation with the notes that stood in it; None where it cannot be had again as it was: a note was
        deleted, or the tokenizer is another."""
        generation = read.generation
        if any(note not in self._known for note in generation.notes):
            return None
        text = render([entry_of(self._known[note]) for note in generation.notes])
        messages = tuple(with_notes(generation.messages, text))
        try:
            ids = self._tokens.render(messages, tools=generation.tools)
        except Invalid:
            return None
        return messages if ids == tuple(np.frombuffer(generation.prompt_ids, "<u4").tolist()) else None

    def _use(self, read: Read) -> None:
        self._used[read.decision.id] = read
        self._shown.update(read.generation.notes)
