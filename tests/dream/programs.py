"""Programs that an author may hand in: a sound one, and those that are not."""

SOUND = """
import random

def _task(seed):
    rng = random.Random(seed)
    return rng.randrange(10, 1000), rng.choice(["shipped", "pending", "lost"])

def reset(seed):
    number, state = _task(seed)
    task = {"messages": [{"role": "user", "content": f"Where is order {number}?"}], "max_turns": 3}
    return {"number": number, "state": state, "seen": False}, task

def step(state, text, calls):
    if calls:
        right = calls[0]["name"] == "status" and calls[0]["arguments"].get("id") == str(state["number"])
        state["seen"] = state["seen"] or right
        answer = f"order {state['number']}: {state['state']}" if right else "error: no such order"
        return {"messages": [{"role": "tool", "content": answer}], "progress": 0.5 if right else 0.0}
    right = text.strip() == state["state"]
    return {"reward": float(right and state["seen"]), "parts": {"answer": float(right)}}

def reference(seed):
    number, state = _task(seed)
    return [f"call status id={number}", state]

def restore(messages):
    number, state = messages[0]["content"].split()[-1].rstrip("?"), "lost"
    return {"number": int(number), "state": state, "seen": False}
"""


def but(old: str, new: str) -> str:
    """The sound one with a change."""
    assert SOUND.count(old) == 1, old
    return SOUND.replace(old, new)


NO_STEP = "def reset(seed):\n    return None, {}\n\ndef reference(seed):\n    return []\n"
STRAY = but(
    'return {"number": number, "state": state, "seen": False}, task',
    'print(\'x\' * 100); return {"number": number, "state": state, "seen": False}, task',
)
SLEEPS_AT_START = "import time\ntime.sleep(60)\n" + SOUND
SPINS = but("    if calls:\n", "    while not calls:\n        pass\n    if calls:\n")
EXITS = but("def step(state, text, calls):\n", "def step(state, text, calls):\n    import os\n    os._exit(0)\n")
RAISES = but(
    "def step(state, text, calls):\n",
    "class AnnLikesTea(Exception): pass\n\ndef step(state, text, calls):\n    raise AnnLikesTea('secret words')\n",
)
FORKS = "import os\nwhile True:\n    os.fork()\n" + SOUND
ALLOCATES = "hold = bytearray(2 << 30)\n" + SOUND
FLOODS = but('answer = f"order', 'answer = "x" * (8 << 20) if right else f"order')
NETWORK = "import socket\nsocket.create_connection(('10.0.0.1', 80), timeout=1)\n" + SOUND
FAKES = (
    "import os, json\n"
    "for fd in range(3, 16):\n"
    "    try:\n"
    '        os.write(fd, b\'{"task": {"messages": []}}\\n{}\\n\')\n'
    "    except OSError:\n"
    "        pass\n" + SOUND
)
GLOBAL_RANDOM = but(
    "rng = random.Random(seed)\n    return rng.randrange(10, 1000)",
    "rng = random.Random(seed)\n    return random.randrange(10, 1000)",
)
REMEMBERS = but("def reset(seed):\n", "CALLS = []\n\ndef reset(seed):\n    CALLS.append(seed)\n").replace(
    '"Where is order {number}?"', '"Where is order {number}, {len(CALLS)}?"'
)
WRONG_REFERENCE = but('return [f"call status id={number}", state]', 'return [f"call status id={number}", "nowhere"]')
PAYS_SILENCE = but('right = text.strip() == state["state"]', "right = True").replace(
    'float(right and state["seen"])', "float(right)"
)
HUGE_REWARD = but('{"reward": float(right and state["seen"])', '{"reward": 7.0 * float(right and state["seen"])')
