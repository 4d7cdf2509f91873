"""dayjob audit: text, JSON and a report that may be opened anywhere."""

import csv
import doctest
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from dayjob.cli import audit as module
from dayjob.cli.audit import audit
from dayjob.endings import Invalid
from dayjob.lab.crowds import Crowd, crowd_log
from dayjob.signals import exported
from dayjob.signals.clicklog import ClickLog
from dayjob.signals.logfile import read_log

app = typer.Typer()
app.command()(audit)


def write_csv(path: Path, log: ClickLog, prefix: str = "item ") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["list_id", "item", "position", "clicked", "score", "at"])
        for b, (items, clicks, scores) in enumerate(
            zip(log.item_BK.tolist(), log.click_BK.tolist(), log.score_BK.tolist(), strict=True)
        ):
            for k, (item, click, score) in enumerate(zip(items, clicks, scores, strict=True)):
                out.writerow([b, f"{prefix}{item}", k + 1, int(click), score, 1_760_000_000 + 60 * b])
    return path


@pytest.fixture(scope="module")
def informative(tmp_path_factory: pytest.TempPathFactory) -> Path:
    log = crowd_log(np.random.default_rng(0), 2500, crowd=Crowd(quality=0.8, width=5))
    return write_csv(tmp_path_factory.mktemp("logs") / "clicks <b>&.csv", log)


def test_text_says_what_clicks_can_teach(informative: Path) -> None:
    out = CliRunner().invoke(app, [str(informative)]).stdout
    flat = " ".join(out.split())
    assert "These clicks can teach a ranker. (informative)" in flat
    assert "2,500 lists, 12,500 impressions, 2,500 clicks" in flat
    assert "Bias by position" in flat
    assert "What a verdict would need" in flat


def test_json_is_json_and_says_the_same(informative: Path) -> None:
    out = CliRunner().invoke(app, [str(informative), "--json"])
    assert out.exit_code == 0
    body = json.loads(out.stdout)
    assert body["feedback"]["state"] == "informative"
    assert body["days"] == pytest.approx(2499 / 1440)
    assert len(body["bias"]["beta_K"]) == 5
    assert body["bias"]["beta_low_K"][0] <= 0.65 <= body["bias"]["beta_high_K"][0]
    assert body["needs"][0]["decisions"] > body["needs"][1]["decisions"]


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_is_one_file_without_scripts_or_anything_fetched(informative: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    assert CliRunner().invoke(app, [str(informative), "--html", str(path)]).exit_code == 0
    text = path.read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert page.open == []
    assert not {"script", "link", "img", "iframe", "b"} & set(page.tags)
    assert not [a for a, _ in page.attributes if a in ("src", "href", "style") or a.startswith("on")]
    assert "clicks &lt;b&gt;&amp;.csv" in text
    assert page.tags.count("rect") == 5
    numbers = [float(v) for a, v in page.attributes if a in ("y", "height", "y1", "y2", "cy") and v]
    assert all(0 <= n <= 220 for n in numbers)


def test_blind_clicks_are_called_so(tmp_path: Path) -> None:
    log = crowd_log(np.random.default_rng(1), 2000, crowd=Crowd(blind=1.0, width=5))
    path = write_csv(tmp_path / "blind.csv", log)
    out = " ".join(CliRunner().invoke(app, [str(path), "--html", str(tmp_path / "r.html")]).stdout.split())
    assert "These clicks teach nothing beyond position." in out
    assert "No number of clicks like these would decide" in out
    assert re.search(r"class=\"verdict uninformative\"", (tmp_path / "r.html").read_text(encoding="utf-8"))


def test_traffic_by_hand_turns_decisions_into_days(informative: Path) -> None:
    body = json.loads(CliRunner().invoke(app, [str(informative), "--json", "--per-day", "10"]).stdout)
    assert body["needs"][2]["days"] == pytest.approx(body["needs"][2]["decisions"] / 10)
    assert isinstance(CliRunner().invoke(app, [str(informative), "--per-day", "0"]).exception, Invalid)


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"shown": ["a"], "clicked": "z"}\n', encoding="utf-8")
    result = CliRunner().invoke(app, [str(path)])
    assert isinstance(result.exception, Invalid)
    assert "line 1" in str(result.exception)


def test_what_dayjob_exports_can_be_audited(tmp_path: Path) -> None:
    """The same log as our export writes it, and as a stranger would, are one log."""
    rng, lines, plain = np.random.default_rng(5), [], []
    for n in range(400):
        items = [f"i{one}" for one in rng.permutation(9)[:3]]
        score = rng.normal(size=3).round(3).tolist()
        clicked = int(rng.integers(-1, 3))
        at = f"2026-11-20T09:{n // 60:02d}:{n % 60:02d}Z"
        outcomes = [{"id": f"o{n}", "kind": "click", "item": items[clicked], "position": None, "value": None}]
        if n % 10 == 0:  # a click that was taken back
            outcomes.append({"id": f"r{n}", "kind": "retract", "item": None, "position": None, "value": f"o{n}"})
        lines.append({
            "seq": n, "id": f"d{n}", "policy": "p", "user": f"u{n % 7}", "at": at, "intervened": n % 5 == 0,
            "candidates": items[::-1], "score": score[::-1],
            "ranking": [{"id": one, "position": k + 1, "propensity": 0.5} for k, one in enumerate(items)],
            "outcomes": outcomes if clicked >= 0 else [],
        })  # fmt: skip
        plain.append({
            "shown": items, "clicked": items[clicked] if clicked >= 0 and n % 10 else None, "user": f"u{n % 7}",
            "scores": score, "propensity": [0.5] * 3, "explored": n % 5 == 0, "at": at,
        })  # fmt: skip
    found = []
    for name, rows in (("export.jsonl", lines), ("plain.jsonl", plain)):
        path = tmp_path / name
        path.write_text("\n".join(json.dumps(row) for row in rows))
        out = CliRunner().invoke(app, [str(path), "--json"])
        assert out.exit_code == 0, out.exception
        found.append({key: value for key, value in json.loads(out.stdout).items() if key != "notes"})
    assert found[0] == found[1]
    path.write_text(json.dumps(lines[0] | {"score": [1.0]}))
    with pytest.raises(Invalid, match="line 1 looks like a line of `dayjob export POLICY`"):
        read_log(path)


def test_a_log_lasts_in_a_unit_that_says_something() -> None:
    assert doctest.testmod(module) == (0, 1)
    assert doctest.testmod(exported) == (0, 3)
