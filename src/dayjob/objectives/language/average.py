"""A slowly moving teacher: the exponential moving average of an adapter's product.

What a LoRA adapter does to a layer is the product B A. Averaging B and A apart is not the average of products: it
lags (two factors that are each late make a product late twice over), and it depends on how the product happens to be
split, to the point that an adapter which flips the signs of both, and so has not changed at all, averages to nothing.

The average of products has a rank that grows with every step, so no pair of factors of the adapter's size can hold
it. It is kept as a dense matrix for each adapted layer: exact, whatever the factors do, at the price of one more copy
of the adapted weights. Where that is too much, the frozen teacher (the adapter off) costs nothing and is the default.
"""

from __future__ import annotations

from torch import Tensor

from dayjob.objectives.checks import check_rank


def adapter_product(up_OR: Tensor, down_RI: Tensor, *, scaling: float) -> Tensor:
    """scaling B A, shape (out, in): what the adapter adds to the layer's weight. Hu et al., ICLR 2022.

    ``scaling`` is alpha / rank, or alpha / sqrt(rank) for the rank-stabilised kind.
    """
    check_rank("up_OR", up_OR, rank=2)
    check_rank("down_RI", down_RI, rank=2)
    assert up_OR.shape[1] == down_RI.shape[0], f"ranks differ: {tuple(up_OR.shape)} and {tuple(down_RI.shape)}"
    return scaling * (up_OR @ down_RI)


def moved_average(average_OI: Tensor, product_OI: Tensor, *, decay: float) -> Tensor:
    """decay average + (1 - decay) product, without gradient. Begin with the product at the start of the night.

    Mean teachers: Tarvainen and Valpola, NeurIPS 2017. A decay of .99 remembers about a hundred steps.
    """
    assert average_OI.shape == product_OI.shape, f"{tuple(average_OI.shape)} is not {tuple(product_OI.shape)}"
    return average_OI.detach().lerp(product_OI.detach().to(average_OI.dtype), 1 - decay)
