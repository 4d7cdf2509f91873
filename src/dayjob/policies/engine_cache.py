"""Keys and values: of the answers being written, and of prompts seen before.

:class:`Slots` holds one row a running request. The key of the token at position p stands in column p, in every row, so
rows of different lengths need no padding on the left, no shifting and no positions but their own; what a shorter row
has in later columns is masked. :class:`PromptCache` keeps blocks of tokens by a hash of everything before them, so any
request that begins with the same tokens, under the same version and salt, takes them over (as vLLM's prefix cache,
Kwon et al., SOSP 2023).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

BLOCK = 16  # tokens
_FIRST = 256  # columns to begin with


class Slots:
    """kv_LSCHD of each kind: layers, slots, columns, heads, width of a head. Grows by doubling its columns.

    The part of transformers' ``Cache`` that a decoder's attention calls is :meth:`update`.
    """

    def __init__(self, like: Sequence[Tensor], *, slots: int, columns: int) -> None:
        """``like``: one key tensor (1, H, T, D) a layer, of the model's own making. All layers must agree."""
        first = like[0]
        if any(one.shape != first.shape or one.dtype != first.dtype for one in like):
            raise ValueError("the layers' keys have different sizes")
        _, heads, _, width = first.shape
        self._limit = columns
        start = min(_FIRST, columns)
        self._kv = torch.zeros(2, len(like), slots, start, heads, width, dtype=first.dtype, device=first.device)
        self._rows: Tensor = torch.zeros(1, 1, dtype=torch.long)
        self._columns: Tensor = self._rows
        self._span: slice | None = None
        self._length = 0

    @property
    def token_bytes(self) -> int:
        """Of one token's keys and values."""
        size = self._kv
        return 2 * size.shape[1] * size.shape[4] * size.shape[5] * size.element_size()

    def begin(self, rows: Sequence[int], columns_BT: Tensor, *, length: int) -> None:
        """Say which rows the next forward pass is of, where its tokens go, and how far it looks."""
        while self._kv.shape[3] < length:
            wider = min(2 * self._kv.shape[3], max(self._limit, length))
            old = self._kv
            self._kv = old.new_zeros(*old.shape[:3], wider, *old.shape[4:])
            self._kv[:, :, :, : old.shape[3]] = old
        self._rows = torch.tensor(rows, device=self._kv.device)[:, None]
        self._columns, self._length = columns_BT, length
        first = rows[0]
        # Neighbouring rows are read in place, others are gathered.
        self._span = slice(first, first + len(rows)) if list(rows) == list(range(first, first + len(rows))) else None

    def update(self, key_BHTD: Tensor, value_BHTD: Tensor, *layer: Any) -> tuple[Tensor, Tensor]:
        """Write the new tokens' keys and values; give back those of everything so far, (B, H, length, D).

        ``layer``: its number first; what some models pass behind it is of no concern here.
        """
        found = []
        for kind, new in enumerate((key_BHTD, value_BHTD)):
            layer_SCHD = self._kv[kind, layer[0]]
            layer_SCHD[self._rows, self._columns] = new.transpose(1, 2)
            seen = layer_SCHD[:, : self._length]
            rows = seen[self._span] if self._span is not None else seen.index_select(0, self._rows[:, 0])
            found.append(rows.transpose(1, 2))
        return found[0], found[1]

    def move(self, source: int, target: int, *, length: int) -> None:
        """Copy a row over another."""
        self._kv[:, :, target, :length] = self._kv[:, :, source, :length]

    def wipe(self, lengths: Sequence[int]) -> None:
        """Overwrite what is behind the first ``lengths[row]`` columns of each row, and all of the rows that follow."""
        for row in range(self._kv.shape[2]):
            self._kv[:, :, row, lengths[row] if row < len(lengths) else 0 :] = 0

    def read(self, row: int, columns: range) -> Tensor:
        """A copy of some columns of a row, (2, L, T, H, D)."""
        return self._kv[:, :, row, columns.start : columns.stop].clone()

    def write(self, row: int, start: int, *, block: Tensor) -> None:
        """The inverse of :meth:`read`; the columns must be there already (see :meth:`reserve`)."""
        self._kv[:, :, row, start : start + block.shape[2]] = block

    def reserve(self, length: int) -> None:
        """Make room for ``length`` columns."""
        self.begin([0], torch.zeros(1, 1, dtype=torch.long), length=length)


class PromptCache:
    """Blocks of keys and values, least recently used out first. ``capacity``: bytes."""

    def __init__(self, *, capacity: int, token_bytes: int) -> None:
        self._blocks: OrderedDict[bytes, tuple[Tensor, tuple[str, ...]]] = OrderedDict()  # with its salts
        self._capacity = capacity
        self._block_bytes = BLOCK * token_bytes
        self.hit_tokens = 0  # taken over so far
        self.asked_tokens = 0  # of prompts looked up so far

    @property
    def size(self) -> int:
        """Bytes held now; at most the capacity."""
        return len(self._blocks) * self._block_bytes

    def find(self, token_ids: Sequence[int], *, salt: tuple[str, ...]) -> list[Tensor]:
        """The blocks of the longest known prefix. The last token is never among them: its logits are to be computed."""
        self.asked_tokens += len(token_ids)
        found = []
        keys = list(_keys(token_ids[:-1], salt))
        for key in keys:
            if key not in self._blocks:
                break
            found.append(self._blocks[key][0])
        self._touch(keys[: len(found)])
        self.hit_tokens += BLOCK * len(found)
        return found

    def keep(self, token_ids: Sequence[int], slots: Slots, *, row: int, salt: tuple[str, ...]) -> None:
        """Remember the whole blocks of a row whose first ``len(token_ids)`` columns are computed."""
        keys = list(_keys(token_ids, salt))
        if self._capacity < self._block_bytes:
            return
        for number, key in enumerate(keys):
            if key not in self._blocks:
                self._blocks[key] = slots.read(row, range(number * BLOCK, (number + 1) * BLOCK)), salt
        self._touch(keys)
        while self.size > self._capacity:
            self._blocks.popitem(last=False)

    def forget(self, is_gone: Callable[[tuple[str, ...]], bool]) -> None:
        """Put out every block whose salts are gone."""
        for key in [key for key, (_, salt) in self._blocks.items() if is_gone(salt)]:
            del self._blocks[key]

    def _touch(self, keys: Sequence[bytes]) -> None:
        # Last block first: a prefix outlives what follows it, which is of no use without it.
        for key in reversed(keys):
            self._blocks.move_to_end(key)


def _keys(token_ids: Sequence[int], salt: tuple[str, ...]) -> Iterator[bytes]:
    """A hash a whole block, of the block and everything before it. Salts are length-prefixed: no two sets collide."""
    state = hashlib.sha256("".join(f"{len(part)}:{part}" for part in salt).encode())
    ids = np.asarray(token_ids, "<u4")
    for stop in range(BLOCK, len(ids) + 1, BLOCK):
        state.update(ids[stop - BLOCK : stop].tobytes())
        yield state.copy().digest()
