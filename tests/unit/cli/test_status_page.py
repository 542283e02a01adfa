"""What people see of a pool in many states, on terminals of different widths."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbproxy.cli.status_page import page

Server = dict[str, object]


def server(name: str, state: str = "up", **fields: object) -> Server:
    made: Server = {
        "name": name,
        "address": name,
        "admin": "ready",
        "health": "up",
        "breaker": "closed",
        "state": state,
        "why": "",
        "since": 61.0,
        "weight": 1,
        "inflight": 0,
        "max_inflight": None,
        "requests": 1234,
        "errors": 0,
        "latency": 0.0123,
        "used": state == "up",
        "was_up": True,
    }
    return {**made, **fields}


def status(*servers: Server, **pool: object) -> dict[str, object]:
    made: dict[str, object] = {"name": "predict", "strategy": "random", "usable": 1, "servers": list(servers), **pool}
    return {
        "version": "0.1.0",
        "uptime": 61.2,
        "reason": None,
        "listeners": [{"name": "main", "mode": "http", "connections": 7, "bind": ["0.0.0.0:5000"]}],
        "pools": [made],
    }


MANY = status(
    server("10.0.0.7:5001", why="answered 200 to GET /health", max_inflight=2, inflight=2),
    server("10.0.0.7:5002", "busy", why="no answer within 2 s", health="busy", used=True, since=3.0),
    server("10.0.0.7:5003", "down", why="answered 503 to GET /health, expected 200-399", health="down"),
    server("10.0.0.7:5004", "down", why="answered 404 to GET /health", health="down", was_up=False, since=7200.0),
    server("10.0.0.7:5005", "ejected", why="ejected 3 s ago: 5 consecutive resets, next probe in 7 s", penalty=2.0),
    server("10.0.0.7:5006", why="answered 200 to GET /health", penalty=28.0, quarantined=1),
    server("10.0.0.7:5007", why="not checked yet", health="unknown", since=None, latency=0.0),
    server("10.0.0.7:5008", slower=True, ramp=0.25, backup=True, used=False),
    server("gone.example:80", "unresolved", why="gone.example: Name or service not known", weight=None, latency=0),
    usable=4,
    standby=1,
    queue={"depth": 3, "size": 1024, "oldest": 0.41, "newest_first": True, "timeout": 10.0},
    ejected=1,
    max_ejected=4,
)


def test_what_explains_a_decision_is_on_the_page() -> None:
    assert page(MANY, width=80).splitlines() == [
        "lbproxy 0.1.0, up 61 s: ready",
        "listener main (http): client connections 7",
        "",
        "pool predict (random): 4 of 9 usable, 1 stand by",
        "  queue: 3 of 1024 waiting, the oldest for 0.4 s; the newest goes first while",
        "    the queue stands",
        "  ejected: 1 of at most 4 servers",
        "SERVER           STATE       SINCE  IN FLIGHT  REQUESTS  ERRORS  LATENCY",
        "10.0.0.7:5001    up           61 s        2/2      1234       0  12.3 ms",
        "10.0.0.7:5002    busy        3.0 s          0      1234       0  12.3 ms",
        "    no answer within 2 s",
        "10.0.0.7:5003    down         61 s          0      1234       0  12.3 ms",
        "    answered 503 to GET /health, expected 200-399",
        "10.0.0.7:5004    down          2 h          0      1234       0  12.3 ms",
        "    answered 404 to GET /health; it never was up",
        "10.0.0.7:5005    ejected      61 s          0      1234       0  12.3 ms",
        "    ejected 3 s ago: 5 consecutive resets, next probe in 7 s",
        "10.0.0.7:5006    up           61 s          0      1234       0  12.3 ms",
        "    failed lately: used last for 28 s; 1 slot used last: given up, maybe still",
        "      at work",
        "10.0.0.7:5007    up              -          0      1234       0        -",
        "    not checked yet",
        "10.0.0.7:5008    up           61 s          0      1234       0  12.3 ms",
        "    backup; slower than the others: used last; slow start: 25% of its share",
        "gone.example:80  unresolved   61 s          0      1234       0        -",
        "    gone.example: Name or service not known",
    ]


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    for is_verbose in (False, True) if width >= 100 else (False,):
        assert max(map(len, page(MANY, width=width, is_verbose=is_verbose).splitlines())) <= width


def test_where_it_fits_the_reason_stands_beside() -> None:
    well = server("127.0.0.1:5001", inflight=3, why="accepts connections")
    down = server("127.0.0.1:5002", "down", health="down", why="connection refused", latency=0.0)
    for width in (120, None):
        assert page(status(well, down), width=width).splitlines()[4:] == [
            "SERVER          STATE  SINCE  IN FLIGHT  REQUESTS  ERRORS  LATENCY  WHY",
            "127.0.0.1:5001  up      61 s          3      1234       0  12.3 ms  accepts connections",
            "127.0.0.1:5002  down    61 s          0      1234       0        -  connection refused",
        ]


def test_columns_that_say_nothing_are_left_out() -> None:
    named = page(status(server("a", address="10.0.0.1:80"), server("b", weight=3))).splitlines()
    assert " ".join(named[4].split()) == "SERVER ADDRESS STATE SINCE WEIGHT IN FLIGHT REQUESTS ERRORS LATENCY WHY"
    assert "ADDRESS" in page(status(server("a")), is_verbose=True)


def test_fail_open_says_who_is_used_all_the_same() -> None:
    text = page(
        status(
            server("a", "down", health="down", why="answered 500", used=True),
            server("b", "down", health="down", why="answered 500", used=False, was_up=False),
            failing_open=True,
        )
    )
    assert "  fails open: too few servers pass their checks, so those that were up are used all the same" in text
    assert "answered 500; used all the same, as the pool fails open" in text
    assert "answered 500; it never was up" in text


def test_a_pool_that_is_not_ready_says_why() -> None:
    text = page(status(server("a"), reason="waits for a server to pass its first check"))
    assert "  not ready: it waits for a server to pass its first check" in text


def test_all_that_is_known_is_one_flag_away() -> None:
    text = page(
        status(
            server("a", idle_timeout={"announced": 2.0, "learned": None}, requests_per_connection=100),
            names=[
                {"host": "model.example", "addresses": 2, "why": "no answer within 2 s", "since": 30.0},
                {"host": "gone.example", "addresses": 0, "why": "no such name", "since": 300.0},
                {"host": "good.example", "addresses": 1, "why": "", "since": 9.0},
            ],
            queue={"depth": 0, "size": 1024, "timeout": 10.0},
            ejected=0,
            max_ejected=1,
        ),
        is_verbose=True,
    ).splitlines()
    assert text[1:8] == [
        "listener main (http): client connections 7, bound to 0.0.0.0:5000",
        "",
        "pool predict (random): 1 of 1 usable",
        "  queue: 0 of 1024 waiting; each for at most 10 s",
        "  ejected: 0 of at most 1 servers",
        "  name model.example: 2 addresses; for 30 s: no answer within 2 s, the last good answer stays in use",
        "  name gone.example: no address; for 5 min: no such name",
    ]
    assert text[8] == "  name good.example: 1 address"
    assert text[-1] == (
        "    admin ready, health up, breaker closed; closes idle connections after 2.0 s (as it says); "
        "closes connections after 100 requests"
    )


def test_what_the_kind_of_a_pool_sets_is_shown_with_v() -> None:
    told = status(server("a"), kind="uvicorn", kind_settings={"keep_alive.idle_timeout": "4s", "max_inflight": "off"})
    line = "  kind uvicorn: keep_alive.idle_timeout 4s, max_inflight off"
    assert line in page(told, is_verbose=True).splitlines()
    assert "kind" not in page(told)
    assert "  kind new: " in page(status(kind="new", kind_settings=[]), is_verbose=True).splitlines()


def test_an_answer_of_another_version_is_shown_as_far_as_it_goes() -> None:
    assert page({"reason": "draining", "pools": [{"servers": "?"}, 7], "listeners": None}).splitlines()[0] == (
        "lbproxy -: draining"
    )
    assert page({"pools": [{"name": "p", "servers": [{}]}]}).splitlines()[4].split()[:3] == ["-", "-", "-"]


@pytest.mark.parametrize(
    "found",
    [
        {"pools": 5, "listeners": "x"},
        {"pools": [{"servers": [{"latency": "x", "weight": [], "name": {}, "max_inflight": "many", "since": "x"}]}]},
        {"uptime": float("inf"), "version": None, "reason": ["x"]},
        {"uptime": float("nan"), "pools": [{"servers": [{"latency": float("nan")}, 5, None], "queue": 7}]},
        {"listeners": [{"name": "\ud800", "connections": 1e308}], "pools": [{"queue": {"depth": []}}]},
    ],
)
def test_an_answer_of_any_shape_is_a_page(found: dict[str, object]) -> None:
    for is_verbose in (False, True):
        assert page(found, width=80, is_verbose=is_verbose).startswith("lbproxy ")


def test_the_manual_shows_what_is_printed() -> None:
    manual = (Path(__file__).parents[3] / "docs/cli.md").read_text().partition("## `lbproxy status`")[2]
    shown = manual.split("```")[1].strip("\n").splitlines()
    made = status(
        server("10.0.0.7:5001", max_inflight=2, inflight=2),
        server(
            "10.0.0.7:5002",
            max_inflight=2,
            inflight=2,
            requests=1198,
            errors=3,
            latency=0.014,
            penalty=2.8,
        ),
        server(
            "10.0.0.7:5003",
            "ejected",
            why="ejected 3 s ago: 5 consecutive answers 503, next probe in 7 s",
            since=3.0,
            max_inflight=2,
            requests=402,
            errors=5,
            latency=0.0,
        ),
        server(
            "gone.example:80",
            "unresolved",
            why="gone.example: Name or service not known",
            weight=None,
            requests=0,
            latency=0.0,
        ),
        strategy="least_connections",
        usable=2,
        queue={"depth": 3, "size": 1024, "oldest": 0.2, "newest_first": False, "timeout": 10.0},
        ejected=1,
        max_ejected=2,
    )
    made["listeners"] = [{"name": "0.0.0.0:5000", "mode": "http", "connections": 7, "bind": ["0.0.0.0:5000"]}]
    assert page(made, width=80).splitlines() == shown


def test_what_does_not_come_from_the_file_is_told_with_v() -> None:
    file = {"source": "file", "by": None, "since": 61.0, "given": None}
    live = {"source": "live", "by": "ci from 10.0.0.1", "since": 180.0}
    sources = {"admin": {**live, "given": "ready"}, "weight": file, "max_inflight": {**live, "given": None}}
    changed = server("a", "drain", admin="drain", max_inflight=3, source="file", leaving=True, sources=sources)
    added = server("b", source="live", leaving=False, sources={key: {**live, "given": None} for key in sources})
    shown = page(status(changed, added, server("c", source="dns")), is_verbose=True)
    assert (
        "goes when it is idle; admin drain set by ci from 10.0.0.1 3 min ago (file: ready); "
        "max_inflight 3 set by ci from 10.0.0.1 3 min ago (file: off)\n"
    ) in shown
    assert "breaker closed; added live\n" in shown and shown.endswith("breaker closed; from DNS")
    assert "set by" not in page(status(changed))


def test_servers_of_another_zone_say_so() -> None:
    shown = page(status(server("a", far=True, zone="eu-central-1b", used=False)))
    assert shown.endswith("in another zone, eu-central-1b")
    shown = page(status(server("a", far=True, zone="eu-central-1b", used=True)))
    assert shown.endswith("in another zone, eu-central-1b, in use")


def test_the_sources_of_servers_are_shown_on_request() -> None:
    known = status(server("a", source="servers_file"))
    pools = known["pools"]
    assert isinstance(pools, list)
    pools[0]["discovery"] = [
        {"source": "servers_file:a.yaml", "servers": 1, "age": 0.4, "error": None},
        {"source": "srv:_p._tcp.x", "servers": 2, "age": 300.0, "error": "no answer within 3 s"},
        {"source": "aws:asg:a", "servers": 7, "age": 1.0, "error": "e", "says": {f"h:{n}": "bad" for n in range(7)}},
        {"source": "dns:gone", "servers": 0, "age": None, "error": "no such name"},
    ]
    assert "source" not in page(known)
    shown = page(known, is_verbose=True)
    assert "  source servers_file:a.yaml: 1 server, seen 0.4 s ago\n" in shown
    assert "  source srv:_p._tcp.x: 2 servers, seen 5 min ago; no answer within 3 s\n" in shown
    assert "  source dns:gone: 0 servers, no answer yet; no such name\n" in shown
    verdicts = "h:0 bad, h:1 bad, h:2 bad, h:3 bad, h:4 bad and 2 more"
    assert f"aws:asg:a: 7 servers, seen 1.0 s ago; it says, which is not gone by: {verdicts}; e\n" in shown
    assert shown.endswith("from the servers_file")
    assert page(status(server("a", source="kubernetes")), is_verbose=True).endswith("from Kubernetes")


def test_a_state_file_is_shown_where_it_fails_and_on_request() -> None:
    told = {**status(server("a")), "state_file": {"path": "/s.json", "age": 3.0, "error": None}}
    assert "/s.json" not in page(told)
    assert "state_file /s.json: written 3.0 s ago" in page(told, is_verbose=True)
    told["state_file"] = {"path": "/s.json", "age": None, "error": "Permission denied"}
    assert "state_file /s.json: cannot be written: Permission denied" in page(told)


def test_several_workers_have_a_line_each() -> None:
    row = {
        "worker": 1,
        "state": "serving",
        "connections": 7,
        "cpu_seconds": 12.4,
        "memory_bytes": 31 << 20,
        "restarts": 0,
    }
    gone = {"worker": 2, "state": "down", "connections": 0, "cpu_seconds": None, "memory_bytes": None, "restarts": 1}
    lines = page({**status(server("a")), "workers": [row, gone]}).splitlines()
    assert lines[1:3] == [
        "worker 1: serving, client connections 7, CPU 12 s, memory 31 MiB",
        "worker 2: down, client connections 0, replaced 1 time",
    ]


def test_splits_are_shown_with_who_changed_them() -> None:
    pools = [
        {"pool": "stable", "share": 90, "ratio": 0.9, "file": 95},
        {"pool": "canary", "share": 10, "ratio": 0.1, "file": 5},
    ]
    plain = {"listener": "web", "route": 0, "name": None, "by": None, "pools": pools, "live": None}
    live = {**plain, "name": "chat", "by": "client_ip", "live": {"by": "alice", "since": 3.2}}
    shown = page({**status(), "splits": [plain, live]}).splitlines()
    assert "split web/0 (by chance): stable 90 %, canary 10 %" in shown
    assert (
        "split web/chat (by client_ip): stable 90 %, canary 10 %; set by alice 3.2 s ago, the file says stable 95, "
        "canary 5"
    ) in shown


def test_rate_limits_are_shown_where_they_refuse_and_on_request() -> None:
    limit = {"name": "n", "key": "client_ip", "rate": 0.5, "burst": 4, "store": "local", "limited": 0, "open": 0}
    told = {**status(server("a")), "rate_limits": [limit]}
    assert "rate limit" not in page(told)
    assert "rate limit n: 0.5/s by client_ip, burst 4, local; 0 refused\n" in page(told, is_verbose=True)
    told["rate_limits"] = [{**limit, "limited": 7, "open": 2}]
    assert "local; 7 refused, 2 let through without an answer of Redis\n" in page(told)


def test_a_pool_that_speaks_http_2_says_so() -> None:
    told = status(server("a", connections={"active": 2, "idle": 1}), protocol="h2")
    shown = page(told, is_verbose=True)
    assert "pool predict (random, h2): " in shown
    assert "connections: 2 with requests, 1 idle" in shown
    assert "h2" not in page(status(server("a", connections=None), protocol="h1"), is_verbose=True)


@pytest.mark.parametrize(
    ("latency", "age", "shown"),
    [(0.0123, 59.0, "12.3 ms"), (0.0123, 300.0, "12.3 ms, 5 min ago"), (0.0, None, "-"), (0.0123, None, "12.3 ms")],
)
def test_a_latency_of_the_past_says_so(latency: float, age: float | None, shown: str) -> None:
    line = page(status(server("10.0.0.7:5001", latency=latency, latency_age=age))).splitlines()[-1]
    assert line.endswith(f"  {shown}")
