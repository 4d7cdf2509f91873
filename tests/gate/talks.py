"""A language policy's data directory without a server: versions with files and exams, sessions by the server's coin."""

import random
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path

from dayjob.endings import OutcomeKind, PolicyKind, Receipt, VersionStatus
from dayjob.fakes import FakeClock, fake_generation, fake_id, fake_outcome
from dayjob.gate.dossier import Dossier, taken_up
from dayjob.gate.language import LanguageJudge
from dayjob.journal.control import Control, put_state
from dayjob.journal.layers import open_layer
from dayjob.journal.readers import Reader
from dayjob.journal.store import Store, StoreConfig
from dayjob.journal.versions import VersionManifest, publish_files
from dayjob.records import Decision, Json, Policy, Version, Written
from dayjob.serve.coin import Coin

KEY = ("t", "chat")
SPEC: Json = {"kind": "language", "base": "tiny", "recipe": "consolidate"}
BASELINE = "v0-baseline"
AT = 1_000_000
WINDOW_MS = 60_000


@dataclass(slots=True)
class Talks:
    """One language policy, its parts, and a clock that is told to move."""

    root: Path
    control: Control
    store: Store
    reader: Reader
    clock: FakeClock
    coin: Coin
    judges: dict[str, LanguageJudge] = field(default_factory=dict)
    made: int = 0
    told: list["Future[Written]"] = field(default_factory=list)

    def judge(self, holder: str = "judge-1") -> LanguageJudge:
        """The judge of this name."""
        if holder not in self.judges:
            self.judges[holder] = LanguageJudge(
                self.control, self.reader, holder=holder, window_s=WINDOW_MS / 1000, now_ms=self.clock
            )
        return self.judges[holder]

    def layer(self, user: str) -> str:
        """The address of a person's layer, opened."""
        return open_layer(self.control, *KEY, user)

    def add(self, number: int, exam: Json | None, *, address: str = KEY[1], content: bytes = b"") -> str:
        """A version that waits, with its files and its exam, as a learner leaves it."""
        about = VersionManifest(recipe="consolidate", network={}, from_seq=0, to_seq=0, seed=0, created_ms=0)
        files = {"adapter.safetensors": content or b"%d of %s" % (number, address.encode())}
        stored = publish_files(self.root, KEY[0], address, number=number, files=files, manifest=about)
        version = Version(
            tenant=KEY[0], policy=address, name=stored.version, number=number, parent=BASELINE, recipe="consolidate",
            digest=stored.digest, from_seq=0, to_seq=0, status=VersionStatus.WAITING, created_ms=number,
        )  # fmt: skip
        self.control.add_version(version)
        if exam is not None:
            with self.control.write() as db:
                put_state(db, KEY[0], address, name=f"exam/{version.name}", state=exam)
        return version.name

    def status(self, name: str, address: str = KEY[1]) -> VersionStatus:
        return self.control.version(KEY[0], address, name).status

    def say(self, session: str | None, *, user: str | None = None, at_ms: int | None = None) -> Decision:
        """An answer by whoever the coin of its session names."""
        self.made += 1
        pointers = self.control.pointers(*KEY)
        number = self.made
        toss = self.coin.toss(pointers, session=session or fake_id(number))
        decision = replace(
            fake_generation(number), session=session, user=user, at_ms=self.clock.now if at_ms is None else at_ms,
            version=toss.version, challenger=toss.challenger, role=toss.role, role_propensity=toss.role_propensity,
            coin=toss.coin, extra=toss.told,
        )  # fmt: skip
        self.told.append(self.store.append_decision(decision, ()))
        return decision

    def tell(
        self, decision: Decision | None, kind: OutcomeKind, *, value: float | None = None, session: str | None = None,
        received_ms: int | None = None,
    ) -> None:  # fmt: skip
        """An outcome of an answer, or of a whole session."""
        self.made += 1
        fake = fake_outcome(self.made, None if decision is None else decision.id, kind=kind)
        text = "no" if kind in (OutcomeKind.CORRECTION, OutcomeKind.DEMONSTRATION) else None
        received = self.clock.now if received_ms is None else received_ms
        policy = KEY[1] if decision is None else ""
        outcome = replace(
            fake, position=None, value=value, text=text, session=session, received_ms=received, policy=policy
        )
        self.told.append(self.store.append_outcome(outcome))

    def settle(self) -> None:
        """Wait until all that was said is durable."""
        for future in self.told:
            assert future.result().receipt is Receipt.RECORDED, future.result()
        self.told.clear()

    def sessions(
        self, count: int, liked: dict[str, float], *, start: int, seed: int = 0, users: int = 0, spoken: float = 1.0
    ) -> None:
        """Closed sessions, one after the other, with a thumb: up with the chance of the version that answered."""
        dice = random.Random(seed)
        for n in range(start, start + count):
            user = f"u{n % users}" if users else None
            decision = self.say(f"s{n}", user=user)
            if dice.random() < spoken:
                up = dice.random() < liked[decision.version]
                self.tell(decision, OutcomeKind.THUMB, value=1 if up else -1)
            self.clock.advance(1_000)
        self.settle()
        self.clock.advance(WINDOW_MS)

    def dossier(self) -> Dossier:
        """What the judge saved."""
        return taken_up(self.control.state(*KEY, "judge"), self.control.policy(*KEY))

    def step(self, holder: str = "judge-1") -> int:
        """Let the judge look until there is nothing to do; how many sessions it judged."""
        judged, most = 0, 200
        while done := self.judge(holder).step():
            judged, most = judged + done, most - 1
            assert most, "the judge goes on for ever"
        return judged

    def close(self) -> None:
        self.store.close()
        self.control.db().close()


def open_talks(root: Path, *, watch_share: float = 0.1) -> Talks:
    """An empty policy, with its base model as champion."""
    control = Control(root)
    policy = Policy(tenant=KEY[0], name=KEY[1], kind=PolicyKind.LANGUAGE, spec=SPEC, created_ms=0)
    baseline = Version(
        tenant=KEY[0], policy=KEY[1], name=BASELINE, number=0, parent=None, recipe="baseline", digest="0" * 64,
        from_seq=0, to_seq=0, status=VersionStatus.BASELINE, created_ms=0,
    )  # fmt: skip
    control.create_policy(policy, baseline)
    store = Store(
        root, secret=control.secret("journal"), find_spec=lambda *_: (PolicyKind.LANGUAGE, SPEC),
        config=StoreConfig(ballast_bytes=0),
    )  # fmt: skip
    return Talks(
        root=root, control=control, store=store, reader=Reader(root), clock=FakeClock(AT),
        coin=Coin(secret=b"test", watch_share=watch_share),
    )  # fmt: skip
