"""F13: hundreds of connections and more work than the disk takes. What is too much is refused, and nothing is lost."""

import asyncio
import json
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dayjob.journal.readers import Reader
from dayjob.journal.rows import connect
from tests.promises.rig import POLICY, SPEC, History, Running, check_history, rank_body, serving

CONNECTIONS = 256
ROUNDS = 4
MOST_GROWTH = 64 << 20


@dataclass(slots=True)
class Crowd:
    """What all connections were told."""

    history: History = field(default_factory=History)
    statuses: Counter[int] = field(default_factory=Counter)
    told_to_wait: list[int] = field(default_factory=list)


class Line:
    """One keep-alive connection that is never closed: a refusal must not cost it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def post(self, path: str, body: Any) -> tuple[int, dict[str, str], Any]:
        sent = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(sent)}"
        )
        self.writer.write(head.encode() + b"\r\n\r\n" + sent)
        await self.writer.drain()
        raw = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 60)
        first, *lines = raw.decode().strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        answer = await self.reader.readexactly(int(headers["content-length"]))
        return int(first.split()[1]), headers, json.loads(answer)


async def press(port: int, crowd: Crowd, *, connections: int, rounds: int) -> None:
    """Every connection ranks and clicks, all at once; what is refused is not sent again."""
    opened = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in range(connections)))
    lines = [Line(*one) for one in opened]
    start = asyncio.Event()

    async def one(number: int, line: Line) -> None:
        await start.wait()
        for turn in range(rounds):
            body = rank_body(number * rounds + turn, decision_id=str(uuid.uuid4()))
            told = await say(line, "/v1/rank", body)
            if told is not None:
                await say(
                    line,
                    "/v1/feedback",
                    {"id": str(uuid.uuid4()), "decision": told["id"], "kind": "click", "position": 1},
                )

    async def say(line: Line, path: str, body: dict[str, Any]) -> Any:
        crowd.history.asked[path, body["id"]] = body
        status, headers, answer = await line.post(path, body)
        crowd.statuses[status] += 1
        if status == 429:
            crowd.told_to_wait.append(int(headers["retry-after"]))
            return None
        crowd.history.told[path, body["id"]] = answer
        return answer

    asking = [asyncio.create_task(one(number, line)) for number, line in enumerate(lines)]
    start.set()
    await asyncio.gather(*asking)
    for line in lines:
        line.writer.close()


def memory(server: Running) -> int:
    return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * 4096


def run_crowd(data: Path, *, queue_limit: int) -> Crowd:
    crowd = Crowd()
    with serving(data, "--no-judge", environ={"DAYJOB_QUEUE_LIMIT": str(queue_limit)}) as server:
        link = server.link(60.0)
        link.ok("PUT", f"/v1/policies/{POLICY}", SPEC)
        before = memory(server)
        asyncio.run(press(server.port, crowd, connections=CONNECTIONS, rounds=ROUNDS))
        assert memory(server) - before < MOST_GROWTH
        last = rank_body(1, decision_id=str(uuid.uuid4()))
        crowd.history.asked["/v1/rank", last["id"]] = last
        crowd.history.told["/v1/rank", last["id"]] = link.ok("POST", "/v1/rank", last)
        assert server.stop() == 0
    return crowd


@pytest.mark.timeout(120)
def test_256_connections_are_all_answered(tmp_path: Path) -> None:
    crowd = run_crowd(tmp_path / "data", queue_limit=4096)
    assert crowd.statuses == {200: CONNECTIONS * ROUNDS, 201: CONNECTIONS * ROUNDS}
    check_history(crowd.history, tmp_path / "data")


@pytest.mark.timeout(120)
def test_more_than_the_queue_holds_is_refused_with_a_time_to_wait_and_nothing_is_lost(tmp_path: Path) -> None:
    data = tmp_path / "data"
    crowd = run_crowd(data, queue_limit=8)
    assert set(crowd.statuses) == {200, 201, 429}
    assert crowd.statuses[429] >= CONNECTIONS // 4, "they came all at once, and eight could wait"
    assert crowd.statuses[200] >= 8
    assert set(crowd.told_to_wait) == {1}
    check_history(crowd.history, data)
    stored = len(Reader(data).decisions("default", POLICY, limit=100_000)[0])
    assert stored == crowd.statuses[200] + 1, "what was refused was not written"
    db = connect(data / "journal.db", write=False)
    assert db.execute("SELECT COUNT(*) FROM outcomes").fetchall() == [(crowd.statuses[201],)]
    db.close()
