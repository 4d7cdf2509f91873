"""A language policy over a tiny random model, saved on the spot as a Hugging Face folder; and what the tests read."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai

from dayjob.lab.server import Server, running
from tests.policies.language.worlds import byte_tokenizer, tiny_model

HELLO = [{"role": "user", "content": "hello"}]
LANGUAGE = {"kind": "language", "base": "tiny"}
CONTEXT = 512  # tokens that the tiny model reads


def save_tiny(folder: Path) -> Path:
    """A random model of two layers with a tokenizer of bytes."""
    tiny_model("qwen3").save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@contextmanager
def chatting(root: Path, *, environ: dict[str, str] | None = None, arguments: tuple[str, ...] = ()) -> Iterator[Server]:
    """A server with the base "tiny"."""
    folder = save_tiny(root / "model") if not (root / "model").exists() else root / "model"
    told = {"DAYJOB_BASES": f"tiny={folder}", "OMP_NUM_THREADS": "1"} | (environ or {})
    with running(root / "data", arguments=("--no-learner", "--no-judge", *arguments), environ=told) as server:
        yield server


def openai_client(server: Server, key: str = "none") -> openai.OpenAI:
    """The official client, unchanged; a retry would hide a fault."""
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=30)


def journaled(http: httpx2.Client, policy: str, decision: str, **headers: str) -> dict[str, Any] | None:
    """A decision as the journal has it."""
    lines = http.get(f"/v1/export?policy={policy}", headers=headers).text.splitlines()
    return next((row for row in map(json.loads, lines) if row["id"] == decision), None)


def wait_for(look: Any, seconds: float = 60.0) -> Any:
    """What ``look`` finds as soon as it finds something."""
    deadline = time.monotonic() + seconds
    while (found := look()) is None:
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)
    return found


def plain_logprobs(prompt: list[int], answer: list[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """log softmax(logits)[token] by a plain forward of the same model."""
    import torch

    with torch.inference_mode():
        logit_TV = tiny_model("qwen3")(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    return logit_TV.log_softmax(1).gather(1, torch.tensor(answer)[:, None])[:, 0].numpy()
