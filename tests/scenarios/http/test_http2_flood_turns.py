"""The longest turn of the loop while ten connections of HTTP/2 have sent what they can, all in the same moment.

lbproxy is stopped while they send, so that all is there when it goes on. Measured is CPU of its thread. The server of
the flood says nothing: answers are no part of it.
"""

from __future__ import annotations

import contextlib
import http.client
import signal
import socket
import statistics
import time
from pathlib import Path

import pytest

from tests.support import turn_probe
from tests.support.daemon import LbProxy
from tests.support.h2_floods import EVERY, batches, connections
from tests.support.origin import Origin

KINDS = ("rapid_reset", "too_many_streams", "unfinished_bodies", "made_you_reset", "malformed", "empty_names")
TIMES = 5
MOST_S = 0.004  # takes 1 ms, and took up to 30
MOST_OCTETS = 65_536


def flooded(lb: LbProxy, kind: str) -> tuple[float, float]:
    """From when to when."""
    with connections(lb.port("in")) as socks:
        time.sleep(0.05)  # each has begun
        lb.signal(signal.SIGSTOP)
        try:
            for sock in socks:
                sock.setblocking(False)
                with contextlib.suppress(OSError):  # it takes no more
                    sock.sendall(b"".join(batches(EVERY[kind])[:4])[:MOST_OCTETS])
            began = time.monotonic()
        finally:
            lb.signal(signal.SIGCONT)
        time.sleep(0.2)
        return began - 0.01, time.monotonic()


@pytest.mark.slow
def test_no_turn_of_the_loop_is_long(tmp_path: Path) -> None:
    path = tmp_path / "turns"
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as silent, Origin() as one, Origin() as other:
        common = {"health_check": "off", "circuit_breaker": "off"}
        probe = {"python": f"{turn_probe.__file__}:Probe", "path": str(path)}
        config: dict[str, object] = {
            "workers": 1,
            "listeners": [
                {
                    "name": "in",
                    "bind": "127.0.0.1:0",
                    "routes": [{"match": {"path_prefix": "/probe"}, "pool": "probed"}, {"pool": "flooded"}],
                }
            ],
            "pools": {
                "probed": {"servers": [one.address, other.address], "strategy": probe, **common},
                "flooded": {"servers": [f"127.0.0.1:{silent.getsockname()[1]}"], **common},
            },
        }
        with LbProxy(config, tmp_path / "lb") as lb:
            client = http.client.HTTPConnection("127.0.0.1", lb.port("in"), timeout=30.0)
            client.request("GET", "/probe")
            client.getresponse().read()
            client.close()
            longest_s = {}
            for kind in KINDS:
                flooded(lb, kind)  # what is made once is made
                spans = [flooded(lb, kind) for _ in range(TIMES)]
                time.sleep(0.2)
                found = [turn_probe.turns(path, began, ended) for began, ended in spans]
                longest_s[kind] = statistics.median(turns[0] for turns in found)
            print(", ".join(f"{kind} {1e3 * took_s:.2f} ms" for kind, took_s in longest_s.items()))
            assert max(longest_s.values()) < MOST_S, longest_s
