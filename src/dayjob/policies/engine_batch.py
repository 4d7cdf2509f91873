"""Forward passes of many requests at once, each with its own length and adapter. Synchronous; one thread owns it.

Works with any causal model of transformers whose attention looks at everything before a token and asks its cache by
``update`` (Llama, Qwen, Mistral and their kin). A model that is built otherwise (a window, a recurrent state, scaled
logits) gives other numbers here than in its own forward; the first thing this does is to compare the two, and refuse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
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


@dataclass(slots=True, kw_only=True)
class Scoring:
    """Tokens that are scored in pieces. ``logprobs`` and ``tops``: of those from ``start`` on, as far as it went."""

    token_ids: tuple[int, ...]
    start: int
    top: int
    slots: Slots
    read: int = 0  # tokens whose keys and values are computed
    logprobs: list[float] = field(default_factory=list)
    tops: list[Alternatives] = field(default_factory=list)


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
        self._like = self._first_keys()
        self.slots = self._make_slots(slots, max_tokens)
        self._compare(model, rows=min(2, slots))

    @torch.inference_mode()
    def forward(self, rows: Sequence[Row]) -> Tensor:
        """FP32 logits (B, V) behind the last token of each row; keys and values go into the slots."""
        hidden_BTD = self._hidden(rows, self.slots)
        last_B = torch.tensor([len(row.token_ids) - 1 for row in rows], device=self.device)
        return self._logits(hidden_BTD[torch.arange(len(rows), device=self.device), last_B])

    @torch.inference_mode()
    def hidden(self, rows: Sequence[Row]) -> Tensor:
        """(B, T, D): what the output matrix is given behind each of the rows' tokens, padded on the right."""
        return self._hidden(rows, self.slots)

    def _hidden(self, rows: Sequence[Row], slots: Slots) -> Tensor:
        """(B, T, D) of the rows' tokens; keys and values go into ``slots``."""
        self.adapters.use([row.adapter for row in rows])
        width = max(len(row.token_ids) for row in rows)
        start_B = torch.tensor([row.start for row in rows], device=self.device)
        padded = [[*row.token_ids, *[0] * (width - len(row.token_ids))] for row in rows]
        column_BT = start_B[:, None] + torch.arange(width, device=self.device)
        length = max(row.start for row in rows) + width
        slots.begin([row.row for row in rows], column_BT, length=length)
        # Fillers write behind the row's end, where the row's own next tokens overwrite them before anyone looks.
        seen_B1TL = torch.arange(length, device=self.device)[None, None, None, :] <= column_BT[:, None, :, None]
        found: Tensor = self._body(
            input_ids=torch.tensor(padded, device=self.device),
            attention_mask=seen_B1TL,
            position_ids=column_BT,
            past_key_values=slots,
            use_cache=True,
        ).last_hidden_state
        return found

    @torch.inference_mode()
    def score(
        self, token_ids: Sequence[int], start: int, *, adapter: Adapter, top: int
    ) -> tuple[tuple[float, ...], tuple[Alternatives, ...]]:
        """log softmax(logits)[token] of ``token_ids[start:]``, and alternatives, all at once; touches no slot."""
        self.adapters.use([adapter])
        ids = torch.tensor([token_ids], device=self.device)
        hidden_TD = self._body(input_ids=ids, use_cache=False).last_hidden_state[0, start - 1 : -1]
        logprobs, tops = self._told(hidden_TD, token_ids[start:], top=top)
        return tuple(logprobs), tuple(tops)

    @torch.inference_mode()
    def begin_score(self, token_ids: Sequence[int], start: int, *, top: int) -> Scoring:
        """The same in pieces: give it to :meth:`go_on` until it is done."""
        slots = Slots(self._like, slots=1, columns=len(token_ids))
        return Scoring(token_ids=tuple(token_ids), start=start, top=top, slots=slots)

    @torch.inference_mode()
    def go_on(self, scoring: Scoring, *, adapter: Adapter, part: int) -> bool:
        """Compute at most ``part`` more tokens. Whether that was all."""
        if scoring.start == len(scoring.token_ids):
            return True  # nothing was asked
        first = scoring.read
        ids = scoring.token_ids[first : min(first + part, len(scoring.token_ids) - 1)]  # the last predicts nothing
        row = Row(row=0, token_ids=ids, start=first, adapter=adapter)
        hidden_TD = self._hidden([row], scoring.slots)[0]
        scoring.read += len(ids)
        skipped = max(0, scoring.start - 1 - first)
        if skipped < len(ids):
            told = scoring.token_ids[first + skipped + 1 : scoring.read + 1]
            logprobs, tops = self._told(hidden_TD[skipped:], told, top=scoring.top)
            scoring.logprobs += logprobs
            scoring.tops += tops
        return scoring.read == len(scoring.token_ids) - 1

    def _told(self, hidden_TD: Tensor, token_ids: Sequence[int], *, top: int) -> tuple[list[float], list[Alternatives]]:
        """Log-probabilities of the tokens behind these states, and alternatives."""
        token_T = torch.tensor(token_ids, dtype=torch.long, device=self.device)
        logprobs: list[float] = []
        tops: list[Alternatives] = []
        for first in range(0, len(hidden_TD), _HEAD_ROWS):
            part = hidden_TD[first : first + _HEAD_ROWS]
            logp_CV = torch.log_softmax(self._logits(part), dim=1)
            logprobs += logp_CV.gather(1, token_T[first : first + len(part), None])[:, 0].tolist()
            tops += alternatives(logp_CV, [top] * len(part))
        return logprobs, tops

    def _logits(self, hidden_ND: Tensor) -> Tensor:
        return nn.functional.linear(hidden_ND.to(torch.float32), self._head, self._head_bias)

    @torch.inference_mode()
    def _first_keys(self) -> list[Tensor]:
        """Of one token, as the model makes them: one a layer."""
        probe = torch.zeros(1, 1, dtype=torch.long, device=self.device)
        try:
            return [layer.keys for layer in self._body(input_ids=probe, use_cache=True).past_key_values.layers]
        except AttributeError as error:
            raise _unfit(str(error)) from error

    @torch.inference_mode()
    def _make_slots(self, slots: int, max_tokens: int) -> Slots:
        try:
            return Slots(self._like, slots=slots, columns=max_tokens)
        except ValueError as error:
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
    message = (
        f"this model is built in a way that this engine does not serve exactly ({why}): serve it with vLLM (set engine "
        "and url in its table of dayjob.toml, see docs/engine.md)"
    )
    return Invalid(message, param="base")
