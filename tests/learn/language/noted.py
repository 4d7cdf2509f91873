"""The small office with notes as the server places them, for what begins with a journal."""

import re

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dayjob.memory.render import HEAD, Entry, render
from tests.learn.language.world import CONTROL, TEMPLATE, WORDINGS, Document, Message, Office, text_of

SPLIT = re.compile(r"\w+|[^\w\s]+")


class NotedOffice(Office):
    """Like the office, but whoever knows better says so in a note: a question and its answer."""

    def noted(self, said: dict[str, str]) -> list[Message]:
        entries = [Entry(id=asked, asked=asked, text=said[asked], order=order) for order, asked in enumerate(said)]
        return [{"role": "system", "content": render(entries)}] if entries else []

    def question(self, key: int, wording: int) -> str:
        return WORDINGS[wording].format(f"k{key}")

    def document(self, rng: np.random.Generator) -> tuple[list[Message], list[Document]]:
        if rng.random() < 0.35:
            return [], [self.asked(int(rng.integers(self.sizes.facts)), {}, rng=rng)]
        keys = [int(one) for one in rng.choice(self.sizes.facts, size=3, replace=False)]
        said = {key: "v{} v{}".format(*rng.integers(self.sizes.values, size=2)) for key in keys[: rng.integers(1, 4)]}
        wordings = rng.integers(len(WORDINGS), size=len(said))
        rng.shuffle(keys)
        told = {self.question(key, wording): text for (key, text), wording in zip(said.items(), wordings, strict=True)}
        return self.noted(told), [self.asked(key, said, rng=rng) for key in keys[:2]]

    def tokenizer(self) -> PreTrainedTokenizerFast:
        sizes = self.sizes
        spoken = SPLIT.findall(HEAD) + SPLIT.findall('- "ask what is tell me please" -> "')
        words = [*CONTROL, *dict.fromkeys(spoken)]
        words += [f"{name}{i}" for name, count in (("k", sizes.facts), ("v", sizes.values)) for i in range(count)]
        tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<end>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")
        fast.add_special_tokens({"additional_special_tokens": CONTROL[:3]})
        fast.chat_template = TEMPLATE
        return fast

    def encode(
        self, tokenizer: PreTrainedTokenizerFast, context: list[Message], turns: list[Document]
    ) -> tuple[list[int], list[int]]:
        told = tokenizer(text_of(context)).input_ids if context else []
        said = text_of([one for asked, answer in turns for one in (*asked, {"role": "assistant", "content": answer})])
        ids = tokenizer(said).input_ids
        return [*told, *ids], [*[-100] * len(told), *ids]
