"""A raw client: sends bytes cut up in any way and reads the answers strictly."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tests.support.wire import Ended, Response, Stream, WireError, read_response

TIMEOUT_S = 60.0  # as waiting.PATIENCE_S
SEGMENT_GAP_S = 0.0004  # lets the other process read one segment before the next; correctness never depends on it
SPLITS_PER_INPUT = 12


def linger_reset(sock: socket.socket) -> None:
    """Close with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class Client:
    """One connection to the proxy."""

    def __init__(self, address: int | str, *, timeout_s: float = TIMEOUT_S, receive_buffer: int | None = None) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(timeout_s)
        self.stream = Stream(self.sock)
        try:
            self.sock.connect(address if isinstance(address, str) else ("127.0.0.1", address))
            if family == socket.AF_INET:
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except ConnectionResetError:
            self.stream.end = "rst"  # it was accepted and cut off before this process ran again
        except OSError:
            self.sock.close()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, *chunks: bytes) -> bool:
        """Send the chunks, each as a segment of its own; False when the peer is gone (its answer may be readable)."""
        try:
            for number, chunk in enumerate(chunks):
                if number:
                    time.sleep(SEGMENT_GAP_S)
                self.sock.sendall(chunk)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def response(self, *, is_head: bool = False) -> Response:
        """The next final answer."""
        return read_response(self.stream, is_head=is_head)

    def ask(self, request: bytes, *, is_head: bool = False) -> Response:
        """Send one request and read its answer."""
        self.send(request)
        return self.response(is_head=is_head)

    def take(self, count: int) -> bytes:
        """Exactly `count` raw bytes, for tunnels and TCP mode."""
        return self.stream.take(count)

    def wait_for(self, marker: bytes) -> None:
        """Wait until these bytes have arrived; they stay unread."""
        while marker not in self.stream.record:
            if not self.stream.fill():
                raise Ended(self.stream.end or "fin", raw=bytes(self.stream.record))

    def read_to_end(self) -> bytes:
        """Everything until the proxy's end; `self.end` then says how it ended."""
        return self.stream.read_to_end()

    @property
    def end(self) -> str | None:
        """How the proxy's direction ended: None (open as far as known), "fin" or "rst"."""
        return self.stream.end

    def wait_end(self) -> str:
        """Wait until the proxy ends the connection; any byte before that is an error."""
        surplus = self.read_to_end()
        if surplus:
            raise WireError(f"bytes before the end of the connection: {surplus[:200]!r}")
        return self.end or ""

    def is_silent(self, for_s: float) -> bool:
        """True if nothing at all arrives for so many seconds."""
        return not self.stream.buffer and not select.select([self.sock], [], [], for_s)[0]

    def finish_writing(self) -> None:
        """Half-close: FIN to the proxy."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """RST to the proxy."""
        linger_reset(self.sock)

    def close(self) -> None:
        self.sock.close()


@dataclass
class Exchange:
    """What came back. `end`: "open", "fin" or "rst"; `cut`: the answer that was broken off; `error`: bad HTTP."""

    responses: list[Response] = field(default_factory=list)
    end: str = "open"
    cut: Response | None = None
    error: str = ""

    @property
    def statuses(self) -> list[int]:
        return [response.status for response in self.responses]


def receive(client: Client, count: int | None, methods: Iterable[str] = ()) -> Exchange:
    """Read `count` answers, or all until the end of the connection for None. Raises TimeoutError."""
    result = Exchange()
    heads = iter(methods)
    stream = client.stream
    while count is None or len(result.responses) < count:
        while not stream.buffer and stream.fill():
            pass
        if not stream.buffer:
            break
        try:
            result.responses.append(client.response(is_head=next(heads, "GET") == "HEAD"))
        except Ended as ended:
            result.cut = ended.partial if isinstance(ended.partial, Response) else Response()
            break
        except WireError as error:
            result.error = str(error)
            break
    result.end = stream.end or "open"
    return result


def raw_exchange(
    port: int,
    chunks: Iterable[bytes],
    *,
    count: int | None = None,
    methods: Iterable[str] = (),
    timeout_s: float = TIMEOUT_S,
) -> Exchange:
    """Connect, send the chunks as segments, read `count` answers (None: until the proxy closes), close."""
    with Client(port, timeout_s=timeout_s) as client:
        client.send(*chunks)
        return receive(client, count, methods)


def each_byte(data: bytes) -> list[bytes]:
    """One segment a byte; long inputs in 256 pieces so that a test stays fast."""
    step = max(1, len(data) // 256) if len(data) > 1024 else 1
    return [data[at : at + step] for at in range(0, len(data), step)]


def crlf_splits(data: bytes, limit: int = SPLITS_PER_INPUT) -> Iterator[list[bytes]]:
    """The input in two segments, cut before, inside and after every line end; at most `limit`, spread evenly."""
    cuts = set()
    for at, byte in enumerate(data[:4096]):
        if byte in b"\r\n":
            cuts |= {at, at + 1}
    positions = sorted(cut for cut in cuts if 0 < cut < len(data))
    stride = max(1, -(-len(positions) // limit))
    stride += stride % 3 == 0  # there are three cuts a line end: a multiple of three would always hit the same one
    for cut in positions[::stride]:
        yield [data[:cut], data[cut:]]
