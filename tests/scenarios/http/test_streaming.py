"""Tokens as they come: no chunk is held back, and a client that leaves stops the server at once."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.origin import Origin, Peer, Script, black_hole_port, silent
from tests.support.rig import Rig, get, post
from tests.support.waiting import wait_until

EVERY_S = 0.02
COUNT = 100
TARGET_MS = 1.0  # what lbproxy may add at the 99th percentile
LIMIT_MS = 3.0  # what a noisy machine may make of it
ABORT_S = 0.05
TRIES = 3
_STAMP = re.compile(rb"data: (\d{20})\n\n")
_EVENT_BYTES = 28
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
FRAMINGS = {
    "chunked": HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
    "length": HEAD + b"Content-Length: %d\r\n\r\n" % (COUNT * _EVENT_BYTES),
    "close": HEAD + b"\r\n",
}


def ticking(framing: str) -> Script:
    """Send an event with the time in it, every 20 ms by the clock, however long sending took."""

    def script(c: Peer) -> None:
        c.read_request()
        c.send(FRAMINGS[framing])
        start = time.monotonic()
        for number in range(COUNT):
            time.sleep(max(0.0, start + number * EVERY_S - time.monotonic()))
            event = b"data: %020d\n\n" % time.monotonic_ns()
            c.send(b"%x\r\n%b\r\n" % (len(event), event) if framing == "chunked" else event)
        if framing == "chunked":
            c.send(b"0\r\n\r\n")
        if framing == "close":
            c.fin()
        c.read_to_end()

    return script


def delays_ms(port: int) -> list[float]:
    """For each event how long after it was made its last byte was here."""
    found: list[float] = []
    with Client(port) as client:
        client.send(get("/stream", "Accept: text/event-stream"))
        position = 0
        while len(found) < COUNT:
            assert client.stream.fill(), f"the stream ended after {len(found)} events"
            now = time.monotonic_ns()
            for match in _STAMP.finditer(bytes(client.stream.record), position):
                found.append((now - int(match[1])) / 1e6)
                position = match.end()
    return found


def p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99) - 1]


def measure(framing: str, proxied: int, origin: Origin) -> tuple[float, float]:
    """99th percentiles in ms, direct and through lbproxy, of two streams that run at the same time."""
    origin.script(ticking(framing), ticking(framing))
    direct: list[float] = []
    thread = threading.Thread(target=lambda: direct.extend(delays_ms(origin.port)))
    thread.start()
    through = delays_ms(proxied)
    thread.join()
    return p99(direct), p99(through)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_no_event_is_held_back(rig: Rig, framing: str, record_property: Callable[[str, object], None]) -> None:
    added: list[float] = []
    while len(added) < 2 and (not added or added[-1] > TARGET_MS):
        direct, through = measure(framing, rig.lb.port("solo"), rig.a)
        added.append(through - direct)
        print(f"{framing}: p99 direct {direct:.2f} ms, through lbproxy {through:.2f} ms, added {added[-1]:.2f} ms")
    record_property("added_ms", added)
    assert min(added) <= LIMIT_MS, added


def test_events_arrive_one_by_one(rig: Rig) -> None:
    """Without a clock: the server sends the next event only when the client has the last one."""
    turns = [threading.Event() for _ in range(20)]

    def script(c: Peer) -> None:
        c.read_request()
        c.send(FRAMINGS["chunked"])
        for number, turn in enumerate(turns):
            c.send(b"2\r\n%02d\r\n" % number)
            c.wait(turn)
        c.send(b"0\r\n\r\n")
        c.serve()

    rig.a.script(script)
    with rig.client() as client:
        client.send(get("/turns"))
        for number, turn in enumerate(turns):
            client.wait_for(b"\r\n%02d\r\n" % number)
            turn.set()
        assert client.response().body == b"".join(b"%02d" % number for number in range(20))
        assert client.ask(get("/next")).body == b"GET /next 0\n"


# --- leaving ---


def endless(framing: str) -> Script:
    """Events without end, until the connection is gone; reads as well, so that its end is seen at once."""

    def script(c: Peer) -> None:
        c.read_request()
        c.send(FRAMINGS[framing].replace(b"Content-Length: %d" % (COUNT * _EVENT_BYTES), b"Content-Length: 999999999"))
        reader = threading.Thread(target=c.read_to_end)
        reader.start()
        while reader.is_alive():
            c.send(b"5\r\ndata\n\r\n")
            reader.join(0.005)

    return script


def leave(client: Client, how: str) -> float:
    """End the client's side; the time when that was done."""
    if how == "rst":
        client.reset()
    else:
        client.close()
    return time.monotonic()


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("framing", FRAMINGS)
def test_leaving_in_the_stream_ends_the_upstream_connection(rig: Rig, framing: str, how: str) -> None:
    took: list[float] = []
    while len(took) < TRIES and (not took or took[-1] > ABORT_S):
        rig.a.script(endless(framing))
        with rig.client() as client:
            client.send(get(f"/endless-{len(took)}"))
            client.wait_for(b"data\n")
            peer = rig.a.peers[-1]
            left_at = leave(client, how)
            assert peer.closed.wait(10), "the server was never told"
            took.append(peer.closed_at - left_at)
    assert min(took) <= ABORT_S, took
    entry = rig.log("/endless-0")
    assert (entry["status"], entry["end"]) == (499, "client_abort")
    assert rig.grown("client_aborts_total", pool="solo", phase="streaming") == len(took)
    assert rig.grown("upstream_errors_total") == 0


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("request_bytes", [get("/waiting"), post("/waiting")], ids=["GET", "POST"])
def test_leaving_before_the_answer_ends_the_upstream_connection(rig: Rig, how: str, request_bytes: bytes) -> None:
    took: list[float] = []
    while len(took) < TRIES and (not took or took[-1] > ABORT_S):
        rig.a.script(silent)
        with rig.client() as client:
            client.send(request_bytes)
            wait_until(lambda: len(rig.a.requests) > len(took), "the request to reach the server")
            peer = rig.a.peers[-1]
            left_at = leave(client, how)
            assert peer.closed.wait(10), "the server was never told"
            took.append(peer.closed_at - left_at)
    assert min(took) <= ABORT_S, took
    assert [entry["status"] for entry in rig.lb.entries("/waiting", len(took))[-len(took) :]] == [499] * len(took)
    assert rig.grown("client_aborts_total", pool="solo", phase="waiting") == len(took)


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_leaving_while_lbproxy_connects(tmp_path: Path, how: str) -> None:
    with black_hole_port() as port:
        pool = {"servers": [f"127.0.0.1:{port}"], "health_check": "off", "timeouts": {"connect": "9s"}}
        config: dict[str, object] = {
            "listeners": [{"name": "main", "bind": "127.0.0.1:0", "pool": "hole"}],
            "pools": {"hole": pool},
        }
        with LbProxy(config, tmp_path) as lb:
            for number in range(3):
                with Client(lb.port("main")) as client:
                    client.send(get(f"/connecting-{number}"))
                    wait_until(lambda: lb.metric("server_inflight", pool="hole") == 1, "the request to be on its way")
                    leave(client, how)
                    wait_until(lambda: lb.metric("server_inflight", pool="hole") == 0, "it to be given up", 2)
                entry = lb.entry(f"/connecting-{number}")
                assert (entry["status"], entry["end"]) == (499, "client_abort")
            assert lb.metric("client_aborts_total", pool="hole", phase="connecting") == 3
            assert lb.metric("upstream_errors_total", pool="hole") == 0
