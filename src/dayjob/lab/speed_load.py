"""Load on an HTTP server: by wrk where it is installed, else by a client of our own, which takes more of the machine.

Bodies are the lines of a file, sent in order and, after the last, again from the first. In a line every ``@`` becomes a
random base64 digit: a vector whose bytes hold some is another one in every request.
"""

import asyncio
import json
import random
import re
import shutil
import string
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from dayjob.endings import DayjobError

DIGITS = string.ascii_letters + string.digits + "+/"
LUA = """
local bodies, digits, at = {}, "%s", 0
function init(arguments)
  for line in io.lines(arguments[1]) do bodies[#bodies + 1] = line end
  math.randomseed(os.time())
end
local function digit() local n = math.random(64); return digits:sub(n, n) end
function request()
  at = at %% #bodies + 1
  local body = bodies[at]
  if body:find("@", 1, true) then body = body:gsub("@", digit) end
  return wrk.format("POST", nil, {["Content-Type"] = "application/json"}, body)
end
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\\nRESULT {"requests": %%d, "seconds": %%f, "errors": %%d, "p50_ms": %%f, "p99_ms": %%f}\\n',
    summary.requests, summary.duration / 1e6, errors.status + errors.connect + errors.read + errors.write
    + errors.timeout, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a load came to. ``errors``: answers of 400 and above, and connections that broke."""

    requests: int
    seconds: float
    errors: int
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


def client_name() -> str:
    """What makes the load on this machine."""
    return "wrk" if shutil.which("wrk") else "asyncio"


def load(url: str, bodies: Path, *, connections: int, seconds: float) -> Load:
    """POST the bodies to ``url`` for so long over so many connections."""
    if shutil.which("wrk"):
        return _wrk(url, bodies, connections=connections, seconds=seconds)
    return asyncio.run(_own(url, bodies.read_text().splitlines(), connections=connections, seconds=seconds))


def _wrk(url: str, bodies: Path, *, connections: int, seconds: float) -> Load:
    script = bodies.with_suffix(".lua")
    script.write_text(LUA % DIGITS)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "20s", "-s", str(script)]
    ended = subprocess.run([*command, url, "--", str(bodies)], capture_output=True, text=True)
    found = re.search(r"RESULT (\{.*\})", ended.stdout)
    if found is None:
        raise DayjobError(f"wrk failed: {ended.stdout[-500:]} {ended.stderr[-500:]}")
    return Load(**json.loads(found[1]))


async def _own(url: str, bodies: list[str], *, connections: int, seconds: float) -> Load:
    at, waits, errors, place = urlsplit(url), list[float](), 0, 0
    head = f"POST {at.path} HTTP/1.1\r\nHost: {at.netloc}\r\nContent-Type: application/json\r\nContent-Length: "
    ends = time.perf_counter() + seconds

    async def one() -> None:
        nonlocal errors, place
        reader, writer = await asyncio.open_connection(at.hostname, at.port)
        while (began := time.perf_counter()) < ends:
            place = (place + 1) % len(bodies)
            body = re.sub("@", lambda _: random.choice(DIGITS), bodies[place]).encode()
            writer.write(f"{head}{len(body)}\r\n\r\n".encode() + body)
            told = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", told)
            await reader.readexactly(int(length[1]) if length else 0)
            errors += told[9:10] not in (b"2", b"3")
            waits.append(time.perf_counter() - began)
        writer.close()
        await writer.wait_closed()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(connections)))
    took_s = time.perf_counter() - began
    waits.sort()
    return Load(
        requests=len(waits),
        seconds=took_s,
        errors=errors,
        p50_ms=1000 * waits[len(waits) // 2],
        p99_ms=1000 * waits[int(len(waits) * 0.99)],
    )
