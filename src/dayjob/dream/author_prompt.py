"""What the author that is a language model is asked."""

from typing import Final

PROMPT: Final = """\
Below are recorded conversations between people, an assistant and the tools of an application. Write a practice
environment for the assistant: ONE Python file (3.11, standard library only, no files, no network, no clock) that
imitates the application and sets tasks of the same kind, with data of the same kind.

The file defines four functions:

def reset(seed: int) -> tuple[object, dict]:
    # state, task. The same seed gives the same task, always: use random.Random(seed), never the global one.
    # task = {{"messages": [{{"role": "user", "content": "..."}}], "tools": [...], "max_turns": 6, "answer_tokens": 64}}
    # The request says all that is needed to solve the task with the tools, in words like people's in the record.

def step(state, text: str, calls: list[dict]) -> dict:
    # What the assistant said, and the tool calls in it: [{{"name": ..., "arguments": {{...}}, "error": ""}}].
    # Calls are answered exactly as the application answers, wrong ones too:
    #   {{"messages": [{{"role": "tool", "content": "..."}}]}}        one message a call
    # Words without a call end the episode: {{"reward": 0.0 to 1.0, "parts": {{"calls": 1.0, "answer": 0.0}}}}
    # Only a right answer that was earned with the calls it needs has the reward 1.0. Never raise.

def reference(seed: int) -> list[str]:
    # What the assistant has to say, turn by turn, for the reward 1.0: calls written as in the record, then the answer.

def restore(messages: list[dict]) -> object:
    # A state as after a recorded conversation, for a check against the real application: the next step is a call from
    # the record, and its answer is compared word for word. Assistant messages have "calls" as above.
    # In such a state, add "sure": False to the answer of a step where you do not know what the application would say.

An empty answer, an answer copied from the request, and words at random must fail. Many seeds must give different tasks.

Tools: {tools}

The record, one conversation a line ("right": what the person said would have been right; "liked": 1 or -1):
{conversations}

Answer with the file in one ```python block.
"""
