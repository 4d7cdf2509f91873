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

from dayjob.endings import DayjobError, Invalid, NotFound, PolicyKind
from dayjob.journal.control import Control
from dayjob.journal.layers import withdraw_overlooked
from dayjob.journal.readers import Reader
from dayjob.journal.steering import taint_overlooked
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
UNTOLD = "rollback"  # in ``damaged``: a rollback took effect, and its record could not be written
LOOK_AGAIN_S = 5.0  # between two looks at versions that were damaged: they may have been repaired


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
    shares: Json | None = None  # how the judge shares out this policy's traffic


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """A language policy as it was declared and as its pointers stand. `serve.models` finds who answers for it."""

    spec: Json
    pointers: Pointers
    frozen: str
    created_ms: int


@dataclass(slots=True, kw_only=True)
class Live:
    """One policy's serving state and the recent scores of its champion, which calibrate its exploration.

    Pointers, catalog and exploration change in threads of their own: whoever replaces one part of ``serving`` takes
    the rest from what serves at that moment, under ``swap``. Nothing slow is done under it.
    """

    serving: Serving
    recent: deque[F64] = field(default_factory=lambda: deque(maxlen=RECENT))
    seen: int = 0
    next_calibration: int = FIRST_CALIBRATION
    swap: threading.Lock = field(default_factory=threading.Lock)

    def observe(self, score_K: F64, *, version: str) -> None:
        """Take note of a list's scores; recalibrate at growing intervals. Another version's scores say nothing here."""
        if version != self.serving.champion:
            return
        self.recent.append(score_K)
        self.seen += 1
        if self.seen >= self.next_calibration:
            self.next_calibration = self.seen + min(max(self.seen // 2, FIRST_CALIBRATION), RECENT)
            self.recalibrate()

    def recalibrate(self) -> None:
        """State the exploration anew as the wished share of changed first places."""
        wished = float(self.serving.spec["explore"]["changed_first"])
        found = calibrate(list(self.recent), changed_first=wished)
        with self.swap:
            self.serving = replace(self.serving, explore=found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What a policy is, whatever its kind; ``frozen``: what serves while learning is stopped, "" while it is not."""

    kind: PolicyKind
    spec: Json
    frozen: str


@dataclass(slots=True, kw_only=True)
class Hub:
    """The server's parts, and every policy as it serves now."""

    root: Path
    store: Store
    reader: Reader
    control: Control
    load_ranker: LoadRanker
    poll_s: float
    live: dict[tuple[str, str], Live] = field(default_factory=dict)  # rankers
    spoken: dict[tuple[str, str], Spoken] = field(default_factory=dict)  # language policies
    changes: int = -1
    freeze_file: str = ""
    damaged: dict[str, str] = field(default_factory=dict)
    silent: set[tuple[str, str]] = field(default_factory=set)  # (tenant, user) who are never learned from
    silent_marks: set[tuple[str, bytes]] = field(default_factory=set)  # (tenant, mark): erased since
    wall_ms: Callable[[], int] = field(default_factory=lambda: _wall_ms)
    clock_ms: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    reloading: threading.Lock = field(default_factory=threading.Lock)  # catalogs, one at a time
    looked_s: float = 0.0  # when damaged versions were last looked at
    warned: set[str] = field(default_factory=set)  # of ``damaged``, what the replacing under way has found

    def now_ms(self) -> int:
        """Milliseconds since the epoch, never backwards: unless the clock was far ahead and has been set right."""
        now = self.wall_ms()
        if not now < self.clock_ms < now + CLOCK_SET_RIGHT_MS:
            self.clock_ms = now
        return self.clock_ms

    def of(self, tenant: str, policy: str) -> Live:
        """A ranker as it serves. Raises NotFound, and Invalid for a language policy."""
        live = self.live.get((tenant, policy))
        if live is None:
            if (tenant, policy) in self.spoken:
                raise Invalid(f"policy {policy!r} is a language policy: this is for rankers", param="policy")
            raise NotFound(f"there is no policy {policy!r}: create it with PUT /v1/policies/{policy}")
        return live

    def declared(self, tenant: str, policy: str) -> Declared:
        """A policy of either kind. Raises NotFound."""
        spoken = self.spoken.get((tenant, policy))
        if spoken is not None:
            return Declared(kind=PolicyKind.LANGUAGE, spec=spoken.spec, frozen=spoken.frozen)
        serving = self.of(tenant, policy).serving
        return Declared(kind=PolicyKind.RANKER, spec=serving.spec, frozen=serving.frozen)

    def find_spec(self, tenant: str, policy: str) -> tuple[PolicyKind, Json]:
        """A policy's kind and declaration, for the journal's checks."""
        found = self.declared(tenant, policy)
        return found.kind, found.spec

    def refresh(self) -> None:
        """Follow every pointer that moved. Versions are loaded before they replace what serves."""
        with self.lock:
            self._refresh()

    def _refresh(self) -> None:
        self.freeze_file = self.control.freeze_file()
        self.silent, self.silent_marks = self.control.silent_people(), self.control.silent_marks()
        again = time.monotonic() - self.looked_s >= LOOK_AGAIN_S
        for policy in self.control.policies():
            key = (policy.tenant, policy.name)
            pointers = self.control.pointers(*key)
            frozen = pointers.frozen or self.freeze_file
            if policy.kind is PolicyKind.LANGUAGE:
                if key in self.spoken and self.spoken[key].pointers != pointers:
                    for name in self._faults(key):  # of versions that nobody may be asked for any more
                        del self.damaged[name]
                self.spoken[key] = Spoken(
                    spec=policy.spec, pointers=pointers, frozen=frozen, created_ms=policy.created_ms
                )
                continue
            old = self.live.get(key)
            same = old is not None and old.serving.pointers == pointers and old.serving.spec == policy.spec
            if not same or old is None or old.serving.frozen != frozen or (again and self._faults(key)):
                self._replace(key, policy.spec, pointers, frozen=frozen)
            self._share_out(key)
        if again:
            self.looked_s = time.monotonic()

    def _share_out(self, key: tuple[str, str]) -> None:
        """Follow how the judge shares out the traffic: it may watch more, and spend less on pairs."""
        live, shares = self.live[key], self.control.state(*key, "shares")
        if live.serving.shares != shares:
            with live.swap:
                live.serving = replace(live.serving, shares=shares)

    def _faults(self, key: tuple[str, str]) -> set[str]:
        """The names under which ``damaged`` speaks of the versions of this policy, or of one person's layer of it."""
        said = [(name, *name.rpartition("/")[::2]) for name in dict(self.damaged)]
        return {name for name, layer, what in said if layer == "/".join(key) and what != UNTOLD}

    def unsay(self, tenant: str, address: str) -> None:
        """What was damaged of a person's layer is asked for no more: its pointers moved, or it is gone."""
        for name in self._faults((tenant, address)):
            self.damaged.pop(name, None)

    def _replace(self, key: tuple[str, str], spec: Json, pointers: Pointers, *, frozen: str) -> None:
        """Load what the pointers name, and let it serve. What was wrong before and loads now is wrong no more."""
        before = self._faults(key)
        self.warned.clear()
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
            explore=GREEDY,
            catalog=old.serving.catalog if old is not None else self._catalog(key, spec),
        )
        for name in before - self.warned:
            del self.damaged[name]
        if old is None or old.serving.champion != champion:
            # Another version has other scores: what calibrated the old one says nothing of the new.
            self.live[key] = Live(serving=serving)
            return
        rewished = old.serving.spec["explore"] != spec["explore"]
        with old.swap:
            old.serving = replace(serving, explore=old.serving.explore, shares=old.serving.shares)
        if rewished and old.seen >= FIRST_CALIBRATION:
            old.recalibrate()

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
        full = "/".join((*key, name))
        self.warned.add(full)
        if self.damaged.get(full) != str(error):
            log.error("version %s of %s does not serve: %s", name, key[1], error)
        self.damaged[full] = str(error)

    def _catalog(self, key: tuple[str, str], spec: Json) -> Catalog | None:
        return load_catalog(self.reader, *key, dim=int(spec["candidate_dim"]))

    def reload_catalog(self, tenant: str, policy: str) -> int:
        """Take a replaced catalog into service; how many items it has. Whoever follows the pointers does not wait."""
        with self.reloading:  # of two, the one that reads later ends later
            catalog = self._catalog((tenant, policy), self.of(tenant, policy).serving.spec)
            with self.lock:
                live = self.of(tenant, policy)
                with live.swap:
                    live.serving = replace(live.serving, catalog=catalog)
        return len(catalog.ids) if catalog is not None else 0

    async def heed(self, tenant: str, user: str | None) -> None:
        """Before a word of theirs is written: who did not want to be learned from and was erased, wants it still."""
        if user is None or not self.silent_marks:
            return
        if (tenant, self.control.mark_of(tenant, user)) in self.silent_marks:
            await asyncio.to_thread(self.control.set_learns, tenant, user, False)
            await asyncio.to_thread(self.refresh)

    async def follow(self) -> None:
        """Poll for moved pointers until cancelled."""
        for layer in await asyncio.to_thread(withdraw_overlooked, self.control, self.root):
            log.warning("layer %s was of someone who was erased: it is out", layer)
        overlooked = await asyncio.to_thread(taint_overlooked, self.control)
        for name in overlooked:
            log.warning("version %s of %s learned from someone who was erased: it is out", name[2], name[1])
        while True:
            await asyncio.sleep(self.poll_s)
            try:
                changes = self.control.change_count()
                repaired = bool(self.damaged) and time.monotonic() - self.looked_s >= LOOK_AGAIN_S
                if changes != self.changes or repaired or self.control.freeze_file() != self.freeze_file:
                    await asyncio.to_thread(self.refresh)
                    self.changes = changes
            except Exception:
                log.exception("following the pointers failed; the versions that serve go on")
