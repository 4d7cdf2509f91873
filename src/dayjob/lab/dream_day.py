"""A short day at the depot, in a real journal: the clerk is asked, a person shows the call, the application answers.

An interaction is two decisions. The clerk answers a request; whatever that is, the person shows the call that does it
(a demonstration), and the application runs that. Then the clerk, which reads the application's answer, has the last
words, and the person dislikes them: nothing was asked that words could answer. Everything is one person's, and so is
the layer that learns from it. No notes are placed: what is measured is what the weights know.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dayjob.cli.transfer import baseline
from dayjob.endings import Ending, Invalid, OutcomeKind, PolicyKind, Receipt, Role
from dayjob.journal.control import Control
from dayjob.journal.store import Store, StoreConfig
from dayjob.lab.clerk_desk import TEMPERATURE, Desk
from dayjob.lab.dream_depot import Application, Depot, Request
from dayjob.learn.language.writing import Written
from dayjob.policies.tokens import pack_ids
from dayjob.records import Choice, Decision, Generation, Json, Outcome, Policy
from dayjob.serve.wire import LanguageSpec

TENANT, POLICY, USER, BASE = "default", "clerk", "ann", "clerk"
RECIPE = "sft-answers"  # a demonstration is the answer
AT_MS = 1_000_000_000_000  # no order depends on it
_IDS = uuid.UUID("5d0e6a52-7d0f-4f39-9b7e-2c1f6b1a9d41")  # ids of a day's records derive from what is in them


def record_day(root: Path, desk: Desk, *, depot: Depot, asked: Sequence[Request], seed: int) -> None:
    """Make a data directory that holds the day. Equal arguments, equal records. Raises Invalid where the journal takes
    a record for something else."""
    control = Control(root)
    spec = LanguageSpec(kind="language", base=BASE, recipe=RECIPE).model_dump(mode="json")
    policy = Policy(tenant=TENANT, name=POLICY, kind=PolicyKind.LANGUAGE, spec=spec, created_ms=AT_MS)
    control.create_policy(policy, baseline(TENANT, POLICY))
    store = Store(
        root, secret=control.secret("journal"), find_spec=lambda *_: (PolicyKind.LANGUAGE, spec),
        config=StoreConfig(ballast_bytes=0),
    )  # fmt: skip
    try:
        _play(store, desk, depot=depot, asked=asked, seed=seed)
    finally:
        store.close()


def conversations(depot: Depot, asked: Sequence[Request]) -> list[tuple[Json, ...]]:
    """Each request with the call that was shown and what the application, which has one state all day, answered."""
    application = Application(depot.morning())
    return [
        (
            {"role": "user", "content": one.text},
            {"role": "assistant", "content": one.said},
            {"role": "tool", "content": application.call(one.call)},
        )
        for one in asked
    ]


def _play(store: Store, desk: Desk, *, depot: Depot, asked: Sequence[Request], seed: int) -> None:
    whole = conversations(depot, asked)
    read = [messages for one in whole for messages in (one[:1], one)]
    seeds = [int.from_bytes(_digest(seed, place)[:8], "big") for place in range(len(read))]
    written = desk.answer(read, seeds=seeds, temperature=TEMPERATURE)
    for place, (messages, answer) in enumerate(zip(read, written, strict=True)):
        decision = _decision(desk, messages, answer, name=_digest(seed, place), draws=seeds[place])
        _kept(store.append_decision(decision).result().receipt)
        if len(messages) == 1:
            said = _outcome(decision, OutcomeKind.DEMONSTRATION, text=asked[place // 2].said)
        else:
            said = _outcome(decision, OutcomeKind.THUMB, value=-1)
        _kept(store.append_outcome(said).result().receipt)


def _kept(receipt: Receipt) -> None:
    if receipt is not Receipt.RECORDED:
        raise Invalid(f"the journal of the day says {receipt}: give it an empty folder", param="data")


def _digest(seed: int, place: int) -> bytes:
    return hashlib.blake2b(f"depot {seed} {place}".encode(), digest_size=16).digest()


def _decision(desk: Desk, messages: tuple[Json, ...], answer: Written, *, name: bytes, draws: int) -> Decision:
    """As the server keeps an answer of its own."""
    ids, end = answer.token_ids, desk.tokens.end_ids
    choice = Choice(
        token_ids=pack_ids(ids), model_logprobs=np.array(answer.model_logprobs, "<f4").tobytes(),
        sample_logprobs=np.array(answer.logprobs, "<f4").tobytes(), versions=(("v0-baseline", len(ids)),), seed=draws,
        ending=Ending.STOP if answer.ended else Ending.LENGTH,
        text=desk.tokens.text([one for one in ids if one not in end]),
    )  # fmt: skip
    generation = Generation(
        base=BASE, messages=messages, tools=(), prompt_ids=pack_ids(desk.tokens.render(messages)), bare_ids=b"",
        notes=(), choices=(choice,),
        sampling={"temperature": TEMPERATURE, "top_p": 1.0, "max_tokens": len(ids), "stop": [], "seed": None,
                  "top_logprobs": None},
    )  # fmt: skip
    return Decision(
        tenant=TENANT, policy=POLICY, id=str(uuid.uuid5(_IDS, name.hex())), body_digest=name, user=USER, session=None,
        at_ms=AT_MS, version="v0-baseline", challenger=None, role=Role.CHAMPION, role_propensity=1.0, explore=True,
        seed=draws, epsilon=0.0, temperature=TEMPERATURE, intervened=False, coin=0, context=b"", candidates=(),
        pair=b"", base=b"", score=b"", rival_score=b"", ranking=np.zeros(1, "<u2").tobytes(), propensity=b"",
        log_propensity=0.0, generation=generation,
    )  # fmt: skip


def _outcome(about: Decision, kind: OutcomeKind, *, text: str | None = None, value: float | None = None) -> Outcome:
    return Outcome(
        tenant=TENANT, id=str(uuid.uuid5(_IDS, f"{about.id} {kind}")), body_digest=about.body_digest, policy="",
        decision=about.id, session=None, kind=kind, item=None, position=None, value=value, text=text, source="human",
        user=USER, at_ms=AT_MS, received_ms=AT_MS, key_id="lab",
    )  # fmt: skip
