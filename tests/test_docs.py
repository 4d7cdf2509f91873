"""Everything a user can reach is in the documentation, and nothing in the repository points at somebody's machine."""

import re
from pathlib import Path

import pytest
import typer.main

import dayjob
from dayjob.cli import app as cli
from dayjob.config import settings
from dayjob.serve.openapi import document
from dayjob.serve.routes import ROUTES

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXT = "\n".join(page.read_text() for page in PAGES)
SUFFIXES = {".py", ".md", ".toml", ".txt", ".html", ".js", ".css", ".json", ".yml", ".yaml", ".cfg", ".sh", ""}
OURS = [ROOT / name for name in ("src", "apps", "tests", "docs", "examples")]
# A home or work directory of whoever wrote it; a path inside a URL or a longer name does not count.
LEAK = re.compile(
    r"(?<![\w.:/~-])/(?:home|Users|root|work|workspace|mnt)/[\w.-]+|[A-Z]:\\Users\\|/tmp/(?!pytest)\w+/\w+"
)


def commands(group, words: tuple[str, ...] = ("dayjob",)) -> list[str]:
    """ "dayjob serve", "dayjob lab geospot" ...: every command that can be run, groups left out."""
    if not hasattr(group, "list_commands"):
        return [" ".join(words)]
    context = group.make_context(words[-1], [], resilient_parsing=True)
    inner = {name: group.get_command(context, name) for name in group.list_commands(context)}
    return [
        full
        for name, command in sorted(inner.items())
        if not command.hidden
        for full in commands(command, (*words, name))
    ]


def mentioned(name: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w/-])", TEXT) is not None


def operations() -> list[str]:
    paths = document(ROUTES)["paths"]
    return [f"{method.upper()} {path}" for path, methods in paths.items() for method in methods]


@pytest.mark.parametrize("name", dayjob.__all__)
def test_every_public_name_exists_and_is_documented(name):
    assert getattr(dayjob, name) is not None
    assert mentioned(name), f"dayjob.{name} is in none of {[page.name for page in PAGES]}"


@pytest.mark.parametrize("operation", operations())
def test_every_route_is_documented(operation):
    assert mentioned(operation), f"write `{operation}` with what it does"


@pytest.mark.parametrize("setting", settings(), ids=lambda one: one.name)
def test_every_setting_is_documented_with_its_variable(setting):
    assert mentioned(setting.name)
    assert mentioned(setting.env)


@pytest.mark.parametrize("command", commands(typer.main.get_command(cli)))
def test_every_command_is_documented(command):
    assert mentioned(command), f"write `{command}` with what it does"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_nothing_points_at_a_developers_machine():
    files = [path for top in OURS for path in top.rglob("*")] + [
        path for path in ROOT.iterdir() if not path.name.startswith(".git")
    ]
    for path in files:
        if path.is_file() and path.suffix in SUFFIXES and path != Path(__file__) and "__pycache__" not in path.parts:
            found = LEAK.search(path.read_text(errors="replace"))
            assert found is None, f"{path.relative_to(ROOT)} holds {found[0]}"


@pytest.mark.parametrize(
    "text", ["see /home/ann/x", "/workspace/y", '"/Users/ann"', "C:\\Users\\ann", "(/root/x)", "/tmp/ann/x"]
)
def test_a_leak_would_be_found(text):
    assert LEAK.search(text)


@pytest.mark.parametrize("text", ["https://h/home/x", "/v1/users/u", "a/home/b", "./mnt/x", "/tmp/x", "~/mnt/x"])
def test_what_is_no_leak_is_left_alone(text):
    assert not LEAK.search(text)
