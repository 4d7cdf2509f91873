"""Promise 8: erasing a person removes rows and bytes, leaves keyed tombstones, and nothing of theirs comes back."""

import random
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pytest
from starlette.testclient import TestClient

from dayjob.cli.serve import assemble
from dayjob.config import Config
from dayjob.endings import Receipt, VersionStatus
from dayjob.fakes import fake_decision, fake_outcome, find_fake_spec
from dayjob.journal import vectors
from dayjob.journal.control import Control
from dayjob.journal.erase import drop_orphans, erase_user
from dayjob.journal.jobs import unfinished
from dayjob.journal.rows import connect
from dayjob.journal.steering import taint
from dayjob.journal.store import Store, StoreConfig
from dayjob.journal.writes import Transaction, person_mark
from dayjob.learn.loop import Learner
from dayjob.records import Candidate, CatalogItem, Version
from dayjob.serve.app import create_app
from dayjob.serve.auth import parse_keys
from dayjob.serve.people import AT_ONCE
from tests.journal.standing import mark_taught, stand

ANN = "ann.example"
RANKER = {"kind": "ranker", "context_dim": 3, "candidate_dim": 3}


def bytes_of(root: Path) -> bytes:
    """Everything that a data directory holds, log files included."""
    return b"".join(path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file())


def traces(root: Path, secrets: list[bytes]) -> list[bytes]:
    held = bytes_of(root)
    return [secret for secret in secrets if secret in held]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    config = StoreConfig(ballast_bytes=0)
    opened = Store(tmp_path / "data", secret=b"s" * 32, find_spec=find_fake_spec, config=config)
    yield opened
    opened.close()


def test_no_byte_of_an_erased_person_is_left_in_any_file(store: Store) -> None:
    """Among many others, whose rows split and move the pages that hold the person's: ids, texts, contexts, vectors."""
    dice, secrets, futures = random.Random(3), [ANN.encode()], []
    for number in range(1_500):
        theirs = number % 25 == 0
        decision, _ = fake_decision(number, ("one",))
        mark = f"mark-{number:08d}-".encode()
        blob = mark * 8
        name = str(uuid.UUID(int=dice.getrandbits(128)))
        decision = replace(
            decision, id=name, user=ANN if theirs else f"user-{dice.random()}", session=f"session-{number:08d}",
            context=mark * 4, extra={"note": f"extra-{number:08d}"},
            candidates=(Candidate(id=f"item-{number:08d}", digest=vectors.digest(blob)),),
        )  # fmt: skip
        futures.append(store.append_decision(decision, [blob]))
        outcome = replace(
            fake_outcome(0, name), id=str(uuid.UUID(int=dice.getrandbits(128))), text=f"text-{number:08d}" * 9,
            position=None,
        )  # fmt: skip
        futures.append(store.append_outcome(outcome))
        if theirs:
            words = [f"{what}-{number:08d}" for what in ("session", "mark", "extra", "item", "text")]
            secrets += [name.encode(), outcome.id.encode(), *(word.encode() for word in words)]
    assert all(future.result().receipt is Receipt.RECORDED for future in futures)
    store.scrub().result()
    assert len(traces(store.root, secrets)) == len(secrets), "all of it was there"
    assert store.erase_user("t", ANN).result() == {"decisions": 60, "outcomes": 60, "held": 0, "vectors": 60}
    store.scrub().result()
    assert traces(store.root, secrets) == []
    assert b"text-00000001" in bytes_of(store.root), "others stay"


def journal_files(root: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(root.glob("journal.db*")))


@pytest.mark.parametrize("suspects", [True, False])
def test_bytes_that_a_killed_erasure_left_in_the_log_go_when_the_server_is_back(tmp_path: Path, suspects: bool) -> None:
    """Killed after its rows went and before the log file was emptied; the server that comes then goes on running."""
    alive, crashed = tmp_path / "alive", tmp_path / "crashed"
    config = StoreConfig(ballast_bytes=0)
    store = Store(alive, secret=b"s" * 32, find_spec=find_fake_spec, config=config)
    decision, blobs = fake_decision(1, ("a",))
    secret = b"only-ann-says-this"
    store.append_decision(replace(decision, user=ANN, extra={"note": secret.decode()}), blobs).result()
    store.submit(lambda tx: erase_user(tx, "t", ANN)).result()
    if not suspects:
        drop_orphans(alive, store.submit, threading.Event(), tenant="t")
    crashed.mkdir()
    for path in alive.glob("journal.db*"):
        (crashed / path.name).write_bytes(path.read_bytes())
    store.close()
    assert secret in journal_files(crashed)
    reading = connect(crashed / "journal.db", write=False)
    reading.execute("BEGIN")
    reading.execute("SELECT 1 FROM decisions").fetchall()  # whoever reads is in the way, for a while
    back = Store(crashed, secret=b"s" * 32, find_spec=find_fake_spec, config=config)
    reading.execute("COMMIT")
    reading.close()
    deadline = time.monotonic() + 60
    while secret in journal_files(crashed) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert secret not in journal_files(crashed)
    assert back.submit(lambda tx: tx.db.execute("SELECT COUNT(*) FROM suspects").fetchone()).result() == (0,)
    back.close()
    again = Store(crashed, secret=b"s" * 32, find_spec=find_fake_spec, config=config)
    assert (crashed / "journal.db-wal").stat().st_size == 0, "and at every start, before anything is served"
    again.close()


def test_tombstones_are_keyed_and_outlive_a_restart(tmp_path: Path) -> None:
    def opened(secret: bytes) -> Store:
        return Store(tmp_path, secret=secret, find_spec=find_fake_spec, config=StoreConfig(ballast_bytes=0))

    decision, blobs = fake_decision(1)
    store = opened(b"s" * 32)
    store.append_decision(replace(decision, user=ANN), blobs).result()
    store.erase_user("t", ANN).result()
    marks = store.submit(lambda tx: {bytes(row[0]) for row in tx.db.execute("SELECT mark FROM tombstones")}).result()
    store.close()
    assert len(marks) == 2, "the id and the person"
    store = opened(b"s" * 32)
    assert store.append_decision(decision, blobs).result().receipt is Receipt.ERASED
    store.close()
    store = opened(b"another secret".ljust(32))
    assert store.append_decision(decision, blobs).result().receipt is Receipt.RECORDED, "a mark alone names nobody"
    store.close()


def test_vectors_that_a_catalog_or_somebody_else_uses_stay(store: Store) -> None:
    decision, blobs = fake_decision(1, ("a", "b", "c"))
    other, other_blobs = fake_decision(2, ("a",))
    store.append_decision(replace(decision, user=ANN), blobs).result()
    store.append_decision(replace(other, user="bob"), other_blobs).result()
    store.put_catalog("t", "p", items=[CatalogItem(id="b", vector=blobs[1], meta=None)]).result()
    assert store.erase_user("t", ANN).result()["vectors"] == 1
    left = store.submit(lambda tx: {bytes(row[0]) for row in tx.db.execute("SELECT digest FROM vectors")}).result()
    assert left == {candidate.digest for candidate in decision.candidates[:2]}


def left_of(store: Store) -> tuple[set[bytes], int]:
    """The vectors that are kept, and how many still wait for their check."""

    def look(tx: Transaction) -> tuple[set[bytes], int]:
        kept = {bytes(row[0]) for row in tx.db.execute("SELECT digest FROM vectors")}
        return kept, len(tx.db.execute("SELECT 1 FROM suspects").fetchall())

    return store.submit(look).result()


class Effort:
    """How many hundreds of steps of SQLite's machine each of the writer's transactions takes."""

    def __init__(self, tx: Transaction) -> None:
        self.steps, self.of_each = 0, list[int]()
        tx.db.set_progress_handler(self.counted, 100)
        tx.db.set_commit_hook(self.committed)

    def counted(self) -> bool:
        self.steps += 1
        return False

    def committed(self) -> bool:
        self.of_each.append(self.steps)
        self.steps = 0
        return False


def test_the_writer_does_as_much_for_an_erasure_however_long_the_journal_is(tmp_path: Path) -> None:
    """Whose vectors are whose takes a look at every decision: not inside the writer, where feedback would wait."""
    most = []
    for others in (200, 3_000):
        store = Store(tmp_path / f"{others}", secret=b"s" * 32, find_spec=find_fake_spec,
                      config=StoreConfig(ballast_bytes=0))  # fmt: skip
        for number in range(others):
            decision, blobs = fake_decision(number, ("a", f"b{number}"))
            store.append_decision(replace(decision, user=ANN if number < 3 else "bob"), blobs)
        effort = store.submit(Effort).result()
        effort.of_each.clear()
        assert store.erase_user("t", ANN).result() == {"decisions": 3, "outcomes": 0, "held": 0, "vectors": 3}
        most.append(max(effort.of_each))
        assert left_of(store)[1] == 0
        store.close()
    assert most[0] > 0
    assert most[1] <= 2 * most[0], most


def test_an_erasure_that_was_cut_short_is_finished_at_the_next_start(tmp_path: Path) -> None:
    def opened() -> Store:
        return Store(tmp_path, secret=b"s" * 32, find_spec=find_fake_spec, config=StoreConfig(ballast_bytes=0))

    store = opened()
    decision, blobs = fake_decision(1, ("a", "b"))
    other, other_blobs = fake_decision(2, ("b",))
    store.append_decision(replace(decision, user=ANN), blobs).result()
    store.append_decision(other, other_blobs).result()
    assert store.submit(lambda tx: erase_user(tx, "t", ANN)).result()["decisions"] == 1
    assert left_of(store) == ({c.digest for c in decision.candidates}, 2), "killed here"
    store.close()
    store = opened()
    assert store.erase_user("t", "nobody").result()["vectors"] == 0, "behind what was left to do"
    assert left_of(store) == ({other.candidates[0].digest}, 0)
    store.close()


def test_a_vector_that_comes_back_while_it_is_looked_for_stays(store: Store) -> None:
    """The reading is done, the writer has not yet dropped anything: a decision in between uses the vector again."""
    decision, blobs = fake_decision(1, ("a", "b", "c"))
    store.append_decision(replace(decision, user=ANN), blobs).result()
    submitted: list[int] = []

    def submit(work: Any) -> Any:
        if not submitted:
            again, its_blobs = fake_decision(2, ("a",))
            store.append_decision(replace(again, policy="another"), its_blobs).result()
            store.put_catalog("t", "p", items=[CatalogItem(id="b", vector=blobs[1], meta=None)]).result()
        submitted.append(1)
        return store.submit(work)

    store.submit(lambda tx: erase_user(tx, "t", ANN)).result()
    assert drop_orphans(store.root, submit, threading.Event(), tenant="t") == 1
    assert left_of(store) == ({candidate.digest for candidate in decision.candidates[:2]}, 0)


# ---- over HTTP -------------------------------------------------------------------------------------------------------

KEYS = """
[[key]]
key = "acme-key"
tenant = "acme"
scopes = ["admin"]
[[key]]
key = "other-key"
tenant = "other"
scopes = ["admin"]
"""


class Caller:
    """One key's calls."""

    def __init__(self, client: TestClient, key: str) -> None:
        self.client = client
        self.headers = {"Authorization": f"Bearer {key}"}

    def __call__(self, method: str, path: str, body: Any = None, *, expect: int = 200) -> Any:
        answer = self.client.request(method, path, json=body, headers=self.headers)
        assert answer.status_code == expect, answer.text
        return answer.json()

    def rank(self, user: str | None, **changes: Any) -> Any:
        features = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
        candidates = [{"id": f"item{n}", "features": each} for n, each in enumerate(features)]
        body = {"policy": "geo", "user": user, "context": {"features": [1.0, 0.0, 0.0]}, "candidates": candidates}
        return self("POST", "/v1/rank", body | changes)


@pytest.fixture
def service(tmp_path: Path) -> Any:
    return assemble(Config(data=tmp_path / "data"), parse_keys(KEYS, source="test"))


@pytest.fixture
def acme(service: Any) -> Iterator[Caller]:
    with TestClient(create_app(service), base_url="http://127.0.0.1") as client:
        for key in ("acme-key", "other-key"):
            Caller(client, key)("PUT", "/v1/policies/geo", RANKER, expect=201)
        yield Caller(client, "acme-key")


def test_an_erased_person_is_gone_over_http_and_resends_are_refused(acme: Caller, service: Any) -> None:
    sent = {"id": str(uuid.uuid4()), "session": "ann-session-77"}
    mine = acme.rank(ANN, **sent)
    kept = acme.rank("bob")
    click = {"id": str(uuid.uuid4()), "decision": mine["id"], "kind": "click", "position": 1, "text": "words-of-ann"}
    acme("POST", "/v1/feedback", click, expect=201)
    acme("POST", "/v1/feedback", {"decision": kept["id"], "kind": "click", "position": 1}, expect=201)
    acme("PATCH", f"/v1/users/{ANN}", {"learn": False})
    held = acme("GET", f"/v1/users/{ANN}")
    assert (held["decisions"], held["outcomes"], held["learn"]) == (1, 1, False)
    gone = acme("DELETE", f"/v1/users/{ANN}")
    nothing = {"adapters_withdrawn": [], "versions_tainted": [], "trials_ended": [], "rebuilding": []}
    assert gone == {"user": ANN, "decisions": 1, "outcomes": 1, "learn": False} | nothing
    names = [ANN, mine["id"], click["id"], "ann-session-77", "words-of-ann"]
    assert traces(service.hub.root, [name.encode() for name in names]) == []
    acme("POST", "/v1/feedback", click, expect=410)
    acme("POST", "/v1/feedback", {"decision": mine["id"], "kind": "none"}, expect=410)
    body = {"policy": "geo", "id": sent["id"], "context": {"features": [1.0, 0.0, 0.0]}, "candidates": [
        {"id": "a", "features": [1.0, 0.0, 0.0]}]}  # fmt: skip
    acme("POST", "/v1/rank", body, expect=410)
    empty = acme("GET", f"/v1/users/{ANN}")
    assert (empty["decisions"], empty["outcomes"]) == (0, 0)
    policy = acme("GET", "/v1/policies/geo")
    assert policy["counts"] == {"decisions": 1, "outcomes": {"click": 1}}


def test_what_is_held_is_read_beside_the_writer_and_told_in_pieces(acme: Caller, service: Any) -> None:
    told = [acme.rank(ANN)["id"] for _ in range(2 * AT_ONCE + 1)]
    waits = {"id": str(uuid.uuid4()), "decision": str(uuid.uuid4()), "kind": "click", "position": 1}
    acme("POST", "/v1/feedback", {"decision": told[0], "kind": "click", "position": 1}, expect=201)
    acme("POST", "/v1/feedback", waits, expect=202)
    go_on = threading.Event()
    stuck = service.hub.store.submit(lambda _: go_on.wait(30))
    held = acme("GET", f"/v1/users/{ANN}")
    assert not stuck.done(), "a disk that is full or slow keeps nobody from reading"
    go_on.set()
    assert [one["id"] for one in held["held"]["decisions"]] == told
    assert (held["decisions"], held["outcomes"]) == (len(told), 1)
    first = held["held"]["decisions"][0]
    assert first["context"] == [1.0, 0.0, 0.0]
    packed = [vectors.pack(np.array(one, np.float32)) for one in ([1, 0, 0], [0, 1, 0])]
    assert first["vectors"] == [vectors.digest(blob).hex() for blob in packed]
    assert (first["pair"], first["rival_score"]) == ([[], []], [])
    stuck.result()


def test_tenants_see_nothing_of_each_other(acme: Caller) -> None:
    other = Caller(acme.client, "other-key")
    mine = acme.rank("ann", session="s")
    theirs = other.rank("ann", session="s")
    other("POST", "/v1/feedback", {"decision": mine["id"], "kind": "none"}, expect=403)
    other("POST", "/v1/feedback", {"decision": mine["id"], "kind": "none", "token": mine["token"]}, expect=403)
    acme("DELETE", "/v1/users/ann")
    assert other("GET", "/v1/users/ann")["decisions"] == 1
    export = acme.client.get("/v1/export?policy=geo", headers=other.headers).text
    assert theirs["id"] in export
    assert mine["id"] not in export
    again = other.rank("ann", id=mine["id"])
    assert again["id"] == mine["id"], "an id that another tenant used or erased is free"


# ---- versions that learned from someone since erased -----------------------------------------------------------------


def version(name: str, number: int, status: VersionStatus) -> Version:
    return Version(
        tenant="acme", policy="geo", name=name, number=number, parent=None, recipe="debiased", digest=f"{number:064x}",
        from_seq=0, to_seq=1, status=status, created_ms=0,
    )  # fmt: skip


def test_a_version_that_learned_from_them_cannot_return(acme: Caller, service: Any) -> None:
    control: Control = service.hub.control
    acme.rank(ANN)
    names = ["v1-00000001", "v2-00000002", "v3-00000003"]
    for number, name in enumerate(names, start=1):
        control.add_version(version(name, number, VersionStatus.RETIRED))
    mark = person_mark(control.secret("journal"), "acme", ANN)
    for name in names[:2]:
        mark_taught(control, "acme", "geo", name, marks=[mark])
    change = {"champion": names[2], "previous": names[1], "challenger": names[0]}
    control.move("acme", "geo", change=change)
    gone = acme("DELETE", f"/v1/users/{ANN}")
    assert gone["versions_tainted"] == ["geo/v1-00000001", "geo/v2-00000002"]
    pointers = control.pointers("acme", "geo")
    assert (pointers.champion, pointers.previous, pointers.challenger) == (names[2], None, None)
    for name in names[:2]:
        acme("POST", "/v1/policies/geo/rollback", {"to": name}, expect=409)
        acme("POST", "/v1/policies/geo/promote", {"version": name, "reason": "by hand"}, expect=409)
        stand(control, "acme", "geo", [name], VersionStatus.RETIRED)
        assert control.version("acme", "geo", name).status is VersionStatus.TAINTED, "for ever"
    back = acme("POST", "/v1/policies/geo/rollback", {})
    assert back["champion"] == "v0-baseline", "the baseline always can"


def test_a_champion_that_learned_from_them_is_to_be_rebuilt(acme: Caller, service: Any) -> None:
    control: Control = service.hub.control
    control.add_version(version("v1-00000001", 1, VersionStatus.CHAMPION))
    mark_taught(control, "acme", "geo", "v1-00000001", marks=[person_mark(control.secret("journal"), "acme", ANN)])
    control.move("acme", "geo", change={"champion": "v1-00000001"})
    acme("DELETE", f"/v1/users/{ANN}")
    assert control.version("acme", "geo", "v1-00000001").status is VersionStatus.TAINTED
    jobs = control.db().execute("SELECT policy, recipe, state FROM jobs").fetchall()
    assert jobs == [("geo", "debiased", "queued")]


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize("cut", ["UPDATE ON versions", "UPDATE ON pointers", "INSERT ON jobs"])
def test_killed_anywhere_tainting_is_done_or_not(service: Any, cut: str) -> None:
    """Never a version that is out while the pointers lead to it, nor a champion that is out and not to be rebuilt."""
    control: Control = service.hub.control
    for number, name in enumerate(("v1-00000001", "v2-00000002"), start=1):
        control.add_version(version(name, number, VersionStatus.RETIRED))
    control.move("acme", "geo", change={"champion": "v2-00000002", "previous": "v1-00000001"})
    before = control.pointers("acme", "geo")
    taught = [("geo", "v1-00000001"), ("geo", "v2-00000002"), ("gone", "v1-00000001")]
    control.db().execute(f"CREATE TRIGGER killed BEFORE {cut} BEGIN SELECT RAISE(ABORT, 'killed'); END")
    with pytest.raises(apsw.ConstraintError, match="killed"):
        taint(control, "acme", taught)
    assert {v.status for v in control.versions("acme", "geo")} == {VersionStatus.BASELINE, VersionStatus.RETIRED}
    assert (control.pointers("acme", "geo"), unfinished(control)) == (before, [])
    control.db().execute("DROP TRIGGER killed")
    for _ in range(2):
        taint(control, "acme", taught)
        assert [v.status for v in control.versions("acme", "geo")[1:]] == [VersionStatus.TAINTED] * 2
        moved = control.pointers("acme", "geo")
        assert (moved.champion, moved.previous, moved.generation) == ("v2-00000002", None, before.generation + 1)
        assert [(job.policy, job.recipe) for job in unfinished(control)] == [("geo", "debiased")]


def test_a_version_is_out_before_the_rows_go(acme: Caller, service: Any) -> None:
    """Killed in between, nothing that learned from the person serves on without being known for it."""
    control: Control = service.hub.control
    acme.rank(ANN)
    control.add_version(version("v1-00000001", 1, VersionStatus.RETIRED))
    mark_taught(control, "acme", "geo", "v1-00000001", marks=[person_mark(control.secret("journal"), "acme", ANN)])
    service.hub.store.submit(
        lambda tx: tx.db.execute("CREATE TRIGGER killed BEFORE DELETE ON decisions BEGIN SELECT RAISE(ABORT, 'k'); END")
    ).result()
    with pytest.raises(apsw.ConstraintError):
        service.hub.store.erase_user("acme", ANN).result()
    acme("DELETE", f"/v1/users/{ANN}", expect=500)
    assert control.version("acme", "geo", "v1-00000001").status is VersionStatus.TAINTED
    assert acme("GET", f"/v1/users/{ANN}")["decisions"] == 1
    service.hub.store.submit(lambda tx: tx.db.execute("DROP TRIGGER killed")).result()
    assert acme("DELETE", f"/v1/users/{ANN}")["versions_tainted"] == ["geo/v1-00000001"]
    assert acme("GET", f"/v1/users/{ANN}")["decisions"] == 0


def test_whoever_spoke_of_others_decisions_with_a_key_of_their_own_taught_too(tmp_path: Path) -> None:
    """Erasing them finds the version that learned from their outcomes, though they never asked for a ranking."""
    keys = KEYS + '[[key]]\nkey = "ann-key"\ntenant = "acme"\nscopes = ["feedback"]\nuser = "ann"\n'
    service = assemble(Config(data=tmp_path / "data"), parse_keys(keys, source="test"))
    with TestClient(create_app(service), base_url="http://127.0.0.1") as client:
        acme, ann = Caller(client, "acme-key"), Caller(client, "ann-key")
        acme("PUT", "/v1/policies/geo", RANKER | {"recipe": "naive"}, expect=201)
        for n in range(6):
            told = {"decision": acme.rank(None)["id"], "kind": "click", "position": 1 + n % 2}
            (ann if n % 3 == 0 else acme)("POST", "/v1/feedback", told, expect=201)
        control = service.hub.control
        learner = Learner(service.hub.root, Control(service.hub.root), service.hub.reader, threads=1, holder="test")
        learner.ask("geo", tenant="acme")
        assert learner.step(watch_counts=False)
        (made,) = control.versions("acme", "geo")[1:]
        acme("POST", "/v1/policies/geo/promote", {"version": made.name, "reason": "to see it go"})
        gone = acme("DELETE", "/v1/users/ann")
        assert (gone["decisions"], gone["outcomes"]) == (0, 2)
        assert gone["versions_tainted"] == [f"geo/{made.name}"]
        assert control.version("acme", "geo", made.name).status is VersionStatus.TAINTED
        assert [job.policy for job in unfinished(control)] == ["geo"], "the champion is to be built again"
