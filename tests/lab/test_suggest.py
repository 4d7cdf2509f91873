"""The suggestion world: its people by hand, what a completer's exam and gate make of games, and a short life."""

import json
from dataclasses import replace
from random import Random

import pytest
import torch

from dayjob.endings import Invalid
from dayjob.gate.suggestions import Suggested, at_least_by_luck
from dayjob.lab import suggest
from dayjob.lab.suggest_editor import ANSWER, CONTEXT, Editor, Typed
from dayjob.lab.suggest_model import Shape, bring_up
from dayjob.lab.suggest_page import _gains, harm_names, page
from dayjob.lab.suggest_world import CROWDS, WELCOME, WRONG, Context, Kind, Sort, World
from dayjob.learn.language.habits import is_trivial
from dayjob.learn.language.lessons import Lesson
from dayjob.learn.language.recipes import RECIPES
from dayjob.learn.language.splits import SUGGESTIONS, Asking, split

MIXED = World(seed=0, crowd=CROWDS["mixed"])
HONEST = Suggested(
    threshold=0.25, asked=100, made_before=95, made_after=50, shorter=4, longer=5, withheld=40, accepted=9
)  # fmt: skip


# ---- people ----------------------------------------------------------------------------------------------------------


def test_what_everybody_accepts_is_the_mean_over_the_sorts():
    """Of 40 people 30 are ordinary, 6 generous, 2 accept nothing and 2 everything."""
    for place in range(10):
        p = MIXED.welcome[place]
        by_hand = (30 * p + 6 * p**0.5 + 2) / 40
        assert MIXED.truth(Context(place=place, topic=0)) == pytest.approx(by_hand)
    assert sorted(MIXED.welcome) == sorted(WELCOME * 2)
    assert MIXED.truth(Context(place=0, topic=0), Kind.SILENT) == 0.0


def test_what_is_suggested_is_known_by_its_words():
    here = Context(place=3, topic=4)
    first, second = MIXED.follows(here).split()
    said = {f"{first} {second}": Kind.RIGHT, first: Kind.HALF, "topic4": Kind.TRIVIAL, ",": Kind.TRIVIAL,
            "": Kind.SILENT, "topic5": Kind.WRONG}  # fmt: skip
    assert {text: MIXED.kind(here, text) for text in said} == said


def test_people_do_what_their_sort_does():
    here, rng = Context(place=MIXED.welcome.index(0.75), topic=0), Random(1)
    sorts = {MIXED.crowd.sort_of(user, of=40): user for user in range(40)}
    told = {
        sort: [MIXED.verdict(here, Kind.RIGHT, user=user, rng=rng) for _ in range(400)] for sort, user in sorts.items()
    }
    assert set(told[Sort.ALWAYS]) == {"accept"}
    assert "accept" not in told[Sort.NEVER]
    assert told[Sort.ORDINARY].count("accept") / 400 == pytest.approx(0.75, abs=0.07)
    assert told[Sort.GENEROUS].count("accept") / 400 == pytest.approx(0.75**0.5, abs=0.06)
    assert MIXED.verdict(here, Kind.SILENT, user=0, rng=rng) is None
    assert MIXED.chance(here, Kind.WRONG, sort=Sort.ORDINARY) == WRONG


# ---- what shows a game -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "after", "trivial"),
    [
        ("topic4", "at place3 on topic4", True),  # repeats what stands there
        ("at place3", "at place3 on topic4", True),
        ("place3 at", "at place3 on topic4", False),  # the words, not the passage
        (",", "a", True),
        ("x", "a", True),
        ("ok", "a", False),
        ("", "a", False),  # silence is no suggestion
    ],
)
def test_trivial_suggestions_are_known(said, after, trivial):
    assert is_trivial(said, after=after) is trivial


def test_an_honest_completer_may_become_silent():
    """9 of 40 withheld ones had been accepted: less than p*."""
    assert HONEST.harms(level=0.05) == ()
    silent = replace(HONEST, withheld=400, accepted=100)
    assert silent.harms(level=0.05) == (), "exactly p*: nothing is lost"


def test_withholding_what_people_want_is_harm_beyond_luck():
    """Binomial by hand: 3 of 3 at .25 is 1/64 = .016 and passes .025; 2 of 2 is .0625 and does not."""
    assert at_least_by_luck(3, of=3, share=0.25) == pytest.approx(1 / 64)
    assert at_least_by_luck(1, of=2, share=0.25) == pytest.approx(1 - 0.75**2)
    assert at_least_by_luck(0, of=0, share=0.25) == 1.0
    (found,) = replace(HONEST, withheld=3, accepted=3).harms(level=0.05)
    assert "3 had been accepted" in found
    assert not replace(HONEST, withheld=2, accepted=2).harms(level=0.05)


def test_silence_nearly_always_is_harm():
    """A tenth of the champion's 95 is 9.5: nine are too few, ten are not."""
    (found,) = replace(HONEST, made_after=9, shorter=0, longer=0).harms(level=0.05)
    assert "for 9 of 100 prompts, before 95" in found
    assert not replace(HONEST, made_after=10, shorter=0, longer=0).harms(level=0.05)
    few = replace(HONEST, asked=19, made_before=19, made_after=0, shorter=0, longer=0)
    assert not few.harms(level=0.05), "of so few prompts nothing can be told"


def test_suggestions_that_break_off_are_harm():
    (found,) = replace(HONEST, shorter=12, longer=2).harms(level=0.05)  # 10 more of 50, by luck 106 / 2^14
    assert "12 are shorter than before and 2 longer" in found
    assert not replace(HONEST, shorter=5, longer=0).harms(level=0.05), "a tenth of the 50 where both suggest"
    assert not replace(HONEST, shorter=20, longer=12).harms(level=0.05), "luck"


@pytest.mark.parametrize("wrong", [{"accepted": 41}, {"made_after": 101}, {"threshold": 0.0}, {"shorter": 99}])
def test_counts_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="suggestions"):
        replace(HONEST, **wrong)


def test_honest_silence_is_refused_no_more_often_than_said():
    """Contexts at exactly p*, withheld alone: the worst that is honest."""
    rng, refused = Random(3), 0
    for _ in range(1_000):
        accepted = sum(rng.random() < 0.25 for _ in range(60))
        refused += bool(replace(HONEST, withheld=60, accepted=accepted).harms(level=0.05))
    assert refused <= 50


def test_a_fifth_of_many_judgements_is_kept_for_the_exam():
    def judged(number: int) -> Asking:
        question = ({"role": "user", "content": "here"},)
        lesson = Lesson(id=f"o{number}", question=question, answer_ids=(1,), verdict="accept", family="f")
        return Asking(lesson=lesson, teacher="o", decision=None)

    few = split([judged(n) for n in range(SUGGESTIONS - 1)], [])
    assert (len(few.train), few.suggestions) == (SUGGESTIONS - 1, ())
    many = split([judged(n) for n in range(1_000)], [])
    assert len(many.train) + len(many.suggestions) == 1_000
    assert 150 < len(many.suggestions) < 250
    assert many.exam == ()


# ---- a life ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_honest_version_is_let_through_and_a_silent_one_is_refused(tmp_path):
    torch.set_num_threads(1)
    world = World(seed=0, crowd=CROWDS["mixed"], topics=6)
    bring_up(world, tmp_path / "base", shape=Shape(steps=120))
    recipe = replace(RECIPES["accept-reject"], answer_tokens=ANSWER, context_tokens=CONTEXT, lessons=64, microbatch=64,
                     anchor_rows=16, self_written=0, steps=60)  # fmt: skip
    editor = Editor(tmp_path / "data", tmp_path / "base", world=world, recipes={"accept-reject": recipe})
    try:
        typed = editor.type(1_000)
        assert sum(one.kind is Kind.SILENT for one in typed) > 0
        job = editor.learn()
        assert job.result is not None
        name = str(job.result["challenger"])
        found = Suggested.from_json(editor.state(f"exam/{name}")["suggestions"])
        assert found.harms(level=0.05) == ()
        assert found.made_after < found.made_before
        before, after = (suggest.card(editor, one, threshold=0.25) for one in ("v0-baseline", name))
        assert after["rightly"] > before["rightly"]
        assert after["accepted"] > before["accepted"]
        game = suggest._game(editor, 0.99, recipe=recipe, place=tmp_path)
        assert {"withholds", "mute"} <= {one for why in game["harms"] for one in harm_names(why)}
    finally:
        editor.close()


def test_the_table_reads_pieces_and_says_what_is_missing(tmp_path):
    plan = suggest.Plan(seeds=(0,), rows=("quarter",), folder=tmp_path)
    with pytest.raises(Invalid, match="no piece of this plan"):
        suggest.assembled(plan, quick=True)
    day = {"shown": 0.5, "accepted": 0.6, "reward": 0.2, "words": 0.6}
    card = day | {"best": 0.25, "rightly": 0.9, "unseen": 0.8, "other": 1.0}
    version = card | {"verdict": "reject", "reason": "It withholds what people want: 3."}
    game = card | {"threshold": 0.99, "harms": ["It is silent nearly always: 0."]}
    piece = {"row": "quarter", "seed": 0, "before": card, "served": card, "days": [day], "versions": [version],
             "games": [game], "feedback": {"state": "informative"}, "code": "x"}  # fmt: skip
    plan.path("quarter", 0).write_text(json.dumps(piece))
    text = "\n".join(page(suggest.assembled(plan, quick=True)))
    assert "| p* .25 | 1 | 50.0 | 60.0 | 20.0 | 60.0 |" in text
    assert "| p* .25 | at the end | 90.0 | 80.0 | 80.0 | 100.0 |" in text
    assert "| 1 of 1 | mute |" in text
    assert "| 0 | 1 | 0 | 0 | 0 | withholds |" in text
    with pytest.raises(Invalid, match="there is no row 'magic'"):
        suggest.run(range(1), ["magic"], tmp_path, quick=True)


def test_a_day_is_counted_by_hand():
    here = Context(place=0, topic=0)

    def typed(kind: Kind, verdict: str | None) -> Typed:
        return Typed(context=here, kind=kind, verdict=verdict, version="v0-baseline")

    told = [typed(Kind.RIGHT, "accept"), typed(Kind.HALF, "accept"), typed(Kind.TRIVIAL, "reject"),
            typed(Kind.RIGHT, "none"), typed(Kind.SILENT, None)]  # fmt: skip
    day = suggest._day(told, threshold=0.25)
    assert day == {"shown": 0.8, "accepted": 0.5, "reward": (2 - 1) / 5, "words": 3 / 5, "trivial": 0.25}


def test_what_serves_at_the_end_is_compared_with_the_base_of_its_own_seed():
    def world(base: float, end: float) -> dict[str, object]:
        names = ("shown", "accepted", "reward", "words", "rightly", "unseen")
        return {"row": "quarter", "before": dict.fromkeys(names, base), "served": dict.fromkeys(names, end)}

    pieces = [world(0.1, 0.2), world(0.5, 0.6), world(0.9, 0.9)]
    (told,) = _gains({"titles": {"quarter": "p* .25", "half": "p* .5"}, "pieces": pieces, "seeds": [0, 1, 2]})
    # gains of .1, .1, 0: their mean, and t(.975, 2) = 4.303 times their spread .0577 over the root of 3
    assert told["reward"] == "+6.7 ±14.3"
    assert told["people"] == "p* .25"
