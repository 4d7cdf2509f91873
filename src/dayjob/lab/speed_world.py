"""What the speed marks are measured on: a data directory with a policy, a catalog, decisions, versions, and bodies.

One decision is made over HTTP and copied under new ids straight into the journal: the copies are as large and as
whole as the first, and making a hundred thousand of them takes seconds.
"""

import base64
import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dayjob.client import Candidate, Client, RankerSpec
from dayjob.client_types import new_id
from dayjob.endings import OutcomeKind, PolicyKind, VersionStatus
from dayjob.journal import vectors, versions
from dayjob.journal.control import Control
from dayjob.journal.readers import Reader
from dayjob.journal.store import Store
from dayjob.journal.writes import Transaction, append_decision, append_outcome
from dayjob.lab.server import running
from dayjob.policies.ranker import RankerSpec as Sizes
from dayjob.policies.ranker import zero_weights
from dayjob.records import Candidate as Kept
from dayjob.records import Decision, Outcome, Version

POLICY, SMALL = "geo", "small"
DIM, SHOWN, ITEMS = 512, 10, 2_000
SPEC = RankerSpec(context_dim=DIM, candidate_dim=DIM, pair_dim=2)
TINY = RankerSpec(context_dim=4, candidate_dim=4)
IN_FLIGHT = 2_048


def declare(data: Path, rng: np.random.Generator) -> None:
    """Two policies, a catalog of the large one, and a first decision of each."""
    item_ND = rng.normal(size=(ITEMS, DIM)).astype(np.float16).astype(np.float32)
    with running(data) as server, Client(server.url) as client:
        client.put_policy(POLICY, SPEC)
        client.put_policy(SMALL, TINY)
        client.put_catalog(POLICY, [Candidate(id=f"i{n}", features=row) for n, row in enumerate(item_ND)])
        inline = [Candidate(id=f"c{n}", features=row, pair=[0.1, 0.2]) for n, row in enumerate(item_ND[:SHOWN])]
        client.rank(POLICY, rng.normal(size=DIM), candidates=inline)
        client.rank(SMALL, [1, 0, 0, 0], candidates=[Candidate(id=one, features=[0, 1, 0, 0]) for one in "ab"])
        server.stop()


def open_store(data: Path) -> Store:
    """The journal of a data directory that no server holds."""
    control = Control(data)
    specs = {policy.name: policy.spec for policy in control.policies()}
    secret = control.secret("journal")
    return Store(data, secret=secret, find_spec=lambda _, policy: (PolicyKind.RANKER, specs[policy]))


def first_decision(data: Path, policy: str) -> Decision:
    """The decision that the copies are of."""
    return Reader(data).recent("default", policy, 1)[0].record


def copy_decisions(store: Store, first: Decision, *, count: int) -> list[str]:
    """So many copies of a decision; their ids."""
    ids = [new_id() for _ in range(count)]
    _all(store.append_decision(replace(first, id=one)) for one in ids)
    return ids


def grow(store: Store, first: Decision, *, count: int) -> None:
    """So many copies of a decision with a click each, many in one write: for journals too long to fill one by one."""
    click = _click(first.id, first.candidates[0].id)

    def write(size: int) -> Callable[[Transaction], None]:
        ids = [(new_id(), new_id()) for _ in range(size)]

        def work(tx: Transaction) -> None:
            for decision, outcome in ids:
                append_decision(tx, replace(first, id=decision), ())
                append_outcome(tx, replace(click, id=outcome, decision=decision))

        return work

    for start in range(0, count, IN_FLIGHT):
        store.submit(write(min(IN_FLIGHT, count - start))).result()


def places(rng: np.random.Generator) -> npt.NDArray[np.float16]:
    """100,000 places (100,000, DIM)."""
    return rng.normal(size=(100_000, DIM)).astype(np.float16)


def geospot_decisions(
    store: Store, first: Decision, *, count: int, place_GD: npt.NDArray[np.float16], rng: np.random.Generator
) -> list[str]:
    """Decisions with a context of their own and ten of those places, sent inline; each is clicked."""
    ids = [new_id() for _ in range(count)]

    def writes() -> Iterator["Future[Any]"]:
        for n, one in enumerate(ids):
            blobs = [row.tobytes() for row in place_GD[rng.choice(len(place_GD), SHOWN, replace=False)]]
            kept = tuple(Kept(id=c.id, digest=vectors.digest(b)) for c, b in zip(first.candidates, blobs, strict=True))
            context = rng.normal(size=DIM).astype(np.float16).tobytes()
            copy = replace(first, id=one, context=context, candidates=kept, user=f"u{n % 997}", at_ms=_now_ms())
            yield store.append_decision(copy, blobs)
            yield store.append_outcome(_click(one, first.candidates[n % SHOWN].id))

    _all(writes())
    return ids


def _now_ms() -> int:
    return int(time.time() * 1000)


def _click(decision: str, item: str) -> Outcome:
    now_ms = _now_ms()
    return Outcome(
        tenant="default", id=new_id(), body_digest=b"", policy="", decision=decision, session=None,
        kind=OutcomeKind.CLICK, item=item, position=None, value=None, text=None, source="human", user=None,
        at_ms=now_ms, received_ms=now_ms, key_id="lab",
    )  # fmt: skip


def _all(writes: Iterator["Future[Any]"]) -> None:
    """Wait for every write, with a bounded number in flight."""
    waiting: deque[Future[Any]] = deque()
    for write in writes:
        waiting.append(write)
        if len(waiting) >= IN_FLIGHT:
            waiting.popleft().result()
    while waiting:
        waiting.popleft().result()


def publish_version(data: Path, *, rng: np.random.Generator) -> str:
    """A version of the large policy with weights of no meaning; its name."""
    sizes = Sizes(context_dim=DIM, candidate_dim=DIM, pair_dim=2)
    weights = zero_weights(sizes) | {"prior": rng.normal(size=DIM).astype(np.float32)}
    network = json.loads(json.dumps(sizes.to_json()))
    manifest = versions.VersionManifest(recipe="lab", network=network, from_seq=0, to_seq=0, seed=0, created_ms=0)
    stored = versions.publish(data, "default", POLICY, number=1, weights=weights, manifest=manifest)
    Control(data).add_version(
        Version(
            tenant="default", policy=POLICY, name=stored.version, number=1, parent=None, recipe="lab",
            digest=stored.digest, from_seq=0, to_seq=0, status=VersionStatus.WAITING, created_ms=0,
        )
    )  # fmt: skip
    return stored.version


def feedback_bodies(path: Path, ids: list[str]) -> Path:
    """A click on each decision of the small policy."""
    path.write_text("\n".join(json.dumps({"decision": one, "kind": "click", "item": "a"}) for one in ids))
    return path


def rank_bodies(path: Path, count: int, *, inline: bool, rng: np.random.Generator) -> Path:
    """Requests with a fresh context and ten candidates: inline with fresh vectors, or by catalog id."""
    lines = []
    for _ in range(count):
        candidates: list[dict[str, Any]]
        if inline:
            candidates = [
                {"id": f"c{n}", "features_b64": _fresh(rng), "pair": [0.1, 0.2], "score": -float(n)}
                for n in range(SHOWN)
            ]
        else:
            candidates = [{"id": f"i{n}"} for n in rng.choice(ITEMS, SHOWN, replace=False)]
        lines.append(json.dumps({"policy": POLICY, "context": {"features_b64": _fresh(rng)}, "candidates": candidates}))
    path.write_text("\n".join(lines))
    return path


def _fresh(rng: np.random.Generator) -> str:
    """A vector of which six bits of four numbers are left to the client: ``@`` stands where the mantissa begins."""
    text = list(base64.b64encode(rng.normal(size=DIM).astype("<f4").tobytes()).decode())
    for group in range(4):
        text[16 * group + 3] = "@"  # the third byte of every third number: kept by float16
    return "".join(text)
