"""What a client gets that speaks plain HTTP to a port for TLS: an answer that it can read, in place of an alert.

Only octets that no handshake begins with, and that do look like a request, are answered: whoever says anything else to
the port learns nothing from it but what TLS says.
"""

from __future__ import annotations

import re
from typing import Final

from lbproxy import errors
from lbproxy.dataplane.client.http1 import Http1Connection
from lbproxy.protocol.h2 import frames
from lbproxy.protocol.h2.codes import INADEQUATE_SECURITY, PREFACE
from lbproxy.protocol.http1 import HeadError

# Method and beginning of the target (RFC 9112 section 3.2). Others greet with a word and a space, too (SMTP, Redis).
_request: Final = re.compile(rb"(?:[A-Z]{3,20} (?:/|https?://|\* HTTP/1)|CONNECT [!-~]{1,255}:[0-9]{1,5} HTTP/1)").match
_HTTP2: Final = PREFACE.partition(b"\n")[0]
# A server's preface comes first, even here (RFC 9113 section 3.4).
FAREWELL: Final = frames.settings([]) + frames.goaway(0, INADEQUATE_SECURITY, b"this port speaks TLS; use https://")


def speaks_http1(first: bytes) -> bool:
    """Do these octets, the first of a connection, begin a request of HTTP/1?"""
    return _request(first) is not None


def speaks_http2(first: bytes) -> bool:
    """Do they begin the preface of HTTP/2?"""
    return first.startswith(_HTTP2)


class PlainHttpConnection(Http1Connection):
    """One that is refused, once it has its transport, whatever its request says."""

    __slots__ = ()

    def refuse(self, first: bytes) -> None:
        """first: what came in place of a handshake, with the request line."""
        try:
            self._refuse(first, HeadError(errors.PLAIN_HTTP, ""))
        except Exception as error:  # a defect: confined to this connection
            self._defect(error)
