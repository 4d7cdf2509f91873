"""What an exam counts, on a tiny random model: one adapter that says what was wanted, one that says nothing new."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from dayjob.config import Suite
from dayjob.endings import Invalid
from dayjob.learn.language import exam as module
from dayjob.learn.language.anchors import replayed
from dayjob.learn.language.exam import Marked, Sides, examine
from dayjob.learn.language.habits import habits
from dayjob.learn.language.lessons import Lesson, Material, Rehearsal
from dayjob.learn.language.marking import Answered, note_holds, recited, right_of_taught
from dayjob.learn.language.night import learn_night
from dayjob.learn.language.paper import Paper, Ticks, deal, draw
from dayjob.learn.language.recipes import RECIPES
from dayjob.learn.language.splits import Asking, Split
from dayjob.learn.language.study import Study
from dayjob.learn.language.suites import BUNDLED, read_suites, with_bundled
from dayjob.learn.language.table import Question
from dayjob.policies.adapters import file_digests
from dayjob.policies.engine_protocol import VersionRef
from dayjob.policies.tokens import Tokens
from tests.policies.language.worlds import byte_tokenizer
from tests.serve.chatting import save_tiny

RECIPE = replace(
    RECIPES["sft-answers"], learning_rates=(2e-2,), steps=24, warmup=2, lessons=4, microbatch=8, answer_tokens=8,
    context_tokens=96, anchor=0.0, self_written=0, stop_every=0,
)  # fmt: skip
TOKENS = Tokens(byte_tokenizer())


def user(text: str) -> tuple[dict[str, str], ...]:
    return ({"role": "user", "content": text},)


def asking(question: str, answer: str | None, *, family: str, standard: str | None = None, **more) -> Asking:
    context = ({"role": "system", "content": "note"}, *user(question))
    lesson = Lesson(id=f"{family}-{question}", question=user(question), context=context, correction=answer, told=True,
                    family=family, standard=standard)  # fmt: skip
    return Asking(lesson=lesson, teacher=family, decision=None, notes=(family,), **more)


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory):
    """The model's folder, and an adapter that says "yes" to "a?" and "no" to "b?"."""
    folder = save_tiny(tmp_path_factory.mktemp("exam") / "model")
    lessons = tuple(asking(q, a, family=q).lesson for q, a in (("a?", "yes"), ("b?", "no")))
    made = learn_night(folder, Material(lessons=lessons), recipe=RECIPE, seed=0)
    assert all(one.learned for one in made.lessons)
    place = tmp_path_factory.mktemp("adapter") / "v1"
    made.save(place, base="tiny")
    return folder, made, place


def ref(place: Path) -> VersionRef:
    return VersionRef(name=place.name, digest=place.name, folder=place, files=file_digests(place))


def sit(night, split: Split, *, champion: VersionRef | None = None, **paper) -> Marked:
    folder, made, place = night
    told = {"split": split, "taught": frozenset(one.lesson.id for one in split.train), "suites": {}} | paper
    sides = Sides(champion=champion, new=ref(place), state=made.state)
    return examine(folder, Paper(**told), sides=sides, recipe=RECIPE, seed=0)


def split_of(train=(), stop=(), exam=(), traffic=()) -> Split:
    return Split(train=tuple(train), stop=tuple(stop), exam=tuple(exam), exam_traffic=tuple(traffic))


def test_what_is_right_before_and_after_is_counted_part_by_part(night):
    folder, _, _ = night
    teacher = Study(folder, RECIPE, seed=0)
    held = asking("a?", None, family="a")
    with teacher.base() as writer:
        said = writer.write([TOKENS.render(held.lesson.context)], seeds=[0], max_tokens=8, temperature=0)
    wanted = TOKENS.text(said[0].token_ids)
    train = [asking("a?", " yes ", family="a"), asking("b?", "yes", family="b")]
    exam = [replace(held, lesson=replace(held.lesson, id="held")), asking("b?", "no", family="c")]
    marked = sit(night, split_of(train, exam=exam))
    counts = {name: marked.record["taught"][name] for name in ("asked", "right_before", "right_after")}
    assert counts == {"asked": 2, "right_before": 0, "right_after": 1}
    (question,) = marked.record["questions"]
    assert question == {
        "family": "a", "asked": "a?", "wanted": wanted, "before": question["before"], "after": "yes",
        "right_before": question["before"].split() == wanted.split(), "right_after": False, "as_read": False,
    }, "of c nothing was taught, so nothing is asked; what nobody said the teacher says"  # fmt: skip
    assert marked.holds == {"a": False, "b": False}


def test_one_asking_of_each_note_is_chosen_before_a_second_of_any_and_always_the_same():
    many = [asking(f"{n}?", "x", family="many") for n in range(30)]
    few = [asking(f"{name}?", "x", family=name) for name in ("a", "b", "c")]
    chosen = deal([*many, *few], 5)
    assert [one.lesson.family for one in chosen] == ["many", "many", "a", "b", "c"], "in the order they were given"
    assert {one.lesson.id for one in deal([*few, *reversed(many)], 5)} == {one.lesson.id for one in chosen}
    assert deal(many, 100) == many
    assert len({one.lesson.family for one in deal([*many, *few], 2)}) == 2


def test_of_what_was_not_taught_nothing_is_asked_and_of_the_rest_only_so_much():
    train = [asking(f"{n}?", "x", family=f"f{n % 7}") for n in range(21)]
    stop = [asking("s?", "x", family="f0"), asking("t?", "x", family="left out")]
    exam = [asking(f"e{n}?", "x", family=f"f{n}") for n in range(9)]
    taught = frozenset(one.lesson.id for one in train if one.lesson.family != "f6")
    paper = Paper(split=split_of(train, stop, exam), taught=taught, suites={})
    askable = [one.lesson.id for one in (*train, *stop, *exam) if one.lesson.family != "f5"]
    drawn = draw(paper, askable=askable, most=7)
    assert len(drawn.taught) == 7
    assert {one.lesson.family for one in drawn.taught} == {f"f{n}" for n in range(5)}
    assert [one.lesson.id for one in drawn.rest] == ["f0-s?"]
    assert [one.lesson.family for one in drawn.exam] == [f"f{n}" for n in range(5)]


def test_only_what_was_chosen_is_answered(night, monkeypatch):
    train = [asking(f"{n}?", "yes", family=str(n)) for n in range(6)]
    exam = [asking(f"once more {n}?", "yes", family=str(n)) for n in range(6)]
    monkeypatch.setattr(module, "draw", partial(draw, most=2))
    record = sit(night, split_of(train, exam=exam)).record
    assert (record["taught"]["asked"], len(record["questions"])) == (2, 2)
    assert record["rates"][0]["asked"] == 4, "prompts that were answered"


def test_progress_is_the_share_of_answers_that_are_written(night):
    folder, made, place = night
    train = [asking(f"{n}?", "yes", family=str(n)) for n in range(20)]
    held = [asking(f"once more {n}?", None, family=str(n)) for n in range(20)]
    suites = {"s": [Question(messages=user(f"{n}!"), answer="no") for n in range(20)]}
    traffic = [Rehearsal(question=user(f"tell me {n}")) for n in range(20)]
    paper = Paper(
        split=split_of(train, exam=held, traffic=traffic), taught=frozenset(one.lesson.id for one in train),
        suites=suites,
    )  # fmt: skip
    heard: list[float] = []
    examine(folder, paper, sides=Sides(champion=None, new=ref(place), state=made.state), recipe=RECIPE, seed=0,
            progress=heard.append)  # fmt: skip
    total = 20 + 2 * 60 + 3 * 20
    steps = [after - before for before, after in zip([0.0, *heard], heard, strict=False)]
    assert min(steps) >= 0
    assert max(steps[:-1]) <= RECIPE.microbatch / total + 1e-9, "a batch at a time, from the first to the last"
    assert heard[-1] == 1.0
    assert 0.85 < heard[-2] < 1.0, "but for prompts of traffic that were left out, and the KL"


def test_a_share_is_never_more_than_all():
    heard: list[float] = []
    tick = Ticks(3, heard.append)
    tick(2)
    tick(2)
    Ticks(0, heard.append)(0)
    assert heard == pytest.approx([2 / 3, 1.0, 0.0])


def test_a_note_holds_when_each_of_its_askings_is_right_wherever_it_stands(night):
    train = [asking("a?", "yes", family="a"), asking("b?", "no", family="b")]
    assert sit(night, split_of(train)).holds == {"a": True, "b": True}
    stop = [asking("c?", "maybe", family="b")]
    assert sit(night, split_of(train, stop=stop)).holds == {"a": True, "b": False}


def test_the_answer_that_was_corrected_is_never_right(night):
    marked = sit(night, split_of([asking("a?", "yes", family="a", wrong=frozenset({"no", "yes"}))]))
    assert marked.record["taught"]["right_after"] == 0
    assert marked.holds == {"a": False}


def test_a_note_that_says_what_is_right_is_not_retired_on_its_teachers_word():
    known, later = (
        asking(question, answer, family="a", is_known=True) for question, answer in (("a?", "yes"), ("b?", None))
    )
    said = Answered(asking=later, wanted="as the teacher", before="", after="as the teacher")
    shown = Answered(asking=known, wanted="yes", before="", after="yes")
    assert note_holds([said], [said]) == {"a": False}, "the question that it speaks of was not asked"
    assert note_holds([said, shown], [said]) == {"a": True}
    assert note_holds([said, replace(shown, after="no")], [said]) == {"a": False}
    rule = replace(said, asking=replace(later, is_known=False))
    assert note_holds([rule], [rule]) == {"a": True}, "where nobody knows more, the teacher's word is all there is"


def test_a_correction_that_its_teacher_does_not_follow_is_not_known_by_answering_as_the_teacher_does():
    """ "At 9:15." read as "the last of the month", and answered so: nothing was learned, and nothing is retired."""
    own = asking("When does the office open?", None, family="a", said="At 9:15.", as_taught=True)
    deaf = Answered(asking=own, wanted="the last of the month", before="closed", after="the last of the month")
    heard = replace(deaf, wanted="at 9:15", after="at 9:15")
    assert (deaf.as_read, heard.as_read) == (True, False)
    assert [note_holds([one], [one]) for one in (deaf, heard)] == [{"a": False}, {"a": True}]
    counted = {"asked": 1, "right_before": 0, "right_after": 1}
    none = dict.fromkeys(counted, 0)
    assert right_of_taught([deaf]) == counted | {"as_read": counted, "as_taught": none}
    assert right_of_taught([heard]) == counted | {"as_read": none, "as_taught": counted}
    other = replace(heard, asking=replace(own, as_taught=False))
    assert note_holds([other], [other]) == {"a": False}, "what it speaks of was not asked"


def test_what_contradicts_a_demonstration_is_neither_right_nor_wrong(night):
    """The teacher of a random model makes nothing of a note: in no wording it says what was shown."""
    own = asking("a?", "yes", family="a", is_known=True, as_taught=True, standard="yes")
    other = asking("A now?", None, family="a", is_known=True, standard="yes")
    marked = sit(night, split_of([own], stop=[other], exam=[replace(other, lesson=replace(other.lesson, id="held"))]))
    assert marked.record["questions"] == []
    assert (marked.record["taught"]["right_after"], marked.holds) == (1, {"a": False})
    unsettled = Answered(asking=other, wanted="", before="", after="Kofi")
    right = Answered(asking=own, wanted="yes", before="no", after="yes")
    assert note_holds([right, unsettled], [right]) == {"a": False}
    assert note_holds([right, replace(unsettled, settled=True)], [right]) == {"a": True}, (
        "the note changes nothing there"
    )


def test_a_note_that_was_asked_in_one_wording_is_known_in_that_one(night):
    train = [asking("a?", "yes", family="a"), asking("b?", "no", family="b")]
    again = [replace(asking("A?", "yes", family="a"), notes=("a", "b"))]
    assert sit(night, split_of(train[:1])).recited == {"a"}
    marked = sit(night, split_of(train, stop=again))
    assert (marked.holds, marked.recited) == ({"a": True, "b": True}, {"a", "b"}), "b stood beside what asks of a"
    one = Answered(asking=train[1], wanted="no", before="", after="no")
    greeted, other = (
        replace(one, asking=replace(train[1], lesson=replace(train[1].lesson, question=user(text))))
        for text in ("Hello, B!", "b now?")
    )
    assert [recited([one, more], {"b": True}) for more in (greeted, other)] == [{"b"}, frozenset()]


def test_much_terser_and_much_wordier_answers_are_counted_where_nothing_was_taught(night):
    folder, _, _ = night
    wrong = {"s": [Question(messages=user(q), answer="x") for q in ("a?", "b?", "c?")]}
    traffic = [Rehearsal(question=user(q)) for q in ("a?", "b?", "c?")]
    taught = [asking("d?", "yes", family="d")]
    assert sit(night, split_of(taught), suites=wrong).record["lengths"]["asked"] == 0, "wrong before, whatever comes"
    lengths = sit(night, split_of(taught, traffic=traffic)).record["lengths"]
    study = Study(folder, RECIPE, seed=0)
    with study.base() as writer:
        prompts = [TOKENS.render(user(q)) for q in ("a?", "b?")]
        said = writer.write(prompts, seeds=[0, 0], max_tokens=RECIPES["sft-answers"].answer_tokens, temperature=0)
    before = [len(TOKENS.text(one.token_ids).strip()) for one in said]
    assert min(before) > 6, "a random model never ends"
    assert (lengths["asked"], lengths["terser"] >= 2, lengths["wordier"]) == (3, True, 0), "yes and no are terser"
    with study.base() as writer:
        said = writer.write(prompts[:1], seeds=[0], max_tokens=RECIPE.answer_tokens, temperature=0)
    right = {"s": [Question(messages=user("a?"), answer=TOKENS.text(said[0].token_ids))]}
    assert sit(night, split_of(taught), suites=right).record["lengths"] == {"asked": 1, "terser": 1, "wordier": 0}


def test_suites_say_what_was_lost_and_won_against_the_champion(night):
    _, _, place = night
    suites = {"s": [Question(messages=user(q), answer=a) for q, a in (("a?", "yes"), ("b?", "maybe"))]}
    (suite,) = sit(night, split_of(), suites=suites).record["suites"]
    assert suite == {"name": "s", "asked": 2, "right_before": 0, "right_after": 1, "lost": 0, "won": 1}
    same = ref(place)
    (suite,) = sit(night, split_of(), suites=suites, champion=replace(same, name="champion")).record["suites"]
    assert (suite["right_before"], suite["right_after"], suite["lost"], suite["won"]) == (1, 1, 0, 0)


def test_kl_is_that_of_the_bases_own_answers_to_traffic(night):
    folder, made, _ = night
    traffic = [Rehearsal(question=user(text)) for text in ("Who are you?", "Hello")]
    record = sit(night, split_of(traffic=traffic)).record["traffic"]
    study = Study(folder, RECIPE, seed=0)
    kept, _ = replayed(study, traffic, recipe=RECIPE, seed=0)
    study.lora.restore(made.state)
    nats = []
    for row in kept:
        rows = study.rows([row.prompt], [row.answer])
        with torch.no_grad():
            new_TV, base_TV = (
                torch.log_softmax(hidden[0] @ study.vocabulary_VD.T, dim=1)
                for hidden in (study.hidden(rows), study.base_hidden(rows))
            )
        nats += (base_TV.exp() * (base_TV - new_TV)).sum(dim=1).tolist()
    assert (record["prompts"], record["tokens"]) == (2, len(nats))
    assert record["kl"] == pytest.approx(sum(nats) / len(nats), rel=1e-4)
    assert record["kl"] > 0.01
    assert record["kl_budget"] == RECIPE.kl_budget


def test_habits_and_phrases_are_counted_for_both(night):
    marked = sit(night, split_of([asking("a?", "yes", family="a")]), canaries=["ye", "zz"])
    rates = {one["name"]: one for one in marked.record["rates"]}
    assert {one["asked"] for one in rates.values()} == {1}
    assert (rates["long"]["before"], rates["long"]["after"]) == (1, 0), "a random model never ends; the taught one does"
    first, second = marked.record["phrases"]
    assert (first["phrase"], second["phrase"]) == ("canary 1", "canary 2")
    assert first["after"] < first["before"], "it begins what was taught"
    with pytest.raises(Invalid, match="shorten it"):
        sit(night, split_of(), canaries=["x" * 200])


def test_to_refuse_what_was_answered_wrongly_is_no_loss(night):
    """A question of a suite counts where it was right before: here both were wrong, and only what was taught counts."""
    suites = {"s": [Question(messages=user(f"{n}!"), answer="never said") for n in range(6)]}
    marked = sit(night, split_of([asking("a?", "yes", family="a")]), suites=suites)
    asked = {one["name"]: one["asked"] for one in marked.record["rates"]}
    assert asked["refusing"] == 1
    assert asked["long"] == asked["empty"] == 7


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("I'm sorry, I can't help with that.", {"refusing"}),
        ("I don't know.", {"refusing"}),
        ("He said: I can't.", set()),
        ("Which office do you mean?", {"asking_back"}),
        (" \n", {"empty"}),
        ('<tool_call>{"name": "look", "arguments": {}}</tool_call>', set()),
        ("<tool_call>look()</tool_call>", {"invalid_tool_call"}),
        ('<tool_call>{"name": "look"', {"invalid_tool_call"}),
    ],
)
def test_habits_are_known_by_their_words(text, found):
    assert habits(text, ended=True) == found
    assert habits(text, ended=False) == found | {"long"}


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("{", "it is not JSON"),
        ('{"messages": []}', "it needs messages and answer"),
        ('{"messages": [], "answer": "a"}', "a list of objects"),
        ('{"messages": [{"role": "user", "content": "q"}], "answer": ""}', "answer must be a text"),
        ('{"messages": [{"role": "assistant", "content": "q"}], "answer": "a"}', "what is asked"),
        ('{"messages": [{"role": "user", "content": "q"}], "answer": "123456789"}', "fewer than 8"),
        ('{"messages": [{"role": "user", "content": "<|end|>"}], "answer": "a"}', "control token"),
        (f'{{"messages": [{{"role": "user", "content": "{"q" * 90}"}}], "answer": "a"}}', "there is room for 88"),
    ],
)
def test_a_suite_that_cannot_be_asked_is_refused_with_its_line(tmp_path, line, remedy):
    path = tmp_path / "s.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "q"}], "answer": "a"}\n\n' + line)
    with pytest.raises(Invalid, match=remedy) as refused:
        read_suites({"s": path}, TOKENS, room=96, answer_tokens=8)
    assert f"{path}, line 3:" in str(refused.value)


def test_a_suite_is_read_whole_or_refused(tmp_path):
    path = tmp_path / "s.jsonl"
    with pytest.raises(Invalid, match="cannot be read"):
        read_suites({"s": path}, TOKENS, room=96, answer_tokens=8)
    path.write_text("\n")
    with pytest.raises(Invalid, match="has 0 questions"):
        read_suites({"s": path}, TOKENS, room=96, answer_tokens=8)
    path.write_bytes(b"\xff")
    with pytest.raises(Invalid, match="UTF-8"):
        read_suites({"s": path}, TOKENS, room=96, answer_tokens=8)
    path.write_text('{"messages": [{"role": "user", "content": "q"}], "answer": "a"}\n')
    found = read_suites({"s": path}, TOKENS, room=96, answer_tokens=8)
    assert found == {"s": (Question(messages=user("q"), answer="a"),)}


def test_the_bundled_suite_is_asked_unless_another_or_none_is_put_in_its_place(tmp_path):
    own = Suite(name="ours", path=str(tmp_path / "s.jsonl"))
    assert with_bundled(()) == {"basics": BUNDLED}
    assert with_bundled((own,)) == {"basics": BUNDLED, "ours": tmp_path / "s.jsonl"}
    assert with_bundled((Suite(name="basics", path=own.path),)) == {"basics": tmp_path / "s.jsonl"}
    assert with_bundled((Suite(name="basics", path=""),)) == {}
    with pytest.raises(Invalid, match="are needed"):
        Suite(name="ours", path="")


def test_every_question_of_the_bundled_suite_can_be_asked_and_what_does_not_fit_a_model_is_left_out():
    (whole,) = read_suites({"basics": BUNDLED}, TOKENS, room=512, answer_tokens=64).values()
    assert len(whole) == len({one.messages[0]["content"] for one in whole}) == 40
    told = [json.loads(line) for line in BUNDLED.read_text().splitlines()]
    assert [{"messages": list(one.messages), "answer": one.answer} for one in whole] == told
    (short,) = read_suites({"basics": BUNDLED}, TOKENS, room=512, answer_tokens=3).values()
    assert {len(one.answer) for one in short} == {1, 2}
    assert read_suites({"basics": BUNDLED}, TOKENS, room=4, answer_tokens=3) == {}
