"""What no client library would send: malformed, truncated, endless and slow requests over bare sockets."""

import contextlib
import json
import socket
import statistics
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx2
import pytest

from dayjob.lab.server import Server, running

RANKER = {"kind": "ranker", "context_dim": 2, "candidate_dim": 2}
ASK = {"policy": "geo", "context": {"features": [1, 0]}, "candidates": [{"id": "a", "features": [1, 0]}]}
HEAD = b"POST /v1/rank HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
LIMIT, MIB = 1_000_000, 1 << 20


LINE = b"GET /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\n"
MALFORMED = [
    b"\r\n\r\n\r\n",
    b"\x00\x01\x02\x03",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET  /  HTTP/1.1\r\n\r\n",
    b"get / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost\r\n\r\n",
    b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /\xff\xfe HTTP/1.1\r\n\r\n",
    b"GET /%zz%00 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"TRACE / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    LINE + b"A\x00B: c\r\n\r\n",
    LINE + b"A: b\x00c\r\n\r\n",
    LINE + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    LINE + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM\r\n\r\n",
    HEAD + b"Content-Length: -1\r\n\r\n",
    HEAD + b"Content-Length: 1e9\r\n\r\n",
    HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n",
    HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
    HEAD + b"Transfer-Encoding: gzip\r\n\r\n",
]
DEEP = [b"[" * 400_000, b'{"a":' * 100_000, b'{"context":' * 50_000 + b"{}" + b"}" * 50_000]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("raw") / "data", environ={"DAYJOB_BODY_LIMIT_BYTES": str(LIMIT)}) as one:
        assert httpx2.put(f"{one.url}/v1/policies/geo", json=RANKER).status_code == 201
        yield one


@pytest.fixture(autouse=True)
def lives_on(server: Server) -> Iterator[None]:
    """Whatever was sent, the next client is served, and nothing unexpected was logged."""
    yield
    assert httpx2.post(f"{server.url}/v1/rank", json=ASK, timeout=30).status_code == 200
    assert "Traceback" not in server.log.read_text()


def connect(server: Server) -> socket.socket:
    at = urlsplit(server.url)
    return socket.create_connection((at.hostname, at.port), timeout=5)


def received(sock: socket.socket, *, until_s: float = 5.0) -> bytes:
    """What comes back until the connection closes, or until an answer with its body is there."""
    parts, ends = b"", time.monotonic() + until_s
    with contextlib.suppress(TimeoutError, ConnectionResetError):
        while time.monotonic() < ends:
            part = sock.recv(65_536)
            if not part:
                break
            parts += part
            head, gap, body = parts.partition(b"\r\n\r\n")
            length = [
                line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
            ]
            if gap and length and len(body) >= int(length[0]):
                break
    return parts


def exchange(server: Server, *sent: bytes) -> bytes:
    with connect(server) as sock:
        for each in sent:
            sock.sendall(each)
        sock.shutdown(socket.SHUT_WR)
        return received(sock)


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


@pytest.mark.parametrize("sent", MALFORMED)
def test_malformed_requests_are_refused_and_never_a_5xx(server, sent):
    assert status(exchange(server, sent)) in (0, 400, 403, 404, 405, 411, 413, 415, 422)


def test_a_truncated_body_changes_nothing(server):
    body = json.dumps(ASK).encode()
    before = httpx2.get(f"{server.url}/v1/policies/geo").json()["counts"]["decisions"]
    for cut in (0, 1, len(body) // 2, len(body) - 1):
        assert status(exchange(server, HEAD + b"Content-Length: %d\r\n\r\n" % len(body), body[:cut])) in (0, 400)
        assert status(exchange(server, HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body), body[:cut])) in (
            0,
            400,
        )
    assert httpx2.get(f"{server.url}/v1/policies/geo").json()["counts"]["decisions"] == before


def test_pipelined_requests_are_answered_in_order(server):
    body = json.dumps(ASK).encode()
    one = HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    with connect(server) as sock:
        sock.sendall(one * 3 + b"GET /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        told = b""
        while part := sock.recv(65_536):
            told += part
    assert [int(each[:3]) for each in told.split(b"HTTP/1.1 ")[1:]] == [200, 200, 200, 404]


@pytest.mark.parametrize(
    "path", ["/v1/rank", "/v1/feedback", "/v1/policies/geo/learn", "/v1/policies/x", "/v1/users/u"]
)
@pytest.mark.parametrize(
    "nested", [b"[" * 400_000, b'{"a":' * 100_000, b'{"context":' * 50_000 + b"{}" + b"}" * 50_000]
)
def test_deep_json_is_422(server, path, nested):
    method = {"/v1/policies/x": "PUT", "/v1/users/u": "PATCH"}.get(path, "POST")
    headers = {"Content-Type": "application/json"}
    assert httpx2.request(method, server.url + path, content=nested, headers=headers).status_code == 422


def test_a_deep_value_inside_a_body_that_fits_is_422(server):
    deep = b"[" * 300 + b"]" * 300
    body = json.dumps(ASK).encode().replace(b'"id": "a"', b'"id": "a", "meta": {"x": %s}' % deep)
    answer = httpx2.post(f"{server.url}/v1/rank", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422


def test_a_declared_huge_body_is_413_before_it_is_sent(server):
    with connect(server) as sock:
        sock.sendall(HEAD + b"Content-Length: 10000000000\r\n\r\n{")
        began = time.monotonic()
        assert status(received(sock)) == 413
        assert time.monotonic() - began < 4, "a body that is waited for is waited for longer"


def test_expecting_to_continue_a_huge_body_is_413_without_a_byte_of_it(server):
    with connect(server) as sock:
        sock.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 10000000000\r\n\r\n")
        assert status(received(sock)) == 413


def test_an_endless_body_is_413_and_takes_no_memory(server):
    before = server.memory_bytes()
    with connect(server) as sock:
        sock.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(OSError):
            for _ in range(64):
                sock.sendall(b"100000\r\n" + b" " * MIB + b"\r\n")
        assert status(received(sock)) == 413
    assert server.memory_bytes() - before < 24 * MIB


@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\nX-Long: ", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 100])
def test_an_endless_head_is_cut_off_and_takes_no_memory(server, start):
    before = server.memory_bytes()
    with connect(server) as sock:
        sent = len(start)
        with contextlib.suppress(OSError):
            sock.sendall(start)
            for _ in range(256):
                sock.sendall(b"a: b\r\n" * 40_000 if start.endswith(b"\r\n") else b"a" * 240_000)
                sent += 240_000
        assert sent < 40 * MIB
        assert status(received(sock)) in (0, 400, 431)
    assert server.memory_bytes() - before < 24 * MIB


def test_slow_clients_do_not_stall_the_others(server):
    """Three hundred that drip their heads or bodies: everybody else is answered, and soon on any machine."""
    waits = []
    with contextlib.ExitStack() as stack, httpx2.Client(base_url=server.url, timeout=30) as http:
        slow = [stack.enter_context(connect(server)) for _ in range(300)]
        for n, sock in enumerate(slow):
            sock.sendall(HEAD + (b"" if n % 2 else b"Content-Length: 500000\r\n\r\n{"))
        for beat in range(30):
            for n, sock in enumerate(slow):
                sock.sendall(b"X-%d: y\r\n" % beat if n % 2 else b" ")
            began = time.monotonic()
            assert http.post("/v1/rank", json=ASK).status_code == 200
            waits.append(time.monotonic() - began)
    assert max(waits) < 5, waits
    assert statistics.median(waits) < 1, waits


def test_half_sent_large_bodies_take_no_more_than_they_were_sent(server):
    before = server.memory_bytes()
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            sock = stack.enter_context(connect(server))
            sock.sendall(HEAD + b"Content-Length: 1000000\r\n\r\n" + b" " * 500_000)
        time.sleep(0.5)
        assert server.memory_bytes() - before < 80 * MIB


@pytest.mark.slow
def test_who_never_finishes_a_head_is_dropped(server):
    with connect(server) as silent, connect(server) as dripping:
        silent.settimeout(30)
        began = time.monotonic()
        with contextlib.suppress(OSError):  # reset or broken pipe, as the system has it
            dripping.sendall(b"GET / HTTP/1.1\r\n")
            while time.monotonic() - began < 30:
                dripping.sendall(b"X: y\r\n")
                time.sleep(0.5)
        assert 9 < time.monotonic() - began < 25
        assert silent.recv(1) == b""
