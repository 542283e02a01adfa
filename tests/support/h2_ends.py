"""Ends of connections of HTTP/2 without sockets: one that writes down what its hooks are told, and frames by hand."""

from __future__ import annotations

from collections.abc import Iterable

from lbproxy.protocol.h2 import frames
from lbproxy.protocol.h2.codes import END_HEADERS, END_STREAM, GOAWAY, HEADERS, PREFACE, RST_STREAM
from lbproxy.protocol.h2.connection import H2Connection
from lbproxy.protocol.h2.encoder import integer
from lbproxy.protocol.h2.fields import H2Field
from lbproxy.protocol.h2.head import H2Head
from lbproxy.protocol.h2.settings import OwnSettings

Pairs = Iterable[tuple[bytes, bytes]]
GET = ((b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/"))
POST = ((b":method", b"POST"), *GET[1:])
OK = ((b":status", b"200"),)


class RecordingEnd(H2Connection):
    """`seen`: what the hooks were told, each as a tuple that begins with a short name. gives_back: credit, at once.

    trailers: fields of the last trailers.
    """

    def __init__(self, is_server: bool, own: OwnSettings | None = None, *, gives_back: bool = True) -> None:
        super().__init__(is_server, own or OwnSettings())
        self.seen: list[tuple[object, ...]] = []
        self.heads: list[H2Head] = []
        self.trailers: list[H2Field] = []
        self.gives_back = gives_back

    def head_received(self, stream_id: int, head: H2Head, is_end: bool) -> None:
        self.heads.append(head)
        start: tuple[object, ...] = (head.method, head.path) if self.is_server else (head.status,)
        self.seen.append(("head", stream_id, *start, head.lines, is_end))

    def trailers_received(self, stream_id: int, fields: list[H2Field]) -> None:
        self.trailers = fields
        self.seen.append(("trailers", stream_id, tuple((field.name, field.value) for field in fields)))

    def data_received(self, stream_id: int, data: bytes, n_flow: int, is_end: bool) -> None:
        self.seen.append(("data", stream_id, data, is_end))
        if self.gives_back:
            self.consumed(stream_id, n_flow)

    def malformed(self, stream_id: int, why: str) -> None:
        self.seen.append(("malformed", stream_id, why))

    def stream_reset(self, stream_id: int, code: int) -> None:
        self.seen.append(("reset", stream_id, code))

    def window_opened(self, stream_id: int) -> None:
        self.seen.append(("opened", stream_id))

    def settings_changed(self) -> None:
        self.seen.append(("settings",))

    def goaway_received(self, last_stream_id: int, code: int, debug: bytes) -> None:
        self.seen.append(("goaway", last_stream_id, code, debug))

    def ping_acknowledged(self, data: bytes) -> None:
        self.seen.append(("pong", data))

    def connection_failed(self, code: int, why: str) -> None:
        self.seen.append(("failed", code, why))

    def flooded(self, what: str) -> None:
        self.seen.append(("flooded", what))

    def has_stream(self, stream_id: int) -> bool:
        """Is it open at either end?"""
        return self._streams.get(stream_id) is not None

    def sendable(self, stream_id: int) -> int:
        """Octets of DATA that would be taken now; 0 of a stream that is no more."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None else max(0, min(stream.send_window, self._send_window))

    def words(self) -> list[object]:
        """The first word of each of `seen`."""
        return [entry[0] for entry in self.seen]


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """One frame, whatever it is."""
    return frames.frame_header(len(payload), kind, flags, stream_id) + payload


def block(fields: Pairs) -> bytes:
    """A field block that needs and changes no table."""
    return b"".join(
        [b"\x00" + integer(len(name), 0x7F, 0) + name + integer(len(value), 0x7F, 0) + value for name, value in fields]
    )


def headers(stream_id: int, fields: Pairs, *, is_end: bool = False) -> bytes:
    """A HEADERS frame with these fields."""
    return frame(HEADERS, END_HEADERS | (END_STREAM if is_end else 0), stream_id, block(fields))


def begun(is_server: bool, own: OwnSettings | None = None, *, gives_back: bool = True) -> RecordingEnd:
    """An end whose peer has sent its preface and acknowledged our settings; nothing of that is in `seen`."""
    end = RecordingEnd(is_server, own, gives_back=gives_back)
    end.received((PREFACE if is_server else b"") + frames.settings([]) + frames.settings_ack(), 0.0)
    end.take_output()
    end.seen.clear()
    return end


def split_frames(octets: bytes) -> list[tuple[int, int, int, bytes]]:
    """Kind, flags, stream and payload of frames one after the other; a preface before them is left out."""
    octets = octets.removeprefix(PREFACE)
    found = []
    while octets:
        size = int.from_bytes(octets[:3], "big")
        found.append((octets[3], octets[4], int.from_bytes(octets[5:9], "big"), octets[9 : 9 + size]))
        octets = octets[9 + size :]
    return found


def shake(one: H2Connection, other: H2Connection, now: float = 0.0) -> None:
    """Carry what both have to say back and forth until they are silent."""
    for _ in range(1000):
        said, answered = one.take_output(), other.take_output()
        if not said and not answered:
            return
        if said:
            other.received(said, now)
        if answered:
            one.received(answered, now)
    raise AssertionError("the two ends go on talking")


def requesting(own: OwnSettings | None = None) -> RecordingEnd:
    """A client's end that has sent POST on stream 1, and not its end."""
    end = begun(False, own)
    end.send_request(end.open_stream(), b"POST", b"http", b"a", b"/", b"", b"", False)
    end.take_output()
    return end


def reactions(end: H2Connection) -> tuple[tuple[int, int], ...]:
    """The GOAWAY and RST_STREAM in its output: (stream, code), 0 for the connection."""
    found = []
    for kind, _, stream_id, payload in split_frames(end.take_output()):
        if kind == RST_STREAM:
            found.append((stream_id, int.from_bytes(payload, "big")))
        elif kind == GOAWAY:
            found.append((0, int.from_bytes(payload[4:8], "big")))
    return tuple(found)
