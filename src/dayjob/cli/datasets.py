"""dayjob import chat|preference|openai-dpo: training files of elsewhere as the journal of a language policy.

A line becomes a decision nobody asked this server for, with the thumbs that say what the file says: an approved answer,
or one up and one down. Their tokens are made with the policy's own tokenizer, and their log-probabilities are not
known: no version of ours wrote them. The whole file is read before anything is written.
"""

import hashlib
import os
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import orjson
import typer
from pydantic import ConfigDict, Field
from rich.console import Console

from dayjob.cli.bases import open_tokens
from dayjob.cli.output import DataOption, JsonOption, TenantOption, print_json
from dayjob.cli.transfer import BATCH, baseline, import_app, progress_bar, watched
from dayjob.config import Base, Config, load_config
from dayjob.endings import Conflict, Ending, Invalid, OutcomeKind, PolicyKind, Receipt, Role
from dayjob.journal.checks import check_policy
from dayjob.journal.control import Control
from dayjob.journal.store import Store
from dayjob.journal.writes import Transaction, append_decision, append_outcome
from dayjob.memory.examples import Format
from dayjob.records import IMPORTED, Choice, Decision, Generation, Json, Outcome, Policy
from dayjob.serve.chat_wire import Message, Objects
from dayjob.serve.wire import Asked, LanguageSpec, parse

if TYPE_CHECKING:
    from dayjob.policies.tokens import Tokens

NAMESPACE = uuid.UUID("6f1d1c1e-0b1d-4e0a-9a55-da7a5e750000")  # ids of imported rows derive from what is in them

FileArgument = Annotated[Path, typer.Argument(help="A JSONL file.")]
PolicyOption = Annotated[str, typer.Option("--policy", help="The language policy that it is for.")]
BaseOption = Annotated[
    str | None, typer.Option("--base", help="Where there is no such policy yet: the base to declare it with.")
]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="The dayjob.toml that names the base.")]


class _Line(Asked):
    """Columns that are not ours are left out: files of elsewhere carry scores, sources and the like."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class ChatLine(_Line):
    """``{"messages"}``: the last is the answer."""

    messages: Annotated[list[Message], Field(min_length=2)]
    tools: Objects | None = None


class PreferenceLine(_Line):
    """``{"prompt", "chosen", "rejected"}``, each a list of messages."""

    prompt: Annotated[list[Message], Field(min_length=1)]
    chosen: list[Message]
    rejected: list[Message]
    tools: Objects | None = None


class OpenAIInput(_Line):
    """What was asked."""

    messages: Annotated[list[Message], Field(min_length=1)]
    tools: Objects | None = None


class OpenAILine(_Line):
    """``{"input": {"messages"}, "preferred_output", "non_preferred_output"}``."""

    input: OpenAIInput
    preferred_output: list[Message]
    non_preferred_output: list[Message]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """What a line says: a conversation, and its answers with a thumb each (+1 or -1)."""

    prompt: tuple[Json, ...]
    tools: tuple[Json, ...]
    answers: tuple[tuple[str, int], ...]


def read_line(line: bytes, format: Format) -> Example:
    """One line. Raises Invalid with what does not fit."""
    if format is Format.CHAT:
        chat = parse(ChatLine, line)
        return _example(chat.messages[:-1], chat.tools, {"messages": (chat.messages[-1:], 1)})
    if format is Format.PREFERENCE:
        pair = parse(PreferenceLine, line)
        return _example(pair.prompt, pair.tools, {"chosen": (pair.chosen, 1), "rejected": (pair.rejected, -1)})
    told = parse(OpenAILine, line)
    sides = {"preferred_output": (told.preferred_output, 1), "non_preferred_output": (told.non_preferred_output, -1)}
    return _example(told.input.messages, told.input.tools, sides)


def _example(prompt: list[Message], tools: list[Json] | None, sides: dict[str, tuple[list[Message], int]]) -> Example:
    answers = []
    for name, (turn, sign) in sides.items():
        if len(turn) != 1 or turn[0].role != "assistant" or turn[0].tool_calls:
            raise Invalid(f"{name} must end with one message of the assistant in words, and no tool call", param=name)
        text = turn[0].content or ""
        if not text.strip() and sign > 0:
            raise Invalid(f"{name} holds an answer without words: leave the line out", param=name)
        answers.append((text, sign))
    if len(answers) == 2 and answers[0][0] == answers[1][0]:
        raise Invalid("both answers are the same: leave the line out")
    return Example(prompt=tuple(one.plain() for one in prompt), tools=tuple(tools or ()), answers=tuple(answers))


@dataclass(slots=True, kw_only=True)
class Records:
    """The decisions and outcomes that a file's lines become."""

    tenant: str
    policy: str
    format: Format
    base: Base
    tokens: "Tokens"
    at_ms: int
    seen: Counter[bytes] = field(default_factory=Counter)  # equal lines, each a record of its own

    def read(self, lines: Iterable[bytes]) -> Iterator[tuple[Decision, list[Outcome]]]:
        """The records, line by line; empty lines are skipped. Raises Invalid with the line's number."""
        for number, line in enumerate(lines, start=1):
            if line.isspace():
                continue
            try:
                yield self._record(read_line(line, self.format))
            except Invalid as error:
                raise Invalid(f"line {number}: {error}; nothing was written", param=error.param) from None

    def _record(self, example: Example) -> tuple[Decision, list[Outcome]]:
        told = orjson.dumps((self.policy, example.prompt, example.tools, example.answers), option=orjson.OPT_SORT_KEYS)
        digest = hashlib.blake2b(told, digest_size=16).digest()
        self.seen[digest] += 1
        name = f"{digest.hex()}/{self.seen[digest]}"
        prompt, answers = self._tokens(example)
        decision = _decision(self, str(uuid.uuid5(NAMESPACE, name)), digest)
        choices = tuple(_choice(text, ids) for (text, _), ids in zip(example.answers, answers, strict=True))
        generation = Generation(
            base=self.base.name, messages=example.prompt, tools=example.tools, prompt_ids=_packed(prompt), bare_ids=b"",
            notes=(), choices=choices,
            sampling={"temperature": 1.0, "top_p": 1.0, "max_tokens": max(map(len, answers)), "stop": [], "seed": None,
                      "top_logprobs": None},
        )  # fmt: skip
        ranking = np.arange(len(choices), dtype="<u2").tobytes()
        outcomes = [
            _thumb(decision, str(uuid.uuid5(NAMESPACE, f"{name}/{item}")), str(item), sign)
            for item, (_, sign) in enumerate(example.answers)
        ]
        return replace(decision, generation=generation, ranking=ranking), outcomes

    def _tokens(self, example: Example) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
        """The prompt and the answers as the base's model reads and writes them."""
        from dayjob.learn.language.exercises import turn

        prompt = self.tokens.render(example.prompt, tools=example.tools)
        answers = [turn(self.tokens, example.prompt, answer=text) for text, _ in example.answers]
        size = len(prompt) + max(map(len, answers))
        if size > self.base.context_tokens:
            most = f"base {self.base.name!r} reads {self.base.context_tokens}"
            raise Invalid(f"it has {size} tokens, and {most}: leave the line out, or raise context_tokens")
        return prompt, answers


def _packed(ids: tuple[int, ...]) -> bytes:
    return np.array(ids, "<u4").tobytes()


def _choice(text: str, ids: tuple[int, ...]) -> Choice:
    return Choice(
        token_ids=_packed(ids), model_logprobs=np.full(len(ids), np.nan, "<f4").tobytes(), sample_logprobs=b"",
        versions=((IMPORTED, len(ids)),), seed=0, ending=Ending.STOP, text=text,
    )  # fmt: skip


def _decision(whose: Records, id: str, digest: bytes) -> Decision:
    return Decision(
        tenant=whose.tenant, policy=whose.policy, id=id, body_digest=digest, user=None, session=None,
        at_ms=whose.at_ms, version="v0-baseline", challenger=None, role=Role.CHAMPION, role_propensity=1.0,
        explore=True, seed=0, epsilon=0.0, temperature=1.0, intervened=False, coin=0, context=b"", candidates=(),
        pair=b"", base=b"", score=b"", rival_score=b"", ranking=b"", propensity=b"", log_propensity=0.0,
    )  # fmt: skip


def _thumb(decision: Decision, id: str, item: str, sign: int) -> Outcome:
    return Outcome(
        tenant=decision.tenant, id=id, body_digest=decision.body_digest, policy="", decision=decision.id, session=None,
        kind=OutcomeKind.THUMB, item=item, position=None, value=float(sign), text=None, source="import", user=None,
        at_ms=decision.at_ms, received_ms=decision.at_ms, key_id="import",
    )  # fmt: skip


def take_in(tx: Transaction, records: Iterable[tuple[Decision, list[Outcome]]]) -> Counter[Receipt]:
    """Write some records; what became of their decisions."""
    out: Counter[Receipt] = Counter()
    for decision, outcomes in records:
        receipt = append_decision(tx, decision, ()).receipt
        out[receipt] += 1
        if receipt is Receipt.RECORDED:
            for outcome in outcomes:
                append_outcome(tx, outcome)
    return out


def import_file(file: Path, format: Format, *, settings: Config, tenant: str, policy: str, base: str | None) -> Json:
    """Take a file in. Raises Invalid or Conflict, and then nothing was written."""
    root, now_ms = settings.data, int(time.time() * 1000)
    declared = _policy(root, tenant, policy=policy, base=base, now_ms=now_ms)
    found = _base(settings, declared)
    records = partial(
        Records, tenant=tenant, policy=policy, format=format, base=found, tokens=open_tokens(found), at_ms=now_ms
    )
    if not sum(1 for _ in _shown(file, "checking", records())):
        raise Invalid(f"{file} has no line, and nothing was written: name a file with a JSON object a line")
    control = Control(root)
    taken: Counter[Receipt] = Counter()
    store = Store(
        root, secret=control.secret("journal"), find_spec=lambda *_: (PolicyKind.LANGUAGE, declared.spec)
    )  # fmt: skip
    try:
        control.create_policy(declared, baseline(tenant, policy))
        read = _shown(file, "importing", records())
        while batch := list(islice(read, BATCH)):
            taken += store.submit(partial(take_in, records=batch)).result()
    finally:
        store.close()
    counts = {"added": Receipt.RECORDED, "known": Receipt.REPEATED, "erased": Receipt.ERASED}
    return {"policy": policy, "data": str(root)} | {name: taken[receipt] for name, receipt in counts.items()}


def _shown(file: Path, what: str, records: Records) -> Iterator[tuple[Decision, list[Outcome]]]:
    """The records of a file, while a bar follows."""
    with file.open("rb") as lines, progress_bar() as progress:
        task = progress.add_task(what, total=file.stat().st_size)
        yield from records.read(watched(lines, progress, task))


def _policy(root: Path, tenant: str, *, policy: str, base: str | None, now_ms: int) -> Policy:
    """The policy as it is declared, or as it will be. Raises Invalid and Conflict."""
    known = Control(root).policies(tenant) if (root / "control.db").exists() else []
    declared = next((one for one in known if one.name == policy), None)
    if declared is None:
        if base is None:
            raise Invalid(f"there is no policy {policy!r} in {root}: name the base to declare it with, --base NAME")
        spec = LanguageSpec(kind="language", base=base).model_dump(mode="json")
        declared = Policy(tenant=tenant, name=policy, kind=PolicyKind.LANGUAGE, spec=spec, created_ms=now_ms)
        try:
            check_policy(policy, declared.kind, spec=spec)
        except ValueError as error:
            raise Invalid(f"{error}: use letters a to z, A to Z, digits, and . - _ after the first") from None
    if declared.kind is not PolicyKind.LANGUAGE:
        raise Invalid(f"policy {policy!r} is a ranker, and these files are made of words: name a language policy")
    if base not in (None, declared.spec["base"]):
        raise Conflict(
            f"policy {policy!r} stands on the base {declared.spec['base']!r}, not {base!r}: leave out --base"
        )
    return declared


def _base(settings: Config, policy: Policy) -> Base:
    named = str(policy.spec["base"])
    found = next((one for one in settings.bases if one.name == named), None)
    if found is None:
        raise Invalid(
            f"policy {policy.name!r} stands on the base {named!r}, whose tokenizer makes words into tokens: name it in "
            f'dayjob.toml ([bases.{named}] with path = "FOLDER"; --config names the file), or in DAYJOB_BASES'
        )
    return found


def _command(format: Format) -> Callable[..., None]:
    """The command for one kind of file."""

    def command(
        file: FileArgument,
        policy: PolicyOption,
        data: DataOption = None,
        base: BaseOption = None,
        tenant: TenantOption = "default",
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        settings = load_config(flags={"data": data, "config": config}, environ=os.environ, directory=Path.cwd()).config
        taken = import_file(file, format, settings=settings, tenant=tenant, policy=policy, base=base)
        if as_json:
            print_json(taken)
            return
        text = f"{policy}: {taken['added']:,} answers added"
        text += f", {taken['known']:,} were there already" if taken["known"] else ""
        text += f", {taken['erased']:,} left out: they were erased here" if taken["erased"] else ""
        Console(soft_wrap=True).print(text, highlight=False, markup=False)

    return command


HELP = {
    Format.CHAT: "Take in conversations with their right answers: {messages} a line, as TRL and OpenAI read them.",
    Format.PREFERENCE: "Take in pairs of answers: {prompt, chosen, rejected} a line, TRL's conversational format.",
    Format.OPENAI_DPO: "Take in pairs of answers in OpenAI's format for direct preference optimization.",
}

for _format, _text in HELP.items():
    import_app.command(_format.value, help=_text)(_command(_format))
