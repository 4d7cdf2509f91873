"""Vectors as bytes: half the size where float16 holds them, exact where it does not, shared by digest.

The server quantises a vector once, on arrival, and scores what it stores: whoever recomputes a score from the journal
starts from the very same numbers.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dayjob.endings import Damaged, Invalid

F16_MAX = float(np.finfo(np.float16).max)
# A float16 keeps 11 bits: rounding moves a number by at most 2^-11 of itself, plus 2^-25 below its smallest normal.
TOLERANCE = 1e-3
FLOOR = 1e-5
# From here on the bound holds by itself: 2^-11 is within the tolerance, and 2^-25 within the floor times the size.
SURE = 2.0**-25 / FLOOR
# Every float16 as float32: looking one up takes half the time of computing it.
WIDE = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
BLOCK = 1 << 16  # numbers looked up at a time: their places take eight bytes each


def pack(vector_D: npt.NDArray[np.float32]) -> bytes:
    """Encode D numbers in 2·D bytes (float16) when that is faithful to 0.1 %, else in 4·D bytes (float32)."""
    return pack_many(vector_D[None, :])[0]


def pack_many(vector_ND: npt.NDArray[np.float32]) -> list[bytes]:
    """Encode N vectors. Raises Invalid when a number is not finite."""
    vector_ND = np.ascontiguousarray(vector_ND, dtype=np.float32)
    size_N = np.abs(vector_ND).max(axis=1, initial=0.0)
    # Nearly always: every vector of a size at which float16 is known to be faithful. NaN compares false.
    if len(size_N) and size_N.min() >= SURE and size_N.max() <= F16_MAX:
        return _split(vector_ND.astype(np.float16))
    if not np.isfinite(size_N).all():
        raise Invalid("a vector holds a number that is not finite (NaN or infinity): send finite numbers only")
    with np.errstate(over="ignore"):
        half_ND = vector_ND.astype(np.float16)
    faithful_N = size_N <= F16_MAX
    small_N = size_N < SURE
    if small_N.any():
        few_ND = vector_ND[small_N]
        error_ND = np.abs(half_ND[small_N].astype(np.float32) - few_ND)
        faithful_N[small_N] = (error_ND <= TOLERANCE * np.abs(few_ND) + FLOOR * size_N[small_N, None]).all(axis=1)
    if faithful_N.all():
        return _split(half_ND)
    return [
        (half.tobytes() if faithful else full.tobytes())
        for half, full, faithful in zip(half_ND, vector_ND, faithful_N, strict=True)
    ]


def _split(half_ND: npt.NDArray[np.float16]) -> list[bytes]:
    """The bytes of each row."""
    raw, width = half_ND.tobytes(), 2 * half_ND.shape[1]
    return [raw[at : at + width] for at in range(0, len(raw), width)] if width else [b""] * len(half_ND)


def unpack(blob: bytes, dim: int) -> npt.NDArray[np.float32]:
    """Decode one vector of ``dim`` numbers. Raises Damaged when the length fits neither width."""
    if len(blob) == 2 * dim:
        return _widen(blob)
    if len(blob) == 4 * dim:
        return np.frombuffer(blob, dtype="<f4").copy()
    raise Damaged(f"a stored vector has {len(blob)} bytes where {2 * dim} or {4 * dim} were expected")


def unpack_many(blobs: Sequence[bytes], dim: int) -> npt.NDArray[np.float32]:
    """Decode N vectors of ``dim`` numbers to (N, dim)."""
    if all(len(blob) == 2 * dim for blob in blobs):
        return _widen(b"".join(blobs)).reshape(len(blobs), dim)
    return np.stack([unpack(blob, dim) for blob in blobs]) if blobs else np.zeros((0, dim), np.float32)


def _widen(raw: bytes) -> npt.NDArray[np.float32]:
    """Little-endian float16 as float32."""
    half_N = np.frombuffer(raw, dtype="<u2")
    if len(half_N) <= BLOCK:
        return WIDE.take(half_N, mode="clip")
    wide_N = np.empty(len(half_N), np.float32)
    for at in range(0, len(half_N), BLOCK):
        WIDE.take(half_N[at : at + BLOCK], out=wide_N[at : at + BLOCK], mode="clip")
    return wide_N


def digest(blob: bytes) -> bytes:
    """The 16-byte key of an encoded vector within its tenant."""
    return hashlib.blake2b(blob, digest_size=16).digest()
