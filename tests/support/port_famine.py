"""The kernel has no local port left for connections to a server (EADDRNOTAVAIL), really, and for nobody else.

`python -m tests.support.port_famine DIRECTORY` runs the whole scenario, servers, daemon and clients, in a network
namespace of its own (`in_namespace`), where the range of ephemeral ports may be made narrow; the machine keeps its own.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.build import ROOT
from tests.support.client import Client, linger_reset
from tests.support.daemon import LbProxy
from tests.support.origin import Origin
from tests.support.rig import get, post
from tests.support.servers import needed
from tests.support.waiting import wait_until

LOWEST, COUNT = 20_000, 96
LOOK_S = 0.2  # each look at the metrics takes one of the ports, for as long as TIME_WAIT lasts
CLIENTS = 5
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1


def namespace_refusal() -> str:
    """Why this machine gives no network namespace to us; "" if it does."""
    command = [needed("unshare"), "--user", "--map-root-user", "--net", "test", "-w", str(_RANGE)]
    done = subprocess.run(command, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stderr.strip() or f"{_RANGE} cannot be written"


def in_namespace(folder: Path, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run the scenario; status 0 if all was as it must be."""
    command = [needed("unshare"), "--user", "--map-root-user", "--net", sys.executable, "-m", __spec__.name]
    return subprocess.run(
        [*command, str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(sock, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


@contextlib.contextmanager
def _no_port_left(lb: LbProxy, port: int) -> Iterator[None]:
    """Every local port of a narrow range has a connection to this port; the daemon is stopped while they are taken."""
    before = _RANGE.read_text()
    lb.signal(signal.SIGSTOP)
    holders: list[socket.socket] = []
    try:
        try:
            _RANGE.write_text(f"{LOWEST} {LOWEST + COUNT - 1}")
            while True:
                sock = socket.socket()
                holders.append(sock)
                sock.connect(("127.0.0.1", port))
        except OSError as error:
            assert error.errno == errno.EADDRNOTAVAIL, error
        finally:
            lb.signal(signal.SIGCONT)
        assert len(holders) == COUNT + 1
        yield
    finally:
        for sock in holders:
            linger_reset(sock)  # a port that waits for the end of TIME_WAIT would not be free
        _RANGE.write_text(before)


def scenario(folder: Path) -> None:
    """503 with Retry-After and its own reason while there is no port; the server is not blamed; then all is well."""
    with Origin() as origin:
        check = {"type": "http", "path": "/health", "interval": "200ms", "timeout": "2s"}
        pool = {"servers": [origin.address], "health_check": check, "circuit_breaker": {"failures": 2}}
        settings: dict[str, object] = {
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
            "pools": {"p": pool},
        }
        with LbProxy(settings, folder) as lb:
            lb.wait_metric("health_checks_total", 1, result="pass")
            discarded = lb.metric("health_checks_total", result="discarded")
            with _no_port_left(lb, origin.port):
                for number in range(CLIENTS):
                    with Client(lb.port("in")) as client:
                        started = time.monotonic()
                        answer = client.ask(get("/no-port") if number % 2 else post("/no-port"))
                        assert time.monotonic() - started < 5.0, "it was tried until a time-out"
                        assert answer.status == 503
                        assert int(answer.get("retry-after") or 0) >= 1
                        assert "local_ports" in (answer.get("proxy-status") or "")
                while lb.metric("health_checks_total", result="discarded") < discarded + 3:
                    time.sleep(LOOK_S)
                entries = lb.entries("/no-port", CLIENTS)
                assert {(entry["status"], entry["end"]) for entry in entries} == {(503, "local_ports")}
                assert lb.metric("upstream_errors_total", reason="local_ports") == CLIENTS
            assert lb.metric("server_up") == 1
            assert lb.metric("server_transitions_total", to="down") == 0
            assert lb.metric("server_ejections_total") == 0
            assert not [request for request in origin.requests if request.target == "/no-port"]
            passed = lb.metric("health_checks_total", result="pass")
            lb.wait_metric("health_checks_total", passed + 1, result="pass")
            assert lb.metric("upstream_errors_total", reason="local_ports") == CLIENTS
            with Client(lb.port("in")) as client:
                assert client.ask(get("/port")).status == 200
            wait_until(lambda: not lb.metric("server_inflight"), "nothing to be in flight")
            lb.check_idle()


if __name__ == "__main__":
    _loopback_up()
    scenario(Path(sys.argv[1]))
