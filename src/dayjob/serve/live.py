"""What serves now: pointers followed, versions verified and loaded, exploration calibrated.

Promise 4: a version is loaded and verified before it replaces another; a damaged one never serves, the last good one
goes on. Promise 6: a moved pointer is seen within ``poll_s``. Promise 7: a file named ``freeze`` in the data directory
freezes every policy (its text may be ``baseline``).
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from dayjob.endings import DayjobError, NotFound, PolicyKind
from dayjob.journal.control import Control
from dayjob.journal.readers import Reader
from dayjob.journal.store import Store
from dayjob.policies.baseline import CallersOrder
from dayjob.policies.plackett_luce import GREEDY, Explore, calibrate
from dayjob.policies.protocol import F64, Ranker
from dayjob.records import Json, Pointers
from dayjob.serve.catalog import Catalog, load_catalog

LoadRanker = Callable[[str, str, str, str], Ranker]
"""(tenant, policy, version, digest) -> a verified ranker; raises Damaged."""

log = logging.getLogger("dayjob.serve")
RECENT = 400  # lists that calibrate the exploration
FIRST_CALIBRATION = 20
CLOCK_SET_RIGHT_MS = 60_000


def _wall_ms() -> int:
    return int(time.time() * 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Everything one decision needs, taken in one piece so that no answer mixes two versions."""

    spec: Json
    pointers: Pointers
    frozen: str
    champion: str
    ranker: Ranker
    challenger: str | None
    rival: Ranker | None
    replaced: tuple[str, Ranker] | None  # the version the champion replaced: the watch compares them
    explore: Explore
    catalog: Catalog | None


@dataclass(slots=True, kw_only=True)
class Live:
    """One policy's serving state and the recent scores that calibrate its exploration."""

    serving: Serving
    recent: deque[F64] = field(default_factory=lambda: deque(maxlen=RECENT))
    seen: int = 0
    next_calibration: int = FIRST_CALIBRATION

    def observe(self, score_K: F64) -> None:
        """Take note of a list's scores; recalibrate at growing intervals."""
        self.recent.append(score_K)
        self.seen += 1
        if self.seen >= self.next_calibration:
            self.next_calibration = self.seen + min(max(self.seen // 2, FIRST_CALIBRATION), RECENT)
            self.recalibrate()

    def recalibrate(self) -> None:
        """State the exploration anew as the wished share of changed first places."""
        wished = float(self.serving.spec["explore"]["changed_first"])
        self.serving = replace(self.serving, explore=calibrate(list(self.recent), changed_first=wished))


@dataclass(slots=True, kw_only=True)
class Hub:
    """The server's parts, and every policy as it serves now."""

    root: Path
    store: Store
    reader: Reader
    control: Control
    load_ranker: LoadRanker
    poll_s: float
    live: dict[tuple[str, str], Live] = field(default_factory=dict)
    changes: int = -1
    freeze_file: str = ""
    damaged: dict[str, str] = field(default_factory=dict)
    silent: set[tuple[str, str]] = field(default_factory=set)  # (tenant, user) who are never learned from
    wall_ms: Callable[[], int] = field(default_factory=lambda: _wall_ms)
    clock_ms: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def now_ms(self) -> int:
        """Milliseconds since the epoch, never backwards: unless the clock was far ahead and has been set right."""
        now = self.wall_ms()
        if not now < self.clock_ms < now + CLOCK_SET_RIGHT_MS:
            self.clock_ms = now
        return self.clock_ms

    def of(self, tenant: str, policy: str) -> Live:
        """A policy as it serves. Raises NotFound."""
        live = self.live.get((tenant, policy))
        if live is None:
            raise NotFound(f"there is no policy {policy!r}: create it with PUT /v1/policies/{policy}")
        return live

    def find_spec(self, tenant: str, policy: str) -> tuple[PolicyKind, Json]:
        """A policy's kind and declaration, for the journal's checks."""
        return PolicyKind.RANKER, self.of(tenant, policy).serving.spec

    def refresh(self) -> None:
        """Follow every pointer that moved. Versions are loaded before they replace what serves."""
        with self.lock:
            self._refresh()

    def _refresh(self) -> None:
        self.freeze_file = self.control.freeze_file()
        self.silent = self.control.silent_people()
        for policy in self.control.policies():
            key = (policy.tenant, policy.name)
            if policy.kind is not PolicyKind.RANKER:
                continue
            pointers = self.control.pointers(*key)
            old = self.live.get(key)
            frozen = pointers.frozen or self.freeze_file
            same = old is not None and old.serving.pointers == pointers and old.serving.spec == policy.spec
            if same and old is not None and old.serving.frozen == frozen:
                continue
            self._replace(key, policy.spec, pointers, frozen=frozen)

    def _replace(self, key: tuple[str, str], spec: Json, pointers: Pointers, *, frozen: str) -> None:
        old = self.live.get(key)
        wanted = pointers.baseline if frozen == "baseline" else pointers.champion
        champion, ranker = self._load(key, wanted, old, pointers.baseline)
        challenger, rival = pointers.challenger, None
        if challenger is not None and not frozen and challenger != champion:
            try:
                rival = self._ranker(key, challenger, old)
            except DayjobError as error:
                self._warn(key, challenger, error)
        serving = Serving(
            spec=spec,
            pointers=pointers,
            frozen=frozen,
            champion=champion,
            ranker=ranker,
            challenger=challenger if rival is not None else None,
            rival=rival,
            replaced=self._replaced(key, pointers, champion, old),
            explore=old.serving.explore if old is not None and old.serving.champion == champion else GREEDY,
            catalog=old.serving.catalog if old is not None else self._catalog(key, spec),
        )
        if old is None:
            self.live[key] = Live(serving=serving)
        elif old.serving.champion == champion:
            old.serving = serving
        else:
            # Another version has other scores: what calibrated the old one says nothing of the new.
            self.live[key] = Live(serving=serving)

    def _replaced(
        self, key: tuple[str, str], pointers: Pointers, champion: str, old: Live | None
    ) -> tuple[str, Ranker] | None:
        """What the champion replaced, or the baseline where that is gone; nothing while the baseline serves."""
        if champion == pointers.baseline:
            return None
        name = pointers.previous or pointers.baseline
        try:
            return name, self._ranker(key, name, old)
        except DayjobError as error:
            self._warn(key, name, error)
            return pointers.baseline, CallersOrder()

    def _load(self, key: tuple[str, str], wanted: str, old: Live | None, baseline: str) -> tuple[str, Ranker]:
        """The wanted version, or the last good one when it is damaged."""
        try:
            return wanted, self._ranker(key, wanted, old)
        except DayjobError as error:
            self._warn(key, wanted, error)
            if old is not None:
                return old.serving.champion, old.serving.ranker
            for name in (self.control.pointers(*key).previous, baseline):
                if name is not None and name != wanted:
                    try:
                        return name, self._ranker(key, name, None)
                    except DayjobError as second:
                        self._warn(key, name, second)
            return baseline, CallersOrder()

    def _ranker(self, key: tuple[str, str], name: str, old: Live | None) -> Ranker:
        if old is not None:
            if name == old.serving.champion:
                return old.serving.ranker
            if name == old.serving.challenger and old.serving.rival is not None:
                return old.serving.rival
            if old.serving.replaced is not None and name == old.serving.replaced[0]:
                return old.serving.replaced[1]
        version = self.control.version(*key, name)
        return CallersOrder() if version.number == 0 else self.load_ranker(*key, name, version.digest)

    def _warn(self, key: tuple[str, str], name: str, error: Exception) -> None:
        self.damaged["/".join((*key, name))] = str(error)
        log.error("version %s of %s does not serve: %s", name, key[1], error)

    def _catalog(self, key: tuple[str, str], spec: Json) -> Catalog | None:
        return load_catalog(self.reader, *key, dim=int(spec["candidate_dim"]))

    def reload_catalog(self, tenant: str, policy: str) -> int:
        """Take a replaced catalog into service; how many items it has."""
        live = self.of(tenant, policy)
        catalog = self._catalog((tenant, policy), live.serving.spec)
        live.serving = replace(live.serving, catalog=catalog)
        return len(catalog.ids) if catalog is not None else 0

    async def follow(self) -> None:
        """Poll for moved pointers until cancelled."""
        while True:
            await asyncio.sleep(self.poll_s)
            try:
                changes = self.control.change_count()
                if changes != self.changes or self.control.freeze_file() != self.freeze_file:
                    await asyncio.to_thread(self.refresh)
                    self.changes = changes
            except Exception:
                log.exception("following the pointers failed; the versions that serve go on")
