"""Message bodies: where they end, and what is in them.

Readers own all framing behind the blank line. `feed` takes what arrived and returns the payload of it; what belongs to
the next message stays in `rest`. Chunked bodies are decoded and re-chunked by the writer, so neither extensions nor odd
chunk syntax ever reach the other side: what two parsers may read in two ways is how requests are smuggled.
"""

from __future__ import annotations

import re
from typing import Final

from lbproxy import errors
from lbproxy.errors import Fault
from lbproxy.protocol.message import TOKEN, Fields, value_match

MAX_TRAILER_FIELDS: Final = 64
# A chunk line is 16 hex digits at most, which is already more than any body limit. White space behind it is skipped, as
# haproxy, nginx and h11 do: the number has been read by then, and the line ends at its CR LF. White space inside or
# before is refused, because readers differ there: nginx 1.22 takes `0 5` for 0, and the rest for the next message.
_size_line = re.compile(
    rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[ \t]*"
    + TOKEN
    + rb"(?:[ \t]*=[ \t]*(?:"
    + TOKEN
    + rb'|"(?:[\t \x21\x23-\x5b\x5d-\x7e'
    rb'\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"))?)*[ \t]*'
).fullmatch
# From servers of a lenient pool: any extension, also an empty one. It is dropped, and the line still ends at its CR LF.
_lenient_size_line = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?").fullmatch
# What a size line may begin with, while its end has not come.
_size_line_so_far = re.compile(rb"[0-9A-Fa-f]{1,16}(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*|[ \t]*)").fullmatch
_field_line = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}):[ \t]*(.*?)[ \t]*", re.DOTALL).fullmatch
LAST_CHUNK: Final = b"0\r\n\r\n"
# Size lines as everybody writes small ones: a body of 5 MB in chunks of a byte has 5 million of them.
_SMALL_SIZES: Final = {form % size: size for size in range(1, 1024) for form in (b"%x", b"%X")}
_SMALL_LINE: Final = 5  # its digits and CR LF


class BodyError(Exception):
    """A body that is malformed or over a limit; `fault` names the client-side row."""

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault
        self.detail = detail


class LengthReader:
    """A body of known length (RFC 9112 section 6.3, rule 6)."""

    __slots__ = ("done", "left", "rest", "trailers")

    def __init__(self, length: int) -> None:
        self.left = length
        self.done = length == 0
        self.rest = b""
        self.trailers: Fields = []

    def feed(self, data: bytes) -> bytes:
        size = len(data)
        if size < self.left:
            self.left -= size
            return data
        self.done = True
        if size > self.left:
            self.rest = data[self.left :]
            data = data[: self.left]
        self.left = 0
        return data


class UntilCloseReader:
    """A response body that ends with the connection (rule 8): it is never done by itself."""

    __slots__ = ("done", "rest", "trailers")

    def __init__(self) -> None:
        self.done = False
        self.rest = b""
        self.trailers: Fields = []

    def feed(self, data: bytes) -> bytes:
        return data


MAX_DIGITS: Final = 16  # of a chunk's size
_SIZE: Final = 0
_DATA: Final = 1
_DATA_END: Final = 2
_TRAILER: Final = 3


class ChunkedReader:
    """The chunked coding (RFC 9112 section 7.1): CR LF only, no white space but behind a size or around its extension.

    overhead_bytes bounds what a size line has beyond the digits that it needs (extensions, zeros in front, white
    space), with an eighth of the payload on top. The size lines themselves are free: a token a chunk is what streaming
    looks like, and a byte of them costs less CPU than a byte of small requests. trailer_bytes bounds the trailer
    section. is_lenient: takes any extension.
    """

    __slots__ = (
        "_buffer",
        "_is_lenient",
        "_left",
        "_overhead",
        "_overhead_limit",
        "_payload",
        "_state",
        "_trailer_limit",
        "done",
        "rest",
        "trailers",
    )

    def __init__(
        self, *, overhead_bytes: int = 16 * 1024, trailer_bytes: int = 8 * 1024, is_lenient: bool = False
    ) -> None:
        self.done = False
        self.rest = b""
        self.trailers: Fields = []
        self._buffer = b""
        self._left = 0
        self._state = _SIZE
        self._overhead = 0
        self._payload = 0
        self._overhead_limit = overhead_bytes
        self._is_lenient = is_lenient
        self._trailer_limit = trailer_bytes

    def feed(self, data: bytes) -> bytes:
        """Payload of `data`, in one piece. Raises BodyError."""
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        pieces: list[bytes] = []
        position = 0
        size = len(data)
        while position < size:
            if self._state == _DATA:
                end = position + self._left
                if end > size:
                    pieces.append(data[position:] if position else data)
                    self._left = end - size
                    self._payload += size - position
                    break
                pieces.append(data[position:end])
                self._payload += end - position
                position = end
                self._state = _DATA_END
            elif self._state == _DATA_END:
                if size - position == 1 and data[position] == 13:
                    self._buffer = data[position:]
                    break
                if data[position : position + 2] != b"\r\n":
                    raise BodyError(errors.BAD_CHUNK, "chunk data is not followed by CR LF")
                position += 2
                self._state = _SIZE
            else:
                if self._state == _SIZE:
                    end = data.find(b"\r\n", position, position + _SMALL_LINE)
                    small = _SMALL_SIZES.get(data[position:end]) if end > 0 else None
                    if small is not None:
                        self._left = small
                        self._state = _DATA
                        position = end + 2
                        continue
                position = self._feed_line(data, position)
                if position < 0:
                    break
                if self.done:
                    self.rest = data[position:]
                    break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _feed_line(self, data: bytes, position: int) -> int:
        """Take one chunk-size or trailer line; the position behind it, or -1 if it is not complete yet."""
        end = data.find(b"\n", position)
        if end < 0:
            self._buffer = data[position:]
            self._check_unfinished(len(self._buffer))
            return -1
        if end == position or data[end - 1] != 13:
            raise BodyError(errors.BAD_CHUNK, "a bare LF in the chunked coding")
        line = data[position : end - 1]
        if self._state == _SIZE:
            self._size_line_received(line)
        else:
            self._trailer_line_received(line)
        return end + 1

    def _check_unfinished(self, pending: int) -> None:
        buffer = self._buffer
        stray = buffer.find(b"\r")
        if 0 <= stray < pending - 1:
            raise BodyError(errors.BAD_CHUNK, "a bare CR in the chunked coding")
        if self._state == _SIZE:
            head = buffer[:-1] if buffer.endswith(b"\r") else buffer
            if head and _size_line_so_far(head) is None:
                raise BodyError(errors.BAD_CHUNK, "the chunk size is not a hexadecimal number")
            self._check_overhead(pending, pending)
        elif pending > self._trailer_limit:
            raise BodyError(errors.TRAILER_TOO_LARGE, "the trailer section is too long")

    def _check_overhead(self, more: int, line: int) -> None:
        # One line is bounded by itself, however much payload came: an unfinished one is kept, and looked at again.
        limit = self._overhead_limit
        if line > limit + MAX_DIGITS or self._overhead + more > limit + (self._payload >> 3):
            raise BodyError(errors.CHUNK_OVERHEAD, "too many bytes of chunk headers for the data in them")

    def _size_line_received(self, line: bytes) -> None:
        match = _lenient_size_line(line) if self._is_lenient else _size_line(line)
        if match is None:
            raise BodyError(errors.BAD_CHUNK, "the chunk size is not a hexadecimal number")
        size = int(match[1], 16)
        self._overhead += len(line) - max(1, (size.bit_length() + 3) >> 2)
        self._check_overhead(0, len(line))
        if size >= 1 << 63:
            raise BodyError(errors.BAD_CHUNK, "the chunk size is out of range")
        if size:
            self._left = size
            self._state = _DATA
        else:
            self._overhead = 0
            self._state = _TRAILER

    def _trailer_line_received(self, line: bytes) -> None:
        if not line:
            self.done = True
            return
        self._overhead += len(line) + 2
        if self._overhead > self._trailer_limit or len(self.trailers) >= MAX_TRAILER_FIELDS:
            raise BodyError(errors.TRAILER_TOO_LARGE, "the trailer section is too long")
        match = _field_line(line)
        if match is None or value_match(match[2]) is None:
            raise BodyError(errors.BAD_CHUNK, "a malformed trailer field")
        self.trailers.append((match[1], match[2]))


BodyReader = LengthReader | ChunkedReader | UntilCloseReader


def chunk(data: bytes) -> bytes:
    """One chunk that holds `data`, which is not empty."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def chunked(data: bytes, *, is_done: bool, trailers: bytes = b"") -> bytes:
    """A piece of a body, perhaps empty, in chunked coding; with `is_done` the body's end, with trailer field lines."""
    if data:
        data = chunk(data)
    if is_done:
        data += b"0\r\n%b\r\n" % trailers if trailers else LAST_CHUNK
    return data
