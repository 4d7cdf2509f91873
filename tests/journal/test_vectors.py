"""Vectors as bytes: half the size where that is faithful, exact where it is not, never a silent loss."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dayjob.endings import Damaged, Invalid
from dayjob.journal.vectors import FLOOR, TOLERANCE, digest, pack, pack_many, unpack, unpack_many

F32 = npt.NDArray[np.float32]
Finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 6)), elements=Finite))
def test_what_is_read_is_what_was_sent_to_a_thousandth(vector_ND: F32) -> None:
    blobs = pack_many(vector_ND)
    read_ND = unpack_many(blobs, vector_ND.shape[1])
    size_N1 = np.abs(vector_ND).max(axis=1, keepdims=True)
    assert (np.abs(read_ND - vector_ND) <= TOLERANCE * np.abs(vector_ND) + FLOOR * size_N1).all()
    for blob, sent, read in zip(blobs, vector_ND, read_ND, strict=True):
        assert len(blob) in (2 * len(sent), 4 * len(sent))
        assert pack(sent) == blob, "alone or among others"
        np.testing.assert_array_equal(unpack(blob, len(sent)), read)
        if len(blob) == 4 * len(sent):
            np.testing.assert_array_equal(read, sent)


@given(arrays(np.float32, st.integers(1, 8), elements=Finite))
def test_packing_what_was_read_changes_nothing(vector_D: F32) -> None:
    blob = pack(vector_D)
    assert pack(unpack(blob, len(vector_D))) == blob


@pytest.mark.parametrize(
    ("numbers", "bytes_each"),
    [
        ([1.0, -0.5, 0.25], 2),
        ([0.1, 0.2, 0.3], 2),
        ([65_504.0, 1.0], 2),  # the largest float16
        ([65_536.0, 1.0], 4),  # beyond it
        ([1e-9, 1e-9], 4),  # a float16 would round both to nothing
        ([1.0, 1e-9], 2),  # nothing beside 1
        ([0.0, 0.0], 2),
        ([1e30, -1e30], 4),
    ],
)
def test_half_the_size_where_it_is_faithful(numbers: list[float], bytes_each: int) -> None:
    assert len(pack(np.array(numbers, np.float32))) == bytes_each * len(numbers)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(wrong: float) -> None:
    with pytest.raises(Invalid, match="finite"):
        pack(np.array([1.0, wrong], np.float32))


def test_wrong_lengths_are_damage() -> None:
    with pytest.raises(Damaged):
        unpack(b"123", 2)
    with pytest.raises(Damaged):
        unpack_many([b"1234", b"123"], 2)


def test_widths_may_mix_and_nothing_is_a_batch() -> None:
    rows = np.array([[1.0, 2.0], [1e6, 2.0]], np.float32)
    np.testing.assert_array_equal(unpack_many(pack_many(rows), 2), rows)
    assert unpack_many([], 7).shape == (0, 7)
    assert pack_many(np.zeros((2, 0), np.float32)) == [b"", b""]


def test_equal_vectors_share_a_digest_and_others_do_not() -> None:
    one, same, other = (pack(np.array(v, np.float32)) for v in ([1.0, 2.0], [1.0, 2.0], [2.0, 1.0]))
    assert digest(one) == digest(same) != digest(other)
    assert len(digest(one)) == 16


def test_every_half_is_read_as_the_number_it_is() -> None:
    half_N = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    half_N = half_N[np.isfinite(half_N)]
    wide_N = unpack(half_N.astype("<f2").tobytes(), len(half_N))
    np.testing.assert_array_equal(wide_N.view(np.uint32), half_N.astype(np.float32).view(np.uint32))
    twice_N = unpack_many([half_N.astype("<f2").tobytes()] * 2, len(half_N))  # more than are looked up at a time
    np.testing.assert_array_equal(twice_N, np.stack([wide_N, wide_N]))
