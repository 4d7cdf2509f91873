"""Both sides of the speed mark do the same work."""

import pytest
from peft import PeftModel

from dayjob.lab.speed_language import Load, engine_speed, generate_speed
from dayjob.policies.tokens import Tokens
from tests.policies.language.worlds import byte_tokenizer, peft_of_today, tiny_model


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
def test_both_sides_write_every_token_they_are_asked_for(qwen):
    endless = byte_tokenizer()
    endless.eos_token = None
    load = Load(clients=5, prompt_tokens=4, answer_tokens=7, rounds=2)
    refs = qwen.adapters[:2]
    ours = engine_speed(tiny_model("qwen3"), Tokens(endless), refs=refs, load=load)
    with peft_of_today():
        model = PeftModel.from_pretrained(tiny_model("qwen3"), refs[0].folder, adapter_name=refs[0].name).eval()
        model.load_adapter(refs[1].folder, adapter_name=refs[1].name)
    theirs = generate_speed(model, names=[ref.name for ref in refs], load=load)
    assert (ours.written, theirs.written) == (2 * 5 * 7, 5 * 7)
    assert min(ours.tokens_s, ours.tokens_cpu_s, theirs.tokens_s, theirs.tokens_cpu_s) > 0
