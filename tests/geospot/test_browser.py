"""Geospot's page in a real Chromium: with the keyboard alone, at phone width, and the map's way back to degrees."""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from geospot.app import Geospot, create_app
from geospot.encoder import ImageEncoder
from geospot.pages import spot as spot_of
from geospot.world import World
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from dayjob.client import AsyncClient, Client

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
POLICY = "geospot-browser"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium, or set CHROMIUM"),
]


@pytest.fixture(scope="module")
def address(world: World, encoder: ImageEncoder, dayjob_url: str) -> Iterator[str]:
    """Geospot as it is served, on a port of its own."""
    geospot = Geospot(world=world, client=AsyncClient(dayjob_url), policy=POLICY, encoder=encoder, clip_missing=None)
    server = uvicorn.Server(uvicorn.Config(create_app(geospot), port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def pages_of(address: str) -> Iterator[tuple[object, str]]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium, address
        chromium.close()


@pytest.fixture
def page(pages_of: tuple[object, str]) -> Iterator[Page]:
    """A fresh page of phone width."""
    yield from opened(pages_of, width=390, height=844)


@pytest.fixture
def desktop(pages_of: tuple[object, str]) -> Iterator[Page]:
    """A fresh page of desktop width."""
    yield from opened(pages_of, width=1280, height=800)


def opened(pages_of: tuple[object, str], *, width: int, height: int) -> Iterator[Page]:
    """A fresh page. What it writes to the console, a refusal of its content policy too, is a fault."""
    chromium, address = pages_of
    context = chromium.new_context(viewport={"width": width, "height": height})  # type: ignore[attr-defined]
    fresh = context.new_page()
    fresh.set_default_timeout(30_000)
    said: list[str] = []
    fresh.on("console", lambda message: said.append(message.text))
    fresh.on("pageerror", lambda error: said.append(str(error)))
    fresh.goto(address)
    fresh.wait_for_selector(".tile")
    yield fresh
    assert [words for words in said if "ERR_FAILED" not in words] == []  # a request that a test has cut off
    context.close()


def focus(page: Page) -> str:
    return str(page.evaluate("document.activeElement.id || document.activeElement.className"))


def tab_to(page: Page, name: str) -> None:
    """Presses Tab until the element with this id or class has the focus."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if focus(page).split(" ")[0] == name:
            return
    raise AssertionError(f"Tab never reached {name}")


def test_a_round_with_the_keyboard_alone(page: Page, dayjob_url: str) -> None:
    tab_to(page, "simulate")
    page.keyboard.press("Enter")
    page.wait_for_selector(".place")
    assert focus(page) == "places-title"  # reading goes on at the list
    tab_to(page, "place")
    assert page.locator(".place-mark.on").count() == 1  # the map shows which one has the focus
    page.keyboard.press("Enter")
    page.wait_for_selector("#result:not([hidden])")
    assert focus(page) == "result"
    assert "guess" in (page.text_content("#result-text") or "").lower()
    tab_to(page, "again")
    page.keyboard.press("Enter")
    page.wait_for_selector("body[data-phase=choosing]")
    with Client(dayjob_url) as client:
        assert client.policy(POLICY).counts.outcomes["click"] >= 1


def test_a_pin_with_the_keyboard_alone(page: Page, dayjob_url: str, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, size=(60, 80, 3), dtype=np.uint8)).save(photo)
    page.set_input_files("#file", photo)
    page.wait_for_selector(".place")
    tab_to(page, "pin-toggle")
    page.keyboard.press("Enter")
    assert focus(page) == "world"
    before = page.text_content("#pin-at")
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "Shift+ArrowLeft"):
        page.keyboard.press(key)
    at = page.text_content("#pin-at")
    assert at != before
    page.keyboard.press("Enter")
    page.wait_for_selector("#result:not([hidden])")
    with Client(dayjob_url) as client:
        truths = [o for r in client.export(POLICY) for o in r["outcomes"] if o["kind"] == "truth"]
    assert len(truths) == 1
    assert all(0 <= relevance <= 1 for relevance in truths[0]["value"]["relevance"].values())


def test_the_maps_way_back_is_the_inverse_of_the_servers_projection(page: Page) -> None:
    rng = np.random.default_rng(1)
    places = [(float(a), float(b)) for a, b in zip(rng.uniform(-85, 85, 200), rng.uniform(-179, 179, 200), strict=True)]
    spots = [spot_of(place) for place in places]
    back = page.evaluate(
        "async (spots) => { const map = await import('/static/map.js');"
        " return spots.map(({x, y}) => map.degrees(x, y)); }",
        spots,
    )
    got = np.array([[each["lat"], each["lon"]] for each in back])
    expected = np.array(places)
    np.testing.assert_allclose(got[:, 0], expected[:, 0], atol=0.01)
    near_pole = np.maximum(np.cos(np.radians(expected[:, 0])), 0.2)  # a hundredth of a unit is more degrees up there
    assert np.max(np.abs(got[:, 1] - expected[:, 1]) * near_pole) < 0.02
    assert page.evaluate("async () => (await import('/static/map.js')).degrees(1500, 0)") is None


def test_nothing_is_wider_than_a_phone_and_targets_are_large(page: Page) -> None:
    page.click("#simulate")
    page.wait_for_selector(".place")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    for box in [page.locator(target).first.bounding_box() for target in (".place", "#simulate", "#zoom-in", "#none")]:
        assert box is not None
        assert box["height"] >= 44


def test_a_desktop_shows_map_and_list_side_by_side(desktop: Page) -> None:
    desktop.click("#simulate")
    desktop.wait_for_selector(".place")
    assert desktop.evaluate("document.documentElement.scrollWidth") == 1280
    world, places = (desktop.locator(target).bounding_box() for target in ("#world", "#places"))
    assert world is not None
    assert places is not None
    left, right = sorted((world, places), key=lambda box: box["x"])
    assert left["x"] + left["width"] <= right["x"]
    assert world["width"] > 1.5 * places["width"]
    assert world["y"] < places["y"] + places["height"]
    assert places["y"] < world["y"] + world["height"]
    assert world["y"] + world["height"] <= 800  # all of it is seen without scrolling
    desktop.locator(".place").nth(2).hover()
    assert desktop.locator(".place-mark.on").count() == 1
    desktop.locator(".place").nth(2).click()
    desktop.wait_for_selector("#result:not([hidden])")
    result = desktop.locator("#result").bounding_box()
    assert result is not None
    assert result["y"] + result["height"] <= 800  # what came of the pick is seen beside the map, nothing has moved
    assert desktop.evaluate("window.scrollY") == 0
    assert focus(desktop) == "result"
    assert desktop.evaluate("document.documentElement.scrollWidth") == 1280


def test_a_click_on_the_map_is_a_click_on_the_place(page: Page) -> None:
    page.click("#simulate")
    page.wait_for_selector(".place")
    item = page.get_attribute(".place-mark >> nth=-1", "data-item")
    page.locator(".place-mark").last.click()
    page.wait_for_selector("#result:not([hidden])")
    chosen = page.get_attribute(".place.chosen", "data-item")
    assert chosen == item


def test_a_dayjob_that_is_gone_is_told_and_nothing_is_lost(page: Page) -> None:
    page.click("#simulate")
    page.wait_for_selector(".place")
    page.route("**/answer", lambda route: route.abort())
    page.click(".place")
    page.wait_for_selector("#trouble:not([hidden])")
    page.unroute("**/answer")
    page.click(".place")
    page.wait_for_selector("#result:not([hidden])")
    assert page.is_hidden("#trouble")
