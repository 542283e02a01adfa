"""What a request becomes after 101, or 2xx to extended CONNECT: bytes both ways between its client and its server.

It lasts until both directions have ended.
"""

from __future__ import annotations

from lbproxy.dataplane.exchange import accounts
from lbproxy.dataplane.exchange.attempt_books import AttemptBooks, AttemptOwner
from lbproxy.dataplane.exchange.relay import Relay
from lbproxy.dataplane.exchange.relay_end import RelayEnd
from lbproxy.dataplane.net.framed_transport import FramedTransport
from lbproxy.domain.lease import Outcome
from lbproxy.errors import MAINTENANCE, Side
from lbproxy.protocol.http1 import ResponseHead


class Tunnel:
    """One for a request. The attempt keeps its lease until the end, of which `owner.tunnel_over` hears."""

    __slots__ = ("_attempt", "_is_shared", "_owner", "_relay")

    def __init__(self, owner: AttemptOwner, attempt: AttemptBooks) -> None:
        self._owner = owner
        self._attempt = attempt
        self._is_shared = False  # does the server's connection carry others, too?
        self._relay: Relay | None = None

    def open(self, head: ResponseHead, rest: bytes) -> None:
        """Join both transports, with the bytes that were read already. head: the 101. rest: what came behind it."""
        owner, attempt = self._owner, self._attempt
        stream, timeouts = attempt.upstream, owner.prepared.route.timeouts
        assert stream is not None and timeouts is not None
        attempt.upstream = None
        relay = Relay(
            owner.services,
            tunnel_s=timeouts.tunnel,
            half_closed_s=timeouts.half_closed,
            write_s=min(timeouts.write, owner.side.facts.listener.timeouts.write),
            on_done=self._over,
        )
        self._relay, relay.watcher = relay, self
        up = stream.detach()
        self._is_shared = isinstance(up, FramedTransport)
        down, ahead, has_ended = owner.side.give_stream(owner, head)
        client, server = RelayEnd(relay), RelayEnd(relay)
        relay.join(client, down, server, up)
        if ahead:
            client.data_received(ahead)
        if rest:
            server.data_received(rest)
        if has_ended:
            client.eof_received()  # it came before the 101, and comes once

    def sweep(self, now: float) -> None:
        """Called by the relay while it is swept itself."""
        if self._relay is not None and self._attempt.is_to_be_cut(now):
            self._relay.fail(MAINTENANCE.word, Side.UPSTREAM)

    def _over(self, relay: Relay, end: str, side: Side | None) -> None:
        owner, attempt, self._relay = self._owner, self._attempt, None
        now = owner.services.clock()
        if end == MAINTENANCE.word:
            accounts.server_failed(attempt.runtime, MAINTENANCE)
        if not self._is_shared:
            attempt.runtime.n_connections -= 1
        accounts.tunnelled(owner, relay.client.n_received, relay.server.n_received)
        if side is Side.CLIENT:
            accounts.client_left(attempt.runtime.pool, "tunnel")
        attempt.tunnelled(Outcome.SUCCESS if end == "ok" else Outcome.NEUTRAL, now)
        owner.side.stream_over()
        owner.tunnel_over(end, now)
