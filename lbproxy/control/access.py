"""Who may do what at the admin address. Told apart by a token, by where a call comes from, and by what it names:

    /metrics /healthz /readyz   anybody who can connect; no Host check, so probes by address work
    / /dashboard/               anybody: a page that holds no data, and asks the API for it
    /api/ with a token          scope write: anything, from anywhere; scope read: GET and HEAD, from anywhere
    /api/ without one           GET and HEAD: from loopback or the unix socket, or from anywhere if no token is set
                                other methods: only if no token is set, from loopback or the unix socket

A call without a token is refused when its Host is a name that a stranger's DNS could point here, or when another
site's page sent it (Origin): otherwise any web page open on this machine could use the API. Names in `admin.hosts` are
known not to be such. Unix sockets are out of reach of pages and are exempt.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypedDict, Unpack
from urllib.parse import urlsplit

from aiohttp import web

from lbproxy.control.caller import Caller

SAFE_METHODS = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token. name: who has it, as the log says. may_write: may calls with it change something?"""

    name: str
    secret: str
    may_write: bool = True


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call is not answered: 401 or 403, and what the caller is told."""

    status: int
    detail: str

    @property
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": 'Bearer realm="lbproxy"'} if self.status == 401 else {}

    def exception(self) -> web.HTTPException:
        """The same, for aiohttp."""
        if self.status == 401:
            return web.HTTPUnauthorized(text=self.detail, headers=self.headers)
        return web.HTTPForbidden(text=self.detail)


class Credentials(TypedDict):
    """What a call tells about who makes it: three of its fields, and its peer (an IP address or "unix")."""

    authorization: str | None
    host: str
    origin: str | None
    peer: str


class Access:
    """The rules. hosts: names, lower case, under which the admin address may be called without a token."""

    def __init__(self, tokens: Sequence[Token], hosts: Collection[str] = ()) -> None:
        self._tokens = tuple(tokens)
        self._hosts = frozenset(host.rstrip(".") for host in hosts)

    def knows(self, authorization: str | None) -> bool:
        """Is this a token, of whatever scope?"""
        return authorization is not None and self._token(authorization) is not None

    def check(self, *, method: str, **told: Unpack[Credentials]) -> Caller:
        """Who makes this API call. Raises the answer that refuses it."""
        found = self.judge(method=method, **told)
        if isinstance(found, Refusal):
            raise found.exception()
        return found

    def judge(
        self, *, method: str, authorization: str | None, host: str, origin: str | None, peer: str
    ) -> Caller | Refusal:
        """Who makes this API call, or why it is refused. peer: an IP address or "unix"."""
        is_safe = method in SAFE_METHODS
        if self._tokens and authorization is not None:
            token = self._token(authorization)
            if token is None:
                return Refusal(401, "The bearer token is wrong.")
            if not (is_safe or token.may_write):
                return Refusal(403, f"The token {token.name} may only read (scope: read).")
            return Caller(token.name, peer)
        is_near = is_local_peer(peer)
        if not is_safe:
            if self._tokens:
                return Refusal(401, "Calls that change something need a bearer token (admin.token, admin.tokens).")
            if not is_near:
                return Refusal(403, "Without admin.token, calls that change something are taken from loopback only.")
        elif self._tokens and not is_near:
            return Refusal(401, "Calls from another host need a bearer token (admin.token, admin.tokens).")
        if peer == "unix":
            return Caller("", peer)
        if not is_local_host(host) and _without_port(host).lower().rstrip(".") not in self._hosts:
            return Refusal(
                403,
                "Call by IP address, localhost or a name in admin.hosts, or send the bearer token: another name "
                "could be rebound.",
            )
        if origin is not None and _host_of(origin) != host.lower():
            return Refusal(403, "Calls from pages of another origin need the bearer token.")
        return Caller("", peer)

    def rights(self, caller: Caller, **told: Unpack[Credentials]) -> dict[str, object]:
        """For who may read: who that is, and whether the same credentials may change something (why not, if not)."""
        found = self.judge(method="PATCH", **told)
        why_not = found.detail if isinstance(found, Refusal) else None
        return {
            "token": caller.token or None,
            "peer": caller.peer,
            "may_write": why_not is None,
            "why_not": why_not,
            "takes_token": bool(self._tokens),
        }

    def _token(self, authorization: str) -> Token | None:
        """The token that was sent. It is compared with all of them: the time says nothing about which, or how much."""
        scheme, _, given = authorization.partition(" ")
        sent = _octets(given.strip())
        found: Token | None = None
        for token in self._tokens:
            if hmac.compare_digest(sent, _octets(token.secret)):
                found = token
        return found if scheme.lower() == "bearer" else None


@lru_cache(maxsize=256)
def is_local_peer(peer: str) -> bool:
    """True for the unix socket and loopback addresses, IPv4 inside IPv6 included."""
    if peer == "unix":
        return True
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback


def is_local_host(host: str) -> bool:
    """True if a Host value cannot be the product of DNS rebinding: localhost or an IP address, with or without port."""
    name = _without_port(host)
    if name.lower() in ("localhost", "localhost."):
        return True
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _without_port(host: str) -> str:
    name, _, port = host.rpartition(":")
    return name if port.isdigit() and not host.endswith("]") else host


def _octets(text: str) -> bytes:
    """A header value as it was on the wire: octets that are no UTF-8 come from aiohttp as lone surrogates."""
    return text.encode("utf-8", "surrogateescape")


def _host_of(origin: str) -> str | None:
    """The host of an Origin value; None for one that is none, such as `http://[`."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None
