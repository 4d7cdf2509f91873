"""Different adapters in one batch: every row of a forward pass gets its own.

The adapters of a batch are laid side by side: A of all of them is one matrix of R = r_1 + r_2 + ... rows, so two dense
products serve everybody, and a row keeps only the columns of its own adapter (the rest are filled with zeros before the
second product, so nothing of one adapter ever reaches another's row, not even an overflow). Which adapters a batch has
changes when requests come and go, not from token to token: the laid-out matrices are kept for the last few batches.
Punica (Chen et al., MLSys 2024) and S-LoRA (Sheng et al., MLSys 2024) do the same with kernels of their own.

The products run in FP32 whatever the model's type, as PEFT keeps adapters.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dayjob.policies.adapters import Adapter, Shapes
from dayjob.policies.engine_protocol import VersionRef

KEPT = 4  # laid-out batches


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """The adapters of one batch, side by side."""

    a: dict[str, Tensor]  # layer -> (I, R)
    b: dict[str, Tensor]  # layer -> (R, O)
    owner: dict[str, Tensor]  # layer -> (R,): which of the adapters a column belongs to


class RowAdapters:
    """Adds each row's adapter to the linear layers of one model. By forward hooks: the model itself stays as it is."""

    def __init__(self, model: nn.Module, *, head: nn.Module) -> None:
        """``head`` (the output matrix) is left alone. Adapters' layers go by their names in ``model``."""
        self.shapes: Shapes = {
            name: (layer.in_features, layer.out_features)
            for name, layer in model.named_modules()
            if isinstance(layer, nn.Linear) and layer is not head
        }
        self._layouts: OrderedDict[tuple[VersionRef, ...], _Layout] = OrderedDict()
        self._layout: _Layout | None = None
        self._others: dict[str, Tensor] = {}  # layer -> (B, 1, R): columns of another row's adapter
        self._rows = 0
        for name in self.shapes:
            model.get_submodule(name).register_forward_hook(self._hook(name))

    def use(self, adapters: Sequence[Adapter]) -> None:
        """The adapter of each row of the next forward passes."""
        distinct = {one.ref: one for one in adapters if one.parts}
        self._rows = len(adapters)
        if not distinct:
            self._layout = None
            return
        key = tuple(sorted(distinct, key=lambda ref: (ref.name, ref.digest)))
        layout = self._layouts.pop(key, None) or _lay_out([distinct[ref] for ref in key])
        self._layouts[key] = layout
        if len(self._layouts) > KEPT:
            self._layouts.popitem(last=False)
        self._layout = layout
        number = {ref: place for place, ref in enumerate(key)}
        owners = [number.get(one.ref, -1) for one in adapters]
        shared = len(key) == 1 and -1 not in owners
        self._others = {}
        if shared:
            return
        masks: dict[int, Tensor] = {}  # layers whose columns belong to the same adapters share one
        for name, owner_R in layout.owner.items():
            if id(owner_R) not in masks:
                owner_B = torch.tensor(owners, device=owner_R.device)
                masks[id(owner_R)] = (owner_B[:, None] != owner_R[None, :])[:, None, :]
            self._others[name] = masks[id(owner_R)]

    def forget(self, ref: VersionRef) -> None:
        """Free the batches that a version was laid out in."""
        for key in [key for key in self._layouts if ref in key]:
            del self._layouts[key]
        self._layout, self._others = None, {}  # of the last pass; the next one says what it uses

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]:
        def _add(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            layout = self._layout
            if layout is None or name not in layout.a:
                return None
            x_BTI = inputs[0]
            assert x_BTI.shape[:-2] == (self._rows,), "a layer whose rows are not the batch's"
            low_BTR = x_BTI.to(torch.float32) @ layout.a[name]
            other_B1R = self._others.get(name)
            if other_B1R is not None:
                low_BTR = low_BTR.masked_fill(other_B1R, 0.0)
            return (output + low_BTR @ layout.b[name]).to(output.dtype)

        return _add


def _lay_out(adapters: Sequence[Adapter]) -> _Layout:
    """The parts of each layer, in the order of ``adapters``."""
    a, b, owner = {}, {}, {}
    owners: dict[tuple[tuple[int, int], ...], Tensor] = {}
    for name in sorted({name for one in adapters for name in one.parts}):
        holders = [(number, one.parts[name]) for number, one in enumerate(adapters) if name in one.parts]
        device = holders[0][1].a_RI.device
        a[name] = torch.cat([part.a_RI for _, part in holders]).T.contiguous()
        b[name] = torch.cat([part.b_OR for _, part in holders], dim=1).T.contiguous()
        ranks = tuple((number, len(part.a_RI)) for number, part in holders)
        if ranks not in owners:
            owners[ranks] = torch.tensor([number for number, rank in ranks for _ in range(rank)], device=device)
        owner[name] = owners[ranks]
    return _Layout(a=a, b=b, owner=owner)
