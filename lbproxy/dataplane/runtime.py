"""The config, compiled for the hot path: everything that can be decided once is decided here.

A ListenerRuntime has routes, a RouteRuntime may have a PoolRuntime, a PoolRuntime has one ServerRuntime for each
server.
They hold the settings, the counters' rows and the idle connections, so that serving a request looks nothing up by name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lbproxy.dataplane.idle_pool import IdlePool
from lbproxy.domain.pool import Pool
from lbproxy.domain.retry import RetryPolicy
from lbproxy.domain.routing import Router
from lbproxy.domain.server import Server
from lbproxy.errors import Fault
from lbproxy.protocol.http1 import ResponseHead
from lbproxy.telemetry.slots import Row

if TYPE_CHECKING:
    from lbproxy.dataplane.head_memo import HeadMemo

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class UpstreamTimeouts:
    """`timeouts` of a pool, with a route's overrides applied; seconds, inf for off."""

    connect: float
    response_head: float
    read: float
    write: float
    tunnel: float
    half_closed: float


@dataclass(frozen=True, slots=True)
class KeepAliveSettings:
    """`keep_alive` of a pool; inf for off."""

    idle: int
    idle_timeout_s: float
    max_requests: float
    max_age_s: float
    is_limited: bool = field(init=False)  # is there a bound on requests or age?

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_limited", min(self.max_requests, self.max_age_s) != float("inf"))


@dataclass(frozen=True, slots=True)
class Edits:
    """Header edits, names and values as bytes: `set` replaces, `add` appends, `remove` deletes (lower-case names)."""

    set: tuple[tuple[bytes, bytes], ...] = ()
    add: tuple[tuple[bytes, bytes], ...] = ()
    remove: frozenset[bytes] = frozenset()

    @property
    def is_empty(self) -> bool:
        return not (self.set or self.add or self.remove)

    def then(self, other: Edits) -> Edits:
        """These edits followed by more specific ones."""
        later = {name.lower() for name, _ in other.set} | other.remove
        return Edits(
            tuple(item for item in self.set if item[0].lower() not in later) + other.set,
            tuple(item for item in self.add if item[0].lower() not in later) + other.add,
            (self.remove - {name.lower() for name, _ in other.set}) | other.remove,
        )

    def apply(self, fields: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        gone = self.touched
        return [item for item in fields if item[0].lower() not in gone] + list(self.set) + list(self.add)

    @property
    def touched(self) -> frozenset[bytes]:
        """Lower-case names whose received or computed values must not be sent."""
        return self.remove | frozenset(name.lower() for name, _ in self.set)


class ServerRuntime:
    """What the data plane keeps for one server."""

    __slots__ = ("idle", "is_direct", "label", "n_connections", "pool", "row", "server")

    def __init__(self, server: Server, pool: PoolRuntime, row: Row, *, is_direct: bool) -> None:
        self.server = server
        self.pool = pool
        self.row = row
        self.label = server.name
        self.is_direct = is_direct
        self.n_connections = 0
        self.idle = IdlePool(self)

    @property
    def n_active(self) -> int:
        return self.n_connections - len(self.idle)


class PoolRuntime:
    """A pool with its settings. `servers` follows the pool's membership."""

    __slots__ = (
        "dial_failed",
        "head_bytes",
        "keep_alive",
        "max_fields",
        "max_interim",
        "name",
        "pool",
        "response_memo",
        "retry_after_s",
        "row",
        "servers",
        "timeouts",
    )

    def __init__(
        self,
        pool: Pool,
        row: Row,
        *,
        timeouts: UpstreamTimeouts,
        keep_alive: KeepAliveSettings | None,
        head_bytes: int,
        max_fields: int,
        max_interim: int,
        retry_after_s: int,
        dial_failed: Callable[[Server, Fault], None],
    ) -> None:
        self.name = pool.name
        self.pool = pool
        self.row = row
        self.timeouts = timeouts
        self.keep_alive = keep_alive
        self.head_bytes = head_bytes
        self.max_fields = max_fields
        self.max_interim = max_interim
        self.retry_after_s = retry_after_s
        self.dial_failed = dial_failed
        self.servers: dict[Server, ServerRuntime] = {}
        self.response_memo: dict[bytes, ResponseHead] = {}


@dataclass(slots=True, eq=False)
class RouteRuntime:
    """What happens to requests that match one route. Exactly one of pool, redirect, respond is set, or none: 404."""

    pool: PoolRuntime | None
    traffic: Row
    retry: RetryPolicy
    timeouts: UpstreamTimeouts | None
    request_edits: Edits = field(default_factory=Edits)
    response_edits: Edits = field(default_factory=Edits)
    strip_prefix: str = ""
    path_prefix: str = ""
    redirect: tuple[int, bytes] | None = None
    respond: tuple[int, tuple[tuple[bytes, bytes], ...], bytes] | None = None
    hash_on: str = ""
    skip: frozenset[bytes] = frozenset()
    edits_responses: bool = False

    def __post_init__(self) -> None:
        self.edits_responses = not self.response_edits.is_empty


@dataclass(frozen=True, slots=True)
class ClientTimeouts:
    """`timeouts` of a listener; seconds, inf for off."""

    request_head: float
    request_body: float
    keep_alive: float
    write: float


@dataclass(slots=True, eq=False)
class ListenerRuntime:
    """A listener with its settings and the memo of parsed heads (by trust, which changes what is forwarded)."""

    name: str
    mode: str
    router: Router
    routes: tuple[RouteRuntime, ...]
    no_route: RouteRuntime
    timeouts: ClientTimeouts
    row: Row
    head_bytes: int
    max_fields: int
    body_bytes: float
    trailer_bytes: int
    chunk_overhead: int
    underscores: str
    answers_half_closed: bool
    trusted: tuple[Network, ...]
    connections_per_ip: float
    has_default_only: bool  # one route without a match: nothing to look for
    memo: HeadMemo
    memo_trusted: HeadMemo
    per_ip: dict[str, int] = field(default_factory=dict)
    n_connections: int = 0

    def is_trusted(self, client_ip: str) -> bool:
        """Is this peer one whose forwarding fields are believed?"""
        if not self.trusted:
            return False
        try:
            address = ipaddress.ip_address(client_ip.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self.trusted)


ServerRuntimes = Mapping[Server, ServerRuntime]
