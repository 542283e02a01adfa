"""The config, compiled for the hot path: everything that can be decided once is decided here.

A ListenerRuntime has routes, a RouteRuntime may have a PoolRuntime, a PoolRuntime has one ServerRuntime for each
server.
They hold the settings, the counters' rows and the idle connections, so that serving a request looks nothing up by name.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import TYPE_CHECKING, Final

from lbproxy import errors
from lbproxy.compiling import mypyc_attr
from lbproxy.dataplane.guard import Guard, KeyRule
from lbproxy.dataplane.idle_pool import IdlePool, Keeper
from lbproxy.dataplane.net.admission import AddressCounts
from lbproxy.domain.pool import Pool
from lbproxy.domain.retry import RetryBudget, RetryPolicy
from lbproxy.domain.rng import Rng
from lbproxy.domain.routing import NORMALISE, PathRules, Router
from lbproxy.domain.server import Server
from lbproxy.domain.shared.addresses import Addresses
from lbproxy.domain.splitting import Split
from lbproxy.domain.sticky import Sticky, StickySettings
from lbproxy.domain.strategies.consistent import ConsistentHash
from lbproxy.domain.text_pattern import TextPattern
from lbproxy.errors import Fault
from lbproxy.protocol.http1 import MAX_REQUEST_LINE, ResponseHead
from lbproxy.protocol.repeats import Repeats
from lbproxy.telemetry.accesslog import JsonFormat, LogFormat
from lbproxy.telemetry.slots import POOL, Row

if TYPE_CHECKING:
    from lbproxy.dataplane.tls_settings import ListenerTlsSettings, PoolTlsSettings

# Of the heads, without their blank line, that come twice, and then again and again: from a client in a loop, a health
# check.
MAX_HEADS: Final = 1024
MAX_HEAD_BYTES: Final = 4096
JITTER: Final = 0.1
_HASH_PICKS: Final[tuple[int, ...]] = tuple(
    [POOL.column("hash_picks_total", result) for result in ("owner", "near", "spilled", "no_key")]
)
DEFAULT_METHODS: Final = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"  # what Allow says where all are served

log = logging.getLogger("lbproxy")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class UpstreamTimeouts:
    """`timeouts` of a pool, with a route's overrides applied; seconds, inf for off. tls_handshake: 0 without TLS."""

    connect: float
    response_head: float
    read: float
    write: float
    tunnel: float
    half_closed: float
    total: float = float("inf")
    tls_handshake: float = 0.0
    dial: float = field(init=False)  # for the connection and, where there is TLS, the handshake

    def __post_init__(self) -> None:
        object.__setattr__(self, "dial", self.connect + self.tls_handshake)


@dataclass(frozen=True, slots=True)
class KeepAliveSettings:
    """`keep_alive` of a pool; inf for off. ping_s: of silence, with HTTP/2."""

    idle: int
    idle_timeout_s: float
    max_requests: float
    max_age_s: float
    ping_s: float = float("inf")
    is_limited: bool = field(init=False)  # is there a bound on requests or age?

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_limited", min(self.max_requests, self.max_age_s) != float("inf"))

    def limits_of_one(self, rng: Rng) -> tuple[float, float]:
        """(requests, age in seconds) at which one connection ends: up to a tenth less than configured, at random.

        Connections that were opened together, at a start or after an outage, would otherwise all end together.
        """
        share = 1.0 - JITTER * rng.random()
        requests = self.max_requests if self.max_requests == float("inf") else ceil(self.max_requests * share)
        return requests, self.max_age_s * share


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


@mypyc_attr(allow_interpreted_subclasses=True)
class Connections:
    """The connections to one server, as its runtime knows whoever makes them; an exchange knows that as an Endpoint."""

    __slots__ = ()

    def retire(self) -> None:
        """No request begins here any more."""
        raise NotImplementedError

    def sweep(self, now: float) -> None:
        """Called a few times a second."""

    def n_idle(self) -> int:
        """Connections that carry nothing, beside those of the server's idle pool."""
        return 0


@mypyc_attr(allow_interpreted_subclasses=True)
class ServerRuntime(Keeper):
    """What the data plane keeps for one server."""

    __slots__ = (
        "endpoint",
        "idle",
        "idle_timeout_s",
        "is_direct",
        "label",
        "most_requests",
        "n_connections",
        "pool",
        "tls_session",
    )

    def __init__(self, server: Server, pool: PoolRuntime, row: Row, *, is_direct: bool) -> None:
        super().__init__(server, row)
        self.pool = pool
        self.label = server.name
        self.is_direct = is_direct
        self.n_connections = 0
        self.idle: IdlePool = IdlePool(self)
        self.idle_timeout_s = pool.idle_timeout_s
        """After how much silence a connection to this server is closed: the config's, or less where it is learned."""
        self.tls_session: tuple[object, object] | None = None  # tls.SessionHolder
        self.most_requests = server.reuse.limit
        """How many requests one connection to this server carries: any number, unless fewer are learned."""
        self.endpoint = pool.endpoint_of(self)

    @property
    def n_active(self) -> int:
        return self.n_connections - self.n_idle

    @property
    def n_idle(self) -> int:
        return len(self.idle) + self.endpoint.n_idle()

    def retire(self) -> None:
        """No request begins here any more."""
        self.endpoint.retire()

    def limits_changed(self, now: float) -> None:
        """The pool keeps connections for another time, or none."""
        self.idle_timeout_s = self.pool.idle_timeout_s
        if self.server.idle_timeout.learned_s:
            self._retire_in_time(now)
        if self.pool.keep_alive is None:
            self.idle.close_all()
        else:
            self.idle.retire_after(self.idle_timeout_s)

    def closed_by_server(self, age_s: float, answers: int, opened_at: float, now: float) -> None:
        """See Keeper."""
        reuse = self.server.reuse
        if reuse.explains(answers, age_s, opened_at, now):
            if reuse.limit < self.most_requests:
                self.most_requests = reuse.limit
                self.idle.close_used_up(reuse.limit)
                log.info(
                    "server %s closes a connection after %d requests and does not say so; now lbproxy closes it first",
                    self.label,
                    reuse.limit,
                )
        elif self.server.idle_timeout.closed_by_server(age_s, now):
            self._retire_in_time(now)
            self.idle.retire_after(self.idle_timeout_s)

    def limit_lifted(self) -> None:
        """See Keeper."""
        self.most_requests = self.server.reuse.limit

    def follow_learned(self, now: float) -> None:
        """Another process may have learned something of the server."""
        limit = self.server.reuse.limit
        if limit != self.most_requests:
            if limit < self.most_requests:
                self.idle.close_used_up(limit)
            self.most_requests = limit
        if self.server.idle_timeout.learned_s:
            self._retire_in_time(now)

    def _retire_in_time(self, now: float) -> None:
        self.idle_timeout_s = min(self.pool.idle_timeout_s, self.server.idle_timeout.retire_after_s(now))

    def sweep(self, now: float) -> None:
        """What time brings: idle connections expire, what was learned of the server ages."""
        self.idle.sweep(now)
        self.endpoint.sweep(now)
        if self.server.idle_timeout.learned_s:
            self._retire_in_time(now)


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """What a pool's requests and connections keep to, beyond what each route decides (`UpstreamTimeouts`).

    keep_alive None: no connection is kept. head_bytes, max_fields: of a response; max_interim: 1xx before one.
    retry_after_s: for a 503 where nothing better is known. failure_statuses: that the breaker takes for failures.
    proxy_protocol: `off`, `v1` or `v2`. is_lenient: responses need not be exact. protocol: `h1`, `h2` or `auto`.
    sticky None: no cookies.
    """

    keep_alive: KeepAliveSettings | None
    head_bytes: int
    max_fields: int
    max_interim: int
    retry_after_s: int
    failure_statuses: frozenset[int] = frozenset()
    tls: PoolTlsSettings | None = None
    proxy_protocol: str = "off"
    is_lenient: bool = False
    sticky: StickySettings | None = None
    protocol: str = "h1"


class PoolRuntime:
    """A pool with its settings. `servers` follows the membership of the pool. endpoint_of: who connects to a server."""

    __slots__ = (
        "budget",
        "dial_failed",
        "endpoint_of",
        "failure_statuses",
        "head_bytes",
        "idle_timeout_s",
        "is_lenient",
        "keep_alive",
        "max_fields",
        "max_interim",
        "name",
        "pool",
        "protocol",
        "proxy_protocol",
        "response_memo",
        "retry_after_s",
        "rng",
        "row",
        "servers",
        "settings",
        "sticky",
        "tls",
    )

    def __init__(
        self,
        pool: Pool,
        row: Row,
        settings: PoolSettings,
        *,
        dial_failed: Callable[[Server, Fault], None],
        rng: Rng,
        budget: RetryBudget,
        endpoint_of: Callable[[ServerRuntime], Connections],
    ) -> None:
        self.name = pool.name
        self.pool = pool
        self.row = row
        self.dial_failed = dial_failed
        self.rng = rng
        self.budget = budget
        self.endpoint_of = endpoint_of
        self.servers: dict[Server, ServerRuntime] = {}
        self.sticky: Sticky | None = None
        self._take(settings)

    def _take(self, settings: PoolSettings) -> None:
        keep_alive = settings.keep_alive
        self.settings = settings
        self.keep_alive = keep_alive
        self.idle_timeout_s = keep_alive.idle_timeout_s if keep_alive is not None else 0.0
        self.head_bytes = settings.head_bytes
        self.max_fields = settings.max_fields
        self.max_interim = settings.max_interim
        self.retry_after_s = settings.retry_after_s
        self.failure_statuses = settings.failure_statuses
        self.tls = settings.tls
        self.protocol = settings.protocol
        self.proxy_protocol = settings.proxy_protocol
        self.is_lenient = settings.is_lenient
        self.sticky = Sticky(self.pool, settings.sticky) if settings.sticky is not None else None
        self.response_memo: Repeats[ResponseHead] = Repeats(most=MAX_HEADS, longest=MAX_HEAD_BYTES)

    def reconfigure(self, settings: PoolSettings, now: float) -> None:
        """Other settings, for the next request. What was agreed with a server when a connection to it began can't be
        changed on that connection: with another protocol, other TLS or another PROXY header the idle ones are closed,
        and those in use are not used again."""
        old = self.settings
        self._take(settings)
        if (
            settings.tls is not old.tls
            or settings.proxy_protocol != old.proxy_protocol
            or settings.protocol != old.protocol
        ):
            for server, runtime in self.servers.items():
                runtime.retire()
                self.servers[server] = ServerRuntime(server, self, runtime.row, is_direct=runtime.is_direct)
        elif settings.keep_alive != old.keep_alive:
            for runtime in self.servers.values():
                runtime.limits_changed(now)

    def may_retry(self, now: float, *, is_lost: bool) -> bool:
        """Take a permit of the retry budget; every True is followed by one `budget.finished()`.

        is_lost: the connection died. When a server is killed all its requests are lost in the same instant, and each of
        them must find another server: so these are bounded by their rate, not by how many there are at once.
        """
        active = 1 << 30 if is_lost else sum(server.inflight for server in self.servers) + self.n_queued
        return self.budget.may_start(active, requests_total=self._n_first_attempts(), now=now)

    def _n_first_attempts(self) -> int:
        """Of the servers that are here now, so it falls when one leaves."""
        return sum(server.requests for server in self.servers) - self.budget.n_started

    def sweep(self, now: float) -> None:
        """What time brings: idle connections expire, the pool changes, the budget's window moves."""
        self.pool.sweep(now)
        strategy = self.pool.picker.strategy
        if isinstance(strategy, ConsistentHash):
            for column, count in zip(_HASH_PICKS, strategy.take_counts(), strict=True):
                self.row[column] += count
        self.budget.note(self._n_first_attempts(), now)
        for server in self.servers.values():
            server.sweep(now)

    @property
    def n_queued(self) -> int:
        return len(self.pool.queue) if self.pool.queue is not None else 0

    def retry_after(self, fault: Fault, now: float) -> int:
        """Seconds for Retry-After: from the queue's drain rate where that is what the client waits for."""
        if (
            fault in (errors.QUEUE_FULL, errors.QUEUE_TIMEOUT, errors.DEADLINE_UNREACHABLE)
            and self.pool.queue is not None
        ):
            return self.pool.queue.retry_after_s(now)
        return self.retry_after_s


@dataclass(slots=True, eq=False)
class RouteRuntime:
    """What happens to requests that match one route. One of pool, split, redirect, respond is set, or none: 404.

    conditions: what the body must hold: which of the listener's `pointers`, and what stands there. branches: of a
    split, what happens to the requests of each of its pools. named: the row of a route with a name.
    """

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
    skip: frozenset[bytes] = frozenset()
    upgrades: frozenset[bytes] = frozenset()  # protocols, lower case, that a client may switch to
    edits_requests: bool = False
    edits_responses: bool = False
    response_touched: frozenset[bytes] = frozenset()  # lower-case names that no response has from the server
    fills_location: bool = False  # does a redirect depend on the request?
    reads_path: bool = False  # is the path that goes out made of the one that came in?
    notable_from: int = 429  # answers with a lower status are plain successes
    conditions: tuple[tuple[int, TextPattern], ...] = ()
    split: Split | None = None
    branches: tuple[RouteRuntime, ...] = ()
    named: Row | None = None
    keys: KeyRule | None = None  # what API key a request must have; None: whichever

    def __post_init__(self) -> None:
        self.edits_requests = not self.request_edits.is_empty
        self.edits_responses = not self.response_edits.is_empty
        self.response_touched = self.response_edits.touched
        self.fills_location = self.redirect is not None and b"{" in self.redirect[1]
        shows_path = self.redirect is not None and b"{path}" in self.redirect[1]
        self.reads_path = bool(self.strip_prefix or self.path_prefix) or shows_path
        failures = self.pool.failure_statuses if self.pool is not None else frozenset()
        self.notable_from = min({429} | self.retry.status | failures)


@dataclass(frozen=True, slots=True)
class ClientTimeouts:
    """`timeouts` of a listener; seconds, inf for off."""

    request_head: float
    request_body: float
    keep_alive: float
    write: float


@dataclass(frozen=True, slots=True)
class Http2Settings:
    """`limits.h2` of a listener. resets, control_frames: (count, seconds). max_age_s: inf for off. opens_websockets:
    one of its routes does."""

    streams: int = 100
    resets: tuple[int, float] = (100, 10.0)
    control_frames: tuple[int, float] = (1000, 10.0)
    max_age_s: float = float("inf")
    opens_websockets: bool = False


@dataclass(frozen=True, slots=True)
class Peer:
    """What an address of clients comes to, the same for each connection: is it believed, and the lines of it that go up
    with a request that came over `scheme`."""

    is_trusted: bool
    scheme: bytes
    lines: bytes


@dataclass(slots=True, eq=False)
class ListenerRuntime:
    """A listener with its settings."""

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
    trusts_unix: bool
    connections_per_ip: float
    min_rate: float  # bytes a second of an upload; 0: off
    has_default_only: bool  # one route without a match: nothing to look for
    takes_proxy_header: bool = False
    deadline_names: frozenset[bytes] = frozenset()  # fields by which a trusted peer says how long it waits
    tls: ListenerTlsSettings | None = None
    line_bytes: int = MAX_REQUEST_LINE
    path_rules: PathRules = NORMALISE
    methods: frozenset[str] | None = None  # that are served; None: any
    allow: bytes = DEFAULT_METHODS
    log_format: LogFormat = field(default_factory=JsonFormat)
    serves_h1: bool = True
    http2: Http2Settings | None = None  # None: HTTP/2 is not served
    is_leaving: bool = False  # each answer is the last one on its connection
    pointers: tuple[tuple[bytes, ...], ...] = ()  # JSON Pointers that routes ask for
    guard: Guard | None = None  # who may ask, and how much
    addresses: Addresses | None = None  # that connections at other workers have, too
    per_ip: AddressCounts = field(init=False)
    peers: dict[str, Peer] = field(init=False, default_factory=dict)  # the last ones (client_facts.py)

    def __post_init__(self) -> None:
        self.per_ip = AddressCounts(self.connections_per_ip, self.name, self.addresses)

    def leaving(self) -> ListenerRuntime:
        """The same, for the connections of a listener that is no more."""
        return replace(self, is_leaving=True)

    def position_of(self, route: RouteRuntime) -> int | None:
        """Of the route that this is, or a branch of; None: of none."""
        for position, other in enumerate(self.routes):
            if other is route or any(branch is route for branch in other.branches):
                return position
        return None

    def again(self) -> ListenerRuntime:
        """The same, in whose place no head is remembered."""
        return replace(self)

    def is_trusted(self, client_ip: str) -> bool:
        """Is this peer one whose forwarding fields are believed? client_ip: "unix" for one on a unix socket."""
        if client_ip == "unix":
            return self.trusts_unix
        if not self.trusted:
            return False
        try:
            address = ipaddress.ip_address(client_ip.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self.trusted)
