"""What a learner lacks for a job that another learner could do: such a job stays queued, it does not fail."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from dayjob.endings import Invalid, PolicyKind
from dayjob.journal.jobs import budget_of
from dayjob.records import Policy

if TYPE_CHECKING:
    from dayjob.learn.language.job import Nights

NEEDED = ("transformers", "tokenizers", "safetensors")
NEEDS_LANGUAGE = "learning a language policy needs {missing}, which is not installed: pip install 'dayjob[language]'"
NO_NIGHTS = "this learner knows no base model: add [bases.{base}] to the dayjob.toml that it reads, then ask again"
NO_DREAMS = "this learner does not dream: ask one that was started with `dayjob learn`"


def lacking(policy: Policy, *, recipe: str, nights: Nights | None, dreams: bool) -> str:
    """Why a learner cannot do a job of ``policy`` with ``recipe``, in words that name the remedy; "" where it can.

    ``nights``: what it has for language policies; ``dreams``: whether it dreams.
    """
    if budget_of(recipe) is not None and not dreams:
        return NO_DREAMS
    if policy.kind is not PolicyKind.LANGUAGE:
        return ""
    missing = next((one for one in NEEDED if importlib.util.find_spec(one) is None), None)
    if missing is not None:
        return NEEDS_LANGUAGE.format(missing=missing)
    base = str(policy.spec["base"])
    if nights is None:
        return NO_NIGHTS.format(base=base)
    try:
        nights.find_base(base)
    except Invalid as error:
        return str(error)
    return ""
