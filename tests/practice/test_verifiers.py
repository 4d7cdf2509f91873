"""Tasksets of verifiers, played against the real library where it is installed (it cannot stand beside the others that
tests need: it wants another major version of the openai client)."""

import asyncio
import importlib
import importlib.util
import sys

import pytest

from dayjob.endings import EpisodeEnding, Invalid
from dayjob.practice.checks import check_environment
from dayjob.practice.protocol import Action
from dayjob.practice.registry import make

here = importlib.util.find_spec("verifiers") is not None
installed = pytest.mark.skipif(not here, reason="verifiers is not installed: pip install 'dayjob[verifiers]'")

SUMS = """
import verifiers.v1 as vf

class SumData(vf.TaskData):
    right: int

class SumTask(vf.Task[SumData]):
    @vf.reward(weight=0.75)
    async def right(self, task, trace) -> float:
        return float(trace.last_reply == str(task.right))

    @vf.reward(weight=0.25)
    async def short(self, trace) -> float:
        return float(0 < len(trace.last_reply) < 5)

    @vf.metric
    async def turns(self, trace) -> float:
        return len(trace.nodes)

class SumConfig(vf.TasksetConfig):
    size: int = 10

class Sums(vf.Taskset[SumTask, SumConfig]):
    def load(self):
        for n in range(self.config.size):
            yield SumTask(SumData(prompt=f"What is {n} + 7?", system_prompt="A number.", right=n + 7), self.config.task)

__all__ = ["Sums"]
"""


def with_method(text):
    """The taskset with something more in its task."""
    return SUMS.replace("    @vf.metric", f"    {text}\n\n    @vf.metric")


BOX = "class Box(vf.Toolset[vf.ToolsetConfig, vf.State]):\n    pass\n\n"
TOOLS = "@classmethod\n    def toolsets(cls, config):\n        return [Box(vf.ToolsetConfig())]"
NEEDY = {
    "a runtime for setup": with_method("async def setup(self, trace, runtime): ..."),
    "a runtime for scoring": SUMS.replace("def right(self, task, trace)", "def right(self, task, trace, runtime)"),
    "a container": with_method("NEEDS_CONTAINER = True"),
    "a sandbox for scorers that evaluate": SUMS.replace(
        "float(trace.last_reply == str(task.right))", "float(_value(trace.last_reply) == task.right)"
    ).replace("class SumConfig", "def _value(text):\n    return eval(text)\n\nclass SumConfig"),
    "rewards": SUMS.replace("@vf.reward", "@vf.metric").replace("weight=0.75", "").replace("weight=0.25", ""),
    "a prompt of texts": SUMS.replace('prompt=f"What is {n} + 7?", ', ""),
    "tool servers": with_method(TOOLS).replace("class SumConfig", BOX + "class SumConfig"),
}


@pytest.fixture
def taskset(tmp_path, monkeypatch):
    """Installs a module as a package that declares that it needs verifiers."""
    from dayjob.practice.adapters import verifiers

    def install(name, text, needs="verifiers>=0.4"):
        info = tmp_path / f"{name}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\nRequires-Dist: {needs}\n")
        (info / "RECORD").write_text(f"{name}.py,,\n")
        (info / "top_level.txt").write_text(f"{name}\n")
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
        verifiers._load.cache_clear()
        return name

    monkeypatch.syspath_prepend(tmp_path)
    return install


def answer(environment, seed, text):
    return asyncio.run(environment.reset(seed).step(Action(text=text)))


@installed
def test_the_battery_passes(taskset):
    spec = make({"env": "verifiers", "taskset": taskset("sums_a", SUMS)}).spec
    asyncio.run(check_environment(lambda: make(spec), seeds=[0, 1, 2, 2**63 - 1], has_reference=False))


@installed
def test_rewards_are_the_tasksets_own_by_weight(taskset):
    environment = make({"env": "verifiers", "taskset": taskset("sums_b", SUMS), "config": {"size": 3}})
    task = environment.reset(4).task  # 4 modulo 3 tasks
    assert list(task.messages) == [
        {"role": "system", "content": "A number."},
        {"role": "user", "content": "What is 1 + 7?"},
    ]
    right, short, long = (answer(environment, 4, text) for text in ("8", "9", "It is 8."))
    assert right.ending is EpisodeEnding.DONE
    assert (right.reward.value, right.reward.parts) == (1, {"right": 1, "short": 1})
    assert (short.reward.value, short.reward.parts) == (0.25, {"right": 0, "short": 1})
    assert (long.reward.value, long.reward.parts) == (0, {"right": 0, "short": 0})
    half = make(environment.spec | {"best": 1.5})
    assert answer(half, 4, "8").reward.value == pytest.approx(1 / 1.5)


@installed
@pytest.mark.parametrize("need", NEEDY)
def test_what_needs_more_than_a_conversation_is_refused(taskset, need):
    name = taskset(f"needy_{len(need)}_{need.split()[-1]}", NEEDY[need])
    with pytest.raises(Invalid, match=f"need {need}.*: play them with verifiers' own harness"):
        make({"env": "verifiers", "taskset": name})


@installed
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"taskset": "json"}, "no installed package that needs verifiers"),
        ({"taskset": "os.path"}, "is the name of an installed taskset"),
        ({"taskset": "sums_c", "config": {"sise": 3}}, "cannot be loaded so"),
        ({"taskset": "sums_c", "config": {"size": 0}}, "has no tasks"),
        ({"taskset": "sums_c", "config": {"id": "other"}}, "without its id"),
        ({"taskset": "sums_c", "best": 0}, "best must be"),
        ({"taskset": "other"}, "no installed package that needs verifiers"),
    ],
)
def test_settings_that_make_no_sense_are_refused(taskset, settings, said):
    taskset("sums_c", SUMS)
    taskset("other", SUMS, needs="numpy")
    with pytest.raises(Invalid, match=said):
        make({"env": "verifiers", **settings})


def test_whether_a_scorer_evaluates_is_read_off_its_whole_module(tmp_path, monkeypatch):
    """A helper of the module may be where it does; what has no source is taken to."""
    from dayjob.practice.adapters.verifiers import evaluates

    scorer = "class Task:\n    async def right(self, trace):\n        return value(trace.last_reply)\n\n\n"
    monkeypatch.syspath_prepend(tmp_path)
    for name, helper in {"compares": "return int(text)", "helps": "return eval(text)",
                         "parses": "return sympy.parse_expr(text)"}.items():  # fmt: skip
        (tmp_path / f"scores_{name}.py").write_text(f"{scorer}def value(text):\n    {helper}\n")
        made = importlib.import_module(f"scores_{name}")
        assert evaluates(made.Task().right) is (name != "compares")
    here: dict = {}
    exec("def right(trace): return 1.0", here)
    assert evaluates(here["right"])
    assert evaluates(len)


@pytest.mark.skipif(here, reason="verifiers is installed")
def test_without_the_library_it_is_said_what_to_install():
    with pytest.raises(Invalid, match=r"pip install 'dayjob\[verifiers\]'"):
        make({"env": "verifiers", "taskset": "gsm8k"})
