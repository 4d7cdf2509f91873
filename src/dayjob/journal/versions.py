"""Weights on disk.

Promise 4: a version is immutable and verified (SHA-256 manifest) before it serves; half-written or damaged versions
never serve, the last good one does.

``DATA/versions/<tenant>/<policy>/<version>/`` holds ``manifest.json`` and, of a ranker, ``weights.safetensors``, of a
language policy the files of a PEFT folder. How the promise is kept:

- The manifest says the size and SHA-256 of every file. Its ``digest`` is the SHA-256 of what the version *is*: those
  files, the network, the recipe, the journal range, the seed and the erasure epoch; parent and time are lineage only.
  Equal work therefore gives an equal digest. ``control.db`` keeps the digest, and only a version that has it loads.
- A version is written under a temporary name, every file and directory is synced, and only then it gets its name.
- Loading reads each file once, follows no link, and verifies the very bytes that it then uses. Nothing is mapped.

Names of tenants and policies are encoded, whatever they hold; names of versions are made here. No pickle anywhere.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from dayjob.endings import Damaged, Invalid, NotFound, StorageFull
from dayjob.journal.disk import LOCAL_DISK, Disk
from dayjob.records import Json

Weights = dict[str, npt.NDArray[Any]]

FORMAT_VERSION: Final = 1
MANIFEST: Final = "manifest.json"
WEIGHTS: Final = "weights.safetensors"
MAX_MANIFEST_BYTES: Final = 1 << 20
_MAX_PART_BYTES: Final = 200  # of one path part; file systems stop at 255
_TEMPORARY: Final = ".tmp-"
_FILE: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
_VERSION: Final = re.compile(r"v(0|[1-9][0-9]{0,11})-[0-9a-f]{8}")
_DTYPES: Final = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
_CONTENT_FIELDS: Final = ("network", "recipe", "from_seq", "to_seq", "seed", "erasure_epoch")
_REMEDY: Final = "it will not serve; roll back to another version, or learn this one anew"


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionManifest:
    """Where a version comes from.

    >>> VersionManifest(recipe="debiased", network={"hidden": [256]}, from_seq=0, to_seq=9, seed=1, created_ms=0).parent
    """

    recipe: str
    network: Json  # what the policy needs to rebuild the network; JSON values only
    from_seq: int  # the journal range it learned from, (from_seq, to_seq]
    to_seq: int
    seed: int
    created_ms: int
    erasure_epoch: int = 0  # how many erasures the journal had seen
    parent: str | None = None  # lineage only
    made_with: dict[str, str] = field(default_factory=dict)  # lineage only: builds, threads, processor


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVersion:
    """A version that is durable now. ``digest`` is what to keep and to give to ``load``."""

    version: str
    digest: str  # hex SHA-256 of the content
    size_bytes: int
    manifest: VersionManifest


def publish(
    root: Path,
    tenant: str,
    policy: str,
    *,
    number: int,
    weights: Mapping[str, npt.NDArray[Any]],
    manifest: VersionManifest,
    disk: Disk = LOCAL_DISK,
) -> StoredVersion:
    """Write a version of a ranker and make it durable.

    Raises:
        Invalid: a weight is not finite or not a number, or the network is no JSON.
        StorageFull: the disk is full or refuses; nothing has the version's name.
    """
    files = {WEIGHTS: _serialise(weights)}
    return publish_files(root, tenant, policy, number=number, files=files, manifest=manifest, disk=disk)


def publish_files(
    root: Path,
    tenant: str,
    policy: str,
    *,
    number: int,
    files: Mapping[str, bytes],
    manifest: VersionManifest,
    disk: Disk = LOCAL_DISK,
) -> StoredVersion:
    """Write a version that is these files (an adapter's folder, say) and make it durable. Publishing equal content
    under the same number again changes nothing.

    Raises:
        Invalid: the network is no JSON, or a name is not one of a plain file.
        StorageFull: the disk is full or refuses; nothing has the version's name.
    """
    odd = [name for name in files if not _FILE.fullmatch(name) or name == MANIFEST]
    if odd or not files:
        raise Invalid(f"{odd or 'no file'!r} cannot be a version's file: use letters, digits, dot, dash and underscore")
    content = _content(manifest, files)
    digest = hashlib.sha256(_canonical(content)).hexdigest()
    version = f"v{number}-{digest[:8]}"
    if not _VERSION.fullmatch(version):
        raise Invalid(f"{number} is no number of a version; count from 0")
    final = folder_of(root, tenant, policy) / version
    lineage = {"parent": manifest.parent, "created_ms": manifest.created_ms, "made_with": manifest.made_with}
    size = sum(len(data) for data in files.values())
    sealed = _seal({"tenant": tenant, "policy": policy, "version": version, "digest": digest}, content, lineage)
    with _storage_errors(version):
        with contextlib.suppress(NotFound, Damaged):
            _, earlier = read_files(root, tenant, policy, version, digest=digest)
            disk.sync(final.parent)  # an earlier publish may have been cut short just before this
            return StoredVersion(version=version, digest=digest, size_bytes=size, manifest=earlier)
        _make_dirs(disk, root, final.parent)
        temporary = final.parent / f"{_TEMPORARY}{version}-{secrets.token_hex(8)}"
        try:
            _write_all(disk, temporary, {**files, MANIFEST: sealed})
            _clear_name(disk, final)
            disk.rename(temporary, final)
            disk.sync(final.parent)
        except OSError:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    kept, _ = _parse(sealed, version)
    return StoredVersion(version=version, digest=digest, size_bytes=size, manifest=kept)


def load(root: Path, tenant: str, policy: str, version: str, *, digest: str) -> tuple[Weights, VersionManifest]:
    """The weights and the manifest of a version whose content has this digest.

    Raises:
        NotFound: there is no such version.
        Damaged: what is there is not, byte for byte, what was published; the message says what differs.
    """
    files, manifest = read_files(root, tenant, policy, version, digest=digest)
    try:
        return safetensors.numpy.load(files[WEIGHTS]), manifest
    except (safetensors.SafetensorError, KeyError) as error:
        raise _damaged(version, f"{WEIGHTS} is there but cannot be read ({error})") from None


def find_files(
    root: Path, tenant: str, policy: str, version: str, *, digest: str
) -> tuple[Path, tuple[tuple[str, str], ...]]:
    """The folder of a version whose content has this digest, and the SHA-256 (hex) of each of its files, by name: for
    whoever reads and verifies them by itself.

    Raises NotFound and Damaged as ``load`` does; the files themselves are not read.
    """
    folder = folder_of(root, tenant, policy) / _known(version)
    files = _read_all(folder, version, only=MANIFEST)
    _, document = _named(files, tenant, policy, version=version, digest=digest)
    return folder, tuple((name, one["sha256"]) for name, one in sorted(document["content"]["files"].items()))


def read_files(
    root: Path, tenant: str, policy: str, version: str, *, digest: str
) -> tuple[dict[str, bytes], VersionManifest]:
    """The files of a version of whatever kind, its manifest not among them. Raises NotFound and Damaged as ``load``."""
    files = _read_all(folder_of(root, tenant, policy) / _known(version), version)
    manifest, document = _named(files, tenant, policy, version=version, digest=digest)
    del files[MANIFEST]
    if files.keys() != document["content"]["files"].keys():
        odd = sorted(files.keys() ^ document["content"]["files"].keys())
        raise _damaged(version, f"{odd[0]} is missing or was added")
    for name, data in files.items():
        if _fingerprint(data) != document["content"]["files"][name]:
            raise _damaged(version, f"{name} does not match its SHA-256")
    return files, manifest


def _named(
    files: Mapping[str, bytes], tenant: str, policy: str, *, version: str, digest: str
) -> tuple[VersionManifest, Json]:
    """The manifest among these files, which must be this version's."""
    if MANIFEST not in files:
        raise _damaged(version, f"{MANIFEST} is missing")
    manifest, document = _parse(files[MANIFEST], version)
    named = {"tenant": tenant, "policy": policy, "version": version, "digest": digest}
    for key, value in named.items():
        if document[key] != value:
            raise _damaged(version, f"its manifest belongs to another version: {key} differs")
    return manifest, document


def _known(version: str) -> str:
    """The name, if it is one that was made here."""
    if not _VERSION.fullmatch(version):
        raise NotFound(f"{version!r} is no version; list the policy's versions")
    return version


def copy(root: Path, target: Path, tenant: str, policy: str, *, version: str) -> None:
    """Copy a version's files, as they are, into another data directory.

    Raises:
        NotFound: there is no such version.
        Damaged: it cannot be read.
    """
    files = _read_all(folder_of(root, tenant, policy) / _known(version), version)
    final = folder_of(target, tenant, policy) / version
    with _storage_errors(version):
        final.mkdir(parents=True)
        for name, data in files.items():
            LOCAL_DISK.write(final / name, data)


def remove(root: Path, tenant: str, policy: str, version: str, *, disk: Disk = LOCAL_DISK) -> None:
    """Delete a version. Raises NotFound where there is none."""
    final = folder_of(root, tenant, policy) / _known(version)
    if not os.path.lexists(final):
        raise NotFound(f"version {version} is not on this disk; nothing was removed")
    with _storage_errors(version):
        _clear_name(disk, final)


def sweep(root: Path, *, now_s: float, older_than_s: float) -> int:
    """Delete what interrupted writes left behind for ``older_than_s``; how many. A write under way is younger."""
    swept = 0
    for path in (root / "versions").glob(f"*/*/{_TEMPORARY}*"):
        with contextlib.suppress(FileNotFoundError):
            if now_s - path.lstat().st_mtime >= older_than_s:
                _delete(path)
                swept += 1
    return swept


def _serialise(weights: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """safetensors bytes: the same for equal arrays, in whatever order and layout they come."""
    for name, array in weights.items():
        if array.dtype.name not in _DTYPES:
            raise Invalid(f"weight {name!r} is of {array.dtype}; publish one of {', '.join(_DTYPES)}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise Invalid(f"weight {name!r} holds NaN or infinity: learning diverged; lower the learning rate")
    # ascontiguousarray would turn a scalar into a vector; a copy in C order keeps its shape.
    return bytes(safetensors.numpy.save({name: np.array(weights[name], order="C") for name in sorted(weights)}))


def _fingerprint(data: bytes) -> Json:
    return {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}


def _content(manifest: VersionManifest, files: Mapping[str, bytes]) -> Json:
    fields = {name: getattr(manifest, name) for name in _CONTENT_FIELDS}
    return {"format": FORMAT_VERSION, "files": {name: _fingerprint(data) for name, data in files.items()}, **fields}


def _canonical(document: Json) -> bytes:
    try:
        return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise Invalid(f"the network and made_with of a version must be JSON with finite numbers ({error})") from None


def _seal(named: Json, content: Json, lineage: Json) -> bytes:
    document = {**named, "content": content, "lineage": lineage}
    sealed = _canonical({**document, "checksum": hashlib.sha256(_canonical(document)).hexdigest()})
    if len(sealed) > MAX_MANIFEST_BYTES:
        raise Invalid(f"the manifest takes {len(sealed)} bytes; keep it within {MAX_MANIFEST_BYTES}")
    return sealed


def _parse(sealed: bytes, version: str) -> tuple[VersionManifest, Json]:
    """The manifest in ``sealed``, and its whole document. Damaged unless it is, to the byte, what ``_seal`` makes."""
    try:
        document = json.loads(sealed)
        checksum = document.pop("checksum")
        content, lineage = document["content"], document["lineage"]
        sound = _canonical({**document, "checksum": checksum}) == sealed
        sound &= hashlib.sha256(_canonical(document)).hexdigest() == checksum
        sound &= hashlib.sha256(_canonical(content)).hexdigest() == document["digest"]
        if content["format"] > FORMAT_VERSION:
            raise _damaged(
                version, f"it has format {content['format']} and this dayjob reads {FORMAT_VERSION}; upgrade"
            )
        manifest = VersionManifest(**{name: content[name] for name in _CONTENT_FIELDS}, **lineage)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _damaged(version, f"{MANIFEST} cannot be read") from None
    if not sound:
        raise _damaged(version, f"{MANIFEST} does not match its own SHA-256")
    return manifest, document


def _damaged(version: str, what: str) -> Damaged:
    return Damaged(f"version {version}: {what}; {_REMEDY}")


def folder_of(root: Path, tenant: str, policy: str) -> Path:
    """Where the versions of a policy lie."""
    return root / "versions" / _part(tenant) / _part(policy)


def _part(name: str) -> str:
    """One path part for any name: no separators, no dots, no capitals (some file systems ignore case)."""
    part = "".join(
        chr(byte) if chr(byte) in "abcdefghijklmnopqrstuvwxyz0123456789_-" else f"%{byte:02x}"
        for byte in name.encode("utf-8", "surrogatepass")
    )
    if not 1 <= len(part) <= _MAX_PART_BYTES:
        raise Invalid("a tenant or policy has a name that is empty or too long; use 1 to 64 letters, digits, . _ and -")
    return part


def _read_all(directory: Path, version: str, *, only: str = "") -> dict[str, bytes]:
    """Every file of a version (or the one of that name), each read once, from one open directory, following no link."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            names = [name for name in os.listdir(descriptor) if only in ("", name)]
            return {name: _read(name, descriptor, version) for name in names}
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise NotFound(f"version {version} is not on this disk; restore it, or roll back to another version") from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EIO):
            raise _damaged(version, f"it cannot be read ({os.strerror(error.errno)})") from None
        raise  # too many open files and the like: the version may be sound


def _read(name: str, directory: int, version: str) -> bytes:
    # O_NONBLOCK: a named pipe would otherwise wait for a writer for ever.
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _damaged(version, f"{name} is not a file")
        if name == MANIFEST and found.st_size > MAX_MANIFEST_BYTES:
            raise _damaged(version, f"{name} has {found.st_size} bytes")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def _make_dirs(disk: Disk, root: Path, directory: Path) -> None:
    """Make ``directory`` under ``root``, its name durable in each parent even where an earlier try was cut short."""
    for part in reversed([directory, *directory.parents][: len(directory.relative_to(root).parts)]):
        with contextlib.suppress(FileExistsError):
            disk.make_dir(part)
        disk.sync(part.parent)


def _write_all(disk: Disk, directory: Path, files: Mapping[str, bytes]) -> None:
    disk.make_dir(directory)
    for name, data in files.items():
        disk.write(directory / name, data)
        disk.sync(directory / name)
    disk.sync(directory)


def _clear_name(disk: Disk, final: Path) -> None:
    """Take whatever has this name away, in one step, before it is deleted."""
    if os.path.lexists(final):
        aside = final.parent / f"{_TEMPORARY}{final.name}-{secrets.token_hex(8)}"
        disk.rename(final, aside)
        disk.sync(final.parent)
        with contextlib.suppress(FileNotFoundError):  # a sweep may be at it too
            _delete(aside)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


@contextlib.contextmanager
def _storage_errors(version: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageFull(
            f"version {version} was not written ({error.strerror}); free space or repair the disk"
        ) from error
