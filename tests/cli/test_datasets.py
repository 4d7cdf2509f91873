"""Training files of elsewhere as a journal, and out again the same."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dayjob.cli.bases import open_tokens
from dayjob.config import Base
from dayjob.journal.control import Control
from dayjob.journal.readers import Reader
from dayjob.memory.notes import NotesReader
from tests.cli.conftest import Command
from tests.policies.language.worlds import byte_tokenizer

SYSTEM, QUESTION = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "When?"}
CALL = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": {"zone": "CET"}}}
TOLD = [QUESTION, {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "9:00", "tool_call_id": "c1"}]  # fmt: skip
TOOLS = [{"type": "function", "function": {"name": "clock"}}]


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def pair(better: str = "At nine.", worse: str = "At ten.", **more: Any) -> dict[str, Any]:
    return {"prompt": [SYSTEM, QUESTION], "chosen": [said(better)], "rejected": [said(worse)]} | more


FILES: dict[str, list[dict[str, Any]]] = {
    "chat": [
        {"messages": [SYSTEM, QUESTION, said("At nine.")]},
        {"messages": [*TOLD, said("At nine, Zürich time.")], "tools": TOOLS},
        {"messages": [QUESTION, said("At ten."), {"role": "user", "content": "No."}, said("At nine.")]},
        {"messages": [SYSTEM, QUESTION, said("At nine.")]},
    ],
    "preference": [pair(), pair("At nine, sharp.", ""), pair(prompt=TOLD, tools=TOOLS), pair()],
    "openai-dpo": [
        {
            "input": {
                "messages": [
                    QUESTION,
                    {
                        "role": "assistant",
                        "content": "",
                        "tool_calls": [
                            CALL | {"function": {"name": "clock", "arguments": '{"zone":"CET"}'}},
                        ],
                    },
                    TOLD[2],
                ],
                "tools": TOOLS,
            },
            "preferred_output": [said("At nine.")],
            "non_preferred_output": [said("At ten.")],
        },
    ],
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder as far as an import looks: its tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    byte_tokenizer().save_pretrained(folder)
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def clerk(tokenizer: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A data directory to be; the base "tiny" is configured."""
    monkeypatch.setenv("DAYJOB_BASES", f"tiny={tokenizer}")
    return tmp_path / "data"


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def take(dayjob: Command, format: str, rows: list[Any], data: Path, *more: object) -> Any:
    file = write(data.with_name("rows.jsonl"), rows)
    return dayjob("import", format, file, "--policy", "clerk", "--base", "tiny", "--data", data, *more)


@pytest.mark.parametrize("format", FILES)
def test_what_was_taken_in_comes_out_the_same(dayjob: Command, clerk: Path, format: str) -> None:
    done = take(dayjob, format, FILES[format], clerk, "--json")
    assert done.status == 0, done.err
    count = len(FILES[format])
    assert done.json == {"policy": "clerk", "data": str(clerk), "added": count, "known": 0, "erased": 0}
    out = clerk.with_name("out.jsonl")
    told = dayjob("export", "clerk", "--data", clerk, "--format", format, "--out", out, "--json")
    assert told.json["records"] == count
    assert [json.loads(line) for line in out.read_text().splitlines()] == FILES[format]
    again = dayjob("import", format, out, "--policy", "clerk", "--base", "tiny", "--data", clerk.with_name("second"))
    assert again.status == 0, again.err
    assert dayjob("export", "clerk", "--data", clerk.with_name("second"), "--format", format).out == out.read_text()


def test_pairs_come_out_in_every_format(dayjob: Command, clerk: Path) -> None:
    take(dayjob, "preference", [pair()], clerk)
    rows = {name: json.loads(dayjob("export", "clerk", "--data", clerk, "--format", name).out) for name in FILES}
    assert rows["chat"] == FILES["chat"][0]
    assert rows["openai-dpo"] == {
        "input": {"messages": [SYSTEM, QUESTION]}, "preferred_output": [said("At nine.")],
        "non_preferred_output": [said("At ten.")],
    }  # fmt: skip


def test_a_line_is_a_decision_in_the_models_own_tokens(dayjob: Command, clerk: Path, tokenizer: Path) -> None:
    take(dayjob, "preference", [pair()], clerk)
    [stored] = Reader(clerk).decisions("default", "clerk")[0]
    generation, tokens = stored.record.generation, open_tokens(Base(name="tiny", path=str(tokenizer)))
    assert generation is not None
    assert (generation.base, stored.record.version, generation.notes) == ("tiny", "v0-baseline", ())
    assert tuple(np.frombuffer(generation.prompt_ids, "<u4")) == tokens.render([SYSTEM, QUESTION])
    better, _ = generation.choices
    ids = tuple(np.frombuffer(better.token_ids, "<u4").tolist())
    assert tokens.text(ids) == better.text == "At nine."
    assert ids[:-1] == tokens.encode("At nine.")
    assert ids[-1] in tokens.end_ids
    assert better.sample_logprobs == b"", "nobody knows what it was drawn from"
    assert np.isnan(np.frombuffer(better.model_logprobs, "<f4")).all()
    assert better.versions == (("imported", len(ids)),), "no version of ours wrote it"
    told = Reader(clerk).outcomes("default", [stored])[stored.record.id]
    assert [(one.record.kind, one.record.item, one.record.value) for one in told] == [
        ("thumb", "0", 1.0), ("thumb", "1", -1.0),
    ]  # fmt: skip
    assert NotesReader(clerk).taught("default", "clerk", after=0, until=99) == [], "it is nobody's note"
    policy = Control(clerk).policy("default", "clerk")
    assert (policy.spec["base"], policy.spec["recipe"]) == ("tiny", "consolidate")


def test_taking_in_twice_adds_nothing_and_a_longer_file_what_is_new(dayjob: Command, clerk: Path) -> None:
    take(dayjob, "preference", [pair(), pair()], clerk)
    done = take(dayjob, "preference", [pair(), pair(), pair(), pair("At eight.")], clerk, "--json")
    assert (done.json["added"], done.json["known"]) == (2, 2)
    assert "2 answers added, 2 were there already" not in done.out
    assert Reader(clerk).counts("default", "clerk") == {"decisions": 4, "thumb": 8}


BAD: dict[str, tuple[str, Any, str]] = {
    "no JSON": ("chat", '{"messages": ', "not JSON"),
    "no object": ("chat", "[1]", "object"),
    "no messages": ("chat", {"text": "The sky is blue."}, "messages is missing"),
    "an answer alone": ("chat", {"messages": [said("x")]}, "messages"),
    "a question at the end": ("chat", {"messages": [SYSTEM, QUESTION]}, "one message of the assistant"),
    "a tool call at the end": ("chat", {"messages": [QUESTION, TOLD[1]]}, "no tool call"),
    "no words": ("chat", {"messages": [QUESTION, said("  ")]}, "without words"),
    "a made-up role": ("chat", {"messages": [{"role": "oracle", "content": "x"}, said("x")]}, "messages.0.role"),
    "a picture": ("chat", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, said("x")]}, "text"),
    "a control token": ("chat", {"messages": [{"role": "user", "content": "a<|end|>"}, said("x")]}, "control token"),
    "one in the answer": ("chat", {"messages": [QUESTION, said("<|end|>")]}, "control token"),
    "too long": ("chat", {"messages": [QUESTION, said("word " * 1000)]}, "reads 4096"),
    "half a character": ("chat", {"messages": [QUESTION, {"role": "assistant", "content": "\ud800"}]}, "JSON"),
    "text for a prompt": ("preference", pair(prompt="The sky is"), "prompt"),
    "no worse one": ("preference", {"prompt": [QUESTION], "chosen": [said("x")]}, "rejected is missing"),
    "two turns": ("preference", pair(chosen=[said("x"), QUESTION]), "chosen must end with one message"),
    "nothing to choose": ("preference", pair("same", "same"), "both answers are the same"),
    "the other format": ("openai-dpo", pair(), "input is missing"),
    "no preferred one": ("openai-dpo", {"input": {"messages": [QUESTION]}}, "preferred_output is missing"),
}


@pytest.mark.parametrize("how", BAD)
def test_a_bad_line_is_told_by_its_number_and_nothing_is_written(dayjob: Command, clerk: Path, how: str) -> None:
    format, bad, words = BAD[how]
    done = take(dayjob, format, [FILES[format][0], bad, FILES[format][0]], clerk)
    assert done.status == 2, done.out
    assert "line 2: " in done.err
    assert words in done.err
    assert not clerk.exists()


def test_what_is_missing_is_told_with_its_remedy(
    dayjob: Command, clerk: Path, shop: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(clerk.with_name("rows.jsonl"), FILES["chat"])
    cases = [
        (["--policy", "clerk"], "--base NAME"),
        (["--policy", "clerk", "--base", "huge"], "[bases.huge]"),
        (["--policy", "../up", "--base", "tiny"], "no name of a policy"),
        (["--policy", "shop"], "is a ranker"),
    ]
    for words, remedy in cases:
        done = dayjob("import", "chat", file, "--data", shop, *words)
        assert done.status == 2, words
        assert remedy in done.err
    (clerk.with_name("empty")).write_text("\n\n")
    done = dayjob("import", "chat", clerk.with_name("empty"), "--policy", "clerk", "--base", "tiny")
    assert "has no line, and nothing was written: name a file with a JSON object a line" in done.err
    take(dayjob, "chat", FILES["chat"], clerk)
    done = dayjob("import", "chat", file, "--policy", "clerk", "--base", "other", "--data", clerk)
    assert "stands on the base 'tiny'" in done.err
    bare = shutil.copytree(tokenizer, clerk.with_name("bare"))
    for one in bare.glob("token*"):
        one.unlink()
    monkeypatch.setenv("DAYJOB_BASES", f"tiny={bare}")
    assert "holds no tokenizer" in take(dayjob, "chat", FILES["chat"], clerk).err


def test_words_of_a_ranker_are_refused(dayjob: Command, shop: Path) -> None:
    done = dayjob("export", "shop", "--data", shop, "--format", "preference")
    assert done.status == 2
    assert "--format decisions" in done.err
