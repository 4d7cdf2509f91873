"""What the clerk is brought up with never holds what it is tested with; what a lesson says follows from its text."""

import json
import re
from random import Random

import pytest
from clerk.facts import CAPITALS, SYMBOLS, relations
from clerk.lessons import Lesson, contradiction, draw
from clerk.split import Side, of_side, side
from clerk.wordings import FRAMES

from dayjob.lab.clerk_course import ASKED, EVERY, SCHOOL_SHARES, SHARES, held_out, schooling, training
from dayjob.lab.clerk_gym import EASY
from dayjob.lab.clerk_school import MOST_NOTES
from dayjob.lab.clerk_text import FAMILIES, Example
from dayjob.memory.render import HEAD

reasoning_gym = pytest.importorskip("reasoning_gym", reason="pip install 'dayjob[gym]' (needs a C compiler)")
STEPS = 30
IN_CONTEXT = ("rules", "usual", "table", "session", "beside", "crowd", "besides", "neighbours", "halves", "spared")


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return [one for draw in (training, schooling) for step in range(STEPS) for one in draw(0, step, count=128)]


@pytest.fixture(scope="module")
def asked_in_training(examples) -> set[str]:
    """Every question that stands in training, a user's or one quoted in a note."""
    texts = [(role, text) for one in examples for role, text in one.messages]
    quoted = {json.loads(found) for _, text in texts for found in re.findall(r'^- (".*") -> ', text, re.MULTILINE)}
    return quoted | {text for role, text in texts if role == "user"}


def test_equal_steps_are_equal_and_others_are_not():
    assert training(3, 7, count=16) == training(3, 7, count=16)
    assert training(3, 7, count=16) != training(3, 8, count=16)
    assert training(3, 7, count=16) != training(4, 7, count=16)


def test_every_family_has_a_share_and_is_trained_and_asked():
    assert set(SHARES) == set(FAMILIES) < set(SCHOOL_SHARES) == set(EVERY) < set(ASKED)
    for shares, drawn in ((SHARES, training), (SCHOOL_SHARES, schooling)):
        assert sum(shares.values()) == pytest.approx(1)
        assert {one.family for step in range(STEPS) for one in drawn(0, step, count=64)} == set(shares)


def test_what_is_copied_stands_in_a_note_of_many():
    for one in held_out("copied", count=60):
        assert one.messages[-1][1].casefold() in one.messages[0][1].casefold()
    for one in held_out("corrected", count=60):
        assert one.messages[-1][1].casefold() in one.messages[2][1].casefold()
    many = [one.messages[0][1].count("\n- ") for one in held_out("crowd", count=60)]
    assert (min(many), max(many)) == (4, MOST_NOTES + 2)


@pytest.mark.parametrize("family", ["besides", "neighbours"])
def test_what_is_asked_beside_notes_is_answered_as_without_them(family):
    known = 0
    for one in held_out(family, count=300):
        _, question, answer = (text for _, text in (one.messages[0], *one.messages[-2:]))
        for relation in relations():
            named = [s for s in relation.facts if any(ask.format(s=s) in question for ask in relation.ask)]
            known += bool(named)
            assert not named or answer == relation.facts[named[0]]
            if named and family == "neighbours":
                quoted = re.findall(r'^- "(.*?)" -> "(?!Asked)', one.messages[0][1], re.MULTILINE)
                assert not [text for text in quoted if any(ask.format(s=named[0]) in text for ask in relation.ask)]
    assert known > 60


def test_of_two_questions_in_one_a_note_decides_one():
    known = 0
    for one in held_out("halves", count=100):
        asks, answers = one.messages[-2][1].split(" And: "), one.messages[-1][1].split("; ")
        right = {ask.format(s=s): v for each in relations() for s, v in each.facts.items() for ask in each.ask}
        as_known = [right.get(ask) == answer for ask, answer in zip(asks, answers, strict=True)]
        assert as_known in ([True, False], [False, True]), "the one as ever, the other as the note says"
        known += len(one.messages[0][1].split("\n- ")) > 4
    assert 20 < known < 80


def test_a_rule_is_asked_of_cases_that_it_leaves_as_they_are():
    usual = {"Nadia", "the mail room"}
    assert {one.messages[-1][1] for one in held_out("spared", count=60)} == usual
    taught = [one.messages for step in range(STEPS) for one in schooling(0, step, count=128) if one.family == "spared"]
    assert any({text for role, text in one if role == "assistant"} - usual for one in taught)


@pytest.mark.parametrize("family", sorted(set(ASKED) - set(IN_CONTEXT)))
def test_what_is_asked_is_in_no_training_text(family, asked_in_training):
    for one in held_out(family, count=40):
        assert one.messages[-2][1] not in asked_in_training


@pytest.mark.parametrize("family", IN_CONTEXT)
def test_questions_that_depend_on_their_context_have_contexts_of_their_own(family, examples):
    """ "What do I dial for extension 231?" may be asked under any rule: the rule is what must be new."""
    known = {one.messages for one in examples}
    assert not known & {one.messages for one in held_out(family, count=100)}


def test_numbers_that_are_asked_are_never_trained_on(asked_in_training):
    def operands(text: str) -> tuple[str, ...]:
        return tuple(sorted(re.findall(r"\d+", text)))

    plus = re.compile(r"Add \d+ and|\d+ plus \d+|What is \d+ \+")
    sums = {operands(text) for text in asked_in_training if plus.match(text)}
    asked = {operands(text) for one in held_out("arithmetic", count=200) if plus.match(text := one.messages[0][1])}
    assert len(sums) > 20
    assert len(asked) > 10
    assert not sums & asked


def test_the_last_wording_of_a_relation_is_never_trained_on(asked_in_training):
    everything = "\n".join(asked_in_training)
    for relation in relations():
        before, _, after = relation.ask[-1].partition("{s}")
        assert not [s for s in relation.facts if f"{before}{s}{after}" in everything], relation.name


def test_facts_are_real_or_consistent_and_each_value_fits_one_line():
    assert CAPITALS["France"] == "Paris"
    assert CAPITALS["Peru"] == "Lima"
    assert sum(len(one.facts) for one in relations()) >= 280
    for relation in relations():
        assert len(relation.ask) == 5
        assert all(text.count("{s}") == 1 for text in relation.ask)
        assert all(value.strip() == value and "\n" not in value for value in relation.values)
        assert len(relation.values) >= 15


def test_sides_share_nothing_and_neither_is_empty():
    for about in ("a", "b", "c"):
        train, test = of_side(FRAMES, Side.TRAIN, about=about), of_side(FRAMES, Side.TEST, about=about)
        assert sorted([*train, *test]) == sorted(FRAMES)
        assert len(test) == 2
    assert side("capital", "France") is side("capital", "France")
    tests = sum(side("x", str(one)) is Side.TEST for one in range(5000))
    assert 900 < tests < 1100


def test_lessons_of_the_two_sides_are_different_ones():
    def keys(where: Side) -> set[tuple[str, ...]]:
        rng = Random(1)
        return {(*one.key, one.bare or one.text) for one in (draw(rng, where) for _ in range(3000))}

    train, test = keys(Side.TRAIN), keys(Side.TEST)
    assert len(train) > 500
    assert len(test) > 200
    assert not train & test


def solved(lesson: Lesson, question: str) -> str:
    """The answer, worked out from the lesson's text alone by another way than the lesson's own."""
    if found := re.fullmatch(r"orders above (\d+) euros go to (\w+), all others to (\w+)", lesson.text):
        (amount,) = re.findall(r"\d+", question)
        return found[2] if int(amount) > int(found[1]) else found[3]
    if found := re.fullmatch(r"customers whose name begins with (\w) go to (\w+)", lesson.text):
        called = re.search(r"customer (\w+)", question.replace("customer is", "customer"))
        assert called is not None
        return found[2] if called[1].startswith(found[1]) else "Nadia"
    if found := re.fullmatch(r"parcels from (.+) go to (.+)", lesson.text):
        fits = found[1] in question or CAPITALS[found[1]] in question
        return found[2] if fits else "the mail room"
    if found := re.fullmatch(r"before every extension we dial (\d+)", lesson.text):
        (extension,) = re.findall(r"\d+", question)
        return found[1] + extension
    relation = next(
        one for one in relations() if one.name == (lesson.key[1] if lesson.about == "wrap" else lesson.about)
    )
    named = [s for s in relation.facts if any(ask.format(s=s) in question for ask in relation.ask)]
    (subject,) = named or [lesson.key[1]]
    if found := re.fullmatch(r"for .+ it is the same as for (.+)", lesson.text):
        return relation.facts[found[1]]
    if found := re.fullmatch(r"for .+ it is (.+) or (.+), but not (.+)", lesson.text):
        return found[1] if found[3] == found[2] else found[2]
    if found := re.fullmatch(r"asked about .+ we say (.+) (before|after) the answer", lesson.text):
        known = relation.facts[subject]
        return f"{found[1]} {known}" if found[2] == "before" else f"{known}, {found[1]}"
    assert lesson.bare is not None
    assert lesson.bare in lesson.text
    return lesson.bare


@pytest.mark.parametrize("kind", ["answer", "rule", "hint"])
def test_what_is_right_follows_from_the_lessons_text(kind):
    rng = Random(5)
    changed = 0
    for _ in range(400):
        lesson = draw(rng, Side.TEST, kind=kind)
        probe = lesson.ask(rng, Side.TEST)
        assert probe.answer == solved(lesson, probe.question), (lesson.text, probe)
        changed += probe.answer != probe.before
    assert changed > 250


def test_a_contradiction_is_about_the_same_and_says_something_else():
    rng = Random(2)
    for _ in range(50):
        lesson = draw(rng, Side.TRAIN, kind="answer")
        other = contradiction(lesson, rng)
        assert other.key == lesson.key
        assert other.bare != lesson.bare


def test_notes_stand_as_the_service_places_them_and_the_later_of_two_holds():
    metals = sorted(
        set(SYMBOLS) - {"gold", "silver"}
    )  # subjects of one relation only, so every line that names one is about its symbol
    contradicted = 0
    for one in held_out("notes", count=2000):
        (role, text), (_, question), (_, answer) = one.messages
        head, *lines = text.split("\n")
        assert (role, head) == ("system", HEAD)
        assert answer.casefold() in text.casefold()
        asked = [metal for metal in metals if re.search(rf"\b{metal}\b", question)]
        about = [line for line in lines if asked and re.search(rf"\b{asked[0]}\b", line)]
        if len(about) > 1:
            contradicted += 1
            assert answer in about[-1]
            assert answer not in about[0]
    assert contradicted >= 5


def test_gym_answers_are_those_of_the_package():
    for name in EASY:
        scorer = reasoning_gym.get_score_answer_fn(name)
        for family in (name, f"{name}_default"):
            for one in held_out(family, count=5):
                assert scorer(one.messages[-1][1], _entry(name, one.messages)) == 1.0


def _entry(name: str, messages: tuple[tuple[str, str], ...]) -> dict[str, object]:
    question, answer = messages[0][1], messages[1][1]
    direction = "ascending" if "ascending" in question else "descending"
    return {"question": question, "answer": answer, "metadata": {"direction": direction, "source_dataset": name}}
