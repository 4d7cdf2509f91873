"""Environments by name: a spec in, an environment out.

A spec is JSON: ``{"env": name, **settings}``. The built-in names stand in a table here; packages that are installed may
add more through the entry-point group ``dayjob.environments``. A spec never names a module, so one that comes from a
journal, a request or a model can only ever ask for what was installed on purpose.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from dayjob.endings import Invalid
from dayjob.practice.protocol import Environment
from dayjob.records import Json

ENTRY_POINTS = "dayjob.environments"
_HOME = "dayjob.practice.environments"
# Each a callable that takes the settings by name; its module is imported when the name is first asked for.
BUILT_IN = {
    "arithmetic": f"{_HOME}.arithmetic:Arithmetic",
    "code": f"{_HOME}.code:Code",
    "fake": "dayjob.fakes_practice:FakeEnvironment",
    "both": "dayjob.practice.mutate:Both",
    "gym": "dayjob.practice.adapters.gym:Gym",
    "gymnasium": "dayjob.practice.adapters.gymnasium:Gymnasium",
    "lookup": f"{_HOME}.lookup:Lookup",
    "office": f"{_HOME}.office:Office",
    "program": f"{_HOME}.program:Program",
    "shown": "dayjob.practice.mutate:Shown",
    "strings": f"{_HOME}.strings:Strings",
    "verifiers": "dayjob.practice.adapters.verifiers:Verifiers",
    "world": f"{_HOME}.world:World",
}


# Beside their spec these need something in force that only a program can open (`environments.world.answering`).
ASSEMBLED = ("world",)


def names() -> tuple[str, ...]:
    """The names of which a spec is all that :func:`make` needs, sorted: the built-in ones and those of installed
    packages."""
    return tuple(sorted({*BUILT_IN, *_installed().names}.difference(ASSEMBLED)))


def make(spec: Json) -> Environment:
    """The environment of a spec.

    Raises Invalid for a spec without ``env``, an unknown name (the known ones are listed), a setting that the
    environment has not (those it has are listed), and whatever value the environment itself refuses.

    >>> make({"env": "arithmetic", "terms": 3}).spec["terms"]
    3
    """
    settings = dict(spec)
    name = settings.pop("env", None)
    if not isinstance(name, str):
        raise Invalid('an environment\'s spec needs "env", its name, such as {"env": "arithmetic"}', param="env")
    build = _find(name)
    signature = inspect.signature(build)
    try:
        signature.bind(**settings)
    except TypeError as error:
        known = ", ".join(signature.parameters) or "none"
        raise Invalid(f"environment {name!r}: {error}; its settings are: {known}", param="env") from None
    return build(**settings)


def digest(spec: Json) -> str:
    """16 hex digits that two specs share when they are equal as JSON, whatever the order of their keys."""
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.blake2b(text.encode("ascii"), digest_size=8).hexdigest()


def group_of(spec: Json, seed: int) -> str:
    """What attempts at one and the same task share: `Trajectory.group`."""
    return f"{digest(spec)}-{seed}"


def _find(name: str) -> Callable[..., Environment]:
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        return cast(Callable[..., Environment], getattr(importlib.import_module(module), attribute))
    found: list[EntryPoint] = list(_installed().select(name=name))
    if not found:
        raise Invalid(f"no environment is called {name!r}; there are: {', '.join(names())}", param="env")
    loaded: Any = found[0].load()
    return cast(Callable[..., Environment], loaded)


def _installed() -> Any:
    return entry_points(group=ENTRY_POINTS)
