"""Specs: what makes an environment, and what is refused with the remedy."""

import contextlib

import pytest

from dayjob.endings import Invalid
from dayjob.practice.registry import digest, group_of, make, names


@pytest.mark.parametrize("name", names())
def test_every_name_leads_to_an_environment_or_says_what_is_missing(name):
    with contextlib.suppress(Invalid):  # settings it cannot do without, or a package that is not installed
        assert make({"env": name}).spec["env"] == name


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(Invalid, match=r"'sums'.*arithmetic.*strings"):
        make({"env": "sums"})
    with pytest.raises(Invalid, match='needs "env"'):
        make({"terms": 3})


def test_an_unknown_setting_is_refused_with_the_known_ones():
    with pytest.raises(Invalid, match=r"term.*settings are: terms, digits"):
        make({"env": "arithmetic", "term": 3})


def test_a_spec_never_names_a_module():
    with pytest.raises(Invalid, match="no environment"):
        make({"env": "os:system"})


def test_defaults_are_written_out_so_that_equal_environments_have_equal_digests():
    assert digest(make({"env": "arithmetic"}).spec) == digest(make({"env": "arithmetic", "terms": 2}).spec)
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})


def test_a_group_is_one_task_of_one_environment():
    spec = make({"env": "arithmetic"}).spec
    assert group_of(spec, 1) != group_of(spec, 2)
    assert group_of(spec, 1) != group_of(make({"env": "strings"}).spec, 1)


def test_an_installed_package_adds_an_environment(tmp_path, monkeypatch):
    (tmp_path / "my_tasks.py").write_text("from dayjob.fakes_practice import FakeEnvironment as Mine\n")
    info = tmp_path / "my_tasks-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-tasks\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[dayjob.environments]\nmine = my_tasks:Mine\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "mine" in names()
    assert make({"env": "mine", "turns": 4}).reset(0).task.max_turns == 4


def test_what_no_spec_alone_can_open_is_not_offered():
    assert "world" not in names()
    tasks = [{"messages": [{"role": "user", "content": "?"}]}]
    assert make({"env": "world", "model": "1f", "tasks": tasks, "horizon": 2}).spec["env"] == "world"
