"""A client that leaves: its request is over within 50 ms, whatever it was waiting for (issue: queued, connecting,
waiting, streaming), and nothing of it goes on.

The delay is the daemon's own: from the client's close to the end that the access log gives the request (`ts` plus
`total_ms`). A busy machine adds its scheduling to every single try, so the median of several counts, and beside it what
a thread of this test takes at the same time to see the same kind of end directly (the control). A daemon that noticed
in its sweep, five times a second, would have a median of 100 ms.
"""

from __future__ import annotations

import calendar
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.client import Client
from tests.support.daemon import Entry, LbProxy
from tests.support.origin import Origin, Peer, Script, black_hole_port, silent
from tests.support.rig import get, post
from tests.support.waiting import wait_until

LIMIT_S = 0.05
TRIES, MOST_TRIES = 5, 15
STAMP_S = 0.001  # resolution of `ts`
SYN_SENT = "02"
STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass
class Stage:
    lb: LbProxy
    origin: Origin
    hole: int

    def client(self, listener: str) -> Client:
        return Client(self.lb.port(listener))

    def aborts(self, pool: str, phase: str) -> float:
        return self.lb.metric("client_aborts_total", pool=pool, phase=phase)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Origin() as origin, black_hole_port() as hole:
        common: dict[str, object] = {"health_check": "off", "circuit_breaker": "off"}
        pools = {
            "plain": {**common, "servers": [origin.address]},
            "narrow": {
                **common,
                "servers": [origin.address],
                "max_inflight": 1,
                "queue": {"timeout": "300s"},
                "keep_alive": "off",
            },
            "hole": {**common, "servers": [f"127.0.0.1:{hole}"], "timeouts": {"connect": "300s"}},
        }
        listeners = [{"name": name, "bind": "127.0.0.1:0", "pool": name} for name in pools]
        config: dict[str, object] = {"listeners": listeners, "pools": pools}
        with LbProxy(config, tmp_path_factory.mktemp("gone")) as lb:
            yield Stage(lb, origin, hole)


def leave(client: Client, how: str) -> float:
    """End the client's side; the wall clock just before."""
    at = time.time()
    if how == "rst":
        client.reset()
    elif how == "close":
        client.close()
    else:
        client.finish_writing()
    return at


def ended_at(entry: Entry) -> float:
    """Wall clock of the end of a request."""
    stamp, total_ms = str(entry["ts"]), entry["total_ms"]
    assert isinstance(total_ms, (int, float))
    whole = calendar.timegm(time.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S"))
    return whole + float(stamp[19:-1]) + total_ms / 1000


def control_s(origin: Origin) -> float:
    """What the machine takes to tell one thread that a direct peer has left."""
    seen = len(origin.peers)
    with Client(origin.port) as client:
        client.send(b"GET /control HTTP/1.1\r\nHost: a\r\n")
        wait_until(lambda: len(origin.peers) > seen and origin.peers[seen].stream.record, "the control to connect")
        at = time.monotonic()
        client.reset()
        assert origin.peers[seen].closed.wait(60)
        return origin.peers[seen].closed_at - at


def check_delays(stage: Stage, one_try: Callable[[str], float], target: str, pool: str, phase: str) -> None:
    """Try several times; check the daemon's delay, its log and its counter."""
    before = stage.aborts(pool, phase)
    delays: list[float] = []
    controls: list[float] = []

    def too_late() -> bool:
        return statistics.median(delays) > LIMIT_S + statistics.median(controls)

    while len(delays) < TRIES or (len(delays) < MOST_TRIES and too_late()):
        name = f"{target}-{len(delays)}"
        left_at = one_try(name)
        entry = stage.lb.entry(name)
        assert (entry["status"], entry["end"]) == (499, "client_abort")
        assert (entry["server"] == "") == (phase == "queued")
        delays.append(ended_at(entry) - left_at)
        controls.append(control_s(stage.origin))
    assert not too_late(), (delays, controls)
    # The end is stamped with the time at which its turn of the loop began: before the client left, where the machine
    # took the processor away in that turn. That hits single tries.
    assert statistics.median(delays) > -STAMP_S - 0.002, f"the clocks do not fit: {delays}"
    assert stage.aborts(pool, phase) - before == len(delays)
    assert stage.lb.metric("upstream_errors_total") == 0, "a server was blamed for a client that left"


def case(*parts: str) -> str:
    return "/" + "-".join(parts)


@pytest.mark.parametrize("how", ["rst", "fin", "close"])
@pytest.mark.parametrize("kind", ["GET", "POST"])
def test_waiting(stage: Stage, kind: str, how: str) -> None:
    def one_try(name: str) -> float:
        stage.origin.script(silent)
        seen = len(stage.origin.peers)
        with stage.client("plain") as client:
            client.send(get(name) if kind == "GET" else post(name))
            wait_until(lambda: any(r.target == name for r in stage.origin.requests), "the request to reach the server")
            at = leave(client, how)
            told = stage.origin.peers[seen]
            assert told.closed.wait(60), "the server was never told"
            assert told.end == "rst"
        return at

    check_delays(stage, one_try, case("waiting", kind, how), "plain", "waiting")
    stage.lb.check_idle()


def endless(c: Peer) -> None:
    """Events without end, until the connection is gone; reads as well, so that its end is seen at once."""
    c.read_request()
    c.send(STREAM)
    reader = threading.Thread(target=c.read_to_end)
    reader.start()
    try:
        while reader.is_alive():
            c.send(b"5\r\ndata\n\r\n")
            reader.join(0.005)
    finally:
        reader.join()  # it has the socket


def stalled(c: Peer) -> None:
    c.read_request()
    c.send(STREAM + b"5\r\ndata\n\r\n")
    c.read_to_end()


def large(c: Peer) -> None:
    """More than fits into any buffer, so that lbproxy does not read from the server when the client leaves."""
    c.read_request()
    c.sock.settimeout(0.3)
    try:
        c.sock.sendall(STREAM + b"5\r\ndata\n\r\n3000000\r\n" + b"x" * 0x3000000)
    except TimeoutError:
        pass
    except OSError:
        return
    c.sock.settimeout(20)
    c.read_to_end()


@pytest.mark.parametrize("how", ["rst", "fin", "close"])
@pytest.mark.parametrize("script", [endless, stalled, large], ids=lambda script: script.__name__)
def test_streaming(stage: Stage, script: Script, how: str) -> None:
    def one_try(name: str) -> float:
        stage.origin.script(script)
        seen = len(stage.origin.peers)
        with stage.client("plain") as client:
            client.send(get(name))
            client.wait_for(b"data\n")
            at = leave(client, how)
            assert stage.origin.peers[seen].closed.wait(60), "the server was never told"
        return at

    check_delays(stage, one_try, case("streaming", script.__name__, how), "plain", "streaming")
    stage.lb.check_idle()


@pytest.mark.parametrize("how", ["rst", "fin", "close"])
def test_queued(stage: Stage, how: str) -> None:
    """It leaves the queue at once, and the server never sees it, although the slot becomes free afterwards."""
    release = threading.Event()

    def holds(c: Peer) -> None:
        request = c.read_request()
        c.wait(release)
        c.send(c.origin.answer(request))
        c.serve()

    def one_try(name: str) -> float:
        with stage.client("narrow") as client:
            client.send(post(name))
            wait_until(lambda: stage.lb.metric("queue_depth", pool="narrow") == 1, "the request to be queued")
            at = leave(client, how)
            wait_until(lambda: stage.lb.metric("queue_depth", pool="narrow") == 0, "it to leave the queue")
        return at

    stage.origin.script(holds)
    with stage.client("narrow") as first:
        first.send(get(f"/first-{how}"))
        wait_until(lambda: any(r.target == f"/first-{how}" for r in stage.origin.requests), "the slot to be taken")
        check_delays(stage, one_try, f"/queued-{how}", "narrow", "queued")
        release.set()
        assert first.response().status == 200
        assert first.ask(get("/after")).status == 200
    assert not [r for r in stage.origin.requests if r.target.startswith("/queued")], (
        "a queued request was sent after all"
    )
    stage.lb.check_idle()


def dialing_to(port: int) -> set[str]:
    """Local addresses of the connections to this port of which only the SYN was sent."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return {row[1] for row in rows if row[2].endswith(f":{port:04X}") and row[3] == SYN_SENT}


@pytest.mark.parametrize("how", ["rst", "fin", "close"])
def test_connecting(stage: Stage, how: str) -> None:
    """The connection that nobody has accepted yet is given up: its socket is gone, not left to the connect time-out."""

    def one_try(name: str) -> float:
        before = dialing_to(stage.hole)  # what fills the backlog may itself still be waiting
        with stage.client("hole") as client:
            client.send(post(name))
            dialed = wait_until(lambda: dialing_to(stage.hole) - before, "the SYN to be sent")
            at = leave(client, how)
            wait_until(lambda: not dialing_to(stage.hole) & dialed, "the connection to be given up")
        return at

    check_delays(stage, one_try, case("connecting", how), "hole", "connecting")
    stage.lb.check_idle()
    assert stage.lb.metric("upstream_connects_total", pool="hole", result="timeout") == 0
