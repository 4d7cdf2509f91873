"""Versions on disk: what was published loads to the bit, and nothing else ever loads, whatever happened to the disk."""

import json
import os
import random
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dayjob.endings import Damaged, Invalid, NotFound
from dayjob.journal import versions
from dayjob.journal.disk import LOCAL_DISK, Disk, LocalDisk
from dayjob.journal.versions import MANIFEST, WEIGHTS, StoredVersion, VersionManifest

ABOUT = VersionManifest(
    recipe="debiased", network={"shape": "head", "hidden": [4], "lr": 1e-3}, from_seq=3, to_seq=90, seed=2**63 + 5,
    erasure_epoch=2, created_ms=1_760_000_000_000, parent="v1-00112233", made_with={"torch": "2.13.0", "threads": "1"},
)  # fmt: skip


def make_weights(seed: int = 0) -> versions.Weights:
    rng = np.random.default_rng(seed)
    return {
        "layer.weight": rng.standard_normal((4, 16)).astype(np.float32),
        "layer.bias": rng.standard_normal(4).astype(np.float16),
        "temperature": np.array(0.25, dtype=np.float64),
        "count": np.arange(3, dtype=np.int64),
        "empty": np.zeros((0, 2), dtype=np.float32),
    }


def publish(root: Path, *, number: int = 3, seed: int = 0, about: VersionManifest = ABOUT, disk: Disk = LOCAL_DISK):
    return versions.publish(root, "acme", "geo", number=number, weights=make_weights(seed), manifest=about, disk=disk)


def load(root: Path, stored: StoredVersion) -> tuple[versions.Weights, VersionManifest]:
    return versions.load(root, "acme", "geo", stored.version, digest=stored.digest)


def folder(root: Path, stored: StoredVersion) -> Path:
    return root / "versions" / "acme" / "geo" / stored.version


def same(left: versions.Weights, right: versions.Weights) -> bool:
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype
        and left[name].shape == right[name].shape
        and left[name].tobytes() == right[name].tobytes()
        for name in left
    )


def test_what_was_published_loads_to_the_bit(tmp_path):
    stored = publish(tmp_path)
    weights, manifest = load(tmp_path, stored)
    assert same(weights, make_weights())
    assert manifest == stored.manifest == ABOUT
    assert stored.version == f"v3-{stored.digest[:8]}"
    assert stored.size_bytes == (folder(tmp_path, stored) / WEIGHTS).stat().st_size
    assert {path.name for path in folder(tmp_path, stored).iterdir()} == {WEIGHTS, MANIFEST}


def test_equal_work_has_the_same_digest_in_any_order_layout_and_byte_order(tmp_path):
    first = publish(tmp_path)
    shuffled = dict(reversed(make_weights().items()))
    shuffled["layer.weight"] = np.asfortranarray(shuffled["layer.weight"])
    shuffled["count"] = np.arange(6, dtype=np.int64)[::2] // 2
    shuffled["temperature"] = shuffled["temperature"].astype(">f8")
    again = versions.publish(tmp_path, "other", "x", number=8, weights=shuffled, manifest=ABOUT)
    assert again.digest == first.digest
    assert again.version == f"v8-{first.digest[:8]}"


def test_time_parent_and_machine_are_lineage_only(tmp_path):
    other = replace(ABOUT, created_ms=1, parent=None, made_with={})
    (tmp_path / "elsewhere").mkdir()
    assert publish(tmp_path, about=other).digest == publish(tmp_path / "elsewhere").digest


@pytest.mark.parametrize(
    "change",
    [{"recipe": "naive"}, {"network": {}}, {"from_seq": 4}, {"to_seq": 91}, {"seed": 6}, {"erasure_epoch": 3}],
)
def test_everything_that_a_version_is_changes_its_digest(tmp_path, change):
    assert publish(tmp_path, about=replace(ABOUT, **change)).digest != publish(tmp_path).digest


def test_one_bit_of_a_weight_changes_the_digest(tmp_path):
    weights = make_weights()
    weights["layer.weight"].view(np.uint32)[0, 0] ^= 1
    other = versions.publish(tmp_path, "acme", "geo", number=3, weights=weights, manifest=ABOUT)
    assert other.digest != publish(tmp_path).digest


def test_publishing_again_changes_nothing(tmp_path):
    first = publish(tmp_path)
    before = {path: path.read_bytes() for path in folder(tmp_path, first).iterdir()}
    again = publish(tmp_path, about=replace(ABOUT, created_ms=7, parent=None))
    assert again == first
    assert {path: path.read_bytes() for path in folder(tmp_path, first).iterdir()} == before


def test_publishing_again_heals_a_damaged_version(tmp_path):
    stored = publish(tmp_path)
    (folder(tmp_path, stored) / WEIGHTS).write_bytes(b"rot")
    publish(tmp_path)
    assert same(load(tmp_path, stored)[0], make_weights())
    assert [path.name for path in folder(tmp_path, stored).parent.iterdir()] == [stored.version]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_diverged_are_not_published(tmp_path, bad):
    weights = make_weights() | {"layer.bias": np.array([0, bad], dtype=np.float16)}
    with pytest.raises(Invalid, match=r"layer\.bias.*diverged"):
        versions.publish(tmp_path, "acme", "geo", number=3, weights=weights, manifest=ABOUT)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("array", [np.array(["x"]), np.array([None]), np.zeros(2, dtype=np.complex64)])
def test_only_numbers_are_weights(tmp_path, array):
    with pytest.raises(Invalid, match="publish one of float64"):
        versions.publish(tmp_path, "acme", "geo", number=3, weights={"w": array}, manifest=ABOUT)


@pytest.mark.parametrize("network", [{"x": float("nan")}, {"x": b"1"}, {"x": "a" * (1 << 20)}])
def test_a_manifest_is_small_json(tmp_path, network):
    with pytest.raises(Invalid, match=r"manifest|JSON"):
        publish(tmp_path, about=replace(ABOUT, network=network))
    with pytest.raises(Invalid, match="count from 0"):
        publish(tmp_path, number=-1)


@pytest.fixture
def pair(tmp_path):
    """Two versions of one policy: the one to be damaged, and another to take parts from."""
    return tmp_path, publish(tmp_path), publish(tmp_path, number=4, seed=1)


def refuse(root: Path, stored: StoredVersion, what: str = ".") -> None:
    with pytest.raises(Damaged, match=what) as refused:
        load(root, stored)
    assert stored.version in str(refused.value)
    assert "roll back to another version, or learn this one anew" in str(refused.value)


def test_a_flipped_bit_in_any_byte_of_the_manifest_is_seen(pair):
    root, stored, _ = pair
    path, rng = folder(root, stored) / MANIFEST, random.Random(2)
    good = path.read_bytes()
    for at in range(len(good)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1 << rng.randrange(8)]) + good[at + 1 :])
        refuse(root, stored)
    path.write_bytes(good)
    load(root, stored)


def test_hundreds_of_flipped_bits_in_the_weights_are_seen(pair):
    root, stored, _ = pair
    path, rng = folder(root, stored) / WEIGHTS, random.Random(1)
    good = path.read_bytes()
    for _ in range(600):
        bad = bytearray(good)
        bad[rng.randrange(len(good))] ^= 1 << rng.randrange(8)
        path.write_bytes(bad)
        refuse(root, stored, "does not match its SHA-256")


@pytest.mark.parametrize("name", [WEIGHTS, MANIFEST])
def test_files_cut_short_or_too_long_are_seen(pair, name):
    root, stored, _ = pair
    path = folder(root, stored) / name
    good = path.read_bytes()
    for cut in [*range(0, len(good), 7), len(good) - 1]:
        path.write_bytes(good[:cut])
        refuse(root, stored)
    for tail in (b"\n", b" ", b"\x00", good):
        path.write_bytes(good + tail)
        refuse(root, stored)
    path.write_bytes(bytes(len(good)))
    refuse(root, stored)
    path.unlink()
    refuse(root, stored, "is missing")


def test_parts_of_other_versions_are_seen(pair):
    root, stored, other = pair
    mine, theirs, keep = folder(root, stored), folder(root, other), root / "keep"
    shutil.copytree(mine, keep)
    for name, what in ((WEIGHTS, "does not match its SHA-256"), (MANIFEST, "belongs to another version")):
        shutil.copy(theirs / name, mine / name)
        refuse(root, stored, what)
        shutil.copy(keep / name, mine / name)
    shutil.rmtree(mine)
    shutil.copytree(theirs, mine)
    refuse(root, stored, "belongs to another version")


@pytest.mark.parametrize(("tenant", "policy"), [("acme", "other"), ("other", "geo")])
def test_a_version_of_another_tenant_or_policy_is_refused(pair, tenant, policy):
    root, stored, _ = pair
    shutil.copytree(folder(root, stored), root / "versions" / tenant / policy / stored.version)
    with pytest.raises(Damaged, match=r"belongs to another version: (tenant|policy) differs"):
        versions.load(root, tenant, policy, stored.version, digest=stored.digest)


def test_a_version_forged_with_matching_checksums_is_refused_by_the_digest(pair):
    root, stored, other = pair
    mine, theirs = folder(root, stored), folder(root, other)
    document = json.loads((theirs / MANIFEST).read_bytes())
    named = {"tenant": "acme", "policy": "geo", "version": stored.version, "digest": document["digest"]}
    for lineage in (document["lineage"], {"unknown": 1}, {}):
        (mine / MANIFEST).write_bytes(versions._seal(named, document["content"], lineage))
        shutil.copy(theirs / WEIGHTS, mine / WEIGHTS)
        refuse(root, stored, "belongs to another version: digest differs|cannot be read")
    sealed = versions._seal(named | {"digest": stored.digest}, document["content"], document["lineage"])
    (mine / MANIFEST).write_bytes(sealed)
    refuse(root, stored, "does not match its own SHA-256")


@pytest.mark.parametrize("text", [b"[]", b"7", b"null", b"{}", b"[" * 100_000, b"\xff", b" " * (2 << 20)])
def test_a_manifest_of_another_kind_is_refused(pair, text):
    root, stored, _ = pair
    (folder(root, stored) / MANIFEST).write_bytes(text)
    refuse(root, stored)


def test_anything_added_is_refused(pair):
    root, stored, _ = pair
    for make in (Path.touch, Path.mkdir):
        extra = folder(root, stored) / "weights.pt"
        make(extra)
        refuse(root, stored, "weights.pt")
        extra.rmdir() if extra.is_dir() else extra.unlink()
    load(root, stored)


@pytest.mark.parametrize("name", [WEIGHTS, MANIFEST])
def test_no_link_pipe_or_folder_stands_for_a_file(pair, name):
    root, stored, _ = pair
    path = folder(root, stored) / name
    elsewhere = root / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    refuse(root, stored, "cannot be read")
    path.unlink()
    os.mkfifo(path)
    refuse(root, stored, "not a file")
    path.unlink()
    path.mkdir()
    refuse(root, stored, "not a file")
    path.rmdir()
    elsewhere.rename(path)
    load(root, stored)


def test_a_socket_is_no_file(pair):
    root, stored, _ = pair
    directory = os.open(folder(root, stored), os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/proc/self/fd/{directory}/s")  # a socket's own path must be short
            refuse(root, stored)
    finally:
        os.close(directory)


def test_no_link_or_file_stands_for_a_version(pair):
    root, stored, other = pair
    final = folder(root, stored)
    final.rename(root / "moved")
    final.symlink_to(root / "moved")
    refuse(root, stored, "cannot be read")
    final.unlink()
    final.write_bytes(b"")
    refuse(root, stored, "cannot be read")
    final.unlink()
    with pytest.raises(NotFound, match="roll back"):
        load(root, stored)
    load(root, other)


def test_each_file_is_opened_once_and_its_verified_bytes_are_used(pair, monkeypatch):
    root, stored, _ = pair
    opened, real = [], os.open

    def spy(path, *arguments, **named):
        opened.append(str(path))
        return real(path, *arguments, **named)

    monkeypatch.setattr(os, "open", spy)
    weights, _ = load(root, stored)
    assert sorted(opened) == sorted([str(folder(root, stored)), WEIGHTS, MANIFEST])
    monkeypatch.undo()
    (folder(root, stored) / WEIGHTS).write_bytes(b"changed after loading")
    assert same(weights, make_weights())


@pytest.mark.parametrize(
    "version", ["", "..", "v3", "v3-0000000", "v03-00000000", "v3-00000000\n", "../v3-00000000", "v3-0000000G"]
)
def test_only_names_made_here_are_versions(tmp_path, version):
    for call in (
        lambda: versions.load(tmp_path, "a", "b", version, digest=""),
        lambda: versions.remove(tmp_path, "a", "b", version),
    ):
        with pytest.raises(NotFound):
            call()


class UnsyncedDisk(LocalDisk):
    """The file system, without waiting for it."""

    def sync(self, path: Path) -> None:
        assert path.exists()


hostile = st.sampled_from(
    ["..", ".", "a/b", "/etc/passwd", "..\\x", "a\x00b", "Geo", "geo", "é", "%67eo", "\ud800", "~", "-"]
)


@given(st.lists(hostile | st.text(min_size=1, max_size=20), min_size=2, max_size=2, unique=True))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_name_leaves_its_place_or_meets_another(tmp_path, names):
    places, root = [], tmp_path / "data"
    for name in names:
        for where in ((name, "p"), ("t", name)):
            root.mkdir()
            stored = versions.publish(root, *where, number=0, weights={}, manifest=ABOUT, disk=UnsyncedDisk())
            [manifest] = tmp_path.rglob(MANIFEST)
            parts = manifest.relative_to(root).parts
            assert (parts[0], parts[3], len(parts)) == ("versions", stored.version, 5)
            assert all(part.isascii() and part == part.lower() and "." not in part for part in parts[1:3])
            places.append(parts[1:3])
            shutil.rmtree(root)
    assert len(set(places)) == 4


@pytest.mark.parametrize("name", ["", "x" * 300])
def test_names_without_a_place_are_refused(tmp_path, name):
    with pytest.raises(Invalid, match="empty or too long"):
        versions.publish(tmp_path, name, "p", number=0, weights={}, manifest=ABOUT)


def test_a_removed_version_is_gone_and_others_stay(pair):
    root, stored, other = pair
    versions.remove(root, "acme", "geo", stored.version)
    with pytest.raises(NotFound):
        load(root, stored)
    with pytest.raises(NotFound):
        versions.remove(root, "acme", "geo", stored.version)
    load(root, other)
    assert [path.name for path in folder(root, other).parent.iterdir()] == [other.version]


def test_sweeping_takes_old_leftovers_only(pair):
    root, stored, _ = pair
    home = folder(root, stored).parent
    for name, age_s in ((".tmp-old", 100), (".tmp-young", 10)):
        (home / name / "inner").mkdir(parents=True)
        os.utime(home / name, (1_000 - age_s, 1_000 - age_s))
    (home / ".tmp-file").touch()
    os.utime(home / ".tmp-file", (0, 0))
    assert versions.sweep(root, now_s=1_000, older_than_s=60) == 2
    assert sorted(path.name for path in home.iterdir() if path.name.startswith(".")) == [".tmp-young"]
    load(root, stored)
    assert versions.sweep(root / "nowhere", now_s=0, older_than_s=0) == 0
