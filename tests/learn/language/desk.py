"""A journal in which people of an office talk to a language policy, served as the server serves: notes placed, prompts
rendered, every token kept."""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dayjob.endings import Ending, NoteScope, OutcomeKind, Receipt, Role
from dayjob.fakes import fake_generation, fake_outcome
from dayjob.learn.language.collect import Gathered, Layer, collect
from dayjob.learn.language.splits import Asking
from dayjob.memory.lessons import last_question
from dayjob.memory.notes import Question
from dayjob.memory.render import with_notes
from dayjob.policies.tokens import Tokens, pack_ids
from dayjob.records import Choice, Decision, Json
from tests.memory.office import POLICY, Office

TENANT, BASE = "t", "tiny"
VERSIONS = ("v0-baseline", "v1-0a1b2c3d")  # of the tenant's layer
OWN = "v1-4e5f6a7b"  # of a person's


class Desk(Office):
    """Ann asks unless somebody else is named."""

    def __init__(self, root: Path, tokens: Tokens, *, agree: int = 3) -> None:
        super().__init__(root, agree=agree)
        self.tokens = tokens

    def chat(
        self, question: str, *, user: str | None = "ann", session: str | None = None,
        said: Sequence[str] = ("no idea",), before: Sequence[tuple[str, str]] = (), system: str = "",
        writer: str = "v0-baseline", tools: Sequence[Json] = (), **fields,
    ) -> Decision:  # fmt: skip
        """An answer, or several, in the journal. ``before``: earlier turns; ``writer``: the version that wrote its
        tokens; ``tools``: offered to the model; ``fields``: of the decision."""
        messages = [{"role": "system", "content": system}] if system else []
        for asked, answered in before:
            messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
        messages.append({"role": "user", "content": question})
        asked = Question(
            user=user, session=session, text=last_question(messages), version="v0-baseline", budget=512,
            count=lambda text: len(self.tokens.encode(text)),
        )  # fmt: skip
        placed = self.memory.place(TENANT, POLICY, asked)
        number = next(self.numbers)
        decision = fake_generation(number, ["?"])
        assert decision.generation is not None
        generation = replace(
            decision.generation, base=BASE, messages=tuple(messages), notes=placed.ids,
            prompt_ids=pack_ids(self.tokens.render(with_notes(messages, placed.text), tools=tools)), tools=tuple(tools),
            bare_ids=pack_ids(self.tokens.render(messages, tools=tools)) if placed.ids else b"",
            choices=tuple(self.choice(text, writer) for text in said),
        )  # fmt: skip
        decision = replace(
            decision, tenant=TENANT, id=str(uuid.UUID(int=number)), user=user, session=session, generation=generation,
            temperature=1.0, ranking=np.arange(len(said), dtype="<u2").tobytes(), **{"role": Role.CHAMPION} | fields,
        )  # fmt: skip
        assert self.store.append_decision(decision).result().receipt is Receipt.RECORDED
        return decision

    def choice(self, text: str, writer: str) -> Choice:
        """A whole answer, its end included, each token drawn with log-probability -.5."""
        ids = (*self.tokens.encode(text), min(self.tokens.end_ids))
        drawn = np.full(len(ids), -0.5, "<f4").tobytes()
        return Choice(
            token_ids=pack_ids(ids), model_logprobs=drawn, sample_logprobs=drawn,
            versions=((writer, len(ids)),), seed=1, ending=Ending.STOP, text=text,
        )  # fmt: skip

    def tell(
        self, about: Decision | None, kind: OutcomeKind, value: object = None, *, text: str | None = None,
        session: str | None = None, user: str | None = None, item: str | None = None,
    ) -> str:  # fmt: skip
        """An outcome of a decision, or of a session; its id."""
        name = str(uuid.UUID(int=next(self.numbers)))
        outcome = replace(
            fake_outcome(0, None if about is None else about.id, kind=kind), id=name, tenant=TENANT, text=text,
            session=session, value=value, user=user, item=item,
        )  # fmt: skip
        written = self.store.append_outcome(outcome).result()
        assert written.receipt is Receipt.RECORDED, written
        return name

    def correct(self, question: str, text: str, *, kind: OutcomeKind = OutcomeKind.CORRECTION, **asking) -> str:
        """Ask and correct the answer; the note's id."""
        return self.tell(self.chat(question, **asking), kind, text=text)

    def gather(self, *, user: str | None = "ann", method: str = "consolidate", until: int | None = None) -> Gathered:
        """What a layer gets."""
        layer = Layer(
            tenant=TENANT, policy=POLICY, user=user, base=BASE, method=method, silent=frozenset(self.silent),
            versions=VERSIONS,
        )  # fmt: skip
        reader = self.memory._reader
        newest = reader.last_seq() if until is None else until
        return collect(reader, self.memory, layer=layer, tokens=self.tokens, until=newest)

    def askings(self, **layer) -> dict[str, Asking]:
        """What a layer learns from, is stopped by and is asked about, by the last question."""
        return {last_question(one.lesson.question): one for one in self.gather(**layer).split.askings}


def share(desk: Desk, note: str) -> None:
    """Make a note the tenant's."""
    desk.memory.share(desk.memory.find(TENANT, [POLICY], note), scope=NoteScope.TENANT, by="admin")


def content(messages: Sequence[Json]) -> list[str]:
    """The words of a conversation."""
    return [one["content"] for one in messages]
