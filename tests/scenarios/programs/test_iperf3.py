"""iperf3 through TCP mode: what it sent is what it received, one stream or several, in either direction."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.daemon import LbProxy
from tests.support.programs import started
from tests.support.servers import needed

TOTAL = 50 * 1024 * 1024


@pytest.fixture(scope="module")
def lb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LbProxy]:
    folder = tmp_path_factory.mktemp("iperf3")

    def command(port: int) -> list[str]:
        return [needed("iperf3"), "-s", "-B", "127.0.0.1", "-p", str(port)]

    with started(command, folder, "iperf3") as (_, port):
        # Its connections belong together, so they need one server; and it serves one client at a time: no checks.
        pool = {"servers": [f"127.0.0.1:{port}"], "health_check": "off"}
        listener = {"name": "in", "bind": "127.0.0.1:0", "mode": "tcp", "pool": "one"}
        with LbProxy({"listeners": [listener], "pools": {"one": pool}}, folder) as daemon:
            yield daemon


@pytest.mark.parametrize("options", [[], ["-R"], ["-P", "4"], ["-R", "-P", "4"]], ids=" ".join)
def test_every_byte_arrives(lb: LbProxy, options: list[str]) -> None:
    before = lb.metric("tcp_bytes_total", direction="out" if "-R" in options else "in")
    command = [needed("iperf3"), "-c", "127.0.0.1", "-p", str(lb.port("in")), "-n", str(TOTAL), "-J", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150)
    report = json.loads(done.stdout)
    assert done.returncode == 0 and "error" not in report, report.get("error")
    end = report["end"]
    assert end["sum_sent"]["bytes"] >= TOTAL
    lb.check_idle()
    grown = lb.metric("tcp_bytes_total", direction="out" if "-R" in options else "in") - before
    # The control connection adds some; what the sender still had in its buffers at the end may be lost.
    assert end["sum_received"]["bytes"] <= grown <= end["sum_sent"]["bytes"] + 100_000
    # It ends its data connections while bytes are on the way, which is a reset.
    assert {entry["end"] for entry in lb.access_log()} <= {"ok", "reset", "client_abort"}
