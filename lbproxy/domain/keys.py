"""The key of a request (request_key.py), read out of its head."""

from __future__ import annotations

from urllib.parse import parse_qsl

from lbproxy.domain.strategies.base import RequestView
from lbproxy.request_key import KEY_NAME, RequestKey


def key_of(key: RequestKey, request: RequestView) -> bytes:
    """What the head of a request says of it; b"" for nothing, or where it is not in the head."""
    kind = key.kind
    if kind == "header":
        found = request.headers.get(key.name, "")
    elif kind == "cookie":
        found = cookie_of(request.headers.get("cookie", ""), key.name)
    elif kind == "query":
        found = _parameter(request.query, key.name)
    elif kind == "path":
        found = request.path
    elif kind == "api_key":
        found = request.headers.get(KEY_NAME, "")
    elif kind == "host":
        found = _without_port(request.host.lower())
    else:
        return b""
    return found.encode("utf-8", "surrogateescape")


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and "]" not in port else host


def cookie_of(field: str, name: str) -> str:
    """The first cookie of that name in a Cookie field (RFC 6265 section 4.2.1), without quotes; "" for none."""
    for value in cookies_of(field, name):
        return value
    return ""


def cookies_of(field: str, name: str) -> list[str]:
    """All cookies of that name, in their order. Lines that were joined with ", " are told apart as well."""
    if name not in field:
        return []
    found = []
    for pair in field.replace(", ", "; ").split(";"):
        key, equals, value = pair.partition("=")
        if equals and key.strip(" \t") == name:
            value = value.strip(" \t")
            found.append(value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value)
    return found


def _parameter(query: str, name: str) -> str:
    if not query:
        return ""
    for key, value in parse_qsl(query, keep_blank_values=True, encoding="utf-8", errors="surrogateescape"):
        if key == name:
            return value
    return ""
