"""The table, page and plot of ``dayjob lab suggest``, from its pieces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dayjob.lab.figures import interval, markdown, percent

Piece = dict[str, Any]
COLUMNS = ("shown", "accepted", "reward", "words")


def page(result: dict[str, Any]) -> list[str]:
    """The page below its head."""
    out = [
        f"People who type are simulated, {result['each']} times between two versions; a small model completes, or is"
        " silent. Every version begins at the base and learns from the journal by `accept-reject`; the exam and the"
        " trial by sessions decide which serves. Per cent, means and 95 % intervals over seeds (Student's t).",
        "## By day",
        markdown(_days(result)),
        "`shown`: of all contexts, those with a suggestion. `accepted`: of those shown. `reward`: a context, in"
        " hundredths: 1 - p*, -p*, 0. `words`: accepted words that were not there yet, a hundred contexts. Day 0 is the"
        " base, by the world's truth.",
        "## Where it acts",
        markdown(_acting(result)),
        "By the world's truth, of what serves at the end. `rightly`: the share of contexts where it suggests something"
        " exactly if acceptance of the right words is more probable than p*; `unseen`: of contexts that nobody typed."
        " `of the best`: reward, of what always acting rightly with the right words would earn.",
        "## At the end against the base",
        markdown(_gains(result)),
        "What serves at the end less the base of the same seed, by the world's truth, in the units above. Where nothing"
        " was promoted the base serves.",
        "## Versions, and what the gate said",
        markdown(_versions(result)),
        "## Versions that game the reward",
        markdown(_games(result)),
        "Learned from the journal of the first row at another threshold, which makes acceptance look good, and examined"
        " at the row's own.",
        "## Feedback",
        markdown(_feedback(result)),
    ]
    if len(result["codes"]) > 1:
        out.append(f"The pieces were made by {len(result['codes'])} states of the code: run them again.")
    return out


def _by_row(result: dict[str, Any]) -> Iterable[tuple[str, list[Piece]]]:
    for row, title in result["titles"].items():
        found = [one for one in result["pieces"] if one["row"] == row]
        if found:
            yield title, found


def _cell(values: Sequence[float], result: dict[str, Any]) -> str:
    return percent(interval(values), of=len(result["seeds"]), signed=False)


def _days(result: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for title, pieces in _by_row(result):
        for day in range(len(pieces[0]["days"]) + 1):
            found = [one["before"] if day == 0 else one["days"][day - 1] for one in pieces]
            columns = {name: _cell([one[name] for one in found], result) for name in COLUMNS}
            rows.append({"people": title, "day": day} | columns)
    return rows


def _acting(result: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for title, pieces in _by_row(result):
        for when in ("before", "served"):
            found = [one[when] for one in pieces]
            rows.append({
                "people": title, "when": "before" if when == "before" else "at the end",
                "rightly": _cell([one["rightly"] for one in found], result),
                "unseen": _cell([one["unseen"] for one in found], result),
                "of the best": _cell([one["reward"] / one["best"] for one in found], result),
                "other work right": _cell([one["other"] for one in found], result),
            })  # fmt: skip
    return rows


def _gains(result: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for title, pieces in _by_row(result):
        row: dict[str, Any] = {"people": title}
        for name in (*COLUMNS, "rightly", "unseen"):
            gains = [one["served"][name] - one["before"][name] for one in pieces]
            row[name] = percent(interval(gains), of=len(result["seeds"]))
        rows.append(row)
    return rows


def _versions(result: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for title, pieces in _by_row(result):
        made = [version for one in pieces for version in one["versions"]]
        said = {kind: sum(one["verdict"] == kind for one in made) for kind in ("promote", "reject")}
        on = [one for one in made if one["verdict"] == "promote"]
        less, fewer = (sum(one[name] < _before(one, pieces)[name] for one in on) for name in ("reward", "words"))
        rows.append({
            "people": title, "made": len(made), "promoted": said["promote"], "refused": said["reject"],
            "still open": len(made) - sum(said.values()), "of the promoted, less reward than the base": less,
            "of the promoted, fewer words than the base": fewer,
            "why refused": "; ".join(sorted({reason for one in made for reason in harm_names(one["reason"])})),
        })  # fmt: skip
    return rows


def _before(version: dict[str, Any], pieces: Sequence[Piece]) -> dict[str, float]:
    """The base of the same row and seed."""
    before: dict[str, float] = next(one for one in pieces if version in one["versions"])["before"]
    return before


HARMS = {
    "withholds": "It withholds", "mute": "silent nearly always", "breaks off": "break off",
    "trivial": "trivial suggestions", "drift": "nats a token from the base", "proven worse": "worse",
}  # fmt: skip


def harm_names(reason: str) -> list[str]:
    """The harms that a verdict's words name, each in a word."""
    return [name for name, words in HARMS.items() if words in reason]


def _games(result: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for title, pieces in _by_row(result):
        for place in range(len(pieces[0]["games"])):
            found = [one["games"][place] for one in pieces]
            rows.append({
                "learned at": found[0]["threshold"], "examined at": title,
                **{name: _cell([one[name] for one in found], result) for name in COLUMNS},
                "refused": f"{sum(bool(one['harms']) for one in found)} of {len(found)}",
                "why": "; ".join(sorted({name for one in found for why in one["harms"] for name in harm_names(why)})),
            })  # fmt: skip
    return rows


def _feedback(result: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for title, pieces in _by_row(result):
        states = [str((one["feedback"] or {}).get("state")) for one in pieces]
        told = ", ".join(f"{one} ({states.count(one)})" for one in sorted(set(states)))
        rows.append({"people": title, "state": told})
    return rows


def plot(result: dict[str, Any], path: Path) -> None:
    """Share shown against acceptance, a point a day."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7, 5))
    for title, pieces in _by_row(result):
        days = [[one["before"], *one["days"]] for one in pieces]
        across, up = (
            [sum(seed[day][name] for seed in days) / len(days) for day in range(len(days[0]))]
            for name in ("shown", "accepted")
        )
        axis.plot(across, up, marker="o", label=title)
        axis.annotate("before", (across[0], up[0]), fontsize=7)
    axis.set(xlabel="share shown", ylabel="accepted, of those shown", xlim=(0, 1.02), ylim=(0, 1.02))
    axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
