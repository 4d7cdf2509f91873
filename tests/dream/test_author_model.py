"""A model as an author, over HTTP: what it is asked, what it may cost, and what nonsense, malice and silence cost."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from dayjob.dream.author_model import MOST_ANSWER, ModelAuthor, prompt_of
from dayjob.dream.dreaming import OfflineAuthor, dream
from dayjob.dream.excerpts import conversations
from dayjob.dream.propose import Allowance, Proposal, Proposed
from dayjob.dream.prove import Demands, fault_of
from dayjob.endings import Invalid
from dayjob.practice.environments.program import close_idle
from dayjob.practice.sandbox import available
from tests.dream import programs
from tests.dream.days import day

needs_sandbox = pytest.mark.skipif(available() is not None, reason="the sandbox is missing")
Say = Callable[[int], bytes]


class Author:
    """A server with one model, which says what a test wants: by the number of the call, from 0."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.say: Say = lambda _: b"{}"
        self.status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                outer.keys.append(self.headers["Authorization"])
                body = outer.say(len(outer.asked) - 1)
                self.send_response(outer.status)
                self.end_headers()
                try:
                    self.wfile.write(body)
                except OSError:
                    return  # whoever asked has enough

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def propose(self, *, check=None, **allowed: Any) -> Proposed:
        more = {} if check is None else {"check": check}
        author = ModelAuthor(url=self.url, model="writer", key="hunter2", **more)
        return asyncio.run(author.propose(day(10), allowance=Allowance(**allowed)))


@pytest.fixture
def author() -> Iterator[Author]:
    made = Author()
    yield made
    made.server.shutdown()
    made.server.server_close()
    close_idle()


def said(text: object, tokens: object = 50) -> bytes:
    return json.dumps({"choices": [{"message": {"content": text}}], "usage": {"completion_tokens": tokens}}).encode()


def block(source: str) -> str:
    return f"Here it is:\n```python\n{source}\n```\nDone."


def test_it_is_asked_for_one_file_with_the_record_and_the_tools():
    excerpts = conversations(day(10))
    prompt = prompt_of(excerpts)
    assert "def reset(seed: int)" in prompt
    assert excerpts[-1].messages[0]["content"] in prompt
    assert "{{" not in prompt


def test_what_it_writes_becomes_programs_until_there_are_enough(author: Author):
    author.say = lambda n: said(block(f"# {n}\n{programs.SOUND}"), 500)
    found = author.propose(programs=2)
    assert [one.name for one in found.proposals] == ["writer: 1", "writer: 2"]
    assert found.proposals[1].source.startswith("# 1\n")
    assert (found.calls, found.tokens, found.faults) == (2, 1_000, ())
    assert author.keys == ["Bearer hunter2"] * 2
    assert "these do not cover: writer: 1" in author.asked[1]["messages"][-1]["content"]
    assert "hunter2" not in repr(ModelAuthor(url=author.url, model="m", key="hunter2"))


@needs_sandbox
def test_it_is_told_why_a_program_does_not_hold_and_tries_again(author: Author):
    broken = programs.WRONG_REFERENCE
    author.say = lambda n: said(block(programs.SOUND if n else broken))

    async def check(proposal: Proposal) -> str:
        return await fault_of(proposal, demands=Demands(seeds=2))

    found = author.propose(programs=1, check=check)
    assert [one.source.strip() for one in found.proposals] == [programs.SOUND.strip()]
    assert len(found.faults) == 1
    assert "earns 0" in author.asked[1]["messages"][-1]["content"]


@pytest.mark.parametrize(
    ("body", "fault", "calls"),
    [
        (b"", "no chat completion", 1), (b"[]", "no chat completion", 1), (b'{"choices": []}', "no chat completion", 1),
        (b"\xff\xfe", "no chat completion", 1), (b"[" * 100_000, "no chat completion", 1),
        (b"x" * (MOST_ANSWER + 1), "more than", 1), (said("I would rather not."), "no ```python block", 3),
        (said(None), "no ```python block", 3), (said(block("x" * 300_000)), "no ```python block", 3),
    ],
)  # fmt: skip
def test_nonsense_costs_its_calls_and_nothing_else(author: Author, body: bytes, fault: str, calls: int):
    author.say = lambda _: body
    found = author.propose(calls=3)
    assert found.proposals == ()
    assert found.calls == calls
    assert fault in found.faults[0]
    assert (found.faults[-1] == "its calls were spent") is (calls == 3)


def test_tokens_are_counted_also_where_its_server_does_not_tell_or_lies(author: Author):
    for told in (None, 0, -5, True, "many"):
        author.asked.clear()
        author.say = lambda _, told=told: said("word " * 3_000, told)
        found = author.propose(calls=50, tokens=2_000)
        assert found.faults[-1] == "its tokens were spent"
        assert 1 <= found.calls <= 3
    assert author.asked[0]["max_tokens"] == 2_000


def test_an_author_that_never_ends_is_left_at_its_time(author: Author):
    left = threading.Event()
    author.say = lambda _: b"" if left.wait(60) else b"late"
    began = time.monotonic()
    found = author.propose(seconds=0.3)
    assert time.monotonic() - began < 30
    left.set()
    assert found.faults == ("its 0.3 seconds were spent",)


def test_a_server_that_refuses_or_is_not_there_is_told_and_its_key_is_not(author: Author):
    author.status = 401
    assert author.propose().faults == ("its server answered 401: check url, model and key",)
    nobody = ModelAuthor(url="http://127.0.0.1:9/v1", model="m", key="hunter2")
    found = asyncio.run(nobody.propose(day(3), allowance=Allowance()))
    assert "could not be reached" in found.faults[0]
    assert "hunter2" not in str(found)


def test_settings_that_mean_nothing_are_refused():
    for url, model in (("ftp://h/v1", "m"), ("h/v1", "m"), ("http://h/v1", "")):
        with pytest.raises(Invalid):
            ModelAuthor(url=url, model=model)
    for wrong in ({"calls": 0}, {"tokens": 0}, {"seconds": 0}, {"programs": 0}):
        with pytest.raises(Invalid):
            Allowance(**wrong)


@needs_sandbox
def test_a_hostile_author_beside_an_honest_one_costs_a_reason_each(author: Author):
    hostile = (programs.FORKS, programs.FAKES, programs.EXITS, programs.PAYS_SILENCE)
    author.say = lambda n: said(block(hostile[n % 4]))
    model = ModelAuthor(url=author.url, model="writer")
    found = asyncio.run(
        dream(day(), authors=[OfflineAuthor(), model], actor=None, allowance=Allowance(programs=4, calls=4),
              demands=Demands(seeds=2, claims=3))
    )  # fmt: skip
    admitted = {one.proposal.author for one in found.admitted}
    assert (len(found.proofs), admitted) == (8, {"offline"})
    assert [one.reason.partition(":")[0] for one in found.proofs[4:]] == ["loads", "loads", "deterministic", "trivial"]
