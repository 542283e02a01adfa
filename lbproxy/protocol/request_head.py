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
from lbproxy.compiling import cut, has_octet, i64, mypyc_attr
from lbproxy.protocol.field_lines import (
    MAX_NAME,
    MAX_REMEMBERED,
    NO_OPTIONS,
    HeadError,
    fields_of,
    lines_of,
    name_of,
    single_lines,
)
from lbproxy.protocol.message import (
    KEEP_ALIVE,
    MAX_VIA,
    TE_ONLY,
    Fields,
    count_own_via,
    host_match,
    parse_length,
    token_match,
)
from lbproxy.protocol.request_fields import NO_VALUES, RequestFields, Values
from lbproxy.protocol.request_line import MAX_REQUEST_LINE, read_request_line
from lbproxy.protocol.upgrade import offered_protocols
from lbproxy.request_key import KEY_NAME

_absolute = re.compile(r"https?://([^/?#]*)([^#]*)", re.IGNORECASE | re.ASCII).fullmatch
# What has the form of a target: a path or the asterisk, or `scheme://`, a user, a host and a port, and what follows.
_AUTHORITY: Final = r"[A-Za-z0-9\-._~!$&'()*+,;=:%\[\]]*"
_has_form = re.compile(
    r"[/*].*|[A-Za-z]+://" + _AUTHORITY + r"(?:@" + _AUTHORITY + r")?(?:[/?].*)?", re.DOTALL
).fullmatch
_SLASH: Final = 47
_HASH: Final = 35
_NOT_NOMINATIONS: Final = frozenset((b"close", b"keep-alive", b"upgrade", b"te"))
_KEPT_IF_NOMINATED: Final = frozenset((b"host", b"content-length", b"transfer-encoding", b"expect", b"max-forwards"))


@mypyc_attr(free_list_len=1, acyclic=True)
class RequestHead:
    """An accepted request head. Immutable by convention: it may be shared by many requests.

    authority: `host` as it was sent. start: the request line that goes on, with its CR LF. lines: end-to-end fields in
    order, each `name: value` and CR LF, without Host, framing, hop-by-hop, nominated and forwarding fields. claims:
    lower-case name and value, one after the other, of the forwarding family. size: of the head as it was read, with its
    blank line. content_length: None without one. keep_alive: the client wants the connection kept. upgrade: the
    protocols that the client offers to switch to, () with a body. binds: its credentials hold for the connection that
    it is sent on. key_name: of the client's API key, which whoever knows keys writes before anybody reads `headers`.
    secrets: over HTTP/2, names of fields that may enter no table.
    """

    __slots__ = (
        "_forwarding",
        "_headers",
        "accepts_trailers",
        "authority",
        "binds",
        "chunked",
        "claims",
        "content_length",
        "expects_continue",
        "host",
        "keep_alive",
        "key_name",
        "lines",
        "max_forwards",
        "method",
        "minor",
        "nominated_dropped",
        "referer",
        "secrets",
        "size",
        "start",
        "target_text",
        "underscore_dropped",
        "upgrade",
        "user_agent",
        "via",
    )

    def __init__(self) -> None:
        self._forwarding: Values | None = None
        self._headers: Mapping[str, str] | None = None
        self.start = b""
        self.size = 0
        self.binds = False
        self.key_name = ""
        self.method = ""
        self.target_text = ""
        self.host = ""
        self.authority = b""
        self.minor = 1
        self.lines = b""
        self.via: list[bytes] = NO_VALUES
        self.claims: list[bytes] = NO_VALUES
        self.content_length: int | None = None
        self.chunked = False
        self.keep_alive = True
        self.expects_continue = False
        self.upgrade: tuple[bytes, ...] = ()
        self.secrets: frozenset[bytes] = NO_OPTIONS
        self.accepts_trailers = False
        self.max_forwards: int | None = None
        self.user_agent = ""
        self.referer = ""
        self.underscore_dropped = 0
        self.nominated_dropped = 0

    def with_lines(self, lines: bytes, size: int) -> RequestHead:
        """The same with other end-to-end fields, which say nothing to a gateway that these do not.

        size: octets of further lines, which do not go on."""
        head = RequestHead()
        head.lines = lines
        head.start = self.start
        head.size = self.size + len(lines) - len(self.lines) + size
        head.binds = self.binds
        head.key_name = self.key_name
        head.method = self.method
        head.target_text = self.target_text
        head.host = self.host
        head.authority = self.authority
        head.minor = self.minor
        head.via = self.via
        head.claims = self.claims
        head.content_length = self.content_length
        head.chunked = self.chunked
        head.keep_alive = self.keep_alive
        head.expects_continue = self.expects_continue
        head.upgrade = self.upgrade
        head.secrets = self.secrets
        head.accepts_trailers = self.accepts_trailers
        head.max_forwards = self.max_forwards
        head.user_agent = self.user_agent
        head.referer = self.referer
        head.underscore_dropped = self.underscore_dropped
        head.nominated_dropped = self.nominated_dropped
        return head

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
    def forwarding(self) -> Mapping[bytes, list[bytes]]:
        """`claims` by name: to be believed from trusted peers only."""
        if self._forwarding is None:
            self._forwarding = {}
            for at in range(0, len(self.claims), 2):
                self._forwarding.setdefault(self.claims[at], []).append(self.claims[at + 1])
        return self._forwarding

    @property
    def headers(self) -> Mapping[str, str]:
        """Lower-case names to values (repeated ones joined by ', '), as routes and strategies read them.

        Under KEY_NAME, which no field can have, stands the name of the API key."""
        if self._headers is None:
            table: dict[str, str] = {"host": self.host}
            for name, value in self.fields:
                key = name.lower().decode("latin-1")
                text = value.decode("latin-1")
                table[key] = f"{table[key]}, {text}" if key in table else text
            if self.key_name:
                table[KEY_NAME] = self.key_name
            self._headers = table
        return self._headers


# --- reading --------------------------------------------------------------------------------------------------------


def parse_request_head(
    raw: bytes, *, max_fields: int, underscores: str = "drop", line_bytes: int = MAX_REQUEST_LINE
) -> RequestHead:
    """Parse one request head: `raw` ends with its blank line. Raises HeadError with the fault to answer.

    underscores: what happens to field names with an underscore, which WSGI folds onto real ones: drop, pass or reject.
    line_bytes: the longest request line.
    """
    head = read_request_head(raw, max_fields=max_fields, underscores=underscores, line_bytes=line_bytes)
    if head is None or head.size != len(raw):
        raise HeadError(errors.BAD_REQUEST, "the head does not end with a blank line")
    return head


def read_request_head(raw: bytes, *, max_fields: int, underscores: str, line_bytes: int) -> RequestHead | None:
    """The same of the head that `raw` begins with. None, or a HeadError, if not all of it is there."""
    head = RequestHead()
    try:
        head.method, target, head.minor, size = read_request_line(raw, line_bytes)
        at: i64 = len(head.method) + 1
        is_path = raw[at] == _SLASH and not has_octet(raw, at, size, _HASH)
        if not is_path and _has_form(target) is None:
            raise HeadError(errors.BAD_REQUEST, "the target is neither a path nor a URL")
        found = RequestFields(raw, size, max_fields)
        found.read(underscores)
    except IndexError:
        return None
    head.size = found.size
    head.lines = found.lines()
    head.binds, head.claims, head.underscore_dropped = found.binds, found.claims, found.underscore_dropped
    head.user_agent, head.referer = found.user_agent, found.referer
    _set_framing(head, found)
    if found.refusal is not None:
        raise found.refusal
    options = found.options
    if options is not NO_OPTIONS:
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
    if is_path and head.minor:
        head.start = cut(raw, 0, size)
    else:
        head.start = f"{head.method} {head.target_text} HTTP/1.1\r\n".encode("latin-1")
    if found.others:
        _set_expectations(head, found.others)
    return head


def _set_framing(head: RequestHead, found: RequestFields) -> None:
    """Content-Length or chunked, never both, never twice (RFC 9112 section 6.3)."""
    if found.others and b"transfer-encoding" in found.others:
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


def _set_connection(head: RequestHead, found: RequestFields, options: frozenset[bytes]) -> None:
    """Whether the connection is kept, and what goes because the Connection field names it (RFC 9110 section 7.6.1)."""
    head.keep_alive = b"close" not in options if head.minor else b"keep-alive" in options and b"close" not in options
    if options is KEEP_ALIVE:
        return
    others = found.others
    nominated = NO_OPTIONS if options is TE_ONLY else options - _NOT_NOMINATIONS
    if nominated:
        lines = single_lines(head.lines)
        left = [line for line in lines if name_of(line) not in nominated]
        gone = nominated - _KEPT_IF_NOMINATED
        claimed = set(head.claims[::2])
        n_dropped = len(lines) - len(left) + (b"connection" in nominated)
        for name in gone:
            n_dropped += (name in claimed) + (others.pop(name, None) is not None)
        head.nominated_dropped = n_dropped
        head.lines = b"".join(left)
        head.claims = [
            text
            for at in range(0, len(head.claims), 2)
            if head.claims[at] not in gone
            for text in head.claims[at : at + 2]
        ]
    if b"upgrade" in options and b"upgrade" in others and head.minor == 1 and not head.has_body:
        head.upgrade = offered_protocols(others[b"upgrade"])
    if b"te" in options and b"te" in others:
        values = others[b"te"]
        head.accepts_trailers = (len(values) == 1 and values[0] == b"trailers") or any(
            element.strip(b" \t").lower() == b"trailers" for value in values for element in value.split(b",")
        )


class _Hosts:
    """Hosts that were met, as text; which of them was the last one, that most heads name again."""

    __slots__ = ("_known", "_last", "_text")

    def __init__(self) -> None:
        self._known: dict[bytes, str] = {}
        self._last = b""
        self._text: str | None = None

    def find(self, value: bytes) -> str | None:
        if value is not self._last and value != self._last:
            self._text = self._known.get(value)
            self._last = value
        return self._text

    def add(self, value: bytes, host: str) -> None:
        if len(value) <= MAX_NAME:
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
            self._known[value] = self._text = host


_hosts: Final = _Hosts()


def _valid_host(value: bytes) -> str:
    """A Host value as text. Raises HeadError for one that is not valid."""
    known = _hosts.find(value)
    if known is not None:
        return known
    if host_match(value) is None:
        raise HeadError(errors.BAD_HOST, "the Host value is not a host with an optional port")
    if b":" in value and not value.endswith(b"]"):
        port = value.rpartition(b":")[2]
        if port and int(port) > 65535:
            raise HeadError(errors.BAD_HOST, "the port in Host is above 65535")
    host = value.decode()
    _hosts.add(value, host)
    return host


def _set_host(head: RequestHead, found: RequestFields) -> None:
    """RFC 9112 section 3.2: exactly one valid Host, which HTTP/1.0 may do without."""
    if found.n_hosts != 1 and (found.n_hosts or head.minor):
        raise HeadError(errors.BAD_HOST, f"{found.n_hosts} Host fields")
    if found.n_hosts:
        head.host = _valid_host(found.host)
        head.authority = found.host


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
        head.host, head.authority, target = _valid_host(host), host, match[2]
        if not target:
            target = "*" if head.method == "OPTIONS" else "/"
        elif target[0] == "?":
            target = "/" + target
    head.target_text = target


def _set_via(head: RequestHead, lines: Values) -> None:
    """RFC 9110 section 7.6.3: who passed it on; it must not go round."""
    if b"via" in lines:
        head.via = lines[b"via"]
        if count_own_via(head.via) >= MAX_VIA:
            raise HeadError(errors.LOOP_DETECTED, f"Via names lbproxy {MAX_VIA} times")


def _set_expectations(head: RequestHead, lines: Values) -> None:
    """Expect (RFC 9110 section 10.1.1) and Max-Forwards (7.6.2)."""
    expectations = lines.get(b"expect")
    if expectations is not None and head.minor == 1:
        if len(expectations) != 1 or expectations[0].lower() != b"100-continue":
            raise HeadError(errors.BAD_EXPECT, "Expect is not exactly one 100-continue")
        head.expects_continue = head.has_body  # without one there is nothing to wait with: ignored, and not passed on
    forwards = lines.get(b"max-forwards")
    if forwards is not None:
        if head.method != "OPTIONS":
            head.lines += lines_of([(b"Max-Forwards", value) for value in forwards])
            return
        count = parse_length(forwards[0])
        if count is None or len(forwards) != 1:
            raise HeadError(errors.BAD_REQUEST, "Max-Forwards is not one number")
        head.max_forwards = count
