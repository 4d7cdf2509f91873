"""Layers: addresses that hold no name, opened once, and gone with their owner, rows, files and bytes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dayjob.endings import Erased, Invalid, JobState, NotFound, PolicyKind, VerdictKind, VersionStatus
from dayjob.journal import layers, versions
from dayjob.journal.columns import JOURNAL_TABLES
from dayjob.journal.control import Control, add_point, add_verdict, put_state
from dayjob.journal.jobs import request_job, update_job
from dayjob.journal.rows import open_database
from dayjob.records import Policy, Verdict, Version
from tests.journal.standing import mark_taught

CANARY = "zanzibar-gherkin"
ANN = "ann.of.the.canaries"


def version(policy: str, name: str, *, number: int = 1, to_seq: int = 9) -> Version:
    return Version(
        tenant="t", policy=policy, name=name, number=number, parent=None, recipe="consolidate", digest="0" * 64,
        from_seq=0, to_seq=to_seq, status=VersionStatus.BASELINE if number == 0 else VersionStatus.WAITING,
        created_ms=number, detail={},
    )  # fmt: skip


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    opened = Control(tmp_path)
    for name, kind in (("clerk", PolicyKind.LANGUAGE), ("clerk2", PolicyKind.LANGUAGE), ("geo", PolicyKind.RANKER)):
        policy = Policy(tenant="t", name=name, kind=kind, spec={"base": "tiny"}, created_ms=5)
        opened.create_policy(policy, version(name, "v0-baseline", number=0))
    yield opened
    opened.db().close()


def teach(control: Control, address: str, *, number: int = 1) -> str:
    """A version of a layer as a learner leaves it, with the canary wherever words may stand."""
    stored = versions.publish_files(
        control.root, "t", address, number=number, files={"adapter.bin": CANARY.encode()},
        manifest=versions.VersionManifest(
            recipe="consolidate", network={}, from_seq=0, to_seq=9, seed=1, created_ms=0
        ),
    )  # fmt: skip
    control.add_version(version(address, stored.version, number=number))
    control.move("t", address, change={"champion": stored.version})
    mark_taught(control, "t", address, stored.version, marks=[control.mark_of("t", ANN)])
    job = request_job(control, "t", address, recipe="consolidate")
    update_job(control, job, state=JobState.SUCCEEDED, progress=1, result={"said": CANARY})
    (control.root / "work").mkdir(exist_ok=True)
    (control.root / "work" / f"{job.id}.safetensors").write_bytes(CANARY.encode())
    verdict = Verdict(
        tenant="t", policy=address, challenger=stored.version, champion="v0-baseline", kind=VerdictKind.PROMOTE,
        reason=CANARY, evidence={}, at_ms=1, by="judge",
    )  # fmt: skip
    with control.write() as db:
        put_state(db, "t", address, name=f"night/{stored.version}", state={"lesson": CANARY})
        add_verdict(db, verdict)
        add_point(db, "t", address, name="loss", point={"said": CANARY})
    return stored.version


def bytes_of(root: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file())


def test_an_address_names_the_tenants_layer_and_hides_a_persons_name(control: Control) -> None:
    assert layers.address_of(control, "t", "clerk", None) == "clerk"
    address = layers.address_of(control, "t", "clerk", ANN)
    assert address == f"clerk/{control.mark_of('t', ANN).hex()}"
    assert address != layers.address_of(control, "u", "clerk", ANN)  # of another tenant she is somebody else
    assert (layers.policy_of(address), layers.policy_of("clerk")) == ("clerk", "clerk")
    assert layers.is_personal(address)
    assert not layers.is_personal("clerk")


def test_a_layer_is_opened_once_with_the_baseline(control: Control) -> None:
    address = layers.open_layer(control, "t", "clerk", ANN)
    pointers = control.pointers("t", address)
    assert (pointers.champion, pointers.baseline, pointers.previous) == ("v0-baseline", "v0-baseline", None)
    assert [one.status for one in control.versions("t", address)] == [VersionStatus.BASELINE]
    control.move("t", address, change={"frozen": "champion"})
    assert layers.open_layer(control, "t", "clerk", ANN) == address
    assert control.pointers("t", address).frozen == "champion"  # opening again moved nothing
    assert layers.owner_of(control, "t", address) == ANN
    assert layers.owner_of(control, "t", "clerk") is None
    assert layers.open_layer(control, "t", "clerk", None) == "clerk"
    assert [policy.name for policy in control.policies("t")] == ["clerk", "clerk2", "geo"]


def test_only_the_layers_of_that_policy_and_tenant_are_listed(control: Control) -> None:
    mine = sorted(layers.open_layer(control, "t", "clerk", user) for user in ("ann", "bob"))
    layers.open_layer(control, "t", "clerk2", "ann")
    assert layers.layers(control, "t", "clerk") == mine
    assert layers.layers(control, "u", "clerk") == []


def test_there_is_no_layer_of_a_ranker_or_of_nothing(control: Control) -> None:
    with pytest.raises(Invalid, match="geo"):
        layers.open_layer(control, "t", "geo", ANN)
    with pytest.raises(NotFound):
        layers.open_layer(control, "t", "nobody", ANN)


def test_withdrawing_leaves_no_row_no_file_and_no_byte(control: Control) -> None:
    ann = layers.open_layer(control, "t", "clerk", ANN)
    learned = teach(control, ann)
    bob = layers.open_layer(control, "t", "clerk", "bob")
    control.set_learns("t", ANN, True)
    assert CANARY.encode() in bytes_of(control.root)
    assert layers.withdraw(control, control.root, "t", ANN) == [(ann, learned)]
    control.forget("t", ANN)
    assert layers.layers(control, "t", "clerk") == [bob]
    assert control.versions("t", ann) == []
    left = bytes_of(control.root)
    for trace in (CANARY, ANN, ann.partition("/")[2]):
        assert trace.encode() not in left
    assert layers.withdraw(control, control.root, "t", ANN) == []  # again, and nothing is wrong
    assert layers.open_layer(control, "t", "clerk", ANN) == ann  # who comes back begins anew
    assert control.pointers("t", ann).champion == "v0-baseline"


def test_what_was_being_learned_of_somebody_erased_is_refused(control: Control) -> None:
    address = layers.open_layer(control, "t", "clerk", ANN)
    job = request_job(control, "t", address, recipe="consolidate")
    with control.write() as db:
        layers.check_open(db, job)
    layers.withdraw(control, control.root, "t", ANN)
    layers.open_layer(control, "t", "clerk", ANN)  # she is back before the learner is done
    with pytest.raises(Erased), control.write() as db:
        layers.check_open(db, job)


@pytest.mark.parametrize(("erased_at", "stays"), [(10, False), (9, True)])
def test_a_layer_older_than_its_owners_erasure_is_withdrawn_at_the_next_start(
    control: Control, erased_at: int, stays: bool
) -> None:
    journal = open_database(control.root / "journal.db", JOURNAL_TABLES)
    address = layers.open_layer(control, "t", "clerk", ANN)
    teach(control, address)  # learned up to sequence number 9
    row = ("t", control.mark_of("t", ANN), erased_at)
    journal.execute("INSERT INTO tombstones (tenant, mark, seq) VALUES (?, ?, ?)", row)
    assert layers.withdraw_overlooked(control, control.root) == ([] if stays else [address])
    assert layers.layers(control, "t", "clerk") == ([address] if stays else [])
    assert versions.folder_of(control.root, "t", address).exists() is stays
    journal.close()


def test_somebody_elses_layer_that_learned_from_them_is_not_withdrawn(control: Control) -> None:
    """It is tainted and built again, as the tenant's is."""
    journal = open_database(control.root / "journal.db", JOURNAL_TABLES)
    bob = layers.open_layer(control, "t", "clerk", "bob")
    teach(control, bob)  # by a note of Ann's that the tenant shares
    row = ("t", control.mark_of("t", ANN), 10)
    journal.execute("INSERT INTO tombstones (tenant, mark, seq) VALUES (?, ?, ?)", row)
    assert layers.withdraw_overlooked(control, control.root) == []
    journal.close()


def test_files_that_a_killed_learner_left_go_at_the_next_start(control: Control) -> None:
    open_database(control.root / "journal.db", JOURNAL_TABLES).close()
    kept = layers.open_layer(control, "t", "clerk", "bob")
    teach(control, kept)
    orphan = layers.address_of(control, "t", "clerk", ANN)
    versions.publish_files(
        control.root, "t", orphan, number=1, files={"adapter.bin": b"x"},
        manifest=versions.VersionManifest(recipe="r", network={}, from_seq=0, to_seq=9, seed=1, created_ms=0),
    )  # fmt: skip
    assert layers.withdraw_overlooked(control, control.root) == []
    assert not versions.folder_of(control.root, "t", orphan).exists()
    assert versions.folder_of(control.root, "t", kept).exists()
