"""Request heads: bytes to meaning. Every head is read the same way, whether it was seen before or not.

The start line, and then line after line: a name that the table knows says whether its line passes as it is, is read, or
goes. What HTTP does not allow is refused: no Host or two, framing that two readers could understand in two ways, odd
targets, versions that do not exist. A head that was read is a pure function of its bytes, so callers may remember it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from lbproxy import errors
from lbproxy.protocol.connection_auth import is_bound_by
from lbproxy.protocol.field_lines import (
    MAX_NAME,
    MAX_REMEMBERED,
    NO_OPTIONS,
    WHITE,
    HeadError,
    Line,
    Name,
    colon_of,
    cut,
    fields_of,
    lower_name,
    remember,
    without,
)
from lbproxy.protocol.message import (
    CLIENT_CERT,
    FORWARDING,
    FORWARDING_PREFIX,
    HOP_BY_HOP,
    KEEP_ALIVE,
    MAX_VIA,
    Fields,
    connection_options,
    count_own_via,
    host_match,
    is_forwarding,
    parse_length,
    token_match,
)
from lbproxy.protocol.request_line import MAX_REQUEST_LINE, read_request_line
from lbproxy.protocol.upgrade import offered_protocols

_absolute = re.compile(r"https?://([^/?#]*)([^#]*)", re.IGNORECASE | re.ASCII).fullmatch
# What has the form of a target: a path or the asterisk, or `scheme://`, a user, a host and a port, and what follows.
_AUTHORITY: Final = r"[A-Za-z0-9\-._~!$&'()*+,;=:%\[\]]*"
_has_form = re.compile(
    r"[/*].*|[A-Za-z]+://" + _AUTHORITY + r"(?:@" + _AUTHORITY + r")?(?:[/?].*)?", re.DOTALL
).fullmatch
_Lines = dict[bytes, list[bytes]]  # by lower-case name, the values of the fields that are read

_NO_VALUES: Final[list[bytes]] = []
_NOTHING: Final[_Lines] = {}  # never added to
_NOT_NOMINATIONS: Final = frozenset((b"close", b"keep-alive", b"upgrade", b"te"))
_KEPT_IF_NOMINATED: Final = frozenset((b"host", b"content-length", b"transfer-encoding", b"expect", b"max-forwards"))


class RequestHead:
    """An accepted request head. Immutable by convention: it may be shared by many requests.

    lines: end-to-end fields in order, as `name: value`, without Host, framing, hop-by-hop, nominated and forwarding
    fields. forwarding: lower-case name -> values of the forwarding family, to be believed from trusted peers only.
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
        "forwarding",
        "host",
        "keep_alive",
        "lines",
        "max_forwards",
        "method",
        "minor",
        "nominated_dropped",
        "referer",
        "target_text",
        "underscore_dropped",
        "upgrade",
        "user_agent",
        "via",
    )

    def __init__(self) -> None:
        self._headers: Mapping[str, str] | None = None
        self.binds = False
        self.method = ""
        self.target_text = ""
        self.host = ""
        self.minor = 1
        self.lines: list[str] = []
        self.via: list[bytes] = _NO_VALUES
        self.forwarding: _Lines = _NOTHING
        self.content_length: int | None = None
        self.chunked = False
        self.keep_alive = True
        self.expects_continue = False
        self.upgrade: tuple[bytes, ...] = ()
        self.accepts_trailers = False
        self.max_forwards: int | None = None
        self.user_agent = ""
        self.referer = ""
        self.underscore_dropped = 0
        self.nominated_dropped = 0

    @property
    def has_body(self) -> bool:
        return self.chunked or bool(self.content_length)

    @property
    def target(self) -> bytes:
        """As it goes on: a path with its query, or the asterisk."""
        return self.target_text.encode("latin-1")

    @property
    def path(self) -> str:
        """The target up to its query, as it was sent."""
        return self.target_text.partition("?")[0]

    @property
    def query(self) -> str:
        """What is behind the first question mark of the target."""
        return self.target_text.partition("?")[2]

    @property
    def fields(self) -> Fields:
        """`lines` as pairs of name and value."""
        return fields_of(self.lines)

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


# --- names ----------------------------------------------------------------------------------------------------------

_UNDERLINE: Final = 95
_PASS: Final = 0  # and it is what is sent
_ANEW: Final = 1  # passes, but is written anew
_HOST: Final = 2
_LENGTH: Final = 3
_CONNECTION: Final = 4
_CLAIM: Final = 5  # of the forwarding family
_LOOK: Final = 6  # needs a decision of another kind
_AGENT: Final = 7
_REFERER: Final = 8
_CREDENTIALS: Final = 9
_BINDING: Final = 10  # credentials that hold for the connection
_UNDERSCORE: Final = 11
_DROP: Final = 12
_TOO_LONG: Final = 13

# Fields that the gateway reads, rewrites or removes.
_LOOKED_AT: Final = HOP_BY_HOP | {b"expect", b"max-forwards", b"via"}
_KINDS: Final = {
    **dict.fromkeys(FORWARDING, _CLAIM),
    **dict.fromkeys(_LOOKED_AT, _LOOK),
    b"host": _HOST,
    b"content-length": _LENGTH,
    b"connection": _CONNECTION,
    b"user-agent": _AGENT,
    b"referer": _REFERER,
    b"authorization": _CREDENTIALS,
}


def _judged(lower: bytes) -> Name:
    """What is to be done with a name that was never met. Names may be new in every head, so this must not cost much."""
    kind = _KINDS.get(lower, _PASS)
    if kind == _PASS and lower.startswith(b"x"):
        if lower.startswith(FORWARDING_PREFIX):
            kind = _CLAIM
        elif lower.startswith(CLIENT_CERT):
            kind = _DROP
    if kind == _PASS and _UNDERLINE in lower:
        # Would a WSGI server read this underscored name as a field that only lbproxy may set?
        real = lower.replace(b"_", b"-")
        kind = _DROP if is_forwarding(real) or real.startswith(CLIENT_CERT) else _UNDERSCORE
    return Name(kind, lower)


_names: Final[dict[str, Name]] = {}  # as sent


def _met(name: str) -> Name:
    """A name that is not in the table. Raises HeadError for what is none."""
    lower = lower_name(name)
    if not lower:
        raise HeadError(errors.BAD_REQUEST, "a field name is empty or has octets that HTTP does not allow")
    if len(lower) > MAX_NAME:
        return Name(_TOO_LONG, lower)
    if len(_names) >= MAX_REMEMBERED:
        _names.clear()
    found = _names[name] = _judged(lower)
    return found


# --- lines ----------------------------------------------------------------------------------------------------------

_lines: Final[dict[str, Line]] = {}
_AS_IT_IS: Final = Line(_PASS, b"", "", "")


def _read(line: str) -> Line:
    """What a line says that is not remembered. Raises HeadError for what is no field."""
    colon, is_plain = colon_of(line)
    if colon < 0:
        raise HeadError(errors.BAD_REQUEST, "a line without a colon, or with octets that HTTP does not allow")
    name = line[:colon]
    known = _names.get(name)
    if known is None:
        known = _met(name)
    kind = known.kind
    if kind == _PASS and is_plain:
        found = _AS_IT_IS
    else:
        text = line[colon + 2 :] if is_plain else line[colon + 1 :].strip(WHITE)
        found = Line(kind or _ANEW, known.lower, text, line if is_plain else f"{name}: {text}")
        if kind == _LENGTH:
            length = parse_length(found.value)
            found.number = -1 if length is None else length
        elif kind == _CONNECTION:
            found.options = connection_options([found.value])
        elif kind == _CREDENTIALS and is_bound_by(found.value):
            found.kind = _BINDING
    remember(_lines, known, line, found)
    return found


class _Found:
    """What the lines of a head say that needs a decision. others: lower-case name -> values."""

    __slots__ = ("host", "length", "n_hosts", "n_lengths", "options", "others", "refusal")

    def __init__(self) -> None:
        self.host = b""
        self.n_hosts = 0
        self.length = -1
        self.n_lengths = 0
        self.options = NO_OPTIONS
        self.others = _NOTHING
        self.refusal: HeadError | None = None

    def add(self, name: bytes, value: bytes) -> None:
        if self.others is _NOTHING:
            self.others = {}
        self.others.setdefault(name, []).append(value)


# --- reading --------------------------------------------------------------------------------------------------------


def parse_request_head(
    raw: bytes, *, max_fields: int, underscores: str = "drop", line_bytes: int = MAX_REQUEST_LINE
) -> RequestHead:
    """Parse one request head: `raw` ends with its blank line. Raises HeadError with the fault to answer.

    underscores: what happens to field names with an underscore, which WSGI folds onto real ones: drop, pass or reject.
    line_bytes: the longest request line.
    """
    lines = cut(raw)
    if lines is None:
        raise HeadError(errors.BAD_REQUEST, "the head does not end with a blank line")
    head = RequestHead()
    head.method, target, head.minor = read_request_line(lines[0], line_bytes)
    is_path = target[0] == "/" and "#" not in target
    if not is_path and _has_form(target) is None:
        raise HeadError(errors.BAD_REQUEST, "the target is neither a path nor a URL")
    if len(lines) > max_fields + 1:  # before any of them is looked at: the least of fields costs more than its bytes
        raise HeadError(errors.HEADER_TOO_LARGE, f"more than {max_fields} header fields")
    found = _read_lines(head, lines, underscores)
    _set_framing(head, found)
    if found.refusal is not None:
        raise found.refusal
    options = found.options
    if options:
        _set_connection(head, found, options)
    else:
        head.keep_alive = head.minor == 1
    if found.others:
        _set_via(head, found.others)
    _set_host(head, found)
    if is_path:
        head.target_text = target
    else:
        _set_target(head, target)
    if found.others:
        _set_expectations(head, found.others)
    return head


def _read_lines(head: RequestHead, lines: list[str], underscores: str) -> _Found:
    """Split the fields into those that go on (`head.lines`), claims, and those that need a decision (returned)."""
    found = _Found()
    kept = head.lines
    for index in range(1, len(lines)):
        line = lines[index]
        one = _lines.get(line)
        if one is None:
            one = _read(line)
        kind = one.kind
        if kind == _PASS:
            kept.append(line)
        elif kind == _HOST:
            found.n_hosts += 1
            found.host = one.value
        elif kind == _LENGTH:
            found.n_lengths += 1
            found.length = one.number
        elif kind == _CONNECTION:
            found.options = found.options | one.options if found.options else one.options
        elif kind == _CLAIM:
            if head.forwarding is _NOTHING:
                head.forwarding = {}
            head.forwarding.setdefault(one.lower, []).append(one.value)
        elif kind == _LOOK:
            found.add(one.lower, one.value)
        elif kind <= _BINDING:
            kept.append(one.sent)
            if kind == _AGENT:
                head.user_agent = one.text
            elif kind == _REFERER:
                head.referer = one.text
            elif kind == _BINDING:
                head.binds = True
        else:
            _read_odd_name(head, one, underscores, found)
    return found


def _read_odd_name(head: RequestHead, line: Line, underscores: str, found: _Found) -> None:
    """A name with an underscore, or too long, or of a field that only lbproxy may set."""
    if line.kind == _TOO_LONG:
        if found.refusal is None:
            found.refusal = HeadError(errors.HEADER_TOO_LARGE, f"a field name is longer than {MAX_NAME} bytes")
    elif line.kind == _DROP:
        head.underscore_dropped += _UNDERLINE in line.lower
    elif underscores == "pass":
        head.lines.append(line.sent)
    elif underscores == "drop":
        head.underscore_dropped += 1
    elif found.refusal is None:
        found.refusal = HeadError(errors.UNDERSCORE_HEADER, f"field name {line.sent.partition(':')[0][:80]!r}")


def _set_framing(head: RequestHead, found: _Found) -> None:
    """Content-Length or chunked, never both, never twice (RFC 9112 section 6.3)."""
    if b"transfer-encoding" in found.others:
        codings = found.others[b"transfer-encoding"]
        if found.n_lengths:
            raise HeadError(errors.BAD_FRAMING, "both Transfer-Encoding and Content-Length")
        if len(codings) != 1 or codings[0].lower() != b"chunked":
            unknown = len(codings) == 1 and token_match(codings[0]) is not None
            fault = errors.BAD_TRANSFER_CODING if unknown else errors.BAD_FRAMING
            said = b", ".join(codings)[:40].decode("latin-1")
            raise HeadError(fault, f"Transfer-Encoding is {said!r}, and not exactly 'chunked'")
        if head.minor == 0:
            raise HeadError(errors.BAD_FRAMING, "Transfer-Encoding in an HTTP/1.0 request")
        head.chunked = True
    elif found.n_lengths:
        if found.n_lengths != 1 or found.length < 0:
            raise HeadError(errors.BAD_FRAMING, "Content-Length is not one number")
        head.content_length = found.length


def _set_connection(head: RequestHead, found: _Found, options: frozenset[bytes]) -> None:
    """Whether the connection is kept, and what goes because the Connection field names it (RFC 9110 section 7.6.1)."""
    head.keep_alive = b"close" not in options if head.minor else b"keep-alive" in options and b"close" not in options
    if options is KEEP_ALIVE:
        return
    others = found.others
    nominated = options - _NOT_NOMINATIONS
    if nominated:
        claims = head.forwarding
        before = len(head.lines) + len(others) + len(claims) + (b"connection" in nominated)
        head.lines = without(head.lines, nominated)
        for name in nominated - _KEPT_IF_NOMINATED:
            others.pop(name, None)
            claims.pop(name, None)
        head.nominated_dropped = before - len(head.lines) - len(others) - len(claims)
    if b"upgrade" in options and b"upgrade" in others and head.minor == 1 and not head.has_body:
        head.upgrade = offered_protocols(others[b"upgrade"])
    if b"te" in options and b"te" in others:
        head.accepts_trailers = any(
            element.strip(b" \t").lower() == b"trailers" for value in others[b"te"] for element in value.split(b",")
        )


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
        if len(self) >= MAX_REMEMBERED:
            self.clear()
        host = self[value] = value.decode()
        return host


_known_hosts = _KnownHosts()


def _set_host(head: RequestHead, found: _Found) -> None:
    """RFC 9112 section 3.2: exactly one valid Host, which HTTP/1.0 may do without."""
    if found.n_hosts != 1 and (found.n_hosts or head.minor):
        raise HeadError(errors.BAD_HOST, f"{found.n_hosts} Host fields")
    if found.n_hosts:
        head.host = _known_hosts[found.host]


def _set_target(head: RequestHead, target: str) -> None:
    """RFC 9112 section 3.2: origin-form out, Host from an absolute-form target."""
    if target == "*":
        if head.method != "OPTIONS":
            raise HeadError(errors.BAD_TARGET, "'*' is a target for OPTIONS only")
    else:
        match = _absolute(target)
        host = match[1].encode("latin-1") if match is not None else b""
        if match is None or host_match(host) is None:
            raise HeadError(errors.BAD_TARGET, "the target is neither a path nor a valid absolute URL")
        head.host, target = _known_hosts[host], match[2]
        if not target:
            target = "*" if head.method == "OPTIONS" else "/"
        elif target[0] == "?":
            target = "/" + target
    head.target_text = target


def _set_via(head: RequestHead, lines: _Lines) -> None:
    """RFC 9110 section 7.6.3: who passed it on; it must not go round."""
    if b"via" in lines:
        head.via = lines[b"via"]
        if count_own_via(head.via) >= MAX_VIA:
            raise HeadError(errors.LOOP_DETECTED, f"Via names lbproxy {MAX_VIA} times")


def _set_expectations(head: RequestHead, lines: _Lines) -> None:
    """Expect (RFC 9110 section 10.1.1) and Max-Forwards (7.6.2)."""
    expectations = lines.get(b"expect")
    if expectations is not None and head.minor == 1:
        if len(expectations) != 1 or expectations[0].lower() != b"100-continue":
            raise HeadError(errors.BAD_EXPECT, "Expect is not exactly one 100-continue")
        head.expects_continue = head.has_body  # without one there is nothing to wait with: ignored, and not passed on
    forwards = lines.get(b"max-forwards")
    if forwards is not None:
        if head.method != "OPTIONS":
            head.lines += ["Max-Forwards: " + value.decode("latin-1") for value in forwards]
            return
        count = parse_length(forwards[0])
        if count is None or len(forwards) != 1:
            raise HeadError(errors.BAD_REQUEST, "Max-Forwards is not one number")
        head.max_forwards = count
