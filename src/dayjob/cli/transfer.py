"""dayjob export and dayjob import: the journal as NDJSON, and the Open Bandit sample as a journal."""

import csv
import gzip
import os
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import orjson
import typer
from rich.console import Console
from rich.progress import Progress

from dayjob.config import load_config
from dayjob.endings import Invalid, OutcomeKind, PolicyKind, Role, VersionStatus
from dayjob.journal import vectors
from dayjob.journal.control import Control
from dayjob.journal.plain import decision_view
from dayjob.journal.readers import START, Reader
from dayjob.journal.store import Store
from dayjob.records import Candidate, CatalogItem, Decision, Json, Outcome, Policy, Version

DataOption = Annotated[Path | None, typer.Option(help="The data directory.")]
import_app = typer.Typer(help="Load logs of elsewhere into a journal.", no_args_is_help=True)
NAMESPACE = uuid.UUID("6f1d1c1e-0b1d-4e0a-9a55-0bd000000000")  # ids of imported rows derive from file and line
USER_FEATURES = tuple(f"user_feature_{n}" for n in range(4))


def export(
    policy: Annotated[str, typer.Argument(help="The policy.")],
    data: DataOption = None,
    tenant: Annotated[str, typer.Option(help="The tenant.")] = "default",
    out: Annotated[Path | None, typer.Option(help="A file; standard output otherwise.")] = None,
) -> None:
    """Write a policy's decisions with their outcomes as NDJSON, oldest first. Works while a server runs."""
    settings = load_config(flags={"data": data}, environ=os.environ, directory=Path.cwd()).config
    if not (settings.data / "journal.db").exists():
        raise Invalid(f"{settings.data} holds no journal: name the directory with --data")
    Control(settings.data).policy(tenant, policy)
    reader = Reader(settings.data)
    stream = sys.stdout.buffer if out is None else out.open("wb")
    cursor = START
    while True:
        page, cursor = reader.decisions(tenant, policy, cursor=cursor)
        if not page:
            break
        outcomes = reader.outcomes(tenant, page)
        for stored in page:
            stream.write(orjson.dumps(decision_view(stored, outcomes.get(stored.record.id, []))) + b"\n")
    stream.flush()
    if out is not None:
        stream.close()


@import_app.command("obd")
def import_obd(
    folder: Annotated[Path, typer.Argument(help="The folder with random_men.csv.gz, bts_men.csv.gz and so on.")],
    data: DataOption = None,
) -> None:
    """Load the Open Bandit sample: real clicks with true propensities, one policy for each file."""
    settings = load_config(flags={"data": data}, environ=os.environ, directory=Path.cwd()).config
    files = sorted(folder.glob("*_*.csv.gz"))
    if not files:
        raise Invalid(f"{folder} holds no file such as random_men.csv.gz: name the Open Bandit sample's folder")
    control = Control(settings.data)
    specs: dict[str, Json] = {}
    store = Store(settings.data, secret=control.secret("journal"), find_spec=lambda _, p: (PolicyKind.RANKER, specs[p]))
    try:
        with Progress(console=Console(stderr=True)) as progress:
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
    Console().print(f"{len(files)} policies in {settings.data}: dayjob lab ope evaluates the files themselves")


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
    baseline = Version(
        tenant="default", policy=campaign.policy, name="v0-baseline", number=0, parent=None, recipe="baseline",
        digest="0" * 64, from_seq=0, to_seq=0, status=VersionStatus.BASELINE, created_ms=0,
    )  # fmt: skip
    control.create_policy(policy, baseline)
    items = [CatalogItem(id=i, vector=b, meta=None) for i, b in zip(campaign.items, campaign.blobs, strict=True)]
    store.put_catalog("default", campaign.policy, items=items).result()
