"""What the tests of a client's connection share."""

from __future__ import annotations

from lbproxy.dataplane.client.http2 import Http2Connection
from tests.support.fake_transport import FakeLb

CONFIG = """
access_log: {path: /dev/null}
listeners:
- name: web
  bind: "127.0.0.1:5000"
  timeouts: {request_head: 2s, request_body: 3s, keep_alive: 4s, write: 5s}
  limits: {body_bytes: 1KiB, head_bytes: 1KiB, connections_per_ip: 2}
  routes:
  - {match: {path: /here}, respond: {status: 200, body: here}}
  - {match: {path: /gone}, redirect: {status: 301, location: /there}}
  - {match: {path_prefix: /}, pool: app}
pools: {app: {servers: ["127.0.0.1:9001"], health_check: off, retry: {attempts: 0}}}
"""
PLAIN = """
access_log: {path: /dev/null}
listeners: [{name: web, bind: "127.0.0.1:5000", pool: app}]
pools: {app: {servers: ["127.0.0.1:9001"], health_check: off}}
"""
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
OLD = b"GET /a HTTP/1.0\r\n\r\n"
OLD_KEPT = b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
HEAD = b"HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n"


def fields_of(answer: bytes) -> list[bytes]:
    """The field lines of the first head, without the ones that differ each time."""
    lines = answer.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    return [line for line in lines if not line.startswith((b"X-Request-ID:", b"Date:"))]


def limited(limits: str, protocols: str = "[h1, h2]") -> str:
    """A config with these `limits.h2`."""
    return f"""
access_log: {{path: /dev/null}}
listeners:
- name: web
  bind: "127.0.0.1:5000"
  protocols: {protocols}
  limits: {{h2: {{{limits}}}}}
  timeouts: {{request_head: 2s, request_body: 3s, keep_alive: 40s, write: 5s}}
  routes:
  - {{match: {{path: /here}}, respond: {{status: 200, body: here}}}}
  - {{match: {{path_prefix: /}}, pool: app}}
pools: {{app: {{servers: ["127.0.0.1:9001"], health_check: off}}}}
"""


def connection_of(lb: FakeLb) -> Http2Connection:
    """The only one with HTTP/2."""
    [found] = [item for item in lb.services.swept if isinstance(item, Http2Connection)]
    return found
