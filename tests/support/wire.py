"""A small and strict HTTP/1.1 reader over a socket, written from RFC 9112 and independent of the proxy's parser.

Both test ends use it: the scripted server to judge what the proxy sends up, the raw client to judge what it sends
down. It accepts only what a careful sender emits (no obs-fold, no bare LF, no chunk extension), because the proxy
writes its own framing and has no excuse for anything else.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, field

Fields = list[tuple[str, str]]

_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x7e]+) (HTTP/1\.[01])")
_STATUS_LINE = re.compile(rb"(HTTP/1\.[01]) ([1-9][0-9]{2}) ([\t\x20-\x7e\x80-\xff]*)")
_FIELD_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*")
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")
_LENGTH = re.compile(r"[0-9]{1,18}")
_BODILESS = frozenset({204, 304})
AT_ONCE, MOST_AT_ONCE = 1 << 16, 1 << 20  # octets that one read asks for


class WireError(Exception):
    """The peer sent bytes that are not strict HTTP/1.1."""


class Ended(Exception):
    """The stream ended inside a message. `how` is "fin" or "rst", `partial` the message read so far."""

    def __init__(self, how: str, partial: Request | Response | None = None, raw: bytes = b"") -> None:
        super().__init__(f"stream ended by {how} inside a message; read {raw[-200:]!r}")
        self.how = how
        self.partial = partial
        self.raw = raw


@dataclass
class Message:
    """What requests and responses have in common. Header names are in lower case, values are latin-1 text."""

    fields: Fields = field(default_factory=list)
    body: bytes = b""
    trailers: Fields = field(default_factory=list)
    framing: str = "none"  # none, length, chunked, close
    chunks: list[int] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        """Every value of a header field, in order."""
        return [value for key, value in self.fields if key == name.lower()]

    def get(self, name: str) -> str | None:
        """The only value of a header field, None without one; two of them are an error of the test's subject."""
        values = self.all(name)
        if len(values) > 1:
            raise WireError(f"{name} occurs {len(values)} times: {values}")
        return values[0] if values else None


@dataclass
class Request(Message):
    method: str = ""
    target: str = ""
    version: str = ""
    connection: int = -1  # number of the server connection that carried it


@dataclass
class Response(Message):
    status: int = 0
    reason: str = ""
    version: str = ""
    interim: list[Response] = field(default_factory=list)

    @property
    def is_kept_alive(self) -> bool:
        """Does the answer promise that the connection stays open (RFC 9112 section 9.3)?"""
        options = {option.strip().lower() for value in self.all("connection") for option in value.split(",")}
        if self.framing == "close" or "close" in options:
            return False
        return self.version == "HTTP/1.1" or "keep-alive" in options


class Stream:
    """Blocking reads from a socket with a record of every byte. Time-outs of the socket apply to each read."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = bytearray()
        self.record = bytearray()
        self.end: str | None = None  # "fin" or "rst" once the peer's direction has ended

    def fill(self, most: int = AT_ONCE) -> bool:
        """Read once; False at the end of the stream. Raises TimeoutError."""
        if self.end is not None:
            return False
        try:
            data = self.sock.recv(most)
        except (ConnectionResetError, BrokenPipeError):
            self.end = "rst"
            return False
        if not data:
            self.end = "fin"
            return False
        self.buffer += data
        self.record += data
        return True

    def _need(self, condition_met: bool) -> None:
        if not condition_met and not self.fill():
            raise Ended(self.end or "fin", raw=bytes(self.record))

    def line(self) -> bytes:
        """One line without its CRLF."""
        while (at := self.buffer.find(b"\n")) < 0:
            self._need(False)
        if at == 0 or self.buffer[at - 1] != 0x0D:
            raise WireError(f"line ends in a bare LF: {bytes(self.buffer[: at + 1])!r}")
        text = bytes(self.buffer[: at - 1])
        del self.buffer[: at + 1]
        return text

    def take(self, count: int) -> bytes:
        """Exactly `count` bytes."""
        while len(self.buffer) < count:
            self._need(False)
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        return data

    def take_into(self, message: Message, count: int) -> None:
        """Exactly `count` bytes appended to the body, which keeps what there is when the stream ends early.

        Each read copies all of the body, for those who look at it meanwhile: more at once where there is more.
        """
        most = AT_ONCE
        while count:
            if not self.buffer:
                if not self.fill(most):
                    self._need(False)
                if len(self.buffer) == most < MOST_AT_ONCE:
                    most *= 4
            part = bytes(self.buffer[:count])
            del self.buffer[: len(part)]
            message.body += part
            count -= len(part)

    def read_to_end(self) -> bytes:
        """What is left until the peer's end."""
        while self.fill():
            pass
        data = bytes(self.buffer)
        self.buffer.clear()
        return data


def read_fields(stream: Stream) -> Fields:
    """Field lines up to and with the blank line."""
    fields: Fields = []
    while line := stream.line():
        found = _FIELD_LINE.fullmatch(line)
        if found is None:
            raise WireError(f"bad field line {line!r}")
        fields.append((found[1].decode("latin-1").lower(), found[2].decode("latin-1")))
    return fields


def _announced_length(message: Message) -> int | None:
    lengths = message.all("content-length")
    if len(lengths) > 1 or (lengths and not _LENGTH.fullmatch(lengths[0])):
        raise WireError(f"bad Content-Length {lengths}")
    return int(lengths[0]) if lengths else None


def _is_chunked(message: Message) -> bool:
    codings = message.all("transfer-encoding")
    if codings and codings != ["chunked"]:
        raise WireError(f"bad Transfer-Encoding {codings}")
    if codings and message.all("content-length"):
        raise WireError("Content-Length and Transfer-Encoding in one message")
    return bool(codings)


def _read_chunks(stream: Stream, message: Message) -> None:
    while True:
        line = stream.line()
        if not _CHUNK_SIZE.fullmatch(line):
            raise WireError(f"bad chunk size line {line!r}")
        size = int(line, 16)
        if size == 0:
            message.trailers = read_fields(stream)
            return
        message.chunks.append(size)
        stream.take_into(message, size)
        if stream.take(2) != b"\r\n":
            raise WireError("chunk does not end in CRLF")


def read_request_head(stream: Stream) -> Request | None:
    """The next request without its body; None when the stream ended cleanly between two requests."""
    while not stream.buffer:
        if not stream.fill():
            return None
    found = _REQUEST_LINE.fullmatch(line := stream.line())
    if found is None:
        raise WireError(f"bad request line {line!r}")
    method, target, version = (part.decode("latin-1") for part in found.groups())
    request = Request(method=method, target=target, version=version)
    request.fields = read_fields(stream)
    hosts = request.all("host")
    if len(hosts) != 1:
        raise WireError(f"request has {len(hosts)} Host fields")
    if _is_chunked(request):
        request.framing = "chunked"
    elif _announced_length(request) is not None:
        request.framing = "length"
    return request


def read_request_body(stream: Stream, request: Request) -> None:
    """The body that the head announced; raises Ended with the partial request."""
    try:
        if request.framing == "chunked":
            _read_chunks(stream, request)
        elif request.framing == "length":
            stream.take_into(request, _announced_length(request) or 0)
    except Ended as ended:
        raise Ended(ended.how, request, ended.raw) from None


def _read_response_head(stream: Stream) -> Response:
    found = _STATUS_LINE.fullmatch(line := stream.line())
    if found is None:
        raise WireError(f"bad status line {line!r}")
    response = Response(version=found[1].decode(), status=int(found[2]), reason=found[3].decode("latin-1"))
    response.fields = read_fields(stream)
    return response


def read_response(stream: Stream, *, is_head: bool = False) -> Response:
    """The next final response with its interim ones (RFC 9112 section 6.3); Ended carries what came before the end."""
    interim: list[Response] = []
    while True:
        response = _read_response_head(stream)
        if response.status >= 200 or response.status == 101:
            break
        if _is_chunked(response) or response.all("content-length"):
            raise WireError(f"{response.status} with framing fields")
        interim.append(response)
    response.interim = interim
    try:
        _read_response_body(stream, response, is_head)
    except Ended as ended:
        raise Ended(ended.how, response, ended.raw) from None
    return response


def _read_response_body(stream: Stream, response: Response, is_head: bool) -> None:
    is_chunked = _is_chunked(response)
    length = _announced_length(response)
    if response.status in (101, 204) and (is_chunked or length is not None):
        raise WireError(f"{response.status} with framing fields")
    if response.status == 101 or is_head or response.status in _BODILESS:
        return
    if is_chunked:
        response.framing = "chunked"
        _read_chunks(stream, response)
    elif length is not None:
        response.framing = "length"
        stream.take_into(response, length)
    else:
        response.framing = "close"
        response.body = stream.read_to_end()
        if stream.end == "rst":
            raise Ended("rst")
