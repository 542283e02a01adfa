"""The frames that are about a connection and not about a message, the hooks of its owner, and how things end.

Most of these frames cost their sender nothing. So those that ask for no work are counted (`flood.py`).
"""

from __future__ import annotations

from typing import Final

from lbproxy.compiling import i64, mypyc_attr
from lbproxy.protocol.h2 import frames
from lbproxy.protocol.h2.codes import (
    ACK,
    DEFAULT_WINDOW,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    MAX_STREAM_ID,
    MAX_WINDOW,
    PROTOCOL_ERROR,
    error_name,
)
from lbproxy.protocol.h2.fields import H2Field
from lbproxy.protocol.h2.head import H2Head
from lbproxy.protocol.h2.outgoing import HAS_ENDED, H2Outgoing, H2Stream
from lbproxy.protocol.h2.settings import OwnSettings
from lbproxy.protocol.h2.tail import Tail

_SMALL_UPDATE: Final = 1024
"""Octets: what a receiver that keeps books in earnest gives back at once is more."""
_MAX_SETTINGS: Final = 64
"""In one frame. There are not ten that are defined."""
_MAX_DEBUG: Final = 256
_UNLIMITED: Final = 1 << 60
RESETS: Final = "resets"
CONTROL_FRAMES: Final = "control_frames"
CONTINUATIONS: Final = "continuation"
"""What `flooded` can name."""


@mypyc_attr(allow_interpreted_subclasses=True)
class H2Control(H2Outgoing):
    """All of `H2Connection` but the frames of messages. n_left: work that may be done before `has_turn` is asked."""

    def __init__(self, is_server: bool, own: OwnSettings) -> None:
        super().__init__(is_server, own)
        self._now = 0.0
        self._expects_settings = True
        self._is_acknowledged = False
        self._last_stream: i64 = 0  # the highest of the peer's that there was
        self.n_left: i64 = 0

    # --- hooks ------------------------------------------------------------------------------------------------------

    def head_received(self, stream_id: int, head: H2Head, is_end: bool) -> None:
        """A request (at a server's end), or an answer, interim ones too. Check `head.excess` first."""

    def tail_received(self, stream_id: int, tail: Tail, is_end: bool) -> None:
        """The same of a request of which all but the tail came before, for who makes something of that."""
        self.head_received(stream_id, tail.head(), is_end)

    def trailers_received(self, stream_id: int, fields: list[H2Field]) -> None:
        """They end the peer's side of the stream."""

    def data_received(self, stream_id: int, data: bytes, n_flow: int, is_end: bool) -> None:
        """data: b"" only at the end. n_flow: octets of the windows, to be given back by `consumed` some time."""

    def malformed(self, stream_id: int, why: str) -> None:
        """What came on this stream is not allowed: it was reset. Perhaps nothing was heard of the stream before."""

    def stream_reset(self, stream_id: int, code: int) -> None:
        """The peer sent RST_STREAM for a stream that was open."""

    def window_opened(self, stream_id: int) -> None:
        """Data that waits may go on: of this stream, or, with 0, of all."""

    def settings_changed(self) -> None:
        """`peer` is new."""

    def goaway_received(self, last_stream_id: int, code: int, debug: bytes) -> None:
        """Our streams above `last_stream_id` were not processed, and are no more. No new ones can be opened."""

    def ping_acknowledged(self, data: bytes) -> None:
        """The answer to a `ping`."""

    def connection_failed(self, code: int, why: str) -> None:
        """GOAWAY with this code is in the output, and no stream is left. Whoever owns the socket closes it."""

    def has_turn(self) -> bool:
        """The units of work in `n_left` are used up, and there are more frames. False: they wait for `go_on`."""
        self.n_left = _UNLIMITED
        return True

    def flooded(self, what: str) -> None:
        """The peer passed a limit of RESETS, CONTROL_FRAMES or CONTINUATIONS. `connection_failed` follows."""

    # --- the other frames -------------------------------------------------------------------------------------------

    def _rst_stream(self, stream_id: i64, octets: bytes, at: i64, end: i64) -> None:
        """Section 6.4."""
        if end - at != 4:
            self._fail(FRAME_SIZE_ERROR, "RST_STREAM has not 4 octets")
        elif not stream_id or self._is_idle(stream_id):
            self._fail(PROTOCOL_ERROR, f"RST_STREAM for stream {stream_id}, which is idle")
        else:
            stream = self._forget(stream_id)
            if stream is None:
                if self._reset.pop(stream_id, -1) < 0:
                    self._count_answering("too many frames of RST_STREAM for streams that are closed")
                return
            self.stream_reset(stream_id, int.from_bytes(octets[at:end], "big"))
            if self.is_server and not stream.is_answered and self._resets.is_over(self._now):
                self._flood(RESETS, "too many streams reset before their answer")

    def _settings(self, flags: i64, stream_id: i64, octets: bytes, at: i64, end: i64) -> None:
        """Section 6.5."""
        size: i64 = end - at
        if stream_id:
            self._fail(PROTOCOL_ERROR, "SETTINGS on a stream")
        elif flags & ACK:
            if size:
                self._fail(FRAME_SIZE_ERROR, "SETTINGS ACK has a payload")
            elif self._is_acknowledged:
                self._count_control("too many frames of SETTINGS")
            else:
                self._is_acknowledged = True
                self._widen(self.own.stream_window - DEFAULT_WINDOW)
        elif size % 6:
            self._fail(FRAME_SIZE_ERROR, "SETTINGS are cut")
        elif size > 6 * _MAX_SETTINGS:
            self._flood(CONTROL_FRAMES, "too many settings in a frame")
        else:
            if not self._expects_settings:
                self._count_control("too many frames of SETTINGS")
            self._expects_settings = False
            if not self.is_failed:
                self._take_settings(octets[at:end])

    def _widen(self, more: int) -> None:
        """The peer knows our SETTINGS_INITIAL_WINDOW_SIZE from here on."""
        self._stream_window += more
        for stream in self._streams.values():
            stream.receive_window += more
        for stream_id in self._reset:
            self._reset[stream_id] += more

    def _take_settings(self, payload: bytes) -> None:
        peer = self.peer
        before: i64 = peer.initial_window
        for at in range(0, len(payload), 6):
            identifier = int.from_bytes(payload[at : at + 2], "big")
            value = int.from_bytes(payload[at + 2 : at + 6], "big")
            code = peer.set(identifier, value, not self.is_server)
            if code:
                self._fail(code, f"SETTINGS {identifier} is {value}")
                return
        peer.is_known = True
        self.encoder.set_limit(peer.header_table_size)
        self._put(frames.settings_ack())
        more: i64 = peer.initial_window - before
        opened: list[int] = []
        if more:
            # Section 6.9.2: windows may become negative, and may not pass 2^31-1.
            for stream_id, stream in self._streams.items():
                was: i64 = stream.send_window
                stream.send_window = was + more
                if was + more > MAX_WINDOW:
                    self._fail(FLOW_CONTROL_ERROR, "SETTINGS_INITIAL_WINDOW_SIZE makes a window too large")
                    return
                if was <= 0 < was + more:
                    opened.append(stream_id)
        self.settings_changed()
        for stream_id in opened:
            self.window_opened(stream_id)

    def _ping(self, flags: i64, stream_id: i64, octets: bytes, at: i64, end: i64) -> None:
        """Section 6.7."""
        if stream_id:
            self._fail(PROTOCOL_ERROR, "PING on a stream")
        elif end - at != 8:
            self._fail(FRAME_SIZE_ERROR, "PING has not 8 octets")
        elif flags & ACK:
            self.ping_acknowledged(octets[at:end])
            self._count_answering("too many frames of PING")
        else:
            self._put(frames.ping(octets[at:end], True))
            self._count_answering("too many frames of PING")

    def _goaway(self, stream_id: i64, octets: bytes, at: i64, end: i64) -> None:
        """Section 6.8."""
        if stream_id:
            self._fail(PROTOCOL_ERROR, "GOAWAY on a stream")
            return
        if end - at < 8:
            self._fail(FRAME_SIZE_ERROR, "GOAWAY has not 8 octets")
            return
        last = int.from_bytes(octets[at : at + 4], "big") & MAX_STREAM_ID
        # A larger number than before takes nothing back: those streams may have gone elsewhere.
        self._last_allowed = min(self._last_allowed, last, self._next_own)
        if not self.is_server:
            for number in [number for number in self._streams.numbers() if number > last]:
                self._forget(number)
                self._ignore(number, 0)
        code = int.from_bytes(octets[at + 4 : at + 8], "big")
        self.goaway_received(last, code, octets[at + 8 : min(end, at + 8 + _MAX_DEBUG)])
        self._count_control("too many frames of GOAWAY")

    def _window_update(self, stream_id: i64, octets: bytes, at: i64, end: i64) -> None:
        """Section 6.9."""
        if end - at != 4:
            self._fail(FRAME_SIZE_ERROR, "WINDOW_UPDATE has not 4 octets")
            return
        increment: i64 = int.from_bytes(octets[at:end], "big") & MAX_STREAM_ID
        was: i64
        if not stream_id:
            was = self._send_window
            if not increment:
                self._fail(PROTOCOL_ERROR, "WINDOW_UPDATE by 0")
                return
            if was + increment > MAX_WINDOW:
                self._fail(FLOW_CONTROL_ERROR, "the connection's window is too large")
                return
            self._send_window = was + increment
        else:
            stream = self._stream(stream_id)
            if stream is None:
                if self._is_idle(stream_id):
                    self._fail(PROTOCOL_ERROR, f"WINDOW_UPDATE for stream {stream_id}, which is idle")
                else:
                    self._count_answering("too many frames of WINDOW_UPDATE")
                return
            was = stream.send_window
            if not increment:
                self._end_wrong(stream_id, PROTOCOL_ERROR, "WINDOW_UPDATE by 0")
                return
            if was + increment > MAX_WINDOW:
                self._end_wrong(stream_id, FLOW_CONTROL_ERROR, "the stream's window is too large")
                return
            stream.send_window = was + increment
        if was <= 0 < was + increment:
            self.window_opened(stream_id)
        if increment < _SMALL_UPDATE:
            self._count_answering("too many frames of WINDOW_UPDATE by little")

    def _priority(self, stream_id: i64, size: i64) -> None:
        """Sections 5.3.2 and 6.3: read and ignored."""
        if not stream_id:
            self._fail(PROTOCOL_ERROR, "PRIORITY on stream 0")
        elif size != 5:
            if self._streams.get(stream_id) is not None:
                self._end_wrong(stream_id, FRAME_SIZE_ERROR, "PRIORITY has not 5 octets")
            else:
                self._fail(FRAME_SIZE_ERROR, "PRIORITY has not 5 octets")
        else:
            self._count_control("too many frames of PRIORITY")

    # --- ends -------------------------------------------------------------------------------------------------------

    def _is_idle(self, stream_id: i64) -> bool:
        """Has there never been such a stream (section 5.1)?"""
        if stream_id & 1 == (1 if self.is_server else 0):
            return stream_id > self._last_stream
        return stream_id >= self._next_own

    def _ended(self, stream_id: i64, stream: H2Stream) -> None:
        """The peer's side is done."""
        stream.incoming = HAS_ENDED
        if stream.has_ended:
            self._forget(stream_id)

    def misused(self, stream_id: int, why: str) -> None:
        """What came is good HTTP/2, and not allowed on this stream: as if it were malformed."""
        self._end_malformed(stream_id, why)

    def _end_malformed(self, stream_id: i64, why: str) -> None:
        self._end_wrong(stream_id, PROTOCOL_ERROR, why)

    def _end_wrong(self, stream_id: i64, code: int, why: str) -> None:
        """A stream error (section 5.4.2). It counts as a reset by the peer, which made this end do it."""
        self.reset(stream_id, code)
        self.malformed(stream_id, why)
        if self.is_server and self._resets.is_over(self._now):
            self._flood(RESETS, "too many streams that had to be reset")

    def _count_stray(self) -> None:
        """A frame on a stream that is no more."""
        self._count_control("too many frames on streams that are closed")

    def _count_control(self, why: str) -> None:
        if not self.is_failed and self._control.is_over(self._now):
            self._flood(CONTROL_FRAMES, why)

    def _count_answering(self, why: str) -> None:
        if not self.is_failed and self._control.is_over_answering(self._now):
            self._flood(CONTROL_FRAMES, why)

    def _flood(self, what: str, why: str) -> None:
        if not self.is_failed:
            self.flooded(what)
            self._fail(ENHANCE_YOUR_CALM, why)

    def _fail(self, code: int, why: str) -> None:
        """A connection error (section 5.4.1)."""
        if self.is_failed:
            return
        self.is_failed = True
        self._streams.clear()
        self._recent = None
        self._recent_id = -1
        self._put(frames.goaway(self.last_peer_stream, code, f"{error_name(code)}: {why}".encode()))
        self.connection_failed(code, why)
