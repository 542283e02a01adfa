"""What would come of a request, and what is said where something else was expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbproxy.config.loader import load_text
from lbproxy.process import trials
from lbproxy.process.trials import Found, Result

HTTP = """\
trusted_proxies: [10.0.0.0/8]
listeners:
  - bind: ':1'
    name: web
    methods: [GET, POST, TRACK]
    routes:
      - {match: {path_prefix: /beta}, pool: one, rewrite: {strip_prefix: /beta, path_prefix: /v2}}
      - {match: {path: /old}, redirect: {status: 301, location: 'https://{host}{path}{query}'}}
      - {match: {headers: {x-forwarded-proto: http}}, redirect: {location: 'https://a.example/'}}
      - {match: {host: fixed.example}, respond: {status: 204}}
      - {match: {path_prefix: /api}, pool: many}
    limits: {body_bytes: 10}
  - {bind: ':2', name: db, mode: tcp, pool: one}
pools:
  one: {servers: [{address: 'not-known.example:80', name: only}]}
  many:
    servers: [127.0.0.1:5001-5003, {address: 'unix:/run/spare', name: spare, backup: true}]
    max_inflight: 2
    strategy: STRATEGY
    queue: {size: QUEUE}
"""


def tried(
    test: str, *, strategy: str = "least_connections", queue: int = 1, expect: str = "{pool: none}", folder: str = ""
) -> Result:
    text = HTTP.replace("STRATEGY", strategy).replace("QUEUE", str(queue))
    loaded = load_text(f"{text}tests: [{{{test}, expect: {expect}}}]\n", "lb.yaml", {})
    [result] = trials.run(loaded.config, base_dir=folder)
    return result


def found(request: str, given: str = "", **options: str | int) -> Found:
    strategy, queue = str(options.get("strategy", "least_connections")), int(options.get("queue", 1))
    return tried(f"request: {{listener: web, {request}}}, given: {{{given}}}", strategy=strategy, queue=queue).found


ALL = ("127.0.0.1:5001", "127.0.0.1:5002", "127.0.0.1:5003")


def test_the_path_is_what_the_server_gets() -> None:
    made = found("path: '//beta/%61?q=1'")
    assert (made.route, made.pool, made.servers, made.path, made.status) == (0, "one", ("only",), "/v2/a?q=1", None)
    assert found("path: /api/x").path == "/api/x"


@pytest.mark.parametrize(
    ("request_", "route", "status", "location", "said"),
    [
        ("path: '/old?a'", 1, 301, "https://localhost/old?a", "is redirected with 301 to https://localhost/old?a"),
        ("host: Fixed.example:80", 3, 204, "", "is answered with 204"),
        ("path: /else", None, 404, "", "is refused with 404: no route for GET /else"),
        ("path: /a/../b", None, 400, "", "is refused with 400: the path has a '..' segment"),
        ("path: /api, method: PUT", 4, 405, "", "is refused with 405: PUT is not among the methods of this listener"),
        ("path: /api, method: CONNECT", None, 405, "", "is refused with 405: CONNECT is not served"),
        (
            "path: /api, headers: {Content-Length: 11}",
            4,
            413,
            "",
            "is refused with 413: Content-Length 11 is over the limit of 10",
        ),
        (
            "path: /api, headers: {x-forwarded-proto: http}, client: 10.1.2.3",
            2,
            302,
            "https://a.example/",
            "is redirected with 302 to https://a.example/",
        ),
    ],
)
def test_what_lbproxy_answers_itself(request_: str, route: int | None, status: int, location: str, said: str) -> None:
    assert found(request_) == Found(route, status=status, location=location, said=said)


def test_forwarding_headers_are_believed_from_trusted_proxies_only() -> None:
    assert found("path: /api, headers: {x-forwarded-proto: http}").route == 4
    assert found("path: /api, client: unix, headers: {x-forwarded-proto: http}").route == 4


@pytest.mark.parametrize(
    ("given", "servers"),
    [
        ("", ALL),
        ("many/*1: down", ALL[1:]),
        ("many/*1: busy, many/*3: maint", ALL[:2]),
        ("many/127.*: drain, many/*2: up", ALL[1:2]),
        ("many/127.*: {inflight: 1}, many/*2: up", ALL[1:2]),
        ("many/127.*: full, many/*3: {inflight: 1}", ALL[2:]),
        ("many/127.*: ejected", ("spare",)),
        ("many/127.*: {state: busy, inflight: 1}", ALL),
        ("many/*: down", ALL),  # it fails open
        ("many/*: down, many/spare: refused, many/*3: refused", ALL[:2]),
    ],
)
def test_servers_that_a_request_may_go_to(given: str, servers: tuple[str, ...]) -> None:
    assert found("path: /api", given).servers == servers


@pytest.mark.parametrize("strategy", ["round_robin", "weighted_round_robin", "random", "power_of_two", "peak_ewma"])
def test_every_server_that_a_strategy_may_choose_is_found(strategy: str) -> None:
    assert found("path: /api", strategy=strategy).servers == ALL


def test_a_client_stays_with_its_server_and_its_address_is_that_behind_trusted_proxies() -> None:
    servers = {
        client: found(f"path: /api, client: 192.0.2.{client}", strategy="ip_hash").servers for client in range(4)
    }
    assert {len(names) for names in servers.values()} == {1} and len(set(servers.values())) > 1
    forwarded = "path: /api, client: 10.0.0.1, headers: {X-Forwarded-For: 192.0.2.%d}"
    assert {n: found(forwarded % n, strategy="ip_hash").servers for n in range(4)} == servers


@pytest.mark.parametrize(
    ("given", "queue", "status", "said"),
    [
        ("many/*: refused", 1, 503, "is refused with 503: no server of it is usable"),
        ("many/*: full", 1, None, "waits, as every server is at its limit"),
        ("many/*: full", 0, 503, "is refused with 503: every server is at its limit"),
    ],
)
def test_no_server(given: str, queue: int, status: int | None, said: str) -> None:
    assert found("path: /api", given, queue=queue) == Found(4, "many", status=status, path="/api", said=said)


def test_a_failing_open_pool_is_told() -> None:
    assert found("path: /beta", "one/only: down").said == "goes to only, as the pool fails open"


def test_tests_do_not_see_each_other() -> None:
    text = HTTP.replace("STRATEGY", "least_connections").replace("QUEUE", "1")
    busy, idle = (
        f"{{request: {{listener: web, path: /api}}, {given}expect: {{pool: many}}}}"
        for given in ("given: {many/*1: full, many/*2: drain}, ", "")
    )
    config = load_text(f"{text}tests: [{busy}, {idle}, {busy}]\n", "lb.yaml", {}).config
    results = trials.run(config, base_dir="")
    assert [result.found.servers for result in results] == [ALL[2:], ALL, ALL[2:]]
    assert [result.failures for result in results] == [()] * 3


def test_a_tcp_connection() -> None:
    result = tried("request: {listener: db}, given: {one/only: {inflight: 7}}", expect="{server: only}")
    assert result.failures == ()
    assert trials.story(result) == "a connection to db, route 0, pool one, goes to only"


def test_no_certificate_is_needed() -> None:
    text = """\
listeners: [{bind: ':1', pool: p, tls: {cert: missing.pem, key: missing.key}}]
pools: {p: {servers: ['a:1'], tls: {ca: missing.pem}, health_check: {type: http, tls: {ca: missing.pem}}}}
tests: [{request: /, expect: {server: 'a:1'}}]
"""
    [result] = trials.run(load_text(text, "lb.yaml", {}).config, base_dir="")
    assert result.failures == ()


def test_a_strategy_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "class Mine:\n def __init__(self, options, rng): pass\n def rebuild(self, servers): pass\n"
        " def pick(self, eligible, ctx, now):\n"
        "  if ctx.request.path == '/api/fails': raise KeyError('x')\n"
        "  return eligible[-1]\n"
    )
    own = {"strategy": "{python: 'mine.py:Mine'}", "folder": str(tmp_path), "expect": "{pool: many}"}
    assert tried("request: {listener: web, path: /api}", **own).found.servers == ALL[2:]  # type: ignore[arg-type]
    failed = tried("request: {listener: web, path: /api/fails}", **own)  # type: ignore[arg-type]
    assert failed.failures == (("server", "the strategy failed: KeyError: 'x'"),)
    with pytest.raises(ValueError, match=r"mine\.py"):
        tried("request: {listener: web}", strategy="{python: 'mine.py:Mine'}", folder=str(tmp_path / "elsewhere"))


@pytest.mark.parametrize(
    ("expect", "failures"),
    [
        ("{route: 4, pool: many, server: '127.0.0.1:500?', path: /api}", ()),
        ("{server: ['*1', '*2', '*3', spare]}", ()),
        ("{route: none}", (("route", "expected none, got 4"),)),
        ("{route: 0}", (("route", "expected 0, got 4"),)),
        ("{pool: one}", (("pool", "expected one, got many"),)),
        ("{pool: none}", (("pool", "expected none, got many"),)),
        ("{status: 503}", (("status", "expected 503, got none"),)),
        ("{location: /x}", (("location", "expected /x, got none"),)),
        ("{path: /}", (("path", "expected /, got /api"),)),
        ("{server: none}", (("server", f"expected none, got {ALL[0]}, {ALL[1]} or {ALL[2]}"),)),
        ("{server: ['*1', '*2']}", (("server", f"expected *1 or *2, got {ALL[0]}, {ALL[1]} or {ALL[2]}"),)),
    ],
)
def test_what_is_not_as_expected(expect: str, failures: tuple[tuple[str, str], ...]) -> None:
    assert tried("request: {listener: web, path: /api}", expect=expect).failures == failures


def test_no_server_is_not_one_of_those_expected() -> None:
    asked = "request: {listener: web, path: /api}, given: {many/*: refused}"
    assert tried(asked, expect="{server: spare}").failures == (("server", "expected spare, got none"),)
    assert tried(asked, expect="{server: none, status: 503, pool: many, route: 4}").failures == ()
    assert tried(asked, expect="{server: [none, spare]}").failures == ()


def test_a_first_route_is_not_no_route() -> None:
    assert tried("request: {listener: web, path: /beta}", expect="{route: 1}").failures == (
        ("route", "expected 1, got 0"),
    )


def test_a_list_of_names_is_short() -> None:
    assert [trials.one_of(["a", "b", "c", "d", "e", "f", "g"][:count]) for count in (1, 2, 5, 7)] == [
        "a",
        "a or b",
        "a, b, c, d or e",
        "a, b, c, d, e or 2 others",
    ]


def test_a_story_says_name_request_and_host() -> None:
    told = trials.story(tried("name: old paths, request: {listener: web, path: /old, host: a.example}"))
    assert told == ("old paths: GET /old of a.example, route 1, is redirected with 301 to https://a.example/old")


SPLIT = """\
listeners:
  - bind: ':9'
    routes:
      - {match: {json: {/model: 'llama-*'}}, pool: llama}
      - {match: {path: /key}, split: {by: 'query:u', pools: {stable: 1, canary: 1}}}
      - {split: {stable: 95, canary: 5, off: 0}}
pools:
  llama: {servers: [127.0.0.1:1]}
  stable: {servers: [127.0.0.1:2], strategy: {name: consistent_hash, key: 'json:/user'}}
  canary: {servers: [127.0.0.1:3]}
  off: {servers: [127.0.0.1:4]}
tests:
"""


def failed(request: str, expect: str) -> tuple[tuple[str, str], ...]:
    loaded = load_text(f"{SPLIT}  - {{request: {request}, expect: {expect}}}\n", "lb.yaml", {})
    [result] = trials.run(loaded.config, base_dir="")
    return result.failures


def test_the_body_of_a_test_says_where_it_goes() -> None:
    body = '{method: POST, body: \'{"model": "llama-3"}\'}'
    assert failed(body, "{route: 0, pool: llama, server: '127.0.0.1:1'}") == ()
    other = '{method: POST, body: \'{"model": "gpt", "user": "u1"}\'}'
    assert failed(other, "{route: 2, pool: stable, server: '127.0.0.1:2'}") == ()


def test_of_a_split_by_chance_every_pool_with_a_share_may_be_expected() -> None:
    for pool, server in (("stable", 2), ("canary", 3)):
        assert failed("/x", f"{{route: 2, pool: {pool}, server: '127.0.0.1:{server}'}}") == ()
    assert failed("/x", "{pool: off}") == (("pool", "expected off, got stable"),)


def test_a_split_by_key_has_one_pool() -> None:
    kept = [pool for pool in ("stable", "canary") if failed("'/key?u=7'", f"{{route: 1, pool: {pool}}}") == ()]
    assert len(kept) == 1
