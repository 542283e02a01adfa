"""What lbproxy understood, held against h11 and llhttp: the same message, or no message.

They are other authors' strict parsers. lbproxy may refuse more than they do, never less (EXCEPTIONS says where and
why), and what is accepted must mean the same: method, target, version, framing, and every field, less those that
docs/http.md says are taken out. The rules for taking out are written here again, from that page, and not imported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import h11
import httptools

from lbproxy.protocol.body import BodyError, ChunkedReader
from lbproxy.protocol.http1 import (
    HeadError,
    RequestHead,
    ResponseHead,
    check_partial,
    parse_request_head,
    parse_response_head,
)
from lbproxy.protocol.status import status_line

Fields = list[tuple[bytes, bytes]]

HOP_BY_HOP = {
    b"connection", b"proxy-connection", b"keep-alive", b"te", b"transfer-encoding", b"upgrade", b"trailer",
    b"proxy-authenticate", b"proxy-authorization", b"proxy-authentication-info", b"http2-settings",
}  # fmt: skip
FORWARDING = {
    b"forwarded", b"x-forwarded", b"x-real-ip", b"x-request-id", b"true-client-ip", b"cf-connecting-ip",
    b"cf-connecting-ipv6", b"cf-pseudo-ipv4", b"fastly-client-ip", b"client-ip", b"x-client-ip", b"x-cluster-client-ip",
    b"x-envoy-external-address", b"x-appengine-user-ip", b"x-azure-clientip", b"x-azure-socketip", b"x-originating-ip",
    b"x-remote-addr", b"x-remote-ip", b"x-original-forwarded-for", b"proxy-client-ip", b"wl-proxy-client-ip",
    b"x-original-url", b"x-original-uri", b"x-original-host", b"x-original-method", b"x-original-scheme",
    b"x-rewrite-url", b"x-script-name", b"x-url-scheme", b"front-end-https", b"x-arr-ssl",
}  # fmt: skip
# A Connection field can't take these away, or they are options and not names.
NEVER_NOMINATED = {
    b"host",
    b"content-length",
    b"transfer-encoding",
    b"expect",
    b"max-forwards",
    b"close",
    b"keep-alive",
}
MAX_FIELDS = 100
MAX_RESPONSE_FIELDS = 200

# What lbproxy accepts although h11 does not, each with the reason. For heads of requests there is nothing.
EXCEPTIONS = {
    "white space around the `;` of a chunk extension": "RFC 9112 section 7.1.1 allows it; it goes no further",
    "framing fields in the trailer section": "h11 checks their values as if they stood in the head; lbproxy drops them",
    "white space around a framing value": "no part of the value (RFC 9110 section 5.5); llhttp does not know all of it",
    "the same Content-Length several times": "llhttp refuses it in answers; RFC 9110 section 8.6 lets it be one",
    "methods": "llhttp has a table of them, and is shown POST; lbproxy takes any token but what it names",
    "HTTP/1.2 to 1.9 in answers": "llhttp refuses them; RFC 9110 section 6.2 reads them as 1.1",
    "101 without Upgrade": "llhttp refuses it; here it is refused by its status, behind the parser",
}
SPACED_EXTENSION = re.compile(rb"([0-9A-Fa-f])[ \t]+;")
FRAMING_FIELDS = (b"content-length", b"transfer-encoding")


class Disagreement(AssertionError):
    """The two understood different things."""


@dataclass(frozen=True)
class Verdict:
    """What came of one input: did lbproxy accept it, did h11."""

    ours: bool
    theirs: bool


def differ(what: str, ours: object, theirs: object, raw: bytes) -> None:
    if ours != theirs:
        raise Disagreement(f"{what}: lbproxy has {ours!r}, expected is {theirs!r}, of {raw!r}")


# --- h11 ---


def _h11_request(raw: bytes) -> h11.Request:
    """h11's reading. Raises RemoteProtocolError; also if it saw the end of the head elsewhere."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(raw)
    event = connection.next_event()
    if not isinstance(event, h11.Request) or connection.trailing_data[0]:
        raise h11.RemoteProtocolError(f"not exactly one head: {event}")
    return event


_ASK = h11.Request(
    method=b"GET", target=b"/", headers=[(b"Host", b"a"), (b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
)


def _h11_response(raw: bytes) -> h11.Response | h11.InformationalResponse:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection.send(_ASK)
    connection.receive_data(raw)
    event = connection.next_event()
    if not isinstance(event, h11.Response | h11.InformationalResponse) or connection.trailing_data[0]:
        raise h11.RemoteProtocolError(f"not exactly one head: {event}")
    return event


# --- llhttp ---


class _Sink:
    def __init__(self) -> None:
        self.fields: Fields = []

    def on_header(self, name: bytes, value: bytes) -> None:
        value = value.rstrip(b" \t")
        self.fields.append((name, value.lower() if name.lower() == b"transfer-encoding" else value))  # as h11 has it


_padded = re.compile(rb"(?i)(\r\n(?:transfer-encoding|content-length):)[ \t]*([^\r\n]*?)[ \t]*(?=\r\n)")
_lengths = re.compile(rb"(?i)\r\ncontent-length: ([^\r\n]*)(?=\r\n)")


def _llhttp_request(raw: bytes) -> Fields | None:
    """The fields that llhttp reads, None if it refuses the head."""
    method, _, rest = raw.partition(b" ")
    shown = raw if method in (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS") else b"POST " + rest
    sink = _Sink()
    try:
        httptools.HttpRequestParser(sink).feed_data(_padded.sub(rb"\1 \2", shown))
    except httptools.HttpParserUpgrade:
        pass  # the head is complete, and nothing follows
    except httptools.HttpParserError:
        return None
    return sink.fields


def _llhttp_response(raw: bytes) -> Fields | None:
    """The same for an answer."""
    shown = _padded.sub(rb"\1 \2", raw if raw[7:8] in b"01" else b"HTTP/1.1" + raw[8:])
    values = {part.strip(b" \t") for value in _lengths.findall(shown) for part in value.split(b",")}
    if len(values) == 1 and b"" not in values:
        shown = _lengths.sub(b"", shown)[:-4] + b"\r\nContent-Length: " + values.pop() + b"\r\n\r\n"
    sink = _Sink()
    try:
        httptools.HttpResponseParser(sink).feed_data(shown)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        return sink.fields if raw[9:12] == b"101" and "Upgrade" in str(error) else None
    return sink.fields


def _without_lengths(fields: Fields) -> Fields:
    return [(name, value) for name, value in fields if name.lower() != b"content-length"]


# --- what should be left of a head ---


def _options(fields: Fields) -> set[bytes]:
    values = [value for name, value in fields if name.lower() == b"connection"]
    return {option for value in values for part in value.split(b",") if (option := part.strip(b" \t").lower())}


def _of(fields: Fields, name: bytes) -> list[bytes]:
    return [value for key, value in fields if key.lower() == name]


def _framing(fields: Fields, raw: bytes) -> tuple[str, int | None]:
    codings, lengths = _of(fields, b"transfer-encoding"), _of(fields, b"content-length")
    if codings:
        if lengths:
            raise Disagreement(f"both framings accepted: {raw!r}")
        return "chunked", None
    return ("length", int(lengths[0])) if lengths else ("none", None)


def _is_reserved(lower: bytes) -> bool:
    """A claim that lbproxy alone may make, also in the spelling that WSGI makes of it."""
    return lower.replace(b"_", b"-").startswith(b"x-client-cert-")


def _is_forwarding(lower: bytes) -> bool:
    return lower in FORWARDING or lower.startswith(b"x-forwarded-")


def end_to_end(fields: Fields, *, underscores: str = "drop") -> Fields:
    """The end-to-end fields of a request, in order."""
    gone = _options(fields) - NEVER_NOMINATED - {b"te", b"upgrade"}
    out = []
    for name, value in fields:
        lower = name.lower()
        if lower in HOP_BY_HOP | {b"host", b"content-length", b"expect", b"max-forwards", b"via"}:
            continue
        if _is_reserved(lower) or _is_forwarding(lower) or lower in gone:
            continue
        if b"_" in lower and (underscores != "pass" or _is_forwarding(lower.replace(b"_", b"-"))):
            continue
        out.append((name, value))
    return out


def _origin_form(method: bytes, target: bytes, host: bytes) -> tuple[bytes, bytes]:
    """Host and target as RFC 9112 section 3.2 wants them passed on."""
    absolute = re.fullmatch(rb"https?://([^/?#]+)(.*)", target, re.IGNORECASE)
    if absolute is None:
        return host, target
    rest = absolute[2]
    if not rest:
        rest = b"*" if method == b"OPTIONS" else b"/"
    return absolute[1], rest if rest[:1] in b"/*" else b"/" + rest


# --- requests ---


def _parse_or_none(raw: bytes, underscores: str) -> RequestHead | None:
    try:
        return parse_request_head(raw, max_fields=MAX_FIELDS, underscores=underscores)
    except HeadError:
        return None


def check_request(raw: bytes, *, underscores: str = "drop") -> Verdict:
    """Raises Disagreement. Any exception but HeadError out of lbproxy is a defect too, and passes through."""
    head = _parse_or_none(raw, underscores)
    if head is None:
        return Verdict(False, _is_accepted(_h11_request, raw))
    try:
        event = _h11_request(raw)
    except h11.RemoteProtocolError as error:
        raise Disagreement(f"lbproxy accepts what h11 refuses ({error}): {raw!r}") from None
    _compare_request(raw, head, event, underscores)
    differ("fields of h11", _raw_fields(event), _llhttp_request(raw), raw)
    return Verdict(True, True)


def _is_accepted(read: Callable[[bytes], object], raw: bytes) -> bool:
    try:
        read(raw)
    except h11.RemoteProtocolError:
        return False
    return True


def _compare_request(raw: bytes, head: RequestHead, event: h11.Request, underscores: str) -> None:
    fields = _raw_fields(event)
    options = _options(fields)
    gone = options - NEVER_NOMINATED
    method = bytes(event.method)
    differ("method", head.method.encode(), method, raw)
    differ("version", b"1.%d" % head.minor, bytes(event.http_version), raw)
    hosts = _of(fields, b"host")
    host, target = _origin_form(method, bytes(event.target), hosts[0] if hosts else b"")
    differ("host", head.host.encode("latin-1"), host, raw)
    differ("target", head.target, target, raw)
    differ("path and query", f"{head.path}?{head.query}".rstrip("?"), target.decode("latin-1").rstrip("?"), raw)
    framing = (
        ("chunked", None)
        if head.chunked
        else ("length" if head.content_length is not None else "none", head.content_length)
    )
    differ("framing", framing, _framing(fields, raw), raw)
    expected = end_to_end(fields, underscores=underscores)
    if method != b"OPTIONS":
        expected += [(b"Max-Forwards", value) for value in _of(fields, b"max-forwards")]
    differ("fields", head.fields, expected, raw)
    differ("Via", head.via, _of(fields, b"via") if b"via" not in gone else [], raw)
    names = {lower for name, _ in fields if _is_forwarding(lower := name.lower())} - gone
    claims = {name: _of(fields, name) for name in names}
    differ("forwarding", head.forwarding, claims, raw)
    keep = b"close" not in options and (head.minor == 1 or b"keep-alive" in options)
    differ("keep-alive", head.keep_alive, keep, raw)
    if head.upgrade and (head.has_body or head.minor == 0 or b"upgrade" not in options):
        raise Disagreement(f"upgrade although there is a body or no Connection: upgrade: {raw!r}")
    if head.expects_continue and not head.has_body:
        raise Disagreement(f"waits for a body that does not come: {raw!r}")


def check_cuts(raw: bytes, cuts: Iterable[int]) -> None:
    """A good head may arrive in any pieces: no unfinished part of it may be refused."""
    if _parse_or_none(raw, "drop") is None:
        return
    checked = 0
    for at in cuts:
        if checked < at < len(raw):
            check_partial(bytearray(raw[:at]), checked, head_bytes=32 * 1024)
            checked = at


# --- responses ---


def check_response(raw: bytes) -> Verdict:
    """The same for a response head."""
    try:
        head = parse_response_head(raw, max_fields=MAX_RESPONSE_FIELDS)
    except HeadError:
        return Verdict(False, _is_accepted(_h11_response, raw))
    try:
        event = _h11_response(raw)
    except h11.RemoteProtocolError as error:
        raise Disagreement(f"lbproxy accepts what h11 refuses ({error}): {raw!r}") from None
    _compare_response(raw, head, event)
    seen = _llhttp_response(raw)
    differ("fields of h11", _without_lengths(_raw_fields(event)), seen and _without_lengths(seen), raw)
    return Verdict(True, True)


def _raw_fields(event: h11.Request | h11.Response | h11.InformationalResponse) -> Fields:
    return [(bytes(name), bytes(value)) for name, value in event.headers.raw_items()]


def _compare_response(raw: bytes, head: ResponseHead, event: h11.Response | h11.InformationalResponse) -> None:
    fields = _raw_fields(event)
    options = _options(fields)
    gone = options - {b"close", b"keep-alive", b"upgrade"}
    differ("status", head.status, event.status_code, raw)
    differ("reason", head.reason, bytes(event.reason), raw)
    framing = (
        ("chunked", None)
        if head.chunked
        else ("length" if head.content_length is not None else "none", head.content_length)
    )
    differ("framing", framing, _framing(fields, raw), raw)
    dropped = HOP_BY_HOP | {b"content-length", b"x-request-id"} | gone
    differ("fields", head.fields, [field for field in fields if field[0].lower() not in dropped], raw)
    is_11 = event.http_version >= b"1.1"
    keep = b"close" not in options and (is_11 or (b"keep-alive" in options and not head.chunked))
    differ("keep-alive", head.keep_alive, keep, raw)
    if head.status != 101:
        _check_sent(raw, head, status_line(head.status, head.reason) + head.lines + b"\r\n", [])
    if head.is_plain:
        _check_sent(raw, head, head.wire + b"\r\n", [b"%d" % (head.content_length or 0)])


def _check_sent(raw: bytes, head: ResponseHead, sent: bytes, lengths: list[bytes]) -> None:
    """What goes to the client reads as the same answer: nothing in it can break out of its line."""
    try:
        event = _h11_response(sent)
    except h11.RemoteProtocolError as error:
        raise Disagreement(f"lbproxy sends what h11 refuses ({error}): {sent!r} of {raw!r}") from None
    fields = _raw_fields(event)
    differ("sent status", event.status_code, head.status, raw)
    differ("sent reason", bytes(event.reason), head.reason, raw)
    differ("sent version", bytes(event.http_version), b"1.1", raw)
    differ("sent lengths", _of(fields, b"content-length"), lengths, raw)
    differ("sent fields", [field for field in fields if field[0].lower() != b"content-length"], head.fields, raw)


# --- chunked bodies ---


@dataclass(frozen=True)
class Body:
    """What a reader made of the bytes. `end` counts from the first byte; None if the body is not complete."""

    payload: bytes
    end: int | None
    trailers: tuple[tuple[bytes, bytes], ...]
    is_refused: bool


def ours(pieces: Iterable[bytes]) -> Body:
    reader = ChunkedReader()
    payload, total, end = b"", 0, None
    for piece in pieces:
        total += len(piece)
        if reader.done:
            continue
        try:
            payload += reader.feed(piece)
        except BodyError:
            return Body(payload, None, (), True)
        if reader.done:
            end = total - len(reader.rest)
    if not reader.done:
        return Body(payload, None, (), False)
    return Body(payload, end, tuple(reader.trailers), False)


_CHUNKED_POST = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def theirs(data: bytes) -> Body:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(_CHUNKED_POST)
    connection.next_event()
    connection.receive_data(data)
    payload = b""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Data):
                payload += event.data
            elif isinstance(event, h11.EndOfMessage):
                trailers = tuple((bytes(name), bytes(value)) for name, value in event.headers.raw_items())
                return Body(payload, len(data) - len(connection.trailing_data[0]), trailers, False)
            else:
                return Body(payload, None, (), False)
    except h11.RemoteProtocolError:
        return Body(payload, None, (), True)


def _without_spaces(data: bytes) -> bytes:
    """A well-formed chunked body without the spaces before extensions; what looks like one in the data stays."""
    out, at = b"", 0
    while True:
        end = data.index(b"\r\n", at) + 2
        line = SPACED_EXTENSION.sub(rb"\1;", data[at:end])
        size = int(line.partition(b";")[0], 16)
        if not size:
            return out + line + data[end:]
        at = end + size + 2
        out += line + data[end:at]


def _is_exception(data: bytes, whole: Body) -> bool:
    """One of EXCEPTIONS; what can still be compared, is."""
    if any(name.lower() in FRAMING_FIELDS for name, _ in whole.trailers):
        return True
    if SPACED_EXTENSION.search(data) is None:
        return False
    plain = theirs(_without_spaces(data[: whole.end]))
    differ(
        "chunked body with spaced extensions", (whole.payload, whole.trailers), (plain.payload, plain.trailers), data
    )
    return True


def check_chunked(pieces: list[bytes]) -> Verdict:
    """The same payload up to the same byte, whatever the pieces; or refused. Raises Disagreement."""
    data = b"".join(pieces)
    whole, split, other = ours([data]), ours(pieces), theirs(data)
    differ("in pieces: end and verdict", (split.end, split.is_refused), (whole.end, whole.is_refused), data)
    if not whole.is_refused:
        differ("in pieces", split, whole, data)
    if whole.end is not None:
        if _is_exception(data, whole):
            return Verdict(True, other.end is not None)
        differ("chunked body", whole, other, data)
    elif not whole.is_refused and not other.is_refused:
        differ("unfinished chunked body", whole, other, data)
    return Verdict(whole.end is not None, other.end is not None)
