"""The contract of every journal: ``check_journal(make)`` runs it against any store.

``make(held_per_key)`` opens an empty journal, as a writer and a reader of it, over `fakes.find_fake_spec`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

import numpy as np
import pytest

from dayjob.endings import Damaged, Invalid, OutcomeKind, Receipt
from dayjob.fakes import DIM, fake_decision, fake_generation, fake_id, fake_outcome
from dayjob.journal import vectors
from dayjob.journal.join import Window
from dayjob.journal.protocol import JournalReader, JournalWriter
from dayjob.records import CatalogItem, Outcome, Written

Opened = tuple[JournalWriter, JournalReader]
Make = Callable[[int], AbstractContextManager[Opened]]
Check = Callable[[JournalWriter, JournalReader], None]
WINDOW = Window(length_ms=60_000)
HELD_PER_KEY = 3


def decide(writer: JournalWriter, number: int, **changes: object) -> Written:
    decision, blobs = fake_decision(number)
    return writer.append_decision(replace(decision, **changes), blobs).result()


def tell(writer: JournalWriter, outcome: Outcome) -> Receipt:
    return writer.append_outcome(outcome).result().receipt


def click(number: int, decision: int, **changes: object) -> Outcome:
    return replace(fake_outcome(number, fake_id(decision), kind=OutcomeKind.CLICK), **changes)


def whole_session(number: int, session: str, **changes: object) -> Outcome:
    return replace(fake_outcome(number, None), session=session, **changes)


def kinds_of(reader: JournalReader, number: int) -> list[str]:
    """The kinds of a decision's outcomes in journal order."""
    stored = reader.decision("t", fake_id(number))
    assert stored is not None
    return [o.record.kind.value for o in reader.outcomes("t", [stored]).get(stored.record.id, [])]


def sees_what_it_was_told(writer: JournalWriter, reader: JournalReader) -> None:
    decision, blobs = fake_decision(1)
    decision = replace(decision, user="ann", session="s", extra={"loss": [[0.0, 1.5], [2.0, 0.0]]}, coin=-1)
    written = writer.append_decision(decision, blobs).result()
    assert written.receipt is Receipt.RECORDED
    stored = reader.decision("t", decision.id)
    assert stored is not None
    assert (stored.seq, stored.record) == (written.seq, decision)
    outcome = click(2, 1, value=None, text="näher\n", at_ms=7)
    assert tell(writer, outcome) is Receipt.RECORDED
    (found,) = reader.outcomes("t", [stored])[decision.id]
    assert found.record == replace(outcome, policy="p", user="ann")
    assert found.seq > stored.seq
    assert reader.last_seq() == found.seq


def one_id_has_one_effect(writer: JournalWriter, reader: JournalReader) -> None:
    first = decide(writer, 1)
    again = decide(writer, 1)
    assert (again.receipt, again.seq) == (Receipt.REPEATED, first.seq)
    assert again.first == fake_decision(1)[0]
    later = decide(writer, 1, seed=99, version="v9-00000000")
    assert later.receipt is Receipt.REPEATED
    assert later.first is not None
    assert later.first.version == "v0-baseline", "an equal retry gets the first answer"
    assert decide(writer, 1, body_digest=b"another body....").receipt is Receipt.CONFLICT
    assert decide(writer, 1, policy="q", body_digest=b"another policy..").receipt is Receipt.CONFLICT
    assert tell(writer, click(2, 1)) is Receipt.RECORDED
    assert tell(writer, click(2, 1, received_ms=5)) is Receipt.REPEATED
    assert tell(writer, click(2, 1, body_digest=b"another body....")) is Receipt.CONFLICT
    assert kinds_of(reader, 1) == ["click"]
    assert reader.counts("t", "p") == {"decisions": 1, "click": 1}
    assert len(reader.decisions("t", "p")[0]) == 1
    # A decision and an outcome may share an id: ids are unique per kind of record.
    assert tell(writer, click(1, 1)) is Receipt.RECORDED


def what_came_early_counts_once_its_decision_comes(writer: JournalWriter, reader: JournalReader) -> None:
    assert tell(writer, click(10, 1)) is Receipt.HELD
    assert tell(writer, click(10, 1)) is Receipt.HELD
    assert tell(writer, click(10, 1, body_digest=b"another body....")) is Receipt.CONFLICT
    assert tell(writer, fake_outcome(11, fake_id(1))) is Receipt.HELD
    assert tell(writer, click(12, 1, position=4)) is Receipt.HELD
    assert reader.counts("t", "p").get("click", 0) == 0
    decided = decide(writer, 1, user="ann")
    assert kinds_of(reader, 1) == ["click", "none"], "in the order they came; what does not fit is dropped"
    stored = reader.decision("t", fake_id(1))
    assert stored is not None
    found = reader.outcomes("t", [stored])[stored.record.id]
    assert all(o.seq > decided.seq for o in found)
    assert [(o.record.policy, o.record.user) for o in found] == [("p", "ann")] * 2
    assert reader.counts("t", "p") == {"decisions": 1, "click": 1, "none": 1}
    assert tell(writer, click(10, 1)) is Receipt.REPEATED
    assert tell(writer, click(12, 1, position=4)) is Receipt.REFUSED


def what_waits_is_capped_and_expires(writer: JournalWriter, reader: JournalReader) -> None:
    for number in range(HELD_PER_KEY):
        assert tell(writer, click(10 + number, 1, received_ms=100 + number)) is Receipt.HELD
    assert tell(writer, click(20, 2)) is Receipt.CROWDED
    assert tell(writer, click(10, 1, received_ms=100)) is Receipt.HELD, "an equal retry is no newcomer"
    assert tell(writer, click(21, 2, key_id="another", received_ms=500)) is Receipt.HELD
    assert writer.expire_held(102).result() == 2
    assert tell(writer, click(20, 2, received_ms=500)) is Receipt.HELD
    decide(writer, 1)
    assert kinds_of(reader, 1) == ["click"], "the third came too late to expire"


def sessions_speak_of_their_decisions(writer: JournalWriter, reader: JournalReader) -> None:
    assert tell(writer, whole_session(10, "s")) is Receipt.HELD
    decide(writer, 1, session="s", user="ann")
    assert kinds_of(reader, 1) == ["none"], "a session's outcome waits for the session"
    assert tell(writer, whole_session(10, "s")) is Receipt.REPEATED
    decide(writer, 2, session="s", user="ann")
    decide(writer, 3, session="another")
    thumb = whole_session(11, "s", kind=OutcomeKind.THUMB, value=1.0)
    assert tell(writer, thumb) is Receipt.RECORDED
    assert [kinds_of(reader, n) for n in (1, 2, 3)] == [["none", "thumb"], ["none", "thumb"], []]
    assert tell(writer, whole_session(12, "s", kind=OutcomeKind.CLICK, position=1)) is Receipt.REFUSED
    assert tell(writer, whole_session(13, "s", kind=OutcomeKind.REWARD, value=1.5)) is Receipt.REFUSED
    assert tell(writer, whole_session(14, "s", user="bob")) is Receipt.FORBIDDEN


def what_contradicts_the_decision_is_refused(writer: JournalWriter, reader: JournalReader) -> None:
    decide(writer, 1, user="ann")
    misfits = [
        click(10, 1, position=4),
        click(11, 1, item="z", position=None),
        click(12, 1, item="b", position=1),
        click(13, 1, position=None),
        click(14, 1, kind=OutcomeKind.THUMB, position=None, value=2.0),
        click(15, 1, kind=OutcomeKind.REWARD, position=None, value=1.01),
        click(16, 1, kind=OutcomeKind.TRUTH, position=None, value={"relevance": {"z": 1.0}}),
        click(17, 1, kind=OutcomeKind.CORRECTION, position=None, text="nearer"),
        replace(fake_outcome(18, None, kind=OutcomeKind.RETRACT), value=fake_id(99)),
    ]
    assert [tell(writer, each) for each in misfits] == [Receipt.REFUSED] * len(misfits)
    assert tell(writer, click(20, 1, user="bob")) is Receipt.FORBIDDEN
    assert kinds_of(reader, 1) == []
    assert reader.counts("t", "p") == {"decisions": 1}
    assert tell(writer, click(10, 1, position=3)) is Receipt.RECORDED, "a refused id is free"
    assert tell(writer, click(12, 1, item="b", position=2, user="ann")) is Receipt.RECORDED
    assert tell(writer, click(16, 1, kind=OutcomeKind.TRUTH, position=None, item="c")) is Receipt.RECORDED


def somebody_elses_early_word_does_not_count(writer: JournalWriter, reader: JournalReader) -> None:
    assert tell(writer, click(10, 1, user="bob")) is Receipt.HELD
    decide(writer, 1, user="ann")
    assert kinds_of(reader, 1) == []
    assert tell(writer, click(10, 1, user="bob")) is Receipt.FORBIDDEN


def a_retraction_speaks_of_what_its_outcome_spoke_of(writer: JournalWriter, reader: JournalReader) -> None:
    decide(writer, 1)
    assert tell(writer, click(10, 1)) is Receipt.RECORDED
    retraction = replace(fake_outcome(11, None, kind=OutcomeKind.RETRACT), value=fake_id(10))
    assert tell(writer, retraction) is Receipt.RECORDED
    assert tell(writer, retraction) is Receipt.REPEATED
    assert kinds_of(reader, 1) == ["click", "retract"]


def tenants_do_not_meet(writer: JournalWriter, reader: JournalReader) -> None:
    decide(writer, 1, user="ann", session="s")
    assert tell(writer, click(10, 1)) is Receipt.RECORDED
    assert tell(writer, click(10, 1, tenant="u")) is Receipt.FORBIDDEN, "another tenant's decision"
    assert decide(writer, 1, tenant="u", user="ann", body_digest=b"another body....").receipt is Receipt.RECORDED
    assert tell(writer, click(10, 1, tenant="u")) is Receipt.RECORDED, "ids are each tenant's own"
    assert tell(writer, whole_session(11, "s", tenant="u")) is Receipt.HELD
    assert (reader.counts("t", "p"), reader.counts("u", "p")) == ({"decisions": 1, "click": 1},) * 2
    first, second = reader.decision("t", fake_id(1)), reader.decision("u", fake_id(1))
    assert first is not None
    assert second is not None
    assert (first.record.tenant, second.record.tenant) == ("t", "u")
    assert [len(reader.decisions(tenant, "p")[0]) for tenant in ("t", "u", "v")] == [1, 1, 0]
    digest = first.record.candidates[0].digest
    with pytest.raises(Damaged):
        reader.get_many("v", [digest], dim=DIM)
    assert writer.erase_user("u", "ann").result()["decisions"] == 1
    assert reader.decision("u", fake_id(1)) is None
    assert reader.decision("t", fake_id(1)) == first
    assert reader.get_many("t", [digest], dim=DIM).shape == (1, DIM)


def erasing_takes_everything_of_one_person(writer: JournalWriter, reader: JournalReader) -> None:
    shared, own = ("a", "b"), ("a", "only-ann")
    for number, (items, user) in enumerate(((shared, "ann"), (own, "ann"), (shared, "bob")), start=1):
        decision, blobs = fake_decision(number, items)
        writer.append_decision(replace(decision, user=user, session=f"s{number}"), blobs).result()
    for number, decided in ((10, 1), (11, 2), (12, 3)):
        assert tell(writer, click(number, decided)) is Receipt.RECORDED
    assert tell(writer, click(13, 9, user="ann")) is Receipt.HELD
    assert tell(writer, whole_session(14, "s1")) is Receipt.RECORDED
    only_ann = fake_decision(2, own)[0].candidates[1].digest
    assert writer.erase_user("t", "ann").result() == {"decisions": 2, "outcomes": 3, "held": 1, "vectors": 1}
    assert [list(rows) for rows in reader.of_user("t", "ann")] == [[], []]
    assert reader.counts("t", "p")["decisions"] == 1
    assert reader.counts("t", "p")["click"] == 1
    assert reader.counts("t", "p").get("none", 0) == 0
    with pytest.raises(Damaged):
        reader.get_many("t", [only_ann], dim=DIM)
    kept = [candidate.digest for candidate in fake_decision(3, shared)[0].candidates]
    assert reader.get_many("t", kept, dim=DIM).shape == (2, DIM)
    assert decide(writer, 1).receipt is Receipt.ERASED
    assert decide(writer, 1, body_digest=b"another body....").receipt is Receipt.ERASED
    assert [tell(writer, each) for each in (click(10, 3), click(13, 9), click(20, 1))] == [Receipt.ERASED] * 3
    assert writer.erase_user("t", "ann").result() == {"decisions": 0, "outcomes": 0, "held": 0, "vectors": 0}
    assert decide(writer, 5, user="ann").receipt is Receipt.RECORDED, "a new id is a new start"


def catalogs_are_replaced_whole(writer: JournalWriter, reader: JournalReader) -> None:
    vector_NE = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 1e6]], np.float32)
    items = [
        CatalogItem(id=name, vector=blob, meta={"lat": 1.5} if name == "x" else None)
        for name, blob in zip("xyz", vectors.pack_many(vector_NE), strict=True)
    ]
    assert reader.catalog("t", "p") == ([], [], [])
    assert writer.put_catalog("t", "p", items=items).result() == 3
    ids, digests, metas = reader.catalog("t", "p")
    assert (ids, metas) == (["x", "y", "z"], [{"lat": 1.5}, None, None])
    np.testing.assert_array_equal(reader.get_many("t", digests, dim=2), vector_NE)
    np.testing.assert_array_equal(reader.get_many("t", digests[::-1], dim=2), vector_NE[::-1])
    assert writer.put_catalog("t", "p", items=items[2:]).result() == 1
    assert reader.catalog("t", "p")[0] == ["z"]
    assert reader.catalog("u", "p")[0] == []


def cursors_continue_and_nothing_is_seen_twice(writer: JournalWriter, reader: JournalReader) -> None:
    for number in range(1, 8):
        decide(writer, number, policy="p" if number % 2 else "q")
        tell(writer, click(100 + number, number))
    seen: list[str] = []
    page, cursor = reader.decisions("t", "p", limit=2)
    while page:
        seen += [stored.record.id for stored in page]
        page, cursor = reader.decisions("t", "p", cursor=cursor, limit=2)
    assert seen == [fake_id(number) for number in (1, 3, 5, 7)]
    assert reader.decisions("t", "p", cursor=cursor) == ([], cursor)
    decide(writer, 9)
    assert [s.record.id for s in reader.decisions("t", "p", cursor=cursor)[0]] == [fake_id(9)]
    assert [s.record.id for s in reader.recent("t", "p", 2)] == [fake_id(7), fake_id(9)]
    seqs = [stored.seq for stored in reader.recent("t", "p", 100)]
    assert [s.seq for s in reader.recent("t", "p", 2, until=seqs[-1] - 1)] == seqs[-3:-1]
    for count, after in ((1, seqs[-1:]), (3, seqs[-3:]), (len(seqs), seqs), (100, seqs), (0, [])):
        page, _ = reader.decisions("t", "p", cursor=reader.cursor_before("t", "p", count))
        assert [s.seq for s in page] == after
    page, _ = reader.decisions("t", "p", cursor=reader.cursor_before("t", "p", 2, until=seqs[2]))
    assert [s.seq for s in page] == seqs[1:]
    for wrong in ("", "7", "s", "s-1", "s1.5", "s1; DROP TABLE decisions", "s" + "9" * 40, "s٣"):
        with pytest.raises(Invalid, match="cursor"):
            reader.decisions("t", "p", cursor=wrong)


def joined_pages_hold_every_outcome(writer: JournalWriter, reader: JournalReader) -> None:
    for number in (1, 2, 3):
        decide(writer, number)
    tell(writer, click(12, 2))
    tell(writer, fake_outcome(10, fake_id(1)))
    closing = click(11, 1)
    tell(writer, closing)
    pages = list(reader.joined("t", "p", window=WINDOW, now_ms=1_000_000))
    (page,) = pages
    assert [len(j.outcomes) for j in page] == [2, 1, 0]
    assert [j.closed_seq for j in page] == [page[0].outcomes[0].seq, page[1].outcomes[0].seq, None]
    assert page[0].outcomes[0].record.kind is OutcomeKind.NONE
    late = next(iter(reader.joined("t", "p", window=WINDOW, now_ms=1_060_001)))
    assert [j.closed_seq for j in late][2] == -1
    until = next(iter(reader.joined("t", "p", window=WINDOW, now_ms=0, until=page[1].stored.seq)))
    assert [j.stored.record.id for j in until] == [fake_id(1), fake_id(2)]
    assert list(reader.joined("t", "nobody", window=WINDOW, now_ms=0)) == []


def a_person_sees_all_that_is_held(writer: JournalWriter, reader: JournalReader) -> None:
    decide(writer, 1, user="ann")
    decide(writer, 2, user="bob")
    tell(writer, click(10, 1))
    tell(writer, click(11, 9, user="ann"))
    decisions, outcomes = reader.of_user("t", "ann")
    assert [s.record.id for s in decisions] == [fake_id(1)]
    assert [o.record.id for o in outcomes] == [fake_id(10), fake_id(11)]


def what_a_language_policy_wrote_is_kept_to_the_last_bit(writer: JournalWriter, reader: JournalReader) -> None:
    decision = replace(fake_generation(1, ("yes", "")), user="ann", session="s")
    assert decision.generation is not None
    unknown = replace(decision.generation.choices[0], sample_logprobs=b"", alternatives=(), text="nä\n", seed=0)
    bare = replace(decision.generation, bare_ids=b"", notes=(), choices=(unknown, *decision.generation.choices))
    for each in (decision, replace(decision, id=fake_id(2), generation=bare), fake_generation(3)):
        assert writer.append_decision(each).result().receipt is Receipt.RECORDED
        stored = reader.decision("t", each.id)
        assert stored is not None
        assert stored.record == each
    again = writer.append_decision(replace(decision, generation=bare)).result()
    assert (again.receipt, again.first) == (Receipt.REPEATED, decision), "an equal retry gets the first answer"
    assert [s.record.id for s in reader.decisions("t", "chat")[0]] == [fake_id(n) for n in (1, 2, 3)]
    assert reader.session_user("t", "s") == "ann"
    assert reader.session_user("t", "another") is None
    assert reader.session_user("u", "s") is None
    assert writer.erase_user("t", "ann").result()["decisions"] == 2
    assert [s.record.id for s in reader.decisions("t", "chat")[0]] == [fake_id(3)]
    assert writer.append_decision(decision).result().receipt is Receipt.ERASED


def feedback_names_a_choice_of_a_language_policy(writer: JournalWriter, reader: JournalReader) -> None:
    writer.append_decision(replace(fake_generation(1), session="s")).result()

    def about(number: int, kind: OutcomeKind, **changes: object) -> Receipt:
        return tell(writer, replace(fake_outcome(number, fake_id(1), kind=kind), **{"position": None} | changes))

    taken = {"thumb": {"value": -1.0}, "correction": {"text": "no"}, "demonstration": {"item": "1"}, "accept": {},
             "reject": {"item": "0"}, "none": {}, "reward": {"value": 0.5}}  # fmt: skip
    for number, (kind, fields) in enumerate(taken.items(), start=10):
        assert about(number, OutcomeKind(kind), **fields) is Receipt.RECORDED, kind
    assert about(30, OutcomeKind.RETRACT, value=fake_id(10)) is Receipt.RECORDED
    refused: list[dict[str, object]] = [
        {"kind": OutcomeKind.CLICK, "item": "0"}, {"kind": OutcomeKind.TRUTH, "item": "0"},
        {"kind": OutcomeKind.THUMB, "value": 1.0, "item": "2"}, {"kind": OutcomeKind.ACCEPT, "position": 1},
        {"kind": OutcomeKind.CORRECTION}, {"kind": OutcomeKind.REWARD, "value": 2.0},
    ]  # fmt: skip
    for number, fields in enumerate(refused, start=40):
        kind = fields.pop("kind")
        assert isinstance(kind, OutcomeKind)
        assert about(number, kind, **fields) is Receipt.REFUSED, (kind, fields)
    whole = whole_session(50, "s", kind=OutcomeKind.CORRECTION, text="shorter answers")
    assert tell(writer, whole) is Receipt.RECORDED
    assert kinds_of(reader, 1) == [*taken, "retract", "correction"]
    assert reader.counts("t", "chat")["correction"] == 2


CHECKS: tuple[Check, ...] = (
    sees_what_it_was_told,
    one_id_has_one_effect,
    what_came_early_counts_once_its_decision_comes,
    what_waits_is_capped_and_expires,
    sessions_speak_of_their_decisions,
    what_contradicts_the_decision_is_refused,
    somebody_elses_early_word_does_not_count,
    a_retraction_speaks_of_what_its_outcome_spoke_of,
    tenants_do_not_meet,
    erasing_takes_everything_of_one_person,
    catalogs_are_replaced_whole,
    cursors_continue_and_nothing_is_seen_twice,
    joined_pages_hold_every_outcome,
    a_person_sees_all_that_is_held,
    what_a_language_policy_wrote_is_kept_to_the_last_bit,
    feedback_names_a_choice_of_a_language_policy,
)


def run_check(check: Check, make: Make) -> None:
    """One check on a fresh journal."""
    with make(HELD_PER_KEY) as (writer, reader):
        check(writer, reader)


def check_journal(make: Make) -> None:
    """Every check, each on a fresh journal."""
    for check in CHECKS:
        run_check(check, make)
