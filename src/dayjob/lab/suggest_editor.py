"""The completer at work without a server: served, journaled, learned and judged by the parts that serve people.

Each suggestion is a session of its own, answered by whom the server's coin names. Learner and judge are those of
`dayjob learn` and `dayjob gate`, over a data directory on disk; only HTTP and the wall clock are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from random import Random
from uuid import UUID

import numpy as np

from dayjob.cli.bases import find_adapter
from dayjob.endings import Ending, JobState, OutcomeKind, PolicyKind, Receipt, VersionStatus
from dayjob.fakes import FakeClock
from dayjob.gate.language import LanguageJudge
from dayjob.journal.control import Control
from dayjob.journal.jobs import get_job
from dayjob.journal.notes import NotesReader
from dayjob.journal.readers import Reader
from dayjob.journal.store import Store, StoreConfig
from dayjob.lab.suggest_world import Context, Kind, Verdict, World
from dayjob.learn.language.collect import Layer, collect
from dayjob.learn.language.exam import Sides, examine
from dayjob.learn.language.job import Nights
from dayjob.learn.language.night import learn_night
from dayjob.learn.language.paper import Paper
from dayjob.learn.language.recipes import NightRecipe
from dayjob.learn.language.writing import BASE, Writer, Written
from dayjob.learn.loop import Learner
from dayjob.memory.notes import NotesMemory
from dayjob.policies.adapters import Adapter, file_digests, read_adapter
from dayjob.policies.engine_batch import Batch
from dayjob.policies.engine_protocol import VersionRef
from dayjob.policies.engine_transformers import load_model
from dayjob.policies.tokens import Tokens, pack_ids
from dayjob.records import Choice, Decision, Generation, Job, Json, Outcome, Policy, Version
from dayjob.records import Written as Receipts
from dayjob.serve.coin import Coin, Toss

TENANT, POLICY, MODEL, RECIPE = "default", "completer", "completer", "accept-reject"
BASELINE = "v0-baseline"
SLOTS, CONTEXT, ANSWER = 64, 32, 4  # rows at once; tokens
WINDOW_S = 60.0
WATCH_SHARE = 0.1
OTHER_WORK = 0.15  # of what is asked
VERDICTS: Mapping[Verdict, OutcomeKind] = {
    "accept": OutcomeKind.ACCEPT, "reject": OutcomeKind.REJECT, "none": OutcomeKind.NONE,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Typed:
    """One suggestion, or silence, as it was served and taken."""

    context: Context
    kind: Kind
    verdict: Verdict | None
    version: str


class Editor:
    """One completer's data directory, the people who type, and everything that learns and judges."""

    def __init__(self, root: Path, base: Path, *, world: World, recipes: Mapping[str, NightRecipe]) -> None:
        """``base``: the folder of the completer as it was brought up. ``recipes`` has ``RECIPE``."""
        self.root, self.base, self.world = root, base, world
        self.tokens = Tokens.open(base)
        self._batch = Batch(load_model(base), slots=SLOTS, max_tokens=CONTEXT)
        self._writer = Writer(self._batch, end_ids=self.tokens.end_ids, slots=SLOTS, context_tokens=CONTEXT)
        self.control, self.clock = Control(root), FakeClock(1_000_000)
        spec: Json = {"kind": "language", "base": MODEL, "recipe": RECIPE}
        baseline = Version(
            tenant=TENANT, policy=POLICY, name=BASELINE, number=0, parent=None, recipe="baseline", digest="0" * 64,
            from_seq=0, to_seq=0, status=VersionStatus.BASELINE, created_ms=0,
        )  # fmt: skip
        policy = Policy(tenant=TENANT, name=POLICY, kind=PolicyKind.LANGUAGE, spec=spec, created_ms=0)
        self.control.create_policy(policy, baseline)
        self._store = Store(
            root, secret=self.control.secret("journal"), find_spec=lambda *_: (PolicyKind.LANGUAGE, spec),
            config=StoreConfig(ballast_bytes=0),
        )  # fmt: skip
        self.reader = Reader(root)
        self.memory = NotesMemory(NotesReader(root), self.control, silent=frozenset, agree=3)
        nights = Nights(memory=self.memory, find_base=lambda _: base, recipes=recipes)
        self._learner = Learner(root, self.control, self.reader, threads=1, holder="lab", nights=nights)
        self._judge = LanguageJudge(self.control, self.reader, holder="lab", window_s=WINDOW_S, now_ms=self.clock)
        self._coin = Coin(secret=b"lab", watch_share=WATCH_SHARE)
        self._adapters: dict[str, Adapter] = {BASELINE: BASE}
        self._rng = Random(f"people {world.seed} {world.crowd.name}")
        self._contexts = world.contexts(typed=True)
        self._count = 0

    def close(self) -> None:
        """Let the data directory go."""
        self._store.close()
        self.control.db().close()

    # ---- by day

    def type(self, count: int) -> list[Typed]:
        """So many times somebody types, and does what people do with what is suggested. Other work comes between."""
        pointers = self.control.pointers(TENANT, POLICY)
        asked: list[tuple[str, Context | None, Toss]] = []
        while sum(context is not None for _, context, _ in asked) < count:
            self._count += 1
            toss = self._coin.toss(pointers, session=self._id("session"))
            if self._rng.random() < OTHER_WORK:
                asked.append((self.world.turned(self._rng)[0], None, toss))
            else:
                here = self._rng.choice(self._contexts)
                asked.append((here.text, here, toss))
        first = self._count - len(asked)
        answers = self._answers([(text, toss.version) for text, _, toss in asked], first=first)
        out, waiting = [], list[Future[Receipts]]()
        for at, ((text, context, toss), answer) in enumerate(zip(asked, answers, strict=True)):
            self._count = first + at + 1
            self.clock.advance(1_000)
            user = self._rng.randrange(self.world.people)
            decision = self._decision(text, toss, answer=answer, user=f"person{user}")
            waiting.append(self._store.append_decision(decision, ()))
            if context is not None:
                kind = self.world.kind(context, self.tokens.text(answer.token_ids))
                verdict = self.world.verdict(context, kind, user=user, rng=self._rng)
                if verdict is not None:
                    waiting.append(self._store.append_outcome(self._outcome(decision, VERDICTS[verdict])))
                out.append(Typed(context=context, kind=kind, verdict=verdict, version=toss.version))
        told = [future.result() for future in waiting]
        assert all(one.receipt is Receipt.RECORDED for one in told), told
        self.clock.advance(int(2_000 * WINDOW_S))
        return out

    def _answers(self, asked: Sequence[tuple[str, str]], *, first: int) -> list[Written]:
        """To (text, version) each."""
        said: dict[int, Written] = {}
        for version in dict.fromkeys(version for _, version in asked):
            places = [at for at, (_, name) in enumerate(asked) if name == version]
            prompts = [self.tokens.render(_chat(asked[at][0])) for at in places]
            found = self._writer.write(
                prompts, seeds=[first + at for at in places], max_tokens=ANSWER, adapter=self.adapter(version)
            )
            said |= dict(zip(places, found, strict=True))
        return [said[at] for at in range(len(asked))]

    def _id(self, what: str) -> str:
        return str(UUID(int=self._count << 8 | len(what)))

    def _decision(self, text: str, toss: Toss, *, answer: Written, user: str) -> Decision:
        """As the chat service journals it."""
        drawn = np.array(answer.logprobs, "<f4").tobytes()  # at temperature 1 the model's own are the same
        choice = Choice(
            token_ids=pack_ids(answer.token_ids), model_logprobs=drawn, sample_logprobs=drawn,
            versions=((toss.version, len(answer.token_ids)),), seed=self._count,
            ending=Ending.STOP if answer.ended else Ending.LENGTH, text=self.tokens.text(answer.token_ids),
        )  # fmt: skip
        sampling = {"temperature": 1.0, "top_p": 1.0, "max_tokens": ANSWER, "stop": [], "seed": None}
        generation = Generation(
            base=MODEL, messages=_chat(text), tools=(), prompt_ids=pack_ids(self.tokens.render(_chat(text))),
            bare_ids=b"", notes=(), sampling=sampling | {"top_logprobs": None}, choices=(choice,),
        )  # fmt: skip
        return Decision(
            tenant=TENANT, policy=POLICY, id=self._id("decision"), body_digest=bytes(16), user=user,
            session=self._id("session"), at_ms=self.clock(), version=toss.version, challenger=toss.challenger,
            role=toss.role, role_propensity=toss.role_propensity, explore=True, seed=self._count, epsilon=0.0,
            temperature=1.0, intervened=False, coin=toss.coin, context=b"", candidates=(), pair=b"", base=b"",
            score=b"", rival_score=b"", ranking=np.arange(1, dtype="<u2").tobytes(), propensity=b"",
            log_propensity=0.0, extra=toss.told, generation=generation,
        )  # fmt: skip

    def _outcome(self, decision: Decision, kind: OutcomeKind) -> Outcome:
        return Outcome(
            tenant=TENANT, id=self._id("outcome"), body_digest=bytes(16), policy="", decision=decision.id,
            session=None, kind=kind, item=None, position=None, value=None, text=None, source="human",
            user=decision.user, at_ms=self.clock(), received_ms=self.clock(), key_id="key",
        )  # fmt: skip

    # ---- by night, several times a day

    def learn(self, recipe: str = RECIPE) -> Job:
        """A night of the tenant's layer, and the judge's reading of what it made."""
        job = self._learner.ask(POLICY, recipe=recipe, tenant=TENANT)
        self._learner.step(watch_counts=False)
        done = self.job(job)
        assert done.state is JobState.SUCCEEDED, done.error
        self.judge()
        return done

    def job(self, job: Job) -> Job:
        """How it stands."""
        return get_job(self.control, TENANT, job.id)

    def examined(self, recipe: NightRecipe, *, at: NightRecipe, folder: Path) -> Json:
        """The exam, by the settings ``at``, of what another recipe would make of the same journal; not published. The
        adapter is known by the folder's name. Raises ValueError where that recipe makes none."""
        versions = {one.name for one in self.control.versions(TENANT, POLICY)}
        layer = Layer(tenant=TENANT, policy=POLICY, user=None, base=MODEL, method=recipe.method, versions=versions)
        found = collect(self.reader, self.memory, layer=layer, tokens=self.tokens, until=self.reader.last_seq())
        night = learn_night(self.base, found.material, recipe=recipe, seed=self.world.seed)
        night.save(folder, base=MODEL)
        ref = VersionRef(name=folder.name, digest=folder.name, folder=folder, files=file_digests(folder))
        self._adapters[folder.name] = read_adapter(ref, self._batch.adapters.shapes, max_rank=64)
        paper = Paper(split=found.split, taught=frozenset(one.lesson.id for one in found.split.train), suites={})
        sides = Sides(champion=None, new=ref, state=night.state)
        record = examine(self.base, paper, sides=sides, recipe=at, seed=self.world.seed).record
        return {"against": BASELINE} | record

    def judge(self) -> None:
        """Let the judge look until there is nothing to do."""
        while self._judge.step():
            pass

    def state(self, name: str) -> Json:
        """What was written of a version, or the judge's report; empty where there is none."""
        return self.control.state(TENANT, POLICY, name) or {}

    def adapter(self, version: str) -> Adapter:
        """A version as the engine reads it."""
        if version not in self._adapters:
            digest = self.control.version(TENANT, POLICY, version).digest
            ref = find_adapter(self.root, TENANT, POLICY, version, digest)
            self._adapters[version] = read_adapter(ref, self._batch.adapters.shapes, max_rank=64)
        return self._adapters[version]

    # ---- what only the simulation knows

    def says(self, contexts: Sequence[Context], version: str, *, greedy: bool) -> list[Kind]:
        """What a version suggests to each; drawn as it is served, or its most probable answer."""
        prompts = [self.tokens.render(_chat(one.text)) for one in contexts]
        written = self._writer.write(
            prompts, seeds=list(range(len(prompts))), max_tokens=ANSWER, temperature=float(not greedy),
            adapter=self.adapter(version),
        )  # fmt: skip
        texts = [self.tokens.text(one.token_ids) for one in written]
        return [self.world.kind(context, text) for context, text in zip(contexts, texts, strict=True)]

    def turns(self, version: str, *, count: int = 60) -> float:
        """The share of other work that a version still gets right, greedily."""
        rng = Random("other work")
        asked = [self.world.turned(rng) for _ in range(count)]
        prompts = [self.tokens.render(_chat(text)) for text, _ in asked]
        said = self._writer.write(
            prompts, seeds=[0] * count, max_tokens=ANSWER, temperature=0, adapter=self.adapter(version)
        )
        texts = [self.tokens.text(one.token_ids) for one in said]
        return sum(text == answer for text, (_, answer) in zip(texts, asked, strict=True)) / count


def _chat(text: str) -> tuple[Json, ...]:
    return ({"role": "user", "content": text},)
