"""dayjob export and dayjob import: the journal as NDJSON and back, and the Open Bandit sample as a journal."""

import csv
import gzip
import sys
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress, TaskID

from dayjob.cli.output import (
    DataOption,
    JsonOption,
    PolicyArgument,
    TenantOption,
    data_of,
    existing,
    find_policy,
    print_json,
)
from dayjob.endings import Conflict, Invalid, OutcomeKind, PolicyKind, Role, VersionStatus
from dayjob.journal import archive, parquet, vectors
from dayjob.journal.control import Control
from dayjob.journal.exports import decision_lines
from dayjob.journal.readers import Reader
from dayjob.journal.store import Store
from dayjob.memory.examples import Format as Examples
from dayjob.memory.exports import example_lines
from dayjob.records import Candidate, CatalogItem, Decision, Json, Outcome, Policy, Version

import_app = typer.Typer(help="Take an archive, or logs of elsewhere, into a journal.", no_args_is_help=True)
NAMESPACE = uuid.UUID("6f1d1c1e-0b1d-4e0a-9a55-0bd000000000")  # ids of imported rows derive from file and line
USER_FEATURES = tuple(f"user_feature_{n}" for n in range(4))
BATCH = 500  # records of an archive in one transaction
TOLD_EVERY = 1000  # lines between two steps of a progress bar


class Format(StrEnum):
    """What an export is for."""

    DECISIONS = "decisions"  # to be read: a line a decision with its outcomes
    PARQUET = "parquet"  # the same, in typed columns
    JOURNAL = "journal"  # to be imported: everything, vectors and catalog included
    CHAT = Examples.CHAT.value
    PREFERENCE = Examples.PREFERENCE.value
    OPENAI_DPO = Examples.OPENAI_DPO.value


def export(
    policy: PolicyArgument,
    data: DataOption = None,
    tenant: TenantOption = "default",
    out: Annotated[Path | None, typer.Option(help="A file; standard output otherwise.")] = None,
    format: Annotated[
        Format,
        typer.Option(
            help="decisions: to be read; parquet: the same, in columns; journal: everything, for `dayjob import "
            "journal`; of a language policy also training examples: chat, preference (TRL), openai-dpo."
        ),
    ] = Format.DECISIONS,
    as_json: Annotated[bool, typer.Option("--json", help="With --out: print what was written as JSON.")] = False,
) -> None:
    """Write a policy's record as NDJSON or Parquet, oldest first. Works while a server runs."""
    root = existing(data_of(data))
    if as_json and out is None:
        raise Invalid(
            "the export itself goes to standard output and is JSON already: name a file with --out for --json"
        )
    control = Control(root)
    found = find_policy(control, tenant, policy)
    blocks, total = _blocks(root, control, found, format=format)
    unfinished = None if out is None else out.with_name(out.name + ".partial")
    stream = sys.stdout.buffer if unfinished is None else unfinished.open("wb")
    written = lines = 0
    with progress_bar(shown=out is not None) as progress:
        task = progress.add_task(f"exporting {policy}", total=total)
        for block in blocks:
            stream.write(block)
            written += len(block)
            if format is not Format.PARQUET and not block.startswith(b'{"vector"'):
                lines += block.count(b"\n")
                progress.update(task, completed=lines)
    stream.flush()
    if unfinished is None or out is None:
        return
    stream.close()
    unfinished.replace(out)  # a file of that name is whole
    records = lines if total is None else total
    if as_json:
        print_json({"policy": policy, "format": format.value, "file": str(out), "bytes": written, "records": records})
    else:
        Console(soft_wrap=True, stderr=True).print(f"{out}: {records:,} records, {written:,} bytes", highlight=False)


def _blocks(root: Path, control: Control, policy: Policy, *, format: Format) -> tuple[Iterator[bytes], int | None]:
    """What to write, a line or more at a time, and how many records it holds where that is known before.

    Raises Invalid for words of a ranker.
    """
    reader, tenant = Reader(root), policy.tenant
    counts = reader.counts(tenant, policy.name)
    if format is Format.DECISIONS:
        return decision_lines(reader, tenant, policy.name), counts.get("decisions", 0)
    if format is Format.PARQUET:
        return parquet.decision_blocks(reader, tenant, policy.name, kind=policy.kind), counts.get("decisions", 0)
    if format is Format.JOURNAL:
        silent = [user for owner, user in control.silent_people() if owner == tenant]
        return archive.write(root, policy, silent=silent), sum(counts.values())
    if policy.kind is not PolicyKind.LANGUAGE:
        remedy = "export it as --format decisions"
        raise Invalid(f"{format.value!r} is made of words, and policy {policy.name!r} is a ranker: {remedy}")
    examples = Examples(format.value)
    return example_lines(reader, control, tenant, policy.name, format=examples, silent=control.silent_people), None


def progress_bar(*, shown: bool = True) -> Progress:
    """A bar on standard error, where somebody watches."""
    return Progress(console=Console(stderr=True), disable=not shown, transient=True)


@import_app.command("journal")
def import_journal(
    file: Annotated[Path, typer.Argument(help="What `dayjob export POLICY --format journal` wrote.")],
    data: DataOption = None,
    tenant: TenantOption = "default",
    as_json: JsonOption = False,
) -> None:
    """Take a policy's record in. A file that is not whole changes nothing; what is there already stays as it is."""
    whole = archive.Archive(tenant)
    with file.open("rb") as lines, progress_bar() as progress:
        task = progress.add_task("checking", total=file.stat().st_size)
        for _ in whole.entries(watched(lines, progress, task)):
            pass
    assert whole.policy is not None, "a whole archive has one"
    root = data_of(data)
    control = Control(root)
    declared = next((one for one in control.policies(tenant) if one.name == whole.policy.name), None)
    if declared is not None:
        _check_same(declared, whole.policy)
    kind, spec = whole.policy.kind, (declared or whole.policy).spec
    store = Store(root, secret=control.secret("journal"), find_spec=lambda *_: (kind, spec))
    taken = archive.Taken()
    try:
        control.create_policy(whole.policy, baseline(whole.policy.tenant, whole.policy.name))
        for user in whole.silent:
            control.set_learns(tenant, user, False)
        keep_seq = Reader(root).last_seq() == 0
        if whole.items:
            store.put_catalog(tenant, whole.policy.name, items=whole.items).result()
        with file.open("rb") as lines, progress_bar() as progress:
            task = progress.add_task("importing", total=file.stat().st_size)
            entries = archive.Archive(tenant).entries(watched(lines, progress, task))
            while batch := list(islice(entries, BATCH)):
                done = store.submit(partial(archive.take_in, entries=batch, keep_seq=keep_seq)).result()
                taken = archive.Taken(
                    added=taken.added + done.added, known=taken.known + done.known, erased=taken.erased + done.erased
                )
    finally:
        store.close()
    if as_json:
        print_json({"policy": whole.policy.name, "data": str(root), **asdict(taken), "catalog": len(whole.items)})
        return
    text = f"{whole.policy.name}: {taken.added:,} records added"
    text += f", {taken.known:,} were there already" if taken.known else ""
    text += f", {taken.erased:,} left out: they belong to people who were erased here" if taken.erased else ""
    Console(soft_wrap=True).print(text, highlight=False, markup=False)


def watched(lines: Iterable[bytes], progress: Progress, task: TaskID) -> Iterator[bytes]:
    """The same lines; the bar follows."""
    size = 0
    for number, line in enumerate(lines):
        size += len(line)
        if number % TOLD_EVERY == 0:
            progress.update(task, completed=size)
        yield line


def _check_same(declared: Policy, archived: Policy) -> None:
    """Raises Conflict when the policy of that name is another thing."""
    for name in ("context_dim", "candidate_dim", "pair_dim"):
        here, there = declared.spec.get(name), archived.spec.get(name)
        if declared.kind is not archived.kind or here != there:
            raise Conflict(
                f"policy {declared.name!r} here has {name} {here}, in the archive {there}: import into another --data"
            )


def baseline(tenant: str, policy: str) -> Version:
    """Version zero of a policy that an import declares."""
    return Version(
        tenant=tenant, policy=policy, name="v0-baseline", number=0, parent=None, recipe="baseline", digest="0" * 64,
        from_seq=0, to_seq=0, status=VersionStatus.BASELINE, created_ms=0,
    )  # fmt: skip


@import_app.command("obd")
def import_obd(
    folder: Annotated[Path, typer.Argument(help="The folder with random_men.csv.gz, bts_men.csv.gz and so on.")],
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Load the Open Bandit sample: real clicks with true propensities, one policy for each file."""
    root = data_of(data)
    files = sorted(folder.glob("*_*.csv.gz"))
    if not files:
        raise Invalid(f"{folder} holds no file such as random_men.csv.gz: name the Open Bandit sample's folder")
    control = Control(root)
    specs: dict[str, Json] = {}
    store = Store(root, secret=control.secret("journal"), find_spec=lambda _, p: (PolicyKind.RANKER, specs[p]))
    try:
        with progress_bar() as progress:
            for path in files:
                campaign = read_campaign(path)
                task = progress.add_task(campaign.policy, total=len(campaign.rows))
                specs[campaign.policy] = campaign.spec()
                _declare(control, store, campaign)
                for number, row in enumerate(campaign.rows):
                    decision, outcome = campaign.record(number, row)
                    store.append_decision(decision)
                    written = store.append_outcome(outcome)
                    if number % 1000 == 999:
                        written.result()
                        progress.update(task, completed=number + 1)
                written.result()
                progress.update(task, completed=len(campaign.rows))
    finally:
        store.close()
    if as_json:
        print_json({"data": str(root), "policies": sorted(specs)})
        return
    say = f"{len(files)} policies in {root}: dayjob lab ope evaluates the files themselves"
    Console(soft_wrap=True).print(say, highlight=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """One file of the Open Bandit sample: V items with E features, rows of single impressions."""

    policy: str
    items: tuple[str, ...]
    blobs: tuple[bytes, ...]  # the items' encoded vectors, E numbers each
    candidates: tuple[Candidate, ...]
    dim: int  # E
    categories: tuple[tuple[str, str], ...]  # (user feature, its value): the context's dimensions
    rows: tuple[dict[str, str], ...]

    def spec(self) -> Json:
        """The policy as PUT /v1/policies/{name} would have declared it."""
        return {
            "kind": "ranker", "context_dim": len(self.categories), "candidate_dim": self.dim,
            "pair_dim": 0, "hidden": [256, 256], "recipe": "debiased", "similarity_scale": 1.0, "metric": "click",
            "reward_range": [0.0, 1.0], "outcome_window_s": 60.0, "explore": {"changed_first": 0.05}, "alpha": 0.05,
            "minimum_effect": 0.01, "learn_every": 0,
        }  # fmt: skip

    def record(self, number: int, row: dict[str, str]) -> tuple[Decision, Outcome]:
        """An impression as a decision that showed one item, and whether it was clicked."""
        context_D = np.array([float(row[name] == value) for name, value in self.categories], np.float32)
        slot = self.items.index(row["item_id"])
        propensity = float(row["propensity_score"])
        at_ms = int(datetime.fromisoformat(row["timestamp"]).timestamp() * 1000)
        zeros = np.zeros(len(self.items)).astype("<f8").tobytes()
        decision = Decision(
            tenant="default", policy=self.policy, id=str(uuid.uuid5(NAMESPACE, f"{self.policy}/{number}")),
            body_digest=number.to_bytes(16, "big"), user=None, session=None, at_ms=at_ms, version="v0-baseline",
            challenger=None, role=Role.CHAMPION, role_propensity=1.0, explore=True, seed=0, epsilon=0.0,
            temperature=0.0, intervened="random" in self.policy, coin=0, context=vectors.pack(context_D),
            candidates=self.candidates, pair=b"", base=zeros, score=zeros, rival_score=b"",
            ranking=np.array([slot], "<u2").tobytes(), propensity=np.array([propensity], "<f8").tobytes(),
            log_propensity=float(np.log(propensity)), extra={"place": int(row["position"])},
        )  # fmt: skip
        clicked = row["click"] == "1"
        outcome = Outcome(
            tenant="default", id=str(uuid.uuid5(NAMESPACE, f"{self.policy}/{number}/outcome")),
            body_digest=number.to_bytes(16, "big"), policy="", decision=decision.id, session=None,
            kind=OutcomeKind.CLICK if clicked else OutcomeKind.NONE, item=row["item_id"] if clicked else None,
            position=None, value=None, text=None, source="open-bandit", user=None, at_ms=at_ms, received_ms=at_ms,
            key_id="import",
        )  # fmt: skip
        return decision, outcome


def read_campaign(path: Path) -> Campaign:
    """Read one file and its items. Raises Invalid when the items' file is not beside it."""
    name = path.name.removesuffix(".csv.gz")
    items_path = path.with_name(f"{name}_items.csv")
    if not items_path.exists():
        raise Invalid(f"{items_path.name} is missing beside {path.name}: copy the whole folder")
    with items_path.open(newline="") as file:
        items = list(csv.DictReader(file))
    columns = [column for column in items[0] if column.startswith("item_feature_")]
    dims = list(_dimensions(items, columns))
    vector_VE = np.array([[_number(item, column, value) for column, value in dims] for item in items], np.float32)
    ids, blobs = tuple(item["item_id"] for item in items), tuple(vectors.pack_many(vector_VE))
    with gzip.open(path, "rt", newline="") as file:
        rows = tuple(csv.DictReader(file))
    categories = tuple(sorted({(name, row[name]) for row in rows for name in USER_FEATURES}))
    return Campaign(
        policy=f"obd-{name.replace('_', '-')}", items=ids, blobs=blobs, dim=len(dims),
        candidates=tuple(Candidate(id=i, digest=vectors.digest(b)) for i, b in zip(ids, blobs, strict=True)),
        categories=categories, rows=rows,
    )  # fmt: skip


def _dimensions(items: list[dict[str, str]], columns: list[str]) -> Iterator[tuple[str, str | None]]:
    """Numeric columns as they are, each value of the others as a dimension of its own."""
    for column in columns:
        values = sorted({item[column] for item in items})
        try:
            [float(value) for value in values]
        except ValueError:
            yield from ((column, value) for value in values)
        else:
            yield column, None


def _number(item: dict[str, str], column: str, value: str | None) -> float:
    return float(item[column]) if value is None else float(item[column] == value)


def _declare(control: Control, store: Store, campaign: Campaign) -> None:
    policy = Policy(
        tenant="default", name=campaign.policy, kind=PolicyKind.RANKER, spec=campaign.spec(), created_ms=0
    )  # fmt: skip
    control.create_policy(policy, baseline("default", campaign.policy))
    items = [CatalogItem(id=i, vector=b, meta=None) for i, b in zip(campaign.items, campaign.blobs, strict=True)]
    store.put_catalog("default", campaign.policy, items=items).result()
