"""What the tests of a server's connection share."""

from __future__ import annotations

from tests.support.fake_transport import GET, FakeLb, Peer


def config(*, keep_alive: str = "{}", limits: str = "{}") -> str:
    return f"""
access_log: {{path: /dev/null}}
listeners: [{{name: web, bind: "127.0.0.1:5000", pool: app}}]
pools:
  app:
    servers: ["127.0.0.1:9001"]
    health_check: off
    retry: {{attempts: 0}}
    keep_alive: {keep_alive}
    limits: {limits}
"""


def asked(lb: FakeLb, request: bytes = GET) -> tuple[Peer, Peer]:
    client = lb.connect()
    return client, lb.exchange(client, request)
