"""Ways to please without working: refusing, asking back, saying nothing, too much, or what stands there already.
Pure; patterns, in English.

A pattern finds what looks like a habit, not every case of it: what counts is how many more there are than before.
"""

import json
import re

_REFUSAL = re.compile(
    r"^\W*(?:(?:i am|i'm|i’m) (?:sorry|afraid|unable|not able)|sorry\b|as an? (?:ai|assistant|language model)"
    r"|i (?:can(?:no|'|’)t|can not|could not|couldn(?:'|’)t|won(?:'|’)t|will not|do not know|don(?:'|’)t know)\b"
    r"|(?:unfortunately|regrettably),? i\b)",
    re.IGNORECASE,
)
_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
NAMES = ("refusing", "asking_back", "empty", "invalid_tool_call", "long")


def habits(text: str, *, ended: bool) -> frozenset[str]:
    """Which of ``NAMES`` an answer shows. ``ended``: within the tokens that it may have."""
    bare = text.strip()
    calls = [found[1] for found in _CALL.finditer(text)]
    shown = {
        "refusing": bool(_REFUSAL.search(bare)),
        "asking_back": bare.endswith("?"),
        "empty": not bare,
        "invalid_tool_call": any(not _is_call(call) for call in calls),
        "long": not ended,
    }
    return frozenset(name for name in NAMES if shown[name])


def is_trivial(suggestion: str, *, after: str) -> bool:
    """Whether a suggestion is harmless and worth nothing: less than two letters or digits, or a passage that stands
    word for word in what it completes.

    >>> is_trivial("see you", after="to see you again, ask")
    True
    """
    words, before = suggestion.split(), after.split()
    if not words:
        return False  # silence
    starts = range(len(before) - len(words) + 1)
    stands_there = any(before[at : at + len(words)] == words for at in starts)
    return stands_there or sum(letter.isalnum() for letter in suggestion) < 2


def _is_call(text: str) -> bool:
    """Whether a text names a function and its arguments, as chat templates have them."""
    try:
        call = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(call, dict) and isinstance(call.get("name"), str) and isinstance(call.get("arguments", {}), dict)
