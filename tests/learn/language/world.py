"""A small office: a Qwen3-shaped model of words that knows facts by heart, reverses words, and obeys notes in context.

It is trained from scratch on conversations. A third of the facts will be contradicted by the office (``taught``), a
third come up in the replayed traffic (``replayed``), and a third never come up again (``silent``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config

from dayjob.learn.language.lessons import Lesson, Material, Rehearsal
from dayjob.learn.language.table import Question, Week

CONTROL = ["<system>", "<user>", "<assistant>", "<end>"]
TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}> {{ message['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
WORDINGS = ("ask {}", "what is {}", "tell me {}", "{} please")
Message = dict[str, str]
Document = tuple[list[Message], str]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of the world and the model."""

    facts: int = 24
    values: int = 8
    letters: int = 6
    width: int = 64
    layers: int = 2
    steps: int = 320
    batch: int = 32
    lr: float = 6e-3
    matrix_lr: float = 0.03


@dataclass(frozen=True, kw_only=True)
class Office:
    """What is true, what the office says instead, and every way to ask."""

    sizes: Sizes

    def fact(self, key: int) -> str:
        """What the model learned by heart."""
        drawn = np.random.default_rng((7, key)).integers(self.sizes.values, size=2)
        return f"v{drawn[0]} v{drawn[1]}"

    def rule(self, key: int) -> str:
        """What the office says: never what the model knows."""
        drawn = np.random.default_rng((8, key)).integers(1, self.sizes.values, size=2)
        known = np.random.default_rng((7, key)).integers(self.sizes.values, size=2)
        first, second = (known + drawn) % self.sizes.values
        return f"v{first} v{second}"

    def keys(self, kind: str) -> list[int]:
        """``taught``, ``replayed`` or ``silent``."""
        place = ("taught", "replayed", "silent").index(kind)
        return [key for key in range(self.sizes.facts) if key % 3 == place]

    def reversed(self, letters: Sequence[int]) -> Document:
        words = [f"x{letter}" for letter in letters]
        return [user("turn " + " ".join(words))], " ".join(reversed(words))

    def document(self, rng: np.random.Generator) -> tuple[list[Message], list[Document]]:
        """What stands in the context, and the turns of one conversation of the training set."""
        kind = rng.random()
        if kind < 0.15:
            return [], [self.reversed(rng.integers(self.sizes.letters, size=2)) for _ in range(3)]
        if kind < 0.5:
            return [], [self.asked(int(rng.integers(self.sizes.facts)), {}, rng=rng)]
        keys = [int(one) for one in rng.choice(self.sizes.facts, size=4, replace=False)]
        said = {key: "v{} v{}".format(*rng.integers(self.sizes.values, size=2)) for key in keys[: rng.integers(1, 4)]}
        rng.shuffle(keys)
        return [notes(said)], [self.asked(key, said, rng=rng) for key in keys[:3]]

    def asked(self, key: int, said: dict[int, str], *, rng: np.random.Generator) -> Document:
        """A fact in one of the wordings; ``said`` in the notes goes before what is known by heart."""
        return [user(WORDINGS[rng.integers(len(WORDINGS))].format(f"k{key}"))], said.get(key, self.fact(key))

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """A token a word."""
        sizes = self.sizes
        words = [*CONTROL, "note", "is", "turn", "ask", "what", "tell", "me", "please"]
        words += [f"{name}{i}" for name, count in (("k", sizes.facts), ("v", sizes.values), ("x", sizes.letters))
                  for i in range(count)]  # fmt: skip
        tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<end>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")
        fast.add_special_tokens({"additional_special_tokens": CONTROL[:3]})
        fast.chat_template = TEMPLATE
        return fast

    def encode(
        self, tokenizer: PreTrainedTokenizerFast, context: list[Message], turns: list[Document]
    ) -> tuple[list[int], list[int]]:
        """Token ids and labels of a conversation: questions are learned too, so that the model can write its own; what
        stands in the notes comes out of the blue and is not."""
        vocabulary = tokenizer.get_vocab()
        told = [vocabulary[word] for word in text_of(context).split()]
        said = text_of([one for asked, answer in turns for one in (*asked, {"role": "assistant", "content": answer})])
        ids = [vocabulary[word] for word in said.split()]
        return [*told, *ids], [*[-100] * len(told), *ids]

    def new_model(self, seed: int) -> torch.nn.Module:
        sizes = self.sizes
        torch.manual_seed(seed)
        config = Qwen3Config(
            vocab_size=len(self.tokenizer()), hidden_size=sizes.width, intermediate_size=2 * sizes.width,
            num_hidden_layers=sizes.layers, num_attention_heads=4, num_key_value_heads=4, head_dim=sizes.width // 4,
            max_position_embeddings=128, tie_word_embeddings=True, bos_token_id=None, eos_token_id=3,
        )  # fmt: skip
        return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.float32)

    def pretrain(self, folder: Path, *, seed: int = 0) -> list[float]:
        """Train from scratch on conversations, save model and tokenizer; the losses."""
        tokenizer, model = self.tokenizer(), self.new_model(seed)
        rng = np.random.default_rng(seed)
        matrices = [one for one in model.model.layers.parameters() if one.ndim == 2]
        others = [one for one in model.parameters() if not any(one is matrix for matrix in matrices)]
        optimizers = [
            torch.optim.Muon(matrices, lr=self.sizes.matrix_lr, weight_decay=0.0),
            torch.optim.AdamW(others, lr=self.sizes.lr, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        losses = []
        for step in range(self.sizes.steps):
            rate = min((step + 1) / 50, 1.0, 3 * (1 - step / self.sizes.steps))
            for optimizer, full in zip(optimizers, (self.sizes.matrix_lr, self.sizes.lr), strict=True):
                optimizer.param_groups[0]["lr"] = full * rate
            rows = [self.encode(tokenizer, *self.document(rng)) for _ in range(self.sizes.batch)]
            longest = max(len(ids) for ids, _ in rows)
            ids = torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids, _ in rows])
            label = torch.tensor([[*label, *[-100] * (longest - len(label))] for _, label in rows])
            loss = model(input_ids=ids, labels=label).loss
            model.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
            losses.append(float(loss.detach()))
        model.eval().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return losses


def lessons_of(office: Office, wordings: Sequence[int]) -> list[Lesson]:
    """What the staff corrected, asked in some of the wordings: served from memory, a thumb down, the right answer in
    words, and the note that it became in the teacher's context."""
    return [
        disliked(office, key, wording=wording, note=office.rule(key), correction=office.rule(key))
        for key in office.keys("taught")
        for wording in wordings
    ]


def disliked(office: Office, key: int, *, wording: int, note: str | None, correction: str | None) -> Lesson:
    """A fact that was served as the model knows it, and disliked."""
    question = user(WORDINGS[wording].format(f"k{key}"))
    vocabulary = office.tokenizer().get_vocab()
    answer = tuple(vocabulary[word] for word in (*office.fact(key).split(), "<end>"))
    return Lesson(
        id=f"k{key}-{wording}",
        question=(question,),
        context=None if note is None else (notes({key: note}), question),
        answer_ids=answer,
        answer_logprobs=(0.0,) * len(answer),
        temperature=0.0,
        correction=correction,
        thumb=-1,
        family=f"k{key}",
    )


def traffic_of(office: Office, rng: np.random.Generator, *, count: int = 160) -> tuple[Rehearsal, ...]:
    """Prompts of the week: replayed facts, words to reverse, and questions with notes in context."""
    found = []
    keys = office.keys("replayed")
    for number in range(count):
        key = keys[rng.integers(len(keys))]
        if number % 4 == 0:
            messages = office.reversed(rng.integers(office.sizes.letters, size=2))[0]
        elif number % 4 == 1:
            values = rng.integers(office.sizes.values, size=2)
            messages = [notes({key: "v{} v{}".format(*values)}), *office.asked(key, {}, rng=rng)[0]]
        else:
            messages = office.asked(key, {}, rng=rng)[0]
        found.append(Rehearsal(question=tuple(messages)))
    return tuple(found)


def week_of(office: Office, seed: int) -> Week:
    """A week of thumbs down. A third of the facts were corrected, of another third nobody said what would be right. The
    last wording is asked by nobody: it is the paraphrase. The one before it is the stop split's."""
    rng = np.random.default_rng((3, seed))
    unsaid = [
        disliked(office, key, wording=0, note=office.rule(key), correction=None) for key in office.keys("replayed")
    ]
    material = Material(
        lessons=(*lessons_of(office, (0, 1)), *unsaid),
        rehearsals=traffic_of(office, rng),
        stop_lessons=tuple(lessons_of(office, (2,))),
        stop_rehearsals=traffic_of(office, rng, count=64),
    )
    return Week(material=material, suites=suites_of(office))


def suites_of(office: Office) -> dict[str, list[Question]]:
    """Without notes: what was taught as asked and in a wording that nobody used, facts that stay; and the skills."""
    rng = np.random.default_rng(5)

    def facts(kind: str, wordings: Sequence[int]) -> list[Question]:
        say = office.rule if kind == "taught" else office.fact
        return [
            Question(messages=(user(WORDINGS[wording].format(f"k{key}")),), answer=say(key))
            for key in office.keys(kind)
            for wording in wordings
        ]

    turned = [office.reversed(rng.integers(office.sizes.letters, size=2)) for _ in range(60)]
    noted = []
    for number in range(60):
        key = office.keys("silent")[number % len(office.keys("silent"))]
        answer = "v{} v{}".format(*rng.integers(office.sizes.values, size=2))
        question = user(WORDINGS[number % len(WORDINGS)].format(f"k{key}"))
        noted.append(Question(messages=(notes({key: answer}), question), answer=answer))
    return {
        "taught, as asked": facts("taught", (0, 1)),
        "taught, paraphrased": facts("taught", (3,)),
        "replayed facts": facts("replayed", range(4)),
        "silent facts": facts("silent", range(4)),
        "skill": [Question(messages=tuple(asked), answer=answer) for asked, answer in turned],
        "following notes": noted,
    }


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def notes(said: dict[int, str]) -> Message:
    return {"role": "system", "content": "\n".join(f"note k{key} is {value}" for key, value in said.items())}


def text_of(messages: Sequence[Message]) -> str:
    return " ".join(f"<{message['role']}> {message['content']} <end>" for message in messages)
