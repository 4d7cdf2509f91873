"""The teacher reads an answer once: it finds the first error, writes on from there, and what it thought of every token
on the way is kept for the loss.

A lesson's context is mostly notes, many times as long as its answer. Reading it for the errors, again for the rewriting
and again for the loss was half of a night's work.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dayjob.learn.language.study import Ids, Study, alike, slices
from dayjob.learn.language.writing import BASE
from dayjob.policies.engine_batch import Row


@dataclass(slots=True, kw_only=True)
class Refined:
    """One answer as the teacher would have it. ``hidden_TD``: the teacher's state that predicts each token of it;
    ``changed``: the teacher rewrote its end."""

    token_ids: Ids
    hidden_TD: Tensor
    changed: bool


def refine(
    study: Study, taught: Sequence[Ids], *, answers: Sequence[Ids], error_ratio: float, answer_tokens: int
) -> list[Refined]:
    """Each answer up to its first error as it was, from there on the teacher's most probable tokens, at most
    ``answer_tokens`` of them. An error is a token that the teacher gives less than ``error_ratio`` times its most
    probable one. ``taught``: prompts as the teacher reads them. Answers are not empty."""
    found: list[Refined] = []
    with study.teaching():
        for part in slices(len(taught), study.writer.slots):
            found += _refine(study, taught[part], answers[part], ratio=error_ratio, most=answer_tokens)
    return found


def padded(refined: Sequence[Refined]) -> Tensor:
    """(B, T, D): the teacher's states of all, 0 behind the ends of the answers."""
    # A copy, made outside of inference mode: what was made in it cannot be part of a loss.
    return torch.nn.utils.rnn.pad_sequence([one.hidden_TD for one in refined], batch_first=True)


@torch.inference_mode()
def _refine(
    study: Study, taught: Sequence[Ids], answers: Sequence[Ids], *, ratio: float, most: int
) -> list[Refined]:  # fmt: skip
    reads = [(*prompt, *answer[:-1]) for prompt, answer in zip(taught, answers, strict=True)]
    order, groups = alike([len(one) for one in reads])
    slot = {place: number for number, place in enumerate(order)}  # those of a group lie side by side
    found: dict[int, Refined] = {}
    for places in groups:
        rows = [Row(row=slot[place], token_ids=reads[place], start=0, adapter=BASE) for place in places]
        hidden_BLD = study.batch.hidden(rows)
        for row, place in enumerate(places):
            hidden_TD = hidden_BLD[row, len(taught[place]) - 1 : len(reads[place])]
            found[place] = _up_to_error(study, answers[place], hidden_TD, ratio=ratio)
    refined = [found[place] for place in range(len(taught))]
    _write_on(study, taught, refined, slot=slot, most=most)
    return refined


def _up_to_error(study: Study, answer: Ids, hidden_TD: Tensor, *, ratio: float) -> Refined:
    """The answer, or what is right of it, with the teacher's own token in place of the first error."""
    logp_TV = torch.log_softmax(study.base_logits(hidden_TD), dim=1)  # of one answer: never of all at once
    token_T = torch.tensor(answer, device=logp_TV.device)
    best = logp_TV.max(dim=1)
    gap_T = best.values - logp_TV.gather(1, token_T[:, None])[:, 0]
    bad = torch.nonzero(gap_T > -math.log(ratio))
    if not len(bad):
        return Refined(token_ids=answer, hidden_TD=hidden_TD.clone(), changed=False)
    error = int(bad[0, 0])
    ids = (*answer[:error], int(best.indices[error]))
    return Refined(token_ids=ids, hidden_TD=hidden_TD[: error + 1].clone(), changed=True)


def _write_on(
    study: Study, taught: Sequence[Ids], refined: Sequence[Refined], *, slot: dict[int, int], most: int
) -> None:  # fmt: skip
    """Finish what was changed. The keys and values of everything before are in the slots already."""
    writer = study.writer
    kept = {place: len(one.token_ids) - 1 for place, one in enumerate(refined) if one.changed}

    def goes_on(place: int) -> bool:
        ids = refined[place].token_ids
        room = len(taught[place]) + len(ids) < writer.context_tokens
        return ids[-1] not in writer.end_ids and len(ids) - kept[place] < most and room

    now = [place for place in kept if goes_on(place)]
    while now:
        now.sort(key=slot.__getitem__)
        rows = [
            Row(
                row=slot[place], token_ids=refined[place].token_ids[-1:],
                start=len(taught[place]) + len(refined[place].token_ids) - 1, adapter=BASE,
            )
            for place in now
        ]  # fmt: skip
        hidden_BD = study.batch.hidden(rows)[:, 0]
        said = study.base_logits(hidden_BD).argmax(dim=1).tolist()
        for place, hidden_D, token in zip(now, hidden_BD, said, strict=True):
            one = refined[place]
            one.hidden_TD = torch.cat([one.hidden_TD, hidden_D[None]])
            one.token_ids = (*one.token_ids, token)
        now = [place for place in now if goes_on(place)]
