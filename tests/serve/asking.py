"""What a client of the wire contract does over and over: declare, rank, read what was journaled."""

import base64
import json
import uuid
from typing import Any

import httpx2
import numpy as np

RANKER = {"kind": "ranker", "context_dim": 3, "candidate_dim": 3}
A, B, C = [1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]
THREE = [{"id": "a", "features": A}, {"id": "b", "features": B}, {"id": "c", "features": C}]


def error_of(answer: httpx2.Response, status: int) -> dict[str, Any]:
    """The error object, in OpenAI's shape and with words to act on."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"error"}
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert len(error["message"]) > 10
    return error


def declare(http: httpx2.Client, **changes: Any) -> str:
    """A new policy's name."""
    name = f"p{uuid.uuid4().hex[:12]}"
    answer = http.put(f"/v1/policies/{name}", json=RANKER | changes)
    assert answer.status_code == 201, answer.text
    return name


def catalog(http: httpx2.Client, policy: str, *lines: dict[str, Any]) -> httpx2.Response:
    body = "\n".join(json.dumps(line) for line in lines)
    return http.put(
        f"/v1/policies/{policy}/catalog", content=body.encode(), headers={"Content-Type": "application/x-ndjson"}
    )


def rank(http: httpx2.Client, policy: str, **body: Any) -> dict[str, Any]:
    answer = http.post("/v1/rank", json={"policy": policy, "context": {"features": A}} | body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def order(answer: dict[str, Any]) -> list[str]:
    return [each["id"] for each in answer["ranking"]]


def packed(*numbers: float) -> str:
    return base64.b64encode(np.array(numbers, "<f4").tobytes()).decode()


def exported(http: httpx2.Client, policy: str) -> dict[str, dict[str, Any]]:
    """The journal's decisions of a policy by id."""
    lines = http.get("/v1/export", params={"policy": policy, "format": "decisions"}).text.splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}
