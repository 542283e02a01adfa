"""Connections whose PROXY header is awaited: sockets between accept and the protocol object that will serve them.

    accepted    the peer may not speak for others       -> reset
    waiting     more of the header                      -> waiting
                its last byte                           -> adopted: Door.adopt
                bytes that are no header, or its end    -> reset
                HEADER_S without the last byte          -> reset
                a second after a stop began             -> closed
                the peer's end before its first byte    -> closed (a balancer's TCP check)

The header is looked at with MSG_PEEK and exactly its bytes are taken, so what follows stays in the kernel for the
protocol object, or for TLS. What has arrived of an incomplete header is taken too: left there it would wake the loop
again and again.
"""

from __future__ import annotations

import logging
import socket
from typing import Final

from lbproxy.dataplane.client.door import Door
from lbproxy.dataplane.net.last_bytes import reset_on_close
from lbproxy.dataplane.net.poller import READABLE, Pollable
from lbproxy.errors import BAD_PROXY_HEADER
from lbproxy.protocol.proxy_protocol import LIMIT_BYTES, ProxyHeader, ProxyHeaderError, parse
from lbproxy.telemetry.log import ThrottledLog
from lbproxy.telemetry.slots import LISTENER

HEADER_S: Final = 5.0
DRAIN_S: Final = 1.0
_REJECTED: Final = LISTENER.column("rejected_total", BAD_PROXY_HEADER.reason)


class ProxyHeaders:
    """What a listener with `proxy_protocol: accept` does with the sockets that it accepts."""

    def __init__(self, owner: Door) -> None:
        self.owner = owner
        self._log = ThrottledLog(logging.getLogger("lbproxy"), clock=owner.services.clock)

    def receive(self, sock: socket.socket, peer: object) -> None:
        """Take charge of a socket that was accepted and counted.

        A peer on a unix socket is trusted: the permissions of the file say who may connect (the config refuses
        abstract names, which have none).
        """
        ip = peer[0] if isinstance(peer, tuple) else ""
        if ip and not self.owner.runtime.is_trusted(ip):
            self.refuse(sock, ip, "it is not in trusted_proxies")
        else:
            _Waiting(self, sock, peer, ip).start()

    def refuse(self, sock: socket.socket, ip: str, why: str) -> None:
        """Reset, count and say why; nothing is answered."""
        owner = self.owner
        owner.runtime.row[_REJECTED] += 1
        # The reason is no part of the cause: text of a peer must not choose how much is logged.
        self._log.warning(
            f"{owner.runtime.name} {'trusted' if owner.runtime.is_trusted(ip) else 'other'}",
            "listener %s: a connection from %s was reset: %s",
            owner.runtime.name,
            ip or "a unix socket",
            why,
        )
        reset_on_close(sock)
        self.close(sock)

    def close(self, sock: socket.socket) -> None:
        sock.close()
        self.owner.connection_closed("")


class _Waiting(Pollable):
    """One socket whose header is not complete; swept (services.Swept)."""

    __slots__ = ("_buffer", "_deadline", "_headers", "_ip", "_is_watched", "_peer", "_sock")

    def __init__(self, headers: ProxyHeaders, sock: socket.socket, peer: object, ip: str) -> None:
        self._headers = headers
        self._sock = sock
        self._peer = peer
        self._ip = ip
        self._buffer = b""
        self._deadline = headers.owner.services.clock() + HEADER_S
        self._is_watched = False

    def start(self) -> None:
        services = self._headers.owner.services
        services.swept.add(self)
        services.poller.watch(self._sock.fileno(), READABLE, self)
        self._is_watched = True
        if services.is_draining:
            self.begin_drain(services.clock())

    def ready(self, events: int) -> None:
        try:
            header = self._read()
        except (BlockingIOError, InterruptedError):
            return
        except ProxyHeaderError as error:
            self._refuse(str(error))
        except OSError:  # it was reset
            self._end()
            self._headers.close(self._sock)
        except Exception as defect:  # confined to this connection
            self._headers.owner.services.internal_error("PROXY header", defect)
            self._refuse("internal error")
        else:
            if header is not None:
                self._hand_over(header)

    def crashed(self, error: Exception) -> None:
        self._refuse("internal error")

    def _read(self) -> ProxyHeader | None:
        """Take what has arrived of the header, and nothing behind it. None: it is not complete."""
        arrived = self._sock.recv(LIMIT_BYTES, socket.MSG_PEEK)
        if not arrived:
            if self._buffer:
                raise ProxyHeaderError("the connection ended inside its PROXY header")
            raise ConnectionResetError
        found = parse(self._buffer + arrived)
        size = len(arrived) if found is None else found[1] - len(self._buffer)
        taken = self._sock.recv(size)
        self._buffer += taken
        return found[0] if found is not None and len(taken) == size else None

    def _hand_over(self, header: ProxyHeader) -> None:
        services = self._headers.owner.services
        self._end()
        self._headers.owner.adopt(self._sock, self._peer, proxied=header)
        if services.is_draining:
            for item in list(services.swept):  # the newcomer has not been told; the others know already
                item.begin_drain(services.clock())

    def _unwatch(self) -> None:
        if self._is_watched:
            self._is_watched = False
            self._headers.owner.services.poller.forget(self._sock.fileno())

    def _end(self) -> None:
        self._unwatch()
        self._headers.owner.services.swept.discard(self)

    def _refuse(self, why: str) -> None:
        self._end()
        self._headers.refuse(self._sock, self._ip, why)

    # --- the sweeper's calls ----------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        if now < self._deadline:
            return
        if self._headers.owner.services.is_draining:
            self.shut_down()
        else:
            self._refuse("no complete PROXY header came in time")

    def buffered_bytes(self) -> int:
        return len(self._buffer)

    def begin_drain(self, now: float) -> None:
        """Stopping: the header may be on its way."""
        if self._is_watched:
            self._deadline = min(self._deadline, now + DRAIN_S)

    def shut_down(self) -> None:
        """The grace period is over; no work is cut."""
        if self._is_watched:
            self._end()
            self._headers.close(self._sock)
