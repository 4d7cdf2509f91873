"""dayjob audit LOG: what somebody's click log can teach. No server, nothing sent anywhere, the file is only read."""

import math
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import jinja2
import numpy as np
import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from dayjob.endings import FeedbackState, Invalid
from dayjob.signals.auditing import Audit, audit_log
from dayjob.signals.logfile import read_log

WORDS = {
    FeedbackState.INFORMATIVE: "These clicks can teach a ranker.",
    FeedbackState.UNINFORMATIVE: "These clicks teach nothing beyond position.",
    FeedbackState.UNIDENTIFIABLE: "This log cannot say whether its clicks teach anything.",
    FeedbackState.TOO_FEW: "Too few clicks to tell whether they teach anything.",
}
NO_VERDICT = {
    FeedbackState.INFORMATIVE: "Unknown until the share of people who look can be estimated (see bias).",
    FeedbackState.UNINFORMATIVE: "No number of clicks like these would decide between two rankers.",
    FeedbackState.UNIDENTIFIABLE: "Unknown until the log can tell position from item.",
    FeedbackState.TOO_FEW: "Unknown until there are more clicks.",
}
AXIS_TOPS = (0.02, 0.04, 0.08, 0.2, 0.4, 0.6, 0.8, 1.0)
PLOT_WIDTH, PLOT_HEIGHT, PLOT_POSITIONS = 680, 220, 20


def audit(
    log: Annotated[
        Path, typer.Argument(help="CSV or JSONL (.gz too) of shown lists and clicks, or what `dayjob export` wrote.")
    ],
    html: Annotated[Path | None, typer.Option(help="Write a self-contained report to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    per_day: Annotated[float, typer.Option(help="Decisions a day, where the log has no times.")] = math.nan,
) -> None:
    """What a log of shown lists and clicks can teach: bias by position, the ceiling, and what a verdict would need.

    CSV: list_id,item,position,clicked[,user,score,propensity,explored,first,query,truth,reward,at], one impression a
    row. JSONL: {"shown": [ids], "clicked": id or null, "user"?, "scores"?, "at"?, ...}, one list a line.
    """
    if not math.isnan(per_day) and not per_day > 0:
        raise Invalid(f"--per-day must be above 0, not {per_day:g}.")
    result = _run(log, per_day)
    if html is not None:
        html.write_text(render(result, log.name), encoding="utf-8")
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(as_plain(result), option=orjson.OPT_INDENT_2) + b"\n")
        return
    _print(result, Console(), log.name)
    if html is not None:
        Console().print(f"report: {html}", highlight=False)


def _run(path: Path, per_day: float) -> Audit:
    size = path.stat().st_size if path.is_file() else 0
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        reading = bar.add_task("reading", total=size)
        file = read_log(path, lambda done: bar.update(reading, completed=done))
        bar.update(reading, completed=size)
        bar.add_task("estimating", total=None)
        return audit_log(file.log, days=file.days, per_day=per_day, notes=file.notes)


def as_plain(result: Audit) -> dict[str, Any]:
    """The audit as JSON can hold it: arrays as lists, what is unknown as null."""
    told = asdict(replace(result, bias=replace(result.bias, pooled=None)))
    del told["bias"]["pooled"]  # the fitted models themselves
    plain: dict[str, Any] = _plain(told)
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value


def rows_of_bias(result: Audit) -> list[dict[str, float]]:
    """A row a position: how often it is clicked, alpha and beta with intervals."""
    bias = result.bias
    return [
        {
            "position": k + 1,
            "rate": result.rate_at[k],
            "alpha": float(bias.alpha_K[k]),
            "alpha_low": float(bias.alpha_low_K[k]),
            "alpha_high": float(bias.alpha_high_K[k]),
            "beta": float(bias.beta_K[k]),
            "beta_low": float(bias.beta_low_K[k]),
            "beta_high": float(bias.beta_high_K[k]),
        }
        for k in range(min(result.width, PLOT_POSITIONS))
    ]


def _print(result: Audit, console: Console, name: str) -> None:
    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    say(f"{name}: {counts(result)}")
    for note in result.notes:
        say(f"  {note}")
    console.print()
    console.print(f"[bold]{WORDS[result.feedback.state]}[/] ({result.feedback.state.value})", highlight=False)
    say(f"  {result.feedback.reason}")
    if result.feedback.needed:
        say(f"  About {result.feedback.needed:,} clicks would tell.")
    console.print()
    table = Table("position", "clicked", "pull (beta)", "relevance (alpha)", title="Bias by position, 95 %")
    for row in rows_of_bias(result):
        table.add_row(f"{row['position']:.0f}", f"{row['rate']:.1%}", span(row, "beta"), span(row, "alpha"))
    console.print(table)
    say(f"  {result.bias.reason}")
    console.print()
    console.print("[bold]Ceiling[/]", highlight=False)
    say(f"  {result.ceiling.reason} Lever: {result.ceiling.lever.value}.")
    console.print()
    if not verdict_possible(result):
        console.print("[bold]Verdict[/]", highlight=False)
        say(f"  {NO_VERDICT[result.feedback.state]}")
        return
    table = Table("better by", "decisions", "at this traffic", title="What a verdict would need")
    for need in result.needs:
        table.add_row(f"{need.effect:.0%}", amount(need.decisions), lasted(need.days))
    console.print(table)
    say("  At 80 % power. Better by: how much oftener the new first choice is what those who look want.")


def verdict_possible(result: Audit) -> bool:
    """Whether anything is known of the decisions a verdict would need."""
    return any(math.isfinite(need.decisions) for need in result.needs)


def counts(result: Audit) -> str:
    """What the log holds, in words."""
    parts = [f"{result.decisions:,} lists", f"{result.impressions:,} impressions", f"{result.clicks:,} clicks",
             f"{result.items:,} items"]  # fmt: skip
    if result.users:
        parts.append(f"{result.users:,} users (the most active: {result.heaviest_share:.1%} of the lists)")
    if math.isfinite(result.days):
        parts.append(lasted(result.days))
    return ", ".join(parts)


def lasted(days: float) -> str:
    """How long a log lasts, in the largest unit of which it has at least two.

    >>> lasted(30 / 86400), lasted(0.5), lasted(3.25)
    ('30 seconds', '12.0 hours', '3.2 days')
    """
    if not math.isfinite(days):
        return "unknown"
    for name, each in (("days", 1.0), ("hours", 1 / 24), ("minutes", 1 / 1440)):
        if days >= 2 * each:
            return f"{days / each:,.1f} {name}"
    return f"{days * 86_400:,.0f} seconds"


def span(row: dict[str, float], name: str) -> str:
    """Estimate and interval, as far as they are known."""
    point, low, high = row[name], row[f"{name}_low"], row[f"{name}_high"]
    if math.isfinite(point):
        return f"{point:.3f} [{low:.3f}, {high:.3f}]"
    if math.isfinite(low) and math.isfinite(high):
        return f"between {low:.3f} and {high:.3f}"
    if math.isfinite(low):
        return f"at least {low:.3f}"
    return "unknown"


def amount(value: float) -> str:
    """A number of decisions; unknown where it is."""
    if not math.isfinite(value):
        return "unknown"
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def render(result: Audit, name: str) -> str:
    """The report as one HTML file: no script, nothing fetched, everything escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dayjob.cli"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(
        {"amount": amount, "lasted": lasted, "percent": lambda v: f"{v:.1%}" if math.isfinite(v) else "unknown"}
    )
    environment.globals.update({"span": span})
    return environment.get_template("audit.html").render(
        name=name,
        audit=result,
        words=WORDS[result.feedback.state],
        counts=counts(result),
        rows=rows_of_bias(result),
        plot=_plot(result),
        no_verdict=None if verdict_possible(result) else NO_VERDICT[result.feedback.state],
        width=PLOT_WIDTH,
        height=PLOT_HEIGHT,
    )


def _plot(result: Audit) -> dict[str, Any]:
    """Bars of click shares with the pull's interval over them, in the plot's units."""
    rows = rows_of_bias(result)
    tops = [row["rate"] for row in rows] + [row["beta_high"] for row in rows if math.isfinite(row["beta_high"])]
    top = min((t for t in AXIS_TOPS if t >= max(tops)), default=1.0)
    step = (PLOT_WIDTH - 60) / max(len(rows), 1)

    def y(value: float) -> float:
        return 10 + (PLOT_HEIGHT - 40) * (1 - value / top)

    bars = []
    for index, row in enumerate(rows):
        pull = None
        if math.isfinite(row["beta_low"]) and math.isfinite(row["beta_high"]):
            middle = row["beta"] if math.isfinite(row["beta"]) else None
            pull = {
                "low": y(row["beta_low"]),
                "high": y(row["beta_high"]),
                "y": y(middle) if middle is not None else None,
            }
        bars.append(
            {
                "x": 50 + index * step,
                "width": step * 0.7,
                "y": y(row["rate"]),
                "height": y(0) - y(row["rate"]),
                "position": int(row["position"]),
                "pull": pull,
            }
        )
    digits = 0 if top > 0.04 else 1
    ticks = [{"y": y(top * part / 4), "label": f"{top * part / 4:.{digits}%}"} for part in range(5)]
    return {"bars": bars, "ticks": ticks, "base": y(0)}
