"""Language policies as they serve: which version answers a request, on which engine; and what ``model`` may name.

Promise 4 for language: a version is read and verified by its engine before its first token; one that does not load
never serves, and the last good one goes on. A moved pointer counts for the next request; nothing waits for a swap.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from dayjob.endings import Damaged, DayjobError, NotFound, Overloaded, Role
from dayjob.journal.steering import check_may_serve
from dayjob.policies.engine_protocol import Engine, VersionRef
from dayjob.records import Json, Version
from dayjob.serve.live import LOOK_AGAIN_S, Hub, Spoken

log = logging.getLogger("dayjob.serve")

FindAdapter = Callable[[str, str, str, str], VersionRef]
"""(tenant, policy, version, digest) -> where its adapter lies; raises NotFound or Damaged."""


class UnknownModel(NotFound):
    """What a chat names as its model does not exist."""


class Tokenizer(Protocol):
    """What the server needs to know of a model's tokens."""

    @property
    def control(self) -> Sequence[str]:
        """The texts of the control tokens, which no message may hold."""
        ...

    def encode(self, text: str) -> tuple[int, ...]:
        """The tokens of plain text."""
        ...

    def render(self, messages: Sequence[Json], *, tools: Sequence[Json] | None = None) -> tuple[int, ...]:
        """The prompt of a conversation. Raises Invalid when it cannot be made."""
        ...

    def text(self, token_ids: Sequence[int]) -> str:
        """The text of tokens, control tokens left out."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenBase:
    """A base model that is open: handed over by whoever assembles."""

    name: str
    engine: Engine
    tokens: Tokenizer
    context_tokens: int  # of prompt and answer together


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """What stands in a request's context beside the conversation: a text, and the ids of the notes in it."""

    text: str = ""
    ids: tuple[str, ...] = ()


class ContextNotes(Protocol):
    """Finds the notes that concern a conversation. Called in a thread of its own; it may read stores."""

    def __call__(
        self, tenant: str, policy: str, *, user: str | None, session: str | None, messages: Sequence[Json],
        version: str, tokens: Tokenizer, room: int,
    ) -> Noted:  # fmt: skip
        """The notes for the end of ``messages`` (role and content, oldest first) that ``version`` needs to answer.

        ``room``: tokens that the conversation and its answer leave in the model's context.
        """
        ...


def no_notes(
    tenant: str, policy: str, *, user: str | None, session: str | None, messages: Sequence[Json], version: str,
    tokens: Tokenizer, room: int,
) -> Noted:  # fmt: skip
    """Nothing is remembered."""
    del tenant, policy, user, session, messages, version, tokens, room
    return Noted()


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """Who answers one request, settled once: no answer changes hands but where its tokens are stamped so."""

    policy: str
    version: str
    role: Role
    base: OpenBase
    engine_name: str  # of the version, to the engine

    def version_of(self, engine_name: str) -> str:
        """The version of this policy that a token's stamp means."""
        return self.version if engine_name == self.engine_name else engine_name.rpartition("/")[2]


@dataclass(slots=True, kw_only=True)
class Voices:
    """Every language policy of this server."""

    hub: Hub
    bases: Mapping[str, OpenBase]
    find_adapter: FindAdapter
    choices_limit: int
    writing: int = 0  # answers being written or waiting
    flights: dict[tuple[str, str], asyncio.Event] = field(default_factory=dict)  # (tenant, id) being answered
    failed_s: dict[tuple[str, str, str], float] = field(default_factory=dict)  # when a version last did not load

    async def find(self, tenant: str, model: str) -> Voice:
        """Who answers for ``policy``, ``policy@champion``, ``policy@baseline`` or ``policy@VERSION``.

        Raises UnknownModel, Damaged where the named version or every version does not load, Conflict where the named
        version learned from someone since erased.
        """
        policy, _, tag = model.partition("@")
        spoken = self._spoken(tenant, policy)
        base, pointers = self.base(str(spoken.spec["base"])), spoken.pointers
        if tag in ("", "champion"):
            wanted = [pointers.baseline] if spoken.frozen == "baseline" else [pointers.champion]
            wanted += [name for name in (pointers.previous, pointers.baseline) if name and name not in wanted]
            role = Role.CHAMPION
        else:
            wanted, role = [pointers.baseline if tag == "baseline" else tag], Role.PINNED
        version, engine_name = await self._first_that_loads(
            tenant, policy, wanted, base=base, pinned=role is Role.PINNED
        )
        return Voice(policy=policy, version=version, role=role, base=base, engine_name=engine_name)

    def base(self, name: str) -> OpenBase:
        """An open base model. Raises Damaged for one that the configuration does not have any more."""
        base = self.bases.get(name)
        if base is None:
            raise Damaged(
                f"the base model {name!r} is not configured any more: add [bases.{name}] to dayjob.toml and restart "
                "the server"
            )
        return base

    def _spoken(self, tenant: str, policy: str) -> Spoken:
        spoken = self.hub.spoken.get((tenant, policy))
        if spoken is None:
            if (tenant, policy) in self.hub.live:
                raise UnknownModel(f"policy {policy!r} is a ranker: ask it with POST /v1/rank")
            raise UnknownModel(f"there is no model {policy!r}: GET /v1/models lists those there are")
        return spoken

    async def _first_that_loads(
        self, tenant: str, policy: str, wanted: Sequence[str], *, base: OpenBase, pinned: bool
    ) -> tuple[str, str]:
        fault: DayjobError = Damaged(f"no version of policy {policy!r} loads")
        for name in wanted:
            key = (tenant, policy, name)
            resting = time.monotonic() - self.failed_s.get(key, -LOOK_AGAIN_S) < LOOK_AGAIN_S
            if resting and name != wanted[-1]:
                continue  # it did not load a moment ago
            try:
                version = self.hub.control.version(*key)
            except NotFound:
                raise UnknownModel(
                    f"policy {policy!r} has no version {name!r}: GET /v1/policies/{policy}/versions lists them"
                ) from None
            if pinned:
                check_may_serve(version)
            try:
                loaded = await self._load(version, base)
            except (Damaged, NotFound) as error:
                self._failed(key, error)
                fault = error
            else:
                self._well(key)
                return name, loaded
        raise Damaged(str(fault))

    async def _load(self, version: Version, base: OpenBase) -> str:
        """The engine's name of a version that it knows from now on."""
        if version.number == 0:
            name = f"{base.name}/base"
            ref = VersionRef(name=name, digest=version.digest)
        else:
            ref = self.find_adapter(version.tenant, version.policy, version.name, version.digest)
        if ref.name not in base.engine.versions():
            await base.engine.load(ref)
        return ref.name

    def _failed(self, key: tuple[str, str, str], error: DayjobError) -> None:
        name = "/".join(key)
        self.failed_s[key] = time.monotonic()
        if self.hub.damaged.get(name) != str(error):
            log.error("version %s of %s does not serve: %s", key[2], key[1], error)
        self.hub.damaged[name] = str(error)

    def _well(self, key: tuple[str, str, str]) -> None:
        self.failed_s.pop(key, None)
        self.hub.damaged.pop("/".join(key), None)

    async def take_off(self, key: tuple[str, str]) -> Callable[[], None]:
        """Be the only one who answers for an id: waits for whoever does now. Gives what ends it, once."""
        while key in self.flights:
            await self.flights[key].wait()
        mine = self.flights[key] = asyncio.Event()

        def land() -> None:
            if self.flights.get(key) is mine:
                del self.flights[key]
                mine.set()

        return land

    def take(self, choices: int) -> None:
        """Places for that many answers. Raises Overloaded when there are too few; give them back with `give`."""
        if self.writing + choices > self.choices_limit:
            raise Overloaded(
                f"{self.writing} answers are being written or wait, and this server takes {self.choices_limit}: try "
                "again in a moment"
            )
        self.writing += choices

    def give(self, choices: int) -> None:
        """Give places back."""
        self.writing -= choices

    async def close(self) -> None:
        """Close every engine."""
        for base in self.bases.values():
            await base.engine.close()
