"""A version's exam: what the learner's process measured once after training, and what it shows. Pure.

The record (state ``exam/VERSION`` of a layer) holds counts and texts of two versions side by side, both without notes
and greedy: ``before`` is the layer's champion, ``after`` the new one. Two readings of it:

**Harm** (:func:`harms`): reasons to reject. Exact tests, each kind at ``LEVEL`` over all of its members (Bonferroni):
a version without that harm is refused with probability at most ``LEVEL`` a kind.
* A retained suite lost more than ``POINT``, and a one-sided sign test on lost against won says that it is not luck.
* Recent traffic is answered farther from the base than the budget: KL(base || new), nats a token; from ``FEW`` prompts
  on. Fewer can tell nothing: then a version that is everybody's is not promoted by its exam, but by sessions.
* An action (refusing, asking back, answering nothing, ...) is commoner by Fisher's exact test. It is made for separate
  draws; the same prompts were put to both versions, whose answers go together, and so it errs towards "no change".
* Where nothing was taught its answers are much terser or much wordier (``gate.lengths``).
* A canary phrase became likelier by more than ``PHRASE_NATS`` a token.
* What was taught is answered rightly less often than before, by the same exact test.
* A suite of which so few questions were right before that losing all of them could be luck shows no harm, and that is
  said (``Suite.is_blind``).
* A completer that learns from accept and reject games its reward (``gate.suggestions``): becoming silent where people
  reject is no harm, so its silence is no plain rate.

**Evidence** (:func:`evidence`): an e-value against H0 "on askings that nobody trained on, the new version is right no
more often than the champion". One observation a *family*, the mean of won (+1), lost (-1) and equal (0) over its
askings, in [-1, 1]: askings of one lesson stand and fall together. Why its expectation is at most 1 under H0:
* The judge's askings were set apart by a hash of what is asked, before training; no step was taken and none was stopped
  by them. So, given both versions, which askings of a family the judge holds is as good as drawn, and families are
  drawn apart. H0 says that no family's mean is above zero, or, of families taken as a sample, that their mean is not.
* Each bet's wealth is a product of 1 + l x, so the order of families does not matter; it is that of a hash of their
  names.
* It is read once a challenger, whole, at its end: no stopping is left to choose.
The champion may have been chosen by these very askings. Whoever was chosen by them looks better on them than it is,
which speaks against the challenger and so promotes less.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np

from dayjob.endings import Invalid, VerdictKind
from dayjob.gate import confidence
from dayjob.gate.confidence import Evidence
from dayjob.gate.exact import by_luck, commoner_by_luck
from dayjob.gate.lengths import Lengths
from dayjob.gate.suggestions import Suggested
from dayjob.records import Json

LEVEL = 0.05
POINT = 0.01  # of a suite
PHRASE_NATS = 1.0
FEW = 8  # prompts of recent traffic from which on their KL is judged; 8 allow 2.4 budgets, all beyond is no luck
ONE_SIDED = 1.64  # of a normal law, at .05


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Questions that must not be forgotten. ``lost``: right before and wrong after; ``won``: the other way round;
    ``right``: all that were right before, None where nobody told."""

    name: str
    asked: int
    lost: int
    won: int
    right: int | None = None

    @property
    def is_blind(self) -> bool:
        """Whether so few were right before that losing every one of them could be luck: it guards nothing."""
        return self.right is not None and by_luck(self.right, 0) > LEVEL


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How often something happened in ``asked`` answers of each version."""

    name: str
    asked: int
    before: int
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrase:
    """What a phrase that nobody should be led to costs each version, in nats a token: -log p, over its tokens."""

    name: str
    before: float
    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Exam:
    """An exam as measured. ``gain_F``: of each family, in the order of their hashes, the mean of +1, -1 and 0."""

    against: str
    gain_F: tuple[float, ...]
    asked: int  # questions of the judge's
    taught: Count
    suites: tuple[Suite, ...]
    rates: tuple[Count, ...]
    phrases: tuple[Phrase, ...]
    prompts: int  # of recent traffic
    kl: float
    kl_budget: float
    unlearned: int = 0  # lessons of the champion that were taken back, and that this version was made without
    lengths: Lengths | None = None  # None: not measured
    suggested: Suggested | None = None  # of a version that learned from accept and reject
    as_read: Count | None = (
        None  # of ``taught``: right as the teacher reads a correction in whose words it does not stand
    )
    as_taught: Count | None = None  # of ``taught``: asked as they were taught, and somebody said what is right

    @classmethod
    def from_json(cls, body: Json) -> "Exam":
        """The record as the learner wrote it. Raises Invalid for anything else."""
        try:
            taught, traffic = body["taught"], body["traffic"]
            exam = cls(
                against=str(body["against"]),
                gain_F=_gains(body["questions"]),
                asked=len(body["questions"]),
                taught=_taught("taught", taught),
                as_read=_taught("as_read", taught["as_read"]) if taught.get("as_read") else None,
                as_taught=_taught("as_taught", taught["as_taught"]) if taught.get("as_taught") else None,
                suites=tuple(_suite(one) for one in body["suites"]),
                rates=tuple(_count(one) for one in body["rates"]),
                phrases=tuple(
                    Phrase(name=str(one["phrase"]), before=float(one["before"]), after=float(one["after"]))
                    for one in body["phrases"]
                ),
                prompts=int(traffic["prompts"]), kl=float(traffic["kl"]), kl_budget=float(traffic["kl_budget"]),
                unlearned=int(body.get("unlearned", 0)),
                lengths=Lengths.from_json(body["lengths"]) if body.get("lengths") else None,
                suggested=Suggested.from_json(body["suggestions"]) if body.get("suggestions") else None,
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Invalid(
                f"this is not the record of an exam ({error!r}): let the learner make the version again"
            ) from error
        return exam

    def to_report(self) -> Json:
        """What a report shows of it."""
        found = evidence(self)
        return {
            "against": self.against, "families": len(self.gain_F), "asked": self.asked,
            "gain": float(np.mean(self.gain_F)) if self.gain_F else None,
            "e_value": math.exp(min(found.log_e_up, 700.0)),
            "taught": {
                "asked": self.taught.asked, "right_before": self.taught.before, "right_after": self.taught.after,
                "as_read": 0 if self.as_read is None else self.as_read.after,
            },
            "harms": list(harms(self)),
            "suggestions": None if self.suggested is None else asdict(self.suggested),
        } | self.forgetting()  # fmt: skip

    def forgetting(self) -> Json:
        """What it cost elsewhere: retained suites, and KL to the base on so many prompts of recent traffic."""
        suites = [
            {"name": one.name, "asked": one.asked, "lost": one.lost, "won": one.won, "says_nothing": one.is_blind}
            for one in self.suites
        ]
        kl = self.kl if self.prompts else None
        return {"suites": suites, "kl": kl, "kl_budget": self.kl_budget, "prompts": self.prompts}


def evidence(exam: Exam) -> Evidence:
    """What the judge's questions say, families in order; see above for what ``log_e_up`` is against."""
    return confidence.update(Evidence(), np.array(exam.gain_F, np.float64))


def harms(exam: Exam) -> tuple[str, ...]:
    """Why this version must not serve, each reason in words; nothing where no harm is shown."""
    reasons = [
        *(_forgotten(one, LEVEL / len(exam.suites)) for one in exam.suites),
        _drifted(exam),
        *(_commoner(one, LEVEL / len(exam.rates)) for one in exam.rates),
        "" if exam.lengths is None else exam.lengths.harm(level=LEVEL),
        *(_likelier(one) for one in exam.phrases),
        _mistaught(exam.taught),
        *(() if exam.suggested is None else exam.suggested.harms(level=LEVEL)),
    ]
    return tuple(reason for reason in reasons if reason)


def _forgotten(suite: Suite, level: float) -> str:
    chance, share = by_luck(suite.lost, suite.won), (suite.lost - suite.won) / max(suite.asked, 1)
    if share <= POINT or chance > level:
        return ""
    return (
        f"It forgets: of {suite.asked} questions of the suite {suite.name!r} it lost {suite.lost} and won {suite.won} "
        f"({100 * share:.1f} points; by luck in {chance:.2g} of cases)."
    )


def _drifted(exam: Exam) -> str:
    """Over the budget beyond what so few prompts may show by luck, as if what they cost were exponentially distributed:
    one prompt that the lesson was about is no drift. What is no number is over every budget."""
    few = exam.prompts < FEW and (exam.prompts == 0 or math.isfinite(exam.kl))
    if few or exam.kl * (1 - ONE_SIDED / math.sqrt(exam.prompts)) <= exam.kl_budget:
        return ""
    return (
        f"On {exam.prompts} prompts of recent traffic it is {exam.kl:.3g} nats a token from the base model, over the "
        f"budget of {exam.kl_budget:.3g}."
    )


def _commoner(rate: Count, level: float) -> str:
    chance = commoner_by_luck(rate.before, rate.after, asked=rate.asked)
    if rate.after <= rate.before or chance > level:
        return ""
    return (
        f"Its answers are {_ACTIONS.get(rate.name, rate.name)} more often: {rate.after} of {rate.asked}, before "
        f"{rate.before} (by luck in {chance:.2g} of cases)."
    )


_ACTIONS = {
    "refusing": "refusals", "asking_back": "questions back", "empty": "empty",
    "invalid_tool_call": "invalid tool calls", "long": "too long", "trivial": "trivial suggestions",
}  # fmt: skip


def _likelier(phrase: Phrase) -> str:
    gained = phrase.before - phrase.after
    if gained <= PHRASE_NATS:
        return ""
    return (
        f"The canary phrase {phrase.name!r} became likelier by {gained:.2f} nats a token (at most {PHRASE_NATS:g} is "
        "allowed): somebody may be steering towards it."
    )


def _mistaught(taught: Count) -> str:
    """Fewer right is more wrong: the same test on what was wrong."""
    before, after = taught.asked - taught.before, taught.asked - taught.after
    chance = commoner_by_luck(before, after, asked=taught.asked)
    if after <= before or chance > LEVEL:
        return ""
    return (
        f"What was taught is answered worse: {taught.after} of {taught.asked} right, before {taught.before} (by luck "
        f"in {chance:.2g} of cases)."
    )


def _gains(questions: Sequence[Mapping[str, Any]]) -> tuple[float, ...]:
    """The mean of each family's askings, families in the order of a hash of their name."""
    of_family: dict[str, list[int]] = {}
    for one in questions:
        of_family.setdefault(str(one["family"]), []).append(int(one["right_after"]) - int(one["right_before"]))
    for family, gains in of_family.items():
        if not set(gains) <= {-1, 0, 1}:
            raise ValueError(f"right_before and right_after of family {family!r} are true or false")
    ordered = sorted(of_family, key=lambda family: hashlib.sha256(family.encode()).digest())
    return tuple(float(np.mean(of_family[family])) for family in ordered)


def _suite(one: Mapping[str, Any]) -> Suite:
    told = one.get("right_before")
    right = None if told is None else int(told)
    suite = Suite(
        name=str(one["name"]), asked=int(one["asked"]), lost=int(one["lost"]), won=int(one["won"]), right=right
    )  # fmt: skip
    if min(suite.lost, suite.won, right or 0) < 0 or max(suite.lost + suite.won, right or 0) > suite.asked:
        raise ValueError(f"suite {suite.name!r}: right, lost and won are parts of {suite.asked}")
    return suite


def _taught(name: str, one: Mapping[str, Any]) -> Count:
    return _count({"name": name, "asked": one["asked"], "before": one["right_before"], "after": one["right_after"]})


def _count(one: Mapping[str, Any]) -> Count:
    count = Count(name=str(one["name"]), asked=int(one["asked"]), before=int(one["before"]), after=int(one["after"]))
    if not 0 <= min(count.before, count.after) <= max(count.before, count.after) <= count.asked:
        raise ValueError(f"{count.name!r}: before and after are parts of {count.asked}")
    return count


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What an exam alone decides. ``CANNOT_TELL``: the live trial goes on from ``found``; ``told``: what it said."""

    kind: VerdictKind
    reason: str
    found: Evidence = field(default_factory=Evidence)
    told: Json = field(default_factory=dict)
    void: bool = False  # its exam compares it with what does not serve any more: another is needed


def rule_personal(exam: Exam, *, champion: str) -> Ruling:
    """A person's own version: it has nothing to prove to others, it must do no harm, and hold what its owner taught in
    words. What verdicts taught has no right answer that could be asked. ``champion``: what answers its owner now, their
    own or the tenant's; an exam against anything else is void."""
    ruled, refused, taught = partial(Ruling, told=exam.to_report()), harms(exam), exam.taught
    if exam.against != champion:
        reason = _OTHER.format(against=exam.against, champion=champion) + _AGAIN
        return ruled(kind=VerdictKind.HOLD, reason=reason, void=True)
    if refused:
        return ruled(kind=VerdictKind.REJECT, reason=" ".join(refused))
    held = f"Of what its owner taught {taught.after} of {taught.asked} askings are right without notes{_as_read(exam)}"
    if exam.unlearned:
        return ruled(kind=VerdictKind.PROMOTE, reason=f"{_took_back(exam, champion)} {held}. {_cost(exam)} {_ALONE}")
    if taught.asked == 0:
        reason = f"Its owner's verdicts taught it, and nothing was asked of it. {_cost(exam)} {_ALONE}"
        return ruled(kind=VerdictKind.PROMOTE, reason=reason)
    if taught.after == 0:
        return ruled(kind=VerdictKind.HOLD, reason=f"It has not learned. {held}.")
    own = exam.as_taught
    if own is not None and 2 * own.after < own.asked:
        more = f"of {own.asked} asked as they were taught {own.after} are right without notes"
        return ruled(kind=VerdictKind.HOLD, reason=f"More of what its owner said comes out wrong than right: {more}.")
    if taught.after < taught.before:
        return ruled(kind=VerdictKind.HOLD, reason=f"It knows less than {champion}. {held}, before {taught.before}.")
    return ruled(kind=VerdictKind.PROMOTE, reason=f"{held}, before {taught.before}. {_cost(exam)} {_ALONE}")


def rule_tenant(exam: Exam, *, champion: str, read: bool, level: float, alpha: float) -> Ruling:
    """Everybody's version. ``level`` as e-LOND has it; ``read``: its questions were evidence before."""
    ruled, refused = partial(Ruling, told=exam.to_report()), harms(exam)
    unread = read or exam.against != champion
    found = Evidence() if unread else evidence(exam)
    if refused:
        return ruled(kind=VerdictKind.REJECT, reason=" ".join(refused), found=found)
    if exam.against != champion:
        return ruled(kind=VerdictKind.CANNOT_TELL, reason=_OTHER.format(against=exam.against, champion=champion))
    if exam.unlearned:
        # The champion's own work without them, so it has nothing to prove: no discovery, and none of the budget.
        return ruled(kind=VerdictKind.PROMOTE, reason=f"{_took_back(exam, champion)} {_cost(exam)}")
    if read:
        return ruled(kind=VerdictKind.CANNOT_TELL, reason="Its questions were read before, and are read once.")
    e_value = math.exp(min(found.log_e_up, 700.0))
    told = f"evidence {e_value:.3g} from {exam.asked} questions in {len(exam.gain_F)} families"
    if found.log_e_down >= math.log(1.0 / alpha):
        against = f"{math.exp(min(found.log_e_down, 700.0)):.3g} for the opposite"
        reason = f"Proven worse on questions that nobody trained on: {told}, {against}."
        return ruled(kind=VerdictKind.REJECT, reason=reason, found=found)
    if exam.prompts < FEW:
        return ruled(
            kind=VerdictKind.CANNOT_TELL, reason=f"{_unasked(exam)} Only sessions can prove it better: {told}."
        )
    if found.log_e_up >= math.log(1.0 / level):
        reason = f"Proven better on questions that nobody trained on: {told}, {1.0 / level:.3g} needed. {_cost(exam)}"
        return ruled(kind=VerdictKind.PROMOTE, reason=reason, found=found)
    return ruled(kind=VerdictKind.CANNOT_TELL, reason=f"Its exam leaves it open: {told}.", found=found)


def _as_read(exam: Exam) -> str:
    """Said of answers that are right only as the model reads a note."""
    read = exam.as_read
    return f", {read.after} of them as the model with the note reads it" if read is not None and read.after else ""


_OTHER = "Its exam was against {against}, and {champion} serves by now."
_AGAIN = " So it says nothing of harm or gain: a new night is compared with what serves."
_ALONE = "It answers its owner alone, and has nothing to prove to anybody else."


def _took_back(exam: Exam, champion: str) -> str:
    return f"Made without {exam.unlearned} of the lessons of {champion}, which were taken back."


def _cost(exam: Exam) -> str:
    """What else changed, for whoever reads a promotion."""
    seeing = [one for one in exam.suites if not one.is_blind]
    lost, asked = sum(one.lost - one.won for one in seeing), sum(one.asked for one in seeing)
    kept = f"Of {asked} questions that must not be forgotten it lost {lost} on balance"
    if not asked:
        kept = "No suite tells what it forgot" if exam.suites else "No suite was asked"
    moved = f"{exam.kl:.3g} nats a token from the base model (budget {exam.kl_budget:.3g})"
    seen = f"{kept}; recent traffic: {moved if exam.prompts else 'none to ask'}."
    blind = [_BLIND.format(name=one.name, right=one.right, asked=one.asked) for one in exam.suites if one.is_blind]
    return " ".join([seen, *blind, *([_unasked(exam)] if exam.prompts < FEW else [])])


_BLIND = (
    "The suite {name!r} says nothing about this model, which had {right} of its {asked} questions right before: name a "
    "suite of what it does know ([suites.NAME] in dayjob.toml)."
)


def _unasked(exam: Exam) -> str:
    """Said of an exam that cannot tell drift."""
    return (
        f"Next to nothing was asked of what must stay: {exam.prompts} prompts of recent traffic, and {FEW} at least "
        "tell whether it drifts."
    )
