"""Faults: everything that can end a request badly, as data.

One row says all there is to say about a failure: the status that the client sees, the word in the access log, the
metric that counts it, whose fault it is, whether the request may be tried again and whether the server is to blame.
Code decides from these fields, never from the text of an exception. Foreign exceptions (OSError, SSLError, parser
errors) become rows at the edge where they are caught and nowhere else.

docs/faults.md is printed from this table (`python -m lbproxy.errors`), and a test compares the two.
"""

from __future__ import annotations

from typing import Final

from lbproxy.fault import FAULTS, Fault, Retry, Side, client_row, markdown_table, reasons, row, upstream_row

__all__ = ["FAULTS", "Fault", "Retry", "Side", "markdown_table", "reasons"]

# --- the client's request -------------------------------------------------------------------------------------------

BAD_REQUEST: Final = client_row("bad_request", 400, "The request is not valid HTTP/1.1; see RFC 9112.")
BAD_HOST: Final = client_row("bad_host", 400, "Send exactly one valid Host header field.")
BAD_TARGET: Final = client_row("bad_target", 400, "Send an origin-form request target such as /predict.")
BAD_PATH: Final = client_row(
    "bad_path",
    400,
    "Send the path in normal form: no dot segments, no backslash, no encoded slash (path_rules).",
    close=False,
)
BAD_FRAMING: Final = client_row(
    "bad_framing", 400, "Send either one Content-Length or Transfer-Encoding: chunked, not both."
)
BAD_CHUNK: Final = client_row("bad_chunk", 400, "The chunked request body is malformed; see RFC 9112 section 7.1.")
CHUNK_OVERHEAD: Final = client_row(
    "chunk_overhead", 400, "The chunked body is mostly chunk extensions; send it without them."
)
UNDERSCORE_HEADER: Final = client_row(
    "underscore_header", 400, "Header names with an underscore are refused here; use a hyphen.", close=False
)
NO_ROUTE: Final = client_row(
    "no_route", 404, "No route matches this request; check host, path and method.", close=False
)
METHOD_NOT_ALLOWED: Final = client_row(
    "method_not_allowed", 405, "The Allow field lists what is served here; CONNECT and TRACE never are."
)
HEADER_TIMEOUT: Final = client_row(
    "header_timeout", 408, "The request head did not arrive within timeouts.request_head.", error="http_request_error"
)
BODY_TIMEOUT: Final = client_row("body_timeout", 408, "The request body stalled for longer than timeouts.request_body.")
BODY_TOO_SLOW: Final = client_row(
    "body_too_slow",
    408,
    "The request body came more slowly than limits.min_rate, on average and after the first 10 seconds.",
)
BODY_TOO_LARGE: Final = client_row(
    "body_too_large", 413, "The body is larger than limits.body_bytes; send less or raise it."
)
URI_TOO_LONG: Final = client_row(
    "uri_too_long", 414, "The request line is longer than limits.request_line_bytes of the listener."
)
BAD_EXPECT: Final = client_row("bad_expect", 417, "The only expectation that is understood is 100-continue.")
MISDIRECTED: Final = client_row(
    "misdirected",
    421,
    "This connection is for another host, whose certificate was shown; open one for this host (SNI).",
)
KEY_MISSING: Final = client_row(
    "key_missing",
    401,
    "Send an API key (api_keys): without one this route is closed.",
    close=False,
    error="http_request_denied",
)
KEY_UNKNOWN: Final = client_row(
    "key_unknown",
    401,
    "The API key is not among those of api_keys.file; `lbproxy key new` makes one.",
    close=False,
    error="http_request_denied",
)
KEY_REFUSED: Final = client_row(
    "key_refused",
    403,
    "The API key is good, but not for this route (api_keys of the route).",
    close=False,
    error="http_request_denied",
)
RATE_LIMITED: Final = client_row(
    "rate_limited",
    429,
    "Too many requests (rate_limits); come again after the time in Retry-After. The status is that of the limit.",
    close=False,
    error="http_request_denied",
)
TOO_MANY_PER_IP: Final = client_row(
    "max_per_ip", 429, "Too many connections from this address (limits.connections_per_ip)."
)
PLAIN_HTTP: Final = client_row("plain_http", 400, "This port speaks TLS; use https:// in place of http://.")
BAD_PROXY_HEADER: Final = client_row(
    "bad_proxy_header",
    400,
    "The listener has proxy_protocol: accept: only trusted_proxies may connect, and each sends a PROXY header first.",
)
HEADER_TOO_LARGE: Final = client_row(
    "header_too_large", 431, "The header section exceeds limits.head_bytes or limits.headers of the listener."
)
TRAILER_TOO_LARGE: Final = client_row("trailer_too_large", 431, "The trailer section exceeds limits.trailer_bytes.")
GRPC_NEEDS_H2: Final = client_row(
    "grpc_needs_h2",
    501,
    "gRPC needs HTTP/2 up to the server: set `protocol: h2` in the pool of this route.",
    close=False,
)
CONNECT_PROTOCOL: Final = client_row(
    "connect_protocol",
    501,
    "Of extended CONNECT only `:protocol websocket` is served, and only where `upgrade` of the route lists it.",
    close=False,
)
BAD_METHOD: Final = client_row("bad_method", 501, "Methods are written in upper case; this one is not served here.")
BAD_TRANSFER_CODING: Final = client_row(
    "bad_transfer_coding", 501, "The only transfer coding that is understood is chunked."
)
BAD_VERSION: Final = client_row("bad_version", 505, "Use a version of HTTP that the listener serves (protocols).")
MALFORMED_STREAM: Final = client_row(
    "malformed_stream", 400, "The HTTP/2 request is malformed and its stream was reset; see RFC 9113 section 8.1.1."
)
H2_CONNECTION: Final = client_row(
    "h2_connection",
    400,
    "The client broke the rules of HTTP/2, so its connection was closed; see RFC 9113 section 5.4.1.",
)
H2_FLOOD: Final = client_row(
    "h2_flood", 429, "The HTTP/2 connection passed one of limits.h2 of the listener and was closed; the log has which."
)
LOOP_DETECTED: Final = client_row(
    "loop_detected",
    508,
    "The request passed through this proxy several times; a server address points back to it.",
    error="proxy_loop_detected",
)

# --- nobody to send it to -------------------------------------------------------------------------------------------

NO_SERVER: Final = row(
    "no_server",
    503,
    "destination_unavailable",
    "Its servers are down, ejected, drained or without an address; `lbproxy status` has the reason of each.",
    side=Side.UPSTREAM,
    metric="rejected_total",
)
QUEUE_FULL: Final = row(
    "queue_full",
    503,
    "connection_limit_reached",
    "All servers are at max_inflight and the queue is full; retry later or add servers.",
    side=Side.UPSTREAM,
    metric="rejected_total",
)
QUEUE_TIMEOUT: Final = row(
    "queue_timeout",
    503,
    "connection_limit_reached",
    "No server became free within queue.timeout; retry later or add servers.",
    side=Side.UPSTREAM,
    metric="rejected_total",
)
DEADLINE_UNREACHABLE: Final = row(
    "deadline_unreachable",
    503,
    "connection_limit_reached",
    "The answer would come after the request's deadline, so no server was asked; retry later, give it more time, or add"
    " servers.",
    side=Side.UPSTREAM,
    metric="rejected_total",
)
DRAINING: Final = row(
    "draining",
    503,
    "destination_unavailable",
    "lbproxy is stopping; retry, another instance will answer.",
    side=Side.SELF,
    metric="rejected_total",
    close=True,
)
OVERLOADED: Final = row(
    "overloaded",
    503,
    "proxy_internal_error",
    "lbproxy holds limits.buffered_bytes of unsent data; retry later.",
    side=Side.SELF,
    metric="rejected_total",
    close=True,
)

# --- connecting to a server -----------------------------------------------------------------------------------------

CONNECT_REFUSED: Final = upstream_row(
    "connect_refused",
    502,
    "connection_refused",
    "Nothing listens on the server's address; is the server running?",
    retry=Retry.ALWAYS,
)
CONNECT_UNREACHABLE: Final = upstream_row(
    "connect_unreachable",
    502,
    "destination_ip_unroutable",
    "The server's address cannot be reached; check network and address.",
    retry=Retry.ALWAYS,
)
CONNECT_TIMEOUT: Final = upstream_row(
    "connect_timeout",
    504,
    "connection_timeout",
    "The server did not accept the connection within timeouts.connect.",
    retry=Retry.ALWAYS,
)
CONNECT_ERROR: Final = upstream_row(
    "connect_error",
    502,
    "destination_unavailable",
    "The connection to the server could not be made; the log has the operating system's reason.",
    retry=Retry.ALWAYS,
)
TLS_HANDSHAKE: Final = upstream_row(
    "tls_handshake",
    502,
    "tls_protocol_error",
    "The TLS handshake with the server failed; does it speak TLS on this port, and does it want a client certificate?",
    retry=Retry.ALWAYS,
)
TLS_VERIFY: Final = upstream_row(
    "tls_verify",
    502,
    "tls_certificate_error",
    "The server's certificate is not trusted; check tls.ca and tls.server_name.",
    retry=Retry.ALWAYS,
)
TLS_TIMEOUT: Final = upstream_row(
    "tls_timeout",
    504,
    "connection_timeout",
    "The TLS handshake with the server took longer than timeouts.tls_handshake.",
    retry=Retry.ALWAYS,
    reason="tls_handshake",
)
LOCAL_RESOURCE: Final = upstream_row(
    "local_resource",
    503,
    "proxy_internal_error",
    "lbproxy is out of file descriptors; raise the limit (ulimit -n, LimitNOFILE).",
    retry=Retry.NEVER,
    blames=False,
)
LOCAL_PORTS: Final = upstream_row(
    "local_ports",
    503,
    "proxy_internal_error",
    "No local port is free; enable keep_alive or widen net.ipv4.ip_local_port_range.",
    retry=Retry.NEVER,
    blames=False,
)

# --- the server's answer --------------------------------------------------------------------------------------------

CLOSED_EARLY: Final = upstream_row(
    "closed_early", 502, "connection_terminated", "The server closed the connection without an answer; see its log."
)
RESET: Final = upstream_row("reset", 502, "connection_terminated", "The server reset the connection; see its log.")
CLOSED_UNSENT: Final = upstream_row(
    "closed_unsent",
    502,
    "connection_terminated",
    "The server accepted the connection and closed it at once; nothing was sent to it. See its log.",
    retry=Retry.ALWAYS,
    reason="closed_early",
)
CLOSED_UNACKED: Final = upstream_row(
    "closed_unacked",
    502,
    "connection_terminated",
    "The server closed an idle connection while the request was on its way; it never read it.",
    retry=Retry.ALWAYS,
    blames=False,
    reason="closed_early",
)
CLOSED_REUSED: Final = upstream_row(
    "upstream_closed_reused_conn",
    502,
    "connection_terminated",
    "The server closed a kept connection just as it was reused; raise its keep-alive time-out, lower"
    " keep_alive.idle_timeout, or set retry.idempotent if requests may be repeated.",
    blames=False,
)
REFUSED_STREAM: Final = upstream_row(
    "refused_stream",
    502,
    "connection_limit_reached",
    "The server took no more requests on its HTTP/2 connection, this one it has not processed; see its limit of"
    " concurrent streams.",
    retry=Retry.ALWAYS,
    blames=False,
)
GOAWAY_UNPROCESSED: Final = upstream_row(
    "goaway_unprocessed",
    502,
    "connection_terminated",
    "The server was closing its HTTP/2 connection (GOAWAY) and has not processed this request; is it stopping?",
    retry=Retry.ALWAYS,
    blames=False,
)
STREAM_RESET: Final = upstream_row(
    "stream_reset",
    502,
    "connection_terminated",
    "The server reset the request's HTTP/2 stream; the detail has the code, the server's log perhaps the reason.",
)
STREAM_CANCELLED: Final = upstream_row(
    "stream_cancelled",
    502,
    "connection_terminated",
    "The server gave the request up (RST_STREAM with CANCEL or NO_ERROR) before its answer was whole; see its log.",
    blames=False,
    reason="stream_reset",
)
H2_PROTOCOL: Final = upstream_row(
    "h2_protocol",
    502,
    "http_protocol_error",
    "The HTTP/2 connection to the server failed: it does not speak HTTP/2 there, or breaks RFC 9113; is `protocol` of"
    " the pool right?",
)
PING_TIMEOUT: Final = upstream_row(
    "ping_timeout",
    504,
    "connection_timeout",
    "The server was silent and did not answer a PING; it hangs, or is not reachable any more.",
)
MAINTENANCE: Final = upstream_row(
    "maintenance",
    502,
    "connection_terminated",
    "An operator took the server into maintenance, and what was still in flight there was cut (lbproxy maint --after).",
    blames=False,
)
TRUNCATED_HEAD: Final = upstream_row(
    "truncated_head",
    502,
    "http_response_incomplete",
    "The server closed the connection inside the response head.",
    retry=Retry.NEVER,
)
BAD_RESPONSE: Final = upstream_row(
    "bad_response",
    502,
    "http_protocol_error",
    "The server's answer is not valid HTTP.",
    retry=Retry.NEVER,
)
BAD_UPGRADE: Final = upstream_row(
    "bad_upgrade",
    502,
    "http_upgrade_failed",
    "The server switched to a protocol that it was not offered (`upgrade` of the route), or its Sec-WebSocket-Accept is"
    " wrong.",
    retry=Retry.NEVER,
    reason="bad_response",
)
NO_WEBSOCKET: Final = upstream_row(
    "no_websocket",
    502,
    "http_upgrade_failed",
    "The server opens no WebSocket there: it answered 2xx without 101, or its HTTP/2 has no extended CONNECT (RFC"
    " 8441).",
    retry=Retry.NEVER,
    blames=False,
    reason="bad_response",
)
NO_GRPC: Final = upstream_row(
    "no_grpc",
    501,
    "http_protocol_error",
    "gRPC needs HTTP/2 up to the server, and under `protocol: auto` this one chose HTTP/1.1 (ALPN): have it offer h2.",
    retry=Retry.ALWAYS,
    blames=False,
    reason="bad_response",
)
RESPONSE_HEADER_TOO_LARGE: Final = upstream_row(
    "response_header_too_large",
    502,
    "http_response_header_section_size",
    "The server's response head exceeds limits.head_bytes or limits.headers of the pool.",
    retry=Retry.NEVER,
    reason="header_too_large",
)
TOO_MANY_INTERIM: Final = upstream_row(
    "too_many_interim",
    502,
    "http_protocol_error",
    "The server sent more than limits.interim_responses 1xx answers.",
    retry=Retry.NEVER,
)
RETRYABLE_STATUS: Final = upstream_row(
    "retryable_status",
    502,
    "http_protocol_error",
    "The server's answer has a status of retry.status; the answer itself is passed on if no retry succeeds.",
    blames=False,
)
RESPONSE_TIMEOUT: Final = upstream_row(
    "response_timeout",
    504,
    "http_response_timeout",
    "The server did not begin its answer within timeouts.response_head.",
)
TOTAL_TIMEOUT: Final = upstream_row(
    "total_timeout",
    504,
    "http_response_timeout",
    "The request did not finish within timeouts.total, or within the time that its sender gave it.",
    retry=Retry.NEVER,
    blames=False,
)
UPSTREAM_WRITE_TIMEOUT: Final = upstream_row(
    "upstream_write_timeout",
    504,
    "connection_write_timeout",
    "The server stopped reading the request for longer than timeouts.write.",
    retry=Retry.NEVER,
)
TRUNCATED_BODY: Final = upstream_row(
    "truncated_body",
    502,
    "http_response_incomplete",
    "The server's answer ended too early; the client connection was reset so that this shows.",
    retry=Retry.NEVER,
)
RESPONSE_BAD_CHUNK: Final = upstream_row(
    "response_bad_chunk",
    502,
    "http_response_transfer_coding",
    "The server's chunked body is malformed.",
    retry=Retry.NEVER,
    reason="bad_chunk",
)
IDLE_TIMEOUT: Final = upstream_row(
    "idle_timeout",
    504,
    "connection_read_timeout",
    "The server's answer stalled for longer than timeouts.read.",
    retry=Retry.NEVER,
)
EXTRA_DATA: Final = upstream_row(
    "extra_data",
    502,
    "http_protocol_error",
    "The server sent bytes after its answer; its connection was closed.",
    retry=Retry.NEVER,
    blames=False,
)

# --- ends that are nobody's answer ----------------------------------------------------------------------------------

CLIENT_ABORT: Final = row(
    "client_abort",
    499,
    "",
    "The client left before its answer was complete.",
    side=Side.CLIENT,
    metric="client_aborts_total",
    close=True,
)
CLIENT_WRITE_TIMEOUT: Final = row(
    "client_write_timeout",
    499,
    "",
    "The client did not read its answer for longer than the listener's timeouts.write.",
    side=Side.CLIENT,
    metric="client_aborts_total",
    reason="write_timeout",
    close=True,
)
TUNNEL_TIMEOUT: Final = row(
    "tunnel_timeout",
    504,
    "connection_read_timeout",
    "Nothing passed through the tunnel for longer than timeouts.tunnel.",
    side=Side.SELF,
    metric="",
    close=True,
)
SHUTDOWN_CUT: Final = row(
    "shutdown",
    503,
    "destination_unavailable",
    "lbproxy stopped and shutdown.grace was over.",
    side=Side.SELF,
    metric="",
    close=True,
)
INTERNAL_ERROR: Final = row(
    "internal_error",
    500,
    "proxy_internal_error",
    "lbproxy has a defect; please report it with the traceback from the log.",
    side=Side.SELF,
    metric="internal_errors_total",
    close=True,
)

CLIENT_ABORT_PHASES: Final[tuple[str, ...]] = (
    "request_body",
    "queued",
    "connecting",
    "waiting",
    "streaming",
    "tunnel",
    "write_timeout",
)


REJECTED_REASONS: Final[tuple[str, ...]] = reasons("rejected_total")
UPSTREAM_ERROR_REASONS: Final[tuple[str, ...]] = reasons("upstream_errors_total")


if __name__ == "__main__":
    print(markdown_table(), end="")
