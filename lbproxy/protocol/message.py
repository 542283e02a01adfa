"""What HTTP fields mean to a gateway: names, grammar and the rules of RFC 9110 and 9112 that need no parser.

Everything works on bytes with explicit character classes: `int()`, `str.strip()` and `\\s` accept far more than HTTP
does (`+5`, `1_0`, Unicode digits, \\x0b), and each of these has been a CVE of some server.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from lbproxy.compiling import mypyc_attr

Field = tuple[bytes, bytes]  # name as received, value without surrounding white space
Fields = list[Field]
NO_NAMES: Final[frozenset[bytes]] = frozenset()


@mypyc_attr(native_class=False)  # compiled, no class derives from `list`
class SecretFields(list[Field]):
    """Trailer fields of HTTP/2 of which some may enter no table (RFC 7541 section 7.1.3). secrets: their names."""

    def __init__(self, fields: Sequence[Field], secrets: frozenset[bytes]) -> None:
        super().__init__(fields)
        self.secrets = secrets


def secrets_of(trailers: Sequence[Field]) -> frozenset[bytes]:
    """Those of `SecretFields`, none of any other fields."""
    return trailers.secrets if isinstance(trailers, SecretFields) else NO_NAMES


TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
token_match = re.compile(TOKEN).fullmatch
# field-value of RFC 9110 section 5.5; obs-text is let through, as everybody does.
value_match = re.compile(rb"[\t\x20-\x7e\x80-\xff]*").fullmatch
# RFC 9110 section 7.2: Host = uri-host [ ":" port ]. No comma: a list of hosts is an attack, not a name. Nothing
# percent-encoded that would be a control character, a space or a delimiter (#%/:?@[\]) once somebody decodes it.
host_match = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]{2,45}\]|(?:[A-Za-z0-9\-._~!$&'()*+;=]"
    rb"|%(?![01]|2[035Ff]|3[AFaf]|40|5[B-Db-d]|7[Ff])[0-9A-Fa-f]{2})+)(?::[0-9]{0,5})?"
).fullmatch

MAX_LENGTH: Final = (1 << 63) - 1
_MAX_DIGITS: Final = 19

# RFC 9110 section 7.6.1, plus the fields that are for the next hop only (11.7) or belong to connection set-up.
HOP_BY_HOP: Final = frozenset(
    (
        b"connection",
        b"proxy-connection",
        b"keep-alive",
        b"te",
        b"transfer-encoding",
        b"upgrade",
        b"trailer",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-authentication-info",
        b"http2-settings",
    )
)

# What a client could claim about itself, about the request before it was forwarded, or about who has checked it. The
# value is taken from a trusted peer only. Servers and frameworks believe these without asking who sent them.
FORWARDING: Final = frozenset(
    (
        b"forwarded",
        b"x-forwarded",
        b"x-real-ip",
        b"x-request-id",
        # the client's address, as CDNs and older proxies name it
        b"true-client-ip",
        b"cf-connecting-ip",
        b"cf-connecting-ipv6",
        b"cf-pseudo-ipv4",
        b"fastly-client-ip",
        b"client-ip",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"x-envoy-external-address",
        b"x-appengine-user-ip",
        b"x-azure-clientip",
        b"x-azure-socketip",
        b"x-originating-ip",
        b"x-remote-addr",
        b"x-remote-ip",
        b"x-original-forwarded-for",
        b"proxy-client-ip",
        b"wl-proxy-client-ip",
        # the path, host, method and scheme before a proxy has changed them: with these a rule could be walked around
        b"x-original-url",
        b"x-original-uri",
        b"x-original-host",
        b"x-original-method",
        b"x-original-scheme",
        b"x-rewrite-url",
        b"x-script-name",
        b"x-url-scheme",
        b"front-end-https",
        b"x-arr-ssl",
    )
)
# X-Forwarded-For, -Proto, -Host, -Port, -Prefix, -Server, -Scheme, -Ssl, -Uri, -User, -Client-Cert ... : each of them
# says what a proxy has seen.
FORWARDING_PREFIX: Final = b"x-forwarded-"


def is_forwarding(name: bytes) -> bool:
    """Is this lower-case name one of the family that only a trusted peer may send?"""
    return name in FORWARDING or name.startswith(FORWARDING_PREFIX)


CLIENT_CERT: Final = b"x-client-cert-"

# RFC 9110 section 6.5.1: fields that must never be smuggled in behind a body.
FORBIDDEN_TRAILERS: Final = (
    HOP_BY_HOP
    | FORWARDING
    | frozenset(
        (
            b"content-length",
            b"content-encoding",
            b"content-type",
            b"content-range",
            b"host",
            b"authorization",
            b"cookie",
            b"set-cookie",
            b"expect",
            b"max-forwards",
            b"range",
            b"cache-control",
            b"location",
            b"date",
            b"vary",
            b"via",
            b"age",
            b"expires",
            b"retry-after",
            b"www-authenticate",
        )
    )
)

VIA_PSEUDONYM: Final = b"lbproxy"
MAX_VIA: Final = 5

# Registered methods (RFC 9110 section 16.1.1) that servers implement; for what depends on knowing one when it is seen.
KNOWN_METHODS: Final = frozenset(
    b"GET HEAD POST PUT DELETE PATCH OPTIONS CONNECT TRACE ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT COPY LABEL LINK "
    b"LOCK MERGE MKACTIVITY MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE ORDERPATCH PROPFIND PROPPATCH QUERY REBIND "
    b"REPORT SEARCH UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF VERSION-CONTROL".split()
)
IDEMPOTENT_METHODS: Final = frozenset(("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"))


KEEP_ALIVE: Final = frozenset((b"keep-alive",))
_CLOSE: Final = frozenset((b"close",))
TE_ONLY: Final = frozenset((b"te",))


def connection_options(value: bytes) -> frozenset[bytes]:
    """The lower-case options of a Connection line (RFC 9110 section 7.6.1); empty elements are skipped."""
    if value == b"keep-alive" or value == b"Keep-Alive":  # compiled, a tenth of what a table costs
        return KEEP_ALIVE
    if value == b"close":
        return _CLOSE
    if value == b"TE":  # as it is written of requests that came in HTTP/2
        return TE_ONLY
    return frozenset([option for element in value.split(b",") if (option := element.strip(b" \t").lower())])


def parse_length(value: bytes) -> int | None:
    """Content-Length as RFC 9110 section 8.6 has it: digits only, at most 2^63-1. None if it is anything else."""
    size = len(value)
    if not 0 < size <= _MAX_DIGITS:
        return None
    length = 0
    for index in range(size):  # compiled, this is a fifth of what `isdigit` and `int` cost
        digit = value[index] - 48
        if not 0 <= digit <= 9:
            return None
        length = length * 10 + digit
    return length if length <= MAX_LENGTH else None


def count_own_via(values: list[bytes]) -> int:
    """How often this proxy stands in the Via lines: the loop guard."""
    return sum(
        1
        for value in values
        for element in value.split(b",")
        if element.strip(b" \t").split(b" ")[-1].lower() == VIA_PSEUDONYM
    )


def forwardable_trailers(trailers: Sequence[Field], nominated: frozenset[bytes]) -> Fields:
    """Trailer fields that may be passed on: no framing, routing, authentication or nominated names."""
    found: Fields = []
    for name, value in trailers:
        may_go = _MAY_GO.get(name)
        if may_go is None:
            may_go = _may_go(name)
        if may_go and not (nominated and name.lower() in nominated):
            found.append((name, value))
    return found


_MAX_NAMES: Final = 256
_MAX_NAME: Final = 64
_MAY_GO: Final[dict[bytes, bool]] = {}
"""What was found of names of trailer fields; emptied when it is full."""


def _may_go(name: bytes) -> bool:
    """May a field of this name go on in trailers, whatever the message nominates?"""
    lower = name.lower()
    found = (
        lower not in FORBIDDEN_TRAILERS and not lower.startswith((CLIENT_CERT, FORWARDING_PREFIX)) and b"_" not in name
    )
    if len(name) <= _MAX_NAME:
        if len(_MAY_GO) >= _MAX_NAMES:
            _MAY_GO.clear()
        _MAY_GO[name] = found
    return found


def join_fields(fields: Sequence[Field]) -> bytes:
    """Field lines as they are sent. Values were checked when they were parsed or configured."""
    return b"".join([b"%b: %b\r\n" % (name, value) for name, value in fields])
