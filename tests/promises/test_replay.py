"""Promise 3: every answer can be explained. From the journaled record alone the role, the ranking and every probability
come out again to the bit, and from the journaled vectors the scores."""

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from starlette.testclient import TestClient

from dayjob.cli import serve as cli_serve
from dayjob.cli.serve import assemble
from dayjob.config import Config
from dayjob.endings import Role
from dayjob.fakes import FakeClock, FakeRanker, fake_id, load_fake
from dayjob.journal import vectors
from dayjob.journal.control import Control
from dayjob.journal.readers import Reader
from dayjob.policies.baseline import CallersOrder
from dayjob.policies.plackett_luce import Explore, draw, draw_pair, order, roll
from dayjob.policies.protocol import Lists
from dayjob.records import Decision, Pointers
from dayjob.serve.app import create_app
from dayjob.serve.decide import Asker, Shares, decide, question, seed_of
from dayjob.serve.live import Serving
from dayjob.serve.wire import RankRequest, parse, parse_policy_spec
from tests.promises.rig import POLICY, SPEC, add_version

KEY = ("default", POLICY)
SHARES = Shares(holdback=0.1, watch=0.2, trial=0.7)
SPEC5 = SPEC | {"context_dim": 5, "candidate_dim": 5, "pair_dim": 2, "explore": {"changed_first": 0.3}}


def request(number: int) -> dict[str, Any]:
    """Lists of several lengths, shown whole or in part, of float16 and float32 vectors."""
    dice = np.random.default_rng(number)
    k = int(dice.integers(1, 7))
    scale = 1e5 if number % 3 == 0 else 1.0
    body: dict[str, Any] = {
        "policy": POLICY, "id": fake_id(number), "user": f"u{number % 9}", "explore": number % 11 != 0,
        "context": {"features": (scale * dice.normal(size=5)).tolist()},
        "candidates": [
            {"id": f"item{n}", "features": (scale * dice.normal(size=5)).tolist(), "pair": dice.normal(size=2).tolist(),
             "score": float(dice.normal())}
            for n in range(k)
        ],
    }  # fmt: skip
    return body | ({"k": int(dice.integers(1, k + 1))} if number % 2 else {})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]]]:
    """A journal of 400 decisions in every role, and the answers by id."""
    root = tmp_path_factory.mktemp("replay") / "data"
    answers = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli_serve, "load_ranker", load_fake)
        settings = Config(data=root, holdback=SHARES.holdback, watch_share=SHARES.watch, trial_share=SHARES.trial)
        with TestClient(create_app(assemble(settings, ())), base_url="http://127.0.0.1") as client:
            assert client.put(f"/v1/policies/{POLICY}", json=SPEC5).status_code == 201
            names = [add_version(root, FakeRanker(number, turned=number == 1)) for number in (1, 2)]
            change = {"champion": names[0], "previous": "v0-baseline", "challenger": names[1]}
            Control(root).move(*KEY, change=change)
            client.post(f"/v1/policies/{POLICY}/unfreeze", json={})
            for number in range(400):
                answer = client.post("/v1/rank", json=request(number))
                assert answer.status_code == 200, answer.text
                answers[answer.json()["id"]] = answer.json()
    return root, answers


@pytest.fixture(scope="module")
def records(data: tuple[Path, dict[str, dict[str, Any]]]) -> list[Decision]:
    stored, _ = Reader(data[0]).decisions(*KEY, limit=10**6)
    assert len(stored) == 400
    return [one.record for one in stored]


def numbers(blob: bytes, kind: str = "<f8") -> np.ndarray:
    return np.frombuffer(blob, kind)


def lists_of(reader: Reader, record: Decision) -> Lists:
    """What was scored, from the journal."""
    k = len(record.candidates)
    return Lists(
        context_BD=vectors.unpack(record.context, 5)[None],
        candidate_BKE=reader.get_many(record.tenant, [c.digest for c in record.candidates], dim=5)[None],
        pair_BKP=numbers(record.pair, "<f4").reshape(1, k, 2),
        base_BK=numbers(record.base)[None],
    )


def test_every_role_was_played(records: list[Decision]) -> None:
    played = Counter(record.role for record in records)
    assert set(played) == set(Role) - {Role.PINNED}, "only language policies are asked for a version by name"
    assert {record.challenger for record in records if record.role is Role.TRIAL} > {"v0-baseline"}
    assert any(record.intervened for record in records)
    assert any(record.temperature > 0 for record in records)


def test_the_ranking_and_its_probabilities_replay_to_the_bit(records: list[Decision]) -> None:
    for record in records:
        score_K, shown = numbers(record.score), len(numbers(record.ranking, "<u2"))
        dice = roll(record.seed, len(record.candidates))
        how = Explore(epsilon=record.epsilon, temperature=record.temperature)
        if record.role is Role.TRIAL:
            rival_first = int(order(numbers(record.rival_score))[0])
            drawn = draw_pair(score_K, rival_first=rival_first, dice=dice, explore=how, shown=shown)
        else:
            drawn = draw(score_K, dice=dice, explore=how, shown=shown)
        assert drawn.ranking_R.astype("<u2").tobytes() == record.ranking
        assert drawn.propensity_R.astype("<f8").tobytes() == record.propensity
        assert (drawn.log_propensity, drawn.intervened, drawn.coin) == (
            record.log_propensity, record.intervened, record.coin,
        )  # fmt: skip
        assert (numbers(record.propensity) > 0).all()


def test_the_scores_come_out_again_from_the_journaled_vectors(
    records: list[Decision], data: tuple[Path, dict[str, dict[str, Any]]]
) -> None:
    reader, control = Reader(data[0]), Control(data[0])

    def ranker(name: str) -> Any:
        version = control.version(*KEY, name)
        return CallersOrder() if version.number == 0 else load_fake(data[0], *KEY, name, version.digest)

    for record in records:
        lists = lists_of(reader, record)
        np.testing.assert_allclose(ranker(record.version).score(lists)[0], numbers(record.score), atol=1e-4)
        if record.challenger is not None:
            again = ranker(record.challenger).score(lists)[0]
            np.testing.assert_allclose(again, numbers(record.rival_score), atol=1e-4)


def test_the_answer_is_the_record(records: list[Decision], data: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    for record in records:
        answer = data[1][record.id]
        slots = numbers(record.ranking, "<u2")
        assert [place["id"] for place in answer["ranking"]] == [record.candidates[slot].id for slot in slots]
        assert [place["propensity"] for place in answer["ranking"]] == numbers(record.propensity).tolist()
        assert [place["score"] for place in answer["ranking"]] == numbers(record.score)[slots].tolist()
        role = Role.CHAMPION if record.role is Role.BEST else record.role
        assert (answer["version"], answer["role"], answer["role_propensity"]) == (
            record.version, role.value, record.role_propensity,
        )  # fmt: skip
        assert math.isclose(answer["log_propensity"], float(np.log(numbers(record.propensity)).sum()))


def test_the_seed_comes_of_a_secret_and_the_id(
    records: list[Decision], data: tuple[Path, dict[str, dict[str, Any]]]
) -> None:
    secret = Control(data[0]).secret("sampling")
    assert all(seed_of(secret, record.tenant, record.id) == record.seed for record in records)
    assert all(seed_of(b"another", record.tenant, record.id) != record.seed for record in records)
    assert seed_of(secret, "another", records[0].id) != records[0].seed
    p_value = stats.kstest([record.seed / 2**64 for record in records], "uniform").pvalue
    assert p_value > 1e-4


# ---- roles -----------------------------------------------------------------------------------------------------------

ASKER = Asker(tenant="default", id="x", user=None, session=None, body_digest=b"", at_ms=0, learn=True)

DECLARED = parse_policy_spec(json.dumps(SPEC).encode()).model_dump()


def serving(
    *, rival: FakeRanker | None = None, replaced: FakeRanker | None = None, champion: str = "v5", frozen: str = ""
) -> Serving:
    pointers = Pointers(
        tenant="default", policy=POLICY, champion=champion, previous="v4", challenger="v6", baseline="v0",
        frozen=frozen, generation=1,
    )  # fmt: skip
    return Serving(
        spec=DECLARED, pointers=pointers, frozen=frozen, champion=champion, ranker=FakeRanker(5),
        challenger=None if rival is None else "v6", rival=rival,
        replaced=None if replaced is None else ("v4", replaced), explore=Explore(epsilon=0.1, temperature=0.1),
        catalog=None,
    )  # fmt: skip


def ask(found: Serving, seed: int, *, learn: bool = True, explore: bool = True) -> Decision:
    body = {"policy": POLICY, "context": {"features": [1.0, 2.0]}, "candidates": [
        {"id": item, "features": [1.0, 0.0], "score": score} for item, score in (("a", 1.0), ("b", 2.0), ("c", 0.0))
    ]}  # fmt: skip
    asked = question(parse(RankRequest, json.dumps(body).encode()), found, max_candidates=10)
    asker = replace(ASKER, learn=learn)
    return decide(asked, found, asker=asker, seed=seed, explore=explore, shown=None, shares=SHARES)


AGREES, DIFFERS = FakeRanker(6), FakeRanker(6, turned=True)
SITUATIONS = {
    "alone": (serving(), {("champion", None): 0.9, ("baseline", None): 0.1}),
    "trial": (serving(rival=DIFFERS), {("baseline", None): 0.1, ("trial", "v6"): 0.63, ("champion", None): 0.27}),
    "trial-agrees": (serving(rival=AGREES), {("baseline", None): 0.1, ("champion", None): 0.9}),
    "watch": (serving(replaced=DIFFERS), {("baseline", None): 0.1, ("trial", "v4"): 0.2, ("champion", None): 0.7}),
    "watch-agrees": (serving(replaced=AGREES), {("baseline", None): 0.1, ("champion", None): 0.9}),
    "both": (
        serving(rival=DIFFERS, replaced=DIFFERS),
        {("baseline", None): 0.1, ("trial", "v4"): 0.2, ("trial", "v6"): 0.49, ("champion", None): 0.21},
    ),
    "trial-and-watch-agrees": (
        serving(rival=DIFFERS, replaced=AGREES),
        {("baseline", None): 0.1, ("trial", "v6"): 0.49, ("champion", None): 0.41},
    ),
    "baseline-serves": (serving(champion="v0", rival=DIFFERS), {("trial", "v6"): 0.7, ("champion", None): 0.3}),
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_the_chances_of_the_roles_sum_to_one_and_are_kept(name: str) -> None:
    found, expected = SITUATIONS[name]
    count = 1_500
    drawn = [ask(found, seed) for seed in range(count)]
    stated = {(d.role.value, d.challenger): d.role_propensity for d in drawn}
    assert stated == pytest.approx(expected)
    assert math.isclose(sum(stated.values()), 1.0, abs_tol=1e-12)
    played = Counter((d.role.value, d.challenger) for d in drawn)
    p_value = stats.chisquare([played[part] for part in stated], [count * chance for chance in stated.values()]).pvalue
    assert p_value > 1e-4


def test_who_is_not_learned_from_gets_the_best_order_and_no_part() -> None:
    both = serving(rival=DIFFERS, replaced=DIFFERS)
    for seed in range(60):
        for decision in (ask(both, seed, learn=False), ask(both, seed, explore=False)):
            assert (decision.role, decision.role_propensity, decision.version) == (Role.BEST, 1.0, "v5")
            assert numbers(decision.ranking, "<u2").tolist() == [1, 0, 2]
            assert numbers(decision.propensity).tolist() == [1.0, 1.0, 1.0]


def test_the_holdback_is_the_callers_own_order() -> None:
    held = [d for d in (ask(serving(), seed) for seed in range(200)) if d.role is Role.BASELINE]
    assert held
    for decision in held:
        assert decision.version == "v0"
        assert numbers(decision.score).tolist() == [1.0, 2.0, 0.0]
        assert numbers(decision.ranking, "<u2").tolist() == [1, 0, 2]
        assert (decision.epsilon, decision.temperature) == (0.0, 0.0)


# ---- clocks ----------------------------------------------------------------------------------------------------------


def test_a_clock_that_jumps_stands_or_runs_back_changes_no_order(tmp_path: Path) -> None:
    """F6: the journal's order is its sequence. Times never run back, until a clock that was far ahead is set right."""
    service = assemble(Config(data=tmp_path / "data"), ())
    clock = FakeClock(1_700_000_000_000)
    service.hub.wall_ms = clock
    hour, year = 3_600_000, 365 * 86_400_000
    asked: list[str] = []
    with TestClient(create_app(service), base_url="http://127.0.0.1") as client:
        client.put(f"/v1/policies/{POLICY}", json=SPEC5)
        for step in (0, 0, 5, -30_000, -1, year, hour, -year - hour, 1):
            clock.advance(step)
            answer = client.post("/v1/rank", json=request(len(asked)))
            assert answer.status_code == 200
            asked.append(answer.json()["id"])
            click = {"decision": asked[-1], "kind": "none"}
            assert client.post("/v1/feedback", json=click).status_code == 201
    stored, _ = Reader(tmp_path / "data").decisions(*KEY)
    assert [one.record.id for one in stored] == asked
    start = stored[0].record.at_ms
    seen = [one.record.at_ms - start for one in stored]
    assert seen == [0, 0, 5, 5, 5, year - 29_996, year + hour - 29_996, -29_996, -29_995]
