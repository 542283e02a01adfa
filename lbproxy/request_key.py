"""What a config may name as the key of a request: that on which it is hashed.

    client_ip        the client's address; domain/strategies/hashing.py says what counts as one client
    header:NAME      the field's value; several fields of the name are joined with ", "
    cookie:NAME      the first cookie of that name
    query:NAME       the first parameter of that name, percent-decoded, `+` is a space
    path             the path as it was sent, without the query
    host             Host in lower case, without its port
    api_key          the name of the client's API key (api_keys)
    json:/POINTER    a text, number or flag in the JSON body, by a JSON Pointer (RFC 6901)

A request that has no such part, or an empty one, has no key.
"""

from __future__ import annotations

import re
from typing import Final

KEY_NAME: Final = ":api-key"
"""Under this name, which no header field can have, stands the name of the API key among a request's headers."""
MAX_POINTER: Final = 16  # names in a JSON Pointer
FORMS: Final = "client_ip, header:NAME, cookie:NAME, query:NAME, path, host, api_key or json:/POINTER"

_NAMED: Final[tuple[str, ...]] = ("header", "cookie", "query")
_is_token = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_escape = re.compile(r"~(?![01])").search


class RequestKey:
    """See the module. kind: the word before the colon; name: of a field (lower case), cookie or parameter, else "".
    pointer: the names that lead to a value in the JSON body, None for another kind."""

    __slots__ = ("kind", "name", "pointer", "text")

    def __init__(self, text: str, kind: str, name: str, pointer: tuple[bytes, ...] | None) -> None:
        self.text = text
        self.kind = kind
        self.name = name
        self.pointer = pointer


def read_key(text: str) -> RequestKey:
    """The key that a config names. Raises ValueError with a sentence that says what may be written."""
    kind, colon, name = text.partition(":")
    if kind in _NAMED and colon:
        if kind == "query" and name and name.isprintable():
            return RequestKey(text, kind, name, None)
        if kind != "query" and _is_token(name):
            return RequestKey(text, kind, name.lower() if kind == "header" else name, None)
        raise ValueError(f"{text!r} lacks the name of a {_words(kind)}; such as {kind}:{_example(kind)}")
    if kind == "json" and colon:
        return RequestKey(text, kind, "", _pointer(text, name))
    if text in ("client_ip", "path", "host", "api_key"):
        return RequestKey(text, text, "", None)
    raise ValueError(f"expected {FORMS}, got {text!r}{_meant(text)}")


def read_pointer(text: str) -> tuple[bytes, ...]:
    """The names of a JSON Pointer. Raises ValueError with a sentence."""
    if not text.startswith("/"):
        raise ValueError(f"{text!r} is no JSON Pointer: it begins with /; did you mean /{text}?")
    return _pointer(text, text)


def _pointer(text: str, pointer: str) -> tuple[bytes, ...]:
    if not pointer.startswith("/"):
        raise ValueError(f"{text!r} is no JSON Pointer: it begins with /; did you mean json:/{pointer}?")
    if _escape(pointer):
        raise ValueError(f"{text!r} is no JSON Pointer: write ~0 for ~, and ~1 for / within a name")
    names = pointer[1:].split("/")
    if len(names) > MAX_POINTER:
        raise ValueError(f"{text!r} has more than {MAX_POINTER} names")
    return tuple([name.replace("~1", "/").replace("~0", "~").encode("utf-8", "surrogateescape") for name in names])


def _words(kind: str) -> str:
    return {"header": "header field", "query": "parameter"}.get(kind, kind)


def _example(kind: str) -> str:
    return {"header": "X-Session", "cookie": "session"}.get(kind, "user")


def _meant(text: str) -> str:
    if text.startswith("/"):
        return f"; did you mean json:{text}?"
    word = text.lower().replace("-", "_")
    for ours, others in _MEANT:
        if word in others:
            return f"; did you mean {ours}?"
    return ""


_MEANT: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("client_ip", ("ip", "src", "source", "source_ip", "client", "remote_addr", "address", "clientip")),
    ("path", ("uri", "url", "request_uri")),
    ("host", ("hostname", "authority", "domain")),
    ("api_key", ("key", "apikey", "consumer", "user", "token", "api_keys")),
    ("json:/model", ("model", "body", "json")),
)
