"""A data directory with a trial under way, made without a server: pairs on a fair coin, clicks as told."""

import random
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from dayjob.endings import OutcomeKind, PolicyKind, Receipt, Role, VersionStatus
from dayjob.fakes import FakeClock, FakeRanker, fake_decision, fake_id, fake_outcome
from dayjob.gate.judge import Judge
from dayjob.journal.control import Control
from dayjob.journal.readers import Reader
from dayjob.journal.store import Store, StoreConfig
from dayjob.records import Decision, Json, Policy, Version, Written

KEY = ("t", "p")
SPEC: Json = {
    "kind": "ranker", "context_dim": 2, "candidate_dim": 2, "pair_dim": 0, "metric": "truth",
    "reward_range": [0.0, 1.0], "outcome_window_s": 60.0, "explore": {"changed_first": 0.05}, "alpha": 0.05,
    "minimum_effect": 0.01, "similarity_scale": 1.0,
}  # fmt: skip
BASELINE = "v0-baseline"
AT = 1_000_000


def version(number: int, status: VersionStatus, *, digest: str | None = None) -> Version:
    name = BASELINE if number == 0 else f"v{number}-{number:08x}"
    return Version(
        tenant="t", policy="p", name=name, number=number, parent=None, recipe="fake", digest=digest or f"{number:064x}",
        from_seq=0, to_seq=0, status=status, created_ms=number,
    )  # fmt: skip


@dataclass(slots=True)
class World:
    """One policy's data directory, its parts, and a clock that is told to move."""

    root: Path
    control: Control
    store: Store
    reader: Reader
    clock: FakeClock
    judges: dict[str, Judge] = field(default_factory=dict)
    made: int = 0
    ballast_bytes: int = 0

    def judge(self, holder: str = "judge-1") -> Judge:
        """The judge of this name."""
        if holder not in self.judges:
            self.judges[holder] = Judge(
                self.control, self.reader, load_ranker=self.load, holder=holder, now_ms=self.clock,
                reserve=self.ballast_bytes,
            )  # fmt: skip
        return self.judges[holder]

    def load(self, tenant: str, policy: str, name: str, digest: str) -> FakeRanker:
        del tenant, policy, digest
        return FakeRanker(int(name.partition("-")[0][1:]), turned=True)

    def add(self, number: int, status: VersionStatus = VersionStatus.WAITING, *, digest: str | None = None) -> str:
        made = version(number, status, digest=digest)
        self.control.add_version(made)
        return made.name

    def status(self, name: str) -> VersionStatus:
        return self.control.version(*KEY, name).status

    def decide(self, decision: Decision, *, wait: bool = True) -> int:
        """Append a decision; its number. It is durable when this returns, or before whatever is told of it later."""
        self.made += 1
        decision = replace(decision, id=fake_id(self.made), body_digest=self.made.to_bytes(16, "big"))
        written = self.store.append_decision(decision, fake_decision(self.made)[1])
        if wait:
            assert written.result().receipt is Receipt.RECORDED
        return self.made

    def pair(
        self, champion: str, challenger: str, *, coin: int, user: str | None = None, at_ms: int = AT, wait: bool = True
    ) -> int:
        """A pair: the challenger's first choice is "b", the champion's "a"."""
        slots = [1, 0, 2] if coin == 1 else [0, 1, 2]
        decision = replace(
            fake_decision(0)[0], role=Role.TRIAL, user=user, version=champion, challenger=challenger, coin=coin,
            at_ms=at_ms,
            ranking=np.array(slots, "<u2").tobytes(), propensity=np.array([0.5, 1.0, 1.0], "<f8").tobytes(),
            rival_score=np.array([1.0, 3.0, 0.0], "<f8").tobytes(), role_propensity=0.9,
        )  # fmt: skip
        return self.decide(decision, wait=wait)

    def tell(self, number: int, item: str, *, received_ms: int = AT, kind: OutcomeKind = OutcomeKind.TRUTH) -> None:
        """An outcome about a decision; it is durable when this returns."""
        self.tell_later(number, item, received_ms=received_ms, kind=kind).result()

    def tell_later(
        self, number: int, item: str | None, *, received_ms: int = AT, kind: OutcomeKind, value: float | None = None
    ) -> "Future[Written]":
        self.made += 1
        fake = fake_outcome(self.made, fake_id(number), kind=kind)
        outcome = replace(fake, item=item, position=None, value=value)
        return self.store.append_outcome(replace(outcome, received_ms=received_ms))

    def trial(self, champion: str, challenger: str, count: int, *, favour: float, seed: int = 0) -> None:
        """Closed pairs in which the challenger's item is right in a share ``favour``."""
        dice = random.Random(seed)
        told = []
        for _ in range(count):
            number = self.pair(champion, challenger, coin=dice.choice((-1, 1)), wait=False)
            item = "b" if dice.random() < favour else "a"
            told.append(self.tell_later(number, item, received_ms=AT, kind=OutcomeKind.TRUTH))
        assert all(future.result().receipt is Receipt.RECORDED for future in told)

    def close(self) -> None:
        self.store.close()
        self.control.db().close()


def open_world(root: Path, metric: str = "truth", *, ballast_bytes: int = 0) -> World:
    """An empty policy, with its baseline as champion."""
    control, spec = Control(root), SPEC | {"metric": metric}
    policy = Policy(tenant="t", name="p", kind=PolicyKind.RANKER, spec=spec, created_ms=0)
    control.create_policy(policy, version(0, VersionStatus.BASELINE))
    config = StoreConfig(ballast_bytes=ballast_bytes)
    store = Store(root, secret=control.secret("journal"), find_spec=lambda *_: (PolicyKind.RANKER, spec), config=config)
    return World(
        root=root, control=control, store=store, reader=Reader(root), clock=FakeClock(AT), ballast_bytes=ballast_bytes
    )
