"""One id, one effect: any order of late, early, repeated, contradicting, retracted and erased against a plain dict.

The model below is a dict of what should have happened, written without looking at any store. The same machine runs
against the embedded journal and against the fake.
"""

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dayjob.endings import OutcomeKind, Receipt
from dayjob.fakes import FakeJournal, fake_decision, fake_id, fake_outcome, find_fake_spec
from dayjob.journal.join import surviving
from dayjob.journal.protocol import JournalReader, JournalWriter
from dayjob.journal.readers import Reader
from dayjob.journal.store import Store, StoreConfig

USERS = (None, "ann", "bob")
HELD_PER_KEY = 4
decisions_of = st.integers(1, 4)
outcomes_of = st.integers(101, 106)
bodies = st.integers(0, 1)
positions = st.integers(1, 4)


@dataclass
class Model:
    """What should be true. Outcomes are (decision, body, position) by id; ``waiting`` in the order they came."""

    decided: dict[int, int] = field(default_factory=dict)
    owner: dict[int, str | None] = field(default_factory=dict)
    told: dict[int, tuple[int, int, str]] = field(default_factory=dict)
    order: dict[int, list[int]] = field(default_factory=dict)
    waiting: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    erased: set[int] = field(default_factory=set)

    def decide(self, number: int, body: int, owner: str | None) -> Receipt:
        if number in self.erased:
            return Receipt.ERASED
        if number in self.decided:
            return Receipt.REPEATED if self.decided[number] == body else Receipt.CONFLICT
        self.decided[number], self.owner[number] = body, owner
        for one, (decision, early_body, position) in list(self.waiting.items()):
            if decision == number:
                del self.waiting[one]
                if position <= 3:
                    self.record(one, number, early_body, kind="click")
        return Receipt.RECORDED

    def tell(self, number: int, decision: int, *, body: int, position: int) -> Receipt:
        if {number, decision} & self.erased:
            return Receipt.ERASED
        for known, receipt in ((self.told, Receipt.REPEATED), (self.waiting, Receipt.HELD)):
            if number in known:
                return receipt if known[number][:2] == (decision, body) else Receipt.CONFLICT
        if decision not in self.decided:
            if len(self.waiting) >= HELD_PER_KEY:
                return Receipt.CROWDED
            self.waiting[number] = (decision, body, position)
            return Receipt.HELD
        if position > 3:
            return Receipt.REFUSED
        self.record(number, decision, body, kind="click")
        return Receipt.RECORDED

    def record(self, number: int, decision: int, body: int, *, kind: str) -> None:
        self.told[number] = (decision, body, kind)
        self.order.setdefault(decision, []).append(number)

    def erase(self, user: str) -> tuple[int, int, int]:
        gone = {number for number, owner in self.owner.items() if owner == user}
        told = {one for one, (decision, *_) in self.told.items() if decision in gone}
        self.erased |= gone | told
        for number in gone:
            del self.decided[number], self.owner[number]
            self.order.pop(number, None)
        for one in told:
            del self.told[one]
        return len(gone), len(told), 0


def body_of(decision: int, body: int) -> bytes:
    return bytes([decision, body]) * 8


class Machine(RuleBasedStateMachine):
    """Rules against one journal; subclasses open it."""

    writer: JournalWriter
    reader: JournalReader

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.taken = 0
        self.writer, self.reader = self.open()

    def open(self) -> tuple[JournalWriter, JournalReader]:
        journal = FakeJournal(held_per_key=HELD_PER_KEY)
        return journal, journal

    def teardown(self) -> None:
        self.writer.close()

    def send(self, number: int, decision: int, *, body: int, position: int) -> Receipt:
        click = fake_outcome(number, fake_id(decision), kind=OutcomeKind.CLICK)
        click = replace(click, position=position, body_digest=body_of(decision, body))
        return self.writer.append_outcome(click).result().receipt

    @rule(number=decisions_of, body=bodies, owner=st.sampled_from(USERS))
    def decide(self, number: int, body: int, owner: str | None) -> None:
        decision, blobs = fake_decision(number)
        decision = replace(decision, user=owner, body_digest=body_of(0, body), coin=body)
        written = self.writer.append_decision(decision, blobs).result()
        assert written.receipt is self.model.decide(number, body, owner)
        if written.receipt is Receipt.REPEATED:
            assert written.first is not None
            assert written.first.user == self.model.owner[number], "the first answer, not the second"

    @rule(number=outcomes_of, decision=decisions_of, body=bodies, position=positions)
    def tell(self, number: int, decision: int, body: int, position: int) -> None:
        expected = self.model.tell(number, decision, body=body, position=position)
        assert self.send(number, decision, body=body, position=position) is expected

    @rule(number=outcomes_of)
    @precondition(lambda self: self.model.told)
    def tell_again(self, number: int) -> None:
        one = sorted(self.model.told)[number % len(self.model.told)]
        decision, body, kind = self.model.told[one]
        if kind == "click":
            assert self.send(one, decision, body=body, position=1) is Receipt.REPEATED

    @rule(number=st.integers(201, 203), which=outcomes_of)
    @precondition(lambda self: any(kind == "click" for *_, kind in self.model.told.values()))
    def retract(self, number: int, which: int) -> None:
        clicks = sorted(one for one, (*_, kind) in self.model.told.items() if kind == "click")
        one = clicks[which % len(clicks)]
        decision = self.model.told[one][0]
        outcome = replace(
            fake_outcome(number, None, kind=OutcomeKind.RETRACT), value=fake_id(one), body_digest=body_of(one, 9)
        )
        receipt = self.writer.append_outcome(outcome).result().receipt
        if number in self.model.erased:
            assert receipt is Receipt.ERASED
        elif number in self.model.told:
            same = self.model.told[number][2] == f"retract {one}"
            assert receipt is (Receipt.REPEATED if same else Receipt.CONFLICT)
        else:
            assert receipt is Receipt.RECORDED
            self.model.record(number, decision, 9, kind=f"retract {one}")

    @rule(user=st.sampled_from(("ann", "bob")))
    def erase(self, user: str) -> None:
        counts = self.writer.erase_user("t", user).result()
        assert (counts["decisions"], counts["outcomes"], counts["held"]) == self.model.erase(user)

    @rule()
    def expire(self) -> None:
        assert self.writer.expire_held(10**15).result() == len(self.model.waiting)
        self.model.waiting.clear()

    @rule()
    def reopen(self) -> None:
        """A restart changes nothing."""

    @invariant()
    def the_journal_is_the_model(self) -> None:
        stored, _ = self.reader.decisions("t", "p")
        assert {s.record.id for s in stored} == {fake_id(number) for number in self.model.decided}
        outcomes = self.reader.outcomes("t", stored)
        for number in self.model.decided:
            found = outcomes.get(fake_id(number), [])
            assert [o.record.id for o in found] == [fake_id(one) for one in self.model.order.get(number, [])]
            assert [o.seq for o in found] == sorted(o.seq for o in found)
            self.check_surviving(number)
        told = self.model.told.values()
        counts = {"decisions": len(self.model.decided), "click": sum(kind == "click" for *_, kind in told)}
        found_counts = self.reader.counts("t", "p")
        assert {what: found_counts.get(what, 0) for what in counts} == counts
        last = self.reader.last_seq()
        assert last >= self.taken, "a sequence number is never used twice"
        self.taken = last

    def check_surviving(self, number: int) -> None:
        stored = self.reader.decision("t", fake_id(number))
        assert stored is not None
        order = self.model.order.get(number, [])
        gone = {self.model.told[one][2].partition(" ")[2] for one in order}
        clicks = [one for one in order if self.model.told[one][2] == "click" and str(one) not in gone]
        found = surviving(self.reader.outcomes("t", [stored]).get(fake_id(number), []))
        assert [o.record.id for o in found] == [fake_id(one) for one in clicks]


class EmbeddedMachine(Machine):
    """The same against files on disk, closed and opened again."""

    def open(self) -> tuple[JournalWriter, JournalReader]:
        self.place = tempfile.TemporaryDirectory()
        self.root = Path(self.place.name)
        return self.start(), Reader(self.root)

    def start(self) -> Store:
        config = StoreConfig(held_per_key=HELD_PER_KEY, ballast_bytes=0)
        return Store(self.root, secret=b"s" * 32, find_spec=find_fake_spec, config=config)

    @rule()
    def reopen(self) -> None:
        self.writer.close()
        self.writer = self.start()

    def teardown(self) -> None:
        super().teardown()
        self.place.cleanup()


EAGER = [HealthCheck.too_slow, HealthCheck.data_too_large]
TestFakeJournal = Machine.TestCase
TestFakeJournal.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestEmbeddedJournal = EmbeddedMachine.TestCase
TestEmbeddedJournal.settings = settings(
    max_examples=10, stateful_step_count=20, deadline=None, suppress_health_check=EAGER
)


def test_the_model_itself_by_hand() -> None:
    model = Model()
    assert model.tell(101, 1, body=0, position=2) is Receipt.HELD
    assert model.decide(1, 0, "ann") is Receipt.RECORDED
    assert model.order == {1: [101]}
    assert model.tell(101, 1, body=0, position=2) is Receipt.REPEATED
    assert model.tell(101, 1, body=1, position=2) is Receipt.CONFLICT
    assert model.erase("ann") == (1, 1, 0)
    assert model.tell(101, 2, body=0, position=1) is Receipt.ERASED
