"""Prompts that fit: what an episode's turn reads when the whole of it would be longer than the context."""

from __future__ import annotations

from collections.abc import Sequence

from dayjob.policies.tokens import Tokens
from dayjob.records import Json


def render_within(
    tokens: Tokens, messages: Sequence[Json], *, tools: Sequence[Json] = (), room: int
) -> tuple[int, ...]:  # fmt: skip
    """The prompt of a conversation in at most ``room`` tokens: where all of it does not fit, the oldest messages behind
    the task (the system's and the first of the user's) are left out, no more of them than need be. Never cut within a
    message: what even the task and the last message do not fit into comes out longer than ``room``.

    So a turn costs the same late in an episode as early, and the actor's prompt is the learner's, token for token.
    """
    head = next((place + 1 for place, one in enumerate(messages) if one.get("role") == "user"), 0)
    head = min(head, max(0, len(messages) - 1))
    fewest, most = 0, len(messages) - head - 1  # messages left out

    def rendered(left_out: int) -> tuple[int, ...]:
        return tokens.render([*messages[:head], *messages[head + left_out :]], tools=tools or None)

    found = rendered(0)
    if len(found) <= room or most < 1:
        return found
    while fewest < most:  # the fewest that are enough, by halving
        middle = (fewest + most) // 2
        fewest, most = (fewest, middle) if len(rendered(middle)) <= room else (middle + 1, most)
    return rendered(most)
