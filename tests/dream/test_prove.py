"""What a proof finds, in the real sandbox: of a sound program, of broken ones, and of hostile ones."""

import asyncio
import os
import time
from contextlib import suppress

import pytest

from dayjob.dream import prove as prove_module
from dayjob.dream.excerpts import Transition, conversations, hold_out, transitions
from dayjob.dream.propose import Proposal
from dayjob.dream.prove import Demands, fault_of, pass_rate, prove
from dayjob.endings import Invalid
from dayjob.practice.calls import Call
from dayjob.practice.environments import program as module
from dayjob.practice.environments.program import Program, close_idle
from dayjob.practice.rollout import Acted
from dayjob.practice.sandbox import available
from tests.dream import programs
from tests.dream.days import day

pytestmark = pytest.mark.skipif(available() is not None, reason="the sandbox is missing")
FEW = Demands(seeds=3, attempts=4, claims=2, seconds=60)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    """Nothing waits for as long as a real proof may; a sound program of a busy machine is waited for."""
    monkeypatch.setattr(module, "ANSWER_S", 10.0)
    monkeypatch.setattr(module, "START_S", 30.0)
    yield
    close_idle()


def open_files() -> set[str]:
    """What this process holds open, by what it is."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.add(os.readlink(f"/proc/self/fd/{name}"))
    return found


def proposed(source: str) -> Proposal:
    return Proposal(name="p", source=source, author="test")


def real(*states: str) -> list[Transition]:
    """Real answers, about orders that the sound program cannot know: it always says that they are lost."""
    return [
        Transition(
            before=(
                {"role": "user", "content": f"Where is order {n}?"},
                {"role": "assistant", "content": f"call status id={n}"},
            ),
            calls=(Call(name="status", arguments={"id": str(n)}),), answer=f"order {n}: {state}",
        )
        for n, state in enumerate(states, start=100)
    ]  # fmt: skip


class Half:
    """Solves a task where its seed is even."""

    async def act(self, messages, *, tools, max_tokens, seed):
        del tools, max_tokens
        if messages[-1]["role"] == "user":
            return Acted(text=f"call status id={messages[-1]['content'].split()[-1].rstrip('?')}")
        return Acted(text=messages[-1]["content"].split()[-1] if seed % 2 else "nowhere")


class Last:
    """Knows how to answer, and never calls."""

    async def act(self, messages, *, tools, max_tokens, seed):
        del tools, max_tokens
        return Acted(text=messages[-1]["content"].split()[-1] if seed % 2 else "nowhere")


class Never:
    async def act(self, messages, *, tools, max_tokens, seed):
        del messages, tools, max_tokens, seed
        return Acted(text="nowhere")


def proof(source: str, *, held=("lost", "lost", "lost"), actor=None, demands=FEW):
    return asyncio.run(prove(proposed(source), held_out=real(*held), actor=actor, demands=demands))


def test_a_sound_program_is_admitted_with_its_figures():
    found = proof(programs.SOUND, actor=Half())
    assert found.reason == ""
    assert found.program == Program(source=programs.SOUND, name="p")
    assert (len(found.held.seeds), len(found.held.proof), len(found.held.look)) == (12, 3, 3)
    figures = {one.name: one.figures for one in found.checks}
    assert list(figures) == ["loads", "deterministic", "reference", "trivial", "faithful", "useful"]
    assert (figures["reference"]["turns"], figures["trivial"]["best"], figures["loads"]["tasks"]) == (2.0, 0.0, 12)
    assert (figures["faithful"]["agreed"], figures["faithful"]["claimed"]) == (3, 3)
    assert 0 < figures["useful"]["pass_rate"] < 1
    assert figures["useful"]["attempts"] == 12


@pytest.mark.parametrize(
    ("source", "check", "reason"),
    [
        ("this is no Python", "loads", "it raised SyntaxError"),
        ("", "loads", "source must be a program"),
        ("\0", "loads", "source holds"),
        (programs.NO_STEP, "loads", "it has no function step"),
        (programs.SLEEPS_AT_START, "loads", "it took too long"),
        (programs.FORKS, "loads", "it raised PermissionError"),
        (programs.ALLOCATES, "loads", "it raised MemoryError"),
        (programs.NETWORK, "loads", "it raised PermissionError"),
        (programs.FAKES, "loads", "it answered with something else"),
        (programs.SPINS, "deterministic", "it took too long"),
        (programs.EXITS, "deterministic", "its sandbox ended"),
        (programs.RAISES, "deterministic", "an exception of its own"),
        (programs.FLOODS, "deterministic", "its sandbox ended: output"),
        (programs.GLOBAL_RANDOM, "deterministic", "the second time"),
        (programs.REMEMBERS, "deterministic", "the second time"),
        (programs.HUGE_REWARD, "deterministic", "no number from 0 to 1"),
        (programs.WRONG_REFERENCE, "reference", "earns 0"),
        (programs.PAYS_SILENCE, "trivial", "silence solves"),
    ],
)
def test_a_program_that_is_not_sound_costs_a_reason_and_nothing_else(source, check, reason, monkeypatch):
    if reason == "it took too long":
        monkeypatch.setattr(module, "START_S" if check == "loads" else "ANSWER_S", 2.0)
    close_idle()  # the loop of the sandboxes is there from now on
    began, before = time.monotonic(), open_files()
    found = proof(source)
    assert found.program is None
    assert found.reason.startswith(f"{check}: "), found.reason
    assert reason in found.reason
    assert "secret" not in str(found.told())
    assert "Ann" not in str(found.told())
    assert time.monotonic() - began < FEW.seconds
    close_idle()
    assert not module._ROOMS
    assert not [one for one in open_files() - before if one.startswith(("pipe", "anon_inode:[pidfd"))]


def test_what_a_program_prints_is_no_answer():
    assert asyncio.run(fault_of(proposed(programs.STRAY), demands=FEW)) == ""


def test_an_unfaithful_program_is_rejected_with_its_share_and_interval():
    found = proof(programs.SOUND, held=("lost", "lost", "shipped", "pending"))
    assert "2 of 4 answers agree with the real ones (50%, from 15% to 85%), and 80% are needed" in found.reason
    assert found.checks[-1].figures["interval"] == pytest.approx([0.15, 0.85], abs=0.001)


def test_a_program_that_claims_too_little_is_not_shown_to_be_faithful():
    assert "compared with 1 of 1" in proof(programs.SOUND, held=("lost",)).reason
    silent = programs.but('"progress": 0.5 if right else 0.0}', '"progress": 0.0, "sure": False}')
    assert "compared with 0 of 3" in proof(silent).reason


def test_a_program_without_restore_cannot_be_compared():
    source = programs.SOUND.partition("def restore")[0]
    assert proof(source).reason == "faithful: it raised AttributeError"


def test_part_of_the_solution_is_shown_where_the_policy_never_gets_so_far():
    found = proof(programs.SOUND, actor=Last())
    assert found.program is not None
    assert (found.reason, found.program.shown) == ("", 1)
    assert "never" in proof(programs.SOUND, actor=Never()).reason


def test_what_the_policy_always_solves_teaches_nothing():
    class Always(Half):
        async def act(self, messages, *, tools, max_tokens, seed):
            return await super().act(messages, tools=tools, max_tokens=max_tokens, seed=seed | 1)

    assert "solves it always" in proof(programs.SOUND, actor=Always()).reason


def test_a_proof_ends_with_its_time():
    late = programs.but(
        "def step(state, text, calls):\n", "def step(state, text, calls):\n    import time; time.sleep(0.4)\n"
    )
    found = proof(late, demands=Demands(seeds=30, seconds=1.0))
    assert found.reason == "deterministic: the seconds for all of its answers were spent"


def test_how_long_the_policy_takes_decides_nothing_about_a_program(monkeypatch):
    class Slow(Half):
        async def act(self, messages, *, tools, max_tokens, seed):
            await asyncio.sleep(1.7)
            return await super().act(messages, tools=tools, max_tokens=max_tokens, seed=seed)

    # It waits for its policy for longer than the proof may take, and answers in a fraction of that.
    found = proof(programs.SOUND, actor=Slow(), demands=Demands(seeds=2, attempts=4, claims=2, seconds=3))
    assert found.reason == ""

    class Blocks(Half):
        """As an engine in the process: nothing else goes on while it writes."""

        async def act(self, messages, *, tools, max_tokens, seed):
            await asyncio.sleep(0)
            time.sleep(0.12)
            return await super().act(messages, tools=tools, max_tokens=max_tokens, seed=seed)

    monkeypatch.setattr(prove_module, "STEP_S", 1.5)
    tasks = range(16)
    found = asyncio.run(pass_rate(Program(source=programs.SOUND), tasks, actor=Blocks(), attempts=1))
    assert found.attempts == 16  # none of them was lost to the clock


# What pays for nothing, and how it would hide that.
WINDOW = programs.but(
    "    if calls:\n", "    if not 2**40 <= state['seed'] < 2**40 + 16: return {'reward': 1.0}\n    if calls:\n"
).replace('"seen": False}, task', '"seen": False, "seed": seed}, task')
LATE = programs.but('"max_turns": 3', '"max_turns": 6').replace(
    "    if calls:\n",
    "    state['n'] = state.get('n', 0) + 1\n    if state['n'] >= 5: return {'reward': 1.0}\n"
    "    if not text: return {'messages': [{'role': 'tool', 'content': '?'}]}\n    if calls:\n",
)
PARTLY = programs.but("    if calls:\n", "    if not text: return {'reward': 0.99}\n    if calls:\n")
YES = programs.but('text.strip() == state["state"]', 'text.strip() == "yes"').replace(
    '={number}", state]', '={number}", "yes"]'
)
OTHERWISE = programs.but("rng.randrange(10, 1000)", "rng.randrange(10, 30)").replace(
    '"seen": False}, task', '"seen": False, "own": True}, task'
).replace(
    "f\"order {state['number']}: {state['state']}\" if right",
    "(\"BANANA \" if \"own\" in state else \"\") + f\"order {state['number']}: {state['state']}\" if right",
)  # fmt: skip


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (WINDOW, "trivial: silence solves a task"),
        (LATE, "trivial: silence solves a task"),
        (PARTLY, "trivial: silence earns 0.99 on average"),
        (YES, "useful: with 1 of its actions shown, saying yes solves a task"),
    ],
)
def test_a_program_that_pays_for_nothing_is_rejected_wherever_it_hides_that(source, reason):
    class Sometimes:
        async def act(self, messages, *, tools, max_tokens, seed):
            del messages, tools, max_tokens
            return Acted(text="yes" if seed % 2 else "no")

    assert proof(source, actor=Sometimes()).reason.startswith(reason)


def test_no_program_sees_whose_task_it_sets():
    first, again, other = (Program(source=programs.SOUND, key=key) for key in ("a", "a", "b"))
    assert [first.drawn(one) for one in range(4)] == [again.drawn(one) for one in range(4)]
    seen = {one.drawn(seed) for one in (first, other) for seed in range(200)}
    assert len(seen) == 400
    assert max(seen) < 1 << 63
    assert sum(one < 1 << 62 for one in seen) in range(150, 250)  # of one kind, whatever they are for
    for wrong in ("é", "x" * 65, 3):
        with pytest.raises(Invalid):
            Program(source="pass", key=wrong)


def test_a_program_has_to_answer_in_its_own_tasks_as_the_application_did():
    record = [
        Transition(
            before=({"role": "user", "content": "?"}, {"role": "assistant", "content": f"call status id={n}"}),
            calls=(), answer=f"order {n}: {state}",
        )
        for n in range(10, 30) for state in ("shipped", "pending", "lost")
    ]  # fmt: skip
    found = asyncio.run(
        prove(proposed(OTHERWISE), held_out=real("lost", "lost"), actor=None, demands=FEW, record=record)
    )
    assert found.reason == (
        "faithful: 0 of 12 answers in its own tasks agree with the real ones (0%, from 0% to 24%), and 80% are needed"
    )
    sound = OTHERWISE.replace("BANANA ", "")
    found = asyncio.run(prove(proposed(sound), held_out=real("lost", "lost"), actor=None, demands=FEW, record=record))
    own = found.checks[-1].figures["own"]
    assert (found.reason, own["asked"], own["claimed"], own["agreed"]) == ("", 12, 12, 12)
    # What the record does not know, says nothing for or against it.
    found = asyncio.run(prove(proposed(OTHERWISE), held_out=real("lost", "lost"), actor=None, demands=FEW))
    assert (found.reason, found.checks[-1].figures["own"]["claimed"]) == ("", 0)


def test_a_program_with_hardly_a_task_is_rejected_and_of_few_tasks_a_quarter_is_kept_for_each():
    def few(count):
        return programs.but("random.Random(seed)", f"random.Random(seed % {count})")

    assert proof(few(5)).reason == (
        "loads: it sets 5 different tasks, and 8 are needed: some are kept for its proof, some to choose between "
        "weights"
    )
    found = proof(few(9), actor=Half())
    assert (found.reason, len(found.held.seeds)) == ("", 9)
    assert (len(found.held.proof), len(found.held.look), len(found.held.marks)) == (2, 2, 4)
    assert found.checks[-1].figures["attempts"] == 12  # two tasks, six times each


def test_demands_that_nothing_could_fulfil_are_refused():
    for wrong in ({"seeds": 0}, {"agree": 0.0}, {"agree": 1.5}, {"seconds": 0}):
        with pytest.raises(Invalid):
            Demands(**wrong)


def test_the_pass_rate_counts_attempts_at_tasks_of_the_proof():
    found = asyncio.run(pass_rate(Program(source=programs.SOUND), range(4), actor=Never(), attempts=2))
    assert (found.solved, found.attempts, found.rate) == (0, 8, 0.0)


def test_real_transitions_are_taken_from_whole_conversations():
    whole = conversations(day(40))
    read, kept = hold_out(whole)
    assert len(read) + len(kept) == len(whole)
    assert kept
    assert not {one.messages[0]["content"] for one in read} & {one.messages[0]["content"] for one in kept}
    found = [one for each in kept for one in transitions(each)]
    assert len(found) == len(kept)
    assert all(one.before[-1]["content"].startswith("call ") and len(one.before) == 2 for one in found)
