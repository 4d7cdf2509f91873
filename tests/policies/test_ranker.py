"""The served ranker: version zero, agreement with torch, permutations, losses, damage."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dayjob.endings import Damaged
from dayjob.policies.network import ScoreNetwork
from dayjob.policies.protocol import Lists
from dayjob.policies.ranker import NumpyRanker, RankerSpec, attend, network_shapes, zero_weights

SPEC = RankerSpec(context_dim=12, candidate_dim=10, pair_dim=2, hidden=(16, 8))
SET = RankerSpec(context_dim=12, candidate_dim=10, pair_dim=2, hidden=(16, 8), attention=5)
SAME = RankerSpec(context_dim=12, candidate_dim=12, pair_dim=0, hidden=())


def make_lists(spec: RankerSpec, *, count: int = 5, width: int = 7, seed: int = 0, loss: bool = False) -> Lists:
    rng = np.random.default_rng(seed)
    normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    return Lists(
        context_BD=normal(count, spec.context_dim),
        candidate_BKE=normal(count, width, spec.candidate_dim),
        pair_BKP=normal(count, width, spec.pair_dim),
        base_BK=rng.standard_normal((count, width)),
        loss_BKK=np.abs(rng.standard_normal((count, width, width))) if loss else None,
    )


def full_weights(spec: RankerSpec, seed: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {name: value.shape for name, value in zero_weights(spec).items()}
    shapes |= {"left": (spec.context_dim, 3), "right": (spec.candidate_dim, 3)}
    if spec.hidden:
        shapes |= network_shapes(spec)
    weights = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    weights["inner"] = np.full(1, 0.7 if spec.context_dim == spec.candidate_dim else 0.0, np.float32)
    weights["sharpness"], weights["unit"] = np.full(1, 1.5, np.float32), np.full(1, 2.0, np.float32)
    return weights


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e9])
def test_version_zero_gives_the_callers_scores_whatever_their_scale(scale):
    lists = make_lists(SPEC, loss=True)
    ranker = NumpyRanker(zero_weights(SPEC), SPEC.to_json())
    base_BK = lists.base_BK * scale
    scored = ranker.score(
        Lists(context_BD=lists.context_BD, candidate_BKE=lists.candidate_BKE, pair_BKP=lists.pair_BKP, base_BK=base_BK)
    )
    assert (scored == base_BK).all()
    assert (ranker.score(lists) == lists.base_BK).all()  # a loss matrix is not looked at either


def test_utility_by_the_formula():
    weights, lists = full_weights(SAME), make_lists(SAME)
    found = NumpyRanker(weights, SAME.to_json()).utility(lists)
    w, x, v = weights, lists.context_BD, lists.candidate_BKE
    for b in range(5):
        for k in range(7):
            want = w["scale"][0] * lists.base_BK[b, k] + 0.7 * x[b] @ v[b, k] + v[b, k] @ w["prior"]
            want += (x[b] @ w["left"]) @ (v[b, k] @ w["right"])
            share = np.exp(w["focus"][0] * lists.base_BK[b])
            want += v[b, k] @ (w["crowd"][0] * v[b].mean(axis=0) + w["crowd"][1] * (share / share.sum()) @ v[b])
            assert found[b, k] == pytest.approx(want, rel=1e-4, abs=1e-4)


def test_expected_loss_by_hand():
    weights = zero_weights(SAME)
    weights["sharpness"][:], weights["unit"][:] = 1.0, 10.0
    lists = Lists(
        context_BD=np.zeros((1, 12), np.float32), candidate_BKE=np.zeros((1, 3, 12), np.float32),
        pair_BKP=np.zeros((1, 3, 0), np.float32), base_BK=np.log([[0.4, 0.35, 0.25]]),
        loss_BKK=np.array([[[0.0, 90, 100], [80, 0, 10], [100, 20, 0]]]),  # row shown, column right
    )  # fmt: skip
    scored = NumpyRanker(weights, SAME.to_json()).score(lists)[0]
    assert scored == pytest.approx([-(0.35 * 90 + 25) / 10, -(32 + 2.5) / 10, -(40 + 7) / 10], rel=1e-6)
    assert scored.argmax() == 1  # the most probable is 0; between two near ones one is wrong more cheaply


@pytest.mark.parametrize("spec", [SPEC, SET])
def test_torch_and_numpy_agree(spec):
    network = ScoreNetwork(spec, seed=3, residual=False)
    with torch.no_grad():
        network.scale.fill_(0.3)
    lists = make_lists(spec, count=20)
    inputs = [torch.from_numpy(a) for a in (lists.context_BD, lists.candidate_BKE)]
    pair_BKP, base_BK = torch.from_numpy(lists.pair_BKP), torch.from_numpy(lists.base_BK).float()
    served = NumpyRanker(network.weights(), spec.to_json()).score(lists)
    with torch.no_grad():
        real_BK = torch.ones_like(base_BK, dtype=torch.bool)
        trained = network(*inputs, pair_BKP=pair_BKP, base_BK=base_BK, real_BK=real_BK).numpy()
    assert np.abs(served - trained).max() < 1e-4
    assert np.abs(served).max() > 0.1


@pytest.mark.parametrize("spec", [SPEC, SET])
def test_a_residual_network_begins_as_the_callers_order_and_a_scratch_one_does_not(spec):
    lists = make_lists(spec)
    begun = NumpyRanker(ScoreNetwork(spec, seed=0, residual=True, scale=2.0).weights(), spec.to_json()).score(lists)
    assert (begun == 2 * lists.base_BK).all()
    scratch = NumpyRanker(ScoreNetwork(spec, seed=0, residual=False).weights(), spec.to_json()).score(lists)
    assert np.abs(np.corrcoef(scratch.ravel(), lists.base_BK.ravel())[0, 1]) < 0.5


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.permutations(range(7)))
def test_a_set_aware_network_is_equivariant_under_any_permutation(seed, order):
    lists, ranker = make_lists(SET, seed=seed), NumpyRanker(full_weights(SET, seed + 1), SET.to_json())
    permuted = Lists(
        context_BD=lists.context_BD, candidate_BKE=lists.candidate_BKE[:, order], pair_BKP=lists.pair_BKP[:, order],
        base_BK=lists.base_BK[:, order],
    )  # fmt: skip
    scored = ranker.score(lists)
    assert np.allclose(ranker.score(permuted), scored[:, order], rtol=1e-4, atol=1e-3 * np.abs(scored).max())


def test_a_set_aware_network_judges_a_candidate_by_its_company_and_the_published_head_does_not():
    for spec, differs in ((SET, True), (SPEC, False)):
        weights = full_weights(spec) | {"crowd": np.zeros(2, np.float32)}
        lists, ranker = make_lists(spec), NumpyRanker(weights, spec.to_json())
        other = lists.candidate_BKE.copy()
        other[:, 1:] += 1.0
        moved = Lists(context_BD=lists.context_BD, candidate_BKE=other, pair_BKP=lists.pair_BKP, base_BK=lists.base_BK)
        change = np.abs(ranker.score(moved) - ranker.score(lists))[:, 0].max()
        assert (change > 1e-2) == differs


def test_attention_by_hand():
    active = np.array([[[1.0, 0.0], [0.0, 2.0]]], np.float32)
    eye = np.eye(2, dtype=np.float32)
    found = attend(active, {"set.query": eye, "set.key": eye, "set.value": eye, "set.mix": 3 * eye})
    first = np.exp(1 / np.sqrt(2)) / (np.exp(1 / np.sqrt(2)) + 1)  # q_1 k_1 = 1, q_1 k_2 = 0
    assert found[0, 0] == pytest.approx([3 * first, 3 * (1 - first) * 2])


def test_fillers_change_no_score_of_a_set_aware_network():
    network = ScoreNetwork(SET, seed=3, residual=False)
    lists = make_lists(SET, count=4)
    inputs = {
        "candidate_BKE": torch.from_numpy(lists.candidate_BKE), "pair_BKP": torch.from_numpy(lists.pair_BKP),
        "base_BK": torch.from_numpy(lists.base_BK).float(),
    }  # fmt: skip
    context_BD = torch.from_numpy(lists.context_BD)
    real_BK = torch.tensor([True] * 5 + [False] * 2).expand(4, 7)
    with torch.no_grad():
        padded = network(context_BD, real_BK=real_BK, **inputs)[:, :5]
        short = network(context_BD, real_BK=real_BK[:, :5], **{name: value[:, :5] for name, value in inputs.items()})
    assert torch.allclose(padded, short, atol=1e-6)


@pytest.mark.parametrize("spec", [SPEC, SAME, SET])
def test_permuting_candidates_permutes_scores_and_batches_are_their_parts(spec):
    lists, ranker = make_lists(spec, loss=True), NumpyRanker(full_weights(spec), spec.to_json())
    scored, order = ranker.score(lists), np.array([3, 1, 6, 0, 5, 2, 4])
    permuted = Lists(
        context_BD=lists.context_BD, candidate_BKE=lists.candidate_BKE[:, order], pair_BKP=lists.pair_BKP[:, order],
        base_BK=lists.base_BK[:, order], loss_BKK=lists.loss_BKK[:, order][:, :, order],
    )  # fmt: skip
    assert np.abs(ranker.score(permuted) - scored[:, order]).max() < 1e-4
    one = Lists(**{name: getattr(lists, name)[2:3] for name in Lists.__slots__})
    assert np.abs(ranker.score(one) - scored[2:3]).max() < 1e-4


def test_damage_is_refused():
    good = full_weights(SAME)
    with pytest.raises(Damaged, match="shapes"):
        NumpyRanker(good | {"prior": np.zeros(3, np.float32)}, SAME.to_json())
    with pytest.raises(Damaged, match="shapes"):
        NumpyRanker({name: value for name, value in good.items() if name != "unit"}, SAME.to_json())
    with pytest.raises(Damaged, match="format"):
        NumpyRanker(good, SAME.to_json() | {"format": 99})
    with pytest.raises(Damaged, match="shapes"):
        NumpyRanker(full_weights(SET), SPEC.to_json())
    with pytest.raises(Damaged, match="inner"):
        NumpyRanker(full_weights(SPEC) | {"inner": np.ones(1, np.float32)}, SPEC.to_json())
