"""The gate of the admin address: what its head alone has refused is refused here, before aiohttp is begun for it.

Where aiohttp answers, a call costs 0.2 to 0.5 ms of the loop that serves requests, and whoever can connect can have it
say "no". Here that costs 0.1, of which most is the kernel's for the connection. The gate can only refuse: what it lets
pass is read and judged again by aiohttp and `Access`, so a head that both read differently gets nothing that it should
not. What it does not understand, it lets pass.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Collection, Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote

from lbproxy.control.access import SAFE_METHODS, Access, Refusal
from lbproxy.control.problem import PROBLEM_TYPE, problem_text

HEAD_BYTES: Final = 32 * 1024  # a longer one is for aiohttp to refuse
API: Final = "/api/"
_FIRST_LINE: Final = re.compile(rb"([A-Z]{1,16}) (/[!-\"$->@-~]*)(?:\?[!-~]*)? HTTP/1\.[01]\r\n")
_FIELD: Final = re.compile(rb"\r\n(host|origin|authorization):[ \t]*([^\r\n]*)", re.IGNORECASE)
_NOTHING_THERE: Final = "There is nothing at this path; see docs/admin.md."
_WRONG_METHOD: Final = "This path does not take this method."


def refusal(
    head: bytes,
    peer: str,
    access: Access,
    paths: Collection[str],
    full: Mapping[str, Callable[[], str | None]],
) -> bytes | None:
    """The answer, after which the connection ends, or None: aiohttp answers.

    head: up to its empty line, or longer. peer: as in `Access`. paths: all that there are outside of the API. full: why
    a path of the API takes nobody at the moment, None if it does.
    """
    found = _FIRST_LINE.match(head)
    if found is None:
        return None
    method, path = found[1].decode(), unquote(found[2].decode(), errors="replace")
    has_body = method != "HEAD"
    if not path.startswith(API):
        if path not in paths:
            return _answer(404, _NOTHING_THERE, {}, has_body=has_body)
        if method not in SAFE_METHODS:
            return _answer(405, _WRONG_METHOD, {"Allow": "GET,HEAD"}, has_body=has_body)
        return None
    fields: dict[bytes, str] = {}
    for field in _FIELD.finditer(head, found.end() - 2, max(found.end(), head.find(b"\r\n\r\n") + 2)):
        fields.setdefault(field[1].lower(), field[2].rstrip(b" \t").decode("utf-8", "surrogateescape"))
    judged = access.judge(
        method=method,
        authorization=fields.get(b"authorization"),
        host=fields.get(b"host", ""),
        origin=fields.get(b"origin"),
        peer=peer,
    )
    if isinstance(judged, Refusal):
        return _answer(judged.status, judged.detail, judged.headers, has_body=has_body)
    why_not = full[path]() if method == "GET" and path in full else None
    return None if why_not is None else _answer(503, why_not, {"Retry-After": "5"}, has_body=True)


def _answer(status: int, detail: str, headers: Mapping[str, str], *, has_body: bool) -> bytes:
    body = problem_text(status, detail).encode()
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        f"Content-Type: {PROBLEM_TYPE}; charset=utf-8",
        f"Content-Length: {len(body)}",
        f"Date: {formatdate(usegmt=True)}",
        *(f"{name}: {value}" for name, value in headers.items()),
        "Connection: close\r\n\r\n",
    ]
    return "\r\n".join(lines).encode() + (body if has_body else b"")


def peer_of(transport: asyncio.BaseTransport | None) -> str:
    """Who is at the other end: an IP address, "unix", or "" if he has left."""
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is not None and sock.family == socket.AF_UNIX:
        return "unix"
    name = transport.get_extra_info("peername") if transport is not None else None
    return str(name[0]).partition("%")[0] if isinstance(name, tuple) else ""
