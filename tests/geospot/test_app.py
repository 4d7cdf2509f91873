"""Geospot's server over a real dayjob: rounds, answers, and everything that is refused."""

import io
import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
from geospot import app
from geospot.app import ANSWER_BYTES, PHOTO_BYTES, Geospot, create_app
from geospot.encoder import ImageEncoder
from geospot.guard import same_origin
from geospot.rounds import NoRound, Round, Rounds
from geospot.shortlist import FARTHEST_KM, distances, item_of, relevance, row_of, spec
from geospot.world import World
from PIL import Image
from starlette.testclient import TestClient

from dayjob.client import AsyncClient, Client

POLICY = "geospot-app"
HOST = "http://localhost"


def a_photo(seed: int = 0) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, size=(48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def spot(world: World, encoder: ImageEncoder, dayjob_url: str, monkeypatch: pytest.MonkeyPatch) -> Geospot:
    """Its photos are the same every time: one in 240 shows a place whose latitude is the truth's to three digits."""
    monkeypatch.setattr(app, "secrets", SimpleNamespace(randbits=Random(0).getrandbits, token_hex=secrets.token_hex))
    client = AsyncClient(dayjob_url)
    return Geospot(world=world, client=client, policy=POLICY, encoder=encoder, clip_missing=None)


@pytest.fixture
def browser(spot: Geospot) -> Iterator[TestClient]:
    with TestClient(create_app(spot), base_url=HOST) as client:
        client.get("/")  # the cookie
        yield client


@pytest.fixture
def counts(dayjob_url: str) -> Iterator[Callable[[], dict[str, int]]]:
    with Client(dayjob_url) as client:
        yield lambda: dict(client.policy(POLICY).counts.outcomes)


def refusal(response: object, status: int) -> str:
    assert response.status_code == status, response.text  # type: ignore[attr-defined]
    return str(response.json()["error"]["message"])  # type: ignore[attr-defined]


def test_a_simulated_photo_hides_its_place_until_the_answer(browser: TestClient, spot: Geospot) -> None:
    dealt = browser.post("/simulated").json()
    hidden = spot.rounds.get(dealt["round"])
    assert hidden.truth is not None
    assert len(dealt["places"]) == 10
    assert [place["position"] for place in dealt["places"]] == list(range(1, 11))
    shown = json.dumps(dealt)
    assert "truth" not in shown
    assert f"{hidden.truth[0]:.3f}" not in shown
    for place in dealt["places"]:
        row = row_of(place["item"])
        np.testing.assert_allclose([place["lat"], place["lon"]], spot.world.gallery.coords_G2[row], atol=1e-4)
    card = browser.get(dealt["card"])
    assert card.headers["content-type"].startswith("image/svg+xml")
    assert "SIMULATED" in card.text
    chosen = dealt["places"][3]["item"]
    told = browser.post("/answer", json={"round": dealt["round"], "item": chosen}).json()
    assert (told["truth"]["lat"], told["truth"]["lon"]) == pytest.approx(hidden.truth, abs=1e-4)
    km = distances(spot.world.gallery, [place["item"] for place in dealt["places"]], place=hidden.truth)
    assert told["best"] == min(km, key=lambda item: km[item])
    assert told["far"][chosen] in told["message"]


def test_answers_reach_dayjob(browser: TestClient, counts: Callable[[], dict[str, int]]) -> None:
    first = browser.post("/simulated").json()
    before = counts()
    browser.post("/answer", json={"round": first["round"], "item": first["places"][0]["item"]})
    browser.post("/answer", json={"round": browser.post("/simulated").json()["round"], "item": None})
    taught = browser.post("/teach", json={"round": first["round"]}).json()
    photo = browser.post("/photo", content=a_photo(), headers={"Content-Type": "image/jpeg"}).json()
    assert (photo["simulated"], photo["card"]) == (False, "")
    pinned = browser.post("/pin", json={"round": photo["round"], "lat": 48.2, "lon": 16.4}).json()
    after = counts()
    grown = {kind: after[kind] - before.get(kind, 0) for kind in after}
    assert {kind: more for kind, more in grown.items() if more} == {"click": 1, "none": 1, "truth": 2}
    assert taught["taught"] is True
    assert pinned["truth"]["where"] == "north-east Austria"
    learned = browser.get("/learned").json()
    assert {row["name"]: row["count"] for row in learned["counts"]}["pins on the truth"] == after["truth"]


def test_the_person_is_the_browsers_own(browser: TestClient, dayjob_url: str) -> None:
    cookie = browser.cookies["geospot_person"]
    browser.post("/simulated")
    with Client(dayjob_url) as client:
        assert client.user(f"web-{cookie}").decisions == 1
    browser.cookies.set("geospot_person", "../admin", domain="localhost.local")
    assert browser.post("/simulated").status_code == 200


def test_a_photo_of_ones_own_is_thanked_for(browser: TestClient) -> None:
    photo = browser.post("/photo", content=a_photo(1), headers={"Content-Type": "image/jpeg"}).json()
    told = browser.post("/answer", json={"round": photo["round"], "item": photo["places"][2]["item"]}).json()
    assert "truth" not in told
    assert "drop a pin" in told["message"]
    again = browser.post("/photo", content=a_photo(1), headers={"Content-Type": "image/jpeg"}).json()
    assert {p["item"] for p in again["places"]} == {p["item"] for p in photo["places"]}


def test_what_is_refused(browser: TestClient) -> None:
    dealt = browser.post("/simulated").json()
    place = {"round": dealt["round"], "lat": 1.0, "lon": 2.0}
    assert "too old" in refusal(browser.post("/answer", json={"round": "no", "item": "g1"}), 404)
    assert "not served" in refusal(browser.post("/answer", json={"round": dealt["round"], "item": "g999999"}), 422)
    for bad in ({"lat": 91}, {"lon": 181}, {"lat": "1"}, {"lon": None}):
        assert "lat" in refusal(browser.post("/pin", json=place | bad), 422)
    nan = json.dumps(place).replace("1.0", "NaN")
    refusal(browser.post("/pin", content=nan, headers={"Content-Type": "application/json"}), 422)
    assert "application/json" in refusal(browser.post("/answer", content=b"{}"), 422)
    assert "object" in refusal(browser.post("/answer", json=[1]), 422)
    big = b'"' + b"x" * ANSWER_BYTES + b'"'
    refusal(browser.post("/answer", content=big, headers={"Content-Type": "application/json"}), 413)
    assert "JPEG" in refusal(browser.post("/photo", content=b"GIF89a"), 422)
    assert "25 MB" in refusal(browser.post("/photo", content=b"x" * (PHOTO_BYTES + 1)), 413)
    photo = browser.post("/photo", content=a_photo(2)).json()
    assert "drop a pin" in refusal(browser.post("/teach", json={"round": photo["round"]}), 404)
    refusal(browser.get(f"/card/{photo['round']}.svg"), 404)


def test_other_pages_and_other_hosts_are_refused(browser: TestClient) -> None:
    assert browser.post("/simulated", headers={"Origin": HOST}).status_code == 200
    for origin in ("http://evil.example", "null", "https://localhost", "http://localhost:81"):
        assert "another site" in refusal(browser.post("/simulated", headers={"Origin": origin}), 403)
    assert browser.get("/", headers={"Host": "evil.example"}).status_code == 400
    assert same_origin({}, "http")  # type: ignore[arg-type]


def test_every_answer_carries_the_content_policy(browser: TestClient) -> None:
    for response in (browser.get("/"), browser.get("/static/map.js"), browser.get("/nope"), browser.post("/answer")):
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"
    assert "HttpOnly" in TestClient(browser.app, base_url=HOST).get("/").headers["set-cookie"]


def test_without_clip_a_photo_is_told_how(spot: Geospot) -> None:
    bare = replace(spot, encoder=None, clip_missing="Get CLIP so and so.")
    with TestClient(create_app(bare), base_url=HOST) as browser:
        assert "Get CLIP so and so." in refusal(browser.post("/photo", content=a_photo()), 422)
        assert browser.post("/simulated").status_code == 200


def test_without_dayjob_the_page_says_how_to_start_it(world: World) -> None:
    lost = Geospot(world=world, client=AsyncClient("http://127.0.0.1:9", retries=0))
    with TestClient(create_app(lost), base_url=HOST) as browser:
        assert browser.get("/").status_code == 200
        assert "dayjob serve" in refusal(browser.post("/simulated"), 503)
        assert "dayjob serve" in refusal(browser.get("/learned"), 503)


def test_rounds_are_forgotten_oldest_first(browser: TestClient, spot: Geospot) -> None:
    first = spot.rounds.get(browser.post("/simulated").json()["round"])
    second = spot.rounds.get(browser.post("/simulated").json()["round"])
    kept = Rounds(capacity=1)
    kept.add(first)
    kept.add(second)
    assert kept.get(second.answer.id) is second
    with pytest.raises(NoRound):
        kept.get(first.answer.id)
    assert isinstance(second, Round)


def test_the_shortlist_speaks_the_contract(world: World) -> None:
    declared = spec(world.gallery).to_json()
    assert (declared["context_dim"], declared["candidate_dim"], declared["pair_dim"]) == (512, 512, 2)
    assert declared["metric"] == "km"
    assert row_of(item_of(77)) == 77
    right = relevance({"here": 0.0, "far": FARTHEST_KM / 2, "opposite": FARTHEST_KM + 1e-6})
    assert right == {"here": 1.0, "far": 0.5, "opposite": 0.0}
