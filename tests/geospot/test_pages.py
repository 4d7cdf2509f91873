"""What Geospot shows: the map, the words, the page itself."""

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import fields
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from geospot import pages
from geospot.atlas import HALF_WIDTH, coordinates, country_at, cut, part_of, pictures, project, svg_path, where
from geospot.encoder import CLIP_REMEDY
from geospot.pages import atlas
from geospot.postcard import climate, postcard
from hypothesis import given, settings
from hypothesis import strategies as st

from dayjob.client import Counts, FeedbackReport, Policy, Report
from dayjob.endings import FeedbackState, PolicyKind, Role, VerdictKind

STATIC = Path(pages.__file__).parent / "static"

# ---- the map ---------------------------------------------------------------------------------------------------


def test_equal_earth_by_hand() -> None:
    """On the equator x is proportional to longitude; the pole line is .59 as long, at .4867 of the half width."""
    xy = project(np.array([[180.0, 0.0], [-90.0, 0.0], [0.0, 90.0], [180.0, 90.0], [0.0, -90.0]]))
    np.testing.assert_allclose(xy[:2], [[HALF_WIDTH, 0], [-HALF_WIDTH / 2, 0]], atol=0.01)
    # theta = pi/3 at the pole: y = 1.3173627591574, x at 180 degrees E = 1.6 of 2.7066 (Savric et al. 2018)
    np.testing.assert_allclose(xy[2], [0, -486.72], atol=0.02)
    np.testing.assert_allclose(xy[4], [0, 486.72], atol=0.02)
    assert xy[3, 0] / HALF_WIDTH == pytest.approx(0.5924, abs=1e-3)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ((45.76, 4.84), "east France"),
        ((50.85, 4.35), "Belgium"),
        ((-10.0, -40.0), "east Brazil"),
        ((67.0, -175.0), "north-east Russia"),  # east of 180 degrees
        ((55.75, 37.6), "west Russia"),
        ((-85.0, 30.0), "south Antarctica"),  # around the pole
        ((-17.8, 178.0), "Fiji"),  # on both sides of 180 degrees
        ((-29.5, 28.2), "Lesotho"),  # a hole in another country
        ((0.0, -30.0), "840 km off Brazil"),
        ((38.6, -9.75), "Portugal"),  # just off the coarse coast
        ((4.0, -56.0), "Suriname"),
    ],
)
def test_where_places_lie(place: tuple[float, float], words: str) -> None:
    assert where(atlas(), place) == words


def test_every_outline_stays_on_the_map() -> None:
    for country in atlas().countries:
        for ring in country.rings:
            assert np.abs(ring).max() <= 180.0
            np.testing.assert_array_equal(ring[0], ring[-1])
            if country.name != "Antarctica":  # its bottom edge is a pole
                assert np.abs(np.diff(ring[:, 0])).max() < 30, country.name


def test_a_ring_across_180_degrees_is_cut_in_two() -> None:
    square = np.array([[170.0, 0.0], [-170.0, 0.0], [-170.0, 10.0], [170.0, 10.0], [170.0, 0.0]])
    pieces = sorted(cut(square), key=lambda ring: float(ring[:, 0].mean()))
    assert [(ring[:, 0].min(), ring[:, 0].max()) for ring in pieces] == [(-180, -170), (170, 180)]
    inland = square * [0.1, 1.0]
    (same,) = cut(inland)
    np.testing.assert_array_equal(same, inland)


OFF_BORDER = 0.000314159  # many borders are whole parallels and meridians, and whose those are is nobody's to say


@settings(max_examples=40)
@given(st.floats(-89, 89), st.floats(-180, 179))
def test_at_most_one_country_holds_a_place(latitude: float, longitude: float) -> None:
    """Countries do not overlap: whichever way round they are searched, the same one is found."""
    latitude, longitude = latitude + OFF_BORDER, longitude + OFF_BORDER
    found = country_at(atlas(), (latitude, longitude))
    others = [c for c in reversed(atlas().countries) if found is None or c.name != found.name]
    holding = [c for c in others if sum(_turns(ring, latitude, longitude) for ring in c.rings) != 0]
    assert holding == []


def _turns(ring: np.ndarray, latitude: float, longitude: float) -> int:
    """The winding number, by summed angles: another method than the one under test."""
    angles = np.unwrap(np.arctan2(ring[:, 1] - latitude, ring[:, 0] - longitude))
    return round((angles[-1] - angles[0]) / (2 * np.pi))


def test_parts_of_a_box() -> None:
    box = np.array([[0.0, 0.0], [9.0, 0.0], [9.0, 9.0], [0.0, 9.0], [0.0, 0.0]])
    assert part_of(box, (4.5, 4.5)) == "central"
    assert part_of(box, (9, 9)) == "north-east"
    assert part_of(box, (0, 4.5)) == "south"
    assert part_of(box / 2, (0, 0)) == ""


def test_paths_can_be_walked_back() -> None:
    line = np.array([[0.0, 0.0], [10.0, 5.0], [-20.0, 40.0], [-20.0, 40.0]])
    path = svg_path([line], closed=False)
    numbers = [int(n) for n in re.findall(r"-?\d+", path)]
    walked = np.cumsum(np.array(numbers).reshape(-1, 2), axis=0) / 10
    np.testing.assert_allclose(walked, project(line)[:3], atol=0.11)
    assert len("".join(pictures(atlas()).values())) < 120_000


def test_coordinates_have_their_letters() -> None:
    assert coordinates((-33.456, -70.651)) == "33.46° S, 70.65° W"
    assert coordinates((0.0, 0.0)) == "0.00° N, 0.00° E"


# ---- the card of a simulated photo -----------------------------------------------------------------------------


def test_a_card_is_its_seed_and_says_that_it_is_simulated() -> None:
    one = postcard(5, latitude=48.0, postmark="Côte d'Ivoire <b>")
    assert one == postcard(5, latitude=48.0, postmark="Côte d'Ivoire <b>")
    assert one != postcard(6, latitude=48.0, postmark="Côte d'Ivoire <b>")
    root = ElementTree.fromstring(one)
    text = " ".join(root.itertext())
    assert "SIMULATED" in text
    assert "D'IVOIRE <B>" in text
    assert "style" not in one


def test_climates_cover_the_earth() -> None:
    belts = [climate(latitude) for latitude in (0, -25, 45, 90, -90)]
    assert len(set(belts)) == 4


# ---- the words of what was learned -----------------------------------------------------------------------------


def policy(**changes: object) -> Policy:
    fields: dict[str, object] = {
        "name": "geospot",
        "kind": PolicyKind.RANKER,
        "spec": {},
        "champion": "v0-baseline",
        "baseline": "v0-baseline",
        "frozen": False,
        "serves": "champion",
        "counts": Counts(decisions=1200, outcomes={"click": 900, "none": 7, "truth": 3}),
    }
    return Policy(**(fields | changes))  # type: ignore[arg-type]


def report(state: FeedbackState = FeedbackState.TOO_FEW, **gate: object) -> Report:
    feedback = FeedbackReport(state=state, reason="900 clicks so far", share_at=(0.7, 0.3))
    rest = {one.name: {} for one in fields(Report) if one.name not in ("feedback", "gate", "made")}
    return Report(feedback=feedback, gate=gate, **rest)


def test_a_baseline_that_serves_is_said_to_serve() -> None:
    told = pages.learned(policy(), report())
    assert told["serving"]["title"] == "The baseline serves"
    assert told["trial"]["title"] == "No challenger on trial"
    assert told["feedback"] == {"tone": "plain", "title": "Too few answers yet", "detail": "900 clicks so far."}
    assert told["shares"] == [0.7, 0.3]
    assert [row["count"] for row in told["counts"]] == [1200, 900, 7, 3]
    assert told["verdicts"] == []


def test_a_learned_version_a_trial_and_a_freeze() -> None:
    told = pages.learned(policy(champion="v1-8c1f22aa", challenger="v2-1f2e3d4c"), report(lag=1234))
    assert told["serving"]["tone"] == "good"
    assert "v1-8c1f22aa" in told["serving"]["detail"]
    assert "v2-1f2e3d4c" in told["trial"]["detail"]
    assert "1,234 answers are still to be judged" in told["trial"]["detail"]
    frozen = pages.learned(policy(champion="v1-8c1f22aa", frozen=True, serves="baseline"), report())
    assert frozen["trial"]["title"] == "Frozen"
    assert frozen["serving"]["title"] == "The baseline serves"


@pytest.mark.parametrize("state", list(FeedbackState))
def test_every_state_has_words(state: FeedbackState) -> None:
    told = pages.learned(policy(), report(state))["feedback"]
    assert told["tone"] == {"informative": "good", "uninformative": "bad", "unidentifiable": "warn"}.get(state, "plain")
    assert told["title"]


@pytest.mark.parametrize("kind", list(VerdictKind))
def test_every_verdict_has_words(kind: VerdictKind) -> None:
    said = {"kind": kind.value, "challenger": "v1-x", "reason": "because", "at": "2026-11-20T07:12:00Z", "by": "gate"}
    (told,) = pages.learned(policy(), report(verdicts=[said]))["verdicts"]
    assert told["title"].startswith("v1-x: ")
    assert told["detail"] == "Because."
    assert told["at"] == "20 Nov, 07:12"


def test_a_promotion_by_hand_is_not_called_proven() -> None:
    said = {"kind": "promote", "challenger": "v1-x", "reason": "I say so", "at": "2026-11-20T07:12:00Z", "by": "hand"}
    (told,) = pages.learned(policy(), report(verdicts=[said]))["verdicts"]
    assert "proven" not in told["title"]
    assert "by hand" in told["title"]


def test_every_role_has_words() -> None:
    assert set(pages.ROLES) == set(Role) - {Role.PINNED}, "a version asked for by name: language policies only"


# ---- the page --------------------------------------------------------------------------------------------------


class Seen(HTMLParser):
    """The ids, the tags and whatever a strict content policy would refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.refused: list[str] = []
        self.labels: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids += [given["id"]] if given.get("id") else []  # type: ignore[list-item]
        self.labels |= {str(given["for"])} if given.get("for") else set()
        inline = tag == "style" or (tag == "script" and not given.get("src"))
        if inline or any(name == "style" or name.startswith("on") for name in given):
            self.refused.append(self.get_starttag_text() or tag)
        outside = [given.get("src") or "", given.get("href") or ""]
        self.refused += [link for link in outside if "//" in link]


@pytest.mark.parametrize("clip_missing", [None, CLIP_REMEDY])
def test_the_page_keeps_to_its_content_policy_and_names_what_its_script_uses(clip_missing: str | None) -> None:
    seen = Seen()
    seen.feed(pages.page(policy="geospot", clip_missing=clip_missing))
    assert seen.refused == []
    assert len(seen.ids) == len(set(seen.ids))
    used = set(re.findall(r'\bid\("([\w-]+)"\)', (STATIC / "geospot.js").read_text()))
    assert len(used) > 15
    optional = {"file"} if clip_missing else set()
    assert used - set(seen.ids) == optional
    assert seen.labels == (set() if clip_missing else {"file"})


def test_without_clip_the_page_says_how_to_get_it() -> None:
    told = pages.page(policy="geospot", clip_missing=CLIP_REMEDY)
    assert "hf download openai/clip-vit-large-patch14" in told
    assert "--clip path/to/clip" in told
    assert 'type="file"' not in told


def test_names_are_escaped() -> None:
    assert "<img>" not in pages.page(policy="<img>", clip_missing="<img>")


# ---- contrast --------------------------------------------------------------------------------------------------

TEXT_ON = [
    ("ink", "paper"),
    ("quiet", "paper"),
    ("ink", "card"),
    ("quiet", "card"),
    ("accent-ink", "accent"),
    ("card", "truth"),
    ("ink", "accent-soft"),
    ("quiet", "accent-soft"),
    ("ink", "truth-soft"),
    ("quiet", "truth-soft"),
    ("good", "card"),
    ("bad", "card"),
    ("warn", "card"),
    ("quiet", "sea"),
]
PARTS_ON = [("accent", "land"), ("accent", "sea"), ("truth", "land"), ("truth", "sea")]


def luminance(colour: str) -> float:
    """Relative luminance of #rgb or #rrggbb (WCAG 2)."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * letter for letter in colour[1:])
    channels = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(scheme: str) -> None:
    """Text has 4.5 on what it stands on, marks on the map 3 (WCAG 2, AA)."""
    palettes = re.findall(r":root \{(.*?)\}", (STATIC / "geospot.css").read_text(), re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})", palettes[["light", "dark"].index(scheme)]))
    for least, pairs in ((4.5, TEXT_ON), (3.0, PARTS_ON)):
        for front, back in pairs:
            low, high = sorted((luminance(colours[front]), luminance(colours[back])))
            assert (high + 0.05) / (low + 0.05) >= least, f"{front} on {back}"
