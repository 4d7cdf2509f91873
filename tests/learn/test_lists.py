"""Decisions on their way into a replay: memory stays bounded, and what is cut is what says least. Cases by hand."""

import tracemalloc
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dayjob.endings import OutcomeKind, Role
from dayjob.fakes import fake_decision, fake_outcome, find_fake_spec
from dayjob.journal import vectors
from dayjob.journal.readers import Reader
from dayjob.journal.store import Store, StoreConfig
from dayjob.learn import collect as collecting
from dayjob.learn import lists
from dayjob.learn.choose import Choice, HeldOut, choose, expected_loss
from dayjob.learn.collect import Collected, collect
from dayjob.learn.lists import WIDEST, Kept, Limits, Row, Told
from dayjob.learn.recipes import Debiased
from dayjob.learn.replay import Replay
from dayjob.policies.baseline import great_circle_km
from dayjob.records import Candidate, Decision

SPEC = {"context_dim": 2, "candidate_dim": 2, "pair_dim": 0, "metric": "click", "outcome_window_s": 60.0}
UNTOLD = Told(click=-1, truth=-1, reward=nan, rewarded=-1)
PARIS, LONDON = (48.8566, 2.3522), (51.5074, -0.1278)


def ranked(number: int, width: int, *, shown: int = 3, **extra: Any) -> tuple[Decision, list[bytes]]:
    """A decision over ``width`` candidates of which the last ``shown`` are shown, and their vectors."""
    blobs = [vectors.pack(np.array([number + 1, k + 1], np.float32)) for k in range(width)]
    shown = min(shown, width)
    decision = replace(
        fake_decision(number)[0], context=vectors.pack(np.ones(2, np.float32)), pair=b"", rival_score=b"",
        candidates=tuple(Candidate(id=f"c{k}", digest=vectors.digest(blob)) for k, blob in enumerate(blobs)),
        base=np.arange(width, 0, -1).astype("<f8").tobytes(), score=np.zeros(width).tobytes(), extra=extra,
        ranking=np.arange(width - 1, width - 1 - shown, -1).astype("<u2").tobytes(),
        propensity=np.ones(shown).tobytes(),
    )  # fmt: skip
    return decision, blobs


def journal(root: Path, decisions: list[tuple[Decision, list[bytes]]]) -> Reader:
    """A journal of these, the second of the places shown clicked in each."""
    store = Store(root, secret=b"s" * 32, find_spec=find_fake_spec, config=StoreConfig(ballast_bytes=0))
    for number, (decision, blobs) in enumerate(decisions):
        store.append_decision(decision, blobs).result()
        click = fake_outcome(9_000 + number, decision.id, kind=OutcomeKind.CLICK)
        last = store.append_outcome(replace(click, item=None, position=2)).result()
        assert last.receipt.value == "recorded", last
    store.close()
    return Reader(root)


def taken(reader: Reader) -> Collected:
    return collect(reader, "t", "p", spec=SPEC, until=reader.last_seq(), silent=set())


def test_one_list_of_a_thousand_among_small_ones_costs_little(tmp_path: Path) -> None:
    """Padded to it, the losses of 60 lists alone would be 240 MB."""
    long = ranked(0, 1_000, latlon=[[k / 20, k / 10] for k in range(1_000)])
    small = [ranked(n, 4, latlon=[[0.0, float(k)] for k in range(4)]) for n in range(1, 60)]
    reader = journal(tmp_path, [*small[:30], long, *small[30:]])
    tracemalloc.start()
    found = taken(reader)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    replay = found.replay
    assert found.stats == {"lists_cut": 1.0}
    assert (len(replay), replay.width) == (60, WIDEST)
    arrays = [value for value in vars_of(replay).values() if value is not None]
    assert sum(array.nbytes for array in arrays) < 1_000_000
    assert peak < 12_000_000
    (real,) = [row for row in replay.real_BK if row.sum() > 4]
    assert real.sum() == WIDEST


def vars_of(replay: Replay) -> dict[str, Any]:
    return {name: getattr(replay, name) for name in Replay.__dataclass_fields__}


def test_what_a_long_list_keeps_is_what_was_shown_spoken_of_and_scored_highest() -> None:
    told = Told(click=1, truth=3, reward=0.5, rewarded=9)
    row = row_of(ranked(1, 10, shown=2)[0], told)
    assert row.shown_R.tolist() == [9, 8]
    short = row.cut(5)
    assert short is not None
    # 9 and 8 were shown, 3 was right, 9 was rewarded: room for the two highest scores, 0 and 1.
    assert [list(row.each_digest()).index(one) for one in short.each_digest()] == [0, 1, 3, 8, 9]
    assert short.shown_R.tolist() == [4, 3]
    assert (short.told.click, short.told.truth, short.told.rewarded) == (1, 2, 4)
    assert short.base_K.tolist() == [10.0, 9.0, 7.0, 2.0, 1.0]
    assert row.cut(10) is row


def test_a_list_is_left_out_when_its_click_lies_beyond_what_is_kept() -> None:
    row = row_of(ranked(1, 10, shown=6)[0], replace(UNTOLD, click=4))
    assert row.cut(4) is None
    kept = row_of(ranked(1, 10, shown=6)[0], replace(UNTOLD, click=3)).cut(4)
    assert kept is not None
    assert kept.shown_R.tolist() == [3, 2, 1, 0]


def test_losses_follow_the_slots_that_are_kept() -> None:
    loss = [[float(10 * i + j) for j in range(4)] for i in range(4)]
    short = row_of(ranked(1, 4, shown=1, loss=loss)[0], UNTOLD).cut(2)
    assert short is not None
    assert short.loss_KK is not None
    assert short.loss_KK.tolist() == [[0.0, 3.0], [30.0, 33.0]]


def row_of(decision: Decision, told: Told) -> Row:
    return lists.row_of(decision, seq=1, speakers=frozenset(), told=told, pair_dim=0)


def kept(limits: dict[str, int], widths: list[int], **extra: Any) -> tuple[Kept, list[Row]]:
    wide = {"candidates": 10**9, "decisions": 10**9, "vectors": 10**9} | limits
    found = Kept(Limits(**wide))
    for number, width in enumerate(widths):
        found.add(replace(row_of(ranked(number, width, shown=1, **extra)[0], UNTOLD), seq=number))
    return found, found.settle()


def test_the_newest_that_fit_are_kept() -> None:
    for limits in ({"candidates": 12}, {"decisions": 3}, {"vectors": 12}):
        found, rows = kept(limits, [4] * 5)
        assert [row.seq for row in rows] == [2, 3, 4], limits
        assert found.stats() == {"left_out": 2.0}
    found, rows = kept({"losses": 33}, [4] * 5, loss=np.zeros((4, 4)).tolist())
    assert [(row.seq, len(row)) for row in rows] == [(3, 4), (4, 4)]


def test_one_long_list_does_not_pad_the_others_beyond_the_limit() -> None:
    found, rows = kept({"candidates": 40}, [4, 20, 4, 4])
    assert [len(row) for row in rows] == [4, 10, 4, 4], "four lists of ten"
    assert found.stats() == {"lists_cut": 1.0}


def test_a_night_reads_long_lists_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    reader = journal(tmp_path, [ranked(n, 3) for n in range(5)])
    real = Reader.decisions

    def decisions(self: Reader, tenant: str, policy: str, **options: Any) -> Any:
        asked.append(options["limit"])
        return real(self, tenant, policy, **options)

    monkeypatch.setattr(Reader, "decisions", decisions)
    assert len(taken(reader).replay) == 5
    assert set(asked) == {collecting.PAGE}
    assert collecting.PAGE <= 64


def test_distances_are_worked_out_where_they_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [[list(PARIS), list(LONDON), [0.0, float(n)]] for n in range(5)]
    reader = journal(tmp_path, [ranked(n, 3, latlon=places[n]) for n in range(5)])
    replay = taken(reader).replay
    assert replay.loss_BKK is None
    monkeypatch.setattr("dayjob.learn.replay.LOSSES_AT_ONCE", 18)  # two lists of three at once
    chunks = list(replay.losses())
    assert [at.start for at, _ in chunks] == [0, 2, 4]
    loss_BKK = np.concatenate([loss for _, loss in chunks])
    for n in range(5):
        np.testing.assert_array_equal(loss_BKK[n], great_circle_km(np.array(places[n])).astype(np.float32))
    assert loss_BKK[0, 0, 1] == pytest.approx(343.6, abs=0.5), "Paris to London"
    first_B, right_B = np.array([0, 1, 2, 0, 1]), np.array([1, 2, 0, 0, 1])
    np.testing.assert_array_equal(replay.loss_of(first_B, right_B), loss_BKK[np.arange(5), first_B, right_B])


def test_losses_in_chunks_choose_as_losses_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = np.random.default_rng(5)
    places = dice.uniform(-60, 60, (40, 4, 2))
    replay = taken(journal(tmp_path, [ranked(n, 4, latlon=places[n].tolist()) for n in range(40)])).replay
    loss_BKK = np.stack([great_circle_km(place) for place in places]).astype(np.float32)
    whole = replace(replay, place_BK2=None, loss_BKK=loss_BKK)
    utility_BK = dice.standard_normal((40, 4))
    held = HeldOut(log_likelihood_B=np.zeros(40), choice_B=np.ones(40), weight_B=np.ones(40), utility_BK=utility_BK)
    recipe = Debiased()
    at_once, first_B = choose(whole, held, recipe=recipe)
    monkeypatch.setattr("dayjob.learn.replay.LOSSES_AT_ONCE", 48)  # three at once
    in_chunks, chunked_B = choose(replay, held, recipe=recipe)
    np.testing.assert_array_equal(first_B, chunked_B)
    assert in_chunks == at_once
    if at_once != Choice():
        loss_BK = expected_loss(utility_BK, loss_BKK, real_BK=replay.real_BK, sharpness=at_once.sharpness)
        np.testing.assert_array_equal(first_B, loss_BK.argmin(axis=1))


def test_the_roles_and_ids_of_a_row_are_the_decisions() -> None:
    decision, _ = ranked(3, 2)
    row = row_of(replace(decision, user="ann", role=Role.BASELINE), UNTOLD)
    assert (row.user, row.role, len(row)) == ("ann", Role.BASELINE, 2)
