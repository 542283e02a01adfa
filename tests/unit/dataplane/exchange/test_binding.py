"""Connections on which a user is authenticated (NTLM, Negotiate): one client's only, and gone with it."""

from __future__ import annotations

import pytest

from lbproxy.domain.states import Admin
from tests.support.fake_transport import FakeLb, Peer, ok, status_of

CHALLENGE = "WWW-Authenticate: NTLM TlRMTVNTUAAC"
UNAUTHORISED = "401 Unauthorized"


def config(pool: str = "", *, servers: int = 1) -> str:
    addresses = ", ".join(f'"127.0.0.1:{9001 + n}"' for n in range(servers))
    return f"""
access_log: {{path: /dev/null}}
listeners:
  - {{name: web, bind: "127.0.0.1:5000", routes: [{{match: {{path: /other}}, pool: other}}, {{pool: app}}]}}
pools:
  app: {{servers: [{addresses}], strategy: round_robin, health_check: off{pool}}}
  other: {{servers: ["127.0.0.1:9009"], health_check: off}}
"""


def get(*fields: str, target: str = "/a") -> bytes:
    return "\r\n".join([f"GET {target} HTTP/1.1", "Host: h", *fields, "", ""]).encode()


TYPE_1 = get("Authorization: NTLM TlRMTVNTUAAB")
TYPE_3 = get("Authorization: NTLM TlRMTVNTUAAD")


def authenticated(lb: FakeLb) -> tuple[Peer, Peer]:
    """A client that has gone through a handshake, and the server's connection that took part."""
    client = lb.connect()
    server = lb.exchange(client, TYPE_1)
    server.send(ok(b"no", CHALLENGE, status=UNAUTHORISED))
    answer = client.got()
    assert status_of(answer) == 401 and CHALLENGE.encode() in answer
    client.send(TYPE_3)
    server.send(ok(b"alice"))
    assert client.got().endswith(b"alice")
    server.got()
    return client, server


@pytest.mark.parametrize("pool", ["", ", max_inflight: 1"])
def test_a_handshake_goes_on_on_its_connection_and_nobody_else_gets_it(pool: str) -> None:
    with FakeLb(config(pool)) as lb:
        client, server = authenticated(lb)
        assert lb.n_idle == 0 and server.is_open
        stranger = lb.connect()
        another = lb.exchange(stranger, get())
        assert server.got() == b""
        another.send(ok(b"stranger"))
        assert stranger.got().endswith(b"stranger")
        client.send(get())
        assert server.got().startswith(b"GET /a ") and another.got() != b""
        server.send(ok(b"alice"))
        assert client.got().endswith(b"alice")


@pytest.mark.parametrize(
    "fields",
    [
        ("WWW-Authenticate: Negotiate",),
        ("Www-Authenticate: Basic realm=x, NTLM",),
        ("WWW-Authenticate: Basic realm=x", "WWW-Authenticate: negotiate oYG2"),
        ("Proxy-Authenticate: NTLM",),
        ("Authentication-Info: Negotiate oYG2",),
        ("Persistent-Auth: true",),
    ],
)
@pytest.mark.parametrize("status", ["200 OK", UNAUTHORISED])
def test_an_answer_that_binds(fields: tuple[str, ...], status: str) -> None:
    with FakeLb(config()) as lb:
        client = lb.connect()
        server = lb.exchange(client, get())
        server.send(ok(b"hi", *fields, status=status))
        assert lb.n_idle == 0 and server.is_open
        client.send(get())
        server.send(ok(b"again"))
        assert client.got().endswith(b"again") and lb.n_idle == 0, "once bound, always bound"
        client.fin()
        assert not server.is_open


def test_answers_to_known_heads_bind_too() -> None:
    """The second of equal answers is not parsed."""
    with FakeLb(config()) as lb:
        for _ in range(3):
            client = lb.connect()
            server = lb.exchange(client, get())
            server.send(ok(b"no", CHALLENGE, status=UNAUTHORISED))
            assert lb.n_idle == 0 and server.is_open


@pytest.mark.parametrize("known", [False, True], ids=["new head", "known but for its credentials"])
def test_a_request_with_such_credentials_binds_whatever_the_answer_says(known: bool) -> None:
    with FakeLb(config()) as lb:
        if known:
            for n in range(4):
                client = lb.connect()
                client.send(get(f"Authorization: Bearer {n % 2}"))
                (lb.accept() if lb.loop.dials else lb.servers[-1]).send(ok())
        n_idle = lb.n_idle
        client = lb.connect()
        client.send(get("Authorization: Negotiate YIIabc"))
        server = lb.accept() if lb.loop.dials else lb.servers[-1]
        server.send(ok(b"alice"))
        assert server.is_open and lb.n_idle == max(0, n_idle - 1)
        other = lb.exchange(lb.connect(), get())
        assert other is not server
        other.send(ok())


@pytest.mark.parametrize("fields", [("WWW-Authenticate: Basic realm=x",), ("WWW-Authenticate: Bearer",), ()])
def test_other_schemes_are_shared(fields: tuple[str, ...]) -> None:
    with FakeLb(config()) as lb:
        client = lb.connect()
        lb.exchange(client, get("Authorization: Basic eDp5")).send(ok(b"hi", *fields))
        assert lb.n_idle == 1


@pytest.mark.parametrize("how", ["fin", "reset", "close", "1.0"])
def test_it_ends_with_its_client(how: str) -> None:
    with FakeLb(config()) as lb:
        client, server = authenticated(lb)
        if how in ("fin", "reset"):
            getattr(client, how)()
        else:
            client.send(get("Connection: close") if how == "close" else get().replace(b"HTTP/1.1", b"HTTP/1.0"))
            server.send(ok())
        assert not server.is_open and not server.saw_reset


def test_a_client_that_leaves_in_the_middle_ends_it_at_once() -> None:
    with FakeLb(config()) as lb:
        client, server = authenticated(lb)
        client.send(get())
        client.fin()
        assert server.saw_reset


@pytest.mark.parametrize("answer", [ok(b"x", "Connection: close"), ok(b"x") + b"surplus"])
def test_it_is_not_kept_where_no_connection_would_be(answer: bytes) -> None:
    with FakeLb(config()) as lb:
        client, server = authenticated(lb)
        client.send(get())
        server.send(answer)
        assert not server.is_open
        lb.exchange(client, get()).send(ok(b"fresh"))
        assert client.got().endswith(b"fresh")


@pytest.mark.parametrize("how", ["fin", "reset", "stray bytes", "time"])
def test_a_server_that_ends_it_while_it_is_idle_costs_no_request(how: str) -> None:
    with FakeLb(config(", keep_alive: {idle_timeout: 2s}")) as lb:
        client, server = authenticated(lb)
        if how == "time":
            lb.advance(3.0)
        elif how == "stray bytes":
            server.send(b"HTTP/1.1 408 Late\r\n\r\n")
        else:
            getattr(server, how)()
        fresh = lb.exchange(client, get())
        fresh.send(ok(b"fresh"))
        assert client.got().endswith(b"fresh") and not server.is_open
        assert lb.ends[-1] == "ok"


def test_its_next_requests_go_to_its_server_whatever_the_strategy_says() -> None:
    with FakeLb(config(servers=3)) as lb:
        client, server = authenticated(lb)
        for n in range(3):
            client.send(get())
            server.send(ok(b"%d" % n))
            assert client.got().endswith(b"%d" % n)
        assert len(lb.servers) == 1


def test_a_server_that_takes_no_more_requests_loses_it() -> None:
    with FakeLb(config(servers=2)) as lb:
        client, server = authenticated(lb)
        bound = next(item.server for item in lb.runtimes if item.server.requests)
        lb.pool.pool.set_admin(bound, Admin.DRAIN, "by hand", lb.clock())
        lb.exchange(client, get()).send(ok(b"elsewhere"))
        assert client.got().endswith(b"elsewhere") and not server.is_open


def test_a_request_to_another_pool_ends_it() -> None:
    """A client has one connection to servers, as others have; else there might be too few descriptors."""
    with FakeLb(config()) as lb:
        client, server = authenticated(lb)
        lb.exchange(client, get(target="/other")).send(ok(b"other"))
        assert client.got().endswith(b"other") and not server.is_open


def test_a_pool_without_kept_connections_has_none_of_these() -> None:
    with FakeLb(config(", keep_alive: off")) as lb:
        client = lb.connect()
        server = lb.exchange(client, TYPE_1)
        server.send(ok(b"no", CHALLENGE, status=UNAUTHORISED))
        assert not server.is_open
