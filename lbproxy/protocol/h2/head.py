"""What the fields of a message mean: the rules of RFC 9113 section 8, and nothing else than they allow.

A message that breaks one is malformed (section 8.1.1): its stream is reset, and nobody behind the gateway sees it.
"""

from __future__ import annotations

from typing import Final

from lbproxy.compiling import i64, mypyc_attr
from lbproxy.protocol.h2.fields import (
    AUTHORITY,
    BAD,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    COOKIE,
    EXPECT,
    HOST,
    METHOD,
    PATH,
    PLAIN,
    PROTOCOL,
    SCHEME,
    SECRET,
    STATUS,
    TE,
    H2Field,
)
from lbproxy.protocol.message import NO_NAMES, Field, SecretFields
from lbproxy.protocol.response_head import ResponseHead

_GRPC: Final = b"application/grpc"
_TWICE: Final = "a pseudo-field stands twice"
_LATE: Final = "a pseudo-field stands behind other fields"


class Malformed(Exception):
    """A message that RFC 9113 section 8 does not allow; the text says why."""


@mypyc_attr(free_list_len=1, acyclic=True)
class H2Head:
    """A request's or an answer's head. Immutable by convention: equal blocks may give the same object.

    method, scheme, authority, path, protocol: of requests; authority is Host's value if there is no `:authority`;
    scheme and path are empty with CONNECT; protocol is empty but for extended CONNECT (RFC 8441). status: of answers,
    else 0. fields: in order, without pseudo-fields, Host, TE and Content-Length, cookie crumbs joined. content_length:
    None without one. accepts_trailers: `te: trailers`. is_grpc: its content-type begins with application/grpc. excess:
    it has more fields or octets than allowed, and this says what; nothing else of it is known then. secrets: names of
    fields that nobody on the way may put into a table, as the sender said (RFC 7541 section 6.2.3), without those of
    which that is known.

    octets, answer: what was made of it before, as the head of HTTP/1 that says the same; and of one that ends its
    stream, `whole_octets` and `whole_answer`.
    """

    __slots__ = (
        "_lines",
        "accepts_trailers",
        "answer",
        "authority",
        "content_length",
        "excess",
        "expects_continue",
        "fields",
        "is_grpc",
        "method",
        "octets",
        "path",
        "protocol",
        "scheme",
        "secrets",
        "status",
        "whole_answer",
        "whole_octets",
    )

    def __init__(self, fields: list[H2Field]) -> None:
        self.fields = fields
        self.method = b""
        self.scheme = b""
        self.authority = b""
        self.path = b""
        self.protocol = b""
        self.status = 0
        self.content_length: int | None = None
        self.accepts_trailers = False
        self.expects_continue = False
        self.is_grpc = False
        self.excess = ""
        self.secrets = NO_NAMES
        self._lines: bytes | None = None
        self.octets = b""
        self.whole_octets = b""
        self.answer: ResponseHead | None = None
        self.whole_answer: ResponseHead | None = None

    def followed_by(self, fields: list[H2Field]) -> H2Head:
        """A request's head that is this one, with inert fields behind."""
        head = H2Head(self.fields + fields)
        head.method = self.method
        head.scheme = self.scheme
        head.authority = self.authority
        head.path = self.path
        head.protocol = self.protocol
        head.content_length = self.content_length
        head.accepts_trailers = self.accepts_trailers
        head.expects_continue = self.expects_continue
        head.is_grpc = self.is_grpc
        return head

    @property
    def lines(self) -> bytes:
        """`fields` as HTTP/1 has them, each with CR LF."""
        if self._lines is None:
            self._lines = lines_of(self.fields)
        return self._lines


def lines_of(fields: list[H2Field]) -> bytes:
    """Fields as lines of HTTP/1, each with CR LF."""
    return b"".join([field.line for field in fields])


def secrets_among(fields: list[H2Field]) -> frozenset[bytes]:
    """See H2Head."""
    return frozenset([field.name for field in fields if field.is_secret]) - SECRET


def trailers_of(fields: list[H2Field]) -> list[Field]:
    """As they go on; SecretFields if some may enter no table."""
    trailers = [(field.name, field.value) for field in fields]
    secrets = secrets_among(fields)
    return SecretFields(trailers, secrets) if secrets else trailers


def too_large(excess: str) -> H2Head:
    """Stands for a head of which more was sent than is allowed."""
    head = H2Head([])
    head.excess = excess
    return head


def read_request(found: list[H2Field], allows_protocol: bool) -> H2Head:
    """A request's head. allows_protocol: SETTINGS_ENABLE_CONNECT_PROTOCOL was sent. Raises Malformed."""
    kept: list[H2Field] = []
    head = H2Head(kept)
    host = b""
    n_pseudo: i64 = 0
    n_crumbs: i64 = 0
    for at, field in enumerate(found):
        kind = field.kind
        if kind == PLAIN:
            kept.append(field)
        elif kind >= METHOD:
            if kind != BAD and at != n_pseudo:
                raise Malformed(_LATE)
            _set_pseudo(head, field)
            n_pseudo += 1
        elif kind == CONTENT_TYPE:
            head.is_grpc = head.is_grpc or field.value.startswith(_GRPC)
            kept.append(field)
        elif kind == COOKIE:
            n_crumbs += 1
            kept.append(field)
        elif kind == HOST:
            if host:
                raise Malformed("there are two Host fields")
            host = field.value
        elif kind == CONTENT_LENGTH:
            if head.content_length is not None:
                raise Malformed("there are two lengths")
            head.content_length = field.number
        elif kind == TE:
            head.accepts_trailers = True
        else:
            head.expects_continue = head.expects_continue or field.value.lower() == b"100-continue"
            kept.append(field)
    if n_crumbs > 1:
        head.fields = _with_one_cookie(kept)
    _check_request(head, host, allows_protocol)
    return head


def _set_pseudo(head: H2Head, field: H2Field) -> None:
    """One of section 8.3.1, once."""
    kind = field.kind
    if kind == METHOD:
        before, head.method = head.method, field.value
    elif kind == PATH:
        before, head.path = head.path, field.value
    elif kind == SCHEME:
        before, head.scheme = head.scheme, field.value
    elif kind == AUTHORITY:
        before, head.authority = head.authority, field.value
    elif kind == PROTOCOL:
        before, head.protocol = head.protocol, field.value
    elif kind == STATUS:
        raise Malformed("a request has :status")
    else:
        raise Malformed(field.why)
    if before:
        raise Malformed(_TWICE)


def _check_request(head: H2Head, host: bytes, allows_protocol: bool) -> None:
    """What has to be there, and what may not (sections 8.3.1 and 8.5; RFC 8441 section 4)."""
    if not head.method:
        raise Malformed("there is no :method")
    if host:
        if not head.authority:
            head.authority = host
        elif head.authority != host and head.authority.lower() != host.lower():
            raise Malformed(":authority and Host differ")
    if head.protocol:
        if not allows_protocol:
            raise Malformed(":protocol was not offered")
        if head.method != b"CONNECT":
            raise Malformed(":protocol stands with a method that is not CONNECT")
        if head.content_length is not None:
            raise Malformed("CONNECT has a length, and what it opens has none")
    elif head.method == b"CONNECT":
        if head.scheme or head.path:
            raise Malformed("CONNECT has :scheme or :path")
        if b":" not in head.authority:
            raise Malformed("CONNECT has no host and port")
        return
    if not head.scheme:
        raise Malformed("there is no :scheme")
    if not head.path:
        raise Malformed("there is no :path")
    if not head.authority:
        raise Malformed("there is neither :authority nor Host")
    if head.path == b"*" and head.method != b"OPTIONS":
        raise Malformed(":path is an asterisk and :method is not OPTIONS")


def _with_one_cookie(fields: list[H2Field]) -> list[H2Field]:
    """Crumbs joined where the first stands (section 8.2.3)."""
    crumbs = [field for field in fields if field.kind == COOKIE]
    # Without empty ones, which would leave white space at an end.
    joined = H2Field(b"cookie", b"; ".join([crumb.value for crumb in crumbs if crumb.value]), COOKIE)
    joined.is_secret = any(crumb.is_secret for crumb in crumbs)
    # By its place: crumbs that are equal may be one object, which stands in the table.
    first = fields.index(crumbs[0])
    others = [field for field in fields if field.kind != COOKIE]
    others.insert(first, joined)
    return others


def read_answer(found: list[H2Field]) -> H2Head:
    """An answer's head, interim ones too. Raises Malformed."""
    kept: list[H2Field] = []
    head = H2Head(kept)
    for at, field in enumerate(found):
        kind = field.kind
        if kind <= COOKIE or kind in (EXPECT, HOST):
            kept.append(field)
        elif kind == STATUS:
            if head.status:
                raise Malformed(_TWICE)
            if at:
                raise Malformed(_LATE)
            head.status = field.number
        elif kind >= METHOD:
            raise Malformed(field.why or "an answer has a pseudo-field of requests")
        elif kind == CONTENT_TYPE:
            head.is_grpc = head.is_grpc or field.value.startswith(_GRPC)
            kept.append(field)
        elif kind == CONTENT_LENGTH:
            # The same several times is one (RFC 9110 section 8.6).
            if head.content_length is not None and head.content_length != field.number:
                raise Malformed("there are two lengths")
            head.content_length = field.number
        else:
            raise Malformed("an answer has TE")
    if not head.status:
        raise Malformed("there is no :status")
    if head.status == 101:
        raise Malformed("101 is no status of HTTP/2")  # section 8.6
    return head


def check_trailers(found: list[H2Field]) -> None:
    """Raises Malformed: no pseudo-fields (section 8.1), nothing that is BAD."""
    for field in found:
        if field.kind >= METHOD:
            raise Malformed(field.why or "trailers have a pseudo-field")
