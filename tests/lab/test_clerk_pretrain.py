"""Bringing up a very small clerk: it learns, goes on to the same weights after a stop, is saved as measured."""

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from dayjob.endings import Invalid
from dayjob.lab import clerk_pretrain
from dayjob.lab.clerk_course import held_out, training
from dayjob.lab.clerk_eval import open_model, share_right
from dayjob.lab.clerk_model import Shape, save, set_apart
from dayjob.lab.clerk_night import model_folder
from dayjob.lab.clerk_text import Example
from dayjob.lab.clerk_tokens import END, batches, encode, padded
from dayjob.lab.clerk_train import Plan, Run, advance, nll, open_run, save_run, start, take_step
from dayjob.policies.engine_transformers import load_model
from dayjob.policies.tokens import Tokens

pytest.importorskip("reasoning_gym", reason="pip install 'dayjob[gym]' (needs a C compiler)")
TINY = Plan(steps=4, school=2, examples=8, warmup=2, shape=Shape(width=64, layers=2, inner=64, vocabulary=400))


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def fresh() -> Run:
    return start(TINY)


def go(run: Run, until: int) -> None:
    advance(run, until=until, stop=lambda: False, tell=lambda *_: None)


def weights(run: Run) -> list[torch.Tensor]:
    return list(run.model.state_dict().values())


def test_a_resumed_run_ends_bit_for_bit_where_an_unbroken_one_does(tmp_path):
    whole = start(TINY)
    go(whole, 6)
    first = open_run(TINY, tmp_path)
    go(first, 3)
    save_run(first, tmp_path)
    second = open_run(TINY, tmp_path)
    assert second.step == 3
    go(second, 6)
    assert second.tokens == whole.tokens > 0
    assert all(torch.equal(one, other) for one, other in zip(weights(second), weights(whole), strict=True))
    assert not all(torch.equal(one, other) for one, other in zip(weights(first), weights(whole), strict=True))


def test_a_checkpoint_of_another_plan_or_other_text_is_refused(tmp_path, monkeypatch):
    run = open_run(TINY, tmp_path)
    save_run(run, tmp_path)
    with pytest.raises(Invalid, match="another folder"):
        open_run(replace(TINY, rate=1e-3), tmp_path)
    monkeypatch.setattr("dayjob.lab.clerk_train.text_mark", lambda _: "other")
    with pytest.raises(Invalid, match="other text"):
        open_run(TINY, tmp_path)


def test_a_half_written_checkpoint_leaves_the_one_before(tmp_path):
    run = open_run(TINY, tmp_path)
    save_run(run, tmp_path)
    (tmp_path / "checkpoint.pt.partial").write_bytes(b"half")
    assert open_run(TINY, tmp_path).step == 0


@pytest.mark.parametrize("keep", [0, 40, 5000])
def test_a_damaged_checkpoint_is_named(tmp_path, keep):
    save_run(start(TINY), tmp_path)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(Invalid, match="damaged: delete it"):
        open_run(TINY, tmp_path)


def test_steps_lower_the_loss():
    run = start(replace(TINY, steps=40, rate=3e-3))
    first = take_step(run)
    for _ in range(15):
        run.step += 1
        last = take_step(run)
    assert last < first - 1


def test_the_rate_warms_up_and_falls_to_a_fiftieth():
    plan = Plan(steps=1000, school=500, warmup=100, rate=1.0, school_rate=0.5)
    assert plan.rate_at(0) == pytest.approx(0.01)
    assert plan.rate_at(99) == pytest.approx(1.0)
    assert plan.rate_at(550) == pytest.approx(0.02 + 0.98 / 2)
    assert plan.rate_at(999) == pytest.approx(0.02, abs=1e-5)
    assert plan.rate_at(1000) == pytest.approx(0.5 / 25)
    assert plan.rate_at(1024) == pytest.approx(0.5)
    assert plan.rate_at(1500) == pytest.approx(0.01)


def test_conversations_are_tokenised_as_the_folders_template_has_them(fresh):
    for example in training(0, 1, count=40):
        (row,) = encode(fresh.tokenizer, [example])
        messages = [{"role": role, "content": text} for role, text in example.messages]
        whole = fresh.tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
        prompt = fresh.tokenizer.apply_chat_template(
            messages[:-1], tokenize=True, add_generation_prompt=True, return_dict=False
        )
        assert list(row.ids) == whole
        assert list(row.ids[: row.answer_from]) == prompt
        assert all(row.spoken[row.answer_from :])


def test_any_text_survives_and_digits_stand_alone(fresh):
    text = "Ünïcode – 日本 \n 12345 a  b"
    ids = fresh.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert fresh.tokenizer.decode(ids) == text
    assert len(fresh.tokenizer("90125", add_special_tokens=False)["input_ids"]) == 5
    assert len(fresh.tokenizer) == 400


def test_batches_hold_every_row_once_and_stay_within_their_tokens(fresh):
    rows = encode(fresh.tokenizer, training(0, 0, count=64))
    groups = batches(rows, tokens=512)
    assert sorted(row.ids for group in groups for row in group) == sorted(row.ids for row in rows)
    assert all(len(group) == 1 or len(group) * max(len(row.ids) for row in group) <= 512 for group in groups)


def test_padding_and_first_tokens_do_not_count_and_prompts_count_lightly(fresh):
    short = Example(family="f", messages=(("user", "a"), ("assistant", "b")))
    long = Example(family="f", messages=(("user", "a"), ("assistant", "1234")))
    ids_BT, weight_BT = padded(encode(fresh.tokenizer, [short, long]), pad=0, prompt_weight=0.25)
    # <|user|> a <|end|> <|assistant|> b <|end|> and padding
    assert weight_BT[0].tolist() == [0, 0.25, 0.25, 0.25, 1, 1, 0, 0, 0]
    assert ids_BT[0, 6:].tolist() == [0, 0, 0]
    assert weight_BT[1].tolist() == [0, 0.25, 0.25, 0.25, 1, 1, 1, 1, 1]


def test_the_loss_is_the_weighted_sum_of_minus_log_p(fresh):
    rows = encode(fresh.tokenizer, training(0, 2, count=4))
    ids_BT, weight_BT = padded(rows, pad=0, prompt_weight=0.5)
    with torch.no_grad():
        logits_BTV = fresh.model(input_ids=ids_BT).logits[:, :-1].log_softmax(-1)
        logp_BT = logits_BTV.gather(-1, ids_BT[:, 1:, None])[..., 0]
        wanted = -(logp_BT * weight_BT[:, 1:]).sum()
        found = nll(fresh.model, ids_BT, weight_BT=weight_BT)
    torch.testing.assert_close(found, wanted, rtol=5e-3, atol=0)  # bfloat16 products
    assert functional.relu(found) > 0


def test_a_right_answer_is_one_that_greedy_writing_gives():
    """Both sides must occur: an undertrained model answers some and not others."""
    examples = [
        Example(family="f", messages=(("user", f"say {one}"), ("assistant", 2 * str(one % 7)))) for one in range(24)
    ]
    run = start(replace(TINY, rate=3e-3))
    rows = encode(run.tokenizer, examples[:12])
    ids_BT, weight_BT = padded(rows, pad=0, prompt_weight=0.0)
    for _ in range(60):
        nll(run.model, ids_BT, weight_BT=weight_BT).div(12).backward()
        for optimizer in run.optimizers:
            optimizer.step()
            optimizer.zero_grad()
    written = []
    for example, row in zip(examples, encode(run.tokenizer, examples), strict=True):
        prompt_BT = torch.tensor([row.ids[: row.answer_from]])
        out = run.model.generate(
            prompt_BT, attention_mask=torch.ones_like(prompt_BT), max_new_tokens=4, do_sample=False,
            eos_token_id=run.tokenizer.eos_token_id, pad_token_id=run.tokenizer.pad_token_id,
        )  # fmt: skip
        text = run.tokenizer.decode(out[0, row.answer_from :], skip_special_tokens=True)
        written.append(text == example.messages[-1][1] and out[0, -1] == run.tokenizer.eos_token_id)
    assert any(written)
    assert not all(written)
    each = [share_right(run.model, run.tokenizer, examples=[one]) for one in examples]
    assert each == [float(one) for one in written]
    assert share_right(run.model, run.tokenizer, examples=examples) == sum(written) / 24
    known = examples[written.index(True)]
    half = replace(known, messages=(known.messages[0], ("assistant", known.messages[1][1][0])))
    assert share_right(run.model, run.tokenizer, examples=[half]) == 0  # it would not have ended there


def test_the_saved_folder_is_half_as_large_loads_in_full_and_serves(tmp_path, fresh):
    size = save(fresh.model, fresh.tokenizer, folder=tmp_path)
    count = sum(one.numel() for one in fresh.model.parameters())
    assert 2 * count <= size <= 2 * count + 10_000
    assert {one.dtype for one in load_file(tmp_path / "model.safetensors").values()} == {torch.float16}
    assert next(fresh.model.parameters()).dtype == torch.float32
    model, tokenizer = open_model(tmp_path)
    assert {one.dtype for one in model.parameters()} == {torch.float32}
    assert next(load_model(tmp_path).parameters()).dtype == torch.float32
    tokens = Tokens.open(tmp_path)
    (example,) = held_out("facts", count=1)
    (row,) = encode(tokenizer, [example])
    assert tokens.render([{"role": "user", "content": example.messages[0][1]}]) == row.ids[: row.answer_from]
    assert tokens.end_ids == {tokenizer.convert_tokens_to_ids(END)}
    with pytest.raises(Invalid, match="control token"):
        tokens.render([{"role": "user", "content": "<|assistant|>"}])
    with pytest.raises(Invalid, match="roles are"):
        tokens.render([{"role": "stranger", "content": "a"}])


def test_rows_that_are_nearly_equal_are_set_apart_and_no_others():
    rows_VD = torch.randn(40, 64, generator=torch.Generator().manual_seed(1))
    rows_VD[10:25] = 3.0 + 0.001 * rows_VD[10:25]
    apart_VD = set_apart(rows_VD)
    trained = [*range(10), *range(25, 40)]
    assert torch.equal(apart_VD[trained], rows_VD[trained])
    gap_VV = torch.cdist(apart_VD, apart_VD).fill_diagonal_(torch.inf)
    assert gap_VV.min() > 1.0
    assert torch.equal(set_apart(rows_VD), apart_VD)


def test_a_saved_clerk_tells_apart_what_was_never_trained(tmp_path, fresh):
    rows_VD = fresh.model.model.embed_tokens.weight
    before_VD = rows_VD.detach().clone()
    with torch.no_grad():
        rows_VD[300:340] = rows_VD[300] + 1e-4 * rows_VD[300:340]
    save(fresh.model, fresh.tokenizer, folder=tmp_path)
    with torch.no_grad():
        rows_VD.copy_(before_VD)  # others use this model
    saved_VD = load_file(tmp_path / "model.safetensors")["model.embed_tokens.weight"].float()
    assert torch.cdist(saved_VD[300:340], saved_VD[300:340]).fill_diagonal_(torch.inf).min() > 0.01


def test_the_shipped_clerk_can_write_every_token():
    rows_VD = load_file(model_folder(None) / "model.safetensors")["model.embed_tokens.weight"].float()
    assert torch.equal(set_apart(rows_VD), rows_VD)


def test_a_run_stopped_by_a_signal_goes_on_and_ends_with_model_and_table(tmp_path, monkeypatch):
    monkeypatch.setattr(clerk_pretrain, "CHECK_QUESTIONS", 2)
    monkeypatch.setattr(clerk_pretrain, "LAST_QUESTIONS", 2)
    plan = replace(TINY, steps=30, examples=2)
    before = signal.getsignal(signal.SIGTERM)

    def end_it() -> None:
        while signal.getsignal(signal.SIGTERM) is before:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    def piece() -> bool:
        return clerk_pretrain.run(
            plan, folder=tmp_path / "run", model_folder=tmp_path / "model", out_dir=tmp_path / "out", threads=1,
            minutes=None, quick=True,
        )  # fmt: skip

    threading.Thread(target=end_it).start()
    assert piece() is False
    assert signal.getsignal(signal.SIGTERM) is before
    assert not (tmp_path / "model").exists()
    assert open_run(plan, tmp_path / "run").step < 30
    assert piece() is True
    assert Path(tmp_path / "model" / "model.safetensors").exists()
    assert "| facts | 0.2 |" in (tmp_path / "out" / "clerk_pretrain.md").read_text()


def test_minutes_end_a_piece(tmp_path):
    done = clerk_pretrain.run(
        TINY, folder=tmp_path, model_folder=tmp_path / "model", out_dir=tmp_path, threads=1, minutes=0, quick=True
    )
    assert not done
    assert (tmp_path / "checkpoint.pt").exists()
