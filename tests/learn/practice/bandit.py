"""The smallest thing that can be practised: a question with one right word, asked of a model of a dozen words.

`Bandit` is a ground of its own, so that courses are tested without any environment: an episode has ``turns`` turns,
each asks the same word again, and the reward is 1 where all answers are right.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config

from dayjob.endings import EpisodeEnding
from dayjob.learn.practice.ground import Look
from dayjob.policies.engine_protocol import Engine, Prompt, Sampling
from dayjob.policies.tokens import Tokens
from dayjob.records import Trajectory, Turn

CONTROL = ["<system>", "<user>", "<assistant>", "<end>"]
WORDS = ["red", "green", "blue", "one", "two", "three", "?", "task", "solved", "not"]
RIGHT = {"one": "red", "two": "green", "three": "blue"}
TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}> {{ message['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """A token a word."""
    words = [*CONTROL, *WORDS]
    one = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="?"))
    one.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=one, eos_token="<end>", pad_token="<end>")
    fast.add_special_tokens({"additional_special_tokens": CONTROL[:3]})
    fast.chat_template = TEMPLATE
    return fast


def save_model(folder: Path, *, seed: int = 0) -> None:
    """A random model of two layers, and its tokenizer."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer()), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=256, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=3, initializer_range=0.1,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.float32)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)


@dataclass
class Bandit:
    """See above. ``asked``: the words that are asked, in turn."""

    tokens: Tokens
    attempts_each: int = 8
    turns: int = 1
    asked: Sequence[str] = tuple(RIGHT)
    told: int = 0  # groups so far: the state of this ground
    failing: bool = False
    warm: Sequence[str] = ()
    seen: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)

    @property
    def mark(self) -> str:
        return f"bandit {self.attempts_each} {self.turns} {self.asked}"

    async def attempts(self, engine: Engine, version: str, *, ticket: int) -> list[Trajectory]:
        word = self.asked[ticket % len(self.asked)]
        found = await asyncio.gather(
            *(self.episode(engine, version, word=word, seed=1000 * ticket + one) for one in range(self.attempts_each))
        )
        self.told += 1
        self.seen.append((ticket, tuple(name for one in found for turn in one.turns for name in turn.versions)))
        return list(found)

    async def episode(
        self, engine: Engine, version: str, *, word: str, seed: int, temperature: float = 1.0
    ) -> Trajectory:  # fmt: skip
        messages = [{"role": "user", "content": word}]
        turns = []
        for number in range(self.turns):
            prompt = self.tokens.render(messages)
            sampling = Sampling(max_tokens=1, seed=seed * 64 + number, temperature=temperature)
            async for chunk in engine.generate(Prompt(token_ids=prompt), version, sampling=sampling):
                right = float(chunk.text == RIGHT[word])
                assert chunk.sample_logprobs is not None
                turns.append(
                    Turn(prompt_ids=prompt, token_ids=chunk.token_ids, logprobs=chunk.sample_logprobs,
                         versions=chunk.versions, text=chunk.text, reward=right / self.turns)
                )  # fmt: skip
            messages += [{"role": "assistant", "content": "?"}, {"role": "user", "content": word}]
        reward = float(all(one.reward for one in turns))
        return Trajectory(
            spec={"env": "bandit", "word": word}, seed=0, group=word, turns=tuple(turns), messages=tuple(messages),
            reward=reward, parts=(), ending=EpisodeEnding.FAILED if self.failing else EpisodeEnding.DONE,
            error="no door" if self.failing else "",
        )  # fmt: skip

    async def look(self, engine: Engine, version: str) -> Look:
        found = await asyncio.gather(
            *(self.episode(engine, version, word=word, seed=7, temperature=0.0) for word in RIGHT)
        )
        rates = {word: one.reward for word, one in zip(RIGHT, found, strict=True)}
        return Look(score=sum(rates.values()) / len(rates), rates=rates)

    async def solution(self, attempt: Trajectory) -> list[str]:
        return [RIGHT[attempt.group]] * self.turns

    def curated(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        return [
            (self.tokens.render([{"role": "user", "content": word}]), (*self.tokens.encode(RIGHT[word]), 3))
            for word in self.warm
        ]

    def state(self) -> Mapping[str, int]:
        return {"told": self.told}

    def restore(self, state: Mapping[str, int]) -> None:
        self.told = state["told"]
