"""HTTP/1.x heads: bytes to meaning, and nothing that was not fully understood gets through.

A head is cut off the stream at its blank line and parsed alone, by a fresh httptools (llhttp) parser that never sees a
body. So its traps cannot happen: that it raises at `Upgrade` before any byte of the body, takes bytes behind the answer
to a HEAD for a body, parses a second message that nobody asked for, decodes chunks under HTTP/1.0. `BodyReader`s in
body.py own all framing behind the blank line. What llhttp lets through and HTTP does not is checked here: no Host or
two, versions that do not exist, heads without a bound, codings besides `chunked`, odd targets. A parsed head is a pure
function of its bytes, so callers may memoise it.

It is longer than 600 lines because requests and responses are read alike: one parser, one set of names, one error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import httptools

from lbproxy import errors
from lbproxy.protocol.connection_auth import CHALLENGES, binds, is_bound_by
from lbproxy.protocol.message import (
    CLIENT_CERT,
    FORWARDING,
    HOP_BY_HOP,
    MAX_VIA,
    TOKEN,
    Field,
    Fields,
    connection_options,
    count_own_via,
    host_match,
    is_forwarding,
    parse_length,
    token_match,
)
from lbproxy.protocol.repair import as_http11, collapse_lengths, repaired
from lbproxy.protocol.request_line import (
    MAX_REQUEST_LINE,
    USUAL_METHODS,
    HeadError,
    check_request_line,
    line_too_long,
)
from lbproxy.protocol.status import status_line
from lbproxy.protocol.upgrade import offered_protocols

MAX_NAME: Final = 256
NO_PROMISE: Final = -1.0  # seconds: no `Keep-Alive: timeout`; 0 is one, and means now

_status_line = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?\r\n").match
# No control character belongs into a head but HTAB and the CR LF pairs that end its lines.
_FIELD_OCTETS: Final = bytes(code for code in range(256) if (code >= 32 and code != 127) or code == 9)
_bad_octet_so_far = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n|\Z)").search
_plain_line = re.compile(
    rb"(" + TOKEN + rb"):[ \t]*((?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?)[ \t]*"
).fullmatch
_padded_framing = re.compile(
    rb"(\r\n(?:transfer-encoding|content-length):)[ \t]*([^\r\n]*?)[ \t]*(?=\r\n)", re.IGNORECASE
)
_te_line = re.compile(rb"\r\ntransfer-encoding:[ \t]*([^\r\n]*?)[ \t]*(?=\r\n)", re.IGNORECASE).findall
_cl_line = re.compile(rb"\r\ncontent-length[ \t]*:", re.IGNORECASE).search
_absolute = re.compile(rb"https?://([^/?#]*)([^#]*)", re.IGNORECASE).fullmatch
_origin = re.compile(rb"/[^#]*").fullmatch


def _has_bad_octet(raw: bytes) -> bool:
    """Is there anything but field octets and CR LF pairs? What is left without the former must be the latter.

    Two passes in C: a regular expression with look-arounds took fifteen times as long.
    """
    return len(raw.translate(None, _FIELD_OCTETS)) != 2 * raw.count(b"\r\n")


class _Sink:
    """Collects what llhttp reports of one head."""

    __slots__ = ("fields",)

    def __init__(self) -> None:
        self.fields: Fields = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))


class RequestHead:
    """An accepted request head. Immutable by convention: it may be shared by many requests.

    fields: end-to-end fields in order, without Host, framing, hop-by-hop, nominated and forwarding fields.
    forwarding: lower-case name -> values of the forwarding family, to be believed from trusted peers only.
    content_length: None without one. keep_alive: the client wants the connection kept. upgrade: the protocols that the
    client offers to switch to, () with a body. binds: its credentials hold for the connection that it is sent on.
    """

    __slots__ = (
        "_headers",
        "accepts_trailers",
        "binds",
        "chunked",
        "content_length",
        "expects_continue",
        "fields",
        "forwarding",
        "host",
        "keep_alive",
        "max_forwards",
        "method",
        "minor",
        "nominated_dropped",
        "nominates",
        "path",
        "query",
        "referer",
        "target",
        "underscore_dropped",
        "upgrade",
        "user_agent",
        "via",
    )

    def __init__(self) -> None:
        self._headers: Mapping[str, str] | None = None
        self.binds = False
        self.method = ""
        self.target = b""
        self.path = ""
        self.query = ""
        self.host = ""
        self.minor = 1
        self.fields: Fields = []
        self.via: list[bytes] = []
        self.forwarding: dict[bytes, list[bytes]] = {}
        self.content_length: int | None = None
        self.chunked = False
        self.keep_alive = True
        self.expects_continue = False
        self.upgrade: tuple[bytes, ...] = ()
        self.accepts_trailers = False
        self.max_forwards: int | None = None
        self.user_agent = b""
        self.referer = b""
        self.underscore_dropped = 0
        self.nominated_dropped = 0
        self.nominates = False

    @property
    def has_body(self) -> bool:
        return self.chunked or bool(self.content_length)

    @property
    def headers(self) -> Mapping[str, str]:
        """Lower-case names to values (repeated ones joined by ', '), as routes and strategies read them."""
        if self._headers is None:
            table: dict[str, str] = {"host": self.host}
            for name, value in self.fields:
                key = name.lower().decode("latin-1")
                text = value.decode("latin-1")
                table[key] = f"{table[key]}, {text}" if key in table else text
            self._headers = table
        return self._headers


def check_partial(
    buffer: bytearray, start: int, *, head_bytes: int, line_bytes: int = MAX_REQUEST_LINE, is_response: bool = False
) -> None:
    """Refuse an unfinished head as soon as it can't become a good one. `start`: how much was checked before.

    Each byte is looked at a bounded number of times, however the head is cut. line_bytes: the longest request line,
    without its CR LF. Raises HeadError.
    """
    if _bad_octet_so_far(buffer, max(0, start - 1)) is not None:
        raise HeadError(errors.BAD_REQUEST, "a control character, a bare CR or a bare LF in the head")
    if is_response:
        return
    line_end = buffer.find(b"\r\n", max(0, start - 1))
    if line_end >= 0 and start <= line_end + 1:
        first = buffer.find(b"\r\n")
        if first == line_end:
            check_request_line(bytes(buffer[: first + 2]), line_bytes)
    if len(buffer) > line_bytes and buffer.find(b"\r\n", 0, line_bytes + 2) < 0:
        raise line_too_long(line_bytes)
    if len(buffer) > head_bytes:
        raise HeadError(errors.HEADER_TOO_LARGE, f"the head is longer than {head_bytes} bytes")


def parse_request_head(
    raw: bytes, *, max_fields: int, underscores: str = "drop", line_bytes: int = MAX_REQUEST_LINE
) -> RequestHead:
    """Parse one request head: `raw` ends with its blank line. Raises HeadError with the fault to answer.

    underscores: what happens to field names with an underscore, which WSGI folds onto real ones: drop, pass or reject.
    line_bytes: the longest request line.
    """
    if _has_bad_octet(raw):
        raise HeadError(errors.BAD_REQUEST, "a control character, a bare CR or a bare LF in the head")
    head = RequestHead()
    head.method, target, head.minor = check_request_line(raw, line_bytes)
    fields = _trimmed(raw, _llhttp_fields(raw, len(head.method)))
    if len(fields) > max_fields:
        raise HeadError(errors.HEADER_TOO_LARGE, f"more than {max_fields} header fields")
    lines = _sort_fields(head, fields, underscores)
    _set_framing(head, lines)
    _set_target(head, target, lines.get(b"host", []))
    _set_expectations(head, lines)
    return head


def _llhttp_fields(raw: bytes, method_length: int) -> Fields:
    """The fields as llhttp reads them.

    llhttp knows a table of methods and refuses all others, so it is shown POST in their place. That is sound because
    nothing that it says depends on the method, but for CONNECT, PRI and those of RTSP and ICE, which are not served:
    the method was checked before, the framing is decided from the fields (_set_framing), and llhttp never sees a body.
    """
    sink = _Sink()
    if raw[:method_length] not in USUAL_METHODS:
        raw = b"POST" + raw[method_length:]
        method_length = 4
    try:
        httptools.HttpRequestParser(sink).feed_data(raw)
    except httptools.HttpParserUpgrade:
        # The head is complete; nothing of what follows was fed, so nothing can be lost or misread.
        return sink.fields
    except httptools.HttpParserError as error:
        # White space around a value is not part of it (RFC 9110 section 5.5), but llhttp does not know all that a
        # framing field may have. Whatever else is wrong with the head still is when that has gone.
        trimmed = _padded_framing.sub(rb"\1 \2", raw)
        if trimmed != raw:
            return _llhttp_fields(trimmed, method_length)
        raise _request_refused(raw, error) from None
    return sink.fields


def _trimmed(raw: bytes, fields: Fields) -> Fields:
    """White space behind a value is not part of it (RFC 9112 section 5.1); llhttp leaves it there."""
    if b" \r\n" in raw or b"\t" in raw:
        return [(name, value.rstrip(b" \t")) for name, value in fields]
    return fields


def _request_refused(raw: bytes, error: Exception) -> HeadError:
    """Name the reason of a head that llhttp refused: framing is told apart, an unknown coding is 501."""
    codings = _te_line(raw)
    has_length = _cl_line(raw) is not None
    if len(codings) == 1 and not has_length and codings[0].lower() != b"chunked" and token_match(codings[0]):
        return HeadError(errors.BAD_TRANSFER_CODING, f"transfer coding {codings[0][:40].decode('latin-1')!r}")
    text = str(error)
    if "Content-Length" in text or "Transfer-Encoding" in text:
        return HeadError(errors.BAD_FRAMING, text)
    return HeadError(errors.BAD_REQUEST, text)


# Fields that the gateway reads or rewrites, besides forwarding fields with a prefix; all others pass in order.
_SINGLED_OUT: Final = (
    HOP_BY_HOP | FORWARDING | frozenset((b"host", b"content-length", b"expect", b"max-forwards", b"via"))
)
_NOT_NOMINATIONS: Final = frozenset((b"close", b"keep-alive", b"upgrade", b"te"))
_NO_OPTIONS: Final[frozenset[bytes]] = frozenset()
_NO_VALUES: Final[list[bytes]] = []
_USUAL: Final = frozenset((b"host", b"connection", b"content-length"))
_KEPT_IF_NOMINATED: Final = frozenset((b"host", b"content-length", b"transfer-encoding", b"expect", b"max-forwards"))


_PASS: Final = 0
_LOOK: Final = 1
_LOGGED: Final = 2
_UNDERSCORE: Final = 3
_DROP: Final = 4
_TOO_LONG: Final = 5
_CREDENTIALS: Final = 6
_MAX_NAMES: Final = 1024


def _is_disguised(lower: bytes) -> bool:
    """Would a WSGI server read this underscored name as a field that only lbproxy may set?"""
    real = lower.replace(b"_", b"-")
    return real != lower and (is_forwarding(real) or real.startswith(CLIENT_CERT))


class _NameKinds(dict[bytes, tuple[int, bytes]]):
    """What to do with a field of this name, and its lower-case form; filled as names are met, and bounded."""

    def __missing__(self, name: bytes) -> tuple[int, bytes]:
        lower = name.lower()
        if len(name) > MAX_NAME:
            return _TOO_LONG, lower
        if lower in _SINGLED_OUT or is_forwarding(lower):
            kind = _LOOK
        elif lower in (b"user-agent", b"referer"):
            kind = _LOGGED
        elif lower == b"authorization":
            kind = _CREDENTIALS
        elif lower.startswith(CLIENT_CERT) or _is_disguised(lower):
            kind = _DROP
        else:
            kind = _UNDERSCORE if b"_" in lower else _PASS
        if len(self) >= _MAX_NAMES:
            self.clear()
        self[name] = (kind, lower)
        return kind, lower


_name_kinds = _NameKinds()


def plain_field(line: bytes) -> tuple[bytes, bytes] | None:
    """(lower-case name, the line as it is sent) of a field that no rule of the gateway looks at; None for any other."""
    match = _plain_line(line)
    if match is None:
        return None
    kind, lower = _name_kinds[match[1]]
    if kind == _PASS or (kind == _CREDENTIALS and not is_bound_by(match[2])):
        return lower, b"%b: %b\r\n" % match.groups()
    return None


def _sort_fields(head: RequestHead, fields: Fields, underscores: str) -> dict[bytes, list[bytes]]:
    """Split what was received into end-to-end fields (on the head) and the lines that need a decision (returned)."""
    lines: dict[bytes, list[bytes]] = {}
    kept = head.fields
    for field in fields:
        kind, lower = _name_kinds[field[0]]
        if kind == _PASS:
            kept.append(field)
        elif kind == _LOOK:
            if lower in lines:
                lines[lower].append(field[1])
            else:
                lines[lower] = [field[1]]
        elif kind == _DROP:
            head.underscore_dropped += b"_" in lower
        elif kind == _LOGGED:
            kept.append(field)
            if lower == b"referer":
                head.referer = field[1]
            else:
                head.user_agent = field[1]
        elif kind == _CREDENTIALS:
            kept.append(field)
            if is_bound_by(field[1]):
                head.binds = True
        elif kind == _TOO_LONG:
            raise HeadError(errors.HEADER_TOO_LARGE, f"a field name is longer than {MAX_NAME} bytes")
        elif kind == _UNDERSCORE:
            if underscores == "pass":
                kept.append(field)
            elif underscores == "reject":
                raise HeadError(errors.UNDERSCORE_HEADER, f"field name {field[0][:80].decode('latin-1')!r}")
            else:
                head.underscore_dropped += 1
    options = connection_options(lines[b"connection"]) if b"connection" in lines else _NO_OPTIONS
    nominated = options - _NOT_NOMINATIONS
    if nominated:
        head.nominates = True
        before = len(kept) + len(lines)
        head.fields = [field for field in kept if field[0].lower() not in nominated]
        for name in nominated - _KEPT_IF_NOMINATED:
            lines.pop(name, None)
        head.nominated_dropped = before - len(head.fields) - len(lines)
    head.keep_alive = b"close" not in options if head.minor else b"keep-alive" in options and b"close" not in options
    if not lines.keys() <= _USUAL:
        head.forwarding = {name: values for name, values in lines.items() if is_forwarding(name)}
    head.via = lines.get(b"via", _NO_VALUES)
    if head.via and count_own_via(head.via) >= MAX_VIA:
        raise HeadError(errors.LOOP_DETECTED, f"Via names lbproxy {MAX_VIA} times")
    if b"te" in lines and b"te" in options:
        head.accepts_trailers = any(
            element.strip(b" \t").lower() == b"trailers" for value in lines[b"te"] for element in value.split(b",")
        )
    if b"upgrade" in options and b"upgrade" in lines and head.minor == 1:
        head.upgrade = offered_protocols(lines[b"upgrade"])
    return lines


def _set_framing(head: RequestHead, lines: dict[bytes, list[bytes]]) -> None:
    """Content-Length or chunked, never both, never twice (RFC 9112 section 6.3; llhttp checks most of it as well)."""
    codings = lines.get(b"transfer-encoding")
    lengths = lines.get(b"content-length")
    if codings is not None:
        if head.minor == 0:
            raise HeadError(errors.BAD_FRAMING, "Transfer-Encoding in an HTTP/1.0 request")
        if lengths is not None:
            raise HeadError(errors.BAD_FRAMING, "both Transfer-Encoding and Content-Length")
        if len(codings) != 1 or codings[0].lower() != b"chunked":
            unknown = len(codings) == 1 and token_match(codings[0]) is not None
            fault = errors.BAD_TRANSFER_CODING if unknown else errors.BAD_FRAMING
            raise HeadError(fault, "Transfer-Encoding is not exactly 'chunked'")
        head.chunked = True
    elif lengths is not None:
        length = parse_length(lengths[0])
        if len(lengths) != 1 or length is None:
            raise HeadError(errors.BAD_FRAMING, "Content-Length is not one number")
        head.content_length = length
    if head.upgrade and head.has_body:
        head.upgrade = ()


class _KnownHosts(dict[bytes, str]):
    """Valid Host values as text; filled as they are met, and bounded. Raises HeadError for those that are not valid."""

    def __missing__(self, value: bytes) -> str:
        if host_match(value) is None:
            raise HeadError(errors.BAD_HOST, "the Host value is not a host with an optional port")
        if b":" in value and not value.endswith(b"]"):
            port = value.rpartition(b":")[2]
            if port and int(port) > 65535:
                raise HeadError(errors.BAD_HOST, "the port in Host is above 65535")
        if len(value) > MAX_NAME:
            return value.decode()
        if len(self) >= _MAX_NAMES:
            self.clear()
        host = self[value] = value.decode()
        return host


_known_hosts = _KnownHosts()


def _set_target(head: RequestHead, target: bytes, hosts: list[bytes]) -> None:
    """RFC 9112 section 3.2: origin-form out, Host from an absolute-form target, exactly one valid Host."""
    if len(hosts) > 1 or (not hosts and head.minor == 1):
        raise HeadError(errors.BAD_HOST, f"{len(hosts)} Host fields")
    head.host = _known_hosts[hosts[0]] if hosts else ""
    if _origin(target) is None:
        if target == b"*":
            if head.method != "OPTIONS":
                raise HeadError(errors.BAD_TARGET, "'*' is a target for OPTIONS only")
        else:
            match = _absolute(target)
            if match is None or host_match(match[1]) is None:
                raise HeadError(errors.BAD_TARGET, "the target is neither a path nor a valid absolute URL")
            head.host, target = _known_hosts[match[1]], match[2]
            if not target:
                target = b"*" if head.method == "OPTIONS" else b"/"
            elif target[:1] == b"?":
                target = b"/" + target
    head.target = target
    head.path, _, head.query = target.decode("latin-1").partition("?")


def _set_expectations(head: RequestHead, lines: dict[bytes, list[bytes]]) -> None:
    """Expect (RFC 9110 section 10.1.1) and Max-Forwards (7.6.2)."""
    expectations = lines.get(b"expect")
    if expectations is not None and head.minor == 1:
        if len(expectations) != 1 or expectations[0].lower() != b"100-continue":
            raise HeadError(errors.BAD_EXPECT, "Expect is not exactly one 100-continue")
        head.expects_continue = head.has_body  # without one there is nothing to wait with: ignored, and not passed on
    forwards = lines.get(b"max-forwards")
    if forwards is not None:
        if head.method != "OPTIONS":
            head.fields.extend((b"Max-Forwards", value) for value in forwards)
            return
        count = parse_length(forwards[0])
        if count is None or len(forwards) != 1:
            raise HeadError(errors.BAD_REQUEST, "Max-Forwards is not one number")
        head.max_forwards = count


class ResponseHead:
    """An accepted response head; may be shared. `fields` are end-to-end fields without framing.

    content_length: None without one. keep_alive: the server will keep the connection. keep_alive_timeout_s: what its
    Keep-Alive field promises, negative without one. is_bodiless: the status alone says so (1xx, 204, 304). lines: the
    fields as they are sent. body_length: what follows unless the request was HEAD, -1 if that is not known. is_plain:
    has a length and a date, so that `wire` (status line, fields and length) can be sent as it is. has_date: whoever
    forwards an answer without a Date adds one. upgrade: of a 101 what was chosen, of a 426 what the server asks for.
    binds: the connection is, or can become, one user's. is_shared: it is kept and not bound, so that the next request
    on it may be anybody's.
    """

    __slots__ = (
        "binds",
        "body_length",
        "chunked",
        "content_length",
        "fields",
        "has_date",
        "is_bodiless",
        "is_plain",
        "is_shared",
        "keep_alive",
        "keep_alive_timeout_s",
        "lines",
        "nominated",
        "reason",
        "status",
        "upgrade",
        "wire",
    )

    def __init__(self, status: int, reason: bytes) -> None:
        self.status = status
        self.reason = reason
        self.fields: Fields = []
        self.lines = b""
        self.wire = b""
        self.is_plain = False
        self.is_shared = True
        self.binds = False
        self.has_date = False
        self.body_length = -1
        self.is_bodiless = status < 200 or status in (204, 304)
        self.content_length: int | None = None
        self.chunked = False
        self.keep_alive = True
        self.keep_alive_timeout_s = NO_PROMISE
        self.upgrade = b""
        self.nominated: frozenset[bytes] = frozenset()


_RESPONSE_SINGLED_OUT: Final = HOP_BY_HOP | {b"content-length", b"date", b"x-request-id"}


class _LookedAt(dict[bytes, bytes]):
    """Names of response fields that the gateway reads or removes, in lower case; b"" for all others. Bounded."""

    def __missing__(self, name: bytes) -> bytes:
        lower = name.lower()
        found = lower if lower in _RESPONSE_SINGLED_OUT or lower in CHALLENGES else b""
        if len(name) <= MAX_NAME:
            if len(self) >= _MAX_NAMES:
                self.clear()
            self[name] = found
        return found


_looked_at = _LookedAt()
_RESPONSE_OPTIONS: Final = frozenset((b"close", b"keep-alive", b"upgrade"))
_keep_alive_timeout = re.compile(rb"(?:^|[,; \t])timeout=([0-9]{1,6})").search
_no_more_requests = re.compile(rb"(?:^|[,; \t])max=0+(?![0-9])").search


def parse_response_head(raw: bytes, *, max_fields: int, is_lenient: bool = False) -> ResponseHead:
    """Parse one response head: `raw` ends with its blank line. Raises HeadError (bad_response and kin).

    is_lenient: what is not strict HTTP is repaired where that is sound (repair.py), and then parsed strictly.
    """
    try:
        return _parse_strictly(raw, max_fields)
    except HeadError as error:
        found = repaired(raw) if is_lenient and error.fault is errors.BAD_RESPONSE else None
        if found is None:
            raise
    head = _parse_strictly(found[0], max_fields)
    if not found[1]:
        head.keep_alive = head.is_shared = False
    return head


def _parse_strictly(raw: bytes, max_fields: int) -> ResponseHead:
    match = _status_line(raw)
    if match is None or _has_bad_octet(raw):
        raise HeadError(errors.BAD_RESPONSE, "the status line or a field has octets that HTTP does not allow")
    minor, status = int(match[1]), int(match[2])
    fields = _trimmed(raw, _response_fields(raw))
    if len(fields) > max_fields:
        raise HeadError(errors.RESPONSE_HEADER_TOO_LARGE, f"more than {max_fields} header fields")
    head = ResponseHead(status, match[3] or b"")
    lines: dict[bytes, list[bytes]] = {}
    kept = head.fields
    for field in fields:
        lower = _looked_at[field[0]]
        if not lower:
            kept.append(field)
        elif lower in CHALLENGES:
            head.binds = head.binds or binds(lower, field[1])
            if lower not in HOP_BY_HOP:
                kept.append(field)
        elif lower == b"date":
            kept.append(field)
            head.has_date = True
        elif lower in lines:
            lines[lower].append(field[1])
        else:
            lines[lower] = [field[1]]
    options = connection_options(lines[b"connection"]) if b"connection" in lines else _NO_OPTIONS
    head.nominated = options - _RESPONSE_OPTIONS
    if head.nominated:
        head.fields = [field for field in head.fields if field[0].lower() not in head.nominated]
        head.has_date = head.has_date and b"date" not in head.nominated
    head.keep_alive = b"close" not in options if minor else b"keep-alive" in options and b"close" not in options
    _set_response_framing(head, lines, minor)
    for value in lines.get(b"keep-alive", _NO_VALUES):
        timeout = _keep_alive_timeout(value.lower())
        if timeout is not None:
            head.keep_alive_timeout_s = float(timeout[1])
        if head.keep_alive_timeout_s == 0.0 or _no_more_requests(value.lower()):
            head.keep_alive = False  # it closes at once, though it does not say `Connection: close`
    head.is_shared = head.keep_alive and not head.binds
    if status == 101 and b"upgrade" in options and minor:  # HTTP/1.0 has no 1xx (RFC 9110 section 15.2)
        head.upgrade = b", ".join(lines.get(b"upgrade", [])).lower()
    elif status == 426:
        head.upgrade = b", ".join(lines.get(b"upgrade", _NO_VALUES))
    head.lines = b"".join([b"%b: %b\r\n" % field for field in head.fields])
    if head.content_length is not None and status >= 200 and status != 204:
        head.is_plain = head.has_date and status != 426
        if not head.is_bodiless:
            head.body_length = head.content_length
        head.wire = b"%b%bContent-Length: %d\r\n" % (status_line(status, head.reason), head.lines, head.content_length)
    return head


def _response_fields(raw: bytes) -> Fields:
    sink = _Sink()
    try:
        httptools.HttpResponseParser(sink).feed_data(as_http11(raw))
    except httptools.HttpParserUpgrade:
        return sink.fields
    except httptools.HttpParserError as error:
        if raw[9:12] == b"101" and "Upgrade" in str(error):
            return sink.fields  # 101 without Upgrade: the exchange refuses it by its status
        single = collapse_lengths(raw)
        if single is not None:
            return _response_fields(single)  # it has one length now, so this comes back here at most once
        raise HeadError(errors.BAD_RESPONSE, str(error)) from None
    return sink.fields


def _set_response_framing(head: ResponseHead, lines: dict[bytes, list[bytes]], minor: int) -> None:
    codings = lines.get(b"transfer-encoding")
    lengths = lines.get(b"content-length")
    if codings is not None:
        if lengths is not None or len(codings) != 1 or codings[0].lower() != b"chunked":
            raise HeadError(errors.BAD_RESPONSE, "Transfer-Encoding is not exactly 'chunked' and alone")
        head.chunked = True
        if minor == 0:  # RFC 9112 section 6.1: process it, and close the connection
            head.keep_alive = False
    elif lengths is not None:
        length = parse_length(lengths[0])
        if len(lengths) != 1 or length is None:
            raise HeadError(errors.BAD_RESPONSE, "Content-Length is not one number")
        head.content_length = length


__all__ = [
    "MAX_REQUEST_LINE",
    "Field",
    "HeadError",
    "RequestHead",
    "ResponseHead",
    "check_partial",
    "line_too_long",
    "parse_request_head",
    "parse_response_head",
    "plain_field",
]
