"""A request that was read and routed, for what is made of it alone."""

from __future__ import annotations

from lbproxy.dataplane.exchange.prepared import Prepared
from lbproxy.dataplane.runtime import Edits, RouteRuntime
from lbproxy.domain.retry import RetryPolicy
from lbproxy.protocol.http1 import parse_request_head
from lbproxy.telemetry.slots import TRAFFIC, Slots


def prepared_of(line: str = "GET / HTTP/1.1", *, edits: Edits | None = None, **route: object) -> Prepared:
    """Of a request with this first line, on a route with these edits of its answers. route: of RouteRuntime."""
    head = parse_request_head(f"{line}\r\nHost: h\r\n\r\n".encode(), max_fields=10)
    runtime = RouteRuntime(
        None,
        Slots().allocate(TRAFFIC),
        RetryPolicy(),
        None,
        response_edits=edits or Edits(),
        **route,  # type: ignore[arg-type]
    )
    return Prepared(head, runtime)
