"""A scripted server on a raw socket: it records every byte and every request, and misbehaves to order.

A script is a function of one connection. Scripts given to `Origin.script()` serve the next connections, one each, and
then the default takes over: it answers every request strictly and says in the answer which request it belongs to, so
that a test sees at once whether a client got somebody else's answer.

    def dies_in_the_head(c: Peer) -> None:
        c.read_request()
        c.send(b"HTTP/1.1 200 OK\r\nContent-Le")

    origin.script(dies_in_the_head)
"""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from tests.support.client import SEGMENT_GAP_S, linger_reset
from tests.support.ports import hold_port
from tests.support.wire import Ended, Request, Stream, WireError, read_request_body, read_request_head

IO_TIMEOUT_S = 90.0  # a script that lasts longer is given up; those of scenarios wait for what a test does
_WAKE_S = 5.0
FIN: Final = "fin"
RST: Final = "rst"
Step = bytes | threading.Event | str


class Stopped(Exception):
    """The test is over, or the connection ended before the script did."""


class Peer:
    """One accepted connection, as a script sees it."""

    def __init__(self, origin: Origin, number: int, sock: socket.socket) -> None:
        sock.settimeout(IO_TIMEOUT_S)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.origin = origin
        self.number = number
        self.sock = sock
        self.stream = Stream(sock)
        self.requests: list[Request] = []  # complete ones
        self.partial: Request | None = None  # a head whose body is not, or never became, complete
        self.closed = threading.Event()  # this connection is over, whoever ended it
        self.closed_at = 0.0
        self.is_abandoned = False  # the test is over
        self.is_broken_off = False  # ... and the connection ends with RST

    @property
    def received(self) -> bytes:
        """Every byte that came in so far."""
        return bytes(self.stream.record)

    @property
    def end(self) -> str | None:
        """How the proxy ended its direction: None, "fin" or "rst"."""
        return self.stream.end

    def read_head(self) -> Request:
        """The next request's head; its body stays unread."""
        request = read_request_head(self.stream)
        if request is None:
            raise Stopped
        request.connection = self.number
        self.partial = request
        return request

    def read_body(self, request: Request) -> Request:
        """The body of that request, which is then recorded as complete."""
        read_request_body(self.stream, request)
        self.partial = None
        self.requests.append(request)
        self.origin.record(request)
        return request

    def read_request(self) -> Request:
        """The next complete request."""
        return self.read_body(self.read_head())

    def send(self, *chunks: bytes) -> None:
        """Send the chunks, each as a segment of its own."""
        for number, chunk in enumerate(chunks):
            if number:
                time.sleep(SEGMENT_GAP_S)
            try:
                self.sock.sendall(chunk)
            except (BrokenPipeError, ConnectionResetError):
                raise Stopped from None

    def wait(self, event: threading.Event) -> None:
        """Hold the script until the test sets the event; the script ends here when the origin is reset instead."""
        deadline = time.monotonic() + IO_TIMEOUT_S
        while not event.wait(0.02):
            if self.is_abandoned or time.monotonic() > deadline:
                raise Stopped

    def read_to_end(self) -> str:
        """Read and record until the proxy ends the connection; says how."""
        self.stream.read_to_end()
        return self.stream.end or ""

    def fin(self) -> None:
        """Close the sending direction; the script may go on reading."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with RST."""
        linger_reset(self.sock)

    def serve(self) -> None:
        """Answer every further request as the origin's default does."""
        while True:
            request = self.read_request()
            self.send(self.origin.answer(request))
            if request.get("connection") == "close":
                return

    def _wrap(self, wrap: Callable[[socket.socket], socket.socket]) -> None:
        try:
            self.sock = wrap(self.sock)
        except OSError:  # ssl.SSLError, or the proxy has left
            self.origin.failed_handshakes += 1
            raise Stopped from None
        self.stream = Stream(self.sock)

    def run(self, script: Callable[[Peer], None]) -> None:
        """Run the script, keep what went wrong, close."""
        try:
            if self.origin.wrap is not None:
                self._wrap(self.origin.wrap)
            script(self)
        except (Stopped, TimeoutError):
            pass
        except Ended as ended:
            if isinstance(ended.partial, Request):
                self.partial = ended.partial
        except WireError as error:
            self.origin.violations.append(f"connection {self.number}: {error}")
        except ssl.SSLError:  # the proxy cut it off
            pass
        except OSError as error:
            if error.errno not in (errno.EBADF, errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN):
                raise
        finally:
            if self.is_broken_off:
                with contextlib.suppress(OSError):  # the script has closed it
                    self.reset()
            self.sock.close()
            self.closed_at = time.monotonic()
            self.closed.set()


Script = Callable[[Peer], None]


def echo(request: Request) -> bytes:
    """The default answer: the body names the request, `X-Connection` the connection that carried it."""
    body = f"{request.method} {request.target} {len(request.body)}\n".encode("latin-1")
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nX-Connection: {request.connection}\r\n\r\n".encode()
    return head if request.method == "HEAD" else head + body


class Origin:
    """A listening server. Every public list grows while the test runs and is emptied by `reset()`."""

    def __init__(
        self,
        *,
        path: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        answer: Callable[[Request], bytes] = echo,
        default: Script | None = None,
        wrap: Callable[[socket.socket], socket.socket] | None = None,
    ) -> None:
        """wrap: makes a TLS socket of an accepted one; `failed_handshakes` counts where it raised."""
        self.wrap = wrap
        self.failed_handshakes = 0
        self.answer = answer
        self.default: Script = default or Peer.serve
        self.peers: list[Peer] = []
        self.requests: list[Request] = []
        self.violations: list[str] = []  # bytes from the proxy that are not strict HTTP/1.1
        self._lock = threading.Lock()
        self._scripts: list[Script] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_INET if path is None else socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((host, port) if path is None else path)
        self.port: int = self._listener.getsockname()[1] if path is None else 0
        if path is None:
            hold_port(self, host, self.port)
        self._listener.listen(1024)
        self.address = f"{host}:{self.port}" if path is None else f"unix:{path}"
        self._acceptor = threading.Thread(target=self._accept, name="origin-accept", daemon=True)
        self._acceptor.start()

    def __enter__(self) -> Origin:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def script(self, *scripts: Script) -> None:
        """Serve the next connections with these, one each; later ones get the default."""
        with self._lock:
            self._scripts.extend(scripts)

    def record(self, request: Request) -> None:
        with self._lock:
            self.requests.append(request)

    @property
    def partials(self) -> list[Request]:
        """Requests whose head came but whose body did not (yet)."""
        return [peer.partial for peer in self.peers if peer.partial is not None]

    @property
    def open_connections(self) -> int:
        return sum(not peer.closed.is_set() for peer in self.peers)

    def reset(self) -> None:
        """Break off every connection, forget all scripts and records.

        With RST, by the thread that serves it: from a FIN the daemon learns how long, and for how many requests, this
        server keeps connections, and the next test would meet what the end of this one taught.
        """
        for peer in self.peers:
            peer.is_abandoned = peer.is_broken_off = True
            with contextlib.suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RD)  # wakes who reads, and sends nothing
        deadline = time.monotonic() + _WAKE_S
        for peer in self.peers:
            peer.closed.wait(max(0.0, deadline - time.monotonic()))
        self._end()

    def close(self) -> None:
        """Stop listening and end every connection and thread, as a server that stops does."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join(IO_TIMEOUT_S)  # first: what it has just accepted is to be ended, too
        self._end()

    def _end(self) -> None:
        for peer in self.peers:
            peer.is_abandoned = True
            with contextlib.suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)
        for peer in self.peers:
            peer.closed.wait(IO_TIMEOUT_S)
        with self._lock:
            self.peers.clear()
            self.requests.clear()
            self.violations.clear()
            self._scripts.clear()

    def _accept(self) -> None:
        number = 0
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                peer = Peer(self, number, sock)
                script = self._scripts.pop(0) if self._scripts else self.default
                self.peers.append(peer)
            number += 1
            threading.Thread(target=peer.run, args=(script,), name=f"origin-{number}", daemon=True).start()


def steps(*what: Step) -> Script:
    """A script that reads one request and then plays: bytes to send, an event to wait for, FIN or RST.

    After FIN it reads until the proxy has closed too; without FIN or RST it goes on to serve.
    """

    def script(c: Peer) -> None:
        c.read_request()
        for step in what:
            if isinstance(step, bytes):
                c.send(step)
            elif isinstance(step, threading.Event):
                c.wait(step)
            elif step == FIN:
                c.fin()
                c.read_to_end()
                return
            else:
                c.reset()
                return
        c.serve()

    return script


def close_at_once(c: Peer) -> None:
    """FIN before reading anything."""
    c.fin()
    c.read_to_end()


def close_unanswered(c: Peer) -> None:
    """Read one request, then FIN without a byte."""
    c.read_request()
    c.fin()
    c.read_to_end()


def reset_unanswered(c: Peer) -> None:
    """Read one request, then RST without a byte."""
    c.read_request()
    c.reset()


def stalls_after(data: bytes) -> Script:
    """Read one request, send this much, and then nothing until the proxy gives up."""

    def script(c: Peer) -> None:
        c.read_request()
        c.send(data)
        c.read_to_end()

    return script


def silent(c: Peer) -> None:
    """Read one request and never answer."""
    c.read_request()
    c.read_to_end()


@contextlib.contextmanager
def refusing_port() -> Iterator[int]:
    """A port that refuses connections and that nobody else can get meanwhile: bound, not listening."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@contextlib.contextmanager
def black_hole_port() -> Iterator[int]:
    """A port whose SYNs get no answer: it listens with a full backlog and never accepts."""
    with socket.socket() as listener, contextlib.ExitStack() as fillers:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(4):
            filler = fillers.enter_context(socket.socket())
            filler.settimeout(0.1)
            try:
                filler.connect(address)
            except TimeoutError:
                break
        yield address[1]
