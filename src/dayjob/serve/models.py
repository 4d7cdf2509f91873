"""Language policies as they serve: which version answers a request, on which engine; and what ``model`` may name.

Promise 4 for language: a version is read and verified by its engine before its first token; one that does not load
never serves, and the last good one goes on. A moved pointer counts for the next request; nothing waits for a swap.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

from dayjob.endings import Damaged, DayjobError, NotFound, Overloaded, Role
from dayjob.journal.layers import address_of, is_personal, policy_of
from dayjob.journal.steering import check_may_serve
from dayjob.policies.engine_protocol import Engine, VersionRef, salt_of
from dayjob.records import Json, Version
from dayjob.serve.coin import Coin, Toss
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
    challenger: str | None = None  # the version on trial, whichever of the two answers
    coin: int = 0  # +1: the challenger answers, -1: the champion; 0: no coin was thrown
    role_propensity: float = 1.0  # probability of the coin that fell
    told: Json = field(default_factory=dict)  # the versions that the coin chose among, and the chance of each

    def version_of(self, engine_name: str) -> str:
        """The version of this policy that a token's stamp means."""
        return self.version if engine_name == self.engine_name else engine_name.rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A policy that a chat asked for, as it stands."""

    tenant: str
    policy: str
    spoken: Spoken
    base: OpenBase


@dataclass(slots=True, kw_only=True)
class Voices:
    """Every language policy of this server."""

    hub: Hub
    bases: Mapping[str, OpenBase]
    find_adapter: FindAdapter
    coin: Coin
    choices_limit: int
    writing: int = 0  # answers being written or waiting
    flights: dict[tuple[str, str], asyncio.Event] = field(default_factory=dict)  # (tenant, id) being answered
    failed_s: dict[tuple[str, str, str], float] = field(default_factory=dict)  # when a version last did not load
    own: dict[tuple[str, str, str], tuple[Engine, str]] = field(default_factory=dict)  # of people, that engines know

    async def find(self, tenant: str, model: str, *, user: str | None, session: str) -> Voice:
        """Who answers for ``policy``, ``policy@champion``, ``policy@baseline`` or ``policy@VERSION``.

        ``user``: whom the request speaks for; what was promoted for them alone answers before the tenant's.
        ``session``: what stays with one version while one is on trial (a conversation, else the decision alone).

        Raises UnknownModel, Damaged where the named version or every version does not load, Conflict where the named
        version learned from someone since erased.
        """
        policy, _, tag = model.partition("@")
        spoken = self._spoken(tenant, policy)
        asked = _Asked(tenant=tenant, policy=policy, spoken=spoken, base=self.base(str(spoken.spec["base"])))
        if tag not in ("", "champion"):
            return await self._pinned(asked, spoken.pointers.baseline if tag == "baseline" else tag, user=user)
        if user is not None and spoken.frozen != "baseline":
            own = await self._own(asked, user)
            if own is not None:
                return own
        return await self._tenants(asked, user=user, session=session)

    async def _pinned(self, asked: _Asked, name: str, *, user: str | None) -> Voice:
        """A version that was named: the tenant's, or one of the person whom the request speaks for."""
        control = self.hub.control
        for owner in (None, user) if user is not None else (None,):
            address = address_of(control, asked.tenant, asked.policy, owner)
            try:
                check_may_serve(control.version(asked.tenant, address, name))
            except NotFound:
                continue
            return await self._voice(asked, address, [name], role=Role.PINNED)
        raise UnknownModel(
            f"policy {asked.policy!r} has no version {name!r}: GET /v1/policies/{asked.policy}/versions lists them"
        )

    async def _own(self, asked: _Asked, user: str) -> Voice | None:
        """What was promoted for a person alone; None where nothing was, and where it does not load.

        Their pointers are read anew for every answer: a rollback counts for the next one, an erasure too.
        """
        address = address_of(self.hub.control, asked.tenant, asked.policy, user)
        try:
            pointers = self.hub.control.pointers(asked.tenant, address)
        except NotFound:
            return None
        aside = pointers.champion == pointers.baseline or pointers.frozen == "baseline"
        if aside or self._rests((asked.tenant, address, pointers.champion)):
            return None
        try:
            return await self._voice(asked, address, [pointers.champion], role=Role.CHAMPION)
        except Damaged:
            return None  # it was logged, and health says so

    async def _tenants(self, asked: _Asked, *, user: str | None, session: str) -> Voice:
        """What answers for everybody who has nothing of their own: the champion, or whom the coin of the session names.

        No coin is thrown while the policy is frozen, or for people who are never learned from. Where the version it
        chose does not load, another answers and the coin stays: a trial compares what people got on either side of it.
        """
        pointers, frozen = asked.spoken.pointers, asked.spoken.frozen
        aside = bool(frozen) or (asked.tenant, user) in self.hub.silent
        toss = Toss(version=pointers.champion) if aside else self.coin.toss(pointers, session=session)
        wanted = [pointers.baseline] if frozen == "baseline" else [toss.version, pointers.champion]
        wanted += [name for name in (pointers.previous, pointers.baseline) if name]
        voice = await self._voice(asked, asked.policy, list(dict.fromkeys(wanted)), role=toss.role)
        return replace(
            voice, challenger=toss.challenger, coin=toss.coin, role_propensity=toss.role_propensity, told=toss.told
        )

    async def _voice(self, asked: _Asked, address: str, wanted: Sequence[str], *, role: Role) -> Voice:
        """The first of a layer's versions that loads. Raises Damaged where none does."""
        version, engine_name = await self._first_that_loads(asked.tenant, address, wanted, base=asked.base)
        return Voice(policy=asked.policy, version=version, role=role, base=asked.base, engine_name=engine_name)

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
        self, tenant: str, address: str, wanted: Sequence[str], *, base: OpenBase
    ) -> tuple[str, str]:
        fault: DayjobError = Damaged(f"no version of policy {policy_of(address)!r} loads")
        for name in wanted:
            key = (tenant, address, name)
            if self._rests(key) and name != wanted[-1]:
                continue
            try:
                loaded = await self._load(self.hub.control.version(*key), base)
            except (Damaged, NotFound) as error:
                self._failed(key, error)
                fault = error
            else:
                self._well(key)
                return name, loaded
        raise Damaged(str(fault))

    def _rests(self, key: tuple[str, str, str]) -> bool:
        """Whether a version did not load a moment ago: reading it again for every answer would cost everybody."""
        return time.monotonic() - self.failed_s.get(key, -LOOK_AGAIN_S) < LOOK_AGAIN_S

    async def _load(self, version: Version, base: OpenBase) -> str:
        """The engine's name of a version that it knows from now on."""
        if version.number == 0:
            name = f"{base.name}/base"
            ref = VersionRef(name=name, digest=version.digest)
        else:
            ref = self.find_adapter(version.tenant, version.policy, version.name, version.digest)
        if is_personal(version.policy):  # before it is read: whoever is erased meanwhile is forgotten all the same
            self.own[version.tenant, version.policy, version.name] = base.engine, ref.name
        # A person's adapter may have been put out of memory for others' and damaged on disk since: looked at each time.
        if ref.name not in base.engine.versions() or is_personal(version.policy):
            await base.engine.load(ref)
        return ref.name

    async def forget(self, tenant: str, user: str, gone: Iterable[tuple[str, str]]) -> None:
        """Put out of memory what was computed for a person, and their versions, as (address, name)."""
        for address, name in gone:
            key = (tenant, address, name)
            self.failed_s.pop(key, None)
            self.hub.unsay(tenant, address)
            engine, engine_name = self.own.pop(key, (None, ""))
            if engine is not None:
                with suppress(NotFound):
                    await engine.drop(engine_name)
        for base in self.bases.values():
            await base.engine.forget(salt_of(tenant, user))

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
