"""Dreams among the learner's jobs: who does them, and which are asked for by themselves. Reads no torch before one is
done: a learner of rankers does without what language needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dayjob.config import Config
from dayjob.endings import Invalid, PolicyKind
from dayjob.journal.control import Control, put_state
from dayjob.journal.jobs import budget_of, dream_recipe, request_job
from dayjob.journal.layers import layers
from dayjob.journal.readers import Reader
from dayjob.practice.sandbox import available
from dayjob.records import Policy

if TYPE_CHECKING:
    from dayjob.learn.language.job import Nights
    from dayjob.learn.work import Made, Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Dreamer:
    """Does the dreams among the learner's jobs."""

    settings: Config
    control: Control
    reader: Reader
    nights: Nights | None

    def lacks(self, policy: Policy) -> str:
        """Why nobody can dream of a policy here, in words; "" where they can."""
        missing = None if policy.kind is PolicyKind.RANKER else available()
        return "" if missing is None else f"a dream runs programs in the sandbox only, and {missing}"

    def __call__(self, work: Work) -> Made:
        """One dream, by the policy's kind. Raises Invalid where the sandbox or the base is missing."""
        # What each kind needs is heavy, and this module is read by every learner.
        if work.policy.kind is PolicyKind.RANKER:
            from dayjob.cli.dream_rankers import dream_of_ranker

            return dream_of_ranker(work, control=self.control, reader=self.reader)
        missing = self.lacks(work.policy)
        if missing:
            raise Invalid(missing)
        if self.nights is None:
            raise Invalid("this learner knows no base model: add [bases.NAME] to the dayjob.toml that it reads")
        from dayjob.cli.dreaming import dream_layer

        return dream_layer(work, self.nights, control=self.control, reader=self.reader, settings=self.settings)


def ask_after_nights(control: Control, *, budget: float) -> None:
    """A dream for every layer of a language policy whose newest version is a night's that none was asked for."""
    for policy in control.policies():
        if policy.kind is not PolicyKind.LANGUAGE:
            continue
        for address in (policy.name, *layers(control, policy.tenant, policy.name)):
            newest = control.versions(policy.tenant, address)[-1]
            asked = control.state(policy.tenant, address, "dreamt") or {}
            if not newest.number or budget_of(newest.recipe) is not None or asked.get("after") == newest.name:
                continue
            request_job(control, policy.tenant, address, recipe=dream_recipe(budget))
            with control.write() as db:
                put_state(db, policy.tenant, address, name="dreamt", state={"after": newest.name})
