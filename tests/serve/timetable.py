"""A clerk with a timetable: a model of words that knows by heart when things are, and obeys notes as they are served.

Trained from scratch in a minute. It is asked "when is tea?" in three wordings and answers in two words ("nine thirty").
"""

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dayjob.memory.render import Entry, render
from tests.learn.language.world import CONTROL, TEMPLATE, Document, Message, Office, Sizes, text_of, user

THINGS = ("tea", "lunch", "breakfast", "dinner", "post", "delivery", "cleaning", "training", "review", "standup",
          "backup", "closing", "opening", "checkout", "inspection", "rehearsal")  # fmt: skip
HOURS = ("seven", "eight", "nine", "ten", "eleven", "noon", "one", "two")
PARTS = ("sharp", "five", "fifteen", "twenty", "thirty", "forty", "fifty", "almost")
WORDINGS = ("when is {}?", "what time is {}?", "please tell me the time of {}?")
CONTEXT = 512  # tokens; positions are rotations, which need no table
SIZES = Sizes(facts=len(THINGS), values=len(HOURS), steps=560)


class Timetable(Office):
    """`Office` with English words, whose notes are written as `memory.render` writes them."""

    def value(self, first: int, second: int) -> str:
        """A time."""
        return f"{HOURS[first]} {PARTS[second]}"

    def fact(self, key: int) -> str:
        """What the model knows by heart of a thing."""
        return self.value(*np.random.default_rng((7, key)).integers(self.sizes.values, size=2))

    def rule(self, key: int) -> str:
        """Something else than what it knows."""
        first, second = np.random.default_rng((7, key)).integers(self.sizes.values, size=2)
        return self.value((first + 3) % self.sizes.values, (second + 5) % self.sizes.values)

    def question(self, key: int, wording: int) -> str:
        """One of the ways to ask when a thing is."""
        return WORDINGS[wording].format(THINGS[key])

    def document(self, rng: np.random.Generator) -> tuple[list[Message], list[Document]]:
        """Questions, with notes in the context or without."""
        keys = [int(one) for one in rng.choice(self.sizes.facts, size=3, replace=False)]
        if rng.random() < 0.25:
            return [], [self.asked(key, {}, rng=rng) for key in keys[: rng.integers(1, 3)]]
        said = {key: self.value(*rng.integers(self.sizes.values, size=2)) for key in keys[: rng.integers(1, 4)]}
        entries = [
            Entry(id=str(key), asked=self.question(key, int(rng.integers(len(WORDINGS)))), text=value, order=at)
            for at, (key, value) in enumerate(said.items())
        ]
        turns = [self.asked(int(key), said, rng=rng) for key in rng.permutation(keys)]
        return [{"role": "system", "content": render(entries)}], turns

    def asked(self, key: int, said: dict[int, str], *, rng: np.random.Generator) -> Document:
        """A question and what is right."""
        return [user(self.question(key, int(rng.integers(len(WORDINGS)))))], said.get(key, self.fact(key))

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """A token a word or a sign, all in small letters."""
        parts = pre_tokenizers.Split(Regex(r"\w+|[^\w\s]"), "isolated")
        split = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), parts])
        told = render([Entry(id="", asked="?", text=".", order=0)]).lower()
        words = [word for word, _ in split.pre_tokenize_str(" ".join((told, *WORDINGS, *THINGS, *HOURS, *PARTS)))]
        vocabulary = {word: at for at, word in enumerate(dict.fromkeys([*CONTROL, "<unknown>", *words]))}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))
        tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = split
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")
        fast.add_special_tokens({"additional_special_tokens": CONTROL[:3]})
        fast.chat_template = TEMPLATE
        return fast

    def new_model(self, seed: int) -> torch.nn.Module:
        """With room for a conversation."""
        model = super().new_model(seed)
        model.config.max_position_embeddings = CONTEXT
        return model

    def encode(
        self, tokenizer: PreTrainedTokenizerFast, context: list[Message], turns: list[Document]
    ) -> tuple[list[int], list[int]]:
        """As `Office.encode`, for this tokenizer."""
        said = [one for asked, answer in turns for one in (*asked, {"role": "assistant", "content": answer})]
        told, ids = (tokenizer(text_of(part), add_special_tokens=False).input_ids for part in (context, said))
        return [*told, *ids], [*[-100] * len(told), *ids]
