"""One end of a connection of HTTP/2 (RFC 9113): octets in, hooks; commands (`H2Outgoing`), octets out.

It knows no socket and no clock. Hooks are methods that an owner overrides; they are called from `received` and never
from a command, and may give any command. What is wrong with one message ends its stream: `malformed`. What is wrong
with the connection ends that: `connection_failed`, once, and what comes behind it is not read.
"""

from __future__ import annotations

from typing import Final

from lbproxy.compiling import cut, i64, mypyc_attr, word_at
from lbproxy.protocol.h2.codes import (
    ACK,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_HEADER,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HAS_PRIORITY,
    HEADERS,
    MIN_FRAME_SIZE,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
)
from lbproxy.protocol.h2.control import CONTINUATIONS, CONTROL_FRAMES, RESETS, H2Control
from lbproxy.protocol.h2.decoder import Decoder, HpackError
from lbproxy.protocol.h2.fields import NO_FIELDS, H2Field
from lbproxy.protocol.h2.head import (
    H2Head,
    Malformed,
    check_trailers,
    read_answer,
    read_request,
    secrets_among,
    too_large,
)
from lbproxy.protocol.h2.outgoing import EXPECTS_BODY, EXPECTS_HEAD, HAS_ENDED, H2Stream
from lbproxy.protocol.h2.settings import OwnSettings
from lbproxy.protocol.h2.shapes import Shapes
from lbproxy.protocol.h2.tail import Tail

_MAX_CONTINUATIONS: Final = 8
_MAX_EARLY: Final = 1000
"""Streams beyond the limit of a peer that may not know it yet."""
_MAX_KNOWN: Final = 32
_MAX_KNOWN_BLOCK: Final = 512
# What a frame counts for, so that who is asked for more at once than is good for others can stop between two of them
# (`has_turn`): a little, twice as much if a request may begin with it, and what its octets do.
_FRAME_COSTS: Final = 8
_OCTETS_SHIFT: Final = 4  # 16 of them count one
_BODY_SHIFT: Final = 10  # of answers, whose bodies are long and only passed on
_HEAD_BODY: Final = (HEADERS << 8) | DATA
_BODY_HEAD: Final = (DATA << 8) | HEADERS


@mypyc_attr(allow_interpreted_subclasses=True)
class H2Connection(H2Control):
    """See the preface.

    is_server: the peer sends requests. is_failed: nothing is read any more. n_known: heads that were known as a whole;
    fields of the others are counted by `decoder`.
    """

    def __init__(self, is_server: bool, own: OwnSettings) -> None:
        super().__init__(is_server, own)
        self.decoder = Decoder(own.headers, own.head_bytes)
        self._unseen = b""  # read, and not looked at yet, for want of a turn
        self._unseen_at: i64 = 0  # from where on
        self._kept: list[bytes] = []  # a frame that is not all there
        self._n_kept: i64 = 0
        self._n_needed: i64 = len(PREFACE) if is_server else FRAME_HEADER
        self._has_begun = not is_server  # a client's preface was read
        self._n_refused = 0
        self._has_left_out = False  # numbers of streams, which are closed and were never open
        self._block: list[bytes] = []  # of a field block that is not all there
        self._n_block: i64 = 0
        self._block_stream = 0
        self._block_ends = False
        self.n_known = 0
        self._known: dict[bytes, H2Head] = {}  # while the decoder's table is the same
        self._known_version = 0
        self._last_block = b""  # of these: most come again at once
        self._last_head: H2Head | None = None
        self._trailers_block = b""  # the last, and what was in it
        self._trailers_found = NO_FIELDS
        self._trailers_version = -1
        self._shapes = Shapes(own.websocket)
        self._tail: Tail | None = None  # of the head that `_head` has read, which is what stands before it

    @property
    def is_between(self) -> bool:
        """Is nothing begun of what the peer sends: no frame, no field block, and its preface is there?"""
        return not self._n_kept and not self._block_stream and not self._expects_settings and not self._unseen

    @property
    def data_begun(self) -> int:
        """The stream of a frame of DATA of which a part came; 0 for none, or another frame."""
        if self._n_kept < FRAME_HEADER:
            return 0
        begin = self._kept[0] if len(self._kept[0]) >= FRAME_HEADER else b"".join(self._kept)
        return int.from_bytes(begin[5:9], "big") & 0x7FFFFFFF if begin[3] == DATA else 0

    # --- octets to frames -------------------------------------------------------------------------------------------

    def received(self, data: bytes | memoryview, now: float) -> None:
        """What was read, cut anywhere. now: seconds of a clock that does not go back."""
        if self.is_failed:
            return
        self._now = now
        octets = data if isinstance(data, bytes) else bytes(data)
        if self._unseen:
            self._unseen = self._unseen[self._unseen_at :] + octets
            self._unseen_at = 0
            return
        size: i64 = len(octets)
        at: i64 = 0
        while self._n_kept and at < size:
            at = self._complete(octets, at, size)
        if at < size:
            used = self._frames(octets, at) if self._has_begun else self._read_preface(octets)
            if used < size:
                self._keep(octets[used:] if used else octets)

    @property
    def n_waiting(self) -> int:
        """Octets that were read, and in which a frame or more wait for `go_on`, as there was no turn for them."""
        return len(self._unseen) - self._unseen_at

    def go_on(self) -> None:
        """With them, as if they came now; but floods are measured by when they were read."""
        octets = self._unseen
        at = self._unseen_at
        self.drop_waiting()
        if not self.is_failed and octets:
            used = self._frames(octets, at)
            if used < len(octets):
                self._keep(octets[used:])

    def drop_waiting(self) -> None:
        """They are not looked at any more."""
        self._unseen = b""
        self._unseen_at = 0

    def _keep(self, octets: bytes) -> None:
        self._kept.append(octets)
        self._n_kept += len(octets)

    def _complete(self, octets: bytes, at: i64, size: i64) -> i64:
        """Add what is missing to what was kept, and no more: a large frame is copied once. Returns where that ends."""
        end: i64 = min(size, at + self._n_needed - self._n_kept)
        self._keep(octets[at:end])
        if self._n_kept >= self._n_needed:
            whole = b"".join(self._kept)
            self._kept.clear()
            self._n_kept = 0
            used = self._frames(whole, 0) if self._has_begun else self._read_preface(whole)
            if used < len(whole):
                self._keep(whole[used:])
        return size if self.is_failed else end

    def _read_preface(self, octets: bytes) -> i64:
        """Section 3.4. How many octets need not be kept."""
        size = min(len(octets), len(PREFACE))
        if octets[:size] != PREFACE[:size]:
            self._fail(PROTOCOL_ERROR, "the connection does not begin with the preface of HTTP/2")
            return len(octets)
        if size < len(PREFACE):
            return 0
        self._has_begun = True
        return self._frames(octets, size)

    def _frames(self, octets: bytes, at: i64) -> i64:
        """All that are there (section 4.1), or for which there is a turn. How many octets need not be kept."""
        size: i64 = len(octets)
        left: i64 = self.n_left
        before: i64 = -1  # where the frame before this one begins
        while size - at >= FRAME_HEADER:
            begin = word_at(octets, at)
            length: i64 = ((begin & 0xFF) << 16) | (begin & 0xFF00) | ((begin >> 16) & 0xFF)
            end: i64 = at + FRAME_HEADER + length
            if length > MIN_FRAME_SIZE:
                self._fail_size(octets[at : at + FRAME_HEADER], length)
            elif end > size:
                self._n_needed = FRAME_HEADER + length
                self.n_left = left
                return at
            else:
                if left <= 0 and (before < 0 or not self._belongs(octets, before, at)):
                    self.n_left = left
                    if not self.has_turn():
                        self._unseen = octets
                        self._unseen_at = at
                        return size
                    left = self.n_left
                self._frame(begin, octets, at, end)
                kind: i64 = (begin >> 24) & 0xFF
                if kind == DATA and not self.is_server:
                    left -= _FRAME_COSTS + (length >> _BODY_SHIFT)
                else:
                    left -= _FRAME_COSTS + (length >> _OCTETS_SHIFT)
                if kind == HEADERS:
                    left -= _FRAME_COSTS
                before = at
            if self.is_failed:
                return size
            at = end
        self._n_needed = FRAME_HEADER
        self.n_left = left
        return at

    def _belongs(self, octets: bytes, before: i64, at: i64) -> bool:
        """A body that came with its head goes with it, and trailers with the body of an answer: what is of one piece is
        cheaper. before, at: where two frames begin."""
        kinds: i64 = (octets[before + 3] << 8) | octets[at + 3]
        if self.is_server:
            return kinds == _HEAD_BODY
        return kinds in (_HEAD_BODY, _BODY_HEAD) and octets[before + 5 : before + 9] == octets[at + 5 : at + 9]

    def _fail_size(self, begin: bytes, length: i64) -> None:
        """Section 4.2."""
        if self._expects_settings and begin.startswith(b"HTTP/"):
            self._fail(PROTOCOL_ERROR, "the peer speaks HTTP/1")
        else:
            self._fail(FRAME_SIZE_ERROR, f"a frame of {length} octets, more than SETTINGS_MAX_FRAME_SIZE allows")

    def _frame(self, begin: i64, octets: bytes, at: i64, end: i64) -> None:
        """One of them. begin: its first eight octets, the first of which is the lowest."""
        kind: i64 = (begin >> 24) & 0xFF
        flags: i64 = (begin >> 32) & 0xFF
        stream_id: i64 = ((begin >> 16) & 0x7F000000) | ((begin >> 32) & 0xFF0000) | ((begin >> 48) & 0xFF00)
        stream_id |= octets[at + 8]
        at += FRAME_HEADER
        if self._block_stream and (kind != CONTINUATION or stream_id != self._block_stream):
            self._fail(PROTOCOL_ERROR, "a frame stands within a field block")  # section 6.10
        elif self._expects_settings and (kind != SETTINGS or flags & ACK):
            self._fail(PROTOCOL_ERROR, "the first frame is not SETTINGS")  # section 3.4
        elif kind == DATA:
            self._data(flags, stream_id, octets, at, end)
        elif kind == HEADERS:
            self._headers(flags, stream_id, octets, at, end)
        elif kind == WINDOW_UPDATE:
            self._window_update(stream_id, octets, at, end)
        elif kind == CONTINUATION:
            self._continuation(flags, stream_id, octets, at, end)
        elif kind == RST_STREAM:
            self._rst_stream(stream_id, octets, at, end)
        elif kind == SETTINGS:
            self._settings(flags, stream_id, octets, at, end)
        elif kind == PING:
            self._ping(flags, stream_id, octets, at, end)
        elif kind == GOAWAY:
            self._goaway(stream_id, octets, at, end)
        elif kind == PRIORITY:
            self._priority(stream_id, end - at)
        elif kind == PUSH_PROMISE:
            # Section 6.6: a client never sends it, and this client's SETTINGS_ENABLE_PUSH is 0.
            self._fail(PROTOCOL_ERROR, "PUSH_PROMISE is not allowed")
        elif self._control.is_over(self._now):
            self._flood(CONTROL_FRAMES, "too many frames of unknown types")

    def lookups(self) -> list[int]:
        """So far: heads that were known whole, and of others the fields that were found, and that had to be made; and
        the same of what was sent."""
        decoder, encoder = self.decoder, self.encoder
        return [self.n_known, decoder.n_hits, decoder.n_made, encoder.n_known, encoder.n_hits, encoder.n_spelled]

    # --- heads ------------------------------------------------------------------------------------------------------

    def _headers(self, flags: i64, stream_id: i64, octets: bytes, at: i64, end: i64) -> None:
        """Section 6.2."""
        if not stream_id:
            self._fail(PROTOCOL_ERROR, "HEADERS on stream 0")
            return
        padding: i64 = 0
        if flags & PADDED and at < end:
            padding = octets[at]
        at += (1 if flags & PADDED else 0) + (5 if flags & HAS_PRIORITY else 0)
        if at > end:
            self._fail(FRAME_SIZE_ERROR, "HEADERS are too short for what their flags say")
            return
        end -= padding
        if at > end:
            self._fail(PROTOCOL_ERROR, "HEADERS with more padding than they have octets")
            return
        is_end = flags & END_STREAM != 0
        if flags & END_HEADERS:
            self._fields(stream_id, cut(octets, at, end), is_end)
            return
        self._block_stream = stream_id
        self._block_ends = is_end
        self._block.append(octets[at:end])
        self._n_block = end - at

    def _continuation(self, flags: i64, stream_id: i64, octets: bytes, at: i64, end: i64) -> None:
        """Section 6.10; a bound for frames, and one for octets, as none of them is in any window."""
        if not self._block_stream:
            self._fail(PROTOCOL_ERROR, "CONTINUATION without HEADERS")
            return
        self._block.append(octets[at:end])
        self._n_block += end - at
        if len(self._block) > 1 + _MAX_CONTINUATIONS or self._n_block > max(self.own.head_bytes, MIN_FRAME_SIZE):
            self._block.clear()
            self._flood(CONTINUATIONS, "a field block in too many frames, or of too many octets")
        elif flags & END_HEADERS:
            block = b"".join(self._block)
            self._block.clear()
            self._block_stream = 0
            self._fields(stream_id, block, self._block_ends)

    def _fields(self, stream_id: i64, block: bytes, is_end: bool) -> None:
        """A whole field block. It is decoded in any case: the table must follow."""
        stream = self._stream(stream_id)
        if stream is not None and stream.incoming != EXPECTS_HEAD:
            self._trailers(stream_id, stream, block, is_end)
            return
        if stream is None and not self._may_begin(stream_id):
            self._skip(block)
            return
        why = ""
        try:
            head = self._head(block, is_end)
        except HpackError as error:
            self._fail(COMPRESSION_ERROR, str(error))
            return
        except Malformed as wrong:
            why = str(wrong)
        if self.is_server:
            if stream_id > self._last_stream + 2:
                self._has_left_out = True
            self._last_stream = stream_id
            if stream_id > self._last_promised:
                self._ignore(stream_id, self._stream_window)  # section 6.8: it knows from GOAWAY
                self._count_stray()
                return
            stream = self._begin(stream_id)
            if self._streams.count > self.own.streams:
                self._refuse(stream_id)
                return
            self.last_peer_stream = stream_id
        assert stream is not None
        if not why and is_end:
            why = self._why_incomplete(head, stream)
        if why:
            self._end_malformed(stream_id, why)
            return
        if head.status and head.status < 200:
            self.head_received(stream_id, head, False)
            return
        if is_end:
            self._ended(stream_id, stream)
        else:
            stream.incoming = EXPECTS_BODY
            if head.content_length is not None and not stream.is_head:
                stream.n_expected = head.content_length
        tail = self._tail
        if tail is None:
            self.head_received(stream_id, head, is_end)
        else:
            self._tail = None
            self.tail_received(stream_id, tail, is_end)

    def _head(self, block: bytes, is_end: bool) -> H2Head:
        """Read, or known from before: a block that changed nothing in the table means the same until something does.

        Of one with a tail, which is `_tail` then, what stands before that.
        """
        decoder = self.decoder
        before = decoder.version
        tail: Tail | None = None
        self._tail = None
        if self._known_version == before:
            known: H2Head | None = None
            if block == self._last_block:
                known = self._last_head
            else:
                if self.is_server:
                    tail = self._shapes.find_at(block, decoder, is_end)
                    if tail is not None:
                        self._tail = tail
                        return tail.front
                if len(self._known):
                    known = self._known.get(block)
            if known is not None:
                self.n_known += 1
                self._last_block = block
                self._last_head = known
                return known
        found = decoder.decode(block)
        if decoder.excess:
            return too_large(decoder.excess)
        version = decoder.version
        if self.is_server:
            if not decoder.has_secrets:
                tail = self._shapes.find(found, is_end)
            if tail is None:
                head = read_request(found, self.own.websocket)
            else:
                head = tail.front
                self._tail = tail
                if version == before:
                    self._shapes.learn(block, decoder, tail, is_end)
        else:
            head = read_answer(found)
        if decoder.has_secrets:
            head.secrets = secrets_among(found)
        if self._known_version != version:
            self._known.clear()
            self._last_head = None
            self._last_block = b""
            self._known_version = version
        elif tail is None and len(block) <= _MAX_KNOWN_BLOCK:  # else the next one has another tail
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[block] = head
        return head

    def _may_begin(self, stream_id: i64) -> bool:
        """May HEADERS come on a stream that is not open? If not, the connection fails, or they are ignored."""
        if self.is_server:
            if stream_id > self._last_stream and stream_id & 1:
                return True
        elif not stream_id & 1 or stream_id >= self._next_own:
            self._fail(PROTOCOL_ERROR, f"HEADERS on stream {stream_id}, which is idle")
            return False
        if stream_id in self._reset:
            self._count_stray()
        elif self.is_server and not stream_id & 1:
            self._fail(PROTOCOL_ERROR, f"a client's stream has the number {stream_id}")  # section 5.1.1
        elif self._has_left_out:
            # Section 5.1.1 has this code for numbers that were left out, section 5.1 the other one for streams that
            # were there. Which of both it was is not remembered.
            self._fail(PROTOCOL_ERROR, f"HEADERS on stream {stream_id} come behind those of a later one")
        else:
            self._fail(STREAM_CLOSED, f"HEADERS on stream {stream_id}, which is closed")
        return False

    def _skip(self, block: bytes) -> None:
        if not self.is_failed:
            try:
                self.decoder.decode(block)
            except HpackError as error:
                self._fail(COMPRESSION_ERROR, str(error))

    def _refuse(self, stream_id: i64) -> None:
        """Section 5.1.2. Many are no fault until the peer has said that it knows the limit; but not any number."""
        self.reset(stream_id, REFUSED_STREAM)
        self._n_refused += 1
        if (self._is_acknowledged or self._n_refused > _MAX_EARLY) and self._resets.is_over(self._now):
            self._flood(RESETS, "too many streams beyond SETTINGS_MAX_CONCURRENT_STREAMS")

    def _why_incomplete(self, head: H2Head, stream: H2Stream) -> str:
        """What is wrong with a head that ends its stream (sections 8.1 and 8.1.1)."""
        if head.status and head.status < 200:
            return "an interim answer ends the stream"
        if head.content_length and not stream.is_head and head.status != 304:
            return "the body is shorter than its content-length"
        return ""

    def _trailers(self, stream_id: i64, stream: H2Stream, block: bytes, is_end: bool) -> None:
        """Section 8.1."""
        try:
            found = self._decode_trailers(block)
        except HpackError as error:
            self._fail(COMPRESSION_ERROR, str(error))
            return
        if stream.incoming == HAS_ENDED:
            self._end_wrong(stream_id, STREAM_CLOSED, "HEADERS behind the end of the stream")
            return
        if self.decoder.excess:
            self._end_wrong(stream_id, ENHANCE_YOUR_CALM, f"trailers have {self.decoder.excess}")
            return
        why = "" if is_end else "trailers do not end the stream"
        if not why and stream.n_expected > 0:
            why = "the body is shorter than its content-length"
        try:
            check_trailers(found)
        except Malformed as wrong:
            why = str(wrong)
        if why:
            self._end_malformed(stream_id, why)
            return
        self._ended(stream_id, stream)
        self.trailers_received(stream_id, found)

    def _decode_trailers(self, block: bytes) -> list[H2Field]:
        """Their fields; the same object as for the last ones if these are equal. Raises HpackError."""
        decoder = self.decoder
        version = decoder.version
        if self._trailers_version == version and self._trailers_block == block:
            decoder.excess = ""
            self.n_known += 1
            return self._trailers_found
        found = decoder.decode(block)
        is_kept = not decoder.has_secrets and not decoder.excess and len(block) <= _MAX_KNOWN_BLOCK
        if is_kept and decoder.version == version:
            self._trailers_block = block
            self._trailers_found = found
            self._trailers_version = version
        return found

    # --- bodies -----------------------------------------------------------------------------------------------------

    def _data(self, flags: i64, stream_id: i64, octets: bytes, at: i64, end: i64) -> None:
        """Section 6.1."""
        n_flow: i64 = end - at
        if not stream_id:
            self._fail(PROTOCOL_ERROR, "DATA on stream 0")
            return
        if flags & PADDED:
            if at == end:
                self._fail(FRAME_SIZE_ERROR, "DATA without the length of its padding")
                return
            padding: i64 = octets[at]
            at += 1
            end -= padding
            if at > end:
                self._fail(PROTOCOL_ERROR, "DATA with more padding than it has octets")
                return
        if n_flow > self._receive_window:
            self._fail(FLOW_CONTROL_ERROR, "more DATA than the connection's window has room for")
            return
        self._receive_window -= n_flow
        stream = self._stream(stream_id)
        if stream is None:
            self._stray_data(stream_id, n_flow)
            return
        is_end = flags & END_STREAM != 0
        size: i64 = end - at
        if stream.incoming == HAS_ENDED:
            self.consumed(stream_id, n_flow)
            self._end_wrong(stream_id, STREAM_CLOSED, "DATA behind the end of the stream")
        elif stream.incoming == EXPECTS_HEAD:
            self.consumed(stream_id, n_flow)
            self._end_malformed(stream_id, "DATA comes before a head")
        elif n_flow > stream.receive_window:
            self.consumed(stream_id, n_flow)
            self._end_wrong(stream_id, FLOW_CONTROL_ERROR, "more DATA than the stream's window has room for")
        else:
            stream.receive_window -= n_flow
            if stream.n_expected >= 0:
                stream.n_expected -= size
                if stream.n_expected < 0 or (is_end and stream.n_expected):
                    self.consumed(stream_id, n_flow)
                    self._end_malformed(stream_id, "the body is not as long as its content-length")
                    return
            if is_end:
                self._ended(stream_id, stream)
            elif not size:
                self.consumed(stream_id, n_flow)
                if self._control.is_over(self._now):
                    self._flood(CONTROL_FRAMES, "too many frames of DATA without octets")
                return
            self.data_received(stream_id, cut(octets, at, end), n_flow, is_end)

    def _stray_data(self, stream_id: i64, n_flow: i64) -> None:
        """On a stream that is not open: no fault if this end has reset it a moment ago, within its window."""
        if self._is_idle(stream_id):
            self._fail(PROTOCOL_ERROR, f"DATA on stream {stream_id}, which is idle")
            return
        credit = self._reset.get(stream_id, -1)
        if credit < 0:
            self._fail(STREAM_CLOSED, f"DATA on stream {stream_id}, which is closed")
        elif n_flow > credit:
            self._fail(FLOW_CONTROL_ERROR, "more DATA on a stream that was reset than its window had room for")
        else:
            self._reset[stream_id] = credit - n_flow
            self.consumed(stream_id, n_flow)
            if not n_flow:
                self._count_stray()
