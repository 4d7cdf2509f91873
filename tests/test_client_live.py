"""The client against a real dayjob, and through a wire that loses the server's answers."""

import socket
import threading
import uuid
from collections.abc import Iterator
from dataclasses import fields, replace

import httpx2
import numpy as np
import pytest

from dayjob.client import ApiError, Backoff, Candidate, Client, Feedback, RankerSpec
from dayjob.endings import FeedbackState, PolicyKind, VersionStatus
from dayjob.lab.server import running

SPEC = RankerSpec(context_dim=4, candidate_dim=4, pair_dim=2, metric="km", learn_every=0)
CONTEXT = [1.0, 0.5, 0.0, -0.5]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("dayjob") / "data") as server:
        yield server.url


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as ready:
        ready.put_policy("live", SPEC)
        yield ready


def candidates(count: int = 3) -> list[Candidate]:
    rng = np.random.default_rng(0)
    return [
        Candidate(
            id=f"c{n}",
            features=rng.normal(size=4),
            pair=rng.normal(size=2),
            score=-float(n),
            meta={"lat": float(n), "lon": 10.0},
        )
        for n in range(count)
    ]


class LossyWire:
    """A TCP relay that closes its first ``lose`` connections once the server has answered, before a byte comes back."""

    def __init__(self, url: str, *, lose: int) -> None:
        host, port = url.removeprefix("http://").split(":")
        self._to = (host, int(port))
        self.lose = lose
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._relay, args=(near, self.connections <= self.lose), daemon=True).start()

    def _relay(self, near: socket.socket, lose: bool) -> None:
        with near, socket.create_connection(self._to) as far:
            threading.Thread(target=self._upstream, args=(near, far), daemon=True).start()
            while data := far.recv(65_536):
                if lose:
                    near.shutdown(socket.SHUT_RDWR)
                    return
                near.sendall(data)

    @staticmethod
    def _upstream(near: socket.socket, far: socket.socket) -> None:
        try:
            while data := near.recv(65_536):
                far.sendall(data)
        except OSError:
            return

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def wire(url: str) -> Iterator[LossyWire]:
    lossy = LossyWire(url, lose=2)
    yield lossy
    lossy.close()


def test_an_answer_lost_on_the_way_is_not_a_second_effect(client: Client, wire: LossyWire) -> None:
    """The server records, its answer is lost, the client asks again: one decision, one outcome, the same answer."""
    client.put_policy("lossy", SPEC)
    quick = Backoff(retries=4, first_s=0.001, longest_s=0.01)
    with Client(wire.url, retries=quick) as far:
        answer = far.rank("lossy", CONTEXT, candidates=candidates(), user="u-lossy")
        wire.lose = wire.connections + 2
    assert wire.connections == 3
    with Client(wire.url, retries=quick) as far:
        receipt = far.feedback(answer.click("c1"))
    assert wire.connections == 6
    assert (receipt.status, receipt.receipt) == (200, "repeated")  # its first arrival was recorded, unseen
    counts = client.policy("lossy").counts
    assert (counts.decisions, counts.outcomes) == (1, {"click": 1})


def test_policies(client: Client, url: str) -> None:
    policy = client.policy("live")
    assert (policy.kind, policy.champion, policy.challenger) == (PolicyKind.RANKER, policy.baseline, None)
    assert policy.spec["metric"] == "km"
    assert "live" in [each.name for each in client.policies()]
    (version,) = client.versions("live")
    assert (version.version, version.status) == (policy.champion, VersionStatus.BASELINE)
    report = client.report("live")
    assert report.feedback.state is FeedbackState.TOO_FEW
    assert report.gate["lag"] >= 0
    raw = httpx2.get(f"{url}/v1/policies/live/report", timeout=20).json()
    assert (report.gaming, report.exposure) == (raw["gaming"], raw["exposure"])
    assert set(raw) == {each.name for each in fields(report)}
    with pytest.raises(ApiError) as refused:
        client.put_policy("live", RankerSpec(context_dim=5, candidate_dim=4))
    assert refused.value.status == 409
    with pytest.raises(ApiError) as absent:
        client.policy("no-such-policy")
    assert (absent.value.status, absent.value.kind) == (404, "not_found_error")
    assert client.ready()


def test_rank_and_every_kind_of_feedback(client: Client) -> None:
    answer = client.rank("live", CONTEXT, candidates=candidates(), user="u1", session="s1")
    assert {one.id for one in answer.ranking} == {"c0", "c1", "c2"}
    best = client.rank("live", CONTEXT, candidates=candidates(), explore=False)
    assert [one.id for one in best.ranking] == ["c0", "c1", "c2"]  # version zero: by the caller's score
    assert client.feedback(answer.click("c2")).status == 201
    truth = answer.truth({"c0": 0.1, "c1": 0.9})
    sent = [
        truth,
        Feedback(decision=answer.id, kind="thumb", value=1.0),
        Feedback(decision=answer.id, kind="reward", value=0.5),
        Feedback(decision=answer.id, kind="demonstration", item="c1"),
        Feedback(session="s1", kind="thumb", value=-1.0),
        Feedback(decision=answer.id, kind="retract", value=truth.id),
        Feedback(decision=answer.id, kind="click", item="c9", position=1),
        Feedback(decision=str(uuid.uuid4()), kind="none"),
    ]
    receipts = client.feedback_many(sent)
    assert [each.id for each in receipts] == [each.id for each in sent]
    assert [each.status for each in receipts] == [201] * 6 + [422, 202]
    assert receipts[6].error is not None
    assert "c9" in receipts[6].error["message"]
    again = client.feedback_many(sent[:6])
    assert [each.status for each in again] == [200] * 6


def test_one_id_one_decision(client: Client) -> None:
    mine = str(uuid.uuid4())
    first = client.rank("live", CONTEXT, candidates=candidates(), id=mine)
    assert client.rank("live", CONTEXT, candidates=candidates(), id=mine) == first
    with pytest.raises(ApiError) as refused:
        client.rank("live", CONTEXT[::-1], candidates=candidates(), id=mine)
    assert refused.value.status == 409


def test_the_catalog(client: Client) -> None:
    client.put_policy("shop", RankerSpec(context_dim=2, candidate_dim=2, pair_dim=2, similarity_scale=10.0))
    items = [Candidate(id="east", features=[1.0, 0.0]), Candidate(id="north", features=[0.0, 1.0], meta={"lat": 1.0})]
    assert client.put_catalog("shop", items) == 2
    answer = client.rank("shop", [0.1, 1.0], k=1, explore=False)
    assert [one.id for one in answer.ranking] == ["north"]
    named = client.rank("shop", [0.1, 1.0], candidates=[Candidate(id="east"), Candidate(id="north")])
    assert {one.id for one in named.ranking} == {"east", "north"}
    with pytest.raises(ApiError) as refused:
        client.put_catalog("shop", [items[0], Candidate(id="bad", features=[1.0])])
    assert refused.value.status == 422
    assert "line 2" in refused.value.message


def test_people(client: Client) -> None:
    losses = [[0.0, 1.0, 4.0], [1.0, 0.0, 1.0], [4.0, 1.0, 0.0]]
    some = [replace(one, loss=row) for one, row in zip(candidates(), losses, strict=True)]
    answer = client.rank("live", CONTEXT, candidates=some, user="ann/../é")
    client.feedback(answer.click("c0"))
    held = client.user("ann/../é")
    assert (held.learn, held.decisions, held.outcomes) == (True, 1, 1)
    assert held.held["decisions"][0]["extra"] == {"loss": losses}
    assert [one["kind"] for one in held.held["outcomes"]] == ["click"]
    assert client.set_learning("ann/../é", learn=False) is False
    assert client.user("ann/../é").learn is False
    assert answer.id in {record["id"] for record in client.export("live")}
    gone = client.erase_user("ann/../é")
    assert (gone.decisions, gone.outcomes) == (1, 1)
    assert answer.id not in {record["id"] for record in client.export("live")}
    with pytest.raises(ApiError) as erased:
        client.rank("live", CONTEXT, candidates=candidates(), id=answer.id)
    assert erased.value.status == 410


def test_steering_and_jobs(client: Client) -> None:
    client.put_policy("steered", SPEC)
    client.freeze("steered", serve="baseline")
    frozen = client.policy("steered")
    assert (frozen.frozen, frozen.serves) == (True, "baseline")
    client.unfreeze("steered")
    assert client.policy("steered").frozen is False
    with pytest.raises(ApiError) as refused:
        client.promote("steered", "v9-00000000", reason="to see it refused")
    assert refused.value.status in (404, 409)
    with pytest.raises(ApiError):
        client.rollback("steered")
    started = client.learn("steered")
    assert client.learn("steered").job == started.job
    assert client.job(started.job).finished is False
