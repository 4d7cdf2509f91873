"""What the configuration holds in tables and lists: base models, suites, phrases."""

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dayjob.endings import Invalid

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MOST_CANARY_CHARS = 500
BASICS = "basics"  # the suite that ships with dayjob


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

    def __post_init__(self) -> None:
        faults = {
            "name": not _NAME.fullmatch(self.name) and "letters, digits, . _ and -",
            "path": not self.path and "a folder, or OWNER/NAME of a model on the hub",
            "dtype": self.dtype not in ("float32", "bfloat16", "float16") and "float32, bfloat16 or float16",
            "device": not re.fullmatch(r"cpu|cuda(:[0-9]{1,2})?", self.device) and "cpu, cuda or cuda:N",
            "context_tokens": not 16 <= self.context_tokens <= 1 << 24 and "16 to 16777216",
            "slots": not 1 <= self.slots <= 4_096 and "1 to 4096",
        }
        for field, want in faults.items():
            if want:
                raise Invalid(f"bases.{self.name}: {field} must be {want}", param="bases", code="invalid_setting")


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


def bases_of(raw: Any, directory: Path) -> tuple[Base, ...]:
    """Base models from their tables, or from the environment's ``NAME=PATH,NAME=PATH``. Raises ValueError."""
    return tuple(Base(**_with_path(Base, "bases", name, table, directory)) for name, table in _tables("bases", raw))


def suites_of(raw: Any, directory: Path) -> tuple[Suite, ...]:
    """The same of suites."""
    return tuple(Suite(**_with_path(Suite, "suites", name, one, directory)) for name, one in _tables("suites", raw))


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
    """The fields of a record, its path absolute; the id of a model on the hub stays what it is."""
    kinds: dict[str, Any] = {field.name: field.type for field in fields(record) if field.name != "name"}
    for key, value in table.items():
        if key not in kinds or type(value) is not kinds[key]:
            known = ", ".join(f"{one} ({getattr(kind, '__name__', kind)})" for one, kind in kinds.items())
            raise ValueError(f"{what}.{name}.{key} does not fit; a {what[:-1]} takes {known}")
    path = table.get("path", "")
    place = directory / Path(path).expanduser()
    is_hub_id = record is Base and re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", path) and not place.exists()
    return {"name": name} | table | {"path": path if is_hub_id or not path else str(place)}


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
        "| `slots` | `16` | answers written at once |",
        "",
        "## Suites",
        "What no [night](nights.md) may lose. Each is a table `[suites.NAME]` with a `path`, relative to the file, of",
        'JSON lines `{"messages": [{"role": "user", "content": "..."}], "answer": "..."}`. An answer is right when it',
        "is these very words, whatever the spaces between them.",
        "",
        "The suite `basics` ships with dayjob: 40 questions of arithmetic, everyday facts and copying that a model is",
        "to keep right where it has them right; what it never knew costs nothing. Name a `path` in `[suites.basics]`",
        'to ask other questions in their place, or `path = ""` for none.',
    ]
