"""What is trained is what is served: the same sum, the same files, the base model when it is off."""

import pytest
import torch

from dayjob.endings import Invalid
from dayjob.policies.adapters import file_digests, read_adapter
from dayjob.policies.engine_batch import Batch
from dayjob.policies.engine_protocol import VersionRef
from dayjob.policies.language_train import LoraShape, TrainableLora, write_adapter
from tests.policies.language.worlds import World, peft_of_today, tiny_model

IDS = (5, 80, 33, 60, 9, 12, 71, 44)
SHAPES = [
    LoraShape(rank=4, alpha=8),
    LoraShape(rank=3, alpha=6, stabilised=True, layers=("q_proj", "down_proj")),
]


def moved(model, shape, *, strength=0.5):
    """An adapter whose B is not zero any more."""
    lora = TrainableLora(model, head=model.get_output_embeddings(), shape=shape, seed=3)
    generator = torch.Generator().manual_seed(4)
    for _, up_OR in lora.factors.values():
        up_OR.data = strength * torch.randn(up_OR.shape, generator=generator)
    return lora


def logprobs(model, ids=IDS):
    return torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0], dim=1)


@pytest.mark.parametrize("shape", SHAPES, ids=["every layer", "some layers"])
@pytest.mark.parametrize("kind", ["qwen3", "llama"])
def test_training_serving_and_peft_give_the_same_log_probabilities(kind, shape, tmp_path):
    model = tiny_model(kind)
    base_TV = logprobs(model)
    lora = moved(model, shape)
    ours_TV = logprobs(model).detach()
    assert (ours_TV - base_TV).abs().max() > 0.1, "the adapter does something"
    write_adapter(tmp_path / "v1", lora.state(), shape=shape, base="base")
    lora.close()

    ref = VersionRef(name="v1", digest="d", folder=tmp_path / "v1", files=file_digests(tmp_path / "v1"))
    batch = Batch(model, slots=2, max_tokens=32)
    adapter = read_adapter(ref, batch.adapters.shapes, max_rank=64)
    served, _ = batch.score(IDS, 1, adapter=adapter, top=0)
    own = ours_TV[:-1].gather(1, torch.tensor(IDS)[1:, None])[:, 0]
    assert torch.tensor(served) == pytest.approx(own, abs=1e-4)

    world = World(kind=kind, folder=tmp_path, tokens=None, adapters=(ref,))
    assert world.logits(ref, IDS).log_softmax(1) == pytest.approx(ours_TV, abs=1e-4)


def test_off_is_the_base_model_to_the_last_bit_and_so_is_an_adapter_that_never_learned():
    model = tiny_model("qwen3")
    base_TV = logprobs(model)
    fresh = TrainableLora(model, head=model.get_output_embeddings(), shape=SHAPES[0], seed=0)
    assert torch.equal(logprobs(model), base_TV)
    fresh.close()
    lora = moved(model, SHAPES[0])
    with lora.off():
        assert torch.equal(logprobs(model), base_TV)
    assert not torch.equal(logprobs(model), base_TV)
    lora.close()
    assert torch.equal(logprobs(model), base_TV)


def test_gradients_reach_the_factors_and_nothing_else():
    model = tiny_model("qwen3")
    lora = moved(model, SHAPES[1])
    logprobs(model)[:, 0].sum().backward()
    assert set(lora.factors) == {
        f"model.layers.{layer}.{end}" for layer in (0, 1) for end in ("self_attn.q_proj", "mlp.down_proj")
    }
    assert all(one.grad is not None and one.grad.abs().max() > 0 for one in lora.parameters())
    assert all(one.grad is None for one in model.parameters())


def test_a_state_goes_back_in_and_equal_weights_have_equal_bytes(tmp_path):
    model = tiny_model("qwen3")
    lora = moved(model, SHAPES[0])
    state = lora.state()
    expected_TV = logprobs(model)
    for name in ("a", "b"):
        write_adapter(
            tmp_path / name, dict(reversed(state.items())) if name == "b" else state, shape=SHAPES[0], base="m"
        )
    assert file_digests(tmp_path / "a") == file_digests(tmp_path / "b")
    with torch.no_grad():
        for one in lora.parameters():
            one.zero_()
    lora.restore(state)
    assert torch.equal(logprobs(model), expected_TV)


def test_the_start_is_pefts():
    """A within PEFT's Kaiming bound sqrt(6 / ((1 + 5) inputs)), B zero."""
    from peft import LoraConfig, get_peft_model

    model = tiny_model("qwen3")
    lora = TrainableLora(model, head=model.get_output_embeddings(), shape=LoraShape(rank=8), seed=0)
    down_RI, up_OR = lora.factors["model.layers.0.mlp.down_proj"]
    with peft_of_today():
        theirs = get_peft_model(
            tiny_model("qwen3"), LoraConfig(r=8, target_modules=["down_proj"], task_type="CAUSAL_LM")
        )
    own = theirs.get_submodule("base_model.model.model.layers.0.mlp.down_proj.lora_A.default").weight
    assert down_RI.std().item() == pytest.approx(own.std().item(), rel=0.1)
    assert down_RI.abs().max() <= down_RI.shape[1] ** -0.5
    assert up_OR.abs().max() == 0


@pytest.mark.parametrize(
    ("shape", "remedy"),
    [(LoraShape(rank=0), "give 1 or more"), (LoraShape(layers=("qkv",)), "it has down_proj, gate_proj")],
)
def test_what_cannot_be_is_refused_with_the_remedy(shape, remedy):
    model = tiny_model("qwen3")
    with pytest.raises(Invalid, match=remedy):
        TrainableLora(model, head=model.get_output_embeddings(), shape=shape, seed=0)
