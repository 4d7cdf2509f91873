"""What the teacher makes of answers, read once: the same as asked token by token, each answer alone."""

import math

import pytest
import torch

from dayjob.lab.speed_teach import QUICK_SIZES, make_model
from dayjob.learn.language.recipes import NightRecipe
from dayjob.learn.language.refining import padded, refine
from dayjob.learn.language.study import Study

# Beside a prompt that is many times as long; more answers than slots; one that begins wrong and one that stays.
TAUGHT = [tuple(range(2, 2 + size)) for size in (3, 40, 5, 22, 40)]
MOST, RATIO, CONTEXT = 4, 0.5, 64


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("refining") / "model"
    make_model(folder, QUICK_SIZES[0], seed=0)
    recipe = NightRecipe(method="consolidate", context_tokens=CONTEXT, answer_tokens=32, microbatch=2)
    study = Study(folder, recipe, seed=0)
    with torch.no_grad():  # an adapter that says something else: the teacher has to leave it off
        for parameter in study.lora.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return study


def thought(study: Study, ids: tuple[int, ...], place: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The teacher's state, and what it would say, behind the first ``place`` tokens, by themselves."""
    hidden_D = study.base_hidden(study.rows([ids[:place]], [(0,)]))[0, 0]
    return hidden_D, torch.log_softmax(hidden_D @ study.vocabulary_VD.T, dim=0)


def by_hand(study: Study, taught: tuple[int, ...], answer: tuple[int, ...]) -> tuple[tuple[int, ...], bool]:
    for place, token in enumerate(answer):
        _, logp_V = thought(study, (*taught, *answer), len(taught) + place)
        if logp_V[token] < logp_V.max() + math.log(RATIO):
            kept = answer[:place]
            break
    else:
        return answer, False
    ids = kept
    while len(ids) - len(kept) < MOST and len(taught) + len(ids) < CONTEXT:
        ids = (*ids, int(thought(study, (*taught, *ids), len(taught) + len(ids))[1].argmax()))
        if ids[-1] in study.tokens.end_ids:
            break
    return ids, True


def test_it_is_what_the_teacher_says_token_by_token(study: Study) -> None:
    best = [int(thought(study, one, len(one))[1].argmax()) for one in TAUGHT]
    wrong = [(token + 1) % len(study.vocabulary_VD) for token in best]
    answers = [(best[0],), (best[1], wrong[1], 9), (wrong[2], 5), (wrong[3],), (best[4], 3, 4, 5, 6)]
    found = refine(study, TAUGHT, answers=answers, error_ratio=RATIO, answer_tokens=MOST)
    wanted = [by_hand(study, taught, answer) for taught, answer in zip(TAUGHT, answers, strict=True)]
    assert [(one.token_ids, one.changed) for one in found] == wanted
    assert {one.changed for one in found} == {True, False}
    hidden_BTD = padded(found)
    for row, (taught, one) in enumerate(zip(TAUGHT, found, strict=True)):
        assert len(one.hidden_TD) == len(one.token_ids)
        for place in range(len(one.token_ids)):
            alone_D, _ = thought(study, (*taught, *one.token_ids), len(taught) + place)
            torch.testing.assert_close(hidden_BTD[row, place], alone_D, rtol=1e-4, atol=1e-4)
        assert not hidden_BTD[row, len(one.token_ids) :].any()


def test_it_ends_where_the_context_does_and_where_an_answer_does(study: Study) -> None:
    taught = tuple(range(2, CONTEXT - 1))
    # With such a ratio every first token is an error.
    kept, study.writer.end_ids = study.writer.end_ids, frozenset()
    try:
        (full,) = refine(study, [taught], answers=[(3,)], error_ratio=2.0, answer_tokens=MOST)
    finally:
        study.writer.end_ids = kept
    assert len(full.token_ids) == CONTEXT - len(taught) < MOST
    first = int(thought(study, taught[:9], 9)[1].argmax())
    study.writer.end_ids = frozenset({first})
    try:
        (ended,) = refine(study, [taught[:9]], answers=[(3, 4)], error_ratio=2.0, answer_tokens=MOST)
    finally:
        study.writer.end_ids = kept
    assert (ended.token_ids, ended.changed) == ((first,), True)


def test_what_it_thought_can_be_learned_from(study: Study) -> None:
    found = refine(study, TAUGHT[:1], answers=[(1, 2)], error_ratio=RATIO, answer_tokens=MOST)
    student_BTD = torch.zeros(1, len(found[0].token_ids), padded(found).shape[2], requires_grad=True)
    (student_BTD * padded(found)).sum().backward()
    assert student_BTD.grad is not None
