"""Draws by hand, their log-probabilities, and their frequencies."""

import math

import numpy as np
import pytest
import torch

from dayjob.endings import Invalid
from dayjob.policies.engine_protocol import Sampling
from dayjob.policies.engine_sampling import draw, uniforms

P = [0.5, 0.1, 0.3, 0.1]


def one(uniform, *, temperature=1.0, top_p=1.0, top=0, p=P):
    logit_BV = torch.tensor([p]).log() + 3.0  # a constant changes nothing
    return draw(logit_BV, temperature_B=[temperature], top_p_B=[top_p], uniform_B=[uniform], top=[top])


@pytest.mark.parametrize(
    ("uniform", "token"), [(0.0, 0), (0.49, 0), (0.51, 1), (0.59, 1), (0.61, 2), (0.89, 2), (0.91, 3), (1 - 1e-16, 3)]
)
def test_the_cumulative_distribution_is_inverted(uniform, token):
    drawn = one(uniform)
    assert drawn.token_B == [token]
    assert drawn.model_logp_B == pytest.approx([math.log(P[token])], abs=1e-6)
    assert drawn.sample_logp_B == pytest.approx([math.log(P[token])], abs=1e-6)


def test_a_nucleus_is_the_fewest_tokens_with_that_mass():
    """0.5 + 0.3 reach .8, so .75 keeps tokens 0 and 2: drawn from 5/8 and 3/8."""
    assert one(0.6, top_p=0.75).token_B == [0]
    drawn = one(0.65, top_p=0.75)
    assert drawn.token_B == [2]
    assert drawn.sample_logp_B == pytest.approx([math.log(3 / 8)], abs=1e-6)
    assert drawn.model_logp_B == pytest.approx([math.log(0.3)], abs=1e-6)
    assert one(0.999, top_p=0.4).token_B == [0]
    assert one(0.999, top_p=0.4).sample_logp_B == pytest.approx([0.0], abs=1e-6)
    assert one(1 - 1e-16, top_p=0.75).token_B == [2]


def test_temperature_sharpens_what_is_drawn_from_and_not_what_the_model_thinks():
    """At temperature .5 probabilities go by their squares: 25, 1, 9, 1 of 36."""
    drawn = one(0.7, temperature=0.5)
    assert drawn.token_B == [0 if 0.7 < 25 / 36 else 1]
    assert drawn.sample_logp_B == pytest.approx([math.log(1 / 36)], abs=1e-6)
    assert drawn.model_logp_B == pytest.approx([math.log(0.1)], abs=1e-6)
    greedy = one(0.99, temperature=0)
    assert (greedy.token_B, greedy.sample_logp_B) == ([0], [0.0])
    assert greedy.model_logp_B == pytest.approx([math.log(0.5)], abs=1e-6)


def test_what_is_impossible_is_never_drawn():
    assert one(1 - 1e-16, p=[0.5, 0.5, 0.0, 0.0]).token_B == [1]
    assert one(0.0, p=[0.0, 0.5, 0.5, 0.0]).token_B == [1]


def test_rows_of_a_batch_do_not_meet():
    logit_BV = torch.tensor([P, P[::-1], P]).log()
    mixed = draw(
        logit_BV, temperature_B=[1.0, 0.0, 2.0], top_p_B=[0.75, 1.0, 1.0], uniform_B=[0.65, 0.9, 0.3], top=[0, 2, 1]
    )
    assert mixed.token_B[:2] == [2, 3]
    assert mixed.sample_logp_B == pytest.approx([math.log(3 / 8), 0.0, math.log(0.5**0.5 / sum(np.sqrt(P)))], abs=1e-6)
    assert [len(top) for top in mixed.top_B] == [0, 2, 1]
    assert [token for token, _ in mixed.top_B[1]] == [3, 1]


def test_draws_have_the_frequencies_they_say():
    count = 20_000
    logit_BV = torch.tensor(P).log().expand(count, 4)
    drawn = draw(
        logit_BV,
        temperature_B=[1.0] * count,
        top_p_B=[0.95] * count,
        uniform_B=uniforms(7, count).tolist(),
        top=[0] * count,
    )
    found = np.bincount(drawn.token_B, minlength=4) / count
    np.testing.assert_allclose(found, P, atol=0.012)  # 3.5 standard errors of the largest


def test_seeds_are_whole_streams():
    assert uniforms(3, 5).tolist() == uniforms(3, 9)[:5].tolist()
    assert uniforms(3, 5).tolist() != uniforms(4, 5).tolist()
    assert 0 <= uniforms(2**64 - 1, 100).min() <= uniforms(2**64 - 1, 100).max() < 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": 0},
        {"temperature": -1.0},
        {"temperature": 1e-9},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_p": math.nan},
        {"stop": ("",)},
        {"seed": -1},
        {"seed": 1 << 64},
        {"top_logprobs": 21},
    ],
)
def test_values_outside_their_range_are_refused(wrong):
    with pytest.raises(Invalid, match=next(iter(wrong)) if "stop" not in wrong else "stop string"):
        Sampling(**{"max_tokens": 1, **wrong})
