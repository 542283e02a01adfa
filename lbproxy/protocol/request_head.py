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
    WHITE,
    HeadError,
    cut,
    fields_of,
    lower_name,
    without,
    written_anew,
)
from lbproxy.protocol.message import (
    CLIENT_CERT,
    FORWARDING,
    FORWARDING_PREFIX,
    HOP_BY_HOP,
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

_NO_OPTIONS: Final[frozenset[bytes]] = frozenset()
_NO_VALUES: Final[list[bytes]] = []
_NO_CLAIMS: Final[_Lines] = {}
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
        self.forwarding: _Lines = _NO_CLAIMS
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

_SPACE: Final = 32
_UNDERLINE: Final = 95
_PASS: Final = 0
_LOOK: Final = 1
_CLAIM: Final = 2
_AGENT: Final = 3
_REFERER: Final = 4
_CREDENTIALS: Final = 5
_UNDERSCORE: Final = 6
_DROP: Final = 7
_TOO_LONG: Final = 8

# Fields that the gateway reads, rewrites or removes.
_LOOKED_AT: Final = HOP_BY_HOP | {b"host", b"content-length", b"expect", b"max-forwards", b"via"}
_KINDS: Final = {
    **dict.fromkeys(FORWARDING, _CLAIM),
    **dict.fromkeys(_LOOKED_AT, _LOOK),
    b"user-agent": _AGENT,
    b"referer": _REFERER,
    b"authorization": _CREDENTIALS,
}


class _Name:
    """What is done with the fields of one name. lower: only of those that are looked at."""

    __slots__ = ("kind", "lower")

    def __init__(self, kind: int, lower: bytes) -> None:
        self.kind = kind
        self.lower = lower


_PLAIN: Final = _Name(_PASS, b"")


def _judged(lower: bytes) -> _Name:
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
    return _Name(kind, lower) if kind else _PLAIN


_names: Final[dict[str, _Name]] = {}  # as sent


def _met(name: str) -> _Name:
    """A name that is not in the table. Raises HeadError for what is none."""
    lower = lower_name(name)
    if not lower:
        raise HeadError(errors.BAD_REQUEST, "a field name is empty or has octets that HTTP does not allow")
    if len(lower) > MAX_NAME:
        return _Name(_TOO_LONG, lower)
    if len(_names) >= MAX_REMEMBERED:
        _names.clear()
    found = _names[name] = _judged(lower)
    return found


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
        raise HeadError(errors.BAD_REQUEST, "a control character, a bare CR or a bare LF in the head")
    head = RequestHead()
    head.method, target, head.minor = read_request_line(lines[0], line_bytes)
    is_path = target[0] == "/" and "#" not in target
    if not is_path and _has_form(target) is None:
        raise HeadError(errors.BAD_REQUEST, "the target is neither a path nor a URL")
    if len(lines) > max_fields + 1:  # before any of them is looked at: the least of fields costs more than its bytes
        raise HeadError(errors.HEADER_TOO_LARGE, f"more than {max_fields} header fields")
    looked_at = _read_lines(head, lines, underscores)
    _set_framing(head, looked_at)
    _set_connection(head, looked_at)
    if b"via" in looked_at:
        _set_via(head, looked_at[b"via"])
    _set_host(head, looked_at)
    if is_path:
        head.target_text = target
    else:
        _set_target(head, target)
    if b"expect" in looked_at or b"max-forwards" in looked_at:
        _set_expectations(head, looked_at)
    return head


def _read_lines(head: RequestHead, lines: list[str], underscores: str) -> _Lines:
    """Split the fields into those that go on (`head.lines`), claims, and those that need a decision (returned)."""
    looked_at: _Lines = {}
    claims: _Lines = _NO_CLAIMS
    kept = head.lines
    refusal: HeadError | None = None
    for index in range(1, len(lines)):
        line = lines[index]
        colon = line.find(":")
        if colon < 0:
            raise HeadError(errors.BAD_REQUEST, "a line of the head has no colon")
        name = line[:colon]
        known = _names.get(name)
        if known is None:
            known = _met(name)
        size = len(line)
        # Is it `name: value` as it will be sent?
        is_plain = (
            size > colon + 2
            and ord(line[colon + 1]) == _SPACE
            and ord(line[colon + 2]) > _SPACE
            and ord(line[size - 1]) > _SPACE
        )
        kind = known.kind
        if kind == _PASS:
            kept.append(line if is_plain else written_anew(line, colon))
            continue
        text = line[colon + 2 :] if is_plain else line[colon + 1 :].strip(WHITE)
        if kind == _LOOK:
            value = text.encode("latin-1")
            if known.lower in looked_at:
                looked_at[known.lower].append(value)
            else:
                looked_at[known.lower] = [value]
        elif kind == _CLAIM:
            value = text.encode("latin-1")
            if claims is _NO_CLAIMS:
                claims = head.forwarding = {}
            if known.lower in claims:
                claims[known.lower].append(value)
            else:
                claims[known.lower] = [value]
        elif kind == _DROP:
            head.underscore_dropped += "_" in name
        elif kind == _TOO_LONG:
            refusal = refusal or HeadError(errors.HEADER_TOO_LARGE, f"a field name is longer than {MAX_NAME} bytes")
        elif kind == _UNDERSCORE and underscores == "drop":
            head.underscore_dropped += 1
        elif kind == _UNDERSCORE and underscores == "reject":
            refusal = refusal or HeadError(errors.UNDERSCORE_HEADER, f"field name {name[:80]!r}")
        else:
            kept.append(line if is_plain else written_anew(line, colon))
            if kind == _AGENT:
                head.user_agent = text
            elif kind == _REFERER:
                head.referer = text
            elif kind == _CREDENTIALS and is_bound_by(text.encode("latin-1")):
                head.binds = True
    if refusal is not None:
        # Framing first: who sent it should know that, rather than change a name and send the same again.
        _set_framing(head, looked_at)
        raise refusal
    return looked_at


def _set_framing(head: RequestHead, lines: _Lines) -> None:
    """Content-Length or chunked, never both, never twice (RFC 9112 section 6.3)."""
    codings = lines.get(b"transfer-encoding")
    lengths = lines.get(b"content-length")
    if codings is not None:
        if lengths is not None:
            raise HeadError(errors.BAD_FRAMING, "both Transfer-Encoding and Content-Length")
        if len(codings) != 1 or codings[0].lower() != b"chunked":
            unknown = len(codings) == 1 and token_match(codings[0]) is not None
            fault = errors.BAD_TRANSFER_CODING if unknown else errors.BAD_FRAMING
            said = b", ".join(codings)[:40].decode("latin-1")
            raise HeadError(fault, f"Transfer-Encoding is {said!r}, and not exactly 'chunked'")
        if head.minor == 0:
            raise HeadError(errors.BAD_FRAMING, "Transfer-Encoding in an HTTP/1.0 request")
        head.chunked = True
    elif lengths is not None:
        length = parse_length(lengths[0])
        if len(lengths) != 1 or length is None:
            raise HeadError(errors.BAD_FRAMING, "Content-Length is not one number")
        head.content_length = length


def _set_connection(head: RequestHead, lines: _Lines) -> None:
    """Whether the connection is kept, and what goes because the Connection field names it (RFC 9110 section 7.6.1)."""
    options = connection_options(lines[b"connection"]) if b"connection" in lines else _NO_OPTIONS
    head.keep_alive = b"close" not in options if head.minor else b"keep-alive" in options and b"close" not in options
    nominated = options - _NOT_NOMINATIONS
    if nominated:
        claims = head.forwarding
        before = len(head.lines) + len(lines) + len(claims)
        head.lines = without(head.lines, nominated)
        for name in nominated - _KEPT_IF_NOMINATED:
            lines.pop(name, None)
            claims.pop(name, None)
        head.nominated_dropped = before - len(head.lines) - len(lines) - len(claims)
    if b"upgrade" in options and b"upgrade" in lines and head.minor == 1 and not head.has_body:
        head.upgrade = offered_protocols(lines[b"upgrade"])
    if b"te" in options and b"te" in lines:
        head.accepts_trailers = any(
            element.strip(b" \t").lower() == b"trailers" for value in lines[b"te"] for element in value.split(b",")
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


def _set_host(head: RequestHead, lines: _Lines) -> None:
    """RFC 9112 section 3.2: exactly one valid Host, which HTTP/1.0 may do without."""
    hosts = lines.get(b"host", _NO_VALUES)
    if len(hosts) > 1 or (not hosts and head.minor == 1):
        raise HeadError(errors.BAD_HOST, f"{len(hosts)} Host fields")
    head.host = _known_hosts[hosts[0]] if hosts else ""


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


def _set_via(head: RequestHead, values: list[bytes]) -> None:
    """RFC 9110 section 7.6.3: who passed it on; it must not go round."""
    head.via = values
    if count_own_via(values) >= MAX_VIA:
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
