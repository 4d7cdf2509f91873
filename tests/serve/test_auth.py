"""Keys, tokens, cookies and the browser's origin: what opens, and everything that must not."""

import hashlib
import string
import uuid
from http.cookies import SimpleCookie

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dayjob.endings import Forbidden, Invalid, OutcomeKind
from dayjob.serve import auth
from dayjob.serve.auth import Scope

SECRET = bytes(range(32))
DECISION = uuid.UUID("0190a1b2-0000-7000-8000-000000000001")
KEYS_TOML = f"""
[[key]]
key = "alpha-key"
tenant = "acme"
scopes = ["infer", "feedback"]

[[key]]
sha256 = "{hashlib.sha256(b"beta-key").hexdigest()}"
tenant = "acme"
scopes = ["admin"]

[[key]]
key = "gamma-key"
tenant = "other"
scopes = ["infer"]
user = "u1"
"""
KEYS = auth.parse_keys(KEYS_TOML, source="keys.toml")
HERE = {"host": "127.0.0.1:8080"}


def identify(headers: dict[str, str], now_s: int = 1_000) -> auth.Principal:
    return auth.identify(KEYS, headers, secret=SECRET, now_s=now_s)


def test_a_key_opens_what_it_says_and_no_more():
    alpha = identify({"authorization": "Bearer alpha-key"})
    assert (alpha.tenant, alpha.user) == ("acme", None)
    auth.require(alpha, Scope.INFER)
    with pytest.raises(Forbidden, match="needs the scope learn"):
        auth.require(alpha, Scope.LEARN)
    gamma = identify({"authorization": "bearer gamma-key"})
    assert (gamma.tenant, gamma.user) == ("other", "u1")


def test_a_hashed_key_opens_and_admin_implies_every_scope():
    beta = identify({"authorization": "Bearer beta-key"})
    for scope in Scope:
        auth.require(beta, scope)


@pytest.mark.parametrize(
    "header",
    [
        "Bearer alpha-ke",
        "Bearer alpha-key2",
        "Bearer ",
        "Bearer",
        "",
        "Basic alpha-key",
        "alpha-key",
        "Bearer \ud800",
        "Bearer é",
        "Bearer " + hashlib.sha256(b"beta-key").hexdigest(),
    ],
)
def test_an_unknown_key_opens_nothing(header):
    with pytest.raises(auth.Unauthenticated, match="Authorization: Bearer KEY"):
        identify({"authorization": header})


def test_no_key_at_all_is_unauthenticated_even_from_this_machine():
    with pytest.raises(auth.Unauthenticated):
        identify(dict(HERE))


def test_every_key_is_compared_whichever_matches(monkeypatch):
    seen = []
    real = auth.hmac.compare_digest
    monkeypatch.setattr(auth.hmac, "compare_digest", lambda a, b: seen.append(a) or real(a, b))
    assert auth.find_key(KEYS, "alpha-key") is not None
    assert seen == [key.sha256 for key in KEYS]


def test_key_ids_are_stable_distinct_and_tell_nothing():
    ids = [key.principal.key_id for key in KEYS]
    assert len(set(ids)) == 3
    assert ids == [key.principal.key_id for key in auth.parse_keys(KEYS_TOML, source="again")]
    assert not any(key.sha256.hex().startswith(key.principal.key_id) for key in KEYS)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("", "must hold \\[\\[key\\]\\]"),
        ("key = 1", "must hold \\[\\[key\\]\\]"),
        ("key = []", "must hold \\[\\[key\\]\\]"),
        ("[[key", "is not TOML"),
        ("key = [1]", "number 1 is not a table"),
        ('[[key]]\nkey="secret-one"\ntenant="a"\nscopes=["infer"]\nother=1', "unknown field 'other'"),
        ('[[key]]\ntenant="a"\nscopes=["infer"]', "exactly one of key and sha256"),
        ('[[key]]\nkey="secret-one"\nsha256="00"\ntenant="a"\nscopes=["infer"]', "exactly one of key and sha256"),
        ('[[key]]\nsha256="00"\ntenant="a"\nscopes=["infer"]', "64 hex digits"),
        ('[[key]]\nkey="secret one"\ntenant="a"\nscopes=["infer"]', "without spaces"),
        ('[[key]]\nkey=7\ntenant="a"\nscopes=["infer"]', "printable ASCII"),
        ('[[key]]\nkey="secret-one"\nscopes=["infer"]', "needs tenant"),
        ('[[key]]\nkey="secret-one"\ntenant="../a"\nscopes=["infer"]', "needs tenant"),
        ('[[key]]\nkey="secret-one"\ntenant="a"', "needs scopes"),
        ('[[key]]\nkey="secret-one"\ntenant="a"\nscopes=[]', "needs scopes"),
        ('[[key]]\nkey="secret-one"\ntenant="a"\nscopes=["root"]', "needs scopes"),
        ('[[key]]\nkey="secret-one"\ntenant="a"\nscopes=[["infer"]]', "needs scopes"),
        ('[[key]]\nkey="secret-one"\ntenant="a"\nscopes=["infer"]\nuser=""', "user must be"),
        ('[[key]]\nkey="secret-one"\ntenant="a"\nscopes=["infer"]\n' * 2, "the same key twice"),
    ],
)
def test_a_wrong_keys_file_is_refused_with_the_remedy_and_without_the_key(text, remedy):
    with pytest.raises(Invalid, match=remedy) as refused:
        auth.parse_keys(text, source="keys.toml")
    assert "secret" not in str(refused.value)
    assert str(refused.value).startswith("keys.toml")


def test_a_users_key_speaks_for_that_user_only():
    gamma, alpha = identify({"authorization": "Bearer gamma-key"}), identify({"authorization": "Bearer alpha-key"})
    assert auth.speaks_for(gamma, None) == auth.speaks_for(gamma, "u1") == "u1"
    with pytest.raises(Forbidden, match="leave user out"):
        auth.speaks_for(gamma, "u2")
    assert auth.speaks_for(alpha, "u2") == "u2"
    assert auth.speaks_for(alpha, None) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "LOCALHOST", "::1", "[::1]"])
def test_loopback_needs_no_keys(host):
    auth.check_bind(host, has_keys=False)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "10.0.0.1", "example.org", "localhost.example.org", "127.0.0.1.nip.io"]
)
def test_any_other_bind_needs_keys(host):
    with pytest.raises(Invalid, match="keys file"):
        auth.check_bind(host, has_keys=False)
    auth.check_bind(host, has_keys=True)


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "127.0.0.1:8080"},
        {"host": "localhost"},
        {"host": "[::1]:8080"},
        {"host": "localhost:8080", "origin": "http://localhost:8080"},
        {"host": "localhost", "origin": "http://localhost:80"},
        {"host": "localhost:8080", "origin": "http://localhost:8080", "sec-fetch-site": "same-origin"},
        {"host": "localhost:8080", "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
        {"host": "localhost:8080", "sec-fetch-site": "none"},
    ],
)
def test_without_keys_this_machine_is_let_in(headers):
    assert auth.identify((), headers, secret=SECRET, now_s=0) is auth.LOCAL


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": ""},
        {"host": "evil.example:8080"},
        {"host": "127.0.0.1.evil.example"},
        {"host": "127.0.0.1/evil"},
        {"host": "evil.example#@127.0.0.1"},
        {"host": "[::1"},
        {"host": "192.168.1.4:8080"},
        {"host": "localhost:8080", "origin": "http://evil.example"},
        {"host": "localhost:8080", "origin": "http://localhost:9090"},
        {"host": "localhost:8080", "origin": "http://127.0.0.1:8080"},
        {"host": "localhost:8080", "origin": "null"},
        {"host": "localhost:8080", "origin": ""},
        {"host": "localhost:8080", "origin": "http://[localhost:8080"},
        {"host": "localhost:8080", "origin": "file://localhost:8080"},
        {"host": "localhost:8080", "sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"},
        {"host": "localhost:8080", "sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"},
    ],
)
def test_without_keys_other_names_and_other_pages_are_kept_out(headers):
    with pytest.raises(Forbidden):
        auth.identify((), headers, secret=SECRET, now_s=0)


def token(expires_s: int = 2_000, tenant: str = "acme") -> str:
    return auth.mint_token(SECRET, tenant=tenant, decision=DECISION, expires_s=expires_s)


def check(text: str, *, secret=SECRET, decision=DECISION, kind=OutcomeKind.CLICK, now_s=1_000) -> auth.Principal:
    return auth.check_token(secret, text, decision=decision, kind=kind, now_s=now_s)


@pytest.mark.parametrize("kind", sorted(auth.TOKEN_KINDS))
def test_a_token_gives_feedback_on_its_decision(kind):
    principal = check(token(), kind=kind)
    assert principal.tenant == "acme"
    assert principal.scopes == {Scope.FEEDBACK}
    assert principal.user is None
    assert str(DECISION) in principal.key_id


@pytest.mark.parametrize("kind", sorted(frozenset(OutcomeKind) - auth.TOKEN_KINDS))
def test_a_token_gives_no_other_feedback(kind):
    with pytest.raises(Forbidden, match="needs a key"):
        check(token(), kind=kind)


def test_exactly_the_kinds_of_the_contract_need_no_key():
    assert sorted(auth.TOKEN_KINDS) == ["accept", "click", "none", "reject", "thumb"]


def test_a_token_ends_and_fits_one_decision_and_one_secret():
    check(token(expires_s=1_001), now_s=1_000)
    with pytest.raises(Forbidden, match="expired"):
        check(token(expires_s=1_000), now_s=1_000)
    with pytest.raises(Forbidden, match="another decision"):
        check(token(), decision=uuid.UUID(int=DECISION.int ^ 1))
    with pytest.raises(Forbidden, match="another decision"):
        check(token(), decision=None)
    with pytest.raises(Forbidden, match="not made here"):
        check(token(), secret=bytes(32))


@given(at=st.integers(0, len(token()) - 1), to=st.sampled_from(string.ascii_letters + string.digits + "-_=+/ é\x00"))
def test_a_token_changed_anywhere_is_refused(at, to):
    good = token()
    if good[at] != to:
        with pytest.raises(Forbidden):
            check(good[:at] + to + good[at + 1 :])


@given(st.text(max_size=200))
def test_any_other_text_is_refused_as_a_token(text):
    with pytest.raises(Forbidden):
        check(text)


@given(cut=st.integers(0, len(token()) - 1), tail=st.sampled_from(["", "=", "==", "A", " ", "\n"]))
def test_a_token_cut_or_extended_is_refused(cut, tail):
    with pytest.raises(Forbidden):
        check(token()[:cut] + tail)
    if tail:
        with pytest.raises(Forbidden):
            check(token() + tail)


def login(now_s: int = 1_000, ttl_s: int = 100, *, at: int = 0) -> tuple[str, str]:
    """The Set-Cookie value, and the Cookie header that a browser makes of it."""
    value = auth.login_cookie(SECRET, KEYS[at].principal, now_s=now_s, ttl_s=ttl_s, secure=True)
    morsel = SimpleCookie(value)[auth.COOKIE_NAME]
    return value, f"theme=dark; {auth.COOKIE_NAME}={morsel.value}"


def test_a_login_stands_for_its_key_on_the_servers_own_pages():
    value, cookie = login(at=1)
    assert identify({**HERE, "cookie": cookie}, now_s=1_099) == KEYS[1].principal
    assert {"HttpOnly", "SameSite=Strict", "Secure", "Path=/", "Max-Age=100"} <= set(value.split("; "))
    for elsewhere in ({"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"}):
        with pytest.raises(Forbidden, match="another"):
            identify({**HERE, "cookie": cookie, **elsewhere})


def test_a_login_ends_with_time_logout_and_the_withdrawal_of_its_key():
    _, cookie = login()
    with pytest.raises(auth.Unauthenticated, match="log in again"):
        identify({**HERE, "cookie": cookie}, now_s=1_100)
    with pytest.raises(auth.Unauthenticated, match="log in again"):
        auth.identify(KEYS[1:], {**HERE, "cookie": cookie}, secret=SECRET, now_s=1_000)
    logout = SimpleCookie(auth.logout_cookie(secure=False))[auth.COOKIE_NAME]
    assert (logout.value, logout["max-age"], logout["secure"]) == ("", "0", "")


@given(st.data())
def test_a_changed_login_is_refused(data):
    _, cookie = login()
    at = data.draw(st.integers(cookie.index("=", 12) + 1, len(cookie) - 1))
    to = data.draw(st.sampled_from(string.ascii_letters + string.digits + "-_"))
    if cookie[at] != to:
        with pytest.raises(auth.Unauthenticated):
            identify({**HERE, "cookie": cookie[:at] + to + cookie[at + 1 :]})


def test_a_token_is_no_login_and_a_login_is_no_token():
    with pytest.raises(auth.Unauthenticated):
        identify({**HERE, "cookie": f"{auth.COOKIE_NAME}={token()}"})
    with pytest.raises(Forbidden):
        check(login()[1].rpartition("=")[2])


@given(st.text(max_size=100))
def test_no_cookie_header_breaks_the_server(text):
    with pytest.raises(auth.Unauthenticated):
        identify({**HERE, "cookie": text})
