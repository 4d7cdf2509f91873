"""A journal in which people of an office teach a language policy, and the memory over it."""

import itertools
import uuid
from dataclasses import replace
from pathlib import Path

from dayjob.endings import OutcomeKind, Receipt
from dayjob.fakes import fake_generation, fake_outcome, find_fake_spec
from dayjob.journal.control import Control
from dayjob.journal.notes import NotesReader
from dayjob.journal.store import Store, StoreConfig
from dayjob.memory.notes import NotesMemory, Question
from dayjob.memory.render import Placed
from dayjob.records import Decision

POLICY = "chat"


def words(text: str) -> int:
    """A stand-in for a tokenizer."""
    return len(text.split())


def asked(number: int, question: str, *, tenant: str = "t", user: str | None = None, session: str | None = None,
          answers: tuple[str, ...] = ("no idea",)) -> Decision:  # fmt: skip
    """A decision that answered a question."""
    decision = fake_generation(number, answers)
    assert decision.generation is not None
    messages = ({"role": "system", "content": "be kind"}, {"role": "user", "content": question})
    generation = replace(decision.generation, messages=messages)
    return replace(
        decision, tenant=tenant, user=user, session=session, id=str(uuid.UUID(int=number)), generation=generation
    )


class Office:
    """A data directory with its writer; `memory` reads it."""

    def __init__(self, root: Path, *, agree: int = 3) -> None:
        self.root = root
        self.control = Control(root)
        self.store = Store(
            root,
            secret=self.control.secret("journal"),
            find_spec=find_fake_spec,
            config=StoreConfig(ballast_bytes=0),
        )
        self.silent: set[tuple[str, str]] = set()
        self.memory = self.open(agree=agree)
        self.numbers = itertools.count(1)

    def open(self, *, agree: int = 3) -> NotesMemory:
        """The memory as another process would open it."""
        return NotesMemory(NotesReader(self.root), self.control, silent=lambda: self.silent, agree=agree)

    def teach(
        self,
        question: str,
        text: str | None,
        *,
        user: str | None = "ann",
        tenant: str = "t",
        session: str | None = None,
        kind: OutcomeKind = OutcomeKind.CORRECTION,
        item: str | None = None,
        answers: tuple[str, ...] = ("no idea",),
    ) -> str:
        """Ask, get an answer, correct it; the outcome's id."""
        decision = asked(next(self.numbers), question, tenant=tenant, user=user, session=session, answers=answers)
        assert self.store.append_decision(decision).result().receipt is Receipt.RECORDED
        return self.say(decision.id, text, tenant=tenant, kind=kind, item=item)

    def say(
        self,
        decision: str | None,
        text: str | None,
        *,
        tenant: str = "t",
        session: str | None = None,
        kind: OutcomeKind = OutcomeKind.CORRECTION,
        item: str | None = None,
        value: str | None = None,
    ) -> str:
        """An outcome of a decision or a session; its id."""
        name = str(uuid.UUID(int=next(self.numbers)))
        outcome = replace(
            fake_outcome(0, decision, kind=kind), id=name, tenant=tenant, text=text, session=session, item=item,
            value=value,
        )  # fmt: skip
        written = self.store.append_outcome(outcome).result()
        assert written.receipt is Receipt.RECORDED, written
        return name

    def retract(self, outcome: str, decision: str | None, *, tenant: str = "t") -> None:
        self.say(decision, None, tenant=tenant, kind=OutcomeKind.RETRACT, value=outcome)

    def erase(self, user: str, *, tenant: str = "t") -> None:
        self.store.erase_user(tenant, user).result()

    def ask(
        self, text: str, *, user: str | None = "ann", tenant: str = "t", session: str | None = None,
        version: str = "v0-baseline", budget: int = 200,
    ) -> Placed:  # fmt: skip
        """What stands in the context of a question."""
        question = Question(user=user, session=session, text=text, version=version, budget=budget, count=words)
        return self.memory.place(tenant, POLICY, question)

    def close(self) -> None:
        self.store.close()
