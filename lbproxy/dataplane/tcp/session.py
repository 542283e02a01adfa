"""TCP mode: one client connection, one server connection, bytes both ways.

The client is read while the server is being dialled, up to a bound, so that a client that leaves is seen. A dial that
fails is tried at another server, since nothing was sent. Time-outs: connect, write, tunnel, half_closed; never
read.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from lbproxy import errors
from lbproxy.dataplane.client.door import Door
from lbproxy.dataplane.exchange import accounts
from lbproxy.dataplane.exchange.placing import Claimant
from lbproxy.dataplane.exchange.relay import Relay
from lbproxy.dataplane.exchange.relay_end import RelayEnd
from lbproxy.dataplane.exchange.verdicts import DIAL_FAULTS, is_worth_a_retry, plural_of
from lbproxy.dataplane.net.dialer import Opening
from lbproxy.dataplane.runtime import RouteRuntime, ServerRuntime
from lbproxy.dataplane.server import connector
from lbproxy.dataplane.server.introduction import introduction
from lbproxy.domain.lease import Lease, Outcome
from lbproxy.domain.retry import may_retry
from lbproxy.domain.strategies.base import PickContext
from lbproxy.errors import Fault, Side
from lbproxy.protocol.proxy_protocol import ProxyHeader
from lbproxy.telemetry.accesslog import NO_HEAD
from lbproxy.telemetry.slots import LISTENER, POOL, SERVER, TRAFFIC

NEVER: Final = float("inf")
_wall: Final = time.time
_IN: Final = TRAFFIC.column("tcp_bytes_total", "in")
_OUT: Final = TRAFFIC.column("tcp_bytes_total", "out")
_BYTES_IN: Final = LISTENER.column("request_bytes_total")
_BYTES_OUT: Final = LISTENER.column("response_bytes_total")
_RETRY_OK: Final = POOL.column("retries_total", "connect", "success")
_RETRY_FAILED: Final = POOL.column("retries_total", "connect", "failure")
_ABORTED: Final = {phase: POOL.column("client_aborts_total", phase) for phase in errors.CLIENT_ABORT_PHASES}
_UPSTREAM_ERROR: Final = {
    fault.word: SERVER.column("upstream_errors_total", fault.reason)
    for fault in errors.FAULTS.values()
    if fault.metric == "upstream_errors_total"
}


class TcpClient(RelayEnd):
    """The client's end: starts the session once it is connected."""

    __deletable__ = ("session",)  # mypyc asks for it
    __slots__ = ("proxied", "session")

    def __init__(self, owner: Door, proxied: ProxyHeader | None = None, refusal: Fault | None = None) -> None:
        """refusal: why it may not be served."""
        self.proxied = proxied
        self.session = TcpSession(owner, self, refusal)
        super().__init__(self.session.relay)
        self.session.relay.pair(self, RelayEnd(self.relay))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        session = self.session
        del self.session  # the relay has it until it is over
        try:
            session.start()
        except Exception as error:  # a defect: confined to this connection
            self._defect(error)


class TcpSession(Claimant):
    """One connection in TCP mode. Public attributes are what the access log reads."""

    __slots__ = (
        "_attempted_at",
        "_client",
        "_deadline",
        "_dialing",
        "_is_counted",
        "_lease",
        "_log_format",
        "_owner",
        "_refusal",
        "_retries",
        "_route",
        "_runtime",
        "_started",
        "relay",
    )

    def __init__(self, owner: Door, client: TcpClient, refusal: Fault | None) -> None:
        super().__init__()
        services = owner.services
        self._owner = owner
        self._refusal = refusal
        self._client = client
        self._route: RouteRuntime = owner.runtime.routes[0]
        self._log_format = owner.runtime.log_format
        timeouts = self._route.timeouts
        assert timeouts is not None
        self.relay = Relay(
            services,
            tunnel_s=timeouts.tunnel,
            half_closed_s=timeouts.half_closed,
            write_s=min(timeouts.write, owner.runtime.timeouts.write),
            on_done=self._done,
        )
        self.relay.watcher = self
        self._deadline = NEVER
        self._dialing: asyncio.Task[None] | None = None
        self._lease: Lease | None = None
        self._runtime: ServerRuntime | None = None
        self._retries = 0
        self._is_counted = False
        self._started = self._attempted_at = services.clock()
        self.wall = _wall()
        self.log_head = NO_HEAD
        self.request_id, _ = services.next_request_id()
        self.client = ""
        self.listener = owner.runtime.name
        self.pool = self._route.pool.name if self._route.pool is not None else ""
        self.server = ""
        self.status = 0
        self.attempts = 0
        self.tries = ()
        self.bytes_in = 0
        self.bytes_out = 0
        self.connect_s = None
        self.ttfb_s = None
        self.total_s = 0.0
        self.end = ""

    def start(self) -> None:
        peer = self._client.transport.get_extra_info("peername")
        ip = peer[0] if isinstance(peer, tuple) and peer else ""
        if self._client.proxied is not None:
            ip, _ = self._client.proxied.seen_from(ip, 0)
        self.client = ip or "unix"
        subject = self._client.transport.get_extra_info("client_subject")
        if subject:
            self.log_head = self._log_format.with_subject(NO_HEAD, subject)
        if self._refusal is not None:
            self._reject(self._refusal)
            return
        self._attempt()

    def _attempt(self) -> None:
        services, pool = self._owner.services, self._route.pool
        assert pool is not None
        now = services.clock()
        self.claim(services, pool.pool, pool.row, PickContext(self.client), now, NEVER)

    def not_placed(self, fault: Fault, detail: str) -> None:
        """See Claimant."""
        self._reject(fault)

    def broke(self, error: Exception) -> None:
        """See Claimant."""
        self.relay.fail(errors.INTERNAL_ERROR.word, None)

    def _reject(self, fault: Fault) -> None:
        self._owner.runtime.row[LISTENER.column("rejected_total", fault.reason)] += 1
        self.relay.fail(fault.word, None)

    def leased(self, lease: Lease, now: float) -> None:
        """See Claimant."""
        self._lease = lease
        pool = self._route.pool
        assert pool is not None and self._route.timeouts is not None
        if self.queue_s is None:
            self.queue_s = 0.0
        self._runtime = pool.servers[lease.server]
        self.server = self._runtime.label
        self.attempts += 1
        self._attempted_at = now
        self._deadline = now + self._route.timeouts.dial
        services = self._owner.services
        opening = connector.dial_now(services, self._runtime)
        if opening is not None and opening.is_open:
            connector.attached(self._runtime, opening, self.relay.server)
            self._connected(self._runtime, now)
            return
        self._dialing = services.tasks.spawn(self._dial(self._runtime, now, opening), "dial")

    async def _dial(self, runtime: ServerRuntime, started: float, opening: Opening | None) -> None:
        try:
            await self._connect(runtime, started, opening)
        except Exception as error:  # a defect: confined to this connection
            self._owner.services.internal_error("tcp", error)
            self.broke(error)

    async def _connect(self, runtime: ServerRuntime, started: float, opening: Opening | None) -> None:
        me, timeouts, end = self._dialing, self._route.timeouts, self.relay.server
        assert timeouts is not None
        try:
            header = introduction(runtime.pool, self._client.transport, self._client.proxied)
            await connector.dial(self._owner.services, runtime, lambda: end, timeouts, header, opening)
        except asyncio.CancelledError:
            del me  # the task keeps the traceback, which keeps this frame
            raise
        except connector.DialError as error:
            if self._dialing is me and not self.relay.is_done:
                self._dialing = None
                self._dial_failed(error.fault)
            return
        if self._dialing is not me or self.relay.is_done:
            end.transport.abort()
            return
        self._dialing = None
        self._connected(runtime, started)

    def _connected(self, runtime: ServerRuntime, started: float) -> None:
        self._deadline = NEVER
        self.connect_s = self._owner.services.clock() - started
        runtime.n_connections += 1
        self._is_counted = True
        if self._retries:
            self._count(_RETRY_OK)
        server, client = self.relay.server, self._client  # the relay may be over after the first
        server.flush_early()
        client.flush_early()

    def _count(self, column: int) -> None:
        if self._route.pool is not None:
            self._route.pool.row[column] += 1

    def _dial_failed(self, fault: Fault) -> None:
        runtime, pool = self._runtime, self._route.pool
        assert runtime is not None and pool is not None
        runtime.row[_UPSTREAM_ERROR[fault.word]] += 1
        now = self._owner.services.clock()
        self._release(Outcome.FAILURE if fault.blames else Outcome.NEUTRAL, now, plural_of(fault))
        if fault in DIAL_FAULTS:
            pool.dial_failed(runtime.server, fault)
        if self._retries:
            self._count(_RETRY_FAILED)
        if may_retry(
            self._route.retry, fault, is_idempotent=True, retries_done=self._retries, is_replayable=True
        ) and is_worth_a_retry(fault, runtime, self.tried):
            self._retries += 1
            self._note_try(fault.word, now)
            self.tried = (*self.tried, runtime.server)
            self._attempt()
        else:
            self.relay.fail(fault.word, None)

    def _note_try(self, reason: str, now: float) -> None:
        """For the log, which names each server that was tried; only if there are several."""
        self.tries = (*self.tries, (self.server, reason, now - self._attempted_at))

    def _release(self, outcome: Outcome, now: float, what: str = "failures") -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release(outcome, now, what=what, is_timed=False)

    def sweep(self, now: float) -> None:
        """The connect time-out, and maintenance; the relay calls this while it is swept itself."""
        lease = self._lease
        if lease is not None and now >= lease.server.cut_at:
            if self._dialing is None:
                self.relay.fail(errors.MAINTENANCE.word, Side.UPSTREAM)
                return
            self._deadline = NEVER
            self._dialing.cancel()
            self._dialing = None
            self._dial_failed(errors.MAINTENANCE)
            return
        if now < self._deadline:
            return
        self._deadline = NEVER
        if self._dialing is not None and self._runtime is not None:
            self._dialing.cancel()
            self._dialing = None
            connector.count_dial(self._runtime, errors.CONNECT_TIMEOUT)
            self._dial_failed(errors.CONNECT_TIMEOUT)

    def _done(self, relay: Relay, end: str, side: Side | None) -> None:
        services, runtime, pool = self._owner.services, self._runtime, self._route.pool
        now = services.clock()
        if self._dialing is not None:
            self._dialing.cancel()
            self._dialing = None
        self.stop_waiting(now)
        if runtime is not None and self._is_counted:
            runtime.n_connections -= 1
        if end in (errors.RESET.word, errors.MAINTENANCE.word) and runtime is not None:
            runtime.row[_UPSTREAM_ERROR[end]] += 1
        if side is Side.CLIENT and pool is not None:
            phase = "tunnel" if relay.server.was_connected else "connecting" if runtime is not None else "queued"
            pool.row[_ABORTED[phase]] += 1
        self._release(Outcome.SUCCESS if end == "ok" else Outcome.NEUTRAL, now)
        self.bytes_in, self.bytes_out = relay.client.n_received, relay.server.n_received
        # Written out: `+=` of an element goes through Python's numbers.
        row = self._route.traffic
        row[_IN] = row[_IN] + self.bytes_in
        row[_OUT] = row[_OUT] + self.bytes_out
        row = self._owner.runtime.row
        row[_BYTES_IN] = row[_BYTES_IN] + self.bytes_in
        row[_BYTES_OUT] = row[_BYTES_OUT] + self.bytes_out
        self.end = end
        if self.tries and self.attempts > len(self.tries):
            self._note_try(end, now)
        self.total_s = now - self._started
        if pool is not None:
            accounts.lasted(pool, self.total_s)
        self._owner.connection_closed(self.client)
        if services.access_writer is not None:
            services.access_writer.append(self._log_format.line(self))
