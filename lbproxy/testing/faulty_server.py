"""A server that answers as it is told: slowly, with errors, half, or not at all; and says what it was asked."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

MAX_HEAD: Final = 1 << 20
_STOP_S: Final = 10.0


@dataclass(frozen=True)
class Request:
    """What the server was asked. Names of headers are in lower case; of those that come twice the last counts."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What the server does with one request.

    delay: seconds before it does anything. fault: `reset`: the connection is reset in place of an answer; `close`: it
    is closed; `hang`: nothing comes until the other side gives up; `half`: head and half of the body, then a reset.
    """

    status: int = 200
    body: bytes | str = b"ok\n"
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    fault: Literal["", "reset", "close", "hang", "half"] = ""

    def encoded(self, method: str = "GET") -> bytes:
        """The answer as bytes, whole."""
        body = self.body.encode() if isinstance(self.body, str) else self.body
        lines = [f"HTTP/1.1 {self.status} X"]
        fields = {name.lower() for name in self.headers}
        if not self.is_bodiless and not {"content-length", "transfer-encoding"} & fields:
            lines.append(f"Content-Length: {len(body)}")
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        return head if method == "HEAD" or self.is_bodiless else head + body

    @property
    def is_bodiless(self) -> bool:
        """Is it one that has no body (RFC 9110)?"""
        return self.status < 200 or self.status in (204, 304)


class FaultyServer:
    """An HTTP/1.1 server on a free port of 127.0.0.1, with a thread for each connection.

    script: answers for the next requests, one each; what comes then gets `default`, a good answer unless it is set.
    paths: answers for requests to these paths, whatever the script says: health checks, as a rule.
    """

    def __init__(
        self, *script: Answer, default: Answer | None = None, paths: Mapping[str, Answer] | None = None
    ) -> None:
        self.default = default or Answer()
        self.paths = dict(paths or {})
        self.requests: list[Request] = []
        self.connections = 0
        self._script = list(script)
        self._port = 0
        self._listener: socket.socket | None = None
        self._is_held = False
        self._open: dict[socket.socket, threading.Thread] = {}
        self._acceptor: threading.Thread | None = None
        self._stopped = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self) -> FaultyServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __str__(self) -> str:
        """Its address, `127.0.0.1:PORT`, as a config has it."""
        return self.address

    @property
    def address(self) -> str:
        """`127.0.0.1:PORT`; the same after `stop` and `start`."""
        return f"127.0.0.1:{self._port}"

    def script(self, *answers: Answer) -> None:
        """Answers for the next requests, one each, behind those that are still to be given."""
        with self._lock:
            self._script += answers

    def count(self, path: str = "") -> int:
        """How many requests it got; with a path, to this path, whatever their query."""
        return sum(not path or request.target.partition("?")[0] == path for request in self.requests)

    # --- life -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Listen, on the port of before if there was one."""
        if self._listener is not None:
            return
        self._stopped.clear()
        listener = _bound(self._port)
        self._port = listener.getsockname()[1]
        if not self._is_held:
            self._hold_port()
        listener.listen(512)
        self._listener = listener
        self._acceptor = threading.Thread(target=self._accept, args=(listener,), daemon=True)
        self._acceptor.start()

    def stop(self) -> None:
        """Refuse connections, and close those that are open, as if the process had died. `start` brings it back."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        self._stopped.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes who accepts
        if self._acceptor is not None:
            self._acceptor.join(_STOP_S)
        listener.close()
        with self._lock:
            still_open = dict(self._open)
        for sock in still_open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in still_open.values():
            thread.join(_STOP_S)

    def _hold_port(self) -> None:
        """Nobody else is given the port as long as this object lives: not while nobody listens there, either.

        The kernel lets several sockets have an address if all say SO_REUSEADDR and only one of them listens.
        """
        holder = _bound(self._port)
        weakref.finalize(self, holder.close)
        self._is_held = True

    # --- connections ------------------------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        while not self._stopped.is_set():
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            with self._lock:
                self.connections += 1
                self._open[sock] = thread
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            reader = _Reader(sock)
            while (request := reader.request()) is not None and self._answer(sock, request):
                pass
        except (OSError, ValueError):
            pass  # the other side has left, or `stop` was called; a length that is no number
        finally:
            with self._lock:
                del self._open[sock]
            sock.close()

    def _answer(self, sock: socket.socket, request: Request) -> bool:
        """Do what the script says. True if the connection can take another request."""
        path = request.target.partition("?")[0]
        with self._lock:
            self.requests.append(request)
            answer = self.paths.get(path) or (self._script.pop(0) if self._script else self.default)
        if answer.delay and self._stopped.wait(answer.delay):
            return False
        if answer.fault == "hang":
            sock.recv(1)  # until it is closed, or the next request comes
            return False
        if answer.fault in ("reset", "half"):
            if answer.fault == "half":
                whole = answer.encoded(request.method)
                head = whole.index(b"\r\n\r\n") + 4
                sock.sendall(whole[: head + (len(whole) - head) // 2])
            # Closing with a linger time of 0 is a reset.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        if answer.fault == "close":
            return False
        sock.sendall(answer.encoded(request.method))
        return "close" not in (request.headers.get("connection"), dict(answer.headers).get("Connection"))


def _bound(port: int) -> socket.socket:
    sock = socket.socket()
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
    except BaseException:
        sock.close()
        raise
    return sock


class _Reader:
    """Requests from a connection, one after the other."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = b""

    def request(self) -> Request | None:
        """The next one; None when there is none, or it is not HTTP."""
        head = self._until(b"\r\n\r\n")
        if head is None:
            return None
        parsed = parse_head(head)
        if parsed is None:
            return None
        method, target, headers = parsed
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = self._chunks()
        else:
            body = self._exactly(int(headers.get("content-length") or 0))
        return None if body is None else Request(method, target, headers, body)

    def _chunks(self) -> bytes | None:
        body = b""
        while (line := self._until(b"\r\n")) is not None:
            size = int(line.partition(b";")[0], 16)
            if not size:
                while (line := self._until(b"\r\n")) is not None and line:
                    pass  # trailers
                return None if line is None else body
            chunk = self._exactly(size + 2)
            if chunk is None:
                return None
            body += chunk[:-2]
        return None

    def _until(self, end: bytes) -> bytes | None:
        while end not in self._buffer:
            if len(self._buffer) > MAX_HEAD or not self._more():
                return None
        found, _, self._buffer = self._buffer.partition(end)
        return found

    def _exactly(self, size: int) -> bytes | None:
        while len(self._buffer) < size:
            if not self._more():
                return None
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found

    def _more(self) -> bool:
        data = self._sock.recv(65536)
        self._buffer += data
        return bool(data)


def parse_head(head: bytes) -> tuple[str, str, dict[str, str]] | None:
    """Method, target and headers of a request head without its blank line; None if it is none."""
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3:
        return None
    pairs = (line.partition(":") for line in lines)
    return words[0], words[1], {name.strip().lower(): value.strip() for name, _, value in pairs}
