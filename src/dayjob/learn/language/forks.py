"""Two completions behind one prompt, which is read once: what preferences compare costs its prompt no second time.

A row is the prompt, the first completion and the second, one behind another. The second has the positions that it would
have right behind the prompt and sees nothing of the first, so every number is that of the completion alone behind the
prompt (as the shared prefixes of Hydragen, Juravsky et al., 2024, in a single pass with a gradient).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dayjob.learn.language.study import Ids, alike

_PROMPT, _FILLER = 0, 3  # which part a token belongs to; 1 and 2 are the completions


@dataclass(frozen=True, slots=True, kw_only=True)
class Forks:
    """P prompts with two completions each, padded on the right. B = 2 P: all the first ones, then all the second.
    Shapes in ``objectives.language``; L is what a row has to read."""

    ids_PL: Tensor
    position_PL: Tensor
    part_PL: Tensor
    lengths: tuple[int, ...]  # of the rows
    place_BT: Tensor  # of the hidden state that predicts each token of the completions, in the row of its prompt
    token_BT: Tensor
    mask_BT: Tensor

    @staticmethod
    def of(prompts: Sequence[Ids], *, first: Sequence[Ids], second: Sequence[Ids], device: torch.device) -> Forks:
        """A row each; a completion may be empty (it counts nowhere), a prompt may not."""
        rows = [_row(*one) for one in zip(prompts, first, second, strict=True)]
        most = max(1, max(len(one) for one in (*first, *second)))
        places = [row.places[side] for side in (0, 1) for row in rows]
        return Forks(
            ids_PL=_padded([row.ids for row in rows], 0, device),
            position_PL=_padded([row.positions for row in rows], 0, device),
            part_PL=_padded([row.parts for row in rows], _FILLER, device),
            lengths=tuple(len(row.ids) for row in rows),
            place_BT=_padded(places, 0, device, most),
            token_BT=_padded([*first, *second], 0, device, most),
            mask_BT=_padded([[1] * len(one) for one in (*first, *second)], 0, device, most).bool(),
        )

    def __len__(self) -> int:
        return len(self.ids_PL)

    def cut(self, part: slice) -> Forks:
        """Some of the prompts, with both completions."""
        place_BT, token_BT, mask_BT = (
            _sides(one)[:, part].flatten(0, 1) for one in (self.place_BT, self.token_BT, self.mask_BT)
        )
        return Forks(
            ids_PL=self.ids_PL[part], position_PL=self.position_PL[part], part_PL=self.part_PL[part],
            lengths=self.lengths[part], place_BT=place_BT, token_BT=token_BT, mask_BT=mask_BT,
        )  # fmt: skip

    def states(self, body: Any) -> Tensor:
        """(B, T, D): the last hidden state that predicts each token of the completions; rows of like lengths go through
        the model together."""
        found = []
        place_2PT = _sides(self.place_BT)
        order, groups = alike(self.lengths)
        for places in groups:
            rows, length = torch.tensor(places, device=place_2PT.device), max(self.lengths[row] for row in places)
            part_CL = self.part_PL[rows, :length]
            step_L = torch.arange(length, device=part_CL.device)
            allowed_CLL = (part_CL[:, None, :] == _PROMPT) | (part_CL[:, None, :] == part_CL[:, :, None])
            hidden_CLD: Tensor = body(
                input_ids=self.ids_PL[rows, :length],
                attention_mask=(allowed_CLL & (step_L[None, :] <= step_L[:, None]))[:, None],
                position_ids=self.position_PL[rows, :length],
                use_cache=False,
            ).last_hidden_state
            each_C1 = torch.arange(len(rows), device=rows.device)[:, None]
            found.append(torch.stack([hidden_CLD[each_C1, place_PT[rows]] for place_PT in place_2PT], dim=1))
        states_P2TD = torch.cat(found)[torch.argsort(torch.tensor(order, device=place_2PT.device))]
        return states_P2TD.transpose(0, 1).flatten(0, 1)


def _sides(numbers_BT: Tensor) -> Tensor:
    """(2, P, T) of (B, T)."""
    return numbers_BT.view(2, -1, numbers_BT.shape[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    ids: list[int]
    positions: list[int]
    parts: list[int]
    places: tuple[list[int], list[int]]


def _row(prompt: Ids, first: Ids, second: Ids) -> _Row:
    """A completion's last token predicts nothing and is not read."""
    begin, one, two = len(prompt), first[:-1], second[:-1]
    behind = begin + len(one)
    return _Row(
        ids=[*prompt, *one, *two],
        positions=[*range(behind), *range(begin, begin + len(two))],
        parts=[*[_PROMPT] * begin, *[1] * len(one), *[2] * len(two)],
        places=(
            [begin - 1 + step for step in range(len(first))],
            [begin - 1 if step == 0 else behind + step - 1 for step in range(len(second))],
        ),
    )


def _padded(rows: Sequence[Sequence[int]], filler: int, device: torch.device, width: int = 0) -> Tensor:
    width = width or max(len(row) for row in rows)
    return torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows], device=device)
