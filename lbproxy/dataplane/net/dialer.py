"""Connecting a socket to a server: at once where the kernel can, else when the poller says so.

On loopback the handshake is over when connect(2) returns, although it says EINPROGRESS: it holds the socket's lock
until then. A second connect(2) tells (0, EALREADY or the error), and then the request can be sent in the same turn of
the loop, without a task. That is one system call (0.4 us) more for connections to other machines.

For TCP all of it is one word of the compiler (`dial_now`), and a connection that stands at once has no socket object:
made, asked and closed in Python that costs as much as a third of the whole relaying of a short connection.

A dial to a port of this machine on which nobody listens can meet itself: if the kernel chooses just that port for our
end, both ends of the "connection" are one socket, which answers each request with that request. So the two ends of each
new connection are compared, and such a one counts as refused.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable
from typing import Final, TypeVar, cast

from lbproxy.address import Address
from lbproxy.compiling import close_now, dial_now, mypyc_attr, write_now
from lbproxy.dataplane.net.backlog import Backlog
from lbproxy.dataplane.net.last_bytes import reset_on_close
from lbproxy.dataplane.net.poller import WRITABLE, Pollable, Poller
from lbproxy.dataplane.net.socket_transport import SocketTransport, plain_socket

Q = TypeVar("Q", bound=asyncio.BaseProtocol)
Name = tuple[str, int] | tuple[str, int, int, int] | str
Target = tuple[int, Name, bytes]
"""Family, sockaddr as Python has it and as the kernel has it, which is empty for a unix socket."""

_IN_PROGRESS: Final[tuple[int, ...]] = (errno.EINPROGRESS, errno.EALREADY, errno.EINTR)
# As numbers: the constants of Python's module are enums, and an attribute of a module costs 280 instructions each time.
_EINPROGRESS: Final = errno.EINPROGRESS
_UNIX: Final = int(socket.AF_UNIX)
_STREAM: Final = int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
_TCP: Final = int(socket.IPPROTO_TCP)
_NODELAY: Final = int(socket.TCP_NODELAY)
MOST_TARGETS: Final = 1024


@mypyc_attr(allow_interpreted_subclasses=True)
class Opening:
    """One connection on its way. is_open: it stands, and `attach` may be called instead of `connect`."""

    __slots__ = ("_address", "_dialer", "_error", "_family", "_fd", "_sock", "is_open")

    def __init__(self, dialer: Dialer, address: Address) -> None:
        self._dialer = dialer
        self._address = address
        self._sock: socket.socket | None = None
        self._fd = -1  # in place of a socket, of an open connection that `attach` was not called for
        self._family = _UNIX
        self._error = 0
        self.is_open = False
        try:
            family, target, name = dialer.target(address)
            self._family = family
            if name and dialer.is_plain:
                self._dial(name)
                return
            if family == _UNIX and dialer.has_waiters(address):
                self._error = errno.EAGAIN  # they were first
                return
            sock = self._sock = dialer.make_socket(family, _STREAM)
            number = sock.connect_ex(target)
            if number == _EINPROGRESS:
                number = sock.connect_ex(target)
            if not number:
                if family != _UNIX:
                    refuse_itself(sock, address.port)
                    sock.setsockopt(_TCP, _NODELAY, 1)
                self.is_open = True
            elif number not in _IN_PROGRESS:
                self._error = number
        except OSError as error:  # `connect` raises it: who dials takes failures from the loop only
            self._error = error.errno if error.errno and error.errno > 0 else errno.EINVAL  # getaddrinfo's are negative

    def _dial(self, name: bytes) -> None:
        found = dial_now(self._family, name)
        if found < 0:
            self._error = -found
        elif found & 1:
            self._fd = found >> 1
            self.is_open = True
        else:  # a socket object closes itself if nobody comes for it
            self._sock = plain_socket(self._family, _STREAM, 0, found >> 1)

    def attach(self, protocol: Q) -> Q:
        """Give the open connection to a protocol object."""
        sock, self._sock = self._sock, None
        fd, self._fd = self._fd, -1
        assert sock is not None or fd >= 0
        SocketTransport(self._dialer.poller, sock, fd=fd, family=self._family).start(protocol)
        return protocol

    async def connect(self, factory: Callable[[], Q], header: bytes) -> Q:
        """Wait until it stands, send the header, attach. Raises OSError; the caller's time-out cancels it."""
        try:
            await self._connected()
            if header:
                self._send(header)
        except BaseException:  # also when it is cancelled: nobody else knows of this socket
            self.close()
            raise
        return self.attach(factory())

    def _send(self, header: bytes) -> None:
        """A socket that was just opened has room for it; so it is a segment of its own."""
        sent = write_now(self._fd, header) if self._sock is None else self._sock.send(header)
        if sent < len(header):
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))

    async def _connected(self) -> None:
        if self.is_open:
            return
        if self._address.is_unix and self._error == errno.EAGAIN:
            self.close()
            self._sock = await self._dialer.backlog(self._address).connect()
            return
        if self._error:
            raise OSError(self._error, os.strerror(self._error))
        assert self._sock is not None
        fd, poller = self._sock.fileno(), self._dialer.poller
        wait = _Wait(self._dialer, self._sock, self._dialer.target(self._address))
        poller.watch(fd, WRITABLE, wait)
        try:
            await wait.done
        finally:  # before the socket is closed, after which the number may be another's
            poller.forget(fd)
        refuse_itself(self._sock, self._address.port)
        self._sock.setsockopt(_TCP, _NODELAY, 1)

    def close(self) -> None:
        """Nobody wants it any more."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        if self._fd >= 0:
            close_now(self._fd)
            self._fd = -1


class _Wait(Pollable):
    """Waits until a connection is established or has failed."""

    __slots__ = ("_sock", "_target", "done")

    def __init__(self, dialer: Dialer, sock: socket.socket, target: Target) -> None:
        self._sock = sock
        self._target = target
        self.done: asyncio.Future[None] = dialer.loop.create_future()

    def ready(self, events: int) -> None:
        if self.done.done():
            return
        number = self._sock.connect_ex(self._target[1])
        if number in _IN_PROGRESS:
            return  # the event was meant for an earlier socket with this number
        if number:
            self.done.set_exception(OSError(number, os.strerror(number)))
        else:
            self.done.set_result(None)

    def crashed(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


@mypyc_attr(allow_interpreted_subclasses=True)
class Dialer:
    """Begins connections to literal addresses."""

    __slots__ = ("_backlogs", "_targets", "is_plain", "loop", "make_socket", "poller")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        poller: Poller,
        make_socket: Callable[[int, int], socket.socket] = plain_socket,
    ) -> None:
        self.make_socket = make_socket
        self.is_plain = make_socket is plain_socket
        self.loop = loop
        self.poller = poller
        # By identity: an Address is hashed by Python code, and each server keeps the one that it has.
        self._targets: dict[int, tuple[Address, Target]] = {}
        self._backlogs: dict[str, Backlog] = {}  # of unix servers that somebody waits for

    def begin(self, address: Address) -> Opening:
        """Connect. Raises nothing: look at `is_open`, or await `connect`."""
        return Opening(self, address)

    def has_waiters(self, address: Address) -> bool:
        """Does somebody wait for room in the accept queue of this unix server?"""
        return bool(self._backlogs) and address.sock_path in self._backlogs

    def backlog(self, address: Address) -> Backlog:
        """Those who wait for room there; `connect` joins them."""
        path = address.sock_path
        found = self._backlogs.get(path)
        if found is None:
            found = Backlog(self.loop, path, self.make_socket, lambda: self._backlogs.pop(path, None))
            self._backlogs[path] = found
        return found

    def target(self, address: Address) -> Target:
        """What the kernel calls this address. Raises OSError for a scope that is no interface (fe80::1%eth9)."""
        found = self._targets.get(id(address))
        if found is None or found[0] is not address:
            if len(self._targets) >= MOST_TARGETS:  # servers come and go
                self._targets.clear()
            found = self._targets[id(address)] = address, target_of(address)
        return found[1]


def refuse_itself(sock: socket.socket, port: int) -> None:
    """Raises ConnectionRefusedError, and closes the socket, if both ends of this TCP connection are itself.

    It is closed with a reset: after a FIN it would hold the port for a minute, which the server that is meant to listen
    there could then not have.
    """
    own = sock.getsockname()
    if own[1] == port and own == sock.getpeername():  # asked second: ports are hardly ever the same
        reset_on_close(sock)
        sock.close()
        raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens there")


def target_of(address: Address) -> Target:
    """What the kernel calls a literal address. Raises OSError for a scope that is no interface."""
    if address.is_unix:
        return _UNIX, address.sock_path, b""
    flags = socket.AI_NUMERICHOST  # nothing is looked up; it reads the scope of fe80::1%eth0
    family, *_, found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=flags)[0]
    host, port, flow, scope = cast(tuple[str, int, int, int], (*found, 0, 0)[:4])
    octets = socket.inet_pton(family, host.partition("%")[0])
    if family == socket.AF_INET:
        name = struct.pack("=H2s4s8x", family, port.to_bytes(2, "big"), octets)
    else:
        name = struct.pack("=H2s4s16sI", family, port.to_bytes(2, "big"), flow.to_bytes(4, "big"), octets, scope)
    return int(family), cast(tuple[str, int] | tuple[str, int, int, int], found), name
