"""Uploads below `limits.min_rate`, with the grace as it is: ten seconds, all cases in the same ten."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest

from lbproxy.dataplane.client.upload_rate import GRACE_S
from tests.support.client import Client, receive
from tests.support.origin import Peer
from tests.support.rig import MIN_RATE, Rig
from tests.support.waiting import wait_until

EVERY_S = 0.1
LENGTH = 10_000_000


def begin(client: Client, target: str, framing: str) -> None:
    client.send(f"POST {target} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n".encode())


@contextlib.contextmanager
def dripping(clients: dict[Client, bytes]) -> Iterator[None]:
    """Each client sends its piece of body every tenth of a second until it has an answer, or is closed.

    Bytes that come long after an answer meet a reset, which may take the answer along.
    """
    stop = threading.Event()

    def drip() -> None:
        live = dict(clients)
        while not stop.wait(EVERY_S):
            for client, piece in list(live.items()):
                if not client.is_silent(0.0) or not client.send(piece):
                    del live[client]

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.slow
def test_uploads_below_the_minimum_rate(rig: Rig) -> None:
    release = threading.Event()

    def does_not_read(c: Peer) -> None:
        c.wait(release)
        c.serve()

    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        slow, chunked, fast, blocked = (stack.enter_context(rig.client("min-rate", timeout_s=60)) for _ in range(4))
        begin(slow, "/slow", f"Content-Length: {LENGTH}")
        begin(chunked, "/slow-chunked", "Transfer-Encoding: chunked")
        begin(fast, "/fast", f"Content-Length: {LENGTH}")
        wait_until(lambda: len(rig.a.partials) == 3, "three heads to reach the server")
        rig.a.script(does_not_read)
        begin(blocked, "/blocked", f"Content-Length: {LENGTH}")
        sender = threading.Thread(target=blocked.send, args=(b"x" * LENGTH,))
        sender.start()
        few = b"x" * (MIN_RATE // 20)  # half of the rate
        with dripping({slow: few, chunked: b"1\r\n" + b"x\r\n", fast: b"x" * (MIN_RATE // 2)}):
            for client in (slow, chunked):
                exchange = receive(client, None)
                assert (exchange.statuses, exchange.end) == ([408], "fin")
            assert time.monotonic() - started > GRACE_S
            assert fast.is_silent(0.5), "an upload that is fast enough was refused"
            assert blocked.is_silent(0.0), "an upload that the server does not read was refused"
        release.set()
        sender.join()
        assert blocked.response().body == b"POST /blocked %d\n" % LENGTH
    for target in ("/slow", "/slow-chunked"):
        entry = rig.log(target)
        assert (entry["status"], entry["end"]) == (408, "body_too_slow")
    assert rig.grown("rejected_total", listener="min-rate", reason="body_too_slow") == 2
    broken = [peer for peer in rig.a.peers if peer.partial is not None and peer.partial.target.startswith("/slow")]
    assert len(broken) == 2
    assert all(peer.closed.wait(60) and peer.end == "rst" for peer in broken)
    assert rig.requests == [("POST", "/blocked")]
    assert rig.grown("upstream_errors_total") == 0
