"""Direct preference optimisation: of two answers to one prompt, the better against the worse."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from dayjob.objectives.checks import Stats, check_rank, check_same
from dayjob.objectives.language.weights import counted


def dpo(
    chosen_B: Tensor,
    rejected_B: Tensor,
    *,
    chosen_reference_B: Tensor,
    rejected_reference_B: Tensor,
    weight_B: Tensor,
    beta: float = 0.1,
) -> tuple[Tensor, Stats]:
    """-sum w log sigma(beta[(log p_w - log ref_w) - (log p_l - log ref_l)]). Rafailov et al., NeurIPS 2023.

    Log-probabilities of whole sequences (``sequence_logprob``); the reference is the base model, without gradient.
    Usual weights: ``per_row``. Stats: ``margin_right`` (weighted share of pairs in the right order), ``chosen_reward``
    and ``rejected_reward`` (weighted beta log ratios; *both* falling is the known failure), ``pairs``.
    """
    check_rank("chosen_B", chosen_B, rank=1)
    check_same(chosen_B=chosen_B, rejected_B=rejected_B, weight_B=weight_B)
    check_same(chosen_reference_B=chosen_reference_B, rejected_reference_B=rejected_reference_B, weight_B=weight_B)
    chosen_reward_B = beta * counted(chosen_B - chosen_reference_B.detach(), weight_B)
    rejected_reward_B = beta * counted(rejected_B - rejected_reference_B.detach(), weight_B)
    margin_B = chosen_reward_B - rejected_reward_B
    loss = -(weight_B * functional.logsigmoid(margin_B)).sum()
    stats = {
        "margin_right": (weight_B * (margin_B > 0)).sum().detach(),
        "chosen_reward": (weight_B * chosen_reward_B).sum().detach(),
        "rejected_reward": (weight_B * rejected_reward_B).sum().detach(),
        "pairs": (weight_B != 0).sum(),
    }
    return loss, stats
