"""What is known of a client's connection: the same for every request that comes on it, on whichever stream."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from lbproxy.dataplane.exchange.forwarding import (
    UNIX,
    Forwarding,
    client_address,
    connection_lines,
    port_line,
    request_lines,
)
from lbproxy.dataplane.exchange.ports import Underway
from lbproxy.dataplane.runtime import ListenerRuntime, Peer
from lbproxy.protocol.message import Field, join_fields
from lbproxy.protocol.proxy_protocol import ProxyHeader

MOST_PEERS: Final = 4096  # whose lines are kept for their next connection; some 300 octets each
NO_ADDRESS: Final = "unknown"  # of a client on a unix socket, for servers (RFC 7239 section 6.2)


class ClientFacts:
    """See the module. They are complete once `connected` was called; nothing changes afterwards.

    address: the peer's, for logs and strategies; a request may be somebody else's (`address_behind`). peer_ip: the same
    for servers; "" before `connected`. is_trusted: are its forwarding fields believed? proxied: what a PROXY header
    said. cert_fields: what is told to servers of the client's certificate; subject: whose it is, for the log.
    """

    __slots__ = (
        "_joined",
        "_last_host_line",
        "_last_lines",
        "_lines",
        "_lines_and_port",
        "_local",
        "_local_host",
        "_port_line",
        "address",
        "cert_fields",
        "is_trusted",
        "listener",
        "peer_ip",
        "proxied",
        "scheme",
        "subject",
    )

    def __init__(
        self,
        listener: ListenerRuntime,
        proxied: ProxyHeader | None = None,
        *,
        scheme: bytes = b"http",
        cert_fields: Sequence[Field] = (),
        subject: str = "",
    ) -> None:
        self.listener = listener
        self.proxied = proxied
        self.scheme = scheme
        self.cert_fields = cert_fields
        self.subject = subject
        self.address = self.peer_ip = self._local_host = ""
        self._local: Any = None
        self.is_trusted = False
        self._lines = self._lines_and_port = self._port_line = b""
        self._joined = self._last_host_line = self._last_lines = b""  # what was the same for the last request

    def connected(self, peer: object, local: object) -> None:
        """Learn what the connection itself says: the addresses of its ends, as transports have them."""
        ip: str = peer[0] if isinstance(peer, tuple) and peer else ""
        port = local[1] if isinstance(local, tuple) else 0
        self._local = local
        published_port = 0
        if self.proxied is not None:
            ip, _ = self.proxied.seen_from(ip, port)
            published_port = self.proxied.published_port
        if ip.startswith("::ffff:"):
            ip = ip[7:]
        self.address = ip or UNIX
        self.peer_ip = ip or NO_ADDRESS
        # No address may also mean a TCP peer that has gone, or somebody on a unix socket of the balancer in front.
        is_unix = not ip and isinstance(peer, (str, bytes)) and (self.proxied is None or not self.proxied.is_unix)
        known = self._known(UNIX if is_unix else ip)
        self.is_trusted = known.is_trusted
        self._port_line = port_line(published_port, self.scheme)
        self._lines = known.lines + join_fields(self.cert_fields) if self.cert_fields else known.lines
        self._lines_and_port = self._lines + self._port_line

    def _known(self, name: str) -> Peer:
        """Clients come again, and reading an address is dear (10 us if proxies are trusted)."""
        peers = self.listener.peers
        known = peers.get(name)
        if known is None or known.scheme != self.scheme:
            if len(peers) >= MOST_PEERS:
                peers.clear()
            lines = connection_lines(self.peer_ip, self.scheme)
            known = peers[name] = Peer(self.listener.is_trusted(name), self.scheme, lines)
        return known

    @property
    def local_host(self) -> str:
        """What stands for Host where an HTTP/1.0 client sent none."""
        if not self._local_host:
            local = self._local
            is_plain = isinstance(local, tuple) and ":" not in local[0]
            self._local_host = f"{local[0]}:{local[1]}" if is_plain else "localhost"
        return self._local_host

    def renewed(self, listener: ListenerRuntime, transport: asyncio.Transport) -> ClientFacts:
        """The same connection under other settings of its listener, for the requests that begin from now on."""
        facts = ClientFacts(
            listener, self.proxied, scheme=self.scheme, cert_fields=self.cert_fields, subject=self.subject
        )
        facts.connected(transport.get_extra_info("peername"), transport.get_extra_info("sockname"))
        return facts

    def address_behind(self, known: Forwarding) -> str:
        """Whose request it is, by what a trusted peer says of it."""
        return client_address(known, self.address, self.listener.is_trusted)

    def is_secure(self, known: Forwarding) -> bool:
        """Did the client come over TLS, by what the connection or a trusted peer says?"""
        if self.is_trusted and b"x-forwarded-proto" in known:
            return known[b"x-forwarded-proto"][0].split(b",")[0].strip().lower() == b"https"
        return self.scheme == b"https"

    def forwarding_lines(self, request: Underway) -> bytes:
        """The fields that lbproxy adds to the head that goes up, without `own_lines`: the same for equal heads.

        They come after everything received was cleaned: a client cannot forge or name them.
        """
        prepared = request.prepared
        skip = prepared.route.skip
        host_line = prepared.host_line
        if not self.is_trusted and not len(skip):
            lines = self._lines_and_port if prepared.takes_port else self._lines
            if not len(host_line):
                return lines
            if host_line is not self._last_host_line or lines is not self._last_lines:
                self._last_host_line, self._last_lines = host_line, lines
                self._joined = lines + host_line
            return self._joined
        known = prepared.meaning.forwarding if self.is_trusted else {}
        if prepared.takes_port:
            host_line += self._port_line
        return request_lines(known, self.peer_ip, host_line, skip, self.scheme, self.cert_fields)

    def own_lines(self, request: Underway) -> bytes:
        """Those that differ in each request: what is left of its time, and its id."""
        prepared = request.prepared
        skip = prepared.route.skip
        deadlines = prepared.deadlines
        if not len(skip):
            return (
                request.id_line if deadlines is None else deadlines.lines(request.time_left_s(), skip, request.id_line)
            )
        id_line = b"" if b"x-request-id" in skip else request.id_line
        if deadlines is None:
            return id_line
        return deadlines.lines(request.time_left_s(), skip, id_line)
