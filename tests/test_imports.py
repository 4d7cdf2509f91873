"""The house rules, held by reading the source: who may import whom, and how large things may grow."""

import ast
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"
FILES = sorted((SOURCE / "dayjob").rglob("*.py"))
APPS = sorted((ROOT / "apps").rglob("*.py"))

BASE = ("records", "endings", "config")
# What a policy is to those who only serve or judge it: its protocol, the caller's own order, and the drawing of lists.
POLICY = ("policies.protocol", "policies.baseline", "policies.plackett_luce", "policies.engine_protocol")
CLIENT = ("client", "client_answers", "client_calls", "client_core", "client_language", "client_types")
EVERYTHING = ("",)
# For each part, or single module of it: the modules of ours that it may import beside its own part.
MAY_IMPORT = {
    "endings": (),
    "records": ("endings",),
    "tables": ("endings",),
    "config": ("endings", "records", "tables"),
    "version": (),
    "objectives": (),
    "policies": BASE,
    "journal": BASE,
    "signals": (*BASE, "journal.readers"),
    "memory": (*BASE, "journal.control", "journal.notes", "journal.readers", "journal.exports", "journal.join"),
    "learn": (*BASE, "policies", "objectives", "signals", "memory", "journal"),
    "gate": (*BASE, *POLICY, "signals", "journal"),
    "gate.verdict": ("records", "endings"),
    "practice": (*BASE, *POLICY, "signals.intervals"),
    "dream": (*BASE, *POLICY, "practice", "journal.readers", "signals.intervals"),
    "serve": (*BASE, *POLICY, "memory", "journal", "gate.trial", "version"),
    "client": ("endings", *CLIENT, "version"),
    "fakes": EVERYTHING,
    "fakes_practice": EVERYTHING,
    "lab": EVERYTHING,
    "cli": EVERYTHING,
    "__main__": ("cli",),
    "": EVERYTHING,  # dayjob/__init__.py, the public names
}
TORCH_FREE = (
    "records",
    "endings",
    "config",
    "tables",
    "journal",
    "gate",
    "serve",
    "signals",
    "memory",
    "policies.protocol",
    "policies.engine_protocol",
    "client",
    "practice",
)
# What whoever assembles may touch of the server.
SERVE_DOORS = {
    "dayjob.serve",
    "dayjob.serve.app",
    "dayjob.serve.auth",
    "dayjob.serve.call",
    "dayjob.serve.coin",
    "dayjob.serve.chat_wire",
    "dayjob.serve.live",
    "dayjob.serve.metrics",
    "dayjob.serve.notes",
    "dayjob.serve.models",
    "dayjob.serve.protocol",
    "dayjob.serve.wire",
}
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_PARAMETERS, MAX_POSITIONAL = 400, 69, 8, 2
# Whose record it is: leads the arguments of everything that stores or serves, and counts as one name.
ADDRESS = {"self", "cls", "root", "db", "tx", "control", "reader", "hub", "tenant", "policy"}


def module_of(path: Path) -> str:
    """ "journal.store" for src/dayjob/journal/store.py; the part itself for its __init__."""
    parts = path.relative_to(SOURCE / "dayjob").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path) for path in FILES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function of a file, with all that the rules ask about it."""

    line: int
    name: str
    length: int
    positional: tuple[str, ...]
    keywords: int


@cache  # three rules go through every file, and parsing is all that takes time
def read(path: Path) -> tuple[list[tuple[int, str]], list[Function]]:
    """(line, module) of every import in a file, wherever it stands; names of ours as ``dayjob.part.module``. And its
    functions."""
    imported, functions = list[tuple[int, str]](), list[Function]()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports by a relative name"
            source = node.module or ""
            inner = [f"{source}.{alias.name}" for alias in node.names]
            modules = [name for name in inner if name.removeprefix("dayjob.") in MODULES]
            imported += [(node.lineno, name) for name in (modules or [source])]
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            functions.append(
                Function(
                    line=node.lineno,
                    name=node.name,
                    length=(node.end_lineno or node.lineno) - node.lineno + 1,
                    positional=tuple(one.arg for one in (*node.args.posonlyargs, *node.args.args)),
                    keywords=len(node.args.kwonlyargs),
                )
            )
    return imported, functions


def within(module: str, part: str) -> bool:
    return part == "" or module == part or module.startswith(part + ".")


def part_of(module: str) -> str:
    top = module.partition(".")[0]
    return "client" if top in CLIENT else top


@pytest.mark.parametrize("path", FILES, ids=[module_of(path) or "dayjob" for path in FILES])
def test_imports_point_down_only(path):
    module = module_of(path)
    part = part_of(module)
    assert module in MAY_IMPORT or part in MAY_IMPORT, f"{part} is a new part: give it a row in MAY_IMPORT"
    allowed = MAY_IMPORT.get(module, MAY_IMPORT.get(part, ()))
    own = () if module in MAY_IMPORT and module != part else (part,)
    for line, name in read(path)[0]:
        if name == "dayjob":
            name = (
                "dayjob.version"  # the bare package has the version for everyone, its other names only for the outside
            )
        if name.startswith("dayjob."):
            target = name.removeprefix("dayjob.")
            assert any(within(target, one) for one in (*own, *allowed)), (
                f"{path}:{line}: {module} must not import {name}"
            )
        if name.partition(".")[0] == "torch":
            assert not any(within(module, one) for one in TORCH_FREE), f"{path}:{line}: {module} must not import torch"


@pytest.mark.parametrize("path", APPS, ids=[path.name for path in APPS])
def test_apps_are_built_on_public_names(path):
    """As anybody outside builds on dayjob: on the client and the words of the contract, on nothing within."""
    for line, name in read(path)[0]:
        public = not within(name, "dayjob") or name in ("dayjob", "dayjob.client", "dayjob.endings")
        assert public, f"{path}:{line}: an app must not import {name}"


def test_lab_and_cli_leave_the_inside_of_serve_alone():
    for path in FILES:
        if part_of(module_of(path)) in ("lab", "cli"):
            inside = [name for _, name in read(path)[0] if within(name, "dayjob.serve") and name not in SERVE_DOORS]
            assert not inside, f"{path} imports {inside}"


def test_the_server_the_judge_and_the_client_start_without_torch():
    code = "import sys, dayjob, dayjob.serve.app, dayjob.gate.judge, dayjob.client; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("path", FILES + APPS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_small(path):
    lines = path.read_text().count("\n")
    assert lines <= MAX_FILE_LINES, f"{path} has {lines} lines"
    for one in read(path)[1]:
        assert one.length <= MAX_FUNCTION_LINES, f"{path}:{one.line} {one.name} has {one.length} lines"
        count = len([name for name in one.positional if name not in ("self", "cls")]) + one.keywords
        assert count <= MAX_PARAMETERS, f"{path}:{one.line} {one.name} has {count} parameters"


@pytest.mark.parametrize("path", FILES + APPS, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_parameters_are_keyword_only_after_the_second(path):
    for one in read(path)[1]:
        free = [name for name in one.positional if name not in ADDRESS]
        # The parameters of a command are named by whoever types it.
        command = "cli" in path.parts or ("lab" in path.parts and one.name == "run")
        if not one.name.startswith("_") and not command:
            assert len(free) <= MAX_POSITIONAL, (
                f"{path}:{one.line} {one.name}({', '.join(free)}): put * after the second"
            )
