"""The one question that a strategy answers: which of these servers, all of which may take the request?

A strategy never sees health, limits, retries, cookies or sockets; the pool asks it only about eligible servers, and
asks at most twice per request. Load is read from the server (`server.inflight`, `server.latency(now)`), never kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from lbproxy.compiling import mypyc_attr
from lbproxy.domain.server import Server


@mypyc_attr(native_class=False)
class RequestView(Protocol):
    """What a strategy may read of a request: already parsed, never the body."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def query(self) -> str: ...
    @property
    def headers(self) -> Mapping[str, str]:
        """Lower-case names; the values of repeated fields joined with ', '."""
        ...


@mypyc_attr(free_list_len=1, acyclic=True)
class PickContext:
    """What is known about the request at hand; one for each.

    key: what the strategy's `hash_on` asked for, as bytes; b"" if it asked for nothing. client_ip: text, after
    `trusted_proxies` were considered. request: a read-only view, or None in TCP mode.
    """

    __slots__ = ("client_ip", "key", "request")

    def __init__(self, client_ip: str, request: RequestView | None = None, key: bytes = b"") -> None:
        self.client_ip = client_ip
        self.request = request
        self.key = key


@mypyc_attr(native_class=False)  # a plug-in may name it as its base class, and is not compiled
class Strategy(Protocol):
    """Chooses among servers that may all take the request.

    hash_on: "" if the strategy does not hash, else a key as request_key.py has it ("client_ip", "header:NAME" ...), of
    which the pool then fills `ctx.key`. A class attribute `fills_fast_first` that is true lets the pool keep back
    servers with a limit that are measurably slower while others have free slots; `heeds_penalties` those that have just
    failed, while others are merely full.
    """

    hash_on: str

    def rebuild(self, servers: Sequence[Server]) -> None:
        """Membership or a weight changed: all servers of the pool, usable or not, in configured order."""
        ...

    def pick(self, eligible: Sequence[Server], ctx: PickContext, now: float) -> Server:
        """Return one of `eligible`, which is never empty. `now` is in monotonic seconds."""
        ...
