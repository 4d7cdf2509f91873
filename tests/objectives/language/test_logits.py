"""Chunked log-probabilities are the plain ones, in value, gradient and precision, at a memory that does not grow."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dayjob.objectives.language.logits import chunked, token_logprobs


def plain(hidden, matrix, token, mask, temperature=1.0):
    logp = torch.log_softmax(hidden @ matrix.T / temperature, dim=-1)
    return torch.where(mask, logp.gather(-1, token[..., None])[..., 0], 0.0)


def test_by_hand():
    hidden, matrix = torch.tensor([[[1.0]]]), torch.log(torch.tensor([[1.0], [2.0], [5.0]]))
    found = token_logprobs(hidden, matrix, token_BT=torch.tensor([[1]]), mask_BT=torch.tensor([[True]]))
    assert found.item() == pytest.approx(math.log(2 / 8))
    warm = token_logprobs(hidden, matrix, token_BT=torch.tensor([[2]]), mask_BT=torch.tensor([[True]]), temperature=0.5)
    assert warm.item() == pytest.approx(math.log(25 / 30))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 4),
    length=st.integers(1, 6),
    chunk=st.integers(1, 9),
    temperature=st.sampled_from([0.5, 1.0, 1.7]),
)
def test_value_and_gradient_are_those_of_the_plain_way(seed, rows, length, chunk, temperature):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    hidden, matrix = draw(rows, length, 3).requires_grad_(), draw(7, 3).requires_grad_()
    token = torch.randint(7, (rows, length), generator=generator)
    mask = torch.rand(rows, length, generator=generator) < 0.7
    incoming = draw(rows, length)
    found = token_logprobs(hidden, matrix, token_BT=token, mask_BT=mask, temperature=temperature, chunk=chunk)
    wanted = plain(hidden, matrix, token, mask, temperature)
    torch.testing.assert_close(found, wanted)
    for one, other in zip(
        torch.autograd.grad(found, [hidden, matrix], incoming),
        torch.autograd.grad(wanted, [hidden, matrix], incoming),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_gradient_against_finite_differences(head):
    one = head(1)
    assert torch.autograd.gradcheck(
        lambda h, m: token_logprobs(h, m, token_BT=one.token, mask_BT=one.mask, temperature=0.8, chunk=4),
        (one.hidden, one.matrix),
    )


def test_a_generic_function_in_chunks_against_finite_differences(head):
    one, scale = head(2), torch.tensor([[0.7]], dtype=torch.float64, requires_grad=True)

    def function(hidden, matrix, scale):
        return torch.log_softmax(hidden @ matrix.T, dim=-1).square().sum(-1) * scale[0]

    flat = one.hidden.detach().flatten(0, 1).requires_grad_()
    inputs = (flat, one.matrix, scale)
    assert torch.autograd.gradcheck(lambda h, m, s: chunked(function, rows=[h], shared=[m, s], chunk=4), inputs)
    torch.testing.assert_close(chunked(function, rows=[flat], shared=[one.matrix, scale], chunk=4), function(*inputs))


def test_what_is_masked_reaches_nothing(head):
    one = head(3)
    hidden = one.hidden.detach().clone()
    hidden[~one.mask] = torch.nan
    hidden.requires_grad_()
    found = token_logprobs(hidden, one.matrix, token_BT=one.token, mask_BT=one.mask)
    assert (found[~one.mask] == 0).all()
    slopes = torch.autograd.grad(found.sum(), [hidden, one.matrix])
    assert all(slope.isfinite().all() for slope in slopes)
    assert (slopes[0][~one.mask] == 0).all()


def test_nothing_to_score_is_a_zero_with_a_gradient_of_zero(head):
    one = head(4)
    found = token_logprobs(one.hidden, one.matrix, token_BT=one.token, mask_BT=torch.zeros_like(one.mask))
    slopes = torch.autograd.grad(found.sum(), [one.hidden, one.matrix])
    assert all((slope == 0).all() for slope in slopes)


def test_logits_are_fp32_when_weights_are_bf16():
    generator = torch.Generator().manual_seed(5)
    hidden = (torch.randn(2, 40, 64, generator=generator) * 3).bfloat16().requires_grad_()
    matrix = torch.randn(50, 64, generator=generator).bfloat16().requires_grad_()
    token, mask = torch.randint(50, (2, 40), generator=generator), torch.ones(2, 40, dtype=torch.bool)
    found = token_logprobs(hidden, matrix, token_BT=token, mask_BT=mask)
    exact = plain(hidden.double(), matrix.double(), token, mask)
    rounded = plain(hidden, matrix, token, mask)
    assert found.dtype == torch.float32
    assert (found.double() - exact).abs().max() < 1e-4
    assert (rounded.double() - exact).abs().max() > 1e-2  # what bf16 logits would have cost
    slopes = torch.autograd.grad(found.sum(), [hidden, matrix])
    assert [slope.dtype for slope in slopes] == [torch.bfloat16, torch.bfloat16]


def test_a_frozen_output_matrix_gets_no_gradient_and_costs_none(head):
    one = head(6)
    found = token_logprobs(one.hidden, one.matrix.detach(), token_BT=one.token, mask_BT=one.mask)
    (slope,) = torch.autograd.grad(found.sum(), [one.hidden])
    (wanted,) = torch.autograd.grad(plain(one.hidden, one.matrix, one.token, one.mask).sum(), [one.hidden])
    torch.testing.assert_close(slope, wanted)


VOCABULARY, WIDTH, CHUNK = 2000, 8, 16


def step(function, length):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(1, length, WIDTH, generator=generator).requires_grad_()
    matrix = torch.randn(VOCABULARY, WIDTH, generator=generator).requires_grad_()
    token = torch.randint(VOCABULARY, (1, length), generator=generator)
    mask = torch.ones(1, length, dtype=torch.bool)
    return lambda: function(hidden, matrix, token, mask).sum().backward()


def test_peak_memory_does_not_grow_with_tokens_times_vocabulary(peak):
    def ours(hidden, matrix, token, mask):
        return token_logprobs(hidden, matrix, token_BT=token, mask_BT=mask, chunk=CHUNK)

    short, long = peak(step(ours, 128)), peak(step(ours, 512))
    naive = peak(step(plain, 512))
    token_bytes = 4 * (512 - 128) * (4 * WIDTH + 16)  # hidden states, their gradient, numbers of a token
    assert long - short < token_bytes, (short, long)
    assert long < 4 * (3 * CHUNK * VOCABULARY + 3 * VOCABULARY * WIDTH) + 2 * token_bytes
    assert naive > 4 * 2 * 512 * VOCABULARY  # the measure sees what the plain way holds
    assert naive > 15 * long


def test_nothing_of_the_size_of_the_logits_is_kept_for_the_backward():
    kept = []

    def note(tensor):
        kept.append(tensor.numel())
        return tensor

    def ours(hidden, matrix, token, mask):
        return token_logprobs(hidden, matrix, token_BT=token, mask_BT=mask, chunk=CHUNK)

    for function, limit in ((ours, VOCABULARY * WIDTH), (plain, 512 * VOCABULARY)):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            step(function, 512)()
        assert max(kept) == limit
