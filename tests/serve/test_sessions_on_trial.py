"""A challenger of the tenant among real sessions over HTTP: who answers, what is journaled, what the gate says."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from dayjob.endings import Role, VersionStatus
from dayjob.gate import language
from dayjob.gate.language import LanguageJudge
from dayjob.journal.control import put_state
from dayjob.records import Decision
from dayjob.serve.answers import Report
from dayjob.serve.app import create_app
from dayjob.serve.call import Service
from tests.gate.test_exam import record
from tests.journal.standing import stand
from tests.policies.language.worlds import World
from tests.serve.adapting import POLICY, TENANT, ask, check_written_by, promote, publish, serve_tiny
from tests.serve.chatting import LANGUAGE

KEY = (TENANT, POLICY)
BASELINE = "v0-baseline"
WINDOW_S = 60.0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make("qwen3", tmp_path_factory.mktemp("adapters"))


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return serve_tiny(tmp_path, watch_share=0.25)


@pytest.fixture
def http(service: Service) -> Iterator[TestClient]:
    with TestClient(create_app(service), base_url="http://127.0.0.1") as client:
        assert client.put("/v1/policies/clerk", json=LANGUAGE).status_code == 201
        yield client


@pytest.fixture
def judge(service: Service, monkeypatch: pytest.MonkeyPatch) -> LanguageJudge:
    """A judge whose clock is ahead: every session is closed."""
    monkeypatch.setattr(language, "REPORT_S", 0.0)
    monkeypatch.setattr(language, "CHECK_S", 0.0)
    hub = service.hub
    return LanguageJudge(
        hub.control, hub.reader, holder="judge", window_s=WINDOW_S,
        now_ms=lambda: hub.now_ms() + 2 * int(1000 * WINDOW_S),
    )  # fmt: skip


def look(service: Service, judge: LanguageJudge) -> int:
    """The judge looks, and the server follows."""
    judged = judge.step()
    service.hub.refresh()
    return judged


def on_trial(service: Service, world: World, judge: LanguageJudge, number: int = 1) -> str:
    name = publish(service, world, number)
    with service.hub.control.write() as db:
        against = service.hub.control.pointers(*KEY).champion
        put_state(db, *KEY, name=f"exam/{name}", state=record(against=against))
    look(service, judge)
    assert service.hub.control.pointers(*KEY).challenger == name
    return name


def sessions(service: Service, name: str = "s", each: int = 4) -> list[str]:
    """Names of sessions, so many for each of the versions that can answer now, as they were found."""
    pointers, coin, found = service.hub.control.pointers(*KEY), service.voices.coin, list[str]()
    chances = coin.toss(pointers, session="any").told["chances"]
    left = Counter({str(getattr(pointers, who)): each for who, chance in chances.items() if chance})
    for n in range(1_000):  # the rarest answers a quarter: that they do not suffice has a chance of 1e-100
        version = coin.toss(pointers, session=f"{name}{n}").version
        if left[version]:
            left[version] -= 1
            found.append(f"{name}{n}")
    assert not left.total(), left
    return found


def decided(service: Service, told: dict[str, Any]) -> Decision:
    stored = service.hub.reader.decision(TENANT, told["id"])
    assert stored is not None
    return stored.record


def test_a_session_stays_with_the_version_that_its_coin_chose(service, world, http, judge):
    name = on_trial(service, world, judge)
    seen = set()
    for one in sessions(service):
        session = {"metadata": {"session": one}}
        first, second = ask(http, **session), ask(http, model="clerk@champion", **session)
        a, b = decided(service, first), decided(service, second)
        assert (a.version, a.role, a.challenger, a.role_propensity) == (
            name if a.coin == 1 else BASELINE, Role.TRIAL, name, 0.5,
        )  # fmt: skip
        assert (a.version, a.coin) == (b.version, b.coin)
        assert a.extra == {
            "champion": BASELINE, "challenger": name, "replaced": None,
            "chances": {"champion": 0.5, "challenger": 0.5, "replaced": 0.0},
        }  # fmt: skip
        check_written_by(service, world, first, 1 if a.coin == 1 else 0)
        seen.add(a.coin)
    assert seen == {-1, 1}


def test_a_comparison_does_not_tell_the_coin_of_a_session_that_has_not_begun(service, world, http, judge):
    """An answer of before the trial is compared by the version that wrote it, or by the champion, whatever its session
    would get; else a client could read each coin and go on only in the sessions that it likes."""
    asked = {one: ask(http, max_tokens=1, metadata={"session": one})["id"] for one in (f"s{n}" for n in range(40))}
    on_trial(service, world, judge)
    pointers = service.hub.control.pointers(*KEY)
    coins = {service.voices.coin.toss(pointers, session=one).coin for one in asked}
    found = {http.get(f"/v1/decisions/{one}/compare").json()["version"] for one in asked.values()}
    assert found == {BASELINE}
    assert coins == {-1, 1}, "some of them would have got the challenger"
    gone = publish(service, world, 2)
    promote(http, gone)
    late = [ask(http, metadata={"session": one}) for one in sessions(service, "late", each=1)]
    by_it = next(one["id"] for one in late if decided(service, one).version == gone)
    assert http.get(f"/v1/decisions/{by_it}/compare").json()["version"] == gone
    champion = publish(service, world, 3)
    promote(http, champion)
    stand(service.hub.control, *KEY, [gone], VersionStatus.TAINTED)
    assert http.get(f"/v1/decisions/{by_it}/compare").json()["version"] == champion


def test_the_same_request_again_gets_the_answer_it_got(service, world, http, judge):
    """Also once the pair is another: the first answer stands."""
    id_ = "00000000-0000-4000-8000-00000000000a"
    name = on_trial(service, world, judge)
    first = ask(http, id=id_)
    promote(http, name)
    assert ask(http, id=id_)["choices"] == first["choices"]
    assert ask(http, id=id_)["system_fingerprint"] == first["system_fingerprint"]


def test_whom_no_coin_is_thrown_for(service, world, http, judge):
    """Named versions, people with one of their own, people who are not learned from, and everybody during a freeze."""
    on_trial(service, world, judge)
    own = publish(service, world, 2, user="ann")
    promote(http, own, user="ann")
    assert http.patch("/v1/users/ben", json={"learn": False}).status_code == 200
    for n in range(6):
        session = {"metadata": {"session": f"q{n}"}}
        pinned = decided(service, ask(http, model="clerk@baseline", **session))
        assert (pinned.role, pinned.extra) == (Role.PINNED, {})
        hers = decided(service, ask(http, user="ann", metadata={"session": f"ann{n}"}))
        assert (hers.version, hers.role, hers.extra) == (own, Role.CHAMPION, {})
        his = decided(service, ask(http, user="ben", metadata={"session": f"ben{n}"}))
        assert (his.version, his.role, his.extra) == (BASELINE, Role.CHAMPION, {})
    assert http.post("/v1/policies/clerk/freeze", json={}).status_code == 200
    for n in range(6):
        frozen = decided(service, ask(http, metadata={"session": f"f{n}"}))
        assert (frozen.version, frozen.role, frozen.extra) == (BASELINE, Role.CHAMPION, {})


def test_a_challenger_that_does_not_load_leaves_the_champion_answering_under_the_same_coin(service, world, http, judge):
    name = on_trial(service, world, judge)
    for file in (service.hub.root / "versions").rglob("adapter_model.safetensors"):
        file.write_bytes(file.read_bytes()[:-1] + b"!")
    coins = set()
    for one in sessions(service):
        found = decided(service, ask(http, metadata={"session": one}))
        assert (found.version, found.challenger) == (BASELINE, name)
        coins.add(found.coin)
    assert coins == {-1, 1}


def test_after_a_promotion_a_share_of_the_sessions_is_answered_by_what_was_replaced(service, world, http):
    first = publish(service, world, 1)
    promote(http, first)
    found = [decided(service, ask(http, metadata={"session": one})) for one in sessions(service, "w", each=6)]
    by = {one.version for one in found}
    assert by == {first, BASELINE}
    for one in found:
        assert one.extra["chances"] == {"champion": 0.75, "challenger": 0.0, "replaced": 0.25}
        assert (one.role, one.role_propensity, one.challenger, one.coin) == (
            (Role.TRIAL, 0.25, BASELINE, 1) if one.version == BASELINE else (Role.CHAMPION, 0.75, None, 0)
        )


def test_sessions_over_http_promote_the_version_that_people_like(service, world, http, judge):
    """From an exam that leaves it open to the champion, and what the report says on the way."""
    name = on_trial(service, world, judge)
    empty = Report.model_validate(http.get("/v1/policies/clerk/report").json())
    assert empty.gate.trial is not None
    assert "No session is judged yet" in empty.gate.trial["reason"]
    assert empty.gate.estimates[name]["exam"]["kl_budget"] == 0.05
    assert empty.feedback.state.value == "too_few"
    for n in range(60):
        told = ask(http, max_tokens=1, metadata={"session": f"s{n}"}, user=f"u{n}")
        value = 1 if decided(service, told).version == name else -1
        said = http.post("/v1/feedback", json={"decision": told["id"], "kind": "thumb", "value": value})
        assert said.status_code == 201, said.text
    assert look(service, judge) > 10
    seen = http.get("/v1/policies/clerk").json()
    assert seen["champion"] == name
    assert seen["last_verdict"]["kind"] == "promote"
    assert service.hub.control.version(*KEY, name).status is VersionStatus.CHAMPION
    look(service, judge)
    report = Report.model_validate(http.get("/v1/policies/clerk/report").json())
    assert report.feedback.state.value == "informative"
    assert report.forgetting["version"] == name
    assert report.forgetting["kl"] == 0.004
    assert report.gate.watch is not None
    assert report.gate.watch["rival"] == BASELINE
