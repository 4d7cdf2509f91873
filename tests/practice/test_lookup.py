"""Look-up: documents that refer to each other, a search over a thousand of them, and episodes turn by turn."""

import asyncio
import time

import pytest

from dayjob.endings import EpisodeEnding, Invalid
from dayjob.practice.calls import read_calls, write_call
from dayjob.practice.environments.lookup import MAX_CALLS_A_TURN, Lookup
from dayjob.practice.library import RELATIONS, Document, Library, library
from dayjob.practice.protocol import Action


def converse(environment, seed, said):
    async def run():
        episode = environment.reset(seed)
        return [await episode.step(Action(text=text)) for text in said]

    return asyncio.run(run())


def test_a_library_has_as_many_documents_as_asked_for_and_no_title_twice():
    for count in (10, 11, 100, 5_000):
        documents = library(count, 3).documents
        assert len(documents) == count
        assert len({one.title.lower() for one in documents}) == count
    library.cache_clear()


def test_what_a_document_says_of_others_leads_to_them_and_stands_in_its_text():
    shelf = library(500, 1)
    for document in shelf.documents:
        for name, said in document.facts:
            assert said in document.text
            assert (shelf.get(said) is not None) == (RELATIONS[name][1] != "")


def test_two_libraries_agree_on_nothing_that_is_asked():
    one, other = library(300, 1), library(300, 2)
    shared = [document for document in one.documents if other.get(document.title)]
    assert sum(document.facts == other.get(document.title).facts for document in shared) == 0


def test_the_search_by_hand():
    texts = {"Red Mill": "a mill in Ford", "Blue Mill": "a mill, red and red", "Ford": "a town"}
    shelf = Library(tuple(Document(title=title, text=text, facts=()) for title, text in texts.items()))

    def titles(query, count=9):
        return [one.title for one in shelf.search(query, count)]

    # "red" is in two documents, in a title (4) and once, or twice in the text: 4 against 2.
    assert titles("red") == ["Red Mill", "Blue Mill"]
    # "mill" weighs 5 in both, "ford" 1 in Red Mill and 4 in Ford, each halved or so by how common it is.
    assert titles("ford mill") == ["Red Mill", "Blue Mill", "Ford"]
    assert titles("blue  MILL", 1) == ["Blue Mill"]
    assert titles("ford")[0] == "Ford"
    assert titles("harbour") == []
    assert titles("") == []


def test_a_rare_word_counts_for_more_and_a_title_that_is_the_query_for_most():
    texts = {"Old Mill": "", "New Mill": "", "Red Mill": "", "Ford": "ferry ferry", "Mill": "", "Mill Mill": ""}
    shelf = Library(tuple(Document(title=title, text=text, facts=()) for title, text in texts.items()))
    # "mill" weighs 4 in five titles (8 in the one that has it twice): 4/5 and 8/5; "ferry" weighs 2 in one text: 2.
    assert [one.title for one in shelf.search("mill ferry", 2)] == ["Ford", "Mill Mill"]
    assert [one.title for one in shelf.search("mill", 2)] == ["Mill", "Mill Mill"]


def test_every_document_is_found_by_its_title_among_a_thousand():
    shelf = library(1_000, 5)
    assert all(shelf.search(one.title, 1) == [one] for one in shelf.documents)


def test_a_thousand_documents_are_made_and_searched_quickly():
    start = time.process_time()
    shelf = library(1_000, 77)
    assert time.process_time() - start < 2
    start = time.process_time()
    for document in shelf.documents[:200]:
        shelf.search(document.text, 3)
    assert time.process_time() - start < 2


def test_a_question_of_three_documents_is_the_chain_it_says():
    environment = Lookup(hops=3)
    for seed in range(40):
        question = environment._draw(seed)
        for place, relation in enumerate(question.relations[:-1]):
            assert dict(question.chain[place].facts)[relation] == question.chain[place + 1].title
        assert dict(question.chain[-1].facts)[question.relations[-1]] == question.answer
        asked = environment.reset(seed).task.messages[1]["content"]
        assert question.chain[0].title in asked
        assert question.chain[1].title not in asked
        assert question.answer not in asked
        assert RELATIONS[question.relations[0]][1].format(of=question.chain[0].title) in asked


def test_progress_counts_each_needed_document_once():
    environment = Lookup(hops=2)
    first, second, right = (action.text for action in environment.reference(1))
    steps = converse(environment, 1, [first, first, second, right])
    assert [step.progress for step in steps] == [0.5, 0.0, 0.5, 0.0]
    assert steps[-1].reward.value == 1
    assert steps[-1].reward.parts == {"answer": 1.0, "found": 1.0}
    assert [step.messages[0]["role"] for step in steps[:-1]] == ["tool"] * 3


def test_a_right_answer_that_nobody_looked_up_is_still_right_and_says_so():
    environment = Lookup()
    (step,) = converse(environment, 0, [environment.reference(0)[-1].text])
    assert (step.reward.value, step.reward.parts) == (1.0, {"answer": 1.0, "found": 0.0})


def test_titles_alone_have_to_be_opened():
    environment = Lookup(reading=True)
    search, read, _ = (action.text for action in environment.reference(2))
    title = read_calls(read)[0].arguments["title"]
    found, opened = converse(environment, 2, [search, read])
    assert found.progress == 0
    assert found.messages[0]["content"].splitlines()[0] == title
    assert opened.progress == 1
    assert title in opened.messages[0]["content"]
    assert converse(environment, 2, ["call open title=Nowhere"])[0].messages[0]["content"].startswith("there is no")


def test_either_notation_works_whatever_was_explained():
    plain, blocks = Lookup(hops=2), Lookup(hops=2, plain=False)
    said = [action.text for action in plain.reference(3)]
    other = [action.text for action in blocks.reference(3)]
    assert said != other
    assert converse(blocks, 3, said)[-1].reward == converse(plain, 3, other)[-1].reward
    assert plain.reset(3).task.tools == ()
    assert [one["function"]["name"] for one in blocks.reset(3).task.tools] == ["search"]
    assert "call search" in plain.reset(3).task.messages[0]["content"]
    assert "call search" not in blocks.reset(3).task.messages[0]["content"]


@pytest.mark.parametrize(
    ("said", "told"),
    [("call find query=x", "there is no tool find; there are: search"), ("call search", "search needs query"),
     ("call search query=x limit=3", "search needs query and nothing else"), ("call search x", "call is written"),
     ("<tool_call>{</tool_call>", "must be JSON"), ("call search query=qqqq", "nothing was found")],
)  # fmt: skip
def test_a_call_that_cannot_be_answered_says_why_and_costs_a_turn(said, told):
    steps = converse(Lookup(spare=1), 0, [said, said, said])
    assert told in steps[0].messages[0]["content"]
    assert [step.ending for step in steps] == [None, None, EpisodeEnding.TURNS]
    assert steps[-1].reward.value == 0


def test_several_calls_are_answered_in_order_up_to_a_number():
    environment = Lookup(hops=2)
    call = write_call(read_calls(environment.reference(1)[0].text)[0], plain=False)
    (step,) = converse(environment, 1, [call * (MAX_CALLS_A_TURN + 1)])
    assert [message["name"] for message in step.messages] == ["search"] * MAX_CALLS_A_TURN + ["error"]


def test_shown_links_are_true_and_need_no_finding():
    hidden, shown = Lookup(hops=3), Lookup(hops=3, shown=2)
    question = hidden._draw(4)
    text = shown.reset(4).task.messages[1]["content"]
    assert text.startswith(hidden.reset(4).task.messages[1]["content"])
    assert question.chain[1].title in text
    assert question.chain[2].title in text
    assert len(shown.reference(4)) == 2
    assert converse(shown, 4, [one.text for one in shown.reference(4)])[-1].reward.parts["found"] == 1


def test_choices_are_of_the_same_kind_and_hold_the_answer():
    environment = Lookup(choices=5)
    for seed in range(20):
        question = environment._draw(seed)
        listed = (
            environment.reset(seed).task.messages[1]["content"].partition("It is one of: ")[2].rstrip(".").split(", ")
        )
        assert len(set(listed)) == 5
        assert question.answer in listed
        kind = {
            said for one in question.library.documents for name, said in one.facts if name == question.relations[-1]
        }
        assert set(listed) <= kind


@pytest.mark.parametrize(
    ("refused", "param"),
    [({"documents": 9}, "documents"), ({"hops": 6}, "hops"), ({"shown": 1}, "shown"), ({"choices": 1}, "choices"),
     ({"reading": 1}, "reading"), ({"spare": -1}, "spare"), ({"results": 0}, "results")],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused_by_name(refused, param):
    with pytest.raises(Invalid) as seen:
        Lookup(**refused)
    assert seen.value.param == param
