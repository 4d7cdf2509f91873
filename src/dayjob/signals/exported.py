"""A line of what `dayjob export` writes, as a line of a click log."""

from collections.abc import Mapping
from typing import Any

from dayjob.endings import Invalid

CHOSEN = ("click", "accept")


def as_log_line(row: dict[str, Any], number: int) -> dict[str, Any]:
    """The line as `signals.logfile` reads it; one that is none of ours as it is.

    The policy's first choice is the candidate of the highest score; retracted outcomes are left out.

    Raises Invalid naming line ``number`` where the line begins like one of ours and is not whole.

    >>> line = {"ranking": [{"id": "b", "propensity": 0.4}, {"id": "a", "propensity": 1.0}], "candidates": ["a", "b"],
    ...         "score": [0.3, 0.1], "user": "u1", "at": "2026-11-20T09:00:00Z", "intervened": True,
    ...         "outcomes": [{"id": "x", "kind": "click", "item": None, "position": 2, "value": None}]}
    >>> found = as_log_line(line, 1)
    >>> found["shown"], found["clicked"], found["score"], found["first"], found["explored"]
    (['b', 'a'], ['a'], [0.1, 0.3], 'a', True)
    """
    ranking, outcomes = row.get("ranking"), row.get("outcomes")
    if not (isinstance(ranking, list) and ranking and isinstance(ranking[0], dict) and isinstance(outcomes, list)):
        return row
    try:
        shown = [one["id"] for one in ranking]
        score = dict(zip(row["candidates"], row["score"], strict=True))
        gone = {one["value"] for one in outcomes if one["kind"] == "retract"}
        told = [one for one in outcomes if one["id"] not in gone]
        rewards = [one["value"] for one in told if one["kind"] == "reward"]
        return {
            "shown": shown,
            "clicked": [_item(one, shown) for one in told if one["kind"] in CHOSEN],
            "score": [score[item] for item in shown],
            "propensity": [one["propensity"] for one in ranking],
            "first": max(score, key=lambda item: score[item]),
            "explored": row["intervened"],
            "version": f"{row.get('version')} {row.get('challenger') if row.get('coin') else ''}",
            "rival": shown[0 if row["coin"] == 1 else 1] if row.get("coin") and len(shown) > 1 else None,
            "truth": next((_best(one) for one in told[::-1] if one["kind"] == "truth"), None),
            "reward": rewards[-1] if rewards else None,
            "user": row["user"],
            "at": row["at"],
        }
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise Invalid(
            f"line {number} looks like a line of `dayjob export POLICY` and is not whole ({error!r}): export it again."
        ) from None


def _item(outcome: Mapping[str, Any], shown: list[str]) -> str:
    return str(outcome["item"]) if outcome["item"] is not None else shown[outcome["position"] - 1]


def _best(outcome: Mapping[str, Any]) -> str:
    """The item that a truth names, or finds the most relevant."""
    if outcome["value"] is None:
        return str(outcome["item"])
    relevance: dict[str, float] = outcome["value"]["relevance"]
    return max(relevance, key=lambda item: relevance[item])
