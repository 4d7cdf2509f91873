"""Who may do what: keys, feedback tokens and the dashboard's cookie, as pure functions of bytes, headers and the clock.

- With keys, a request is its key's or its cookie's; without, the server is open to this machine only, and ``Host`` and
  ``Origin`` keep other pages in the same browser out.
- Keys are kept and compared as SHA-256, all of them each time, in constant time; none is ever printed.
- Tokens and cookies carry an HMAC under a secret of the data directory, each purpose under a key derived for it, so
  that one can never be passed off as the other. They name no key by its text, only by its id.

Headers are a mapping with lower-case names. Time is an argument: whole seconds since the epoch.
"""

import base64
import functools
import hashlib
import hmac
import ipaddress
import re
import struct
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

from dayjob.endings import Forbidden, Invalid, OutcomeKind

COOKIE_NAME: Final = "dayjob_login"
LOCAL_TENANT: Final = "default"
# What a browser that was shown one decision may say about it.
TOKEN_KINDS: Final = frozenset(
    {OutcomeKind.CLICK, OutcomeKind.NONE, OutcomeKind.ACCEPT, OutcomeKind.REJECT, OutcomeKind.THUMB}
)
_TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HEX_SHA256: Final = re.compile(r"[0-9a-fA-F]{64}")
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::[0-9]{1,5})?")
_MAX_USER_CHARS: Final = 256
_KEY_ID_CHARS: Final = 12
_MAC_BYTES: Final = 32
_TOKEN_HEAD: Final = struct.Struct(">Q16s")  # expiry, decision; the tenant's name follows
_COOKIE_HEAD: Final = struct.Struct(">Q")  # expiry; the key's id follows


class Unauthenticated(Forbidden):
    """Nobody we know: 401, where its parent, someone we know who may not, is 403."""


class Scope(StrEnum):
    """What a key may do."""

    INFER = "infer"  # rank and chat
    FEEDBACK = "feedback"  # say what came of it
    LEARN = "learn"  # start learning, read reports
    ADMIN = "admin"  # everything


_SCOPES: Final = frozenset(Scope)


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """On whose behalf a request is. ``user`` None: may speak for any user of the tenant."""

    tenant: str
    scopes: frozenset[Scope]
    user: str | None
    key_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A configured key: its SHA-256 and whom it stands for."""

    sha256: bytes
    principal: Principal


LOCAL: Final = Principal(tenant=LOCAL_TENANT, scopes=_SCOPES, user=None, key_id="local")


def parse_keys(text: str, *, source: str) -> tuple[Key, ...]:
    """The keys of a TOML document: ``[[key]]`` with ``key`` or ``sha256``, ``tenant``, ``scopes``, optional ``user``.

    Raises:
        Invalid: what is wrong, in which entry of ``source``, and the remedy. No message contains a key.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # The parser's message names a place, and for some errors a character, but never a whole value.
        raise Invalid(f"{source} is not TOML ({error}); write [[key]] with key, tenant and scopes") from None
    entries = document.pop("key", None)
    if document or not isinstance(entries, list) or not entries:
        raise Invalid(f"{source} must hold [[key]] tables and nothing else; add one, or start without a keys file")
    keys = tuple(_parse_key(entry, where=f"{source}, [[key]] number {at}") for at, entry in enumerate(entries, start=1))
    if len({key.sha256 for key in keys}) != len(keys):
        raise Invalid(f"{source} holds the same key twice; make one of them anew")
    return keys


def _parse_key(entry: Any, *, where: str) -> Key:
    if not isinstance(entry, dict):
        raise Invalid(f"{where} is not a table; write [[key]] above its fields")
    unknown = sorted(entry.keys() - {"key", "sha256", "tenant", "scopes", "user"})
    if unknown:
        raise Invalid(f"{where} has the unknown field {unknown[0]!r}; known are key or sha256, tenant, scopes, user")
    digest = _key_digest(entry, where=where)
    tenant, user, scopes = entry.get("tenant"), entry.get("user"), entry.get("scopes")
    if not isinstance(tenant, str) or not _TENANT.fullmatch(tenant):
        raise Invalid(f"{where} needs tenant: letters, digits, dot, dash and underscore, 64 at most")
    if user is not None and not (isinstance(user, str) and user.isprintable() and 1 <= len(user) <= _MAX_USER_CHARS):
        raise Invalid(f"{where}: user must be 1 to {_MAX_USER_CHARS} printable characters, or left out")
    if (
        not isinstance(scopes, list)
        or not scopes
        or not all(isinstance(scope, str) and scope in _SCOPES for scope in scopes)
    ):
        raise Invalid(f"{where} needs scopes: a list out of {', '.join(Scope)}")
    key_id = hashlib.sha256(b"dayjob key id" + digest).hexdigest()[:_KEY_ID_CHARS]
    granted = frozenset(Scope(scope) for scope in scopes)
    return Key(sha256=digest, principal=Principal(tenant=tenant, scopes=granted, user=user, key_id=key_id))


def _key_digest(entry: Mapping[str, Any], *, where: str) -> bytes:
    key, sha256 = entry.get("key"), entry.get("sha256")
    if (key is None) == (sha256 is None):
        raise Invalid(f"{where} needs exactly one of key and sha256 (the hex SHA-256 of the key)")
    if key is None:
        if not isinstance(sha256, str) or not _HEX_SHA256.fullmatch(sha256):
            raise Invalid(f"{where}: sha256 must be 64 hex digits; printf %s KEY | sha256sum prints them")
        return bytes.fromhex(sha256)
    if not isinstance(key, str) or not key or not key.isascii() or not key.isprintable() or " " in key:
        raise Invalid(f"{where}: key must be printable ASCII without spaces; openssl rand -hex 32 makes one")
    return hashlib.sha256(key.encode()).digest()


def check_bind(host: str, *, has_keys: bool) -> None:
    """Raises Invalid when a server without keys would be reachable from other machines."""
    if not has_keys and not _is_loopback(host):
        raise Invalid(
            f"{host!r} is reachable from elsewhere and there are no keys; bind 127.0.0.1, or configure a keys file",
            param="host",
        )


def identify(keys: tuple[Key, ...], headers: Mapping[str, str], *, secret: bytes, now_s: int) -> Principal:
    """The principal of a request: its bearer key's, else its cookie's, or LOCAL on a server without keys.

    Raises:
        Unauthenticated: no key or cookie, or one that we do not know.
        Forbidden: a page of another origin is behind the request.
    """
    if not keys:
        check_local(headers)
        return LOCAL
    if "authorization" in headers:
        return _bearer(keys, headers["authorization"])
    cookie = _cookie_value(headers.get("cookie", ""))
    if cookie:
        check_same_origin(headers)
        return _check_cookie(keys, cookie, secret=secret, now_s=now_s)
    raise Unauthenticated("this server needs a key; send Authorization: Bearer KEY")


def find_key(keys: Iterable[Key], text: str) -> Principal | None:
    """Whose key ``text`` is. Every key is compared, in constant time, whether or not one has matched."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    found: Principal | None = None
    for key in keys:
        if hmac.compare_digest(key.sha256, digest):
            found = key.principal
    return found


def _bearer(keys: tuple[Key, ...], authorization: str) -> Principal:
    scheme, _, text = authorization.partition(" ")
    principal = find_key(keys, text.strip()) if scheme.lower() == "bearer" else None
    if principal is None:
        raise Unauthenticated("this key is not known here; send Authorization: Bearer KEY with a key of the keys file")
    return principal


def require(principal: Principal, scope: Scope) -> None:
    """Raises Forbidden unless the principal has the scope; admin has every one."""
    if scope not in principal.scopes and Scope.ADMIN not in principal.scopes:
        has = ", ".join(sorted(principal.scopes))
        raise Forbidden(f"this needs the scope {scope}, and the key has {has}; use another key or add it to this one")


def require_for_others(principal: Principal, scope: Scope) -> None:
    """Raises Forbidden where a key that speaks for nobody in particular lacks the scope that this takes of it."""
    if scope not in principal.scopes and Scope.ADMIN not in principal.scopes:
        raise Forbidden(f"this key speaks for anybody: use the person's own key here, or one of scope {scope}")


def speaks_for(principal: Principal, user: str | None) -> str | None:
    """The user a request is about: the body's where the key may speak for anyone, else the key's own.

    Raises:
        Forbidden: the key speaks for one user and the request names another.
    """
    if principal.user is None or user is None or user == principal.user:
        return principal.user or user
    raise Forbidden("this key speaks for one user only, and the request names another; leave user out")


def check_local(headers: Mapping[str, str]) -> None:
    """Raises Forbidden when a page of another origin, or a name that merely resolves here, is behind the request."""
    host = headers.get("host", "")
    if not _is_loopback(_hostname(host)):
        raise Forbidden(
            "without keys this server answers to localhost, 127.0.0.1 and [::1] only; use one of them as host"
        )
    check_same_origin(headers)


def check_same_origin(headers: Mapping[str, str]) -> None:
    """Raises Forbidden when a browser says that a page of another origin made the request."""
    host, origin = headers.get("host", "").lower(), headers.get("origin")
    if origin is not None:
        parts = _split(origin)
        if (
            parts is None
            or parts[0] not in ("http", "https")
            or _with_port(parts[1], parts[0]) != _with_port(host, parts[0])
        ):
            raise Forbidden(
                "the request comes from a page of another origin; call from the server's own pages or use a key"
            )
    site, mode = headers.get("sec-fetch-site", "none"), headers.get("sec-fetch-mode", "")
    # Following a link from elsewhere only opens a page; what a page would then do comes from its own origin.
    if site not in ("none", "same-origin") and mode != "navigate":
        raise Forbidden("the request comes from a page of another site; call from the server's own pages or use a key")


def _split(origin: str) -> tuple[str, str] | None:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    return parts.scheme, parts.netloc.lower()


def _with_port(netloc: str, scheme: str) -> str:
    has_port = netloc.rpartition(":")[2].isdigit() and not netloc.endswith("]")
    return netloc if has_port else f"{netloc}:{443 if scheme == 'https' else 80}"


def _hostname(host: str) -> str:
    match = _HOST.fullmatch(host)
    return match[1] if match else ""


@functools.lru_cache(maxsize=64)
def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def mint_token(secret: bytes, *, tenant: str, decision: UUID, expires_s: int) -> str:
    """A token with which anyone may give feedback on one decision until ``expires_s``."""
    return _seal(secret, b"feedback token", _TOKEN_HEAD.pack(expires_s, decision.bytes) + tenant.encode())


def check_token(secret: bytes, token: str, *, decision: UUID | None, kind: OutcomeKind, now_s: int) -> Principal:
    """The principal of a feedback token: its tenant, the scope feedback, and a ``key_id`` of its own.

    Raises:
        Forbidden: altered, expired, for another decision, or of a kind that needs a key.
    """
    body = _open(secret, b"feedback token", token)
    if body is None or len(body) <= _TOKEN_HEAD.size:
        raise Forbidden("this token was not made here; send the token that came with the ranking, unchanged")
    expires_s, decision_bytes = _TOKEN_HEAD.unpack_from(body)
    if decision is None or decision.bytes != decision_bytes:
        raise Forbidden("this token is for another decision; send the token that came with this one")
    if now_s >= expires_s:
        raise Forbidden("this token has expired; send the feedback with a key")
    if kind not in TOKEN_KINDS:
        raise Forbidden(f"{kind} needs a key; with a token send {', '.join(sorted(TOKEN_KINDS))}")
    tenant = body[_TOKEN_HEAD.size :].decode()
    return Principal(tenant=tenant, scopes=frozenset({Scope.FEEDBACK}), user=None, key_id=f"token:{decision}")


def login_cookie(secret: bytes, principal: Principal, *, now_s: int, ttl_s: int, secure: bool) -> str:
    """The ``Set-Cookie`` value that logs a browser in. It names the key by id: withdrawing the key ends the login."""
    sealed = _seal(secret, b"login cookie", _COOKIE_HEAD.pack(now_s + ttl_s) + principal.key_id.encode())
    return _set_cookie(sealed, max_age_s=ttl_s, secure=secure)


def logout_cookie(*, secure: bool) -> str:
    """The ``Set-Cookie`` value that logs a browser out."""
    return _set_cookie("", max_age_s=0, secure=secure)


def _set_cookie(value: str, *, max_age_s: int, secure: bool) -> str:
    guard = "; Secure" if secure else ""
    return f"{COOKIE_NAME}={value}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Strict{guard}"


def _cookie_value(header: str) -> str:
    try:
        morsel = SimpleCookie(header).get(COOKIE_NAME)
    except CookieError:
        return ""
    return morsel.value if morsel else ""


def _check_cookie(keys: tuple[Key, ...], cookie: str, *, secret: bytes, now_s: int) -> Principal:
    body = _open(secret, b"login cookie", cookie)
    if body is not None and len(body) > _COOKIE_HEAD.size and now_s < _COOKIE_HEAD.unpack_from(body)[0]:
        key_id = body[_COOKIE_HEAD.size :].decode()
        for key in keys:
            if key.principal.key_id == key_id:
                return key.principal
    raise Unauthenticated("the login has ended; log in again with a key")


def _seal(secret: bytes, purpose: bytes, body: bytes) -> str:
    return base64.urlsafe_b64encode(_mac(secret, purpose, body) + body).decode().rstrip("=")


def _open(secret: bytes, purpose: bytes, sealed: str) -> bytes | None:
    """What ``_seal`` sealed, or None. Only the exact text that was sealed opens: one token, one spelling."""
    try:
        raw = base64.urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4))
    except ValueError:
        return None
    mac, body = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
    if not hmac.compare_digest(mac, _mac(secret, purpose, body)):
        return None
    return body if _seal(secret, purpose, body) == sealed else None


def _mac(secret: bytes, purpose: bytes, body: bytes) -> bytes:
    return hmac.digest(_derived(secret, purpose), body, "sha256")


@functools.lru_cache(maxsize=16)
def _derived(secret: bytes, purpose: bytes) -> bytes:
    return hmac.digest(secret, b"dayjob " + purpose, "sha256")
