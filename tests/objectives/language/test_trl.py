"""Parity with TRL 1.16 on the same inputs: its real trainers around a tiny Qwen3, its loss and gradient against ours.

Where TRL has a loss of ours. Both run in FP32, so numbers agree to rounding, not to the last digit.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from dayjob.learn.credit import dr_grpo, grpo, rloo
from dayjob.objectives.language.corrections import Cispo, TruncatedImportance
from dayjob.objectives.language.distillation import self_distillation
from dayjob.objectives.language.divergence import Divergence, divergence
from dayjob.objectives.language.dpo import dpo
from dayjob.objectives.language.kto import kto, kto_reference_point
from dayjob.objectives.language.logits import token_logprobs
from dayjob.objectives.language.policy_gradient import over_tokens, policy_gradient
from dayjob.objectives.language.sft import sft
from dayjob.objectives.language.weights import per_budget, per_row, per_sequence, per_token, sequence_logprob

# What TRL and transformers say about their own deprecations and experiments is not ours to fix.
pytestmark = pytest.mark.filterwarnings("ignore")

WORDS = 32
Model = Any


@pytest.fixture(scope="module")
def trl() -> ModuleType:
    return pytest.importorskip("trl", minversion="1.16", reason="pip install 'trl==1.16.*' to compare with TRL")


def tiny(seed: int) -> Model:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64}
    ids = {"vocab_size": WORDS, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    config = Qwen3Config(**shape, **heads, **ids, tie_word_embeddings=False, initializer_range=0.5)
    return Qwen3ForCausalLM(config).eval()


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<eos>", *(f"w{i}" for i in range(WORDS - 2))]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>")


@pytest.fixture
def trainer(trl, tmp_path) -> Callable[..., Any]:
    """trainer("DPO", rows, reference=True, beta=.3): TRL's own, made as its users make it."""

    def make(name: str, rows: dict[str, list], *, reference: bool = False, **settings: Any) -> Any:
        from datasets import Dataset

        arguments: dict[str, Any] = {"reward_funcs": settings.pop("reward_funcs")} if "reward_funcs" in settings else {}
        if reference:
            arguments["ref_model"] = tiny(99)
        config = getattr(trl, f"{name}Config")(
            output_dir=str(tmp_path), report_to="none", use_cpu=True, bf16=False, save_strategy="no", disable_tqdm=True,
            per_device_train_batch_size=4, activation_checkpointing=False, **settings,
        )  # fmt: skip
        made = getattr(trl, f"{name}Trainer")(
            model=tiny(0), args=config, train_dataset=Dataset.from_dict(rows), processing_class=tokenizer(), **arguments
        )
        made.model.eval()  # no scaling by accumulation
        return made

    return make


def logprobs(model: Model, batch: dict, scored: torch.Tensor, *, ids: str = "input_ids", mask: str = "attention_mask"):
    """Ours, of each token after the first, where ``scored`` (of all tokens) says so."""
    hidden = model.model(input_ids=batch[ids], attention_mask=batch[mask]).last_hidden_state[:, :-1]
    keep = scored[:, 1:].bool()
    return token_logprobs(hidden, model.lm_head.weight, token_BT=batch[ids][:, 1:], mask_BT=keep, chunk=5), keep


def gradients(model: Model, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


def assert_same(model: Model, ours: torch.Tensor, theirs: torch.Tensor, *, value: bool = True) -> None:
    if value:
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    found, wanted = gradients(model, ours), gradients(model, theirs)
    assert max(one.abs().max() for one in wanted) > 1e-3  # there is something to compare
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_sft(trainer):
    theirs = trainer("SFT", {"text": ["w1 w2 w3 w4 w5", "w6 w7", "w8 w9 w1", "w2 w2 w2 w2"]})
    batch = next(iter(theirs.get_train_dataloader()))
    logp, keep = logprobs(theirs.model, batch, batch["labels"] != -100)
    loss, _ = sft(logp, weight_BT=per_token(keep))
    assert_same(theirs.model, loss, theirs.compute_loss(theirs.model, batch))


def test_dpo(trainer):
    rows = {
        "prompt": ["w1 ", "w1 w2 ", "w3 ", "w4 w5 w6 "],
        "chosen": ["w2 w3", "w9", "w7 w7 w7", "w1"],
        "rejected": ["w4 w5 w6", "w8 w8", "w2", "w3 w4"],
    }
    theirs = trainer("DPO", rows, reference=True, beta=0.3)
    batch = next(iter(theirs.get_train_dataloader()))
    logp, keep = logprobs(theirs.model, batch, batch["completion_mask"])
    reference, _ = logprobs(theirs.ref_model, batch, batch["completion_mask"])
    chosen, rejected = sequence_logprob(logp, keep).chunk(2)
    chosen_reference, rejected_reference = sequence_logprob(reference, keep).chunk(2)
    loss, _ = dpo(
        chosen, rejected, chosen_reference_B=chosen_reference, rejected_reference_B=rejected_reference,
        weight_B=per_row(torch.ones(4)), beta=0.3,
    )  # fmt: skip
    assert_same(theirs.model, loss, theirs.compute_loss(theirs.model, batch))


def test_kto_with_its_reference_point(trainer):
    rows = {
        "prompt": ["w1 ", "w1 w2 ", "w3 ", "w4 w5 w6 "],
        "completion": ["w2 w3", "w9", "w7 w7 w7", "w1"],
        "label": [True, False, True, True],
    }
    theirs = trainer("KTO", rows, reference=True, beta=0.3, desirable_weight=1.0, undesirable_weight=3.0)
    batch = next(iter(theirs.get_train_dataloader()))
    sums = {}
    for name, model in (("now", theirs.model), ("reference", theirs.ref_model)):
        sums[name] = sequence_logprob(*logprobs(model, batch, batch["completion_mask"]))
        keys = {"ids": "KL_input_ids", "mask": "KL_attention_mask"}
        sums[f"{name}_mismatched"] = sequence_logprob(*logprobs(model, batch, batch["KL_completion_mask"], **keys))
    weight = per_row(torch.ones(4))
    point = kto_reference_point(sums["now_mismatched"], sums["reference_mismatched"], weight_B=weight)
    assert point > 1  # not its floor
    loss, _ = kto(
        sums["now"], sums["reference"], liked_B=batch["label"], reference_point=point, weight_B=weight, beta=0.3,
        balance=(1.0, 3.0),
    )  # fmt: skip
    assert_same(theirs.model, loss, theirs.compute_loss(theirs.model, batch))


def attempts(seed: int = 3) -> dict[str, torch.Tensor]:
    """Four completions of up to five tokens after prompts of two, as TRL hands them to its loss."""
    generator = torch.Generator().manual_seed(seed)
    length = torch.tensor([5, 3, 1, 4])
    mask = (torch.arange(5) < length[:, None]).long()
    return {
        "prompt_ids": torch.randint(2, WORDS, (4, 2), generator=generator),
        "prompt_mask": torch.ones(4, 2, dtype=torch.long),
        "completion_ids": torch.randint(2, WORDS, (4, 5), generator=generator) * mask,
        "completion_mask": mask,
        "advantages": torch.tensor([1.0, -0.5, 0.7, -1.2]),
        "num_items_in_batch": mask.sum(),
    }


def grpo_trainer(trainer: Callable[..., Any], reward: Callable[..., list[float]] | None = None, **settings: Any) -> Any:
    kept = {"num_generations": 4, "max_completion_length": 8, "beta": 0.0} | settings
    return trainer(
        "GRPO", {"prompt": ["w1 w2"] * 8}, reward_funcs=[reward or (lambda completions, **_: [0.0] * len(completions))],
        **kept,
    )  # fmt: skip


def ours_of(theirs: Any, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(log-probabilities, mask, advantages) of the completions, prompt left out."""
    whole = {
        "input_ids": torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
        "attention_mask": torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
    }
    scored = torch.cat([torch.zeros_like(inputs["prompt_mask"]), inputs["completion_mask"]], dim=1)
    logp, keep = logprobs(theirs.model, whole, scored)
    mask = keep[:, 1:]  # the prompt has two tokens; the first of all is never scored
    return logp[:, 1:], mask, over_tokens(inputs["advantages"], mask)


def test_cispo_of_stale_tokens(trainer):
    theirs, inputs = grpo_trainer(trainer, loss_type="cispo", epsilon_high=5.0), attempts()
    logp, mask, advantage = ours_of(theirs, inputs)
    log_ratio = torch.randn(4, 5, generator=torch.Generator().manual_seed(4)) * 2
    assert (log_ratio.exp()[mask] > 5).any()
    assert (log_ratio.exp()[mask] < 0.2).any()  # kept by both: one-sided
    behaviour = logp.detach() - log_ratio
    loss, _ = policy_gradient(logp, behaviour, advantage_BT=advantage, weight_BT=per_token(mask), corrections=[Cispo()])
    assert_same(theirs.model, loss, theirs._compute_loss(theirs.model, inputs | {"old_per_token_logps": behaviour}))


@pytest.mark.parametrize(
    ("loss_type", "weigh"),
    [
        ("grpo", per_sequence),
        ("dapo", per_token),
        ("dr_grpo", lambda mask: per_budget(mask, 8)),
    ],
)
def test_fresh_tokens_under_each_denominator(trainer, loss_type, weigh):
    """On-policy, PPO's ratio is 1 and its gradient is REINFORCE's; the surrogates' values mean nothing and differ."""
    theirs, inputs = grpo_trainer(trainer, loss_type=loss_type), attempts()
    logp, mask, advantage = ours_of(theirs, inputs)
    loss, _ = policy_gradient(logp, logp.detach(), advantage_BT=advantage, weight_BT=weigh(mask), corrections=[])
    assert_same(theirs.model, loss, theirs._compute_loss(theirs.model, inputs), value=False)


def test_truncated_importance_enters_the_loss_alike(trainer):
    """TRL computes min(rho, C) while it generates with vLLM, which is not run here; what it does with it is."""
    theirs, inputs = grpo_trainer(trainer, loss_type="grpo"), attempts()
    theirs.use_vllm, theirs.vllm_importance_sampling_correction = True, True
    logp, mask, advantage = ours_of(theirs, inputs)
    log_ratio = torch.randn(4, 5, generator=torch.Generator().manual_seed(5)) * mask
    ratio = log_ratio.exp().clamp(max=2.0)
    loss, _ = policy_gradient(
        logp, logp.detach() - log_ratio, advantage_BT=advantage, weight_BT=per_sequence(mask),
        corrections=[TruncatedImportance()],
    )  # fmt: skip
    wanted = theirs._compute_loss(theirs.model, inputs | {"importance_sampling_ratio": ratio})
    assert_same(theirs.model, loss, wanted, value=False)


@pytest.mark.parametrize(
    ("name", "settings", "method"),
    [
        ("GRPO", {"scale_rewards": "group", "beta": 0.0}, grpo),
        ("GRPO", {"scale_rewards": "none", "beta": 0.0}, dr_grpo),
        ("RLOO", {"beta": 0.0, "normalize_advantages": False}, rloo),
    ],
    ids=["grpo", "dr_grpo", "rloo"],
)
def test_advantages(trainer, name, settings, method):
    rewards = [1.0, 0.0, 0.0, 0.25, 0.5, 0.5, 0.5, 0.5]  # the second prompt's attempts all earned the same
    theirs = trainer(
        name, {"prompt": ["w1 w2", "w3"] * 4}, reward_funcs=[lambda completions, **_: rewards[: len(completions)]],
        num_generations=4, max_completion_length=2, **settings,
    )  # fmt: skip
    made = theirs._generate_and_score_completions([{"prompt": "w1 w2"}] * 4 + [{"prompt": "w3"}] * 4)
    ours = method(np.array(rewards), np.repeat([0, 1], 4))
    assert ours.advantage_B == pytest.approx(made["advantages"].numpy(), abs=1e-6)


@pytest.mark.parametrize(
    ("how", "beta"),
    [
        (Divergence(kind="forward"), 0.0),
        (Divergence(kind="reverse"), 1.0),
        (Divergence(kind="jsd"), 0.5),
        (Divergence(kind="jsd", beta=0.1), 0.1),
    ],
    ids=lambda one: getattr(one, "kind", None),
)
def test_distillation_over_the_full_vocabulary(trl, how, beta):  # noqa: ARG001 - skips without TRL
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    generator = torch.Generator().manual_seed(6)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    student, matrix, teacher, teacher_matrix = draw(3, 4, 8), draw(WORDS, 8), draw(3, 4, 12), draw(WORDS, 12)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 0]])
    inputs = student.requires_grad_(), matrix.requires_grad_()
    theirs, *_ = _chunked_divergence_loss(student, teacher, matrix, teacher_matrix, mask, beta, temperature=1.3)
    loss, _ = self_distillation(
        student, matrix, teacher_BTD=teacher, teacher_VD=teacher_matrix, weight_BT=per_token(mask), how=how,
        temperature=1.3, chunk=3,
    )  # fmt: skip
    torch.testing.assert_close(loss, theirs)
    for one, other in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(theirs, inputs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "alpha"), [("forward", 0.0), ("reverse", 1.0), ("jsd", 0.5), ("jsd", 0.3)], ids=lambda one: str(one)
)
def test_distillation_over_the_top_k_and_the_tail(trl, kind, alpha):  # noqa: ARG001 - skips without TRL
    from trl.experimental.sdpo.loss_utils import compute_topk_self_distillation_loss

    generator = torch.Generator().manual_seed(7)
    student, teacher = (torch.randn(5, WORDS, generator=generator) * 2 for _ in range(2))
    student.requires_grad_()
    theirs = compute_topk_self_distillation_loss(
        student, teacher, distillation_topk=6, distillation_alpha=alpha, distillation_add_tail=True
    )
    beta = alpha if kind == "jsd" else 0.5
    ours = divergence(student, teacher, how=Divergence(kind=kind, beta=beta, top_k=6))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    found, wanted = (torch.autograd.grad(one.sum(), student)[0] for one in (ours, theirs))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
