"""A request of extended CONNECT (RFC 8441): it opens a WebSocket, or is answered like any other.

Inside it is the GET with Upgrade that HTTP/1.1 has for this. But its client takes any 2xx for an open tunnel.
"""

from __future__ import annotations

from collections.abc import Sequence

from lbproxy import errors
from lbproxy.compiling import mypyc_attr
from lbproxy.dataplane.exchange.attempt_books import AttemptBooks
from lbproxy.dataplane.exchange.exchange import Exchange
from lbproxy.protocol.http1 import ResponseHead
from lbproxy.protocol.message import Field


@mypyc_attr(allow_interpreted_subclasses=True)
class ConnectExchange(Exchange):
    """See the module."""

    __slots__ = ()

    def answered(
        self,
        attempt: AttemptBooks,
        head: ResponseHead,
        body: bytes,
        now: float,
        *,
        is_done: bool,
        trailers: Sequence[Field],
    ) -> None:
        """See AttemptOwner. A 2xx without a switch has no tunnel behind it."""
        if head.status >= 300:
            super().answered(attempt, head, body, now, is_done=is_done, trailers=trailers)
            return
        if is_done:
            attempt.succeeded(now)  # its connection is another's by now, perhaps
        label = attempt.runtime.label
        self.fail(errors.NO_WEBSOCKET, f"server {label}: it answered {head.status} and did not switch")
