"""Listening sockets: binding, the accept gate, and the end of accepting.

Connections are accepted one by one, up to the limit and not one more; what is over the limit, or comes while too much
is buffered, stays in the kernel's queue until there is room.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import resource
import select
import socket
from dataclasses import dataclass
from typing import Final

from lbproxy import errors
from lbproxy.address import Address
from lbproxy.compiling import mypyc_attr
from lbproxy.dataplane.client.door import Door
from lbproxy.dataplane.client.gate import ConnectionGate
from lbproxy.dataplane.client.http1 import Http1Connection
from lbproxy.dataplane.client.http2 import Http2Connection
from lbproxy.dataplane.client.proxy_header import ProxyHeaders
from lbproxy.dataplane.client_tls import ClientTlsTransport
from lbproxy.dataplane.exchange.client_facts import ClientFacts
from lbproxy.dataplane.exchange.prepared import Prepared
from lbproxy.dataplane.net.acceptor import REASONS, Acceptor
from lbproxy.dataplane.net.poller import EDGE, READABLE
from lbproxy.dataplane.net.socket_transport import SocketTransport, plain_socket
from lbproxy.dataplane.net.splice import FDS_PER_FLOW, MOST_FLOWS, flow_limit
from lbproxy.dataplane.net.unix_socket import SocketFile, bind_hint, bind_unix
from lbproxy.dataplane.runtime import MAX_HEAD_BYTES, MAX_HEADS, ListenerRuntime
from lbproxy.dataplane.services import Services
from lbproxy.dataplane.tcp.session import TcpClient
from lbproxy.errors import Fault
from lbproxy.protocol.proxy_protocol import ProxyHeader
from lbproxy.protocol.repeats import Repeats
from lbproxy.telemetry.log import ThrottledLog
from lbproxy.telemetry.slots import LISTENER

log = logging.getLogger("lbproxy")

_ACCEPTED: Final = LISTENER.column("client_connections_total")
_FAILED: Final = {reason: LISTENER.column("accept_errors_total", reason) for reason in REASONS}
# Descriptors for everything that is no connection: epolls, logs, admin, checks, Python's own.
BASE_FDS: Final = 40
SPARE_FDS: Final = 8  # checks and dials in progress take some
ADMIN_CONNECTIONS: Final = 64
ADMIN_CLOSING: Final = 16  # control.admin_guard: given up, and closed in the next turns of the loop
ADMIN_FDS: Final = ADMIN_CONNECTIONS + ADMIN_CLOSING
_STREAM: Final = int(socket.SOCK_STREAM)
_UNIX: Final = int(socket.AF_UNIX)
BACKLOG: Final = 1024  # a shorter queue loses SYNs, and their clients wait seconds for TCP to try again
DEFAULT_LIMIT: Final = 10_000
RETRY_ACCEPT_S: Final = 0.1


class BindError(Exception):
    """A listener that can't be opened; the text is for the user."""


@dataclass(frozen=True, slots=True)
class ConnectionPlan:
    """limit: client connections at once, of this process.

    flows: how many directions may be spliced at once; only descriptors that no connection can need are used for it.
    admin: connections of the admin address at once.
    """

    limit: int
    warning: str
    flows: int
    admin: int = ADMIN_CONNECTIONS


def plan_connections(wanted: int | None, *, has_admin: bool = True, n_processes: int = 1) -> ConnectionPlan:
    """How many clients RLIMIT_NOFILE allows; its soft limit is raised to the hard one first.

    Every client may need a server connection, so twice the limit and the base must fit. The admin address has its own
    share, so that neither those who scrape nor those who are served can shut the others out. n_processes: that have the
    limit in common; each of them may have all that its own descriptors allow.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # a lower soft limit stays, and the plan below respects it
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    if soft == resource.RLIM_INFINITY:
        return ConnectionPlan(wanted or DEFAULT_LIMIT, "", MOST_FLOWS)
    admin = _admin_share(soft) if has_admin else 0
    base = min(BASE_FDS + admin + min(ADMIN_CLOSING, admin), soft // 2)
    available = soft - base
    if wanted is None:
        available -= min(MOST_FLOWS * FDS_PER_FLOW, soft // 16)  # for splicing
    most = max(1, (available - SPARE_FDS) // 2)
    limit = min(wanted or DEFAULT_LIMIT, most)
    warning = ""
    if wanted is not None and limit * n_processes < wanted:
        warning = (
            f"limits.connections is lowered from {wanted} to {limit * n_processes}: the limit of open files is "
            f"{soft}; raise it (ulimit -n {2 * wanted + SPARE_FDS + BASE_FDS + ADMIN_FDS}, LimitNOFILE=)"
        )
    flows = flow_limit(soft, limit, base + SPARE_FDS)
    return ConnectionPlan(limit, warning, flows, admin)


def admin_connections() -> int:
    """How many connections the admin address may have, where there is one."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return ADMIN_CONNECTIONS if soft == resource.RLIM_INFINITY else _admin_share(soft)


def _admin_share(open_files: int) -> int:
    return min(ADMIN_CONNECTIONS, max(2, open_files // 16))


@mypyc_attr(allow_interpreted_subclasses=True)
class Listener(Door):
    """One entry of `listeners`: its sockets and the connections that came through them."""

    __slots__ = (
        "_acceptors",
        "_gate",
        "_is_closed",
        "_is_paused",
        "_log",
        "_own_unix",
        "_per_ip",
        "_proxy_headers",
        "_socket_files",
        "_sockets",
        "n_connections",
    )

    def __init__(self, services: Services, runtime: ListenerRuntime, gate: ConnectionGate) -> None:
        self.services = services
        self._gate = gate
        self._per_ip = runtime.per_ip
        self.n_connections = 0
        self.n_streams = 0
        self._use(runtime)
        self._sockets: list[socket.socket] = []
        self._acceptors: list[Acceptor] = []
        self._log = ThrottledLog(log)
        self._socket_files: list[SocketFile] = []
        self._own_unix: list[socket.socket] = []
        self._is_paused = False
        self._is_closed = False
        gate.add(self)

    # --- settings ---------------------------------------------------------------------------------------------------

    runtime: ListenerRuntime
    memo: Repeats[Prepared]
    memo_trusted: Repeats[Prepared]
    http2_memo: Repeats[Prepared]
    http2_memo_trusted: Repeats[Prepared]
    _proxy_headers: ProxyHeaders | None

    def _use(self, runtime: ListenerRuntime) -> None:
        self.runtime = runtime
        # By trust, which changes what is forwarded.
        self.memo = Repeats(most=MAX_HEADS, longest=MAX_HEAD_BYTES)
        self.memo_trusted = Repeats(most=MAX_HEADS, longest=MAX_HEAD_BYTES)
        self.http2_memo = Repeats(most=MAX_HEADS, longest=MAX_HEAD_BYTES)
        self.http2_memo_trusted = Repeats(most=MAX_HEADS, longest=MAX_HEAD_BYTES)
        self._proxy_headers = ProxyHeaders(self) if runtime.takes_proxy_header else None

    def renew(self, runtime: ListenerRuntime) -> None:
        """Other settings from the next connection and the next request head on. The mode must be the same."""
        self._per_ip.limit = runtime.connections_per_ip
        self._use(runtime)

    # --- opening and closing ----------------------------------------------------------------------------------------

    def bind(self, addresses: tuple[Address, ...], mode_bits: int | None, *, shares_port: bool = False) -> None:
        """Open the listening sockets. Raises BindError with a sentence; nothing stays open then.

        shares_port: beside sockets of this process that do the same (`share_port`).
        """
        try:
            for address in addresses:
                if address.is_unix:
                    sock, file = bind_unix(address, mode_bits, BACKLOG)
                    self._sockets.append(sock)
                    self._own_unix.append(sock)
                    if file is not None:
                        self._socket_files.append(file)
                else:
                    self._sockets += bind_tcp(address, shares_port=shares_port)
        except OSError as error:
            self.close_sockets()
            raise BindError(bind_message(f"listener {self.runtime.name}", address, error)) from None

    def inherit(
        self, sockets: list[socket.socket], file: SocketFile | None, mode_bits: int | None, *, is_ours: bool
    ) -> None:
        """Listen on sockets that another process has opened. file: of a unix socket, which is this listener's now.
        is_ours: see process/upgrade/sockets.py."""
        self._sockets += sockets
        if is_ours:
            self._own_unix += [sock for sock in sockets if sock.family == socket.AF_UNIX]
        if file is not None:
            self._socket_files.append(file)
            file.set_mode(mode_bits)

    @property
    def socket_file(self) -> SocketFile | None:
        """The file of its unix socket, if that has one."""
        return self._socket_files[0] if self._socket_files else None

    @property
    def addresses(self) -> list[str]:
        """What is really listened on, with the ports that the kernel chose; several sockets may have one."""
        return list(dict.fromkeys(shown(sock) for sock in self._sockets))

    @property
    def ports(self) -> list[int]:
        """The TCP ports among them."""
        return [sock.getsockname()[1] for sock in self._sockets if sock.family != socket.AF_UNIX]

    def set_mode(self, mode_bits: int | None) -> None:
        """Give the file of a unix socket other permissions."""
        for file in self._socket_files:
            file.set_mode(mode_bits)

    def filenos(self) -> list[int]:
        """The listening sockets' descriptors."""
        return [sock.fileno() for sock in self._sockets]

    def start(self) -> None:
        """Begin to accept."""
        self._acceptors = [Acceptor(self, sock) for sock in self._sockets]
        self._watch(READABLE)
        if not self._gate.is_open:
            self.wait_for_room()

    def _watch(self, events: int) -> None:
        for acceptor in self._acceptors:
            self.services.poller.watch(acceptor.fd, events, acceptor)

    def _unwatch(self) -> None:
        for acceptor in self._acceptors:
            self.services.poller.forget(acceptor.fd)

    @property
    def may_accept(self) -> bool:
        return not self._is_paused and self._gate.n_connections < self._gate.limit

    def somebody_waits(self) -> None:
        if self.has_queued:
            self._gate.make_room()

    @property
    def has_queued(self) -> bool:
        """Does somebody wait in the kernel's queue? Nobody does at a socket that another worker has turned newcomers
        away from: that one has taken all."""
        poll = select.poll()
        for fd in self.filenos():
            poll.register(fd, select.POLLIN | select.POLLRDHUP)
        return any(not events & select.POLLRDHUP for _, events in poll.poll(0))

    def accept_failed(self, reason: str, error: OSError) -> None:
        self.runtime.row[_FAILED[reason]] += 1
        self._log.warning(
            f"accept {reason}", "listener %s: a connection could not be accepted: %s", self.runtime.name, error.strerror
        )

    def accepted(self, fd: int, family: int, peer: object, local: object) -> None:
        if family != _UNIX and not self._is_closed and self._gate.passes_on(self.runtime.name, fd, peer):
            os.close(fd)
            return
        self._receive(fd, family, peer, local)

    def take_over(self, connection: socket.socket, peer: object) -> None:
        """Serve a connection that another worker has accepted. peer: its address, which the kernel does not tell any
        more if it was reset meanwhile."""
        self._gate.receives()
        connection.setblocking(False)
        family = int(connection.family)
        self._receive(connection.detach(), family, peer, None)

    def _receive(self, fd: int, family: int, peer: object, local: object) -> None:
        self._count()
        if self._proxy_headers is None and family != _UNIX:
            self._serve(None, peer, local, None, fd, family)
            return
        connection = plain_socket(family, _STREAM, 0, fd)
        connection.setblocking(False)
        if self._proxy_headers is not None:
            self._proxy_headers.receive(connection, peer)
        else:
            self.adopt(connection, peer, local)

    def adopt(
        self, connection: socket.socket, peer: object, local: object = None, proxied: ProxyHeader | None = None
    ) -> None:
        """See Door."""
        self._serve(connection, peer, local, proxied, -1, 0)

    def _serve(
        self,
        connection: socket.socket | None,
        peer: object,
        local: object,
        proxied: ProxyHeader | None,
        fd: int,
        family: int,
    ) -> None:
        """fd, family: in place of a socket, as `SocketTransport` takes them."""
        ip = peer[0] if isinstance(peer, tuple) and peer else ""
        if proxied is not None:
            ip, _ = proxied.seen_from(ip, 0)
        try:
            protocol = self._protocol(proxied, self.admit(ip))
        except Exception as error:  # a defect: confined to this connection
            self.services.internal_error("accept", error)
            if connection is None:
                os.close(fd)
            else:
                connection.close()
            self.connection_closed(ip)
            return
        SocketTransport(self.services.poller, connection, peer, local, fd, family).start(protocol)

    def try_later(self) -> None:
        self.pause()
        self.services.loop.call_later(RETRY_ACCEPT_S, self.resume)

    def _count(self) -> None:
        self.runtime.row[_ACCEPTED] += 1
        self.n_connections += 1
        self._gate.opened()

    def _protocol(self, proxied: ProxyHeader | None, refusal: Fault | None) -> asyncio.BaseProtocol:
        if self.runtime.tls is not None:
            return ClientTlsTransport(self, self.runtime.tls, proxied, refusal)
        if self.runtime.mode == "http":
            return Http1Connection(self, ClientFacts(self.runtime, proxied), refusal)
        return TcpClient(self, proxied, refusal)

    def admit(self, ip: str) -> Fault | None:
        """Count a connection of this address; the fault to answer if it has too many already."""
        return None if self._per_ip.enter(ip) else errors.TOO_MANY_PER_IP

    def connection_closed(self, ip: str) -> None:
        """See Door."""
        self.n_connections -= 1
        self._per_ip.leave(ip)
        self._gate.closed()

    def pause(self) -> None:
        """Leave new connections in the kernel's queue."""
        if not self._is_paused and not self._is_closed:
            self._is_paused = True
            self._unwatch()

    def wait_for_room(self) -> None:
        """The same, but hear of each newcomer."""
        if not self._is_paused and not self._is_closed:
            self._is_paused = True
            for acceptor in self._acceptors:
                self.services.poller.change(acceptor.fd, READABLE | EDGE)

    def resume(self) -> None:
        """Accept again, unless the gate is shut: it calls this when it opens. Watching would spin until then."""
        if self._is_paused and not self._is_closed and self._gate.is_open:
            self._is_paused = False
            self._unwatch()
            self._watch(READABLE)

    def close(self, *, is_last: bool = True) -> None:
        """Stop accepting for good. Connections that were accepted go on, and so do those that came in this moment.
        is_last: no other lbproxy may have the sockets, and go on with them."""
        if is_last:
            self._turn_away()
        if not self._is_paused:
            self._accept_all()
        self._unwatch()
        self._is_closed = True
        self.close_sockets()

    def _turn_away(self) -> None:
        """Nobody new comes to the unix sockets of this lbproxy, in whatever process: connect(2) is refused. Who is in
        the queue can be accepted still; without this, who comes between the last accept(2) and the close would be
        reset. There is no way back."""
        for sock in self._own_unix:
            with contextlib.suppress(OSError):  # not Linux: as it would be without
                sock.shutdown(socket.SHUT_RD)

    def _accept_all(self) -> None:
        """Who is in the kernel's queue was let in, and would be reset with it. All in one turn, since nothing closes a
        queue for newcomers alone. It holds one more than it was told to (listen(2), Linux)."""
        for acceptor in self._acceptors:
            acceptor.accept(BACKLOG + 1)

    def leave(self, now: float, heir: Listener | None = None) -> None:
        """Accept nobody any more, and let those go who are here: with their answer, or a second from now if they wait
        for none. Tunnels and TCP connections live until they end. heir: gets the sockets, with who waits there."""
        self._gate.remove(self)
        if heir is None:
            self._turn_away()
            if not self._is_paused:
                self._accept_all()
        self._unwatch()
        if heir is not None:
            heir._sockets, self._sockets = self._sockets, []
            heir._own_unix, self._own_unix = self._own_unix, []
            heir._socket_files, self._socket_files = self._socket_files, []
        self._is_closed = True
        self.close_sockets()
        self._use(self.runtime.leaving())
        for client in self._clients():
            client.end_with_answer(now)

    def hand_over(self) -> None:
        """Another process has the same sockets and accepts on them: leave them to it. Who waits there is taken first:
        the other one may have been told to stop already, and have closed its copies."""
        if not self._is_paused:
            self._accept_all()
        self._unwatch()
        self._is_closed = True
        self._socket_files.clear()
        self.close_sockets()

    def sweep_leaving(self, now: float) -> bool:
        """After `leave`, now and then: who has had an answer has a second for another request. True: all are gone."""
        if self.n_connections:
            for client in self._clients():
                client.begin_drain(now)
        return not self.n_connections

    def _clients(self) -> list[Http1Connection | Http2Connection]:
        return [
            item
            for item in self.services.swept
            if isinstance(item, (Http1Connection, Http2Connection)) and item.comes_through(self)
        ]

    def share_port(self, is_shared: bool) -> None:
        """May another socket of this process be bound to an address that overlaps with this one's?"""
        for sock in self._sockets:
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, is_shared)

    def close_sockets(self) -> None:
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()
        self._own_unix.clear()
        for file in self._socket_files:
            file.remove()
        self._socket_files.clear()


def bind_tcp(address: Address, *, shares_port: bool) -> list[socket.socket]:
    """Sockets for one address: a name may mean several. The first decides the port if the kernel chooses it.

    Raises OSError; nothing stays open then.
    """
    infos = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_ADDRCONFIG
    )
    sockets: list[socket.socket] = []
    try:
        for info in dict.fromkeys(infos):
            sockets.append(listen_tcp(info[0], info[4], shares_port=shares_port))
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def listen_tcp(family: int, sockaddr: object, *, shares_port: bool) -> socket.socket:
    """One listening socket. shares_port: with others that say so, too. Raises OSError."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shares_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # the connections inherit it
        sock.bind(sockaddr)  # type: ignore[arg-type]  # of getaddrinfo, or getsockname
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


_BIND_HINTS: Final = {
    errno.EADDRINUSE: "something else listens there; stop it or choose another port",
    errno.EACCES: "no permission; ports below 1024 need root or CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: "this machine does not have that address",
}


def bind_message(what: str, address: Address, error: OSError) -> str:
    """What went wrong and what to do. what: whose address it is."""
    if isinstance(error, socket.gaierror):
        return f"{what}: the host of {address} does not resolve: {error.strerror}"
    number = error.errno or 0
    hint = bind_hint(error) if address.is_unix else _BIND_HINTS.get(number, "")
    # asyncio puts a sentence with the address into strerror; a unix socket's own words say more than the system's.
    reason = os.strerror(number) if number > 0 and not address.is_unix else error.strerror or str(error)
    text = f"{what}: cannot listen on {address}: {reason}"
    return f"{text} ({hint})" if hint else text


def shown(sock: socket.socket) -> str:
    """Where it is bound, for people."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        text = name.decode() if isinstance(name, bytes) else name
        return f"unix:{'@' + text[1:] if text.startswith(chr(0)) else text}"
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
