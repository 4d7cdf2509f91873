"""The model that learns: a base, an adapter on it that can be switched off, and the hidden states of given rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from dayjob.endings import Invalid
from dayjob.learn.language.recipes import NightRecipe
from dayjob.learn.language.writing import Writer
from dayjob.objectives.language.logits import token_logprobs
from dayjob.policies.engine_batch import Batch
from dayjob.policies.engine_transformers import load_model
from dayjob.policies.language_train import TrainableLora
from dayjob.policies.tokens import Tokens

Ids = tuple[int, ...]
SPREAD = 1.6  # of the lengths of rows that go through the model together


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Completions behind prompts, padded on the right: a causal model sees nothing of what follows a token, so the
    numbers of a row are those it has alone. Shapes in ``objectives.language``; L is prompt and completion."""

    ids_BL: Tensor
    place_BT: Tensor  # of the hidden state that predicts each token of the completion
    token_BT: Tensor
    mask_BT: Tensor

    @staticmethod
    def of(prompts: Sequence[Ids], completions: Sequence[Ids], *, device: torch.device) -> Rows:
        """A row each; a completion may be empty (it counts nowhere), a prompt may not."""
        pairs = list(zip(prompts, completions, strict=True))
        longest = max(len(prompt) + len(completion) for prompt, completion in pairs)
        most = max(1, max(len(completion) for completion in completions))
        ids = [[*prompt, *completion, *[0] * (longest - len(prompt) - len(completion))] for prompt, completion in pairs]
        token = [[*completion, *[0] * (most - len(completion))] for completion in completions]
        length_B1 = torch.tensor([len(completion) for completion in completions], device=device)[:, None]
        start_B1 = torch.tensor([len(prompt) for prompt in prompts], device=device)[:, None]
        step_T = torch.arange(most, device=device)
        return Rows(
            ids_BL=torch.tensor(ids, device=device),
            place_BT=(start_B1 - 1 + step_T).clamp_max(longest - 1),
            token_BT=torch.tensor(token, device=device),
            mask_BT=step_T < length_B1,
        )

    def __len__(self) -> int:
        return len(self.ids_BL)

    def by_length(self) -> tuple[Tensor, list[tuple[Tensor, int]]]:
        """All rows in order of length, and the same in groups: the rows of each, and how many tokens of them the model
        has to read. Within a group the longest is at most ``SPREAD`` times the shortest; a last token predicts nothing
        and is not read."""
        need = torch.where(self.mask_BT, self.place_BT + 1, 1).amax(dim=1).tolist()
        order, groups = alike(need)
        device = self.ids_BL.device
        told = [(torch.tensor(places, device=device), max(need[place] for place in places)) for places in groups]
        return torch.tensor(order, device=device), told

    def states(self, body: Any) -> Tensor:
        """(B, T, D): the last hidden state of ``body``, a model without its output matrix, that predicts each token of
        the completions.

        Rows of like lengths go through it together: a question behind notes is many times as long as a bare one, and
        what would be padded up to it costs as much as what is read.
        """
        found = []
        order, groups = self.by_length()
        for places, length in groups:
            hidden_CLD: Tensor = body(input_ids=self.ids_BL[places, :length], use_cache=False).last_hidden_state
            place_CT = self.place_BT[places].clamp_max(length - 1)
            found.append(hidden_CLD.gather(1, place_CT[:, :, None].expand(-1, -1, hidden_CLD.shape[2])))
        if len(found) == 1:
            return found[0]
        return torch.cat(found)[torch.argsort(order)]

    def cut(self, part: slice) -> Rows:
        """Some of the rows."""
        return Rows(
            ids_BL=self.ids_BL[part],
            place_BT=self.place_BT[part],
            token_BT=self.token_BT[part],
            mask_BT=self.mask_BT[part],
        )


class Completions(Protocol):
    """Rows as a model reads them, :class:`Rows` or ``forks.Forks``."""

    @property
    def token_BT(self) -> Tensor:
        """Of the completions."""
        ...

    @property
    def mask_BT(self) -> Tensor:
        """Which of them count."""
        ...

    def states(self, body: Any) -> Tensor:
        """(B, T, D): what predicts each of them."""
        ...


class Study:
    """One model from a folder, with its adapter in training."""

    def __init__(
        self, folder: Path, recipe: NightRecipe, *, seed: int, device: str = "cpu",
        template: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """``template``: what the chat template is told where the model is served. Raises Invalid when the folder holds
        no model that this engine serves exactly: what could not be served is not trained."""
        self.tokens = Tokens.open(folder, template=template)
        model: Any = load_model(folder, device=device)
        self.vocabulary_VD: Tensor = model.get_output_embeddings().weight
        if model.get_output_embeddings().bias is not None:
            raise Invalid("the model's output layer has a bias, which the objectives leave out: take another base")
        slots = recipe.microbatch
        context = min(recipe.context_tokens, getattr(model.config, "max_position_embeddings", recipe.context_tokens))
        self._body = model.get_decoder()
        self.device: torch.device = model.device
        self.batch = Batch(model, slots=slots, max_tokens=context)
        self.writer = Writer(self.batch, end_ids=self.tokens.end_ids, slots=slots, context_tokens=context)
        self.lora = TrainableLora(model, head=model.get_output_embeddings(), shape=recipe.lora, seed=seed)
        self.vocabulary_VD.requires_grad_(False)
        self.base_vocabulary_VD = self.vocabulary_VD  # of the base model: an adapter leaves it as it is

    def rows(self, prompts: Sequence[Ids], completions: Sequence[Ids]) -> Rows:
        """:meth:`Rows.of` on this model's device."""
        return Rows.of(prompts, completions, device=self.device)

    def hidden(self, rows: Completions) -> Tensor:
        """(B, T, D): the last hidden state that predicts each token of the completions."""
        return rows.states(self._body)

    def logprobs(self, rows: Completions, *, temperature: float = 1.0) -> Tensor:
        """(B, T): of each token of the completions, 0 behind their ends."""
        return token_logprobs(
            self.hidden(rows),
            self.vocabulary_VD,
            token_BT=rows.token_BT,
            mask_BT=rows.mask_BT,
            temperature=temperature,
        )

    @torch.no_grad()
    def base_hidden(self, rows: Completions) -> Tensor:
        """:meth:`hidden` of the model with its adapter off."""
        with self.lora.off():
            return self.hidden(rows)

    @torch.no_grad()
    def base_logprobs(self, rows: Completions) -> Tensor:
        """:meth:`logprobs` of the model with its adapter off."""
        with self.lora.off():
            return self.logprobs(rows)

    def base_logits(self, hidden_ND: Tensor) -> Tensor:
        """(N, V), FP32, of the base model's output matrix."""
        logit_NV: Tensor = hidden_ND.float() @ self.base_vocabulary_VD.float().T
        return logit_NV

    @contextmanager
    def teaching(self) -> Iterator[Writer]:
        """The writer as the teacher of self-distillation: the base model, or with the slow average of the adapter where
        one is kept (``objectives.language.average``)."""
        with self.lora.averaged() if self.lora.average else self.base():
            yield self.writer

    @torch.no_grad()
    def taught_hidden(self, rows: Rows) -> Tensor:
        """:meth:`hidden` of the teacher."""
        if not self.lora.average:
            return self.base_hidden(rows)
        with self.lora.averaged():
            return self.hidden(rows)

    @contextmanager
    def base(self) -> Iterator[Writer]:
        """The writer, with the adapter off: the teacher, or the base model itself."""
        with self.lora.off():
            yield self.writer


def alike(lengths: Sequence[int]) -> tuple[list[int], list[list[int]]]:
    """Rows in order of length, and the same cut into groups of like lengths; as they came where all are alike."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    if lengths[order[-1]] <= SPREAD * lengths[order[0]]:
        return list(range(len(lengths))), [list(range(len(lengths)))]
    groups: list[list[int]] = []
    for place in order:
        if not groups or lengths[place] > SPREAD * lengths[groups[-1][0]]:
            groups.append([])
        groups[-1].append(place)
    return order, groups


def slices(count: int, size: int) -> Iterator[slice]:
    """Of at most ``size``, covering ``count`` rows."""
    return (slice(first, min(first + size, count)) for first in range(0, count, size))
