"""The dashboard's words, and who may read them: HTTP against a server with keys, no browser."""

import doctest
import html
import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from pydantic import ValidationError

from dayjob.endings import FeedbackState, NoteState, OutcomeKind, Role, VerdictKind, VersionStatus
from dayjob.gate import monitors
from dayjob.journal.control import Control, put_state
from dayjob.lab import published
from dayjob.lab.geospot import REPLAY_COMMAND
from dayjob.lab.server import Server, running
from dayjob.records import Version
from dayjob.serve import page_frame, pages

NASTY = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"
SPEC = {"kind": "ranker", "context_dim": 2, "candidate_dim": 2, "learn_every": 0}


def test_examples_in_the_docstrings():
    assert doctest.testmod(pages) == (0, 2)
    assert doctest.testmod(page_frame) == (0, 5)


@pytest.mark.parametrize(
    ("table", "values"),
    [("FEEDBACK", FeedbackState), ("VOICES", FeedbackState), ("CONSEQUENCE", FeedbackState), ("VERDICT", VerdictKind),
     ("STATUS", VersionStatus), ("OUTCOME", OutcomeKind), ("TOLD", OutcomeKind), ("ROLE", Role), ("NOTE", NoteState)],
)  # fmt: skip
def test_every_state_has_words(table, values):
    words = getattr(page_frame.TEMPLATES.get_template("words.html").module, table)
    assert set(words) == {value.value for value in values}


REPLAY = {
    "steps": [100, 200, 300], "reward": [0.7, 0.8, 0.82], "kl": [0.001, 0.003, 0.02],
    "km_served": [2464, 2600, 2700.5], "km_baseline": 2464, "position_share": [[0.6, 0.4], [0.8, 0.2], [0.9, 0.1]],
    "state": ["too_few", "informative", "uninformative"], "moved": [4.5, 4.0, 3.5], "alarm": [False, True, False],
    "said": ["quiet", NASTY, "last words"], "rollbacks": [150, None, 120], "rollback_at": 150,
    "rollback_reason": "Proven worse.", "seed": 3, "command": "dayjob lab geospot",
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"kl": [0.1]},
        {"steps": [1, 1, 2]},
        {"reward": [0.1, 0.2, float("nan")]},
        {"km_baseline": None},
        {"said": []},
        {"state": ["happy"] * 3},
        {"alarm": [None] * 3},
    ],
)
def test_a_replay_that_does_not_fit_is_refused(change):
    with pytest.raises(ValidationError):
        pages.Replay.model_validate(REPLAY | change)


def replay_page(**changes: object) -> str:
    found = pages.Replay.model_validate(REPLAY | changes)
    return page_frame.TEMPLATES.get_template("replay.html").render(replay=found, problem="", keys=False)


def test_the_replay_says_what_came_out_and_nothing_else():
    page = replay_page()
    assert "The report's alarm, after 200 interactions</h2><p>&lt;script&gt;" in page
    assert "Withdrawn by the watch, after 150 interactions (the middle of 3 draws)</h2><p>Proven worse.</p>" in page
    assert "From 2,464 km to 2,700 km; GeoCLIP&#39;s own order is at 2,464 km on the same photos (+10 %)" in page
    assert "under 0.01 through 200 interactions. The reward was 0.7 to 0.8" in page
    assert "2,464 to 2,600 km off: +0 % to +6 % against" in page
    assert "called too few, then informative, then uninformative" in page
    assert "in 2 of them the learner was withdrawn, first after 120 interactions, last after 150." in page
    for silent in ("alarm stays silent", "It did not get worse"):
        assert silent not in page
    never = {"rollbacks": [None], "rollback_at": None}
    quiet = replay_page(alarm=[False] * 3, km_served=[2500, 2400, 2217.6], kl=[0.2, 0.0, 0.0], **never)
    assert "The report's alarm stays silent" in quiet
    assert "(-10 %)" in quiet
    assert "it was never withdrawn" in quiet
    assert quiet.count('role="alert" hidden') == page.count('role="alert" hidden') + 2
    assert 'id="calm"' not in quiet
    assert "It did not get worse" in replay_page(km_served=[2500, 2500, 2500])
    assert "It did not get worse" not in replay_page(km_served=[2500, 2501, 2400])
    absent = page_frame.TEMPLATES.get_template("replay.html").render(replay=None, problem="not run yet", keys=False)
    assert "Not run yet" in absent
    assert "dayjob lab geospot" in absent


def test_the_page_says_of_the_shipped_replay_what_its_figures_say():
    """Sentence by sentence, from the file itself: another run is another page, and the plain words must still hold."""
    told = json.loads(pages.REPLAY.read_bytes())
    page = " ".join(page_frame.TEMPLATES.get_template("replay.html").render(
        replay=pages.Replay.model_validate(told), problem="", keys=False
    ).split())  # fmt: skip
    assert set(told) == set(pages.Replay.model_fields), "written by the code as it is now"
    assert told["command"] == REPLAY_COMMAND
    assert told["steps"] == [published.STEP * (n + 1) for n in range(published.STEPS)]
    calm = next(n for n, kl in enumerate(told["kl"]) if kl >= 0.01)
    km, base = told["km_served"], told["km_baseline"]
    assert f"under 0.01 through {told['steps'][calm - 1]:,} interactions" in page
    assert f"{int(min(km[:calm])):,} to {int(max(km[:calm])):,} km off" in page
    assert min(km[:calm]) > 1.15 * base, "the published failure: worse by a sixth while reward and KL look well"
    assert min(told["reward"][:calm]) > 0.8
    assert "It did not get worse: a network from scratch begins there" in page
    assert max(km) == km[0], "and from there on it grows better"
    assert f"the KL is {told['kl'][-1]:.3g} nats and the error {int(km[-1]):,} km" in page
    assert not any(told["alarm"])
    assert "The report's alarm stays silent" in page
    assert 'id="alarm" role="alert" hidden' in page
    assert set(told["state"]) == {"informative"}
    assert "The clicks are called informative, and" in page
    assert min(told["moved"]) > 1 > 0.01 > told["kl"][0], "far from the caller's order, near its own average"
    assert html.escape(told["said"][-1]) in page
    ended = [at for at in told["rollbacks"] if at is not None]
    assert len(ended) > 0.75 * len(told["rollbacks"]) == 0.75 * published.WATCHES
    head = f"after {told['rollback_at']:,} interactions (the middle of {published.WATCHES} draws)</h2><p>"
    assert head + html.escape(told["rollback_reason"]) in page
    assert f"in {len(ended)} of them the learner was withdrawn" in page
    assert f"first after {min(ended):,} interactions, last after {max(ended):,}." in page
    words = " ".join((Path(__file__).parents[2] / "docs" / "pages.md").read_text().split())
    for figure in (
        f"stays under .01 ({told['steps'][calm - 1]:,} interactions)",
        f"{100 * (min(km[:calm]) / base - 1):.0f} to {100 * (max(km[:calm]) / base - 1):.0f} % farther off",
        f"is {100 * (km[-1] / base - 1):.0f} % farther off after {told['steps'][-1]:,}",
        f"the learner is {min(told['moved']):.1f} to {max(told['moved']):.1f} nats away",
        f"of {published.WATCHES} draws of the pairs {len(ended)} withdrew it, the middle one after "
        f"{told['rollback_at']:,} interactions, the first after {min(ended):,}",
    ):
        assert figure in words


KEYS = """
[[key]]
key = "see"
tenant = "acme"
scopes = ["learn"]
[[key]]
key = "steer"
tenant = "acme"
scopes = ["admin"]
[[key]]
key = "infer"
tenant = "acme"
scopes = ["infer"]
[[key]]
key = "other"
tenant = "rival"
scopes = ["admin"]
"""


@pytest.fixture(scope="module")
def keyed(tmp_path_factory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("keyed")
    (root / "keys.toml").write_text(KEYS)
    arguments = ("--no-learner", "--no-judge", "--keys", str(root / "keys.toml"))
    with running(root / "data", arguments=arguments) as one:
        spec = httpx2.put(f"{one.url}/v1/policies/secretive", json=SPEC, headers={"authorization": "Bearer steer"})
        assert spec.status_code == 201
        version = Version(
            tenant="acme", policy="secretive", name="v1-0123abcd", number=1, parent="v0-baseline", recipe="debiased",
            digest="01" * 32, from_seq=0, to_seq=40, status=VersionStatus.HELD, created_ms=1_700_000_000_000,
        )  # fmt: skip
        Control(one.data).add_version(version)
        yield one


def get(keyed: Server, path: str, key: str) -> httpx2.Response:
    return httpx2.get(keyed.url + path, headers={"authorization": f"Bearer {key}"}, timeout=20)


def test_only_who_may_read_reports_sees_a_page(keyed):
    for path in ("/", "/policies/secretive", "/replay"):
        for answer in (httpx2.get(keyed.url + path, timeout=20), get(keyed, path, "infer"), get(keyed, path, "wrong")):
            assert answer.status_code == 401
            assert "secretive" not in answer.text.replace(f'name="to" value="{path}"', "")  # whereto, once logged in
            assert 'name="key"' in answer.text
    assert "needs the scope learn" in get(keyed, "/", "infer").text


def test_another_tenants_policy_does_not_exist(keyed):
    assert get(keyed, "/policies/secretive", "steer").status_code == 200
    strange = get(keyed, "/policies/secretive", "other")
    assert strange.status_code == 404
    assert "there is no policy" in strange.text
    assert "secretive" not in get(keyed, "/", "other").text


def test_who_may_only_look_gets_no_levers(keyed):
    assert "Promote by hand" in get(keyed, "/policies/secretive", "steer").text
    page = get(keyed, "/policies/secretive", "see").text
    assert "data-call" not in page
    assert "steering needs the scope" in page


def test_a_server_without_a_judge_says_that_nothing_is_judged(keyed):
    assert "The judge is silent" in get(keyed, "/", "see").text
    control = Control(keyed.data)
    lease = control.take_lease("judge/acme/secretive", "judge-1", ttl_s=60)
    assert lease is not None
    assert "The judge is silent" not in get(keyed, "/", "see").text
    control.release_lease(lease)  # as a judge does that was told to end
    page = get(keyed, "/", "see").text
    assert "No judge is at work on this policy" in page
    assert "has not been heard of for" not in page


def test_a_form_from_another_site_does_not_log_in(keyed):
    for path in ("/login", "/logout"):
        answer = httpx2.post(
            keyed.url + path, data={"key": "steer"}, headers={"sec-fetch-site": "cross-site"}, timeout=20
        )
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers
    crowded = httpx2.post(keyed.url + "/login", data=dict.fromkeys("abcdef", "1"), timeout=20)
    assert crowded.status_code == 422


ODD = [
    {"bias": {"alpha": [None, None], "beta": [None], "beta_low": []}, "ceiling": {"served": None, "best_of_k": None}},
    {"bias": None, "ceiling": None, "learning": None, "drift": None},
    {"ceiling": {"short": "luck"}, "drift": {"position": True}, "gaming": None, "exposure": None},
    {"learning": {"alarm": True, "reason": NASTY, "kl": None}, "exposure": {"effective_items": 3.0}},
    {"people": {"reason": NASTY, "looking": 0.4, "capped": 1}, "bias": {"predicted": [0.6], "observed": []}},
]


def test_who_looks_is_told_in_counts(keyed):
    most, least = {"looks": 0.97, "decisions": 1200}, {"looks": 0.01, "decisions": 30}
    people = {"reason": "Of 40 people, 35% look.", "looking": 0.35, "most": most, "least": least, "capped": 2}
    exposure = {"effective_items": 3.0, "top_share": 0.5, "gini": 0.8, "items": 90, "never_first": 80}
    gate = {"judged_through": 0, "lag": 0, "trial": None, "estimates": {}}
    said = {"state": "informative", "reason": "", "share_at": [0.7, 0.3]}
    foretold = {"predicted": [0.6, 0.4], "observed": [0.65, 0.35], "new_lists": 500, "perplexity": 1.2}
    report = {"feedback": said, "gate": gate, "people": people, "exposure": exposure, "bias": foretold}
    with Control(keyed.data).write() as db:
        put_state(db, "acme", "secretive", name="report", state=report)
    page = httpx2.get(keyed.url + "/policies/secretive", headers={"authorization": "Bearer steer"}, timeout=20).text
    assert "The most informative looks in 97% of 1,200 decisions, the least in 1% of 30" in page
    assert "2 people make so many decisions" in page
    assert "80 of 90 candidates never stood first; the Gini coefficient over all of them is 0.8" in page
    assert "it foretold 60% of the clicks for position 1; 65% came" in page


@pytest.mark.parametrize("part", ODD)
@pytest.mark.parametrize("trial", [None, {"challenger": "v1", "champion": "v0", "verdict": "cannot_tell"}])
def test_a_report_with_holes_is_shown_with_holes(keyed, part, trial):
    gate = {"judged_through": 0, "lag": 0, "trial": trial, "estimates": {"v1": {"IPS": {"value": None}, "ess": None}}}
    report = {"feedback": {"state": "uninformative", "reason": NASTY, "share_at": [1.0]}, "gate": gate} | part
    with Control(keyed.data).write() as db:
        put_state(db, "acme", "secretive", name="report", state=report)
    for path in ("/", "/policies/secretive"):
        answer = get(keyed, path, "see")
        assert answer.status_code == 200, answer.text
        assert "The clicks say nothing beyond position" in answer.text
        assert NASTY not in answer.text


def test_the_reward_against_the_truth_is_said_and_an_alarm_cannot_be_missed(keyed):
    gate = {"judged_through": 0, "lag": 1, "trial": None, "estimates": {"v2": {"reason": "of 3 logged decisions"}},
            "waiting": {"decision": "d-next", "until_ms": 61_000}}  # fmt: skip
    said = {"state": "informative", "reason": "r", "share_at": [1.0], "informative_share_at_most": 0.125}
    for alarm, seen in ((False, False), (True, True)):
        gaming = {"alarm": alarm, "reason": "of 400 decisions with both, no less"}
        report = {"feedback": said, "gate": gate, "gaming": gaming}
        with Control(keyed.data).write() as db:
            put_state(db, "acme", "secretive", name="report", state=report)
        shown = get(keyed, "/policies/secretive", "see").text
        assert gaming["reason"] in shown
        assert "Between 0% and 12.5% of the clicks depend on what is shown" in shown
        assert "<code>d-next</code>, until 00:01:01 UTC" in shown
        assert "of 3 logged decisions" in shown
        for path in ("/", "/policies/secretive"):
            page = get(keyed, path, "see").text
            assert ('<div class="alarm bad"><h2>The reward rises while the truth falls' in page) is seen


VERDICT = {
    "kind": "promote", "challenger": "v2-0123abcd", "champion": "v1-0123abcd", "reason": "Said why.",
    "at": "2026-11-20T08:21:51Z", "by": "gate",
}  # fmt: skip


def card(**changes: str) -> str:
    words = page_frame.TEMPLATES.get_template("words.html").module
    return " ".join(str(words.verdict(VERDICT | changes, "click")).split())


def test_a_verdict_says_whose_it_is_and_calls_only_a_proof_a_proof():
    proven = card()
    assert 'class="verdict good"><h3>v2-0123abcd: Promoted: proven better' in proven
    assert "by the gate" in proven
    assert "share of judged pairs in which the challenger&#39;s first choice was clicked" in proven
    rebuilt = card(by="erasure")
    assert 'class="verdict plain"><h3>v2-0123abcd: Rebuilt</h3>' in rebuilt
    assert "by an erasure" in rebuilt
    by_hand = card(by="hand")
    assert 'class="verdict warn"><h3>v2-0123abcd: Promoted by hand, over the gate' in by_hand
    assert "by a person" in by_hand
    for said in (rebuilt, by_hand):
        assert "proven" not in said
        assert "by the gate" not in said
    assert "<p>rolled back by hand</p>" not in card(kind="rollback", by="hand", reason="rolled back by hand")


def test_what_is_held_says_why_in_its_title():
    held = card(kind="hold", reason="It was never examined: nothing shows that it does no harm. The next night does.")
    assert "<h3>v2-0123abcd: Held: it was never examined: nothing shows that it does no harm</h3>" in held
    assert "<p>The next night does.</p>" in held
    short = card(kind="hold", reason="It can no longer reach the minimum effect of 0.01: +0.001.")
    assert "<h3>v2-0123abcd: Held: it can no longer reach the minimum effect of 0.01: +0.001</h3>" in short
    assert "<p></p>" not in short


def test_what_a_position_draws_is_not_said_where_it_is_not_known(keyed):
    said = {"state": "informative", "reason": "r", "share_at": [1.0]}
    gate = {"judged_through": 3, "lag": 0, "trial": None, "estimates": {}}
    for beta, seen in ((0.25, True), (None, False)):
        with Control(keyed.data).write() as db:
            report = {"feedback": said, "gate": gate, "bias": {"beta": [beta]}}
            put_state(db, "acme", "secretive", name="report", state=report)
        page = get(keyed, "/policies/secretive", "see").text
        assert ("position 1 alone draws a click in 25% of decisions" in page) is seen
        assert ("There is no estimate of the position" in page) is not seen


def test_versions_that_are_past_are_folded_away():
    def one(number: int, status: str) -> dict[str, str]:
        return {"version": f"v{number}", "status": status}

    listed = [one(9, "waiting"), one(8, "tainted"), one(7, "held"), one(6, "retired"), one(5, "champion"),
              one(4, "superseded"), one(3, "retired"), one(2, "held"), one(0, "baseline")]  # fmt: skip
    current, old = page_frame.sorted_out(listed, {"previous": "v3", "really": "v5"})
    assert [version["version"] for version in current] == ["v9", "v7", "v6", "v5", "v3", "v0"]
    assert [version["version"] for version in old] == ["v8", "v4", "v2"]


def rising(least: float, **changes: object) -> str:
    """The heading of a report on learning whose gain is at least ``least``."""
    learning = {"alarm": False, "learning": False, "gained_interval": [least, 0.2]} | changes
    return str(page_frame.TEMPLATES.get_template("words.html").module.learning_title(learning)).strip()


def test_a_heading_on_learning_says_what_its_reason_says():
    stood_still = monitors.not_learning(kl=0.001, reward=0.7, gain=monitors.Change(change=0.1, low=0.05, high=0.2))
    assert stood_still.reason.startswith("The reward rose while the policy stood still")
    assert rising(0.05) == "The reward rose, but not by learning"
    assert rising(-0.05) == "No gain in reward to see yet"
    assert rising(0.05, learning=True) == "Learning moves what is served"
    assert rising(0.05, alarm=True) == "Not learning"
    assert rising(0.0, gained_interval=[None, None]) == rising(0.0, gained_interval=None) == rising(-1.0)


def test_of_versions_that_wait_only_the_newest_is_said_to_have_its_trial_next(keyed):
    control = Control(keyed.data)
    for number in (2, 3):
        version = Version(
            tenant="acme", policy="secretive", name=f"v{number}-0123abcd", number=number, parent="v0-baseline",
            recipe="debiased", digest=f"{number:02}" * 32, from_seq=0, to_seq=40, status=VersionStatus.WAITING,
            created_ms=1_700_000_000_000,
        )  # fmt: skip
        control.add_version(version)
    shown = " ".join(get(keyed, "/policies/secretive", "see").text.split())
    newer, older = (shown.split(f"v{number}-0123abcd</code></th>")[1].split("</tr>")[0] for number in (3, 2))
    assert "waits for its trial" in newer
    assert "a newer one goes first" not in newer
    assert "waits; a newer one goes first" in older
