"""Prompts that fit: what an episode's turn reads when the whole of it would be longer than the context."""

from __future__ import annotations

from collections.abc import Sequence

from dayjob.policies.tokens import Tokens
from dayjob.records import Json

_CHARACTERS = 4  # of a token, roughly: where the search for what fits begins, never where it ends


def render_within(
    tokens: Tokens, messages: Sequence[Json], *, tools: Sequence[Json] = (), room: int
) -> tuple[int, ...]:  # fmt: skip
    """The prompt of a conversation in at most ``room`` tokens: where all of it does not fit, the oldest messages behind
    the task (the system's and the first of the user's) are left out, no more of them than need be. Never cut within a
    message: what even the task and the last message do not fit into comes out longer than ``room``.

    So a turn costs the same late in an episode as early, and the actor's prompt is the learner's, token for token. The
    search goes from the newest message backward and stops where the room is full: what lies before is never read.
    """
    head = next((place + 1 for place, one in enumerate(messages) if one.get("role") == "user"), 0)
    head = min(head, max(0, len(messages) - 1))
    behind = len(messages) - head

    def rendered(kept: int) -> tuple[int, ...]:
        return tokens.render([*messages[:head], *messages[len(messages) - kept :]], tools=tools or None)

    kept = min(behind, max(1, _newest(messages, behind, characters=_CHARACTERS * room)))
    found = rendered(kept)
    fits, most = 1, kept  # messages kept: one at least, and the most that may still fit
    while len(found) <= room:
        if kept == behind:
            return found
        fits, kept = kept, min(behind, 2 * kept)
        most, found = kept, rendered(kept)
    most = max(fits, most - 1)
    while fits < most:  # the most that fit, by halving
        middle = (fits + most + 1) // 2
        fits, most = (middle, most) if len(rendered(middle)) <= room else (fits, middle - 1)
    return rendered(fits) if behind else found


def _newest(messages: Sequence[Json], count: int, *, characters: int) -> int:
    """How many of the last ``count`` messages have no more than so many characters together."""
    for kept in range(count):
        characters -= len(str(messages[-1 - kept].get("content") or ""))
        if characters < 0:
            return kept
    return count
