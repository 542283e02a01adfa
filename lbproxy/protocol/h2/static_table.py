"""The static table of RFC 7541 appendix A."""

from __future__ import annotations

from typing import Final

from lbproxy.protocol.h2.fields import H2Field, make_field

_ROWS: Final = """
:authority
:method GET
:method POST
:path /
:path /index.html
:scheme http
:scheme https
:status 200
:status 204
:status 206
:status 304
:status 400
:status 404
:status 500
accept-charset
accept-encoding gzip, deflate
accept-language
accept-ranges
accept
access-control-allow-origin
age
allow
authorization
cache-control
content-disposition
content-encoding
content-language
content-length
content-location
content-range
content-type
cookie
date
etag
expect
expires
from
host
if-match
if-modified-since
if-none-match
if-range
if-unmodified-since
last-modified
link
location
max-forwards
proxy-authenticate
proxy-authorization
range
referer
refresh
retry-after
server
set-cookie
strict-transport-security
transfer-encoding
user-agent
vary
via
www-authenticate
"""


def _fields() -> list[H2Field]:
    made = []
    for row in _ROWS.encode().split(b"\n")[1:-1]:
        name, _, value = row.partition(b" ")
        field = make_field(name, value)
        field.is_stored = True
        made.append(field)
    return made


STATIC: Final = _fields()
"""By index less one."""
N_STATIC: Final = 61


def _first() -> dict[bytes, int]:
    first: dict[bytes, int] = {}
    for index, field in enumerate(STATIC):
        first.setdefault(field.name, index + 1)
    return first


NAME_INDEX: Final = _first()
"""The lowest index of each name."""
