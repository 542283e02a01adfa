"""The half of a connection that sends: commands become frames, within the peer's windows.

Nothing is written from here: `take_output` gives what has to be. Commands for a stream that is no more (its peer may
have reset it in the same read) do nothing, so that whoever gives them need not ask first.
"""

from __future__ import annotations

from typing import Final

from lbproxy.compiling import frame, frame_begin, i64, mypyc_attr
from lbproxy.protocol.h2 import frames
from lbproxy.protocol.h2.codes import (
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER,
    HEADERS,
    MAX_STREAM_ID,
    MIN_FRAME_SIZE,
    NO_ERROR,
    PREFACE,
)
from lbproxy.protocol.h2.encoder import Encoder
from lbproxy.protocol.h2.flood import Bucket, ControlFrames
from lbproxy.protocol.h2.request import RequestHead2
from lbproxy.protocol.h2.settings import OwnSettings, PeerSettings, settings_of
from lbproxy.protocol.h2.stream_table import StreamTable
from lbproxy.protocol.h2.tail import Tail
from lbproxy.protocol.message import NO_NAMES

_MAX_RESET: Final = 256
"""How many streams that this end has reset are remembered: what was under way to them is no fault."""

_SMALL: Final = 1024
"""Octets of a payload that is copied behind the header of its frame, which is cheaper then than to keep two pieces."""

EXPECTS_HEAD: Final = 0
EXPECTS_BODY: Final = 1
HAS_ENDED: Final = 2


@mypyc_attr(free_list_len=1, acyclic=True)
class H2Stream:
    """The codec's books of one stream that is not closed.

    send_window, receive_window: octets of DATA that may still be sent, or come; both can be negative. incoming: what
    the peer still sends (EXPECTS_HEAD, EXPECTS_BODY, HAS_ENDED). n_expected: octets that are missing of the
    content-length, -1 without one. n_returned: credit that the peer has not been told of. has_ended: our side has.
    is_answered: its answer has begun. is_head: the request is a HEAD.
    """

    __slots__ = ("has_ended", "incoming", "is_answered", "is_head", "n_expected", "n_returned",
                 "receive_window", "send_window")  # fmt: skip

    def __init__(self, send_window: i64, receive_window: i64) -> None:
        self.send_window: i64 = send_window
        self.receive_window: i64 = receive_window
        self.n_returned: i64 = 0
        self.n_expected: i64 = -1
        self.incoming: i64 = EXPECTS_HEAD
        self.has_ended = False
        self.is_answered = False
        self.is_head = False


@mypyc_attr(allow_interpreted_subclasses=True)
class H2Outgoing:
    """What `H2Connection` can be told.

    own, peer: the settings of both ends. last_peer_stream: the highest of the peer's streams that was taken up.
    """

    def __init__(self, is_server: bool, own: OwnSettings) -> None:
        self.is_server = is_server
        self.own = own
        self.peer = PeerSettings()
        self.encoder = Encoder()
        self.is_failed = False
        self.last_peer_stream = 0
        self.n_output: i64 = 0
        self._output: list[bytes | memoryview] = []
        self._streams: StreamTable[H2Stream] = StreamTable()
        self._recent: H2Stream | None = None  # the one that was looked up last
        self._recent_id: i64 = -1
        self._reset: dict[
            int, int
        ] = {}  # streams that this end has reset: octets that may still come, the oldest first
        self._next_own = 2 if is_server else 1
        self._last_allowed = MAX_STREAM_ID  # of our streams, by the peer's GOAWAY
        self._last_promised = MAX_STREAM_ID  # of the peer's streams, by our GOAWAY
        self._send_window: i64 = DEFAULT_WINDOW
        self._receive_window: i64 = DEFAULT_WINDOW
        self._n_returned: i64 = 0
        self._stream_window: i64 = DEFAULT_WINDOW  # of the peer's next stream: ours, once it has said that it knows
        self._control = ControlFrames(own.control_frames, own.control_frames_period_s)
        self._resets = Bucket(own.resets, own.resets_period_s)
        begin = frames.settings(settings_of(own, is_server))
        more = own.connection_window - DEFAULT_WINDOW
        if more > 0:
            self._receive_window += more
            begin += frames.window_update(0, more)
        self._put(begin if is_server else PREFACE + begin)

    # --- what is known ----------------------------------------------------------------------------------------------

    @property
    def n_streams(self) -> int:
        """Streams that are not closed."""
        return self._streams.count

    def lacks_only_end(self, stream_id: int) -> bool:
        """Is END_STREAM all that is missing on this stream, by the content-length that the peer has declared?"""
        stream = self._stream(stream_id)
        return stream is not None and stream.incoming != HAS_ENDED and not stream.n_expected

    # --- output -----------------------------------------------------------------------------------------------------

    def take_output(self) -> bytes:
        """What has to be written now, b"" if nothing."""
        if not self.n_output:
            return b""
        whole = b"".join(self._output)
        self._output.clear()
        self.n_output = 0
        return whole

    def _put(self, octets: bytes) -> None:
        self._output.append(octets)
        self.n_output += len(octets)

    # --- commands ---------------------------------------------------------------------------------------------------

    def open_stream(self) -> int:
        """The number for the next request; 0 if this connection takes no more (GOAWAY, or no number is left).

        The stream is there at once, and `send_request` has to follow before the next one is opened. Whether the peer's
        max_concurrent_streams allows it is the caller's to know.
        """
        number = self._next_own
        if self.is_failed or number > self._last_allowed or self._last_allowed != MAX_STREAM_ID:
            return 0
        self._next_own = number + 2
        self._begin(number)
        return number

    def send_request(
        self,
        stream_id: int,
        method: bytes,
        scheme: bytes,
        authority: bytes,
        path: bytes,
        lines: bytes,
        own: bytes,
        is_end: bool,
        protocol: bytes = b"",
        secrets: frozenset[bytes] = NO_NAMES,
    ) -> None:
        """A request's head on a stream of `open_stream`; the rest as `Encoder.encode_request`."""
        stream = self._stream(stream_id)
        if stream is not None:
            stream.is_head = method == b"HEAD"
            block = self.encoder.encode_request(method, scheme, authority, path, lines, own, protocol, secrets)
            self._send_block(stream_id, stream, block, is_end)

    def send_request_head(
        self,
        stream_id: int,
        head: RequestHead2,
        scheme: bytes,
        own: bytes,
        aside: bytes,
        is_end: bool,
        secrets: frozenset[bytes],
    ) -> None:
        """The same of a head that may come again as it is. own, aside: as `Encoder.encode_answer`."""
        stream = self._stream(stream_id)
        if stream is not None:
            stream.is_head = head.method == b"HEAD"
            block = self.encoder.encode_head(head.all_lines(scheme), own, aside, secrets)
            self._send_block(stream_id, stream, block, is_end)

    def send_request_tail(
        self,
        stream_id: int,
        front: RequestHead2,
        tail: Tail,
        has_timeout: bool,
        behind: bytes,
        scheme: bytes,
        own: bytes,
        aside: bytes,
        is_end: bool,
    ) -> None:
        """The same of a head of which these parts may come again: what is before this tail, and the lines behind it.

        has_timeout: as Tail.sent."""
        stream = self._stream(stream_id)
        if stream is not None:
            stream.is_head = front.method == b"HEAD"
            start = front.all_lines(scheme)
            block = self.encoder.encode_varied(start, tail, has_timeout, behind, own, aside)
            self._send_block(stream_id, stream, block, is_end)

    def send_answer(
        self,
        stream_id: int,
        status: int,
        lines: bytes,
        own: bytes,
        is_end: bool,
        secrets: frozenset[bytes] = NO_NAMES,
        aside: bytes = b"",
    ) -> None:
        """An answer's head, interim ones too; the rest as `Encoder.encode_answer`."""
        stream = self._stream(stream_id)
        if stream is not None:
            stream.is_answered = stream.is_answered or status >= 200
            self._send_block(stream_id, stream, self.encoder.encode_answer(status, lines, own, secrets, aside), is_end)

    def send_trailers(self, stream_id: int, lines: bytes, secrets: frozenset[bytes] = NO_NAMES) -> None:
        """They end the stream. All DATA must have been taken."""
        stream = self._stream(stream_id)
        if stream is not None:
            self._send_block(stream_id, stream, self.encoder.encode_trailers(lines, secrets), True)

    def send_data(self, stream_id: int, data: bytes | memoryview, is_end: bool) -> int:
        """How many octets were taken; the caller keeps the rest until `window_opened`.

        The stream ends if `is_end` and all was taken. Of a stream that is no more all is taken, and goes nowhere.
        """
        stream = self._stream(stream_id)
        size: i64 = len(data)
        if stream is None:
            return size
        if stream.has_ended:
            raise ValueError(f"stream {stream_id} has ended")
        most: i64 = min(min(size, stream.send_window), self._send_window)
        if most <= 0 and size:
            return 0
        at: i64 = 0
        while True:
            end: i64 = min(most, at + MIN_FRAME_SIZE)
            is_last = is_end and end == size
            flags: i64 = END_STREAM if is_last else 0
            if end - at == size and size <= _SMALL and isinstance(data, bytes):
                self._output.append(frame(DATA, flags, stream_id, data))
            else:
                self._output.append(frame_begin(end - at, DATA, flags, stream_id))
                # What may change until the output is taken is copied; of octets that can't, a view is enough.
                if not isinstance(data, bytes):
                    self._output.append(bytes(data[at:end]))
                elif end - at == size:
                    self._output.append(data)
                else:
                    self._output.append(memoryview(data)[at:end])
            self.n_output += FRAME_HEADER + end - at
            self._control.sent()
            at = end
            if at >= most:
                break
        stream.send_window -= most
        self._send_window -= most
        if is_last:
            self._end(stream_id, stream)
        return most

    def consumed(self, stream_id: int, n_flow: int) -> None:
        """Give credit for octets of `data_received` back; also for those of a stream that is no more."""
        self.renew_connection(n_flow)
        self.renew_stream(stream_id, n_flow)

    def renew_connection(self, n_flow: int) -> None:
        """Half of `consumed`, for who holds one stream back and no other: other streams may have these octets."""
        self._n_returned += n_flow
        if self._n_returned * 2 >= self.own.connection_window:
            self._receive_window += self._n_returned
            self._put(frames.window_update(0, self._n_returned))
            self._n_returned = 0

    def renew_stream(self, stream_id: int, n_flow: int) -> None:
        """The other half: this stream may have so many octets more."""
        stream = self._stream(stream_id)
        if stream is not None and stream.incoming != HAS_ENDED:
            stream.n_returned += n_flow
            if stream.n_returned * 2 >= self._stream_window:
                stream.receive_window += stream.n_returned
                self._put(frames.window_update(stream_id, stream.n_returned))
                stream.n_returned = 0

    def reset(self, stream_id: int, code: int) -> None:
        """RST_STREAM. The stream is no more; what the peer has under way to it is ignored."""
        stream = self._forget(stream_id)
        if stream is None:
            return
        self._put(frames.rst_stream(stream_id, code))
        if stream.incoming != HAS_ENDED:
            self._ignore(stream_id, stream.receive_window)

    def goaway(self, last_stream_id: int, code: int = NO_ERROR, debug: bytes = b"") -> None:
        """The peer's streams above `last_stream_id` are not taken up any more; 2^31-1: all are, but it may stop."""
        self._last_promised = min(self._last_promised, last_stream_id)
        self._put(frames.goaway(last_stream_id, code, debug))

    def ping(self, data: bytes) -> None:
        """data: 8 octets, which `ping_acknowledged` brings back."""
        self._put(frames.ping(data, False))

    # --- inside -----------------------------------------------------------------------------------------------------

    def _send_block(self, stream_id: int, stream: H2Stream, block: bytes, is_end: bool) -> None:
        if stream.has_ended:
            raise ValueError(f"stream {stream_id} has ended")
        if len(block) <= MIN_FRAME_SIZE:
            self._output.append(frame(HEADERS, END_HEADERS | (END_STREAM if is_end else 0), stream_id, block))
            self.n_output += FRAME_HEADER + len(block)
        else:
            self._put(frames.long_headers(stream_id, block, is_end, MIN_FRAME_SIZE))
        self._control.sent()
        if is_end:
            self._end(stream_id, stream)

    def _end(self, stream_id: int, stream: H2Stream) -> None:
        """Our side is done."""
        stream.has_ended = True
        if stream.incoming == HAS_ENDED:
            self._forget(stream_id)

    def _stream(self, stream_id: i64) -> H2Stream | None:
        """The stream, if it is open: one after the other, most calls are for the same."""
        if stream_id == self._recent_id:
            return self._recent
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._recent = stream
            self._recent_id = stream_id
        return stream

    def _begin(self, stream_id: i64) -> H2Stream:
        """A new stream."""
        stream = H2Stream(self.peer.initial_window, self._stream_window)
        self._streams.put(stream_id, stream)
        self._recent = stream
        self._recent_id = stream_id
        return stream

    def _forget(self, stream_id: i64) -> H2Stream | None:
        """The stream is no more; the one that there was."""
        if stream_id == self._recent_id:
            self._recent = None
            self._recent_id = -1
        return self._streams.pop(stream_id)

    def _ignore(self, stream_id: int, credit: int) -> None:
        """Remember a stream on which frames may still come, and how many octets of DATA."""
        if len(self._reset) >= _MAX_RESET:
            del self._reset[next(iter(self._reset))]
        self._reset[stream_id] = credit
