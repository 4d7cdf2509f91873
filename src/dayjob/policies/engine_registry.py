"""Which versions an engine knows, and what its aliases mean. Standard library only."""

from __future__ import annotations

from dayjob.endings import Conflict, NotFound
from dayjob.policies.engine_protocol import VersionRef


class Registry:
    """Names of versions and aliases. A version's name means the same content for ever."""

    def __init__(self) -> None:
        self._known: dict[str, VersionRef] = {}
        self._aliases: dict[str, str] = {}

    def check(self, ref: VersionRef) -> None:
        """Raises Conflict when the name belongs to other content, or is an alias."""
        if ref.name in self._aliases:
            raise Conflict(f"{ref.name} is an alias here: give the version another name")
        if self._known.get(ref.name, ref).digest != ref.digest:
            message = f"version {ref.name} is known with other content: a version never changes, give it a new name"
            raise Conflict(message)

    def know(self, ref: VersionRef) -> None:
        """From now on the name may be asked for. Raises as :meth:`check` does."""
        self.check(ref)
        self._known[ref.name] = ref

    def resolve(self, name: str) -> VersionRef:
        """Raises NotFound for a name that is neither a known version nor an alias."""
        ref = self._known.get(self._aliases.get(name, name))
        if ref is None:
            raise _unknown(name)
        return ref

    def point(self, alias: str, ref: VersionRef) -> None:
        """Let an alias mean a known version. Raises Conflict when the alias is a version's name."""
        if alias in self._known:
            raise Conflict(f"{alias} is a version's name: choose another alias")
        self._aliases[alias] = ref.name

    def drop(self, name: str) -> None:
        """Forget a version. Raises NotFound, or Conflict while an alias means it."""
        alias = next((alias for alias, target in self._aliases.items() if target == name), None)
        if alias is not None:
            raise Conflict(f"{alias} means version {name}: swap it to another version first")
        if self._known.pop(name, None) is None:
            raise _unknown(name)

    def names(self) -> dict[str, str]:
        """Versions and aliases, each with the version it means."""
        return {name: name for name in list(self._known)} | self._aliases


def _unknown(name: str) -> NotFound:
    return NotFound(f"no version {name!r} here: load it first, or ask for one of those that are listed")
