"""Forward passes of many requests at once, each with its own length and adapter. Synchronous; one thread owns it.

Works with any causal model of transformers whose attention looks at everything before a token and asks its cache by
``update`` (Llama, Qwen, Mistral and their kin). A model that is built otherwise (a window, a recurrent state, scaled
logits) gives other numbers here than in its own forward; the first thing this does is to compare the two, and refuse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dayjob.endings import Invalid
from dayjob.policies.adapters import Adapter
from dayjob.policies.engine_cache import Slots
from dayjob.policies.engine_lora import RowAdapters
from dayjob.policies.engine_protocol import Alternatives, VersionRef
from dayjob.policies.engine_sampling import alternatives

_HEAD_ROWS = 256  # tokens whose logits exist at once when scoring
_CLOSE, _CLOSE_ROUNDED = 1e-3, 0.25  # log-probabilities of FP32 models, and of rounded ones
_PROBE = VersionRef(name="", digest="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Tokens of one request to compute next: ``token_ids`` from column ``start`` of row ``row``."""

    row: int
    token_ids: Sequence[int]
    start: int
    adapter: Adapter


class Batch:
    """One causal model, its adapters and the rows of its running requests."""

    def __init__(self, model: Any, *, slots: int, max_tokens: int) -> None:
        """``model``: of ``AutoModelForCausalLM``, in evaluation mode. Raises Invalid if it cannot be served exactly."""
        self.device: torch.device = model.device
        self.vocabulary: int = model.get_output_embeddings().weight.shape[0]
        head: nn.Linear = model.get_output_embeddings()
        self._body = model.get_decoder()
        # FP32 on this side too: rounding the output matrix's product moves log-probabilities more than all else.
        self._head = head.weight.detach().to(torch.float32)
        self._head_bias = None if head.bias is None else head.bias.detach().to(torch.float32)
        self.adapters = RowAdapters(model, head=head)
        self.slots = self._make_slots(slots, max_tokens)
        self._compare(model, rows=min(2, slots))

    @torch.inference_mode()
    def forward(self, rows: Sequence[Row]) -> Tensor:
        """FP32 logits (B, V) behind the last token of each row; keys and values go into the slots."""
        self.adapters.use([row.adapter for row in rows])
        width = max(len(row.token_ids) for row in rows)
        start_B = torch.tensor([row.start for row in rows], device=self.device)
        padded = [[*row.token_ids, *[0] * (width - len(row.token_ids))] for row in rows]
        column_BT = start_B[:, None] + torch.arange(width, device=self.device)
        length = max(row.start for row in rows) + width
        self.slots.begin([row.row for row in rows], column_BT, length=length)
        # Fillers write behind the row's end, where the row's own next tokens overwrite them before anyone looks.
        seen_B1TL = torch.arange(length, device=self.device)[None, None, None, :] <= column_BT[:, None, :, None]
        hidden_BTD = self._body(
            input_ids=torch.tensor(padded, device=self.device),
            attention_mask=seen_B1TL,
            position_ids=column_BT,
            past_key_values=self.slots,
            use_cache=True,
        ).last_hidden_state
        last_B = torch.tensor([len(row.token_ids) - 1 for row in rows], device=self.device)
        return self._logits(hidden_BTD[torch.arange(len(rows), device=self.device), last_B])

    @torch.inference_mode()
    def score(
        self, token_ids: Sequence[int], start: int, *, adapter: Adapter, top: int
    ) -> tuple[tuple[float, ...], tuple[Alternatives, ...]]:
        """log softmax(logits)[token] of ``token_ids[start:]``, and alternatives; touches no slot."""
        self.adapters.use([adapter])
        ids = torch.tensor([token_ids], device=self.device)
        hidden_TD = self._body(input_ids=ids, use_cache=False).last_hidden_state[0, start - 1 : -1]
        logprobs: list[float] = []
        tops: list[Alternatives] = []
        for first in range(0, len(hidden_TD), _HEAD_ROWS):
            part = hidden_TD[first : first + _HEAD_ROWS]
            logp_CV = torch.log_softmax(self._logits(part), dim=1)
            token_C = ids[0, start + first : start + first + len(part)]
            logprobs += logp_CV.gather(1, token_C[:, None])[:, 0].tolist()
            tops += alternatives(logp_CV, [top] * len(part))
        return tuple(logprobs), tuple(tops)

    def _logits(self, hidden_ND: Tensor) -> Tensor:
        return nn.functional.linear(hidden_ND.to(torch.float32), self._head, self._head_bias)

    @torch.inference_mode()
    def _make_slots(self, slots: int, max_tokens: int) -> Slots:
        probe = torch.zeros(1, 1, dtype=torch.long, device=self.device)
        cache = self._body(input_ids=probe, use_cache=True).past_key_values
        try:
            return Slots([layer.keys for layer in cache.layers], slots=slots, columns=max_tokens)
        except (AttributeError, ValueError) as error:
            raise _unfit(str(error)) from error

    @torch.inference_mode()
    def _compare(self, model: Any, *, rows: int) -> None:
        """Rows of 9 and 5 tokens at once, in two steps each, must give what the model itself gives."""
        base = Adapter(ref=_PROBE, parts={})
        ids = [[(7 * row + 3 * place * place) % self.vocabulary for place in range(9 - 4 * row)] for row in range(rows)]
        cut = [6, 1]
        try:
            for first in (True, False):
                step = [(0, cut[row]) if first else (cut[row], len(ids[row])) for row in range(rows)]
                here = [Row(row=r, token_ids=ids[r][a:b], start=a, adapter=base) for r, (a, b) in enumerate(step)]
                ours_BV = self.forward(here)
        except (AttributeError, TypeError, IndexError) as error:
            raise _unfit(str(error)) from error
        for row, tokens in enumerate(ids):
            own_V = model(input_ids=torch.tensor([tokens], device=self.device)).logits[0, -1].to(torch.float32)
            gap = (torch.log_softmax(ours_BV[row], 0) - torch.log_softmax(own_V, 0)).abs().max().item()
            if not gap <= (_CLOSE if model.dtype == torch.float32 else _CLOSE_ROUNDED):
                raise _unfit(f"log-probabilities in a batch are off by {gap:.2g}")


def _unfit(why: str) -> Invalid:
    message = f"this model is built in a way that this engine does not serve exactly ({why}): serve it with vLLM"
    return Invalid(message, param="base")
