"""The average of the adapter's product, and why not of its factors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dayjob.objectives.language.average import adapter_product, moved_average


def test_by_hand_and_averaging_the_factors_differs():
    start, now = torch.tensor([[1.0]]), torch.tensor([[3.0]])
    product = lambda one: adapter_product(one, one, scaling=1.0)  # noqa: E731
    teacher = moved_average(product(start), product(now), decay=0.5)
    assert teacher.item() == pytest.approx(0.5 * 1 + 0.5 * 9)
    apart = moved_average(start, now, decay=0.5)
    assert product(apart).item() == pytest.approx(4.0)


def test_averaging_factors_apart_lags_quadratically():
    """Both factors at t: the product is t^2, k steps old on average at decay 1 - 1/k. Apart, the teacher misses the
    average of products by the variance of what it averages, which grows with the square of the lag."""
    gaps = []
    for lag in (10, 20):
        together = apart = torch.zeros(1, 1, dtype=torch.float64)
        for t in range(2000):
            factor = torch.full((1, 1), float(t), dtype=torch.float64)
            together = moved_average(together, factor @ factor, decay=1 - 1 / lag)
            apart = moved_average(apart, factor, decay=1 - 1 / lag)
        gaps.append((together - apart @ apart).item())
    assert gaps == pytest.approx([90.0, 380.0], rel=1e-6)  # lag (lag - 1)


def test_an_adapter_that_only_flips_its_signs_has_not_changed():
    generator = torch.Generator().manual_seed(0)
    up, down = torch.randn(5, 2, generator=generator), torch.randn(2, 4, generator=generator)
    product = adapter_product(up, down, scaling=2.0)
    torch.testing.assert_close(moved_average(product, adapter_product(-up, -down, scaling=2.0), decay=0.5), product)
    assert (moved_average(up, -up, decay=0.5) @ moved_average(down, -down, decay=0.5)).abs().max().item() == 0.0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), stretch=st.floats(0.1, 10), decay=st.floats(0, 1))
def test_it_does_not_depend_on_how_the_product_is_split(seed, stretch, decay):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    up, down, before = draw(5, 2), draw(2, 4), draw(5, 4)
    mixing = torch.linalg.qr(draw(2, 2))[0] * stretch
    one = moved_average(before, adapter_product(up, down, scaling=0.5), decay=decay)
    other = moved_average(
        before, adapter_product(up @ mixing, torch.linalg.inv(mixing) @ down, scaling=0.5), decay=decay
    )
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(one, decay * before + (1 - decay) * 0.5 * up @ down)


def test_the_average_outgrows_the_rank_of_the_adapter():
    generator = torch.Generator().manual_seed(0)
    average = torch.zeros(6, 6)
    for _ in range(3):
        step = adapter_product(
            torch.randn(6, 1, generator=generator), torch.randn(1, 6, generator=generator), scaling=1.0
        )
        average = moved_average(average, step, decay=0.5)
    assert torch.linalg.matrix_rank(average).item() == 3


def test_the_teacher_has_no_gradient():
    up, down = torch.ones(2, 1, requires_grad=True), torch.ones(1, 2, requires_grad=True)
    assert not moved_average(torch.zeros(2, 2), adapter_product(up, down, scaling=1.0), decay=0.9).requires_grad
