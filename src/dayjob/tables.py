"""What the configuration holds in tables and lists: base models, suites, phrases, settings of nights."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, get_origin

from dayjob.endings import Invalid

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MOST_CANARY_CHARS = 500
BASICS = "basics"  # the suite that ships with dayjob
# Of language policies, by name: what else they are needs torch.
NIGHT_RECIPES = ("consolidate", "sft-answers", "accept-reject", "preferences", "published-sft", "published-grpo")
ANSWER_TOKENS, CONTEXT_TOKENS = 64, 2_048  # of each of them, as it ships
# Settings of a night that the file may name: their kind and their meaning.
_MOST = 1 << 24
NIGHT_SETTINGS: Final[Mapping[str, tuple[type, str]]] = {
    "answer_tokens": (int, "the most tokens that a night writes as an answer; a right answer has to be shorter"),
    "context_tokens": (int, "the most tokens of a prompt and its answer; longer lessons are left out, and said"),
    "learning_rates": (list, "a list: each is tried, and held-out askings choose; each takes as long as a night"),
    "steps": (int, "updates, at most; held-out askings may end a night earlier"),
    "kl_budget": (float, "nats a token on what is to stay: over it all else learns less, and the gate refuses"),
    "accept_threshold": (float, "of `accept-reject`: a suggestion pays where acceptance is more probable than this"),
}


ENGINES: Final = ("transformers", "vllm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A base model, ``[bases.NAME]`` in the file. Raises Invalid for a value that does not fit.

    >>> Base(name="clerk", path="/models/clerk").dtype
    'float32'
    """

    name: str  # what policies call it: letters, digits, dot, dash and underscore, 64 at most
    path: str  # an absolute folder in Hugging Face's format, or the id OWNER/NAME of a model on the hub
    dtype: str = "float32"  # of its weights: float32, bfloat16 or float16; logits are float32 whatever it is
    device: str = "cpu"  # cpu, cuda, or one GPU as cuda:N
    context_tokens: int = 4_096  # the longest prompt and answer together
    slots: int = 16  # answers written at once
    template: dict[str, Any] = field(default_factory=dict)  # what its chat template is told beside the messages
    engine: str = "transformers"  # who writes: this process, or "vllm", a server of its own
    url: str = ""  # where that server is, http(s)://HOST/v1
    key_env: str = ""  # the environment variable that holds its API key

    def __post_init__(self) -> None:
        faults = {
            "name": not _NAME.fullmatch(self.name) and "letters, digits, . _ and -",
            "path": not self.path and "a folder, or OWNER/NAME of a model on the hub",
            "dtype": self.dtype not in ("float32", "bfloat16", "float16") and "float32, bfloat16 or float16",
            "device": not re.fullmatch(r"cpu|cuda(:[0-9]{1,2})?", self.device) and "cpu, cuda or cuda:N",
            "context_tokens": not 16 <= self.context_tokens <= 1 << 24 and "16 to 16777216",
            "slots": not 1 <= self.slots <= 4_096 and "1 to 4096",
            "template": not _are_arguments(self.template) and "a table of texts, numbers, true and false by name",
            "engine": self.engine not in ENGINES and "transformers or vllm",
            "url": (self.engine == "vllm" or bool(self.url))
            and not (self.engine == "vllm" and re.fullmatch(r"https?://[^\s/]+(/\S*)?/v1", self.url))
            and 'http(s)://HOST/v1 of the vLLM server with engine = "vllm", else left out',
            "key_env": bool(self.key_env)
            and not (self.engine == "vllm" and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.key_env))
            and 'the name of an environment variable, with engine = "vllm"',
        }
        for name, want in faults.items():
            if want:
                raise Invalid(f"bases.{self.name}: {name} must be {want}", param="bases", code="invalid_setting")


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Questions with their right answers that no night may lose, ``[suites.NAME]`` in the file. Raises Invalid.

    One is there without being named, `BASICS`: an empty path leaves it out.

    >>> Suite(name="greetings", path="/suites/greetings.jsonl").name
    'greetings'
    """

    name: str  # letters, digits, dot, dash and underscore, 64 at most
    path: str  # absolute, of a file of JSON lines {"messages": [..], "answer": ".."}

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or not (self.path or self.name == BASICS):
            want = "a name of letters, digits, . _ and -, and path = a file of JSON lines"
            raise Invalid(f"suites.{self.name}: {want} are needed", param="suites", code="invalid_setting")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a night's recipe has otherwise than it ships, ``[recipes.NAME]`` in the file. Raises Invalid.

    >>> Recipe(name="consolidate", settings=(("steps", 200),)).settings
    (('steps', 200),)
    """

    name: str  # one of `NIGHT_RECIPES`
    settings: tuple[tuple[str, Any], ...]  # names of `NIGHT_SETTINGS` and their values

    def __post_init__(self) -> None:
        if self.name not in NIGHT_RECIPES:
            known = ", ".join(NIGHT_RECIPES)
            raise _unfit(f"recipes.{self.name}: there is no such recipe of nights; there are {known}", "recipes")
        for name, value in self.settings:
            if name not in NIGHT_SETTINGS:
                known = ", ".join(NIGHT_SETTINGS)
                raise _unfit(f"recipes.{self.name}.{name} is no setting of a night; there are {known}", "recipes")
            fault = night_fault(name, value)
            if fault:
                raise _unfit(f"recipes.{self.name}.{name} is {value!r}: {fault}", "recipes")
        told = {"answer_tokens": ANSWER_TOKENS, "context_tokens": CONTEXT_TOKENS} | dict(self.settings)
        if told["answer_tokens"] >= told["context_tokens"]:
            both = f"{told['answer_tokens']}, context_tokens {told['context_tokens']}"
            raise _unfit(f"recipes.{self.name}.answer_tokens is {both}: lower the one or raise the other", "recipes")


def night_fault(name: str, value: Any) -> str:
    """What a setting of a night must be, where ``value`` is not; else nothing."""
    if name == "learning_rates":
        fits = isinstance(value, tuple) and value and all(_is_number(one) and one > 0 for one in value)
        return "" if fits else "give at least one number above 0"
    if NIGHT_SETTINGS[name][0] is int:
        return "" if type(value) is int and 1 <= value <= _MOST else f"a whole number of at least 1, at most {_MOST}"
    if not _is_number(value) or value <= 0:
        return "a number above 0"
    return "less than 1" if name == "accept_threshold" and value >= 1 else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _unfit(message: str, param: str) -> Invalid:
    return Invalid(message, param=param, code="invalid_setting")


def _are_arguments(template: dict[str, Any]) -> bool:
    """Whether these can be told to a chat template: scalars by names."""
    return all(
        re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) and isinstance(value, str | bool | int | float)
        for name, value in template.items()
    )


def bases_of(raw: Any, directory: Path) -> tuple[Base, ...]:
    """Base models from their tables, or from the environment's ``NAME=PATH,NAME=PATH``. Raises ValueError."""
    return tuple(Base(**_with_path(Base, "bases", name, table, directory)) for name, table in _tables("bases", raw))


def suites_of(raw: Any, directory: Path) -> tuple[Suite, ...]:
    """The same of suites."""
    return tuple(Suite(**_with_path(Suite, "suites", name, one, directory)) for name, one in _tables("suites", raw))


def recipes_of(raw: Any, _directory: Path) -> tuple[Recipe, ...]:
    """Changes to recipes from their tables, or from the environment's ``NAME.SETTING=VALUE,NAME.SETTING=VALUE``, with
    blanks between several values. Raises ValueError."""
    if isinstance(raw, str):
        raw = _written_out(raw)
    if not isinstance(raw, dict) or not all(isinstance(table, dict) for table in raw.values()):
        message = "tables are needed, [recipes.NAME] with lines such as answer_tokens = 128; in the environment"
        raise ValueError(f"{message} NAME.SETTING=VALUE,NAME.SETTING=VALUE")
    return tuple(
        Recipe(name=name, settings=tuple(
            (key, tuple(value) if isinstance(value, list) else value) for key, value in sorted(table.items())
        ))
        for name, table in raw.items()
    )  # fmt: skip


def _written_out(raw: str) -> dict[str, dict[str, Any]]:
    tables: dict[str, dict[str, Any]] = {}
    for part in filter(str.strip, raw.split(",")):
        key, _, value = part.partition("=")
        name, _, setting = key.strip().rpartition(".")
        kind = NIGHT_SETTINGS.get(setting, (str, ""))[0]
        words: list[Any] = [_read(one) for one in value.split()]
        tables.setdefault(name, {})[setting] = words if kind is list else words[0] if len(words) == 1 else value
    return tables


def _read(word: str) -> int | float | str:
    """A number where it is one."""
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word


def canaries_of(raw: Any, _directory: Path) -> tuple[str, ...]:
    """Phrases from a list, or from the environment's lines. Raises ValueError."""
    phrases = raw.splitlines() if isinstance(raw, str) else raw
    if not isinstance(phrases, list) or not all(isinstance(one, str) for one in phrases):
        raise ValueError('a list of texts is needed, ["..."]; in the environment one a line')
    kept = tuple(one.strip() for one in phrases if one.strip())
    if any(len(one) > MOST_CANARY_CHARS for one in kept):
        raise ValueError(f"a phrase has at most {MOST_CANARY_CHARS} characters")
    return kept


def _tables(what: str, raw: Any) -> list[tuple[str, dict[str, Any]]]:
    if isinstance(raw, str):
        pairs = [part.partition("=") for part in raw.split(",") if part.strip()]
        raw = {name.strip(): {"path": path.strip()} for name, _, path in pairs}
    if not isinstance(raw, dict) or not all(isinstance(table, dict) for table in raw.values()):
        thing = "FOLDER" if what == "bases" else "FILE"
        message = f'tables are needed, [{what}.NAME] with path = "{thing}"; in the environment NAME=PATH,NAME=PATH'
        raise ValueError(message)
    return list(raw.items())


def _with_path(
    record: type[Base] | type[Suite], what: str, name: str, table: dict[str, Any], directory: Path
) -> dict[str, Any]:
    """The fields of a record, its path absolute; the id of a model on the hub, or an address, stays what it is."""
    kinds: dict[str, Any] = {one.name: get_origin(one.type) or one.type for one in fields(record) if one.name != "name"}
    for key, value in table.items():
        if key not in kinds or type(value) is not kinds[key]:
            known = ", ".join(f"{one} ({'table' if kind is dict else kind.__name__})" for one, kind in kinds.items())
            raise ValueError(f"{what}.{name}.{key} does not fit; a {what[:-1]} takes {known}")
    path = table.get("path", "")
    place = directory / Path(path).expanduser()
    is_hub_id = record is Base and re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", path) and not place.exists()
    return {"name": name} | table | {"path": path if is_hub_id or "://" in path or not path else str(place)}


def render_tables() -> list[str]:
    """The lines of ``docs/settings.md`` on tables."""
    return [
        "",
        "## Base models",
        "A language policy names one of these. Each is a table `[bases.NAME]` of the file; a relative `path` is",
        "relative to the file, and `OWNER/NAME` that is no folder is a model on the Hugging Face hub. See",
        "[language](language.md).",
        "",
        "| field | default | meaning |",
        "|---|---|---|",
        "| `path` | required | a folder in Hugging Face's format, or the id of a model on the hub |",
        "| `dtype` | `float32` | of the weights: `float32`, `bfloat16` or `float16`; logits are float32 |",
        "| `device` | `cpu` | `cpu`, `cuda`, or one GPU as `cuda:N` |",
        "| `context_tokens` | `4096` | the longest prompt and answer together; no more than the model reads |",
        "| `slots` | `16` | answers written at once; with `vllm` that server's own limits hold |",
        "| `template` | `{}` | what the chat template is told beside the messages, `{enable_thinking = true}`; a "
        "template that speaks of `enable_thinking` is told `false` unless this says otherwise |",
        "| `engine` | `transformers` | who writes answers: `transformers`, here, or [`vllm`](engine.md#vllm) |",
        "| `url` | none | of the vLLM server: `http(s)://HOST/v1` |",
        "| `key_env` | none | the environment variable that holds that server's API key |",
        "",
        'With `engine = "vllm"` the model of `path` gives the tokenizer and is what nights learn from; `dtype` is not',
        "used, and `device` is where nights learn. Another `template` makes other weights of the same journal.",
        "",
        "## Suites",
        "What no [night](nights.md) may lose. Each is a table `[suites.NAME]` with a `path`, relative to the file, of",
        'JSON lines `{"messages": [{"role": "user", "content": "..."}], "answer": "..."}`. An answer is right when it',
        "is these very words, whatever the spaces between them.",
        "",
        "The suite `basics` ships with dayjob: 40 questions of arithmetic, everyday facts and copying that a model is",
        "to keep right where it has them right; what it never knew costs nothing. Name a `path` in `[suites.basics]`",
        'to ask other questions in their place, or `path = ""` for none.',
        "",
        "## Recipes of nights",
        "A language policy names a [recipe](nights.md#recipes). Its settings are changed in a table `[recipes.NAME]`",
        "of the file, in the environment by `NAME.SETTING=VALUE,NAME.SETTING=VALUE`, blanks between learning rates.",
        "They are a part of what a version is: with others the next night makes a new one, of the same journal too.",
        "",
        "| field | meaning |",
        "|---|---|",
        *(f"| `{name}` | {doc} |" for name, (_, doc) in NIGHT_SETTINGS.items()),
    ]
