"""A ranker's dream: the learner's fit, the report's word on the clicks and imagined users, brought together."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from dayjob.dream.rankers import Users, imagine, refusal
from dayjob.endings import Invalid
from dayjob.journal import versions
from dayjob.journal.control import Control
from dayjob.journal.jobs import budget_of
from dayjob.journal.readers import Reader
from dayjob.learn.collect import collect
from dayjob.learn.loop import NO_PROOF, NOTHING_LEFT
from dayjob.learn.networks import ClickModel
from dayjob.learn.recipes import RECIPES
from dayjob.learn.rehearse import rehearse
from dayjob.learn.replay import FILLER, Replay
from dayjob.learn.work import SEED, Made, Work
from dayjob.records import Json


def dream_of_ranker(work: Work, *, control: Control, reader: Reader) -> Made:
    """A challenger that learned from the journal and from imagined users as well, or why there is none.

    The policy's own recipe learns; the budget is in the job's recipe (`journal.jobs.dream_recipe`), in imagined
    decisions for each real one. A champion that has to be built again is, by the same budget, unless its clicks are
    nothing to imagine from any more: then without.
    """
    policy, budget = work.policy, budget_of(work.recipe)
    assert budget is not None, "a dream's job names its budget"
    why = refusal(control.state(policy.tenant, policy.name, "report") or {})
    if why is not None and not work.tainted:
        return Made(why=why)
    try:
        found = collect(
            reader, policy.tenant, policy.name, spec=policy.spec, until=work.until, silent=control.silent_people()
        )
    except Invalid:
        if not work.tainted:
            raise
        return Made(why=NOTHING_LEFT)
    done = rehearse(
        found.replay, shape=policy.spec["hidden"], recipe=RECIPES[str(policy.spec["recipe"])],
        budget=0.0 if why else budget, imagine=imagined_users, seed=SEED, checkpoint=work.checkpoint,
        progress=work.progress,
    )  # fmt: skip
    # What was measured on real decisions alone: imagined ones would agree with whatever imagined them.
    stats: Json = done.plain.stats | found.stats | {"imagined": float(done.imagined)}
    told: Json = {"decisions": len(found.replay), "imagined": done.imagined, "stats": stats}
    if done.fitted.stats.get("kept_baseline"):
        return Made(why=NO_PROOF, told=told)
    return Made(
        told=told, publish=partial(versions.publish, weights=done.fitted.weights), network=done.fitted.network,
        from_seq=found.from_seq, to_seq=found.to_seq, users=found.users, detail={"stats": stats},
    )  # fmt: skip


def imagined_users(replay: Replay, model: ClickModel, *, count: int, seed: int) -> Replay:
    """Imagined decisions on the contexts of a replay, by the click model that was fitted from it."""
    users = Users(
        pull=model.pull, pull_at_K=model.pull_at_K.double().numpy(), examined_K=model.examined_K.double().numpy(),
        belief_BK=model.belief_BK.double().numpy(),
    )  # fmt: skip
    found = imagine(users, replay.shown_BK, count=count, seed=seed)
    nobody_N = np.full(count, FILLER, np.int16)
    rewards: dict[str, Any] = {}
    if replay.reward_B is not None:
        rewards = {"reward_B": np.full(count, np.nan, np.float32), "rewarded_B": nobody_N}
    return replace(
        replay.rows(found.source_N), shown_BK=found.shown_NK, propensity_BK=found.propensity_NK,
        click_B=found.click_N, truth_B=nobody_N, user_B=nobody_N.astype(np.int32),
        role_B=np.zeros(count, np.int16), **rewards,
    )  # fmt: skip
