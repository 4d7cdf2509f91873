"""The model that practises: what nights study with, its adapter or all of its weights in training."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from dayjob.endings import Invalid
from dayjob.learn.language.study import Completions, Study
from dayjob.learn.language.writing import Writer
from dayjob.learn.practice.recipe import PracticeRecipe
from dayjob.objectives.language.logits import token_logprobs
from dayjob.policies.engine_transformers import load_model

_HEAD = "output matrix"


class Weights(Protocol):
    """What learns: an adapter's factors (`TrainableLora`), or every weight (:class:`FullWeights`)."""

    def parameters(self) -> list[Tensor]: ...

    def off(self) -> Any: ...

    def state(self) -> dict[str, Tensor]: ...

    def restore(self, state: Mapping[str, Tensor]) -> None: ...


class FullWeights:
    """Every weight of a model learns; a copy of them is kept as the base, and put in their place for as long as the
    base is asked to write."""

    def __init__(self, body: torch.nn.Module, vocabulary_VD: Tensor) -> None:
        """``vocabulary_VD``: the output matrix, which may be one of the body's own weights."""
        self._weights: dict[str, Tensor] = dict(body.named_parameters())
        if not any(one is vocabulary_VD for one in self._weights.values()):
            self._weights[_HEAD] = vocabulary_VD
        for one in self._weights.values():
            one.requires_grad_(True)
        self._base = {name: one.detach().clone() for name, one in self._weights.items()}

    def parameters(self) -> list[Tensor]:
        """Every weight, an output matrix of its own last."""
        return list(self._weights.values())

    @contextmanager
    def off(self) -> Iterator[None]:
        """The base model, for as long as this lasts. No gradient may be open that needs the weights."""
        learned = {name: one.detach().clone() for name, one in self._weights.items()}
        self.restore(self._base)
        try:
            yield
        finally:
            self.restore(learned)

    def state(self) -> dict[str, Tensor]:
        """Copies of the weights, on the CPU."""
        return {name: one.detach().cpu().clone() for name, one in self._weights.items()}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of :meth:`state`."""
        for name, one in self._weights.items():
            one.copy_(state[name])


class Student(Study):
    """A model from a folder that writes attempts and learns from them."""

    def __init__(
        self, folder: Path, recipe: PracticeRecipe, *, seed: int, device: str = "cpu",
        template: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """``template`` as of `Study`. Raises Invalid when the folder holds no model that this engine serves exactly."""
        super().__init__(folder, recipe.night(), seed=seed, device=device, template=template)
        self.weights: Weights = self.lora
        self._still: Any = None
        if recipe.full:
            self.lora.close()
            # Of its own: exchanging weights would pull them from under a gradient that is still to be computed.
            self._still = copy.deepcopy(self._body).requires_grad_(False)
            self.base_vocabulary_VD = self.vocabulary_VD.detach().clone()
            self.weights = FullWeights(self._body, self.vocabulary_VD)

    @contextmanager
    def base(self) -> Iterator[Writer]:
        """The writer of the base model."""
        with self.weights.off():
            yield self.writer

    @torch.no_grad()
    def base_hidden(self, rows: Completions) -> Tensor:
        """:meth:`hidden` of the base model."""
        if self._still is None:
            return super().base_hidden(rows)
        return rows.states(self._still)

    @torch.no_grad()
    def base_logprobs(self, rows: Completions) -> Tensor:
        """:meth:`logprobs` of the base model."""
        return token_logprobs(
            self.base_hidden(rows), self.base_vocabulary_VD, token_BT=rows.token_BT, mask_BT=rows.mask_BT
        )  # fmt: skip


def save_full(folder: Path, state: Mapping[str, Tensor], *, base: Path) -> None:
    """``state`` of :class:`FullWeights` as a model's folder that transformers loads, with the tokenizer of ``base``.

    Raises Invalid when the base is not the one that learned.
    """
    from transformers import AutoTokenizer

    model: Any = load_model(base)
    weights: dict[str, Tensor] = dict(model.get_decoder().named_parameters())
    head = model.get_output_embeddings().weight
    if _HEAD in state:
        weights[_HEAD] = head
    if weights.keys() != state.keys():
        raise Invalid(f"{base} is not the model that practised: name that one", param="model")
    with torch.no_grad():
        for name, one in weights.items():
            one.copy_(state[name])
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base, local_files_only=True, trust_remote_code=False).save_pretrained(folder)
