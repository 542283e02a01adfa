"""The gate of the admin address: what its head alone has refused is refused here, before aiohttp is begun for it.

Where aiohttp answers, a call costs 0.2 to 0.5 ms of the loop that serves requests, and whoever can connect can have it
say "no". Here that costs a tenth. The gate can only refuse: what it lets pass is read and judged again by aiohttp and
`Access`, so a head that both read differently gets nothing that it should not. What it does not understand, it lets
pass, and says so: the door (admin_door.py) lets few of those in.

Who calls in a flood says the same again and again, so what was judged is kept for the rest of the second: judging
takes more code than all the rest of a refusal, and where a loop sleeps in between, fetching code is what takes time.
"""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Callable, Collection, Mapping
from email.utils import formatdate
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import unquote

from lbproxy.control.access import SAFE_METHODS, Access, Refusal
from lbproxy.control.problem import PROBLEM_TYPE, problem_text
from lbproxy.protocol.status import reason_of

BODY_BYTES: Final = 64 * 1024  # of a call that changes something
NO_JSON: Final = "A body is taken as application/json only."
HEAD_BYTES: Final = 32 * 1024  # a longer one is for aiohttp to refuse
API: Final = "/api/"
UNIX: Final = "unix"  # the peer of whoever calls over the unix socket
_FIRST_LINE: Final = re.compile(rb"([A-Z]{1,16}) (/[!-\"$->@-~]*)(?:\?[!-~]*)? HTTP/1\.[01]\r\n")
_FIELD: Final = re.compile(
    rb"\r\n(host|origin|authorization|content-type|content-length):[ \t]*([^\r\n]*)", re.IGNORECASE
)
_NOTHING_THERE: Final = "There is nothing at this path; see docs/admin.md."
_TOO_LARGE: Final = f"A body has at most {BODY_BYTES} bytes."
_DIGITS: Final = 18
_WRONG_METHOD: Final = "This path does not take this method."
_BODY: Final = re.compile(rb"\r\n(?:content-length:[ \t]*0*[1-9]|transfer-encoding:)", re.IGNORECASE)
PROBES: Final = frozenset(("/healthz", "/readyz"))
KEPT: Final = 64
KEPT_BYTES: Final = 1024  # a longer head is judged each time

ALLOWED: Final = "allowed"
READER: Final = "reader"
UNREAD: Final = "unread"
OPEN: Final = "open"


class Verdict(NamedTuple):
    """answer: after which the connection ends, or None: aiohttp answers.

    kind: ALLOWED: the caller has a right to an answer; READER: to one of the endless kind; OPEN: anybody has it, and it
    costs more than a probe; UNREAD: the gate can't tell. has_body: the head that is refused announces one.
    """

    answer: bytes | None
    kind: str = ALLOWED
    has_body: bool = False


Full = Callable[[], str | None]
"""Why nobody else is taken at the moment, None if somebody is."""


class Gate:
    """`judge`, and what it said in this second. full: of the kinds READER and OPEN. unix_clock: unix seconds."""

    def __init__(
        self,
        access: Access,
        paths: Collection[str],
        endless: str,
        full: Mapping[str, Full],
        unix_clock: Callable[[], float] = time.time,
    ) -> None:
        self._unix_clock = unix_clock
        self._access = access
        self._paths = paths
        self._endless = {endless: _never}
        self._full = full
        self._second = 0
        self._kept: dict[tuple[bytes, str], Verdict] = {}

    def allow(self, access: Access) -> None:
        """Others may call from the next call on."""
        self._access = access
        self._kept.clear()

    def __call__(self, head: bytes, peer: str) -> Verdict:
        second = int(self._unix_clock())  # stands in the answers
        if second != self._second:
            self._second = second
            self._kept.clear()
        verdict = self._kept.get((head, peer))
        if verdict is None:
            verdict = judge(head, peer, self._access, self._paths, self._endless)
            if len(head) <= KEPT_BYTES:
                if len(self._kept) >= KEPT:
                    self._kept.clear()
                self._kept[head, peer] = verdict
        full = self._full.get(verdict.kind)
        why_not = None if full is None else full()
        return verdict if why_not is None else self._later(why_not)

    def _later(self, why_not: str) -> Verdict:
        """These, too, are the same in a flood."""
        verdict = self._kept.get((b"", why_not))
        if verdict is None:
            verdict = self._kept[b"", why_not] = Verdict(try_later(why_not))
        return verdict


def _never() -> None:
    """`Gate` asks that itself, as it is nothing that can be kept."""


def judge(
    head: bytes,
    peer: str,
    access: Access,
    paths: Collection[str],
    full: Mapping[str, Full],
) -> Verdict:
    """What is to become of a call.

    head: up to its empty line, or longer. peer: as in `Access`. paths: all that there are outside of the API. full: why
    a path of the API takes nobody at the moment, None if it does.
    """
    verdict = _judged(head, peer, access, paths, full)
    return verdict if verdict.answer is None or _BODY.search(head) is None else verdict._replace(has_body=True)


def _judged(head: bytes, peer: str, access: Access, paths: Collection[str], full: Mapping[str, Full]) -> Verdict:
    found = _FIRST_LINE.match(head)
    if found is None:
        return Verdict(None, UNREAD)
    method, path = found[1].decode(), unquote(found[2].decode(), errors="replace")
    has_body = method != "HEAD"
    if not path.startswith(API):
        if path not in paths:
            return Verdict(_answer(404, _NOTHING_THERE, {}, has_body=has_body))
        if method not in SAFE_METHODS:
            return Verdict(_answer(405, _WRONG_METHOD, {"Allow": "GET,HEAD"}, has_body=has_body))
        if path in PROBES or peer == UNIX or access.knows(_fields(head, found.end()).get(b"authorization")):
            return Verdict(None)
        return Verdict(None, OPEN)
    fields = _fields(head, found.end())
    judged = access.judge(
        method=method,
        authorization=fields.get(b"authorization"),
        host=fields.get(b"host", ""),
        origin=fields.get(b"origin"),
        peer=peer,
    )
    if isinstance(judged, Refusal):
        return Verdict(_answer(judged.status, judged.detail, judged.headers, has_body=has_body))
    if method not in SAFE_METHODS:
        return Verdict(_body_refusal(fields))
    if method != "GET" or path not in full:
        return Verdict(None)
    why_not = full[path]()
    return Verdict(None, READER) if why_not is None else Verdict(try_later(why_not))


def _fields(head: bytes, start: int) -> dict[bytes, str]:
    """Those that the gate looks at. start: of the first field."""
    fields: dict[bytes, str] = {}
    for field in _FIELD.finditer(head, start - 2, max(start, head.find(b"\r\n\r\n") + 2)):
        fields.setdefault(field[1].lower(), field[2].rstrip(b" \t").decode("utf-8", "surrogateescape"))
    return fields


def _body_refusal(fields: Mapping[bytes, str]) -> bytes | None:
    """Why a body that was announced is not taken, None if it is or there may be none."""
    length = fields.get(b"content-length", "")
    if not length.isascii() or not length.isdigit() or len(length) > _DIGITS or not int(length):
        return None  # of any other kind aiohttp knows what to say
    if fields.get(b"content-type", "").partition(";")[0].strip().lower() != "application/json":
        return _answer(415, NO_JSON, {}, has_body=True)
    return _answer(413, _TOO_LARGE, {}, has_body=True) if int(length) > BODY_BYTES else None


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


def try_later(why_not: str) -> bytes:
    """The answer to a GET that may be answered another time."""
    return _answer(503, why_not, {"Retry-After": "5"}, has_body=True)


def _answer(status: int, detail: str, headers: Mapping[str, str], *, has_body: bool) -> bytes:
    before, after = _around_date(status, detail, tuple(headers.items()), has_body)
    return before + _date(int(time.time())) + after


@lru_cache(maxsize=64)
def _around_date(status: int, detail: str, headers: tuple[tuple[str, str], ...], has_body: bool) -> tuple[bytes, bytes]:
    """An answer up to its date, and what is behind."""
    body = problem_text(status, detail).encode()
    before = (
        f"HTTP/1.1 {status} {reason_of(status).decode()}",
        f"Content-Type: {PROBLEM_TYPE}; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Date: ",
    )
    after = ("", *(f"{name}: {value}" for name, value in headers), "Connection: close\r\n\r\n")
    return "\r\n".join(before).encode(), "\r\n".join(after).encode() + (body if has_body else b"")


def peer_of(transport: asyncio.BaseTransport | None) -> str:
    """Who is at the other end: an IP address, "unix", or "" if he has left."""
    sock = transport.get_extra_info("socket") if transport is not None else None
    name = transport.get_extra_info("peername") if transport is not None else None
    return peer_name(sock.family if sock is not None else socket.AF_INET, name)


def peer_name(family: int, address: object) -> str:
    """The same of an address of the socket module."""
    if family == socket.AF_UNIX:
        return UNIX
    return str(address[0]).partition("%")[0] if isinstance(address, tuple) else ""
