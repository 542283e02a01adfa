"""Requests that belong somewhere: by a key in their body, and by a cookie."""

from __future__ import annotations

import re

import pytest

from lbproxy.domain.server import Server
from lbproxy.domain.states import Admin, Health
from lbproxy.protocol.json_value import LIMIT
from tests.support.fake_transport import FakeLb, Peer, answered, ok, post, status_of
from tests.support.http2_client import Http2Client

NAMES = [f"127.0.0.1:900{n}" for n in range(1, 5)]
COOKIE = re.compile(rb"set-cookie: (lb=([^;]*)[^\r]*)\r\n", re.IGNORECASE)


def config(pool: str, *, buffered: str = "64MiB", path: str = "/") -> str:
    return f"""
limits: {{buffered_bytes: {buffered}}}
access_log: {{path: /dev/null}}
listeners: [{{name: web, bind: "127.0.0.1:5000", pool: app}}]
pools:
  app: {{servers: {NAMES}, health_check: off, {pool}}}
"""


BY_MODEL = config('strategy: {name: consistent_hash, key: "json:/model"}')
STICKY = "sticky: {cookie: lb, secret: 0123456789abcdef, max_age: 1h}"


def body(model: str, *, before: str = "") -> bytes:
    return f'{{"prompt": "{before}", "model": "{model}", "n": 1}}'.encode()


def server_of(lb: FakeLb, request: bytes, *pieces: bytes) -> str:
    """Who gets a request, on a connection of its own."""
    client = lb.connect()
    client.send(request, *pieces)
    answered(lb, client)
    return str(lb.log[-1]["server"])


# --- a key in the body ------------------------------------------------------------------------------------------------


def test_the_same_model_goes_to_the_same_server_however_it_comes() -> None:
    with FakeLb(BY_MODEL) as lb:
        owners = {model: server_of(lb, post(body(model))) for model in "abcdefgh"}
        assert len(set(owners.values())) > 1
        for model, owner in owners.items():
            assert server_of(lb, post(body(model, before="x" * 5000))) == owner
            request = post(body(model))
            assert server_of(lb, request[:-20], request[-20:]) == owner
            head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
            chunks = b"".join(b"1\r\n%c\r\n" % octet for octet in body(model)) + b"0\r\n\r\n"
            assert server_of(lb, head, *[chunks[at : at + 7] for at in range(0, len(chunks), 7)]) == owner


def test_nobody_is_asked_before_the_key_is_there_and_then_at_once() -> None:
    with FakeLb(BY_MODEL) as lb:
        client = lb.connect()
        head, rest = post(b" " * 200)[:-200], body("a") + b" " * 200
        client.send(head, rest[:10])
        assert not lb.loop.dials
        client.send(rest[10:40])
        server = lb.accept()
        assert server.got().endswith(rest[:40]), "what was read ahead goes first"
        client.send(rest[40:200])
        server.send(ok())
        assert status_of(client.got()) == 200


@pytest.mark.parametrize("data", [b"", b"model=a", b'{"model": ', b'{"model": {}}', b"\xff\x00{", b"[" * 3000])
def test_what_has_no_key_goes_by_load(data: bytes) -> None:
    with FakeLb(BY_MODEL) as lb:
        assert len({server_of(lb, post(data)) for _ in range(8)}) == 4
        assert set(lb.ends) == {"ok"}


def test_a_key_that_does_not_come_is_not_waited_for_beyond_the_limit() -> None:
    with FakeLb(BY_MODEL) as lb:
        client = lb.connect()
        data = b'{"prompt": "' + b"x" * (3 * LIMIT)
        request = post(data)
        client.send(request[: LIMIT - 1000])
        assert not lb.loop.dials
        client.send(request[LIMIT - 1000 : LIMIT + 1000])
        server = lb.accept()
        client.send(request[LIMIT + 1000 :])
        assert server.got().endswith(b"x" * LIMIT)
        server.send(ok())
        assert status_of(client.got()) == 200


def test_a_body_that_waits_for_its_key_counts_as_buffered() -> None:
    with FakeLb(BY_MODEL) as lb:
        client = lb.connect()
        client.send(post(b" " * 100_000)[: 100 + 40_000])
        assert lb.services.pressure.buffered >= 39_000
        client.reset()
        assert lb.ends == ["client_abort"]
        assert lb.services.pressure.buffered == 0


def test_short_of_memory_nobody_waits_for_a_key() -> None:
    with FakeLb(BY_MODEL) as lb:
        client = lb.connect()
        data = b'{"prompt": "' + b"x" * 1000
        client.send(post(data)[:-500])
        assert not lb.loop.dials
        lb.services.pressure.is_holding = True
        client.send(data[-500:-400])
        lb.services.pressure.is_holding = False
        server = lb.accept()
        client.send(data[-400:])
        server.send(ok())
        assert status_of(client.got()) == 200


def test_a_client_that_waits_to_be_asked_for_its_body_is_asked() -> None:
    with FakeLb(BY_MODEL) as lb:
        client = lb.connect()
        data = body("a")
        client.send(post(data, "Expect: 100-continue")[: -len(data)])
        assert client.got() == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert not lb.loop.dials
        client.send(data)
        server = lb.accept()
        assert b"expect" not in server.got().lower()
        server.send(b"HTTP/1.1 100 Continue\r\n\r\n" + ok())
        assert status_of(client.got()) == 200, "it has its 100 already"


def test_a_retry_keeps_the_key() -> None:
    with FakeLb(BY_MODEL) as lb:
        orders = []
        for _ in range(2):
            client = lb.connect()
            client.send(post(body("a")))
            order = []
            for _ in range(3):
                if not lb.loop.dials:
                    lb.advance(0.3)
                order.append(str(lb.loop.dials[0].address))
                lb.loop.dials[0].fail(113)
                lb.loop.run()
            orders.append(order)
        assert len(set(orders[0])) == 3
        assert orders[0] == orders[1]


def test_other_pools_pay_nothing() -> None:
    with FakeLb(config("strategy: round_robin")) as lb:
        client = lb.connect()
        client.send(post(b"x" * 100)[:-50])
        assert len(lb.loop.dials) == 1, "nobody waits for the body"
        lb.accept()


@pytest.mark.parametrize(
    ("key", "one", "other"),
    [
        ("header:X-User", ("X-User: a", "/"), ("X-User: b", "/")),
        ("cookie:sid", ("Cookie: sid=a; x=1", "/"), ("Cookie: x=2; sid=b", "/")),
        ("query:user", ("A: 1", "/?user=a&x=1"), ("A: 1", "/?x=2&user=b")),
        ("path", ("A: 1", "/a?1"), ("A: 1", "/b?1")),
    ],
)
def test_keys_of_the_head(key: str, one: tuple[str, str], other: tuple[str, str]) -> None:
    with FakeLb(config(f'strategy: {{name: consistent_hash, key: "{key}"}}')) as lb:
        for field, target in (one, other):
            assert len({server_of(lb, post(b"", field, target=target)) for _ in range(8)}) == 1
        users = range(12)
        assert len({server_of(lb, post(b"", *asked(key, n)[0], target=asked(key, n)[1])) for n in users}) > 1


def asked(key: str, user: int) -> tuple[tuple[str, ...], str]:
    kind, _, name = key.partition(":")
    fields = {"header": (f"{name}: u{user}",), "cookie": (f"Cookie: {name}=u{user}",)}.get(kind, ())
    return fields, {"query": f"/?{name}=u{user}", "path": f"/u{user}"}.get(kind, "/")


# --- cookies ----------------------------------------------------------------------------------------------------------


def cookie_in(got: bytes) -> str:
    """The cookie of an answer, "" if it has none."""
    found = COOKIE.search(got.partition(b"\r\n\r\n")[0] + b"\r\n")
    return found[2].decode() if found else ""


def ask(lb: FakeLb, cookie: str = "", reply: bytes = b"") -> tuple[str, str]:
    """The server of a request with that cookie, and the cookie of its answer."""
    client = lb.connect()
    client.send(post(b"", f"Cookie: a=1; lb={cookie}") if cookie else post(b""))
    got = answered(lb, client, reply)
    return str(lb.log[-1]["server"]), cookie_in(got)


def server_called(lb: FakeLb, name: str) -> Server:
    return next(runtime.server for runtime in lb.runtimes if runtime.server.name == name)


STRATEGIES = ["round_robin", "least_connections", "random", "power_of_two", "peak_ewma", "consistent_hash", "first"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_client_stays_where_it_was_under_every_strategy(strategy: str) -> None:
    with FakeLb(config(f"strategy: {strategy}, max_inflight: 9, {STICKY}")) as lb:
        first, cookie = ask(lb)
        assert cookie
        for _ in range(8):
            assert ask(lb, cookie) == (first, ""), "and a good cookie is not sent again"


def test_what_the_cookie_says() -> None:
    with FakeLb(config(STICKY)) as lb:
        client = lb.connect()
        client.send(post(b""))
        got = answered(lb, client)
        line = COOKIE.search(got)
        assert line is not None
        assert line[1].endswith(b"; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax")
        assert b"127.0.0.1" not in got and b"900" not in line[2]


def test_the_server_gets_the_cookie_too() -> None:
    with FakeLb(config(STICKY)) as lb:
        _, cookie = ask(lb)
        client = lb.connect()
        client.send(post(b"", f"Cookie: a=1; lb={cookie}"))
        assert f"Cookie: a=1; lb={cookie}\r\n".encode() in lb.servers[0].got()
        lb.servers[0].send(ok())


@pytest.mark.parametrize("cookie", ["x", "A" * 32, "A" * 31 + "!", "%00", "\xff" * 32, "A" * 5000])
def test_a_forged_cookie_is_ignored_and_replaced(cookie: str) -> None:
    with FakeLb(config(f"strategy: round_robin, {STICKY}")) as lb:
        assert len({ask(lb, cookie)[0] for _ in range(4)}) == 4
        made = ask(lb, cookie)
        assert made[1] and ask(lb, made[1]) == (made[0], "")


def test_an_old_cookie_is_replaced_and_one_in_its_second_half_renewed() -> None:
    with FakeLb(config(f"strategy: round_robin, {STICKY}")) as lb:
        first, cookie = ask(lb)
        lb.services.wall_offset += 1700.0
        assert ask(lb, cookie) == (first, "")
        lb.services.wall_offset += 200.0
        again, renewed = ask(lb, cookie)
        assert again == first and renewed not in ("", cookie)
        lb.services.wall_offset += 1800.0
        assert ask(lb, renewed)[0] == first
        assert {ask(lb, cookie)[0] for _ in range(4)} == set(NAMES), "the old one is too old"


def test_who_is_down_or_in_maintenance_loses_its_clients() -> None:
    with FakeLb(config(f"strategy: round_robin, {STICKY}")) as lb:
        for what in (Admin.MAINT, Admin.DRAIN, Health.DOWN):
            first, cookie = ask(lb)
            if isinstance(what, Admin):
                lb.pool.pool.set_admin(server_called(lb, first), what, "", lb.clock())
            else:
                lb.pool.pool.set_health(server_called(lb, first), what, "failed", "", lb.clock())
            moved, other = ask(lb, cookie)
            assert moved != first and other
            assert ask(lb, other) == (moved, "")


def test_a_drained_server_may_keep_its_own() -> None:
    with FakeLb(config(f"strategy: round_robin, {STICKY}")) as lb:
        first, cookie = ask(lb)
        server, pool = server_called(lb, first), lb.pool.pool
        assert pool.set_admin(server, Admin.DRAIN, "", lb.clock(), keep_sticky=True)
        assert ask(lb, cookie) == (first, "")
        assert first not in {ask(lb)[0] for _ in range(8)}
        assert pool.set_admin(server, Admin.DRAIN, "", lb.clock()), "another word of the operator's"
        assert ask(lb, cookie)[0] != first


def test_a_full_server_is_not_waited_for_and_the_client_comes_back() -> None:
    with FakeLb(config(f"strategy: round_robin, max_inflight: 1, {STICKY}")) as lb:
        first, cookie = ask(lb)
        busy = lb.connect()
        busy.send(post(b"", f"Cookie: lb={cookie}"))
        elsewhere, other = ask_elsewhere(lb, cookie)
        assert elsewhere != first and not other
        answered(lb, busy)
        assert ask(lb, cookie) == (first, "")


def ask_elsewhere(lb: FakeLb, cookie: str) -> tuple[str, str]:
    client = lb.connect()
    client.send(post(b"", f"Cookie: lb={cookie}"))
    server = lb.accept()
    assert server.got()
    server.send(ok())
    return str(lb.log[-1]["server"]), cookie_in(client.got())


def test_a_retry_goes_elsewhere_and_says_so() -> None:
    with FakeLb(config(f"strategy: round_robin, keep_alive: off, {STICKY}")) as lb:
        client = lb.connect()
        client.send(post(b""))
        server = lb.accept()
        server.send(ok())
        first, cookie = str(lb.log[-1]["server"]), cookie_in(client.got())
        client = lb.connect()
        client.send(post(b"", f"Cookie: lb={cookie}"))
        lb.refuse()
        lb.accept().send(ok())
        moved = str(lb.log[-1]["server"])
        assert moved != first and cookie_in(client.got())


def test_an_error_binds_nobody() -> None:
    with FakeLb(config(STICKY)) as lb:
        assert ask(lb, reply=ok(status="500 Internal Server Error"))[1] == ""
        assert ask(lb, reply=ok(status="404 Not Found"))[1]


def test_a_cookie_goes_with_a_tunnel_and_with_a_streamed_answer() -> None:
    with FakeLb(config(STICKY)) as lb:
        client = lb.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        lb.accept().send(b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert cookie_in(client.got())
        client = lb.connect()
        client.send(post(b""))
        server = lb.accept()
        server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        assert cookie_in(client.got())
        server.send(b"0\r\n\r\n")


# --- who waits for its server -----------------------------------------------------------------------------------------

WAITS = f"strategy: round_robin, max_inflight: 1, {STICKY[:-1]}, wait: 2s}}"


def stuck(lb: FakeLb, first: str, cookie: str) -> Peer:
    """A client whose request is at its server."""
    client = lb.connect()
    client.send(post(b"", f"Cookie: lb={cookie}"))
    assert server_called(lb, first).inflight == 1
    return client


def two_of_a_server(lb: FakeLb) -> tuple[str, str, Peer, Peer]:
    """Its name, the cookie that names it, who has its slot, and who comes then."""
    first, cookie = ask(lb)
    busy = stuck(lb, first, cookie)
    waiting = lb.connect()
    waiting.send(post(b"", f"Cookie: lb={cookie}"))
    return first, cookie, busy, waiting


def test_who_waits_gets_the_slot_of_its_own_server() -> None:
    with FakeLb(config(WAITS)) as lb:
        first, _, busy, waiting = two_of_a_server(lb)
        assert not lb.loop.dials and lb.pool.n_queued == 1
        answered(lb, busy)
        assert lb.pool.n_queued == 0
        assert not cookie_in(answered(lb, waiting))
        assert [entry["server"] for entry in lb.log] == [first] * 3
        assert lb.of_pool("sticky_requests_total", "kept") == 2
        assert lb.of_pool("sticky_requests_total", "new") == 1


def test_who_has_waited_goes_elsewhere_and_comes_back() -> None:
    with FakeLb(config(WAITS)) as lb:
        first, cookie, busy, waiting = two_of_a_server(lb)
        lb.advance(1.9)
        assert not lb.loop.dials
        lb.advance(0.4)
        server = lb.accept()
        server.send(ok())
        assert status_of(waiting.got()) == 200 and lb.log[-1]["server"] != first
        answered(lb, busy)
        assert ask(lb, cookie) == (first, "")


def test_who_waits_for_a_server_that_goes_down_goes_elsewhere_at_once() -> None:
    with FakeLb(config(WAITS)) as lb:
        first, _, busy, waiting = two_of_a_server(lb)
        lb.pool.pool.set_health(server_called(lb, first), Health.DOWN, "failed", "", lb.clock())
        lb.accept().send(ok())
        assert cookie_in(waiting.got())
        answered(lb, busy)


def test_who_waits_may_leave() -> None:
    with FakeLb(config(WAITS)) as lb:
        _, _, busy, waiting = two_of_a_server(lb)
        waiting.reset()
        assert lb.pool.n_queued == 0
        answered(lb, busy)
        assert lb.inflight == 0


def test_no_more_wait_than_the_queue_may_have() -> None:
    with FakeLb(config(WAITS + ", queue: {size: 1}")) as lb:
        first, cookie = ask(lb)
        busy = stuck(lb, first, cookie)
        waiting = [lb.connect() for _ in range(2)]
        for client in waiting:
            client.send(post(b"", f"Cookie: lb={cookie}"))
        assert lb.pool.n_queued == 1
        lb.accept().send(ok())
        assert status_of(waiting[1].got()) == 200, "it did not wait"
        answered(lb, busy)
        answered(lb, waiting[0])
        assert lb.of_pool("sticky_requests_total", "spilled") == 1


def test_who_has_waited_longer_for_any_server_comes_first() -> None:
    with FakeLb(config(WAITS.replace("2s", "9s"))) as lb:
        first, cookie = ask(lb)
        others = [lb.connect() for _ in range(4)]
        for client in others:
            client.send(post(b""))
            if lb.loop.dials:
                lb.accept()
        earlier = lb.connect()
        earlier.send(post(b""))
        lb.advance(0.5)
        later = lb.connect()
        later.send(post(b"", f"Cookie: lb={cookie}"))
        assert lb.pool.n_queued == 2
        own = next(peer for peer in lb.servers if peer.transport.is_lost is False and is_of(lb, peer, first))
        own.got()
        own.send(ok())
        own.send(ok())
        assert status_of(earlier.got()) == 200
        own.send(ok())
        assert status_of(later.got()) == 200
        for peer in lb.servers:
            if peer is not own and not peer.transport.is_lost:
                peer.send(ok())


def is_of(lb: FakeLb, peer: Peer, name: str) -> bool:
    return bool(peer.transport.get_extra_info("peername")[1] == int(name.rpartition(":")[2]))


def test_a_client_of_http_2_gets_and_brings_cookies() -> None:
    with FakeLb(config(STICKY)) as lb:
        client = Http2Client(lb)
        first = client.begin()
        lb.accept().send(ok())
        client.carry()
        field = client.answer(first).fields["set-cookie"]
        assert field.startswith("lb=") and field.endswith("; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax")
        server = lb.log[-1]["server"]
        second = client.begin("GET", "/b", f"cookie: {field.partition(';')[0]}")
        lb.servers[-1].send(ok())
        client.carry()
        assert client.answer(second).status == 200 and "set-cookie" not in client.answer(second).fields
        assert lb.log[-1]["server"] == server
