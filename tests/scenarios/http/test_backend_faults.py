"""What a server may do wrong, one scenario each, through the real daemon."""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.origin import (
    FIN,
    RST,
    Origin,
    Peer,
    Script,
    black_hole_port,
    close_at_once,
    close_unanswered,
    refusing_port,
    reset_unanswered,
    silent,
    stalls_after,
    steps,
)
from tests.support.rig import SHORT_S, Rig, after_warm_up, first_only, get, post
from tests.support.waiting import wait_until
from tests.support.wire import Ended, Response

MIB = 1024 * 1024
OK_10 = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
OK_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
OK_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n"
OK_5 = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def assert_problem(answer: Response, status: int) -> None:
    assert answer.status == status
    assert answer.get("content-type") == "application/problem+json"


def assert_next_request_is_fine(rig: Rig, client: Client | None = None) -> Response:
    """Another request, on a new connection unless one is given, gets its own answer."""
    if client is None:
        with rig.client() as another:
            return assert_next_request_is_fine(rig, another)
    answer = client.ask(get("/next"))
    assert (answer.status, answer.body) == (200, b"GET /next 0\n")
    return answer


# --- no connection; these need servers of their own, and so a daemon of their own ---


def unconnectable(bad: str, good: str, connect_s: float) -> dict[str, object]:
    calm: dict[str, object] = {
        "health_check": "off",
        "strategy": "round_robin",
        "timeouts": {"connect": f"{connect_s}s"},
    }
    return {
        "listeners": [
            {"name": "alone", "bind": "127.0.0.1:0", "pool": "alone"},
            {"name": "beside", "bind": "127.0.0.1:0", "pool": "beside"},
        ],
        "pools": {"alone": {"servers": [bad], **calm}, "beside": {"servers": [bad, good], **calm}},
    }


@pytest.mark.parametrize(
    ("port", "reason", "statuses", "connect_s"),
    [(refusing_port, "connect_refused", {502, 503}, 300.0), (black_hole_port, "connect_timeout", {504}, SHORT_S / 2)],
    ids=["row-1-refused", "row-2-black-hole"],
)
def test_no_connection(
    port: Callable[[], AbstractContextManager[int]], reason: str, statuses: set[int], connect_s: float, tmp_path: Path
) -> None:
    """Who is refused is told at once, however long a connection may take."""
    with (
        port() as bad,
        Origin() as good,
        LbProxy(unconnectable(f"127.0.0.1:{bad}", good.address, connect_s), tmp_path) as lb,
        Client(lb.port("alone")) as alone,
        Client(lb.port("beside")) as beside,
    ):
        took_s = []
        for _ in range(5):
            started = time.monotonic()
            answer = alone.ask(get("/alone"))
            took_s.append(time.monotonic() - started)
            assert answer.status in statuses
            assert answer.get("content-type") == "application/problem+json"
        if reason == "connect_timeout":
            assert min(took_s) >= connect_s, took_s
        assert lb.metric("upstream_errors_total", pool="alone", reason=reason) >= 1
        for _ in range(4):
            answer = beside.ask(post("/beside"))
            assert (answer.status, answer.body) == (200, b"POST /beside 5\n"), "no byte was sent: any method may go on"
        assert lb.metric("upstream_errors_total", pool="beside", reason=reason) >= 1
        alone.close()
        beside.close()
        lb.check_idle()


# --- closed before the first byte of an answer ---


@pytest.mark.parametrize(
    ("fault", "word"), [(close_unanswered, "closed_early"), (reset_unanswered, "reset")], ids=["fin", "rst"]
)
def test_get_on_a_fresh_connection_is_tried_on_another_server(rig: Rig, fault: Script, word: str) -> None:
    rig.script(first_only(fault))
    with rig.client("pair") as client:
        answer = client.ask(get("/row-3"))
    assert (answer.status, answer.body) == (200, b"GET /row-3 0\n")
    assert rig.requests == [("GET", "/row-3")] * 2
    assert len(rig.a.requests) == 1, "the second try went to the same server although there is another one"
    entry = rig.log("/row-3")
    assert (entry["end"], entry["attempts"]) == ("ok", 2)
    assert rig.grown("retries_total", pool="pair") == 1
    assert rig.grown("upstream_errors_total", pool="pair", reason=word) == 1


@pytest.mark.parametrize(
    ("fault", "word"), [(close_unanswered, "closed_early"), (reset_unanswered, "reset")], ids=["fin", "rst"]
)
def test_no_try_left_is_502(rig: Rig, fault: Script, word: str) -> None:
    rig.script(fault)
    with rig.client("once") as client:
        assert_problem(client.ask(get("/row-3-last")), 502)
    assert rig.log("/row-3-last")["end"] == word
    assert rig.grown("upstream_errors_total", pool="once", reason=word) == 1


def test_an_error_and_its_log_name_every_server_that_was_tried(tmp_path: Path) -> None:
    """Each dead server with what it did and how long it took, for the client's owner and for ours."""
    with refusing_port() as first, refusing_port() as second:
        dead = [f"127.0.0.1:{port}" for port in (first, second)]
        servers = [{"name": f"predict-{number}", "address": address} for number, address in enumerate(dead, 1)]
        config = {
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
            "pools": {"p": {"servers": servers, "health_check": "off", "strategy": "round_robin"}},
        }
        with LbProxy(config, tmp_path) as lb:
            with Client(lb.port("in")) as client:
                answer = client.ask(post("/dead"))
            assert_problem(answer, 503)
            tried = r"predict-[12] connect_refused \d+ms"
            shown = re.search(rf'; details="no_server; tries: ({tried}), ({tried})"$', answer.get("proxy-status") or "")
            assert shown is not None, answer.get("proxy-status")
            assert {item.split()[0] for item in shown.groups()} == {"predict-1", "predict-2"}
            wait_until(lambda: len(lb.access_log()) == 1, "its line")
            tries: Any = lb.access_log()[0]["tries"]
            logged = [f"{item['server']} {item['reason']} {round(item['ms'])}ms" for item in tries]
            assert logged == list(shown.groups())


def test_attempts_bound_the_tries(rig: Rig) -> None:
    """Two extra tries are the default: three servers' connections at most, then 502."""
    rig.script(*[close_unanswered] * 5)
    with rig.client("pair") as client:
        assert_problem(client.ask(get("/row-3-bound")), 502)
    assert 2 <= len(rig.requests) <= 3
    assert rig.log("/row-3-bound")["attempts"] == len(rig.requests)


@pytest.mark.parametrize("fault", [close_unanswered, reset_unanswered], ids=["fin", "rst"])
def test_post_is_not_repeated(rig: Rig, fault: Script) -> None:
    rig.script(fault)
    with rig.client("pair") as client:
        assert_problem(client.ask(post("/row-5")), 502)
    assert rig.requests == [("POST", "/row-5")]
    assert rig.log("/row-5")["attempts"] == 1


@pytest.mark.parametrize("fault", [close_unanswered, reset_unanswered], ids=["fin", "rst"])
def test_post_is_repeated_where_the_pool_says_that_requests_are_idempotent(rig: Rig, fault: Script) -> None:
    rig.script(first_only(fault))
    with rig.client("idem") as client:
        answer = client.ask(post("/row-5-idem", b"x" * 1000))
    assert (answer.status, answer.body) == (200, b"POST /row-5-idem 1000\n")
    assert [request.body for origin in (rig.a, rig.b) for request in origin.requests] == [b"x" * 1000] * 2


def test_a_body_above_the_replay_limit_is_not_repeated(rig: Rig) -> None:
    rig.script(first_only(close_unanswered))
    with rig.client("idem") as client:
        assert_problem(client.ask(post("/row-5-big", b"x" * (MIB + 1))), 502)
    assert rig.requests == [("POST", "/row-5-big")]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_idempotent_methods_are_repeated(rig: Rig, method: str) -> None:
    rig.script(first_only(close_unanswered))
    with rig.client("pair") as client:
        request = f"{method} /row-3-m HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi".encode()
        assert client.ask(request, is_head=method == "HEAD").status == 200
    assert rig.requests == [(method, "/row-3-m")] * 2


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_other_methods_are_not_repeated(rig: Rig, method: str) -> None:
    rig.script(first_only(close_unanswered))
    with rig.client("pair") as client:
        request = f"{method} /row-5-m HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi".encode()
        assert client.ask(request).status == 502
    assert rig.requests == [(method, "/row-5-m")]


@pytest.mark.parametrize("fault", [close_unanswered, reset_unanswered], ids=["fin", "rst"])
def test_get_on_a_kept_connection_that_the_server_closes(rig: Rig, fault: Script) -> None:
    rig.a.script(after_warm_up(fault))
    with rig.client() as client:
        client.ask(get("/warm"))
        answer = client.ask(get("/row-6"))
    assert (answer.status, answer.body) == (200, b"GET /row-6 0\n")
    assert rig.requests == [("GET", "/warm"), ("GET", "/row-6"), ("GET", "/row-6")]
    assert len(rig.a.peers) == 2, "the second try was not on a fresh connection"
    assert rig.log("/row-6")["end"] == "ok"
    rig.wait_grown("stale_connections_total", pool="solo")


@pytest.mark.parametrize("request_bytes", [get("/row-6-idle"), post("/row-6-idle")], ids=["get", "post"])
@pytest.mark.parametrize("how", [FIN, RST])
def test_a_kept_connection_that_died_idle_costs_nothing(rig: Rig, request_bytes: bytes, how: str) -> None:
    """The close is in the socket before the request is written: any method may take another connection."""

    def dies_idle(c: Peer) -> None:
        if how == FIN:
            c.fin()
            c.read_to_end()
        else:
            c.reset()

    rig.a.script(after_warm_up(dies_idle))
    with rig.client() as client:
        client.ask(get("/warm"))
        if how == RST:
            rig.a.peers[0].closed.wait(60)
        else:
            wait_until(lambda: rig.a.open_connections == 0, "the daemon to close the dead connection")
        assert client.ask(request_bytes).status == 200
    assert len(rig.requests) == 2
    assert rig.log("/row-6-idle")["attempts"] == 1


@pytest.mark.parametrize("fault", [close_unanswered, reset_unanswered], ids=["fin", "rst"])
def test_post_on_a_kept_connection_reaches_the_server_once(rig: Rig, fault: Script) -> None:
    rig.a.script(after_warm_up(fault))
    with rig.client() as client:
        client.ask(get("/warm"))
        assert_problem(client.ask(post("/row-7")), 502)
    assert rig.requests == [("GET", "/warm"), ("POST", "/row-7")]
    assert rig.log("/row-7")["end"] == "upstream_closed_reused_conn"


def test_closed_before_the_request_was_read(rig: Rig) -> None:
    rig.script(first_only(close_at_once))
    with rig.client("pair") as client:
        answer = client.ask(get("/row-3-unread"))
    assert (answer.status, answer.body) == (200, b"GET /row-3-unread 0\n")


def test_closed_before_the_request_was_read_many_times(rig: Rig) -> None:
    """The close races with the daemon's own connect and write; whoever wins, the client hears of it at once."""
    rig.script(*[close_at_once] * 120)
    with rig.client("pair") as client:
        for _ in range(40):
            assert client.ask(get("/row-3-race")).status == 502


# --- broken off ---


@pytest.mark.parametrize("how", [FIN, RST])
def test_dies_inside_the_head(rig: Rig, how: str) -> None:
    rig.a.script(steps(b"HTTP/1.1 200 OK\r\nContent-Le", how))
    with rig.client() as client:
        assert_problem(client.ask(get("/row-8")), 502)
    assert len(rig.requests) == 1, "an answer had begun, so the request must not be repeated"
    entry = rig.log("/row-8")
    assert (entry["status"], entry["end"]) == (502, "truncated_head")
    assert rig.grown("upstream_errors_total", reason="truncated_head") == 1


BROKEN_OFF = {
    "length": (OK_10, b"hello"),
    "chunked": (OK_CHUNKED, b"5\r\nhello\r\n"),
    "chunked inside a chunk": (OK_CHUNKED, b"8\r\nhello"),
    "chunked without the last line": (OK_CHUNKED, b"5\r\nhello\r\n0\r\n"),
}


def broken_off(rig: Rig, target: str, head: bytes, body: bytes, how: str, version: str = "1.1") -> Response:
    """The client has the first bytes of the body when the server breaks off; returns what the client got."""
    seen = threading.Event()
    rig.a.script(steps(head + body, seen, how))
    with rig.client() as client:
        client.send(get(target, version=version))
        client.wait_for(b"hello")
        seen.set()
        with pytest.raises(Ended) as ended:
            client.response()
    assert ended.value.how == "rst", "the cut looks like an orderly end"
    assert isinstance(ended.value.partial, Response)
    return ended.value.partial


@pytest.mark.parametrize("how", [FIN, RST])
@pytest.mark.parametrize("framing", BROKEN_OFF)
def test_broken_off_in_the_body(rig: Rig, framing: str, how: str) -> None:
    head, body = BROKEN_OFF[framing]
    partial = broken_off(rig, "/row-10", head, body, how)
    assert partial.body == b"hello"
    entry = rig.log("/row-10")
    assert (entry["status"], entry["end"]) == (200, "truncated_body")
    assert rig.grown("upstream_errors_total", reason="truncated_body") == 1
    assert_next_request_is_fine(rig)


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_reset_of_a_body_that_ends_with_the_connection(rig: Rig, version: str) -> None:
    partial = broken_off(rig, "/row-10-close", OK_CLOSE, b"hello", RST, version)
    assert partial.body == b"hello"
    assert rig.log("/row-10-close")["end"] == "truncated_body"


@pytest.mark.parametrize("framing", BROKEN_OFF)
def test_an_http_1_0_client_sees_the_cut_too(rig: Rig, framing: str) -> None:
    head, body = BROKEN_OFF[framing]
    broken_off(rig, "/row-10-old", head, body, FIN, "1.0")
    assert rig.log("/row-10-old")["end"] == "truncated_body"


@pytest.mark.parametrize("how", [FIN, RST])
def test_dies_between_head_and_body(rig: Rig, how: str) -> None:
    seen = threading.Event()
    rig.a.script(steps(OK_10, seen, how))
    with rig.client() as client:
        client.send(get("/row-9"))
        client.wait_for(b"\r\n\r\n")
        seen.set()
        with pytest.raises(Ended) as ended:
            client.response()
    assert ended.value.how == "rst"
    assert rig.log("/row-9")["end"] == "truncated_body"


def test_bad_chunk_in_the_middle(rig: Rig) -> None:
    seen = threading.Event()
    rig.a.script(steps(OK_CHUNKED + b"5\r\nhello\r\n", seen, b"xyz\r\nhello\r\n0\r\n\r\n"))
    with rig.client() as client:
        client.send(get("/row-13"))
        client.wait_for(b"hello")
        seen.set()
        with pytest.raises(Ended) as ended:
            client.response()
    assert ended.value.how == "rst"
    assert rig.log("/row-13")["end"] == "response_bad_chunk"
    assert rig.grown("upstream_errors_total", reason="bad_chunk") == 1


# --- more than was asked for ---


@pytest.mark.parametrize(
    "surplus",
    [b"EXTRA", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"],
    ids=["row-14-bytes", "row-15-second-answer"],
)
def test_surplus_in_the_same_segment(rig: Rig, surplus: bytes) -> None:
    rig.a.script(steps(OK_5 + surplus))
    with rig.client() as client:
        assert client.ask(get("/row-14")).body == b"hello"
        wait_until(lambda: rig.a.open_connections == 0, "the connection with surplus bytes to be closed")
        assert_next_request_is_fine(rig, client)
    assert rig.log("/row-14")["status"] == 200
    assert rig.grown("upstream_errors_total", reason="extra_data") == 1


def test_second_answer_on_the_idle_connection(rig: Rig) -> None:
    idle = threading.Event()
    rig.a.script(steps(OK_5, idle, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"))
    with rig.client() as client:
        assert client.ask(get("/row-16")).body == b"hello"
        idle.set()
        wait_until(lambda: rig.a.open_connections == 0, "the idle connection that spoke to be closed")
        assert_next_request_is_fine(rig, client)
    assert len(rig.a.peers) == 2


@pytest.mark.parametrize(
    "farewell",
    [b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", b"junk"],
    ids=["408", "junk"],
)
def test_farewell_on_the_idle_connection_just_before_reuse(rig: Rig, farewell: bytes) -> None:
    idle, said = threading.Event(), threading.Event()

    def says_farewell(c: Peer) -> None:
        c.wait(idle)
        c.send(farewell)
        c.fin()
        said.set()
        c.read_to_end()

    rig.a.script(after_warm_up(says_farewell))
    with rig.client() as client:
        client.ask(get("/warm"))
        idle.set()
        assert said.wait(60)
        answer = client.ask(post("/row-17"))
    assert (answer.status, answer.body) == (200, b"POST /row-17 5\n")
    assert rig.requests == [("GET", "/warm"), ("POST", "/row-17")]


# --- answers that are not HTTP ---

NOT_HTTP = {
    "row-18 garbage": (b"hello world\r\n\r\n", "bad_response"),
    "row-18 http/0.9": (b"<html>hello</html>", "bad_response"),
    "row-19 status 99": (b"HTTP/1.1 99 Low\r\nContent-Length: 5\r\n\r\nhello", "bad_response"),
    "row-19 status 2000": (b"HTTP/1.1 2000 High\r\nContent-Length: 5\r\n\r\nhello", "bad_response"),
    "row-19 status abc": (b"HTTP/1.1 abc Bad\r\nContent-Length: 5\r\n\r\nhello", "bad_response"),
    "row-21 nul": (b"HTTP/1.1 200 OK\r\nX: \x00\r\nContent-Length: 5\r\n\r\nhello", "bad_response"),
    "row-21 cr": (b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 5\r\n\r\nhello", "bad_response"),
    "row-21 lf": (b"HTTP/1.1 200 OK\r\nX: a\nY: b\r\nContent-Length: 5\r\n\r\nhello", "bad_response"),
    "row-21 no colon": (b"HTTP/1.1 200 OK\r\nbad\r\nContent-Length: 5\r\n\r\nhello", "bad_response"),
    "row-22 two lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", "bad_response"),
    "row-22 length list": (b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello!", "bad_response"),
    "row-27 unasked 101": (b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nraw", "bad_upgrade"),
    "row-26 3000 interim": (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 3000 + OK_5, "too_many_interim"),
}


@pytest.mark.parametrize("name", NOT_HTTP)
def test_not_an_http_answer(rig: Rig, name: str) -> None:
    answer, word = NOT_HTTP[name]
    rig.a.script(steps(answer))
    with rig.client() as client:
        client.send(get("/row-18"))
        assert_problem(client.response(), 502)
    assert len(rig.requests) == 1
    assert rig.log("/row-18")["end"] == word
    wait_until(lambda: rig.a.open_connections == 0, "the server's connection to be closed")
    assert_next_request_is_fine(rig)


@pytest.mark.parametrize(
    "fields", [b"X: " + b"y" * 70_000 + b"\r\n", b"X: y\r\n" * 20_000], ids=["70 kB value", "20000 fields"]
)
def test_huge_head(rig: Rig, fields: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\n" + fields + b"Content-Length: 5\r\n\r\nhello"
    rig.a.script(*[steps(answer)] * 11)
    with rig.client() as client:
        assert_problem(client.ask(get("/row-20")), 502)
        assert rig.log("/row-20")["end"] == "response_header_too_large"
        before = rig.lb.rss_bytes()
        for _ in range(10):
            assert client.ask(get("/row-20-again")).status == 502
        assert rig.lb.rss_bytes() - before < 4 * MIB
    assert rig.grown("upstream_errors_total", reason="header_too_large") == 11


def test_length_and_chunked_together(rig: Rig) -> None:
    rig.a.script(
        steps(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
    )
    with rig.client() as client:
        answer = client.ask(get("/row-22"))
        assert answer.status == 502
    assert_next_request_is_fine(rig)


@pytest.mark.parametrize("coding", ["gzip", "cow"])
def test_unknown_transfer_coding(rig: Rig, coding: str) -> None:
    rig.a.script(steps(f"HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\n\r\nhello".encode(), FIN))
    with rig.client() as client:
        answer = client.ask(get("/row-23"))
        assert answer.status == 502
    assert assert_next_request_is_fine(rig).get("x-connection") != "0"


@pytest.mark.parametrize(
    ("method", "head"),
    [("GET", b"HTTP/1.1 204 No Content"), ("GET", b"HTTP/1.1 304 Not Modified"), ("HEAD", b"HTTP/1.1 200 OK")],
    ids=["204", "304", "HEAD"],
)
def test_body_where_none_may_be(rig: Rig, method: str, head: bytes) -> None:
    rig.a.script(steps(head + b"\r\nContent-Length: 38\r\n\r\n" + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
    with rig.client() as client:
        answer = client.ask(f"{method} /row-24 HTTP/1.1\r\nHost: a\r\n\r\n".encode(), is_head=method == "HEAD")
        assert answer.body == b""
        wait_until(lambda: rig.a.open_connections == 0, "the server's connection to be closed")
        assert_next_request_is_fine(rig, client)


INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n" + b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 3 + OK_5


def test_interim_answers_reach_an_http_1_1_client(rig: Rig) -> None:
    rig.a.script(steps(INTERIM))
    with rig.client() as client:
        answer = client.ask(get("/row-25"))
        assert answer.body == b"hello"
        assert [one.status for one in answer.interim if one.status != 100] == [103, 103, 103]
        assert answer.interim[-1].get("link") == "</x>"
        assert_next_request_is_fine(rig, client)


def dies_after(interim: bytes, how: str) -> Script:
    """An interim answer to the whole request, or to its head where the client waits for it, and then the end."""

    def script(c: Peer) -> None:
        request = c.read_head()
        c.send(interim)
        if b"100 Continue" in interim:
            c.read_body(request)
        c.reset() if how == RST else c.fin()

    return script


@pytest.mark.parametrize("how", [FIN, RST])
@pytest.mark.parametrize("interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\n\r\n"])
def test_a_server_that_dies_after_an_interim_answer_has_given_none(rig: Rig, interim: bytes, how: str) -> None:
    """A 1xx is no part of the answer: what may be repeated goes to the other server, and the client gets one 100."""
    rig.script(first_only(dies_after(interim, how)))
    with rig.client("idem") as client:
        client.send(EXPECT.format("/interim").encode())
        client.wait_for(b"100 Continue\r\n\r\n")
        client.send(b"hello")
        answer = client.response()
        assert (answer.status, answer.body) == (200, b"POST /interim 5\n")
        assert [one.status for one in answer.interim].count(100) == 1
    assert rig.log("/interim")["attempts"] == 2


@pytest.mark.parametrize("how", [FIN, RST])
def test_a_post_that_got_an_interim_answer_is_not_repeated(rig: Rig, how: str) -> None:
    rig.script(first_only(dies_after(b"HTTP/1.1 103 Early Hints\r\n\r\n", how)))
    with rig.client("pair") as client:
        assert_problem(client.ask(post("/interim-post")), 502)
    assert rig.log("/interim-post")["end"] == ("closed_early" if how == FIN else "reset")


def test_interim_answers_do_not_reach_an_http_1_0_client(rig: Rig) -> None:
    rig.a.script(steps(INTERIM))
    with rig.client() as client:
        answer = client.ask(get("/row-25-old", version="1.0"))
        assert (answer.body, answer.interim) == (b"hello", [])
        assert client.wait_end() == "fin"


# --- early answers and expectations ---


def test_early_answer_while_the_client_uploads(rig: Rig) -> None:
    def answers_early(c: Peer) -> None:
        request = c.read_head()
        c.send(b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno")
        c.read_body(request)
        c.serve()

    rig.a.script(answers_early)
    body = b"x" * 200_000
    with rig.client() as client:
        client.send(f"POST /row-30 HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        client.send(body[:1000])
        answer = client.response()
        assert (answer.status, answer.body) == (401, b"no"), "the answer must not wait for the end of the upload"
        client.send(body[1000:])
        if answer.is_kept_alive:
            assert_next_request_is_fine(rig, client)
        else:
            assert client.wait_end() == "fin"
    assert_next_request_is_fine(rig)
    assert rig.log("/row-30")["status"] == 401


def test_413_and_reset_while_the_client_uploads(rig: Rig) -> None:
    def refuses(c: Peer) -> None:
        c.read_head()
        c.stream.take(100_000)
        c.send(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig")
        c.reset()

    rig.a.script(refuses)
    size = 8 * MIB
    with rig.client() as client:
        client.send(f"POST /row-31 HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode())
        uploader = threading.Thread(target=client.send, args=(b"x" * size,))
        uploader.start()
        answer = client.response()
        assert (answer.status, answer.body) == (413, b"big")
        uploader.join(60)
        assert not uploader.is_alive(), "the rest of the upload was neither read nor refused"
    assert rig.log("/row-31")["status"] == 413


EXPECT = "POST {} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"


def test_expect_the_servers_100_is_passed_on(rig: Rig) -> None:
    def continues(c: Peer) -> None:
        request = c.read_head()
        assert request.get("expect") == "100-continue"
        c.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        c.send(c.origin.answer(c.read_body(request)))
        c.serve()

    rig.a.script(continues)
    with rig.client() as client:
        client.send(EXPECT.format("/expect").encode())
        client.wait_for(b"100 Continue\r\n\r\n")
        client.send(b"hello")
        answer = client.response()
        assert (answer.status, answer.body) == (200, b"POST /expect 5\n")
        assert [one.status for one in answer.interim] == [100]
        assert_next_request_is_fine(rig, client)


def test_final_answer_to_an_expectation(rig: Rig) -> None:
    def refuses(c: Peer) -> None:
        c.read_head()
        c.send(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
        c.read_to_end()

    rig.a.script(refuses)
    with rig.client() as client:
        client.send(EXPECT.format("/row-32").encode())
        answer = client.response()
        assert (answer.status, answer.body, answer.interim) == (403, b"no", [])
        wait_until(lambda: rig.a.open_connections == 0, "the server's connection to be closed")
        if answer.is_kept_alive:
            client.send(b"hello")
            assert_next_request_is_fine(rig, client)
    assert_next_request_is_fine(rig)


def test_no_answer_to_an_expectation(rig: Rig) -> None:
    started = time.monotonic()
    with rig.client() as client:
        client.send(EXPECT.format("/row-33").encode())
        client.wait_for(b"100 Continue\r\n\r\n")
        assert time.monotonic() - started > 0.8
        client.send(b"hello")
        answer = client.response()
        assert (answer.status, answer.body) == (200, b"POST /row-33 5\n")
        assert [one.status for one in answer.interim] == [100]


def test_a_late_100_is_not_passed_on_a_second_time(rig: Rig) -> None:
    def late(c: Peer) -> None:
        request = c.read_body(c.read_head())
        c.send(b"HTTP/1.1 100 Continue\r\n\r\n", c.origin.answer(request))
        c.serve()

    rig.a.script(late)
    with rig.client() as client:
        client.send(EXPECT.format("/row-33-late").encode())
        client.wait_for(b"100 Continue\r\n\r\n")
        client.send(b"hello")
        assert [one.status for one in client.response().interim] == [100]


# --- slow and stalled ---


def test_never_answers(rig: Rig) -> None:
    rig.a.script(silent)
    started = time.monotonic()
    with rig.client("no-answer") as client:
        assert_problem(client.ask(get("/row-34")), 504)
        assert time.monotonic() - started >= SHORT_S
    assert rig.log("/row-34")["end"] == "response_timeout"
    assert rig.a.peers[0].closed.wait(60) and rig.a.peers[0].end == "rst", "the server can stop working only if told"
    assert len(rig.a.peers) == 1
    assert rig.grown("upstream_errors_total", reason="response_timeout") == 1


def test_one_byte_at_a_time_for_longer_than_the_time_out(rig: Rig) -> None:
    """Each byte resets the idle time-out, and each is relayed before the next is sent."""
    for turn in range(10):
        longest_s = trickled(rig, f"/row-35-{turn}")
        entry = rig.log(f"/row-35-{turn}")
        if longest_s < SHORT_S:
            assert entry["end"] == "ok"
            return
    raise AssertionError("ten times this test itself was slower than what it claims of its server")


def trickled(rig: Rig, target: str) -> float:
    """An answer of six bytes, each behind a pause; the longest time between two of them, in seconds."""
    got = [threading.Event() for _ in range(6)]
    sent_at = []

    def trickles(c: Peer) -> None:
        c.read_request()
        c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
        sent_at.append(time.monotonic())
        for event in got:
            c.send(b"x")
            sent_at.append(time.monotonic())
            c.wait(event)
            threading.Event().wait(SHORT_S / 3)  # the stimulus: a pause below the time-out, six of them above it
        c.serve()

    rig.a.script(trickles)
    started = time.monotonic()
    with rig.client("stall") as client:
        client.send(get(target))
        try:
            client.wait_for(b"\r\n\r\n")
            head = client.stream.record.index(b"\r\n\r\n") + 4
            for number, event in enumerate(got, 1):
                while len(client.stream.record) < head + number:
                    if not client.stream.fill():
                        raise Ended(client.end or "", raw=b"")
                assert len(client.stream.record) == head + number
                event.set()
            assert client.response().body == b"xxxxxx"
            assert time.monotonic() - started > SHORT_S
        except Ended:
            sent_at.append(time.monotonic())
            rig.a.reset()
    return max(then - before for before, then in itertools.pairwise(sent_at))


def test_stalls_in_the_body(rig: Rig) -> None:
    rig.a.script(stalls_after(OK_10 + b"hello"))
    with rig.client("stall") as client:
        client.send(get("/row-36"))
        with pytest.raises(Ended) as ended:
            client.response()
    assert ended.value.how == "rst"
    assert isinstance(ended.value.partial, Response)
    assert ended.value.partial.body == b"hello"
    assert rig.log("/row-36")["end"] == "idle_timeout"
    assert rig.grown("upstream_errors_total", reason="idle_timeout") == 1
