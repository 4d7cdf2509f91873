"""What Geospot shows: the page, the places of an answer, and what the policy learned, in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from dayjob.client import Policy, Ranking, Report
from dayjob.endings import FeedbackState, OutcomeKind, Role, VerdictKind
from geospot.atlas import (
    COAST_KM,
    Atlas,
    coordinates,
    country_at,
    load_atlas,
    nearest_country,
    pictures,
    project,
    where,
)

HERE = Path(__file__).parent
Json = dict[str, Any]

STATES: dict[FeedbackState, tuple[str, str]] = {
    FeedbackState.INFORMATIVE: ("good", "The answers carry information"),
    FeedbackState.UNINFORMATIVE: ("bad", "The answers carry no information"),
    FeedbackState.UNIDENTIFIABLE: ("warn", "Position and choice cannot be told apart"),
    FeedbackState.TOO_FEW: ("plain", "Too few answers yet"),
}
VERDICTS: dict[VerdictKind, tuple[str, str]] = {
    VerdictKind.PROMOTE: ("good", "Promoted: proven better"),
    VerdictKind.HOLD: ("plain", "Held: not worth a promotion"),
    VerdictKind.REJECT: ("bad", "Rejected: proven worse"),
    VerdictKind.CANNOT_TELL: ("plain", "Cannot tell yet"),
    VerdictKind.ROLLBACK: ("bad", "Rolled back: proven worse than what it replaced"),
}
ROLES: dict[Role, str] = {
    Role.CHAMPION: "ordered by the champion",
    Role.TRIAL: "a trial: a coin decided between the champion's and the challenger's first choice",
    Role.BASELINE: "ordered by the baseline, kept for comparison",
    Role.BEST: "the champion's best order",
}


@cache
def atlas() -> Atlas:
    """The vendored outlines, decoded once."""
    return load_atlas()


def environment() -> jinja2.Environment:
    """The templates, everything escaped, nothing undefined."""
    loader = jinja2.FileSystemLoader(HERE / "templates")
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)


def page(*, policy: str, clip_missing: str | None) -> str:
    """The whole page. ``clip_missing`` is why no photo can be encoded and what to do, or None."""
    template = environment().get_template("page.html")
    return template.render(map=pictures(atlas()), policy=policy, clip_missing=clip_missing)


def spot(place: tuple[float, float]) -> Json:
    """A place as the map needs it: degrees, words, and map units."""
    x, y = project(np.array([[place[1], place[0]]]))[0]
    return {
        "lat": round(place[0], 5),
        "lon": round(place[1], 5),
        "x": round(float(x), 2),
        "y": round(float(y), 2),
        "coordinates": coordinates(place),
        "where": where(atlas(), place),
    }


def postmark(place: tuple[float, float]) -> str:
    """The clue of a simulated photo: its country, or the nearest one."""
    country = country_at(atlas(), place)
    if country is not None:
        return country.name
    near, km = nearest_country(atlas(), place)
    return near.name if km <= COAST_KM else f"near {near.name}"


def dealt(answer: Ranking, *, places: Mapping[str, tuple[float, float]], share: Mapping[str, float], card: str) -> Json:
    """A new round for the browser. ``card``: where the drawn card of a simulated photo is, "" for a real one."""
    shown = [
        {"item": one.id, "position": one.position, "share": round(share[one.id], 4), **spot(places[one.id])}
        for one in answer.ranking
    ]
    served = {"version": answer.version, "role": ROLES[answer.role]}
    return {"round": answer.id, "simulated": bool(card), "card": card, "places": shown, "served": served}


def distance(km: float) -> str:
    """Kilometres as people say them.

    >>> distance(0.4), distance(12.34), distance(2464.2)
    ('under 1 km', '12 km', '2,464 km')
    """
    return "under 1 km" if km < 1 else f"{km:,.0f} km"


def learned(policy: Policy, report: Report) -> Json:
    """What the panel "what the system learned" shows."""
    tone, title = STATES[report.feedback.state]
    return {
        "serving": _serving(policy),
        "trial": _trial(policy, report),
        "feedback": {"tone": tone, "title": title, "detail": sentence(report.feedback.reason)},
        "shares": [round(share, 4) for share in report.feedback.share_at],
        "counts": _counts(policy),
        "verdicts": [_verdict(each) for each in list(report.gate.get("verdicts") or ())[:5]],
    }


def _serving(policy: Policy) -> Json:
    if policy.serves == "baseline" or policy.champion == policy.baseline:
        detail = "GeoCLIP's own order. Nothing has been proven better yet, so nothing else serves."
        return {"tone": "plain", "title": "The baseline serves", "detail": detail}
    detail = f"{policy.champion} took over because the record proved it better."
    return {"tone": "good", "title": "A learned version serves", "detail": detail}


def _trial(policy: Policy, report: Report) -> Json:
    if policy.frozen:
        return {"tone": "warn", "title": "Frozen", "detail": "Somebody stopped the learning by hand."}
    if policy.challenger is None:
        detail = "The next one comes when enough new answers have been learned from."
        return {"tone": "plain", "title": "No challenger on trial", "detail": detail}
    detail = (
        f"{policy.challenger} is tried in fair coin flips against the champion. It never serves alone before a verdict."
    )
    lag = report.gate.get("lag")
    if lag:
        detail += f" {lag:,} answers are still to be judged."
    return {"tone": "plain", "title": "A challenger is on trial", "detail": detail}


def _counts(policy: Policy) -> list[Json]:
    outcomes = policy.counts.outcomes
    shown = [("photos ranked", policy.counts.decisions)]
    named = {
        OutcomeKind.CLICK: "closest chosen",
        OutcomeKind.NONE: "none was close",
        OutcomeKind.TRUTH: "pins on the truth",
    }
    shown += [(name, int(outcomes.get(kind, 0))) for kind, name in named.items()]
    return [{"name": name, "count": count} for name, count in shown]


def sentence(words: str) -> str:
    """Words that begin with a capital and end with a full stop.

    >>> sentence("can no longer reach it")
    'Can no longer reach it.'
    """
    return words[:1].upper() + words[1:] + ("" if words.endswith((".", "!", "?")) or not words else ".")


def _verdict(data: Mapping[str, Any]) -> Json:
    kind = VerdictKind(data.get("kind", VerdictKind.CANNOT_TELL))
    tone, title = VERDICTS[kind]
    at = str(data.get("at") or "")
    when = datetime.fromisoformat(at).strftime("%d %b, %H:%M") if at else ""
    title = "Promoted by hand" if data.get("by") == "hand" and kind is VerdictKind.PROMOTE else title
    return {
        "tone": tone,
        "title": f"{data.get('challenger', '')}: {title}",
        "detail": sentence(str(data.get("reason") or "")),
        "at": when,
    }
