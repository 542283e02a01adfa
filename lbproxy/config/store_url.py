"""URLs of Redis, as its own tools write them: `redis://USER:PASSWORD@HOST:PORT/DB`, `rediss://` for TLS, `unix://PATH`.

What may stand behind a question mark is named as in redis-py, so that a URL serves both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

PORT: Final = 6379
_VERIFIES: Final = ("required", "optional", "none")
_FLAGS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_LOGIN: Final = ("db", "username", "password")
_TLS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")


@dataclass(frozen=True, slots=True)
class StoreTls:
    """ca, cert, key: files, "" for the system's authorities, no certificate. verify: required, optional or none."""

    ca: str = ""
    cert: str = ""
    key: str = ""
    verify: str = "required"
    checks_name: bool = True


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """path: of a unix socket; else "", and there are host and port. user, password: "" for none. tls: None: no TLS."""

    host: str = ""
    port: int = 0
    path: str = ""
    user: str = ""
    password: str = ""
    db: int = 0
    tls: StoreTls | None = None


def read_store_url(text: str) -> StoreUrl:
    """Raises ValueError, whose text has no password."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:  # its text may have what stands before the @
        raise _no_url(text) from None
    is_socket = parts.scheme == "unix"
    is_complete = is_socket and len(parts.path) > 1 and not parts.hostname
    if parts.scheme in ("redis", "rediss"):
        is_complete = bool(parts.hostname)
    if not is_complete or parts.fragment or any(character.isspace() for character in text):
        raise _no_url(text)
    options = _options(parts, (*_LOGIN, *_TLS) if parts.scheme == "rediss" else _LOGIN)
    db = options.get("db", "" if is_socket else parts.path.lstrip("/")) or "0"
    if not (db.isascii() and db.isdecimal()):
        raise ValueError(f"the database is a number, such as redis://HOST:PORT/0, got {db!r}")
    return StoreUrl(
        "" if is_socket else str(parts.hostname),
        0 if is_socket else port or PORT,
        unquote(parts.path) if is_socket else "",
        options.get("username", unquote(parts.username or "")),
        options.get("password", unquote(parts.password or "")),
        int(db),
        _tls(options) if parts.scheme == "rediss" else None,
    )


def _no_url(text: str) -> ValueError:
    shown = text.rpartition("@")[2].partition("?")[0]
    return ValueError(f"expected redis://HOST:PORT/DB, rediss://HOST:PORT/DB or unix:///PATH, got {shown!r}")


def _options(parts: SplitResult, known: tuple[str, ...]) -> dict[str, str]:
    found = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in found:
        if name not in known:
            raise ValueError(f"{name!r} can't stand in a URL of {parts.scheme}://; what can is {', '.join(known)}")
    return found


def _tls(options: dict[str, str]) -> StoreTls:
    reqs, check = options.get("ssl_cert_reqs", "required"), options.get("ssl_check_hostname", "true").lower()
    if reqs not in _VERIFIES:
        raise ValueError(f"ssl_cert_reqs is one of {', '.join(_VERIFIES)}, got {reqs!r}")
    if check not in _FLAGS:
        raise ValueError(f"ssl_check_hostname is true or false, got {check!r}")
    ca, cert, key = (options.get(name, "") for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"))
    if key and not cert:
        raise ValueError("ssl_keyfile needs ssl_certfile")
    return StoreTls(ca, cert, key, reqs, _FLAGS[check])
