"""Routes that are known only when the body is, and splits: where requests go, and what they are to everybody else."""

from __future__ import annotations

import pytest

from lbproxy.protocol.json_value import LIMIT
from lbproxy.telemetry.slots import ROUTE
from tests.support.fake_transport import FakeLb, answered, body_of, ok, post, status_of
from tests.support.http2_client import Http2Client

PORTS = {"llama": 9001, "qwen": 9002, "other": 9003, "get": 9004}


def config(routes: str, *, top: str = "", listener: str = "") -> str:
    text = "".join(
        f'  {name}: {{servers: ["127.0.0.1:{port}", "127.0.0.2:{port}"], health_check: off}}\n'
        for name, port in PORTS.items()
    )
    return f"""
access_log: {{path: /dev/null}}
{top}
listeners:
  - name: web
    bind: "127.0.0.1:5000"
    {listener}
    routes:
{routes}
pools:
{text}"""


BY_MODEL = config(
    """
      - {name: llama, match: {path_prefix: /v1, json: {/model: "llama-*"}}, pool: llama}
      - {name: qwen, match: {methods: POST, json: {/model: "qwen*", /stream: true}}, pool: qwen}
      - {match: {methods: GET}, pool: get}
      - {pool: other}
"""
)


def pool_of(lb: FakeLb, request: bytes, *pieces: bytes) -> str:
    """Which pool gets a request, on a connection of its own."""
    client = lb.connect()
    client.send(request, *pieces)
    answered(lb, client)
    return str(lb.log[-1]["pool"])


def chunked(body: bytes, *, step: int = 1, target: str = "/v1") -> bytes:
    pieces = [body[at : at + step] for at in range(0, len(body), step)]
    head = f"POST {target} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


# --- routes by the body -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "body", "pool"),
    [
        ("/v1/chat", b'{"model": "llama-3"}', "llama"),
        ("/v1/chat", b'{"messages": [{"model": "qwen"}], "model": "llama-3", "stream": true}', "llama"),
        ("/v2/chat", b'{"model": "llama-3"}', "other"),
        ("/v1/chat", b'{"model": "qwen2", "stream": true}', "qwen"),
        ("/v1/chat", b'{"stream": true, "model": "qwen2"}', "qwen"),
        ("/v1/chat", b'{"model": "qwen2", "stream": false}', "other"),
        ("/v1/chat", b'{"model": "qwen2"}', "other"),
        ("/v1/chat", b'{"model": "llama-3", "model": "qwen2"}', "other"),
        ("/v1/chat", b'{"model": "llama-3"', "other"),
        ("/v1/chat", b"model=llama-3", "other"),
        ("/v1/chat", b"", "other"),
    ],
)
def test_the_first_route_that_matches_has_it_however_it_comes(target: str, body: bytes, pool: str) -> None:
    with FakeLb(BY_MODEL) as lb:
        request = post(body, target=target)
        assert pool_of(lb, request) == pool
        for cut in range(len(request) - len(body), len(request)):
            assert pool_of(lb, request[:cut], request[cut:]) == pool
        if body:
            assert pool_of(lb, chunked(body, target=target)) == pool  # an octet in each
        assert set(lb.ends) == {"ok"}


def test_the_server_gets_the_whole_body_and_the_route_is_known_before_its_end() -> None:
    with FakeLb(BY_MODEL) as lb:
        client = lb.connect()
        whole = b'{"model": "llama-3"}' + b" " * 100_000
        request = post(whole, target="/v1")
        at = len(request) - len(whole)
        client.send(request[: at + 10])
        assert not lb.loop.dials, "nobody is asked before the route is known"
        client.send(request[at + 10 : at + 40])
        server = lb.accept()
        assert server.got().endswith(request[at : at + 40])
        client.send(request[at + 40 :])
        assert len(server.everything) > 100_000
        server.send(ok())
        assert status_of(client.got()) == 200
        assert lb.log[-1]["bytes_in"] == len(whole)


def test_a_document_that_does_not_end_is_looked_at_up_to_the_limit() -> None:
    with FakeLb(BY_MODEL) as lb:
        client = lb.connect()
        request = post(b'{"model": "llama-3", "prompt": "' + b"x" * (3 * LIMIT), target="/v1")
        client.send(request[: LIMIT - 1000])
        assert not lb.loop.dials
        client.send(request[LIMIT - 1000 : LIMIT + 1000])
        server = lb.accept()
        client.send(request[LIMIT + 1000 :])
        assert server.got().endswith(b"x" * LIMIT)
        server.send(ok())
        assert status_of(client.got()) == 200
        assert lb.log[-1]["pool"] == "llama"


def test_bodies_that_no_route_asks_for_are_not_waited_for() -> None:
    with FakeLb(BY_MODEL) as lb:
        client = lb.connect()
        client.send(b"GET /v1 HTTP/1.1\r\nHost: h\r\nContent-Length: 50\r\n\r\n")
        assert not lb.loop.dials, "the first route takes any method"
        client.send(b"x" * 50)
        lb.accept()
        answered(lb, client)
        assert lb.log[-1]["pool"] == "get"
        client.send(b"PUT /v2 HTTP/1.1\r\nHost: h\r\nContent-Length: 50\r\n\r\n")
        assert len(lb.loop.dials) == 1, "neither of them takes it, whatever it brings"
        lb.accept()


def test_without_a_route_that_takes_it_a_request_is_404_and_not_before_its_body_says_so() -> None:
    with FakeLb(config('      - {match: {json: {/model: "*"}}, pool: llama}')) as lb:
        assert pool_of(lb, post(b'{"model": 7}')) == "llama"
        client = lb.connect()
        request = post(b'{"model": null}')
        client.send(request[:-1])
        assert client.got() == b""
        client.send(request[-1:])
        assert status_of(client.got()) == 404
        client.send(post(b""))
        assert status_of(client.got()) == 404
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert status_of(client.got()) == 404
        assert lb.ends[1:] == ["no_route"] * 3


def test_routes_by_body_may_answer_or_redirect() -> None:
    routes = """
      - {match: {json: {/model: old}}, respond: {status: 410, body: gone}}
      - {match: {json: {/model: moved}}, redirect: {status: 308, location: "https://new.example.org{path}"}}
      - {match: {json: {/model: path}}, rewrite: {strip_prefix: /a, path_prefix: /b}, pool: llama}
      - {pool: other}
"""
    with FakeLb(config(routes)) as lb:
        client = lb.connect()
        request = post(b'{"model": "old"}' + b" " * 100)
        client.send(request[:-100])
        got = client.got()
        assert (status_of(got), body_of(got)) == (410, b"gone")
        client = lb.connect()
        client.send(post(b'{"model": "moved"}'))
        got = client.got()
        assert status_of(got) == 308 and b"\r\nLocation: https://new.example.org/a\r\n" in got
        client = lb.connect()
        client.send(post(b'{"model": "path"}'))
        server = lb.accept()
        assert server.got().startswith(b"POST /b HTTP/1.1\r\n")
        server.send(ok())


def test_a_client_that_waits_to_be_asked_for_its_body_is_asked() -> None:
    with FakeLb(BY_MODEL) as lb:
        client = lb.connect()
        data = b'{"model": "llama-3"}'
        client.send(post(data, "Expect: 100-continue", target="/v1")[: -len(data)])
        assert client.got() == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(data)
        server = lb.accept()
        assert b"expect" not in server.got().lower()
        server.send(ok())
        assert status_of(client.got()) == 200


def test_a_retry_goes_by_the_same_route() -> None:
    with FakeLb(BY_MODEL) as lb:
        client = lb.connect()
        client.send(post(b'{"model": "llama-3"}', target="/v1"))
        assert retried_at(lb) == {9001}
        assert status_of(client.got()) == 200
        assert (lb.log[-1]["pool"], lb.log[-1]["attempts"]) == ("llama", 2)


def port_of(lb: FakeLb) -> int:
    """Of the server that is being dialled."""
    return int(str(lb.loop.dials[0].address).rpartition(", ")[2].rstrip(")"))


def retried_at(lb: FakeLb) -> set[int]:
    """The ports of a try that fails, and of the next one."""
    ports = {port_of(lb)}
    lb.loop.dials[0].fail(113)
    lb.loop.run()
    if not lb.loop.dials:
        lb.advance(0.3)
    ports.add(port_of(lb))
    lb.accept().send(ok())
    return ports


def test_a_body_that_waits_for_its_route_counts_as_buffered_and_ends_with_its_client() -> None:
    with FakeLb(BY_MODEL) as lb:
        client = lb.connect()
        client.send(post(b" " * 100_000, target="/v1")[: 100 + 40_000])
        assert lb.services.pressure.buffered >= 39_000
        client.reset()
        assert lb.ends == ["client_abort"]
        assert lb.services.pressure.buffered == 0


def test_short_of_memory_a_request_is_refused_and_not_led_elsewhere() -> None:
    with FakeLb(BY_MODEL) as lb:
        client = lb.connect()
        request = post(b'{"model": "llama-3", ' + b" " * 1000, target="/v1")
        client.send(request[:-500])
        lb.services.pressure.is_holding = True
        client.send(request[-500:-400])
        lb.services.pressure.is_holding = False
        assert status_of(client.got()) == 503
        assert lb.ends == ["overloaded"]


def test_what_is_refused_for_want_of_memory_is_refused_before_its_route_is_known() -> None:
    for routes in ("      - {match: {json: {/model: x}}, respond: {status: 204}}", "      - {split: {llama: 1}}"):
        with FakeLb(config(routes)) as lb:
            lb.services.pressure.is_refusing = True
            client = lb.connect()
            client.send(post(b'{"model": "x"}'))
            assert status_of(client.got()) == 503
            assert lb.ends == ["overloaded"]
            lb.services.pressure.is_refusing = False


def test_a_body_that_does_not_come_is_408() -> None:
    with FakeLb(
        config('      - {match: {json: {/model: "*"}}, pool: llama}', listener="timeouts: {request_body: 2s}")
    ) as lb:
        client = lb.connect()
        client.send(post(b'{"model": "llama-3"}')[:-5])
        lb.advance(3.0)
        assert status_of(client.got()) == 408


def test_a_deadline_holds_while_the_route_is_not_known() -> None:
    top = "trusted_proxies: [192.0.2.0/24]"
    with FakeLb(config('      - {match: {json: {/model: "*"}}, pool: llama}', top=top)) as lb:
        client = lb.connect()
        client.send(post(b'{"model": "llama-3"}', "X-Request-Timeout: 1s")[:-5])
        lb.advance(2.0)
        assert status_of(client.got()) == 504
        client = lb.connect()
        client.send(post(b'{"model": "llama-3"}', "X-Request-Timeout: 5s"))
        lb.accept()
        lb.advance(6.0)
        assert status_of(client.got()) == 504


def test_a_body_that_is_too_long_is_refused_before_it_comes() -> None:
    with FakeLb(config('      - {match: {json: {/m: "*"}}, pool: llama}', listener="limits: {body_bytes: 10}")) as lb:
        client = lb.connect()
        client.send(post(b'{"m": "llama-3"}')[:-5])
        assert status_of(client.got()) == 413


def test_requests_of_http2_too() -> None:
    with FakeLb(BY_MODEL) as lb:
        client = Http2Client(lb)
        number = client.begin("POST", "/v1", body=b'{"model": "llama-3"}')
        lb.accept().send(ok())
        client.carry()
        assert client.answer(number).status == 200
        number = client.begin("POST", "/v1")
        client.data(number, b'{"model": "qw')
        assert not lb.loop.dials
        client.data(number, b'en", "stream": true}', is_end=True)
        server = lb.accept()
        assert server.got().endswith(b'{"model": "qwen", "stream": true}\r\n0\r\n\r\n')
        server.send(ok())
        client.carry()
        assert client.answer(number).status == 200
        assert [entry["pool"] for entry in lb.log] == ["llama", "qwen"]


def test_http2_gives_its_windows_back_while_the_route_is_not_known() -> None:
    with FakeLb(BY_MODEL) as lb:
        client = Http2Client(lb)
        number = client.begin("POST", "/v1")
        data = b'{"model": "llama-3", "prompt": "' + b"x" * (2 * LIMIT) + b'"}'
        sent = 0
        while sent < len(data) and not lb.loop.dials:
            taken = client.data(number, data[sent : sent + 16_000])
            assert taken, f"after {sent} bytes it waits for a window"
            sent += taken
        server = lb.accept()
        while sent < len(data):
            taken = client.data(number, data[sent : sent + 16_000], is_end=sent + 16_000 >= len(data))
            assert taken
            sent += taken
        server.send(ok())
        client.carry()
        assert client.answer(number).status == 200
        assert lb.log[-1]["pool"] == "llama"


def test_routes_with_names_are_counted_by_these() -> None:
    with FakeLb(BY_MODEL) as lb:
        for model in ("llama-3", "llama-4", "qwen"):
            pool_of(lb, post(b'{"model": "%b", "stream": true}' % model.encode(), target="/v1"))
        pool_of(lb, post(b"{}", target="/v1"))
        counted = [
            None if route.named is None else route.named[ROUTE.column("route_requests_total", "2xx")]
            for route in lb.listener.runtime.routes
        ]
        assert counted == [2, 1, None, None]
        llama = lb.listener.runtime.routes[0].named
        assert llama is not None
        first = ROUTE.offset["route_request_duration_seconds"]
        assert sum(llama[first : first + 17]) == 2


def test_a_head_that_comes_again_is_not_led_where_the_one_before_went() -> None:
    with FakeLb(BY_MODEL) as lb:
        client = lb.connect()
        for model, pool in (("llama-3", "llama"), ("qwen-33", "qwen"), ("gpt-4-x", "other")) * 4:
            client.send(post(b'{"model": "%b", "stream": true}' % model.encode(), target="/v1"))
            answered(lb, client)
            assert lb.log[-1]["pool"] == pool


# --- splits -----------------------------------------------------------------------------------------------------------


def counts(lb: FakeLb, n: int, *fields: str, body: bytes = b"") -> dict[str, int]:
    found: dict[str, int] = {}
    for number in range(n):
        pool = pool_of(lb, post(body, *[field.format(number) for field in fields]))
        found[pool] = found.get(pool, 0) + 1
    return found


def test_a_split_by_request_goes_by_chance_in_proportion() -> None:
    with FakeLb(config("      - {split: {llama: 3, qwen: 1}}")) as lb:
        found = counts(lb, 160)
        assert set(found) == {"llama", "qwen"}
        assert 20 <= found["qwen"] <= 65


def test_a_live_share_holds_for_the_next_request() -> None:
    with FakeLb(config("      - {split: {llama: 1, qwen: 0}}")) as lb:
        assert counts(lb, 20) == {"llama": 20}
        split = lb.listener.runtime.routes[0].split
        assert split is not None
        split.set((0, 1))
        assert counts(lb, 20) == {"qwen": 20}
        split.set(())
        assert counts(lb, 20) == {"llama": 20}


@pytest.mark.parametrize(
    ("key", "field"),
    [("header:X-User", "X-User: u{}"), ("cookie:sid", "Cookie: sid=u{}"), ("json:/user", "")],
)
def test_a_split_by_key_keeps_together_what_has_the_same(key: str, field: str) -> None:
    with FakeLb(config(f"      - {{split: {{by: '{key}', pools: {{llama: 1, qwen: 1}}}}}}")) as lb:
        seen = set()
        for user in range(12):
            fields = [field.format(user)] if field else []
            body = b'{"pad": "%b", "user": "u%d", "x": ' % (b"x" * 100, user) if not field else b""
            request = post(body, *fields)
            pools = {pool_of(lb, request) for _ in range(3)} | {pool_of(lb, request[:-9], request[-9:])}
            assert len(pools) == 1
            seen |= pools
        assert seen == {"llama", "qwen"}
        assert len(counts(lb, 40)) == 2, "without a key chance decides"


def test_a_client_has_its_pool() -> None:
    with FakeLb(config("      - {split: {by: client_ip, pools: {llama: 1, qwen: 1}}}")) as lb:
        assert len(counts(lb, 20)) == 1


def test_each_pool_of_a_split_has_its_own_rules() -> None:
    text = config("      - {split: {llama: 1, qwen: 0}, headers: {request: {set: {X-All: a}}}}")
    text = text.replace('0.2:9001"]', '0.2:9001"], headers: {request: {set: {X-Pool: stable}}}')
    text = text.replace('0.2:9002"]', '0.2:9002"], headers: {request: {set: {X-Pool: canary}}}')
    with FakeLb(text) as lb:
        split = lb.listener.runtime.routes[0].split
        assert split is not None
        for shares, name in (((1, 0), b"stable"), ((0, 1), b"canary")):
            split.set(shares)
            client = lb.connect()
            client.send(post())
            server = lb.accept()
            got = server.got()
            assert b"\r\nX-Pool: %b\r\n" % name in got and b"\r\nX-All: a\r\n" in got
            server.send(ok())


def test_a_split_behind_a_condition_on_the_body() -> None:
    routes = """
      - {name: llama, match: {json: {/model: "llama*"}}, split: {by: "json:/user", pools: {llama: 1, qwen: 1}}}
      - {pool: other}
"""
    with FakeLb(config(routes)) as lb:
        seen = set()
        for user in range(12):
            body = b'{"user": "u%d", "model": "llama"}' % user
            pools = {pool_of(lb, post(body)) for _ in range(3)} | {pool_of(lb, chunked(body, step=5))}
            assert len(pools) == 1
            seen |= pools
        assert seen == {"llama", "qwen"}
        assert pool_of(lb, post(b'{"user": "u1", "model": "gpt"}')) == "other"


def test_a_retry_stays_in_its_pool() -> None:
    seen = set()
    for shares in ("{llama: 1, qwen: 0}", "{llama: 0, qwen: 1}", "{by: client_ip, pools: {llama: 1, qwen: 1}}"):
        with FakeLb(config(f"      - {{split: {shares}}}")) as lb:
            client = lb.connect()
            client.send(post())
            ports = retried_at(lb)
            assert len(ports) == 1
            seen |= ports
            assert status_of(client.got()) == 200
    assert seen == {9001, 9002}


def test_upgrades_and_requests_of_http2_are_split_too() -> None:
    with FakeLb(config("      - {split: {llama: 0, qwen: 1}}")) as lb:
        client = Http2Client(lb)
        number = client.begin("GET", "/v1")
        lb.accept().send(ok())
        client.carry()
        assert client.answer(number).status == 200
        assert lb.log[-1]["pool"] == "qwen"
        peer = lb.connect()
        peer.send(b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        server = lb.accept() if lb.loop.dials else lb.servers[-1]
        assert b"\r\nUpgrade: websocket\r\n" in server.got()
        server.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert status_of(peer.got()) == 101
        peer.send(b"ping")
        assert server.got() == b"ping"
