"""Frames of HTTP/2 on a real socket, by hand, for either end: what is sent is not looked at, what comes is kept."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

import hpack

from lbproxy.protocol.h2.codes import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
)
from tests.support.client import linger_reset
from tests.support.waiting import PATIENCE_S

Frame = tuple[int, int, int, bytes]


@dataclass
class Heard:
    """What came on one stream. reset: the code of RST_STREAM, or None."""

    heads: list[dict[str, str]] = field(default_factory=list)
    body: bytes = b""
    is_ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        """Of the final answer; 0 without one."""
        found = [int(head[":status"]) for head in self.heads if ":status" in head]
        return next((status for status in found if status >= 200), 0)


class FrameSocket:
    """An end of a connection. frames: all that came. acks: SETTINGS and PING are acknowledged, as they come."""

    def __init__(self, sock: socket.socket, *, acks: bool = True, preface: bool = False) -> None:
        """preface: the peer is a client, so its frames come behind one."""
        sock.settimeout(PATIENCE_S)
        self.sock = sock
        self.acks = acks
        self.frames: list[Frame] = []
        self.streams: dict[int, Heard] = {}
        self.end = ""  # fin, or rst
        self._octets = b""
        self._expects_preface = preface
        self._decoder = hpack.Decoder(1 << 20)
        self._block = b""

    def __enter__(self) -> FrameSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, *octets: bytes) -> None:
        """All at once. Nothing if the peer has left: what it said can still be read."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.sock.sendall(b"".join(octets))

    def reset(self) -> None:
        linger_reset(self.sock)

    def on(self, stream_id: int) -> Heard:
        """What came there so far."""
        return self.streams.setdefault(stream_id, Heard())

    def kinds(self, kind: int) -> list[Frame]:
        return [one for one in self.frames if one[0] == kind]

    @property
    def goaway(self) -> int | None:
        """The code of the last GOAWAY."""
        found = self.kinds(GOAWAY)
        return int.from_bytes(found[-1][3][4:8], "big") if found else None

    def read_until(self, condition: Callable[[], bool], what: str) -> None:
        """Raises AssertionError when the connection ends before that."""
        while not condition():
            assert self._read(), f"the connection ended ({self.end}) before {what}; heard: {self.summary()}"

    def read_to_end(self) -> None:
        while self._read():
            pass

    def read_stream(self, stream_id: int) -> Heard:
        """Until its end, or its reset."""
        heard = self.on(stream_id)
        self.read_until(lambda: heard.is_ended or heard.reset is not None, f"stream {stream_id} ended")
        return heard

    def round_trip(self, mark: bytes) -> None:
        """The peer has looked at all that was sent before. mark: 8 octets."""
        self.send(len(mark).to_bytes(3, "big"), bytes([PING, 0]), bytes(4), mark)
        self.read_until(lambda: any(one[1] & ACK and one[3] == mark for one in self.kinds(PING)), "the PING's answer")

    def summary(self) -> str:
        """For messages of failed tests."""
        shown = [f"{kind}/{flags:#x}/{stream}/{body[:60]!r}" for kind, flags, stream, body in self.frames]
        return f"{self.end or 'open'} {shown}"

    def _read(self) -> bool:
        if self.end:
            return False
        try:
            data = self.sock.recv(65_536)
        except TimeoutError:
            raise AssertionError(f"nothing came; heard before: {self.summary()}") from None
        except (ConnectionResetError, BrokenPipeError):
            self.end = "rst"
            return False
        if not data:
            self.end = "fin"
            return False
        self._octets += data
        if self._expects_preface and len(self._octets) >= len(PREFACE):
            assert self._octets.startswith(PREFACE)
            self._octets = self._octets[len(PREFACE) :]
            self._expects_preface = False
        while not self._expects_preface and len(self._octets) >= FRAME_HEADER:
            size = int.from_bytes(self._octets[:3], "big")
            if len(self._octets) < FRAME_HEADER + size:
                break
            kind, flags = self._octets[3], self._octets[4]
            stream_id = int.from_bytes(self._octets[5:9], "big")
            body = self._octets[FRAME_HEADER : FRAME_HEADER + size]
            self._octets = self._octets[FRAME_HEADER + size :]
            self._take(kind, flags, stream_id, body)
        return True

    def _take(self, kind: int, flags: int, stream_id: int, body: bytes) -> None:
        self.frames.append((kind, flags, stream_id, body))
        heard = self.on(stream_id)
        assert not (kind == DATA and flags & PADDED), "lbproxy pads nothing"
        if kind == DATA:
            heard.body += body
        elif kind in (HEADERS, CONTINUATION):
            self._block += body
            if flags & END_HEADERS:
                heard.heads.append({str(one[0]): str(one[1]) for one in self._decoder.decode(self._block)})
                self._block = b""
        elif kind == RST_STREAM:
            heard.reset = int.from_bytes(body, "big")
        elif kind in (SETTINGS, PING) and self.acks and not flags & ACK:
            answer = body if kind == PING else b""
            self.send(len(answer).to_bytes(3, "big"), bytes([kind, ACK]), bytes(4), answer)
        if kind in (DATA, HEADERS) and flags & END_STREAM:
            heard.is_ended = True
