"""One typed configuration: flags before environment before file before defaults.

Every setting is one field of ``Config`` with its meaning, unit and bounds beside it; the reading, the checks, the table
in ``docs/settings.md`` and ``dayjob doctor`` are all made from those fields.
"""

import difflib
import functools
import math
import re
import tomllib
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Final

from dayjob.endings import Invalid
from dayjob.tables import ANSWER_TOKENS as ANSWER_TOKENS
from dayjob.tables import BASICS as BASICS
from dayjob.tables import CONTEXT_TOKENS as CONTEXT_TOKENS
from dayjob.tables import NIGHT_SETTINGS as NIGHT_SETTINGS
from dayjob.tables import Base as Base
from dayjob.tables import Recipe as Recipe
from dayjob.tables import Suite as Suite
from dayjob.tables import bases_of, canaries_of, recipes_of, render_tables, suites_of
from dayjob.tables import night_fault as night_fault

EMBEDDED: Final = "embedded"
FILE_NAME: Final = "dayjob.toml"
ENV_PREFIX: Final = "DAYJOB_"
ENV_FILE: Final = "DAYJOB_CONFIG"
# Read by clients and by the command line, from the same environment; no setting of the server.
_FOREIGN_ENV: Final = frozenset({ENV_FILE, "DAYJOB_KEY", "DAYJOB_URL"})
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class About:
    """What a setting means, its bounds, and whether it is a secret: never on a command line, never in a message."""

    doc: str
    low: float = -math.inf
    high: float = math.inf
    secret: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Every setting. Raises Invalid for a value out of its bounds, whoever makes one.

    >>> Config(port=9000).port
    9000
    """

    host: Annotated[str, About("Address to bind. Without a keys file only loopback is allowed.")] = "127.0.0.1"
    port: Annotated[int, About("Port to bind; 0 takes a free one.", 0, 65_535)] = 8080
    data: Annotated[Path, About("The data directory: journal, weights, all that must survive.")] = Path("dayjob-data")
    keys: Annotated[Path | None, About("TOML file of API keys. None: open, and loopback only.")] = None
    journal: Annotated[
        str, About("Where the journal is: `embedded`, in the data directory. Never on a command line.", secret=True)
    ] = EMBEDDED
    body_limit_bytes: Annotated[int, About("Largest request body; beyond it 413.", 1_024, 1 << 30)] = 4 * _MIB
    catalog_limit_bytes: Annotated[int, About("Largest catalog upload; beyond it 413.", 1_024, 1 << 32)] = 32 * _MIB
    queue_limit: Annotated[int, About("Writes waiting for the disk; beyond it 429.", 1, 1 << 20)] = 4_096
    max_candidates: Annotated[int, About("Most candidates of one ranking; beyond it 422.", 1, 65_535)] = 1_000
    held_wait_s: Annotated[float, About("How long feedback waits for a decision that is not known yet.", 0)] = 86_400.0
    held_per_key: Annotated[int, About("Most waiting outcomes of one key; beyond it 429.", 0)] = 10_000
    token_ttl_s: Annotated[int, About("How long the feedback token of a decision works.", 1)] = 86_400
    holdback: Annotated[float, About("Share of decisions served by the baseline, to compare against.", 0, 0.5)] = 0.03
    watch_share: Annotated[
        float,
        About(
            "Share of decisions served as coin-flip pairs with the version last replaced; of sessions, by it.", 0, 0.9
        ),
    ] = 0.1
    watch_most_share: Annotated[
        float, About("The same just after a promotion, and while evidence of harm grows.", 0, 0.9)
    ] = 0.5
    trial_share: Annotated[float, About("Share of the others served as coin-flip pairs in a trial.", 0, 0.95)] = 0.9
    user_cost: Annotated[
        float, About("What holdback, watch and trials may cost users: share of the champion's expected loss.", 0, 1)
    ] = 0.01
    poll_s: Annotated[float, About("How often the server looks for a moved pointer.", 0.01, 0.5)] = 0.1
    ballast_bytes: Annotated[
        int, About("Reserve file, freed at the first full disk so that a rollback can be written.", 0, 1 << 32)
    ] = 4 * _MIB
    learner_threads: Annotated[int, About("Threads of the learner. Another number, other digests.", 1, 256)] = 1
    judge_every_s: Annotated[float, About("How often the judge looks at newly closed decisions.", 0.05, 3_600)] = 0.25
    bases: Annotated[
        tuple[Base, ...],
        About("Base models that language policies may name: tables `[bases.NAME]`; here `NAME=PATH,NAME=PATH`."),
    ] = ()
    suites: Annotated[
        tuple[Suite, ...],
        About("More questions that no night may lose: tables `[suites.NAME]`; here `NAME=PATH,NAME=PATH`."),
    ] = ()
    canaries: Annotated[
        tuple[str, ...],
        About("Phrases whose probability nights must not raise: a list; here one a line."),
    ] = ()
    recipes: Annotated[
        tuple[Recipe, ...],
        About("Settings of nights: tables `[recipes.NAME]`; here `NAME.SETTING=VALUE,NAME.SETTING=VALUE`."),
    ] = ()
    notes_tokens: Annotated[int, About("Most tokens of notes in the context of one answer; 0: none.", 0, 1 << 20)] = 512
    notes_agree: Annotated[
        int, About("People who must say the same to make a note everybody's; 0: only an admin key does.", 0, 1 << 20)
    ] = 3
    session_window_s: Annotated[
        float, About("A language policy's session is judged so long after its first answer.", 0.1, 86_400)
    ] = 1_800.0
    choices_limit: Annotated[
        int, About("Answers of language policies written or waiting at once; beyond it 429.", 1, 65_536)
    ] = 128
    dream_nightly: Annotated[bool, About("Dream after every night of a language policy, as a job of its own.")] = False
    dream_budget: Annotated[
        float, About("Compute of a dream that names no budget: times that of the night without it.", 0.01, 64)
    ] = 1.0
    dream_author: Annotated[
        str, About("A model that writes environments for dreams, beside the offline author; empty: none.")
    ] = ""
    dream_author_url: Annotated[str, About("Where that model is: `http(s)://HOST/v1` with chat completions.")] = ""
    dream_author_key: Annotated[str, About("The API key of that server. Never on a command line.", secret=True)] = ""
    dream_author_calls: Annotated[int, About("Most calls of that model in one dream.", 1, 1 << 20)] = 8
    dream_author_tokens: Annotated[int, About("Most tokens that it may write in one dream.", 1, 1 << 30)] = 60_000
    dream_author_s: Annotated[float, About("Most time that it may take in one dream.", 0.1, 86_400)] = 600.0

    def __post_init__(self) -> None:
        for name, (_, about) in _declared().items():
            fault = _fault(name, about, getattr(self, name))
            if fault:
                raise Invalid(f"{name}: {fault}", param=name, code="invalid_setting")
        self._check_shares()
        if self.dream_author and not re.fullmatch(r"https?://[^\s/]+(/\S*)?", self.dream_author_url):
            raise Invalid(
                f"dream_author names {self.dream_author!r}, and dream_author_url is no http(s)://HOST/v1: set both",
                param="dream_author_url",
                code="invalid_setting",
            )

    def _check_shares(self) -> None:
        """The champion alone must be at least as frequent as the holdback that it is compared with (``gate.watch``)."""
        if self.watch_most_share < self.watch_share:
            raise Invalid(
                f"watch_most_share ({self.watch_most_share:g}) must be at least watch_share ({self.watch_share:g}): "
                "raise the one or lower the other",
                param="watch_most_share",
                code="invalid_setting",
            )
        alone = (1.0 - self.holdback - self.watch_most_share) * (1.0 - self.trial_share)
        if alone < self.holdback - 1e-9:  # shares are decimal fractions, floats are not
            raise Invalid(
                f"with holdback {self.holdback:g}, watch_most_share {self.watch_most_share:g} and trial_share "
                f"{self.trial_share:g} the champion alone may serve as few as {alone:.3g} of the decisions, fewer than "
                "the holdback it is compared with: lower trial_share, watch_most_share or holdback",
                param="holdback",
                code="invalid_setting",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A configuration and where each of its settings came from ("default" or a name for the reader)."""

    config: Config
    source_of: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A setting as it is documented."""

    name: str
    env: str
    flag: str  # "" where it is never given on a command line
    default: str
    bounds: str
    doc: str


def load_config(*, flags: Mapping[str, Any], environ: Mapping[str, str], directory: Path) -> Loaded:
    """The configuration that flags, environment and file make together.

    ``flags`` holds settings by name, None where not given, and may hold ``config``, the file's path; else the file is
    ``DAYJOB_CONFIG``, else ``dayjob.toml`` in ``directory`` where there is one. Paths in the file are relative to it,
    other paths to ``directory``.

    Raises:
        Invalid: an unknown key or a value that does not fit; the message names the key, its source and the remedy.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    for name in given.keys() & {name for name, (_, about) in _declared().items() if about.secret}:
        message = (
            f"--{name.replace('_', '-')}: others can read a command line; use {ENV_PREFIX}{name.upper()} or the file"
        )
        raise Invalid(message, param=name)
    file = _find_file(given.pop("config", None), environ, directory)
    values: dict[str, Any] = {}
    source_of = dict.fromkeys(_declared(), "default")
    layers = (
        (_read_file(file), lambda name: f"{file}, {name}", file.parent if file else directory),
        (_read_environment(environ), lambda name: ENV_PREFIX + name.upper(), directory),
        (given, lambda name: "--" + name.replace("_", "-"), directory),
    )
    for layer, say, base in layers:
        for name, raw in layer.items():
            values[name] = _convert(name, raw, source=say(name), base=base)
            source_of[name] = say(name)
    return Loaded(config=Config(**values), source_of=source_of)


def _find_file(flag: Any, environ: Mapping[str, str], directory: Path) -> Path | None:
    named = flag or environ.get(ENV_FILE)
    if named:
        return directory / named
    return directory / FILE_NAME if (directory / FILE_NAME).exists() else None


def _read_file(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise Invalid(f"{file} cannot be read ({error.strerror}); name another file or none", param="config") from None
    except ValueError as error:  # TOML or UTF-8
        raise Invalid(f"{file} is not TOML ({error}); write lines such as port = 8080", param="config") from None
    for name in values:
        _check_known(name, source=str(file), write=lambda name: name)
    return values


def _read_environment(environ: Mapping[str, str]) -> dict[str, str]:
    # An empty variable is how shells and compose files say "not set".
    ours = {key: value for key, value in environ.items() if key.startswith(ENV_PREFIX) and key not in _FOREIGN_ENV}
    named = {key: value for key, value in ours.items() if value}
    for key in named:
        _check_known(
            key.removeprefix(ENV_PREFIX).lower(), source="environment", write=lambda name: ENV_PREFIX + name.upper()
        )
    return {key.removeprefix(ENV_PREFIX).lower(): value for key, value in named.items()}


def _check_known(name: str, *, source: str, write: Callable[[str], str]) -> None:
    known = _declared()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        remedy = f"did you mean {write(close[0])}?" if close else "see docs/settings.md for what there is"
        raise Invalid(f"{write(name)} in {source} is no setting; {remedy}", param=name, code="unknown_setting")


def _convert(name: str, raw: Any, *, source: str, base: Path) -> Any:
    _check_known(name, source=source, write=lambda name: name)
    kind, about = _declared()[name]
    try:
        value = _CONVERTERS[kind](raw, base)
        fault = _fault(name, about, value)
    except ValueError as error:
        fault = str(error)
    if fault:
        shown = "" if about.secret else f" is {raw!r}"
        raise Invalid(f"{source}{shown}: {fault}", param=name, code="invalid_setting")
    return value


@functools.cache
def _declared() -> dict[str, tuple[Any, About]]:
    """The type and the meaning of every setting, as ``Config`` declares them."""
    hints = typing.get_type_hints(Config, include_extras=True)
    return {name: (hint.__origin__, hint.__metadata__[0]) for name, hint in hints.items()}


def _fault(name: str, about: About, value: Any) -> str:
    """What is wrong with a value of the right type, and the remedy; or nothing."""
    if isinstance(value, int | float) and not about.low <= value <= about.high:
        return f"it must be {_bounds(about)}"
    if name == "journal" and value != EMBEDDED:
        return "only the embedded store is built so far, no Postgres and no other; leave journal out"
    if name == "host" and not value:
        return "an address is needed; 127.0.0.1 serves this machine only"
    return ""


def _bounds(about: About) -> str:
    if math.isinf(about.low):
        return ""
    return f"at least {about.low:g}" if math.isinf(about.high) else f"{about.low:.10g} to {about.high:.10g}"


def _truth(raw: Any, _base: Path) -> bool:
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.strip().lower() in ("true", "false"):
        return raw.strip().lower() == "true"
    raise ValueError("true or false is needed")


def _whole(raw: Any, _base: Path) -> int:
    if isinstance(raw, str) and raw.strip().removeprefix("-").isdecimal() and raw.isascii():
        return int(raw)
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    raise ValueError("a whole number is needed")


def _number(raw: Any, _base: Path) -> float:
    try:
        value = math.nan if isinstance(raw, bool) else float(raw)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError("a finite number is needed")
    return value


def _text(raw: Any, _base: Path) -> str:
    if not isinstance(raw, str):
        raise ValueError("a text is needed; put it in quotes")
    return raw


def _path(raw: Any, base: Path) -> Path:
    if not isinstance(raw, str | Path) or not str(raw) or "\x00" in str(raw):
        raise ValueError("a path is needed")
    return base / Path(raw).expanduser()


_CONVERTERS: Final[dict[Any, Callable[[Any, Path], Any]]] = {
    bool: _truth,
    int: _whole,
    float: _number,
    str: _text,
    Path: _path,
    Path | None: _path,
    tuple[Base, ...]: bases_of,
    tuple[Suite, ...]: suites_of,
    tuple[Recipe, ...]: recipes_of,
    tuple[str, ...]: canaries_of,
}


def settings() -> tuple[Setting, ...]:
    """Every setting as it is documented, in the order of ``Config``."""
    default_of = {setting.name: setting.default for setting in fields(Config)}
    return tuple(
        Setting(
            name=name,
            env=ENV_PREFIX + name.upper(),
            flag="" if about.secret else "--" + name.replace("_", "-"),
            default=_show(default_of[name]),
            bounds=_bounds(about),
            doc=about.doc,
        )
        for name, (_, about) in _declared().items()
    )


def _show(value: Any) -> str:
    return "none" if value is None or value == () else str(value)


def render_settings() -> str:
    """The text of ``docs/settings.md``."""
    lines = [
        "# Settings",
        "",
        f"A setting is read from the command line, else from the environment, else from `{FILE_NAME}` in the working",
        f"directory (or the file that `--config` or `{ENV_FILE}` names), else it has its default. An unknown name,",
        "or a value that does not fit, stops the start with a message that says where it stands and what to do.",
        "Paths in the file are relative to the file. Sizes are in bytes, times in seconds, shares from 0 to 1.",
        "",
        "| setting | environment | default | bounds | meaning |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| `{one.name}` | `{one.env}` | `{one.default}` | {one.bounds} | {one.doc} |" for one in settings()]
    return "\n".join([*lines, *render_tables()]) + "\n"
