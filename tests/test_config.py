"""One configuration: who wins, what is refused, and that its page says what the code does."""

from dataclasses import fields
from pathlib import Path

import pytest

from dayjob.config import EMBEDDED, Base, Config, Recipe, Suite, load_config, render_settings, settings
from dayjob.endings import Invalid

ROOT = Path(__file__).parent.parent


def load(directory: Path, *, toml: str | None = None, flags=None, environ=None):
    if toml is not None:
        (directory / "dayjob.toml").write_text(toml)
    return load_config(flags=flags or {}, environ=environ or {}, directory=directory)


def refused(directory: Path, **how) -> Invalid:
    with pytest.raises(Invalid) as caught:
        load(directory, **how)
    return caught.value


def test_nothing_given_is_all_defaults(tmp_path):
    loaded = load(tmp_path)
    assert loaded.config == Config()
    assert set(loaded.source_of.values()) == {"default"}
    assert loaded.source_of.keys() == {setting.name for setting in fields(Config)}


def test_flags_win_over_environment_over_file_over_default(tmp_path):
    toml = "port = 1\nholdback = 0.01\npoll_s = 0.2\n"
    environ = {"DAYJOB_PORT": "2", "DAYJOB_HOLDBACK": "0.02", "PATH": "/bin"}
    loaded = load(tmp_path, toml=toml, environ=environ, flags={"port": 3, "holdback": None})
    assert (loaded.config.port, loaded.config.holdback, loaded.config.poll_s) == (3, 0.02, 0.2)
    assert loaded.config.trial_share == Config().trial_share
    assert [loaded.source_of[name] for name in ("port", "holdback", "poll_s", "host")] == [
        "--port", "DAYJOB_HOLDBACK", f"{tmp_path / 'dayjob.toml'}, poll_s", "default"
    ]  # fmt: skip


SAMPLES = {  # as text in the environment, as TOML, as it should come out
    int: ("7000", "7000", 7000),
    float: ("0.25", "0.25", 0.25),
    Path: ("d", '"d"', None),
    Base: ("a=/d,", '{a = {path = "/d"}}', (Base(name="a", path="/d"),)),
    Recipe: (
        "consolidate.steps=9, consolidate.learning_rates=1e-3 0.002",
        "{consolidate = {steps = 9, learning_rates = [1e-3, 0.002]}}",
        (Recipe(name="consolidate", settings=(("learning_rates", (0.001, 0.002)), ("steps", 9))),),
    ),
    Suite: ("a=/d,", '{a = {path = "/d"}}', (Suite(name="a", path="/d"),)),
    tuple: ("one, two\n\nthree", '["one, two", "", "three"]', ("one, two", "three")),
    str: ("words", '"words"', "words"),
    bool: ("true", "true", True),
}


def kind_of(name: str) -> type:
    return {"keys": Path, "data": Path, "bases": Base, "suites": Suite, "recipes": Recipe, "canaries": tuple}.get(
        name, type(getattr(Config(), name))
    )


@pytest.mark.parametrize(
    "name", [setting.name for setting in fields(Config) if setting.name not in ("host", "journal", "dream_author")]
)
def test_every_setting_is_read_from_everywhere_with_its_type(tmp_path, name):
    bounded = {"learner_threads": ("3", "3", 3), "holdback": ("0.02", "0.02", 0.02)}
    as_env, as_toml, want = bounded.get(name, SAMPLES[kind_of(name)])
    by_env = load(tmp_path, environ={"DAYJOB_" + name.upper(): as_env})
    by_toml = load(tmp_path, toml=f"{name} = {as_toml}")
    want = tmp_path / "d" if kind_of(name) is Path else want
    assert getattr(by_env.config, name) == getattr(by_toml.config, name) == want
    assert by_env.source_of[name] == "DAYJOB_" + name.upper()


@pytest.mark.parametrize(
    ("toml", "param", "remedy"),
    [
        ("prot = 1", "prot", "did you mean port?"),
        ("zzzzzz = 1", "zzzzzz", "docs/settings.md"),
        ("[server]\nport = 1", "server", "no setting"),
        ('port = "x"', "port", "a whole number is needed"),
        ("port = 1.5", "port", "a whole number is needed"),
        ("port = true", "port", "a whole number is needed"),
        ("port = 65536", "port", "0 to 65535"),
        ("port = -1", "port", "0 to 65535"),
        ("holdback = 0.51", "holdback", "0 to 0.5"),
        ("holdback = nan", "holdback", "finite"),
        ("holdback = true", "holdback", "finite"),
        ("held_wait_s = -1", "held_wait_s", "at least 0"),
        ("held_wait_s = inf", "held_wait_s", "finite"),
        ("host = 7", "host", "text"),
        ('host = ""', "host", "127.0.0.1"),
        ("data = 7", "data", "path"),
        ('data = ""', "data", "path"),
        ("dream_nightly = 1", "dream_nightly", "true or false"),
        ("dream_budget = 65", "dream_budget", "0.01 to 64"),
        ("bases = 1\nbases = 2", "config", "not TOML"),
        ("bases = [1]", "bases", "[bases.NAME]"),
        ("[bases]\nx = 1", "bases", "[bases.NAME]"),
        ("[bases.x]", "bases", "path must be a folder"),
        ('[bases.x]\npath = "d"\nslots = "1"', "bases", "slots (int)"),
        ('[bases.x]\npath = "d"\nslots = true', "bases", "slots (int)"),
        ('[bases.x]\npath = "d"\nhost = "h"', "bases", "bases.x.host does not fit"),
        ('[bases.x]\npath = "d"\ndtype = "int8"', "bases", "float32, bfloat16 or float16"),
        ('[bases.x]\npath = "d"\ndevice = "tpu"', "bases", "cpu, cuda"),
        ('[bases."a b"]\npath = "d"', "bases", "letters, digits"),
        ('[bases.x]\npath = "d"\ntemplate = 1', "bases", "template (table)"),
        ('[bases.x]\npath = "d"\ntemplate = {"a b" = 1}', "bases", "template must be a table of texts"),
        ('[bases.x]\npath = "d"\ntemplate = {a = [1]}', "bases", "template must be a table of texts"),
        ('[bases.x]\npath = "d"\nengine = "sglang"', "bases", "transformers or vllm"),
        ('[bases.x]\npath = "d"\nengine = "vllm"', "bases", "url must be http(s)://HOST/v1"),
        ('[bases.x]\npath = "d"\nengine = "vllm"\nurl = "http://h:8000"', "bases", "url must be http(s)://HOST/v1"),
        ('[bases.x]\npath = "d"\nurl = "http://h:8000/v1"', "bases", "else left out"),
        ('[bases.x]\npath = "d"\nkey_env = "K"', "bases", "the name of an environment variable"),
        ("suites = 1", "suites", "[suites.NAME]"),
        ('[suites.s]\nfile = "d"', "suites", "a suite takes path (str)"),
        ("[suites.s]", "suites", "a file of JSON lines"),
        ("canaries = [1]", "canaries", "a list of texts"),
        ("recipes = 1", "recipes", "[recipes.NAME]"),
        ("recipes.consolidate = 1", "recipes", "answer_tokens = 128"),
        ("[recipes.naive]", "recipes", "recipes.naive: there is no such recipe of nights; there are consolidate"),
        ("[recipes.consolidate]\nrank = 8", "recipes", "recipes.consolidate.rank is no setting of a night; there are"),
        ("[recipes.consolidate]\nsteps = 0", "recipes", "recipes.consolidate.steps is 0: a whole number of at least 1"),
        ("[recipes.consolidate]\nsteps = true", "recipes", "a whole number of at least 1"),
        ("[recipes.consolidate]\nkl_budget = inf", "recipes", "recipes.consolidate.kl_budget is inf: a number above 0"),
        ("[recipes.consolidate]\nlearning_rates = []", "recipes", "give at least one number above 0"),
        ("[recipes.accept-reject]\naccept_threshold = 1", "recipes", "accept_threshold is 1: less than 1"),
        ("[recipes.consolidate]\nanswer_tokens = 2048", "recipes", "is 2048, context_tokens 2048: lower the one"),
        (f'canaries = ["{"x" * 501}"]', "canaries", "at most 500 characters"),
        ("port", "config", "port = 8080"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_key_source_and_remedy(tmp_path, toml, param, remedy):
    refusal = refused(tmp_path, toml=toml)
    assert refusal.param == param
    assert remedy in str(refusal)
    assert str(tmp_path / "dayjob.toml") in str(refusal)


@pytest.mark.parametrize(
    ("environ", "remedy"),
    [
        ({"DAYJOB_PROT": "1"}, "did you mean DAYJOB_PORT?"),
        ({"DAYJOB_PORT": "eighty"}, "DAYJOB_PORT is 'eighty': a whole number is needed"),
        ({"DAYJOB_PORT": "١"}, "a whole number is needed"),
        ({"DAYJOB_PORT": "1e3"}, "a whole number is needed"),
        ({"DAYJOB_POLL_S": "0"}, "DAYJOB_POLL_S is '0': it must be 0.01 to 0.5"),
        ({"DAYJOB_CONFIG": "none.toml"}, "none.toml cannot be read"),
    ],
)
def test_an_environment_that_does_not_fit_is_refused(tmp_path, environ, remedy):
    assert remedy in str(refused(tmp_path, environ=environ))


@pytest.mark.parametrize("more", ["", '\ndream_author_url = "h"', '\ndream_author_url = "file://h/v1"'])
def test_a_model_that_writes_environments_needs_its_server(tmp_path, more):
    refusal = refused(tmp_path, toml='dream_author = "m"' + more)
    assert refusal.param == "dream_author_url"
    assert "set both" in str(refusal)
    load(tmp_path, toml='dream_author = "m"\ndream_author_url = "https://h/v1"')


def test_variables_of_clients_and_empty_ones_are_left_alone(tmp_path):
    environ = {"DAYJOB_KEY": "k", "DAYJOB_URL": "http://localhost", "DAYJOB_KEYS": "", "DAYJOB_ANYTHING": ""}
    assert load(tmp_path, environ=environ).config == Config()


def test_a_flag_that_does_not_fit_is_refused(tmp_path):
    assert "--max-candidates is 0" in str(refused(tmp_path, flags={"max_candidates": 0}))
    assert "did you mean port?" in str(refused(tmp_path, flags={"portt": 1}))


@pytest.mark.parametrize("url", ["postgres://u:hunter2@h/d", "postgresql://u:hunter2@h/d", "host=h password=hunter2"])
def test_a_journal_elsewhere_is_refused_for_now_without_showing_its_password(tmp_path, url):
    for how in ({"environ": {"DAYJOB_JOURNAL": url}}, {"toml": f'journal = "{url}"'}):
        refusal = refused(tmp_path, **how)
        assert "only the embedded store is built" in str(refusal)
        assert "hunter2" not in str(refusal)
    (tmp_path / "dayjob.toml").unlink()
    refusal = refused(tmp_path, flags={"journal": url})
    assert "use DAYJOB_JOURNAL or the file" in str(refusal)
    assert "hunter2" not in str(refusal)
    assert load(tmp_path, environ={"DAYJOB_JOURNAL": EMBEDDED}).config.journal == EMBEDDED


def test_a_named_file_is_read_and_its_paths_are_relative_to_it(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "other.toml").write_text('data = "d"\nkeys = "/k.toml"')
    for how in (
        {"flags": {"config": "etc/other.toml"}},
        {"environ": {"DAYJOB_CONFIG": str(tmp_path / "etc/other.toml")}},
    ):
        config = load(tmp_path, toml="port = 1", **how).config
        assert (config.data, config.keys, config.port) == (tmp_path / "etc" / "d", Path("/k.toml"), Config().port)
    assert load(tmp_path, flags={"data": "d"}).config.data == tmp_path / "d"


def test_no_config_is_out_of_bounds_whoever_makes_it():
    with pytest.raises(Invalid, match=r"holdback: it must be 0 to 0\.5"):
        Config(holdback=0.9)
    with pytest.raises(Invalid, match="poll_s"):
        Config(poll_s=float("nan"))


def test_shares_that_leave_the_champion_too_little_are_refused(tmp_path):
    """(1 - .04 - .5) * .1 = .046 is enough beside a holdback of .04; beside .05, .045 is not."""
    Config(holdback=0.04)
    error = refused(tmp_path, toml="holdback = 0.05")
    assert (error.param, error.code) == ("holdback", "invalid_setting")
    assert "as few as 0.045" in str(error)
    assert "lower trial_share, watch_most_share or holdback" in str(error)
    Config(holdback=0.05, trial_share=0.8)
    Config(holdback=0.2, watch_share=0.2, trial_share=0.3)
    error = refused(tmp_path, toml="watch_share = 0.6")
    assert error.param == "watch_most_share"
    assert "must be at least watch_share" in str(error)


def test_the_page_of_settings_is_what_the_code_says():
    assert (ROOT / "docs" / "settings.md").read_text() == render_settings(), (
        "write it anew: python -c 'from dayjob.config import render_settings; print(render_settings(), end=\"\")' "
        "> docs/settings.md"
    )


def test_every_setting_is_documented_once():
    assert [one.name for one in settings()] == [setting.name for setting in fields(Config)]
    assert all(one.doc.endswith(".") and one.env == "DAYJOB_" + one.name.upper() for one in settings())
    assert [one.name for one in settings() if not one.flag] == ["journal", "dream_author_key"]
