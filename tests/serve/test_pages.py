"""The dashboard in a real Chromium against a real server: drawn, escaped, steered, with no inline code."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import numpy as np
import pytest

from dayjob.endings import JobState, VersionStatus
from dayjob.journal import jobs
from dayjob.journal.control import Control, add_point
from dayjob.lab.server import running
from dayjob.records import Version
from dayjob.serve import page_frame, pages
from tests.serve.eyes import LOOK, NASTY, Eyes, browser_test, inked

SPEC = {"kind": "ranker", "context_dim": 2, "candidate_dim": 2, "learn_every": 0, "explore": {"changed_first": 0.1}}
REPLAY = {
    "steps": [100, 200, 300], "reward": [0.7, 0.8, 0.82], "kl": [0.001, 0.003, 0.02],
    "km_served": [2464, 2600, 2700.5], "km_baseline": 2464, "position_share": [[0.6, 0.4], [0.8, 0.2], [0.9, 0.1]],
    "state": ["too_few", "informative", "uninformative"], "moved": [4.5, 4.0, 3.5], "alarm": [False, True, False],
    "said": ["quiet", NASTY, "last words"], "rollbacks": [150, None, 120], "rollback_at": 150,
    "rollback_reason": "Proven worse.", "seed": 3, "command": "dayjob lab geospot",
}  # fmt: skip


def replay_page() -> str:
    found = pages.Replay.model_validate(REPLAY)
    return page_frame.TEMPLATES.get_template("replay.html").render(replay=found, problem="", keys=False)


@dataclass(slots=True, kw_only=True)
class Served:
    """A server process and a client of it."""

    url: str
    data: Path
    http: httpx2.Client

    def visit(self, policy: str, number: int) -> None:
        """Somebody looks at a list and clicks: the first place, or now and then the second."""
        rng = np.random.default_rng(number)
        body = {
            "policy": policy,
            "context": {"features": [1.0, 0.0]},
            "candidates": [
                {"id": f"{number}-{name}", "features": rng.normal(size=2).tolist(), "score": float(rng.normal())}
                for name in "abc"
            ],
        }
        ranked = self.http.post("/v1/rank", json=body).raise_for_status().json()
        item = ranked["ranking"][int(rng.random() < 0.3)]["id"]
        self.http.post(
            "/v1/feedback", json={"decision": ranked["id"], "kind": "click", "item": item}
        ).raise_for_status()

    def policy(self, name: str) -> dict:
        return self.http.get(f"/v1/policies/{name}").raise_for_status().json()


@contextmanager
def serving(data: Path, *arguments: str, key: str = "") -> Iterator[Served]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    with (
        running(data, arguments=arguments) as one,
        httpx2.Client(base_url=one.url, timeout=20, headers=headers) as http,
    ):
        yield Served(url=one.url, data=data, http=http)
        one.stop()


def add_version(data: Path, policy: str) -> str:
    """A learned version whose files were lost: it is known, it may be promoted, it cannot serve."""
    name = "v1-0123abcd"
    version = Version(
        tenant="default", policy=policy, name=name, number=1, parent="v0-baseline", recipe="debiased", digest="01" * 32,
        from_seq=0, to_seq=40, status=VersionStatus.HELD, created_ms=1_700_000_000_000,
    )  # fmt: skip
    Control(data).add_version(version)
    return name


def trial_points(data: Path, policy: str) -> None:
    """Points as the judge writes them, of a trial that ended in a promotion."""
    with Control(data).write() as db:
        for at in range(1, 41):
            point = {
                "seq": at, "challenger": "v1-0123abcd", "champion": "v0-baseline", "judged": 10 * at, "closed": 30 * at,
                "effect": 0.1, "low": 0.1 - 1 / at, "high": 0.1 + 1 / at, "e_value": 1.15**at, "e_needed": 40.0,
                "alpha_i": 0.025, "needed": 0, "verdict": "promote" if at == 40 else "cannot_tell",
            }  # fmt: skip
            add_point(db, "default", policy, name="trial", point=point)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("open") / "data", "--no-learner") as one:
        for name in ("geo", "steer"):
            one.http.put(f"/v1/policies/{name}", json=SPEC).raise_for_status()
        for number in range(80):
            one.visit("geo", number)
        trial_points(one.data, "geo")
        add_version(one.data, "steer")
        yield one


@pytest.fixture(scope="module")
def keyed(tmp_path_factory):
    root = tmp_path_factory.mktemp("keyed")
    (root / "keys.toml").write_text('[[key]]\nkey = "steer"\ntenant = "acme"\nscopes = ["admin"]\n')
    with serving(root / "data", "--no-learner", "--no-judge", "--keys", str(root / "keys.toml"), key="steer") as one:
        one.http.put("/v1/policies/secretive", json=SPEC).raise_for_status()
        yield one


def test_nothing_on_a_page_needs_an_inline_script_or_style(served):
    for path in ("/", "/policies/geo", "/policies/steer", "/replay", "/policies/none"):
        answer = served.http.get(path)
        policy = answer.headers["content-security-policy"]
        assert "script-src 'self';" in policy
        assert "style-src 'self';" in policy
        assert "unsafe" not in policy
        assert re.search(r"<script(?![^>]* src=)|<style| style=| on\w+=|javascript:", answer.text) is None
        for source in re.findall(r'(?:src|href)="(/static/[^"]+)"', answer.text):
            assert served.http.get(source).status_code == 200


def test_only_files_of_the_folder_are_served(served):
    for name in ("..%2fpages.py", "pages.py", "%2e%2e%2ftemplates%2flogin.html"):
        assert served.http.get(f"/static/{name}").status_code == 404
    assert "Leon Sorokin" in served.http.get("/static/uPlot-LICENSE.txt").text


def test_the_last_dream_of_a_ranker_is_told_on_its_page(served):
    def told():
        found = re.search(r'<p class="quiet">The last dream, (.*?)</p>', served.http.get("/policies/geo").text)
        return found and found[1]

    def ended(budget, **how):
        job = jobs.request_job(control, "default", "geo", recipe=jobs.dream_recipe(budget))
        jobs.update_job(control, job, state=how.pop("state", JobState.SUCCEEDED), progress=1.0, **how)

    control = Control(served.data)
    assert told() is None
    ended(4.0, result={"challenger": None, "reason": "people click the first place"})
    assert told() == "×4: no version came of it: people click the first place."
    ended(2.0, result={"challenger": "v2-aa", "decisions": 1200, "imagined": 2400})
    assert told() == (
        "×2: <code>v2-aa</code> learned from 1,200 real decisions and 2,400 imagined ones; the trial on real ones"
        " decides."
    )
    ended(1.0, state=JobState.FAILED, error=NASTY)
    assert told().startswith("×1: it failed: ")
    assert NASTY not in told()
    job = jobs.request_job(control, "default", "geo", recipe="debiased")
    jobs.update_job(control, job, state=JobState.SUCCEEDED, progress=1.0, result={"challenger": "v3-bb"})
    assert told().startswith("×1: ")  # no dream


# ---- a real browser --------------------------------------------------------------------------------------------------


class TestBrowser:
    pytestmark = browser_test

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_plots_are_drawn_in_the_pages_colours(self, served, eyes, scheme):
        with eyes.open(f"{served.url}/policies/geo", scheme=scheme) as page:
            page.wait_for_selector('[data-plot="evidence"] canvas')
            page.wait_for_selector('[data-plot="position"] canvas')
            drawn = {"reward": "quiet", "position": "v1", "effect": "v1", "evidence": "v1"}
            pixels = {plot: inked(page, plot, colour, least=8) for plot, colour in drawn.items()}
            assert min(pixels.values()) > 8, pixels
            assert inked(page, "effect", "accent") == 0
            for plot in drawn:
                words = page.locator(f'[data-plot="{plot}"] .plot').get_attribute("aria-labelledby")
                assert re.search(r"\d", page.locator(f"#{words}").inner_text())

    @pytest.mark.parametrize("told", [True, False])
    def test_what_the_click_model_foretold_is_drawn_beside_what_came(self, served, eyes, told):
        """As its own line: the pull of the positions, with its interval, stays."""
        report = served.http.get("/v1/policies/geo/report").json()
        report["feedback"]["share_at"] = [0.7, 0.2, 0.1]
        pull = {"beta": [0.5, 0.1, 0.0], "beta_low": [0.4, 0.0, 0.0], "beta_high": [0.6, 0.2, 0.1]}
        report["bias"] = pull | ({"predicted": [0.6, 0.3, 0.1]} if told else {})
        with eyes.open(served.url) as page:
            page.route("**/v1/policies/geo/report", lambda route: route.fulfill(json=report))
            page.goto(f"{served.url}/policies/geo")
            page.wait_for_selector('[data-plot="position"] canvas')
            assert inked(page, "position", "accent", least=8) > 8
            assert (inked(page, "position", "v2", least=8 if told else -2) > 8) is told
            legend = page.locator('[data-plot="position"] .u-legend').inner_text()
            assert ("foretold by the click model" in legend) is told
            assert "pull of the position" in legend

    def test_numbers_follow_without_a_new_canvas_and_without_losing_the_place(self, served, eyes):
        with eyes.open(f"{served.url}/policies/geo") as page:
            page.wait_for_selector('[data-plot="position"] canvas')
            page.evaluate("document.querySelector('[data-plot=\"position\"] canvas').dataset.mine = 'yes'")
            page.locator("#position-words summary").click()
            before = served.policy("geo")["counts"]["decisions"]
            for number in range(200, 205):
                served.visit("geo", number)
            page.locator("#glance dd", has_text=f"{before + 5}").first.wait_for(timeout=30_000)
            page.evaluate(LOOK)
            assert page.locator('[data-plot="position"] canvas').get_attribute("data-mine") == "yes"
            assert page.locator("#position-words details").get_attribute("open") is not None
            assert page.evaluate("document.activeElement.tagName") == "SUMMARY"

    def test_promoting_needs_a_reason_and_rolling_back_rolls_back(self, served, eyes):
        with eyes.open(f"{served.url}/policies/steer") as page:
            page.get_by_role("button", name="Promote by hand").click()
            page.locator("#confirm-do").click()
            assert "Say why" in page.locator("#confirm-error").inner_text()
            assert served.policy("steer")["champion"] == "v0-baseline"
            page.get_by_label("Why").fill(NASTY)
            page.locator("#confirm-do").click()
            page.locator("#alarms", has_text="v1-0123abcd should serve and cannot").wait_for()
            assert served.policy("steer")["champion"] == "v1-0123abcd"
            page.locator("#verdicts", has_text=NASTY).wait_for()

            page.get_by_role("button", name="Roll back to v0-baseline").click()
            page.get_by_role("button", name="Cancel").click()
            assert served.policy("steer")["champion"] == "v1-0123abcd"
            page.get_by_role("button", name="Roll back to v0-baseline").click()
            page.locator("#confirm-do").click()
            page.locator("#verdicts", has_text="Rolled back by hand").wait_for()
            assert served.policy("steer")["champion"] == "v0-baseline"
            statuses = {
                v["version"]: v["status"] for v in served.http.get("/v1/policies/steer/versions").json()["versions"]
            }
            assert statuses["v1-0123abcd"] == "rolled_back"
            assert page.locator("#alarms").get_by_text("should serve and cannot").count() == 0

    def test_freezing_and_unfreezing_with_the_keyboard_alone(self, served, eyes):
        with eyes.open(f"{served.url}/policies/steer") as page:
            page.get_by_role("button", name="Freeze", exact=True).focus()
            page.keyboard.press("Enter")
            page.keyboard.press("Enter")
            page.locator("#alarms", has_text="Frozen").wait_for()
            assert served.policy("steer")["frozen"] is True
            page.get_by_role("button", name="Unfreeze").focus()
            page.keyboard.press("Enter")
            page.keyboard.press("Escape")
            assert served.policy("steer")["frozen"] is True
            page.keyboard.press("Enter")
            page.keyboard.press("Enter")
            page.get_by_role("button", name="Freeze", exact=True).wait_for()
            assert served.policy("steer")["frozen"] is False

    def test_a_refusal_is_shown_and_the_dialog_stays(self, served, eyes):
        with eyes.open(f"{served.url}/policies/steer") as page:
            page.get_by_role("button", name="Learn now").click()
            refusal = {"error": {"message": f"not now {NASTY}"}}
            page.route("**/learn", lambda route: route.fulfill(status=409, json=refusal))
            page.locator("#confirm-do").click()
            page.locator("#confirm-error", has_text=NASTY).wait_for()
            assert page.locator("#confirm").evaluate("dialog => dialog.open")
            assert "409" in self.taken(eyes)

    def taken(self, eyes: Eyes) -> str:
        """What the browser itself logged of a refusal or an absence that was meant."""
        seen = " ".join(eyes.problems)
        eyes.problems.clear()
        return seen

    @pytest.mark.parametrize("path", ["/", "/policies/geo", "/replay"])
    def test_a_narrow_page_does_not_scroll_sideways(self, served, eyes, path):
        with eyes.open(served.url + path, width=390, scheme="dark") as page:
            page.wait_for_timeout(300)
            assert page.evaluate("document.documentElement.scrollWidth") <= 390

    def test_a_server_that_is_gone_is_said_to_be_gone(self, served, eyes):
        with eyes.open(served.url) as page:
            page.wait_for_function(f"{LOOK}.then(() => true)")
            page.route("**/*", lambda route: route.abort())
            page.evaluate(LOOK)
            assert "does not answer" in page.locator("#offline").inner_text()
            page.unroute("**/*")
            page.locator("#offline").wait_for(state="hidden", timeout=30_000)
            assert "ERR_FAILED" in self.taken(eyes)

    def test_the_replay_shows_the_alarm_when_it_fired(self, served, eyes):
        headers = {"content-security-policy": served.http.get("/replay").headers["content-security-policy"]}
        with eyes.open(served.url) as page:
            html = {"content_type": "text/html", "headers": headers, "body": replay_page()}
            page.route("**/replay", lambda route: route.fulfill(**html))
            page.route("**/replay.json", lambda route: route.fulfill(json=REPLAY))
            page.goto(f"{served.url}/replay")
            page.wait_for_selector('[data-plot="share"] canvas')
            assert inked(page, "km", "bad", least=100) > 100
            page.locator("#at").focus()
            page.keyboard.press("Home")
            assert "100 interactions" in page.locator("#now").inner_text()
            assert page.locator("#alarm").is_hidden()
            assert page.locator("#rollback").is_hidden()
            assert inked(page, "reward", "bad") <= 0
            page.keyboard.press("ArrowRight")
            assert page.locator("#alarm").is_visible()
            assert page.locator("#rollback").is_visible()
            assert "clicks informative" in page.locator("#now").inner_text()
            assert inked(page, "reward", "bad", least=20) > 20

    def test_logging_in_and_out(self, keyed, eyes):
        with eyes.open(f"{keyed.url}/policies/secretive") as page:
            page.get_by_label("Key").fill("wrong")
            page.get_by_role("button", name="Log in").click()
            page.get_by_text("This key is not known here").wait_for()
            page.get_by_label("Key").fill("steer")
            page.get_by_role("button", name="Log in").click()  # and is led to the page that was asked for
            page.get_by_role("button", name="Freeze", exact=True).click()
            page.locator("#confirm-do").click()
            page.locator("#alarms", has_text="Frozen").wait_for()
            page.get_by_role("button", name="Log out").click()
            page.get_by_label("Key").wait_for()
            page.goto(f"{keyed.url}/policies/secretive")
            assert page.get_by_text("secretive").count() == 0
            assert "401" in self.taken(eyes)
