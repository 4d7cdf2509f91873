"""Hindsight: which tokens does the outcome speak of?

The model itself, *told how it ended*, scores the tokens it wrote before it could know. A token that it now finds
likelier than it did (log h(y | x, outcome) - log pi(y | x) > 0) is one the outcome makes sense of: by Bayes' rule that
ratio is how much likelier the token made the outcome, P(outcome | x, y) / P(outcome | x) (hindsight credit assignment,
Harutyunyan et al., NeurIPS 2019; a self-teacher with feedback in its context: SDPO, Huebotter et al., 2026). So it
weighs the episode's advantage: success is put down to the tokens that success explains, failure to those that failure
does. The weights of an episode's tokens average 1, so the episode as a whole deserves what it did.

A model that makes nothing of the sentence gives every token the same weight, and this is credit by outcome.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dayjob.endings import Invalid
from dayjob.learn.practice.credit import FULL
from dayjob.policies.tokens import Tokens

Ids = tuple[int, ...]
SOLVED = "The task below was solved in the end."
LOST = "The task below was not solved in the end."
_ASKED = {"role": "user", "content": "?"}


def told(reward: float) -> str:
    """How it ended, in words."""
    return SOLVED if reward >= FULL else LOST


def outcome_prefixes(tokens: Tokens) -> dict[str, Ids]:
    """What each sentence puts before a prompt. Raises Invalid as :func:`prefix_of`."""
    return {text: prefix_of(tokens, text, instead="credit=outcome") for text in (SOLVED, LOST)}


def prefix_of(tokens: Tokens, text: str, *, instead: str) -> Ids:
    """What ``text`` puts before a prompt, as a system's message. Raises Invalid for a chat template that does not write
    such a message in front of all others (``instead``: what to set then), and for a control token in the text."""
    bare = tokens.render([_ASKED])
    whole = tokens.render([{"role": "system", "content": text}, _ASKED])
    prefix = whole[: len(whole) - len(bare)]
    if not prefix or (*prefix, *bare) != whole:
        message = f"this chat template has no place for a message in front of a conversation: set {instead}"
        raise Invalid(message, param=instead.partition("=")[0])
    return prefix


def behind(prefix: Ids, prompt: Ids, *, room: int) -> Ids | None:
    """A prompt behind a prefix in at most ``room`` tokens: the prompt's beginning makes place. None where nothing of it
    would be left."""
    left = room - len(prefix)
    return (*prefix, *prompt[-left:]) if left > 0 else None


def token_weights(
    told_BT: Tensor, untold_BT: Tensor, *, mask_BT: Tensor, episode: Sequence[int], limit: float
) -> Tensor:
    """exp(log h - log pi), the exponent within ± ``limit`` nats, over its mean in the episode: (B, T), 0 where the mask
    is. ``episode``: the number of each row's episode, from 0."""
    keep_BT = mask_BT.bool()
    weight_BT = torch.where(keep_BT, (told_BT - untold_BT).clamp(-limit, limit).exp(), 0.0)
    index_B = torch.tensor(list(episode), device=mask_BT.device)
    count = int(index_B.max()) + 1 if len(index_B) else 0
    total_E = weight_BT.new_zeros(count).index_add(0, index_B, weight_BT.sum(dim=1))
    tokens_E = weight_BT.new_zeros(count).index_add(0, index_B, keep_BT.to(weight_BT.dtype).sum(dim=1))
    mean_E = total_E / tokens_E.clamp_min(1)
    return weight_BT / mean_E.clamp_min(1e-9)[index_B][:, None]
